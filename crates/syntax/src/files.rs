//! Where files come from: the disk, or a table in memory for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::source::MAX_FILE_LEN;

/// What reading a configuration asks of a file system.
pub trait Files {
    /// The bytes of a file, at most [`MAX_FILE_LEN`] of them.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The names in a directory, in any order, without `.` and `..`.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;
    /// Whether something of this name exists, even a dangling link.
    fn exists(&self, path: &Path) -> bool;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // The byte too many tells a file that is too long from one that just fits. Asking for the
        // size first would not do: a pipe or device has none.
        File::open(path)?.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_FILE_LEN {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }
}

/// Files by path, held in memory. Directories exist where a file lies below them.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeMap<PathBuf, Vec<u8>>);

impl<P: Into<PathBuf>, B: Into<Vec<u8>>> FromIterator<(P, B)> for Memory {
    fn from_iter<I: IntoIterator<Item = (P, B)>>(files: I) -> Self {
        Self(files.into_iter().map(|(path, bytes)| (path.into(), bytes.into())).collect())
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // 2 is ENOENT, so that messages read as they do for the disk.
        self.0.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let below = self.0.keys().filter_map(|path| path.strip_prefix(directory).ok());
        let names = below.filter_map(|rest| rest.iter().next());
        Ok(names.map(OsString::from).collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.keys().any(|file| file.starts_with(path))
    }
}

/// Whether `pattern` holds one of the characters that make nginx treat an `include` as a mask.
pub(crate) fn is_mask(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| b"*?[".contains(byte))
}

/// The paths that match `pattern`, in byte order, as glob(3) finds them in the C locale: `*`, `?`, `[…]` and `\` within
/// one path component, and a leading dot only matches a dot. A directory that cannot be read matches nothing.
pub(crate) fn glob(files: &dyn Files, pattern: &[u8]) -> Vec<PathBuf> {
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    let components: Vec<&[u8]> = pattern.split(|&byte| byte == b'/').collect();
    for (at, component) in components.iter().enumerate() {
        if at > 0 {
            found.iter_mut().for_each(|path| path.push(b'/'));
        }
        if !is_mask(component) {
            // glob(3) takes backslashes away in components without a mask as well.
            found.iter_mut().for_each(|path| path.extend_from_slice(&unescaped(component)));
            continue;
        }
        found = found.iter().flat_map(|parent| matches_in(files, parent, component)).collect();
    }
    found.sort();
    let paths = found.into_iter().map(|path| PathBuf::from(OsString::from_vec(path)));
    // Plain components behind a mask were only appended so far.
    paths.filter(|path| files.exists(path)).collect()
}

/// Every entry of the directory `parent` (empty: the current one) that matches `component`, as a whole path.
fn matches_in(files: &dyn Files, parent: &[u8], component: &[u8]) -> Vec<Vec<u8>> {
    let directory = if parent.is_empty() { b".".as_slice() } else { parent };
    let names = files.list(Path::new(std::ffi::OsStr::from_bytes(directory))).unwrap_or_default();
    let matching = names.into_iter().filter(|name| {
        let name = name.as_bytes();
        (name.first() != Some(&b'.') || component.first() == Some(&b'.'))
            && mask_matches(component, name)
    });
    matching.map(|name| [parent, name.as_bytes()].concat()).collect()
}

fn unescaped(component: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(component.len());
    let mut bytes = component.iter();
    while let Some(&byte) = bytes.next() {
        out.push(if byte == b'\\' { bytes.next().copied().unwrap_or(byte) } else { byte });
    }
    out
}

/// Matches one name against one mask. A failed match goes back to the last `*` only, so the time is at most the product
/// of the lengths.
fn mask_matches(mask: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if mask.get(at) == Some(&b'*') {
            retry = Some((at + 1, seen));
            at += 1;
            continue;
        }
        let Some(&byte) = name.get(seen) else {
            return at == mask.len();
        };
        if let Some(width) = match_one(&mask[at..], byte) {
            (at, seen) = (at + width, seen + 1);
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (at, seen) = (star, from + 1);
        } else {
            return false;
        }
    }
}

/// How many bytes of `mask` match the single byte `byte`, if they do.
fn match_one(mask: &[u8], byte: u8) -> Option<usize> {
    match *mask.first()? {
        b'?' => Some(1),
        b'\\' if mask.len() > 1 => (mask[1] == byte).then_some(2),
        b'[' => match class(mask) {
            Some((set, negated)) => {
                (set_holds(set, byte) != negated).then_some(set.len() + 2 + usize::from(negated))
            }
            // A bracket that nothing closes is a plain character, as for fnmatch(3).
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// The inside of the `[…]` that `mask` begins with, and whether it is negated. A `]` that comes first is a member.
fn class(mask: &[u8]) -> Option<(&[u8], bool)> {
    let negated = matches!(mask.get(1), Some(b'!' | b'^'));
    let inside = mask.get(1 + usize::from(negated)..)?;
    let len = inside.iter().skip(1).position(|&byte| byte == b']')? + 1;
    Some((&inside[..len], negated))
}

fn set_holds(set: &[u8], byte: u8) -> bool {
    let mut rest = set;
    while let Some((&low, tail)) = rest.split_first() {
        if let [b'-', high, tail @ ..] = tail {
            if (low..=*high).contains(&byte) {
                return true;
            }
            rest = tail;
        } else {
            if low == byte {
                return true;
            }
            rest = tail;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_match_like_the_shell() {
        let cases: &[(&str, &str, bool)] = &[
            ("*", "a.conf", true),
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXbYb", false),
            ("?", "a", true),
            ("?", "", false),
            ("?", "ab", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[^a-c]x", "ax", false),
            ("[]]", "]", true),
            ("[a-]", "-", true),
            ("[ab", "[ab", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("**", "", true),
        ];
        for &(mask, name, expected) in cases {
            assert_eq!(mask_matches(mask.as_bytes(), name.as_bytes()), expected, "{mask} {name}");
        }
    }

    fn found(pattern: &str) -> Vec<String> {
        let names = [
            "/etc/b.conf",
            "/etc/a.conf",
            "/etc/.hidden.conf",
            "/etc/sites/x/s.conf",
            "/etc/sites/y/s.conf",
        ];
        let files: Memory = names.into_iter().map(|name| (name, "")).collect();
        glob(&files, pattern.as_bytes()).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_glob_is_sorted_skips_hidden_files_and_may_cross_directories() {
        assert_eq!(found("/etc/*.conf"), ["/etc/a.conf", "/etc/b.conf"]);
        assert_eq!(found("/etc/.*.conf"), ["/etc/.hidden.conf"]);
        assert_eq!(found("/etc/sites/*/s.conf"), ["/etc/sites/x/s.conf", "/etc/sites/y/s.conf"]);
        assert_eq!(found("/etc/*/none"), [""; 0]);
        assert_eq!(found("/none/*"), [""; 0]);
    }

    #[test]
    fn the_disk_lists_reads_and_reports() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("1.conf"), "one").expect("a written file");
        let pattern = format!("{}/[0-9].conf", dir.path().display());
        let paths = glob(&Disk, pattern.as_bytes());
        assert_eq!(paths, [dir.path().join("1.conf")]);
        assert_eq!(Disk.read(&paths[0]).expect("a readable file"), b"one");
        assert_eq!(
            Disk.read(&dir.path().join("2")).expect_err("no file").kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(Disk.read(dir.path()).expect_err("no file").kind(), io::ErrorKind::IsADirectory);
    }
}
