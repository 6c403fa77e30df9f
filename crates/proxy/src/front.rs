//! The HTTP front: requests come in, each finds its location and its answer.

pub mod body;
pub mod client;
pub mod exchange;
pub mod request;
pub mod response;

mod access;
pub(crate) mod access_log;
mod conditional;
mod date;
mod files;
pub(crate) mod h1;
mod headers;
mod pages;
mod path;
mod phases;
mod rewrite;
pub(crate) mod route;
mod status;
mod try_files;
pub(crate) mod variables;

pub use body::{BodyError, BufferedBody, RequestBody};
pub use client::Gone;
pub use exchange::{Exchange, Outcome};
pub use request::{ConnectionInfo, Request, UpstreamState};
pub use response::{NGINX_VERSION, Reply, Responder};
