//! What a relay thread counts of all its tunnels, while they live.
//!
//! A tunnel counts for itself, in its conversation. What bytes have added there is added here too, while its numbers
//! are at hand: a few plain additions to cache lines that no other thread writes.

use std::time::Duration;

use wssgate_metrics::{Counter, Histogram};
use wssgate_ws::Counts;

use crate::Side;

/// The bounds of round-trip times: a WebSocket's pings take as long as its path, and what waits before them.
static RTT_BOUNDS: [Duration; 13] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// What one relay thread has done so far; each only grows, and only that thread writes.
#[derive(Debug, Default)]
// Two cache lines, since processors fetch them in pairs.
#[repr(align(128))]
pub struct Counters {
    /// Tunnels taken over.
    pub tunnels: Counter,
    /// What came from clients.
    pub client: SideCounters,
    /// What came from upstreams.
    pub upstream: SideCounters,
}

/// What came from one side of all tunnels.
#[derive(Debug)]
pub struct SideCounters {
    /// Bytes of the tunnelled protocol.
    pub bytes: Counter,
    /// Complete text messages.
    pub texts: Counter,
    /// Complete binary messages.
    pub binaries: Counter,
    /// Payload of text messages, in bytes as on the wire.
    pub text_bytes: Counter,
    /// Payload of binary messages, in bytes as on the wire.
    pub binary_bytes: Counter,
    /// Pings.
    pub pings: Counter,
    /// Pongs, but for those that answer pings of ours.
    pub pongs: Counter,
    /// How long bytes had to wait because this side did not take them, in milliseconds. A wait is added when it is
    /// over.
    pub blocked_ms: Counter,
    /// How long this side took to answer our pings.
    pub rtt: Histogram<13>,
}

impl Default for SideCounters {
    fn default() -> Self {
        Self {
            bytes: Counter::default(),
            texts: Counter::default(),
            binaries: Counter::default(),
            text_bytes: Counter::default(),
            binary_bytes: Counter::default(),
            pings: Counter::default(),
            pongs: Counter::default(),
            blocked_ms: Counter::default(),
            rtt: Histogram::new(&RTT_BOUNDS),
        }
    }
}

impl Counters {
    /// What came from this side.
    #[inline]
    pub fn side(&self, side: Side) -> &SideCounters {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }
}

impl SideCounters {
    /// Adds what these bytes have completed in a WebSocket: its counts before and behind them.
    #[inline]
    pub(crate) fn add(&self, before: &Counts, now: &Counts) {
        let texts = now.texts - before.texts;
        let text_payload = now.text_payload - before.text_payload;
        self.texts.add(texts);
        self.binaries.add(now.messages - before.messages - texts);
        self.text_bytes.add(text_payload);
        self.binary_bytes.add(now.payload - before.payload - text_payload);
        self.pings.add(now.pings - before.pings);
        self.pongs.add(now.pongs - before.pongs);
    }
}
