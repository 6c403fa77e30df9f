//! `websocket_handshake_rate`: how many WebSockets may be opened in a time, whoever opens them.

use std::time::Duration;

use wssgate_syntax as syntax;

use crate::directive::Arity::Between;
use crate::directive::{AnyDirective, Directive, HSL, Parameter};
use crate::handshake_rates::{HandshakeRate, HandshakeRateId};
use crate::read::{
    Reading, Reads, directive_problem, parameter, parameter_names, unknown_parameter,
};
use crate::tunnels::rates::message_rate;
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_HANDSHAKE_RATE];

/// `websocket_handshake_rate`
pub(crate) static WEBSOCKET_HANDSHAKE_RATE: Directive<Option<HandshakeRateId>> = Directive {
    name: "websocket_handshake_rate",
    contexts: HSL,
    arity: Between(1, 3),
    default: "off",
    parameters: PARAMETERS,
    doc: "Limits how many WebSocket handshakes per second (`100r/s`) or minute (`100r/m`) go on to \
          access rules and upstream servers, over all clients, workers and locations to which this \
          line applies. Excess handshakes wait for their turn; when too many are waiting, further \
          ones are refused with 503 and `Retry-After`. Other requests are not affected.",
    ..Directive::once(rate)
};

const PARAMETERS: &[Parameter] = &[
    (
        "queue=number",
        "how many handshakes may wait, by default as many as the rate allows in five seconds",
    ),
    (
        "retry_after=min-max",
        "the least and the longest `Retry-After`, `5s-30s` by default: clients are spread over this \
         time at the rate that is allowed",
    ),
];

/// The longest `Retry-After`.
const MOST_RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest queue: one that leaves it is looked for among all.
const MOST_WAITING: usize = 10_000;

/// How long the queue is without `queue`, in seconds of the rate.
const QUEUE_SECONDS: u64 = 5;

fn rate(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Option<HandshakeRateId>> {
    let problem = |word, what| directive_problem(directive, word, what);
    let word = &directive.args[0];
    if word.is("off") {
        return match directive.args.get(1) {
            Some(more) => Err(problem(more, "invalid value").help("`off` stands alone")),
            None => Ok(None),
        };
    }
    // In thousandths per second.
    let rate = message_rate(&word.value)
        .ok_or_else(|| problem(word, "invalid value").help("e.g. `100r/s`"))?;
    let (mut queue, mut retry_after) = (None, None);
    for word in &directive.args[1..] {
        let invalid = || problem(word, "invalid value");
        let is_second = if let Some(text) = parameter(word, "queue=") {
            let number = value::number(text).and_then(|number| usize::try_from(number).ok());
            let number = number
                .filter(|&number| number <= MOST_WAITING)
                .ok_or_else(|| invalid().help(format!("a number of at most {MOST_WAITING}")))?;
            queue.replace(number).is_some()
        } else if let Some(text) = parameter(word, "retry_after=") {
            let times = times(text).ok_or_else(|| invalid().help("e.g. `retry_after=5s-30s`"))?;
            retry_after.replace(times).is_some()
        } else {
            return Err(unknown_parameter(word, &parameter_names(PARAMETERS)));
        };
        if is_second {
            return Err(problem(word, "duplicate value"));
        }
    }
    let default = usize::try_from(rate.saturating_mul(QUEUE_SECONDS) / 1000);
    let default = default.unwrap_or(MOST_WAITING).min(MOST_WAITING);
    let (retry_min, retry_max) =
        retry_after.unwrap_or((Duration::from_secs(5), Duration::from_secs(30)));
    // Each line counts for itself.
    reading.handshake_rates.push(HandshakeRate {
        interval: Duration::from_nanos(1_000_000_000_000 / rate),
        queue: queue.unwrap_or(default),
        retry_min,
        retry_max,
    });
    Ok(Some(HandshakeRateId(reading.handshake_rates.len() - 1)))
}

/// `5s-30s`, or one time; in whole seconds, as `Retry-After` is (RFC 9110 §10.2.3).
fn times(text: &[u8]) -> Option<(Duration, Duration)> {
    let mut parts = text.splitn(2, |&byte| byte == b'-');
    let min = value::seconds(parts.next()?)?;
    let max = parts.next().map_or(Some(min), value::seconds)?;
    (min <= max && !max.is_zero() && max <= MOST_RETRY).then_some((min, max))
}
