//! Descriptors that pass to another process over a Unix stream socket (`SCM_RIGHTS`, unix(7)).
//!
//! They are attached to the first byte that is sent with them, and arrive with that byte. A read ends behind the bytes of
//! the message that it has got descriptors of; but one that begins before them goes on into that message, so who expects
//! descriptors reads exactly as many bytes as come before. [`send`] and [`receive`] never wait and never raise `SIGPIPE`;
//! [`wait_readable`] and [`wait_writable`] wait.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::epoll::check;

/// The most descriptors that one message takes (`SCM_MAX_FD` of the kernel).
pub const MOST: usize = 253;

/// What may wait in the socket for its reader; the kernel gives less where `net.core.wmem_max` is less.
const BUFFER: usize = 1 << 20;

/// Room for the control message of [`MOST`] descriptors, which must lie where its header may lie.
#[repr(C)]
union Control {
    bytes: [MaybeUninit<u8>; SPACE],
    _header: libc::cmsghdr,
}

/// How long that is.
const SPACE: usize = space(MOST);

const fn space(descriptors: usize) -> usize {
    // SAFETY: computes a number.
    unsafe { libc::CMSG_SPACE((descriptors * size_of::<RawFd>()) as libc::c_uint) as usize }
}

const fn control_len(descriptors: usize) -> usize {
    // SAFETY: computes a number.
    unsafe { libc::CMSG_LEN((descriptors * size_of::<RawFd>()) as libc::c_uint) as usize }
}

/// The two ends of a private stream. Programs that are started get neither.
pub fn stream_channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    for end in [&one, &other] {
        end.set_send_buffer_size(BUFFER)?;
    }
    Ok((one.into(), other.into()))
}

/// Writes as much of `bytes` as the kernel takes, and with the first of them all of `descriptors`: they are on their way
/// when the answer is not an error. At least one byte and at most [`MOST`] descriptors.
///
/// # Errors
/// Nothing was sent. `WouldBlock`: there is no room; `ETOOMANYREFS`: as many descriptors of this user are on their way as
/// this process may open, and it may not exceed that.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if descriptors.len() > MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the structure consists of integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = bytes.as_ptr().cast_mut().cast();
    message.msg_iovlen = bytes.len() as _;
    let mut control = Control { bytes: [MaybeUninit::zeroed(); SPACE] };
    if !descriptors.is_empty() {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = space(descriptors.len()) as _;
        // SAFETY: the control message has room for its header and these numbers, and lies where a header may lie. The
        // numbers behind it have the alignment of a header's end, and `write_unaligned` asks for none.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = control_len(descriptors.len()) as _;
            let numbers = libc::CMSG_DATA(header).cast::<RawFd>();
            for (at, descriptor) in descriptors.iter().enumerate() {
                numbers.add(at).write_unaligned(descriptor.as_raw_fd());
            }
        }
    }
    repeat(|| {
        let how = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the pieces (`IoSlice` has the layout of an iovec) and the control message, which both are only read,
        // are valid for their lengths during the call.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, how) }
    })
}

/// What a read has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// How many bytes; 0 is the end of what the peer sends.
    pub len: usize,
    /// Descriptors came along that are lost: more than were asked for, or than this process may open.
    pub truncated: bool,
}

/// Reads what is there into `buffer`, which must not be empty, and puts the descriptors that came with it behind
/// `descriptors`: at most `most`, in the order in which they were sent. Programs that are started do not get them.
///
/// # Errors
/// `WouldBlock`: there is nothing.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    most: usize,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let most = most.min(MOST);
    descriptors.reserve(most);
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the structure consists of integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    let mut control = Control { bytes: [MaybeUninit::uninit(); SPACE] };
    if most > 0 {
        message.msg_control = (&raw mut control).cast();
        // Without the padding at the end, in which one more would have room.
        message.msg_controllen = control_len(most) as _;
    }
    let len = repeat(|| {
        let how = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the buffer and the room for control messages are valid for writes of their lengths during the call. A
        // call that fails changes none of the lengths.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, how) }
    })?;
    // SAFETY: the kernel has filled in the control messages and told their length, by which the walk is bounded.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: it is not null, so a whole header lies there.
        let found = unsafe { &*header };
        if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            let bytes = (found.cmsg_len as usize).saturating_sub(control_len(0));
            for at in 0..bytes / size_of::<RawFd>() {
                // SAFETY: the message is as long as its header says. The kernel has opened these descriptors for us
                // right now, so nobody else owns them.
                let descriptor = unsafe {
                    let number = libc::CMSG_DATA(header).cast::<RawFd>().add(at).read_unaligned();
                    OwnedFd::from_raw_fd(number)
                };
                descriptors.push(descriptor);
            }
        }
        // SAFETY: as for the first one.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Received { len, truncated: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

fn repeat(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(done) => return Ok(done),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// Copies the first bytes of what is there into `buffer` and leaves everything as it is; how many. Descriptors that would
/// come along stay where they are.
///
/// # Errors
/// `WouldBlock`: there is nothing.
pub fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    repeat(|| {
        let how = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: the buffer is valid for writes of its length during the call.
        unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), how) }
    })
}

/// Waits until a read would not have to (`true`), or until `timeout` has passed (`false`; `None`: for ever).
pub fn wait_readable(socket: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    wait(socket, libc::POLLIN, timeout)
}

/// Waits until there is room to write or the peer takes nothing more (`true`), or until `timeout` has passed (`false`;
/// `None`: for ever).
pub fn wait_writable(socket: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    wait(socket, libc::POLLOUT, timeout)
}

/// Rounded up to whole milliseconds, so that it never ends too early.
fn wait(
    socket: BorrowedFd<'_>,
    events: libc::c_short,
    timeout: Option<Duration>,
) -> io::Result<bool> {
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.map_or(-1, |left| {
            i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
        // SAFETY: `poll` lives through the call, and its number is told.
        match check(unsafe { libc::poll(&raw mut poll, 1, left) }) {
            Ok(0) if left != i32::MAX => return Ok(false),
            Ok(0) => {}
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Ends both directions. From now on the peer's writes fail; what it has written before can still be read, and then an
/// end. Both are decided under the same lock of the kernel (`unix_stream_sendmsg` and `unix_shutdown`), so that every
/// write is either read here or has failed there.
pub fn hang_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).shutdown(std::net::Shutdown::Both)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;
    use crate::testing::{alone, open_descriptors};

    fn send_all(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let sent = send(socket.as_fd(), &[IoSlice::new(bytes)], descriptors).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// A file that says its number.
    fn numbered(number: usize) -> File {
        let mut file = tempfile();
        file.write_all(number.to_string().as_bytes()).unwrap();
        file
    }

    fn tempfile() -> File {
        // SAFETY: the name is a C string; the new descriptor is nobody else's.
        unsafe {
            let number = libc::memfd_create(c"rights".as_ptr(), libc::MFD_CLOEXEC);
            File::from_raw_fd(check(number).unwrap())
        }
    }

    fn number_of(descriptor: OwnedFd) -> usize {
        let mut file = File::from(descriptor);
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text.parse().unwrap()
    }

    fn is_close_on_exec(descriptor: &OwnedFd) -> bool {
        // SAFETY: takes numbers.
        let flags = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFD) };
        flags & libc::FD_CLOEXEC != 0
    }

    #[test]
    fn as_many_as_a_message_takes_arrive_in_their_order() {
        let (near, far) = stream_channel().unwrap();
        assert!(is_close_on_exec(&near) && is_close_on_exec(&far));
        let files: Vec<_> = (0..MOST).map(numbered).collect();
        let mut borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send_all(&near, b"many", &borrowed);
        let (mut buffer, mut got) = ([0; 8], Vec::new());
        let received = receive(far.as_fd(), &mut buffer, MOST, &mut got).unwrap();
        assert_eq!(received, Received { len: 4, truncated: false });
        assert!(got.iter().all(is_close_on_exec));
        let numbers: Vec<_> = got.into_iter().map(number_of).collect();
        assert_eq!(numbers, (0..MOST).collect::<Vec<_>>());
        borrowed.push(files[0].as_fd());
        let error = send(near.as_fd(), &[IoSlice::new(b"x")], &borrowed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_looked_at_is_still_there_with_its_descriptors() {
        let (near, far) = stream_channel().unwrap();
        let mut buffer = [0; 8];
        let error = peek(far.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let before = open_descriptors();
        send_all(&near, b"look", &[numbered(7).as_fd()]);
        for _ in 0..2 {
            assert_eq!(peek(far.as_fd(), &mut buffer).unwrap(), 4);
            assert_eq!(&buffer[..4], b"look");
        }
        assert_eq!(open_descriptors(), before);
        let mut got = Vec::new();
        let received = receive(far.as_fd(), &mut buffer, 1, &mut got).unwrap();
        assert_eq!(received, Received { len: 4, truncated: false });
        assert_eq!(number_of(got.pop().unwrap()), 7);
        drop(near);
        assert_eq!(peek(far.as_fd(), &mut buffer).unwrap(), 0);
        let (one, _) = std::io::pipe().unwrap();
        assert!(peek(one.as_fd(), &mut buffer).is_err(), "no socket");
    }

    #[test]
    fn a_connection_goes_on_in_other_hands() {
        let (near, far) = stream_channel().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        client.write_all(b"unread").unwrap();
        send_all(&near, b"x", &[accepted.as_fd()]);
        drop(accepted);
        let mut got = Vec::new();
        receive(far.as_fd(), &mut [0], 1, &mut got).unwrap();
        let mut taken = TcpStream::from(got.pop().unwrap());
        let mut buffer = [0; 6];
        taken.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"unread");
        taken.write_all(b"back").unwrap();
        drop(taken);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "back");
    }

    /// What a read of a stream socket does with the bytes around a message that has descriptors.
    #[test]
    fn a_read_ends_behind_the_message_that_its_descriptors_came_with() {
        let (near, far) = stream_channel().unwrap();
        let file = numbered(7);
        send_all(&near, b"one", &[file.as_fd()]);
        send_all(&near, b"two", &[]);
        send_all(&near, b"three", &[file.as_fd()]);
        let (mut buffer, mut got) = ([0; 32], Vec::new());
        let received = receive(far.as_fd(), &mut buffer, 1, &mut got).unwrap();
        assert_eq!((received.len, got.len()), (3, 1));
        // Exactly up to the next message: its descriptor waits.
        receive(far.as_fd(), &mut buffer[..3], 1, &mut got).unwrap();
        assert_eq!((&buffer[..3], got.len()), (&b"two"[..], 1));
        // The first byte brings it.
        receive(far.as_fd(), &mut buffer[..1], 1, &mut got).unwrap();
        assert_eq!((&buffer[..1], got.len()), (&b"t"[..], 2));
        let received = receive(far.as_fd(), &mut buffer, 1, &mut got).unwrap();
        assert_eq!((&buffer[..received.len], got.len()), (&b"hree"[..], 2));
        assert!(got.into_iter().all(|descriptor| number_of(descriptor) == 7));
    }

    #[test]
    fn more_than_were_asked_for_are_lost_and_told() {
        let (near, far) = stream_channel().unwrap();
        let files: Vec<_> = (0..4).map(numbered).collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        for most in 0..=4 {
            send_all(&near, b"x", &borrowed);
            let mut got = Vec::new();
            let received = receive(far.as_fd(), &mut [0; 2], most, &mut got).unwrap();
            assert_eq!(received, Received { len: 1, truncated: most < 4 });
            let numbers: Vec<_> = got.into_iter().map(number_of).collect();
            assert_eq!(numbers, (0..most).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_to_read_and_no_room_are_told_and_waited_for_with_a_bound() {
        let (near, far) = stream_channel().unwrap();
        let (moment, mut buffer) = (Some(Duration::from_millis(1)), vec![0; 1 << 16]);
        let nothing = receive(far.as_fd(), &mut buffer, 0, &mut Vec::new()).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert!(!wait_readable(far.as_fd(), moment).unwrap());
        assert!(wait_writable(near.as_fd(), moment).unwrap());
        let mut sent = 0;
        let full = loop {
            match send(near.as_fd(), &[IoSlice::new(&buffer), IoSlice::new(b"more")], &[]) {
                Ok(len) => sent += len,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(!wait_writable(near.as_fd(), moment).unwrap());
        let reader = std::thread::spawn(move || {
            let mut read = 0;
            while read < sent {
                assert!(wait_readable(far.as_fd(), None).unwrap());
                read += receive(far.as_fd(), &mut buffer, 0, &mut Vec::new()).unwrap().len;
            }
            far
        });
        assert!(wait_writable(near.as_fd(), None).unwrap());
        drop(reader.join().unwrap());
        assert!(
            wait_readable(near.as_fd(), None).unwrap()
                && wait_writable(near.as_fd(), None).unwrap()
        );
        let gone = send(near.as_fd(), &[IoSlice::new(b"x")], &[]).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn who_hangs_up_reads_what_was_written_before_and_nothing_else() {
        let (near, far) = stream_channel().unwrap();
        send_all(&far, b"before", &[]);
        send_all(&near, b"ours", &[]);
        hang_up(near.as_fd()).unwrap();
        let error = send(far.as_fd(), &[IoSlice::new(b"after")], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        for (end, expected) in [(&near, &b"before"[..]), (&far, b"ours")] {
            let (mut buffer, mut none) = ([0; 32], Vec::new());
            let received = receive(end.as_fd(), &mut buffer, 0, &mut none).unwrap();
            assert_eq!(&buffer[..received.len], expected);
            assert_eq!(receive(end.as_fd(), &mut buffer, 0, &mut none).unwrap().len, 0);
        }
    }

    #[test]
    fn who_is_short_of_descriptors_is_told_and_loses_none_that_came() {
        alone(
            concat!(
                module_path!(),
                "::who_is_short_of_descriptors_is_told_and_loses_none_that_came"
            ),
            100,
            || {
                let (near, far) = stream_channel().unwrap();
                let file = numbered(1);
                let before = open_descriptors();
                send_all(&near, b"abc", &[file.as_fd(); 150]);
                let mut got = Vec::new();
                let received = receive(far.as_fd(), &mut [0; 8], MOST, &mut got).unwrap();
                assert_eq!(received, Received { len: 3, truncated: true });
                assert!(got.len() > 50 && got.len() < 100, "{}", got.len());
                assert!(File::open("/dev/null").is_err(), "there is none left");
                drop(got);
                assert_eq!(open_descriptors(), before);
                // And the next message is whole.
                send_all(&near, b"d", &[file.as_fd(); 50]);
                let mut got = Vec::new();
                let received = receive(far.as_fd(), &mut [0; 8], MOST, &mut got).unwrap();
                assert_eq!((received.truncated, got.len()), (false, 50));
            },
        );
    }

    #[test]
    fn an_ordinary_user_has_only_so_many_on_their_way() {
        alone(
            concat!(module_path!(), "::an_ordinary_user_has_only_so_many_on_their_way"),
            100,
            || {
                let (near, far) = stream_channel().unwrap();
                let file = numbered(1);
                // The kernel looks only at those that are on their way already.
                send_all(&near, b"a", &[file.as_fd(); 80]);
                send_all(&near, b"b", &[file.as_fd(); 80]);
                let error = send(near.as_fd(), &[IoSlice::new(b"c")], &[file.as_fd()]).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(crate::errno::ETOOMANYREFS));
                send_all(&near, b"d", &[]);
                let (mut buffer, mut got) = ([0; 1], Vec::new());
                receive(far.as_fd(), &mut buffer, MOST, &mut got).unwrap();
                assert_eq!((buffer, got.len()), (*b"a", 80));
                send_all(&near, b"e", &[file.as_fd()]);
            },
        );
    }
}
