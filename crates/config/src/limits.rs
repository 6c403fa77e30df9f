//! How much each of many clients may have at once: what `limit_req`, `limit_conn` and `websocket_limit` share.
//!
//! All count by a key, in a zone: a table of bounded memory that all workers share and that outlives a reload. A zone
//! may be named before the line that declares it, as in nginx, so a mention gives it its number and the end of the
//! `http` block shows which ones nobody declared.

pub(crate) mod connections;
pub(crate) mod handshakes;
pub(crate) mod requests;
pub(crate) mod websockets;

use std::collections::HashSet;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::level::Level;
use crate::log::LogLevel;
use crate::read::{
    Reading, Reads, directive_problem, invalid_parameter, one_of, parameter, unknown_parameter,
};
use crate::value::{self, MIN_ZONE_SIZE};
use crate::zones::{LimitZoneId, ZoneUse, Zones};

/// What `zone=NAME:SIZE` says: the name, and the size in bytes.
fn named_size<'w>(word: &'w Word, text: &'w [u8]) -> Reads<(&'w [u8], u64)> {
    let invalid = || {
        Diagnostic::error(format!("invalid zone size \"{word}\""))
            .at(word.span, "e.g. `zone=clients:10m`")
    };
    let colon = text.iter().position(|&byte| byte == b':').ok_or_else(invalid)?;
    let size = value::size(&text[colon + 1..]).ok_or_else(invalid)?;
    if size < MIN_ZONE_SIZE {
        let problem = Diagnostic::error(format!("zone \"{word}\" is too small"));
        return Err(problem.at(word.span, format!("at least {}k", MIN_ZONE_SIZE >> 10)));
    }
    Ok((&text[..colon], size))
}

/// The name and size that the words behind the key give; `other` takes the words that are not `zone=`.
fn declaration<'w>(
    zones: &mut Zones,
    used_as: ZoneUse,
    directive: &'w syntax::Directive,
    mut other: impl FnMut(&Word) -> Reads<()>,
) -> Reads<(LimitZoneId, &'w [u8], u64)> {
    let mut found = None;
    for word in &directive.args[1..] {
        let Some(text) = parameter(word, "zone=") else {
            other(word)?;
            continue;
        };
        let name = text.split(|&byte| byte == b':').next().unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        let id = zones.mention(name, used_as, word)?;
        zones.begin(id);
        let (name, size) = named_size(word, text)?;
        found = Some((id, name, size));
    }
    found.ok_or_else(|| must_have_zone(directive))
}

fn must_have_zone(directive: &syntax::Directive) -> Diagnostic {
    Diagnostic::error(format!("\"{}\" must have \"zone\" parameter", directive.name))
        .at(directive.head(), "")
}

/// A number that must not be 0, behind `prefix`.
fn positive(word: &Word, text: &[u8], what: &str) -> Reads<u64> {
    value::number(text)
        .filter(|&number| number > 0)
        .ok_or_else(|| Diagnostic::error(format!("invalid {what} \"{word}\"")).at(word.span, ""))
}

/// A level that `limit_req_log_level` and `limit_conn_log_level` may name.
fn log_level(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<LogLevel> {
    let choices = [
        ("info", LogLevel::Info),
        ("notice", LogLevel::Notice),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
    ];
    one_of(&directive.args[0], &choices)
}

/// The status of what is refused: an error's.
fn status(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<u16> {
    let word = &directive.args[0];
    let number = value::number(&word.value)
        .ok_or_else(|| directive_problem(directive, word, "invalid number"))?;
    match u16::try_from(number) {
        Ok(status @ 400..=599) => Ok(status),
        _ => {
            let message = "value must be between 400 and 599";
            Err(Diagnostic::error(message).at(word.span, ""))
        }
    }
}

/// Reports zones that limit twice on a level.
pub(crate) fn check_level(reading: &mut Reading<'_>, level: &Level<'_>) {
    let requests = level.lines(&requests::LIMIT_REQ);
    let requests = requests.map(|line| (line.directive, line.value.map(|limit| limit.zone)));
    let connections = level.lines(&connections::LIMIT_CONN);
    let connections = connections.map(|line| (line.directive, line.value.map(|limit| limit.zone)));
    let websockets = level.lines(&websockets::WEBSOCKET_LIMIT);
    let websockets = websockets.map(|line| (line.directive, line.value.map(|limit| limit.zone)));
    let mut seen = HashSet::new();
    for (directive, zone) in requests.chain(connections).chain(websockets) {
        if zone.is_some_and(|zone| !seen.insert(zone)) {
            let message = format!("\"{}\" directive is duplicate", directive.name);
            let problem = Diagnostic::error(message);
            let problem = problem.at(directive.head(), "the zone limits on this level already");
            reading.report.push(problem);
        }
    }
}

/// A parameter that is none.
fn unknown(word: &Word, known: &[&'static str]) -> Diagnostic {
    match word.is("sync") {
        true => invalid_parameter(word).help(
            "`sync` is a feature of nginx's commercial version; a zone is exact across all workers \
             of this machine",
        ),
        false => unknown_parameter(word, known),
    }
}
