//! `websocket_trace`: what hops of a WebSocket tell each other, so that their log lines can be put together.
//!
//! ```text
//! client ──▶ edge ──X-WebSocket-Trace: ID──▶ gateway ──X-WebSocket-Trace: ID──▶ application
//! client ◀── edge ◀──X-WebSocket-Hops: gateway── gateway ◀── application
//! ```
//!
//! The outermost hop makes the identifier. What it is sent from outside is taken out, and what it was told
//! of hops goes to nobody outside.

use std::cell::OnceCell;

use bytes::Bytes;
use wssgate_config::model::WebSocketTrace;
use wssgate_http1::ResponseHead;

use crate::exchange::forwarded::is_trusted;
use crate::exchange::request::Request;
use crate::exchange::response::Reply;
use crate::exchange::variables::{self, hostname, request_id};

const TRACE: &str = "X-WebSocket-Trace";
const HOPS: &str = "X-WebSocket-Hops";

/// The length of an identifier: 16 random bytes in hexadecimal.
const ID_LEN: usize = 32;

/// The longest list of hops that is believed, in bytes.
const MAX_HOPS_LEN: usize = 512;

/// What is known of the trace of a request.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    id: OnceCell<Bytes>,
    /// `$websocket_hops`.
    hops: Option<Bytes>,
}

/// `$websocket_trace`: of a request for a WebSocket, where that is asked for.
pub(crate) fn id(request: &Request) -> Option<Bytes> {
    let settings = request.location().settings.websocket_trace.as_ref()?;
    if request.is_subrequest() || !request.asks_for_websocket() {
        return None;
    }
    let id = request.tunnel.trace.id.get_or_init(|| {
        let told = variables::request_header(request, b"x-websocket-trace");
        let told = told.filter(|id| trusts(request, settings) && is_id(id));
        told.unwrap_or_else(request_id)
    });
    Some(id.clone())
}

/// `$websocket_hops`.
pub(crate) fn hops(request: &Request) -> Option<Bytes> {
    request.tunnel.trace.hops.clone()
}

/// The field for the upstream that takes the place of the client's; empty for requests that have no identifier.
pub(crate) fn line(request: &Request) -> Option<(&'static [u8], Bytes)> {
    request.location().settings.websocket_trace.as_ref()?;
    Some((TRACE.as_bytes(), id(request).unwrap_or_default()))
}

/// Takes what a 101 tells of the hops behind this one, and tells a client that is trusted of all.
pub(crate) fn on_switch(request: &mut Request, head: &ResponseHead, reply: &mut Reply) {
    let Some(settings) = request.location().settings.websocket_trace.as_ref() else { return };
    let settings = settings.clone();
    let told = head.fields().first("x-websocket-hops").filter(|hops| is_list(hops));
    request.tunnel.trace.hops = told.map(Bytes::copy_from_slice);
    reply.remove(HOPS);
    if trusts(request, &settings) {
        let own = settings.hop.as_deref().unwrap_or_else(|| hostname().as_bytes());
        let list = told.map_or(own.to_vec(), |others| [own, b", ", others].concat());
        reply.push(HOPS, list);
    }
}

/// Whether the other end of the connection is another hop of ours, whoever it says that it asks for.
fn trusts(request: &Request, settings: &WebSocketTrace) -> bool {
    is_trusted(&settings.trusted, request.connection.peer.map(|peer| peer.ip()))
}

fn is_id(text: &[u8]) -> bool {
    text.len() == ID_LEN && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_list(text: &[u8]) -> bool {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._, ".contains(byte);
    !text.is_empty() && text.len() <= MAX_HOPS_LEN && text.iter().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hops_of_ours_would_say_is_taken_over() {
        for (text, id, list) in [
            ("0123456789abcdef0123456789abcdef", true, true),
            ("0123456789ABCDEF0123456789abcdef", false, true),
            ("0123456789abcdef", false, true),
            ("gw-1.example_b, gw2", false, true),
            ("", false, false),
            ("gw1\"; x", false, false),
        ] {
            assert_eq!((is_id(text.as_bytes()), is_list(text.as_bytes())), (id, list), "{text}");
        }
    }
}
