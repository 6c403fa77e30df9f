//! What a worker keeps of a tunnel, as bytes for another process of ours, and bound again there.
//!
//! A binary upgrade moves open tunnels to a process whose configuration may be another one. There a tunnel belongs to
//! the newest generation: to the location that has the same path through the same server ([`crate::generation::homes`]),
//! by whose settings it goes on, as if it had begun there. Where there is no such location, or it passes nothing on any more,
//! the tunnel keeps the settings that it came with ([`Gone`]). It is then shown in listings and counted where it was, as after a
//! reload, and drained and closed with the server that its client would come to now.
//!
//! What cannot be found again needs no place: a peer that is gone is one as after a reload, a zone that is gone counts
//! nothing, and a line for a log that is gone is dropped. What only the request could say is not asked for anew: a zone
//! that is new in the location does not count the tunnel, its client is not asked about by a `websocket_reauth` that is
//! new, and the times of `websocket_max_lifetime` and `websocket_expiry` are those with which it began. Only what holds a
//! whole request stays where it is ([`Stays`]).
//!
//! A record is a map of numbered fields, as are all its parts. A number is never used again for something else; unknown
//! fields are skipped. A value that this process does not know where it must is no tunnel that it could take
//! ([`Refusal::Unreadable`]).

mod kept;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use thiserror::Error;
use wssgate_config::model::{ListenAddr, LocationId, LogLevel};
use wssgate_relay::listing::Label;
use wssgate_relay::{Origin, Timers};
use wssgate_ws::conversation::{Meters, PerSide, Policy};

use super::about::{About, AboutState};
use super::conclusion::{Conclusion, ConclusionState};
use super::meters::{MeterState, Metered};
use super::{Tunnel, TunnelSession};
use crate::clock::SharedClock;
use crate::generation::homes::{Found, server_in};
use crate::generation::{Generation, Place};
use crate::limit::KeyState;
use crate::metrics::ServerSeries;
use crate::peers::sticky::{Learnt, PeerId, SessionKey};
use crate::peers::{Berth, Group, Lease, LeaseState};
use crate::site::Site;
use kept::{Kept, KeptState};

/// Why a tunnel cannot go to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Stays {
    /// Its access line looks at values of the end with a `map`, or at everybody's connections, or its log has a path of
    /// variables.
    #[error("its access line can only be made from its request")]
    Request,
    /// Requests are made again as that one was.
    #[error("its client is asked about again (websocket_reauth)")]
    Asked,
    /// Or there never was one of this ticket.
    #[error("it has ended")]
    Ended,
}

/// Why a tunnel of another process is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// It was written by a release that knows more, or is damaged.
    #[error("its record cannot be read")]
    Unreadable,
    /// So there is nowhere to go.
    #[error("the configuration has no server")]
    NoServer,
    /// This process ends itself.
    #[error("the other process is about to end")]
    Ending,
}

impl Refusal {
    /// Whether it is of no use to offer the tunnel again.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Unreadable)
    }
}

/// Where a tunnel is.
#[derive(Clone, Debug)]
pub(super) enum Spot {
    /// In this location.
    Here(LocationId),
    /// In one that its generation does not have.
    Gone(Rc<Gone>),
}

/// A location that is no more, as the tunnels that came from there need it.
#[derive(Debug)]
pub(super) struct Gone {
    /// The level of a server with which they end.
    near: LocationId,
    /// What they go to yet another process with, which may have the location.
    home: Box<[u8]>,
    settings: Box<[u8]>,
    /// What they count as.
    pub(super) series: Arc<ServerSeries>,
    place: Arc<Place>,
    kept: Kept,
}

impl Spot {
    /// The location that it is in, or near.
    pub(super) fn location(&self) -> LocationId {
        match self {
            Self::Here(location) => *location,
            Self::Gone(gone) => gone.near,
        }
    }
}

/// A tunnel that has come from another process, as its relay needs it.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Its ticket.
    pub(crate) ticket: u64,
    /// Where it belongs.
    pub(crate) origin: Origin,
    /// What listings tell of it.
    pub(crate) label: Label,
    /// How long to wait for what.
    pub(crate) timers: Timers,
    /// How much is read at once for a peer that is slow.
    pub(crate) buffer_size: usize,
    /// What holds in its WebSocket, if anybody is to look at its frames.
    pub(crate) policy: Option<Arc<Policy>>,
    /// Who counts what is sent in its WebSocket, if anybody does.
    pub(crate) meters: Option<Box<PerSide<Meters>>>,
}

/// A tunnel. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct TunnelState<'b> {
    /// The name of its location, which is a record of its own.
    #[b(0)]
    home: &'b ByteSlice,
    /// The settings of the location, likewise.
    #[b(1)]
    settings: &'b ByteSlice,
    #[b(2)]
    lease: LeaseState<'b>,
    #[b(3)]
    conclusion: ConclusionState<'b>,
    #[b(4)]
    about: AboutState<'b>,
    #[n(5)]
    #[cbor(default)]
    is_websocket: bool,
    #[b(6)]
    session: Option<SessionState<'b>>,
    /// The keys by which `limit_conn` counts it.
    #[b(7)]
    limits: Option<Vec<KeyState<'b>>>,
    #[b(8)]
    meters: Option<Vec<MeterState<'b>>>,
}

/// A session of `sticky learn`.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct SessionState<'b> {
    #[b(0)]
    zone: &'b ByteSlice,
    /// See [`SessionKey`].
    #[b(1)]
    key: &'b ByteSlice,
    /// The peer of the tunnel.
    #[b(2)]
    peer: &'b ByteSlice,
    #[n(3)]
    #[cbor(default)]
    new: bool,
    /// The peer of the session, while it is remembered.
    #[b(4)]
    remembered: Option<Box<ByteSlice>>,
}

impl TunnelSession {
    fn state(&self, now: Instant) -> SessionState<'_> {
        let remembered = self.sessions.find(self.key, now);
        SessionState {
            zone: self.sessions.name().into(),
            key: self.key.as_bytes().into(),
            peer: self.peer.as_bytes().into(),
            new: self.new,
            remembered: remembered.map(|peer| Box::<[u8]>::from(peer.as_bytes()).into()),
        }
    }
}

impl Tunnel {
    /// Where it belongs.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            generation: self.generation().number,
            // Nobody writes as many.
            location: self.conclusion.location().0 as u32,
            server: self.peer().number(),
        }
    }
}

/// Packs tunnels, many at a time.
pub(super) struct Packer {
    clock: SharedClock,
    /// The settings of locations, by generation.
    settings: HashMap<(u64, LocationId), Vec<u8>>,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self { clock: SharedClock::now(), settings: HashMap::new() }
    }

    /// What another process has to know of a tunnel.
    pub(super) fn pack(&mut self, tunnel: &Tunnel) -> Result<Vec<u8>, Stays> {
        if tunnel.asked.is_some() {
            return Err(Stays::Asked);
        }
        let generation = tunnel.generation();
        let (home, settings) = match tunnel.conclusion.spot() {
            Spot::Here(location) => {
                let key = (generation.number, *location);
                let settings = self.settings.entry(key);
                let settings = settings.or_insert_with(|| kept::encode(generation, *location));
                (generation.homes().name(*location), &**settings)
            }
            Spot::Gone(gone) => (&*gone.home, &*gone.settings),
        };
        // Made of nothing else.
        let about = tunnel.label.about::<About>().ok_or(Stays::Ended)?;
        let limits: Vec<_> = tunnel.limits.iter().map(crate::limit::Held::state).collect();
        let session = tunnel.session.as_deref();
        let state = TunnelState {
            home: home.into(),
            settings: settings.into(),
            lease: tunnel.lease.state(),
            conclusion: tunnel.conclusion.state(&self.clock)?,
            about: about.state(),
            is_websocket: tunnel.is_websocket,
            session: session.map(|session| session.state(Instant::now())),
            limits: (!limits.is_empty()).then_some(limits),
            meters: tunnel.metered.as_ref().map(|metered| metered.state()),
        };
        let mut record = Vec::with_capacity(768);
        // A vector takes everything.
        let _ = minicbor::encode(&state, &mut record);
        Ok(record)
    }
}

/// Of a location.
type NameAndSettings = (Box<[u8]>, Box<[u8]>);

/// Binds the tunnels of another process to the newest generation, many at a time.
pub(super) struct Binder<'s> {
    site: &'s Rc<Site>,
    generation: Arc<Generation>,
    clock: SharedClock,
    now: Instant,
    /// What was found, by the names of locations.
    found: HashMap<Box<[u8]>, Found>,
    gone: HashMap<NameAndSettings, Rc<Gone>>,
    groups: HashMap<Arc<[u8]>, Arc<Group>>,
    /// By the names of groups.
    berths: HashMap<Box<[u8]>, HashMap<ListenAddr, Berth>>,
}

impl<'s> Binder<'s> {
    pub(super) fn new(site: &'s Rc<Site>) -> Result<Self, Refusal> {
        let generation = site.generation();
        let has_server = generation.config.http.as_ref().is_some_and(|it| !it.servers.is_empty());
        if !has_server {
            return Err(Refusal::NoServer);
        }
        // Of two with one name it is the first that goes on, as in a reload.
        let groups = generation.upstreams.iter().rev();
        let groups = groups.map(|group| (Arc::clone(&group.name), Arc::clone(group))).collect();
        Ok(Self {
            site,
            clock: SharedClock::now(),
            now: Instant::now(),
            found: HashMap::new(),
            gone: HashMap::new(),
            groups,
            berths: HashMap::new(),
            generation,
        })
    }

    /// A tunnel, and what its relay needs of it, still without a ticket.
    pub(super) fn bind(&mut self, record: &[u8]) -> Result<(Tunnel, Bound), Refusal> {
        let state: TunnelState<'_> = minicbor::decode(record).map_err(|_| Refusal::Unreadable)?;
        let spot = self.spot(state.home, state.settings)?;
        let lease = self.lease(&state.lease)?;
        let place = match &spot {
            Spot::Here(location) => self.generation.place(*location),
            Spot::Gone(gone) => &gone.place,
        };
        let peer = Arc::clone(lease.shared_peer());
        let label = Label::new(About::restore(&state.about, Arc::clone(place), peer));
        let conclusion = Conclusion::restore(
            &state.conclusion,
            &self.generation,
            &spot,
            self.site.id,
            &self.clock,
        );
        let states = state.meters.as_deref().unwrap_or_default();
        let metered = match state.is_websocket {
            true => Metered::restore(states, &self.generation, &spot),
            false => None,
        };
        let tunnel = Tunnel {
            conclusion,
            lease,
            session: state.session.and_then(|session| self.session(&session, &state.lease)),
            open: self.site.open(),
            asked: None,
            limits: state.limits.iter().flatten().filter_map(|key| self.held(key)).collect(),
            metered,
            label,
            is_websocket: state.is_websocket,
        };
        let bound = self.bound(&tunnel, &spot);
        Ok((tunnel, bound))
    }

    fn bound(&self, tunnel: &Tunnel, spot: &Spot) -> Bound {
        let is_websocket = tunnel.is_websocket;
        let (timers, buffer_size, policy) = match spot {
            Spot::Here(id) => {
                let location = &self.generation.http().locations[id.0];
                let timers = super::timers(location, is_websocket);
                (timers, location.proxy.buffer_size, self.generation.policy(*id).cloned())
            }
            Spot::Gone(gone) => {
                let Kept { timers, buffer_size, policy } = &gone.kept;
                let progress = timers.progress.filter(|_| is_websocket);
                (Timers { progress, ..*timers }, *buffer_size, policy.clone())
            }
        };
        Bound {
            ticket: 0,
            origin: tunnel.origin(),
            label: tunnel.label.clone(),
            timers,
            buffer_size,
            policy: policy.filter(|_| is_websocket),
            meters: tunnel.metered.as_ref().map(|metered| metered.meters()),
        }
    }

    fn spot(&mut self, home: &[u8], settings: &[u8]) -> Result<Spot, Refusal> {
        let found = match self.found.get(home) {
            Some(found) => *found,
            None => {
                let homes = self.generation.homes();
                let found = homes.find(self.generation.http(), home).ok_or(Refusal::Unreadable)?;
                self.found.insert(home.into(), found);
                found
            }
        };
        match found {
            Found::Here(location) => Ok(Spot::Here(location)),
            Found::Near(near) => self.gone(near, home, settings).map(Spot::Gone),
        }
    }

    fn gone(
        &mut self,
        near: LocationId,
        home: &[u8],
        settings: &[u8],
    ) -> Result<Rc<Gone>, Refusal> {
        let key = (home.into(), settings.into());
        if let Some(gone) = self.gone.get(&key) {
            return Ok(Rc::clone(gone));
        }
        let kept: KeptState<'_> = minicbor::decode(settings).map_err(|_| Refusal::Unreadable)?;
        let server = server_in(home).ok_or(Refusal::Unreadable)?;
        let registry = &self.site.all_metrics.registry;
        let series = registry.servers([server], self.generation.workers);
        let gone = Rc::new(Gone {
            near,
            home: home.into(),
            settings: settings.into(),
            series: series.into_iter().next().ok_or(Refusal::Unreadable)?,
            place: Arc::new(kept.place()),
            kept: kept.kept(),
        });
        self.gone.insert(key, Rc::clone(&gone));
        Ok(gone)
    }

    fn lease(&mut self, state: &LeaseState<'_>) -> Result<Lease, Refusal> {
        let address = state.address.address().ok_or(Refusal::Unreadable)?;
        if let Some(berth) = self.berths.get(&state.group[..]).and_then(|it| it.get(&address)) {
            return Ok(berth.lease(self.now));
        }
        let berth = match self.groups.get(&state.group[..]) {
            Some(group) => Berth::of(group, &address),
            None => Berth::of_nobody(state.group, &address),
        };
        let lease = berth.lease(self.now);
        self.berths.entry(state.group[..].into()).or_default().insert(address, berth);
        Ok(lease)
    }

    /// The session of a tunnel, if its zone is there, and is remembered there from now on if it was before.
    fn session(
        &self,
        state: &SessionState<'_>,
        lease: &LeaseState<'_>,
    ) -> Option<Box<TunnelSession>> {
        let key = SessionKey::from_bytes(state.key)?;
        let peer = PeerId::new(state.peer)?;
        let group = self.groups.get(&lease.group[..])?;
        let sessions = group.sessions.as_ref().filter(|it| it.name() == &state.zone[..])?;
        let remembered = state.remembered.as_ref().and_then(|peer| PeerId::new(peer));
        if let Some(peer) = remembered
            && sessions.find(key, self.now).is_none()
            && sessions.learn(key, peer, true, self.now) == Learnt::FirstLost
        {
            let log = self.generation.logs.main();
            log.write(LogLevel::Warn, None, sessions.full());
        }
        Some(Box::new(TunnelSession { sessions: Arc::clone(sessions), key, peer, new: state.new }))
    }

    fn held(&self, state: &KeyState<'_>) -> Option<crate::limit::Held> {
        self.generation.limit_zones.connections_of(state)?.take_over(state.key())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
