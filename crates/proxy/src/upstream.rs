//! Upstreams: which peer, the connection to it, the request to it and its answer.

pub mod balance;
#[allow(dead_code)]
mod connect;
#[allow(dead_code)]
mod cookie;
mod crc32;
pub mod group;
#[allow(dead_code)]
pub mod idle;
#[allow(dead_code)]
mod request;
#[allow(dead_code)]
mod response;

pub use balance::Selection;
pub use group::{Group, Lease, Peer, groups};
pub use idle::IdlePool;
