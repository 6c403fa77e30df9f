//! A new program in the place of the one that runs, without a moment in which nobody accepts.
//!
//! The old process starts the new one as its child, as nginx does (`docs/operating.md`). The child gets the listening
//! sockets, and one end of a private channel; until it says that it serves, the old process goes on as if nothing were.
//!
//! ```text
//! old                                new
//!  │ ── hello ────────────────────▶   │  reads and checks its configuration
//!  │ ◀──────────────────── hello ──   │
//!  │ ◀────────── checked | refused ─  │  starts its workers
//!  │ ◀──────────────────── ready ──   │  both accept
//!  │ ── committed ────────────────▶   │  only the new one accepts
//!  │ ══ tunnels ══════════════════▶   │  and goes on with those that it takes
//! ```
//!
//! Tunnels go over a channel of their own ([`wssgate_proxy::moving`]). Until the old process has ended it can take accepting over again (`resumed`); it does so by itself when the new one
//! ends. A new program that never says anything is one of somebody else, such as nginx, and is waited for no longer than
//! operators do.

mod message;
mod predecessor;
mod program;
mod successor;

pub(crate) use message::{Hello, Message};
pub(crate) use predecessor::{News, Predecessor};
pub(crate) use program::Program;
pub(crate) use successor::{Event, Successor};
