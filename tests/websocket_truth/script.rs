//! What both ends of a tunnel do, drawn by a seed: some traffic, then one of all ends; and what the line of the hop
//! that brings it about says of it.

use std::io::Write;

use wssgate_testkit::{Frame, GUARD, binary, close, continuation, ping, pong, text};
use wssgate_ws::Opcode;

use crate::rig::{Said, Tunnel, WIRES, Wires};
use crate::stuff;

/// SplitMix64.
pub(crate) struct Random(pub u64);

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

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    pub(crate) fn coin(&mut self) -> bool {
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

/// All ends that the ends of a tunnel can bring about, but those at which nobody knows what was under way.
pub(crate) const ENDS: [&str; 24] = [
    "close",
    "close, reset",
    "close, fin across",
    "close, reset across",
    "close, silence",
    "both close",
    "fin",
    "fin, silence",
    "reset",
    "tls",
    "frame",
    "message",
    "fragments",
    "control",
    "messages",
    "bytes",
    "text",
    "invalid close",
    "rule",
    "failure",
    "silence",
    "frozen",
    "idle",
    "life",
];

/// Those at which somebody takes nothing.
pub(crate) const STUFFED: [&str; 2] = ["send", "slow"];

/// One tunnel with its traffic and its end.
pub(crate) struct Script {
    pub random: Random,
    pub end: &'static str,
    /// Whether the client does it, or the upstream.
    pub client: bool,
    pub wires: Wires,
    pub location: &'static str,
}

impl Script {
    pub(crate) fn draw(seed: u64, ends: &[&'static str]) -> Self {
        let mut random = Random(seed);
        let end = random.of(ends);
        let client = end != "failure" && random.coin();
        let mut wires = random.of(&WIRES);
        if end == "tls" {
            wires[usize::from(!client)] = true;
        }
        let location = match end {
            "text" | "invalid close" | "rule" => "check",
            "silence" | "close, silence" | "fin, silence" => "read",
            "frozen" if client => "ask-client",
            "frozen" => "ask-upstream",
            "frame" | "message" | "fragments" | "control" | "messages" | "bytes" | "failure"
            | "idle" | "life" | "send" | "slow" => end,
            _ => random.of(&["plain", "check", "idle-long", "control-long"]),
        };
        Self { random, end, client, wires, location }
    }

    /// Who brings it about, and who is across.
    pub(crate) fn names(&self) -> [&'static str; 2] {
        if self.client { ["client", "upstream"] } else { ["upstream", "client"] }
    }

    /// Some traffic before the end.
    pub(crate) fn talk(&mut self, tunnel: &mut Tunnel) {
        let random = &mut self.random;
        // Where it would count for the end, or take too long for it, nothing else is said.
        let steps = match self.end {
            "frozen" | "control" | "messages" | "bytes" | "idle" | "life" | "send" | "slow" => 0,
            _ => random.below(6),
        };
        for _ in 0..steps {
            let (from_client, frames) = (random.coin(), random.frames());
            tunnel.pass(from_client, &frames);
        }
    }

    /// Brings about the end; says who, with which code, why. There is a second answer if both may be true.
    pub(crate) fn finish(&mut self, tunnel: &mut Tunnel) -> Vec<String> {
        let [by, other] = self.names();
        let (client, random) = (self.client, &mut self.random);
        let code = random.code();
        let reason = random.of(&["", "bye", "a longer reason than most would give"]);
        if self.end.starts_with("close") {
            tunnel.pass(client, &[close(code, reason)]);
        }
        let answers = random.coin();
        let mut refused = |frames: &[Frame], code, reason, word| {
            refuse(tunnel, client, answers, frames, (code, reason));
            format!("proxy {code} {by}_{word}")
        };
        let words = match self.end {
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
            "invalid close" => match random.of(&[0, 1, 999, 1004, 1005, 1006, 1015, 5000]) {
                1 => {
                    let half = Frame::new(Opcode::Close, [3]);
                    break_rule(tunnel, client, &half, "invalid close frame");
                    tunnel.ends(client).0.said.close = Some((1005, String::new()));
                    format!("proxy 1002 {by}_invalid_close")
                }
                code => {
                    let frames = [close(code, "")];
                    refused(&frames, 1002, "invalid close frame", "invalid_close")
                }
            },
            "rule" => {
                let odd = text("").rsv(random.of(&[1, 2, 4]));
                break_rule(tunnel, client, &odd, "protocol error");
                if answers {
                    let (from, _) = tunnel.ends(client);
                    from.send_odd(&close(1002, ""));
                    from.said.close = Some((1002, String::new()));
                }
                format!("proxy 1002 {by}_protocol_error")
            }
            "control" => {
                flood(tunnel, client, &vec![ping(""); 45], "too many control frames");
                format!("proxy 1008 {by}_control_flood")
            }
            "messages" => {
                flood(tunnel, client, &vec![text("more"); 9], "message rate exceeded");
                format!("proxy 1008 {by}_message_rate")
            }
            "bytes" => {
                flood(tunnel, client, &vec![binary([5; 200]); 9], "byte rate exceeded");
                format!("proxy 1008 {by}_byte_rate")
            }
            "idle" => {
                answer(tunnel, "idle timeout");
                "proxy 1001 idle_timeout".to_owned()
            }
            "life" => {
                answer(tunnel, "maximum lifetime reached");
                "proxy 1001 max_lifetime".to_owned()
            }
            "close" => {
                tunnel.pass(!client, &[close(random.of(&[code, 1000]), "")]);
                format!("{by} {code} {by}_close")
            }
            "both close" => {
                tunnel.client.send(&[close(code, reason)]);
                tunnel.upstream.send(&[close(random.code(), "")]);
                tunnel.client.recv();
                tunnel.upstream.recv();
                return both(tunnel);
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
            "close, silence" => {
                tunnel.client.conn().expect_eof();
                tunnel.upstream.conn().expect_eof();
                format!("{by} {code} read_timeout")
            }
            "fin" | "fin, silence" => {
                let (from, to) = tunnel.ends(client);
                from.conn().shutdown_write().unwrap();
                to.conn().expect_eof();
                if self.end == "fin" {
                    format!("{by} - {by}_fin")
                } else {
                    from.conn().expect_eof();
                    "proxy - half_close_timeout".to_owned()
                }
            }
            "reset" => {
                tunnel.ends(client).0.reset();
                tunnel.ends(client).1.conn().recv_to_end();
                format!("{by} - {by}_reset")
            }
            "tls" => {
                // A record of a type that does not exist.
                let (from, to) = tunnel.ends(client);
                from.conn().tcp().unwrap().write_all(&[99, 3, 3, 0, 1, 0]).unwrap();
                to.conn().recv_to_end();
                // It was sent an alert.
                from.leave();
                format!("{by} - {by}_tls")
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
            "failure" => {
                let how = if random.coin() { "reset" } else { "fin" };
                match how {
                    "reset" => tunnel.upstream.reset(),
                    _ => tunnel.upstream.conn().shutdown_write().unwrap(),
                }
                tunnel.client.expect(&[close(1014, "")]);
                format!("upstream 1014 upstream_{how}")
            }
            "send" | "slow" => {
                stuff(tunnel, client);
                let (to, from) = tunnel.ends(client);
                from.conn().set_guard(GUARD).unwrap();
                from.conn().recv_to_end();
                // Neither could say a word more.
                from.leave();
                to.leave();
                let word = if self.end == "send" { "send_timeout" } else { "slow_reader" };
                format!("{by}_{word}")
            }
            end => unreachable!("{end}"),
        };
        vec![words]
    }
}

/// Who of two that close at the same time is the first?
pub(crate) fn both(tunnel: &Tunnel) -> Vec<String> {
    let code = |end: &Said| end.close.as_ref().unwrap().0;
    vec![
        format!("client {} client_close", code(&tunnel.client.said)),
        format!("upstream {} upstream_close", code(&tunnel.upstream.said)),
    ]
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
    from.send(frames);
    to.expect(&frames[..frames.len() - 1]);
    to.expect(&[close(1001, reason)]);
    if answers {
        to.send(&[text("answer")]);
        from.expect(&[text("answer")]);
    }
    to.send(&[close(1001, "")]);
    from.expect(&[close(code, reason)]);
    if from.said.close.is_none() {
        from.send(&[close(code, "")]);
    }
}

/// A side sends a frame that nobody makes anything of, and is told so behind the other one's Close.
fn break_rule(tunnel: &mut Tunnel, client: bool, odd: &Frame, reason: &str) {
    let (from, to) = tunnel.ends(client);
    from.send_odd(odd);
    to.expect(&[close(1001, reason)]);
    to.send(&[close(1001, "")]);
    from.expect(&[close(1002, reason)]);
}

/// What was read at once has passed when it turns out to be too much.
fn flood(tunnel: &mut Tunnel, client: bool, frames: &[Frame], reason: &str) {
    let (from, to) = tunnel.ends(client);
    from.send(frames);
    let last = std::iter::repeat_with(|| to.recv()).find(|frame| *frame != frames[0]);
    assert_eq!(last, Some(close(1001, reason)));
    to.send(&[close(1001, "")]);
    from.expect(&[close(1008, reason)]);
    from.send(&[close(1008, "")]);
}

/// Both are told that we go away, and answer.
pub(crate) fn answer(tunnel: &mut Tunnel, reason: &str) {
    for end in [&mut tunnel.client, &mut tunnel.upstream] {
        end.expect(&[close(1001, reason)]);
        end.send(&[close(1001, reason)]);
    }
}
