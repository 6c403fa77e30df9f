//! Signed messages (TSIG, RFC 8945): what shows a server that a change comes from somebody who has
//! its key, and us that the answer comes from the server.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::Name;
use crate::message::{HEADER, Reader};

/// The type of the record that holds a signature.
const TSIG: u16 = 250;

/// The class of records that are none (RFC 8945 §4.2).
const ANY: u16 = 255;

/// For how many seconds a signature counts, as RFC 8945 §10 recommends.
const FUDGE: u16 = 300;

/// How messages are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha1`, for old servers.
    Sha1,
    /// `hmac-sha224`
    Sha224,
    /// `hmac-sha256`
    Sha256,
    /// `hmac-sha384`
    Sha384,
    /// `hmac-sha512`
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Sha256, Self::Sha384, Self::Sha512, Self::Sha224, Self::Sha1];

    fn text(self) -> &'static str {
        match self {
            Self::Sha1 => "hmac-sha1",
            Self::Sha224 => "hmac-sha224",
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => hmac::HMAC_SHA224,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.text().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::text).join(", ");
            format!("unknown algorithm \"{text}\": it must be one of {known}")
        })
    }
}

/// A secret that we share with a server.
#[derive(Clone)]
pub struct Key {
    name: Name,
    algorithm: Algorithm,
    secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Key");
        shown.field("name", &self.name).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What is wrong with a file that is none.
const NEITHER: &str = "it has neither a `key` statement nor a secret in base64";

impl Key {
    /// A key under the name that the server has for it.
    ///
    /// # Errors
    /// When it is no name, or there is no secret.
    pub fn new(name: &str, algorithm: Algorithm, secret: Vec<u8>) -> Result<Self, String> {
        let secret = Zeroizing::new(secret);
        let name = Name::new(name.as_bytes()).map_err(|_| format!("invalid name \"{name}\""))?;
        match secret.is_empty() {
            true => Err("the secret is empty".to_owned()),
            false => Ok(Self { name, algorithm, secret }),
        }
    }

    /// Reads what `tsig-keygen` writes (`key "name" { algorithm …; secret "…"; };`), or a secret alone
    /// in base64. What is given counts where the file says nothing, and must not differ from it.
    ///
    /// # Errors
    /// When something is missing, differs or is unreadable.
    pub fn from_file(
        text: &str,
        name: Option<&str>,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, String> {
        let words = words(text);
        let words: Vec<_> = words.iter().map(|word| word.as_str()).collect();
        let (written, secret) = match words[..] {
            ["key", written, ..] => (Some(written), after(&words, "secret")),
            [secret] => (None, Some(secret)),
            [] => (None, Some(alone(text).ok_or(NEITHER)?)),
            _ => return Err(NEITHER.to_owned()),
        };
        let secret = secret.ok_or("the key has no `secret`")?;
        let said = after(&words, "algorithm").map(str::parse).transpose()?;
        let same = |one: &str, other: &str| {
            one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
        };
        if let (Some(written), Some(name)) = (written, name)
            && !same(written, name)
        {
            return Err(format!("it holds the key \"{written}\", not \"{name}\""));
        }
        if let (Some(said), Some(algorithm)) = (said, algorithm)
            && said != algorithm
        {
            return Err(format!("the key's algorithm is {said}, not {algorithm}"));
        }
        let name = written.or(name).ok_or("the name of the key is missing")?;
        let algorithm = said.or(algorithm).unwrap_or(Algorithm::Sha256);
        let secret = BASE64_STANDARD.decode(secret).map_err(|_| "the secret is not base64")?;
        Self::new(name, algorithm, secret)
    }

    /// The name that the server knows it by.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// A message with its signature, made at `now` (seconds since the Unix epoch).
    pub fn sign(&self, message: &[u8], now: u64) -> Signed {
        let times = Times { signed: now, fudge: FUDGE };
        let mac = self.mac(None, message, times, 0, &[]);
        let mut bytes = message.to_vec();
        let count = u16::from_be_bytes([bytes[10], bytes[11]]).saturating_add(1);
        bytes[10..HEADER].copy_from_slice(&count.to_be_bytes());
        self.name.encode(&mut bytes);
        bytes.extend(TSIG.to_be_bytes());
        bytes.extend(ANY.to_be_bytes());
        bytes.extend([0; 4]);
        let mut data = Vec::new();
        self.algorithm_name(&mut data);
        times.encode(&mut data);
        // It is 64 bytes at most.
        data.extend((mac.as_ref().len() as u16).to_be_bytes());
        data.extend(mac.as_ref());
        data.extend(&message[..2]);
        data.extend([0; 4]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        Signed { bytes, mac: mac.as_ref().into() }
    }

    /// Checks the signature of the answer to a signed message.
    ///
    /// # Errors
    /// When it is not from a server that has the key, or that server did not take ours.
    pub fn verify(&self, answer: &[u8], asked: &Signed, now: u64) -> Result<(), Unverified> {
        let (end, signature) = Signature::read(answer).ok_or(Unverified::Missing)?;
        let algorithm = signature.algorithm.as_ref().map(Name::as_str);
        if (signature.name.as_ref(), algorithm) != (Some(&self.name), Some(self.algorithm.text())) {
            return Err(Unverified::OtherKey);
        }
        match signature.error {
            // Neither of them is signed: who cannot check our signature cannot make one.
            16 => return Err(Unverified::BadSignature),
            17 => return Err(Unverified::BadKey),
            _ => {}
        }
        let mut message = answer[..end].to_vec();
        message[..2].copy_from_slice(&signature.original_id);
        let count = u16::from_be_bytes([message[10], message[11]]).saturating_sub(1);
        message[10..HEADER].copy_from_slice(&count.to_be_bytes());
        let Signature { times, error, other, .. } = &signature;
        let expected = self.mac(Some(&asked.mac), &message, *times, *error, other);
        // A short MAC (RFC 8945 §5.2.2.1) is none that we have asked for.
        if aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_ref(), signature.mac)
            .is_err()
        {
            return Err(Unverified::Forged);
        }
        if *error == 18 {
            let theirs = other.iter().fold(0, |time, byte| (time << 8) | u64::from(*byte));
            return Err(Unverified::BadTime { theirs, ours: now });
        }
        if *error != 0 {
            return Err(Unverified::Other(*error));
        }
        match now.abs_diff(times.signed) > u64::from(times.fudge) {
            true => Err(Unverified::BadTime { theirs: times.signed, ours: now }),
            false => Ok(()),
        }
    }

    /// RFC 8945 §4.3.
    fn mac(
        &self,
        asked: Option<&[u8]>,
        message: &[u8],
        times: Times,
        error: u16,
        other: &[u8],
    ) -> hmac::Tag {
        let key = hmac::Key::new(self.algorithm.hmac(), &self.secret);
        let mut signing = hmac::Context::with_key(&key);
        if let Some(asked) = asked {
            signing.update(&(asked.len() as u16).to_be_bytes());
            signing.update(asked);
        }
        signing.update(message);
        let mut variables = Vec::new();
        self.name.encode(&mut variables);
        variables.extend(ANY.to_be_bytes());
        variables.extend([0; 4]);
        self.algorithm_name(&mut variables);
        times.encode(&mut variables);
        variables.extend(error.to_be_bytes());
        variables.extend((other.len() as u16).to_be_bytes());
        variables.extend(other);
        signing.update(&variables);
        signing.sign()
    }

    fn algorithm_name(&self, out: &mut Vec<u8>) {
        let text = self.algorithm.text();
        // A single label of a few letters.
        out.push(text.len() as u8);
        out.extend(text.as_bytes());
        out.push(0);
    }
}

/// The words of a key file: quoted or not, without punctuation and comments.
fn words(text: &str) -> Vec<Zeroizing<String>> {
    let lines = text.lines().map(|line| {
        let comment = ["//", "#"].iter().filter_map(|mark| line.find(&format!(" {mark}"))).min();
        let whole = line.trim_start().starts_with('#') || line.trim_start().starts_with("//");
        if whole { "" } else { &line[..comment.unwrap_or(line.len())] }
    });
    let separators = |letter: char| letter.is_whitespace() || "{};\"".contains(letter);
    let words = lines.flat_map(|line| line.split(separators).filter(|word| !word.is_empty()));
    words.map(|word| Zeroizing::new(word.to_owned())).collect()
}

/// The only line of a file, if it is a secret that begins as a comment does.
fn alone(text: &str) -> Option<&str> {
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let mut lines = text.lines().map(str::trim).filter(is_said);
    let line = lines.next().filter(|line| BASE64_STANDARD.decode(line).is_ok())?;
    lines.next().is_none().then_some(line)
}

fn after<'w>(words: &[&'w str], word: &str) -> Option<&'w str> {
    let at = words.iter().position(|known| *known == word)?;
    words.get(at + 1).copied()
}

/// A message with its signature, which the one of the answer goes on from.
pub struct Signed {
    /// The message.
    pub bytes: Vec<u8>,
    mac: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Times {
    signed: u64,
    fudge: u16,
}

impl Times {
    fn encode(self, out: &mut Vec<u8>) {
        out.extend(&self.signed.to_be_bytes()[2..]);
        out.extend(self.fudge.to_be_bytes());
    }
}

/// What the last record of a message says.
struct Signature<'m> {
    name: Option<Name>,
    algorithm: Option<Name>,
    times: Times,
    mac: &'m [u8],
    original_id: [u8; 2],
    error: u16,
    other: &'m [u8],
}

impl<'m> Signature<'m> {
    /// The signature and where it begins.
    fn read(message: &'m [u8]) -> Option<(usize, Self)> {
        let mut reader = Reader::new(message);
        let counts = reader.header().ok()?.counts;
        for _ in 0..counts[0] {
            reader.name().ok()?;
            reader.u32().ok()?;
        }
        let records = counts[1..].iter().map(|count| usize::from(*count)).sum::<usize>();
        for _ in 1..records {
            reader.skip_record().ok()?;
        }
        if counts[3] == 0 {
            return None;
        }
        let start = reader.at();
        let name = reader.name().ok()?;
        let (kind, class, _) = (reader.u16().ok()?, reader.u16().ok()?, reader.u32().ok()?);
        let mut reader = reader.data().ok()?;
        let algorithm = reader.name().ok()?;
        if (kind, class) != (TSIG, ANY) {
            return None;
        }
        let [high, low] = [u64::from(reader.u16().ok()?), u64::from(reader.u32().ok()?)];
        let times = Times { signed: (high << 32) | low, fudge: reader.u16().ok()? };
        let len = reader.u16().ok()?;
        let mac = reader.take(len.into()).ok()?;
        let original_id = reader.array().ok()?;
        let error = reader.u16().ok()?;
        let len = reader.u16().ok()?;
        let other = reader.take(len.into()).ok()?;
        let signature = Self { name, algorithm, times, mac, original_id, error, other };
        (!reader.has_more()).then_some((start, signature))
    }
}

impl Unverified {
    /// Whether it is the server that says so, or somebody who has its key; anybody could have sent the others.
    pub fn is_authentic(&self) -> bool {
        matches!(self, Self::BadTime { .. } | Self::Other(_))
    }
}

/// Why an answer is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// It has no signature.
    #[error("the answer is not signed")]
    Missing,
    /// It is signed with another key.
    #[error("the answer is signed with another key")]
    OtherKey,
    /// The signature is wrong.
    #[error("the signature of the answer is wrong")]
    Forged,
    /// Error 16: the server finds our signature wrong.
    #[error("BADSIG: the server has another secret for this key")]
    BadSignature,
    /// Error 17: the server does not know the key.
    #[error("BADKEY: the server knows no key of this name and algorithm")]
    BadKey,
    /// Error 18, or the answer is too old or from the future.
    #[error("BADTIME: the clock of the server is {} seconds away from ours", .theirs.abs_diff(*.ours))]
    BadTime {
        /// Seconds since the Unix epoch.
        theirs: u64,
        /// Seconds since the Unix epoch.
        ours: u64,
    },
    /// Any other error.
    #[error("TSIG error {0}")]
    Other(u16),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(secret: &[u8]) -> Key {
        Key::new("Acme.Example.", Algorithm::Sha256, secret.to_vec()).unwrap()
    }

    /// A message with our header and nothing else.
    const MESSAGE: &[u8] = &[7, 8, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    /// What a server that has `key` answers, with this error and time.
    fn answer(key: &Key, asked: &Signed, (error, signed): (u16, u64), other: &[u8]) -> Vec<u8> {
        let message = [&[7, 8, 0xa8, 0], &[0; 8][..]].concat();
        let times = Times { signed, fudge: FUDGE };
        let mac = key.mac(Some(&asked.mac), &message, times, error, other);
        let mut bytes = message.clone();
        bytes[11] = 1;
        key.name.encode(&mut bytes);
        bytes.extend([0, 250, 0, 255, 0, 0, 0, 0]);
        let mut data = Vec::new();
        key.algorithm_name(&mut data);
        times.encode(&mut data);
        data.extend([0, 32]);
        data.extend(mac.as_ref());
        data.extend([7, 8]);
        data.extend(error.to_be_bytes());
        data.extend((other.len() as u16).to_be_bytes());
        data.extend(other);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn an_answer_is_believed_when_its_server_has_the_key() {
        let (ours, other) = (key(b"secret"), key(b"other"));
        let asked = ours.sign(MESSAGE, 1000);
        let clock = [0, 0, 0, 0, 0x13, 0x88];
        for (bytes, now, expected) in [
            (answer(&ours, &asked, (0, 1000), &[]), 1000, Ok(())),
            (answer(&ours, &asked, (0, 1000), &[]), 1300, Ok(())),
            (
                answer(&ours, &asked, (0, 1000), &[]),
                1301,
                Err(Unverified::BadTime { theirs: 1000, ours: 1301 }),
            ),
            (answer(&other, &asked, (0, 1000), &[]), 1000, Err(Unverified::Forged)),
            (answer(&other, &asked, (16, 1000), &[]), 1000, Err(Unverified::BadSignature)),
            (answer(&other, &asked, (17, 1000), &[]), 1000, Err(Unverified::BadKey)),
            (
                answer(&ours, &asked, (18, 1000), &clock),
                1000,
                Err(Unverified::BadTime { theirs: 5000, ours: 1000 }),
            ),
            (answer(&other, &asked, (18, 1000), &clock), 1000, Err(Unverified::Forged)),
            (MESSAGE.to_vec(), 1000, Err(Unverified::Missing)),
            // The answer to another message.
            (
                answer(&ours, &ours.sign(MESSAGE, 999), (0, 1000), &[]),
                1000,
                Err(Unverified::Forged),
            ),
        ] {
            assert_eq!(ours.verify(&bytes, &asked, now), expected);
        }
    }

    #[test]
    fn damaged_answers_are_not_believed() {
        let ours = key(b"secret");
        let asked = ours.sign(MESSAGE, 1000);
        let whole = answer(&ours, &asked, (0, 1000), &[]);
        for at in 0..whole.len() {
            assert!(ours.verify(&whole[..at], &asked, 1000).is_err(), "{at}");
            // The number of the message may be another: a server between us has changed it. Nor is the
            // time to live part of the signature, or the letters' case.
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let time_to_live = HEADER + ours.name.as_str().len() + 2 + 4;
            let free = at < 2 || (time_to_live..time_to_live + 4).contains(&at);
            assert!(free || ours.verify(&damaged, &asked, 1000).is_err(), "{at}");
        }
    }

    #[test]
    fn key_files_are_those_of_bind_or_a_secret_alone() {
        let written = "# made by tsig-keygen\nkey \"acme.\" {\n\talgorithm hmac-sha512;\n\tsecret \"c2VjcmV0\"; // or so\n};\n";
        for (text, name, algorithm, expected) in [
            (written, None, None, Ok(("acme", Algorithm::Sha512))),
            (written, Some("ACME"), Some(Algorithm::Sha512), Ok(("acme", Algorithm::Sha512))),
            (written, Some("b"), None, Err("it holds the key \"acme.\", not \"b\"")),
            (
                written,
                None,
                Some(Algorithm::Sha1),
                Err("the key's algorithm is hmac-sha512, not hmac-sha1"),
            ),
            ("c2VjcmV0\n", Some("a"), None, Ok(("a", Algorithm::Sha256))),
            ("c2VjcmV0", None, None, Err("the name of the key is missing")),
            (
                "c2Vj cmV0",
                Some("a"),
                None,
                Err("it has neither a `key` statement nor a secret in base64"),
            ),
            ("?", Some("a"), None, Err("the secret is not base64")),
            (
                "key a { algorithm hmac-md5; secret x; };",
                None,
                None,
                Err(
                    "unknown algorithm \"hmac-md5\": it must be one of hmac-sha256, hmac-sha384, hmac-sha512, hmac-sha224, hmac-sha1",
                ),
            ),
            ("key a { };", None, None, Err("the key has no `secret`")),
            ("", Some("a"), None, Err("it has neither a `key` statement nor a secret in base64")),
        ] {
            let key = Key::from_file(text, name, algorithm);
            let read = key.as_ref().map(|key| (key.name.as_str(), key.algorithm));
            assert_eq!(read.map_err(String::as_str), expected, "{text}");
            assert!(key.is_err() || key.unwrap().secret[..] == *b"secret");
        }
    }

    #[test]
    fn a_secret_may_begin_as_a_comment_does() {
        let read = |text: &str| Key::from_file(text, Some("a"), None);
        for text in ["//////8=\n", "# a\n\n //////8=\n", "key a { secret \"//////8=\"; };"] {
            assert_eq!(read(text).unwrap().secret[..], [0xff; 5], "{text}");
        }
        for text in ["// comment\n", "//////8=\n//////8=\n", "//\n", "//////8=\nkey\n"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
