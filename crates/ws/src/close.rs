//! Why a WebSocket is closed: the payload of a Close frame (RFC 6455 §5.5.1 and §7.4).

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::frame::{ControlFrame, MAX_CONTROL_LEN, Opcode};

/// The longest reason: a control frame without the two bytes of the code.
pub const MAX_REASON_LEN: usize = MAX_CONTROL_LEN - 2;

/// A status code of the closing handshake (RFC 6455 §7.4, IANA's registry).
///
/// Any number can be held; [`CloseCode::is_valid_on_wire`] says which may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct CloseCode(#[n(0)] pub u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes away: a server shuts down, a page is left.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The peer sent a kind of data that cannot be accepted.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// No code was received; never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// The connection broke without a Close; never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// A message held data that does not fit its type, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A message violates a policy.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// A message is too big.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// The client needs an extension that the server did not negotiate.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// The server met something unexpected.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The service restarts; reconnect after a while.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The service is overloaded; reconnect to another address or later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// A gateway got an invalid answer from its upstream.
    pub const BAD_GATEWAY: Self = Self(1014);
    /// The TLS handshake failed; never sent.
    pub const TLS_HANDSHAKE: Self = Self(1015);

    /// Whether the code may stand in a Close frame: the registered ones except those that only
    /// describe (1005, 1006, 1015), and 3000-4999 for libraries and applications (§7.4.2).
    pub fn is_valid_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// The name of the code in IANA's registry, for logs.
    pub fn name(self) -> &'static str {
        match self.0 {
            1000 => "normal closure",
            1001 => "going away",
            1002 => "protocol error",
            1003 => "unsupported data",
            1005 => "no status received",
            1006 => "abnormal closure",
            1007 => "invalid frame payload data",
            1008 => "policy violation",
            1009 => "message too big",
            1010 => "mandatory extension",
            1011 => "internal error",
            1012 => "service restart",
            1013 => "try again later",
            1014 => "bad gateway",
            1015 => "TLS handshake",
            3000..=3999 => "registered by a library",
            4000..=4999 => "private use",
            _ => "unassigned",
        }
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.0, self.name())
    }
}

/// What is wrong with the payload of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Encode, Decode)]
pub enum CloseError {
    /// One byte is no code.
    #[error("close payload of one byte")]
    #[n(0)]
    HalfCode,
    /// The code may not stand in a frame.
    #[error("close code {} must not be sent", .0.0)]
    #[n(1)]
    Code(#[n(0)] CloseCode),
    /// The reason is not UTF-8.
    #[error("close reason is not UTF-8")]
    #[n(2)]
    Reason,
    /// The payload is longer than a control frame can be.
    #[error("close payload is longer than 125 bytes")]
    #[n(3)]
    TooLong,
}

/// Reads the unmasked payload of a Close frame: a code and its reason, or nothing at all.
pub fn decode(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, CloseError> {
    if payload.len() > MAX_CONTROL_LEN {
        return Err(CloseError::TooLong);
    }
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseError::HalfCode) };
    };
    let code = CloseCode(u16::from_be_bytes(code));
    if !code.is_valid_on_wire() {
        return Err(CloseError::Code(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| CloseError::Reason)?;
    Ok(Some((code, reason)))
}

/// A Close frame with `code` and as much of `reason` as fits, cut between characters.
///
/// The mask is for frames that go to a server. The code is sent as it is.
pub fn encode(code: CloseCode, reason: &str, mask: Option<[u8; 4]>) -> ControlFrame {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON_LEN)];
    let mut payload = [0; MAX_CONTROL_LEN];
    payload[..2].copy_from_slice(&code.0.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason);
    ControlFrame::new(Opcode::Close, &payload[..2 + reason.len()], mask)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::FrameHeader;

    #[test]
    fn codes_that_only_describe_or_are_unassigned_are_not_sent() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, u16::MAX] {
            assert!(!CloseCode(code).is_valid_on_wire(), "{code}");
            let payload = code.to_be_bytes();
            assert_eq!(decode(&payload), Err(CloseError::Code(CloseCode(code))));
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(CloseCode(code).is_valid_on_wire(), "{code}");
        }
    }

    #[test]
    fn a_payload_is_empty_or_a_code_with_a_reason() {
        assert_eq!(decode(b""), Ok(None));
        assert_eq!(decode(b"\x03"), Err(CloseError::HalfCode));
        assert_eq!(decode(b"\x03\xe8"), Ok(Some((CloseCode::NORMAL, ""))));
        assert_eq!(decode(b"\x03\xe9bye"), Ok(Some((CloseCode::GOING_AWAY, "bye"))));
        assert_eq!(decode(b"\x03\xe8\xff"), Err(CloseError::Reason));
        assert_eq!(decode(&[3; 126]), Err(CloseError::TooLong));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = encode(CloseCode::GOING_AWAY, &"é".repeat(100), None);
        let (header, payload) = FrameHeader::decode(&frame).unwrap().unwrap();
        assert_eq!(header, FrameHeader::whole(Opcode::Close, 124));
        assert_eq!(decode(payload), Ok(Some((CloseCode::GOING_AWAY, &*"é".repeat(61)))));
    }

    #[test]
    fn a_code_is_shown_with_its_name() {
        assert_eq!(CloseCode::SERVICE_RESTART.to_string(), "1012 (service restart)");
        assert_eq!(CloseCode(4001).to_string(), "4001 (private use)");
    }
}
