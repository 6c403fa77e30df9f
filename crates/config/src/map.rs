//! Variables made from others: `map` and `split_clients`.

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Braces, Directive, H};
use crate::hosts::{HostPattern, HostTable};
use crate::read::{Reading, Reads, duplicate_variable, variable_name};
use crate::template::Template;
use crate::value;
use crate::variable::{Map, MapId, MapKind, Variable};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&MAP, &SPLIT_CLIENTS];

/// `map`
pub(crate) static MAP: Directive<MapId> = Directive {
    name: "map",
    contexts: H,
    arity: Exactly(2),
    doc: "Creates a variable whose value depends on other variables.",
    braces: Braces::Entries,
    ..Directive::repeated(map)
};

/// `split_clients`
pub(crate) static SPLIT_CLIENTS: Directive<MapId> = Directive {
    name: "split_clients",
    contexts: H,
    arity: Exactly(2),
    doc: "Creates a variable that splits clients into groups by percentage.",
    braces: Braces::Entries,
    ..Directive::repeated(split_clients)
};

/// Defines the variable named by `word` and keeps the block under its number.
pub(crate) fn define(
    reading: &mut Reading<'_>,
    word: &Word,
    kind: MapKind,
    volatile: bool,
) -> Reads<MapId> {
    let name = variable_name(word)?;
    let id = MapId(reading.maps.len());
    reading
        .names
        .define(&name, Variable::Map(id))
        .map_err(|_| duplicate_variable(&name, word.span))?;
    reading.maps.push(Map { kind, volatile });
    Ok(id)
}

/// What stands in the braces, entry by entry.
pub(crate) fn entries(directive: &syntax::Directive) -> &[syntax::Directive] {
    directive.block.as_ref().map_or(&[], |block| &block.directives)
}

#[derive(Default)]
struct MapDraft {
    hostnames: bool,
    volatile: bool,
    default: Option<Template>,
    table: HostTable<Template>,
}

fn map(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<MapId> {
    let source = reading.template(&directive.args[0])?;
    let mut draft = MapDraft::default();
    for entry in entries(directive) {
        if let Err(problem) = map_entry(reading, &mut draft, entry) {
            reading.report.push(problem);
        }
    }
    let MapDraft { hostnames, volatile, default, table } = draft;
    let kind = MapKind::Map { source, hostnames, table, default: default.unwrap_or_default() };
    define(reading, &directive.args[1], kind, volatile)
}

fn map_entry(
    reading: &mut Reading<'_>,
    draft: &mut MapDraft,
    entry: &syntax::Directive,
) -> Result<(), Diagnostic> {
    let key = &entry.name;
    if entry.args.is_empty() && (key.is("hostnames") || key.is("volatile")) {
        draft.hostnames |= key.is("hostnames");
        draft.volatile |= key.is("volatile");
        return Ok(());
    }
    let [value] = &entry.args[..] else {
        return Err(Diagnostic::error("invalid number of the map parameters").at(entry.head(), ""));
    };
    if key.is("include") {
        // Includes are followed by the parser; one that is left failed there.
        return Ok(());
    }
    let value = reading.template(value)?;
    if key.is("default") {
        if draft.default.is_some() {
            return Err(Diagnostic::error("duplicate default map parameter").at(entry.head(), ""));
        }
        draft.default = Some(value);
        return Ok(());
    }
    if let [b'~', pattern @ ..] = &*key.value {
        let (pattern, caseless) = match pattern {
            [b'*', pattern @ ..] => (pattern, true),
            pattern => (pattern, false),
        };
        let regex = reading.regex(pattern, caseless, key.span)?;
        draft.table.add_regex(regex, value);
        return Ok(());
    }
    add_key(draft, key, value)
}

/// Adds a key that is text; a backslash before it takes a special meaning away.
fn add_key(draft: &mut MapDraft, key: &Word, value: Template) -> Result<(), Diagnostic> {
    let text = key.value.strip_prefix(b"\\").unwrap_or(&key.value);
    let added = if draft.hostnames {
        let Some(pattern) = HostPattern::parse(text) else {
            let message = format!("invalid hostname or wildcard \"{key}\"");
            return Err(Diagnostic::error(message).at(key.span, ""));
        };
        draft.table.add(pattern, value)
    } else {
        draft.table.add_exact(text, value)
    };
    if added {
        return Ok(());
    }
    Err(Diagnostic::error(format!("conflicting parameter \"{key}\"")).at(key.span, "given twice"))
}

fn split_clients(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<MapId> {
    let source = reading.template(&directive.args[0])?;
    let mut parts: Vec<(u32, Template)> = Vec::new();
    // Hundredths of a per cent, as nginx counts.
    let mut sum = 0u64;
    for entry in entries(directive) {
        let (share, value) = (&entry.name, entry.args.first());
        let Some(value) = value.filter(|_| entry.args.len() == 1) else {
            return Err(Diagnostic::error("invalid number of arguments in \"split_clients\"")
                .at(entry.head(), ""));
        };
        let value = reading.template(value)?;
        if share.is("*") {
            parts.push((u32::MAX, value));
            sum = 10_000;
            continue;
        }
        let percent = hundredths(share).ok_or_else(|| {
            Diagnostic::error(format!("invalid percent value \"{share}\""))
                .at(share.span, "e.g. `12.5%`")
        })?;
        sum += percent;
        if sum > 10_000 {
            let message = "percent total is greater than 100%";
            return Err(Diagnostic::error(message).at(share.span, ""));
        }
        // The bound in the space of a 32-bit hash.
        parts.push(((sum * u64::from(u32::MAX) / 10_000) as u32, value));
    }
    define(reading, &directive.args[1], MapKind::SplitClients { source, parts }, false)
}

fn hundredths(word: &Word) -> Option<u64> {
    let text = word.as_str()?.strip_suffix('%')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 2 {
        return None;
    }
    let fraction = format!("{fraction:0<2}");
    let percent =
        value::number(whole.as_bytes())?.checked_mul(100)? + value::number(fraction.as_bytes())?;
    (percent > 0 && percent <= 10_000).then_some(percent)
}
