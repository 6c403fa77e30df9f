//! When to renew, and when to try again. Times are seconds since the Unix epoch.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

const DAY: i64 = 86_400;

/// From one moment to another.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The first.
    pub start: i64,
    /// The last.
    pub end: i64,
}

impl Span {
    /// How long it is.
    pub fn seconds(self) -> i64 {
        (self.end - self.start).max(0)
    }

    /// A moment in it; `at` is between 0 and 1.
    pub fn moment(self, at: f64) -> i64 {
        self.start + scaled(self.seconds(), at)
    }
}

/// A part of a number of seconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "seconds of years")]
fn scaled(seconds: i64, by: f64) -> i64 {
    (seconds as f64 * by) as i64
}

/// When a certificate is to be renewed of which its CA says nothing: as in nginx, after two thirds of
/// its life, or after half of it if it lives for ten days or less.
pub fn renewal_window(valid: Span) -> Span {
    let life = valid.seconds();
    let middle = if life > 10 * DAY { life * 2 / 3 } else { life / 2 };
    let spread = life / 50;
    Span { start: valid.start + middle - spread, end: valid.start + middle + spread }
}

/// Who is to blame that there is no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The way to the CA, or the CA as a whole: it costs nobody anything to try again soon.
    Way,
    /// What we want or show: CAs bound how often that may be wrong.
    Request,
}

/// The least time between a certificate and the next one, after so many that came sooner than they should: a clock
/// that is wrong or a CA that is in a hurry must not use up what CAs allow for a week.
pub fn rest(life: i64, hurried: u32) -> i64 {
    let grown = 3600_i64.saturating_mul(4_i64.saturating_pow(hurried));
    grown.min(hurry(life))
}

/// A certificate that is replaced sooner than this has not lived as long as it should.
pub fn hurry(life: i64) -> i64 {
    (life / 4).max(1)
}

/// The longest pause while a certificate is in use, and while there is none.
pub fn longest_pause(is_valid: bool) -> i64 {
    // Nobody is served meanwhile.
    if is_valid { DAY } else { 6000 }
}

/// How long to wait after so many failures of this kind, of which there is one at least. `valid` is the life of the
/// certificate in use, if there is one; `jitter` is between 0 and 1.
pub fn pause(blame: Blame, failures: u32, valid: Option<Span>, now: i64, jitter: f64) -> Duration {
    let left = valid.map(|valid| valid.end - now).filter(|&left| left > 0);
    let most = match (blame, left) {
        (Blame::Way, _) => 3600,
        (Blame::Request, left) => longest_pause(left.is_some()),
    };
    let (first, factor): (i64, i64) = match blame {
        Blame::Way => (5, 2),
        Blame::Request => (60, 10),
    };
    let exponential = first.saturating_mul(factor.saturating_pow(failures.saturating_sub(1)));
    // There is time for some more tries then, but not for many that the CA counts.
    let life = valid.map_or(i64::MAX, Span::seconds);
    let least = match blame {
        Blame::Way => 10,
        Blame::Request => (life / 12).clamp(1, 900),
    };
    let before_end = left.map_or(i64::MAX, |left| (left / 4).max(least));
    let seconds = exponential.min(most).min(before_end);
    let millis = seconds * 1000 + scaled(seconds * 200, jitter - 0.5);
    Duration::from_millis(millis.max(0).unsigned_abs())
}

/// A number between 0 and 1.
pub fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no TLS either; all that is lost here is that others do the same then.
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_life_is_used_for_longer() {
        for (days, expected) in [(90, 60.0), (6, 3.0)] {
            let window = renewal_window(Span { start: 0, end: days * DAY });
            let middle = scaled(DAY, expected);
            assert!(window.start < middle && middle < window.end, "{days} days");
            assert!(window.end - window.start <= days * DAY / 25);
        }
        let minute = renewal_window(Span { start: 1000, end: 1060 });
        assert_eq!(minute.moment(0.5), 1030);
    }

    #[test]
    fn pauses_grow_but_leave_time_for_some_more_tries() {
        let life = |left| Span { start: left - 90 * DAY, end: left };
        let pause = |blame, failures, left: Option<i64>| {
            pause(blame, failures, left.map(life), 0, 0.5).as_secs()
        };
        let refused = |failures, left| pause(Blame::Request, failures, left);
        assert_eq!([1, 2, 3, 4, 99].map(|n| refused(n, None)), [60, 600, 6000, 6000, 6000]);
        assert_eq!([1, 3, 5, 99].map(|n| refused(n, Some(30 * DAY))), [60, 6000, 86_400, 86_400]);
        assert_eq!(refused(5, Some(3 * DAY)), 64_800);
        // What a CA counts is not tried faster in the last hour.
        assert_eq!([1, 2, 9].map(|n| refused(n, Some(40))), [60, 600, 900]);
        assert_eq!(refused(9, Some(-5)), 6000);
        let lost = |failures| pause(Blame::Way, failures, None);
        assert_eq!([1, 2, 5, 99].map(lost), [5, 10, 80, 3600]);
    }

    #[test]
    fn jitter_is_a_tenth() {
        let pause = |jitter| pause(Blame::Request, 2, None, 0, jitter).as_secs();
        assert_eq!([0.0, 1.0].map(pause), [540, 660]);
    }

    #[test]
    fn a_short_life_has_short_pauses() {
        let valid = Some(Span { start: 0, end: 12 });
        assert_eq!(pause(Blame::Request, 3, valid, 6, 0.5).as_secs(), 1);
    }

    /// Five in a week is what Let's Encrypt allows.
    #[test]
    fn certificates_in_a_hurry_come_slower_and_slower() {
        let hours = [0, 1, 2, 3, 4, 99].map(|hurried| rest(90 * DAY, hurried) / 3600);
        assert_eq!(hours, [1, 4, 16, 64, 256, 540]);
        assert_eq!(rest(8, 0), 2);
        assert_eq!(rest(0, 9), 1);
    }
}
