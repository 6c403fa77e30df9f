//! Fields that we add to answers.

use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::{Between, Exactly};
use crate::directive::{AnyDirective, Directive, HSLI};
use crate::read::{Reading, Reads, has_variables, invalid_parameter, invalid_value, one_of};
use crate::scope::Scope;
use crate::template::Template;
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&ADD_HEADER, &ADD_HEADER_INHERIT, &ADD_TRAILER, &ADD_TRAILER_INHERIT, &EXPIRES];

/// `add_header`
pub(crate) static ADD_HEADER: Directive<AddHeader> = Directive {
    name: "add_header",
    contexts: HSLI,
    arity: Between(2, 3),
    doc: "Adds a header to responses with status 200, 201, 204, 206, 301, 302, 303, 304, 307 or \
          308; with `always`, to all responses.",
    ..Directive::repeated(add_header)
};

/// `add_header_inherit`
pub(crate) static ADD_HEADER_INHERIT: Directive<Inherit> = Directive {
    name: "add_header_inherit",
    contexts: HSLI,
    arity: Exactly(1),
    default: "on",
    doc: "Sets how `add_header` lines of outer levels are inherited: `on` when the level has none \
          of its own, `off` never, `merge` in addition to its own.",
    ..Directive::once(inherit)
};

/// `add_trailer`
pub(crate) static ADD_TRAILER: Directive<AddHeader> = Directive {
    name: "add_trailer",
    contexts: HSLI,
    arity: Between(2, 3),
    doc: "Adds a trailer to responses with the same status codes as `add_header`; with `always`, \
          to all responses.",
    ..Directive::repeated(add_header)
};

/// `add_trailer_inherit`
pub(crate) static ADD_TRAILER_INHERIT: Directive<Inherit> = Directive {
    name: "add_trailer_inherit",
    contexts: HSLI,
    arity: Exactly(1),
    default: "on",
    doc: "Sets how `add_trailer` lines of outer levels are inherited, with the same values as \
          `add_header_inherit`.",
    ..Directive::once(inherit)
};

/// `expires`
pub(crate) static EXPIRES: Directive<Expires> = Directive {
    name: "expires",
    contexts: HSLI,
    arity: Between(1, 2),
    doc: "Adds the `Expires` and `Cache-Control` headers to responses.",
    ..Directive::once(expires)
};

/// `add_header` or `add_trailer`.
#[derive(Clone, Debug)]
pub struct AddHeader {
    /// Field name.
    pub name: Box<[u8]>,
    /// Value; the field is left out when empty.
    pub value: Template,
    /// For every status, not just the good ones.
    pub always: bool,
}

/// `expires`.
#[derive(Clone, Debug)]
pub enum Expires {
    /// `epoch`: no caching.
    Epoch,
    /// `max`: ten years.
    Max,
    /// `off`.
    Off,
    /// Seconds from now; may be negative.
    Access(i64),
    /// `modified SECONDS`: from the file's time.
    Modified(i64),
    /// `@15h30m`: seconds after midnight.
    Daily(u32),
    /// A value with variables, read like one of the others.
    Variable {
        /// The value.
        value: Template,
        /// Whether `modified` stands before it.
        modified: bool,
    },
}

/// `add_header_inherit` and its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inherit {
    /// Outer lines apply where there are no own ones.
    On,
    /// Outer lines never apply.
    Off,
    /// Outer lines apply beside own ones.
    Merge,
}

fn inherit(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Inherit> {
    let choices = [("on", Inherit::On), ("off", Inherit::Off), ("merge", Inherit::Merge)];
    one_of(&directive.args[0], &choices)
}

fn add_header(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<AddHeader> {
    let always = match directive.args.get(2) {
        None => false,
        Some(word) if word.is("always") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    let name = directive.args[0].value.clone();
    Ok(AddHeader { name, value: reading.template(&directive.args[1])?, always })
}

fn expires(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Expires> {
    let (modified, word) = match &directive.args[..] {
        [word] => (false, word),
        [first, word] if first.is("modified") => (true, word),
        [first, ..] => return Err(invalid_value(first)),
        [] => unreachable!("the row asks for an argument"),
    };
    if has_variables(word) {
        return Ok(Expires::Variable { value: reading.template(word)?, modified });
    }
    let fixed = [("epoch", Expires::Epoch), ("max", Expires::Max), ("off", Expires::Off)];
    if !modified && let Some((_, found)) = fixed.into_iter().find(|(name, _)| word.is(name)) {
        return Ok(found);
    }
    expires_time(word, modified).ok_or_else(|| {
        Diagnostic::error("\"expires\" directive invalid value").at(word.span, "expected a time")
    })
}

fn expires_time(word: &Word, modified: bool) -> Option<Expires> {
    let (sign, text) = match &*word.value {
        [b'@', time @ ..] if !modified => {
            let seconds = value::seconds(time)?.as_secs();
            // A time of day.
            return (seconds <= 24 * 60 * 60).then_some(Expires::Daily(seconds as u32));
        }
        [b'-', time @ ..] => (-1, time),
        [b'+', time @ ..] => (1, time),
        time => (1, time),
    };
    let seconds = sign * i64::try_from(value::seconds(text)?.as_secs()).ok()?;
    Some(if modified { Expires::Modified(seconds) } else { Expires::Access(seconds) })
}

/// `add_header` or `add_trailer` lines: own ones replace outer ones, unless they are to be merged.
pub(crate) fn fields(
    scope: &Scope<'_, '_>,
    outer: &Arc<[AddHeader]>,
    row: &'static Directive<AddHeader>,
    inherit: &'static Directive<Inherit>,
) -> Arc<[AddHeader]> {
    let own = scope.level.values(row);
    match scope.get(inherit) {
        Inherit::On if !scope.level.has(row) => Arc::clone(outer),
        Inherit::Merge => outer.iter().cloned().chain(own).collect(),
        Inherit::On | Inherit::Off => own.collect(),
    }
}
