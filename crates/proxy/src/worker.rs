//! One worker: its front runtime and its relay thread.
//!
//! A worker is one thread with a single-threaded runtime, so its tasks share a [`Worker`] by `Rc`
//! and lock nothing. The main thread speaks to it through two watched values: the listening
//! sockets and the [`Orders`].

#[cfg(feature = "fuzz")]
pub mod fuzz;
mod thread;
mod tunnels;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::generation::Generation;
use crate::metrics::{Counters, Gauge, Metrics};
use crate::tunnel::Tunnel;
use crate::upstream::IdlePool;

pub(crate) use thread::{Seed, WorkerThread};
use tunnels::Tunnels;
use wssgate_relay::{EndCause, Handover, RelayHandle, Selection};

/// How far the end of a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accepting.
    Serving,
    /// Finishing: nothing is accepted, idle connections close, requests are answered with
    /// `Connection: close`, tunnels live on.
    Draining,
    /// Everything closes at once.
    Stopping,
}

/// What the main thread wants of all workers.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// How far to end.
    pub phase: Phase,
    /// The number of the newest generation.
    pub generation: u64,
}

/// One worker thread; shared by its tasks as an `Rc`.
#[derive(Debug)]
pub struct Worker {
    /// Counted from 0.
    pub id: usize,
    /// What this worker counts.
    pub metrics: Arc<Counters>,
    /// What all workers count, for `stub_status`.
    pub all_metrics: Metrics,
    /// The newest generation.
    pub current: Arc<ArcSwap<Generation>>,
    /// What the main thread wants.
    pub orders: watch::Receiver<Orders>,
    /// The way to this worker's relay thread; [`Worker::carry`] is how tunnels get there.
    pub relay: RelayHandle,
    /// Idle connections to upstreams.
    pub idle_upstreams: IdlePool,
    tunnels: Rc<Tunnels>,
    /// Tells that the relay is to be woken for what was handed over.
    handed_over: Rc<Notify>,
    live: Rc<Live>,
}

impl Worker {
    /// The newest generation. Hold it for a request or a tunnel, not for an idle connection: it
    /// ends when nobody holds it.
    pub fn generation(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// How far the end of this worker has come.
    pub fn phase(&self) -> Phase {
        self.orders.borrow().phase
    }

    /// Resolves once the worker is in `phase` or beyond.
    pub async fn reached(&self, phase: Phase) {
        // An error means that the main thread is gone, which is the end as well.
        let _ = self.orders.clone().wait_for(|orders| orders.phase >= phase).await;
    }

    /// Resolves once a generation newer than `number` is current.
    ///
    /// An idle connection that holds a generation must let go of it then.
    pub async fn superseded(&self, number: u64) {
        let _ = self.orders.clone().wait_for(|orders| orders.generation > number).await;
    }

    /// Gives a tunnel to the relay; `tunnel` hears of its end. The ticket is filled in here.
    ///
    /// When its generation expires, the main thread has the relay close it.
    pub(crate) fn carry(&self, mut handover: Handover, tunnel: Tunnel) {
        let life = tunnel.generation().life().clone();
        let ticket = self.tunnels.enter(tunnel);
        handover.ticket = ticket;
        if self.relay.hand_over(handover).is_err() {
            return self.tunnels.end(ticket, &tunnels::stopped());
        }
        self.handed_over.notify_one();
        if life.has_expired() {
            // The request to close this generation may have come before the tunnel did.
            let _ = self.relay.close(Selection::Ticket(ticket), EndCause::Drained);
        }
    }

    /// Counts an open tunnel until the answer is dropped.
    pub(crate) fn open(&self) -> Open {
        Open::new(self.live.enter(), &self.metrics)
    }
}

/// An open tunnel: as a connection of its worker, and as `stub_status` counts it.
#[derive(Debug)]
pub(crate) struct Open {
    _entered: Entered,
    counters: Arc<Counters>,
}

impl Open {
    fn new(entered: Entered, counters: &Arc<Counters>) -> Self {
        let open = Self { _entered: entered, counters: Arc::clone(counters) };
        open.gauges().for_each(Gauge::increment);
        open
    }

    fn gauges(&self) -> impl Iterator<Item = &Gauge> {
        [&self.counters.tunnels, &self.counters.active, &self.counters.writing].into_iter()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauges().for_each(Gauge::decrement);
    }
}

/// How many connections of a worker are open.
#[derive(Debug, Default)]
pub(crate) struct Live {
    count: Cell<usize>,
    none: Notify,
}

impl Live {
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Counts one more until the answer is dropped.
    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        self.count.set(self.count.get() + 1);
        Entered(Rc::clone(self))
    }

    /// Resolves when there are none.
    pub(crate) async fn ended(&self) {
        while self.count.get() > 0 {
            self.none.notified().await;
        }
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Entered(Rc<Live>);

impl Drop for Entered {
    fn drop(&mut self) {
        let left = self.0.count.get() - 1;
        self.0.count.set(left);
        if left == 0 {
            // Keeps a permit, so an end between a look and a wait is not missed.
            self.0.none.notify_one();
        }
    }
}
