//! Hashes of passwords, as files of users have them.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use sha_crypt::{PasswordVerifier, ShaCrypt, password_hash};
use thiserror::Error;

/// The longest password that is hashed by a slow function, as of libxcrypt: the time that SHA-crypt
/// takes grows with the length.
const MAX_LEN: usize = 511;

/// Padding may be missing, as for nginx.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A password as a file has it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stored(Box<[u8]>);

impl fmt::Debug for Stored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Stored")
    }
}

/// Why nobody can log in with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HashError {
    /// Of a known kind, but not well-formed.
    #[error("the password hash is malformed")]
    Broken,
    /// Of a kind that is not known here.
    #[error("password hashes of this kind ({0}) are not supported")]
    Unsupported(&'static str),
}

/// The kinds of hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Sha1,
    SaltedSha1,
    Bcrypt,
    ShaCrypt,
    /// `$1$`, `$apr1$` and DES.
    OldCrypt,
    Unknown(&'static str),
}

/// The kinds that begin with a mark.
const MARKS: [(&[u8], Kind); 13] = [
    (b"{PLAIN}", Kind::Plain),
    (b"{SSHA}", Kind::SaltedSha1),
    (b"{SHA}", Kind::Sha1),
    (b"$2a$", Kind::Bcrypt),
    (b"$2b$", Kind::Bcrypt),
    (b"$2y$", Kind::Bcrypt),
    (b"$5$", Kind::ShaCrypt),
    (b"$6$", Kind::ShaCrypt),
    (b"$apr1$", Kind::OldCrypt),
    (b"$1$", Kind::OldCrypt),
    (b"$y$", Kind::Unknown("yescrypt")),
    (b"$7$", Kind::Unknown("scrypt")),
    (b"$", Kind::Unknown("unknown")),
];

impl Stored {
    /// What stands behind the name of a user.
    pub(crate) fn new(text: &[u8]) -> Self {
        Self(text.into())
    }

    /// The text in the file.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    /// The kind, and what stands behind its mark.
    fn kind(&self) -> (Kind, &[u8]) {
        let marked =
            MARKS.iter().find_map(|(mark, kind)| Some((*kind, self.0.strip_prefix(*mark)?)));
        marked.unwrap_or((Kind::OldCrypt, &self.0))
    }

    /// Whether it takes long to check a password.
    pub(crate) fn is_slow(&self) -> bool {
        !matches!(self.kind().0, Kind::Plain | Kind::Sha1 | Kind::SaltedSha1)
    }

    /// Whether `password` is the one.
    ///
    /// # Errors
    /// When the hash is broken or of an unknown kind.
    pub(super) fn is(&self, password: &[u8]) -> Result<bool, HashError> {
        let (kind, rest) = self.kind();
        if self.is_slow() && password.len() > MAX_LEN {
            return Ok(false);
        }
        let text = || std::str::from_utf8(&self.0).map_err(|_| HashError::Broken);
        match kind {
            Kind::Plain => Ok(same(password, rest)),
            Kind::Sha1 => {
                let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
                Ok(same(general_purpose::STANDARD.encode(hash).as_bytes(), rest))
            }
            Kind::SaltedSha1 => salted_sha1(password, rest),
            Kind::Bcrypt => bcrypt::verify(password, text()?).map_err(|_| HashError::Broken),
            Kind::ShaCrypt => match ShaCrypt::default().verify_password(password, text()?) {
                Ok(()) => Ok(true),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(_) => Err(HashError::Broken),
            },
            Kind::OldCrypt => old_crypt(password, text()?),
            Kind::Unknown(name) => Err(HashError::Unsupported(name)),
        }
    }
}

/// `{SSHA}`: base64 of the hash of password and salt, and of the salt.
fn salted_sha1(password: &[u8], encoded: &[u8]) -> Result<bool, HashError> {
    let decoded = LENIENT.decode(encoded).map_err(|_| HashError::Broken)?;
    let (expected, salt) = decoded.split_at_checked(20).ok_or(HashError::Broken)?;
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(password);
    hash.update(salt);
    Ok(same(hash.finish().as_ref(), expected))
}

/// What C libraries have known for long. The salt of DES is two characters that begin the hash.
fn old_crypt(password: &[u8], stored: &str) -> Result<bool, HashError> {
    let hash = crypt3_rs::unix::crypt(password, stored).map_err(|_| HashError::Broken)?;
    Ok(same(hash.as_str().as_bytes(), stored.as_bytes()))
}

/// Compares in a time that does not depend on the texts or their lengths.
fn same(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (digest(&SHA256, one), digest(&SHA256, other));
    verify_slices_are_equal(one.as_ref(), other.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with the C library's crypt; the first four are nginx's own. All of "password".
    const HASHES: [&str; 13] = [
        "{PLAIN}password",
        "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0",
        "$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.",
        "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
        "sa3tHJ3/KuYvI",
        "$5$salt$Gcm6FsVtF/Qa77ZKD.iwsJlCVPY0XSMgLJL0Hnww/c1",
        "$5$rounds=1000$salt$p.wiWs2zrZ7irikO2AL64QDIJo00A3KDq2xWHpLJGgB",
        "$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6WouIL9AjRbLCelDCy.g.",
        "$6$rounds=1000$salt$O0nhCLTaysO7YRx7RhswA9LUudDbe8n/29Fg0mCv48MlTSygeX82/gn5a5m7.zIERei.MTm0LX6AbQbQLYGS5.",
        "$2a$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
        "$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
        "$2y$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
    ];

    #[test]
    fn every_kind_knows_its_password_and_no_other() {
        for hash in HASHES {
            let stored = Stored::new(hash.as_bytes());
            assert_eq!(stored.is(b"password"), Ok(true), "{hash}");
            for wrong in ["", "passwor", "passwore", "Password", "x"] {
                assert_eq!(stored.is(wrong.as_bytes()), Ok(false), "{hash} {wrong}");
            }
        }
    }

    #[test]
    fn broken_hashes_let_nobody_in() {
        let long = [b'$'; 300];
        let mut texts: Vec<&[u8]> =
            vec![b"", b"x", b"$", b"{SHA}", b"{SSHA}", b"$2y$", b"\xff\xff$1$"];
        texts.extend([&b"$1$"[..], b"$apr1$", b"$6$", b"$5$rounds=x$s$h", b"$2y$99$x", &long]);
        texts.extend([
            &b"{SSHA}_____wQadOA1e+/f+T+H3eCQQhRzYWx0"[..],
            b"{SSHA}Zm9vCg==",
            b"*0",
            b"!",
        ]);
        for text in texts {
            for password in [&b""[..], b"password", b"\0", &long] {
                let found = Stored::new(text).is(password);
                assert!(!matches!(found, Ok(true)), "{} {password:?}", text.escape_ascii());
            }
        }
        for hash in HASHES.map(str::as_bytes) {
            for cut in [&hash[..hash.len() / 2], &hash[..hash.len() - 1]] {
                let found = Stored::new(cut).is(b"password");
                assert!(!matches!(found, Ok(true)), "{}", cut.escape_ascii());
            }
        }
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let of = |text: &[u8]| Stored::new(text).is(b"password");
        assert_eq!(of(b"$y$j9T$abc$def"), Err(HashError::Unsupported("yescrypt")));
        assert_eq!(of(b"$2x$05$abc"), Err(HashError::Unsupported("unknown")));
    }

    #[test]
    fn a_long_password_costs_nothing() {
        let long = vec![b'a'; 1 << 20];
        for hash in HASHES {
            assert_eq!(Stored::new(hash.as_bytes()).is(&long), Ok(false), "{hash}");
        }
    }
}
