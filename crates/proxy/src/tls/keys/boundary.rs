//! A socket that gives away whole TLS records only.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ServerHello, TrafficSecrets};

/// The header of a record: type, version, length (RFC 8446 §5.1).
const HEADER: usize = 5;

/// The longest fragment of a record in any TLS (RFC 5246 §6.2.3).
const MAX_FRAGMENT: usize = (1 << 14) + 2048;

/// The longest protected record that is no ticket: an alert, of which none may wait.
const LONGEST_ALERT: usize = 64;

/// The most that waits to be sent along with the first answer; tickets of client certificates may be
/// longer and go at once.
const MAX_LATE: usize = 4096;

/// How much is remembered of what was handed over last: more than a few parts of a ticket.
const MAX_SEEN: usize = 1024;

/// The type of protected records (RFC 8446 §5.2).
const PROTECTED: u8 = 23;

/// A stream below TLS that hands over bytes only when the record that they belong to is complete.
///
/// So whoever reads from it never holds part of a record. It owns memory only while part of a record
/// is waiting for the rest, at most one record and what came behind it in the same read.
#[derive(Debug)]
pub struct RecordBoundary<S> {
    inner: S,
    /// Read and not handed over, from `start`.
    held: Vec<u8>,
    start: usize,
    /// How many bytes at `start` are the rest of a record that did not fit into the reader's buffer.
    rest: usize,
    /// What came is no TLS: all of it is handed over, for rustls to complain about.
    opaque: bool,
    secrets: Option<Box<TrafficSecrets>>,
    /// The whole records that were handed over last, at most [`MAX_SEEN`] bytes: TLS may hold the first
    /// part of a handshake message out of them.
    seen: Vec<u8>,
    tickets: Tickets,
    /// Tickets of a handshake that has ended, to go along with what is sent next.
    late: Vec<u8>,
    /// The last ServerHello of a watched handshake.
    server_hello: Option<ServerHello>,
    sealed: Count,
}

/// Whether what is written can be the tickets behind a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tickets {
    /// The handshake goes on and its peer has the word.
    Written,
    /// The handshake goes on and its peer has said something.
    Read,
    /// The handshake is over, or is not watched.
    Done,
}

impl<S> RecordBoundary<S> {
    /// Stands between `inner` and TLS, from the first byte of the connection.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            held: Vec::new(),
            start: 0,
            rest: 0,
            opaque: false,
            secrets: None,
            seen: Vec::new(),
            tickets: Tickets::Done,
            late: Vec::new(),
            server_hello: None,
            sealed: Count::default(),
        }
    }

    /// Lets the tickets that follow a server's handshake (RFC 8446 §4.6.1) wait for the first write or
    /// flush after it: one packet less, and the client needs them only for its next connection.
    pub fn with_late_tickets(self) -> Self {
        Self { tickets: Tickets::Written, ..self }
    }

    /// Takes bytes of the peer that were read from `inner` before, if there are any.
    pub fn with_read(self, bytes: Vec<u8>) -> Self {
        let tickets = match self.tickets {
            Tickets::Written if !bytes.is_empty() => Tickets::Read,
            tickets => tickets,
        };
        Self { held: bytes, tickets, ..self }
    }

    /// How many records were written.
    pub fn sealed(&self) -> u64 {
        self.sealed.records
    }

    /// The socket.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// What a server has said first, if its handshake was watched for tickets. Of two it is the second:
    /// the first has only asked for another ClientHello (RFC 8446 §4.1.4).
    pub fn server_hello(&self) -> Option<ServerHello> {
        self.server_hello
    }

    pub(super) fn keep(&mut self, secrets: Box<TrafficSecrets>) {
        self.secrets = Some(secrets);
        self.tickets = Tickets::Done;
    }

    /// Whether these are tickets that can wait: what a server writes under its keys after the peer has
    /// spoken, and no alert. The flights of a handshake all begin with an unprotected record.
    fn can_wait(&self, first: Option<&u8>, len: usize) -> bool {
        self.tickets == Tickets::Read
            && first == Some(&PROTECTED)
            && (LONGEST_ALERT..MAX_LATE).contains(&len)
            && self.late.is_empty()
    }

    /// All of it; nothing if a record has been handed over in part.
    pub(super) fn into_parts(mut self) -> Option<Parts<S>> {
        if self.rest > 0 || self.opaque {
            return None;
        }
        self.held.drain(..self.start);
        Some(Parts {
            inner: self.inner,
            unseen: self.held,
            seen: self.seen,
            late: self.late,
            secrets: self.secrets.unwrap_or_default(),
        })
    }

    /// How many held bytes may be handed to a reader with room for `room`, and whether they are whole
    /// records.
    fn ready(&mut self, room: usize) -> (usize, bool) {
        let held = &self.held[self.start..];
        if self.opaque {
            return (held.len().min(room), false);
        }
        if self.rest == 0 {
            let (whole, first) = match whole_records(held, room) {
                Ok(lengths) => lengths,
                Err(NotTls) => {
                    self.opaque = true;
                    return (held.len().min(room), false);
                }
            };
            if whole > 0 || first == 0 {
                return (whole, true);
            }
            // A reader with less room than one record gets it in parts; until the last of them the
            // keys cannot be taken.
            self.rest = first;
        }
        let part = self.rest.min(room);
        self.rest -= part;
        (part, false)
    }

    fn hand_over(&mut self, len: usize, buffer: &mut ReadBuf<'_>) {
        buffer.put_slice(&self.held[self.start..self.start + len]);
        self.start += len;
        if self.start == self.held.len() {
            self.held = Vec::new();
            self.start = 0;
        }
    }
}

/// Counts the records in a stream of bytes.
#[derive(Debug, Default)]
struct Count {
    records: u64,
    /// The header that has begun.
    header: [u8; HEADER],
    header_len: usize,
    /// How much of the record is still to come.
    rest: usize,
}

impl Count {
    fn add(&mut self, mut bytes: &[u8]) {
        while let Some((&first, behind)) = bytes.split_first() {
            if self.rest > 0 {
                let len = self.rest.min(bytes.len());
                self.rest -= len;
                bytes = &bytes[len..];
                continue;
            }
            self.header[self.header_len] = first;
            self.header_len += 1;
            bytes = behind;
            if self.header_len == HEADER {
                self.rest = record_len(&self.header) - HEADER;
                self.header_len = 0;
                self.records += 1;
            }
        }
    }
}

/// A boundary taken apart.
pub(super) struct Parts<S> {
    /// The socket.
    pub(super) inner: S,
    /// What was read from it and nobody has seen, beginning at a record.
    pub(super) unseen: Vec<u8>,
    /// The whole records that were handed over last.
    pub(super) seen: Vec<u8>,
    /// What was written and waits to go along with more.
    pub(super) late: Vec<u8>,
    pub(super) secrets: Box<TrafficSecrets>,
}

/// Remembers the last of these records.
fn remember(seen: &mut Vec<u8>, records: &[u8]) {
    let mut last = records;
    while last.len() > MAX_SEEN {
        last = &last[record_len(last)..];
    }
    if last.len() < records.len() {
        seen.clear();
    }
    seen.extend_from_slice(last);
    while seen.len() > MAX_SEEN {
        seen.drain(..record_len(seen));
    }
}

/// How long the record at the front is, which is whole.
fn record_len(bytes: &[u8]) -> usize {
    match *bytes {
        [_, _, _, high, low, ..] => HEADER + usize::from(u16::from_be_bytes([high, low])),
        _ => bytes.len(),
    }
}

impl<S: AsyncRead + Unpin> RecordBoundary<S> {
    /// Reads past the caller: into its buffer, taking back what is not whole.
    fn poll_read_through(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let arrived = &buffer.filled()[before..];
        let len = arrived.len();
        match whole_records(arrived, len) {
            Ok((whole, _)) => {
                remember(&mut self.seen, &arrived[..whole]);
                if whole < len {
                    self.held.extend_from_slice(&arrived[whole..]);
                    buffer.set_filled(before + whole);
                }
            }
            Err(NotTls) => self.opaque = true,
        }
        Poll::Ready(Ok(len))
    }

    /// Reads what the record at the front of `held` still lacks.
    fn poll_read_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let len = self.held.len();
        let lacks = lacking(&self.held[self.start..]);
        self.held.resize(len + lacks, 0);
        let mut buffer = ReadBuf::new(&mut self.held[len..]);
        let poll = Pin::new(&mut self.inner).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        self.held.truncate(len + read);
        ready!(poll)?;
        Poll::Ready(Ok(read))
    }
}

struct NotTls;

/// How long the whole records at the front of `bytes` are: those that end within `room`, and the first
/// one alone.
fn whole_records(bytes: &[u8], room: usize) -> Result<(usize, usize), NotTls> {
    let (mut whole, mut first) = (0, 0);
    loop {
        let rest = &bytes[whole..];
        let [kind, major, _, high, low, ..] = *rest else { break };
        let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
        // The types of RFC 8446 §5.1 and the heartbeat of RFC 6520.
        if !(20..=24).contains(&kind) || major != 3 || len > HEADER + MAX_FRAGMENT {
            // Records before it are good, and rustls is to see them first.
            return if whole > 0 { Ok((whole, first)) } else { Err(NotTls) };
        }
        if rest.len() < len {
            break;
        }
        if first == 0 {
            first = len;
        }
        if whole + len > room {
            break;
        }
        whole += len;
    }
    Ok((whole, first))
}

/// How many bytes the record at the front lacks, at least one.
fn lacking(bytes: &[u8]) -> usize {
    match *bytes {
        [_, _, _, high, low, ..] => {
            let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
            // Never 0, because reading into no room looks like the end of the connection.
            len.saturating_sub(bytes.len()).max(1)
        }
        _ => HEADER - bytes.len(),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RecordBoundary<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            let (ready, whole) = this.ready(buffer.remaining());
            if ready > 0 {
                match whole {
                    true => remember(&mut this.seen, &this.held[this.start..this.start + ready]),
                    false => this.seen.clear(),
                }
                this.hand_over(ready, buffer);
                return Poll::Ready(Ok(()));
            }
            let read = if this.held.is_empty() {
                ready!(this.poll_read_through(cx, buffer))?
            } else {
                ready!(this.poll_read_held(cx))?
            };
            if this.tickets == Tickets::Written {
                this.tickets = Tickets::Read;
            }
            if read == 0 || buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> RecordBoundary<S> {
    /// Writes, or keeps what can wait; says how many bytes were taken.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.late.is_empty() {
            return self.poll_write_late(cx, bytes);
        }
        if self.tickets != Tickets::Done {
            let len = bytes.iter().map(|slice| slice.len()).sum();
            if self.can_wait(bytes.iter().flat_map(|slice| slice.first()).next(), len) {
                bytes.iter().for_each(|slice| self.late.extend_from_slice(slice));
                return Poll::Ready(Ok(len));
            }
            self.tickets = Tickets::Written;
            let first = bytes.first().and_then(|slice| ServerHello::read(slice));
            self.server_hello = first.or(self.server_hello);
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    /// Sends late tickets with `bytes` behind them; says how much of `bytes` was taken.
    fn poll_write_late(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let slices: Vec<_> = std::iter::once(io::IoSlice::new(&self.late))
                .chain(bytes.iter().map(|slice| io::IoSlice::new(slice)))
                .collect();
            let taken = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &slices))?;
            // Nothing taken of something would keep this loop busy for ever.
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if taken < self.late.len() {
                self.late.drain(..taken);
                continue;
            }
            let of_bytes = taken - self.late.len();
            self.late = Vec::new();
            if of_bytes > 0 || bytes.iter().all(|slice| slice.is_empty()) {
                return Poll::Ready(Ok(of_bytes));
            }
            // Tried at once: to say that nothing was taken would mean that nothing ever will be.
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RecordBoundary<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let taken = ready!(this.poll_take(cx, bytes))?;
        let mut left = taken;
        for slice in bytes {
            let len = slice.len().min(left);
            this.sealed.add(&slice[..len]);
            left -= len;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.late.is_empty() && this.tickets == Tickets::Done {
            ready!(this.poll_write_late(cx, &[]))?;
        }
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.late.is_empty() {
            ready!(this.poll_write_late(cx, &[]))?;
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn record(len: usize) -> Vec<u8> {
        let mut bytes = vec![23, 3, 3];
        bytes.extend_from_slice(&(len as u16).to_be_bytes());
        bytes.resize(HEADER + len, 7);
        bytes
    }

    /// Whether `bytes` ends where a record does.
    fn ends_whole(bytes: &[u8]) -> bool {
        whole_records(bytes, bytes.len()).is_ok_and(|(whole, _)| whole == bytes.len())
    }

    #[tokio::test]
    async fn a_reader_with_room_only_ever_sees_whole_records() {
        let wire: Vec<u8> = [0, 1, 300, 40, 16_640, 2].into_iter().flat_map(record).collect();
        for step in [1, 2, 5, 7, 300, 4096, 1 << 16] {
            let (mut far, near) = tokio::io::duplex(1 << 17);
            let mut boundary = RecordBoundary::new(near);
            let mut seen = Vec::new();
            for chunk in wire.chunks(step) {
                far.write_all(chunk).await.unwrap();
                loop {
                    let mut buffer = vec![0; 1 << 16];
                    let read = tokio::select! {
                        biased;
                        n = boundary.read(&mut buffer) => n.unwrap(),
                        () = std::future::ready(()) => break,
                    };
                    seen.extend_from_slice(&buffer[..read]);
                    assert!(ends_whole(&seen), "{step}");
                }
            }
            assert_eq!(seen, wire);
            assert_eq!(boundary.held.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn a_record_larger_than_the_readers_buffer_comes_in_pieces_and_nothing_behind_it() {
        let (mut far, near) = tokio::io::duplex(1 << 17);
        let mut boundary = RecordBoundary::new(near);
        far.write_all(&[record(10_000), record(10)].concat()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let mut pieces = Vec::new();
        for _ in 0..4 {
            pieces.push(boundary.read(&mut buffer).await.unwrap());
        }
        assert_eq!(pieces, [4096, 4096, 10_005 - 8192, 15]);
    }

    #[test]
    fn records_are_counted_wherever_writes_end() {
        let wire: Vec<u8> = [0, 1, 300, 40, 16_640, 2].into_iter().flat_map(record).collect();
        for step in [1, 3, 5, 100, 1 << 15] {
            let mut count = Count::default();
            wire.chunks(step).for_each(|chunk| count.add(chunk));
            assert_eq!((count.records, count.rest, count.header_len), (6, 0, 0), "{step}");
        }
    }

    #[tokio::test]
    async fn what_is_left_over_begins_at_a_record() {
        let (mut far, near) = tokio::io::duplex(1 << 17);
        let mut boundary = RecordBoundary::new(near);
        far.write_all(&[&record(10)[..], &record(20)[..9]].concat()).await.unwrap();
        let mut buffer = vec![0; 4096];
        assert_eq!(boundary.read(&mut buffer).await.unwrap(), 15);
        let parts = boundary.into_parts().unwrap();
        assert_eq!(parts.unseen, record(20)[..9]);
        assert_eq!(parts.seen, record(10));
    }

    #[tokio::test]
    async fn what_is_no_tls_passes_at_once() {
        let (mut far, near) = tokio::io::duplex(1 << 17);
        let mut boundary = RecordBoundary::new(near);
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut buffer = vec![0; 4096];
        assert_eq!(boundary.read(&mut buffer).await.unwrap(), 18);
    }

    #[tokio::test]
    async fn tickets_behind_a_handshake_go_along_with_the_first_answer() {
        for flushed in [false, true] {
            let (mut far, near) = tokio::io::duplex(1 << 17);
            let mut boundary = RecordBoundary::new(near).with_late_tickets();
            let mut seen = vec![0; 4096];
            far.write_all(&record(30)).await.unwrap();
            assert_eq!(boundary.read(&mut seen).await.unwrap(), 35);
            let alert = record(19);
            boundary.write_all(&alert).await.unwrap();
            assert_eq!(far.read(&mut seen).await.unwrap(), alert.len());
            far.write_all(&record(30)).await.unwrap();
            assert_eq!(boundary.read(&mut seen).await.unwrap(), 35);
            boundary.write_all(&record(200)).await.unwrap();
            boundary.flush().await.unwrap();
            assert!(!boundary.late.is_empty());
            boundary.keep(Box::default());
            if flushed {
                boundary.flush().await.unwrap();
                assert_eq!(far.read(&mut seen).await.unwrap(), 205);
            }
            boundary.write_all(&record(100)).await.unwrap();
            let expected = if flushed { 105 } else { 205 + 105 };
            let mut rest = vec![0; expected];
            far.read_exact(&mut rest).await.unwrap();
            assert_eq!(boundary.late.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn an_end_within_a_record_is_an_end() {
        let (mut far, near) = tokio::io::duplex(1 << 17);
        let mut boundary = RecordBoundary::new(near);
        far.write_all(&record(20)[..9]).await.unwrap();
        drop(far);
        assert_eq!(boundary.read(&mut [0; 64]).await.unwrap(), 0);
    }
}
