//! `websocket_token`: tokens that browsers can put nowhere else go to the upstream in a header, and into no log.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, Handshake, Instance, Listener, Upstream, http};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

const SERVER: &str = "
    error_log error.log info;
    log_format all '\"$request\" $request_uri $args $arg_access_token $http_cookie $cookie_sid \"$http_authorization\" '
                   '$http_sec_websocket_protocol $http_referer $copy \"$remote_addr\" $status';
    map $arg_access_token $copy { default $arg_access_token; }
    websocket_token arg=access_token cookie=sid subprotocol=bearer;
    server {
        listen %%LISTEN_0%%;
        access_log access.log all;
        location / { proxy_pass http://%%UP%%; }
        location /sub/ { proxy_pass http://%%UP%%/inner/; }
        location /own { websocket_token header arg=access_token; proxy_pass http://%%UP%%; }
        location /named { websocket_token cookie=sid to=X-Session; proxy_pass http://%%UP%%; }
        location /scheme { websocket_token arg=t scheme=Token; proxy_pass http://%%UP%%; }
        location /off { websocket_token off; proxy_pass http://%%UP%%; }
        location /asked { auth_request /auth; proxy_pass http://%%UP%%; }
        location = /auth { internal; proxy_pass http://%%UP%%; }
        location /rewritten { rewrite ^/rewritten/(.*) /r?access_token=$1 break; proxy_pass http://%%UP%%; }
        location /whole { set $app http://%%UP%%; proxy_pass $app/w?$args; }
        location /lines {
            proxy_pass http://%%UP%%;
            proxy_set_header Cookie $http_cookie;
            proxy_set_header Sec-WebSocket-Protocol $http_sec_websocket_protocol;
        }
    }";

/// Longer than what might be a word.
const TOKEN: &str = "header.claims.proof-of-it";

fn start(up: impl std::fmt::Display) -> Instance {
    Instance::setup(EXE).http(SERVER).var("UP", up).start()
}

struct Case {
    path: String,
    fields: Vec<(&'static str, String)>,
    target: &'static str,
    /// Of the request to the upstream, each with its value.
    sent: Vec<(&'static str, Option<String>)>,
}

fn case(
    path: impl Into<String>,
    fields: &[(&'static str, &str)],
    target: &'static str,
    sent: &[(&'static str, Option<&str>)],
) -> Case {
    let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let sent = sent.iter().map(|(name, value)| (*name, value.map(str::to_owned))).collect();
    Case { path: path.into(), fields, target, sent }
}

#[test]
fn a_token_is_moved_from_wherever_it_is() {
    let lifted = format!("Bearer {TOKEN}");
    let bearer = ("authorization", Some(&lifted[..]));
    let (sid, dotted, apart) = (
        format!("a=1; sid={TOKEN}; b=2"),
        format!("v1, bearer.{TOKEN}"),
        format!("bearer, {TOKEN}, v1"),
    );
    let foreign = ("Authorization", "Bearer of-the-client");
    for case in [
        case(format!("/ws?access_token={TOKEN}"), &[], "/ws", &[bearer]),
        case(format!("/ws?a=1&Access_Token={TOKEN}&b=2"), &[], "/ws?a=1&b=2", &[bearer]),
        case(format!("/sub/ws?access_token={TOKEN}&v=2"), &[], "/inner/ws?v=2", &[bearer]),
        case(format!("/whole?access_token={TOKEN}&v=2"), &[], "/w?v=2", &[bearer]),
        case(format!("/rewritten/{TOKEN}"), &[], "/r", &[bearer]),
        case(
            "/ws?access_token=a%2Bb%2F%3D",
            &[],
            "/ws",
            &[("authorization", Some("Bearer a+b/="))],
        ),
        case("/ws", &[("Cookie", &sid)], "/ws", &[bearer, ("cookie", Some("a=1; b=2"))]),
        case("/lines", &[("Cookie", &sid)], "/lines", &[bearer, ("cookie", Some("a=1; b=2"))]),
        case(
            "/ws",
            &[("Sec-WebSocket-Protocol", &dotted)],
            "/ws",
            &[bearer, ("sec-websocket-protocol", Some("v1"))],
        ),
        case(
            "/lines",
            &[("Sec-WebSocket-Protocol", &apart)],
            "/lines",
            &[bearer, ("sec-websocket-protocol", Some("v1"))],
        ),
        // The first place wins, and all are taken out.
        case(
            format!("/ws?access_token={TOKEN}"),
            &[("Cookie", "sid=other"), ("Sec-WebSocket-Protocol", "bearer.another")],
            "/ws",
            &[bearer, ("cookie", None), ("sec-websocket-protocol", None)],
        ),
        case("/ws?access_token=", &[("Cookie", &sid)], "/ws", &[bearer]),
        // What would be two fields, or two words, is no token.
        case("/ws?access_token=a%0d%0aX:%20b", &[], "/ws", &[("authorization", None), ("x", None)]),
        case("/ws?access_token=a%20b", &[("Cookie", &sid)], "/ws", &[bearer]),
        // The client's own header counts only where that is said.
        case(format!("/ws?access_token={TOKEN}"), &[foreign], "/ws", &[bearer]),
        case("/ws", &[foreign], "/ws", &[("authorization", None)]),
        case("/own", &[foreign], "/own", &[("authorization", Some("Bearer of-the-client"))]),
        case(format!("/own?access_token={TOKEN}"), &[], "/own", &[bearer]),
        case(
            "/named",
            &[("Cookie", &sid), foreign],
            "/named",
            &[("x-session", Some(TOKEN)), ("authorization", Some("Bearer of-the-client"))],
        ),
        case("/named", &[("X-Session", "forged")], "/named", &[("x-session", None)]),
        case("/scheme?t=abc", &[], "/scheme", &[("authorization", Some("Token abc"))]),
        case(
            "/off?access_token=abc",
            &[foreign],
            "/off?access_token=abc",
            &[("authorization", Some("Bearer of-the-client"))],
        ),
    ] {
        let listener = Listener::bind();
        let server = start(listener.addr());
        let handshake = Handshake::to(server.listen(0)).path(&case.path);
        let handshake =
            case.fields.iter().fold(handshake, |all, (name, value)| all.field(name, value));
        let mut client = handshake.send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        assert_eq!(request.target(), case.target, "{}", case.path);
        for (name, value) in &case.sent {
            assert_eq!(
                request.field(name),
                value.as_deref(),
                "{name} of {}: {request:?}",
                case.path
            );
        }
        upstream.accept_websocket(&request, "");
        assert_eq!(client.recv_response().status, 101, "{}", case.path);
    }
}

/// Only WebSockets cannot send headers of their own.
#[test]
fn ordinary_requests_go_on_as_they_come() {
    let listener = Listener::bind();
    let server = start(listener.addr());
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("GET /ws?access_token=abc HTTP/1.1\r\nHost: a\r\nCookie: sid=x\r\nAuthorization: Basic x\r\n\r\n");
    let request = listener.accept().recv_request();
    assert_eq!(request.target(), "/ws?access_token=abc");
    assert_eq!(
        (request.field("cookie"), request.field("authorization")),
        (Some("sid=x"), Some("Basic x"))
    );
}

#[test]
fn who_decides_about_access_gets_the_token_too() {
    let listener = Listener::bind();
    let server = start(listener.addr());
    let _client =
        Handshake::to(server.listen(0)).path(&format!("/asked?access_token={TOKEN}")).send();
    let request = listener.accept().recv_request();
    assert_eq!(request.target(), "/auth");
    assert_eq!(request.field("authorization"), Some(&*format!("Bearer {TOKEN}")));
}

/// RFC 6455 §4.2.2 item 5: what is accepted was offered, and browsers fail a WebSocket none of whose offers is.
#[test]
fn the_client_is_answered_with_what_it_has_offered() {
    let listener = Listener::bind();
    let server = start(listener.addr());
    let alone = format!("bearer.{TOKEN}");
    for (offered, selected, accepted) in [
        (format!("bearer, {TOKEN}"), "", Some("bearer")),
        (format!("bearer, {TOKEN}, v1"), "Sec-WebSocket-Protocol: v1\r\n", Some("v1")),
        (alone.clone(), "", Some(&*alone)),
        (format!("v1, bearer.{TOKEN}"), "", None),
        ("v1".to_owned(), "", None),
    ] {
        let mut client =
            Handshake::to(server.listen(0)).field("Sec-WebSocket-Protocol", &offered).send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        upstream.accept_websocket(&request, selected);
        let response = client.recv_response();
        assert_eq!(
            (response.status, response.field("sec-websocket-protocol")),
            (101, accepted),
            "{offered}"
        );
    }
}

#[test]
fn no_log_line_has_the_token() {
    let server = start("127.0.0.1:1");
    for (path, fields) in [
        (
            format!("/ws?a=1&access_token={TOKEN}&b=2"),
            vec![("Referer", format!("http://a/?access_token={TOKEN}"))],
        ),
        ("/ws?access_token=header%2Eclaims%2Eproof-of-it".to_owned(), vec![]),
        ("/ws".to_owned(), vec![("Cookie", format!("a=1; sid={TOKEN}"))]),
        ("/ws".to_owned(), vec![("Sec-WebSocket-Protocol", format!("bearer.{TOKEN}"))]),
        // Ordinary requests are not changed, but their lines are as careful.
        (format!("/ordinary?access_token={TOKEN}"), vec![("Upgrade", "h2c".to_owned())]),
    ] {
        let handshake = Handshake::to(server.listen(0)).path(&path);
        let handshake = fields.iter().fold(handshake, |all, (name, value)| all.field(name, value));
        assert_eq!(handshake.answer().1.status, 502, "{path}");
    }
    server.wait_for_access("\"GET /ordinary?access_token=*** HTTP/1.1\"");
    let line = server.wait_for_access("b=2");
    let expected = "\"GET /ws?a=1&access_token=***&b=2 HTTP/1.1\" /ws?a=1&access_token=***&b=2 \
                    a=1&access_token=***&b=2 *** - - \"-\" - http://a/?access_token=*** *** \"127.0.0.1\" 502";
    assert!(line.contains(expected), "{line}");
    let line = server.wait_for_log("b=2");
    assert!(line.contains("request: \"GET /ws?a=1&access_token=***&b=2 HTTP/1.1\""), "{line}");
    assert!(
        line.contains("/ws?a=1&b=2\"") && line.contains("referrer: \"http://a/?access_token=***\""),
        "{line}"
    );
    for log in [server.error_log(), server.access_log()] {
        assert!(!log.contains("proof-of-it"), "{log}");
    }
}

/// What a client sends as a token must not blank out who it is or what it asks for.
#[test]
fn a_token_cannot_be_used_to_hide() {
    let server = start("127.0.0.1:1");
    for token in ["1", "127.0.0.1", "/", "502", "GET", "/secret/path/of/some/length"] {
        let path = format!("/secret/path/of/some/length/{}", token.len());
        let asked = format!("{path}?access_token={token}");
        assert_eq!(Handshake::to(server.listen(0)).path(&asked).answer().1.status, 502);
        let request = match token.len() {
            // Long enough to be a token, and so a sign by itself.
            27 => "GET ***/27?access_token=*** HTTP/1.1".to_owned(),
            _ => format!("GET {path}?access_token=*** HTTP/1.1"),
        };
        let line = server.wait_for_access(&request);
        assert!(line.ends_with("\"127.0.0.1\" 502"), "{line}");
        let line = server.wait_for_log(&format!("request: \"{request}\""));
        assert!(line.contains("client: 127.0.0.1, "), "{line}");
    }
}

/// Where nobody says what a token is, our own lines hide what is known for one; formats are obeyed.
#[test]
fn error_lines_hide_well_known_arguments() {
    let upstream = Upstream::http(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let server = Instance::setup(EXE)
        .http("server { listen %%LISTEN_0%%; location / { deny all; } }")
        .var("UP", upstream.addr())
        .start();
    let ask = "GET /?jwt=abc&sid=def&Api_Key=ghi HTTP/1.1";
    http::exchange(server.listen(0), format!("{ask}\r\nHost: a\r\nConnection: close\r\n\r\n"));
    server.wait_for_log("request: \"GET /?jwt=***&sid=def&Api_Key=*** HTTP/1.1\"");
    server.wait_for_access(&format!("\"{ask}\" 403 "));
}
