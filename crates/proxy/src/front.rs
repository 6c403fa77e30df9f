//! The HTTP front: requests come in, each finds its location and its answer.

#[allow(dead_code)]
pub mod body;
#[allow(dead_code)]
pub mod client;
pub mod exchange;
#[allow(dead_code)]
pub mod request;
#[allow(dead_code)]
pub mod response;

#[allow(dead_code)]
mod date;
mod headers;
mod path;
#[allow(dead_code)]
mod variables;

pub use body::{BodyError, BufferedBody, RequestBody};
pub use client::Gone;
pub use exchange::{Exchange, Outcome};
pub use request::{ConnectionInfo, Request, UpstreamState};
pub use response::{NGINX_VERSION, Reply, Responder};
