//! What lets a client come back without a full handshake: session caches and ticket keys.
//!
//! They outlive a generation, so that a reload does not make every client shake hands anew.

mod ticket_key;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};
use wssgate_config::model::{ServerTls, SessionCache};
use wssgate_syntax::{Diagnostic, Report};
use zeroize::Zeroizing;

use crate::clock;
use ticket_key::{FILE_LENS, TicketKey};

/// Session caches by zone and ticket keys by server, shared by the generations that use them.
#[derive(Debug, Default)]
pub struct Sessions {
    caches: Shared<ServerSessionMemoryCache>,
    tickets: Shared<OwnKeys>,
}

/// What is there by name as long as somebody uses it.
#[derive(Debug)]
struct Shared<T>(Mutex<HashMap<Box<[u8]>, Weak<T>>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shared<T> {
    fn of(&self, name: Box<[u8]>, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut known = lock(&self.0);
        if let Some(known) = known.get(&name).and_then(Weak::upgrade) {
            return known;
        }
        known.retain(|_, known| known.strong_count() > 0);
        let made = make();
        known.insert(name, Arc::downgrade(&made));
        made
    }
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
        let name = [&name[..], b"\0", server].concat().into();
        let cache = self.caches.of(name, || ServerSessionMemoryCache::new(*sessions));
        let lifetime = tls.session_timeout.as_secs();
        Arc::new(TimedSessions { cache, lifetime })
    }

    /// What makes and reads the tickets of a server. `None` when its key files cannot be used; the
    /// report then has an error.
    pub(super) fn ticketer(
        &self,
        tls: &ServerTls,
        server: &[u8],
        report: &mut Report,
    ) -> Option<Arc<dyn ProducesTickets>> {
        let keys = match tls.ticket_keys.is_empty() {
            true => {
                let make = || Arc::new(OwnKeys::new(server.into()));
                TicketKeys::Own(self.tickets.of(server.into(), make))
            }
            false => {
                let read = tls.ticket_keys.iter().filter_map(|file| {
                    let key = read_key(&file.value, server);
                    let fail = |why| Diagnostic::error(why).at(file.span, "needed here");
                    key.map_err(|why| report.push(fail(why))).ok()
                });
                TicketKeys::Files(read.collect())
            }
        };
        let lifetime = tls.session_timeout.as_secs();
        let whole = keys.first_are(tls.ticket_keys.len());
        whole.then(|| Arc::new(TimedTickets { keys, lifetime }) as Arc<dyn ProducesTickets>)
    }
}

/// Reads a key file (`ssl_session_ticket_key`); the errors are nginx's.
fn read_key(path: &Path, server: &[u8]) -> Result<TicketKey, String> {
    let shown = path.display();
    let failed = |call: &str, error: &io::Error| {
        format!("{call}() \"{shown}\" failed ({})", crate::errno_text(error))
    };
    let file = File::open(path).map_err(|error| failed("open", &error))?;
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_LENS[1] + 1));
    let most = u64::try_from(FILE_LENS[1] + 1).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut content).map_err(|error| failed("read", &error))?;
    let [short, long] = FILE_LENS;
    let wrong = || format!("\"{shown}\" must be {short} or {long} bytes");
    TicketKey::new(&content, server).ok_or_else(wrong)
}

/// The keys of one server's tickets.
#[derive(Debug)]
enum TicketKeys {
    /// Those of `ssl_session_ticket_key`: the first seals, all open.
    Files(Vec<TicketKey>),
    Own(Arc<OwnKeys>),
}

impl TicketKeys {
    /// Whether all of `files` files were read.
    fn first_are(&self, files: usize) -> bool {
        match self {
            Self::Files(keys) => keys.len() == files,
            Self::Own(_) => true,
        }
    }
}

/// Keys of our own, which nobody else knows. As in nginx, one seals for the lifetime of a ticket, and
/// opens for another.
#[derive(Debug)]
struct OwnKeys {
    server: Box<[u8]>,
    /// None before the first ticket, or while the system gives no random numbers.
    keys: Mutex<Option<Rotation>>,
}

#[derive(Debug)]
struct Rotation {
    /// Seconds since the Unix epoch.
    since: u64,
    current: Arc<TicketKey>,
    previous: Option<Arc<TicketKey>>,
}

impl OwnKeys {
    fn new(server: Box<[u8]>) -> Self {
        Self { server, keys: Mutex::default() }
    }

    fn seal(&self, session: &[u8], now: u64, lifetime: u64) -> Option<Vec<u8>> {
        let current = Arc::clone(&self.rotated(now, lifetime).as_ref()?.current);
        current.seal(session)
    }

    fn open(&self, ticket: &[u8], now: u64, lifetime: u64) -> Option<Vec<u8>> {
        let (current, previous) = {
            let rotated = self.rotated(now, lifetime);
            let keys = rotated.as_ref()?;
            (Arc::clone(&keys.current), keys.previous.clone())
        };
        current.open(ticket).or_else(|| previous?.open(ticket))
    }

    /// The keys of `now`.
    fn rotated(&self, now: u64, lifetime: u64) -> MutexGuard<'_, Option<Rotation>> {
        let lifetime = lifetime.max(1);
        let mut keys = lock(&self.keys);
        // A clock that was set back must not keep a key for ever.
        let age = keys.as_ref().map(|keys| now.checked_sub(keys.since).unwrap_or(lifetime));
        if age.is_none_or(|age| age >= lifetime) {
            // What the old one has sealed at the end of its time is over when it is twice as old.
            let is_needed = age.is_some_and(|age| age < lifetime.saturating_mul(2));
            let previous = keys.take().filter(|_| is_needed).map(|keys| keys.current);
            *keys = TicketKey::random(&self.server).ok().map(|current| Rotation {
                since: now,
                current: Arc::new(current),
                previous,
            });
        }
        keys
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let plain = Zeroizing::new(stamped(plain));
        match &self.keys {
            TicketKeys::Files(keys) => keys.first()?.seal(&plain),
            TicketKeys::Own(keys) => keys.seal(&plain, now(), self.lifetime),
        }
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = match &self.keys {
            TicketKeys::Files(keys) => keys.iter().find_map(|key| key.open(cipher)),
            TicketKeys::Own(keys) => keys.open(cipher, now(), self.lifetime),
        };
        fresh(&Zeroizing::new(plain?), self.lifetime)
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
    fn own_keys_seal_for_one_lifetime_and_open_for_two() {
        let keys = OwnKeys::new(b"a"[..].into());
        let opens = |ticket: &[u8], now| keys.open(ticket, now, 60).is_some();
        let early = keys.seal(b"state", 1000, 60).expect("random numbers");
        let late = keys.seal(b"state", 1059, 60).expect("random numbers");
        assert_eq!(early[..16], late[..16], "one key");
        assert!(opens(&late, 1060) && opens(&late, 1119), "by the previous key");
        let next = keys.seal(b"state", 1119, 60).expect("random numbers");
        assert_ne!(next[..16], late[..16]);
        assert!(!opens(&late, 1120), "forgotten");
        assert!(opens(&next, 1179) && !opens(&next, 1300), "nobody came for long");
        // The clock was set back.
        let ahead = keys.seal(b"state", 1300, 60).expect("random numbers");
        assert!(opens(&ahead, 500) && !opens(&ahead, 560));
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let shared = Shared::default();
        let first = shared.of(b"a"[..].into(), || Arc::new(1));
        assert_eq!(*shared.of(b"a"[..].into(), || Arc::new(2)), 1);
        drop(first);
        assert_eq!(*shared.of(b"a"[..].into(), || Arc::new(3)), 3);
        let _other = shared.of(b"b"[..].into(), || Arc::new(4));
        assert_eq!(lock(&shared.0).len(), 1);
    }
}
