//! Why we end a conversation, and what its sides are told.

use minicbor::{Decode, Encode};

use super::OwnFrame;
use super::meter::Excess;
use crate::close::CloseError;
use crate::{CloseCode, FrameError, Side};

/// Why we end a conversation in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// An operator wants it gone, and others of its kind; the client is told this code, 1001 or 1012.
    #[n(0)]
    Drain(#[n(0)] CloseCode),
    /// An operator wants this one gone.
    #[n(1)]
    Kill,
    /// Its server has failed its health checks.
    #[n(2)]
    Unhealthy,
    /// No data frame for so long.
    #[n(3)]
    IdleTimeout,
    /// It is as old as it may become.
    #[n(4)]
    MaxLifetime,
    /// This side broke a rule of frames.
    #[n(5)]
    Violation(#[n(0)] Side, #[n(1)] FrameError),
    /// This side sent a Close that nobody may send.
    #[n(6)]
    InvalidClose(#[n(0)] Side, #[n(1)] CloseError),
    /// This side sent text that is not UTF-8.
    #[n(7)]
    InvalidText(#[n(0)] Side),
    /// This side began a frame that is too long.
    #[n(8)]
    FrameTooBig(#[n(0)] Side),
    /// This side began a frame that makes its message too long.
    #[n(9)]
    MessageTooBig(#[n(0)] Side),
    /// This side sent a message in too many pieces.
    #[n(10)]
    TooManyFragments(#[n(0)] Side),
    /// This side sent too many control frames in a second.
    #[n(11)]
    ControlFlood(#[n(0)] Side),
    /// This side sent more in a time than it may.
    #[n(12)]
    Rate(#[n(0)] Side, #[n(1)] Excess),
    /// This side did not take what was sent to it for so long.
    #[n(13)]
    SlowReader(#[n(0)] Side),
    /// What the client may do is over.
    #[n(14)]
    Credentials(#[n(0)] Lapse),
}

/// How what a client may do came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Lapse {
    /// Its time is over.
    #[n(0)]
    Expired,
    /// Who was asked again does not let it in any more.
    #[n(1)]
    Refused,
    /// An operator has taken it back.
    #[n(2)]
    Revoked,
}

impl Cause {
    /// Whose fault it is, if one side's.
    pub fn offender(self) -> Option<Side> {
        match self {
            Self::Drain(_)
            | Self::Kill
            | Self::Unhealthy
            | Self::IdleTimeout
            | Self::MaxLifetime => None,
            Self::Credentials(_) => Some(Side::Client),
            Self::Violation(side, _)
            | Self::InvalidClose(side, _)
            | Self::InvalidText(side)
            | Self::FrameTooBig(side)
            | Self::MessageTooBig(side)
            | Self::TooManyFragments(side)
            | Self::ControlFlood(side)
            | Self::Rate(side, _)
            | Self::SlowReader(side) => Some(side),
        }
    }

    /// The side that may finish what it has to say to the other before that is told, if one may: what was
    /// said to it before may have been good, and deserves its answer. Who does not take anything, or may not
    /// any more, gets none.
    pub(super) fn heard_out(self) -> Option<Side> {
        match self {
            Self::SlowReader(_) | Self::Credentials(_) => None,
            fault => fault.offender().map(Side::other),
        }
    }

    /// The code of the Close that goes to this side. Who has done nothing is told that the other one goes
    /// away (RFC 6455 §7.4.1).
    pub fn code(self, to: Side) -> CloseCode {
        if self.offender().is_some_and(|offender| offender != to) {
            return CloseCode::GOING_AWAY;
        }
        match self {
            // To the server we speak for the client, which restarts nothing.
            Self::Drain(code) if to == Side::Client => code,
            Self::Drain(_)
            | Self::Kill
            | Self::Unhealthy
            | Self::IdleTimeout
            | Self::MaxLifetime => CloseCode::GOING_AWAY,
            Self::Violation(..) => CloseCode::PROTOCOL_ERROR,
            Self::InvalidClose(_, CloseError::Reason) | Self::InvalidText(_) => {
                CloseCode::INVALID_PAYLOAD
            }
            Self::InvalidClose(..) => CloseCode::PROTOCOL_ERROR,
            Self::FrameTooBig(_) | Self::MessageTooBig(_) => CloseCode::MESSAGE_TOO_BIG,
            Self::TooManyFragments(_)
            | Self::ControlFlood(_)
            | Self::Rate(..)
            | Self::SlowReader(_)
            | Self::Credentials(_) => CloseCode::POLICY_VIOLATION,
        }
    }

    /// The Close that goes to this side.
    pub(super) fn close(self, to: Side) -> OwnFrame {
        OwnFrame::Close(self.code(to), Some(self))
    }

    /// The reason that stands in the Close.
    pub fn reason(self) -> &'static str {
        match self {
            // What clients have seen since drains exist.
            Self::Drain(_) | Self::Kill => "",
            Self::Unhealthy => "server unavailable",
            Self::IdleTimeout => "idle timeout",
            Self::MaxLifetime => "maximum lifetime reached",
            Self::Violation(..) => "protocol error",
            Self::InvalidClose(..) => "invalid close frame",
            Self::InvalidText(_) => "invalid UTF-8 in text message",
            Self::FrameTooBig(_) => "frame too big",
            Self::MessageTooBig(_) => "message too big",
            Self::TooManyFragments(_) => "too many fragments",
            Self::ControlFlood(_) => "too many control frames",
            Self::Rate(_, Excess::Messages) => "message rate exceeded",
            Self::Rate(_, Excess::Bytes) => "byte rate exceeded",
            Self::SlowReader(_) => "slow reader",
            Self::Credentials(Lapse::Expired) => "credentials expired",
            Self::Credentials(Lapse::Refused) => "no longer authorized",
            Self::Credentials(Lapse::Revoked) => "credentials revoked",
        }
    }
}
