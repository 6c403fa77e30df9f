//! Socket.IO as it is, by node: sessions begin by polling and upgrade to a WebSocket, with two servers
//! of one group of which only one knows a session.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use wssgate_testkit::{
    Instance, Pki,
    net::loopback,
    program::{self, Script},
};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");

/// So many that every way to choose a server uses both: where a hash falls depends on the ports, and for
/// eight it is one server for all of them once in a hundred times.
const USERS: &str = "14";

fn node(package: &str, script: &str) -> Option<Command> {
    let mut node = program::node("Socket.IO", package)?;
    node.arg(format!("{SCRIPTS}/{script}"));
    Some(node)
}

fn server(name: &str) -> Option<Script> {
    let mut node = node("socket.io", "socketio_server.cjs")?;
    node.arg(name);
    Some(Script::start(node))
}

fn start(choice: &str, servers: &[Script; 2], pki: &Pki) -> Instance {
    let leaf = pki.leaf(&["localhost", &loopback().to_string()]);
    let http = format!(
        "{}
         upstream app {{ {choice} server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; keepalive 8; }}
         server {{
             listen %%LISTEN_0%%;
             listen %%LISTEN_1%% ssl;
             ssl_certificate %%CHAIN%%;
             ssl_certificate_key %%KEY%%;
             set_real_ip_from 127.0.0.0/8;
             real_ip_header X-Forwarded-For;
             client_max_body_size 16m;
             location / {{ proxy_pass http://app; }}
         }}",
        program::more_directives()
    );
    Instance::setup(EXE)
        .http(&http)
        .var("A", servers[0].port())
        .var("B", servers[1].port())
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start()
}

#[test]
fn users_upgrade_at_the_server_that_knows_them() {
    let (Some(a), Some(b)) = (server("a"), server("b")) else { return };
    let (servers, pki) = ([a, b], Pki::new());
    for choice in ["sticky cookie route;", "ip_hash;", "hash $arg_user consistent;"] {
        let instance = start(choice, &servers, &pki);
        let urls =
            [format!("http://{}", instance.listen(0)), format!("https://{}", instance.listen(1))];
        for url in urls {
            let Some(mut client) = node("socket.io-client", "socketio_client.cjs") else { return };
            let names = program::run(client.arg(&url).arg(USERS));
            assert_eq!(names.trim(), r#"["a","b"]"#, "{choice} {url}");
        }
        // Each user polled, and then switched.
        let log = instance.access_log();
        assert!(log.contains("transport=polling"), "{log}");
        assert!(log.contains("transport=websocket"), "{log}");
        assert!(instance.stop().success());
    }
}

/// Else the test above would prove nothing.
#[test]
fn users_fail_where_each_request_goes_to_the_next_server() {
    let (Some(a), Some(b)) = (server("a"), server("b")) else { return };
    let servers = [a, b];
    let instance = start("", &servers, &Pki::new());
    let Some(mut client) = node("socket.io-client", "socketio_client.cjs") else { return };
    let client = client.arg(format!("http://{}", instance.listen(0))).arg("1");
    assert!(!client.output().unwrap().status.success());
    // The session is not known there.
    instance.wait_for_access("\" 400 ");
}
