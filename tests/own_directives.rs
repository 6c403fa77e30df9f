//! What nginx does not know: `websocket` and `websocket_tcp_user_timeout`, and TLS on both sides of a tunnel.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::time::Duration;

use wssgate_testkit::{Handshake, Instance, Listener, Pki, Upstream, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server whose locations say different things about WebSockets.
const LOCATIONS: &str = r#"
    websocket off;
    server {
        listen %%LISTEN_0%%;
        location / { proxy_pass http://%%UP%%; }
        location /on/ { websocket on; proxy_pass http://%%UP%%; }
        location /lines/ {
            proxy_pass http://%%UP%%;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }
    }
"#;

#[test]
fn websocket_off_passes_the_request_on_without_its_wish() {
    let upstream =
        Upstream::http(|request| match (request.field("upgrade"), request.field("connection")) {
            (None, None) => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain",
            _ => "HTTP/1.1 500 Wrong\r\nContent-Length: 0\r\n\r\n",
        });
    let server = Instance::setup(EXE).http(LOCATIONS).var("UP", upstream.addr()).start();
    let (_, response) = Handshake::to(server.listen(0)).path("/").answer();
    assert_eq!((response.status, response.text().as_str()), (200, "plain"));
    assert!(server.stop().success());
    upstream.finish();
}

#[test]
fn websocket_is_switched_by_location_and_lines_are_obeyed_anyway() {
    let upstream = Upstream::echo();
    let server = Instance::setup(EXE).http(LOCATIONS).var("UP", upstream.addr()).start();
    for path in ["/on/", "/lines/"] {
        let mut client = Handshake::to(server.listen(0)).path(path).open();
        client.send([text(path)]);
        client.expect([text(path)]);
    }
    assert!(server.stop().success());
    upstream.finish();
}

/// Long before `send_timeout`, which is a minute: the kernel gives up a peer that takes nothing.
#[test]
fn websocket_tcp_user_timeout_gives_up_a_peer_that_takes_nothing() {
    let listener = Listener::bind();
    let server = Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; \
             websocket_tcp_user_timeout 1s; } }",
        )
        .var("UP", listener.addr())
        .start();
    let (client, mut upstream) = Handshake::to(server.listen(0)).open_with(&listener);
    // Until neither the kernel nor the program takes more.
    upstream.set_guard(Duration::from_millis(200)).unwrap();
    while upstream.try_send_raw([0; 64 << 10]).is_ok() {}
    server.wait_for_log("client connection failed (110: Connection timed out)");
    drop((client, upstream));
    assert!(server.stop().success());
}

/// TLS on both sides.
fn tls_tunnel(pki: &Pki) -> (Instance, Upstream, Handshake) {
    let leaf = pki.leaf(&["localhost"]);
    let upstream = Upstream::builder().tls(leaf.server_config()).echo();
    let server = Instance::setup(EXE)
        .http(
            "error_log error.log info; server { listen %%LISTEN_0%% ssl; ssl_certificate %%CHAIN%%; \
             ssl_certificate_key %%KEY%%; location / { proxy_pass https://%%UP%%; } }",
        )
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .var("UP", upstream.addr())
        .start();
    let handshake = Handshake::to(server.listen(0)).tls(pki.client_config(), "localhost");
    (server, upstream, handshake)
}

#[test]
fn tunnels_run_with_tls_on_both_sides() {
    let pki = Pki::new();
    let long = "long".repeat(50_000);
    let (server, upstream, handshake) = tls_tunnel(&pki);
    let mut client = handshake.open();
    for message in ["short", &long, "again"] {
        client.send([text(message)]);
        client.expect([text(message)]);
    }
    // What stands behind the request is opened before the switch and must not be lost.
    let mut early = handshake.early(text("early").encode(Some([1, 2, 3, 4]))).open();
    early.expect([text("early")]);
    drop((client, early));
    assert!(server.stop().success());
    upstream.finish();
}

/// A record of a type that does not exist.
#[test]
fn a_record_at_fault_is_told_of() {
    let (server, upstream, handshake) = tls_tunnel(&Pki::new());
    let client = handshake.open();
    client.tcp().unwrap().write_all(&[99, 3, 3, 0, 1, 0]).unwrap();
    server.wait_for_log("TLS error on the client connection: unexpected message");
    drop(client);
    assert!(server.stop().success());
    upstream.finish();
}
