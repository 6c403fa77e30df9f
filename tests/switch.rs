//! Switching protocols through the whole program: what becomes a tunnel and what does not.

#![allow(clippy::unwrap_used)]

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use wssgate_testkit::{Conn, Handshake, Instance, Listener, Pki, Upstream, http, program, text};
use wssgate_ws::accept_key;

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

/// A configuration that withholds or replaces part of the handshake gets nginx's plain request, not
/// half a handshake.
#[test]
fn a_websocket_that_does_not_arrive_whole_is_passed_on_as_a_plain_request() {
    for lines in [
        "proxy_pass_request_headers off;",
        "proxy_method POST;",
        "proxy_set_header Sec-WebSocket-Key '';",
        "proxy_set_header Sec-WebSocket-Version 8;",
    ] {
        let config = PLAIN.replace("http://%%UP%%;", &format!("http://%%UP%%; {lines}"));
        let (server, listener) = in_front(&config);
        let mut client = Handshake::to(server.listen(0)).send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        assert_eq!(request.field("upgrade"), None, "{lines}");
        assert_eq!(request.field("connection"), None, "{lines}");
        upstream.send_raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.recv_response().status, 200, "{lines}");
    }
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

/// The page that nginx has for it, on a connection that goes on.
#[test]
fn every_refused_101_looks_like_any_other_502() {
    let page = |server: &Instance| {
        let mut client = Conn::connect(server.listen(0));
        let mut answers = Vec::new();
        for upgrade in ["", "Upgrade: foo\r\nConnection: upgrade\r\n", ""] {
            client.send_raw(format!("GET /{} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n", answers.len()));
            let response = client.recv_response();
            assert_eq!((response.status, response.field("connection")), (502, Some("keep-alive")));
            assert_eq!(response.field("content-type"), Some("text/html"));
            answers.push(response.text());
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        answers.remove(0)
    };
    const STATUS: &str = "log_format up '$uri $status $upstream_status';
        access_log %%DIR%%/up.log up;
        server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } }";
    let mut pages = Vec::new();
    for said in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nSECRET",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let upstream = Upstream::says(said);
        let server = Instance::setup(EXE).http(STATUS).var("UP", upstream.addr()).start();
        pages.push(page(&server));
        server.wait_for_line("up.log", "/2 502 502");
        if said.contains("101") {
            server.wait_for_log("the request did not ask to switch protocols");
        }
    }
    assert!(pages[0].contains("<h1>502 Bad Gateway</h1>"), "{pages:?}");
    assert!(pages.iter().all(|page| *page == pages[0]), "{pages:?}");
}

#[test]
fn what_the_client_has_to_judge_is_passed_on_with_a_line() {
    let upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\n";
    for (offered, fields, reason) in [
        ("", "Upgrade: websocket\r\n".to_owned(), "\"Connection\" header does not name"),
        ("", "Upgrade: WebSocket\r\nConnection: close\r\n".to_owned(), "\"Connection\" header"),
        ("", format!("{upgrade}Sec-WebSocket-Protocol: mqtt\r\n"), "subprotocol \"mqtt\", which"),
        ("mqtt", format!("{upgrade}Sec-WebSocket-Protocol: MQTT\r\n"), "subprotocol \"MQTT\""),
        ("a, b", format!("{upgrade}Sec-WebSocket-Protocol: a, b\r\n"), "subprotocol \"a, b\""),
        ("a", format!("{upgrade}Sec-WebSocket-Protocol:\r\n"), "subprotocol \"\", which"),
        ("", format!("{upgrade}Sec-WebSocket-Extensions: foo\r\n"), "extension \"foo\", which"),
    ] {
        let (server, listener) = in_front(PLAIN);
        let mut handshake = Handshake::to(server.listen(0));
        if !offered.is_empty() {
            handshake = handshake.field("Sec-WebSocket-Protocol", offered);
        }
        let mut client = handshake.send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        let accept = accept_key(request.field("sec-websocket-key").unwrap().as_bytes());
        let accept = String::from_utf8_lossy(&accept).into_owned();
        upstream.send_raw(format!(
            "HTTP/1.1 101 Switching Protocols\r\n{fields}Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
        let head = client.recv_response();
        assert_eq!(head.status, 101, "{fields}");
        assert_eq!(head.field("connection"), Some("upgrade"), "that hop is ours");
        for name in ["sec-websocket-protocol", "sec-websocket-extensions"] {
            let sent = fields.to_ascii_lowercase().contains(name);
            assert_eq!(head.field(name).is_some(), sent, "{fields}: it is for the client");
        }
        upstream.send([text("hello")]);
        client.expect([text("hello")]);
        client.send([text("world")]);
        upstream.expect([text("world")]);
        let line = server.wait_for_log("upstream sent an unusual 101 response: ");
        assert!(line.contains("[info]") && line.contains(reason), "{line}");
        assert_eq!(server.error_log().matches("unusual 101").count(), 1);
    }
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

/// Nobody has said that the upstream knows what to do with it.
#[test]
fn a_request_with_a_body_is_passed_on_without_a_wish_that_no_line_names() {
    for config in [
        PLAIN,
        "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%;
         proxy_set_header Upgrade $http_upgrade; } }",
        "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%;
         proxy_set_header Connection upgrade; } }",
    ] {
        let (server, listener) = in_front(config);
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
}

#[test]
fn a_body_without_a_wish_gets_none_by_lines() {
    let (server, listener) = in_front(LINES);
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    assert_eq!((request.field("upgrade"), request.field("connection")), (None, None));
    upstream.send_raw("HTTP/1.1 204 No\r\n\r\n");
    assert_eq!(client.recv_response().status, 204);
}

/// As `docker exec` does: a POST with JSON, and what is typed at once behind it.
const EXEC: &str = "POST /exec/1/start HTTP/1.1\r\nHost: docker\r\nUpgrade: tcp\r\n\
    Connection: Upgrade\r\nContent-Type: application/json\r\n";
const JSON: &str = "{\"Detach\":false,\"Tty\":true}";

fn lines(more: &str) -> String {
    LINES.replace("proxy_pass", &format!("{more} proxy_pass"))
}

#[test]
fn an_upgrade_with_a_body_sends_the_body_first_and_nothing_behind_it() {
    let len = JSON.len();
    let by_length = format!("{EXEC}Content-Length: {len}\r\n\r\n{JSON}");
    let chunked = format!("{EXEC}Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{JSON}\r\n0\r\n\r\n");
    for more in ["", "proxy_request_buffering off;"] {
        for request in [&by_length, &chunked] {
            let (server, listener) = in_front(&lines(more));
            let mut client = Conn::connect(server.listen(0));
            client.send_raw(format!("{request}ls\n"));
            let mut upstream = listener.accept();
            let received = upstream.recv_request();
            assert_eq!(received.method(), "POST");
            assert_eq!(received.field("upgrade"), Some("tcp"));
            assert_eq!(received.field("connection"), Some("upgrade"));
            assert_eq!(received.body, JSON.as_bytes());
            assert!(upstream.unread().is_empty(), "{more}: {upstream:?}");
            upstream.send_raw(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                 Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n$ ",
            );
            let head = client.recv_response();
            assert_eq!((head.status, head.field("upgrade")), (101, Some("tcp")));
            assert_eq!(client.recv_raw(2), b"$ ");
            assert_eq!(upstream.recv_raw(3), b"ls\n");
            upstream.send_raw("file\n");
            drop(upstream);
            assert_eq!(client.recv_to_end().0, b"file\n");
        }
    }
}

#[test]
fn an_upgrade_may_wait_for_100_continue() {
    for more in ["", "proxy_request_buffering off;"] {
        let (server, listener) = in_front(&lines(more));
        let mut client = Conn::connect(server.listen(0));
        let len = JSON.len();
        client.send_raw(format!("{EXEC}Content-Length: {len}\r\nExpect: 100-continue\r\n\r\n"));
        assert_eq!(client.recv_response().status, 100);
        client.send_raw(format!("{JSON}early"));
        let mut upstream = listener.accept();
        let received = upstream.recv_request();
        assert_eq!((received.field("expect"), &received.body[..]), (None, JSON.as_bytes()));
        upstream.send_raw("HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
        assert_eq!(client.recv_response().status, 101);
        assert_eq!(upstream.recv_raw(5), b"early");
    }
}

/// A client ends its message before it speaks the other protocol, however early the answer comes.
#[test]
fn a_101_in_the_middle_of_a_body_waits_for_its_end() {
    let (server, listener) = in_front(&lines("proxy_request_buffering off;"));
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(format!("{EXEC}Content-Length: 8\r\n\r\nbody"));
    let mut upstream = listener.accept();
    let head = upstream.try_recv_head().unwrap();
    assert_eq!(head.field("content-length"), Some("8"));
    assert_eq!(upstream.recv_raw(4), b"body");
    upstream.send_raw("HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nsoon");
    client.send_raw("rest");
    assert_eq!(upstream.recv_raw(4), b"rest");
    assert_eq!(client.recv_response().status, 101);
    assert_eq!(client.recv_raw(4), b"soon");
    client.send_raw("then");
    assert_eq!(upstream.recv_raw(4), b"then");
}

#[test]
fn an_upgrade_with_a_body_may_be_answered_otherwise() {
    let (server, listener) = in_front(LINES);
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(format!("{EXEC}Content-Length: {}\r\n\r\n{JSON}", JSON.len()));
    let mut upstream = listener.accept();
    upstream.recv_request();
    upstream.send_raw("HTTP/1.1 409 Conflict\r\nContent-Length: 7\r\n\r\nstopped");
    assert_eq!(client.recv_response().text(), "stopped");
    drop(upstream);
    client.send_raw("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(listener.accept().recv_request().target(), "/next");
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

/// The program with TLS in front of an upstream.
fn tls_in_front(pki: &Pki, upstream: impl Display) -> Instance {
    let leaf = pki.leaf(&["localhost"]);
    Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%% ssl; ssl_certificate %%CHAIN%%; \
             ssl_certificate_key %%KEY%%; location / { proxy_pass http://%%UP%%; } }",
        )
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .var("UP", upstream)
        .start()
}

/// By a client that may send any record: `tests/after_switch/client.py`.
#[test]
fn every_tls_record_behind_a_switch_is_answered_as_it_should_be() {
    let Some(mut python) = program::python("records behind a switch", "tlslite") else { return };
    let upstream = Upstream::builder().echo();
    let server = tls_in_front(&Pki::new(), upstream.addr());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/after_switch/client.py");
    let output =
        python.arg(script).arg(server.listen(0).to_string()).stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(server.stop().success());
}

/// Before anything is promised: a client that has its 101 cannot be told any more.
#[test]
fn a_client_whose_keys_cannot_be_taken_gets_no_101() {
    let pki = Pki::new();
    let listener = Listener::bind();
    let server = tls_in_front(&pki, listener.addr());
    let mut client = asking_with_too_many_updates(&pki, &server);
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    upstream.accept_websocket(&request, "");
    let mut answer = String::new();
    // It ends with close_notify.
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("\r\nConnection: close\r\n"));
    upstream.expect_eof();
    server.wait_for_access("\"GET /updates HTTP/1.1\" 502 ");
    server.wait_for_log(
        "the traffic secrets of the TLS connection are not known while switching protocols",
    );
    assert!(server.stop().success());
}

/// The page must not be what it stands for.
#[test]
fn a_client_whose_keys_cannot_be_taken_gets_a_page_whatever_switches() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let (first, other) = (Listener::bind(), Listener::bind());
    for recursive in ["on", "off"] {
        let server = Instance::setup(EXE)
            .http(&format!(
                "server {{ listen %%LISTEN_0%% ssl; ssl_certificate %%CHAIN%%;
                 ssl_certificate_key %%KEY%%; error_page 502 = @other;
                 recursive_error_pages {recursive};
                 location / {{ proxy_pass http://%%FIRST%%; }}
                 location @other {{ proxy_pass http://%%OTHER%%; }} }}"
            ))
            .var("CHAIN", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .var("FIRST", first.addr())
            .var("OTHER", other.addr())
            .start();
        let mut client = asking_with_too_many_updates(&pki, &server);
        for listener in [&first, &other] {
            let mut upstream = listener.accept();
            let request = upstream.recv_request();
            upstream.accept_websocket(&request, "");
            upstream.expect_eof();
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("502 Bad Gateway"));
        server.wait_for_access("\"GET /updates HTTP/1.1\" 502 ");
        server.wait_for_log("the upstream of the error page switched protocols");
    }
}

/// A client that asks for a WebSocket, in a request with more updates of its keys than are followed.
fn asking_with_too_many_updates(
    pki: &Pki,
    server: &Instance,
) -> StreamOwned<ClientConnection, TcpStream> {
    let tls = ClientConnection::new(pki.client_config(), "localhost".try_into().unwrap()).unwrap();
    let mut client = StreamOwned::new(tls, TcpStream::connect(server.listen(0)).unwrap());
    client
        .write_all(
            b"GET /updates HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
              Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Long: ",
        )
        .unwrap();
    // More than are followed.
    for _ in 0..4200 {
        client.conn.refresh_traffic_keys().unwrap();
        client.write_all(b"x").unwrap();
    }
    client.write_all(b"\r\n\r\n").unwrap();
    client
}
