//! The answer of a side that has broken a rule of frames: its Close, found by the lengths of frames alone.
//!
//! Most who break a rule of one frame keep those of the next ones, so the Close that answers ours can be found
//! behind it. Where a length is not to be trusted nothing is found, and the answer has its time.

use minicbor::{Decode, Encode};

use crate::cbor::is_default;
use crate::frame::MAX_HEADER_LEN;
use crate::{CloseCode, FrameError, FrameHeader, Opcode, mask};

/// Looks for the Close of a side, from the beginning of a frame that broke a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Answer {
    /// What has come of a header, and of the code behind it if it is that of a Close.
    #[cbor(n(0), with = "minicbor::bytes", skip_if = "is_default")]
    front: Vec<u8>,
    /// How much of the frame behind it is still to come.
    #[cbor(n(1), skip_if = "is_default")]
    left: u64,
}

/// The longest front: a header and a code.
const MAX_FRONT_LEN: usize = MAX_HEADER_LEN + 2;

impl Answer {
    /// Whether it can have come to that: a front that is as long as any is always read.
    pub(super) fn is_sound(&self) -> bool {
        self.front.len() < MAX_FRONT_LEN && read(&self.front).is_none()
    }

    /// Takes the next bytes; says the code of the Close that has come with them, if one has.
    pub(super) fn find(&mut self, mut bytes: &[u8]) -> Option<CloseCode> {
        loop {
            let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= len as u64;
            bytes = &bytes[len..];
            if bytes.is_empty() {
                return None;
            }
            let before = self.front.len();
            let more = bytes.len().min(MAX_FRONT_LEN - before);
            self.front.extend_from_slice(&bytes[..more]);
            match read(&self.front) {
                Some(Front::Close(code)) => {
                    self.front.clear();
                    return Some(code);
                }
                Some(Front::Other(frame_len)) => {
                    self.front.clear();
                    // None of the bytes before were a whole frame, or this would have been known.
                    self.left = frame_len.saturating_sub(before as u64);
                }
                None => bytes = &bytes[more..],
            }
        }
    }
}

/// What begins with some bytes.
enum Front {
    /// A Close with this code.
    Close(CloseCode),
    /// A frame of this length.
    Other(u64),
}

/// `None` if these are too few bytes.
fn read(front: &[u8]) -> Option<Front> {
    match FrameHeader::decode(front) {
        Ok(Some((FrameHeader { opcode: Opcode::Close, payload_len, mask, .. }, payload))) => {
            if payload_len == 0 {
                return Some(Front::Close(CloseCode::NO_STATUS));
            }
            let mut code = *payload.first_chunk()?;
            mask::apply(mask.unwrap_or_default(), 0, &mut code);
            Some(Front::Close(CloseCode(u16::from_be_bytes(code))))
        }
        Ok(None) => None,
        Err(FrameError::HalfCloseCode) => Some(Front::Close(CloseCode::NO_STATUS)),
        Ok(Some(_)) | Err(_) => frame_len(front).map(Front::Other),
    }
}

/// How long a frame is by what it says, whatever rules it breaks.
fn frame_len(front: &[u8]) -> Option<u64> {
    let &second = front.get(1)?;
    let (len_len, payload_len) = match second & 0x7f {
        126 => (2, u16::from_be_bytes(*front.get(2..)?.first_chunk()?).into()),
        127 => (8, u64::from_be_bytes(*front.get(2..)?.first_chunk()?)),
        short => (0, short.into()),
    };
    let mask_len = if second & 0x80 == 0 { 0 } else { 4 };
    Some(payload_len.saturating_add(2 + len_len + mask_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_found_behind_frames_that_break_rules() {
        let masked_close = b"\x88\x85\x01\x02\x03\x04\x02\xeabye";
        for (said, code) in [
            (b"\x88\x00".to_vec(), Some(1005)),
            (b"\x88\x01?".to_vec(), Some(1005)),
            (masked_close.to_vec(), Some(1000)),
            // An unknown opcode, a ping in pieces, one that is too long, a length that is not the shortest.
            ([b"\x83\x03abc\x09\x01x".as_slice(), masked_close].concat(), Some(1000)),
            ([b"\x89\x7e\x00\x80", &[b'x'; 128][..], masked_close].concat(), Some(1000)),
            ([b"\x82\x7f\0\0\0\0\0\0\0\x01x", &masked_close[..]].concat(), Some(1000)),
            ([b"\x82\x80\x01\x02\x03\x04", &masked_close[..]].concat(), Some(1000)),
            // Nobody sends that much.
            ([b"\x82\xff", &[0xff; 8][..], &masked_close[..]].concat(), None),
            // In a payload it is none.
            ([b"\xf1\x0b", &masked_close[..]].concat(), None),
        ] {
            let code = code.map(CloseCode);
            for cut in 0..said.len() {
                let mut answer = Answer::default();
                let found = answer.find(&said[..cut]).or_else(|| answer.find(&said[cut..]));
                assert_eq!(found, code, "{said:x?} cut at {cut}");
            }
        }
    }
}
