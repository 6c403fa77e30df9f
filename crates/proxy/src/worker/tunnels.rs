//! The tunnels that the relay of a worker carries.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use slab::Slab;
use wssgate_relay::{EndCause, Totals, TunnelEnd, reclaim};

use crate::tunnel::Tunnel;

/// What hears of the end of each tunnel; a ticket is free again once its end was told.
#[derive(Default)]
pub(super) struct Tunnels {
    carried: RefCell<Slab<Tunnel>>,
    /// Removed from it, for [`reclaim::shrink`].
    removed: Cell<usize>,
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.carried.try_borrow().map(|carried| carried.len()).ok();
        formatter.debug_struct("Tunnels").field("count", &count).finish()
    }
}

impl Tunnels {
    /// A ticket for a tunnel.
    pub(super) fn enter(&self, tunnel: Tunnel) -> u64 {
        self.carried.borrow_mut().insert(tunnel) as u64
    }

    /// Tells an end. A ticket that is not in use is none of ours.
    pub(super) fn end(&self, ticket: u64, end: &TunnelEnd) {
        let Ok(key) = usize::try_from(ticket) else { return };
        // Taken out first: who hears of an end may begin something new.
        let ended = self.remove(key);
        if let Some(tunnel) = ended {
            tunnel.end(end);
        }
    }

    fn remove(&self, key: usize) -> Option<Tunnel> {
        let mut carried = self.carried.borrow_mut();
        let tunnel = carried.try_remove(key)?;
        let mut removed = self.removed.get();
        reclaim::shrink(&mut carried, &mut removed);
        self.removed.set(removed);
        Some(tunnel)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.carried.borrow().len()
    }
}

/// The end of a tunnel that the relay could not take or never told about.
pub(super) fn stopped() -> TunnelEnd {
    TunnelEnd {
        cause: EndCause::Stopped,
        duration: Duration::ZERO,
        client: Totals::default(),
        upstream: Totals::default(),
    }
}
