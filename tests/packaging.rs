//! What is in `packaging/` is accepted by those who read it: systemd, and the program itself.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wssgate_testkit::{Instance, Pki, skipped};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn read(name: &str) -> String {
    fs::read_to_string(packaging().join(name)).unwrap()
}

/// Runs `systemd-analyze`; nothing where it is missing.
fn analyze(arguments: &[&str]) -> Option<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn systemd_verifies_the_units_and_finds_them_confined() {
    let directory = tempfile::tempdir().unwrap();
    for (place, name) in [("systemd", "wssgate.service"), ("systemd-socket", "wssgate.socket")] {
        let unit = read(&format!("{place}/{name}")).replace("/usr/bin/wssgate", EXE);
        // The manual page is not installed here.
        let unit = unit.replace("man:wssgate(1)", "https://example.com/");
        fs::write(directory.path().join(name), unit).unwrap();
    }
    let service = directory.path().join("wssgate.service").display().to_string();
    let socket = directory.path().join("wssgate.socket").display().to_string();
    let Some((good, text)) = analyze(&["verify", &service, &socket]) else {
        return skipped("needs systemd-analyze");
    };
    assert!(good && text.is_empty(), "{text}");
    // The threshold is ten times the level of exposure.
    let (good, text) =
        analyze(&["security", "--offline=true", "--threshold=20", &service]).unwrap();
    assert!(good, "{text}");
}

#[test]
fn configurations_are_laid_out_evenly() {
    for name in ["wssgate.conf", "chat.conf.example", "container.conf"] {
        let text = read(name);
        let formatted = wssgate_syntax::format(name, text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8_lossy(&formatted), text, "{name}");
    }
}

/// Tests a configuration in whose text places are replaced by ones in its directory.
fn accepted(name: &str, text: &str, places: &[&str]) {
    let setup = Instance::setup(EXE);
    let directory = setup.dir().display().to_string();
    let replaced = |text: String, place: &&str| text.replace(place, &format!("{directory}/"));
    let text = places.iter().fold(text.replace("user             wssgate;\n", ""), replaced);
    let text = if text.contains("daemon") { text } else { format!("daemon off;\n{text}") };
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    fs::copy(&leaf.fullchain, setup.dir().join("tls.crt")).unwrap();
    fs::copy(&leaf.key, setup.dir().join("tls.key")).unwrap();
    let tested = setup.file(
        "conf.d/chat.conf",
        read("chat.conf.example").replace("/var/lib/wssgate", &directory),
    );
    let tested = tested.conf(&text).run(&["-t"]);
    assert!(tested.status.success(), "{name}: {}", tested.stderr);
}

#[test]
fn configurations_are_accepted() {
    let places = ["/var/lib/wssgate/", "/etc/wssgate/", "/run/wssgate/", "/var/log/wssgate/"];
    accepted("wssgate.conf", &read("wssgate.conf"), &places);
    accepted("container.conf", &read("container.conf"), &["/tmp/"]);
    let manifest = read("kubernetes/wssgate.yaml");
    let (_, rest) = manifest.split_once("nginx.conf: |\n").unwrap();
    let conf: Vec<_> = rest.lines().take_while(|line| *line != "---").collect();
    accepted("wssgate.yaml", &conf.join("\n"), &["/tmp/", "/certs/"]);
}
