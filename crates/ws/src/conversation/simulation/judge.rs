//! What is held against what.

use super::reading::{Frame, read};
use super::*;
use crate::conversation::keep_alive::FRAME_MS;
use crate::conversation::meter::Charge;

/// What shows whether a side is there.
pub(super) struct Presence {
    pub(super) heard_ms: u64,
    /// Our pings to it, and when they were sent.
    pings: Vec<([u8; PING_LEN], u64)>,
    /// The last of them was answered.
    is_answered: bool,
    /// Or need not be: its time was over when none had ever been.
    is_forgiven: bool,
    /// One of them was.
    has_answered: bool,
}

impl Presence {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            heard_ms: now_ms,
            pings: Vec::new(),
            is_answered: false,
            is_forgiven: false,
            has_answered: false,
        }
    }
}

impl World<'_> {
    pub(super) fn note_bytes(&mut self, from: Side, chunk: &[u8]) {
        let way = self.ways.get_mut(from);
        let start = way.came.len();
        way.come(chunk, self.now_ms);
        self.presence.get_mut(from).heard_ms = self.now_ms;
        if self.rules.policy().idle_ms.is_some()
            && way.moves_data(start, self.rules.settings.extensions)
        {
            self.data_ms = self.now_ms;
        }
    }

    /// What had come of a side before it is looked at further, as long as nobody closes.
    pub(super) fn note_judged(&mut self, from: Side, len: usize) {
        if !self.conversation.is_closing() {
            self.ways.get_mut(from).judged = len;
        }
    }

    pub(super) fn note_ping(&mut self, to: Side, payload: [u8; PING_LEN]) {
        let keep_alive = self.rules.policy().keep_alive.get(to).expect("somebody wants pings");
        let presence = self.presence.get_mut(to);
        let last_ms = presence.pings.last().map_or(0, |&(_, sent_ms)| sent_ms);
        let first = presence.pings.is_empty();
        assert!(first || self.now_ms > last_ms + keep_alive.interval_ms, "too soon");
        presence.pings.push((payload, self.now_ms));
        (presence.is_answered, presence.is_forgiven) = (false, false);
    }

    /// A side is to be asked whether it is there.
    pub(super) fn judge_question(&self, side: Side) {
        let in_frame = self.ways.get(side).is_in_frame(self.rules.settings.extensions);
        let rested = self.now_ms > self.presence.get(side).heard_ms + FRAME_MS;
        assert!(!in_frame || rested, "asked in the middle of a frame");
    }

    /// The side that may finish before the other one is told why we close.
    fn innocent(&self) -> Option<Side> {
        match self.conversation.cause()? {
            Cause::Credentials(_) => None,
            fault => fault.offender().map(Side::other),
        }
    }

    /// A side is sent our Close, and it is not too early.
    pub(super) fn judge_turn(&self, to: Side) {
        let Some(innocent) = self.innocent().filter(|&side| side == to.other()) else { return };
        let way = self.ways.get(innocent);
        let closing_ms = self.closing_ms.unwrap_or(self.now_ms);
        let has_had_time = self.now_ms > closing_ms + LAST_WORDS_MS;
        let has_finished = way.has_finished || way.is_before_close() || self.is_faulty(way);
        assert!(has_had_time || has_finished, "the other one may still say something");
    }

    /// Nobody finishes for too long, nor by a Close of its own.
    pub(super) fn judge_last_words(&self) {
        let (Some(innocent), Some(closing_ms)) = (self.innocent(), self.closing_ms) else { return };
        let (way, extensions) = (self.ways.get(innocent), self.rules.settings.extensions);
        let own_close_ms = way.own_close_ms(extensions);
        assert!(own_close_ms.is_none_or(|ms| ms <= closing_ms), "a Close is no last word");
        let is_late = self.called_ms > closing_ms + LAST_WORDS_MS;
        let has_place = !way.ended
            && !way.is_cut(extensions)
            && own_close_ms.is_none()
            && self.conversation.broken(innocent).is_none();
        assert!(way.closed.is_some() || !is_late || !has_place, "the offender has to be told");
    }

    /// Bytes up to `end` have not gone on, though others might.
    pub(super) fn note_missing(&mut self, from: Side, end: usize) {
        let Some(pong) = self.ways.get_mut(from).miss(end) else { return };
        let presence = self.presence.get_mut(from);
        let ours = presence.pings.iter().any(|(payload, _)| pong == payload);
        assert!(ours, "a pong for the other side");
        let is_last = presence.pings.last().is_some_and(|(payload, _)| pong == payload);
        presence.is_answered |= is_last;
        presence.has_answered = true;
    }

    /// Nothing of this side goes on: because of a Close of ours, or because something must not.
    pub(super) fn check_withheld(&self, from: Side) {
        let (way, extensions) = (self.ways.get(from), self.rules.settings.extensions);
        let refused =
            || (way.is_cut(extensions) || way.has_own_close(extensions)) && self.is_faulty(way);
        let has_said_all =
            self.rules.policy().check >= Check::Frames && way.has_own_close(extensions);
        assert!(way.closed.is_some() || has_said_all || refused(), "no reason to withhold");
    }

    /// Whether a side has sent what must not go on, though something else may be why we close.
    fn is_faulty(&self, way: &Way) -> bool {
        self.conversation.cause().and_then(Cause::offender) == Some(way.from)
            || self.rules.policy().limits.get(way.from).controls.is_some()
            || self.rules.has_sent_too_much(way.from)
            || self.rules.offence(way.from, &way.came).is_some()
    }

    /// All that is due by now was done.
    pub(super) fn judge_time(&mut self) {
        let (conversation, now_ms) = (&self.conversation, self.now_ms);
        if conversation.poll_end().is_some() {
            return;
        }
        if let Some(closing_ms) = self.closing_ms {
            assert!(now_ms <= closing_ms + CLOSING_MS, "it takes too long");
        }
        if conversation.is_closing() {
            return;
        }
        let paused = SIDES.iter().any(|&side| conversation.pauses(side));
        let idle_ms = self.rules.policy().idle_ms.filter(|_| !paused);
        assert!(
            idle_ms.is_none_or(|idle_ms| now_ms <= self.data_ms + idle_ms),
            "idle for too long"
        );
        assert!(self.rules.ends_ms.is_none_or(|ends_ms| now_ms < ends_ms), "it lives too long");
        assert!(self.rules.expires_ms.is_none_or(|ends_ms| now_ms < ends_ms), "it may do nothing");
        if let Closing::Lingering { .. } = conversation.closing {
            return;
        }
        for side in SIDES {
            let silent = self.silent_since(side).zip(self.pong_timeout_ms(side));
            let lost = silent.is_some_and(|(since, wait_ms)| now_ms > since + wait_ms);
            let presence = self.presence.get_mut(side);
            assert!(!lost || !presence.has_answered, "{side:?} is dead");
            presence.is_forgiven |= lost;
        }
    }

    /// Since when a side owes an answer.
    fn silent_since(&self, side: Side) -> Option<u64> {
        let presence = self.presence.get(side);
        let &(_, sent_ms) = presence.pings.last()?;
        let owes = !presence.is_answered && !presence.is_forgiven;
        owes.then(|| sent_ms.max(presence.heard_ms))
    }

    fn pong_timeout_ms(&self, side: Side) -> Option<u64> {
        self.rules.policy().keep_alive.get(side).and_then(|it| it.pong_timeout_ms)
    }

    /// Holds the end against everything.
    pub(super) fn judge(&self, end: End) {
        let extensions = self.rules.settings.extensions;
        match end {
            End::Ended(side) => assert!(self.ways.get(side).ended),
            End::Lost(side) => {
                let since = self.silent_since(side).expect("it owes an answer");
                let timeout_ms = self.pong_timeout_ms(side).expect("there is a limit");
                assert!(self.now_ms > since + timeout_ms, "it still had time");
                assert!(self.presence.get(side).has_answered, "it may not know pings");
            }
            End::Answered(cause) | End::Unanswered(cause) => self.judge_cause(cause),
        }
        for side in SIDES {
            let way = self.ways.get(side);
            assert_eq!(self.rules.offence(side, &way.passed), None, "it must not have gone on");
            self.rules.check_controls(way);
            self.judge_close(way);
            if self.conversation.cause().and_then(Cause::offender) != Some(side) {
                let seen = &way.came[..way.judged];
                assert_eq!(self.rules.offence(side, seen), None, "it was not noticed");
            }
            self.judge_pongs(way);
            way.check_counts(self.conversation.counts(side), extensions);
            if let Some(gate) = self.rules.gates.get(side) {
                let Charge { messages, bytes } = gate.seen().charge;
                assert_eq!(bytes, way.came.len() as u64);
                assert_eq!(messages, self.conversation.counts(side).messages);
            }
            if let End::Answered(_) = end {
                self.judge_answered(way);
            }
        }
    }

    /// Nothing goes on behind a Close where rules are checked; and who has closed first is known.
    fn judge_close(&self, way: &Way) {
        let (frames, _) = read(&way.passed, way.from, self.rules.settings.extensions);
        let close = frames.iter().position(|frame| frame.opcode == 8 && frame.is_whole());
        let Some(at) = close else { return };
        if self.rules.policy().check >= Check::Frames {
            assert_eq!(frames[at].end, way.passed.len(), "said behind a Close");
        }
        let may_be_first = self.closing_ms.is_none() && !self.ways.get(way.from.other()).ended;
        assert!(
            !may_be_first || self.conversation.first_close().is_some(),
            "nobody has closed first"
        );
    }

    /// No answer to one of our last pings has gone on. Every end gives one answer to each.
    fn judge_pongs(&self, way: &Way) {
        let pings = &self.presence.get(way.from).pings;
        // Four are remembered, and one may wait for its place.
        let last = &pings[pings.len().saturating_sub(3)..];
        let (frames, _) = read(&way.passed, way.from, self.rules.settings.extensions);
        for pong in frames.iter().filter(|frame| frame.opcode == 10) {
            let ours = last.iter().any(|(ping, _)| pong.payload == ping);
            assert!(!ours, "a pong for us has gone on");
        }
    }

    /// Whoever has to wait does, and not longer.
    pub(super) fn judge_pauses(&self) {
        for side in SIDES {
            let until_ms =
                self.rules.gates.get(side).as_ref().map_or(0, |gate| gate.seen().until_ms);
            if self.conversation.pauses(side) {
                assert!(self.armed_ms.is_some_and(|armed_ms| armed_ms <= until_ms));
            } else {
                let free = self.conversation.is_closing() || self.conversation.withholds(side);
                assert!(free || until_ms <= self.now_ms, "it may go on too early");
            }
        }
    }

    fn judge_cause(&self, cause: Cause) {
        match cause {
            Cause::Credentials(Lapse::Expired) if !self.ordered => {
                let expires_ms = self.rules.expires_ms.expect("an expiry");
                assert!(self.closing_ms.unwrap_or(self.now_ms) >= expires_ms);
                assert!(self.rules.ends_ms.is_none_or(|ends_ms| expires_ms <= ends_ms));
            }
            Cause::Drain(_) | Cause::Kill | Cause::Unhealthy | Cause::Credentials(_) => {
                assert!(self.ordered);
            }
            Cause::IdleTimeout => {
                let idle_ms = self.rules.policy().idle_ms.expect("a limit");
                let closing_ms = self.closing_ms.unwrap_or(self.now_ms);
                assert!(closing_ms > self.data_ms + idle_ms || self.data_ms >= closing_ms);
            }
            Cause::MaxLifetime => {
                let ends_ms = self.rules.ends_ms.expect("a limit");
                assert!(self.closing_ms.unwrap_or(self.now_ms) >= ends_ms);
                assert!(self.rules.expires_ms.is_none_or(|expires_ms| ends_ms < expires_ms));
            }
            fault => {
                let side = fault.offender().expect("somebody's fault");
                let closing_ms = self.closing_ms.unwrap_or(self.now_ms);
                self.rules.check_fault(fault, self.ways.get(side), closing_ms);
            }
        }
    }

    /// When a handshake was answered, every end that can be told knows, and has whole frames.
    fn judge_answered(&self, way: &Way) {
        let extensions = self.rules.settings.extensions;
        let was_told = self.ways.get(way.from.other()).closed.is_some();
        let has_answered = way.ended || Frame::closes(&way.came);
        assert!(!was_told || has_answered, "it still had time to answer");
        if way.ended || self.conversation.broken(way.from).is_some() {
            return;
        }
        assert!(!way.is_cut(extensions) || self.is_faulty(way), "a frame was cut");
        let knows = way.closed.is_some() || way.has_own_close(extensions);
        assert!(knows || way.is_cut(extensions), "its destination does not know");
    }
}
