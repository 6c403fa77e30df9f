//! Where lines of the logs go, whatever becomes of their place: syslog, compressed files, files with
//! variables in their path, files that are moved away or take nothing. What nginx does too is asked of
//! nginx as well, where there is one.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Read};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use wssgate_testkit::{Handshake, Instance, NGINX, Upstream, http, wait_until, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// Workers may write into the directory of the test.
const ROOT: &str = "user root;";

/// How long a datagram may take.
const GUARD: Option<Duration> = Some(Duration::from_secs(10));

/// One datagram as text.
fn received(recv: impl Fn(&mut [u8]) -> io::Result<usize>) -> String {
    let mut buffer = [0; 65536];
    let len = recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// What stands between the parts of a syslog line that change: priority, and from the tag on.
fn framing(line: &str) -> (String, String) {
    let (priority, rest) = line.split_at(line.find('>').unwrap() + 1);
    // `Nov 29 16:01:46 `, then the name of the host unless it is left out.
    let rest = &rest["Nov 29 16:01:46 ".len()..];
    (priority.into(), rest.into())
}

#[test]
fn lines_reach_a_syslog_server_in_the_frame_of_nginx() {
    let long = "x".repeat(5000);
    let cases = [
        ("access_log syslog:server=%%UDP%% short;", "/a"),
        ("access_log syslog:server=%%UDP%%,facility=mail,severity=debug,tag=Own_1 short;", "/a"),
        ("access_log syslog:nohostname,server=unix:%%DIR%%/socket short;", "/a"),
        ("access_log syslog:server=%%UDP%% short if=$arg_log;", "/a?log=1"),
        ("access_log syslog:server=%%UDP%% short;", &format!("/{long}")),
        ("error_log syslog:server=%%UDP%%,facility=user,severity=alert,tag=e;", "/missing"),
    ];
    for (line, path) in cases {
        let frames: Vec<_> = with_nginx(WSSGATE)
            .map(|exe| {
                let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
                udp.set_read_timeout(GUARD).unwrap();
                let setup = Instance::setup(exe);
                let unix = UnixDatagram::bind(setup.dir().join("socket")).unwrap();
                unix.set_read_timeout(GUARD).unwrap();
                let server = setup
                    .main_and_http(
                        ROOT,
                        &format!(
                        "log_format short '$request_uri $status'; large_client_header_buffers 4 16k;
                         server {{ listen %%LISTEN_0%%; location / {{ {line} }} }}"
                    ),
                    )
                    .var("UDP", udp.local_addr().unwrap())
                    .start();
                http::get(server.listen(0), "a", path);
                let text = match line.contains("unix:") {
                    true => received(|buffer| unix.recv(buffer)),
                    false => received(|buffer| udp.recv(buffer)),
                };
                let (priority, rest) = framing(&text);
                // An error line tells time, process and place of the file.
                match rest.split_once("[error]") {
                    Some((before, _)) => (priority, before[..before.len() - 20].to_owned()),
                    None => (priority, rest),
                }
            })
            .collect();
        assert!(frames.iter().all(|frame| *frame == frames[0]), "{line}: {frames:?}");
        assert!(frames[0].0.starts_with('<') && frames[0].1.contains(": "), "{frames:?}");
    }
}

#[test]
fn a_syslog_server_that_is_away_costs_its_lines_only() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    drop(udp);
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .main_and_http(
                ROOT,
                "log_format short '$request_uri'; access_log %%DIR%%/healthy.log short;
                 access_log syslog:server=%%UDP%% short; server { listen %%LISTEN_0%%; }",
            )
            .var("UDP", address)
            .start();
        // A refusal is told with the next datagram.
        for path in ["/1", "/2", "/3"] {
            http::get(server.listen(0), "a", path);
        }
        let line = server.wait_for_log("send() failed (111: Connection refused)");
        assert!(line.contains("[error]"), "{exe}: {line}");
        // nginx 1.22 does not name the server yet.
        let place = format!(" while logging to syslog, server: {address}");
        assert!(exe == NGINX || line.ends_with(&place), "{line}");
        server.wait_for_line("healthy.log", "/3");
        let udp = UdpSocket::bind(address).unwrap();
        udp.set_read_timeout(GUARD).unwrap();
        // The socket that was refused is not used again.
        http::get(server.listen(0), "a", "/4");
        http::get(server.listen(0), "a", "/5");
        assert!(received(|buffer| udp.recv(buffer)).contains(" nginx: /"), "{exe}");
    }
}

fn gunzip(path: &Path) -> String {
    let mut text = String::new();
    let file = fs::File::open(path).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_compressed_log_is_whole_after_rotation_and_stop() {
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .main_and_http(
                ROOT,
                "log_format short '$request_uri'; access_log %%DIR%%/a.gz short gzip buffer=1k;
                 server { listen %%LISTEN_0%%; location /same { access_log %%DIR%%/a.gz short; } }",
            )
            .start();
        let paths: Vec<_> = (0..300).map(|n| format!("/{n}")).collect();
        for path in &paths[..200] {
            http::get(server.listen(0), "a", path);
        }
        // Also a line of a location that says nothing of buffers goes through the file's.
        http::get(server.listen(0), "a", "/same");
        let (log, rotated) = (server.dir().join("a.gz"), server.dir().join("a.gz.1"));
        fs::rename(&log, &rotated).unwrap();
        server.signal("USR1");
        wait_until("the new file", || log.exists());
        for path in &paths[200..] {
            http::get(server.listen(0), "a", path);
        }
        // Stays when the program is gone.
        let dir = tempfile::tempdir().unwrap();
        wait_until("the first lines", || {
            fs::copy(&rotated, dir.path().join("1")).unwrap();
            gunzip(&rotated).contains("/same\n")
        });
        fs::hard_link(&log, dir.path().join("2")).unwrap();
        assert!(server.stop().success());
        let lines = gunzip(&dir.path().join("1")) + &gunzip(&dir.path().join("2"));
        let mut wanted = paths.clone();
        wanted.insert(200, "/same".into());
        assert_eq!(lines.lines().collect::<Vec<_>>(), wanted, "{exe}");
    }
}

#[test]
fn logs_with_variables_in_their_path_follow_their_names() {
    let lines = ["", "open_log_file_cache max=2 valid=1m;"];
    for (exe, cached) in with_nginx(WSSGATE).flat_map(|exe| lines.map(|line| (exe, line))) {
        let server = Instance::setup(exe)
            .file("root/index.html", "")
            .main_and_http(
                ROOT,
                &format!(
                    "log_format short '$request_uri'; {cached}
                 server {{ listen %%LISTEN_0%%; root %%DIR%%/root;
                     access_log %%DIR%%/$arg_log.log short; }}
                 server {{ listen %%LISTEN_1%%; root %%DIR%%/none;
                     access_log %%DIR%%/$arg_log.log short; }}"
                ),
            )
            .start();
        let get = |number, path: &str| http::get(server.listen(number), "a", path);
        for path in ["/1?log=a", "/2?log=b", "/3?log=c", "/4?log=a"] {
            get(0, path);
        }
        server.wait_for_line("a.log", "/4?log=a");
        assert_eq!(server.read("a.log"), "/1?log=a\n/4?log=a\n", "{exe} {cached}");
        get(1, "/?log=forged");
        let line = server.wait_for_log("existence failed");
        let root = server.dir().join("none");
        let text = format!("testing \"{}\" existence failed (2: No such file", root.display());
        assert!(line.contains(&text) && line.contains("[error]"), "{exe}: {line}");
        assert!(!server.dir().join("forged.log").exists(), "{exe}");
        get(0, "/?log=no/such/directory");
        let line = server.wait_for_log("no/such/directory.log\" failed");
        assert!(line.contains("[crit]") && line.contains("while logging request"), "{exe}: {line}");
        let moved = server.dir().join("moved");
        fs::rename(server.dir().join("a.log"), &moved).unwrap();
        get(0, "/5?log=a");
        let to = if cached.is_empty() { "a.log" } else { "moved" };
        assert!(server.wait_for_line(to, "/5").contains("/5?log=a"), "{exe} {cached}");
        if exe == WSSGATE {
            // nginx goes on with the file that it has for as long as `valid` says.
            server.signal("USR1");
            server.wait_for_log("reopening logs");
            get(0, "/6?log=a");
            server.wait_for_line("a.log", "/6");
        }
    }
}

#[test]
fn a_tunnel_is_logged_under_a_path_with_variables() {
    let upstream = Upstream::echo();
    let server = Instance::setup(WSSGATE)
        .main_and_http(
            ROOT,
            "log_format short '$status $uri';
             server { listen %%LISTEN_0%%; root %%DIR%%; access_log %%DIR%%/$host.log short;
                 location / { proxy_pass http://%%UP%%; } }",
        )
        .var("UP", upstream.addr())
        .start();
    let client = Handshake::to(server.listen(0)).host("a.example").path("/chat").open();
    drop(client);
    server.wait_for_line("a.example.log", "101 /chat");
}

#[test]
fn a_log_on_a_full_disk_is_told_of_and_harms_no_other() {
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .main_and_http(
                ROOT,
                "log_format short '$request_uri'; access_log /dev/full short;
                 access_log %%DIR%%/healthy.log short; error_log /dev/full;
                 error_log %%DIR%%/error.log; server { listen %%LISTEN_0%%; }",
            )
            .start();
        for path in ["/1", "/2"] {
            http::get(server.listen(0), "a", path);
        }
        let line = server.wait_for_log("write() to \"/dev/full\" failed (28: No space left");
        assert!(line.contains("[alert]"), "{exe}: {line}");
        server.wait_for_line("healthy.log", "/2");
        server.wait_for_log("/2\" failed (2: No such file");
    }
}
