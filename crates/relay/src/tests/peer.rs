//! The other end of a leg.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustls::Connection;

/// A connected pair on loopback: the peer's end and the proxy's.
pub(super) fn tcp_pair() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    (far, near.into())
}

/// A scripted peer that never waits.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    /// What arrived and was not yet looked at.
    pub(super) received: Vec<u8>,
    /// The other end has ended its direction.
    pub(super) ended: bool,
    /// The connection was reset.
    pub(super) reset: bool,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new(), ended: false, reset: false }
    }

    /// Reads what is there.
    pub(super) fn poll(&mut self) {
        let mut buffer = [0; 16 * 1024];
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.reset = true;
                    self.ended = true;
                }
            }
        }
    }

    /// Sends bytes that surely fit into the kernel.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as the kernel takes now.
    pub(super) fn send_some(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        match self.stream.write(bytes) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) fn end(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a RST.
    pub(super) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A peer that speaks TLS by rustls.
pub(super) struct TlsPeer {
    pub(super) wire: Peer,
    pub(super) tls: Connection,
    /// What arrived inside TLS and was not yet looked at.
    pub(super) received: Vec<u8>,
    /// Our close_notify has arrived.
    pub(super) closed: bool,
    /// What rustls had to object.
    pub(super) error: Option<rustls::Error>,
}

impl TlsPeer {
    pub(super) fn new(wire: Peer, tls: Connection) -> Self {
        Self { wire, tls, received: Vec::new(), closed: false, error: None }
    }

    /// Reads what is there, and writes what rustls wants to.
    pub(super) fn poll(&mut self) {
        self.wire.poll();
        let wire = std::mem::take(&mut self.wire.received);
        let mut rest = &wire[..];
        while !rest.is_empty() && self.error.is_none() {
            self.tls.read_tls(&mut rest).unwrap();
            match self.tls.process_new_packets() {
                Ok(state) => {
                    let start = self.received.len();
                    self.received.resize(start + state.plaintext_bytes_to_read(), 0);
                    self.tls.reader().read_exact(&mut self.received[start..]).unwrap();
                    self.closed = state.peer_has_closed();
                }
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// What `plain` becomes on the wire.
    pub(super) fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for part in plain.chunks(1 << 14) {
            self.tls.writer().write_all(part).unwrap();
            self.write_out(&mut wire);
        }
        self.write_out(&mut wire);
        wire
    }

    pub(super) fn close_notify(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.sealed(&[])
    }

    fn write_out(&mut self, wire: &mut Vec<u8>) {
        while self.tls.wants_write() {
            self.tls.write_tls(wire).unwrap();
        }
    }

    pub(super) fn send(&mut self, plain: &[u8]) {
        let wire = self.sealed(plain);
        self.wire.send(&wire);
    }
}
