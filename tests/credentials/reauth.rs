//! `websocket_reauth`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use wssgate_testkit::{
    Conn, Gate, Handshake, Instance, Listener, Upstream, close, free_addr, http, text, wait_until,
};

use super::{handshake, in_seconds, start};

const CHAT: &str = "
    log_format ends '$uri $websocket_close_cause $websocket_close_code';
    access_log %%DIR%%/ends.log ends;
    auth_jwt_key_file keys.json;
    server {
        listen %%LISTEN_0%%;
        websocket_reauth 200ms /auth;
        location / { proxy_pass http://%%UP%%; }
        location /off { websocket_reauth off; proxy_pass http://%%UP%%; }
        location /bytes { websocket_check off; proxy_pass http://%%UP%%; }
        location /jwt { auth_jwt x; set $tenant t-$arg_tenant; proxy_pass http://%%UP%%; }
        location = /auth { internal; proxy_pass http://%%AUTH%%;
            proxy_set_header X-Uri $request_uri; proxy_set_header X-Tenant $tenant;
            proxy_set_header X-Sub $jwt_claim_sub; proxy_set_header X-Client $remote_addr:$remote_port;
            proxy_connect_timeout 1s; proxy_read_timeout 1s; }
        location = /metrics { prometheus; }
    }";

fn started(auth: impl std::fmt::Display, up: impl std::fmt::Display) -> Instance {
    start(&CHAT.replace("%%AUTH%%", &auth.to_string()), up)
}

/// Who answers with the status that is set at the moment; 0 closes the connection without a response.
fn auth_server() -> (Upstream, Arc<AtomicUsize>) {
    let status = Arc::new(AtomicUsize::new(204));
    let set = Arc::clone(&status);
    let upstream = Upstream::serve(move |conn| {
        while let Ok(Some(_)) = conn.try_recv_request() {
            let status = set.load(Ordering::SeqCst);
            let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n");
            if status == 0 || conn.try_send_raw(answer).is_err() {
                return;
            }
        }
    });
    (upstream, status)
}

fn stays(client: &mut Conn) {
    client.send([text("still here")]);
    client.expect([text("still here")]);
}

fn metric(server: &Instance, result: &str) -> u64 {
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let name = format!("wssgate_websocket_reauths_total{{result=\"{result}\"}} ");
    let answer = http::exchange(server.listen(0), request).text();
    let line = answer.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned();
    line.parse().unwrap()
}

#[test]
fn who_is_authorized_stays_and_is_asked_about_with_the_headers_of_its_handshake() {
    let ((auth, status), upstream) = (auth_server(), Upstream::echo());
    let server = started(auth.addr(), upstream.addr());
    let mut client = handshake(&server, "/jwt?tenant=7", &json!({"sub": "ann"}))
        .field("Cookie", "sid=secret")
        .open();
    let address = client.tcp().unwrap().local_addr().unwrap().to_string();
    for _ in 0..3 {
        let request = auth.next_request();
        assert_eq!((request.method(), request.target()), ("GET", "/auth"));
        assert_eq!(request.field("cookie"), Some("sid=secret"));
        assert!(request.field("authorization").unwrap().starts_with("Bearer "));
        assert_eq!(request.field("x-uri"), Some("/jwt?tenant=7"));
        assert_eq!(request.field("x-tenant"), Some("t-7"));
        assert_eq!(request.field("x-sub"), Some("ann"));
        assert_eq!(request.field("x-client"), Some(&*address));
        assert_eq!((request.field("upgrade"), request.field("content-length")), (None, None));
    }
    stays(&mut client);
    assert!(metric(&server, "allowed") >= 2);
    assert_eq!((metric(&server, "denied"), metric(&server, "failed")), (0, 0));
    status.store(403, Ordering::SeqCst);
    client.expect([close(1008, "no longer authorized")]);
    drop(client);
    server.wait_for_line("ends.log", "/jwt credentials 1008");
    server.wait_for_log("\"/auth\" of websocket_reauth: 403, client: 127.0.0.1");
    server.wait_for_log(
        "WebSocket closed by the proxy with 1008, websocket_reauth no longer authorizes the client",
    );
    assert_eq!(metric(&server, "denied"), 1);
    assert_eq!(auth.requests().iter().filter(|one| one.target() != "/auth").count(), 0);
}

#[test]
fn a_denial_ends_websockets_between_two_frames_but_not_where_nobody_asks() {
    let ((auth, status), listener) = (auth_server(), Listener::bind());
    let server = started(auth.addr(), listener.addr());
    let open = |path: &str| Handshake::to(server.listen(0)).path(path).open_with(&listener);
    let (mut off, mut of_off) = open("/off");
    let (mut client, mut upstream) = open("/");
    let (mut bytes, mut of_bytes) = open("/bytes");
    let frame = text("hello").encode(None);
    upstream.send_raw(&frame[..4]);
    assert_eq!(client.recv_raw(4), frame[..4]);
    status.store(401, Ordering::SeqCst);
    upstream.expect([close(1001, "no longer authorized")]);
    upstream.send_raw(&frame[4..]);
    assert_eq!(client.recv_raw(frame.len() - 4), frame[4..]);
    client.expect([close(1008, "no longer authorized")]);
    // Where frames are not parsed nothing can be said.
    bytes.expect_eof();
    of_bytes.expect_eof();
    off.send([text("hello")]);
    of_off.expect([text("hello")]);
}

#[test]
fn a_failing_auth_server_ends_nobody() {
    let ((auth, status), upstream) = (auth_server(), Upstream::echo());
    let server = started(auth.addr(), upstream.addr());
    let mut client = Handshake::to(server.listen(0)).open();
    for (failing, why) in [
        (500, "[warn] "),
        (404, "\"/auth\" of websocket_reauth: unexpected status 404, so the WebSocket stays open"),
        (302, "\"/auth\" of websocket_reauth: unexpected status 302, so the WebSocket stays open"),
        (0, "\"/auth\" of websocket_reauth: unexpected status 502, so the WebSocket stays open"),
    ] {
        status.store(failing, Ordering::SeqCst);
        server.wait_for_log(why);
        stays(&mut client);
    }
    server.wait_for_log("unexpected status 500, so the WebSocket stays open, client: 127.0.0.1");
    let told = |line: &str| server.error_log().matches(line).count();
    let failed = metric(&server, "failed");
    wait_until("more failures", || metric(&server, "failed") >= failed + 3);
    assert_eq!(told("status 502, so the WebSocket stays open"), 1);
    status.store(204, Ordering::SeqCst);
    server.wait_for_log("\"/auth\" of websocket_reauth answers again, client: 127.0.0.1");
    // It is asked again, and its next answer counts.
    status.store(401, Ordering::SeqCst);
    client.expect([close(1008, "no longer authorized")]);
    assert!(metric(&server, "failed") >= 4);
}

#[test]
fn an_auth_server_that_is_gone_or_says_nothing_ends_nobody() {
    let upstream = Upstream::echo();
    let server = started(free_addr(), upstream.addr());
    let mut client = Handshake::to(server.listen(0)).open();
    server.wait_for_log("unexpected status 502, so the WebSocket stays open");
    stays(&mut client);
    // This one accepts and never answers.
    let silent = Listener::bind();
    let server = started(silent.addr(), upstream.addr());
    let mut client = Handshake::to(server.listen(0)).open();
    let _asked = silent.accept();
    server.wait_for_log("unexpected status 504, so the WebSocket stays open");
    stays(&mut client);
}

/// What is inherited from the server is for the handshake, of which the question is a part.
#[test]
fn a_question_is_not_counted_against_the_limits_of_its_client() {
    let ((auth, _), upstream) = (auth_server(), Upstream::echo());
    let limits = "limit_req_zone $binary_remote_addr zone=few:1m rate=1r/m;
        limit_conn_zone $binary_remote_addr zone=one:1m;
        limit_req zone=few; limit_conn one 1;";
    let server = start(
        &format!("{limits}{}", CHAT.replace("%%AUTH%%", &auth.addr().to_string())),
        upstream.addr(),
    );
    let mut client = Handshake::to(server.listen(0)).open();
    for _ in 0..3 {
        auth.next_request();
    }
    stays(&mut client);
    assert!(!server.error_log().contains("limiting"), "{}", server.error_log());
}

#[test]
fn a_reload_keeps_what_a_websocket_began_with() {
    let ((auth, status), upstream) = (auth_server(), Upstream::echo());
    let mut server = started(auth.addr(), upstream.addr());
    let mut before = Handshake::to(server.listen(0)).open();
    let conf = CHAT.replace("%%AUTH%%", &auth.addr().to_string());
    server.rewrite_http(&conf.replace("websocket_reauth 200ms /auth;", ""));
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    let mut after = Handshake::to(server.listen(0)).open();
    status.store(403, Ordering::SeqCst);
    before.expect([close(1008, "no longer authorized")]);
    stays(&mut after);
}

#[test]
fn an_expired_token_ends_who_is_authorized() {
    let ((auth, _), upstream) = (auth_server(), Upstream::echo());
    let server = started(auth.addr(), upstream.addr());
    let mut client = handshake(&server, "/jwt", &json!({"exp": in_seconds(0)})).open();
    auth.next_request();
    client.expect([close(1008, "credentials expired")]);
}

#[test]
fn so_many_are_asked_about_at_a_time_and_no_more() {
    let (asked, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, total) = (Arc::new(Gate::new()), Arc::new(AtomicUsize::new(0)));
    let auth = {
        let (asked, most, gate, total) =
            (Arc::clone(&asked), Arc::clone(&most), Arc::clone(&gate), Arc::clone(&total));
        Upstream::serve(move |conn| {
            conn.recv_request();
            total.fetch_add(1, Ordering::SeqCst);
            most.fetch_max(asked.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.wait();
            asked.fetch_sub(1, Ordering::SeqCst);
            conn.send_raw("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        })
    };
    let upstream = Upstream::echo();
    let conf = CHAT.replace("proxy_read_timeout 1s", "proxy_read_timeout 60s");
    let server = start(&conf.replace("%%AUTH%%", &auth.addr().to_string()), upstream.addr());
    let mut clients: Vec<_> = (0..50).map(|_| Handshake::to(server.listen(0)).open()).collect();
    wait_until("the bound", || total.load(Ordering::SeqCst) == 32);
    // Who ends while it is asked about, or waits for its turn, is forgotten.
    clients.truncate(25);
    gate.open();
    wait_until("the others", || total.load(Ordering::SeqCst) >= 100);
    assert_eq!(most.load(Ordering::SeqCst), 32);
    clients.iter_mut().for_each(stays);
    assert_eq!(metric(&server, "failed"), 0);
}
