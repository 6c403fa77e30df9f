//! TLS records behind the switch to a WebSocket, by a client that may send any: `tests/after_switch/client.py`.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Stdio;

use wssgate_testkit::{Instance, Pki, Upstream, program};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

#[test]
fn every_record_is_answered_as_it_should_be() {
    let Some(mut python) = program::python("records behind a switch", "tlslite") else { return };
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let upstream = Upstream::builder().echo();
    let server = Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%% ssl; ssl_certificate %%CHAIN%%; \
             ssl_certificate_key %%KEY%%; location / { proxy_pass http://%%UP%%; } }",
        )
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .var("UP", upstream.addr())
        .start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/after_switch/client.py");
    let output =
        python.arg(script).arg(server.listen(0).to_string()).stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(server.stop().success());
}
