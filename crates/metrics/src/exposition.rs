//! The text that Prometheus reads, in both of its formats.
//!
//! They are the text format 0.0.4 and OpenMetrics 1.0. Lines end with LF alone, and OpenMetrics with `# EOF`:
//! with CRLF, or without that, a scrape fails. Bounds of buckets are written with a point in both (`le="1.0"`),
//! as OpenMetrics asks for, so that another format at the next scrape makes no other series.
//!
//! A family has at most [`MAX_SERIES`] sets of labels. What comes beyond becomes part of one more, whose labels
//! are all `other`.

use std::fmt::{self, Display, Write as _};

use crate::{Family, Fold, Format, Kind, Seconds};

/// How many sets of labels a family may have besides `other`.
pub const MAX_SERIES: usize = 1_000;

/// The label values of what has no series of its own.
const OTHER: &str = "other";

/// A text in the making.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    /// Nothing yet, in this format.
    pub fn new(format: Format) -> Self {
        Self { text: String::new(), format }
    }

    /// Begins a family, whose samples must follow at once. A family without samples is not mentioned.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        Samples { out: self, family, count: 0, other: None }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn head(&mut self, family: &Family) {
        let open = self.format == Format::OpenMetrics;
        let name = if open { family.base() } else { family.name };
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Info if open => "info",
            // The older format has no such type.
            Kind::Gauge | Kind::Info => "gauge",
        };
        let help = Help(family.help, open);
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        if let Some(unit) = family.unit().filter(|_| open) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }
}

/// The samples of a family.
#[derive(Debug)]
pub struct Samples<'e> {
    out: &'e mut Exposition,
    family: &'static Family,
    count: usize,
    other: Option<Value>,
}

/// What a series has.
#[derive(Clone, Debug)]
enum Value {
    Count(u64),
    Number(f64),
    Seconds(Seconds),
}

impl Samples<'_> {
    /// A counter, or a gauge that counts; `labels` are the values of the family's, in their order.
    pub fn count(&mut self, labels: &[&str], count: u64) {
        self.add(labels, Value::Count(count));
    }

    /// Any number.
    pub fn number(&mut self, labels: &[&str], number: f64) {
        self.add(labels, Value::Number(number));
    }

    /// A histogram.
    pub fn seconds(&mut self, labels: &[&str], seconds: &Seconds) {
        self.add(labels, Value::Seconds(seconds.clone()));
    }

    fn add(&mut self, labels: &[&str], value: Value) {
        assert_eq!(labels.len(), self.family.labels.len(), "labels of {}", self.family.name);
        if self.count < MAX_SERIES {
            return self.write(labels, &value);
        }
        self.other = Some(match self.other.take() {
            None => value,
            Some(other) => folded(self.family.fold, other, value),
        });
    }

    fn write(&mut self, labels: &[&str], value: &Value) {
        if self.count == 0 {
            self.out.head(self.family);
        }
        self.count += 1;
        let Family { name, labels: names, .. } = self.family;
        let text = &mut self.out.text;
        let labels = Labels(names, labels, None);
        // Writing to a string does not fail.
        let _ = match value {
            Value::Count(count) => writeln!(text, "{name}{labels} {count}"),
            Value::Number(number) => writeln!(text, "{name}{labels} {}", Number(*number)),
            Value::Seconds(seconds) => histogram(text, name, &labels, seconds),
        };
    }
}

impl Drop for Samples<'_> {
    fn drop(&mut self) {
        if let Some(other) = self.other.take() {
            let labels = vec![OTHER; self.family.labels.len()];
            self.write(&labels, &other);
        }
    }
}

fn folded(fold: Fold, one: Value, other: Value) -> Value {
    match (fold, one, other) {
        (Fold::Sum, Value::Count(one), Value::Count(other)) => {
            Value::Count(one.wrapping_add(other))
        }
        (Fold::Sum, Value::Number(one), Value::Number(other)) => Value::Number(one + other),
        (Fold::Least, Value::Count(one), Value::Count(other)) => Value::Count(one.min(other)),
        (Fold::Least, Value::Number(one), Value::Number(other)) => Value::Number(one.min(other)),
        (_, Value::Seconds(mut one), Value::Seconds(other)) => {
            one.add(&other);
            Value::Seconds(one)
        }
        // A family has values of one type.
        (_, one, _) => one,
    }
}

fn histogram(text: &mut String, name: &str, labels: &Labels<'_>, seconds: &Seconds) -> fmt::Result {
    let mut below = 0;
    let bounds = seconds.bounds.iter().map(|bound| Number(bound.as_secs_f64()).to_string());
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(&seconds.counts) {
        below += count;
        writeln!(text, "{name}_bucket{} {below}", labels.with_bound(&bound))?;
    }
    let sum = seconds.sum_us as f64 / 1e6;
    writeln!(text, "{name}_sum{labels} {}\n{name}_count{labels} {below}", Number(sum))
}

/// The labels of a sample; the last is the bound of a bucket.
#[derive(Clone, Copy)]
struct Labels<'l>(&'l [&'l str], &'l [&'l str], Option<&'l str>);

impl<'l> Labels<'l> {
    fn with_bound<'b>(&'b self, bound: &'b str) -> Labels<'b>
    where
        'l: 'b,
    {
        Labels(self.0, self.1, Some(bound))
    }
}

impl Display for Labels<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names, values, bound) = *self;
        let own = names.iter().copied().zip(values.iter().copied());
        for (at, (name, value)) in own.chain(bound.map(|bound| ("le", bound))).enumerate() {
            formatter.write_str(if at == 0 { "{" } else { "," })?;
            write!(formatter, "{name}=\"{}\"", Escaped(value))?;
        }
        if names.is_empty() && bound.is_none() { Ok(()) } else { formatter.write_str("}") }
    }
}

/// A label value: backslash, quote and line feed are escaped, in both formats.
struct Escaped<'t>(&'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '\\' => formatter.write_str("\\\\")?,
                '"' => formatter.write_str("\\\"")?,
                '\n' => formatter.write_str("\\n")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The text behind HELP, in which only OpenMetrics escapes quotes.
struct Help<'t>(&'t str, bool);

impl Display for Help<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text, open) = *self;
        for char in text.chars() {
            match char {
                '\\' => formatter.write_str("\\\\")?,
                '\n' => formatter.write_str("\\n")?,
                '"' if open => formatter.write_str("\\\"")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A number with a point, so that whole ones look the same in both formats.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            number if number == f64::INFINITY => formatter.write_str("+Inf"),
            number if number == f64::NEG_INFINITY => formatter.write_str("-Inf"),
            number if number.is_nan() => formatter.write_str("NaN"),
            // `{:?}` has the shortest digits that read back as the same number, with a point.
            number => write!(formatter, "{number:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Histogram;

    static ENDS: Family = Family::new("x_ends_total", Kind::Counter, "Ends, \"all\" of them.")
        .by(&["why", "code"], "-");
    static TIME: Family = Family::new("x_time_seconds", Kind::Histogram, "a\\b\nc").by(&["s"], "-");
    static BARE: Family = Family::new("x_bare_seconds", Kind::Histogram, "-");
    static BUILD: Family = Family::new("x_build_info", Kind::Info, "-").by(&["version"], "1");
    static EXPIRY: Family =
        Family::new("x_expiry_seconds", Kind::Gauge, "-").by(&["name"], "-").least();
    static BOUNDS: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(60)];

    fn both(write: impl Fn(&mut Exposition)) -> [String; 2] {
        [Format::Text, Format::OpenMetrics].map(|format| {
            let mut exposition = Exposition::new(format);
            write(&mut exposition);
            exposition.finish()
        })
    }

    #[test]
    fn label_values_are_escaped_and_names_and_types_are_those_of_the_format() {
        let [text, open] = both(|out| {
            out.family(&ENDS).count(&["a\\b\"c\nd", "1000"], 7);
            out.family(&BUILD).count(&["1.2"], 1);
        });
        let sample = "x_ends_total{why=\"a\\\\b\\\"c\\nd\",code=\"1000\"} 7\n";
        assert_eq!(
            text,
            format!(
                "# HELP x_ends_total Ends, \"all\" of them.\n# TYPE x_ends_total counter\n{sample}\
                 # HELP x_build_info -\n# TYPE x_build_info gauge\nx_build_info{{version=\"1.2\"}} 1\n"
            )
        );
        assert_eq!(
            open,
            format!(
                "# HELP x_ends Ends, \\\"all\\\" of them.\n# TYPE x_ends counter\n{sample}\
                 # HELP x_build -\n# TYPE x_build info\nx_build_info{{version=\"1.2\"}} 1\n# EOF\n"
            )
        );
    }

    #[test]
    fn buckets_add_up_and_the_last_is_the_count() {
        let histogram = Histogram::new(&BOUNDS);
        for millis in [5, 6, 60_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let seconds = Seconds::of([&histogram]);
        let [text, open] = both(|out| {
            out.family(&TIME).seconds(&["a"], &seconds);
            out.family(&BARE).seconds(&[], &seconds);
        });
        let samples = "x_time_seconds_bucket{s=\"a\",le=\"0.005\"} 1\n\
             x_time_seconds_bucket{s=\"a\",le=\"60.0\"} 2\n\
             x_time_seconds_bucket{s=\"a\",le=\"+Inf\"} 3\n\
             x_time_seconds_sum{s=\"a\"} 60.012\nx_time_seconds_count{s=\"a\"} 3\n";
        for text in [&text, &open] {
            assert!(text.contains(samples), "{text}");
            assert!(text.contains("x_bare_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
            assert!(text.contains("x_bare_seconds_sum 60.012\n"), "{text}");
            assert!(text.contains("# HELP x_time_seconds a\\\\b\\nc\n"), "{text}");
        }
        assert!(open.contains("# UNIT x_time_seconds seconds\n") && !text.contains("UNIT"));
    }

    #[test]
    fn what_has_no_series_is_not_mentioned() {
        let [text, open] = both(|out| drop(out.family(&ENDS)));
        assert_eq!((&*text, &*open), ("", "# EOF\n"));
    }

    #[test]
    fn too_many_series_become_part_of_one() {
        let names: Vec<_> = (0..MAX_SERIES + 3).map(|number| number.to_string()).collect();
        let [text, _] = both(|out| {
            let mut ends = out.family(&ENDS);
            names.iter().for_each(|name| ends.count(&[name, "x"], 2));
            drop(ends);
            let mut expiry = out.family(&EXPIRY);
            names.iter().rev().for_each(|name| expiry.number(&[name], name.len() as f64));
        });
        assert_eq!(text.matches("\nx_ends_total{").count(), MAX_SERIES + 1);
        assert!(text.contains("x_ends_total{why=\"other\",code=\"other\"} 6\n"));
        assert!(text.contains("x_expiry_seconds{name=\"other\"} 1.0\n"));
    }
}
