//! The engine as the main thread sees it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use wssgate_config::Config;
use wssgate_config::model::{Content, EventMethod, ListenAddr, ListenSocket, LogLevel};
use wssgate_relay::{self as relay, EndCause, Pace, Paces, Selection, Whom};
use wssgate_syntax::{Diagnostic, Report};
use wssgate_sys::privileges;

use crate::acme::Known;
use crate::admin::drains::{Drains, Wanted};
use crate::admin::{Admin, AdminSocket, Order, Orders, Relays, SocketError, View};
use crate::clock;
use crate::dashboard::Desk;
use crate::dashboard::history::Sampler;
use crate::errno_text;
use crate::generation::draining::{self, Beginning, Draining};
use crate::generation::{Environment, Generation, Life};
use crate::listen::{self, LeftSocket, ListenError, Listener, Listeners, PassedSockets};
use crate::log::ErrorLog;
use crate::metrics::Metrics;
use crate::moving::{Giving, Home, Post, Stored, TakenUp, Taking, store};
use crate::site::Phase;
use crate::tls::server::Acceptor;
use crate::worker::{WorkerContext, WorkerThread};

/// A worker that panics as soon as it starts must not keep the machine busy.
const BETWEEN_REPLACEMENTS: Duration = Duration::from_secs(1);

/// A first generation with its sockets bound, before any thread runs: the time to go to the
/// background and to give up root.
#[derive(Debug)]
pub struct Prepared {
    generation: Generation,
    report: Report,
    listeners: Listeners,
    opened: Vec<Arc<Listener>>,
    workers: usize,
    environment: Environment,
}

impl Prepared {
    /// What the configuration builds.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Warnings.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Starts the workers. From here on connections are accepted.
    pub fn start(self) -> io::Result<Proxy> {
        let (phase, wanted_phase) = watch::channel(Phase::Serving);
        let (offered, offers) = watch::channel(self.opened.clone());
        let (newest, of_newest) = watch::channel(self.generation.number);
        let mut listeners = self.listeners;
        listeners.replace(self.opened);
        listeners.close_unused();
        let io_uring = uses_io_uring(&self.generation, false);
        let (to_us, orders) = Orders::new(self.environment.files.notifier().clone());
        let view = Arc::new(View {
            current: Arc::new(ArcSwap::from_pointee(self.generation)),
            metrics: Metrics::new(self.workers, Arc::clone(&self.environment.metrics)),
            phase: wanted_phase.clone(),
            program: Default::default(),
            relays: Arc::new(Relays::default()),
            revocations: Arc::default(),
            drains: Drains::new(self.environment.files.notifier().clone()),
            orders: to_us,
            answers: Default::default(),
            walks: Default::default(),
            taps: Default::default(),
            history: Arc::default(),
        });
        let context = WorkerContext {
            metrics: view.metrics.clone(),
            current: Arc::clone(&view.current),
            wanted_phase,
            listeners: offers,
            desk: Desk::new(Arc::<View>::clone(&view)),
            io_uring: Arc::new(AtomicBool::new(io_uring)),
            newest: of_newest,
            unhealthy: watch::Sender::new(()),
            revocations: Arc::clone(&view.revocations),
            notifier: self.environment.files.notifier().clone(),
        };
        self.environment.metrics.reload.started(now());
        let start = |id| WorkerThread::start(id, context.clone());
        let workers = (0..self.workers).map(start).collect::<io::Result<_>>()?;
        let (current, environment) = (Arc::clone(&context.current), self.environment);
        follow(&current.load(), &environment);
        let mut proxy = Proxy {
            admin: None,
            sampler: None,
            view,
            orders,
            current,
            context,
            environment,
            listeners,
            offered,
            newest,
            phase,
            workers,
            retired: Vec::new(),
            former: Vec::new(),
            replaced_at: None,
            drains_at: None,
            holds_tunnels: false,
            is_undrained: false,
        };
        proxy.show_relays();
        proxy.keep_history();
        Ok(proxy)
    }
}

/// The running engine. Dropping it stops it.
#[derive(Debug)]
pub struct Proxy {
    /// First, so that nobody asks what is no more.
    admin: Option<Admin>,
    /// While the newest generation has a `dashboard`.
    sampler: Option<Sampler>,
    view: Arc<View>,
    orders: mpsc::Receiver<Order>,
    current: Arc<ArcSwap<Generation>>,
    context: WorkerContext,
    environment: Environment,
    listeners: Listeners,
    offered: watch::Sender<Vec<Arc<Listener>>>,
    newest: watch::Sender<u64>,
    phase: watch::Sender<Phase>,
    workers: Vec<WorkerThread>,
    retired: Vec<Retired>,
    /// Of generations that were revived, by number, the lives in which something may still be ending.
    former: Vec<(u64, Life)>,
    replaced_at: Option<Instant>,
    /// When a drain begins that was asked for, but waits for load balancers.
    drains_at: Option<Instant>,
    /// Whether a drain leaves tunnels alone for now.
    holds_tunnels: bool,
    /// Whether it has given way and its tunnels are not drained yet.
    is_undrained: bool,
}

/// Whether relays are to use io_uring, which they may do already. If it is wanted and the kernel does not
/// let us, the log says so; nothing else changes.
fn uses_io_uring(generation: &Generation, already: bool) -> bool {
    let told = |error: &_| generation.on_no_io_uring("io_uring is not used", error);
    generation.config.core.event_method != EventMethod::Epoll
        && (already || relay::try_io_uring().inspect_err(told).is_ok())
}

/// A generation that was replaced, or is being drained.
#[derive(Debug)]
struct Retired {
    number: u64,
    generation: Weak<Generation>,
    life: Life,
    expires_at: Option<Instant>,
    ended: bool,
}

impl Proxy {
    /// Whether a configuration could be run: what `-t` does. Sockets are bound and closed again.
    pub fn check(config: Config, environment: &Environment) -> Result<Report, Report> {
        let (generation, mut report) = Generation::build(config, None, environment)?;
        for known in generation.config.http.iter().flat_map(Known::all) {
            let note = Diagnostic::information(known.line()).at(known.span, "");
            report.push(note.maybe_help(known.advice().map(str::to_owned)));
        }
        let wanted = sockets(&generation);
        if let Err(error) = Listeners::default().check(wanted) {
            report.push(refusal(&error, wanted));
            return Err(report);
        }
        Ok(report)
    }

    /// What is wrong or doubtful with the certificates and keys of servers, also of a configuration that has errors
    /// elsewhere.
    pub fn check_certificates(config: &Config) -> Report {
        let mut report = Report::default();
        if let Some(http) = &config.http {
            Acceptor::check_certificates(http, clock::unix_seconds(), &mut report);
        }
        report
    }

    /// Builds the first generation and binds its sockets, but for those that others have `passed` on.
    pub fn prepare(
        config: Config,
        environment: Environment,
        passed: PassedSockets,
    ) -> Result<Prepared, Report> {
        let (generation, mut report) = Generation::build(config, None, &environment)?;
        let workers = generation.workers;
        let listeners = Listeners::with_passed(passed);
        for address in listeners.unwanted(sockets(&generation)) {
            let message = format!("the service manager listens on {address}, which is not used");
            let help = "write the same address in `listen` and in the socket unit";
            report.push(Diagnostic::warning(message).help(help));
        }
        match open(&listeners, &generation, workers) {
            Ok(opened) => {
                Ok(Prepared { generation, report, listeners, opened, workers, environment })
            }
            Err(error) => {
                report.push(refusal(&error, sockets(&generation)));
                Err(report)
            }
        }
    }

    /// Prepares and starts in one step, for those who neither daemonise nor change the user.
    pub fn start(config: Config, environment: Environment) -> Result<Self, Report> {
        Self::prepare(config, environment, PassedSockets::default())?.start().map_err(|error| {
            let mut report = Report::default();
            let text = format!("cannot start workers ({})", errno_text(&error));
            report.push(Diagnostic::error(text));
            report
        })
    }

    /// The newest generation.
    pub fn generation(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Writes a line to the error log of the main level.
    pub fn log(&self, level: LogLevel, message: impl std::fmt::Display) {
        self.current.load().logs.main().write(level, None, message);
    }

    /// What the workers count.
    pub fn metrics(&self) -> &Metrics {
        &self.context.metrics
    }

    /// The addresses that are listened on, with the ports that the kernel chose for port 0.
    pub fn addresses(&self) -> Vec<ListenAddr> {
        listen::bound_addresses(&self.offered.borrow())
    }

    /// Replaces the configuration. What began with the old one keeps it; if the new one cannot be
    /// built or bound, nothing changes.
    pub fn reload(&mut self, config: Config) -> Result<Report, Report> {
        let previous = self.current.load_full();
        let (generation, mut report) =
            Generation::build(config, Some(&previous), &self.environment)?;
        let listeners = match open(&self.listeners, &generation, self.workers.len()) {
            Ok(listeners) => listeners,
            Err(error) => {
                report.push(refusal(&error, sockets(&generation)));
                return Err(report);
            }
        };
        // From here on nothing can fail, so the old configuration may go.
        self.retire(&previous);
        let paces = draining::paces(&previous, Beginning::Reload);
        let (replaced, life) = (previous.number, previous.life());
        // It ends when nobody holds it, and this would be somebody.
        drop(previous);
        let generation = Arc::new(generation);
        let number = generation.number;
        follow(&generation, &self.environment);
        self.current.store(generation);
        self.newest.send_replace(number);
        self.keep_history();
        // Of peers that are unhealthy already the new one may want that their tunnels end.
        self.context.unhealthy.send_replace(());
        self.choose_io_uring();
        // Not before the generation is there: who accepts on a new address has to find its servers.
        self.offered.send_replace(listeners.clone());
        self.listeners.replace(listeners);
        // Whoever comes back is to find the new one.
        if let Some(paces) = paces {
            self.drain_generation(replaced, &life, paces, Beginning::Reload);
        }
        Ok(report)
    }

    /// Counts a reload, whoever it was that refused it.
    pub fn count_reload(&self, success: bool) {
        self.environment.metrics.reload.ended(success, now());
    }

    /// Tells relays what the new generation wants. Those that use io_uring already are not disturbed; those
    /// that could not, or no longer, try again.
    fn choose_io_uring(&self) {
        let already = self.context.io_uring.load(Ordering::Relaxed);
        let on = uses_io_uring(&self.current.load(), already);
        self.context.io_uring.store(on, Ordering::Relaxed);
        for worker in &self.workers {
            // One that has ended uses nothing.
            let _ = worker.relay.use_io_uring(on);
        }
    }

    /// Answers on the admin socket from here on.
    ///
    /// # Errors
    /// When its threads do not start; then there is none.
    pub fn open_admin(&mut self, socket: AdminSocket) -> io::Result<()> {
        self.admin = Some(Admin::start(socket, Arc::clone(&self.view))?);
        Ok(())
    }

    /// Lets those who ask on the admin socket know the program file that an upgrade starts.
    pub fn show_program(&self, path: &Path) {
        // It is told once.
        let _ = self.view.program.set(path.to_path_buf());
    }

    /// Has the admin socket that the newest generation wants: the same, another one, or none.
    ///
    /// # Errors
    /// When another one is wanted and cannot be had. Then the old one stays, but for one at the same path,
    /// which had to go first.
    pub fn follow_admin(&mut self) -> Result<(), SocketError> {
        let generation = self.generation();
        let wanted = generation.config.core.admin.as_ref();
        let Some(wanted) = wanted else {
            self.admin = None;
            return Ok(());
        };
        if let Some(admin) = &mut self.admin
            && admin.fits(wanted)?
        {
            return Ok(());
        }
        // At the same path the old one has to go first.
        self.admin.take_if(|admin| admin.path() == wanted.path);
        // Of the user that we have become there may be other programs.
        let for_root = generation.is_roots();
        let started = self.open_admin(AdminSocket::open(wanted, for_root)?);
        started.map_err(|source| SocketError::threads(&wanted.path, source))
    }

    /// Removes the admin socket; a proxy that is dropped does so itself.
    pub fn close_admin(&mut self) {
        self.admin = None;
    }

    /// What the main thread is asked to do, if anything; [`Proxy::wakeup`] tells that there may be something.
    pub fn next_order(&self) -> Option<Order> {
        self.orders.try_recv().ok()
    }

    /// Keeps the numbers of the last hour while a location shows them.
    fn keep_history(&mut self) {
        let generation = self.current.load();
        let mut locations = generation.config.http.iter().flat_map(|http| &http.locations);
        if !locations.any(|location| matches!(location.content, Content::Dashboard(_))) {
            self.sampler = None;
            return;
        }
        if self.sampler.is_none() {
            let (metrics, history) = (self.view.metrics.clone(), Arc::clone(&self.view.history));
            match Sampler::start(metrics, history) {
                Ok(sampler) => self.sampler = Some(sampler),
                // The page works without it.
                Err(error) => generation.logs.main().write(
                    LogLevel::Error,
                    None,
                    format_args!("the dashboard keeps no history ({})", errno_text(&error)),
                ),
            }
        }
    }

    /// Lets the admin side know the relays that there are.
    fn show_relays(&self) {
        self.view.relays.replace(self.workers.iter().map(|worker| worker.relay.clone()).collect());
    }

    /// Opens every log file again.
    pub fn reopen(&self) {
        let generation = self.generation();
        let owner = generation.owner.as_ref().map(|owner| owner.uid);
        for failure in self.environment.files.reopen(owner) {
            generation.logs.main().write(LogLevel::Emerg, None, failure);
        }
    }

    /// Writes out every log buffer; a proxy that is dropped does so itself.
    pub fn flush_logs(&self) {
        self.environment.files.flush();
    }

    /// Whether it has not been told to end.
    pub fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// Accepts nothing more and ends when the last connection does, or when
    /// `worker_shutdown_timeout` is over. WebSockets with `websocket_drain` are closed at its pace, also those
    /// of earlier generations.
    ///
    /// With `readiness delay=` that begins only after this time, or when it is asked for again.
    pub fn drain(&mut self) {
        let phase = *self.phase.borrow();
        if phase >= Phase::Draining {
            return;
        }
        let delay = readiness_delay(&self.generation());
        if phase == Phase::Serving && !delay.is_zero() {
            self.drains_at = Instant::now().checked_add(delay);
            self.phase.send_replace(Phase::Leaving);
            let text = format_args!(
                "not ready any more, connections are still accepted for {delay:?}; another QUIT ends this"
            );
            return self.log(LogLevel::Notice, text);
        }
        self.drains_at = None;
        self.retire(&self.generation());
        self.end(Phase::Draining);
        // Of those that may still go over to another process, whoever gives them away knows when.
        if phase != Phase::Yielding && !self.holds_tunnels {
            self.begin_drains();
        }
    }

    fn begin_drains(&mut self) {
        self.is_undrained = false;
        let paces = |retired: &Retired| {
            let paces = draining::paces(&*retired.generation.upgrade()?, Beginning::Quit)?;
            Some((retired.number, retired.life.clone(), paces))
        };
        for (number, life, paces) in self.retired.iter().filter_map(paces).collect::<Vec<_>>() {
            self.drain_generation(number, &life, paces, Beginning::Quit);
        }
    }

    /// Leaves accepting to another process that has the same sockets: idle connections end, and this can be taken back by
    /// [`Proxy::resume`]. Tunnels go on: they can go over to it ([`Proxy::give_tunnels`]), or be drained
    /// ([`Proxy::drain_tunnels`]).
    pub fn give_way(&mut self) {
        if !self.is_serving() {
            return;
        }
        self.retire(&self.generation());
        self.environment.acme.rest();
        self.offered.send_replace(Vec::new());
        self.phase.send_replace(Phase::Yielding);
        self.is_undrained = true;
    }

    /// Closes the WebSockets that have remained here behind [`Proxy::give_way`] or [`Proxy::hold_tunnels`], at the pace of
    /// `websocket_drain` where there is one, as with [`Proxy::drain`].
    pub fn drain_tunnels(&mut self) {
        if self.is_undrained || self.holds_tunnels() {
            self.holds_tunnels = false;
            self.begin_drains();
        }
    }

    /// Has [`Proxy::drain`] leave tunnels as they are until [`Proxy::drain_tunnels`]: they are to be stored
    /// ([`Proxy::store_tunnels`]) when requests have been answered.
    pub fn hold_tunnels(&mut self) {
        // Whoever asks again takes nothing back.
        self.holds_tunnels |= *self.phase.borrow() < Phase::Draining;
    }

    /// Whether it drains, and leaves tunnels as they are.
    pub fn holds_tunnels(&self) -> bool {
        self.holds_tunnels && *self.phase.borrow() == Phase::Draining
    }

    /// Has somebody `keep` the tunnels that can go on in another process, in at most `most` descriptors; it waits for
    /// that. What is kept is not ours any more, and everything else is as before.
    pub fn store_tunnels(
        &self,
        most: usize,
        keep: &mut dyn FnMut(BorrowedFd<'_>) -> Result<(), String>,
    ) -> Stored {
        store::store(&self.posts(), most, crate::last_serial(), keep)
    }

    /// Goes on with the tunnels that were kept for us in these descriptors.
    ///
    /// # Errors
    /// When there cannot be a thread for it, or it cannot give up what it need not be able to do: they are closed then.
    pub fn take_up_tunnels(&self, kept: Vec<OwnedFd>) -> io::Result<TakenUp> {
        let posts = self.posts();
        let taking_up = thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
            privileges::drop_capabilities()?;
            Ok(store::take_up(&posts, kept))
        })?;
        taking_up.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }

    /// Gives the tunnels away that can go on in the process at the other end of this channel, as long as the answer is
    /// there.
    ///
    /// # Errors
    /// When there cannot be a thread for it.
    pub fn give_tunnels(&self, channel: OwnedFd) -> io::Result<Giving> {
        Giving::begin(self.posts(), channel, self.environment.files.notifier().clone())
    }

    /// Takes tunnels over from the process at the other end of this channel.
    ///
    /// # Errors
    /// When there cannot be a thread for it.
    pub fn take_tunnels(&self, channel: OwnedFd) -> io::Result<Taking> {
        let home = Home { phase: self.phase.subscribe(), newest: self.newest.subscribe() };
        Taking::begin(self.posts(), home, channel, self.environment.files.notifier().clone())
    }

    fn posts(&self) -> Vec<Post> {
        let post = |worker: &WorkerThread| Post {
            relay: worker.relay.clone(),
            errands: worker.errands.clone(),
        };
        self.workers.iter().map(post).collect()
    }

    /// Accepts again after [`Proxy::give_way`]. What was open then goes on ending if `websocket_drain` or
    /// `worker_shutdown_timeout` ends it already; what begins now does not end with it.
    pub fn resume(&mut self) {
        if *self.phase.borrow() != Phase::Yielding {
            return;
        }
        self.is_undrained = false;
        let generation = self.generation();
        let life = generation.life();
        let is_ending = life.has_expired() || life.draining().is_some();
        // Not by a reload: the files may have changed since, and be those of the new program.
        if is_ending {
            generation.revive();
            self.former.push((generation.number, life));
        }
        self.retired.retain(|retired| retired.number != generation.number);
        follow(&generation, &self.environment);
        self.phase.send_replace(Phase::Serving);
        self.offered.send_replace(self.listeners.all());
    }

    /// Whether it has left accepting to another process.
    pub fn is_yielding(&self) -> bool {
        *self.phase.borrow() == Phase::Yielding
    }

    /// The connections and tunnels that are open.
    pub fn open_connections(&self) -> u64 {
        self.context.metrics.total(|worker| worker.active.value())
    }

    /// Whether somebody who asked on the admin socket has no answer yet.
    pub fn is_answering(&self) -> bool {
        self.view.answers.are_in_use()
    }

    /// The tunnels that are open.
    pub fn open_tunnels(&self) -> u64 {
        self.context.metrics.total(|worker| worker.tunnels.value())
    }

    /// The sockets for whoever replaces us.
    pub fn sockets_to_leave(&self) -> Vec<LeftSocket<'_>> {
        self.listeners.to_leave()
    }

    /// Whether another process goes on with our sockets, so that the files of Unix sockets stay at the end.
    pub fn share_sockets(&mut self, is_shared: bool) {
        self.listeners.share(is_shared);
    }

    fn drain_generation(
        &self,
        number: u64,
        life: &Life,
        paces: Arc<[Option<Pace>]>,
        beginning: Beginning,
    ) {
        let drains = &self.view.drains;
        let (began, progress) = (Instant::now(), drains.new_progress());
        let draining =
            Draining { paces: Arc::clone(&paces), began, progress: Arc::clone(&progress) };
        let wanted = Wanted {
            what: format!("generation {number}"),
            by: None,
            paces: Paces::ByLocation(paces),
            over: draining.over(),
            words: None,
            // An operator who drains some over hours does not mean the server to live so long.
            takes_over: beginning == Beginning::Quit,
        };
        // First, so that a tunnel that is not among the relay's yet finds it.
        life.drain(Arc::new(draining));
        let whom = Whom::Selected(Selection::Generation(number));
        let relays = self.workers.iter().map(|worker| (&worker.relay, whom.clone()));
        drains.begin(wanted, progress, relays);
    }

    /// Closes everything at once.
    pub fn stop(&mut self) {
        self.drains_at = None;
        // First, so that who finds a generation expired from now on knows that this is why.
        self.end(Phase::Stopping);
        self.retire(&self.generation());
        let former = self.former.iter().map(|(_, life)| life);
        for life in self.retired.iter().map(|retired| &retired.life).chain(former) {
            life.expire();
        }
        for worker in &self.workers {
            // One that has ended has no tunnels.
            let _ = worker.relay.close(Selection::All, EndCause::Stopped);
        }
    }

    fn end(&mut self, phase: Phase) {
        // Who listens no more convinces no CA; another process may.
        self.environment.acme.rest();
        self.environment.watcher.rest();
        // Closing the workers' descriptors is not enough while we hold others of the same sockets.
        self.offered.send_replace(Vec::new());
        self.listeners.replace(Vec::new());
        self.phase.send_replace(phase);
    }

    /// Whether the last worker has ended.
    pub fn is_finished(&self) -> bool {
        self.workers.iter().all(WorkerThread::is_finished)
    }

    /// Readable when [`Proxy::maintain`] has something to do.
    pub fn wakeup(&self) -> BorrowedFd<'_> {
        self.environment.files.wakeup()
    }

    /// Does what is due: flushes logs, ends old generations, tells of those that have ended. The answer is
    /// when it must be called again, if the wake-up does not come before.
    pub fn maintain(&mut self, now: Instant) -> Option<Instant> {
        self.environment.files.clear_wakeup();
        for (level, text) in self.environment.files.losses() {
            self.log(level, text);
        }
        if self.drains_at.is_some_and(|at| at <= now) {
            self.drain();
        }
        let replacement = self.replace_dead_workers(now);
        self.expire(now);
        let current = self.current.load_full();
        let drains = self.view.drains.tell(now, |text| {
            current.logs.main().write(LogLevel::Notice, None, text);
        });
        drop(current);
        self.tell_ended();
        let flush = self.environment.files.flush_due(now);
        let expiry = self.retired.iter().filter_map(|retired| retired.expires_at).min();
        let due = flush.into_iter().chain(expiry).chain(replacement).chain(drains);
        due.chain(self.drains_at).min()
    }

    /// Starts a worker in the place of one that panicked, so that its sockets are accepted on. Its
    /// connections are lost. The answer is when those can be replaced that were so too lately.
    fn replace_dead_workers(&mut self, now: Instant) -> Option<Instant> {
        let dead = self.workers.iter().any(WorkerThread::is_finished);
        if !dead || *self.phase.borrow() >= Phase::Draining {
            return None;
        }
        // What made the last one panic may do the same to the next at once.
        if let Some(next) = self.replaced_at.map(|at| at + BETWEEN_REPLACEMENTS)
            && now < next
        {
            return Some(next);
        }
        self.replaced_at = Some(now);
        for id in 0..self.workers.len() {
            if !self.workers[id].is_finished() {
                continue;
            }
            self.log(LogLevel::Alert, format_args!("worker {id} panicked and is replaced"));
            match WorkerThread::start(id, self.context.clone()) {
                Ok(worker) => drop(std::mem::replace(&mut self.workers[id], worker)),
                Err(error) => {
                    let text = format!("starting worker {id} failed ({})", errno_text(&error));
                    self.log(LogLevel::Emerg, text);
                }
            }
        }
        self.show_relays();
        None
    }

    fn retire(&mut self, generation: &Arc<Generation>) {
        if self.retired.iter().any(|retired| retired.number == generation.number) {
            return;
        }
        let timeout = generation.config.core.worker_shutdown_timeout;
        self.retired.push(Retired {
            number: generation.number,
            generation: Arc::downgrade(generation),
            life: generation.life(),
            expires_at: timeout.map(|timeout| Instant::now() + timeout),
            ended: false,
        });
    }

    /// Ends the generations whose `worker_shutdown_timeout` is over.
    fn expire(&mut self, now: Instant) {
        let due = |retired: &&mut Retired| retired.expires_at.is_some_and(|at| at <= now);
        for retired in self.retired.iter_mut().filter(due) {
            retired.expires_at = None;
            // Those who have a tunnel wait for the relay, all others for the life.
            retired.life.expire();
            for (_, life) in self.former.extract_if(.., |(number, _)| *number == retired.number) {
                life.expire();
            }
            for worker in &self.workers {
                let selection = Selection::Generation(retired.number);
                let _ = worker.relay.close(selection, EndCause::Drained);
            }
        }
        let drains = *self.phase.borrow() == Phase::Draining;
        if drains && self.generation().life().has_expired() {
            self.end(Phase::Stopping);
        }
    }

    /// Writes nginx's line for each generation that nobody holds any more. Operators and scripts
    /// know it as the end of an old worker process.
    fn tell_ended(&mut self) {
        for retired in self.retired.iter_mut().filter(|retired| !retired.ended) {
            retired.ended = retired.generation.strong_count() == 0;
            if retired.ended {
                self.former.retain(|(number, _)| *number != retired.number);
                let (number, pid) = (retired.number, std::process::id());
                let text = format!(
                    "generation {number} ended: nothing uses it any more (worker process {pid} exited with \
                     code 0)"
                );
                self.current.load().logs.main().write(LogLevel::Notice, None, text);
            }
        }
        // Idle connections of an ended generation may still wait for its life to expire.
        self.retired.retain(|retired| !retired.ended || retired.expires_at.is_some());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
        for worker in self.workers.drain(..) {
            if !worker.join() {
                self.current.load().logs.main().write(LogLevel::Alert, None, "a worker panicked");
            }
        }
        self.environment.files.flush();
    }
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    u64::try_from(clock::unix_seconds()).unwrap_or(0)
}

/// How long after QUIT connections are still accepted.
fn readiness_delay(generation: &Generation) -> Duration {
    let locations = generation.config.http.iter().flat_map(|http| &http.locations);
    let delays = locations.filter_map(|location| match location.content {
        Content::Readiness(delay) => Some(delay),
        _ => None,
    });
    delays.max().unwrap_or_default()
}

fn sockets(generation: &Generation) -> &[ListenSocket] {
    generation.config.http.as_ref().map_or(&[], |http| &http.sockets)
}

fn open(
    listeners: &Listeners,
    generation: &Generation,
    workers: usize,
) -> Result<Vec<Arc<Listener>>, ListenError> {
    listeners.open(sockets(generation), workers, |error| {
        again(generation.logs.main(), error);
    })
}

/// Does from now on what a generation wants done beside its requests.
fn follow(generation: &Generation, environment: &Environment) {
    generation.upstreams.iter().for_each(|group| group.begin_checks());
    generation.follow_names(&environment.resolver_thread);
    environment.acme.follow(&generation.acme, generation.logs.main());
    generation.tls.watch(&environment.watcher, generation.logs.main());
}

fn again(log: &ErrorLog, error: &ListenError) {
    log.write(LogLevel::Notice, None, format_args!("{error}, trying again in 500ms"));
}

fn refusal(error: &ListenError, wanted: &[ListenSocket]) -> Diagnostic {
    let diagnostic = Diagnostic::error(error.to_string()).maybe_help(error.help());
    match wanted.iter().find(|wanted| wanted.address == error.address) {
        Some(wanted) => diagnostic.at(wanted.span, ""),
        None => diagnostic,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpStream;

    use wssgate_config::LoadOptions;
    use wssgate_config::model::LogTarget;

    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("user root; events {{}} http {{ access_log off; {text} }}");
        wssgate_config::load(&LoadOptions::text(text)).unwrap().config
    }

    fn start(directory: &tempfile::TempDir, text: &str) -> Proxy {
        let log = LogTarget::File(directory.path().join("error.log"));
        Proxy::start(config(text), Environment::new(log).unwrap()).unwrap()
    }

    #[test]
    fn a_worker_that_panicked_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let mut proxy = start(&directory, &format!("server {{ listen unix:{}; }}", path.display()));
        proxy.workers[0] = WorkerThread::panicked();
        let now = Instant::now();
        assert_eq!(proxy.maintain(now), None);
        assert!(!proxy.workers[0].is_finished());
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        proxy.workers[0] = WorkerThread::panicked();
        let next = proxy.maintain(now).unwrap();
        assert!(next > now && proxy.workers[0].is_finished(), "not twice in a second");
        proxy.maintain(next);
        assert!(!proxy.workers[0].is_finished());
    }

    #[test]
    fn a_proxy_that_is_dropped_listens_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let address = wssgate_testkit::free_addr();
        let proxy = start(&directory, &format!("server {{ listen {address}; }}"));
        assert_eq!(proxy.addresses(), [ListenAddr::Ip(address)]);
        assert!(TcpStream::connect(address).is_ok());
        drop(proxy);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_generation_that_nothing_holds_ends_with_the_reload() {
        let directory = tempfile::tempdir().unwrap();
        let mut proxy = start(&directory, "");
        assert!(proxy.reload(config("")).is_ok());
        assert_eq!(proxy.generation().number, 2);
        proxy.maintain(Instant::now());
        assert!(proxy.retired.is_empty());
    }

    #[test]
    fn a_generation_that_is_held_expires_in_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let mut proxy = start(&directory, "");
        let first = proxy.generation();
        let text = "user root; worker_shutdown_timeout 1h; events {}";
        let hour = wssgate_config::load(&LoadOptions::text(text)).unwrap().config;
        assert!(proxy.reload(hour).is_ok());
        let second = proxy.generation();
        assert!(proxy.reload(config("")).is_ok());
        let now = Instant::now();
        let due = proxy.maintain(now).unwrap();
        assert!(due > now && !second.life().has_expired());
        assert_eq!(proxy.maintain(due), None);
        assert!(second.life().has_expired() && !first.life().has_expired());
        drop((first, second));
        proxy.maintain(due);
        assert!(proxy.retired.is_empty());
    }
}
