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
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_EXPIRY];

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

/// `websocket_expiry on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// How long a WebSocket may outlive its token.
    pub grace: Duration,
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
