//! Signals and pid files, as operators and their scripts use them: what nginx does, where it is installed, is what
//! wssgate does.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

use wssgate_testkit::{
    Conn, Handshake, Instance, Upstream, free_addr, http, text, wait_until, with_nginx,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// Workers may write into the directory of the test.
const ROOT: &str = "user root;";

/// Sends a word with `-s`, as operators do.
fn send(exe: &str, instance: &Instance, word: &str) -> bool {
    let mut command = Command::new(exe);
    command.arg("-p").arg(instance.dir()).args(["-c", "nginx.conf", "-e", "error.log", "-s", word]);
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{exe} {word}: {output:?}");
    output.status.success()
}

fn start(exe: &str, http: &str) -> Instance {
    Instance::setup(exe).main_and_http(ROOT, http).start()
}

const ANSWERS: &str = "server { listen %%LISTEN_0%%; location / { return 200 old; } }";

#[test]
fn every_word_of_s_and_its_signal_are_obeyed_and_logged_alike() {
    for exe in with_nginx(WSSGATE) {
        let signals = [
            ("reopen", "USR1", "signal 10 (SIGUSR1) received from ", ", reopening logs"),
            ("reload", "HUP", "signal 1 (SIGHUP) received from ", ", reconfiguring"),
            ("quit", "QUIT", "signal 3 (SIGQUIT) received from ", ", shutting down"),
            ("stop", "TERM", "signal 15 (SIGTERM) received from ", ", exiting"),
            ("stop", "INT", "signal 2 (SIGINT) received from ", ", exiting"),
        ];
        for (word, name, before, after) in signals {
            for by_word in [true, false] {
                if by_word && name == "INT" {
                    continue;
                }
                let mut server = start(exe, ANSWERS);
                // Stays when the directory goes.
                let kept = tempfile::tempdir().unwrap();
                let log = kept.path().join("log");
                fs::hard_link(server.dir().join("error.log"), &log).unwrap();
                server.rewrite_http(&ANSWERS.replace("old", "new"));
                match by_word {
                    true => assert!(send(exe, &server, word), "{exe} {word}"),
                    false => server.signal(name),
                }
                match word {
                    "reload" => wait_until("the new configuration", || {
                        http::get(server.listen(0), "a", "/").text() == "new"
                    }),
                    "reopen" => {
                        server.wait_for_log("reopening logs");
                        assert_eq!(http::get(server.listen(0), "a", "/").text(), "old");
                    }
                    _ => {
                        wait_until("the end", || server.has_ended());
                        assert!(!server.dir().join("nginx.pid").exists(), "{exe} {word}");
                        assert!(server.wait().success(), "{exe} {word}");
                    }
                }
                let log = fs::read_to_string(log).unwrap();
                let line = log.lines().find(|line| line.contains(before));
                let line = line.unwrap_or_else(|| panic!("{exe} {word}: {log}"));
                assert!(line.contains("[notice]") && line.ends_with(after), "{exe}: {line}");
            }
        }
    }
}

/// A tunnel holds QUIT up; what comes then?
#[test]
fn a_server_that_drains_obeys_term_and_takes_no_new_configuration() {
    let upstream = Upstream::echo();
    for exe in with_nginx(WSSGATE) {
        let mut server = Instance::setup(exe)
            .main_and_http(
                ROOT,
                "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%;
                 proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection upgrade; } }",
            )
            .var("UP", upstream.addr())
            .start();
        let address = server.listen(0);
        let mut tunnel = Handshake::to(address).open();
        server.signal("QUIT");
        wait_until("the listening socket to close", || Conn::try_connect(address).is_err());
        server.signal("HUP");
        server.wait_for_log("(SIGHUP)");
        // Behind the one before it.
        server.signal("USR1");
        server.wait_for_log("(SIGUSR1)");
        tunnel.send([text("still")]);
        tunnel.expect([text("still")]);
        assert!(Conn::try_connect(address).is_err(), "{exe} listens again");
        assert!(!server.has_ended());
        server.signal("TERM");
        assert!(server.wait().success(), "{exe}");
    }
}

/// In nginx the terminal of a server in the foreground may change its size, and in the background WINCH ends the
/// workers when another binary has taken over. There is none here, so nothing may stop accepting.
/// A tunnel that comes to its relay when the word to stop has just been given is neither waited for nor forgotten.
#[test]
fn a_websocket_that_begins_as_the_server_stops_has_its_line() {
    let upstream = Upstream::echo();
    let server = "log_format cause $websocket_close_cause; access_log %%DIR%%/ends.log cause;
        server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } }";
    // Where it comes between the two varies.
    for _ in 0..20 {
        let server = Instance::setup(WSSGATE).http(server).var("UP", upstream.addr()).start();
        let mut client = Handshake::to(server.listen(0)).open();
        server.signal("TERM");
        client.recv_to_end();
        server.wait_for_line("error.log", ": exit");
        assert_eq!(server.read("ends.log"), "shutdown\n");
        assert!(server.wait().success());
    }
    upstream.finish();
}

#[test]
fn winch_stops_nobody_in_the_foreground() {
    for exe in with_nginx(WSSGATE) {
        let server = start(exe, ANSWERS);
        server.signal("WINCH");
        let line = server.wait_for_log("signal 28 (SIGWINCH) received");
        assert!(line.contains("[notice]") && !line.contains(','), "{exe}: {line}");
        assert_eq!(http::get(server.listen(0), "a", "/").text(), "old", "{exe}");
        assert!(server.stop().success());
    }
}

#[test]
fn pid_files_are_made_moved_and_removed_alike() {
    for exe in with_nginx(WSSGATE) {
        let setup = Instance::setup(exe).file("nginx.pid", "stale\nand longer than a number");
        fs::set_permissions(setup.dir().join("nginx.pid"), fs::Permissions::from_mode(0o600))
            .unwrap();
        let mut server = setup.main_and_http(ROOT, ANSWERS).start();
        let pid = format!("{}\n", server.pid());
        let dir = server.dir().to_owned();
        let file = |name: &str| dir.join(name);
        // One that is there keeps its permissions.
        assert_eq!(server.read("nginx.pid"), pid, "{exe}");
        assert_eq!(fs::metadata(file("nginx.pid")).unwrap().mode() & 0o777, 0o600, "{exe}");

        // Another server that cannot start does not touch it.
        let mut second = Command::new(exe);
        second.arg("-p").arg(server.dir()).args(["-c", "nginx.conf", "-e", "second.log"]);
        assert_eq!(second.output().unwrap().status.code(), Some(1), "{exe}");
        assert_eq!(server.read("nginx.pid"), pid, "{exe}");

        let conf = server.read("nginx.conf");
        let reload_with = |pid: &str| {
            fs::write(file("nginx.conf"), conf.replace("/nginx.pid;", &format!("/{pid};")))
                .unwrap();
            server.signal("HUP");
        };
        reload_with("moved.pid");
        wait_until("the new pid file", || server.read("moved.pid") == pid);
        wait_until("the old pid file to go", || !file("nginx.pid").exists());
        assert_eq!(fs::metadata(file("moved.pid")).unwrap().mode() & 0o777, 0o644, "{exe}");
        assert!(!conf.contains("new"));
        fs::write(file("nginx.conf"), conf.replace("/nginx.pid", "/none/a").replace("old", "new"))
            .unwrap();
        server.signal("HUP");
        let line = server.wait_for_log("/none/a\" failed (2: No such file or directory)");
        assert!(line.contains("[emerg]"), "{exe}: {line}");
        assert_eq!(http::get(server.listen(0), "a", "/").text(), "old", "{exe}");
        assert_eq!(server.read("moved.pid"), pid, "{exe}");

        server.signal("TERM");
        wait_until("the end", || server.has_ended());
        assert!(!file("moved.pid").exists() && !file("none").exists(), "{exe}");
    }
}

/// A daemon of its own: [`Instance`] stays in the foreground.
#[test]
fn winch_to_a_daemon_is_told_to_be_in_vain() {
    let (dir, address) = (tempfile::tempdir().unwrap(), free_addr());
    let path = dir.path().display();
    let conf = format!(
        "pid {path}/pid; error_log {path}/error.log warn; events {{}} http {{ access_log off;
         server {{ listen {address}; location / {{ return 200 here; }} }} }}"
    );
    fs::write(dir.path().join("nginx.conf"), conf).unwrap();
    let conf = dir.path().join("nginx.conf");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(WSSGATE);
        command.arg("-c").arg(&conf).args(["-e", "stderr"]).args(arguments);
        command.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(run(&[]));
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    wait_until("the pid file", || read("pid").ends_with('\n'));
    let kill = Command::new("kill").args(["-WINCH", read("pid").trim()]).status();
    assert!(kill.unwrap().success());
    wait_until("the warning", || {
        read("error.log").contains("[warn]") && read("error.log").contains("SIGWINCH is ignored")
    });
    assert_eq!(http::get(address, "a", "/").text(), "here");
    assert!(run(&["-s", "stop"]));
    wait_until("the end", || !dir.path().join("pid").exists());
}

/// There are no worker processes. The number behind `#` in the log is a thread's, and a signal to it is one to the
/// whole server: unlike in nginx QUIT would end it.
#[test]
fn a_signal_to_a_thread_is_a_signal_to_the_server() {
    let server = start(WSSGATE, ANSWERS);
    http::get(server.listen(0), "a", "/");
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let numbers: Vec<String> =
        threads.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(numbers.len() > 1, "{numbers:?}");
    let last = numbers.iter().rfind(|number| **number != server.pid().to_string()).unwrap();
    assert!(Command::new("kill").args(["-USR1", last]).status().unwrap().success());
    server.wait_for_log("signal 10 (SIGUSR1) received from ");
    assert!(server.stop().success());
}
