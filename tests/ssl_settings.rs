//! Ways to say what TLS shall be that are older, or closer to OpenSSL, than the usual directives, and
//! certificates whose paths have variables.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use wssgate_testkit::pki::Leaf;
use wssgate_testkit::{Conn, Handshake, Instance, Listener, Pki, Upstream, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn get(conn: &mut Conn) -> String {
    conn.send_raw("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    conn.recv_response().text()
}

/// The certificate that is shown for a name, in DER.
fn shown(server: &Instance, pki: &Pki, name: &str) -> Option<Vec<u8>> {
    let conn = Conn::try_connect_tls(server.listen(0), pki.client_config(), name).ok()?;
    let shown = conn.tls_client().unwrap().peer_certificates().unwrap()[0].to_vec();
    Some(shown)
}

fn put(leaf: &Leaf, dir: &Path, name: &str) {
    fs::copy(&leaf.fullchain, dir.join(format!("{name}.crt"))).unwrap();
    fs::copy(&leaf.key, dir.join(format!("{name}.key"))).unwrap();
}

#[test]
fn ssl_on_makes_every_address_of_its_default_server_speak_tls() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let app = Upstream::echo();
    let server = Instance::setup(EXE)
        .http(
            "server {
                 listen %%LISTEN_0%%;
                 listen %%LISTEN_1%%;
                 ssl on;
                 ssl_certificate %%CERT%%; ssl_certificate_key %%KEY%%;
                 location / { proxy_pass http://%%APP%%; }
             }
             server { listen %%LISTEN_2%%; return 200 plain; }
             server { listen %%LISTEN_2%%; server_name b.test; ssl on;
                 ssl_certificate %%CERT%%; ssl_certificate_key %%KEY%%; }",
        )
        .var("APP", app.addr())
        .var("CERT", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start();
    for number in [0, 1] {
        let handshake = Handshake::to(server.listen(number)).tls(pki.client_config(), "a.test");
        let mut client = handshake.open();
        client.send([text("hello")]);
        client.expect([text("hello")]);
    }
    // As in old nginx, the default server of an address decides.
    assert_eq!(get(&mut Conn::connect(server.listen(2))), "plain");
    let said = server.stderr();
    let warning =
        "the \"ssl\" directive is deprecated, use the \"listen ... ssl\" directive instead";
    assert!(said.contains(warning), "{said}");
}

#[test]
fn a_path_with_variables_is_found_by_the_name_and_read_anew() {
    let pki = Pki::new();
    let setup = Instance::setup(EXE);
    let dir = setup.dir().to_owned();
    let (a, b) = (pki.leaf(&["a.test"]), pki.leaf(&["b.test"]));
    put(&a, &dir, "a.test");
    put(&b, &dir, "B");
    let server = setup
        .http(
            "map $ssl_server_name $file { b.test B; default $ssl_server_name; }
             ssl_certificate $file.crt; ssl_certificate_key $file.key;
             server { listen %%LISTEN_0%% ssl; return 200 $ssl_server_name; }",
        )
        .start();
    assert_eq!(shown(&server, &pki, "a.test").as_deref(), Some(a.chain()[0].as_ref()));
    assert_eq!(shown(&server, &pki, "b.test").as_deref(), Some(b.chain()[0].as_ref()));
    let mut conn = Conn::try_connect_tls(server.listen(0), pki.client_config(), "b.test").unwrap();
    assert_eq!(get(&mut conn), "b.test");
    // Another one, without a reload.
    let renewed = pki.leaf(&["a.test"]);
    put(&renewed, &dir, "a.test");
    assert_eq!(shown(&server, &pki, "a.test").as_deref(), Some(renewed.chain()[0].as_ref()));
    // None for this name: the handshake fails, the log says why, others are served.
    assert_eq!(shown(&server, &pki, "c.test"), None);
    let line = server.wait_for_log("c.test.crt");
    let words = "(2: No such file or directory) while SSL handshaking, client: 127.0.0.1";
    assert!(line.contains("[error]") && line.contains("cannot load certificate"), "{line}");
    assert!(line.contains(words), "{line}");
    assert!(shown(&server, &pki, "b.test").is_some());
}

#[test]
fn a_kept_certificate_stays_until_its_key_is_another_one() {
    let pki = Pki::new();
    let setup = Instance::setup(EXE);
    let dir = setup.dir().to_owned();
    let leaf = pki.leaf(&["a.test"]);
    put(&leaf, &dir, "a.test");
    let server = setup
        .http(
            "ssl_certificate $ssl_server_name.crt; ssl_certificate_key $ssl_server_name.key;
             ssl_certificate_cache max=2 valid=1h inactive=1h;
             server { listen %%LISTEN_0%% ssl; return 204; }",
        )
        .start();
    let first = Some(leaf.chain()[0].to_vec());
    assert_eq!(shown(&server, &pki, "a.test"), first);
    let renewed = pki.leaf(&["a.test"]);
    put(&renewed, &dir, "a.test");
    assert_eq!(shown(&server, &pki, "a.test"), first, "it is kept");
    // Two others need the room of both; only then it is read again.
    put(&pki.leaf(&["b.test"]), &dir, "b.test");
    assert!(shown(&server, &pki, "b.test").is_some());
    assert_eq!(shown(&server, &pki, "a.test"), Some(renewed.chain()[0].to_vec()));
}

#[test]
fn an_upstream_is_shown_the_certificate_of_its_request_only() {
    let pki = Pki::new();
    let setup = Instance::setup(EXE);
    let dir = setup.dir().to_owned();
    put(&pki.leaf(&["one"]), &dir, "one");
    put(&pki.leaf(&["two"]), &dir, "two");
    let own = pki.leaf(&["a.test"]);
    let server = setup
        .http(
            "upstream app { server %%LISTEN_1%%; keepalive 4; }
             server {
                 listen %%LISTEN_0%%;
                 location / {
                     proxy_pass https://app;
                     proxy_ssl_certificate $arg_who.crt;
                     proxy_ssl_certificate_key $arg_who.key;
                 }
                 location /none { proxy_pass https://app; proxy_ssl_certificate $arg_who; proxy_ssl_certificate_key $arg_who; }
             }
             server {
                 listen %%LISTEN_1%% ssl;
                 ssl_certificate %%CERT%%; ssl_certificate_key %%KEY%%;
                 ssl_verify_client optional_no_ca;
                 return 200 '$ssl_client_verify $ssl_client_fingerprint';
             }",
        )
        .var("CERT", own.fullchain.display())
        .var("KEY", own.key.display())
        .start();
    let mut client = Conn::connect(server.listen(0));
    let mut ask = |path: &str| {
        client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.recv_response();
        (answer.status, answer.text())
    };
    let (one, two) = (ask("/?who=one"), ask("/?who=two"));
    assert_eq!((one.0, two.0), (200, 200));
    assert_ne!(one.1, two.1, "a connection that one has opened is not for the other");
    assert_eq!(ask("/?who=one"), one);
    assert_eq!(ask("/none").1.trim(), "NONE");
    assert_eq!(ask("/?who=nobody").0, 500);
    server.wait_for_log("while SSL handshaking to upstream");
}

#[test]
fn openssl_commands_set_what_their_directives_set() {
    let pki = Pki::new();
    let (leaf, other) = (pki.leaf(&["a.test"]), pki.leaf(&["a.test"]));
    let server = Instance::setup(EXE)
        .http(
            "ssl_certificate %%CERT%%; ssl_certificate_key %%KEY%%;
             server {
                 listen %%LISTEN_0%% ssl;
                 ssl_prefer_server_ciphers on;
                 ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256;
                 ssl_conf_command Groups prime256v1;
                 ssl_conf_command MinProtocol TLSv1.3;
                 ssl_conf_command Certificate %%CERT2%%;
                 ssl_conf_command PrivateKey %%KEY2%%;
                 ssl_conf_command Options -SessionTicket;
                 return 200 '$ssl_cipher $ssl_curve $ssl_protocol';
             }
             server {
                 listen %%LISTEN_1%% ssl;
                 ssl_prefer_server_ciphers on;
                 ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256;
                 ssl_conf_command NumTickets 2;
                 return 200 '$ssl_cipher';
             }
             server {
                 listen %%LISTEN_2%% ssl;
                 ssl_prefer_server_ciphers on;
                 ssl_conf_command MaxProtocol TLSv1.2;
                 ssl_conf_command CipherString ECDHE+AES128;
                 return 200 '$ssl_cipher';
             }",
        )
        .var("CERT2", other.fullchain.display())
        .var("KEY2", other.key.display())
        .var("CERT", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start();
    assert_eq!(shown(&server, &pki, "a.test").as_deref(), Some(other.chain()[0].as_ref()));
    for (number, expected) in [
        (0, "TLS_CHACHA20_POLY1305_SHA256 prime256v1 TLSv1.3"),
        (1, "TLS_AES_128_GCM_SHA256"),
        (2, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ] {
        let addr = server.listen(number);
        let mut conn = Conn::try_connect_tls(addr, pki.client_config(), "a.test").unwrap();
        assert_eq!(get(&mut conn), expected);
        assert_eq!(get(&mut conn), expected, "also behind the tickets");
    }
}

#[test]
fn a_command_for_upstreams_reaches_their_handshake() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let listener = Listener::bind().tls(leaf.server_config());
    let server = Instance::setup(EXE)
        .http(
            "server {
                 listen %%LISTEN_0%%;
                 proxy_ssl_conf_command MaxProtocol TLSv1.2;
                 proxy_ssl_conf_command CipherString ECDHE+AES128;
                 location / { proxy_pass https://%%UP%%; }
             }",
        )
        .var("UP", listener.addr())
        .start();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let upstream = listener.accept();
    let tls = upstream.tls_server().unwrap();
    let suite = format!("{:?}", tls.negotiated_cipher_suite().unwrap().suite());
    assert_eq!(suite, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
}

/// As in nginx, whose sessions know the certificates that they began with.
#[test]
fn a_session_goes_on_where_the_certificate_is_the_same() {
    let pki = Pki::new();
    let (one, two) = (pki.leaf(&["a.test"]), pki.leaf(&["a.test"]));
    let server = |number, leaf: &Leaf| {
        format!(
            "server {{ listen %%LISTEN_{number}%% ssl; ssl_certificate {}; \
             ssl_certificate_key {}; }}",
            leaf.fullchain.display(),
            leaf.key.display(),
        )
    };
    let servers = [server(0, &one), server(1, &one), server(2, &two)].concat();
    let server = Instance::setup(EXE)
        .http(&format!(
            "ssl_session_cache shared:a:1m; add_header X-Reused $ssl_session_reused always; {servers}"
        ))
        .start();
    let client = pki.client_config();
    for (number, expected) in [(0, "."), (1, "r"), (0, "r"), (2, "."), (2, "r")] {
        let address = server.listen(number);
        let mut conn = Conn::try_connect_tls(address, client.clone(), "a.test").unwrap();
        conn.send_raw("GET /none HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let answer = conn.recv_response();
        assert_eq!(answer.field("x-reused"), Some(expected), "server {number}");
    }
}

#[test]
fn a_key_may_be_named_as_a_file_of_openssl_s_store() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let server = Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%% ssl; ssl_certificate %%CERT%%;
                 ssl_certificate_key store:file:%%KEY%%; return 200 served; }",
        )
        .var("CERT", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start();
    let address = server.listen(0);
    let mut conn = Conn::try_connect_tls(address, pki.client_config(), "a.test").unwrap();
    assert_eq!(get(&mut conn), "served");
}
