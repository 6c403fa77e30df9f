//! What is demanded and passed on of opening handshakes: `websocket_handshake`, `websocket_protocol` and
//! `websocket_extensions`.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Handshake, Instance, Listener, Upstream, http, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn start(text: &str, up: impl std::fmt::Display) -> Instance {
    Instance::setup(EXE).http(text).var("UP", up).start()
}

const STRICT: &str = "
    error_log error.log info;
    websocket_handshake strict;
    server {
        listen %%LISTEN_0%%;
        location / { proxy_pass http://%%UP%%; }
        location /pass {
            websocket_handshake pass;
            proxy_pass http://%%UP%%;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
        }
        location /page { error_page 426 /old.html; proxy_pass http://%%UP%%; }
        location = /old.html { return 200 \"too old\"; }
    }";

const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";

fn ask(server: &Instance, path: &str, line: &str, fields: &[&str]) -> http::Response {
    let [method, version] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let fields = fields.concat();
    http::exchange(
        server.listen(0),
        format!("{method} {path} {version}\r\nHost: a\r\n{fields}\r\n"),
    )
}

#[test]
fn other_versions_learn_which_one_is_spoken() {
    let upstream = Upstream::echo();
    let server = start(STRICT, upstream.addr());
    for version in ["", "Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 13, 8\r\n"] {
        let response =
            ask(&server, "/", "GET HTTP/1.1", &[UPGRADE, KEY, version, "Connection: close\r\n"]);
        assert_eq!(response.status, 426, "{version}");
        assert_eq!(response.field("sec-websocket-version"), Some("13"), "{version}");
        assert_eq!(response.field("upgrade"), Some("websocket"), "{version}");
        assert_eq!(response.field("connection"), Some("close, upgrade"), "{version}");
    }
    server.wait_for_log("client sent an invalid WebSocket handshake: the \"Sec-WebSocket-Version\" header is not 13");
    let page = ask(&server, "/page", "GET HTTP/1.1", &[UPGRADE, KEY, "Connection: close\r\n"]);
    assert_eq!((page.status, page.text().as_str()), (426, "too old"));
    assert_eq!(page.field("sec-websocket-version"), Some("13"));
    assert_eq!(upstream.connections(), 0);
}

/// The connection goes on, so that the client can ask again as it is told.
#[test]
fn who_was_told_the_version_may_use_the_connection_again() {
    let upstream = Upstream::echo();
    let server = start(STRICT, upstream.addr());
    let mut client = wssgate_testkit::Conn::connect(server.listen(0));
    client.send_raw(format!("GET / HTTP/1.1\r\nHost: a\r\n{UPGRADE}{KEY}\r\n"));
    let response = client.recv_response();
    assert_eq!((response.status, response.field("connection")), (426, Some("keep-alive, upgrade")));
    client.send_raw(format!("GET / HTTP/1.1\r\nHost: a\r\n{UPGRADE}{KEY}{VERSION}\r\n"));
    assert_eq!(client.recv_response().status, 101);
}

#[test]
fn what_is_no_handshake_of_rfc_6455_is_refused() {
    let upstream = Upstream::echo();
    let server = start(STRICT, upstream.addr());
    let close = "Connection: close\r\n";
    let short = "Sec-WebSocket-Key: c2hvcnQ=\r\n";
    for (line, fields, reason) in [
        ("GET HTTP/1.1", &[UPGRADE, VERSION, close][..], "\"Sec-WebSocket-Key\" header is missing"),
        ("GET HTTP/1.1", &[UPGRADE, VERSION, short, close], "is not 16 bytes in base64"),
        (
            "GET HTTP/1.1",
            &[UPGRADE, VERSION, KEY, KEY, close],
            "more than one \"Sec-WebSocket-Key\"",
        ),
        (
            "POST HTTP/1.1",
            &[UPGRADE, VERSION, KEY, close],
            "method of a WebSocket request must be GET",
        ),
        ("GET HTTP/1.0", &[UPGRADE, VERSION, KEY, close], "a WebSocket request needs HTTP/1.1"),
        (
            "GET HTTP/1.1",
            &["Upgrade: websocket\r\n", VERSION, KEY, close],
            "does not name \"upgrade\"",
        ),
    ] {
        assert_eq!(ask(&server, "/", line, fields).status, 400, "{fields:?}");
        server.wait_for_log(reason);
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn good_handshakes_and_other_requests_are_not_held_up() {
    let upstream = Upstream::echo();
    let server = start(STRICT, upstream.addr());
    let mut client = Handshake::to(server.listen(0)).open();
    client.send([text("hello")]);
    client.expect([text("hello")]);
    let listener = Listener::bind();
    let server = start(STRICT, listener.addr());
    for upgrade in ["", "Upgrade: h2c\r\nConnection: upgrade\r\n"] {
        let mut client = wssgate_testkit::Conn::connect(server.listen(0));
        client.send_raw(format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n"));
        let mut upstream = listener.accept();
        upstream.recv_request();
        upstream.send_raw("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(client.recv_response().status, 204);
    }
}

/// Drafts before RFC 6455 go through as they do with nginx, for the two lines pass them on.
#[test]
fn an_old_client_is_left_to_the_upstream_by_default() {
    let listener = Listener::bind();
    let server = start(STRICT, listener.addr());
    let mut client = wssgate_testkit::Conn::connect(server.listen(0));
    client.send_raw(format!(
        "GET /pass HTTP/1.1\r\nHost: a\r\n{UPGRADE}Sec-WebSocket-Version: 8\r\n{KEY}\r\n"
    ));
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    assert_eq!(request.field("sec-websocket-version"), Some("8"));
    upstream.accept_websocket(&request, "");
    assert_eq!(client.recv_response().status, 101);
}

const OFFERS: &str = "
    error_log error.log info;
    map $websocket_protocol $app {
        ~\\bgraphql-ws\\b graphql;
        default        chat;
    }
    server {
        listen %%LISTEN_0%%;
        websocket_protocol graphql-ws chat.v2;
        location / { proxy_pass http://%%UP%%; proxy_set_header X-Offered <$websocket_protocol>; }
        location /any { websocket_protocol off; proxy_pass http://%%UP%%; proxy_set_header X-Offered <$websocket_protocol>; }
        location /line {
            proxy_pass http://%%UP%%;
            proxy_set_header Sec-WebSocket-Protocol $http_sec_websocket_protocol;
            proxy_set_header X-Offered <$websocket_protocol>;
        }
        location /routed { proxy_pass http://%%UP%%/$app; proxy_set_header X-Offered <$websocket_protocol>; }
    }";

#[test]
fn only_listed_subprotocols_are_offered_to_the_upstream() {
    for (path, fields, passed, offered) in [
        ("/", &["graphql-ws"][..], Some("graphql-ws"), "<graphql-ws>"),
        ("/", &["soap, graphql-ws ,chat.v2"], Some("graphql-ws, chat.v2"), "<graphql-ws, chat.v2>"),
        ("/", &["chat.v2", "soap"], Some("chat.v2"), "<chat.v2>"),
        ("/", &["chat.v2,graphql-ws"], Some("chat.v2,graphql-ws"), "<chat.v2, graphql-ws>"),
        ("/line", &["soap, chat.v2"], Some("chat.v2"), "<chat.v2>"),
        ("/any", &["soap,chat.v2"], Some("soap,chat.v2"), "<soap, chat.v2>"),
        ("/", &[], None, "<>"),
    ] {
        let listener = Listener::bind();
        let server = start(OFFERS, listener.addr());
        let handshake = Handshake::to(server.listen(0)).path(path);
        let handshake =
            fields.iter().fold(handshake, |all, field| all.field("Sec-WebSocket-Protocol", field));
        let mut client = handshake.send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        assert_eq!(request.field("sec-websocket-protocol"), passed, "{path} {fields:?}");
        assert_eq!(request.field("x-offered"), Some(offered), "{path} {fields:?}");
        upstream.accept_websocket(&request, "");
        assert_eq!(client.recv_response().status, 101);
    }
}

#[test]
fn a_subprotocol_chooses_where_a_websocket_goes() {
    let listener = Listener::bind();
    let server = start(OFFERS, listener.addr());
    for (offered, target) in [("chat.v2", "/chat"), ("chat.v2, graphql-ws", "/graphql")] {
        let _client = Handshake::to(server.listen(0))
            .path("/routed")
            .field("Sec-WebSocket-Protocol", offered)
            .send();
        assert_eq!(listener.accept().recv_request().target(), target, "{offered}");
    }
}

#[test]
fn who_speaks_nothing_that_is_listed_is_refused() {
    let upstream = Upstream::echo();
    let server = start(OFFERS, upstream.addr());
    for offered in ["soap", "GraphQL-WS, soap"] {
        let handshake = Handshake::to(server.listen(0)).field("Sec-WebSocket-Protocol", offered);
        assert_eq!(handshake.answer().1.status, 400, "{offered}");
    }
    server.wait_for_log(
        "client offered no subprotocol that \"websocket_protocol\" lists: \"GraphQL-WS, soap\"",
    );
    assert_eq!(upstream.connections(), 0);
    Handshake::to(server.listen(0)).path("/any").field("Sec-WebSocket-Protocol", "soap").open();
}

#[test]
fn an_upstream_may_not_select_what_is_not_listed() {
    for (path, selected, status) in [
        ("/", "Sec-WebSocket-Protocol: soap\r\n", 502),
        ("/", "Sec-WebSocket-Protocol: chat.v2, soap\r\n", 502),
        ("/", "Sec-WebSocket-Protocol: chat.v2\r\n", 101),
        ("/", "Sec-WebSocket-Protocol: graphql-ws\r\n", 101),
        ("/", "Sec-WebSocket-Protocol: \r\n", 101),
        ("/any", "Sec-WebSocket-Protocol: soap\r\n", 101),
    ] {
        let listener = Listener::bind();
        let server = start(OFFERS, listener.addr());
        let mut client = Handshake::to(server.listen(0))
            .path(path)
            .field("Sec-WebSocket-Protocol", "chat.v2")
            .send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        upstream.accept_websocket(&request, selected);
        assert_eq!(client.recv_response().status, status, "{selected}");
        if status == 502 {
            server.wait_for_log(
                "upstream sent an invalid 101 response: it selects the subprotocol \"soap\", which \
                 \"websocket_protocol\" does not list while reading response header from upstream",
            );
        }
    }
}

const EXTENSIONS: &str = "
    error_log error.log info;
    server {
        listen %%LISTEN_0%%;
        location / { proxy_pass http://%%UP%%; }
        location /strip { websocket_extensions strip; proxy_pass http://%%UP%%; }
        location /some { websocket_extensions permessage-deflate x-mux; proxy_pass http://%%UP%%; }
    }";

#[test]
fn extensions_are_taken_out_of_the_offer() {
    const DEFLATE: &str = "permessage-deflate; client_max_window_bits";
    let both = format!("x-other; a=\"1,2\", {DEFLATE}, x-mux;q=1");
    let some = format!("{DEFLATE}, x-mux;q=1");
    for (path, fields, passed) in [
        ("/", &[&both[..]][..], Some(&both[..])),
        ("/strip", &[&both], None),
        ("/some", &[&both], Some(&some)),
        ("/some", &[DEFLATE], Some(DEFLATE)),
        ("/some", &["x-other", "Permessage-Deflate"], Some("Permessage-Deflate")),
        ("/some", &["x-other"], None),
    ] {
        let listener = Listener::bind();
        let server = start(EXTENSIONS, listener.addr());
        let handshake = Handshake::to(server.listen(0)).path(path);
        let handshake = fields
            .iter()
            .fold(handshake, |all, field| all.field("Sec-WebSocket-Extensions", field));
        let mut client = handshake.send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        assert_eq!(request.field("sec-websocket-extensions"), passed, "{path} {fields:?}");
        upstream.accept_websocket(&request, "");
        assert_eq!(client.recv_response().status, 101);
        client.send([text("hello")]);
        upstream.expect([text("hello")]);
    }
}

/// As everywhere the client has to judge what was not offered: it passes, with a line in the log.
#[test]
fn an_extension_that_was_taken_out_is_odd_in_a_response() {
    let listener = Listener::bind();
    let server = start(EXTENSIONS, listener.addr());
    let mut client = Handshake::to(server.listen(0))
        .path("/strip")
        .field("Sec-WebSocket-Extensions", "permessage-deflate")
        .send();
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    upstream.accept_websocket(&request, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    assert_eq!(client.recv_response().status, 101);
    server.wait_for_log(
        "it uses the extension \"permessage-deflate\", which the client did not offer",
    );
}
