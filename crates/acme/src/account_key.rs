//! Keys of accounts: on P-256, which is what our library signs with.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as P256, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use instant_acme::Key;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

/// The key of an account: on P-256, in PKCS#8.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountKey(Zeroizing<Vec<u8>>);

/// Why something is no key of an account.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadAccountKey {
    /// There is none.
    #[error("no private key in PEM in the file")]
    Missing,
    /// It cannot be read.
    #[error("the private key cannot be read")]
    Damaged,
    /// It is of another kind.
    #[error("only ECDSA keys on P-256 are supported")]
    Unsupported,
}

impl AccountKey {
    /// Reads the first key of a file: PKCS#8 (`PRIVATE KEY`), or what `openssl ecparam -genkey` writes
    /// (`EC PRIVATE KEY`, RFC 5915).
    ///
    /// # Errors
    /// When there is none, or it is of another kind.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadAccountKey> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| BadAccountKey::Missing)?;
        match &key {
            PrivateKeyDer::Pkcs8(key) => {
                let key = Self::from_pkcs8(key.secret_pkcs8_der());
                key.pair().map(|_| key).ok_or(BadAccountKey::Unsupported)
            }
            PrivateKeyDer::Sec1(key) => {
                let pair = EcdsaKeyPair::from_private_key_der(&P256, key.secret_sec1_der());
                Self::from_pair(&pair.map_err(|_| BadAccountKey::Unsupported)?)
            }
            _ => Err(BadAccountKey::Unsupported),
        }
    }

    /// Reads a JSON Web Key (RFC 7518 §6.2), as certbot keeps it.
    ///
    /// # Errors
    /// When it is none, or of another kind.
    pub fn from_jwk(text: &str) -> Result<Self, BadAccountKey> {
        #[derive(Deserialize)]
        struct Kind {
            kty: String,
            crv: Option<String>,
        }
        #[derive(Deserialize)]
        struct Numbers {
            d: String,
            x: String,
            y: String,
        }
        let damaged = |_| BadAccountKey::Damaged;
        let kind: Kind = serde_json::from_str(text).map_err(damaged)?;
        if (&*kind.kty, kind.crv.as_deref()) != ("EC", Some("P-256")) {
            return Err(BadAccountKey::Unsupported);
        }
        let Numbers { d, x, y } = serde_json::from_str(text).map_err(damaged)?;
        let decoded = |text: &str| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
            bytes.map_err(|_| BadAccountKey::Damaged)
        };
        let d = Zeroizing::new(d);
        let secret = Zeroizing::new(decoded(&d)?);
        // An uncompressed point (SEC 1 §2.3.3).
        let public = [&[4], &*decoded(&x)?, &*decoded(&y)?].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&P256, &secret, &public);
        Self::from_pair(&pair.map_err(|_| BadAccountKey::Damaged)?)
    }

    /// One that is known to be on P-256.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Self {
        Self(Zeroizing::new(der.to_vec()))
    }

    fn from_pair(pair: &EcdsaKeyPair) -> Result<Self, BadAccountKey> {
        let der = pair.to_pkcs8v1().map_err(|_| BadAccountKey::Damaged)?;
        Ok(Self::from_pkcs8(der.as_ref()))
    }

    /// The key as the library takes it.
    pub(crate) fn pair(&self) -> Option<(Key, PrivateKeyDer<'static>)> {
        let der = PrivatePkcs8KeyDer::from(self.0.to_vec());
        let key = Key::from_pkcs8_der(der.clone_key()).ok()?;
        Some((key, PrivateKeyDer::Pkcs8(der)))
    }

    /// The key in PEM (PKCS#8).
    pub fn pem(&self) -> Zeroizing<String> {
        let text = Zeroizing::new(BASE64_STANDARD.encode(&*self.0));
        let mut pem = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
        for line in text.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|&byte| char::from(byte)));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }
}

/// The key of RFC 7517 appendix A.2.
#[cfg(test)]
pub(crate) const JWK: &str = r#"{"kty": "EC", "crv": "P-256", "d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The same as OpenSSL writes it.
    const SEC1: &str = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n\
        -----BEGIN EC PRIVATE KEY-----\n\
        MHcCAQEEIPO9DAeoH7kyeB7VJ1L2DMiaa+XlGTT+AZON21XY93gBoAoGCCqGSM49\n\
        AwEHoUQDQgAEMKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D7gS2XpJFbZ\n\
        iItSs3m9+9Ue6GnvHw/GW2ZZaVtszggXIw==\n\
        -----END EC PRIVATE KEY-----\n";

    #[test]
    fn a_key_is_the_same_in_all_its_forms() {
        let key = AccountKey::from_jwk(JWK).unwrap();
        assert!(AccountKey::from_pem(SEC1.as_bytes()).unwrap() == key);
        assert!(AccountKey::from_pem(key.pem().as_bytes()).unwrap() == key);
        assert!(key.pair().is_some());
    }

    #[test]
    fn what_is_no_key_on_p256_is_told_apart() {
        let other = |kind: crate::KeyKind| kind.generate().unwrap().serialize_pem();
        let p384 = other(crate::KeyKind::Ecdsa(384));
        let body = SEC1.lines().nth(5).unwrap();
        for (pem, expected) in [
            ("", BadAccountKey::Missing),
            (&p384, BadAccountKey::Unsupported),
            (&SEC1.replace("EC PRIVATE KEY", "RSA PRIVATE KEY"), BadAccountKey::Unsupported),
            (&SEC1.replace(body, ""), BadAccountKey::Unsupported),
        ] {
            assert_eq!(AccountKey::from_pem(pem.as_bytes()).err(), Some(expected), "{pem}");
        }
        for (jwk, expected) in [
            (JWK.replace("P-256", "P-384"), BadAccountKey::Unsupported),
            (r#"{"kty": "RSA", "n": "AQAB"}"#.to_owned(), BadAccountKey::Unsupported),
            (JWK.replace("4Etl", "5Etl"), BadAccountKey::Damaged),
            (JWK.replace("\"d\"", "\"e\""), BadAccountKey::Damaged),
            (JWK.replace("870M", "?"), BadAccountKey::Damaged),
            (String::new(), BadAccountKey::Damaged),
        ] {
            assert_eq!(AccountKey::from_jwk(&jwk).err(), Some(expected), "{jwk}");
        }
    }
}
