//! The tunnels that the relay of a worker carries.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::Notify;
use wssgate_config::model::OnDown;
use wssgate_relay::reclaim;
use wssgate_relay::{
    Drain, DrainProgress, EndCause, Handover, Paces, RelayHandle, Report, Selection, Stopped,
    Totals, TunnelEnd, Whom, Why,
};
use wssgate_ws::conversation::{Cause, Lapse};

use crate::generation::{Generation, draining};
use crate::site::{Phase, Site};
use crate::tunnel::Tunnel;
use crate::tunnel::about::About;
use crate::tunnel::portable::{Binder, Bound, Packer, Refusal, Stays};
use crate::tunnel::reauth::{Answer, Asked, Waiting};

/// What hears of the end of each tunnel; a ticket is free again once its end was told.
pub(crate) struct Tunnels {
    relay: RelayHandle,
    /// Tells that the relay is to be woken for what was handed over.
    handed_over: Notify,
    carried: RefCell<Slab<Tunnel>>,
    /// Whose clients are asked about again.
    waiting: Waiting,
    /// Removed from it, for [`reclaim::shrink`].
    removed: Cell<usize>,
    /// The drains of tunnels of unhealthy peers, by the numbers of generation and peer.
    drained: RefCell<HashMap<(u64, u32), Arc<DrainProgress>>>,
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.carried.try_borrow().map(|carried| carried.len()).ok();
        formatter.debug_struct("Tunnels").field("count", &count).finish()
    }
}

impl Tunnels {
    /// No tunnels yet; `relay` will carry them.
    pub(crate) fn new(relay: RelayHandle) -> Self {
        Self {
            relay,
            handed_over: Notify::new(),
            carried: RefCell::default(),
            waiting: Waiting::default(),
            removed: Cell::default(),
            drained: RefCell::default(),
        }
    }

    /// Gives a tunnel to the relay; `tunnel` hears of its end. The ticket is filled in here.
    ///
    /// When its generation expires, the main thread has the relay close it.
    pub(crate) fn carry(&self, mut handover: Handover, tunnel: Tunnel, site: &Site) {
        let ticket = self.enter(tunnel);
        handover.ticket = ticket;
        match self.hand_over(handover) {
            Ok(()) => self.settle(ticket, site),
            Err(Stopped) => self.end(ticket, &stopped()),
        }
    }

    /// Ends a tunnel that the relay has only now, where orders to end it may have come before it was there.
    pub(crate) fn settle(&self, ticket: u64, site: &Site) {
        let carried = self.carried.borrow();
        let tunnel = usize::try_from(ticket).ok().and_then(|key| carried.get(key));
        let Some(tunnel) = tunnel else { return };
        tunnel.arrive();
        let life = tunnel.generation().life();
        if life.has_expired() {
            // The request to close this generation may have come before the tunnel did.
            let cause = match site.phase() {
                Phase::Stopping => EndCause::Stopped,
                Phase::Serving | Phase::Leaving | Phase::Yielding | Phase::Draining => {
                    EndCause::Drained
                }
            };
            let _ = self.relay.close(Selection::Ticket(ticket), cause);
        } else if let Some(draining) = life.draining()
            && let Some(drain) = draining.late(ticket, tunnel.origin().location, Instant::now())
        {
            // And so may the one to drain it; who has its time already keeps it.
            let _ = self.relay.drain(drain);
        }
        if let Some(cause) = end_of_unhealthy(tunnel.peer().on_down()) {
            // The same of the end of all tunnels of this peer.
            let _ = self.relay.close(Selection::Ticket(ticket), cause);
        }
        let about = tunnel.label.about::<About>();
        if about.is_some_and(|about| about.is_revoked(&site.revocations)) {
            // Whoever has revoked it meanwhile may have looked for it before it was there.
            let cause = EndCause::Closed(Cause::Credentials(Lapse::Revoked));
            let _ = self.relay.close(Selection::Ticket(ticket), cause);
        }
    }

    /// Ends the tunnels of peers that health checks have found unhealthy, where that is wanted, and leaves those in peace
    /// that are still there when their peers are well again.
    pub(crate) fn end_those_of_unhealthy_peers(&self) {
        let carried = self.carried.borrow();
        let mut before = self.drained.take();
        let (mut drained, mut closed) = (HashMap::new(), HashSet::new());
        for (_, tunnel) in carried.iter() {
            let (peer, generation) = (tunnel.peer(), tunnel.generation());
            match peer.on_down() {
                OnDown::Keep => {}
                OnDown::Close if closed.insert(peer.number()) => {
                    let peer = Selection::Server(peer.number());
                    let _ = self.relay.close(peer, EndCause::Unhealthy);
                }
                OnDown::Close => {}
                OnDown::Drain => {
                    let key = (generation.number, peer.number());
                    drained.entry(key).or_insert_with(|| {
                        let under_way = before.remove(&key).filter(|progress| !is_over(progress));
                        under_way.unwrap_or_else(|| self.drain_unhealthy(generation, key.1))
                    });
                }
            }
        }
        for progress in before.into_values() {
            let _ = self.relay.cancel_drain(&progress);
        }
        self.drained.replace(drained);
    }

    /// Drains the tunnels of a generation to a peer at the pace of `websocket_drain`.
    fn drain_unhealthy(&self, generation: &Generation, peer: u32) -> Arc<DrainProgress> {
        // The log tells of each tunnel, and nobody waits for the last.
        let progress = DrainProgress::new(|| {});
        let _ = self.relay.drain(Drain {
            whom: Whom::Selected(Selection::ServerIn(generation.number, peer)),
            why: Why::Unhealthy,
            paces: Paces::ByLocation(draining::paces_of_unhealthy(generation)),
            words: None,
            // Who is drained already ends in the words of who has ordered that.
            takes_over: false,
            seed: draining::seed(),
            progress: Arc::clone(&progress),
        });
        progress.all_have_it();
        progress
    }

    /// Gives sockets to the relay, which [`Tunnels::wake_relay`] then wakes.
    pub(crate) fn hand_over(&self, handover: Handover) -> Result<(), Stopped> {
        self.relay.hand_over(handover)?;
        self.handed_over.notify_one();
        Ok(())
    }

    /// Wakes the relay for what was handed over, after everybody who has something to do now had a
    /// turn, for they may hand over too. That is soon, however busy the front is.
    pub(crate) async fn wake_relay(&self) {
        loop {
            self.handed_over.notified().await;
            tokio::task::yield_now().await;
            self.relay.wake();
        }
    }

    /// A ticket for a tunnel.
    fn enter(&self, tunnel: Tunnel) -> u64 {
        let asked = tunnel.asked.clone();
        let ticket = self.carried.borrow_mut().insert(tunnel) as u64;
        if let Some(asked) = asked {
            self.waiting.begin(ticket, &asked);
        }
        ticket
    }

    /// The next WebSocket whose client is to be asked about (`websocket_reauth`). Whoever takes it says what the
    /// answer was, by [`Self::on_answer`].
    pub(crate) async fn next_asked(&self) -> (u64, Rc<Asked>) {
        loop {
            let ticket = self.waiting.next().await;
            if let Some(asked) = self.asked(ticket) {
                Waiting::taken(&asked);
                return (ticket, asked);
            }
        }
    }

    /// A client was asked about; its WebSocket may have ended meanwhile, and another one have its ticket.
    pub(crate) fn on_answer(&self, ticket: u64, asked: &Rc<Asked>, answer: Answer) {
        if !self.asked(ticket).is_some_and(|of_ticket| Rc::ptr_eq(&of_ticket, asked)) {
            return;
        }
        match answer {
            Answer::Denied => {
                let cause = EndCause::Closed(Cause::Credentials(Lapse::Refused));
                let _ = self.relay.close(Selection::Ticket(ticket), cause);
                // No relay need have it at this moment; who has ended is not asked about again.
                self.waiting.again(ticket, asked);
            }
            Answer::Allowed | Answer::Unknown => self.waiting.again(ticket, asked),
        }
    }

    fn asked(&self, ticket: u64) -> Option<Rc<Asked>> {
        self.carried.borrow().get(usize::try_from(ticket).ok()?)?.asked.clone()
    }

    /// Passes on what the relay tells of a tunnel. A ticket that is not in use is none of ours.
    pub(crate) fn tell(&self, ticket: u64, report: Report) {
        match report {
            Report::End(end) => self.end(ticket, &end),
            Report::Moved => self.forget(ticket),
            Report::Note(notes) => {
                let carried = self.carried.borrow();
                let tunnel = usize::try_from(ticket).ok().and_then(|key| carried.get(key));
                if let Some(tunnel) = tunnel {
                    tunnel.note(&notes);
                }
            }
            Report::Progress(progress) => {
                let mut carried = self.carried.borrow_mut();
                let tunnel = usize::try_from(ticket).ok().and_then(|key| carried.get_mut(key));
                if let Some(tunnel) = tunnel {
                    tunnel.tell(*progress);
                }
            }
        }
    }

    /// Tells an end.
    fn end(&self, ticket: u64, end: &TunnelEnd) {
        let Ok(key) = usize::try_from(ticket) else { return };
        // Taken out first: who hears of an end may begin something new.
        let ended = self.remove(key);
        if let Some(tunnel) = ended {
            // Nobody may have said before that it has come.
            tunnel.arrive();
            tunnel.end(end);
        }
    }

    /// A tunnel goes on in another process, or was only about to come from there: nothing is said of it, and all that
    /// counts it is given back.
    pub(crate) fn forget(&self, ticket: u64) {
        let Ok(key) = usize::try_from(ticket) else { return };
        if let Some(tunnel) = self.remove(key) {
            tunnel.leave();
        }
    }

    /// Whether there is a tunnel of this ticket.
    pub(crate) fn knows(&self, ticket: u64) -> bool {
        usize::try_from(ticket).is_ok_and(|key| self.carried.borrow().contains(key))
    }

    /// What another process has to know of each of these tunnels, to go on with it by [`Self::bind`]; or why it stays
    /// here.
    pub(crate) fn pack(&self, tickets: &[u64]) -> Vec<Result<Vec<u8>, Stays>> {
        let carried = self.carried.borrow();
        let mut packer = Packer::new();
        let pack = |ticket: &u64| {
            let tunnel = usize::try_from(*ticket).ok().and_then(|key| carried.get(key));
            tunnel.ok_or(Stays::Ended).and_then(|tunnel| packer.pack(tunnel))
        };
        tickets.iter().map(pack).collect()
    }

    /// Enters tunnels that another process has packed, bound to the newest generation. The relay is given each with
    /// what the answer says; then [`Self::settle`] is called for it, or [`Self::forget`] if it does not come after all.
    pub(crate) fn bind(&self, records: &[&[u8]], site: &Rc<Site>) -> Vec<Result<Bound, Refusal>> {
        let mut binder = match Binder::new(site) {
            Ok(binder) => binder,
            Err(refusal) => return records.iter().map(|_| Err(refusal)).collect(),
        };
        let bind = |record: &&[u8]| {
            let (tunnel, bound) = binder.bind(record)?;
            Ok(Bound { ticket: self.enter(tunnel), ..bound })
        };
        records.iter().map(bind).collect()
    }

    fn remove(&self, key: usize) -> Option<Tunnel> {
        let mut carried = self.carried.borrow_mut();
        let tunnel = carried.try_remove(key)?;
        if let Some(asked) = &tunnel.asked {
            self.waiting.end(key as u64, asked);
        }
        let mut removed = self.removed.get();
        reclaim::shrink(&mut carried, &mut removed);
        self.removed.set(removed);
        Some(tunnel)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.carried.borrow().len()
    }
}

fn is_over(progress: &DrainProgress) -> bool {
    progress.counts().is_some_and(|counts| counts.is_over())
}

/// How a tunnel ends that begins when its peer is unhealthy, if it does.
fn end_of_unhealthy(on_down: OnDown) -> Option<EndCause> {
    match on_down {
        OnDown::Keep => None,
        OnDown::Drain => Some(EndCause::Closed(Cause::Unhealthy)),
        OnDown::Close => Some(EndCause::Unhealthy),
    }
}

/// The end of a tunnel that the relay could not take.
fn stopped() -> TunnelEnd {
    TunnelEnd {
        cause: EndCause::Stopped,
        duration: Duration::ZERO,
        first_close: None,
        client: Totals::default(),
        upstream: Totals::default(),
    }
}
