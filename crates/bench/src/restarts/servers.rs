//! App servers that can be stopped and started: they grant every WebSocket and keep it open.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet, spawn_local};

use crate::upgrade::{grant, listen};

/// How many there are.
pub(super) const SERVERS: usize = 3;

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
    grant(&mut stream).await?;
    let mut ignored = [0; 512];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}
