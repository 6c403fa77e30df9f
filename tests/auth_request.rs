//! `auth_request` through the whole program: who is let in, what the asked one sees, what is kept.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, Handshake, Instance, Listener, Upstream, http, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A login service that the test speaks for guards `/`, which an echo server of WebSockets serves.
/// The lines of the whole server would make an upgrade of every request.
const GUARDED: &str = "
    log_format user '$status $request $user';
    access_log %%DIR%%/user.log user;
    server {
        listen %%LISTEN_0%%;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
        proxy_set_header X-Original-URI $request_uri;
        proxy_set_header X-Original-Method $request_method;
        auth_request_set $user $upstream_http_x_user;
        location / {
            auth_request /auth;
            proxy_pass http://%%APP%%;
            add_header X-User $user always;
        }
        location = /auth { internal; proxy_pass http://%%LOGIN%%/check; }
    }";

fn guarded() -> (Instance, Listener, Upstream) {
    let (login, app) = (Listener::bind(), Upstream::echo());
    let setup = Instance::setup(EXE);
    let dir = setup.dir().display().to_string();
    let server = setup
        .http(GUARDED)
        .var("DIR", dir)
        .var("LOGIN", login.addr())
        .var("APP", app.addr())
        .start();
    (server, login, app)
}

#[test]
fn a_websocket_is_let_in_by_a_plain_get() {
    let (server, login, app) = guarded();
    let mut client =
        Handshake::to(server.listen(0)).path("/chat?x=1").field("Cookie", "s=1").send();
    let mut asked = login.accept();
    let request = asked.recv_request();
    assert_eq!((request.method(), request.target()), ("GET", "/check"));
    assert_eq!(request.field("upgrade"), None, "a subrequest is no upgrade");
    assert_eq!(request.field("connection"), None);
    assert_eq!(request.field("cookie"), Some("s=1"));
    assert_eq!(request.field("x-original-uri"), Some("/chat?x=1"));
    asked.send_raw("HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 0\r\n\r\n");
    let response = client.recv_response();
    assert_eq!(response.status, 101);
    assert_eq!(response.field("x-user"), Some("ada"));
    client.send([text("hello")]);
    client.expect([text("hello")]);
    assert_eq!(app.next_request().target(), "/chat?x=1");
    drop(client);
    server.wait_for_line("user.log", "101 GET /chat?x=1 HTTP/1.1 ada");
}

#[test]
fn a_body_stays_with_its_request() {
    let (server, login, app) = guarded();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut asked = login.accept();
    let request = asked.recv_request();
    assert_eq!(request.method(), "GET");
    assert_eq!(request.field("content-length"), None);
    assert_eq!(request.field("x-original-method"), Some("POST"), "$request_method is the client's");
    asked.send_raw("HTTP/1.1 204 No Content\r\n\r\n");
    let passed = app.next_request();
    assert_eq!((passed.method(), &passed.body[..]), ("POST", &b"hello"[..]));
}

#[test]
fn a_refusal_reaches_the_client_with_its_challenge() {
    for (answer, status, challenges) in [
        (
            "401 Who\r\nWWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: Bearer\r\n",
            401,
            &["Basic realm=\"a\"", "Bearer"][..],
        ),
        ("403 No\r\n", 403, &[]),
        ("404 What\r\n", 500, &[]),
        ("302 There\r\nLocation: /login\r\n", 500, &[]),
    ] {
        let (server, login, app) = guarded();
        let mut client = Handshake::to(server.listen(0)).send();
        let mut asked = login.accept();
        asked.recv_request();
        asked.send_raw(format!("HTTP/1.1 {answer}X-User: eve\r\nContent-Length: 4\r\n\r\nno!\n"));
        let response = client.recv_response();
        assert_eq!(response.status, status, "{answer}");
        let sent: Vec<_> = response.head.all("www-authenticate").collect();
        assert_eq!(sent, challenges, "{answer}");
        assert_eq!(response.field("x-user"), Some("eve"), "the answer is kept for error pages");
        assert!(!response.text().contains("no!"), "the body is nobody's business");
        assert_eq!(app.connections(), 0);
        if status == 500 {
            server.wait_for_log("auth request unexpected status: ");
        }
    }
}

#[test]
fn an_asked_one_that_switches_or_fails_lets_nobody_in() {
    for (answer, log) in [
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            "invalid 101 response",
        ),
        ("", "upstream prematurely closed connection while reading response header"),
    ] {
        let (server, login, app) = guarded();
        let mut client = Handshake::to(server.listen(0)).send();
        let mut asked = login.accept();
        asked.recv_request();
        asked.send_raw(answer);
        drop(asked);
        assert_eq!(client.recv_response().status, 500);
        let line = server.wait_for_log(log);
        assert!(line.contains("subrequest: \"/auth\""), "{line}");
        server.wait_for_log("auth request unexpected status: 502");
        assert_eq!(app.connections(), 0);
    }
}

#[test]
fn a_client_that_goes_ends_the_question() {
    let (server, login, _app) = guarded();
    let client = Handshake::to(server.listen(0)).path("/gone").send();
    let mut asked = login.accept();
    asked.recv_request();
    drop(client);
    asked.expect_eof();
    server.wait_for_line("user.log", "499 GET /gone HTTP/1.1 -");
}

#[test]
fn what_an_answer_sets_lives_on_in_error_pages() {
    let server = Instance::setup(EXE)
        .http(
            "server {
                listen %%LISTEN_0%%;
                location / { auth_request /auth; auth_request_set $why $sent_http_x_why; error_page 401 = @login; }
                location = /auth { log_subrequest on; add_header X-Why expired always; return 401; }
                location @login { auth_request off; return 302 /login?why=$why&of=$request_uri; }
                location /open { auth_request /yes; return 200 open; }
                location = /yes { return 204; }
            }",
        )
        .start();
    let response = http::get(server.listen(0), "a", "/secret");
    assert_eq!(response.status, 302);
    let location = response.field("location").unwrap();
    assert!(location.ends_with("/login?why=expired&of=/secret"), "{location}");
    assert_eq!(response.field("www-authenticate"), None);
    server.wait_for_access("\"GET /secret HTTP/1.1\" 401 ");
    server.wait_for_access("\"GET /secret HTTP/1.1\" 302 ");
    assert_eq!(http::get(server.listen(0), "a", "/open").text(), "open");
}

/// Guarded by what the configuration itself answers.
fn guarded_by(answer: &str, app: &Upstream) -> Instance {
    let http = "server {
        listen %%LISTEN_0%%;
        location / { auth_request /auth; proxy_pass http://%%APP%%; }
        location = /auth { %%ANSWER%% }
    }";
    Instance::setup(EXE).http(http).var("APP", app.addr()).var("ANSWER", answer).start()
}

#[test]
fn a_client_that_has_ended_its_direction_is_asked_about_all_the_same() {
    let server = Instance::setup(EXE)
        .http(
            "server {
                listen %%LISTEN_0%%;
                location / { auth_request /auth; root %%DIR%%; }
                location = /auth { return 204; }
            }",
        )
        .file("file", "open")
        .start();
    for _ in 0..8 {
        let mut client = Conn::connect(server.listen(0));
        client.send_raw("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
        client.shutdown_write().unwrap();
        assert_eq!(client.recv_response().text(), "open");
    }
}

#[test]
fn what_a_client_leaves_behind_is_delivered_if_configured() {
    let (login, app) = (Listener::bind(), Listener::bind());
    let server = Instance::setup(EXE)
        .http(
            "proxy_ignore_client_abort on;
            server {
                listen %%LISTEN_0%%;
                location / { auth_request /auth; proxy_pass http://%%APP%%; }
                location = /auth { proxy_pass http://%%LOGIN%%; }
            }",
        )
        .var("LOGIN", login.addr())
        .var("APP", app.addr())
        .start();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut asked = login.accept();
    asked.recv_request();
    drop(client);
    asked.send_raw("HTTP/1.1 204 No Content\r\n\r\n");
    let passed = app.accept().recv_request();
    assert_eq!((passed.method(), &passed.body[..]), ("POST", &b"hello"[..]));
}

#[test]
fn an_answer_that_closes_the_connection_closes_it() {
    let app = Upstream::echo();
    let server = guarded_by("return 444;", &app);
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_eof();
    server.wait_for_access("\"GET / HTTP/1.1\" 444 ");
    assert_eq!(app.connections(), 0);
}

#[test]
fn conditions_of_a_request_are_not_asked_of_who_lets_it_in() {
    let app = Upstream::http(|_| "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nopen");
    let server = guarded_by("return 200 yes;", &app);
    for condition in ["If-Match: \"x\"", "If-None-Match: *", "Range: bytes=0-1"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{condition}\r\n\r\n");
        let response = http::exchange(server.listen(0), request);
        assert_eq!((response.status, &*response.text()), (200, "open"), "{condition}");
    }
}
