//! What is known of a tunnel, at its end or by now: who closed it, with which code and why, and what passed.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use wssgate_config::variable::Builtin;
use wssgate_relay::{EndCause, Progress, Side, Totals, TunnelEnd};
use wssgate_sys::errno::{ECONNRESET, EPIPE};
use wssgate_ws::conversation::Cause;
use wssgate_ws::conversation::meter::Excess;
use wssgate_ws::{CloseCode, Counts};

use crate::exchange::trace::Trace;
use crate::exchange::variables::seconds;
use crate::metrics::HandshakeFailure;

/// What a request knows of the tunnel that it has become.
#[derive(Debug, Default)]
pub struct TunnelTrace {
    /// From the first byte of the request to the end of the 101, which is when it has become one.
    pub(crate) handshake: Option<Duration>,
    /// What connects its lines with those of other hops.
    pub(crate) trace: Trace,
    /// Whether it is a WebSocket.
    pub(crate) is_websocket: bool,
    /// Why it has not become one, as far as it was refused here.
    pub(crate) refused: Cell<Option<HandshakeFailure>>,
    /// The last that was told of it, and how long ago its upstream was asked then.
    pub(crate) told: Option<(Box<Record>, Duration)>,
}

/// What is known of a tunnel at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of which moment.
    pub(crate) event: Event,
    /// What ended it, at its end.
    pub(crate) cause: Option<EndCause>,
    /// What has passed.
    pub(crate) passed: Progress,
}

/// The moments in the life of a tunnel that can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has begun.
    Open,
    /// It goes on.
    Progress,
    /// It has ended.
    Close,
}

/// Who began to end a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closer {
    Client,
    Upstream,
    Proxy,
}

impl From<Side> for Closer {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Upstream => Self::Upstream,
        }
    }
}

impl From<Progress> for Record {
    fn from(passed: Progress) -> Self {
        Self { event: Event::Progress, cause: None, passed }
    }
}

impl From<&TunnelEnd> for Record {
    fn from(end: &TunnelEnd) -> Self {
        let TunnelEnd { cause, duration, first_close, client, upstream } = end.clone();
        let passed = Progress { duration, first_close, client, upstream };
        Self { event: Event::Close, cause: Some(cause), passed }
    }
}

impl Record {
    /// What is known of a WebSocket that begins.
    pub(crate) fn open() -> Self {
        let none = || Totals { frames: Some(Counts::default()), ..Totals::default() };
        let passed = Progress { client: none(), upstream: none(), ..Progress::default() };
        Self { event: Event::Open, cause: None, passed }
    }

    /// Whether it has ended.
    pub(crate) fn is_end(&self) -> bool {
        self.event == Event::Close
    }

    /// Whether it ended in good order: one side closed or ended it, and the rest was carried.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.cause, Some(EndCause::Ended(_))) || self.closed_in_order().is_some()
    }

    /// The side whose Close has ended it. Who has sent a Close owes nothing more, so that its connection may
    /// break; and a side may answer a Close by the end of its connection.
    fn closed_in_order(&self) -> Option<Side> {
        let (side, may_answer) = match self.cause? {
            EndCause::Ended(side) => (side, true),
            EndCause::Broken(side, _) | EndCause::Tls(side, _) => (side, false),
            _ => return None,
        };
        let closed = self.totals(side).close.is_some();
        let first = self.passed.first_close;
        if closed { first.or(Some(side)) } else { first.filter(|_| may_answer) }
    }

    /// `$websocket_closed_by`.
    fn closed_by(&self) -> Option<Closer> {
        if let Some(side) = self.passed.first_close {
            return Some(side.into());
        }
        Some(match self.cause? {
            EndCause::Ended(side) | EndCause::Broken(side, _) | EndCause::Tls(side, _) => {
                side.into()
            }
            _ => Closer::Proxy,
        })
    }

    /// The Close of whoever began to end it: its code and reason. Where that one sent none, the one of ours that told
    /// the other side of it. What else was sent is told by side.
    pub(crate) fn first_close(&self) -> Option<(CloseCode, &[u8])> {
        let side = match self.closed_by()? {
            Closer::Client => Side::Client,
            Closer::Upstream => Side::Upstream,
            Closer::Proxy => return self.own_close(),
        };
        let Totals { close, close_reason, .. } = self.totals(side);
        let theirs = close.map(|code| (code, &**close_reason));
        theirs.or_else(|| self.own_close())
    }

    /// The Close that we sent: that to the offender, if there is one and it could be told.
    pub(crate) fn own_close(&self) -> Option<(CloseCode, &[u8])> {
        let (offender, reason) = match self.cause {
            Some(EndCause::Closed(cause)) => {
                (cause.offender().map(Side::from), Some(cause.reason()))
            }
            Some(EndCause::Unhealthy) => (None, Some(Cause::Unhealthy.reason())),
            _ => (None, None),
        };
        let to = offender.unwrap_or(Side::Client);
        let told = [to, to.other()].map(|side| self.totals(side));
        let told = told.into_iter().find(|totals| totals.own_close.is_some())?;
        let reason = reason.unwrap_or(&told.own_reason);
        told.own_close.map(|code| (code, reason.as_bytes()))
    }

    /// The word for what ended it: one of those in `docs/websocket-ends.md`.
    pub(crate) fn word(&self) -> Option<&'static str> {
        let cause = self.cause?;
        if let Some(side) = self.closed_in_order() {
            return Some(of(side, "client_close", "upstream_close"));
        }
        Some(match cause {
            EndCause::Ended(side) if self.totals(side).truncated => {
                of(side, "client_truncated", "upstream_truncated")
            }
            EndCause::Ended(side) => of(side, "client_fin", "upstream_fin"),
            EndCause::Broken(side, ECONNRESET | EPIPE) => {
                of(side, "client_reset", "upstream_reset")
            }
            EndCause::Broken(side, _) => of(side, "client_error", "upstream_error"),
            EndCause::Tls(side, _) => of(side, "client_tls", "upstream_tls"),
            EndCause::ReadTimeout => "read_timeout",
            EndCause::SendTimeout(side) => of(side, "client_send_timeout", "upstream_send_timeout"),
            EndCause::HalfCloseTimeout => "half_close_timeout",
            EndCause::Lost(side) => of(side, "client_pong_timeout", "upstream_pong_timeout"),
            EndCause::Closed(cause) => word_of(cause),
            EndCause::Drained => "drain",
            EndCause::Killed => "kill",
            EndCause::Unhealthy => "upstream_unhealthy",
            EndCause::Stopped => "shutdown",
            EndCause::Refused(_) => "setup_failed",
        })
    }

    fn totals(&self, side: Side) -> &Totals {
        match side {
            Side::Client => &self.passed.client,
            Side::Upstream => &self.passed.upstream,
        }
    }

    /// The value of a variable; `None` when it has none, or [`is_of_tunnel`] is not true of it.
    pub(crate) fn value(&self, variable: Builtin) -> Option<Bytes> {
        use Builtin as B;
        Some(match variable {
            B::WebSocketCloseCause => self.word()?.into(),
            B::WebSocketCloseCode => self.first_close()?.0.0.to_string().into(),
            B::WebSocketCloseReason => Bytes::copy_from_slice(self.first_close()?.1),
            B::WebSocketClosedBy => match self.closed_by()? {
                Closer::Client => "client".into(),
                Closer::Upstream => "upstream".into(),
                Closer::Proxy => "proxy".into(),
            },
            B::WebSocketEvent => match self.event {
                Event::Open => "open".into(),
                Event::Progress => "progress".into(),
                Event::Close => "close".into(),
            },
            B::WebSocketLifetime => seconds(self.passed.duration).into(),
            _ => return self.value_of_side(variable),
        })
    }

    fn value_of_side(&self, variable: Builtin) -> Option<Bytes> {
        use Builtin as B;
        let totals = self.totals(side_of(variable));
        let count = |count: fn(&Counts) -> u64| totals.frames.as_ref().map(count);
        let number = match variable {
            B::WebSocketClientBytes | B::WebSocketUpstreamBytes => Some(totals.received),
            B::WebSocketClientFrames | B::WebSocketUpstreamFrames => count(|it| it.frames),
            B::WebSocketClientMessages | B::WebSocketUpstreamMessages => count(|it| it.messages),
            B::WebSocketClientTextMessages | B::WebSocketUpstreamTextMessages => {
                count(|it| it.texts)
            }
            B::WebSocketClientBinaryMessages | B::WebSocketUpstreamBinaryMessages => {
                count(|it| it.messages - it.texts)
            }
            B::WebSocketClientPayloadBytes | B::WebSocketUpstreamPayloadBytes => {
                count(|it| it.payload)
            }
            B::WebSocketClientTextBytes | B::WebSocketUpstreamTextBytes => {
                count(|it| it.text_payload)
            }
            B::WebSocketClientBinaryBytes | B::WebSocketUpstreamBinaryBytes => {
                count(|it| it.payload - it.text_payload)
            }
            B::WebSocketClientLargestMessage | B::WebSocketUpstreamLargestMessage => {
                count(|it| it.largest)
            }
            B::WebSocketClientPings | B::WebSocketUpstreamPings => count(|it| it.pings),
            B::WebSocketClientPongs | B::WebSocketUpstreamPongs => count(|it| it.pongs),
            B::WebSocketClientCloseCode | B::WebSocketUpstreamCloseCode => {
                totals.close.map(|code| code.0.into())
            }
            B::WebSocketClientCloseReason | B::WebSocketUpstreamCloseReason => {
                return totals.close.map(|_| Bytes::copy_from_slice(&totals.close_reason));
            }
            B::WebSocketClientRtt | B::WebSocketUpstreamRtt => {
                return totals.rtt.map(|rtt| seconds(rtt).into());
            }
            B::WebSocketClientBlockedTime | B::WebSocketUpstreamBlockedTime => {
                return Some(seconds(totals.blocked).into());
            }
            _ => None,
        };
        number.map(|number: u64| number.to_string().into())
    }
}

fn of(side: Side, client: &'static str, upstream: &'static str) -> &'static str {
    match side {
        Side::Client => client,
        Side::Upstream => upstream,
    }
}

/// The word for a decision of ours; those about one side begin with it.
fn word_of(cause: Cause) -> &'static str {
    let of = |side: wssgate_ws::Side, client, upstream| of(side.into(), client, upstream);
    match cause {
        Cause::Drain(_) => "drain",
        Cause::Kill => "kill",
        Cause::Unhealthy => "upstream_unhealthy",
        Cause::IdleTimeout => "idle_timeout",
        Cause::MaxLifetime => "max_lifetime",
        Cause::Violation(side, _) => of(side, "client_protocol_error", "upstream_protocol_error"),
        Cause::InvalidClose(side, _) => of(side, "client_invalid_close", "upstream_invalid_close"),
        Cause::InvalidText(side) => of(side, "client_invalid_text", "upstream_invalid_text"),
        Cause::FrameTooBig(side) => of(side, "client_frame_too_big", "upstream_frame_too_big"),
        Cause::MessageTooBig(side) => {
            of(side, "client_message_too_big", "upstream_message_too_big")
        }
        Cause::TooManyFragments(side) => {
            of(side, "client_too_many_fragments", "upstream_too_many_fragments")
        }
        Cause::ControlFlood(side) => of(side, "client_control_flood", "upstream_control_flood"),
        Cause::Rate(side, Excess::Messages) => {
            of(side, "client_message_rate", "upstream_message_rate")
        }
        Cause::Rate(side, Excess::Bytes) => of(side, "client_byte_rate", "upstream_byte_rate"),
        Cause::SlowReader(side) => of(side, "client_slow_reader", "upstream_slow_reader"),
        Cause::Credentials(_) => "credentials",
    }
}

/// Whose variable it is, if it is of one side: that of the upstream begins with its name.
fn side_of(variable: Builtin) -> Side {
    use Builtin as B;
    match variable {
        B::WebSocketClientBinaryBytes
        | B::WebSocketClientBinaryMessages
        | B::WebSocketClientBlockedTime
        | B::WebSocketClientBytes
        | B::WebSocketClientCloseCode
        | B::WebSocketClientCloseReason
        | B::WebSocketClientFrames
        | B::WebSocketClientLargestMessage
        | B::WebSocketClientMessages
        | B::WebSocketClientPayloadBytes
        | B::WebSocketClientPings
        | B::WebSocketClientPongs
        | B::WebSocketClientRtt
        | B::WebSocketClientTextBytes
        | B::WebSocketClientTextMessages => Side::Client,
        _ => Side::Upstream,
    }
}

/// Whether a variable tells of a tunnel what its record knows.
pub(crate) fn is_of_tunnel(variable: Builtin) -> bool {
    use Builtin as B;
    matches!(
        variable,
        B::WebSocketCloseCause
            | B::WebSocketCloseCode
            | B::WebSocketCloseReason
            | B::WebSocketClosedBy
            | B::WebSocketEvent
            | B::WebSocketLifetime
            | B::WebSocketUpstreamBinaryBytes
            | B::WebSocketUpstreamBinaryMessages
            | B::WebSocketUpstreamBlockedTime
            | B::WebSocketUpstreamBytes
            | B::WebSocketUpstreamCloseCode
            | B::WebSocketUpstreamCloseReason
            | B::WebSocketUpstreamFrames
            | B::WebSocketUpstreamLargestMessage
            | B::WebSocketUpstreamMessages
            | B::WebSocketUpstreamPayloadBytes
            | B::WebSocketUpstreamPings
            | B::WebSocketUpstreamPongs
            | B::WebSocketUpstreamRtt
            | B::WebSocketUpstreamTextBytes
            | B::WebSocketUpstreamTextMessages
    ) || side_of(variable) == Side::Client
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
