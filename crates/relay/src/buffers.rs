//! The memory that tunnels borrow from their thread.

use wssgate_records::{MAX_RECORD, sealed_len};

use crate::READ_SIZE;

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
