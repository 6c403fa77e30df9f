//! The client's side of a connection: bytes in and out, shared by whoever reads the body and
//! whoever writes the answer.
//!
//! One task owns a connection, so one `RefCell` beneath both is enough; it is only borrowed inside
//! a poll, never across one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::exchange::request::ConnectionInfo;
use crate::listen::Stream;
use crate::tls::keys::RecordBoundary;

/// How much is read at once.
const READ_SIZE: usize = 16 * 1024;
/// How much may be read ahead while nobody asks for it: enough to notice that a client has gone.
const READ_AHEAD: usize = 16 * 1024;

thread_local! {
    /// Where bytes arrive first, so that a connection that waits owns no read buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into());
}

/// The client can no longer be written to: it has gone, or took nothing for `send_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The connection is closed or broken.
    #[error("client closed connection")]
    Closed,
    /// Nothing could be written for too long.
    #[error("client timed out")]
    Timeout,
}

/// A client's socket, with TLS or without.
pub enum ClientStream {
    /// Plain.
    Plain(Stream),
    /// After a TLS handshake.
    Tls(Box<TlsStream<RecordBoundary<Stream>>>),
}

impl ClientStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, parts),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

/// A client connection.
pub struct Client {
    /// What is known of it.
    pub info: Rc<ConnectionInfo>,
    io: RefCell<Io>,
    timed_out: Cell<bool>,
}

struct Io {
    stream: ClientStream,
    /// Read, but not looked at yet.
    input: BytesMut,
    eof: bool,
}

impl Client {
    /// A connection of which nothing was read.
    pub fn new(info: Rc<ConnectionInfo>, stream: ClientStream) -> Self {
        let io = Io { stream, input: BytesMut::new(), eof: false };
        Self { info, io: RefCell::new(io), timed_out: Cell::new(false) }
    }

    /// Takes bytes that were read before.
    pub(crate) fn with_read(mut self, bytes: Vec<u8>) -> Self {
        self.info.received.set(self.info.received.get() + bytes.len() as u64);
        self.io.get_mut().input = BytesMut::from(&bytes[..]);
        self
    }

    /// Gives access to what was read and not yet consumed.
    pub(crate) fn with_input<R>(&self, work: impl FnOnce(&mut BytesMut) -> R) -> R {
        let mut io = self.io.borrow_mut();
        let result = work(&mut io.input);
        if io.input.is_empty() {
            // An idle connection owns no buffer.
            io.input = BytesMut::new();
        }
        result
    }

    /// Whether anything was read that is not consumed.
    pub(crate) fn has_input(&self) -> bool {
        !self.io.borrow().input.is_empty()
    }

    /// Reads once; 0 is the end.
    pub(crate) async fn fill(&self) -> io::Result<usize> {
        poll_fn(|cx| {
            let filled = self.poll_fill(cx);
            if filled.is_pending() {
                // What waits for an answer to go along with, waits no longer than the client does.
                // A failure shows when something is read or written.
                let _ = self.io.borrow_mut().stream.poll_flush(cx);
            }
            filled
        })
        .await
    }

    fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = &mut *self.io.borrow_mut();
        if io.eof {
            return Poll::Ready(Ok(0));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(io.stream.poll_read(cx, &mut buf))?;
            let read = buf.filled();
            io.input.extend_from_slice(read);
            io.eof = read.is_empty();
            self.info.received.set(self.info.received.get() + read.len() as u64);
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Resolves when the client has closed its side or the connection is broken.
    ///
    /// What the client sends meanwhile is kept, up to a bound; beyond it nothing is noticed.
    pub(crate) async fn closed(&self) {
        poll_fn(|cx| {
            loop {
                if self.io.borrow().input.len() >= READ_AHEAD {
                    return Poll::Pending;
                }
                match ready!(self.poll_fill(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
        })
        .await;
    }

    /// Writes both, one after the other; each write may take no longer than `limit`.
    pub(crate) async fn write(
        &self,
        mut first: Bytes,
        mut second: Bytes,
        limit: Duration,
    ) -> Result<(), Gone> {
        while !(first.is_empty() && second.is_empty()) {
            let written = timeout(limit, poll_fn(|cx| self.poll_write(cx, &first, &second))).await;
            let written = written.map_err(|_| self.on_timeout())?.map_err(|_| Gone::Closed)?;
            let of_first = written.min(first.len());
            first.advance(of_first);
            second.advance(written - of_first);
        }
        let flushed =
            timeout(limit, poll_fn(|cx| self.io.borrow_mut().stream.poll_flush(cx))).await;
        flushed.map_err(|_| self.on_timeout())?.map_err(|_| Gone::Closed)
    }

    fn on_timeout(&self) -> Gone {
        self.timed_out.set(true);
        Gone::Timeout
    }

    /// Whether the client took nothing for too long.
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        let parts = if first.is_empty() { &parts[1..] } else { &parts[..] };
        let written = ready!(self.io.borrow_mut().stream.poll_write(cx, parts))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.info.sent.set(self.info.sent.get() + written as u64);
        Poll::Ready(Ok(written))
    }

    /// Whether the client has ended its direction.
    pub(crate) fn at_eof(&self) -> bool {
        self.io.borrow().eof
    }

    /// Makes the end of the connection a reset.
    pub(crate) fn reset_on_close(&self) {
        let io = self.io.borrow();
        let socket = match &io.stream {
            ClientStream::Plain(stream) => stream,
            ClientStream::Tls(stream) => stream.get_ref().0.inner(),
        };
        // A socket that is gone already needs none.
        let _ = socket.reset_on_close();
    }

    /// Says that nothing more will be sent (close_notify and FIN).
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| self.io.borrow_mut().stream.poll_shutdown(cx)).await
    }

    /// Takes the socket out, with what was read and not consumed.
    pub(crate) fn into_parts(self) -> (ClientStream, BytesMut) {
        let io = self.io.into_inner();
        (io.stream, io.input)
    }
}
