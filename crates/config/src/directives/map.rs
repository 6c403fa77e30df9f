//! Variables made from others: `map`, `geo`, `split_clients`.

use std::net::IpAddr;

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::{Between, Exactly};
use crate::directive::{Braces, H, Row, Value, works};
use crate::hosts::HostTable;
use crate::model::{Map, MapId, MapKind};
use crate::read::{Reading, Reads, duplicate_variable};
use crate::template::Template;
use crate::value;
use crate::variable::Variable;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("geo", H, Between(1, 2), "", "Makes a variable of the client's network.", geo)
        .block(Braces::Entries)
        .many(),
    works("map", H, Exactly(2), "", "Makes a variable of other variables.", map)
        .block(Braces::Entries)
        .many(),
    works(
        "split_clients",
        H,
        Exactly(2),
        "",
        "Makes a variable that splits clients into parts.",
        split_clients,
    )
    .block(Braces::Entries)
    .many(),
];

/// Defines the variable named by `word` and keeps the block under its number.
fn define(reading: &mut Reading<'_>, word: &Word, kind: MapKind, volatile: bool) -> Reads {
    let name = variable_name(word)?;
    let id = MapId(reading.maps.len());
    reading
        .names
        .define(&name, Variable::Map(id))
        .map_err(|_| duplicate_variable(&name, word.span))?;
    reading.maps.push(Map { name: name.into(), kind, volatile });
    Ok(Value::new(id))
}

/// The name behind a `$`.
pub(crate) fn variable_name(word: &Word) -> Result<String, Diagnostic> {
    match word.as_str().and_then(|text| text.strip_prefix('$')).filter(|name| !name.is_empty()) {
        Some(name) => Ok(name.to_ascii_lowercase()),
        None => Err(Diagnostic::error(format!("invalid variable name \"{word}\""))
            .at(word.span, "must be a variable")
            .help("a variable begins with `$`")),
    }
}

/// What stands in the braces, entry by entry.
fn entries(directive: &Directive) -> &[Directive] {
    directive.block.as_ref().map_or(&[], |block| &block.directives)
}

#[derive(Default)]
struct MapDraft {
    hostnames: bool,
    volatile: bool,
    default: Option<Template>,
    table: HostTable<Template>,
}

fn map(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
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
    entry: &Directive,
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
    let added = match text {
        _ if !draft.hostnames => draft.table.add_exact(text, value),
        [b'*', suffix @ ..] if suffix.starts_with(b".") => {
            draft.table.add_head_wildcard(suffix, value)
        }
        [b'.', name @ ..] if !name.is_empty() => {
            let exact = draft.table.add_exact(name, value.clone());
            draft.table.add_head_wildcard(text, value) && exact
        }
        [prefix @ .., b'*'] if prefix.ends_with(b".") => {
            draft.table.add_tail_wildcard(prefix, value)
        }
        _ if text.contains(&b'*') => {
            return Err(Diagnostic::error(format!("invalid hostname or wildcard \"{key}\""))
                .at(key.span, ""));
        }
        _ => draft.table.add_exact(text, value),
    };
    if added {
        return Ok(());
    }
    Err(Diagnostic::error(format!("conflicting parameter \"{key}\"")).at(key.span, "given twice"))
}

fn split_clients(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
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

fn geo(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let (source, name) = match &directive.args[..] {
        [name] => (
            Template::new([crate::template::Part::Variable(
                reading.names.mention("remote_addr", name.span),
            )]),
            name,
        ),
        [source, name] => {
            let source_name = variable_name(source)?;
            let id = reading.names.mention(&source_name, source.span);
            (Template::new([crate::template::Part::Variable(id)]), name)
        }
        _ => unreachable!("the row asks for one or two arguments"),
    };
    let mut draft = GeoDraft::default();
    for entry in entries(directive) {
        if let Err(problem) = geo_entry(reading, &mut draft, entry) {
            reading.report.push(problem);
        }
    }
    let kind = MapKind::Geo { source, networks: draft.networks, default: draft.default };
    define(reading, name, kind, draft.volatile)
}

#[derive(Default)]
struct GeoDraft {
    volatile: bool,
    networks: Vec<(IpAddr, u8, Box<[u8]>)>,
    default: Box<[u8]>,
}

fn geo_entry(
    reading: &mut Reading<'_>,
    draft: &mut GeoDraft,
    entry: &Directive,
) -> Result<(), Diagnostic> {
    let key = &entry.name;
    if entry.args.is_empty() && key.is("volatile") {
        draft.volatile = true;
        return Ok(());
    }
    let not_supported = |help: &str| {
        Err(Diagnostic::error(format!("\"{key}\" in \"geo\" is not supported"))
            .at(entry.head(), "")
            .help(help))
    };
    if entry.args.is_empty() && key.is("ranges") {
        return not_supported("write networks in CIDR form");
    }
    let [value] = &entry.args[..] else {
        return Err(Diagnostic::error("invalid number of the geo parameters").at(entry.head(), ""));
    };
    match &*key.value {
        b"include" => Ok(()),
        b"proxy" | b"proxy_recursive" => {
            not_supported("use `set_real_ip_from` where it is available")
        }
        b"default" => {
            draft.default = value.value.clone();
            Ok(())
        }
        b"delete" => {
            let (address, bits) = geo_network(reading, value)?;
            draft
                .networks
                .retain(|(other, other_bits, _)| (*other, *other_bits) != (address, bits));
            Ok(())
        }
        _ => {
            let (address, bits) = geo_network(reading, key)?;
            add_network(reading, draft, (address, bits), key, &value.value);
            Ok(())
        }
    }
}

fn geo_network(reading: &mut Reading<'_>, word: &Word) -> Result<(IpAddr, u8), Diagnostic> {
    // nginx's 255.255.255.255 means "no address": what a Unix client has.
    let (address, bits, cut) = value::network(&word.value).ok_or_else(|| {
        Diagnostic::error(format!("invalid network \"{word}\"")).at(word.span, "")
    })?;
    if cut {
        let message = format!("low address bits of \"{word}\" are meaningless");
        reading.report.push(Diagnostic::warning(message).at(word.span, ""));
    }
    Ok((address, bits))
}

/// Adds a network; the last of two equal ones wins, and nginx says so.
fn add_network(
    reading: &mut Reading<'_>,
    draft: &mut GeoDraft,
    network: (IpAddr, u8),
    key: &Word,
    value: &[u8],
) {
    let known = draft.networks.iter_mut().find(|(address, bits, _)| (*address, *bits) == network);
    let Some(known) = known else {
        draft.networks.push((network.0, network.1, value.into()));
        return;
    };
    let message = format!(
        "duplicate network \"{key}\", value: \"{}\", old value: \"{}\"",
        wssgate_syntax::printable(value),
        wssgate_syntax::printable(&known.2)
    );
    reading.report.push(Diagnostic::warning(message).at(key.span, ""));
    known.2 = value.into();
}
