//! The founding set-ups, side by side with nginx.
//!
//! Three configurations that people run today are in `tests/founding/`, to be served as they are:
//! as root, on 443 and 80, with certificates at certbot's places and names in the hosts file. So
//! each run gets a machine of its own, made of namespaces; `driver.py` plays the client and the
//! app server there and writes down what both saw and what was logged. What nginx's transcript
//! says, ours must say; `normalise.py` has the few things that may differ.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use wssgate_testkit::{NGINX, Pki, pki::KeyKind, skipped};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");
const UNSHARE: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"];

#[test]
fn one_host_does_what_nginx_does() {
    same_as_nginx("direct");
}

#[test]
fn two_hops_do_what_nginx_does() {
    same_as_nginx("two-hops");
}

#[test]
fn the_gateway_alone_does_what_nginx_does() {
    same_as_nginx("gateway");
}

fn same_as_nginx(set_up: &str) {
    if let Some(reason) = missing() {
        return skipped(&format!("{set_up} beside nginx: {reason}"));
    }
    let (nginx, ours) = (run(set_up, NGINX), run(set_up, WSSGATE));
    let mut differences = Vec::new();
    compare("", &nginx, &ours, &mut differences);
    let count = differences.len();
    assert!(differences.is_empty(), "{count} differences:\n{}", differences.join("\n"));
}

/// What this machine lacks for these tests.
fn missing() -> Option<&'static str> {
    let succeeds = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let in_namespaces = [&UNSHARE[..], &["ip", "link", "set", "lo", "up"]].concat();
    match () {
        () if !Path::new(NGINX).exists() => Some("no nginx"),
        () if !succeeds("unshare", &in_namespaces) => Some("no root, unshare or ip"),
        () if !succeeds(&python(), &["-c", "import websockets.asyncio.client"]) => {
            Some("no websockets for python3 (or $WSSGATE_TEST_PYTHON)")
        }
        () => None,
    }
}

fn python() -> String {
    std::env::var("WSSGATE_TEST_PYTHON").unwrap_or_else(|_| "python3".into())
}

/// The transcript of a set-up with this program.
fn run(set_up: &str, binary: &str) -> Value {
    let pki = Pki::new();
    // Both kinds of key that certbot makes.
    let kind = if set_up == "direct" { KeyKind::EcdsaPkcs8 } else { KeyKind::RsaPkcs8 };
    let leaf = pki.leaf_with(&["test.enzhico.net"], kind);
    let directory = tempfile::tempdir().unwrap();
    // Workers give up root and have to reach their files.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/founding/driver.py");
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(python()).arg(driver).args([set_up, binary]).arg(directory.path());
    command.arg("--ca").arg(pki.root_path());
    command.arg("--chain").arg(&leaf.fullchain).arg("--key").arg(&leaf.key);
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{set_up} with {binary}: {}\n{stderr}", output.status);
    let transcript = fs::read(directory.path().join("transcript.json")).unwrap();
    serde_json::from_slice(&transcript).unwrap()
}

/// Collects the places where the transcripts differ.
fn compare(place: &str, nginx: &Value, ours: &Value, differences: &mut Vec<String>) {
    match (nginx, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let [a, b] = [a, b].map(|map| map.get(key).unwrap_or(&Value::Null));
                compare(&format!("{place} › {key}"), a, b, differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if place.contains(" log of ") => {
            let only = |these: &[Value], those: &[Value]| {
                let (mut only, mut rest) = (Vec::new(), those.to_vec());
                for line in these {
                    match rest.iter().position(|other| other == line) {
                        Some(found) => drop(rest.swap_remove(found)),
                        None => only.push(format!("    {line}\n")),
                    }
                }
                only.concat()
            };
            let (nginx, ours) = (only(a, b), only(b, a));
            if !nginx.is_empty() || !ours.is_empty() {
                differences.push(format!("{place}\n  only nginx\n{nginx}  only wssgate\n{ours}"));
            }
        }
        _ if nginx == ours => {}
        _ => differences.push(format!("{place}\n  nginx    {nginx}\n  wssgate  {ours}")),
    }
}
