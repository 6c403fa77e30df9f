//! An edge-triggered epoll instance: who became ready, as words.
//!
//! Edge-triggered means that an event is told once. The caller remembers readiness until a call says
//! that the socket would block (see [`crate::socket`]).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What epoll said about one descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The token under which the descriptor was added.
    pub token: u64,
    /// There are bytes, an end or an error to read.
    pub readable: bool,
    /// There is room to write again, or an error to find by writing.
    pub writable: bool,
    /// The peer has ended its direction, or the socket is broken: a short read is not the last one.
    pub hung_up: bool,
    /// The socket is broken; its error waits to be taken.
    pub failed: bool,
}

/// Room for the events of one wait, made once and used again.
pub struct Events {
    raw: Vec<libc::epoll_event>,
    len: usize,
}

impl Events {
    /// Room for `capacity` events at a time; more of them wait for the next call.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { raw: vec![libc::epoll_event { events: 0, u64: 0 }; capacity.max(1)], len: 0 }
    }

    /// The events of the last wait.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.raw[..self.len].iter().map(|raw| {
            let bits = raw.events;
            let broken = has(bits, libc::EPOLLHUP | libc::EPOLLERR);
            let hung_up = broken || has(bits, libc::EPOLLRDHUP);
            Event {
                token: raw.u64,
                readable: hung_up || has(bits, libc::EPOLLIN),
                writable: broken || has(bits, libc::EPOLLOUT),
                hung_up,
                failed: has(bits, libc::EPOLLERR),
            }
        })
    }
}

fn has(bits: u32, flags: libc::c_int) -> bool {
    bits & flags as u32 != 0
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// Makes an instance that children do not inherit.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers; the result is checked before use.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: epoll_create1 has just returned this descriptor, and nobody else knows it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Watches a socket, edge-triggered, for bytes, ends and errors, and with `room` for room to write.
    ///
    /// What is already ready is told by the next wait.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, room: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, edges(room), token)
    }

    /// Watches for room to write from now on, or no longer. Room that is there already is told too.
    pub fn set_room(&self, fd: BorrowedFd<'_>, token: u64, room: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, edges(room), token)
    }

    /// Watches a descriptor for bytes to read, level-triggered: it is told as long as there are some.
    pub fn add_level_readable(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, token)
    }

    /// Watches the descriptor no longer.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits until something is ready or `timeout` has passed (`None`: for ever).
    ///
    /// The wait is rounded up to whole milliseconds, so it never ends before `timeout`. A signal ends
    /// it with no events.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.len = 0;
        let capacity = libc::c_int::try_from(events.raw.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `raw` holds at least `capacity` initialised entries and lives through the call.
        let result = check(unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                events.raw.as_mut_ptr(),
                capacity,
                whole_ms(timeout),
            )
        });
        match result {
            Ok(count) => events.len = usize::try_from(count).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: BorrowedFd<'_>,
        flags: u32,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: flags, u64: token };
        // SAFETY: both descriptors are borrowed for the call; `event` lives through it.
        check(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), &mut event)
        })?;
        Ok(())
    }
}

fn edges(room: bool) -> u32 {
    let out = if room { libc::EPOLLOUT } else { 0 };
    (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET | out) as u32
}

fn whole_ms(timeout: Option<Duration>) -> libc::c_int {
    let Some(timeout) = timeout else { return -1 };
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX)
}

pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_edge_is_told_once_and_a_level_as_long_as_it_lasts() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let level = far.try_clone().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(far.as_fd(), 7, true).unwrap();
        epoll.add_level_readable(level.as_fd(), 8).unwrap();
        near.write_all(b"x").unwrap();
        let mut events = Events::with_capacity(8);
        let mut tokens = || {
            epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
            let mut seen: Vec<_> = events.iter().filter(|e| e.readable).map(|e| e.token).collect();
            seen.sort_unstable();
            seen
        };
        assert_eq!(tokens(), [7, 8]);
        assert_eq!(tokens(), [8]);
    }

    #[test]
    fn the_end_of_a_peer_is_a_hang_up() {
        let (near, far) = UnixStream::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(far.as_fd(), 1, true).unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let mut events = Events::with_capacity(1);
        epoll.wait(&mut events, None).unwrap();
        let event = events.iter().next().unwrap();
        assert!(event.readable && event.hung_up);
    }

    #[test]
    fn a_deleted_descriptor_is_silent() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(far.as_fd(), 1, true).unwrap();
        epoll.delete(far.as_fd()).unwrap();
        near.write_all(b"x").unwrap();
        let mut events = Events::with_capacity(1);
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.iter().count(), 0);
    }

    #[test]
    fn room_is_told_only_to_who_asks() {
        let (_near, far) = UnixStream::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(far.as_fd(), 1, false).unwrap();
        let mut events = Events::with_capacity(1);
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.iter().count(), 0);
        epoll.set_room(far.as_fd(), 1, true).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.iter().all(|event| event.writable && !event.readable));
        assert_eq!(events.iter().count(), 1);
    }

    #[test]
    fn a_wait_is_rounded_up() {
        assert_eq!(whole_ms(None), -1);
        assert_eq!(whole_ms(Some(Duration::ZERO)), 0);
        assert_eq!(whole_ms(Some(Duration::from_micros(1))), 1);
        assert_eq!(whole_ms(Some(Duration::from_secs(1 << 40))), libc::c_int::MAX);
    }
}
