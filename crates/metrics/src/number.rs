//! Numbers that one thread writes and others read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows. One thread writes it at a time.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    #[inline]
    pub fn add(&self, count: u64) {
        // Only this thread writes, so nothing can come between the two, and no bus lock is needed.
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many of something there are now. One thread writes it at a time.
#[derive(Debug, Default)]
pub struct Gauge(Counter);

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.0.add(1);
    }

    /// One less; every call answers one of [`Gauge::increment`].
    pub fn decrement(&self) {
        self.0.add(u64::MAX);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.value()
    }
}

/// How many times there were of each length, up to `N` bounds and beyond them. One thread writes it at a
/// time.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [Duration; N],
    within: [Counter; N],
    beyond: Counter,
    sum_us: Counter,
}

impl<const N: usize> Histogram<N> {
    /// Nothing was counted; `bounds` grow, and each belongs to what is below it.
    pub fn new(bounds: &'static [Duration; N]) -> Self {
        let within = std::array::from_fn(|_| Counter::default());
        Self { bounds, within, beyond: Counter::default(), sum_us: Counter::default() }
    }

    /// Counts one.
    pub fn observe(&self, time: Duration) {
        let at = self.bounds.iter().position(|bound| time <= *bound);
        at.map_or(&self.beyond, |at| &self.within[at]).increment();
        self.sum_us.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds what was counted to a sum over several of the same bounds.
    pub fn add_to(&self, sum: &mut Seconds) {
        if sum.bounds.is_empty() {
            sum.bounds = self.bounds;
            sum.counts = vec![0; N + 1];
        }
        debug_assert_eq!(sum.bounds, self.bounds);
        let counts = self.within.iter().chain([&self.beyond]);
        for (sum, count) in sum.counts.iter_mut().zip(counts) {
            *sum += count.value();
        }
        sum.sum_us = sum.sum_us.wrapping_add(self.sum_us.value());
    }
}

/// What several histograms of the same bounds have counted, read at one time.
#[derive(Clone, Debug, Default)]
pub struct Seconds {
    pub(crate) bounds: &'static [Duration],
    /// For each bound those that are below it and above the one before; then those beyond all.
    pub(crate) counts: Vec<u64>,
    pub(crate) sum_us: u64,
}

impl Seconds {
    /// The sum of histograms of the same bounds.
    pub fn of<'h, const N: usize>(all: impl IntoIterator<Item = &'h Histogram<N>>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|one| one.add_to(&mut sum));
        sum
    }

    /// The bounds; none if nothing was added up.
    pub fn bounds(&self) -> &'static [Duration] {
        self.bounds
    }

    /// For each bound how many are below it and above the one before; then those beyond all.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if self.bounds.is_empty() {
            *self = other.clone();
            return;
        }
        debug_assert_eq!(self.bounds, other.bounds);
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static BOUNDS: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(1)];

    #[test]
    fn a_gauge_goes_up_and_down() {
        let gauge = Gauge::default();
        gauge.increment();
        gauge.increment();
        gauge.decrement();
        assert_eq!(gauge.value(), 1);
        gauge.decrement();
        assert_eq!(gauge.value(), 0);
    }

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        let one = Histogram::new(&BOUNDS);
        for micros in [0, 1_000, 1_001, 1_000_000, 1_000_001] {
            one.observe(Duration::from_micros(micros));
        }
        let two = Histogram::new(&BOUNDS);
        two.observe(Duration::from_secs(9));
        let sum = Seconds::of([&one, &two]);
        assert_eq!(sum.counts, [2, 2, 2]);
        assert_eq!((sum.count(), sum.sum_us), (6, 11_002_002));
    }
}
