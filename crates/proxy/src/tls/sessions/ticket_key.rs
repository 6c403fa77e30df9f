//! One key of session tickets.
//!
//! A ticket is `name | salt | sealed`: the key's name as RFC 5077 §4 has it, and a session under
//! AES-256-GCM with a key and nonce that are derived for this ticket alone. So it does not matter how
//! many tickets a key seals that lives in a file for months: a random nonce under one key would wear
//! it out after 2^32 (NIST SP 800-38D §8.3).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

/// The length of a key's name.
const NAME: usize = 16;

/// The length of a ticket's salt: no two tickets of one key have the same.
const SALT: usize = 32;

/// The length of an AES-256 key.
const KEY: usize = 32;

/// The lengths of a file that holds a key, as in nginx.
pub(super) const FILE_LENS: [usize; 2] = [48, 80];

/// Seals the tickets of one server, and opens those that it has sealed.
pub(super) struct TicketKey {
    name: [u8; NAME],
    secret: Prk,
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TicketKey")
    }
}

impl TicketKey {
    /// The key that a file's content gives `server`; `None` when its length is none of [`FILE_LENS`].
    ///
    /// Another server that uses the file opens none of these tickets: a session of one that asks for
    /// no client certificate is worth nothing at one that does.
    pub(super) fn new(content: &[u8], server: &[u8]) -> Option<Self> {
        let (name, secret) = content.split_first_chunk()?;
        FILE_LENS.contains(&content.len()).then(|| {
            let secret = Salt::new(HKDF_SHA512, server).extract(secret);
            Self { name: *name, secret }
        })
    }

    /// A key that nobody has seen.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn random(server: &[u8]) -> Result<Self, Unspecified> {
        let mut content = Zeroizing::new([0; FILE_LENS[1]]);
        rand::fill(&mut *content)?;
        Self::new(&*content, server).ok_or(Unspecified)
    }

    /// A ticket that holds `session`.
    pub(super) fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        rand::fill(&mut salt).ok()?;
        let (key, nonce) = self.derive(&salt)?;
        let mut sealed = session.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(self.name), &mut sealed).ok()?;
        Some([&self.name[..], &salt, &sealed].concat())
    }

    /// What a ticket of this key holds.
    pub(super) fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk()?;
        let (salt, sealed) = rest.split_first_chunk()?;
        if *name != self.name {
            return None;
        }
        let (key, nonce) = self.derive(salt)?;
        let mut sealed = sealed.to_vec();
        let len = key.open_in_place(nonce, Aad::from(self.name), &mut sealed).ok()?.len();
        sealed.truncate(len);
        Some(sealed)
    }

    fn derive(&self, salt: &[u8; SALT]) -> Option<(LessSafeKey, Nonce)> {
        let mut derived = Zeroizing::new([0; Derived::LEN]);
        let info = [&b"wssgate session ticket"[..], salt];
        self.secret.expand(&info, Derived).ok()?.fill(&mut *derived).ok()?;
        let (key, nonce) = derived.split_at(KEY);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some((key, Nonce::try_assume_unique_for_key(nonce).ok()?))
    }
}

/// A key with a nonce behind it.
struct Derived;

impl Derived {
    const LEN: usize = KEY + NONCE_LEN;
}

impl KeyType for Derived {
    fn len(&self) -> usize {
        Self::LEN
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_what_the_same_file_has_sealed_for_the_same_server() {
        for len in FILE_LENS {
            let file: Vec<u8> = (0..).take(len).collect();
            let key = |server: &str| TicketKey::new(&file, server.as_bytes()).unwrap();
            let ticket = key("a").seal(b"session").unwrap();
            assert_eq!(ticket[..NAME], file[..NAME]);
            assert_eq!(key("a").open(&ticket).as_deref(), Some(&b"session"[..]));
            assert_eq!(key("b").open(&ticket), None);
            assert_ne!(key("a").seal(b"session").unwrap(), ticket);
            // Another secret under the same name.
            let other = [&file[..NAME], &vec![0; len - NAME]].concat();
            assert_eq!(TicketKey::new(&other, b"a").unwrap().open(&ticket), None);
        }
    }

    #[test]
    fn damaged_tickets_and_other_lengths_of_keys_are_refused() {
        let key = TicketKey::random(b"a").unwrap();
        let ticket = key.seal(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(key.open(&damaged), None, "{at}");
            assert_eq!(key.open(&ticket[..at]), None, "{at}");
        }
        for len in [0, 15, 16, 47, 49, 79, 81] {
            assert!(TicketKey::new(&vec![1; len], b"a").is_none(), "{len}");
        }
    }
}
