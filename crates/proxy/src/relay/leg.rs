//! One socket of a tunnel: what epoll said of it, its records, and what its peer has not taken yet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use wssgate_sys::epoll::Event;
use wssgate_sys::socket::{self, Received, Sent};

use super::protection::{Protection, Sealed};
use super::record::TlsFault;
use super::{LegTls, Side};

/// A socket with its readiness (edge-triggered: told once, remembered here) and its unsent bytes.
#[derive(Debug)]
pub(super) struct Leg {
    socket: OwnedFd,
    readable: bool,
    writable: bool,
    /// An end or an error waits behind the bytes: a short read is not the last one.
    hung_up: bool,
    /// epoll said that the socket is broken, and nobody has asked how.
    failed: bool,
    /// The socket was read to its end.
    ended: bool,
    /// A Unix socket tells of room whenever its peer reads, TCP only after a write fell short.
    unix: bool,
    /// Whether epoll is asked to tell of room to write.
    asks_room: bool,
    protection: Protection,
    /// The front of a record whose rest has not come, at most one record; after a hand-over whole ones
    /// too. Owns memory only while there is one.
    unopened: Vec<u8>,
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

/// What one read brought.
pub(super) struct Arrived<'a> {
    /// Bytes of the wire; with none and no end there was nothing.
    pub(super) wire: usize,
    /// Bytes of the protocol inside.
    pub(super) plain: &'a [u8],
    /// How this direction ends behind them, if it does.
    pub(super) end: Option<SourceEnd>,
}

/// How the direction from a leg ends.
#[derive(Debug)]
pub(super) enum SourceEnd {
    /// In good order: FIN, or close_notify with TLS.
    Orderly,
    /// FIN without close_notify: with TLS, nobody knows whether this was all (RFC 8446 §6.1).
    Truncated,
    /// The socket is broken.
    Broken(io::Error),
    /// The records are.
    Fault(TlsFault),
}

/// Why bytes could not be sent.
#[derive(Debug)]
pub(super) enum SendError {
    /// The socket is broken.
    Broken(io::Error),
    /// The keys are worn out.
    Fault(TlsFault),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Leg {
    pub(super) fn new(
        socket: OwnedFd,
        unix: bool,
        tls: LegTls,
        peer: Side,
        record_limit: u64,
    ) -> Self {
        Self {
            socket,
            unix,
            asks_room: false,
            protection: Protection::new(tls, peer, record_limit),
            unopened: Vec::new(),
            readable: false,
            writable: true,
            hung_up: false,
            failed: false,
            ended: false,
            unsent: Unsent::default(),
            progress_ms: 0,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the watch for room has to begin or to stop now. A socket with room would be told of at
    /// once, so nobody asks before bytes are unsent; TCP, once asked, may stay asked.
    pub(super) fn turn_room_watch(&mut self) -> Option<bool> {
        let asks = self.blocked() || self.asks_room && !self.unix;
        (std::mem::replace(&mut self.asks_room, asks) != asks).then_some(asks)
    }

    pub(super) fn on_event(&mut self, event: Event) {
        self.readable |= event.readable;
        self.writable |= event.writable;
        self.hung_up |= event.hung_up;
        self.failed |= event.failed;
    }

    /// The error that epoll told of, once.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        if !std::mem::take(&mut self.failed) {
            return None;
        }
        socket::take_error(self.socket.as_fd()).unwrap_or_else(Some)
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

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.unopened.capacity() + self.unsent.bytes.capacity()
    }

    pub(super) fn progress_ms(&self) -> u64 {
        self.progress_ms
    }

    /// Whether it holds expanded keys.
    pub(super) fn is_awake(&self) -> bool {
        self.protection.is_awake()
    }

    /// Drops the expanded keys until they are needed again.
    pub(super) fn rest(&mut self) {
        self.protection.rest();
    }

    /// Reads once, up to `window` bytes of the wire, and opens the records that are whole.
    pub(super) fn receive<'a>(
        &mut self,
        window: usize,
        input: &'a mut [u8],
        plain: &'a mut [u8],
    ) -> Arrived<'a> {
        let waiting = self.unopened.len();
        let read = match self.read(&mut input[waiting..waiting + window]) {
            Ok(Received::Bytes(n)) => n,
            Ok(Received::Blocked) => return Arrived { wire: 0, plain: &[], end: None },
            Ok(Received::End) => {
                let end = match self.protection {
                    Protection::None => SourceEnd::Orderly,
                    Protection::Keys(_) | Protection::Rustls(_) => SourceEnd::Truncated,
                };
                return Arrived { wire: 0, plain: &[], end: Some(end) };
            }
            Err(error) => {
                return Arrived { wire: 0, plain: &[], end: Some(SourceEnd::Broken(error)) };
            }
        };
        if let Protection::None = self.protection {
            return Arrived { wire: read, plain: &input[..read], end: None };
        }
        input[..waiting].copy_from_slice(&self.unopened);
        let wire = &input[..waiting + read];
        let opened = self.protection.open(wire, plain);
        keep(&mut self.unopened, &wire[opened.consumed..]);
        Arrived { wire: read, plain: &plain[..opened.plain], end: opened.end.map(source_end) }
    }

    /// Opens what was read before the hand-over; the rest of a record waits.
    pub(super) fn open_ahead(&mut self, wire: &[u8]) -> (Vec<u8>, Option<SourceEnd>) {
        let mut plain = vec![0; self.protection.opened_before() + wire.len()];
        let opened = self.protection.open(wire, &mut plain);
        keep(&mut self.unopened, &wire[opened.consumed..]);
        plain.truncate(opened.plain);
        (plain, opened.end.map(source_end))
    }

    /// One `recv`. After a short one nothing more is there, unless the peer has hung up.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let result = socket::recv(self.socket.as_fd(), buffer);
        match result {
            Ok(Received::Bytes(n)) => self.readable = n == buffer.len() || self.hung_up,
            Ok(Received::Blocked) => self.readable = false,
            Ok(Received::End) | Err(_) => {
                self.readable = false;
                self.ended = true;
            }
        }
        result
    }

    /// Seals and sends bytes of the protocol inside; keeps what the kernel does not take.
    pub(super) fn transmit(
        &mut self,
        plain: &[u8],
        output: &mut [u8],
        now_ms: u64,
    ) -> Result<(), SendError> {
        if let Protection::None = self.protection {
            return Ok(self.write(plain, now_ms)?);
        }
        let Sealed { used, fault } = self.protection.seal(plain, output);
        self.write(&output[..used], now_ms)?;
        fault.map_or(Ok(()), |fault| Err(SendError::Fault(fault)))
    }

    /// Sends close_notify, if there is TLS.
    pub(super) fn say_goodbye(&mut self, now_ms: u64) -> io::Result<()> {
        let goodbye = self.protection.close_notify();
        self.write(&goodbye, now_ms)
    }

    /// Tells the peer what was wrong with its records, if it can be told, and ends our direction.
    pub(super) fn complain(&mut self, fault: TlsFault, now_ms: u64) {
        let alert = self.protection.fatal_alert(fault);
        // A peer that takes nothing does not hear of it.
        self.write(&alert, now_ms).ok();
        self.let_go();
    }

    /// Sends `bytes` behind those that are unsent; keeps what the kernel does not take.
    fn write(&mut self, bytes: &[u8], now_ms: u64) -> io::Result<()> {
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
        let mut unsent = std::mem::take(&mut self.unsent);
        let offered = self.offer(&unsent.bytes[unsent.start..], now_ms);
        unsent.start += *offered.as_ref().unwrap_or(&0);
        // With an error they stay, so that what is lost can be counted.
        if unsent.start < unsent.bytes.len() {
            self.unsent = unsent;
        }
        offered.map(|_| ())
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

    /// Ends our direction before the socket is closed, and discards what has come and was not read:
    /// closed above unread bytes, Linux sends RST and throws away what the peer should still hear.
    pub(super) fn let_go(&self) {
        if self.ended {
            // Nothing is unread.
            return;
        }
        const AT_ONCE: usize = 8 * 1024;
        /// A peer that sends without end may have its RST.
        const AT_MOST: usize = 64 * 1024;
        self.shut_down();
        let mut discarded = [0; AT_ONCE];
        for _ in 0..AT_MOST / AT_ONCE {
            if !matches!(socket::recv(self.socket.as_fd(), &mut discarded), Ok(Received::Bytes(_)))
            {
                return;
            }
        }
    }

    /// The peer's direction has ended: forget the front of a record.
    pub(super) fn stop_receiving(&mut self) {
        self.unopened = Vec::new();
    }

    /// Nothing can be sent any more: forget what is kept, and read on to find the end. Says how much
    /// is lost.
    pub(super) fn give_up_sending(&mut self) -> usize {
        let lost = self.unsent_len();
        self.unsent = Unsent::default();
        self.readable = true;
        self.hung_up = true;
        lost
    }
}

fn source_end(end: Result<(), TlsFault>) -> SourceEnd {
    match end {
        Ok(()) => SourceEnd::Orderly,
        Err(fault) => SourceEnd::Fault(fault),
    }
}

/// Makes `kept` hold `bytes`, in memory of just that size.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    *kept = if bytes.is_empty() { Vec::new() } else { bytes.to_vec() };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_broken_socket_did_not_take_is_lost_and_counted() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut leg = Leg::new(near.into(), false, LegTls::Plain, Side::Client, u64::MAX);
        let bytes = vec![7; 1 << 22];
        leg.transmit(&bytes, &mut [], 0).unwrap();
        let unsent = leg.unsent_len();
        assert!(unsent > 0);
        drop(far);
        leg.writable = true;
        assert!(leg.flush(1).is_err());
        assert_eq!(leg.give_up_sending(), unsent);
        assert!(!leg.blocked());
    }
}
