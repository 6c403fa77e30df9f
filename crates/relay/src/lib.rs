//! The relay thread: owns every established HTTP/1.1 tunnel.
//!
//! After the switch there is nothing left to decide, only bytes to carry. So a tunnel leaves the front
//! and becomes a plain struct of a thread that has an epoll loop of its own. The front gives it away
//! with [`RelayHandle::hand_over`] and hears of its end once, through the function given to [`start`].
//!
//! ```text
//! client leg ──recv──▶ open records ──▶ count frames ──▶ seal records ──send──▶ upstream leg   (up)
//!            ◀─send─── seal records ◀── count frames ◀── open records ◀──recv──                (down)
//! ```
//!
//! What must stay true: buffers belong to the thread and not to the tunnel; what a peer does not take
//! at once is kept by its leg, and nothing more is read for it until that is gone; one thread touches a
//! tunnel, ever; bytes of a peer end at most its own tunnel.

mod deadlines;
mod engine;
mod flow;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod leg;
mod protection;
pub mod spare;
#[cfg(test)]
mod tests;
mod tunnel;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, io, thread};

use thiserror::Error;
use wssgate_records::{AES_GCM_RECORDS, TlsKeys};
use wssgate_sys::eventfd::EventFd;
use wssgate_ws::{CloseCode, Counts, Extensions, FrameError};

use engine::Engine;

pub use wssgate_records::TlsFault;

/// A finished switch: everything that a tunnel needs.
#[derive(Debug)]
pub struct Handover {
    /// The front's own number for this tunnel; comes back with its [`TunnelEnd`].
    pub ticket: u64,
    /// The generation it belongs to, so that a drain can select it.
    pub generation: u64,
    /// The side that asked for the upgrade.
    pub client: Leg,
    /// The side that granted it.
    pub upstream: Leg,
    /// What is spoken after the switch.
    pub protocol: Protocol,
    /// How long to wait for what.
    pub timers: Timers,
    /// How many bytes are read at once for a peer that did not take all of the last ones: what a
    /// stalled direction keeps (`proxy_buffer_size`, at most 16 KiB here). A peer that keeps up is given
    /// up to [`READ_SIZE`] at a time.
    pub buffer_size: usize,
}

/// One side of a tunnel: a connected stream socket and what was already read from it.
#[derive(Debug)]
pub struct Leg {
    /// A TCP or Unix stream socket; it may be blocking or not.
    pub socket: OwnedFd,
    /// It is a Unix socket: it has no options of TCP, and tells of room to write whenever its peer reads.
    pub unix: bool,
    /// What protects its bytes.
    pub tls: LegTls,
    /// Application bytes that arrived behind the switch and were already opened; they go first.
    pub plaintext: Vec<u8>,
    /// Bytes of the wire that were read and not opened, beginning at a record; they go second.
    pub ciphertext: Vec<u8>,
    /// The peer has already ended its direction (FIN or close_notify was seen).
    pub ended: bool,
}

impl Leg {
    /// A leg over TCP without TLS; `read_ahead` is what was read behind the switch.
    pub fn plain(socket: impl Into<OwnedFd>, read_ahead: Vec<u8>) -> Self {
        Self {
            socket: socket.into(),
            unix: false,
            tls: LegTls::Plain,
            plaintext: read_ahead,
            ciphertext: Vec::new(),
            ended: false,
        }
    }
}

/// What protects the bytes of a leg.
#[derive(Debug)]
pub enum LegTls {
    /// Nothing.
    Plain,
    /// TLS records under these keys; the handshake is over and its connection object gone.
    Keys(Box<TlsKeys>),
    /// TLS records by rustls itself, with what it has opened and nobody has read: that goes after
    /// [`Leg::plaintext`].
    Rustls(Box<rustls::Connection>),
}

/// What is spoken in a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket frames (RFC 6455 §5) with these extensions, counted as they pass.
    WebSocket(Extensions),
    /// Anything else: bytes.
    Other,
}

/// How long a tunnel waits for what. Each is measured from the last progress of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// `proxy_read_timeout`: no bytes either way, while the upstream's bytes are being waited for.
    pub read: Duration,
    /// `proxy_send_timeout`: the upstream takes nothing of what is kept for it.
    pub upstream_send: Duration,
    /// `send_timeout`: the client takes nothing of what is kept for it.
    pub client_send: Duration,
    /// No bytes, once one direction has ended.
    pub half_close: Duration,
}

impl Default for Timers {
    /// nginx's defaults.
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { read: minute, upstream_send: minute, client_send: minute, half_close: minute }
    }
}

/// One of the two ends of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that asked for the upgrade.
    Client,
    /// The side that granted it.
    Upstream,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// How a tunnel ended, told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Why; if several things came together, the first that was out of order.
    pub cause: EndCause,
    /// From hand-over to end.
    pub duration: Duration,
    /// What passed at the client.
    pub client: Totals,
    /// What passed at the upstream.
    pub upstream: Totals,
}

/// What passed at one side of a tunnel, in bytes of the tunnelled protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that this side sent us, with those that came along at the hand-over.
    pub received: u64,
    /// Bytes that the kernel took from us for this side. With TLS, what was kept at the end is counted
    /// by its sealed length.
    pub sent: u64,
    /// The frames that this side sent; zero in a tunnel of other things.
    pub frames: Counts,
    /// The code of the Close that this side sent.
    pub close: Option<CloseCode>,
    /// How this side broke the protocol. It is passed on all the same: the other end is to judge.
    pub broken: Option<FrameError>,
    /// This side ended TLS without close_notify, so that something may be missing.
    pub truncated: bool,
}

/// What ended a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// This side ended its direction first, and the rest was carried in good order.
    Ended(Side),
    /// The connection of this side broke, with this `errno`.
    Broken(Side, i32),
    /// The TLS records of this side were at fault, or it gave up with an alert.
    Tls(Side, TlsFault),
    /// `proxy_read_timeout`: silence.
    ReadTimeout,
    /// This side took nothing for its send timeout (`proxy_send_timeout`, `send_timeout`).
    SendTimeout(Side),
    /// One direction had ended, and the other was silent.
    HalfCloseTimeout,
    /// Closed by a drain; WebSockets hear 1001, where they are between two frames.
    Drained,
    /// Closed by an operator.
    Killed,
    /// The relay stopped; WebSockets hear it as with a drain.
    Stopped,
    /// The kernel refused to watch its sockets, with this `errno`.
    Refused(i32),
}

/// How much is read at once for a peer that keeps up.
pub const READ_SIZE: usize = 64 * 1024;

/// What a relay thread is made with.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many bytes one direction of a tunnel may move before its neighbours have their turn.
    pub turn_bytes: usize,
    /// After how many records an AES-GCM key is changed (TLS 1.3). Smaller in tests only.
    pub tls_record_limit: u64,
    /// Whether the socket calls of several tunnels are made at once by io_uring, where the kernel has it
    /// and lets us. Nothing else depends on it.
    pub io_uring: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { turn_bytes: READ_SIZE, tls_record_limit: AES_GCM_RECORDS, io_uring: true }
    }
}

/// Which tunnels a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Every one.
    All,
    /// Those of this generation.
    Generation(u64),
    /// The one with this ticket.
    Ticket(u64),
}

/// What one relay thread has done so far; each only grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Tunnels taken over.
    pub tunnels: AtomicU64,
    /// Bytes received from clients.
    pub client_bytes: AtomicU64,
    /// Bytes received from upstreams.
    pub upstream_bytes: AtomicU64,
}

/// The relay has stopped and takes nothing more.
#[derive(Debug, Error)]
#[error("the relay has stopped")]
pub struct Stopped;

/// Whether the kernel lets us use io_uring as a relay does; if not, why.
pub fn try_io_uring() -> io::Result<()> {
    engine::joint_calls().map(drop)
}

/// Starts a relay thread. `on_end` is called on it, once for every tunnel handed over, with the ticket;
/// `on_refusal`, at once or on it, when io_uring is not used, or no longer, although it was asked for.
///
/// They must not wait: all other tunnels stand still meanwhile.
pub fn start(
    name: &str,
    settings: Settings,
    on_end: impl FnMut(u64, TunnelEnd) + Send + 'static,
    on_refusal: impl FnMut(&io::Error) + Send + 'static,
) -> io::Result<Relay> {
    let (sender, mail) = mpsc::channel();
    let shared = Arc::new(Shared::new()?);
    let (on_end, on_refusal) = (Box::new(on_end), Box::new(on_refusal));
    let mut engine = Engine::new(settings, mail, Arc::clone(&shared), on_end, on_refusal)?;
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || engine.run())?;
    Ok(Relay { handle: RelayHandle { mail: sender, shared }, thread: Some(thread) })
}

/// A running relay thread. Dropping it stops the thread and waits for it.
#[derive(Debug)]
pub struct Relay {
    handle: RelayHandle,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Relay {
    /// A handle for those who hand over and close.
    pub fn handle(&self) -> RelayHandle {
        self.handle.clone()
    }

    /// Ends every tunnel with [`EndCause::Stopped`], then the thread.
    pub fn stop(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.handle.post(Mail::Stop).ok();
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the relay thread panicked")))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.join().ok();
    }
}

/// The way to a relay thread from other threads.
#[derive(Clone)]
pub struct RelayHandle {
    /// Bounded by the sockets of the process, of which every `HandOver` holds two; the others are rare.
    mail: mpsc::Sender<Mail>,
    shared: Arc<Shared>,
}

impl RelayHandle {
    /// Gives a tunnel to the relay, which tells its end in any case unless it has stopped.
    ///
    /// The relay may sleep on until the caller says [`Self::wake`], soon and for several tunnels at
    /// once: to wake a thread for each alone costs more than to take it over. With the tunnel that
    /// makes them [`UNHEARD`] it is woken at once. Only one thread hands over.
    pub fn hand_over(&self, handover: Handover) -> Result<(), Stopped> {
        self.shared.live.fetch_add(1, Ordering::Relaxed);
        let mail = Mail::HandOver(Box::new(handover));
        self.mail.send(mail).map_err(|_| Stopped).inspect_err(|_| {
            self.shared.live.fetch_sub(1, Ordering::Relaxed);
        })?;
        if self.shared.unheard.fetch_add(1, Ordering::Relaxed) + 1 >= UNHEARD {
            self.wake();
        }
        Ok(())
    }

    /// Wakes the relay if it was given tunnels since the last time.
    pub fn wake(&self) {
        if self.shared.unheard.swap(0, Ordering::Relaxed) > 0 {
            self.shared.bell.ring();
        }
    }

    /// Ends the selected tunnels now, in good order where their peers take it, with this cause.
    pub fn close(&self, selection: Selection, cause: EndCause) -> Result<(), Stopped> {
        self.post(Mail::Close(selection, cause))
    }

    /// Uses io_uring from now on, or no longer, as [`Settings::io_uring`] says. If that was refused
    /// before, the kernel is asked again.
    pub fn use_io_uring(&self, on: bool) -> Result<(), Stopped> {
        self.post(Mail::IoUring(on))
    }

    /// How many tunnels were handed over and have not ended.
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// What the thread has done so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn post(&self, mail: Mail) -> Result<(), Stopped> {
        self.mail.send(mail).map_err(|_| Stopped)?;
        self.shared.bell.ring();
        Ok(())
    }
}

impl fmt::Debug for RelayHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayHandle").field("live", &self.live()).finish_non_exhaustive()
    }
}

/// What other threads tell the relay thread.
enum Mail {
    HandOver(Box<Handover>),
    Close(Selection, EndCause),
    IoUring(bool),
    Stop,
}

/// What the relay thread and its handles share.
#[derive(Debug)]
struct Shared {
    bell: EventFd,
    live: AtomicUsize,
    /// Tunnels handed over since the bell was rung for some; only callers touch it.
    unheard: AtomicUsize,
    counters: Counters,
}

/// How many tunnels are not made to wait for a [`RelayHandle::wake`]: a handshake takes the front a
/// fraction of a millisecond, and the first message of the tunnels before it waits as long.
const UNHEARD: usize = 8;

impl Shared {
    fn new() -> io::Result<Self> {
        Ok(Self {
            bell: EventFd::new()?,
            live: AtomicUsize::new(0),
            unheard: AtomicUsize::new(0),
            counters: Counters::default(),
        })
    }
}
