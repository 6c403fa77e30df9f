//! nginx's regular expressions: PCRE2, with a bound on the work of one match.

use std::fmt;

use pcre2::bytes::{Regex as Code, RegexBuilder};

use wssgate_syntax::printable;

use crate::template::VariableId;

/// Steps that one match may take before it counts as no match; stops patterns that backtrack
/// without end on hostile input.
const MATCH_LIMIT: u32 = 100_000;

/// A compiled expression and the variables that its named groups set.
#[derive(Clone)]
pub struct Regex {
    source: Box<str>,
    code: Code,
    names: Box<[(usize, VariableId)]>,
}

/// Where the groups of a match lie in the subject; `None` for a group that took no part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// Start and end of group 0 (the whole match), 1, 2, …
    pub groups: Vec<Option<(usize, usize)>>,
}

impl Captures {
    /// The bytes of group `number`.
    pub fn group<'s>(&self, subject: &'s [u8], number: usize) -> Option<&'s [u8]> {
        let (start, end) = (*self.groups.get(number)?)?;
        subject.get(start..end)
    }
}

impl Regex {
    /// Compiles `source`; `slot` gives the variable for the name of each named group.
    ///
    /// # Errors
    /// What PCRE2 says about the expression, in nginx's words, with the place where it stopped.
    pub fn new(
        source: &str,
        caseless: bool,
        mut slot: impl FnMut(&str) -> VariableId,
    ) -> Result<Self, String> {
        let limit = format!("(*LIMIT_MATCH={MATCH_LIMIT})");
        let limited = format!("{limit}{source}");
        let code = RegexBuilder::new()
            .caseless(caseless)
            .jit_if_available(true)
            .build(&limited)
            .map_err(|error| explained(&error, source, limit.len()))?;
        let names = code
            .capture_names()
            .iter()
            .enumerate()
            .filter_map(|(group, name)| Some((group, slot(name.as_deref()?))))
            .collect();
        Ok(Self { source: source.into(), code, names })
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The groups of the first match in `subject`; a match that goes beyond the limit is none.
    pub fn captures(&self, subject: &[u8]) -> Option<Captures> {
        let mut found = self.code.capture_locations();
        self.code.captures_read(&mut found, subject).ok()??;
        Some(Captures { groups: (0..found.len()).map(|group| found.get(group)).collect() })
    }

    /// Group numbers and the variables that they set.
    pub fn names(&self) -> &[(usize, VariableId)] {
        &self.names
    }

    /// How many groups the expression has, the whole match not counted.
    pub fn group_count(&self) -> usize {
        self.code.captures_len().saturating_sub(1)
    }
}

/// What is wrong with `source`, which was compiled behind `ahead` bytes of ours.
fn explained(error: &pcre2::Error, source: &str, ahead: usize) -> String {
    let text = error.to_string();
    let reason = text.rsplit_once(": ").map_or(text.as_str(), |(_, reason)| reason);
    let whole = printable(source.as_bytes());
    let rest =
        error.offset().and_then(|offset| source.as_bytes().get(offset.checked_sub(ahead)?..));
    match rest {
        Some(rest) if !rest.is_empty() => {
            format!("{reason} in \"{whole}\" at \"{}\"", printable(rest))
        }
        _ => format!("{reason} in \"{whole}\""),
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Regex").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_names_are_reported() {
        let regex =
            Regex::new(r"^/(?<first>\w+)(/x)?", false, |_| VariableId(7)).expect("compiles");
        let captures = regex.captures(b"/abc").expect("matches");
        assert_eq!(captures.group(b"/abc", 1), Some(b"abc".as_slice()));
        assert_eq!(captures.group(b"/abc", 2), None);
        assert_eq!(regex.names(), &[(1, VariableId(7))]);
        assert_eq!(regex.group_count(), 2);
    }

    #[test]
    fn case_is_ignored_only_when_asked() {
        let compile = |caseless| Regex::new("ab", caseless, |_| VariableId(0)).expect("compiles");
        assert!(compile(false).captures(b"AB").is_none());
        assert!(compile(true).captures(b"AB").is_some());
    }

    #[test]
    fn a_hostile_subject_ends_as_no_match() {
        let regex = Regex::new("^(a+)+$", false, |_| VariableId(0)).expect("compiles");
        assert!(regex.captures(&[vec![b'a'; 200], b"!".to_vec()].concat()).is_none());
    }

    #[test]
    fn a_broken_expression_says_where() {
        for (source, expected) in [
            ("(", "missing closing parenthesis in \"(\""),
            ("ab)c", "unmatched closing parenthesis in \"ab)c\" at \")c\""),
        ] {
            let error = Regex::new(source, false, |_| VariableId(0)).expect_err(source);
            assert_eq!(error, expected);
        }
    }
}
