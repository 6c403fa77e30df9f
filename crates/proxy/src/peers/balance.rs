//! Which peer comes next: nginx's balancers as functions of peers, their state and the time.
//!
//! Round robin is the base of all: every usable peer gains its effective weight, the richest is
//! taken and pays what all gained. So weights 5, 1, 1 give `a a b a c a a` and not `a a a a a b c`.
//! The other methods look for a peer in their own way and come back to round robin when they do
//! not find one within [`MAX_DRAWS`].
//!
//! [`Progress`] is what one request remembers: which peers it has tried, in which tier.

use std::cmp::Ordering;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use wssgate_config::model::TimeOf;

use super::crc32::Crc32;
use super::health::Taken;
use super::lease::Timed;
use super::peer::{Peer, UNIT};
use super::sticky::PeerId;
use super::weights::{CurrentWeights, WorkerWeights};

/// Draws of a hashing or random method before round robin decides, as nginx has it.
const MAX_DRAWS: u32 = 20;

/// The peers of one tier (the ordinary or the backup servers), in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Tier {
    pub(super) peers: Vec<Arc<Peer>>,
    pub(super) total_weight: i64,
    pub(super) current_weights: CurrentWeights,
}

/// A tier as one worker sees it now.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) peers: &'a [Arc<Peer>],
    pub(super) total_weight: i64,
    pub(super) current_weights: WorkerWeights<'a>,
    /// Only one peer in the whole group: it is used whatever its failures.
    pub(super) single: bool,
    pub(super) now: Instant,
}

impl View<'_> {
    fn usable(&self, index: usize) -> bool {
        self.peers[index].usable(self.now)
    }

    /// The peer to which `place` belongs when peers lie side by side, each as long as its weight.
    fn owner(&self, place: u64) -> Option<usize> {
        let mut left = i64::try_from(place).ok()?;
        self.peers.iter().position(|peer| {
            left -= peer.weight;
            left < 0
        })
    }
}

/// How peers are chosen.
#[derive(Clone, Debug)]
pub(super) enum Method {
    RoundRobin,
    /// `least_conn` and `least_time`.
    Least(Load),
    /// `ip_hash` and `hash` differ in [`Progress::new`]'s key only by how it is hashed.
    IpHash,
    Hash,
    Consistent(Ring),
    Random {
        /// What makes one of two better.
        two: Option<Load>,
    },
}

impl Method {
    /// What of requests has to be timed for it.
    pub(super) fn timed(&self) -> Option<Timed> {
        let (Self::Least(load) | Self::Random { two: Some(load) }) = self else { return None };
        match *load {
            Load::Connections => None,
            Load::Time { of, inflight } => Some(Timed { inflight: inflight.then_some(of) }),
        }
    }
}

/// What a peer has less of than a worse one, for its weight.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    Connections,
    /// Time until the requests that it has are answered.
    Time {
        of: TimeOf,
        inflight: bool,
    },
}

/// What one request remembers from try to try.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// In the tier in work.
    tried: Tried,
    /// The ordinary servers, while the tier in work is that of the backup servers.
    tried_before: Tried,
    pub(super) backup: bool,
    draws: u32,
    rehash: u32,
    hash: u64,
    key: Box<[u8]>,
    /// The peer to which the client belongs: it comes before what the method finds.
    pub(super) wanted: Option<PeerId>,
}

impl Progress {
    /// `key` is the hashed text, or for `ip_hash` the bytes of the address that count.
    pub(super) fn new(method: &Method, key: Box<[u8]>) -> Self {
        let hash = match method {
            Method::IpHash => 89,
            Method::Consistent(ring) => ring.position(Crc32::of(&key)),
            _ => 0,
        };
        Self {
            tried: Tried::default(),
            tried_before: Tried::default(),
            backup: false,
            draws: 0,
            rehash: 0,
            hash,
            key,
            wanted: None,
        }
    }

    /// Begins again, with other peers.
    pub(super) fn restart(&mut self, method: &Method) {
        *self = Self::new(method, mem::take(&mut self.key));
    }

    /// Goes over to the backup servers.
    pub(super) fn use_backup(&mut self) {
        self.backup = true;
        self.tried_before = mem::take(&mut self.tried);
    }

    /// Chooses among all peers that were not tried yet, the ordinary servers and the backup servers,
    /// whatever their failures, and counts a connection for it: the one that is wanted, else the
    /// least recently failed.
    pub(super) fn choose_anyway<'p>(
        &mut self,
        primary: &'p [Arc<Peer>],
        backup: &'p [Arc<Peer>],
        now: Instant,
    ) -> Option<(&'p Arc<Peer>, Taken)> {
        let wanted = self.wanted;
        let is_wanted = |peer: &Peer| wanted.is_some_and(|wanted| peer.is_wanted(&wanted));
        let of_tier = |backup: bool, peers: &'p [Arc<Peer>]| {
            peers.iter().enumerate().map(move |(index, peer)| (backup, index, peer))
        };
        // A peer that has no room left for it is not tried again, so this ends.
        loop {
            let (backup, index, peer) = of_tier(false, primary)
                .chain(of_tier(true, backup))
                .filter(|(backup, index, _)| !self.tried_in(*backup).contains(*index))
                .filter(|(.., peer)| {
                    peer.has_room() && peer.is_up() && (!peer.down || is_wanted(peer))
                })
                .min_by_key(|(.., peer)| (!is_wanted(peer), peer.state.health.last_failure()))?;
            self.tried_in(backup).insert(index);
            if let Some(taken) = peer.take_anyway(now) {
                return Some((peer, taken));
            }
        }
    }

    fn tried_in(&mut self, backup: bool) -> &mut Tried {
        match (self.backup, backup) {
            (true, false) => &mut self.tried_before,
            // Without backup servers there is one tier.
            _ => &mut self.tried,
        }
    }

    /// Chooses a peer of `tier` and counts a connection for it; `random` gives a number for each
    /// draw.
    pub(super) fn choose(
        &mut self,
        method: &Method,
        tier: View<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<(usize, Taken)> {
        if tier.single {
            let wanted = |peer: &Peer| self.wanted.is_some_and(|wanted| peer.is_wanted(&wanted));
            let peer = tier.peers.first().filter(|peer| !peer.down || wanted(peer))?;
            return Some((0, peer.take_anyway(tier.now)?));
        }
        // Another worker may be faster; but a peer is tried only once, so this ends.
        loop {
            let index = match self.next_wanted(method, tier) {
                Some(index) => index,
                None => self.next(method, tier, random)?,
            };
            if let Some(taken) = tier.peers[index].take(tier.now) {
                return Some((index, taken));
            }
        }
    }

    fn next(
        &mut self,
        method: &Method,
        tier: View<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        if tier.peers.len() < 2 || tier.total_weight == 0 {
            return self.round_robin(tier, |_| true);
        }
        let found = match method {
            Method::RoundRobin => None,
            Method::Least(load) => return self.least(tier, *load),
            Method::IpHash => self.draw(tier, Self::next_ip_hash),
            // An empty key says nothing of whom the request belongs to; nginx takes turns then,
            // too.
            Method::Hash if self.key.is_empty() => None,
            Method::Hash => self.draw(tier, Self::next_hash),
            Method::Consistent(_) if self.key.is_empty() => None,
            Method::Consistent(ring) => return self.consistent(ring, tier),
            Method::Random { two: None } => {
                self.draw(tier, |_, total_weight| random() % total_weight)
            }
            Method::Random { two: Some(load) } => self.lighter_of_two(tier, *load, random),
        };
        match found {
            Some(index) => {
                self.tried.insert(index);
                Some(index)
            }
            None => self.round_robin(tier, |_| true),
        }
    }

    /// The peer that is wanted, if it can be used. Several may have the same `route=`; nginx knows
    /// only the first of them.
    fn next_wanted(&mut self, method: &Method, tier: View<'_>) -> Option<usize> {
        let wanted = self.wanted?;
        let fits = |(index, peer): &(usize, &Arc<Peer>)| {
            !self.tried.contains(*index)
                && peer.is_wanted(&wanted)
                && peer.has_room_and_health(tier.now)
        };
        let (index, _) = tier.peers.iter().enumerate().find(fits)?;
        if matches!(method, Method::RoundRobin) {
            self.charge(tier, index);
        }
        self.tried.insert(index);
        Some(index)
    }

    /// Lets a peer that did not come by its turn pay for one. As in nginx only one turn in advance
    /// is paid: clients that stick to it would else keep all others away for as long.
    fn charge(&mut self, tier: View<'_>, index: usize) {
        let least = (tier.peers[index].weight - tier.total_weight) * UNIT;
        if tier.current_weights.get(index) > least {
            let (_, total) = self.gain(tier, |_| true);
            tier.current_weights.add(index, -total);
        }
    }

    /// Smooth weighted round robin among the peers that `fits` lets pass.
    fn round_robin(&mut self, tier: View<'_>, fits: impl Fn(&Peer) -> bool) -> Option<usize> {
        let (best, total) = self.gain(tier, fits);
        let index = best?;
        tier.current_weights.add(index, -total);
        self.tried.insert(index);
        Some(index)
    }

    /// Lets the peers that `fits` lets pass gain their weights: the richest then, and what all of
    /// them gained.
    fn gain(&self, tier: View<'_>, fits: impl Fn(&Peer) -> bool) -> (Option<usize>, i64) {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, peer) in tier.peers.iter().enumerate() {
            if self.tried.contains(index) || !peer.usable(tier.now) || !fits(peer) {
                continue;
            }
            let gained = peer.gain(tier.now);
            total += gained;
            let current = tier.current_weights.add(index, gained);
            if best.is_none_or(|(_, most)| current > most) {
                best = Some((index, current));
            }
        }
        (best.map(|(index, _)| index), total)
    }

    /// The least load for its weight; round robin among equals.
    fn least(&mut self, tier: View<'_>, load: Load) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut many = false;
        for (index, peer) in tier.peers.iter().enumerate() {
            if self.tried.contains(index) || !peer.usable(tier.now) {
                continue;
            }
            match best.map(|best| peer.compare_load(&tier.peers[best], load, tier.now)) {
                Some(Ordering::Greater) => {}
                Some(Ordering::Equal) => many = true,
                Some(Ordering::Less) | None => (best, many) = (Some(index), false),
            }
        }
        let best = best?;
        if many {
            let lightest = &tier.peers[best];
            let equal = |peer: &Peer| peer.compare_load(lightest, load, tier.now).is_eq();
            let found = self.round_robin(tier, equal);
            // All of them have become busier meanwhile, and the lightest is as good as any.
            if found.is_some() {
                return found;
            }
        }
        self.tried.insert(best);
        Some(best)
    }

    /// Draws places on the line of all weights until one belongs to a peer that can be used.
    fn draw(
        &mut self,
        tier: View<'_>,
        mut next: impl FnMut(&mut Self, u64) -> u64,
    ) -> Option<usize> {
        while self.draws <= MAX_DRAWS {
            let place = next(self, tier.total_weight.unsigned_abs());
            let index = tier.owner(place)?;
            if !self.tried.contains(index) && tier.usable(index) {
                return Some(index);
            }
            self.draws += 1;
        }
        None
    }

    fn next_ip_hash(&mut self, total_weight: u64) -> u64 {
        self.hash =
            // nginx's own numbers, so that clients keep their peers when it is replaced by us.
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
    fn consistent(&mut self, ring: &Ring, tier: View<'_>) -> Option<usize> {
        // The ring knows the ordinary servers; backup servers are reached by round robin.
        while self.draws <= MAX_DRAWS && !self.backup {
            let Some(line) = ring.line_at(self.hash) else { break };
            if let Some(index) = self.round_robin(tier, |peer| peer.line == line) {
                return Some(index);
            }
            self.hash += 1;
            self.draws += 1;
        }
        self.round_robin(tier, |_| true)
    }

    /// Draws two different peers and takes the one with less load for its weight.
    fn lighter_of_two(
        &mut self,
        tier: View<'_>,
        load: Load,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let total_weight = tier.total_weight.unsigned_abs();
        let mut first: Option<usize> = None;
        while self.draws <= MAX_DRAWS {
            let index = tier.owner(random() % total_weight)?;
            let other = first != Some(index);
            if other && !self.tried.contains(index) && tier.usable(index) {
                let Some(first) = first.replace(index) else { continue };
                let other = &tier.peers[first];
                let heavier = tier.peers[index].compare_load(other, load, tier.now).is_gt();
                return Some(if heavier { first } else { index });
            }
            self.draws += 1;
        }
        None
    }
}

/// The ring of `hash … consistent`: 160 points for each unit of weight of each server, the same
/// as those of Cache::Memcached::Fast.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    /// Hash and `server` line, sorted by hash.
    points: Box<[(u32, usize)]>,
}

impl Ring {
    /// Makes the ring of peers given by the text of their `server` line, its number and weight.
    pub(super) fn new<'a>(peers: impl IntoIterator<Item = (&'a [u8], usize, i64)>) -> Self {
        let mut points = Vec::new();
        for (server, line, weight) in peers {
            let (host, port) = host_and_port(server);
            let mut base = Crc32::new();
            base.update(host);
            base.update(b"\0");
            base.update(port);
            let mut previous = 0u32;
            // Each point is hashed from the one before it, as Cache::Memcached::Fast does.
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
