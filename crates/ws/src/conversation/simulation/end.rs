//! An end that behaves, more or less.

use super::Chance;
use super::reading::Frame;
use crate::frame::must_mask;
use crate::{FrameHeader, Opcode, Side, mask};

/// One of the ends, with all that it has ever sent and got.
pub(super) struct ScriptedEnd {
    side: Side,
    temper: Temper,
    pub(super) outbox: Vec<u8>,
    pub(super) inbox: Vec<u8>,
    /// How much of it was understood.
    read: usize,
    /// What of the running message is not sent.
    message: Option<Vec<u8>>,
    pub(super) has_closed: bool,
    /// Answers that have their time.
    late: Vec<(u64, Vec<u8>)>,
}

/// How an end behaves.
struct Temper {
    /// When it answers pings, in milliseconds.
    pong_ms: Option<u64>,
    closes: bool,
    /// One in so many frames is wrong.
    wrong: Option<u64>,
    longest: usize,
}

/// Pieces of text of one to four bytes a character.
const TEXT: &str = "caf\u{e9} \u{4f60}\u{597d} \u{1f980}! ";

impl ScriptedEnd {
    pub(super) fn choose(side: Side, chance: &mut Chance) -> Self {
        let temper = Temper {
            pong_ms: chance.pick(&[Some(0), Some(0), Some(1_500), None]),
            closes: !chance.one_in(4),
            wrong: chance.pick(&[None, Some(20), Some(5)]),
            longest: chance.pick(&[20, 20, 20, 200, 700]),
        };
        let (outbox, inbox, late) = (Vec::new(), Vec::new(), Vec::new());
        Self { side, temper, outbox, inbox, read: 0, message: None, has_closed: false, late }
    }

    /// Reads what has come, answers, and sends answers whose time has come.
    pub(super) fn hear(&mut self, now_ms: u64, chance: &mut Chance) {
        while let Some(frame) = Frame::read(&self.inbox, self.read).filter(Frame::is_whole) {
            self.read = frame.end;
            match (frame.opcode, self.temper.pong_ms) {
                (9, Some(wait_ms)) => self.late.push((now_ms + wait_ms, frame.payload)),
                (8, _) if self.temper.closes && !self.has_closed => self.close(chance),
                _ => {}
            }
        }
        while let Some(at) = self.late.iter().position(|&(due_ms, _)| due_ms <= now_ms) {
            let (_, payload) = self.late.remove(at);
            if !self.has_closed {
                self.send(true, Opcode::Pong, &payload, chance);
            }
        }
    }

    /// Sends something.
    pub(super) fn speak(&mut self, chance: &mut Chance) {
        if self.has_closed && !chance.one_in(40) {
            return;
        }
        if self.temper.wrong.is_some_and(|times| chance.one_in(times)) {
            return self.send_wrong(chance);
        }
        match chance.below(24) {
            0..=2 => {
                let opcode = chance.pick(&[Opcode::Ping, Opcode::Pong]);
                let len = chance.pick(&[0, 3, 8, 8, 125]);
                let payload = chance.bytes(len);
                self.send(true, opcode, &payload, chance);
            }
            3 if chance.one_in(4) => self.close(chance),
            _ => self.send_data(chance),
        }
    }

    fn send_data(&mut self, chance: &mut Chance) {
        let (opcode, mut rest) = match self.message.take() {
            Some(rest) => (Opcode::Continuation, rest),
            None => {
                let len = match chance.one_in(9_000) {
                    // Its header is the longest that there is.
                    true => 70_000,
                    false => chance.index(self.temper.longest + 1),
                };
                match chance.one_in(2) {
                    true => (Opcode::Binary, chance.bytes(len)),
                    false => (Opcode::Text, TEXT.repeat(len / 16 + 1).into_bytes()),
                }
            }
        };
        let fin = chance.one_in(2);
        let piece = match fin {
            true => std::mem::take(&mut rest),
            false => rest.drain(..chance.index(rest.len() + 1)).collect(),
        };
        self.message = (!fin).then_some(rest);
        self.send(fin, opcode, &piece, chance);
    }

    fn close(&mut self, chance: &mut Chance) {
        self.has_closed = true;
        let payload: &[u8] =
            chance.pick(&[b"".as_slice(), b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa1a longer reason"]);
        self.send(true, Opcode::Close, payload, chance);
    }

    fn send(&mut self, fin: bool, opcode: Opcode, payload: &[u8], chance: &mut Chance) {
        let mask = must_mask(self.side).then(|| [chance.below(256) as u8, 7, 0, 255]);
        let len = payload.len() as u64;
        let header = FrameHeader { fin, mask, ..FrameHeader::whole(opcode, len) };
        self.outbox.extend_from_slice(&header.encode());
        let start = self.outbox.len();
        self.outbox.extend_from_slice(payload);
        mask::apply(mask.unwrap_or_default(), 0, &mut self.outbox[start..]);
    }

    /// Sends what it must not.
    fn send_wrong(&mut self, chance: &mut Chance) {
        match chance.below(12) {
            0 => self.send(true, Opcode::Continuation, b"of nothing, perhaps", chance),
            1 => self.send(true, Opcode::Text, b"perhaps in between", chance),
            2 => self.send(true, Opcode::Text, b"not \xed\xa0\x80 UTF-8", chance),
            3 => self.send(true, Opcode::Text, b"cut short \xf0\x9f", chance),
            4 => self.send(false, Opcode::Ping, b"in pieces", chance),
            5 => self.send(true, Opcode::Ping, &[b'!'; 126], chance),
            6 => self.send(true, Opcode::Close, b"\x03\xed", chance),
            7 => self.send(true, Opcode::Close, b"\x03\xe8\xff", chance),
            8 => self.send(true, Opcode::Close, b"\x03", chance),
            9 => (0..20).for_each(|_| self.send(true, Opcode::Pong, b"", chance)),
            10 => {
                let (masked, len) = (must_mask(self.side), chance.below(3));
                let mask_bit = if masked == chance.one_in(9) { 0 } else { 0x80 };
                let first = 0x80 | chance.pick(&[1, 0x41, 0x11, 3, 0xb]);
                self.outbox.extend_from_slice(&[first, mask_bit | len as u8, 1, 2, 3, 4, 5, 6, 7]);
            }
            _ => {
                let noise = chance.bytes(9);
                self.outbox.extend_from_slice(&noise);
            }
        }
    }
}
