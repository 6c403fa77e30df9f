//! Whose certificates are trusted, on both sides: how long a chain may be, where it must end, and
//! what is said when it does not.
//!
//! Everything is asked of nginx too, where there is one. Answers and words must be the same.
#![allow(clippy::unwrap_used)]

use wssgate_testkit::pki::Leaf;
use wssgate_testkit::{Handshake, Instance, Pki, Upstream, http, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// What is said of a chain that is trusted but for its length: that it is too long, and then, as
/// nginx lets OpenSSL go on, that the issuer cannot be had that must not be looked for.
const TOO_LONG: &str = "FAILED:unable to get local issuer certificate";

/// Servers that say what they think of a client's certificate, one for each of `settings`. Theirs
/// are the certificates of `ours`.
fn judges(exe: &str, ours: &Pki, authorities: &str, settings: &[String]) -> Instance {
    let leaf = ours.leaf(&["localhost"]);
    let servers = settings.iter().enumerate().map(|(number, settings)| {
        format!(
            "server {{ listen %%LISTEN_{number}%% ssl; ssl_certificate {}; \
             ssl_certificate_key {}; {settings} add_header X-Verify $ssl_client_verify always; \
             location / {{ return 204; }} }}",
            leaf.fullchain.display(),
            leaf.key.display(),
        )
    });
    let servers: String = servers.collect();
    Instance::setup(exe).file("ca.pem", authorities).http(&servers).start()
}

/// What a judge says to the owner of `leaf`: the status and `$ssl_client_verify`.
fn verdict(judges: &Instance, number: usize, ours: &Pki, leaf: &Leaf) -> (u16, String) {
    let address = judges.listen(number);
    let client = Handshake::to(address).tls(ours.client_config_with(leaf), "localhost");
    let (_, answer) = client.answer();
    let told = answer.field("x-verify").unwrap_or_default().to_owned();
    if answer.status == 400 {
        assert!(answer.text().contains("The SSL certificate error"), "{}", answer.text());
    }
    (answer.status, told)
}

#[test]
fn a_client_chain_has_no_more_intermediates_than_ssl_verify_depth_says() {
    let ours = Pki::new();
    // Without a word the depth is 1.
    let depths = [("ssl_verify_depth 0;", 0), ("ssl_verify_depth 1;", 1)];
    let depths = [&depths[..], &[("ssl_verify_depth 2;", 2), ("ssl_verify_depth 3;", 3), ("", 1)]];
    let depths = depths.concat();
    let asking = |(depth, _): &(&str, _)| {
        format!("ssl_verify_client on; ssl_client_certificate ca.pem; {depth}")
    };
    let settings: Vec<_> = depths.iter().map(asking).collect();
    for intermediates in 0..=3 {
        let clients = Pki::with_intermediates(intermediates);
        let root = std::fs::read_to_string(clients.root_path()).unwrap();
        let leaf = clients.leaf(&["client.test"]);
        for exe in with_nginx(WSSGATE) {
            let judges = judges(exe, &ours, &root, &settings);
            for (number, (_, depth)) in depths.iter().enumerate() {
                let fits = intermediates <= *depth;
                let expected = if fits { (204, "SUCCESS") } else { (400, TOO_LONG) };
                let (status, told) = verdict(&judges, number, &ours, &leaf);
                let case = format!("{exe}: {intermediates} intermediates, depth {depth}: {told}");
                assert_eq!(status, expected.0, "{case}");
                assert_eq!(told, expected.1, "{case}");
            }
            if intermediates > 0 {
                judges.wait_for_log(
                    "client SSL certificate verify error: (20:unable to get local issuer \
                     certificate) while reading client request headers",
                );
            }
        }
    }
}

#[test]
fn an_upstream_chain_has_no_more_intermediates_than_proxy_ssl_verify_depth_says() {
    let locations = [("/0", "0"), ("/1", "1"), ("/2", "2"), ("/3", "3")].map(|(path, depth)| {
        format!("location {path} {{ proxy_pass https://%%UP%%; proxy_ssl_verify_depth {depth}; }}")
    });
    // nginx keeps the verdict with the session, and the session for all locations.
    let config = format!(
        "proxy_ssl_session_reuse off; proxy_ssl_verify on;
         proxy_ssl_trusted_certificate %%ROOT%%; proxy_ssl_name app.test;
         server {{ listen %%LISTEN_0%%; {}
             location /default {{ proxy_pass https://%%UP%%; }} }}",
        locations.concat(),
    );
    for intermediates in 0..=3 {
        let pki = Pki::with_intermediates(intermediates);
        let leaf = pki.leaf(&["app.test"]);
        for exe in with_nginx(WSSGATE) {
            let upstream = Upstream::builder()
                .tls(leaf.server_config())
                .http(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let server = Instance::setup(exe)
                .http(&config)
                .var("UP", upstream.addr())
                .var("ROOT", pki.root_path().display())
                .start();
            for (path, depth) in [("/0", 0), ("/1", 1), ("/2", 2), ("/3", 3), ("/default", 1)] {
                let expected = if intermediates <= depth { 200 } else { 502 };
                let answer = http::get(server.listen(0), "a", path);
                let case = format!("{exe}: {intermediates} intermediates, {path}");
                assert_eq!(answer.status, expected, "{case}");
            }
            if intermediates > 0 {
                let line = server.wait_for_log("upstream SSL certificate verify error: (");
                assert!(line.contains(") while SSL handshaking to upstream"), "{line}");
                assert!(line.contains("(20:unable to get local issuer certificate)"), "{line}");
            }
        }
    }
}

/// Everything else that a client may show, as nginx with OpenSSL 3 judges it.
#[test]
fn client_chains_are_judged_as_by_nginx() {
    const SUCCESS: &str = "SUCCESS";
    const TRUSTED_TOO_LONG: &str = "FAILED:unable to get issuer certificate";
    const NO_ISSUER: &str = "FAILED:unable to get local issuer certificate";
    const ALONE: &str = "FAILED:unable to verify the first certificate";
    const OWN: &str = "FAILED:self-signed certificate";
    const OWN_ROOT: &str = "FAILED:self-signed certificate in certificate chain";
    const EXPIRED: &str = "FAILED:certificate has expired";
    let ours = Pki::new();
    let clients = Pki::with_intermediates(2);
    let root = &std::fs::read_to_string(clients.root_path()).unwrap()[..];
    let all = &clients.authorities_pem()[..];
    let leaf = || clients.leaf(&["client.test"]);
    let sent = &leaf().chain()[1..].to_vec()[..];
    let disordered = [sent[1].clone(), sent[0].clone()];
    let stranger = Pki::with_intermediates(2);
    let strange = || stranger.leaf(&["client.test"]);
    let strange_and_root = [&strange().chain()[1..], &[stranger.root().clone()]].concat();
    let own = clients.self_signed(&["own.test"], false);
    let own_ca = clients.self_signed(&["own-ca.test"], true);
    let owns = [&own, &own_ca].map(|own| std::fs::read_to_string(&own.cert).unwrap()).concat();
    let another = |is_ca| clients.self_signed(&["x.test"], is_ca);
    let expired = || clients.expired_leaf(&["x.test"]);

    // What the servers trust, what the client shows, and the verdicts at depth 0, 1 and 2.
    let cases = [
        (
            root,
            leaf().sending(&[sent, &[clients.root().clone()]].concat()),
            [TOO_LONG, TOO_LONG, SUCCESS],
        ),
        (root, leaf().sending(&disordered), [TOO_LONG, TOO_LONG, SUCCESS]),
        (all, leaf(), [TRUSTED_TOO_LONG, TRUSTED_TOO_LONG, SUCCESS]),
        (all, leaf().sending(&[]), [TRUSTED_TOO_LONG, TRUSTED_TOO_LONG, SUCCESS]),
        (root, leaf().sending(&sent[..1]), [NO_ISSUER; 3]),
        (root, leaf().sending(&[]), [ALONE; 3]),
        (root, strange(), [NO_ISSUER; 3]),
        (root, strange().sending(&strange_and_root), [NO_ISSUER, NO_ISSUER, OWN_ROOT]),
        (root, another(false), [OWN; 3]),
        (root, another(true), [OWN; 3]),
        (&owns, another(true), [OWN; 3]),
        (&owns, own, [SUCCESS; 3]),
        (&owns, own_ca, [SUCCESS; 3]),
        (all, expired(), [EXPIRED; 3]),
        (root, expired().sending(&[]), [EXPIRED; 3]),
    ];
    let settings = [0, 1, 2].map(|depth| {
        let modes = ["on", "optional_no_ca"];
        modes.map(|mode| {
            format!(
                "ssl_verify_client {mode}; ssl_client_certificate ca.pem; \
                 ssl_verify_depth {depth};"
            )
        })
    });
    for exe in with_nginx(WSSGATE) {
        for (number, (authorities, leaf, verdicts)) in cases.iter().enumerate() {
            let judges = judges(exe, &ours, authorities, settings.as_flattened());
            for (server, expected) in verdicts.iter().flat_map(|told| [told; 2]).enumerate() {
                let (status, told) = verdict(&judges, server, &ours, leaf);
                let case = format!("{exe}: case {number}, server {server}: {told}");
                assert_eq!(told, *expected, "{case}");
                // `optional_no_ca` lets those pass who only lack a CA.
                let lenient = server % 2 == 1 && ![EXPIRED, TRUSTED_TOO_LONG].contains(expected);
                let passes = *expected == SUCCESS || lenient;
                assert_eq!(status, if passes { 204 } else { 400 }, "{case}");
            }
        }
    }
}

/// The list of an authority with one leaf that it has revoked, and what becomes of the others.
#[test]
fn revocation_lists_are_obeyed_as_by_nginx() {
    let ours = Pki::new();
    let pki = Pki::with_intermediates(0);
    let [good, revoked] = [0; 2].map(|_| pki.leaf(&["app.test"]));
    let list = |is_expired| pki.crl_pem(&[&revoked], is_expired);
    let unrelated = Pki::with_intermediates(0).crl_pem(&[], false);
    let root = &std::fs::read_to_string(pki.root_path()).unwrap();
    let cases = [
        (list(false), &good, None),
        (list(false), &revoked, Some("23:certificate revoked")),
        (list(true), &good, Some("12:CRL has expired")),
        (unrelated, &good, Some("3:unable to get certificate CRL")),
    ];
    for exe in with_nginx(WSSGATE) {
        for (list, leaf, fault) in &cases {
            let crl = pki.dir().join("crl.pem");
            std::fs::write(&crl, list).unwrap();
            let crl = crl.display();
            let asking =
                format!("ssl_verify_client on; ssl_client_certificate ca.pem; ssl_crl {crl};");
            let judges = judges(exe, &ours, root, &[asking]);
            let words = fault.and_then(|fault| fault.split_once(':')).map(|(_, words)| words);
            let told = words.map_or("SUCCESS".to_owned(), |words| format!("FAILED:{words}"));
            let status = if fault.is_some() { 400 } else { 204 };
            assert_eq!(verdict(&judges, 0, &ours, leaf), (status, told), "{exe}");

            let upstream = Upstream::builder()
                .tls(leaf.server_config())
                .http(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let server = Instance::setup(exe)
                .http(&format!(
                    "server {{ listen %%LISTEN_0%%; location / {{ proxy_pass https://%%UP%%; \
                     proxy_ssl_verify on; proxy_ssl_name app.test; proxy_ssl_crl {crl}; \
                     proxy_ssl_trusted_certificate {}; }} }}",
                    pki.root_path().display()
                ))
                .var("UP", upstream.addr())
                .start();
            let answer = http::get(server.listen(0), "a", "/");
            assert_eq!(answer.status, if fault.is_some() { 502 } else { 200 }, "{exe}: {fault:?}");
            if let Some(fault) = fault {
                server.wait_for_log(&format!("upstream SSL certificate verify error: ({fault})"));
            }
        }
    }
}

/// Whatever else an upstream may show, and the line in the error log when it is not trusted.
#[test]
fn upstream_certificates_are_judged_as_by_nginx() {
    let pki = Pki::with_intermediates(1);
    let own_ca = || pki.self_signed(&["app.test"], true);
    let trusted = own_ca();
    let authorities = [&pki.root_path(), &trusted.cert];
    let authorities = authorities.map(|path| std::fs::read_to_string(path).unwrap()).concat();
    let alone = pki.leaf(&["app.test"]).sending(&[]);
    let other = pki.leaf(&["other.test"]);
    let verify_error = "upstream SSL certificate verify error: ";
    let cases = [
        (trusted, None),
        (pki.leaf(&["app.test"]), None),
        (own_ca(), Some(format!("{verify_error}(18:self-signed certificate)"))),
        (alone, Some(format!("{verify_error}(21:unable to verify the first certificate)"))),
        (other, Some("upstream SSL certificate does not match \"app.test\"".to_owned())),
        (
            pki.expired_leaf(&["app.test"]),
            Some(format!("{verify_error}(10:certificate has expired)")),
        ),
    ];
    for exe in with_nginx(WSSGATE) {
        for (leaf, line) in &cases {
            let upstream = Upstream::builder()
                .tls(leaf.server_config())
                .http(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let server = Instance::setup(exe)
                .file("ca.pem", &authorities)
                .http(
                    "server { listen %%LISTEN_0%%; location / { proxy_pass https://%%UP%%; \
                     proxy_ssl_verify on; proxy_ssl_name app.test; \
                     proxy_ssl_trusted_certificate ca.pem; } }",
                )
                .var("UP", upstream.addr())
                .start();
            let answer = http::get(server.listen(0), "a", "/");
            assert_eq!(answer.status, if line.is_some() { 502 } else { 200 }, "{exe}: {line:?}");
            if let Some(line) = line {
                server.wait_for_log(&format!("{line} while SSL handshaking to upstream"));
            }
        }
    }
}

/// nginx gives what it has kept to every name.
#[test]
fn a_kept_connection_serves_only_the_name_that_its_certificate_was_judged_for() {
    let pki = Pki::with_intermediates(0);
    let upstream = Upstream::builder()
        .tls(pki.leaf(&["a.test"]).server_config())
        .http(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let server = Instance::setup(WSSGATE)
        .http(
            "upstream app { server %%UP%%; keepalive 4; }
             server { listen %%LISTEN_0%%; location / { proxy_pass https://app;
                 proxy_http_version 1.1; proxy_set_header Connection \"\";
                 proxy_ssl_verify on; proxy_ssl_trusted_certificate %%ROOT%%;
                 proxy_ssl_name $arg_name; } }",
        )
        .var("UP", upstream.addr())
        .var("ROOT", pki.root_path().display())
        .start();
    for (name, status) in [("a.test", 200), ("b.test", 502), ("a.test", 200)] {
        let answer = http::get(server.listen(0), "a", &format!("/?name={name}"));
        assert_eq!(answer.status, status, "{name}");
    }
    assert_eq!(upstream.connections(), 2);
}

/// nginx folds a field with `$ssl_client_cert` over several lines, which nobody may any more (RFC 9112 §5.2) and many
/// servers refuse.
#[test]
fn a_client_certificate_in_a_header_is_one_line() {
    let (ours, clients) = (Pki::new(), Pki::new());
    let (own, leaf) = (ours.leaf(&["localhost"]), clients.leaf(&["client.test"]));
    let upstream = Upstream::http(|request| {
        let shown = request.field("x-cert").unwrap_or("none");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}", shown.len())
    });
    let server = Instance::setup(WSSGATE)
        .http(
            "server {
                 listen %%LISTEN_0%% ssl;
                 ssl_certificate %%CERT%%;
                 ssl_certificate_key %%KEY%%;
                 ssl_verify_client on;
                 ssl_client_certificate %%ROOT%%;
                 add_header X-Cert x$ssl_client_cert;
                 location / { proxy_pass http://%%UP%%; proxy_set_header X-Cert $ssl_client_cert; }
             }",
        )
        .var("CERT", own.fullchain.display())
        .var("KEY", own.key.display())
        .var("ROOT", clients.root_path().display())
        .var("UP", upstream.addr())
        .start();
    let client = Handshake::to(server.listen(0)).tls(ours.client_config_with(&leaf), "localhost");
    let (_, answer) = client.answer();
    let pem = std::fs::read_to_string(&leaf.fullchain).unwrap();
    let end = pem.find("-----END CERTIFICATE-----").unwrap();
    let first: Vec<_> = pem[..end].lines().chain(["-----END CERTIFICATE-----"]).collect();
    let expected = first.join("\t");
    assert_eq!(answer.field("x-cert"), Some(format!("x{expected}").as_str()));
    assert_eq!(answer.text(), expected);
}
