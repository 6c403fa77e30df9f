//! Clients that want one WebSocket each and connect again whenever it ends, after a [`delay`].

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use wssgate_ws::handshake;

use crate::retry::{Random, delay};
use crate::upgrade::read_head;

/// How long a handshake may take (the default of Socket.IO).
const PATIENCE: Duration = Duration::from_secs(20);

/// Between the first attempts of two clients.
const SPREAD: Duration = Duration::from_millis(1);

/// Where clients connect to.
#[derive(Clone, Debug)]
pub(super) enum Targets {
    /// A proxy.
    One(SocketAddr),
    /// Any of the servers, as a name with several addresses or a list in the client has it.
    Any(Vec<SocketAddr>),
}

/// A handshake that was tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) succeeded: bool,
}

/// What clients did: handshakes, and how many were connected from when on.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) attempts: Vec<Attempt>,
    pub(super) connected: Vec<(Instant, usize)>,
}

#[derive(Default)]
struct Log {
    history: RefCell<History>,
    connected: Cell<usize>,
    changed: Notify,
}

impl Log {
    fn change(&self, connected: usize) {
        self.connected.set(connected);
        self.history.borrow_mut().connected.push((Instant::now(), connected));
        self.changed.notify_waiters();
    }
}

/// Clients at work until this is dropped.
pub(super) struct Clients {
    log: Rc<Log>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(super) fn start(count: usize, targets: Targets) -> Self {
        let log = Rc::new(Log::default());
        let targets = Rc::new(targets);
        let start = |index: usize| {
            let client = Client {
                targets: Rc::clone(&targets),
                log: Rc::clone(&log),
                // The same for every proxy.
                random: Random(index as u64 + 1),
            };
            spawn_local(async move {
                sleep(SPREAD * u32::try_from(index).unwrap_or(u32::MAX)).await;
                client.run().await;
            })
        };
        Self { tasks: (0..count).map(start).collect(), log }
    }

    pub(super) async fn until_all_are_connected(&self) {
        while self.log.connected.get() < self.tasks.len() {
            self.log.changed.notified().await;
        }
    }

    pub(super) fn forget_attempts(&self) {
        *self.log.history.borrow_mut() = History::default();
    }

    pub(super) fn history(&self) -> History {
        self.log.history.borrow().clone()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Client {
    targets: Rc<Targets>,
    log: Rc<Log>,
    random: Random,
}

impl Client {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let address = self.address();
            let began = Instant::now();
            let opened = timeout(PATIENCE, open(address)).await;
            let opened = opened.ok().and_then(Result::ok);
            let attempt = Attempt { began, ended: Instant::now(), succeeded: opened.is_some() };
            self.log.history.borrow_mut().attempts.push(attempt);
            if let Some(mut stream) = opened {
                failures = 0;
                self.log.change(self.log.connected.get() + 1);
                while matches!(stream.read(&mut [0; 512]).await, Ok(1..)) {}
                self.log.change(self.log.connected.get() - 1);
            }
            sleep(delay(failures, &mut self.random)).await;
            failures += 1;
        }
    }

    fn address(&mut self) -> SocketAddr {
        match &*self.targets {
            Targets::One(address) => *address,
            Targets::Any(addresses) => addresses[self.random.next() as usize % addresses.len()],
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let key = handshake::encode_key(*b"the sample nonce");
    let request = handshake::encode_request("/", "localhost", &key, &[]);
    stream.write_all(&request).await?;
    match read_head(&mut stream).await?.starts_with("HTTP/1.1 101 ") {
        true => Ok(stream),
        false => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}
