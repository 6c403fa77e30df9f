//! The side that takes tunnels over.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::{io, thread};

use wssgate_handover::{Batch, Item, TakeError, Taker, Verdict};
use wssgate_sys::privileges;
use wssgate_sys::process::NoCoreDumps;
use wssgate_sys::rights;

use super::{Post, WAIT};
use crate::log::Notifier;

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many more tunnels are ours, and so many were refused, since the last time.
    Pass {
        /// Those that are ours.
        taken: u64,
        /// Those that are not.
        refused: u64,
    },
    /// Nothing more comes, because of this if it is no good end.
    End(Option<String>),
}

/// A thread that takes tunnels over.
#[derive(Debug)]
pub struct Taking(mpsc::Receiver<Taken>);

impl Taking {
    /// Begins; `notifier` is rung whenever something has come.
    pub(crate) fn begin(
        posts: Vec<Post>,
        channel: OwnedFd,
        notifier: Notifier,
    ) -> io::Result<Self> {
        let (told, taken) = mpsc::channel();
        let mut work = Work { posts, taker: Taker::new(channel, WAIT), taken: 0, refused: 0 };
        thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
            let tell = |taken| {
                // Whoever is not there any more need not know.
                let _ = told.send(taken);
                notifier.notify();
            };
            // It needs none; if they cannot be given up, it does not run with them.
            if let Err(error) = privileges::drop_capabilities() {
                return tell(Taken::End(Some(error.to_string())));
            }
            let mut no_dumps = None;
            let error = loop {
                // Before there are keys in our memory; whatever is wrong with the channel shows when it is read.
                let _ = rights::wait_readable(work.taker.as_fd(), None);
                no_dumps = no_dumps.or_else(|| NoCoreDumps::begin().ok());
                match work.taker.receive() {
                    Ok(Some(Item::Batch(batch))) => {
                        if let Err(error) = work.take(batch) {
                            break Some(error);
                        }
                    }
                    // The end of a pass.
                    Ok(Some(Item::Note(_))) => {
                        no_dumps = None;
                        let (taken, refused) = work.count();
                        if taken + refused > 0 {
                            tell(Taken::Pass { taken, refused });
                        }
                    }
                    Ok(None) => break None,
                    // That it has ended is told anyway.
                    Err(TakeError::Gone) => break None,
                    Err(error) => break Some(error.to_string()),
                }
            };
            let (taken, refused) = work.count();
            if taken + refused > 0 {
                tell(Taken::Pass { taken, refused });
            }
            tell(Taken::End(error));
        })?;
        Ok(Self(taken))
    }

    /// What has come since the last time, if something has.
    pub fn next(&self) -> Option<Taken> {
        self.0.try_recv().ok()
    }
}

struct Work {
    posts: Vec<Post>,
    taker: Taker,
    taken: u64,
    refused: u64,
}

impl Work {
    fn count(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.taken), std::mem::take(&mut self.refused))
    }

    /// Takes a batch over, as far as that can be; all of one batch come to the worker that has the fewest tunnels.
    fn take(&mut self, mut batch: Batch) -> Result<(), String> {
        let count = batch.tunnels();
        let Some(post) = Post::least(&self.posts) else {
            return Err("there is no worker".to_owned());
        };
        let mut landed = post.land(batch.arrivals().map(|it| (it.record, it.sockets)));
        let mut verdicts = vec![Verdict::Taken; count];
        for (at, refusal) in landed.refused.drain(..) {
            verdicts[at] = Verdict::Refused(refusal);
        }
        match self.taker.answer(&verdicts) {
            Ok(()) => {
                self.taken += landed.len() as u64;
                self.refused += (count - landed.len()) as u64;
                landed.go_on();
                Ok(())
            }
            Err(error) => {
                landed.forget();
                Err(error.to_string())
            }
        }
    }
}
