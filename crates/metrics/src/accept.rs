//! Which format a client asks for.

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// The versions of OpenMetrics that are written so.
const VERSIONS: [&str; 2] = ["0.0.1", "1.0.0"];

impl Format {
    /// What a client wants that sent this `Accept` (RFC 9110 §12.5.1). OpenMetrics is only for those who ask for it
    /// by name; whoever wants neither gets the text, too.
    pub fn wanted(accept: &[u8]) -> Self {
        let Ok(accept) = std::str::from_utf8(accept) else { return Self::Text };
        let (mut open, mut text) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let (mut weight, mut known) = (1000, true);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match key.trim() {
                    key if key.eq_ignore_ascii_case("q") => weight = thousandths(value),
                    key if key.eq_ignore_ascii_case("version") => known = VERSIONS.contains(&value),
                    _ => {}
                }
            }
            if name.eq_ignore_ascii_case("application/openmetrics-text") && known {
                open = open.max(weight);
            } else if ["text/plain", "text/*", "*/*"].iter().any(|it| name.eq_ignore_ascii_case(it))
            {
                text = text.max(weight);
            }
        }
        if open > 0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The `Content-Type` of the text.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A weight of `Accept`; what is none counts as nothing.
fn thousandths(weight: &str) -> u32 {
    let weight = weight.parse().unwrap_or(0.0_f64).clamp(0.0, 1.0);
    (weight * 1000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        use Format::{OpenMetrics, Text};
        for (accept, expected) in [
            ("", Text),
            ("*/*", Text),
            ("text/html,application/xml;q=0.9,*/*;q=0.8", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", OpenMetrics),
            ("Application/OpenMetrics-Text;Version=\"0.0.1\"", OpenMetrics),
            ("application/openmetrics-text;version=2.0.0", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.5", Text),
            ("application/openmetrics-text;q=x", Text),
            // Prometheus 2.42 and 3.1.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
        ] {
            assert_eq!(Format::wanted(accept.as_bytes()), expected, "{accept}");
        }
    }
}
