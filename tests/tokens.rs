//! `auth_jwt` through the whole program: where tokens come from, where they must not go, and keys.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use wssgate_testkit::{Handshake, Instance, Listener, Upstream, http, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token signed with this secret, for a key of this ID.
fn signed(secret: &str, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
    encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes()).unwrap()).unwrap()
}

fn token(claims: &Value) -> String {
    signed("secret", None, claims)
}

fn key(secret: &str, kid: Option<&str>) -> Value {
    let mut key = json!({"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode(secret)});
    if let Some(kid) = kid {
        key["kid"] = json!(kid);
    }
    key
}

fn keys(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The program with a key file, running on what stands in its `http` block.
fn start(text: &str, up: impl std::fmt::Display) -> Instance {
    let setup = Instance::setup(EXE).file("keys.json", keys(&[key("secret", None)]));
    setup.main_and_http("user root;", text).var("UP", up).start()
}

fn get(server: &Instance, path: &str, fields: &str) -> http::Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n");
    http::exchange(server.listen(0), request)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

const GUARDED: &str = "
    auth_jwt_claim_set $email info e-mail;
    auth_jwt_header_set $kind typ;
    map $jwt_claim_role $is_admin { admin 1; default 0; }
    auth_jwt_key_file keys.json;
    server {
        listen %%LISTEN_0%%;
        add_header X-Claims \"<$jwt_claim_sub $email $kind>\" always;
        location / { auth_jwt \"closed site\"; empty_gif; }
        location /off { auth_jwt x; location /off/open { auth_jwt off; empty_gif; } }
        location /cookie { auth_jwt x token=$cookie_auth; empty_gif; }
        location /query { auth_jwt x token=$arg_t; empty_gif; }
        location /admin { auth_jwt x; auth_jwt_require $is_admin error=403; empty_gif; }
        location /strict { auth_jwt x; auth_jwt_require $jwt_claim_exp; empty_gif; }
        location /late { auth_jwt x; auth_jwt_leeway 1h; empty_gif; }
        location /missing { auth_jwt x; auth_jwt_key_file none.json; empty_gif; }
        location /broken { auth_jwt x; auth_jwt_key_file nginx.conf; empty_gif; }
        location /any { satisfy any; allow all; auth_jwt x; empty_gif; }
        location /either { satisfy any; deny all; auth_jwt x; empty_gif; }
        location /early { auth_jwt x;
            add_header X-Claims \"<$jwt_claim_sub $email $kind>\" always; set $early $jwt_claim_sub; add_header X-Early $early always;
            add_header X-Admin $is_admin always; satisfy any; allow all; empty_gif; }
        location /payload { auth_jwt x; add_header X-Payload $jwt_payload; empty_gif; }
    }";

#[test]
fn who_has_a_valid_token_is_let_in() {
    let server = start(GUARDED, "");
    let invalid = Some("Bearer realm=\"closed site\", error=\"invalid_token\"");
    let good = token(&json!({"sub": "ada", "exp": now() + 3600, "info": {"e-mail": "a@a.test"}}));
    let response = get(&server, "/", &bearer(&good));
    assert_eq!((response.status, response.field("x-claims")), (200, Some("<ada a@a.test JWT>")));
    assert_eq!(get(&server, "/", &format!("Authorization: bearer  {good}\r\n")).status, 200);
    for (fields, challenge, reason) in [
        (String::new(), Some("Bearer realm=\"closed site\""), "no JWT was provided"),
        ("Authorization: Basic YTpi\r\n".into(), Some("Bearer realm=\"closed site\""), "no JWT"),
        (bearer("x"), invalid, "JWT is malformed: it does not have three parts"),
        (bearer("a.b.c.d.e"), invalid, "JWT is malformed: it is encrypted"),
        (
            bearer(&signed("other", None, &json!({}))),
            invalid,
            "not valid: the signature is invalid",
        ),
        (bearer(&token(&json!({"exp": now() - 9}))), invalid, "JWT is not valid: it has expired"),
        (bearer(&token(&json!({"nbf": now() + 99}))), invalid, "not valid: it is not valid yet"),
        (bearer("eyJhbGciOiJub25lIn0.e30."), invalid, "no key is for the algorithm \"none\""),
    ] {
        let response = get(&server, "/", &fields);
        assert_eq!(response.status, 401, "{fields}");
        assert_eq!(response.field("www-authenticate"), challenge, "{fields}");
        assert_eq!(response.field("x-claims"), Some("<  >"), "{fields}: nothing of it counts");
        server.wait_for_log(reason);
    }
    assert_eq!(get(&server, "/off/open", "").status, 200);
    assert_eq!(get(&server, "/late", &bearer(&token(&json!({"exp": now() - 9})))).status, 200);
}

#[test]
fn a_token_may_come_in_a_cookie_or_the_query_and_is_not_logged() {
    let server = start(GUARDED, "");
    let good = token(&json!({"sub": "ada"}));
    let bad = signed("other", None, &json!({"sub": "eve"}));
    assert_eq!(get(&server, "/cookie", &format!("Cookie: a=b; auth={good}\r\n")).status, 200);
    assert_eq!(get(&server, "/cookie", &bearer(&good)).status, 401, "only there");
    assert_eq!(get(&server, &format!("/query?a=b&t={good}"), "").status, 200);
    assert_eq!(get(&server, &format!("/query?t={bad}&a=b"), "").status, 401);
    server.wait_for_access("\"GET /query?a=b&t=*** HTTP/1.1\" 200 ");
    server.wait_for_access("\"GET /query?t=***&a=b HTTP/1.1\" 401 ");
    let line = server.wait_for_log("the signature is invalid");
    assert!(line.contains("request: \"GET /query?t=***&a=b HTTP/1.1\""), "{line}");
    for log in [server.error_log(), server.access_log()] {
        assert!(!log.contains(&good) && !log.contains(&bad), "{log}");
    }
}

/// Others answer before anybody looks at the token.
#[test]
fn a_token_that_nobody_looks_at_is_not_logged_either() {
    let server = start(
        "auth_jwt_key_file keys.json;
         limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
         server {
             listen %%LISTEN_0%%;
             auth_jwt x token=$arg_t;
             location /limited { limit_req zone=one; empty_gif; }
             location /return { return 204; }
             if ($arg_early) { return 410; }
         }",
        "",
    );
    let good = token(&json!({"sub": "ada"}));
    for (path, status) in
        [("/limited?", 200), ("/limited?", 503), ("/return?", 204), ("/?early=1&", 410)]
    {
        assert_eq!(get(&server, &format!("{path}t={good}"), "").status, status, "{path}");
        server.wait_for_access(&format!("t=*** HTTP/1.1\" {status} "));
    }
    server.wait_for_log("limiting requests");
    for log in [server.error_log(), server.access_log()] {
        assert!(!log.contains(&good), "{log}");
    }
}

#[test]
fn what_is_required_of_claims_decides_the_status() {
    let server = start(GUARDED, "");
    let status = |path, claims: Value| get(&server, path, &bearer(&token(&claims))).status;
    assert_eq!(status("/admin", json!({"role": "admin"})), 200);
    assert_eq!(status("/admin", json!({"role": "user"})), 403);
    assert_eq!(status("/admin", json!({})), 403);
    assert_eq!(status("/strict", json!({"exp": now() + 99})), 200);
    assert_eq!(status("/strict", json!({})), 401);
    server.wait_for_log("JWT does not meet \"auth_jwt_require\"");
    let payload = get(&server, "/payload", &bearer(&token(&json!({"a": 1}))));
    assert_eq!(payload.field("x-payload"), Some("{\"a\":1}"));
}

#[test]
fn keys_that_are_not_there_are_our_own_fault() {
    let server = start(GUARDED, "");
    let good = bearer(&token(&json!({})));
    for (path, reason) in [
        (
            "/missing",
            "none.json\" failed (2: No such file or directory) while reading keys for JWT",
        ),
        ("/broken", "nginx.conf\" has no keys for JWT: not JSON"),
    ] {
        let response = get(&server, path, &good);
        assert_eq!((response.status, response.field("www-authenticate")), (500, None), "{path}");
        server.wait_for_log(reason);
    }
    let run = Instance::setup(EXE)
        .http("server { listen %%LISTEN_0%%; location / { auth_jwt x; } }")
        .run(&["-t"]);
    assert!(!run.status.success());
    assert!(run.stderr.contains("requires \"auth_jwt_key_file\" or"), "{}", run.stderr);
    let run = Instance::setup(EXE)
        .http("server { listen %%LISTEN_0%%; auth_jwt_type encrypted; }")
        .run(&["-t"]);
    assert!(run.stderr.contains("\"encrypted\" tokens are not supported"), "{}", run.stderr);
}

/// A forged token beside a rule that lets everybody in must not lend its claims to anybody.
#[test]
fn claims_count_for_nothing_unless_they_were_verified() {
    let server = start(GUARDED, "");
    let forged = bearer(&signed("other", None, &json!({"sub": "root", "role": "admin"})));
    let response = get(&server, "/early", &forged);
    assert_eq!(response.status, 200);
    assert_eq!(response.field("x-early"), Some("root"), "as nginx has it before the access phase");
    assert_eq!(response.field("x-claims"), Some("<  >"));
    assert_eq!(response.field("x-admin"), Some("0"));
    assert_eq!(get(&server, "/any", "").status, 200);
    assert_eq!(get(&server, "/either", &forged).status, 401);
    assert_eq!(get(&server, "/either", &bearer(&token(&json!({})))).status, 200);
}

#[test]
fn a_changed_key_file_counts_at_once() {
    let server = start(GUARDED, "");
    let old = bearer(&token(&json!({})));
    assert_eq!(get(&server, "/", &old).status, 200);
    fs::write(server.dir().join("keys.json"), keys(&[key("renewed", None)])).unwrap();
    assert_eq!(get(&server, "/", &old).status, 401);
    assert_eq!(get(&server, "/", &bearer(&signed("renewed", None, &json!({})))).status, 200);
}

const CHAT: &str = "
    auth_jwt_key_file keys.json;
    server {
        listen %%LISTEN_0%%;
        auth_jwt chat token=$websocket_protocol_bearer;
        location / { proxy_pass http://%%UP%%; proxy_set_header X-User $jwt_claim_sub; }
    }";

/// Browsers can set no other header of a WebSocket.
#[test]
fn a_websocket_brings_its_token_as_a_subprotocol_that_goes_no_further() {
    let good = token(&json!({"sub": "ada"}));
    let only = format!("bearer.{good}");
    for (offered, passed, chosen, accepted) in [
        (format!("chat, bearer.{good}"), Some("chat"), Some("chat"), Some("chat")),
        (format!("bearer.{good}"), None, None, Some(&*only)),
        (format!("v1, bearer.{good}"), Some("v1"), None, None),
        (format!("bearer, {good}"), None, None, Some("bearer")),
        (format!("v1, Bearer, {good}, v2"), Some("v1, v2"), Some("v2"), Some("v2")),
        (format!("v1, bearer, {good}"), Some("v1"), None, Some("bearer")),
    ] {
        let listener = Listener::bind();
        let server = start(CHAT, listener.addr());
        let mut client =
            Handshake::to(server.listen(0)).field("Sec-WebSocket-Protocol", &offered).send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        assert_eq!(request.field("sec-websocket-protocol"), passed, "{offered}");
        assert_eq!(request.field("x-user"), Some("ada"));
        assert!(!request.head.lines().iter().any(|line| line.contains(&good)), "{request:?}");
        let chosen = chosen.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        upstream.accept_websocket(&request, &chosen.unwrap_or_default());
        let response = client.recv_response();
        assert_eq!(response.status, 101);
        assert_eq!(response.field("sec-websocket-protocol"), accepted, "{offered}");
        client.send([text("hello")]);
        upstream.expect([text("hello")]);
        drop((client, upstream));
        server.wait_for_access("101");
        assert!(!server.error_log().contains("unusual 101"), "{offered}");
        assert!(!server.error_log().contains(&good) && !server.access_log().contains(&good));
    }
}

#[test]
fn a_websocket_without_a_token_is_refused_before_anybody_is_asked() {
    let upstream = Upstream::echo();
    let server = start(CHAT, upstream.addr());
    for offered in
        ["chat", "bearer", "bearer.x.y", &format!("bearer.{}", signed("x", None, &json!({})))]
    {
        let response =
            Handshake::to(server.listen(0)).field("Sec-WebSocket-Protocol", offered).answer().1;
        assert_eq!(response.status, 401, "{offered}");
    }
    assert_eq!(upstream.connections(), 0);
}

const FETCHED: &str = "
    server {
        listen %%LISTEN_0%%;
        auth_jwt x;
        auth_jwt_key_request /keys?set=1;
        location / { empty_gif; }
        location /kept { auth_jwt_key_cache 1h; empty_gif; }
        location = /keys { internal; auth_jwt off; proxy_pass http://%%UP%%; }
    }";

fn answer(conn: &mut wssgate_testkit::Conn, status: &str, body: &str) -> http::Request {
    let request = conn.recv_request();
    conn.send_raw(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ));
    request
}

#[test]
fn keys_are_fetched_without_anything_of_the_client() {
    let listener = Listener::bind();
    let server = start(FETCHED, listener.addr());
    let good = token(&json!({}));
    let ask = |status, body: &str| {
        let mut client = wssgate_testkit::Conn::connect(server.listen(0));
        client.send_raw(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: secret=1\r\n{}Connection: close\r\n\r\n",
            bearer(&good)
        ));
        let request = answer(&mut listener.accept(), status, body);
        (request, client.recv_response().status)
    };
    let (request, status) = ask("200 OK", &keys(&[key("secret", None)]));
    assert_eq!(status, 200);
    assert_eq!((request.method(), request.target()), ("GET", "/keys?set=1"));
    assert_eq!((request.field("authorization"), request.field("cookie")), (None, None));
    // More than a subrequest may otherwise have.
    let many: Vec<_> = (0..90).map(|n| key(&"k".repeat(300), Some(&n.to_string()))).collect();
    let long: Vec<_> = [key("secret", None)].into_iter().chain(many).collect();
    assert_eq!(ask("200 OK", &keys(&long)).1, 200);
    for (status, body, reason) in [
        ("404 Not Found", "no", "unexpected status 404 of \"/keys?set=1\" with keys for JWT"),
        ("200 OK", "<html>", "\"/keys?set=1\" has no keys for JWT: not JSON"),
        ("200 OK", "{\"keys\":[]}", "has no keys for JWT: no key can verify signatures"),
    ] {
        assert_eq!(ask(status, body).1, 500, "{body}");
        server.wait_for_log(reason);
    }
}

#[test]
fn kept_keys_are_fetched_again_for_a_key_that_is_new() {
    let listener = Listener::bind();
    let server = start(FETCHED, listener.addr());
    let of = |secret: &str, kid: &str| bearer(&signed(secret, Some(kid), &json!({})));
    let (old, new) = (of("one", "1"), of("two", "2"));
    let ask = |fields: &str| {
        let mut client = wssgate_testkit::Conn::connect(server.listen(0));
        client.send_raw(format!(
            "GET /kept HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n"
        ));
        client
    };
    let mut client = ask(&old);
    answer(&mut listener.accept(), "200 OK", &keys(&[key("one", Some("1"))]));
    assert_eq!(client.recv_response().status, 200);
    for _ in 0..3 {
        assert_eq!(get(&server, "/kept", &old).status, 200, "nobody was asked");
    }
    // Whoever signs tokens has a new key: it is fetched for the first token that names it.
    let both = keys(&[key("one", Some("1")), key("two", Some("2"))]);
    let mut client = ask(&new);
    answer(&mut listener.accept(), "200 OK", &both);
    assert_eq!(client.recv_response().status, 200);
    assert_eq!(
        (get(&server, "/kept", &old).status, get(&server, "/kept", &new).status),
        (200, 200)
    );
    // Too soon for another one: made-up key IDs cause no flood of requests.
    assert_eq!(get(&server, "/kept", &of("three", "3")).status, 401);
    server.wait_for_log("JWT is not valid: no key has the ID \"3\"");
    // A reload asks again, and so does the one who finds nothing.
    let mut server = server;
    server.rewrite();
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    let mut client = wssgate_testkit::Conn::connect(server.listen(0));
    client.send_raw(format!("GET /kept HTTP/1.1\r\nHost: a\r\n{old}Connection: close\r\n\r\n"));
    answer(&mut listener.accept(), "200 OK", &keys(&[key("two", Some("2"))]));
    // The key that was withdrawn is not fetched either.
    answer(&mut listener.accept(), "200 OK", &keys(&[key("two", Some("2"))]));
    assert_eq!(client.recv_response().status, 401);
}
