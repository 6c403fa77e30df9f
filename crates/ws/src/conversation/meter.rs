//! Who counts what is sent, and slows or ends it.

use std::fmt::Debug;

use minicbor::{Decode, Encode};

use crate::cbor::is_default;

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

/// A leaky bucket of one conversation as plain data, with its rule, for another process to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BucketState {
    /// What is counted.
    #[n(0)]
    pub measure: Excess,
    /// Thousandths per second.
    #[n(1)]
    pub rate: u64,
    /// How many thousandths too many may be there at once.
    #[cbor(n(2), skip_if = "is_default")]
    pub burst: u64,
    /// Whether more is too much, instead of having to wait.
    #[cbor(n(3), skip_if = "is_default")]
    pub close: bool,
    /// How much was in it when it was charged last, in thousandths.
    #[cbor(n(4), skip_if = "is_default")]
    pub excess: u64,
    /// How long ago that was, in milliseconds.
    #[cbor(n(5), skip_if = "is_default")]
    pub charged_ms_ago: u64,
    /// How much may come before anything counts, in thousandths.
    #[cbor(n(6), skip_if = "is_default")]
    pub free: u64,
}

/// Counts what one side of one or many conversations sends. Many threads may charge the same one.
pub trait Meter: Debug + Send + Sync {
    /// Counts what came at `now_ms`; all who share a meter have the same clock.
    fn charge(&self, charge: Charge, now_ms: u64) -> Toll;

    /// The bucket as plain data, if it is that of this conversation alone; one of many conversations is not the
    /// conversation's to take along.
    fn bucket(&self, _now_ms: u64) -> Option<BucketState> {
        None
    }
}
