//! Who answers a request: an upstream, a file, a status page, an answer of the configuration's own.

pub(crate) mod conditional;
pub(crate) mod dashboard;
pub(crate) mod files;
mod index;
mod listing;
pub(crate) mod pages;
pub mod prometheus;
pub mod proxy;
pub(crate) mod status;

use bytes::Bytes;
use wssgate_http1::Method;

use crate::exchange::filter::ranges::Unsatisfiable;
use crate::exchange::{Exchange, Reply, Request};
use crate::tunnel::Switch;
use conditional::Verdict;

/// How a content handler ended.
pub enum Outcome {
    /// This status is to be answered: `error_page` applies, else a built-in page. 444 and 499
    /// close the connection without an answer.
    Status(u16),
    /// The answer was sent and finished.
    Done,
    /// Go on with this path and these arguments (index, X-Accel-Redirect).
    InternalRedirect {
        /// The normalised path.
        path: Bytes,
        /// The arguments.
        args: Bytes,
    },
    /// Go on in a `@named` location.
    NamedLocation(Bytes),
    /// The upstream switched protocols: the connection becomes a tunnel.
    Upgrade(Box<Switch>),
    /// The connection is to be closed: the answer broke off, or the client has gone.
    Close,
}

/// Whether a method may be answered with a file.
pub(crate) fn reads_files(method: Method) -> bool {
    matches!(method, Method::Get | Method::Head | Method::Post)
}

/// Answers 416. The client learns the length that it did not know (RFC 9110 §15.5.17).
pub(crate) fn unsatisfiable(request: &mut Request, refused: Unsatisfiable) -> Outcome {
    let range = Bytes::from(format!("bytes */{}", refused.len));
    request.response.special_fields.push((Bytes::from_static(b"Content-Range"), range));
    Outcome::Status(416)
}

/// An answer of one piece to which the request's conditions apply.
pub(crate) async fn send_conditional(
    exchange: &mut Exchange,
    mut reply: Reply,
    body: Bytes,
) -> Outcome {
    match conditional::judge(&exchange.request, &reply) {
        Verdict::Failed => return Outcome::Status(412),
        Verdict::NotModified => conditional::make_not_modified(&mut reply),
        Verdict::Send => {}
    }
    send(exchange, reply, body).await
}

/// An answer of one piece.
pub(crate) async fn send(exchange: &mut Exchange, reply: Reply, body: Bytes) -> Outcome {
    if let Err(refused) = exchange.response.head(&mut exchange.request, reply) {
        return unsatisfiable(&mut exchange.request, refused);
    }
    if exchange.response.body(&exchange.request, body).await.is_err() {
        return Outcome::Close;
    }
    match exchange.response.finish(&mut exchange.request, None).await {
        Ok(()) => Outcome::Done,
        Err(_) => Outcome::Close,
    }
}
