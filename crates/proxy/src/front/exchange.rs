//! A request, its body, and the way to answer it: what content handlers get and give back.

use bytes::Bytes;

use crate::front::body::RequestBody;
use crate::front::request::Request;
use crate::front::response::Responder;
use crate::tunnel::Switch;

/// One request in work.
pub struct Exchange {
    /// The request.
    pub request: Request,
    /// Its body, still on the connection.
    pub body: RequestBody,
    /// The way back to the client.
    pub response: Responder,
}

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
