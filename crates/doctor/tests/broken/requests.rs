//! Answers to the handshake.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use wssgate_testkit::{Request, Upstream};

use crate::*;

#[test]
fn a_page_instead_of_a_websocket() {
    let server = answering(|_| {
        Some(response("200 OK", "Content-Type: text/html\r\nServer: hop\r\n", "<html>hello"))
    });
    let report = Client::new().ws(&server);
    let words = ["ordinary request", "page of HTML", "proxy_set_header Upgrade $http_upgrade;"];
    expect_fault(&report, "upgrade_ignored", &words);
    let hops = serde_json::to_value(report.steps.last().unwrap()).unwrap();
    assert_eq!((&hops["step"], &hops["facts"]["server"]), (&"hops".into(), &"hop".into()));
}

/// What an app server answers that sees these of the two headers.
type App = fn(upgrade: bool, connection: bool) -> Option<String>;

/// Does not say what it misses.
fn terse(upgrade: bool, connection: bool) -> Option<String> {
    match (upgrade, connection) {
        (true, true) => None,
        (false, false) => Some(response("200 OK", "", "hello")),
        _ => Some(response("400 Bad Request", "", "Bad Request")),
    }
}

/// Says what it misses, whatever else there is, as the library `websockets` does.
fn telling(upgrade: bool, connection: bool) -> Option<String> {
    let why = match (upgrade, connection) {
        (true, true) => return None,
        (_, false) => "missing Connection header",
        (false, true) => "missing Upgrade header",
    };
    let body = format!("Failed to open a WebSocket connection: {why}.\n");
    Some(response("426 Upgrade Required", "Upgrade: websocket\r\n", &body))
}

/// Says nothing at all.
fn silent(upgrade: bool, connection: bool) -> Option<String> {
    (!(upgrade && connection))
        .then(|| response("426 Upgrade Required", "Upgrade: websocket\r\n", ""))
}

#[test]
fn a_header_that_a_hop_loses() {
    let cases: [(App, &str, &str, &str); 6] = [
        (terse, "Connection", "connection_header_lost", "`Connection` seems to be lost"),
        (terse, "Upgrade", "upgrade_header_lost", "`Upgrade` seems to be lost"),
        (telling, "Connection", "connection_header_lost", "missing Connection header"),
        (telling, "Upgrade", "upgrade_header_lost", "missing Upgrade header"),
        (silent, "Connection", "upgrade_ignored", "426"),
        (silent, "Upgrade", "upgrade_ignored", "426"),
    ];
    for (app, lost, code, words) in cases {
        let server = answering(move |request| {
            let has = |name: &str| name != lost && request.field(name).is_some();
            app(has("Upgrade"), has("Connection"))
        });
        expect_fault(&Client::new().ws(&server), code, &[words, "set"]);
    }
}

#[test]
fn statuses_have_their_meanings() {
    for (status, more, body, code, words) in [
        ("400 Bad Request", "", "no such room", "upgrade_ignored", "no such room"),
        ("426 Upgrade Required", "Sec-WebSocket-Version: 8, 7\r\n", "", "websocket_version", "13"),
        (
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=x\r\n",
            "",
            "login_required",
            "Basic realm=x",
        ),
        ("403 Forbidden", "", "go away", "forbidden", "go away"),
        ("404 Not Found", "", "", "path_not_found", "/chat"),
        ("405 Method Not Allowed", "", "", "upgrade_ignored", "405"),
        ("429 Too Many Requests", "", "", "too_many_requests", "limit"),
        ("500 Internal Server Error", "", "", "server_error", "the app server's log"),
        (
            "502 Bad Gateway",
            "Server: nginx/1.22.1\r\n",
            "",
            "backend_down",
            "(it calls itself nginx/1.22.1) cannot reach",
        ),
        ("503 Service Unavailable", "", "", "backend_unavailable", "503"),
        ("504 Gateway Time-out", "", "", "backend_timeout", "did not respond"),
        ("526 Invalid SSL", "", "", "backend_tls", "TLS"),
        ("700 What", "", "", "unexpected_status", "700 What"),
        ("302 Found", "Location: /login?next=x\r\n", "", "login_required", "/login?next=x"),
        ("301 Moved", "Location: https://b.test/y\r\n", "", "redirect", "wss://b.test/y"),
        ("304 Not Modified", "", "", "redirect", "without a Location"),
    ] {
        let server = answering(move |_| Some(response(status, more, body)));
        expect_fault(&Client::new().ws(&server), code, &[words]);
    }
}

#[test]
fn a_handshake_that_is_understood_and_refused() {
    let server = answering(|request| match request.field("Upgrade") {
        Some(_) => Some(response("400 Bad Request", "", "no such room")),
        None => Some(response("200 OK", "", "hello")),
    });
    expect_fault(
        &Client::new().ws(&server),
        "bad_request",
        &["no such room", "the app server's log"],
    );
}

#[test]
fn an_origin_that_is_refused() {
    let only = |origin: &'static str| {
        answering(move |request: &Request| {
            let is_good = request.field("Origin").is_none_or(|sent| sent.starts_with(origin));
            (!is_good).then(|| response("403 Forbidden", "", ""))
        })
    };
    // The app server is told of another host than the client has asked for.
    let server = only("http://gateway");
    let words =
        ["origin http://a.test", "(403)", "accepts the handshake without Origin", "Host $host"];
    expect_fault(&Client::new().ws(&server), "origin_refused", &words);
    // Given by hand, the own one is tried too.
    let mut client = Client::new();
    client.settings.origin = Some("https://other.test".into());
    let server = answering(|request| {
        let is_good =
            request.field("Origin").is_some_and(|sent| sent.starts_with("http://a.test:"));
        (!is_good).then(|| response("404 Not Found", "", ""))
    });
    let words = ["origin https://other.test", "with Origin http://a.test:"];
    expect_fault(&client.ws(&server), "origin_refused", &words);
}

#[test]
fn redirects_that_lead_nowhere() {
    let loops = |to: &'static str| {
        answering(move |request| {
            let host = request.field("Host").unwrap();
            let location = to.replace("HOST", host);
            Some(response("301 Moved Permanently", &format!("Location: {location}\r\n"), ""))
        })
    };
    let client = Client::new();
    let to_tls = loops("https://a.test/chat");
    expect_fault(&client.ws(&to_tls), "redirect_to_tls", &["use wss://a.test/chat"]);
    for to in ["http://HOST/chat", "/chat", "chat"] {
        expect_fault(
            &client.ws(&loops(to)),
            "redirect_loop",
            &["/chat to itself", "X-Forwarded-Proto"],
        );
    }
    // Each step adds a slash, for ever.
    let server = answering(|request| {
        Some(response(
            "308 Permanent Redirect",
            &format!("Location: {}/\r\n", request.target()),
            "",
        ))
    });
    expect_fault(&client.ws(&server), "redirect_loop", &["308"]);
    // One more slash and there it is.
    let server = answering(|request| match request.target() {
        "/chat/" => None,
        _ => Some(response("308 Permanent Redirect", "Location: /chat/\r\n", "")),
    });
    expect_fault(&client.ws(&server), "redirect", &["/chat/", "do not follow redirects"]);
}

#[test]
fn a_101_that_browsers_refuse() {
    let switch = |lines: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{lines}\r\n"
        )
    };
    let wrong = switch("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n");
    let server = answering(move |_| Some(wrong.clone()));
    let words = ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "does not match the key", "cache"];
    expect_fault(&Client::new().ws(&server), "accept_wrong", &words);
    let without = switch("");
    let server = answering(move |_| Some(without.clone()));
    expect_fault(&Client::new().ws(&server), "accept_missing", &["Sec-WebSocket-Accept"]);
    let server = answering(|_| Some("HTTP/1.1 101 Switching Protocols\r\n\r\n".into()));
    expect_fault(&Client::new().ws(&server), "switch_invalid", &["no \"Upgrade\" header"]);
}

#[test]
fn subprotocols_and_extensions_that_were_not_agreed() {
    let accepting = |lines: &'static str| {
        Upstream::serve(move |conn| {
            let Ok(Some(request)) = conn.try_recv_request() else { return };
            conn.accept_websocket(&request, lines);
            conn.echo();
        })
    };
    let mut client = Client::new();
    let server = accepting("Sec-WebSocket-Protocol: mqtt\r\n");
    expect_fault(&client.ws(&server), "subprotocol_not_offered", &["mqtt"]);
    let unknown = accepting("Sec-WebSocket-Extensions: x-zip\r\n");
    expect_fault(&client.ws(&unknown), "extension_not_offered", &["x-zip"]);
    client.settings.protocols = vec!["mqtt".into()];
    assert_eq!(codes(&client.ws(&server)), [""; 0]);
    expect_fault(&client.ws(&accepting("")), "subprotocol_not_chosen", &["browsers"]);
    let deflate = accepting("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    client.settings.protocols.clear();
    assert_eq!(codes(&client.ws(&deflate)), [""; 0]);
}

#[test]
fn no_answer_at_all() {
    let mut client = Client::new();
    let closing = Upstream::says("");
    expect_fault(&client.ws(&closing), "no_response", &["ended by FIN"]);
    let resetting = Mutex::new(());
    let resetting = Upstream::serve(move |conn| {
        drop(conn.try_recv_request());
        let tcp = conn.tcp().unwrap().try_clone().unwrap();
        drop(resetting.lock());
        reset(&tcp);
    });
    expect_fault(&client.ws(&resetting), "no_response", &["ended by RST"]);
    let other = Upstream::says("220 mail.test ESMTP\r\n");
    expect_fault(&client.ws(&other), "not_http", &["220 mail.test"]);
    client.settings.timeout = Duration::from_secs(3);
    let waiting = Upstream::serve(|conn| drop(conn.recv_to_end()));
    expect_fault(&client.ws(&waiting), "response_timeout", &["within 3 s"]);
}

/// Lingering for no time, the close is an RST.
pub(crate) fn reset(tcp: &std::net::TcpStream) {
    socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_slow_app_server() {
    let slow = Duration::from_millis(300);
    let server = Upstream::serve(move |conn| {
        let Ok(Some(request)) = conn.try_recv_request() else { return };
        thread::sleep(slow);
        conn.accept_websocket(&request, "");
        conn.echo();
    });
    let mut client = Client::new();
    client.settings.slow = slow;
    let report = client.ws(&server);
    assert!(codes(&report).contains(&"slow_response"), "{report:#?}");
    assert_eq!(report.verdict, Verdict::Warning);
}

#[test]
fn headers_are_sent_as_they_were_given() {
    let server = answering(|request| match request.field("Cookie") {
        Some("a=b") => None,
        _ => Some(response("401 Unauthorized", "", "")),
    });
    let mut client = Client::new();
    expect_fault(&client.ws(&server), "login_required", &["--header"]);
    client.settings.headers = vec![("Cookie".into(), "a=b".into())];
    assert_eq!(codes(&client.ws(&server)), [""; 0]);
    let sent = server.next_request();
    assert_eq!(sent.field("Host"), Some(format!("a.test:{}", server.port()).as_str()));
}
