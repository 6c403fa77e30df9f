//! Sockets that others have opened for us: a service manager (sd_listen_fds(3)), or the process that we are to
//! replace, in nginx's way.

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

/// What was passed on, and as what.
#[derive(Debug)]
pub struct Passed {
    /// What the manager calls it: a socket its unit, and what it has kept for an earlier process of ours that one's own
    /// word. Empty if it does not say.
    pub name: String,
    /// It is ours now.
    pub descriptor: OwnedFd,
}

/// The descriptors that were passed on to this process, at the first call; nothing afterwards, for they have an owner
/// then.
///
/// Must be called before the process opens anything that could take their numbers, had they not been passed on after
/// all: `LISTEN_PID` and `LISTEN_FDS` say that they were.
pub fn descriptors() -> Vec<Passed> {
    let variable = |name| std::env::var(name).ok()?.parse::<RawFd>().ok();
    let is_ours =
        variable("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id());
    let count = variable("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0).clamp(0, MOST);
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    (FIRST..FIRST + count)
        .zip(self::names(&names))
        .filter_map(|(fd, name)| Some(Passed { name: name.to_owned(), descriptor: own(fd).ok()? }))
        .collect()
}

/// The names in a list like `http.socket:stored`, and then empty ones without end.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(':').chain(std::iter::repeat(""))
}

/// Where nginx says which listening sockets its successor inherits: `6;7;`.
pub const SOCKETS_VARIABLE: &str = "NGINX";

/// What a process leaves to its successor.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Sockets that listen, with the numbers that they have in both processes.
    pub sockets: Vec<(RawFd, OwnedFd)>,
    /// What the other variables name, as far as they do.
    pub channels: [Option<OwnedFd>; 2],
}

/// Takes what the process that started us leaves to us: the sockets of [`SOCKETS_VARIABLE`], and the descriptors that the
/// variables `channels` have the numbers of. All are gone from the environment then, since they mean nothing to programs
/// that we start. `None` if nothing was left to us.
///
/// Must be called while the process has one thread, and before it opens anything that could take the numbers, had they
/// not been passed on after all.
pub fn inheritance(channels: [&str; 2]) -> Option<Inheritance> {
    let take = |name: &str| {
        let value = std::env::var(name).ok()?;
        // SAFETY: there is only this thread, so nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
        Some(value)
    };
    let (sockets, channels) = (take(SOCKETS_VARIABLE), channels.map(take));
    // Of the same name there may be something else altogether, such as a version in the environment of a container.
    let numbers = sockets.as_deref().and_then(numbers).unwrap_or_default();
    let sockets: Vec<_> = numbers
        .into_iter()
        .filter(|&fd| is_listening(fd))
        .filter_map(|fd| Some((fd, own(fd).ok()?)))
        .collect();
    let channels = channels.map(|number| own(number?.parse().ok().filter(|&fd| fd >= FIRST)?).ok());
    let is_some = !sockets.is_empty() || channels.iter().any(Option::is_some);
    is_some.then_some(Inheritance { sockets, channels })
}

/// What the variable says of these sockets.
pub fn sockets_variable(sockets: impl IntoIterator<Item = RawFd>) -> String {
    sockets.into_iter().map(|fd| format!("{fd};")).collect()
}

/// The different numbers in a list like `6;7;`, which nginx may also separate by colons.
fn numbers(text: &str) -> Option<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for number in text.strip_suffix([';', ':'])?.split([';', ':']) {
        let number = number.parse().ok().filter(|&fd| fd >= FIRST)?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    (numbers.len() <= MOST as usize).then_some(numbers)
}

fn is_listening(fd: RawFd) -> bool {
    let (mut value, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let option = libc::SO_ACCEPTCONN;
    // SAFETY: takes a number, which need not be that of a socket; the value has the size that is told, and both live
    // through the call.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len)
    };
    result == 0 && value != 0
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
    fn lists_are_read_as_nginx_writes_them() {
        assert_eq!(numbers("6;7;"), Some(vec![6, 7]));
        assert_eq!(numbers("6:7;6;"), Some(vec![6, 7]));
        assert_eq!(numbers(&sockets_variable([12, 3])), Some(vec![12, 3]));
        for other in ["", ";", "1.22.1", "6", "6;;7;", "2;", "-4;", "a;"] {
            assert_eq!(numbers(other), None, "{other}");
        }
        assert!(!is_listening(i32::MAX) && !is_listening(0));
    }

    #[test]
    fn names_are_in_the_order_of_the_descriptors() {
        for (list, expected) in [
            ("", ["", "", ""]),
            ("one", ["one", "", ""]),
            ("one::two", ["one", "", "two"]),
            ("one:two:three:four", ["one", "two", "three"]),
        ] {
            assert_eq!(names(list).take(3).collect::<Vec<_>>(), expected, "{list}");
        }
    }

    #[test]
    fn nothing_is_taken_that_was_passed_to_somebody_else() {
        // Tests are started without `LISTEN_PID`, or with that of another process.
        assert!(descriptors().is_empty());
    }
}
