//! The thread of a worker, from its start to its last connection.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{Duration, Instant};
use std::{io, thread};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, LocalSet};
use wssgate_config::model::{ListenAddr, LogLevel};
use wssgate_relay::reclaim::Trimming;
use wssgate_relay::{self as relay, Relay, RelayHandle, Report};
use wssgate_sys::privileges;

use super::accept::Accepting;
use super::errands::{self, Errand, Errands};
use super::reserve::Reserve;

use crate::auth::revocations::Revocations;
use crate::content::proxy::check;
use crate::dashboard::Desk;
use crate::front::reauth;
use crate::generation::Generation;
use crate::listen::Listener;
use crate::log::Notifier;
use crate::metrics::Metrics;
use crate::peers::{IdlePool, Shortages};
use crate::site::{Phase, Site};
use crate::tunnel::table::Tunnels;

/// How long the connections of a fast stop have to write their access lines.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What every worker is started with.
#[derive(Clone, Debug)]
pub(crate) struct WorkerContext {
    pub(crate) metrics: Metrics,
    pub(crate) current: Arc<ArcSwap<Generation>>,
    pub(crate) wanted_phase: watch::Receiver<Phase>,
    pub(crate) listeners: watch::Receiver<Vec<Arc<Listener>>>,
    pub(crate) desk: Desk,
    /// Whether relays use io_uring: it is wanted, and the kernel lets us.
    pub(crate) io_uring: Arc<AtomicBool>,
    /// The number of the newest generation.
    pub(crate) newest: watch::Receiver<u64>,
    /// See [`Site::unhealthy`].
    pub(crate) unhealthy: watch::Sender<()>,
    /// See [`Site::revocations`].
    pub(crate) revocations: Arc<Revocations>,
    /// Rung when the thread ends.
    pub(crate) notifier: Notifier,
}

/// A running worker thread, as the main thread knows it.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    pub(crate) relay: RelayHandle,
    /// The way to its front.
    pub(crate) errands: Errands,
    thread: thread::JoinHandle<()>,
    finished: Arc<AtomicBool>,
}

/// Says that a worker has ended, also when it panics, and then calls the main thread: the thread
/// itself is still there for a moment, so asking it could be too early.
struct Finish {
    finished: Arc<AtomicBool>,
    notifier: Notifier,
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.finished.store(true, Ordering::Release);
        self.notifier.notify();
    }
}

impl WorkerThread {
    /// Starts a worker and waits until it accepts.
    pub(crate) fn start(id: usize, context: WorkerContext) -> io::Result<Self> {
        let (ready, started) = std_mpsc::channel();
        let finished = Arc::<AtomicBool>::default();
        let (errands, received) = Errands::new();
        let finish = Finish { finished: Arc::clone(&finished), notifier: context.notifier.clone() };
        let thread = thread::Builder::new().name(format!("worker {id}")).spawn(move || {
            let _finish = finish;
            if let Err(error) = run(id, context, received, &ready) {
                let _ = ready.send(Err(error));
            }
        })?;
        let gone = || io::Error::other("the worker thread ended while it started");
        let relay = started.recv().map_err(|_| gone())??;
        Ok(Self { relay, errands, thread, finished })
    }

    /// Whether its last connection has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// A worker that has panicked.
    #[cfg(test)]
    pub(crate) fn panicked() -> Self {
        let relay =
            relay::start("test", relay::Settings::default(), Arc::default(), |_, _| {}, |_| {});
        let relay = relay.expect("a relay starts").handle();
        let thread = thread::spawn(|| panic!("as the test wants it"));
        let (errands, _) = Errands::new();
        Self { relay, errands, thread, finished: Arc::new(AtomicBool::new(true)) }
    }

    /// Waits for the thread; whether it ended as it should.
    pub(crate) fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

fn run(
    id: usize,
    context: WorkerContext,
    errands: mpsc::UnboundedReceiver<Errand>,
    ready: &std_mpsc::Sender<io::Result<RelayHandle>>,
) -> io::Result<()> {
    privileges::drop_capabilities()?;
    // Bounded by the tunnels there are: each ends once, and has little else to be told.
    let (told, reports) = mpsc::unbounded_channel();
    let io_uring = context.io_uring.load(Ordering::Relaxed);
    let settings = relay::Settings { io_uring, ..relay::Settings::default() };
    let on_report = move |ticket, report| {
        let _ = told.send((ticket, report));
    };
    let current = Arc::clone(&context.current);
    let on_refusal = move |error: &io::Error| {
        current.load().on_no_io_uring(&format!("relay {id} does not use io_uring"), error);
    };
    let counters = Arc::clone(&context.metrics.worker(id).relay);
    let relay = relay::start(&format!("relay {id}"), settings, counters, on_report, on_refusal)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let site = Rc::new(Site {
        id,
        metrics: Arc::clone(context.metrics.worker(id)),
        all_metrics: context.metrics,
        listeners: context.listeners.clone(),
        desk: Some(context.desk),
        current: context.current,
        wanted_phase: context.wanted_phase,
        idle_upstreams: IdlePool::new(),
        shortages: Shortages::default(),
        unhealthy: context.unhealthy,
        revocations: context.revocations,
        live: Rc::default(),
    });
    let mut front = Front {
        accepting: HashMap::new(),
        wanted_phase: site.wanted_phase.clone(),
        listeners: context.listeners,
        newest: context.newest,
        tunnels: Rc::new(Tunnels::new(relay.handle())),
        reserve: Rc::new(Reserve::new()),
        site,
    };
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        front.listen();
        let _ = ready.send(Ok(relay.handle()));
        front.work(reports, errands, relay).await;
    });
    Ok(())
}

/// The tasks of a worker, seen from the one that directs them.
struct Front {
    site: Rc<Site>,
    tunnels: Rc<Tunnels>,
    reserve: Rc<Reserve>,
    accepting: HashMap<ListenAddr, (Arc<Listener>, Vec<AbortHandle>)>,
    wanted_phase: watch::Receiver<Phase>,
    listeners: watch::Receiver<Vec<Arc<Listener>>>,
    newest: watch::Receiver<u64>,
}

impl Front {
    async fn work(
        &mut self,
        reports: mpsc::UnboundedReceiver<(u64, Report)>,
        errands: mpsc::UnboundedReceiver<Errand>,
        relay: Relay,
    ) {
        let mut telling = tokio::task::spawn_local(tell(reports, Rc::clone(&self.tunnels)));
        let tunnels = Rc::clone(&self.tunnels);
        tokio::task::spawn_local(async move { tunnels.wake_relay().await });
        tokio::task::spawn_local(end_tunnels(Rc::clone(&self.site), Rc::clone(&self.tunnels)));
        tokio::task::spawn_local(reauth::work(Rc::clone(&self.tunnels)));
        let (tunnels, site) = (Rc::clone(&self.tunnels), Rc::clone(&self.site));
        tokio::task::spawn_local(errands::run(errands, tunnels, site));
        if self.site.id == 0 {
            // Of all workers one is enough.
            tokio::task::spawn_local(check_peers(Rc::clone(&self.site), self.newest.clone()));
        }
        while *self.wanted_phase.borrow_and_update() < Phase::Draining {
            tokio::select! {
                () = self.next_order() => {}
                // Without its relay a worker is of no use; the main thread starts another one.
                _ = &mut telling => panic!("the relay thread is gone"),
            }
        }
        self.close_listeners();
        tokio::select! {
            () = self.site.live.ended() => {}
            () = self.site.reached(Phase::Stopping) => {}
        }
        // Ends every tunnel that is left, and tells it before the thread is gone. Those that were drained
        // finish their closing handshake, and nobody's task waits for that.
        let _ = tokio::task::spawn_blocking(|| relay.stop()).await;
        let _ = tokio::time::timeout(LAST_WORDS, async {
            self.site.live.ended().await;
            telling.await
        })
        .await;
    }

    async fn next_order(&mut self) {
        tokio::select! {
            changed = self.listeners.changed() => match changed {
                Ok(()) => self.listen(),
                Err(_) => self.site.reached(Phase::Draining).await,
            },
            _ = self.wanted_phase.changed() => {}
        }
    }

    /// Accepts on exactly the sockets that the main thread has open.
    fn listen(&mut self) {
        let wanted = self.listeners.borrow_and_update().clone();
        self.accepting.retain(|_, (listener, tasks)| {
            let stays = wanted.iter().any(|wanted| Arc::ptr_eq(wanted, listener));
            if !stays {
                tasks.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        for listener in wanted {
            if !self.accepting.contains_key(&listener.address)
                && let Err(error) = self.accept_on(&listener)
            {
                let address = &listener.address;
                let text = format!("cannot accept on {address} ({})", crate::errno_text(&error));
                self.site.generation().logs.main().write(LogLevel::Crit, None, text);
            }
        }
    }

    fn accept_on(&mut self, listener: &Arc<Listener>) -> io::Result<()> {
        let accept = |socket| {
            let accepting = Accepting {
                site: Rc::clone(&self.site),
                tunnels: Rc::clone(&self.tunnels),
                reserve: Rc::clone(&self.reserve),
                address: listener.address.clone(),
            };
            tokio::task::spawn_local(accepting.run(socket)).abort_handle()
        };
        let tasks = listener.for_worker(self.site.id)?.into_iter().map(accept).collect();
        self.accepting.insert(listener.address.clone(), (Arc::clone(listener), tasks));
        Ok(())
    }

    fn close_listeners(&mut self) {
        for (_, (_, tasks)) in self.accepting.drain() {
            tasks.iter().for_each(AbortHandle::abort);
        }
    }
}

/// Passes on what the relay tells, until it has stopped. After many ends their memory goes back to
/// the system.
async fn tell(mut reports: mpsc::UnboundedReceiver<(u64, Report)>, tunnels: Rc<Tunnels>) {
    let mut trimming = Trimming::default();
    loop {
        tokio::select! {
            biased;
            told = reports.recv() => {
                let Some((ticket, report)) = told else { return };
                tunnels.tell(ticket, report);
                trimming.note(tunnels.count(), Instant::now());
            }
            () = at(trimming.due()) => trimming.trim(),
        }
    }
}

/// Ends the tunnels of peers that have become unhealthy, where that is wanted.
async fn end_tunnels(site: Rc<Site>, tunnels: Rc<Tunnels>) {
    let mut unhealthy = site.unhealthy.subscribe();
    while unhealthy.changed().await.is_ok() {
        tunnels.end_those_of_unhealthy_peers();
    }
}

/// Asks the peers of the newest generation whether they are well, until nothing is accepted any more.
async fn check_peers(site: Rc<Site>, mut newest: watch::Receiver<u64>) {
    let checking = async {
        loop {
            newest.borrow_and_update();
            let checks = check::begin(&site);
            if newest.changed().await.is_err() {
                return;
            }
            drop(checks);
        }
    };
    tokio::select! {
        () = checking => {}
        () = site.reached(Phase::Draining) => {}
    }
}

/// Resolves at a time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;
    use std::net::{TcpListener, TcpStream};
    use std::task::Poll;

    use tokio::io::AsyncReadExt;

    use super::*;
    use wssgate_relay::{Handover, Leg, Origin, Protocol, Settings, Timers};

    /// A connected pair on loopback.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (far, listener.accept().unwrap().0)
    }

    /// A runtime that always has something to do never parks, and asks for events only in passing.
    #[test]
    fn a_front_that_is_never_idle_wakes_its_relay_all_the_same() {
        let relay =
            relay::start("test", Settings::default(), Arc::default(), |_, _| {}, |_| {}).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_client, near_client) = pair();
        let (upstream, near_upstream) = pair();
        upstream.set_nonblocking(true).unwrap();
        let handover = Handover {
            ticket: 0,
            origin: Origin::default(),
            client: Leg::plain(near_client, b"hello".to_vec()),
            upstream: Leg::plain(near_upstream, Vec::new()),
            protocol: Protocol::Other,
            timers: Timers::default(),
            buffer_size: 4096,
            label: None,
        };
        let mut hello = [0; 5];
        LocalSet::new().block_on(&runtime, async {
            let tunnels = Rc::new(Tunnels::new(relay.handle()));
            let waking = Rc::clone(&tunnels);
            tokio::task::spawn_local(async move { waking.wake_relay().await });
            for _ in 0..200 {
                tokio::task::spawn_local(poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    Poll::<()>::Pending
                }));
            }
            tunnels.hand_over(handover).unwrap();
            let mut upstream = tokio::net::TcpStream::from_std(upstream).unwrap();
            let read = upstream.read_exact(&mut hello);
            tokio::time::timeout(Duration::from_secs(30), read).await.unwrap().unwrap();
        });
        assert_eq!(&hello, b"hello");
        relay.stop().unwrap();
    }
}
