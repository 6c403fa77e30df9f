//! `websocket_origin`: which pages may open WebSockets.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Handshake, Instance, Upstream, http, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

const SERVER: &str = "
    websocket_origin https://chat.example.com;
    proxy_set_header Host app.internal;
    server {
        listen %%LISTEN_0%%;
        location / { proxy_pass http://%%UP%%; }
        location /open { websocket_origin off; proxy_pass http://%%UP%%; }
        location /same { websocket_origin same; proxy_pass http://%%UP%%; }
        location /apps { websocket_origin none null; proxy_pass http://%%UP%%; }
        location /below { websocket_origin https://*.example.com ~http://localhost:\\d+; proxy_pass http://%%UP%%; }
        location /led { if ($http_upgrade) { return 418; } error_page 418 = @ws; empty_gif; }
        location @ws { proxy_pass http://%%UP%%; }
        location /behind {
            set_real_ip_from 127.0.0.0/8; websocket_origin same; proxy_pass http://%%UP%%;
        }
        location /limited { limit_req zone=one; proxy_pass http://%%UP%%; }
        location /nobody { satisfy any; allow all; proxy_pass http://%%UP%%; }
    }
    limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
";

struct Rig {
    server: Instance,
    upstream: Upstream,
}

impl Rig {
    fn new() -> Self {
        let upstream = Upstream::echo();
        let server = Instance::setup(EXE).http(SERVER).var("UP", upstream.addr()).start();
        Self { server, upstream }
    }

    /// A handshake for `chat.example.com` with these fields besides.
    fn handshake(&self, path: &str, fields: &[(&str, &str)]) -> Handshake {
        let start = Handshake::to(self.server.listen(0)).host("chat.example.com").path(path);
        fields.iter().fold(start, |handshake, (name, value)| handshake.field(name, value))
    }

    fn status(&self, path: &str, fields: &[(&str, &str)]) -> u16 {
        self.handshake(path, fields).answer().1.status
    }
}

#[test]
fn only_pages_that_are_listed_open_websockets() {
    let rig = Rig::new();
    for (path, origin, status) in [
        ("/", "https://chat.example.com", 101),
        ("/", "HTTPS://Chat.Example.com:443", 101),
        ("/", "http://chat.example.com", 403),
        ("/", "https://chat.example.com.evil.test", 403),
        ("/", "https://chat.example.com, https://evil.test", 403),
        ("/", "https://chat.example.com/", 403),
        ("/", "null", 403),
        ("/", "", 403),
        ("/nobody", "https://evil.test", 403),
        ("/led", "https://evil.test", 403),
        ("/led", "https://chat.example.com", 101),
        ("/open", "https://evil.test", 101),
        ("/same", "http://chat.example.com", 101),
        ("/same", "https://chat.example.com", 403),
        ("/same", "http://chat.example.com:8080", 403),
        ("/same", "http://app.internal", 403),
        ("/apps", "null", 101),
        ("/apps", "http://chat.example.com", 403),
        ("/below", "https://a.b.example.com", 101),
        ("/below", "https://example.com", 403),
        ("/below", "http://localhost:3000", 101),
        ("/below", "http://localhost:3000.evil.test", 403),
    ] {
        assert_eq!(rig.status(path, &[("Origin", origin)]), status, "{path} {origin}");
    }
    for (path, status) in [("/", 403), ("/open", 101), ("/apps", 101), ("/same", 403)] {
        assert_eq!(rig.status(path, &[]), status, "{path} without an origin");
    }
}

#[test]
fn several_origins_are_refused_whatever_is_listed() {
    let rig = Rig::new();
    let origin = ("Origin", "https://chat.example.com");
    for path in ["/", "/apps", "/same"] {
        assert_eq!(rig.status(path, &[origin, origin]), 403, "{path}");
    }
    rig.server.wait_for_log(
        "WebSocket with more than one \"Origin\" header is not allowed in location \"/same\"",
    );
}

#[test]
fn the_log_names_origin_and_location_and_nobody_was_asked() {
    let rig = Rig::new();
    assert_eq!(rig.status("/below/x", &[("Origin", "https://evil.test")]), 403);
    let line = rig.server.wait_for_log("[error]");
    assert!(line.contains("WebSocket from origin \"https://evil.test\" is not allowed in location \"/below\", client: "), "{line}");
    rig.status("/", &[]);
    rig.server
        .wait_for_log("WebSocket without an \"Origin\" header is not allowed in location \"/\"");
    let long = format!("https://{}.test", "x".repeat(3000));
    rig.status("/same", &[("Origin", &long)]);
    let line = rig.server.wait_for_log("in location \"/same\"");
    assert!(
        line.contains("xxx...\"") && line.contains("request: \"GET /same HTTP/1.1\""),
        "{line}"
    );
    assert_eq!(rig.upstream.connections(), 0);
}

/// A page that is not allowed must not use up what its visitor may do.
#[test]
fn what_is_refused_does_not_count_against_a_limit() {
    let rig = Rig::new();
    for _ in 0..3 {
        assert_eq!(rig.status("/limited", &[("Origin", "https://evil.test")]), 403);
    }
    let mut client = rig.handshake("/limited", &[("Origin", "https://chat.example.com")]).open();
    client.send([text("hello")]);
    client.expect([text("hello")]);
}

#[test]
fn behind_a_trusted_proxy_its_scheme_counts() {
    let rig = Rig::new();
    let https = ("X-Forwarded-Proto", "https");
    let own = ("Origin", "https://chat.example.com");
    assert_eq!(rig.status("/behind", &[own, https]), 101);
    assert_eq!(rig.status("/behind", &[own]), 403);
    assert_eq!(rig.status("/same", &[own, https]), 403, "nobody is trusted there");
}

#[test]
fn ordinary_requests_are_none_of_its_business() {
    let upstream = Upstream::http(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let server = Instance::setup(EXE).http(SERVER).var("UP", upstream.addr()).start();
    for upgrade in ["", "Upgrade: h2c\r\nConnection: upgrade\r\n"] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.test\r\n{upgrade}Content-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        assert_eq!(http::exchange(server.listen(0), request).status, 200, "{upgrade}");
    }
    for upgrade in ["websocket", "h2c, WebSocket"] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.test\r\nUpgrade: {upgrade}\r\n\
             Connection: close\r\n\r\n"
        );
        assert_eq!(
            http::exchange(server.listen(0), request).status,
            403,
            "badly made, but {upgrade}"
        );
    }
}
