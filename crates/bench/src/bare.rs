//! A relay with nothing in it: what is received on one socket is sent on another, and that is all.
//!
//! It knows no TLS, no HTTP and no frames, keeps nothing and bounds nothing, so it is no proxy; it
//! shows what the kernel takes for one `recv` and one `send` per message, made for many sockets at once
//! where the kernel lets us, below which nothing that uses these calls can be.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use wssgate_sys::batch::Batch;
use wssgate_sys::epoll::{Epoll, Event, Events};
use wssgate_sys::process;
use wssgate_sys::socket::{Received, set_nodelay};

use crate::load::joint_calls;

/// The first argument of a benchmark that is to be this relay; then come `--listen` or `--backend`,
/// each with an address, in any number.
pub(crate) const ARGUMENT: &str = "--bare-relay";

/// What one wait may bring, and how many calls are made at once: as in our relay.
const EVENTS: usize = 64;
const GROUP: usize = 32;

/// What one read may bring, and a line of the processor's cache, so that not all begin in the same set.
const BUFFER: usize = (64 << 10) + 64;

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
        relay.carry();
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
    /// Sockets to read.
    ready: Vec<usize>,
    batch: Batch,
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
            ready: Vec::new(),
            batch: joint_calls(GROUP)?,
            buffer: vec![0; BUFFER * GROUP],
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
                self.ready.push(index);
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

    /// One `recv` and one `send` for each that is ready. Whatever goes wrong ends its pair.
    fn carry(&mut self) {
        let Self { ready, sockets, batch, buffer, free, .. } = self;
        for group in ready.chunks(GROUP) {
            let open = |index: usize| sockets[index].is_some();
            let group: Vec<_> = group.iter().copied().filter(|&index| open(index)).collect();
            let socket = |index: usize| sockets[index].as_ref().map(AsFd::as_fd);
            let from = group.iter().filter_map(|&index| socket(index));
            let received = batch.recv(from.zip(buffer.chunks_mut(BUFFER)));
            let received: Vec<_> = received.iter().map(|outcome| outcome.received()).collect();
            let bytes = |number: usize| match received[number] {
                Ok(Received::Bytes(len)) => Some(&buffer[number * BUFFER..][..len]),
                Ok(Received::Blocked | Received::End) | Err(_) => None,
            };
            let calls = (0..).zip(&group);
            let calls = calls.filter_map(|(number, &index)| socket(index ^ 1).zip(bytes(number)));
            let mut sent = batch.send(calls).to_vec().into_iter();
            for (&index, received) in group.iter().zip(&received) {
                let carried = match received {
                    Ok(Received::Blocked) => true,
                    Ok(Received::Bytes(_)) => sent.next().is_some_and(|it| it.sent().is_ok()),
                    Ok(Received::End) | Err(_) => false,
                };
                if !carried && sockets[index].is_some() {
                    sockets[index] = None;
                    sockets[index ^ 1] = None;
                    free.push(index & !1);
                }
            }
        }
        ready.clear();
    }
}
