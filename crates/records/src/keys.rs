//! What the record layer needs of a TLS connection whose handshake is over.

use std::fmt;

use minicbor::{Decode, Encode};
use zeroize::Zeroize;

use crate::post_handshake::Started;

/// Which TLS the records are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum TlsVersion {
    /// RFC 5246.
    #[n(0)]
    Tls12,
    /// RFC 8446.
    #[n(1)]
    Tls13,
}

/// The AEAD of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Aead {
    /// AES-128-GCM, in TLS 1.3 with SHA-256.
    #[n(0)]
    Aes128Gcm,
    /// AES-256-GCM, in TLS 1.3 with SHA-384.
    #[n(1)]
    Aes256Gcm,
    /// ChaCha20-Poly1305, in TLS 1.3 with SHA-256.
    #[n(2)]
    ChaCha20Poly1305,
}

/// Which end of a TLS connection somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// The end that began the handshake.
    #[n(0)]
    Client,
    /// The end that answered.
    #[n(1)]
    Server,
}

/// All that the record layer needs of a TLS connection whose handshake is over.
#[derive(Debug)]
pub struct TlsKeys {
    /// The version.
    pub version: TlsVersion,
    /// The AEAD.
    pub aead: Aead,
    /// For what we send.
    pub tx: DirectionKeys,
    /// For what we receive.
    pub rx: DirectionKeys,
    /// The handshake message of the peer whose first part was received before; see
    /// [`TlsKeys::find_started`].
    pub started: Started,
}

/// The keys of one direction. Wiped when dropped.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct DirectionKeys {
    /// The AEAD key; a shorter one stands at the front.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// The static part of the nonce.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub iv: [u8; 12],
    /// The TLS 1.3 application traffic secret that `key` and `iv` were derived from; a shorter one stands
    /// at the front. Unused in TLS 1.2.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub secret: [u8; 48],
    /// The number of the next record.
    #[n(3)]
    pub sequence: u64,
}

impl DirectionKeys {
    /// Keys without the secret that they follow from; none if they have not the lengths of this AEAD.
    pub fn new(aead: Aead, key: &[u8], iv: &[u8], sequence: u64) -> Option<Self> {
        let iv = iv.try_into().ok().filter(|_| key.len() == aead.key_len())?;
        let mut keys = Self { key: [0; 32], iv, secret: [0; 48], sequence };
        keys.key[..key.len()].copy_from_slice(key);
        Some(keys)
    }
}

impl Drop for DirectionKeys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
        self.secret.zeroize();
    }
}

impl fmt::Debug for DirectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectionKeys").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
