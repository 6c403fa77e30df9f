//! Random traffic and random ends through two hops: what each of them says of what happens at it, what the other can
//! know of that, and that both lines have one identifier.

use std::collections::BTreeMap;

use wssgate_testkit::{Addr, Instance, Listener, close, wait_until};

use crate::random::{Expected, seeds};
use crate::rig::{End, Line, Rig, Tunnel, hop, lines, told, wire};
use crate::script::{ENDS, Script, answer, both};

/// An edge in front of a gateway.
struct Chain {
    edge: Instance,
    gateway: Rig,
}

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    Edge,
    Gateway,
}

impl Chain {
    fn new() -> Self {
        const TRUSTING: &str = "websocket_trace on trusted=127.0.0.0/8 hop=gateway;";
        let listeners = [Listener::bind(), Listener::bind()];
        let gateway = Rig::with(listeners, |setup| setup.var("MORE", TRUSTING));
        let at = [0, 1].map(|number| Addr::from(gateway.server.listen(number)));
        let edge = hop(&gateway.leaf, at.each_ref());
        let edge = edge.var("MORE", "websocket_trace on hop=edge;").var("URI", "/").start();
        Self { edge, gateway }
    }

    /// A tunnel through a location of each, where `between` says whether they speak TLS.
    fn open(&mut self, script: &Script, at: Hop, between: bool) -> Tunnel {
        let [edge, gateway] = match at {
            Hop::Edge => [script.location, "plain"],
            Hop::Gateway => ["plain", script.location],
        };
        let entry = self.edge.listen(usize::from(script.wires[0]));
        let path = format!("/{}/{edge}/{}/{gateway}/", wire(between), wire(script.wires[1]));
        self.gateway.open_at(entry.into(), &path, script.wires)
    }

    /// What this hop says of all tunnels of which it is to say something.
    fn lines(&mut self, at: Hop, expected: &BTreeMap<u64, Pair>) -> BTreeMap<u64, Line> {
        let server = &*self.server(at);
        let mut found = lines(server);
        let numbers = expected.iter().filter_map(|(number, pair)| Some((number, pair.of(at)?)));
        for (number, expected) in numbers {
            wait_until(&format!("the line of {}", expected.what), || {
                let is_there = found.contains_key(number);
                if !is_there {
                    found = lines(server);
                }
                is_there
            });
        }
        found
    }

    fn server(&mut self, at: Hop) -> &mut Instance {
        match at {
            Hop::Edge => &mut self.edge,
            Hop::Gateway => &mut self.gateway.server,
        }
    }
}

impl Pair {
    fn of(&self, hop: Hop) -> Option<&Expected> {
        match hop {
            Hop::Edge => self.edge.as_ref(),
            Hop::Gateway => self.gateway.as_ref(),
        }
    }
}

/// What operators do, and what they did not want.
const OPERATORS: [&str; 4] = ["HUP", "QUIT", "TERM", "KILL"];

impl Hop {
    /// Those that an end of a tunnel breaks or leaves know more of it than the other hop.
    fn of(script: &mut Script) -> Self {
        let by = if script.client { Self::Edge } else { Self::Gateway };
        match script.end {
            "reset" | "tls" | "close, reset" | "failure" => by,
            "close, reset across" => by.other(),
            _ => script.random.of(&[Self::Edge, Self::Gateway]),
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Edge => Self::Gateway,
            Self::Gateway => Self::Edge,
        }
    }

    /// The end of the tunnel that speaks with this hop, and what the hop calls both of its sides: that one and the
    /// other hop.
    fn end(self, tunnel: &Tunnel) -> (&End, [&'static str; 2]) {
        match self {
            Self::Edge => (&tunnel.client, ["client", "upstream"]),
            Self::Gateway => (&tunnel.upstream, ["upstream", "client"]),
        }
    }
}

/// What is expected of the lines of both hops; of a hop that was killed there is none.
struct Pair {
    edge: Option<Expected>,
    gateway: Option<Expected>,
}

fn run(chain: &mut Chain, seed: u64, before: &BTreeMap<u64, Pair>) -> (u64, Pair) {
    let mut script = Script::draw(seed, &[&ENDS[..], &OPERATORS].concat());
    let (at, between) = (Hop::of(&mut script), script.random.coin());
    let Script { end, client, wires, location, .. } = script;
    let what = format!(
        "WSSGATE_TRUTH_SEED={seed}, {end} at {at:?}, {location}, client {client}, {wires:?}, between {between}"
    );
    let mut tunnel = chain.open(&script, at, between);
    script.talk(&mut tunnel);
    let words = match end {
        "KILL" => {
            // It takes lines along that it has not written yet.
            chain.lines(at, before);
            operate(chain, &mut tunnel, at, end)
        }
        "HUP" | "QUIT" | "TERM" => operate(chain, &mut tunnel, at, end),
        _ => script.finish(&mut tunnel),
    };
    let here = Expected {
        words: words.clone(),
        sides: [tunnel.client.said.clone(), tunnel.upstream.said.clone()],
        what: what.clone(),
    };
    let there = beyond(&script, &tunnel, at.other(), words, what);
    tunnel.finish();
    let here = (end != "KILL").then_some(here);
    let pair = match at {
        Hop::Edge => Pair { edge: here, gateway: Some(there) },
        Hop::Gateway => Pair { edge: Some(there), gateway: here },
    };
    (tunnel.number, pair)
}

/// Somebody reloads, drains, stops or kills this hop.
fn operate(chain: &mut Chain, tunnel: &mut Tunnel, at: Hop, signal: &str) -> Vec<String> {
    let server = chain.server(at);
    server.signal(signal);
    let words = match signal {
        "KILL" => String::new(),
        "TERM" => {
            // It waits for no answer.
            for end in [&mut tunnel.client, &mut tunnel.upstream] {
                end.expect(&[close(1001, "")]);
                end.conn().recv_to_end();
            }
            "proxy 1001 shutdown".to_owned()
        }
        _ => {
            answer(tunnel, "");
            "proxy 1001 drain".to_owned()
        }
    };
    if signal != "HUP" {
        server.restart();
    }
    if signal == "KILL" {
        tunnel.client.conn().recv_to_end();
        tunnel.upstream.conn().recv_to_end();
    }
    vec![words]
}

/// What the hop says that only passes on what happens at the other one: it has heard what the end has that it speaks
/// with.
fn beyond(
    script: &Script,
    tunnel: &Tunnel,
    hop: Hop,
    words: Vec<String>,
    what: String,
) -> Expected {
    let (end, [near, far]) = hop.end(tunnel);
    let [by, _] = script.names();
    let code = |close: &Option<(u16, String)>| close.as_ref().map(|(code, _)| *code);
    let of_by = if script.client { &tunnel.client } else { &tunnel.upstream };
    let words = match (script.end, code(&of_by.said.close), code(&end.heard.close)) {
        ("close" | "close, reset" | "close, fin across" | "fin", ..) => words,
        ("both close", ..) => both(tunnel),
        // What came of its Close is told by the end of the connection: a FIN is an answer.
        ("close, reset across" | "close, silence", Some(code), _) => {
            vec![format!("{by} {code} {by}_close")]
        }
        ("fin, silence", ..) => vec![format!("{by} - {by}_fin")],
        // It had begun to close, in a way that only the other hop minds.
        ("invalid close", Some(code), _) if by == near => {
            vec![format!("{by} {code} {by}_close")]
        }
        (_, _, Some(code)) => vec![format!("{far} {code} {far}_close")],
        // What is cut at one hop with TLS between them is cut for the other.
        (_, _, None) => {
            vec![format!("{far} - {far}_fin"), format!("{far} - {far}_truncated")]
        }
    };
    let sides = match hop {
        Hop::Edge => [end.sent.clone(), end.heard.clone()],
        Hop::Gateway => [end.heard.clone(), end.sent.clone()],
    };
    Expected { words, sides, what: format!("{what}: beyond") }
}

#[test]
fn both_hops_tell_what_happened_at_one_of_them() {
    let mut chain = Chain::new();
    let mut expected = BTreeMap::new();
    for seed in seeds() {
        let (number, pair) = run(&mut chain, seed, &expected);
        expected.insert(number, pair);
    }
    let hops = [Hop::Edge, Hop::Gateway];
    let lines = hops.map(|hop| chain.lines(hop, &expected));
    for (number, pair) in &expected {
        for (hop, lines) in hops.into_iter().zip(&lines) {
            pair.of(hop).inspect(|expected| expected.check(&lines[number]));
        }
        let [edge, gateway] = lines.each_ref().map(|lines| lines.get(number));
        check_trace(edge, gateway);
    }
    assert!(chain.edge.stop().success() && chain.gateway.server.stop().success());
}

/// The lines belong together, and the edge's names the hop behind it.
fn check_trace(edge: Option<&Line>, gateway: Option<&Line>) {
    for (line, hops) in [(edge, "gateway"), (gateway, "-")] {
        let Some(line) = line else { continue };
        assert_eq!((line["trace"].len(), &*line["hops"]), (32, hops), "{line:?}");
    }
    if let (Some(edge), Some(gateway)) = (edge, gateway) {
        assert_eq!(edge["trace"], gateway["trace"], "{} and {}", told(edge), told(gateway));
    }
}
