//! The leaky buckets of `limit_req`.
//!
//! Every request adds 1000 to the bucket of its key, and a zone's rate runs out of it every second. What is in the
//! bucket before a request, without its own, is the excess; a bucket that stayed empty for a minute is forgotten.
//!
//! A request that several zones limit is first looked at by all of them and then counted by all or none. So what is
//! looked at is pinned until then: it is not forgotten meanwhile.

use std::time::Instant;

use super::table::{NONE, Table, TooLarge};
use super::{Place, Shards, ZoneName};

/// The table of one zone.
#[derive(Debug)]
pub(crate) struct RequestZone {
    name: ZoneName,
    began: Instant,
    shards: Shards<Buckets>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// So many thousandths of a request are too many.
    Of(u64),
    /// There is no room for its key.
    NoRoom,
}

/// How fast a bucket runs out and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Thousandths of a request per second.
    pub(crate) rate: u64,
    /// Thousandths of a request.
    pub(crate) burst: u64,
}

#[derive(Debug)]
struct Buckets {
    table: Table<Bucket>,
    /// The buckets in the order in which they were last looked at.
    newest: u32,
    oldest: u32,
}

#[derive(Debug)]
struct Bucket {
    /// When the excess was this much, in milliseconds.
    last: u64,
    /// Thousandths of a request.
    excess: u64,
    newer: u32,
    older: u32,
    /// How many requests have looked at it and not yet decided.
    pins: u32,
}

/// Time begins so many milliseconds before the zone, so that 0 is long ago for all rates: in it the slowest (`1r/m`)
/// empties what one request put in.
const LONG_AGO: u64 = 3_600_000;

/// How long a bucket is kept when it is empty, in milliseconds.
const KEEP: u64 = 60_000;

impl RequestZone {
    pub(super) fn new(name: ZoneName, size: u64) -> Result<Self, TooLarge> {
        let make = |size| {
            let table = Table::new(size)?;
            Ok(Buckets { table, newest: NONE, oldest: NONE })
        };
        Ok(Self { name, began: Instant::now(), shards: Shards::new(size, make)? })
    }

    /// What it is known by.
    pub(super) fn name(&self) -> &ZoneName {
        &self.name
    }

    /// Counts a request of `key` unless it is one too many; gives the excess.
    pub(crate) fn count(&self, key: &[u8], bounds: Bounds) -> Result<u64, Excess> {
        let (now, place) = (self.now(), self.shards.place(key));
        let mut buckets = self.shards.lock(place.shard);
        match buckets.find(place, key) {
            Some(number) => {
                let bucket = buckets.table.value_mut(number);
                let excess = bucket.excess_at(now, bounds.rate);
                if excess > bounds.burst {
                    return Err(Excess::Of(excess));
                }
                bucket.fill(excess, now);
                Ok(excess)
            }
            None => buckets.add(place, key, now, 0, bounds.rate, now).map(|_| 0),
        }
    }

    /// Looks whether a request of `key` is one too many, for [`Pin::count`] to count it later.
    pub(crate) fn look(&self, key: &[u8], bounds: Bounds) -> Result<Pin<'_>, Excess> {
        let (now, place) = (self.now(), self.shards.place(key));
        let mut buckets = self.shards.lock(place.shard);
        let number = match buckets.find(place, key) {
            Some(number) => {
                let bucket = buckets.table.value_mut(number);
                let excess = bucket.excess_at(now, bounds.rate);
                if excess > bounds.burst {
                    return Err(Excess::Of(excess));
                }
                bucket.pins += 1;
                number
            }
            None => buckets.add(place, key, 0, 1, bounds.rate, now)?,
        };
        Ok(Pin { zone: self, shard: place.shard, number, rate: bounds.rate })
    }

    /// Adds thousandths to the bucket of a key, however much is in it; gives how much is now, or nothing if there is
    /// no room for the key.
    pub(super) fn charge(&self, place: Place, key: &[u8], amount: u64, rate: u64) -> Option<u64> {
        let now = self.now();
        let mut buckets = self.shards.lock(place.shard);
        let number = match buckets.find(place, key) {
            Some(number) => number,
            None => buckets.add(place, key, now, 0, rate, now).ok()?,
        };
        let bucket = buckets.table.value_mut(number);
        let gone = leaked(now.saturating_sub(bucket.last), rate);
        let excess = bucket.excess.saturating_sub(gone).saturating_add(amount);
        bucket.fill(excess, now);
        Some(excess)
    }

    /// How many thousandths are in the bucket of a key.
    pub(super) fn level(&self, place: Place, key: &[u8], rate: u64) -> u64 {
        let now = self.now();
        let mut buckets = self.shards.lock(place.shard);
        let Some(number) = buckets.find(place, key) else { return 0 };
        let bucket = buckets.table.value(number);
        bucket.excess.saturating_sub(leaked(now.saturating_sub(bucket.last), rate))
    }

    /// Has at least so many thousandths be in the bucket of a key, if there is room for the key.
    pub(super) fn raise(&self, place: Place, key: &[u8], level: u64, rate: u64) {
        let now = self.now();
        let mut buckets = self.shards.lock(place.shard);
        let number = match buckets.find(place, key) {
            Some(number) => number,
            None => match buckets.add(place, key, now, 0, rate, now) {
                Ok(number) => number,
                Err(_) => return,
            },
        };
        let bucket = buckets.table.value_mut(number);
        let gone = leaked(now.saturating_sub(bucket.last), rate);
        bucket.fill(bucket.excess.saturating_sub(gone).max(level), now);
    }

    /// Where a key belongs.
    pub(super) fn place(&self, key: &[u8]) -> Place {
        self.shards.place(key)
    }

    fn now(&self) -> u64 {
        let since = self.began.elapsed().as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(LONG_AGO)
    }
}

/// A bucket that a request has looked at.
#[derive(Debug)]
pub(crate) struct Pin<'z> {
    zone: &'z RequestZone,
    shard: u32,
    number: u32,
    rate: u64,
}

impl Pin<'_> {
    /// Counts the request; gives the excess.
    pub(crate) fn count(self) -> u64 {
        let now = self.zone.now();
        let mut buckets = self.zone.shards.lock(self.shard);
        let bucket = buckets.table.value_mut(self.number);
        let excess = bucket.excess_at(now, self.rate);
        bucket.fill(excess, now);
        excess
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.zone.shards.lock(self.shard).table.value_mut(self.number).pins -= 1;
    }
}

impl Bucket {
    /// What is in it with one more request, were that counted now.
    fn excess_at(&self, now: u64, rate: u64) -> u64 {
        let gone = leaked(now.saturating_sub(self.last), rate);
        self.excess.saturating_add(1000).saturating_sub(gone)
    }

    fn fill(&mut self, excess: u64, now: u64) {
        self.excess = excess;
        // Two workers may come here in another order than they looked at the clock.
        self.last = self.last.max(now);
    }

    fn is_forgettable(&self, now: u64, rate: u64) -> bool {
        let since = now.saturating_sub(self.last);
        since >= KEEP && leaked(since, rate) >= self.excess
    }
}

/// What runs out in `time` milliseconds.
pub(super) fn leaked(time: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(time) * u128::from(rate) / 1000).unwrap_or(u64::MAX)
}

impl Buckets {
    /// The bucket of a key, which becomes the newest.
    fn find(&mut self, place: Place, key: &[u8]) -> Option<u32> {
        let number = self.table.find(place.hash, key)?;
        if self.newest != number {
            self.unlink(number);
            self.link(number);
        }
        Some(number)
    }

    fn add(
        &mut self,
        place: Place,
        key: &[u8],
        last: u64,
        pins: u32,
        rate: u64,
        now: u64,
    ) -> Result<u32, Excess> {
        self.forget(rate, now);
        let bucket = || Bucket { last, excess: 0, newer: NONE, older: NONE, pins };
        let mut number = self.table.insert(place.hash, key, bucket());
        // A long key may need the room of several others.
        while number.is_none() && self.forget_oldest() {
            number = self.table.insert(place.hash, key, bucket());
        }
        let number = number.ok_or(Excess::NoRoom)?;
        self.link(number);
        Ok(number)
    }

    /// Forgets up to two buckets that say nothing any more, so that the table shrinks while it is used.
    fn forget(&mut self, rate: u64, now: u64) {
        for _ in 0..2 {
            let old = self.oldest;
            if old == NONE || !self.table.value(old).is_forgettable(now, rate) {
                return;
            }
            self.forget_oldest();
        }
    }

    /// Forgets the bucket that nobody has looked at for longest; not while a request has yet to decide.
    fn forget_oldest(&mut self) -> bool {
        let old = self.oldest;
        if old == NONE || self.table.value(old).pins > 0 {
            return false;
        }
        self.unlink(old);
        self.table.remove(old);
        true
    }

    fn link(&mut self, number: u32) {
        let older = std::mem::replace(&mut self.newest, number);
        let bucket = self.table.value_mut(number);
        (bucket.newer, bucket.older) = (NONE, older);
        match older {
            NONE => self.oldest = number,
            older => self.table.value_mut(older).newer = number,
        }
    }

    fn unlink(&mut self, number: u32) {
        let &Bucket { newer, older, .. } = self.table.value(number);
        match newer {
            NONE => self.newest = older,
            newer => self.table.value_mut(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.table.value_mut(older).newer = newer,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000;

    fn bounds(rate: u64, burst: u64) -> Bounds {
        Bounds { rate: rate * 1000, burst: burst * 1000 }
    }

    #[test]
    fn a_key_takes_less_memory_than_in_nginx() {
        // nginx takes 128 bytes for every key of up to 48.
        assert_eq!(Table::<Bucket>::ENTRY_SIZE, 68);
    }

    #[test]
    fn a_bucket_runs_out_at_its_rate() {
        let mut bucket = Bucket { last: 0, excess: 0, newer: NONE, older: NONE, pins: 0 };
        // Two requests a second: a thousandth of a request in half a millisecond.
        for (now, expected) in [
            (LONG_AGO, 0),
            (LONG_AGO, 1000),
            (LONG_AGO + 100, 1800),
            (LONG_AGO + 50, 2800),
            (LONG_AGO + 600, 2800),
            (LONG_AGO + 60 * SECOND, 0),
        ] {
            let excess = bucket.excess_at(now, 2000);
            assert_eq!(excess, expected, "{now}");
            bucket.fill(excess, now);
        }
        assert_eq!(leaked(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn a_request_too_many_is_refused_and_not_counted() {
        let zone = RequestZone::new(ZoneName::default(), 32 << 10).unwrap();
        let slow = Bounds { rate: 1, burst: 1000 };
        assert_eq!(zone.count(b"a", slow), Ok(0));
        let near = |found: Result<u64, Excess>, expected: u64| match found {
            Ok(excess) | Err(Excess::Of(excess)) => excess.abs_diff(expected) <= 5,
            Err(Excess::NoRoom) => false,
        };
        assert!(near(zone.count(b"a", slow), 1000));
        for _ in 0..3 {
            let refused = zone.count(b"a", slow);
            assert!(refused.is_err() && near(refused, 2000), "{refused:?}");
        }
        assert_eq!(zone.count(b"b", slow), Ok(0), "another key");
    }

    #[test]
    fn what_was_only_looked_at_is_not_counted() {
        let zone = RequestZone::new(ZoneName::default(), 32 << 10).unwrap();
        let once = bounds(1, 0);
        drop(zone.look(b"a", once).unwrap());
        assert_eq!(zone.look(b"a", once).unwrap().count(), 0);
        assert!(matches!(zone.look(b"a", once), Err(Excess::Of(990..=1000))));
    }

    #[test]
    fn the_key_not_seen_for_longest_makes_room_unless_it_is_pinned() {
        let entry = Table::<Bucket>::ENTRY_SIZE;
        let table = Table::new(2 * entry).unwrap();
        let mut buckets = Buckets { table, newest: NONE, oldest: NONE };
        let place = |key: &[u8]| Place { shard: 0, hash: u32::from(key[0]) << 24 };
        let add = |buckets: &mut Buckets, key: &[u8], pins| {
            buckets.add(place(key), key, LONG_AGO, pins, 1000, LONG_AGO)
        };
        let first = add(&mut buckets, b"a", 1).unwrap();
        add(&mut buckets, b"b", 0).unwrap();
        assert!(buckets.find(place(b"a"), b"a").is_some());
        add(&mut buckets, b"c", 0).unwrap();
        assert!(buckets.find(place(b"b"), b"b").is_none(), "a was looked at later");
        // Now a is the oldest.
        assert_eq!(add(&mut buckets, b"d", 0), Err(Excess::NoRoom));
        buckets.table.value_mut(first).pins = 0;
        assert!(add(&mut buckets, b"d", 0).is_ok());
        assert!(buckets.find(place(b"a"), b"a").is_none());
        assert!(buckets.find(place(b"c"), b"c").is_some());
    }

    #[test]
    fn empty_buckets_are_forgotten_after_a_minute() {
        let table = Table::new(1 << 20).unwrap();
        let mut buckets = Buckets { table, newest: NONE, oldest: NONE };
        let place = |key: &[u8]| Place { shard: 0, hash: u32::from(key[0]) << 24 };
        for key in [b"a", b"b", b"c"] {
            buckets.add(place(key), key, LONG_AGO, 0, 1000, LONG_AGO).unwrap();
        }
        let full = buckets.find(place(b"a"), b"a").unwrap();
        buckets.table.value_mut(full).excess = 90_000;
        let mut add_at = |time, key: &[u8]| {
            buckets.add(place(key), key, time, 0, 1000, time).unwrap();
            [b"a", b"b", b"c"].map(|key| buckets.table.find(place(key).hash, key).is_some())
        };
        assert_eq!(add_at(LONG_AGO + KEEP - 1, b"x"), [true, true, true]);
        assert_eq!(add_at(LONG_AGO + KEEP, b"y"), [true, false, false]);
        assert_eq!(add_at(LONG_AGO + KEEP + 1, b"z"), [true, false, false], "a is not empty");
        assert_eq!(add_at(LONG_AGO + 90_000, b"w"), [false, false, false]);
    }

    /// Workers count at the same time, and no request is lost or counted twice.
    #[test]
    fn counts_are_exact_across_threads() {
        let zone = RequestZone::new(ZoneName::default(), 1 << 20).unwrap();
        let bounds = Bounds { rate: 1, burst: 1_000_000 };
        let allowed = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if zone.count(b"key", bounds).is_ok() {
                            allowed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // The burst, and the one that fills no bucket.
        assert_eq!(allowed.into_inner(), 1001);
    }
}
