//! How much WebSockets may send in a time: leaky buckets of thousandths, of one WebSocket or of all with a key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use wssgate_ws::conversation::meter::{Charge, Excess, Meter, Toll};

use super::requests::{RequestZone, leaked};
use super::{Effects, KeyState, Place};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Messages,
    Bytes,
}

/// How much is allowed, and what becomes of more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) measure: Measure,
    /// Thousandths per second; never 0.
    pub(crate) rate: u64,
    /// How many thousandths too many may be there at once.
    pub(crate) burst: u64,
    /// Whether more is too much, instead of having to wait.
    pub(crate) close: bool,
}

/// The bucket of one WebSocket.
#[derive(Debug)]
pub(crate) struct Allowance {
    rule: Rule,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    level: Level,
    /// When it was that much, in milliseconds.
    last_ms: u64,
}

/// What is in the bucket of one WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Level {
    /// Thousandths.
    pub(crate) excess: u64,
    /// How much may come before anything counts, in thousandths.
    pub(crate) free: u64,
}

/// The bucket of a key, for one WebSocket of those that have the key.
#[derive(Debug)]
pub(crate) struct Share {
    zone: Arc<RequestZone>,
    effects: Arc<Effects>,
    place: Place,
    key: Bytes,
    rule: Rule,
}

impl Rule {
    /// What a charge adds to a bucket.
    fn amount(&self, charge: Charge) -> u64 {
        let count = match self.measure {
            Measure::Messages => charge.messages,
            Measure::Bytes => charge.bytes,
        };
        count.saturating_mul(1000)
    }

    /// What follows when this much is in a bucket. One message more than the burst is the one that fills no bucket.
    fn toll(&self, excess: u64, now_ms: u64) -> Toll {
        let over = excess.saturating_sub(self.burst);
        match self.close {
            true if over <= 1000 => Toll::Free,
            true => Toll::TooMuch(match self.measure {
                Measure::Messages => Excess::Messages,
                Measure::Bytes => Excess::Bytes,
            }),
            false if over == 0 => Toll::Free,
            false => {
                let wait = (u128::from(over) * 1000).div_ceil(u128::from(self.rate));
                let wait_ms = u64::try_from(wait).unwrap_or(u64::MAX);
                Toll::Wait { until_ms: now_ms.saturating_add(wait_ms) }
            }
        }
    }
}

impl Allowance {
    /// As full as it is at `now_ms`, on the clock of [`Meter::charge`].
    pub(crate) fn new(rule: Rule, level: Level, now_ms: u64) -> Self {
        Self { rule, bucket: Mutex::new(Bucket { level, last_ms: now_ms }) }
    }

    /// How much is allowed.
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// What is in it at `now_ms`.
    pub(crate) fn level(&self, now_ms: u64) -> Level {
        let bucket = self.lock();
        let Level { excess, free } = bucket.level;
        let gone = leaked(now_ms.saturating_sub(bucket.last_ms), self.rule.rate);
        Level { excess: excess.saturating_sub(gone), free }
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter for Allowance {
    fn charge(&self, charge: Charge, now_ms: u64) -> Toll {
        let amount = self.rule.amount(charge);
        if amount == 0 {
            return Toll::Free;
        }
        let mut bucket = self.lock();
        let gone = leaked(now_ms.saturating_sub(bucket.last_ms), self.rule.rate);
        let free = amount.min(bucket.level.free);
        bucket.level.free -= free;
        let excess = bucket.level.excess.saturating_sub(gone).saturating_add(amount - free);
        bucket.level.excess = excess;
        bucket.last_ms = now_ms;
        self.rule.toll(excess, now_ms)
    }
}

impl Share {
    pub(super) fn new(
        zone: Arc<RequestZone>,
        effects: Arc<Effects>,
        key: Bytes,
        rule: Rule,
    ) -> Self {
        Self { place: zone.place(&key), zone, effects, key, rule }
    }

    /// How much is allowed.
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// What another process has to know to count by the same key, and how many thousandths are in its bucket.
    pub(crate) fn state(&self) -> (KeyState<'_>, u64) {
        let level = self.zone.level(self.place, &self.key, self.rule.rate);
        (self.zone.name().of(self.key.to_vec().into()), level)
    }

    /// Has at least so many thousandths be in the bucket: as many as another process has counted.
    pub(crate) fn raise(&self, level: u64) {
        if level > 0 {
            self.zone.raise(self.place, &self.key, level, self.rule.rate);
        }
    }
}

impl Meter for Share {
    fn charge(&self, charge: Charge, now_ms: u64) -> Toll {
        let amount = self.rule.amount(charge);
        if amount == 0 {
            return Toll::Free;
        }
        // There is always room: keys are short, and no WebSocket holds its bucket.
        let excess = self.zone.charge(self.place, &self.key, amount, self.rule.rate);
        let toll = excess.map_or(Toll::Free, |excess| self.rule.toll(excess, now_ms));
        match toll {
            Toll::Free => {}
            Toll::Wait { .. } => self.effects.delayed.increment(),
            Toll::TooMuch(_) => self.effects.refused.increment(),
        }
        toll
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limit::ZoneName;

    fn rule(measure: Measure, rate: u64, burst: u64, close: bool) -> Rule {
        Rule { measure, rate: rate * 1000, burst: burst * 1000, close }
    }

    fn allowance(rule: Rule, free: u64) -> Allowance {
        Allowance::new(rule, Level { excess: 0, free: free * 1000 }, 0)
    }

    fn messages(messages: u64) -> Charge {
        Charge { messages, bytes: 100 * messages }
    }

    const WAIT: fn(u64) -> Toll = |until_ms| Toll::Wait { until_ms };

    #[test]
    fn what_is_too_much_for_now_waits_for_the_rate_to_make_up_for_it() {
        let steady = allowance(rule(Measure::Messages, 10, 0, false), 0);
        assert_eq!(steady.charge(messages(1), 5_000), WAIT(5_100));
        assert_eq!(steady.charge(messages(0), 5_050), Toll::Free, "it adds nothing");
        assert_eq!(steady.charge(messages(2), 5_100), WAIT(5_300));
        assert_eq!(steady.charge(messages(1), 9_000), WAIT(9_100), "nothing is saved");

        let bursts = allowance(rule(Measure::Messages, 10, 5, false), 0);
        assert_eq!(bursts.charge(messages(5), 5_000), Toll::Free);
        assert_eq!(bursts.charge(messages(1), 5_050), WAIT(5_100));
        assert_eq!(bursts.charge(messages(5), 5_600), Toll::Free);
    }

    #[test]
    fn what_is_too_much_ends_it_where_that_is_wanted() {
        let once = allowance(rule(Measure::Messages, 10, 0, true), 0);
        assert_eq!(once.charge(messages(1), 5_000), Toll::Free);
        assert_eq!(once.charge(messages(1), 5_100), Toll::Free);
        assert_eq!(once.charge(messages(1), 5_150), Toll::TooMuch(Excess::Messages));
        let bytes = allowance(rule(Measure::Bytes, 100, 300, true), 0);
        assert_eq!(bytes.charge(messages(3), 5_000), Toll::Free);
        assert_eq!(bytes.charge(messages(1), 5_500), Toll::TooMuch(Excess::Bytes));
    }

    #[test]
    fn a_bucket_goes_on_as_full_as_another_one_is() {
        let rule = rule(Measure::Messages, 10, 100, false);
        let before = allowance(rule, 3);
        assert_eq!(before.charge(messages(13), 5_000), Toll::Free);
        let level = before.level(5_400);
        assert_eq!(level, Level { excess: 6_000, free: 0 });
        // On another clock, and by another rule.
        let after = Allowance::new(Rule { burst: 1_000, ..rule }, level, 100);
        assert_eq!(after.level(400), Level { excess: 3_000, free: 0 });
        assert_eq!(after.charge(messages(1), 400), WAIT(700));
        let unused = allowance(rule, 3).level(9_000);
        assert_eq!(unused, Level { excess: 0, free: 3_000 });
    }

    #[test]
    fn the_first_bytes_may_be_free() {
        let after = allowance(rule(Measure::Bytes, 100, 0, false), 250);
        assert_eq!(after.charge(messages(2), 5_000), Toll::Free);
        assert_eq!(after.charge(messages(1), 5_000), WAIT(5_500));
    }

    /// However the bytes come, the rate is held to a thousandth.
    #[test]
    fn the_rate_is_exact_over_time() {
        for chunk in [1, 7, 1_000, 16_384] {
            let meter = allowance(rule(Measure::Bytes, 3_000, 3_000, false), 0);
            let (mut now_ms, mut passed) = (0, 0);
            while now_ms < 60_000 {
                let toll = meter.charge(Charge { messages: 0, bytes: chunk }, now_ms);
                if let Toll::Wait { until_ms } = toll {
                    now_ms = until_ms;
                }
                passed += chunk;
            }
            let allowed = now_ms * 3 + 3_000;
            assert!(
                passed <= allowed + chunk && passed + chunk + 60 >= allowed,
                "{passed} {allowed}"
            );
        }
    }

    #[test]
    fn what_another_process_has_counted_is_counted_once() {
        let zone = || Arc::new(RequestZone::new(ZoneName::default(), 32 << 10).unwrap());
        let rule = rule(Measure::Messages, 1, 10, true);
        let share = |zone: &Arc<RequestZone>| {
            Share::new(Arc::clone(zone), Arc::default(), Bytes::from_static(b"a"), rule)
        };
        let (old, new) = (zone(), zone());
        let (one, two) = (share(&old), share(&old));
        assert_eq!(one.charge(messages(4), 0), Toll::Free);
        assert_eq!(two.charge(messages(4), 0), Toll::Free);
        let moved: Vec<_> = [one, two].iter().map(|share| share.state().1).collect();
        assert!(moved.iter().all(|level| (7_000..=8_000).contains(level)), "{moved:?}");
        let shares: Vec<_> = moved
            .iter()
            .map(|level| {
                let share = share(&new);
                share.raise(*level);
                share
            })
            .collect();
        assert!((6_000..=8_000).contains(&shares[0].state().1));
        assert_eq!(shares[0].charge(messages(2), 0), Toll::Free);
        assert_eq!(shares[1].charge(messages(3), 0), Toll::TooMuch(Excess::Messages));
    }

    #[test]
    fn those_with_one_key_share_a_bucket() {
        let zone = Arc::new(RequestZone::new(ZoneName::default(), 32 << 10).unwrap());
        let effects = Arc::<Effects>::default();
        let share = |key: &'static [u8]| {
            let rule = rule(Measure::Messages, 1, 10, true);
            Share::new(Arc::clone(&zone), Arc::clone(&effects), Bytes::from_static(key), rule)
        };
        let (one, two, other) = (share(b"a"), share(b"a"), share(b"b"));
        assert_eq!(one.charge(messages(6), 0), Toll::Free);
        assert_eq!(two.charge(messages(5), 0), Toll::Free);
        assert_eq!(other.charge(messages(11), 0), Toll::Free);
        assert_eq!(one.charge(messages(3), 0), Toll::TooMuch(Excess::Messages));
        assert_eq!((effects.refused.value(), effects.delayed.value()), (1, 0));
    }
}
