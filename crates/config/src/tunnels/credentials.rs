//! WebSockets that stay open only as long as what their clients may do.

use std::time::Duration;

use wssgate_syntax as syntax;

use crate::directive::Arity::Between;
use crate::directive::{AnyDirective, Directive, HSL, Parameter};
use crate::read::{
    Reading, Reads, directive_problem, invalid_value, parameter, parameter_names, unknown_parameter,
};
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_EXPIRY, &WEBSOCKET_REAUTH];

/// `websocket_expiry`
pub(crate) static WEBSOCKET_EXPIRY: Directive<Option<Expiry>> = Directive {
    name: "websocket_expiry",
    contexts: HSL,
    arity: Between(1, 2),
    default: "on",
    parameters: PARAMETERS,
    doc: "Closes a WebSocket with code 1008 when the token with which `auth_jwt` let it in expires: \
          at its `exp` plus `auth_jwt_leeway`. Tokens without `exp` set no end. The time is \
          computed once, when the WebSocket begins; later changes of the system clock are not \
          followed. With `off` a WebSocket may outlive its token.",
    ..Directive::once(expiry)
};

const PARAMETERS: &[Parameter] =
    &[("grace=time", "how much longer it may stay open, for example for a client to reconnect")];

/// `websocket_reauth`
pub(crate) static WEBSOCKET_REAUTH: Directive<Option<Reauth>> = Directive {
    name: "websocket_reauth",
    contexts: HSL,
    arity: Between(1, 2),
    default: "off",
    doc: "Asks this URI again and again while a WebSocket is open whether its client is still \
          authorized, at least once per interval: a subrequest as that of `auth_request`, with the \
          headers of the original handshake. A 2xx response keeps the WebSocket; 401 and 403 close \
          it with code 1008; any other response, or none, keeps it too and is written to the error \
          log (level `warn`). Subrequests are spread over the interval, and a worker has at most \
          32 in progress. The headers of the handshake are kept in memory for each such WebSocket. \
          `websocket_expiry` applies all the same.",
    example: "server {
    auth_request /auth;
    location /chat { websocket_reauth 5m /auth; proxy_pass http://127.0.0.1:3000; }
    location = /auth { internal; proxy_pass http://127.0.0.1:4000; }
}",
    ..Directive::once(reauth)
};

/// `websocket_expiry on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// How long a WebSocket may outlive its token.
    pub grace: Duration,
}

/// `websocket_reauth`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reauth {
    /// The longest time between two questions.
    pub interval: Duration,
    /// The path that is asked.
    pub uri: Box<[u8]>,
}

fn expiry(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Expiry>> {
    let word = &directive.args[0];
    let on = match &*word.value {
        b"on" => true,
        b"off" => false,
        _ => return Err(invalid_value(word).help("expected `on` or `off`")),
    };
    let Some(more) = directive.args.get(1) else {
        return Ok(on.then_some(Expiry { grace: Duration::ZERO }));
    };
    let problem = || directive_problem(directive, more, "invalid value");
    if !on {
        return Err(problem().help("`off` stands alone"));
    }
    let Some(text) = parameter(more, "grace=") else {
        return Err(unknown_parameter(more, &parameter_names(PARAMETERS)));
    };
    let grace = value::duration(text).ok_or_else(problem)?;
    Ok(Some(Expiry { grace }))
}

fn reauth(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Reauth>> {
    let word = &directive.args[0];
    let problem = |word| directive_problem(directive, word, "invalid value");
    let interval = super::or_off(&word.value, super::positive_time);
    let interval = interval.ok_or_else(|| problem(word))?;
    match (interval, directive.args.get(1)) {
        (None, None) => Ok(None),
        (None, Some(more)) => Err(problem(more).help("`off` stands alone")),
        (Some(_), None) => {
            Err(problem(word).help("expected an interval and a URI, such as `5m /auth`"))
        }
        (Some(_), Some(uri)) if !uri.value.starts_with(b"/") => {
            Err(problem(uri).help("expected a URI of this server, such as `/auth`"))
        }
        (Some(interval), Some(uri)) => Ok(Some(Reauth { interval, uri: uri.value.clone() })),
    }
}
