//! `limit_conn`: how many requests and tunnels of one key are in progress at the same time.

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{AnyDirective, Directive, H, HSL};
use crate::log::LogLevel;
use crate::read::{Reading, Reads, flag};
use crate::scope::Scope;
use crate::zones::{LimitKind, LimitZone, LimitZoneId, ZoneUse};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &LIMIT_CONN,
    &LIMIT_CONN_DRY_RUN,
    &LIMIT_CONN_LOG_LEVEL,
    &LIMIT_CONN_STATUS,
    &LIMIT_CONN_ZONE,
];

/// `limit_conn`
pub(crate) static LIMIT_CONN: Directive<ConnectionLimit> = Directive {
    name: "limit_conn",
    contexts: HSL,
    arity: Exactly(2),
    doc: "Limits how many requests with the same key of a zone are in progress at the same time. A \
          WebSocket counts from its handshake until it ends.",
    ..Directive::repeated(limit)
};

/// `limit_conn_dry_run`
pub(crate) static LIMIT_CONN_DRY_RUN: Directive<bool> = Directive {
    name: "limit_conn_dry_run",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Counts and logs what `limit_conn` would refuse, but lets it pass.",
    ..Directive::once(flag)
};

/// `limit_conn_log_level`
pub(crate) static LIMIT_CONN_LOG_LEVEL: Directive<LogLevel> = Directive {
    name: "limit_conn_log_level",
    contexts: HSL,
    arity: Exactly(1),
    default: "error",
    doc: "Sets the log level of refused requests: `info`, `notice`, `warn` or `error`.",
    ..Directive::once(super::log_level)
};

/// `limit_conn_status`
pub(crate) static LIMIT_CONN_STATUS: Directive<u16> = Directive {
    name: "limit_conn_status",
    contexts: HSL,
    arity: Exactly(1),
    default: "503",
    doc: "Sets the status of refused requests.",
    ..Directive::once(super::status)
};

/// `limit_conn_zone`
pub(crate) static LIMIT_CONN_ZONE: Directive<()> = Directive {
    name: "limit_conn_zone",
    contexts: H,
    arity: Exactly(2),
    doc: "Declares a zone for `limit_conn`: the key, and the name and memory size of the table. \
          All workers share the table, and a reload keeps it. When it is full, requests with new \
          keys are refused.",
    ..Directive::repeated(zone)
};

/// The `limit_conn` lines of a location and what goes with them.
#[derive(Clone, Debug)]
pub struct LimitConnections {
    /// One for each zone, at least one.
    pub limits: Vec<ConnectionLimit>,
    /// `limit_conn_status`.
    pub status: u16,
    /// `limit_conn_log_level`.
    pub log_level: LogLevel,
    /// `limit_conn_dry_run`.
    pub dry_run: bool,
}

/// One `limit_conn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// Where connections are counted.
    pub zone: LimitZoneId,
    /// How many may be in progress.
    pub most: u16,
}

fn limit(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<ConnectionLimit> {
    let [name, number] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let zone = reading.zones.mention(&name.value, ZoneUse::Connections, name)?;
    let most = super::positive(number, &number.value, "number of connections")?;
    let most = u16::try_from(most).map_err(|_| {
        Diagnostic::error("connection limit must be less 65536").at(number.span, "")
    })?;
    Ok(ConnectionLimit { zone, most })
}

fn zone(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<()> {
    let key = reading.template(&directive.args[0])?;
    let (id, name, size) =
        super::declaration(&mut reading.zones, ZoneUse::Connections, directive, |word| {
            Err(super::unknown(word, &["zone="]))
        })?;
    let zone = LimitZone {
        name: name.into(),
        key,
        key_text: directive.args[0].value.clone(),
        size,
        kind: LimitKind::Connections,
        span: directive.head(),
    };
    reading.zones.declare(directive, id, zone)
}

/// What applies in a location; the lines of a level replace all outer ones.
pub(crate) fn limit_connections(scope: &Scope<'_, '_>) -> Option<LimitConnections> {
    let limits = scope.all(&LIMIT_CONN);
    (!limits.is_empty()).then(|| LimitConnections {
        limits,
        status: scope.get(&LIMIT_CONN_STATUS),
        log_level: scope.get(&LIMIT_CONN_LOG_LEVEL),
        dry_run: scope.get(&LIMIT_CONN_DRY_RUN),
    })
}
