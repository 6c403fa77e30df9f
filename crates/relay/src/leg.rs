//! One socket of a tunnel: what epoll said of it, its records, and what its peer has not taken yet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use wssgate_records::TlsFault;
use wssgate_sys::epoll::Event;
use wssgate_sys::socket::{self, Received, Sent};

use crate::buffers::{Buffer, BufferRange, Buffers};
use crate::protection::Protection;
use crate::{LegTls, Side};

/// A socket with its readiness (edge-triggered: told once, remembered here) and its unsent bytes.
#[derive(Debug)]
pub(crate) struct Leg {
    socket: OwnedFd,
    readable: bool,
    writable: bool,
    /// An end or an error waits behind the bytes: a short read is not the last one.
    hung_up: bool,
    /// It has hung up, and nothing but that is left to be read.
    at_end: bool,
    /// It was read since it has hung up, though it had to wait.
    looked_for_end: bool,
    /// epoll said that the socket is broken, and nobody has asked how.
    failed: bool,
    /// The socket was read to its end.
    pub(crate) ended: bool,
    /// It has come from another process.
    pub(crate) has_moved: bool,
    /// A Unix socket tells of room whenever its peer reads, TCP only after a write fell short.
    pub(crate) unix: bool,
    /// Whether epoll is asked for EPOLLOUT.
    wants_writable: bool,
    pub(crate) protection: Protection,
    /// The front of a record whose rest has not come, at most one record; after a hand-over whole ones
    /// too. Owns memory only while there is one.
    pub(crate) unopened: Vec<u8>,
    pub(crate) unsent: Unsent,
    /// When the kernel last took bytes, or refused the first of those that are unsent.
    pub(crate) progress_ms: u64,
    /// Since when some are unsent, if some are.
    pub(crate) blocked_since_ms: u64,
    /// How long some were unsent before.
    pub(crate) blocked_ms: u64,
}

/// Bytes of the wire that the kernel did not take. Owns memory only while there are some.
///
/// Bounded: a leg is given more only when this is empty, except for the closing records of TLS.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: usize,
}

/// How the direction from a leg ends.
#[derive(Debug)]
pub(crate) enum SourceEnd {
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
pub(crate) enum SendError {
    /// The socket is broken.
    Broken(io::Error),
    /// The keys are exhausted.
    Fault(TlsFault),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Leg {
    pub(crate) fn new(
        socket: OwnedFd,
        unix: bool,
        tls: LegTls,
        peer: Side,
        record_limit: u64,
    ) -> Self {
        Self::with_protection(socket, unix, Protection::new(tls, peer, record_limit))
    }

    pub(crate) fn with_protection(socket: OwnedFd, unix: bool, protection: Protection) -> Self {
        Self {
            socket,
            unix,
            wants_writable: false,
            protection,
            unopened: Vec::new(),
            readable: false,
            writable: true,
            hung_up: false,
            at_end: false,
            looked_for_end: false,
            failed: false,
            ended: false,
            has_moved: false,
            unsent: Unsent::default(),
            progress_ms: 0,
            blocked_since_ms: 0,
            blocked_ms: 0,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether EPOLLOUT has to be asked for, or no longer, if that changes. A socket with room would be told
    /// of at once, so nobody asks before bytes are unsent; TCP, once asked, may stay asked.
    pub(crate) fn take_interest_change(&mut self) -> Option<bool> {
        let wants = self.blocked() || self.wants_writable && !self.unix;
        (std::mem::replace(&mut self.wants_writable, wants) != wants).then_some(wants)
    }

    /// Nobody watches it for room any more.
    pub(crate) fn forget_interest(&mut self) {
        self.wants_writable = false;
    }

    pub(crate) fn on_event(&mut self, event: Event) {
        self.readable |= event.readable;
        self.writable |= event.writable;
        self.hung_up |= event.hung_up;
        self.failed |= event.failed;
    }

    /// The error that epoll told of, once.
    pub(crate) fn failure(&mut self) -> Option<io::Error> {
        if !std::mem::take(&mut self.failed) {
            return None;
        }
        socket::take_error(self.socket.as_fd()).unwrap_or_else(Some)
    }

    pub(crate) fn readable(&self) -> bool {
        self.readable
    }

    /// Whether its end may be what is read next, as far as that is not known by one look.
    pub(crate) fn may_be_at_end(&self) -> bool {
        self.hung_up && (self.at_end || !self.looked_for_end)
    }

    /// It is read, though it should wait.
    pub(crate) fn look_for_end(&mut self) {
        self.looked_for_end = true;
    }

    pub(crate) fn writable(&self) -> bool {
        self.writable
    }

    /// Whether bytes wait for the peer to take them.
    pub(crate) fn blocked(&self) -> bool {
        !self.unsent.bytes.is_empty()
    }

    pub(crate) fn unsent_len(&self) -> usize {
        self.unsent.bytes.len() - self.unsent.start
    }

    /// Whether the peer is there and takes bytes: the kernel holds some for it, and it has acknowledged some
    /// within this time.
    pub(crate) fn is_being_read(&self, within: Duration) -> bool {
        let held = socket::unacknowledged(self.fd()).is_ok_and(|bytes| bytes > 0);
        held && socket::tcp_info(self.fd()).is_ok_and(|info| info.last_ack < within)
    }

    /// Since when some bytes are unsent, if some are.
    pub(crate) fn blocked_since_ms(&self) -> Option<u64> {
        self.blocked().then_some(self.blocked_since_ms)
    }

    /// How long bytes were unsent until now, in all.
    pub(crate) fn blocked_ms(&self, now_ms: u64) -> u64 {
        let now = self.blocked_since_ms().map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        self.blocked_ms + now
    }

    /// The same without a wait that goes on.
    pub(crate) fn past_blocked_ms(&self) -> u64 {
        self.blocked_ms
    }

    #[cfg(test)]
    pub(crate) fn has_records(&self) -> bool {
        matches!(self.protection, Protection::Keys(_))
    }

    #[cfg(test)]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.unopened.capacity() + self.unsent.bytes.capacity()
    }

    pub(crate) fn progress_ms(&self) -> u64 {
        self.progress_ms
    }

    /// Whether it holds expanded keys.
    pub(crate) fn has_expanded_keys(&self) -> bool {
        self.protection.has_expanded_keys()
    }

    /// Drops the expanded keys until they are needed again.
    pub(crate) fn compact(&mut self) {
        self.protection.compact();
    }

    /// How many bytes of the front of a record wait for what is read next.
    pub(crate) fn unopened_len(&self) -> usize {
        self.unopened.len()
    }

    /// Learns from a read of at most `window` bytes; says how the direction from here ends if it does.
    ///
    /// After a short read nothing more is there, unless the peer has hung up.
    pub(crate) fn on_read(
        &mut self,
        window: usize,
        result: io::Result<Received>,
    ) -> Option<SourceEnd> {
        self.readable = matches!(result, Ok(Received::Bytes(n)) if n == window || self.hung_up);
        self.at_end = self.hung_up && matches!(result, Ok(Received::Bytes(n)) if n < window);
        let end = match result {
            Ok(Received::Bytes(_) | Received::Blocked) => return None,
            Ok(Received::End) => match self.protection {
                Protection::None => SourceEnd::Orderly,
                Protection::Keys(_) => SourceEnd::Truncated,
            },
            Err(error) => SourceEnd::Broken(error),
        };
        self.ended = true;
        Some(end)
    }

    /// Opens the records that are whole; `wire` begins with room for what waits.
    pub(crate) fn open(
        &mut self,
        wire: BufferRange,
        buffers: &mut Buffers,
        now_ms: u64,
    ) -> (BufferRange, Option<SourceEnd>) {
        if let Protection::None = self.protection {
            return (wire, None);
        }
        let Buffers { input, plain, .. } = buffers;
        let wire = input.bytes_mut(wire);
        wire[..self.unopened.len()].copy_from_slice(&self.unopened);
        let opened = self.protection.open(wire, plain.free(), now_ms);
        keep(&mut self.unopened, &wire[opened.consumed..]);
        let start = plain.alloc(opened.plain);
        let plain = BufferRange { buffer: Buffer::Plain, start, len: opened.plain };
        (plain, opened.end.map(source_end))
    }

    /// Opens what was read before the hand-over; the rest of a record waits.
    pub(crate) fn open_ahead(&mut self, wire: &[u8], now_ms: u64) -> (Vec<u8>, Option<SourceEnd>) {
        let mut plain = vec![0; wire.len()];
        let opened = self.protection.open(wire, &mut plain, now_ms);
        keep(&mut self.unopened, &wire[opened.consumed..]);
        plain.truncate(opened.plain);
        (plain, opened.end.map(source_end))
    }

    /// Seals bytes of the protocol inside; with a fault none of them are in what goes out.
    pub(crate) fn seal(
        &mut self,
        plain: BufferRange,
        buffers: &mut Buffers,
    ) -> (BufferRange, Option<TlsFault>) {
        if let Protection::None = self.protection {
            return (plain, None);
        }
        let Buffers { input, plain: opened, output } = buffers;
        let from = if plain.buffer == Buffer::Input { input } else { opened };
        let sealed = self.protection.seal(from.bytes(plain), output.free());
        let len = *sealed.as_ref().unwrap_or(&0);
        let start = output.alloc(len);
        (BufferRange { buffer: Buffer::Output, start, len }, sealed.err())
    }

    /// Whether its close_notify is the end of both directions.
    pub(crate) fn ends_as_a_whole(&self) -> bool {
        self.protection.is_tls_12()
    }

    /// Whether bytes for the peer need not wait behind others.
    pub(crate) fn takes_bytes(&self) -> bool {
        !self.blocked() && self.writable
    }

    /// Sends what was sealed, or has been sent already with the outcome `tried`; keeps what the kernel
    /// does not take.
    pub(crate) fn send(
        &mut self,
        sealed: &[u8],
        tried: Option<io::Result<Sent>>,
        now_ms: u64,
    ) -> io::Result<()> {
        match tried {
            Some(result) => {
                let taken = self.on_sent(sealed.len(), result?, now_ms);
                self.keep_unsent(&sealed[taken..], now_ms);
                Ok(())
            }
            None => self.write(sealed, now_ms),
        }
    }

    /// Seals and sends bytes of the protocol inside; keeps what the kernel does not take.
    pub(crate) fn transmit(
        &mut self,
        plain: &[u8],
        output: &mut [u8],
        now_ms: u64,
    ) -> Result<(), SendError> {
        if let Protection::None = self.protection {
            return Ok(self.write(plain, now_ms)?);
        }
        let sealed = self.protection.seal(plain, output).map_err(SendError::Fault)?;
        Ok(self.write(&output[..sealed], now_ms)?)
    }

    /// Sends close_notify, if there is TLS.
    pub(crate) fn send_close_notify(&mut self, now_ms: u64) -> io::Result<()> {
        let alert = self.protection.close_notify();
        self.write(&alert, now_ms)
    }

    /// Tells the peer what was wrong with its records, if it can be told, and ends our direction.
    pub(crate) fn send_alert(&mut self, fault: TlsFault, now_ms: u64) {
        let alert = self.protection.fatal_alert(fault);
        // A peer that takes nothing is not told.
        self.write(&alert, now_ms).ok();
        self.end();
    }

    /// Sends `bytes` behind those that are unsent; keeps what the kernel does not take.
    fn write(&mut self, bytes: &[u8], now_ms: u64) -> io::Result<()> {
        self.flush(now_ms)?;
        let taken = if self.blocked() { 0 } else { self.offer(bytes, now_ms)? };
        self.keep_unsent(&bytes[taken..], now_ms);
        Ok(())
    }

    /// Keeps what is to be sent behind what is kept already.
    pub(crate) fn keep_unsent(&mut self, bytes: &[u8], now_ms: u64) {
        if bytes.is_empty() {
            return;
        }
        if !self.blocked() {
            self.progress_ms = now_ms;
            self.blocked_since_ms = now_ms;
        }
        self.unsent.bytes.extend_from_slice(bytes);
    }

    /// Sends what is unsent, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, now_ms: u64) -> io::Result<()> {
        if !self.blocked() || !self.writable {
            return Ok(());
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        let offered = self.offer(&unsent.bytes[unsent.start..], now_ms);
        unsent.start += *offered.as_ref().unwrap_or(&0);
        // With an error they stay, so that what is lost can be counted.
        if unsent.start < unsent.bytes.len() {
            self.unsent = unsent;
        } else {
            self.blocked_ms += now_ms.saturating_sub(self.blocked_since_ms);
        }
        offered.map(|_| ())
    }

    /// One `send`; says how much the kernel took.
    fn offer(&mut self, bytes: &[u8], now_ms: u64) -> io::Result<usize> {
        if !self.writable || bytes.is_empty() {
            return Ok(0);
        }
        let sent = socket::send(self.socket.as_fd(), bytes)?;
        Ok(self.on_sent(bytes.len(), sent, now_ms))
    }

    /// Learns from a `send` of `len` bytes how much the kernel took. With less it is full until epoll
    /// says otherwise.
    fn on_sent(&mut self, len: usize, sent: Sent, now_ms: u64) -> usize {
        let taken = match sent {
            Sent::Bytes(n) => n,
            Sent::Blocked => 0,
        };
        self.writable = taken == len;
        if taken > 0 {
            self.progress_ms = now_ms;
        }
        taken
    }

    /// Ends our direction on the wire, behind everything that was sent.
    pub(crate) fn shutdown_write(&self) {
        // A socket that is broken already says so when it is read.
        socket::shutdown_write(self.socket.as_fd()).ok();
    }

    /// Ends our direction before the socket is closed; the peer's may go on. Where it has ended, closing says
    /// it, unless the process that it has come from has not closed it yet.
    pub(crate) fn end(&self) {
        if !self.ended || self.has_moved {
            self.shutdown_write();
        }
    }

    /// The socket, if its peer may still send something; see [`crate::lingering`].
    pub(crate) fn into_lingering(self) -> Option<OwnedFd> {
        (!self.ended).then_some(self.socket)
    }

    /// The peer's direction has ended: forget the front of a record.
    pub(crate) fn discard_unopened(&mut self) {
        self.unopened = Vec::new();
    }

    /// Nothing can be sent any more: forget what is kept, and read on to find the end. Says how much
    /// is lost.
    pub(crate) fn discard_unsent(&mut self) -> usize {
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
        assert_eq!(leg.discard_unsent(), unsent);
        assert!(!leg.blocked());
    }
}
