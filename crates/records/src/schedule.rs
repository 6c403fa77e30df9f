//! The part of the TLS 1.3 key schedule that outlives the handshake (RFC 8446 §7.2, §7.3).

use aws_lc_rs::hkdf::{self, KeyType, Prk};

use crate::{Aead, DirectionKeys};

/// How many updates may have been made before the keys were taken out. Nobody tells their number, so all
/// are made again, which takes about as long as they have taken: 10 ms for this many.
const UPDATES_BEFORE: usize = 4096;

impl Aead {
    /// The length of its key.
    pub(crate) fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// The hash of the only TLS 1.3 suite that has it (RFC 8446 §B.4), and its length.
    fn hash(self) -> (hkdf::Algorithm, usize) {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => (hkdf::HKDF_SHA256, 32),
            Self::Aes256Gcm => (hkdf::HKDF_SHA384, 48),
        }
    }
}

impl DirectionKeys {
    /// Goes on to the next traffic secret and its keys; records are counted anew (RFC 8446 §7.2).
    pub(crate) fn update(&mut self, aead: Aead) {
        self.secret = next_secret(aead, &self.secret);
        self.derive(aead);
        self.sequence = 0;
    }

    /// The key and nonce that follow from the secret (RFC 8446 §7.3).
    fn derive(&mut self, aead: Aead) {
        self.key = expand(aead, &self.secret, b"key", aead.key_len());
        self.iv = expand(aead, &self.secret, b"iv", self.iv.len());
    }

    /// Finds the secret that these keys follow from: `first`, or one that came by updates after it;
    /// says whether there is one. The key alone, of at least 128 bits, tells it from all others.
    pub fn find_secret(&mut self, aead: Aead, first: &[u8; 48]) -> bool {
        let mut candidate = self.clone();
        candidate.secret = *first;
        for _ in 0..UPDATES_BEFORE {
            candidate.key = expand(aead, &candidate.secret, b"key", aead.key_len());
            if candidate.key == self.key {
                self.secret = candidate.secret;
                return true;
            }
            candidate.secret = next_secret(aead, &candidate.secret);
        }
        false
    }
}

/// The secret that an update leads to (RFC 8446 §7.2).
fn next_secret(aead: Aead, secret: &[u8; 48]) -> [u8; 48] {
    expand(aead, secret, b"traffic upd", aead.hash().1)
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1); `len` bytes stand at the front.
fn expand<const N: usize>(aead: Aead, secret: &[u8; 48], label: &[u8], len: usize) -> [u8; N] {
    let (hash, hash_len) = aead.hash();
    let prefix = b"tls13 ";
    let label_len = [(prefix.len() + label.len()) as u8];
    let info = [&(len as u16).to_be_bytes()[..], &label_len, prefix, label, &[0]];
    let mut out = [0; N];
    Prk::new_less_safe(hash, &secret[..hash_len])
        .expand(&info, Length(len))
        .and_then(|okm| okm.fill(&mut out[..len]))
        .expect("key lengths are below 255 hashes and fit their arrays");
    out
}

/// The length of the output, as the library wants it.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .filter_map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok())
            .collect()
    }

    /// The server's application traffic secret, key and IV of RFC 8448 §3.
    #[test]
    fn keys_follow_from_the_secret_as_in_rfc_8448() {
        let secret = bytes("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
        let mut keys = DirectionKeys { key: [0; 32], iv: [0; 12], secret: [0; 48], sequence: 0 };
        keys.secret[..32].copy_from_slice(&secret);
        keys.derive(Aead::Aes128Gcm);
        assert_eq!(keys.key[..16], bytes("9f02283b6c9c07efc26bb9f2ac92e356"));
        assert_eq!(keys.iv[..], bytes("cf782b88dd83549aadf1e984"));
    }
}
