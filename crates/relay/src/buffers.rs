//! The memory that tunnels borrow from their thread.

use wssgate_records::{MAX_RECORD, sealed_len};

use crate::READ_SIZE;

/// Working memory of the relay thread. What stands in it belongs to transfers that are under way.
pub(crate) struct Buffers {
    /// Bytes as they came from the wire, behind the front of a record.
    pub(crate) input: Arena,
    /// The same, opened.
    pub(crate) plain: Arena,
    /// And sealed again.
    pub(crate) output: Arena,
}

/// Memory that is given out from its front, and taken back down to a [`Mark`].
pub(crate) struct Arena {
    memory: Box<[u8]>,
    /// Where it begins, so that its place in a page is known.
    base: usize,
    used: usize,
}

/// Bytes in one of the [`Buffers`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct BufferRange {
    pub(crate) buffer: Buffer,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// Which of the [`Buffers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    Input,
    Plain,
    Output,
}

/// How full the [`Buffers`] are, to come back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    input: usize,
    plain: usize,
    output: usize,
}

/// The most that one read and the record before it can bring.
pub(crate) const INPUT_SIZE: usize = MAX_RECORD + READ_SIZE;

/// How much of the input transfers that are under way together may ask for: 32 times the usual window.
const GROUP_INPUT: usize = 32 * (4096 + CACHE_LINE);

/// A processor that reads behind what it has just written to the same place in another page takes the one
/// for the other and waits. What is sealed goes a header further than it came from, which is that case: a
/// copy then takes five times as long, unless the pages are shifted against each other.
const PAGE: usize = 4096;

/// Processors move memory in lines of this many bytes.
const CACHE_LINE: usize = 64;

impl Buffers {
    pub(crate) fn new() -> Self {
        // The last of those that are under way together may begin when they are full, and beside all of
        // them one that is under way alone.
        let size = GROUP_INPUT + 2 * INPUT_SIZE;
        Self {
            input: Arena::new(size, 0),
            plain: Arena::new(size, 0),
            output: Arena::new(sealed_len(size), PAGE / 2),
        }
    }

    /// Whether one more transfer may begin beside those that are under way together.
    pub(crate) fn have_room(&self) -> bool {
        self.input.used < GROUP_INPUT && self.plain.used < GROUP_INPUT
    }

    pub(crate) fn bytes(&self, range: BufferRange) -> &[u8] {
        match range.buffer {
            Buffer::Input => self.input.bytes(range),
            Buffer::Plain => self.plain.bytes(range),
            Buffer::Output => self.output.bytes(range),
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { input: self.input.used, plain: self.plain.used, output: self.output.used }
    }

    /// Forgets what came after `mark` was taken.
    pub(crate) fn release(&mut self, mark: Mark) {
        self.input.used = mark.input;
        self.plain.used = mark.plain;
        self.output.used = mark.output;
    }
}

impl Arena {
    /// Memory that begins `in_page` bytes behind the front of a page.
    fn new(size: usize, in_page: usize) -> Self {
        let memory = vec![0; size + PAGE].into_boxed_slice();
        let base = in_page.wrapping_sub(memory.as_ptr().addr()) % PAGE;
        Self { memory, base, used: 0 }
    }

    /// How much there is in all.
    fn size(&self) -> usize {
        self.memory.len() - PAGE
    }

    /// What is not filled.
    pub(crate) fn free(&mut self) -> &mut [u8] {
        &mut self.memory[self.base + self.used..]
    }

    /// Takes the front of what is free; says where that begins.
    pub(crate) fn alloc(&mut self, len: usize) -> usize {
        let start = self.used;
        // A line stays between two: at distances of whole pages they would fall into the same set of
        // the processor's cache.
        self.used = ((start + len).next_multiple_of(CACHE_LINE) + CACHE_LINE).min(self.size());
        start
    }

    pub(crate) fn bytes(&self, range: BufferRange) -> &[u8] {
        &self.memory[self.base + range.start..][..range.len]
    }

    pub(crate) fn bytes_mut(&mut self, range: BufferRange) -> &mut [u8] {
        &mut self.memory[self.base + range.start..][..range.len]
    }

    /// The bytes of ranges that stand one behind the other.
    pub(crate) fn each_mut(
        &mut self,
        ranges: impl Iterator<Item = BufferRange>,
    ) -> impl Iterator<Item = &mut [u8]> {
        let (mut rest, mut at) = (&mut self.memory[self.base..], 0);
        ranges.map(move |range| {
            let (_, behind) = std::mem::take(&mut rest).split_at_mut(range.start - at);
            let (bytes, behind) = behind.split_at_mut(range.len);
            (rest, at) = (behind, range.start + range.len);
            bytes
        })
    }
}
