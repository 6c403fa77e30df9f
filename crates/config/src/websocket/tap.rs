//! `websocket_tap`: what `wssgate ctl tap` may show.

use wssgate_syntax as syntax;

use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{
    Reading, Reads, directive_problem, invalid_parameter, parameter, unknown_parameter,
};
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_TAP];

/// `websocket_tap`
pub(crate) static WEBSOCKET_TAP: Directive<WebSocketTap> = Directive {
    name: "websocket_tap",
    contexts: HSL,
    arity: AtLeast(1),
    default: "headers",
    doc: "Selects what `wssgate ctl tap` may show of WebSockets: with `headers` the headers of \
          frames and the code and reason of a Close, with `payload` also the first bytes of \
          payloads, at most `max=` (`1k` by default, up to `4k`), and with `off` nothing. \
          `redact=` names members of JSON objects, with commas between them, whose values are \
          replaced by `***`, at any depth and whatever the case of the letters; then a payload is \
          shown only if it is a whole text message in one frame, no longer than `max=`, and JSON. \
          It does not find secrets in other places, such as the text of other members. Compressed \
          payloads are never shown. A WebSocket keeps the setting that it began with.",
    ..Directive::once(tap)
};

/// What may be shown of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebSocketTap {
    /// Nothing.
    Off,
    /// Their headers.
    Headers,
    /// Their payloads too.
    Payload {
        /// How much of each, in bytes.
        max: usize,
        /// Members of JSON objects whose values are not shown, in lower case.
        redact: Vec<Box<str>>,
    },
}

/// How much of a payload is shown unless it is said, and at most.
const MAX: usize = 1024;
const MAX_MAX: usize = 4096;

const PARAMETERS: [&str; 2] = ["max=", "redact="];

fn tap(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<WebSocketTap> {
    let first = &directive.args[0];
    let more = directive.args.get(1);
    match (first.is("off"), first.is("headers"), more) {
        (true, _, None) => return Ok(WebSocketTap::Off),
        (_, true, None) => return Ok(WebSocketTap::Headers),
        (true, _, Some(word)) | (_, true, Some(word)) => return Err(invalid_parameter(word)),
        _ if first.is("payload") => {}
        _ => return Err(directive_problem(directive, first, "invalid value")),
    }
    let (mut max, mut redact) = (MAX, Vec::new());
    for word in &directive.args[1..] {
        if let Some(size) = parameter(word, "max=") {
            let size = value::size(size).and_then(|size| usize::try_from(size).ok());
            let size = size.filter(|size| (1..=MAX_MAX).contains(size));
            max = size.ok_or_else(|| invalid_parameter(word))?;
        } else if let Some(names) = parameter(word, "redact=") {
            for name in names.split(|&byte| byte == b',') {
                let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty());
                let name = name.ok_or_else(|| invalid_parameter(word))?;
                redact.push(name.to_lowercase().into());
            }
        } else {
            return Err(unknown_parameter(word, &PARAMETERS));
        }
    }
    Ok(WebSocketTap::Payload { max, redact })
}
