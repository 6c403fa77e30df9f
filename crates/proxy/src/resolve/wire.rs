//! The sockets of one lookup.
//!
//! Each server is asked from a socket of its own, whose port the kernel chooses and which takes
//! nothing from anybody else. They last as long as the lookup.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use wssgate_config::model::LogLevel;
use wssgate_dns::{Failure, Lookup, Outcome, Query, Transport};

use super::{Key, Resolver};

/// Bytes of the longest datagram that is read; we allow for 512 (RFC 1035 §4.2.1).
const MAX_DATAGRAM: usize = 4096;

/// Failures of one socket after which it is given up.
const MAX_FAILURES: usize = 8;

/// Messages that may wait to be looked at.
const MAX_WAITING: usize = 16;

/// What comes from servers.
enum Event {
    Message(usize, Transport, Vec<u8>),
    Broken(usize),
}

/// Looks a name up until it is answered or `until` is over, which may move meanwhile.
pub(super) async fn look_up(resolver: &Resolver, key: &Key, until: &Cell<Instant>) -> Outcome {
    let servers = &resolver.model.servers;
    let first = resolver.turn.fetch_add(1, Relaxed);
    let wanted = resolver.wanted(key);
    let now = Instant::now();
    let mut lookup = Lookup::new(key.name.clone(), wanted, servers.len(), first, now, random);
    let (told, mut events) = mpsc::channel(MAX_WAITING);
    let mut wire = Wire { servers, sockets: HashMap::new(), told, tasks: JoinSet::new() };
    let mut odd = false;
    loop {
        while let Some(query) = lookup.poll_query() {
            wire.send(query);
        }
        if let Some(outcome) = lookup.outcome() {
            return outcome.clone();
        }
        let due = lookup.due().min(until.get());
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Message(server, transport, bytes)) => {
                    let taken = lookup.on_message(transport, &bytes, Instant::now());
                    // Once is enough: whoever wants to can send many.
                    if let Err(oddity) = taken
                        && !std::mem::replace(&mut odd, true)
                    {
                        let (name, server) = (&key.name, servers[server]);
                        let text = format_args!("{oddity} for {name} from {server}");
                        resolver.thread.log(LogLevel::Error, text);
                    }
                }
                Some(Event::Broken(server)) => lookup.on_broken(server, Instant::now()),
                // We hold a sender ourselves.
                None => {}
            },
            () = sleep_until(due.into()) => {
                let now = Instant::now();
                if until.get() <= now {
                    return Outcome::Failed(Failure::Silence, None);
                }
                lookup.on_time(now);
            }
        }
    }
}

/// A number that nobody can guess.
fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without random numbers there is no TLS either; the port is still one.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}

struct Wire<'s> {
    servers: &'s [SocketAddr],
    sockets: HashMap<usize, mpsc::Sender<Vec<u8>>>,
    told: mpsc::Sender<Event>,
    /// They end with the lookup.
    tasks: JoinSet<()>,
}

impl Wire<'_> {
    fn send(&mut self, query: Query) {
        let Query { server, transport, bytes } = query;
        let (address, told) = (self.servers[server], self.told.clone());
        match transport {
            Transport::Tcp => {
                self.tasks.spawn_local(async move {
                    let event = match by_tcp(address, &bytes).await {
                        Ok(answer) => Event::Message(server, transport, answer),
                        Err(_) => Event::Broken(server),
                    };
                    let _ = told.send(event).await;
                });
            }
            Transport::Udp => {
                let tasks = &mut self.tasks;
                let socket = self.sockets.entry(server).or_insert_with(|| {
                    let (queries, waiting) = mpsc::channel(MAX_WAITING);
                    tasks.spawn_local(async move {
                        // Nothing else can be said of a socket that could not be made.
                        if by_udp(server, address, waiting, &told).await.is_err() {
                            let _ = told.send(Event::Broken(server)).await;
                        }
                    });
                    queries
                });
                // A socket with so much to send is not heard; what is lost is asked again.
                let _ = socket.try_send(bytes);
            }
        }
    }
}

/// Sends datagrams to one server and takes what comes from it.
async fn by_udp(
    server: usize,
    address: SocketAddr,
    mut queries: mpsc::Receiver<Vec<u8>>,
    told: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = Rc::new(UdpSocket::bind(any).await?);
    // From now on the kernel lets nothing else in, and tells us when nobody is there.
    socket.connect(address).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut failures = 0;
    while failures < MAX_FAILURES {
        let done = tokio::select! {
            query = queries.recv() => match query {
                Some(query) => socket.send(&query).await.map(|_| None),
                None => return Ok(()),
            },
            received = socket.recv(&mut buffer) => received.map(Some),
        };
        let event = match done {
            Ok(None) => continue,
            Ok(Some(len)) => Event::Message(server, Transport::Udp, buffer[..len].to_vec()),
            Err(_) => {
                failures += 1;
                Event::Broken(server)
            }
        };
        if told.send(event).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Asks on a connection of its own (RFC 1035 §4.2.2).
async fn by_tcp(address: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), query].concat()).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; len.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
