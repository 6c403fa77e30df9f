//! Upstream servers that operators change by `wssgate ctl upstreams`, with the real program.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use wssgate_testkit::{
    Conn, Dns, Handshake, Instance, Says, Upstream, close, free_addr, http, text, wait_until,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// An upstream server that says its name: on a WebSocket first, and to other requests.
fn named(name: &'static str) -> Upstream {
    named_at(name, SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn named_at(name: &'static str, addr: SocketAddr) -> Upstream {
    Upstream::builder().at(addr).serve(move |conn| {
        let request = conn.recv_request();
        if request.field("Upgrade").is_some() {
            conn.accept_websocket(&request, "");
            conn.send([text(name)]);
            conn.echo();
        } else {
            let len = name.len();
            conn.send_raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{name}"));
        }
    })
}

/// A server with two workers in front of `a` and `b`, which its upstream `app` has with these lines besides.
fn start(a: &Upstream, b: &Upstream, lines: &str) -> Instance {
    let http = format!(
        "upstream app {{ {lines} server %%A%%; server %%B%%; }}
         server {{ listen %%LISTEN_0%%; location / {{ proxy_pass http://app; }} }}"
    );
    let setup = Instance::setup(WSSGATE).main_and_http("user root; worker_processes 2;", &http);
    setup.var("A", a.addr()).var("B", b.addr()).start()
}

/// A WebSocket, and the name of its server.
fn open(server: &Instance) -> (Conn, String) {
    let mut client = Handshake::to(server.listen(0)).open();
    let name = String::from_utf8(client.recv().payload).unwrap();
    (client, name)
}

fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

/// Which servers respond how often.
fn responses(server: &Instance, count: usize) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for _ in 0..count {
        *names.entry(http::get(server.listen(0), "a", "/").text()).or_default() += 1;
    }
    names
}

fn all_of(name: &str, count: usize) -> BTreeMap<String, usize> {
    [(name.to_owned(), count)].into()
}

fn command(server: &Instance, arguments: &[&str]) -> Command {
    let mut command = Command::new(WSSGATE);
    command.arg("ctl").arg("-p").arg(server.dir()).args(["-c", "nginx.conf"]).args(arguments);
    command
}

/// What is printed; the exit code has to be this.
#[track_caller]
fn ctl(server: &Instance, code: i32, arguments: &[&str]) -> String {
    let output = command(server, arguments).output().unwrap();
    let (out, told) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{told}");
    out + &told
}

/// Changes one server of `app`.
#[track_caller]
fn change(server: &Instance, what: &str, address: impl ToString, more: &[&str]) -> String {
    let address = address.to_string();
    ctl(server, 0, &[&["upstreams", what, "app", &address], more].concat())
}

/// What is known of one server of `app`.
fn peer(server: &Instance, address: impl ToString) -> Value {
    let shown: Value = serde_json::from_str(&ctl(server, 0, &["upstreams", "--json"])).unwrap();
    let peers = shown["upstreams"][0]["peers"].as_array().unwrap();
    peers.iter().find(|peer| peer["address"] == address.to_string()).unwrap().clone()
}

#[test]
fn a_server_that_is_down_keeps_its_websockets_and_gets_no_more() {
    for lines in ["", "least_conn;", "zone app 64k; random two least_conn;"] {
        let (a, b) = (named("a"), named("b"));
        let server = start(&a, &b, lines);
        let mut clients: Vec<_> = (0..6).map(|_| open(&server)).collect();
        assert!(["a", "b"].iter().all(|name| clients.iter().any(|(_, found)| found == name)));
        let shown = change(&server, "down", a.addr(), &[]);
        let words: Vec<_> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((words[2], &words[7..]), ("down", &["set", "down"][..]), "{shown}");
        server.wait_for_log(&format!("upstream server {} of app: down, by ", a.addr()));
        assert_eq!(responses(&server, 8), all_of("b", 8));
        assert!((0..4).all(|_| open(&server).1 == "b"));
        for (client, name) in &mut clients {
            echo(client, &format!("still at {name}"));
        }
        let known = peer(&server, a.addr());
        assert_eq!((&known["state"], &known["wanted"]), (&"down".into(), &"down".into()));
        assert_eq!(known["override"]["state"], "down");
        change(&server, "up", a.addr(), &[]);
        assert_eq!(peer(&server, a.addr())["override"], Value::Null);
        assert_eq!(responses(&server, 8).len(), 2, "{lines}");
    }
}

#[test]
fn a_weight_holds_in_all_workers_until_the_next_reload() {
    let (a, b) = (named("a"), named("b"));
    let server = start(&a, &b, "");
    assert_eq!(responses(&server, 12), [("a".to_owned(), 6), ("b".to_owned(), 6)].into());
    change(&server, "weight", a.addr(), &["5"]);
    let known = peer(&server, a.addr());
    assert_eq!((&known["weight"], &known["override"]["weight"]), (&5.into(), &5.into()));
    // Each worker takes turns of its own, of which the first need not be whole.
    let share = responses(&server, 120)["a"];
    assert!((92..=108).contains(&share), "{share} of 120");
    change(&server, "down", b.addr(), &[]);
    let told = ctl(&server, 0, &["reload"]);
    for (of, set) in [(a.addr(), "weight 5"), (b.addr(), "down")] {
        let line =
            format!("upstream server {of} of app is used as configured again, no longer {set} as");
        assert!(told.contains(&line), "{told}");
        server.wait_for_log(&line);
    }
    assert!(!ctl(&server, 0, &["reload"]).contains("as configured again"), "nothing was set");
    let known = peer(&server, a.addr());
    assert_eq!((&known["weight"], &known["override"]), (&1.into(), &Value::Null));
    let share = responses(&server, 40)["b"];
    assert!((18..=22).contains(&share), "{share} of 40");
    change(&server, "weight", a.addr(), &["7"]);
    change(&server, "reset", a.addr(), &[]);
    assert_eq!(peer(&server, a.addr())["weight"], 1);
}

#[test]
fn a_server_is_emptied_at_a_pace() {
    let (a, b) = (named("a"), named("b"));
    let server = start(&a, &b, "");
    let (of_a, of_b): (Vec<_>, Vec<_>) =
        (0..20).map(|_| open(&server)).partition(|(_, name)| name == "a");
    assert!(!of_a.is_empty() && !of_b.is_empty());
    let count = of_a.len();
    let address = a.addr().to_string();
    let arguments = ["upstreams", "drain", "app", &address, "--over", "300ms", "--code", "1012"];
    let command = command(&server, &arguments).stdout(Stdio::piped()).spawn().unwrap();
    for (mut client, _) in of_a {
        client.expect([close(1012, "")]);
        client.send([close(1012, "")]);
        client.recv_to_end();
        assert_eq!(open(&server).1, "b", "whoever comes back finds another server");
    }
    let output = command.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with(&format!("drain 1 of server {address} of app: {count} ended in ")));
    for (mut client, _) in of_b {
        echo(&mut client, "still here");
    }
    assert_eq!(peer(&server, a.addr())["wanted"], "drain");
}

#[test]
fn who_sticks_to_a_server_that_drains_still_gets_there() {
    let (a, b) = (named("a"), named("b"));
    let server = start(&a, &b, "sticky cookie id;");
    let cookie = (0..10)
        .map(|_| http::get(server.listen(0), "a", "/"))
        .find(|response| response.text() == "a")
        .and_then(|response| Some(response.field("Set-Cookie")?.split(';').next()?.to_owned()))
        .unwrap();
    let stuck = || {
        let request =
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
        http::exchange(server.listen(0), request).text()
    };
    change(&server, "drain", a.addr(), &[]);
    assert_eq!((stuck().as_str(), responses(&server, 6)), ("a", all_of("b", 6)));
    change(&server, "down", a.addr(), &[]);
    assert_eq!(stuck(), "b");
    change(&server, "up", a.addr(), &[]);
}

/// The name has other addresses now, and the old one again.
#[test]
fn a_change_outlives_new_addresses_of_a_name() {
    let first = named("first");
    let port = first.port();
    let second = named_at("second", SocketAddr::from(([127, 0, 0, 2], port)));
    let third = named_at("third", SocketAddr::from(([127, 0, 0, 3], port)));
    let dns = Dns::start();
    dns.set("app.test", Says::addresses(&["127.0.0.1", "127.0.0.2"]));
    let server = Instance::setup(WSSGATE)
        .main_and_http(
            "user root;",
            "upstream app { server app.test:%%PORT%% resolve; resolver %%DNS%% valid=1s; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("DNS", dns.addr())
        .var("PORT", port)
        .start();
    wait_until("the name", || http::get(server.listen(0), "a", "/").status == 200);
    change(&server, "down", first.addr(), &[]);
    change(&server, "weight", second.addr(), &["3"]);
    dns.set("app.test", Says::addresses(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]));
    wait_until("the third server", || responses(&server, 4).contains_key("third"));
    let shares = responses(&server, 40);
    assert!(!shares.contains_key("first"), "{shares:?}");
    assert!((28..=32).contains(&shares["second"]), "{shares:?}");
    dns.set("app.test", Says::addresses(&["127.0.0.2"]));
    wait_until("the third one to be gone", || !responses(&server, 6).contains_key("third"));
    dns.set("app.test", Says::addresses(&["127.0.0.1", "127.0.0.3"]));
    wait_until("the third one to be back", || responses(&server, 2) == all_of("third", 2));
    assert_eq!(peer(&server, first.addr())["override"]["state"], "down");
    drop((second, third));
}

/// Those who wait in the queue are served at once when a server is put into use.
#[test]
fn who_waits_is_served_when_a_server_comes_up() {
    let (a, b) = (named("a"), named("b"));
    let server = start(&a, &b, "queue 10 timeout=60s;");
    for one in [&a, &b] {
        change(&server, "down", one.addr(), &[]);
    }
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..3).map(|_| scope.spawn(|| http::get(server.listen(0), "a", "/").text())).collect();
        wait_until("the requests", || {
            let status: Value =
                serde_json::from_str(&ctl(&server, 0, &["status", "--json"])).unwrap();
            status["connections"] == 3
        });
        assert!(waiting.iter().all(|one| !one.is_finished()));
        change(&server, "up", b.addr(), &[]);
        assert!(waiting.into_iter().all(|one| one.join().unwrap() == "b"));
    });
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let (a, b) = (named("a"), named("b"));
    let server = start(&a, &b, "");
    let address = a.addr().to_string();
    let other = free_addr().to_string();
    for (query, status, error) in [
        (format!("upstream=app&address={address}"), 400, "state or weight is missing"),
        (format!("address={address}&state=up"), 400, "\"upstream\" is missing"),
        ("upstream=app&state=up".to_owned(), 400, "\"address\" is missing"),
        (format!("upstream=app&address={address}&state=gone"), 400, "up, down, drain or"),
        (format!("upstream=app&address={address}&weight=0"), 400, "a number from 1 to 10000"),
        (format!("upstream=app&address={address}&state=up&over=1s"), 400, "over goes with"),
        (format!("upstream=app&address={address}&state=down&code=1001"), 400, "\"over\" is"),
        (format!("upstream=no&address={address}&state=down"), 404, "no upstream with this"),
        (format!("upstream=app&address={other}&state=down"), 404, "no server with this address"),
    ] {
        let mut stream = UnixStream::connect(server.dir().join("nginx.admin.sock")).unwrap();
        write!(stream, "POST /v1/upstreams/peers?{query} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let found = answer.split(' ').nth(1).unwrap();
        assert!(
            found == status.to_string() && answer.contains(&error.replace('"', "\\\"")),
            "{query}: {answer}"
        );
    }
    ctl(&server, 2, &["upstreams", "weight", "app", &address, "heavy"]);
    ctl(&server, 2, &["upstreams", "sideways", "app", &address]);
    assert_eq!(responses(&server, 4).len(), 2, "nothing has changed");
}
