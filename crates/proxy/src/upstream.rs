//! Upstreams: which peer, the connection to it, the request to it and its answer.

pub mod balance;
mod crc32;
pub mod group;

pub use balance::Selection;
pub use group::{Group, Lease, Peer};
