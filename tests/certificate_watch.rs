//! Certificates that are renewed behind the server's back (`ssl_certificate_watch`).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use wssgate_testkit::pki::Leaf;
use wssgate_testkit::{Conn, Instance, Pki, wait_until};

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
    let line = server.wait_for_log("is not used, the one before stays");
    assert!(line.contains("does not match the certificate"), "{line}");
    assert_eq!(shown(&server, &pki), first(&old), "the key is still that of the old one");
    link(server.dir(), "privkey.pem", &new.key);
    wait_until("the new certificate", || shown(&server, &pki) == first(&new));
    server.wait_for_log("fullchain.pem\" has changed and is used from now on");
    assert_eq!(server.error_log().matches("the one before stays").count(), 1, "told once");
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
    server.wait_for_log("the one before stays: it has expired");
    fs::remove_file(dir.join("privkey.pem")).unwrap();
    server.wait_for_log("the one before stays: cannot load certificate key");
    fs::write(dir.join("cut.pem"), &fs::read(&old.fullchain).unwrap()[..300]).unwrap();
    link(dir, "fullchain.pem", Path::new("cut.pem"));
    server.wait_for_log("the one before stays: cannot load certificate \"");
    // Who opens a pipe waits for somebody to write to it.
    let pipe = Command::new("mkfifo").arg(dir.join("pipe")).status().unwrap();
    assert!(pipe.success());
    link(dir, "fullchain.pem", Path::new("pipe"));
    link(dir, "privkey.pem", Path::new("pipe"));
    server.wait_for_log("fullchain.pem\" is no regular file");
    assert_eq!(shown(&server, &pki), first(&old));
    let new = pki.leaf(&["a.test"]);
    link(dir, "fullchain.pem", &new.fullchain);
    link(dir, "privkey.pem", &new.key);
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
