//! Open tunnels go on in the process that replaces theirs.

use serde_json::Value;
use wssgate_testkit::{Listener, Pki, close, pong};
use wssgate_ws::Opcode;

use super::*;

/// A log of ends, for any configuration.
const ENDS: &str = "log_format ends '$uri $websocket_close_cause $websocket_client_messages \
    $websocket_client_bytes $websocket_upstream_messages $websocket_upstream_bytes';";

impl Server {
    /// Has the program replaced by `wssgate upgrade`, and returns the process that serves then and what was told.
    #[track_caller]
    fn replace(&self) -> (u32, String) {
        let old = self.pid().unwrap();
        let output = self.upgrade(&[]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let new = self.pid().unwrap();
        assert_ne!(new, old);
        (new, told)
    }

    /// The same where all that is open moves.
    #[track_caller]
    fn replace_all(&self) {
        let old = self.pid().unwrap();
        let (_, told) = self.replace();
        assert!(
            !told.contains(" left, ") || told.contains(" left, among them 0 tunnels,"),
            "{told}"
        );
        wait_until("the end of the old process", || !exists(old));
    }

    /// Changes the configuration for whoever reads it next.
    #[track_caller]
    pub(super) fn change(&self, from: &str, to: &str) {
        let conf = self.instance.read("nginx.conf");
        assert!(conf.contains(from), "{from}");
        fs::write(self.instance.dir().join("nginx.conf"), conf.replace(from, to)).unwrap();
    }

    #[track_caller]
    pub(super) fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(WSSGATE);
        command.arg("ctl").arg("-p").arg(self.instance.dir()).args(["-c", "nginx.conf"]);
        let output = command.args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(super) fn status(&self) -> Value {
        serde_json::from_str(&self.ctl(&["status", "--json"])).unwrap()
    }

    /// The tunnels of whoever has the admin socket.
    #[track_caller]
    pub(super) fn listed(&self) -> Vec<Value> {
        let listed: Value = serde_json::from_str(&self.ctl(&["list", "--json"])).unwrap();
        listed["tunnels"].as_array().unwrap().clone()
    }

    /// The messages that the only tunnel has passed on from its client.
    fn messages(&self) -> u64 {
        let listed = self.listed();
        assert_eq!(listed.len(), 1, "{listed:?}");
        listed[0]["from_client"]["messages"].as_u64().unwrap()
    }
}

/// With all four combinations of TLS, under a user that root has become, in a process that keeps rights of root: frames
/// that are under way go on with their second half, and the access line is written once, with what has passed in both.
#[test]
fn both_directions_go_on_and_the_access_line_counts_what_passed_in_both_processes() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let (plain, tls) = (Listener::bind(), Listener::bind().tls(leaf.server_config()));
    let user = if wssgate_sys::privileges::is_root() { "user nobody nogroup;" } else { "" };
    let http = format!(
        "{ENDS} server {{ listen %%LISTEN_0%%; listen %%LISTEN_1%% ssl;
             ssl_certificate {}; ssl_certificate_key {};
             access_log %%DIR%%/ends.log ends;
             location /plain {{ proxy_pass http://%%PLAIN%%; }}
             location /tls {{ proxy_pass https://%%TLS%%; }} }}",
        leaf.fullchain.display(),
        leaf.key.display()
    );
    let vars = [("PLAIN", plain.addr().to_string()), ("TLS", tls.addr().to_string())];
    let server = Server::start(&format!("worker_processes 2; {user}"), &http, &vars);
    let client_config = pki.client_config();
    let mut pairs = Vec::new();
    for (path, listener) in [("/plain", &plain), ("/tls", &tls)] {
        let over_plain = Handshake::to(server.instance.listen(0)).path(path);
        let over_tls = Handshake::to(server.instance.listen(1)).path(path);
        for handshake in [over_plain, over_tls.tls(client_config.clone(), "localhost")] {
            pairs.push(handshake.open_with(listener));
        }
    }
    let mask = Some([1, 2, 3, 4]);
    let (up, down) = (text("halves up").encode(mask), text("halves down").encode(None));
    for (client, upstream) in &mut pairs {
        client.send([text("before")]);
        upstream.expect([text("before")]);
        upstream.send([text("answer")]);
        client.expect([text("answer")]);
        client.send_raw(&up[..8]);
        // With another mask, or the same.
        upstream.recv_raw(8);
        upstream.send_raw(&down[..5]);
        assert_eq!(client.recv_raw(5), down[..5]);
    }
    let old = server.pid().unwrap();
    let (_, told) = server.replace();
    assert!(told.contains("\n4 tunnels have moved to it\n"), "{told}");
    wait_until("the end of the old process", || !exists(old));
    assert_eq!(server.instance.read("ends.log"), "");
    for (mut client, mut upstream) in pairs {
        upstream.send_raw(&down[5..]);
        assert_eq!(client.recv_raw(down.len() - 5), down[5..]);
        client.send_raw(&up[8..]);
        assert_eq!(upstream.recv_raw(up.len() - 8).len(), up.len() - 8);
        upstream.send([text("after")]);
        client.expect([text("after")]);
        client.send([text("and on"), close(1000, "bye")]);
        upstream.expect([text("and on"), close(1000, "bye")]);
        upstream.send([close(1000, "")]);
        client.expect([close(1000, "")]);
        drop(upstream);
        client.recv_to_end();
    }
    let ends = || server.instance.read("ends.log");
    wait_until("the access lines", || ends().lines().count() >= 4);
    for path in ["/plain", "/tls"] {
        let (up, down) = (12 + 15 + 12 + 11, 8 + 13 + 7 + 4);
        let line = format!("{path} client_close 3 {up} 3 {down}");
        assert_eq!(ends().lines().filter(|told| *told == line).count(), 2, "{}", ends());
    }
    assert_eq!(ends().lines().count(), 4);
}

/// A tunnel belongs to the location that its own has become, and keeps what it had where that is gone.
#[test]
fn the_new_configuration_holds_for_tunnels_that_have_moved() {
    let [a, b] = [(); 2].map(|()| Upstream::echo());
    let http = format!(
        "{ENDS} upstream app {{ server %%A%%; server %%B%% backup; }}
         websocket_ping_interval off; access_log %%DIR%%/first.log ends;
         server {{ listen %%LISTEN_0%%; server_name chat.test;
             location /silent {{ proxy_read_timeout 1h; proxy_pass http://app; }}
             location /asked {{ websocket_idle_timeout off; proxy_pass http://app; }}
             location /gone {{ websocket_ping_interval 50ms; proxy_pass http://app; }}
             location /peer {{ proxy_pass http://app; }} }}"
    );
    let vars = [("A", a.addr().to_string()), ("B", b.addr().to_string())];
    let server = Server::start("", &http, &vars);
    let handshake = Handshake::to(server.instance.listen(0)).host("chat.test");
    let open = |path: &str| {
        let mut tunnel = handshake.clone().path(path).open();
        tunnel.send([text("before")]);
        while tunnel.recv() != text("before") {}
        tunnel
    };
    let [mut silent, mut asked, mut gone, mut peer] =
        ["/silent", "/asked", "/gone", "/peer"].map(open);
    assert_eq!((a.connections(), b.connections()), (4, 0));
    for (from, to) in [
        ("proxy_read_timeout 1h", "proxy_read_timeout 200ms"),
        ("websocket_idle_timeout off;", "websocket_ping_interval 50ms;"),
        ("location /gone", "location /elsewhere"),
        ("first.log", "second.log"),
        (
            &*format!("server {}; server {} backup;", a.addr(), b.addr()),
            &*format!("server {};", b.addr()),
        ),
    ] {
        server.change(from, to);
    }
    server.replace_all();
    silent.recv_to_end();
    server.instance.wait_for_line("second.log", "/silent read_timeout 1 12 ");
    // The tunnel of a location without pings is pinged, and so is that of one that is gone.
    for tunnel in [&mut asked, &mut gone] {
        for _ in 0..3 {
            let asked = tunnel.recv();
            assert_eq!(asked.opcode, Opcode::Ping);
            tunnel.send([pong(asked.payload)]);
        }
    }
    let listed = server.listed();
    let mut places: Vec<_> = listed.iter().map(|one| one["location"].as_str().unwrap()).collect();
    places.sort_unstable();
    assert_eq!(places, ["/asked", "/gone", "/peer"]);
    let address = a.addr().to_string();
    assert!(listed.iter().all(|one| one["peer"] == *address && one["upstream"] == "app"));
    echo(&mut peer, "after");
    drop((asked, gone, peer));
    for path in ["/asked", "/peer"] {
        server.instance.wait_for_line("second.log", &format!("{path} "));
    }
    wait_until("the end of all", || server.listed().is_empty());
    assert_eq!(server.instance.read("first.log"), "", "nothing has ended before");
    // New ones go to whom the configuration names.
    echo(&mut handshake.path("/peer").open(), "new");
    assert_eq!((a.connections(), b.connections()), (4, 1));
}

/// `least_conn`, `max_conns` and `limit_conn`; what a tunnel takes it gives back at its end.
#[test]
fn tunnels_that_have_moved_are_counted() {
    let [a, b] = [(); 2].map(|()| Upstream::echo());
    let vars = [("A", a.addr().to_string()), ("B", b.addr().to_string())];
    let server = Server::start(
        "worker_processes 2;",
        "limit_conn_zone $server_port zone=all:1m; limit_conn_status 429;
         upstream few { server %%A%%; server %%B%% down; least_conn; }
         upstream one { server %%A%% max_conns=1; }
         server { listen %%LISTEN_0%%;
             location /least { proxy_pass http://few; }
             location /max { proxy_pass http://one; }
             location /limit { limit_conn all 1; proxy_pass http://%%A%%; } }",
        &vars,
    );
    let handshake = |path: &str| Handshake::to(server.instance.listen(0)).path(path);
    let least = || -> Vec<_> { (0..4).map(|_| handshake("/least").open()).collect() };
    let first = least();
    assert_eq!((a.connections(), b.connections()), (4, 0));
    let (max, limited) = (handshake("/max").open(), handshake("/limit").open());
    server.change(" down;", ";");
    server.replace_all();
    let second = least();
    assert_eq!(b.connections(), 4, "none where there are four already");
    for (path, status) in [("/max", 502), ("/limit", 429)] {
        assert_eq!(handshake(path).answer().1.status, status, "{path}");
    }
    // And on to yet another one.
    server.replace_all();
    for (path, status) in [("/max", 502), ("/limit", 429)] {
        assert_eq!(handshake(path).answer().1.status, status, "{path}");
    }
    drop((first, second, max, limited));
    wait_until("the end of all", || server.listed().is_empty());
    for path in ["/max", "/limit"] {
        handshake(path).open();
        wait_until("the end", || server.listed().is_empty());
    }
}

/// Operators find a tunnel where it is now, with its age and what has passed through it in both processes.
#[test]
fn operators_reach_tunnels_that_have_moved() {
    let upstream = Upstream::echo();
    let server = Server::start(
        "",
        "server { listen %%LISTEN_0%%; server_name chat.test; websocket_user $arg_user;
             location / { proxy_pass http://%%UP%%; } }",
        &[("UP", upstream.addr().to_string())],
    );
    let handshake = Handshake::to(server.instance.listen(0));
    let [mut ann, mut bob, mut eve] = ["ann", "bob", "eve"].map(|user| {
        let mut tunnel = handshake.clone().path(&format!("/?user={user}")).open();
        echo(&mut tunnel, "before");
        tunnel
    });
    let of = |user: &str| {
        let listed = server.listed();
        listed.into_iter().find(|one| one["user"] == *user).unwrap()
    };
    let before = of("ann");
    server.replace_all();
    echo(&mut ann, "after");
    let after = of("ann");
    for same in ["id", "client", "peer", "opened", "server", "location"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    assert!(after["age"].as_f64() > before["age"].as_f64(), "{after} {before}");
    for (side, bytes) in [("from_client", 12 + 11), ("from_upstream", 8 + 7)] {
        assert_eq!((&after[side]["messages"], &after[side]["bytes"]), (&2.into(), &bytes.into()));
    }
    let id = after["id"].as_str().unwrap();
    assert_eq!(server.ctl(&["kill", id, "--code", "4001", "--reason", "moved"]), "1 closed\n");
    ann.expect([close(4001, "moved")]);
    drop(ann);
    let drained = thread::spawn(move || {
        bob.expect([close(1001, "")]);
        bob.send([close(1001, "")]);
        bob.recv_to_end();
    });
    let told = server.ctl(&["drain", "--user", "bob", "--over", "10ms", "--yes"]);
    assert!(told.contains(": 1 ended in "), "{told}");
    drained.join().unwrap();
    wait_until("the ends", || server.listed().len() == 1);
    // Numbers are not given twice, neither for connections nor by the third process.
    server.replace_all();
    let new = handshake.path("/?user=new").open();
    let ids = ["eve", "new"].map(|user| of(user)["id"].as_str().unwrap().parse::<u64>().unwrap());
    assert!(ids[1] > ids[0], "{ids:?}");
    echo(&mut eve, "still");
    drop(new);
}

/// Those for whom there is no room stay, are carried on, and move when there is.
#[test]
fn a_process_that_is_short_of_descriptors_takes_nothing_that_it_cannot_carry() {
    let upstream = Upstream::echo();
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", upstream.addr().to_string())];
    let server = Server::start("worker_processes 1; worker_rlimit_nofile 512;", SERVER, &vars);
    let handshake = Handshake::to(server.instance.listen(0)).path("/ws");
    let mut tunnels: Vec<_> = (0..60).map(|_| handshake.open()).collect();
    let old = server.pid().unwrap();
    server.change("worker_rlimit_nofile 512", "worker_rlimit_nofile 64");
    let (new, told) = server.replace();
    assert!(!told.contains("moved"), "{told}");
    assert!(told.contains("60 connections left, among them 60 tunnels"), "{told}");
    server.instance.wait_for_log("60 tunnels stay in this process: too many open files");
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "still"));
    assert!(server.listed().is_empty());
    // All were announced before; what was bound for them is gone.
    assert_eq!(server.status()["tunnels"], 0);
    // The limit of a process that is not root's cannot rise again; but there is room for a few.
    tunnels.truncate(8);
    server.instance.wait_for_log(&format!("8 tunnels have moved to new binary process {new}"));
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, "and on"));
    assert_eq!((server.listed().len(), &server.status()["tunnels"]), (8, &Value::from(8)));
    wait_until("the end of the old process", || !exists(old));
    let log = server.instance.error_log();
    assert_eq!(log.matches("60 tunnels stay").count(), 1, "{log}");
}

/// A program that is not accepted, one that does not serve, and a configuration with an error.
#[test]
fn nothing_moves_to_a_program_that_is_refused() {
    let upstream = Upstream::echo();
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", upstream.addr().to_string())];
    let server = Server::start("", SERVER, &vars);
    let mut tunnel = Handshake::to(server.instance.listen(0)).path("/ws").open();
    let old = server.pid().unwrap();
    let refuses = server.script("refuses", "#!/bin/sh\nexit 1\n", 0o755);
    let dies = server.script("dies", "#!/bin/sh\n[ \"$7\" = -t ] || exit 3\n", 0o755);
    let mut refused = |binary: &Path, words: &str| {
        let output = server.upgrade(&["--binary", &binary.display().to_string()]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(words), "{told}");
        echo(&mut tunnel, "still");
        assert_eq!(server.admin(), ("serving".to_owned(), old));
        assert_eq!(server.listed().len(), 1);
    };
    refused(&refuses, "refuses");
    refused(&dies, "exited with code 3");
    server.change("events", "wrong; events");
    refused(&server.link(), "wrong");
    let log = server.instance.error_log();
    assert!(!log.contains("moved to") && !log.contains("taken over"), "{log}");
    assert!(server.instance.access_log().is_empty());
}

/// HUP to the old process: both accept, and each keeps what it has. Then on through two more.
#[test]
fn tunnels_do_not_go_back_and_go_on_from_one_process_to_the_next() {
    let upstream = Upstream::echo();
    let http = format!(
        "{ENDS} server {{ listen %%LISTEN_0%%; location / {{ return 200 $pid; }}
             location /ws {{ access_log %%DIR%%/ends.log ends; proxy_set_header X-Pid $pid;
                 proxy_pass http://%%UP%%; }} }}"
    );
    let server = Server::start("", &http, &[("UP", upstream.addr().to_string())]);
    let handshake = Handshake::to(server.instance.listen(0)).path("/ws");
    let mut tunnel = handshake.open();
    upstream.next_request();
    let first = server.pid().unwrap();
    kill("USR2", first);
    let second = server.wait_for_successor(first);
    server.instance.wait_for_log(&format!("1 tunnel has moved to new binary process {second}"));
    echo(&mut tunnel, "in the second");
    kill("HUP", first);
    server.instance.wait_for_log(&format!("old process {first} accepts connections again"));
    let mut in_first = loop {
        let one = handshake.open();
        if upstream.next_request().field("X-Pid") == Some(&first.to_string()) {
            break one;
        }
    };
    wait_until("the others to end", || server.listed().len() == 1);
    for _ in 0..5 {
        echo(&mut tunnel, "in the second");
        echo(&mut in_first, "in the first");
    }
    assert_eq!(server.messages(), 6, "it is where it was");
    // The second one serves alone again, and what has come to the first one meanwhile moves too.
    kill("QUIT", first);
    wait_until("the other tunnel", || server.listed().len() == 2);
    echo(&mut in_first, "in the second");
    drop(in_first);
    wait_until("the end of the first", || !exists(first));
    server.replace_all();
    echo(&mut tunnel, "in the third");
    server.replace_all();
    echo(&mut tunnel, "in the fourth");
    assert_eq!(server.messages(), 8);
    let ends = || server.instance.read("ends.log");
    let lines = ends().lines().count();
    tunnel.send([close(1000, "")]);
    tunnel.expect([close(1000, "")]);
    wait_until("the access line", || ends().lines().count() > lines);
    let line = ends().lines().last().unwrap().to_owned();
    assert!(line.starts_with("/ws client_close 8 "), "{line}");
    assert_eq!(ends().matches("/ws client_close 8 ").count(), 1);
    let log = server.instance.error_log();
    assert!(!log.contains("[alert]") && !log.contains("[crit]"), "{log}");
}

/// What was a handshake that waited for its upstream server when the program was replaced.
#[test]
fn a_request_that_becomes_a_websocket_after_the_upgrade_moves_too() {
    let gate = Arc::new(wssgate_testkit::Gate::new());
    let waiting = Arc::clone(&gate);
    let slow = Upstream::serve(move |conn| {
        let Ok(Some(request)) = conn.try_recv_request() else { return };
        waiting.wait();
        conn.accept_websocket(&request, "");
        conn.echo();
    });
    let vars = [("UP", slow.addr().to_string()), ("SLOW", slow.addr().to_string())];
    let server = Server::start("", SERVER, &vars);
    let old = server.pid().unwrap();
    let mut client = Handshake::to(server.instance.listen(0)).path("/ws").send();
    slow.next_request();
    let (new, told) = server.replace();
    assert!(told.contains("1 connection left, among them 0 tunnels"), "{told}");
    gate.open();
    assert_eq!(client.recv_response().status, 101);
    echo(&mut client, "somewhere");
    server.instance.wait_for_log(&format!("1 tunnel has moved to new binary process {new}"));
    wait_until("the end of the old process", || !exists(old));
    echo(&mut client, "in the new one");
    assert_eq!(server.messages(), 2);
}

/// USR2, a look at both pid files, QUIT, as soon as that can be: it may come before the new process serves.
#[test]
fn scripts_made_for_nginx_leave_websockets_alone() {
    let upstream = Upstream::echo();
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", upstream.addr().to_string())];
    let script = "set -e; cd \"$1\"
        kill -USR2 $(cat nginx.pid)
        while [ ! -s nginx.pid.oldbin ] || [ ! -s nginx.pid ]; do sleep 0.01; done
        [ -z \"$2\" ] || kill -WINCH $(cat nginx.pid.oldbin)
        kill -QUIT $(cat nginx.pid.oldbin)";
    let server = Server::start("", SERVER, &vars);
    let mut tunnel = Handshake::to(server.instance.listen(0)).path("/ws").open();
    for winch in ["", "winch", ""] {
        let old = server.pid().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(server.instance.dir()).arg(winch);
        assert!(command.status().unwrap().success());
        echo(&mut tunnel, "meanwhile");
        wait_until("the end of the old process", || !exists(old));
        echo(&mut tunnel, "afterwards");
    }
    assert_eq!(server.messages(), 6);
}

/// More than go in one batch, to more workers and to fewer, while all of them talk.
#[test]
fn many_move_to_other_numbers_of_workers_while_they_talk() {
    const TALKERS: usize = 4;
    const EACH: usize = 80;
    let upstream = Upstream::echo();
    let vars = [("UP", upstream.addr().to_string()), ("SLOW", upstream.addr().to_string())];
    let server = Server::start("worker_processes 2;", SERVER, &vars);
    let handshake = Handshake::to(server.instance.listen(0)).path("/ws");
    let (ends, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let talkers: Vec<_> = (0..TALKERS)
        .map(|_| {
            let mut tunnels: Vec<_> = (0..EACH).map(|_| handshake.open()).collect();
            let (ends, rounds) = (Arc::clone(&ends), Arc::clone(&rounds));
            thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let message = format!("round {}", rounds.fetch_add(1, Ordering::Relaxed));
                    tunnels.iter_mut().for_each(|tunnel| tunnel.send([text(&message)]));
                    tunnels.iter_mut().for_each(|tunnel| tunnel.expect([text(&message)]));
                }
                tunnels
            })
        })
        .collect();
    let all = TALKERS * EACH;
    for (before, after) in [(2, 3), (3, 1), (1, 2)] {
        let [before, after] = [before, after].map(|count| format!("worker_processes {count};"));
        server.change(&before, &after);
        let old = server.pid().unwrap();
        server.replace();
        wait_until("the end of the old process", || !exists(old));
        assert_eq!(server.status()["tunnels"], all);
        let round = rounds.load(Ordering::Relaxed);
        wait_until("some rounds", || rounds.load(Ordering::Relaxed) > round + 2 * TALKERS);
    }
    ends.store(true, Ordering::Relaxed);
    let tunnels: Vec<_> = talkers.into_iter().flat_map(|one| one.join().unwrap()).collect();
    assert_eq!((tunnels.len(), &*server.instance.access_log()), (all, ""), "none has ended");
}
