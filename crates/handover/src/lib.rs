//! Tunnels pass from an old process to the one that replaces it: the sockets of each, and a record of what else is known
//! of it, which here is just bytes.
//!
//! The old process has a [`Giver`] and the new one a [`Taker`], at the two ends of a channel of
//! [`wssgate_sys::rights::stream_channel`]. Tunnels travel in batches. The taker looks at a batch and answers, and **the
//! answer decides**: a tunnel is the taker's if the answer that takes it was written as a whole, and otherwise it has
//! stayed the giver's. So nobody serves a tunnel between `send` and the answer.
//!
//! ```text
//! giver   batch 0, batch 1, batch 2, …                          end
//! taker                     answer 0: taken, refused, taken …
//! ```
//!
//! A tunnel is in one hand also when something fails. A giver that gives up waiting hangs up first and then reads what is
//! there. In the kernel, a write and that hanging up take the same lock: either the answer was there before, then the
//! giver finds it, or the taker's write fails, then it does not serve. An answer that was cut off in the middle is none,
//! which the taker sees from the count that its write returns. What remains is a taker that breaks this contract and
//! answers nonsense: the giver does not know then, and must serve none of the batches that were undecided
//! ([`Outcome::Unknown`]), for a tunnel that ends is better than one that two processes write to.
//!
//! Where the two processes do not live at the same time, a service manager keeps the tunnels between them: a [`Deposit`],
//! and what becomes of it, a [`Withdrawal`].
//!
//! Records hold traffic secrets. The giver copies them nowhere but into the channel; the taker wipes its buffers.

mod deposit;
mod giver;
mod taker;
#[cfg(test)]
mod tests;
mod wire;

pub use deposit::{
    Announced, DEPOSIT_VERSION, Deposit, Depositing, Portion, WithdrawError, Withdrawal, Withdrawn,
};
pub use giver::{GiveError, Given, Giver, MAX_OUTSTANDING, Outcome, Parcel};
pub use taker::{AnswerError, Arrival, Batch, Item, TakeError, Taker};
pub use wire::{MAX_TEXT, Refusal, TOO_MANY_OPEN_FILES, VERSION, Verdict};

/// The most tunnels of a batch: two sockets each, in one message of the kernel's 253.
pub const MAX_BATCH: usize = 126;

/// The longest record, in bytes. The typical one has 700, and one of a tunnel that holds back bytes for a slow side some
/// hundred thousand.
pub const MAX_RECORD: usize = 1 << 20;

/// The most bytes that the records of a batch have together.
pub const MAX_BATCH_BYTES: usize = 2 << 20;

/// The longest note, in bytes.
pub const MAX_NOTE: usize = 1 << 20;

/// When a wait ends.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<std::time::Instant>);

impl Deadline {
    fn after(wait: std::time::Duration) -> Self {
        Self(std::time::Instant::now().checked_add(wait))
    }

    /// What is left of it; `None` is for ever.
    fn left(self) -> Option<std::time::Duration> {
        self.0.map(|end| end.saturating_duration_since(std::time::Instant::now()))
    }
}
