//! Messages, made once: as the client sends them and as they come back.

use wssgate_ws::{FrameHeader, Opcode, mask};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What is not longer than this is read and written for many sockets at once. Longer reads and writes are
/// worth a system call of their own.
pub(super) const SHORT: usize = 1 << 10;

/// A binary message in one frame.
#[derive(Debug)]
pub(super) struct Message {
    /// Masked, as it goes to the backend.
    pub(super) frame: Vec<u8>,
    /// Unmasked, as the backend answers.
    pub(super) echo: Vec<u8>,
}

impl Message {
    pub(super) fn new(payload_len: usize) -> Self {
        let mut payload: Vec<u8> = (0..payload_len).map(|i| (i % 251) as u8).collect();
        let mut header = FrameHeader::whole(Opcode::Binary, payload_len as u64);
        let echo = [&header.encode()[..], &payload].concat();
        header.mask = Some(MASK);
        mask::apply(MASK, 0, &mut payload);
        let frame = [&header.encode()[..], &payload].concat();
        Self { frame, echo }
    }

    pub(super) fn is_short(&self) -> bool {
        self.frame.len() <= SHORT
    }
}
