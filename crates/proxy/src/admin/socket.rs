//! The socket of the admin side: made, never stolen, removed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use wssgate_config::model::Admin as Wanted;
use wssgate_http1::ResponseParser;
use wssgate_sys::listen::{self, Refused};

/// How many connections may wait.
const BACKLOG: u32 = 16;

/// How long a server that listens where we want to may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest answer to that, in bytes.
const MAX_STATUS: usize = 64 * 1024;

/// Why there is no socket.
#[derive(Debug, Error)]
#[error("{} to unix:{} failed ({})", refused.call, path.display(), crate::errno_text(&refused.source))]
pub struct SocketError {
    /// Where it was to be.
    pub path: PathBuf,
    /// What the system refused.
    pub refused: Refused,
}

impl SocketError {
    /// Nobody can serve at the socket.
    pub(crate) fn threads(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_path_buf(), refused: Refused { call: "clone()", source } }
    }

    /// Whether somebody else listens there.
    pub fn in_use(&self) -> bool {
        self.refused.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// A socket that listens. Dropping it removes its file, if that is still ours.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    mode: u32,
    /// Until somebody accepts on it.
    listening: Option<OwnedFd>,
    /// Which file it is: device and inode.
    file: Option<(u64, u64)>,
}

impl AdminSocket {
    /// Listens at a path. What a killed server left there is replaced, and one that drains gives way; where
    /// another one listens, that is an error. `for_root`: the socket is root's, as which we run no longer.
    ///
    /// # Errors
    /// What the system refused.
    pub fn open(wanted: &Wanted, for_root: bool) -> Result<Self, SocketError> {
        let path = &wanted.path;
        let opened = open(path, wanted.mode, for_root.then_some((0, 0)));
        let opened = opened.map_err(|refused| SocketError { path: path.clone(), refused })?;
        let file = identity(path);
        Ok(Self { path: path.clone(), mode: wanted.mode, listening: Some(opened), file })
    }

    /// Listens at the path of the process that we replace, which listens there until then; at no moment nobody does.
    /// `for_root` as in [`AdminSocket::open`].
    ///
    /// # Errors
    /// What the system refused.
    pub fn take_over(wanted: &Wanted, for_root: bool) -> Result<Self, SocketError> {
        let path = &wanted.path;
        let taken = take_over(path, wanted.mode, for_root.then_some((0, 0)));
        let taken = taken.map_err(|refused| SocketError { path: path.clone(), refused })?;
        let file = identity(path);
        Ok(Self { path: path.clone(), mode: wanted.mode, listening: Some(taken), file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file to the process that goes on with the socket.
    pub fn leave(mut self) {
        self.file = None;
    }

    /// Has clients see this process as the one that listens, and not the one that has put it into the background: that
    /// is whoever listened last before they connected (unix(7), SO_PEERCRED).
    ///
    /// # Errors
    /// What the system refused.
    pub fn listen_as_this_process(&self) -> io::Result<()> {
        let Some(socket) = &self.listening else { return Ok(()) };
        listen::listen(socket, BACKLOG).map_err(|refused| refused.source)
    }

    pub(super) fn take_listener(&mut self) -> io::Result<UnixListener> {
        let socket = self.listening.take();
        Ok(socket.ok_or(io::ErrorKind::NotConnected)?.into())
    }

    /// Whether it is at this path; then it gets this mode.
    ///
    /// # Errors
    /// When the mode cannot be changed, and the socket could not be made anew either.
    pub(super) fn fits(&mut self, wanted: &Wanted) -> Result<bool, SocketError> {
        let fits = self.path == wanted.path && self.is_ours();
        if fits && self.mode != wanted.mode {
            let permissions = fs::Permissions::from_mode(wanted.mode);
            if let Err(source) = fs::set_permissions(&self.path, permissions) {
                // It is root's, and we are no longer. Another one in its place has the mode; but where we may not
                // remove files of others, such as in a directory with the sticky bit, there would be none then.
                let refused = Refused { call: "chmod()", source };
                fs::remove_file(&self.path)
                    .map_err(|_| SocketError { path: self.path.clone(), refused })?;
                return Ok(false);
            }
            self.mode = wanted.mode;
        }
        Ok(fits)
    }

    fn is_ours(&self) -> bool {
        self.file.is_some() && identity(&self.path) == self.file
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Another server may have taken the name over; then the file is no longer ours.
        if self.is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<OwnedFd, Refused> {
    // A socket that is bound and does not listen yet looks like one that was left behind: only one server at
    // a time looks. Where the directory cannot be locked the moment is short.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).ok();
    let _locked = directory.filter(|directory| directory.try_lock().is_ok());
    match listen::listen_unix(path, mode, owner, BACKLOG) {
        Err(refused)
            if refused.source.kind() == io::ErrorKind::AddrInUse
                && (is_left(path) || gives_way(path)) =>
        {
            fs::remove_file(path).map_err(|source| Refused { call: "unlink()", source })?;
            listen::listen_unix(path, mode, owner, BACKLOG)
        }
        other => other,
    }
}

/// Listens beside the path, and puts that in its place.
fn take_over(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<OwnedFd, Refused> {
    let beside = path.with_extension(std::process::id().to_string());
    // One of a process that had our number.
    let _ = fs::remove_file(&beside);
    let listening = listen::listen_unix(&beside, mode, owner, BACKLOG)?;
    fs::rename(&beside, path).map_err(|source| {
        let _ = fs::remove_file(&beside);
        Refused { call: "rename()", source }
    })?;
    Ok(listening)
}

/// Whether it is a socket that nobody listens on. Any other file was put there by somebody who wants it.
fn is_left(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket && listen::is_abandoned(path)
}

/// Whether the server that listens there is about to end. Its successor may be started before its last connection
/// has ended, and is the one that operators mean from then on.
fn gives_way(path: &Path) -> bool {
    let phase = phase(path).ok().flatten();
    phase.is_some_and(|phase| matches!(&*phase, "yielding" | "draining" | "stopping"))
}

/// How far the end of the server that listens there has come, as it says itself.
fn phase(path: &Path) -> io::Result<Option<String>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    let mut stream = UnixStream::from(OwnedFd::from(socket));
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: wssgate\r\n\r\n")?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    let deadline = Instant::now() + PATIENCE;
    // Whoever listens there may be anybody, and say it byte by byte.
    while answer.len() < MAX_STATUS {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => break,
            len => answer.extend_from_slice(&part[..len]),
        }
    }
    let mut input = BytesMut::from(&answer[..]);
    if !matches!(ResponseParser::new().parse(&mut input, answer.len()), Ok(Some(_))) {
        return Ok(None);
    }
    let status = serde_json::from_slice::<serde_json::Value>(&input).ok();
    Ok(status.and_then(|status| Some(status["phase"].as_str()?.to_owned())))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wanted(path: &Path) -> Wanted {
        Wanted { path: path.to_owned(), mode: 0o600, is_default: false }
    }

    #[test]
    fn it_is_there_for_its_user_alone_and_goes_with_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin");
        let mut socket = AdminSocket::open(&wanted(&path), false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert!(socket.fits(&Wanted { mode: 0o660, ..wanted(&path) }).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(!socket.fits(&wanted(&directory.path().join("other"))).unwrap());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_successor_takes_the_path_over_and_the_predecessor_leaves_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin");
        let mut old = AdminSocket::open(&wanted(&path), false).unwrap();
        let new = AdminSocket::take_over(&wanted(&path), false).unwrap();
        assert!(!old.fits(&wanted(&path)).unwrap());
        drop(old);
        UnixStream::connect(&path).unwrap();
        drop(new);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn who_listens_is_not_robbed_and_who_was_killed_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin");
        let first = AdminSocket::open(&wanted(&path), false).unwrap();
        let error = AdminSocket::open(&wanted(&path), false).unwrap_err();
        assert_eq!(error.refused.source.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        // As if it had been killed.
        first.leave();
        assert!(path.exists() && UnixStream::connect(&path).is_err());
        let second = AdminSocket::open(&wanted(&path), false).unwrap();
        UnixStream::connect(&path).unwrap();
        // Somebody else's.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        drop(second);
        assert!(path.exists());
        let error = AdminSocket::open(&wanted(&path), false).unwrap_err();
        assert_eq!(error.refused.source.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    }
}
