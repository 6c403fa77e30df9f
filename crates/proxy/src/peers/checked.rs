//! What health checks have found of a peer, and whether it may get requests.
//!
//! Of each check:
//!
//! ```text
//!          ──`fails` failures in a row──▶
//!       up                                down
//!       ▲ ◀──`passes` passes in a row───── ▲
//!       └──a pass── checking ──a failure───┘
//! ```
//!
//! `checking` is where `mandatory` checks begin. A peer of several checks may get requests only while
//! all of them say so. What requests see is one atomic; the rest is behind a lock that only checks take,
//! and those who make a set of peers.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wssgate_config::model::{CheckRules, OnDown};

/// What all checks of a peer together say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may get requests.
    Up,
    /// It gets none before it has passed.
    Checking,
    /// It gets none until it has passed again; what becomes of its tunnels.
    Down(OnDown),
}

impl Standing {
    /// The number that an atomic holds of it; `Up` is the default of one.
    fn number(self) -> u8 {
        match self {
            Self::Up => 0,
            Self::Checking => 1,
            Self::Down(OnDown::Keep) => 2,
            Self::Down(OnDown::Drain) => 3,
            Self::Down(OnDown::Close) => 4,
        }
    }

    fn of_number(number: u8) -> Self {
        match number {
            0 => Self::Up,
            1 => Self::Checking,
            2 => Self::Down(OnDown::Keep),
            3 => Self::Down(OnDown::Drain),
            _ => Self::Down(OnDown::Close),
        }
    }
}

/// What one check says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tally {
    Checking,
    /// Failures in a row.
    Up {
        fails: u32,
    },
    /// Passes in a row.
    Down {
        passes: u32,
    },
}

/// A change of what a check says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is healthy.
    Up,
    /// It is unhealthy.
    Down,
}

impl Tally {
    fn note(&mut self, rules: &CheckRules, passed: bool) -> Option<Turn> {
        let (next, turn) = match (*self, passed) {
            (Self::Checking, true) => (Self::Up { fails: 0 }, Some(Turn::Up)),
            (Self::Checking, false) => (Self::Down { passes: 0 }, Some(Turn::Down)),
            (Self::Up { .. }, true) => (Self::Up { fails: 0 }, None),
            (Self::Up { fails }, false) if fails + 1 < rules.fails => {
                (Self::Up { fails: fails + 1 }, None)
            }
            (Self::Up { .. }, false) => (Self::Down { passes: 0 }, Some(Turn::Down)),
            (Self::Down { .. }, false) => (Self::Down { passes: 0 }, None),
            (Self::Down { passes }, true) if passes + 1 < rules.passes => {
                (Self::Down { passes: passes + 1 }, None)
            }
            (Self::Down { .. }, true) => (Self::Up { fails: 0 }, Some(Turn::Up)),
        };
        *self = next;
        turn
    }
}

/// The rules of all checks of a group, in one generation.
pub(super) type Rules = Arc<[CheckRules]>;

/// What is known of one peer.
#[derive(Debug, Default)]
pub(super) struct Checked {
    standing: AtomicU8,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// The checks of this generation, none before the first.
    rules: Option<Rules>,
    /// One for each of them.
    tallies: Vec<Tally>,
}

/// What one result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// What the check says now, if it has said something else before.
    pub(super) turn: Option<Turn>,
    /// What all checks said before, and say now.
    pub(super) before: Standing,
    pub(super) now: Standing,
}

impl Checked {
    /// Of a peer that nobody has known before.
    pub(super) fn new(rules: &Rules) -> Self {
        let this = Self::default();
        this.begin(rules, |rules| match rules.mandatory {
            true => Tally::Checking,
            false => Tally::Up { fails: 0 },
        });
        this
    }

    /// Goes on with the checks of another generation. Unlike in nginx an unhealthy peer stays so until it
    /// has passed.
    pub(super) fn go_on(&self, rules: &Rules) {
        let before = self.standing();
        self.begin(rules, |rules| match before {
            _ if rules.mandatory && !rules.persistent => Tally::Checking,
            Standing::Up => Tally::Up { fails: 0 },
            Standing::Checking if rules.mandatory => Tally::Checking,
            Standing::Checking => Tally::Up { fails: 0 },
            Standing::Down(_) => Tally::Down { passes: 0 },
        });
    }

    /// The peer is one of the group's again, after an absence in which nobody has asked it: `mandatory` checks come
    /// first, as for one that is new.
    pub(super) fn come_again(&self) {
        let mut book = self.book();
        let Book { rules, tallies } = &mut *book;
        let rules = rules.iter().flat_map(|rules| rules.iter());
        for (_, tally) in rules.zip(tallies).filter(|(rules, _)| rules.mandatory) {
            *tally = Tally::Checking;
        }
        self.standing.store(book.standing().number(), Release);
    }

    fn begin(&self, rules: &Rules, first: impl Fn(&CheckRules) -> Tally) {
        let mut book = self.book();
        if book.rules.as_ref().is_some_and(|known| Arc::ptr_eq(known, rules)) {
            return;
        }
        book.tallies = rules.iter().map(first).collect();
        book.rules = Some(Arc::clone(rules));
        self.standing.swap(book.standing().number(), AcqRel);
    }

    /// Takes in the result of one check of these rules. `None`: there are other checks now.
    pub(super) fn note(&self, rules: &Rules, check: usize, passed: bool) -> Option<Noted> {
        let mut book = self.book();
        if !book.rules.as_ref().is_some_and(|known| Arc::ptr_eq(known, rules)) {
            return None;
        }
        let turn = book.tallies.get_mut(check)?.note(rules.get(check)?, passed);
        let now = book.standing();
        let before = Standing::of_number(self.standing.swap(now.number(), AcqRel));
        Some(Noted { turn, before, now })
    }

    /// What all checks say.
    pub(super) fn standing(&self) -> Standing {
        Standing::of_number(self.standing.load(Acquire))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Whoever panicked, the book is whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn standing(&self) -> Standing {
        let rules = self.rules.iter().flat_map(|rules| rules.iter());
        let down =
            rules.zip(&self.tallies).filter(|(_, tally)| matches!(tally, Tally::Down { .. }));
        match down.map(|(rules, _)| rules.on_down).max() {
            Some(on_down) => Standing::Down(on_down),
            None if self.tallies.contains(&Tally::Checking) => Standing::Checking,
            None => Standing::Up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: CheckRules = CheckRules {
        fails: 1,
        passes: 1,
        mandatory: false,
        persistent: false,
        on_down: OnDown::Keep,
    };

    fn rules(rules: &[CheckRules]) -> Rules {
        rules.into()
    }

    /// What a check says after each of these results: `p` passed, `f` failed.
    fn course(of: CheckRules, results: &str) -> String {
        let rules = rules(&[of]);
        let checked = Checked::new(&rules);
        let letter = |standing| match standing {
            Standing::Up => 'u',
            Standing::Checking => 'c',
            Standing::Down(_) => 'd',
        };
        let mut course = String::from(letter(checked.standing()));
        for result in results.chars() {
            let before = checked.standing();
            let noted = checked.note(&rules, 0, result == 'p').expect("they are its rules");
            assert_eq!((noted.before, noted.now), (before, checked.standing()));
            // One line in the log for each change, and none besides.
            assert_eq!(noted.turn.is_some(), noted.before != noted.now, "{results}");
            course.push(letter(noted.now));
        }
        course
    }

    #[test]
    fn failures_and_passes_count_in_a_row() {
        let patient = CheckRules { fails: 3, passes: 2, ..RULES };
        let mandatory = CheckRules { mandatory: true, ..patient };
        for (rules, results, expected) in [
            (RULES, "pfpf", "uudud"),
            (patient, "ffpff", "uuuuuu"),
            (patient, "ffffp", "uuuddd"),
            (patient, "fffpfpp", "uuuddddu"),
            // The first result decides at once, later ones as always.
            (mandatory, "pff", "cuuu"),
            (mandatory, "fpp", "cddu"),
        ] {
            assert_eq!(course(rules, results), expected, "{rules:?} {results}");
        }
    }

    #[test]
    fn one_check_of_several_that_fails_is_enough() {
        let drain = CheckRules { on_down: OnDown::Drain, ..RULES };
        let rules = rules(&[RULES, drain, CheckRules { mandatory: true, ..RULES }]);
        let checked = Checked::new(&rules);
        assert_eq!(checked.standing(), Standing::Checking);
        let note = |check, passed| checked.note(&rules, check, passed).expect("its rules").now;
        assert_eq!(note(0, false), Standing::Down(OnDown::Keep));
        assert_eq!(note(1, false), Standing::Down(OnDown::Drain), "the sternest wins");
        assert_eq!(note(2, true), Standing::Down(OnDown::Drain));
        assert_eq!(note(1, true), Standing::Down(OnDown::Keep));
        assert_eq!(note(0, true), Standing::Up);
        assert_eq!(checked.note(&rules, 3, false), None, "there is no such check");
    }

    #[test]
    fn what_a_reload_keeps() {
        let mandatory = CheckRules { mandatory: true, ..RULES };
        let persistent = CheckRules { persistent: true, ..mandatory };
        let (up, checking, down) = (Standing::Up, Standing::Checking, Standing::Down(OnDown::Keep));
        for (before, then, expected) in [
            (up, RULES, up),
            (up, mandatory, checking),
            (up, persistent, up),
            (checking, RULES, up),
            (checking, persistent, checking),
            (down, RULES, down),
            (down, mandatory, checking),
            (down, persistent, down),
        ] {
            let first = rules(&[CheckRules { mandatory: before == checking, ..RULES }]);
            let checked = Checked::new(&first);
            if before == down {
                checked.note(&first, 0, false);
            }
            assert_eq!(checked.standing(), before);
            let second = rules(&[then]);
            checked.go_on(&second);
            assert_eq!(checked.standing(), expected, "{before:?} {then:?}");
            assert_eq!(checked.note(&first, 0, false), None, "a check of before says nothing now");
            checked.go_on(&second);
            assert_eq!(checked.standing(), expected, "twice is once");
        }
    }

    #[test]
    fn who_comes_again_is_checked_first_where_that_is_mandatory() {
        let mandatory = CheckRules { mandatory: true, persistent: true, ..RULES };
        for (of, expected) in [(RULES, Standing::Up), (mandatory, Standing::Checking)] {
            let rules = rules(&[RULES, of]);
            let checked = Checked::new(&rules);
            checked.note(&rules, 1, true);
            assert_eq!(checked.standing(), Standing::Up);
            checked.come_again();
            assert_eq!(checked.standing(), expected);
        }
    }

    #[test]
    fn without_checks_a_peer_is_up() {
        let first = rules(&[RULES]);
        let checked = Checked::new(&first);
        checked.note(&first, 0, false);
        checked.go_on(&rules(&[]));
        assert_eq!(checked.standing(), Standing::Up);
    }
}
