//! What reloads and ends of the process do to tunnels that are open.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use wssgate_testkit::{Conn, Handshake, Instance, Upstream, close, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");
const PASS: &str = "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } }";

/// A server with this main level, its upstream, and an open tunnel through both.
fn tunnel(main: &str) -> (Instance, Upstream, Conn) {
    let upstream = Upstream::echo();
    let server = Instance::setup(EXE).main_and_http(main, PASS).var("UP", upstream.addr()).start();
    let mut client = Handshake::to(server.listen(0)).open();
    echo(&mut client, "first");
    (server, upstream, client)
}

fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

#[test]
fn a_tunnel_outlives_reloads_and_its_generation_ends_with_it() {
    let (server, upstream, mut client) = tunnel("");
    for number in 2..5 {
        server.signal("HUP");
        server.wait_for_log(&format!("reconfigured, generation {number}"));
        echo(&mut client, "still here");
    }
    // Those that nothing began with are gone already.
    server.wait_for_log("generation 3 ended: ");
    assert!(!server.error_log().contains("generation 1 ended"));
    drop(client);
    server.wait_for_log("generation 1 ended: ");
    let line = server.wait_for_access("\"GET / HTTP/1.1\" 101 ");
    assert!(!line.is_empty());
    assert!(server.stop().success());
    upstream.finish();
}

#[test]
fn a_tunnel_outlives_quit_and_the_process_ends_with_it() {
    let (mut server, upstream, mut client) = tunnel("");
    server.signal("QUIT");
    server.wait_for_log("shutting down");
    echo(&mut client, "still here");
    assert!(!server.has_ended());
    drop(client);
    assert!(server.wait().success());
    upstream.finish();
}

#[test]
fn term_ends_tunnels_at_once_and_logs_them() {
    let (server, upstream, mut client) = tunnel("worker_processes 2;");
    let before = Instant::now();
    server.signal("TERM");
    client.recv_to_end();
    server.wait_for_access("\"GET / HTTP/1.1\" 101 ");
    assert!(server.wait().success());
    assert!(before.elapsed() < Duration::from_secs(2));
    upstream.finish();
}

#[test]
fn worker_shutdown_timeout_ends_the_tunnels_of_an_old_generation_only() {
    let (server, upstream, mut old) = tunnel("worker_shutdown_timeout 200ms;");
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    let mut new = Handshake::to(server.listen(0)).open();
    old.recv_to_end();
    server.wait_for_log("generation 1 ended: ");
    echo(&mut new, "still here");
    drop(new);
    assert!(server.stop().success());
    upstream.finish();
}

#[test]
fn worker_shutdown_timeout_ends_a_quit() {
    let (server, upstream, mut client) = tunnel("worker_shutdown_timeout 200ms;");
    server.signal("QUIT");
    client.recv_to_end();
    assert!(server.wait().success());
    upstream.finish();
}

/// What is under way when the time is over is finished, and the closing handshake behind it.
#[test]
fn worker_shutdown_timeout_cuts_no_frame() {
    let upstream = Upstream::websocket(|conn| {
        conn.send_raw(b"\x81\x05he");
        conn.expect([close(1001, "")]);
        conn.send_raw(b"llo");
        conn.send([close(1001, "")]);
    });
    for signal in ["QUIT", "HUP"] {
        let server = Instance::setup(EXE)
            .main_and_http("worker_shutdown_timeout 50ms;", PASS)
            .var("UP", upstream.addr())
            .start();
        let mut client = Handshake::to(server.listen(0)).open();
        server.signal(signal);
        client.expect([text("hello"), close(1001, "")]);
        client.send([close(1001, "")]);
        client.recv_to_end();
        match signal {
            "QUIT" => assert!(server.wait().success()),
            _ => drop(server.wait_for_log("generation 1 ended: ")),
        }
    }
    upstream.finish();
}

#[test]
fn term_after_quit_does_not_wait() {
    let (server, upstream, client) = tunnel("");
    server.signal("QUIT");
    server.wait_for_log("shutting down");
    assert!(server.terminate().success());
    drop(client);
    upstream.finish();
}

/// The request of a tunnel is gone long before its access line is written; what the line says of
/// it was kept, what only the end knows is filled in.
#[test]
fn access_lines_of_a_tunnel_know_its_beginning_and_its_end() {
    let http = "
        map $request_time $length { default late; }
        map $http_user_agent $wanted { default 1; quiet 0; }
        log_format early '$remote_addr \"$request\" \"$http_x_who\" $http_absent $status';
        log_format holes '$bytes_sent=$body_bytes_sent $request_time $connection_time [$time_local] \
            $upstream_bytes_received/$upstream_bytes_sent/$upstream_response_length \
            $upstream_response_time $request_completion end';
        log_format late '$length $bytes_sent $status';
        access_log early.log early;
        access_log holes.log holes;
        access_log late.log late;
        access_log wanted.log early if=$wanted;
        server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } }";
    let upstream = Upstream::echo();
    let server = Instance::setup(EXE).http(http).var("UP", upstream.addr()).start();
    let open = |agent| {
        let handshake = Handshake::to(server.listen(0)).path("/a?b");
        handshake.field("X-Who", "a \"name\"").field("User-Agent", agent).open()
    };
    let mut client = open("quiet");
    echo(&mut client, "0123456789");
    client.send([wssgate_testkit::close(1000, "")]);
    client.expect([wssgate_testkit::close(1000, "")]);
    drop(client);
    let early = server.wait_for_line("early.log", " 101");
    assert_eq!(early.trim(), "127.0.0.1 \"GET /a?b HTTP/1.1\" \"a \\x22name\\x22\" - 101");
    let holes = server.wait_for_line("holes.log", " end");
    let words: Vec<_> = holes.split([' ', '=', '/']).collect();
    // Towards the client: the text of 10 bytes and the Close with its code, each in its frame.
    let body: u64 = words[1].parse().unwrap();
    let sent: u64 = words[0].parse().unwrap();
    assert_eq!(body, 12 + 4, "{holes}");
    assert!(sent > body + 100, "{holes}");
    let times: Vec<_> = words[2..4].iter().map(|time| time.parse::<f64>().unwrap()).collect();
    assert!(times[0] <= times[1], "{holes}");
    assert!(holes.contains(" +") && holes.contains(" OK end"), "{holes}");
    let late = server.wait_for_line("late.log", " 101");
    assert_eq!(late.trim(), format!("late {sent} 101"));
    drop(open("loud"));
    server.wait_for_line("wanted.log", " 101");
    assert_eq!(server.read("wanted.log").lines().count(), 1);
    upstream.finish();
}
