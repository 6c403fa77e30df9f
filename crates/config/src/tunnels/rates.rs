//! How much one WebSocket may send in a time.

use wssgate_syntax::{self as syntax, Word};

use super::{Sides, sides};
use crate::directive::Arity::Between;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, directive_problem, parameter};
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_BYTE_RATE, &WEBSOCKET_MESSAGE_RATE];

/// `websocket_byte_rate`
pub(crate) static WEBSOCKET_BYTE_RATE: Directive<Sides<Option<TunnelRate>>> = Directive {
    name: "websocket_byte_rate",
    contexts: HSL,
    arity: Between(1, 4),
    default: "off",
    doc: "Limits how many bytes per second a side of a WebSocket may send, frame headers included. \
          Up to `burst` excess bytes are allowed at once, by default as many as the rate allows in \
          one second. With `delay` (the default) a side that has sent more is not read until it is \
          within the rate again; with `close` the WebSocket is closed with code 1008. What is read \
          at once is counted together, and passed on.",
    ..Directive::once(byte_rates)
};

/// `websocket_message_rate`
pub(crate) static WEBSOCKET_MESSAGE_RATE: Directive<Sides<Option<TunnelRate>>> = Directive {
    name: "websocket_message_rate",
    contexts: HSL,
    arity: Between(1, 4),
    default: "off",
    doc: "Limits how many messages per second (`10r/s`) or minute (`10r/m`) a side of a WebSocket \
          may send. Up to `burst` excess messages are allowed at once, by default as many as the \
          rate allows in one second. With `delay` (the default) a side that has sent more is not \
          read until it is within the rate again; with `close` the WebSocket is closed with code \
          1008. What is read at once is counted together, and passed on.",
    ..Directive::once(message_rates)
};

/// How much may come of messages, or of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelRate {
    /// Thousandths of one per second; never 0.
    pub rate: u64,
    /// How many too many may come at once; without it, as many as in a second.
    pub burst: Option<u64>,
    /// Whether more end the WebSocket instead of having to wait.
    pub close: bool,
}

/// `10r/s` or `10r/m`, in thousandths per second.
pub(crate) fn message_rate(text: &[u8]) -> Option<u64> {
    let (text, seconds) = match text {
        [text @ .., b'r', b'/', b's'] => (text, 1),
        [text @ .., b'r', b'/', b'm'] => (text, 60),
        _ => return None,
    };
    value::number(text).map(|number| number.saturating_mul(1000) / seconds).filter(|&rate| rate > 0)
}

/// A size per second, in thousandths of a byte.
pub(crate) fn byte_rate(text: &[u8]) -> Option<u64> {
    value::size(text).map(|size| size.saturating_mul(1000)).filter(|&rate| rate > 0)
}

fn message_rates(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Sides<Option<TunnelRate>>> {
    rates(reading, directive, message_rate, value::number)
}

fn byte_rates(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Sides<Option<TunnelRate>>> {
    rates(reading, directive, byte_rate, value::size)
}

fn rates(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    rate: impl Fn(&[u8]) -> Option<u64>,
    amount: impl Fn(&[u8]) -> Option<u64>,
) -> Reads<Sides<Option<TunnelRate>>> {
    let problem = |word: &Word, what| directive_problem(directive, word, what);
    let (mut words, mut burst, mut close) = (Vec::new(), None, None);
    for word in &directive.args {
        let is_second = if let Some(text) = parameter(word, "burst=") {
            let amount = amount(text).ok_or_else(|| problem(word, "invalid value"))?;
            burst.replace(amount).is_some()
        } else if word.is("delay") || word.is("close") {
            close.replace(word.is("close")).is_some()
        } else {
            words.push(word);
            false
        };
        if is_second {
            return Err(problem(word, "duplicate value"));
        }
    }
    if words.is_empty() {
        return Err(problem(&directive.args[0], "invalid value"));
    }
    let Sides { client, upstream } = sides(reading, directive, &words, rate)?;
    let limit = |rate| TunnelRate { rate, burst, close: close.unwrap_or(false) };
    Ok(Sides { client: client.map(limit), upstream: upstream.map(limit) })
}
