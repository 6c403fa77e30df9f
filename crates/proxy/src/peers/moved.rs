//! Connections to peers that another process of ours has begun.
//!
//! A peer is known there by its group's name and its address, as between two generations.

use std::sync::Arc;
use std::time::Instant;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use wssgate_config::model::{ListenAddr, Recovery, UpstreamServer};

use super::checked::Rules as Checks;
use super::group::Group;
use super::health::Taken;
use super::lease::Lease;
use super::peer::{Peer, State};
use super::queue::Queue;
use crate::portable::AddressState;

/// What another process has to know of a [`Lease`]. Numbers of fields are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct LeaseState<'b> {
    /// The name of the group.
    #[b(0)]
    pub(crate) group: &'b ByteSlice,
    /// Where the peer is.
    #[b(1)]
    pub(crate) address: AddressState<'b>,
}

impl Lease {
    /// What another process has to know to go on with it.
    pub(crate) fn state(&self) -> LeaseState<'_> {
        let Peer { group, address, .. } = self.peer();
        LeaseState { group: (&**group).into(), address: address.into() }
    }
}

/// A peer as one that has connections of another process.
#[derive(Debug)]
pub(crate) struct Berth {
    peer: Arc<Peer>,
    single: bool,
    queue: Option<Arc<Queue>>,
}

impl Berth {
    /// At this address of the group, whether it is one of the group's now or not.
    pub(crate) fn of(group: &Group, address: &ListenAddr) -> Self {
        let (peer, single) = match group.peer_at(address) {
            Some(found) => found,
            // As if it had been removed by a reload.
            None => (group.former_peer(address), true),
        };
        Self { peer, single, queue: group.queue() }
    }

    /// At an address of a group that there is no more.
    pub(crate) fn of_nobody(group: &[u8], address: &ListenAddr) -> Self {
        let state = Arc::new(State::new(&Checks::default()));
        Self { peer: former(&group.into(), address, state), single: true, queue: None }
    }

    /// Takes a connection over that has switched protocols. It counts, however many there may be.
    pub(crate) fn lease(&self, now: Instant) -> Lease {
        self.peer.count_anyway();
        let mut lease =
            Lease::new(Arc::clone(&self.peer), self.single, Taken::over(now), None, now);
        lease.switched(now);
        lease.queue = self.queue.clone();
        lease
    }
}

/// A peer that no line of the configuration has.
pub(super) fn former(group: &Arc<[u8]>, address: &ListenAddr, state: Arc<State>) -> Arc<Peer> {
    let server = UpstreamServer::new(address.to_string().into_bytes().into(), Vec::new());
    Arc::new(Peer::new(&server, Recovery::Eager, 0, (group, address), state))
}
