//! Fields that we add to answers.

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::{Between, Exactly};
use crate::directive::{HSLI, Row, Value, works};
use crate::draft::Entry;
use crate::read::{Reading, Reads, has_variables, invalid_parameter, invalid_value, one_of};
use crate::scope::Scope;
use crate::template::Template;
use crate::value;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("add_header", HSLI, Between(2, 3), "", "Adds a field to answers.", add_header).many(),
    works(
        "add_header_inherit",
        HSLI,
        Exactly(1),
        "on",
        "How `add_header` lines of outer levels apply.",
        inherit,
    ),
    works(
        "add_trailer",
        HSLI,
        Between(2, 3),
        "",
        "Adds a field behind the body of answers.",
        add_header,
    )
    .many(),
    works(
        "add_trailer_inherit",
        HSLI,
        Exactly(1),
        "on",
        "How `add_trailer` lines of outer levels apply.",
        inherit,
    ),
    works("expires", HSLI, Between(1, 2), "", "Adds `Expires` and `Cache-Control`.", expires),
];

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

fn inherit(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [("on", Inherit::On), ("off", Inherit::Off), ("merge", Inherit::Merge)];
    one_of(&directive.args[0], &choices).map(Value::new)
}

fn add_header(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let always = match directive.args.get(2) {
        None => false,
        Some(word) if word.is("always") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    let name = directive.args[0].value.clone();
    Ok(Value::new(AddHeader { name, value: reading.template(&directive.args[1])?, always }))
}

fn expires(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let (modified, word) = match &directive.args[..] {
        [word] => (false, word),
        [first, word] if first.is("modified") => (true, word),
        [first, ..] => return Err(invalid_value(first)),
        [] => unreachable!("the row asks for an argument"),
    };
    if has_variables(word) {
        return Ok(Value::new(Expires::Variable { value: reading.template(word)?, modified }));
    }
    let fixed = [("epoch", Expires::Epoch), ("max", Expires::Max), ("off", Expires::Off)];
    if !modified && let Some((_, found)) = fixed.into_iter().find(|(name, _)| word.is(name)) {
        return Ok(Value::new(found));
    }
    expires_time(word, modified).map(Value::new).ok_or_else(|| {
        Diagnostic::error("\"expires\" directive invalid value").at(word.span, "a time is expected")
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
    outer: &[AddHeader],
    name: &str,
    inherit: &str,
) -> Vec<AddHeader> {
    let own: Vec<AddHeader> = scope.level.named(name).filter_map(Entry::value).collect();
    match scope.one::<Inherit>(inherit) {
        Inherit::On if own.is_empty() => outer.to_vec(),
        Inherit::Merge => outer.iter().cloned().chain(own).collect(),
        Inherit::On | Inherit::Off => own,
    }
}
