//! Files that are asked with each request, and kept in memory until they change.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::{clock, errno_text};

/// How many files are kept; variables can make many names.
const MAX_FILES: usize = 64;

/// A file that was changed this recently may change again without showing it by its times.
const SETTLED: Duration = Duration::from_secs(2);

/// Why a file could not be used.
#[derive(Debug)]
pub(crate) enum FileError {
    /// It could not be opened.
    Open(io::Error),
    /// It could not be read.
    Read(io::Error),
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (call, error) = match self {
            Self::Open(error) => ("open", error),
            Self::Read(error) => ("read", error),
        };
        write!(formatter, "{call}() failed ({})", errno_text(error))
    }
}

/// A file that is open. nginx opens it for each request; so do we, for whether we may is part of the
/// answer.
pub(super) struct Opened {
    pub(super) file: File,
    is_file: bool,
    stamp: Stamp,
}

impl Opened {
    /// Opens a file. Blocks.
    ///
    /// # Errors
    /// When that is not possible.
    pub(super) fn at(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::Open)?;
        let data = file.metadata().map_err(FileError::Read)?;
        Ok(Self { file, is_file: data.is_file(), stamp: Stamp::of(&data) })
    }

    /// Whether a file of up to `max` bytes may be kept: any further change of it would show.
    pub(super) fn may_be_kept(&self, max: u64) -> bool {
        self.is_file && self.stamp.len <= max && self.stamp.is_settled()
    }
}

/// By what a change of a file is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            len: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let since = clock::since_epoch(clock::now());
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        since.saturating_sub(changed) > SETTLED
    }
}

/// What was made of files, by path.
#[derive(Debug)]
pub(super) struct KeptFiles<T>(Mutex<HashMap<PathBuf, (Stamp, Arc<T>)>>);

impl<T> Default for KeptFiles<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> KeptFiles<T> {
    /// What is kept of a file, if it is still the same.
    pub(super) fn kept(&self, path: &Path, opened: &Opened) -> Option<Arc<T>> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stamp, kept) = files.get(path)?;
        (*stamp == opened.stamp).then(|| Arc::clone(kept))
    }

    /// Keeps what was made of a file.
    pub(super) fn keep(&self, path: &Path, opened: &Opened, made: Arc<T>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= MAX_FILES && !files.contains_key(path) {
            // Which one is gone does not matter: it is read again when it is asked for.
            files.clear();
        }
        files.insert(path.to_owned(), (opened.stamp, made));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_kept_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let files = KeptFiles::default();
        fs::write(&path, "one").unwrap();
        let opened = Opened::at(&path).unwrap();
        assert!(!opened.may_be_kept(100), "it may change unseen");
        assert!(files.kept(&path, &opened).is_none());
        files.keep(&path, &opened, Arc::new(1));
        assert_eq!(files.kept(&path, &Opened::at(&path).unwrap()).as_deref(), Some(&1));
        fs::write(&path, "other").unwrap();
        assert!(files.kept(&path, &Opened::at(&path).unwrap()).is_none());
    }

    #[test]
    fn no_more_than_so_many_files_are_kept() {
        let files = KeptFiles::default();
        let opened = Opened::at(Path::new("/")).unwrap();
        assert!(!opened.may_be_kept(u64::MAX), "it is no file");
        for number in 0..3 * MAX_FILES {
            files.keep(Path::new(&number.to_string()), &opened, Arc::new(()));
            assert!(files.0.lock().unwrap().len() <= MAX_FILES);
        }
    }
}
