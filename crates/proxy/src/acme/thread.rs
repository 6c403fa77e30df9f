//! The thread that obtains certificates.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, LocalSet};
use wssgate_acme::{Challenges, Keeper, Order, Session};
use wssgate_sys::privileges;

use super::{Held, Key, Settings};

/// A certificate to keep.
pub(super) struct Job {
    pub(super) settings: Settings,
    pub(super) order: Order,
    pub(super) held: Arc<Held>,
}

impl Job {
    pub(super) fn key(&self) -> Key {
        super::key(&self.settings.issuer, &self.order)
    }
}

/// The thread, which starts with the first job.
#[derive(Default)]
pub(super) struct Thread(Mutex<Option<UnboundedSender<Vec<Job>>>>);

impl Thread {
    /// Keeps these certificates instead of those before.
    pub(super) fn follow(&self, jobs: Vec<Job>, challenges: &Arc<Challenges>) -> io::Result<()> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.is_none() && jobs.is_empty() {
            return Ok(());
        }
        let orders = match &mut *orders {
            Some(running) if !running.is_closed() => running,
            none => none.insert(start(challenges)?),
        };
        // It listens until we are gone.
        let _ = orders.send(jobs);
        Ok(())
    }
}

fn start(challenges: &Arc<Challenges>) -> io::Result<UnboundedSender<Vec<Job>>> {
    let (sender, receiver) = unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let challenges = Arc::clone(challenges);
    thread::Builder::new().name("acme".into()).spawn(move || {
        // What cannot be dropped cannot be used either where it matters: all it needs is to write its state.
        let _ = privileges::drop_capabilities();
        LocalSet::new().block_on(&runtime, run(receiver, challenges));
    })?;
    Ok(sender)
}

/// An issuer at work, and its certificates.
struct Running {
    session: Arc<Session>,
    /// Whether it had other settings before.
    changed: bool,
    keepers: HashMap<Order, Working>,
}

/// A keeper at work.
struct Working {
    task: AbortHandle,
    nudge: Arc<Notify>,
}

/// Works until nobody is left who could want anything.
async fn run(mut wanted: UnboundedReceiver<Vec<Job>>, challenges: Arc<Challenges>) {
    let mut running: HashMap<String, Running> = HashMap::new();
    while let Some(jobs) = wanted.recv().await {
        let wants = |name: &str, order: &Order| {
            jobs.iter().any(|job| job.settings.issuer.name == name && job.order == *order)
        };
        for (name, issuer) in &mut running {
            issuer.keepers.retain(|order, keeper| {
                let wanted = wants(name, order);
                if !wanted {
                    keeper.task.abort();
                }
                wanted
            });
        }
        running.retain(|_, issuer| !issuer.keepers.is_empty());
        for job in jobs {
            keep(&mut running, job, &challenges);
        }
    }
}

/// Keeps a certificate; one that is kept already goes on unless its issuer has other settings now, and what has
/// failed is tried again.
fn keep(running: &mut HashMap<String, Running>, job: Job, challenges: &Arc<Challenges>) {
    let Settings { issuer, transport, dns } = job.settings;
    let name = issuer.name.clone();
    let mut changed = false;
    if let Some(other) = running.get(&name).filter(|other| other.session.issuer != issuer) {
        other.keepers.values().for_each(|keeper| keeper.task.abort());
        running.remove(&name);
        changed = true;
    }
    let of_issuer = running.entry(name).or_insert_with(|| {
        let session = Session::new(issuer, transport.clone(), Arc::clone(challenges));
        Running { session: Arc::new(session), keepers: HashMap::new(), changed }
    });
    of_issuer.session.work_by(transport, dns);
    let at_work = |keeper: &&Working| !keeper.task.is_finished();
    if let Some(keeper) = of_issuer.keepers.get(&job.order).filter(at_work) {
        return keeper.nudge.notify_one();
    }
    let (session, chain) = (Arc::clone(&of_issuer.session), job.held.chain());
    let keeper = Keeper::new(session, job.order.clone(), job.held, chain, of_issuer.changed);
    let nudge = keeper.nudge();
    let task = tokio::task::spawn_local(keeper.run()).abort_handle();
    of_issuer.keepers.insert(job.order, Working { task, nudge });
}
