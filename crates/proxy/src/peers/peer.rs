//! One peer: what the configuration says of it, and what is known of it.
//!
//! All workers choose among the same peers, and none of them waits for another: what is known is
//! made of atomics. Two things must be exact, and each is one compare-and-swap: a connection is
//! only counted while there is room for it (`max_conns`), and of all requests that find a failed
//! peer rested one is the probe ([`Health`]).

use std::cmp::Ordering;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU32};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use wssgate_config::model::{ListenAddr, OnDown, Recovery, TimeOf, UpstreamServer};

use super::balance::Load;
use super::checked::{Checked, Rules as CheckRules, Standing};
use super::health::{Health, Rules, Taken, Verdict};
use super::overrides::Usage;
use super::pace::Pace;
use super::sticky::PeerId;
use crate::metrics::Tally;

/// Weights are reckoned in so many parts, so that one that grows slowly has steps.
pub(super) const UNIT: i64 = 256;

/// Times of answers that are all the same to `least_time`, and the longest that it tells apart, in
/// milliseconds; as in nginx.
const STEP: u64 = 20;
const LONGEST: u64 = 5000;

/// One address of one `server` line.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The name of its group.
    pub(super) group: Arc<[u8]>,
    /// Where to connect.
    pub address: ListenAddr,
    /// The address as text, for `$upstream_addr` and messages.
    pub name: Box<str>,
    pub(super) weight: i64,
    pub(super) max_conns: u32,
    pub(super) rules: Rules,
    pub(super) slow_start: Duration,
    /// Not chosen, because it is `down` or `drain`.
    pub(super) down: bool,
    /// Used by clients that stick to it all the same.
    drain: bool,
    id: OnceLock<PeerId>,
    /// The `server` line that it comes from; addresses of one line share a place on the ring.
    pub(super) line: usize,
    /// Shared with the peer of the same address in other sets of the group.
    pub(super) state: Arc<State>,
}

/// What is known of a peer, whatever set it is in.
#[derive(Debug, Default)]
pub(super) struct State {
    number: Number,
    pub(super) conns: AtomicU32,
    /// Those of them that have switched protocols.
    pub(super) tunnels: Tally,
    /// Connections and requests that failed, since it is known.
    pub(super) failures: Tally,
    pub(super) health: Health,
    pub(super) checked: Checked,
    pub(super) pace: Pace,
    /// The weight that the effective one belongs to.
    weight: AtomicI64,
    /// The weight in use: failures take from it, and it grows back from choice to choice.
    effective_weight: AtomicI64,
}

impl State {
    /// Of a peer that nobody has known before.
    pub(super) fn new(checks: &CheckRules) -> Self {
        Self { checked: Checked::new(checks), ..Self::default() }
    }
}

/// What tells a peer from all others of the process, in numbers.
#[derive(Debug)]
struct Number(u32);

impl Default for Number {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

impl Peer {
    /// The peer of a group at one of the addresses of `server`, which is in that `line`.
    pub(super) fn new(
        server: &UpstreamServer,
        recovery: Recovery,
        line: usize,
        (group, address): (&Arc<[u8]>, &ListenAddr),
        state: Arc<State>,
    ) -> Self {
        let weight = i64::from(server.weight);
        let route = server.route.as_deref().and_then(PeerId::new);
        // Another weight begins anew.
        if state.weight.swap(weight, Relaxed) != weight {
            state.effective_weight.store(weight, Relaxed);
        }
        let rules =
            Rules { max_fails: server.max_fails, fail_timeout: server.fail_timeout, recovery };
        Self {
            group: Arc::clone(group),
            address: address.clone(),
            name: address.to_string().into(),
            weight,
            max_conns: server.max_conns,
            rules,
            slow_start: server.slow_start,
            down: server.down || server.drain,
            drain: server.drain,
            id: route.map_or_else(OnceLock::new, OnceLock::from),
            line,
            state,
        }
    }

    /// What `sticky` calls it: its `route=`, or the MD5 of its address.
    pub fn id(&self) -> &PeerId {
        self.id.get_or_init(|| PeerId::of_address(&self.name))
    }

    /// What its tunnels are known by: the same in all generations.
    pub fn number(&self) -> u32 {
        self.state.number.0
    }

    /// How it is used.
    pub(super) fn usage(&self) -> Usage {
        match (self.drain, self.down) {
            (true, _) => Usage::Drain,
            (false, true) => Usage::Down,
            (false, false) => Usage::Up,
        }
    }

    /// Whether health checks are to ask it: those that are `down` get no requests in any case.
    pub(super) fn is_checked(&self) -> bool {
        !self.down || self.drain
    }

    /// Whether health checks let it have requests.
    pub(super) fn is_up(&self) -> bool {
        self.state.checked.standing() == Standing::Up
    }

    /// What is to become of its tunnels, because health checks have failed.
    pub(crate) fn on_down(&self) -> OnDown {
        match self.state.checked.standing() {
            Standing::Down(on_down) => on_down,
            Standing::Up | Standing::Checking => OnDown::Keep,
        }
    }

    /// Whether it may be chosen.
    pub(super) fn usable(&self, now: Instant) -> bool {
        !self.down && self.has_room_and_health(now)
    }

    /// Whether it is the one that is wanted, and those who want it may use it.
    pub(super) fn is_wanted(&self, wanted: &PeerId) -> bool {
        (!self.down || self.drain) && self.id() == wanted
    }

    pub(super) fn has_room_and_health(&self, now: Instant) -> bool {
        // Only a look: by the time of `take` another worker may have been there, and that decides.
        self.has_room() && self.is_up() && self.state.health.usable(&self.rules, now)
    }

    /// Whether there is room for one more connection.
    pub(super) fn has_room(&self) -> bool {
        self.max_conns == 0 || self.state.conns.load(Relaxed) < self.max_conns
    }

    /// Whether it is used: it is neither `down` nor out of use for its failures.
    pub(super) fn is_in_use(&self) -> bool {
        !self.down && !self.state.health.is_failing(&self.rules)
    }

    /// Compares what two peers have to do for their weight.
    pub(super) fn compare_load(&self, other: &Self, load: Load, now: Instant) -> Ordering {
        // Multiplied crosswise, because a division would round.
        let product = |peer: &Self, other: &Self| {
            u128::from(peer.load(load, now)) * u128::from(other.share(other.weight, now))
        };
        product(self, other).cmp(&product(other, self))
    }

    fn load(&self, load: Load, now: Instant) -> u64 {
        let connections = u64::from(self.state.conns.load(Relaxed));
        match load {
            Load::Connections => connections,
            Load::Time { of, inflight } => {
                self.expected(of, inflight, now).saturating_mul(1 + connections)
            }
        }
    }

    /// The time in milliseconds that one more request is expected to take; nginx's formula.
    fn expected(&self, of: TimeOf, inflight: bool, now: Instant) -> u64 {
        let State { pace, health, .. } = &*self.state;
        let mut time = pace.milliseconds(of);
        let (checked, timeout) = (health.checked_for(now), self.rules.fail_timeout);
        if let Some(checked) = checked.filter(|checked| *checked > timeout) {
            // Half as much for each `fail_timeout`, so that a slow peer has a chance again.
            time >>= (checked.as_secs() / (timeout.as_secs() + 1)).min(63);
        }
        if inflight && let Some(waiting) = pace.waiting(now) {
            time = time.max(waiting);
        }
        if time > LONGEST { LONGEST } else { time + STEP - time % STEP }
    }

    /// The weight for one round of round robin; what failures took comes back by one.
    pub(super) fn gain(&self, now: Instant) -> i64 {
        let effective = self.state.effective_weight.load(Relaxed);
        if effective < self.weight {
            // Of two workers that do this at once one may be lost: it grows a little slower.
            self.state.effective_weight.store(effective + 1, Relaxed);
        }
        i64::try_from(self.share(effective, now)).unwrap_or(i64::MAX)
    }

    /// A weight in [`UNIT`]s, and less of it while the peer is back for less than `slow_start`.
    fn share(&self, weight: i64, now: Instant) -> u64 {
        let whole = u64::try_from(weight * UNIT).unwrap_or_default();
        if self.slow_start.is_zero() {
            return whole;
        }
        match self.state.health.back_for(now) {
            Some(back) if back < self.slow_start => {
                let grown = u128::from(whole) * back.as_nanos() / self.slow_start.as_nanos();
                u64::try_from(grown).unwrap_or(whole).max(1)
            }
            _ => whole,
        }
    }

    /// Counts a connection to the chosen peer. `None`: another worker has taken the last one, or
    /// has begun to probe a peer that had rested; or a health check has failed.
    pub(super) fn take(&self, now: Instant) -> Option<Taken> {
        if !self.is_up() {
            return None;
        }
        self.count()?;
        let taken = self.state.health.take(&self.rules, now);
        if taken.is_none() {
            self.give_back();
        }
        taken
    }

    /// Counts a connection whatever the failures of requests; `None` if there is no room for it, or a health check
    /// has failed.
    pub(super) fn take_anyway(&self, now: Instant) -> Option<Taken> {
        if !self.is_up() {
            return None;
        }
        self.count()?;
        Some(self.state.health.take_anyway(&self.rules, now))
    }

    fn count(&self) -> Option<()> {
        let conns = &self.state.conns;
        if self.max_conns == 0 {
            conns.fetch_add(1, Relaxed);
            return Some(());
        }
        let room = |conns| (conns < self.max_conns).then(|| conns + 1);
        conns.fetch_update(Relaxed, Relaxed, room).ok().map(drop)
    }

    /// Counts a connection that there is already.
    pub(super) fn count_anyway(&self) {
        self.state.conns.fetch_add(1, Relaxed);
    }

    /// A connection has ended.
    pub(super) fn give_back(&self) {
        self.state.conns.fetch_sub(1, Relaxed);
    }

    /// It has answered. Says whether that brought it back into use.
    pub(super) fn answered(&self, taken: Taken, now: Instant) -> bool {
        self.state.health.answered(&self.rules, taken, now)
    }

    /// It has failed, after an answer if it has `answered`. Says whether it is now out of use for a
    /// while.
    pub(super) fn failed(&self, taken: Taken, answered: bool, now: Instant) -> bool {
        let verdict = self.state.health.failed(&self.rules, taken, answered, now);
        if verdict != Verdict::Outdated && self.rules.max_fails > 0 {
            let effective_weight = &self.state.effective_weight;
            let lost = self.weight / i64::from(self.rules.max_fails);
            let left = effective_weight.load(Relaxed) - lost;
            effective_weight.store(left.max(0), Relaxed);
        }
        verdict == Verdict::Disabled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(max_conns: u32) -> Peer {
        let server = UpstreamServer {
            name: b"peer".as_slice().into(),
            addresses: Vec::new(),
            weight: 1,
            max_conns,
            max_fails: 1,
            slow_start: Duration::ZERO,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
            drain: false,
            route: None,
            resolve: None,
        };
        let address = ListenAddr::Unix("peer".into());
        Peer::new(&server, Recovery::Eager, 0, (&Arc::default(), &address), Arc::default())
    }

    /// Two workers have both seen that it can be used.
    #[test]
    fn of_two_that_take_the_last_connection_one_is_told() {
        let (peer, now) = (peer(1), Instant::now());
        assert!(peer.take(now).is_some());
        assert!(peer.take(now).is_none());
        peer.give_back();
        assert!(peer.take(now).is_some());
    }

    #[test]
    fn of_two_that_probe_one_is_told() {
        let (peer, now) = (peer(0), Instant::now());
        let taken = peer.take(now).expect("it is in use");
        peer.failed(taken, false, now);
        peer.give_back();
        let rested = now + Duration::from_secs(11);
        assert!(peer.take(rested).is_some());
        assert!(peer.take(rested).is_none());
        assert_eq!(peer.state.conns.load(Relaxed), 1);
    }
}
