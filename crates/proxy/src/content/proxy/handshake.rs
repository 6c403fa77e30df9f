//! What goes to an upstream in place of what a client says in its handshake.

use bytes::Bytes;
use wssgate_http1::Fields;
use wssgate_ws::handshake::only_extensions;

use crate::exchange::request::Request;
use crate::exchange::{subprotocols, token, variables};

/// The fields of a handshake from which something may be taken out.
const FIELDS: [&str; 3] = ["Cookie", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"];

/// A field, and what is sent in place of all fields of that name; nothing if that is empty.
pub(super) type Instead = (&'static str, Bytes);

/// What is sent in place of fields of the client.
pub(super) fn of_client(request: &Request, client: &Fields) -> Vec<Instead> {
    let there = FIELDS.into_iter().filter(|name| client.contains(name));
    there
        .filter_map(|name| {
            let all = variables::request_header(request, name.to_ascii_lowercase().as_bytes())?;
            Some((name, value(request, name.as_bytes(), &all)?))
        })
        .collect()
}

/// What is sent in place of the value of a field, be it the client's or that of a line of the configuration; `None` if
/// it is sent as it is.
pub(super) fn value(request: &Request, name: &[u8], value: &[u8]) -> Option<Bytes> {
    match &*name.to_ascii_lowercase() {
        b"cookie" => token::without_cookies(request, value),
        b"sec-websocket-extensions" => extensions(request, value),
        b"sec-websocket-protocol" => subprotocols::instead_of(request, value),
        _ => None,
    }
}

/// `websocket_extensions`.
fn extensions(request: &Request, value: &[u8]) -> Option<Bytes> {
    let local = &request.location().settings;
    let wanted = local.websocket_extensions.as_ref()?;
    if !request.asks_for_websocket() {
        return None;
    }
    let is_wanted = |name: &[u8]| wanted.iter().any(|one| one.eq_ignore_ascii_case(name));
    only_extensions(value, is_wanted).map(Bytes::from)
}
