//! How much WebSockets may send in a time: leaky buckets of thousandths, of one WebSocket or of all with a key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use wssgate_ws::conversation::meter::{Charge, Excess, Meter, Toll};

use super::requests::{RequestZone, leaked};
use super::{Effects, KeyState, Place};
use crate::clock::millis;

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
    /// When the bucket was made,
    made: Instant,
    /// and what the clock of those who charge said then; `None` before the first charge.
    made_ms: Option<u64>,
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
    /// From now on by this rule, whoever has filled it.
    pub(crate) fn resume(rule: Rule, level: Level) -> Self {
        let bucket = Bucket { level, last_ms: 0, made: Instant::now(), made_ms: None };
        Self { rule, bucket: Mutex::new(bucket) }
    }

    /// How much is allowed.
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// What is in it now.
    pub(crate) fn level(&self) -> Level {
        let bucket = self.lock();
        let since = millis(bucket.made.elapsed());
        // Without a charge it has run out since it was made.
        let gone = match bucket.made_ms {
            Some(made_ms) => made_ms.saturating_add(since).saturating_sub(bucket.last_ms),
            None => since,
        };
        let Level { excess, free } = bucket.level;
        Level { excess: excess.saturating_sub(leaked(gone, self.rule.rate)), free }
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
        if bucket.made_ms.is_none() {
            let made_ms = now_ms.saturating_sub(millis(bucket.made.elapsed()));
            (bucket.made_ms, bucket.last_ms) = (Some(made_ms), made_ms);
        }
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
        Allowance::resume(rule, Level { excess: 0, free: free * 1000 })
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
