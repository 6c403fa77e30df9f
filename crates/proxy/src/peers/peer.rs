//! One peer: what the configuration says of it, and what is known of it.
//!
//! All workers choose among the same peers, and none of them waits for another: what is known is
//! made of atomics. Two things must be exact, and each is one compare-and-swap: a connection is
//! only counted while there is room for it (`max_conns`), and of all requests that find a failed
//! peer rested one is given the chance to see whether it is back.

use std::cmp::Ordering;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicI64, AtomicU32};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use wssgate_config::model::{ListenAddr, UpstreamServer};

use super::sticky::PeerId;

/// One address of one `server` line.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where to connect.
    pub address: ListenAddr,
    /// The address as text, for `$upstream_addr` and messages.
    pub name: Box<str>,
    pub(super) weight: i64,
    pub(super) max_conns: u32,
    pub(super) max_fails: u32,
    pub(super) fail_timeout: Duration,
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
    pub(super) conns: AtomicU32,
    fails: AtomicU32,
    /// When it last failed.
    accessed: Stamp,
    /// When it last failed or was given another chance.
    checked: Stamp,
    /// The weight that the effective one belongs to.
    weight: AtomicI64,
    /// The weight in use: failures take from it, and it grows back from choice to choice.
    effective_weight: AtomicI64,
}

/// A connection to a peer that was counted. It holds the chance that the peer was given, if it
/// was, so that an unused one can be given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken(Option<Chance>);

#[derive(Clone, Copy, Debug)]
struct Chance {
    given: i64,
    before: i64,
}

impl Peer {
    /// The peer at one of the addresses of `server`, which is in that `line`.
    pub(super) fn new(
        server: &UpstreamServer,
        line: usize,
        address: &ListenAddr,
        state: Arc<State>,
    ) -> Self {
        let weight = i64::from(server.weight);
        let route = server.route.as_deref().and_then(PeerId::new);
        // Another weight begins anew.
        if state.weight.swap(weight, Relaxed) != weight {
            state.effective_weight.store(weight, Relaxed);
        }
        Self {
            address: address.clone(),
            name: address.to_string().into(),
            weight,
            max_conns: server.max_conns,
            max_fails: server.max_fails,
            fail_timeout: server.fail_timeout,
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
        !self.full() && (!self.failing() || self.rested(self.state.checked.load(), now))
    }

    pub(super) fn full(&self) -> bool {
        self.max_conns > 0 && self.state.conns.load(Relaxed) >= self.max_conns
    }

    fn failing(&self) -> bool {
        self.max_fails > 0 && self.state.fails.load(Relaxed) >= self.max_fails
    }

    /// Whether `fail_timeout` has passed since it was last checked.
    fn rested(&self, checked: i64, now: Instant) -> bool {
        checked == Stamp::NEVER || Stamp::of(now).saturating_sub(checked) > nanos(self.fail_timeout)
    }

    /// Compares connections per weight.
    pub(super) fn compare_load(&self, other: &Self) -> Ordering {
        // Multiplied crosswise, because a division would round.
        let conns = |peer: &Self| i64::from(peer.state.conns.load(Relaxed));
        (conns(self) * other.weight).cmp(&(conns(other) * self.weight))
    }

    /// The weight for one round of round robin; what failures took comes back by one.
    pub(super) fn gain(&self) -> i64 {
        let effective = self.state.effective_weight.load(Relaxed);
        if effective < self.weight {
            // Of two workers that do this at once one may be lost: it grows a little slower.
            self.state.effective_weight.store(effective + 1, Relaxed);
        }
        effective
    }

    /// Counts a connection to the chosen peer. `None`: another worker has taken the last one, or
    /// the chance of a peer that had rested.
    pub(super) fn take(&self, now: Instant) -> Option<Taken> {
        self.take_anyway()?;
        let before = self.state.checked.load();
        if self.rested(before, now) {
            let given = Stamp::of(now);
            if self.state.checked.replace(before, given) {
                return Some(Taken(Some(Chance { given, before })));
            }
        }
        // Only a peer that fails depends on a chance.
        if self.failing() {
            self.give_back();
            return None;
        }
        Some(Taken(None))
    }

    /// Counts a connection whatever its failures; `None` if there is no room for it.
    pub(super) fn take_anyway(&self) -> Option<Taken> {
        let conns = &self.state.conns;
        if self.max_conns == 0 {
            conns.fetch_add(1, Relaxed);
        } else {
            let room = |conns| (conns < self.max_conns).then(|| conns + 1);
            conns.fetch_update(Relaxed, Relaxed, room).ok()?;
        }
        Some(Taken(None))
    }

    /// A connection has ended.
    pub(super) fn give_back(&self) {
        self.state.conns.fetch_sub(1, Relaxed);
    }

    /// A connection has ended without an answer: the next request has the chance that it had.
    pub(super) fn give_back_unused(&self, taken: Taken) {
        if let Some(Chance { given, before }) = taken.0 {
            self.state.checked.replace(given, before);
        }
        self.give_back();
    }

    /// It has shown that it is alive: failures are forgotten if it was given a chance after the
    /// last of them.
    pub(super) fn alive(&self) {
        let State { fails, accessed, checked, .. } = &*self.state;
        let seen = fails.load(Acquire);
        if seen > 0 && accessed.load() < checked.load() {
            // A failure that comes in between changes the number and stays.
            let _ = fails.compare_exchange(seen, 0, AcqRel, Relaxed);
        }
    }

    /// It has failed. Says whether it is now out of use for a while.
    pub(super) fn fail(&self, now: Instant) -> bool {
        let State { fails, accessed, checked, effective_weight, .. } = &*self.state;
        let now = Stamp::of(now);
        // Who sees the failure counted must see when it was.
        accessed.store(now);
        checked.store(now);
        let fails = fails.fetch_add(1, AcqRel).saturating_add(1);
        if self.max_fails == 0 {
            return false;
        }
        let lost = self.weight / i64::from(self.max_fails);
        let left = effective_weight.load(Relaxed) - lost;
        effective_weight.store(left.max(0), Relaxed);
        fails >= self.max_fails
    }

    /// The only peer of its group has answered: there is nothing to wait for.
    pub(super) fn forget_failures(&self) {
        self.state.fails.store(0, Relaxed);
    }
}

/// A time in an atomic: nanoseconds since the program began, as far as anybody can tell.
#[derive(Debug)]
struct Stamp(AtomicI64);

impl Default for Stamp {
    fn default() -> Self {
        Self(AtomicI64::new(Self::NEVER))
    }
}

impl Stamp {
    /// Before all others.
    const NEVER: i64 = i64::MIN;

    fn of(now: Instant) -> i64 {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        match now.checked_duration_since(*BEGAN) {
            Some(since) => nanos(since),
            // Whoever asks first may have taken the time before.
            None => -nanos(BEGAN.duration_since(now)),
        }
    }

    fn load(&self) -> i64 {
        self.0.load(Relaxed)
    }

    fn store(&self, stamp: i64) {
        self.0.store(stamp, Relaxed);
    }

    /// Whether it was `before`, which it is no longer then.
    fn replace(&self, before: i64, after: i64) -> bool {
        self.0.compare_exchange(before, after, Relaxed, Relaxed).is_ok()
    }
}

/// Up to 292 years.
fn nanos(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(duration.subsec_nanos()))
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
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
            drain: false,
            route: None,
        };
        Peer::new(&server, 0, &ListenAddr::Unix("peer".into()), Arc::default())
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
    fn of_two_that_take_a_chance_one_is_told() {
        let (peer, now) = (peer(0), Instant::now());
        peer.fail(now);
        let rested = now + Duration::from_secs(11);
        assert!(peer.take(rested).is_some());
        assert!(peer.take(rested).is_none());
        assert_eq!(peer.state.conns.load(Relaxed), 1);
    }

    #[test]
    fn a_stamp_is_replaced_only_by_those_who_know_it() {
        let stamp = Stamp::default();
        assert!(stamp.replace(Stamp::NEVER, 7));
        assert!(!stamp.replace(Stamp::NEVER, 8));
        assert_eq!(stamp.load(), 7);
    }

    #[test]
    fn stamps_are_in_the_order_of_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let stamps = [now - second, now, now + second].map(Stamp::of);
        assert_eq!(stamps[1] - stamps[0], 1_000_000_000);
        assert_eq!(stamps[2] - stamps[1], 1_000_000_000);
        assert!(Stamp::NEVER < stamps[0]);
    }
}
