//! The PROXY protocol through the whole program: headers from balancers, and headers to upstreams.
//! HAProxy speaks it with us where it is installed.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use wssgate_testkit::{
    Conn, Handshake, Haproxy, Instance, Listener, Pki, Upstream, free_addr, http, text,
};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xc0\0\x02\x01\xc0\0\x02\x02\0\x7b\x16\x2e\
                    \x05\0\x05UNIQQ";
const TOLD: &str = "192.0.2.1 123 192.0.2.2 5678";

/// Says what it knows of the client.
const TELLING: &str = "
    client_header_timeout 1s;
    add_header X-Told '$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr \
        $proxy_protocol_server_port $proxy_protocol_tlv_unique_id';
    add_header X-Is '$remote_addr $remote_port $scheme';
    set_real_ip_from 0.0.0.0/0;
    set_real_ip_from ::/0;
    set_real_ip_from unix:;
    real_ip_header proxy_protocol;
    return 204;";

fn ask(client: &mut Conn) -> [String; 2] {
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.recv_response();
    ["x-told", "x-is"].map(|name| answer.field(name).unwrap_or_default().to_owned())
}

fn telling() -> Instance {
    Instance::setup(EXE)
        .http(&format!("server {{ listen %%LISTEN_0%% proxy_protocol; {TELLING} }}"))
        .start()
}

#[test]
fn a_header_may_come_in_any_pieces_and_stands_once_before_all_requests() {
    let server = telling();
    let known = "192.0.2.1 123 http";
    for (header, told) in [(V1, TOLD.to_owned()), (V2, format!("{TOLD} UNIQQ"))] {
        for piece in [1, 7, header.len()] {
            let mut client = Conn::connect(server.listen(0));
            header.chunks(piece).for_each(|piece| client.send_raw(piece));
            assert_eq!(ask(&mut client), [told.as_str(), known]);
            assert_eq!(ask(&mut client), [told.as_str(), known], "the second request");
        }
        // In one packet with the request.
        let mut client = Conn::connect(server.listen(0));
        client.send_raw([header, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        assert_eq!(client.recv_response().field("x-told"), Some(told.as_str()));
    }
    for nobody in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = Conn::connect(server.listen(0));
        client.send_raw(nobody);
        let [told, is] = ask(&mut client);
        assert_eq!(told.trim(), "");
        assert!(is.starts_with("127.0.0.1 "), "{is}");
    }
}

#[test]
fn what_does_not_begin_with_a_header_is_closed_and_logged() {
    let server = telling();
    for (sent, logged) in [
        ("GET / HTTP/1.1\r\n\r\n", "broken header: \"GET / HTTP/1.1\""),
        ("PROXY TCP4 192.0.2.1\r\n", "broken header: \"PROXY TCP4 192.0.2.1\""),
        ("\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", "unknown PROXY protocol version: 3"),
        ("\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\0", "header is too large"),
    ] {
        let mut client = Conn::connect(server.listen(0));
        client.send_raw(sent);
        assert_eq!(client.recv_to_end().0, b"", "{sent:?}");
        let line = server.wait_for_log(logged);
        let place = "while reading PROXY protocol, client: 127.0.0.1, server:";
        let place = format!(" {place} {}", server.listen(0));
        assert!(line.contains("[error]") && line.ends_with(&place), "{line}");
    }
}

#[test]
fn a_header_that_never_ends_is_no_header() {
    let server = telling();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("PROXY TCP4 192.0.2.77");
    client.shutdown_write().unwrap();
    assert_eq!(client.recv_to_end().0, b"");
    server.wait_for_log("broken header: \"PROXY TCP4 192.0.2.77\"");
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("PROXY TC");
    assert_eq!(client.recv_to_end().0, b"", "client_header_timeout ends it");
    let line = server.wait_for_log("client timed out");
    assert!(line.contains("[info]") && line.contains("while reading PROXY protocol"), "{line}");
    drop(Conn::connect(server.listen(0)));
    let line = server.wait_for_log("client closed connection while reading PROXY protocol");
    assert!(line.contains("[info]"), "{line}");
}

#[test]
fn a_header_stands_before_tls_and_on_every_kind_of_socket() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let setup = Instance::setup(EXE);
    let socket = setup.dir().join("s");
    let server = setup
        .http(&format!(
            "ssl_certificate %%CERT%%; ssl_certificate_key %%KEY%%;
             server {{ listen %%LISTEN_0%% ssl proxy_protocol; {TELLING} }}
             server {{ listen unix:%%SOCKET%% proxy_protocol; {TELLING} }}"
        ))
        .var("SOCKET", socket.display())
        .var("CERT", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(V1);
    let mut client = client.try_start_tls(pki.client_config(), "a.test").unwrap();
    assert_eq!(ask(&mut client), [TOLD, "192.0.2.1 123 https"]);
    let mut client = Conn::connect(&*socket);
    client.send_raw(V1);
    assert_eq!(ask(&mut client), [TOLD, "192.0.2.1 123 http"]);
    // A plain request behind the header gets the answer of a port for TLS.
    let mut client = Conn::connect(server.listen(0));
    client.send_raw([V1, b"GET / HTTP/1.0\r\n\r\n"].concat());
    assert_eq!(client.recv_response().status, 400);
}

#[test]
fn a_specific_address_may_want_a_header_where_its_wildcard_wants_none() {
    let port = free_addr().port();
    let _server = Instance::setup(EXE)
        .http(&format!(
            "server {{ listen 127.0.0.2:{port} proxy_protocol; {TELLING} }}
             server {{ listen *:{port}; return 204; }}"
        ))
        .start();
    let mut client = Conn::connect(SocketAddr::from(([127, 0, 0, 2], port)));
    client.send_raw(V1);
    assert_eq!(ask(&mut client)[1], "192.0.2.1 123 http");
    let plain = http::get(SocketAddr::from(([127, 0, 0, 1], port)), "a", "/");
    assert_eq!(plain.status, 204);
}

/// In front of a listener that the test speaks for.
fn in_front(lines: &str) -> (Instance, Listener) {
    let listener = Listener::bind();
    let server = Instance::setup(EXE)
        .http(
            "set_real_ip_from 127.0.0.0/8; real_ip_header X-From;
             upstream app { server %%UP%%; keepalive 8; }
             server { listen %%LISTEN_0%%; %%LINES%% }",
        )
        .var("UP", listener.addr())
        .var("LINES", lines)
        .start();
    (server, listener)
}

fn request(client: &mut Conn, path: &str, from: &str) {
    client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-From: {from}\r\n\r\n"));
}

#[test]
fn an_upstream_is_told_the_client_first_and_its_connection_serves_nobody_else() {
    let (server, listener) = in_front("proxy_protocol on; location / { proxy_pass http://app; }");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (ip, port) = (server.listen(0).ip(), server.listen(0).port());
    let mut client = Conn::connect(server.listen(0));
    request(&mut client, "/", "192.0.2.1");
    let mut upstream = listener.accept();
    let told = upstream.try_recv_line().unwrap();
    assert_eq!(told, format!("PROXY TCP4 192.0.2.1 {ip} 0 {port}"));
    upstream.recv_request();
    upstream.send_raw(answer);
    assert_eq!(client.recv_response().text(), "ok");
    // The same client again: the same connection, and no second header.
    request(&mut client, "/", "192.0.2.1");
    assert_eq!(upstream.recv_request().field("x-from"), Some("192.0.2.1"));
    upstream.send_raw(answer);
    assert_eq!(client.recv_response().text(), "ok");
    // Another one, even on the same connection of a proxy: a connection of its own.
    request(&mut client, "/", "192.0.2.2:99");
    let mut other = listener.accept();
    let told = other.try_recv_line().unwrap();
    assert_eq!(told, format!("PROXY TCP4 192.0.2.2 {ip} 99 {port}"));
    other.recv_request();
    other.send_raw(answer);
    assert_eq!(client.recv_response().text(), "ok");
    // An IPv6 client and an IPv4 server have to be told in one family.
    request(&mut client, "/", "2001:db8::7");
    let told = listener.accept().try_recv_line().unwrap();
    assert_eq!(told, format!("PROXY TCP6 2001:db8::7 ::ffff:{ip} 0 {port}"));
}

#[test]
fn a_header_to_an_upstream_stands_before_tls_and_before_an_upgrade() {
    let (server, listener) = in_front(
        "location / { proxy_protocol on; proxy_pass http://app; }
         location /tls { proxy_protocol v2; proxy_pass https://app; }",
    );
    let mut client = Handshake::to(server.listen(0)).send();
    let mut upstream = listener.accept();
    let line = upstream.try_recv_line().unwrap();
    assert!(line.starts_with("PROXY TCP4 127.0.0.1 "), "{line}");
    let asked = upstream.recv_request();
    upstream.accept_websocket(&asked, "");
    assert_eq!(client.recv_response().status, 101);
    client.send([text("hello")]);
    upstream.expect([text("hello")]);

    let mut client = Conn::connect(server.listen(0));
    request(&mut client, "/tls", "192.0.2.1:5");
    let mut upstream = listener.accept();
    let header = upstream.recv_raw(16 + 12 + 7);
    assert_eq!(header[..12], V2[..12]);
    assert_eq!(header[16..20], [192, 0, 2, 1]);
    assert_eq!(upstream.recv_raw(1), [22], "the ClientHello follows");
}

#[test]
fn haproxy_tells_us_the_client() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let both = [&leaf.fullchain, &leaf.key].map(|path| std::fs::read(path).unwrap()).concat();
    let pem = pki.dir().join("both.pem");
    std::fs::write(&pem, both).unwrap();
    let server = Instance::setup(EXE)
        .http(
            "server {
                 listen %%LISTEN_0%% proxy_protocol;
                 set_real_ip_from 127.0.0.0/8;
                 real_ip_header proxy_protocol;
                 add_header X-Seen '$remote_addr:$remote_port $proxy_protocol_server_port \
                     $proxy_protocol_tlv_ssl_version $proxy_protocol_tlv_authority';
                 return 204;
             }",
        )
        .start();
    let (up, pem) = (server.listen(0), pem.display().to_string());
    for (how, facts) in [
        ("send-proxy", ""),
        ("send-proxy-v2 proxy-v2-options crc32c", ""),
        ("send-proxy-v2-ssl proxy-v2-options authority", "TLSv1.3 a.test"),
    ] {
        let front = free_addr();
        let conf = format!(
            "listen l\n bind {front} ssl crt {pem}\n server s {up} {how} check inter 100ms\n"
        );
        let Some(_haproxy) = Haproxy::start("with HAProxy", front, "http", &conf) else { return };
        let client = Conn::connect(front);
        let source = client.tcp().unwrap().local_addr().unwrap();
        let mut client = client.try_start_tls(pki.client_config(), "a.test").unwrap();
        client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.recv_response();
        let expected = format!("{source} {} {facts}", front.port());
        let seen = answer.field("x-seen").unwrap_or_default();
        assert_eq!(seen.trim(), expected.trim(), "{how}");
    }
    let log = server.error_log();
    assert!(!log.contains("broken header"), "its health checks tell of nobody: {log}");
}

#[test]
fn haproxy_is_told_the_client_by_us() {
    let app = Upstream::text("ok");
    let front = free_addr();
    let conf = format!(
        "listen l\n bind {front} accept-proxy\n http-request set-header X-Seen \
         %[src]:%[src_port]/%[fc_pp_authority]/%[dst_port]\n server s {}\n",
        app.addr()
    );
    let Some(_haproxy) = Haproxy::start("with HAProxy", front, "http", &conf) else { return };
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    for (version, authority) in [("on", ""), ("v2", "a.test")] {
        let server = Instance::setup(EXE)
            .http(
                "server {
                     listen %%LISTEN_0%% ssl;
                     ssl_certificate %%CERT%%; ssl_certificate_key %%KEY%%;
                     location / { proxy_pass http://%%UP%%; proxy_protocol %%VERSION%%; }
                 }",
            )
            .var("CERT", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .var("UP", front)
            .var("VERSION", version)
            .start();
        let client = Conn::connect(server.listen(0));
        let source = client.tcp().unwrap().local_addr().unwrap();
        let mut client = client.try_start_tls(pki.client_config(), "a.test").unwrap();
        client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.recv_response().text(), "ok");
        let expected = format!("{source}/{authority}/{}", server.listen(0).port());
        assert_eq!(app.next_request().field("x-seen"), Some(expected.as_str()), "{version}");
    }
}
