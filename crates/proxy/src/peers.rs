//! The peers of upstream groups: which one is next, the connection to it, what is known of its health.
//!
//! Nothing here knows HTTP.

mod balance;
mod checked;
mod connect;
mod crc32;
pub mod group;
mod health;
mod hosts;
pub mod idle;
mod lease;
mod moved;
mod names;
mod overrides;
mod pace;
mod peer;
pub(crate) mod ports;
mod queue;
mod shortage;
mod stamp;
pub mod sticky;
mod weights;

pub(crate) use checked::{Standing, Turn};
pub(crate) use connect::{ConnectOptions, Connection, Failure, PeerStream, READ_SIZE, connect};
pub use group::{Group, Keepalive, Selection, groups};
pub(crate) use health::MOMENT;
pub use hosts::Hosts;
pub use idle::IdlePool;
pub(crate) use idle::Key;
pub use lease::Lease;
pub(crate) use moved::{Berth, LeaseState};
pub(crate) use names::follow;
pub(crate) use overrides::{Change, Override, Usage};
pub use peer::Peer;
pub use shortage::Shortages;
pub(crate) use shortage::{Call, Resource};
