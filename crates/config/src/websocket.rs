//! Ours, which nginx does not know: how WebSockets are carried.

pub(crate) mod handshake;
pub(crate) mod origin;
pub(crate) mod tap;
pub(crate) mod token;
pub(crate) mod trace;

use std::time::Duration;

use wssgate_syntax as syntax;

use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{AnyDirective, Directive, H, HSL, U};
use crate::read::{Reading, Reads, directive_problem, flag, one_of};
use crate::template::Template;
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&WEBSOCKET, &WEBSOCKET_RECOVERY, &WEBSOCKET_TCP_USER_TIMEOUT, &WEBSOCKET_USER];

/// `websocket`
pub(crate) static WEBSOCKET: Directive<bool> = Directive {
    name: "websocket",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Passes WebSocket upgrades to the upstream server without any `proxy_set_header` lines. \
          Lines for `Upgrade` or `Connection` take precedence, also with `off`.",
    ..Directive::once(flag)
};

/// `websocket_recovery`
pub(crate) static WEBSOCKET_RECOVERY: Directive<Recovery> = Directive {
    name: "websocket_recovery",
    contexts: H | U,
    arity: Exactly(1),
    default: "eager",
    doc: "Selects when a failed server is tried again. With `eager` a single request tries it \
          after half a second, and then less and less often, up to `fail_timeout`; when all \
          servers have failed, each request tries them, the least recently failed first, and once \
          one of them responds the others are tried at once. With `nginx` a failed server is not \
          used for `fail_timeout`, and requests are refused while this applies to all of them.",
    ..Directive::once(recovery)
};

/// `websocket_tcp_user_timeout`
pub(crate) static WEBSOCKET_TCP_USER_TIMEOUT: Directive<Option<Duration>> = Directive {
    name: "websocket_tcp_user_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "off",
    doc: "Sets how long data sent on either TCP connection of a tunnel may stay unacknowledged, or \
          wait for a closed window, before the kernel drops the connection (`TCP_USER_TIMEOUT`, \
          RFC 5482). With `off` the kernel's own limit applies.",
    ..Directive::once(user_timeout)
};

/// `websocket_user`
pub(crate) static WEBSOCKET_USER: Directive<Template> = Directive {
    name: "websocket_user",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets whom a WebSocket belongs to, for `wssgate ctl`: a text with variables, such as \
          `$remote_user` or `$jwt_claim_sub`, of which the first 256 bytes are kept. An empty \
          text means nobody.",
    ..Directive::once(user)
};

/// `websocket_recovery`: when a server that has failed is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// Soon, then less and less often; at once if all servers have failed.
    Eager,
    /// Once in `fail_timeout`.
    Nginx,
}

/// The longest that the kernel takes, in milliseconds.
const USER_TIMEOUT_MAX: u128 = i32::MAX as u128;

fn recovery(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Recovery> {
    let word = &directive.args[0];
    one_of(word, &[("eager", Recovery::Eager), ("nginx", Recovery::Nginx)])
}

fn user(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Template> {
    reading.template(&directive.args[0])
}

fn user_timeout(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Duration>> {
    let word = &directive.args[0];
    if word.is("off") {
        return Ok(None);
    }
    // To the kernel 0 means that there is none; here that is `off`.
    let valid = |timeout: &Duration| (1..=USER_TIMEOUT_MAX).contains(&timeout.as_millis());
    let timeout = value::duration(&word.value).filter(valid);
    let timeout = timeout.ok_or_else(|| directive_problem(directive, word, "invalid value"))?;
    Ok(Some(timeout))
}
