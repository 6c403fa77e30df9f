//! The way to the server: names and connections.

use wssgate_testkit::{Says, Upstream};

use crate::*;

#[test]
fn a_name_that_does_not_exist() {
    let report = Client::new().examine("wss://nobody.test/");
    expect_fault(&report, "name_not_found", &["nobody.test", "does not exist"]);
    assert_eq!(report.steps.len(), 1);
}

#[test]
fn a_zone_whose_servers_fail() {
    let client = Client::new();
    client.dns.set("broken.test", Says::code(2));
    expect_fault(&client.examine("wss://broken.test/"), "dns_failed", &["broken.test", "SERVFAIL"]);
}

#[test]
fn a_port_where_nothing_listens() {
    let port = closed_port();
    let report = Client::new().examine(&format!("wss://a.test:{port}/"));
    expect_fault(&report, "connection_refused", &[&format!("127.0.0.1:{port}"), "ss -ltn"]);
}

#[test]
fn one_of_two_addresses_where_nothing_listens() {
    let server = Upstream::echo();
    let client = Client::new();
    client.dns.set("a.test", Says::addresses(&["127.0.0.2", "127.0.0.1"]));
    let report = client.ws(&server);
    expect(
        &report,
        Verdict::Warning,
        "connection_refused",
        &["127.0.0.2", "try this address first"],
    );
    assert_eq!(report.steps.last().unwrap().step.name(), "ping");
}

#[test]
fn a_long_answer_of_dns_comes_by_tcp() {
    let server = Upstream::echo();
    let client = Client::new();
    client.dns.set("a.test", Says::addresses(&["127.0.0.1"]).truncated());
    assert_eq!(codes(&client.ws(&server)), [""; 0]);
}

#[test]
fn steps_that_are_not_taken_are_told_with_the_reason() {
    let client = Client::new();
    let skipped = |url: String| {
        let report = client.examine(&url);
        let steps = report.skipped.into_iter();
        steps.map(|left| format!("{}: {}", left.step.name(), left.why)).collect::<Vec<_>>()
    };
    let asked = ["size: asked for by --size BYTES", "idle: asked for by --idle SECONDS"];
    let server = wssgate_testkit::Upstream::echo();
    let plain = skipped(format!("ws://a.test:{}/", server.port()));
    assert_eq!(plain, [&["tls: ws:// is without TLS"][..], &asked].concat());
    let nowhere = skipped(format!("wss://a.test:{}/", closed_port()));
    let after = ["tls", "handshake", "hops", "ping"];
    let after = after.map(|step| format!("{step}: TCP failed"));
    assert_eq!(nowhere[..4], after);
    assert_eq!(nowhere[4..], asked);
}
