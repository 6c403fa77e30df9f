//! How far the closing handshake of a tunnel has come (RFC 6455 §7.1).
//!
//! Both sides send one Close each, in either order; then the server closes the connection. Whoever
//! sent its Close and gets no answer would wait for ever, so the wait has a deadline.

use std::time::{Duration, Instant};

use crate::Side;

/// `Open` ──Close──▶ `Half` ──Close from the other side, or the deadline──▶ `Done`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closing {
    /// Nobody has sent a Close.
    #[default]
    Open,
    /// One side has sent its Close and waits for the other's until the deadline.
    Half {
        /// Who sent it.
        by: Side,
        /// When the wait ends.
        deadline: Instant,
    },
    /// The handshake is complete, or was given up.
    Done,
}

impl Closing {
    /// A Close frame of `from` was sent on; the other side has `grace` to answer it.
    ///
    /// A Close that a proxy injects counts as one from the side in whose name it speaks.
    #[must_use]
    pub fn on_close(self, from: Side, now: Instant, grace: Duration) -> Self {
        match self {
            Self::Open => Self::Half { by: from, deadline: now + grace },
            Self::Half { by, .. } if by != from => Self::Done,
            // A second Close from the same side says nothing new.
            Self::Half { .. } | Self::Done => self,
        }
    }

    /// Time passes; a wait that is over ends the handshake.
    #[must_use]
    pub fn on_time(self, now: Instant) -> Self {
        match self {
            Self::Half { deadline, .. } if now >= deadline => Self::Done,
            Self::Open | Self::Half { .. } | Self::Done => self,
        }
    }

    /// When [`Closing::on_time`] next has something to say.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Half { deadline, .. } => Some(*deadline),
            Self::Open | Self::Done => None,
        }
    }

    /// Whether `side` may still send data frames: it has not sent its Close (RFC 6455 §5.5.1).
    pub fn may_send_data(&self, side: Side) -> bool {
        match self {
            Self::Open => true,
            Self::Half { by, .. } => *by != side,
            Self::Done => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[test]
    fn a_close_from_each_side_completes_the_handshake() {
        let now = Instant::now();
        for first in [Side::Client, Side::Server] {
            let half = Closing::default().on_close(first, now, GRACE);
            assert_eq!(half, Closing::Half { by: first, deadline: now + GRACE });
            assert!(!half.may_send_data(first) && half.may_send_data(first.other()));
            assert_eq!(half.on_close(first.other(), now, GRACE), Closing::Done);
        }
    }

    #[test]
    fn a_second_close_from_the_same_side_does_not_move_the_deadline() {
        let now = Instant::now();
        let half = Closing::Open.on_close(Side::Client, now, GRACE);
        assert_eq!(half.on_close(Side::Client, now + GRACE / 2, GRACE), half);
    }

    #[test]
    fn the_wait_for_the_other_close_ends_at_the_deadline() {
        let now = Instant::now();
        let half = Closing::Open.on_close(Side::Server, now, GRACE);
        assert_eq!(half.deadline(), Some(now + GRACE));
        assert_eq!(half.on_time(now + GRACE - Duration::from_nanos(1)), half);
        assert_eq!(half.on_time(now + GRACE), Closing::Done);
        assert_eq!(Closing::Open.on_time(now + GRACE), Closing::Open);
        assert_eq!((Closing::Open.deadline(), Closing::Done.deadline()), (None, None));
    }
}
