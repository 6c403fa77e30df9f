//! The admin side: a Unix socket of its own that answers HTTP requests in JSON (`docs/ctl.md`).
//!
//! ```text
//! wssgate ctl ──socket──▶ a thread of ours ──a part at a time──▶ relays
//!                                          ──orders────────────▶ main thread
//! ```
//!
//! Its threads wait for whoever asks; nobody waits for them. A relay is asked for so few of its tunnels at a
//! time that no other waits long for its turn, and the main thread looks at orders when it has nothing else to
//! do. Everything has a bound: connections, the size of a request, the time of both, the rows of an answer.
//!
//! Who may ask is decided by the permissions of the socket.

mod api;
mod current;
mod dashboard;
mod draining;
pub(crate) mod drains;
mod places;
mod query;
mod revocations;
mod rows;
mod server;
mod socket;
mod tap;
mod upstreams;
mod walk;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::{fmt, io, thread};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use wssgate_config::model::Admin as Wanted;
use wssgate_relay::RelayHandle;
use wssgate_sys::{privileges, process, socket as sys};

use crate::auth::revocations::Revocations;
use crate::dashboard::history::History;
use crate::generation::Generation;
use crate::log::Notifier;
use crate::metrics::Metrics;
use crate::site::Phase;

use drains::Drains;
use places::{Place, Places};

pub use rows::FILTERS;
pub use socket::{AdminSocket, SocketError};

/// How many requests are answered at a time; others wait in the queue of the socket.
const THREADS: usize = 4;

/// How many of them may wait for the main thread: the others must be free for all else.
const MAX_ORDERS: usize = THREADS / 2;

/// What the threads of the admin side need.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) current: Arc<ArcSwap<Generation>>,
    pub(crate) metrics: Metrics,
    pub(crate) phase: watch::Receiver<Phase>,
    /// The program file that an upgrade starts, once the main thread has told.
    pub(crate) program: OnceLock<PathBuf>,
    pub(crate) relays: Arc<Relays>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) drains: Drains,
    pub(crate) orders: Orders,
    /// Of requests that are being answered on the socket.
    pub(crate) answers: Answering,
    /// What was told to those who ask for current rates.
    pub(crate) walks: current::Walks,
    /// Those who look at frames.
    pub(crate) taps: tap::Taps,
    /// The last hour, while a `dashboard` shows it.
    pub(crate) history: Arc<History>,
}

/// Places of requests, one for each thread.
pub(crate) type Answering = Places<THREADS>;

/// The relays of all workers, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Relays(Mutex<Vec<RelayHandle>>);

impl Relays {
    /// Those of these workers from now on.
    pub(crate) fn replace(&self, relays: Vec<RelayHandle>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = relays;
    }

    fn all(&self) -> Vec<RelayHandle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What only the main thread can do.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again, and answer what came of it.
    Reload {
        /// Who wants it, for the log.
        by: String,
        /// Where the answer goes.
        answer: mpsc::Sender<Reloaded>,
    },
    /// Start a new program in our place, and answer what came of it.
    Upgrade {
        /// Who wants it, for the log.
        by: String,
        /// Which program; without it the one that we were started from.
        binary: Option<PathBuf>,
        /// Where the answer goes.
        answer: mpsc::Sender<Result<Upgraded, String>>,
    },
}

/// A new program that has taken over.
#[derive(Debug)]
pub struct Upgraded {
    /// The number of its process.
    pub pid: u32,
    /// What it says of its version; nothing if it is none of ours.
    pub version: String,
    /// How many listening sockets it was left.
    pub sockets: usize,
    /// Tunnels that have moved to it.
    pub moved: u64,
    /// Connections that the old process still has, tunnels among them.
    pub connections: u64,
    /// Tunnels that the old process still has.
    pub tunnels: u64,
}

/// What came of a reload.
#[derive(Debug)]
pub struct Reloaded {
    /// The number of the generation that is in effect now; `None` when the new one was refused, or we are
    /// about to end.
    pub generation: Option<u64>,
    /// What there was to say about the configuration, as in the log: each with its level.
    pub messages: Vec<(&'static str, String)>,
}

/// The way to the main thread.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    /// Bounded by the places of those who wait for the answers.
    sender: mpsc::Sender<Order>,
    notifier: Notifier,
    waiting: Places<MAX_ORDERS>,
}

impl Orders {
    /// The way, and where it ends; the main thread is called by `notifier`.
    pub(crate) fn new(notifier: Notifier) -> (Self, mpsc::Receiver<Order>) {
        let (sender, orders) = mpsc::channel();
        (Self { sender, notifier, waiting: Places::default() }, orders)
    }

    /// A place to wait for an answer in, if there is room.
    fn wait(&self) -> Option<Place> {
        self.waiting.take()
    }

    fn give(&self, order: Order) {
        // Without a main thread nobody waits for an answer long.
        let _ = self.sender.send(order);
        self.notifier.notify();
    }
}

/// The admin side while it runs. Dropping it ends it and removes its socket.
pub(crate) struct Admin {
    socket: AdminSocket,
    listener: Arc<UnixListener>,
    ends: Arc<AtomicBool>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Admin").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Admin {
    /// Answers on this socket from now on.
    pub(crate) fn start(mut socket: AdminSocket, view: Arc<View>) -> io::Result<Self> {
        let listener = Arc::new(socket.take_listener()?);
        let ends = Arc::<AtomicBool>::default();
        let admin = Self { socket, listener: Arc::clone(&listener), ends: Arc::clone(&ends) };
        let (ready, started) = mpsc::channel();
        for number in 0..THREADS {
            let (listener, ends) = (Arc::clone(&listener), Arc::clone(&ends));
            let (view, ready) = (Arc::clone(&view), ready.clone());
            thread::Builder::new().name(format!("admin {number}")).spawn(move || {
                // Who cannot give up what root may does not serve.
                let dropped = privileges::drop_capabilities();
                let serves = dropped.is_ok();
                // A listing of many tunnels is some milliseconds of work, which relays on the same cores must not
                // wait for. Where this is refused all the same, they do.
                let _ = process::give_way_to_other_threads();
                let _ = ready.send(dropped);
                if serves {
                    server::serve(&listener, &ends, &view);
                }
            })?;
        }
        started.iter().take(THREADS).collect::<io::Result<()>>()?;
        Ok(admin)
    }

    /// Where its socket is.
    pub(crate) fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Whether it is what the configuration wants, but for the mode, which is set.
    ///
    /// # Errors
    /// When that is refused; then everything is as before.
    pub(crate) fn fits(&mut self, wanted: &Wanted) -> Result<bool, SocketError> {
        self.socket.fits(wanted)
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // If it fails they wait on, at a socket that nobody finds.
        let _ = sys::stop_listening(self.listener.as_fd());
    }
}
