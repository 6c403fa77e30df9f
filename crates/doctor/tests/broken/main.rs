//! Set-ups that are broken, each in one way, and what is said of them.
#![allow(clippy::unwrap_used)]

mod authority;
mod requests;
mod sockets;
mod tls;
mod way;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use wssgate_doctor::{Report, Settings, Target, Verdict, examine};
use wssgate_testkit::{Addr, Conn, Dns, Request, Says, Upstream};

use authority::Authority;

/// A client who knows a CA of the test and asks a DNS server of the test.
struct Client {
    dns: Dns,
    settings: Settings,
}

impl Client {
    fn new() -> Self {
        let dns = Dns::start();
        dns.set("a.test", Says::addresses(&["127.0.0.1"]));
        // Nothing is slow unless a test wants it; machines may be busy.
        let slow = Duration::from_secs(60);
        let settings = Settings { dns: Some(dns.addr()), slow, ..Settings::default() };
        Self { dns, settings }
    }

    fn trusting(authority: &Authority) -> Self {
        let mut client = Self::new();
        client.settings.ca = vec![authority.root()];
        client
    }

    fn examine(&self, url: &str) -> Report {
        examine(&Target::parse(url).unwrap(), &self.settings, &mut |_| {})
    }

    /// Examines `a.test` at the port of a server, with TLS.
    fn wss(&self, server: &Upstream) -> Report {
        self.examine(&format!("wss://a.test:{}/chat", server.port()))
    }

    /// The same without TLS.
    fn ws(&self, server: &Upstream) -> Report {
        self.examine(&format!("ws://a.test:{}/chat", server.port()))
    }
}

/// The codes of what was found, but for the one that every `ws://` gets.
fn codes(report: &Report) -> Vec<&'static str> {
    let codes = report.findings().map(|finding| finding.code);
    codes.filter(|code| *code != "not_tls_url").collect()
}

/// Expects exactly one finding, whose text has all of these words in it.
#[track_caller]
fn expect(report: &Report, verdict: Verdict, code: &str, words: &[&str]) {
    assert_eq!(codes(report), [code], "{report:#?}");
    let finding = report.findings().find(|finding| finding.code == code).unwrap();
    assert_eq!(finding.verdict, verdict, "{finding:?}");
    assert_eq!(report.verdict, verdict);
    let text = format!("{} {}", finding.what, finding.fix);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[track_caller]
fn expect_fault(report: &Report, code: &str, words: &[&str]) {
    expect(report, Verdict::Fault, code, words);
}

/// A server of WebSockets with this TLS that echoes.
fn echo(config: Arc<ServerConfig>) -> Upstream {
    Upstream::builder().tls(config).websocket(Conn::echo)
}

/// A server without TLS that answers requests, each on its own connection, by what `answer` makes of
/// them; nothing means a good 101, behind which it echoes.
fn answering(answer: impl Fn(&Request) -> Option<String> + Send + Sync + 'static) -> Upstream {
    Upstream::serve(move |conn| {
        let Ok(Some(request)) = conn.try_recv_request() else { return };
        match answer(&request) {
            Some(answer) => drop(conn.try_send_raw(answer)),
            None => {
                conn.accept_websocket(&request, "");
                conn.echo();
            }
        }
    })
}

/// A response with a body.
fn response(status: &str, more: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Where nothing listens.
fn closed_port() -> u16 {
    let Addr::Tcp(addr) = Upstream::text("").addr().clone() else { unreachable!() };
    addr.port()
}

/// The words in the second and third column of the table of codes.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../../../../docs/doctor.md");
    let (_, table) = text.split_once("## Codes").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.flat_map(|row| row.split('|').skip(2));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_code_is_documented_and_there() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let texts = fs::read_dir(sources).unwrap();
    let text: String =
        texts.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let documented = documented();
    assert!(documented.len() > 60, "{documented:?}");
    for code in &documented {
        assert!(text.contains(&format!("\"{code}\"")), "{code} is in no source");
    }
    let is_code = |word: &&str| {
        word.contains('_') && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    for code in text.lines().flat_map(|line| line.split('"').skip(1).step_by(2)).filter(is_code) {
        // The name of a page, and what cargo says.
        let other = ["sign_in", "CARGO_PKG_VERSION"].contains(&code);
        assert!(other || documented.contains(code), "{code} is not in docs/doctor.md");
    }
}
