//! Kinds of keys and signatures, by the names that people know.

use std::fmt;

use x509_parser::oid_registry as oids;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// The kind of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// RSA with a modulus of so many bits.
    Rsa(usize),
    /// A curve of NIST, by its name.
    Ec(&'static str),
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// Anything else, by its OID.
    Other(String),
}

impl Key {
    pub(crate) fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        let other = || Self::Other(key.algorithm.algorithm.to_id_string());
        if key.algorithm.algorithm == oids::OID_SIG_ED25519 {
            return Self::Ed25519;
        }
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => Self::Rsa(rsa.key_size()),
            Ok(PublicKey::EC(_)) => {
                let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
                match curve {
                    Some(curve) if curve == oids::OID_EC_P256 => Self::Ec("P-256"),
                    Some(curve) if curve == oids::OID_NIST_EC_P384 => Self::Ec("P-384"),
                    Some(curve) if curve == oids::OID_NIST_EC_P521 => Self::Ec("P-521"),
                    Some(curve) => Self::Other(curve.to_id_string()),
                    None => other(),
                }
            }
            _ => other(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::Ec(curve) => write!(f, "ECDSA {curve}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(oid) => write!(f, "key of kind {oid}"),
        }
    }
}

/// The name of a kind of signature, such as `ECDSA with SHA-256`; its OID if it is not known here.
pub fn signature_name(algorithm: &AlgorithmIdentifier<'_>) -> String {
    let oid = &algorithm.algorithm;
    let names = [
        (oids::OID_PKCS1_MD5WITHRSAENC, "RSA with MD5"),
        (oids::OID_PKCS1_SHA1WITHRSA, "RSA with SHA-1"),
        (oids::OID_PKCS1_SHA256WITHRSA, "RSA with SHA-256"),
        (oids::OID_PKCS1_SHA384WITHRSA, "RSA with SHA-384"),
        (oids::OID_PKCS1_SHA512WITHRSA, "RSA with SHA-512"),
        (oids::OID_PKCS1_RSASSAPSS, "RSA-PSS"),
        (oids::OID_SIG_ECDSA_WITH_SHA256, "ECDSA with SHA-256"),
        (oids::OID_SIG_ECDSA_WITH_SHA384, "ECDSA with SHA-384"),
        (oids::OID_SIG_ECDSA_WITH_SHA512, "ECDSA with SHA-512"),
        (oids::OID_SIG_ED25519, "Ed25519"),
    ];
    let known = names.iter().find(|(known, _)| known == oid);
    known.map_or_else(|| oid.to_id_string(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::Chain;

    #[test]
    fn keys_and_signatures_have_the_names_that_people_know() {
        for (algorithm, key, signature) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Key::Ec("P-256"), "ECDSA with SHA-256"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Key::Ec("P-384"), "ECDSA with SHA-384"),
            (&rcgen::PKCS_RSA_SHA256, Key::Rsa(2048), "RSA with SHA-256"),
            (&rcgen::PKCS_ED25519, Key::Ed25519, "Ed25519"),
        ] {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
            let certificate = params.self_signed(&pair).unwrap();
            let facts = Chain::parse([&certificate.der()[..]]).unwrap().facts().remove(0);
            assert_eq!((facts.key, facts.signature.as_str()), (key, signature));
            assert!(facts.is_self_issued);
        }
    }
}
