//! Private keys that OpenSSL wrote under a passphrase.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use wssgate_testkit::{Handshake, Instance, Pki, Upstream, text, wait_until, with_nginx};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");
const CONF: &str = r"
    server {
        listen %%LISTEN_0%% ssl;
        ssl_certificate %%CHAIN%%;
        ssl_certificate_key %%KEY%%;
        %%PASSWORDS%%
        location / {
            proxy_pass https://%%UP%%;
            proxy_ssl_certificate %%CHAIN%%;
            proxy_ssl_certificate_key %%KEY%%;
            proxy_ssl_password_file passwords;
        }
    }
";

/// The key of a leaf, encrypted.
fn encrypt(key: &Path) -> String {
    let encrypted = key.with_extension("encrypted.pem");
    let done = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:open sesame", "-in"])
        .args([key, Path::new("-out"), &encrypted])
        .status();
    assert!(done.unwrap().success());
    encrypted.display().to_string()
}

#[test]
fn keys_open_with_a_line_of_the_password_file() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let upstream = Upstream::builder().tls(leaf.server_config()).echo();
    let server = Instance::setup(EXE)
        .http(CONF)
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", encrypt(&leaf.key))
        .var("PASSWORDS", "ssl_password_file passwords;")
        .var("UP", upstream.addr())
        .file("passwords", "sesame\nopen sesame\n")
        .start();
    let handshake = Handshake::to(server.listen(0)).tls(pki.client_config(), "localhost");
    let mut client = handshake.open();
    client.send([text("in")]);
    client.expect([text("in")]);
    drop(client);
    assert!(server.stop().success());
    upstream.finish();
}

#[test]
fn a_key_that_does_not_open_is_told_at_once() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let key = encrypt(&leaf.key);
    for (directive, expected) in [
        ("", "the key is encrypted with a passphrase"),
        ("ssl_password_file passwords;", "no passphrase decrypts the key"),
        ("ssl_password_file missing;", "No such file or directory"),
    ] {
        let failed = Instance::setup(EXE)
            .http(CONF)
            .var("CHAIN", leaf.fullchain.display())
            .var("KEY", &key)
            .var("PASSWORDS", directive)
            .var("UP", "127.0.0.1:1")
            .file("passwords", "Open Sesame\n")
            .run(&["-t"]);
        assert!(failed.stderr.contains(expected), "{}", failed.stderr);
    }
}

/// A pipe gives what it has only once, and whoever writes to it waits for a reader.
#[test]
fn a_pipe_with_passphrases_is_read_once_for_all_servers_and_also_for_none() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let (chain, key) = (leaf.fullchain.display(), encrypt(&leaf.key));
    let server = |name: &str| {
        format!(
            "server {{ listen %%LISTEN_0%% ssl; server_name {name}; return 204;
             ssl_certificate {chain}; ssl_certificate_key {key}; }}"
        )
    };
    let none = "server { listen %%LISTEN_0%%; return 204; }".to_owned();
    for exe in with_nginx(EXE) {
        for servers in [server("localhost") + &server("other"), none.clone()] {
            let setup =
                Instance::setup(exe).http(&format!("ssl_password_file %%DIR%%/pipe; {servers}"));
            let pipe = setup.dir().join("pipe");
            wssgate_sys::files::make_fifo(&pipe).unwrap();
            let writer = std::thread::spawn(move || std::fs::write(pipe, "open sesame\n"));
            let server = setup.start();
            wait_until("a reader of the pipe", || writer.is_finished());
            assert!(server.stop().success(), "{exe}");
        }
    }
}
