//! All clients and the backend behind the proxy, in one thread and one epoll loop.
//!
//! One loop is cheaper than two threads on the same core, and it takes turns fairly where a
//! scheduler would let one of them run for milliseconds. Nothing is built per message: frames are
//! made once, read buffers are shared, an echo is compared with what must come and forgotten. Short
//! messages are read and written for many sockets at once, where the kernel lets us, or the load would
//! take more for an echo than the fastest proxy.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use wssgate_sys::batch::{Batch, Outcome};
use wssgate_sys::epoll::{Epoll, Event, Events};
use wssgate_sys::socket::Received;

use crate::stats::Latencies;

mod backend;
mod client;
mod message;
mod outgoing;
mod records;
mod returning;

use backend::{Backend, Next};
pub(crate) use client::Security;
use client::{Client, Role, Shared};
use message::Message;
use returning::Returning;
pub(crate) use returning::{PER_SECOND, SLOT, Seen, Slot};

/// Work that is not done by then has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many sockets are read and written at once.
const GROUP: usize = 32;

/// What one of them may bring: a short message and what TLS adds to it.
const PIECE: usize = 2 * message::SHORT;

/// How long a turn of the loop waits at most.
const TURN: Duration = Duration::from_millis(10);

// A token says what became ready: the kind above, the index below.
const LISTENER: u64 = 0;
const CONNECTION: u64 = 1 << 32;
const CLIENT: u64 = 2 << 32;

/// Where clients connect to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) security: Security,
}

/// What a client does when an echo has come.
#[derive(Clone, Debug)]
enum Plan {
    Rest,
    /// Sends the next message.
    Repeat,
    /// Goes away and comes back as a new client.
    Renew(Target),
}

/// What was read for a connection, in an answer to the event that it is readable.
struct Read<'a> {
    outcome: Outcome,
    buffer: &'a mut [u8],
}

impl<'a> Read<'a> {
    /// What has come, or `None` if that is nothing. The end is an error.
    fn bytes(self) -> io::Result<Option<&'a mut [u8]>> {
        match self.outcome.received()? {
            Received::Bytes(n) => Ok(Some(&mut self.buffer[..n])),
            Received::Blocked => Ok(None),
            Received::End => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Whether another event will tell of everything that comes next.
    fn is_last(&self, event: Event) -> bool {
        let fills =
            matches!(self.outcome.received(), Ok(Received::Bytes(n)) if n == self.buffer.len());
        !fills && !event.hung_up
    }
}

/// The clients and the backend.
pub(crate) struct Load {
    epoll: Epoll,
    events: Events,
    ready: Vec<Event>,
    batch: Batch,
    /// Where a group is read, piece by piece.
    pieces: Vec<u8>,
    /// Tokens of those that have more to do without a further event.
    again: Vec<u64>,
    backend: Backend,
    clients: Vec<Option<Client>>,
    shared: Shared,
    plan: Plan,
    connects: usize,
    echoes: u64,
    latencies: Latencies,
    /// What becomes of clients whose tunnel ends; without it that is a failure.
    returning: Option<Returning>,
    /// How long it had something to do.
    busy: Duration,
}

impl Load {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let backend = Backend::listen(&epoll, LISTENER)?;
        Ok(Self {
            epoll,
            events: Events::with_capacity(1024),
            ready: Vec::with_capacity(1024),
            batch: joint_calls(GROUP)?,
            pieces: vec![0; GROUP * PIECE],
            again: Vec::new(),
            backend,
            clients: Vec::new(),
            shared: Shared::new(),
            plan: Plan::Rest,
            connects: 0,
            echoes: 0,
            latencies: Latencies::default(),
            returning: None,
            busy: Duration::ZERO,
        })
    }

    /// Where the backend listens.
    pub(crate) fn backend_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.backend.addresses()
    }

    /// How much of all echoes with the present message has been done: each way of each counts for a half,
    /// by its bytes, so that long ones that are under way are not left out.
    pub(crate) fn progress(&self) -> f64 {
        let ways = [
            (self.backend.echoed, &self.shared.message.frame),
            (self.shared.arrived, &self.shared.message.echo),
        ];
        ways.into_iter().map(|(bytes, of)| bytes as f64 / of.len() as f64 / 2.0).sum()
    }

    /// Handshakes so far that resumed a session.
    pub(crate) fn resumed(&self) -> u64 {
        self.shared.resumed
    }

    /// Pings so far that clients have answered.
    pub(crate) fn pings(&self) -> u64 {
        self.shared.pings
    }

    /// Bytes of floods that have reached the backend so far.
    pub(crate) fn sunk(&self) -> u64 {
        self.backend.sunk()
    }

    /// Says how long messages are from now on. No echo may be outstanding.
    pub(crate) fn message_len(&mut self, len: usize) {
        debug_assert!(self.clients.iter().flatten().all(|client| client.in_flight == 0));
        self.shared.message = Message::new(len);
        (self.backend.echoed, self.shared.arrived) = (0, 0);
    }

    /// Opens `count` tunnels, of which at most `at_once` are under way, until each had one echo.
    pub(crate) fn open(&mut self, target: &Target, count: usize, at_once: usize) -> io::Result<()> {
        let before = self.echoes;
        let mut begun = 0;
        self.until(|load| {
            let up = (load.echoes - before) as usize;
            while begun < count && begun - up < at_once {
                load.connect(target, Role::Echo)?;
                begun += 1;
            }
            Ok(up == count)
        })
    }

    /// One echo on every tunnel, of which at most `at_once` are under way.
    pub(crate) fn echo_once(&mut self, at_once: usize) -> io::Result<()> {
        let before = self.echoes;
        let count = self.clients.len();
        let mut begun = 0;
        self.until(|load| {
            let back = (load.echoes - before) as usize;
            while begun < count && begun - back < at_once {
                load.send(begun)?;
                begun += 1;
            }
            Ok(back == count)
        })
    }

    /// From now on every client has one message under way, always.
    pub(crate) fn begin_to_repeat(&mut self) -> io::Result<()> {
        self.plan = Plan::Repeat;
        (0..self.clients.len()).try_for_each(|index| self.send(index))
    }

    /// From now on `count` clients come, have one echo, and go, over and over.
    pub(crate) fn begin_to_renew(&mut self, target: &Target, count: usize) -> io::Result<()> {
        self.plan = Plan::Renew(target.clone());
        (0..count).try_for_each(|_| self.connect(target, Role::Echo))
    }

    /// Lets what was begun go on for a time.
    pub(crate) fn run_for(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(TURN)?;
        }
        Ok(())
    }

    /// Begins nothing new and waits for the echoes that are under way.
    pub(crate) fn come_to_rest(&mut self) -> io::Result<()> {
        self.plan = Plan::Rest;
        self.until(|load| {
            let rests = |client: &Client| client.floods() || resting(client);
            Ok(load.clients.iter().flatten().all(rests))
        })
    }

    /// A client that sends without end to a backend that only reads.
    pub(crate) fn begin_to_flood(&mut self, target: &Target) -> io::Result<()> {
        self.connect(target, Role::Flood)?;
        let before = self.sunk();
        self.until(|load| Ok(load.sunk() > before))
    }

    /// Sends `per_second` messages for a time, evenly spaced over all tunnels in turn, and returns
    /// how long after its planned moment the echo of each was complete.
    ///
    /// The load never sleeps meanwhile, so that neither timers nor waking up are measured.
    pub(crate) fn paced(&mut self, per_second: u32, time: Duration) -> io::Result<Latencies> {
        let echoing = |(index, client): (usize, &Option<Client>)| {
            client.as_ref().is_some_and(|client| !client.floods()).then_some(index)
        };
        let indices: Vec<usize> = self.clients.iter().enumerate().filter_map(echoing).collect();
        let count = (time.as_secs_f64() * f64::from(per_second)) as u32;
        self.latencies = Latencies::default();
        let (begin, mut sent) = (Instant::now(), 0);
        while sent < count {
            let due = begin + Duration::from_secs(1) * sent / per_second;
            if Instant::now() >= due {
                let index = indices[sent as usize % indices.len()];
                if let Some(client) = &mut self.clients[index] {
                    client.due.push_back(due);
                    client.send_message(&mut self.shared)?;
                }
                self.deliver()?;
                sent += 1;
            } else {
                self.turn(Duration::ZERO)?;
            }
        }
        self.come_to_rest()?;
        Ok(std::mem::take(&mut self.latencies))
    }

    /// All clients go away, without a word.
    pub(crate) fn leave(&mut self) {
        self.plan = Plan::Rest;
        self.clients.clear();
        self.shared.outbox.clear();
    }

    /// Waits until the proxy has closed all its connections to the backend.
    pub(crate) fn wait_for_silence(&mut self) -> io::Result<()> {
        self.until(|load| Ok(load.backend.live() == 0))
    }

    fn until(&mut self, mut done: impl FnMut(&mut Self) -> io::Result<bool>) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self)? {
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the proxy is not done"));
            }
            self.turn(TURN)?;
        }
        Ok(())
    }

    fn connect(&mut self, target: &Target, role: Role) -> io::Result<()> {
        self.clients.push(None);
        self.connect_as(self.clients.len() - 1, target, role)
    }

    fn connect_as(&mut self, index: usize, target: &Target, role: Role) -> io::Result<()> {
        let address = target.addresses[self.connects % target.addresses.len()];
        self.connects += 1;
        // The one before it, if any, goes first.
        self.deliver()?;
        self.clients[index] = None;
        let token = CLIENT + index as u64;
        let client = Client::connect(address, &target.security, role, token)?;
        self.epoll.add(client.socket(), token, true)?;
        self.clients[index] = Some(client);
        Ok(())
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        if let Some(client) = &mut self.clients[index]
            && let Err(error) = client.send_message(&mut self.shared)
        {
            self.on_end(index, error)?;
        }
        if self.shared.outbox.is_full() { self.deliver() } else { Ok(()) }
    }

    /// Writes together what was posted.
    fn deliver(&mut self) -> io::Result<()> {
        if let Some(error) = self.batch.take_failure() {
            // From here on it would be another load than that of the other proxies.
            return Err(error);
        }
        let mut outbox = std::mem::take(&mut self.shared.outbox);
        let mut ended = Vec::new();
        let Self { batch, clients, backend, .. } = self;
        let is_there = |&(token, _): &(u64, &[u8])| socket(clients, backend, token).is_some();
        let posts: Vec<_> = outbox.pieces().filter(is_there).collect();
        let calls = posts.iter();
        let calls =
            calls.filter_map(|&(token, bytes)| Some((socket(clients, backend, token)?, bytes)));
        let outcomes = batch.send(calls).iter();
        for ((token, bytes), &outcome) in posts.into_iter().zip(outcomes) {
            match split(token) {
                (CLIENT, index) => {
                    if let Some(client) = &mut clients[index]
                        && let Err(error) = client.on_delivered(bytes, outcome)
                    {
                        ended.push((index, error));
                    }
                }
                (_, slot) => backend.on_delivered(slot, bytes, outcome),
            }
        }
        outbox.clear();
        self.shared.outbox = outbox;
        ended.into_iter().try_for_each(|(index, error)| self.on_end(index, error))
    }

    /// Sends what is to be sent, waits for events, and does what they ask for.
    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let wait = if self.again.is_empty() { wait } else { Duration::ZERO };
        self.deliver()?;
        self.epoll.wait(&mut self.events, Some(wait))?;
        self.ready.clear();
        self.ready.extend(self.events.iter());
        let begin = (!self.ready.is_empty()).then(Instant::now);
        let (ready, mut pieces) =
            (std::mem::take(&mut self.ready), std::mem::take(&mut self.pieces));
        ready.chunks(GROUP).try_for_each(|group| self.on_group(group, &mut pieces))?;
        (self.ready, self.pieces) = (ready, pieces);
        for token in std::mem::take(&mut self.again) {
            let readable =
                Event { token, readable: true, writable: false, hung_up: false, failed: false };
            self.on_event(readable, None)?;
        }
        self.busy += begin.map(|begin| begin.elapsed()).unwrap_or_default();
        Ok(())
    }

    /// Reads together what may be, answers event by event, and writes together.
    fn on_group(&mut self, group: &[Event], pieces: &mut [u8]) -> io::Result<()> {
        let joint: Vec<bool> = group.iter().map(|event| self.may_be_read(event)).collect();
        let Self { batch, clients, backend, .. } = self;
        let sockets = group.iter().zip(&joint).filter(|&(_, &joint)| joint);
        let sockets = sockets.filter_map(|(event, _)| socket(clients, backend, event.token));
        let outcomes = batch.recv(sockets.zip(pieces.chunks_mut(PIECE))).to_vec();
        let mut reads = outcomes.into_iter().zip(pieces.chunks_mut(PIECE));
        for (event, joint) in group.iter().zip(joint) {
            let read = if joint { reads.next() } else { None };
            let read = read.map(|(outcome, buffer)| Read { outcome, buffer });
            self.on_event(*event, read)?;
        }
        self.deliver()
    }

    fn may_be_read(&self, event: &Event) -> bool {
        let readable = event.readable && self.shared.message.is_short();
        readable
            && match split(event.token) {
                (CLIENT, index) => self.clients[index].as_ref().is_some_and(Client::may_be_read),
                (CONNECTION, slot) => self.backend.may_be_read(slot),
                _ => false,
            }
    }

    fn on_event(&mut self, event: Event, read: Option<Read<'_>>) -> io::Result<()> {
        match split(event.token) {
            (CLIENT, index) => self.on_client(index, event, read),
            (CONNECTION, slot) => {
                if self.backend.sinks(slot) {
                    // It takes a while, and nobody is to wait for it.
                    self.deliver()?;
                }
                let Shared { scratch, outbox, .. } = &mut self.shared;
                let next = self.backend.on_ready(slot, event, read, scratch, outbox)?;
                if next == Next::Again {
                    self.again.push(event.token);
                }
                Ok(())
            }
            (_, index) => {
                // Slots that become free and used again are not to get bytes of those before them.
                self.deliver()?;
                self.backend.accept(index, &self.epoll, CONNECTION)
            }
        }
    }

    fn on_client(&mut self, index: usize, event: Event, read: Option<Read<'_>>) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        let echoes = match client.on_ready(event, read, &mut self.shared) {
            Ok(echoes) => echoes,
            Err(error) => return self.on_end(index, error),
        };
        if client.floods() && client.is_open() {
            self.flood(index)?;
        }
        (0..echoes).try_for_each(|_| self.on_echo(index))
    }

    fn flood(&mut self, index: usize) -> io::Result<()> {
        // It takes a while, and nobody is to wait for it.
        self.deliver()?;
        if let Some(client) = &mut self.clients[index]
            && client.flood(&mut self.shared)?
        {
            self.again.push(CLIENT + index as u64);
        }
        Ok(())
    }

    fn on_echo(&mut self, index: usize) -> io::Result<()> {
        self.echoes += 1;
        match &self.plan {
            Plan::Rest => {}
            Plan::Repeat => return self.send(index),
            Plan::Renew(target) => {
                let target = target.clone();
                return self.connect_as(index, &target, Role::Echo);
            }
        }
        let now = Instant::now();
        if let Some(client) = &mut self.clients[index]
            && let Some(due) = client.due.pop_front()
        {
            self.latencies.add(now - due);
            self.returning.iter_mut().for_each(|it| it.on_delay(now, now - due));
        } else if let Some(returning) = &mut self.returning {
            returning.on_back(index, now);
        }
        Ok(())
    }
}

/// What makes up to `size` calls together, or one by one if the kernel lets nobody. Whatever else stands
/// in the way is an error, or one proxy would have another load than the others.
pub(crate) fn joint_calls(size: usize) -> io::Result<Batch> {
    Batch::new(size as u32).or_else(|error| match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => Ok(Batch::one_by_one()),
        _ => Err(error),
    })
}

/// The kind that a token names, and its index.
fn split(token: u64) -> (u64, usize) {
    (token & !(CONNECTION - 1), (token & (CONNECTION - 1)) as usize)
}

fn socket<'a>(
    clients: &'a [Option<Client>],
    backend: &'a Backend,
    token: u64,
) -> Option<BorrowedFd<'a>> {
    match split(token) {
        (CLIENT, index) => clients.get(index)?.as_ref().map(Client::socket),
        (_, slot) => backend.socket(slot),
    }
}

fn resting(client: &Client) -> bool {
    client.is_open() && client.in_flight == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn direct() -> (Load, Target) {
        let load = Load::new().unwrap();
        let addresses = load.backend_addresses().unwrap();
        (load, Target { addresses, security: Security::Plain })
    }

    #[test]
    fn every_opened_tunnel_has_had_one_echo() {
        let (mut load, target) = direct();
        load.open(&target, 20, 3).unwrap();
        assert_eq!((load.echoes, load.backend.live()), (20, 20));
        assert_eq!(load.progress(), 20.0);
        load.message_len(300_000);
        load.echo_once(4).unwrap();
        assert_eq!((load.echoes, load.progress()), (40, 20.0));
        load.leave();
        load.wait_for_silence().unwrap();
        assert_eq!(load.backend.live(), 0);
    }

    #[test]
    fn repeating_and_renewing_clients_come_to_rest() {
        let (mut load, target) = direct();
        load.open(&target, 2, 2).unwrap();
        load.begin_to_repeat().unwrap();
        let before = load.echoes;
        load.until(|load| Ok(load.echoes > before + 50)).unwrap();
        load.come_to_rest().unwrap();
        load.begin_to_renew(&target, 2).unwrap();
        let before = load.echoes;
        load.until(|load| Ok(load.echoes > before + 20)).unwrap();
        load.come_to_rest().unwrap();
        assert!(load.clients.iter().flatten().all(resting));
    }

    #[test]
    fn paced_messages_all_have_a_latency_even_next_to_a_flood() {
        let (mut load, target) = direct();
        load.open(&target, 5, 5).unwrap();
        load.begin_to_flood(&target).unwrap();
        let mut latencies = load.paced(10_000, Duration::from_millis(20)).unwrap();
        assert!(latencies.percentile_us(1.0).unwrap() > 0.0);
        assert!(load.sunk() > 64 << 10);
        assert_eq!(load.echoes, 205);
    }

    #[test]
    fn a_load_that_falls_behind_its_pace_sends_all_the_same() {
        let (mut load, target) = direct();
        load.open(&target, 3, 3).unwrap();
        // Nobody can keep this pace, so several messages of a client are due at once.
        load.paced(100_000_000, Duration::from_micros(2)).unwrap();
        assert_eq!((load.echoes, load.progress()), (203, 203.0));
    }

    #[test]
    fn a_backend_forgets_what_a_client_that_is_gone_was_to_hear() {
        let (mut load, target) = direct();
        load.open(&target, 2, 2).unwrap();
        load.send(0).unwrap();
        load.send(1).unwrap();
        load.deliver().unwrap();
        // Its message and its end are there together.
        load.clients[0] = None;
        load.until(|load| Ok(load.echoes == 3)).unwrap();
        load.until(|load| Ok(load.backend.live() == 1)).unwrap();
        load.send(1).unwrap();
        load.until(|load| Ok(load.echoes == 4)).unwrap();
    }
}
