//! Who counts what is sent, and slows or ends it.

use std::fmt::Debug;

use minicbor::{Decode, Encode};

/// What one charge is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Complete text and binary messages.
    pub messages: u64,
    /// All bytes, headers included.
    pub bytes: u64,
}

/// What follows from a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toll {
    /// Nothing.
    Free,
    /// Nothing more may come before this moment, in milliseconds.
    Wait {
        /// On the clock of [`Meter::charge`].
        until_ms: u64,
    },
    /// It was too much, and ends the conversation.
    TooMuch(Excess),
}

/// Of what there was too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Excess {
    /// Messages.
    #[n(0)]
    Messages,
    /// Bytes.
    #[n(1)]
    Bytes,
}

/// Counts what one side of one or many conversations sends. Many threads may charge the same one.
pub trait Meter: Debug + Send + Sync {
    /// Counts what came at `now_ms`; all who share a meter have the same clock.
    fn charge(&self, charge: Charge, now_ms: u64) -> Toll;
}
