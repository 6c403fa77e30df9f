//! What requests need of the worker that serves them: the newest generation, how far the end has
//! come, counters and idle connections.
//!
//! It stands below requests and tunnels and knows neither.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use wssgate_metrics::Gauge;

use crate::auth::revocations::Revocations;
use crate::dashboard::Desk;
use crate::generation::Generation;
use crate::listen::Listener;
use crate::metrics::{Metrics, WorkerCounters};
use crate::peers::{IdlePool, Shortages};

/// How far the end of a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accepting.
    Serving,
    /// Accepting still, but `readiness` asks clients to go elsewhere.
    Leaving,
    /// Another process accepts in our place: idle connections close, requests are answered with
    /// `Connection: close`, tunnels live on. Unlike the others this may be taken back.
    Yielding,
    /// Finishing: nothing is accepted, idle connections close, requests are answered with
    /// `Connection: close`, tunnels live on.
    Draining,
    /// Everything closes at once.
    Stopping,
}

/// What the requests of one worker share, as an `Rc`.
#[derive(Debug)]
pub struct Site {
    /// Which worker; counted from 0.
    pub id: usize,
    /// What this worker counts.
    pub metrics: Arc<WorkerCounters>,
    /// What all workers count, for `stub_status` and `prometheus`.
    pub all_metrics: Metrics,
    /// The sockets that are open, for `prometheus`.
    pub(crate) listeners: watch::Receiver<Vec<Arc<Listener>>>,
    /// Who answers pages of `dashboard`, if anybody does.
    pub(crate) desk: Option<Desk>,
    /// The newest generation.
    pub current: Arc<ArcSwap<Generation>>,
    /// How far the main thread wants workers to end.
    pub wanted_phase: watch::Receiver<Phase>,
    /// Idle connections to upstreams.
    pub idle_upstreams: IdlePool,
    /// What was short when connections to upstreams were to be made.
    pub shortages: Shortages,
    /// Tells all workers that a peer has become unhealthy whose tunnels are to end.
    pub unhealthy: watch::Sender<()>,
    /// What operators have revoked.
    pub(crate) revocations: Arc<Revocations>,
    /// The connections and tunnels that are open.
    pub(crate) live: Rc<Live>,
}

impl Site {
    /// The newest generation. Hold it for a request or a tunnel, not for an idle connection: it
    /// ends when nobody holds it.
    pub fn generation(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// How far the end of this worker has come.
    pub fn phase(&self) -> Phase {
        *self.wanted_phase.borrow()
    }

    /// Resolves once the worker is in `phase` or beyond.
    pub async fn reached(&self, phase: Phase) {
        // An error means that the main thread is gone, which is the end as well.
        let _ = self.wanted_phase.clone().wait_for(|wanted| *wanted >= phase).await;
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
    counters: Arc<WorkerCounters>,
}

impl Open {
    fn new(entered: Entered, counters: &Arc<WorkerCounters>) -> Self {
        let open = Self { _entered: entered, counters: Arc::clone(counters) };
        open.gauges().for_each(Gauge::increment);
        open
    }

    /// The counters of its worker.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
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
