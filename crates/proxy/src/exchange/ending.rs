//! How a request or a tunnel ended, as plain data: what variables tell that only the end knows.
//!
//! It holds no request and no connection, so that it can be kept for the days that a tunnel lives.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use wssgate_config::variable::Builtin;
use wssgate_relay::Progress;

use crate::clock::{self, Moment, SharedClock, micros};
use crate::exchange::request::{Request, UpstreamState};
use crate::exchange::variables::{self, seconds};
use crate::exchange::websocket::{self, Record};

/// What is known at the end, or by now.
#[derive(Clone, Debug)]
pub struct Ending<'a> {
    /// When the connection was accepted.
    pub accepted: Instant,
    /// When the first byte of the request came.
    pub started: Instant,
    /// `$bytes_sent`.
    pub sent: u64,
    /// How much of it is the head of the answer.
    pub head_len: u64,
    /// Attempts at peers, of which the last may have become a tunnel.
    pub attempts: Cow<'a, [UpstreamState]>,
    /// Whether all was sent (`$request_completion`).
    pub complete: bool,
    /// Of the tunnel that it has become.
    pub tunnel: Option<&'a Record>,
}

/// An [`Ending`] without a tunnel, for another process. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct EndingState<'b> {
    /// When the connection was accepted, on the shared clock.
    #[n(0)]
    accepted: u64,
    /// When the first byte of the request came.
    #[n(1)]
    started: u64,
    #[n(2)]
    sent: u64,
    #[n(3)]
    head_len: u64,
    #[b(4)]
    attempts: Option<Vec<AttemptState<'b>>>,
    #[n(5)]
    #[cbor(default)]
    complete: bool,
}

/// An [`UpstreamState`]; times are in microseconds.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct AttemptState<'b> {
    #[b(0)]
    address: Option<&'b ByteSlice>,
    #[n(1)]
    #[cbor(default)]
    status: u16,
    #[n(2)]
    connect_time: Option<u64>,
    #[n(3)]
    header_time: Option<u64>,
    #[n(4)]
    response_time: Option<u64>,
    #[n(5)]
    #[cbor(default)]
    response_length: u64,
    #[n(6)]
    #[cbor(default)]
    bytes_received: u64,
    #[n(7)]
    #[cbor(default)]
    bytes_sent: u64,
}

impl<'b> From<&'b UpstreamState> for AttemptState<'b> {
    fn from(attempt: &'b UpstreamState) -> Self {
        Self {
            address: attempt.address.as_deref().map(Into::into),
            status: attempt.status,
            connect_time: attempt.connect_time.map(micros),
            header_time: attempt.header_time.map(micros),
            response_time: attempt.response_time.map(micros),
            response_length: attempt.response_length,
            bytes_received: attempt.bytes_received,
            bytes_sent: attempt.bytes_sent,
        }
    }
}

impl From<&AttemptState<'_>> for UpstreamState {
    fn from(state: &AttemptState<'_>) -> Self {
        Self {
            address: state.address.map(|address| Bytes::copy_from_slice(address)),
            status: state.status,
            connect_time: state.connect_time.map(Duration::from_micros),
            header_time: state.header_time.map(Duration::from_micros),
            response_time: state.response_time.map(Duration::from_micros),
            response_length: state.response_length,
            bytes_received: state.bytes_received,
            bytes_sent: state.bytes_sent,
        }
    }
}

impl<'a> Ending<'a> {
    /// What another process has to know of it; nothing of a tunnel.
    pub(crate) fn state(&self, clock: &SharedClock) -> EndingState<'_> {
        let attempts = (!self.attempts.is_empty())
            .then(|| self.attempts.iter().map(AttemptState::from).collect());
        EndingState {
            accepted: clock.micros_of(self.accepted),
            started: clock.micros_of(self.started),
            sent: self.sent,
            head_len: self.head_len,
            attempts,
            complete: self.complete,
        }
    }

    /// The one that another process has known.
    pub(crate) fn restore(state: &EndingState<'_>, clock: &SharedClock) -> Ending<'static> {
        let attempts = state.attempts.iter().flatten().map(UpstreamState::from);
        Ending {
            accepted: clock.moment(state.accepted),
            started: clock.moment(state.started),
            sent: state.sent,
            head_len: state.head_len,
            attempts: Cow::Owned(attempts.collect()),
            complete: state.complete,
            tunnel: None,
        }
    }

    /// What is known of `request` by now.
    pub fn of(request: &'a Request) -> Self {
        let ending = Self {
            accepted: request.connection.accepted,
            started: request.arrival.at,
            sent: variables::bytes_sent(request),
            head_len: request.response.head_len,
            attempts: Cow::Borrowed(&request.upstream.attempts),
            complete: request.response.complete,
            tunnel: None,
        };
        match &request.tunnel.told {
            Some((record, took)) => ending.with_tunnel(record, *took),
            None => ending,
        }
    }

    /// The same without the request; of the attempts only if they are `asked` for.
    pub fn detached(self, asked: bool) -> Ending<'static> {
        let attempts = if asked { self.attempts.into_owned() } else { Vec::new() };
        Ending {
            accepted: self.accepted,
            started: self.started,
            sent: self.sent,
            head_len: self.head_len,
            attempts: Cow::Owned(attempts),
            complete: self.complete,
            tunnel: None,
        }
    }

    /// The same with what has passed through the tunnel that the request became; its upstream was asked
    /// `took` ago.
    pub fn with_tunnel(mut self, record: &'a Record, took: Duration) -> Self {
        if !self.attempts.is_empty() {
            add_tunnel(self.attempts.to_mut(), &record.passed, took);
        }
        self.sent = self.sent.saturating_add(record.passed.client.sent);
        self.complete = record.is_complete();
        self.tunnel = Some(record);
        self
    }

    /// The value `now` of a variable that [`is_late`]; `None` when it has none.
    pub fn value(&self, variable: Builtin, now: Moment) -> Option<Bytes> {
        use Builtin as B;
        let text = match variable {
            B::BytesSent => self.sent.to_string(),
            B::BodyBytesSent => self.sent.saturating_sub(self.head_len).to_string(),
            B::RequestTime => seconds(now.instant.saturating_duration_since(self.started)),
            B::ConnectionTime => seconds(now.instant.saturating_duration_since(self.accepted)),
            B::Msec => seconds(clock::since_epoch(now.wall)),
            B::TimeIso8601 => clock::time_iso8601(now.wall),
            B::TimeLocal => clock::time_local(now.wall),
            B::RequestCompletion if self.complete => "OK".to_owned(),
            B::RequestCompletion => String::new(),
            _ if websocket::is_of_tunnel(variable) => return self.tunnel?.value(variable),
            _ => return variables::passed(variable, &self.attempts),
        };
        Some(text.into())
    }
}

/// Adds what passed through a tunnel to the attempt that became it, the last one. As in nginx its
/// bytes are no response.
fn add_tunnel(attempts: &mut [UpstreamState], passed: &Progress, took: Duration) {
    if let Some(state) = attempts.last_mut() {
        state.response_time = Some(took);
        state.bytes_sent = state.bytes_sent.saturating_add(passed.upstream.sent);
        state.bytes_received = state.bytes_received.saturating_add(passed.upstream.received);
    }
}

/// Whether a variable has its last value only at the end.
pub fn is_late(variable: Builtin) -> bool {
    use Builtin as B;
    matches!(
        variable,
        B::BytesSent
            | B::BodyBytesSent
            | B::RequestTime
            | B::ConnectionTime
            | B::Msec
            | B::TimeIso8601
            | B::TimeLocal
            | B::RequestCompletion
    ) || is_of_attempts(variable)
        || websocket::is_of_tunnel(variable)
}

/// Whether a variable tells of everybody's connections at the moment.
pub(crate) fn is_of_the_moment(variable: Builtin) -> bool {
    use Builtin as B;
    matches!(
        variable,
        B::ConnectionsActive
            | B::ConnectionsReading
            | B::ConnectionsWaiting
            | B::ConnectionsWriting
    )
}

/// Whether a variable tells of the attempts at peers, and only at the end all of it.
pub(crate) fn is_of_attempts(variable: Builtin) -> bool {
    use Builtin as B;
    matches!(
        variable,
        B::UpstreamBytesReceived
            | B::UpstreamBytesSent
            | B::UpstreamResponseLength
            | B::UpstreamResponseTime
    )
}

#[cfg(test)]
mod tests {
    use wssgate_relay::{EndCause, Side, Totals};

    use super::*;
    use crate::exchange::websocket::Event;

    #[test]
    fn what_a_tunnel_carried_is_added_to_the_attempt_that_became_it() {
        let now = Instant::now();
        let state = |sent, received| UpstreamState {
            address: Some(Bytes::from_static(b"a")),
            bytes_sent: sent,
            bytes_received: received,
            ..UpstreamState::default()
        };
        let ending = Ending {
            accepted: now,
            started: now,
            sent: 100,
            head_len: 90,
            attempts: vec![state(1, 2), state(3, 4)].into(),
            complete: false,
            tunnel: None,
        };
        let passed = Progress {
            client: Totals { sent: 7, ..Totals::default() },
            upstream: Totals { sent: 10, received: 20, ..Totals::default() },
            ..Progress::default()
        };
        let cause = Some(EndCause::Ended(Side::Client));
        let record = Record { event: Event::Close, cause, passed };
        let ending = ending.with_tunnel(&record, Duration::from_millis(1500));
        let later = Moment { instant: now + Duration::from_millis(2500), ..Moment::now() };
        for (variable, expected) in [
            (Builtin::RequestTime, "2.500"),
            (Builtin::BytesSent, "107"),
            (Builtin::BodyBytesSent, "17"),
            (Builtin::RequestCompletion, "OK"),
            (Builtin::UpstreamBytesSent, "1, 13"),
            (Builtin::UpstreamBytesReceived, "2, 24"),
            (Builtin::UpstreamResponseLength, "0, 0"),
            (Builtin::UpstreamResponseTime, "-, 1.500"),
        ] {
            assert!(is_late(variable));
            assert_eq!(
                ending.value(variable, later).as_deref(),
                Some(expected.as_bytes()),
                "{variable:?}"
            );
        }
    }
}
