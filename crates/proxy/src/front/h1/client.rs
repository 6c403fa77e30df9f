//! A client's connection: bytes in and out, shared by the source of the body and the outlet of the
//! answer.
//!
//! One task owns a connection, so one `RefCell` beneath both is enough; it is only borrowed inside
//! a poll, never across one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::ReadBuf;
use wssgate_sys::socket::{self, TcpInfo};

use crate::exchange::request::HoldsSocket;
use crate::exchange::{ConnectionInfo, Presence};
use crate::listen::ClientStream;
use crate::tls::keys::DetachError;

/// How much is read at once.
const READ_SIZE: usize = 16 * 1024;
/// How much may be read ahead while nobody asks for it: enough to notice that a client has gone.
const READ_AHEAD: usize = 16 * 1024;

thread_local! {
    /// Where bytes arrive first, so that a connection that waits owns no read buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into());
}

/// A client connection.
pub(crate) struct Client {
    /// What is known of it.
    pub(crate) info: Rc<ConnectionInfo>,
    io: RefCell<Io>,
    timed_out: Cell<bool>,
}

struct Io {
    /// None only if it was lost when its keys were to be taken.
    stream: Option<ClientStream>,
    /// Read, but not looked at yet.
    input: BytesMut,
    eof: bool,
}

impl Client {
    /// A connection of which these bytes were `read` before.
    pub(crate) fn new(info: Rc<ConnectionInfo>, stream: ClientStream, read: Vec<u8>) -> Rc<Self> {
        let io = Io { stream: Some(stream), input: BytesMut::from(&read[..]), eof: false };
        let client = Rc::new(Self { info, io: RefCell::new(io), timed_out: Cell::new(false) });
        let holder: Rc<dyn HoldsSocket> = client.clone();
        let before = client.info.holder.replace(Some(Rc::downgrade(&holder)));
        debug_assert!(before.is_none(), "a connection has one socket");
        client
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
        poll_fn(|cx| self.poll_read(cx)).await
    }

    /// Reads once; 0 is the end. What waits for an answer to go along with, waits no longer than
    /// the client does.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.poll_fill(cx);
        if read.is_pending() {
            // A failure shows when something is read or written.
            let _ = self.poll_flush(cx);
        }
        read
    }

    fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = &mut *self.io.borrow_mut();
        if io.eof {
            return Poll::Ready(Ok(0));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            let Some(stream) = &mut io.stream else { return Poll::Ready(Ok(0)) };
            ready!(stream.poll_read(cx, &mut buf))?;
            let read = buf.filled();
            io.input.extend_from_slice(read);
            io.eof = read.is_empty();
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Hands on what TLS has taken and not written yet.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io.borrow_mut().stream {
            Some(stream) => stream.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Remembers that the client took nothing for too long.
    pub(crate) fn on_timeout(&self) {
        self.timed_out.set(true);
    }

    /// Whether the client took nothing for too long.
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    /// One write of both, one after the other; how many bytes were taken.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        let parts = if first.is_empty() { &parts[1..] } else { &parts[..] };
        let mut io = self.io.borrow_mut();
        let stream = io.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let written = ready!(stream.poll_write(cx, parts))?;
        // The caller has something to write, and would try for ever.
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Whether the client has ended its direction.
    pub(crate) fn at_eof(&self) -> bool {
        self.io.borrow().eof
    }

    /// Makes the end of the connection a reset.
    pub(crate) fn reset_on_close(&self) {
        // A socket that is gone already needs none.
        let _ = self.io.borrow().stream.as_ref().map(|it| it.socket().reset_on_close());
    }

    /// Says that nothing more will be sent (close_notify and FIN).
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| match &mut self.io.borrow_mut().stream {
            Some(stream) => stream.poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        })
        .await
    }

    /// How many records TLS will still seal; without a bound when the stream is gone.
    pub(crate) fn records_left(&self) -> u64 {
        self.io.borrow().stream.as_ref().map_or(u64::MAX, ClientStream::records_left)
    }

    /// Takes the keys out of TLS, if there is TLS, before a tunnel is promised. What is answered from here on is
    /// sealed with them, an error too; nothing is read any more.
    pub(crate) fn take_keys(&self) -> Result<(), DetachError> {
        let mut io = self.io.borrow_mut();
        let Some(stream) = io.stream.take() else { return Ok(()) };
        let (stream, flaw) = stream.take_keys()?;
        io.stream = Some(stream);
        flaw.map_or(Ok(()), Err)
    }

    /// Takes the socket out, with what was read and not consumed.
    pub(crate) fn into_parts(self) -> (Option<ClientStream>, BytesMut) {
        // Even a weak reference keeps the memory of what it points to, here for as long as a tunnel.
        self.info.holder.take();
        let io = self.io.into_inner();
        (io.stream, io.input)
    }
}

impl Presence for Client {
    /// Ready when the client has closed its side or the connection is broken.
    ///
    /// What the client sends meanwhile is kept, up to a bound; beyond it nothing is noticed.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.io.borrow().input.len() >= READ_AHEAD {
                return Poll::Pending;
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }
}

impl HoldsSocket for Client {
    fn tcp_info(&self) -> Option<TcpInfo> {
        let io = self.io.try_borrow().ok()?;
        socket::tcp_info(io.stream.as_ref()?.socket().as_fd()).ok()
    }
}
