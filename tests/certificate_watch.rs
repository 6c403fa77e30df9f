//! Certificates that are renewed behind the server's back (`ssl_certificate_watch`).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use wssgate_testkit::pki::Leaf;
use wssgate_testkit::{Conn, Instance, Pki, skipped, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// The certificate that is shown, in DER.
fn shown(server: &Instance, pki: &Pki) -> Vec<u8> {
    let conn = Conn::try_connect_tls(server.listen(0), pki.client_config(), "a.test").unwrap();
    conn.tls_client().unwrap().peer_certificates().unwrap()[0].to_vec()
}

fn first(leaf: &Leaf) -> Vec<u8> {
    leaf.chain()[0].to_vec()
}

/// Has `live` lead to this file, in one step, as certbot does.
fn link(dir: &Path, name: &str, to: &Path) {
    let new = dir.join("new");
    symlink(to, &new).unwrap();
    fs::rename(new, dir.join(name)).unwrap();
}

/// A server whose certificate and key are links, as certbot makes them.
fn server(pki: &Pki, leaf: &Leaf, watch: &str) -> Instance {
    let setup = Instance::setup(EXE);
    link(setup.dir(), "fullchain.pem", &leaf.fullchain);
    link(setup.dir(), "privkey.pem", &leaf.key);
    let server = setup
        .http(&format!(
            "ssl_certificate_watch {watch};
             server {{ listen %%LISTEN_0%% ssl; server_name a.test; ssl_certificate fullchain.pem;
                 ssl_certificate_key privkey.pem; return 204; }}"
        ))
        .start();
    assert_eq!(shown(&server, pki), first(leaf));
    server
}

#[test]
fn a_renewed_pair_is_taken_up_whole() {
    let pki = Pki::new();
    let (old, new) = (pki.leaf(&["a.test"]), pki.leaf(&["a.test"]));
    let server = server(&pki, &old, "1s");
    let mut before =
        Conn::try_connect_tls(server.listen(0), pki.client_config(), "a.test").unwrap();
    link(server.dir(), "fullchain.pem", &new.fullchain);
    let line = server.wait_for_log("is not used, the previous one stays in use");
    assert!(line.contains("does not match the certificate"), "{line}");
    assert_eq!(shown(&server, &pki), first(&old), "the key is still that of the old one");
    link(server.dir(), "privkey.pem", &new.key);
    wait_until("the new certificate", || shown(&server, &pki) == first(&new));
    server.wait_for_log("fullchain.pem\" has changed and is used from now on");
    assert_eq!(server.error_log().matches("the previous one stays in use").count(), 1, "told once");
    // Nobody has lost a connection.
    before.send_raw("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(before.recv_response().status, 204);
}

#[test]
fn what_is_no_good_is_not_taken_up_and_the_next_good_one_is() {
    let pki = Pki::new();
    let old = pki.leaf(&["a.test"]);
    let server = server(&pki, &old, "1s");
    let dir = server.dir();
    let expired = pki.expired_leaf(&["a.test"]);
    link(dir, "fullchain.pem", &expired.fullchain);
    link(dir, "privkey.pem", &expired.key);
    server.wait_for_log("the previous one stays in use: it has expired");
    fs::remove_file(dir.join("privkey.pem")).unwrap();
    server.wait_for_log("the previous one stays in use: cannot load certificate key");
    fs::write(dir.join("cut.pem"), &fs::read(&old.fullchain).unwrap()[..300]).unwrap();
    link(dir, "fullchain.pem", Path::new("cut.pem"));
    server.wait_for_log("the previous one stays in use: cannot load certificate \"");
    // Who opens a pipe waits for somebody to write to it.
    let pipe = Command::new("mkfifo").arg(dir.join("pipe")).status().unwrap();
    assert!(pipe.success());
    link(dir, "fullchain.pem", Path::new("pipe"));
    link(dir, "privkey.pem", Path::new("pipe"));
    server.wait_for_log("fullchain.pem\" is not a regular file");
    assert_eq!(shown(&server, &pki), first(&old));
    let new = pki.leaf(&["a.test"]);
    link(dir, "fullchain.pem", &new.fullchain);
    link(dir, "privkey.pem", &new.key);
    wait_until("the new certificate", || shown(&server, &pki) == first(&new));
}

#[test]
fn whatever_is_wrong_with_a_file_the_pair_before_stays() {
    let pki = Pki::new();
    let (old, new) = (pki.leaf(&["a.test"]), pki.leaf(&["a.test"]));
    let (chain, key) = (fs::read_to_string(&new.fullchain), fs::read_to_string(&new.key));
    let (chain, key) = (chain.unwrap(), key.unwrap());
    let garbage = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    let behind = format!("{chain}{garbage}");
    let older = fs::read_to_string(&old.key).unwrap();
    let cases = [
        ("", key.as_str(), "no certificate in the file"),
        (&chain[..300], &key, "bad end line"),
        (garbage, &key, "certificate 1 in the file is invalid"),
        (&behind, &key, " in the file is invalid"),
        (&key, &key, "no certificate in the file"),
        ("\0\0\0\0", &key, "no certificate in the file"),
        (&chain, "", "no private key in the file (no start line)"),
        (&chain, &key[..100], "no private key in the file (bad end line)"),
        (&chain, garbage, "no private key in the file"),
        (&chain, &older, "does not match the certificate"),
    ];
    let setup = Instance::setup(EXE);
    let servers = cases.iter().enumerate().map(|(at, _)| {
        link(setup.dir(), &format!("{at}.pem"), &old.fullchain);
        link(setup.dir(), &format!("{at}.key"), &old.key);
        format!(
            "server {{ listen %%LISTEN_{at}%% ssl; ssl_certificate {at}.pem; ssl_certificate_key {at}.key;
                 ssl_certificate_watch 1s; return 204; }}"
        )
    });
    let servers: String = servers.collect();
    let server = setup.http(&servers).start();
    let shown = |at| {
        let client = pki.client_config();
        let conn = Conn::try_connect_tls(server.listen(at), client, "a.test").unwrap();
        conn.tls_client().unwrap().peer_certificates().unwrap()[0].to_vec()
    };
    for (at, (chain, key, _)) in cases.iter().enumerate() {
        for (kind, content) in [("pem", chain), ("key", key)] {
            let path = server.dir().join(format!("{at}.new-{kind}"));
            fs::write(&path, content).unwrap();
            link(server.dir(), &format!("{at}.{kind}"), &path);
        }
    }
    for (at, (_, _, expected)) in cases.iter().enumerate() {
        let line =
            server.wait_for_log(&format!("/{at}.pem\" or its key has changed but is not used"));
        assert!(line.contains("[error]") && line.contains(expected), "{expected}: {line}");
        assert_eq!(shown(at), first(&old), "{expected}");
    }
    for at in 0..cases.len() {
        link(server.dir(), &format!("{at}.pem"), &new.fullchain);
        link(server.dir(), &format!("{at}.key"), &new.key);
    }
    for at in 0..cases.len() {
        wait_until("the next good one", || shown(at) == first(&new));
    }
}

/// Somebody who holds a file so that whoever opens it has to wait, as for a file system that hangs: fcntl(2),
/// `F_SETLEASE`.
struct Held {
    child: Child,
    output: BufReader<ChildStdout>,
}

const HOLD: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, lambda *_: os.write(1, b'asked\\n'))
file = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print('held', flush=True)
except OSError as error:
    print(error, flush=True)
sys.stdin.readline()
";

impl Held {
    /// Nothing where that cannot be done.
    fn new(path: &Path) -> Option<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self { child, output };
        (this.line() == "held").then_some(this)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn nobody_waits_for_a_file_system_that_hangs() {
    let pki = Pki::new();
    let (old, new) = (pki.leaf(&["a.test"]), pki.leaf(&["a.test"]));
    let server = server(&pki, &old, "1s");
    let Some(mut held) = Held::new(&new.fullchain) else {
        return skipped("a file system that hangs: no python3, or no leases on files");
    };
    link(server.dir(), "fullchain.pem", &new.fullchain);
    link(server.dir(), "privkey.pem", &new.key);
    assert_eq!(held.line(), "asked");
    server.signal("USR1");
    server.wait_for_log("reopening logs");
    fs::rename(server.dir().join("error.log"), server.dir().join("error.log.1")).unwrap();
    server.signal("USR1");
    wait_until("the new log", || server.dir().join("error.log").exists());
    assert_eq!(shown(&server, &pki), first(&old));
    assert!(held.child.try_wait().unwrap().is_none(), "it was held all the time");
    drop(held);
    wait_until("the new certificate", || shown(&server, &pki) == first(&new));
}

#[test]
fn files_that_are_not_watched_wait_for_a_reload() {
    let pki = Pki::new();
    let (old, new) = (pki.leaf(&["a.test"]), pki.leaf(&["a.test"]));
    let watched = pki.leaf(&["a.test"]);
    let setup = Instance::setup(EXE);
    for (name, leaf) in [("off", &old), ("on", &watched)] {
        link(setup.dir(), &format!("{name}.pem"), &leaf.fullchain);
        link(setup.dir(), &format!("{name}.key"), &leaf.key);
    }
    let server = setup
        .http(
            "server { listen %%LISTEN_0%% ssl; ssl_certificate off.pem; ssl_certificate_key off.key;
                 ssl_certificate_watch off; return 204; }
             server { listen %%LISTEN_1%% ssl; ssl_certificate on.pem; ssl_certificate_key on.key;
                 ssl_certificate_watch 1s; return 204; }",
        )
        .start();
    for name in ["off", "on"] {
        link(server.dir(), &format!("{name}.pem"), &new.fullchain);
        link(server.dir(), &format!("{name}.key"), &new.key);
    }
    // Whoever looked at both has seen both by now.
    server.wait_for_log("on.pem\" has changed and is used from now on");
    assert_eq!(shown(&server, &pki), first(&old));
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    assert_eq!(shown(&server, &pki), first(&new));
}
