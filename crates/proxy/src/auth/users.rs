//! Files of users and their passwords, read anew when they change.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::hash::Stored;

/// Longer files are searched each time and not kept.
const MAX_KEPT_LEN: u64 = 4 << 20;

/// How many files are kept; variables can make many names.
const MAX_FILES: usize = 64;

/// A line of a file of users is not longer; the rest of a longer one is no hash.
const MAX_LINE: u64 = 64 << 10;

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

/// The files that were read, by path.
#[derive(Debug, Default)]
pub(super) struct UserFiles(Mutex<HashMap<PathBuf, Kept>>);

/// A file as it was when it was read.
#[derive(Debug)]
struct Kept {
    stamp: Stamp,
    users: Arc<Users>,
}

type Users = HashMap<Box<[u8]>, Stored>;

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

    /// Whether a further change would show.
    fn is_settled(&self) -> bool {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        since.saturating_sub(changed) > SETTLED
    }
}

impl UserFiles {
    /// What the file at `path` says of `user`. Blocks.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub(super) fn find(&self, path: &Path, user: &[u8]) -> Result<Option<Stored>, FileError> {
        // Opened each time, as nginx does: whether we may is part of the answer.
        let file = File::open(path).map_err(FileError::Open)?;
        let data = file.metadata().map_err(FileError::Read)?;
        let stamp = Stamp::of(&data);
        if let Some(users) = self.kept(path, &stamp) {
            return Ok(users.get(user).cloned());
        }
        if !data.is_file() || data.len() > MAX_KEPT_LEN || !stamp.is_settled() {
            return search(file, user).map_err(FileError::Read);
        }
        let users = Arc::new(read(file).map_err(FileError::Read)?);
        let found = users.get(user).cloned();
        self.keep(path, Kept { stamp, users });
        Ok(found)
    }

    fn kept(&self, path: &Path, stamp: &Stamp) -> Option<Arc<Users>> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(path).filter(|kept| kept.stamp == *stamp).map(|kept| Arc::clone(&kept.users))
    }

    fn keep(&self, path: &Path, kept: Kept) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= MAX_FILES && !files.contains_key(path) {
            // Which one is gone does not matter: it is read again when it is asked for.
            files.clear();
        }
        files.insert(path.to_owned(), kept);
    }
}

/// All users; the first line of a name counts.
fn read(file: File) -> io::Result<Users> {
    let mut users = Users::new();
    each_line(file, |name, stored| {
        users.entry(name.into()).or_insert_with(|| Stored::new(stored));
        None::<()>
    })?;
    Ok(users)
}

/// One user.
fn search(file: File, user: &[u8]) -> io::Result<Option<Stored>> {
    each_line(file, |name, stored| (name == user).then(|| Stored::new(stored)))
}

/// Gives name and password of each line to `look`, until it finds something.
fn each_line<T>(
    file: File,
    mut look: impl FnMut(&[u8], &[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if let Some((name, stored)) = entry(&line)
            && let Some(found) = look(name, stored)
        {
            return Ok(Some(found));
        }
    }
}

/// Name and password of a line `name:password` with an optional `:comment`; none of a comment.
fn entry(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.split(|&b| b == b'\n' || b == b'\r').next()?;
    if line.first() == Some(&b'#') {
        return None;
    }
    let (name, rest) = line.split_at(line.iter().position(|&b| b == b':')?);
    let password = rest[1..].split(|&b| b == b':').next()?;
    Some((name, password))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_are_read_as_nginx_does() {
        for (line, expected) in [
            ("user:secret", Some(("user", "secret"))),
            ("user:secret\n", Some(("user", "secret"))),
            ("user:secret\r\n", Some(("user", "secret"))),
            ("user:secret:a comment: long\n", Some(("user", "secret"))),
            ("#user:secret\n", None),
            (" user:secret\n", Some((" user", "secret"))),
            ("user\n", None),
            ("user:\n", Some(("user", ""))),
            (":secret\n", Some(("", "secret"))),
            ("\n", None),
        ] {
            let found = entry(line.as_bytes());
            assert_eq!(found, expected.map(|(a, b)| (a.as_bytes(), b.as_bytes())), "{line:?}");
        }
    }

    #[test]
    fn a_change_is_seen_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let files = UserFiles::default();
        let find = |user: &[u8]| files.find(&path, user).unwrap();
        // Of the same length, within the same tick of the clock.
        for password in ["one", "two", "six", "ten"] {
            fs::write(&path, format!("ada:{password}\nada:later\n")).unwrap();
            assert_eq!(find(b"ada"), Some(Stored::new(password.as_bytes())));
            assert_eq!(find(b"ad"), None);
        }
    }

    #[test]
    fn a_settled_file_is_kept_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let files = UserFiles::default();
        fs::write(&path, "ada:one\nada:two\neve:x\n").unwrap();
        let data = fs::metadata(&path).unwrap();
        let users = read(File::open(&path).unwrap()).unwrap();
        assert_eq!(users.len(), 2);
        // As if it had been read long after it was written, with another password.
        let users = HashMap::from([(b"ada".as_slice().into(), Stored::new(b"kept"))]);
        files.keep(&path, Kept { stamp: Stamp::of(&data), users: Arc::new(users) });
        assert_eq!(files.find(&path, b"ada").unwrap(), Some(Stored::new(b"kept")));
        fs::write(&path, "ada:three\n").unwrap();
        assert_eq!(files.find(&path, b"ada").unwrap(), Some(Stored::new(b"three")));
        fs::remove_file(&path).unwrap();
        assert!(matches!(files.find(&path, b"ada"), Err(FileError::Open(_))));
        assert!(matches!(files.find(directory.path(), b"ada"), Err(FileError::Read(_))));
    }

    #[test]
    fn no_more_than_so_many_files_are_kept() {
        let files = UserFiles::default();
        let data = fs::metadata("/").unwrap();
        for number in 0..3 * MAX_FILES {
            let kept = Kept { stamp: Stamp::of(&data), users: Arc::default() };
            files.keep(Path::new(&number.to_string()), kept);
            assert!(files.0.lock().unwrap().len() <= MAX_FILES);
        }
    }
}
