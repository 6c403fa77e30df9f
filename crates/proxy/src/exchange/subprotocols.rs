//! The subprotocols that a client offers: tokens among them, and those that may be spoken.
//!
//! Browsers let a page set no header of a WebSocket but `Sec-WebSocket-Protocol`. What a page says there
//! as `NAME.TOKEN`, or as `NAME` and `TOKEN`, is no subprotocol: it is for us (`auth_jwt`,
//! `websocket_token`), and the upstream is not told. Of the others it is told what `websocket_protocol`
//! lists.

use bytes::Bytes;
use wssgate_config::model::TokenSource;
use wssgate_config::variable::Variable;
use wssgate_http1::Fields;

use super::request::Request;
use super::variables;

/// What a list of subprotocols says under a name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Split<'v> {
    /// The first token.
    token: Option<&'v [u8]>,
    /// The subprotocol that it came with: the name as it was written, or name and token.
    said: Option<&'v [u8]>,
    /// The subprotocols that are left.
    rest: Vec<&'v [u8]>,
}

fn split<'v>(elements: impl IntoIterator<Item = &'v [u8]>, name: &[u8]) -> Split<'v> {
    let mut split = Split::default();
    let mut elements = elements.into_iter();
    while let Some(element) = elements.next() {
        let (head, tail) = element.split_at_checked(name.len()).unwrap_or((element, b""));
        let found = match tail {
            _ if !variables::same_name(head, name) => None,
            [] => elements.next(),
            [b'.', token @ ..] => Some(token),
            _ => None,
        };
        match found {
            Some(token) => {
                split.token.get_or_insert(token);
                split.said.get_or_insert(element);
            }
            // Alone at the end of the list it is a subprotocol like any other.
            None => split.rest.push(element),
        }
    }
    split
}

fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// All that the client offers, as one list.
fn offered(request: &Request) -> Option<Bytes> {
    variables::request_header(request, b"sec-websocket-protocol")
}

/// The value of `$websocket_protocol_NAME`.
pub(crate) fn token(request: &Request, name: &[u8]) -> Option<Bytes> {
    let list = offered(request)?;
    split(elements(&list), name).token.map(|token| list.slice_ref(token))
}

/// The names under which the location finds tokens among the subprotocols.
fn names(request: &Request) -> impl Iterator<Item = &[u8]> {
    let settings = &request.location().settings;
    let of_jwt = settings.auth_jwt.as_ref().and_then(|jwt| jwt.token).and_then(|variable| {
        match &request.http().variables.slot(variable).meaning {
            Variable::OfferedSubprotocol(name) => Some(&name[..]),
            _ => None,
        }
    });
    let sources = settings.websocket_token.iter().flat_map(|token| &token.sources);
    let of_token = sources.filter_map(|source| match source {
        TokenSource::Subprotocol(name) => Some(&name[..]),
        _ => None,
    });
    of_jwt.into_iter().chain(of_token)
}

/// The subprotocols in a list: what is left of it without tokens.
fn without_tokens<'l>(request: &Request, list: &'l [u8]) -> Vec<&'l [u8]> {
    names(request).fold(elements(list).collect(), |left, name| split(left, name).rest)
}

/// Whether a subprotocol may be spoken.
fn is_listed(request: &Request, name: &[u8]) -> bool {
    let listed = request.location().settings.websocket_protocols.as_ref();
    listed.is_none_or(|listed| listed.iter().any(|one| **one == *name))
}

/// What the upstream is offered instead of a list, which may be nothing; `None` if all of it.
pub(crate) fn instead_of(request: &Request, list: &[u8]) -> Option<Bytes> {
    let mut left = without_tokens(request, list);
    if request.asks_for_websocket() {
        left.retain(|name| is_listed(request, name));
    }
    (left.len() < elements(list).count()).then(|| joined(&left))
}

fn joined(names: &[&[u8]]) -> Bytes {
    names.join(&b", "[..]).into()
}

/// The value of `$websocket_protocol`.
pub(crate) fn for_upstream(request: &Request) -> Option<Bytes> {
    let list = offered(request)?;
    let left =
        instead_of(request, &list).unwrap_or_else(|| joined(&elements(&list).collect::<Vec<_>>()));
    Some(left).filter(|left| !left.is_empty())
}

/// The subprotocols that a client offers, if it offers some and may speak none of them.
pub(crate) fn refused(request: &Request) -> Option<Bytes> {
    let list = offered(request)?;
    let offered = without_tokens(request, &list);
    let refused = !offered.is_empty() && !offered.iter().any(|name| is_listed(request, name));
    refused.then(|| joined(&offered))
}

/// A subprotocol that a response selects although it may not be spoken.
pub(crate) fn unlisted(request: &Request, response: &Fields) -> Option<Bytes> {
    let mut selected = response.all("sec-websocket-protocol").flat_map(elements);
    selected.find(|name| !is_listed(request, name)).map(Bytes::copy_from_slice)
}

/// The subprotocol that the token came with: what is accepted where the upstream accepts nothing, for
/// some browsers fail a WebSocket none of whose offers is. The token itself is sent back only where there
/// was nothing else to accept.
pub(crate) fn accepted(request: &Request) -> Option<Bytes> {
    let list = offered(request)?;
    let said = names(request).find_map(|name| {
        let split = split(elements(&list), name);
        let apart = split.said.is_some_and(|said| said.len() == name.len());
        split.said.filter(|_| apart || without_tokens(request, &list).is_empty())
    })?;
    Some(list.slice_ref(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_both_ways_and_taken_out() {
        for (list, token, said, rest) in [
            ("chat, bearer.a.b.c", Some("a.b.c"), Some("bearer.a.b.c"), &["chat"][..]),
            ("Bearer.a.b.c", Some("a.b.c"), Some("Bearer.a.b.c"), &[]),
            ("bearer, a.b.c, chat", Some("a.b.c"), Some("bearer"), &["chat"]),
            ("chat,bearer,a.b.c", Some("a.b.c"), Some("bearer"), &["chat"]),
            ("bearer.x, bearer.y", Some("x"), Some("bearer.x"), &[]),
            ("bearerx, chat.bearer.y", None, None, &["bearerx", "chat.bearer.y"]),
            ("chat, bearer", None, None, &["chat", "bearer"]),
            ("bearer.", Some(""), Some("bearer."), &[]),
            ("", None, None, &[]),
        ] {
            let found = split(elements(list.as_bytes()), b"bearer");
            assert_eq!(found.token, token.map(str::as_bytes), "{list}");
            assert_eq!(found.said, said.map(str::as_bytes), "{list}");
            let rest: Vec<_> = rest.iter().map(|element| element.as_bytes()).collect();
            let left: Vec<_> = found.rest;
            assert_eq!(left, rest, "{list}");
        }
    }
}
