//! `set_real_ip_from` through the whole program: who is believed, and where the address then counts.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, Handshake, Instance, Listener, Upstream, http, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

fn get(server: &Instance, path: &str, fields: &[&str]) -> http::Response {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.recv_response()
}

const TRUSTING: &str = "
    server {
        listen %%LISTEN_0%%;
        set_real_ip_from 127.0.0.0/8;
        set_real_ip_from 10.0.1.0/24;
        set_real_ip_from 2001:db8::/32;
        set_real_ip_from unix:;
        real_ip_header X-Forwarded-For;
        location / { try_files /none /shown$uri; }
        location /recursive { real_ip_recursive on; try_files /none /shown$uri; }
        location /field { real_ip_header X-Custom; try_files /none /shown$uri; }
        location /nobody { set_real_ip_from 192.0.2.7; try_files /none /shown$uri; }
        location /denied { deny 192.0.2.1; try_files /none /shown$uri; }
        location /shown {
            add_header X-Seen '$remote_addr|$remote_port|$realip_remote_addr' always;
            return 204;
        }
        location /rewritten { real_ip_header X-Custom; return 200 $remote_addr; }
    }";

/// Path, fields, and what is seen: address and, if it came along, port.
const CASES: &[(&str, &[&str], &str)] = &[
    ("/", &[], "127.0.0.1 PORT"),
    ("/", &["X-Forwarded-For: 192.0.2.1"], "192.0.2.1 "),
    ("/", &["X-Forwarded-For: 192.0.2.1:77"], "192.0.2.1 77"),
    ("/", &["X-Forwarded-For: [2001:db9::1]:77"], "2001:db9::1 77"),
    ("/", &["X-Forwarded-For: 192.0.2.1, 10.0.1.1"], "10.0.1.1 "),
    ("/", &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.0.1.1, 10.0.1.2"], "10.0.1.2 "),
    ("/", &["X-Forwarded-For: nonsense"], "127.0.0.1 PORT"),
    ("/", &["X-Forwarded-For: 192.0.2.1, unknown"], "127.0.0.1 PORT"),
    ("/", &["X-Real-IP: 192.0.2.1"], "127.0.0.1 PORT"),
    ("/recursive", &["X-Forwarded-For: 192.0.2.1, 10.0.1.1, 10.0.1.2"], "10.0.1.2 "),
    ("/field", &["X-Custom: 192.0.2.1"], "192.0.2.1 "),
    ("/field", &["X-Custom: 192.0.2.1", "X-Custom: 192.0.2.2"], "192.0.2.1 "),
    // The server level has asked its own header first.
    ("/field", &["X-Forwarded-For: 192.0.2.1", "X-Custom: 192.0.2.2"], "192.0.2.1 "),
    ("/nobody", &["X-Forwarded-For: 192.0.2.1"], "192.0.2.1 "),
    ("/denied", &["X-Forwarded-For: 192.0.2.1"], "403"),
    ("/denied", &["X-Forwarded-For: 192.0.2.2"], "192.0.2.2 "),
    // Rewrites come before the location is asked.
    ("/rewritten", &["X-Custom: 192.0.2.1"], "127.0.0.1"),
];

#[test]
fn whom_to_believe_is_decided_as_by_nginx() {
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe).http(TRUSTING).start();
        for (path, fields, expected) in CASES {
            let answer = get(&server, path, fields);
            let seen = match answer.field("x-seen") {
                Some(seen) => {
                    let [address, port, peer] = seen.split('|').collect::<Vec<_>>()[..] else {
                        panic!("{seen}")
                    };
                    assert_eq!(peer, "127.0.0.1");
                    // That of the connection is another one every time.
                    let port = if address == peer && !port.is_empty() { "PORT" } else { port };
                    format!("{address} {port}")
                }
                None if answer.status == 200 => answer.text(),
                None => answer.status.to_string(),
            };
            assert_eq!(seen, *expected, "{exe}: {path} {fields:?}");
        }
    }
}

#[test]
fn only_the_recursive_way_passes_trusted_hops() {
    let server = Instance::setup(WSSGATE)
        .http(&TRUSTING.replace(
            "real_ip_header X-Forwarded-For;",
            "real_ip_header X-Forwarded-For; real_ip_recursive on;",
        ))
        .start();
    for (sent, expected) in [
        ("192.0.2.1, 10.0.1.1, 10.0.1.2", "192.0.2.1|"),
        ("192.0.2.1, 192.0.2.9, 2001:db8::5", "192.0.2.9|"),
    ] {
        let answer = get(&server, "/", &[&format!("X-Forwarded-For: {sent}")]);
        let seen = answer.field("x-seen").unwrap();
        assert!(seen.starts_with(expected), "{seen}");
    }
}

#[test]
fn the_address_counts_in_rules_requests_logs_and_subrequests() {
    let (app, login) = (Listener::bind(), Upstream::text("welcome"));
    let setup = Instance::setup(WSSGATE);
    let dir = setup.dir().display().to_string();
    let server = setup
        .http(
            "log_format seen '$status $remote_addr $realip_remote_addr $request';
             access_log %%DIR%%/seen.log seen;
             server {
                 listen %%LISTEN_0%%;
                 set_real_ip_from 127.0.0.0/8;
                 location / {
                     allow 192.0.2.0/24;
                     deny all;
                     auth_request /auth;
                     proxy_pass http://%%APP%%;
                     proxy_set_header X-Real-IP $remote_addr;
                     proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                 }
                 location = /auth {
                     internal;
                     proxy_pass http://%%LOGIN%%/;
                     proxy_set_header X-Asked-For $remote_addr;
                 }
             }",
        )
        .var("DIR", dir)
        .var("APP", app.addr())
        .var("LOGIN", login.addr())
        .start();
    let stranger = get(&server, "/", &["X-Real-IP: 198.51.100.1"]);
    assert_eq!(stranger.status, 403);
    let refused = server.wait_for_log("access forbidden by rule");
    assert!(refused.contains("client: 198.51.100.1,"), "{refused}");

    let handshake = Handshake::to(server.listen(0))
        .path("/chat")
        .field("X-Real-IP", "192.0.2.5")
        .field("X-Forwarded-For", "203.0.113.9");
    let mut client = handshake.send();
    let mut upstream = app.accept();
    let passed = upstream.recv_request();
    assert_eq!(passed.field("x-real-ip"), Some("192.0.2.5"));
    assert_eq!(passed.field("x-forwarded-for"), Some("203.0.113.9, 192.0.2.5"));
    assert_eq!(login.next_request().field("x-asked-for"), Some("192.0.2.5"));
    upstream.accept_websocket(&passed, "");
    assert_eq!(client.recv_response().status, 101);
    drop((client, upstream));
    server.wait_for_line("seen.log", "101 192.0.2.5 127.0.0.1 GET /chat");
}

#[test]
fn everybody_on_a_unix_socket_is_believed_if_it_is_said() {
    let setup = Instance::setup(WSSGATE);
    let socket = setup.dir().join("s");
    let _server = setup
        .http(
            "server {
                 listen unix:%%SOCKET%%;
                 location /yes { set_real_ip_from unix:; try_files /none /shown; }
                 location /no { set_real_ip_from 0.0.0.0/0; try_files /none /shown; }
                 location /shown { add_header X-Seen $remote_addr; return 204; }
             }",
        )
        .var("SOCKET", socket.display())
        .start();
    for (path, expected) in [("/yes", "192.0.2.1"), ("/no", "unix:")] {
        let mut client = Conn::connect(&*socket);
        client.send_raw(format!("GET {path} HTTP/1.0\r\nX-Real-IP: 192.0.2.1\r\n\r\n"));
        assert_eq!(client.recv_response().field("x-seen"), Some(expected), "{path}");
    }
}
