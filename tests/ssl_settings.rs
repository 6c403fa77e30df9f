//! Ways to say what TLS shall be that are older than the usual directives.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, Handshake, Instance, Pki, Upstream, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn get(conn: &mut Conn) -> String {
    conn.send_raw("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    conn.recv_response().text()
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
