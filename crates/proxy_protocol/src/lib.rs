//! Headers of the PROXY protocol as bytes, in both directions.
//!
//! A balancer that passes connections on says in a few bytes before all others where they come
//! from: version 1 in a line of text, version 2 in binary, with further facts (TLVs) about the
//! connection. Sections are those of HAProxy's `proxy-protocol.txt`.
//!
//! - [`Header::decode`] reads a header from the front of what has arrived.
//! - [`encode_v1`] and [`encode_v2`] write one.
//! - [`Tlvs`] finds facts by their type.
//!
//! Nothing owns a socket or reads a clock.

mod decode;
mod encode;
mod tlv;

use std::net::SocketAddr;

pub use decode::{HeaderError, MAX_LEN};
pub use encode::{Certificate, TlsFacts, encode_v1, encode_v2};
pub use tlv::{SslTlv, Tlvs, types};

/// The first bytes of version 2 (§2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// A complete header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it takes.
    pub len: usize,
    /// What it tells; `None` when it stands for its sender itself (`LOCAL`), or tells no addresses
    /// that we know (`UNKNOWN`, Unix sockets, datagrams).
    pub told: Option<Told>,
}

/// What a header tells of a connection that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where it comes from and where it went.
    pub ends: Ends,
    /// Further facts; none in version 1.
    pub tlvs: Tlvs,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub source: SocketAddr,
    /// The one that the client connected to.
    pub destination: SocketAddr,
}
