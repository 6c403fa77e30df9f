//! Examples in front of servers that behave as the applications do for which they are written.

#![allow(clippy::unwrap_used)]

mod example;

use std::collections::HashSet;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use wssgate_testkit::dns::{Dns, Says};
use wssgate_testkit::{
    Conn, Handshake, Haproxy, Instance, Listener, Request, Response, Upstream, binary, free_addr,
    text, wait_until,
};

use example::{Example, TOKEN};

/// A connection of a browser.
fn browser(server: &Instance, example: &Example, name: &str) -> Conn {
    Conn::try_connect_tls(server.listen(0), example.pki.client_config(), name).unwrap()
}

fn ask(conn: &mut Conn, name: &str, request: &str, fields: &[&str]) -> Response {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    conn.send_raw(format!("{request} HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n"));
    conn.recv_response()
}

/// A handshake of a browser.
fn socket(server: &Instance, example: &Example, name: &str, path: &str) -> Handshake {
    let handshake = Handshake::to(server.listen(0)).tls(example.pki.client_config(), name);
    handshake.host(name).path(path)
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

fn argument<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    let (_, query) = request.target().split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// A server of Engine.IO: sessions begin by long polling and are known to their server only.
fn engine_io(name: &'static str) -> Upstream {
    let sessions = Mutex::new(HashSet::new());
    Upstream::serve(move |conn| {
        while let Ok(Some(request)) = conn.try_recv_request() {
            let known = argument(&request, "sid").map(|sid| sessions.lock().unwrap().contains(sid));
            let upgrade = request.field("upgrade") == Some("websocket");
            match (known, upgrade) {
                (None, false) => {
                    let sid = format!("{name}-{}", sessions.lock().unwrap().len());
                    sessions.lock().unwrap().insert(sid.clone());
                    let open = format!("0{{\"sid\":\"{sid}\",\"upgrades\":[\"websocket\"]}}");
                    conn.send_raw(answer("200 OK", "", &open));
                }
                (Some(true), false) => conn.send_raw(answer("200 OK", "", "ok")),
                (Some(true), true) => {
                    conn.accept_websocket(&request, "");
                    // The probe of the upgrade, then messages.
                    conn.expect([text("2probe")]);
                    conn.send([text("3probe")]);
                    conn.expect([text("5"), text("42[\"hello\"]")]);
                    conn.send([text(&format!("42[\"{name}\"]"))]);
                    return;
                }
                _ => {
                    let error = "{\"code\":1,\"message\":\"Session ID unknown\"}";
                    conn.send_raw(answer("400 Bad Request", "", error));
                }
            }
        }
    })
}

#[test]
fn socket_io_upgrades_at_the_server_that_knows_the_session() {
    let servers = [engine_io("a"), engine_io("b"), engine_io("c")];
    let example = (Example::of("socketio"))
        .with("127.0.0.1:3001", servers[0].addr())
        .with("127.0.0.1:3002", servers[1].addr())
        .with("127.0.0.1:3003", servers[2].addr());
    let server = example.start();
    let (name, mut used) = ("chat.example.com", HashSet::new());
    for _ in 0..9 {
        let polling = "/socket.io/?EIO=4&transport=polling";
        // Each poll on a connection of its own, as browsers may do it.
        let open = ask(&mut browser(&server, &example, name), name, &format!("GET {polling}"), &[]);
        let body = open.text();
        let sid = body.split('"').nth(3).unwrap();
        let cookie = open.field("set-cookie").unwrap();
        assert!(cookie.contains("Secure") || cookie.contains("secure"), "{cookie}");
        let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
        let poll = format!("GET {polling}&sid={sid}");
        let polled = ask(&mut browser(&server, &example, name), name, &poll, &[&cookie]);
        assert_eq!((polled.status, polled.text().as_str()), (200, "ok"));
        let path = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
        let cookie = cookie.strip_prefix("Cookie: ").unwrap();
        let mut client = socket(&server, &example, name, &path).field("Cookie", cookie).open();
        client.send([text("2probe")]);
        client.expect([text("3probe")]);
        client.send([text("5"), text("42[\"hello\"]")]);
        let own = sid.split('-').next().unwrap();
        client.expect([text(&format!("42[\"{own}\"]"))]);
        used.insert(own.to_owned());
    }
    assert_eq!(used.len(), 3, "all servers are used");
}

#[test]
fn mqtt_keeps_its_subprotocol_and_its_bytes() {
    const CONNECT: &[u8] = b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02c1";
    const CONNACK: &[u8] = b"\x20\x02\0\0";
    let broker = Upstream::serve(|conn| {
        let Ok(Some(request)) = conn.try_recv_request() else { return };
        if request.field("sec-websocket-protocol") != Some("mqtt") {
            return conn.send_raw(answer("400 Bad Request", "", ""));
        }
        conn.accept_websocket(&request, "Sec-WebSocket-Protocol: mqtt\r\n");
        conn.expect([binary(CONNECT)]);
        conn.send([binary(CONNACK)]);
    });
    let example = Example::of("mqtt").with("127.0.0.1:8083", broker.addr());
    let server = example.start();
    let handshake = socket(&server, &example, "mqtt.example.com", "/mqtt");
    let (mut client, head) =
        handshake.clone().field("Sec-WebSocket-Protocol", "mqtt").open_with_head();
    assert_eq!(head.field("sec-websocket-protocol"), Some("mqtt"));
    client.send([binary(CONNECT)]);
    client.expect([binary(CONNACK)]);
    assert_eq!(handshake.answer().1.status, 400, "the broker decides about it");
}

/// Tornado: a cookie, and an Origin that is the Host.
fn jupyter(conn: &mut Conn) {
    while let Ok(Some(request)) = conn.try_recv_request() {
        let host = request.field("host").unwrap_or_default();
        let origin = request.field("origin").unwrap_or_default();
        let is_kernel = request.target().contains("/api/kernels/");
        let logged_in =
            request.field("cookie").is_some_and(|c| c.contains("jupyterhub-session-id"));
        if !logged_in || (is_kernel && origin != format!("https://{host}")) {
            conn.send_raw(answer("403 Forbidden", "", "Blocking Cross Origin"));
        } else if is_kernel {
            let protocol = "Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org\r\n";
            conn.accept_websocket(&request, protocol);
            conn.echo();
            return;
        } else {
            conn.send_raw(answer("200 OK", "", &request.body.len().to_string()));
        }
    }
}

#[test]
fn jupyter_sees_host_origin_and_cookies_as_the_browser_sent_them() {
    let hub = Upstream::serve(jupyter);
    let example = Example::of("jupyterhub").with("127.0.0.1:8000", hub.addr());
    let server = example.start();
    let name = "jupyter.example.com";
    // The port is not the usual one, and so stands in Host and Origin.
    let host = format!("{name}:{}", server.listen(0).port());
    let channels = "/user/ada/api/kernels/5e2f/channels?session_id=1";
    let kernel = socket(&server, &example, name, channels)
        .host(&host)
        .field("Origin", &format!("https://{host}"))
        .field("Sec-WebSocket-Protocol", "v1.kernel.websocket.jupyter.org");
    let mut client = kernel.clone().field("Cookie", "jupyterhub-session-id=1; _xsrf=2").open();
    let message = vec![7; 300_000];
    client.send([binary(message.clone())]);
    client.expect([binary(message.clone())]);
    assert_eq!(kernel.answer().1.status, 403, "without a cookie");
    let mut upload = browser(&server, &example, name);
    let notebook = "x".repeat(3 << 20);
    upload.send_raw(format!(
        "PUT /user/ada/api/contents/a.ipynb HTTP/1.1\r\nHost: {host}\r\n\
         Cookie: jupyterhub-session-id=1\r\nContent-Length: {}\r\n\r\n{notebook}",
        notebook.len()
    ));
    assert_eq!(upload.recv_response().text(), notebook.len().to_string());
}

#[test]
fn a_container_that_comes_back_elsewhere_is_found() {
    let dns = Dns::start();
    let port = free_addr().port();
    let at = |ip: &str, body: &str| {
        let body = body.to_owned();
        let addr: SocketAddr = format!("{ip}:{port}").parse().unwrap();
        Upstream::builder().at(addr).http(move |_| answer("200 OK", "", &body))
    };
    // Docker gives a container an address of its own; here it is another one of this machine.
    let (first, second) = ("127.77.0.1", "127.77.0.2");
    let old = at(first, "old");
    dns.set("web", Says::addresses(&[first]).ttl(600));
    let example = Example::of("docker-dns")
        .with("127.0.0.11 valid=10s", format!("{} valid=1s", dns.addr()))
        .with("http://web:3000", format!("http://web:{port}"));
    let server = example.start();
    let get = || {
        let mut conn = Conn::connect(server.listen(1));
        ask(&mut conn, "app.example.com", "GET /", &[]).text()
    };
    assert_eq!(get(), "old");
    let _new = at(second, "new");
    dns.set("web", Says::addresses(&[second]).ttl(600));
    wait_until("the new address", || get() == "new");
    drop(old);
    assert_eq!(get(), "new");
}

#[test]
fn a_socket_behind_haproxy_has_the_address_of_its_client() {
    let app = Upstream::echo();
    let example = Example::of("behind-haproxy")
        .with("127.0.0.1:8080", app.addr())
        .with("10.0.0.5", "127.0.0.0/8");
    let server = example.start();
    let front = free_addr();
    let to = server.listen(0);
    let conf = format!("listen l\n bind {front}\n server wssgate {to} send-proxy-v2 check\n");
    let Some(_balancer) = Haproxy::start("behind HAProxy", front, "tcp", &conf) else { return };
    let mut client = Handshake::to(front)
        .tls(example.pki.client_config(), "app.example.com")
        .host("app.example.com")
        .open();
    client.send([text("hello")]);
    client.expect([text("hello")]);
    assert_eq!(app.next_request().field("x-forwarded-for"), Some("127.0.0.1"));
    drop(client);
    let line = server.wait_for_access(" 101");
    assert!(line.contains(" via 127.0.0.1 "), "{line}");
    assert!(!server.error_log().contains("broken header"), "{}", server.error_log());
}

#[test]
fn a_login_service_lets_pages_and_sockets_in() {
    let login = Upstream::http(|request| match request.target() {
        "/oauth2/auth" if request.field("cookie") == Some("_oauth2_proxy=good") => {
            let fields = "X-Auth-Request-User: ada\r\nX-Auth-Request-Email: ada@example.com\r\n\
                          Set-Cookie: _oauth2_proxy=renewed; HttpOnly\r\n";
            answer("202 Accepted", fields, "")
        }
        "/oauth2/auth" => answer("401 Unauthorized", "", ""),
        _ => answer("200 OK", "", "sign in"),
    });
    let app = Upstream::serve(|conn| {
        while let Ok(Some(request)) = conn.try_recv_request() {
            if request.field("upgrade").is_some() {
                conn.accept_websocket(&request, "");
                return conn.echo();
            }
            let user = request.field("x-user").unwrap_or("nobody").to_owned();
            conn.send_raw(answer("200 OK", "", &user));
        }
    });
    let example = Example::of("auth-request-login")
        .with("127.0.0.1:4180", login.addr())
        .with("127.0.0.1:8080", app.addr());
    let server = example.start();
    let name = "tool.example.com";
    let mut client = browser(&server, &example, name);
    let stranger = ask(&mut client, name, "GET /report?x=1", &[]);
    assert_eq!(stranger.status, 302);
    let place = stranger.field("location").unwrap();
    assert_eq!(place, "https://tool.example.com/oauth2/start?rd=/report?x=1");
    let page = ask(&mut browser(&server, &example, name), name, "GET /oauth2/start?rd=/", &[]);
    assert_eq!(page.text(), "sign in");
    let cookie = "Cookie: _oauth2_proxy=good";
    let page = ask(&mut browser(&server, &example, name), name, "GET /report", &[cookie]);
    assert_eq!((page.status, page.text().as_str()), (200, "ada"));
    assert_eq!(page.field("set-cookie"), Some("_oauth2_proxy=renewed; HttpOnly"));
    let handshake = socket(&server, &example, name, "/live");
    assert_eq!(handshake.answer().1.status, 401, "a socket cannot follow to a login page");
    let mut client = handshake.field("Cookie", "_oauth2_proxy=good").open();
    client.send([text("hello")]);
    client.expect([text("hello")]);
}

#[test]
fn a_token_in_the_query_opens_a_socket_and_goes_no_further() {
    let app = Upstream::echo();
    let example = Example::of("jwt-in-query").with("127.0.0.1:8080", app.addr());
    let server = example.start();
    let name = "live.example.com";
    let open = |token: &str| socket(&server, &example, name, &format!("/ws?token={token}"));
    let mut client = open(TOKEN).open();
    client.send([text("hello")]);
    client.expect([text("hello")]);
    let passed = app.next_request();
    assert_eq!((passed.target(), passed.field("x-user")), ("/ws", Some("ada")));
    assert_eq!(passed.field("authorization"), Some(&*format!("Bearer {TOKEN}")));
    drop(client);
    let line = server.wait_for_access("- ada ");
    assert!(line.contains("\"GET /ws?token=*** HTTP/1.1\" 101"), "{line}");
    let other = TOKEN.replace("WFfc", "AAAA");
    for token in ["", "nonsense", &other] {
        assert_eq!(open(token).answer().1.status, 401, "{token}");
    }
    let all = server.access_log() + &server.error_log();
    assert!(!all.contains(TOKEN.rsplit('.').next().unwrap()), "{all}");
}

#[test]
fn gitlab_is_reached_by_its_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("workhorse.socket");
    let workhorse = Upstream::builder().unix(&path).serve(|conn| {
        while let Ok(Some(request)) = conn.try_recv_request() {
            if request.field("upgrade").is_some() {
                conn.accept_websocket(&request, "Sec-WebSocket-Protocol: actioncable-v1-json\r\n");
                conn.send([text("{\"type\":\"welcome\"}")]);
                return;
            }
            let told = ["x-forwarded-proto", "x-forwarded-ssl"].map(|name| request.field(name));
            let told = format!("{} {told:?}", request.body.len());
            conn.send_raw(answer("200 OK", "", &told));
        }
    });
    // GitLab lets the user of the proxy in.
    for (path, mode) in [(dir.path(), 0o755), (&*path, 0o777)] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let kas = Upstream::echo();
    let example = Example::of("gitlab")
        .with("/var/opt/gitlab/gitlab-workhorse/sockets/socket", path.display())
        .with("127.0.0.1:8150", kas.addr());
    let server = example.start();
    let name = "git.example.com";
    let mut cable = socket(&server, &example, name, "/-/cable?private_token=secret")
        .field("Sec-WebSocket-Protocol", "actioncable-v1-json, actioncable-unsupported")
        .open();
    cable.expect([text("{\"type\":\"welcome\"}")]);
    drop(cable);
    let line = server.wait_for_line("gitlab.log", "/-/cable");
    assert!(line.contains("\"GET /-/cable?[FILTERED]\" 101"), "{line}");
    let mut push = browser(&server, &example, name);
    let pack = "x".repeat(2 << 20);
    push.send_raw(format!(
        "POST /a.git/git-receive-pack HTTP/1.1\r\nHost: {name}\r\nContent-Length: {}\r\n\r\n{pack}",
        pack.len()
    ));
    let told = push.recv_response().text();
    assert_eq!(told, format!("{} [Some(\"https\"), Some(\"on\")]", pack.len()));
    let mut agent = socket(&server, &example, name, "/-/kubernetes-agent/").open();
    agent.send([text("hello")]);
    agent.expect([text("hello")]);
    assert_eq!(kas.next_request().target(), "/");
    drop(workhorse);
}

#[test]
fn workerman_learns_the_address_of_the_client() {
    let worker = Listener::bind();
    let example = Example::of("workerman").with("127.0.0.1:8282", worker.addr());
    let server = example.start();
    let handshake = socket(&server, &example, "chat.example.com", "/wss?uid=7");
    let mut client = handshake.send();
    let mut conn = worker.accept();
    let request = conn.recv_request();
    assert_eq!(request.target(), "/wss?uid=7");
    assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(request.field("connection"), Some("Upgrade"));
    // Workerman answers with these fields and no others.
    let key = request.field("sec-websocket-key").unwrap();
    conn.send_raw(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nConnection: Upgrade\r\nServer: workerman\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        String::from_utf8_lossy(&wssgate_ws::accept_key(key.as_bytes()))
    ));
    assert_eq!(client.recv_response().status, 101);
    client.send([text("{\"type\":\"login\"}")]);
    conn.expect([text("{\"type\":\"login\"}")]);
    conn.send([text("{\"type\":\"ping\"}")]);
    client.expect([text("{\"type\":\"ping\"}")]);
}

#[test]
fn a_public_chat_counts_the_open_sockets_of_an_address() {
    let app = Upstream::echo();
    let example = Example::of("public-chat-limits")
        .with("127.0.0.1:8080", app.addr())
        .with("limit_conn sockets 20", "limit_conn sockets 3")
        .with("burst=10", "burst=100");
    let server = example.start();
    let name = "chat.example.com";
    let page = |origin| socket(&server, &example, name, "/ws").field("Origin", origin);
    let (own, foreign) = ("https://chat.example.com", "https://chat.example.com.evil.test");
    let mut open: Vec<_> = (0..3).map(|_| page(own).open()).collect();
    assert_eq!(page(own).answer().1.status, 429);
    assert_eq!(page(foreign).answer().1.status, 403);
    drop(open.pop());
    server.wait_for_access(" 101 ");
    let mut client = page(own).open();
    client.send([text("hello")]);
    client.expect([text("hello")]);
}

#[test]
fn jitsi_finds_the_bridge_of_a_conference() {
    let (bridge, prosody) = (Upstream::echo(), Upstream::echo());
    let example = Example::of("jitsi-meet")
        .with("127.0.0.1:9091", bridge.addr())
        .with("127.0.0.1:5280", prosody.addr())
        .with("/usr/share/jitsi-meet", "/nonexistent");
    let server = example.start();
    let name = "meet.example.com";
    let path = "/colibri-ws/jvb2/5f1c/abc?pwd=1";
    let mut client = socket(&server, &example, name, path).open();
    client.send([text("{\"colibriClass\":\"ClientHello\"}")]);
    client.expect([text("{\"colibriClass\":\"ClientHello\"}")]);
    assert_eq!(bridge.next_request().target(), path);
    let stranger = socket(&server, &example, name, "/colibri-ws/127.0.0.1/x/y").answer().1;
    assert_eq!(stranger.status, 404, "only bridges that are known");
    let xmpp = socket(&server, &example, name, "/xmpp-websocket?room=a").open();
    assert_eq!(prosody.next_request().target(), "/xmpp-websocket?room=a");
    drop(xmpp);
}

#[test]
fn cloudflare_is_believed_and_asked_for_its_certificate() {
    let app = Upstream::text("ok");
    let example = Example::of("cloudflare")
        .with("127.0.0.1:8080", app.addr())
        .with("173.245.48.0/20", "127.0.0.0/8");
    let server = example.start();
    let name = "live.example.com";
    let fields = ["CF-Connecting-IP: 192.0.2.9", "X-Forwarded-For: 192.0.2.9"];
    let stranger = ask(&mut browser(&server, &example, name), name, "GET /", &fields);
    assert_eq!(stranger.status, 400, "no certificate, no service");
    let own = example.pki.leaf(&["cloudflare"]);
    let config = example.pki.client_config_with(&own);
    let mut cloudflare = Conn::try_connect_tls(server.listen(0), config, name).unwrap();
    assert_eq!(ask(&mut cloudflare, name, "GET /", &fields).text(), "ok");
    let passed = app.next_request();
    assert_eq!(passed.field("x-real-ip"), Some("192.0.2.9"));
    server.wait_for_access("192.0.2.9 - - ");
}
