//! A conversation as plain data, for another process to go on with.
//!
//! Clocks differ, so moments travel as how long ago they were, or how far they are away. A moment before the
//! beginning of the new clock is taken for that beginning, so a clock should not begin near 0.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use thiserror::Error;

use super::direction::{Direction, Injection};
use super::keep_alive::{Pinging, PingingState};
use super::watch::{Watch, WatchState};
use super::{
    CLOSING_MS, Cause, Closing, Conversation, End, Farewell, LINGER_MS, Meters, Notes, OwnFrame,
    PING_LEN, PerSide, Policy, end_of,
};
use crate::cbor::{is_default, known};
use crate::close::MAX_REASON_LEN;
use crate::tracker::TrackerState;
use crate::{CloseCode, Counts, Extensions, FrameHeader, Opcode, Side, Tracker};

/// All that is needed to go on exactly where a [`Conversation`] is, but for its meters.
///
/// The numbers of its fields, and those in its parts, are a format that other releases read: a number is never used
/// again for something else. What is missing is as in a conversation that has just begun, unknown fields are skipped,
/// and an unknown value is an error.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ConversationState {
    /// What holds for it.
    #[cbor(n(0), decode_with = "known", skip_if = "is_default")]
    pub policy: Policy,
    #[cbor(n(2), skip_if = "is_default")]
    extensions: Extensions,
    #[cbor(n(3), decode_with = "known", skip_if = "is_default")]
    directions: PerSide<DirectionState>,
    #[cbor(n(4), decode_with = "known", skip_if = "is_default")]
    closing: ClosingState,
    #[cbor(n(5), with = "minicbor::bytes", skip_if = "is_default")]
    mark: [u8; 4],
    #[cbor(n(6), skip_if = "is_default")]
    notes: Notes,
    #[cbor(n(7), decode_with = "known")]
    first_close: Option<Side>,
    #[cbor(n(8), skip_if = "is_default")]
    changed: bool,
    /// How long ago the last data frame has moved, if that is noted.
    #[n(9)]
    data_ms_ago: Option<u64>,
    #[n(10)]
    ends_ms: Option<i64>,
    #[cbor(n(11), skip_if = "is_default")]
    expires: bool,
    #[n(12)]
    farewell: Option<Farewell>,
}

/// [`Direction`] as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct DirectionState {
    #[cbor(n(0), decode_with = "known", skip_if = "is_default")]
    tracker: TrackerState,
    #[cbor(n(1), skip_if = "is_default")]
    counts: Counts,
    #[n(2)]
    close: Option<CloseCode>,
    #[cbor(n(3), decode_with = "known", skip_if = "is_default")]
    injection: Injection,
    #[cbor(n(4), skip_if = "is_default")]
    ended: bool,
    #[cbor(n(5), skip_if = "is_default")]
    attentive: bool,
    #[cbor(n(6), decode_with = "known", skip_if = "is_default")]
    pinging: PingingState,
    #[cbor(n(7), with = "minicbor::bytes", skip_if = "is_default")]
    held: Vec<u8>,
    #[cbor(n(8), decode_with = "known", skip_if = "is_default")]
    watch: WatchState,
}

/// [`Closing`] as plain data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
enum ClosingState {
    #[default]
    #[n(0)]
    Open,
    #[n(1)]
    Lingering {
        #[n(0)]
        ended: Side,
        #[n(1)]
        left_ms: i64,
    },
    #[n(2)]
    Ours {
        #[n(0)]
        left_ms: i64,
        #[n(1)]
        cause: Cause,
    },
    #[n(3)]
    Over(#[n(0)] End),
}

/// A state in which no conversation can have been: it was changed on its way, or made by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("inconsistent state")]
pub struct Unsound;

impl Conversation {
    /// What is needed to go on from here. It is asked when all bytes that came were decided about, not between two
    /// parts of them.
    pub fn state(&self, now_ms: u64) -> ConversationState {
        let PerSide { client, server } = &self.directions;
        let ends = self.ends_ms < u64::MAX;
        ConversationState {
            policy: (*self.policy).clone(),
            extensions: client.tracker.extensions(),
            directions: PerSide { client: client.state(now_ms), server: server.state(now_ms) },
            closing: self.closing.state(now_ms),
            mark: self.mark,
            notes: self.notes,
            first_close: self.first_close,
            changed: self.changed,
            data_ms_ago: self.data_ms().map(|data_ms| since(data_ms, now_ms)),
            ends_ms: ends.then(|| left(self.ends_ms, now_ms)),
            expires: ends && self.expires,
            farewell: self.farewell.as_deref().cloned(),
        }
    }

    /// Goes on where another one was, by a clock that may be another one; [`Self::deadline_ms`] is to be asked, as
    /// of a new one.
    ///
    /// `policy` is what holds for it now, or else what has held goes on to do so. Under another one than before, each
    /// part that has not changed goes on. For the rest:
    ///
    /// - Rules of frames are checked from the next frame on, and text and the limits of messages from the next message
    ///   on. A message that is under way is held to the wider of the limits before and now.
    /// - What is not looked for any more is forgotten. Bytes that were held back for it go on with the next ones of
    ///   their side, if they then still should.
    /// - An interval or timeout counts from what it has always counted from, if that is known; if it were over already
    ///   by that, from now. A ping that waits for its place still goes.
    /// - When it has to end, it was told in the beginning, and that stays.
    ///
    /// `meters` count from now on, whatever the policy. Who makes them gives them what was in the buckets of before,
    /// so that moving neither forgives nor fines anything. A pause stays as it was ordered, if the side has a meter.
    pub fn restore(
        state: ConversationState,
        policy: Option<&Arc<Policy>>,
        meters: Option<PerSide<Meters>>,
        now_ms: u64,
    ) -> Result<Self, Unsound> {
        state.check()?;
        let old = state.policy;
        let policy = match policy {
            Some(policy) => Arc::clone(policy),
            None => Arc::new(old.clone()),
        };
        let meters = meters.unwrap_or_default();
        let restore = |direction: DirectionState, from, meters| {
            direction.restore(from, state.extensions, &old, &policy, meters, now_ms)
        };
        let directions = PerSide {
            client: restore(state.directions.client, Side::Client, meters.client)?,
            server: restore(state.directions.server, Side::Server, meters.server)?,
        };
        let mut conversation = Self {
            policy,
            closing: state.closing.restore(&directions, now_ms)?,
            directions,
            mark: state.mark,
            notes: state.notes,
            first_close: state.first_close,
            changed: state.changed,
            data_ms: earlier(state.data_ms_ago.unwrap_or(0), now_ms),
            ends_ms: state.ends_ms.map_or(u64::MAX, |left_ms| later(left_ms, now_ms)),
            expires: state.expires,
            farewell: state.farewell.map(Arc::new),
        };
        conversation.on_new_policy(&old, now_ms);
        Ok(conversation)
    }

    /// Begins what counts time, where the policy is another one than `old`.
    fn on_new_policy(&mut self, old: &Policy, now_ms: u64) {
        let policy = Arc::clone(&self.policy);
        for side in [Side::Client, Side::Server] {
            if let Some(keep_alive) = *policy.keep_alive.get(side)
                && old.keep_alive.get(side) != policy.keep_alive.get(side)
            {
                self.on_new_keep_alive(side, keep_alive, now_ms);
            }
        }
        let is_over = |idle_ms| end_of(self.data_ms, idle_ms) <= now_ms;
        if policy.idle_ms != old.idle_ms && policy.idle_ms.is_some_and(is_over) {
            self.data_ms = now_ms;
        }
    }
}

impl ConversationState {
    /// Whether what is not checked where it is taken over can be.
    fn check(&self) -> Result<(), Unsound> {
        let Extensions { rsv_on_first, rsv_on_others } = self.extensions;
        let farewell = self.farewell.as_ref().is_none_or(|words| {
            words.code.is_valid_on_wire() && words.reason.len() <= MAX_REASON_LEN
        });
        let failure = self.policy.failure.is_none_or(CloseCode::is_valid_on_wire);
        let is_sound = rsv_on_first <= 0b111 && rsv_on_others <= 0b111 && farewell && failure;
        is_sound.then_some(()).ok_or(Unsound)
    }
}

impl Direction {
    fn state(&self, now_ms: u64) -> DirectionState {
        let watch = self.watch.as_ref();
        DirectionState {
            tracker: self.tracker.state(),
            counts: self.counts,
            close: self.close,
            injection: self.injection,
            ended: self.ended,
            attentive: self.attentive,
            pinging: self.pinging.state(now_ms),
            held: self.held.to_vec(),
            watch: watch
                .map(|watch| watch.state(&self.tracker, self.withholds(), now_ms))
                .unwrap_or_default(),
        }
    }
}

impl DirectionState {
    fn restore(
        self,
        from: Side,
        extensions: Extensions,
        old: &Policy,
        policy: &Policy,
        meters: Meters,
        now_ms: u64,
    ) -> Result<Direction, Unsound> {
        let tracker = Tracker::restore(self.tracker, from, extensions).ok_or(Unsound)?;
        let is_sound = self.counts.are_sound()
            && self.held.len() as u64 <= self.counts.bytes
            && may_hold(&tracker, &self.held)
            && (self.close.is_some() || !tracker.knows_close())
            && self.injection.is_sound();
        if !is_sound {
            return Err(Unsound);
        }
        let had_watch = old.watches(from) || self.watch != WatchState::default();
        let watch = Watch::restore(self.watch, &tracker, from, old, policy, meters, now_ms)?;
        let pinging = Pinging::restore(&self.pinging, now_ms);
        let attentive = watch.is_some()
            || !self.held.is_empty()
            || self.injection == Injection::Deferred
            || pinging.may_answer()
            // Why is not known, but not for what was looked for.
            || self.attentive && !had_watch;
        Ok(Direction {
            tracker,
            counts: self.counts,
            close: self.close,
            injection: self.injection,
            ended: self.ended,
            attentive,
            pinging,
            held: self.held.into_boxed_slice(),
            watch,
        })
    }
}

/// Whether these bytes may be held back: they begin a frame that has to be known first, its header or, of a Close or
/// a pong, all of it.
fn may_hold(tracker: &Tracker, held: &[u8]) -> bool {
    if held.is_empty() {
        return true;
    }
    let unfinished = match tracker.read(held) {
        Ok(None) => true,
        Ok(Some((FrameHeader { opcode: Opcode::Close, payload_len, .. }, payload))) => {
            (payload.len() as u64) < payload_len
        }
        Ok(Some((FrameHeader { opcode: Opcode::Pong, payload_len, .. }, payload))) => {
            payload_len == PING_LEN as u64 && payload.len() < PING_LEN
        }
        Ok(Some(_)) | Err(_) => false,
    };
    unfinished && tracker.is_at_boundary()
}

impl Injection {
    fn is_sound(&self) -> bool {
        match self {
            Self::Pending(OwnFrame::Close(code, cause)) => {
                code.is_valid_on_wire() && cause.is_none_or(Cause::is_sound)
            }
            Self::Closed(code) => code.is_valid_on_wire(),
            Self::None
            | Self::Pending(OwnFrame::Ping(_))
            | Self::Deferred
            | Self::Cut
            | Self::Said => true,
        }
    }
}

impl Cause {
    fn is_sound(self) -> bool {
        match self {
            Self::Drain(code) => code.is_valid_on_wire(),
            _ => true,
        }
    }
}

impl Closing {
    fn state(self, now_ms: u64) -> ClosingState {
        match self {
            Self::Open => ClosingState::Open,
            Self::Lingering { ended, deadline_ms } => {
                ClosingState::Lingering { ended, left_ms: left(deadline_ms, now_ms) }
            }
            Self::Ours { deadline_ms, cause } => {
                ClosingState::Ours { left_ms: left(deadline_ms, now_ms), cause }
            }
            Self::Over(end) => ClosingState::Over(end),
        }
    }
}

impl ClosingState {
    fn restore(self, directions: &PerSide<Direction>, now_ms: u64) -> Result<Closing, Unsound> {
        let PerSide { client, server } = directions;
        // No wait is longer than when it began.
        let until =
            |left_ms: i64, wait_ms: u64| later(left_ms, now_ms).min(end_of(now_ms, wait_ms));
        let (closing, is_sound) = match self {
            Self::Open => (Closing::Open, true),
            Self::Lingering { ended, left_ms } => {
                let deadline_ms = until(left_ms, LINGER_MS);
                (Closing::Lingering { ended, deadline_ms }, directions.get(ended).ended)
            }
            Self::Ours { left_ms, cause } => {
                let deadline_ms = until(left_ms, CLOSING_MS);
                (Closing::Ours { deadline_ms, cause }, cause.is_sound())
            }
            Self::Over(end) => {
                let is_sound = match end {
                    End::Answered(cause) | End::Unanswered(cause) => cause.is_sound(),
                    End::Ended(_) | End::Lost(_) => true,
                };
                (Closing::Over(end), is_sound)
            }
        };
        // Last words are waited for as long as we close.
        let waits = client.is_deferred() || server.is_deferred();
        let is_ours = matches!(closing, Closing::Ours { .. });
        if is_sound && (is_ours || !waits) { Ok(closing) } else { Err(Unsound) }
    }
}

/// How long ago a moment was.
pub(super) fn since(then_ms: u64, now_ms: u64) -> u64 {
    now_ms.saturating_sub(then_ms)
}

/// The moment so long ago.
pub(super) fn earlier(ms_ago: u64, now_ms: u64) -> u64 {
    now_ms.saturating_sub(ms_ago)
}

/// How far a moment is away; one that is over may not have been attended to.
pub(super) fn left(until_ms: u64, now_ms: u64) -> i64 {
    match until_ms.checked_sub(now_ms) {
        Some(left_ms) => i64::try_from(left_ms).unwrap_or(i64::MAX),
        None => i64::try_from(now_ms - until_ms).map_or(i64::MIN, |over_ms| -over_ms),
    }
}

/// The moment so far away.
pub(super) fn later(left_ms: i64, now_ms: u64) -> u64 {
    now_ms.saturating_add_signed(left_ms)
}
