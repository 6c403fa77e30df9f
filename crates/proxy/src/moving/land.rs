//! Tunnels that have come become those of our workers.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;

use wssgate_handover::Refusal;
use wssgate_relay::moving::{Arriving, Expected, Resume};

use super::{NOT_HERE, NOT_NOW, Post};
use crate::tunnel::portable;
use crate::worker::Errand;

/// A tunnel that is bound to a worker, and has a ticket there.
pub(super) type Bound = (u64, Expected);

impl Post {
    /// The number of the worker that has the fewest tunnels, of those that have not ended; `expecting` says how many more
    /// each is to get.
    pub(super) fn least(posts: &[Self], expecting: impl Fn(usize) -> usize) -> Option<usize> {
        let working = posts.iter().enumerate().filter(|(_, post)| !post.errands.is_closed());
        let tunnels = |(worker, post): &(usize, &Self)| post.relay.live() + expecting(*worker);
        working.min_by_key(tunnels).map(|(worker, _)| worker)
    }

    /// Binds tunnels to this worker, as far as that can be. Each that is bound is then to be carried or forgotten.
    pub(super) fn bind(&self, arriving: Vec<Arriving<'_>>) -> Vec<Result<Bound, Refusal>> {
        let packed = arriving.iter().map(|tunnel| tunnel.extra().to_vec()).collect();
        let Some(bound) = self.errands.ask(|answer| Errand::Bind { packed, answer }) else {
            return arriving.iter().map(|_| Err(ended())).collect();
        };
        let mut forgotten = Vec::new();
        let expect =
            |(tunnel, bound): (Arriving<'_>, Result<portable::Bound, portable::Refusal>)| {
                let binding = bound.map_err(|error| {
                    let code = if error.is_final() { NOT_HERE } else { NOT_NOW };
                    refusal(code, &error)
                })?;
                let ticket = binding.ticket;
                match tunnel.expect(binding.into(), &self.relay) {
                    Ok(expected) => Ok((ticket, expected)),
                    Err(error) => {
                        forgotten.push(ticket);
                        Err(refusal(NOT_HERE, &error))
                    }
                }
            };
        let bound = arriving.into_iter().zip(bound).map(expect).collect();
        self.forget(forgotten);
        bound
    }

    /// Tunnels that were bound do not come.
    pub(super) fn forget(&self, tickets: Vec<u64>) {
        if !tickets.is_empty() {
            self.errands.send(Errand::Forget(tickets));
        }
    }
}

/// Tunnels that are bound to workers, whose relays do not have them yet.
pub(super) struct Landing<'p> {
    posts: &'p [Post],
    /// For each worker.
    landed: Vec<Landed>,
    /// Those that are none, by their places among the others.
    pub(super) refused: Vec<(usize, Refusal)>,
}

#[derive(Default)]
struct Landed {
    resumed: Vec<Resume>,
    tickets: Vec<u64>,
}

impl<'p> Landing<'p> {
    pub(super) fn new(posts: &'p [Post]) -> Self {
        let landed = posts.iter().map(|_| Landed::default()).collect();
        Self { posts, landed, refused: Vec::new() }
    }

    /// One that was expected, by that worker.
    pub(super) fn connect(
        &mut self,
        at: usize,
        worker: usize,
        (ticket, expected): Bound,
        sockets: [OwnedFd; 2],
    ) {
        if self.posts[worker].errands.is_closed() {
            return self.refused.push((at, ended()));
        }
        let landed = &mut self.landed[worker];
        landed.resumed.push(expected.connect(sockets));
        landed.tickets.push(ticket);
    }

    /// Binds tunnels of which nothing was known to one worker, as far as that can be. Nothing happens to their sockets, but
    /// those of the others are closed.
    pub(super) fn bind(
        &mut self,
        worker: usize,
        tunnels: Vec<(usize, Arriving<'_>, [OwnedFd; 2])>,
    ) {
        let (mut arriving, mut rest) = (Vec::new(), Vec::new());
        for (at, tunnel, sockets) in tunnels {
            arriving.push(tunnel);
            rest.push((at, sockets));
        }
        let bound = self.posts[worker].bind(arriving);
        for ((at, sockets), bound) in rest.into_iter().zip(bound) {
            match bound {
                Ok(bound) => self.connect(at, worker, bound, sockets),
                Err(refusal) => self.refused.push((at, refusal)),
            }
        }
    }

    /// How many are bound.
    pub(super) fn len(&self) -> usize {
        self.landed.iter().map(|landed| landed.resumed.len()).sum()
    }

    /// They are ours: the relays go on with them, and tell when they do. Whoever is told of them by `carried` says so to
    /// their workers.
    pub(super) fn go_on(self, mut carried: impl FnMut(&Post, Vec<u64>)) -> Vec<Receiver<()>> {
        let mut answers = Vec::new();
        for (post, Landed { resumed, tickets }) in self.posts.iter().zip(self.landed) {
            if !resumed.is_empty() {
                // A relay that has stopped closes them; the process is about to end.
                answers.extend(post.relay.resume(resumed));
                carried(post, tickets);
            }
        }
        answers
    }

    /// They are not ours, and their sockets are closed without a word.
    pub(super) fn forget(self) {
        for (post, Landed { resumed, tickets }) in self.posts.iter().zip(self.landed) {
            drop(resumed);
            post.forget(tickets);
        }
    }
}

fn ended() -> Refusal {
    refusal(NOT_NOW, &"its worker has ended")
}

pub(super) fn refusal(code: u8, why: &impl std::fmt::Display) -> Refusal {
    Refusal { code, text: why.to_string() }
}
