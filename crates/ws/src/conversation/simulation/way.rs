//! One direction as the judge knows it: what came of it, what of that has gone on, what was put in.

use super::reading::{Frame, read};
use crate::conversation::{Conversation, PING_LEN};
use crate::{CloseCode, Counts, Extensions, Side};

pub(super) struct Way {
    pub(super) from: Side,
    pub(super) came: Vec<u8>,
    /// How much of it had come at what time.
    pub(super) moments: Vec<(usize, u64)>,
    /// How much of it has gone on, or never will because it is a pong for us.
    pub(super) done: usize,
    /// What has gone on, without frames of our own; and how much of it had at what time.
    pub(super) passed: Vec<u8>,
    passed_at: Vec<(usize, u64)>,
    pub(super) swallowed: u64,
    /// The code of our Close.
    pub(super) closed: Option<CloseCode>,
    pub(super) ended: bool,
    /// It has nothing more to say that anybody waits for.
    pub(super) has_finished: bool,
    /// How much of it was judged for certain, before anybody closed.
    pub(super) judged: usize,
}

impl Way {
    pub(super) fn new(from: Side) -> Self {
        Self {
            from,
            came: Vec::new(),
            moments: Vec::new(),
            done: 0,
            passed: Vec::new(),
            passed_at: Vec::new(),
            swallowed: 0,
            closed: None,
            ended: false,
            has_finished: false,
            judged: 0,
        }
    }

    pub(super) fn come(&mut self, chunk: &[u8], now_ms: u64) {
        self.came.extend_from_slice(chunk);
        self.moments.push((self.came.len(), now_ms));
    }

    /// How much had come before this moment.
    pub(super) fn since(&self, start_ms: u64) -> usize {
        let before = self.moments.iter().rfind(|&&(_, ms)| ms < start_ms);
        before.map_or(0, |&(len, _)| len)
    }

    /// When byte `len` of what has gone on did.
    pub(super) fn passed_ms(&self, len: usize) -> u64 {
        self.passed_at.iter().find(|&&(at, _)| at >= len).map_or(u64::MAX, |&(_, ms)| ms)
    }

    /// Whether a data frame moves in what has come behind `start`; in what nobody understands, whether
    /// anything does.
    pub(super) fn moves_data(&self, start: usize, extensions: Extensions) -> bool {
        let (frames, broken) = read(&self.came, self.from, extensions);
        let moves = |frame: &Frame| match frame.opcode {
            9 | 10 => false,
            // The last word of a side is said when it is whole.
            8 => frame.is_whole() && start < frame.end,
            _ => start < frame.end && frame.payload_at <= self.came.len(),
        };
        broken.is_some() || frames.iter().any(moves)
    }

    /// These bytes have gone on.
    pub(super) fn pass(&mut self, bytes: &[u8], now_ms: u64) {
        assert!(bytes.is_empty() || self.closed.is_none(), "behind our Close");
        assert!(self.came[self.done..].starts_with(bytes), "lost, doubled or reordered");
        self.done += bytes.len();
        self.passed.extend_from_slice(bytes);
        self.passed_at.push((self.passed.len(), now_ms));
    }

    /// The pong that did not go on, if one did not: what came up to `end` is kept back or gone.
    pub(super) fn miss(&mut self, end: usize) -> Option<Vec<u8>> {
        let frame = Frame::read(&self.came[..end], self.done).filter(Frame::is_whole)?;
        assert_eq!(
            (frame.opcode, frame.len(), frame.end),
            (10, PING_LEN, end),
            "not a pong for us"
        );
        self.done = end;
        self.swallowed += 1;
        Some(frame.payload)
    }

    /// A frame of ours is put in.
    pub(super) fn check_place(&self, extensions: Extensions) {
        assert_eq!(self.closed, None, "nothing stands behind a Close");
        let (frames, broken) = read(&self.came[..self.done], self.from, extensions);
        assert_eq!(broken, None);
        assert!(frames.last().is_none_or(|frame| frame.end == self.done), "within a frame");
        assert!(frames.iter().all(|frame| frame.opcode != 8), "behind its source's Close");
    }

    /// What came and has not gone on is the beginning of a frame that has to be known first, unless nothing
    /// goes on any more.
    pub(super) fn check_held(&self, conversation: &Conversation) {
        if conversation.withholds(self.from) {
            return;
        }
        let held = &self.came[self.done..];
        assert!(held.len() < 2 + 4 + 125);
        let unfinished = Frame::read(held, 0).is_none_or(|frame| !frame.is_whole());
        assert!(unfinished, "a whole frame is held back");
    }

    /// Whether a frame is under way.
    pub(super) fn is_in_frame(&self, extensions: Extensions) -> bool {
        let (frames, broken) = read(&self.came, self.from, extensions);
        let whole = frames.iter().rfind(|frame| frame.is_whole());
        broken.is_none() && whole.map_or(0, |frame| frame.end) != self.came.len()
    }

    /// Whether its source's own Close is what comes next, however much of it has come.
    pub(super) fn is_before_close(&self) -> bool {
        self.came.get(self.done).is_some_and(|first| first % 16 == 8)
    }

    /// When the first byte of its source's own Close has gone on, if that has done so as a whole.
    pub(super) fn own_close_ms(&self, extensions: Extensions) -> Option<u64> {
        let (frames, _) = read(&self.passed, self.from, extensions);
        let at = frames.iter().position(|frame| frame.opcode == 8 && frame.is_whole())?;
        let start = at.checked_sub(1).map_or(0, |before| frames[before].end);
        Some(self.passed_ms(start + 1))
    }

    /// Whether what has gone on ends within a frame.
    pub(super) fn is_cut(&self, extensions: Extensions) -> bool {
        let (frames, broken) = read(&self.came[..self.done], self.from, extensions);
        broken.is_none() && frames.last().map_or(0, |frame| frame.end) != self.done
    }

    pub(super) fn has_own_close(&self, extensions: Extensions) -> bool {
        let (frames, _) = read(&self.passed, self.from, extensions);
        frames.iter().any(|frame| frame.opcode == 8 && frame.is_whole())
    }

    /// What was counted is what was sent, but for pongs to us.
    pub(super) fn check_counts(&self, counts: Counts, extensions: Extensions) {
        let (frames, _) = read(&self.came, self.from, extensions);
        let of = |opcode: u8| {
            frames.iter().filter(|frame| frame.is_whole() && frame.opcode == opcode).count() as u64
        };
        let mut expected = Counts { bytes: self.came.len() as u64, ..Counts::default() };
        expected.frames = [0, 1, 2, 8, 9, 10].map(of).iter().sum::<u64>() - self.swallowed;
        (expected.pings, expected.pongs) = (of(9), of(10) - self.swallowed);
        let (mut len, mut text) = (0, false);
        for frame in frames.iter().filter(|frame| frame.is_data() && frame.is_whole()) {
            if frame.opcode > 0 {
                (len, text) = (0, frame.opcode == 1);
            }
            len += frame.len() as u64;
            if frame.fin {
                expected.messages += 1;
                expected.texts += u64::from(text);
                expected.payload += len;
                expected.text_payload += if text { len } else { 0 };
                expected.largest = expected.largest.max(len);
            }
        }
        assert_eq!(counts, expected);
    }
}
