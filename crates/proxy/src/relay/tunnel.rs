//! One tunnel: two legs, and a flow of bytes in each direction.
//!
//! A flow is `Open` ──the source ends──▶ `Draining` ──all is sent──▶ `Closed`, and it is `Closed` at
//! once when its destination breaks. Every way of ending is made of that: a tunnel is over when both its
//! flows are closed, and its cause is what happened first. So whatever a side sent before it ended or
//! broke still arrives, and half-close needs no case of its own.

use std::io;

use wssgate_sys::epoll::Event;
use wssgate_sys::socket::Received;

use super::leg::Leg;
use super::{EndCause, Handover, READ_SIZE, Side, Timers, Totals};

/// Working memory of the relay thread, lent to the tunnel that has its turn.
pub(super) struct Buffers {
    /// Bytes as they came from the wire.
    input: Box<[u8]>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { input: vec![0; READ_SIZE].into_boxed_slice() }
    }
}

/// An established tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) ticket: u64,
    pub(super) generation: u64,
    client: Leg,
    upstream: Leg,
    /// From the client to the upstream.
    up: Flow,
    /// From the upstream to the client.
    down: Flow,
    timers: TimersMs,
    /// The least that is read at once.
    buffer_size: usize,
    began_ms: u64,
    /// When bytes last moved, in either direction.
    active_ms: u64,
    cause: Option<EndCause>,
    /// It stands in the queue of those who want a turn.
    pub(super) queued: bool,
    /// When its entry among the deadlines fires.
    pub(super) armed_ms: u64,
}

/// One direction.
#[derive(Debug)]
struct Flow {
    state: FlowState,
    /// How much is read at once: doubled while the destination takes it all, `buffer_size` once it
    /// did not.
    window: usize,
    received: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlowState {
    Open,
    /// The source has ended; what was read is still being sent.
    Draining,
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct TimersMs {
    read: u64,
    upstream_send: u64,
    client_send: u64,
    half_close: u64,
}

impl From<Timers> for TimersMs {
    fn from(timers: Timers) -> Self {
        let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            read: ms(timers.read),
            upstream_send: ms(timers.upstream_send),
            client_send: ms(timers.client_send),
            half_close: ms(timers.half_close),
        }
    }
}

/// A moment at which a tunnel ends if nothing moves until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at_ms: u64,
    /// The whole wait, which says how exact the moment must be.
    pub(super) wait_ms: u64,
    pub(super) cause: EndCause,
}

impl Tunnel {
    /// Takes over what the front has finished; its read-ahead goes on with the first turn.
    pub(super) fn new(handover: Handover, now_ms: u64) -> Self {
        let Handover { ticket, generation, client, upstream, timers, buffer_size, .. } = handover;
        let buffer_size = buffer_size.clamp(1, READ_SIZE);
        let mut tunnel = Self {
            ticket,
            generation,
            client: Leg::new(client.socket),
            upstream: Leg::new(upstream.socket),
            up: Flow::new(buffer_size),
            down: Flow::new(buffer_size),
            timers: timers.into(),
            buffer_size,
            began_ms: now_ms,
            active_ms: now_ms,
            cause: None,
            queued: false,
            armed_ms: u64::MAX,
        };
        for (side, plaintext, ended) in [
            (Side::Client, client.plaintext, client.ended),
            (Side::Upstream, upstream.plaintext, upstream.ended),
        ] {
            if !plaintext.is_empty() {
                tunnel.deliver(side, &plaintext, now_ms);
            }
            if ended {
                tunnel.on_source_end(side, EndCause::Ended(side));
            }
        }
        tunnel
    }

    pub(super) fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    fn leg_mut(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }

    fn flow_from(&self, side: Side) -> &Flow {
        match side {
            Side::Client => &self.up,
            Side::Upstream => &self.down,
        }
    }

    fn flow_from_mut(&mut self, side: Side) -> &mut Flow {
        match side {
            Side::Client => &mut self.up,
            Side::Upstream => &mut self.down,
        }
    }

    pub(super) fn on_event(&mut self, side: Side, event: Event) {
        self.leg_mut(side).on_event(event);
    }

    /// Carries up to `budget` bytes in each direction.
    pub(super) fn turn(&mut self, buffers: &mut Buffers, budget: usize, now_ms: u64) {
        self.carry(Side::Client, buffers, budget, now_ms);
        self.carry(Side::Upstream, buffers, budget, now_ms);
    }

    /// Whether another turn would move bytes without another event.
    pub(super) fn wants_turn(&self) -> bool {
        [Side::Client, Side::Upstream].into_iter().any(|source| {
            let (from, to) = (self.leg(source), self.leg(source.other()));
            match self.flow_from(source).state {
                FlowState::Open if to.blocked() => to.writable(),
                FlowState::Open => from.readable(),
                FlowState::Draining => to.writable(),
                FlowState::Closed => false,
            }
        })
    }

    /// Both directions are finished.
    pub(super) fn is_over(&self) -> bool {
        self.up.state == FlowState::Closed && self.down.state == FlowState::Closed
    }

    fn carry(&mut self, source: Side, buffers: &mut Buffers, budget: usize, now_ms: u64) {
        if self.flow_from(source).state == FlowState::Closed {
            return;
        }
        self.flush(source.other(), now_ms);
        let mut moved = 0;
        while moved < budget && self.may_read(source) {
            moved += self.read_once(source, buffers, now_ms);
        }
        self.finish(source);
    }

    fn may_read(&self, source: Side) -> bool {
        self.flow_from(source).state == FlowState::Open
            && !self.leg(source.other()).blocked()
            && self.leg(source).readable()
    }

    /// One `recv` and what follows from it; says how many bytes it was.
    fn read_once(&mut self, source: Side, buffers: &mut Buffers, now_ms: u64) -> usize {
        let window = self.flow_from(source).window;
        let input = &mut buffers.input[..window];
        match self.leg_mut(source).read(input) {
            Ok(Received::Bytes(n)) => {
                self.deliver(source, &input[..n], now_ms);
                self.adapt_window(source, n == window);
                n
            }
            Ok(Received::Blocked) => 0,
            Ok(Received::End) => {
                self.on_source_end(source, EndCause::Ended(source));
                0
            }
            Err(error) => {
                self.on_broken(source, &error);
                0
            }
        }
    }

    /// Sends bytes of one side on to the other.
    fn deliver(&mut self, source: Side, bytes: &[u8], now_ms: u64) {
        self.active_ms = now_ms;
        self.flow_from_mut(source).received += bytes.len() as u64;
        if let Err(error) = self.leg_mut(source.other()).write(bytes, now_ms) {
            self.on_unwritable(source.other(), &error);
        }
    }

    fn adapt_window(&mut self, source: Side, filled: bool) {
        let blocked = self.leg(source.other()).blocked();
        let least = self.buffer_size;
        let flow = self.flow_from_mut(source);
        if blocked {
            flow.window = least;
        } else if filled {
            flow.window = (flow.window * 2).min(READ_SIZE);
        }
    }

    fn flush(&mut self, side: Side, now_ms: u64) {
        let leg = self.leg_mut(side);
        let before = leg.unsent_len();
        match leg.flush(now_ms) {
            Ok(()) if leg.unsent_len() < before => self.active_ms = now_ms,
            Ok(()) => {}
            Err(error) => self.on_unwritable(side, &error),
        }
    }

    /// A drained flow ends its destination's direction.
    fn finish(&mut self, source: Side) {
        let to = self.leg(source.other());
        if self.flow_from(source).state == FlowState::Draining && !to.blocked() {
            to.shut_down();
            self.flow_from_mut(source).state = FlowState::Closed;
        }
    }

    fn on_source_end(&mut self, source: Side, cause: EndCause) {
        self.cause.get_or_insert(cause);
        let flow = self.flow_from_mut(source);
        if flow.state == FlowState::Open {
            flow.state = FlowState::Draining;
        }
    }

    /// A socket is broken both ways: what it sent is still carried, nothing more reaches it.
    fn on_broken(&mut self, side: Side, error: &io::Error) {
        self.on_source_end(side, EndCause::Broken(side, errno(error)));
        self.leg_mut(side).give_up_sending();
        self.flow_from_mut(side.other()).state = FlowState::Closed;
    }

    /// Nothing more reaches this side; what it sent before may still be there to read.
    fn on_unwritable(&mut self, side: Side, error: &io::Error) {
        self.cause.get_or_insert(EndCause::Broken(side, errno(error)));
        self.leg_mut(side).give_up_sending();
        self.flow_from_mut(side.other()).state = FlowState::Closed;
    }

    /// When this tunnel must end if nothing moves.
    pub(super) fn due(&self) -> Option<Due> {
        let half_closed = self.up.state != FlowState::Open || self.down.state != FlowState::Open;
        let waits = [
            // While the client takes nothing, the upstream is not read, so its silence says nothing.
            (!self.client.blocked()).then(|| {
                let (wait_ms, cause) = if half_closed {
                    (self.timers.half_close, EndCause::HalfCloseTimeout)
                } else {
                    (self.timers.read, EndCause::ReadTimeout)
                };
                Due { at_ms: self.active_ms.saturating_add(wait_ms), wait_ms, cause }
            }),
            self.send_due(Side::Client, self.timers.client_send),
            self.send_due(Side::Upstream, self.timers.upstream_send),
        ];
        waits.into_iter().flatten().min_by_key(|due| due.at_ms)
    }

    fn send_due(&self, side: Side, wait_ms: u64) -> Option<Due> {
        let leg = self.leg(side);
        leg.blocked().then(|| Due {
            at_ms: leg.progress_ms().saturating_add(wait_ms),
            wait_ms,
            cause: EndCause::SendTimeout(side),
        })
    }

    /// Ends it now for a reason that is not its peers'.
    pub(super) fn close(&mut self, cause: EndCause) {
        self.cause.get_or_insert(cause);
        self.up.state = FlowState::Closed;
        self.down.state = FlowState::Closed;
    }

    pub(super) fn end(&self, now_ms: u64) -> super::TunnelEnd {
        super::TunnelEnd {
            cause: self.cause.unwrap_or(EndCause::Stopped),
            duration: std::time::Duration::from_millis(now_ms.saturating_sub(self.began_ms)),
            client: self.totals(Side::Client),
            upstream: self.totals(Side::Upstream),
        }
    }

    fn totals(&self, side: Side) -> Totals {
        let arrived = self.flow_from(side.other()).received;
        Totals {
            received: self.flow_from(side).received,
            sent: arrived.saturating_sub(self.leg(side).unsent_len() as u64),
        }
    }
}

impl Flow {
    fn new(window: usize) -> Self {
        Self { state: FlowState::Open, window, received: 0 }
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
