//! Passwords that were right not long ago, so that not every request pays for a slow hash.
//!
//! A **fact** says that this password belongs to that hash: it stays true whatever becomes of the file,
//! and says nothing about a user whose hash was changed. Facts are kept as keyed hashes; the key is
//! random and never leaves the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use aws_lc_rs::rand;

use super::hash::Stored;

/// How long a fact is kept after its last use: a memory image tells nothing about those who have been gone longer.
const KEPT: Duration = Duration::from_secs(300);

/// How many are kept.
const MAX_FACTS: usize = 10_000;

/// A password and its hash, hashed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fact([u8; 32]);

/// The facts, and until when each is kept.
pub(super) struct Verified {
    key: Key,
    facts: Mutex<HashMap<Fact, Instant>>,
}

impl fmt::Debug for Verified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Verified")
    }
}

impl Default for Verified {
    fn default() -> Self {
        let mut random = [0; 32];
        rand::fill(&mut random).expect("the system has random bytes, or TLS would not work either");
        Self { key: Key::new(HMAC_SHA256, &random), facts: Mutex::default() }
    }
}

impl Verified {
    pub(super) fn fact(&self, stored: &Stored, password: &[u8]) -> Fact {
        let mut context = Context::with_key(&self.key);
        // The length keeps the two apart.
        context.update(&stored.text().len().to_be_bytes());
        context.update(stored.text());
        context.update(password);
        let mut fact = [0; 32];
        fact.copy_from_slice(context.sign().as_ref());
        Fact(fact)
    }

    /// Whether this is a fact, which is then kept anew.
    pub(super) fn recalls(&self, fact: &Fact, now: Instant) -> bool {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = facts.get_mut(fact).filter(|until| now < **until) else { return false };
        *until = now + KEPT;
        true
    }

    pub(super) fn insert(&self, fact: Fact, now: Instant) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.len() >= MAX_FACTS {
            facts.retain(|_, until| now < *until);
        }
        if facts.len() >= MAX_FACTS {
            // Whoever is forgotten pays once more.
            facts.clear();
        }
        facts.insert(fact, now + KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_of_one_hash_and_one_password_for_a_while() {
        let verified = Verified::default();
        let now = Instant::now();
        let fact = verified.fact(&Stored::new(b"hash"), b"password");
        verified.insert(fact, now);
        let known = |hash: &[u8], password: &[u8], at| {
            verified.recalls(&verified.fact(&Stored::new(hash), password), at)
        };
        assert!(known(b"hash", b"password", now));
        assert!(!known(b"hash", b"Password", now));
        assert!(!known(b"hashp", b"assword", now));
        let (half, long) = (now + KEPT / 2, now + KEPT + KEPT / 4);
        assert!(known(b"hash", b"password", half) && known(b"hash", b"password", long), "in use");
        assert!(!known(b"hash", b"password", long + KEPT));
        assert!(!Verified::default().recalls(&fact, now), "each process has a key of its own");
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let verified = Verified::default();
        let now = Instant::now();
        let stored = Stored::new(b"hash");
        for number in 0..MAX_FACTS + 10 {
            verified.insert(verified.fact(&stored, number.to_string().as_bytes()), now);
        }
        assert!(verified.facts.lock().is_ok_and(|facts| facts.len() <= MAX_FACTS));
    }
}
