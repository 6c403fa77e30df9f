//! nginx's regular expressions: PCRE2, with a bound on the work of one match.

use std::fmt;
use std::sync::{Arc, OnceLock};

use pcre2::bytes::{Regex as Code, RegexBuilder};

use wssgate_syntax::printable;

use crate::template::VariableId;

/// Before every expression: the steps that one match may take before it counts as no match; stops patterns that
/// backtrack without end on hostile input.
const LIMIT: &str = "(*LIMIT_MATCH=100000)";

/// A compiled expression and the variables that its named groups set.
#[derive(Clone)]
pub struct Regex(Arc<Expression>);

struct Expression {
    source: Box<str>,
    caseless: bool,
    /// What matches, from the first match on: a configuration may have thousands of expressions, most of them for
    /// requests that never come, and one takes a few kilobytes and longer to be made than to be checked.
    code: OnceLock<Code>,
    group_count: usize,
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
        let checked = compile(source, caseless, false)
            .map_err(|error| explained(&error, source, LIMIT.len()))?;
        let names = checked
            .capture_names()
            .iter()
            .enumerate()
            .filter_map(|(group, name)| Some((group, slot(name.as_deref()?))))
            .collect();
        let group_count = checked.captures_len().saturating_sub(1);
        let (source, code) = (source.into(), OnceLock::new());
        Ok(Self(Arc::new(Expression { source, caseless, code, group_count, names })))
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Whether letters match whatever their case.
    pub fn is_caseless(&self) -> bool {
        self.0.caseless
    }

    /// The groups of the first match in `subject`; a match that goes beyond the limit is none.
    pub fn captures(&self, subject: &[u8]) -> Option<Captures> {
        let code = self.0.matching();
        let mut found = code.capture_locations();
        code.captures_read(&mut found, subject).ok()??;
        Some(Captures { groups: (0..found.len()).map(|group| found.get(group)).collect() })
    }

    /// Group numbers and the variables that they set.
    pub fn names(&self) -> &[(usize, VariableId)] {
        &self.0.names
    }

    /// How many groups the expression has, the whole match not counted.
    pub fn group_count(&self) -> usize {
        self.0.group_count
    }
}

impl Expression {
    fn matching(&self) -> &Code {
        self.code.get_or_init(|| {
            // Only memory can be missing, of which a shortage ends the program everywhere. To go on would mean
            // not to match what may be there to keep somebody out.
            compile(&self.source, self.caseless, true).expect("what was right once is right again")
        })
    }
}

fn compile(source: &str, caseless: bool, fast: bool) -> Result<Code, pcre2::Error> {
    let limited = format!("{LIMIT}{source}");
    RegexBuilder::new().caseless(caseless).jit_if_available(fast).build(&limited)
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
        formatter.debug_tuple("Regex").field(&self.0.source).finish()
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
