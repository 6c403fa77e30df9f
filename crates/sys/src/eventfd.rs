//! A doorbell between threads: `ring` in one makes a descriptor readable in the other's epoll.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::epoll::check;

/// An `eventfd(2)`, non-blocking.
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
}

impl EventFd {
    /// Makes a silent one.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers; the result is checked before use.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: eventfd has just returned this descriptor, and nobody else knows it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Makes the descriptor readable; rings that nobody has heard yet become one.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // The only errors possible are "already full" (then it is readable) and a signal before the
        // write, which does not happen to a non-blocking one.
        // SAFETY: the buffer is eight bytes and lives through the call.
        unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes the descriptor silent again. Call it before looking at what the ring announced.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is eight bytes and lives through the call.
        unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::epoll::{Epoll, Events};

    #[test]
    fn two_rings_are_heard_until_cleared_once() {
        let bell = EventFd::new().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add_level_readable(bell.as_fd(), 3).unwrap();
        let mut events = Events::with_capacity(4);
        let mut heard = || {
            epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
            events.iter().count()
        };
        assert_eq!(heard(), 0);
        bell.ring();
        bell.ring();
        assert_eq!(heard(), 1);
        bell.clear();
        assert_eq!(heard(), 0);
    }
}
