//! `use`: whether io_uring carries the messages of several tunnels at once.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, Handshake, Instance, Upstream, text, wait_until};

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
