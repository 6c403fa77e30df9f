//! How many handshakes go on in a time, as lines of the configuration say.

use std::time::Duration;

/// Index into [`Http::handshake_rates`](crate::model::Http::handshake_rates).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandshakeRateId(pub usize);

/// One `websocket_handshake_rate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeRate {
    /// The time that one handshake takes of the rate.
    pub interval: Duration,
    /// How many may wait.
    pub queue: usize,
    /// When the first of those that are refused may come again.
    pub retry_min: Duration,
    /// And the last.
    pub retry_max: Duration,
}
