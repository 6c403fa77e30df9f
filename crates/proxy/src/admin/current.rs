//! How much passes through tunnels now, for those who ask.
//!
//! A relay keeps totals and no rates, so that a message costs nothing more. Who asks for current rates has the
//! totals of this walk kept for the next one, and is told the difference. Nothing is kept of those who ask for
//! nothing, nor of those who ask no more ([`KEEP`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::walk::Row;
use crate::clock::millis;

/// The shortest time that a rate is told of: in less, one message more or less would be all of it.
const LEAST: Duration = Duration::from_secs(1);

/// How long totals are kept when nobody asks: a rate over a longer time is not the current one.
pub(super) const KEEP: Duration = Duration::from_secs(10);

/// What passed lately, both directions together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Current {
    /// Bytes per second.
    pub(super) bytes: u64,
    /// Messages per second.
    pub(super) messages: f64,
    /// Since when: the time between two walks, or since it began.
    pub(super) over: Duration,
}

/// The totals of one tunnel.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    id: u64,
    age_ms: u64,
    bytes: u64,
    messages: u64,
}

impl Sample {
    fn of(row: &Row) -> Self {
        let (client, upstream) = (&row.live.passed.client, &row.live.passed.upstream);
        let messages =
            [client, upstream].map(|side| side.frames.map_or(0, |counts| counts.messages));
        Self {
            id: row.about.id,
            age_ms: millis(row.live.passed.duration),
            bytes: client.received + upstream.received,
            messages: messages.iter().sum(),
        }
    }
}

/// The totals of a walk, by numbers. 32 bytes for each live tunnel.
#[derive(Debug)]
struct Walk {
    at: Instant,
    samples: Vec<Sample>,
}

/// The last walks of those who ask for current rates. Bounded: two, of all live tunnels.
#[derive(Debug, Default)]
pub(crate) struct Walks(Mutex<[Option<Arc<Walk>>; 2]>);

impl Walks {
    /// Begins to compare a walk at this time with one before.
    pub(super) fn compare(&self, now: Instant) -> Comparison<'_> {
        self.forget(now);
        let walks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |walk: &Arc<Walk>| now.saturating_duration_since(walk.at) >= LEAST;
        let base = walks.iter().flatten().find(|walk| is_due(walk)).cloned();
        // Those who ask more often than rates change compare with the same one.
        let keeps = walks[0].as_ref().is_none_or(is_due);
        Comparison { walks: self, base, next: keeps.then(|| Walk { at: now, samples: Vec::new() }) }
    }

    /// Forgets what is too old, and says whether anything is left.
    pub(super) fn forget(&self, now: Instant) -> bool {
        let mut walks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for walk in &mut *walks {
            walk.take_if(|walk| now.saturating_duration_since(walk.at) >= KEEP);
        }
        walks.iter().any(Option::is_some)
    }
}

/// A walk that is compared with one before.
pub(super) struct Comparison<'a> {
    walks: &'a Walks,
    base: Option<Arc<Walk>>,
    next: Option<Walk>,
}

impl Comparison<'_> {
    /// What has passed since; `None` if that is not known, as in the first walk.
    pub(super) fn see(&mut self, row: &Row) -> Option<Current> {
        let now = Sample::of(row);
        self.next.iter_mut().for_each(|walk| walk.samples.push(now));
        let base = self.base.as_deref()?;
        let before = match base.samples.binary_search_by_key(&now.id, |sample| sample.id) {
            Ok(at) => base.samples[at],
            // It has begun since.
            Err(_) if Duration::from_millis(now.age_ms) <= base.at.elapsed() => Sample::default(),
            Err(_) => return None,
        };
        Some(between(before, now))
    }

    /// The walk has come to its end: the next ones are compared with it.
    pub(super) fn keep(self) {
        let Some(mut next) = self.next else { return };
        next.samples.sort_unstable_by_key(|sample| sample.id);
        let mut walks = self.walks.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may have been faster.
        if walks[0].as_ref().is_none_or(|walk| next.at.saturating_duration_since(walk.at) >= LEAST)
        {
            let [last, before] = &mut *walks;
            *before = last.replace(Arc::new(next));
        }
    }
}

fn between(before: Sample, now: Sample) -> Current {
    let over_ms = now.age_ms.saturating_sub(before.age_ms).max(1);
    let bytes = u128::from(now.bytes.saturating_sub(before.bytes)) * 1000 / u128::from(over_ms);
    Current {
        bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        messages: now.messages.saturating_sub(before.messages) as f64 * 1000.0 / over_ms as f64,
        over: Duration::from_millis(over_ms),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::rows::tests::row;
    use super::*;

    /// A row of which so many messages of 100 bytes have come in so many seconds.
    fn seen(comparison: &mut Comparison<'_>, id: u64, messages: u64, age: u64) -> Option<Current> {
        comparison.see(&row(id, messages, |_, live| {
            live.passed.duration = Duration::from_secs(age);
        }))
    }

    #[test]
    fn a_rate_is_what_came_between_two_walks() {
        let (walks, start) = (Walks::default(), Instant::now());
        let mut first = walks.compare(start);
        assert_eq!(seen(&mut first, 7, 1_000, 60), None);
        assert_eq!(seen(&mut first, 3, 5, 50), None);
        first.keep();
        let mut second = walks.compare(start + 2 * LEAST);
        let current = seen(&mut second, 7, 1_010, 62).unwrap();
        assert_eq!((current.bytes, current.messages, current.over), (500, 5.0, 2 * LEAST));
        assert_eq!(seen(&mut second, 3, 5, 52).unwrap().bytes, 0);
        // One that has begun since counts from its beginning; one that was there and not seen is not known.
        assert_eq!(seen(&mut second, 9, 4, 0).unwrap().messages, 4_000.0);
        assert_eq!(seen(&mut second, 8, 4, 60), None);
        second.keep();
        // Asked again at once, the base is the walk before.
        let mut third = walks.compare(start + 2 * LEAST + LEAST / 2);
        assert!(third.next.is_none());
        assert_eq!(seen(&mut third, 7, 1_020, 64).unwrap().over, 4 * LEAST);
        third.keep();
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let (walks, start) = (Walks::default(), Instant::now());
        assert!(!walks.forget(start));
        let mut first = walks.compare(start);
        seen(&mut first, 7, 1, 1);
        first.keep();
        assert!(walks.forget(start + KEEP / 2));
        assert!(!walks.forget(start + KEEP));
        assert!(walks.compare(start + KEEP).base.is_none());
    }
}
