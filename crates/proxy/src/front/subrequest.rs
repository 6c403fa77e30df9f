//! Requests that we make of our own configuration on the way to an answer.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use wssgate_http1::{Fields, Method};

use crate::exchange::body::NoBody;
use crate::exchange::outlet::{Framing, Gone, Outlet};
use crate::exchange::request::{Origin, Parent};
use crate::exchange::{
    Exchange, Presence, Reply, Request, RequestBody, Responder, access_log, response,
};
use crate::front::phases::{self, Finish};

/// Has `path` answered as a plain GET with the fields of `parent` and without its body, and gives
/// back what is known then: status, fields, the trace of the upstream. Nothing of a body is read.
/// `client` is the one of the parent: whoever answers may watch it, as its location says.
///
/// The values that variables were given are the same on both sides, as in nginx. No access rules
/// are asked: the parent has passed them, or is about to.
///
/// # Errors
/// When nothing was answered and the connection is to be closed: the status for the log, which is
/// 408, 444 or 499.
pub(crate) async fn get(
    parent: &Request,
    client: Rc<dyn Presence>,
    path: Bytes,
) -> Result<Request, u16> {
    let mut request = Request::new(
        Arc::clone(&parent.generation),
        Rc::clone(&parent.site),
        Rc::clone(&parent.connection),
        parent.route.server,
        parent.arrival.clone(),
    );
    // Those bytes came with the parent.
    request.arrival.head_len = 0;
    request.client = parent.client;
    request.traffic = Rc::clone(&parent.traffic);
    request.target.method = Method::Get;
    request.target.method_name = Bytes::from_static(b"GET");
    request.target.path = path;
    // The path is ours, so the target as the client sent it must not go to an upstream.
    request.target.as_sent.set(false);
    let method_name = parent.target.method_name.clone();
    request.route.origin = Origin::Subrequest(Parent { method_name });
    request.values.cells = Rc::clone(&parent.values.cells);
    let mut body = RequestBody::new(NoBody);
    body.bound(&request.location().settings);
    let mut exchange = Exchange { request, body, response: Responder::new(HeadOnly, client) };
    // Boxed, for the phases of a request contain this.
    let finish = Box::pin(phases::answer(&mut exchange)).await;
    if exchange.request.location().settings.log_subrequest {
        access_log::write(&exchange.request);
    }
    let Exchange { request, .. } = exchange;
    match finish {
        Finish::Close if !request.response.head_sent => Err(request.response.status),
        _ => Ok(request),
    }
}

/// Keeps the head of an answer in its request and wants no body.
struct HeadOnly;

impl Outlet for HeadOnly {
    fn head(&mut self, request: &mut Request, reply: Reply) -> Framing {
        let mut fields = response::leading_fields(&reply);
        fields.extend(reply.fields);
        request.response.fields = fields;
        Framing::Empty
    }

    fn body(&mut self, _: Bytes) {}

    fn end(&mut self, _: &Fields) {}

    fn is_full(&self) -> bool {
        false
    }

    fn is_written(&self) -> bool {
        true
    }

    fn poll_write(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn on_timeout(&mut self) {}
}
