//! Switching protocols through the whole program: what becomes a tunnel and what does not.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, Handshake, Instance, Listener, Pki, Upstream, http, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");
const PLAIN: &str = "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } }";
const LINES: &str = "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } }";

/// The program in front of a listener that the test speaks for.
fn in_front(config: &str) -> (Instance, Listener) {
    let listener = Listener::bind();
    let server = Instance::setup(EXE).http(config).var("UP", listener.addr()).start();
    (server, listener)
}

fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

#[test]
fn a_websocket_needs_no_header_lines() {
    let upstream = Upstream::echo();
    let server = Instance::setup(EXE).http(PLAIN).var("UP", upstream.addr()).start();
    let (mut client, head) = Handshake::to(server.listen(0)).path("/chat?x=1").open_with_head();
    echo(&mut client, "hello");
    assert_eq!(head.field("connection"), Some("upgrade"));
    assert_eq!(head.field("server"), Some("nginx/1.31.5"));
    let request = upstream.next_request();
    assert_eq!(request.target(), "/chat?x=1");
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("connection"), Some("upgrade"));
    assert_eq!(request.field("host"), Some(upstream.addr().to_string().as_str()));
    drop(client);
    server.wait_for_access("\"GET /chat?x=1 HTTP/1.1\" 101 ");
}

#[test]
fn bytes_behind_either_head_arrive_in_the_tunnel() {
    let (server, listener) = in_front(PLAIN);
    let early = text("early").encode(Some([1, 2, 3, 4]));
    let mut client = Handshake::to(server.listen(0)).early(early).send();
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    // Nothing of the client's frames goes upstream before the switch.
    assert!(upstream.unread().is_empty());
    upstream.accept_websocket(&request, "");
    upstream.send([text("welcome")]);
    upstream.expect([text("early")]);
    assert_eq!(client.recv_response().status, 101);
    client.expect([text("welcome")]);
}

#[test]
fn a_101_that_is_no_answer_to_the_request_is_refused() {
    let accept = "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n";
    for (fields, reason) in [
        (
            format!("Upgrade: websocket\r\nConnection: upgrade\r\n{accept}"),
            "does not match the key",
        ),
        ("Upgrade: websocket\r\nConnection: upgrade\r\n".into(), "no \"Sec-WebSocket-Accept\""),
        (format!("Upgrade: h2c\r\nConnection: upgrade\r\n{accept}"), "did not name in \"Upgrade\""),
        (format!("Connection: upgrade\r\n{accept}"), "no \"Upgrade\" header"),
    ] {
        let (server, listener) = in_front(PLAIN);
        let mut client =
            Handshake::to(server.listen(0)).early("GET /smuggled HTTP/1.1\r\n\r\n").send();
        let mut upstream = listener.accept();
        upstream.recv_request();
        upstream.send_raw(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"));
        assert_eq!(client.recv_response().status, 502, "{fields}");
        let (rest, _) = upstream.recv_to_end();
        assert!(rest.is_empty(), "smuggled: {}", rest.escape_ascii());
        let log = server.wait_for_log("invalid 101 response");
        assert!(log.contains(reason), "{log}");
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_refused() {
    let upstream = Upstream::says(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\nSECRET",
    );
    let server = Instance::setup(EXE).http(LINES).var("UP", upstream.addr()).start();
    let response = http::get(server.listen(0), "localhost", "/");
    assert_eq!(response.status, 502);
    assert!(!response.text().contains("SECRET"));
    server.wait_for_log("the request did not ask to switch protocols");
}

#[test]
fn another_answer_to_an_upgrade_stays_http() {
    let upstream = Upstream::says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    let server = Instance::setup(EXE).http(PLAIN).var("UP", upstream.addr()).start();
    let (_client, response) = Handshake::to(server.listen(0)).answer();
    assert_eq!((response.status, response.text().as_str()), (200, "no"));
}

#[test]
fn another_protocol_becomes_a_tunnel_of_bytes() {
    let (server, listener) = in_front(LINES);
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n");
    let mut upstream = listener.accept();
    assert_eq!(upstream.recv_request().field("upgrade"), Some("foo"));
    upstream.send_raw("HTTP/1.1 101 Yes\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n");
    assert_eq!(client.recv_response().status, 101);
    client.send_raw("ping");
    assert_eq!(upstream.recv_raw(4), b"ping");
    upstream.send_raw("pong");
    drop(upstream);
    assert_eq!(client.recv_to_end().0, b"pong");
}

#[test]
fn a_request_with_a_body_is_passed_on_without_its_wish() {
    let (server, listener) = in_front(LINES);
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(
        "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Content-Length: 4\r\n\r\nbody",
    );
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    assert_eq!((request.field("upgrade"), request.field("connection")), (None, None));
    assert_eq!(request.body, b"body");
    upstream.send_raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.recv_response().text(), "ok");
}

#[test]
fn an_invalid_websocket_request_is_passed_on_as_a_plain_one() {
    let upstream = Upstream::text("plain");
    let server = Instance::setup(EXE).http(PLAIN).var("UP", upstream.addr()).start();
    let response = http::exchange(
        server.listen(0),
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(response.text(), "plain");
    assert_eq!(upstream.next_request().field("upgrade"), None);
}

#[test]
fn both_sides_may_be_tls() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let upstream = Upstream::builder().tls(leaf.server_config()).echo();
    let server = Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%% ssl; ssl_certificate %%CHAIN%%; \
             ssl_certificate_key %%KEY%%; location / { proxy_pass https://%%UP%%; \
             proxy_ssl_verify on; proxy_ssl_trusted_certificate %%ROOT%%; \
             proxy_ssl_name localhost; } }",
        )
        .var("UP", upstream.addr())
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .var("ROOT", pki.root_path().display())
        .start();
    let mut client = Handshake::to(server.listen(0)).tls(pki.client_config(), "localhost").open();
    for size in [1, 125, 70_000] {
        echo(&mut client, &"x".repeat(size));
    }
}
