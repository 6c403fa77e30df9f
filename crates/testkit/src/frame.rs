//! Frames as tests write them: `text("hel").more()`, `ping("?")`, `close(1000, "bye")`.

use wssgate_ws::{FrameHeader, Opcode, mask};

/// A frame with its payload unmasked.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether it ends its message.
    pub fin: bool,
    /// RSV1, RSV2, RSV3 as the bits 4, 2, 1.
    pub rsv: u8,
    /// What it is.
    pub opcode: Opcode,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame that is a whole message or a control frame.
    pub fn new(opcode: Opcode, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, rsv: 0, opcode, payload: payload.into() }
    }

    /// The same, but not the last of its message.
    #[must_use]
    pub fn more(self) -> Self {
        Self { fin: false, ..self }
    }

    /// The same with these reserved bits.
    #[must_use]
    pub fn rsv(self, rsv: u8) -> Self {
        Self { rsv, ..self }
    }

    /// The frame as it goes over the wire.
    pub fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let Self { fin, rsv, opcode, ref payload } = *self;
        let header = FrameHeader { fin, rsv, opcode, mask, payload_len: payload.len() as u64 };
        let mut bytes = header.encode().to_vec();
        let header_len = bytes.len();
        bytes.extend_from_slice(payload);
        mask::apply(mask.unwrap_or_default(), 0, &mut bytes[header_len..]);
        bytes
    }

    /// The code of a Close, if it has one.
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk()?;
        (self.opcode == Opcode::Close).then(|| u16::from_be_bytes(*code))
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MAX_SHOWN: usize = 80;
        let more = if self.fin { "" } else { "+" };
        let shown = &self.payload[..self.payload.len().min(MAX_SHOWN)];
        write!(f, "{:?}{more}", self.opcode)?;
        if self.rsv != 0 {
            write!(f, " rsv={:03b}", self.rsv)?;
        }
        write!(f, " {}B \"{}\"", self.payload.len(), shown.escape_ascii())
    }
}

/// A text message.
pub fn text(payload: &str) -> Frame {
    Frame::new(Opcode::Text, payload)
}

/// A binary message.
pub fn binary(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(Opcode::Binary, payload)
}

/// The last fragment of a message.
pub fn continuation(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(Opcode::Continuation, payload)
}

/// A ping.
pub fn ping(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(Opcode::Ping, payload)
}

/// A pong.
pub fn pong(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(Opcode::Pong, payload)
}

/// A Close with a code and a reason.
pub fn close(code: u16, reason: &str) -> Frame {
    Frame::new(Opcode::Close, [&code.to_be_bytes(), reason.as_bytes()].concat())
}
