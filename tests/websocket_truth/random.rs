//! Random traffic and random ends: what the line says is computed from what the scripted ends did.
//!
//! `WSSGATE_TRUTH_RUNS` is how many, `WSSGATE_TRUTH_SEED` where they begin; a failure names its seed.

use std::collections::BTreeMap;

use wssgate_testkit::{Frame, binary, close, continuation, ping, pong, text, wait_until};
use wssgate_ws::Opcode;

use crate::rig::{Rig, Said, Tunnel, WIRES, check, told};

const RUNS: u64 = 200;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }

    /// The frames of something that a side says: a ping, a pong or a message, whole or in pieces.
    fn frames(&mut self) -> Vec<Frame> {
        let payload = vec![b'x'; self.of(&[0, 1, 125, 126, 300])];
        match self.below(5) {
            0 => vec![ping(&payload[..payload.len().min(125)])],
            1 => vec![pong("unasked")],
            2 => vec![binary(payload).more(), ping("between"), continuation("end")],
            3 => vec![text("one").more(), continuation("two").more(), continuation(payload)],
            _ => vec![Frame::new(self.of(&[Opcode::Text, Opcode::Binary]), payload)],
        }
    }

    fn code(&mut self) -> u16 {
        self.of(&[1000, 1001, 1003, 1008, 1011, 1014, 3000, 4000, 4999])
    }
}

/// What is expected of a line: one of these words, and what both sides have said.
struct Expected {
    words: Vec<String>,
    sides: [Said; 2],
    what: String,
}

const ENDS: [&str; 16] = [
    "close",
    "close, reset",
    "close, fin across",
    "close, reset across",
    "both close",
    "fin",
    "reset",
    "frame",
    "message",
    "fragments",
    "text",
    "invalid close",
    "rule",
    "failure",
    "silence",
    "frozen",
];

/// One tunnel with its traffic and its end.
fn run(rig: &mut Rig, seed: u64) -> (u64, Expected) {
    let random = &mut Random(seed);
    let end = random.of(&ENDS);
    let client = end != "failure" && random.coin();
    let location = match end {
        "text" | "invalid close" | "rule" => "check",
        "frame" | "message" | "fragments" | "failure" => end,
        "silence" => "read",
        "frozen" if client => "ask-client",
        "frozen" => "ask-upstream",
        _ => random.of(&["plain", "check", "idle-long", "control-long"]),
    };
    let wires = random.of(&WIRES);
    let mut tunnel = rig.open(location, wires);
    // Who may be asked at any time whether it is there says nothing else.
    let steps = if end == "frozen" { 0 } else { random.below(6) };
    for _ in 0..steps {
        let (from_client, frames) = (random.coin(), random.frames());
        tunnel.pass(from_client, &frames);
    }
    let mut words = vec![finish(&mut tunnel, random, end, client)];
    if end == "both close" {
        let code = |end: &Said| end.close.as_ref().unwrap().0;
        words = vec![
            format!("client {} client_close", code(&tunnel.client.said)),
            format!("upstream {} upstream_close", code(&tunnel.upstream.said)),
        ];
    }
    let sides = [tunnel.client.said.clone(), tunnel.upstream.said.clone()];
    tunnel.finish();
    let what = format!("WSSGATE_TRUTH_SEED={seed}, {end}, {location}, client {client}, {wires:?}");
    (tunnel.number, Expected { words, sides, what })
}

/// Brings about the end; says who, with which code, why.
fn finish(tunnel: &mut Tunnel, random: &mut Random, end: &str, client: bool) -> String {
    let (by, other) = if client { ("client", "upstream") } else { ("upstream", "client") };
    let code = random.code();
    let reason = random.of(&["", "bye", "a longer reason than most would give"]);
    if end.starts_with("close") {
        tunnel.pass(client, &[close(code, reason)]);
    }
    let answers = random.coin();
    let mut refused = |frames: &[Frame], code, reason, word| {
        refuse(tunnel, client, answers, frames, (code, reason));
        format!("proxy {code} {by}_{word}")
    };
    match end {
        "frame" => refused(&[binary([1; 1001])], 1009, "frame too big", "frame_too_big"),
        "message" => {
            let frames = [text(&"x".repeat(1001))];
            refused(&frames, 1009, "message too big", "message_too_big")
        }
        "fragments" => {
            let more = continuation("").more();
            let frames = [text("a").more(), more.clone(), more, continuation("")];
            refused(&frames, 1008, "too many fragments", "too_many_fragments")
        }
        "text" => {
            let frames = [Frame::new(Opcode::Text, *b"ab\xc3\x28")];
            refused(&frames, 1007, "invalid UTF-8 in text message", "invalid_text")
        }
        "invalid close" => {
            let frames = [close(random.of(&[0, 999, 1004, 1005, 1006, 1015, 5000]), "")];
            refused(&frames, 1002, "invalid close frame", "invalid_close")
        }
        "rule" => {
            let (from, to) = tunnel.ends(client);
            let frame = text("").rsv(random.of(&[1, 2, 4])).encode(client.then_some([0; 4]));
            from.said.bytes += frame.len() as u64;
            from.conn().send_raw(frame);
            to.conn().expect([close(1001, "protocol error")]);
            to.send(&[close(1001, "")], !client);
            from.conn().expect([close(1002, "protocol error")]);
            format!("proxy 1002 {by}_protocol_error")
        }
        "close" => {
            tunnel.pass(!client, &[close(random.of(&[code, 1000]), "")]);
            format!("{by} {code} {by}_close")
        }
        "both close" => {
            tunnel.client.send(&[close(code, reason)], true);
            tunnel.upstream.send(&[close(random.code(), "")], false);
            String::new()
        }
        "close, fin across" => {
            tunnel.ends(client).1.conn().shutdown_write().unwrap();
            tunnel.ends(client).0.conn().recv_to_end();
            format!("{by} {code} {by}_close")
        }
        "close, reset across" => {
            tunnel.ends(client).1.reset();
            tunnel.ends(client).0.conn().recv_to_end();
            format!("{by} {code} {other}_reset")
        }
        "close, reset" => {
            tunnel.ends(client).0.reset();
            tunnel.ends(client).1.conn().recv_to_end();
            format!("{by} {code} {by}_close")
        }
        "fin" => {
            tunnel.ends(client).0.conn().shutdown_write().unwrap();
            tunnel.ends(client).1.conn().recv_to_end();
            format!("{by} - {by}_fin")
        }
        "reset" => {
            tunnel.ends(client).0.reset();
            tunnel.ends(client).1.conn().recv_to_end();
            format!("{by} - {by}_reset")
        }
        "silence" => {
            tunnel.client.conn().expect_eof();
            tunnel.upstream.conn().expect_eof();
            "proxy - read_timeout".to_owned()
        }
        "frozen" => {
            tunnel.freeze(client);
            format!("proxy - {by}_pong_timeout")
        }
        "failure" if random.coin() => {
            tunnel.upstream.reset();
            tunnel.client.conn().expect([close(1014, "")]);
            "upstream 1014 upstream_reset".to_owned()
        }
        "failure" => {
            tunnel.upstream.conn().shutdown_write().unwrap();
            tunnel.client.conn().expect([close(1014, "")]);
            "upstream 1014 upstream_fin".to_owned()
        }
        other => unreachable!("{other}"),
    }
}

/// What we close: the last of these frames is refused, with what its sender is told behind the other end's last
/// words; both answer.
fn refuse(
    tunnel: &mut Tunnel,
    client: bool,
    answers: bool,
    frames: &[Frame],
    (code, reason): (u16, &str),
) {
    let (from, to) = tunnel.ends(client);
    from.send(frames, client);
    to.conn().expect(frames[..frames.len() - 1].iter().cloned());
    to.conn().expect([close(1001, reason)]);
    if answers {
        to.send(&[text("answer")], !client);
        from.conn().expect([text("answer")]);
    }
    to.send(&[close(1001, "")], !client);
    from.conn().expect([close(code, reason)]);
    if from.said.close.is_none() {
        from.send(&[close(code, "")], client);
    }
}

#[test]
fn lines_tell_what_the_ends_did() {
    let (runs, seed) = (setting("WSSGATE_TRUTH_RUNS", RUNS), setting("WSSGATE_TRUTH_SEED", 1));
    let mut rig = Rig::new();
    let expected: BTreeMap<_, _> =
        (0..runs).map(|run_number| run(&mut rig, seed + run_number)).collect();
    let count = || rig.server.read("truth.log").lines().count() as u64;
    wait_until("all lines", || count() == runs);
    let lines = rig.lines();
    for (number, Expected { words, sides, what }) in &expected {
        let line = &lines[number];
        let words = words.iter().find(|words| **words == told(line)).unwrap_or(&words[0]);
        check(line, words, [&sides[0], &sides[1]], what);
    }
    assert!(rig.server.stop().success());
}
