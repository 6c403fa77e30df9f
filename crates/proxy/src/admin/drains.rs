//! The drains under way and those that ended lately: what the log and the API say of them.
//!
//! Whoever orders one begins it here: the main thread for generations, threads of the admin side for operators. The
//! relays do the work and count it; nobody waits for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;
use wssgate_relay::{Drain, DrainCounts, DrainProgress, Paces, RelayHandle, Whom, Why};
use wssgate_ws::conversation::Farewell;

use crate::clock;
use crate::generation::draining::seed;
use crate::log::Notifier;

/// How often the log says how far a drain is, at most and at least; between them ten times in all.
const MOST_OFTEN: Duration = Duration::from_secs(1);
const LEAST_OFTEN: Duration = Duration::from_secs(60);

/// How many drains that operators have ordered may be under way, and how many that have ended are remembered.
const MAX_RUNNING: usize = 64;
const KEPT: usize = 64;

/// All drains that are known.
#[derive(Debug)]
pub(crate) struct Drains {
    notifier: Notifier,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    /// How many there have been.
    count: u64,
    /// In the order of their beginning.
    known: VecDeque<Known>,
}

/// What is to be drained, and how.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Of what, in words.
    pub(crate) what: String,
    /// Who has ordered it; `None` for those that a reload or QUIT begins.
    pub(crate) by: Option<String>,
    pub(crate) paces: Paces,
    /// How long the longest of the paces takes.
    pub(crate) over: Duration,
    /// What clients are told instead of the code of the pace.
    pub(crate) words: Option<Arc<Farewell>>,
    /// See [`Drain::takes_over`].
    pub(crate) takes_over: bool,
}

/// Why a drain is not begun or ended.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum DrainError {
    #[error("{MAX_RUNNING} drains are under way; wait for one of them or cancel it")]
    TooMany,
    #[error("there is no drain with this id")]
    Unknown,
    #[error("this drain is over")]
    Over,
    #[error("this drain belongs to a reload or to the end of the server and cannot be cancelled")]
    NotOrdered,
}

/// One drain.
#[derive(Debug)]
struct Known {
    id: u64,
    what: String,
    by: Option<String>,
    began: Instant,
    /// When that was, in milliseconds since 1970.
    started_ms: u64,
    over: Duration,
    is_cancelled: bool,
    /// Once nobody is left.
    took: Option<Duration>,
    log: Log,
    progress: Arc<DrainProgress>,
}

/// What the log knows of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    /// Nothing.
    Unaware,
    /// Its beginning; it is told next by this time.
    Until(Instant),
    /// Its end.
    Done,
}

impl Drains {
    /// None yet. `notifier` wakes the main thread, which tells the log.
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self { notifier, list: Mutex::default() }
    }

    /// That of a drain which is about to begin.
    pub(crate) fn new_progress(&self) -> Arc<DrainProgress> {
        let notifier = self.notifier.clone();
        DrainProgress::new(move || notifier.notify())
    }

    /// Has the relays drain whom each of them is told; says the number of the drain. `progress` is new.
    pub(crate) fn begin<'r>(
        &self,
        wanted: Wanted,
        progress: Arc<DrainProgress>,
        whom: impl Iterator<Item = (&'r RelayHandle, Whom)>,
    ) -> u64 {
        let Wanted { what, by, paces, over, words, takes_over } = wanted;
        let mut list = self.list();
        list.count += 1;
        let id = list.count;
        for (relay, whom) in whom {
            let (paces, progress, words) = (paces.clone(), Arc::clone(&progress), words.clone());
            let (why, seed) = (Why::Ordered, seed());
            // One that has ended has no tunnels.
            let _ = relay.drain(Drain { whom, why, paces, words, takes_over, seed, progress });
        }
        progress.all_have_it();
        list.known.push_back(Known {
            id,
            what,
            by,
            began: Instant::now(),
            started_ms: clock::millis(clock::since_epoch(clock::now())),
            over,
            is_cancelled: false,
            took: None,
            log: Log::Unaware,
            progress,
        });
        list.forget();
        id
    }

    /// Says what there is to say, and when there is more, unless a relay calls before.
    pub(crate) fn tell(&self, now: Instant, log: impl FnMut(String)) -> Option<Instant> {
        let (mut lines, mut next) = (Vec::new(), None::<Instant>);
        let mut list = self.list();
        for known in &mut list.known {
            known.tell(now, &mut lines);
            if let Log::Until(at) = known.log {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        list.forget();
        drop(list);
        lines.into_iter().for_each(log);
        next
    }

    /// Whether one more may be ordered.
    pub(super) fn check_room(&self) -> Result<(), DrainError> {
        let list = self.list();
        let running = list.known.iter().filter(|known| known.by.is_some() && !known.is_over());
        if running.count() < MAX_RUNNING { Ok(()) } else { Err(DrainError::TooMany) }
    }

    /// What is known of all, the newest first.
    pub(super) fn all(&self) -> Vec<Value> {
        let now = Instant::now();
        self.list().known.iter_mut().rev().map(|known| known.json(now)).collect()
    }

    /// What is known of one.
    pub(super) fn show(&self, id: u64) -> Result<Value, DrainError> {
        Ok(self.list().find(id)?.json(Instant::now()))
    }

    /// Lets those of one stay who were not told to close.
    pub(super) fn cancel(&self, id: u64, relays: &[RelayHandle]) -> Result<(), DrainError> {
        let mut list = self.list();
        let known = list.find(id)?;
        if known.by.is_none() {
            return Err(DrainError::NotOrdered);
        }
        if known.is_over() || known.is_cancelled {
            return Err(DrainError::Over);
        }
        known.is_cancelled = true;
        for relay in relays {
            let _ = relay.cancel_drain(&known.progress);
        }
        Ok(())
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // What a thread that panicked has left is a list all the same.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn find(&mut self, id: u64) -> Result<&mut Known, DrainError> {
        self.known.iter_mut().find(|known| known.id == id).ok_or(DrainError::Unknown)
    }

    /// Forgets those that have ended first, if there are many; and those of generations that had nobody.
    fn forget(&mut self) {
        self.known.retain(|known| !known.is_empty() || known.by.is_some());
        let mut surplus =
            self.known.iter().filter(|known| known.is_over()).count().saturating_sub(KEPT);
        self.known.retain(|known| {
            let is_kept = surplus == 0 || !known.is_over();
            surplus -= usize::from(!is_kept);
            is_kept
        });
    }
}

impl Known {
    fn is_over(&self) -> bool {
        self.progress.counts().is_some_and(|counts| counts.is_over())
    }

    fn is_empty(&self) -> bool {
        self.progress.counts().is_some_and(|counts| counts.tunnels == 0)
    }

    /// As the log calls it.
    fn name(&self) -> String {
        match self.by {
            None => format!("drain of {}", self.what),
            Some(_) => format!("drain {} of {}", self.id, self.what),
        }
    }

    /// How long it took, once it is over.
    fn settle(&mut self, now: Instant) -> Option<Duration> {
        if self.took.is_none() && self.is_over() {
            self.took = Some(now.saturating_duration_since(self.began));
        }
        self.took
    }

    /// Says what there is to say.
    fn tell(&mut self, now: Instant, lines: &mut Vec<String>) {
        let took = self.settle(now);
        let Some(counts) = self.progress.counts().filter(|_| self.log != Log::Done) else { return };
        let DrainCounts { tunnels, told, ended, spared } = counts;
        // Who drains nothing need not say so.
        if tunnels == 0 {
            self.log = Log::Done;
            return;
        }
        let name = self.name();
        let interval = (self.over / 10).clamp(MOST_OFTEN, LEAST_OFTEN);
        if self.log == Log::Unaware {
            lines.push(format!("{name}: closing {} over {:?}", websockets(tunnels), self.over));
            self.log = Log::Until(now + interval);
        }
        let left = match spared {
            0 => String::new(),
            _ => format!(", {spared} left it: it was cancelled"),
        };
        if let Some(took) = took {
            let took = took.as_secs_f64();
            lines.push(format!("{name}: {} ended in {took:.1}s{left}", websockets(ended)));
            self.log = Log::Done;
        } else if matches!(self.log, Log::Until(at) if at <= now) {
            self.log = Log::Until(now + interval);
            lines.push(format!(
                "{name}: closed {told} of {tunnels} WebSockets, {ended} have ended{left}"
            ));
        }
    }

    /// As answers have it.
    fn json(&mut self, now: Instant) -> Value {
        let took = self.settle(now);
        let counts = self.progress.counts();
        let seconds = |time: Duration| clock::millis(time) as f64 / 1000.0;
        json!({
            "id": self.id,
            "what": self.what,
            "by": self.by,
            "state": match (took, self.is_cancelled) {
                (_, true) => "cancelled",
                (Some(_), false) => "ended",
                (None, false) => "running",
            },
            "over": seconds(self.over),
            "started": self.started_ms as f64 / 1000.0,
            "took": seconds(took.unwrap_or_else(|| now.saturating_duration_since(self.began))),
            // Not before every relay has said how many are its own.
            "tunnels": counts.map(|counts| counts.tunnels),
            "told": counts.map_or(0, |counts| counts.told),
            "ended": counts.map_or(0, |counts| counts.ended),
            "spared": counts.map_or(0, |counts| counts.spared),
        })
    }
}

fn websockets(count: u64) -> String {
    format!("{count} WebSocket{}", if count == 1 { "" } else { "s" })
}
