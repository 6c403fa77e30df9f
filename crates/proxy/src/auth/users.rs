//! Files of users and their passwords, read anew when they change.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::files::{FileError, KeptFiles, Opened};
use super::hash::Stored;

/// Longer files are searched each time and not kept.
const MAX_KEPT_LEN: u64 = 4 << 20;

/// A line of a file of users is not longer; the rest of a longer one is no hash.
const MAX_LINE: u64 = 64 << 10;

/// The files that were read.
#[derive(Debug, Default)]
pub(super) struct UserFiles(KeptFiles<Users>);

type Users = HashMap<Box<[u8]>, Stored>;

impl UserFiles {
    /// What the file at `path` says of `user`. Blocks.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub(super) fn find(&self, path: &Path, user: &[u8]) -> Result<Option<Stored>, FileError> {
        let opened = Opened::at(path)?;
        if let Some(users) = self.0.kept(path, &opened) {
            return Ok(users.get(user).cloned());
        }
        if !opened.may_be_kept(MAX_KEPT_LEN) {
            return search(opened.file, user).map_err(FileError::Read);
        }
        let users = Arc::new(read(&opened.file).map_err(FileError::Read)?);
        let found = users.get(user).cloned();
        self.0.keep(path, &opened, users);
        Ok(found)
    }
}

/// All users; the first line of a name counts.
fn read(file: &File) -> io::Result<Users> {
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
    file: impl Read,
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

/// Name and password of a line `name:password` with an optional `:comment`; none of a comment, and
/// none where the name is empty: that is nobody.
fn entry(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.split(|&b| b == b'\n' || b == b'\r').next()?;
    if line.first() == Some(&b'#') {
        return None;
    }
    let (name, rest) = line.split_at(line.iter().position(|&b| b == b':').filter(|&end| end > 0)?);
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
            (":secret\n", None),
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
    fn a_file_that_cannot_be_read_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let files = UserFiles::default();
        assert!(matches!(files.find(&directory.path().join("x"), b"ada"), Err(FileError::Open(_))));
        assert!(matches!(files.find(directory.path(), b"ada"), Err(FileError::Read(_))));
    }
}
