//! Whom certificates come from, and what is wanted of them.

use std::fmt::Write as _;
use std::hash::Hasher as _;
#[expect(deprecated, reason = "SipHash 2-4 without keys, which names nginx's files")]
use std::hash::SipHasher;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::account_key::AccountKey;
use crate::identifier::Identifier;
use crate::key::KeyKind;

/// A CA and our account there.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What the configuration calls it.
    pub name: String,
    /// The URL of its directory.
    pub uri: String,
    /// The key of the account where it is not ours to make.
    pub account_key: Option<AccountKey>,
    /// URLs by which the CA may reach us.
    pub contacts: Vec<String>,
    /// How we show that names are ours.
    pub challenge: ChallengeKind,
    /// Whether the first name is also the subject of requests.
    pub common_name: bool,
    /// An account elsewhere that ours is bound to.
    pub external_account: Option<ExternalAccount>,
    /// Of several chains, the one whose topmost certificate was issued by this name.
    pub preferred_chain: Option<String>,
    /// The profile to ask for.
    pub profile: Option<Profile>,
    /// Whether the terms of service are agreed to.
    pub accept_terms: bool,
    /// Where to keep what must outlive the process; nowhere when there is none.
    pub state_path: Option<PathBuf>,
}

/// An account elsewhere (RFC 8555 §7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its name.
    pub id: String,
    /// The key of HMAC-SHA256.
    pub key: Zeroizing<Vec<u8>>,
}

/// How we show that names are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By an answer on port 80.
    #[default]
    Http01,
    /// By a certificate on port 443 (RFC 8737).
    TlsAlpn01,
    /// By a record in the DNS.
    Dns01,
}

impl ChallengeKind {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// A profile of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What the CA calls it.
    pub name: String,
    /// Whether no certificate is better than one without it.
    pub required: bool,
}

/// The names that one certificate is wanted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// The names, in order.
    pub identifiers: Vec<Identifier>,
    /// The kind of its key.
    pub key: KeyKind,
}

impl Order {
    /// What its files are called: the same as those of nginx's module, so that either finds the
    /// other's certificates.
    pub fn id(&self) -> String {
        let is_dns = |identifier: &&Identifier| matches!(identifier, Identifier::Dns(_));
        let first = self.identifiers.iter().find(is_dns).or(self.identifiers.first());
        let mut id = first.map(ToString::to_string).unwrap_or_default();
        let _ = write!(id, "-{:x}", self.hash());
        id
    }

    /// What Rust's derived `Hash` feeds nginx's hasher with: numbers of variants and lengths as 64
    /// bits, texts with a byte 255 behind them.
    fn hash(&self) -> u64 {
        #[expect(deprecated, reason = "see above")]
        let mut hasher = SipHasher::new();
        hasher.write_u64(self.identifiers.len() as u64);
        for identifier in &self.identifiers {
            hasher.write_u64(u64::from(matches!(identifier, Identifier::Ip(_))));
            hasher.write(identifier.to_string().as_bytes());
            hasher.write_u8(255);
        }
        let (algorithm, bits) = match self.key {
            KeyKind::Ecdsa(bits) => (0, bits),
            KeyKind::Rsa(bits) => (1, bits),
        };
        hasher.write_u64(algorithm);
        hasher.write_u32(bits);
        hasher.finish()
    }

    /// The names, for people.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.identifiers.iter().map(ToString::to_string).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the hasher and the derived `Hash` of nginx's module 0.4.1.
    #[test]
    fn files_are_called_as_those_of_nginx() {
        for (names, key, expected) in [
            (
                ["www.example.test", "example.test"],
                KeyKind::Ecdsa(256),
                "www.example.test-7e0d41b4e634ca6d",
            ),
            (["example.test", "2001:db8::1"], KeyKind::Rsa(2048), "example.test-a9fe6f63e5675c9e"),
        ] {
            let identifier = |name: &str| match name.parse() {
                Ok(address) => Identifier::Ip(address),
                Err(_) => Identifier::Dns(name.into()),
            };
            let identifiers = names.map(identifier).to_vec();
            assert_eq!(Order { identifiers, key }.id(), expected);
        }
    }
}
