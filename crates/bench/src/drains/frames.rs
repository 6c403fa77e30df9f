//! What clients and the backend tell each other, read frame by frame.
//!
//! A client sends numbered messages. Most answers are the message itself; one of eight is
//! [`LONG`] bytes in four frames, each written in two pieces, so that at any time some clients are in
//! the middle of a frame or of a message, as they are in life.

use wssgate_ws::{FrameError, FrameHeader, Opcode, mask};

/// A request, and a short answer.
pub(super) const SHORT: usize = 125;

/// A long answer.
pub(super) const LONG: usize = 32 * 1024;

/// The frames of a long answer.
pub(super) const FRAMES: usize = 4;

/// Every so many answers are long.
pub(super) const ONE_OF: u64 = 8;

/// The longest frame that is read; nobody here sends a longer one.
const MAX_FRAME: u64 = LONG as u64;

/// The payload of the request of this number.
pub(super) fn request(number: u64) -> Vec<u8> {
    payload(number, SHORT)
}

/// The payload of its answer.
pub(super) fn answer(number: u64) -> Vec<u8> {
    payload(number, if number.is_multiple_of(ONE_OF) { LONG } else { SHORT })
}

/// The number, and then bytes that depend on it and on their place.
fn payload(number: u64, len: usize) -> Vec<u8> {
    let filler = (8..len).map(|at| (number as usize).wrapping_add(at / 251) as u8);
    number.to_be_bytes().into_iter().chain(filler).collect()
}

/// The number of the request with this payload.
pub(super) fn number(request: &[u8]) -> Option<u64> {
    request.first_chunk().map(|first| u64::from_be_bytes(*first))
}

/// A frame as it goes over the wire.
pub(super) fn frame(opcode: Opcode, fin: bool, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { fin, rsv: 0, opcode, mask, payload_len: payload.len() as u64 };
    let mut frame = header.encode().to_vec();
    let start = frame.len();
    frame.extend_from_slice(payload);
    if let Some(mask) = mask {
        mask::apply(mask, 0, &mut frame[start..]);
    }
    frame
}

/// A whole frame, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A whole message.
    Message(Vec<u8>),
    /// A part of one that is not its last.
    Fragment,
    Ping(Vec<u8>),
    Pong,
    /// With what stands in it.
    Close(Vec<u8>),
}

/// Bytes that came, as frames and messages.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    /// The fragments so far of a message that has not ended.
    message: Option<Vec<u8>>,
}

impl Incoming {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a frame has begun and not ended.
    pub(super) fn is_in_frame(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_in_message(&self) -> bool {
        self.message.is_some()
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((header, rest)) = FrameHeader::decode(&self.bytes)? else { return Ok(None) };
        if header.rsv != 0 {
            return Err(FrameError::ReservedBits(header.rsv));
        }
        if header.payload_len > MAX_FRAME {
            return Err(FrameError::LengthTooBig);
        }
        let len = header.payload_len as usize;
        if rest.len() < len {
            return Ok(None);
        }
        let start = self.bytes.len() - rest.len();
        let mut payload = rest[..len].to_vec();
        self.bytes.drain(..start + len);
        if let Some(mask) = header.mask {
            mask::apply(mask, 0, &mut payload);
        }
        self.take(header, payload).map(Some)
    }

    fn take(&mut self, header: FrameHeader, payload: Vec<u8>) -> Result<Frame, FrameError> {
        let message = match (header.opcode, self.message.take()) {
            (Opcode::Continuation, Some(mut message)) => {
                message.extend_from_slice(&payload);
                message
            }
            (Opcode::Continuation, None) => return Err(FrameError::NothingToContinue),
            (Opcode::Text | Opcode::Binary, None) => payload,
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(FrameError::MessageNotEnded),
            (control, message) => {
                self.message = message;
                return Ok(match control {
                    Opcode::Ping => Frame::Ping(payload),
                    Opcode::Pong => Frame::Pong,
                    _ => Frame::Close(payload),
                });
            }
        };
        if header.fin {
            return Ok(Frame::Message(message));
        }
        self.message = Some(message);
        Ok(Frame::Fragment)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_out_however_they_are_cut() {
        let long = answer(ONE_OF);
        assert_eq!((long.len(), answer(1)), (LONG, request(1)));
        assert_ne!(answer(2 * ONE_OF), long);
        let (first, second) = long.split_at(LONG / 4);
        let mask = Some([1, 2, 3, 4]);
        let wire = [
            frame(Opcode::Binary, false, mask, first),
            frame(Opcode::Ping, true, None, b"?"),
            frame(Opcode::Continuation, true, None, second),
            frame(Opcode::Close, true, None, b"\x03\xe9"),
        ]
        .concat();
        for size in [1, 7, 4096, wire.len()] {
            let mut incoming = Incoming::default();
            let mut frames = Vec::new();
            for bytes in wire.chunks(size) {
                incoming.push(bytes);
                while let Some(frame) = incoming.next().unwrap() {
                    frames.push(frame);
                    assert_eq!(incoming.is_in_message(), frames.len() < 3);
                }
            }
            let expected = [
                Frame::Fragment,
                Frame::Ping(b"?".to_vec()),
                Frame::Message(long.clone()),
                Frame::Close(b"\x03\xe9".to_vec()),
            ];
            assert_eq!(frames, expected, "in pieces of {size}");
            assert!(!incoming.is_in_frame());
        }
        assert_eq!(number(&long), Some(ONE_OF));
    }

    #[test]
    fn half_frames_and_broken_ones_are_told_apart() {
        let mut incoming = Incoming::default();
        incoming.push(&frame(Opcode::Binary, true, None, b"abc")[..4]);
        assert_eq!(incoming.next(), Ok(None));
        assert!(incoming.is_in_frame() && !incoming.is_in_message());
        let mut incoming = Incoming::default();
        incoming.push(&frame(Opcode::Continuation, true, None, b"abc"));
        assert_eq!(incoming.next(), Err(FrameError::NothingToContinue));
    }
}
