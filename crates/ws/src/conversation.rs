//! Both directions of one WebSocket, as they pass through a proxy: bytes and time in, decisions out.
//!
//! The two ends talk to each other and the conversation follows. Whoever carries it shows it the bytes of
//! each side before they go on, and is told what becomes of them; it is also where a frame of the
//! proxy's own gets its place. A frame may stand only between two others (RFC 6455 §5.4 allows control
//! frames within a message, never within a frame), so it waits for the end of the one under way:
//!
//! ```text
//! one direction:  Open ──inject──▶ Pending(frame) ──boundary──▶ Open, behind a ping
//!                   ▲                    │  └──────boundary──▶ Closed, behind a Close: the rest is withheld
//!                   └──the source closes─┘
//!
//! both together:  Open ──close──▶ Ours ──both sides have answered──▶ Answered
//!                  │               └──────its deadline─────────────▶ Unanswered
//!                  ├─both sides have closed, one has ended──▶ Lingering ──its deadline──▶ Ended
//!                  └─the server has ended──────────────────────┘
//! ```
//!
//! Time is an event like bytes: [`Conversation::deadline_ms`] says when it matters next, whatever for, and
//! what is due then happens in [`Conversation::on_time`]. A moment is in whole milliseconds, rounded down.
//!
//! Left alone, a conversation passes everything, protocol errors too: the ends are to judge.

#[cfg(any(test, feature = "fuzz"))]
pub mod walk;

use crate::frame::ControlFrame;
use crate::{CloseCode, Counts, Extensions, FrameError, Opcode, Progress, Side, Tracker, close};

/// How long a closing handshake that we begin may take: to the end of the frames under way, and until
/// both sides have answered.
pub const CLOSING_MS: u64 = 1_000;

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

/// What a conversation is begun with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What the two ends have agreed upon.
    pub extensions: Extensions,
}

/// What becomes of bytes that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// They go on.
    Pass,
    /// They do not: their destination has had a Close of ours.
    Withhold,
    /// Those before `at` go on, then this frame. Behind a ping go the others; behind a Close nothing does.
    Inject {
        /// The end of a frame, or the beginning of these bytes.
        at: usize,
        /// What stands there.
        frame: OwnFrame,
    },
}

/// A frame of the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnFrame {
    /// Asks for a pong with the same payload.
    Ping([u8; 4]),
    /// Begins the closing handshake, or answers it.
    Close(CloseCode),
}

impl OwnFrame {
    /// The frame as it goes over the wire; with a mask to a server, without to a client (RFC 6455 §5.1).
    pub fn encode(self, mask: Option<[u8; 4]>) -> ControlFrame {
        match self {
            Self::Ping(payload) => ControlFrame::new(Opcode::Ping, &payload, mask),
            Self::Close(code) => close::encode(code, "", mask),
        }
    }
}

/// Why a conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We have closed, and each side has sent its Close, as far as it was there to do so.
    Answered,
    /// We have closed, and [`CLOSING_MS`] were over before. Nothing of it is worth another wait.
    Unanswered,
    /// This side has ended, and the other did not within [`LINGER_MS`].
    Ended(Side),
}

/// Both directions of one WebSocket. No heap.
#[derive(Clone, Debug)]
pub struct Conversation {
    from_client: Direction,
    from_server: Direction,
    closing: Closing,
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
    Ours { deadline_ms: u64 },
    /// A deadline was reached.
    Over(End),
}

/// What one side says to the other.
#[derive(Clone, Debug)]
struct Direction {
    tracker: Tracker,
    counts: Counts,
    /// The code of the first Close of its source.
    close: Option<CloseCode>,
    injection: Injection,
    /// Nothing more passes: its source has ended, or its destination takes nothing.
    ended: bool,
}

/// What we have to say in a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Injection {
    /// Nothing.
    None,
    /// A frame that waits for a boundary.
    Pending(OwnFrame),
    /// Nothing any more, nor has anybody: we have sent a Close.
    Closed,
}

impl Conversation {
    /// Begins right after the switch.
    pub fn new(settings: Settings) -> Self {
        let Settings { extensions } = settings;
        Self {
            from_client: Direction::new(Side::Client, extensions),
            from_server: Direction::new(Side::Server, extensions),
            closing: Closing::Open,
        }
    }

    // Events.

    /// Bytes of this side came, the next ones of its stream.
    #[inline]
    pub fn on_bytes(&mut self, from: Side, bytes: &[u8], now_ms: u64) -> Verdict {
        let direction = self.direction_mut(from);
        let progress = direction.advance(bytes);
        let verdict = direction.decide(progress.boundary);
        if progress.close.is_some() || self.closing != Closing::Open {
            self.linger(now_ms);
        }
        verdict
    }

    /// Bytes that had to wait for their destination have gone there.
    pub fn on_sent(&mut self, now_ms: u64) {
        self.linger(now_ms);
    }

    /// Nothing more passes from this side: it has ended, or the other one takes nothing any more.
    pub fn on_end(&mut self, from: Side, now_ms: u64) {
        self.direction_mut(from).ended = true;
        self.linger(now_ms);
    }

    /// It is that late. Afterwards no deadline is due; what has come of those that were is told by
    /// [`Self::poll_frame`] and [`Self::poll_end`].
    pub fn on_time(&mut self, now_ms: u64) {
        self.closing = match self.closing {
            Closing::Lingering { ended, deadline_ms } if deadline_ms <= now_ms => {
                Closing::Over(End::Ended(ended))
            }
            Closing::Ours { deadline_ms } if deadline_ms <= now_ms => {
                Closing::Over(End::Unanswered)
            }
            closing => closing,
        };
    }

    // Orders.

    /// Has a frame of ours sent to this side, at the next boundary of what goes there. A Close displaces
    /// a ping that waits; nothing follows a Close.
    pub fn inject(&mut self, to: Side, frame: OwnFrame) {
        self.direction_mut(to.other()).inject(frame);
    }

    /// Begins the closing handshake with both sides; who has a Close from the other one already gets no second.
    pub fn close(&mut self, code: CloseCode, now_ms: u64) {
        if !self.is_closing() {
            self.closing = Closing::Ours { deadline_ms: end_of(now_ms, CLOSING_MS) };
            self.inject(Side::Client, OwnFrame::Close(code));
            self.inject(Side::Server, OwnFrame::Close(code));
        }
    }

    /// The frame that goes to this side now, without waiting for other bytes, if there is one.
    pub fn poll_frame(&mut self, to: Side) -> Option<OwnFrame> {
        self.direction_mut(to.other()).poll_frame()
    }

    /// Why the conversation is over, if it is. By time it is over only once [`Self::on_time`] was told so.
    #[inline]
    pub fn poll_end(&self) -> Option<End> {
        match self.closing {
            Closing::Open | Closing::Lingering { .. } => None,
            Closing::Ours { .. } => self.is_answered().then_some(End::Answered),
            Closing::Over(end) => Some(end),
        }
    }

    // What is known.

    /// When [`Self::on_time`] has something to do next, as long as no other event or order comes.
    #[inline]
    pub fn deadline_ms(&self) -> Option<u64> {
        match self.closing {
            Closing::Open | Closing::Over(_) => None,
            Closing::Lingering { deadline_ms, .. } | Closing::Ours { deadline_ms } => {
                Some(deadline_ms)
            }
        }
    }

    /// Whether we have begun to close.
    pub fn is_closing(&self) -> bool {
        match self.closing {
            Closing::Open | Closing::Lingering { .. } | Closing::Over(End::Ended(_)) => false,
            Closing::Ours { .. } | Closing::Over(End::Answered | End::Unanswered) => true,
        }
    }

    /// Whether bytes of this side go nowhere any more and are only looked at for its Close.
    #[inline]
    pub fn withholds(&self, from: Side) -> bool {
        self.direction(from).injection == Injection::Closed
    }

    /// Whether both sides have sent a Close, so that nothing more can follow (RFC 6455 §5.5.1).
    pub fn is_closed(&self) -> bool {
        self.from_client.close.is_some() && self.from_server.close.is_some()
    }

    /// What this side has sent.
    pub fn counts(&self, from: Side) -> Counts {
        self.direction(from).counts
    }

    /// The code of the first Close that this side sent.
    pub fn close_code(&self, from: Side) -> Option<CloseCode> {
        self.direction(from).close
    }

    /// How this side broke the protocol.
    pub fn broken(&self, from: Side) -> Option<FrameError> {
        self.direction(from).tracker.broken()
    }

    /// Begins the time of the second connection if both sides have closed and one has ended, or the server
    /// has ended anyhow; or begins it anew: something has moved.
    #[cold]
    fn linger(&mut self, now_ms: u64) {
        if self.is_closing() || !(self.is_closed() || self.from_server.ended) {
            return;
        }
        let ended = [Side::Client, Side::Server];
        if let Some(ended) = ended.into_iter().find(|&side| self.direction(side).ended) {
            let deadline_ms = end_of(now_ms, LINGER_MS);
            self.closing = Closing::Lingering { ended, deadline_ms };
        }
    }

    /// Whether our closing handshake has nothing to wait for.
    fn is_answered(&self) -> bool {
        self.from_client.is_done(&self.from_server) && self.from_server.is_done(&self.from_client)
    }

    #[inline]
    fn direction(&self, from: Side) -> &Direction {
        match from {
            Side::Client => &self.from_client,
            Side::Server => &self.from_server,
        }
    }

    #[inline]
    fn direction_mut(&mut self, from: Side) -> &mut Direction {
        match from {
            Side::Client => &mut self.from_client,
            Side::Server => &mut self.from_server,
        }
    }
}

impl Direction {
    fn new(from: Side, extensions: Extensions) -> Self {
        Self {
            tracker: Tracker::new(from, extensions),
            counts: Counts::default(),
            close: None,
            injection: Injection::None,
            ended: false,
        }
    }

    #[inline]
    fn advance(&mut self, bytes: &[u8]) -> Progress {
        let progress = self.tracker.advance(bytes, &mut self.counts);
        if progress.close.is_some() {
            self.close = self.close.or(progress.close);
        }
        progress
    }

    /// What becomes of bytes with this boundary.
    #[inline]
    fn decide(&mut self, boundary: Option<usize>) -> Verdict {
        match self.injection {
            Injection::None => Verdict::Pass,
            _ => self.decide_with_own(boundary),
        }
    }

    /// The same, when we have something to say too.
    fn decide_with_own(&mut self, boundary: Option<usize>) -> Verdict {
        match self.injection {
            Injection::None => Verdict::Pass,
            Injection::Closed => Verdict::Withhold,
            // Its own Close is on its way, and the last word of this direction.
            Injection::Pending(_) if self.close.is_some() => {
                self.injection = Injection::None;
                Verdict::Pass
            }
            Injection::Pending(frame) => match boundary {
                Some(at) => Verdict::Inject { at, frame: self.sent(frame) },
                None => Verdict::Pass,
            },
        }
    }

    fn inject(&mut self, frame: OwnFrame) {
        let displaces = match self.injection {
            Injection::None => true,
            Injection::Pending(_) => matches!(frame, OwnFrame::Close(_)),
            Injection::Closed => false,
        };
        // Behind its source's Close nothing may follow (RFC 6455 §5.5.1), and that includes what we
        // would say in its name.
        if displaces && self.close.is_none() && !self.ended {
            self.injection = Injection::Pending(frame);
        }
    }

    fn poll_frame(&mut self) -> Option<OwnFrame> {
        match self.injection {
            Injection::Pending(frame) if self.tracker.is_at_boundary() && !self.ended => {
                Some(self.sent(frame))
            }
            _ => None,
        }
    }

    /// What is true once a frame of ours was sent.
    fn sent(&mut self, frame: OwnFrame) -> OwnFrame {
        self.injection = match frame {
            OwnFrame::Ping(_) => Injection::None,
            OwnFrame::Close(_) => Injection::Closed,
        };
        frame
    }

    /// Whether a closing handshake has nothing to wait for in this direction; `back` is the other one.
    fn is_done(&self, back: &Self) -> bool {
        let closed = self.injection == Injection::Closed;
        if self.is_over() {
            // Nothing more reaches its destination, nor can its source be understood.
            return true;
        }
        if self.close.is_some() {
            // Of a Close that goes on, all must have passed.
            return closed || self.tracker.is_at_boundary();
        }
        // Nobody answers a Close that cannot be sent.
        closed && back.is_over() && !back.has_sent_close()
    }

    /// Whether nothing can be put into this direction any more, nor found in it.
    fn is_over(&self) -> bool {
        self.ended || self.tracker.broken().is_some()
    }

    /// Whether its destination has been sent a Close.
    fn has_sent_close(&self) -> bool {
        self.close.is_some() || self.injection == Injection::Closed
    }
}

#[cfg(test)]
mod tests;
