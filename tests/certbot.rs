//! certbot's nginx plugin with wssgate as its nginx: it deploys and renews certificates of a real ACME server, which
//! fetches each challenge, and no WebSocket that is open notices.
//!
//! Needs Debian's `pebble`, and certbot with its plugin beside the Python of `WSSGATE_TEST_PYTHON`.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use wssgate_testkit::{
    Conn, Dns, Handshake, Instance, Pebble, Pki, Says, Upstream, free_addr,
    pki::client_that_trusts, skipped, text, wait_until,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");
const NAME: &str = "chat.example.test";

/// As certbot finds it: a site without TLS.
const SITE: &str = "
    server {
        listen %%LISTEN_0%%;
        server_name chat.example.test;
        location / { proxy_pass http://%%UP%%; }
    }";

#[test]
fn certbot_deploys_and_renews_and_no_websocket_notices() {
    let certbot = certbot();
    if !Pebble::is_here("certbot's nginx plugin") {
        return;
    }
    if !certbot.exists() {
        return skipped("certbot's nginx plugin: no certbot beside the Python of tests");
    }
    let (upstream, dns, pki) = (Upstream::echo(), Dns::start(), Pki::new());
    let mut wssgate = Instance::setup(WSSGATE).http(SITE).var("UP", upstream.addr()).start();
    let plain = wssgate.listen(0);
    // certbot adds a `listen` for TLS, with the address of the one that is there.
    let secure = free_addr();
    let pebble = Pebble::setup().http_port(plain.port()).start(&pki, &dns);
    dns.set(NAME, Says::addresses(&[&plain.ip().to_string()]));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&certbot);
        command.args(arguments).args(["--non-interactive", "--no-random-sleep-on-renew"]);
        for (option, name) in
            [("--config-dir", "etc"), ("--work-dir", "lib"), ("--logs-dir", "log")]
        {
            command.arg(option).arg(wssgate.dir().join(name));
        }
        let output = command.env("REQUESTS_CA_BUNDLE", pki.root_path()).output().unwrap();
        let told =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "certbot: {told}\n{}",
            wssgate.read("log/letsencrypt.log")
        );
    };

    let mut early = Handshake::to(plain).host(NAME).open();
    let server_root = wssgate.dir().display().to_string();
    run(&[
        "--nginx",
        "--nginx-ctl",
        &nginx_ctl(wssgate.dir()).display().to_string(),
        "--nginx-server-root",
        &server_root,
        "--server",
        &pebble.directory(),
        "--http-01-port",
        &plain.port().to_string(),
        "--https-port",
        &secure.port().to_string(),
        "--domain",
        NAME,
        "--agree-tos",
        "--register-unsafely-without-email",
    ]);
    let root = pebble.root(&pki);
    // A client that comes again would resume its session, and see no certificate.
    let newcomer = || Handshake::to(secure).host(NAME).tls(client_that_trusts(&root), NAME).open();
    let mut tunnel = newcomer();
    let first = leaf_of(&tunnel);

    run(&["renew", "--force-renewal"]);
    let mut late = None;
    wait_until("the renewed certificate", || {
        let tunnel = newcomer();
        let renewed = leaf_of(&tunnel) != first;
        late = renewed.then_some(tunnel);
        renewed
    });
    for conn in [&mut early, &mut tunnel, late.as_mut().unwrap()] {
        conn.send([text("still here")]);
        conn.expect([text("still here")]);
    }
    assert!(!wssgate.has_ended());
    let log = wssgate.error_log();
    assert!(!["[emerg]", "[alert]", "[crit]"].iter().any(|level| log.contains(level)), "{log}");
    assert!(log.matches("signal process started").count() >= 4, "{log}");
}

/// The program that `WSSGATE_TEST_PYTHON` stands beside.
fn certbot() -> PathBuf {
    let python = std::env::var_os("WSSGATE_TEST_PYTHON").unwrap_or_default();
    Path::new(&python).with_file_name("certbot")
}

/// What certbot calls instead of `nginx`; the log of the machine stays as it is.
fn nginx_ctl(dir: &Path) -> PathBuf {
    let path = dir.join("nginx-ctl");
    let log = dir.join("error.log").display().to_string();
    fs::write(&path, format!("#!/bin/sh\nexec '{WSSGATE}' -e '{log}' \"$@\"\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The certificate that a server has shown.
fn leaf_of(conn: &Conn) -> Vec<u8> {
    let shown = conn.tls_client().and_then(|tls| tls.peer_certificates()).unwrap();
    shown[0].to_vec()
}
