//! Bodies: what belongs to a message, taken from the front of a buffer without copying.
//!
//! Chunk framing is read to the letter of RFC 9112 §7.1 on either side. A bare LF, a stray byte or an oversized number
//! is where two implementations begin to disagree about what the next request is.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::escape::hex;
use crate::fields::{Entry, Fields, NameKind, is_clean_value, split_line};
use crate::framing::Framing;
use crate::lines::Lines;
use crate::write::{WriteError, write_end, write_fields};

/// How many bytes of chunk extensions a whole body may carry. They are read over; nobody needs them.
pub const MAX_CHUNK_EXTENSIONS: usize = 16 * 1024;

/// How long a trailer section may be. A buffer that is handed to a decoder must be able to grow to this.
pub const MAX_TRAILERS: usize = 8 * 1024;

/// Follows one body through a buffer.
#[derive(Debug)]
pub enum BodyDecoder {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked(ChunkedDecoder),
    /// Everything belongs to it.
    UntilClose,
    /// There is no body, or it has ended.
    None,
}

/// What [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A piece of the body, never empty.
    Data(Bytes),
    /// The buffer has to grow first.
    NeedMore,
    /// The body is complete; what is left in the buffer is not part of it.
    End {
        /// The fields that came behind a chunked body.
        trailers: Fields,
    },
}

/// Why a body cannot be followed any further.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BodyError {
    /// Anything but digits, extensions, CRLF, data, CRLF.
    #[error("invalid chunked body")]
    Chunk,
    /// More of them than [`MAX_CHUNK_EXTENSIONS`].
    #[error("too long chunk extensions")]
    Extensions,
    /// A field line that is none, or more of them than [`MAX_TRAILERS`].
    #[error("invalid trailers")]
    Trailers,
}

impl From<Framing> for BodyDecoder {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::None,
            Framing::Length(len) => Self::Length(len),
            Framing::Chunked => Self::Chunked(ChunkedDecoder::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl BodyDecoder {
    /// Takes the next piece of the body from the front of `input`. Call it until it says `NeedMore` or `End`.
    ///
    /// Between calls bytes may be added to the end of `input`, and nothing else done to it.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, BodyError> {
        let decoded = match self {
            Self::None | Self::Length(0) => Decoded::End { trailers: Fields::default() },
            _ if input.is_empty() => Decoded::NeedMore,
            Self::Length(left) => Decoded::Data(take(input, left)),
            Self::UntilClose => Decoded::Data(input.split().freeze()),
            Self::Chunked(chunked) => chunked.decode(input)?,
        };
        if let Decoded::End { .. } = decoded {
            *self = Self::None;
        }
        Ok(decoded)
    }

    /// Whether nothing more belongs to the body.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// At most `left` bytes from the front of `input`, and `left` less by them.
fn take(input: &mut BytesMut, left: &mut u64) -> Bytes {
    // Where `usize` has 32 bits a length can be larger than any buffer.
    let len = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= len as u64;
    input.split_to(len).freeze()
}

/// How far a chunked body has come.
///
/// ```text
/// Size ─▶ (AfterSize ─▶ Extension) ─CR─▶ SizeLf ─LF─▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size
///                                           └─ size 0 ─▶ Trailers ─▶ end
/// ```
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: ChunkState,
    /// Extension bytes that may still come.
    extensions_left: usize,
}

#[derive(Debug)]
enum ChunkState {
    /// In the digits; leading zeros count, so that the number is bounded in length too.
    Size {
        size: u64,
        digits: u8,
    },
    /// Spaces and tabs before an extension (BWS), or before the line end as some servers pad their sizes.
    AfterSize {
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailers(Trailers),
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self { state: ChunkState::START, extensions_left: MAX_CHUNK_EXTENSIONS }
    }
}

impl ChunkedDecoder {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, BodyError> {
        loop {
            match &mut self.state {
                ChunkState::Data { left } if *left > 0 => {
                    return Ok(if input.is_empty() {
                        Decoded::NeedMore
                    } else {
                        Decoded::Data(take(input, left))
                    });
                }
                ChunkState::Data { .. } => self.state = ChunkState::DataCr,
                ChunkState::Trailers(trailers) => {
                    return Ok(match trailers.decode(input)? {
                        Some(trailers) => Decoded::End { trailers },
                        None => Decoded::NeedMore,
                    });
                }
                _ if input.is_empty() => return Ok(Decoded::NeedMore),
                _ => {
                    let len = self.read_framing(input)?;
                    input.advance(len);
                }
            }
        }
    }

    /// Reads up to the next data or the trailers; returns how far it came.
    fn read_framing(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        for (at, &byte) in input.iter().enumerate() {
            self.on_byte(byte)?;
            // Not a byte further: data is taken from the front of the buffer, and the trailers'
            // lines are counted from there.
            if matches!(self.state, ChunkState::Data { .. } | ChunkState::Trailers(_)) {
                return Ok(at + 1);
            }
        }
        Ok(input.len())
    }

    /// One byte of framing.
    fn on_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        use ChunkState::*;
        // RFC 9112 §7.1.1 asks for a limit on extensions. Counted over the whole body, because a
        // limit for each chunk would let chunks of one byte carry any amount of them.
        if matches!(self.state, AfterSize { .. } | Extension { .. }) && byte != b'\r' {
            self.extensions_left =
                self.extensions_left.checked_sub(1).ok_or(BodyError::Extensions)?;
        }
        self.state = match (&self.state, byte) {
            (&Size { size, digits }, _) => match (hex(byte), byte) {
                (Some(digit), _) if digits < 16 => {
                    Size { size: add_digit(size, digit)?, digits: digits + 1 }
                }
                // Without a digit there is no size, and `\r\n` alone must not pass for the last
                // chunk.
                (None, b'\r') if digits > 0 => SizeLf { size },
                (None, b' ' | b'\t') if digits > 0 => AfterSize { size },
                (None, b';') if digits > 0 => Extension { size },
                _ => return Err(BodyError::Chunk),
            },
            (&AfterSize { size }, b' ' | b'\t') => AfterSize { size },
            (&AfterSize { size }, b';') => Extension { size },
            (&AfterSize { size } | &Extension { size }, b'\r') => SizeLf { size },
            // No LF: RFC 9112 §2.2 forgives a bare one only behind the start line and fields, and a
            // reader that ended the line here would take for data what another takes for an
            // extension.
            (&Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => Extension { size },
            (&SizeLf { size: 0 }, b'\n') => Trailers(self::Trailers::default()),
            (&SizeLf { size }, b'\n') => Data { left: size },
            // Nothing but CRLF may follow the data: whoever skips two bytes without a look reads
            // another size line than the one we see.
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => ChunkState::START,
            _ => return Err(BodyError::Chunk),
        };
        Ok(())
    }
}

impl ChunkState {
    const START: Self = Self::Size { size: 0, digits: 0 };
}

/// Sizes stay within 63 bits, so that sums of two never overflow.
fn add_digit(size: u64, digit: u8) -> Result<u64, BodyError> {
    match size <= i64::MAX as u64 >> 4 {
        true => Ok(size << 4 | u64::from(digit)),
        false => Err(BodyError::Chunk),
    }
}

/// The fields behind the last chunk, up to the empty line. They stay in the buffer until they are complete.
#[derive(Debug, Default)]
struct Trailers {
    lines: Lines,
    entries: Vec<Entry>,
}

impl Trailers {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Fields>, BodyError> {
        while let Some(line) = self.lines.next(input) {
            let text = line.text.of(input);
            // No bare LF here either; see the extensions.
            if line.next > MAX_TRAILERS || line.len() != text.len() + 2 {
                return Err(BodyError::Trailers);
            }
            if text.is_empty() {
                let entries = std::mem::take(&mut self.entries);
                return Ok(Some(Fields::new(input.split_to(line.next).freeze(), entries)));
            }
            let entry = split_line(text).ok_or(BodyError::Trailers)?;
            let (name, value) = text.split_at(entry.name.end());
            // As for heads without `ignore_invalid_headers`: nothing would drop a name that is no
            // token before it is written out again.
            if matches!(NameKind::of(name), NameKind::Broken | NameKind::NoToken)
                || !is_clean_value(value)
            {
                return Err(BodyError::Trailers);
            }
            let base = line.text.start();
            self.entries
                .push(Entry { name: entry.name.shift(base), value: entry.value.shift(base) });
        }
        // The section has no end yet and could only become longer.
        if input.len() >= MAX_TRAILERS { Err(BodyError::Trailers) } else { Ok(None) }
    }
}

/// What stands behind the data of every chunk but the last.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Writes the size line of a chunk of `len` bytes; the data and [`CHUNK_END`] follow.
///
/// A chunk of no bytes would end the body, so `len` must not be 0.
pub fn encode_chunk_head<B: BufMut>(out: &mut B, len: u64) {
    debug_assert!(len > 0);
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (u64::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        out.put_u8(HEX[(len >> (4 * at)) as usize & 15]);
    }
    out.put_slice(b"\r\n");
}

/// Writes `data` as one chunk; nothing for no data.
pub fn encode_chunk<B: BufMut>(out: &mut B, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    encode_chunk_head(out, data.len() as u64);
    out.put_slice(data);
    out.put_slice(CHUNK_END);
}

/// Ends a chunked body, with these trailers or, if one of them is refused, not at all.
pub fn encode_last_chunk<B: BufMut>(out: &mut B, trailers: &Fields) -> Result<(), WriteError> {
    let mut end = b"0\r\n".to_vec();
    write_fields(&mut end, trailers)?;
    write_end(&mut end);
    out.put_slice(&end);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
