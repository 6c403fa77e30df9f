//! The other end of a leg.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

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

    pub(super) fn end(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}
