//! The server behind the proxies: answers upgrades, then echoes frames or only reads.
//!
//! Frames are unmasked and sent back as they come, without waiting for their end: what is read into
//! the scratch buffer is changed in place and leaves in one write. The header of an answer is four
//! bytes shorter than the one it answers, so it fits in front of the payload. A ping is answered in the
//! same way, as a pong.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, SockRef, Socket, Type};
use wssgate_sys::batch::Outcome;
use wssgate_sys::epoll::{Epoll, Event};
use wssgate_sys::socket::{Received, recv, set_nodelay};
use wssgate_ws::{FrameHeader, Opcode, accept_key, mask};

use super::Read;
use super::outgoing::{Outbox, Outgoing};

/// The path that echoes.
pub(super) const ECHO_PATH: &str = "/echo";
/// The path that only reads.
pub(super) const SINK_PATH: &str = "/sink";

/// The addresses that the backend listens on: ports towards one address would run out.
const ADDRESSES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(127, 0, 1, 1),
    Ipv4Addr::new(127, 0, 1, 2),
    Ipv4Addr::new(127, 0, 1, 3),
    Ipv4Addr::new(127, 0, 1, 4),
];

/// The longest request head that is read.
const MAX_HEAD: usize = 8 << 10;

/// What a sink reads in one turn.
const SINK_TURN: usize = 1 << 20;

/// All listening sockets and connections of the backend.
#[derive(Debug)]
pub(super) struct Backend {
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    live: usize,
    /// Bytes of frames that were read and answered, with the present message.
    pub(super) echoed: u64,
    sunk: u64,
    /// Nobody looks at what is read by a sink, and the kernel does not even copy it.
    nothing: Box<[MaybeUninit<u8>]>,
}

/// What is to be done after some bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for the next event.
    Wait,
    /// There may be more: go on after the others.
    Again,
}

impl Backend {
    /// Listens; `token` names the first listening socket, the others follow.
    pub(super) fn listen(epoll: &Epoll, token: u64) -> io::Result<Self> {
        let first = listener(SocketAddr::new(ADDRESSES[0].into(), 0))?;
        let port = first.local_addr()?.port();
        let mut listeners = vec![first];
        for address in &ADDRESSES[1..] {
            listeners.push(listener(SocketAddr::new((*address).into(), port))?);
        }
        for (listener, token) in listeners.iter().zip(token..) {
            epoll.add_level_readable(listener.as_fd(), token)?;
        }
        Ok(Self {
            listeners,
            connections: Vec::new(),
            free: Vec::new(),
            live: 0,
            echoed: 0,
            sunk: 0,
            nothing: Box::new_uninit_slice(SINK_TURN),
        })
    }

    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// How many connections are open.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// How many bytes sinks have read.
    pub(super) fn sunk(&self) -> u64 {
        self.sunk
    }

    /// Accepts what waits; connections get tokens from `token` on.
    pub(super) fn accept(&mut self, index: usize, epoll: &Epoll, token: u64) -> io::Result<()> {
        loop {
            let socket = match self.listeners[index].accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            set_nodelay(socket.as_fd(), true)?;
            let slot = self.free.pop().unwrap_or(self.connections.len());
            let token = token + slot as u64;
            epoll.add(socket.as_fd(), token, true)?;
            let (stage, out) = (Stage::Head(Vec::new()), Outgoing::default());
            let connection = Some(Connection { socket, token, stage, out });
            match self.connections.get_mut(slot) {
                Some(place) => *place = connection,
                None => self.connections.push(connection),
            }
            self.live += 1;
        }
    }

    /// The socket of a connection.
    pub(super) fn socket(&self, slot: usize) -> Option<BorrowedFd<'_>> {
        self.connections.get(slot)?.as_ref().map(|connection| connection.socket.as_fd())
    }

    /// Whether a connection only reads.
    pub(super) fn sinks(&self, slot: usize) -> bool {
        let connection = self.connections.get(slot).and_then(Option::as_ref);
        connection.is_some_and(|connection| matches!(connection.stage, Stage::Sink))
    }

    /// Whether somebody else may read a connection's next bytes, for [`on_ready`](Self::on_ready).
    pub(super) fn may_be_read(&self, slot: usize) -> bool {
        let connection = self.connections.get(slot).and_then(Option::as_ref);
        connection
            .is_some_and(|it| matches!(&it.stage, Stage::Echo(echo) if echo.header.is_empty()))
    }

    /// Does what has become possible on a connection, whose first bytes may have been read. Its end, in
    /// whatever way, is no error; bytes that are no WebSocket are one.
    pub(super) fn on_ready(
        &mut self,
        slot: usize,
        event: Event,
        read: Option<Read<'_>>,
        scratch: &mut [u8],
        outbox: &mut Outbox,
    ) -> io::Result<Next> {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(Next::Wait);
        };
        let result = match connection.stage {
            Stage::Sink => sink(&connection.socket, &mut self.nothing, &mut self.sunk),
            _ => connection.on_ready(event, read, scratch, outbox, &mut self.echoed),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
            Err(_) => {
                outbox.forget_last(connection.token);
                self.end(slot);
                Ok(Next::Wait)
            }
            Ok(next) => Ok(next),
        }
    }

    /// Takes note of what became of posted bytes.
    pub(super) fn on_delivered(&mut self, slot: usize, bytes: &[u8], outcome: Outcome) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if connection.out.on_delivered(bytes, outcome).is_err() {
            self.end(slot);
        }
    }

    fn end(&mut self, slot: usize) {
        self.connections[slot] = None;
        self.free.push(slot);
        self.live -= 1;
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn sink(socket: &TcpStream, nothing: &mut [MaybeUninit<u8>], sunk: &mut u64) -> io::Result<Next> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    match SockRef::from(socket).recv_with_flags(nothing, flags) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => {
            *sunk += n as u64;
            Ok(Next::Again)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Next::Wait),
        Err(error) => Err(error),
    }
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    token: u64,
    stage: Stage,
    out: Outgoing,
}

/// `Head` ──upgrade request──▶ `Echo` or `Sink`, by its path.
#[derive(Debug)]
enum Stage {
    /// A request head, as far as it has come.
    Head(Vec<u8>),
    Echo(Echo),
    Sink,
}

impl Connection {
    fn on_ready(
        &mut self,
        event: Event,
        read: Option<Read<'_>>,
        scratch: &mut [u8],
        outbox: &mut Outbox,
        echoed: &mut u64,
    ) -> io::Result<Next> {
        if event.writable {
            self.out.flush(self.socket.as_fd())?;
        }
        if !event.readable {
            return Ok(Next::Wait);
        }
        if let Some(read) = read {
            let is_last = read.is_last(event);
            match read.bytes()? {
                Some(bytes) => self.on_bytes(bytes, outbox, echoed)?,
                None => return Ok(Next::Wait),
            };
            if is_last {
                return Ok(Next::Wait);
            }
        }
        loop {
            let kept = self.kept();
            let room = scratch.len() - kept;
            let n = match recv(self.socket.as_fd(), &mut scratch[kept..])? {
                Received::Bytes(n) => n,
                Received::Blocked => return Ok(Next::Wait),
                Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            let next = self.on_bytes(&mut scratch[..kept + n], outbox, echoed)?;
            if next == Next::Again || (n < room && !event.hung_up) {
                return Ok(next);
            }
        }
    }

    /// How many bytes of an unfinished frame header stand before those that come.
    fn kept(&self) -> usize {
        match &self.stage {
            Stage::Echo(echo) => echo.header.len(),
            _ => 0,
        }
    }

    fn on_bytes(
        &mut self,
        bytes: &mut [u8],
        outbox: &mut Outbox,
        echoed: &mut u64,
    ) -> io::Result<Next> {
        match &mut self.stage {
            Stage::Sink => Ok(Next::Again),
            Stage::Echo(echo) => {
                let (out, token, socket) = (&mut self.out, self.token, self.socket.as_fd());
                *echoed += echo.advance(bytes, |answer| out.post(outbox, token, socket, answer))?;
                Ok(Next::Wait)
            }
            Stage::Head(head) => {
                head.extend_from_slice(bytes);
                if !head.ends_with(b"\r\n\r\n") {
                    return match head.len() {
                        ..MAX_HEAD => Ok(Next::Wait),
                        _ => Err(invalid("a request head that does not end")),
                    };
                }
                let answer = answer(head)?;
                let sinks = head.windows(SINK_PATH.len()).any(|w| w == SINK_PATH.as_bytes());
                self.stage = if sinks { Stage::Sink } else { Stage::Echo(Echo::default()) };
                self.out.send(self.socket.as_fd(), &answer)?;
                Ok(Next::Again)
            }
        }
    }
}

/// The answer to an upgrade request.
fn answer(head: &[u8]) -> io::Result<Vec<u8>> {
    const NAME: &[u8] = b"sec-websocket-key:";
    let key = head.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then(|| value.trim_ascii())
    });
    let key = key.ok_or_else(|| invalid("a request without Sec-WebSocket-Key"))?;
    let start =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: ";
    Ok([&start[..], &accept_key(key), b"\r\n\r\n"].concat())
}

/// Where in the frames of a client the echo is.
#[derive(Debug, Default)]
struct Echo {
    /// The beginning of a header whose end has not come yet.
    header: Vec<u8>,
    mask: [u8; 4],
    /// How many bytes of the payload were answered, and how many are to come.
    done: usize,
    left: u64,
    /// Whether it is a message that is answered, and no ping.
    is_message: bool,
}

impl Echo {
    /// Takes bytes, before which the kept ones of the header have their place, and answers them; returns how many
    /// were those of messages.
    fn advance(
        &mut self,
        bytes: &mut [u8],
        mut send: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        bytes[..self.header.len()].copy_from_slice(&self.header);
        self.header.clear();
        let (mut at, mut echoed) = (0, 0);
        while at < bytes.len() {
            let (begin, mut start) = (at, at);
            if self.left == 0 {
                let decoded = FrameHeader::decode(&bytes[at..]);
                let decoded = decoded.map_err(|error| invalid(&error.to_string()))?;
                let Some((header, rest)) = decoded else {
                    self.header.extend_from_slice(&bytes[at..]);
                    return Ok(echoed);
                };
                let payload_at = bytes.len() - rest.len();
                self.mask = header.mask.ok_or_else(|| invalid("a frame without mask"))?;
                (self.done, self.left) = (0, header.payload_len);
                self.is_message = !header.opcode.is_control();
                let unmasked =
                    FrameHeader { mask: None, opcode: answering(header.opcode), ..header };
                let unmasked = unmasked.encode();
                start = payload_at - unmasked.len();
                bytes[start..payload_at].copy_from_slice(&unmasked);
                at = payload_at;
            }
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let end = at + left.min(bytes.len() - at);
            mask::apply(self.mask, self.done, &mut bytes[at..end]);
            self.done += end - at;
            self.left -= (end - at) as u64;
            if self.is_message {
                echoed += (end - begin) as u64;
            }
            send(&bytes[start..end])?;
            at = end;
        }
        Ok(echoed)
    }
}

fn answering(opcode: Opcode) -> Opcode {
    if opcode == Opcode::Ping { Opcode::Pong } else { opcode }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the backend received {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::load::message::{Message, masked};

    /// What is answered to these bytes when they come in pieces of this size, and how much of it was echoed.
    fn answered(wire: &[u8], cut: usize) -> (Vec<u8>, u64) {
        let (mut echo, mut answer, mut echoed) = (Echo::default(), Vec::new(), 0);
        for piece in wire.chunks(cut) {
            let mut bytes = vec![0; echo.header.len()];
            bytes.extend_from_slice(piece);
            let send = |bytes: &[u8]| {
                answer.extend_from_slice(bytes);
                Ok(())
            };
            echoed += echo.advance(&mut bytes, send).unwrap();
        }
        (answer, echoed)
    }

    #[test]
    fn frames_are_answered_unmasked_however_they_are_cut() {
        for len in [0, 125, 126, 70_000] {
            let message = Message::new(len);
            let wire = message.frame.repeat(2);
            for cut in [1, 5, 131, 4096] {
                let (answer, _) = answered(&wire, cut);
                assert!(answer == message.echo.repeat(2), "{len} bytes cut every {cut}");
            }
        }
    }

    #[test]
    fn a_ping_is_answered_by_a_pong_and_is_no_echo() {
        let message = Message::new(9);
        let wire = [&masked(Opcode::Ping, b"there?")[..], &message.frame].concat();
        for cut in [1, 13, 100] {
            let (answer, echoed) = answered(&wire, cut);
            let pong = [&FrameHeader::whole(Opcode::Pong, 6).encode()[..], b"there?"].concat();
            assert_eq!(answer, [&pong[..], &message.echo].concat(), "cut every {cut}");
            assert_eq!(echoed, message.frame.len() as u64, "cut every {cut}");
        }
    }

    #[test]
    fn the_answer_belongs_to_the_key() {
        // The key and its answer are those of RFC 6455 §1.3.
        let head = b"GET / HTTP/1.1\r\nsec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let answer = answer(head).unwrap();
        assert!(answer.ends_with(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
    }
}
