//! A request, its body, and the way to answer it: what content handlers get and give back.

pub(crate) mod access_log;
pub mod body;
pub(crate) mod credentials;
pub(crate) mod delivery;
pub mod ending;
pub(crate) mod escape;
pub(crate) mod filter;
pub(crate) mod forwarded;
pub(crate) mod headers;
pub mod identity;
pub mod outlet;
pub(crate) mod own_uri;
pub(crate) mod path;
pub mod refusal;
pub mod request;
pub mod response;
pub mod secrets;
pub(crate) mod subprotocols;
pub mod subrequests;
pub(crate) mod token;
pub(crate) mod trace;
pub(crate) mod variables;
pub mod websocket;
pub(crate) mod zone_key;

use tokio::task::JoinSet;

pub use body::{BodyError, BodySource, BufferedBody, RequestBody};
pub use outlet::{Gone, Outlet, Presence};
pub use refusal::{Blame, Refusal};
pub use request::{ConnectionInfo, Request, UpstreamState};
pub use response::{NGINX_VERSION, Reply, Responder, Seeking};

/// One request in work.
pub struct Exchange {
    /// The request.
    pub request: Request,
    /// Its body, still on the connection.
    pub body: RequestBody,
    /// The way back to the client.
    pub response: Responder,
    /// Subrequests whose answers nobody waits for; the connection waits for their end.
    pub(crate) background: Option<JoinSet<()>>,
}
