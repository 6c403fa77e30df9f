//! What every protocol does with a request that has arrived: its head and path are taken in, its
//! virtual server is found, and what nginx refuses before any phase is refused.

use std::rc::Rc;

use bytes::Bytes;
use wssgate_config::model::{AddressRoute, ServerId, VerifyClient};
use wssgate_http1::{Method, RequestHead};

use crate::exchange::{ConnectionInfo, Refusal, Request};
use crate::front::{phases, route};

/// The server that the name of the TLS handshake asks for.
pub(crate) fn sni_server(connection: &ConnectionInfo, route: &AddressRoute) -> Option<ServerId> {
    let name = connection.tls.as_ref()?.server_name.as_ref()?;
    route.names.find(name.as_bytes()).map(|(server, _)| *server)
}

/// Takes a head into its request; `misses_tls` says that it came in plain to a TLS port.
///
/// # Errors
/// When the request is not to be worked on.
pub(crate) fn take_in(
    request: &mut Request,
    head: RequestHead,
    route: &AddressRoute,
    misses_tls: bool,
) -> Result<(), Refusal> {
    let uri = match head.uri(request.server().connection.merge_slashes) {
        Ok(uri) => uri,
        Err(invalid) => {
            adopt_line(request, head);
            return Err(Refusal::Target(invalid));
        }
    };
    adopt(request, head);
    request.target.path = uri.path;
    *request.target.args.borrow_mut() = uri.args.unwrap_or_default();
    request.target.quoted = uri.quoted || uri.plus;
    choose_server(request, route)?;
    accept(request, misses_tls)
}

/// Takes what the head says into the request.
fn adopt(request: &mut Request, head: RequestHead) {
    request.target.method = head.method();
    request.target.method_name = Bytes::copy_from_slice(head.method_name());
    request.arrival.version = head.version();
    let uri = head.request_uri();
    // `http://host` and `http://host?a` have no path to send on as it came.
    let has_path = uri.first() == Some(&b'/') && head.target().ends_with(&uri);
    request.target.as_sent.set(has_path);
    request.arrival.uri = Some(uri);
    if let Some(host) = head.host() {
        request.arrival.host = Bytes::copy_from_slice(host.name());
        request.arrival.port = host.port();
    }
    request.arrival.head_len = head.raw_len() as u64;
    request.arrival.head = Some(head);
}

/// Takes what is to be known of a request whose target is none: nginx reads no further, and the log tells of what was
/// read.
fn adopt_line(request: &mut Request, head: RequestHead) {
    adopt(request, head.into_line());
    request.arrival.uri = None;
    request.target.as_sent.set(false);
}

/// Finds the virtual server by Host.
fn choose_server(request: &mut Request, route: &AddressRoute) -> Result<(), Refusal> {
    let host = request.arrival.host.clone();
    let connection = Rc::clone(&request.connection);
    let sni = connection.tls.as_ref().and_then(|tls| tls.server_name.as_ref());
    let sni_server = sni_server(&connection, route);
    let same_name = sni.is_some_and(|name| name.as_bytes() == &host[..]);
    let found = route::server_for(request, &route.names, &host);
    if sni_server.is_some() && !same_name {
        let server = found.unwrap_or(route.default_server);
        // The handshake has asked for a certificate as another server wants it. Going on would
        // let clients without one reach a server that demands it (RFC 9110 §15.5.20).
        if request.http().servers[server.0].tls.verify_client != VerifyClient::Off {
            return Err(Refusal::OtherServerName);
        }
        phases::enter_server(request, server);
    } else if let Some(server) = found {
        phases::enter_server(request, server);
    }
    Ok(())
}

/// Refuses what nginx refuses before any phase.
fn accept(request: &Request, misses_tls: bool) -> Result<(), Refusal> {
    match request.target.method {
        Method::Connect => return Err(Refusal::Method("CONNECT")),
        Method::Trace => return Err(Refusal::Method("TRACE")),
        _ => {}
    }
    if misses_tls {
        return Err(Refusal::PlainHttp);
    }
    let tls = request.connection.tls.as_ref();
    let refusal = tls.and_then(|tls| tls.refusal(request.server().tls.verify_client));
    refusal.map_or(Ok(()), |refusal| Err(Refusal::Certificate(refusal)))
}

/// Takes what was understood of a head that is refused or did not come to its end: the log tells of
/// it, and its Host chooses the server whose error pages and logs apply, as in nginx.
pub(crate) fn take_in_part(request: &mut Request, head: RequestHead, route: &AddressRoute) {
    let Ok(uri) = head.uri(request.server().connection.merge_slashes) else {
        return adopt_line(request, head);
    };
    adopt(request, head);
    request.target.path = uri.path;
    *request.target.args.borrow_mut() = uri.args.unwrap_or_default();
    // A server that it must not reach does not matter: it is refused anyway.
    let _ = choose_server(request, route);
}
