//! What is sent to the upstream, whichever peer it will be: made once for all tries.

use bytes::Bytes;
use wssgate_http1::{Fields, Method, Version};
use wssgate_ws::handshake::{Offer, check_request};

use super::destination::Destination;
use super::handshake;
use super::request::{BodyFraming, OutgoingField, Target, UpstreamRequest};
use crate::exchange::body::{Length, RequestBody};
use crate::exchange::refusal::Refusal;
use crate::exchange::request::Request;
use crate::exchange::{token, trace};

/// A request ready to be sent.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The head, and the body of `proxy_set_body`.
    pub(crate) head: Bytes,
    /// The target in it.
    pub(crate) target: Bytes,
    /// Whether it says `Connection: close`. A client that says so must not send another request on
    /// the connection (RFC 9112 §9.6), whatever the answer says.
    pub(crate) closes: bool,
    /// The method sent, as far as it decides about the body of the answer.
    pub(crate) method: Method,
    /// What the request offers to switch to.
    pub(crate) offer: Option<Asked>,
    /// Whether the client's body follows.
    pub(crate) with_body: bool,
    /// Whether it is sent while it is read.
    pub(crate) unbuffered: bool,
    /// Whether it is sent in chunks.
    pub(crate) chunked: bool,
}

/// An upgrade that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What was offered.
    pub(crate) offer: Offer,
    /// Whether a `Sec-WebSocket-Key` was sent, which the answer must then prove to have read.
    pub(crate) keyed: bool,
}

impl Plan {
    /// Makes the plan. `unbuffered`: the body is sent while it is read.
    ///
    /// # Errors
    /// When the request cannot be written.
    pub(crate) fn of(
        request: &Request,
        body: &RequestBody,
        destination: &Destination<'_>,
        unbuffered: bool,
    ) -> Result<Self, Refusal> {
        let settings = &request.location().proxy;
        let method = match &settings.method {
            Some(template) => request.text(template),
            None => request.target.method_name.clone(),
        };
        let target = token::without_arguments(request, target(request, destination));
        let set_body = settings.set_body.as_ref().map(|template| request.text(template));
        let framing = framing(body, set_body.as_ref(), unbuffered);
        let client = request.arrival.head.as_ref().map(|head| head.fields());
        let client = client.filter(|_| !request.is_own());
        let has_body = !matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        let asked = client.is_some_and(|fields| fields.contains("upgrade")) && settings.http11;
        let lines = settings.set_headers.iter();
        let mut set: Vec<_> = lines.map(|(name, value)| (&name[..], request.text(value))).collect();
        for (name, value) in &mut set {
            if let Some(instead) = handshake::value(request, name, value) {
                *value = instead;
            }
        }
        set.extend(token::line(request));
        set.extend(trace::line(request).filter(|(name, _)| {
            !settings.set_headers.iter().any(|(said, _)| said.eq_ignore_ascii_case(name))
        }));
        // A subrequest asks for an answer and never switches.
        let may_upgrade = !request.is_subrequest() && (!has_body || asked && sets_upgrade(&set));
        if !may_upgrade {
            take_wish_away(&mut set);
        }
        let instead = client.map(|fields| handshake::of_client(request, fields));
        let mut head = UpstreamRequest {
            method: &method,
            target: &target,
            http11: settings.http11,
            proxy_host: &destination.host,
            set: &set,
            upgrade: client.filter(|_| may_upgrade).and_then(|fields| own_upgrade(request, fields)),
            framing,
            client: client.filter(|_| settings.pass_request_headers),
            instead: &instead.unwrap_or_default(),
        };
        let mut fields = head.fields();
        // Lines may withhold or replace what a WebSocket needs, and half a handshake would only
        // confuse the upstream.
        if head.upgrade.is_some() && !is_websocket(&head, &fields) {
            drop(fields);
            head.upgrade = None;
            fields = head.fields();
        }
        let mut text = head.write(&fields).map_err(Refusal::Unwritable)?;
        let closes = head.closes();
        // Lines of the configuration may ask for an upgrade that the client never wanted; its
        // answer is no switch then.
        let offer = if asked { offer(&fields) } else { None };
        let with_body =
            set_body.is_none() && settings.pass_request_body && body.length() != Length::None;
        if let Some(set_body) = set_body {
            text = [text, set_body].concat().into();
        }
        // nginx knows this one in any case: an upstream that was sent `head` by `proxy_method`
        // answers without a body.
        let method = match method.eq_ignore_ascii_case(b"HEAD") {
            true => Method::Head,
            false => Method::from_name(&method),
        };
        let chunked = framing == BodyFraming::Chunked;
        let target = target.into();
        Ok(Self { head: text, target, closes, method, offer, with_body, unbuffered, chunked })
    }
}

fn target(request: &Request, destination: &Destination<'_>) -> Vec<u8> {
    let raw = request.arrival.uri.as_deref().filter(|_| request.target.as_sent.get());
    let args = request.target.args.borrow().clone();
    Target {
        part: destination.uri.clone(),
        raw,
        path: &request.target.path,
        args: &args,
        escape: request.target.quoted || request.route.is_internal(),
        in_location: !request.route.path_replaced,
    }
    .text()
}

fn framing(body: &RequestBody, set_body: Option<&Bytes>, unbuffered: bool) -> BodyFraming {
    match (set_body, body.length()) {
        (Some(text), _) => BodyFraming::Length(text.len() as u64),
        (None, Length::None) => BodyFraming::None,
        (None, Length::Unknown) if unbuffered => BodyFraming::Chunked,
        (None, _) => body.len().map_or(BodyFraming::Chunked, BodyFraming::Length),
    }
}

/// Whether lines of the configuration pass an upgrade on. For a request with a body that is what it
/// takes, since few servers expect one (`docker exec` is a POST with JSON that asks for `tcp`); the
/// body goes first, as RFC 9110 §7.8 demands.
fn sets_upgrade(set: &[(&[u8], Bytes)]) -> bool {
    let upgrade = set.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case(b"upgrade") && !value.trim_ascii().is_empty()
    });
    let connection = set
        .iter()
        .any(|(name, value)| name.eq_ignore_ascii_case(b"connection") && names_upgrade(value));
    upgrade && connection
}

/// Leaves out the wish to switch protocols, which an intermediary may ignore (RFC 9110 §7.8).
fn take_wish_away(set: &mut [(&[u8], Bytes)]) {
    for (name, value) in set {
        let wish = name.eq_ignore_ascii_case(b"upgrade")
            || (name.eq_ignore_ascii_case(b"connection") && names_upgrade(value));
        if wish {
            *value = Bytes::new();
        }
    }
}

fn names_upgrade(connection: &[u8]) -> bool {
    connection
        .split(|byte| *byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// The protocols of a valid WebSocket request, where no line says what to do with them and
/// `websocket` is on.
fn own_upgrade<'f>(request: &Request, fields: &'f Fields) -> Option<&'f [u8]> {
    let settings = &request.location().proxy;
    if !settings.websocket {
        return None;
    }
    let said = settings.set_headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case(b"upgrade") || name.eq_ignore_ascii_case(b"connection")
    });
    let http11 = request.arrival.version == Version::Http11 && settings.http11;
    let valid = !said && check_request(&request.target.method_name, http11, fields.iter()).is_ok();
    fields.first("upgrade").filter(|_| valid)
}

/// Whether what is sent is a whole WebSocket request (RFC 6455 §4.2.1).
fn is_websocket(head: &UpstreamRequest<'_>, fields: &[OutgoingField<'_>]) -> bool {
    let pairs = fields.iter().map(|(name, value)| (*name, &value[..]));
    check_request(head.method, head.http11, pairs).is_ok()
}

fn offer(fields: &[OutgoingField<'_>]) -> Option<Asked> {
    let pairs = || fields.iter().map(|(name, value)| (*name, &value[..]));
    let keyed = pairs().any(|(name, _)| name.eq_ignore_ascii_case(b"sec-websocket-key"));
    Offer::from_request(pairs()).map(|offer| Asked { offer, keyed })
}
