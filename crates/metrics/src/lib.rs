//! Counters that cost nothing to count, and the text in which Prometheus reads them.
//!
//! Each number has one thread that writes it, by a plain load and store: no bus lock, and no cache line
//! that two threads want. Whoever reads adds up those of all threads. [`Exposition`] writes the text;
//! what a metric is called and what it means is a [`Family`].
//!
//! Nothing here knows a proxy, a socket or a clock.

mod accept;
mod exposition;
mod family;
mod number;

pub use accept::Format;
pub use exposition::{Exposition, MAX_SERIES};
pub use family::{Family, Fold, Kind};
pub use number::{Counter, Gauge, Histogram, Seconds};
