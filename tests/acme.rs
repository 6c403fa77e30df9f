//! Certificates by ACME against Debian's `pebble`, which fetches every challenge.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use wssgate_testkit::{
    Conn, Dns, GUARD, Handshake, Instance, Named, Pebble, Pki, Says, Upstream, free_addr, instance,
    named::Kind, pki::client_that_trusts, skipped, text, wait_until, wait_within,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");
const CHALLTESTSRV: &str = "/usr/bin/pebble-challtestsrv";
const NAME: &str = "chat.example.test";

/// An issuer, and a server on two addresses: TLS, and plain HTTP that only redirects.
const SITE: &str = r#"
    acme_issuer ca {
        uri %%CA%%;
        ssl_trusted_certificate %%ROOT%%;
        state_path %%DIR%%/state;
        accept_terms_of_service;
        %%ISSUER%%
    }
    server {
        listen %%LISTEN_0%% ssl;
        server_name %%NAMES%%;
        acme_certificate ca;
        ssl_certificate $acme_certificate;
        ssl_certificate_key $acme_certificate_key;
        ssl_certificate_cache max=2;
        location / { proxy_pass http://%%UP%%; }
    }
    server {
        listen %%LISTEN_1%%;
        deny all;
        return 301 https://$host$request_uri;
    }"#;

/// What tests of one CA share.
struct World {
    pki: Pki,
    dns: Dns,
    upstream: Upstream,
}

impl World {
    fn new() -> Self {
        Self { pki: Pki::new(), dns: Dns::start(), upstream: Upstream::echo() }
    }

    /// The site for these names, with the CA of this URL and more lines for the issuer.
    fn site(&self, ca: &str, names: &str, issuer: &str) -> instance::Setup {
        Instance::setup(WSSGATE)
            .http(SITE)
            .var("CA", ca)
            .var("ROOT", self.pki.root_path().display())
            .var("NAMES", names)
            .var("ISSUER", issuer)
            .var("UP", self.upstream.addr())
    }

    /// Makes the names lead to a server.
    fn lead(&self, names: &[&str], wssgate: &Instance) {
        for name in names {
            self.dns.set(name, Says::addresses(&[&wssgate.listen(0).ip().to_string()]));
        }
    }
}

/// The certificate that a newcomer is shown for `name`, if there is one that `root` has signed.
fn shown(wssgate: &Instance, root: &str, name: &str) -> Option<Vec<u8>> {
    let conn = Conn::try_connect_tls(wssgate.listen(0), client_that_trusts(root), name).ok()?;
    let shown = conn.tls_client()?.peer_certificates()?;
    Some(shown[0].to_vec())
}

fn wait_for_certificate(wssgate: &Instance, root: &str, name: &str) -> Vec<u8> {
    let mut found = None;
    wait_until("a certificate", || {
        found = shown(wssgate, root, name);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn several_names_are_obtained_by_http_01_and_kept() {
    if !Pebble::is_here("http-01") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let names = ["chat.example.test", "www.example.test", "example.test"];
    let mut wssgate = world
        .site(&ca.directory(), "chat.example.test .example.test", "contact admin@example.test;")
        .start();
    let ca = ca
        .http_port(wssgate.listen(1).port())
        // The protocol wants both to be borne.
        .env("PEBBLE_WFE_NONCEREJECT", "20")
        .start(&world.pki, &world.dns);
    // Nothing leads here yet, and the CA was not there at the start: the listener is.
    let early = Conn::try_connect_tls(wssgate.listen(0), world.pki.client_config(), NAME);
    let early = early.err().unwrap().to_string();
    assert!(early.contains("InternalError"), "{early}");
    wssgate.wait_for_log("the certificate has not been obtained yet");
    world.lead(&names, &wssgate);
    let root = ca.root(&world.pki);
    let first = wait_for_certificate(&wssgate, &root, NAME);
    for name in names {
        assert_eq!(shown(&wssgate, &root, name).as_ref(), Some(&first), "{name}");
    }
    let mut tunnel =
        Handshake::to(wssgate.listen(0)).host(NAME).tls(client_that_trusts(&root), NAME).open();
    tunnel.send([text("over wss")]);
    tunnel.expect([text("over wss")]);
    let state = wssgate.dir().join("state");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    // Neither a reload nor a restart asks for another one.
    wssgate.signal("HUP");
    wssgate.wait_for_log("reconfigured, generation 2");
    assert_eq!(shown(&wssgate, &root, NAME).as_ref(), Some(&first));
    drop((ca, tunnel));
    wssgate.signal("QUIT");
    wssgate.restart();
    assert_eq!(wait_for_certificate(&wssgate, &root, NAME), first);
    assert_eq!(wssgate.error_log().matches("certificate obtained").count(), 1);
}

#[test]
fn tls_alpn_01_needs_no_port_but_that_of_tls() {
    if !Pebble::is_here("tls-alpn-01") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let wssgate = world.site(&ca.directory(), NAME, "challenge tls-alpn;").start();
    world.lead(&[NAME], &wssgate);
    let ca = ca
        .tls_port(wssgate.listen(0).port())
        // It takes its time.
        .env("PEBBLE_VA_NOSLEEP", "0")
        .env("PEBBLE_VA_SLEEPTIME", "2")
        .start(&world.pki, &world.dns);
    let root = ca.root(&world.pki);
    wait_for_certificate(&wssgate, &root, NAME);
    assert!(wssgate.error_log().contains("challenge shown to a CA while SSL handshaking"));
    // Nobody else is shown the other certificate, and who offers that protocol now finds nothing.
    let mut config = (*client_that_trusts(&root)).clone();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let refused = Conn::try_connect_tls(wssgate.listen(0), config.into(), NAME);
    assert!(refused.err().unwrap().to_string().contains("NoApplicationProtocol"));
}

#[test]
fn a_ca_that_wants_an_external_account_gets_it() {
    if !Pebble::is_here("external accounts") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let mut wssgate = world.site(&ca.directory(), NAME, "").start();
    world.lead(&[NAME], &wssgate);
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let ca = ca
        .http_port(wssgate.listen(1).port())
        .more(r#""externalAccountBindingRequired": true"#)
        .more(&format!(r#""externalAccountMACKeys": {{"kid-1": "{key}"}}"#))
        .start(&world.pki, &world.dns);
    wssgate.wait_for_log("creating account: external account key required, next try in");
    // A reload with what was missing is enough.
    wssgate.set_var("ISSUER", format!("external_account_key kid-1 data:{key};"));
    wssgate.rewrite();
    wssgate.signal("HUP");
    wait_for_certificate(&wssgate, &ca.root(&world.pki), NAME);
}

/// Two hundred WebSockets live through renewals that none of them sees.
#[test]
fn certificates_of_seconds_are_renewed_and_no_websocket_notices() {
    if !Pebble::is_here("renewals") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let wssgate = world.site(&ca.directory(), NAME, "").start();
    world.lead(&[NAME], &wssgate);
    let ca = ca
        .http_port(wssgate.listen(1).port())
        .validity(8)
        .env("PEBBLE_WFE_NONCEREJECT", "10")
        .start(&world.pki, &world.dns);
    let root = ca.root(&world.pki);
    let mut seen = vec![wait_for_certificate(&wssgate, &root, NAME)];
    let open =
        || Handshake::to(wssgate.listen(0)).host(NAME).tls(client_that_trusts(&root), NAME).open();
    let mut tunnels: Vec<_> = (0..200).map(|_| open()).collect();
    let begun = Instant::now();
    while seen.len() <= 3 {
        assert!(
            begun.elapsed() < 4 * GUARD,
            "{} certificates, {}",
            seen.len(),
            wssgate.error_log()
        );
        for tunnel in &mut tunnels {
            tunnel.send([text("still here")]);
        }
        for tunnel in &mut tunnels {
            tunnel.expect([text("still here")]);
        }
        let newest = wait_for_certificate(&wssgate, &root, NAME);
        if !seen.contains(&newest) {
            seen.push(newest);
        }
    }
    let log = wssgate.error_log();
    let (_, renewals) = log.split_once("certificate obtained").unwrap();
    assert!(!renewals.contains("[error]"), "{renewals}");
}

#[test]
fn a_name_that_the_ca_refuses_is_told_once_in_its_words() {
    if !Pebble::is_here("refusals") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let wssgate = world.site(&ca.directory(), "bad.example.test", "").start();
    let _ca = ca
        .http_port(wssgate.listen(1).port())
        .more(r#""domainBlocklist": ["bad.example.test"]"#)
        .start(&world.pki, &world.dns);
    let log = wssgate.wait_for_log("(rejectedIdentifier), next try in");
    assert!(log.contains("[error]") && log.contains("acme issuer \"ca\", bad.example.test: "));
    let conf = wssgate.dir().join("nginx.conf");
    let run = |arguments: &[&str]| {
        let output = Command::new(WSSGATE).args(arguments).arg("-c").arg(&conf).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (valid, status) = run(&["acme", "status"]);
    for part in [
        "bad.example.test\n",
        "ca (https://",
        "not obtained yet",
        "(rejectedIdentifier) (",
        "use another one",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }
    assert!(!valid);
    let (_, tested) = run(&["-t"]);
    assert!(tested.contains("certificate not obtained yet, renewal 20"), "{tested}");
}

/// Where nothing leads here the CA says what it has found.
#[test]
fn a_challenge_that_fails_is_told_in_the_words_of_the_ca() {
    if !Pebble::is_here("failed challenges") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let wssgate = world.site(&ca.directory(), NAME, "").start();
    let _ca = ca.http_port(wssgate.listen(1).port()).start(&world.pki, &world.dns);
    let log = wssgate.wait_for_log(&format!("acme issuer \"ca\", {NAME}: {NAME}: "));
    assert!(log.contains("next try in"), "{log}");
}

#[test]
fn a_directory_that_cannot_be_written_costs_nobody_a_certificate() {
    if !Pebble::is_here("read-only state") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let setup = world.site(&ca.directory(), NAME, "");
    // Even root makes no files in what is none.
    fs::write(setup.dir().join("state"), "x").unwrap();
    let wssgate = setup.start();
    let told = wssgate.stderr() + &wssgate.error_log();
    assert!(told.contains("certificates are in memory only"), "{told}");
    world.lead(&[NAME], &wssgate);
    let ca = ca.http_port(wssgate.listen(1).port()).start(&world.pki, &world.dns);
    let root = ca.root(&world.pki);
    let first = wait_for_certificate(&wssgate, &root, NAME);
    wssgate.wait_for_log("the certificate is in use, but a restart has to obtain it again");
    wssgate.signal("HUP");
    wssgate.wait_for_log("reconfigured, generation 2");
    assert_eq!(shown(&wssgate, &root, NAME), Some(first));
}

/// The second one uses what the first obtains, and takes its place.
#[test]
fn two_processes_with_one_directory_obtain_one_certificate() {
    if !Pebble::is_here("two processes") {
        return;
    }
    let world = World::new();
    let state = tempfile::tempdir().unwrap();
    // The user of the workers has to get there.
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let issuer = format!("state_path {}/shared;", state.path().display());
    let ca = Pebble::setup();
    let site = SITE.replace("state_path %%DIR%%/state;", "");
    let start = || world.site(&ca.directory(), NAME, &issuer).http(&site).start();
    let (first, second) = (start(), start());
    world.lead(&[NAME], &first);
    second.wait_for_log("another process with this state directory is obtaining the certificate");
    let ca = ca.http_port(first.listen(1).port()).validity(10).start(&world.pki, &world.dns);
    let root = ca.root(&world.pki);
    let obtained = wait_for_certificate(&first, &root, NAME);
    let followed = wait_for_certificate(&second, &root, NAME);
    assert!(obtained == followed || second.error_log().contains("taken from the state directory"));
    assert!(!second.error_log().contains("certificate obtained"));
    // It cannot convince this CA, which looks at the port of the first.
    assert!(first.stop().success());
    // If the first was stopped in the middle of renewing, that counts as refused: the second waits a minute.
    let tried = || second.error_log().contains("next try in");
    wait_within("the second to try", 6 * GUARD, tried);
}

/// Until the CA has answered for all names, the certificate for some of them serves.
#[test]
fn who_adds_a_name_does_not_lose_the_others() {
    if !Pebble::is_here("a name more") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let mut wssgate = world.site(&ca.directory(), NAME, "").start();
    world.lead(&[NAME], &wssgate);
    let ca = ca.http_port(wssgate.listen(1).port()).start(&world.pki, &world.dns);
    let root = ca.root(&world.pki);
    let first = wait_for_certificate(&wssgate, &root, NAME);
    // The CA does not find the new name.
    wssgate.set_var("NAMES", format!("{NAME} new.example.test"));
    wssgate.rewrite();
    wssgate.signal("HUP");
    wssgate.wait_for_log("new.example.test: ");
    assert_eq!(shown(&wssgate, &root, NAME).as_ref(), Some(&first));
}

/// As root, since others mount nothing.
#[test]
fn a_full_directory_costs_nobody_a_certificate() {
    if !Pebble::is_here("full state") {
        return;
    }
    let world = World::new();
    let ca = Pebble::setup();
    let setup = world.site(&ca.directory(), NAME, "");
    let state = setup.dir().join("state");
    fs::create_dir(&state).unwrap();
    let mut mount = Command::new("mount");
    let mounted = mount.args(["-t", "tmpfs", "-o", "size=4k", "none"]).arg(&state).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return skipped("full state: no right to mount");
    }
    let _unmount = Unmount(state.clone());
    let wssgate = setup.start();
    world.lead(&[NAME], &wssgate);
    let ca = ca.http_port(wssgate.listen(1).port()).start(&world.pki, &world.dns);
    wait_for_certificate(&wssgate, &ca.root(&world.pki), NAME);
    wssgate.wait_for_log("No space left on device");
    let left: Vec<_> =
        fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let temporary = left.iter().filter(|name| name.to_string_lossy().contains(".tmp"));
    assert_eq!(temporary.count(), 0, "{left:?}");
}

/// A mount that ends with the test.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// From nothing to `wss://` by one command.
#[test]
fn a_command_for_a_public_name_obtains_its_certificate() {
    if !Pebble::is_here("wssgate proxy") {
        return;
    }
    const PUBLIC: &str = "chat.example.com";
    let world = World::new();
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Both at once, so that they differ.
    let port = || TcpListener::bind("0.0.0.0:0").unwrap();
    let ports = [port(), port()].map(|port| port.local_addr().unwrap().port());
    let [tls, plain] = ports;
    world.dns.set(PUBLIC, Says::addresses(&["127.0.0.1"]));
    let ca = Pebble::setup().http_port(plain).start(&world.pki, &world.dns);
    let (from, to) = (format!("{PUBLIC}:{tls}"), world.upstream.addr().to_string());
    let command = |more: &[&str]| {
        // The user of the workers must get to the state all the same.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\"", WSSGATE]);
        command.args(["proxy", "--from", &from, "--to", &to, "--email", "admin@example.com"]);
        command.args(["--acme-uri", &ca.directory(), "--http-port", &plain.to_string()]).args(more);
        command.env("STATE_DIRECTORY", state.path()).env("SSL_CERT_FILE", world.pki.root_path());
        command
    };
    let refused = command(&[]).output().unwrap();
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("agree to its terms of service with --agree-tos"), "{refused}");
    let printed = command(&["--agree-tos", "--print-config"]).output().unwrap();
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    for line in [
        "acme_issuer ca {",
        "accept_terms_of_service;",
        "ssl_certificate $acme_certificate;",
        "return 301",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    let mut command = command(&["--agree-tos"]);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    let root = ca.root(&world.pki);
    let address = SocketAddr::from(([127, 0, 0, 1], tls));
    let open = || Conn::try_connect_tls(address, client_that_trusts(&root), PUBLIC).is_ok();
    wait_until("the certificate", open);
    let made = fs::metadata(state.path().join("acme")).unwrap().permissions().mode();
    assert_eq!(made & 0o777, 0o755);
    let mut tunnel =
        Handshake::to(address).host(PUBLIC).tls(client_that_trusts(&root), PUBLIC).open();
    tunnel.send([text("over wss")]);
    tunnel.expect([text("over wss")]);
    let mut plain = Conn::connect(SocketAddr::from(([127, 0, 0, 1], plain)));
    plain.send_raw(format!("GET /a HTTP/1.1\r\nHost: {PUBLIC}\r\n\r\n"));
    let redirect = plain.recv_response();
    assert_eq!(redirect.field("location"), Some(&*format!("https://{from}/a")));
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A DNS server, and a hook that writes into it.
struct Hooked {
    _server: Running,
    dns: SocketAddr,
    management: SocketAddr,
}

/// Waits before it writes a record.
const UNTIL_GO: &str = r#"[ $2 = cleanup ] || until [ -e "$1/go" ]; do sleep 0.05; done"#;

impl Hooked {
    fn start(what: &str) -> Option<Self> {
        if !Pebble::is_here(what) {
            return None;
        }
        if !Path::new(CHALLTESTSRV).exists() {
            skipped(&format!("{what}: no pebble-challtestsrv"));
            return None;
        }
        let (dns, management) = (free_addr(), free_addr());
        let server = Command::new(CHALLTESTSRV)
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-dns01", &dns.to_string()])
            .args(["-management", &management.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Some(Self { _server: Running(server.unwrap()), dns, management })
    }

    /// Puts the hook into the directory of the configuration, which uses it. It logs what it is called with, and does
    /// this before it writes.
    fn install(&self, setup: instance::Setup, first: &str) -> instance::Setup {
        let management = self.management;
        let hook = format!(
            "#!/bin/sh\ncase $2 in present) what=set-txt;; *) what=clear-txt;; esac\n\
             echo \"$@\" >>\"$1/hook.log\"\n{first}\n\
             exec curl -sf -d \"{{\\\"host\\\":\\\"$3\\\",\\\"value\\\":\\\"$4\\\"}}\" http://{management}/$what\n"
        );
        let dir = setup.dir().to_owned();
        fs::create_dir(dir.join("log")).unwrap();
        // The hook runs as the user of the workers.
        fs::set_permissions(dir.join("log"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.join("hook"), hook).unwrap();
        fs::set_permissions(dir.join("hook"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.display();
        setup.var("ISSUER", format!("challenge dns-01; dns_hook {path}/hook {path}/log;"))
    }
}

/// Nobody wants the certificate any more while the record is being written.
#[test]
fn a_reload_in_the_middle_of_an_order_takes_its_record_away() {
    let Some(hooked) = Hooked::start("reload with dns-01") else { return };
    let world = World::new();
    let ca = Pebble::setup().start_with_dns(&world.pki, hooked.dns);
    let setup = world.site(&ca.directory(), "*.example.test", "");
    let mut wssgate = hooked.install(setup, UNTIL_GO).start();
    let log = wssgate.wait_for_line("log/hook.log", " present _acme-challenge.example.test. ");
    let (_, record) = log.trim_end().split_once(" present ").unwrap();
    wssgate.rewrite_http("server { listen %%LISTEN_1%%; }");
    wssgate.signal("HUP");
    wssgate.wait_for_line("log/hook.log", &format!(" cleanup {record}"));
}

/// The machine stops in the middle of an order.
#[test]
fn an_order_goes_on_after_a_restart() {
    let Some(hooked) = Hooked::start("restart with dns-01") else { return };
    let world = World::new();
    let ca = Pebble::setup().start_with_dns(&world.pki, hooked.dns);
    let setup = world.site(&ca.directory(), "*.example.test", "");
    let mut wssgate = hooked.install(setup, UNTIL_GO).start();
    wssgate.wait_for_line("log/hook.log", " present _acme-challenge.example.test. ");
    let state = wssgate.dir().join("state");
    let pending = || {
        let mut names = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
        names.find(|path| path.extension().is_some_and(|end| end == "order"))
    };
    let mode = fs::metadata(pending().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    wssgate.signal("KILL");
    fs::write(wssgate.dir().join("log/go"), "").unwrap();
    wssgate.restart();
    wait_for_certificate(&wssgate, &ca.root(&world.pki), "any.example.test");
    wssgate.wait_for_line("log/hook.log", " cleanup ");
    let log = wssgate.read("log/hook.log");
    let presented: Vec<_> = log.lines().filter(|line| line.contains(" present ")).collect();
    assert!(presented.len() == 2 && presented[0] == presented[1], "{log}");
    assert_eq!(ca.log().matches("Added order").count(), 1, "{}", ca.log());
    wait_until("the order to be forgotten", || pending().is_none());
}

/// A wildcard beside its domain, so that two records stand at one name.
#[test]
fn a_wildcard_is_obtained_by_a_program_that_writes_into_the_dns() {
    let Some(hooked) = Hooked::start("dns-01") else { return };
    let world = World::new();
    let ca = Pebble::setup().start_with_dns(&world.pki, hooked.dns);
    let setup = world.site(&ca.directory(), "*.example.test example.test", "");
    let wssgate = hooked.install(setup, "").start();
    let root = ca.root(&world.pki);
    let first = wait_for_certificate(&wssgate, &root, "any.example.test");
    assert_eq!(shown(&wssgate, &root, "example.test"), Some(first));
    wssgate.wait_for_line("log/hook.log", "cleanup");
    let log = wssgate.read("log/hook.log");
    assert_eq!(log.matches(" present _acme-challenge.example.test. ").count(), 2, "{log}");
}

/// The same by an update (RFC 2136) of the zone that BIND serves, signed with a key (TSIG); the CA asks BIND.
#[test]
fn a_wildcard_is_obtained_by_updates_of_a_zone() {
    if !Pebble::is_here("dns_update") {
        return;
    }
    let Some(named) = Named::start("dns_update", &[("example.test", true)]) else { return };
    let world = World::new();
    let address = named.addr();
    let ca = Pebble::setup().start_with_dns(&world.pki, address);
    let issuer = format!("challenge dns-01; dns_update server={address} secret_file=tsig.key;");
    let setup = world.site(&ca.directory(), "*.example.test example.test", &issuer);
    let wssgate = setup.file("tsig.key", Named::KEY).start();
    let root = ca.root(&world.pki);
    let first = wait_for_certificate(&wssgate, &root, "any.example.test");
    assert_eq!(shown(&wssgate, &root, "example.test"), Some(first));
    let left = || named.count("_acme-challenge.example.test", Kind::Txt);
    wait_until("the records to be taken away", || left() == Some(0));
    // The CA has found both in the zone.
    assert_eq!(ca.log().matches("set VALID by completed challenge").count(), 2, "{}", ca.log());
}

/// What a server that takes no such changes says is in the log.
#[test]
fn an_update_that_is_refused_is_told_in_the_words_of_the_server() {
    if !Pebble::is_here("refused dns_update") {
        return;
    }
    let zones = [("example.test", false)];
    let Some(named) = Named::start("refused dns_update", &zones) else { return };
    let world = World::new();
    let address = named.addr();
    let ca = Pebble::setup().start_with_dns(&world.pki, address);
    let issuer = format!(
        "challenge dns-01; dns_update server={address} zone=example.test secret_file=tsig.key;"
    );
    let setup = world.site(&ca.directory(), "*.example.test", &issuer);
    let wssgate = setup.file("tsig.key", Named::KEY).start();
    let log = wssgate.wait_for_log("did not change the zone example.test: REFUSED");
    assert!(log.contains("[error]") && log.contains("_acme-challenge.example.test: "), "{log}");
}
