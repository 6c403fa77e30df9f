//! What other threads have the front of a worker do while tunnels move between processes.

use std::rc::Rc;
use std::sync::mpsc as std_mpsc;

use tokio::sync::mpsc;

use crate::site::{Phase, Site};
use crate::tunnel::portable::{Bound, Refusal, Stays};
use crate::tunnel::table::Tunnels;

/// One of them.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Says what is known of tunnels besides what the relay knows.
    Pack {
        /// Which ones.
        tickets: Vec<u64>,
        /// In the same order.
        answer: std_mpsc::Sender<Vec<Result<Vec<u8>, Stays>>>,
    },
    /// Says whether any of these has not been forgotten yet.
    Know {
        /// Which ones.
        tickets: Vec<u64>,
        /// Whether.
        answer: std_mpsc::Sender<bool>,
    },
    /// Takes in tunnels that another process has packed; the relay gets them, or [`Errand::Forget`] follows.
    Bind {
        /// What that said.
        packed: Vec<Vec<u8>>,
        /// In the same order.
        answer: std_mpsc::Sender<Vec<Result<Bound, Refusal>>>,
    },
    /// The relay has these, which came from another process or have come back: what was ordered while no relay had them
    /// holds for them too.
    Settle(Vec<u64>),
    /// These were not ours after all.
    Forget(Vec<u64>),
}

/// The way to a front. Bounded by who sends, for each waits for the answer before the next.
#[derive(Clone, Debug)]
pub(crate) struct Errands(mpsc::UnboundedSender<Errand>);

impl Errands {
    /// With the other end, for [`run`].
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Errand>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Has something done; nothing if the worker has ended.
    pub(crate) fn send(&self, errand: Errand) {
        // Who waits for an answer sees that none comes.
        let _ = self.0.send(errand);
    }

    /// Whether the worker has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Has something done and waits for the answer; `None` if the worker has ended.
    pub(crate) fn ask<T>(&self, errand: impl FnOnce(std_mpsc::Sender<T>) -> Errand) -> Option<T> {
        let (answer, answered) = std_mpsc::channel();
        self.send(errand(answer));
        answered.recv().ok()
    }
}

/// Does what is asked for, until nobody is left who could.
pub(super) async fn run(
    mut errands: mpsc::UnboundedReceiver<Errand>,
    tunnels: Rc<Tunnels>,
    site: Rc<Site>,
) {
    while let Some(errand) = errands.recv().await {
        // Who has asked may be gone.
        match errand {
            Errand::Pack { tickets, answer } => {
                let _ = answer.send(tunnels.pack(&tickets));
            }
            Errand::Know { tickets, answer } => {
                let _ = answer.send(tickets.into_iter().any(|ticket| tunnels.knows(ticket)));
            }
            Errand::Bind { packed, answer } => {
                let packed: Vec<_> = packed.iter().map(Vec::as_slice).collect();
                let bound = match site.phase() >= Phase::Draining {
                    true => packed.iter().map(|_| Err(Refusal::Ending)).collect(),
                    false => tunnels.bind(&packed, &site),
                };
                if let Err(std_mpsc::SendError(unheard)) = answer.send(bound) {
                    unheard.into_iter().flatten().for_each(|it| tunnels.forget(it.ticket));
                }
            }
            Errand::Settle(tickets) => {
                tickets.into_iter().for_each(|ticket| tunnels.settle(ticket, &site));
            }
            Errand::Forget(tickets) => {
                tickets.into_iter().for_each(|ticket| tunnels.forget(ticket));
            }
        }
    }
}
