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
mod users;
mod verified;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// What `auth_basic` knows beyond one request.
#[derive(Debug)]
pub struct Passwords {
    files: UserFiles,
    verified: Verified,
    attempts: Attempts,
    /// Hashing takes a core for long: half of them are left to everything else.
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            files: UserFiles::default(),
            verified: Verified::default(),
            attempts: Attempts::default(),
            slots: Arc::new(Semaphore::new(cores.div_ceil(2))),
            waiting: AtomicUsize::new(0),
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
        self.verified.contains(&self.verified.fact(stored, password), Instant::now())
    }

    /// Whether a password is right. Blocks, of some hashes for long.
    ///
    /// # Errors
    /// When the hash is broken or of an unknown kind.
    pub(crate) fn verify(&self, stored: &Stored, password: &[u8]) -> Result<bool, HashError> {
        let fact: Fact = self.verified.fact(stored, password);
        // Many requests of one page wait for the same answer.
        if self.verified.contains(&fact, Instant::now()) {
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
    /// When too many wait already.
    pub(crate) async fn slot(&self) -> Result<OwnedSemaphorePermit, Busy> {
        let slots = Arc::clone(&self.slots);
        if let Ok(permit) = Arc::clone(&slots).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::enter(&self.waiting).ok_or(Busy)?;
        slots.acquire_owned().await.map_err(|_| Busy)
    }

    /// When an attempt of this client may be checked.
    pub(crate) fn turn(&self, client: Option<IpAddr>) -> Turn {
        self.attempts.turn(client, Instant::now())
    }

    /// An attempt of this client failed.
    pub(crate) fn failed(&self, client: Option<IpAddr>) {
        self.attempts.failed(client, Instant::now());
    }
}

/// One who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        let before = count.fetch_add(1, Ordering::Relaxed);
        // Dropped, and so counted down again, when there are too many.
        (before < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
