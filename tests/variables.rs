//! Every variable that Debian's nginx knows has the value that it has there, asked for by one log line
//! of all of them at the end of requests of every kind.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use wssgate_testkit::{Conn, Handshake, Instance, Pki, Upstream, text, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// The variables, but for those that nginx has since a newer version than Debian's.
const VARIABLES: &[&str] = &[
    "arg_x",
    "args",
    "binary_remote_addr",
    "body_bytes_sent",
    "bytes_sent",
    "connection",
    "connection_requests",
    "connection_time",
    "connections_active",
    "connections_reading",
    "connections_waiting",
    "connections_writing",
    "content_length",
    "content_type",
    "cookie_c",
    "document_root",
    "document_uri",
    "host",
    "hostname",
    "http2",
    "http_cookie",
    "http_host",
    "http_none",
    "http_referer",
    "http_user_agent",
    "http_via",
    "http_x_forwarded_for",
    "https",
    "is_args",
    "limit_rate",
    "msec",
    "pid",
    "pipe",
    "proxy_add_x_forwarded_for",
    "proxy_host",
    "proxy_port",
    "proxy_protocol_addr",
    "proxy_protocol_port",
    "proxy_protocol_server_addr",
    "proxy_protocol_server_port",
    "query_string",
    "realip_remote_addr",
    "realip_remote_port",
    "realpath_root",
    "remote_addr",
    "remote_port",
    "remote_user",
    "request",
    "request_body",
    "request_body_file",
    "request_completion",
    "request_filename",
    "request_id",
    "request_length",
    "request_method",
    "request_time",
    "request_uri",
    "scheme",
    "sent_http_cache_control",
    "sent_http_connection",
    "sent_http_content_length",
    "sent_http_content_type",
    "sent_http_keep_alive",
    "sent_http_last_modified",
    "sent_http_link",
    "sent_http_location",
    "sent_http_transfer_encoding",
    "sent_http_x_up",
    "sent_trailer_x",
    "server_addr",
    "server_name",
    "server_port",
    "server_protocol",
    "ssl_alpn_protocol",
    "ssl_cipher",
    "ssl_ciphers",
    "ssl_client_cert",
    "ssl_client_escaped_cert",
    "ssl_client_fingerprint",
    "ssl_client_i_dn",
    "ssl_client_i_dn_legacy",
    "ssl_client_raw_cert",
    "ssl_client_s_dn",
    "ssl_client_s_dn_legacy",
    "ssl_client_serial",
    "ssl_client_v_end",
    "ssl_client_v_remain",
    "ssl_client_v_start",
    "ssl_client_verify",
    "ssl_curve",
    "ssl_curves",
    "ssl_early_data",
    "ssl_protocol",
    "ssl_server_name",
    "ssl_session_id",
    "ssl_session_reused",
    "status",
    "time_iso8601",
    "time_local",
    "upstream_addr",
    "upstream_bytes_received",
    "upstream_bytes_sent",
    "upstream_cache_status",
    "upstream_connect_time",
    "upstream_cookie_c",
    "upstream_header_time",
    "upstream_http_x_up",
    "upstream_response_length",
    "upstream_response_time",
    "upstream_status",
    "upstream_trailer_x",
    "uri",
];

/// Where the values are others than nginx's, and why; `*` stands for every kind of request.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("GET", "sent_http_connection", "nginx forgets that it has kept the connection"),
    ("second request", "sent_http_connection", "nginx forgets that it has kept the connection"),
    ("*", "ssl_curves", "OpenSSL 3.0 has no name for X25519MLKEM768"),
    ("*", "ssl_session_id", "it is random"),
    ("*", "upstream_trailer_x", "Debian's nginx reads no trailers of HTTP/1.1"),
];

/// The values of one line, by variable.
type Values = BTreeMap<&'static str, String>;

/// A running program that logs all variables, and how far its log was read.
struct Logging {
    server: Instance,
    seen: usize,
}

const CONF: &str = "
    log_format all escape=default '%%FORMAT%%';
    access_log %%DIR%%/all.log all;
    ssl_certificate %%CERTIFICATE%%; ssl_certificate_key %%KEY%%;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets off; client_body_buffer_size 64k;
    proxy_http_version 1.1; proxy_set_header Connection $http_connection;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Host up;
    server {
        listen %%LISTEN_0%%; listen %%LISTEN_1%% ssl; server_name first.example;
        root %%DIR%%/root; default_type text/plain;
        location / { limit_rate 0; }
        location /up { proxy_pass http://%%UP%%; }
        location /chat { proxy_pass http://%%ECHO%%; }
        location /down { proxy_pass http://%%DOWN%%; }
        location /moved { return 301 /up?x=2; }
        error_page 404 /missing.html;
        location /own { error_page 404 = /up; }
        location /text { return 200 text; }
    }";

impl Logging {
    fn start(exe: &str, pki: &Pki, up: &Upstream, echo: &Upstream) -> Self {
        let leaf = pki.leaf(&["localhost"]);
        let format: String = VARIABLES.iter().map(|name| format!("${{{name}}}\\t")).collect();
        let down = wssgate_testkit::free_addr();
        let server = Instance::setup(exe)
            .file("root/index.html", "index\n")
            .file("root/missing.html", "missing\n")
            .main_and_http("worker_processes 1;", CONF)
            .var("FORMAT", format.replace("\\t", "\t"))
            .var("CERTIFICATE", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .var("UP", up.addr())
            .var("ECHO", echo.addr())
            .var("DOWN", down)
            .start();
        Self { server, seen: 0 }
    }

    /// The values of the next line.
    fn next(&mut self) -> Values {
        let (seen, mut line) = (self.seen, None);
        wssgate_testkit::wait_until("an access line", || {
            let log =
                std::fs::read_to_string(self.server.dir().join("all.log")).unwrap_or_default();
            let whole = log.ends_with('\n');
            line = log.lines().nth(seen).filter(|_| whole).map(str::to_owned);
            line.is_some()
        });
        self.seen += 1;
        let line = line.unwrap();
        let values = line.split('\t').map(str::to_owned);
        VARIABLES.iter().copied().zip(values).collect()
    }

    fn connect(&self) -> Conn {
        Conn::connect(self.server.listen(0))
    }

    /// What the values show of this run alone.
    fn names(&self) -> Vec<(String, &'static str)> {
        let dir = std::fs::canonicalize(self.server.dir()).unwrap();
        vec![
            (self.server.dir().display().to_string(), "DIR"),
            (dir.display().to_string(), "DIR"),
            (self.server.listen(0).port().to_string(), "PORT"),
            (self.server.listen(1).port().to_string(), "TLSPORT"),
        ]
    }
}

/// What of a value is the same in every run.
fn plain(name: &str, value: &str, names: &[(String, &str)]) -> String {
    let shape = |value: &str| {
        let mut shape: String =
            value.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        while shape.contains("00") {
            shape = shape.replace("00", "0");
        }
        shape
    };
    match name {
        "msec"
        | "pid"
        | "request_id"
        | "time_iso8601"
        | "time_local"
        | "connection"
        | "remote_port"
        | "realip_remote_port"
        | "request_time"
        | "connection_time"
        | "upstream_connect_time"
        | "upstream_header_time"
        | "upstream_response_time"
        | "connections_active"
        | "connections_reading"
        | "connections_waiting"
        | "connections_writing"
        | "upstream_addr"
        | "proxy_host"
        | "proxy_port"
        | "sent_http_last_modified" => {
            let value = if name == "request_id" { "0" } else { value };
            shape(value).replace(|c: char| c.is_ascii_alphabetic(), "a").replace("aaa", "a")
        }
        _ => names.iter().fold(value.to_owned(), |value, (text, name)| value.replace(text, name)),
    }
}

/// Makes one request of every kind, and returns the values at its end.
fn all_kinds(logging: &mut Logging, pki: &Pki) -> Vec<(&'static str, Values)> {
    let mut kinds = Vec::new();
    let fields = "Host: First.Example:80\r\nCookie: c=1; d=2\r\nReferer: http://r/\r\n\
                  User-Agent: test \"1\"\r\nX-Forwarded-For: 10.0.0.1\r\nVia: 1.0 v\r\n";
    let mut keep = |logging: &mut Logging, kind| kinds.push((kind, logging.next()));
    let mut client = logging.connect();
    client.send_raw(format!("GET /?x=1&y HTTP/1.1\r\n{fields}\r\n"));
    client.recv_response();
    keep(logging, "GET");
    client.send_raw(format!("GET /text HTTP/1.1\r\n{fields}Authorization: Basic dTpw\r\n\r\n"));
    client.recv_response();
    keep(logging, "second request");
    client.send_raw(format!("HEAD /index.html HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"));
    client.recv_to_end();
    keep(logging, "HEAD");
    let once = |logging: &Logging, request: &str| {
        let mut client = logging.connect();
        client.send_raw(request);
        client.recv_to_end();
    };
    let body = "Content-Type: text/x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    once(logging, &format!("POST /up?x=a%20b HTTP/1.1\r\n{fields}{body}"));
    keep(logging, "POST to an upstream");
    let chunks = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    once(logging, &format!("POST /up HTTP/1.1\r\n{fields}{chunks}"));
    keep(logging, "chunks to an upstream");
    once(logging, "GET /up/./a//b HTTP/1.0\r\n\r\n");
    keep(logging, "HTTP/1.0 to an upstream");
    once(logging, "GET /down HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    keep(logging, "upstream that is away");
    once(logging, "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    keep(logging, "404 with a page");
    once(logging, "GET /own/none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    keep(logging, "404 by an upstream");
    once(logging, "GET /moved HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    keep(logging, "redirect");
    once(logging, "GET /up HTTP/1.1\r\nHost: a\r\nBad Header: 1\r\nMore: 2\r\n\r\n");
    keep(logging, "400 in a field");
    once(logging, "GET /up HTTP/1.1\r\nMore: 2\r\n\r\n");
    keep(logging, "400 without a host");
    once(logging, "GET /up HTTP/9.1\r\n\r\n");
    keep(logging, "505");
    once(logging, "G<T /up\r\n\r\n");
    keep(logging, "400 in the method");
    once(logging, "GET up HTTP/1.1\r\nHost: a\r\n\r\n");
    keep(logging, "400 in the target");
    once(logging, "GET /up HTTP/1.1 more\r\nHost: a\r\n\r\n");
    keep(logging, "400 behind the version");
    let mut silent = Conn::connect(logging.server.listen(0));
    silent.send_raw("\r\n\r\n");
    silent.shutdown_write().unwrap();
    silent.recv_to_end();
    keep(logging, "nothing but blank lines");
    once(logging, "GET /%zz HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n");
    keep(logging, "400 in an escape");
    once(logging, "GET /../.. HTTP/1.1\r\nHost: a\r\nBad Header: 1\r\n\r\n");
    keep(logging, "400 above the root");
    once(logging, "GET /up HTTP/1.1\r\nHost: a\r\nHost: b\r\nMore: 2\r\n\r\n");
    keep(logging, "400 with two hosts");
    once(logging, "GET /up HTTP/1.1\r\nMore: 2\r\nHost: a b\r\n\r\n");
    keep(logging, "400 in the host");
    once(logging, "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n");
    keep(logging, "400 for a control character");
    once(logging, "G@T / HTTP/1.1\r\nHost: a\r\n\r\n");
    keep(logging, "400 in the method, with a protocol");
    tunnel(&Handshake::to(logging.server.listen(0)).path("/chat?x=3").field("Cookie", "c=9"));
    keep(logging, "tunnel");
    secure(logging, pki);
    let tls = pki.client_config();
    keep(logging, "TLS");
    tunnel(&Handshake::to(logging.server.listen(1)).path("/chat").tls(tls, "localhost"));
    keep(logging, "tunnel with TLS");
    kinds
}

fn tunnel(handshake: &Handshake) {
    let mut client = handshake.open();
    client.expect([text("welcome")]);
    client.send([text("hello")]);
    client.expect([text("hello")]);
    client.send([wssgate_testkit::close(1000, "")]);
    client.recv_to_end();
}

fn secure(logging: &Logging, pki: &Pki) {
    let client = Conn::connect(logging.server.listen(1));
    let mut client = client.try_start_tls(pki.client_config(), "localhost").unwrap();
    client.send_raw("GET /up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.recv_to_end();
}

#[test]
fn at_the_end_of_a_request_every_variable_has_nginx_value() {
    let pki = Pki::new();
    let up = Upstream::http(|_| {
        "HTTP/1.1 200 OK\r\nX-Up: up\r\nSet-Cookie: c=up; path=/\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nX: trailer\r\n\r\n"
    });
    // What it sends right behind its 101 arrives with it.
    let echo = Upstream::websocket(|conn| {
        conn.send([text("welcome")]);
        conn.echo();
    });
    let seen: Vec<_> = with_nginx(WSSGATE)
        .map(|exe| {
            let mut logging = Logging::start(exe, &pki, &up, &echo);
            let kinds = all_kinds(&mut logging, &pki);
            let names = logging.names();
            let told = kinds.into_iter().flat_map(|(kind, values)| {
                let names = &names;
                values
                    .into_iter()
                    .map(move |(name, value)| ((kind, name), plain(name, &value, names)))
                    .collect::<Vec<_>>()
            });
            told.collect::<BTreeMap<_, _>>()
        })
        .collect();
    let Some(nginx) = seen.get(1) else { return };
    let known = |kind, name| {
        DIFFERENT.iter().any(|&(of, variable, _)| variable == name && (of == "*" || of == kind))
    };
    let wrong: Vec<_> = seen[0]
        .iter()
        .filter(|&(&(kind, name), value)| *value != nginx[&(kind, name)] && !known(kind, name))
        .map(|((kind, name), value)| {
            format!("{kind}: ${name} is {value:?}, nginx's {:?}", nginx[&(*kind, *name)])
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let superfluous: Vec<_> = DIFFERENT
        .iter()
        .filter(|&&(kind, name, _)| {
            !seen[0].iter().any(|(&(of, variable), value)| {
                variable == name && (kind == "*" || kind == of) && *value != nginx[&(of, variable)]
            })
        })
        .collect();
    assert!(superfluous.is_empty(), "these are the same by now: {superfluous:?}");
}
