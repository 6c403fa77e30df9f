//! The settings of a location that go with its tunnels, for a process that does not have the location.

use std::sync::Arc;
use std::time::Duration;

use minicbor::{Decode, Encode};
use wssgate_config::model::{LocationId, WebSocketTap};
use wssgate_relay::Timers;
use wssgate_ws::conversation::{Check, KeepAlive, Limits, PerSide, Policy};
use wssgate_ws::{CloseCode, Side};

use crate::clock::micros;
use crate::generation::{Generation, Place};

/// What is kept of a location that is no more.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) timers: Timers,
    pub(super) buffer_size: usize,
    pub(super) policy: Option<Arc<Policy>>,
}

/// The settings of a location. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct KeptState<'b> {
    /// What listings call the server, the location and the upstream.
    #[b(0)]
    server: &'b str,
    #[b(1)]
    location: &'b str,
    #[b(2)]
    upstream: Option<&'b str>,
    /// See [`Timers`]; in microseconds.
    #[n(3)]
    read: u64,
    #[n(4)]
    upstream_send: u64,
    #[n(5)]
    client_send: u64,
    #[n(6)]
    half_close: u64,
    #[n(7)]
    progress: Option<u64>,
    #[n(8)]
    buffer_size: u64,
    #[n(9)]
    policy: Option<PolicyState>,
}

/// See [`Policy`].
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct PolicyState {
    #[n(0)]
    client: SideState,
    #[n(1)]
    server: SideState,
    #[n(2)]
    idle_ms: Option<u64>,
    #[n(3)]
    #[cbor(default)]
    notes_data: bool,
    #[n(4)]
    check: CheckState,
    #[n(5)]
    failure: Option<u16>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct SideState {
    #[n(0)]
    ping_interval_ms: Option<u64>,
    #[n(1)]
    pong_timeout_ms: Option<u64>,
    #[n(2)]
    slow_reader_ms: Option<u64>,
    #[n(3)]
    frame: Option<u64>,
    #[n(4)]
    message: Option<u64>,
    #[n(5)]
    fragments: Option<u32>,
    #[n(6)]
    controls: Option<u32>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(index_only)]
enum CheckState {
    #[n(0)]
    Note,
    #[n(1)]
    Frames,
    #[n(2)]
    Text,
}

/// The settings of a location.
pub(super) fn encode(generation: &Generation, id: LocationId) -> Vec<u8> {
    let location = &generation.http().locations[id.0];
    let timers = crate::tunnel::timers(location, true);
    let place = generation.place(id);
    let state = KeptState {
        server: &place.server,
        location: &place.location,
        upstream: place.upstream.as_deref(),
        read: micros(timers.read),
        upstream_send: micros(timers.upstream_send),
        client_send: micros(timers.client_send),
        half_close: micros(timers.half_close),
        progress: timers.progress.map(micros),
        buffer_size: location.proxy.buffer_size as u64,
        policy: generation.policy(id).map(|policy| (&**policy).into()),
    };
    let mut settings = Vec::with_capacity(256);
    // A vector takes everything.
    let _ = minicbor::encode(&state, &mut settings);
    settings
}

impl KeptState<'_> {
    /// What listings tell of the location. Nothing of frames is shown: nobody here has allowed it.
    pub(super) fn place(&self) -> Place {
        Place {
            server: self.server.into(),
            location: self.location.into(),
            upstream: self.upstream.map(Into::into),
            tap: WebSocketTap::Off,
        }
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            timers: Timers {
                read: Duration::from_micros(self.read),
                upstream_send: Duration::from_micros(self.upstream_send),
                client_send: Duration::from_micros(self.client_send),
                half_close: Duration::from_micros(self.half_close),
                progress: self.progress.map(Duration::from_micros),
            },
            buffer_size: usize::try_from(self.buffer_size).unwrap_or(usize::MAX),
            policy: self.policy.as_ref().map(|policy| Arc::new(policy.into())),
        }
    }
}

impl From<&Policy> for PolicyState {
    fn from(policy: &Policy) -> Self {
        let side = |side| {
            let keep_alive = policy.keep_alive.get(side);
            let Limits { frame, message, fragments, controls } = *policy.limits.get(side);
            SideState {
                ping_interval_ms: keep_alive.map(|it| it.interval_ms),
                pong_timeout_ms: keep_alive.and_then(|it| it.pong_timeout_ms),
                slow_reader_ms: *policy.slow_reader_ms.get(side),
                frame,
                message,
                fragments,
                controls,
            }
        };
        Self {
            client: side(Side::Client),
            server: side(Side::Server),
            idle_ms: policy.idle_ms,
            notes_data: policy.notes_data,
            check: match policy.check {
                Check::Note => CheckState::Note,
                Check::Frames => CheckState::Frames,
                Check::Text => CheckState::Text,
            },
            failure: policy.failure.map(|code| code.0),
        }
    }
}

impl From<&PolicyState> for Policy {
    fn from(state: &PolicyState) -> Self {
        Self {
            keep_alive: state.per_side(|side| {
                let pong_timeout_ms = side.pong_timeout_ms;
                side.ping_interval_ms.map(|interval_ms| KeepAlive { interval_ms, pong_timeout_ms })
            }),
            idle_ms: state.idle_ms,
            notes_data: state.notes_data,
            slow_reader_ms: state.per_side(|side| side.slow_reader_ms),
            check: match state.check {
                CheckState::Note => Check::Note,
                CheckState::Frames => Check::Frames,
                CheckState::Text => Check::Text,
            },
            limits: state.per_side(|side| Limits {
                frame: side.frame,
                message: side.message,
                fragments: side.fragments,
                controls: side.controls,
            }),
            failure: state.failure.map(CloseCode),
        }
    }
}

impl PolicyState {
    fn per_side<T>(&self, of: impl Fn(&SideState) -> T) -> PerSide<T> {
        PerSide { client: of(&self.client), server: of(&self.server) }
    }
}
