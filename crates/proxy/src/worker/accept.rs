//! The accept loop of one socket in one worker.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::time::sleep;
use wssgate_config::model::{ListenAddr, LogLevel};

use super::reserve::{self, PACE, Reserve};

use crate::front::connection;
use crate::listen::{Stream, unix_path};
use crate::metrics::{Held, Refused};
use crate::peers::{Call, Resource};
use crate::site::Site;
use crate::tunnel::table::Tunnels;

/// How long accepting rests when it fails and there is nothing better to do, as nginx does
/// (`accept_mutex_delay`). Waiting clients stay in the backlog, open connections live on.
const REST: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: OwnedFd, address: &ListenAddr) -> io::Result<Self> {
        match address {
            ListenAddr::Ip(_) => TcpListener::from_std(socket.into()).map(Self::Tcp),
            ListenAddr::Unix(_) => UnixListener::from_std(socket.into()).map(Self::Unix),
        }
    }

    async fn next(&self) -> io::Result<(Stream, ListenAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), ListenAddr::Ip(peer)))
            }
            Self::Unix(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Unix(stream), unix_path(&peer)))
            }
        }
    }
}

/// One socket of a worker that accepts.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) site: Rc<Site>,
    pub(super) tunnels: Rc<Tunnels>,
    pub(super) reserve: Rc<Reserve>,
    pub(super) address: ListenAddr,
}

impl Accepting {
    /// Accepts on `socket` and serves what comes, until it is aborted.
    pub(super) async fn run(self, socket: OwnedFd) -> io::Result<()> {
        let acceptor = Acceptor::new(socket, &self.address)?;
        loop {
            match acceptor.next().await {
                Ok((stream, peer)) => {
                    if let Some(text) = self.reserve.dearth.on_accepted(Instant::now()) {
                        self.log(LogLevel::Notice, &text);
                    }
                    self.reserve.replenish();
                    self.serve(stream, peer);
                }
                // The client was gone before we came to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => self.on_failure(&acceptor, &error).await,
            }
        }
    }

    async fn on_failure(&self, acceptor: &Acceptor, error: &io::Error) {
        let Some(resource) = Resource::lacking(Call::Accept, error) else {
            let text = format!("accept4() failed ({})", crate::errno_text(error));
            self.log(LogLevel::Error, &text);
            // Whatever it is, it must not make the loop spin.
            return sleep(REST).await;
        };
        if let Some(text) = self.reserve.dearth.on_shortage(resource, error, Instant::now()) {
            self.log(LogLevel::Crit, &text);
        }
        match resource {
            Resource::Descriptors | Resource::SystemFiles => self.use_reserve(acceptor).await,
            _ => sleep(REST).await,
        }
    }

    /// Gives up the descriptor in reserve for the client that has waited longest.
    async fn use_reserve(&self, acceptor: &Acceptor) {
        let mut spare = self.reserve.spare.lock().await;
        // All workers have the same limit: another one may have been quicker to take what was given up.
        while !spare.take_back() {
            sleep(PACE).await;
        }
        // There may be room again, where another listener had it until now or it was gone.
        if reserve::is_room() {
            return;
        }
        spare.give_up();
        if let Some(Ok((stream, _))) = crate::at_once(acceptor.next()).await {
            self.refuse(stream).await;
        }
        spare.take_back();
        sleep(PACE).await;
    }

    async fn refuse(&self, stream: Stream) {
        self.site.metrics.accepted.increment();
        self.site.metrics.refused.count(Refused::Descriptors);
        self.reserve.dearth.on_refusal();
        let generation = self.site.generation();
        let socket = generation.socket_at(&self.address);
        // A handshake would take more than a descriptor.
        if socket.is_some_and(|socket| connection::is_plain(&generation, socket, &stream)) {
            drop(generation);
            reserve::refuse(stream).await;
        }
    }

    /// Gives a connection a task of its own, unless there are too many.
    fn serve(&self, stream: Stream, peer: ListenAddr) {
        let site = &self.site;
        site.metrics.accepted.increment();
        let generation = site.generation();
        let limit = generation.config.core.worker_connections;
        if site.live.count() >= limit {
            site.metrics.refused.count(Refused::WorkerConnections);
            let text = format!("{limit} worker_connections are not enough");
            return self.log(LogLevel::Error, &text);
        }
        // A reload may have taken the address away while this one waited.
        let Some(socket) = generation.socket_at(&self.address) else { return };
        site.metrics.handled.increment();
        let held = (site.live.enter(), Held::new(&site.metrics, |counters| &counters.active));
        let connection = connection::serve(
            Rc::clone(site),
            Rc::clone(&self.tunnels),
            Arc::clone(&generation),
            socket,
            stream,
            peer,
            held,
        );
        drop(generation);
        // As it is: a block around it would have room for it twice.
        tokio::task::spawn_local(connection);
    }

    fn log(&self, level: LogLevel, message: &str) {
        self.site.generation().logs.main().write(level, None, message);
    }
}
