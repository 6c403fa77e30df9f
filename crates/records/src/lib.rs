//! TLS records after the handshake, by keys alone: RFC 8446 §5 and RFC 5246 §6.
//!
//! Who has shaken hands hands over [`TlsKeys`]; from there on [`Records`] open and seal, follow updates
//! of keys ([`schedule`]), and judge what may still come ([`post_handshake`]). Bytes in, bytes out: no
//! socket, no clock, no TLS library but for the cryptography.

mod cipher;
mod keys;
mod post_handshake;
mod records;
mod schedule;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use keys::{Aead, DirectionKeys, Role, TlsKeys, TlsVersion};
pub use post_handshake::Started;
#[cfg(feature = "fuzz")]
pub use records::fuzz;
pub use records::{
    AES_GCM_RECORDS, MAX_CONTROL, MAX_RECORD, Opened, Records, RecordsState, TlsFault, Unsound,
    kind, sealed_len,
};
