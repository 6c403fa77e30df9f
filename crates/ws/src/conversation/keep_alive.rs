//! Whether a side is there: it is asked by pings of our own when nothing came from it for a while.
//!
//! ```text
//! Quiet ──its interval without a byte──▶ Waiting ──a boundary──▶ Asked ──its pong──▶ Quiet
//!                                                                  └──its timeout──▶ lost, or Unheeded
//! ```
//!
//! Who rests in the middle of a frame has something to say, and is left more time: some who are asked there
//! answer there, which breaks their frame.
//!
//! The pongs that answer are swallowed; all others go on. Whatever comes from a side shows that it is
//! there, so a pong may be late behind a long message. Who has never answered a ping may not know what
//! that is, and is not ended for it.

use minicbor::{Decode, Encode};

use super::portable::{earlier, later, left, since};
use super::{Closing, Conversation, End, KeepAlive, OwnFrame, end_of};
use crate::Side;
use crate::cbor::{is_default, known};

/// What is known about the presence of a side.
#[derive(Clone, Debug)]
pub(super) struct Pinging {
    /// When bytes last came from it.
    pub(super) heard_ms: u64,
    /// Before when it is not asked as long as nothing comes from it; 0 if that does not matter.
    not_before_ms: u64,
    state: State,
    /// How many pings it was sent.
    number: u32,
    /// How long its last answer took, in milliseconds.
    rtt_ms: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no question.
    Quiet,
    /// One waits for its place between frames. `late`: one before it was not answered and may still be.
    Waiting { late: bool },
    /// It was asked then.
    Asked { sent_ms: u64 },
    /// It did not answer when it was asked, as never before. It may still do.
    Unheeded,
}

/// [`Pinging`] as plain data; moments as in [`super::ConversationState`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct PingingState {
    #[cbor(n(0), skip_if = "is_default")]
    silent_ms: u64,
    #[n(1)]
    spared_ms: Option<i64>,
    #[cbor(n(2), decode_with = "known", skip_if = "is_default")]
    question: Question,
    #[cbor(n(3), skip_if = "is_default")]
    number: u32,
    #[n(4)]
    rtt_ms: Option<u32>,
}

/// [`State`] as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
enum Question {
    #[default]
    #[n(0)]
    Quiet,
    #[n(1)]
    Waiting {
        #[n(0)]
        late: bool,
    },
    #[n(2)]
    Asked {
        #[n(0)]
        ms_ago: u64,
    },
    #[n(3)]
    Unheeded,
}

/// The length of the payload of our pings, in bytes.
pub const PING_LEN: usize = 8;

/// How long a side may rest in the middle of a frame before it is asked, in milliseconds, if its interval is
/// shorter.
pub(super) const FRAME_MS: u64 = 10_000;

/// Stands for an answer whose time is not known.
const LATE: u32 = u32::MAX;

impl Pinging {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { heard_ms: now_ms, not_before_ms: 0, state: State::Quiet, number: 0, rtt_ms: None }
    }

    /// What is needed to go on from here.
    pub(super) fn state(&self, now_ms: u64) -> PingingState {
        PingingState {
            silent_ms: since(self.heard_ms, now_ms),
            spared_ms: (self.not_before_ms > 0).then(|| left(self.not_before_ms, now_ms)),
            question: match self.state {
                State::Quiet => Question::Quiet,
                State::Waiting { late } => Question::Waiting { late },
                State::Asked { sent_ms } => Question::Asked { ms_ago: since(sent_ms, now_ms) },
                State::Unheeded => Question::Unheeded,
            },
            number: self.number,
            rtt_ms: self.rtt_ms,
        }
    }

    /// Goes on where another one was.
    pub(super) fn restore(state: &PingingState, now_ms: u64) -> Self {
        Self {
            heard_ms: earlier(state.silent_ms, now_ms),
            not_before_ms: state.spared_ms.map_or(0, |left_ms| later(left_ms, now_ms).max(1)),
            state: match state.question {
                Question::Quiet => State::Quiet,
                Question::Waiting { late } => State::Waiting { late },
                Question::Asked { ms_ago } => State::Asked { sent_ms: earlier(ms_ago, now_ms) },
                Question::Unheeded => State::Unheeded,
            },
            number: state.number,
            rtt_ms: state.rtt_ms,
        }
    }

    /// Bytes came from it; says whether it may have to be asked sooner than before.
    #[inline]
    pub(super) fn hear(&mut self, now_ms: u64) -> bool {
        let was_spared = self.not_before_ms > 0;
        self.heard(now_ms);
        was_spared
    }

    /// Its silence begins.
    #[inline]
    fn heard(&mut self, now_ms: u64) {
        (self.heard_ms, self.not_before_ms) = (now_ms, 0);
    }

    /// Whether it may send a pong that is meant for us.
    pub(super) fn may_answer(&self) -> bool {
        match self.state {
            State::Quiet => false,
            State::Waiting { late } => late,
            State::Asked { .. } | State::Unheeded => true,
        }
    }

    /// How long the last answer took, in milliseconds.
    pub(super) fn rtt_ms(&self) -> Option<u32> {
        self.rtt_ms.filter(|&rtt_ms| rtt_ms != LATE)
    }
}

impl Conversation {
    /// When this side has to be asked, or to have answered.
    pub(super) fn keep_alive_due(&self, side: Side) -> Option<u64> {
        let keep_alive = (*self.policy.keep_alive.get(side))?;
        let pinging = &self.directions.get(side).pinging;
        match pinging.state {
            State::Quiet | State::Unheeded => {
                let ours_ms = end_of(pinging.heard_ms, keep_alive.interval_ms);
                Some(ours_ms.max(pinging.not_before_ms))
            }
            State::Waiting { .. } => None,
            State::Asked { sent_ms } => {
                let due_ms = end_of(sent_ms.max(pinging.heard_ms), keep_alive.wait_ms());
                // Who need not answer is only asked again.
                let not_before_ms = keep_alive.pong_timeout_ms.map_or(pinging.not_before_ms, |_| 0);
                Some(due_ms.max(not_before_ms))
            }
        }
    }

    /// Another keep-alive holds for this side than before. It counts from the last bytes; if it were due by that
    /// already, from now.
    pub(super) fn on_new_keep_alive(&mut self, side: Side, keep_alive: KeepAlive, now_ms: u64) {
        let pinging = &mut self.directions.get_mut(side).pinging;
        // What was spared for the sake of a longer interval is not spared for longer than this one.
        let spared_ms = pinging.not_before_ms;
        pinging.not_before_ms = spared_ms.min(end_of(now_ms, keep_alive.wait_ms()));
        if self.keep_alive_due(side).is_some_and(|due_ms| due_ms <= now_ms) {
            self.directions.get_mut(side).pinging.heard(now_ms);
        }
    }

    /// Does what is due.
    pub(super) fn keep_alive(&mut self, side: Side, now_ms: u64) {
        let Some(keep_alive) = *self.policy.keep_alive.get(side) else { return };
        if self.closing != Closing::Open
            || self.keep_alive_due(side).is_none_or(|due_ms| due_ms > now_ms)
        {
            return;
        }
        let mark = self.mark;
        let direction = self.directions.get_mut(side);
        // Whose frames are not understood, of those no pong can be found.
        let understood = direction.takes_frames();
        let is_in_frame = direction.is_in_frame();
        let pinging = &mut direction.pinging;
        if let State::Asked { .. } = pinging.state
            && keep_alive.pong_timeout_ms.is_some()
        {
            if pinging.rtt_ms.is_some() {
                self.closing = Closing::Over(End::Lost(side));
                return;
            }
            if pinging.number == 1 {
                *self.notes.silent.get_mut(side) = true;
                self.changed = true;
            }
            pinging.state = State::Unheeded;
            pinging.heard(now_ms);
            return;
        }
        let rested_ms = end_of(pinging.heard_ms, FRAME_MS);
        if is_in_frame && rested_ms > now_ms {
            pinging.not_before_ms = rested_ms;
            return;
        }
        // From now on the interval counts, whether the question finds a place or not.
        pinging.heard(now_ms);
        let number = pinging.number.saturating_add(1);
        let frame = OwnFrame::Ping(payload(mark, number));
        if understood && self.inject(side, frame) {
            let pinging = &mut self.directions.get_mut(side).pinging;
            pinging.number = number;
            pinging.state = State::Waiting { late: pinging.state != State::Quiet };
        }
    }

    /// A ping of the other end is on its way to this side.
    pub(super) fn on_their_ping(&mut self, side: Side, now_ms: u64) {
        let Some(keep_alive) = self.policy.keep_alive.get(side) else { return };
        let pinging = &mut self.directions.get_mut(side).pinging;
        // Of two pings a side may answer the later one alone (RFC 6455 §5.5.3): then the other end would miss a
        // pong that we swallow.
        if pinging.not_before_ms == 0 {
            pinging.not_before_ms = end_of(now_ms, keep_alive.wait_ms());
        }
    }

    /// For how long this side has left our ping without an answer and said nothing else, in milliseconds, if it is late
    /// with that.
    pub fn late_ms(&self, side: Side, now_ms: u64) -> Option<u64> {
        let pinging = &self.directions.get(side).pinging;
        let State::Asked { sent_ms } = pinging.state else { return None };
        let is_late = self.keep_alive_due(side).is_some_and(|due_ms| due_ms <= now_ms);
        is_late.then(|| now_ms.saturating_sub(sent_ms.max(pinging.heard_ms)))
    }

    /// A ping of ours is on its way to this side.
    pub(super) fn on_ping_sent(&mut self, side: Side, now_ms: u64) {
        let direction = self.directions.get_mut(side);
        direction.pinging.state = State::Asked { sent_ms: now_ms };
        direction.attentive = true;
        self.changed = true;
    }

    /// This side has sent a pong; says whether it is meant for us.
    pub(super) fn on_pong(&mut self, side: Side, pong: [u8; PING_LEN], now_ms: u64) -> bool {
        let mark = self.mark;
        let direction = self.directions.get_mut(side);
        let pinging = &mut direction.pinging;
        let number = pinging.number;
        // One that waits was not sent yet; an older one is an answer too, only late.
        let unsent = u32::from(matches!(pinging.state, State::Waiting { .. }));
        let mut sent = (unsent..number.min(4)).map(|age| payload(mark, number - age));
        if !pinging.may_answer() || sent.all(|ping| pong != ping) {
            return false;
        }
        if pong == payload(mark, number) {
            if let State::Asked { sent_ms } = pinging.state {
                let rtt_ms = now_ms.saturating_sub(sent_ms);
                pinging.rtt_ms = Some(u32::try_from(rtt_ms).unwrap_or(LATE));
                *self.notes.answered.get_mut(side) = true;
            }
            pinging.state = State::Quiet;
            direction.relax();
            self.changed = true;
        }
        // Perhaps late, but it knows what a ping is.
        direction.pinging.rtt_ms.get_or_insert(LATE);
        true
    }

    /// The silence of this side means nothing: what it has sent was not read for a while, or it is still
    /// taking what was sent to it before our ping.
    pub fn on_excused(&mut self, side: Side, now_ms: u64) {
        self.directions.get_mut(side).pinging.heard(now_ms);
    }
}

fn payload(mark: [u8; 4], number: u32) -> [u8; PING_LEN] {
    let mut payload = [0; PING_LEN];
    payload[..4].copy_from_slice(&mark);
    payload[4..].copy_from_slice(&number.to_be_bytes());
    payload
}
