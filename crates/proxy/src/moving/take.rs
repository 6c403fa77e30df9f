//! The side that takes tunnels over.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use tokio::sync::watch;
use wssgate_handover::{Batch, Item, Refusal, TakeError, Taker, Verdict};
use wssgate_relay::moving::{Arriving, Record};
use wssgate_sys::privileges;
use wssgate_sys::process::{NoCoreDumps, monotonic_micros};
use wssgate_sys::rights;

use super::land::{Bound, Landing, refusal};
use super::note::{Announced, Note};
use super::{NOT_HERE, NOT_NOW, Post, WAIT};
use crate::log::Notifier;
use crate::site::Phase;
use crate::tunnel::portable;
use crate::worker::Errand;

/// How many batches the relays may have before them: no more tunnels are taken that would only stand still here.
const MAX_RESUMING: usize = 4;

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// What has come since the last time.
    Pass {
        /// Those that are ours.
        taken: u64,
        /// Those that are not.
        refused: u64,
        /// From the first one that stood still in the other process until our relays carried the last one, if that process
        /// tells.
        took: Option<Duration>,
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
        home: Home,
        channel: OwnedFd,
        notifier: Notifier,
    ) -> io::Result<Self> {
        let (told, taken) = mpsc::channel();
        let mut work = Work {
            expected: Expectations::new(&posts, home),
            posts,
            taker: Taker::new(channel, WAIT),
            resuming: VecDeque::new(),
            carried: Vec::new(),
            taken: 0,
            refused: 0,
        };
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
                let limit = work.is_in_pass().then_some(WAIT);
                if let Ok(false) = rights::wait_readable(work.taker.as_fd(), limit) {
                    // The other process stands still: what was bound for its tunnels is not held for ever.
                    work.end_pass(None).into_iter().for_each(&tell);
                    continue;
                }
                no_dumps = no_dumps.or_else(|| NoCoreDumps::begin().ok());
                match work.taker.receive() {
                    Ok(Some(Item::Batch(batch))) => {
                        if let Err(error) = work.take(batch) {
                            break Some(error);
                        }
                    }
                    Ok(Some(Item::Note(note))) => match Note::decode(&note) {
                        Some(Note::Announced(tunnels)) => {
                            work.expected.add(&work.posts, &tunnels);
                        }
                        Some(Note::EndOfPass { since_us }) => {
                            no_dumps = None;
                            work.end_pass(since_us).into_iter().for_each(&tell);
                        }
                        // A later release may have something to say that need not be known.
                        None => {}
                    },
                    Ok(None) => break None,
                    // That it has ended is told anyway.
                    Err(TakeError::Gone) => break None,
                    Err(error) => break Some(error.to_string()),
                }
            };
            work.end_pass(None).into_iter().for_each(&tell);
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
    expected: Expectations,
    /// Who tells that those of the last batches are carried.
    resuming: VecDeque<Vec<mpsc::Receiver<()>>>,
    /// Those that the relays carry in this pass, whose workers were not told yet.
    carried: Vec<(Post, Vec<u64>)>,
    taken: u64,
    refused: u64,
}

impl Work {
    /// Whether something waits for the end of the pass.
    fn is_in_pass(&self) -> bool {
        !self.carried.is_empty() || !self.expected.tunnels.is_empty()
    }

    /// Does what need not be done while tunnels stand still, and tells of those that have come.
    fn end_pass(&mut self, since_us: Option<u64>) -> Option<Taken> {
        wait_for(self.resuming.drain(..).flatten());
        let took = |since_us| Duration::from_micros(monotonic_micros().saturating_sub(since_us));
        let took = since_us.map(took);
        for (post, tickets) in self.carried.drain(..) {
            post.errands.send(Errand::Settle(tickets));
        }
        self.expected.clear(&self.posts);
        let (taken, refused) = (std::mem::take(&mut self.taken), std::mem::take(&mut self.refused));
        (taken + refused > 0).then_some(Taken::Pass { taken, refused, took })
    }

    /// Takes a batch over, as far as that can be; all of one batch that were not expected come to the worker that has the
    /// fewest tunnels.
    fn take(&mut self, mut batch: Batch) -> Result<(), String> {
        let count = batch.tunnels();
        let mut landing = Landing::new(&self.posts);
        let mut unexpected = Vec::new();
        for (at, arrival) in batch.arrivals().enumerate() {
            match Record::decode(arrival.record) {
                Ok(Record::AsAnnounced(number)) => match self.expected.take(&self.posts, number) {
                    Ok((worker, bound)) => landing.connect(at, worker, bound, arrival.sockets),
                    Err(refusal) => landing.refused.push((at, refusal)),
                },
                Ok(Record::Whole(tunnel)) => {
                    if let Some(number) = tunnel.instead_of() {
                        self.expected.forget(&self.posts, number);
                    }
                    unexpected.push((at, *tunnel, arrival.sockets));
                }
                Err(error) => landing.refused.push((at, refusal(NOT_HERE, &error))),
            }
        }
        if !unexpected.is_empty() {
            let expecting = |worker| self.expected.by_worker[worker];
            let Some(worker) = Post::least(&self.posts, expecting) else {
                landing.forget();
                return Err("there is no worker".to_owned());
            };
            landing.bind(worker, unexpected);
        }
        let mut verdicts = vec![Verdict::Taken; count];
        for (at, refusal) in landing.refused.drain(..) {
            verdicts[at] = Verdict::Refused(refusal);
        }
        let taken = landing.len();
        while self.resuming.len() >= MAX_RESUMING {
            wait_for(self.resuming.pop_front().into_iter().flatten());
        }
        match self.taker.answer(&verdicts) {
            Ok(()) => {
                self.taken += taken as u64;
                self.refused += (count - taken) as u64;
                let carried = |post: &Post, tickets| self.carried.push((post.clone(), tickets));
                self.resuming.push_back(landing.go_on(carried));
                Ok(())
            }
            Err(error) => {
                landing.forget();
                Err(error.to_string())
            }
        }
    }
}

/// Until the relays that tell here carry what they were given.
fn wait_for(resuming: impl Iterator<Item = mpsc::Receiver<()>>) {
    for carried in resuming {
        // One that has stopped carries nothing more.
        let _ = carried.recv();
    }
}

/// Where tunnels come to.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// How far this process has come.
    pub(crate) phase: watch::Receiver<Phase>,
    /// The number of its newest generation.
    pub(crate) newest: watch::Receiver<u64>,
}

/// Tunnels that were announced, bound to our workers. They are still the other process's.
struct Expectations {
    home: Home,
    /// Or why they cannot come.
    tunnels: HashMap<NonZeroU32, Result<Expectation, Refusal>>,
    /// How many each worker is to get.
    by_worker: Vec<usize>,
}

struct Expectation {
    worker: usize,
    bound: Bound,
    /// The newest generation then.
    generation: u64,
}

impl Expectations {
    fn new(posts: &[Post], home: Home) -> Self {
        Self { home, tunnels: HashMap::new(), by_worker: vec![0; posts.len()] }
    }

    /// All of one note come to one worker.
    fn add(&mut self, posts: &[Post], announced: &[Announced<'_>]) {
        let Some(worker) = Post::least(posts, |worker| self.by_worker[worker]) else { return };
        let generation = *self.home.newest.borrow();
        let (mut numbers, mut arriving) = (Vec::new(), Vec::new());
        for Announced { number, record } in announced {
            self.forget(posts, *number);
            match Arriving::decode(record) {
                Ok(tunnel) => {
                    numbers.push(*number);
                    arriving.push(tunnel);
                }
                Err(error) => {
                    self.tunnels.insert(*number, Err(refusal(NOT_HERE, &error)));
                }
            }
        }
        for (number, bound) in numbers.into_iter().zip(posts[worker].bind(arriving)) {
            self.by_worker[worker] += usize::from(bound.is_ok());
            let expectation = bound.map(|bound| Expectation { worker, bound, generation });
            self.tunnels.insert(number, expectation);
        }
    }

    /// One of them has come.
    fn take(&mut self, posts: &[Post], number: NonZeroU32) -> Result<(usize, Bound), Refusal> {
        let unknown = || Err(refusal(NOT_NOW, &"it was not announced"));
        let Expectation { worker, bound, generation } =
            self.remove(number).unwrap_or_else(unknown)?;
        let why = if *self.home.phase.borrow() >= Phase::Draining {
            portable::Refusal::Ending.to_string()
        } else if *self.home.newest.borrow() != generation {
            // It has to be bound anew.
            "the configuration has changed meanwhile".to_owned()
        } else {
            return Ok((worker, bound));
        };
        posts[worker].forget(vec![bound.0]);
        Err(refusal(NOT_NOW, &why))
    }

    /// It does not come as it was announced.
    fn forget(&mut self, posts: &[Post], number: NonZeroU32) {
        if let Some(Ok(Expectation { worker, bound, .. })) = self.remove(number) {
            posts[worker].forget(vec![bound.0]);
        }
    }

    fn remove(&mut self, number: NonZeroU32) -> Option<Result<Expectation, Refusal>> {
        let expectation = self.tunnels.remove(&number)?;
        if let Ok(Expectation { worker, .. }) = expectation {
            self.by_worker[worker] -= 1;
        }
        Some(expectation)
    }

    /// Nobody comes any more.
    fn clear(&mut self, posts: &[Post]) {
        let mut tickets: Vec<_> = posts.iter().map(|_| Vec::new()).collect();
        for expectation in self.tunnels.drain().filter_map(|(_, expectation)| expectation.ok()) {
            tickets[expectation.worker].push(expectation.bound.0);
        }
        posts.iter().zip(tickets).for_each(|(post, tickets)| post.forget(tickets));
        self.by_worker.fill(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use wssgate_relay::listing::Label;
    use wssgate_relay::{Origin, Relay, Settings, Timers};

    use super::*;
    use crate::worker::Errands;

    /// Of the tests of `relay`.
    const RECORD: &[u8] = include_bytes!("../../../relay/src/tests/data/tunnel-1.cbor");

    /// A worker that binds whatever comes; its tickets count from 0.
    struct Worker {
        post: Post,
        _relay: Relay,
        forgotten: mpsc::Receiver<u64>,
    }

    impl Worker {
        fn start() -> Self {
            let settings = Settings::default();
            let relay = wssgate_relay::start("test", settings, Arc::default(), |_, _| {}, |_| {});
            let relay = relay.unwrap();
            let (errands, mut received) = Errands::new();
            let (forgets, forgotten) = mpsc::channel();
            thread::spawn(move || {
                let mut tickets = 0..;
                while let Some(errand) = received.blocking_recv() {
                    match errand {
                        Errand::Bind { packed, answer } => {
                            let bound =
                                packed.iter().zip(&mut tickets).map(|(_, it)| Ok(bound(it)));
                            answer.send(bound.collect()).unwrap();
                        }
                        Errand::Forget(tickets) => {
                            tickets.into_iter().for_each(|ticket| forgets.send(ticket).unwrap());
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
            Self { post: Post { relay: relay.handle(), errands }, _relay: relay, forgotten }
        }

        fn next_forgotten(&self) -> u64 {
            self.forgotten.recv_timeout(WAIT).unwrap()
        }
    }

    fn bound(ticket: u64) -> portable::Bound {
        portable::Bound {
            ticket,
            origin: Origin::default(),
            label: Label::new(ticket),
            timers: Timers::default(),
            buffer_size: 4096,
            policy: None,
            meters: None,
        }
    }

    fn numbers(numbers: impl IntoIterator<Item = u32>) -> Vec<NonZeroU32> {
        numbers.into_iter().map(|number| NonZeroU32::new(number).unwrap()).collect()
    }

    #[test]
    fn what_was_announced_comes_only_as_it_was_bound_and_leaves_nothing_else() {
        let worker = Worker::start();
        let posts = [worker.post.clone()];
        let (phase, of_phase) = watch::channel(Phase::Serving);
        let (newest, of_newest) = watch::channel(1);
        let home = Home { phase: of_phase, newest: of_newest };
        let mut expected = Expectations::new(&posts, home);
        let all = numbers(1..=6);
        let announced = |number: &NonZeroU32| Announced { number: *number, record: RECORD.into() };
        expected.add(&posts, &all.iter().map(announced).collect::<Vec<_>>());
        let unread = Announced { number: NonZeroU32::new(7).unwrap(), record: b"?"[..].into() };
        expected.add(&posts, &[unread]);
        assert_eq!(expected.by_worker, [6]);
        let take = |expected: &mut Expectations, number| match expected.take(&posts, number) {
            Ok((0, (ticket, _))) => Ok(ticket),
            Ok((worker, _)) => panic!("there is no worker {worker}"),
            Err(refusal) => Err((refusal.code, refusal.text)),
        };
        assert_eq!(take(&mut expected, all[0]), Ok(0));
        let unknown = Err((NOT_NOW, "it was not announced".to_owned()));
        assert_eq!(take(&mut expected, all[0]), unknown);
        let unread = take(&mut expected, numbers([7])[0]).unwrap_err();
        assert_eq!(unread.0, NOT_HERE);
        // One that is told of again is another one.
        expected.add(&posts, &[announced(&all[1])]);
        assert_eq!((worker.next_forgotten(), expected.by_worker[0]), (1, 5));
        assert_eq!(take(&mut expected, all[1]), Ok(6));
        expected.forget(&posts, all[2]);
        assert_eq!(worker.next_forgotten(), 2);
        newest.send(2).unwrap();
        let changed = Err((NOT_NOW, "the configuration has changed meanwhile".to_owned()));
        assert_eq!(take(&mut expected, all[3]), changed);
        assert_eq!(worker.next_forgotten(), 3);
        newest.send(1).unwrap();
        phase.send(Phase::Draining).unwrap();
        let ending = Err((NOT_NOW, "the other process is about to end".to_owned()));
        assert_eq!(take(&mut expected, all[4]), ending);
        assert_eq!((worker.next_forgotten(), expected.by_worker[0]), (4, 1));
        expected.clear(&posts);
        assert_eq!((worker.next_forgotten(), expected.by_worker[0]), (5, 0));
        phase.send(Phase::Serving).unwrap();
        assert_eq!(take(&mut expected, all[5]), unknown);
    }
}
