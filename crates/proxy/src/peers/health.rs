//! Whether a peer is used, and when one that has failed is asked again.
//!
//! ```text
//! used ──max_fails failures──▶ resting ──the rest is over──▶ probed ──an answer──▶ used
//!                                 ▲────────a failure, or no answer──────┘
//! ```
//!
//! A probe is a request like any other, and there is one at a time. nginx lets a peer rest for
//! `fail_timeout` after each failure; with [`Recovery::Eager`] the first rest is half a second, and each probe that
//! brings nothing doubles it, up to `fail_timeout`. So a server that restarts is back at once, and
//! one that is gone costs little. A peer that was of use begins anew with the first rest; only where
//! a reset takes back within a [`MOMENT`] the 101 that brought it back, that was one more probe for
//! nothing.
//!
//! Where all peers of a group had failed, the first that is back gets all clients, and WebSockets stay
//! for hours. So it [hastens](Health::hasten) the others: each is probed at once, and as they may
//! need a little longer, begins anew with rests from [`SHORTEST_REST`] on.
//!
//! A probe that hangs holds its place for `fail_timeout`, and a client that leaves it says nothing
//! of the peer: it must neither bring a hanging peer back nor have the next client wait for it at
//! once.
//!
//! Everything is made of atomics. What must be exact is one compare-and-swap: of all requests that
//! find a peer rested, one is the probe.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use wssgate_config::model::Recovery;

use super::stamp::{Stamp, between, nanos};

/// All rests are this one, doubled some times: not at all where the probe came because others are
/// back.
const SHORTEST_REST: Duration = Duration::from_micros(15_625);

/// The same for the rest after a failure, before it is known whether that lasts: half a second.
const FIRST_DOUBLINGS: u32 = 5;

/// A tunnel that its peer resets this soon was never of use: behind the 101 stood a server that was
/// going down, or none at all.
pub(crate) const MOMENT: Duration = Duration::from_secs(1);

/// Rests are not doubled more often; that is nine hours.
const MAX_DOUBLINGS: u32 = 21;

/// What the configuration says of failures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Failures until it is out of use; 0 for never.
    pub(super) max_fails: u32,
    /// Within which time they count, and the longest rest.
    pub(super) fail_timeout: Duration,
    /// How soon it is asked again.
    pub(super) recovery: Recovery,
}

impl Rules {
    /// The length of a rest that was doubled so often.
    fn rest(&self, doublings: u32) -> Duration {
        match self.recovery {
            Recovery::Nginx => self.fail_timeout,
            Recovery::Eager => {
                (SHORTEST_REST * (1 << doublings.min(MAX_DOUBLINGS))).min(self.fail_timeout)
            }
        }
    }
}

/// What is known of the health of a peer.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failures that count.
    fails: AtomicU32,
    /// When it last failed.
    failed: Stamp,
    /// When it last failed, or was first used after `fail_timeout` without a failure.
    checked: Stamp,
    /// While it is out of use: after when it is asked again; [`rested`] or [`held`].
    due: Stamp,
    /// How often [`SHORTEST_REST`] is doubled in its rest: once more for each rest that was over
    /// and brought nothing.
    doublings: AtomicU32,
    /// When it last came back into use.
    back: Stamp,
}

/// How a request came to a peer, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    at: i64,
    way: Way,
}

impl Taken {
    /// A connection that another process has made, to a peer in use.
    pub(super) fn over(now: Instant) -> Self {
        Self { at: Stamp::of(now), way: Way::Used }
    }

    /// How long ago that was.
    pub(super) fn age(&self, now: Instant) -> Duration {
        between(self.at, Stamp::of(now)).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// The peer was in use.
    Used,
    /// It had rested. The next probe was due at `before`, and is at `held` if nothing is heard of
    /// this one.
    Probe { before: i64, held: i64 },
    /// It was out of use, but so were all others.
    LastResort,
}

impl Health {
    /// Whether it is out of use, or was and is only probed.
    pub(super) fn is_failing(&self, rules: &Rules) -> bool {
        rules.max_fails > 0 && self.fails.load(Acquire) >= rules.max_fails
    }

    /// Whether a request may be sent to it. Only a look: [`Health::take`] decides.
    pub(super) fn usable(&self, rules: &Rules, now: Instant) -> bool {
        !self.is_failing(rules) || Stamp::of(now) > self.due.load()
    }

    /// When it last failed; only to be compared with that of others.
    pub(super) fn last_failure(&self) -> i64 {
        self.failed.load()
    }

    /// For how long it is back in use; `None` if it never failed.
    pub(super) fn back_for(&self, now: Instant) -> Option<Duration> {
        between(self.back.load(), Stamp::of(now))
    }

    /// How long ago it last failed or was first used after `fail_timeout`; `None` if never.
    pub(super) fn checked_for(&self, now: Instant) -> Option<Duration> {
        between(self.checked.load(), Stamp::of(now))
    }

    /// Sends a request to it. `None`: it is out of use, and somebody else asks whether it is back.
    pub(super) fn take(&self, rules: &Rules, now: Instant) -> Option<Taken> {
        let at = Stamp::of(now);
        if self.is_failing(rules) {
            let before = self.due.load();
            let held = held(at, rules.fail_timeout);
            let probes = at > before && self.due.replace(before, held);
            return probes.then_some(Taken { at, way: Way::Probe { before, held } });
        }
        let checked = self.checked.load();
        if at.saturating_sub(checked) > nanos(rules.fail_timeout) {
            // Failures before it are forgotten with the next answer.
            self.checked.replace(checked, at);
        }
        Some(Taken { at, way: Way::Used })
    }

    /// Sends a request to it whatever its failures.
    pub(super) fn take_anyway(&self, rules: &Rules, now: Instant) -> Taken {
        let last_resort = Taken { at: Stamp::of(now), way: Way::LastResort };
        self.take(rules, now).unwrap_or(last_resort)
    }

    /// It has answered. Says whether that brought it back into use.
    pub(super) fn answered(&self, rules: &Rules, taken: Taken, now: Instant) -> bool {
        let seen = self.fails.load(Acquire);
        let is_proof = match taken.way {
            Way::Used => self.failed.load() < self.checked.load(),
            Way::Probe { held, .. } => {
                self.due.replace(held, rested(taken.at, Duration::ZERO));
                true
            }
            Way::LastResort => true,
        };
        // A failure that comes in between changes the number and stays.
        if seen == 0 || !is_proof || self.fails.compare_exchange(seen, 0, AcqRel, Relaxed).is_err()
        {
            return false;
        }
        let returns = rules.max_fails > 0 && seen >= rules.max_fails;
        if returns {
            self.back.store(Stamp::of(now));
        }
        returns
    }

    /// A request has failed, after an answer if it has `answered`. What it says of the peer.
    pub(super) fn failed(
        &self,
        rules: &Rules,
        taken: Taken,
        answered: bool,
        now: Instant,
    ) -> Verdict {
        let at = Stamp::of(now);
        if rules.recovery == Recovery::Eager && !answered && taken.at < self.back.load() {
            // The peer has answered others that were sent later.
            self.unused(taken);
            return Verdict::Outdated;
        }
        self.failed.store(at);
        self.checked.store(at);
        let before = self.fails.load(Relaxed);
        let out = rules.max_fails > 0 && before.saturating_add(1) >= rules.max_fails;
        let probe = match taken.way {
            Way::Probe { held, .. } if !answered && self.due.load() == held => Some(held),
            _ => None,
        };
        let was_in_use = before < rules.max_fails;
        if out {
            self.rest(rules, at, self.outage(was_in_use, answered, probe, at));
        }
        // Who sees the failure counted must see how long it rests.
        self.fails.fetch_add(1, AcqRel);
        match out {
            true if was_in_use || probe.is_some() => Verdict::Disabled,
            _ => Verdict::Counted,
        }
    }

    /// What a failure at `at` means for a peer that is out of use now.
    fn outage(&self, was_in_use: bool, answered: bool, probe: Option<i64>, at: i64) -> Outage {
        if !was_in_use {
            return probe.map_or(Outage::Still, |held| Outage::Probed { held });
        }
        let undone = answered && at.saturating_sub(self.back.load()) < nanos(MOMENT);
        match undone {
            false => Outage::New,
            true if at > self.due.load() => Outage::StillAfterRest,
            // It came back as the last resort, and the rest goes on.
            true => Outage::Still,
        }
    }

    fn rest(&self, rules: &Rules, from: i64, outage: Outage) {
        let before = self.doublings.load(Relaxed);
        let doublings = match outage {
            Outage::New => FIRST_DOUBLINGS,
            Outage::Still => before,
            Outage::StillAfterRest | Outage::Probed { .. } => before.saturating_add(1),
        };
        self.doublings.store(doublings, Relaxed);
        let due = rested(from, rules.rest(doublings));
        match outage {
            // What is left of a rest that the last resort has cut short is of an outage before.
            Outage::New => self.due.store(due),
            Outage::Probed { held } if self.due.replace(held, due) => {}
            // While a probe is under way there is no other.
            _ => self.due.postpone(due),
        }
    }

    /// Nobody waits for the answer any longer. That says nothing of the peer, but the next probe
    /// does not come at once; later still if this one had as long as a rest.
    pub(super) fn abandoned(&self, rules: &Rules, taken: Taken, now: Instant) {
        let Way::Probe { held, .. } = taken.way else { return };
        let (at, before) = (Stamp::of(now), self.doublings.load(Relaxed));
        let long = at.saturating_sub(taken.at) >= nanos(rules.rest(before));
        let (from, doublings) =
            if long { (at, before.saturating_add(1)) } else { (taken.at, before) };
        if self.due.replace(held, rested(from, rules.rest(doublings))) {
            self.doublings.store(doublings, Relaxed);
        }
    }

    /// The request was not sent: the next one is the probe that this one was.
    pub(super) fn unused(&self, taken: Taken) {
        if let Way::Probe { before, held } = taken.way {
            self.due.replace(held, before);
        }
    }

    /// Whether it is in use, and has been for more than a [`MOMENT`].
    pub(super) fn in_steady_use(&self, rules: &Rules, now: Instant) -> bool {
        !self.is_failing(rules) && self.back_for(now).is_none_or(|back| back >= MOMENT)
    }

    /// Others are back that had failed as it has: ends its rest. A probe that is under way remains
    /// the only one, and who was of no use when it was last back rests as before.
    pub(super) fn hasten(&self, rules: &Rules, now: Instant) {
        let due = self.due.load();
        let undone = self.failed.load().saturating_sub(self.back.load()) < nanos(MOMENT);
        if undone || is_held(due) || !self.is_failing(rules) {
            return;
        }
        if self.due.replace(due, due.min(rested(Stamp::of(now), Duration::ZERO))) {
            self.doublings.store(0, Relaxed);
        }
    }

    /// Checks have found that it is healthy again: it comes back into use with nothing against it.
    pub(super) fn come_back(&self, now: Instant) {
        self.fails.store(0, Release);
        self.back.store(Stamp::of(now));
    }

    /// The only peer of its group has answered: there is nothing to wait for.
    pub(super) fn forget_failures(&self) {
        self.fails.store(0, Relaxed);
    }
}

/// When a probe is due after a rest: an even number, which costs a nanosecond at most.
fn rested(from: i64, rest: Duration) -> i64 {
    from.saturating_add(nanos(rest)).saturating_add(1) & !1
}

/// When the next probe is due if nothing is heard of one that is under way since `from`: an odd
/// number.
fn held(from: i64, fail_timeout: Duration) -> i64 {
    from.saturating_add(nanos(fail_timeout)) | 1
}

fn is_held(due: i64) -> bool {
    due & 1 == 1
}

/// What a peer is out of use for.
#[derive(Clone, Copy, Debug)]
enum Outage {
    /// It was of use before.
    New,
    /// It has not been of use since the last one.
    Still,
    /// Likewise, although it had a whole rest.
    StillAfterRest,
    /// Likewise, and the probe that holds its place until `held` has found that out.
    Probed { held: i64 },
}

/// What a failed request says of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is out of use, for the first time or still.
    Disabled,
    /// It counts, and changes nothing.
    Counted,
    /// Nothing: it was sent before the peer came back.
    Outdated,
}

#[cfg(test)]
mod tests;
