//! A meter whose rule is simple: so many bytes, then a wait; and at last it is too much.

use std::sync::{Mutex, PoisonError};

use super::super::meter::{Charge, Excess, Meter, Toll};

#[derive(Debug)]
pub(super) struct Gate {
    /// After how many bytes there is a wait.
    pub(super) every: u64,
    pub(super) wait_ms: u64,
    /// How many are too many.
    pub(super) most: u64,
    seen: Mutex<Seen>,
}

/// All charges, and when the last wait is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) charge: Charge,
    pub(super) until_ms: u64,
}

impl Gate {
    pub(super) fn new(every: u64, wait_ms: u64, most: u64) -> Self {
        Self { every, wait_ms, most, seen: Mutex::default() }
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter for Gate {
    fn charge(&self, charge: Charge, now_ms: u64) -> Toll {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.charge.bytes;
        seen.charge.bytes += charge.bytes;
        seen.charge.messages += charge.messages;
        if seen.charge.bytes > self.most {
            Toll::TooMuch(Excess::Bytes)
        } else if seen.charge.bytes / self.every > before / self.every {
            seen.until_ms = now_ms + self.wait_ms;
            Toll::Wait { until_ms: seen.until_ms }
        } else {
            Toll::Free
        }
    }
}
