//! Clients that belong to one server: long polling and the WebSocket that follows it, as Socket.IO
//! has them, must reach the same one.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use wssgate_testkit::http::exchange;
use wssgate_testkit::{Conn, Handshake, Instance, Response, Upstream, text, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server that says its name to both, and gives every new client a session of its own.
fn app(name: &'static str) -> Upstream {
    let sessions = AtomicUsize::new(0);
    Upstream::serve(move |conn| {
        while let Ok(Some(request)) = conn.try_recv_request() {
            if request.field("Upgrade").is_some() {
                conn.accept_websocket(&request, "");
                conn.send([text(name)]);
                return conn.echo();
            }
            let cookie = match request.field("Cookie").is_some_and(|line| line.contains("io=")) {
                true => String::new(),
                false => {
                    let number = sessions.fetch_add(1, Ordering::Relaxed);
                    format!("Set-Cookie: io={name}{number}; path=/\r\n")
                }
            };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{cookie}\r\n{name}");
            if conn.try_send_raw(answer).is_err() {
                return;
            }
        }
    })
}

/// The program with four workers in front of three servers of one group.
fn start(sticky: &str, servers: &[Upstream; 3]) -> Instance {
    let mut setup = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 4;",
            "upstream app { server %%A%% route=a; server %%B%% route=b; server %%C%% route=c;
                 keepalive 4; %%STICKY%%; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("STICKY", sticky);
    for (name, server) in ["A", "B", "C"].into_iter().zip(servers) {
        setup = setup.var(name, server.addr());
    }
    setup.start()
}

fn poll(server: &Instance, cookie: &str) -> Response {
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    let request =
        format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n{cookie}\r\n");
    exchange(server.listen(0), request)
}

/// The cookie that a response sets under this name, as a browser sends it back.
fn cookie(response: &Response, name: &str) -> Option<String> {
    let lines = response.head.all("Set-Cookie");
    let mut pairs = lines.filter_map(|line| line.split(';').next());
    pairs.find(|pair| pair.starts_with(&format!("{name}="))).map(str::to_owned)
}

/// Opens a WebSocket with a cookie and expects it to be at that server.
fn expect_socket(server: &Instance, cookie: &str, name: &str) -> Conn {
    let mut socket = Handshake::to(server.listen(0)).field("Cookie", cookie).open();
    socket.expect([text(name)]);
    socket
}

fn reload(server: &Instance, times: usize) {
    server.signal("HUP");
    wait_until("the reload", || server.error_log().matches("reconfigured").count() == times);
}

#[test]
fn polling_and_its_websocket_reach_the_server_of_the_cookie() {
    let servers = [app("a"), app("b"), app("c")];
    let mut server = start("sticky cookie srv path=/ httponly", &servers);
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let first = poll(&server, "");
            let cookie = cookie(&first, "srv").unwrap();
            assert_eq!(cookie, format!("srv={}", first.text()));
            (cookie, first.text())
        })
        .collect();
    for (cookie, name) in &clients {
        for _ in 0..3 {
            assert_eq!(poll(&server, cookie).text(), *name);
        }
        let (_, head) = Handshake::to(server.listen(0)).field("Cookie", cookie).open_with_head();
        assert_eq!(head.field("Set-Cookie"), Some(&*format!("{cookie}; httponly; path=/")));
        expect_socket(&server, cookie, name);
    }
    // One that leaves the group lets go of its clients, which get another cookie.
    server.rewrite_http(
        "upstream app { server %%A%% route=a; server %%C%% route=c; %%STICKY%%; }
         server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
    );
    reload(&server, 1);
    assert_eq!(poll(&server, "srv=c").text(), "c");
    let moved = poll(&server, "srv=b");
    assert_eq!(cookie(&moved, "srv").unwrap(), format!("srv={}", moved.text()));
}

#[test]
fn a_session_is_found_by_all_workers_and_after_a_reload() {
    let servers = [app("a"), app("b"), app("c")];
    let server = start(
        "sticky learn create=$upstream_cookie_io lookup=$cookie_io zone=sessions:64k",
        &servers,
    );
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let first = poll(&server, "");
            (cookie(&first, "io").unwrap(), first.text())
        })
        .collect();
    for round in 0..3 {
        for (cookie, name) in &clients {
            assert_eq!(poll(&server, cookie).text(), *name, "round {round}");
            expect_socket(&server, cookie, name);
        }
        reload(&server, round + 1);
    }
}

/// nginx learns at the end of a tunnel, hours later.
#[test]
fn a_websocket_without_polling_begins_a_session_at_once() {
    let servers = [app("a"), app("b"), app("c")];
    let server = start("sticky learn create=$arg_sid lookup=$arg_sid zone=sessions:64k", &servers);
    let open = |sid: &str| {
        let mut socket = Handshake::to(server.listen(0)).path(&format!("/?sid={sid}")).open();
        let name = socket.recv().payload;
        (socket, name)
    };
    let sockets: Vec<_> = (0..6).map(|sid| (sid, open(&sid.to_string()))).collect();
    for (sid, (_, name)) in &sockets {
        for _ in 0..2 {
            assert_eq!(open(&sid.to_string()).1, *name);
        }
    }
}

/// A server that drains keeps its clients, WebSockets included, and gets no others.
#[test]
fn a_draining_server_keeps_its_clients() {
    let servers = [app("a"), app("b"), app("c")];
    let mut server = start("sticky route $arg_srv $cookie_srv", &servers);
    let mut socket = expect_socket(&server, "srv=b", "b");
    server.rewrite_http(
        "upstream app { server %%A%% route=a; server %%B%% route=b drain; server %%C%% route=c;
             %%STICKY%%; }
         server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
    );
    reload(&server, 1);
    for _ in 0..4 {
        expect_socket(&server, "srv=b", "b");
        assert_eq!(poll(&server, "srv=b").text(), "b");
        assert_ne!(poll(&server, "").text(), "b");
    }
    socket.send([text("still open")]);
    socket.expect([text("still open")]);
}

/// The cookie is of the server that answered, also with an error and when several were asked.
#[test]
fn the_cookie_follows_the_request_to_the_next_server() {
    let bad = Upstream::http(|_| "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let good = app("b");
    let server = Instance::setup(EXE)
        .http(
            "upstream app { server %%A%% route=a max_fails=0; server %%B%% route=b; sticky cookie srv; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; }
                 location /again { proxy_pass http://app; proxy_next_upstream http_503; }
                 location /page { proxy_pass http://app; proxy_intercept_errors on;
                     error_page 503 = @page; }
                 location @page { return 200 page; } }",
        )
        .var("A", bad.addr())
        .var("B", good.addr())
        .start();
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: srv=a\r\n\r\n");
        let response = exchange(server.listen(0), request);
        (response.status, response.head.all("Set-Cookie").map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(ask("/"), (503, vec!["srv=a".to_owned()]));
    let (status, cookies) = ask("/again");
    assert_eq!((status, &*cookies[0], cookies.len()), (200, "srv=b", 2), "and the app's own");
    assert_eq!(ask("/page"), (200, vec!["srv=a".to_owned()]));
}
