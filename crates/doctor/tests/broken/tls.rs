//! TLS and certificates.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use wssgate_testkit::{Conn, Upstream};

use crate::authority::{Authority, Leaf, URL};
use crate::*;

#[test]
fn a_good_server_has_no_findings() {
    let authority = Authority::new();
    let mut config = authority.leaf("a.test", 30, 60).server(&[authority.intermediate()]);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = echo(Arc::new(config));
    let report = Client::trusting(&authority).wss(&server);
    assert_eq!((codes(&report), report.verdict), (vec![], Verdict::Ok), "{report:#?}");
    let report = serde_json::to_value(&report).unwrap();
    let steps: Vec<_> =
        report["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["dns", "tcp", "tls", "handshake", "hops", "ping"]);
    let facts = &report["steps"][2]["facts"];
    for (field, expected) in [
        ("version", json!("TLS 1.3")),
        ("versions", json!(["TLS 1.3", "TLS 1.2"])),
        ("alpn", json!("http/1.1")),
        ("alpn_with_h2", json!("h2")),
        ("sni", json!("a.test")),
        ("without_sni", json!("same certificate")),
        ("names", json!(["a.test"])),
        ("trusted_by", json!("--ca")),
    ] {
        assert_eq!(facts[field], expected, "{field}");
    }
    let leaf = &facts["chain"][0];
    assert_eq!(leaf["issuer"], "doctor test intermediate");
    assert_eq!(
        (&leaf["key"], &leaf["signature"]),
        (&json!("ECDSA P-256"), &json!("ECDSA with SHA-256"))
    );
    assert_eq!(report["steps"][3]["facts"]["status"], 101);
    assert_eq!(report["steps"][5]["facts"]["ms"].as_array().unwrap().len(), 5);
}

#[test]
fn an_incomplete_chain() {
    let authority = Authority::new();
    let server = echo(Arc::new(authority.leaf("a.test", 30, 60).server(&[])));
    let report = Client::trusting(&authority).wss(&server);
    let words = ["\"doctor test intermediate\"", URL, "fullchain.pem", "WeChat"];
    expect_fault(&report, "chain_incomplete", &words);
    // The rest of the walk is taken all the same.
    assert_eq!(report.steps.last().unwrap().step.name(), "ping");
}

#[test]
fn certificates_whose_time_is_over_or_has_not_come() {
    let authority = Authority::new();
    let client = Client::trusting(&authority);
    for (from, to, verdict, code, words) in [
        (90, -3, Verdict::Fault, "certificate_expired", "expired 3 days ago"),
        (-2, 90, Verdict::Fault, "certificate_not_yet_valid", "becomes valid in 2.0 days"),
        (80, 5, Verdict::Warning, "certificate_expires_soon", "expires in"),
    ] {
        let server = echo(authority.server(&authority.leaf("a.test", from, to)));
        expect(&client.wss(&server), verdict, code, &[words]);
    }
}

#[test]
fn a_certificate_for_another_name() {
    let authority = Authority::new();
    let server = echo(authority.server(&authority.leaf("b.test", 30, 60)));
    let client = Client::trusting(&authority);
    let words = ["not for a.test", "it is for b.test", "server_name a.test;"];
    expect_fault(&client.wss(&server), "certificate_wrong_name", &words);
    let by_address = client.examine(&format!("wss://127.0.0.1:{}/", server.port()));
    expect_fault(&by_address, "certificate_wrong_name", &["not for 127.0.0.1"]);
}

#[test]
fn two_faults_of_one_certificate_are_both_told() {
    let authority = Authority::new();
    let server = echo(Arc::new(authority.leaf("b.test", 90, -3).server(&[])));
    let report = Client::trusting(&authority).wss(&server);
    let expected = ["certificate_expired", "certificate_wrong_name", "chain_incomplete"];
    assert_eq!(codes(&report), expected, "{report:#?}");
}

#[test]
fn certificates_that_nobody_knows() {
    let (authority, client) = (Authority::new(), Client::new());
    let own = Leaf::self_signed("a.test");
    let server = echo(Arc::new(own.server(&[])));
    expect_fault(
        &client.wss(&server),
        "certificate_self_signed",
        &["\"a.test\" is self-signed", "--ca"],
    );
    let leaf = authority.leaf("a.test", 30, 60);
    let server = echo(authority.server(&leaf));
    let words = ["\"doctor test root\"", "not a public root"];
    expect_fault(&client.wss(&server), "certificate_unknown_ca", &words);
    let with_root = leaf.server(&[authority.intermediate(), authority.root()]);
    let server = echo(Arc::new(with_root));
    expect_fault(&client.wss(&server), "certificate_unknown_ca", &words);
}

#[test]
fn a_certificate_of_the_development_ca() {
    let authority = Authority::named("unseen", wssgate_doctor::DEVELOPMENT_CA);
    let leaf = authority.leaf("a.test", 30, 60);
    let words = ["wssgate's development CA", "--ca", "--agree-tos"];
    // With the certificate of the CA behind it, and without.
    for server in [leaf.server(&[authority.intermediate()]), leaf.server(&[])] {
        let report = Client::new().wss(&echo(Arc::new(server)));
        expect_fault(&report, "certificate_development_ca", &words);
    }
}

#[test]
fn a_chain_of_somebody_else() {
    // Names that fit, keys that do not.
    let (authority, other) = (Authority::new(), Authority::new());
    let server = echo(Arc::new(authority.leaf("a.test", 30, 60).server(&[other.intermediate()])));
    expect_fault(&Client::trusting(&authority).wss(&server), "chain_untrusted", &["trusted root"]);
}

#[test]
fn a_chain_out_of_order() {
    let authority = Authority::new();
    let others = [authority.root(), authority.intermediate()];
    let server = echo(Arc::new(authority.leaf("a.test", 30, 60).server(&others)));
    let report = Client::trusting(&authority).wss(&server);
    let words = ["issued by \"doctor test intermediate\"", "\"doctor test root\" follows"];
    expect(&report, Verdict::Warning, "chain_out_of_order", &words);
}

#[test]
fn certificates_that_some_devices_reject() {
    let authority = Authority::new();
    let client = Client::trusting(&authority);
    let server = echo(authority.server(&authority.leaf("a.test", 30, 900)));
    let words = ["930 days", "Apple", "825"];
    expect(&client.wss(&server), Verdict::Warning, "certificate_lives_too_long", &words);
    let leaf = authority.leaf_with("a.test", 30, 60, &rcgen::PKCS_ED25519);
    let server = echo(authority.server(&leaf));
    expect(&client.wss(&server), Verdict::Warning, "certificate_ed25519", &["ECDSA P-256"]);
}

/// A server with one name: it ends handshakes for all others, and shows its certificate to those who
/// send none.
#[derive(Debug)]
struct OneName(Arc<CertifiedKey>);

impl ResolvesServerCert for OneName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_known = hello.server_name().is_none_or(|name| name == "b.test");
        is_known.then(|| Arc::clone(&self.0))
    }
}

#[test]
fn a_server_that_ends_handshakes_for_unknown_names() {
    let authority = Authority::new();
    let key = authority.leaf("b.test", 30, 60).certified(&[authority.intermediate()]);
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OneName(Arc::new(key))));
    let server = echo(Arc::new(config));
    let report = Client::trusting(&authority).wss(&server);
    let words =
        ["does not know the name a.test", "without SNI it presents the certificate of b.test"];
    expect_fault(&report, "sni_unknown", &words);
}

#[test]
fn a_port_that_ends_every_tls_handshake() {
    let server = Upstream::serve(|conn| {
        // All of the ClientHello, so that the end is no RST.
        let head = conn.recv_raw(5);
        let len = usize::from(u16::from_be_bytes([head[3], head[4]]));
        drop(conn.try_recv_raw(len));
    });
    expect_fault(&Client::new().wss(&server), "tls_closed", &["closed", "with and without SNI"]);
}

#[test]
fn plain_http_on_the_port_of_https() {
    // One that answers to the ClientHello, and one that only ends the connection.
    let telling = Upstream::serve(|conn| {
        drop(conn.try_recv_raw(5));
        drop(conn.try_send_raw(response("400 Bad Request", "", "")));
    });
    // One that answers by a page alone, as if it were of HTTP/0.9.
    let ancient = Upstream::serve(|conn| {
        let first = conn.try_recv_raw(5);
        let is_http = first.is_ok_and(|first| first.starts_with(b"HEAD"));
        let answer = if is_http { response("200 OK", "", "") } else { "<html>".to_owned() };
        drop(conn.try_send_raw(answer));
        drop(conn.recv_to_end());
    });
    let silent = answering(|_| Some(response("200 OK", "", "")));
    for server in [telling, ancient, silent] {
        let port = server.port();
        let url = format!("use ws://a.test:{port}/chat for this port");
        let words = ["plain HTTP", &url, &format!("listen {port} ssl;")];
        expect_fault(&Client::new().wss(&server), "http_on_tls_port", &words);
    }
}

#[test]
fn another_protocol_on_the_port_of_https() {
    let server = Upstream::serve(|conn| {
        drop(conn.try_send_raw("SSH-2.0-x\r\n"));
        drop(conn.try_recv_raw(100));
    });
    expect_fault(&Client::new().wss(&server), "not_tls", &["SSH-2.0-x"]);
}

#[test]
fn a_server_that_offers_only_http2() {
    let authority = Authority::new();
    let mut config = authority.leaf("a.test", 30, 60).server(&[authority.intermediate()]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = Upstream::builder().tls(Arc::new(config)).serve(|conn| drop(conn.try_recv_raw(1)));
    expect_fault(&Client::trusting(&authority).wss(&server), "alpn_h2_only", &["http/1.1"]);
}

#[test]
fn a_server_that_speaks_http2_whatever_was_offered() {
    let authority = Authority::new();
    let config = authority.server(&authority.leaf("a.test", 30, 60));
    let server = Upstream::builder().tls(config).serve(|conn| {
        drop(conn.try_send_raw(b"\0\0\0\x04\0\0\0\0\0"));
        drop(conn.try_recv_request());
    });
    expect_fault(&Client::trusting(&authority).wss(&server), "http2_only", &["HTTP/1.1"]);
}

#[test]
fn a_server_that_wants_a_certificate_of_clients() {
    let authority = Authority::new();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.root()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let key = authority.leaf("a.test", 30, 60).certified(&[authority.intermediate()]);
    let key = rustls::sign::SingleCertAndKey::from(key);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_cert_resolver(Arc::new(key));
    let server = echo(Arc::new(config));
    let report = Client::trusting(&authority).wss(&server);
    expect_fault(&report, "client_certificate_required", &["ssl_verify_client"]);
}

#[test]
fn a_plain_request_to_a_port_of_tls() {
    let authority = Authority::new();
    let server = echo(authority.server(&authority.leaf("a.test", 30, 60)));
    expect_fault(&Client::new().ws(&server), "tls_on_plain_port", &["use wss://"]);
    let as_nginx = answering(|_| {
        let body = "<title>400 The plain HTTP request was sent to HTTPS port</title>";
        Some(response("400 Bad Request", "Content-Type: text/html\r\n", body))
    });
    expect_fault(&Client::new().ws(&as_nginx), "tls_on_plain_port", &["use wss://"]);
}

#[test]
fn a_slow_tls_handshake() {
    let authority = Authority::new();
    let config = authority.server(&authority.leaf("a.test", 30, 60));
    let mut client = Client::trusting(&authority);
    client.settings.slow = std::time::Duration::ZERO;
    let server = Upstream::builder().tls(config).websocket(Conn::echo);
    let report = client.wss(&server);
    // Everything is slower than nothing.
    let expected = ["dns_slow", "tcp_slow", "tls_slow", "slow_response", "ping_slow"];
    assert_eq!((codes(&report), report.verdict), (expected.to_vec(), Verdict::Warning));
}

#[test]
fn one_of_two_servers_that_was_forgotten() {
    let authority = Authority::new();
    let client = Client::trusting(&authority);
    client.dns.set("a.test", wssgate_testkit::Says::addresses(&["127.0.0.1", "127.0.0.2"]));
    let good = echo(authority.server(&authority.leaf("a.test", 30, 60)));
    let other = SocketAddr::from(([127, 0, 0, 2], good.port()));
    let at_other = || Upstream::builder().at(other);
    let forgotten = at_other().tls(authority.server(&authority.leaf("a.test", 90, -3))).echo();
    let words = [&*format!("at {other}: the certificate expired 3 days ago")];
    expect_fault(&client.wss(&good), "certificate_expired", &words);
    drop(forgotten);
    let plain = at_other().serve(|conn| {
        drop(conn.try_recv_raw(5));
        drop(conn.try_send_raw("HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    let words = [&*format!("at {other}: the server sent \"HTTP/1.1 400")];
    expect_fault(&client.wss(&good), "tls_at_other_address", &words);
    drop(plain);
}
