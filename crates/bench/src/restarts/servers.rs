//! App servers that can be stopped and started: they grant every WebSocket and keep it open.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet, spawn_local};
use wssgate_ws::accept_key;

/// How many there are.
pub(super) const SERVERS: usize = 3;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// The longest request that is read.
const MAX_HEAD: usize = 8192;

/// A time at which a server went or came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) at: Instant,
    pub(super) server: usize,
    pub(super) is_up: bool,
}

/// Three servers, and what became of them.
pub(super) struct Servers {
    addresses: Vec<SocketAddr>,
    running: Vec<Option<JoinHandle<()>>>,
    history: Vec<Change>,
}

impl Servers {
    /// Starts all of them, at ports that the kernel chooses.
    pub(super) async fn start() -> io::Result<Self> {
        let mut servers = Self { addresses: Vec::new(), running: Vec::new(), history: Vec::new() };
        for _ in 0..SERVERS {
            let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
            servers.addresses.push(listener.local_addr()?);
            servers.running.push(Some(spawn_local(serve(listener))));
        }
        Ok(servers)
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn history(&self) -> &[Change] {
        &self.history
    }

    /// Closes the listening socket and all connections of a server, as the end of its process would.
    pub(super) async fn stop(&mut self, server: usize) {
        if let Some(running) = self.running[server].take() {
            running.abort();
            // Only the end of the task drops its sockets.
            let _ = running.await;
        }
        self.note(server, false);
    }

    pub(super) async fn start_again(&mut self, server: usize) -> io::Result<()> {
        let listener = listen(self.addresses[server])?;
        self.running[server] = Some(spawn_local(serve(listener)));
        self.note(server, true);
        Ok(())
    }

    fn note(&mut self, server: usize, is_up: bool) {
        self.history.push(Change { at: Instant::now(), server, is_up });
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn_local(async move { drop(converse(stream).await) });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Grants the WebSocket and reads until its client goes.
async fn converse(mut stream: TcpStream) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let key = field(&head, "sec-websocket-key").ok_or(io::ErrorKind::InvalidData)?;
    let accept = accept_key(key.as_bytes());
    let accept = std::str::from_utf8(accept.as_ref()).map_err(io::Error::other)?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut ignored = [0; 512];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// Reads a head, and perhaps a part of what follows it; nothing does in a handshake that succeeds.
pub(super) async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    String::from_utf8(head).map_err(io::Error::other)
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}
