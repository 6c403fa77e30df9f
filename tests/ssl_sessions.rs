//! Clients that come back: what a session is called, which keys open its ticket, and that whoever is
//! no longer trusted is not let in for having been here before.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use wssgate_testkit::{Conn, Instance, Pki, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// What a server says of a connection: `$ssl_session_reused $ssl_session_id`, or an error's status.
fn visit(server: &Instance, number: usize, client: &Arc<ClientConfig>) -> (String, String) {
    let address = server.listen(number);
    let mut conn = Conn::try_connect_tls(address, Arc::clone(client), "localhost").unwrap();
    let mut ask = || {
        conn.send_raw("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = conn.recv_response();
        if answer.status == 200 { answer.text() } else { answer.status.to_string() }
    };
    let told = ask();
    if told.contains(' ') {
        assert_eq!(ask(), told, "it stays the same for a connection");
    }
    let (reused, id) = told.split_once(' ').unwrap_or((&told, ""));
    (reused.to_owned(), id.to_owned())
}

/// A server that tells of sessions, with these settings and this certificate.
fn telling(number: usize, settings: &str) -> String {
    format!(
        "server {{ listen %%LISTEN_{number}%% ssl; ssl_certificate %%CERT%%;
         ssl_certificate_key %%KEY%%; {settings}
         return 200 '$ssl_session_reused $ssl_session_id'; }}"
    )
}

#[test]
fn a_session_is_called_as_openssl_calls_it() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    // With how many digits at first and again, and how it is resumed.
    let cases = [
        ("ssl_protocols TLSv1.2;", 0, 64, "r"),
        ("ssl_protocols TLSv1.2; ssl_session_tickets off;", 64, 64, "."),
        ("ssl_protocols TLSv1.2; ssl_session_tickets off; ssl_session_cache off;", 0, 0, "."),
        (
            "ssl_protocols TLSv1.2; ssl_session_tickets off; ssl_session_cache shared:a:1m;",
            64,
            64,
            "r",
        ),
        ("ssl_protocols TLSv1.3;", 64, 64, "r"),
        ("ssl_protocols TLSv1.3; ssl_session_tickets off;", 64, 64, "."),
        (
            "ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache shared:b:1m;",
            64,
            64,
            "r",
        ),
    ];
    let servers =
        cases.iter().enumerate().map(|(number, (settings, ..))| telling(number, settings));
    let servers: String = servers.collect();
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .http(&servers)
            .var("CERT", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .start();
        for (number, (settings, first, again, reused)) in cases.iter().enumerate() {
            let client = pki.client_config();
            let (one, two) = (visit(&server, number, &client), visit(&server, number, &client));
            let case = format!("{exe}: {settings} {one:?} {two:?}");
            assert_eq!((one.0.as_str(), one.1.len()), (".", *first), "{case}");
            assert_eq!((two.0.as_str(), two.1.len()), (*reused, *again), "{case}");
            // Only an identifier that the client repeats can stay the same.
            let stays = settings.contains("TLSv1.2") && settings.contains("shared");
            assert_eq!(one.1 == two.1, stays || (*first, *again) == (0, 0), "{case}");
        }
    }
}

/// Hosts with the same two servers, TLS 1.2 and 1.3, whose tickets are sealed with the first of these
/// keys and opened with all.
fn host(exe: &str, pki: &Pki, keys: &[&[u8]]) -> Instance {
    let leaf = pki.leaf(&["localhost"]);
    let lines = (0..keys.len()).map(|key| format!("ssl_session_ticket_key {key}.key; "));
    let lines: String = lines.collect();
    let servers = ["TLSv1.2", "TLSv1.3"].iter().enumerate();
    let servers = servers.map(|(at, version)| telling(at, &format!("ssl_protocols {version};")));
    let servers: String = servers.collect();
    let setup = Instance::setup(exe).http(&format!("{lines} {servers}"));
    let setup = keys
        .iter()
        .enumerate()
        .fold(setup, |setup, (at, key)| setup.file(&format!("{at}.key"), key));
    setup.var("CERT", leaf.fullchain.display()).var("KEY", leaf.key.display()).start()
}

#[test]
fn a_key_file_opens_tickets_of_other_hosts_and_of_before_a_restart() {
    let pki = Pki::new();
    let (old, new) = (&[1; 48][..], &[2; 80][..]);
    // nginx ties a session to the certificate, of which each host here has its own.
    let mut before = host(WSSGATE, &pki, &[old]);
    let during = host(WSSGATE, &pki, &[new, old]);
    let after = host(WSSGATE, &pki, &[new]);
    for number in [0, 1] {
        let reused = |server: &Instance, client| visit(server, number, client).0;
        let client = pki.client_config();
        assert_eq!(reused(&before, &client), ".");
        assert_eq!(reused(&before, &client), "r");
        assert_eq!(reused(&during, &client), "r", "by the second key");
        assert_eq!(reused(&after, &client), "r", "sealed anew with the first");
        assert_eq!(reused(&before, &client), ".", "which is unknown there");
        before.signal("TERM");
        before.restart();
        assert_eq!(reused(&before, &client), "r", "after the restart");
        assert_eq!(reused(&after, &client), ".", "the old key is gone there");
    }
}

#[test]
fn key_files_that_cannot_be_used_are_named_in_nginx_words() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    for exe in with_nginx(WSSGATE) {
        let failed = Instance::setup(exe)
            .http(&telling(0, "ssl_session_ticket_key good.key; ssl_session_ticket_key long.key;"))
            .file("good.key", [1; 80])
            .file("long.key", [1; 81])
            .var("CERT", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .try_start();
        let said = failed.err().unwrap().stderr;
        assert!(said.contains("long.key\" must be 48 or 80 bytes"), "{exe}: {said}");
        let failed = Instance::setup(exe)
            .http(&telling(0, "ssl_session_tickets off; ssl_session_ticket_key none.key;"))
            .var("CERT", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .try_start();
        let said = failed.err().unwrap().stderr;
        assert!(
            said.contains("open() \"") && said.contains("none.key\" failed (2:"),
            "{exe}: {said}"
        );
    }
}

/// RFC 8446 §4.6.1: more than seven days must not be said.
#[test]
fn a_ticket_lives_for_seven_days_at_most() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    for (timeout, seconds) in [("1h", 3600), ("7d", 604_800), ("30d", 604_800)] {
        let server = Instance::setup(WSSGATE)
            .http(&telling(0, &format!("ssl_session_timeout {timeout};")))
            .var("CERT", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .start();
        let mut client = Command::new("openssl")
            .args(["s_client", "-tls1_3", "-ign_eof", "-connect", &server.listen(0).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
        let output = client.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = format!("ticket lifetime hint: {seconds} (seconds)");
        assert!(text.contains(&expected), "{timeout}: {text}");
    }
}

/// Revokes the certificate of a client that has a session, and reloads.
#[test]
fn a_session_survives_a_reload_and_its_owner_is_judged_anew() {
    let pki = Pki::with_intermediates(0);
    let (leaf, owner) = (pki.leaf(&["localhost"]), pki.leaf(&["client.test"]));
    let asking = "ssl_verify_client on; ssl_client_certificate %%ROOT%%; ssl_crl crl.pem;";
    for version in ["TLSv1.2", "TLSv1.3"] {
        for tickets in ["on", "off; ssl_session_cache shared:a:1m"] {
            let settings =
                format!("ssl_protocols {version}; ssl_session_tickets {tickets}; {asking}");
            let server = Instance::setup(WSSGATE)
                .http(&telling(0, &settings))
                .file("crl.pem", pki.crl_pem(&[], false))
                .var("ROOT", pki.root_path().display())
                .var("CERT", leaf.fullchain.display())
                .var("KEY", leaf.key.display())
                .start();
            let client = pki.client_config_with(&owner);
            assert_eq!(visit(&server, 0, &client).0, ".");
            assert_eq!(visit(&server, 0, &client).0, "r");
            server.signal("HUP");
            server.wait_for_log("reconfigured, generation 2");
            assert_eq!(visit(&server, 0, &client).0, "r", "{settings}");
            fs::write(server.dir().join("crl.pem"), pki.crl_pem(&[&owner], false)).unwrap();
            server.signal("HUP");
            server.wait_for_log("reconfigured, generation 3");
            assert_eq!(visit(&server, 0, &client).0, "400", "{settings}");
            server.wait_for_log("verify error: (23:certificate revoked)");
        }
    }
}
