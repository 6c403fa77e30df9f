//! `limit_req`: how many requests of one key are answered in a time.

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{Between, Exactly, Flag};
use crate::directive::{AnyDirective, Directive, H, HSL};
use crate::log::LogLevel;
use crate::read::{Reading, Reads, flag, parameter};
use crate::scope::Scope;
use crate::zones::{LimitKind, LimitZone, LimitZoneId, ZoneUse};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&LIMIT_REQ, &LIMIT_REQ_DRY_RUN, &LIMIT_REQ_LOG_LEVEL, &LIMIT_REQ_STATUS, &LIMIT_REQ_ZONE];

/// `limit_req`
pub(crate) static LIMIT_REQ: Directive<RequestLimit> = Directive {
    name: "limit_req",
    contexts: HSL,
    arity: Between(1, 3),
    doc: "Limits the rate of requests with the same key of a zone. Up to `burst` excess requests \
          are delayed, except the first `delay` of them (none with `nodelay`); further ones are \
          refused. For a WebSocket the handshake counts.",
    ..Directive::repeated(limit)
};

/// `limit_req_dry_run`
pub(crate) static LIMIT_REQ_DRY_RUN: Directive<bool> = Directive {
    name: "limit_req_dry_run",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Counts and logs what `limit_req` would delay or refuse, but lets it pass.",
    ..Directive::once(flag)
};

/// `limit_req_log_level`
pub(crate) static LIMIT_REQ_LOG_LEVEL: Directive<LogLevel> = Directive {
    name: "limit_req_log_level",
    contexts: HSL,
    arity: Exactly(1),
    default: "error",
    doc: "Sets the log level of refused requests: `info`, `notice`, `warn` or `error`; delayed \
          ones are logged one level lower.",
    ..Directive::once(super::log_level)
};

/// `limit_req_status`
pub(crate) static LIMIT_REQ_STATUS: Directive<u16> = Directive {
    name: "limit_req_status",
    contexts: HSL,
    arity: Exactly(1),
    default: "503",
    doc: "Sets the status of refused requests.",
    ..Directive::once(super::status)
};

/// `limit_req_zone`
pub(crate) static LIMIT_REQ_ZONE: Directive<()> = Directive {
    name: "limit_req_zone",
    contexts: H,
    // One more than there is, for an answer to `sync`.
    arity: Between(3, 4),
    doc: "Declares a zone for `limit_req`: the key, the name and memory size of the table, and the \
          allowed rate in requests per second (`r/s`) or minute (`r/m`). All workers share the \
          table, and a reload keeps it. When it is full, the least recently seen key is removed.",
    ..Directive::repeated(zone)
};

/// The `limit_req` lines of a location and what goes with them.
#[derive(Clone, Debug)]
pub struct LimitRequests {
    /// One for each zone, at least one.
    pub limits: Vec<RequestLimit>,
    /// `limit_req_status`.
    pub status: u16,
    /// `limit_req_log_level`.
    pub log_level: LogLevel,
    /// `limit_req_dry_run`.
    pub dry_run: bool,
}

/// One `limit_req`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimit {
    /// Where requests are counted.
    pub zone: LimitZoneId,
    /// How many too many are not refused, in thousandths of a request.
    pub burst: u64,
    /// How many of those are not delayed either, in thousandths of a request.
    pub delay: u64,
}

fn limit(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<RequestLimit> {
    let (mut zone, mut burst, mut delay) = (None, 0, 0);
    for word in &directive.args {
        if let Some(name) = parameter(word, "zone=") {
            zone = Some(reading.zones.mention(name, ZoneUse::Requests, word)?);
        } else if let Some(text) = parameter(word, "burst=") {
            burst = thousandths(super::positive(word, text, "burst value")?);
        } else if let Some(text) = parameter(word, "delay=") {
            delay = thousandths(super::positive(word, text, "delay value")?);
        } else if word.is("nodelay") {
            delay = u64::MAX;
        } else {
            return Err(super::unknown(word, &["zone=", "burst=", "delay=", "nodelay"]));
        }
    }
    let zone = zone.ok_or_else(|| super::must_have_zone(directive))?;
    Ok(RequestLimit { zone, burst, delay })
}

fn thousandths(requests: u64) -> u64 {
    requests.saturating_mul(1000)
}

fn zone(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<()> {
    if directive.args.len() == 4 && !directive.args.iter().any(|word| word.is("sync")) {
        let message = format!("invalid number of arguments in \"{}\" directive", directive.name);
        return Err(Diagnostic::error(message).at(directive.head(), "takes 3 arguments"));
    }
    let key = reading.template(&directive.args[0])?;
    // What nginx takes when no rate is given: one request a second.
    let mut rate = 1000;
    let (id, name, size) =
        super::declaration(&mut reading.zones, ZoneUse::Requests, directive, |word| {
            let Some(text) = parameter(word, "rate=") else {
                return Err(super::unknown(word, &["zone=", "rate="]));
            };
            let (text, seconds) = match text {
                [text @ .., b'r', b'/', b's'] => (text, 1),
                [text @ .., b'r', b'/', b'm'] => (text, 60),
                text => (text, 1),
            };
            rate = thousandths(super::positive(word, text, "rate")?) / seconds;
            Ok(())
        })?;
    let zone = LimitZone {
        name: name.into(),
        key,
        key_text: directive.args[0].value.clone(),
        size,
        kind: LimitKind::Requests { rate },
        span: directive.head(),
    };
    reading.zones.declare(directive, id, zone)
}

/// What applies in a location; the lines of a level replace all outer ones.
pub(crate) fn limit_requests(scope: &Scope<'_, '_>) -> Option<LimitRequests> {
    let limits = scope.all(&LIMIT_REQ);
    (!limits.is_empty()).then(|| LimitRequests {
        limits,
        status: scope.get(&LIMIT_REQ_STATUS),
        log_level: scope.get(&LIMIT_REQ_LOG_LEVEL),
        dry_run: scope.get(&LIMIT_REQ_DRY_RUN),
    })
}
