//! Which peer comes next: nginx's balancers as functions of peers, their state and the time.
//!
//! Round robin is the base of all: every usable peer gains its effective weight, the richest is
//! taken and pays what all gained. So weights 5, 1, 1 give `a a b a c a a` and not `a a a a a b c`.
//! The other methods look for a peer in their own way and come back to round robin when they do
//! not find one within [`MAX_DRAWS`].
//!
//! A [`Selection`] is what one request remembers: which peers it has tried, in which tier.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::crc32::Crc32;

/// Draws of a hashing or random method before round robin decides, as nginx has it.
const MAX_DRAWS: u32 = 20;

/// What the configuration says of a peer.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) weight: i64,
    pub(crate) max_conns: u32,
    pub(crate) max_fails: u32,
    pub(crate) fail_timeout: Duration,
    pub(crate) down: bool,
    /// Where its state is.
    pub(crate) slot: usize,
    /// The `server` line that it comes from; addresses of one line share a place on the ring.
    pub(crate) line: usize,
}

/// What changes of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    pub(crate) conns: u32,
    weight: i64,
    fails: u32,
    /// When it last failed.
    accessed: Option<Instant>,
    /// When it last failed or was given another chance.
    checked: Option<Instant>,
    current_weight: i64,
    effective_weight: i64,
}

impl State {
    /// Starts round robin anew if a new configuration has another weight.
    pub(crate) fn set_weight(&mut self, weight: i64) {
        if self.weight != weight {
            (self.weight, self.current_weight, self.effective_weight) = (weight, 0, weight);
        }
    }
}

/// The peers of one tier (the ordinary or the backup servers), in the order of the configuration.
pub(crate) struct Tier<'a> {
    pub(crate) rules: &'a [Rules],
    /// States of these peers and of others; [`Rules::slot`] is the index.
    pub(crate) states: &'a mut [State],
    /// Only one peer in the whole group: it is used whatever its failures.
    pub(crate) single: bool,
    pub(crate) total_weight: i64,
}

impl Tier<'_> {
    fn state(&self, index: usize) -> &State {
        &self.states[self.rules[index].slot]
    }

    fn state_mut(&mut self, index: usize) -> &mut State {
        &mut self.states[self.rules[index].slot]
    }

    fn usable(&self, index: usize, now: Instant) -> bool {
        let (rules, state) = (&self.rules[index], self.state(index));
        let failing = rules.max_fails > 0 && state.fails >= rules.max_fails;
        !rules.down && !self.full(index) && (!failing || self.rested(index, now))
    }

    fn full(&self, index: usize) -> bool {
        let max_conns = self.rules[index].max_conns;
        max_conns > 0 && self.state(index).conns >= max_conns
    }

    /// Whether `fail_timeout` has passed since it was last checked.
    fn rested(&self, index: usize, now: Instant) -> bool {
        let fail_timeout = self.rules[index].fail_timeout;
        self.state(index)
            .checked
            .is_none_or(|checked| now.saturating_duration_since(checked) > fail_timeout)
    }

    /// It was chosen: a peer that has rested gets a chance to prove itself.
    fn check(&mut self, index: usize, now: Instant) {
        if self.rested(index, now) {
            self.state_mut(index).checked = Some(now);
        }
    }

    /// Compares connections per weight of two peers.
    fn compare_load(&self, one: usize, other: usize) -> Ordering {
        let load = |a: usize, b: usize| i64::from(self.state(a).conns) * self.rules[b].weight;
        load(one, other).cmp(&load(other, one))
    }

    /// The peer to which `place` belongs when peers lie side by side, each as long as its weight.
    fn owner(&self, place: u64) -> Option<usize> {
        let mut left = i64::try_from(place).ok()?;
        self.rules.iter().position(|rules| {
            left -= rules.weight;
            left < 0
        })
    }
}

/// How peers are chosen.
#[derive(Clone, Debug)]
pub(crate) enum Method {
    RoundRobin,
    LeastConn,
    /// `ip_hash` and `hash` differ in [`Selection::new`]'s key only by how it is hashed.
    IpHash,
    Hash,
    Consistent(Ring),
    Random {
        two: bool,
    },
}

/// What one request remembers from try to try.
#[derive(Clone, Debug)]
pub struct Selection {
    tried: Tried,
    pub(crate) backup: bool,
    draws: u32,
    rehash: u32,
    hash: u64,
    key: Box<[u8]>,
}

impl Selection {
    /// `key` is the hashed text, or for `ip_hash` the bytes of the address that count.
    pub(crate) fn new(method: &Method, key: &[u8]) -> Self {
        let hash = match method {
            Method::IpHash => 89,
            Method::Consistent(ring) => ring.position(Crc32::of(key)),
            _ => 0,
        };
        Self { tried: Tried::default(), backup: false, draws: 0, rehash: 0, hash, key: key.into() }
    }

    /// Goes over to the backup servers.
    pub(crate) fn use_backup(&mut self) {
        self.backup = true;
        self.tried = Tried::default();
    }

    /// Chooses a peer of `tier` and counts a connection for it; `random` gives a number for each
    /// draw.
    pub(crate) fn choose(
        &mut self,
        method: &Method,
        tier: &mut Tier<'_>,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let chosen = self.chosen(method, tier, now, random)?;
        tier.state_mut(chosen).conns += 1;
        Some(chosen)
    }

    fn chosen(
        &mut self,
        method: &Method,
        tier: &mut Tier<'_>,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        if tier.single {
            return (!tier.rules.first()?.down && !tier.full(0)).then_some(0);
        }
        if tier.rules.len() < 2 || tier.total_weight == 0 {
            return self.round_robin(tier, now, |_, _| true);
        }
        let found = match method {
            Method::RoundRobin => None,
            Method::LeastConn => return self.least_conn(tier, now),
            Method::IpHash => self.draw(tier, now, Self::next_ip_hash),
            Method::Hash if self.key.is_empty() => None,
            Method::Hash => self.draw(tier, now, Self::next_hash),
            Method::Consistent(_) if self.key.is_empty() => None,
            Method::Consistent(ring) => return self.consistent(ring, tier, now),
            Method::Random { two: false } => {
                self.draw(tier, now, |_, total_weight| random() % total_weight)
            }
            Method::Random { two: true } => self.lighter_of_two(tier, now, random),
        };
        match found {
            Some(index) => {
                tier.check(index, now);
                self.tried.insert(index);
                Some(index)
            }
            None => self.round_robin(tier, now, |_, _| true),
        }
    }

    /// Smooth weighted round robin among the peers that `fits` lets pass.
    fn round_robin(
        &mut self,
        tier: &mut Tier<'_>,
        now: Instant,
        fits: impl Fn(&Tier<'_>, usize) -> bool,
    ) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, rules) in tier.rules.iter().enumerate() {
            if self.tried.contains(index) || !tier.usable(index, now) || !fits(tier, index) {
                continue;
            }
            let state = tier.state_mut(index);
            state.current_weight += state.effective_weight;
            total += state.effective_weight;
            if state.effective_weight < rules.weight {
                state.effective_weight += 1;
            }
            if best.is_none_or(|(_, weight)| state.current_weight > weight) {
                best = Some((index, state.current_weight));
            }
        }
        let (index, _) = best?;
        tier.state_mut(index).current_weight -= total;
        tier.check(index, now);
        self.tried.insert(index);
        Some(index)
    }

    /// The fewest connections for its weight; round robin among equals.
    fn least_conn(&mut self, tier: &mut Tier<'_>, now: Instant) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut many = false;
        for index in 0..tier.rules.len() {
            if self.tried.contains(index) || !tier.usable(index, now) {
                continue;
            }
            match best.map(|best| tier.compare_load(index, best)) {
                Some(Ordering::Greater) => {}
                Some(Ordering::Equal) => many = true,
                Some(Ordering::Less) | None => (best, many) = (Some(index), false),
            }
        }
        let best = best?;
        if many {
            return self
                .round_robin(tier, now, |tier, index| tier.compare_load(index, best).is_eq());
        }
        tier.check(best, now);
        self.tried.insert(best);
        Some(best)
    }

    /// Draws places on the line of all weights until one belongs to a peer that can be used.
    fn draw(
        &mut self,
        tier: &Tier<'_>,
        now: Instant,
        mut next: impl FnMut(&mut Self, u64) -> u64,
    ) -> Option<usize> {
        while self.draws <= MAX_DRAWS {
            let place = next(self, tier.total_weight.unsigned_abs());
            let index = tier.owner(place)?;
            if !self.tried.contains(index) && tier.usable(index, now) {
                return Some(index);
            }
            self.draws += 1;
        }
        None
    }

    fn next_ip_hash(&mut self, total_weight: u64) -> u64 {
        self.hash =
            self.key.iter().fold(self.hash, |hash, byte| (hash * 113 + u64::from(*byte)) % 6271);
        self.hash % total_weight
    }

    /// The hash of Cache::Memcached: bits of the CRC of the key, which gets a number before it
    /// when it is hashed again.
    fn next_hash(&mut self, total_weight: u64) -> u64 {
        let mut crc = Crc32::new();
        if self.rehash > 0 {
            crc.update(self.rehash.to_string().as_bytes());
        }
        crc.update(&self.key);
        self.rehash += 1;
        // nginx keeps the sum in 32 bits.
        self.hash = (self.hash + u64::from((crc.finish() >> 16) & 0x7fff)) & 0xffff_ffff;
        self.hash % total_weight
    }

    /// The next place of the ring whose server has a peer that can be used.
    fn consistent(&mut self, ring: &Ring, tier: &mut Tier<'_>, now: Instant) -> Option<usize> {
        // The ring knows the ordinary servers; backup servers are reached by round robin.
        while self.draws <= MAX_DRAWS && !self.backup {
            let Some(line) = ring.line_at(self.hash) else { break };
            if let Some(index) =
                self.round_robin(tier, now, |tier, index| tier.rules[index].line == line)
            {
                return Some(index);
            }
            self.hash += 1;
            self.draws += 1;
        }
        self.round_robin(tier, now, |_, _| true)
    }

    /// Draws two different peers and takes the one with fewer connections for its weight.
    fn lighter_of_two(
        &mut self,
        tier: &Tier<'_>,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let total_weight = tier.total_weight.unsigned_abs();
        let mut first: Option<usize> = None;
        while self.draws <= MAX_DRAWS {
            let index = tier.owner(random() % total_weight)?;
            let other = first != Some(index);
            if other && !self.tried.contains(index) && tier.usable(index, now) {
                let Some(first) = first.replace(index) else { continue };
                let heavier = tier.compare_load(index, first).is_gt();
                return Some(if heavier { first } else { index });
            }
            self.draws += 1;
        }
        None
    }
}

/// What the end of a connection says of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer has done what it should.
    Well,
    /// The peer failed.
    Failed,
    /// Nothing, or nothing new.
    Unjudged,
}

/// The peer has shown that it is alive. Failures are forgotten if it was given a chance after the
/// last of them.
pub(crate) fn alive(state: &mut State) {
    if state.accessed < state.checked {
        state.fails = 0;
    }
}

/// A connection to a peer has ended. Says whether the peer is now out of use for a while.
pub(crate) fn release(
    rules: &Rules,
    state: &mut State,
    single: bool,
    ended: Ended,
    now: Instant,
) -> bool {
    state.conns = state.conns.saturating_sub(1);
    if ended == Ended::Unjudged {
        return false;
    }
    if single {
        state.fails = 0;
        return false;
    }
    if ended == Ended::Well {
        alive(state);
        return false;
    }
    state.fails = state.fails.saturating_add(1);
    (state.accessed, state.checked) = (Some(now), Some(now));
    if rules.max_fails == 0 {
        return false;
    }
    let lost = rules.weight / i64::from(rules.max_fails);
    state.effective_weight = (state.effective_weight - lost).max(0);
    state.fails >= rules.max_fails
}

/// The ring of `hash … consistent`: 160 points for each unit of weight of each server, the same
/// as those of Cache::Memcached::Fast.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    /// Hash and `server` line, sorted by hash.
    points: Box<[(u32, usize)]>,
}

impl Ring {
    /// Makes the ring of peers given by the text of their `server` line, its number and weight.
    pub(crate) fn new<'a>(peers: impl IntoIterator<Item = (&'a [u8], usize, i64)>) -> Self {
        let mut points = Vec::new();
        for (server, line, weight) in peers {
            let (host, port) = host_and_port(server);
            let mut base = Crc32::new();
            base.update(host);
            base.update(b"\0");
            base.update(port);
            let mut previous = 0u32;
            for _ in 0..weight * 160 {
                let mut crc = base;
                crc.update(&previous.to_le_bytes());
                previous = crc.finish();
                points.push((previous, line));
            }
        }
        // Stable, so that of equal points the first server's stays.
        points.sort_by_key(|(hash, _)| *hash);
        points.dedup_by_key(|(hash, _)| *hash);
        Self { points: points.into() }
    }

    /// The index of the first point that is not before `hash`; may be one past the last.
    fn position(&self, hash: u32) -> u64 {
        self.points.partition_point(|(point, _)| *point < hash) as u64
    }

    fn line_at(&self, position: u64) -> Option<usize> {
        let count = self.points.len() as u64;
        let index = usize::try_from(position.checked_rem(count)?).ok()?;
        self.points.get(index).map(|(_, line)| *line)
    }
}

/// Splits off a decimal port; a Unix socket is all host.
fn host_and_port(server: &[u8]) -> (&[u8], &[u8]) {
    if let Some((prefix, path)) = server.split_at_checked(5)
        && prefix.eq_ignore_ascii_case(b"unix:")
    {
        return (path, b"");
    }
    match server.iter().rposition(|byte| !byte.is_ascii_digit()) {
        Some(colon) if server[colon] == b':' => (&server[..colon], &server[colon + 1..]),
        _ => (server, b""),
    }
}

/// A set of small numbers, without memory of its own for the first 64.
#[derive(Clone, Debug, Default)]
struct Tried {
    first: u64,
    more: Vec<usize>,
}

impl Tried {
    fn contains(&self, index: usize) -> bool {
        match index {
            0..64 => self.first & (1 << index) != 0,
            _ => self.more.contains(&index),
        }
    }

    fn insert(&mut self, index: usize) {
        match index {
            0..64 => self.first |= 1 << index,
            _ => self.more.push(index),
        }
    }
}

#[cfg(test)]
mod tests;
