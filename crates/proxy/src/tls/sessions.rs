//! What lets a client come back without a full handshake: session caches and ticket keys.
//!
//! They outlive a generation, so that a reload does not make every client shake hands anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};
use wssgate_config::model::{ServerTls, SessionCache};

use crate::clock;

/// The keys of one server's tickets.
type TicketKeys = Arc<dyn ProducesTickets>;

/// Session caches by zone and ticket keys by server, shared by all generations.
#[derive(Debug, Default)]
pub struct Sessions {
    caches: Mutex<HashMap<Box<[u8]>, Arc<ServerSessionMemoryCache>>>,
    tickets: Mutex<HashMap<Box<[u8]>, TicketKeys>>,
}

impl Sessions {
    /// The store for a server.
    ///
    /// `server` tells servers apart: a session that one server made is never resumed at another,
    /// which may ask for client certificates.
    pub(super) fn store(&self, tls: &ServerTls, server: &[u8]) -> Arc<dyn StoresServerSessions> {
        let SessionCache::Shared { name, sessions } = &tls.session_cache else {
            return Arc::new(NoServerSessionStorage {});
        };
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = caches
            .entry([&name[..], b"\0", server].concat().into())
            .or_insert_with(|| ServerSessionMemoryCache::new(*sessions));
        let lifetime = tls.session_timeout.as_secs();
        Arc::new(TimedSessions { cache: Arc::clone(cache), lifetime })
    }

    /// The ticket keys for a server; they change every few hours.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn ticketer(
        &self,
        tls: &ServerTls,
        server: &[u8],
    ) -> Result<TicketKeys, rustls::Error> {
        let lifetime = tls.session_timeout.as_secs();
        Ok(Arc::new(TimedTickets { keys: self.ticket_keys(server)?, lifetime }))
    }

    fn ticket_keys(&self, server: &[u8]) -> Result<TicketKeys, rustls::Error> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tickets.get(server) {
            return Ok(Arc::clone(known));
        }
        let made = Ticketer::new()?;
        tickets.insert(server.into(), Arc::clone(&made));
        Ok(made)
    }
}

/// A cache whose sessions end after `ssl_session_timeout`.
#[derive(Debug)]
struct TimedSessions {
    cache: Arc<ServerSessionMemoryCache>,
    /// Seconds.
    lifetime: u64,
}

impl StoresServerSessions for TimedSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.cache.put(key, stamped(&value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        fresh(&self.cache.get(key)?, self.lifetime)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        fresh(&self.cache.take(key)?, self.lifetime)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// Tickets that end after `ssl_session_timeout`.
#[derive(Debug)]
struct TimedTickets {
    keys: TicketKeys,
    /// Seconds.
    lifetime: u64,
}

impl ProducesTickets for TimedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime.try_into().unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.encrypt(&stamped(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        fresh(&self.keys.decrypt(cipher)?, self.lifetime)
    }
}

/// A session with the time of its making before it.
fn stamped(session: &[u8]) -> Vec<u8> {
    [&now().to_be_bytes()[..], session].concat()
}

/// The session again, unless it is older than `lifetime` seconds.
fn fresh(stamped: &[u8], lifetime: u64) -> Option<Vec<u8>> {
    let (stamp, session) = stamped.split_first_chunk()?;
    // A stamp from the future means that the clock was set back; nobody knows how old it is.
    let age = now().checked_sub(u64::from_be_bytes(*stamp))?;
    (age <= lifetime).then(|| session.to_vec())
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    clock::since_epoch(clock::now()).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_with_its_lifetime() {
        let sessions = TimedSessions { cache: ServerSessionMemoryCache::new(16), lifetime: 60 };
        assert!(sessions.put(b"key".to_vec(), b"value".to_vec()));
        assert_eq!(sessions.get(b"key").as_deref(), Some(b"value".as_slice()));
        let stored = |age: u64| [&(now() - age).to_be_bytes()[..], b"old"].concat();
        assert_eq!(fresh(&stored(30), 60).as_deref(), Some(b"old".as_slice()));
        assert_eq!(fresh(&stored(90), 60), None);
        assert_eq!(fresh(b"short", 60), None);
    }

    #[test]
    fn ticket_keys_stay_the_same_for_one_server_only() {
        let sessions = Sessions::default();
        let ticket = |server: &[u8]| sessions.ticket_keys(server).expect("random numbers");
        let sealed = ticket(b"a").encrypt(b"state").expect("sealed");
        assert_eq!(ticket(b"a").decrypt(&sealed).as_deref(), Some(b"state".as_slice()));
        assert_eq!(ticket(b"b").decrypt(&sealed), None);
    }
}
