//! The DNS servers that a `resolver` line names.

use std::net::SocketAddr;
use std::time::Duration;

/// Index into [`Http::resolvers`](crate::model::Http::resolvers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResolverId(pub usize);

/// What `resolver` says. Those that say the same are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// The DNS servers; never none.
    pub servers: Vec<SocketAddr>,
    /// `valid=`: how long answers are used, whatever they say.
    pub valid: Option<Duration>,
    /// `ipv4=`: whether A records are asked for.
    pub ipv4: bool,
    /// `ipv6=`: whether AAAA records are asked for.
    pub ipv6: bool,
}
