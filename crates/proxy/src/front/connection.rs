//! One client connection: TLS, protocol, its requests one after the other.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::ready;
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout_at;
use tokio_rustls::server::TlsStream;
use wssgate_config::model::{AddressRoute, ListenAddr, LogLevel, ServerId, VariableCertificate};

use crate::exchange::path;
use crate::exchange::request::{Arrival, ConnectionInfo, Request, address_text};
use crate::front::h1::client::Client;
use crate::front::h1::{self, Link};
use crate::front::proxy_protocol::{self, NoHeader};
use crate::front::route;
use crate::generation::Generation;
use crate::listen::{ClientStream, Stream};
use crate::metrics::{ConnectionFailure, Held};
use crate::site::{Entered, Site};
use crate::tls::keys::RecordBoundary;
use crate::tls::server::{HandshakeError, TlsInfo, begins_tls};
use crate::tunnel::table::Tunnels;

/// How much of a connection is read to see whether it is TLS: more than most ClientHellos have.
const FIRST_READ: usize = 2048;

/// Serves one accepted connection, from its first byte to its end; `socket` is its index in
/// `Http::sockets`. It is counted as long as this lasts.
pub(crate) async fn serve(
    site: Rc<Site>,
    tunnels: Rc<Tunnels>,
    generation: Arc<Generation>,
    socket: usize,
    stream: Stream,
    peer: ListenAddr,
    _counted: (Entered, Held),
) {
    let accepted = Instant::now();
    let serial = next_serial();
    let listening = &generation.http().sockets[socket];
    let address = listening.address.clone();
    let local = local_address(&stream, &address);
    let Some(route) = route::address_route(listening, &local) else { return };
    let wait = generation.http().servers[route.default_server.0].connection.client_header_timeout;
    let deadline = accepted + wait;
    let (mut stream, mut read, mut told) = (stream, Vec::new(), None);
    if route.proxy_protocol {
        let header = Box::pin(proxy_protocol::read(&mut stream));
        match timeout_at(deadline.into(), header).await {
            Ok(Ok((header, behind))) => (told, read) = (header, behind),
            Ok(Err(error)) => {
                return log_failure(&site, &generation, serial, &peer, &local, &error.into());
            }
            Err(_) => {
                let late = OpenError::NoHeaderInTime;
                return log_failure(&site, &generation, serial, &peer, &local, &late);
            }
        }
    }
    let opened = match route.ssl {
        false => Ok(Opened::Plain(stream, read)),
        true => {
            // Boxed, so that the memory of a handshake is gone behind it.
            let hand = Hand {
                site: &site,
                generation: &generation,
                route,
                serial,
                peer: ip(&peer),
                local: &local,
                socket,
                accepted,
            };
            let handshake = Box::pin(hand.shake(stream, read));
            timeout_at(deadline.into(), handshake).await.unwrap_or(Err(OpenError::Timeout))
        }
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return log_failure(&site, &generation, serial, &peer, &local, &error),
    };
    let life = generation.life();
    drop(generation);
    let misses_tls = matches!(opened, Opened::MissesTls(..));
    let (stream, read, tls) = match opened {
        Opened::Plain(stream, read) | Opened::MissesTls(stream, read) => {
            (ClientStream::Plain(stream), read, None)
        }
        Opened::Tls(stream, info) => (ClientStream::Tls(stream), Vec::new(), Some(info)),
    };
    let info = Rc::new(ConnectionInfo {
        serial,
        peer: ip(&peer),
        told,
        local,
        socket,
        tls,
        accepted,
        requests: Cell::new(0),
        holder: RefCell::default(),
    });
    let client = Client::new(info, stream, read);
    let left = wait.saturating_sub(accepted.elapsed()).max(Duration::from_millis(1));
    h1::serve(Link { site, tunnels, client, address, misses_tls }, left, life).await;
}

/// A connection that is ready for its first request.
enum Opened {
    /// As the address wants it; with what was read.
    Plain(Stream, Vec<u8>),
    /// What was read shows that it is no TLS, although the address wants that.
    MissesTls(Stream, Vec<u8>),
    /// After a handshake.
    Tls(Box<TlsStream<RecordBoundary<Stream>>>, Rc<TlsInfo>),
}

/// Why a connection never came to its first request.
#[derive(Debug, Error)]
enum OpenError {
    #[error("client timed out (110: Connection timed out) while reading PROXY protocol")]
    NoHeaderInTime,
    #[error("{0} while reading PROXY protocol")]
    NoHeader(#[from] NoHeader),
    #[error("client timed out while SSL handshaking")]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(HandshakeError),
}

impl OpenError {
    /// Balancers are under the same roof: what they get wrong should be seen.
    fn level(&self) -> LogLevel {
        match self {
            Self::NoHeader(NoHeader::Wrong(_)) => LogLevel::Error,
            Self::Handshake(
                HandshakeError::Certificate(_) | HandshakeError::NotObtained { tell: true },
            ) => LogLevel::Error,
            _ => LogLevel::Info,
        }
    }
}

impl OpenError {
    /// How it is counted, if it is a failure.
    fn failure(&self) -> Option<ConnectionFailure> {
        use ConnectionFailure as Failure;
        Some(match self {
            Self::NoHeaderInTime | Self::NoHeader(_) => Failure::ProxyProtocol,
            Self::Timeout => Failure::TlsTimeout,
            Self::Io(_) => Failure::TlsClosed,
            Self::Handshake(HandshakeError::Io(error)) => match tls_error(error) {
                None => Failure::TlsClosed,
                Some(rustls::Error::AlertReceived(_)) => Failure::TlsAlert,
                Some(rustls::Error::PeerIncompatible(_)) => Failure::TlsIncompatible,
                Some(_) => Failure::TlsProtocol,
            },
            Self::Handshake(HandshakeError::Rejected) => Failure::TlsRejected,
            Self::Handshake(
                HandshakeError::Certificate(_) | HandshakeError::NotObtained { .. },
            ) => Failure::TlsCertificate,
            Self::Handshake(HandshakeError::Convinced) => return None,
        })
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What a handshake needs to know of its connection.
struct Hand<'a> {
    site: &'a Rc<Site>,
    generation: &'a Arc<Generation>,
    route: &'a AddressRoute,
    serial: u64,
    peer: Option<SocketAddr>,
    local: &'a ListenAddr,
    socket: usize,
    accepted: Instant,
}

impl Hand<'_> {
    /// Looks whether the client speaks TLS, and shakes hands if it does. `read` is what was read of
    /// its bytes already.
    async fn shake(&self, mut stream: Stream, mut read: Vec<u8>) -> Result<Opened, OpenError> {
        // On a Unix socket TLS is taken for granted.
        if read.is_empty() && !stream.is_unix() {
            read = read_once(&mut stream).await?;
        }
        if read.first().is_some_and(|&byte| !begins_tls(byte)) {
            return Ok(Opened::MissesTls(stream, read));
        }
        let greeting = self.generation.tls.greet(stream, read, self.route).await;
        let greeting = greeting.map_err(OpenError::Handshake)?;
        let paths = match greeting.certificates() {
            [] => Vec::new(),
            files => self.paths(files, greeting.server(), greeting.known()),
        };
        let accepted = greeting.shake_hands(paths).await.map_err(OpenError::Handshake)?;
        self.site.metrics.tls_handshakes.increment();
        Ok(Opened::Tls(Box::new(accepted.stream), Rc::new(accepted.info)))
    }

    /// The paths of certificates and keys, with the variables of a request that is yet to come.
    fn paths(
        &self,
        files: &[VariableCertificate],
        server: ServerId,
        known: TlsInfo,
    ) -> Vec<(PathBuf, PathBuf)> {
        let connection = ConnectionInfo {
            serial: self.serial,
            peer: self.peer,
            told: None,
            local: self.local.clone(),
            socket: self.socket,
            tls: Some(Rc::new(known)),
            accepted: self.accepted,
            requests: Cell::new(0),
            holder: RefCell::default(),
        };
        let arrival = Arrival::new(Bytes::new(), self.accepted, false);
        let (generation, site) = (Arc::clone(self.generation), Rc::clone(self.site));
        let request = Request::new(generation, site, Rc::new(connection), server, arrival);
        let path = |file| path::variable(file, &request);
        files.iter().map(|files| (path(&files.chain), path(&files.key))).collect()
    }
}

/// Whether a connection to the socket of this index in `Http::sockets` begins without TLS.
pub(crate) fn is_plain(generation: &Generation, socket: usize, stream: &Stream) -> bool {
    let listening = &generation.http().sockets[socket];
    let local = local_address(stream, &listening.address);
    route::address_route(listening, &local).is_some_and(|route| !route.ssl)
}

/// The address that the client has connected to; the system is asked where `listening` does not say.
fn local_address(stream: &Stream, listening: &ListenAddr) -> ListenAddr {
    match listening {
        ListenAddr::Ip(ip) if !ip.ip().is_unspecified() && ip.port() != 0 => listening.clone(),
        _ => stream.local_addr().unwrap_or_else(|_| listening.clone()),
    }
}

/// Reads once; the end is an error.
pub(crate) async fn read_once(stream: &mut Stream) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        // On the stack, so that a connection that waits owns no buffer.
        let mut space = [MaybeUninit::uninit(); FIRST_READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        match buffer.filled() {
            [] => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(bytes.to_vec()),
        }
        .into()
    })
    .await
}

/// The number of the last connection; connections are numbered through all workers.
static LAST_SERIAL: AtomicU64 = AtomicU64::new(0);

fn next_serial() -> u64 {
    LAST_SERIAL.fetch_add(1, Ordering::Relaxed) + 1
}

/// The number that a connection was given last, `$connection`; 0 before the first one.
pub fn last_serial() -> u64 {
    LAST_SERIAL.load(Ordering::Relaxed)
}

/// Begins to number connections with this one, unless larger numbers have been given: those before it are another
/// process's, whose tunnels may come here.
pub fn set_first_serial(first: u64) {
    LAST_SERIAL.fetch_max(first.saturating_sub(1), Ordering::Relaxed);
}

fn log_failure(
    site: &Site,
    generation: &Generation,
    serial: u64,
    peer: &ListenAddr,
    local: &ListenAddr,
    why: &OpenError,
) {
    if let Some(failure) = why.failure() {
        site.metrics.failed_connections.count(failure);
    }
    let client = address_text(ip(peer).map(|address| address.ip()));
    let line = format_args!("{why}, client: {client}, server: {local}");
    generation.logs.main().write(why.level(), Some(serial), line);
}

/// An address on the internet.
fn ip(address: &ListenAddr) -> Option<SocketAddr> {
    match address {
        ListenAddr::Ip(address) => Some(*address),
        ListenAddr::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests may have connections numbered meanwhile.
    #[test]
    fn numbers_begin_behind_those_of_another_process() {
        let first = last_serial() + 1_000_000;
        set_first_serial(first);
        assert!(next_serial() >= first);
        set_first_serial(1);
        assert!(next_serial() > first && last_serial() > first);
    }
}
