//! Sets of keys: files of them, and those that are kept for a time.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use super::files::{FileError, KeptFiles, Opened};
use super::jwt::{KeySet, KeySetError};

/// The longest set of keys, in bytes.
pub(crate) const MAX_LEN: usize = 256 << 10;

/// How many sets are kept for a time; more than any configuration names.
const MAX_SETS: usize = 1024;

/// How long one request may take to fetch a set that others go on to use meanwhile.
const FETCH: Duration = Duration::from_secs(30);

/// How often a set is fetched for keys that it does not have.
const REFETCH: Duration = Duration::from_secs(10);

/// Where a set comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// A path that is asked for, in a server.
    Request {
        /// Which server.
        server: usize,
        /// Path and arguments.
        uri: Bytes,
    },
}

/// The sets of one generation.
#[derive(Debug, Default)]
pub struct KeySets {
    files: KeptFiles<KeySet>,
    kept: Mutex<HashMap<Source, Kept>>,
}

#[derive(Debug)]
struct Kept {
    keys: Arc<KeySet>,
    /// When they were fetched last.
    fetched: Instant,
    /// For how long they are fresh.
    time: Duration,
    /// Until then somebody else fetches them.
    busy: Option<Instant>,
    /// When they were fetched for a key that they did not have.
    refetched: Option<Instant>,
}

/// What is kept of a source.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nothing that could be used.
    Nothing,
    /// These; they are to be used.
    Fresh(Arc<KeySet>),
    /// The caller is to fetch them; if that fails, these are still good.
    Stale(Arc<KeySet>),
}

/// Why a file has no keys.
#[derive(Debug, Error)]
pub(crate) enum KeyFileError {
    /// The file.
    #[error("{0}")]
    File(FileError),
    /// What stands in it.
    #[error("{0}")]
    Set(KeySetError),
}

impl KeySets {
    /// The keys in a file. Blocks. The answer also says whether they were read anew.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) fn of_file(&self, path: &Path) -> Result<(Arc<KeySet>, bool), KeyFileError> {
        let opened = Opened::at(path).map_err(KeyFileError::File)?;
        if let Some(keys) = self.files.kept(path, &opened) {
            return Ok((keys, false));
        }
        let mut text = Vec::new();
        let read = (&opened.file).take(MAX_LEN as u64 + 1).read_to_end(&mut text);
        let too_long = || io::Error::other("it is longer than 256k");
        let read = read.and_then(|len| if len > MAX_LEN { Err(too_long()) } else { Ok(()) });
        read.map_err(|error| KeyFileError::File(FileError::Read(error)))?;
        let keys = Arc::new(KeySet::parse(&text).map_err(KeyFileError::Set)?);
        if opened.may_be_kept(MAX_LEN as u64) {
            self.files.keep(path, &opened, Arc::clone(&keys));
        }
        Ok((keys, true))
    }

    /// What is kept of `source`. Of all who find it stale only one is told so.
    pub(crate) fn look(&self, source: &Source, now: Instant) -> Look {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = kept.get_mut(source) else { return Look::Nothing };
        let age = now.saturating_duration_since(set.fetched);
        if age > set.time.saturating_mul(2) {
            return Look::Nothing;
        }
        if age <= set.time || set.busy.is_some_and(|until| now < until) {
            return Look::Fresh(Arc::clone(&set.keys));
        }
        set.busy = Some(now + FETCH);
        Look::Stale(Arc::clone(&set.keys))
    }

    /// Whether the set may be fetched before its time, for a key that it does not have: once in a
    /// while, so that made-up key IDs cause no flood.
    pub(crate) fn may_refetch(&self, source: &Source, now: Instant) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = kept.get_mut(source) else { return false };
        if set.refetched.is_some_and(|at| now.saturating_duration_since(at) < REFETCH) {
            return false;
        }
        set.refetched = Some(now);
        true
    }

    /// Keeps a set for a time.
    pub(crate) fn keep(&self, source: Source, keys: Arc<KeySet>, time: Duration, now: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_SETS && !kept.contains_key(&source) {
            kept.clear();
        }
        let refetched = kept.get(&source).and_then(|set| set.refetched);
        kept.insert(source, Kept { keys, fetched: now, time, busy: None, refetched });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys() -> Arc<KeySet> {
        Arc::new(KeySet::parse(br#"{"kty":"oct","k":"c2VjcmV0"}"#).unwrap())
    }

    #[test]
    fn one_fetches_while_the_others_use_what_is_there() {
        let sets = KeySets::default();
        let source = Source::Request { server: 0, uri: Bytes::from_static(b"/keys") };
        let (now, time) = (Instant::now(), Duration::from_secs(60));
        assert!(matches!(sets.look(&source, now), Look::Nothing));
        sets.keep(source.clone(), keys(), time, now);
        assert!(matches!(sets.look(&source, now + time), Look::Fresh(_)));
        let later = now + time + Duration::from_secs(1);
        assert!(matches!(sets.look(&source, later), Look::Stale(_)));
        assert!(matches!(sets.look(&source, later), Look::Fresh(_)), "somebody is at it");
        let later = later + FETCH;
        assert!(matches!(sets.look(&source, later), Look::Stale(_)), "he has not come back");
        assert!(matches!(sets.look(&source, now + time * 3), Look::Nothing), "not for ever");
        let other = Source::Request { server: 1, uri: Bytes::from_static(b"/keys") };
        assert!(matches!(sets.look(&other, now), Look::Nothing));
    }

    #[test]
    fn a_set_is_not_fetched_for_each_unknown_key() {
        let sets = KeySets::default();
        let source = Source::File("/keys".into());
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        assert!(!sets.may_refetch(&source, now), "nothing is kept");
        sets.keep(source.clone(), keys(), hour, now);
        assert!(sets.may_refetch(&source, now));
        sets.keep(source.clone(), keys(), hour, now);
        assert!(!sets.may_refetch(&source, now));
        assert!(sets.may_refetch(&source, now + REFETCH));
        assert!(!sets.may_refetch(&source, now + REFETCH), "one is enough");
    }

    #[test]
    fn a_file_that_is_too_long_or_no_set_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let sets = KeySets::default();
        assert!(matches!(sets.of_file(&path), Err(KeyFileError::File(FileError::Open(_)))));
        std::fs::write(&path, vec![b' '; MAX_LEN + 1]).unwrap();
        assert!(matches!(sets.of_file(&path), Err(KeyFileError::File(FileError::Read(_)))));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(sets.of_file(&path), Err(KeyFileError::Set(KeySetError::Shape))));
        std::fs::write(&path, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).unwrap();
        assert!(sets.of_file(&path).is_ok_and(|(_, new)| new));
    }
}
