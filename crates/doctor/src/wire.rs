//! Blocking connections with a deadline for everything.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

/// Of what a server sends first, so much is kept to see what it speaks, in bytes.
const FIRST: usize = 64;

/// A TCP connection on which nothing is waited for beyond a deadline.
#[derive(Debug)]
pub struct Timed {
    tcp: TcpStream,
    deadline: Instant,
    first: Vec<u8>,
}

impl Timed {
    /// Connects; `timeout` is for all that follows too.
    ///
    /// # Errors
    /// Those of the system, and `TimedOut`.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        let tcp = TcpStream::connect_timeout(&address, timeout)?;
        // The round trips of small frames are measured.
        tcp.set_nodelay(true)?;
        Ok(Self { tcp, deadline, first: Vec::new() })
    }

    /// The first bytes that came, at most 64.
    pub(crate) fn first(&self) -> &[u8] {
        &self.first
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.left()?))?;
        let len = self.tcp.read(buffer).map_err(late)?;
        let room = FIRST - self.first.len();
        self.first.extend_from_slice(&buffer[..len.min(room)]);
        Ok(len)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.left()?))?;
        self.tcp.write(bytes).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket whose time is over says that it would block.
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// A connection, with or without TLS.
#[derive(Debug)]
pub(crate) enum Wire {
    /// TCP alone.
    Plain(Timed),
    /// TLS, its handshake done.
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Wire {
    /// Until when everything that follows may take.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Self::Plain(timed) => timed.deadline = deadline,
            Self::Tls(tls) => tls.sock.deadline = deadline,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(timed) => timed.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// The error of TLS inside of one of I/O.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// How a connection ended, in words.
pub(crate) fn ended_by(read: &io::Result<usize>, is_tls: bool) -> String {
    match read {
        Ok(_) if is_tls => "close_notify (TLS)".into(),
        Ok(_) => "FIN".into(),
        Err(error) => match (error.kind(), tls_error(error)) {
            (_, Some(rustls::Error::AlertReceived(alert))) => format!("TLS alert {alert:?}"),
            (_, Some(error)) => format!("a TLS error ({error})"),
            (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => "RST".into(),
            (ErrorKind::UnexpectedEof, _) => "FIN without close_notify".into(),
            _ => error.to_string(),
        },
    }
}
