//! A relay with nothing in it: what is received on one socket is sent on another, and that is all.
//!
//! It knows no TLS, no HTTP and no frames, keeps nothing and bounds nothing, so it is no proxy; it
//! shows what the kernel takes for one `recv` and one `send` per message, below which nothing that
//! uses these calls can be.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use wssgate_sys::epoll::{Epoll, Event, Events};
use wssgate_sys::process;
use wssgate_sys::socket::{Received, recv, send, set_nodelay};

/// The first argument of a benchmark that is to be this relay; then come `--listen` or `--backend`,
/// each with an address, in any number.
pub(crate) const ARGUMENT: &str = "--bare-relay";

/// What one wait may bring, and one read.
const EVENTS: usize = 512;
const BUFFER: usize = 64 << 10;

/// Relays until it is killed.
pub(crate) fn run(args: impl Iterator<Item = String>) -> io::Result<()> {
    process::raise_descriptor_limit()?;
    let mut relay = Relay::new(args)?;
    let mut events = Events::with_capacity(EVENTS);
    let mut ready: Vec<Event> = Vec::with_capacity(EVENTS);
    loop {
        relay.epoll.wait(&mut events, None)?;
        ready.clear();
        ready.extend(events.iter());
        ready.iter().try_for_each(|&event| relay.on_event(event))?;
    }
}

struct Relay {
    epoll: Epoll,
    /// Their tokens are the first ones.
    listeners: Vec<TcpListener>,
    backends: Vec<SocketAddr>,
    accepted: usize,
    /// The sockets of a pair stand next to each other, the even one first.
    sockets: Vec<Option<TcpStream>>,
    /// Where the next pairs go.
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Relay {
    fn new(mut args: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut relay = Self {
            epoll: Epoll::new()?,
            listeners: Vec::new(),
            backends: Vec::new(),
            accepted: 0,
            sockets: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; BUFFER],
        };
        while let (Some(what), Some(address)) = (args.next(), args.next()) {
            let address = address.parse().map_err(io::Error::other)?;
            match what.as_str() {
                "--listen" => {
                    let listener = TcpListener::bind(address)?;
                    let token = relay.listeners.len() as u64;
                    relay.epoll.add_level_readable(listener.as_fd(), token)?;
                    relay.listeners.push(listener);
                }
                _ => relay.backends.push(address),
            }
        }
        Ok(relay)
    }

    fn on_event(&mut self, event: Event) -> io::Result<()> {
        let token = event.token as usize;
        match token.checked_sub(self.listeners.len()) {
            None => self.accept(token),
            Some(index) if event.readable => {
                self.carry(index);
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        let (client, _) = self.listeners[listener].accept()?;
        let upstream = TcpStream::connect(self.backends[self.accepted % self.backends.len()])?;
        self.accepted += 1;
        let first = self.free.pop().unwrap_or(self.sockets.len());
        self.sockets.resize_with(self.sockets.len().max(first + 2), || None);
        for (index, socket) in [(first, client), (first + 1, upstream)] {
            set_nodelay(socket.as_fd(), true)?;
            let token = (self.listeners.len() + index) as u64;
            self.epoll.add(socket.as_fd(), token, false)?;
            self.sockets[index] = Some(socket);
        }
        Ok(())
    }

    /// One `recv`, one `send`. Whatever goes wrong ends the pair.
    fn carry(&mut self, index: usize) {
        let (Some(from), Some(to)) = (&self.sockets[index], &self.sockets[index ^ 1]) else {
            return;
        };
        let sent = match recv(from.as_fd(), &mut self.buffer) {
            Ok(Received::Blocked) => return,
            Ok(Received::Bytes(n)) => send(to.as_fd(), &self.buffer[..n]).is_ok(),
            Ok(Received::End) | Err(_) => false,
        };
        if !sent {
            self.sockets[index] = None;
            self.sockets[index ^ 1] = None;
            self.free.push(index & !1);
        }
    }
}
