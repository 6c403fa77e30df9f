//! Times that all workers write and none waits for.

use std::sync::LazyLock;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A time in an atomic: nanoseconds since the program began, as far as anybody can tell.
#[derive(Debug)]
pub(super) struct Stamp(AtomicI64);

impl Default for Stamp {
    fn default() -> Self {
        Self(AtomicI64::new(Self::NEVER))
    }
}

impl Stamp {
    /// Before all others.
    pub(super) const NEVER: i64 = i64::MIN;

    /// This time.
    pub(super) fn of(now: Instant) -> i64 {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        match now.checked_duration_since(*BEGAN) {
            Some(since) => nanos(since),
            // Whoever asks first may have taken the time before.
            None => -nanos(BEGAN.duration_since(now)),
        }
    }

    /// The time that it is.
    pub(super) fn load(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Makes it this time.
    pub(super) fn store(&self, stamp: i64) {
        self.0.store(stamp, Relaxed);
    }

    /// Makes it `stamp` unless it is later already.
    pub(super) fn postpone(&self, stamp: i64) {
        self.0.fetch_max(stamp, Relaxed);
    }

    /// Whether it was `before`, which it is no longer then.
    pub(super) fn replace(&self, before: i64, after: i64) -> bool {
        self.0.compare_exchange(before, after, Relaxed, Relaxed).is_ok()
    }
}

/// Up to 292 years.
pub(super) fn nanos(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(duration.subsec_nanos()))
}

/// How long it is from a stamp to a later one; nothing if it is not later, or never was.
pub(super) fn between(earlier: i64, later: i64) -> Option<Duration> {
    let nanos = later.checked_sub(earlier)?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_replaced_only_by_those_who_know_it() {
        let stamp = Stamp::default();
        assert!(stamp.replace(Stamp::NEVER, 7));
        assert!(!stamp.replace(Stamp::NEVER, 8));
        assert_eq!(stamp.load(), 7);
    }

    #[test]
    fn stamps_are_in_the_order_of_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let stamps = [now - second, now, now + second].map(Stamp::of);
        assert_eq!(stamps[1] - stamps[0], 1_000_000_000);
        assert_eq!(stamps[2] - stamps[1], 1_000_000_000);
        assert!(Stamp::NEVER < stamps[0]);
    }
}
