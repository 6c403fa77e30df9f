//! Certificates whose paths have variables, so that they are known only when a client or an upstream
//! is there (`ssl_certificate $ssl_server_name.crt`).
//!
//! Files are read on threads that may block. What was read can be kept for a while, up to a bound:
//! chains and keys each by themselves, as in nginx.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use tokio::task::spawn_blocking;
use wssgate_config::model::{CertificateCache, Located};
use wssgate_syntax::{Report, Span};

use super::{Contents, Passphrases, Stored, Unusable, pair_signing, read_chain, read_key};

/// Reads certificates and keys when they are needed.
pub struct OnDemand {
    passphrases: Arc<Passphrases>,
    cache: Option<Arc<Cache>>,
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OnDemand").finish_non_exhaustive()
    }
}

impl OnDemand {
    /// Keys are opened with these passphrases; what is read is kept as `cache` says.
    pub fn new(
        passphrases: Arc<Passphrases>,
        cache: Option<&Located<CertificateCache>>,
        caches: &mut Caches,
    ) -> Arc<Self> {
        Arc::new(Self { passphrases, cache: cache.map(|cache| caches.of(cache)) })
    }

    /// A chain with its key.
    ///
    /// # Errors
    /// nginx's words for what cannot be loaded.
    pub async fn load(
        self: &Arc<Self>,
        chain: PathBuf,
        key: PathBuf,
    ) -> Result<Arc<CertifiedKey>, String> {
        let fresh = |kind, path: &Path| {
            self.cache.as_ref().and_then(|cache| cache.fresh(kind, path, Instant::now()))
        };
        let kept = (fresh(Kind::Chain, &chain), fresh(Kind::Key, &key));
        if let (Some(Content::Chain(chain)), Some(Content::Key(key))) = kept
            && let Ok(certified) = pair_signing(&chain, key)
        {
            return Ok(Arc::new(certified));
        }
        let this = Arc::clone(self);
        let read = spawn_blocking(move || {
            let first = this.pair(&chain, &key, Look::AsKept);
            // One of them was renewed and the other is the one that was kept.
            let again = first.is_err() && this.cache.is_some();
            if again { this.pair(&chain, &key, Look::Again) } else { first }
        });
        read.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn pair(&self, chain: &Path, key: &Path, look: Look) -> Result<Arc<CertifiedKey>, String> {
        let found = self.chain(chain, look).map_err(|unusable| unusable.to_string())?;
        let found_key = self.key(key, look).map_err(|unusable| unusable.to_string())?;
        pair_signing(&found, found_key).map(Arc::new).map_err(|error| {
            let (chain, key) = (chain.display(), key.display());
            format!("cannot use certificate \"{chain}\" with key \"{key}\": {error}")
        })
    }

    fn chain(&self, path: &Path, look: Look) -> Result<Chain, Unusable> {
        let found = self.content(Kind::Chain, path, look, || {
            read_chain(path, &Contents::default())
                .map(|chain| (Content::Chain(chain.into()), Stored::Plain))
        })?;
        match found {
            Content::Chain(chain) => Ok(chain),
            Content::Key(_) => unreachable!("kept by its kind"),
        }
    }

    fn key(&self, path: &Path, look: Look) -> Result<Arc<dyn SigningKey>, Unusable> {
        let found = self.content(Kind::Key, path, look, || {
            let (key, stored) = read_key(path, &Contents::default(), &self.passphrases)?;
            let key = crate::tls::provider().key_provider.load_private_key(key);
            let key =
                key.map_err(|error| Unusable::new("certificate key", path, error.to_string()))?;
            Ok((Content::Key(key), stored))
        })?;
        match found {
            Content::Key(key) => Ok(key),
            Content::Chain(_) => unreachable!("kept by its kind"),
        }
    }

    fn content(
        &self,
        kind: Kind,
        path: &Path,
        look: Look,
        read: impl FnOnce() -> Result<(Content, Stored), Unusable>,
    ) -> Result<Content, Unusable> {
        let Some(cache) = &self.cache else { return read().map(|(content, _)| content) };
        // Before reading: what changes meanwhile is found out the next time.
        let stamp = Stamp::of(path);
        if look == Look::AsKept
            && let Some(content) = cache.unchanged(kind, path, stamp, Instant::now())
        {
            return Ok(content);
        }
        let (content, stored) = read()?;
        // As in nginx, what was worth a passphrase does not lie around.
        if stored == Stored::Plain {
            cache.keep(kind, path, content.clone(), stamp, Instant::now());
        }
        Ok(content)
    }
}

/// What servers and locations of a configuration share while it is built: caches and passphrases where they
/// inherit one line, and what was read of files.
#[derive(Default)]
pub struct Caches {
    /// What files hold.
    pub(in crate::tls) contents: Contents,
    caches: HashMap<Span, Arc<Cache>>,
    passphrases: HashMap<Span, Option<Arc<Passphrases>>>,
}

impl Caches {
    /// The passphrases of a file, if there is one; `None` when it cannot be read, which was reported.
    pub fn passphrases(
        &mut self,
        file: Option<&Located<PathBuf>>,
        report: &mut Report,
    ) -> Option<Arc<Passphrases>> {
        let Some(file) = file else { return Some(Arc::default()) };
        let read = || Passphrases::load(file, &self.contents, report).map(Arc::new);
        self.passphrases.entry(file.span).or_insert_with(read).clone()
    }

    fn of(&mut self, rules: &Located<CertificateCache>) -> Arc<Cache> {
        let made =
            self.caches.entry(rules.span).or_insert_with(|| Arc::new(Cache::new(rules.value)));
        Arc::clone(made)
    }
}

type Chain = Arc<[CertificateDer<'static>]>;

/// What a file holds.
#[derive(Clone, Debug)]
enum Content {
    Chain(Chain),
    Key(Arc<dyn SigningKey>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Chain,
    Key,
}

/// Whether what is kept counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    AsKept,
    Again,
}

/// By what a file is recognised as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tls) struct Stamp {
    pub(in crate::tls) modified: SystemTime,
    pub(in crate::tls) inode: u64,
    pub(in crate::tls) len: u64,
}

impl Stamp {
    pub(in crate::tls) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let modified = metadata.modified().ok()?;
        Some(Self { modified, inode: metadata.ino(), len: metadata.len() })
    }
}

/// Chains and keys that were read.
struct Cache {
    rules: CertificateCache,
    kept: Mutex<HashMap<(Kind, PathBuf), Kept>>,
}

struct Kept {
    content: Content,
    stamp: Option<Stamp>,
    /// When the file was last found to hold this.
    checked: Instant,
    used: Instant,
}

impl Cache {
    fn new(rules: CertificateCache) -> Self {
        Self { rules, kept: Mutex::default() }
    }

    /// What is kept of a file and need not be looked at yet.
    fn fresh(&self, kind: Kind, path: &Path, now: Instant) -> Option<Content> {
        self.used(kind, path, now, |kept| now.duration_since(kept.checked) <= self.rules.valid)
    }

    /// What is kept of a file if it is still the same.
    fn unchanged(
        &self,
        kind: Kind,
        path: &Path,
        stamp: Option<Stamp>,
        now: Instant,
    ) -> Option<Content> {
        self.used(kind, path, now, |kept| {
            let fresh = now.duration_since(kept.checked) <= self.rules.valid;
            let same = stamp.is_some() && stamp == kept.stamp;
            if same && !fresh {
                kept.checked = now;
            }
            same || fresh
        })
    }

    fn used(
        &self,
        kind: Kind,
        path: &Path,
        now: Instant,
        is_good: impl FnOnce(&mut Kept) -> bool,
    ) -> Option<Content> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get_mut(&(kind, path.to_owned()))?;
        if now.duration_since(found.used) > self.rules.inactive || !is_good(found) {
            return None;
        }
        found.used = now;
        Some(found.content.clone())
    }

    /// Keeps what was read, in place of what has not been used for the longest time.
    fn keep(&self, kind: Kind, path: &Path, content: Content, stamp: Option<Stamp>, now: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, path.to_owned());
        kept.remove(&key);
        kept.retain(|_, kept| now.duration_since(kept.used) <= self.rules.inactive);
        if kept.len() >= self.rules.max
            && let Some(oldest) = kept.iter().min_by_key(|(_, kept)| kept.used)
        {
            let oldest = oldest.0.clone();
            kept.remove(&oldest);
        }
        kept.insert(key, Kept { content, stamp, checked: now, used: now });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn chain(byte: u8) -> Content {
        Content::Chain(vec![CertificateDer::from(vec![byte])].into())
    }

    fn first(content: Option<Content>) -> Option<u8> {
        match content? {
            Content::Chain(chain) => Some(chain[0].as_ref()[0]),
            Content::Key(_) => None,
        }
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_makes_room() {
        let second = Duration::from_secs(1);
        let rules = CertificateCache { max: 2, valid: 2 * second, inactive: 10 * second };
        let (cache, start) = (Cache::new(rules), Instant::now());
        let stamp = |secs| {
            Some(Stamp { modified: SystemTime::UNIX_EPOCH + secs * second, inode: 1, len: 1 })
        };
        let [a, b, c] = ["a", "b", "c"].map(Path::new);
        cache.keep(Kind::Chain, a, chain(1), stamp(1), start);
        cache.keep(Kind::Chain, b, chain(2), stamp(1), start + second);
        assert_eq!(first(cache.fresh(Kind::Chain, a, start + 2 * second)), Some(1));
        assert_eq!(first(cache.fresh(Kind::Key, a, start + 2 * second)), None);
        cache.keep(Kind::Chain, c, chain(3), stamp(1), start + 2 * second);
        assert_eq!(first(cache.fresh(Kind::Chain, b, start + 2 * second)), None, "made room");
        // Looked at again when it is no longer valid.
        let later = start + 3 * second;
        assert_eq!(first(cache.fresh(Kind::Chain, a, later)), None);
        assert_eq!(first(cache.unchanged(Kind::Chain, a, stamp(2), later)), None);
        assert_eq!(first(cache.unchanged(Kind::Chain, a, None, later)), None);
        assert_eq!(first(cache.unchanged(Kind::Chain, a, stamp(1), later)), Some(1));
        assert_eq!(first(cache.fresh(Kind::Chain, a, later + 2 * second)), Some(1));
        // And gone when nobody has used it.
        assert_eq!(first(cache.unchanged(Kind::Chain, a, stamp(1), later + 13 * second)), None);
    }
}
