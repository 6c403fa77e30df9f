//! The thread that asks DNS servers, for all workers.
//!
//! It starts with the first question. Each name that is being looked up is a task, a flight; who asks
//! for the same name meanwhile waits for the same answer. A flight ends when nobody waits for it any
//! longer, and after [`FLIGHT`] whoever does: the next one has nothing of what went wrong in it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use wssgate_config::model::LogLevel;
use wssgate_dns::{Failure, Outcome};
use wssgate_sys::privileges;

use super::{Answer, Key, Resolver, wire};
use crate::log::ErrorLog;

/// Names that are looked up at once; requests for more fail.
const MAX_FLIGHTS: usize = 1000;

/// Names of those that servers are asked for at once; the others wait for their turn.
const AT_ONCE: usize = 256;

/// Sockets to servers at once.
pub(crate) const MAX_SOCKETS: usize = AT_ONCE * wire::MAX_SOCKETS;

/// How long a flight may take, from its start. Who waits longer boards the next one.
const FLIGHT: Duration = Duration::from_secs(10);

/// How long the thread waits before it tries again to get what it works with.
const REST: Duration = Duration::from_secs(1);

/// What goes on for long is told this often.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Something that goes on beside lookups until others take its place; made on the thread.
pub(crate) type Job = Box<dyn FnOnce() -> Vec<Pin<Box<dyn Future<Output = ()>>>> + Send>;

/// What the thread is to do.
pub(super) enum Order {
    /// Look a name up.
    LookUp {
        resolver: Arc<Resolver>,
        key: Key,
        /// Who waits for it; if nobody does, it is worth to be known all the same.
        told: Option<oneshot::Sender<Told>>,
    },
    /// Do these instead of those before.
    Do(Vec<Job>),
}

/// What those are told who wait for a name.
pub(super) type Told = Result<Arc<Answer>, Failure>;

/// The thread that asks DNS servers.
#[derive(Default)]
pub struct ResolverThread {
    orders: Mutex<Option<mpsc::UnboundedSender<Order>>>,
    log: ArcSwapOption<ErrorLog>,
    told_at: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for ResolverThread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ResolverThread").finish_non_exhaustive()
    }
}

impl ResolverThread {
    /// Tells from now on in this log what nobody's request is to blame for.
    pub(crate) fn log_to(&self, log: &Arc<ErrorLog>) {
        self.log.store(Some(Arc::clone(log)));
    }

    /// Does these jobs instead of those before.
    pub(crate) fn instead_do(self: &Arc<Self>, jobs: Vec<Job>) {
        let runs = self.orders.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if runs || !jobs.is_empty() {
            self.order(Order::Do(jobs));
        }
    }

    pub(crate) fn log(&self, level: LogLevel, message: impl Display) {
        if let Some(log) = &*self.log.load() {
            log.write(level, None, message);
        }
    }

    /// The same for what happens all the time while something is wrong.
    pub(super) fn log_seldom(&self, level: LogLevel, message: impl Display) {
        let now = Instant::now();
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_INTERVAL) {
            *told_at = Some(now);
            drop(told_at);
            self.log(level, message);
        }
    }

    /// Gives an order. The thread is started if it does not run; once it runs it lasts as long as this,
    /// so nothing that it was told to do is forgotten.
    pub(super) fn order(self: &Arc<Self>, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = match &mut *orders {
            Some(running) => running,
            none => {
                let (sender, receiver) = mpsc::unbounded_channel();
                let this = Arc::downgrade(self);
                let thread = thread::Builder::new().name("resolver".into());
                if let Err(error) = thread.spawn(move || run(&this, receiver)) {
                    let error = crate::errno_text(&error);
                    let text = format_args!("starting the resolver thread failed ({error})");
                    return self.log_seldom(LogLevel::Alert, text);
                }
                none.insert(sender)
            }
        };
        // It listens until we are gone.
        let _ = orders.send(order);
    }
}

/// Works until nobody is left who could give orders.
fn run(owner: &Weak<ResolverThread>, mut orders: mpsc::UnboundedReceiver<Order>) {
    // What cannot be dropped cannot be used either where it matters: sockets here need no rights.
    let _ = privileges::drop_capabilities();
    let Some(runtime) = runtime(owner) else { return };
    let flights = Rc::new(Flights::default());
    LocalSet::new().block_on(&runtime, async {
        let mut jobs = JoinSet::new();
        while let Some(order) = orders.recv().await {
            // One order that goes wrong must not cost the others. What it has begun is whole: entries
            // of a map and tasks.
            let obeyed = catch_unwind(AssertUnwindSafe(|| obey(order, &flights, &mut jobs)));
            if obeyed.is_err()
                && let Some(owner) = owner.upgrade()
            {
                owner.log(LogLevel::Alert, "an order to the resolver thread has panicked");
            }
        }
    });
}

/// Needs descriptors, of which there may be none just now.
fn runtime(owner: &Weak<ResolverThread>) -> Option<Runtime> {
    loop {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => return Some(runtime),
            Err(error) => {
                let error = crate::errno_text(&error);
                let text = format_args!("the resolver thread cannot start yet ({error})");
                owner.upgrade()?.log_seldom(LogLevel::Alert, text);
                thread::sleep(REST);
            }
        }
    }
}

fn obey(order: Order, flights: &Rc<Flights>, jobs: &mut JoinSet<()>) {
    match order {
        Order::LookUp { resolver, key, told } => flights.board(resolver, key, told),
        Order::Do(new) => {
            *jobs = JoinSet::new();
            for job in new {
                // The others still have theirs.
                let begun = catch_unwind(AssertUnwindSafe(job)).unwrap_or_default();
                begun.into_iter().for_each(|job| drop(jobs.spawn_local(job)));
            }
        }
    }
}

/// The names that are being looked up.
struct Flights {
    flights: RefCell<HashMap<Id, Flight>>,
    longest: Duration,
    turns: Semaphore,
}

/// What is looked up, and by whom: the resolver's address in memory. A flight holds its resolver, so
/// no other has that address.
type Id = (usize, Key);

#[derive(Default)]
struct Flight {
    waiting: Vec<oneshot::Sender<Told>>,
    /// Somebody wants to have it looked up and does not wait.
    renewal: bool,
}

impl Default for Flights {
    fn default() -> Self {
        Self { flights: RefCell::default(), longest: FLIGHT, turns: Semaphore::new(AT_ONCE) }
    }
}

impl Flights {
    /// Waits for a name with those who do already, or begins to look it up.
    fn board(
        self: &Rc<Self>,
        resolver: Arc<Resolver>,
        key: Key,
        told: Option<oneshot::Sender<Told>>,
    ) {
        let mut flights = self.flights.borrow_mut();
        let full = flights.len() >= MAX_FLIGHTS;
        let id = (Arc::as_ptr(&resolver).addr(), key);
        match flights.entry(id.clone()) {
            Entry::Occupied(mut flight) => flight.get_mut().board(told),
            Entry::Vacant(_) if full => {
                let text =
                    format_args!("{MAX_FLIGHTS} names are being resolved, which is the limit");
                resolver.thread.log_seldom(LogLevel::Error, text);
            }
            Entry::Vacant(free) => {
                free.insert(Flight::default()).board(told);
                tokio::task::spawn_local(fly(Rc::clone(self), resolver, id));
            }
        }
    }

    /// Waits until nobody wants to know any longer.
    async fn deserted(&self, id: &Id) {
        poll_fn(|context| match self.flights.borrow_mut().get_mut(id) {
            Some(flight) => flight.poll_deserted(context),
            None => Poll::Ready(()),
        })
        .await;
    }
}

impl Flight {
    fn board(&mut self, told: Option<oneshot::Sender<Told>>) {
        self.renewal |= told.is_none();
        if self.waiting.len() == self.waiting.capacity() {
            // Requests that were given up no longer wait. As there is room for twice as many then,
            // each is looked at a few times only.
            self.waiting.retain(|told| !told.is_closed());
            self.waiting.reserve(self.waiting.len() + 1);
        }
        self.waiting.extend(told);
    }

    /// One who waits is enough, and tells us when that is over.
    fn poll_deserted(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.renewal {
            return Poll::Pending;
        }
        while let Some(told) = self.waiting.last_mut() {
            if told.poll_closed(context).is_pending() {
                return Poll::Pending;
            }
            self.waiting.pop();
        }
        Poll::Ready(())
    }
}

/// Looks a name up and tells all who wait for it.
async fn fly(flights: Rc<Flights>, resolver: Arc<Resolver>, id: Id) {
    let landing = Landing { flights, id };
    let (flights, key) = (&landing.flights, &landing.id.1);
    let asked = async {
        let _turn = flights.turns.acquire().await;
        wire::look_up(&resolver, key).await
    };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(flights.longest, asked) => outcome,
        () = flights.deserted(&landing.id) => return,
    };
    let silence = Outcome::Failed(Failure::Silence, None);
    let told = resolver.take_in(key, outcome.unwrap_or(silence));
    let flight = flights.flights.borrow_mut().remove(&landing.id);
    for waiting in flight.into_iter().flat_map(|flight| flight.waiting) {
        // Who does not wait any longer need not be told.
        let _ = waiting.send(told.clone());
    }
}

/// A flight that is over, even if it panics: nobody must wait for it any longer.
struct Landing {
    flights: Rc<Flights>,
    id: Id,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.flights.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
