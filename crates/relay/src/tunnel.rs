//! One tunnel: two legs, and a flow of bytes in each direction.
//!
//! Every way of ending is made of the ends of flows: a tunnel is over when both are closed. So whatever
//! a side sent before it ended or broke still arrives, and half-close needs no case of its own.

mod ending;

use std::io;
use std::os::fd::BorrowedFd;

use wssgate_records::{TlsFault, sealed_len};
use wssgate_sys::epoll::Event;
use wssgate_sys::socket::{self, Received, Sent};
use wssgate_ws::{ControlFrame, Conversation, OwnFrame, Verdict};

use crate::buffers::{Buffers, INPUT_SIZE, Place, Stretch};
use crate::flow::{Flow, FlowState};
use crate::leg::{Leg, SendError, SourceEnd};
use crate::{EndCause, Handover, Protocol, Side, Timers, Totals, TunnelEnd};

/// An established tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) ticket: u64,
    pub(crate) generation: u64,
    client: Leg,
    upstream: Leg,
    /// From the client to the upstream.
    up: Flow,
    /// From the upstream to the client.
    down: Flow,
    /// What is said in a WebSocket; none in a tunnel of other things.
    conversation: Option<Conversation>,
    timers: TimersMs,
    began_ms: u64,
    /// When bytes last moved, in either direction, or a direction ended.
    active_ms: u64,
    cause: Option<EndCause>,
    /// It stands in the queue of those who want a turn.
    pub(crate) queued: bool,
    /// It stands in the list of those with expanded keys.
    pub(crate) awake: bool,
    /// When its entry among the deadlines fires.
    pub(crate) armed_ms: u64,
    /// That entry was made or looked at while the tunnel was calm.
    pub(crate) armed_calm: bool,
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

/// Windows up to this share the buffers with those of other tunnels.
const WINDOW_TOGETHER: usize = 16 * 1024;

/// What one read brings, on its way through a tunnel.
///
/// The steps are apart so that those of many tunnels can be taken together: that spares ways into the
/// kernel, and the code of each step stays in the processor's cache.
#[derive(Debug)]
pub(crate) struct Passage {
    source: Side,
    /// How much is asked for.
    window: usize,
    /// Where it comes to stand, behind room for the front of a record.
    wire: Stretch,
    /// How much came.
    moved: usize,
    /// How the direction ends behind it, if it does.
    end: Option<SourceEnd>,
    /// What becomes of the bytes of the protocol inside.
    verdict: Verdict,
    /// How many of them go out as they are.
    text: usize,
    /// Those, sealed; with a frame of our own among them all, not sealed yet.
    sealed: Stretch,
    /// What came of sending them, if that was tried.
    pub(crate) sent: Option<io::Result<Sent>>,
    /// Why they are not among what goes out.
    fault: Option<TlsFault>,
}

impl Passage {
    pub(crate) fn source(&self) -> Side {
        self.source
    }

    /// Where bytes are to be read to.
    pub(crate) fn slot(&self) -> Stretch {
        Stretch { start: self.wire.start + self.wire.len, len: self.window, ..self.wire }
    }

    /// What goes out.
    pub(crate) fn sealed(&self) -> Stretch {
        self.sealed
    }
}

impl Tunnel {
    /// Takes over what the front has finished, and sends on what it had read ahead.
    pub(crate) fn new(
        handover: Handover,
        buffers: &mut Buffers,
        record_limit: u64,
        now_ms: u64,
    ) -> Self {
        let Handover { client, upstream, protocol, .. } = handover;
        // Not so large that every passage would be alone.
        let buffer_size = handover.buffer_size.clamp(1, WINDOW_TOGETHER);
        let leg = |socket, unix, tls, side| Leg::new(socket, unix, tls, side, record_limit);
        let mut tunnel = Self {
            ticket: handover.ticket,
            generation: handover.generation,
            client: leg(client.socket, client.unix, client.tls, Side::Client),
            upstream: leg(upstream.socket, upstream.unix, upstream.tls, Side::Upstream),
            up: Flow::new(buffer_size),
            down: Flow::new(buffer_size),
            conversation: match protocol {
                Protocol::WebSocket(extensions) => Some(Conversation::new(extensions)),
                Protocol::Other => None,
            },
            timers: handover.timers.into(),
            began_ms: now_ms,
            active_ms: now_ms,
            cause: None,
            queued: false,
            awake: false,
            armed_ms: u64::MAX,
            armed_calm: false,
        };
        for (side, plaintext, ciphertext, ended) in [
            (Side::Client, client.plaintext, client.ciphertext, client.ended),
            (Side::Upstream, upstream.plaintext, upstream.ciphertext, upstream.ended),
        ] {
            tunnel.deliver(side, &plaintext, buffers.output.free(), now_ms);
            let (opened, end) = tunnel.leg_mut(side).open_ahead(&ciphertext);
            tunnel.deliver(side, &opened, buffers.output.free(), now_ms);
            let end = if ended { Some(SourceEnd::Orderly) } else { end };
            if let Some(end) = end {
                tunnel.on_source_end(side, end, now_ms);
            }
        }
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

    /// Begins a turn with a passage, if there is something to read and not so much that its bytes alone
    /// fill the processor's cache.
    pub(crate) fn begin_turn(&mut self, buffers: &mut Buffers) -> Option<Passage> {
        let source =
            [Side::Client, Side::Upstream].into_iter().find(|&side| self.may_read(side))?;
        (self.flow_from(source).window() <= WINDOW_TOGETHER).then(|| self.begin(source, buffers))
    }

    /// Carries up to `budget` bytes in each direction, first those of the passage that has begun: they
    /// may be on the wire already, so nothing may come before the rest of them.
    pub(crate) fn turn(
        &mut self,
        begun: Option<Passage>,
        buffers: &mut Buffers,
        budget: usize,
        now_ms: u64,
    ) {
        let begun = begun.map(|passage| {
            let source = passage.source;
            (source, self.complete(passage, buffers, now_ms))
        });
        for source in [Side::Client, Side::Upstream] {
            let moved = begun.filter(|&(side, _)| side == source).map_or(0, |(_, moved)| moved);
            self.carry(source, moved, buffers, budget, now_ms);
        }
        for side in [Side::Client, Side::Upstream] {
            self.notice_failure(side, now_ms);
        }
        self.end_if_answered(now_ms);
    }

    /// A side that is not read, for now or any more, can only be seen to break.
    fn notice_failure(&mut self, side: Side, now_ms: u64) {
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
                FlowState::Open if !to.blocked() => from.readable(),
                FlowState::Open => to.writable() || self.withholds(source) && from.readable(),
                FlowState::Draining => !to.blocked() || to.writable(),
                FlowState::Closed => false,
            }
        })
    }

    /// Both directions are finished.
    pub(crate) fn is_over(&self) -> bool {
        self.up.state == FlowState::Closed && self.down.state == FlowState::Closed
    }

    fn carry(
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
            moved += self.pass_alone(source, buffers, now_ms);
        }
        self.flow_from_mut(source).ease_window(moved);
        self.finish(source);
    }

    fn may_read(&self, source: Side) -> bool {
        self.reads(source) && self.leg(source).readable()
    }

    /// Whether bytes of this side are wanted: there is room for them, or they go nowhere.
    fn reads(&self, source: Side) -> bool {
        self.flow_from(source).state == FlowState::Open
            && (!self.leg(source.other()).blocked() || self.withholds(source))
    }

    fn withholds(&self, source: Side) -> bool {
        self.conversation.as_ref().is_some_and(|talk| talk.withholds(source.into()))
    }

    /// A whole passage; says how many bytes came.
    fn pass_alone(&mut self, source: Side, buffers: &mut Buffers, now_ms: u64) -> usize {
        let level = buffers.level();
        let mut passage = self.begin(source, buffers);
        let socket = self.leg(source).fd();
        let received = socket::recv(socket, buffers.input.bytes_mut(passage.slot()));
        self.note_read(&mut passage, received);
        self.convert(&mut passage, buffers);
        let moved = self.complete(passage, buffers, now_ms);
        buffers.fall_to(level);
        moved
    }

    /// The first step of a passage: where bytes may go.
    fn begin(&mut self, source: Side, buffers: &mut Buffers) -> Passage {
        let window = self.flow_from(source).window();
        let leg = self.leg(source);
        let waiting = leg.waiting();
        // What rustls holds is not there, and yet what is opened must find room, as everything from here.
        let start = buffers.input.fill(waiting + window + leg.held_inside());
        let wire = Stretch { place: Place::Input, start, len: waiting };
        Passage {
            source,
            window,
            wire,
            moved: 0,
            end: None,
            verdict: Verdict::Pass,
            text: 0,
            sealed: wire,
            sent: None,
            fault: None,
        }
    }

    /// The second: what a `recv` into its slot brought.
    pub(crate) fn note_read(&mut self, passage: &mut Passage, received: io::Result<Received>) {
        if let Ok(Received::Bytes(n)) = received {
            passage.moved = n;
            passage.wire.len += n;
        }
        passage.end = self.leg_mut(passage.source).note_read(passage.window, received);
    }

    /// The third: open, count, seal.
    pub(crate) fn convert(&mut self, passage: &mut Passage, buffers: &mut Buffers) {
        if passage.moved == 0 {
            return;
        }
        let source = passage.source;
        let (plain, end) = self.leg_mut(source).open(passage.wire, buffers);
        passage.end = end;
        passage.verdict = self.judge(source, buffers.bytes(plain));
        match passage.verdict {
            Verdict::Pass if plain.len > 0 => {
                passage.text = plain.len;
                (passage.sealed, passage.fault) = self.leg_mut(source.other()).seal(plain, buffers);
            }
            Verdict::Pass | Verdict::Withhold => {}
            Verdict::Inject { .. } => passage.sealed = plain,
        }
    }

    /// Notes bytes of one side; says what becomes of them.
    fn judge(&mut self, source: Side, plain: &[u8]) -> Verdict {
        self.flow_from_mut(source).received += plain.len() as u64;
        match &mut self.conversation {
            Some(talk) => talk.on_bytes(source.into(), plain),
            None => Verdict::Pass,
        }
    }

    /// The socket that takes the bytes of a passage, if they can go at once.
    pub(crate) fn destination(&self, passage: &Passage) -> Option<BorrowedFd<'_>> {
        let to = self.leg(passage.source.other());
        (passage.text > 0 && passage.sealed.len > 0 && to.takes_bytes()).then(|| to.fd())
    }

    /// The last: send what was not sent yet, and what follows from all. Says how many bytes came.
    fn complete(&mut self, passage: Passage, buffers: &mut Buffers, now_ms: u64) -> usize {
        let Passage { source, window, moved, end, verdict, text, sealed, sent, fault, .. } =
            passage;
        if moved > 0 {
            self.active_ms = now_ms;
        }
        if text > 0 {
            let sent = self.leg_mut(source.other()).send(buffers.bytes(sealed), sent, now_ms);
            match (sent, fault) {
                (Ok(()), None) => self.flow_from_mut(source).passed += text as u64,
                (Ok(()), Some(fault)) => self.on_worn_out(source.other(), fault, now_ms),
                (Err(error), _) => self.on_unwritable(source.other(), &error, now_ms),
            }
        }
        if let Verdict::Inject { .. } = verdict {
            let Buffers { input, plain, output } = buffers;
            let from = if sealed.place == Place::Input { input } else { plain };
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
    fn deliver(&mut self, source: Side, plain: &[u8], output: &mut [u8], now_ms: u64) {
        let verdict = self.judge(source, plain);
        self.send_on(source, plain, verdict, output, now_ms);
    }

    /// Sends of these bytes what passes, and a frame of our own where it belongs.
    fn send_on(
        &mut self,
        source: Side,
        plain: &[u8],
        verdict: Verdict,
        output: &mut [u8],
        now_ms: u64,
    ) {
        match verdict {
            Verdict::Pass => self.transmit(source, plain, output, now_ms),
            Verdict::Withhold => {}
            Verdict::Inject { at, frame } => {
                self.transmit(source, &plain[..at], output, now_ms);
                self.send_frame(source.other(), frame, now_ms);
                if !self.withholds(source) {
                    self.transmit(source, &plain[at..], output, now_ms);
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
                Err(SendError::Fault(fault)) => self.on_worn_out(source.other(), fault, now_ms),
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
        self.transmit(to.other(), &frame.encode(mask), &mut output, now_ms);
    }

    /// Sends the frames of our own that need not wait.
    fn send_frames(&mut self, now_ms: u64) {
        for to in [Side::Client, Side::Upstream] {
            let Some(talk) = &mut self.conversation else { return };
            if let Some(frame) = talk.poll_frame(to.into()) {
                self.send_frame(to, frame, now_ms);
            }
        }
    }

    fn flush(&mut self, side: Side, now_ms: u64) {
        let leg = self.leg_mut(side);
        let before = leg.unsent_len();
        match leg.flush(now_ms) {
            Ok(()) if leg.unsent_len() < before => self.active_ms = now_ms,
            Ok(()) => {}
            Err(error) => self.on_unwritable(side, &error, now_ms),
        }
    }

    /// Whether it holds expanded keys.
    pub(crate) fn has_awake_keys(&self) -> bool {
        self.client.is_awake() || self.upstream.is_awake()
    }

    /// Drops expanded keys if nothing has moved since `before_ms`; says whether it did.
    pub(crate) fn rest_if_idle(&mut self, before_ms: u64) -> bool {
        let idle = self.active_ms <= before_ms;
        if idle {
            self.client.rest();
            self.upstream.rest();
        }
        idle
    }

    /// How it ended, at `now_ms`.
    pub(crate) fn end(&self, now_ms: u64) -> TunnelEnd {
        TunnelEnd {
            cause: self.cause.unwrap_or(EndCause::Stopped),
            duration: std::time::Duration::from_millis(now_ms.saturating_sub(self.began_ms)),
            client: self.totals(Side::Client),
            upstream: self.totals(Side::Upstream),
        }
    }

    /// How many bytes the client and the upstream have sent us.
    pub(crate) fn received(&self) -> [u64; 2] {
        [&self.up, &self.down].map(|flow| flow.received)
    }

    #[cfg(test)]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.client.kept_bytes() + self.upstream.kept_bytes()
    }

    fn totals(&self, side: Side) -> Totals {
        let flow = self.flow_from(side);
        let passed = self.flow_from(side.other()).passed;
        let unsent = self.leg(side).unsent_len() as u64;
        let totals = Totals {
            received: flow.received,
            sent: passed.saturating_sub(unsent),
            truncated: flow.truncated,
            ..Totals::default()
        };
        match &self.conversation {
            Some(talk) => Totals {
                frames: talk.counts(side.into()),
                close: talk.close_code(side.into()),
                broken: talk.broken(side.into()),
                ..totals
            },
            None => totals,
        }
    }
}
