//! `websocket_trace`: an identifier that all hops of a WebSocket log.

use std::sync::Arc;

use wssgate_syntax::{self as syntax, Word};

use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{
    Reading, Reads, directive_problem, invalid_parameter, network, parameter, unknown_parameter,
};
use crate::trust::TrustedProxy;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_TRACE];

/// `websocket_trace`
pub(crate) static WEBSOCKET_TRACE: Directive<Option<Arc<WebSocketTrace>>> = Directive {
    name: "websocket_trace",
    contexts: HSL,
    arity: AtLeast(1),
    default: "off",
    doc: "With `on` each WebSocket gets an identifier that all hops can log (`$websocket_trace`). \
          It is sent to the upstream server in the header `X-WebSocket-Trace`; one that a client \
          sends is accepted only from the addresses and networks of `trusted=`, and removed \
          otherwise. Hops add their name, `hop=` (the host name by default), to the header \
          `X-WebSocket-Hops` of the 101: `$websocket_hops` lists those behind this one, the \
          nearest first. It is sent only to trusted clients.",
    ..Directive::once(trace)
};

/// `websocket_trace on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketTrace {
    /// Whose identifiers are taken over, and who is told of hops.
    pub trusted: Vec<TrustedProxy>,
    /// What this hop calls itself; the host name if that is not said.
    pub hop: Option<Box<[u8]>>,
}

const PARAMETERS: [&str; 2] = ["hop=", "trusted="];

fn trace(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Option<Arc<WebSocketTrace>>> {
    let first = &directive.args[0];
    match (first.is("on"), first.is("off"), directive.args.get(1)) {
        (true, ..) => {}
        (_, true, None) => return Ok(None),
        (_, true, Some(word)) => return Err(invalid_parameter(word)),
        _ => return Err(directive_problem(directive, first, "invalid value")),
    }
    let mut trace = WebSocketTrace { trusted: Vec::new(), hop: None };
    for word in &directive.args[1..] {
        if let Some(text) = parameter(word, "trusted=") {
            let text = Word { value: text.into(), span: word.span, quoted: word.quoted };
            trace.trusted.push(if text.is("unix:") {
                TrustedProxy::Unix
            } else {
                let (address, bits) =
                    network(reading, &text).ok_or_else(|| invalid_parameter(word))?;
                TrustedProxy::Network(address, bits)
            });
        } else if let Some(name) = parameter(word, "hop=") {
            // One of several in a header, so that what separates them there has no place in it.
            let valid = !name.is_empty()
                && name.len() <= MAX_HOP_LEN
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
            if !valid || trace.hop.replace(name.into()).is_some() {
                return Err(invalid_parameter(word));
            }
        } else {
            return Err(unknown_parameter(word, &PARAMETERS));
        }
    }
    Ok(Some(Arc::new(trace)))
}

/// The longest name of a hop, in bytes.
const MAX_HOP_LEN: usize = 64;
