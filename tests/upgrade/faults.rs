//! Upgrades in which one of the two processes hangs, or is told to end at the wrong moment.

use std::fs::File;
use std::io::Write as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use wssgate_testkit::{Gate, close};

use super::*;

/// How much a process may work that has nothing to do, in hundredths of a second.
const IDLE: u64 = 20;

/// A process that stands still; it goes on at the latest when the test ends, so that it can end too.
struct Stopped(u32);

impl Stopped {
    #[track_caller]
    fn stop(pid: u32) -> Self {
        kill("STOP", pid);
        let this = Self(pid);
        wait_until("all threads to stand still", || {
            tasks(pid).all(|task| state(&task) == Some('T'))
        });
        this
    }

    #[track_caller]
    fn go_on(self) {
        kill("CONT", self.0);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended, or go on already.
        let _ = Command::new("kill").args(["-CONT", &self.0.to_string()]).status();
    }
}

/// The directories of its threads.
fn tasks(pid: u32) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path())
}

/// The first letter of its state, and what follows in `stat`.
fn stat(task: &Path) -> Option<String> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

fn state(task: &Path) -> Option<char> {
    stat(task)?.chars().next()
}

/// The time that a process has worked, in hundredths of a second.
fn worked(pid: u32) -> u64 {
    let stat = stat(Path::new(&format!("/proc/{pid}"))).unwrap();
    // utime and stime are the 14th and 15th field of all, and the state is the third.
    stat.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// A new process that has said who it is, and reads a configuration that has no end yet.
struct Begun<'s> {
    server: &'s Server,
    old: u32,
    new: u32,
    rest: Option<File>,
}

impl<'s> Begun<'s> {
    /// By USR2.
    #[track_caller]
    fn start(server: &'s Server) -> Self {
        let pipe = server.instance.dir().join("rest.conf");
        let mkfifo = Command::new("mkfifo").args(["-m", "644"]).arg(&pipe).status();
        assert!(mkfifo.unwrap().success());
        server.change("events", "include rest.conf; events");
        let old = server.pid().unwrap();
        kill("USR2", old);
        let new = started(server);
        let (told, opened) = mpsc::channel();
        // That waits for a reader.
        thread::spawn(move || told.send(File::options().write(true).open(pipe)));
        let rest = opened.recv_timeout(GUARD).expect("nobody reads").unwrap();
        // Others who read it are not to wait.
        server.change("include rest.conf; ", "");
        wait_for_sleep(old);
        Self { server, old, new, rest: Some(rest) }
    }

    /// Lets it go on, with this at the end of its configuration.
    fn release(&mut self, rest: &str) {
        self.rest.take().unwrap().write_all(rest.as_bytes()).unwrap();
    }

    /// Has it serve while the old process stands still, which so finds what it has said beside whatever else comes.
    #[track_caller]
    fn serve_unheard(&mut self) -> Stopped {
        let old = Stopped::stop(self.old);
        self.release("");
        wait_until("the pid file", || self.server.pid() == Some(self.new));
        // It obeys once it has said that it is ready.
        kill("USR1", self.new);
        let (from, line) = (format!(" {}#", self.new), "(SIGUSR1) received");
        wait_until("the new process", || {
            let log = self.server.instance.error_log();
            log.lines().any(|told| told.contains(&from) && told.contains(line))
        });
        old
    }

    /// Has the old process give way to one that answers nothing: tunnels are on their way, and nobody serves them.
    #[track_caller]
    fn hang(&mut self) -> Stopped {
        let old = self.serve_unheard();
        let new = Stopped::stop(self.new);
        old.go_on();
        let line = format!("new binary process {}, wssgate", self.new);
        self.server.instance.wait_for_log(&line);
        new
    }

    /// Until the old process has given up.
    #[track_caller]
    fn wait_for_failure(&self) {
        let line = format!("no more tunnels move to new binary process {}: ", self.new);
        self.server.instance.wait_for_log(&line);
    }
}

/// The process that a server has started.
#[track_caller]
fn started(server: &Server) -> u32 {
    let line = server.instance.wait_for_log("start new binary process ");
    number(line.rsplit(' ').next().unwrap())
}

/// Until a main thread has done all that there was to do.
#[track_caller]
fn wait_for_sleep(pid: u32) {
    let main = PathBuf::from(format!("/proc/{pid}/task/{pid}"));
    wait_until("a process to wait", || state(&main) == Some('S'));
}

fn start(main: &str, http: &str, upstream: &Upstream) -> Server {
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", upstream.addr().to_string())];
    Server::start(main, &format!("{http} {SERVER}"), &vars)
}

/// Tunnels that have talked.
#[track_caller]
fn open(server: &Server, path: &str, count: usize) -> Vec<Conn> {
    let handshake = Handshake::to(server.instance.listen(0)).path(path);
    let mut tunnels: Vec<_> = (0..count).map(|_| handshake.open()).collect();
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "before"));
    tunnels
}

/// Whether it still talks.
fn echoes(tunnel: &mut Conn, message: &str) -> bool {
    let sent = tunnel.try_send([text(message)]);
    sent.is_ok() && tunnel.try_recv().is_ok_and(|frame| frame == text(message))
}

/// Each is closed with its Close; the pace is not of interest.
#[track_caller]
fn expect_drain(tunnels: Vec<Conn>) {
    for mut tunnel in tunnels {
        tunnel.expect([close(1001, "")]);
        // The other side's may have been longer ago than it is waited for.
        let _ = tunnel.try_send([close(1001, "")]);
        tunnel.recv_to_end();
    }
}

/// What gives tunnels away ends with the server that it was.
#[test]
fn the_first_process_of_a_container_has_nothing_to_do_for_its_successor() {
    let upstream = Upstream::echo();
    let sites = format!("location /ws {{ proxy_pass http://{}; }}", upstream.addr());
    let Some(container) = Container::start(&sites) else { return };
    let mut tunnel = Handshake::to(container.address).path("/ws").open();
    let second = container.upgrade();
    wait_until("the first to stay", || {
        container.log().contains(&format!("stays as the parent of process {second}"))
    });
    let first = container.first();
    let gives = |task: PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "hand-over")
    };
    wait_until("the end of the hand-over", || !tasks(first).any(gives));
    let (before, until) = (worked(first), Instant::now() + Duration::from_secs(2));
    while Instant::now() < until {
        echo(&mut tunnel, "in the second");
        thread::sleep(Duration::from_millis(50));
    }
    let worked = worked(first) - before;
    assert!(worked < IDLE, "{worked} hundredths of a second");
}

/// `worker_shutdown_timeout` passes while no relay has the tunnels.
#[test]
fn tunnels_that_come_back_too_late_are_closed() {
    let upstream = Upstream::echo();
    let server = start("worker_shutdown_timeout 1s;", "", &upstream);
    let mut tunnels = open(&server, "/ws", 3);
    let mut upgrade = Begun::start(&server);
    let new = upgrade.hang();
    upgrade.wait_for_failure();
    new.go_on();
    for tunnel in &mut tunnels {
        // An upstream server that is left alone ends by itself.
        wait_until("the end of a tunnel", || !echoes(tunnel, "still"));
    }
    assert_eq!(server.answer(), upgrade.new.to_string());
    assert!(server.listed().is_empty());
}

/// QUIT to the old process comes while tunnels are on their way, and they come back.
#[test]
fn tunnels_that_come_back_after_quit_are_drained() {
    let upstream = Upstream::echo();
    let server = start("", "websocket_drain 500ms;", &upstream);
    let tunnels = open(&server, "/ws", 3);
    let mut upgrade = Begun::start(&server);
    let new = upgrade.hang();
    kill("QUIT", upgrade.old);
    server.instance.wait_for_log("(SIGQUIT) received");
    upgrade.wait_for_failure();
    new.go_on();
    expect_drain(tunnels);
    wait_until("the end of the old process", || !exists(upgrade.old));
    assert_eq!(server.answer(), upgrade.new.to_string());
}

/// HUP to the old process, and QUIT after all: what it has got in between and cannot give away has its pace, too.
#[test]
fn tunnels_that_began_after_an_upgrade_was_taken_back_are_drained() {
    let upstream = Upstream::echo();
    let vars = [("UP", upstream.addr().to_string())];
    let server = Server::start(
        "",
        "websocket_drain 500ms; server { listen %%LISTEN_0%%; add_header X-Pid $pid always;
             location /stays { websocket_reauth 1h /auth; proxy_pass http://%%UP%%; }
             location = /auth { internal; return 204; } }",
        &vars,
    );
    let old = server.pid().unwrap();
    let first = open(&server, "/stays", 2);
    kill("USR2", old);
    server.wait_for_successor(old);
    server.instance.wait_for_log("2 tunnels stay in this process");
    expect_drain(first);
    kill("HUP", old);
    server.instance.wait_for_log(&format!("old process {old} accepts connections again"));
    let handshake = Handshake::to(server.instance.listen(0)).path("/stays");
    let in_old = (0..1000).filter_map(|_| {
        let (tunnel, head) = handshake.open_with_head();
        // Those of the other one end at once.
        (head.field("X-Pid") == Some(&old.to_string())).then_some(tunnel)
    });
    let mut in_old: Vec<_> = in_old.take(3).collect();
    assert_eq!(in_old.len(), 3);
    in_old.iter_mut().for_each(|tunnel| echo(tunnel, "in the old process"));
    kill("QUIT", old);
    expect_drain(in_old);
    wait_until("the end of the old process", || !exists(old));
}

/// What scripts made for nginx do: QUIT when there are two pid files, whether the new process serves or not. It may have
/// said so, too.
#[test]
fn quit_before_the_new_process_serves_waits_with_tunnels() {
    let upstream = Upstream::echo();
    for is_unheard in [false, true] {
        let server = start("", "websocket_drain 100ms;", &upstream);
        let mut tunnels = open(&server, "/ws", 3);
        let mut upgrade = Begun::start(&server);
        if is_unheard {
            let old = upgrade.serve_unheard();
            kill("QUIT", upgrade.old);
            old.go_on();
        } else {
            kill("QUIT", upgrade.old);
            server.instance.wait_for_log("(SIGQUIT) received");
            tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "meanwhile"));
            upgrade.release("");
        }
        let moved = format!("3 tunnels have moved to new binary process {}", upgrade.new);
        server.instance.wait_for_log(&moved);
        wait_until("the end of the old process", || !exists(upgrade.old));
        tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "afterwards"));
        let log = server.instance.error_log();
        assert!(!log.contains("drain of"), "{log}");
    }
}

/// So many times, until somebody obeys.
#[test]
fn a_second_quit_changes_nothing_for_tunnels_that_wait_for_the_new_process() {
    let upstream = Upstream::echo();
    let server = start("", "websocket_drain 100ms;", &upstream);
    let mut moves = open(&server, "/ws", 3);
    let mut stays = open(&server, "/stays", 3);
    let mut upgrade = Begun::start(&server);
    let quits = || server.instance.error_log().matches("(SIGQUIT) received").count();
    for count in 1..=2 {
        kill("QUIT", upgrade.old);
        wait_until("QUIT", || quits() == count);
        moves.iter_mut().chain(&mut stays).for_each(|tunnel| echo(tunnel, "meanwhile"));
    }
    upgrade.release("");
    let moved = format!("3 tunnels have moved to new binary process {}", upgrade.new);
    server.instance.wait_for_log(&moved);
    expect_drain(stays);
    wait_until("the end of the old process", || !exists(upgrade.old));
    moves.iter_mut().for_each(|tunnel| echo(tunnel, "afterwards"));
}

/// The same, and then nobody is there who could take them.
#[test]
fn quit_drains_tunnels_when_the_new_process_ends_before_it_serves() {
    let upstream = Upstream::echo();
    let server = start("", "websocket_drain 100ms;", &upstream);
    let mut tunnels = open(&server, "/ws", 3);
    let mut upgrade = Begun::start(&server);
    kill("QUIT", upgrade.old);
    server.instance.wait_for_log("(SIGQUIT) received");
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "meanwhile"));
    upgrade.release("wrong;");
    expect_drain(tunnels);
    wait_until("the end of the old process", || !exists(upgrade.old));
    server.instance.wait_for_log("exited with code 1: unknown directive \"wrong\"");
}

/// QUIT comes together with the first word of the new process.
#[test]
fn quit_waits_with_tunnels_for_a_new_process_that_has_just_said_who_it_is() {
    let upstream = Upstream::echo();
    let server = start("", "websocket_drain 100ms;", &upstream);
    let mut tunnels = open(&server, "/ws", 3);
    let programs = server.programs.path().display();
    let text = format!(
        "#!/bin/sh\nwhile [ -e {programs} ] && [ ! -e {programs}/go ]; do sleep 0.01; done\n\
         exec {WSSGATE} \"$@\"\n"
    );
    server.install(&server.script("waits", &text, 0o755));
    let old = server.pid().unwrap();
    kill("USR2", old);
    let new = started(&server);
    wait_for_sleep(old);
    let stopped = Stopped::stop(old);
    fs::write(server.programs.path().join("go"), "").unwrap();
    wait_until("the pid file", || server.pid() == Some(new));
    kill("QUIT", old);
    stopped.go_on();
    server.instance.wait_for_log(&format!("3 tunnels have moved to new binary process {new}"));
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "afterwards"));
    wait_until("the end of the old process", || !exists(old));
    let log = server.instance.error_log();
    assert!(!log.contains("drain of"), "{log}");
}

/// What one program has refused for good another one may take.
#[test]
fn what_a_new_process_has_refused_is_offered_to_the_next() {
    let upstream = Upstream::echo();
    let server = start("", "", &upstream);
    let mut tunnels = open(&server, "/ws", 3);
    let old = server.pid().unwrap();
    let conf = server.instance.read("nginx.conf");
    // Nothing listens, so there is nowhere for them to go on.
    let (main, _) = conf.split_once("server {").unwrap();
    fs::write(server.instance.dir().join("nginx.conf"), format!("{main} }}")).unwrap();
    kill("USR2", old);
    server.instance.wait_for_log("3 tunnels stay in this process: ");
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "still"));
    let new = server.pid().unwrap();
    kill("TERM", new);
    server.instance.wait_for_log("connections are accepted again");
    wait_until("the pid file", || server.pid() == Some(old));
    fs::write(server.instance.dir().join("nginx.conf"), conf).unwrap();
    kill("USR2", old);
    server.instance.wait_for_log("3 tunnels have moved to new binary process ");
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "afterwards"));
    assert_eq!(server.listed().len(), 3);
}

/// It has a tunnel of its own that it waits for.
#[test]
fn a_new_process_that_was_told_to_end_takes_no_more_tunnels() {
    let (upstream, gate) = (Upstream::echo(), Arc::new(Gate::new()));
    let waiting = Arc::clone(&gate);
    let slow = Upstream::serve(move |conn| {
        let Ok(Some(request)) = conn.try_recv_request() else { return };
        waiting.wait();
        conn.accept_websocket(&request, "");
        conn.echo();
    });
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", slow.addr().to_string())];
    let server = Server::start("", SERVER, &vars);
    let old = server.pid().unwrap();
    let mut client = Handshake::to(server.instance.listen(0)).path("/slow").send();
    slow.next_request();
    kill("USR2", old);
    let new = server.wait_for_successor(old);
    let own = open(&server, "/ws", 1);
    kill("QUIT", new);
    wait_until("the new process", || server.admin() == ("draining".to_owned(), new));
    gate.open();
    assert_eq!(client.recv_response().status, 101);
    let offered = |told: &str| server.instance.error_log().contains(told);
    wait_until("the tunnel to be offered", || {
        offered("1 tunnel stays in this process: ") || offered("1 tunnel has moved to ")
    });
    echo(&mut client, "in the old process");
    drop(own);
    server.instance.wait_for_log(&format!("new binary process {new} exited with code 0"));
    wait_until("the old process", || server.admin() == ("serving".to_owned(), old));
    assert_eq!(server.listed().len(), 1);
    echo(&mut client, "still");
}
