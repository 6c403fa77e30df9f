//! What a service manager hears of us: systemd's notifications (sd_notify(3)).
//!
//! A unit of `Type=notify` counts as started when connections are accepted, and as reloaded when the new configuration
//! is in effect. Without `NOTIFY_SOCKET` nobody is told anything.
//!
//! A manager with a descriptor store (`FDSTORE`, systemd's `FileDescriptorStoreMax=`) keeps descriptors for the next process
//! of the service, which gets them beside its listening sockets. A descriptor counts as kept once the manager has read
//! about it, which a barrier tells; whether there was room it does not say.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use wssgate_sys::{process, rights};

/// How long a manager may take to have room for a notification.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take to read about a descriptor. Tunnels stand still meanwhile, but so they do in a restart.
const BARRIER: Duration = Duration::from_secs(3);

/// What descriptors are called that are kept for the next process.
pub(crate) const STORED: &str = "wssgate-tunnels";

/// Where notifications go.
pub(crate) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How many descriptors it keeps for us.
    room: usize,
    /// Whether the service is another process: the one that we replace, or the one that replaces us.
    is_silent: Cell<bool>,
}

impl ServiceManager {
    /// The one that started us, if it wants to hear of us.
    pub(crate) fn from_environment() -> Self {
        let name = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None if name.starts_with('/') => SocketAddr::from_pathname(&name),
            None => return Self { socket: None, room: 0, is_silent: Cell::default() },
        };
        let socket = UnixDatagram::unbound().and_then(|socket| {
            // A manager that is busy hears of us all the same; one that does not read must not hold us up.
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok((socket, address?))
        });
        let room = std::env::var("FDSTORE").ok().and_then(|room| room.parse().ok());
        Self { socket: socket.ok(), room: room.unwrap_or(0), is_silent: Cell::default() }
    }

    /// Tells nothing until [`ServiceManager::speak`].
    pub(crate) fn be_silent(&self) {
        self.is_silent.set(true);
    }

    /// The service is this process.
    pub(crate) fn speak(&self) {
        self.is_silent.set(false);
    }

    /// Whether another process is the service.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.get()
    }

    /// The service is that process from now on. Only the one that was it until then is listened to, unless the unit
    /// says otherwise (`NotifyAccess=`).
    pub(crate) fn hand_over(&self, pid: u32, status: impl Display) {
        self.tell(format_args!("READY=1\nMAINPID={pid}\nSTATUS={status}"));
        self.be_silent();
    }

    /// Connections are accepted, with the configuration that was read last or the one before it.
    pub(crate) fn ready(&self, status: impl Display) {
        self.tell(format_args!("READY=1\nMAINPID={}\nSTATUS={status}", std::process::id()));
    }

    /// The configuration is about to be read again; [`ServiceManager::ready`] follows.
    pub(crate) fn reloading(&self) {
        self.tell(format_args!("RELOADING=1\nMONOTONIC_USEC={}", process::monotonic_micros()));
    }

    /// Nothing new is accepted any more.
    pub(crate) fn stopping(&self, status: impl Display) {
        self.tell(format_args!("STOPPING=1\nSTATUS={status}"));
    }

    /// How many descriptors of this process it keeps for the next one.
    pub(crate) fn room(&self) -> usize {
        if self.socket.is_none() || self.is_silent() { 0 } else { self.room }
    }

    /// Has it keep a descriptor, also when the other end of that is closed, and waits until it has read so.
    pub(crate) fn keep(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.pass(&format!("FDSTORE=1\nFDNAME={STORED}\nFDPOLL=0"), descriptor)?;
        // The manager closes this one when it has come so far.
        let (open, passed) = io::pipe()?;
        self.pass("BARRIER=1", passed.as_fd())?;
        drop(passed);
        match rights::wait_readable(open.as_fd(), Some(BARRIER))? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// What it has kept was taken up, or is of no use.
    pub(crate) fn forget_kept(&self) {
        self.tell(format_args!("FDSTOREREMOVE=1\nFDNAME={STORED}"));
    }

    /// Sends a message with a descriptor.
    fn pass(&self, message: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let Some((_, address)) = &self.socket else { return Err(io::ErrorKind::NotFound.into()) };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(address)?;
        loop {
            match rights::send(socket.as_fd(), &[IoSlice::new(message.as_bytes())], &[descriptor]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !rights::wait_writable(socket.as_fd(), Some(PATIENCE))? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                other => return other.map(drop),
            }
        }
    }

    fn tell(&self, message: impl Display) {
        if let Some((socket, address)) = self.socket.as_ref().filter(|_| !self.is_silent.get()) {
            // Whoever does not listen any more misses nothing.
            let _ = socket.send_to_addr(message.to_string().as_bytes(), address);
        }
    }
}
