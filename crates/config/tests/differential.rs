//! Accepts what nginx accepts, refuses what nginx refuses: the same texts go through `nginx -t`.
//!
//! Each line of the files in `differential/` is put into the block that the file is named after.
//! Directives that are refused on purpose have no place here, nor what nginx 1.22 does not know yet.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use wssgate_config::load;
use wssgate_config::load::LoadOptions;

const MAIN: &str = include_str!("differential/main.txt");

const HTTP: &str = include_str!("differential/http.txt");

const SERVER: &str = include_str!("differential/server.txt");

const LOCATION: &str = include_str!("differential/location.txt");

fn ours(text: &str, prefix: &Path) -> Result<(), Vec<String>> {
    let options = LoadOptions { prefix: prefix.into(), ..LoadOptions::text(text) };
    load(&options).map(|_| ()).map_err(|failed| failed.report.lines(&failed.sources))
}

fn theirs(text: &str, prefix: &Path) -> Result<(), String> {
    let conf = prefix.join("nginx.conf");
    std::fs::write(&conf, text).unwrap();
    let output = Command::new("nginx")
        .args(["-t", "-q", "-e", "stderr", "-p"])
        .arg(prefix)
        .arg("-c")
        .arg(&conf)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn nginx_and_we_accept_the_same() {
    if Command::new("nginx").arg("-v").output().is_err() {
        eprintln!("SKIPPED: nginx is not installed, nothing was compared");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path();
    let globals = "pid nginx.pid;";
    let http = |text: &str| format!("{globals} events {{}} http {{ access_log off; {text}\n}}");
    let server = |text: &str| http(&format!("server {{ {text}\n}}"));
    let location =
        |text: &str| server(&format!("listen 127.0.0.1:18080; location / {{ {text}\n}}"));
    let main = |text: &str| format!("{globals} {text} events {{}}");
    type Wrap<'w> = &'w dyn Fn(&str) -> String;
    let tables: [(&str, Wrap<'_>); 4] =
        [(MAIN, &main), (HTTP, &http), (SERVER, &server), (LOCATION, &location)];
    let mut differences = Vec::new();
    let mut accepted = 0;
    for (table, wrap) in tables {
        for text in table.lines() {
            let (ours, theirs) = (ours(&wrap(text), prefix), theirs(&wrap(text), prefix));
            accepted += usize::from(theirs.is_ok());
            if ours.is_ok() != theirs.is_ok() {
                differences.push(format!("{text}\n  we: {ours:?}\n  nginx: {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let total: usize = tables.iter().map(|(table, _)| table.lines().count()).sum();
    assert!(accepted > 100 && total - accepted > 100, "{accepted} of {total} were accepted");
}
