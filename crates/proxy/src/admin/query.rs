//! The parameters of a request: `name=value&…` behind the `?` of its target.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use wssgate_config::value;
use wssgate_http1::{Unescape, unescape};

/// The longest time for which anything is ordered.
pub(super) const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// What is wrong with the parameters; the text names the parameter.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum QueryError {
    #[error("unknown parameter \"{0}\"")]
    Unknown(String),
    #[error("parameter \"{0}\" is repeated")]
    Repeated(String),
    #[error("invalid value \"{value}\" of parameter \"{name}\": {expected}")]
    Value { name: &'static str, value: String, expected: &'static str },
    #[error("parameter \"{0}\" is missing")]
    Missing(&'static str),
    #[error("the parameters are no UTF-8")]
    Text,
}

/// Parameters that nobody has looked at.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(args: &[u8]) -> Result<Self, QueryError> {
        let mut query = Vec::new();
        for part in args.split(|&b| b == b'&').filter(|part| !part.is_empty()) {
            let at = part.iter().position(|&b| b == b'=').unwrap_or(part.len());
            let (name, value) =
                (decoded(&part[..at])?, decoded(part.get(at + 1..).unwrap_or(b""))?);
            if query.iter().any(|(other, _)| *other == name) {
                return Err(QueryError::Repeated(name));
            }
            query.push((name, value));
        }
        Ok(Self(query))
    }

    /// The filters in it, in words for people; `everything` if there are none.
    pub(super) fn meaning(&self) -> String {
        let filters = self.0.iter().filter(|(name, _)| super::rows::FILTERS.contains(&&**name));
        let texts: Vec<_> = filters
            .map(|(name, value)| format!("{name}={}", wssgate_syntax::printable(value.as_bytes())))
            .collect();
        if texts.is_empty() { "everything".to_owned() } else { texts.join(" ") }
    }

    /// A text; an empty one counts.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Something that is read from a text.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, QueryError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(QueryError::Value { name, value, expected }),
        }
    }

    /// A whole number.
    pub(super) fn number<T: FromStr>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, QueryError> {
        self.read(name, "a whole number is expected", |text| text.parse().ok())
    }

    /// A time as configurations have it, such as `1h30m`; a number alone is seconds.
    pub(super) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, QueryError> {
        let expected = "a time such as 90s, 1h30m or 250ms is expected";
        self.read(name, expected, |text| value::duration(text.as_bytes()))
    }

    /// Whether it is there, as `name`, `name=true` or `name=1`, and not as `name=false`.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, QueryError> {
        let read = |text: &str| match text {
            "" | "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        };
        Ok(self.read(name, "true or false is expected", read)?.unwrap_or(false))
    }

    /// What nobody has asked for must not be taken for obeyed.
    pub(super) fn finish(self) -> Result<(), QueryError> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(QueryError::Unknown(name)),
            None => Ok(()),
        }
    }
}

fn decoded(text: &[u8]) -> Result<String, QueryError> {
    // As forms have it.
    let spaced: Vec<u8> = text.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    let mut out = Vec::with_capacity(spaced.len());
    unescape(&mut out, &spaced, Unescape::All);
    String::from_utf8(out).map_err(|_| QueryError::Text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_each_is_asked_for_once() {
        let mut query = Query::parse(b"user=a%20b+c&n=7&age=1h30m&all&no=false").unwrap();
        assert_eq!(query.text("user").as_deref(), Some("a b c"));
        assert_eq!(query.number::<u64>("n"), Ok(Some(7)));
        assert_eq!(query.duration("age"), Ok(Some(Duration::from_secs(5_400))));
        assert_eq!(
            (query.flag("all"), query.flag("no"), query.flag("none")),
            (Ok(true), Ok(false), Ok(false))
        );
        assert_eq!(query.finish(), Ok(()));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (args, expected) in [
            ("n=x", "invalid value \"x\" of parameter \"n\": a whole number is expected"),
            (
                "age=soon",
                "invalid value \"soon\" of parameter \"age\": a time such as 90s, 1h30m or 250ms is expected",
            ),
            ("usr=x", "unknown parameter \"usr\""),
        ] {
            let mut query = Query::parse(args.as_bytes()).unwrap();
            let read =
                query.number::<u64>("n").and(query.duration("age")).and_then(|_| query.finish());
            assert_eq!(read.unwrap_err().to_string(), expected);
        }
        assert_eq!(Query::parse(b"a=1&a=2").unwrap_err(), QueryError::Repeated("a".into()));
        assert_eq!(Query::parse(b"a=%ff").unwrap_err(), QueryError::Text);
    }
}
