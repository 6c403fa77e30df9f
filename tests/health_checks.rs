//! `health_check`: which servers get requests, and what becomes of the WebSockets of those that do not.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wssgate_testkit::http::exchange;
use wssgate_testkit::{
    Conn, Dns, Frame, Gate, Handshake, Instance, Pki, Request, Response, Says, Upstream, free_addr,
    ping, text, wait_until,
};
use wssgate_ws::Opcode;

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server that answers `name`, and health checks at `/health` as long as it is well.
struct Server {
    upstream: Upstream,
    well: Arc<AtomicBool>,
    /// Health checks that it was asked.
    checks: Arc<AtomicUsize>,
}

impl Server {
    fn new(name: &'static str, is_well: bool) -> Self {
        Self::at(name, is_well, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn at(name: &'static str, is_well: bool, addr: SocketAddr) -> Self {
        let (well, checks) = (Arc::new(AtomicBool::new(is_well)), Arc::new(AtomicUsize::new(0)));
        let (answers, counts) = (Arc::clone(&well), Arc::clone(&checks));
        let upstream = Upstream::builder().at(addr).http(move |request: &Request| {
            if request.target() != "/health" {
                return ok(name);
            }
            counts.fetch_add(1, Ordering::SeqCst);
            match answers.load(Ordering::SeqCst) {
                true => ok("well"),
                false => "HTTP/1.1 503 Ill\r\nContent-Length: 3\r\n\r\nill".to_owned(),
            }
        });
        Self { upstream, well, checks }
    }

    fn set_well(&self, is_well: bool) {
        self.well.store(is_well, Ordering::SeqCst);
    }

    /// Waits until it was asked so often from now on.
    fn wait_for_checks(&self, count: usize) {
        let until = self.checks.load(Ordering::SeqCst) + count;
        wait_until("health checks", || self.checks.load(Ordering::SeqCst) >= until);
    }

    fn line(&self, what: &str, action: &str) -> String {
        let addr = self.upstream.addr();
        format!(
            "peer is {what} while {action}, health check \"\" of peer {addr} in upstream \"app\""
        )
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn get(server: &Instance, path: &str) -> Response {
    exchange(
        server.listen(0),
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    )
}

fn bodies(server: &Instance, count: usize) -> Vec<String> {
    let mut bodies: Vec<_> = (0..count).map(|_| get(server, "/").text()).collect();
    bodies.sort();
    bodies.dedup();
    bodies
}

#[test]
fn a_server_that_fails_gets_no_requests_until_it_has_passed() {
    let (a, b) = (Server::new("a", true), Server::new("b", true));
    let server = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 2;",
            "upstream app { zone app 64k; server %%A%%; server %%B%%; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app;
                 proxy_set_header Host health.test; proxy_set_header X-Check $request_uri-$server_name;
                 health_check interval=20ms jitter=5ms fails=2 passes=2 uri=/health; } }",
        )
        .var("A", a.upstream.addr())
        .var("B", b.upstream.addr())
        .start();
    assert_eq!(bodies(&server, 8), ["a", "b"], "they count as healthy before the first check");
    a.wait_for_checks(1);
    let check = a.upstream.requests().into_iter().find(|it| it.target() == "/health").unwrap();
    assert_eq!((check.method(), check.field("Host")), ("GET", Some("health.test")));

    a.set_well(false);
    let line = server.wait_for_log(&a.line("unhealthy", "checking status code"));
    assert!(line.contains("[warn]"), "{line}");
    assert_eq!(bodies(&server, 8), ["b"]);
    // More failures change nothing, and are told no more.
    a.wait_for_checks(3);
    a.set_well(true);
    let line = server.wait_for_log(&a.line("healthy", "checking status code"));
    assert!(line.contains("[notice]"), "{line}");
    assert_eq!(bodies(&server, 8), ["a", "b"]);
    let log = server.error_log();
    assert_eq!(log.matches("peer is unhealthy").count(), 1, "{log}");
    assert_eq!(log.matches("peer is healthy").count(), 1, "{log}");
    // Checks are no requests of clients.
    assert!(!server.access_log().contains("/health"));
}

/// `websocket_recovery eager` asks servers of which requests have failed; a check knows better.
#[test]
fn without_healthy_servers_requests_get_a_502() {
    let a = Server::new("a", false);
    let dead = free_addr();
    let server = Instance::setup(EXE)
        .http(
            "upstream app { server %%A%%; server %%DEAD%%; }
             upstream one { server %%A%%; }
             server { listen %%LISTEN_0%%;
                 location / { proxy_pass http://app; health_check interval=20ms uri=/health; }
                 location /one { proxy_pass http://one; health_check interval=20ms uri=/health; } }",
        )
        .var("A", a.upstream.addr())
        .var("DEAD", dead)
        .start();
    server.wait_for_log(&a.line("unhealthy", "checking status code"));
    let of_dead = format!("of peer {dead} in upstream \"app\"");
    let refused = "connect() failed (111: Connection refused) while connecting to upstream";
    let line = server.wait_for_log(&format!("{refused}, health check \"\" {of_dead}"));
    assert!(line.contains("[error]"), "{line}");
    server.wait_for_log(&format!(
        "peer is unhealthy while connecting to upstream, health check \"\" {of_dead}"
    ));
    server.wait_for_log("in upstream \"one\"");
    a.upstream.requests();
    for path in ["/", "/one"] {
        assert_eq!(get(&server, path).status, 502, "{path}");
        server.wait_for_log("no live upstreams while connecting to upstream");
    }
    assert!(a.upstream.requests().iter().all(|request| request.target() == "/health"));
    a.set_well(true);
    server.wait_for_log(&a.line("healthy", "checking status code"));
    assert_eq!(bodies(&server, 4), ["a"]);
}

/// A server that answers checks one by one, as the test lets it.
fn gated(gates: Vec<Gate>) -> Upstream {
    let asked = AtomicUsize::new(0);
    Upstream::http(move |request: &Request| {
        if request.target() == "/health" {
            let gate = gates.get(asked.fetch_add(1, Ordering::SeqCst));
            gate.inspect(|gate| gate.wait());
        }
        ok("here")
    })
}

#[test]
fn a_mandatory_check_comes_first_and_persistent_outlives_a_reload() {
    const CONF: &str = "upstream app { server %%A%%; }
         server { listen %%LISTEN_0%%; location / { proxy_pass http://app;
             health_check interval=1h uri=/health mandatory %%PERSISTENT%%; } }";
    for persistent in [true, false] {
        let gates = [Gate::new(), Gate::new()];
        let a = gated(gates.to_vec());
        let mut server = Instance::setup(EXE)
            .http(CONF)
            .var("A", a.addr())
            .var("PERSISTENT", if persistent { "persistent" } else { "" })
            .start();
        assert_eq!(get(&server, "/").status, 502);
        gates[0].open();
        server.wait_for_log("peer is healthy while checking status code");
        assert_eq!(get(&server, "/").status, 200);
        a.requests();

        server.rewrite();
        server.signal("HUP");
        // The check of the new generation, which is not answered yet.
        assert_eq!(a.next_request().target(), "/health");
        let expected = if persistent { 200 } else { 502 };
        assert_eq!(get(&server, "/").status, expected, "{persistent}");
        gates[1].open();
        wait_until("the server to be used", || get(&server, "/").status == 200);
        let healthy = server.error_log().matches("peer is healthy").count();
        assert_eq!(healthy, if persistent { 1 } else { 2 });
        server.rewrite_http(
            "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%A%%; } }",
        );
        server.signal("HUP");
        // Who holds no generation for its checks lets it go.
        server.wait_for_log("generation 2 ended");
        drop(server);
    }
}

#[test]
fn an_unhealthy_server_stays_so_through_a_reload() {
    let (a, b) = (Server::new("a", false), Server::new("b", true));
    let server = Instance::setup(EXE)
        .http(
            "upstream app { server %%A%%; server %%B%%; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app;
                 health_check interval=20ms jitter=1ms uri=/health; } }",
        )
        .var("A", a.upstream.addr())
        .var("B", b.upstream.addr())
        .start();
    server.wait_for_log(&a.line("unhealthy", "checking status code"));
    for generation in 1..4 {
        server.signal("HUP");
        server.wait_for_log(&format!("generation {generation} ended"));
        assert_eq!(bodies(&server, 4), ["b"]);
        a.wait_for_checks(2);
    }
    assert_eq!(server.error_log().matches("peer is unhealthy").count(), 1);
}

#[test]
fn every_test_of_a_match_block_decides() {
    let a = Upstream::http(|request: &Request| {
        let more = if request.target() == "/refresh" { "Refresh: 1\r\n" } else { "" };
        let long = "x".repeat(256 * 1024) + "late";
        let body = if request.target() == "/long" { &long } else { "Welcome" };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";
        format!("{head}{more}Content-Length: {}\r\n\r\n{body}", body.len())
    });
    let cases = [
        ("status 204;", "/", Some("checking status code")),
        ("status ! 200-299;", "/", Some("checking status code")),
        ("header Content-Type = text/html; header ! Refresh;", "/", None),
        ("header Content-Type = text/html; header ! Refresh;", "/refresh", Some("checking header")),
        ("body ~ Wel.ome;", "/", None),
        ("body !~ come;", "/", Some("checking body")),
        ("body !~ late; body ~ x$;", "/long", None),
        ("require $is_html $upstream_status;", "/", None),
        ("require $is_html $upstream_http_refresh;", "/", Some("checking variables")),
    ];
    let mut conf = String::from(
        "map $upstream_http_content_type $is_html { text/html 1; default 0; } server { listen %%LISTEN_0%%; ",
    );
    for (number, (_, uri, _)) in cases.iter().enumerate() {
        conf.push_str(&format!(
            "location /{number} {{ proxy_pass http://up{number}; proxy_set_header Connection close;
                 health_check interval=1h mandatory uri={uri} match=m{number}; }}\n"
        ));
    }
    conf.push('}');
    for (number, (tests, ..)) in cases.iter().enumerate() {
        conf.push_str(&format!(
            "upstream up{number} {{ server %%A%%; }} match m{number} {{ {tests} }}\n"
        ));
    }
    let server = Instance::setup(EXE).http(&conf).var("A", a.addr()).start();
    for (number, (tests, uri, expected)) in cases.iter().enumerate() {
        let of =
            format!("health check \"m{number}\" of peer {} in upstream \"up{number}\"", a.addr());
        let line = server.wait_for_log(&of);
        let status = get(&server, &format!("/{number}")).status;
        match expected {
            Some(action) => {
                assert!(line.contains(&format!("peer is unhealthy while {action}, ")), "{line}");
                assert_eq!(status, 502, "{tests} {uri}");
            }
            None => {
                assert!(line.contains("peer is healthy while "), "{line}");
                assert_eq!(status, 200, "{tests} {uri}");
            }
        }
    }
}

#[test]
fn a_connection_is_kept_for_checks_where_that_is_wanted() {
    let (kept, fresh) = (Server::new("a", true), Server::new("b", true));
    let elsewhere = Server::new("c", true);
    let server = Instance::setup(EXE)
        .http(
            "upstream kept { server %%A%%; } upstream fresh { server %%B%%; }
             upstream other { server 127.0.0.1:%%OTHER%%; }
             server { listen %%LISTEN_0%%;
                 location /a { proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection '';
                     health_check interval=10ms uri=/health keepalive_time=1h; }
                 location /b { proxy_pass http://fresh; health_check interval=10ms uri=/health; }
                 location /c { proxy_pass http://other;
                     health_check interval=10ms uri=/health port=%%PORT%% mandatory; } }",
        )
        .var("A", kept.upstream.addr())
        .var("B", fresh.upstream.addr())
        .var("OTHER", kept.upstream.port())
        .var("PORT", elsewhere.upstream.port())
        .start();
    kept.wait_for_checks(4);
    fresh.wait_for_checks(4);
    assert_eq!(kept.upstream.connections(), 1);
    assert!(fresh.upstream.connections() >= 4);
    let line = server.wait_for_log("in upstream \"other\"");
    let port = elsewhere.upstream.port();
    assert!(
        line.contains("peer is healthy") && line.ends_with(&format!(", port {port}")),
        "{line}"
    );
}

#[test]
fn tls_is_spoken_with_servers_as_the_location_says() {
    let pki = Pki::new();
    let answer = |_: &Request| ok("tls");
    let start = |name: &str| {
        let config = pki.leaf(&[name]).server_config();
        Upstream::builder().tls(config).http(answer)
    };
    let (good, bad) = (start("app.test"), start("other.test"));
    let server = Instance::setup(EXE)
        .http(
            "upstream good { server %%GOOD%%; } upstream bad { server %%BAD%%; }
             proxy_ssl_verify on; proxy_ssl_trusted_certificate %%ROOT%%; proxy_ssl_name app.test;
             server { listen %%LISTEN_0%%;
                 location /good { proxy_pass https://good; health_check mandatory interval=1h; }
                 location /bad { proxy_pass https://bad; health_check mandatory interval=1h; } }",
        )
        .var("GOOD", good.addr())
        .var("BAD", bad.addr())
        .var("ROOT", pki.root_path().display())
        .start();
    let line = server.wait_for_log("in upstream \"good\"");
    assert!(line.contains("peer is healthy while checking status code"), "{line}");
    let line = server.wait_for_log("peer is unhealthy");
    assert!(
        line.contains("while SSL handshaking to upstream") && line.contains("\"bad\""),
        "{line}"
    );
    assert_eq!([get(&server, "/good").status, get(&server, "/bad").status], [200, 502]);
}

/// What a server does with one connection.
type Script = fn(&mut Conn);

#[test]
fn a_websocket_is_opened_pinged_and_closed() {
    let with = |script: Script| Upstream::serve(script);
    let cases: [(&str, Upstream, Option<&str>); 8] = [
        ("", Upstream::echo(), None),
        (
            "subprotocol=chat",
            with(|conn| {
                let request = conn.recv_request();
                let more = match request.field("Sec-WebSocket-Protocol") {
                    Some("chat") => "Sec-WebSocket-Protocol: chat\r\n",
                    _ => "",
                };
                conn.accept_websocket(&request, more);
                // A greeting and a ping are no answer, and no offence.
                conn.send([text("hel").more(), ping("there?")]);
                conn.echo();
            }),
            None,
        ),
        ("subprotocol=chat", Upstream::echo(), Some("checking WebSocket handshake")),
        ("", Upstream::text("no"), Some("checking WebSocket handshake")),
        (
            "",
            with(|conn| {
                conn.recv_request();
                let _ = conn.try_send_raw(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            );
                let _ = conn.recv_to_end();
            }),
            Some("checking WebSocket handshake"),
        ),
        // It shakes hands, and is dead behind that.
        (
            "timeout=200ms",
            Upstream::websocket(|conn| drop(conn.recv_to_end())),
            Some("waiting for WebSocket pong"),
        ),
        (
            "",
            Upstream::websocket(|conn| {
                let question = conn.recv();
                conn.send([Frame::new(Opcode::Pong, question.payload)]);
            }),
            Some("waiting for WebSocket close"),
        ),
        ("", Upstream::websocket(|_| {}), Some("waiting for WebSocket pong")),
    ];
    let mut conf = String::from("server { listen %%LISTEN_0%%;");
    for (number, (parameters, ..)) in cases.iter().enumerate() {
        conf.push_str(&format!(
            "location /{number} {{ proxy_pass http://up{number}; proxy_set_header Host ws.test;
                 proxy_set_header Origin https://ws.test; proxy_set_header Connection close;
                 health_check type=websocket uri=/ws?check interval=1h mandatory {parameters}; }}\n"
        ));
    }
    conf.push_str("location /open { proxy_pass http://up0; } }");
    let mut setup = Instance::setup(EXE);
    for (number, (_, upstream, _)) in cases.iter().enumerate() {
        conf.push_str(&format!("upstream up{number} {{ server %%UP{number}%%; }}\n"));
        setup = setup.var(&format!("UP{number}"), upstream.addr());
    }
    let server = setup.http(&conf).start();
    for (number, (parameters, upstream, expected)) in cases.iter().enumerate() {
        let request = upstream.next_request();
        let fields = ["Host", "Origin", "Upgrade"].map(|name| request.field(name));
        assert_eq!(request.target(), "/ws?check");
        assert_eq!(fields, [Some("ws.test"), Some("https://ws.test"), Some("websocket")]);
        let of =
            format!(", health check \"\" of peer {} in upstream \"up{number}\"", upstream.addr());
        let what = match expected {
            None => format!("peer is healthy while waiting for WebSocket close{of}"),
            Some(action) => format!("peer is unhealthy while {action}{of}"),
        };
        let line = server.wait_for_log(&what);
        assert!(!line.is_empty(), "{number} {parameters}");
    }
    let handshake = Handshake::to(server.listen(0));
    drop(handshake.clone().path("/open").open());
    assert_eq!(handshake.path("/5").answer().1.status, 502);
    server.wait_for_log("it does not select the subprotocol \"chat\"");
    server.wait_for_log("upstream answered a WebSocket handshake with status 200");
}

/// What becomes of an open WebSocket when checks of its server fail; in the words of the access log.
#[test]
fn open_websockets_of_a_server_that_is_down() {
    let health = Server::new("health", true);
    let upstreams = [(); 3].map(|()| Upstream::echo());
    let mut setup = Instance::setup(EXE).main_and_http(
        "worker_processes 2;",
        "log_format end '$uri $websocket_closed_by $websocket_close_code $websocket_close_cause';
         access_log %%DIR%%/end.log end;
         upstream keep { server %%KEEP%%; } upstream drain { server %%DRAIN%%; }
         upstream close { server %%CLOSE%%; }
         server { listen %%LISTEN_0%%;
             location /keep { proxy_pass http://keep;
                 health_check interval=20ms uri=/health port=%%PORT%%; }
             location /drain { proxy_pass http://drain; websocket_drain 300ms;
                 health_check interval=20ms uri=/health port=%%PORT%% on_down=drain; }
             location /close { proxy_pass http://close;
                 health_check interval=20ms uri=/health port=%%PORT%% on_down=close; } }",
    );
    for (name, upstream) in ["KEEP", "DRAIN", "CLOSE"].into_iter().zip(&upstreams) {
        setup = setup.var(name, upstream.addr());
    }
    let server = setup.var("PORT", health.upstream.port()).start();
    // Of both workers.
    let open = |path: &str| -> Vec<Conn> {
        (0..8).map(|_| Handshake::to(server.listen(0)).path(path).open()).collect()
    };
    let [mut keep, drain, close] = ["/keep", "/drain", "/close"].map(open);
    health.set_well(false);
    for mut client in drain {
        let end = client.recv();
        assert_eq!(end.close_code(), Some(1001));
        assert_eq!(end.payload[2..], *b"server unavailable");
        client.send([end]);
        client.expect_eof();
    }
    for mut client in close {
        assert_eq!(client.recv().close_code(), Some(1001));
        // Nobody waits for an answer.
        client.expect_eof();
    }
    for (path, end) in
        [("/drain", "proxy 1001 upstream_unhealthy"), ("/close", "proxy 1001 upstream_unhealthy")]
    {
        let line = format!("{path} {end}");
        wait_until("the ends in the log", || server.read("end.log").matches(&line).count() == 8);
    }
    for name in ["keep", "drain", "close"] {
        server.wait_for_log(&format!("in upstream \"{name}\", port {}", health.upstream.port()));
    }
    for client in &mut keep {
        client.send([text("still here")]);
        client.expect([text("still here")]);
    }
    assert_eq!(Handshake::to(server.listen(0)).path("/drain").answer().1.status, 502);
    health.set_well(true);
    wait_until("the server to be used again", || {
        Handshake::to(server.listen(0)).path("/drain").answer().1.status == 101
    });
}

/// An echo server behind two workers, drained in this time when the health checks fail.
fn drained(health: &Server, upstream: &Upstream, lines: &str) -> Instance {
    let http = format!(
        "log_format end '$websocket_close_cause $websocket_close_code'; access_log %%DIR%%/end.log end;
         upstream app {{ server %%APP%%; }}
         server {{ listen %%LISTEN_0%%; location / {{ proxy_pass http://app; {lines}
             health_check interval=20ms uri=/health port=%%PORT%% on_down=drain; }}
         location /clock {{ proxy_pass http://127.0.0.1:%%CLOCK%%; websocket_max_lifetime 5s; }} }}"
    );
    let setup = Instance::setup(EXE).main_and_http("worker_processes 2;", &http);
    let setup = setup.var("APP", upstream.addr()).var("CLOCK", upstream.port());
    setup.var("PORT", health.upstream.port()).start()
}

/// Those who have lost their server do not come back all at once.
#[test]
fn on_down_drain_keeps_the_pace_of_websocket_drain() {
    let (health, upstream) = (Server::new("health", true), Upstream::echo());
    for (lines, over) in [("websocket_drain 2s code=1012 order=idlest;", 2), ("", 5)] {
        health.set_well(true);
        let server = drained(&health, &upstream, lines);
        let clients: Vec<_> = (0..80).map(|_| Handshake::to(server.listen(0)).open()).collect();
        health.set_well(false);
        server.wait_for_log("peer is unhealthy");
        let began = Instant::now();
        let clients: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                std::thread::spawn(move || {
                    let end = client.recv();
                    assert_eq!(end.payload[2..], *b"server unavailable");
                    let at = Instant::now();
                    client.send([end]);
                    client.expect_eof();
                    at
                })
            })
            .collect();
        let closed: Vec<_> = clients.into_iter().map(|it| it.join().unwrap() - began).collect();
        // How even the pace is show the tests of the engine; this machine may be busy.
        let half = Duration::from_secs(over) / 2;
        let early = closed.iter().filter(|&&at| at < half).count();
        assert!((20..=60).contains(&early), "{early} of 80 in the first half of {over}s");
        wait_until("the ends in the log", || {
            server.read("end.log").matches("upstream_unhealthy 1001").count() == 80
        });
    }
}

#[test]
fn those_stay_whose_server_is_well_again_before_their_turn() {
    let (health, upstream) = (Server::new("health", true), Upstream::echo());
    let server = drained(&health, &upstream, "websocket_drain 4s jitter=0s;");
    let mut clients: Vec<_> = (0..40).map(|_| Handshake::to(server.listen(0)).open()).collect();
    health.set_well(false);
    server.wait_for_log("peer is unhealthy");
    // Whichever worker has it: the last ones are told at the end of the time.
    let mut last = clients.split_off(36);
    health.set_well(true);
    server.wait_for_log("peer is healthy");
    let mut clock = Handshake::to(server.listen(0)).path("/clock").open();
    assert_eq!(clock.recv().close_code(), Some(1001));
    for client in &mut last {
        client.send([text("still here")]);
        client.expect([text("still here")]);
    }
    // The next time they are drained all the same.
    health.set_well(false);
    let mut ends = last.into_iter().map(|mut client| client.recv().close_code());
    assert!(ends.all(|code| code == Some(1001)));
}

/// What an operator has ordered is neither changed nor undone by a health check; and the other way round.
#[test]
fn a_drain_of_an_operator_keeps_its_code_when_the_server_fails() {
    let (health, upstream) = (Server::new("health", true), Upstream::echo());
    let lines = "websocket_drain 100ms; websocket_user $arg_user;";
    let server = drained(&health, &upstream, lines);
    let mut open =
        |user: &str| Handshake::to(server.listen(0)).path(&format!("/?user={user}")).open();
    let [mut ann, mut bob, mut cid] = ["ann", "bob", "cid"].map(&mut open);
    let ctl = |arguments: &[&str]| {
        let mut command = std::process::Command::new(EXE);
        command.arg("ctl").arg("-p").arg(server.dir()).args(["-c", "nginx.conf"]).args(arguments);
        assert!(command.status().unwrap().success(), "{arguments:?}");
    };
    for (user, over, code) in [("ann", "20s", "4010"), ("bob", "1h", "4011")] {
        let drain = ["drain", "--user", user, "--code", code, "--over", over, "--yes", "--detach"];
        ctl(&drain);
    }
    server.wait_for_log("drain 2 of user=bob: closing 1 WebSocket");
    health.set_well(false);
    // Who is in no other drain goes at once.
    let end = cid.recv();
    assert_eq!((end.close_code(), &end.payload[2..]), (Some(1001), &b"server unavailable"[..]));
    for client in [&mut ann, &mut bob] {
        client.send([text("still here")]);
        client.expect([text("still here")]);
    }
    ctl(&["drains", "--cancel", "2"]);
    assert_eq!(bob.recv().payload[2..], *b"server unavailable");
    assert_eq!(ann.recv().close_code(), Some(4010));
}

/// Nobody is sent to a server that a name has brought and no check has seen.
#[test]
fn servers_that_names_bring_are_checked_first() {
    let well = Server::new("first", true);
    let port = well.upstream.port();
    let other = Server::at("second", false, SocketAddr::from(([127, 0, 0, 2], port)));
    let dns = Dns::start();
    dns.set("app.test", Says::addresses(&["127.0.0.1"]));
    let server = Instance::setup(EXE)
        .http(
            "upstream app { server app.test:%%PORT%% resolve; resolver %%DNS%% valid=1s; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app;
                 health_check interval=20ms uri=/health mandatory; } }",
        )
        .var("DNS", dns.addr())
        .var("PORT", port)
        .start();
    server.wait_for_log(&well.line("healthy", "checking status code"));
    dns.set("app.test", Says::addresses(&["127.0.0.1", "127.0.0.2"]));
    server.wait_for_log(&other.line("unhealthy", "checking status code"));
    assert_eq!(bodies(&server, 6), ["first"]);
    assert!(other.upstream.requests().iter().all(|request| request.target() == "/health"));
    other.set_well(true);
    server.wait_for_log(&other.line("healthy", "checking status code"));
    assert_eq!(bodies(&server, 6), ["first", "second"]);
    dns.set("app.test", Says::addresses(&["127.0.0.1"]));
    wait_until("the other one to be left alone", || {
        let before = other.checks.load(Ordering::SeqCst);
        well.wait_for_checks(4);
        other.checks.load(Ordering::SeqCst) == before
    });
}

/// A handshake may be under way when its server goes down.
#[test]
fn a_websocket_that_begins_too_late_ends_at_once() {
    let (asked, gate) = (Gate::new(), Gate::new());
    let (asks, waits) = (asked.clone(), gate.clone());
    let slow = Upstream::serve(move |conn| {
        let request = conn.recv_request();
        asks.open();
        waits.wait();
        conn.accept_websocket(&request, "");
        conn.echo();
    });
    let health = Server::new("health", true);
    let server = Instance::setup(EXE)
        .http(
            "upstream app { server %%SLOW%%; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app;
                 health_check interval=20ms uri=/health port=%%PORT%% on_down=drain; } }",
        )
        .var("SLOW", slow.addr())
        .var("PORT", health.upstream.port())
        .start();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| Handshake::to(server.listen(0)).open());
        asked.wait();
        health.set_well(false);
        server.wait_for_log("peer is unhealthy");
        gate.open();
        let mut client = client.join().unwrap();
        let end = client.recv();
        assert_eq!(end.close_code(), Some(1001));
        client.send([end]);
        client.expect_eof();
    });
}

/// Its state is still there, because of a tunnel; what it says is old.
#[test]
fn a_server_that_a_name_brings_back_is_checked_first() {
    let first = Server::new("first", true);
    let port = first.upstream.port();
    let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Gate::new());
    let hangs = Arc::new(AtomicBool::new(false));
    let (counts, waits, hanging) = (Arc::clone(&asked), gate.clone(), Arc::clone(&hangs));
    let second =
        Upstream::builder().at(SocketAddr::from(([127, 0, 0, 2], port))).serve(move |conn| {
            let request = conn.recv_request();
            if request.field("Upgrade").is_some() {
                conn.accept_websocket(&request, "");
                return conn.echo();
            }
            if request.target() == "/health" {
                counts.fetch_add(1, Ordering::SeqCst);
                if hanging.load(Ordering::SeqCst) {
                    waits.wait();
                }
            }
            conn.send_raw(ok("second"));
        });
    let dns = Dns::start();
    dns.set("app.test", Says::addresses(&["127.0.0.2"]));
    let server = Instance::setup(EXE)
        .http(
            "upstream app { server app.test:%%PORT%% resolve; resolver %%DNS%% valid=1s; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app;
                 health_check interval=20ms uri=/health mandatory; } }",
        )
        .var("DNS", dns.addr())
        .var("PORT", port)
        .start();
    wait_until("the second server", || get(&server, "/").text() == "second");
    let mut tunnel = Handshake::to(server.listen(0)).open();
    dns.set("app.test", Says::addresses(&["127.0.0.1"]));
    wait_until("the first server", || get(&server, "/").text() == "first");
    hangs.store(true, Ordering::SeqCst);
    let before = asked.load(Ordering::SeqCst);
    dns.set("app.test", Says::addresses(&["127.0.0.1", "127.0.0.2"]));
    wait_until("its first check", || asked.load(Ordering::SeqCst) > before);
    assert_eq!(bodies(&server, 6), ["first"]);
    tunnel.send([text("still here")]);
    tunnel.expect([text("still here")]);
    hangs.store(false, Ordering::SeqCst);
    gate.open();
    wait_until("the second server again", || get(&server, "/").text() == "second");
    drop(second);
}
