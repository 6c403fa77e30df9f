//! `wssgate doctor` as it is typed: texts, JSON, exit codes, and what it says of real proxies.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use wssgate_testkit::{Dns, Instance, NGINX, Pki, Says, Upstream, free_addr, skipped};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(EXE);
    command.arg("doctor").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The exit code, and the codes of what was found.
fn found(arguments: &[&str]) -> (i32, Vec<String>) {
    let output = doctor(&[arguments, &["--json"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = report["steps"].as_array().unwrap();
    let findings = steps.iter().flat_map(|step| step["findings"].as_array().unwrap());
    let codes = findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect();
    (output.status.code().unwrap(), codes)
}

/// A hop with TLS for the address of this process in front of what `location` says.
fn hop(pki: &Pki, location: &str) -> Instance {
    let leaf = pki.leaf(&[&wssgate_testkit::net::loopback().to_string()]);
    Instance::setup(EXE)
        .http(&format!(
            "ssl_certificate {}; ssl_certificate_key {};
             server {{ listen %%LISTEN_0%% ssl; location / {{ {location} }} }}",
            leaf.fullchain.display(),
            leaf.key.display(),
        ))
        .start()
}

#[test]
fn a_good_websocket_is_0_and_each_step_has_its_line() {
    let (pki, app) = (Pki::new(), Upstream::echo());
    let trace = "websocket_trace on trusted=127.0.0.0/8 hop=edge;";
    let hop = hop(&pki, &format!("proxy_pass http://{}; {trace}", app.addr()));
    let url = format!("wss://{}/", hop.listen(0));
    let ca = pki.root_path();
    let arguments = [&*url, "--ca", ca.to_str().unwrap(), "--size", "64k", "--idle", "0.4"];
    let output = doctor(&arguments);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for words in
        ["ok       dns", "ok       tls", "101 in", "hops edge", "pongs", "65536 bytes came back"]
    {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let idle = "silent for 0.05, 0.1, 0.2, 0.4 s, each time until a ping\n";
    assert!(text.contains(idle), "{text}");
    assert!(text.contains("the connection stayed open: nothing cut it within 0.4"), "{text}");
    assert!(text.ends_with(" s of silence; longer was not tried\neverything is fine\n"), "{text}");
    assert!(!text.contains('\x1b'), "colours are for terminals: {text:?}");
    assert_eq!(found(&arguments), (0, vec![]));
}

#[test]
fn warnings_are_1_and_faults_2() {
    let (pki, app) = (Pki::new(), Upstream::echo());
    // Of an address of this machine nobody expects TLS.
    assert_eq!(found(&[&format!("ws://{}/", app.addr())]), (0, vec![]));
    let dns = Dns::start();
    let address = app.addr().to_string();
    let (host, port) = address.rsplit_once(':').unwrap();
    dns.set("a.test", Says::addresses(&[host]));
    let dns = dns.addr().to_string();
    let url = format!("ws://a.test:{port}/");
    assert_eq!(found(&[&url, "--dns", &dns]), (1, vec!["not_tls_url".to_owned()]));
    let output = doctor(&[&url, "--dns", &dns]);
    assert_eq!(output.status.code(), Some(1));
    let end = "\nskipped            tls (ws:// is without TLS); size (asked for by --size BYTES); idle (asked for by\n\
               \x20                  --idle SECONDS)\n1 warning\n";
    assert!(stdout(&output).ends_with(end), "{}", stdout(&output));
    // Behind the hop nobody listens, and nobody here trusts the CA.
    let hop = hop(&pki, &format!("proxy_pass http://{};", free_addr()));
    let url = format!("wss://{}/", hop.listen(0));
    let expected = ["certificate_unknown_ca", "backend_down"].map(str::to_owned);
    assert_eq!(found(&[&url]), (2, expected.to_vec()));
    let text = stdout(&doctor(&[&url]));
    assert!(text.contains("\nFAULT    tls       TLS 1.3, "), "{text}");
    assert!(text.contains("fault [backend_down]: the proxy on the way (it calls itself"), "{text}");
    assert!(text.contains("\n                     to do: start the app server"), "{text}");
    assert!(text.contains("\nskipped            ping (the handshake failed); size"), "{text}");
    assert!(text.ends_with("\n2 faults\n"), "{text}");
}

#[test]
fn a_command_that_makes_no_sense_is_3_and_help_is_0() {
    let not_pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for (arguments, words) in [
        (&[][..], "<URL>"),
        (&["https://a.test/"], "write wss://a.test/"),
        (&["wss://a.test/", "--ca", not_pem.to_str().unwrap()], "there is no certificate in it"),
    ] {
        let output = doctor(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(words), "{error}");
    }
    let help = doctor(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("Usage: wssgate doctor [OPTIONS] <URL>"), "{}", stdout(&help));
}

/// nginx as people configure it at first.
#[test]
fn headers_that_nginx_does_not_pass_on() {
    if !Path::new(NGINX).exists() {
        return skipped("doctor in front of nginx: not installed");
    }
    let app = Upstream::serve(|conn| {
        let Ok(Some(request)) = conn.try_recv_request() else { return };
        let connection = request.field("Connection").unwrap_or_default().to_ascii_lowercase();
        let answer = match (request.field("Upgrade"), connection.contains("upgrade")) {
            (Some(_), true) => {
                conn.accept_websocket(&request, "");
                return conn.echo();
            }
            (None, false) => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
            _ => "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nBad Request",
        };
        let _ = conn.try_send_raw(answer);
    });
    let upgrade = "proxy_set_header Upgrade $http_upgrade;";
    let connection = "proxy_set_header Connection upgrade;";
    for (lines, code) in [
        (String::new(), Some("upgrade_ignored")),
        (upgrade.to_owned(), Some("connection_header_lost")),
        // Plain requests get the line as well, so nothing tells them apart.
        (connection.to_owned(), Some("upgrade_ignored")),
        (format!("{upgrade} {connection}"), None),
    ] {
        let nginx = Instance::setup(NGINX)
            .http(&format!(
                "server {{ listen %%LISTEN_0%%; location / {{
                     proxy_pass http://{}; proxy_http_version 1.1; {lines} }} }}",
                app.addr()
            ))
            .start();
        let (_, codes) = found(&[&format!("ws://{}/", nginx.listen(0))]);
        let told = codes.iter().map(String::as_str).find(|code| *code != "not_tls_url");
        assert_eq!(told, code, "{lines}");
    }
}
