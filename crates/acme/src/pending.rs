//! What is kept of an order until its certificate is kept.

use instant_acme::OrderStatus;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// How long a CA may think about a request before another order is placed, seconds; and how long an order
/// is kept that it tells nothing of.
const STUCK: i64 = 3600;
/// How long an order is gone on with at all, seconds: what stands in its way for so long may be the order itself.
const LONGEST: i64 = 6 * 3600;

/// What is kept of an order until its certificate is kept; lies beside it as JSON.
#[derive(Deserialize, Serialize)]
pub(crate) struct Pending {
    /// The URL of the directory of the CA.
    pub(crate) uri: String,
    /// The profile that was asked for.
    pub(crate) profile: Option<String>,
    /// The URL of the order.
    pub(crate) order: String,
    /// When it was placed, seconds since the Unix epoch.
    pub(crate) placed: i64,
    /// The key of the certificate in PEM (PKCS#8).
    pub(crate) key: String,
}

impl Pending {
    /// Whether an order with this status may still become a certificate.
    pub(crate) fn is_alive(&self, status: OrderStatus, now: i64) -> bool {
        let longest = match status {
            OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Valid => LONGEST,
            OrderStatus::Processing => STUCK,
            OrderStatus::Invalid => 0,
        };
        self.is_younger(longest, now)
    }

    /// Whether an order of which the CA tells nothing is worth another look.
    pub(crate) fn may_be_alive(&self, now: i64) -> bool {
        self.is_younger(STUCK, now)
    }

    /// A clock that was put back makes no order younger.
    fn is_younger(&self, longest: i64, now: i64) -> bool {
        (0..longest).contains(&(now - self.placed))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_not_kept_for_ever() {
        let pending = Pending {
            uri: String::new(),
            profile: None,
            order: String::new(),
            placed: 1_000_000,
            key: String::new(),
        };
        let alive = |status, age: i64| pending.is_alive(status, 1_000_000 + age);
        for status in [OrderStatus::Pending, OrderStatus::Ready, OrderStatus::Valid] {
            assert_eq!(
                [0, 21_599, 21_600, -1].map(|age| alive(status, age)),
                [true, true, false, false]
            );
        }
        let processing = [0, 3599, 3600, -1].map(|age| alive(OrderStatus::Processing, age));
        assert_eq!(processing, [true, true, false, false]);
        assert!(!alive(OrderStatus::Invalid, 0));
        assert_eq!([3599, 3600].map(|age| pending.may_be_alive(1_000_000 + age)), [true, false]);
    }
}
