//! Tokens among the subprotocols that a client offers (`$websocket_protocol_NAME`).
//!
//! Browsers let a page set no header of a WebSocket but `Sec-WebSocket-Protocol`. What a page says there
//! as `NAME.TOKEN`, or as `NAME` and `TOKEN`, is no subprotocol: it is for us, and the upstream is not
//! told.

use bytes::{BufMut, Bytes, BytesMut};
use wssgate_config::variable::Variable;

use super::request::Request;
use super::variables;

/// What a list of subprotocols says under a name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Split<'v> {
    /// The first token.
    token: Option<&'v [u8]>,
    /// The name as it was written, if the token is an element of its own.
    name: Option<&'v [u8]>,
    /// The subprotocols that are left.
    rest: Vec<&'v [u8]>,
}

fn split<'v>(list: &'v [u8], name: &[u8]) -> Split<'v> {
    let mut split = Split::default();
    let mut elements =
        list.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty());
    while let Some(element) = elements.next() {
        let (head, tail) = element.split_at_checked(name.len()).unwrap_or((element, b""));
        let found = match tail {
            _ if !variables::same_name(head, name) => None,
            [] => {
                let token = elements.next();
                if token.is_some() {
                    split.name.get_or_insert(element);
                }
                token
            }
            [b'.', token @ ..] => Some(token),
            _ => None,
        };
        match found {
            Some(token) => {
                split.token.get_or_insert(token);
            }
            // Alone at the end of the list it is a subprotocol like any other.
            None => split.rest.push(element),
        }
    }
    split
}

/// All that the client offers, as one list.
fn offered(request: &Request) -> Option<Bytes> {
    variables::request_header(request, b"sec-websocket-protocol")
}

/// The value of `$websocket_protocol_NAME`.
pub(crate) fn token(request: &Request, name: &[u8]) -> Option<Bytes> {
    let list = offered(request)?;
    split(&list, name).token.map(|token| list.slice_ref(token))
}

/// The name under which the location finds its token among the subprotocols, if it does.
fn name_of_location(request: &Request) -> Option<&[u8]> {
    let variable = request.location().settings.auth_jwt.as_ref()?.token?;
    match &request.http().variables.slot(variable).meaning {
        Variable::OfferedSubprotocol(name) => Some(name),
        _ => None,
    }
}

/// What the upstream is offered instead, if the offer has a token: it may be nothing.
pub(crate) fn without_token(request: &Request) -> Option<Bytes> {
    let name = name_of_location(request)?;
    let list = offered(request)?;
    let Split { token: Some(_), rest, .. } = split(&list, name) else {
        return None;
    };
    let mut left = BytesMut::new();
    for (index, element) in rest.into_iter().enumerate() {
        if index > 0 {
            left.put_slice(b", ");
        }
        left.put_slice(element);
    }
    Some(left.freeze())
}

/// The name beside the token, as the client wrote it: what is accepted where the upstream accepts
/// nothing, for some browsers fail a WebSocket none of whose offers is.
pub(crate) fn accepted(request: &Request) -> Option<Bytes> {
    let name = name_of_location(request)?;
    let list = offered(request)?;
    let Split { token: Some(_), name: Some(name), .. } = split(&list, name) else {
        return None;
    };
    Some(list.slice_ref(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_both_ways_and_taken_out() {
        for (list, token, name, rest) in [
            ("chat, bearer.a.b.c", Some("a.b.c"), None, &["chat"][..]),
            ("Bearer.a.b.c", Some("a.b.c"), None, &[]),
            ("bearer, a.b.c, chat", Some("a.b.c"), Some("bearer"), &["chat"]),
            ("chat,bearer,a.b.c", Some("a.b.c"), Some("bearer"), &["chat"]),
            ("bearer.x, bearer.y", Some("x"), None, &[]),
            ("bearerx, chat.bearer.y", None, None, &["bearerx", "chat.bearer.y"]),
            ("chat, bearer", None, None, &["chat", "bearer"]),
            ("bearer.", Some(""), None, &[]),
            ("", None, None, &[]),
        ] {
            let found = split(list.as_bytes(), b"bearer");
            assert_eq!(found.token, token.map(str::as_bytes), "{list}");
            assert_eq!(found.name, name.map(str::as_bytes), "{list}");
            let rest: Vec<_> = rest.iter().map(|element| element.as_bytes()).collect();
            let left: Vec<_> = found.rest;
            assert_eq!(left, rest, "{list}");
        }
    }
}
