//! Tunnels that have come become those of one worker.

use std::os::fd::OwnedFd;

use wssgate_handover::Refusal;
use wssgate_relay::moving::{Arriving, Resume};

use super::{NOT_HERE, NOT_NOW, Post};
use crate::worker::Errand;

/// Tunnels that are bound to a worker, whose relay does not have them yet.
pub(super) struct Landed {
    post: Post,
    resumed: Vec<Resume>,
    tickets: Vec<u64>,
    /// Those that are none, by their places among the others.
    pub(super) refused: Vec<(usize, Refusal)>,
}

impl Post {
    /// The worker that has the fewest tunnels.
    pub(super) fn least(posts: &[Self]) -> Option<&Self> {
        posts.iter().filter(|post| !post.errands.is_closed()).min_by_key(|post| post.relay.live())
    }

    /// Binds tunnels to this worker, as far as that can be. Nothing happens to their sockets, but those of the others are
    /// closed.
    pub(super) fn land<'r>(
        &self,
        tunnels: impl Iterator<Item = (&'r [u8], [OwnedFd; 2])>,
    ) -> Landed {
        let mut landed =
            Landed { post: self.clone(), resumed: vec![], tickets: vec![], refused: vec![] };
        let (mut packed, mut arriving) = (Vec::new(), Vec::new());
        for (at, (record, sockets)) in tunnels.enumerate() {
            match Arriving::decode(record) {
                Ok(tunnel) => {
                    packed.push(tunnel.extra().to_vec());
                    arriving.push((at, tunnel, sockets));
                }
                Err(error) => landed.refused.push((at, refusal(NOT_HERE, &error))),
            }
        }
        let Some(bound) = self.errands.ask(|answer| Errand::Bind { packed, answer }) else {
            let ended = |at| (at, refusal(NOT_NOW, &"its worker has ended"));
            landed.refused.extend(arriving.iter().map(|(at, ..)| ended(*at)));
            return landed;
        };
        let mut forgotten = Vec::new();
        for ((at, tunnel, sockets), bound) in arriving.into_iter().zip(bound) {
            let binding = match bound {
                Ok(binding) => binding,
                Err(error) => {
                    let code = if error.is_final() { NOT_HERE } else { NOT_NOW };
                    landed.refused.push((at, refusal(code, &error)));
                    continue;
                }
            };
            let ticket = binding.ticket;
            match tunnel.bind(sockets, binding.into(), &self.relay) {
                Ok(tunnel) => {
                    landed.resumed.push(tunnel);
                    landed.tickets.push(ticket);
                }
                Err(error) => {
                    landed.refused.push((at, refusal(NOT_HERE, &error)));
                    forgotten.push(ticket);
                }
            }
        }
        if !forgotten.is_empty() {
            self.errands.send(Errand::Forget(forgotten));
        }
        landed
    }
}

impl Landed {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.resumed.len()
    }

    /// They are ours: the relay goes on with them.
    pub(super) fn go_on(self) {
        // A relay that has stopped closes them; the process is about to end.
        let _ = self.post.relay.resume(self.resumed);
        self.post.errands.send(Errand::Settle(self.tickets));
    }

    /// They are not ours, and their sockets are closed without a word.
    pub(super) fn forget(self) {
        drop(self.resumed);
        self.post.errands.send(Errand::Forget(self.tickets));
    }
}

fn refusal(code: u8, why: &impl std::fmt::Display) -> Refusal {
    Refusal { code, text: why.to_string() }
}
