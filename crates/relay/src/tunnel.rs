//! One tunnel: two legs, and a flow of bytes in each direction.
//!
//! Every way of ending is made of the ends of flows: a tunnel is over when both are closed. So whatever
//! a side sent before it ended or broke still arrives, and half-close needs no case of its own.

mod ending;
pub(crate) mod state;

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use wssgate_records::{TlsFault, sealed_len};
use wssgate_sys::epoll::Event;
use wssgate_sys::socket::{self, Received, Sent};
use wssgate_ws::conversation::{Insert, Notes, end_of};
use wssgate_ws::{ControlFrame, Conversation, OwnFrame, Verdict};

use crate::buffers::{Buffer, BufferRange, Buffers, INPUT_SIZE};
use crate::counters::Counters;
use crate::deadlines::millis;
use crate::drain::Memberships;
use crate::flow::{Flow, FlowState};
use crate::leg::{Leg, SendError, SourceEnd};
use crate::listing::{Handle, Label, Live};
use crate::tap::{Observer, Tap};
use crate::{EndCause, Handover, Origin, Progress, Protocol, Side, Timers, Totals, TunnelEnd};

/// An established tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) ticket: u64,
    pub(crate) origin: Origin,
    label: Option<Label>,
    /// Those of its relay.
    counters: Arc<Counters>,
    client: Leg,
    upstream: Leg,
    /// From the client to the upstream.
    up: Flow,
    /// From the upstream to the client.
    down: Flow,
    /// What is said in a WebSocket; none in a tunnel of other things.
    conversation: Option<Conversation>,
    timers: TimersMs,
    /// What few tunnels have.
    rare: Option<Box<Rare>>,
    began_ms: u64,
    /// When bytes last moved, in either direction, or a direction ended.
    active_ms: u64,
    cause: Option<EndCause>,
    /// Its conversation has changed: its entry among the deadlines may be too late.
    rearm: bool,
    /// It cannot move to another process.
    pub(crate) stays: bool,
    /// The number by which another process was told of it, if it was.
    announcement: Option<NonZeroU32>,
    /// It is still as that said.
    is_as_announced: bool,
    /// It stands in the queue of those who want a turn.
    pub(crate) queued: bool,
    /// It is in the list of those with expanded keys.
    pub(crate) expanded: bool,
    /// The drains that it belongs to.
    pub(crate) drains: Memberships,
    /// When its entry among the deadlines fires.
    pub(crate) armed_ms: u64,
    /// That entry was made or looked at while the tunnel was quiescent.
    pub(crate) armed_quiescent: bool,
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
        Self {
            read: millis(timers.read),
            upstream_send: millis(timers.upstream_send),
            client_send: millis(timers.client_send),
            half_close: millis(timers.half_close),
        }
    }
}

/// What few tunnels have, or only for a while.
#[derive(Debug, Default)]
struct Rare {
    /// When it tells next what has passed, if it does so by itself.
    telling: Option<Telling>,
    /// Who looks at its frames.
    taps: Vec<Observer>,
    /// What was announced last.
    #[cfg(debug_assertions)]
    announced: Option<state::Announced>,
}

/// When a tunnel tells what has passed.
#[derive(Debug, Clone, Copy)]
struct Telling {
    interval_ms: u64,
    due_ms: u64,
}

impl Telling {
    fn new(interval: Option<Duration>, ticket: u64, now_ms: u64) -> Option<Self> {
        let interval_ms = Some(millis(interval?)).filter(|&ms| ms > 0)?;
        // Fibonacci hashing: tickets are small numbers, and neighbours come to lie far apart.
        let part = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let first_ms = (u128::from(interval_ms) * u128::from(part)) >> 32;
        let due_ms = end_of(now_ms, first_ms as u64);
        Some(Self { interval_ms, due_ms })
    }
}

/// Windows up to this share the buffers with those of other tunnels.
const GROUP_WINDOW: usize = 16 * 1024;

/// What one read brings, on its way through a tunnel.
///
/// The steps are apart so that those of many tunnels can be taken together: that spares ways into the
/// kernel, and the code of each step stays in the processor's cache.
#[derive(Debug)]
pub(crate) struct Transfer {
    source: Side,
    /// How much is asked for.
    window: usize,
    /// Where it comes to stand, behind room for the front of a record.
    wire: BufferRange,
    /// How much came.
    moved: usize,
    /// How the direction ends behind it, if it does.
    end: Option<SourceEnd>,
    /// What becomes of the bytes of the protocol inside.
    verdict: Verdict,
    /// How many of them go out as they are.
    plain_len: usize,
    /// Those, sealed; with a frame of our own among them all, not sealed yet.
    sealed: BufferRange,
    /// What came of sending them, if that was tried.
    pub(crate) sent: Option<io::Result<Sent>>,
    /// Why they are not among what goes out.
    fault: Option<TlsFault>,
}

impl Transfer {
    pub(crate) fn source(&self) -> Side {
        self.source
    }

    /// Where bytes are to be read to.
    pub(crate) fn slot(&self) -> BufferRange {
        BufferRange { start: self.wire.start + self.wire.len, len: self.window, ..self.wire }
    }

    /// What goes out.
    pub(crate) fn sealed(&self) -> BufferRange {
        self.sealed
    }
}

impl Tunnel {
    /// Takes over what the front has finished, and sends on what it had read ahead.
    pub(crate) fn new(
        handover: Handover,
        counters: Arc<Counters>,
        buffers: &mut Buffers,
        record_limit: u64,
        now_ms: u64,
    ) -> Self {
        let Handover { client, upstream, protocol, .. } = handover;
        // Not so large that every transfer would be alone.
        let buffer_size = handover.buffer_size.clamp(1, GROUP_WINDOW);
        let leg = |socket, unix, tls, side| Leg::new(socket, unix, tls, side, record_limit);
        let mut tunnel = Self {
            ticket: handover.ticket,
            origin: handover.origin,
            label: handover.label,
            counters,
            client: leg(client.socket, client.unix, client.tls, Side::Client),
            upstream: leg(upstream.socket, upstream.unix, upstream.tls, Side::Upstream),
            up: Flow::new(buffer_size),
            down: Flow::new(buffer_size),
            conversation: match protocol {
                Protocol::WebSocket(settings) => Some(Conversation::new(&settings, now_ms)),
                Protocol::Other => None,
            },
            rare: Telling::new(handover.timers.progress, handover.ticket, now_ms)
                .map(|telling| Box::new(Rare { telling: Some(telling), ..Rare::default() })),
            timers: handover.timers.into(),
            began_ms: now_ms,
            active_ms: now_ms,
            cause: None,
            rearm: false,
            stays: false,
            announcement: None,
            is_as_announced: false,
            queued: false,
            expanded: false,
            drains: Memberships::default(),
            armed_ms: u64::MAX,
            armed_quiescent: false,
        };
        tunnel.client.keep_unsent(&client.unsent, now_ms);
        tunnel.upstream.keep_unsent(&upstream.unsent, now_ms);
        for (side, plaintext, ciphertext, ended) in [
            (Side::Client, client.plaintext, client.ciphertext, client.ended),
            (Side::Upstream, upstream.plaintext, upstream.ciphertext, upstream.ended),
        ] {
            tunnel.send_ahead(side, &plaintext, buffers.output.free(), now_ms);
            let (opened, end) = tunnel.leg_mut(side).open_ahead(&ciphertext, now_ms);
            tunnel.send_ahead(side, &opened, buffers.output.free(), now_ms);
            let end = if ended { Some(SourceEnd::Orderly) } else { end };
            if let Some(end) = end {
                tunnel.on_source_end(side, end, now_ms);
            }
        }
        tunnel.obey_conversation(now_ms);
        tunnel
    }

    pub(crate) fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    pub(crate) fn leg_mut(&mut self, side: Side) -> &mut Leg {
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

    pub(crate) fn on_event(&mut self, side: Side, event: Event) {
        self.leg_mut(side).on_event(event);
    }

    /// Begins a turn with a transfer, if there is something to read and not so much that its bytes alone
    /// fill the processor's cache.
    pub(crate) fn begin_turn(&mut self, buffers: &mut Buffers) -> Option<Transfer> {
        let source =
            [Side::Client, Side::Upstream].into_iter().find(|&side| self.may_read(side))?;
        (self.flow_from(source).window() <= GROUP_WINDOW).then(|| self.begin(source, buffers))
    }

    /// Carries up to `budget` bytes in each direction, first those of the transfer that has started: they
    /// may be on the wire already, so nothing may come before the rest of them.
    pub(crate) fn turn(
        &mut self,
        started: Option<Transfer>,
        buffers: &mut Buffers,
        budget: usize,
        now_ms: u64,
    ) {
        let started = started.map(|transfer| {
            let source = transfer.source;
            (source, self.complete(transfer, buffers, now_ms))
        });
        for source in [Side::Client, Side::Upstream] {
            let moved = started.filter(|&(side, _)| side == source).map_or(0, |(_, moved)| moved);
            self.pump(source, moved, buffers, budget, now_ms);
        }
        for side in [Side::Client, Side::Upstream] {
            self.check_failure(side, now_ms);
        }
        self.obey_conversation(now_ms);
        self.end_if_told(now_ms);
    }

    /// Does what the conversation has come to want meanwhile.
    #[inline]
    fn obey_conversation(&mut self, now_ms: u64) {
        if self.conversation.as_mut().is_some_and(Conversation::take_changed) {
            self.on_change(now_ms);
        }
    }

    #[cold]
    fn on_change(&mut self, now_ms: u64) {
        self.rearm = true;
        if let Some(cause) = self.conversation.as_ref().and_then(Conversation::cause) {
            self.set_cause(cause.into());
        }
        self.send_frames(now_ms);
    }

    /// What its conversation has found since the last time, if anything.
    pub(crate) fn take_notes(&mut self) -> Option<Notes> {
        // With every note the conversation says that it has changed.
        let conversation = self.conversation.as_mut().filter(|_| self.rearm)?;
        let notes = conversation.take_notes();
        (notes != Notes::default()).then_some(notes)
    }

    /// Whether its entry among the deadlines may have become too late; told once.
    pub(crate) fn take_rearm(&mut self) -> bool {
        std::mem::take(&mut self.rearm)
    }

    /// A side that is not read, for now or any more, can only be seen to break.
    fn check_failure(&mut self, side: Side, now_ms: u64) {
        if self.reads(side) {
            return;
        }
        if let Some(error) = self.leg_mut(side).failure() {
            self.on_unwritable(side, &error, now_ms);
        }
    }

    /// Whether another turn would move bytes without another event.
    pub(crate) fn wants_turn(&self) -> bool {
        [Side::Client, Side::Upstream].into_iter().any(|source| {
            let (from, to) = (self.leg(source), self.leg(source.other()));
            match self.flow_from(source).state {
                FlowState::Open if !to.blocked() => from.readable() && !self.pauses(source),
                FlowState::Open => to.writable() || self.withholds(source) && from.readable(),
                FlowState::Draining => !to.blocked() || to.writable(),
                FlowState::Closed => false,
            }
        })
    }

    /// Both directions are finished.
    pub(crate) fn is_over(&self) -> bool {
        is_over(&self.up, &self.down)
    }

    /// It may be another than was told of it.
    pub(crate) fn touch(&mut self) {
        self.is_as_announced = false;
    }

    fn pump(
        &mut self,
        source: Side,
        mut moved: usize,
        buffers: &mut Buffers,
        budget: usize,
        now_ms: u64,
    ) {
        if self.flow_from(source).state == FlowState::Closed {
            return;
        }
        self.flush(source.other(), now_ms);
        while moved < budget && self.may_read(source) {
            moved += self.transfer_alone(source, buffers, now_ms);
        }
        self.flow_from_mut(source).decay_window(moved);
        self.finish(source);
    }

    fn may_read(&self, source: Side) -> bool {
        self.reads(source) && self.leg(source).readable()
    }

    /// Whether bytes of this side are wanted: there is room for them, or they go nowhere.
    fn reads(&self, source: Side) -> bool {
        self.flow_from(source).state == FlowState::Open
            && (!self.leg(source.other()).blocked() || self.withholds(source))
            && !self.pauses(source)
    }

    /// Whether this side has sent too much for this moment, and is not read. One that has hung up is read once all
    /// the same: mostly that finds its end, which its upstream should know of. More that it had sent has to wait.
    pub(super) fn pauses(&self, source: Side) -> bool {
        self.has_to_wait(source) && !self.leg(source).may_be_at_end()
    }

    fn has_to_wait(&self, source: Side) -> bool {
        self.conversation.as_ref().is_some_and(|conversation| conversation.pauses(source.into()))
    }

    fn withholds(&self, source: Side) -> bool {
        self.conversation.as_ref().is_some_and(|conversation| conversation.withholds(source.into()))
    }

    /// A whole transfer; says how many bytes came.
    fn transfer_alone(&mut self, source: Side, buffers: &mut Buffers, now_ms: u64) -> usize {
        let mark = buffers.mark();
        let mut transfer = self.begin(source, buffers);
        let socket = self.leg(source).fd();
        let received = socket::recv(socket, buffers.input.bytes_mut(transfer.slot()));
        self.on_read(&mut transfer, received);
        self.convert(&mut transfer, buffers, now_ms);
        let moved = self.complete(transfer, buffers, now_ms);
        buffers.release(mark);
        moved
    }

    /// The first step of a transfer: where bytes may go.
    fn begin(&mut self, source: Side, buffers: &mut Buffers) -> Transfer {
        let window = self.flow_from(source).window();
        if self.has_to_wait(source) {
            self.leg_mut(source).look_for_end();
        }
        let leg = self.leg(source);
        let waiting = leg.unopened_len();
        let start = buffers.input.alloc(waiting + window);
        let wire = BufferRange { buffer: Buffer::Input, start, len: waiting };
        Transfer {
            source,
            window,
            wire,
            moved: 0,
            end: None,
            verdict: Verdict::Pass,
            plain_len: 0,
            sealed: wire,
            sent: None,
            fault: None,
        }
    }

    /// The second: what a `recv` into its slot brought.
    pub(crate) fn on_read(&mut self, transfer: &mut Transfer, received: io::Result<Received>) {
        if let Ok(Received::Bytes(n)) = received {
            transfer.moved = n;
            transfer.wire.len += n;
        }
        transfer.end = self.leg_mut(transfer.source).on_read(transfer.window, received);
    }

    /// The third: open, count, seal.
    pub(crate) fn convert(&mut self, transfer: &mut Transfer, buffers: &mut Buffers, now_ms: u64) {
        if transfer.moved == 0 {
            return;
        }
        let source = transfer.source;
        let (plain, end) = self.leg_mut(source).open(transfer.wire, buffers, now_ms);
        transfer.end = end;
        transfer.verdict = self.inspect(source, buffers.bytes(plain), now_ms);
        match transfer.verdict {
            Verdict::Pass if plain.len > 0 => {
                transfer.plain_len = plain.len;
                (transfer.sealed, transfer.fault) =
                    self.leg_mut(source.other()).seal(plain, buffers);
            }
            Verdict::Pass | Verdict::Withhold => {}
            Verdict::Inject { .. } | Verdict::Part { .. } => transfer.sealed = plain,
        }
    }

    /// Notes bytes of one side; says what becomes of them.
    // As a call of its own it costs every message some 40 instructions more.
    #[inline(always)]
    fn inspect(&mut self, source: Side, plain: &[u8], now_ms: u64) -> Verdict {
        self.flow_from_mut(source).received += plain.len() as u64;
        self.counters.side(source).bytes.add(plain.len() as u64);
        if self.rare.is_some() {
            self.observe(source, plain, now_ms);
        }
        self.judge(source, plain, now_ms)
    }

    /// Shows bytes of this side to those who look at its frames.
    #[cold]
    fn observe(&mut self, source: Side, plain: &[u8], now_ms: u64) {
        if let Some(rare) = &mut self.rare {
            rare.taps.retain_mut(|tap| tap.on_bytes(source, plain, now_ms));
        }
    }

    #[inline(always)]
    fn judge(&mut self, source: Side, plain: &[u8], now_ms: u64) -> Verdict {
        let Some(conversation) = &mut self.conversation else { return Verdict::Pass };
        let from = source.into();
        let before = conversation.counts(from);
        let verdict = conversation.on_bytes(from, plain, now_ms);
        self.counters.side(source).add(&before, &conversation.counts(from));
        verdict
    }

    /// The socket that takes the bytes of a transfer, if they can go at once.
    pub(crate) fn destination(&self, transfer: &Transfer) -> Option<BorrowedFd<'_>> {
        let to = self.leg(transfer.source.other());
        (transfer.plain_len > 0 && transfer.sealed.len > 0 && to.takes_bytes()).then(|| to.fd())
    }

    /// The last: send what was not sent yet, and what follows from all. Says how many bytes came.
    fn complete(&mut self, transfer: Transfer, buffers: &mut Buffers, now_ms: u64) -> usize {
        let Transfer {
            source, window, moved, end, verdict, plain_len, sealed, sent, fault, ..
        } = transfer;
        // What goes nowhere keeps nothing alive.
        if moved > 0 && verdict != Verdict::Withhold {
            self.active_ms = now_ms;
        }
        if plain_len > 0 {
            let sent = self.leg_mut(source.other()).send(buffers.bytes(sealed), sent, now_ms);
            match (sent, fault) {
                (Ok(()), None) => self.flow_from_mut(source).passed += plain_len as u64,
                (Ok(()), Some(fault)) => self.on_exhausted_keys(source.other(), fault, now_ms),
                (Err(error), _) => self.on_unwritable(source.other(), &error, now_ms),
            }
        }
        if let Verdict::Inject { .. } | Verdict::Part { .. } = verdict {
            let Buffers { input, plain, output } = buffers;
            let from = if sealed.buffer == Buffer::Input { input } else { plain };
            self.send_on(source, from.bytes(sealed), verdict, output.free(), now_ms);
        }
        if let Some(end) = end {
            self.on_source_end(source, end, now_ms);
        }
        let blocked = self.leg(source.other()).blocked();
        self.flow_from_mut(source).adapt_window(moved == window, blocked);
        moved
    }

    /// Sends bytes of one side on to the other.
    fn send_ahead(&mut self, source: Side, plain: &[u8], output: &mut [u8], now_ms: u64) {
        let verdict = self.inspect(source, plain, now_ms);
        self.send_on(source, plain, verdict, output, now_ms);
    }

    /// Sends of these bytes what passes, and what belongs between them.
    fn send_on(
        &mut self,
        source: Side,
        mut plain: &[u8],
        mut verdict: Verdict,
        output: &mut [u8],
        now_ms: u64,
    ) {
        loop {
            match verdict {
                Verdict::Pass => return self.transmit(source, plain, output, now_ms),
                Verdict::Withhold => return,
                Verdict::Inject { at, frame } => {
                    self.transmit(source, &plain[..at], output, now_ms);
                    self.send_frame(source.other(), frame, now_ms);
                    if !self.withholds(source) {
                        self.transmit(source, &plain[at..], output, now_ms);
                    }
                    return;
                }
                Verdict::Part { pass, insert, skip } => {
                    self.transmit(source, &plain[..pass], output, now_ms);
                    match insert {
                        Some(Insert::Frame(frame)) => {
                            self.send_frame(source.other(), frame, now_ms)
                        }
                        Some(Insert::Held(held)) => self.transmit(source, &held, output, now_ms),
                        None => {}
                    }
                    plain = &plain[pass + skip..];
                    if plain.is_empty() {
                        return;
                    }
                    verdict = self.judge(source, plain, now_ms);
                }
            }
        }
    }

    /// Sends bytes that go from one side to the other.
    fn transmit(&mut self, source: Side, plain: &[u8], output: &mut [u8], now_ms: u64) {
        // More than a turn's worth comes only with a hand-over.
        for part in plain.chunks(INPUT_SIZE) {
            if self.flow_from(source).state != FlowState::Open {
                return;
            }
            match self.leg_mut(source.other()).transmit(part, output, now_ms) {
                Ok(()) => self.flow_from_mut(source).passed += part.len() as u64,
                Err(SendError::Broken(error)) => self.on_unwritable(source.other(), &error, now_ms),
                Err(SendError::Fault(fault)) => {
                    self.on_exhausted_keys(source.other(), fault, now_ms)
                }
            }
        }
    }

    /// Sends a frame of our own.
    fn send_frame(&mut self, to: Side, frame: OwnFrame, now_ms: u64) {
        let mask = match to {
            Side::Client => None,
            Side::Upstream => {
                let mut mask = [0; 4];
                if aws_lc_rs::rand::fill(&mut mask).is_err() {
                    return;
                }
                Some(mask)
            }
        };
        let mut output = [0; sealed_len(size_of::<ControlFrame>())];
        let frame = match &self.conversation {
            Some(conversation) => conversation.encode(to.into(), frame, mask),
            None => frame.encode(mask),
        };
        if let Some(rare) = &mut self.rare {
            rare.taps.iter_mut().for_each(|tap| tap.on_own(to, &frame, now_ms));
        }
        self.transmit(to.other(), &frame, &mut output, now_ms);
    }

    /// Sends the frames of our own that need not wait.
    fn send_frames(&mut self, now_ms: u64) {
        for to in [Side::Client, Side::Upstream] {
            let Some(conversation) = &mut self.conversation else { return };
            if let Some(frame) = conversation.poll_frame(to.into(), now_ms) {
                self.send_frame(to, frame, now_ms);
            }
        }
    }

    fn flush(&mut self, side: Side, now_ms: u64) {
        let leg = self.leg_mut(side);
        let before = leg.unsent_len();
        match leg.flush(now_ms) {
            Ok(()) if leg.unsent_len() < before => {
                self.active_ms = now_ms;
                if let Some(conversation) = &mut self.conversation {
                    conversation.on_sent(now_ms);
                }
            }
            Ok(()) => {}
            Err(error) => self.on_unwritable(side, &error, now_ms),
        }
    }

    /// Whether it holds expanded keys.
    pub(crate) fn has_expanded_keys(&self) -> bool {
        self.client.has_expanded_keys() || self.upstream.has_expanded_keys()
    }

    /// Drops expanded keys if nothing has moved since `before_ms`; says whether it did.
    pub(crate) fn compact_if_idle(&mut self, before_ms: u64) -> bool {
        let idle = self.active_ms <= before_ms;
        if idle {
            self.client.compact();
            self.upstream.compact();
        }
        idle
    }

    /// The sockets whose peers may still send something.
    pub(crate) fn into_lingering(self) -> impl Iterator<Item = OwnedFd> {
        [self.client, self.upstream].into_iter().filter_map(Leg::into_lingering)
    }

    /// How it ended, at `now_ms`.
    pub(crate) fn end(&self, now_ms: u64) -> TunnelEnd {
        let Progress { duration, first_close, client, upstream } = self.progress(now_ms);
        let cause = self.cause.unwrap_or(EndCause::Stopped);
        TunnelEnd { cause, duration, first_close, client, upstream }
    }

    /// What has passed, at `now_ms`.
    pub(crate) fn progress(&self, now_ms: u64) -> Progress {
        let conversation = self.conversation.as_ref();
        Progress {
            duration: Duration::from_millis(now_ms.saturating_sub(self.began_ms)),
            first_close: conversation.and_then(Conversation::first_close).map(Side::from),
            client: self.totals(Side::Client, now_ms),
            upstream: self.totals(Side::Upstream, now_ms),
        }
    }

    /// It has no place in a relay any more, and gets another one.
    pub(crate) fn forget_place(&mut self) {
        self.queued = false;
        self.expanded = false;
        self.armed_ms = u64::MAX;
        self.armed_quiescent = false;
        self.client.forget_interest();
        self.upstream.forget_interest();
    }

    pub(crate) fn label(&self) -> Option<&Label> {
        self.label.as_ref()
    }

    /// What a listing tells of it.
    pub(crate) fn live(&self, key: usize, now_ms: u64) -> Option<Live> {
        let passed = self.progress(now_ms);
        let is_half_closed = self.up.state != FlowState::Open || self.down.state != FlowState::Open;
        let has_closed = passed.client.close.is_some() || passed.upstream.close.is_some();
        // Pongs that answer our own pings say nothing of the application.
        let data_ms = self.conversation.as_ref().and_then(Conversation::data_ms);
        let said_ms = data_ms.unwrap_or(self.active_ms);
        Some(Live {
            handle: Handle::new(key, self.label.as_ref()?),
            generation: self.origin.generation,
            is_websocket: self.conversation.is_some(),
            idle: Duration::from_millis(now_ms.saturating_sub(said_ms)),
            is_ending: is_half_closed || has_closed || self.is_closing(),
            is_closing: self.is_closing(),
            passed,
        })
    }

    /// What has passed, if that is to be told at `now_ms`.
    pub(crate) fn take_progress(&mut self, now_ms: u64) -> Option<Progress> {
        let telling = self.rare.as_mut()?.telling.as_mut();
        let telling = telling.filter(|telling| telling.due_ms <= now_ms)?;
        telling.due_ms = end_of(now_ms, telling.interval_ms);
        Some(self.progress(now_ms))
    }

    /// Begins to look at its frames for a tap; says whether it has any.
    pub(crate) fn tap(&mut self, tap: &Arc<Tap>, label: &Label, max_payload: usize) -> bool {
        let Some(conversation) = &self.conversation else { return false };
        let under_way = |side: Side| conversation.under_way(side.into()).into();
        let observer = Observer::new(Arc::clone(tap), label.clone(), max_payload, under_way);
        self.rare.get_or_insert_default().taps.push(observer);
        true
    }

    /// Ends to look at them for the tap with this number.
    pub(crate) fn untap(&mut self, number: u64) {
        self.rare.iter_mut().for_each(|rare| rare.taps.retain(|tap| !tap.is_of(number)));
        self.rare.take_if(|rare| rare.telling.is_none() && rare.taps.is_empty());
    }

    /// Tells those who look that this is the end.
    pub(crate) fn end_taps(&mut self, now_ms: u64) {
        let taps = self.rare.as_mut().map(|rare| std::mem::take(&mut rare.taps));
        taps.into_iter().flatten().for_each(|tap| tap.end(now_ms));
    }

    /// How long bytes had to wait for the client and for the upstream, without waits that go on.
    pub(crate) fn past_blocked_ms(&self) -> [u64; 2] {
        [&self.client, &self.upstream].map(Leg::past_blocked_ms)
    }

    /// How long a side took to answer our last ping.
    pub(crate) fn rtt(&self, side: Side) -> Option<Duration> {
        let rtt_ms = self.conversation.as_ref()?.rtt_ms(side.into())?;
        Some(Duration::from_millis(rtt_ms.into()))
    }

    #[cfg(test)]
    pub(crate) fn conversation_mut(&mut self) -> Option<&mut Conversation> {
        self.conversation.as_mut()
    }

    #[cfg(test)]
    pub(crate) fn kind(&self) -> [bool; 3] {
        let tls = |leg: &Leg| leg.has_records();
        [tls(&self.client), tls(&self.upstream), self.conversation.is_some()]
    }

    #[cfg(test)]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.client.kept_bytes() + self.upstream.kept_bytes()
    }

    fn totals(&self, side: Side, now_ms: u64) -> Totals {
        let flow = self.flow_from(side);
        let passed = self.flow_from(side.other()).passed;
        let unsent = self.leg(side).unsent_len() as u64;
        let totals = Totals {
            received: flow.received,
            sent: passed.saturating_sub(unsent),
            truncated: flow.truncated,
            blocked: Duration::from_millis(self.leg(side).blocked_ms(now_ms)),
            ..Totals::default()
        };
        match &self.conversation {
            Some(conversation) => Totals {
                frames: Some(conversation.counts(side.into())),
                close: conversation.close_code(side.into()),
                close_reason: conversation.close_reason(side.into()).into(),
                own_close: conversation.own_close(side.into()),
                own_reason: conversation.own_reason(side.into()).into(),
                rtt: self.rtt(side),
                broken: conversation.broken(side.into()),
                ..totals
            },
            None => totals,
        }
    }
}

fn is_over(up: &Flow, down: &Flow) -> bool {
    up.state == FlowState::Closed && down.state == FlowState::Closed
}
