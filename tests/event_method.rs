//! `use`: whether io_uring carries the messages of several tunnels at once.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, Handshake, Instance, Upstream, sandbox, text, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

const CONF: &str = "
    daemon off;
    pid %%DIR%%/nginx.pid;
    error_log %%DIR%%/error.log info;
    worker_processes 2;
    events { %%METHOD%% }
    http { server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } } }
";

/// How many rings the program has open: one for each worker that uses io_uring.
fn rings(server: &Instance) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("[io_uring]")).count()
}

/// All clients speak before anybody listens, so that workers find several of them ready.
fn speak(clients: &mut [Conn]) {
    for message in ["short", &"long".repeat(20_000), "again"] {
        clients.iter_mut().for_each(|client| client.send([text(message)]));
        clients.iter_mut().for_each(|client| client.expect([text(message)]));
    }
}

#[test]
fn tunnels_live_on_when_a_reload_changes_the_method() {
    let upstream = Upstream::echo();
    let mut server = Instance::setup(EXE)
        .conf(CONF)
        .var("METHOD", "use epoll;")
        .var("UP", upstream.addr())
        .start();
    let mut clients: Vec<_> = (0..16).map(|_| Handshake::to(server.listen(0)).open()).collect();
    speak(&mut clients);
    assert_eq!(rings(&server), 0);
    for method in ["", "use epoll;", "use io_uring;"] {
        server.set_var("METHOD", method);
        server.rewrite();
        server.signal("HUP");
        let wanted = if method == "use epoll;" { 0 } else { 2 };
        wait_until("the other method", || {
            rings(&server) == wanted || server.error_log().contains("io_uring is not used")
        });
        if rings(&server) != wanted {
            eprintln!("SKIPPED: io_uring, for the kernel refuses it");
        }
        speak(&mut clients);
    }
    drop(clients);
    assert!(server.stop().success());
    upstream.finish();
}

#[test]
fn a_kernel_that_refuses_io_uring_is_told_of_and_changes_nothing_else() {
    // What the test starts inherits it.
    sandbox::forbid_io_uring().unwrap();
    let upstream = Upstream::echo();
    let mut server =
        Instance::setup(EXE).conf(CONF).var("METHOD", "").var("UP", upstream.addr()).start();
    let refusal = |server: &Instance, level| {
        let log = server.error_log();
        let mut lines = log.lines().filter(|line| line.contains(level));
        lines.any(|line| line.ends_with(": io_uring is not used (1: Operation not permitted)"))
    };
    wait_until("the refusal", || refusal(&server, "[info]"));
    let mut clients: Vec<_> = (0..16).map(|_| Handshake::to(server.listen(0)).open()).collect();
    speak(&mut clients);
    server.set_var("METHOD", "use io_uring;");
    server.rewrite();
    server.signal("HUP");
    wait_until("the refusal", || refusal(&server, "[warn]"));
    speak(&mut clients);
    let log = server.error_log();
    assert_eq!((log.matches("io_uring").count(), rings(&server)), (2, 0), "{log}");
    drop(clients);
    assert!(server.stop().success());
    upstream.finish();
}
