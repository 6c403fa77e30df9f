//! Where relative paths begin.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The two directories that paths of a configuration are relative to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// For everything but what the configuration itself consists of: `-p`.
    pub prefix: PathBuf,
    /// For includes, certificates and keys: where the configuration file lies.
    pub conf_dir: PathBuf,
}

impl Paths {
    /// A path below the prefix, unless it is absolute.
    pub fn below_prefix(&self, path: &[u8]) -> PathBuf {
        join(&self.prefix, path)
    }

    /// A path below the configuration's directory, unless it is absolute.
    pub fn below_conf(&self, path: &[u8]) -> PathBuf {
        join(&self.conf_dir, path)
    }
}

/// The bytes of a configuration as the file system takes them.
pub(crate) fn os_string(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// Joins as nginx does: the prefix is put before the text, nothing is normalised.
fn join(directory: &Path, path: &[u8]) -> PathBuf {
    directory.join(os_string(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_stays() {
        let paths = Paths { prefix: "/p".into(), conf_dir: "/c".into() };
        assert_eq!(paths.below_prefix(b"x"), Path::new("/p/x"));
        assert_eq!(paths.below_conf(b"x"), Path::new("/c/x"));
        assert_eq!(paths.below_conf(b"/x"), Path::new("/x"));
    }
}
