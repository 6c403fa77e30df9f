//! What is demanded of a request for a WebSocket, before anybody is asked whether the client may come in.

use bytes::Bytes;
use wssgate_config::model::{AllowedOrigins, HandshakeCheck, LocationSettings, Origin};
use wssgate_http1::Version;
use wssgate_ws::handshake::{RequestError, check_request};

use crate::exchange::forwarded::is_trusted;
use crate::exchange::refusal::{HandshakeRefusal, Place, Sender};
use crate::exchange::{Refusal, Request, subprotocols};

/// Looks at a request that asks for a WebSocket; others are none of its business, nor are subrequests, whose
/// parent was looked at.
///
/// # Errors
/// When it may not be opened like this.
pub(super) fn check(request: &mut Request, settings: &LocationSettings) -> Result<(), Refusal> {
    if request.is_subrequest() || !request.asks_for_websocket() {
        return Ok(());
    }
    if let Some(origins) = &settings.websocket_origins {
        check_origin(request, origins)?;
    }
    if settings.websocket_handshake == HandshakeCheck::Strict {
        check_form(request)?;
    }
    match subprotocols::refused(request) {
        Some(offered) => Err(Refusal::Handshake(HandshakeRefusal::Subprotocols(offered))),
        None => Ok(()),
    }
}

/// `websocket_handshake strict`.
fn check_form(request: &mut Request) -> Result<(), Refusal> {
    let Some(head) = &request.arrival.head else { return Ok(()) };
    let http11 = request.arrival.version == Version::Http11;
    let Err(error) = check_request(head.method_name(), http11, head.fields().iter()) else {
        return Ok(());
    };
    if error == RequestError::WebSocketVersion {
        // RFC 6455 §4.4; RFC 9110 §15.5.22 asks for `Upgrade`.
        let fields = [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")];
        let fields = fields.map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
        request.response.special_fields.extend(fields);
    }
    Err(Refusal::Handshake(HandshakeRefusal::Form(error)))
}

/// `websocket_origin`.
fn check_origin(request: &Request, origins: &AllowedOrigins) -> Result<(), Refusal> {
    let sender = sender(request);
    let allowed = match &sender {
        Sender::Unnamed => origins.allow_none(),
        Sender::Several => false,
        Sender::Origin(text) if **text == *b"null" => origins.allow_null(),
        Sender::Origin(text) => Origin::parse(text)
            .is_some_and(|origin| origins.allow(&origin, own_origin(request).as_ref())),
    };
    if allowed {
        return Ok(());
    }
    let place = Place::of(request);
    Err(Refusal::Handshake(HandshakeRefusal::Origin { from: sender, place }))
}

fn sender(request: &Request) -> Sender {
    let Some(head) = &request.arrival.head else { return Sender::Unnamed };
    let mut origins = head.fields().all("origin");
    match (origins.next(), origins.next()) {
        (None, _) => Sender::Unnamed,
        (Some(origin), None) => Sender::Origin(Bytes::copy_from_slice(origin)),
        (Some(_), Some(_)) => Sender::Several,
    }
}

/// The origin that a request is for, by the host and port that the client names; whatever Host is sent to
/// the upstream does not matter.
fn own_origin(request: &Request) -> Option<Origin> {
    Origin::new(scheme(request), &request.arrival.host, request.arrival.port)
}

/// The scheme of the page that would be this server's own. Where TLS ends at a proxy before us, only that
/// one knows.
fn scheme(request: &Request) -> &'static [u8] {
    let trust = request.location().settings.real_ip.as_ref();
    let peer = request.connection.peer.map(|peer| peer.ip());
    let told = request
        .field("x-forwarded-proto")
        .filter(|_| trust.is_some_and(|trust| is_trusted(&trust.from, peer)));
    match told {
        Some(told) if told.eq_ignore_ascii_case(b"https") => b"https",
        Some(told) if told.eq_ignore_ascii_case(b"http") => b"http",
        _ if request.connection.is_tls() => b"https",
        _ => b"http",
    }
}
