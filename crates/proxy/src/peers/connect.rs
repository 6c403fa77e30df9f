//! A connection to a peer: made within a time limit, read and written by one task at once.
//!
//! The request body is still being sent when the answer begins, so both directions are used
//! through `&self`; the `RefCell` is only borrowed inside a poll.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixSocket};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use wssgate_config::model::ListenAddr;
use wssgate_sys::errno::EINPROGRESS;
use wssgate_sys::socket::set_bind_address_no_port;

use super::shortage::{Call, Resource};
use crate::errno_text;
use crate::listen::Stream;
use crate::tls::keys::{self, FEW_RECORDS, LAST_RECORDS, RecordBoundary};

/// How much is read at once when there is no smaller bound.
pub(crate) const READ_SIZE: usize = 16 * 1024;

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectOptions {
    /// `proxy_connect_timeout`.
    pub(crate) timeout: Duration,
    /// `proxy_bind`: where to connect from; port 0 for any.
    pub(crate) bind: Option<SocketAddr>,
    /// `proxy_socket_keepalive`.
    pub(crate) keepalive: bool,
}

/// Why something failed on a connection to an upstream; the text is nginx's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A system call failed; with its name.
    #[error("{0} failed ({error})", error = errno_text(.1))]
    Io(&'static str, io::Error),
    /// A system call failed for want of something of ours.
    #[error("{0} failed ({error})", error = errno_text(.1))]
    Shortage(&'static str, io::Error, Resource),
    /// Time ran out.
    #[error("upstream timed out (110: Connection timed out)")]
    Timeout,
    /// The connection ended too early.
    #[error("upstream prematurely closed connection")]
    Closed,
}

/// A peer's socket, with TLS or without.
#[derive(Debug)]
pub(crate) enum PeerStream {
    /// Plain.
    Plain(Stream),
    /// After a TLS handshake.
    Tls(Box<TlsStream<RecordBoundary<Stream>>>),
}

impl PeerStream {
    /// How many records TLS will still seal.
    fn records_left(&self) -> u64 {
        match self {
            Self::Plain(_) => u64::MAX,
            Self::Tls(stream) => {
                let (boundary, tls) = stream.get_ref();
                keys::records_left(tls.negotiated_cipher_suite(), boundary.sealed())
            }
        }
    }

    fn duplex(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

/// What both kinds of [`PeerStream`] are.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// Connects to `address`.
pub(crate) async fn connect(
    address: &ListenAddr,
    options: ConnectOptions,
) -> Result<Stream, Failure> {
    let connecting = async {
        match address {
            ListenAddr::Ip(address) => connect_tcp(*address, options).await.map(Stream::Tcp),
            ListenAddr::Unix(path) => {
                let socket = UnixSocket::new_stream().map_err(failed(Call::Socket))?;
                let call = Call::Connect { from: None, to: None };
                socket.connect(path).await.map(Stream::Unix).map_err(failed(call))
            }
        }
    };
    timeout(options.timeout, connecting).await.unwrap_or(Err(Failure::Timeout))
}

async fn connect_tcp(address: SocketAddr, options: ConnectOptions) -> Result<TcpStream, Failure> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None);
    let socket = socket.map_err(failed(Call::Socket))?;
    // An address of the other family cannot be bound; nginx ignores it too.
    let local = options.bind.filter(|local| local.is_ipv4() == address.is_ipv4());
    if let Some(local) = local {
        if local.port() == 0 {
            // Where it is not known there are fewer ports, and nothing else is different.
            let _ = set_bind_address_no_port(socket.as_fd());
        }
        socket.bind(&local.into()).map_err(failed(Call::Bind))?;
    }
    let call = Call::Connect { from: local, to: Some(address) };
    let connect = async {
        if options.keepalive {
            socket.set_keepalive(true)?;
        }
        socket.set_tcp_nodelay(true)?;
        // We speak first, and at once: the last packet of the handshake goes along with what we say,
        // and the peer is not woken twice. From then on acknowledgements are as prompt as they
        // always are.
        socket.set_tcp_quickack(false)?;
        if let Err(error) = socket.connect(&address.into())
            // What a socket that does not wait says when it begins to connect.
            && error.raw_os_error() != Some(EINPROGRESS)
        {
            return Err(error);
        }
        // On this machine a peer has accepted by now, and there is nothing to wait for.
        let connected = socket.peer_addr().is_ok();
        let stream = TcpStream::from_std(socket.into())?;
        if !connected {
            stream.writable().await?;
            stream.take_error()?.map_or(Ok(()), Err)?;
        }
        Ok(stream)
    };
    connect.await.map_err(failed(call))
}

fn failed(call: Call) -> impl FnOnce(io::Error) -> Failure {
    move |error| match Resource::lacking(call, &error) {
        Some(resource) => Failure::Shortage(call.name(), error, resource),
        None => Failure::Io(call.name(), error),
    }
}

/// A connection to a peer and what was read from it.
#[derive(Debug)]
pub(crate) struct Connection {
    io: RefCell<Io>,
    /// When it was made.
    pub(crate) made: Instant,
    /// Requests sent on it, the one in work included.
    pub(crate) requests: u64,
    /// Bytes sent and received for the request in work.
    pub(crate) sent: Cell<u64>,
    pub(crate) received: Cell<u64>,
}

#[derive(Debug)]
struct Io {
    stream: PeerStream,
    input: BytesMut,
    eof: bool,
}

impl Connection {
    /// A new connection, for its first request.
    pub(crate) fn new(stream: PeerStream) -> Self {
        Self {
            io: RefCell::new(Io { stream, input: BytesMut::new(), eof: false }),
            made: Instant::now(),
            requests: 1,
            sent: Cell::new(0),
            received: Cell::new(0),
        }
    }

    /// Takes it for one more request.
    pub(crate) fn reuse(&mut self) {
        self.requests += 1;
        self.sent.set(0);
        self.received.set(0);
    }

    /// Gives access to what was read and not consumed.
    pub(crate) fn with_input<R>(&self, work: impl FnOnce(&mut BytesMut) -> R) -> R {
        work(&mut self.io.borrow_mut().input)
    }

    /// Reads once, so that no more than `max` bytes wait to be consumed; 0 is the end.
    pub(crate) async fn fill(&self, max: usize) -> Result<usize, Failure> {
        let read = poll_fn(|cx| self.poll_fill(cx, max)).await;
        read.map_err(|error| Failure::Io("recv()", error))
    }

    fn poll_fill(&self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<usize>> {
        let io = &mut *self.io.borrow_mut();
        if io.eof {
            return Poll::Ready(Ok(0));
        }
        let room = max.saturating_sub(io.input.len()).clamp(1, READ_SIZE);
        io.input.reserve(room);
        let mut limited = (&mut io.input).limit(room);
        let read = ready!(pin!(io.stream.duplex().read_buf(&mut limited)).poll(cx))?;
        io.eof = read == 0;
        self.received.set(self.received.get() + read as u64);
        Poll::Ready(Ok(read))
    }

    /// Writes all of `bytes`; each single write may take no longer than `limit`.
    pub(crate) async fn write(&self, mut bytes: Bytes, limit: Duration) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let written = timeout(limit, poll_fn(|cx| self.poll_write(cx, &bytes))).await;
            let written = written.map_err(|_| Failure::Timeout)?;
            bytes.advance(written.map_err(|error| Failure::Io("send()", error))?);
        }
        // TLS may keep sealed records of what it has taken.
        let flush = poll_fn(|cx| self.io.borrow_mut().stream.duplex().poll_flush(cx));
        let flushed = timeout(limit, flush).await.map_err(|_| Failure::Timeout)?;
        flushed.map_err(|error| Failure::Io("send()", error))
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut io = self.io.borrow_mut();
        if io.stream.records_left() <= LAST_RECORDS {
            return Poll::Ready(Err(keys::worn()));
        }
        let written = ready!(io.stream.duplex().poll_write(cx, bytes))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.sent.set(self.sent.get() + written as u64);
        Poll::Ready(Ok(written))
    }

    /// Whether it can wait for another request: nothing was read ahead, it has not ended, and its keys last.
    pub(crate) fn is_clean(&self) -> bool {
        let io = self.io.borrow();
        !io.eof && io.input.is_empty() && io.stream.records_left() > FEW_RECORDS
    }

    /// While idle: resolves once the peer sends anything or closes, either of which spoils it.
    pub(crate) fn poll_spoiled(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll_fill(cx, 1) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes the socket out, with what was read and not consumed.
    pub(crate) fn into_parts(self) -> (PeerStream, BytesMut, bool) {
        let io = self.io.into_inner();
        (io.stream, io.input, io.eof)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use socket2::SockRef;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const OPTIONS: ConnectOptions =
        ConnectOptions { timeout: Duration::from_secs(5), bind: None, keepalive: true };

    async fn pair(options: ConnectOptions) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ListenAddr::Ip(listener.local_addr().unwrap());
        let near = connect(&address, options).await.unwrap();
        (Connection::new(PeerStream::Plain(near)), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn reading_never_goes_beyond_the_bound() {
        let (near, mut far) = pair(OPTIONS).await;
        far.write_all(&[7; 100]).await.unwrap();
        let mut read = 0;
        while read < 60 {
            read += near.fill(60).await.unwrap();
        }
        assert_eq!(read, 60);
        assert_eq!(near.with_input(|input| input.len()), 60);
        near.with_input(BytesMut::clear);
        drop(far);
        while near.fill(1000).await.unwrap() > 0 {}
        assert!(!near.is_clean());
        assert_eq!(near.received.get(), 100);
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_in_nginx_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ListenAddr::Ip(listener.local_addr().unwrap());
        drop(listener);
        let failure = connect(&address, OPTIONS).await.unwrap_err();
        assert_eq!(failure.to_string(), "connect() failed (111: Connection refused)");
        let missing = ListenAddr::Unix("/nonexistent/socket".into());
        let failure = connect(&missing, OPTIONS).await.unwrap_err();
        assert_eq!(failure.to_string(), "connect() failed (2: No such file or directory)");
    }

    #[tokio::test]
    async fn proxy_bind_is_where_the_peer_sees_us_come_from() {
        let bind = Some("127.0.0.7:0".parse().unwrap());
        let (_near, far) = pair(ConnectOptions { bind, ..OPTIONS }).await;
        assert_eq!(far.peer_addr().unwrap().ip().to_string(), "127.0.0.7");
    }

    #[tokio::test]
    async fn a_port_of_proxy_bind_that_is_in_use_is_no_failure_of_the_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (bind, expected) in [
            (address, "bind() failed (98: Address already in use)"),
            ("192.0.2.1:0".parse().unwrap(), "bind() failed (99: Cannot assign requested address)"),
        ] {
            let options = ConnectOptions { bind: Some(bind), ..OPTIONS };
            let failure = connect(&ListenAddr::Ip(address), options).await.unwrap_err();
            assert!(matches!(failure, Failure::Shortage(..)), "{failure:?}");
            assert_eq!(failure.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn a_connection_reaches_the_peer_together_with_the_request() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = ListenAddr::Ip(listener.local_addr().unwrap());
        loop {
            let began = Instant::now();
            let near = connect(&address, OPTIONS).await.unwrap();
            let early = listener.accept();
            if began.elapsed() > Duration::from_millis(100) {
                // The kernel may have lost its patience with us.
                continue;
            }
            assert_eq!(early.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let Stream::Tcp(socket) = &near else { unreachable!("it is TCP") };
            assert!(SockRef::from(socket).tcp_quickack().unwrap());
            let near = Connection::new(PeerStream::Plain(near));
            near.write(Bytes::from_static(b"GET"), OPTIONS.timeout).await.unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let mut request = [0; 3];
            io::Read::read_exact(&mut far, &mut request).unwrap();
            assert_eq!(&request, b"GET");
            return;
        }
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_times_out() {
        let (near, _far) = pair(OPTIONS).await;
        let flood = Bytes::from(vec![0; 64 << 20]);
        let failure = near.write(flood, Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(failure, Failure::Timeout));
    }
}
