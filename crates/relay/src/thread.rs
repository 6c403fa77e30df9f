//! The relay's thread, and the way to it from others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use thiserror::Error;
use wssgate_sys::eventfd::EventFd;
use wssgate_ws::conversation::{Cause, Farewell};

use crate::deadlines::millis;
use crate::engine::{self, Engine};
use crate::listing::{Handle, MAX_KILLS, Page};
use crate::moving::{FrozenPage, Resume, States};
use crate::tap::{MAX_TAPPED, Tap};
use crate::tunnel::Tunnel;
use crate::{Counters, Drain, DrainProgress, EndCause, Handover, Report, Selection, Settings};

/// The relay has stopped and takes nothing more.
#[derive(Debug, Error)]
#[error("the relay has stopped")]
pub struct Stopped;

/// Whether the kernel lets us use io_uring as a relay does; if not, why.
pub fn try_io_uring() -> io::Result<()> {
    engine::joint_calls().map(drop)
}

/// Starts a relay thread, which goes on with these `counters`. `on_report` is called on it with what is told of a tunnel and the ticket, once for
/// every tunnel handed over with its end;
/// `on_refusal`, at once or on it, when io_uring is not used, or no longer, although it was asked for.
///
/// They must not wait: all other tunnels stand still meanwhile.
pub fn start(
    name: &str,
    settings: Settings,
    counters: Arc<Counters>,
    on_report: impl FnMut(u64, Report) + Send + 'static,
    on_refusal: impl FnMut(&io::Error) + Send + 'static,
) -> io::Result<Relay> {
    let (sender, commands) = mpsc::channel();
    let shared = Arc::new(Shared::new(counters, settings.tls_record_limit)?);
    let (on_report, on_refusal) = (Box::new(on_report), Box::new(on_refusal));
    let engine = Engine::new(settings, commands, Arc::clone(&shared), on_report, on_refusal)?;
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(engine))?;
    Ok(Relay { handle: RelayHandle::new(sender, shared), thread: Some(thread) })
}

/// One clock for all relays, so that they can count together what happens in a time.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What the clock shows when it begins: ten years, so that tunnels can come from processes that began before.
const START: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How late it is by the clock of all relays.
fn clock() -> Duration {
    START + BEGAN.elapsed()
}

/// How late it is by the clock of all relays, in milliseconds.
pub fn clock_ms() -> u64 {
    millis(clock())
}

/// Moves an engine by the clock until it is told to stop.
fn run(mut engine: Engine) -> io::Result<()> {
    while !engine.is_finished() {
        engine.wait(clock(), None)?;
        engine.step(clock());
    }
    engine.stop(clock());
    Ok(())
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

    /// Ends every tunnel with [`EndCause::Stopped`], but leaves those that are drained already the rest of
    /// their time; then ends the thread.
    pub fn stop(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.handle.send(Command::Stop).ok();
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
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl RelayHandle {
    pub(crate) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared }
    }

    /// Gives a tunnel to the relay, which tells its end in any case unless it has stopped.
    ///
    /// The relay may sleep on until the caller says [`Self::wake`], soon and for several tunnels at
    /// once: to wake a thread for each alone costs more than to take it over. With the tunnel that
    /// makes them [`MAX_UNWOKEN`] it is woken at once. Only one thread hands over.
    pub fn hand_over(&self, handover: Handover) -> Result<(), Stopped> {
        self.shared.live.fetch_add(1, Ordering::Relaxed);
        let command = Command::HandOver(Box::new(handover));
        self.commands.send(command).map_err(|_| Stopped).inspect_err(|_| {
            self.shared.live.fetch_sub(1, Ordering::Relaxed);
        })?;
        if self.shared.unwoken.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_UNWOKEN {
            self.wake();
        }
        Ok(())
    }

    /// Wakes the relay if it was given tunnels since the last time.
    pub fn wake(&self) {
        if self.shared.unwoken.swap(0, Ordering::Relaxed) > 0 {
            self.shared.wakeup.ring();
        }
    }

    /// Ends the selected tunnels with this cause: now, in good order where their peers take it, or for
    /// [`EndCause::Drained`] in its time.
    pub fn close(&self, selection: Selection, cause: EndCause) -> Result<(), Stopped> {
        self.send(Command::Close(selection, cause))
    }

    /// Ends the tunnels that are meant at the pace of the drain; those of another drain as
    /// [`Drain::takes_over`] says.
    pub fn drain(&self, drain: Drain) -> Result<(), Stopped> {
        let progress = Arc::clone(&drain.progress);
        progress.expect_plan();
        self.send(Command::Drain(Box::new(drain))).inspect_err(|_| progress.add_plan(0))
    }

    /// Ends a drain of which nobody else is to be told; those who were not stay open, unless they belong to another
    /// drain: then that one goes on with them.
    pub fn cancel_drain(&self, progress: &Arc<DrainProgress>) -> Result<(), Stopped> {
        self.send(Command::CancelDrain(Arc::clone(progress)))
    }

    /// Asks for a part of the tunnels, from this place on; 0 is the first. The answer comes between two
    /// turns; none comes if the relay stops before.
    ///
    /// Ask for the next part when this one is there: so the relay works in between.
    pub fn page(&self, from: usize) -> Result<mpsc::Receiver<Page>, Stopped> {
        let (answer, page) = mpsc::channel();
        self.send(Command::Page { from, answer })?;
        Ok(page)
    }

    /// Ends those of up to [`MAX_KILLS`] tunnels that are still there for this cause, if wanted with these words for
    /// the clients of WebSockets. The answer is how many those were: not those whose closing we had begun.
    pub fn end(
        &self,
        tunnels: Vec<Handle>,
        cause: Cause,
        words: Option<Arc<Farewell>>,
    ) -> Result<mpsc::Receiver<usize>, Stopped> {
        assert!(tunnels.len() <= MAX_KILLS, "{} tunnels at once", tunnels.len());
        let (answer, ended) = mpsc::channel();
        self.send(Command::End { tunnels, cause, words, answer })?;
        Ok(ended)
    }

    /// Begins to look at those of up to [`MAX_TAPPED`] WebSockets that are still there; each says how much of payloads is
    /// copied, in bytes. The answer is how many those were.
    pub fn tap(
        &self,
        tunnels: Vec<(Handle, usize)>,
        tap: Arc<Tap>,
    ) -> Result<mpsc::Receiver<usize>, Stopped> {
        assert!(tunnels.len() <= MAX_TAPPED, "{} tunnels at once", tunnels.len());
        let (answer, tapped) = mpsc::channel();
        self.send(Command::Tap { tunnels, tap, answer })?;
        Ok(tapped)
    }

    /// Ends to look at up to [`MAX_TAPPED`] tunnels for the tap with this number.
    pub fn untap(&self, tunnels: Vec<Handle>, number: u64) -> Result<(), Stopped> {
        assert!(tunnels.len() <= MAX_TAPPED, "{} tunnels at once", tunnels.len());
        self.send(Command::Untap { tunnels, number })
    }

    /// Uses io_uring from now on, or no longer, as [`Settings::io_uring`] says. If that was refused
    /// before, the kernel is asked again.
    pub fn use_io_uring(&self, on: bool) -> Result<(), Stopped> {
        self.send(Command::IoUring(on))
    }

    /// Goes on with tunnels that have come from another process, and tells their ends in any case unless it has stopped.
    /// Whoever wants to know when it carries them waits for the answer.
    ///
    /// # Errors
    /// When the relay has stopped; their sockets are closed then.
    pub fn resume(&self, tunnels: Vec<Resume>) -> Result<mpsc::Receiver<()>, Stopped> {
        let count = tunnels.len();
        let (answer, carried) = mpsc::channel();
        self.shared.live.fetch_add(count, Ordering::Relaxed);
        self.send(Command::Resume { tunnels, answer }).inspect_err(|_| {
            self.shared.live.fetch_sub(count, Ordering::Relaxed);
        })?;
        Ok(carried)
    }

    /// What tunnels that have come from another process are made with.
    pub(crate) fn for_tunnels(&self) -> (Arc<Counters>, u64) {
        (Arc::clone(&self.shared.counters), self.shared.tls_record_limit)
    }

    /// Takes tunnels out of the relay. Whoever asks for them owes it [`Self::let_go`] or [`Self::give_back`].
    pub(crate) fn take_frozen(
        &self,
        from: usize,
        afresh: bool,
    ) -> Result<mpsc::Receiver<FrozenPage>, Stopped> {
        let (answer, page) = mpsc::channel();
        self.send(Command::Freeze { from, afresh, answer })?;
        Ok(page)
    }

    pub(crate) fn take_states(&self, from: usize) -> Result<mpsc::Receiver<States>, Stopped> {
        let (answer, states) = mpsc::channel();
        self.send(Command::Announce { from, answer })?;
        Ok(states)
    }

    /// The first are another process's now, and the others perhaps.
    pub(crate) fn let_go(&self, moved: Vec<Tunnel>, unknown: Vec<Tunnel>) -> Result<(), Stopped> {
        self.send(Command::LetGo { moved, unknown })
    }

    /// Goes on with tunnels that were taken out of it.
    pub(crate) fn give_back(&self, tunnels: Vec<Tunnel>) -> Result<(), Stopped> {
        self.send(Command::GiveBack(tunnels))
    }

    /// How many tunnels were handed over and have not ended.
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// What the thread has done so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)?;
        self.shared.wakeup.ring();
        Ok(())
    }
}

impl fmt::Debug for RelayHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayHandle").field("live", &self.live()).finish_non_exhaustive()
    }
}

/// What other threads have the relay thread do.
pub(crate) enum Command {
    HandOver(Box<Handover>),
    Close(Selection, EndCause),
    Drain(Box<Drain>),
    CancelDrain(Arc<DrainProgress>),
    IoUring(bool),
    Page {
        from: usize,
        answer: mpsc::Sender<Page>,
    },
    End {
        tunnels: Vec<Handle>,
        cause: Cause,
        words: Option<Arc<Farewell>>,
        answer: mpsc::Sender<usize>,
    },
    Tap {
        tunnels: Vec<(Handle, usize)>,
        tap: Arc<Tap>,
        answer: mpsc::Sender<usize>,
    },
    Untap {
        tunnels: Vec<Handle>,
        number: u64,
    },
    Announce {
        from: usize,
        answer: mpsc::Sender<States>,
    },
    Freeze {
        from: usize,
        afresh: bool,
        answer: mpsc::Sender<FrozenPage>,
    },
    LetGo {
        moved: Vec<Tunnel>,
        unknown: Vec<Tunnel>,
    },
    GiveBack(Vec<Tunnel>),
    Resume {
        tunnels: Vec<Resume>,
        answer: mpsc::Sender<()>,
    },
    Stop,
}

/// What the relay thread and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) wakeup: EventFd,
    pub(crate) live: AtomicUsize,
    /// Tunnels handed over since the thread was last woken for some; only callers touch it.
    unwoken: AtomicUsize,
    pub(crate) counters: Arc<Counters>,
    tls_record_limit: u64,
}

/// How many tunnels are not made to wait for a [`RelayHandle::wake`]: a handshake takes the front a
/// fraction of a millisecond, and the first message of the tunnels before it waits as long.
pub(crate) const MAX_UNWOKEN: usize = 8;

impl Shared {
    pub(crate) fn new(counters: Arc<Counters>, tls_record_limit: u64) -> io::Result<Self> {
        Ok(Self {
            wakeup: EventFd::new()?,
            live: AtomicUsize::new(0),
            unwoken: AtomicUsize::new(0),
            counters,
            tls_record_limit,
        })
    }
}
