//! Locations that no request reaches.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use wssgate_syntax::{self as syntax, Diagnostic, Span, printable};

use super::Adviser;
use crate::advice_kind::Advice;
use crate::level::Level;
use crate::location::{LOCATION, LocationName};
use crate::position::LocationKind;
use crate::rewrite::{BREAK, RETURN, REWRITE, RewriteFlag, RewriteOp};
use crate::scope::Scope;
use crate::server::MERGE_SLASHES;
use crate::settings::INTERNAL;

/// One of the locations of a level.
struct Sibling<'l> {
    name: &'l LocationName,
    directive: &'l syntax::Directive,
    /// Whether locations or `if` blocks are inside it, which may do something else than itself.
    has_inner: bool,
    is_internal: bool,
    /// Of a regular expression: what all of its paths begin with, if it matches all that begin so.
    whole: Option<Vec<u8>>,
}

impl Sibling<'_> {
    /// Where it is written.
    fn span(&self) -> Span {
        self.directive.head()
    }

    fn is(&self, kind: LocationKind) -> bool {
        self.name.kind == kind
    }
}

/// Where the first of the locations of a level stands that could keep others from requests; there may be thousands.
#[derive(Default)]
struct Known<'l> {
    /// Of each expression, without and with `*`.
    sources: [HashMap<&'l str, usize>; 2],
    /// Of those that match everything.
    all: Option<usize>,
    /// Of those that match all that begins so.
    wholes: HashMap<&'l [u8], usize>,
    finals: HashMap<&'l [u8], usize>,
    /// The paths of prefixes that are no `^~`; none where there is no `^~`, of which they make exceptions.
    plain: BTreeSet<&'l [u8]>,
    /// How long the longest of them is.
    longest_plain: usize,
}

impl<'l> Known<'l> {
    fn of(siblings: &'l [Sibling<'_>]) -> Self {
        let mut known = Self::default();
        let has_finals = siblings.iter().any(|sibling| sibling.is(LocationKind::PrefixFinal));
        for (at, sibling) in siblings.iter().enumerate() {
            let path = &*sibling.name.name;
            if sibling.is(LocationKind::PrefixFinal) {
                known.finals.entry(path).or_insert(at);
            }
            if has_finals && sibling.is(LocationKind::Prefix) {
                known.plain.insert(path);
                known.longest_plain = known.longest_plain.max(path.len());
            }
            if let Some(whole) = &sibling.whole {
                known.wholes.entry(whole).or_insert(at);
            }
            let Some(regex) = &sibling.name.regex else { continue };
            let sources = &mut known.sources[usize::from(sibling.name.caseless)];
            sources.entry(regex.source()).or_insert(at);
            if matches_all(regex.source()) {
                known.all.get_or_insert(at);
            }
        }
        known
    }

    /// The first expression that is the same and matches whatever one with this case does.
    fn same(&self, source: &str, caseless: bool) -> Option<usize> {
        let maps = if caseless { &self.sources[1..] } else { &self.sources[..] };
        maps.iter().filter_map(|map| map.get(source).copied()).min()
    }

    /// The first `^~` that keeps from an expression all paths that it could match, which begin with `start`.
    fn shadowing(&self, start: Option<&[u8]>) -> Option<usize> {
        let beginnings =
            start.into_iter().flat_map(|start| (0..=start.len()).map(|len| &start[..len]));
        let covering = beginnings.chain([&b"/"[..]]).filter_map(|path| {
            let at = self.finals.get(path)?;
            (!self.has_gap(start, path.len())).then_some(*at)
        });
        covering.min()
    }

    /// Whether a prefix longer than `len` that is no `^~` lets some of the paths through that begin with `start`.
    fn has_gap(&self, start: Option<&[u8]>, len: usize) -> bool {
        let Some(start) = start else { return self.longest_plain > len };
        let from = (Bound::Included(start), Bound::Unbounded);
        let behind = self.plain.range::<[u8], _>(from).take_while(|path| path.starts_with(start));
        let mut beginnings = (len + 1..=start.len()).map(|len| &start[..len]);
        behind.into_iter().any(|path| path.len() > len)
            || beginnings.any(|path| self.plain.contains(path))
    }
}

/// What is wrong with a location, and the other one that is to blame.
struct Shadow {
    label: &'static str,
    by: Option<(Span, &'static str)>,
    help: &'static str,
}

impl Adviser<'_, '_> {
    /// Locations of a level that others of the level, or their own name, keep all requests from.
    pub(super) fn shadowed(&mut self, scope: &Scope<'_, '_>) {
        let siblings = siblings(scope.level);
        let known = Known::of(&siblings);
        for (index, sibling) in siblings.iter().enumerate() {
            let shadow = match sibling.name.kind {
                LocationKind::Regex => {
                    odd_expression(sibling).or_else(|| shadow_of_regex(&siblings, &known, index))
                }
                // A rewrite may lead to any text.
                _ if sibling.is_internal => None,
                LocationKind::Prefix => odd_path(scope, &sibling.name.name)
                    .or_else(|| shadow_of_prefix(&siblings, &known, sibling)),
                LocationKind::PrefixFinal | LocationKind::Exact => {
                    odd_path(scope, &sibling.name.name)
                }
                LocationKind::Named | LocationKind::Unnamed => None,
            };
            let Some(Shadow { label, by, help }) = shadow else { continue };
            let name = printable(&sibling.name.name);
            let message = format!("location \"{name}\" is never used");
            let mut problem = Diagnostic::warning(message).at(sibling.span(), label);
            if let Some((span, label)) = by {
                problem = problem.at(span, label);
            }
            self.tell(scope, Advice::Unreachable, problem.help(help));
        }
    }

    /// A server that redirects every request before it looks for a location: what certbot wants to fetch is not
    /// found either.
    pub(super) fn redirected_server(&mut self, server: &Scope<'_, '_>) {
        let Some(redirect) = redirect(server.level) else { return };
        let siblings = siblings(server.level);
        let Some(first) = siblings.iter().find(|sibling| !sibling.is(LocationKind::Named)) else {
            return;
        };
        let name = printable(&first.name.name);
        let message =
            format!("location \"{name}\" is never used, the server redirects all requests");
        let problem = Diagnostic::warning(message)
            .at(first.span(), "requests do not get here")
            .at(redirect, "this is done before a location is selected")
            .help("put the redirect into `location / { }`");
        self.tell(server, Advice::Unreachable, problem);
    }
}

fn siblings<'l>(level: &'l Level<'_>) -> Vec<Sibling<'l>> {
    let lines = level.lines(&LOCATION);
    let siblings = lines.filter_map(|line| {
        let inner = line.level?;
        let has_inner = inner.has(&LOCATION) || inner.has(&crate::rewrite::IF);
        let is_internal = inner.has(&INTERNAL);
        let name = line.value?;
        let whole = name.regex.as_ref().and_then(|regex| match matches_all(regex.source()) {
            true => Some(Vec::new()),
            false => whole_literal(regex.source()).filter(|start| start.len() > 1),
        });
        let directive = line.directive;
        Some(Sibling { name, directive, has_inner, is_internal, whole })
    });
    siblings.collect()
}

/// Where a level redirects whatever comes.
fn redirect(level: &Level<'_>) -> Option<Span> {
    for line in level.lines_of([&BREAK, &RETURN, &REWRITE]) {
        match line.value? {
            RewriteOp::Return(answer) => {
                let redirects = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
                return redirects.then(|| line.directive.head());
            }
            RewriteOp::Rewrite(rewrite) => {
                let flag = rewrite.flag;
                if matches!(flag, RewriteFlag::Redirect | RewriteFlag::Permanent)
                    && matches_all(rewrite.regex.source())
                {
                    return Some(line.directive.head());
                }
                // Behind the others something may not be run any more.
                if matches!(flag, RewriteFlag::Last | RewriteFlag::Break) {
                    return None;
                }
            }
            _ => return None,
        }
    }
    None
}

/// Whether an expression matches every path.
fn matches_all(source: &str) -> bool {
    const ALL: [&str; 13] = [
        "", "^", "/", "^/", ".*", "^.*", "^.*$", "^/.*", "^/.*$", "(.*)", "^(.*)", "^(.*)$",
        "^/(.*)$",
    ];
    ALL.contains(&source)
}

/// A problem of a name, and what to do.
type Odd = (&'static str, &'static str);

const NO_SLASH: Odd =
    ("a path begins with `/`", "begin with `/`, or write `~` before a regular expression");
const NO_SLASH_IN_EXPRESSION: Odd = ("a path begins with `/`", "write it after the `^`");
const ARGUMENTS: Odd = (
    "a path ends before its `?`",
    "match the arguments with `$arg_NAME` or `$args`, for example in a `map`",
);

/// A name that no path has.
fn odd_path(scope: &Scope<'_, '_>, name: &[u8]) -> Option<Shadow> {
    let escaped = |bytes: &[u8]| {
        bytes[0] == b'%' && bytes[1].is_ascii_hexdigit() && bytes[2].is_ascii_hexdigit()
    };
    let (label, help) = match name {
        [] => return None,
        [first, ..] if *first != b'/' => NO_SLASH,
        _ if name.contains(&b'?') => ARGUMENTS,
        _ if name.windows(3).any(escaped) => {
            ("paths are compared after decoding", "write the character itself, in quotes")
        }
        _ if name.windows(2).any(|pair| pair == b"//") && scope.get(&MERGE_SLASHES) => {
            ("adjacent slashes of a path are merged", "write one slash, or `merge_slashes off`")
        }
        _ => return None,
    };
    Some(Shadow { label, by: None, help })
}

/// A regular expression that matches no path.
fn odd_expression(sibling: &Sibling<'_>) -> Option<Shadow> {
    let source = sibling.name.regex.as_ref().filter(|_| !sibling.is_internal)?.source();
    let start = literal_start(source).unwrap_or_default();
    let (label, help) = match start.first() {
        Some(first) if *first != b'/' => NO_SLASH_IN_EXPRESSION,
        _ if has_question_mark(source) => ARGUMENTS,
        _ => return None,
    };
    Some(Shadow { label, by: None, help })
}

/// Whether everything that an expression matches has a `?` in it, as far as that is easily seen.
fn has_question_mark(source: &str) -> bool {
    let (mut depth, mut characters) = (0usize, source.chars());
    while let Some(character) = characters.next() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '[' => return false,
            '\\' => match characters.next() {
                // What may not be there, or be one of several.
                Some('?') if depth > 0 || characters.as_str().starts_with(['?', '*', '{']) => {}
                Some('?') => return !source.contains('|'),
                Some('Q') => return false,
                _ => {}
            },
            _ => {}
        }
    }
    false
}

fn shadow_of_regex(siblings: &[Sibling<'_>], known: &Known<'_>, index: usize) -> Option<Shadow> {
    let own = &siblings[index];
    let (source, caseless) = (own.name.regex.as_ref()?.source(), own.name.caseless);
    if let Some(earlier) = known.same(source, caseless).into_iter().chain(known.all).min()
        && earlier < index
    {
        return Some(Shadow {
            label: "regular expressions are tried in the order of the file",
            by: Some((
                siblings[earlier].span(),
                "this one is tried before, and matches all of its paths",
            )),
            help: "put it before the other one",
        });
    }
    let start = if caseless { None } else { literal_start(source) };
    let other = &siblings[known.shadowing(start.as_deref())?];
    Some(Shadow {
        label: "not tried for any of its paths",
        by: Some((other.span(), "`^~` keeps regular expressions from being tried")),
        help: "leave out the `^~`, or write this one as a prefix too",
    })
}

fn shadow_of_prefix(
    siblings: &[Sibling<'_>],
    known: &Known<'_>,
    own: &Sibling<'_>,
) -> Option<Shadow> {
    if own.has_inner {
        return None;
    }
    let name = &own.name.name;
    let at = (0..=name.len()).find_map(|len| known.wholes.get(&name[..len]))?;
    let other = &siblings[*at];
    Some(Shadow {
        label: "a regular expression that matches wins over a prefix",
        by: Some((other.span(), "this one matches all of its paths")),
        help: match &**name {
            // All others would not be tried either.
            b"/" => "make the regular expression narrower, or leave one of the two out",
            _ => "write `^~` before its path",
        },
    })
}

/// The text with which everything begins that an expression matches; `None` if it may begin with anything.
fn literal_start(source: &str) -> Option<Vec<u8>> {
    let (mut start, rest) = literal(source)?;
    // The last one may be repeated, or not be there.
    if rest.starts_with(['?', '*', '{']) {
        start.pop();
    }
    Some(start)
}

/// The same for an expression that matches everything that begins so.
fn whole_literal(source: &str) -> Option<Vec<u8>> {
    literal(source).filter(|(_, rest)| rest.is_empty()).map(|(start, _)| start)
}

/// The literal text behind a `^`, and the rest of the expression.
fn literal(source: &str) -> Option<(Vec<u8>, &str)> {
    // With alternatives it may be one of them only.
    let mut rest = source.strip_prefix('^').filter(|_| !source.contains('|'))?;
    let mut text = Vec::new();
    loop {
        let mut characters = rest.chars();
        match characters.next() {
            Some('\\') => match characters.next() {
                Some(escaped) if !escaped.is_alphanumeric() => {
                    text.extend_from_slice(escaped.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => return Some((text, rest)),
            },
            Some(plain) if !".[({*+?$^)".contains(plain) => {
                text.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Some((text, rest)),
        }
        rest = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_expression_begins_with() {
        for (source, start, whole) in [
            (r"^/ws", Some("/ws"), Some("/ws")),
            (r"^/socket\.io/", Some("/socket.io/"), Some("/socket.io/")),
            (r"^/ws/?$", Some("/ws"), None),
            (r"^/ws/(.*)$", Some("/ws/"), None),
            (r"^/a|/b", None, None),
            (r"\.php$", None, None),
            (r"^/v\d", Some("/v"), None),
            (r"^/a+", Some("/a"), None),
            (r"^/a{0,2}", Some("/"), None),
            (r"^/$", Some("/"), None),
        ] {
            let text = |text: Option<Vec<u8>>| {
                text.map(|text| String::from_utf8_lossy(&text).into_owned())
            };
            assert_eq!(text(literal_start(source)).as_deref(), start, "{source}");
            assert_eq!(text(whole_literal(source)).as_deref(), whole, "{source}");
        }
    }

    #[test]
    fn which_expressions_need_a_question_mark() {
        for (source, expected) in [
            (r"/chat\?x=1", true),
            (r"^/(a)/b\?(x)=[0-9]|", false),
            (r"^/(a)/b\?(x)=[0-9]", true),
            (r"^/a\?+$", true),
            (r"^/a\??", false),
            (r"^/a\?*", false),
            (r"^/a\?{0,1}", false),
            (r"^/a(\?x)?$", false),
            (r"^/a[\?&]", false),
            (r"^/a\\?$", false),
            (r"^/a\?|/b", false),
            (r"^/ws/?$", false),
        ] {
            assert_eq!(has_question_mark(source), expected, "{source}");
        }
    }
}
