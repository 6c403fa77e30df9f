//! What passes through the channel, as bytes.
//!
//! Every item begins with a header of [`HEADER`] bytes, numbers in little endian; the sockets of a batch come with its
//! first byte:
//!
//! ```text
//! "WSGH"  version u8  kind u8  tunnels u16  number u32  bytes that follow u32
//! ```
//!
//! A batch is followed by the length of each record (u32), then the records; a note by itself; the end by nothing. Batches
//! are numbered from 0. The answer to one is written at once:
//!
//! ```text
//! "WSGA"  version u8  0 u8  tunnels u16  number u32
//! then for each tunnel  0 u8 (taken)  or  1 u8, code u8, length of the text u8, text (refused)
//! ```
//!
//! Another version is another protocol: a taker that does not know it hangs up, and everything stays where it is.

use crate::{MAX_BATCH, MAX_BATCH_BYTES, MAX_NOTE};

/// The version of this format.
pub const VERSION: u8 = 1;

pub(crate) const HEADER: usize = 16;
const ANSWER_HEAD: usize = 12;

const ITEM: [u8; 4] = *b"WSGH";
const ANSWER: [u8; 4] = *b"WSGA";

/// The most bytes of the text of a refusal; the rest is left out. An answer stays well below what the kernel takes in one
/// piece.
pub const MAX_TEXT: usize = 60;

const TAKEN: u8 = 0;
const REFUSED: u8 = 1;

/// The code of a refusal by [`crate::Taker`] itself: the process could not open all sockets of the batch.
pub const TOO_MANY_OPEN_FILES: u8 = 0;

/// What the taker says of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It serves the tunnel from now on.
    Taken,
    /// It does not.
    Refused(Refusal),
}

/// Why a tunnel was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs; [`TOO_MANY_OPEN_FILES`] has its meaning here, and all others are the caller's.
    pub code: u8,
    /// For people; at most [`MAX_TEXT`] bytes of it arrive.
    pub text: String,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Batch = 1,
    Note = 2,
    End = 3,
}

/// How an item begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) tunnels: usize,
    pub(crate) number: u32,
    pub(crate) len: usize,
}

/// Why a header cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Version(u8),
    Malformed,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let small = |n: usize| u16::try_from(n).expect("a batch is bounded").to_le_bytes();
        let large = |n: usize| u32::try_from(n).expect("an item is bounded").to_le_bytes();
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&ITEM);
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[6..8].copy_from_slice(&small(self.tunnels));
        bytes[8..12].copy_from_slice(&self.number.to_le_bytes());
        bytes[12..].copy_from_slice(&large(self.len));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, BadHeader> {
        let [m0, m1, m2, m3, version, kind, t0, t1, n0, n1, n2, n3, l0, l1, l2, l3] = *bytes;
        if [m0, m1, m2, m3] != ITEM {
            return Err(BadHeader::Malformed);
        }
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let tunnels = usize::from(u16::from_le_bytes([t0, t1]));
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let (kind, is_sound) = match kind {
            1 => {
                let lengths = tunnels * 4;
                let sound = lengths <= len && len - lengths <= MAX_BATCH_BYTES;
                (Kind::Batch, sound && (1..=MAX_BATCH).contains(&tunnels))
            }
            2 => (Kind::Note, tunnels == 0 && len <= MAX_NOTE),
            3 => (Kind::End, tunnels == 0 && len == 0),
            _ => return Err(BadHeader::Malformed),
        };
        if is_sound { Ok(Self { kind, tunnels, number, len }) } else { Err(BadHeader::Malformed) }
    }
}

/// The answer is not one to this batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

fn answer_head(number: u32, tunnels: usize) -> [u8; ANSWER_HEAD] {
    let tunnels = u16::try_from(tunnels).expect("a batch is bounded").to_le_bytes();
    let mut head = [0; ANSWER_HEAD];
    head[..4].copy_from_slice(&ANSWER);
    head[4] = VERSION;
    head[6..8].copy_from_slice(&tunnels);
    head[8..].copy_from_slice(&number.to_le_bytes());
    head
}

pub(crate) fn encode_answer(number: u32, verdicts: &[Verdict]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ANSWER_HEAD + verdicts.len());
    bytes.extend_from_slice(&answer_head(number, verdicts.len()));
    for verdict in verdicts {
        match verdict {
            Verdict::Taken => bytes.push(TAKEN),
            Verdict::Refused(Refusal { code, text }) => {
                let text = &text[..text.floor_char_boundary(MAX_TEXT)];
                bytes.extend_from_slice(&[REFUSED, *code, text.len() as u8]);
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    bytes
}

/// Reads the answer to this batch from the front of `bytes`: the verdicts, and how long it is. `None` asks for more, of
/// what may still become that answer.
pub(crate) fn decode_answer(
    bytes: &[u8],
    number: u32,
    tunnels: usize,
) -> Result<Option<(Vec<Verdict>, usize)>, Malformed> {
    let head = answer_head(number, tunnels);
    let known = bytes.len().min(ANSWER_HEAD);
    if bytes[..known] != head[..known] {
        return Err(Malformed);
    }
    let mut rest = &bytes[known..];
    let mut verdicts = Vec::with_capacity(tunnels);
    for _ in 0..tunnels {
        match *rest {
            [TAKEN, ref after @ ..] => {
                verdicts.push(Verdict::Taken);
                rest = after;
            }
            [REFUSED, code, len, ref after @ ..] if after.len() >= usize::from(len) => {
                let (text, after) = after.split_at(len.into());
                let text = String::from_utf8_lossy(text).into_owned();
                verdicts.push(Verdict::Refused(Refusal { code, text }));
                rest = after;
            }
            [] | [REFUSED, ..] => return Ok(None),
            _ => return Err(Malformed),
        }
    }
    Ok((known == ANSWER_HEAD).then(|| (verdicts, bytes.len() - rest.len())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written_and_nothing_else_is() {
        let batch = Header { kind: Kind::Batch, tunnels: 3, number: 0x0102_0304, len: 700 };
        let note = Header { kind: Kind::Note, tunnels: 0, number: 0, len: MAX_NOTE };
        let end = Header { kind: Kind::End, tunnels: 0, number: 0, len: 0 };
        for header in [batch, note, end] {
            assert_eq!(Header::decode(&header.encode()), Ok(header));
            let mut other = header.encode();
            other[4] = 9;
            assert_eq!(Header::decode(&other), Err(BadHeader::Version(9)));
        }
        let lengths = MAX_BATCH * 4;
        for (header, is_sound) in [
            (Header { tunnels: MAX_BATCH, len: lengths + MAX_BATCH_BYTES, ..batch }, true),
            (Header { tunnels: MAX_BATCH, len: lengths + MAX_BATCH_BYTES + 1, ..batch }, false),
            (Header { tunnels: MAX_BATCH + 1, len: 1000, ..batch }, false),
            (Header { tunnels: 0, ..batch }, false),
            (Header { len: 11, ..batch }, false),
            (Header { len: MAX_NOTE + 1, ..note }, false),
            (Header { tunnels: 1, ..note }, false),
            (Header { len: 1, ..end }, false),
        ] {
            assert_eq!(Header::decode(&header.encode()).is_ok(), is_sound, "{header:?}");
        }
        for (at, byte) in [(0, b'X'), (5, 0), (5, 4)] {
            let mut other = batch.encode();
            other[at] = byte;
            assert_eq!(Header::decode(&other), Err(BadHeader::Malformed));
        }
    }

    fn refused(code: u8, text: &str) -> Verdict {
        Verdict::Refused(Refusal { code, text: text.into() })
    }

    #[test]
    fn an_answer_is_whole_or_asks_for_more() {
        let verdicts = [Verdict::Taken, refused(7, "why"), refused(255, ""), Verdict::Taken];
        let bytes = encode_answer(5, &verdicts);
        for len in 0..bytes.len() {
            assert_eq!(decode_answer(&bytes[..len], 5, 4), Ok(None), "{len}");
        }
        let (mut more, whole) = (bytes.clone(), Ok(Some((verdicts.to_vec(), bytes.len()))));
        assert_eq!(decode_answer(&more, 5, 4), whole);
        more.extend_from_slice(&encode_answer(6, &verdicts));
        assert_eq!(decode_answer(&more, 5, 4), whole);
    }

    #[test]
    fn an_answer_to_another_batch_is_none_from_the_first_byte_that_differs() {
        let bytes = encode_answer(5, &[Verdict::Taken, Verdict::Taken]);
        assert_eq!(decode_answer(&bytes, 6, 2), Err(Malformed));
        assert_eq!(decode_answer(&bytes, 5, 3), Err(Malformed));
        assert_eq!(decode_answer(&bytes[..8], 6, 2), Ok(None));
        assert_eq!(decode_answer(&bytes[..9], 6, 2), Err(Malformed));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x40;
            assert_eq!(decode_answer(&other, 5, 2), Err(Malformed), "{at}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(MAX_TEXT);
        let bytes = encode_answer(0, &[refused(1, &text), refused(2, &text[..MAX_TEXT])]);
        let (verdicts, _) = decode_answer(&bytes, 0, 2).unwrap().unwrap();
        assert_eq!(verdicts, [refused(1, &text[..MAX_TEXT]), refused(2, &text[..MAX_TEXT])]);
        let odd = format!("a{text}");
        let bytes = encode_answer(0, &[refused(1, &odd)]);
        let (verdicts, _) = decode_answer(&bytes, 0, 1).unwrap().unwrap();
        assert_eq!(verdicts, [refused(1, &odd[..MAX_TEXT - 1])]);
    }
}
