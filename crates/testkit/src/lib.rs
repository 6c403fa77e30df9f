//! What tests of the whole program need: both ends of every wire, and the program between them.
//!
//! [`client`] and [`upstream`] are scripts that speak through a [`Conn`], one blocking socket with
//! frames, heads and raw bytes; with a [`Listener`] the test speaks for the upstream itself. [`Dns`]
//! answers questions about names.
//! [`pki`] makes certificates, [`instance`] starts the program on a configuration in a directory
//! of its own, on addresses ([`net`]) that no other test process uses, [`beside`] nginx too, and
//! [`haproxy`] another proxy, [`program`] servers and clients in other languages.
//! `sandbox` takes rights away.
//!
//! These are tools for tests: what does not come within [`GUARD`] panics with its name. Where a
//! failure is what the test wants to see, there is a `try_` form.

use std::time::Duration;

pub mod beside;
pub mod client;
pub mod conn;
pub mod dns;
pub mod documents;
pub mod frame;
pub mod haproxy;
pub mod http;
pub mod instance;
pub mod listener;
pub mod named;
pub mod net;
pub mod pebble;
pub mod pki;
pub mod program;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod upstream;

pub use beside::{NGINX, skipped, with_nginx};
pub use client::Handshake;
pub use conn::{Conn, End};
pub use dns::{Dns, Says};
pub use frame::{Frame, binary, close, continuation, ping, pong, text};
pub use haproxy::Haproxy;
pub use http::{Head, Request, Response};
pub use instance::{Instance, wait_until, wait_within};
pub use listener::Listener;
pub use named::Named;
pub use net::{Addr, free_addr};
pub use pebble::Pebble;
pub use pki::Pki;
pub use upstream::{Gate, Upstream};

/// How long any wait may take before the test fails. Long, so that a busy machine fails no test.
pub const GUARD: Duration = Duration::from_secs(20);
