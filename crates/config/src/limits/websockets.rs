//! `websocket_limit`: how much the WebSockets of one key may send in a time.

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{Between, Exactly};
use crate::directive::{AnyDirective, Directive, H, HSL};
use crate::read::{Reading, Reads, invalid_parameter, parameter};
use crate::tunnels::rates::{byte_rate, message_rate};
use crate::value;
use crate::zones::{LimitKind, LimitZone, LimitZoneId, ZoneUse};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_LIMIT, &WEBSOCKET_LIMIT_ZONE];

/// `websocket_limit`
pub(crate) static WEBSOCKET_LIMIT: Directive<TunnelLimit> = Directive {
    name: "websocket_limit",
    contexts: HSL,
    arity: Between(1, 4),
    doc: "Limits the rate at which the clients (`from=client`, the default) or the upstream \
          servers (`from=upstream`) of all WebSockets with the same key of a zone send. Up to \
          `burst` excess messages or bytes are allowed at once, by default as many as the rate \
          allows in one second. With `delay` (the default) a side that has sent more is not read \
          until it is within the rate again; with `close` its WebSocket is closed with code 1008. \
          What is read at once is counted together, and passed on.",
    ..Directive::repeated(limit)
};

/// `websocket_limit_zone`
pub(crate) static WEBSOCKET_LIMIT_ZONE: Directive<()> = Directive {
    name: "websocket_limit_zone",
    contexts: H,
    arity: Exactly(3),
    doc: "Declares a zone for `websocket_limit`: the key, evaluated at the handshake, the name and \
          memory size of the table, and the allowed rate in messages per second (`10r/s`) or \
          minute (`10r/m`), or in bytes per second (`1m`), frame headers included. All workers \
          share the table, and a reload keeps it; WebSockets keep the rate they began with. When \
          it is full, the least recently seen key is removed.",
    ..Directive::repeated(zone)
};

/// One `websocket_limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelLimit {
    /// Where messages or bytes are counted.
    pub zone: LimitZoneId,
    /// Whether those of the upstream server are, and not those of the client.
    pub from_upstream: bool,
    /// How many too many may come at once; without it, as many as in a second.
    pub burst: Option<u64>,
    /// Whether more end the WebSocket instead of having to wait.
    pub close: bool,
}

fn limit(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<TunnelLimit> {
    let (mut zone, mut from_upstream, mut burst, mut close) = (None, false, None, false);
    for word in &directive.args {
        if let Some(name) = parameter(word, "zone=") {
            zone = Some(reading.zones.mention(name, ZoneUse::WebSockets, word)?);
        } else if let Some(text) = parameter(word, "burst=") {
            burst = Some(value::size(text).ok_or_else(|| invalid_parameter(word))?);
        } else if let Some(text) = parameter(word, "from=") {
            from_upstream = match text {
                b"client" => false,
                b"upstream" => true,
                _ => return Err(invalid_parameter(word)),
            };
        } else if word.is("delay") || word.is("close") {
            close = word.is("close");
        } else {
            return Err(super::unknown(word, &["zone=", "from=", "burst=", "delay", "close"]));
        }
    }
    let zone = zone.ok_or_else(|| super::must_have_zone(directive))?;
    Ok(TunnelLimit { zone, from_upstream, burst, close })
}

fn zone(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<()> {
    let key = reading.template(&directive.args[0])?;
    let mut kind = None;
    let (id, name, size) =
        super::declaration(&mut reading.zones, ZoneUse::WebSockets, directive, |word| {
            let Some(text) = parameter(word, "rate=") else {
                return Err(super::unknown(word, &["zone=", "rate="]));
            };
            let messages = message_rate(text).map(|rate| LimitKind::Messages { rate });
            let bytes = || byte_rate(text).map(|rate| LimitKind::Bytes { rate });
            kind = Some(messages.or_else(bytes).ok_or_else(|| invalid_parameter(word))?);
            Ok(())
        })?;
    let kind = kind.ok_or_else(|| must_have_rate(directive))?;
    let zone = LimitZone {
        name: name.into(),
        key,
        key_text: directive.args[0].value.clone(),
        size,
        kind,
        span: directive.head(),
    };
    reading.zones.declare(directive, id, zone)
}

fn must_have_rate(directive: &syntax::Directive) -> Diagnostic {
    Diagnostic::error(format!("\"{}\" must have \"rate\" parameter", directive.name))
        .at(directive.head(), "e.g. `rate=10r/s` or `rate=1m`")
}
