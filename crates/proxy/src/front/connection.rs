//! One client connection: TLS, protocol, its requests one after the other.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::ready;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;
use wssgate_config::model::{ListenAddr, LogLevel};

use crate::exchange::request::ConnectionInfo;
use crate::front::h1::client::Client;
use crate::front::h1::{self, Link};
use crate::front::route;
use crate::generation::Generation;
use crate::listen::{ClientStream, Stream};
use crate::metrics::Held;
use crate::site::{Entered, Site};
use crate::tls::server::{TlsInfo, begins_tls};
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
    let opened = match listening.ssl {
        false => Some(Opened {
            stream: ClientStream::Plain(stream),
            read: Vec::new(),
            tls: None,
            misses_tls: false,
        }),
        true => {
            match timeout(wait, Box::pin(shake_hands(&generation, socket, &local, stream))).await {
                Ok(Ok(opened)) => Some(opened),
                Ok(Err(error)) => {
                    log_handshake(&generation, serial, &peer, &error);
                    None
                }
                Err(_) => {
                    log_handshake(
                        &generation,
                        serial,
                        &peer,
                        &"client timed out while SSL handshaking",
                    );
                    None
                }
            }
        }
    };
    let Some(opened) = opened else { return };
    let life = generation.life().clone();
    drop(generation);
    let info = Rc::new(info(serial, &peer, local, socket, opened.tls, accepted));
    let client = Client::new(info, opened.stream, opened.read);
    let left = wait.saturating_sub(accepted.elapsed()).max(Duration::from_millis(1));
    h1::serve(Link { site, tunnels, client, address, misses_tls: opened.misses_tls }, left, life)
        .await;
}

/// A connection that is ready for its first request.
struct Opened {
    stream: ClientStream,
    /// What was read of the request to see that it is no TLS.
    read: Vec<u8>,
    tls: Option<Rc<TlsInfo>>,
    misses_tls: bool,
}

/// Looks whether the client speaks TLS, and shakes hands if it does.
async fn shake_hands(
    generation: &Generation,
    socket: usize,
    local: &ListenAddr,
    mut stream: Stream,
) -> io::Result<Opened> {
    let read = first_bytes(&mut stream).await?;
    if !read.first().is_none_or(|&byte| begins_tls(byte)) {
        return Ok(Opened {
            stream: ClientStream::Plain(stream),
            read,
            tls: None,
            misses_tls: true,
        });
    }
    let listening = &generation.http().sockets[socket];
    let route = route::address_route(listening, local).ok_or(io::ErrorKind::NotFound)?;
    let accepted = generation
        .tls
        .accept(stream, read, route)
        .await
        .map_err(|error| io::Error::other(error.to_string()))?;
    let stream = ClientStream::Tls(Box::new(accepted.stream));
    let tls = Some(Rc::new(accepted.info));
    Ok(Opened { stream, read: Vec::new(), tls, misses_tls: false })
}

/// The address that the client has connected to; the system is asked where `listening` does not say.
fn local_address(stream: &Stream, listening: &ListenAddr) -> ListenAddr {
    match listening {
        ListenAddr::Ip(ip) if !ip.ip().is_unspecified() && ip.port() != 0 => listening.clone(),
        _ => stream.local_addr().unwrap_or_else(|_| listening.clone()),
    }
}

/// Reads once. On a Unix socket TLS is taken for granted, and nothing is read.
async fn first_bytes(stream: &mut Stream) -> io::Result<Vec<u8>> {
    if stream.is_unix() {
        return Ok(Vec::new());
    }
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

/// Connections are numbered through all workers.
fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn log_handshake(
    generation: &Generation,
    serial: u64,
    peer: &ListenAddr,
    why: &dyn std::fmt::Display,
) {
    let client = match peer {
        ListenAddr::Ip(address) => address.ip().to_string(),
        ListenAddr::Unix(_) => "unix:".to_owned(),
    };
    generation.logs.main().write(
        LogLevel::Info,
        Some(serial),
        format_args!("{why}, client: {client}"),
    );
}

fn info(
    serial: u64,
    peer: &ListenAddr,
    local: ListenAddr,
    socket: usize,
    tls: Option<Rc<TlsInfo>>,
    accepted: Instant,
) -> ConnectionInfo {
    let peer = match peer {
        ListenAddr::Ip(address) => Some(*address),
        ListenAddr::Unix(_) => None,
    };
    ConnectionInfo {
        serial,
        peer,
        local,
        socket,
        tls,
        accepted,
        requests: Cell::new(0),
        holder: OnceCell::new(),
    }
}
