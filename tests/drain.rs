//! How open WebSockets are closed one after the other before the process, or what a reload has replaced, ends.

#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::{Duration, Instant};

use wssgate_testkit::{Conn, Gate, Handshake, Instance, Upstream, close, http, text, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server with these lines of the main level and of its location.
fn start(upstream: &Upstream, main: &str, lines: &str) -> Instance {
    let http = format!(
        "log_format cause '$websocket_close_cause $websocket_client_close_code $websocket_close_code';
         access_log ends.log cause;
         server {{ listen %%LISTEN_0%%; location / {{ proxy_pass http://%%UP%%; {lines} }} }}"
    );
    Instance::setup(EXE).main_and_http(main, &http).var("UP", upstream.addr()).start()
}

fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

fn open(server: &Instance) -> Conn {
    let mut client = Handshake::to(server.listen(0)).open();
    echo(&mut client, "first");
    client
}

/// Answers the Close that comes, and says when it did.
fn answer_close(mut client: Conn, code: u16) -> Instant {
    client.expect([close(code, "")]);
    let at = Instant::now();
    client.send([close(code, "")]);
    client.recv_to_end();
    at
}

#[test]
fn quit_closes_websockets_over_the_time_and_says_how_far_it_is() {
    let upstream = Upstream::echo();
    let lines = "websocket_drain 4s code=1012;";
    let server = start(&upstream, "worker_processes 2;", lines);
    let clients: Vec<_> = (0..300).map(|_| open(&server)).collect();
    let began = Instant::now();
    server.signal("QUIT");
    let clients: Vec<_> =
        clients.into_iter().map(|it| thread::spawn(move || answer_close(it, 1012))).collect();
    let closed: Vec<_> = clients.into_iter().map(|it| it.join().unwrap() - began).collect();
    // How even the pace is show the tests of the engine; this machine may be busy.
    let half = Duration::from_secs(2);
    let early = closed.iter().filter(|&&at| at < half).count();
    assert!((75..=225).contains(&early), "{early} of 300 in the first half");
    server.wait_for_line("error.log", ": exit");
    let log = server.error_log();
    assert!(
        log.contains("[notice]")
            && log.contains("drain of generation 1: closing 300 WebSockets over 4s"),
        "{log}"
    );
    assert!(log.contains(" of 300 WebSockets, "), "{log}");
    assert!(log.contains("drain of generation 1: 300 WebSockets ended in "), "{log}");
    let ends = server.read("ends.log");
    assert_eq!(ends.lines().filter(|line| *line == "drain 1012 1012").count(), 300, "{ends}");
    assert!(server.wait().success());
    upstream.finish();
}

#[test]
fn a_reload_drains_the_old_generation_only_where_that_is_wanted() {
    let upstream = Upstream::echo();
    let mut server = start(&upstream, "", "websocket_drain 300ms reload;");
    let first = open(&server);
    server.signal("HUP");
    server.wait_for_log("drain of generation 1: closing 1 WebSocket over 300ms");
    let mut second = open(&server);
    answer_close(first, 1001);
    server.wait_for_log("drain of generation 1: 1 WebSocket ended in ");
    server.wait_for_log("generation 1 ended: nothing uses it any more");
    echo(&mut second, "not drained");
    // What holds for it is the configuration that it began with.
    server.rewrite_http(
        "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; websocket_drain 100ms; } }",
    );
    server.signal("HUP");
    answer_close(second, 1001);
    let mut third = open(&server);
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 4");
    echo(&mut third, "no reload drains it");
    server.signal("QUIT");
    answer_close(third, 1001);
    assert!(server.wait().success());
    upstream.finish();
}

#[test]
fn a_stop_does_not_wait_for_a_drain() {
    let upstream = Upstream::echo();
    let server = start(&upstream, "", "websocket_drain 1h;");
    let mut client = open(&server);
    server.signal("QUIT");
    server.wait_for_log("drain of generation 1: closing 1 WebSocket over 3600s");
    echo(&mut client, "still here");
    server.signal("TERM");
    client.expect([close(1001, "")]);
    assert!(server.wait().success());
    upstream.finish();
}

#[test]
fn worker_shutdown_timeout_ends_a_drain_with_its_code() {
    let upstream = Upstream::echo();
    let main = "worker_shutdown_timeout 200ms;";
    let server = start(&upstream, main, "websocket_drain 1h code=1012;");
    let client = open(&server);
    server.signal("QUIT");
    answer_close(client, 1012);
    assert!(server.wait().success());
    upstream.finish();
}

/// It speaks something that nobody can end in good order.
#[test]
fn a_tunnel_that_is_no_websocket_stays_until_worker_shutdown_timeout() {
    let upstream = Upstream::serve(|conn| {
        conn.recv_request();
        conn.send_raw(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n",
        );
        while let Ok(byte) = conn.try_recv_raw(1) {
            conn.send_raw(byte);
        }
    });
    let lines = "websocket_drain 50ms; proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";
    let server = start(&upstream, "worker_shutdown_timeout 1500ms;", lines);
    let began = Instant::now();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n");
    assert!(client.try_recv_head().unwrap().start.contains(" 101 "));
    server.signal("QUIT");
    server.wait_for_log("shutting down");
    client.send_raw("x");
    assert_eq!(client.recv_raw(1), b"x");
    client.recv_to_end();
    assert!(began.elapsed() > Duration::from_millis(1400));
    assert!(!server.error_log().contains("drain of"), "there is nothing to say");
    assert!(server.wait().success());
    upstream.finish();
}

/// Its request was there before QUIT, and the upstream takes its time.
#[test]
fn a_websocket_that_opens_during_a_drain_is_drained_in_the_rest_of_the_time() {
    let gate = Gate::new();
    let wait = gate.clone();
    let upstream = Upstream::serve(move |conn| {
        let request = conn.recv_request();
        wait.wait();
        conn.accept_websocket(&request, "");
        conn.echo();
    });
    let server = start(&upstream, "", "websocket_drain 200ms;");
    let client = thread::spawn({
        let handshake = Handshake::to(server.listen(0));
        move || answer_close(handshake.open(), 1001)
    });
    wait_until("the request", || upstream.connections() == 1);
    server.signal("QUIT");
    server.wait_for_log("shutting down");
    gate.open();
    client.join().unwrap();
    assert!(server.wait().success());
    upstream.finish();
}

#[test]
fn readiness_says_no_while_the_server_drains() {
    let upstream = Upstream::echo();
    let http = "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; }
        location = /ready { readiness; } }";
    // One worker, which has accepted who came before.
    let server = Instance::setup(EXE)
        .main_and_http("worker_processes 1;", http)
        .var("UP", upstream.addr())
        .start();
    let websocket = open(&server);
    let ready = http::get(server.listen(0), "a", "/ready");
    assert_eq!((ready.status, &*ready.text()), (200, "ready\n"));
    assert_eq!(ready.field("Cache-Control"), Some("no-store"));
    // Whoever asks when it begins is told; a new connection is refused, which says no as well.
    let mut asking = Conn::connect(server.listen(0));
    asking.send_raw("GET /ready HTTP/1.1\r\nHost: a\r\n");
    assert_eq!(http::get(server.listen(0), "a", "/ready").status, 200, "that was read before");
    server.signal("QUIT");
    wait_until("the port to close", || Conn::try_connect(server.listen(0)).is_err());
    asking.send_raw("\r\n");
    let draining = asking.recv_response();
    assert_eq!((draining.status, &*draining.text()), (503, "draining\n"));
    assert_eq!(draining.field("Retry-After"), Some("10"));
    assert_eq!(draining.field("Connection"), Some("close"));
    drop(websocket);
    assert!(server.wait().success());
    upstream.finish();
}

#[test]
fn readiness_says_no_before_the_ports_close_where_that_is_wanted() {
    let upstream = Upstream::echo();
    let http = "server { listen %%LISTEN_0%%;
        location / { proxy_pass http://%%UP%%; websocket_drain 50ms; }
        location = /ready { readiness delay=%%DELAY%%; } location = /other { readiness; } }";
    // It ends by itself, or by a second QUIT.
    for (delay, again) in [("1500ms", false), ("1h", true)] {
        let setup = Instance::setup(EXE).main_and_http("user root;", http);
        let server = setup.var("UP", upstream.addr()).var("DELAY", delay).start();
        let began = Instant::now();
        let first = open(&server);
        server.signal("QUIT");
        server.wait_for_log("not ready any more, connections are still accepted for ");
        for path in ["/ready", "/other"] {
            let leaving = http::get(server.listen(0), "a", path);
            assert_eq!((leaving.status, &*leaving.text()), (503, "draining\n"));
            assert_eq!(leaving.field("Retry-After"), Some("10"));
        }
        let second = open(&server);
        if again {
            server.signal("QUIT");
        }
        for client in [first, second] {
            answer_close(client, 1001);
        }
        assert!(server.wait().success());
        assert!(again || began.elapsed() >= Duration::from_millis(1500));
    }
    upstream.finish();
}

#[test]
fn a_stop_does_not_wait_for_load_balancers() {
    let upstream = Upstream::echo();
    let http = "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; }
        location = /ready { readiness delay=1h; } }";
    let setup = Instance::setup(EXE).main_and_http("user root;", http);
    let server = setup.var("UP", upstream.addr()).start();
    let mut client = open(&server);
    server.signal("QUIT");
    server.wait_for_log("not ready any more");
    // It does not begin anew.
    server.signal("HUP");
    echo(&mut client, "still here");
    server.signal("TERM");
    client.expect([close(1001, "")]);
    assert!(server.wait().success());
    upstream.finish();
}

/// The storm after a reload that drains: the old generation lets go faster than the new one takes in.
#[test]
fn those_who_come_back_as_they_are_told_never_exceed_the_rate() {
    const RATE: usize = 40;
    let upstream = Upstream::echo();
    let http = format!(
        "server {{ listen %%LISTEN_0%%; websocket_drain 1s reload code=1012;
         location / {{ proxy_pass http://%%UP%%; }}
         location /limited {{ proxy_pass http://%%UP%%;
             websocket_handshake_rate {RATE}r/s queue=20 retry_after=1s-4s; }} }}"
    );
    let server = Instance::setup(EXE)
        .main_and_http("worker_processes 2;", &http)
        .var("UP", upstream.addr())
        .start();
    let clients: Vec<_> = (0..120).map(|_| open(&server)).collect();
    server.signal("HUP");
    let clients = clients.into_iter().map(|client| {
        let handshake = Handshake::to(server.listen(0)).path("/limited");
        thread::spawn(move || {
            answer_close(client, 1012);
            let mut refused = 0;
            loop {
                let (conn, response) = handshake.answer();
                let Some(seconds) = response.field("Retry-After") else {
                    assert_eq!(response.status, 101);
                    return (Instant::now(), refused, conn);
                };
                refused += 1;
                thread::sleep(Duration::from_secs(seconds.parse().unwrap()));
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let back: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(back.iter().any(|(_, refused, _)| *refused > 0), "it was a storm");
    let most_refused = back.iter().map(|(_, refused, _)| *refused).max().unwrap();
    assert!(most_refused <= 3, "{most_refused} times: who comes when it was told to finds room");
    for &(from, ..) in &back {
        let within =
            |(at, ..): &&(Instant, i32, Conn)| (from..from + Duration::from_secs(1)).contains(at);
        let count = back.iter().filter(within).count();
        // How exact the rate is show the tests of the limit; this machine may be busy.
        assert!(count <= RATE * 3 / 2, "{count} in a second");
    }
    drop(back);
    assert!(server.terminate().success());
    upstream.finish();
}
