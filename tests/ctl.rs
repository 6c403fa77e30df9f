//! `wssgate ctl` and the admin socket, with the real program.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use wssgate_testkit::{
    Conn, Handshake, Instance, Listener, Upstream, close, skipped, text, wait_until,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// An echo server behind a location with users.
const USERS: &str = "log_format ends '$arg_user $websocket_close_cause $websocket_close_code \
    $websocket_close_reason';
    access_log %%DIR%%/ends.log ends;
    upstream chat { server %%UP%%; }
    server { listen %%LISTEN_0%%; server_name chat.test; websocket_user $arg_user;
      location /chat { proxy_pass http://chat; }
      location /other { websocket_protocol v1; proxy_pass http://chat; } }";

fn start(upstream: &Upstream) -> Instance {
    Instance::setup(WSSGATE).main_and_http("user root;", USERS).var("UP", upstream.addr()).start()
}

fn open(server: &Instance, path: &str) -> Conn {
    Handshake::to(server.listen(0)).path(path).open()
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(WSSGATE);
    command.arg("ctl").arg("-p").arg(directory).args(["-c", "nginx.conf"]).args(arguments);
    command.output().unwrap()
}

/// What is printed; the exit code has to be this.
#[track_caller]
fn ctl(server: &Instance, code: i32, arguments: &[&str]) -> String {
    let output = run(server.dir(), arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(server: &Instance, arguments: &[&str]) -> Value {
    serde_json::from_str(&ctl(server, 0, &[arguments, &["--json"]].concat())).unwrap()
}

/// The users of the tunnels that are listed.
#[track_caller]
fn users(server: &Instance, arguments: &[&str]) -> Vec<String> {
    let answer = json(server, &[&["list"], arguments].concat());
    let tunnels = answer["tunnels"].as_array().unwrap();
    assert_eq!(answer["matched"], tunnels.len());
    tunnels.iter().map(|one| one["user"].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn a_live_websocket_is_listed_with_what_has_passed() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    assert_eq!(json(&server, &["list"])["matched"], 0);
    let mut ann = open(&server, "/chat?user=ann");
    ann.send([text("hello"), text("you")]);
    ann.expect([text("hello"), text("you")]);
    let listed = json(&server, &["list"]);
    let tunnel = &listed["tunnels"][0];
    assert_eq!(tunnel["user"], "ann");
    assert_eq!(tunnel["state"], "open");
    assert_eq!(tunnel["server"], "chat.test");
    assert_eq!(tunnel["location"], "/chat");
    assert_eq!(tunnel["upstream"], "chat");
    assert_eq!(tunnel["peer"], upstream.addr().to_string());
    assert_eq!(tunnel["client"], ann.tcp().unwrap().local_addr().unwrap().to_string());
    assert_eq!(tunnel["from_client"]["messages"], 2);
    assert_eq!(tunnel["from_upstream"]["messages"], 2);
    // Two headers of six bytes with their masks, and of two without.
    assert_eq!(tunnel["from_client"]["bytes"], 8 + 12);
    assert_eq!(tunnel["from_upstream"]["bytes"], 8 + 4);
    assert_eq!(tunnel["generation"], 1);
    let id = tunnel["id"].as_str().unwrap();
    assert_eq!(json(&server, &["show", id])["user"], "ann");
    assert!(ctl(&server, 0, &["show", id]).contains("from_client.messages"));
    ctl(&server, 1, &["show", "999"]);
    let shown = ctl(&server, 0, &["list"]);
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(shown.lines().nth(1).unwrap().contains(" ann "), "{shown}");
    let status = json(&server, &["status"]);
    assert_eq!((&status["tunnels"], &status["phase"]), (&1.into(), &"serving".into()));
    assert_eq!(status["pid"], server.pid());
}

/// What passes now is told to those who ask again, and no lifetime hides it.
#[test]
fn current_rates_tell_who_is_busy_now() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut ann = open(&server, "/chat?user=ann");
    // More than bob will have sent.
    ann.send([text(&"x".repeat(10_000))]);
    ann.expect([text(&"x".repeat(10_000))]);
    let mut bob = open(&server, "/chat?user=bob");
    let asked = |query: &str| -> Value {
        let answer = ask(&server, &format!("GET /v1/tunnels?{query} HTTP/1.1\r\nHost: a\r\n\r\n"));
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    assert!(asked("sort=id")["tunnels"][0].get("current").is_none(), "nobody asks");
    assert!(asked("current=true")["tunnels"][0]["current"].is_null(), "nothing to compare with");
    bob.send([text("hello"), text("you")]);
    bob.expect([text("hello"), text("you")]);
    wait_until("rates", || !asked("current=true")["tunnels"][0]["current"].is_null());
    let busy = asked("sort=current");
    let (first, second) = (&busy["tunnels"][0], &busy["tunnels"][1]);
    assert_eq!((&first["user"], &second["user"]), (&"bob".into(), &"ann".into()));
    assert_eq!(
        (&second["current"]["bytes"], &second["current"]["messages"]),
        (&0.into(), &0.0.into())
    );
    let over = first["current"]["over"].as_f64().unwrap();
    let messages = first["current"]["messages"].as_f64().unwrap() * over;
    assert!((messages - 4.0).abs() < 0.01, "{first}");
    assert!(over >= 0.9, "{first}");
    assert_eq!(users(&server, &["--sort", "rate"])[0], "ann");
    assert_eq!(users(&server, &["--sort", "current"]).len(), 2);
    let totals = &json(&server, &["status"])["totals"];
    assert_eq!((&totals["tunnels"], &totals["ended"]), (&2.into(), &0.into()));
    assert_eq!(totals["from_client"]["messages"], 3);
}

#[test]
fn filters_and_orders_choose() {
    let upstream = Upstream::serve(|conn| {
        let Ok(Some(request)) = conn.try_recv_request() else { return };
        let offered = request.field("Sec-WebSocket-Protocol");
        let more = offered.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        conn.accept_websocket(&request, more.as_deref().unwrap_or(""));
        conn.echo();
    });
    let server = start(&upstream);
    let _ann = open(&server, "/chat?user=ann");
    let mut bob = open(&server, "/chat?user=bob");
    let nobody = Handshake::to(server.listen(0)).path("/other");
    let _nobody = nobody.field("Sec-WebSocket-Protocol", "v1").open();
    bob.send([text("hello")]);
    bob.expect([text("hello")]);
    let peer = upstream.addr().to_string();
    for (arguments, expected) in [
        (&["--user", "bob"][..], &["bob"][..]),
        (&["--user", ""], &["-"]),
        (&["--location", "/chat"], &["ann", "bob"]),
        (&["--upstream", "chat", "--sort", "messages"], &["bob", "ann", "-"]),
        (&["--upstream", &peer, "--sort", "age"], &["ann", "bob", "-"]),
        (&["--upstream", "chat", "--sort", "age", "--order", "asc"], &["-", "bob", "ann"]),
        (&["--server", "chat.test", "--client", "127.0.0.0/8"], &["ann", "bob", "-"]),
        (&["--client", "10.0.0.0/8"], &[]),
        (&["--min-age", "1h"], &[]),
        (&["--min-idle", "0s", "--generation", "1"], &["ann", "bob", "-"]),
        (&["--min-rate", "1"], &["bob"]),
        (&["--min-rtt", "1ms"], &[]),
        (&["--subprotocol", "v1"], &["-"]),
        (&["--subprotocol", "v2"], &[]),
        (&["--subprotocol", ""], &["ann", "bob"]),
    ] {
        assert_eq!(users(&server, arguments), expected, "{arguments:?}");
    }
    // Of a name that is longer than what is kept, as much counts.
    let long = "x".repeat(300);
    let long_one = open(&server, &format!("/other?user={long}"));
    let found = json(&server, &["list", "--user", &long]);
    assert_eq!(found["matched"], 1, "{found}");
    assert_eq!(json(&server, &["list", "--user", &long[..255]])["matched"], 0);
    drop(long_one);
    wait_until("the end of it", || json(&server, &["list"])["matched"] == 3);
    let speaks = &json(&server, &["list", "--location", "/other"])["tunnels"][0]["subprotocol"];
    assert_eq!(speaks, "v1");
    let output = run(server.dir(), &["list", "--limit", "2"]);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("2 of 3 shown"));
    let first = json(&server, &["list", "--limit", "2"]);
    assert_eq!((&first["matched"], first["tunnels"].as_array().unwrap().len()), (&3.into(), 2));
    ctl(&server, 2, &["list", "--min-age", "soon"]);
    ctl(&server, 2, &["list", "--sort", "colour"]);
}

#[test]
fn who_is_killed_is_told_why_between_two_frames_and_the_log_says_by_whom() {
    let listener = Listener::bind();
    let setup = Instance::setup(WSSGATE).main_and_http("user root;", USERS);
    let server = setup.var("UP", listener.addr()).start();
    let handshake = Handshake::to(server.listen(0)).path("/chat?user=ann");
    let (mut client, mut upstream) = handshake.open_with(&listener);
    // The first half of a frame.
    let frame = text("hello").more().encode(None);
    upstream.send_raw(&frame[..4]);
    assert_eq!(client.recv_raw(4), frame[..4]);
    let listed = json(&server, &["list"]);
    let id = listed["tunnels"][0]["id"].as_str().unwrap();
    let killed = ctl(&server, 0, &["kill", id, "--code", "4001", "--reason", "banned for spam"]);
    assert_eq!(killed, "1 closed\n");
    assert_eq!(json(&server, &["list"])["tunnels"][0]["state"], "closing");
    ctl(&server, 1, &["kill", id]);
    upstream.send_raw(&frame[4..]);
    assert_eq!(client.recv_raw(frame.len() - 4), frame[4..]);
    client.expect([close(4001, "banned for spam")]);
    upstream.expect([close(1001, "")]);
    drop((client, upstream));
    server.wait_for_line("ends.log", "ann kill 4001 banned for spam");
    server.wait_for_log("WebSocket closed by an operator with 4001 while");
    let log = server.error_log();
    assert_eq!(log.matches("closing the WebSocket of connection").count(), 1, "{log}");
    let pattern = format!("closing the WebSocket of connection {id} with code 4001, by ");
    assert!(log.contains(&pattern) && log.contains(") through the admin socket"), "{log}");
}

#[test]
fn many_are_killed_only_on_purpose() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut anns: Vec<_> = (0..40).map(|_| open(&server, "/chat?user=ann")).collect();
    let mut bob = open(&server, "/chat?user=bob");
    assert_eq!(
        ctl(&server, 1, &["kill", "--user", "ann"]),
        "40 would be closed; add --yes to close them\n"
    );
    ctl(&server, 2, &["kill"]);
    ctl(&server, 2, &["kill", "1", "--user", "ann", "--yes"]);
    ctl(&server, 2, &["kill", "--user", "ann", "--code", "1006", "--yes"]);
    ctl(&server, 2, &["kill", "--user", "ann", "--reason", "no code", "--yes"]);
    assert_eq!(users(&server, &[]).len(), 41);
    let arguments = ["kill", "--user", "ann", "--code", "1008", "--yes"];
    assert_eq!(ctl(&server, 0, &arguments), "40 closed\n");
    for ann in &mut anns {
        ann.expect([close(1008, "")]);
    }
    bob.send([text("still here")]);
    bob.expect([text("still here")]);
    assert_eq!(ctl(&server, 0, &["kill", "--all", "--yes"]), "1 closed\n");
    bob.expect([close(1001, "")]);
}

#[test]
fn the_socket_is_its_user_s_alone_and_goes_with_the_server() {
    let upstream = Upstream::echo();
    let mut server = start(&upstream);
    let path = server.dir().join("nginx.admin.sock");
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.mode() & 0o777, 0o600);
    // Another server with the same configuration gets neither the socket nor the first one's way.
    let conf = fs::read_to_string(server.dir().join("nginx.conf")).unwrap();
    let other = Instance::setup(WSSGATE).conf(&format!(
        "daemon off; pid %%DIR%%/nginx.pid; error_log %%DIR%%/error.log notice; events {{}} admin unix:{};",
        path.display()
    ));
    let failed = other.try_start().err().expect("the socket is in use");
    assert!(failed.stderr.contains("bind() to unix:"), "{}", failed.stderr);
    assert!(failed.stderr.contains("(98: Address already in use)"), "{}", failed.stderr);
    assert_eq!(json(&server, &["status"])["pid"], server.pid());
    // What a killed server leaves is replaced.
    server.signal("KILL");
    wait_until("end", || server.has_ended());
    assert!(path.exists());
    let output = run(server.dir(), &["status"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no server runs with it"));
    fs::write(server.dir().join("nginx.conf"), conf).unwrap();
    server.restart();
    assert_eq!(json(&server, &["status"])["pid"], server.pid());
    let directory = server.dir().to_owned();
    let removed = std::thread::spawn(move || wait_until("removal", || !path.exists()));
    assert!(server.stop().success());
    removed.join().unwrap();
    assert!(!directory.exists());
}

/// Other programs of the user that the server has become must not have the say in it.
#[test]
fn the_socket_stays_root_s_when_a_reload_makes_it_anew() {
    if !wssgate_sys::privileges::is_root() {
        skipped("needs root");
        return;
    }
    let server = Instance::setup(WSSGATE).main_and_http("user nobody nogroup;", "").start();
    let path = server.dir().join("nginx.admin.sock");
    let is_roots_alone = || {
        let found = fs::metadata(&path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o777) == (0, 0, 0o600)
    };
    assert!(is_roots_alone());
    fs::remove_file(&path).unwrap();
    server.signal("HUP");
    wait_until("the socket", || path.exists());
    wait_until("its owner", is_roots_alone);
    assert_eq!(json(&server, &["status"])["generation"], 2);
    server.signal("QUIT");
    wait_until("removal", || !path.exists());
}

/// In such a directory only its owner may remove a socket.
#[test]
fn a_mode_that_cannot_be_set_does_not_cost_the_socket() {
    use std::os::unix::fs::PermissionsExt;
    if !wssgate_sys::privileges::is_root() {
        skipped("needs root");
        return;
    }
    let mut server = Instance::setup(WSSGATE)
        .file("sticky/x", "")
        .main_and_http("user nobody nogroup; admin unix:%%DIR%%/sticky/admin mode=%%MODE%%;", "")
        .var("MODE", "0600")
        .start();
    let directory = server.dir().join("sticky");
    let path = directory.join("admin");
    for (permissions, mode, expected) in [(0o1777, "0660", 0o600), (0o777, "0640", 0o640)] {
        fs::set_permissions(&directory, fs::Permissions::from_mode(permissions)).unwrap();
        server.set_var("MODE", mode);
        server.rewrite();
        let socket = path.display().to_string();
        ctl(&server, 0, &["reload", "--socket", &socket]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, expected);
        assert_eq!(json(&server, &["status"])["pid"], server.pid());
    }
    let line = server.wait_for_log("chmod() to unix:");
    assert!(line.contains("(1: Operation not permitted)"), "{line}");
}

#[test]
fn a_server_that_drains_gives_way_to_the_next() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let ann = open(&server, "/chat?user=ann");
    server.signal("QUIT");
    wait_until("the drain", || json(&server, &["status"])["phase"] == "draining");
    assert_eq!(users(&server, &[]), ["ann"]);
    assert!(
        ask(&server, "POST /v1/reload HTTP/1.1\r\nHost: wssgate\r\n\r\n")
            .starts_with("HTTP/1.1 409 ")
    );
    let mut next = Command::new(WSSGATE);
    next.arg("-p").arg(server.dir()).args(["-c", "nginx.conf", "-e", "error.log"]);
    let mut next = next.spawn().unwrap();
    wait_until("the next server", || json(&server, &["status"])["pid"] == next.id());
    let bob = open(&server, "/chat?user=bob");
    assert_eq!(users(&server, &[]), ["bob"]);
    drop(ann);
    // The end of the first one leaves what is no longer its own.
    server.wait_for_log(" exit");
    assert_eq!(users(&server, &[]), ["bob"]);
    drop(bob);
    next.kill().unwrap();
    next.wait().unwrap();
}

#[test]
fn there_is_no_socket_where_none_is_wanted_or_none_can_be() {
    let off = "user root; admin off;";
    let server = Instance::setup(WSSGATE).main_and_http(off, "").start();
    assert!(!server.dir().join("nginx.admin.sock").exists());
    let output = run(server.dir(), &["status"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("admin off"));
    // Longer than the path of a socket may be, but not than that of a file.
    let name = "x".repeat(120);
    let server = Instance::setup(WSSGATE)
        .file(&format!("{name}/x"), "")
        .conf(&format!(
            "daemon off; pid %%DIR%%/{name}/nginx.pid; error_log %%DIR%%/error.log notice; events {{}}"
        ))
        .arg("-q");
    let directory = server.dir().to_owned();
    let mut command = Command::new(WSSGATE);
    fs::write(
        directory.join("nginx.conf"),
        format!(
            "daemon off; pid {0}/{name}/nginx.pid; error_log {0}/error.log notice; events {{}}",
            directory.display()
        ),
    )
    .unwrap();
    command.arg("-p").arg(&directory).args(["-c", "nginx.conf", "-e", "error.log"]);
    let mut child = command.spawn().unwrap();
    let log = directory.join("error.log");
    wait_until("start", || fs::read_to_string(&log).is_ok_and(|log| log.contains(" started")));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("[notice]") && log.contains("so `wssgate ctl` cannot be used"), "{log}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reload_tells_what_is_wrong_and_moves_the_socket() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut ann = open(&server, "/chat?user=ann");
    assert!(ctl(&server, 0, &["reload"]).ends_with("reconfigured, generation 2\n"));
    server.wait_for_log("reload requested by ");
    assert_eq!(users(&server, &["--generation", "1"]), ["ann"]);
    let path = server.dir().join("nginx.conf");
    let good = fs::read_to_string(&path).unwrap();
    let admin = server.dir().join("nginx.admin.sock").display().to_string();
    fs::write(&path, good.replace("proxy_pass", "proxy_pas")).unwrap();
    let told = ctl(&server, 1, &["reload", "--socket", &admin]);
    assert!(told.contains("[emerg] unknown directive \"proxy_pas\""), "{told}");
    assert!(told.ends_with("the previous one stays in effect\n"), "{told}");
    let moved = server.dir().join("moved.sock");
    let line = format!("admin unix:{} mode=0660;\n", moved.display());
    fs::write(&path, line + &good).unwrap();
    assert!(ctl(&server, 0, &["reload", "--socket", &admin]).contains("generation 3"));
    assert_eq!(fs::metadata(&moved).unwrap().mode() & 0o777, 0o660);
    assert!(!Path::new(&admin).exists());
    assert_eq!(users(&server, &[]), ["ann"]);
    fs::write(&path, format!("admin off;\n{good}")).unwrap();
    let moved = moved.display().to_string();
    ctl(&server, 0, &["reload", "--socket", &moved]);
    assert!(!Path::new(&moved).exists());
    fs::write(&path, good).unwrap();
    server.signal("HUP");
    wait_until("the socket", || Path::new(&admin).exists());
    ann.send([text("unmoved")]);
    ann.expect([text("unmoved")]);
}

#[test]
fn the_log_level_changes_until_the_next_reload() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    assert_eq!(ctl(&server, 0, &["log-level"]), "info, as configured\n");
    assert_eq!(ctl(&server, 0, &["log-level", "crit"]), "crit until the next reload\n");
    let silent = server.error_log().len();
    ctl(&server, 0, &["log-level", "configured"]);
    assert!(!server.error_log()[..silent].contains("as configured"));
    server.wait_for_log("log level as configured, by ");
    ctl(&server, 0, &["log-level", "debug"]);
    ctl(&server, 0, &["reload"]);
    assert_eq!(ctl(&server, 0, &["log-level"]), "info, as configured\n");
    ctl(&server, 2, &["log-level", "loud"]);
}

#[test]
fn upstream_servers_are_shown_with_what_is_open() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let _ann = open(&server, "/chat?user=ann");
    let shown = json(&server, &["upstreams"]);
    let chat = &shown["upstreams"][0];
    assert_eq!(chat["name"], "chat");
    let peer = &chat["peers"][0];
    assert_eq!(peer["address"], upstream.addr().to_string());
    assert_eq!((&peer["state"], &peer["tunnels"]), (&"up".into(), &1.into()));
}

/// An answer to these bytes.
fn ask(server: &Instance, request: &str) -> String {
    let mut stream = UnixStream::connect(server.dir().join("nginx.admin.sock")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_is_not_understood_is_refused() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let _ann = open(&server, "/chat?user=ann");
    // Who says nothing keeps nobody from asking.
    let silent: Vec<_> = (0..3)
        .map(|_| UnixStream::connect(server.dir().join("nginx.admin.sock")).unwrap())
        .collect();
    for (line, more, status) in [
        ("GET /v1/status", "", "200 OK"),
        ("GET /", "", "404 Not Found"),
        ("GET /v2/status", "", "404 Not Found"),
        ("GET /v1/tunnels?usr=ann", "", "400 Bad Request"),
        ("GET /v1/tunnels?limit=1001", "", "400 Bad Request"),
        ("GET /v1/status?x", "", "400 Bad Request"),
        ("POST /v1/tunnels", "", "405 Not Allowed"),
        ("GET /v1/reload", "", "405 Not Allowed"),
        ("POST /v1/tunnels/close", "", "400 Bad Request"),
        ("POST /v1/tunnels/close?all=true&code=1005", "", "400 Bad Request"),
        ("POST /v1/tunnels/close?all=true&reason=x", "", "400 Bad Request"),
        ("POST /v1/tunnels/0/close", "", "404 Not Found"),
        ("POST /v1/reload", "Content-Length: 1\r\n", "413 Request Entity Too Large"),
        ("GET /v1/status", "Host: b\r\n", "400 Bad Request"),
    ] {
        let answer = ask(&server, &format!("{line} HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"].is_string(), status != "200 OK", "{line}: {body}");
    }
    assert_eq!(users(&server, &[]), ["ann"]);
    drop(silent);
}

/// Their configuration is a pipe that nobody has written to yet.
#[test]
fn reloads_that_take_long_leave_room_for_questions() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let (conf, pipe) = (server.dir().join("nginx.conf"), server.dir().join("slow.conf"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}\ninclude slow.conf;\n")).unwrap();
    let ask = |line: &str| {
        let mut stream = UnixStream::connect(server.dir().join("nginx.admin.sock")).unwrap();
        write!(stream, "{line} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream
    };
    let answer = |mut stream: UnixStream| -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let (sender, answers) = mpsc::channel();
    for _ in 0..3 {
        let (stream, sender) = (ask("POST /v1/reload"), sender.clone());
        thread::spawn(move || sender.send(answer(stream)));
    }
    // Which one finds no place is left to chance.
    let refused = answers.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(refused.starts_with("HTTP/1.1 409 ") && refused.contains("is under way"), "{refused}");
    assert!(answer(ask("GET /v1/status")).starts_with("HTTP/1.1 200 "));
    let writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    fs::remove_file(&pipe).unwrap();
    fs::write(&pipe, "").unwrap();
    drop(writer);
    for _ in 0..2 {
        let answer = answers.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(answer(ask("POST /v1/reload")).contains("\"generation\":4"));
}
