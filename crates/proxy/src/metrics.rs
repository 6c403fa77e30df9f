//! Counters, one set per worker, summed when read.
//!
//! A worker only touches its own set, so no cache line is fought over; whoever wants a total adds
//! them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many of something there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less; every call answers one of [`Gauge::increment`].
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct WorkerCounters {
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

/// The counters of all workers.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<[Arc<WorkerCounters>]>);

impl Metrics {
    /// A set for each of `workers`.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    /// The set of one worker.
    pub fn worker(&self, id: usize) -> &Arc<WorkerCounters> {
        &self.0[id]
    }

    /// The sum of one counter over all workers: `metrics.total(|c| c.requests.value())`.
    pub fn total(&self, value: impl Fn(&WorkerCounters) -> u64) -> u64 {
        // Each value is read at another moment, so a sum of gauges may be off by those in motion.
        self.0.iter().map(|counters| value(counters)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_all_workers() {
        let metrics = Metrics::new(2);
        metrics.worker(0).requests.add(2);
        metrics.worker(1).requests.increment();
        assert_eq!(metrics.total(|c| c.requests.value()), 3);
    }

    #[test]
    fn what_is_held_is_counted_once_wherever_it_moves() {
        let metrics = Metrics::new(1);
        let counters = metrics.worker(0);
        let mut held = Held::new(counters, |c| &c.reading);
        assert_eq!((counters.reading.value(), counters.writing.value()), (1, 0));
        held.move_to(|c| &c.writing);
        assert_eq!((counters.reading.value(), counters.writing.value()), (0, 1));
        drop(held);
        assert_eq!((counters.reading.value(), counters.writing.value()), (0, 0));
    }
}
