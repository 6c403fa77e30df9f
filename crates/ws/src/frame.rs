//! The frame header (RFC 6455 §5.2), decoded and encoded.
//!
//! A header is 2 to 14 bytes: flags and opcode, the mask bit with a 7-bit length, a longer length
//! if that one says 126 or 127, and the mask. Decoding refuses what no endpoint may send whatever
//! was negotiated: reserved opcodes, lengths that are not in their shortest form or use the 64th
//! bit, control frames that are long or fragmented. What depends on the direction, on extensions
//! or on the frames before belongs to [`crate::tracker`].

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::{Side, mask};

/// The longest frame header: two bytes, eight of length, four of mask.
pub const MAX_HEADER_LEN: usize = 14;

/// The longest payload of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL_LEN: usize = 125;

/// RSV1, the bit that permessage-deflate uses (RFC 7692 §6), within [`FrameHeader::rsv`].
pub const RSV1: u8 = 0b100;

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    #[n(0)]
    Continuation = 0x0,
    /// A text message, or its first fragment.
    #[n(1)]
    Text = 0x1,
    /// A binary message, or its first fragment.
    #[n(2)]
    Binary = 0x2,
    /// The closing handshake.
    #[n(8)]
    Close = 0x8,
    /// Asks for a pong.
    #[n(9)]
    Ping = 0x9,
    /// Answers a ping, or is a one-way heartbeat.
    #[n(10)]
    Pong = 0xa,
}

impl Opcode {
    /// Control frames have the highest bit of the opcode set (RFC 6455 §5.5).
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

impl TryFrom<u8> for Opcode {
    type Error = FrameError;

    fn try_from(value: u8) -> Result<Self, FrameError> {
        Ok(match value {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            reserved => return Err(FrameError::ReservedOpcode(reserved)),
        })
    }
}

/// How a stream of frames broke the protocol; every case is a protocol error (close code 1002).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Encode, Decode)]
pub enum FrameError {
    /// RFC 6455 §5.2: an unknown opcode fails the connection.
    #[error("opcode {0:#x} is reserved")]
    #[n(0)]
    ReservedOpcode(#[n(0)] u8),
    /// RFC 6455 §5.2: reserved bits are zero unless an extension defines them.
    #[error("reserved bits {0:03b} are set, which no negotiated extension defines here")]
    #[n(1)]
    ReservedBits(#[n(0)] u8),
    /// RFC 6455 §5.5: control frames carry at most 125 bytes.
    #[error("control frame is longer than 125 bytes")]
    #[n(2)]
    LongControl,
    /// RFC 6455 §5.5: control frames are not fragmented.
    #[error("control frame is fragmented")]
    #[n(3)]
    FragmentedControl,
    /// RFC 6455 §5.2: the shortest form of the length must be used.
    #[error("payload length is not in its shortest form")]
    #[n(4)]
    LengthNotMinimal,
    /// RFC 6455 §5.2: the highest bit of a 64-bit length is zero.
    #[error("payload length exceeds 63 bits")]
    #[n(5)]
    LengthTooBig,
    /// RFC 6455 §5.1: a client masks every frame.
    #[error("frame from the client is not masked")]
    #[n(6)]
    NotMasked,
    /// RFC 6455 §5.1: a server masks no frame.
    #[error("frame from the server is masked")]
    #[n(7)]
    Masked,
    /// RFC 6455 §5.4: a continuation needs a message that it continues.
    #[error("continuation frame without a message to continue")]
    #[n(8)]
    NothingToContinue,
    /// RFC 6455 §5.4: fragments of different messages are not interleaved.
    #[error("new message before the fragmented one has ended")]
    #[n(9)]
    MessageNotEnded,
    /// RFC 6455 §5.5.1: the payload of a Close is empty or begins with a two-byte code.
    #[error("close frame with a payload of one byte")]
    #[n(10)]
    HalfCloseCode,
}

/// Everything that precedes a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether this is the last fragment of its message.
    pub fin: bool,
    /// RSV1, RSV2, RSV3 as the bits 4, 2, 1; zero unless an extension defines them.
    pub rsv: u8,
    /// What the frame is.
    pub opcode: Opcode,
    /// The mask of the payload; clients always mask, servers never.
    pub mask: Option<[u8; 4]>,
    /// How many bytes of payload follow, at most 2^63 - 1.
    pub payload_len: u64,
}

impl FrameHeader {
    /// The header of a whole unmasked message in one frame.
    pub fn whole(opcode: Opcode, payload_len: u64) -> Self {
        Self { fin: true, rsv: 0, opcode, mask: None, payload_len }
    }

    /// Reads a header from the front of `input` and returns what follows it.
    ///
    /// `Ok(None)` asks for more bytes; nothing was consumed. An error is reported by the first
    /// byte that proves it, so the answer does not depend on how the input was cut.
    pub fn decode(input: &[u8]) -> Result<Option<(Self, &[u8])>, FrameError> {
        let Some((&first, rest)) = input.split_first() else {
            return Ok(None);
        };
        let (fin, rsv) = (first & 0x80 != 0, first >> 4 & 0b111);
        let opcode = Opcode::try_from(first & 0x0f)?;
        if opcode.is_control() && !fin {
            return Err(FrameError::FragmentedControl);
        }
        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        let short_len = second & 0x7f;
        // 126 and 127 announce a longer length, so this sees them as well and needs no byte of it.
        if opcode.is_control() && usize::from(short_len) > MAX_CONTROL_LEN {
            return Err(FrameError::LongControl);
        }
        if opcode == Opcode::Close && short_len == 1 {
            return Err(FrameError::HalfCloseCode);
        }
        let Some((payload_len, rest)) = split_len(short_len, rest)? else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Ok(Some((Self { fin, rsv, opcode, mask: None, payload_len }, rest)));
        }
        let Some((&mask, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some((Self { fin, rsv, opcode, mask: Some(mask), payload_len }, rest)))
    }

    /// The header as it goes over the wire, with the length in its shortest form.
    ///
    /// What other fields say is encoded as it is: a test may well want a wrong header.
    pub fn encode(&self) -> HeaderBytes {
        let mut out = HeaderBytes { bytes: [0; MAX_HEADER_LEN], len: 0 };
        let mask_bit = if self.mask.is_some() { 0x80 } else { 0 };
        out.push(&[u8::from(self.fin) << 7 | (self.rsv & 0b111) << 4 | self.opcode as u8]);
        if self.payload_len <= 125 {
            out.push(&[mask_bit | self.payload_len as u8]);
        } else if let Ok(len) = u16::try_from(self.payload_len) {
            out.push(&[mask_bit | 126]);
            out.push(&len.to_be_bytes());
        } else {
            out.push(&[mask_bit | 127]);
            out.push(&self.payload_len.to_be_bytes());
        }
        if let Some(mask) = self.mask {
            out.push(&mask);
        }
        out
    }
}

/// Completes the 7-bit length by the longer one behind it, if there is one.
fn split_len(short_len: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, FrameError> {
    match short_len {
        126 => {
            // A first byte of zero does not decide: 0x007e is minimal, 0x007d is not.
            let Some((&len, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            match u16::from_be_bytes(len) {
                ..126 => Err(FrameError::LengthNotMinimal),
                len => Ok(Some((u64::from(len), rest))),
            }
        }
        127 => {
            if rest.first().is_some_and(|first| first & 0x80 != 0) {
                return Err(FrameError::LengthTooBig);
            }
            // Six zeros leave at most 16 bits, for which 126 is the shortest form.
            if rest.len() >= 6 && rest[..6] == [0; 6] {
                return Err(FrameError::LengthNotMinimal);
            }
            let Some((&len, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            Ok(Some((u64::from_be_bytes(len), rest)))
        }
        len => Ok(Some((u64::from(len), rest))),
    }
}

/// An encoded header, kept inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderBytes {
    bytes: [u8; MAX_HEADER_LEN],
    len: u8,
}

impl HeaderBytes {
    fn push(&mut self, more: &[u8]) {
        // The array holds the longest header, and `encode` pushes each part at most once.
        let start = usize::from(self.len);
        self.bytes[start..start + more.len()].copy_from_slice(more);
        self.len += more.len() as u8;
    }
}

impl std::ops::Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A whole control frame, kept inline: what a proxy injects between the frames of others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ControlFrame {
    bytes: [u8; 2 + 4 + MAX_CONTROL_LEN],
    len: u8,
}

impl ControlFrame {
    /// A control frame with `payload`, of which only the first 125 bytes fit.
    ///
    /// With a mask it is one that goes to a server, without it is one that goes to a client
    /// (RFC 6455 §5.1).
    pub fn new(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Self {
        debug_assert!(opcode.is_control(), "{opcode:?} is no control frame");
        let payload = &payload[..payload.len().min(MAX_CONTROL_LEN)];
        // At most 125 bytes have the short length, so header and payload fit the array.
        let mut header = FrameHeader::whole(opcode, payload.len() as u64);
        header.mask = mask;
        let header = header.encode();
        let mut bytes = [0; 2 + 4 + MAX_CONTROL_LEN];
        let end = header.len() + payload.len();
        bytes[..header.len()].copy_from_slice(&header);
        bytes[header.len()..end].copy_from_slice(payload);
        if let Some(mask) = mask {
            mask::apply(mask, 0, &mut bytes[header.len()..end]);
        }
        Self { bytes, len: end as u8 }
    }
}

impl std::ops::Deref for ControlFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for ControlFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControlFrame({})", self.escape_ascii())
    }
}

/// Whether frames that come from `side` must be masked (RFC 6455 §5.1).
pub fn must_mask(side: Side) -> bool {
    side == Side::Client
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(opcode: Opcode, payload_len: u64) -> FrameHeader {
        FrameHeader::whole(opcode, payload_len)
    }

    #[test]
    fn the_examples_of_rfc_6455_section_5_7_decode() {
        let masked = Some([0x37, 0xfa, 0x21, 0x3d]);
        let cases: &[(&[u8], FrameHeader)] = &[
            (&[0x81, 0x05], header(Opcode::Text, 5)),
            (
                &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d],
                FrameHeader { mask: masked, ..header(Opcode::Text, 5) },
            ),
            (&[0x01, 0x03], FrameHeader { fin: false, ..header(Opcode::Text, 3) }),
            (&[0x80, 0x02], header(Opcode::Continuation, 2)),
            (&[0x89, 0x05], header(Opcode::Ping, 5)),
            (
                &[0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d],
                FrameHeader { mask: masked, ..header(Opcode::Pong, 5) },
            ),
            (&[0x82, 0x7e, 0x01, 0x00], header(Opcode::Binary, 256)),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], header(Opcode::Binary, 65536)),
            (&[0xc1, 0x00], FrameHeader { rsv: RSV1, ..header(Opcode::Text, 0) }),
        ];
        for (bytes, expected) in cases {
            let with_payload = [*bytes, b"rest"].concat();
            assert_eq!(FrameHeader::decode(&with_payload), Ok(Some((*expected, &b"rest"[..]))));
            assert_eq!(&*expected.encode(), *bytes);
        }
    }

    #[test]
    fn what_no_endpoint_may_send_is_refused_by_the_byte_that_proves_it() {
        let cases: &[(&[u8], FrameError)] = &[
            (&[0x83], FrameError::ReservedOpcode(3)),
            (&[0x8b], FrameError::ReservedOpcode(0xb)),
            (&[0x09], FrameError::FragmentedControl),
            (&[0x89, 126], FrameError::LongControl),
            (&[0x88, 0xff], FrameError::LongControl),
            (&[0x88, 0x81], FrameError::HalfCloseCode),
            (&[0x82, 126, 0, 125], FrameError::LengthNotMinimal),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0], FrameError::LengthNotMinimal),
            (&[0x82, 127, 0x80], FrameError::LengthTooBig),
        ];
        for (bytes, expected) in cases {
            let before = &bytes[..bytes.len() - 1];
            assert_eq!(FrameHeader::decode(before), Ok(None), "{before:x?}");
            assert_eq!(FrameHeader::decode(bytes), Err(*expected), "{bytes:x?}");
        }
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        let cases = [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10), (u64::MAX >> 1, 10)];
        for (payload_len, encoded_len) in cases {
            let bytes = header(Opcode::Binary, payload_len).encode();
            assert_eq!(bytes.len(), encoded_len);
            let (decoded, rest) = FrameHeader::decode(&bytes).unwrap().unwrap();
            assert_eq!((decoded.payload_len, rest), (payload_len, &[][..]));
        }
    }

    #[test]
    fn a_control_frame_holds_125_bytes_and_no_more() {
        let frame = ControlFrame::new(Opcode::Ping, &[b'x'; 200], None);
        let (header, payload) = FrameHeader::decode(&frame).unwrap().unwrap();
        assert_eq!(header, FrameHeader::whole(Opcode::Ping, 125));
        assert_eq!(payload, [b'x'; 125]);

        let masked = ControlFrame::new(Opcode::Ping, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
        let expected = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(&*masked, &expected);
    }

    fn any_header() -> impl Strategy<Value = FrameHeader> {
        let data =
            prop_oneof![Just(Opcode::Continuation), Just(Opcode::Text), Just(Opcode::Binary)];
        let len = prop_oneof![0..300u64, 65000..66000u64, 0..1u64 << 63];
        (any::<bool>(), 0..8u8, data, any::<Option<[u8; 4]>>(), len).prop_map(
            |(fin, rsv, opcode, mask, payload_len)| FrameHeader {
                fin,
                rsv,
                opcode,
                mask,
                payload_len,
            },
        )
    }

    proptest! {
        #[test]
        fn every_header_survives_the_wire(header in any_header(), cut: usize) {
            let bytes = header.encode();
            prop_assert_eq!(FrameHeader::decode(&bytes), Ok(Some((header, &[][..]))));
            prop_assert_eq!(FrameHeader::decode(&bytes[..cut % bytes.len()]), Ok(None));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(Some((header, rest))) = FrameHeader::decode(&bytes) {
                let used = bytes.len() - rest.len();
                prop_assert_eq!(&*header.encode(), &bytes[..used]);
            }
        }
    }
}
