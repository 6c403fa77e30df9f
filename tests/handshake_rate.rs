//! How many WebSockets are opened in a time: `websocket_handshake_rate`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use wssgate_testkit::{Conn, GUARD, Handshake, Instance, Response, Upstream, http, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn start(upstream: &Upstream, lines: &str) -> Instance {
    let http = format!(
        "{lines} server {{ listen %%LISTEN_0%%; location / {{ proxy_pass http://%%UP%%; }}
         location /plain {{ return 200 plain; }}
         location /free {{ websocket_handshake_rate off; proxy_pass http://%%UP%%; }} }}"
    );
    let main = "worker_processes 2;";
    Instance::setup(EXE).main_and_http(main, &http).var("UP", upstream.addr()).start()
}

fn retry_after(response: &Response) -> u64 {
    response.field("Retry-After").unwrap().parse().unwrap()
}

/// Tries to open so many at once, each in a thread of its own; says when which was opened, or how it was refused.
fn storm(server: &Instance, count: usize) -> Vec<Result<(Instant, Conn), Response>> {
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let handshake = Handshake::to(server.listen(0));
            thread::spawn(move || {
                let (conn, response) = handshake.answer();
                match response.status {
                    101 => Ok((Instant::now(), conn)),
                    503 => Err(response),
                    other => panic!("{other}"),
                }
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn handshakes_above_the_rate_wait_and_then_are_told_to_come_again() {
    let upstream = Upstream::echo();
    let lines = "websocket_handshake_rate 20r/s queue=30 retry_after=5s-9s;";
    let server = start(&upstream, lines);
    let began = Instant::now();
    let (opened, refused): (Vec<_>, Vec<_>) =
        storm(&server, 100).into_iter().partition(Result::is_ok);
    let opened: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let last = opened.iter().map(|(at, _)| *at).max().unwrap();
    // Those in the queue, and those for whom it was their turn while the others came.
    assert!((31..60).contains(&opened.len()), "{}", opened.len());
    let most = 2.0 + last.duration_since(began).as_secs_f64() * 20.0;
    assert!(opened.len() as f64 <= most, "{} in {:?}", opened.len(), last - began);
    let times: BTreeSet<_> =
        refused.iter().map(|refused| retry_after(refused.as_ref().err().unwrap())).collect();
    assert!(times.iter().all(|seconds| (5..=9).contains(seconds)), "{times:?}");
    assert!(times.len() > 1, "not all at once: {times:?}");
    server.wait_for_log("[warn]");
    assert!(server.error_log().contains("too many WebSocket handshakes"));
    assert_eq!(upstream.requests().len(), opened.len(), "the others cost the upstream nothing");
    drop(opened);
    assert!(server.terminate().success());
    upstream.finish();
}

#[test]
fn other_requests_and_locations_are_not_concerned() {
    let upstream = Upstream::echo();
    let server = start(&upstream, "websocket_handshake_rate 1r/m queue=0 retry_after=7s;");
    let first = Handshake::to(server.listen(0)).open();
    let (_, refused) = Handshake::to(server.listen(0)).answer();
    assert_eq!((refused.status, retry_after(&refused)), (503, 7));
    for _ in 0..5 {
        assert_eq!(http::get(server.listen(0), "a", "/plain").text(), "plain");
        drop(Handshake::to(server.listen(0)).path("/free").open());
    }
    // A reload does not forget.
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    let (_, refused) = Handshake::to(server.listen(0)).answer();
    assert_eq!(refused.status, 503);
    drop(first);
    assert!(server.stop().success());
    upstream.finish();
}

/// Sends so many handshakes of which all but one wait; gives those that do, once the other one is refused.
fn fill(server: &Instance, count: usize) -> Vec<mpsc::Receiver<Response>> {
    let (refused, told) = mpsc::channel();
    let waiting = (0..count).map(|_| {
        let mut conn = Handshake::to(server.listen(0)).send();
        let (answer, answered) = mpsc::channel();
        let refused = refused.clone();
        thread::spawn(move || {
            let response = conn.recv_response();
            let _ = refused.send(());
            let _ = answer.send(response);
        });
        answered
    });
    let waiting = waiting.collect::<Vec<_>>();
    told.recv_timeout(GUARD).unwrap();
    waiting
}

#[test]
fn who_waits_is_told_to_come_again_when_the_server_ends() {
    let upstream = Upstream::echo();
    let server = start(&upstream, "websocket_handshake_rate 1r/m queue=1 retry_after=7s;");
    let first = Handshake::to(server.listen(0)).open();
    let waiting = fill(&server, 2);
    server.signal("QUIT");
    for answered in waiting {
        let response = answered.recv_timeout(GUARD).unwrap();
        assert_eq!((response.status, retry_after(&response)), (503, 7));
    }
    drop(first);
    assert!(server.wait().success());
    upstream.finish();
}

/// Clients that lose patience cost the others nothing.
#[test]
fn who_leaves_gives_its_place_up() {
    let upstream = Upstream::echo();
    let server = start(&upstream, "websocket_handshake_rate 1r/m queue=1;");
    let first = Handshake::to(server.listen(0)).open();
    let try_one = || {
        let mut conn = Handshake::to(server.listen(0)).send();
        conn.set_guard(Duration::from_millis(300)).unwrap();
        let answered = conn.try_recv_response("GET");
        (conn, answered.map(|response| response.status).ok())
    };
    let (waits, answered) = try_one();
    assert_eq!(answered, None, "there is room for one");
    assert_eq!(try_one().1, Some(503));
    drop(waits);
    wait_until("room for another one", || try_one().1.is_none());
    drop(first);
    assert!(server.terminate().success());
    upstream.finish();
}
