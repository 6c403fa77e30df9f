//! The names of metrics: in the document, in scrapes, in `contrib/`, and as Prometheus itself reads them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use wssgate_proxy::content::prometheus::families::ALL;
use wssgate_proxy::metrics::{ConnectionFailure, Failure, HandshakeFailure, Refused};
use wssgate_testkit::{
    Handshake, Instance, Pki, Upstream, close, free_addr, http, skipped, text, wait_until,
};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A server that has something to tell of every metric, and its upstream.
fn start() -> (Instance, Upstream, Pki) {
    let (upstream, pki) = (Upstream::echo(), Pki::new());
    let leaf = pki.leaf(&["chat.test"]);
    let server = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 2;",
            "limit_conn_zone $server_name zone=few:1m;
             upstream app { server %%UP%%; }
             server { listen %%LISTEN_9%%; server_name metrics;
                 location = /metrics { prometheus; access_log off; } }
             server { listen %%LISTEN_0%%; listen %%LISTEN_1%% ssl; server_name chat.test;
                 ssl_certificate %%CHAIN%%; ssl_certificate_key %%KEY%%;
                 location / { proxy_pass http://app; limit_conn few 100; }
                 location = /gone { proxy_pass http://%%GONE%%; } }",
        )
        .var("UP", upstream.addr())
        .var("GONE", free_addr())
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start();
    (server, upstream, pki)
}

/// Three tunnels of which one stays, five messages, two requests and a handshake that fails.
fn traffic(server: &Instance) -> wssgate_testkit::Conn {
    let handshake = || Handshake::to(server.listen(0)).host("chat.test");
    for code in [1000, 4000] {
        let mut client = handshake().open();
        client.send([close(code, "")]);
        client.expect([close(code, "")]);
    }
    assert_eq!(handshake().path("/gone").answer().1.status, 502);
    for _ in 0..2 {
        assert_eq!(http::get(server.listen(0), "chat.test", "/").status, 400);
    }
    let mut stays = handshake().open();
    for _ in 0..5 {
        stays.send([text("ten bytes.")]);
        stays.expect([text("ten bytes.")]);
    }
    wait_until("two ends", || scrape(server).matches("\nwssgate_tunnel_ends_total{").count() == 2);
    stays
}

fn scrape(server: &Instance) -> String {
    http::get(server.listen(9), "metrics", "/metrics").text()
}

#[test]
fn names_say_what_a_metric_is() {
    let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), ALL.len(), "each is there once");
    for family in ALL {
        let (name, help) = (family.name, family.help);
        assert!(name.starts_with("wssgate_") || name.starts_with("process_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            family.kind == wssgate_metrics::Kind::Counter,
            "{name}"
        );
        assert!(help.ends_with('.') && !help.contains("  "), "{name}: {help}");
        assert!(!family.bound.is_empty(), "{name}");
        assert!(!family.labels.is_empty() || family.bound == "1", "{name}");
    }
}

/// The table of all metrics, as the document has it.
fn table() -> String {
    let mut table =
        "| metric | type | labels | meaning | series |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for family in ALL {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = format!("{:?}", family.kind).to_lowercase();
        let (name, labels, help, bound) =
            (family.name, labels.join(", "), family.help, family.bound);
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} | {bound} |").unwrap();
    }
    table
}

#[test]
fn the_document_has_every_metric() {
    let path = file("docs/metrics.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find("--test prometheus`. -->\n").unwrap();
    let begin = begin + text[begin..].find("-->\n").unwrap() + 4;
    let end = text.find("<!-- end -->").unwrap();
    let expected = format!("{}\n{}\n{}", &text[..begin], table(), &text[end..]);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &expected).unwrap();
    } else {
        assert!(text == expected, "UPDATE_REFERENCE=1 cargo test --test prometheus");
    }
}

#[test]
fn the_document_has_every_reason() {
    let text = fs::read_to_string(file("docs/metrics.md")).unwrap();
    let section = |title: &str| {
        let rest = text.split(title).nth(1).unwrap().split("\n## ").next().unwrap();
        let rows = rest.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| row.split('`').next().unwrap()).collect::<Vec<_>>()
    };
    fn words<F: Failure>() -> Vec<&'static str> {
        F::ALL.iter().map(|kind| kind.word()).collect()
    }
    assert_eq!(section("## Reasons of failed handshakes"), words::<HandshakeFailure>());
    assert_eq!(section("## Reasons of failed connections"), words::<ConnectionFailure>());
    let bounds = [
        ("wssgate_websocket_handshake_failures_total", HandshakeFailure::ALL.len()),
        ("wssgate_connection_failures_total", ConnectionFailure::ALL.len()),
        ("wssgate_connections_refused_total", Refused::ALL.len()),
    ];
    for (name, count) in bounds {
        let family = ALL.iter().find(|family| family.name == name).unwrap();
        assert_eq!(family.bound, count.to_string(), "{name}");
    }
}

#[test]
fn a_scrape_has_every_metric_and_contrib_knows_no_other() {
    let (server, _upstream, pki) = start();
    let _stays = traffic(&server);
    let _secure = Handshake::to(server.listen(1)).tls(pki.client_config(), "chat.test").open();
    let text = scrape(&server);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(types.collect::<Vec<_>>(), ALL.iter().map(|family| family.name).collect::<Vec<_>>());
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples: BTreeSet<_> = samples.map(|line| line.split(['{', ' ']).next().unwrap()).collect();
    for name in ["contrib/grafana.json", "contrib/alerts.yml", "contrib/alerts.test.yml"] {
        let text = fs::read_to_string(file(name)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used =
            words.filter(|word| word.starts_with("wssgate_") || word.starts_with("process_"));
        let used: BTreeSet<_> = used.collect();
        assert!(used.len() > 8, "{name}");
        let unknown: Vec<_> = used.difference(&samples).collect();
        assert!(unknown.is_empty(), "{name} uses {unknown:?}");
    }
    let board = fs::read_to_string(file("contrib/grafana.json")).unwrap();
    let board: Value = serde_json::from_str(&board).unwrap();
    assert!(board["panels"].as_array().unwrap().len() > 30);
}

/// A program of Debian's package `prometheus`; else `what` is said to be skipped.
fn installed(program: &str, what: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/bin").join(program);
    if !path.exists() {
        skipped(&format!("{what}: {program} is not installed"));
        return None;
    }
    Some(path)
}

/// Runs promtool and returns what it says; it must be content.
fn promtool(path: &Path, args: &[&str], input: &str) -> String {
    let mut command = Command::new(path);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "{args:?}: {said}");
    said
}

#[test]
fn promtool_has_nothing_to_object_to() {
    let Some(path) = installed("promtool", "what promtool says of metrics and alerts") else {
        return;
    };
    let (server, _upstream, _pki) = start();
    let _stays = traffic(&server);
    assert_eq!(promtool(&path, &["check", "metrics"], &scrape(&server)), "");
    let rules = file("contrib/alerts.yml");
    let said = promtool(
        &path,
        &["check", "rules", "--lint=all", "--lint-fatal", rules.to_str().unwrap()],
        "",
    );
    assert!(said.contains("SUCCESS: 11 rules found"), "{said}");
    let tests = file("contrib/alerts.test.yml");
    promtool(&path, &["test", "rules", tests.to_str().unwrap()], "");
}

/// Prometheus with its data in a directory of its own.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(path: &Path, target: SocketAddr) -> Self {
        let (dir, address) = (tempfile::tempdir().unwrap(), free_addr());
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
             rule_files: [{}]\n\
             scrape_configs: [{{ job_name: wssgate, static_configs: [{{ targets: ['{target}'] }}] }}]\n",
            file("contrib/alerts.yml").display()
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(path);
        command.arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let this = Self { child, address, dir };
        wait_until("Prometheus", || {
            std::net::TcpStream::connect(address).is_ok() && this.get("/-/ready").0 == 200
        });
        this
    }

    fn get(&self, path: &str) -> (u16, String) {
        let response = http::get(self.address, "localhost", path);
        (response.status, response.text())
    }

    /// The value of a query that has one, and only one.
    fn query(&self, query: &str) -> Option<f64> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, text) = self.get(&format!("/api/v1/query?query={escaped}"));
        assert_eq!(status, 200, "{query}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        match &answer["data"]["result"].as_array().unwrap()[..] {
            [one] => one["value"][1].as_str().unwrap().parse().ok(),
            _ => None,
        }
    }

    #[track_caller]
    fn wait_for(&self, query: &str, expected: f64) {
        let mut last = None;
        let deadline = std::time::Instant::now() + wssgate_testkit::GUARD;
        while last != Some(expected) {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(std::time::Instant::now() < deadline, "{query} is {last:?}: {}", log());
            last = self.query(query);
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_reads_the_scripted_truth() {
    let Some(path) = installed("prometheus", "what Prometheus reads") else { return };
    let (mut server, upstream, _pki) = start();
    let _stays = traffic(&server);
    let prometheus = Prometheus::start(&path, server.listen(9));
    prometheus.wait_for("up", 1.0);
    let peer = upstream.addr();
    for (query, expected) in [
        ("sum(wssgate_tunnels)", 1.0),
        ("wssgate_server_tunnels{server=\"chat.test\"}", 1.0),
        (&format!("wssgate_upstream_tunnels{{upstream=\"app\",peer=\"{peer}\"}}"), 1.0),
        ("wssgate_generation_tunnels{generation=\"1\"}", 1.0),
        ("wssgate_tunnels_opened_total{server=\"chat.test\"}", 3.0),
        ("wssgate_tunnel_ends_total{cause=\"client_close\",code=\"1000\"}", 1.0),
        ("sum by (cause) (wssgate_tunnel_ends_total{code=~\"1000|4000-4999\"})", 2.0),
        ("sum(wssgate_websocket_messages_total{from=\"client\"})", 5.0),
        ("sum(wssgate_websocket_messages_total)", 10.0),
        ("sum(wssgate_websocket_message_bytes_total{from=\"upstream\",kind=\"text\"})", 50.0),
        // Five texts of 10 bytes and two Closes of 2, with headers of 2 bytes.
        ("wssgate_tunnel_received_bytes_total{from=\"upstream\"}", 68.0),
        ("wssgate_tunnel_handshake_duration_seconds_count{server=\"chat.test\"}", 3.0),
        ("wssgate_tunnel_lifetime_seconds_count{server=\"chat.test\"}", 2.0),
        ("wssgate_tunnel_lifetime_seconds_bucket{server=\"chat.test\",le=\"604800.0\"}", 2.0),
        ("wssgate_websocket_handshake_failures_total{reason=\"upstream_unreachable\"}", 1.0),
        ("sum(wssgate_websocket_handshake_failures_total)", 1.0),
        // The two requests, and no handshake but the one that failed.
        ("sum(wssgate_http_request_duration_seconds_count{server=\"chat.test\"})", 3.0),
        ("wssgate_http_request_duration_seconds_count{server=\"chat.test\",status=\"4xx\"}", 2.0),
        ("count(wssgate_certificate_expiry_timestamp_seconds - time() > 0)", 1.0),
        (
            "histogram_quantile(0.99, wssgate_tunnel_handshake_duration_seconds_bucket) <= bool 10",
            1.0,
        ),
        ("wssgate_config_last_reload_successful", 1.0),
        ("count(wssgate_build_info)", 1.0),
    ] {
        prometheus.wait_for(query, expected);
    }
    server.rewrite_http("no_such_directive;");
    server.signal("HUP");
    prometheus
        .wait_for("count(ALERTS{alertname=\"WssgateReloadFailed\",alertstate=\"pending\"})", 1.0);
    let (_, rules) = prometheus.get("/api/v1/rules");
    let rules: Value = serde_json::from_str(&rules).unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    let health: Vec<_> = rules.iter().map(|rule| rule["health"].as_str().unwrap()).collect();
    assert_eq!(health, vec!["ok"; 11]);
}
