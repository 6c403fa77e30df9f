//! One socket of a tunnel: what epoll said of it, and what its peer has not taken yet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use wssgate_sys::epoll::Event;
use wssgate_sys::socket::{self, Received, Sent};

/// A socket with its readiness (edge-triggered: told once, remembered here) and its unsent bytes.
#[derive(Debug)]
pub(super) struct Leg {
    socket: OwnedFd,
    readable: bool,
    writable: bool,
    /// An end or an error waits behind the bytes: a short read is not the last one.
    hung_up: bool,
    unsent: Unsent,
    /// When the kernel last took bytes, or refused the first of those that are unsent.
    progress_ms: u64,
}

/// Bytes of the wire that the kernel did not take. Owns memory only while there are some.
///
/// Bounded: a leg is given more only when this is empty, except for the closing records of TLS.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    start: usize,
}

impl Leg {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            readable: false,
            writable: true,
            hung_up: false,
            unsent: Unsent::default(),
            progress_ms: 0,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn on_event(&mut self, event: Event) {
        self.readable |= event.readable;
        self.writable |= event.writable;
        self.hung_up |= event.hung_up;
    }

    pub(super) fn readable(&self) -> bool {
        self.readable
    }

    pub(super) fn writable(&self) -> bool {
        self.writable
    }

    /// Whether bytes wait for the peer to take them.
    pub(super) fn blocked(&self) -> bool {
        !self.unsent.bytes.is_empty()
    }

    pub(super) fn unsent_len(&self) -> usize {
        self.unsent.bytes.len() - self.unsent.start
    }

    pub(super) fn progress_ms(&self) -> u64 {
        self.progress_ms
    }

    /// Reads once. After a short read nothing more is there, unless the peer has hung up.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let result = socket::recv(self.socket.as_fd(), buffer);
        match result {
            Ok(Received::Bytes(n)) => self.readable = n == buffer.len() || self.hung_up,
            Ok(Received::End | Received::Blocked) | Err(_) => self.readable = false,
        }
        result
    }

    /// Sends `bytes` behind those that are unsent; keeps what the kernel does not take.
    pub(super) fn write(&mut self, bytes: &[u8], now_ms: u64) -> io::Result<()> {
        self.flush(now_ms)?;
        let taken = if self.blocked() { 0 } else { self.offer(bytes, now_ms)? };
        if taken < bytes.len() {
            if !self.blocked() {
                self.progress_ms = now_ms;
            }
            self.unsent.bytes.extend_from_slice(&bytes[taken..]);
        }
        Ok(())
    }

    /// Sends what is unsent, as far as the kernel takes it.
    pub(super) fn flush(&mut self, now_ms: u64) -> io::Result<()> {
        if !self.blocked() || !self.writable {
            return Ok(());
        }
        let unsent = std::mem::take(&mut self.unsent);
        let taken = self.offer(&unsent.bytes[unsent.start..], now_ms)?;
        let start = unsent.start + taken;
        if start < unsent.bytes.len() {
            self.unsent = Unsent { bytes: unsent.bytes, start };
        }
        Ok(())
    }

    /// One `send`; a short one means that the kernel is full until epoll says otherwise.
    fn offer(&mut self, bytes: &[u8], now_ms: u64) -> io::Result<usize> {
        if !self.writable || bytes.is_empty() {
            return Ok(0);
        }
        let taken = match socket::send(self.socket.as_fd(), bytes)? {
            Sent::Bytes(n) => n,
            Sent::Blocked => 0,
        };
        self.writable = taken == bytes.len();
        if taken > 0 {
            self.progress_ms = now_ms;
        }
        Ok(taken)
    }

    /// Ends our direction on the wire, behind everything that was sent.
    pub(super) fn shut_down(&self) {
        // A socket that is broken already says so when it is read.
        socket::shutdown_write(self.socket.as_fd()).ok();
    }

    /// Nothing can be sent any more: forget what is kept, and read on to find the end.
    pub(super) fn give_up_sending(&mut self) {
        self.unsent = Unsent::default();
        self.readable = true;
        self.hung_up = true;
    }
}
