//! The relay thread: owns every established HTTP/1.1 tunnel.
//!
//! After the switch there is nothing left to decide, only bytes to carry. So a tunnel leaves the front
//! and becomes a plain struct of a thread that has an epoll loop of its own. The front gives it away
//! with [`RelayHandle::hand_over`] and hears of its end once, through the function given to [`start`].
//!
//! ```text
//! client leg ──recv──▶ open records ──▶ count frames ──▶ seal records ──send──▶ upstream leg   (up)
//!            ◀─send─── seal records ◀── count frames ◀── open records ◀──recv──                (down)
//! ```
//!
//! What must stay true: buffers belong to the thread and not to the tunnel; what a peer does not take
//! at once is kept by its leg, and nothing more is read for it until that is gone; one thread touches a
//! tunnel, ever; bytes of a peer end at most its own tunnel.

mod buffers;
mod deadlines;
mod engine;
mod flow;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod leg;
mod model;
mod protection;
pub mod spare;
#[cfg(test)]
mod tests;
mod thread;
mod tunnel;

pub use model::{
    EndCause, Handover, Leg, LegTls, Protocol, READ_SIZE, Selection, Settings, Side, Timers,
    Totals, TunnelEnd,
};
pub use thread::{Counters, Relay, RelayHandle, Stopped, start, try_io_uring};
pub use wssgate_records::TlsFault;
