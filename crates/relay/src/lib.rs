//! Tunnels and their thread, which owns every established HTTP/1.1 tunnel.
//!
//! After the switch no request is left, only bytes to move. So a tunnel leaves the front and becomes a
//! plain struct of a thread that has an epoll loop of its own. The front gives it away with
//! [`RelayHandle::hand_over`] and is told its end once, through the function given to [`start`].
//!
//! ```text
//! client leg ──recv──▶ open records ──▶ conversation ──▶ seal records ──send──▶ upstream leg   (up)
//!            ◀─send─── seal records ◀── conversation ◀── open records ◀──recv──                (down)
//! ```
//!
//! [`Handover`] and [`TunnelEnd`] are plain data. The engine is given the time; only the thread around it
//! reads a clock. What is said in a WebSocket is the conversation's to judge ([`wssgate_ws::Conversation`]).
//!
//! What must stay true: buffers belong to the thread and not to the tunnel; what a peer does not take
//! at once is kept by its leg, and nothing more is read for it until that is gone; one thread touches a
//! tunnel, ever; bytes of a peer end at most its own tunnel.

mod buffers;
mod chance;
mod counters;
mod deadlines;
mod drain;
mod engine;
mod flow;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod leg;
mod lingering;
pub mod listing;
mod model;
pub mod moving;
mod protection;
pub mod reclaim;
mod secret;
pub mod tap;
#[cfg(test)]
mod tests;
mod thread;
mod tunnel;

pub use counters::{Counters, SideCounters};
pub use drain::{Drain, DrainCounts, DrainProgress, Order, Pace, Paces, Whom, Why};
pub use model::{
    EndCause, Handover, Leg, LegTls, Origin, Progress, Protocol, READ_SIZE, Report, Selection,
    Settings, Side, Timers, Totals, TunnelEnd,
};
pub use thread::{Relay, RelayHandle, Stopped, clock_ms, start, try_io_uring};
pub use wssgate_records::TlsFault;
