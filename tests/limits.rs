//! `limit_req` and `limit_conn` where they meet tunnels, workers, reloads and clients that leave. What they answer
//! and log besides is held against nginx by `tests/like_nginx.rs`.
#![allow(clippy::unwrap_used)]

use std::{
    thread,
    time::{Duration, Instant},
};

use wssgate_testkit::{Conn, Handshake, Instance, Upstream, http, text, wait_until, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

const PASS: &str = "proxy_pass http://%%UP%%; proxy_http_version 1.1; \
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";

#[test]
fn a_tunnel_is_a_connection_until_it_ends() {
    let upstream = Upstream::echo();
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .http(&format!(
                "limit_conn_zone $server_port zone=sockets:1m; limit_conn_status 429;
                 server {{ listen %%LISTEN_0%%; location / {{ limit_conn sockets 2; {PASS} }} }}"
            ))
            .var("UP", upstream.addr())
            .start();
        let handshake = Handshake::to(server.listen(0));
        let mut sockets = [handshake.open(), handshake.open()];
        assert_eq!(handshake.answer().1.status, 429, "{exe}");
        for socket in &mut sockets {
            socket.send([text("hello")]);
            socket.expect([text("hello")]);
        }
        let [first, _second] = sockets;
        drop(first);
        wait_until("the place of the socket that ended", || handshake.answer().1.status == 101);
        server.wait_for_log("limiting connections by zone \"sockets\", client: 127.0.0.1");
    }
}

#[test]
fn of_a_tunnel_the_handshake_is_a_request() {
    let upstream = Upstream::echo();
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .http(&format!(
                "limit_req_zone $server_port zone=handshakes:1m rate=1r/m;
                 server {{ listen %%LISTEN_0%%;
                     location / {{ limit_req zone=handshakes burst=1 nodelay; {PASS} }} }}"
            ))
            .var("UP", upstream.addr())
            .start();
        let handshake = Handshake::to(server.listen(0));
        let mut socket = handshake.open();
        for _ in 0..5 {
            socket.send([text("hello")]);
            socket.expect([text("hello")]);
        }
        drop(handshake.open());
        assert_eq!(handshake.answer().1.status, 503, "{exe}: messages are none, ended ones are");
        server.wait_for_log(" by zone \"handshakes\", client: 127.0.0.1");
    }
}

#[test]
fn counts_are_those_of_all_workers() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    let server = Instance::setup(WSSGATE)
        .main_and_http(
            "worker_processes 4;",
            "limit_req_zone $server_port zone=all:1m rate=1r/m;
             server { listen %%LISTEN_0%%; limit_req zone=all burst=50 nodelay;
                 root %%DIR%%; }",
        )
        .file("limited", "")
        .start();
    let address = server.listen(0);
    let allowed = move |_| {
        let statuses = (0..EACH).map(|_| http::get(address, "a", "/limited").status);
        statuses.filter(|status| *status == 200).count()
    };
    let threads: Vec<_> = (0..CLIENTS).map(|n| thread::spawn(move || allowed(n))).collect();
    let allowed: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(allowed, 51);
}

#[test]
fn a_reload_keeps_counts_and_refuses_another_key() {
    let upstream = Upstream::echo();
    for exe in with_nginx(WSSGATE) {
        let conf = |key: &str, rate: &str, more: &str| {
            format!(
                "limit_conn_zone $server_port zone=sockets:1m;
                 limit_req_zone {key} zone=requests:1m rate={rate};
                 server {{ listen %%LISTEN_0%%; root %%DIR%%; {more}
                     location / {{ limit_conn sockets 1; {PASS} }}
                     location = /file {{ limit_req zone=requests; }} }}"
            )
        };
        let mut server = Instance::setup(exe)
            .http(&conf("$server_port", "1r/m", ""))
            .file("file", "content")
            .var("UP", upstream.addr())
            .start();
        let address = server.listen(0);
        let _socket = Handshake::to(address).open();
        assert_eq!(http::get(address, "a", "/file").status, 200);
        server.rewrite_http(&conf("$server_port", "2r/m", "add_header X-New yes always;"));
        server.signal("HUP");
        wait_until("the new configuration", || {
            http::get(address, "a", "/none").field("X-New").is_some()
        });
        assert_eq!(http::get(address, "a", "/file").status, 503, "{exe}");
        assert_eq!(Handshake::to(address).answer().1.status, 503, "{exe}");
        server.rewrite_http(&conf("$uri", "2r/m", ""));
        server.signal("HUP");
        let words = "limit_req \"requests\" uses the \"$uri\" key while previously it used the \"$server_port\" key";
        let line = server.wait_for_log(words);
        assert!(line.contains("[emerg]"), "{line}");
        assert!(http::get(address, "a", "/none").field("X-New").is_some());
    }
}

/// The request that leaves has been counted all the same, as by nginx.
#[test]
fn a_delayed_request_is_dropped_when_its_client_leaves() {
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .http(
                "limit_req_zone $server_port zone=slow:1m rate=1r/m; log_format status $status;
                 server { listen %%LISTEN_0%%; root %%DIR%%; limit_req zone=slow burst=5;
                     access_log %%DIR%%/access.log status; }",
            )
            .file("file", "content")
            .start();
        let address = server.listen(0);
        assert_eq!(http::get(address, "a", "/file").status, 200);
        let mut delayed = Conn::connect(address);
        let begin = Instant::now();
        delayed.send_raw("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
        server.wait_for_log("delaying request, excess: ");
        drop(delayed);
        server.wait_for_access("499");
        assert!(begin.elapsed() < Duration::from_secs(30), "it would be delayed for a minute");
    }
}
