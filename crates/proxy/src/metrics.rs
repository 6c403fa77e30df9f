//! What is counted: one set of counters per worker, summed when read.
//!
//! A worker only touches its own set, so no cache line is fought over; whoever wants a total adds
//! them up. What is counted by server outlives a reload, found again by the server's name.

mod failures;
mod registry;
mod series;

use std::sync::Arc;
use std::time::SystemTime;

use wssgate_metrics::{Counter, Gauge};
use wssgate_relay as relay;

pub use failures::{ConnectionFailure, Failure, HandshakeFailure, PerKind, Refused};
pub use registry::{MAX_GENERATIONS, MAX_SERVERS, Registry, Reload, Tally};
pub use series::{CAUSES, CLASSES, Ends, ServerCounters, ServerSeries, end_codes, status_class};

/// What one worker counts.
#[derive(Debug, Default)]
// Two cache lines, since processors fetch them in pairs.
#[repr(align(128))]
pub struct WorkerCounters {
    /// Which worker; counted from 0.
    pub id: usize,
    /// Client connections accepted.
    pub accepted: Counter,
    /// Accepted connections that were served and not dropped for a limit.
    pub handled: Counter,
    /// Requests read.
    pub requests: Counter,
    /// Client connections open now, tunnels included.
    pub active: Gauge,
    /// Connections of which a request head is being read.
    pub reading: Gauge,
    /// Connections of which a request is being answered, tunnels included.
    pub writing: Gauge,
    /// Idle connections between two requests.
    pub waiting: Gauge,
    /// Tunnels open now.
    pub tunnels: Gauge,
    /// TLS handshakes with clients that succeeded.
    pub tls_handshakes: Counter,
    /// Connections that came to no request.
    pub failed_connections: PerKind<ConnectionFailure>,
    /// Connections that were accepted and dropped for want of something.
    pub refused: PerKind<Refused>,
    /// Requests for a WebSocket that came to none.
    pub failed_handshakes: PerKind<HandshakeFailure>,
    /// What came of asking about clients again (`websocket_reauth`).
    pub reauths: Reauths,
    /// How tunnels ended.
    pub ends: Ends,
    /// What its relay counts; another relay goes on with it.
    pub relay: Arc<relay::Counters>,
}

/// What came of asking whether clients are still authorized.
#[derive(Debug, Default)]
pub struct Reauths {
    /// They are.
    pub allowed: Counter,
    /// They are not, and their WebSockets were closed.
    pub denied: Counter,
    /// There was no answer, or one that says neither.
    pub failed: Counter,
}

/// One more of a gauge for as long as this value lives.
#[derive(Debug)]
pub struct Held {
    counters: Arc<WorkerCounters>,
    gauge: fn(&WorkerCounters) -> &Gauge,
}

impl Held {
    /// Counts one more: `Held::new(&counters, |c| &c.tunnels)`.
    pub fn new(counters: &Arc<WorkerCounters>, gauge: fn(&WorkerCounters) -> &Gauge) -> Self {
        gauge(counters).increment();
        Self { counters: Arc::clone(counters), gauge }
    }

    /// Moves this one from its gauge to another: reading, then writing, then waiting.
    pub fn move_to(&mut self, gauge: fn(&WorkerCounters) -> &Gauge) {
        // In this order, so that whoever adds up between the two counts one too many and not none.
        gauge(&self.counters).increment();
        (self.gauge)(&self.counters).decrement();
        self.gauge = gauge;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).decrement();
    }
}

/// All that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    workers: Arc<[Arc<WorkerCounters>]>,
    /// What is counted by what the configuration names.
    pub registry: Arc<Registry>,
    /// When counting began, by the wall clock.
    pub started: SystemTime,
}

impl Metrics {
    /// A set for each of `workers`.
    pub fn new(workers: usize, registry: Arc<Registry>) -> Self {
        let one = |id| Arc::new(WorkerCounters { id, ..WorkerCounters::default() });
        Self { workers: (0..workers).map(one).collect(), registry, started: SystemTime::now() }
    }

    /// The set of one worker.
    pub fn worker(&self, id: usize) -> &Arc<WorkerCounters> {
        &self.workers[id]
    }

    /// The sets of all workers.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerCounters> + Clone {
        self.workers.iter().map(|counters| &**counters)
    }

    /// The sum of one counter over all workers: `metrics.total(|c| c.requests.value())`.
    pub fn total(&self, value: impl Fn(&WorkerCounters) -> u64) -> u64 {
        // Each value is read at another moment, so a sum of gauges may be off by those in motion.
        self.workers().map(value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_all_workers() {
        let metrics = Metrics::new(2, Arc::default());
        metrics.worker(0).requests.add(2);
        metrics.worker(1).requests.increment();
        assert_eq!(metrics.total(|c| c.requests.value()), 3);
    }

    #[test]
    fn what_is_held_is_counted_once_wherever_it_moves() {
        let metrics = Metrics::new(1, Arc::default());
        let counters = metrics.worker(0);
        let mut held = Held::new(counters, |c| &c.reading);
        assert_eq!((counters.reading.value(), counters.writing.value()), (1, 0));
        held.move_to(|c| &c.writing);
        assert_eq!((counters.reading.value(), counters.writing.value()), (0, 1));
        drop(held);
        assert_eq!((counters.reading.value(), counters.writing.value()), (0, 0));
    }
}
