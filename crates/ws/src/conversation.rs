//! Both directions of one WebSocket, as they pass through a proxy: bytes and time in, decisions out.
//!
//! The two ends talk to each other and the conversation follows. Whoever carries it shows it the bytes of
//! each side before they go on, and is told what becomes of them; it is also where a frame of the
//! proxy's own gets its place. A frame may stand only between two others (RFC 6455 §5.4 allows control
//! frames within a message, never within a frame), so it waits for the end of the one under way:
//!
//! ```text
//! one direction:  Open ──inject──▶ Pending(frame) ──boundary──▶ Open, behind a ping
//!                  │▲                ▲   │  └──────boundary──▶ Closed, behind a Close: the rest is withheld
//!                  │└──the source closes─┘
//!                  └──close──▶ Deferred, for last words
//!                                       └──the source's own Close, its end, its fault, their time is over
//!
//! both together:  Open ──close──▶ Ours ──both sides have answered──▶ Answered
//!                  │               └──────its deadline─────────────▶ Unanswered
//!                  ├─both sides have closed, one has ended──▶ Lingering ──its deadline──▶ Ended
//!                  ├─the server has ended──────────────────────┘
//!                  └─a side does not answer our ping──▶ Lost
//! ```
//!
//! A side that breaks a rule is told last. The other one gets its Close at once, and what it still says, such
//! as the answer to a message before the offence, goes on until its own Close answers ours, it ends, it breaks
//! a rule too, or [`LAST_WORDS_MS`] are over. Then the offender gets ours. Of what the offender says meanwhile
//! nothing goes on, but for the rest of a frame that was good.
//!
//! Time is an event like bytes: [`Conversation::deadline_ms`] says when it matters next, whatever for, and
//! what is due then happens in [`Conversation::on_time`]. A moment is in whole milliseconds, rounded down.
//!
//! Left alone, a conversation passes everything, protocol errors too: the ends are to judge. What else it
//! does says its [`Policy`]: it asks the sides whether they are there, looks at their frames, and ends what
//! is too much or too old.
//!
//! What changes by an event, but for what becomes of its bytes, is told by [`Conversation::take_changed`].

mod answer;
mod attend;
mod cause;
mod direction;
mod keep_alive;
pub mod meter;
mod policy;
mod portable;
#[cfg(any(test, feature = "fuzz"))]
pub mod simulation;
#[cfg(any(test, feature = "fuzz"))]
pub mod walk;
mod watch;

use std::sync::Arc;

pub use cause::{Cause, Lapse};
use direction::{Direction, Injection};
pub use keep_alive::PING_LEN;
use minicbor::{Decode, Encode};
pub use policy::{Check, KeepAlive, Limits, Meters, PerSide, Policy, Settings};
pub use portable::{ConversationState, Unsound};

use crate::cbor::{is_default, known};
use crate::frame::ControlFrame;
use crate::tracker::UnderWay;
use crate::{CloseCode, Counts, FrameError, Opcode, Progress, Side, close};

/// How long a closing handshake that we begin may take: to the end of the frames under way, and until
/// both sides have answered.
pub const CLOSING_MS: u64 = 1_000;

/// How much of that the side that has done nothing may take to finish, before the other one is told.
pub const LAST_WORDS_MS: u64 = CLOSING_MS / 2;

/// How long the second connection may stay, if nothing moves, after both sides have sent a Close and the
/// first connection has ended (RFC 6455 §7.1.1 has the server end first, and the client soon after); or
/// after the server has ended, whatever was closed: a client that sleeps may not say anything for a day,
/// and nobody would answer it.
pub const LINGER_MS: u64 = 3_000;

/// When a wait that began at `start_ms` is over for certain: moments are rounded down, and a wait must not
/// end early.
pub fn end_of(start_ms: u64, wait_ms: u64) -> u64 {
    start_ms.saturating_add(wait_ms).saturating_add(1)
}

/// What becomes of bytes that came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// They go on.
    Pass,
    /// They do not: their destination has had a Close of ours, or a frame that must not go on.
    Withhold,
    /// Those before `at` go on, then this frame. Behind a ping go the others; behind a Close nothing does.
    Inject {
        /// The end of a frame, or the beginning of these bytes.
        at: usize,
        /// What stands there.
        frame: OwnFrame,
    },
    /// The first `pass` of them go on, then something else; the next `skip` do not. If more are left,
    /// [`Conversation::on_bytes`] is to be asked about them as if they came now.
    Part {
        /// How many go on.
        pass: usize,
        /// What follows them.
        insert: Option<Insert>,
        /// How many go nowhere.
        skip: usize,
    },
}

/// What goes on besides the bytes that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insert {
    /// A frame of our own.
    Frame(OwnFrame),
    /// Bytes of the same side that were held back before.
    Held(Box<[u8]>),
}

/// What an operator has a client told: the code and the reason of its Close.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Farewell {
    /// One that may stand in a Close ([`CloseCode::is_valid_on_wire`]).
    #[n(0)]
    pub code: CloseCode,
    /// Cut to what a Close has room for ([`close::MAX_REASON_LEN`]).
    #[n(1)]
    pub reason: Box<str>,
}

/// A frame of the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OwnFrame {
    /// Asks for a pong with the same payload.
    #[n(0)]
    Ping(#[cbor(n(0), with = "minicbor::bytes")] [u8; PING_LEN]),
    /// Begins the closing handshake, or answers it; with a reason if there is a cause that has one.
    #[n(1)]
    Close(#[n(0)] CloseCode, #[cbor(n(1), decode_with = "known")] Option<Cause>),
}

impl OwnFrame {
    /// The frame as it goes over the wire; with a mask to a server, without to a client (RFC 6455 §5.1).
    pub fn encode(self, mask: Option<[u8; 4]>) -> ControlFrame {
        match self {
            Self::Ping(payload) => ControlFrame::new(Opcode::Ping, &payload, mask),
            Self::Close(code, cause) => close::encode(code, cause.map_or("", Cause::reason), mask),
        }
    }
}

/// Why a conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum End {
    /// We have closed, and each side has sent its Close, as far as it was there to do so.
    #[n(0)]
    Answered(#[n(0)] Cause),
    /// We have closed, and [`CLOSING_MS`] were over before. Nothing of it is worth another wait.
    #[n(1)]
    Unanswered(#[n(0)] Cause),
    /// This side has ended, and the other did not within [`LINGER_MS`].
    #[n(2)]
    Ended(#[n(0)] Side),
    /// This side did not answer our ping, nor say anything else.
    #[n(3)]
    Lost(#[n(0)] Side),
}

/// What should be known of a conversation while it goes on, but for answers each told once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Notes {
    /// This side has broken a rule of frames, and nothing of ours is said any more.
    #[cbor(n(0), skip_if = "is_default")]
    pub broken: PerSide<bool>,
    /// This side has not answered the first pings that it was sent.
    #[cbor(n(1), skip_if = "is_default")]
    pub silent: PerSide<bool>,
    /// This side has answered a ping in the time that is known now; told each time.
    #[cbor(n(2), skip_if = "is_default")]
    pub answered: PerSide<bool>,
}

/// Both directions of one WebSocket.
#[derive(Clone, Debug)]
pub struct Conversation {
    policy: Arc<Policy>,
    directions: PerSide<Direction>,
    closing: Closing,
    mark: [u8; 4],
    notes: Notes,
    /// Whose Close came first; none if ours went before, or its other side had ended.
    first_close: Option<Side>,
    /// There may be frames to send, a nearer deadline, notes or an end that nobody was told of.
    changed: bool,
    /// When the last byte of a data frame passed, if anybody wants to know.
    data_ms: u64,
    /// When it is too old, or what the client may do is over.
    ends_ms: u64,
    /// Whether it is the latter.
    expires: bool,
    /// What the client is told when it is killed, if the operator has chosen.
    farewell: Option<Arc<Farewell>>,
}

/// How far the end of the conversation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// That is up to its sides.
    Open,
    /// `ended` has ended, and nothing has to be said any more. The other one has until then, if nothing
    /// moves.
    Lingering { ended: Side, deadline_ms: u64 },
    /// We close, and are done by then whatever they say.
    Ours { deadline_ms: u64, cause: Cause },
    /// A deadline was reached.
    Over(End),
}

impl Conversation {
    /// Begins right after the switch.
    pub fn new(settings: &Settings, now_ms: u64) -> Self {
        let [ages_ms, expires_ms] = [settings.lifetime_ms, settings.expiry_ms]
            .map(|left_ms| left_ms.map_or(u64::MAX, |left_ms| end_of(now_ms, left_ms)));
        Self {
            policy: Arc::clone(&settings.policy),
            directions: PerSide {
                client: Direction::new(Side::Client, settings, now_ms),
                server: Direction::new(Side::Server, settings, now_ms),
            },
            closing: Closing::Open,
            mark: settings.mark,
            notes: Notes::default(),
            first_close: None,
            changed: false,
            data_ms: now_ms,
            ends_ms: ages_ms.min(expires_ms),
            expires: expires_ms <= ages_ms,
            farewell: None,
        }
    }

    // Events.

    /// Bytes of this side came, the next ones of its stream.
    #[inline]
    pub fn on_bytes(&mut self, from: Side, bytes: &[u8], now_ms: u64) -> Verdict {
        let direction = self.directions.get_mut(from);
        let data_frames = direction.data_frames();
        // Who has answered the other end is asked sooner.
        self.changed |= direction.pinging.hear(now_ms);
        if direction.attentive {
            let verdict = self.attend(from, bytes, now_ms);
            self.note_data(from, data_frames, now_ms);
            return verdict;
        }
        let progress = direction.advance(bytes);
        let verdict = direction.decide(progress.boundary);
        let passes = matches!(verdict, Verdict::Pass);
        if progress.is_special() || self.closing != Closing::Open || !passes {
            self.on_special(from, &progress, &verdict, now_ms);
        }
        self.note_data(from, data_frames, now_ms);
        verdict
    }

    /// Bytes that had to wait for their destination have gone there.
    pub fn on_sent(&mut self, now_ms: u64) {
        self.linger(now_ms);
    }

    /// Nothing more passes from this side: it has ended, or the other one takes nothing any more.
    pub fn on_end(&mut self, from: Side, now_ms: u64) {
        self.directions.get_mut(from).ended = true;
        self.linger(now_ms);
    }

    /// It is that late. Afterwards no deadline is due; what has come of those that were is told by
    /// [`Self::poll_frame`] and [`Self::poll_end`].
    pub fn on_time(&mut self, now_ms: u64) {
        for side in [Side::Client, Side::Server] {
            if self.last_words_due().is_some_and(|due_ms| due_ms <= now_ms) {
                self.end_last_words(side);
            }
            if self.directions.get_mut(side).resume(now_ms) {
                // What it has to say may be read only now.
                self.data_ms = now_ms;
            }
            self.keep_alive(side, now_ms);
        }
        self.closing = match self.closing {
            Closing::Lingering { ended, deadline_ms } if deadline_ms <= now_ms => {
                Closing::Over(End::Ended(ended))
            }
            Closing::Ours { deadline_ms, cause } if deadline_ms <= now_ms => {
                Closing::Over(End::Unanswered(cause))
            }
            closing => closing,
        };
        // While one side lingers after the other, it must not do so for ever.
        if let Closing::Open | Closing::Lingering { .. } = self.closing {
            if self.ends_ms <= now_ms {
                let cause = match self.expires {
                    true => Cause::Credentials(Lapse::Expired),
                    false => Cause::MaxLifetime,
                };
                self.close(cause, now_ms);
            } else if self.idle_due().is_some_and(|due_ms| due_ms <= now_ms) {
                self.close(Cause::IdleTimeout, now_ms);
            }
        }
    }

    // Orders.

    /// Has a frame of ours sent to this side, at the next boundary of what goes there; says whether it has
    /// a place. A Close displaces a ping that waits; nothing follows a Close.
    pub fn inject(&mut self, to: Side, frame: OwnFrame) -> bool {
        self.changed = true;
        self.directions.get_mut(to.other()).inject(frame)
    }

    /// Begins the closing handshake with both sides, with an offender behind the other one's last words. Who
    /// has a Close from the other one already gets no second.
    pub fn close(&mut self, cause: Cause, now_ms: u64) {
        if self.is_closing() {
            // Who is at fault too has said enough.
            if let Some(offender) = cause.offender() {
                self.end_last_words(offender);
            }
            return;
        }
        self.closing = Closing::Ours { deadline_ms: end_of(now_ms, CLOSING_MS), cause };
        self.changed = true;
        for from in [Side::Client, Side::Server] {
            let direction = self.directions.get_mut(from);
            let waits = cause.heard_out() == Some(from) && direction.defer();
            if !waits {
                direction.inject(match (&self.farewell, from) {
                    (Some(words), Side::Server) => OwnFrame::Close(words.code, Some(cause)),
                    _ => cause.close(from.other()),
                });
                // The rest of a frame has its time, and so has the answer.
                direction.resume(u64::MAX);
            } else if direction.is_before_close(&[]) {
                self.end_last_words(from);
            }
        }
    }

    /// Closes it by an operator, for [`Cause::Kill`] or [`Cause::Drain`], with `words` for the client; the server is
    /// told that it goes away. Where the closing has begun already nothing changes.
    pub fn close_in_words(&mut self, words: Arc<Farewell>, cause: Cause, now_ms: u64) {
        if !self.is_closing() {
            self.farewell = Some(words);
        }
        self.close(cause, now_ms);
    }

    /// This side says nothing more: who is told only behind its last words is told now.
    pub fn end_last_words(&mut self, from: Side) {
        let direction = self.directions.get_mut(from);
        if let Closing::Ours { cause, .. } = self.closing
            && direction.is_deferred()
        {
            direction.end_last_words(cause.close(from.other()));
            self.changed = true;
        }
    }

    /// The frame that goes to this side now, without waiting for other bytes, if there is one.
    pub fn poll_frame(&mut self, to: Side, now_ms: u64) -> Option<OwnFrame> {
        let frame = self.directions.get_mut(to.other()).poll_frame()?;
        self.on_frame_sent(to, frame, now_ms);
        Some(frame)
    }

    /// The Close that this side is sent now because the other one is lost, if the policy has one, and it can
    /// be sent.
    pub fn failure(&mut self, to: Side, now_ms: u64) -> Option<OwnFrame> {
        let code = self.policy.failure?;
        let direction = self.directions.get_mut(to.other());
        if !(direction.tracker.is_at_boundary() && direction.takes_frames()) {
            return None;
        }
        if direction.paused_until_ms().is_some() {
            // Nobody who was slowed down is waited for any more; until now it was not idle.
            self.data_ms = now_ms;
        }
        self.changed = true;
        Some(direction.sent(OwnFrame::Close(code, None)))
    }

    /// Why the conversation is over, if it is. By time it is over only once [`Self::on_time`] was told so.
    #[inline]
    pub fn poll_end(&self) -> Option<End> {
        match self.closing {
            Closing::Open | Closing::Lingering { .. } => None,
            Closing::Ours { cause, .. } => self.is_answered().then_some(End::Answered(cause)),
            Closing::Over(end) => Some(end),
        }
    }

    /// Whether there may be something to poll: frames, a deadline that is nearer than those before, notes.
    #[inline]
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What was found since the last time.
    pub fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    // What is known.

    /// When [`Self::on_time`] has something to do next, as long as no other event or order comes.
    pub fn deadline_ms(&self) -> Option<u64> {
        let sides = [Side::Client, Side::Server];
        let paused = sides.map(|side| self.directions.get(side).paused_until_ms());
        let asked = match self.closing {
            Closing::Over(_) => return None,
            Closing::Ours { deadline_ms, .. } => {
                let closing = [Some(deadline_ms), self.last_words_due()];
                return closing.into_iter().chain(paused).flatten().min();
            }
            Closing::Lingering { deadline_ms, .. } => [Some(deadline_ms), None],
            Closing::Open => sides.map(|side| self.keep_alive_due(side)),
        };
        let ends = (self.ends_ms < u64::MAX).then_some(self.ends_ms);
        let whole = [self.idle_due(), ends];
        asked.into_iter().chain(paused).chain(whole).flatten().min()
    }

    /// Whether we have begun to close.
    pub fn is_closing(&self) -> bool {
        match self.closing {
            Closing::Open
            | Closing::Lingering { .. }
            | Closing::Over(End::Ended(_) | End::Lost(_)) => false,
            Closing::Ours { .. } | Closing::Over(End::Answered(_) | End::Unanswered(_)) => true,
        }
    }

    /// Why we close, if we do.
    pub fn cause(&self) -> Option<Cause> {
        match self.closing {
            Closing::Ours { cause, .. } => Some(cause),
            Closing::Over(End::Answered(cause) | End::Unanswered(cause)) => Some(cause),
            Closing::Open | Closing::Lingering { .. } | Closing::Over(_) => None,
        }
    }

    /// Whether bytes of this side go nowhere any more and are only looked at for its Close.
    #[inline]
    pub fn withholds(&self, from: Side) -> bool {
        self.directions.get(from).withholds()
    }

    /// Whether nothing of this side is to be read now: it has sent too much for this moment.
    #[inline]
    pub fn pauses(&self, from: Side) -> bool {
        self.directions.get(from).paused_until_ms().is_some()
    }

    /// Whether both sides have sent a Close, so that nothing more can follow (RFC 6455 §5.5.1).
    pub fn is_closed(&self) -> bool {
        self.directions.client.close.is_some() && self.directions.server.close.is_some()
    }

    /// What this side has sent.
    #[inline]
    pub fn counts(&self, from: Side) -> Counts {
        self.directions.get(from).counts
    }

    /// Where in a frame of this side the next of its bytes belongs: for whoever begins to look in the middle.
    pub fn under_way(&self, from: Side) -> UnderWay<'_> {
        let direction = self.directions.get(from);
        match direction.tracker.under_way() {
            UnderWay::Begun(_) if !direction.held.is_empty() => UnderWay::Begun(&direction.held),
            under_way => under_way,
        }
    }

    /// The code of the first Close that this side sent.
    pub fn close_code(&self, from: Side) -> Option<CloseCode> {
        self.directions.get(from).close
    }

    /// Which side began to close, by a Close that came before ours and before the other side had ended.
    pub fn first_close(&self) -> Option<Side> {
        self.first_close
    }

    /// The reason of the first Close that this side sent, as far as it has come. It may be anything.
    pub fn close_reason(&self, from: Side) -> &[u8] {
        self.directions.get(from).tracker.close_reason()
    }

    /// The code of the Close that we sent to this side.
    pub fn own_close(&self, to: Side) -> Option<CloseCode> {
        match self.directions.get(to.other()).injection {
            Injection::Closed(code) => Some(code),
            _ => None,
        }
    }

    /// When a data frame has moved last, or it began; `None` if its policy has nobody note it.
    pub fn data_ms(&self) -> Option<u64> {
        (self.policy.idle_ms.is_some() || self.policy.notes_data).then_some(self.data_ms)
    }

    /// A frame of ours as it goes over the wire to this side, as by [`OwnFrame::encode`].
    pub fn encode(&self, to: Side, frame: OwnFrame, mask: Option<[u8; 4]>) -> ControlFrame {
        match (frame, self.own_reason(to)) {
            (OwnFrame::Close(code, Some(Cause::Kill | Cause::Drain(_))), reason) => {
                close::encode(code, reason, mask)
            }
            (frame, _) => frame.encode(mask),
        }
    }

    /// The reason in the Close that this side is sent, or would be, when an operator ends it.
    pub fn own_reason(&self, to: Side) -> &str {
        match (&self.farewell, to) {
            (Some(words), Side::Client) => &words.reason,
            _ => "",
        }
    }

    /// What holds for it.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How this side broke the protocol.
    pub fn broken(&self, from: Side) -> Option<FrameError> {
        self.directions.get(from).tracker.broken()
    }

    /// How long this side took to answer our last ping, in milliseconds.
    pub fn rtt_ms(&self, side: Side) -> Option<u32> {
        self.directions.get(side).pinging.rtt_ms()
    }

    /// Something out of the ordinary was among the bytes of this side, or is said in between.
    #[cold]
    fn on_special(&mut self, from: Side, progress: &Progress, verdict: &Verdict, now_ms: u64) {
        self.on_progress(from, progress, now_ms);
        if let Verdict::Inject { frame, .. } = *verdict {
            self.on_frame_sent(from.other(), frame, now_ms);
        }
        if self.closing != Closing::Open {
            self.linger(now_ms);
        }
    }

    /// Bytes of this side that go on have brought this.
    fn on_progress(&mut self, from: Side, progress: &Progress, now_ms: u64) {
        if progress.broken.is_some() {
            *self.notes.broken.get_mut(from) = true;
            self.changed = true;
        }
        if progress.ping {
            self.on_their_ping(from.other(), now_ms);
        }
        if progress.close.is_some() {
            self.on_close(from, now_ms);
        }
    }

    /// A Close of this side has come.
    fn on_close(&mut self, from: Side, now_ms: u64) {
        let first = self.first_close.is_none() && !self.directions.get(from.other()).ended;
        if first && !self.is_closing() {
            self.first_close = Some(from);
        }
        self.linger(now_ms);
    }

    /// When a side has to have finished, if one may do so before the other is told.
    fn last_words_due(&self) -> Option<u64> {
        let PerSide { client, server } = &self.directions;
        match self.closing {
            Closing::Ours { deadline_ms, .. } if client.is_deferred() || server.is_deferred() => {
                Some(deadline_ms.saturating_sub(CLOSING_MS - LAST_WORDS_MS))
            }
            _ => None,
        }
    }

    fn on_frame_sent(&mut self, to: Side, frame: OwnFrame, now_ms: u64) {
        if let OwnFrame::Ping(_) = frame {
            self.on_ping_sent(to, now_ms);
        }
    }

    /// Notes that a data frame has moved, if that is of interest: before, there were so many of this side.
    #[inline]
    fn note_data(&mut self, from: Side, before: u64, now_ms: u64) {
        if self.policy.idle_ms.is_none() && !self.policy.notes_data {
            return;
        }
        let direction = self.directions.get(from);
        let tracker = &direction.tracker;
        // Behind a broken rule nobody knows, and what moves may be data.
        let in_data = tracker.data_left().is_some() || tracker.broken().is_some();
        if in_data || direction.data_frames() != before {
            self.data_ms = now_ms;
        }
    }

    /// When no data frame has passed for too long.
    fn idle_due(&self) -> Option<u64> {
        let idle_ms = self.policy.idle_ms?;
        // Who must not speak is not idle.
        let PerSide { client, server } = &self.directions;
        let paused_ms = client.paused_until_ms().max(server.paused_until_ms());
        Some(end_of(self.data_ms.max(paused_ms.unwrap_or(0)), idle_ms))
    }

    /// Begins the time of the second connection if both sides have closed and one has ended, or the server
    /// has ended anyhow; or begins it anew: something has moved.
    #[cold]
    fn linger(&mut self, now_ms: u64) {
        let lost = matches!(self.closing, Closing::Over(End::Lost(_)));
        if lost || self.is_closing() || !(self.is_closed() || self.directions.server.ended) {
            return;
        }
        let ended = [Side::Client, Side::Server];
        if let Some(ended) = ended.into_iter().find(|&side| self.directions.get(side).ended) {
            let deadline_ms = end_of(now_ms, LINGER_MS);
            self.closing = Closing::Lingering { ended, deadline_ms };
            self.changed = true;
        }
    }

    /// Whether our closing handshake has nothing to wait for.
    fn is_answered(&self) -> bool {
        let PerSide { client, server } = &self.directions;
        client.is_done(server) && server.is_done(client)
    }
}

#[cfg(test)]
mod tests;
