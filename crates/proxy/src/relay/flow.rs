//! One direction of a tunnel, and the memory that it borrows.
//!
//! A flow is `Open` ──the source ends──▶ `Draining` ──all is sent──▶ `Closed`, and it is `Closed` at
//! once when its destination breaks.

use wssgate_ws::Tracker;

use super::record::{MAX_RECORD, sealed_len};
use super::{Protocol, READ_SIZE, Totals};

/// One direction.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) state: FlowState,
    /// How much is read at once: doubled while the destination takes it all, `buffer_size` once it
    /// did not.
    pub(super) window: usize,
    /// The least that is read at once.
    least: usize,
    /// Follows the frames; none in a tunnel of other things.
    pub(super) tracker: Option<Tracker>,
    /// What passed at the source; what was sent to it is the other flow's.
    pub(super) totals: Totals,
    /// Bytes that the destination's leg took, sent or kept.
    pub(super) passed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlowState {
    Open,
    /// The source has ended; what was read is still being sent.
    Draining,
    Closed,
}

impl Flow {
    pub(super) fn new(protocol: Protocol, from: wssgate_ws::Side, least: usize) -> Self {
        let tracker = match protocol {
            Protocol::WebSocket(extensions) => Some(Tracker::new(from, extensions)),
            Protocol::Other => None,
        };
        Self {
            state: FlowState::Open,
            window: least,
            least,
            tracker,
            totals: Totals::default(),
            passed: 0,
        }
    }

    /// Notes what passes.
    pub(super) fn count(&mut self, plain: &[u8]) {
        self.totals.received += plain.len() as u64;
        if let Some(tracker) = &mut self.tracker {
            let progress = tracker.advance(plain, &mut self.totals.frames);
            self.totals.close = self.totals.close.or(progress.close);
            self.totals.broken = self.totals.broken.or(progress.broken);
        }
    }

    /// After a read that `filled` the window, and the sending of it.
    pub(super) fn adapt_window(&mut self, filled: bool, blocked: bool) {
        if blocked {
            self.window = self.least;
        } else if filled {
            self.window = (self.window * 2).min(READ_SIZE);
        }
    }
}

/// Working memory of the relay thread, lent to the tunnel that has its turn.
pub(super) struct Buffers {
    /// Bytes as they came from the wire, behind the front of a record.
    pub(super) input: Box<[u8]>,
    /// The same, opened.
    pub(super) plain: Box<[u8]>,
    /// And sealed again.
    pub(super) output: Box<[u8]>,
}

/// The most that one read and the record before it can bring.
pub(super) const INPUT_SIZE: usize = MAX_RECORD + READ_SIZE;

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            input: vec![0; INPUT_SIZE].into_boxed_slice(),
            plain: vec![0; INPUT_SIZE].into_boxed_slice(),
            output: vec![0; sealed_len(INPUT_SIZE)].into_boxed_slice(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_while_all_is_taken_and_falls_when_it_is_not() {
        let mut flow = Flow::new(Protocol::Other, wssgate_ws::Side::Client, 1000);
        let mut windows = vec![flow.window];
        for (filled, blocked) in [(true, false), (false, false), (true, false), (true, true)] {
            flow.adapt_window(filled, blocked);
            windows.push(flow.window);
        }
        assert_eq!(windows, [1000, 2000, 2000, 4000, 1000]);
        for _ in 0..10 {
            flow.adapt_window(true, false);
        }
        assert_eq!(flow.window, READ_SIZE);
    }
}
