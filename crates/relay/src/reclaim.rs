//! Memory that comes back after many tunnels have ended.
//!
//! Nothing here runs by the clock while nothing ends, and nothing on the way of a message.

use std::time::{Duration, Instant};

use slab::Slab;
use wssgate_sys::memory;

/// A slab with this capacity is never made smaller.
const MIN_CAPACITY: usize = 64;

/// How long nothing may end before free pages go back: more would be free a moment later.
const QUIET: Duration = Duration::from_millis(300);

/// Fewer ends than these are not worth the walk through the heap.
const MIN_ENDS: usize = 128;

/// A walk may take this part of the time until the next one: under 1 %.
const TIME_SHARE: u32 = 128;

/// Makes a slab smaller when it is empty or a quarter full. To be called after every removal;
/// `removed` counts them for it.
///
/// Keys stay valid, so only places behind the last one in use go. Each try costs a look at all
/// places, and follows at least half as many removals or insertions.
pub fn shrink<T>(slab: &mut Slab<T>, removed: &mut usize) {
    *removed += 1;
    let capacity = slab.capacity();
    let sparse = *removed >= capacity / 2 && slab.len() <= capacity / 4;
    if capacity > MIN_CAPACITY && (slab.is_empty() || sparse) {
        slab.shrink_to_fit();
        *removed = 0;
    }
}

/// When the free pages of a worker's tunnels go back to the system.
#[derive(Debug, Default)]
pub struct Trimming {
    /// Ends since the last time.
    ended: usize,
    /// When it is time, if it will be.
    due: Option<Instant>,
    /// Not before this.
    not_before: Option<Instant>,
}

impl Trimming {
    /// Notes that a tunnel has ended at `now`, and `live` ones are left.
    pub fn note(&mut self, live: usize, now: Instant) {
        self.ended += 1;
        // With many alive the walk is long, so more must have ended.
        if self.ended >= MIN_ENDS.max(live / 2) {
            let quiet = now + QUIET;
            self.due = Some(self.not_before.map_or(quiet, |at| at.max(quiet)));
        }
    }

    /// When [`Self::trim`] is to be called, unless another tunnel ends before.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gives free pages back.
    pub fn trim(&mut self) {
        let began = Instant::now();
        memory::trim();
        let now = Instant::now();
        *self = Self { ended: 0, due: None, not_before: Some(now + (now - began) * TIME_SHARE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_slab_keeps_little_and_keys_in_use_stay() {
        let (mut slab, mut removed) = (Slab::new(), 0);
        let keys: Vec<_> = (0..9_000).map(|number| slab.insert(number)).collect();
        for key in keys[10..].iter().rev() {
            slab.remove(*key);
            shrink(&mut slab, &mut removed);
        }
        assert!(slab.capacity() < 1_000, "{}", slab.capacity());
        for key in &keys[..10] {
            assert_eq!(slab.remove(*key), *key);
            shrink(&mut slab, &mut removed);
        }
        assert!(slab.capacity() <= MIN_CAPACITY, "{}", slab.capacity());
    }

    #[test]
    fn pages_go_back_once_after_many_ends_and_a_pause() {
        let mut trimming = Trimming::default();
        let now = Instant::now();
        for live in (1..MIN_ENDS).rev() {
            trimming.note(live, now);
        }
        assert_eq!(trimming.due(), None);
        trimming.note(0, now);
        assert_eq!(trimming.due(), Some(now + QUIET));
        // Every further end puts it off.
        trimming.note(0, now + QUIET / 2);
        assert_eq!(trimming.due(), Some(now + QUIET / 2 + QUIET));
        trimming.trim();
        assert_eq!(trimming.due(), None);
    }

    #[test]
    fn a_few_ends_among_many_tunnels_are_no_reason() {
        let mut trimming = Trimming::default();
        for _ in 0..4_000 {
            trimming.note(9_000, Instant::now());
        }
        assert_eq!(trimming.due(), None);
    }
}
