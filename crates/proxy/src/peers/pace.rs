//! How fast a peer answers: what `least_time` looks at.
//!
//! Averages are nginx's, in which each time has a twentieth of the weight. What waits for an answer
//! is only counted with `inflight`, under a short lock of the peer.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wssgate_config::model::TimeOf;

use crate::clock::millis;

/// The times of a peer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    header: Average,
    last_byte: Average,
    inflight: Mutex<Inflight>,
}

impl Pace {
    /// An answer took so long.
    pub(super) fn add(&self, of: TimeOf, took: Duration) {
        self.average(of).add(took);
    }

    /// The average in milliseconds; 0 before the first answer.
    pub(super) fn milliseconds(&self, of: TimeOf) -> u64 {
        self.average(of).milliseconds()
    }

    /// The average time, in milliseconds, for which requests wait for an answer now; `None` if there
    /// are none.
    pub(super) fn waiting(&self, now: Instant) -> Option<u64> {
        self.inflight().observe(now)
    }

    /// A request is sent.
    pub(super) fn begin(&self, now: Instant) {
        self.inflight().begin(now);
    }

    /// A request that was sent has its answer, or never will have.
    pub(super) fn end(&self, took: Duration, now: Instant) {
        self.inflight().end(took, now);
    }

    fn average(&self, of: TimeOf) -> &Average {
        match of {
            TimeOf::Header => &self.header,
            TimeOf::LastByte => &self.last_byte,
        }
    }

    fn inflight(&self) -> MutexGuard<'_, Inflight> {
        // What a thread that panicked has left are numbers all the same.
        self.inflight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds; 0 is none yet.
#[derive(Debug, Default)]
struct Average(AtomicU64);

impl Average {
    fn milliseconds(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn add(&self, took: Duration) {
        let took = millis(took);
        // Of two workers that do this at once one may be lost.
        self.0.store(averaged(self.milliseconds(), took), Relaxed);
    }
}

/// Requests that wait for an answer.
#[derive(Debug, Default)]
struct Inflight {
    requests: u64,
    /// For how long all of them together had waited at `changed`, in milliseconds.
    waited: u64,
    changed: Option<Instant>,
    average: u64,
    observed: Option<Instant>,
}

impl Inflight {
    fn begin(&mut self, now: Instant) {
        self.count(now);
        self.requests += 1;
    }

    fn end(&mut self, took: Duration, now: Instant) {
        self.count(now);
        self.requests = self.requests.saturating_sub(1);
        self.waited = match self.requests {
            0 => 0,
            _ => self.waited.saturating_sub(millis(took)),
        };
    }

    fn observe(&mut self, now: Instant) -> Option<u64> {
        if self.requests == 0 {
            return None;
        }
        if self.observed != Some(now) {
            // One choice compares a peer with several others.
            self.observed = Some(now);
            self.count(now);
            self.average = averaged(self.average, self.waited / self.requests);
        }
        Some(self.average)
    }

    fn count(&mut self, now: Instant) {
        let since = self.changed.map(|changed| now.saturating_duration_since(changed));
        let since = millis(since.unwrap_or_default());
        self.waited = self.waited.saturating_add(since.saturating_mul(self.requests));
        self.changed = Some(now);
    }
}

fn averaged(average: u64, added: u64) -> u64 {
    match average {
        0 => added,
        _ => average.saturating_mul(19).saturating_add(added).saturating_add(10) / 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_first_time_is_the_average_and_others_move_it_by_a_twentieth() {
        let pace = Pace::default();
        for (took, average) in [(4000, 4000), (0, 3800), (0, 3610), (10_000, 3930)] {
            pace.add(TimeOf::Header, ms(took));
            assert_eq!(pace.milliseconds(TimeOf::Header), average, "after {took}");
        }
        assert_eq!(pace.milliseconds(TimeOf::LastByte), 0);
        let huge = averaged(u64::MAX, u64::MAX);
        assert!(huge > 0);
    }

    #[test]
    fn what_waits_counts_until_it_has_its_answer() {
        let (pace, began) = (Pace::default(), Instant::now());
        assert_eq!(pace.waiting(began), None);
        pace.begin(began);
        pace.begin(began + ms(100));
        for _ in 0..2 {
            assert_eq!(pace.waiting(began + ms(200)), Some(150), "200 and 100");
        }
        pace.end(ms(200), began + ms(200));
        assert_eq!(pace.waiting(began + ms(1100)), Some(193), "1000, by a twentieth");
        pace.end(ms(1000), began + ms(1100));
        assert_eq!(pace.waiting(began + ms(5000)), None);
    }
}
