//! A tunnel as plain data, for another process to go on with.
//!
//! Moments travel as times from now, because every process has its own clock. What the front decides anew where the tunnel
//! arrives (its timers, its label, who counts its bytes) is not here.
//!
//! The numbers of fields, here and in the parts, are a format that other releases read: a number is never used again for
//! something else. Unknown fields are skipped, a missing one has the value that most tunnels have; what cannot be
//! understood without is an error, and the tunnel stays where it is.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use minicbor::{Decode, Encode};
use wssgate_records::{MAX_RECORD, Records, RecordsState};
use wssgate_ws::Conversation;
use wssgate_ws::cbor::{is_default, known};
use wssgate_ws::conversation::ConversationState;

use super::{GROUP_WINDOW, Rare, Telling, Tunnel, is_over};
use crate::drain::Memberships;
use crate::flow::{Flow, FlowState};
use crate::leg::{Leg, Unsent};
use crate::model::{Binding, Refused};
use crate::protection::Protection;
use crate::{Counters, EndCause, Side};

/// The most bytes of the wire that a leg keeps for its peer and travel: some more than one turn seals.
const MAX_UNSENT: usize = 1 << 20;

/// All that is needed to go on with a tunnel, but for its sockets.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct TunnelState {
    #[n(0)]
    client: LegState,
    #[n(1)]
    upstream: LegState,
    /// From the client to the upstream.
    #[n(2)]
    up: FlowTotals,
    #[n(3)]
    down: FlowTotals,
    /// Only in a WebSocket.
    #[n(4)]
    #[cbor(decode_with = "known")]
    conversation: Option<ConversationState>,
    /// How long ago it began, in milliseconds.
    #[n(5)]
    #[cbor(default)]
    lived_ms: u64,
    /// How long ago bytes moved.
    #[n(6)]
    #[cbor(default)]
    idle_ms: u64,
    /// The side that has ended its direction in good order, if one has.
    #[n(7)]
    #[cbor(decode_with = "known")]
    ended: Option<EndedBy>,
    /// In how many milliseconds it tells what has passed, if it does.
    #[n(8)]
    tells_in_ms: Option<u64>,
    #[n(9)]
    protocol: Spoken,
}

/// What is spoken in a tunnel. Whatever comes to be spoken one day is refused by those who do not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum Spoken {
    #[n(0)]
    Other,
    #[n(1)]
    WebSocket,
}

/// What protects a leg, likewise: without it a leg whose keys are told in a new way would pass for a plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum Layer {
    #[n(0)]
    Plain,
    #[n(1)]
    Records,
}

/// The side whose end is the cause of the tunnel's.
#[derive(Debug, Clone, Copy, Encode, Decode)]
#[cbor(index_only)]
enum EndedBy {
    #[n(0)]
    Client,
    #[n(1)]
    Upstream,
}

/// One leg.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct LegState {
    /// It is a Unix socket.
    #[n(0)]
    #[cbor(default, skip_if = "is_default")]
    unix: bool,
    /// Only with TLS.
    #[n(1)]
    #[cbor(decode_with = "known")]
    records: Option<RecordsState>,
    /// The front of a record whose rest has not come.
    #[cbor(n(2), default, with = "minicbor::bytes", skip_if = "is_default")]
    unopened: Vec<u8>,
    /// Bytes of the wire that the peer has not taken.
    #[cbor(n(3), default, with = "minicbor::bytes", skip_if = "is_default")]
    unsent: Vec<u8>,
    /// The socket was read to its end.
    #[n(4)]
    #[cbor(default, skip_if = "is_default")]
    ended: bool,
    /// How long ago the peer took bytes, or the first of those that are unsent was refused.
    #[n(5)]
    #[cbor(default, skip_if = "is_default")]
    progress_ago_ms: u64,
    /// Since how long some are unsent.
    #[n(6)]
    #[cbor(default, skip_if = "is_default")]
    blocked_ago_ms: u64,
    /// How long some were unsent before.
    #[n(7)]
    #[cbor(default, skip_if = "is_default")]
    blocked_ms: u64,
    #[n(8)]
    layer: Layer,
}

/// One direction.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct FlowTotals {
    #[n(0)]
    #[cbor(default, skip_if = "is_default", decode_with = "known")]
    state: Direction,
    #[n(1)]
    #[cbor(default)]
    received: u64,
    #[n(2)]
    #[cbor(default)]
    passed: u64,
    /// The source ended TLS without close_notify.
    #[n(3)]
    #[cbor(default, skip_if = "is_default")]
    truncated: bool,
}

/// How far a direction has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum Direction {
    #[default]
    #[n(0)]
    Open,
    #[n(1)]
    Draining,
    #[n(2)]
    Closed,
}

/// A tunnel of which only the sockets are missing, the client's and the upstream's.
pub(crate) type Unconnected = Box<dyn FnOnce([OwnedFd; 2]) -> Tunnel + Send>;

/// What was announced of a tunnel, and when: whoever changes one says so ([`Tunnel::touch`]), for what had changed in
/// silence would go on as it was. Only builds that are tried look after that.
#[cfg(debug_assertions)]
#[derive(Debug)]
pub(super) struct Announced {
    at_ms: u64,
    digest: u64,
}

#[cfg(debug_assertions)]
impl Announced {
    fn of(tunnel: &Tunnel, at_ms: u64) -> Self {
        use std::hash::{DefaultHasher, Hasher};
        let mut bytes = wssgate_sys::memory::Secret::default();
        crate::secret::write(&tunnel.state(at_ms), &mut bytes);
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        Self { at_ms, digest: hasher.finish() }
    }
}

impl Tunnel {
    /// Whether it can go on in another process: not one that is about to end here, by a drain or because a side is lost.
    pub(crate) fn may_move(&self) -> bool {
        let cause = matches!(self.cause, None | Some(EndCause::Ended(_)));
        let unsent = [&self.client, &self.upstream].map(Leg::unsent_len);
        cause
            && !self.stays
            && self.drains.is_empty()
            && !self.is_closing()
            && !self.is_over()
            && unsent.into_iter().all(|len| len <= MAX_UNSENT)
    }

    /// What is needed to go on from here; only for those that [`Self::may_move`].
    pub(crate) fn state(&self, now_ms: u64) -> TunnelState {
        let telling = self.rare.as_ref().and_then(|rare| rare.telling.as_ref());
        TunnelState {
            client: self.client.state(now_ms),
            upstream: self.upstream.state(now_ms),
            up: self.up.state(),
            down: self.down.state(),
            conversation: self.conversation.as_ref().map(|it| it.state(now_ms)),
            lived_ms: now_ms.saturating_sub(self.began_ms),
            idle_ms: now_ms.saturating_sub(self.active_ms),
            ended: match self.cause {
                Some(EndCause::Ended(Side::Client)) => Some(EndedBy::Client),
                Some(EndCause::Ended(Side::Upstream)) => Some(EndedBy::Upstream),
                _ => None,
            },
            tells_in_ms: telling.map(|telling| telling.due_ms.saturating_sub(now_ms)),
            protocol: match self.conversation {
                Some(_) => Spoken::WebSocket,
                None => Spoken::Other,
            },
        }
    }

    /// Its state, for another process to expect it, while it goes on here. One for which bytes are kept is soon another.
    pub(crate) fn announce(&mut self, now_ms: u64) -> Option<(NonZeroU32, TunnelState)> {
        let is_clear = |leg: &Leg| leg.unsent_len() == 0 && leg.unopened_len() == 0;
        if !self.may_move() || !is_clear(&self.client) || !is_clear(&self.upstream) {
            return None;
        }
        // A ticket may be another tunnel's soon, and who has announced a tunnel may have given up long ago.
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let number = NonZeroU32::new(NUMBERS.fetch_add(1, Ordering::Relaxed))?;
        self.announcement = Some(number);
        self.is_as_announced = true;
        #[cfg(debug_assertions)]
        {
            let announced = Announced::of(self, now_ms);
            self.rare.get_or_insert_default().announced = Some(announced);
        }
        Some((number, self.state(now_ms)))
    }

    /// The number of its last announcement, if there was one.
    pub(crate) fn announcement(&self) -> Option<NonZeroU32> {
        self.announcement
    }

    /// Whether nothing but time has passed since then.
    pub(crate) fn is_as_announced(&self) -> bool {
        #[cfg(debug_assertions)]
        if self.is_as_announced
            && let Some(announced) = self.rare.as_ref().and_then(|rare| rare.announced.as_ref())
        {
            let digest = Announced::of(self, announced.at_ms).digest;
            assert_eq!(digest, announced.digest, "a tunnel was changed in silence");
        }
        self.is_as_announced
    }

    /// Goes on where another process was, as soon as the sockets are there.
    ///
    /// # Errors
    /// When it cannot be: it is unsound, or of a kind that is not carried here.
    pub(crate) fn restore(
        state: TunnelState,
        binding: Binding,
        counters: Arc<Counters>,
        record_limit: u64,
        now_ms: u64,
    ) -> Result<Unconnected, Refused> {
        let TunnelState { client, upstream, up, down, conversation, .. } = state;
        if conversation.is_some() != (state.protocol == Spoken::WebSocket) {
            return Err(Refused::Unsound);
        }
        let least = binding.buffer_size.clamp(1, GROUP_WINDOW);
        let meters = binding.meters.map(|meters| *meters);
        let restored = conversation
            .map(|state| Conversation::restore(state, binding.policy.as_ref(), meters, now_ms));
        let conversation = restored.transpose().map_err(|_| Refused::Unsound)?;
        let telling = Telling::new(binding.timers.progress, binding.ticket, now_ms);
        let telling = telling.map(|telling| Telling {
            due_ms: state.tells_in_ms.map_or(telling.due_ms, |left_ms| {
                now_ms.saturating_add(left_ms.min(telling.interval_ms))
            }),
            ..telling
        });
        let (up, down) = (Flow::restore(&up, least), Flow::restore(&down, least));
        if is_over(&up, &down) {
            // It would have ended where it was.
            return Err(Refused::Unsound);
        }
        let client = Leg::restore(client, record_limit, now_ms)?;
        let upstream = Leg::restore(upstream, record_limit, now_ms)?;
        Ok(Box::new(move |[client_socket, upstream_socket]| Self {
            ticket: binding.ticket,
            origin: binding.origin,
            label: binding.label,
            counters,
            client: client(client_socket),
            upstream: upstream(upstream_socket),
            up,
            down,
            conversation,
            timers: binding.timers.into(),
            rare: telling
                .map(|telling| Box::new(Rare { telling: Some(telling), ..Rare::default() })),
            began_ms: now_ms.saturating_sub(state.lived_ms),
            active_ms: now_ms.saturating_sub(state.idle_ms),
            cause: state.ended.map(|by| match by {
                EndedBy::Client => EndCause::Ended(Side::Client),
                EndedBy::Upstream => EndCause::Ended(Side::Upstream),
            }),
            // Its conversation may have something to say, under another policy than before.
            rearm: true,
            stays: false,
            announcement: None,
            is_as_announced: false,
            queued: false,
            expanded: false,
            drains: Memberships::default(),
            armed_ms: u64::MAX,
            armed_quiescent: false,
        }))
    }
}

impl Leg {
    fn state(&self, now_ms: u64) -> LegState {
        LegState {
            unix: self.unix,
            records: match &self.protection {
                Protection::None => None,
                Protection::Keys(records) => Some(records.state(now_ms)),
            },
            unopened: self.unopened.clone(),
            unsent: self.unsent.bytes[self.unsent.start..].to_vec(),
            ended: self.ended,
            progress_ago_ms: match self.blocked() {
                true => now_ms.saturating_sub(self.progress_ms),
                false => 0,
            },
            blocked_ago_ms: self
                .blocked_since_ms()
                .map_or(0, |since_ms| now_ms.saturating_sub(since_ms)),
            blocked_ms: self.blocked_ms,
            layer: match self.protection {
                Protection::None => Layer::Plain,
                Protection::Keys(_) => Layer::Records,
            },
        }
    }

    /// What is missing is its socket.
    fn restore(
        state: LegState,
        record_limit: u64,
        now_ms: u64,
    ) -> Result<impl FnOnce(OwnedFd) -> Self, Refused> {
        let protection = match (state.layer, &state.records) {
            (Layer::Plain, None) if state.unopened.is_empty() => Protection::None,
            (Layer::Records, Some(records)) if state.unopened.len() <= MAX_RECORD => {
                let records = Records::restore(records, record_limit, now_ms);
                Protection::Keys(Box::new(records.map_err(|_| Refused::Unsound)?))
            }
            (Layer::Plain | Layer::Records, _) => return Err(Refused::Unsound),
        };
        Ok(move |socket| {
            let mut leg = Self::with_protection(socket, state.unix, protection);
            leg.unopened = state.unopened;
            leg.unsent = Unsent { bytes: state.unsent, start: 0 };
            leg.ended = state.ended;
            leg.has_moved = true;
            leg.progress_ms = now_ms.saturating_sub(state.progress_ago_ms);
            leg.blocked_since_ms = now_ms.saturating_sub(state.blocked_ago_ms);
            leg.blocked_ms = state.blocked_ms;
            leg
        })
    }
}

impl Flow {
    fn state(&self) -> FlowTotals {
        FlowTotals {
            state: match self.state {
                FlowState::Open => Direction::Open,
                FlowState::Draining => Direction::Draining,
                FlowState::Closed => Direction::Closed,
            },
            received: self.received,
            passed: self.passed,
            truncated: self.truncated,
        }
    }

    fn restore(state: &FlowTotals, least: usize) -> Self {
        let &FlowTotals { state, received, passed, truncated } = state;
        let state = match state {
            Direction::Open => FlowState::Open,
            Direction::Draining => FlowState::Draining,
            Direction::Closed => FlowState::Closed,
        };
        let Self { window, least, .. } = Self::new(least);
        Self { state, window, least, received, passed, truncated }
    }
}
