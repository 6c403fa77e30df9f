//! The engine: listeners, TLS, HTTP front and upstreams.
//!
//! [`Proxy`] is the whole of it, seen from the main thread: prepare, start, reload, drain, stop.
//! Nothing is bound, opened or spawned until a configuration is complete.

pub mod acme;
pub mod admin;
pub mod auth;
pub mod clock;
pub mod content;
mod dashboard;
pub mod exchange;
pub mod front;
pub mod generation;
pub mod limit;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod moving;
pub mod peers;
mod portable;
pub mod resolve;
pub mod site;
pub mod tls;
pub mod tunnel;
pub mod worker;

mod proxy;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

pub use front::connection::{last_serial, set_first_serial};
pub use generation::fitting_connections;
pub use proxy::{Prepared, Proxy};

/// What a future has to give without being waited for, if anything.
pub(crate) async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A system error in nginx's form: `98: Address already in use`.
pub fn errno_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("{errno}: {}", wssgate_sys::process::error_text(errno)),
        None => error.to_string(),
    }
}
