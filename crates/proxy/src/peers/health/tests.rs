use std::collections::HashMap;

use super::*;

const EAGER: Rules =
    Rules { max_fails: 1, fail_timeout: Duration::from_secs(10), recovery: Recovery::Eager };
const NGINX: Rules = Rules { recovery: Recovery::Nginx, ..EAGER };

/// What happens to a peer; times in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request is sent to it; its name.
    Take(u64, char),
    /// None can be.
    Rests(u64),
    /// A request is sent although it rests.
    Anyway(u64, char),
    /// It answers; whether that brings it back.
    Answer(u64, char, bool),
    /// It fails.
    Fail(u64, char),
    /// It fails after its answer.
    Reset(u64, char),
    /// Its client leaves.
    Leave(u64, char),
    /// It was not sent after all.
    Unsent(char),
}

use Step::{Answer, Anyway, Fail, Leave, Reset, Rests, Take, Unsent};

fn follow(claim: &str, rules: Rules, steps: &[Step]) {
    let (health, began) = (Health::default(), Instant::now());
    let at = |millis| began + Duration::from_millis(millis);
    let mut open = HashMap::new();
    for step in steps {
        match *step {
            Take(when, name) => {
                assert!(health.usable(&rules, at(when)), "{claim}: {step:?}");
                let taken = health.take(&rules, at(when));
                open.insert(name, taken.unwrap_or_else(|| panic!("{claim}: {step:?}")));
            }
            Rests(when) => {
                assert!(!health.usable(&rules, at(when)), "{claim}: {step:?}");
                assert!(health.take(&rules, at(when)).is_none(), "{claim}: {step:?}");
            }
            Anyway(when, name) => drop(open.insert(name, health.take_anyway(&rules, at(when)))),
            Answer(when, name, returns) => {
                let answered = health.answered(&rules, open[&name], at(when));
                assert_eq!(answered, returns, "{claim}: {step:?}");
            }
            Fail(when, name) => drop(health.failed(&rules, open[&name], false, at(when))),
            Reset(when, name) => drop(health.failed(&rules, open[&name], true, at(when))),
            Leave(when, name) => health.abandoned(&rules, open[&name], at(when)),
            Unsent(name) => health.unused(open[&name]),
        }
    }
}

#[test]
fn probes_come_within_a_second_and_then_less_and_less_often() {
    let mut steps = vec![Take(0, 'a'), Fail(0, 'a')];
    let mut due = 0;
    for rest in [500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
        due += rest;
        steps.extend([Rests(due), Take(due + 1, 'b'), Rests(due + 1), Fail(due + 1, 'b')]);
        due += 1;
    }
    follow("each rest is twice as long, up to fail_timeout", EAGER, &steps);
    let short = Rules { fail_timeout: Duration::from_millis(200), ..EAGER };
    let steps =
        [Take(0, 'a'), Fail(0, 'a'), Rests(200), Take(201, 'b'), Fail(201, 'b'), Rests(401)];
    follow("no rest is longer than fail_timeout", short, &steps);
    let mut steps = vec![Take(0, 'a'), Fail(0, 'a')];
    for due in [10_000, 20_001, 30_002] {
        steps.extend([Rests(due), Take(due + 1, 'b'), Fail(due + 1, 'b')]);
    }
    follow("nginx asks once in fail_timeout", NGINX, &steps);
}

#[test]
fn one_answer_brings_a_peer_back() {
    for (claim, steps) in [
        (
            "an answer to a probe",
            &[
                Take(0, 'a'),
                Fail(0, 'a'),
                Take(501, 'b'),
                Rests(502),
                Answer(503, 'b', true),
                Take(503, 'c'),
            ][..],
        ),
        (
            "an answer where all others had failed too",
            &[
                Take(0, 'a'),
                Fail(0, 'a'),
                Anyway(10, 'b'),
                Rests(11),
                Answer(12, 'b', true),
                Take(12, 'c'),
            ],
        ),
        (
            "an answer to a request from before the failure is none",
            &[
                Take(0, 'a'),
                Take(0, 'b'),
                Fail(1, 'a'),
                Answer(2, 'b', false),
                Rests(3),
                Take(502, 'c'),
                Answer(503, 'b', false),
                Rests(504),
            ],
        ),
        (
            "a request from before it came back fails too late",
            &[
                Take(0, 'a'),
                Take(0, 'b'),
                Fail(1, 'a'),
                Anyway(2, 'c'),
                Anyway(2, 'd'),
                Answer(4, 'd', true),
                Fail(5, 'b'),
                Fail(5, 'c'),
                Take(6, 'e'),
                Fail(7, 'e'),
                Rests(8),
            ],
        ),
    ] {
        follow(claim, EAGER, steps);
    }
}

#[test]
fn who_resets_again_soon_rests_longer() {
    let steps = [
        Take(0, 'a'),
        Fail(0, 'a'),
        Take(501, 'b'),
        Answer(501, 'b', true),
        Reset(502, 'b'),
        Rests(1502),
        Take(1503, 'c'),
        Answer(1503, 'c', true),
        Take(1504, 'd'),
        Take(1504, 'e'),
        Answer(1505, 'd', false),
        Answer(1505, 'e', false),
        Reset(2502, 'c'),
        Reset(2502, 'd'),
        Reset(2502, 'e'),
        Rests(4502),
        Take(4503, 'f'),
        Answer(4503, 'f', true),
        Take(5000, 'g'),
        Answer(5000, 'g', false),
        Reset(5503, 'g'),
        Rests(6003),
        Take(6004, 'h'),
    ];
    follow("once for each rest, until a tunnel has lived for a moment", EAGER, &steps);
}

/// Where all servers are restarted at once, each request tries one of them.
#[test]
fn what_a_last_resort_comes_to_does_not_make_rests_longer() {
    let mut steps = vec![Take(0, 'a'), Fail(0, 'a')];
    for millis in (10..1000).step_by(10) {
        steps.extend([Anyway(millis, 'b'), Answer(millis, 'b', true), Reset(millis + 1, 'b')]);
    }
    steps.extend([Rests(1491), Take(1492, 'c')]);
    follow("no rest was over", EAGER, &steps);

    let steps = [
        Take(0, 'a'),
        Fail(0, 'a'),
        Take(501, 'b'),
        Fail(501, 'b'),
        Take(1502, 'c'),
        Fail(1502, 'c'),
        Take(3503, 'd'),
        Fail(3503, 'd'),
        Anyway(3600, 'e'),
        Answer(3600, 'e', true),
        Take(5000, 'f'),
        Fail(5000, 'f'),
        Rests(5500),
        Take(5501, 'g'),
    ];
    follow("a rest that was cut short does not go on in the next outage", EAGER, &steps);
}

#[test]
fn quick_restarts_do_not_add_up() {
    let mut steps = Vec::new();
    for began in [0, 5000, 10_000] {
        steps.extend([
            Take(began, 'a'),
            Fail(began, 'a'),
            Rests(began + 500),
            Take(began + 501, 'b'),
            Fail(began + 501, 'b'),
            Rests(began + 1501),
            Take(began + 1502, 'c'),
            Fail(began + 1502, 'c'),
            Rests(began + 3502),
            Take(began + 4500, 'd'),
            Answer(began + 4501, 'd', true),
        ]);
    }
    follow("each outage begins with the first rest", EAGER, &steps);
}

/// Who has little patience must not decide what others get.
#[test]
fn a_client_that_leaves_a_probe_neither_brings_a_peer_back_nor_has_the_next_one_wait() {
    for (claim, steps) in [
        (
            "one that leaves at once changes nothing but the time of the next probe",
            &[
                Take(0, 'a'),
                Fail(0, 'a'),
                Take(600, 'b'),
                Leave(610, 'b'),
                Rests(1100),
                Take(1101, 'c'),
                Fail(1101, 'c'),
                Rests(2101),
                Take(2102, 'd'),
            ][..],
        ),
        (
            "a peer that says nothing for a rest is asked later",
            &[
                Take(0, 'a'),
                Fail(0, 'a'),
                Take(600, 'b'),
                Leave(5600, 'b'),
                Rests(6600),
                Take(6601, 'c'),
                Leave(11_600, 'c'),
                Rests(13_600),
                Take(13_601, 'd'),
            ],
        ),
        (
            "a probe that hangs is not waited for longer than fail_timeout",
            &[
                Take(0, 'a'),
                Fail(0, 'a'),
                Take(600, 'b'),
                Rests(10_600),
                Take(10_601, 'c'),
                Rests(10_601),
                Answer(10_602, 'c', true),
                Take(10_603, 'd'),
                Leave(60_000, 'b'),
                Take(60_001, 'e'),
            ],
        ),
        (
            "while one hangs, other failures do not allow another",
            &[
                Take(0, 'a'),
                Take(0, 'z'),
                Fail(0, 'a'),
                Take(600, 'b'),
                Fail(700, 'z'),
                Anyway(800, 'y'),
                Fail(801, 'y'),
                Rests(10_600),
                Take(10_601, 'c'),
            ],
        ),
        (
            "one that was not sent leaves its place to the next",
            &[
                Take(0, 'a'),
                Fail(0, 'a'),
                Take(600, 'b'),
                Unsent('b'),
                Take(601, 'c'),
                Answer(602, 'c', true),
            ],
        ),
    ] {
        follow(claim, EAGER, steps);
    }
}

#[test]
fn failures_where_all_have_failed_do_not_make_rests_longer() {
    let mut steps = vec![Take(0, 'a'), Fail(0, 'a')];
    for millis in (10..400).step_by(10) {
        steps.extend([Anyway(millis, 'b'), Fail(millis, 'b')]);
    }
    steps.extend([Rests(890), Take(891, 'c')]);
    follow("they only put the next probe off", EAGER, &steps);
}

#[test]
fn failures_are_counted_within_fail_timeout() {
    let rules = Rules { max_fails: 2, ..EAGER };
    for (claim, steps) in [
        (
            "an answer in between does not clear them",
            &[
                Take(0, 'a'),
                Fail(0, 'a'),
                Take(1, 'b'),
                Answer(2, 'b', false),
                Take(3, 'c'),
                Fail(3, 'c'),
                Rests(4),
            ][..],
        ),
        (
            "one after fail_timeout does",
            &[
                Take(0, 'a'),
                Fail(0, 'a'),
                Take(10_001, 'b'),
                Answer(10_002, 'b', false),
                Take(10_003, 'c'),
                Fail(10_003, 'c'),
                Take(10_004, 'd'),
            ],
        ),
    ] {
        follow(claim, rules, steps);
    }
    let steps = [Take(0, 'a'), Fail(0, 'a'), Take(1, 'b'), Fail(1, 'b'), Take(2, 'c')];
    follow("max_fails=0 counts none", Rules { max_fails: 0, ..EAGER }, &steps);
}
