//! Ours, which nginx does not know: how WebSockets are carried.

use std::time::Duration;

use wssgate_syntax::Directive;

use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{HS, HSL, Row, Value, works};
use crate::read::{Reading, Reads, directive_problem, flag, one_of};
use crate::value;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "tls_records",
        HS,
        Exactly(1),
        "keys",
        "Who seals and opens the TLS records of tunnels: `keys` for our own small record layer, `rustls` for \
         rustls, which costs more memory and CPU.",
        tls_records,
    ),
    works(
        "websocket",
        HSL,
        Flag,
        "on",
        "Passes WebSocket upgrades to the upstream without any `proxy_set_header` line. Lines for `Upgrade` or \
         `Connection` are obeyed instead, with `off` as well.",
        flag,
    ),
    works(
        "websocket_tcp_user_timeout",
        HSL,
        Exactly(1),
        "off",
        "How long bytes that were sent on either TCP connection of a tunnel may stay unacknowledged, or wait \
         at a closed window, before the kernel gives the peer up (`TCP_USER_TIMEOUT`, RFC 5482). With `off` \
         the kernel's own patience counts.",
        user_timeout,
    ),
];

/// `tls_records`: who seals and opens the TLS records of a tunnel, on both of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRecords {
    /// We do, with the keys of the finished handshake.
    Keys,
    /// rustls keeps doing it.
    Rustls,
}

/// The longest that the kernel takes, in milliseconds.
const USER_TIMEOUT_MAX: u128 = i32::MAX as u128;

fn tls_records(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    one_of(word, &[("keys", TlsRecords::Keys), ("rustls", TlsRecords::Rustls)]).map(Value::new)
}

fn user_timeout(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    if word.is("off") {
        return Ok(Value::new(None::<Duration>));
    }
    // To the kernel 0 means that there is none; here that is `off`.
    let valid = |timeout: &Duration| (1..=USER_TIMEOUT_MAX).contains(&timeout.as_millis());
    let timeout = value::duration(&word.value).filter(valid);
    let timeout = timeout.ok_or_else(|| directive_problem(directive, word, "invalid value"))?;
    Ok(Value::new(Some(timeout)))
}
