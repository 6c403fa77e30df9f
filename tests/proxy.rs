//! Ordinary requests through the whole program: both bodies as streams, peers that fail.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::time::Duration;

use wssgate_testkit::{Conn, Instance, Listener, Upstream, http, with_nginx};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server whose only location has these lines, in front of a listener that the test speaks for.
fn in_front(lines: &str) -> (Instance, Listener) {
    let listener = Listener::bind();
    let server = Instance::setup(EXE)
        .http("server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; %%LINES%% } }")
        .var("UP", listener.addr())
        .var("LINES", lines)
        .start();
    (server, listener)
}

fn client(server: &Instance, request: &str) -> Conn {
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(request);
    client
}

const MIB: usize = 1 << 20;
/// More than all buffers of the kernel on the way can hold.
const MUCH: usize = 64 * MIB;

/// Writes until nothing more is taken, and tells how much was.
fn fill(conn: &Conn) -> usize {
    let mut tcp = conn.tcp().unwrap();
    tcp.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = vec![b'x'; MIB / 4];
    let mut written = 0;
    while written < MUCH {
        match tcp.write(&piece[..piece.len().min(MUCH - written)]) {
            Ok(len) => written += len,
            Err(_) => break,
        }
    }
    written
}

#[test]
fn a_slow_reader_stops_the_upstream_and_still_gets_everything() {
    for lines in ["", "proxy_buffering off;"] {
        let (server, listener) = in_front(lines);
        let mut client = client(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut upstream = listener.accept();
        upstream.recv_request();
        upstream.send_raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"));
        let written = fill(&upstream);
        assert!(written < MUCH / 2, "{written} bytes went into a proxy that could send none");
        let reader = std::thread::spawn(move || client.recv_response().body.len());
        upstream.tcp().unwrap().set_write_timeout(None).unwrap();
        upstream.send_raw(vec![b'y'; MUCH - written]);
        assert_eq!(reader.join().unwrap(), MUCH);
    }
}

#[test]
fn a_slow_upstream_stops_the_client_when_the_body_is_not_buffered() {
    let (server, listener) = in_front("proxy_request_buffering off; client_max_body_size 0;");
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n");
    let mut client = client(&server, &head);
    let mut upstream = listener.accept();
    let written = fill(&client);
    assert!(written < MUCH / 2, "{written} bytes went into a proxy that could send none");
    let reader = std::thread::spawn(move || {
        let len = upstream.recv_request().body.len();
        upstream.send_raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        len
    });
    client.tcp().unwrap().set_write_timeout(None).unwrap();
    client.send_raw(vec![b'y'; MUCH - written]);
    assert_eq!(client.recv_response().text(), "ok");
    assert_eq!(reader.join().unwrap(), MUCH);
}

#[test]
fn an_answer_may_come_before_the_body_was_sent() {
    let (server, listener) = in_front("proxy_request_buffering off;");
    let mut client =
        client(&server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nfirst");
    let mut upstream = listener.accept();
    upstream.try_recv_head().unwrap();
    upstream.send_raw("HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nstop");
    let response = client.recv_response();
    assert_eq!((response.status, response.text().as_str()), (413, "stop"));
}

#[test]
fn an_upstream_that_breaks_off_never_looks_complete() {
    for head in ["Content-Length: 20", "Transfer-Encoding: chunked"] {
        let (server, listener) = in_front("");
        let mut client = client(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut upstream = listener.accept();
        upstream.recv_request();
        upstream.send_raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"));
        drop(upstream);
        assert!(client.try_recv_response("GET").is_err(), "{head}");
        server.wait_for_log("upstream prematurely closed connection while reading upstream");
    }
}

#[test]
fn connections_to_a_group_are_used_again() {
    let upstream = Upstream::text("same");
    let server = Instance::setup(EXE)
        .http(
            "upstream u { server %%UP%%; } \
             server { listen %%LISTEN_0%%; location / { proxy_pass http://u; } }",
        )
        .var("UP", upstream.addr())
        .start();
    for _ in 0..3 {
        assert_eq!(http::get(server.listen(0), "a", "/").text(), "same");
    }
    let connections: Vec<_> = (0..3).map(|_| upstream.next_request().connection).collect();
    assert_eq!(connections, [0, 0, 0]);
}

#[test]
fn a_kept_connection_that_died_is_not_held_against_its_peer() {
    let listener = Listener::bind();
    let server = Instance::setup(EXE)
        .http(
            "upstream u { server %%UP%%; } \
             server { listen %%LISTEN_0%%; location / { proxy_pass http://u; } }",
        )
        .var("UP", listener.addr())
        .start();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut first = client(&server, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut kept = listener.accept();
    kept.recv_request();
    kept.send_raw(answer);
    assert_eq!(first.recv_response().text(), "ok");
    // The second request goes to the kept connection, which ends without an answer.
    let mut second = client(&server, "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(kept.recv_request().target(), "/2");
    drop(kept);
    let mut fresh = listener.accept();
    assert_eq!(fresh.recv_request().target(), "/2");
    fresh.send_raw(answer);
    assert_eq!(second.recv_response().text(), "ok");
}

#[test]
fn the_next_peer_answers_when_one_refuses() {
    let refused = Listener::bind().addr().clone();
    let upstream = Upstream::text("alive");
    let server = Instance::setup(EXE)
        .http(
            "log_format peers '$upstream_addr|$upstream_status';\n\
             access_log %%DIR%%/peers.log peers;\n\
             upstream u { server %%DEAD%%; server %%UP%%; } \
             server { listen %%LISTEN_0%%; location / { proxy_pass http://u; } }",
        )
        .var("UP", upstream.addr())
        .var("DEAD", &refused)
        .start();
    assert_eq!(http::get(server.listen(0), "a", "/").text(), "alive");
    let line = format!("{refused}, {}|502, 200", upstream.addr());
    server.wait_for_line("peers.log", &line);
    server.wait_for_log("connect() failed (111: Connection refused) while connecting to upstream");
    server.wait_for_log("upstream server temporarily disabled");
}

#[test]
fn a_post_is_not_sent_twice() {
    let (server, listener) = in_front("");
    let mut client = client(&server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    let mut upstream = listener.accept();
    upstream.recv_request();
    drop(upstream);
    assert_eq!(client.recv_response().status, 502);
    server.wait_for_log(
        "upstream prematurely closed connection while reading response header from upstream",
    );
}

#[test]
fn a_silent_upstream_is_a_504() {
    let (server, listener) = in_front("proxy_read_timeout 50ms;");
    let mut client = client(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = listener.accept();
    upstream.recv_request();
    assert_eq!(client.recv_response().status, 504);
    server.wait_for_log("upstream timed out (110: Connection timed out) while reading response");
}

#[test]
fn a_client_that_goes_away_takes_its_upstream_along() {
    let (server, listener) = in_front("");
    let client = client(&server, "GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = listener.accept();
    upstream.recv_request();
    drop(client);
    upstream.expect_eof();
    server.wait_for_access("\"GET /gone HTTP/1.1\" 499 0 ");
}

#[test]
fn a_head_beyond_the_buffer_is_a_502() {
    let (server, listener) = in_front("proxy_buffer_size 1k; proxy_buffers 4 1k;");
    let mut client = client(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = listener.accept();
    upstream.recv_request();
    upstream.send_raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "x".repeat(2000)));
    assert_eq!(client.recv_response().status, 502);
    server.wait_for_log("upstream sent too big header while reading response header from upstream");
}

#[test]
fn interim_answers_are_passed_over() {
    let (server, listener) = in_front("");
    let mut client = client(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = listener.accept();
    upstream.recv_request();
    upstream.send_raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    upstream.send_raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let response = client.recv_response();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
}

#[test]
fn a_group_named_by_a_variable_hashes_by_its_own_key() {
    let upstreams = [Upstream::text("one"), Upstream::text("two"), Upstream::text("three")];
    let server = Instance::setup(EXE)
        .http(
            "upstream u { hash $arg_k consistent; server %%A%%; server %%B%%; server %%C%%; } \
             server { listen %%LISTEN_0%%; set $group u; location / { proxy_pass http://$group; } }",
        )
        .var("A", upstreams[0].addr())
        .var("B", upstreams[1].addr())
        .var("C", upstreams[2].addr())
        .start();
    for key in 0..8 {
        let path = format!("/?k={key}");
        let answers: Vec<_> =
            (0..3).map(|_| http::get(server.listen(0), "a", &path).text()).collect();
        assert_eq!(answers[0], answers[1], "{path}");
        assert_eq!(answers[1], answers[2], "{path}");
    }
}

/// What `proxy_pass_header` leaves to an upstream is nobody's when that sends none; nginx is asked, too.
#[test]
fn a_field_that_is_left_to_the_upstream_is_not_made_up() {
    let upstream = wssgate_testkit::Upstream::says("HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n");
    for exe in with_nginx(EXE) {
        for (line, server, date) in [
            ("", true, true),
            ("proxy_pass_header Server;", false, true),
            ("proxy_pass_header Date;", true, false),
            ("proxy_pass_header Server; proxy_pass_header Date;", false, false),
        ] {
            let proxy = Instance::setup(exe)
                .http(&format!(
                    "server {{ listen %%LISTEN_0%%; location / {{ proxy_pass http://%%UP%%; {line} }} }}"
                ))
                .var("UP", upstream.addr())
                .start();
            let answer = http::get(proxy.listen(0), "a", "/");
            assert_eq!(answer.status, 204, "{exe} {line}");
            assert_eq!(answer.field("Server").is_some(), server, "{exe} {line}");
            assert_eq!(answer.field("Date").is_some(), date, "{exe} {line}");
        }
    }
}
