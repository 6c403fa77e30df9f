//! Records at work as plain data, for another process to go on with.

use minicbor::{Decode, Encode};
use thiserror::Error;

use super::{Direction, Records, tx_limit};
use crate::post_handshake::PostHandshake;
use crate::{Aead, DirectionKeys, Role, Started, TlsVersion};

/// All that is needed to go on exactly where [`Records`] are, but for the limit of their keys, which is a setting.
///
/// The numbers of its fields, and those in its parts, are a format that other releases read: a number is never used
/// again for something else. Unknown fields are skipped; an unknown version or AEAD is an error.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct RecordsState {
    /// The version.
    #[n(0)]
    pub version: TlsVersion,
    /// The AEAD.
    #[n(1)]
    pub aead: Aead,
    /// Who the other end is to us.
    #[n(2)]
    pub peer: Role,
    /// For what we send.
    #[n(3)]
    pub tx: DirectionKeys,
    /// For what we receive.
    #[n(4)]
    pub rx: DirectionKeys,
    /// How many blocks the sending key has sealed, about.
    #[n(5)]
    pub tx_blocks: u64,
    /// The handshake message of the peer whose first part has come.
    #[n(6)]
    #[cbor(default)]
    pub started: Started,
    /// The peer has asked to negotiate again, which it may do once in TLS 1.2.
    #[n(7)]
    #[cbor(default)]
    pub renegotiated: bool,
    /// The peer has asked for a KeyUpdate that it was not sent.
    #[n(8)]
    #[cbor(default)]
    pub update_requested: bool,
    /// Our direction has ended with an alert.
    #[n(9)]
    #[cbor(default)]
    pub closed: bool,
    /// In how many milliseconds records without data will have been made up for.
    #[n(10)]
    #[cbor(default)]
    pub idle_ms: u64,
}

/// A state in which nothing can have been: it was changed on its way, or made by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("inconsistent state")]
pub struct Unsound;

/// The last numbers are for alerts and a KeyUpdate, and never used up by data.
const MAX_SEQUENCE: u64 = u64::MAX - 4;

impl Records {
    /// What is needed to go on from here; `now_ms` as for [`Self::open`].
    pub fn state(&self, now_ms: u64) -> RecordsState {
        RecordsState {
            version: self.version,
            aead: self.aead,
            peer: self.messages.peer(),
            tx: self.tx.keys.clone(),
            rx: self.rx.keys.clone(),
            tx_blocks: self.tx_blocks,
            started: self.messages.started_well(),
            renegotiated: self.messages.renegotiated(),
            update_requested: self.update_requested,
            closed: self.closed,
            idle_ms: self.idle_until_ms.saturating_sub(now_ms),
        }
    }

    /// Goes on where others were, by a clock that may be another one.
    pub fn restore(state: &RecordsState, record_limit: u64, now_ms: u64) -> Result<Self, Unsound> {
        let &RecordsState { version, aead, peer, ref tx, ref rx, ref started, .. } = state;
        if tx.sequence > MAX_SEQUENCE || rx.sequence > MAX_SEQUENCE {
            return Err(Unsound);
        }
        let messages = PostHandshake::restore(version, peer, started.clone(), state.renegotiated)
            .ok_or(Unsound)?;
        Ok(Self {
            version,
            aead,
            tx: Direction { keys: tx.clone(), cipher: None },
            rx: Direction { keys: rx.clone(), cipher: None },
            tx_limit: tx_limit(aead, record_limit),
            tx_blocks: state.tx_blocks,
            messages,
            update_requested: state.update_requested,
            closed: state.closed,
            idle_until_ms: now_ms.saturating_add(state.idle_ms),
        })
    }
}
