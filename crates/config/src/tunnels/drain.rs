//! How WebSockets are closed one after the other before the process, or what an old configuration began, ends.

use std::time::Duration;

use wssgate_syntax as syntax;

use crate::directive::Arity::Between;
use crate::directive::{AnyDirective, Directive, HSL, Parameter};
use crate::read::{
    Reading, Reads, directive_problem, one_of, parameter, parameter_names, unknown_parameter,
};
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_DRAIN];

/// `websocket_drain`
pub(crate) static WEBSOCKET_DRAIN: Directive<Option<DrainPace>> = Directive {
    name: "websocket_drain",
    contexts: HSL,
    arity: Between(1, 5),
    default: "off",
    parameters: PARAMETERS,
    doc: "Closes the open WebSockets of the location one after the other, evenly spread over this \
          time, after QUIT, so that their clients do not all reconnect at once. Each is sent a \
          Close between two frames and has one second to respond. `worker_shutdown_timeout` still \
          ends everything. With `off` WebSockets stay open until they end or until then.",
    ..Directive::once(drain)
};

const PARAMETERS: &[Parameter] = &[
    (
        "code=1001|1012",
        "the code for clients: going away (the default) or service restart; the upstream server \
         is sent 1001",
    ),
    (
        "order=oldest|idlest",
        "who is closed first: those opened first (the default), or those that at the beginning of \
         the drain have had no data frame for longest",
    ),
    (
        "jitter=time",
        "moves each Close by up to this time against that order, at the same pace; a tenth of the \
         time by default",
    ),
    (
        "reload",
        "also closes WebSockets that a reload has left with the old configuration, beginning with \
         the reload",
    ),
];

/// `websocket_drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DrainPace {
    /// From the first Close to the last.
    pub over: Duration,
    /// The code for clients.
    pub code: u16,
    /// Who is closed first.
    pub order: DrainOrder,
    /// Who would be closed within such a time may be closed in any order.
    pub jitter: Duration,
    /// Whether a reload begins it too.
    pub reload: bool,
}

/// Who is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DrainOrder {
    /// Who began first.
    Oldest,
    /// Whose last data frame is the longest ago.
    Idlest,
}

fn drain(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<DrainPace>> {
    let problem = |word, what| directive_problem(directive, word, what);
    let word = &directive.args[0];
    if let (true, Some(more)) = (word.is("off"), directive.args.get(1)) {
        return Err(problem(more, "invalid value").help("`off` stands alone"));
    }
    let over = super::or_off(&word.value, super::positive_time);
    let over = over.ok_or_else(|| problem(word, "invalid value"))?;
    let (mut code, mut order, mut jitter, mut reload) = (None, None, None, None);
    for word in &directive.args[1..] {
        let is_second = if parameter(word, "code=").is_some() {
            code.replace(one_of(word, &[("code=1001", 1001), ("code=1012", 1012)])?).is_some()
        } else if parameter(word, "order=").is_some() {
            let choices =
                [("order=oldest", DrainOrder::Oldest), ("order=idlest", DrainOrder::Idlest)];
            order.replace(one_of(word, &choices)?).is_some()
        } else if let Some(text) = parameter(word, "jitter=") {
            let fits = |jitter: &Duration| over.is_some_and(|over| *jitter <= over);
            let time = value::duration(text).filter(fits);
            jitter.replace(time.ok_or_else(|| problem(word, "invalid value"))?).is_some()
        } else if word.is("reload") {
            reload.replace(()).is_some()
        } else {
            return Err(unknown_parameter(word, &parameter_names(PARAMETERS)));
        };
        if is_second {
            return Err(problem(word, "duplicate value"));
        }
    }
    Ok(over.map(|over| DrainPace {
        over,
        code: code.unwrap_or(1001),
        order: order.unwrap_or(DrainOrder::Oldest),
        jitter: jitter.unwrap_or(over / 10),
        reload: reload.is_some(),
    }))
}
