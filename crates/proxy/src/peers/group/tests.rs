use wssgate_config::model::UpstreamServer;

use super::*;

fn server(address: &str, backup: bool) -> UpstreamServer {
    UpstreamServer {
        name: address.as_bytes().into(),
        addresses: vec![ListenAddr::Ip(address.parse().unwrap())],
        weight: 1,
        max_conns: 0,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        backup,
        down: false,
    }
}

fn model(servers: Vec<UpstreamServer>) -> Upstream {
    Upstream {
        name: b"group".as_slice().into(),
        explicit: true,
        servers,
        balance: Balance::RoundRobin,
        keepalive: 32,
        keepalive_requests: 1000,
        keepalive_time: Duration::from_secs(3600),
        keepalive_timeout: Duration::from_secs(60),
    }
}

fn names(group: &Arc<Group>, count: usize) -> Vec<String> {
    let mut selection = group.selection(b"", None);
    (0..count)
        .filter_map(|_| group.choose(&mut selection, Instant::now()))
        .map(|lease| lease.peer().name.to_string())
        .collect()
}

#[test]
fn backup_servers_take_over_when_no_other_is_left() {
    let group = Arc::new(Group::new(
        &model(vec![
            server("127.0.0.1:1", false),
            server("127.0.0.1:2", true),
            server("127.0.0.1:3", true),
        ]),
        None,
    ));
    assert!(!group.single());
    assert_eq!(group.tries(), 3);
    assert_eq!(names(&group, 4), ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
}

#[test]
fn a_lease_counts_until_it_is_dropped_in_every_generation() {
    let mut first = model(vec![server("127.0.0.1:1", false), server("127.0.0.1:2", false)]);
    first.balance = Balance::LeastConn;
    let old = Arc::new(Group::new(&first, None));
    let tunnel = old.choose(&mut old.selection(b"", None), Instant::now()).unwrap();
    assert_eq!(&*tunnel.peer().name, "127.0.0.1:1");

    first.servers.insert(0, server("127.0.0.1:3", false));
    let new = Arc::new(Group::new(&first, Some(&old)));
    drop(old);
    let mut chosen: Vec<_> = (0..2)
        .map(|_| new.choose(&mut new.selection(b"", None), Instant::now()).unwrap())
        .collect();
    let taken: Vec<_> = chosen.iter().map(|lease| lease.peer().name.to_string()).collect();
    assert_eq!(taken, ["127.0.0.1:2", "127.0.0.1:3"], "the tunnel of the old generation counts");
    drop(tunnel);
    chosen.extend(new.choose(&mut new.selection(b"", None), Instant::now()));
    assert_eq!(&*chosen[2].peer().name, "127.0.0.1:1");
}

#[test]
fn a_failure_is_remembered_by_the_next_generation() {
    let model = model(vec![server("127.0.0.1:1", false), server("127.0.0.1:2", false)]);
    let old = Arc::new(Group::new(&model, None));
    let now = Instant::now();
    let lease = old.choose(&mut old.selection(b"", None), now).unwrap();
    assert!(lease.fail(now));
    let new = Arc::new(Group::new(&model, Some(&old)));
    for _ in 0..3 {
        assert_eq!(names(&new, 1), ["127.0.0.1:2"]);
    }
}

#[test]
fn slots_of_addresses_that_nobody_uses_are_given_away() {
    let mut group = Arc::new(Group::new(&model(vec![server("127.0.0.1:1", false)]), None));
    for port in 2..50 {
        let address = format!("127.0.0.1:{port}");
        group = Arc::new(Group::new(&model(vec![server(&address, false)]), Some(&group)));
    }
    assert!(lock(&group.table).states.len() <= 2);
}

#[test]
fn the_same_address_twice_is_two_peers() {
    let group = Arc::new(Group::new(
        &model(vec![server("127.0.0.1:1", false), server("127.0.0.1:1", false)]),
        None,
    ));
    assert_eq!(group.tries(), 2);
    assert_eq!(names(&group, 3).len(), 2);
}

/// What happens to the first of two peers, with `fail_timeout=10s`, and when.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request is sent to it; the name of its lease.
    Open(u64, char),
    /// It answers.
    Alive(char),
    /// The exchange ends well, or as it may after [`Step::Alive`].
    Drop(char),
    /// It fails.
    Fail(u64, char),
    /// Whether new requests go to it.
    Used(u64, bool),
}

#[test]
fn a_peer_is_alive_from_its_first_answer_on() {
    use Step::{Alive, Drop, Fail, Open, Used};
    for (claim, steps) in [
        (
            "the first answer after a rest brings it back while its tunnel is open",
            &[
                Open(0, 'a'),
                Fail(0, 'a'),
                Open(11, 'b'),
                Used(11, false),
                Alive('b'),
                Used(12, true),
            ][..],
        ),
        (
            "without an answer only the end of an exchange does",
            &[
                Open(0, 'a'),
                Fail(0, 'a'),
                Open(11, 'b'),
                Used(12, false),
                Drop('b'),
                Used(13, true),
            ],
        ),
        (
            "an answer to a request from before the failure is no proof",
            &[Open(0, 'a'), Open(0, 'b'), Fail(1, 'a'), Alive('b'), Used(2, false)],
        ),
        (
            "a failure behind the answer counts",
            &[Open(0, 'a'), Alive('a'), Fail(2, 'a'), Used(3, false)],
        ),
        (
            "the end of a tunnel is no second proof",
            &[
                Open(0, 'a'),
                Alive('a'),
                Open(2, 'b'),
                Fail(2, 'b'),
                Open(13, 'c'),
                Drop('a'),
                Used(14, false),
                Alive('c'),
                Used(15, true),
            ],
        ),
    ] {
        let servers = vec![server("127.0.0.1:1", false), server("127.0.0.1:2", false)];
        let group = Arc::new(Group::new(&model(servers), None));
        let began = Instant::now();
        let mut leases = std::collections::HashMap::new();
        let open = |at: u64| {
            let mut selection = group.selection(b"", None);
            let now = began + Duration::from_secs(at);
            let mut chosen = std::iter::from_fn(|| group.choose(&mut selection, now));
            chosen.find(|lease| &*lease.peer().name == "127.0.0.1:1")
        };
        for step in steps {
            match *step {
                Open(at, name) => drop(leases.insert(name, open(at).expect(claim))),
                Alive(name) => leases.get_mut(&name).unwrap().alive(),
                Drop(name) => drop(leases.remove(&name).unwrap()),
                Fail(at, name) => {
                    leases.remove(&name).unwrap().fail(began + Duration::from_secs(at));
                }
                Used(at, expected) => {
                    assert_eq!(open(at).is_some(), expected, "{claim}: {step:?}");
                }
            }
        }
    }
}
