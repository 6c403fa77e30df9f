//! What is demanded and passed on of opening handshakes: `websocket_handshake`, `websocket_protocol`,
//! `websocket_extensions`.

use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, one_of};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&WEBSOCKET_EXTENSIONS, &WEBSOCKET_HANDSHAKE, &WEBSOCKET_PROTOCOL];

/// `websocket_extensions`
pub(crate) static WEBSOCKET_EXTENSIONS: Directive<Option<Names>> = Directive {
    name: "websocket_extensions",
    contexts: HSL,
    arity: AtLeast(1),
    default: "pass",
    doc: "Selects which extensions are offered to the upstream server: with `pass` all that the \
          client offers, with `strip` none, or those listed, such as `permessage-deflate`. Others \
          are removed from the offer; the WebSocket does without them.",
    ..Directive::once(extensions)
};

/// `websocket_handshake`
pub(crate) static WEBSOCKET_HANDSHAKE: Directive<HandshakeCheck> = Directive {
    name: "websocket_handshake",
    contexts: HSL,
    arity: Exactly(1),
    default: "pass",
    doc: "Selects who validates WebSocket handshakes. `strict` responds with 426 and \
          `Sec-WebSocket-Version: 13` to versions other than 13 (RFC 6455), and with 400 to \
          requests with a missing or malformed `Sec-WebSocket-Key`, with a method other than GET \
          or without `Connection: upgrade`. `pass` leaves that to the upstream server, as nginx \
          does: it knows which versions it supports, and there are clients with older ones.",
    ..Directive::once(check)
};

/// `websocket_protocol`
pub(crate) static WEBSOCKET_PROTOCOL: Directive<Option<Names>> = Directive {
    name: "websocket_protocol",
    contexts: HSL,
    arity: AtLeast(1),
    default: "off",
    doc: "Allows only these subprotocols, compared case-sensitively. Others are removed from the \
          offer to the upstream server. A client all of whose offers are removed gets a 400; one \
          that offers none is allowed. A response that selects a subprotocol that is not listed \
          becomes a 502. `off` allows all.",
    ..Directive::once(subprotocols)
};

/// Names in a list, in no particular order.
pub(crate) type Names = Arc<[Box<[u8]>]>;

/// `websocket_handshake`: who judges a request for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeCheck {
    /// The upstream server.
    Pass,
    /// We do, by RFC 6455.
    Strict,
}

fn check(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<HandshakeCheck> {
    let choices = [("pass", HandshakeCheck::Pass), ("strict", HandshakeCheck::Strict)];
    one_of(&directive.args[0], &choices)
}

fn extensions(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Names>> {
    match &directive.args[..] {
        [word] if word.is("pass") => Ok(None),
        [word] if word.is("strip") => Ok(Some(Arc::default())),
        words => names(words, &["pass", "strip"], "extension").map(Some),
    }
}

fn subprotocols(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Names>> {
    match &directive.args[..] {
        [word] if word.is("off") => Ok(None),
        words => names(words, &["off"], "subprotocol").map(Some),
    }
}

/// Names of extensions or subprotocols, which are tokens (RFC 6455 §4.1 item 10, §9.1).
fn names(words: &[Word], alone: &[&str], what: &str) -> Reads<Names> {
    let mut names: Vec<Box<[u8]>> = Vec::with_capacity(words.len());
    for word in words {
        if alone.iter().any(|alone| word.is(alone)) {
            let problem = Diagnostic::error(format!("\"{word}\" cannot be combined with names"));
            return Err(problem.at(word.span, "must be used alone"));
        }
        if !is_token(&word.value) {
            let problem = Diagnostic::error(format!("invalid name of a {what} \"{word}\""));
            let help = word.value.contains(&b',').then(|| "spaces separate names".to_owned());
            return Err(problem.at(word.span, "").maybe_help(help));
        }
        if names.contains(&word.value) {
            let problem = Diagnostic::error(format!("duplicate {what} \"{word}\""));
            return Err(problem.at(word.span, ""));
        }
        names.push(word.value.clone());
    }
    Ok(names.into())
}

/// A token (RFC 9110 §5.6.2) without a dollar sign, which would begin a variable.
pub(super) fn is_token(text: &[u8]) -> bool {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_of_token)
}
