//! What is in a directory, in bounded memory. All of this blocks.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand;
use wssgate_sys::errno;

use crate::errno_text;
use crate::exchange::path::as_path;

/// The most that names and facts of one listing may need, in bytes: about a million files. Vectors
/// that grow hold up to twice that.
pub(super) const ONE_MAX: usize = 64 << 20;

/// The most that all listings together may need, in bytes. A client that reads slowly holds its
/// listing until the last piece was made.
pub(super) const ALL_MAX: usize = 256 << 20;

/// How many entries that may not be looked at are told to the log.
const SKIPPED_MAX: usize = 100;

/// Why a directory was not read.
#[derive(Debug)]
pub(super) enum Failed {
    /// It cannot be opened.
    Open(io::Error),
    /// It cannot be read on.
    Read(io::Error),
    /// An entry says nothing of itself.
    Stat { call: &'static str, path: Vec<u8>, error: io::Error },
    /// Its listing alone needs more than [`ONE_MAX`].
    TooLarge,
    /// The listings of others leave less of [`ALL_MAX`] than it needs.
    Crowded,
}

impl Failed {
    fn stat(call: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Stat { call, path: path.as_os_str().as_bytes().to_vec(), error }
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    /// A socket, a pipe, a device, a link that leads nowhere.
    Other,
}

/// One entry; its name is among those of all.
struct Facts {
    name_at: u32,
    name_len: u8,
    kind: Kind,
    modified: i64,
    size: u64,
}

/// An entry for those who show it.
pub(super) struct Entry<'l> {
    pub(super) name: &'l [u8],
    pub(super) kind: Kind,
    /// Seconds since 1970.
    pub(super) modified: i64,
    /// Bytes.
    pub(super) size: u64,
}

/// The entries of a directory, in order, without the hidden ones.
#[derive(Default)]
pub(super) struct Entries {
    names: Vec<u8>,
    facts: Vec<Facts>,
    held: Held,
    /// Which are left out since they cannot be looked at, as lines for the log.
    skipped: Vec<String>,
    more_skipped: usize,
}

impl Entries {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.facts.len()
    }

    /// The entry at this place.
    pub(super) fn at(&self, index: usize) -> Entry<'_> {
        let facts = &self.facts[index];
        let Facts { kind, modified, size, .. } = *facts;
        Entry { name: name_of(&self.names, facts), kind, modified, size }
    }

    /// What the log is to know.
    pub(super) fn skipped(&self) -> impl Iterator<Item = String> {
        let more = self.more_skipped;
        let more = (more > 0).then(|| format!("stat() of {more} more entries failed"));
        self.skipped.iter().cloned().chain(more)
    }

    /// Adds an entry.
    pub(super) fn push(
        &mut self,
        name: &[u8],
        kind: Kind,
        modified: i64,
        size: u64,
    ) -> Result<(), Failed> {
        self.held.grow(name.len() + size_of::<Facts>())?;
        // Names have 255 bytes at most, all of them together `ONE_MAX`.
        let name_len = u8::try_from(name.len()).map_err(|_| Failed::TooLarge)?;
        let name_at = u32::try_from(self.names.len()).map_err(|_| Failed::TooLarge)?;
        self.names.extend_from_slice(name);
        self.facts.push(Facts { name_at, name_len, kind, modified, size });
        Ok(())
    }

    fn skip(&mut self, path: &Path, error: &io::Error) {
        if self.skipped.len() == SKIPPED_MAX {
            self.more_skipped += 1;
            return;
        }
        let path = path.as_os_str().as_bytes().escape_ascii();
        self.skipped.push(format!("stat() \"{path}\" failed ({})", errno_text(error)));
    }

    /// Directories first, each group by the bytes of the names.
    pub(super) fn sort(&mut self) {
        let Self { names, facts, .. } = self;
        let key = |facts: &Facts| (facts.kind != Kind::Directory, name_of(names, facts));
        facts.sort_unstable_by(|one, other| key(one).cmp(&key(other)));
    }
}

fn name_of<'l>(names: &'l [u8], facts: &Facts) -> &'l [u8] {
    &names[facts.name_at as usize..][..usize::from(facts.name_len)]
}

/// Memory that a listing has of what all may have.
#[derive(Default)]
struct Held(usize);

/// What all listings hold, in bytes.
static ALL: AtomicUsize = AtomicUsize::new(0);

impl Held {
    fn grow(&mut self, more: usize) -> Result<(), Failed> {
        if self.0 + more > ONE_MAX {
            return Err(Failed::TooLarge);
        }
        let before = ALL.fetch_add(more, Ordering::Relaxed);
        self.0 += more;
        if before + more > ALL_MAX { Err(Failed::Crowded) } else { Ok(()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ALL.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Reads a directory, or only sees whether it could be.
pub(super) fn read(path: &[u8], only_open: bool) -> Result<Entries, Failed> {
    let directory = fs::read_dir(as_path(path)).map_err(Failed::Open)?;
    let mut entries = Entries::default();
    if only_open {
        return Ok(entries);
    }
    for entry in directory {
        let entry = entry.map_err(Failed::Read)?;
        let name = entry.file_name();
        if is_hidden(&name) {
            continue;
        }
        match look(&entry) {
            Ok(found) => {
                let kind = match found.file_type() {
                    kind if kind.is_dir() => Kind::Directory,
                    kind if kind.is_file() => Kind::File,
                    _ => Kind::Other,
                };
                entries.push(name.as_bytes(), kind, found.mtime(), found.size())?;
            }
            Err(Failed::Stat { error, .. }) if error.kind() == ErrorKind::PermissionDenied => {
                entries.skip(&entry.path(), &error);
            }
            Err(failed) => return Err(failed),
        }
    }
    entries.sort();
    Ok(entries)
}

/// What an entry is; a link that leads nowhere stands for itself.
fn look(entry: &DirEntry) -> Result<Metadata, Failed> {
    match fs::metadata(entry.path()) {
        Err(error)
            if error.kind() == ErrorKind::NotFound
                || error.raw_os_error() == Some(errno::ELOOP) =>
        {
            entry.metadata().map_err(|error| Failed::stat("lstat()", &entry.path(), error))
        }
        found => found.map_err(|error| Failed::stat("stat()", &entry.path(), error)),
    }
}

/// The name of a random file, each as likely as the others; `None` when there is none.
pub(super) fn random_file(path: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
    let mut chosen = None;
    let mut seen = 0_u64;
    for entry in fs::read_dir(as_path(path)).map_err(Failed::Open)? {
        let entry = entry.map_err(Failed::Read)?;
        let name = entry.file_name();
        if is_hidden(&name) || !is_file(&entry)? {
            continue;
        }
        seen += 1;
        // The n-th takes the place of the one before with a chance of 1/n, so that names need not be
        // kept.
        if random().is_multiple_of(seen) {
            chosen = Some(name.as_bytes().to_vec());
        }
    }
    Ok(chosen)
}

fn is_file(entry: &DirEntry) -> Result<bool, Failed> {
    let kind = entry.file_type().map_err(|error| Failed::stat("lstat()", &entry.path(), error))?;
    if !kind.is_symlink() {
        return Ok(kind.is_file());
    }
    match fs::metadata(entry.path()) {
        Ok(found) => Ok(found.is_file()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failed::stat("stat()", &entry.path(), error)),
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.')
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without random bytes the last file is served.
    let _ = rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_first_and_names_are_compared_by_bytes() {
        let mut entries = Entries::default();
        for (name, kind) in [
            ("b", Kind::File),
            ("Z", Kind::Other),
            ("é", Kind::File),
            ("b", Kind::Directory),
            ("a b", Kind::File),
            ("a", Kind::File),
            ("c", Kind::Directory),
        ] {
            entries.push(name.as_bytes(), kind, 0, 0).expect("there is room");
        }
        entries.sort();
        let names: Vec<_> = (0..entries.len()).map(|at| entries.at(at).name).collect();
        let expected = ["b", "c", "Z", "a", "a b", "b", "é"].map(str::as_bytes);
        assert_eq!(names, expected);
    }

    /// One test, since all count into one number.
    #[test]
    fn listings_hold_no_more_than_they_may() {
        let fill = || {
            let mut held = Held::default();
            let mut grown = 0;
            loop {
                match held.grow(1 << 20) {
                    Ok(()) => grown += 1,
                    Err(failed) => return (held, grown, failed),
                }
            }
        };
        let (one, grown, failed) = fill();
        assert!(matches!((grown, failed), (64, Failed::TooLarge)));
        let others = [fill().0, fill().0];
        // The other test may hold some bytes.
        let (last, grown, failed) = fill();
        assert!(matches!((grown, failed), (63, Failed::Crowded) | (64, Failed::TooLarge)));
        let (_, grown, failed) = fill();
        assert!(matches!((grown, failed), (0, Failed::Crowded)));
        drop((one, others));
        assert_eq!(fill().1, 64);
        drop(last);
    }
}
