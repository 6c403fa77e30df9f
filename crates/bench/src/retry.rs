//! When clients connect again, as Socket.IO's client does with its defaults: after a second, twice as
//! long after each failure, at most five, each time between a half and one and a half of that.

use std::time::Duration;

/// What a client waits after the first failure and at most, without the jitter.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// What a client waits after so many failures in a row.
pub(crate) fn delay(failures: u32, random: &mut Random) -> Duration {
    let delay = (FIRST_DELAY * (1 << failures.min(10))).min(LONGEST_DELAY);
    delay.mul_f64(0.5 + random.share())
}

/// SplitMix64, so that runs can be repeated.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, in steps of a thousandth.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() % 1024) as f64 / 1024.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_five_seconds_with_jitter() {
        let mut random = Random(1);
        for (failures, base) in [(0, 1.0), (1, 2.0), (2, 4.0), (3, 5.0), (40, 5.0)] {
            for _ in 0..50 {
                let delay = delay(failures, &mut random).as_secs_f64();
                assert!((base * 0.5..base * 1.5).contains(&delay), "{failures}: {delay}");
            }
        }
    }
}
