//! How the WebSockets of a generation are closed one after the other (`websocket_drain`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use wssgate_config::model::{DrainOrder, DrainPace, LocationId, TunnelSettings};
use wssgate_relay::{Drain, DrainProgress, Order, Pace, Paces, Selection, Whom, Why};
use wssgate_ws::CloseCode;

use crate::generation::Generation;

/// How the tunnels of an unhealthy server are closed where `websocket_drain` says nothing: soon, for nobody answers there,
/// and yet not so that their clients all come back at once.
const OF_UNHEALTHY: Pace = Pace {
    over: Duration::from_secs(5),
    code: CloseCode::GOING_AWAY,
    order: Order::Oldest,
    jitter: Duration::from_millis(500),
};

/// What begins a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// A reload, where that is wanted.
    Reload,
    /// QUIT.
    Quit,
}

/// A drain of one generation.
#[derive(Debug)]
pub(crate) struct Draining {
    /// By [`LocationId`].
    pub(crate) paces: Arc<[Option<Pace>]>,
    /// When it began.
    pub(crate) began: Instant,
    /// How far it is.
    pub(crate) progress: Arc<DrainProgress>,
}

impl Draining {
    /// How long the longest of the paces takes.
    pub(crate) fn over(&self) -> Duration {
        self.paces.iter().flatten().map(|pace| pace.over).max().unwrap_or_default()
    }

    /// Whether the tunnels of this location are drained.
    pub(crate) fn drains(&self, location: LocationId) -> bool {
        self.paces.get(location.0).is_some_and(Option::is_some)
    }

    /// The order to drain a tunnel that has begun only now, in what is left of the time; `None` if its location
    /// is not drained.
    pub(crate) fn late(&self, ticket: u64, location: u32, now: Instant) -> Option<Drain> {
        let pace = Paces::ByLocation(Arc::clone(&self.paces)).of(location)?;
        let over = pace.over.saturating_sub(now.saturating_duration_since(self.began));
        Some(Drain {
            whom: Whom::Selected(Selection::Ticket(ticket)),
            why: Why::Ordered,
            paces: Paces::One(Pace { over, ..pace }),
            words: None,
            takes_over: false,
            seed: seed(),
            progress: Arc::clone(&self.progress),
        })
    }
}

/// The paces of the locations of a generation; `None` if none of them is drained.
pub(crate) fn paces(generation: &Generation, beginning: Beginning) -> Option<Arc<[Option<Pace>]>> {
    let locations = &generation.config.http.as_ref()?.locations;
    let paces = locations.iter().map(|location| pace_of(&location.proxy.tunnels, beginning));
    let paces: Arc<[_]> = paces.collect();
    paces.iter().any(Option::is_some).then_some(paces)
}

/// The paces at which the tunnels of a server are closed that has become unhealthy (`on_down=drain`).
pub(crate) fn paces_of_unhealthy(generation: &Generation) -> Arc<[Option<Pace>]> {
    let locations = generation.config.http.iter().flat_map(|http| &http.locations);
    let pace = |tunnels| pace_of(tunnels, Beginning::Quit).or(Some(OF_UNHEALTHY));
    locations.map(|location| pace(&location.proxy.tunnels)).collect()
}

fn pace_of(tunnels: &TunnelSettings, beginning: Beginning) -> Option<Pace> {
    let wanted = |pace: &DrainPace| beginning == Beginning::Quit || pace.reload;
    let pace = tunnels.drain.filter(wanted)?;
    Some(Pace {
        over: pace.over,
        code: CloseCode(pace.code),
        order: match pace.order {
            DrainOrder::Oldest => Order::Oldest,
            DrainOrder::Idlest => Order::Idlest,
        },
        jitter: pace.jitter,
    })
}

/// What the chance of one relay is made of. Without random numbers all have the same, which only makes them
/// shuffle alike.
pub(crate) fn seed() -> u64 {
    let mut seed = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut seed);
    u64::from_le_bytes(seed)
}
