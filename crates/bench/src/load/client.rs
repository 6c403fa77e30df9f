//! One client: connects, shakes hands, upgrades, sends messages and checks what comes back.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use socket2::{Domain, Socket, Type};
use wssgate_sys::batch::Outcome;
use wssgate_sys::epoll::Event;
use wssgate_sys::socket::{Received, recv, set_nodelay};
use wssgate_ws::handshake::{encode_key, encode_request};
use wssgate_ws::{FrameHeader, Opcode};

use super::Read;
use super::backend::{ECHO_PATH, SINK_PATH};
use super::message::{self, Message};
use super::outgoing::{Outbox, Outgoing};
use super::records::Records;
use crate::certificate::HOST;

/// What one readiness of a flood may send before others have their turn.
const FLOOD_TURN: usize = 256 << 10;

/// The longest answer to an upgrade request that is read.
const MAX_HEAD: usize = 8 << 10;

/// How clients speak to what they connect to.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    /// Without TLS.
    Plain,
    /// rustls for the handshake, records of our own afterwards.
    Tls(Arc<ClientConfig>),
    /// rustls to the end, so that tickets arrive in its store.
    TlsWithTickets(Arc<ClientConfig>),
}

/// What a client does when it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Sends a message, and more when told so.
    Echo,
    /// Sends as much as it can to a backend that only reads.
    Flood,
}

/// What all clients share: buffers, the message, and how many handshakes were resumed.
#[derive(Debug)]
pub(super) struct Shared {
    /// What is read; large enough for any TLS record.
    pub(super) scratch: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    pub(super) outbox: Outbox,
    pub(super) message: Message,
    flood: Message,
    /// Bytes of echoes that have come, with the present message.
    pub(super) arrived: u64,
    pub(super) resumed: u64,
    /// Pings that were answered.
    pub(super) pings: u64,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            scratch: vec![0; 256 << 10],
            plain: vec![0; 16 << 10],
            sealed: Vec::new(),
            outbox: Outbox::default(),
            message: Message::new(125),
            flood: Message::new(64 << 10),
            arrived: 0,
            resumed: 0,
            pings: 0,
        }
    }
}

/// One connection of a client.
pub(super) struct Client {
    socket: TcpStream,
    token: u64,
    transport: Transport,
    talk: Talk,
    out: Outgoing,
    /// The beginning of a TLS record whose end has not come yet.
    partial: Vec<u8>,
    role: Role,
    /// Messages whose echo has not come yet.
    pub(super) in_flight: usize,
    /// When the messages in flight were to be sent, if somebody wants to know.
    pub(super) due: VecDeque<Instant>,
}

enum Transport {
    Plain,
    Rustls { connection: Box<ClientConnection>, keep: bool },
    Records(Box<Records>),
}

impl Client {
    /// Begins to connect; watch [`socket`](Self::socket) from now on. `token` is its name in the outbox.
    pub(super) fn connect(
        to: SocketAddr,
        security: &Security,
        role: Role,
        token: u64,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
        set_nodelay(socket.as_fd(), true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let transport = match security {
            Security::Plain => Transport::Plain,
            Security::Tls(config) => Transport::rustls(config, false)?,
            Security::TlsWithTickets(config) => Transport::rustls(config, true)?,
        };
        Ok(Self {
            socket: socket.into(),
            token,
            transport,
            talk: Talk::new(Stage::Connecting),
            out: Outgoing::default(),
            partial: Vec::new(),
            role,
            in_flight: 0,
            due: VecDeque::new(),
        })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the upgrade is done.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.talk.stage, Stage::Open)
    }

    /// Whether it has no end of things to send.
    pub(super) fn floods(&self) -> bool {
        self.role == Role::Flood
    }

    /// Whether somebody else may read its next bytes, for [`on_ready`](Self::on_ready).
    pub(super) fn may_be_read(&self) -> bool {
        let no_rustls = !matches!(self.transport, Transport::Rustls { .. });
        self.is_open() && no_rustls && self.partial.is_empty()
    }

    /// Does what has become possible, where the first bytes may have been read; returns how many echoes
    /// have come to their end.
    pub(super) fn on_ready(
        &mut self,
        event: Event,
        read: Option<Read<'_>>,
        shared: &mut Shared,
    ) -> io::Result<usize> {
        if event.writable {
            match self.talk.stage {
                Stage::Connecting => self.on_connected(shared)?,
                _ => self.out.flush(self.socket.as_fd())?,
            }
        }
        if !event.readable {
            return Ok(0);
        }
        let mut echoes = 0;
        if let Some(read) = read {
            let is_last = read.is_last(event);
            match read.bytes() {
                Ok(Some(bytes)) => echoes = self.on_bytes(bytes, shared)?,
                Ok(None) => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(ended(&self.talk.stage));
                }
                Err(error) => return Err(error),
            }
            if is_last {
                return Ok(echoes);
            }
        }
        let mut scratch = std::mem::take(&mut shared.scratch);
        let more = self.read(event.hung_up, &mut scratch, shared);
        shared.scratch = scratch;
        Ok(echoes + more?)
    }

    /// Sends the message of all clients, if it is short with the next delivery.
    pub(super) fn send_message(&mut self, shared: &mut Shared) -> io::Result<()> {
        self.in_flight += 1;
        let Shared { message, sealed, outbox, .. } = shared;
        self.send_plain(&message.frame, sealed, outbox)
    }

    /// Keeps what the kernel did not take of posted bytes.
    pub(super) fn on_delivered(&mut self, bytes: &[u8], outcome: Outcome) -> io::Result<()> {
        self.out.on_delivered(bytes, outcome)
    }

    /// Sends until the kernel takes no more, or the turn is over: then there is more to send.
    pub(super) fn flood(&mut self, shared: &mut Shared) -> io::Result<bool> {
        let mut sent = 0;
        while sent < FLOOD_TURN {
            if !self.out.is_empty() {
                return Ok(false);
            }
            let Shared { flood, sealed, outbox, .. } = &mut *shared;
            self.send_plain(&flood.frame, sealed, outbox)?;
            sent += shared.flood.frame.len();
        }
        Ok(true)
    }

    fn on_connected(&mut self, shared: &mut Shared) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match &mut self.transport {
            Transport::Rustls { connection, .. } => {
                self.talk.stage = Stage::Handshaking;
                shared.sealed.clear();
                connection.write_tls(&mut shared.sealed)?;
                self.out.send(self.socket.as_fd(), &shared.sealed)
            }
            _ => {
                self.talk.stage = Stage::Upgrading(Vec::new());
                self.send_plain(&request(self.role), &mut shared.sealed, &mut shared.outbox)
            }
        }
    }

    fn read(
        &mut self,
        to_the_end: bool,
        scratch: &mut [u8],
        shared: &mut Shared,
    ) -> io::Result<usize> {
        let mut echoes = 0;
        loop {
            let kept = self.partial.len();
            let room = &mut scratch[kept..];
            let room_len = room.len();
            let n = match recv(self.socket.as_fd(), room)? {
                Received::Bytes(n) => n,
                Received::Blocked => return Ok(echoes),
                Received::End => return Err(ended(&self.talk.stage)),
            };
            scratch[..kept].copy_from_slice(&self.partial);
            self.partial.clear();
            echoes += self.on_bytes(&mut scratch[..kept + n], shared)?;
            if n < room_len && !to_the_end {
                return Ok(echoes);
            }
        }
    }

    fn on_bytes(&mut self, bytes: &mut [u8], shared: &mut Shared) -> io::Result<usize> {
        let mut heard = Heard::default();
        match &mut self.transport {
            Transport::Plain => {
                heard.add(self.talk.on_plain(bytes, &shared.message)?);
            }
            Transport::Records(records) => {
                let mut at = 0;
                while let Some(opened) = records.open(&mut bytes[at..])? {
                    heard.add(self.talk.on_plain(opened.plain, &shared.message)?);
                    at += opened.len;
                }
                self.partial.extend_from_slice(&bytes[at..]);
            }
            Transport::Rustls { connection, .. } => {
                let mut input = &*bytes;
                while !input.is_empty() {
                    connection.read_tls(&mut input)?;
                    connection.process_new_packets().map_err(io::Error::other)?;
                    while let Some(n) = read_plain(connection, &mut shared.plain)? {
                        heard.add(self.talk.on_plain(&shared.plain[..n], &shared.message)?);
                    }
                }
                let handshaken = !connection.is_handshaking();
                if handshaken && matches!(self.talk.stage, Stage::Handshaking) {
                    self.on_handshaken(shared)?;
                } else {
                    flush_tls(connection, &self.socket, &mut self.out, &mut shared.sealed)?;
                }
            }
        }
        self.in_flight -= heard.echoes;
        shared.arrived += heard.bytes;
        shared.pings += heard.pings;
        if !self.talk.pongs.is_empty() {
            let pongs = std::mem::take(&mut self.talk.pongs);
            self.send_plain(&pongs, &mut shared.sealed, &mut shared.outbox)?;
        }
        if heard.upgraded && self.role == Role::Echo {
            self.send_message(shared)?;
        }
        Ok(heard.echoes)
    }

    /// Sends the end of the handshake and the upgrade request together.
    fn on_handshaken(&mut self, shared: &mut Shared) -> io::Result<()> {
        let Transport::Rustls { mut connection, keep } =
            std::mem::replace(&mut self.transport, Transport::Plain)
        else {
            return Ok(());
        };
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            shared.resumed += 1;
        }
        self.talk.stage = Stage::Upgrading(Vec::new());
        let request = request(self.role);
        shared.sealed.clear();
        if keep {
            connection.writer().write_all(&request)?;
        }
        while connection.wants_write() {
            connection.write_tls(&mut shared.sealed)?;
        }
        self.transport = if keep {
            Transport::Rustls { connection, keep }
        } else {
            let mut records = Records::take_over(*connection)?;
            records.seal(&request, &mut shared.sealed)?;
            Transport::Records(Box::new(records))
        };
        self.out.send(self.socket.as_fd(), &shared.sealed)
    }

    fn send_plain(
        &mut self,
        bytes: &[u8],
        sealed: &mut Vec<u8>,
        outbox: &mut Outbox,
    ) -> io::Result<()> {
        sealed.clear();
        let bytes = match &mut self.transport {
            Transport::Plain => bytes,
            Transport::Records(records) => {
                records.seal(bytes, sealed)?;
                sealed
            }
            Transport::Rustls { connection, .. } => {
                connection.writer().write_all(bytes)?;
                return flush_tls(connection, &self.socket, &mut self.out, sealed);
            }
        };
        self.out.post(outbox, self.token, self.socket.as_fd(), bytes)
    }
}

impl Transport {
    fn rustls(config: &Arc<ClientConfig>, keep: bool) -> io::Result<Self> {
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(config), name);
        Ok(Self::Rustls { connection: Box::new(connection.map_err(io::Error::other)?), keep })
    }
}

fn request(role: Role) -> Vec<u8> {
    let path = match role {
        Role::Echo => ECHO_PATH,
        Role::Flood => SINK_PATH,
    };
    encode_request(path, HOST, &encode_key([7; 16]), &[])
}

fn flush_tls(
    connection: &mut ClientConnection,
    socket: &TcpStream,
    out: &mut Outgoing,
    sealed: &mut Vec<u8>,
) -> io::Result<()> {
    sealed.clear();
    while connection.wants_write() {
        connection.write_tls(sealed)?;
    }
    out.send(socket.as_fd(), sealed)
}

/// The next piece of what rustls has deciphered, if there is one.
fn read_plain(connection: &mut ClientConnection, into: &mut [u8]) -> io::Result<Option<usize>> {
    match connection.reader().read(into) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn ended(stage: &Stage) -> io::Error {
    let text = match stage {
        Stage::Connecting | Stage::Handshaking => "the proxy ended a connection that shook hands",
        Stage::Upgrading(_) => "the proxy ended a connection instead of an upgrade",
        Stage::Open => "the proxy ended a tunnel",
    };
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// What was heard in some bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    upgraded: bool,
    /// Bytes of echoes, and how many came to their end with them.
    bytes: u64,
    echoes: usize,
    /// Pings that came to their end, whose answers wait in the conversation.
    pings: u64,
}

impl Heard {
    fn add(&mut self, more: Self) {
        self.upgraded |= more.upgraded;
        self.bytes += more.bytes;
        self.echoes += more.echoes;
        self.pings += more.pings;
    }
}

/// The conversation above TLS.
#[derive(Debug)]
struct Talk {
    stage: Stage,
    /// How much of the current echo has come.
    received: usize,
    /// The beginning of a ping whose end has not come yet.
    ping: Vec<u8>,
    /// Answers to pings that have not been sent yet.
    pongs: Vec<u8>,
}

/// `Connecting` ──connected──▶ `Handshaking` (TLS only) ──▶ `Upgrading` ──101──▶ `Open`
#[derive(Debug)]
enum Stage {
    Connecting,
    Handshaking,
    /// The answer to the upgrade request, as far as it has come.
    Upgrading(Vec<u8>),
    Open,
}

impl Talk {
    fn new(stage: Stage) -> Self {
        Self { stage, received: 0, ping: Vec::new(), pongs: Vec::new() }
    }

    fn on_plain(&mut self, bytes: &[u8], message: &Message) -> io::Result<Heard> {
        let Stage::Upgrading(head) = &mut self.stage else {
            return self.on_frames(bytes, &message.echo);
        };
        head.extend_from_slice(bytes);
        let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
            return match head.len() {
                ..MAX_HEAD => Ok(Heard::default()),
                _ => Err(io::Error::other("the answer to an upgrade request is too long")),
            };
        };
        if !head.starts_with(b"HTTP/1.1 101 ") {
            let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            return Err(io::Error::other(format!("the answer to an upgrade was: {line}")));
        }
        if head.len() != end + 4 {
            return Err(io::Error::other("bytes behind the 101 that nobody had asked for"));
        }
        self.stage = Stage::Open;
        Ok(Heard { upgraded: true, ..Heard::default() })
    }

    /// Compares with what must come, over and over; between two echoes the proxy may ask whether we are there.
    fn on_frames(&mut self, mut bytes: &[u8], echo: &[u8]) -> io::Result<Heard> {
        let mut heard = Heard::default();
        while let Some(&first) = bytes.first() {
            if self.received == 0 && self.ping.is_empty() && first == CLOSE {
                return Err(ended(&self.stage));
            }
            if self.received == 0 && (first == PING || !self.ping.is_empty()) {
                bytes = self.on_ping(bytes)?;
                heard.pings += u64::from(self.ping.is_empty());
                continue;
            }
            let want = &echo[self.received..];
            let (piece, rest) = bytes.split_at(bytes.len().min(want.len()));
            if piece != &want[..piece.len()] {
                return Err(io::Error::other("an echo that differs from its message"));
            }
            self.received += piece.len();
            heard.bytes += piece.len() as u64;
            if self.received == echo.len() {
                self.received = 0;
                heard.echoes += 1;
            }
            bytes = rest;
        }
        Ok(heard)
    }

    /// Takes what there is of a ping, answers it at its end, and returns what follows.
    fn on_ping<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        // One byte after the other, as a ping is short and rare.
        for (index, &byte) in bytes.iter().enumerate() {
            self.ping.push(byte);
            let decoded = FrameHeader::decode(&self.ping).map_err(io::Error::other)?;
            if let Some((header, payload)) = decoded
                && payload.len() as u64 == header.payload_len
            {
                self.pongs.extend_from_slice(&message::masked(Opcode::Pong, payload));
                self.ping.clear();
                return Ok(&bytes[index + 1..]);
            }
        }
        Ok(&[])
    }
}

/// The first byte of a ping: whole, as control frames are.
const PING: u8 = 0x80 | Opcode::Ping as u8;

/// The first byte of a Close, which is the end of a tunnel.
const CLOSE: u8 = 0x80 | Opcode::Close as u8;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn echoes_are_counted_and_compared_however_they_are_cut() {
        let message = Message::new(300);
        let wire = message.echo.repeat(3);
        for cut in [1, 7, 303, 304, 305, 912] {
            let mut talk = Talk::new(Stage::Open);
            let heard = wire.chunks(cut).map(|piece| talk.on_plain(piece, &message).unwrap());
            assert_eq!(heard.map(|heard| heard.echoes).sum::<usize>(), 3, "cut every {cut}");
        }
        let mut wrong = wire;
        wrong[700] ^= 1;
        let mut talk = Talk::new(Stage::Open);
        assert!(talk.on_plain(&wrong, &message).is_err());
        let closed = [&message.echo[..], &[CLOSE, 2, 3, 0xe9]].concat();
        let error = Talk::new(Stage::Open).on_plain(&closed, &message).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn pings_between_echoes_are_answered_however_they_are_cut() {
        let message = Message::new(300);
        let ping = [&FrameHeader::whole(Opcode::Ping, 8).encode()[..], b"12345678"].concat();
        let wire = [&ping[..], &message.echo, &ping, &ping, &message.echo].concat();
        for cut in [1, 7, 10, 304, 313, 912] {
            let (mut talk, mut total) = (Talk::new(Stage::Open), Heard::default());
            for piece in wire.chunks(cut) {
                total.add(talk.on_plain(piece, &message).unwrap());
            }
            let expected = (2, 2 * message.echo.len() as u64, 3);
            assert_eq!((total.echoes, total.bytes, total.pings), expected, "cut every {cut}");
            assert_eq!(talk.pongs, message::masked(Opcode::Pong, b"12345678").repeat(3));
        }
        let mut talk = Talk::new(Stage::Open);
        assert!(talk.on_plain(&[&message.echo[..9], &ping].concat(), &message).is_err());
    }

    #[test]
    fn only_a_101_opens_a_tunnel() {
        let message = Message::new(1);
        let answer = |text: &str| {
            let mut talk = Talk::new(Stage::Upgrading(Vec::new()));
            talk.on_plain(text.as_bytes(), &message).map(|heard| heard.upgraded)
        };
        assert!(!answer("HTTP/1.1 101 Switching").unwrap());
        assert!(answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").unwrap());
        let error = answer("HTTP/1.1 502 Bad Gateway\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("502"));
    }
}
