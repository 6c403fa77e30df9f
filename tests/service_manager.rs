//! What a service manager such as systemd does with the program: it passes sockets on and is told how things go.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use wssgate_testkit::{Conn, GUARD, Instance, http, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

const ANSWERS: &str = "server { listen %%LISTEN_0%%; location / { return 200 old; } }";

/// The next notification, as its lines.
fn next(manager: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 1024];
    let len = manager.recv(&mut buffer).expect("a notification");
    String::from_utf8_lossy(&buffer[..len]).lines().map(str::to_owned).collect()
}

fn manager(directory: &Path) -> UnixDatagram {
    let manager = UnixDatagram::bind(directory.join("notify")).unwrap();
    manager.set_read_timeout(Some(GUARD)).unwrap();
    manager
}

#[test]
fn a_service_manager_hears_of_start_reload_and_end() {
    let directory = tempfile::tempdir().unwrap();
    let manager = manager(directory.path());
    let setup = Instance::setup(EXE).http(ANSWERS);
    let socket = directory.path().join("notify").display().to_string();
    let mut server = setup.env("NOTIFY_SOCKET", &socket).start();
    let told = next(&manager);
    assert_eq!(told[0], "READY=1", "{told:?}");
    let pid = fs::read_to_string(server.dir().join("nginx.pid")).unwrap();
    assert!(told.contains(&format!("MAINPID={}", pid.trim())), "{told:?}");
    for (conf, expected) in [
        (ANSWERS, "STATUS=reconfigured, generation 2"),
        ("wrong;", "STATUS=reload failed, the previous configuration stays in effect"),
    ] {
        server.rewrite_http(conf);
        server.signal("HUP");
        let told = next(&manager);
        let since: u64 = told[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(told[0] == "RELOADING=1" && since > 0, "{told:?}");
        let told = next(&manager);
        assert!(told[0] == "READY=1" && told.contains(&expected.to_owned()), "{told:?}");
    }
    server.signal("QUIT");
    assert_eq!(next(&manager)[0], "STOPPING=1");
    assert!(server.wait().success());
}

/// Runs the program with `socket` as the one that was passed on.
fn with_socket(socket: OwnedFd, directory: &Path, conf: &str) -> Child {
    fs::write(directory.join("nginx.conf"), conf).unwrap();
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    command.args(["-c", script, EXE, "-c", "nginx.conf", "-e", "error.log", "-p"]);
    command.arg(directory).stdin(socket).stdout(Stdio::null());
    command.spawn().unwrap()
}

fn conf(address: &str) -> String {
    format!(
        "daemon off; pid off; worker_processes 2; error_log error.log notice; events {{}}
         http {{ access_log off; server {{ listen {address}; return 200 served; }} }}"
    )
}

#[test]
fn a_socket_that_was_passed_on_outlives_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..2 {
        let socket = listener.try_clone().unwrap().into();
        let mut server = with_socket(socket, directory.path(), &conf(&address.to_string()));
        // Whoever connects before it is there, waits.
        for _ in 0..8 {
            assert_eq!(http::get(address, "a", "/").text(), "served");
        }
        let killed = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
        assert!(killed.unwrap().success());
        assert!(server.wait().unwrap().success());
        // Between two of them nobody is refused.
        assert!(Conn::try_connect(address).is_ok());
    }
}

#[test]
fn a_socket_that_no_line_asks_for_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unused = listener.local_addr().unwrap();
    let own = wssgate_testkit::free_addr().to_string();
    let mut server = with_socket(listener.into(), directory.path(), &conf(&own));
    let told = format!(": the service manager listens on {unused}, which is not used");
    let log = directory.path().join("error.log");
    wait_until("the warning", || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.lines().any(|line| line.contains("[warn]") && line.ends_with(&told))
    });
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Under systemd standard output is a socket, which cannot be opened by its name.
#[test]
fn a_log_on_standard_output_may_be_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(GUARD)).unwrap();
    let address = wssgate_testkit::free_addr();
    let text = conf(&address.to_string()).replace("access_log off", "access_log /dev/stdout");
    fs::write(directory.path().join("nginx.conf"), text).unwrap();
    let mut command = Command::new(EXE);
    command.args(["-c", "nginx.conf", "-e", "error.log", "-p"]).arg(directory.path());
    let mut server = command.stdin(Stdio::null()).stdout(OwnedFd::from(theirs)).spawn().unwrap();
    drop(command);
    wait_until("the server", || Conn::try_connect(address).is_ok());
    assert_eq!(http::get(address, "a", "/seen").text(), "served");
    let mut line = String::new();
    BufReader::new(ours).read_line(&mut line).unwrap();
    assert!(line.contains("\"GET /seen HTTP/1.1\" 200"), "{line}");
    server.kill().unwrap();
    server.wait().unwrap();
}
