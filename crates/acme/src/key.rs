//! The kinds of private keys.

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
    PKCS_RSA_SHA256, RsaKeySize,
};

/// What kind of key a certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// On a curve of so many bits: 256, 384 or 521.
    Ecdsa(u32),
    /// Of so many bits: 2048, 3072 or 4096.
    Rsa(u32),
}

impl Default for KeyKind {
    fn default() -> Self {
        Self::Ecdsa(256)
    }
}

impl KeyKind {
    /// Makes a key. One of RSA takes seconds.
    pub(crate) fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Ecdsa(384) => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Self::Ecdsa(521) => KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512),
            Self::Ecdsa(_) => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Rsa(bits) => {
                let size = match bits {
                    4096 => RsaKeySize::_4096,
                    3072 => RsaKeySize::_3072,
                    _ => RsaKeySize::_2048,
                };
                KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size)
            }
        }
    }
}
