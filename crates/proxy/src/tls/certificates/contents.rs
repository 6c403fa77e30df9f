//! What files of certificates and keys hold, each read once while a configuration is built: many servers may
//! have the same, and a pipe gives what it holds only once. It is forgotten when all is built.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use zeroize::Zeroizing;

use super::{Stamp, pem, plain};

/// Files larger than this are not certificates or keys.
const MAX_FILE: u64 = 1 << 20;

/// What was read by now; as many files as a configuration names.
#[derive(Default)]
pub struct Contents(RefCell<HashMap<PathBuf, Known>>);

/// A file without the mark that editors put before UTF-8, or the system's words for why it cannot be read.
type Content = Result<Rc<Zeroizing<Vec<u8>>>, String>;

#[derive(Clone)]
struct Known {
    /// Of before it was read: what changes meanwhile is found out the next time.
    stamp: Option<Stamp>,
    content: Content,
}

impl Contents {
    /// What the file holds.
    pub(in crate::tls) fn of(&self, path: &Path) -> Content {
        self.known(path).content
    }

    /// By what it is recognised that the file still holds that.
    pub(in crate::tls) fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.known(path).stamp
    }

    fn known(&self, path: &Path) -> Known {
        match self.0.borrow_mut().entry(path.to_owned()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(place) => {
                let stamp = Stamp::of(path);
                let content = read(path).map(|text| Rc::new(Zeroizing::new(text)));
                place.insert(Known { stamp, content }).clone()
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let size = fs::metadata(path).map_err(|error| plain(&error))?.len();
    if size > MAX_FILE {
        return Err(format!("{size} bytes is too large for such a file"));
    }
    let mut text = fs::read(path).map_err(|error| plain(&error))?;
    let mark = text.len() - pem::without_mark(&text).len();
    text.drain(..mark);
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let contents = Contents::default();
        assert_eq!(contents.of(&path).err().as_deref(), Some("(2: No such file or directory)"));
        fs::write(&path, "\u{feff}first").unwrap();
        assert!(contents.of(&path).is_err());
        let contents = Contents::default();
        let stamp = contents.stamp(&path);
        assert!(stamp.is_some());
        fs::write(&path, "another").unwrap();
        assert_eq!(**contents.of(&path).unwrap(), b"first");
        assert_eq!(contents.stamp(&path), stamp);
        fs::write(&path, vec![0; 2 << 20]).unwrap();
        let words = Contents::default().of(&path).err().unwrap();
        assert_eq!(words, "2097152 bytes is too large for such a file");
    }
}
