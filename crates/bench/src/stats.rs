//! Median, spread and percentiles.

use std::time::Duration;

/// The middle and the extremes of some measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without measurements.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Some(Self { median, min, max })
    }
}

/// Times that something took, all of them.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    ns: Vec<u64>,
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.ns.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.ns.extend(others.ns);
    }

    /// Microseconds below or at which this share (0 to 1) of the times lies, by the nearest rank.
    ///
    /// `None` without times.
    pub(crate) fn percentile_us(&mut self, share: f64) -> Option<f64> {
        self.ns.sort_unstable();
        let rank = (share * self.ns.len() as f64).ceil() as usize;
        let ns = self.ns.get(rank.max(1) - 1)?;
        Some(*ns as f64 / 1_000.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = |values: &[f64]| Spread::of(values);
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 8.0]), Some(Spread { median: 3.0, min: 1.0, max: 8.0 }));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile_us(0.5), None);
        for us in (1..=1000).rev() {
            latencies.add(Duration::from_micros(us));
        }
        assert_eq!(latencies.percentile_us(0.0), Some(1.0));
        assert_eq!(latencies.percentile_us(0.5), Some(500.0));
        assert_eq!(latencies.percentile_us(0.99), Some(990.0));
        assert_eq!(latencies.percentile_us(0.999), Some(999.0));
        assert_eq!(latencies.percentile_us(1.0), Some(1000.0));
    }
}
