//! The thread that asks DNS servers, for all workers.
//!
//! It starts with the first question. Each name that is being looked up is a task; who asks for the
//! same name meanwhile waits for the same answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use wssgate_config::model::LogLevel;
use wssgate_dns::Failure;
use wssgate_sys::privileges;

use super::{Answer, Key, Resolver, wire};
use crate::log::ErrorLog;

/// Names that are looked up at once; requests for more fail.
const MAX_FLIGHTS: usize = 1000;

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
        until: Instant,
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
    pub(crate) fn instead_do(&self, jobs: Vec<Job>) {
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

    /// Gives an order. The thread is started if it does not run.
    pub(super) fn order(&self, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order = match &*orders {
            Some(running) => match running.send(order) {
                Ok(()) => return,
                // It has panicked.
                Err(unsent) => unsent.0,
            },
            None => order,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        match thread::Builder::new().name("resolver".into()).spawn(move || run(receiver)) {
            Ok(_) => {
                // It has just started and still listens.
                let _ = sender.send(order);
                *orders = Some(sender);
            }
            Err(error) => {
                let error = crate::errno_text(&error);
                let text = format_args!("starting the resolver thread failed ({error})");
                self.log_seldom(LogLevel::Alert, text);
            }
        }
    }
}

/// Works until nobody is left who could give orders.
fn run(mut orders: mpsc::UnboundedReceiver<Order>) {
    // What cannot be dropped cannot be used either where it matters: sockets here need no rights.
    let _ = privileges::drop_capabilities();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let flights = Rc::new(Flights::default());
    LocalSet::new().block_on(&runtime, async {
        let mut jobs = JoinSet::new();
        while let Some(order) = orders.recv().await {
            match order {
                Order::LookUp { resolver, key, until, told } => {
                    flights.board(resolver, key, until, told);
                }
                Order::Do(new) => {
                    jobs.abort_all();
                    jobs = JoinSet::new();
                    for job in new.into_iter().flat_map(|job| job()) {
                        jobs.spawn_local(job);
                    }
                }
            }
        }
    });
}

/// The names that are being looked up, each by its resolver's address in memory: a flight holds its
/// resolver, so no other has that address.
#[derive(Default)]
struct Flights(RefCell<HashMap<(usize, Key), Flight>>);

struct Flight {
    /// The longest that anybody waits.
    until: Rc<Cell<Instant>>,
    waiting: Vec<oneshot::Sender<Told>>,
}

impl Flights {
    /// Waits for a name with those who do already, or begins to look it up.
    fn board(
        self: &Rc<Self>,
        resolver: Arc<Resolver>,
        key: Key,
        until: Instant,
        told: Option<oneshot::Sender<Told>>,
    ) {
        let mut flights = self.0.borrow_mut();
        let full = flights.len() >= MAX_FLIGHTS;
        let id = (Arc::as_ptr(&resolver).addr(), key);
        match flights.entry(id.clone()) {
            Entry::Occupied(mut flight) => {
                let flight = flight.get_mut();
                flight.until.set(flight.until.get().max(until));
                // Requests that were given up no longer wait.
                flight.waiting.retain(|told| !told.is_closed());
                flight.waiting.extend(told);
            }
            Entry::Vacant(_) if full => {
                let text = format_args!("{MAX_FLIGHTS} names are being looked up, no more can be");
                resolver.thread.log_seldom(LogLevel::Error, text);
            }
            Entry::Vacant(free) => {
                let until = Rc::new(Cell::new(until));
                let waiting = told.into_iter().collect();
                free.insert(Flight { until: Rc::clone(&until), waiting });
                tokio::task::spawn_local(fly(Rc::clone(self), resolver, id, until));
            }
        }
    }
}

/// Looks a name up and tells all who wait for it.
async fn fly(
    flights: Rc<Flights>,
    resolver: Arc<Resolver>,
    id: (usize, Key),
    until: Rc<Cell<Instant>>,
) {
    let landing = Landing { flights, id };
    let key = &landing.id.1;
    let outcome = wire::look_up(&resolver, key, &until).await;
    let told = resolver.take_in(key, outcome);
    let flight = landing.flights.0.borrow_mut().remove(&landing.id);
    for waiting in flight.into_iter().flat_map(|flight| flight.waiting) {
        // Who does not wait any longer need not be told.
        let _ = waiting.send(told.clone());
    }
}

/// A flight that is over, even if it panics: nobody must wait for it any longer.
struct Landing {
    flights: Rc<Flights>,
    id: (usize, Key),
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.0.borrow_mut().remove(&self.id);
    }
}
