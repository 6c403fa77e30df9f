//! Stream sockets by descriptor: read, write, end a direction, and the TCP options of a proxy.
//!
//! [`recv`] and [`send`] never wait and never raise `SIGPIPE`. Interrupted calls are repeated, and
//! "would block" is a word of the answer and not an error. They are made as bare system calls: the C
//! library's functions, which never wait here either, prepare for the cancellation of their thread,
//! and that is 1% of relaying a message.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, SockRef, TcpKeepalive};

use crate::epoll::check;

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, at least one.
    Bytes(usize),
    /// The peer has ended its direction.
    End,
    /// Nothing now; epoll tells when.
    Blocked,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took this many bytes, possibly fewer than offered.
    Bytes(usize),
    /// It took nothing; epoll tells when there is room.
    Blocked,
}

/// Reads what is there into `buffer`, which must not be empty.
pub fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    debug_assert!(!buffer.is_empty());
    loop {
        // SAFETY: `buffer` is valid for writes of its length during the call; no address is asked for.
        let result = unsafe {
            libc::syscall(
                libc::SYS_recvfrom,
                socket.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                NO_ADDRESS,
                NO_ADDRESS,
            )
        };
        match count(result) {
            Ok(0) => return Ok(Received::End),
            Ok(n) => return Ok(Received::Bytes(n)),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(Received::Blocked),
                _ => return Err(error),
            },
        }
    }
}

/// Writes as much of `bytes` as the kernel takes.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<Sent> {
    loop {
        // SAFETY: `bytes` is valid for reads of its length during the call; no address is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_sendto,
                socket.as_raw_fd(),
                bytes.as_ptr(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                NO_ADDRESS,
                0_usize,
            )
        };
        match count(result) {
            Ok(n) => return Ok(Sent::Bytes(n)),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(Sent::Blocked),
                _ => return Err(error),
            },
        }
    }
}

/// No socket address, as an argument of a system call.
const NO_ADDRESS: *const libc::c_void = std::ptr::null();

fn count(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Ends the sending direction: the peer reads what was sent and then an end.
pub fn shutdown_write(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).shutdown(std::net::Shutdown::Write)
}

/// Whether it is a Unix domain socket.
pub fn is_unix(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SockRef::from(&socket).domain()? == Domain::UNIX)
}

/// Who has made a connection over a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// The process; 0 if it is in no namespace of ours.
    pub pid: i32,
    /// The user as which it ran.
    pub uid: u32,
}

/// Who is at the other end of a Unix socket (`SO_PEERCRED`).
pub fn credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of_val(&found) as libc::socklen_t;
    // SAFETY: the struct lives through the call and has the size that is told.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &mut size,
        )
    })?;
    Ok(Credentials { pid: found.pid, uid: found.uid })
}

/// Has whoever waits for a connection on this listening socket return with an error, now and from now on.
pub fn stop_listening(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).shutdown(std::net::Shutdown::Both)
}

/// Takes the error that waits at the socket (`SO_ERROR`), if there is one.
pub fn take_error(socket: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    SockRef::from(&socket).take_error()
}

/// Makes the socket non-blocking.
pub fn set_nonblocking(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_nonblocking(true)
}

/// Sends small messages at once (`TCP_NODELAY`), or lets them wait for what was sent before them to be
/// acknowledged (RFC 896).
pub fn set_nodelay(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_nodelay(on)
}

/// Probes a silent peer: first after `idle`, then every `interval`, giving up after `probes`.
///
/// Values of less than a second become one second, the kernel's unit.
pub fn set_keepalive(
    socket: BorrowedFd<'_>,
    idle: Duration,
    interval: Duration,
    probes: u32,
) -> io::Result<()> {
    let second = Duration::from_secs(1);
    let probing = TcpKeepalive::new()
        .with_time(idle.max(second))
        .with_interval(interval.max(second))
        .with_retries(probes.max(1));
    SockRef::from(&socket).set_tcp_keepalive(&probing)
}

/// Gives up on a peer that acknowledges nothing, or takes nothing, for this long (`TCP_USER_TIMEOUT`,
/// RFC 5482).
pub fn set_user_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_user_timeout(Some(timeout))
}

/// Leaves the choice of a port to `connect`, when only an address is bound. The same port may then
/// be used for connections to several peers; otherwise an address has one connection for each.
pub fn set_bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is valid for reads during the call, and has the length that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of_val(&on)).expect("its size is small"),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel measures of a TCP connection, as far as a proxy tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// The smoothed round-trip time (RFC 6298), in microseconds.
    pub rtt_us: u32,
    /// Its variation, in microseconds.
    pub rttvar_us: u32,
    /// The congestion window, in segments.
    pub snd_cwnd: u32,
    /// The space for what is received, in bytes.
    pub rcv_space: u32,
    /// How long ago the peer last acknowledged something.
    pub last_ack: Duration,
}

/// How many bytes that were sent the peer has not acknowledged yet (`SIOCOUTQ`).
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is valid for writes during the call, and is what this request writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// The connections of a listening socket that nobody has accepted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptQueue {
    /// How many there are.
    pub len: u32,
    /// How many there can be; the kernel drops what comes beyond.
    pub limit: u32,
}

/// Asks the kernel for the queue of a listening TCP socket; an error for all others.
pub fn accept_queue(socket: BorrowedFd<'_>) -> io::Result<AcceptQueue> {
    let info = info(socket)?;
    if u32::from(info.tcpi_state) != TCP_LISTEN {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // For a socket that listens, the kernel tells its queue in these fields (`tcp_get_info`, since Linux 2.6.24).
    Ok(AcceptQueue { len: info.tcpi_unacked, limit: info.tcpi_sacked })
}

/// The state of a socket that listens, in the kernel's numbers (`include/net/tcp_states.h`).
const TCP_LISTEN: u32 = 10;

/// Asks the kernel what it measures (`TCP_INFO`); an error for all but TCP.
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let info = info(socket)?;
    Ok(TcpInfo {
        rtt_us: info.tcpi_rtt,
        rttvar_us: info.tcpi_rttvar,
        snd_cwnd: info.tcpi_snd_cwnd,
        rcv_space: info.tcpi_rcv_space,
        last_ack: Duration::from_millis(info.tcpi_last_ack_recv.into()),
    })
}

fn info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // SAFETY: the structure consists of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).expect("its size is small");
    // SAFETY: `info` and `len` are valid for writes during the call, and `len` is the size of `info`.
    // An old kernel writes less; the rest stays zero.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_read_says_bytes_then_blocked_then_end() {
        let (mut near, far) = UnixStream::pair().unwrap();
        assert!(is_unix(far.as_fd()).unwrap());
        let mut buffer = [0; 8];
        near.write_all(b"abc").unwrap();
        assert_eq!(recv(far.as_fd(), &mut buffer).unwrap(), Received::Bytes(3));
        assert_eq!(&buffer[..3], b"abc");
        assert_eq!(recv(far.as_fd(), &mut buffer).unwrap(), Received::Blocked);
        drop(near);
        assert_eq!(recv(far.as_fd(), &mut buffer).unwrap(), Received::End);
    }

    #[test]
    fn a_write_to_a_full_peer_is_blocked_and_to_a_gone_one_an_error() {
        let (near, far) = UnixStream::pair().unwrap();
        let bytes = vec![0; 1 << 16];
        while send(far.as_fd(), &bytes).unwrap() != Sent::Blocked {}
        drop(near);
        let error = send(far.as_fd(), &bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn shutdown_ends_one_direction_only() {
        let (mut near, far) = UnixStream::pair().unwrap();
        assert_eq!(send(far.as_fd(), b"last").unwrap(), Sent::Bytes(4));
        shutdown_write(far.as_fd()).unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last");
        near.write_all(b"x").unwrap();
        assert_eq!(recv(far.as_fd(), &mut [0; 4]).unwrap(), Received::Bytes(1));
    }

    #[test]
    fn a_reset_leaves_an_error_to_take_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert!(take_error(near.as_fd()).unwrap().is_none());
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        let epoll = crate::epoll::Epoll::new().unwrap();
        epoll.add(near.as_fd(), 0, true).unwrap();
        let mut events = crate::epoll::Events::with_capacity(1);
        epoll.wait(&mut events, None).unwrap();
        assert!(events.iter().all(|event| event.failed));
        let error = take_error(near.as_fd()).unwrap().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(take_error(near.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_port_is_chosen_when_connecting() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let loopback: std::net::SocketAddr = loopback.parse().unwrap();
            let Ok(listener) = TcpListener::bind(loopback) else { continue };
            let domain = Domain::for_address(loopback);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            set_bind_address_no_port(socket.as_fd()).unwrap();
            socket.bind(&loopback.into()).unwrap();
            let port = || socket.local_addr().unwrap().as_socket().unwrap().port();
            assert_eq!(port(), 0);
            socket.connect(&listener.local_addr().unwrap().into()).unwrap();
            assert_ne!(port(), 0);
        }
    }

    #[test]
    fn tcp_options_are_what_the_kernel_reports() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        set_nodelay(stream.as_fd(), true).unwrap();
        set_keepalive(stream.as_fd(), Duration::from_secs(60), Duration::from_millis(1), 6)
            .unwrap();
        set_user_timeout(stream.as_fd(), Duration::from_secs(30)).unwrap();
        let socket = SockRef::from(&stream);
        assert!(!is_unix(stream.as_fd()).unwrap());
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        set_nodelay(stream.as_fd(), false).unwrap();
        assert!(!socket.tcp_nodelay().unwrap());
    }

    #[test]
    fn who_was_not_accepted_waits_in_the_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).listen(7).unwrap();
        let queue = || accept_queue(listener.as_fd()).unwrap();
        assert_eq!(queue(), AcceptQueue { len: 0, limit: 7 });
        let address = listener.local_addr().unwrap();
        let waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(queue().len, 3);
        listener.accept().unwrap();
        assert_eq!(queue().len, 2);
        assert!(accept_queue(waiting[0].as_fd()).is_err(), "it does not listen");
    }

    #[test]
    fn the_kernel_measures_tcp_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let before = tcp_info(near.as_fd()).unwrap();
        assert!(before.snd_cwnd > 0 && before.rcv_space > 0, "{before:?}");
        far.write_all(b"x").unwrap();
        (&near).read_exact(&mut [0]).unwrap();
        let info = tcp_info(far.as_fd()).unwrap();
        // The handshake alone gives a first value.
        assert!(info.rtt_us > 0 && info.rttvar_us > 0, "{info:?}");
        let (near, _far) = UnixStream::pair().unwrap();
        assert!(tcp_info(near.as_fd()).is_err());
    }
}
