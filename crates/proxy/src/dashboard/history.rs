//! The last hour in numbers: what was counted in each ten seconds.
//!
//! One thread reads the counters, which are there anyway; it asks no relay. It exists while some location has
//! `dashboard`, so the history begins with the first configuration that does and goes on over reloads.

use std::collections::VecDeque;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{array, io};

use serde_json::{Value, json};
use wssgate_metrics::Seconds;
use wssgate_relay::{Side, SideCounters};
use wssgate_sys::privileges;

use crate::clock::{millis, now, since_epoch};
use crate::metrics::{CAUSES, Ends, Failure, HandshakeFailure, Metrics};

/// How long a point is.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// How many points are kept: those of an hour.
pub(crate) const POINTS: usize = 360;

/// The bounds of round-trip times, and what is beyond them.
const RTT_BUCKETS: usize = 14;

/// In the order in which both sides stand everywhere here.
const SIDES: [Side; 2] = [Side::Client, Side::Upstream];

/// All counters at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    at_ms: u64,
    tunnels: u64,
    opened: u64,
    failed: u64,
    messages: [u64; 2],
    bytes: [u64; 2],
    ends: [u64; CAUSES.len()],
    rtt: [Seconds; 2],
}

impl Totals {
    /// Reads them.
    pub(crate) fn read(metrics: &Metrics) -> Self {
        let failed = HandshakeFailure::ALL.iter();
        let sum = |side, value: fn(&SideCounters) -> u64| {
            metrics.total(|worker| value(worker.relay.side(side)))
        };
        Self {
            at_ms: millis(since_epoch(now())),
            tunnels: metrics.total(|worker| worker.tunnels.value()),
            opened: metrics.total(|worker| worker.relay.tunnels.value()),
            failed: failed.map(|kind| metrics.total(|c| c.failed_handshakes.value(*kind))).sum(),
            messages: SIDES.map(|side| sum(side, |it| it.texts.value() + it.binaries.value())),
            bytes: SIDES.map(|side| sum(side, |it| it.bytes.value())),
            ends: Ends::by_cause(metrics.workers().map(|worker| &worker.ends)),
            rtt: SIDES.map(|side| {
                Seconds::of(metrics.workers().map(|worker| &worker.relay.side(side).rtt))
            }),
        }
    }

    /// As pages read them.
    pub(crate) fn json(&self) -> Value {
        let ends: serde_json::Map<_, _> = occurred(self.ends);
        json!({
            "at": self.at_ms,
            "tunnels": self.tunnels,
            "opened": self.opened,
            "failed": self.failed,
            "messages": self.messages,
            "bytes": self.bytes,
            "ends": ends,
        })
    }

    /// What has come since `before`.
    fn since(&self, before: &Self) -> Point {
        let less =
            |now: [u64; 2], then: [u64; 2]| array::from_fn(|at| now[at].wrapping_sub(then[at]));
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let rtt = |side: usize| {
            let (now, then) = (self.rtt[side].counts(), before.rtt[side].counts());
            let at =
                |at: usize| now.get(at).copied().unwrap_or(0) - then.get(at).copied().unwrap_or(0);
            array::from_fn(|bucket| small(at(bucket)))
        };
        Point {
            at_ms: self.at_ms,
            // A clock that is set back makes no time of its own.
            span_ms: small(self.at_ms.saturating_sub(before.at_ms)),
            tunnels: self.tunnels,
            opened: self.opened.wrapping_sub(before.opened),
            failed: self.failed.wrapping_sub(before.failed),
            messages: less(self.messages, before.messages),
            bytes: less(self.bytes, before.bytes),
            ends: array::from_fn(|at| small(self.ends[at].wrapping_sub(before.ends[at]))),
            rtt: [rtt(0), rtt(1)],
        }
    }
}

/// What was counted in a time.
#[derive(Clone, Debug)]
struct Point {
    /// When it ended.
    at_ms: u64,
    span_ms: u32,
    /// Open in the end.
    tunnels: u64,
    opened: u64,
    failed: u64,
    messages: [u64; 2],
    bytes: [u64; 2],
    ends: [u32; CAUSES.len()],
    rtt: [[u32; RTT_BUCKETS]; 2],
}

impl Point {
    fn json(&self, bounds: &[Duration]) -> Value {
        let rtt = |side: usize| [0.5, 0.95].map(|share| quantile(&self.rtt[side], bounds, share));
        let ends: serde_json::Map<_, _> = occurred(self.ends.map(u64::from));
        json!({
            "at": self.at_ms,
            "span": self.span_ms,
            "tunnels": self.tunnels,
            "opened": self.opened,
            "failed": self.failed,
            "messages": self.messages,
            "bytes": self.bytes,
            "ends": ends,
            "rtt": [rtt(0), rtt(1)],
        })
    }
}

/// Causes with their counts, but for what did not occur.
fn occurred<M: FromIterator<(String, Value)>>(ends: [u64; CAUSES.len()]) -> M {
    let all = CAUSES.iter().zip(ends).filter(|(_, count)| *count > 0);
    all.map(|(cause, count)| ((*cause).to_owned(), count.into())).collect()
}

/// The time in seconds within which a `share` was, as far as buckets tell: evenly spread in each. What is beyond the
/// last bound counts as that bound.
fn quantile(counts: &[u32], bounds: &[Duration], share: f64) -> Option<f64> {
    let all: u64 = counts.iter().copied().map(u64::from).sum();
    let mut left = all as f64 * share;
    let mut below = 0.0;
    for (&count, bound) in counts.iter().zip(bounds) {
        let (count, bound) = (f64::from(count), bound.as_secs_f64());
        if count > 0.0 && left <= count {
            return Some(below + (bound - below) * left / count);
        }
        left -= count;
        below = bound;
    }
    (all > 0).then_some(below)
}

/// The points of the last hour.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    points: VecDeque<Point>,
    bounds: &'static [Duration],
    /// How many there were that are no longer kept.
    gone: u64,
    /// What the next one is measured from.
    last: Option<Totals>,
    began_ms: u64,
}

impl History {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whoever panicked left it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was counted until now.
    fn add(&self, totals: Totals) {
        let mut kept = self.kept();
        match kept.last.take() {
            None => {
                kept.points.reserve_exact(POINTS);
                kept.began_ms = totals.at_ms;
                kept.bounds = totals.rtt[0].bounds();
            }
            Some(last) => {
                if kept.points.len() == POINTS {
                    kept.points.pop_front();
                    kept.gone += 1;
                }
                kept.points.push_back(totals.since(&last));
            }
        }
        kept.last = Some(totals);
    }

    /// Those from the one with this number on, as pages read them; all if there are not so many.
    pub(crate) fn json(&self, since: u64) -> Value {
        let kept = self.kept();
        let next = kept.gone + kept.points.len() as u64;
        let known = since.checked_sub(kept.gone).filter(|_| since <= next).unwrap_or(0);
        let known = usize::try_from(known).unwrap_or(0);
        let points: Vec<_> =
            kept.points.iter().skip(known).map(|one| one.json(kept.bounds)).collect();
        json!({
            "began": kept.last.as_ref().map(|_| kept.began_ms),
            "every": EVERY.as_secs(),
            "keeps": POINTS,
            "next": next,
            "points": points,
        })
    }

    /// Gives everything back.
    fn clear(&self) {
        *self.kept() = Kept::default();
    }
}

/// The thread that keeps a history. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct Sampler {
    history: Arc<History>,
    /// Nothing is ever sent; that it is gone ends the thread.
    ends: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Begins to keep `history`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(metrics: Metrics, history: Arc<History>) -> io::Result<Self> {
        let (ends, ended) = mpsc::channel();
        let kept = Arc::clone(&history);
        let thread = thread::Builder::new().name("history".into()).spawn(move || {
            // It needs none; if they cannot be given up, it does not run with them.
            if privileges::drop_capabilities().is_ok() {
                sample(&metrics, &kept, &ended);
            }
        })?;
        Ok(Self { history, ends: Some(ends), thread: Some(thread) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.ends = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.history.clear();
    }
}

fn sample(metrics: &Metrics, history: &History, ended: &mpsc::Receiver<()>) {
    let mut due = Instant::now();
    loop {
        history.add(Totals::read(metrics));
        due += EVERY;
        let now = Instant::now();
        // After the machine has slept, nothing is made up for.
        due = due.max(now);
        if ended.recv_timeout(due - now) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_what_came_since_the_one_before() {
        let metrics = Metrics::new(2, Arc::default());
        let history = History::default();
        assert_eq!(history.json(0)["began"], Value::Null);
        let counters = metrics.worker(0);
        counters.relay.tunnels.add(5);
        counters.ends.count("client_close", Some(1000));
        history.add(Totals::read(&metrics));
        assert_eq!(history.json(0)["points"], json!([]));
        counters.relay.tunnels.add(2);
        counters.tunnels.increment();
        metrics.worker(1).ends.count("client_close", None);
        metrics.worker(1).ends.count("kill", Some(4000));
        metrics.worker(1).relay.client.texts.add(3);
        metrics.worker(1).relay.upstream.bytes.add(700);
        counters.failed_handshakes.count(HandshakeFailure::Origin);
        counters.relay.client.rtt.observe(Duration::from_millis(40));
        history.add(Totals::read(&metrics));
        let told = history.json(0);
        let point = &told["points"][0];
        assert_eq!((&point["opened"], &point["tunnels"]), (&2.into(), &1.into()));
        assert_eq!(point["ends"], json!({"client_close": 1, "kill": 1}));
        assert_eq!((&point["messages"], &point["bytes"]), (&json!([3, 0]), &json!([0, 700])));
        assert_eq!(point["failed"], 1);
        let median = point["rtt"][0][0].as_f64().unwrap();
        assert!((median - 0.0375).abs() < 1e-9, "half of the way from 25 to 50 ms: {median}");
        assert_eq!(point["rtt"][1], json!([null, null]));
        assert_eq!((&told["next"], told["points"].as_array().unwrap().len()), (&1.into(), 1));
    }

    #[test]
    fn an_hour_is_kept_and_asked_for_by_parts() {
        let metrics = Metrics::new(1, Arc::default());
        let history = History::default();
        for _ in 0..POINTS + 6 {
            metrics.worker(0).relay.tunnels.increment();
            history.add(Totals::read(&metrics));
        }
        let count = |since| history.json(since)["points"].as_array().unwrap().len();
        assert_eq!(history.json(0)["next"], 365);
        for (since, expected) in
            [(0, POINTS), (5, POINTS), (6, 359), (364, 1), (365, 0), (366, POINTS)]
        {
            assert_eq!(count(since), expected, "{since}");
        }
        assert_eq!(history.kept().points.capacity(), POINTS);
        history.clear();
        assert_eq!(history.kept().points.capacity(), 0);
    }

    #[test]
    fn the_document_knows_how_much_memory_that_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dashboard.md");
        let text = std::fs::read_to_string(path).unwrap();
        let kilobytes = (size_of::<Point>() * POINTS).div_ceil(1000);
        assert!(text.contains(&format!("{kilobytes} kB")), "{kilobytes} kB");
    }

    #[test]
    fn quantiles_lie_in_the_bucket_that_has_them() {
        let bounds = [10, 20, 50].map(Duration::from_millis);
        for (counts, share, expected) in [
            ([0, 0, 0, 0], 0.5, None),
            ([4, 0, 0, 0], 0.5, Some(0.005)),
            ([4, 4, 0, 0], 0.75, Some(0.015)),
            ([0, 0, 2, 0], 0.5, Some(0.035)),
            ([0, 0, 0, 3], 0.5, Some(0.05)),
            ([1, 0, 0, 1], 0.5, Some(0.01)),
        ] {
            let found = quantile(&counts, &bounds, share);
            let same = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
                (found, expected) => found == expected,
            };
            assert!(same, "{counts:?} {found:?}");
        }
    }

    #[test]
    fn a_sampler_ends_at_once_and_takes_the_history_along() {
        let history = Arc::<History>::default();
        let began = Instant::now();
        let sampler =
            Sampler::start(Metrics::new(1, Arc::default()), Arc::clone(&history)).unwrap();
        while history.kept().last.is_none() {
            thread::yield_now();
        }
        drop(sampler);
        assert!(history.kept().last.is_none() && began.elapsed() < EVERY);
    }
}
