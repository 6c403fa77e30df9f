//! The process: signals, the pid file, reloads, log rotation, users, and its end.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use wssgate_testkit::{GUARD, Instance, free_addr, skipped, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server that listens on one address.
const ONE: &str = "server { listen %%LISTEN_0%%; }";

fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// Debian's scripts look for the process of the pid file only under the name `nginx`.
#[test]
fn a_process_that_was_started_as_nginx_is_found_under_that_name() {
    let (dir, address) = (tempfile::tempdir().unwrap(), free_addr());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let conf = format!(
        "daemon off; pid {}; error_log {}; events {{}} http {{ server {{ listen {address}; }} }}",
        path("pid"),
        path("error.log notice")
    );
    fs::write(path("nginx.conf"), conf).unwrap();
    let mut command = Command::new(EXE);
    let mut child = command.arg0("nginx").args(["-c", &path("nginx.conf")]).spawn().unwrap();
    wait_until("the pid file", || fs::read_to_string(path("pid")).is_ok_and(|pid| !pid.is_empty()));
    let name = fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
    let rotated = Command::new("/sbin/start-stop-daemon")
        .args(["--stop", "--signal", "USR1", "--quiet", "--name", "nginx", "--pidfile"])
        .arg(path("pid"))
        .status();
    if let Ok(rotated) = rotated {
        assert!(rotated.success(), "{rotated}");
        wait_until("the rotation", || {
            fs::read_to_string(path("error.log")).is_ok_and(|log| log.contains("reopening logs"))
        });
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(name, "nginx\n");
}

/// Waiting for an end without losing the directory.
trait WaitAndKeep {
    fn wait_and_keep(self, look: impl Fn(&Path) -> bool) -> bool;
}

impl WaitAndKeep for Instance {
    fn wait_and_keep(mut self, look: impl Fn(&Path) -> bool) -> bool {
        wait_until("the end", || self.has_ended());
        look(self.dir())
    }
}

#[test]
fn several_workers_share_an_address() {
    let server = Instance::setup(EXE).main_and_http("worker_processes 3;", ONE).start();
    for _ in 0..20 {
        assert!(accepts(server.listen(0)));
    }
    assert!(server.stop().success());
}

#[test]
fn a_reload_opens_new_addresses_and_closes_old_ones() {
    let mut server = Instance::setup(EXE).http(ONE).start();
    let old = server.listen(0);
    server.rewrite_http("server { listen %%LISTEN_1%%; }");
    server.signal("HUP");
    server.wait_for_log("exited with code 0");
    assert!(accepts(server.listen(1)));
    wait_until("the old address to close", || !accepts(old));
    assert!(server.stop().success());
}

#[test]
fn a_broken_configuration_changes_nothing_and_says_why() {
    let mut server = Instance::setup(EXE).http(ONE).start();
    server.rewrite_http("server { listen %%LISTEN_0%%; wrong on; }");
    server.signal("HUP");
    let line = server.wait_for_log("[emerg]");
    assert!(line.contains("unknown directive \"wrong\" in ") && line.contains("nginx.conf:"));
    server.wait_for_log("the previous configuration stays in effect");
    assert!(accepts(server.listen(0)));
    server.rewrite_http(ONE);
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    assert!(server.stop().success());
}

#[test]
fn a_reload_that_cannot_bind_keeps_the_old_configuration() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap();
    let mut server = Instance::setup(EXE).http(ONE).start();
    server.rewrite_http(&format!("server {{ listen %%LISTEN_0%%; listen {taken}; }}"));
    server.signal("HUP");
    server.wait_for_log(&format!("bind() to {taken} failed (98: Address already in use)"));
    server.wait_for_log("the previous configuration stays in effect");
    assert!(accepts(server.listen(0)));
    assert!(server.stop().success());
}

#[test]
fn a_port_in_use_is_fatal_and_named() {
    for workers in ["1", "2"] {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = stranger.local_addr().unwrap();
        let failed = Instance::setup(EXE)
            .main_and_http(
                &format!("worker_processes {workers};"),
                &format!("server {{ listen {taken}; }}"),
            )
            .try_start();
        let Err(failed) = failed else { panic!("started on a port in use") };
        assert_eq!(failed.status.code(), Some(1));
        let expected =
            format!("nginx: [emerg] bind() to {taken} failed (98: Address already in use)");
        assert!(failed.stderr.contains(&expected), "{}", failed.stderr);
    }
}

#[test]
fn two_instances_cannot_share_a_port_with_several_workers() {
    let first = Instance::setup(EXE).main_and_http("worker_processes 2;", ONE).start();
    let second = Instance::setup(EXE)
        .main_and_http("worker_processes 2;", &format!("server {{ listen {}; }}", first.listen(0)))
        .try_start();
    let Err(second) = second else { panic!("two instances on one port") };
    assert!(second.stderr.contains("(98: Address already in use)"), "{}", second.stderr);
}

#[test]
fn a_daemon_leaves_its_parent_and_obeys_its_pid_file() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_addr();
    let conf = format!(
        "daemon on;\npid nginx.pid;\nerror_log error.log info;\nevents {{}}\n\
         http {{ access_log off; server {{ listen {address}; }} }}\n"
    );
    fs::write(directory.path().join("nginx.conf"), conf).unwrap();
    let command = || {
        let mut command = Command::new(EXE);
        command.arg("-p").arg(directory.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        command
    };
    let parent = command().output().unwrap();
    assert!(parent.status.success());
    let pid_file = directory.path().join("nginx.pid");
    let written = || fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n'));
    wait_until("the pid file", written);
    assert!(accepts(address));
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    // In a session of its own: the sixth field of stat(5) is the session.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string());
    assert!(command().args(["-s", "stop"]).status().unwrap().success());
    wait_until("the end of the daemon", || !pid_file.exists());
}

#[test]
fn a_unix_socket_is_everybodys_and_goes_with_the_process() {
    let server = Instance::setup(EXE).http("server { listen unix:%%DIR%%/s; }").start();
    let path = server.dir().join("s");
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    server.signal("TERM");
    assert!(server.wait_and_keep(|directory| !directory.join("s").exists()));
}

#[test]
fn a_silent_connection_does_not_outlive_term() {
    let server = Instance::setup(EXE).http(ONE).start();
    let mut client = TcpStream::connect(server.listen(0)).unwrap();
    let before = Instant::now();
    assert!(server.terminate().success());
    assert!(before.elapsed() < Duration::from_secs(2));
    client.set_read_timeout(Some(GUARD)).unwrap();
    // Ended or reset; but not open.
    assert!(!matches!(client.read(&mut [0; 1]), Ok(1..)));
}

#[test]
fn a_connection_too_many_is_closed_and_told() {
    let server = Instance::setup(EXE)
        .conf(
            "daemon off; pid %%DIR%%/nginx.pid; error_log %%DIR%%/error.log;\n\
             events { worker_connections 2; }\n\
             http { access_log off; server { listen %%LISTEN_0%%; } }\n",
        )
        .start();
    let address = server.listen(0);
    let _two = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
    let mut third = TcpStream::connect(address).unwrap();
    third.set_read_timeout(Some(GUARD)).unwrap();
    assert!(!matches!(third.read(&mut [0; 1]), Ok(1..)));
    server.wait_for_log("2 worker_connections are not enough");
}

#[test]
fn a_log_without_a_reader_never_holds_up_an_answer() {
    let setup = Instance::setup(EXE);
    let pipe = setup.dir().join("pipe");
    wssgate_sys::files::make_fifo(&pipe).unwrap();
    let server = setup
        .http("server { listen %%LISTEN_0%%; access_log %%DIR%%/pipe; location / { return 204; } }")
        .start();
    let request = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(4000));
    let mut client = TcpStream::connect(server.listen(0)).unwrap();
    client.set_read_timeout(Some(GUARD)).unwrap();
    // A pipe holds 64 KiB, so most of these lines are lost.
    for _ in 0..50 {
        std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
        read_head(&mut client);
    }
    let mut reader = fs::File::open(&pipe).unwrap();
    reader.read_exact(&mut [0; 8192]).unwrap();
    std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
    let line = server.wait_for_log("were lost");
    assert!(line.contains("[error]") && line.contains("/pipe\""), "{line}");
    assert!(server.stop().success());
}

/// Reads up to the empty line.
fn read_head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn buffered_access_lines_are_written_in_time_and_at_the_end() {
    let server = Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%%; location /a { access_log %%DIR%%/a combined buffer=4k flush=100ms; \
             return 204; } location /b { access_log %%DIR%%/b combined buffer=4k; return 204; } }",
        )
        .start();
    let mut client = TcpStream::connect(server.listen(0)).unwrap();
    client.set_read_timeout(Some(GUARD)).unwrap();
    for path in ["/a", "/b"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 204"));
    }
    server.wait_for_line("a", "GET /a");
    assert_eq!(server.read("b"), "");
    server.signal("USR1");
    server.wait_for_line("b", "GET /b");
    assert!(server.stop().success());
}

#[test]
fn an_idle_connection_survives_a_reload_and_ends_with_quit() {
    let mut server = Instance::setup(EXE)
        .http("server { listen %%LISTEN_0%%; location / { return 204; } }")
        .start();
    let mut client = TcpStream::connect(server.listen(0)).unwrap();
    client.set_read_timeout(Some(GUARD)).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    std::io::Write::write_all(&mut client, request).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 204"));
    server.rewrite_http("server { listen %%LISTEN_0%%; location / { return 202; } }");
    server.signal("HUP");
    server.wait_for_log("generation 1 ended: nothing uses it any more (worker process");
    std::io::Write::write_all(&mut client, request).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 202"));
    server.signal("QUIT");
    let mut rest = Vec::new();
    // What is left of the last answer, and then the end.
    client.read_to_end(&mut rest).unwrap();
    assert!(server.wait().success());
}

#[test]
fn worker_shutdown_timeout_ends_a_drain() {
    let server = Instance::setup(EXE).main_and_http("worker_shutdown_timeout 50ms;", ONE).start();
    let mut client = TcpStream::connect(server.listen(0)).unwrap();
    // A request that never ends.
    std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\n").unwrap();
    client.set_read_timeout(Some(GUARD)).unwrap();
    let before = Instant::now();
    assert!(server.stop().success());
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn workers_of_roots_process_have_no_privileges_and_the_main_thread_few() {
    if !wssgate_sys::privileges::is_root() {
        skipped("needs root");
        return;
    }
    let server =
        Instance::setup(EXE).main_and_http("user nobody nogroup; worker_processes 2;", ONE).start();
    wait_until("the workers", || accepts(server.listen(0)) && threads(server.pid()).len() >= 5);
    // Written when the last thread has given up what it had.
    server.wait_for_log(" started");
    let mut kept = Vec::new();
    for (thread, status) in threads(server.pid()) {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|line| line.trim().to_owned()).unwrap()
        };
        assert!(field("Uid:").split_whitespace().all(|uid| uid == "65534"), "{status}");
        let effective = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
        let permitted = u64::from_str_radix(&field("CapPrm:"), 16).unwrap();
        assert_eq!(effective, permitted);
        if thread == server.pid() {
            kept.push(effective);
        } else {
            assert_eq!(effective, 0, "{status}");
        }
    }
    // CAP_CHOWN, CAP_DAC_OVERRIDE and CAP_NET_BIND_SERVICE.
    assert_eq!(kept, [1 << 0 | 1 << 1 | 1 << 10]);
    assert!(server.stop().success());
}

/// Every thread of a process: its number and its `status` of proc(5).
fn threads(pid: u32) -> Vec<(u32, String)> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let thread = entry.file_name().to_str().unwrap().parse().unwrap();
            (thread, fs::read_to_string(entry.path().join("status")).unwrap())
        })
        .collect()
}

#[test]
fn a_reload_of_roots_process_still_binds_low_ports_and_opens_roots_logs() {
    if !wssgate_sys::privileges::is_root() {
        skipped("needs root");
        return;
    }
    let mut server = Instance::setup(EXE).main_and_http("user nobody nogroup;", ONE).start();
    let low = free_low_port();
    server.rewrite_http(&format!(
        "server {{ listen %%LISTEN_0%%; listen {low}; access_log %%DIR%%/new.log; }}"
    ));
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    assert!(accepts(low));
    assert!(server.dir().join("new.log").exists());
    fs::remove_file(server.dir().join("error.log")).unwrap();
    fs::write(server.dir().join("error.log"), "").unwrap();
    server.signal("USR1");
    server.signal("WINCH");
    server.wait_for_log("(SIGWINCH)");
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata(server.dir().join("error.log")).unwrap().uid();
    assert_eq!(owner, 65_534, "a reopened log belongs to the user");
    assert!(server.stop().success());
}

#[test]
fn long_bodies_are_the_users_alone() {
    if !wssgate_sys::privileges::is_root() {
        skipped("needs root");
        return;
    }
    let server = Instance::setup(EXE)
        .main_and_http("user nobody nogroup;", &format!("client_body_temp_path %%DIR%%/b; {ONE}"))
        .start();
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let directory = fs::metadata(server.dir().join("b")).unwrap();
    assert_eq!((directory.uid(), directory.permissions().mode() & 0o777), (65_534, 0o700));
    assert!(server.stop().success());
}

/// A port that only root may bind.
fn free_low_port() -> SocketAddr {
    let ports = (700..1000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
    ports.into_iter().find(free).unwrap()
}

/// A warning that is told with every reload is not read any more.
#[test]
fn a_reload_tells_of_the_configuration_what_is_new() {
    let config = |word: &str| {
        format!("server {{ listen %%LISTEN_0%%; location ~ {word} {{ }} location ~ {word} {{ }} }}")
    };
    let mut server = Instance::setup(EXE).http(&config("a")).start();
    let told = |server: &Instance| server.error_log().matches("is never used").count();
    let reload = |server: &mut Instance, word: &str, times: usize| {
        server.rewrite_http(&config(word));
        server.signal("HUP");
        wait_until("the reload", || server.error_log().matches("reconfigured").count() == times);
    };
    let before = told(&server);
    reload(&mut server, "a", 1);
    assert_eq!(told(&server), before, "{}", server.error_log());
    reload(&mut server, "b", 2);
    assert_eq!(told(&server), before + 1, "{}", server.error_log());
    reload(&mut server, "b", 3);
    assert_eq!(told(&server), before + 1, "{}", server.error_log());
}
