//! Listening sockets: made, bound, and tuned as `listen` says.

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::epoll::check;

/// A step of opening a listening socket that the system refused.
#[derive(Debug)]
pub struct Refused {
    /// The call, e.g. `bind()`.
    pub call: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// Turns a system error into a [`Refused`] of this call.
fn refused(call: &'static str) -> impl FnOnce(io::Error) -> Refused {
    move |source| Refused { call, source }
}

/// How a TCP socket is bound.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// Several sockets of ours share the address (`SO_REUSEPORT`).
    pub shared: bool,
    /// An IPv6 socket takes IPv6 only.
    pub ipv6_only: bool,
}

/// Binds a TCP socket, which does not listen yet.
pub fn bind_tcp(address: SocketAddr, binding: Binding) -> Result<OwnedFd, Refused> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, None).map_err(refused("socket()"))?;
    socket.set_reuse_address(true).map_err(refused("setsockopt(SO_REUSEADDR)"))?;
    if binding.shared {
        socket.set_reuse_port(true).map_err(refused("setsockopt(SO_REUSEPORT)"))?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(binding.ipv6_only).map_err(refused("setsockopt(IPV6_V6ONLY)"))?;
    }
    // Every connection inherits it. Answers are small and written whole, so waiting only costs time.
    socket.set_tcp_nodelay(true).map_err(refused("setsockopt(TCP_NODELAY)"))?;
    socket.set_nonblocking(true).map_err(refused("fcntl(O_NONBLOCK)"))?;
    socket.bind(&address.into()).map_err(refused("bind()"))?;
    Ok(socket.into())
}

/// Binds a Unix stream socket that everybody may connect to, as nginx does.
pub fn bind_unix(path: &Path) -> Result<OwnedFd, Refused> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(refused("socket()"))?;
    socket.set_nonblocking(true).map_err(refused("fcntl(O_NONBLOCK)"))?;
    let address = SockAddr::unix(path).map_err(refused("bind()"))?;
    socket.bind(&address).map_err(refused("bind()"))?;
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(path, everybody).map_err(refused("chmod()"))?;
    Ok(socket.into())
}

/// Binds a Unix stream socket with these permissions, for `owner` (a user and a group) if it is not to be the user
/// that we run as, and listens on it.
pub fn listen_unix(
    path: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
    backlog: u32,
) -> Result<OwnedFd, Refused> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(refused("socket()"))?;
    let address = SockAddr::unix(path).map_err(refused("bind()"))?;
    socket.bind(&address).map_err(refused("bind()"))?;
    // Before that nobody can connect.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(refused("chmod()"))?;
    if let Some((user, group)) = owner {
        let changed = std::os::unix::fs::lchown(path, Some(user), Some(group));
        changed.map_err(refused("chown()"))?;
        // Until then it was its user's, who may have changed the permissions, or put another file there.
        let found = std::fs::symlink_metadata(path).map_err(refused("lstat()"))?;
        if (found.uid(), found.gid(), found.mode() & 0o7777) != (user, group, mode) {
            let changed = io::Error::other("its permissions or owner were changed meanwhile");
            return Err(refused("lstat()")(changed));
        }
    }
    listen(&socket, backlog)?;
    Ok(socket.into())
}

/// Whether `path` is a socket that nobody accepts on any more: left behind by a process that was
/// killed.
pub fn is_abandoned(path: &Path) -> bool {
    let Ok(address) = SockAddr::unix(path) else { return false };
    let Ok(socket) = Socket::new(Domain::UNIX, Type::STREAM, None) else { return false };
    // A queue that is full must not hold us up; it is no refusal either.
    if socket.set_nonblocking(true).is_err() {
        return false;
    }
    let refused = socket.connect(&address).err().and_then(|error| error.raw_os_error());
    refused == Some(libc::ECONNREFUSED)
}

/// Begins to listen, or changes the backlog of a socket that does.
pub fn listen(socket: impl AsFd, backlog: u32) -> Result<(), Refused> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    SockRef::from(&socket).listen(backlog).map_err(refused("listen()"))
}

/// Options that accepted connections inherit, or that concern accepting itself.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// `SO_RCVBUF`, bytes.
    pub receive_buffer: Option<usize>,
    /// `SO_SNDBUF`, bytes.
    pub send_buffer: Option<usize>,
    /// Accept only when the client has sent something (`TCP_DEFER_ACCEPT`).
    pub deferred: bool,
    /// Length of the queue of TCP Fast Open (RFC 7413).
    pub fast_open: Option<u32>,
    /// Probing of silent peers: off, or on with what the system's defaults do not say.
    pub keepalive: Option<Option<TcpKeepalive>>,
}

/// Applies options to a bound socket.
pub fn tune(socket: impl AsFd, tuning: &Tuning) -> Result<(), Refused> {
    let fd = socket.as_fd();
    let reference = SockRef::from(&fd);
    if let Some(bytes) = tuning.receive_buffer {
        reference.set_recv_buffer_size(bytes).map_err(refused("setsockopt(SO_RCVBUF)"))?;
    }
    if let Some(bytes) = tuning.send_buffer {
        reference.set_send_buffer_size(bytes).map_err(refused("setsockopt(SO_SNDBUF)"))?;
    }
    if tuning.deferred {
        set_tcp(&fd, libc::TCP_DEFER_ACCEPT, 1).map_err(refused("setsockopt(TCP_DEFER_ACCEPT)"))?;
    }
    if let Some(queue) = tuning.fast_open {
        let queue = i32::try_from(queue).unwrap_or(i32::MAX);
        set_tcp(&fd, libc::TCP_FASTOPEN, queue).map_err(refused("setsockopt(TCP_FASTOPEN)"))?;
    }
    match &tuning.keepalive {
        None => Ok(()),
        Some(None) => reference.set_keepalive(false),
        Some(Some(probing)) => {
            reference.set_keepalive(true).and_then(|()| reference.set_tcp_keepalive(probing))
        }
    }
    .map_err(refused("setsockopt(SO_KEEPALIVE)"))
}

fn set_tcp(socket: &impl AsRawFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value lives through the call and has the size that is told.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size,
        )
    })?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    use super::*;

    const ALONE: Binding = Binding { shared: false, ipv6_only: true };
    const SHARED: Binding = Binding { shared: true, ipv6_only: true };

    #[test]
    fn a_socket_that_is_not_shared_finds_the_port_taken() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first: TcpListener = bind_tcp(any, SHARED).unwrap().into();
        listen(&first, 8).unwrap();
        let address = first.local_addr().unwrap();
        let second = bind_tcp(address, SHARED).unwrap();
        listen(&second, 8).unwrap();
        let refused = bind_tcp(address, ALONE).unwrap_err();
        assert_eq!(refused.call, "bind()");
        assert_eq!(refused.source.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn tuning_is_what_the_kernel_reports() {
        let socket = bind_tcp("[::1]:0".parse().unwrap(), ALONE).unwrap();
        let probing = TcpKeepalive::new().with_retries(3);
        let tuning = Tuning {
            receive_buffer: Some(65_536),
            send_buffer: Some(65_536),
            deferred: true,
            fast_open: Some(5),
            keepalive: Some(Some(probing)),
        };
        tune(&socket, &tuning).unwrap();
        let reference = SockRef::from(&socket);
        assert!(reference.recv_buffer_size().unwrap() >= 65_536);
        assert!(reference.keepalive().unwrap());
        assert_eq!(reference.tcp_keepalive_retries().unwrap(), 3);
        assert!(reference.only_v6().unwrap());
    }

    #[test]
    fn a_unix_socket_without_its_process_is_abandoned() {
        let directory = std::env::temp_dir().join(format!("wssgate-un-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("s");
        let listener: UnixListener = bind_unix(&path).unwrap().into();
        listen(&listener, 8).unwrap();
        assert!(!is_abandoned(&path));
        drop(listener);
        assert!(is_abandoned(&path));
        assert_eq!(bind_unix(&path).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(!is_abandoned(&path));
    }

    #[test]
    fn what_was_bound_here_accepts() {
        let listener: TcpListener = bind_tcp("127.0.0.1:0".parse().unwrap(), ALONE).unwrap().into();
        listen(&listener, 8).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(TcpStream::connect(address).is_ok());
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
