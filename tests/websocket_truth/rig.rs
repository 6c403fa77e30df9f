//! A server with a location for each thing that can end a WebSocket, both ends of every tunnel through it, and what
//! its access log says of them.

use std::collections::BTreeMap;

use wssgate_testkit::instance::Setup;
use wssgate_testkit::pki::Leaf;
use wssgate_testkit::{Addr, Conn, Frame, Handshake, Instance, Listener, Pki, pong};
use wssgate_ws::Opcode;

/// The server.
pub(crate) const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// All that is said of a tunnel, behind the number that the test gave it.
pub(crate) const FORMAT: &str = "
    log_format truth '$arg_id by=$websocket_closed_by|code=$websocket_close_code|\
reason=$websocket_close_reason|cause=$websocket_close_cause|event=$websocket_event|\
trace=$websocket_trace|hops=$websocket_hops|\
lifetime=$websocket_lifetime|handshake=$websocket_handshake_time|%%SIDES%%';
    access_log truth.log truth;";

const OF_SIDE: [&str; 15] = [
    "close_code",
    "close_reason",
    "messages",
    "text_messages",
    "binary_messages",
    "frames",
    "bytes",
    "payload_bytes",
    "text_bytes",
    "binary_bytes",
    "largest_message",
    "pings",
    "pongs",
    "rtt",
    "blocked_time",
];

/// What each location says.
const LOCATIONS: [(&str, &str); 21] = [
    ("plain", ""),
    ("read", "websocket_ping_interval off; proxy_read_timeout 400ms;"),
    ("send", "websocket_ping_interval off; send_timeout 300ms; proxy_send_timeout 300ms;"),
    ("slow", "websocket_ping_interval off; websocket_slow_reader_timeout 300ms;"),
    (
        "ask-client",
        "websocket_ping_interval upstream=off client=100ms; websocket_pong_timeout 400ms;",
    ),
    (
        "ask-upstream",
        "websocket_ping_interval client=off upstream=100ms; websocket_pong_timeout 400ms;",
    ),
    ("idle", "websocket_idle_timeout 150ms;"),
    ("life", "websocket_max_lifetime 150ms jitter=0;"),
    ("denied", "websocket_reauth 150ms /no;"),
    ("frame", "websocket_max_frame_size 1000;"),
    ("message", "websocket_max_message_size 1000;"),
    ("fragments", "websocket_max_fragments 3;"),
    ("control", "websocket_max_control_frames 20;"),
    ("check", "websocket_check text;"),
    ("messages", "websocket_message_rate 1r/m burst=4 close;"),
    ("bytes", "websocket_byte_rate 1 burst=1000 close;"),
    ("held", "websocket_message_rate 1r/m burst=2;"),
    ("user-timeout", "websocket_ping_interval off; websocket_tcp_user_timeout 1s;"),
    ("failure", "websocket_failure_code 1014;"),
    ("idle-long", "websocket_idle_timeout 1h; websocket_max_lifetime 1h;"),
    ("control-long", "websocket_max_control_frames 1000; websocket_max_message_size 1m;"),
];

/// Whether TLS is spoken with the client and with the upstream.
pub(crate) type Wires = [bool; 2];

/// The four ways to be between two ends.
pub(crate) const WIRES: [Wires; 4] = [[false, false], [true, false], [false, true], [true, true]];

/// The server, its upstreams, and who has what certificate.
pub(crate) struct Rig {
    pub server: Instance,
    pub listeners: [Listener; 2],
    pub pki: Pki,
    pub leaf: Leaf,
    number: u64,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with([Listener::bind(), Listener::bind()], |setup| setup)
    }

    /// With more in its configuration, and what its upstreams are: both without TLS yet.
    pub(crate) fn with([plain, tls]: [Listener; 2], more: impl FnOnce(Setup) -> Setup) -> Self {
        let pki = Pki::new();
        let leaf = pki.leaf(&["localhost"]);
        let listeners = [plain, tls.tls(leaf.server_config())];
        let server = more(hop(&leaf, listeners.each_ref().map(Listener::addr))).start();
        Self { server, listeners, pki, leaf, number: 0 }
    }

    /// A tunnel through this location.
    pub(crate) fn open(&mut self, location: &str, wires @ [client, upstream]: Wires) -> Tunnel {
        let entry = self.server.listen(usize::from(client));
        let path = format!("/{}/{location}/", wire(upstream));
        self.open_at(entry.into(), &path, wires)
    }

    /// A tunnel that begins at an address, perhaps that of a hop before, with a path.
    pub(crate) fn open_at(&mut self, entry: Addr, path: &str, [client, upstream]: Wires) -> Tunnel {
        self.number += 1;
        let number = self.number;
        let mut handshake = Handshake::to(entry).path(&format!("{path}?id={number}"));
        if client {
            handshake = handshake.tls(self.pki.client_config(), "localhost");
        }
        let (client, upstream) = handshake.open_with(&self.listeners[usize::from(upstream)]);
        Tunnel { number, client: End::new(client, true), upstream: End::new(upstream, false) }
    }

    /// What the access log says of a tunnel.
    #[track_caller]
    pub(crate) fn line(&self, number: u64) -> Line {
        let mut line = None;
        // Whole: a part of it may be seen before the rest.
        wssgate_testkit::wait_until(&format!("line {number}"), || {
            line = self.lines().remove(&number);
            line.is_some()
        });
        line.unwrap()
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> BTreeMap<u64, Line> {
        lines(&self.server)
    }
}

/// The word for a wire in the path of a location.
pub(crate) fn wire(tls: bool) -> &'static str {
    if tls { "tls" } else { "plain" }
}

/// A server with all locations for both ways to an upstream: the plain one is at the first address, the one with TLS
/// at the second. `%%MORE%%` and `%%URI%%` are for others to fill.
pub(crate) fn hop(leaf: &Leaf, [plain, tls]: [&Addr; 2]) -> Setup {
    let mut locations = String::from("location = /no { return 403; }\n");
    for (wire, pass) in [("plain", "http://%%PLAIN%%"), ("tls", "https://%%TLS%%")] {
        for (name, directives) in LOCATIONS {
            locations +=
                &format!("location /{wire}/{name}/ {{ {directives} proxy_pass {pass}%%URI%%; }}\n");
        }
    }
    let http = format!(
        "{} proxy_buffer_size 4k; %%MORE%%
         server {{ listen %%LISTEN_0%%; {locations} }}
         server {{ listen %%LISTEN_1%% ssl; ssl_certificate %%CHAIN%%; ssl_certificate_key %%KEY%%; {locations} }}",
        format()
    );
    // What is left of a tunnel after a reload or QUIT ends soon.
    Instance::setup(EXE)
        .main_and_http("worker_shutdown_timeout 100ms;", &http)
        .var("PLAIN", plain)
        .var("TLS", tls)
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .var("MORE", "")
        .var("URI", "")
}

/// `FORMAT` with all variables of both sides.
pub(crate) fn format() -> String {
    let sides = ["client", "upstream"].iter().flat_map(|side| {
        OF_SIDE.iter().map(move |name| format!("{side}_{name}=$websocket_{side}_{name}"))
    });
    FORMAT.replace("%%SIDES%%", &sides.collect::<Vec<_>>().join("|"))
}

/// What an access line says.
pub(crate) type Line = BTreeMap<String, String>;

/// The lines in `FORMAT` of a server.
pub(crate) fn lines(server: &Instance) -> BTreeMap<u64, Line> {
    let text = server.read("truth.log");
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let lines: BTreeMap<u64, Line> = complete
        .lines()
        .map(|line| {
            let (number, pairs) = line.split_once(' ').unwrap();
            let pairs = pairs.split('|').map(|pair| pair.split_once('=').unwrap());
            let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            (number.parse().unwrap_or(0), pairs.collect())
        })
        .collect();
    lines.values().for_each(check_agreement);
    lines
}

/// The codes of Closes that a hop sends of its own.
const OWN_CODES: [&str; 7] = ["-", "1001", "1002", "1007", "1008", "1009", "1014"];

/// The fields of one line tell one story: nobody's name stands beside the code of another.
#[track_caller]
fn check_agreement(line: &Line) {
    let [by, code, cause] = [&line["by"], &line["code"], &line["cause"]];
    let is_own = OWN_CODES.contains(&&**code);
    match &**by {
        side @ ("client" | "upstream") => {
            let theirs = &line[&format!("{side}_close_code")];
            assert!(code == theirs || theirs == "-" && is_own, "{line:?}");
        }
        "proxy" => assert!(is_own, "{line:?}"),
        _ => assert_eq!((&**by, &**code), ("-", "-"), "{line:?}"),
    }
    if let "client_close" | "upstream_close" = &**cause {
        assert!(*cause == format!("{by}_close") && code != "-", "{line:?}");
    }
    assert_eq!(cause == "-", line["event"] != "close", "{line:?}");
}

/// Both ends of a tunnel.
pub(crate) struct Tunnel {
    pub number: u64,
    pub client: End,
    pub upstream: End,
}

impl Tunnel {
    /// The end that asked, or the other one; and then the one across.
    pub(crate) fn ends(&mut self, client: bool) -> (&mut End, &mut End) {
        match client {
            true => (&mut self.client, &mut self.upstream),
            false => (&mut self.upstream, &mut self.client),
        }
    }

    /// One end answers the first ping, as all do that are there, and then is there no more.
    #[track_caller]
    pub(crate) fn freeze(&mut self, client: bool) {
        let (frozen, other) = self.ends(client);
        let first = frozen.recv();
        frozen.answer(pong(first.payload));
        assert_eq!(frozen.recv().opcode, Opcode::Ping);
        other.conn().expect_eof();
        // Or it might end before a hop between has heard of it.
        frozen.conn().expect_eof();
    }

    /// What both ends have said.
    pub(crate) fn said(&self) -> [&Said; 2] {
        [&self.client.said, &self.upstream.said]
    }

    /// Closes what is still open of both ends, and hears them out.
    pub(crate) fn finish(&mut self) {
        let mut left: Vec<_> = [&mut self.client, &mut self.upstream]
            .iter_mut()
            .filter_map(|end| end.conn.take())
            .collect();
        left.iter_mut().for_each(|conn| drop(conn.shutdown_write()));
        left.iter_mut().for_each(|conn| drop(conn.recv_to_end()));
    }

    /// One end sends frames that arrive at the other.
    #[track_caller]
    pub(crate) fn pass(&mut self, from_client: bool, frames: &[Frame]) {
        let (from, to) = self.ends(from_client);
        from.send(frames);
        to.expect(frames);
    }
}

/// One end of a tunnel, and what was said.
pub(crate) struct End {
    conn: Option<Conn>,
    is_client: bool,
    /// What it has said, as the hop that it speaks with should count it.
    pub said: Said,
    /// The same as a hop should count it that only passes it on.
    pub sent: Said,
    /// What was said to it, by the other end or by a hop.
    pub heard: Said,
}

impl End {
    fn new(conn: Conn, is_client: bool) -> Self {
        let [said, sent, heard] = Default::default();
        Self { conn: Some(conn), is_client, said, sent, heard }
    }

    pub(crate) fn conn(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("it has not ended")
    }

    /// Sends frames, and counts them.
    #[track_caller]
    pub(crate) fn send(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.said.add(frame, self.is_client);
            self.sent.add(frame, self.is_client);
        }
        self.conn().send(frames.iter().cloned());
    }

    /// Sends a frame of which nobody makes anything: only its bytes are counted.
    #[track_caller]
    pub(crate) fn send_odd(&mut self, frame: &Frame) {
        let bytes = frame.encode(self.is_client.then_some([0; 4]));
        self.said.bytes += bytes.len() as u64;
        self.sent.bytes += bytes.len() as u64;
        self.conn().send_raw(bytes);
    }

    /// Answers a ping of a hop. The answer is for that: the one across has nothing of it, and only its bytes are
    /// counted there.
    #[track_caller]
    pub(crate) fn answer(&mut self, pong: Frame) {
        self.sent.add(&pong, self.is_client);
        self.said.bytes += pong.encode(self.is_client.then_some([0; 4])).len() as u64;
        self.conn().send([pong]);
    }

    /// Receives the next frame, and counts it.
    #[track_caller]
    pub(crate) fn recv(&mut self) -> Frame {
        let frame = self.conn().recv();
        self.heard.add(&frame, !self.is_client);
        frame
    }

    /// Expects exactly these frames next, and counts them.
    #[track_caller]
    pub(crate) fn expect(&mut self, frames: &[Frame]) {
        for expected in frames {
            assert_eq!(self.recv(), *expected);
        }
    }

    /// Goes away without a word; what waits for it is lost.
    pub(crate) fn leave(&mut self) {
        self.conn = None;
    }

    /// Breaks its connection.
    pub(crate) fn reset(&mut self) {
        self.conn.take().unwrap().reset().unwrap();
    }
}

/// What an end has said, as its access line should count it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub close: Option<(u16, String)>,
    pub bytes: u64,
    frames: u64,
    texts: u64,
    binaries: u64,
    text_bytes: u64,
    binary_bytes: u64,
    largest: u64,
    pings: u64,
    pongs: u64,
    /// The message under way: whether it is text, and its length.
    message: Option<(bool, u64)>,
}

impl Said {
    /// Counts a frame.
    pub(crate) fn add(&mut self, frame: &Frame, masked: bool) {
        let len = frame.payload.len() as u64;
        self.bytes += frame.encode(masked.then_some([0; 4])).len() as u64;
        self.frames += 1;
        match frame.opcode {
            Opcode::Ping => self.pings += 1,
            Opcode::Pong => self.pongs += 1,
            Opcode::Close => {
                let reason = frame.payload.get(2..).unwrap_or_default();
                let reason = String::from_utf8_lossy(reason).into_owned();
                self.close = Some((frame.close_code().unwrap_or(1005), reason));
            }
            Opcode::Text | Opcode::Binary => {
                self.message = Some((frame.opcode == Opcode::Text, len));
            }
            Opcode::Continuation => self.message.as_mut().unwrap().1 += len,
        }
        if frame.fin
            && !frame.opcode.is_control()
            && let Some((text, len)) = self.message.take()
        {
            self.largest = self.largest.max(len);
            let (messages, bytes) = match text {
                true => (&mut self.texts, &mut self.text_bytes),
                false => (&mut self.binaries, &mut self.binary_bytes),
            };
            *messages += 1;
            *bytes += len;
        }
    }

    /// What the line should say of this side.
    pub(crate) fn expected(&self, side: &str) -> Vec<(String, String)> {
        let (code, reason) = match &self.close {
            Some((code, reason)) => (code.to_string(), reason.clone()),
            None => ("-".into(), "-".into()),
        };
        let number = |number: u64| number.to_string();
        [
            ("close_code", code),
            ("close_reason", reason),
            ("messages", number(self.texts + self.binaries)),
            ("text_messages", number(self.texts)),
            ("binary_messages", number(self.binaries)),
            ("frames", number(self.frames)),
            ("bytes", number(self.bytes)),
            ("payload_bytes", number(self.text_bytes + self.binary_bytes)),
            ("text_bytes", number(self.text_bytes)),
            ("binary_bytes", number(self.binary_bytes)),
            ("largest_message", number(self.largest)),
            ("pings", number(self.pings)),
            ("pongs", number(self.pongs)),
        ]
        .map(|(name, value)| (format!("{side}_{name}"), value))
        .into()
    }
}

/// Who ended a tunnel, with which code and why: `client 1000 client_close`.
pub(crate) fn told(line: &Line) -> String {
    format!("{} {} {}", line["by"], line["code"], line["cause"])
}

/// Holds a line against what both ends have said.
#[track_caller]
pub(crate) fn check(line: &Line, expected: &str, [client, upstream]: [&Said; 2], what: &str) {
    let sides = [("client", client), ("upstream", upstream)];
    assert_eq!(told(line), expected, "{what}: {line:?}");
    assert_eq!(line["event"], "close", "{what}");
    for (name, value) in sides.into_iter().flat_map(|(side, said)| said.expected(side)) {
        assert_eq!(line[&name], value, "{what}: {name} of {line:?}");
    }
    let times = ["lifetime", "handshake", "client_blocked_time", "upstream_blocked_time"];
    for name in times {
        assert!(line[name].parse::<f64>().is_ok_and(|time| time < 60.0), "{what}: {name} {line:?}");
    }
}
