//! `websocket_token`: where browsers put a token, and the field in which the upstream wants it.
//!
//! A page can set no header of a WebSocket, so tokens come in the query, in a cookie or among the subprotocols. There
//! they are seen by whoever sees URLs.

use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use super::handshake::is_token;
use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, invalid_parameter, parameter, unknown_parameter};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_TOKEN];

/// `websocket_token`
pub(crate) static WEBSOCKET_TOKEN: Directive<Option<Arc<WebSocketToken>>> = Directive {
    name: "websocket_token",
    contexts: HSL,
    arity: AtLeast(1),
    default: "off",
    doc: "Moves the token of a WebSocket handshake into a header for the upstream server. The \
          parameters say where to look for it, in this order: in a query argument with `arg=NAME`, \
          in a cookie with `cookie=NAME`, among the offered subprotocols with `subprotocol=NAME`, \
          as `NAME.TOKEN` or `NAME, TOKEN`. The first one found is sent in the header `to=HEADER` \
          (`Authorization`), after `scheme=NAME` and a space (`Bearer` in `Authorization`, \
          otherwise nothing). The token is removed from all these places before the request is \
          passed on, and `***` replaces it in log lines. A header of this name sent by the client \
          is removed too, unless `header` is one of the places: then it counts as one, and is \
          passed on unchanged.",
    ..Directive::once(token)
};

/// `websocket_token`: where a token comes from and where it goes.
#[derive(Clone, Debug)]
pub struct WebSocketToken {
    /// Where it may be, in the order in which it is looked for.
    pub sources: Vec<TokenSource>,
    /// The name of the field for the upstream.
    pub field: Box<[u8]>,
    /// What stands before the token there.
    pub prefix: Box<[u8]>,
}

/// Where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// In this argument of the query, compared without case.
    Argument(Box<[u8]>),
    /// In this cookie, compared without case.
    Cookie(Box<[u8]>),
    /// In the field itself.
    Field,
    /// Among the subprotocols, under this name, compared without case.
    Subprotocol(Box<[u8]>),
}

const PARAMETERS: [&str; 6] = ["arg=", "cookie=", "header", "scheme=", "subprotocol=", "to="];

fn token(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Arc<WebSocketToken>>> {
    if let [word] = &directive.args[..]
        && word.is("off")
    {
        return Ok(None);
    }
    let (mut sources, mut field, mut scheme) = (Vec::new(), None, None);
    for word in &directive.args {
        let source = if let Some(name) = parameter(word, "arg=") {
            TokenSource::Argument(named(word, name, is_argument)?)
        } else if let Some(name) = parameter(word, "cookie=") {
            TokenSource::Cookie(named(word, name, is_token)?)
        } else if let Some(name) = parameter(word, "subprotocol=") {
            TokenSource::Subprotocol(named(word, name, is_token)?)
        } else if word.is("header") {
            TokenSource::Field
        } else if let Some(name) = parameter(word, "to=") {
            only_once(word, field.replace(for_upstream(word, name)?).is_none())?;
            continue;
        } else if let Some(name) = parameter(word, "scheme=") {
            let name = match name {
                b"" => Box::default(),
                name => named(word, name, is_token)?,
            };
            only_once(word, scheme.replace(name).is_none())?;
            continue;
        } else {
            return Err(unknown_parameter(word, &PARAMETERS));
        };
        only_once(word, !sources.contains(&source))?;
        sources.push(source);
    }
    if sources.iter().all(|source| *source == TokenSource::Field) {
        let message = "\"websocket_token\" directive requires a source of tokens";
        return Err(Diagnostic::error(message)
            .at(directive.head(), "e.g. `arg=access_token`")
            .help("sources are `arg=NAME`, `cookie=NAME` and `subprotocol=NAME`"));
    }
    let field: Box<[u8]> = field.unwrap_or_else(|| AUTHORIZATION.into());
    let scheme = scheme.unwrap_or_else(|| match field.eq_ignore_ascii_case(AUTHORIZATION) {
        // RFC 6750 §2.1.
        true => b"Bearer"[..].into(),
        false => Box::default(),
    });
    let prefix = if scheme.is_empty() { scheme } else { [&scheme, &b" "[..]].concat().into() };
    Ok(Some(Arc::new(WebSocketToken { sources, field, prefix })))
}

const AUTHORIZATION: &[u8] = b"Authorization";

fn only_once(word: &Word, first: bool) -> Reads<()> {
    match first {
        true => Ok(()),
        false => {
            Err(Diagnostic::error(format!("duplicate parameter \"{word}\"")).at(word.span, ""))
        }
    }
}

fn named(word: &Word, name: &[u8], is_name: fn(&[u8]) -> bool) -> Reads<Box<[u8]>> {
    match is_name(name) {
        true => Ok(name.into()),
        false => Err(invalid_parameter(word)),
    }
}

/// What can stand before the `=` of an argument as it is written in a URI.
fn is_argument(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() && !b"&=#$".contains(byte))
}

/// The field for the upstream. Those that make a handshake are not free to be set, and a cookie is no place for a token
/// that was taken out of one.
fn for_upstream(word: &Word, name: &[u8]) -> Reads<Box<[u8]>> {
    const TAKEN: [&str; 7] = [
        "Connection",
        "Content-Length",
        "Cookie",
        "Host",
        "Transfer-Encoding",
        "Upgrade",
        "Origin",
    ];
    let lower = name.to_ascii_lowercase();
    let taken = TAKEN.iter().any(|taken| lower.eq_ignore_ascii_case(taken.as_bytes()));
    if taken || lower.starts_with(b"sec-") {
        return Err(invalid_parameter(word).help("this header has another meaning in handshakes"));
    }
    named(word, name, is_token)
}
