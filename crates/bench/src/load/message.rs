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
        let payload: Vec<u8> = (0..payload_len).map(|i| (i % 251) as u8).collect();
        let header = FrameHeader::whole(Opcode::Binary, payload_len as u64);
        let echo = [&header.encode()[..], &payload].concat();
        Self { frame: masked(Opcode::Binary, &payload), echo }
    }

    pub(super) fn is_short(&self) -> bool {
        self.frame.len() <= SHORT
    }
}

/// A whole frame of a client.
pub(super) fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::whole(opcode, payload.len() as u64);
    let mut frame = FrameHeader { mask: Some(MASK), ..header }.encode().to_vec();
    let header_len = frame.len();
    frame.extend_from_slice(payload);
    mask::apply(MASK, 0, &mut frame[header_len..]);
    frame
}
