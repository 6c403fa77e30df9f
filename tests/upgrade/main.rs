//! The program is replaced while it serves: by USR2 as nginx's operators know it, and by `wssgate upgrade`.
#![allow(clippy::unwrap_used)]

mod faults;
mod moving;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use wssgate_testkit::{
    Conn, GUARD, Handshake, Instance, NGINX, Upstream, free_addr, http, skipped, text, wait_until,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// Says which process answers, and carries WebSockets: some that move to the next one, and some that stay, for their
/// requests are needed.
const SERVER: &str = "server { listen %%LISTEN_0%%; location / { return 200 $pid; }
    location /ws { proxy_pass http://%%UP%%; } location /slow { proxy_pass http://%%SLOW%%; }
    location /stays { websocket_reauth 1h /auth; proxy_pass http://%%UP%%; }
    location = /auth { internal; return 204; } }";

/// A server and all that have replaced it, which end with the test. Its program is a link, so that others can be put
/// in its place.
struct Server {
    instance: Instance,
    programs: tempfile::TempDir,
}

impl Server {
    fn start(main: &str, http: &str, vars: &[(&str, String)]) -> Self {
        let programs = tempfile::tempdir().unwrap();
        // The user that root becomes has to get there.
        fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let link = programs.path().join("server");
        symlink(WSSGATE, &link).unwrap();
        let setup = Instance::setup(&link).main_and_http(main, http);
        let setup = vars.iter().fold(setup, |setup, (name, value)| setup.var(name, value));
        Self { instance: setup.start(), programs }
    }

    fn link(&self) -> PathBuf {
        self.programs.path().join("server")
    }

    /// From now on the path of the program leads to this file.
    fn install(&self, program: &Path) {
        let next = self.programs.path().join("next");
        symlink(program, &next).unwrap();
        fs::rename(next, self.link()).unwrap();
    }

    /// A program of its own that is a script.
    fn script(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.programs.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn pid_of(&self, file: &str) -> Option<u32> {
        fs::read_to_string(self.instance.dir().join(file)).ok()?.trim().parse().ok()
    }

    /// The process that the pid file names.
    fn pid(&self) -> Option<u32> {
        self.pid_of("nginx.pid")
    }

    fn old_pid(&self) -> Option<u32> {
        self.pid_of("nginx.pid.oldbin")
    }

    /// Waits until another process than `old` has the pid file, and accepts alone.
    #[track_caller]
    fn wait_for_successor(&self, old: u32) -> u32 {
        self.instance.wait_for_log(&format!("old process {old} accepts no more connections"));
        let pid = self.pid().unwrap();
        assert_ne!(pid, old);
        pid
    }

    /// `wssgate upgrade`.
    fn upgrade(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(WSSGATE);
        command.arg("upgrade").arg("-p").arg(self.instance.dir()).args(["-c", "nginx.conf"]);
        command.args(arguments).output().unwrap()
    }

    #[track_caller]
    fn answer(&self) -> String {
        http::get(self.instance.listen(0), "a", "/").text()
    }

    /// What the admin socket says who it is.
    #[track_caller]
    fn admin(&self) -> (String, u32) {
        let mut command = Command::new(WSSGATE);
        command.args(["ctl", "status", "--json", "-p"]).arg(self.instance.dir());
        let output = command.args(["-c", "nginx.conf"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let pid = u32::try_from(status["pid"].as_u64().unwrap()).unwrap();
        (status["phase"].as_str().unwrap().to_owned(), pid)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for pid in [self.pid(), self.old_pid()].into_iter().flatten() {
            // They may have ended.
            let _ = Command::new("kill").arg(pid.to_string()).status();
            let process = PathBuf::from(format!("/proc/{pid}"));
            if pid != self.instance.pid() && !thread::panicking() {
                wait_until("the end of a successor", || !process.exists());
            }
        }
    }
}

#[track_caller]
fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(status.unwrap().success(), "cannot send {signal} to {pid}");
}

#[track_caller]
fn echo(tunnel: &mut Conn, message: &str) {
    tunnel.send([text(message)]);
    tunnel.expect([text(message)]);
}

fn exists(pid: u32) -> bool {
    // Of those who are no children of ours nobody keeps the number.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Clients that come one after the other, each with a connection of its own, until they are told to end.
struct Clients {
    ends: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let (ends, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..3).map(|_| {
            let (ends, served) = (Arc::clone(&ends), Arc::clone(&served));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !ends.load(Ordering::Relaxed) {
                    match ask(address) {
                        Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(error),
                    }
                }
                failures
            })
        });
        Self { threads: threads.collect(), ends, served }
    }

    /// Waits until so many more were served.
    #[track_caller]
    fn wait_for_more(&self) {
        let until = self.served.load(Ordering::Relaxed) + 30;
        wait_until("clients to be served", || self.served.load(Ordering::Relaxed) >= until);
    }

    #[track_caller]
    fn end(self) {
        self.end_but_for(|_| false);
    }

    /// The same where it is no fault that some were served to no end.
    #[track_caller]
    fn end_but_for(self, is_no_fault: impl Fn(&str) -> bool) {
        self.ends.store(true, Ordering::Relaxed);
        let failures = self.threads.into_iter().flat_map(|thread| thread.join().unwrap());
        let failures: Vec<_> = failures.filter(|failure| !is_no_fault(failure)).collect();
        assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), failures.first());
    }
}

fn ask(address: SocketAddr) -> Result<(), String> {
    let told = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let mut client = Conn::try_connect(address).map_err(|error| told("connect", error))?;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.try_send_raw(request).map_err(|error| told("send", error))?;
    let response = client.try_recv_response("GET").map_err(|error| told("receive", error))?;
    (response.status == 200).then_some(()).ok_or_else(|| format!("{response:?}"))
}

/// USR2, a look, QUIT: what scripts do. The main thread has given up root, where the tests run as root.
#[test]
fn nobody_is_refused_while_the_program_is_replaced() {
    let upstream = Upstream::echo();
    let gate = Arc::new(wssgate_testkit::Gate::new());
    let waiting = Arc::clone(&gate);
    let slow = Upstream::http(move |_| {
        waiting.wait();
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"
    });
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", slow.addr().to_string())];
    let server = Server::start("worker_processes 2;", SERVER, &vars);
    let (address, old) = (server.instance.listen(0), server.pid().unwrap());
    let mut tunnels = ["/ws", "/stays"].map(|path| Handshake::to(address).path(path).open());
    let mut request = Conn::connect(address);
    request.send_raw("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.next_request();
    let mut idle = Conn::connect(address);
    idle.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.recv_response().text(), old.to_string());
    let clients = Clients::start(address);
    clients.wait_for_more();
    kill("USR2", old);
    let new = server.wait_for_successor(old);
    assert_eq!(server.old_pid(), Some(old));
    idle.expect_eof();
    for _ in 0..8 {
        assert_eq!(server.answer(), new.to_string());
    }
    clients.wait_for_more();
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "before"));
    kill("QUIT", server.old_pid().unwrap());
    clients.wait_for_more();
    gate.open();
    let response = request.recv_response();
    assert_eq!((response.text(), response.field("connection")), ("slow".into(), Some("close")));
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "after"));
    assert!(exists(old));
    let [mut moved, stays] = tunnels;
    drop(stays);
    wait_until("the end of the old process", || !exists(old) && server.old_pid().is_none());
    echo(&mut moved, "and on");
    clients.wait_for_more();
    clients.end();
    let log = server.instance.error_log();
    assert!(!log.contains("[alert]") && !log.contains("[crit]"), "{log}");
}

#[test]
fn without_quit_the_old_process_ends_with_its_last_tunnel() {
    let upstream = Upstream::echo();
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", upstream.addr().to_string())];
    let server = Server::start("", SERVER, &vars);
    let old = server.pid().unwrap();
    let handshake = Handshake::to(server.instance.listen(0));
    let mut tunnels = ["/ws", "/ws", "/stays"].map(|path| handshake.clone().path(path).open());
    let output = server.upgrade(&[]);
    let (told, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    let new = server.wait_for_successor(old);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        told,
        format!(
            "process {old} runs wssgate {version}\n{} accepts its configuration\n\
             process {new} runs wssgate {version} in its place: 1 listening socket inherited\n\
             2 tunnels have moved to it\n\
             process {old} has 1 connection left, among them 1 tunnel, and ends with the last one\n",
            server.link().display()
        )
    );
    server.instance.wait_for_log(
        "1 tunnel stays in this process: its client is asked about again (websocket_reauth)",
    );
    assert_eq!(server.admin(), ("serving".to_owned(), new));
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "still"));
    assert!(exists(old));
    let [mut first, mut second, stays] = tunnels;
    drop(stays);
    wait_until("the end of the old process", || !exists(old) && server.old_pid().is_none());
    echo(&mut first, "still");
    echo(&mut second, "still");
    assert_eq!(server.answer(), new.to_string());
    assert_eq!(server.admin().1, new, "its path is left to the new one");
}

/// It has no connection left by then, and nothing else to wait for; and who answers gives way to all others on a busy
/// machine.
#[test]
fn who_asks_for_an_upgrade_is_answered_before_the_old_process_ends() {
    let server =
        Server::start("", "server { listen %%LISTEN_0%%; location / { return 200 $pid; } }", &[]);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let failed = (0..8).find_map(|_| {
            let output = server.upgrade(&[]);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            (!output.status.success()).then_some(told)
        });
        ends.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
    });
}

#[test]
fn what_cannot_take_over_changes_nothing_and_says_why() {
    let server =
        Server::start("", "server { listen %%LISTEN_0%%; location / { return 200 $pid; } }", &[]);
    let old = server.pid().unwrap();
    let conf = server.instance.read("nginx.conf");
    let dying = server.script("dying", "#!/bin/sh\nexit 3\n", 0o755);
    let silent = server.script("silent", "#!/bin/sh\nexit 0\n", 0o755);
    let killed = server.script("killed", "#!/bin/sh\n[ \"$7\" = -t ] || kill -9 $$\n", 0o755);
    let plain = server.script("plain", "no program", 0o644);
    let none = server.programs.path().join("none");
    let clients = Clients::start(server.instance.listen(0));
    for (count, (program, wrong, expected)) in [
        (&*none, false, "(2: No such file or directory)"),
        (&plain, false, "(13: Permission denied)"),
        (&dying, false, "exited with code 3"),
        (&silent, false, "exited with code 0"),
        (&killed, false, "exited on signal 9"),
        (Path::new(WSSGATE), true, "exited with code 1: unknown directive \"wrong\""),
    ]
    .into_iter()
    .enumerate()
    {
        server.install(program);
        if wrong {
            fs::write(server.instance.dir().join("nginx.conf"), format!("{conf}\nwrong;")).unwrap();
        }
        kill("USR2", old);
        let line = server.instance.wait_for_log(expected);
        assert!(line.contains("[alert]") && line.contains("new binary process"), "{line}");
        wait_until("the pid file", || server.pid() == Some(old) && server.old_pid().is_none());
        // The same by command: told to whoever asks.
        let output = server.upgrade(&["--binary", &program.display().to_string()]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.lines().last().unwrap().starts_with("wssgate upgrade: "), "{told}");
        assert_eq!(server.pid(), Some(old), "case {count}");
        assert_eq!(server.answer(), old.to_string());
        assert_eq!(server.admin(), ("serving".to_owned(), old));
    }
    let output = server.upgrade(&["--binary", &killed.display().to_string()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("exited on signal 9: nothing was upgraded, process "), "{told}");
    clients.wait_for_more();
    clients.end();
    fs::write(server.instance.dir().join("nginx.conf"), conf).unwrap();
    server.install(Path::new(WSSGATE));
    kill("USR2", old);
    let new = server.wait_for_successor(old);
    assert_eq!(server.answer(), new.to_string());
}

/// TERM to the new process, also where both have a Unix socket, where `worker_shutdown_timeout` or `websocket_drain` has
/// ended what the old one had, and where it does not know the new one's configuration.
#[test]
fn the_old_process_accepts_again_when_the_new_one_ends() {
    let upstream = Upstream::echo();
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", upstream.addr().to_string())];
    for (main, drain) in
        [("", ""), ("worker_shutdown_timeout 10ms;", ""), ("", "websocket_drain 100ms;")]
    {
        let http = format!("{drain} {SERVER} server {{ listen unix:%%DIR%%/s; return 200 $pid; }}");
        let server = Server::start(main, &http, &vars);
        let conf = server.instance.read("nginx.conf");
        let configure = |text: &str| fs::write(server.instance.dir().join("nginx.conf"), text);
        let (address, old) = (server.instance.listen(0), server.pid().unwrap());
        let mut tunnel = Handshake::to(address).path("/stays").open();
        let clients = Clients::start(address);
        for signal in ["TERM", "QUIT", "KILL"] {
            let upgrades = server.instance.error_log().matches("accepts no more").count();
            kill("USR2", old);
            wait_until("the upgrade", || {
                server.instance.error_log().matches("accepts no more").count() > upgrades
            });
            let new = server.pid().unwrap();
            if main.is_empty() && drain.is_empty() {
                echo(&mut tunnel, "still");
            } else if signal == "TERM" {
                tunnel.recv_to_end();
            }
            configure(&format!("{conf}\nunknown to the old one;")).unwrap();
            kill(signal, new);
            wait_until("the old process to be the one again", || {
                server.pid() == Some(old) && server.old_pid().is_none()
            });
            assert_eq!(server.answer(), old.to_string());
            assert_eq!(server.admin(), ("serving".to_owned(), old));
            assert!(UnixStream::connect(server.instance.dir().join("s")).is_ok());
            // What comes now is not closed by the end of the time before.
            let mut another = Handshake::to(address).path("/ws").open();
            for _ in 0..10 {
                echo(&mut another, "new");
            }
            assert!(!server.instance.error_log().contains("unknown"), "nobody has read it");
            configure(&conf).unwrap();
        }
        clients.wait_for_more();
        // What the new one had begun ended with it; but nobody was refused.
        clients.end_but_for(|failure| !failure.starts_with("connect"));
    }
}

#[test]
fn hup_to_the_old_process_makes_both_accept_and_quit_to_the_new_one_ends_the_upgrade() {
    let server =
        Server::start("", "server { listen %%LISTEN_0%%; location / { return 200 $pid; } }", &[]);
    let old = server.pid().unwrap();
    let clients = Clients::start(server.instance.listen(0));
    kill("USR2", old);
    let new = server.wait_for_successor(old);
    kill("HUP", old);
    server.instance.wait_for_log(&format!("old process {old} accepts connections again"));
    wait_until("the old one", || server.answer() == old.to_string());
    // While both accept neither is replaced.
    for pid in [old, new] {
        kill("USR2", pid);
    }
    server
        .instance
        .wait_for_log(&format!("is ignored: new binary process {new} is running already"));
    server.instance.wait_for_log(&format!("is ignored: process {old}, which this one replaces"));
    kill("QUIT", new);
    server.instance.wait_for_log(&format!("new binary process {new} exited with code 0"));
    wait_until("the pid file", || server.pid() == Some(old) && server.old_pid().is_none());
    assert_eq!(server.answer(), old.to_string());
    clients.wait_for_more();
    clients.end();
}

/// The number of sockets stays, that of those who accept on them does not. Each upgrade makes the one before it final.
#[test]
fn one_upgrade_may_follow_the_other_with_other_numbers_of_workers() {
    let server = Server::start(
        "worker_processes 3;",
        "server { listen %%LISTEN_0%%; return 200 $pid; }",
        &[],
    );
    let address = server.instance.listen(0);
    let conf = server.instance.read("nginx.conf");
    let clients = Clients::start(address);
    let mut pids = vec![server.pid().unwrap()];
    for workers in [1, 5, 2, 3] {
        let next = format!("worker_processes {workers};");
        fs::write(
            server.instance.dir().join("nginx.conf"),
            conf.replace("worker_processes 3;", &next),
        )
        .unwrap();
        let old = *pids.last().unwrap();
        kill("USR2", old);
        let new = server.wait_for_successor(old);
        assert!(!pids.contains(&new));
        if let Some(&before) = pids.iter().rev().nth(1) {
            // It did not wait for its 30 seconds.
            wait_until("the end of the one before", || !exists(before));
        }
        clients.wait_for_more();
        // Each of the three queues.
        for _ in 0..20 {
            assert_eq!(server.answer(), new.to_string(), "{workers} workers");
        }
        pids.push(new);
    }
    clients.end();
}

/// A third program that does not start costs nothing: the second one serves, and the first one still can.
#[test]
fn a_refused_second_upgrade_leaves_the_first_one_to_be_rolled_back() {
    let upstream = Upstream::echo();
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", upstream.addr().to_string())];
    let http = format!("{SERVER} server {{ listen unix:%%DIR%%/s; return 200 $pid; }}");
    let server = Server::start("", &http, &vars);
    let (address, first) = (server.instance.listen(0), server.pid().unwrap());
    let mut tunnel = Handshake::to(address).path("/stays").open();
    kill("USR2", first);
    let second = server.wait_for_successor(first);
    server.install(&server.script("dying", "#!/bin/sh\nexit 3\n", 0o755));
    kill("USR2", second);
    server.instance.wait_for_log("exited with code 3");
    wait_until("the pid files", || (server.pid(), server.old_pid()) == (Some(second), Some(first)));
    assert_eq!(server.answer(), second.to_string());
    kill("TERM", second);
    wait_until("the rollback", || (server.pid(), server.old_pid()) == (Some(first), None));
    assert_eq!(server.answer(), first.to_string());
    echo(&mut tunnel, "still");
    // Nor has one that does start anything to fear from the ends of those before.
    server.install(Path::new(WSSGATE));
    kill("USR2", first);
    let gave_way = |pid: u32| {
        let line = format!("old process {pid} accepts no more");
        server.instance.error_log().matches(&line).count()
    };
    wait_until("the upgrade", || gave_way(first) == 2);
    let second = server.pid().unwrap();
    kill("USR2", second);
    let third = server.wait_for_successor(second);
    server.instance.wait_for_log("the process that replaced this one is replaced itself");
    assert_eq!((server.pid(), server.old_pid()), (Some(third), Some(second)));
    kill("TERM", second);
    server.instance.wait_for_log(&format!("new binary process {second} exited with code 0"));
    wait_until("the second pid file to go", || server.old_pid().is_none());
    assert_eq!((server.pid(), server.admin()), (Some(third), ("serving".to_owned(), third)));
    echo(&mut tunnel, "still");
    assert!(exists(first));
    drop(tunnel);
    wait_until("the end of the first", || !exists(first));
    assert!(UnixStream::connect(server.instance.dir().join("s")).is_ok());
    assert_eq!((server.pid(), server.admin()), (Some(third), ("serving".to_owned(), third)));
    let log = server.instance.error_log();
    assert_eq!(log.matches("[alert]").count(), 1, "{log}");
}

#[test]
fn addresses_may_come_and_go_with_the_new_program() {
    let server = Server::start(
        "",
        "server { listen %%LISTEN_0%%; listen %%LISTEN_1%%; location / { return 200 $pid; } }",
        &[],
    );
    let (old, gone, more) = (server.pid().unwrap(), server.instance.listen(1), free_addr());
    let conf = server.instance.read("nginx.conf").replace(&gone.to_string(), &more.to_string());
    fs::write(server.instance.dir().join("nginx.conf"), conf).unwrap();
    kill("USR2", old);
    let new = server.wait_for_successor(old);
    assert_eq!(http::get(more, "a", "/").text(), new.to_string());
    kill("QUIT", old);
    wait_until("the address to close", || Conn::try_connect(gone).is_err());
    assert_eq!(server.answer(), new.to_string());
}

/// What root's process may do, the one that replaces it may do as well: it is not root.
#[test]
fn a_successor_has_what_the_main_thread_has_kept_and_its_workers_have_nothing() {
    if !wssgate_sys::privileges::is_root() {
        skipped("needs root");
        return;
    }
    let server = Server::start(
        "user nobody nogroup; worker_processes 2;",
        "server { listen %%LISTEN_0%%; location / { return 200 $pid; } }",
        &[],
    );
    let old = server.pid().unwrap();
    kill("USR2", old);
    let new = server.wait_for_successor(old);
    let low = (700..1000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let low = low.into_iter().find(|low| std::net::TcpListener::bind(low).is_ok()).unwrap();
    let conf = server.instance.read("nginx.conf");
    let conf =
        conf.replace("server {", &format!("server {{ listen {low}; access_log %%DIR%%/low.log;"));
    let conf = conf.replace("%%DIR%%", &server.instance.dir().display().to_string());
    fs::write(server.instance.dir().join("nginx.conf"), conf).unwrap();
    kill("HUP", new);
    server.instance.wait_for_log("reconfigured, generation 2");
    assert_eq!(http::get(low, "a", "/").text(), new.to_string());
    use std::os::unix::fs::MetadataExt;
    let owner = |name: &str| fs::metadata(server.instance.dir().join(name)).unwrap().uid();
    assert_eq!(owner("low.log"), 65_534, "logs belong to the user");
    assert_eq!(owner("nginx.admin.sock"), 0, "the admin socket is root's");
    let mut kept = Vec::new();
    for task in fs::read_dir(format!("/proc/{new}/task")).unwrap() {
        let task = task.unwrap();
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        assert!(field("Uid:").split_whitespace().all(|uid| uid == "65534"), "{status}");
        assert_eq!((field("CapInh:"), field("CapAmb:")), ("0".repeat(16), "0".repeat(16)));
        match u64::from_str_radix(&field("CapEff:"), 16).unwrap() {
            0 => {}
            some => kept.push((task.file_name().into_string().unwrap(), some)),
        }
    }
    assert_eq!(kept, [(new.to_string(), 1 << 0 | 1 << 1 | 1 << 10)]);
    // And so may the next one.
    kill("USR2", new);
    let next = server.wait_for_successor(new);
    assert_eq!(http::get(low, "a", "/").text(), next.to_string());
}

/// Nobody is to win by it: what root's process leaves behind stays root's, and so does the say over it.
#[test]
fn a_user_that_changed_changes_nothing_before_a_restart() {
    if !wssgate_sys::privileges::is_root() {
        skipped("needs root");
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let sites = "server { listen %%LISTEN_0%%; location / { return 200 $pid; } }";
    let admin = "admin unix:%%DIR%%/a.sock mode=0666;";
    for next in ["user nobody nogroup;", ""] {
        let server = Server::start(&format!("user daemon daemon; {admin}"), sites, &[]);
        let old = server.pid().unwrap();
        let conf = server.instance.read("nginx.conf").replace("user daemon daemon;", next);
        fs::write(server.instance.dir().join("nginx.conf"), &conf).unwrap();
        kill("USR2", old);
        let new = server.wait_for_successor(old);
        let expected = "the process stays that of user \"daemon\": another \"user\" takes effect";
        assert!(server.instance.error_log().contains(expected), "{}", server.instance.error_log());
        let owner = |name: &str| fs::metadata(server.instance.dir().join(name)).unwrap().uid();
        assert_eq!((owner("a.sock"), owner("nginx.pid")), (0, 0), "{next}");
        // It would run with capabilities that this user has not.
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "daemon", "--regid", "daemon", "--clear-groups"]).arg(WSSGATE);
        command.args(["upgrade", "--binary", "/bin/true", "--socket"]);
        let output = command.arg(server.instance.dir().join("a.sock")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("only root and the user that started the server may"), "{told}");
        let pid = server.instance.dir().join("other.pid");
        let conf = conf.replace(
            &format!("pid {}", server.instance.dir().join("nginx.pid").display()),
            &format!("pid {}", pid.display()),
        );
        fs::write(server.instance.dir().join("nginx.conf"), &conf).unwrap();
        kill("HUP", new);
        server.instance.wait_for_log("reconfigured, generation 2");
        assert_eq!(fs::read_to_string(&pid).unwrap(), format!("{new}\n"));
        assert_eq!((owner("a.sock"), owner("other.pid")), (0, 0), "{next}");
        kill("QUIT", new);
        wait_until("the end", || !exists(new));
    }
}

/// What nginx's init scripts do: they look for both pid files, signal what is in them, and want no error.
#[test]
fn a_daemon_is_replaced_by_a_script_and_waits_after_winch() {
    let (dir, address) = (tempfile::tempdir().unwrap(), free_addr());
    let path = dir.path().display();
    let conf = format!(
        "user root; pid {path}/nginx.pid; error_log {path}/error.log notice; events {{}}
         http {{ access_log off; server {{ listen {address}; location / {{ return 200 $pid; }} }} }}"
    );
    fs::write(dir.path().join("nginx.conf"), conf).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(WSSGATE);
        // A relative path, from a directory that is not the one of the test.
        command.current_dir(dir.path()).args(["-p", ".", "-c", "nginx.conf", "-e", "error.log"]);
        command.args(arguments).output().unwrap()
    };
    assert!(run(&[]).status.success());
    let _ends = PidFiles(dir.path().to_owned());
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    wait_until("the pid file", || read("nginx.pid").ends_with('\n'));
    let script = "set -e; cd \"$1\"
        kill -USR2 $(cat nginx.pid)
        while [ ! -s nginx.pid.oldbin ] || [ ! -s nginx.pid ]; do sleep 0.01; done
        kill -QUIT $(cat nginx.pid.oldbin)";
    let first = read("nginx.pid");
    let script = Command::new("sh").args(["-c", script, "sh"]).arg(dir.path()).status().unwrap();
    assert!(script.success());
    wait_until("the end of the old process", || {
        !read("error.log").is_empty() && !exists(number(&first))
    });
    let second = read("nginx.pid");
    assert_ne!(first, second);
    assert_eq!(http::get(address, "a", "/").text(), second.trim());
    // No terminal and no parent that would wait for it.
    kill("USR2", number(&second));
    let given_way = || {
        let line = format!("old process {} accepts no more", second.trim());
        read("error.log").matches(&line).count()
    };
    wait_until("the upgrade", || given_way() == 1);
    kill("WINCH", number(&second));
    wait_until("WINCH", || given_way() == 2);
    kill("HUP", number(&second));
    wait_until("the rollback", || read("error.log").contains("accepts connections again"));
    kill("WINCH", number(&second));
    wait_until("WINCH", || given_way() == 3);
    let third = read("nginx.pid");
    assert_eq!(http::get(address, "a", "/").text(), third.trim());
    kill("QUIT", number(&second));
    wait_until("the end of the old process", || !exists(number(&second)));
    assert!(run(&["-s", "stop"]).status.success());
    wait_until("the end", || !exists(number(&third)));
    // The process that listens first on the admin socket is the one that puts the server into the background.
    assert!(run(&[]).status.success());
    wait_until("the pid file", || read("nginx.pid").ends_with('\n'));
    let fourth = read("nginx.pid");
    let mut command = Command::new(WSSGATE);
    command.current_dir(dir.path()).args(["upgrade", "-p", ".", "-c", "nginx.conf"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_until("the end of the old process", || !exists(number(&fourth)));
    let fifth = read("nginx.pid");
    assert!(run(&["-s", "stop"]).status.success());
    wait_until("the end", || !exists(number(&fifth)));
    assert!(!dir.path().join("nginx.pid").exists());
}

#[track_caller]
fn number(text: &str) -> u32 {
    text.trim().parse().unwrap()
}

/// The next notification, as its lines.
fn next(manager: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 1024];
    let len = manager.recv(&mut buffer).expect("a notification");
    String::from_utf8_lossy(&buffer[..len]).lines().map(str::to_owned).collect()
}

/// With `NotifyAccess=main` a manager listens to nobody but the process that it takes for the service; so that one
/// says who it is next, and is silent from then on.
#[test]
fn a_service_manager_hears_who_the_service_is_from_the_one_that_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(GUARD)).unwrap();
    let programs = tempfile::tempdir().unwrap();
    let setup = Instance::setup(WSSGATE).http("server { listen %%LISTEN_0%%; return 200 $pid; }");
    let socket = directory.path().join("notify").display().to_string();
    let server = Server { instance: setup.env("NOTIFY_SOCKET", &socket).start(), programs };
    let old = server.pid().unwrap();
    assert!(next(&manager).contains(&format!("MAINPID={old}")));
    kill("USR2", old);
    let new = server.wait_for_successor(old);
    let main = format!("MAINPID={new}");
    // One from the old process, and one from the new one, which is believed then.
    for status in ["STATUS=serving", "STATUS=serving"] {
        assert_eq!(next(&manager), ["READY=1", &*main, status]);
    }
    kill("HUP", old);
    let status = format!("STATUS=old process {old} accepts connections again");
    assert_eq!(next(&manager), ["READY=1".to_owned(), format!("MAINPID={old}"), status]);
    kill("QUIT", new);
    assert_eq!(next(&manager)[..2], ["READY=1".to_owned(), format!("MAINPID={old}")]);
    kill("USR2", old);
    wait_until("the second upgrade", || server.pid().is_some_and(|pid| pid != old && pid != new));
    let main = next(&manager).swap_remove(1);
    assert_ne!(main, format!("MAINPID={old}"));
    assert_eq!(next(&manager)[1], main);
    // Back, and forth again.
    kill("HUP", old);
    assert_eq!(next(&manager)[1], format!("MAINPID={old}"));
    kill("QUIT", old);
    assert_eq!(next(&manager)[1], main);
    assert_eq!(next(&manager)[1], main);
    wait_until("the end of the old process", || !exists(old));
    kill("TERM", server.pid().unwrap());
    // Nothing of an old process that stops: the service does not.
    assert_eq!(next(&manager)[..], ["STOPPING=1", "STATUS=closing all connections"]);
}

/// A server that is the first process of its PID namespace, as in a container.
struct Container {
    dir: tempfile::TempDir,
    address: SocketAddr,
    process: std::process::Child,
}

impl Container {
    /// None where it cannot be.
    fn start(http: &str) -> Option<Self> {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        if !Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "true"])
            .status()
            .is_ok_and(|done| done.success())
        {
            skipped("needs root and unshare");
            return None;
        }
        let (dir, address) = (tempfile::tempdir().unwrap(), free_addr());
        let path = dir.path().display();
        let conf = format!(
            "daemon off; user root; pid {path}/nginx.pid; error_log {path}/error.log notice;
             events {{}} http {{ access_log off;
             server {{ listen {address}; location / {{ return 200 $pid; }} {http} }} }}"
        );
        fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        command.arg(WSSGATE).arg("-p").arg(dir.path()).args(["-c", "nginx.conf"]);
        let this =
            Self { process: command.args(["-e", "error.log"]).spawn().unwrap(), dir, address };
        wait_until("the start", || this.log().contains(" started"));
        Some(this)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }

    /// The first process.
    fn first(&self) -> u32 {
        let id = self.process.id();
        number(&fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap())
    }

    #[track_caller]
    fn answer(&self) -> String {
        http::get(self.address, "a", "/").text()
    }

    /// `wssgate upgrade` of whoever serves, from within; the process that does then.
    #[track_caller]
    fn upgrade(&self) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--pid", "--mount", "--target", &self.first().to_string(), "--"]);
        command.args([WSSGATE, "upgrade", "-c", "nginx.conf", "-p"]).arg(self.dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.answer()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- error.log\n{}---", self.log());
        }
    }
}

/// It ends last, and passes signals on.
#[test]
fn the_first_process_of_a_container_stays_for_its_successor() {
    let upstream = Upstream::echo();
    let sites = format!("location /ws {{ proxy_pass http://{}; }}", upstream.addr());
    let Some(mut container) = Container::start(&sites) else { return };
    assert_eq!(container.answer(), "1");
    let mut tunnel = Handshake::to(container.address).path("/ws").open();
    // From outside it has another number, which may be anybody's inside.
    let mut outside = Command::new(WSSGATE);
    outside.args(["upgrade", "-c", "nginx.conf", "-p"]).arg(container.dir.path());
    let output = outside.output().unwrap();
    let (told, first) = (String::from_utf8_lossy(&output.stderr), container.first());
    assert!(told.contains(&format!("it is process 1, and is {first} here")), "{told}");
    let second = container.upgrade();
    assert_ne!(second, "1");
    wait_until("the first to stay", || {
        container.log().contains(&format!("stays as the parent of process {second}"))
    });
    // The next one is no child of it, until its own parent has ended.
    kill("USR2", container.first());
    let given_way = format!("old process {second} accepts no more");
    wait_until("the second upgrade", || container.log().contains(&given_way));
    let third = container.answer();
    assert!(third != second && third != "1");
    // It has come along, and is what the last one waits for.
    let moved = format!("1 tunnel taken over from old process {second}");
    wait_until("the tunnel", || container.log().contains(&moved));
    kill("QUIT", container.first());
    wait_until("the address to close", || Conn::try_connect(container.address).is_err());
    echo(&mut tunnel, "in the third");
    drop(tunnel);
    assert!(container.process.wait().unwrap().success());
    assert!(Conn::try_connect(container.address).is_err());
}

/// It has still connections then, and is sent what ends a container.
#[test]
fn a_container_ends_when_its_first_process_is_told_to_that_was_replaced() {
    let upstream = Upstream::echo();
    let sites = format!(
        "location /stays {{ websocket_reauth 1h /auth; proxy_pass http://{}; }}
         location = /auth {{ internal; return 204; }}",
        upstream.addr()
    );
    for (signal, replacements) in [("TERM", 1), ("QUIT", 1), ("TERM", 2), ("QUIT", 2)] {
        let Some(mut container) = Container::start(&sites) else { return };
        let mut tunnel = Handshake::to(container.address).path("/stays").open();
        let mut serves = container.upgrade();
        for _ in 1..replacements {
            // The first one still has the tunnel; the second one has nothing, and ends.
            let next = container.upgrade();
            let ended = format!("new binary process {serves} exited with code 0");
            wait_until("the end of the second", || container.log().contains(&ended));
            serves = next;
        }
        assert_ne!(serves, "1");
        if replacements == 2 && signal == "QUIT" {
            // Nor does the container end with the first one.
            drop(tunnel);
            wait_until("the first to stay", || container.log().contains("stays as the parent of"));
            assert_eq!(container.answer(), serves);
            kill("QUIT", container.first());
        } else {
            kill(signal, container.first());
            if signal == "TERM" {
                tunnel.recv_to_end();
            } else {
                wait_until("the address to close", || {
                    Conn::try_connect(container.address).is_err()
                });
                echo(&mut tunnel, "still");
                drop(tunnel);
            }
        }
        assert!(container.process.wait().unwrap().success(), "{signal} {replacements}");
        assert!(Conn::try_connect(container.address).is_err());
    }
}

/// Sockets and pid files pass between nginx and us as between two nginx, if operators send the signals.
#[test]
fn nginx_is_replaced_and_replaces_in_turn() {
    if !Path::new(NGINX).exists() {
        skipped("no nginx");
        return;
    }
    let (dir, address) = (tempfile::tempdir().unwrap(), free_addr());
    let path = dir.path().display();
    let conf = format!(
        "user root; worker_processes 2; pid {path}/nginx.pid; error_log {path}/error.log notice;
         events {{}} http {{ access_log off;
         server {{ listen {address} reuseport; location / {{ return 200 nginx/$nginx_version; }} }} }}"
    );
    fs::write(dir.path().join("nginx.conf"), conf).unwrap();
    let program = dir.path().join("server");
    let install = |file: &str| {
        let _ = fs::remove_file(&program);
        symlink(file, &program).unwrap();
    };
    install(NGINX);
    let mut command = Command::new(&program);
    command.arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
    // In the foreground nginx ignores USR2.
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let _ends = PidFiles(dir.path().to_owned());
    let pid = || fs::read_to_string(dir.path().join("nginx.pid")).unwrap_or_default();
    wait_until("nginx", || pid().ends_with('\n') && Conn::try_connect(address).is_ok());
    let clients = Clients::start(address);
    // A signal that comes before its workers is forgotten.
    clients.wait_for_more();
    let replace = |file: &str, mark: &str| {
        let old = pid();
        install(file);
        kill("USR2", number(&old));
        wait_until("the new program", || {
            let new = pid();
            new.ends_with('\n') && new != old && is_program(number(&new), mark)
        });
        // It is there when it serves.
        clients.wait_for_more();
        kill("QUIT", number(&old));
        old
    };
    let first = replace(WSSGATE, "wssgate");
    wait_until("the end of nginx", || !exists(number(&first)));
    clients.wait_for_more();
    let second = replace(NGINX, "nginx");
    wait_until("the end of wssgate", || !exists(number(&second)));
    clients.wait_for_more();
    clients.end();
    let third = pid();
    kill("QUIT", number(&third));
    wait_until("the end of nginx", || !exists(number(&third)));
}

/// Ends those who have left their numbers in a directory.
struct PidFiles(PathBuf);

impl Drop for PidFiles {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.0.join("error.log"));
            eprintln!("--- error.log\n{}---", log.unwrap_or_default());
        }
        for name in ["nginx.pid", "nginx.pid.oldbin"] {
            if let Ok(pid) = fs::read_to_string(self.0.join(name)) {
                // It may have ended.
                let _ = Command::new("kill").arg(pid.trim()).status();
            }
        }
    }
}

/// Whether a process runs a program whose file has this name.
fn is_program(pid: u32, name: &str) -> bool {
    let file = fs::read_link(format!("/proc/{pid}/exe"));
    file.is_ok_and(|file| file.file_name().is_some_and(|file| file == name))
}
