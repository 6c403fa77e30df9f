//! Tokens of WebSockets, which go to the upstream in a field (`websocket_token`).

use bytes::Bytes;
use wssgate_config::model::{TokenSource, WebSocketToken};
use wssgate_http1::{Unescape, unescape};

use super::request::Request;
use super::{subprotocols, variables};

/// The token at one of its places, as the client wrote it.
pub(crate) fn written(
    request: &Request,
    token: &WebSocketToken,
    source: &TokenSource,
) -> Option<Bytes> {
    let text = match source {
        TokenSource::Argument(name) => {
            let args = request.target.args.borrow();
            // A subrequest has arguments of its own.
            variables::argument(&args, name)
                .or_else(|| variables::argument(&query(request.arrival.uri.as_ref()?), name))
        }
        TokenSource::Cookie(name) => variables::cookie(request, name),
        TokenSource::Field => variables::request_header(request, &token.field),
        TokenSource::Subprotocol(name) => subprotocols::token(request, name),
    };
    text.filter(|text| !text.is_empty())
}

/// What an argument says, without the escapes of a URI. A plus stays one: tokens have no spaces, and pages forget to
/// escape it.
pub(crate) fn decoded(text: &Bytes) -> Bytes {
    if !text.contains(&b'%') {
        return text.clone();
    }
    let mut decoded = Vec::with_capacity(text.len());
    unescape(&mut decoded, text, Unescape::All);
    decoded.into()
}

/// The field that the upstream is sent, as if a line of the configuration said so: without a value the client's own is
/// left out. `None` if the client's own is passed on, or the location moves no tokens.
pub(crate) fn line(request: &Request) -> Option<(&[u8], Bytes)> {
    let token = token_of(request)?;
    for source in &token.sources {
        let Some(text) = written(request, token, source) else { continue };
        let text = match source {
            TokenSource::Field => return None,
            TokenSource::Argument(_) => decoded(&text),
            TokenSource::Cookie(_) | TokenSource::Subprotocol(_) => text,
        };
        // With anything else it could say more than one thing in a field.
        if text.iter().all(u8::is_ascii_graphic) {
            return Some((&token.field, [&token.prefix, &text[..]].concat().into()));
        }
    }
    Some((&token.field, Bytes::new()))
}

/// A target without the arguments in which a token may be.
pub(crate) fn without_arguments(request: &Request, target: Vec<u8>) -> Vec<u8> {
    let Some(token) = token_of(request) else { return target };
    let is_of = |source: &TokenSource, key: &[u8]| matches!(source, TokenSource::Argument(name) if name.eq_ignore_ascii_case(key));
    without_pairs(target, |key| token.sources.iter().any(|source| is_of(source, key)))
}

fn without_pairs(target: Vec<u8>, is_out: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let Some(at) = target.iter().position(|&byte| byte == b'?') else { return target };
    let is_kept = |pair: &&[u8]| !is_out(pair.split(|&byte| byte == b'=').next().unwrap_or(pair));
    let (all, kept): (Vec<_>, Vec<_>) = {
        let pairs = || target[at + 1..].split(|&byte| byte == b'&');
        (pairs().collect(), pairs().filter(is_kept).collect())
    };
    match kept.len() {
        len if len == all.len() => target,
        0 => target[..at].to_vec(),
        _ => [&target[..=at], &kept.join(&b'&')].concat(),
    }
}

/// What a `Cookie` field says without the cookies in which a token may be; `None` if it has none of them.
pub(crate) fn without_cookies(request: &Request, field: &[u8]) -> Option<Bytes> {
    let token = token_of(request)?;
    let is_of = |source: &TokenSource, key: &[u8]| matches!(source, TokenSource::Cookie(name) if name.eq_ignore_ascii_case(key));
    without_named(field, |key| token.sources.iter().any(|source| is_of(source, key)))
}

fn without_named(field: &[u8], is_out: impl Fn(&[u8]) -> bool) -> Option<Bytes> {
    let name = |pair: &[u8]| {
        let end = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        is_out(pair[..end].trim_ascii())
    };
    let cookies = || field.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    cookies().any(name).then(|| {
        let kept: Vec<_> = cookies().filter(|pair| !pair.is_empty() && !name(pair)).collect();
        kept.join(&b"; "[..]).into()
    })
}

/// What applies to a request: only those that ask for a WebSocket have their tokens moved.
fn token_of(request: &Request) -> Option<&WebSocketToken> {
    let token = request.location().settings.websocket_token.as_deref()?;
    (request.asks_for_websocket() && !request.is_own()).then_some(token)
}

/// The arguments in a target.
fn query(target: &Bytes) -> Bytes {
    let at = target.iter().position(|&byte| byte == b'?');
    at.map_or_else(Bytes::new, |at| target.slice(at + 1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_a_name_are_taken_out() {
        for (target, expected) in [
            ("/ws?token=a", "/ws"),
            ("/ws?a=1&token=a&b=2&token=b", "/ws?a=1&b=2"),
            ("/ws?TOKEN=a&&x", "/ws?&x"),
            ("/ws?token", "/ws"),
            ("/ws?tokens=1&x=token=2", "/ws?tokens=1&x=token=2"),
            ("/token=a", "/token=a"),
            ("/ws?", "/ws?"),
        ] {
            let left = without_pairs(target.into(), |key| key.eq_ignore_ascii_case(b"token"));
            assert_eq!(left, expected.as_bytes(), "{target}");
        }
    }

    #[test]
    fn cookies_of_a_name_are_taken_out() {
        for (field, expected) in [
            ("a=1; sid=x; b=2", Some("a=1; b=2")),
            ("SID = x;b=2;", Some("b=2")),
            ("sid=x", Some("")),
            ("asid=x; b=sid", None),
            ("", None),
        ] {
            let left = without_named(field.as_bytes(), |key| key.eq_ignore_ascii_case(b"sid"));
            assert_eq!(left.as_deref(), expected.map(str::as_bytes), "{field}");
        }
    }

    #[test]
    fn escapes_of_a_uri_are_undone() {
        for (text, expected) in [("a%2Bb%3d", "a+b="), ("a+b", "a+b"), ("a%0d%0ab", "a\r\nb")] {
            assert_eq!(
                decoded(&Bytes::from_static(text.as_bytes())),
                expected.as_bytes(),
                "{text}"
            );
        }
    }
}
