//! A connection to a peer that counts.

use std::sync::Arc;
use std::time::Instant;

use wssgate_config::model::TimeOf;

use super::health::Taken;
use super::peer::Peer;
use super::queue::Queue;

/// A counted connection to a peer. Dropping it gives the count back and says nothing of the peer's
/// health: that is known from [`Lease::alive`] and [`Lease::fail`] alone.
#[derive(Debug)]
pub struct Lease {
    peer: Arc<Peer>,
    /// Whether it is the only peer of its group.
    single: bool,
    taken: Taken,
    stage: Stage,
    /// What of it is timed, if anything.
    timed: Option<Timed>,
    /// Those who wait for it to be given back.
    pub(super) queue: Option<Arc<Queue>>,
}

/// What is timed of requests, where the method of the group wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    /// Requests that wait until this count as well.
    pub(super) inflight: Option<TimeOf>,
}

/// How far a [`Lease`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was said of the peer yet.
    Chosen,
    /// The peer has answered.
    Alive,
    /// It has switched protocols.
    Switched,
    /// The count was given back.
    Ended,
}

impl Lease {
    /// Of a peer that has counted it already.
    pub(super) fn new(
        peer: Arc<Peer>,
        single: bool,
        taken: Taken,
        timed: Option<Timed>,
        now: Instant,
    ) -> Self {
        if timed.is_some_and(|timed| timed.inflight.is_some()) {
            peer.state.pace.begin(now);
        }
        Self { peer, single, taken, stage: Stage::Chosen, timed, queue: None }
    }

    /// The peer.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The same, for who keeps it.
    pub(crate) fn shared_peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether it is the only peer of its group, so that trying another one is of no use.
    pub fn single(&self) -> bool {
        self.single
    }

    /// The peer has answered, so it is in use again at once; says whether it was not before. A
    /// tunnel may end only hours later, and how it ends then says nothing new.
    pub(super) fn alive(&mut self, now: Instant) -> bool {
        self.stage = Stage::Alive;
        self.time(TimeOf::Header, true, now);
        if self.single {
            self.peer.state.health.forget_failures();
            return false;
        }
        let returns = self.peer.answered(self.taken, now);
        if returns {
            self.wake_queue();
        }
        returns
    }

    /// The answer was a switch of protocols: how long the tunnel lives says nothing of the peer.
    pub fn switched(&mut self, now: Instant) {
        self.time(TimeOf::LastByte, true, now);
        self.stage = Stage::Switched;
        self.peer.state.tunnels.increment();
    }

    /// The connection failed, before an answer or right after it. Says whether the peer is now out
    /// of use for a while.
    pub fn fail(mut self, now: Instant) -> bool {
        let answered = self.stage != Stage::Chosen;
        self.peer.state.failures.increment();
        self.end(now);
        !self.single && self.peer.failed(self.taken, answered, now)
    }

    /// The request never reached the peer, so another one may find out whether it is back.
    pub fn unused(mut self) {
        if self.stage == Stage::Chosen {
            self.peer.state.health.unused(self.taken);
        }
        self.end(Instant::now());
    }

    /// Part of an answer is there. Only answers count in the average; a request that failed waits
    /// no longer all the same.
    fn time(&mut self, of: TimeOf, answered: bool, now: Instant) {
        let Some(timed) = &mut self.timed else { return };
        let took = self.taken.age(now);
        if answered {
            self.peer.state.pace.add(of, took);
        }
        if timed.inflight == Some(of) {
            timed.inflight = None;
            self.peer.state.pace.end(took, now);
        }
    }

    fn end(&mut self, now: Instant) {
        // An answer that was not read whole has no end.
        for of in [TimeOf::Header, TimeOf::LastByte] {
            self.time(of, false, now);
        }
        self.give_back();
    }

    fn give_back(&mut self) {
        if self.stage == Stage::Switched {
            self.peer.state.tunnels.decrement();
        }
        self.stage = Stage::Ended;
        self.peer.give_back();
        self.wake_queue();
    }

    fn wake_queue(&self) {
        if let Some(queue) = &self.queue {
            queue.wake();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The time is only asked for where somebody wants to know it.
        match self.stage {
            Stage::Ended => {}
            Stage::Chosen => {
                let now = Instant::now();
                self.end(now);
                // Unlike in nginx that is no success: who waits for a peer that hangs goes away
                // some time, and would bring it back into use.
                let Peer { state, rules, .. } = &*self.peer;
                state.health.abandoned(rules, self.taken, now);
            }
            Stage::Alive if self.timed.is_some() => {
                let now = Instant::now();
                self.time(TimeOf::LastByte, true, now);
                self.end(now);
            }
            Stage::Alive | Stage::Switched => self.give_back(),
        }
    }
}
