//! The engine: listeners, TLS, HTTP front and upstreams.
//!
//! [`Proxy`] is the whole of it, seen from the main thread: prepare, start, reload, drain, stop.
//! Nothing is bound, opened or spawned until a configuration is complete.

pub mod auth;
pub mod clock;
pub mod content;
pub mod exchange;
pub mod front;
pub mod generation;
pub mod limit;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod peers;
pub mod resolve;
pub mod site;
pub mod tls;
pub mod tunnel;
pub mod worker;

mod proxy;

use std::io;

pub use proxy::{Prepared, Proxy};

/// A system error in nginx's form: `98: Address already in use`.
pub fn errno_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("{errno}: {}", wssgate_sys::process::error_text(errno)),
        None => error.to_string(),
    }
}
