//! One worker: its front runtime and its relay thread.
//!
//! A worker is one thread with a single-threaded runtime. What its requests share is a
//! [`Site`](crate::site::Site), what its tunnels share a table of them; both by `Rc`, so nothing is
//! locked. The main thread speaks to it through two watched values: the listening sockets and the
//! [`Phase`](crate::site::Phase).

mod accept;
mod errands;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod reserve;
mod thread;

pub(crate) use errands::{Errand, Errands};
pub(crate) use thread::{WorkerContext, WorkerThread};
