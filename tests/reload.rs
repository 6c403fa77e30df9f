//! Reloads under load: no tunnel notices them, and nothing of them stays behind.
//!
//! The usual run lasts seconds; with `WSSGATE_SOAK` in the environment it lasts longer.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use wssgate_testkit::{
    Conn, Frame, Handshake, Instance, Pki, Upstream, close, http, pki::Leaf, text, wait_until,
};

const TUNNELS: usize = 200;
const THREADS: usize = 4;
const BETWEEN_RELOADS: Duration = Duration::from_millis(100);

/// What a process may have more of after all reloads than after the first few: ten times what was
/// measured, and in a soak less than ten KiB that are kept of each generation.
const MAX_GROWTH_KIB: u64 = 1024;

/// Messages that are under way in one tunnel at the same time, of different sizes.
const BURST: u64 = 4;

#[test]
fn tunnels_and_newcomers_do_not_notice_reloads() {
    let soak = std::env::var_os("WSSGATE_SOAK").is_some();
    let lasts = Duration::from_secs(if soak { 20 } else { 3 });
    let (pki, upstream) = (Pki::new(), Upstream::echo());
    let leaf = pki.leaf(&["a.test"]);
    let mut wssgate = start(&upstream, &leaf);
    let [plain, tls] = [0, 1].map(|number| {
        let handshake = Handshake::to(wssgate.listen(number)).host("a.test");
        if number == 0 { handshake } else { handshake.tls(pki.client_config(), "a.test") }
    });

    let tunnels: Vec<_> = (0..TUNNELS).map(|i| if i % 2 == 0 { &plain } else { &tls }).collect();
    let mut tunnels = tunnels.into_iter().map(Handshake::open).collect::<Vec<_>>();
    let before = Usage::of(&wssgate);

    let stop = Arc::new(AtomicBool::new(false));
    // Nothing is sent through it: it ends when all threads have, which is too early in the loop.
    let (alive, ended) = channel::<()>();
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let mine = tunnels.drain(..TUNNELS / THREADS).collect();
        let (stop, alive) = (Arc::clone(&stop), alive.clone());
        threads.push(thread::spawn(move || converse(number, mine, &stop, &alive)));
    }
    let newcomers = {
        let (stop, alive, admin) = (Arc::clone(&stop), alive, wssgate.listen(0));
        thread::spawn(move || newcomers(&[plain, tls], admin, &stop, &alive))
    };

    let start = Instant::now();
    let (mut reloads, mut early) = (0_u32, None);
    while start.elapsed() < lasts {
        reloads += 1;
        wssgate.rewrite_http(&configuration(reloads));
        wssgate.signal("HUP");
        match ended.recv_timeout(BETWEEN_RELOADS) {
            Err(RecvTimeoutError::Timeout) if threads.iter().any(|t| t.is_finished()) => break,
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        if start.elapsed() > lasts / 4 && early.is_none() {
            early = Some(Usage::of(&wssgate));
        }
    }
    stop.store(true, Ordering::SeqCst);
    let visits = newcomers.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let mut messages = 0;
    let mut tunnels = Vec::new();
    for thread in threads {
        let (conns, count) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        tunnels.extend(conns);
        messages += count;
    }
    wait_until("the last reload", || generation(wssgate.listen(0)) == reloads.to_string());
    let end = wait_for_usage(&wssgate, &before);
    let early = early.expect("the loop passed its first quarter");
    eprintln!(
        "{reloads} reloads, {messages} messages, {visits} newcomers; {before:?} {early:?} {end:?}"
    );
    let limit = early.anonymous_kib + MAX_GROWTH_KIB;
    assert!(end.anonymous_kib < limit, "grew from {early:?} to {end:?}");

    for mut tunnel in tunnels {
        tunnel.send([close(1000, "bye")]);
        tunnel.expect([close(1000, "bye")]);
        tunnel.expect_eof();
    }
    let switched = || wssgate.access_log().matches("\" 101 ").count();
    wait_until("the access lines of all tunnels", || switched() == TUNNELS + visits);
    assert!(wssgate.stop().success());
}

fn configuration(generation: u32) -> String {
    format!(
        "upstream app {{ server %%UP%%; }}
         server {{
             listen %%LISTEN_0%%;
             listen %%LISTEN_1%% ssl;
             server_name a.test;
             ssl_certificate %%CHAIN%%;
             ssl_certificate_key %%KEY%%;
             location / {{ proxy_pass http://app; }}
             location = /generation {{ return 200 \"{generation}\"; }}
         }}"
    )
}

fn start(upstream: &Upstream, leaf: &Leaf) -> Instance {
    Instance::setup(env!("CARGO_BIN_EXE_wssgate"))
        .main_and_http("worker_processes 2;", &configuration(0))
        .var("UP", upstream.addr())
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start()
}

/// Numbered messages in all of `tunnels` until told to stop; each must come back in its turn.
fn converse(
    number: usize,
    mut tunnels: Vec<Conn>,
    stop: &AtomicBool,
    _alive: &Sender<()>,
) -> (Vec<Conn>, u64) {
    let mut next = 0;
    while !stop.load(Ordering::SeqCst) {
        let burst = |tunnel: usize| {
            (next..next + BURST).map(move |n| message(number, tunnel, n)).collect::<Vec<_>>()
        };
        for (i, tunnel) in tunnels.iter_mut().enumerate() {
            tunnel.send(burst(i));
        }
        for (i, tunnel) in tunnels.iter_mut().enumerate() {
            tunnel.expect(burst(i));
        }
        next += BURST;
    }
    let count = next * tunnels.len() as u64;
    (tunnels, count)
}

fn message(thread: usize, tunnel: usize, number: u64) -> Frame {
    let padding = "x".repeat((number % BURST) as usize * 700);
    text(&format!("thread {thread}, tunnel {tunnel}, message {number} {padding}"))
}

/// New connections must be accepted and served all the time.
fn newcomers(
    handshakes: &[Handshake],
    plain: SocketAddr,
    stop: &AtomicBool,
    _alive: &Sender<()>,
) -> usize {
    let mut visits = 0;
    while !stop.load(Ordering::SeqCst) {
        assert!(generation(plain).parse::<u32>().is_ok());
        for handshake in handshakes {
            let mut conn = handshake.open();
            conn.send([text("new"), close(1000, "")]);
            conn.expect([text("new"), close(1000, "")]);
            visits += 1;
        }
    }
    visits
}

fn generation(plain: SocketAddr) -> String {
    let response = http::get(plain, "a.test", "/generation");
    assert_eq!(response.status, 200, "{response:?}");
    response.text()
}

/// What the process has of everything.
#[derive(Debug)]
struct Usage {
    /// Memory of its own; shares of files mapped by others, too, come and go with those.
    anonymous_kib: u64,
    threads: usize,
    descriptors: usize,
}

impl Usage {
    fn of(instance: &Instance) -> Self {
        let process = format!("/proc/{}", instance.pid());
        let rollup = fs::read_to_string(format!("{process}/smaps_rollup")).unwrap();
        let own = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        let count = |what: &str| fs::read_dir(format!("{process}/{what}")).unwrap().count();
        Self {
            anonymous_kib: own.trim().trim_end_matches(" kB").parse().unwrap(),
            threads: count("task"),
            descriptors: count("fd"),
        }
    }
}

/// Waits until there are no more threads and descriptors than before.
fn wait_for_usage(instance: &Instance, before: &Usage) -> Usage {
    let mut now = Usage::of(instance);
    wait_until(&format!("threads and descriptors as in {before:?}"), || {
        now = Usage::of(instance);
        now.threads <= before.threads && now.descriptors <= before.descriptors
    });
    now
}
