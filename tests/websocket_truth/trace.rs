//! `websocket_trace`: lines of two hops that belong together.

use wssgate_testkit::{Handshake, Instance, Upstream, close};

use crate::rig::EXE;

const SERVER: &str = "
    log_format hops '$websocket_trace [$websocket_hops] $websocket_closed_by $websocket_close_cause';
    access_log hops.log hops;
    server { listen %%LISTEN_0%%; websocket_trace %%TRACE%%;
             location / { proxy_pass http://%%UP%%; }
             location /off { websocket_trace off; proxy_pass http://%%UP%%; } }";

const STRANGE: &str = "0123456789abcdef0123456789abcdef";

/// An edge, a gateway that trusts it, and an application.
fn hops() -> (Instance, Instance, Upstream) {
    let upstream = Upstream::echo();
    let gateway = Instance::setup(EXE)
        .http(SERVER)
        .var("TRACE", "on trusted=127.0.0.0/8 hop=gateway-1")
        .var("UP", upstream.addr())
        .start();
    let edge = Instance::setup(EXE)
        .http(SERVER)
        .var("TRACE", "on hop=edge")
        .var("UP", gateway.listen(0))
        .start();
    (edge, gateway, upstream)
}

#[test]
fn both_hops_log_one_identifier_that_no_client_can_choose() {
    let (edge, gateway, upstream) = hops();
    let handshake = Handshake::to(edge.listen(0)).field("X-WebSocket-Trace", STRANGE);
    let (mut client, head) = handshake.open_with_head();
    assert_eq!(head.field("x-websocket-hops"), None);
    let request = upstream.next_request();
    let id = request.field("x-websocket-trace").unwrap();
    assert!(id.len() == 32 && id != STRANGE, "{id}");
    assert_eq!(
        request
            .head
            .fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-websocket-trace"))
            .count(),
        1
    );
    client.send([close(1000, "")]);
    client.recv_to_end();
    for (hop, others) in [(&edge, "[gateway-1]"), (&gateway, "[-]")] {
        let line = hop.wait_for_line("hops.log", id);
        assert_eq!(line, format!("{id} {others} client client_close"));
    }
    upstream.finish();
}

#[test]
fn a_trusted_hop_is_told_and_an_untraced_location_changes_nothing() {
    let (edge, gateway, upstream) = hops();
    let traced = |path| {
        let handshake = Handshake::to(gateway.listen(0)).path(path);
        handshake.field("X-WebSocket-Trace", STRANGE).open_with_head()
    };
    let (client, head) = traced("/");
    assert_eq!(head.field("x-websocket-hops"), Some("gateway-1"));
    assert_eq!(upstream.next_request().field("x-websocket-trace"), Some(STRANGE));
    drop(client);
    gateway.wait_for_line("hops.log", &format!("{STRANGE} [-] client client_fin"));
    let (client, head) = traced("/off");
    assert_eq!(head.field("x-websocket-hops"), None);
    assert_eq!(upstream.next_request().field("x-websocket-trace"), Some(STRANGE));
    drop(client);
    gateway.wait_for_line("hops.log", "- [-] client client_fin");
    drop(edge);
    upstream.finish();
}

/// `Upgrade` is a list (RFC 9110 §7.8), of which the upstream chooses.
#[test]
fn a_websocket_among_other_offers_has_an_identifier_too() {
    let upstream = Upstream::echo();
    let server =
        Instance::setup(EXE).http(SERVER).var("TRACE", "on").var("UP", upstream.addr()).start();
    let mut client = std::net::TcpStream::connect(server.listen(0)).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket, other\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
    let id = upstream.next_request().field("x-websocket-trace").map(str::to_owned);
    drop(client);
    server.wait_for_line("hops.log", &format!("{} [-]", id.unwrap()));
    drop(server);
    upstream.finish();
}

/// Of what is no WebSocket there is no line to put together, and a client's word goes nowhere.
#[test]
fn an_ordinary_request_has_no_identifier() {
    let upstream = Upstream::text("plain");
    let server =
        Instance::setup(EXE).http(SERVER).var("TRACE", "on").var("UP", upstream.addr()).start();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-WebSocket-Trace: {STRANGE}\r\nConnection: close\r\n\r\n"
    );
    let response = wssgate_testkit::http::exchange(server.listen(0), request);
    assert_eq!(response.status, 200);
    assert_eq!(upstream.next_request().field("x-websocket-trace"), None);
    server.wait_for_line("hops.log", "- [-] - -");
    upstream.finish();
}
