//! Clients that hold one WebSocket each over TLS, use it, and connect again when it ends.
//!
//! - When its WebSocket has ended, be it by a Close or by a cut, a client connects again after a random
//!   part of [`JITTER`], and offers the last TLS ticket that it has.
//! - When it is refused with `Retry-After`, it waits that long and a random part of [`JITTER`].
//! - When a handshake fails otherwise, it waits as [`delay`] says.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wssgate_ws::{Opcode, close, handshake};

use super::frames::{Frame, Incoming, ONE_OF, answer, frame, request};
use crate::certificate::{self, HOST, Tickets};
use crate::retry::{Random, delay};
use crate::upgrade::{field, read_head};

/// The longest that a client waits before it connects again.
pub(super) const JITTER: Duration = Duration::from_secs(1);

/// How often a client sends a message.
const PERIOD: Duration = Duration::from_secs(2);

/// How long a handshake may take (the default of Socket.IO).
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a client waits for the end of the connection after a Close.
const LINGER: Duration = Duration::from_secs(2);

/// Between the first attempts of two clients.
const SPREAD: Duration = Duration::from_millis(2);

/// The mask of every frame; what it hides from does not exist here.
const MASK: Option<[u8; 4]> = Some([0x57, 0x53, 0x53, 0x21]);

/// How a WebSocket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A Close with this code stood between two frames, and nothing followed it.
    Closed(u16),
    /// The connection ended between two frames, without a Close.
    Cut,
    /// The connection ended inside a frame.
    InFrame,
    /// What came is no WebSocket, no answer, or followed a Close.
    Broken,
}

/// The end of a WebSocket.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// When the Close or else the end of the connection came.
    pub(super) at: Instant,
    pub(super) ending: Ending,
    /// Whether only a part of a message had come.
    pub(super) in_message: bool,
    /// Whether a message had been sent and its answer had not come, or not all of it.
    pub(super) unanswered: bool,
}

/// What became of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Granted {
        /// By a TLS ticket.
        resumed: bool,
    },
    /// With a time to come again.
    Refused(Duration),
    Failed,
}

/// A handshake that was tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) entry: Entry,
}

/// What clients did.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) attempts: Vec<Attempt>,
    pub(super) ends: Vec<End>,
    /// How long each client was away that has been back.
    pub(super) away: Vec<Duration>,
}

#[derive(Default)]
struct Log {
    history: RefCell<History>,
    connected: Cell<usize>,
    /// Clients whose WebSocket has ended at least once.
    ended: Cell<usize>,
    changed: Notify,
}

/// Clients at work until this is dropped.
pub(super) struct Clients {
    log: Rc<Log>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts so many clients of these addresses.
    pub(super) fn start(count: usize, addresses: &[SocketAddr]) -> io::Result<Self> {
        let log = Rc::new(Log::default());
        let template = certificate::client(Tickets::Used, None)?;
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let start = |index: usize| {
            // A device has tickets of its own, for one server.
            let mut config = ClientConfig::clone(&template);
            config.resumption = Resumption::in_memory_sessions(8);
            let client = Client {
                address: addresses[index % addresses.len()],
                connector: TlsConnector::from(Arc::new(config)),
                name: name.clone(),
                log: Rc::clone(&log),
                // The same for every proxy.
                random: Random(index as u64 + 1),
                left_at: None,
            };
            spawn_local(async move {
                sleep(SPREAD * u32::try_from(index).unwrap_or(u32::MAX)).await;
                client.run().await;
            })
        };
        Ok(Self { tasks: (0..count).map(start).collect(), log })
    }

    pub(super) async fn until_all_are_connected(&self) {
        while self.log.connected.get() < self.tasks.len() {
            self.log.changed.notified().await;
        }
    }

    /// Every WebSocket has ended once, and every client has a new one.
    pub(super) async fn until_all_are_back(&self) {
        while self.log.ended.get() < self.tasks.len() {
            self.log.changed.notified().await;
        }
        self.until_all_are_connected().await;
    }

    pub(super) fn connected(&self) -> usize {
        self.log.connected.get()
    }

    /// How many clients' WebSocket has ended at least once.
    pub(super) fn ended(&self) -> usize {
        self.log.ended.get()
    }

    pub(super) fn forget_history(&self) {
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
    address: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
    log: Rc<Log>,
    random: Random,
    /// When its last WebSocket ended.
    left_at: Option<Instant>,
}

type Stream = TlsStream<TcpStream>;

impl Client {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let opened = timeout(PATIENCE, self.open()).await;
            let opened = opened.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
            let (entry, stream) = opened.unwrap_or((Entry::Failed, None));
            let attempt = Attempt { began, ended: Instant::now(), entry };
            self.log.history.borrow_mut().attempts.push(attempt);
            let jitter = JITTER.mul_f64(self.random.share());
            let wait = match (entry, stream) {
                (_, Some(stream)) => {
                    failures = 0;
                    self.stay(stream, attempt.ended).await;
                    jitter
                }
                (Entry::Refused(time), None) => time + jitter,
                (_, None) => {
                    failures += 1;
                    delay(failures - 1, &mut self.random)
                }
            };
            sleep(wait).await;
        }
    }

    async fn open(&mut self) -> io::Result<(Entry, Option<Stream>)> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut stream = self.connector.connect(self.name.clone(), stream).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let key = handshake::encode_key(*b"the sample nonce");
        let request = handshake::encode_request("/", HOST, &key, &[]);
        stream.write_all(&request).await?;
        let head = read_head(&mut stream).await?;
        if head.starts_with("HTTP/1.1 101 ") {
            return Ok((Entry::Granted { resumed }, Some(stream)));
        }
        let seconds = field(&head, "retry-after").and_then(|seconds| seconds.parse().ok());
        let refused = seconds.map(|seconds| Entry::Refused(Duration::from_secs(seconds)));
        Ok((refused.unwrap_or(Entry::Failed), None))
    }

    /// Keeps the WebSocket until it ends.
    async fn stay(&mut self, stream: Stream, now: Instant) {
        let is_first = self.left_at.is_none();
        if let Some(left_at) = self.left_at.take() {
            self.log.history.borrow_mut().away.push(now - left_at);
        }
        self.log.connected.set(self.log.connected.get() + 1);
        self.log.changed.notify_waiters();
        let end = self.converse(stream).await;
        self.left_at = Some(end.at);
        self.log.history.borrow_mut().ends.push(end);
        self.log.connected.set(self.log.connected.get() - 1);
        if is_first {
            self.log.ended.set(self.log.ended.get() + 1);
        }
        self.log.changed.notify_waiters();
    }

    async fn converse(&mut self, mut stream: Stream) -> End {
        let mut incoming = Incoming::default();
        // Somewhere between two messages, and between two long answers.
        let mut number = self.random.next() % ONE_OF;
        let mut due = Instant::now() + PERIOD.mul_f64(self.random.share());
        let mut waits = false;
        let mut buffer = vec![0; 4096];
        let end = |ending, incoming: &Incoming, unanswered| {
            let in_message = incoming.is_in_message() || incoming.is_in_frame();
            End { at: Instant::now(), ending, in_message, unanswered }
        };
        loop {
            let read = tokio::select! {
                read = stream.read(&mut buffer) => read,
                () = sleep_until(due.into()), if !waits => {
                    waits = true;
                    due += PERIOD;
                    // Whether it fails is seen by what can be read.
                    let _ = send(&mut stream, Opcode::Binary, &request(number)).await;
                    continue;
                }
            };
            let Ok(count @ 1..) = read else {
                let ending = if incoming.is_in_frame() { Ending::InFrame } else { Ending::Cut };
                return end(ending, &incoming, waits);
            };
            incoming.push(&buffer[..count]);
            loop {
                match incoming.next() {
                    Ok(None) => break,
                    Ok(Some(Frame::Message(message))) if waits && message == answer(number) => {
                        waits = false;
                        number += 1;
                    }
                    Ok(Some(Frame::Ping(payload))) => {
                        let _ = send(&mut stream, Opcode::Pong, &payload).await;
                    }
                    Ok(Some(Frame::Fragment | Frame::Pong)) => {}
                    Ok(Some(Frame::Close(payload))) => {
                        let Ok(Some((code, _))) = close::decode(&payload) else {
                            return end(Ending::Broken, &incoming, waits);
                        };
                        let end = end(Ending::Closed(code.0), &incoming, waits);
                        let is_last = !incoming.is_in_frame() && leave(stream, &payload).await;
                        return if is_last { end } else { End { ending: Ending::Broken, ..end } };
                    }
                    Ok(Some(Frame::Message(_))) | Err(_) => {
                        return end(Ending::Broken, &incoming, waits);
                    }
                }
            }
        }
    }
}

/// Answers a Close and waits for the end of the connection; whether nothing else came.
async fn leave(mut stream: Stream, payload: &[u8]) -> bool {
    let _ = send(&mut stream, Opcode::Close, payload).await;
    let read = timeout(LINGER, stream.read(&mut [0; 16])).await;
    !matches!(read, Ok(Ok(1..)))
}

async fn send(stream: &mut Stream, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
    stream.write_all(&frame(opcode, true, MASK, payload)).await?;
    stream.flush().await
}
