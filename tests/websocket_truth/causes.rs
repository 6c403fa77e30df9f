//! The closed list of causes in `docs/websocket-ends.md`, and whether all of them are brought about here.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use wssgate_testkit::{skipped, wait_until};

use crate::rig::{Rig, check};

/// Words that nothing brings about, and why.
const ABSENT: [(&str, &str); 1] = [("kill", "tests/ctl.rs has it closed by an operator")];

const TESTS: [&str; 6] = [
    include_str!("main.rs"),
    include_str!("blackhole.rs"),
    include_str!("causes.rs"),
    include_str!("hops.rs"),
    include_str!("chain.rs"),
    include_str!("../health_checks.rs"),
];

/// The causes in all strings of the tests that read like what is told of an end: `client 1000 client_close`.
fn expected() -> BTreeSet<&'static str> {
    let strings = TESTS.into_iter().flat_map(|text| text.split('"'));
    strings
        .filter_map(|string| match *string.split(' ').collect::<Vec<_>>() {
            [by, code, cause] => {
                let is_by = ["client", "upstream", "proxy"].contains(&by);
                let is_code = code == "-" || code.parse::<u16>().is_ok();
                (is_by && is_code).then_some(cause)
            }
            _ => None,
        })
        .collect()
}

#[test]
fn every_cause_is_brought_about_or_stands_with_its_reason_why_not() {
    let document = include_str!("../../docs/websocket-ends.md");
    let (_, table) = document.split_once("## Causes").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<_> = rows.map(|(word, _)| word).collect();
    let mut found = expected();
    for (word, why) in ABSENT {
        assert!(found.insert(word), "{word} is brought about, though {why}");
    }
    assert_eq!(found, documented);
}

/// The threads of a process that carry tunnels.
fn relay_threads(pid: u32) -> Vec<OsString> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let is_relay = |task: &DirEntry| {
        std::fs::read_to_string(task.path().join("comm"))
            .is_ok_and(|name| name.starts_with("relay"))
    };
    tasks.filter_map(Result::ok).filter(is_relay).map(|task| task.file_name()).collect()
}

/// strace makes the kernel refuse what the thread that carries tunnels asks of it.
#[test]
fn a_tunnel_that_the_kernel_refuses_is_a_failed_set_up() {
    let mut rig = Rig::new();
    // A thread names itself once it runs.
    let mut relays = Vec::new();
    wait_until("a thread that carries tunnels", || {
        relays = relay_threads(rig.server.pid());
        !relays.is_empty()
    });
    let [relay] = &relays[..] else { panic!("one worker has {relays:?}") };
    let mut strace = Command::new("strace");
    strace.arg("-p").arg(relay).args([
        "-e",
        "trace=epoll_ctl",
        "-e",
        "inject=epoll_ctl:error=ENOSPC",
    ]);
    let Ok(mut strace) = strace.stdin(Stdio::null()).stderr(Stdio::piped()).spawn() else {
        return skipped("a tunnel that the kernel refuses: no strace");
    };
    let mut said = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
    if !said.next().is_some_and(|line| line.contains("attached")) {
        strace.wait().unwrap();
        return skipped("a tunnel that the kernel refuses: strace may not do that here");
    }
    let mut tunnel = rig.open("plain", [false, false]);
    tunnel.client.conn().expect_eof();
    tunnel.upstream.conn().expect_eof();
    let line = rig.line(tunnel.number);
    check(&line, "proxy - setup_failed", tunnel.said(), "refused");
    strace.kill().unwrap();
    strace.wait().unwrap();
    assert!(rig.server.stop().success());
}
