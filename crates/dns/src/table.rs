//! What is known of names, and for how long.
//!
//! An answer is fresh for its time to live. Whoever asks for it in the last fifth of that time is
//! told to have it renewed, so a name that is in use never expires. An answer that has expired is
//! kept for a while, for the time when servers are silent or fail: old addresses are better than none.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::Failure;

/// The shortest time that an answer is used; without it a time to live of 0 would mean a query for each
/// request.
const LEAST: Duration = Duration::from_secs(1);

/// The longest time that an answer is used.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time that a name is taken not to exist: who starts a server does not want to wait.
const MOST_ABSENT: Duration = Duration::from_secs(5);

/// How long nobody asks again after there was no answer, as long as an old one can be used.
const RETRY: Duration = Duration::from_secs(5);

/// The bounds of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Names that are known at once.
    pub entries: usize,
    /// How long an answer is kept after it has expired.
    pub stale: Duration,
}

/// What is known of names: a `T` for each.
#[derive(Debug)]
pub struct Table<K, T> {
    limits: Limits,
    entries: HashMap<K, Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    known: Result<T, Failure>,
    fresh_until: Instant,
    /// From when on it is worth to ask again.
    ask_at: Instant,
    kept_until: Instant,
    /// Nobody had an answer when it was last asked for.
    unanswered: bool,
}

/// From when on an answer of now that may be used for so long should be renewed.
pub fn renew_at(ttl: Duration, now: Instant) -> Instant {
    now + lifetime(ttl) * 4 / 5
}

fn lifetime(ttl: Duration) -> Duration {
    ttl.clamp(LEAST, MOST)
}

/// What is known of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// An answer. `renew`: whoever is told so has to ask for the next one, and need not wait for it.
    Fresh {
        /// The answer.
        answer: T,
        /// Whether to ask.
        renew: bool,
    },
    /// An answer that has expired so long ago, for the case that there is no other.
    Stale {
        /// The answer.
        answer: T,
        /// For how long it has been too old.
        age: Duration,
        /// Whether to ask.
        ask: Ask,
    },
    /// It is known that there is nothing.
    Absent(Failure),
    /// Nothing is known.
    Unknown,
}

/// Whether to ask for an answer that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Yes, and wait a moment for it.
    First,
    /// Yes, but nobody had an answer lately, so it is not worth to wait.
    Aside,
    /// No, that was done just now.
    Not,
}

impl<K: Hash + Eq + Clone, T: Clone> Table<K, T> {
    /// Nothing is known yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, entries: HashMap::new() }
    }

    /// What is known of a name.
    pub fn find(&mut self, name: &K, now: Instant) -> Known<T> {
        let Some(entry) = self.entries.get_mut(name) else { return Known::Unknown };
        if now >= entry.kept_until {
            self.entries.remove(name);
            return Known::Unknown;
        }
        match &entry.known {
            Err(failure) => Known::Absent(*failure),
            Ok(answer) => {
                let (answer, ask) = (answer.clone(), entry.ask_at <= now);
                if now < entry.fresh_until {
                    if ask {
                        // One asks, the others need not.
                        entry.ask_at = now + RETRY;
                    }
                    return Known::Fresh { answer, renew: ask };
                }
                let ask = match (ask, entry.unanswered) {
                    (_, false) => Ask::First,
                    (true, true) => {
                        entry.ask_at = now + RETRY;
                        Ask::Aside
                    }
                    (false, true) => Ask::Not,
                };
                Known::Stale { answer, age: now - entry.fresh_until, ask }
            }
        }
    }

    /// Whether what is known of a name is so new that nobody need renew it, and if so, until when.
    pub fn new_until(&self, name: &K, now: Instant) -> Option<Instant> {
        let entry = self.entries.get(name).filter(|entry| entry.known.is_ok())?;
        Some(entry.ask_at.min(entry.fresh_until)).filter(|until| *until > now)
    }

    /// Takes in an answer that may be used for so long.
    pub fn found(&mut self, name: K, answer: T, ttl: Duration, now: Instant) {
        let fresh_until = now + lifetime(ttl);
        let ask_at = renew_at(ttl, now);
        let kept_until = fresh_until + self.limits.stale;
        let unanswered = false;
        let entry = Entry { known: Ok(answer), fresh_until, ask_at, kept_until, unanswered };
        self.insert(name, entry, now);
    }

    /// Takes in that there is nothing, for so long if that is known.
    pub fn failed(&mut self, name: K, failure: Failure, ttl: Option<Duration>, now: Instant) {
        match failure {
            Failure::Answered(crate::Code::NoName) => {
                self.entries.remove(&name);
                if let Some(ttl) = ttl.filter(|ttl| !ttl.is_zero()) {
                    let until = now + ttl.min(MOST_ABSENT);
                    let entry = Entry {
                        known: Err(failure),
                        fresh_until: until,
                        ask_at: until,
                        kept_until: until,
                        unanswered: false,
                    };
                    self.insert(name, entry, now);
                }
            }
            // A server that cannot answer says no more of the name than a silent one.
            Failure::Silence | Failure::Answered(_) => {
                if let Some(entry) = self.entries.get_mut(&name) {
                    entry.ask_at = entry.ask_at.max(now + RETRY);
                    entry.unanswered = true;
                }
            }
        }
    }

    fn insert(&mut self, name: K, entry: Entry<T>, now: Instant) {
        if self.entries.len() >= self.limits.entries && !self.entries.contains_key(&name) {
            self.make_room(now);
        }
        self.entries.insert(name, entry);
    }

    /// Forgets what has expired; if all is fresh, what expires first.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.fresh_until > now);
        if self.entries.len() >= self.limits.entries {
            let first = self.entries.iter().min_by_key(|(_, entry)| entry.fresh_until);
            if let Some(first) = first.map(|(name, _)| name.clone()) {
                self.entries.remove(&first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    const SECOND: Duration = Duration::from_secs(1);
    const NO_NAME: Failure = Failure::Answered(Code::NoName);

    fn table() -> (Table<&'static str, u32>, Instant) {
        let limits = Limits { entries: 2, stale: 100 * SECOND };
        (Table::new(limits), Instant::now())
    }

    fn fresh(answer: u32, renew: bool) -> Known<u32> {
        Known::Fresh { answer, renew }
    }

    #[test]
    fn an_answer_is_renewed_once_before_it_expires() {
        let (mut table, now) = table();
        assert_eq!(table.find(&"a", now), Known::Unknown);
        table.found("a", 1, 10 * SECOND, now);
        assert_eq!(renew_at(10 * SECOND, now), now + 8 * SECOND);
        assert_eq!(table.find(&"a", now + 7 * SECOND), fresh(1, false));
        assert_eq!(table.new_until(&"a", now + 7 * SECOND), Some(now + 8 * SECOND));
        assert_eq!(table.find(&"a", now + 8 * SECOND), fresh(1, true));
        assert_eq!(table.find(&"a", now + 9 * SECOND), fresh(1, false));
        table.found("a", 2, 10 * SECOND, now + 9 * SECOND);
        assert_eq!(table.find(&"a", now + 10 * SECOND), fresh(2, false));
    }

    #[test]
    fn an_old_answer_is_used_while_nobody_has_a_new_one_and_forgotten_in_time() {
        let (mut table, now) = table();
        table.found("a", 1, 10 * SECOND, now);
        let stale = |age, ask| Known::Stale { answer: 1, age: age * SECOND, ask };
        assert_eq!(table.find(&"a", now + 10 * SECOND), stale(0, Ask::First));
        assert_eq!(table.new_until(&"a", now + 10 * SECOND), None);
        table.failed("a", Failure::Silence, None, now + 11 * SECOND);
        assert_eq!(table.find(&"a", now + 12 * SECOND), stale(2, Ask::Not));
        assert_eq!(table.find(&"a", now + 16 * SECOND), stale(6, Ask::Aside));
        assert_eq!(table.find(&"a", now + 17 * SECOND), stale(7, Ask::Not));
        table.failed("a", Failure::Answered(Code::Server), None, now + 20 * SECOND);
        assert_eq!(table.find(&"a", now + 24 * SECOND), stale(14, Ask::Not));
        assert_eq!(table.find(&"a", now + 25 * SECOND), stale(15, Ask::Aside));
        assert_eq!(table.find(&"a", now + 110 * SECOND), Known::Unknown);
    }

    #[test]
    fn times_have_bounds() {
        let (mut table, now) = table();
        table.found("a", 1, Duration::ZERO, now);
        assert_eq!(table.find(&"a", now + SECOND / 2), fresh(1, false));
        table.found("a", 2, Duration::from_secs(u32::MAX.into()), now);
        let day = 24 * 60 * 60 * SECOND;
        assert!(matches!(table.find(&"a", now + day), Known::Stale { .. }));
    }

    #[test]
    fn that_there_is_nothing_is_remembered_if_the_answer_says_how_long() {
        let (mut table, now) = table();
        table.found("a", 1, 10 * SECOND, now);
        table.failed("a", NO_NAME, None, now);
        assert_eq!(table.find(&"a", now), Known::Unknown);
        table.failed("a", NO_NAME, Some(2 * SECOND), now);
        assert_eq!(table.find(&"a", now + SECOND), Known::Absent(NO_NAME));
        assert_eq!(table.new_until(&"a", now + SECOND), None);
        assert_eq!(table.find(&"a", now + 2 * SECOND), Known::Unknown);
        table.failed("a", NO_NAME, Some(60 * SECOND), now);
        assert_eq!(table.find(&"a", now + 5 * SECOND), Known::Unknown, "not for long");
        table.failed("b", Failure::Silence, None, now);
        assert_eq!(table.find(&"b", now), Known::Unknown);
    }

    #[test]
    fn a_full_table_forgets_what_is_over_or_will_be_first() {
        let (mut table, now) = table();
        table.found("a", 1, 10 * SECOND, now);
        table.found("b", 2, 20 * SECOND, now);
        table.found("c", 3, 30 * SECOND, now);
        assert_eq!(table.find(&"a", now), Known::Unknown);
        table.found("b", 4, 40 * SECOND, now);
        assert_eq!(table.find(&"c", now), fresh(3, false));
        table.found("d", 5, 50 * SECOND, now + 35 * SECOND);
        assert_eq!(table.find(&"c", now + 35 * SECOND), Known::Unknown);
        assert_eq!(table.find(&"b", now + 35 * SECOND), fresh(4, true));
    }
}
