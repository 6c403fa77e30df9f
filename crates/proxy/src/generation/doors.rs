//! Where an operator lets no new WebSockets in, until the next generation.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use wssgate_config::model::LocationId;

/// Which locations are closed.
#[derive(Debug)]
pub(crate) struct Doors {
    /// Of each location, by its number: 0 where WebSockets are let in, else when those who are not may come again, in
    /// seconds: at most in the lower half, at least in the upper one.
    doors: Box<[AtomicU64]>,
    /// How many are closed.
    closed: AtomicUsize,
}

/// When a client that is refused may come again, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    /// At least.
    pub(crate) least: u32,
    /// At most; not 0.
    pub(crate) most: u32,
}

impl Doors {
    /// Those of so many locations, all of them open.
    pub(super) fn new(locations: usize) -> Self {
        let doors = (0..locations).map(|_| AtomicU64::new(0)).collect();
        Self { doors, closed: AtomicUsize::new(0) }
    }

    /// Lets no new WebSockets in.
    pub(crate) fn close(&self, location: LocationId, again: Again) {
        let packed = u64::from(again.least) << 32 | u64::from(again.most.max(1));
        if self.doors[location.0].swap(packed, Relaxed) == 0 {
            self.closed.fetch_add(1, Release);
        }
    }

    /// Lets them in again; says whether it did not before.
    pub(crate) fn open(&self, location: LocationId) -> bool {
        let was_closed = self.doors[location.0].swap(0, Relaxed) != 0;
        if was_closed {
            self.closed.fetch_sub(1, Release);
        }
        was_closed
    }

    /// Whether all are open.
    pub(crate) fn all_open(&self) -> bool {
        self.closed.load(Acquire) == 0
    }

    /// When to come again where no WebSockets are let in.
    pub(crate) fn closed(&self, location: LocationId) -> Option<Again> {
        let packed = self.doors.get(location.0)?.load(Relaxed);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        (packed != 0).then(|| Again { least: half(packed >> 32), most: half(packed) })
    }
}

impl Again {
    /// A time within these for one client, so that not all of them come at once.
    pub(crate) fn chance(self) -> Duration {
        let mut random = [0; 4];
        // Without it all come as late as they may.
        let random = match aws_lc_rs::rand::fill(&mut random) {
            Ok(()) => u64::from(u32::from_le_bytes(random)),
            Err(_) => u64::from(u32::MAX),
        };
        let choices = u64::from(self.most.saturating_sub(self.least)) + 1;
        Duration::from_secs(u64::from(self.least) + ((choices * random) >> 32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_location_is_closed_and_opened_for_itself() {
        let doors = Doors::new(2);
        let (first, second) = (LocationId(0), LocationId(1));
        let again = Again { least: 5, most: 30 };
        doors.close(second, again);
        assert_eq!((doors.closed(first), doors.closed(second)), (None, Some(again)));
        doors.close(second, again);
        assert!(!doors.open(first) && !doors.all_open() && doors.open(second));
        assert_eq!((doors.closed(second), doors.all_open()), (None, true));
    }

    #[test]
    fn clients_come_again_at_times_of_their_own_within_the_limits() {
        let again = Again { least: 5, most: 30 };
        let times: std::collections::BTreeSet<_> =
            (0..500).map(|_| again.chance().as_secs()).collect();
        assert!(times.iter().all(|time| (5..=30).contains(time)), "{times:?}");
        assert!(times.len() > 20, "{times:?}");
        assert_eq!(Again { least: 7, most: 7 }.chance(), Duration::from_secs(7));
    }
}
