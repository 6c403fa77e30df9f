//! What goes wrong around a WebSocket, and that it goes wrong for that WebSocket alone.
//!
//! What upstreams do wrong is done to nginx, too, where there is one: status and words in the error
//! log must be the same.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
};

use socket2::{Domain, Socket, Type};
use wssgate_testkit::{
    Conn, Handshake, Instance, Listener, Pki, Upstream, binary, close, http, text, wait_until,
    with_nginx,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// The program in front of `upstreams`, which are `server` lines.
fn in_front(exe: &str, upstreams: &str) -> Instance {
    let lines = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
         proxy_set_header Connection upgrade; proxy_read_timeout 1s; proxy_buffer_size 4k;";
    Instance::setup(exe)
        .http(&format!(
            "upstream app {{ {upstreams} }}
             server {{ listen %%LISTEN_0%%; location / {{ proxy_pass http://app; {lines} }} }}"
        ))
        .start()
}

fn dead() -> String {
    let addr = Listener::bind().addr().to_string();
    assert!(TcpStream::connect(&addr).is_err());
    addr
}

fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

#[test]
fn what_upstreams_answer_wrongly_is_answered_and_logged_as_by_nginx() {
    let too_long = format!("HTTP/1.1 101 Switching Protocols\r\nX: {}\r\n", "x".repeat(9000));
    let closed = "upstream prematurely closed connection while reading response header";
    let cases: [(&str, u16, &str); 7] = [
        ("", 502, closed),
        ("HTTP/1.1 101 Switch", 502, closed),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs", 502, closed),
        ("HTTP/1.1 200 OK\r\nA b: c\x01\r\n\r\n", 502, "upstream sent invalid header"),
        (&too_long, 502, "upstream sent too big header while reading response header"),
        ("HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno", 400, ""),
        ("HTTP/1.1 426 Upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nno", 426, ""),
    ];
    for exe in with_nginx(WSSGATE) {
        for (answer, status, logged) in cases {
            let upstream = Upstream::says(answer);
            let server = in_front(exe, &format!("server {};", upstream.addr()));
            let (_client, response) = Handshake::to(server.listen(0)).answer();
            let shown = answer.escape_default().take(60).collect::<String>();
            assert_eq!(response.status, status, "{exe}: {shown}\n{}", server.error_log());
            if status == 502 {
                let line = server.wait_for_log(logged);
                assert!(line.contains("[error]"), "{exe}: {line}");
                let url = format!("upstream: \"http://{}/\"", upstream.addr());
                assert!(line.contains(&url), "{exe}: {line}");
            }
        }
    }
}

/// nginx takes what does not begin with a status line for an answer of HTTP/0.9 and passes it on.
#[test]
fn what_is_no_http_is_a_502() {
    let upstream = Upstream::says("\x16\x03\x01 this is no HTTP\r\n\r\n");
    let server = in_front(WSSGATE, &format!("server {};", upstream.addr()));
    let (_client, response) = Handshake::to(server.listen(0)).answer();
    assert_eq!(response.status, 502, "{response:?}");
    server.wait_for_log("upstream sent no valid HTTP/1.0 header");
}

#[test]
fn a_silent_upstream_is_a_504() {
    for exe in with_nginx(WSSGATE) {
        let listener = Listener::bind();
        let server = in_front(exe, &format!("server {};", listener.addr()));
        let mut client = Handshake::to(server.listen(0)).send();
        let mut upstream = listener.accept();
        upstream.recv_request();
        assert_eq!(client.recv_response().status, 504, "{exe}");
        server
            .wait_for_log("upstream timed out (110: Connection timed out) while reading response");
        upstream.expect_eof();
    }
}

#[test]
fn without_an_upstream_there_is_a_502_and_a_line_with_peer_and_cause() {
    for exe in with_nginx(WSSGATE) {
        let dead = dead();
        let server = in_front(exe, &format!("server {dead};"));
        let (_client, response) = Handshake::to(server.listen(0)).host("a.test").answer();
        assert_eq!(response.status, 502, "{exe}");
        assert!(response.text().contains("<h1>502 Bad Gateway</h1>"), "{exe}: {response:?}");
        let line = server.wait_for_log("connect() failed");
        let rest = format!(
            "connect() failed (111: Connection refused) while connecting to upstream, \
             client: 127.0.0.1, server: , request: \"GET / HTTP/1.1\", \
             upstream: \"http://{dead}/\", host: \"a.test\""
        );
        assert!(line.contains("[error]") && line.ends_with(&rest), "{exe}: {line}");
        server.wait_for_access("\"GET / HTTP/1.1\" 502 ");
    }
}

#[test]
fn a_handshake_goes_on_to_the_next_peer_until_one_answers() {
    for exe in with_nginx(WSSGATE) {
        let (dead, hangs_up, alive) = (dead(), Upstream::says(""), Upstream::echo());
        let (hangs_up, alive) = (hangs_up.addr(), alive.addr());
        let server = in_front(exe, &format!("server {dead}; server {hangs_up}; server {alive};"));
        for _ in 0..3 {
            echo(&mut Handshake::to(server.listen(0)).open(), exe);
        }
        server.wait_for_log("connect() failed (111: Connection refused)");
        server.wait_for_log("upstream prematurely closed connection");
    }
}

#[test]
fn a_client_that_leaves_during_the_handshake_takes_the_upstream_along() {
    for exe in with_nginx(WSSGATE) {
        let listener = Listener::bind();
        let server = in_front(exe, &format!("server {};", listener.addr()));
        let client = Handshake::to(server.listen(0)).path("/left").send();
        let mut upstream = listener.accept();
        upstream.recv_request();
        drop(client);
        upstream.expect_eof();
        server.wait_for_access("\"GET /left HTTP/1.1\" 499 0 ");
    }
}

#[test]
fn a_client_that_leaves_while_the_upstream_is_connected_to_is_a_499() {
    // Connections beyond a full backlog get no answer to their SYN.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let _in_backlog = TcpStream::connect(addr).unwrap();
    for exe in with_nginx(WSSGATE) {
        let server = in_front(exe, &format!("server {addr};"));
        drop(Handshake::to(server.listen(0)).path("/left").send());
        server.wait_for_access("\"GET /left HTTP/1.1\" 499 0 ");
    }
}

#[test]
fn a_switch_may_come_byte_by_byte() {
    let listener = Listener::bind();
    let server = in_front(WSSGATE, &format!("server {};", listener.addr()));
    let mut client = Handshake::to(server.listen(0)).send();
    let mut upstream = listener.accept();
    let key = upstream.recv_request().field("Sec-WebSocket-Key").unwrap().to_owned();
    let accept = wssgate_ws::accept_key(key.as_bytes());
    let accept = String::from_utf8_lossy(&accept);
    let head = format!(
        "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    for byte in head.bytes() {
        upstream.send_raw([byte]);
    }
    upstream.send([text("hello")]);
    let answer = client.recv_response();
    assert_eq!((answer.status, &*answer.head.start), (101, "HTTP/1.1 101 OK"));
    client.expect([text("hello")]);
}

/// What a client sends before the switch waits: a bounded part of it in the program, the rest in
/// the sockets. None of it is lost.
#[test]
fn a_flood_before_the_switch_waits_and_arrives() {
    let listener = Listener::bind();
    let server = Instance::setup(WSSGATE)
        .http(
            "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; }
             location = /page { return 200 page; } }",
        )
        .var("UP", listener.addr())
        .start();
    let flood = || (0..64_u8).map(|number| binary(vec![number; 1 << 16]));
    let mut client = Handshake::to(server.listen(0)).send();
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    let sender = thread::spawn(move || {
        client.send(flood());
        client
    });
    let before = peak_kib(&server);
    // Answers to others say that the program had time for the flood.
    for _ in 0..100 {
        assert_eq!(http::get(server.listen(0), "a", "/page").text(), "page");
    }
    assert!(peak_kib(&server) < before + 2048, "the flood is held in memory");
    upstream.accept_websocket(&request, "");
    upstream.expect(flood());
    let mut client = sender.join().unwrap();
    assert_eq!(client.recv_response().status, 101);
    upstream.send([close(1000, "")]);
    client.expect([close(1000, "")]);
}

fn peak_kib(server: &Instance) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_reset_ends_one_tunnel_and_no_other() {
    let listener = Listener::bind();
    let server = in_front(WSSGATE, &format!("server {};", listener.addr()));
    let handshake = Handshake::to(server.listen(0));
    let (mut neighbour, mut other_end) = handshake.open_with(&listener);
    let mut still_works = |message: &str| {
        neighbour.send([text(message)]);
        other_end.expect([text(message)]);
    };
    let (mut client, upstream) = handshake.open_with(&listener);
    upstream.reset().unwrap();
    client.recv_to_end();
    still_works("after a reset by the upstream");
    let (client, mut upstream) = handshake.open_with(&listener);
    client.reset().unwrap();
    upstream.recv_to_end();
    still_works("after a reset by the client");
    server.wait_for_log("104: Connection reset by peer) while proxying upgraded connection");
}

#[test]
fn garbage_on_the_tls_port_ends_one_connection_and_no_other() {
    let (pki, upstream) = (Pki::new(), Upstream::echo());
    let leaf = pki.leaf(&["a.test"]);
    let server = Instance::setup(WSSGATE)
        .http(
            "server { listen %%LISTEN_0%% ssl; ssl_certificate %%CHAIN%%;
             ssl_certificate_key %%KEY%%; location / { proxy_pass http://%%UP%%; } }",
        )
        .var("UP", upstream.addr())
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start();
    let handshake = Handshake::to(server.listen(0)).tls(pki.client_config(), "a.test");
    let mut client = handshake.open();
    for garbage in [&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..], b"\x80\x2e\x01", b"\x16\x03"]
    {
        let mut conn = Conn::connect(server.listen(0));
        conn.send_raw(garbage);
        conn.shutdown_write().unwrap();
        conn.recv_to_end();
        echo(&mut client, "still here");
    }
    // Application data that no key has sealed.
    let mut forger = handshake.open();
    let raw = forger.tcp().unwrap().try_clone().unwrap();
    (&raw).write_all(&[&b"\x17\x03\x03\x00\x20"[..], &[7; 32]].concat()).unwrap();
    assert!(forger.try_recv().is_err());
    echo(&mut client, "still here");
    server.wait_for_log("while SSL handshaking");
}

#[test]
fn without_descriptors_open_tunnels_live_on() {
    let upstream = Upstream::echo();
    let server = Instance::setup(WSSGATE)
        .main_and_http(
            "worker_processes 1; worker_rlimit_nofile 48;",
            "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } }",
        )
        .var("UP", upstream.addr())
        .start();
    let mut client = Handshake::to(server.listen(0)).open();
    let others: Vec<_> = (0..60).map(|_| TcpStream::connect(server.listen(0)).unwrap()).collect();
    server.wait_for_log("24: Too many open files");
    echo(&mut client, "without descriptors");
    server.signal("HUP");
    echo(&mut client, "a reload that may fail");
    drop(others);
    let handshake = Handshake::to(server.listen(0));
    wait_until("room for a tunnel", || handshake.answer().1.status == 101);
    echo(&mut handshake.open(), "a new one");
    echo(&mut client, "the old one");
}

#[test]
fn a_full_disk_under_the_logs_ends_nothing() {
    let upstream = Upstream::echo();
    let server = Instance::setup(WSSGATE)
        .conf(
            "daemon off; pid %%DIR%%/nginx.pid; error_log /dev/full info; events {}
             http { access_log /dev/full; server {
             listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; }
             location = /page { return 200 page; } } }",
        )
        .var("UP", upstream.addr())
        .start();
    let mut client = Handshake::to(server.listen(0)).open();
    for _ in 0..100 {
        assert_eq!(http::get(server.listen(0), "a", "/page").text(), "page");
        echo(&mut client, "still here");
    }
    server.signal("USR1");
    echo(&mut Handshake::to(server.listen(0)).open(), "a new one");
    echo(&mut client, "the old one");
    drop(client);
    assert!(server.stop().success());
}
