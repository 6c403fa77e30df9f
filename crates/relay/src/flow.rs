//! One direction of a tunnel, and the memory that it borrows.
//!
//! A flow is `Open` ──the source ends──▶ `Draining` ──all is sent──▶ `Closed`, and it is `Closed` at
//! once when its destination breaks.

use wssgate_records::{MAX_RECORD, sealed_len};

use crate::READ_SIZE;

/// One direction.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) state: FlowState,
    /// How much is read at once: doubled while reads fill it and the destination takes it all, halved
    /// while turns bring much less, `buffer_size` once the destination did not take it.
    window: u32,
    /// The least that is read at once.
    least: u32,
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
    pub(crate) fn ease_window(&mut self, moved: usize) {
        if 0 < moved && moved < self.window() / 4 {
            self.window = (self.window / 2).max(self.least);
        }
    }
}

/// Working memory of the relay thread. What stands in it belongs to passages that are under way.
pub(crate) struct Buffers {
    /// Bytes as they came from the wire, behind the front of a record.
    pub(crate) input: Arena,
    /// The same, opened.
    pub(crate) plain: Arena,
    /// And sealed again.
    pub(crate) output: Arena,
}

/// Memory that is filled from its front, and emptied down to a level.
pub(crate) struct Arena {
    bytes: Box<[u8]>,
    used: usize,
}

/// Bytes in one of the [`Buffers`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) place: Place,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// Which of the [`Buffers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Input,
    Plain,
    Output,
}

/// How full the [`Buffers`] are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    input: usize,
    plain: usize,
    output: usize,
}

/// The most that one read and the record before it can bring.
pub(crate) const INPUT_SIZE: usize = MAX_RECORD + READ_SIZE;

/// How much of the input passages that are under way together may ask for: 32 times the usual window.
const TOGETHER: usize = 32 * (4096 + LINE);

/// Processors move memory in lines of this many bytes.
const LINE: usize = 64;

impl Buffers {
    pub(crate) fn new() -> Self {
        // The last of those that are under way together may begin when they are full, and beside all of
        // them one that is under way alone.
        let size = TOGETHER + 2 * INPUT_SIZE;
        Self {
            input: Arena::new(size),
            plain: Arena::new(size),
            output: Arena::new(sealed_len(size)),
        }
    }

    /// Whether one more passage may begin beside those that are under way together.
    pub(crate) fn have_room(&self) -> bool {
        self.input.used < TOGETHER && self.plain.used < TOGETHER
    }

    pub(crate) fn bytes(&self, stretch: Stretch) -> &[u8] {
        match stretch.place {
            Place::Input => self.input.bytes(stretch),
            Place::Plain => self.plain.bytes(stretch),
            Place::Output => self.output.bytes(stretch),
        }
    }

    pub(crate) fn level(&self) -> Level {
        Level { input: self.input.used, plain: self.plain.used, output: self.output.used }
    }

    /// Forgets what came after `level` was taken.
    pub(crate) fn fall_to(&mut self, level: Level) {
        self.input.used = level.input;
        self.plain.used = level.plain;
        self.output.used = level.output;
    }
}

impl Arena {
    fn new(size: usize) -> Self {
        Self { bytes: vec![0; size].into_boxed_slice(), used: 0 }
    }

    /// What is not filled.
    pub(crate) fn free(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used..]
    }

    /// Fills the front of what is free; says where that begins.
    pub(crate) fn fill(&mut self, len: usize) -> usize {
        let start = self.used;
        // A line stays between two: at distances of whole pages they would fall into the same set of
        // the processor's cache.
        self.used = ((start + len).next_multiple_of(LINE) + LINE).min(self.bytes.len());
        start
    }

    pub(crate) fn bytes(&self, stretch: Stretch) -> &[u8] {
        &self.bytes[stretch.start..stretch.start + stretch.len]
    }

    pub(crate) fn bytes_mut(&mut self, stretch: Stretch) -> &mut [u8] {
        &mut self.bytes[stretch.start..stretch.start + stretch.len]
    }

    /// The bytes of stretches that stand one behind the other.
    pub(crate) fn each_mut(
        &mut self,
        stretches: impl Iterator<Item = Stretch>,
    ) -> impl Iterator<Item = &mut [u8]> {
        let (mut rest, mut at) = (&mut self.bytes[..], 0);
        stretches.map(move |stretch| {
            let (_, behind) = std::mem::take(&mut rest).split_at_mut(stretch.start - at);
            let (bytes, behind) = behind.split_at_mut(stretch.len);
            (rest, at) = (behind, stretch.start + stretch.len);
            bytes
        })
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
            flow.ease_window(moved);
            assert_eq!(flow.window(), window, "after {moved}");
        }
    }
}
