//! The engine: listeners, TLS, HTTP front, upstreams and the relay.

pub mod clock;
pub mod connection;
pub mod front;
pub mod generation;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod relay;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod worker;
