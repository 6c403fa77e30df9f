//! Sockets that accept: bound once, inherited by later generations.
//!
//! The main thread binds. A TCP address has one `SO_REUSEPORT` socket for each worker, so that the
//! kernel spreads connections; everything else is one socket that the workers share. A generation
//! that still names an address gets the same sockets, so a reload never loses a connection. Sockets
//! that a service manager opened, or the process that we replace, are used for the addresses that they
//! are bound to. Each is accepted on, for connections wait in its queue: fewer workers have several
//! of them, more workers share them.

mod client;
mod holder;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use wssgate_config::model::{KeepaliveOption, ListenAddr, ListenOptions, ListenSocket};
use wssgate_sys::listen::{self as sys, Binding, Refused, Tuning};
use wssgate_sys::passed;
use wssgate_sys::socket::{AcceptQueue, accept_queue};

pub use client::ClientStream;
pub use holder::is_listened_on;
pub use stream::Stream;
pub(crate) use stream::unix_path;

/// nginx's `NGX_LISTEN_BACKLOG`.
const BACKLOG: u32 = 511;

/// How often a port that is taken is tried again, and how long we wait between, as nginx does: the
/// process that is being replaced may just be leaving.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// An address that could not be listened on, in nginx's words.
#[derive(Debug, Error)]
#[error("{} {address} failed ({})", call_to(refused.call), crate::errno_text(&refused.source))]
pub struct ListenError {
    /// Where.
    pub address: ListenAddr,
    /// What the system refused.
    pub refused: Refused,
}

fn call_to(call: &'static str) -> String {
    format!("{call} to")
}

impl ListenError {
    /// Whether somebody else listens there.
    pub fn in_use(&self) -> bool {
        self.refused.source.kind() == io::ErrorKind::AddrInUse
    }

    /// What may help.
    pub(crate) fn help(&self) -> Option<String> {
        match (&self.address, self.refused.source.kind()) {
            (ListenAddr::Ip(address), io::ErrorKind::AddrInUse) => {
                let port = address.port();
                let who = match holder::of(*address) {
                    Some(holder) => format!("{holder} listens there: stop it"),
                    None => format!(
                        "find out who listens there by `sudo ss -ltnp 'sport = :{port}'` and stop it"
                    ),
                };
                Some(format!("{who}, or choose another port"))
            }
            (ListenAddr::Ip(address), io::ErrorKind::PermissionDenied) => Some(format!(
                "port {} is for root: start the server as root or with the capability CAP_NET_BIND_SERVICE, or choose a \
                 port from 1024 on",
                address.port()
            )),
            (ListenAddr::Ip(address), io::ErrorKind::AddrNotAvailable) => Some(format!(
                "{} is no address of this machine (`ip address` lists them)",
                address.ip()
            )),
            (ListenAddr::Unix(_), io::ErrorKind::AddrInUse) => {
                Some("another program listens there: stop it, or choose another path".to_owned())
            }
            _ => None,
        }
    }
}

/// The sockets of one address.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: ListenAddr,
    /// One for each worker, one for all, or as many as there were before us.
    sockets: Vec<OwnedFd>,
    workers: usize,
    /// Whether the service manager opened it, which then also removes the file of a Unix socket.
    is_passed: bool,
}

impl Listener {
    /// Descriptors for one worker to accept on.
    pub(crate) fn for_worker(&self, worker: usize) -> io::Result<Vec<OwnedFd>> {
        let first = worker % self.sockets.len();
        let step = self.workers.max(1);
        self.sockets[first..].iter().step_by(step).map(OwnedFd::try_clone).collect()
    }

    /// Those who wait to be accepted; `None` where the kernel does not tell (Unix sockets).
    pub(crate) fn queue(&self) -> Option<AcceptQueue> {
        let queues = self.sockets.iter().filter_map(|one| accept_queue(one.as_fd()).ok());
        queues.reduce(|one, other| AcceptQueue {
            len: one.len.saturating_add(other.len),
            limit: one.limit.saturating_add(other.limit),
        })
    }

    fn open(wanted: &ListenSocket, workers: usize, ours: &[Arc<Self>]) -> Result<Self, Refused> {
        let address = &wanted.address;
        let sockets = match address {
            ListenAddr::Unix(path) => vec![bind_unix(path)?],
            ListenAddr::Ip(ip) => bind_tcp(*ip, &wanted.options, workers, ours)?,
        };
        let listener = Self { address: address.clone(), sockets, workers, is_passed: false };
        listener.apply(&wanted.options)?;
        Ok(listener)
    }

    /// Applies the options of `listen`, also to sockets that were opened before.
    fn apply(&self, options: &ListenOptions) -> Result<(), Refused> {
        let tuning = tuning(options);
        for socket in &self.sockets {
            sys::tune(socket, &tuning)?;
            // On one that listens already this only sets the backlog anew.
            match options.backlog {
                None if self.is_passed => {}
                backlog => sys::listen(socket, backlog.unwrap_or(BACKLOG))?,
            }
        }
        Ok(())
    }
}

fn bind_tcp(
    address: SocketAddr,
    options: &ListenOptions,
    workers: usize,
    ours: &[Arc<Listener>],
) -> Result<Vec<OwnedFd>, Refused> {
    let ipv6_only = options.ipv6only.unwrap_or(true);
    let alone = sys::bind_tcp(address, Binding { shared: false, ipv6_only });
    if workers == 1 && !options.reuseport {
        return Ok(vec![alone?]);
    }
    // SO_REUSEPORT would also let us in beside a stranger who set it, and half of the connections
    // would be his. Binding alone first finds him; our own sockets of an overlapping address are no
    // strangers.
    match alone {
        Err(refused) if !is_overlap(&refused, address, ours) => return Err(refused),
        other => drop(other),
    }
    let binding = Binding { shared: true, ipv6_only };
    let first = sys::bind_tcp(address, binding)?;
    // Port 0 asks the kernel for one, which all then share.
    let bound = SockRef::from(&first).local_addr().ok().and_then(|bound| bound.as_socket());
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(sys::bind_tcp(bound.unwrap_or(address), binding)?);
    }
    Ok(sockets)
}

/// Whether the port was refused for a socket of our own: a wildcard address and a specific one.
fn is_overlap(refused: &Refused, address: SocketAddr, ours: &[Arc<Listener>]) -> bool {
    refused.source.kind() == io::ErrorKind::AddrInUse
        && ours.iter().any(|listener| match listener.address {
            ListenAddr::Ip(other) => {
                let wildcard = other.ip().is_unspecified() || address.ip().is_unspecified();
                other.port() == address.port() && other != address && wildcard
            }
            ListenAddr::Unix(_) => false,
        })
}

/// Binds a Unix socket, in place of one that a killed process left behind.
fn bind_unix(path: &Path) -> Result<OwnedFd, Refused> {
    match sys::bind_unix(path) {
        Err(refused)
            if refused.source.kind() == io::ErrorKind::AddrInUse && sys::is_abandoned(path) =>
        {
            std::fs::remove_file(path).map_err(|source| Refused { call: "unlink()", source })?;
            sys::bind_unix(path)
        }
        other => other,
    }
}

fn tuning(options: &ListenOptions) -> Tuning {
    let keepalive = options.so_keepalive.as_ref().map(|option| match option {
        KeepaliveOption::Off => None,
        KeepaliveOption::On { idle, interval, count } => {
            let mut probing = TcpKeepalive::new();
            if let Some(idle) = idle {
                probing = probing.with_time(*idle);
            }
            if let Some(interval) = interval {
                probing = probing.with_interval(*interval);
            }
            if let Some(count) = count {
                probing = probing.with_retries(*count);
            }
            Some(probing)
        }
    });
    Tuning {
        receive_buffer: options.rcvbuf,
        send_buffer: options.sndbuf,
        deferred: options.deferred,
        fast_open: options.fastopen,
        keepalive,
    }
}

/// Sockets that others opened for us.
#[derive(Debug, Default)]
pub struct PassedSockets {
    /// The service manager's, which holds them as long as it likes.
    pub of_manager: Vec<OwnedFd>,
    /// Those of the process that we replace.
    pub of_predecessor: Vec<OwnedFd>,
}

/// A socket for whoever replaces us.
#[derive(Clone, Copy, Debug)]
pub struct LeftSocket<'a> {
    /// The socket.
    pub fd: BorrowedFd<'a>,
    /// Whether a service manager has opened it.
    pub is_managers: bool,
}

/// Sockets of one address that somebody else opened.
#[derive(Debug)]
struct Passed {
    address: ListenAddr,
    sockets: Vec<OwnedFd>,
    /// Whether it was the service manager.
    is_managers: bool,
}

impl Passed {
    /// Of these sockets, those that can be listened on, by their addresses.
    fn all(sockets: Vec<OwnedFd>, is_managers: bool) -> Vec<Self> {
        let mut all = Vec::<Self>::new();
        for socket in sockets {
            let Some(address) = adopted(&socket) else { continue };
            match all.iter_mut().find(|known| known.address == address) {
                Some(known) => known.sockets.push(socket),
                None => all.push(Self { address, sockets: vec![socket], is_managers }),
            }
        }
        all
    }

    fn listener(&self, options: &ListenOptions, workers: usize) -> Result<Listener, Refused> {
        let sockets = self.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>();
        let sockets = sockets.map_err(|source| Refused { call: "dup()", source })?;
        let (address, is_passed) = (self.address.clone(), self.is_managers);
        let listener = Listener { address, sockets, workers, is_passed };
        listener.apply(options)?;
        Ok(listener)
    }
}

/// The address of a socket that was passed on; nothing if it cannot be listened on.
fn adopted(socket: &OwnedFd) -> Option<ListenAddr> {
    passed::adopt(socket).ok()?;
    let bound = SockRef::from(socket).local_addr().ok()?;
    let unix = || bound.as_pathname().map(|path| ListenAddr::Unix(path.to_owned()));
    bound.as_socket().map(ListenAddr::Ip).or_else(unix)
}

/// All sockets that are open, owned by the main thread.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: Vec<Arc<Listener>>,
    /// Those of the service manager are kept open, used or not: a later configuration may name them, and the manager
    /// holds them anyway.
    passed: Vec<Passed>,
    /// Whether another process goes on with the sockets, so that files stay.
    is_shared: bool,
}

impl Listeners {
    /// None open, but those at hand that others passed on.
    pub(crate) fn with_passed(passed: PassedSockets) -> Self {
        let mut all = Passed::all(passed.of_predecessor, false);
        all.extend(Passed::all(passed.of_manager, true));
        Self { open: Vec::new(), passed: all, is_shared: false }
    }

    /// The addresses of sockets that a service manager passed on and that nothing in `wanted` asks for.
    pub(crate) fn unwanted(&self, wanted: &[ListenSocket]) -> Vec<ListenAddr> {
        let of_manager = self.passed.iter().filter(|passed| passed.is_managers);
        let addresses = of_manager.map(|passed| &passed.address);
        let unwanted =
            |address: &&ListenAddr| wanted.iter().all(|wanted| wanted.address != **address);
        addresses.filter(unwanted).cloned().collect()
    }

    /// The sockets that `wanted` asks for: those that are open already, and new ones.
    ///
    /// Nothing changes for those in use until [`Listeners::replace`]. `progress` hears of every
    /// attempt that failed for a port in use, before it is repeated.
    pub(crate) fn open(
        &self,
        wanted: &[ListenSocket],
        workers: usize,
        progress: impl Fn(&ListenError),
    ) -> Result<Vec<Arc<Listener>>, ListenError> {
        wanted.iter().map(|wanted| self.find_or_open(wanted, workers, &progress)).collect()
    }

    fn find_or_open(
        &self,
        wanted: &ListenSocket,
        workers: usize,
        progress: impl Fn(&ListenError),
    ) -> Result<Arc<Listener>, ListenError> {
        let wrap = |refused| ListenError { address: wanted.address.clone(), refused };
        // Bound again it would be another socket, and what waits in the queue of this one would be
        // lost.
        if let Some(listener) = self.open.iter().find(|open| open.address == wanted.address) {
            listener.apply(&wanted.options).map_err(wrap)?;
            return Ok(Arc::clone(listener));
        }
        if let Some(passed) = self.passed.iter().find(|passed| passed.address == wanted.address) {
            return passed.listener(&wanted.options, workers).map(Arc::new).map_err(wrap);
        }
        let mut tries = 1;
        loop {
            match Listener::open(wanted, workers, &self.open).map_err(wrap) {
                Ok(listener) => return Ok(Arc::new(listener)),
                Err(error) if error.in_use() && tries < TRIES => progress(&error),
                Err(error) => return Err(error),
            }
            tries += 1;
            thread::sleep(BETWEEN_TRIES);
        }
    }

    /// Whether the addresses can be bound: what `-t` asks. A port in use is no fault then, the
    /// running server has it.
    pub(crate) fn check(&self, wanted: &[ListenSocket]) -> Result<(), ListenError> {
        for wanted in wanted {
            match Listener::open(wanted, 1, &self.open) {
                // Dropping closes sockets, but leaves the file of one behind.
                Ok(listener) => remove_unix([&listener]),
                Err(refused) if refused.source.kind() == io::ErrorKind::AddrInUse => {}
                Err(refused) => {
                    return Err(ListenError { address: wanted.address.clone(), refused });
                }
            }
        }
        Ok(())
    }

    /// Keeps exactly these; the others are closed as soon as the workers have let go of them.
    pub(crate) fn replace(&mut self, listeners: Vec<Arc<Listener>>) {
        let gone =
            self.open.iter().filter(|old| !listeners.iter().any(|new| Arc::ptr_eq(old, new)));
        if !(self.is_shared && listeners.is_empty()) {
            remove_unix(gone.map(|listener| &**listener));
        }
        self.open = listeners;
    }

    /// All that workers accept on.
    pub(crate) fn all(&self) -> Vec<Arc<Listener>> {
        self.open.clone()
    }

    /// All that are open, for whoever replaces us.
    pub(crate) fn to_leave(&self) -> Vec<LeftSocket<'_>> {
        let open = self.open.iter().map(|listener| (&listener.sockets, listener.is_passed));
        let is_open =
            |passed: &&Passed| self.open.iter().any(|open| open.address == passed.address);
        let unused = self.passed.iter().filter(|passed| !is_open(passed));
        open.chain(unused.map(|passed| (&passed.sockets, passed.is_managers)))
            .flat_map(|(sockets, is_managers)| {
                sockets.iter().map(move |fd| LeftSocket { fd: fd.as_fd(), is_managers })
            })
            .collect()
    }

    /// Whether another process goes on with the sockets: then the files of Unix sockets stay when the last ones are
    /// closed.
    pub(crate) fn share(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
    }

    /// Closes what the process that we replace has passed on and nothing uses.
    pub(crate) fn close_unused(&mut self) {
        self.passed.retain(|passed| passed.is_managers);
    }
}

fn remove_unix<'a>(listeners: impl IntoIterator<Item = &'a Listener>) {
    for listener in listeners {
        if let ListenAddr::Unix(path) = &listener.address
            && !listener.is_passed
        {
            // It may be gone already, which is what we want.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.replace(Vec::new());
    }
}

/// The addresses that sockets were bound to, with the ports that the kernel chose.
pub(crate) fn bound_addresses(listeners: &[Arc<Listener>]) -> Vec<ListenAddr> {
    listeners
        .iter()
        .map(|listener| {
            let socket = SockRef::from(&listener.sockets[0]);
            let bound = socket.local_addr().ok().and_then(|address| address.as_socket());
            bound.map_or_else(|| listener.address.clone(), ListenAddr::Ip)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use wssgate_syntax::{FileId, Origin, SourceMap, Span};

    use super::*;

    fn anywhere() -> Span {
        let file: FileId = SourceMap::default().add("t", Origin::Text, Vec::new());
        Span::new(file, 0, 0)
    }

    fn wanted(address: ListenAddr) -> ListenSocket {
        ListenSocket {
            address,
            options: ListenOptions::default(),
            routes: Vec::new(),
            span: anywhere(),
        }
    }

    fn loopback() -> ListenAddr {
        ListenAddr::Ip("127.0.0.1:0".parse().unwrap())
    }

    fn ip(address: &ListenAddr) -> SocketAddr {
        match address {
            ListenAddr::Ip(ip) => *ip,
            ListenAddr::Unix(_) => unreachable!("these tests bind to addresses"),
        }
    }

    #[test]
    fn an_address_that_stays_keeps_its_sockets() {
        let mut listeners = Listeners::default();
        let first = listeners.open(&[wanted(loopback())], 2, |_| {}).unwrap();
        listeners.replace(first.clone());
        let again = listeners.open(&[wanted(loopback())], 2, |_| {}).unwrap();
        assert!(Arc::ptr_eq(&first[0], &again[0]));
    }

    #[test]
    fn a_stranger_on_the_port_is_found_even_if_he_shares() {
        let binding = Binding { shared: true, ipv6_only: true };
        let stranger: std::net::TcpListener =
            sys::bind_tcp("127.0.0.1:0".parse().unwrap(), binding).unwrap().into();
        sys::listen(&stranger, 1).unwrap();
        let address = stranger.local_addr().unwrap();
        let refused = bind_tcp(address, &ListenOptions::default(), 2, &[]).unwrap_err();
        let error = ListenError { address: ListenAddr::Ip(address), refused };
        assert!(error.in_use());
        let expected = format!("bind() to {address} failed (98: Address already in use)");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_wildcard_may_join_a_specific_address_of_ours() {
        let mut listeners = Listeners::default();
        let opened = listeners.open(&[wanted(loopback())], 2, |_| {}).unwrap();
        let port = ip(&bound_addresses(&opened)[0]).port();
        // Known by the port that the kernel chose, as one from a configuration would be.
        let specific = ListenAddr::Ip(SocketAddr::from(([127, 0, 0, 1], port)));
        let Ok(opened) = Arc::try_unwrap(opened.into_iter().next().unwrap()) else { panic!() };
        listeners.replace(vec![Arc::new(Listener { address: specific, ..opened })]);
        let any = ListenAddr::Ip(SocketAddr::from(([0, 0, 0, 0], port)));
        assert!(listeners.open(&[wanted(any)], 2, |_| {}).is_ok());
    }

    #[test]
    fn a_socket_that_was_passed_on_is_used_and_left_to_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [ListenAddr::Ip(tcp.local_addr().unwrap()), ListenAddr::Unix(path.clone())];
        let nothing = std::fs::File::open("/dev/null").unwrap();
        let of_manager = vec![tcp.into(), nothing.into(), unix.into()];
        let passed = PassedSockets { of_manager, ..PassedSockets::default() };
        let mut listeners = Listeners::with_passed(passed);
        assert_eq!(listeners.unwanted(&[wanted(addresses[0].clone())]), addresses[1..]);
        // Bound a second time it would be in use.
        let all = addresses.clone().map(wanted);
        let opened = listeners.open(&all, 2, |_| {}).unwrap();
        assert_eq!(bound_addresses(&opened)[..1], addresses[..1]);
        listeners.replace(opened);
        listeners.replace(Vec::new());
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        assert!(listeners.open(&all, 2, |_| {}).is_ok(), "it can come back");
    }

    #[test]
    fn every_socket_of_a_predecessor_has_a_worker_and_every_worker_a_socket() {
        let mut first = Listeners::default();
        let opened = first.open(&[wanted(loopback())], 3, |_| {}).unwrap();
        let address = bound_addresses(&opened)[0].clone();
        first.replace(opened);
        for workers in 1..=5 {
            let left = first.to_leave().into_iter().map(|left| left.fd.try_clone_to_owned());
            let of_predecessor = left.collect::<io::Result<Vec<_>>>().unwrap();
            let passed = PassedSockets { of_predecessor, ..PassedSockets::default() };
            let listeners = Listeners::with_passed(passed);
            assert!(listeners.unwanted(&[]).is_empty(), "only those of a manager are told");
            let opened = listeners.open(&[wanted(address.clone())], workers, |_| {}).unwrap();
            let inode = |fd: &OwnedFd| {
                std::fs::File::from(fd.try_clone().unwrap()).metadata().map(|file| file.ino())
            };
            let mut accepted = Vec::new();
            for worker in 0..workers {
                let sockets = opened[0].for_worker(worker).unwrap();
                assert!(!sockets.is_empty(), "worker {worker} of {workers}");
                accepted.extend(sockets.iter().map(|fd| inode(fd).unwrap()));
            }
            accepted.sort_unstable();
            accepted.dedup();
            assert_eq!(accepted.len(), 3, "{workers} workers");
        }
    }

    #[test]
    fn the_file_of_a_shared_unix_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let mut listeners = Listeners::default();
        let opened = listeners.open(&[wanted(ListenAddr::Unix(path.clone()))], 2, |_| {}).unwrap();
        listeners.replace(opened);
        listeners.share(true);
        drop(listeners);
        assert!(path.exists());
    }

    #[test]
    fn a_unix_socket_goes_with_its_listener_and_replaces_an_abandoned_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut listeners = Listeners::default();
        let opened = listeners.open(&[wanted(ListenAddr::Unix(path.clone()))], 2, |_| {}).unwrap();
        listeners.replace(opened);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(listeners);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_unix_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _alive = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = bind_unix(&path).unwrap_err();
        let error = ListenError { address: ListenAddr::Unix(path.clone()), refused };
        assert!(error.to_string().starts_with(&format!("bind() to unix:{}", path.display())));
        assert!(path.exists());
        assert!(Listeners::default().check(&[wanted(ListenAddr::Unix(path))]).is_ok());
    }
}
