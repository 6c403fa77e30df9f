//! Tunnels between scripted peers on loopback. The engine is stepped by the test, so that the order of
//! things is the test's.
#![allow(clippy::unwrap_used)]

mod bounds;
mod closing;
mod counted;
mod crowd;
mod drain;
mod held;
mod keep_alive;
mod listed;
mod moved;
mod peer;
mod plain;
mod resets;
mod secure;
mod tapped;
mod time;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use wssgate_ws::{CloseCode, conversation};

use super::engine::Engine;
use super::thread::{MAX_UNWOKEN, Shared};
use super::*;
use peer::Peer;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine that moves when it is told to.
struct Rig {
    engine: Engine,
    /// The engine's time, which only its steps move.
    now: Duration,
    handle: RelayHandle,
    ends: mpsc::Receiver<(u64, TunnelEnd)>,
    /// What was told besides.
    reports: mpsc::Receiver<(u64, Report)>,
    /// Why io_uring was not used.
    refusals: mpsc::Receiver<std::io::ErrorKind>,
    next_ticket: u64,
}

impl Rig {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let (sender, commands) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let (told, reports) = mpsc::channel();
        let shared = Arc::new(Shared::new(Arc::default(), settings.tls_record_limit).unwrap());
        let on_report = Box::new(move |ticket, report| match report {
            Report::End(end) => ended.send((ticket, *end)).unwrap(),
            other => told.send((ticket, other)).unwrap(),
        });
        let (refused, refusals) = mpsc::channel();
        let on_refusal =
            Box::new(move |error: &std::io::Error| refused.send(error.kind()).unwrap());
        let engine =
            Engine::new(settings, commands, Arc::clone(&shared), on_report, on_refusal).unwrap();
        let handle = RelayHandle::new(sender, shared);
        Self { engine, now: Duration::ZERO, handle, ends, reports, refusals, next_ticket: 0 }
    }

    /// Hands over a tunnel and takes it into the engine.
    fn hand_over(&mut self, edit: impl FnOnce(&mut Handover)) -> (Peer, Peer) {
        let (client, near_client) = peer::tcp_pair();
        let (upstream, near_upstream) = peer::tcp_pair();
        let mut handover = Handover {
            ticket: self.next_ticket,
            origin: Origin::default(),
            client: Leg::plain(near_client, Vec::new()),
            upstream: Leg::plain(near_upstream, Vec::new()),
            protocol: Protocol::Other,
            timers: Timers::default(),
            buffer_size: 4096,
            label: None,
        };
        self.next_ticket += 1;
        edit(&mut handover);
        self.handle.hand_over(handover).unwrap();
        self.handle.wake();
        self.step();
        (Peer::new(client), Peer::new(upstream))
    }

    fn tunnel(&mut self) -> (Peer, Peer) {
        self.hand_over(|_| {})
    }

    /// A step of a millisecond, however long the kernel's events take.
    fn step(&mut self) {
        self.engine.wait(self.now, Some(Duration::from_millis(5))).unwrap();
        self.now += Duration::from_millis(1);
        self.engine.step(self.now);
    }

    /// Lets so much time go by at once.
    fn pass(&mut self, time: Duration) {
        self.engine.wait(self.now, Some(Duration::ZERO)).unwrap();
        self.now += time;
        self.engine.step(self.now);
    }

    /// Lets time go by until a tunnel ends.
    fn pass_until_end(&mut self) -> TunnelEnd {
        let end = self.now + Duration::from_secs(1_000);
        loop {
            self.pass(Duration::from_millis(1));
            if let Ok((_, end)) = self.ends.try_recv() {
                return end;
            }
            assert!(self.now < end, "no tunnel ended");
        }
    }

    fn sleep(&self) -> Duration {
        self.engine.sleep(self.now).unwrap()
    }

    /// Steps until `done` says so.
    fn until(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < PATIENCE, "{what} did not happen");
            self.step();
        }
    }

    /// Steps until a tunnel ends.
    fn end(&mut self) -> TunnelEnd {
        let begin = Instant::now();
        loop {
            if let Ok((_, end)) = self.ends.try_recv() {
                return end;
            }
            assert!(begin.elapsed() < PATIENCE, "no tunnel ended");
            self.step();
        }
    }

    /// Steps until `to` has received `expected` more bytes, and looks at them.
    fn expect(&mut self, to: &mut Peer, expected: &[u8]) {
        self.until("bytes", || {
            to.poll();
            to.received.len() >= expected.len() || to.ended
        });
        assert_eq!(to.received.len(), expected.len());
        assert!(to.received == expected);
        to.received.clear();
    }

    /// Sends all of `bytes`, however slowly they go.
    fn pour(&mut self, from: &mut Peer, bytes: &[u8], to: &mut Peer) {
        let mut left = bytes;
        self.until("bytes", || {
            left = &left[from.send_some(left)..];
            to.poll();
            to.received.len() >= bytes.len()
        });
        assert!(to.received == bytes);
        to.received.clear();
    }

    fn expect_end(&mut self, of: &mut Peer) {
        self.until("end", || {
            of.poll();
            of.ended
        });
        assert!(of.received.is_empty(), "{} bytes before the end", of.received.len());
    }
}

/// Bytes without a short period, so that loss and reordering show.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
