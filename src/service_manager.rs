//! What a service manager hears of us: systemd's notifications (sd_notify(3)).
//!
//! A unit of `Type=notify` counts as started when connections are accepted, and as reloaded when the new configuration
//! is in effect. Without `NOTIFY_SOCKET` nobody is told anything.

use std::cell::Cell;
use std::fmt::Display;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use wssgate_sys::process;

/// How long a manager may take to have room for a notification.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where notifications go.
pub(crate) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
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
            None => return Self { socket: None, is_silent: Cell::default() },
        };
        let socket = UnixDatagram::unbound().and_then(|socket| {
            // A manager that is busy hears of us all the same; one that does not read must not hold us up.
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok((socket, address?))
        });
        Self { socket: socket.ok(), is_silent: Cell::default() }
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

    fn tell(&self, message: impl Display) {
        if let Some((socket, address)) = self.socket.as_ref().filter(|_| !self.is_silent.get()) {
            // Whoever does not listen any more misses nothing.
            let _ = socket.send_to_addr(message.to_string().as_bytes(), address);
        }
    }
}
