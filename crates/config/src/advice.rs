//! What an accepted configuration probably does not do although its author wants it to.
//!
//! Each piece of advice looks for one mistake that nginx accepts in silence and that shows only when a client fails. It
//! is told once, with the places that together make the mistake. Nothing is told that could be meant as it stands: a
//! warning that is wrong once is not read the next time. `ignore_warnings` silences a kind where an operator knows
//! better.

mod origin;
mod public;
mod unchecked;
mod unreachable;
mod unset;
mod upgrade;

use std::collections::HashSet;

use wssgate_syntax::{self as syntax, Diagnostic, Span};

use crate::advice_kind::Advice;
use crate::ignored::ignored;
use crate::level::{Level, Line};
use crate::location::{LOCATION, LocationName};
use crate::position::LocationKind;
use crate::proxy::PROXY_SET_HEADER;
use crate::proxy::pass::PROXY_PASS;
use crate::read::Reading;
use crate::scope::Scope;
use crate::server::SERVER;
use crate::template::{Part, Template};
use crate::variable::Variable;

/// A location on the way through all of them.
#[derive(Clone, Copy)]
struct Place<'p, 's, 't> {
    scope: &'p Scope<'s, 't>,
    name: &'p LocationName,
    directive: &'t syntax::Directive,
}

impl Place<'_, '_, '_> {
    /// Whether requests come here by their path, and not only from elsewhere in the configuration.
    fn is_reached_by_path(&self) -> bool {
        self.name.kind != LocationKind::Named
    }

    /// Where it is written.
    fn span(&self) -> Span {
        self.directive.head()
    }

    /// Whether its name says that WebSockets are opened here.
    fn is_named_for_websockets(&self) -> bool {
        const WORDS: [&[u8]; 9] = [
            b"cable",
            b"engine.io",
            b"socket.io",
            b"sockjs",
            b"sockjs-node",
            b"websocket",
            b"websockets",
            b"ws",
            b"wss",
        ];
        if self.name.regex.is_some() && looks_around_for_absence(&self.name.name) {
            return false;
        }
        let apart = |byte: &u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'.' | b'-');
        // In a regular expression a dot may stand behind a backslash.
        let name: Vec<u8> = self.name.name.iter().copied().filter(|byte| *byte != b'\\').collect();
        let is_one = |word: &[u8]| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known));
        name.split(apart).any(is_one)
    }

    /// Whether requests are passed on from here, in an `if` block too.
    fn is_proxied(&self) -> bool {
        passes_on(self.scope.level)
    }
}

/// Whether a regular expression says what is not to be there: a word in it may be just that.
fn looks_around_for_absence(source: &[u8]) -> bool {
    [b"(?!".as_slice(), b"(?<!"]
        .iter()
        .any(|start| source.windows(start.len()).any(|window| window == *start))
}

/// Whether requests are passed on from a level, or from an `if` block in it.
fn passes_on(level: &Level<'_>) -> bool {
    let mut blocks = level.lines(&crate::rewrite::IF).filter_map(|line| line.level);
    level.has(&PROXY_PASS) || blocks.any(|block| block.has(&PROXY_PASS))
}

/// A `proxy_set_header` line.
type HeaderLine<'l, 't> = Line<'l, 't, (Box<[u8]>, Template)>;

/// The `proxy_set_header` lines that apply on a level.
struct SetHeaders<'l, 't> {
    level: Option<&'l Level<'t>>,
}

impl<'l, 't> SetHeaders<'l, 't> {
    fn of(scope: &Scope<'l, 't>) -> Self {
        Self { level: scope.nearest(&[&PROXY_SET_HEADER]) }
    }

    fn line(&self, name: &str) -> Option<HeaderLine<'l, 't>> {
        line_in(self.level?, name)
    }
}

fn line_in<'l, 't>(level: &'l Level<'t>, name: &str) -> Option<HeaderLine<'l, 't>> {
    level.lines(&PROXY_SET_HEADER).find(|line| {
        line.value.is_some_and(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// What is known of a text before any request.
enum Known<'v> {
    /// No variable is in it.
    Text(&'v [u8]),
    /// It is one variable, with its name.
    Variable(&'v str, &'v Variable),
    /// Anything else.
    Open,
}

fn known<'v>(reading: &'v Reading<'_>, template: &'v Template) -> Known<'v> {
    match (template.as_text(), template.parts()) {
        (Some(text), _) => Known::Text(text),
        (None, [Part::Variable(id)]) => {
            let slot = reading.names.slot_of(*id);
            Known::Variable(&slot.name, &slot.meaning)
        }
        _ => Known::Open,
    }
}

/// Collects what there is to say; each place is spoken of once for each kind.
pub(crate) struct Adviser<'r, 'a> {
    reading: &'r mut Reading<'a>,
    told: HashSet<(Advice, Span)>,
    idle: upgrade::IdlePlaces,
    lost: upgrade::LostLines,
    unchecked: unchecked::Unchecked,
}

impl<'r, 'a> Adviser<'r, 'a> {
    /// Looks at the whole `http` block.
    pub(crate) fn advise(reading: &'r mut Reading<'a>, http: &Level<'_>, scope: &Scope<'_, '_>) {
        if reading.report.has_errors() {
            return;
        }
        let mut adviser = Self {
            reading,
            told: HashSet::new(),
            idle: Default::default(),
            lost: Default::default(),
            unchecked: Default::default(),
        };
        let pages = unset::Pages::of(http);
        for line in http.lines(&SERVER) {
            let Some(level) = line.level else { continue };
            let server = scope.inner(level);
            adviser.redirected_server(&server);
            adviser.unset_in_server(&server);
            adviser.locations(&server, &pages);
        }
        adviser.tell_idle();
        adviser.tell_lost();
        adviser.tell_unchecked();
    }

    fn locations(&mut self, scope: &Scope<'_, '_>, pages: &unset::Pages) {
        self.shadowed(scope);
        for line in scope.level.lines(&LOCATION) {
            let (Some(name), Some(level)) = (line.value, line.level) else { continue };
            let inner = scope.inner(level);
            let place = Place { scope: &inner, name, directive: line.directive };
            self.unset_in_location(&place, pages);
            self.set_too_late(&place, pages);
            self.public_metrics(&place);
            if place.is_proxied() {
                self.upgrade(&place);
                self.unchecked(&place);
                self.host_and_origin(&place);
            }
            self.locations(&inner, pages);
        }
    }

    /// Tells something about a level, unless it was told or is not to be.
    fn tell(&mut self, scope: &Scope<'_, '_>, advice: Advice, diagnostic: Diagnostic) {
        let Some(span) = diagnostic.primary() else { return };
        if !ignored(scope).contains(&advice) && self.told.insert((advice, span)) {
            self.reading.report.push(diagnostic.note(advice.silencer()));
        }
    }
}
