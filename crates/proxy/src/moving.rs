//! Open tunnels go over to another process, and come from one.
//!
//! Each side has a thread of its own, which may wait. That of the old process takes tunnels out of the relays, one worker
//! after the other, has the fronts say what they know of them, and sends all of it over a channel that it has shared with
//! nobody but its child; that of the new one binds them to its own newest generation and answers. Whoever the answer says
//! has a tunnel goes on with it ([`wssgate_handover`]).
//!
//! At a restart a service manager keeps them in between (`store`).

mod give;
mod land;
mod note;
pub(crate) mod store;
mod take;

pub use give::{Giving, Pass};
pub use store::{Stored, TakenUp, announced};
pub(crate) use take::Home;
pub use take::{Taken, Taking};
pub use wssgate_relay::moving::FORMAT;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use wssgate_handover::Parcel;
use wssgate_relay::RelayHandle;
use wssgate_relay::moving::{Binding, Fate, Frozen};
use wssgate_sys::memory::Secret;

use crate::tunnel::portable::{Bound, Stays};
use crate::worker::{Errand, Errands};

/// How long one process waits for the other while tunnels are between them.
const WAIT: Duration = Duration::from_secs(5);

/// What has become of a tunnel when nobody is at fault, and it may be offered again.
const NOT_NOW: u8 = 1;

/// A tunnel that cannot go on there.
const NOT_HERE: u8 = 2;

/// A worker, as far as its tunnels are concerned.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// Has the tunnels.
    pub(crate) relay: RelayHandle,
    /// The way to its front.
    pub(crate) errands: Errands,
}

/// Of tunnels that were taken out of a relay together, those that have a record: the number of each among all, and where
/// its record is.
type Places = Vec<(usize, Range<usize>)>;

/// How many tunnels something was said of, by what that was.
type Reasons = BTreeMap<String, u64>;

fn count(reasons: &mut Reasons, why: impl Into<String>, tunnels: u64) {
    *reasons.entry(why.into()).or_default() += tunnels;
}

impl Post {
    /// Adds to `records` what another process needs to go on with tunnels of this worker. It has heard of those that
    /// are `announced`, and for which that still holds. `stays` is told why some have no record. `None` if the worker has
    /// ended.
    fn pack(
        &self,
        frozen: &Frozen,
        announced: &HashSet<NonZeroU32>,
        records: &mut Secret,
        mut stays: impl FnMut(usize, Stays),
    ) -> Option<Places> {
        let mut places = Vec::with_capacity(frozen.len());
        let mut add = |at, write: &mut dyn FnMut(&mut Secret)| {
            let start = records.len();
            write(records);
            places.push((at, start..records.len()));
        };
        let (mut changed, mut tickets) = (Vec::new(), Vec::new());
        for (at, ticket) in frozen.tickets().into_iter().enumerate() {
            match frozen.as_announced(at).filter(|number| announced.contains(number)) {
                Some(number) => {
                    add(at, &mut |records| Frozen::record_as_announced(number, records));
                }
                None => {
                    changed.push(at);
                    tickets.push(ticket);
                }
            }
        }
        if changed.is_empty() {
            return (!self.errands.is_closed()).then_some(places);
        }
        let packed = self.errands.ask(|answer| Errand::Pack { tickets, answer })?;
        for (at, packed) in changed.into_iter().zip(packed) {
            match packed {
                Ok(packed) => add(at, &mut |records| frozen.record(at, &packed, records)),
                Err(why) => stays(at, why),
            }
        }
        Some(places)
    }

    /// Says what becomes of each of these tunnels of this worker. What was ordered while no relay had them holds for those
    /// that come back, too.
    fn settle(&self, frozen: Frozen, fates: &[Fate]) {
        let comes_back = |fate: &Fate| matches!(fate, Fate::Back | Fate::Stays);
        let back = frozen.tickets().into_iter().zip(fates).filter(|(_, fate)| comes_back(fate));
        let back = back.map(|(ticket, _)| ticket).collect();
        frozen.settle(|at| fates[at]);
        self.errands.send(Errand::Settle(back));
    }
}

/// What travels of these.
fn parcels<'p>(
    frozen: &'p Frozen,
    records: &'p Secret,
    places: &'p [(usize, Range<usize>)],
) -> Vec<Parcel<'p>> {
    let parcel = |(at, place): &(usize, Range<usize>)| Parcel {
        record: &records[place.clone()],
        sockets: frozen.sockets(*at),
    };
    places.iter().map(parcel).collect()
}

impl From<Bound> for Binding {
    fn from(bound: Bound) -> Self {
        let Bound { ticket, origin, label, timers, buffer_size, policy, meters, .. } = bound;
        Self { ticket, origin, label: Some(label), timers, buffer_size, policy, meters }
    }
}
