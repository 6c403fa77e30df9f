//! Private keys under a passphrase: PKCS#8 with PBES2 (RFC 5958 §3, RFC 8018 §6.2), which is what
//! OpenSSL writes today.

use std::num::NonZeroU32;
use std::path::Path;

use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::{iv::FixedLength, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use thiserror::Error;
use wssgate_x509::der::{self, INTEGER, OCTETS, OID, SEQUENCE};
use zeroize::Zeroizing;

const BEGIN: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &[u8] = b"-----END ENCRYPTED PRIVATE KEY-----";

/// OpenSSL's own form before PKCS#8.
const TRADITIONAL: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// More rounds would hold up the start; OpenSSL makes 2048, careful people a million.
const MAX_ROUNDS: u32 = 20_000_000;

/// 1.2.840.113549.1.5.13 and .12 (RFC 8018 §A).
const PBES2: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";
const PBKDF2: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c";

/// 1.2.840.113549.2.x; SHA-1 when nothing is said.
const HMACS: [(&[u8], pbkdf2::Algorithm); 4] = [
    (b"\x2a\x86\x48\x86\xf7\x0d\x02\x07", pbkdf2::PBKDF2_HMAC_SHA1),
    (b"\x2a\x86\x48\x86\xf7\x0d\x02\x09", pbkdf2::PBKDF2_HMAC_SHA256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x02\x0a", pbkdf2::PBKDF2_HMAC_SHA384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x02\x0b", pbkdf2::PBKDF2_HMAC_SHA512),
];

/// AES in CBC mode: 2.16.840.1.101.3.4.1.x, with the length of the key.
const CIPHERS: [(&[u8], &cipher::Algorithm, usize); 3] = [
    (b"\x60\x86\x48\x01\x65\x03\x04\x01\x02", &cipher::AES_128, 16),
    (b"\x60\x86\x48\x01\x65\x03\x04\x01\x16", &cipher::AES_192, 24),
    (b"\x60\x86\x48\x01\x65\x03\x04\x01\x2a", &cipher::AES_256, 32),
];

/// Why a key stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Closed {
    #[error("the key is encrypted with a passphrase")]
    NoPassphrase,
    #[error("no passphrase decrypts the key")]
    WrongPassphrase,
    #[error("the encryption of the key is not supported")]
    Unsupported,
    #[error("the encrypted key is malformed")]
    Malformed,
}

impl Closed {
    /// What to do about it.
    pub(super) fn help(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::NoPassphrase => format!(
                "set \"ssl_password_file\" (\"proxy_ssl_password_file\" for upstream servers) to a file with the \
                 passphrase, or decrypt the key: openssl pkey -in {path} -out new.pem"
            ),
            Self::WrongPassphrase => "every line of the password file was tried".to_owned(),
            Self::Unsupported | Self::Malformed => format!(
                "PKCS#8 with AES is supported: openssl pkcs8 -topk8 -v2 aes256 -in {path} -out new.pem"
            ),
        }
    }
}

/// Whether a PEM file holds such a key.
pub(super) fn is_encrypted(text: &[u8]) -> bool {
    [BEGIN, TRADITIONAL].iter().any(|words| memchr::memmem::find(text, words).is_some())
}

/// Opens the key in a PEM file with the first passphrase that does.
pub(super) fn open(
    text: &[u8],
    passphrases: &[Zeroizing<Vec<u8>>],
) -> Result<PrivateKeyDer<'static>, Closed> {
    if passphrases.is_empty() {
        return Err(Closed::NoPassphrase);
    }
    let der = pem(text)?;
    let key = EncryptedKey::read(&der)?;
    let opened = passphrases.iter().find_map(|passphrase| key.open(passphrase));
    opened.map(|der| PrivateKeyDer::Pkcs8(der.into())).ok_or(Closed::WrongPassphrase)
}

/// The passphrases of a `ssl_password_file`: its lines that are not empty; the empty one if there
/// are none, as in nginx.
pub(super) fn passphrases(text: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut found: Vec<_> =
        lines.filter(|line| !line.is_empty()).map(|line| line.to_vec().into()).collect();
    if found.is_empty() {
        found.push(Vec::new().into());
    }
    found
}

fn pem(text: &[u8]) -> Result<Vec<u8>, Closed> {
    let begin = memchr::memmem::find(text, BEGIN).ok_or(Closed::Unsupported)? + BEGIN.len();
    let len = memchr::memmem::find(&text[begin..], END).ok_or(Closed::Malformed)?;
    let mut base64 = text[begin..begin + len].to_vec();
    base64.retain(|byte| !byte.is_ascii_whitespace());
    STANDARD.decode(base64).map_err(|_| Closed::Malformed)
}

/// An EncryptedPrivateKeyInfo taken apart.
struct EncryptedKey<'a> {
    hmac: pbkdf2::Algorithm,
    salt: &'a [u8],
    rounds: NonZeroU32,
    cipher: &'static cipher::Algorithm,
    key_len: usize,
    iv: [u8; 16],
    sealed: &'a [u8],
}

impl<'a> EncryptedKey<'a> {
    fn read(der: &'a [u8]) -> Result<Self, Closed> {
        let mut whole = Der(der).take(SEQUENCE)?;
        let mut scheme = whole.take(SEQUENCE)?;
        let sealed = whole.take(OCTETS)?.0;
        if scheme.take(OID)?.0 != PBES2 {
            return Err(Closed::Unsupported);
        }
        let mut parameters = scheme.take(SEQUENCE)?;
        let mut derivation = parameters.take(SEQUENCE)?;
        if derivation.take(OID)?.0 != PBKDF2 {
            return Err(Closed::Unsupported);
        }
        let mut derivation = derivation.take(SEQUENCE)?;
        let salt = derivation.take(OCTETS)?.0;
        let rounds = derivation.take(INTEGER)?.number()?;
        // The length of the key follows from the cipher.
        let _ = derivation.take(INTEGER);
        let hmac = match derivation.take(SEQUENCE) {
            Ok(mut hmac) => hmac.take(OID)?.0,
            // The default of RFC 8018 §A.2, which DER leaves out.
            Err(_) => HMACS[0].0,
        };
        let (_, hmac) =
            HMACS.into_iter().find(|(oid, _)| *oid == hmac).ok_or(Closed::Unsupported)?;
        let mut encryption = parameters.take(SEQUENCE)?;
        let oid = encryption.take(OID)?.0;
        let (_, cipher, key_len) =
            CIPHERS.into_iter().find(|(known, ..)| *known == oid).ok_or(Closed::Unsupported)?;
        let iv = encryption.take(OCTETS)?.0.try_into().map_err(|_| Closed::Malformed)?;
        Ok(Self { hmac, salt, rounds, cipher, key_len, iv, sealed })
    }

    fn open(&self, passphrase: &[u8]) -> Option<Vec<u8>> {
        let mut key = Zeroizing::new([0; 32]);
        let key = &mut key[..self.key_len];
        pbkdf2::derive(self.hmac, self.rounds, self.salt, passphrase, key);
        let key = UnboundCipherKey::new(self.cipher, key).ok()?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
        let mut text = Zeroizing::new(self.sealed.to_vec());
        let context = DecryptionContext::Iv128(FixedLength::from(self.iv));
        let opened = key.decrypt(&mut text, context).ok()?;
        // The padding of a wrong passphrase is right once in 256 times.
        let mut rest = Der(opened);
        rest.take(SEQUENCE).ok().filter(|_| rest.0.is_empty())?;
        Some(opened.to_vec())
    }
}

/// The front of DER, as far as these structures need it (X.690 §8.1).
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// Takes the content of the next value if it has this tag.
    pub(super) fn take(&mut self, tag: u8) -> Result<Self, Closed> {
        der::take(&mut self.0, tag).map(Self).ok_or(Closed::Malformed)
    }

    fn number(self) -> Result<NonZeroU32, Closed> {
        // Longer ones are more rounds than anybody waits for.
        let number = match self.0 {
            bytes if bytes.len() <= 4 => {
                bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
            }
            _ => u32::MAX,
        };
        let number = NonZeroU32::new(number).ok_or(Closed::Malformed)?;
        if number.get() <= MAX_ROUNDS { Ok(number) } else { Err(Closed::Unsupported) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The key below, by `openssl pkcs8 -topk8 -passout pass:secret -v2 …`.
    const KEY: &str = "\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQglke4rYrMeHLxkgjW3Hz6LQJifa0yplh0gcbkB3PkwvihRANCAARH\
afQo/6AC+1xqWPA1wq7aUniLUBIiz3SlQiY6r+kTH5aj23uPQM5LD9dx3VLVrXVQjqfpr8xdIXZGo7NR2AtV";

    const AES_256_SHA_256: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgVLeEz6N14DQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEO1tH6QO0stU6DhhV+VJcD0EgZCM
ZuH4mLOkg6fl9mRYT6Ef1UoOHRg6cUURE8ow1nu/q4K7meSbiWWPn2rTawcpOuiU
Jzsrx2CrIVDG0kQmQWneVNEFGdPnjhtHO9382X/cR8ln/PhZlhDCBujxhtT055HU
9ZI0QX9uUTWLEjhOhENw66bH7ktDtCQra8+NOyFGhzb/iZOG0elq4FK/iUwQ1Tc=
-----END ENCRYPTED PRIVATE KEY-----
";

    const AES_128_SHA_1: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHeMEkGCSqGSIb3DQEFDTA8MBsGCSqGSIb3DQEFDDAOBAiFlKwUtIMF3gICCAAw
HQYJYIZIAWUDBAECBBAQ7f+IyKN/NY4ubXJdRgtnBIGQvLNmA+uDO78Il99JZtLA
dYvFk7DYThn3vc6dtI6fqLUrELIgjPiKxBqAjmwABmdOM8g7wenpFD/URP3kRP36
n9LtEVGrWgxviDNQCbabmSiVMZQy4+9XgqVDkQNvKrqdL+sxSNzfCcddY+4pa2YC
R/V/H+KLOfIkLlyZIZPIfsOnurZx1g6ovtnLjtWk33cB
-----END ENCRYPTED PRIVATE KEY-----
";

    const AES_192_SHA_512: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAi/uzRH9hJcEAICCAAw
DAYIKoZIhvcNAgsFADAdBglghkgBZQMEARYEEIKJgJ8hVBQ2fPFbXPixZfQEgZAy
NR1PDvQqGcaMnaQXHz36oRu3XXqT8OjRhOldnBbcNHMJLtkwNCYVkE+dYLjBX04J
uzUR1eCv90ewfDnTCKmFXbueO/xeMEu69Lx6LEfEdy4fLn4pwrW3QtcYGsvdUKyn
lgtp/FKdb1Ka3ccqYFpUeLIUKGEyA6LijrMsxsqWs3rnU5UtEzvO3a8YY3VDkXU=
-----END ENCRYPTED PRIVATE KEY-----
";

    const DES: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHjME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAhPbF7bcsG6FAICCAAw
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQIF6rIDJVstAIEgZBrphuAS4S8Swss
dD3KOLrVF5CvWOfBk0uT7N33ehAoowUGVzCNXOpcxm2RPOYdadi5UdDX9odipGXt
Up4ktuZl+VveGGtepOMkX1Xhezomt2MN+mkUEVY5MOZnPxgZ2r0LUAYsemxGk574
P/TwXFs8cM11yZXCIvpopyLgcol5psn0lLoA4bfhnlCnDNwp9iE=
-----END ENCRYPTED PRIVATE KEY-----
";

    const SCRYPT: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHkME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAiU34FOBvNOAgICQAAC
AQgCAQEwHQYJYIZIAWUDBAEqBBBpzjw2AHZw8w3KnkrQ4ciDBIGQf8nx6TOhU3fe
M9yF/O6n6A8PQxII84cKcqpHfQMwEZZKGjD2S47m6sUd0V3gmXs4QFkJ0jhQbG/w
p/FGwYmSk4/vj5ipoOXHVGLFz83xdTti5i/2vpDN9VPz0/TgCca3FXic2omSPXLX
0Wd2YYybStdQd0kOvwNEzh/opplfICLFZrvK6QVw1Ku4m2cYkgcu
-----END ENCRYPTED PRIVATE KEY-----
";

    fn opened(text: &str, lines: &str) -> Result<Vec<u8>, Closed> {
        let key = open(text.as_bytes(), &passphrases(lines.as_bytes()))?;
        Ok(key.secret_der().to_vec())
    }

    #[test]
    fn keys_of_openssl_open_with_the_right_line_of_the_file() {
        let key = STANDARD.decode(KEY).unwrap();
        for text in [AES_256_SHA_256, AES_128_SHA_1, AES_192_SHA_512] {
            for lines in ["secret", "secret\n", "wrong\r\n\nsecret\r\n"] {
                assert_eq!(opened(text, lines), Ok(key.clone()), "{lines:?}");
            }
            for lines in ["", "\n", "Secret", "secret "] {
                assert_eq!(opened(text, lines), Err(Closed::WrongPassphrase), "{lines:?}");
            }
            assert_eq!(open(text.as_bytes(), &[]).unwrap_err(), Closed::NoPassphrase);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        for (text, expected) in [
            (DES, Closed::Unsupported),
            (SCRYPT, Closed::Unsupported),
            ("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", Closed::Unsupported),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n", Closed::Malformed),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\n!\n-----END ENCRYPTED PRIVATE KEY-----",
                Closed::Malformed,
            ),
        ] {
            assert!(is_encrypted(text.as_bytes()));
            assert_eq!(opened(text, "secret"), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_cut_anywhere_is_malformed_or_stays_closed() {
        let der = pem(AES_128_SHA_1.as_bytes()).unwrap();
        for len in 0..der.len() {
            let closed = EncryptedKey::read(&der[..len]).err();
            assert_eq!(closed, Some(Closed::Malformed), "{len}");
        }
    }
}
