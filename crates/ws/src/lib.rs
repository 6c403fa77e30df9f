//! WebSocket without I/O or clock: RFC 6455, as a proxy needs it.
//!
//! A proxy has three questions. Is this exchange of heads really a switch to WebSocket
//! ([`handshake`])? Where do frames end in the bytes that pass by ([`tracker`], on top of
//! [`frame`])? What becomes of the bytes of both sides, how far has their closing handshake come, and
//! where may a frame of our own stand ([`conversation`])? Everything here is a function of bytes and
//! time that others supply: no socket, no timer, no random numbers.

pub mod cbor;
pub mod close;
pub mod conversation;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod tracker;
mod utf8;

pub use close::CloseCode;
pub use conversation::{Conversation, ConversationState, OwnFrame, Unsound, Verdict};
pub use frame::{ControlFrame, FrameError, FrameHeader, Opcode};
pub use handshake::{Extensions, Oddity, Offer, RequestError, SwitchError, Switched, accept_key};
pub use tracker::{Counts, Progress, Tracker, UnderWay};

use minicbor::{Decode, Encode};

/// The two ends of a WebSocket (RFC 6455 §1.2).
///
/// A proxy stands between them: towards the client it is the server, towards the upstream it is
/// the client. What a proxy sends on therefore keeps the side it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Side {
    /// The end that sent the upgrade request; it masks its frames.
    #[n(0)]
    Client,
    /// The end that answered 101; it must not mask.
    #[n(1)]
    Server,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}
