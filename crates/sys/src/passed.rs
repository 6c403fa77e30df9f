//! Sockets that a service manager has opened for us (sd_listen_fds(3)).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockRef, Type};

use crate::epoll::check;

/// The first of them.
const FIRST: RawFd = 3;

/// More than anybody passes on; the number comes from outside.
const MOST: RawFd = 1024;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that were passed on to this process, at the first call; nothing afterwards, for they have an owner
/// then.
///
/// Must be called before the process opens anything that could take their numbers, had they not been passed on after
/// all: `LISTEN_PID` and `LISTEN_FDS` say that they were.
pub fn descriptors() -> Vec<OwnedFd> {
    let variable = |name| std::env::var(name).ok()?.parse::<RawFd>().ok();
    let is_ours =
        variable("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id());
    let count = variable("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0).clamp(0, MOST);
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    (FIRST..FIRST + count).filter_map(|fd| own(fd).ok()).collect()
}

/// Takes a descriptor over; programs that we start do not get it.
fn own(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers, and fails for what is not open.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and whoever started us gave it to us; nobody else takes it, as this is done once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a socket that was passed on like those that we open. Fails unless it is a stream socket that listens.
pub fn adopt(socket: &OwnedFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if socket.domain()? != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_nonblocking(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_stream_sockets_that_listen_are_adopted() {
        let listener: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
        adopt(&listener).unwrap();
        let socket = SockRef::from(&listener);
        assert!(socket.tcp_nodelay().unwrap() && socket.nonblocking().unwrap());
        let directory = std::env::temp_dir().join(format!("wssgate-passed-{}", std::process::id()));
        adopt(&UnixListener::bind(&directory).unwrap().into()).unwrap();
        std::fs::remove_file(&directory).unwrap();
        assert!(adopt(&UdpSocket::bind("127.0.0.1:0").unwrap().into()).is_err());
        let bound = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(adopt(&bound.into()).is_err(), "does not listen");
        assert!(adopt(&std::fs::File::open("/dev/null").unwrap().into()).is_err());
    }

    #[test]
    fn nothing_is_taken_that_was_passed_to_somebody_else() {
        // Tests are started without `LISTEN_PID`, or with that of another process.
        assert!(descriptors().is_empty());
    }
}
