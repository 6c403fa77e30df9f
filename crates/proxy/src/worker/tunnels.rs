//! Who waits for the end of which tunnel.

use std::cell::RefCell;
use std::time::Duration;

use slab::Slab;
use tokio::sync::oneshot;

use crate::relay::{EndCause, Totals, TunnelEnd};

/// The tunnels of one worker that its relay has; a ticket is free again once its end was told.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    waiting: RefCell<Slab<oneshot::Sender<TunnelEnd>>>,
}

impl Tunnels {
    /// A ticket, and where the end of its tunnel will be told.
    pub(super) fn enter(&self) -> (u64, oneshot::Receiver<TunnelEnd>) {
        let (sender, receiver) = oneshot::channel();
        let key = self.waiting.borrow_mut().insert(sender);
        (key as u64, receiver)
    }

    /// Tells an end.
    pub(super) fn end(&self, ticket: u64, end: TunnelEnd) {
        let key = usize::try_from(ticket).ok();
        if let Some(sender) = key.and_then(|key| self.waiting.borrow_mut().try_remove(key)) {
            // Nobody waits any more if the task was dropped.
            let _ = sender.send(end);
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_end_reaches_the_one_who_waits_and_frees_the_ticket() {
        let tunnels = Tunnels::default();
        let (first, mut first_end) = tunnels.enter();
        let (second, mut second_end) = tunnels.enter();
        assert_ne!(first, second);
        tunnels.end(first, stopped());
        assert_eq!(first_end.try_recv().unwrap().cause, EndCause::Stopped);
        assert!(second_end.try_recv().is_err());
        assert_eq!(tunnels.enter().0, first);
    }

    #[test]
    fn an_end_that_nobody_waits_for_is_no_fault() {
        let tunnels = Tunnels::default();
        let (ticket, end) = tunnels.enter();
        drop(end);
        tunnels.end(ticket, stopped());
        tunnels.end(ticket, stopped());
        tunnels.end(u64::MAX, stopped());
    }
}
