//! What one process says to the other of several tunnels together.

use std::num::NonZeroU32;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use wssgate_relay::moving;
use wssgate_sys::memory::Secret;

/// A note between batches. Numbers are never used again for something else; notes that are not known are passed over.
#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) enum Note<'n> {
    /// All workers were looked at; no announcement holds any more.
    #[n(0)]
    EndOfPass {
        /// When the first tunnel stood still, if one did, by the clock that all processes of a machine share
        /// (`CLOCK_MONOTONIC`), in microseconds.
        #[n(0)]
        since_us: Option<u64>,
    },
    /// These tunnels come soon.
    #[n(1)]
    Announced(#[b(0)] Vec<Announced<'n>>),
}

/// A tunnel that comes soon.
#[derive(Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Announced<'n> {
    /// The number by which a record says that the tunnel is as it says here.
    #[n(0)]
    pub(super) number: NonZeroU32,
    /// As when it comes: secrets.
    #[b(1)]
    pub(super) record: &'n ByteSlice,
}

impl<'n> Note<'n> {
    /// As bytes.
    pub(super) fn encode(&self) -> Secret {
        let mut bytes = Secret::default();
        moving::write(self, &mut bytes);
        bytes
    }

    /// From bytes; `None` for a note that is not known.
    pub(super) fn decode(bytes: &'n [u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_an_unknown_one_is_none() {
        let announced = |number, record: &'static [u8]| Announced { number, record: record.into() };
        let [first, last] = [NonZeroU32::MIN, NonZeroU32::MAX];
        for note in [
            Note::EndOfPass { since_us: None },
            Note::EndOfPass { since_us: Some(7) },
            Note::Announced(vec![]),
            Note::Announced(vec![announced(first, b"one"), announced(last, b"")]),
        ] {
            assert_eq!(Note::decode(&note.encode()), Some(note));
        }
        for unknown in [&b""[..], b"pass", b"\x82\x18\x20\x80"] {
            assert_eq!(Note::decode(unknown), None);
        }
    }
}
