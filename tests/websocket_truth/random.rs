//! Random traffic and random ends: what the line says is computed from what the scripted ends did.
//!
//! `WSSGATE_TRUTH_RUNS` is how many, `WSSGATE_TRUTH_SEED` where they begin; a failure names its seed.

use std::collections::BTreeMap;

use wssgate_testkit::wait_until;

use crate::rig::{Line, Rig, Said, check, told};
use crate::script::{ENDS, STUFFED, Script};

/// How many runs there are, and their seeds.
pub(crate) fn seeds() -> impl Iterator<Item = u64> {
    let setting = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let first = setting("WSSGATE_TRUTH_SEED", 1);
    first..first + setting("WSSGATE_TRUTH_RUNS", 100)
}

/// What is expected of a line: one of these words, and what both sides have said.
pub(crate) struct Expected {
    pub words: Vec<String>,
    pub sides: [Said; 2],
    pub what: String,
}

impl Expected {
    /// Holds a line against it.
    #[track_caller]
    pub(crate) fn check(&self, line: &Line) {
        let words = self.words.iter().find(|words| **words == told(line));
        check(line, words.unwrap_or(&self.words[0]), self.sides.each_ref(), &self.what);
    }
}

/// One tunnel with its traffic and its end.
fn run(rig: &mut Rig, seed: u64) -> (u64, Expected) {
    let mut script = Script::draw(seed, &[&ENDS[..], &STUFFED].concat());
    let Script { end, client, wires, location, .. } = script;
    let what = format!("WSSGATE_TRUTH_SEED={seed}, {end}, {location}, client {client}, {wires:?}");
    let mut tunnel = rig.open(location, wires);
    script.talk(&mut tunnel);
    let words = script.finish(&mut tunnel);
    let sides = [tunnel.client.said.clone(), tunnel.upstream.said.clone()];
    tunnel.finish();
    (tunnel.number, Expected { words, sides, what })
}

#[test]
fn lines_tell_what_the_ends_did() {
    let mut rig = Rig::new();
    let expected: BTreeMap<_, _> = seeds().map(|seed| run(&mut rig, seed)).collect();
    let count = || rig.server.read("truth.log").lines().count();
    wait_until("all lines", || count() == expected.len());
    let lines = rig.lines();
    for (number, expected) in &expected {
        let line = &lines[number];
        match &expected.words[0] {
            // Nobody but us knows what was under way, nor who could be told a code.
            words if !words.contains(' ') => {
                let said = [&line["by"], &line["cause"]];
                assert_eq!(said, ["proxy", &**words], "{}: {line:?}", expected.what);
            }
            _ => expected.check(line),
        }
    }
    assert!(rig.server.stop().success());
}
