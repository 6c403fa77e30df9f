//! The side that has tunnels and gives them away.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU32;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{io, thread};

use wssgate_handover::{
    GiveError, Giver, MAX_BATCH, MAX_OUTSTANDING, Outcome, TOO_MANY_OPEN_FILES,
};
use wssgate_relay::moving::{Announcement, Fate, Frozen};
use wssgate_sys::memory::Secret;
use wssgate_sys::privileges;
use wssgate_sys::process::{NoCoreDumps, monotonic_micros};

use super::note::{Announced, Note};
use super::{NOT_NOW, Post, Reasons, WAIT, count, parcels};
use crate::log::Notifier;
use crate::tunnel::portable::Stays;
use crate::worker::Errand;

/// When to look again for tunnels that have come after the others: requests that were in work have become some.
const AGAIN: Duration = Duration::from_secs(1);

/// When to look again at most, while the other process is short of descriptors.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a pass waits for the fronts to hear from their relays of those that have moved, and how often it looks.
const NEWS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// What one look at all workers has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Tunnels that are the other process's now.
    pub moved: u64,
    /// Those that cannot move, by why.
    pub stay: Reasons,
    /// Those of which nobody knows whether the other process has them, so that they have ended here.
    pub unknown: u64,
    /// From the first one taken out of its relay to the last answer.
    pub took: Duration,
    /// How long any was out of its relay, at most.
    pub longest: Duration,
    /// Whether the other process was short of something, so that it may take more later.
    pub is_short: bool,
    /// Why there is no further pass.
    pub error: Option<String>,
}

/// A thread that gives tunnels away, until this is dropped.
#[derive(Debug)]
pub struct Giving {
    passes: mpsc::Receiver<Pass>,
    /// Whether it is to go on; without a sender it ends.
    goes_on: mpsc::Sender<bool>,
}

impl Giving {
    /// Begins; `notifier` is rung whenever there is a pass to be told of.
    pub(crate) fn begin(
        posts: Vec<Post>,
        channel: OwnedFd,
        notifier: Notifier,
    ) -> io::Result<Self> {
        let (told, passes) = mpsc::channel();
        let (goes_on, orders) = mpsc::channel();
        let mut work = Work {
            giver: Giver::new(channel, WAIT),
            announced: HashSet::new(),
            records: Secret::default(),
            done: Vec::new(),
            moved: Vec::new(),
            posts,
            is_first: true,
        };
        thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
            // It needs none; if they cannot be given up, it does not run with them.
            let dropped = privileges::drop_capabilities();
            let mut pause = AGAIN;
            loop {
                let pass = match &dropped {
                    Ok(()) => work.pass(),
                    Err(error) => Pass { error: Some(error.to_string()), ..Pass::default() },
                };
                let is_last = pass.error.is_some();
                // Each try fills its table of descriptors, and has tunnels stand still for a moment.
                pause = match pass.is_short && pass.moved == 0 {
                    true => (pause * 2).min(LONGEST_PAUSE),
                    false => AGAIN,
                };
                // Whoever is not there any more need not know.
                let _ = told.send(pass);
                notifier.notify();
                if is_last || !waits_and_goes_on(&orders, pause) {
                    break;
                }
            }
            // A process that is gone need not be told.
            let _ = work.giver.finish();
        })?;
        Ok(Self { passes, goes_on })
    }

    /// What was done since the last time, if something was.
    pub fn next(&self) -> Option<Pass> {
        self.passes.try_recv().ok()
    }

    /// Keeps what comes from now on, or gives it away again.
    pub fn go_on(&self, goes_on: bool) {
        // One that has failed does nothing more.
        let _ = self.goes_on.send(goes_on);
    }

    /// Ends it behind the pass that is under way, if the other process does not hang, and says what was done since the
    /// last time.
    pub fn finish(self) -> Vec<Pass> {
        let Self { passes, goes_on } = self;
        drop(goes_on);
        std::iter::from_fn(|| passes.recv_timeout(WAIT).ok()).collect()
    }
}

/// Waits until it is time for the next pass; whether there is one.
fn waits_and_goes_on(orders: &mpsc::Receiver<bool>, pause: Duration) -> bool {
    let mut goes_on = true;
    loop {
        let order = match goes_on {
            true => orders.recv_timeout(pause),
            false => orders.recv().map_err(RecvTimeoutError::from),
        };
        match order {
            Ok(order) => goes_on = order,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

struct Work {
    posts: Vec<Post>,
    giver: Giver,
    /// The numbers of the announcements of this pass.
    announced: HashSet<NonZeroU32>,
    /// The records of the last page.
    records: Secret,
    /// Pages of which all tunnels have moved.
    done: Vec<Page>,
    /// The tickets of those that have moved in this pass, by worker.
    moved: Vec<(Post, Vec<u64>)>,
    /// Nobody has been offered to this process yet.
    is_first: bool,
}

/// Tunnels that were taken out of a relay together.
struct Page {
    worker: usize,
    frozen: Frozen,
    since: Instant,
    /// What is decided so far.
    fates: Vec<Fate>,
    /// Those that were sent, in that order, and not answered.
    sent: VecDeque<usize>,
    /// Whether all were sent that will be.
    is_whole: bool,
}

impl Work {
    /// Gives away what there is.
    fn pass(&mut self) -> Pass {
        // Without it a core dump might hold the keys of tunnels; those that move are in memory anyway.
        let _no_dumps = NoCoreDumps::begin();
        let mut pass = Pass::default();
        if self.is_first {
            pass.error = self.announce().err().map(|error| error.to_string());
        }
        let mut began = None;
        let mut pages = VecDeque::new();
        for worker in 0..self.posts.len() {
            let mut from = Some(0).filter(|_| pass.error.is_none());
            while let Some(place) = from {
                // A relay that has stopped has no tunnels.
                let Ok(page) = self.posts[worker].relay.freeze(place, self.is_first) else { break };
                from = page.next.filter(|_| pass.error.is_none() && !pass.is_short);
                if page.frozen.is_empty() {
                    continue;
                }
                let since = Instant::now();
                began.get_or_insert_with(|| (since, monotonic_micros()));
                let fates = vec![Fate::Back; page.frozen.len()];
                pages.push_back(Page {
                    worker,
                    frozen: page.frozen,
                    since,
                    fates,
                    sent: VecDeque::new(),
                    is_whole: false,
                });
                self.offer(&mut pages, &mut pass);
            }
        }
        while self.hear(&mut pages, &mut pass) {}
        let since_us = began.map(|(began, since_us)| {
            pass.took = began.elapsed();
            since_us
        });
        self.announced.clear();
        self.records.clear();
        let note = Note::EndOfPass { since_us }.encode();
        let noted = self.giver.note(&note).err().map(|error| error.to_string());
        pass.error = pass.error.take().or(noted);
        for page in std::mem::take(&mut self.done) {
            self.end(page);
        }
        self.is_first = false;
        self.wait_for_fronts();
        pass
    }

    /// Tells how all tunnels are that can move, while they go on. Those that are quiet until it is their turn need only
    /// their sockets then, so that the time in which tunnels stand still is short.
    fn announce(&mut self) -> Result<(), GiveError> {
        for worker in 0..self.posts.len() {
            let mut from = Some(0);
            while let Some(place) = from {
                // A relay that has stopped has no tunnels.
                let Ok(announcements) = self.posts[worker].relay.announce(place) else { break };
                from = announcements.next;
                self.announce_page(worker, announcements.tunnels)?;
            }
        }
        Ok(())
    }

    fn announce_page(
        &mut self,
        worker: usize,
        tunnels: Vec<Announcement>,
    ) -> Result<(), GiveError> {
        let tickets = tunnels.iter().map(|tunnel| tunnel.ticket).collect();
        let errands = &self.posts[worker].errands;
        let Some(packed) = errands.ask(|answer| Errand::Pack { tickets, answer }) else {
            return Ok(());
        };
        self.records.clear();
        let mut places = Vec::with_capacity(tunnels.len());
        for (tunnel, packed) in tunnels.into_iter().zip(packed) {
            // Why one stays is told when it is its turn.
            let Ok(packed) = packed else { continue };
            let (number, start) = (tunnel.number, self.records.len());
            tunnel.record(&packed, &mut self.records);
            places.push((number, start..self.records.len()));
        }
        let announced = |(number, place): &(NonZeroU32, Range<usize>)| Announced {
            number: *number,
            record: self.records[place.clone()].into(),
        };
        let note = Note::Announced(places.iter().map(announced).collect()).encode();
        match self.giver.note(&note) {
            Ok(()) => {
                self.announced.extend(places.into_iter().map(|(number, _)| number));
                Ok(())
            }
            // They come whole when it is their turn.
            Err(GiveError::TooLong(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Until the fronts count none of those that have moved any more: whoever is told of the pass looks at what is left.
    fn wait_for_fronts(&mut self) {
        let until = Instant::now() + NEWS;
        for (post, tickets) in self.moved.drain(..) {
            let knows = || {
                let tickets = tickets.clone();
                // A worker that has ended knows none.
                let known = post.errands.ask(|answer| Errand::Know { tickets, answer });
                known.unwrap_or(false)
            };
            while knows() && Instant::now() < until {
                thread::sleep(LOOK);
            }
        }
    }

    /// Sends what can move of the last page.
    fn offer(&mut self, pages: &mut VecDeque<Page>, pass: &mut Pass) {
        let Some(Page { worker, frozen, fates, .. }) = pages.back_mut() else { return };
        self.records.clear();
        let places =
            self.posts[*worker].pack(frozen, &self.announced, &mut self.records, |at, stays| {
                fates[at] = Fate::Stays;
                // Its relay says so by itself.
                if stays != Stays::Ended {
                    count(&mut pass.stay, stays.to_string(), 1);
                }
            });
        // Of a worker that has ended nothing moves.
        let places = places.unwrap_or_default();
        let mut rest = &places[..];
        while !rest.is_empty() && pass.error.is_none() && !pass.is_short {
            if self.giver.outstanding() == MAX_OUTSTANDING {
                self.hear(pages, pass);
                continue;
            }
            let Some(page) = pages.back_mut() else { return };
            let batch = &rest[..rest.len().min(MAX_BATCH)];
            match self.giver.send(&parcels(&page.frozen, &self.records, batch)) {
                Ok(sent) => {
                    page.sent.extend(rest[..sent].iter().map(|(at, _)| *at));
                    rest = &rest[sent..];
                }
                Err(error @ GiveError::TooLong(_)) => {
                    page.fates[rest[0].0] = Fate::Stays;
                    count(&mut pass.stay, error.to_string(), 1);
                    rest = &rest[1..];
                }
                Err(error @ GiveError::TooManyInFlight) => {
                    count(&mut pass.stay, error.to_string(), rest.len() as u64);
                    pass.is_short = true;
                }
                Err(error) => pass.error = Some(error.to_string()),
            }
        }
        if let Some(page) = pages.back_mut() {
            page.is_whole = true;
        }
        self.settle(pages, pass);
    }

    /// Waits for the next answer; whether there was one to come.
    fn hear(&mut self, pages: &mut VecDeque<Page>, pass: &mut Pass) -> bool {
        let Some(outcomes) = self.giver.outcomes() else { return false };
        let Some(page) = pages.iter_mut().find(|page| !page.sent.is_empty()) else { return true };
        for outcome in outcomes {
            let Some(at) = page.sent.pop_front() else { break };
            page.fates[at] = match outcome {
                Outcome::Taken => {
                    pass.moved += 1;
                    Fate::Moved
                }
                Outcome::Unknown => {
                    pass.unknown += 1;
                    Fate::Unknown
                }
                Outcome::Kept => Fate::Back,
                Outcome::Refused(refusal) => {
                    count(&mut pass.stay, refusal.text, 1);
                    match refusal.code {
                        TOO_MANY_OPEN_FILES | NOT_NOW => {
                            pass.is_short = true;
                            Fate::Back
                        }
                        _ => Fate::Stays,
                    }
                }
            };
        }
        self.settle(pages, pass);
        true
    }

    /// Ends the pages of which all is decided; those that have moved as a whole can wait until nobody stands still.
    fn settle(&mut self, pages: &mut VecDeque<Page>, pass: &mut Pass) {
        while pages.front().is_some_and(|page| page.is_whole && page.sent.is_empty()) {
            let Some(page) = pages.pop_front() else { return };
            pass.longest = pass.longest.max(page.since.elapsed());
            match page.fates.iter().all(|fate| *fate == Fate::Moved) {
                true => self.done.push(page),
                false => self.end(page),
            }
        }
    }

    fn end(&mut self, Page { worker, frozen, fates, .. }: Page) {
        let moved = frozen.tickets().into_iter().zip(&fates);
        let moved = moved.filter(|(_, fate)| **fate == Fate::Moved).map(|(ticket, _)| ticket);
        let moved = moved.collect();
        let post = self.posts[worker].clone();
        post.settle(frozen, &fates);
        self.moved.push((post, moved));
    }
}
