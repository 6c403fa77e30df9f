//! `wssgate ctl tap`: the frames of live WebSockets, with the real program.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};
use wssgate_testkit::{
    Conn, Handshake, Instance, Listener, Upstream, binary, close, continuation, ping, pong, text,
    wait_until,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

const TAPPED: &str = "access_log off;
    server { listen %%LISTEN_0%%; websocket_user $arg_user;
      location /chat { proxy_pass http://%%UP%%; }
      location /off { websocket_tap off; proxy_pass http://%%UP%%; }
      location /unchecked { websocket_check off; proxy_pass http://%%UP%%; }
      location /payload { websocket_tap payload max=16; proxy_pass http://%%UP%%; }
      location /secret { websocket_tap payload redact=password,token; proxy_pass http://%%UP%%; } }";

fn start(addr: impl std::fmt::Display) -> Instance {
    Instance::setup(WSSGATE).main_and_http("user root;", TAPPED).var("UP", addr).start()
}

fn open(server: &Instance, path: &str) -> Conn {
    Handshake::to(server.listen(0)).path(path).open()
}

fn ctl(server: &Instance, arguments: &[&str]) -> Command {
    let mut command = Command::new(WSSGATE);
    command.arg("ctl").arg("-p").arg(server.dir()).args(["-c", "nginx.conf"]).args(arguments);
    command
}

/// A running `ctl tap` whose lines are read one by one.
struct Tap {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Tap {
    /// Begins; what it looks at has been told when this returns.
    fn start(server: &Instance, arguments: &[&str]) -> (Self, Value) {
        let mut command = ctl(server, &[&["tap", "--json"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut tap = Self { child, lines };
        let first = tap.line();
        (tap, first)
    }

    #[track_caller]
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no line: {line:?}"))
    }

    /// The next lines with these members only.
    #[track_caller]
    fn expect(&mut self, expected: &[Value]) {
        for expected in expected {
            let line = self.line();
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(&line[name], value, "{name} of {line}");
            }
        }
    }

    /// The exit code, once it has ended.
    fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn refused(server: &Instance, arguments: &[&str], why: &str) {
    refused_with(server, 1, arguments, why);
}

#[track_caller]
fn refused_with(server: &Instance, code: i32, arguments: &[&str], why: &str) {
    let Output { status, stderr, stdout } =
        ctl(server, &[&["tap"], arguments].concat()).output().unwrap();
    let told = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(code) && told.contains(why), "{arguments:?}: {told}");
    assert!(stdout.is_empty());
}

#[test]
fn headers_are_told_in_order_with_their_directions_until_the_end() {
    let listener = Listener::bind();
    let server = start(listener.addr());
    let handshake = Handshake::to(server.listen(0)).path("/chat?user=ann");
    let (mut client, mut upstream) = handshake.open_with(&listener);
    let (mut tap, first) = Tap::start(&server, &["--user", "ann"]);
    assert_eq!(first["tunnels"], 1);
    server.wait_for_log("tapping 1 WebSocket, by ");
    client.send([text("hel").more(), ping("?"), continuation("lo")]);
    upstream.expect([text("hel").more(), ping("?"), continuation("lo")]);
    let up = |opcode: &str, fin: bool, length: u64| {
        json!({"from": "client", "to": "upstream", "opcode": opcode, "fin": fin, "length": length,
            "rsv": 0, "masked": true, "payload": null})
    };
    tap.expect(&[up("text", false, 3), up("ping", true, 1), up("continuation", true, 2)]);
    upstream.send([pong("?"), binary([0; 70_000])]);
    client.expect([pong("?"), binary([0; 70_000])]);
    let down = |opcode: &str, length: u64| {
        json!({"from": "upstream", "to": "client", "opcode": opcode, "fin": true, "length": length,
            "masked": false})
    };
    tap.expect(&[down("pong", 1), down("binary", 70_000)]);
    client.send([close(4000, "bye")]);
    upstream.expect([close(4000, "bye")]);
    tap.expect(&[json!({"from": "client", "opcode": "close", "code": 4000, "reason": "bye"})]);
    upstream.send([close(1000, "")]);
    client.expect([close(1000, "")]);
    tap.expect(&[json!({"from": "upstream", "opcode": "close", "code": 1000, "reason": ""})]);
    drop((client, upstream));
    let ended = tap.line();
    assert_eq!(ended["ended"], true);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now - ended["time"].as_f64().unwrap()).abs() < 20.0, "{ended}");
    assert_eq!(tap.line(), json!({"end": "ended", "shown": 7, "missed": 0}));
    assert_eq!(tap.end(), Some(0));
    server.wait_for_log(
        "a tap has ended (7 frames shown, 0 not shown: all its tunnels have ended), by ",
    );
}

#[test]
fn payloads_are_told_only_where_that_is_allowed_and_without_secrets() {
    let upstream = Upstream::echo();
    let server = start(upstream.addr());
    let mut chat = open(&server, "/chat?user=chat");
    let _off = open(&server, "/off?user=off");
    let _unchecked = open(&server, "/unchecked?user=unchecked");
    let mut shown = open(&server, "/payload?user=shown");
    let mut secret = open(&server, "/secret?user=secret");
    refused(&server, &["--user", "chat", "--payload"], "only where `websocket_tap payload`");
    refused(&server, &["--user", "off"], "`websocket_tap off` holds there");
    refused(&server, &["--user", "unchecked"], "no frames are known there");
    refused(&server, &["--user", "nobody"], "no live WebSocket fits");
    refused_with(&server, 2, &[], "name an id or a filter");
    refused_with(&server, 2, &["7", "--user", "ann"], "cannot be used together");
    let (mut tap, first) = Tap::start(&server, &["--client", "127.0.0.1", "--payload"]);
    let expected = json!({"tunnels": 3, "off": 1, "without_frames": 1, "without_payload": 1});
    assert_eq!(first, expected);
    chat.send([text("private")]);
    chat.expect([text("private")]);
    let hidden = json!({"opcode": "text", "payload": null, "not_shown": null});
    tap.expect(&[hidden.clone(), hidden]);
    shown.send([text("0123456789abcdefXYZ")]);
    shown.expect([text("0123456789abcdefXYZ")]);
    let cut = json!({"payload": "0123456789abcdef", "cut": true, "length": 19});
    tap.expect(&[cut.clone(), cut]);
    shown.send([binary(b"\xff\x00")]);
    shown.expect([binary(b"\xff\x00")]);
    let digits = json!({"payload_hex": "ff00", "cut": null});
    tap.expect(&[digits.clone(), digits]);
    secret.send([text(r#"{"user":"ann","Password":"x"}"#)]);
    secret.expect([text(r#"{"user":"ann","Password":"x"}"#)]);
    let starred = json!({"payload": r#"{"Password":"***","user":"ann"}"#});
    tap.expect(&[starred.clone(), starred]);
    for message in [text("password=x"), text(r#"{"password":"x"}"#).more()] {
        secret.send([message]);
        secret.recv();
        let hidden = json!({"payload": null, "not_shown": "it cannot be redacted"});
        tap.expect(&[hidden.clone(), hidden]);
    }
}

#[test]
fn a_compressed_payload_is_not_shown() {
    let listener = Listener::bind();
    let server = start(listener.addr());
    let request = Handshake::to(server.listen(0)).path("/payload?user=ann");
    let (mut client, mut upstream) = request.open_with(&listener);
    let (mut tap, _) = Tap::start(&server, &["--user", "ann", "--payload"]);
    // RSV1 says so; whether it was agreed on is for the ends to judge.
    upstream.send_raw(b"\xc1\x02zz");
    assert_eq!(client.recv_raw(4), b"\xc1\x02zz");
    tap.expect(&[json!({"rsv": 4, "payload": null, "not_shown": "compressed"})]);
}

#[test]
fn a_tap_ends_after_so_many_and_a_sample_is_a_part() {
    let upstream = Upstream::echo();
    let server = start(upstream.addr());
    let mut ann = open(&server, "/chat?user=ann");
    let (mut tap, _) = Tap::start(&server, &["--user", "ann", "--max", "3"]);
    for _ in 0..4 {
        ann.send([text("hello")]);
        ann.expect([text("hello")]);
    }
    tap.expect(&[json!({"opcode": "text"}), json!({"opcode": "text"}), json!({"opcode": "text"})]);
    assert_eq!(tap.line()["end"], "max");
    assert_eq!(tap.end(), Some(0));
    let (mut tap, _) = Tap::start(&server, &["--user", "ann", "--sample", "1/10"]);
    for _ in 0..500 {
        ann.send([text("hello")]);
        ann.expect([text("hello")]);
    }
    ann.send([close(1000, "")]);
    let mut opcodes = Vec::new();
    let end = loop {
        let line = tap.line();
        match line["opcode"].as_str() {
            Some(opcode) => opcodes.push(opcode.to_owned()),
            None if line.get("end").is_some() => break line,
            None => {}
        }
    };
    let texts = opcodes.iter().filter(|opcode| *opcode == "text").count();
    assert!((40..200).contains(&texts), "{texts} of 1000");
    assert!(opcodes.iter().any(|opcode| opcode == "close"), "each Close is told");
    assert_eq!(end["shown"], opcodes.len());
}

/// Asks without the command, and reads when it likes.
fn tap_raw(server: &Instance) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(server.dir().join("nginx.admin.sock")).unwrap();
    stream.write_all(b"GET /v1/tap?user=ann HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    while !line.starts_with("{\"") {
        line.clear();
        answer.read_line(&mut line).unwrap();
    }
    answer
}

#[test]
fn who_does_not_read_holds_nothing_up_and_is_told_how_much_was_missed() {
    let upstream = Upstream::echo();
    let server = start(upstream.addr());
    let mut ann = open(&server, "/chat?user=ann");
    // Then its relay has it.
    ann.send([text("hello")]);
    ann.expect([text("hello")]);
    let mut slow = tap_raw(&server);
    let messages = 10_000_u64;
    for _ in 0..messages / 100 {
        ann.send((0..100).map(|_| text("hello")));
        for _ in 0..100 {
            ann.expect([text("hello")]);
        }
    }
    ann.send([close(1000, "")]);
    ann.expect([close(1000, "")]);
    drop(ann);
    let mut all = String::new();
    slow.read_to_string(&mut all).unwrap();
    assert!(all.ends_with("\r\n0\r\n\r\n"), "it is whole");
    let lines = all.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown = lines.iter().filter(|line| line["opcode"].is_string()).count() as u64;
    let missed: u64 = lines
        .iter()
        .filter(|line| line["end"].is_null())
        .filter_map(|line| line["missed"].as_u64())
        .sum();
    assert!(missed > 0);
    let end = lines.last().unwrap();
    assert_eq!((&end["shown"], &end["missed"]), (&shown.into(), &missed.into()));
    assert!(shown + missed >= 2 * messages, "{shown} + {missed}");
}

#[test]
fn taps_are_few_keep_nobody_from_asking_and_end_with_those_who_tap() {
    let upstream = Upstream::echo();
    let server = start(upstream.addr());
    let mut ann = open(&server, "/chat?user=ann");
    ann.send([text("hello")]);
    ann.expect([text("hello")]);
    let taps: Vec<_> = (0..4).map(|_| tap_raw(&server)).collect();
    refused(&server, &["--user", "ann"], "there are 4 taps already");
    // All at the same time.
    let answers: Vec<_> = (0..4).map(|_| ctl(&server, &["status"]).output().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.status.success()));
    drop(taps);
    wait_until("their ends", || {
        server.error_log().matches("not shown: the reader has gone)").count() == 4
    });
    let (mut tap, first) = Tap::start(&server, &["--user", "ann"]);
    assert_eq!(first["tunnels"], 1);
    ann.send([text("hello")]);
    ann.expect([text("hello")]);
    tap.expect(&[json!({"from": "client"}), json!({"from": "upstream"})]);
    let killed = ctl(&server, &["kill", "--user", "ann", "--code", "4001", "--yes"]).output();
    assert!(killed.unwrap().status.success());
    tap.expect(&[
        json!({"from": "wssgate", "to": "client", "opcode": "close", "code": 4001}),
        json!({"from": "wssgate", "to": "upstream", "opcode": "close", "code": 1001}),
    ]);
}
