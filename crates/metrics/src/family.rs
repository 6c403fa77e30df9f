//! What is known of a metric besides its values: all that Prometheus is told of it, and its documentation.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until a restart.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many there were of each length.
    Histogram,
    /// Always 1: what is to be known is in the labels.
    Info,
}

/// How what has no series of its own becomes part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// The sum.
    Sum,
    /// The least, which is the worst.
    Least,
}

/// A metric with all its series.
#[derive(Debug)]
pub struct Family {
    /// The name of its samples; for a histogram without `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// What it means, in a sentence.
    pub help: &'static str,
    /// The labels of each series.
    pub labels: &'static [&'static str],
    /// What bounds the number of its series.
    pub bound: &'static str,
    /// What becomes of those beyond [`MAX_SERIES`](crate::MAX_SERIES).
    pub fold: Fold,
}

impl Family {
    /// A metric without labels, which is one series.
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, kind, help, labels: &[], bound: "1", fold: Fold::Sum }
    }

    /// With these labels; `bound` says what bounds the number of series.
    #[must_use]
    pub const fn by(mut self, labels: &'static [&'static str], bound: &'static str) -> Self {
        self.labels = labels;
        self.bound = bound;
        self
    }

    /// Of many the least is of interest.
    #[must_use]
    pub const fn least(mut self) -> Self {
        self.fold = Fold::Least;
        self
    }

    /// The name without the ending that its kind asks for: what OpenMetrics calls it.
    pub fn base(&self) -> &'static str {
        let ending = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(ending).unwrap_or(self.name)
    }

    /// The unit, where the name ends with one.
    pub fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| self.base().strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_kind_and_unit() {
        for (name, kind, base, unit) in [
            ("a_bytes_total", Kind::Counter, "a_bytes", Some("bytes")),
            ("a_total", Kind::Counter, "a", None),
            ("a_seconds", Kind::Histogram, "a_seconds", Some("seconds")),
            ("a_build_info", Kind::Info, "a_build", None),
            ("seconds", Kind::Gauge, "seconds", None),
        ] {
            let family = Family::new(name, kind, "");
            assert_eq!((family.base(), family.unit()), (base, unit), "{name}");
        }
    }
}
