//! Where a request's file is: `root` or `alias` and the path.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use wssgate_config::model::VariableFile;

use crate::exchange::request::Request;

/// `$document_root`.
pub(crate) fn root(request: &Request) -> Bytes {
    request.text(&request.location().settings.root.path)
}

/// `$realpath_root`.
pub(crate) fn real_root(request: &Request) -> Option<Bytes> {
    let real = std::fs::canonicalize(as_path(&root(request))).ok()?;
    Some(Bytes::copy_from_slice(real.as_os_str().as_bytes()))
}

/// `$request_filename`: the file that `path` means; `None` when an `alias` does not fit it.
pub(crate) fn file(request: &Request, path: &[u8]) -> Option<Bytes> {
    let location = request.location();
    let root = root(request);
    if !location.settings.root.alias {
        return Some([&root[..], path].concat().into());
    }
    let rest = match &location.settings.root.alias_prefix[..] {
        [] if request.route.path_after_alias => path,
        // The alias says it all, with captures of the expression.
        [] => b"",
        prefix => path.strip_prefix(prefix)?,
    };
    Some([&root[..], rest].concat().into())
}

/// Bytes as a path.
pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The path of a file that is made of variables.
pub(crate) fn variable(file: &VariableFile, request: &Request) -> PathBuf {
    file.base.join(OsStr::from_bytes(&request.text(&file.path)))
}
