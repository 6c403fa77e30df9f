//! Drains and other changes by `wssgate ctl`, with the real program.
#![allow(clippy::unwrap_used)]

use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use wssgate_testkit::{Conn, Handshake, Instance, Upstream, close, http, text, wait_until};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// An echo server behind locations with users.
const USERS: &str = "log_format ends '$arg_user $websocket_close_cause $websocket_close_code \
    $websocket_close_reason';
    access_log %%DIR%%/ends.log ends;
    upstream chat { server %%UP%%; }
    server { listen %%LISTEN_0%%; server_name chat.test; websocket_user $arg_user;
      location /chat { proxy_pass http://chat; }
      location = /metrics { prometheus; }
      location /other { proxy_pass http://%%UP%%; } }";

fn start(upstream: &Upstream) -> Instance {
    let setup = Instance::setup(WSSGATE).main_and_http("user root; worker_processes 2;", USERS);
    setup.var("UP", upstream.addr()).start()
}

fn open(server: &Instance, path: &str) -> Conn {
    let mut client = Handshake::to(server.listen(0)).path(path).open();
    echo(&mut client, "first");
    client
}

fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

/// Answers the Close that comes, and says when it did.
fn answer_close(mut client: Conn, code: u16, reason: &str) -> Instant {
    client.expect([close(code, reason)]);
    let at = Instant::now();
    client.send([close(code, "")]);
    client.recv_to_end();
    at
}

fn command(server: &Instance, arguments: &[&str]) -> Command {
    let mut command = Command::new(WSSGATE);
    command.arg("ctl").arg("-p").arg(server.dir()).args(["-c", "nginx.conf"]).args(arguments);
    command
}

fn run(server: &Instance, arguments: &[&str]) -> Output {
    command(server, arguments).output().unwrap()
}

/// What is printed; the exit code has to be this.
#[track_caller]
fn ctl(server: &Instance, code: i32, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    let (out, told) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{told}");
    out + &told
}

#[track_caller]
fn json(server: &Instance, arguments: &[&str]) -> Value {
    serde_json::from_str(&ctl(server, 0, &[arguments, &["--json"]].concat())).unwrap()
}

/// The command while it follows a drain.
fn spawn(server: &Instance, arguments: &[&str]) -> Child {
    command(server, arguments).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn some_are_closed_over_a_time_in_the_words_of_the_operator() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let anns: Vec<_> = (0..120).map(|_| open(&server, "/chat?user=ann")).collect();
    let mut bob = open(&server, "/chat?user=bob");
    let counted = ctl(&server, 1, &["drain", "--user", "ann", "--over", "2s"]);
    assert_eq!(counted, "120 would be closed; add --yes to begin\n");
    let began = Instant::now();
    let arguments = ["drain", "--user", "ann", "--over", "2s", "--code", "4010"];
    let command = spawn(&server, &[&arguments[..], &["--reason", "moved", "--yes"]].concat());
    let anns: Vec<_> = anns
        .into_iter()
        .map(|ann| thread::spawn(move || answer_close(ann, 4010, "moved")))
        .collect();
    let closed: Vec<_> = anns.into_iter().map(|ann| ann.join().unwrap() - began).collect();
    // How even the pace is show the tests of the engine; this machine may be busy.
    let early = closed.iter().filter(|at| **at < Duration::from_secs(1)).count();
    assert!((30..=90).contains(&early), "{early} of 120 in the first half");
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success());
    let out = String::from_utf8(output.stdout).unwrap();
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("drain 1 of user=ann: 120 ended in "), "{out}");
    assert!(!out.contains('\r') && out.lines().count() > 1, "it is no terminal: {out}");
    server.wait_for_log("drain 1 of user=ann: closing 120 WebSockets over 2s");
    server.wait_for_log("drain 1 of user=ann: 120 WebSockets ended in ");
    assert!(server.error_log().contains(") through the admin socket"));
    let ends = server.read("ends.log");
    assert_eq!(ends.lines().filter(|line| *line == "ann drain 4010 moved").count(), 120, "{ends}");
    echo(&mut bob, "still here");
    let drains = json(&server, &["drains"]);
    let drain = &drains["drains"][0];
    assert_eq!((&drain["state"], &drain["what"]), (&"ended".into(), &"user=ann".into()));
    assert_eq!([&drain["tunnels"], &drain["told"], &drain["ended"]], [120, 120, 120]);
    assert!(drain["took"].as_f64().unwrap() < 30.0);
}

#[test]
fn who_does_not_answer_is_ended_and_who_comes_later_is_not() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut silent = open(&server, "/chat?user=ann");
    let arguments = ["drain", "--upstream", "chat", "--over", "100ms", "--yes"];
    let told = ctl(&server, 0, &arguments);
    assert!(told.contains("drain 1 of upstream=chat: 1 ended in "), "{told}");
    silent.expect([close(1001, "")]);
    silent.expect_eof();
    let mut later = open(&server, "/chat?user=ann");
    echo(&mut later, "not drained");
    let empty = ctl(&server, 0, &["drain", "--user", "nobody", "--over", "1h", "--yes"]);
    assert!(empty.contains("drain 2 of user=nobody: 0 ended in "), "{empty}");
}

#[test]
fn a_drain_goes_on_through_a_reload_until_it_is_cancelled_or_a_sooner_one_comes() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut anns: Vec<_> = (0..3).map(|_| open(&server, "/chat?user=ann")).collect();
    let arguments = ["drain", "--user", "ann", "--over", "1h", "--yes", "--detach"];
    assert!(ctl(&server, 0, &arguments).starts_with("drain 1 of user=ann: "));
    wait_until("the plan", || json(&server, &["drains"])["drains"][0]["tunnels"] == 3);
    ctl(&server, 0, &["reload"]);
    let mut new = open(&server, "/chat?user=ann");
    let shown = ctl(&server, 0, &["drains"]);
    assert!(shown.starts_with("drain 1 of user=ann: 0 of 3 closed over 1h0m, 0 have ended\n"));
    // Who is to be gone sooner belongs to both.
    let id =
        json(&server, &["list", "--limit", "1"])["tunnels"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/drains?id={id}&over=50ms&code=1012");
    let begun = post(&server, &path);
    assert_eq!(
        (&begun["matched"], &begun["drain"]["what"]),
        (&1.into(), &format!("id={id}").into())
    );
    answer_close(anns.remove(0), 1012, "");
    wait_until("the end", || json(&server, &["drains"])["drains"][0]["state"] == "ended");
    let first = &json(&server, &["drains"])["drains"][1];
    assert_eq!([&first["told"], &first["ended"], &first["spared"]], [1, 1, 0]);
    let following = spawn(&server, &["drain", "--user", "ann", "--over", "30m", "--yes"]);
    wait_until("the third", || json(&server, &["drains"])["drains"][0]["tunnels"] == 3);
    let told = ctl(&server, 0, &["drains", "--cancel", "3"]);
    assert!(told.starts_with("drain 3 of user=ann: cancelled"), "{told}");
    assert_eq!(following.wait_with_output().unwrap().status.code(), Some(1));
    server.wait_for_log("drain 3 of user=ann: 0 WebSockets ended in ");
    assert!(server.error_log().contains(", 3 left it: it was cancelled"));
    for client in anns.iter_mut().chain([&mut new]) {
        echo(client, "still here");
    }
    ctl(&server, 1, &["drains", "--cancel", "3"]);
    assert!(ctl(&server, 1, &["drains", "--cancel", "99"]).contains("no drain with this id"));
}

/// The server must not live as long as some operator meant a few WebSockets to.
#[test]
fn quit_does_not_wait_for_a_longer_drain() {
    let upstream = Upstream::echo();
    let http = USERS.replace("websocket_user", "websocket_drain 100ms code=1012; websocket_user");
    let server = Instance::setup(WSSGATE).main_and_http("user root;", &http);
    let server = server.var("UP", upstream.addr()).start();
    let ann = open(&server, "/chat?user=ann");
    ctl(&server, 0, &["drain", "--all", "--over", "1h", "--yes", "--detach"]);
    server.wait_for_log("drain 1 of everything: closing 1 WebSocket over 3600s");
    server.signal("QUIT");
    answer_close(ann, 1012, "");
    assert!(server.wait().success());
}

/// An exit code of 0 says that all that were meant have ended.
#[test]
fn the_exit_code_says_whether_anybody_stays() {
    let upstream = Upstream::echo();
    let http = USERS.replace("location /other {", "location /other { websocket_check off;");
    let server = Instance::setup(WSSGATE).main_and_http("user root;", &http);
    let server = server.var("UP", upstream.addr()).start();
    let mut unparsed = open(&server, "/other");
    let counted = ctl(&server, 1, &["drain", "--all", "--over", "1s"]);
    assert!(counted.starts_with("0 would be closed; add --yes to begin\n"), "{counted}");
    assert!(counted.contains("1 stays: its frames are not known"), "{counted}");
    let ann = open(&server, "/chat?user=ann");
    let client = thread::spawn(move || answer_close(ann, 1001, ""));
    let told = ctl(&server, 1, &["drain", "--all", "--over", "0s", "--yes"]);
    assert!(told.contains(": 1 ended in ") && told.contains("1 stays: "), "{told}");
    client.join().unwrap();
    echo(&mut unparsed, "still here");
    // One that would end later waits for the one that ends sooner.
    let bob = open(&server, "/chat?user=bob");
    let client = thread::spawn(move || answer_close(bob, 4010, ""));
    let drain = ["drain", "--user", "bob", "--yes", "--over"];
    ctl(&server, 0, &[&drain[..], &["500ms", "--code", "4010", "--detach"]].concat());
    let told = ctl(&server, 0, &[&drain[..], &["1h"]].concat());
    assert!(told.contains("drain 3 of user=bob: 1 ended in "), "{told}");
    client.join().unwrap();
}

#[test]
fn a_server_that_ends_while_it_is_followed_has_drained_all() {
    let upstream = Upstream::echo();
    let http = USERS.replace("websocket_user", "websocket_drain 100ms code=1012; websocket_user");
    let server = Instance::setup(WSSGATE).main_and_http("user root;", &http);
    let server = server.var("UP", upstream.addr()).start();
    let mut silent = open(&server, "/chat?user=ann");
    let mut following = command(&server, &["drain", "--all", "--over", "1h", "--yes"]);
    let following = following.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    server.wait_for_log("drain 1 of everything: closing 1 WebSocket over 3600s");
    server.signal("QUIT");
    // Nobody answers: so the server is there for a second more, and is asked again.
    silent.expect([close(1012, "")]);
    assert!(server.wait().success());
    let output = following.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("the server has ended"), "{told}");
}

/// Whoever a cancelled drain lets go is what the other one waits for: the server would never end.
#[test]
fn who_is_let_go_after_quit_is_closed_all_the_same() {
    let upstream = Upstream::echo();
    let http = USERS.replace("websocket_user", "websocket_drain 2s code=1012; websocket_user");
    for over in ["1500ms", "1h"] {
        let server = Instance::setup(WSSGATE).main_and_http("user root;", &http);
        let server = server.var("UP", upstream.addr()).start();
        let anns: Vec<_> = (0..20).map(|_| open(&server, "/chat?user=ann")).collect();
        let drain = ["drain", "--user", "ann", "--code", "4010", "--over", over];
        ctl(&server, 0, &[&drain[..], &["--yes", "--detach"]].concat());
        server.wait_for_log("drain 1 of user=ann: closing 20 WebSockets");
        server.signal("QUIT");
        server.wait_for_log("drain of generation 1: closing 20 WebSockets over 2s");
        ctl(&server, 0, &["drains", "--cancel", "1"]);
        let answer = |mut ann: Conn| {
            let end = ann.recv();
            ann.send([close(end.close_code().unwrap(), "")]);
            ann.recv_to_end();
            end.close_code().unwrap()
        };
        let anns: Vec<_> = anns.into_iter().map(|ann| thread::spawn(move || answer(ann))).collect();
        let codes: Vec<_> = anns.into_iter().map(|ann| ann.join().unwrap()).collect();
        assert!(codes.iter().all(|code| [4010, 1012].contains(code)), "{codes:?}");
        assert!(codes.contains(&1012), "{over}: {codes:?}");
        assert!(server.wait().success());
    }
}

/// An upstream server that echoes on WebSockets and answers other requests.
fn both(answer: &'static str) -> Upstream {
    Upstream::serve(move |conn| {
        let request = conn.recv_request();
        if request.field("Upgrade").is_some() {
            conn.accept_websocket(&request, "");
            conn.echo();
        } else {
            let len = answer.len();
            conn.send_raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{answer}"));
        }
    })
}

fn refused(server: &Instance, path: &str) -> Option<u64> {
    let (_conn, response) = Handshake::to(server.listen(0)).path(path).answer();
    if response.status == 101 {
        return None;
    }
    assert_eq!(response.status, 503, "{path}");
    Some(response.field("Retry-After").unwrap().parse().unwrap())
}

#[test]
fn a_location_that_is_drained_lets_nobody_in_until_it_is_resumed_or_a_reload() {
    let upstream = both("here");
    let server = start(&upstream);
    let ann = open(&server, "/chat?user=ann");
    let mut other = open(&server, "/other?user=bob");
    let drain = ["drain", "--location", "/chat", "--server", "chat.test", "--over", "50ms"];
    let refuse = ["--refuse-new", "--retry-after", "20s-90s"];
    ctl(&server, 1, &[&drain[..], &refuse].concat());
    assert_eq!(refused(&server, "/chat"), None, "it was only counted");
    let client = thread::spawn(move || answer_close(ann, 1001, ""));
    ctl(&server, 0, &[&drain[..], &refuse, &["--yes"]].concat());
    client.join().unwrap();
    let seconds: Vec<_> = (0..20).map(|_| refused(&server, "/chat").unwrap()).collect();
    assert!(seconds.iter().all(|time| (20..=90).contains(time)), "{seconds:?}");
    assert!(seconds.iter().any(|time| *time != seconds[0]), "all come at once: {seconds:?}");
    server.wait_for_log("no new WebSockets are let in here, as an operator wants it");
    let ordinary = http::get(server.listen(0), "chat.test", "/chat");
    assert_eq!((ordinary.status, &*ordinary.text()), (200, "here"));
    assert_eq!(refused(&server, "/other"), None);
    echo(&mut other, "still here");
    let drains = json(&server, &["drains"]);
    assert_eq!(drains["refusing"][0]["location"], "/chat");
    assert!(
        ctl(&server, 0, &["drains"])
            .contains("no new WebSockets in location /chat of server chat.test\n")
    );
    ctl(&server, 0, &["resume", "--location", "/chat"]);
    assert_eq!(refused(&server, "/chat"), None);
    ctl(&server, 1, &["resume", "--all"]);
    ctl(&server, 0, &[&drain[..5], &["--over", "0s", "--refuse-new", "--yes"]].concat());
    let seconds = refused(&server, "/chat").unwrap();
    assert!((10..=60).contains(&seconds), "{seconds}");
    let told = ctl(&server, 0, &["reload"]);
    let line = "let in again in location \"/chat\" of server \"chat.test\", which an operator had";
    assert!(told.contains(line), "{told}");
    assert_eq!(refused(&server, "/chat"), None, "until the next reload");
    server.wait_for_log("new WebSockets again in location \"/chat\" of server \"chat.test\", by ");
}

#[test]
fn who_waits_for_a_turn_is_refused_where_nobody_is_let_in_any_more() {
    let upstream = Upstream::echo();
    let rate = "websocket_handshake_rate 12r/m queue=5 retry_after=1s-2s; websocket_user";
    let http = USERS.replace("websocket_user", rate);
    let wait = |reloads: bool| {
        let setup = Instance::setup(WSSGATE).main_and_http("user root; worker_processes 1;", &http);
        let server = setup.var("UP", upstream.addr()).start();
        let _first = open(&server, "/chat");
        thread::scope(|scope| {
            // Its turn comes in five seconds.
            let waiting = scope.spawn(|| refused(&server, "/chat"));
            wait_until("the handshake", || json(&server, &["status"])["connections"] == 2);
            if reloads {
                ctl(&server, 0, &["reload"]);
            }
            let drain = ["drain", "--location", "/chat", "--over", "0s", "--refuse-new", "--yes"];
            ctl(&server, 0, &[&drain[..], &["--retry-after", "77s", "--detach"]].concat());
            assert_eq!(waiting.join().unwrap(), Some(77), "reloads: {reloads}");
        });
    };
    wait(false);
    // Then it waits with the configuration before.
    wait(true);
}

/// Its request has begun with the configuration before; the door is closed in the newest one.
#[test]
fn who_began_before_a_reload_is_refused_where_nobody_is_let_in_any_more() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let begin = |path: &str| {
        let mut conn = Conn::connect(server.listen(0));
        conn.send_raw(format!("GET {path} HTTP/1.1\r\nHost: chat.test\r\n"));
        conn
    };
    let finish = |conn: &mut Conn| {
        conn.send_raw("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
        conn.send_raw("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        String::from_utf8(conn.recv_raw("HTTP/1.1 101".len())).unwrap()
    };
    let (mut chat, mut other, mut later) = (begin("/chat"), begin("/other"), begin("/chat"));
    wait_until("their workers to read", || {
        let reading = "wssgate_connections{state=\"reading\"} 3";
        http::get(server.listen(0), "chat.test", "/metrics").text().contains(reading)
    });
    ctl(&server, 0, &["reload"]);
    ctl(&server, 0, &["drain", "--location", "/chat", "--over", "0s", "--refuse-new", "--yes"]);
    assert_eq!(finish(&mut chat), "HTTP/1.1 503");
    assert_eq!(finish(&mut other), "HTTP/1.1 101");
    ctl(&server, 0, &["resume", "--location", "/chat"]);
    assert_eq!(finish(&mut later), "HTTP/1.1 101");
}

/// An answer to a POST.
fn post(server: &Instance, path: &str) -> Value {
    ask(server, "POST", path).1
}

fn ask(server: &Instance, method: &str, path: &str) -> (u16, Value) {
    use std::io::{Read, Write};
    let socket = server.dir().join("nginx.admin.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn drains_that_make_no_sense_are_refused() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut ann = open(&server, "/chat?user=ann");
    for (method, path, status, error) in [
        ("POST", "drains", 400, "parameter \"over\" is missing"),
        ("POST", "drains?over=1s", 400, "all=true"),
        ("POST", "drains?all=true&over=soon", 400, "a time such as"),
        ("POST", "drains?all=true&over=367d", 400, "at most 366d"),
        ("POST", "drains?all=true&over=1s&jitter=367d", 400, "at most 366d"),
        ("POST", "drains?all=true&over=1s&code=1006", 400, "a code that may be sent"),
        ("POST", "drains?all=true&over=1s&order=newest", 400, "oldest or idlest"),
        ("POST", "drains?user=ann&over=1s&refuse_new=true", 400, "goes with server, location"),
        ("POST", "drains?location=/chat&user=ann&over=1s&refuse_new=true", 400, "goes with"),
        ("POST", "drains?location=/no&over=1s&refuse_new=true", 404, "no location"),
        ("POST", "drains?location=/chat&over=1s&retry_after=1s", 400, "goes with refuse_new"),
        ("POST", "drains?location=/chat&over=1s&refuse_new&retry_after=9s-1s", 400, "a time or"),
        ("GET", "drains/7", 404, "no drain"),
        ("POST", "drains/1", 405, "GET"),
        ("POST", "resume", 400, "name a server"),
        ("GET", "resume?all", 405, "POST"),
    ] {
        let (found, answer) = ask(&server, method, &format!("/v1/{path}"));
        let told = answer["error"].as_str().unwrap();
        assert!(found == status && told.contains(error), "{path}: {found} {told}");
    }
    for arguments in [
        &["drain", "--over", "1s", "--yes"][..],
        &["drain", "--all", "--yes"],
        &["drain", "--all", "--over", "soon", "--yes"],
    ] {
        ctl(&server, 2, arguments);
    }
    assert!(ctl(&server, 2, &["resume"]).contains("or say --all"));
    ctl(&server, 2, &["drain", "--all", "--over", "1s", "--reason", "no code"]);
    assert_eq!(json(&server, &["drains"])["drains"].as_array().unwrap().len(), 0);
    assert_eq!(refused(&server, "/chat"), None);
    echo(&mut ann, "still here");
}
