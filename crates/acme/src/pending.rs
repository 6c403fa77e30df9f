//! What is kept of an order until its certificate is kept.

use instant_acme::OrderStatus;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// How long a CA may think about a request before another order is placed, seconds.
const STUCK: i64 = 3600;

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
        match status {
            OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Valid => true,
            OrderStatus::Processing => now - self.placed < STUCK,
            OrderStatus::Invalid => false,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}
