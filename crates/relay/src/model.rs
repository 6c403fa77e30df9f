//! What others tell a relay, and what it tells them: plain data.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use wssgate_records::{AES_GCM_RECORDS, TlsFault, TlsKeys};
use wssgate_ws::conversation::{Cause, Meters, Notes, PerSide, Policy};
use wssgate_ws::{CloseCode, Counts, FrameError, conversation};

use crate::listing::Label;

/// A finished switch: everything that a tunnel needs.
#[derive(Debug)]
pub struct Handover {
    /// The front's own number for this tunnel; comes back with its [`TunnelEnd`].
    pub ticket: u64,
    /// Where it belongs, so that it can be selected with others.
    pub origin: Origin,
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
    /// What a listing tells of it besides; without one it is not listed.
    pub label: Option<Label>,
}

/// Where a tunnel belongs, in numbers of the front's own: what [`Selection`] goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// The generation whose configuration holds for it.
    pub generation: u64,
    /// The location in that configuration.
    pub location: u32,
    /// The upstream server; it has the same number in all generations.
    pub server: u32,
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
    /// Bytes of the wire that this side has still to be sent, before all others.
    pub unsent: Vec<u8>,
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
            unsent: Vec::new(),
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
}

/// What is spoken in a tunnel.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// WebSocket frames (RFC 6455 §5), in a conversation with these settings.
    WebSocket(conversation::Settings),
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
    /// How often [`Report::Progress`] is told; the first time after a part of it that depends on the ticket,
    /// so that tunnels that began together do not tell together.
    pub progress: Option<Duration>,
}

impl Default for Timers {
    /// nginx's defaults.
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            read: minute,
            upstream_send: minute,
            client_send: minute,
            half_close: minute,
            progress: None,
        }
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

impl From<Side> for wssgate_ws::Side {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Upstream => Self::Server,
        }
    }
}

impl From<wssgate_ws::Side> for Side {
    fn from(side: wssgate_ws::Side) -> Self {
        match side {
            wssgate_ws::Side::Client => Self::Client,
            wssgate_ws::Side::Server => Self::Upstream,
        }
    }
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

/// What a relay tells of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Something that should be known while it goes on.
    Note(Notes),
    /// What has passed through it until now, because [`Timers::progress`] is over.
    Progress(Box<Progress>),
    /// How it ended; nothing follows.
    End(Box<TunnelEnd>),
    /// Another process goes on with it, and tells its end; nothing follows here.
    Moved,
}

/// What has passed through a tunnel that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Since the hand-over.
    pub duration: Duration,
    /// The side that began to close a WebSocket: whose Close came before ours, and before the other side had
    /// ended.
    pub first_close: Option<Side>,
    /// What passed at the client.
    pub client: Totals,
    /// What passed at the upstream.
    pub upstream: Totals,
}

/// How a tunnel ended, told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Why; if several things came together, the first that was out of order.
    pub cause: EndCause,
    /// From hand-over to end.
    pub duration: Duration,
    /// As in [`Progress`].
    pub first_close: Option<Side>,
    /// What passed at the client.
    pub client: Totals,
    /// What passed at the upstream.
    pub upstream: Totals,
}

/// What passed at one side of a tunnel, in bytes of the tunnelled protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that this side sent us, with those that came along at the hand-over.
    pub received: u64,
    /// Bytes that the kernel took from us for this side. With TLS, what was kept at the end is counted
    /// by its sealed length.
    pub sent: u64,
    /// The frames that this side sent; `None` in a tunnel of other things.
    pub frames: Option<Counts>,
    /// The code of the Close that this side sent.
    pub close: Option<CloseCode>,
    /// The reason in it. It may be anything.
    pub close_reason: Box<[u8]>,
    /// The code of the Close that we sent to this side.
    pub own_close: Option<CloseCode>,
    /// The reason in it, if an operator has chosen one.
    pub own_reason: Box<str>,
    /// How long this side took to answer our last ping.
    pub rtt: Option<Duration>,
    /// How long bytes had to wait because this side did not take them.
    pub blocked: Duration,
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
    /// This side did not answer a ping of ours, nor say anything else.
    Lost(Side),
    /// We closed the WebSocket, and told both sides as far as they could be told; never [`Cause::Drain`] or
    /// [`Cause::Kill`], which are the two below.
    Closed(Cause),
    /// Closed by a drain. The sides of a WebSocket are sent a Close as soon as no frame is under way to them, and
    /// have [`wssgate_ws::conversation::CLOSING_MS`] in all to answer; what was under way longer is cut.
    Drained,
    /// Closed by an operator, a WebSocket in the same way.
    Killed,
    /// Closed at once, for its upstream server has failed its health checks. Nobody is waited for: WebSockets are
    /// sent 1001 where no frame is under way. Those that are ended in good order for the same reason end with
    /// [`Cause::Unhealthy`].
    Unhealthy,
    /// The relay stopped. It waits for nobody: WebSockets are sent 1001 where no frame is under way.
    Stopped,
    /// The kernel refused to watch its sockets, with this `errno`.
    Refused(i32),
}

impl From<Cause> for EndCause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Drain(_) => Self::Drained,
            Cause::Kill => Self::Killed,
            other => Self::Closed(other),
        }
    }
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
    /// Those of one location of this generation.
    Location(u64, u32),
    /// Those to this upstream server.
    Server(u32),
    /// Those of this generation to this upstream server.
    ServerIn(u64, u32),
    /// The one with this ticket.
    Ticket(u64),
}

impl Selection {
    /// Whether it means the tunnel with this ticket, which belongs there.
    pub(crate) fn means(self, ticket: u64, origin: Origin) -> bool {
        match self {
            Self::All => true,
            Self::Generation(generation) => origin.generation == generation,
            Self::Location(generation, location) => {
                (origin.generation, origin.location) == (generation, location)
            }
            Self::Server(server) => origin.server == server,
            Self::ServerIn(generation, server) => {
                (origin.generation, origin.server) == (generation, server)
            }
            Self::Ticket(wanted) => ticket == wanted,
        }
    }
}

/// Why a tunnel cannot go on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// It is described in a way that is not understood, as that of a cipher or protocol which this release does not know.
    #[error("its description is not understood")]
    Unknown,
    /// What is said of it cannot be.
    #[error("its description is inconsistent")]
    Unsound,
}

/// What a tunnel is to be here.
#[derive(Debug)]
pub struct Binding {
    /// As [`Handover::ticket`].
    pub ticket: u64,
    /// Where it belongs.
    pub origin: Origin,
    /// What a listing tells of it.
    pub label: Option<Label>,
    /// How long to wait for what.
    pub timers: Timers,
    /// As [`Handover::buffer_size`].
    pub buffer_size: usize,
    /// What holds for its WebSocket from now on; `None`: what did until now.
    pub policy: Option<Arc<Policy>>,
    /// Who counts what its sides send.
    pub meters: Option<Box<PerSide<Meters>>>,
}
