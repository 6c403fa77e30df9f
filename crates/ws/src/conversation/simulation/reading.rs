//! The naive reading of a stream: frame by frame, from its beginning.

use crate::tracker::reference::{Fact, facts};
use crate::{Extensions, FrameError, Side};

/// A frame whose header has come.
#[derive(Debug)]
pub(super) struct Frame {
    /// Where its payload begins.
    pub(super) payload_at: usize,
    /// Where it ends, though that may not have come.
    pub(super) end: usize,
    pub(super) fin: bool,
    pub(super) rsv: u8,
    pub(super) opcode: u8,
    /// As far as it has come, without its mask.
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The frame that begins at `start`, if its header is there. Rules are not looked at.
    pub(super) fn read(stream: &[u8], start: usize) -> Option<Self> {
        let input = &stream[start..];
        let (&first, &second) = (input.first()?, input.get(1)?);
        let extended = match second % 128 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_len = if second >= 128 { 4 } else { 0 };
        let header = input.get(..2 + extended + mask_len)?;
        let len = match extended {
            0 => usize::from(second % 128),
            _ => header[2..2 + extended].iter().fold(0, |len, &byte| len * 256 + usize::from(byte)),
        };
        let mask = &header[2 + extended..];
        let payload = input[header.len()..].iter().take(len).enumerate();
        Some(Self {
            payload_at: start + header.len(),
            end: (start + header.len()).saturating_add(len),
            fin: first >= 128,
            rsv: first / 16 % 8,
            opcode: first % 16,
            payload: payload.map(|(i, b)| b ^ mask.get(i % 4).unwrap_or(&0)).collect(),
        })
    }

    /// Whether a Close has come, with its code: frame after frame, whatever rules they break.
    pub(super) fn closes(stream: &[u8]) -> bool {
        let mut start = 0;
        // Of one whose code is half there, nothing else matters.
        let is_half = |frame: &[u8]| matches!(frame, [0x88, second, ..] if second % 128 == 1);
        while let Some(frame) = Self::read(stream, start.min(stream.len())) {
            let is_known = frame.len() == 1 || frame.payload.len() >= frame.len().min(2);
            if frame.opcode == 8 && is_known {
                return true;
            }
            start = frame.end;
        }
        stream.get(start..).is_some_and(is_half)
    }

    pub(super) fn is_data(&self) -> bool {
        self.opcode < 8
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.payload_at
    }

    pub(super) fn is_whole(&self) -> bool {
        self.payload.len() == self.len()
    }
}

/// The frames of a stream, the last of which may be unfinished, and the rule that it breaks behind them.
pub(super) fn read(
    stream: &[u8],
    from: Side,
    extensions: Extensions,
) -> (Vec<Frame>, Option<FrameError>) {
    let (mut frames, mut broken, mut start) = (Vec::new(), None, 0);
    for fact in facts(stream, from, extensions) {
        match fact {
            Fact::FrameEnd { at, .. } => {
                frames.extend(Frame::read(&stream[..at], start));
                start = at;
            }
            Fact::Broken { error, .. } => broken = Some(error),
            Fact::Close { .. } => {}
        }
    }
    if broken.is_none() {
        frames.extend(Frame::read(stream, start));
    }
    (frames, broken)
}
