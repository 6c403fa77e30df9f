//! Clients that belong to one peer: how a peer is called, and where sessions are remembered.
//!
//! A table of sessions is made of parts, each with a lock of its own, that a request holds for one
//! look. It keeps a digest of a session's name, never the name, so that what a client sends takes
//! as much room as anything else. When a part is full, the session that was not used for longest
//! is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use wssgate_config::model::{MAX_ROUTE_LEN, StickyLearn};

/// What a peer is called in cookies, routes and sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerId {
    len: u8,
    /// Zero behind `len`.
    text: [u8; MAX_ROUTE_LEN],
}

impl PeerId {
    /// The one of this text; `None` if it is too long to be any peer's.
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut id = Self { len: u8::try_from(text.len()).ok()?, text: [0; MAX_ROUTE_LEN] };
        id.text.get_mut(..text.len())?.copy_from_slice(text);
        Some(id)
    }

    /// The one of a peer without `route=`: nginx's, so that cookies stay good when it is replaced
    /// by us.
    pub(super) fn of_address(name: &str) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; MAX_ROUTE_LEN];
        for (pair, byte) in text.chunks_exact_mut(2).zip(Md5::digest(name)) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self { len: MAX_ROUTE_LEN as u8, text }
    }

    /// As it is written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.as_bytes().escape_ascii())
    }
}

/// The digest of a session's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; 16]);

impl SessionKey {
    /// As bytes, for another process.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The one of these bytes, if they are one's.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Of this name.
    pub fn of(name: &[u8]) -> Self {
        Self(Md5::digest(name).into())
    }
}

/// Bytes that one session is reckoned with, as in nginx: a zone of 1m has room for 4096.
const SESSION_COST: u64 = 256;

/// Parts of a large table.
const MAX_PARTS: usize = 16;

/// Sessions of a part that is worth its lock.
const PART: usize = 1024;

/// The sessions of a group under the settings of one generation.
#[derive(Debug)]
pub struct Sessions {
    name: Box<[u8]>,
    timeout: Duration,
    /// Sessions of one part.
    part_capacity: usize,
    table: Arc<Table>,
    told: AtomicBool,
}

type Table = [Mutex<Part>];

#[derive(Debug, Default)]
struct Part {
    sessions: HashMap<SessionKey, Session>,
    /// By their last use.
    order: BTreeMap<u64, SessionKey>,
    /// Uses so far.
    uses: u64,
}

#[derive(Debug)]
struct Session {
    peer: PeerId,
    used: Instant,
    turn: u64,
}

/// What became of a session that was to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// It is, or needed not be.
    Quietly,
    /// Another one had to be forgotten for it, for the first time in this generation.
    FirstLost,
}

impl Sessions {
    /// The table of `model`. What `previous` remembers is taken over if it is the same one.
    pub(super) fn new(model: &StickyLearn, previous: Option<&Self>) -> Self {
        let capacity = usize::try_from(model.size / SESSION_COST).unwrap_or(usize::MAX).max(1);
        let inherited = previous.filter(|previous| previous.name == model.zone.value);
        let table = inherited.map_or_else(
            || (0..(capacity / PART).clamp(1, MAX_PARTS)).map(|_| Mutex::default()).collect(),
            |previous| Arc::clone(&previous.table),
        );
        Self {
            name: model.zone.value.clone(),
            timeout: model.timeout,
            part_capacity: (capacity / table.len()).max(1),
            table,
            told: AtomicBool::new(false),
        }
    }

    /// Name of the zone.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What is told when a session had to be forgotten for another one.
    pub(crate) fn full(&self) -> String {
        format!(
            "sticky session zone \"{}\" is full, least recently used sessions are removed; make it \
             larger",
            self.name.escape_ascii()
        )
    }

    /// The peer of a session that is remembered.
    pub(crate) fn find(&self, key: SessionKey, now: Instant) -> Option<PeerId> {
        let part = self.part(key);
        let session = part.sessions.get(&key)?;
        (now.saturating_duration_since(session.used) < self.timeout).then_some(session.peer)
    }

    /// Remembers that a session is used with a peer `now`. One that is not known is only taken in
    /// if it is `new`.
    pub fn learn(&self, key: SessionKey, peer: PeerId, new: bool, now: Instant) -> Learnt {
        let mut part = self.part(key);
        part.forget_unused(now, self.timeout);
        if !new && !part.sessions.contains_key(&key) {
            return Learnt::Quietly;
        }
        let lost = part.make_room(key, self.part_capacity);
        part.put(key, peer, now);
        drop(part);
        match lost && !self.told.swap(true, Relaxed) {
            true => Learnt::FirstLost,
            false => Learnt::Quietly,
        }
    }

    fn part(&self, key: SessionKey) -> MutexGuard<'_, Part> {
        // Evenly spread, since it is a digest.
        let part = usize::from(key.0[0]) % self.table.len();
        // What a thread that panicked has left is a table all the same.
        self.table[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn put(&mut self, key: SessionKey, peer: PeerId, used: Instant) {
        let turn = self.uses;
        self.uses += 1;
        if let Some(before) = self.sessions.insert(key, Session { peer, used, turn }) {
            self.order.remove(&before.turn);
        }
        self.order.insert(turn, key);
    }

    fn oldest(&self) -> Option<&Session> {
        self.sessions.get(self.order.first_key_value()?.1)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.sessions.remove(&key);
        }
    }

    fn forget_unused(&mut self, now: Instant, timeout: Duration) {
        let over = |session: &Session| now.saturating_duration_since(session.used) >= timeout;
        while self.oldest().is_some_and(over) {
            self.forget_oldest();
        }
    }

    /// Makes room for `key`; says whether others were forgotten for it.
    fn make_room(&mut self, key: SessionKey, capacity: usize) -> bool {
        let others =
            |part: &Self| part.sessions.len() - usize::from(part.sessions.contains_key(&key));
        let full = others(self) >= capacity;
        while others(self) >= capacity {
            self.forget_oldest();
        }
        full
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
