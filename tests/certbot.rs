//! certbot beside wssgate and a real ACME server, which fetches each challenge. certbot's nginx plugin with wssgate as
//! its nginx deploys and renews certificates, and no WebSocket that is open notices; `wssgate acme import` takes over
//! what certbot has obtained.
//!
//! Needs Debian's `pebble`, and certbot with its plugin beside the Python of `WSSGATE_TEST_PYTHON`.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
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
    let Some(certbot) = certbot("certbot's nginx plugin") else { return };
    let (upstream, dns, pki) = (Upstream::echo(), Dns::start(), Pki::new());
    let mut wssgate = Instance::setup(WSSGATE).http(SITE).var("UP", upstream.addr()).start();
    let plain = wssgate.listen(0);
    // certbot adds a `listen` for TLS, with the address of the one that is there.
    let secure = free_addr();
    let pebble = Pebble::setup().http_port(plain.port()).start(&pki, &dns);
    dns.set(NAME, Says::addresses(&[&plain.ip().to_string()]));
    let run = |arguments: &[&str]| run(&certbot, &wssgate, &pki, arguments);

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
    // The upstream waits for as long as certbot takes on a slow machine, not for twice of that.
    let still_here = |conn: &mut Conn| {
        conn.send([text("still here")]);
        conn.expect([text("still here")]);
    };
    still_here(&mut early);

    run(&["renew", "--force-renewal"]);
    let mut late = None;
    wait_until("the renewed certificate", || {
        let tunnel = newcomer();
        let renewed = leaf_of(&tunnel) != first;
        late = renewed.then_some(tunnel);
        renewed
    });
    for conn in [&mut early, &mut tunnel, late.as_mut().unwrap()] {
        still_here(conn);
    }
    assert!(!wssgate.has_ended());
    let log = wssgate.error_log();
    assert!(!["[emerg]", "[alert]", "[crit]"].iter().any(|level| log.contains(level)), "{log}");
    assert!(log.matches("signal process started").count() >= 4, "{log}");
}

/// Whoever has certbot's files goes on with them, without an order.
#[test]
fn what_certbot_has_obtained_becomes_ours() {
    let Some(certbot) = certbot("certificates of certbot's") else { return };
    let (upstream, dns, pki) = (Upstream::echo(), Dns::start(), Pki::new());
    let plain = "server { listen %%LISTEN_0%%; server_name %%NAME%%; root %%DIR%%/web; }";
    let setup = Instance::setup(WSSGATE).http(plain).var("UP", upstream.addr());
    let mut wssgate = setup.file("web/index.html", "").var("NAME", NAME).start();
    let port = wssgate.listen(0).port();
    let pebble = Pebble::setup().http_port(port).start(&pki, &dns);
    dns.set(NAME, Says::addresses(&[&wssgate.listen(0).ip().to_string()]));
    let (server, web) = (pebble.directory(), wssgate.dir().join("web").display().to_string());
    let new = ["certonly", "--webroot", "-w", &web, "--server", &server, "--domain", NAME];
    let agreed = ["--agree-tos", "--register-unsafely-without-email"];
    run(&certbot, &wssgate, &pki, &[&new[..], &agreed].concat());

    wssgate.set_var("CA", &server);
    wssgate.set_var("ROOT", pki.root_path().display());
    wssgate.rewrite_http(&format!("{plain}{BY_ACME}"));
    let imported = || {
        let conf = wssgate.dir().join("nginx.conf");
        let mut command = Command::new(WSSGATE);
        command.args(["acme", "import", "-c"]).arg(conf);
        let output = command.arg("--certbot").arg(wssgate.dir().join("etc")).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&told).into_owned())
    };
    let (done, told) = imported();
    assert!(done, "{told}");
    for part in [
        "chat.example.test\n  issuer       ca (https://",
        "  certificate  imported: \"chat.example.test\", valid until 20",
        "  renewal      20",
        // certbot's keys of accounts are RSA.
        "  account      not imported (",
        "only ECDSA keys on P-256 are supported); the next order registers a new one",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let state = wssgate.dir().join("state");
    let owner = fs::metadata(&state).unwrap();
    assert_eq!(owner.permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let seen = (metadata.permissions().mode() & 0o777, metadata.uid());
        assert_eq!(seen, (0o600, owner.uid()), "{:?}", entry.file_name());
    }
    // The account is taken as well if we can use it (here that of RFC 7517).
    let accounts = wssgate.dir().join("etc/accounts");
    let account = fs::read_dir(accounts.join(server.trim_start_matches("https://"))).unwrap();
    let account = account.map(|entry| entry.unwrap().path()).next().unwrap();
    fs::write(account.join("private_key.json"), JWK).unwrap();
    let (done, told) = imported();
    assert!(done && told.contains("  certificate  kept: it is valid until 20"), "{told}");
    assert!(told.contains("  account      imported: https://"), "{told}");
    assert!(fs::read_to_string(state.join("account.key")).unwrap().contains("PRIVATE KEY"));

    wssgate.signal("HUP");
    wssgate.wait_for_log("reconfigured, generation 2");
    let root = pebble.root(&pki);
    let mut tunnel =
        Handshake::to(wssgate.listen(1)).host(NAME).tls(client_that_trusts(&root), NAME).open();
    tunnel.send([text("over wss")]);
    tunnel.expect([text("over wss")]);
    let live = fs::read(wssgate.dir().join(format!("etc/live/{NAME}/cert.pem"))).unwrap();
    assert_eq!(leaf_of(&tunnel), CertificateDer::from_pem_slice(&live).unwrap().to_vec());
    // The lock is the running process's now, whose certificates nobody else replaces.
    wait_until("the lock of the running process", || {
        let (done, told) = imported();
        !done && told.contains("another process holds its lock")
    });
    assert_eq!(wssgate.error_log().matches("certificate obtained").count(), 0);
}

const BY_ACME: &str = "
    acme_issuer ca {
        uri %%CA%%; ssl_trusted_certificate %%ROOT%%; state_path %%DIR%%/state; accept_terms_of_service;
    }
    server {
        listen %%LISTEN_1%% ssl;
        server_name %%NAME%%;
        acme_certificate ca;
        ssl_certificate $acme_certificate;
        ssl_certificate_key $acme_certificate_key;
        location / { proxy_pass http://%%UP%%; }
    }";

/// The key of RFC 7517 appendix A.2.
const JWK: &str = r#"{"kty": "EC", "crv": "P-256", "d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

/// The program that `WSSGATE_TEST_PYTHON` stands beside; nothing if it or its CA is missing, which is said.
fn certbot(what: &str) -> Option<PathBuf> {
    if !Pebble::is_here(what) {
        return None;
    }
    let python = std::env::var_os("WSSGATE_TEST_PYTHON").unwrap_or_default();
    let program = Path::new(&python).with_file_name("certbot");
    if !program.exists() {
        skipped(&format!("{what}: no certbot beside the Python of tests"));
        return None;
    }
    Some(program)
}

/// Runs certbot with its directories in that of a server.
#[track_caller]
fn run(certbot: &Path, wssgate: &Instance, pki: &Pki, arguments: &[&str]) {
    let mut command = Command::new(certbot);
    command.args(arguments).args(["--non-interactive", "--no-random-sleep-on-renew"]);
    for (option, name) in [("--config-dir", "etc"), ("--work-dir", "lib"), ("--logs-dir", "log")] {
        command.arg(option).arg(wssgate.dir().join(name));
    }
    let output = command.env("REQUESTS_CA_BUNDLE", pki.root_path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "certbot: {told}\n{}", wssgate.read("log/letsencrypt.log"));
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
