//! The sockets of one lookup.
//!
//! Each server is asked from a socket of its own, whose port the kernel chooses and which takes
//! nothing from anybody else. A lookup has [`MAX_SOCKETS`] of them: that of the server which is asked
//! now, and the one before it, whose answer may only be late.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;
use wssgate_config::model::LogLevel;
use wssgate_dns::{Lookup, Outcome, Query, Transport};

use super::{Key, Resolver};

/// Bytes of the longest datagram that is read; we allow for 512 (RFC 1035 §4.2.1).
const MAX_DATAGRAM: usize = 4096;

/// Sockets that one lookup has at once; the one that was not used for the longest time makes room.
pub(super) const MAX_SOCKETS: usize = 2;

/// Failures of one socket after which the next query takes another. That a server refuses is none: it
/// may be there again in a moment.
const MAX_FAILURES: usize = 8;

/// Messages that may wait to be looked at.
const MAX_WAITING: usize = 16;

/// What comes from servers.
enum Event {
    Message(usize, Transport, Vec<u8>),
    Broken(usize),
}

/// Looks a name up until it is answered, however long that takes.
pub(super) async fn look_up(resolver: &Resolver, key: &Key) -> Outcome {
    let servers = &resolver.model.servers;
    let first = resolver.turn.fetch_add(1, Relaxed);
    let wanted = resolver.wanted(key);
    let mut lookup =
        Lookup::new(key.name.clone(), wanted, servers.len(), first, Instant::now(), random);
    let (told, mut events) = mpsc::channel(MAX_WAITING);
    let mut wire = Wire { servers, sockets: Vec::new(), told };
    let mut odd = false;
    loop {
        while let Some(query) = lookup.poll_query() {
            wire.send(query);
        }
        if let Some(outcome) = lookup.outcome() {
            return outcome.clone();
        }
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
            () = sleep_until(lookup.due().into()) => lookup.on_time(Instant::now()),
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
    /// The one that was used last at the end.
    sockets: Vec<Socket>,
    told: mpsc::Sender<Event>,
}

/// The task that serves a socket; it ends with this.
struct Socket {
    /// The server that it sends datagrams to, and where they are taken from.
    datagrams: Option<(usize, mpsc::Sender<Vec<u8>>)>,
    task: AbortHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire<'_> {
    fn send(&mut self, query: Query) {
        let Query { server, transport, bytes } = query;
        let socket = match transport {
            Transport::Tcp => self.connect(server, bytes),
            Transport::Udp => {
                let bound = self.sockets.iter().position(|socket| socket.reaches(server));
                let socket = match bound {
                    Some(bound) => self.sockets.remove(bound),
                    None => self.bind(server),
                };
                if let Some((_, queries)) = &socket.datagrams {
                    // A socket with so much to send is not heard; what is lost is asked again.
                    let _ = queries.try_send(bytes);
                }
                socket
            }
        };
        self.sockets.retain(|socket| !socket.task.is_finished());
        let over = (self.sockets.len() + 1).saturating_sub(MAX_SOCKETS);
        self.sockets.drain(..over);
        self.sockets.push(socket);
    }

    fn bind(&self, server: usize) -> Socket {
        let (address, told) = (self.servers[server], self.told.clone());
        let (queries, waiting) = mpsc::channel(MAX_WAITING);
        let task = tokio::task::spawn_local(async move {
            // Nothing else can be said of a socket that could not be made.
            if by_udp(server, address, waiting, &told).await.is_err() {
                let _ = told.send(Event::Broken(server)).await;
            }
        });
        Socket { datagrams: Some((server, queries)), task: task.abort_handle() }
    }

    fn connect(&self, server: usize, query: Vec<u8>) -> Socket {
        let (address, told) = (self.servers[server], self.told.clone());
        let task = tokio::task::spawn_local(async move {
            let event = match by_tcp(address, &query).await {
                Ok(answer) => Event::Message(server, Transport::Tcp, answer),
                Err(_) => Event::Broken(server),
            };
            let _ = told.send(event).await;
        });
        Socket { datagrams: None, task: task.abort_handle() }
    }
}

impl Socket {
    /// Whether it still sends datagrams to this server.
    fn reaches(&self, server: usize) -> bool {
        let datagrams = self.datagrams.as_ref();
        datagrams.is_some_and(|(to, queries)| *to == server && !queries.is_closed())
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
            Err(error) => {
                failures += usize::from(error.kind() != io::ErrorKind::ConnectionRefused);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;

    const GUARD: Duration = Duration::from_secs(20);

    fn query(server: usize) -> Query {
        Query { server, transport: Transport::Udp, bytes: vec![server as u8; 12] }
    }

    #[tokio::test]
    async fn a_server_that_has_refused_for_long_is_asked_again() {
        let gone = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let servers = [gone.local_addr().unwrap()];
        drop(gone);
        let (told, mut events) = mpsc::channel(MAX_WAITING);
        let mut wire = Wire { servers: &servers, sockets: Vec::new(), told };
        let asked = async {
            for _ in 0..3 * MAX_FAILURES {
                wire.send(query(0));
                let event = timeout(GUARD, events.recv()).await.unwrap();
                assert!(matches!(event, Some(Event::Broken(0))));
            }
            let back = UdpSocket::bind(servers[0]).await.unwrap();
            wire.send(query(0));
            let mut buffer = [1; 64];
            let len = timeout(GUARD, back.recv(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(buffer[..len], query(0).bytes);
        };
        LocalSet::new().run_until(asked).await;
    }

    #[tokio::test]
    async fn a_lookup_has_few_sockets_and_hears_the_server_before() {
        let mut sockets = Vec::new();
        for _ in 0..4 {
            sockets.push(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        }
        let servers: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let (told, mut events) = mpsc::channel(MAX_WAITING);
        let mut wire = Wire { servers: &servers, sockets: Vec::new(), told };
        let asked = async {
            let mut buffer = [0; 64];
            let mut from = Vec::new();
            for (server, socket) in sockets.iter().enumerate() {
                wire.send(query(server));
                from.push(timeout(GUARD, socket.recv_from(&mut buffer)).await.unwrap().unwrap().1);
                assert!(wire.sockets.len() <= MAX_SOCKETS);
            }
            sockets[2].send_to(b"late", from[2]).await.unwrap();
            let event = timeout(GUARD, events.recv()).await.unwrap();
            assert!(matches!(event, Some(Event::Message(2, Transport::Udp, _))));
            // That of the first server is closed, so its port is free.
            while UdpSocket::bind(from[0]).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        LocalSet::new().run_until(timeout(GUARD, asked)).await.unwrap();
    }
}
