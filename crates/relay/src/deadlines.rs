//! Who is due when, without a timer per tunnel.
//!
//! An entry is a lower bound: it is armed once, and traffic, which only moves the true deadline away,
//! does not touch it. When it fires, the owner looks at its true deadline and is armed again if that is
//! still to come. Entries are rounded up so that many of them share one wake-up; the rounding is under
//! 1 % of the time waited for, or [`FINEST_MS`].

use std::collections::BTreeSet;
use std::time::Duration;

/// The finest rounding, and so the least lateness.
pub(crate) const FINEST_MS: u64 = 32;

/// Deadlines by time; at most one for every key that is armed.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// In order of time. Bounded by the number of tunnels.
    entries: BTreeSet<(u64, usize)>,
}

impl Deadlines {
    /// Arms `key` for `due`, not a moment earlier; `wait` is how long the whole wait is.
    ///
    /// Returns the time at which it fires, which the owner keeps to disarm it.
    pub(crate) fn arm(&mut self, key: usize, due: u64, wait: u64) -> u64 {
        let at = fires(due, wait);
        self.entries.insert((at, key));
        at
    }

    /// Takes back what [`Self::arm`] returned `at` for.
    pub(crate) fn disarm(&mut self, key: usize, at: u64) {
        self.entries.remove(&(at, key));
    }

    /// When the next entry fires.
    pub(crate) fn next(&self) -> Option<u64> {
        self.entries.first().map(|&(at, _)| at)
    }

    /// Takes one key that fires at `now` or before.
    pub(crate) fn pop(&mut self, now: u64) -> Option<usize> {
        let &(at, key) = self.entries.first()?;
        if at > now {
            return None;
        }
        self.entries.pop_first();
        Some(key)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Whole milliseconds; more than there is room for is for ever.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// When an entry for `due` fires, if the whole wait is `wait`.
pub(crate) fn fires(due: u64, wait: u64) -> u64 {
    due.checked_next_multiple_of(grain(wait)).unwrap_or(u64::MAX)
}

/// The largest power of two that is at most 1/128 of the wait, and at least [`FINEST_MS`].
fn grain(wait: u64) -> u64 {
    let fine = (wait / 128).max(FINEST_MS);
    1 << fine.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fires_never_early_and_at_most_one_percent_late() {
        for wait in [1, 10, 50, 100, 999, 1_000, 5_000, 60_000, 86_400_000, 31_536_000_000] {
            for start in [0, 1, 31, 1_000_003] {
                let due = start + wait;
                let mut deadlines = Deadlines::default();
                let at = deadlines.arm(4, due, wait);
                assert!(at >= due, "{wait}");
                assert!(at - due <= (wait / 100).max(FINEST_MS), "{wait}");
                assert_eq!(deadlines.pop(at - 1), None);
                assert_eq!(deadlines.pop(at), Some(4));
                assert_eq!(deadlines.next(), None);
            }
        }
    }

    #[test]
    fn waits_of_a_minute_share_four_wake_ups_a_second() {
        let mut deadlines = Deadlines::default();
        for key in 0..9_000 {
            deadlines.arm(key, 60_000 + key as u64 / 9, 60_000);
        }
        let mut wake_ups = 0;
        while let Some(at) = deadlines.next() {
            wake_ups += 1;
            while deadlines.pop(at).is_some() {}
        }
        assert!(wake_ups <= 5, "{wake_ups}");
    }

    #[test]
    fn a_deadline_that_moves_within_its_grain_fires_at_the_same_time() {
        let hour = 3_600_000;
        let at = fires(hour + 1, hour);
        assert!((hour + 1..=at).all(|due| fires(due, hour) == at));
        assert!(fires(at + 1, hour) > at);
    }

    #[test]
    fn a_disarmed_key_does_not_fire() {
        let mut deadlines = Deadlines::default();
        let first = deadlines.arm(1, 100, 100);
        let second = deadlines.arm(2, 100, 100);
        assert_eq!(first, second);
        deadlines.disarm(1, first);
        assert_eq!(deadlines.pop(1_000), Some(2));
        assert_eq!(deadlines.pop(1_000), None);
        assert_eq!(deadlines.len(), 0);
    }

    #[test]
    fn a_wait_for_ever_does_not_overflow() {
        assert_eq!(Deadlines::default().arm(1, u64::MAX, u64::MAX), u64::MAX);
    }
}
