//! `match`: the tests that a response to a health check has to pass.

use std::collections::HashMap;
use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word, closest, printable};

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Braces, Directive, H};
use crate::level::Level;
use crate::map::entries;
use crate::read::{Reading, Reads, variable_name};
use crate::regex::Regex;
use crate::template::Template;
use crate::value::{self, Located};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&MATCH];

/// `match`
pub(crate) static MATCH: Directive<Arc<Match>> = Directive {
    name: "match",
    contexts: H,
    arity: Exactly(1),
    doc: "Defines the tests that a response to a health check must pass, all of them: `status 200 \
          301-303;` or `status ! 500-599;`, `header NAME [= | != | ~ | !~ VALUE];` or `header ! \
          NAME;`, `body ~ EXPRESSION;` or `body !~ EXPRESSION;` for the first 256k of the body, and \
          `require $VARIABLE …;`, whose values must be neither empty nor `0`.",
    example: "match welcome {\n    status 200;\n    header Content-Type ~ text/html;\n    body ~ \
              \"Welcome\";\n}",
    braces: Braces::Entries,
    ..Directive::repeated(matching)
};

/// The tests of one `match` block.
#[derive(Clone, Debug, Default)]
pub struct Match {
    name: Box<[u8]>,
    statuses: Vec<StatusTest>,
    headers: Vec<HeaderTest>,
    bodies: Vec<BodyTest>,
    required: Vec<Template>,
}

#[derive(Clone, Debug)]
struct StatusTest {
    negated: bool,
    ranges: Vec<(u16, u16)>,
}

#[derive(Clone, Debug)]
struct HeaderTest {
    name: Box<[u8]>,
    rule: HeaderRule,
}

#[derive(Clone, Debug)]
enum HeaderRule {
    Present,
    Absent,
    Is(Box<[u8]>),
    IsNot(Box<[u8]>),
    Matches(Regex),
    MatchesNot(Regex),
}

#[derive(Clone, Debug)]
struct BodyTest {
    negated: bool,
    regex: Regex,
}

impl Match {
    /// What it is called.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether a response may have this status.
    pub fn takes_status(&self, status: u16) -> bool {
        self.statuses.iter().all(|test| {
            let listed = test.ranges.iter().any(|(from, to)| (*from..=*to).contains(&status));
            listed != test.negated
        })
    }

    /// Whether fields are looked at.
    pub fn tests_fields(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Whether a response may have these fields. Of several of one name, one has to have a value
    /// that is wanted, and none one that is not.
    pub fn takes_fields<'f>(
        &self,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])> + Clone,
    ) -> bool {
        self.headers.iter().all(|test| {
            let same = |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(&test.name);
            let mut values = fields.clone().filter(same).map(|(_, value)| value).peekable();
            let present = values.peek().is_some();
            match &test.rule {
                HeaderRule::Present => present,
                HeaderRule::Absent => !present,
                HeaderRule::Is(wanted) => values.any(|value| *value == **wanted),
                HeaderRule::IsNot(other) => present && values.all(|value| *value != **other),
                HeaderRule::Matches(regex) => values.any(|value| regex.captures(value).is_some()),
                HeaderRule::MatchesNot(regex) => {
                    present && values.all(|value| regex.captures(value).is_none())
                }
            }
        })
    }

    /// Whether the body is looked at.
    pub fn tests_body(&self) -> bool {
        !self.bodies.is_empty()
    }

    /// Whether a response may have this body.
    pub fn takes_body(&self, body: &[u8]) -> bool {
        self.bodies.iter().all(|test| test.regex.captures(body).is_some() != test.negated)
    }

    /// Whose values must be true.
    pub fn required(&self) -> &[Template] {
        &self.required
    }
}

fn matching(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Arc<Match>> {
    let mut matching = Match { name: directive.args[0].value.clone(), ..Match::default() };
    for entry in entries(directive) {
        if let Err(problem) = test(reading, &mut matching, entry) {
            reading.report.push(problem);
        }
    }
    Ok(Arc::new(matching))
}

fn test(reading: &mut Reading<'_>, into: &mut Match, entry: &syntax::Directive) -> Reads<()> {
    match &*entry.name.value {
        b"status" => into.statuses.push(status(entry)?),
        b"header" => into.headers.push(header(reading, entry)?),
        b"body" => into.bodies.push(body(reading, entry)?),
        b"require" => {
            if entry.args.is_empty() {
                return Err(invalid_number(entry));
            }
            for word in &entry.args {
                variable_name(word)?;
                into.required.push(reading.template(word)?);
            }
        }
        // Includes are followed by the parser; one that is left failed there.
        b"include" => {}
        other => {
            let known = ["status", "header", "body", "require"];
            let meant = closest(other, known).map(|close| format!("did you mean `{close}`?"));
            let message = format!("unknown test \"{}\" in \"match\"", printable(other));
            return Err(Diagnostic::error(message).at(entry.name.span, "").maybe_help(meant));
        }
    }
    Ok(())
}

fn invalid_number(entry: &syntax::Directive) -> Diagnostic {
    let message = format!("invalid number of arguments in \"{}\" test", entry.name);
    Diagnostic::error(message).at(entry.head(), "")
}

fn status(entry: &syntax::Directive) -> Reads<StatusTest> {
    let negated = entry.args.first().is_some_and(|word| word.is("!"));
    let words = &entry.args[usize::from(negated)..];
    if words.is_empty() {
        return Err(invalid_number(entry));
    }
    let range = |word: &Word| {
        let text = word.as_str()?;
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| {
            let number = value::number(text.as_bytes())?;
            u16::try_from(number).ok().filter(|number| (100..=999).contains(number))
        };
        let (from, to) = (number(from)?, number(to)?);
        (from <= to).then_some((from, to))
    };
    let read = |word: &Word| {
        range(word).ok_or_else(|| {
            let problem = Diagnostic::error(format!("invalid status \"{word}\""));
            problem.at(word.span, "a status, or a range such as `200-399`")
        })
    };
    Ok(StatusTest { negated, ranges: words.iter().map(read).collect::<Reads<_>>()? })
}

fn header(reading: &mut Reading<'_>, entry: &syntax::Directive) -> Reads<HeaderTest> {
    let regex =
        |reading: &mut Reading<'_>, word: &Word| reading.regex(&word.value, false, word.span);
    let (name, rule) = match &entry.args[..] {
        [not, name] if not.is("!") => (name, HeaderRule::Absent),
        [name] => (name, HeaderRule::Present),
        [name, operator, word] => {
            let value = || word.value.clone();
            let rule = match &*operator.value {
                b"=" => HeaderRule::Is(value()),
                b"!=" => HeaderRule::IsNot(value()),
                b"~" => HeaderRule::Matches(regex(reading, word)?),
                b"!~" => HeaderRule::MatchesNot(regex(reading, word)?),
                _ => return Err(invalid_operator(operator, "one of `=`, `!=`, `~`, `!~`")),
            };
            (name, rule)
        }
        _ => return Err(invalid_number(entry)),
    };
    Ok(HeaderTest { name: name.value.clone(), rule })
}

fn body(reading: &mut Reading<'_>, entry: &syntax::Directive) -> Reads<BodyTest> {
    let [operator, word] = &entry.args[..] else { return Err(invalid_number(entry)) };
    let negated = match &*operator.value {
        b"~" => false,
        b"!~" => true,
        _ => return Err(invalid_operator(operator, "one of `~`, `!~`")),
    };
    Ok(BodyTest { negated, regex: reading.regex(&word.value, false, word.span)? })
}

fn invalid_operator(word: &Word, known: &str) -> Diagnostic {
    Diagnostic::error(format!("invalid operator \"{word}\"")).at(word.span, known)
}

/// The `match` blocks by name.
pub(crate) struct Matches(HashMap<Box<[u8]>, Arc<Match>>);

impl Matches {
    /// All of them; they may be used before they stand.
    pub(crate) fn new(reading: &mut Reading<'_>, http: &Level<'_>) -> Self {
        let mut matches = HashMap::new();
        for line in http.lines(&MATCH) {
            let Some(matching) = line.value else { continue };
            if matches.insert(matching.name.clone(), Arc::clone(matching)).is_some() {
                let message = format!("duplicate match \"{}\"", printable(&matching.name));
                reading.error(message, line.directive.head());
            }
        }
        Self(matches)
    }

    /// The block of this name; that there is none is reported.
    pub(super) fn find(
        &self,
        reading: &mut Reading<'_>,
        name: &Located<Box<[u8]>>,
    ) -> Option<Arc<Match>> {
        let found = self.0.get(&name.value).cloned();
        if found.is_none() {
            let message = format!("unknown match \"{}\"", printable(&name.value));
            let known = self.0.keys().filter_map(|name| std::str::from_utf8(name).ok());
            let meant = closest(&name.value, known);
            let help = match meant {
                Some(close) => format!("did you mean `{close}`?"),
                None => "define it in `http`: `match NAME { status 200; }`".to_owned(),
            };
            reading.report.push(Diagnostic::error(message).at(name.span, "").help(help));
        }
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{LoadOptions, load};

    /// The only `match` block, with these tests in it.
    fn of(tests: &str) -> Arc<Match> {
        let text = format!(
            "events {{}} http {{ match m {{ {tests} }} server {{ location / {{
                 proxy_pass http://127.0.0.1:1; health_check match=m; }} }} }}"
        );
        let config = load(&LoadOptions::text(text)).unwrap().config;
        let crate::model::CheckKind::Http { matching, .. } =
            &config.http.as_ref().unwrap().servers[0].health_checks[0].1.kind
        else {
            panic!("it is one of HTTP");
        };
        Arc::clone(matching.as_ref().unwrap())
    }

    #[test]
    fn a_status_is_listed_or_is_not() {
        for (tests, status, expected) in [
            ("", 500, true),
            ("status 200;", 200, true),
            ("status 200;", 201, false),
            ("status ! 500;", 500, false),
            ("status ! 500;", 200, true),
            ("status 200 204;", 204, true),
            ("status ! 301 302;", 302, false),
            ("status ! 301 302;", 303, true),
            ("status 200-399;", 200, true),
            ("status 200-399;", 399, true),
            ("status 200-399;", 400, false),
            ("status ! 400-599;", 499, false),
            ("status 301-303 307;", 307, true),
            ("status 301-303 307;", 304, false),
            ("status 200-299; status ! 204;", 204, false),
            ("status 200-299; status ! 204;", 205, true),
        ] {
            assert_eq!(of(tests).takes_status(status), expected, "{tests} {status}");
        }
    }

    #[test]
    fn fields_are_there_or_not_and_have_values() {
        let html = [("content-type", "text/html"), ("X", "1"), ("X", "2")];
        for (tests, expected) in [
            ("", true),
            ("header Content-Type;", true),
            ("header Refresh;", false),
            ("header ! Refresh;", true),
            ("header ! Content-Type;", false),
            ("header Content-Type = text/html;", true),
            ("header Content-Type = text;", false),
            ("header Content-Type != text/plain;", true),
            ("header Content-Type != text/html;", false),
            ("header Refresh != 1;", false),
            ("header Content-Type ~ ^text/;", true),
            ("header Content-Type ~ ^html;", false),
            ("header Content-Type !~ json;", true),
            ("header Content-Type !~ html;", false),
            ("header Refresh !~ html;", false),
            ("header X = 2;", true),
            ("header X != 2;", false),
            ("header X ~ 2;", true),
            ("header X !~ 2;", false),
            ("header X; header ! X;", false),
        ] {
            let fields = html.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            assert_eq!(of(tests).takes_fields(fields), expected, "{tests}");
        }
    }

    #[test]
    fn a_body_matches_or_does_not() {
        for (tests, expected) in [
            ("body ~ Welcome;", true),
            ("body ~ welcome;", false),
            ("body !~ maintenance;", true),
            ("body !~ Welcome;", false),
            ("body ~ Welcome; body !~ nginx;", false),
        ] {
            let matching = of(tests);
            assert!(matching.tests_body());
            assert_eq!(matching.takes_body(b"Welcome to nginx!"), expected, "{tests}");
        }
        assert!(!of("status 200;").tests_body());
    }
}
