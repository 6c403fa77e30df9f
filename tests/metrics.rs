//! `prometheus`: traffic whose truth is known, and what a scrape says of it.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use wssgate_testkit::{
    Conn, End, Handshake, Instance, Pki, Upstream, binary, close, continuation, http, ping, pong,
    text, wait_until,
};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server with metrics of its own address.
const METRICS: &str = "server { listen %%LISTEN_9%%; server_name metrics;
    location = /metrics { prometheus; access_log off; } }";

/// The samples of one scrape, by name and labels as they are written.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn of(server: &Instance) -> Self {
        let response = http::get(server.listen(9), "metrics", "/metrics");
        assert_eq!(response.status, 200);
        Self::parse(&response.text())
    }

    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        Self(pairs.collect())
    }

    /// The value of a series, which must be there.
    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        let value = self.0.get(series);
        *value.unwrap_or_else(|| panic!("no {series} in {:#?}", self.0.keys()))
    }

    fn find(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// All series of a name.
    fn all(&self, name: &str) -> Vec<(&str, f64)> {
        let of = |series: &&String| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let all = self.0.iter().filter(|(series, _)| of(series));
        all.map(|(series, value)| (&**series, *value)).collect()
    }
}

/// A scrape behind the first one in which that is so: one alone reads its numbers one after the other.
#[track_caller]
fn scrape_until(server: &Instance, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
    wait_until(what, || is_so(&Scrape::of(server)));
    Scrape::of(server)
}

fn start(main: &str, http: &str, upstream: &Upstream) -> Instance {
    let http = format!("{METRICS}\n{http}");
    Instance::setup(EXE).main_and_http(main, &http).var("UP", upstream.addr()).start()
}

#[test]
fn a_tunnel_is_counted_while_it_lives_and_told_by_cause_and_code_when_it_ends() {
    let upstream = Upstream::echo();
    let server = start(
        "worker_processes 2;",
        "upstream app { server %%UP%%; }
         server { listen %%LISTEN_0%%; server_name chat.test; location / { proxy_pass http://app; } }",
        &upstream,
    );
    let mut client = Handshake::to(server.listen(0)).host("chat.test").open();
    let other = Handshake::to(server.listen(0)).host("chat.test").open();
    client.send([text("hel").more(), ping("?"), continuation("lo"), binary("12345")]);
    client.expect([text("hel").more(), pong("?"), continuation("lo"), binary("12345")]);
    let peer = format!("{{upstream=\"app\",peer=\"{}\"}}", upstream.addr());
    // The bytes are counted when the turn that moved them is over, which may be just behind their arrival, and a
    // tunnel when its relay takes it over, which may be just behind the 101.
    let live = scrape_until(&server, "the echo and the other tunnel", |it| {
        let echoed = it.find("wssgate_websocket_messages_total{from=\"upstream\",kind=\"binary\"}");
        let carried: f64 = it.all("wssgate_tunnels").iter().map(|(_, count)| count).sum();
        let handed_over = it.find("wssgate_connections{state=\"tunnel\"}");
        echoed == Some(1.0) && carried == 2.0 && handed_over == Some(2.0)
    });
    for (series, expected) in [
        ("wssgate_server_tunnels{server=\"chat.test\"}", 2.0),
        ("wssgate_tunnels_opened_total{server=\"chat.test\"}", 2.0),
        ("wssgate_connections{state=\"tunnel\"}", 2.0),
        ("wssgate_generation_tunnels{generation=\"1\"}", 2.0),
        (&format!("wssgate_upstream_tunnels{peer}"), 2.0),
        (&format!("wssgate_upstream_connections{peer}"), 2.0),
        (&format!("wssgate_upstream_up{peer}"), 1.0),
        ("wssgate_websocket_messages_total{from=\"client\",kind=\"text\"}", 1.0),
        ("wssgate_websocket_messages_total{from=\"client\",kind=\"binary\"}", 1.0),
        ("wssgate_websocket_message_bytes_total{from=\"client\",kind=\"text\"}", 5.0),
        ("wssgate_websocket_message_bytes_total{from=\"upstream\",kind=\"binary\"}", 5.0),
        ("wssgate_websocket_control_frames_total{from=\"client\",kind=\"ping\"}", 1.0),
        ("wssgate_websocket_control_frames_total{from=\"upstream\",kind=\"pong\"}", 1.0),
        // Four frames with 2 bytes of header and 4 of mask each.
        ("wssgate_tunnel_received_bytes_total{from=\"client\"}", 4.0 * 6.0 + 5.0 + 1.0 + 5.0),
        ("wssgate_tunnel_received_bytes_total{from=\"upstream\"}", 4.0 * 2.0 + 5.0 + 1.0 + 5.0),
        ("wssgate_tunnel_handshake_duration_seconds_count{server=\"chat.test\"}", 2.0),
        ("wssgate_tunnel_lifetime_seconds_count{server=\"chat.test\"}", 0.0),
    ] {
        assert_eq!(live.get(series), expected, "{series}");
    }
    let by_worker: f64 = live.all("wssgate_tunnels").iter().map(|(_, count)| count).sum();
    assert_eq!((live.all("wssgate_tunnels").len(), by_worker), (2, 2.0));
    assert!(live.all("wssgate_tunnel_ends_total").is_empty());

    client.send([close(4321, "done")]);
    client.expect([close(4321, "done")]);
    other.reset().unwrap();
    drop(client);
    // The connection to the peer is given back last.
    let ended = scrape_until(&server, "both ends", |it| {
        it.get(&format!("wssgate_upstream_tunnels{peer}")) == 0.0
    });
    assert_eq!(
        ended.all("wssgate_tunnel_ends_total"),
        [
            ("wssgate_tunnel_ends_total{cause=\"client_close\",code=\"4000-4999\"}", 1.0),
            ("wssgate_tunnel_ends_total{cause=\"client_reset\",code=\"none\"}", 1.0),
        ]
    );
    for (series, expected) in [
        ("wssgate_server_tunnels{server=\"chat.test\"}", 0.0),
        ("wssgate_tunnel_lifetime_seconds_count{server=\"chat.test\"}", 2.0),
        ("wssgate_websocket_messages_total{from=\"client\",kind=\"text\"}", 1.0),
        ("wssgate_tunnels_opened_total{server=\"chat.test\"}", 2.0),
    ] {
        assert_eq!(ended.get(series), expected, "{series}");
    }
}

#[test]
fn a_switch_is_no_latency_and_a_request_is_no_tunnel() {
    let upstream = Upstream::echo();
    let server = start(
        "",
        "server { listen %%LISTEN_0%%; server_name chat.test;
             location / { proxy_pass http://%%UP%%; } location = /made { return 204; } }",
        &upstream,
    );
    let client = Handshake::to(server.listen(0)).open();
    assert_eq!(http::get(server.listen(0), "chat.test", "/made").status, 204);
    // What the echo server says to those who want no WebSocket.
    assert_eq!(http::get(server.listen(0), "chat.test", "/").status, 400);
    let of = |status| {
        format!(
            "wssgate_http_request_duration_seconds_count{{server=\"chat.test\",status=\"{status}\"}}"
        )
    };
    let scrape = scrape_until(&server, "both requests", |it| it.find(&of("4xx")) == Some(1.0));
    assert_eq!(scrape.get(&of("2xx")), 1.0);
    let requests = scrape.all("wssgate_http_request_duration_seconds_count");
    let own: Vec<_> = requests.iter().filter(|(series, _)| series.contains("chat.test")).collect();
    assert_eq!(own.len(), 2, "{own:?}");
    assert_eq!(
        scrape.get("wssgate_tunnel_handshake_duration_seconds_count{server=\"chat.test\"}"),
        1.0
    );
    drop(client);
    scrape_until(&server, "its end", |it| {
        it.get("wssgate_tunnel_lifetime_seconds_count{server=\"chat.test\"}") == 1.0
    });
    assert_eq!(Scrape::of(&server).get(&of("2xx")), 1.0, "an end is no request either");
}

#[test]
fn failed_handshakes_are_told_by_reason() {
    let upstream = Upstream::http(|request| match request.target() {
        "/wrong" => {
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: bm9uZQ==\r\n\r\n"
        }
        _ => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    });
    let server = start(
        "",
        "limit_conn_zone $server_name zone=few:1m;
         server { listen %%LISTEN_0%%; server_name chat.test; proxy_connect_timeout 1s;
             location / { proxy_pass http://%%UP%%; }
             location = /own { websocket_origin https://a.test; proxy_pass http://%%UP%%; }
             location = /denied { deny all; proxy_pass http://%%UP%%; }
             location = /token { auth_basic x; auth_basic_user_file /dev/null; proxy_pass http://%%UP%%; }
             location = /strict { websocket_handshake strict; proxy_pass http://%%UP%%; }
             location = /named { websocket_protocol chat; proxy_pass http://%%UP%%; }
             location = /gone { proxy_pass http://%%GONE%%; }
             location = /page { return 200; } }"
            .replace("%%GONE%%", &wssgate_testkit::free_addr().to_string())
            .as_str(),
        &upstream,
    );
    let ask = |path: &str, field: (&str, &str)| {
        let handshake = Handshake::to(server.listen(0)).host("chat.test").path(path);
        handshake.field(field.0, field.1).answer().1.status
    };
    for (path, field, status, reason) in [
        ("/own", ("Origin", "https://b.test"), 403, "origin"),
        ("/denied", ("X", "y"), 403, "forbidden"),
        ("/token", ("X", "y"), 401, "credentials"),
        ("/named", ("Sec-WebSocket-Protocol", "other"), 400, "subprotocol"),
        ("/", ("X", "y"), 403, "upstream_refused"),
        ("/wrong", ("X", "y"), 502, "upstream_invalid"),
        ("/gone", ("X", "y"), 502, "upstream_unreachable"),
        ("/page", ("X", "y"), 200, "not_passed_on"),
    ] {
        let series = format!("wssgate_websocket_handshake_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(Scrape::of(&server).get(&series), 0.0, "{reason}");
        assert_eq!(ask(path, field), status, "{path}");
        scrape_until(&server, reason, |it| it.get(&series) == 1.0);
    }
    let version = "GET /strict HTTP/1.1\r\nHost: chat.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    assert_eq!(http::exchange(server.listen(0), version).status, 426);
    scrape_until(&server, "malformed", |it| {
        it.get("wssgate_websocket_handshake_failures_total{reason=\"malformed\"}") == 1.0
    });
    let all = Scrape::of(&server);
    let all: f64 =
        all.all("wssgate_websocket_handshake_failures_total").iter().map(|(_, count)| count).sum();
    assert_eq!(all, 9.0);
}

#[test]
fn what_limits_do_is_told_by_zone() {
    let upstream = Upstream::echo();
    let server = start(
        "",
        "limit_conn_zone $server_name zone=few:1m; limit_req_zone $server_name zone=slow:1m rate=1r/m;
         websocket_limit_zone $server_name zone=chat:1m rate=1r/m;
         server { listen %%LISTEN_0%%; server_name chat.test;
             location / { limit_conn few 1; proxy_pass http://%%UP%%; }
             location = /once { limit_req zone=slow; empty_gif; }
             location = /paced { websocket_handshake_rate 1r/m queue=0; proxy_pass http://%%UP%%; }
             location = /talk { websocket_limit zone=chat from=client close; proxy_pass http://%%UP%%; } }",
        &upstream,
    );
    let _one = Handshake::to(server.listen(0)).open();
    assert_eq!(Handshake::to(server.listen(0)).answer().1.status, 503);
    assert_eq!(http::get(server.listen(0), "chat.test", "/once").status, 200);
    assert_eq!(http::get(server.listen(0), "chat.test", "/once").status, 503);
    let _paced = Handshake::to(server.listen(0)).path("/paced").open();
    assert_eq!(Handshake::to(server.listen(0)).path("/paced").answer().1.status, 503);
    let mut talker = Handshake::to(server.listen(0)).path("/talk").open();
    talker.send([text("a"), text("b"), text("c"), text("d")]);
    let scrape =
        scrape_until(&server, "an end", |it| !it.all("wssgate_tunnel_ends_total").is_empty());
    let of = |zone: &str, kind: &str, action: &str| {
        scrape.get(&format!(
            "wssgate_limits_hit_total{{zone=\"{zone}\",kind=\"{kind}\",action=\"{action}\"}}"
        ))
    };
    assert_eq!(
        (of("few", "connections", "refused"), of("slow", "requests", "refused")),
        (1.0, 1.0)
    );
    assert!(of("chat", "messages", "refused") >= 1.0);
    assert_eq!(of("slow", "requests", "delayed"), 0.0);
    assert_eq!(scrape.get("wssgate_websocket_handshake_failures_total{reason=\"limited\"}"), 2.0);
}

#[test]
fn counters_survive_reloads_and_a_failed_one_is_told() {
    let upstream = Upstream::echo();
    let before = "server { listen %%LISTEN_0%%; server_name old.test; location / { proxy_pass http://%%UP%%; } }";
    let mut server = start("", before, &upstream);
    let first = Handshake::to(server.listen(0)).open();
    let reloaded = |it: &Scrape| it.get("wssgate_config_reloads_total{result=\"success\"}") == 1.0;
    server.rewrite_http(&format!("{METRICS}{}", before.replace("old.test", "new.test")));
    server.signal("HUP");
    scrape_until(&server, "a reload", reloaded);
    let _second = Handshake::to(server.listen(0)).open();
    let scrape = Scrape::of(&server);
    for (series, expected) in [
        ("wssgate_config_generation", 2.0),
        ("wssgate_config_last_reload_successful", 1.0),
        ("wssgate_generation_tunnels{generation=\"1\"}", 1.0),
        ("wssgate_generation_tunnels{generation=\"2\"}", 1.0),
        ("wssgate_tunnels_opened_total{server=\"old.test\"}", 1.0),
        ("wssgate_tunnels_opened_total{server=\"new.test\"}", 1.0),
        ("wssgate_server_tunnels{server=\"old.test\"}", 1.0),
    ] {
        assert_eq!(scrape.get(series), expected, "{series}");
    }
    let success = scrape.get("wssgate_config_last_reload_success_timestamp_seconds");
    drop(first);
    let gone = scrape_until(&server, "the end of the first generation", |it| {
        it.find("wssgate_generation_tunnels{generation=\"1\"}").is_none()
    });
    assert_eq!(gone.get("wssgate_server_tunnels{server=\"old.test\"}"), 0.0);
    server.rewrite_http("no_such_directive;");
    server.signal("HUP");
    let failed = scrape_until(&server, "a failed reload", |it| {
        it.get("wssgate_config_last_reload_successful") == 0.0
    });
    assert_eq!(failed.get("wssgate_config_reloads_total{result=\"failure\"}"), 1.0);
    assert_eq!(failed.get("wssgate_config_generation"), 2.0);
    assert_eq!(failed.get("wssgate_config_last_reload_success_timestamp_seconds"), success);
    assert!(failed.get("wssgate_config_last_reload_timestamp_seconds") >= success);
    assert_eq!(failed.get("wssgate_tunnels_opened_total{server=\"old.test\"}"), 1.0);
}

#[test]
fn certificates_tell_their_end_and_failed_tls_its_reason() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["chat.test"]);
    let upstream = Upstream::echo();
    let http = format!(
        "{METRICS} server {{ listen %%LISTEN_0%% ssl; server_name chat.test;
             ssl_certificate %%CHAIN%%; ssl_certificate_key %%KEY%%;
             location / {{ proxy_pass http://%%UP%%; }} }}"
    );
    let server = Instance::setup(EXE)
        .http(&http)
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .var("UP", upstream.addr())
        .start();
    let _client = Handshake::to(server.listen(0)).tls(pki.client_config(), "chat.test").open();
    // A client that knows another root, and one that says nothing and goes.
    let stranger = Pki::new();
    assert!(
        Conn::try_connect_tls(server.listen(0), stranger.client_config(), "chat.test").is_err()
    );
    drop(Conn::connect(server.listen(0)));
    let failures = |it: &Scrape, reason: &str| {
        it.get(&format!("wssgate_connection_failures_total{{reason=\"{reason}\"}}"))
    };
    let scrape = scrape_until(&server, "both failures", |it| {
        failures(it, "tls_alert") == 1.0 && failures(it, "tls_closed") == 1.0
    });
    assert_eq!(scrape.get("wssgate_tls_handshakes_total"), 1.0);
    let expiry = scrape.get(&format!(
        "wssgate_certificate_expiry_timestamp_seconds{{server=\"chat.test\",certificate=\"{}\"}}",
        leaf.fullchain.display()
    ));
    // The beginning of the year 4096, as the test's certificates have it.
    assert_eq!(expiry, 67_090_118_400.0);
}

#[test]
fn sockets_descriptors_and_ports_are_told() {
    let upstream = Upstream::echo();
    let server = start(
        "worker_processes 2;",
        "upstream app { server %%UP%%; } server { listen %%LISTEN_0%% backlog=64; listen unix:%%DIR%%/s;
             location / { proxy_pass http://app; } }",
        &upstream,
    );
    let before = Scrape::of(&server);
    let tunnels: Vec<_> = (0..20).map(|_| Handshake::to(server.listen(0)).open()).collect();
    let scrape = Scrape::of(&server);
    let listen = server.listen(0);
    assert_eq!(
        scrape.get(&format!("wssgate_accept_queue_connections{{listen=\"{listen}\"}}")),
        0.0
    );
    // One socket for each worker.
    assert_eq!(scrape.get(&format!("wssgate_accept_queue_limit{{listen=\"{listen}\"}}")), 128.0);
    assert_eq!(scrape.all("wssgate_accept_queue_limit").len(), 2, "none of a Unix socket");
    let opened = scrape.get("process_open_fds") - before.get("process_open_fds");
    // Two for each tunnel; the first scrape may have counted connections that were just ending.
    assert!((36.0..60.0).contains(&opened), "{opened}");
    assert!(scrape.get("process_max_fds") >= scrape.get("process_open_fds"));
    let peer = format!("{{upstream=\"app\",peer=\"{}\"}}", upstream.addr());
    let (ports, left) = ("wssgate_ephemeral_ports", format!("wssgate_upstream_ports_left{peer}"));
    assert_eq!(scrape.get(ports) - scrape.get(&left), 20.0);
    assert!(scrape.get("process_cpu_seconds_total") > 0.0);
    assert!(scrape.get("process_resident_memory_bytes") > 1e6);
    drop(tunnels);
}

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    let upstream = Upstream::echo();
    let server = start("", "", &upstream);
    let ask = |method: &str, fields: &str| {
        let mut client = Conn::connect(server.listen(9));
        client.send_raw(format!(
            "{method} /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n{fields}\r\n"
        ));
        let (bytes, end) = client.recv_to_end();
        assert_eq!(end, End::Eof);
        String::from_utf8(bytes).unwrap()
    };
    let text = ask("GET", "");
    assert!(
        text.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{text}"
    );
    assert!(text.contains("\n# TYPE wssgate_http_requests_total counter\n"), "{text}");
    assert!(!text.ends_with("# EOF\n"));
    let open =
        ask("GET", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    let content_type =
        "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(open.contains(content_type), "{open}");
    assert!(open.contains("\n# TYPE wssgate_http_requests counter\n"), "{open}");
    assert!(open.ends_with("\n# EOF\n"), "{open}");
    let head = ask("HEAD", "");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    for method in ["POST", "DELETE"] {
        assert!(ask(method, "").starts_with("HTTP/1.1 405 "), "{method}");
    }
}

/// A client may say whatever it likes.
#[test]
fn no_client_makes_a_series() {
    let upstream = Upstream::echo();
    let server = start(
        "",
        "server { listen %%LISTEN_0%% default_server; location / { proxy_pass http://%%UP%%; } }",
        &upstream,
    );
    let names = |scrape: &Scrape| scrape.0.keys().cloned().collect::<BTreeSet<_>>();
    let once = |number: u16, server: &Instance| {
        let host = format!("host{number}.test");
        let mut client =
            Handshake::to(server.listen(0)).host(&host).path(&format!("/{number}")).open();
        client.send([close(3000 + number, "why")]);
        client.expect([close(3000 + number, "why")]);
        drop(client);
        http::get(server.listen(0), &host, &format!("/{number}"));
    };
    let ended = |count: f64| {
        move |it: &Scrape| {
            it.all("wssgate_tunnel_ends_total").iter().map(|(_, it)| it).sum::<f64>() == count
        }
    };
    once(0, &server);
    scrape_until(&server, "an end", ended(1.0));
    // The scrapes themselves are requests, too.
    let before = names(&Scrape::of(&server));
    (1..30).for_each(|number| once(number, &server));
    let after = names(&scrape_until(&server, "all ends", ended(30.0)));
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
}
