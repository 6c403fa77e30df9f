//! A conversation that stays, and beside it perhaps one that goes from process to process: whatever happens to one
//! happens to the other, and they must decide the same.

use std::fmt::Debug;
use std::ops::Deref;

use super::rules::Rules;
use super::{Chance, SIDES};
use crate::conversation::*;

/// What is asked is asked of the one that stays.
pub(super) struct Twins {
    stays: Conversation,
    moves: Option<Moving>,
}

/// The one that moves.
struct Moving {
    conversation: Conversation,
    /// Its own ones, which have counted the same.
    meters: Option<Box<PerSide<Meters>>>,
    /// By how much the clock of its process is ahead.
    ahead_ms: u64,
    chance: Chance,
}

impl Twins {
    /// The other one moves by `chance`, if there is one.
    pub(super) fn new(rules: &Rules, now_ms: u64, chance: Option<Chance>) -> Self {
        let moves = chance.map(|chance| {
            let settings = Settings { meters: rules.same_meters(), ..rules.settings.clone() };
            let conversation = Conversation::new(&settings, now_ms);
            Moving { conversation, meters: settings.meters, ahead_ms: 0, chance }
        });
        Self { stays: Conversation::new(&rules.settings, now_ms), moves }
    }

    /// Moves perhaps.
    pub(super) fn wander(&mut self, now_ms: u64) {
        self.compare(now_ms);
        if let Some(moving) = &mut self.moves
            && moving.chance.one_in(4)
        {
            moving.move_on(now_ms);
        }
        self.compare(now_ms);
    }

    /// Holds all that is known to one against the other.
    pub(super) fn compare(&self, now_ms: u64) {
        let Some(Moving { conversation: moved, ahead_ms, .. }) = &self.moves else { return };
        assert_eq!(moved.state(now_ms + ahead_ms), self.stays.state(now_ms));
        let until_ms = |conversation: &Conversation| conversation.deadline_ms();
        assert_eq!(until_ms(moved).map(|due_ms| due_ms - ahead_ms), until_ms(&self.stays));
        assert_eq!(moved.poll_end(), self.stays.poll_end());
        for side in SIDES {
            assert_eq!(moved.under_way(side), self.stays.under_way(side));
            assert_eq!(moved.own_close(side), self.stays.own_close(side));
            assert_eq!(moved.close_reason(side), self.stays.close_reason(side));
            assert_eq!(moved.pauses(side), self.stays.pauses(side));
        }
    }

    /// Has the same done to both.
    fn both<T: PartialEq + Debug>(
        &mut self,
        now_ms: u64,
        mut event: impl FnMut(&mut Conversation, u64) -> T,
    ) -> T {
        let decided = event(&mut self.stays, now_ms);
        if let Some(moving) = &mut self.moves {
            let moved = event(&mut moving.conversation, now_ms + moving.ahead_ms);
            assert_eq!(moved, decided, "they decide otherwise");
        }
        decided
    }

    pub(super) fn on_bytes(&mut self, from: Side, bytes: &[u8], now_ms: u64) -> Verdict {
        self.both(now_ms, |conversation, now_ms| conversation.on_bytes(from, bytes, now_ms))
    }

    pub(super) fn on_sent(&mut self, now_ms: u64) {
        self.both(now_ms, Conversation::on_sent);
    }

    pub(super) fn on_end(&mut self, from: Side, now_ms: u64) {
        self.both(now_ms, |conversation, now_ms| conversation.on_end(from, now_ms));
    }

    pub(super) fn on_time(&mut self, now_ms: u64) {
        self.both(now_ms, Conversation::on_time);
        self.both(now_ms, |conversation, _| conversation.take_notes());
    }

    pub(super) fn on_excused(&mut self, side: Side, now_ms: u64) {
        self.both(now_ms, |conversation, now_ms| conversation.on_excused(side, now_ms));
    }

    pub(super) fn close(&mut self, cause: Cause, now_ms: u64) {
        self.both(now_ms, |conversation, now_ms| conversation.close(cause, now_ms));
    }

    pub(super) fn end_last_words(&mut self, from: Side) {
        self.both(0, |conversation, _| conversation.end_last_words(from));
    }

    pub(super) fn poll_frame(&mut self, to: Side, now_ms: u64) -> Option<OwnFrame> {
        self.both(now_ms, |conversation, now_ms| conversation.poll_frame(to, now_ms))
    }

    pub(super) fn failure(&mut self, to: Side, now_ms: u64) -> Option<OwnFrame> {
        self.both(now_ms, |conversation, now_ms| conversation.failure(to, now_ms))
    }

    pub(super) fn take_changed(&mut self) -> bool {
        self.both(0, |conversation, _| conversation.take_changed())
    }
}

impl Deref for Twins {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.stays
    }
}

impl Moving {
    /// Goes on in another process, whose clock began earlier.
    fn move_on(&mut self, now_ms: u64) {
        let state = self.conversation.state(now_ms + self.ahead_ms);
        let record = minicbor::to_vec(&state).expect("memory takes it");
        let state = minicbor::decode(&record).expect("it was written so");
        self.ahead_ms += 1 + self.chance.below(100_000);
        let meters = self.meters.as_deref().cloned();
        let moved = Conversation::restore(state, None, meters, now_ms + self.ahead_ms);
        self.conversation = moved.expect("it was so");
    }
}
