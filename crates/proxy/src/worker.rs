//! One worker: its front runtime and its relay thread.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::generation::Generation;
use crate::metrics::{Counters, Metrics};

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
}
