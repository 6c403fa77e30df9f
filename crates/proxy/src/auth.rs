//! Who clients are, as far as it is independent of HTTP: files of users, password hashes, what was
//! verified before, and who fails too often; tokens, and the keys that verify them.
//!
//! What is known of passwords outlives a reload. Whatever may take long (reading files, hashing) is done by functions
//! that block, for threads that may.

mod attempts;
mod files;
mod hash;
pub(crate) mod jwt;
pub(crate) mod keys;
pub(crate) mod revocations;
mod users;
mod verified;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

pub(crate) use attempts::Turn;
pub(crate) use files::FileError;
pub use hash::HashError;
pub(crate) use hash::Stored;

use attempts::Attempts;
use users::UserFiles;
use verified::{Fact, Verified};

/// How many checks of passwords may wait for a thread. At a quarter of a second each (bcrypt with
/// cost 12) the last one of two threads waits half a minute.
const MAX_WAITING: usize = 256;

/// How many of them may be of one client, so that others find a place.
const MAX_WAITING_OF_ONE: usize = 64;

/// What `auth_basic` knows beyond one request.
#[derive(Debug)]
pub struct Passwords {
    files: UserFiles,
    verified: Verified,
    attempts: Attempts,
    /// Hashing takes a core for long: half of them are left to everything else.
    slots: Arc<Semaphore>,
    waiting: Mutex<Queue>,
    /// The checks in work; those who bring the same password wait for the same one.
    checks: Mutex<HashMap<Fact, Arc<Judged>>>,
}

/// What the check of one password against one hash gives.
type Judged = OnceCell<Result<bool, HashError>>;

impl Default for Passwords {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            files: UserFiles::default(),
            verified: Verified::default(),
            attempts: Attempts::default(),
            slots: Arc::new(Semaphore::new(cores.div_ceil(2))),
            waiting: Mutex::default(),
            checks: Mutex::default(),
        }
    }
}

/// Too many checks are waiting already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Passwords {
    /// What the file at `path` says of `user`; `None` if it does not name them. Blocks.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub(crate) fn find(&self, path: &Path, user: &[u8]) -> Result<Option<Stored>, FileError> {
        self.files.find(path, user)
    }

    /// Whether this password was found right for this hash not long ago.
    pub(crate) fn was_verified(&self, stored: &Stored, password: &[u8]) -> bool {
        self.verified.recalls(&self.verified.fact(stored, password), Instant::now())
    }

    /// The check of this password against this hash, which may be in work already.
    pub(crate) fn check(self: &Arc<Self>, stored: &Stored, password: &[u8]) -> Check {
        let fact = self.verified.fact(stored, password);
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let judged = Arc::clone(checks.entry(fact).or_default());
        drop(checks);
        Check { passwords: Arc::clone(self), fact, judged }
    }

    /// Whether a password is right. Blocks, of some hashes for long.
    ///
    /// # Errors
    /// When the hash is broken or of an unknown kind.
    pub(crate) fn verify(&self, stored: &Stored, password: &[u8]) -> Result<bool, HashError> {
        let fact: Fact = self.verified.fact(stored, password);
        // Somebody else may have found out since.
        if self.verified.recalls(&fact, Instant::now()) {
            return Ok(true);
        }
        let right = stored.is(password)?;
        if right {
            self.verified.insert(fact, Instant::now());
        }
        Ok(right)
    }

    /// Waits for the right to hash, which ends with the permit.
    ///
    /// # Errors
    /// When too many wait already, or too many of this client.
    pub(crate) async fn slot(&self, client: Option<IpAddr>) -> Result<OwnedSemaphorePermit, Busy> {
        let slots = Arc::clone(&self.slots);
        if let Ok(permit) = Arc::clone(&slots).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::enter(&self.waiting, attempts::network(client)).ok_or(Busy)?;
        slots.acquire_owned().await.map_err(|_| Busy)
    }

    /// When an attempt of this client to log in as `user` may be checked.
    pub(crate) fn turn(&self, client: Option<IpAddr>, user: &[u8]) -> Turn {
        self.attempts.turn(client, user, Instant::now())
    }

    /// An attempt of this client to log in as `user` failed.
    pub(crate) fn failed(&self, client: Option<IpAddr>, user: &[u8]) {
        self.attempts.failed(client, user, Instant::now());
    }
}

/// A check that somebody makes or waits for. It is forgotten with the last of them, so there are
/// never more than requests.
pub(crate) struct Check {
    passwords: Arc<Passwords>,
    fact: Fact,
    judged: Arc<Judged>,
}

impl Check {
    /// What the check gives: by `make`, unless another one is at it. Where that one gives up, the next
    /// one makes it.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn result<E>(
        &self,
        make: impl Future<Output = Result<Result<bool, HashError>, E>>,
    ) -> Result<Result<bool, HashError>, E> {
        self.judged.get_or_try_init(|| make).await.copied()
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        let mut checks = self.passwords.checks.lock().unwrap_or_else(PoisonError::into_inner);
        // That of the table and this one.
        if Arc::strong_count(&self.judged) == 2 {
            checks.remove(&self.fact);
        }
    }
}

/// How many wait, and how many of each client.
#[derive(Debug, Default)]
struct Queue {
    all: usize,
    of: HashMap<Option<IpAddr>, usize>,
}

/// One who waits.
struct Waiting<'a> {
    queue: &'a Mutex<Queue>,
    client: Option<IpAddr>,
}

impl<'a> Waiting<'a> {
    fn enter(queue: &'a Mutex<Queue>, client: Option<IpAddr>) -> Option<Self> {
        let mut places = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.of.get(&client).copied().unwrap_or(0);
        if places.all >= MAX_WAITING || taken >= MAX_WAITING_OF_ONE {
            return None;
        }
        places.all += 1;
        places.of.insert(client, taken + 1);
        Some(Self { queue, client })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut places = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        places.all -= 1;
        if let Some(taken) = places.of.get_mut(&self.client) {
            *taken -= 1;
            if *taken == 0 {
                places.of.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_does_not_take_all_places() {
        let queue = Mutex::default();
        let client = |number: u32| Some(IpAddr::V4(number.into()));
        let mut waiting: Vec<_> =
            (0..MAX_WAITING_OF_ONE).map(|_| Waiting::enter(&queue, client(1))).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(Waiting::enter(&queue, client(1)).is_none());
        waiting.extend((0..192).map(|number| Waiting::enter(&queue, client(2 + number))));
        assert!(waiting.iter().all(Option::is_some));
        assert!(Waiting::enter(&queue, client(1000)).is_none(), "all are taken");
        waiting.clear();
        assert!(Waiting::enter(&queue, client(1)).is_some());
        assert!(queue.lock().is_ok_and(|queue| queue.all == 0 && queue.of.is_empty()));
    }
}
