//! One end of a connection: a blocking socket, plain or TLS, with what was read too far.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned,
    pki_types::ServerName,
};
use wssgate_ws::{FrameHeader, Side, frame::must_mask};

use crate::{Addr, Frame, GUARD, Request};

/// The largest frame that a test may receive.
const MAX_FRAME_LEN: u64 = 64 << 20;

/// The mask of every frame from a client: predictable, and all of its bytes differ.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// How the peer ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order: FIN, and over TLS a close_notify before it.
    Eof,
    /// FIN without close_notify; over TLS only.
    Truncated,
    /// RST.
    Reset,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    TlsClient(Box<StreamOwned<ClientConnection, TcpStream>>),
    TlsServer(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// One end of a connection. It speaks frames as the side of a WebSocket that it is.
pub struct Conn {
    stream: Stream,
    side: Side,
    /// What was read but not yet asked for.
    unread: Vec<u8>,
    /// Which connection of its upstream this is.
    pub(crate) number: usize,
    /// Who wants to know of the requests that are received.
    pub(crate) recorder: Option<Sender<Request>>,
}

impl Conn {
    /// Connects as a client, without TLS.
    #[track_caller]
    pub fn connect(addr: impl Into<Addr>) -> Self {
        let addr = addr.into();
        Self::try_connect(&addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
    }

    /// Connects as a client, without TLS, and says if that fails.
    pub fn try_connect(addr: impl Into<Addr>) -> io::Result<Self> {
        let stream = match addr.into() {
            Addr::Tcp(addr) => Stream::Tcp(TcpStream::connect_timeout(&addr, GUARD)?),
            Addr::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        Self::new(stream, Side::Client)
    }

    /// Connects as a client over TLS and finishes the handshake.
    pub fn try_connect_tls(
        addr: impl Into<Addr>,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Self> {
        Self::try_connect(addr)?.try_start_tls(config, name)
    }

    /// Begins TLS on a plain connection, for instance behind a PROXY protocol header.
    pub fn try_start_tls(self, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let Stream::Tcp(stream) = self.stream else {
            return Err(io::Error::new(ErrorKind::Unsupported, "TLS needs a TCP socket"));
        };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, stream);
        stream.conn.complete_io(&mut stream.sock)?;
        Self::new(Stream::TlsClient(Box::new(stream)), Side::Client)
    }

    pub(crate) fn accepted_tcp(
        stream: TcpStream,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        let stream = match tls {
            None => Stream::Tcp(stream),
            Some(config) => {
                let tls = ServerConnection::new(config).map_err(io::Error::other)?;
                Stream::TlsServer(Box::new(StreamOwned::new(tls, stream)))
            }
        };
        let mut conn = Self::new(stream, Side::Server)?;
        if let Stream::TlsServer(stream) = &mut conn.stream {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(conn)
    }

    pub(crate) fn accepted_unix(stream: UnixStream) -> io::Result<Self> {
        Self::new(Stream::Unix(stream), Side::Server)
    }

    fn new(stream: Stream, side: Side) -> io::Result<Self> {
        let conn = Self { stream, side, unread: Vec::new(), number: 0, recorder: None };
        conn.set_guard(GUARD)?;
        if let Some(tcp) = conn.tcp() {
            tcp.set_nodelay(true)?;
        }
        Ok(conn)
    }

    /// Changes how long one read or write may take; for tests that something does *not* come.
    pub fn set_guard(&self, guard: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Unix(unix) => {
                unix.set_read_timeout(Some(guard))?;
                unix.set_write_timeout(Some(guard))
            }
            _ => self.tcp().map_or(Ok(()), |tcp| {
                tcp.set_read_timeout(Some(guard))?;
                tcp.set_write_timeout(Some(guard))
            }),
        }
    }

    /// The TCP socket underneath, if there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::Unix(_) => None,
            Stream::TlsClient(tls) => Some(&tls.sock),
            Stream::TlsServer(tls) => Some(&tls.sock),
        }
    }

    /// The state of TLS, if this is a TLS client.
    pub fn tls_client(&self) -> Option<&ClientConnection> {
        match &self.stream {
            Stream::TlsClient(tls) => Some(&tls.conn),
            _ => None,
        }
    }

    /// The state of TLS, if this is a TLS server.
    pub fn tls_server(&self) -> Option<&ServerConnection> {
        match &self.stream {
            Stream::TlsServer(tls) => Some(&tls.conn),
            _ => None,
        }
    }

    // Bytes.

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send_raw(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes as they are and says if that fails.
    pub fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Receives exactly `len` bytes.
    #[track_caller]
    pub fn recv_raw(&mut self, len: usize) -> Vec<u8> {
        self.try_recv_raw(len)
            .unwrap_or_else(|error| panic!("waited for {len} bytes: {error}; got {self:?}"))
    }

    /// Receives exactly `len` bytes, or fails and keeps what came.
    pub fn try_recv_raw(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < len {
            self.read_more()?;
        }
        Ok(self.unread.drain(..len).collect())
    }

    /// Receives everything up to the end of the stream, and how it ended.
    #[track_caller]
    pub fn recv_to_end(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            match self.read_more() {
                Ok(()) => {}
                Err(error) => match end_of(&error) {
                    Some(end) => break end,
                    None => panic!("waited for the end: {error}; got {self:?}"),
                },
            }
        };
        (std::mem::take(&mut self.unread), end)
    }

    /// Expects the end of the stream in order, and nothing before it.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        let (bytes, end) = self.recv_to_end();
        assert_eq!((&*bytes.escape_ascii().to_string(), end), ("", End::Eof));
    }

    /// What was received and not yet asked for.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Reads until `is_complete` says how many of the unread bytes are wanted, and takes them.
    pub(crate) fn read_while(
        &mut self,
        mut is_complete: impl FnMut(&[u8]) -> Option<usize>,
    ) -> io::Result<Vec<u8>> {
        loop {
            if let Some(len) = is_complete(&self.unread) {
                return Ok(self.unread.drain(..len).collect());
            }
            self.read_more()?;
        }
    }

    /// Adds at least one byte to the unread ones; the end of the stream is an error.
    pub(crate) fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let read = loop {
            match self.stream.read(&mut buffer) {
                // A process that was stopped and goes on is told so where a read has a timeout (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        match read {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, CLEAN_EOF)),
            len => {
                self.unread.extend_from_slice(&buffer[..len]);
                Ok(())
            }
        }
    }

    // Frames.

    /// Sends frames, masked if this is the client; they leave in one write.
    #[track_caller]
    pub fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        self.try_send(frames).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends frames and says if that fails.
    pub fn try_send(&mut self, frames: impl IntoIterator<Item = Frame>) -> io::Result<()> {
        let mask = must_mask(self.side).then_some(MASK);
        let bytes: Vec<_> = frames.into_iter().flat_map(|frame| frame.encode(mask)).collect();
        self.try_send_raw(bytes)
    }

    /// Receives the next frame.
    #[track_caller]
    pub fn recv(&mut self) -> Frame {
        self.try_recv().unwrap_or_else(|error| panic!("waited for a frame: {error}; got {self:?}"))
    }

    /// Receives the next frame; the end of the stream is an `UnexpectedEof`, a frame that the other
    /// side must not send `InvalidData`.
    pub fn try_recv(&mut self) -> io::Result<Frame> {
        let invalid = |message: String| io::Error::new(ErrorKind::InvalidData, message);
        let (header, header_len) = loop {
            match FrameHeader::decode(&self.unread).map_err(|error| invalid(error.to_string()))? {
                Some((header, rest)) => break (header, self.unread.len() - rest.len()),
                None => self.read_more()?,
            }
        };
        let FrameHeader { fin, rsv, opcode, mask, payload_len } = header;
        if mask.is_some() != must_mask(self.side.other()) {
            return Err(invalid(format!("mask of {header:?} is wrong for its side")));
        }
        if payload_len > MAX_FRAME_LEN {
            return Err(invalid(format!("{header:?} is too long for a test")));
        }
        let mut payload = self.try_recv_raw(header_len + payload_len as usize)?;
        payload.drain(..header_len);
        wssgate_ws::mask::apply(mask.unwrap_or_default(), 0, &mut payload);
        Ok(Frame { fin, rsv, opcode, payload })
    }

    /// Expects exactly these frames next.
    #[track_caller]
    pub fn expect(&mut self, frames: impl IntoIterator<Item = Frame>) {
        for (i, expected) in frames.into_iter().enumerate() {
            let got = self.recv();
            assert!(got == expected, "frame {i} is {got:?} instead of {expected:?}");
        }
    }

    // Ends.

    /// Sends FIN, over TLS a close_notify before it; the other direction stays open.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(_) => {}
            Stream::Unix(unix) => return unix.shutdown(Shutdown::Write),
            Stream::TlsClient(tls) => {
                tls.conn.send_close_notify();
                tls.flush()?;
            }
            Stream::TlsServer(tls) => {
                tls.conn.send_close_notify();
                tls.flush()?;
            }
        }
        self.tcp().map_or(Ok(()), |tcp| tcp.shutdown(Shutdown::Write))
    }

    /// Ends a TCP connection by RST: lingering for no time throws everything away.
    pub fn reset(self) -> io::Result<()> {
        match self.tcp() {
            Some(tcp) => socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)),
            None => Err(io::Error::new(ErrorKind::Unsupported, "only TCP has RST")),
        }
    }

    /// Makes the kernel's buffers small, so that back pressure comes soon.
    pub fn shrink_buffers(&self, len: usize) -> io::Result<()> {
        let Some(tcp) = self.tcp() else { return Ok(()) };
        let socket = socket2::SockRef::from(tcp);
        socket.set_recv_buffer_size(len)?;
        socket.set_send_buffer_size(len)
    }
}

const CLEAN_EOF: &str = "end of stream";

/// How `error` ended the stream, if it did.
fn end_of(error: &io::Error) -> Option<End> {
    match error.kind() {
        ErrorKind::UnexpectedEof if error.to_string() == CLEAN_EOF => Some(End::Eof),
        ErrorKind::UnexpectedEof => Some(End::Truncated),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Some(End::Reset),
        _ => None,
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn {{ {:?}, unread: \"{}\" }}", self.side, self.unread.escape_ascii())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::TlsClient(stream) => stream.read(buffer),
            Self::TlsServer(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::TlsClient(stream) => stream.write(bytes),
            Self::TlsServer(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            Self::TlsClient(stream) => stream.flush(),
            Self::TlsServer(stream) => stream.flush(),
        }
    }
}
