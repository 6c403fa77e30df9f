//! One direction of a tunnel.
//!
//! A flow is `Open` ──the source ends──▶ `Draining` ──all is sent──▶ `Closed`, and it is `Closed` at
//! once when its destination breaks.

use crate::READ_SIZE;

/// One direction.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) state: FlowState,
    /// How much is read at once: doubled while reads fill it and the destination takes it all, halved
    /// while turns bring much less, `buffer_size` once the destination did not take it.
    pub(crate) window: u32,
    /// The least that is read at once.
    pub(crate) least: u32,
    /// Bytes that came from the source.
    pub(crate) received: u64,
    /// Bytes that the destination's leg took, sent or kept.
    pub(crate) passed: u64,
    /// The source ended TLS without close_notify.
    pub(crate) truncated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowState {
    Open,
    /// The source has ended; what was read is still being sent.
    Draining,
    Closed,
}

impl Flow {
    pub(crate) fn new(least: usize) -> Self {
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        let (state, window) = (FlowState::Open, least);
        Self { state, window, least, received: 0, passed: 0, truncated: false }
    }

    /// How much is read at once.
    pub(crate) fn window(&self) -> usize {
        self.window as usize
    }

    /// After a read that `filled` the window, and the sending of it.
    pub(crate) fn adapt_window(&mut self, filled: bool, blocked: bool) {
        if blocked {
            self.window = self.least;
        } else if filled {
            self.window = (self.window * 2).min(READ_SIZE as u32);
        }
    }

    /// After a turn that `moved` so many bytes. The last read of a long message alone says nothing.
    pub(crate) fn decay_window(&mut self, moved: usize) {
        if 0 < moved && moved < self.window() / 4 {
            self.window = (self.window / 2).max(self.least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_while_all_is_taken_and_falls_when_it_is_not() {
        let mut flow = Flow::new(1000);
        let mut windows = vec![flow.window()];
        for (filled, blocked) in [(true, false), (false, false), (true, false), (true, true)] {
            flow.adapt_window(filled, blocked);
            windows.push(flow.window());
        }
        assert_eq!(windows, [1000, 2000, 2000, 4000, 1000]);
        for _ in 0..10 {
            flow.adapt_window(true, false);
        }
        assert_eq!(flow.window(), READ_SIZE);
    }

    #[test]
    fn a_window_falls_while_turns_bring_little() {
        let mut flow = Flow::new(1500);
        flow.adapt_window(true, false);
        flow.adapt_window(true, false);
        for (moved, window) in
            [(0, 6000), (6000, 6000), (1500, 6000), (1499, 3000), (1, 1500), (1, 1500)]
        {
            flow.decay_window(moved);
            assert_eq!(flow.window(), window, "after {moved}");
        }
    }
}
