//! The accept loop of one socket in one worker.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use wssgate_config::model::{ListenAddr, LogLevel};
use wssgate_sys::errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM};

use crate::front::connection;
use crate::listen::{Stream, unix_path};
use crate::metrics::Held;
use crate::site::Site;
use crate::tunnel::table::Tunnels;

/// How long accepting rests when the process or the system has no descriptor left, as nginx does
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

/// Accepts on `socket` and serves what comes, until it is aborted.
pub(crate) async fn accept(
    site: Rc<Site>,
    tunnels: Rc<Tunnels>,
    socket: OwnedFd,
    address: ListenAddr,
) -> io::Result<()> {
    let acceptor = Acceptor::new(socket, &address)?;
    let mut resting = false;
    loop {
        match acceptor.next().await {
            Ok((stream, peer)) => {
                if std::mem::take(&mut resting) {
                    log(&site, LogLevel::Notice, "accepting again");
                }
                serve(&site, &tunnels, &address, stream, peer);
            }
            Err(error) if out_of_descriptors(&error) => {
                if !std::mem::replace(&mut resting, true) {
                    let text = format!("accept4() failed ({})", crate::errno_text(&error));
                    log(&site, LogLevel::Crit, &text);
                }
                tokio::time::sleep(REST).await;
            }
            // The client was gone before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let text = format!("accept4() failed ({})", crate::errno_text(&error));
                log(&site, LogLevel::Error, &text);
                // Whatever it is, it must not make this loop spin.
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS | ENOMEM))
}

fn log(site: &Site, level: LogLevel, message: &str) {
    site.generation().logs.main().write(level, None, message);
}

/// Gives a connection a task of its own, unless there are too many.
fn serve(
    site: &Rc<Site>,
    tunnels: &Rc<Tunnels>,
    address: &ListenAddr,
    stream: Stream,
    peer: ListenAddr,
) {
    site.metrics.accepted.increment();
    let generation = site.generation();
    let limit = generation.config.core.worker_connections;
    if site.live.count() >= limit {
        let text = format!("{limit} worker_connections are not enough");
        return log(site, LogLevel::Error, &text);
    }
    // A reload may have taken the address away while this one waited.
    let Some(socket) = generation.socket_at(address) else { return };
    site.metrics.handled.increment();
    let held = (site.live.enter(), Held::new(&site.metrics, |counters| &counters.active));
    let connection = connection::serve(
        Rc::clone(site),
        Rc::clone(tunnels),
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
