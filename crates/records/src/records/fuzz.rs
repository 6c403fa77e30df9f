//! The record layer alone, for fuzz targets: who opens, and a forger who has the right keys.

use super::{AES_GCM_RECORDS, MAX_OVERHEAD, Records, TlsFault, kind};
use crate::{Role, Started, TlsKeys, TlsVersion, post_handshake};

/// Opens the records of a peer.
pub struct Opener(Records);

/// What [`Opener::open`] says.
#[derive(Debug)]
pub struct Opening {
    /// How many bytes of the wire are done with.
    pub consumed: usize,
    /// The bytes inside.
    pub plain: Vec<u8>,
    /// Whether the peer's direction ends behind them: with close_notify, or badly.
    pub end: Option<Result<(), TlsFault>>,
}

impl Opener {
    /// Opens what is sealed under the `rx` of these keys by `peer`.
    pub fn new(keys: &TlsKeys, peer: Role) -> Self {
        Self(Records::new(keys, peer, AES_GCM_RECORDS))
    }

    /// Opens the whole records at the front of `wire`.
    pub fn open(&mut self, wire: &[u8]) -> Opening {
        let mut plain = vec![0; wire.len()];
        let opened = self.0.open(wire, &mut plain, 0);
        plain.truncate(opened.plain);
        Opening { consumed: opened.consumed, plain, end: opened.end }
    }

    /// Drops the expanded keys.
    pub fn compact(&mut self) {
        self.0.compact();
    }
}

/// Seals whatever it likes as that peer.
pub struct Forger(Records);

impl Forger {
    /// The peer of who has these keys.
    pub fn new(keys: &TlsKeys) -> Self {
        let TlsKeys { version, aead, ref tx, ref rx, .. } = *keys;
        let started = Started::default();
        let mirrored = TlsKeys { version, aead, tx: rx.clone(), rx: tx.clone(), started };
        Self(Records::new(&mirrored, Role::Client, AES_GCM_RECORDS))
    }

    /// A record of this type.
    pub fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![0; content.len() + MAX_OVERHEAD];
        let used = self.0.seal_record(kind, content, &mut out);
        out.truncate(used);
        out
    }

    /// A KeyUpdate (RFC 8446 §4.6.3), and from here on the next keys; nothing in TLS 1.2.
    pub fn key_update(&mut self, requested: bool) -> Option<Vec<u8>> {
        if self.0.version == TlsVersion::Tls12 {
            return None;
        }
        let record = self.record(kind::HANDSHAKE, &post_handshake::key_update(requested));
        self.0.tx.update(self.0.aead);
        Some(record)
    }
}
