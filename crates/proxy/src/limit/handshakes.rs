//! How many WebSocket handshakes go on in a time (`websocket_handshake_rate`), and who waits for a turn.
//!
//! Those that wait are served in the order in which they came, whatever their worker. Only the first one waits for
//! the time; it wakes the next. Who leaves gives its place up, so that clients which lose patience cost the others
//! nothing. Who finds no place is told when to come again, one after the other at the rate, so that their return is
//! no storm either.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep_until;
use wssgate_config::model::HandshakeRate;

/// How much of the rate that nobody used may be used at once: timers are late by a millisecond or more, and who
/// follows must not pay for that.
const LATENESS: Duration = Duration::from_millis(50);

/// The turns of one line of the configuration. They outlive a reload, which may change the rate.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When the next handshake may go on.
    next: Instant,
    /// Bounded by the queue of the line.
    waiting: VecDeque<Arc<Notify>>,
    /// When the next one that is refused may come again.
    promised: Instant,
}

/// What becomes of a handshake.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It goes on.
    Free,
    /// It waits.
    Waits(Place),
    /// It is refused, and may come again after this time.
    Refused(Duration),
}

impl Turns {
    /// Nobody waits.
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        let waiting = VecDeque::new();
        Arc::new(Self(Mutex::new(State { next: now, waiting, promised: now })))
    }

    /// A handshake comes.
    pub(crate) fn enter(self: &Arc<Self>, rate: &HandshakeRate, now: Instant) -> Entry {
        let mut state = self.state();
        state.keep_to(rate, now);
        if state.waiting.is_empty() && state.next <= now {
            state.take(rate, now);
            return Entry::Free;
        }
        if state.waiting.len() >= rate.queue {
            return Entry::Refused(state.promise(rate, now));
        }
        let turn = Arc::new(Notify::new());
        state.waiting.push_back(Arc::clone(&turn));
        Entry::Waits(Place { turns: Arc::clone(self), turn, rate: *rate })
    }

    /// When one that is refused now may come again.
    pub(crate) fn refuse(&self, rate: &HandshakeRate, now: Instant) -> Duration {
        self.state().promise(rate, now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a thread that panicked has left is a queue all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Nobody waits longer than this rate wants: the last one may have gone on by a slower rate, before a reload.
    fn keep_to(&mut self, rate: &HandshakeRate, now: Instant) {
        self.next = self.next.min(now + rate.interval);
    }

    /// One more goes on.
    fn take(&mut self, rate: &HandshakeRate, now: Instant) {
        let unused = now.checked_sub(LATENESS).unwrap_or(now);
        self.next = self.next.max(unused) + rate.interval;
    }

    fn promise(&mut self, rate: &HandshakeRate, now: Instant) -> Duration {
        let (first, last) = (now + rate.retry_min, now + rate.retry_max);
        // More than there is time for are spread over it once more.
        let at = if self.promised > last { first } else { self.promised.max(first) };
        self.promised = at + rate.interval;
        at - now
    }
}

/// A place among those that wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Arc<Turns>,
    turn: Arc<Notify>,
    rate: HandshakeRate,
}

impl Place {
    /// Resolves when the handshake may go on.
    pub(crate) async fn turn(self) {
        while let Some(wait) = self.step(Instant::now()) {
            match wait {
                Wait::ForOthers => self.turn.notified().await,
                Wait::Until(at) => sleep_until(at.into()).await,
            }
        }
    }

    /// What it waits for; `None` if it goes on.
    fn step(&self, now: Instant) -> Option<Wait> {
        let mut state = self.turns.state();
        if !state.waiting.front().is_some_and(|first| Arc::ptr_eq(first, &self.turn)) {
            return Some(Wait::ForOthers);
        }
        state.keep_to(&self.rate, now);
        if state.next > now {
            return Some(Wait::Until(state.next));
        }
        state.take(&self.rate, now);
        None
    }
}

/// What a place waits for.
#[derive(Debug, PartialEq, Eq)]
enum Wait {
    /// Those before it.
    ForOthers,
    /// The time.
    Until(Instant),
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let first = state.waiting.front().is_some_and(|first| Arc::ptr_eq(first, &self.turn));
        match first {
            true => drop(state.waiting.pop_front()),
            false => state.waiting.retain(|turn| !Arc::ptr_eq(turn, &self.turn)),
        }
        if first && let Some(next) = state.waiting.front() {
            next.notify_one();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(per_second: u32, queue: usize) -> HandshakeRate {
        let interval = SECOND / per_second;
        HandshakeRate { interval, queue, retry_min: 5 * SECOND, retry_max: 30 * SECOND }
    }

    fn place(entry: Entry) -> Place {
        match entry {
            Entry::Waits(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_are_bounded_and_in_order_and_given_up() {
        let (now, rate) = (Instant::now(), rate(10, 3));
        let turns = Turns::new(now);
        assert!(matches!(turns.enter(&rate, now), Entry::Free));
        let [first, second, third] = [(); 3].map(|()| place(turns.enter(&rate, now)));
        assert!(matches!(turns.enter(&rate, now), Entry::Refused(_)));
        let at = now + rate.interval;
        assert_eq!(first.step(now), Some(Wait::Until(at)));
        assert_eq!(second.step(at), Some(Wait::ForOthers));
        drop(second);
        assert_eq!(first.step(at), None);
        drop(first);
        assert_eq!(
            third.step(at),
            Some(Wait::Until(at + rate.interval)),
            "the next but one moved up"
        );
        assert!(
            matches!(turns.enter(&rate, at + SECOND), Entry::Waits(_)),
            "behind those that wait"
        );
    }

    #[test]
    fn a_slower_rate_before_a_reload_holds_up_nobody() {
        let (now, slow, fast) =
            (Instant::now(), HandshakeRate { interval: 30 * SECOND, ..rate(1, 9) }, rate(100, 9));
        let turns = Turns::new(now);
        assert!(matches!(turns.enter(&slow, now), Entry::Free));
        let first = place(turns.enter(&fast, now));
        assert_eq!(first.step(now), Some(Wait::Until(now + fast.interval)));
        assert_eq!(first.step(now + fast.interval), None);
    }

    #[test]
    fn never_more_go_on_than_the_rate_allows() {
        let (began, rate) = (Instant::now(), rate(100, usize::MAX));
        let turns = Turns::new(began);
        let mut admitted = Vec::new();
        let mut waiting = VecDeque::new();
        // A rest, a storm, and then more than the rate; timers are late by up to 3 ms.
        for ms in 0..10_000_u64 {
            let now = began + Duration::from_millis(ms);
            let comes = if ms == 2_000 { 300 } else { usize::from(ms > 4_000 && ms % 8 == 0) };
            for _ in 0..comes {
                match turns.enter(&rate, now) {
                    Entry::Free => admitted.push(ms),
                    Entry::Waits(place) => waiting.push_back(place),
                    Entry::Refused(_) => panic!("there is room"),
                }
            }
            while ms % 3 == 0
                && waiting.front().is_some_and(|place: &Place| place.step(now).is_none())
            {
                waiting.pop_front();
                admitted.push(ms);
            }
        }
        let within =
            |from: u64| admitted.iter().filter(|&&at| (from..from + 1_000).contains(&at)).count();
        let most = (0..9_000).map(within).max().unwrap();
        // One at the beginning of the second, and what the lateness allows.
        assert!(most <= 100 + 1 + 5, "{most}");
        assert!(within(3_000) >= 99 && within(8_000) >= 99, "the rate is used");
    }

    #[test]
    fn those_that_are_refused_come_again_at_the_rate() {
        let (now, rate) = (Instant::now(), rate(100, 0));
        let turns = Turns::new(now);
        assert!(matches!(turns.enter(&rate, now), Entry::Free));
        let mut seconds = vec![0; 31];
        for _ in 0..2_600 {
            let Entry::Refused(after) = turns.enter(&rate, now) else { panic!("nobody may wait") };
            assert!((rate.retry_min..=rate.retry_max).contains(&after), "{after:?}");
            seconds[usize::try_from(after.as_secs()).unwrap()] += 1;
        }
        assert!(seconds[6..30].iter().all(|&count| count == 100), "{seconds:?}");
        assert!(seconds[5] >= 199, "the last ones begin anew: {seconds:?}");
        // Later there is room again before them.
        assert_eq!(turns.refuse(&rate, now + 60 * SECOND), rate.retry_min);
    }

    #[tokio::test]
    async fn who_goes_on_or_leaves_wakes_the_next_one() {
        let (now, rate) = (Instant::now(), rate(1000, 9));
        let turns = Turns::new(now);
        assert!(matches!(turns.enter(&rate, now), Entry::Free));
        let [first, second, third] = [(); 3].map(|()| place(turns.enter(&rate, now)));
        let waiting = tokio::spawn(async move { third.turn().await });
        tokio::task::yield_now().await;
        drop(first);
        second.turn().await;
        waiting.await.unwrap();
        assert!(turns.state().waiting.is_empty());
    }
}
