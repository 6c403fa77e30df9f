use wssgate_config::model::CheckRules;

use super::*;

fn server(address: &str, backup: bool) -> UpstreamServer {
    UpstreamServer {
        name: address.as_bytes().into(),
        addresses: vec![ListenAddr::Ip(address.parse().unwrap())],
        weight: 1,
        max_conns: 0,
        max_fails: 1,
        slow_start: Duration::ZERO,
        fail_timeout: Duration::from_secs(10),
        backup,
        down: false,
        drain: false,
        route: None,
        resolve: None,
    }
}

fn model(servers: Vec<UpstreamServer>) -> Upstream {
    Upstream {
        name: b"group".as_slice().into(),
        explicit: true,
        servers,
        balance: Balance::RoundRobin,
        sticky: None,
        recovery: Recovery::Nginx,
        resolver: None,
        resolver_timeout: Duration::ZERO,
        checks: Vec::new(),
        keepalive: 32,
        keepalive_local: false,
        queue: None,
        keepalive_requests: 1000,
        keepalive_time: Duration::from_secs(3600),
        keepalive_timeout: Duration::from_secs(60),
    }
}

fn names(group: &Arc<Group>, count: usize) -> Vec<String> {
    let mut selection = group.selection(b"", None, 0);
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
        1,
    ));
    assert_eq!(group.tries(), 3);
    assert_eq!(names(&group, 4), ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
}

#[test]
fn a_lease_counts_until_it_is_dropped_in_every_generation() {
    let mut first = model(vec![server("127.0.0.1:1", false), server("127.0.0.1:2", false)]);
    first.balance = Balance::LeastConn;
    let old = Arc::new(Group::new(&first, None, 1));
    let tunnel = old.choose(&mut old.selection(b"", None, 0), Instant::now()).unwrap();
    assert_eq!(&*tunnel.peer().name, "127.0.0.1:1");

    first.servers.insert(0, server("127.0.0.1:3", false));
    let new = Arc::new(Group::new(&first, Some(&old), 1));
    drop(old);
    let mut chosen: Vec<_> = (0..2)
        .map(|_| new.choose(&mut new.selection(b"", None, 0), Instant::now()).unwrap())
        .collect();
    let taken: Vec<_> = chosen.iter().map(|lease| lease.peer().name.to_string()).collect();
    assert_eq!(taken, ["127.0.0.1:2", "127.0.0.1:3"], "the tunnel of the old generation counts");
    drop(tunnel);
    chosen.extend(new.choose(&mut new.selection(b"", None, 0), Instant::now()));
    assert_eq!(&*chosen[2].peer().name, "127.0.0.1:1");
}

#[test]
fn a_failure_is_remembered_by_the_next_generation() {
    let model = model(vec![server("127.0.0.1:1", false), server("127.0.0.1:2", false)]);
    let old = Arc::new(Group::new(&model, None, 1));
    let now = Instant::now();
    let lease = old.choose(&mut old.selection(b"", None, 0), now).unwrap();
    assert!(lease.fail(now));
    let new = Arc::new(Group::new(&model, Some(&old), 1));
    for _ in 0..3 {
        assert_eq!(names(&new, 1), ["127.0.0.1:2"]);
    }
}

#[test]
fn addresses_that_nobody_uses_are_forgotten() {
    let mut group = Arc::new(Group::new(&model(vec![server("127.0.0.1:1", false)]), None, 1));
    for port in 2..50 {
        let address = format!("127.0.0.1:{port}");
        group = Arc::new(Group::new(&model(vec![server(&address, false)]), Some(&group), 1));
    }
    assert!(lock(&group.known).states.len() <= 2);
}

#[test]
fn the_same_address_twice_is_two_peers() {
    let group = Arc::new(Group::new(
        &model(vec![server("127.0.0.1:1", false), server("127.0.0.1:1", false)]),
        None,
        1,
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
    /// The exchange ends without an answer, or as it may after [`Step::Alive`].
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
            "the end of an exchange without an answer says nothing",
            &[
                Open(0, 'a'),
                Fail(0, 'a'),
                Open(11, 'b'),
                Used(12, false),
                Drop('b'),
                Used(21, false),
                Open(22, 'c'),
                Used(22, false),
                Alive('c'),
                Used(23, true),
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
        let group = Arc::new(Group::new(&model(servers), None, 1));
        let began = Instant::now();
        let mut leases = std::collections::HashMap::new();
        let open = |at: u64| {
            let mut selection = group.selection(b"", None, 0);
            let now = began + Duration::from_secs(at);
            let mut chosen = std::iter::from_fn(|| group.choose(&mut selection, now));
            chosen.find(|lease| &*lease.peer().name == "127.0.0.1:1")
        };
        for step in steps {
            match *step {
                Open(at, name) => drop(leases.insert(name, open(at).expect(claim))),
                Alive(name) => drop(leases.get_mut(&name).unwrap().alive(began)),
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

fn choose(group: &Group, now: Instant) -> Option<Lease> {
    group.choose(&mut group.selection(b"", None, 0), now)
}

fn chosen(group: &Group) -> String {
    let lease = choose(group, Instant::now());
    lease.map_or_else(|| "none".into(), |lease| lease.peer().name.to_string())
}

#[test]
fn peers_that_stay_in_a_new_set_are_the_same_peers() {
    let now = Instant::now();
    let mut a = server("127.0.0.1:1", false);
    a.max_conns = 1;
    let (b, c) = (server("127.0.0.1:2", false), server("127.0.0.1:3", false));
    let group = Group::new(&model(vec![a.clone(), b.clone()]), None, 1);
    let tunnel = choose(&group, now).unwrap();
    assert_eq!(&*tunnel.peer().name, "127.0.0.1:1");
    assert!(choose(&group, now).unwrap().fail(now));
    assert_eq!(chosen(&group), "none", "the one is full, the other failing");
    group.replace(&[c, b, a]);
    assert_eq!(group.tries(), 3);
    for _ in 0..3 {
        assert_eq!(chosen(&group), "127.0.0.1:3", "as full and as failing as before");
    }
    drop(tunnel);
    let names: Vec<_> = (0..4).map(|_| chosen(&group)).collect();
    assert_eq!(names.iter().filter(|name| *name == "127.0.0.1:1").count(), 2, "{names:?}");
}

#[test]
fn a_lease_outlives_its_peer_and_counts_again_when_it_returns() {
    let now = Instant::now();
    let mut a = server("127.0.0.1:1", false);
    a.max_conns = 1;
    let (b, c) = (server("127.0.0.1:2", false), server("127.0.0.1:3", false));
    let group = Group::new(&model(vec![a.clone(), b.clone()]), None, 1);
    let tunnel = choose(&group, now).unwrap();
    group.replace(&[c.clone(), b.clone()]);
    assert_eq!(&*tunnel.peer().name, "127.0.0.1:1");
    let mut both: Vec<_> = (0..2).map(|_| chosen(&group)).collect();
    both.sort();
    assert_eq!(both, ["127.0.0.1:2", "127.0.0.1:3"], "it counts for neither");
    group.replace(&[a.clone()]);
    assert_eq!(chosen(&group), "none");
    drop(tunnel);
    assert_eq!(chosen(&group), "127.0.0.1:1");
    let failing = choose(&group, now).unwrap();
    group.replace(&[b, c]);
    failing.fail(now);
    group.replace(&[a]);
    assert_eq!(chosen(&group), "127.0.0.1:1", "what nobody had is forgotten");
}

#[test]
fn a_server_can_be_added_to_those_that_are_there() {
    let group = Group::new(&model(vec![server("127.0.0.1:1", false)]), None, 1);
    let mut servers = group.servers().to_vec();
    servers.push(server("127.0.0.1:2", true));
    group.replace(&servers);
    let names = group.servers().iter().map(|server| server.name.clone()).collect::<Vec<_>>();
    assert_eq!(names, [&b"127.0.0.1:1"[..], b"127.0.0.1:2"].map(Box::from));
    assert_eq!(group.tries(), 2);
    servers[0].down = true;
    group.replace(&servers);
    assert_eq!(group.tries(), 1);
    assert_eq!(chosen(&group), "127.0.0.1:2");
}

#[test]
fn a_request_begins_again_when_the_peers_are_replaced() {
    let now = Instant::now();
    let servers = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| server(address, false));
    let mut consistent = model(servers.to_vec());
    let key = Template::text(*b"key");
    consistent.balance = Balance::Hash { key: key.clone(), consistent: true };
    let group = Group::new(&consistent, None, 1);
    assert_eq!(group.hash_key(), Some(&key));
    let mut selection = group.selection(b"key", None, 0);
    let tried: Vec<_> = (0..2).map(|_| group.choose(&mut selection, now).unwrap()).collect();
    assert!(group.choose(&mut selection, now).is_none(), "both were tried");
    group.replace(&[server("127.0.0.1:3", false), server("127.0.0.1:4", false)]);
    let next = group.choose(&mut selection, now).unwrap();
    let expected = group.choose(&mut group.selection(b"key", None, 0), now).unwrap();
    assert_eq!(next.peer().name, expected.peer().name, "the key has its place on the new ring");
    assert!(tried.iter().all(|lease| lease.peer().name != next.peer().name));
}

#[test]
fn round_robin_goes_on_in_a_new_set() {
    let servers = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
    let servers = servers.map(|address| server(address, false));
    let group = Group::new(&model(servers.to_vec()), None, 1);
    assert_eq!(chosen(&group), "127.0.0.1:1");
    group.replace(&servers);
    assert_eq!(chosen(&group), "127.0.0.1:2");
    let next = Group::new(&model(servers.to_vec()), Some(&group), 1);
    assert_eq!(chosen(&next), "127.0.0.1:3");
}

#[test]
fn the_first_connections_of_many_workers_are_spread() {
    let mut servers = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| server(address, false));
    servers[0].weight = 3;
    let group = Group::new(&model(servers.to_vec()), None, 8);
    let first = |worker| {
        let lease = group.choose(&mut group.selection(b"", None, worker), Instant::now());
        lease.unwrap().peer().name.ends_with(":1")
    };
    let firsts: Vec<_> = (0..8).map(first).collect();
    assert_eq!(firsts, [true, true, false, true, true, true, false, true]);
}

#[test]
fn a_request_that_was_not_sent_leaves_its_probe_to_the_next_one() {
    let began = Instant::now();
    let servers = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| server(address, false));
    let group = Group::new(&model(servers.to_vec()), None, 1);
    let first = |now| {
        let mut selection = group.selection(b"", None, 0);
        let mut chosen = std::iter::from_fn(|| group.choose(&mut selection, now));
        chosen.find(|lease| lease.peer().name.ends_with(":1"))
    };
    first(began).unwrap().fail(began);
    let rested = began + Duration::from_secs(11);
    for _ in 0..3 {
        first(rested).expect("a probe").unused();
    }
    let mut probe = first(rested).expect("a probe");
    assert!(first(rested).is_none(), "there is one already");
    assert!(probe.alive(rested));
    assert!(first(rested).is_some());
}

/// What requests of a group find that has these servers, by the last digit of their ports.
struct Eager {
    group: Group,
    began: Instant,
}

impl Eager {
    fn new(servers: Vec<UpstreamServer>) -> Self {
        let model = Upstream { recovery: Recovery::Eager, ..model(servers) };
        Self { group: Group::new(&model, None, 1), began: Instant::now() }
    }

    /// One request at a time in milliseconds; the peers that it tries. Those in `alive` answer.
    fn request(&self, millis: u64, alive: &str) -> String {
        let now = self.began + Duration::from_millis(millis);
        let mut selection = self.group.selection(b"", None, 0);
        let mut tried = String::new();
        while let Some(mut lease) = self.group.choose(&mut selection, now) {
            let name = lease.peer().name.chars().last().unwrap();
            tried.push(name);
            if alive.contains(name) {
                self.group.answered(&mut lease, now);
                break;
            }
            lease.fail(now);
        }
        tried
    }
}

#[test]
fn where_all_have_failed_each_request_tries_them_once_from_the_least_recently_failed_on() {
    let mut servers = [1, 2, 3].map(|port| server(&format!("127.0.0.1:{port}"), false)).to_vec();
    servers.push(UpstreamServer { down: true, ..server("127.0.0.1:4", false) });
    let eager = Eager::new(servers.clone());
    assert_eq!(eager.request(0, ""), "123");
    assert_eq!(eager.request(10, ""), "123", "of equals the first");
    assert_eq!(eager.request(20, "2"), "12");
    assert_eq!(eager.request(21, "2"), "32", "it is back, and the others are asked once");
    assert_eq!(eager.request(22, "2"), "12");
    assert_eq!(eager.request(23, "123"), "2");
    assert_eq!(eager.request(24, ""), "231", "after the one in use the others, the longest first");
    assert_eq!(eager.request(25, "3"), "123");
    let nginx = Group::new(&model(servers), None, 1);
    let now = Instant::now();
    for _ in 0..3 {
        choose(&nginx, now).unwrap().fail(now);
    }
    assert!(choose(&nginx, now).is_none(), "nginx refuses");
}

/// Whoever is back first must not get all clients, as WebSockets stay where they are.
#[test]
fn when_one_of_all_is_back_the_others_are_asked_at_once() {
    let ports = |backups| [1, 2, 3].map(|port| (port, port > 3 - backups));
    let eager = |backups| {
        let server = |(port, backup)| server(&format!("127.0.0.1:{port}"), backup);
        Eager::new(ports(backups).map(server).to_vec())
    };
    let group = eager(0);
    assert_eq!(group.request(0, ""), "123");
    assert_eq!(group.request(10, "123"), "1");
    let shared: String = (11..41).map(|millis| group.request(millis, "123")).collect();
    let of = |name| shared.matches(name).count();
    let shares = [of('1'), of('2'), of('3')];
    assert!(shares.iter().all(|share| (9..=11).contains(share)), "{shared}");

    let group = eager(0);
    assert_eq!(group.request(0, ""), "123");
    assert_eq!(group.request(10, "1"), "1");
    let asked: Vec<u64> =
        (11..300).filter(|millis| group.request(*millis, "12").contains('3')).collect();
    let rests: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let grow = rests.windows(2).all(|pair| pair[1] > pair[0]);
    assert!((3..=5).contains(&rests.len()) && grow, "late, so asked again soon: {asked:?}");

    let group = eager(0);
    assert_eq!(group.request(0, "3"), "123");
    let tried: String = (600..1600).map(|millis| group.request(millis, "13")).collect();
    assert!(tried.matches('1').count() > 400, "{tried}");
    assert_eq!(tried.matches('2').count(), 1, "3 was there all the time");

    let group = eager(1);
    assert_eq!(group.request(0, "3"), "123");
    assert_eq!(group.request(501, "23"), "2");
    let shared: String = (502..506).map(|millis| group.request(millis, "123")).collect();
    assert!(shared.contains('1'), "a backup server in use is no reason to wait: {shared}");

    let group = eager(2);
    assert_eq!(group.request(0, ""), "123");
    assert_eq!(group.request(10, "3"), "123");
    assert_eq!(group.request(11, "123"), "1", "nor is one that is back a reason to stay there");
}

#[test]
fn who_is_of_no_use_when_it_is_back_is_not_asked_sooner() {
    let servers = [1, 2].map(|port| server(&format!("127.0.0.1:{port}"), false)).to_vec();
    let eager = Eager::new(servers);
    assert_eq!(eager.request(0, ""), "12");
    let reset = |millis, name| {
        let now = eager.began + Duration::from_millis(millis);
        let mut lease = choose(&eager.group, now).unwrap();
        assert!(lease.peer().name.ends_with(name), "{}", lease.peer().name);
        eager.group.answered(&mut lease, now);
        lease.fail(now);
    };
    reset(10, '1');
    reset(11, '2');
    // Both are out of use again; nothing of that makes another probe due.
    assert_eq!(eager.request(12, "2"), "12");
    for millis in 13..500 {
        assert_eq!(eager.request(millis, "2"), "2");
    }
    let rested: String = (600..603).map(|millis| eager.request(millis, "2")).collect();
    assert!(rested.contains('1'), "{rested}");
}

#[test]
fn backup_servers_are_tried_before_servers_that_have_failed() {
    let servers = [(1, false), (2, false), (3, true)];
    let servers = servers.map(|(port, backup)| server(&format!("127.0.0.1:{port}"), backup));
    let eager = Eager::new(servers.to_vec());
    assert_eq!(eager.request(0, "3"), "123");
    assert_eq!(eager.request(10, "123"), "3");
    assert_eq!(eager.request(20, ""), "312", "it has failed as well");
    assert_eq!(eager.request(30, "3"), "123", "in the order in which they failed");
    assert_eq!(eager.request(600, "1"), "21", "the ordinary servers are asked again");
    assert_eq!(eager.request(601, "1"), "21", "as one of them is back");
    assert_eq!(eager.request(602, "1"), "1");
}

#[test]
fn a_full_server_is_not_tried_whatever_the_others_are() {
    let mut servers = [1, 2].map(|port| server(&format!("127.0.0.1:{port}"), false));
    servers[0].max_conns = 1;
    let eager = Eager::new(servers.to_vec());
    let _open = eager.group.choose(&mut eager.group.selection(b"", None, 0), eager.began).unwrap();
    assert_eq!(eager.request(0, ""), "2");
    assert_eq!(eager.request(1, ""), "2");
}

/// A and then B: whoever was away first must not stay without work.
#[test]
fn after_a_rolling_restart_load_is_shared_again() {
    for balance in [Balance::RoundRobin, Balance::LeastConn] {
        let servers = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| server(address, false));
        let model = Upstream {
            recovery: Recovery::Eager,
            balance: balance.clone(),
            ..model(servers.to_vec())
        };
        let group = Group::new(&model, None, 1);
        let began = Instant::now();
        let mut tunnels: Vec<Lease> = Vec::new();
        // One of the servers is away for two seconds, then the other.
        let phases = [None, Some('1'), None, None, None, Some('2'), None, None];
        for (phase, away) in (0..).zip(phases) {
            tunnels.retain(|lease| Some(lease.peer().name.chars().last().unwrap()) != away);
            let mut opened = String::new();
            for millis in (phase * 2000..phase * 2000 + 2000).step_by(20) {
                let now = began + Duration::from_millis(millis);
                let mut selection = group.selection(b"", None, 0);
                while let Some(mut lease) = group.choose(&mut selection, now) {
                    let name = lease.peer().name.chars().last().unwrap();
                    if Some(name) == away {
                        lease.fail(now);
                        continue;
                    }
                    lease.alive(now);
                    tunnels.push(lease);
                    opened.push(name);
                    break;
                }
            }
            assert_eq!(opened.len(), 100, "{balance:?}: every request finds the one that is there");
            let of = |name| opened.matches(name).count();
            match (away, &balance) {
                (Some(away), _) => assert_eq!(of(away), 0),
                // Round robin gives both the same, `least_conn` the one that has come back all.
                (None, Balance::RoundRobin) if phase != 2 && phase != 6 => {
                    assert_eq!(of('1'), 50, "phase {phase}: {opened}");
                }
                (None, _) => {
                    let returned = if phase < 5 { '1' } else { '2' };
                    assert!(phase == 0 || of(returned) > 0, "{balance:?} {phase}: {opened}");
                }
            }
        }
    }
}

/// As many workers as there are threads, all at the same group, while its peers are replaced.
#[test]
fn workers_at_once_never_exceed_max_conns() {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::SeqCst;
    const WORKERS: usize = 4;
    let mut servers = [1, 2, 3].map(|port| server(&format!("127.0.0.1:{port}"), false));
    servers[0].max_conns = 1;
    servers[1].max_conns = 2;
    for balance in [
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::Random { two: Some(BetterOfTwo::LeastConn) },
    ] {
        let model = Upstream { balance, ..model(servers.to_vec()) };
        let group = Group::new(&model, None, WORKERS);
        let open = [0; 3].map(AtomicU32::new);
        let peer = |lease: &Lease| usize::from(lease.peer().name.as_bytes()[10] - b'1');
        let work = &|worker: usize| {
            for round in 0..3000 {
                let mut selection = group.selection(b"", None, worker);
                let mut leases = Vec::new();
                for _ in 0..2 {
                    let Some(lease) = group.choose(&mut selection, Instant::now()) else { break };
                    let most = servers[peer(&lease)].max_conns;
                    let count = open[peer(&lease)].fetch_add(1, SeqCst) + 1;
                    assert!(most == 0 || count <= most, "{count} of {most}");
                    leases.push(lease);
                }
                for (number, mut lease) in leases.into_iter().enumerate() {
                    open[peer(&lease)].fetch_sub(1, SeqCst);
                    if (round + number) % 7 > 0 {
                        lease.alive(Instant::now());
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                scope.spawn(move || work(worker));
            }
            for round in 0..300 {
                let mut servers = servers.clone();
                servers.rotate_left(round % 3);
                group.replace(&servers);
            }
        });
        for peer in &group.peers.load().primary.peers {
            assert_eq!(peer.state.conns.load(SeqCst), 0, "{}", peer.name);
        }
    }
}

#[test]
fn of_all_workers_one_is_given_the_chance_of_a_rested_peer() {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    const ROUNDS: usize = 3000;
    let servers = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| server(address, false));
    let group = Group::new(&model(servers.to_vec()), None, 2);
    let began = Instant::now();
    let time_of = |round| began + Duration::from_secs(11) * u32::try_from(round).unwrap();
    choose(&group, began).unwrap().fail(began);
    let (ready, probes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Both leave this together, as closely as can be.
    let wait_for = |count| {
        ready.fetch_add(1, SeqCst);
        for spins in 0.. {
            if ready.load(SeqCst) >= count {
                break;
            }
            if spins > 1000 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    let work = &|worker| {
        for round in 1..=ROUNDS {
            let now = time_of(round);
            let mut selection = group.selection(b"", None, worker);
            wait_for(round * 4 - 2);
            let leases: Vec<_> = std::iter::from_fn(|| group.choose(&mut selection, now)).collect();
            for lease in leases.into_iter().filter(|lease| lease.peer().name.ends_with(":1")) {
                probes.fetch_add(1, SeqCst);
                lease.fail(now);
            }
            wait_for(round * 4);
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|worker| drop(scope.spawn(move || work(worker)))));
    assert_eq!(probes.load(SeqCst), ROUNDS);
}

#[tokio::test]
async fn requests_wait_in_order_for_a_peer_with_room() {
    let mut only = server("127.0.0.1:1", false);
    only.max_conns = 1;
    let limits = Limits { requests: 2, timeout: Duration::from_secs(600) };
    let model = Upstream { queue: Some(limits), ..model(vec![only]) };
    let group = Group::new(&model, None, 1);
    let [mut a, mut b, mut c, mut d] = [0; 4].map(|_| group.selection(b"", None, 0));
    let open = group.choose_or_wait(&mut group.selection(b"", None, 0)).await.unwrap();
    let mut first = Box::pin(group.choose_or_wait(&mut a));
    let mut second = Box::pin(group.choose_or_wait(&mut b));
    assert!(now(&mut first).await.is_none());
    assert!(now(&mut second).await.is_none());
    assert!(group.choose_or_wait(&mut c).await.is_none(), "there are two already");
    drop(open);
    assert!(now(&mut second).await.is_none(), "it is not its turn");
    let open = first.await.unwrap();
    // The client of the second leaves, and the next one is served.
    let mut third = Box::pin(group.choose_or_wait(&mut c));
    assert!(now(&mut third).await.is_none());
    drop(second);
    drop(open);
    let open = third.await.unwrap();
    let hasty = Limits { requests: 2, timeout: Duration::from_millis(20) };
    let next = Group::new(&Upstream { queue: Some(hasty), ..model }, Some(&group), 1);
    assert!(next.choose_or_wait(&mut d).await.is_none(), "its time is over");
    drop(open);
    assert!(next.choose_or_wait(&mut d).await.is_some());
}

/// What a future has by now.
async fn now<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}

/// What a check finds without other parameters.
const CHECK: CheckRules =
    CheckRules { fails: 1, passes: 1, mandatory: false, persistent: false, on_down: OnDown::Keep };

/// A group with these checks and peers at ports from 1 on.
fn checked(recovery: Recovery, checks: &[CheckRules], peers: usize) -> Upstream {
    let servers = (1..=peers).map(|port| server(&format!("127.0.0.1:{port}"), false));
    Upstream { recovery, checks: checks.to_vec(), ..model(servers.collect()) }
}

fn result(group: &Group, peer: usize, passed: bool, now: Instant) -> CheckResult {
    group.check_result(&group.checked_peers()[peer], 0, passed, now)
}

#[test]
fn an_unhealthy_peer_is_not_asked_though_all_are() {
    for recovery in [Recovery::Nginx, Recovery::Eager] {
        for peers in [1, 2] {
            let group = Arc::new(Group::new(&checked(recovery, &[CHECK], peers), None, 1));
            let now = Instant::now();
            let down = CheckResult { turn: Some(Turn::Down), concerns_tunnels: false };
            assert_eq!(result(&group, 0, false, now), down);
            let left = ["127.0.0.1:2"; 2];
            assert_eq!(names(&group, 2), left[..peers - 1], "{recovery:?}");
            if peers == 2 {
                result(&group, 1, false, now);
            }
            assert_eq!(names(&group, 2), [""; 0], "{recovery:?}");
            assert!(group.peers().values().all(|status| status.is_known && !status.in_use));
            let up = CheckResult { turn: Some(Turn::Up), concerns_tunnels: false };
            assert_eq!(result(&group, 0, true, now), up);
            assert_eq!(names(&group, 1), ["127.0.0.1:1"], "{recovery:?}");
        }
    }
}

/// Requests may have failed meanwhile, which a pass after that outweighs.
#[test]
fn a_peer_that_is_healthy_again_grows_slowly_and_has_no_failures() {
    let mut model = checked(Recovery::Nginx, &[CHECK], 2);
    for server in &mut model.servers {
        (server.slow_start, server.weight) = (Duration::from_secs(100), 1);
    }
    let group = Arc::new(Group::new(&model, None, 1));
    let now = Instant::now();
    let first = group.choose(&mut group.selection(b"", None, 0), now).unwrap();
    assert_eq!(&*first.peer().name, "127.0.0.1:1");
    assert!(first.fail(now), "out of use");
    result(&group, 0, false, now);
    result(&group, 0, true, now);
    let taken = |now| {
        let choose = |_| group.choose(&mut group.selection(b"", None, 0), now).unwrap();
        let leases: Vec<_> = (0..100).map(choose).collect();
        leases.iter().filter(|lease| &*lease.peer().name == "127.0.0.1:1").count()
    };
    assert!(taken(now + Duration::from_secs(1)) <= 2);
    assert!((49..=51).contains(&taken(now + Duration::from_secs(100))));
}

#[test]
fn who_sticks_to_an_unhealthy_peer_gets_another() {
    let group = Arc::new(Group::new(&checked(Recovery::Eager, &[CHECK], 2), None, 1));
    let now = Instant::now();
    let id = group.checked_peers()[0].id().as_bytes().to_vec();
    let wanted = || {
        let mut selection = group.selection(b"", None, 0);
        group.want(&mut selection, &id);
        group.choose(&mut selection, now).unwrap().peer().name.to_string()
    };
    assert_eq!([wanted(), wanted()], ["127.0.0.1:1"; 2]);
    result(&group, 0, false, now);
    assert_eq!([wanted(), wanted()], ["127.0.0.1:2"; 2]);
}

#[test]
fn a_mandatory_check_comes_before_requests_also_to_new_peers() {
    let mandatory = CheckRules { mandatory: true, ..CHECK };
    let model = checked(Recovery::Eager, &[mandatory], 1);
    let group = Arc::new(Group::new(&model, None, 1));
    let now = Instant::now();
    assert_eq!(names(&group, 1), [""; 0]);
    result(&group, 0, true, now);
    assert_eq!(names(&group, 1), ["127.0.0.1:1"]);
    let mut changes = group.changes();
    let both: Vec<_> = ["127.0.0.1:1", "127.0.0.1:2"].map(|name| server(name, false)).into();
    group.replace(&both);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(names(&group, 2), ["127.0.0.1:1"]);
    result(&group, 1, true, now);
    assert_eq!(names(&group, 2).len(), 2);
}

/// Nobody is refused before the new configuration is in force, and no result is lost then.
#[test]
fn a_reload_takes_effect_on_checks_when_they_begin() {
    let persistent = CheckRules { mandatory: true, persistent: true, ..CHECK };
    let old = Arc::new(Group::new(&checked(Recovery::Eager, &[CHECK], 2), None, 1));
    let now = Instant::now();
    result(&old, 1, false, now);
    for (checks, expected) in [
        (&[CHECK][..], &["127.0.0.1:1"][..]),
        (&[persistent, CHECK], &["127.0.0.1:1"]),
        (&[CheckRules { persistent: false, ..persistent }], &[]),
        (&[], &["127.0.0.1:1", "127.0.0.1:2"]),
    ] {
        let new = Arc::new(Group::new(&checked(Recovery::Eager, checks, 2), Some(&old), 1));
        let mut before = names(&old, 2);
        before.sort();
        assert_eq!(before, ["127.0.0.1:1"], "{checks:?}");
        new.begin_checks();
        let mut after = names(&new, 2);
        after.sort();
        assert_eq!(after, expected, "{checks:?}");
        // Back to what it was.
        old.begin_checks();
        result(&old, 0, true, now);
        result(&old, 1, false, now);
    }
}

#[test]
fn tunnels_are_concerned_once_by_each_turn_and_only_where_that_is_wanted() {
    for (on_down, concerns) in [(OnDown::Keep, false), (OnDown::Drain, true), (OnDown::Close, true)]
    {
        let rules = CheckRules { on_down, ..CHECK };
        let group = Group::new(&checked(Recovery::Eager, &[rules], 1), None, 1);
        let now = Instant::now();
        assert_eq!(result(&group, 0, false, now).concerns_tunnels, concerns);
        let peer = &group.checked_peers()[0];
        assert_eq!(peer.on_down(), on_down);
        let still = CheckResult { turn: None, concerns_tunnels: false };
        assert_eq!(result(&group, 0, false, now), still);
        assert_eq!(result(&group, 0, true, now).concerns_tunnels, concerns);
        assert_eq!(peer.on_down(), OnDown::Keep);
    }
}

/// How many of 400 requests, each with a key and client of its own, go to the server with this port. All are open at
/// the same time, for idle servers are all the same to some methods.
fn share_of(group: &Group, port: u16) -> usize {
    let address = ListenAddr::Ip(([127, 0, 0, 1], port).into());
    let chosen = |number: u16| {
        let client = IpAddr::from([10, (number >> 8) as u8, number as u8, 1]);
        let key = format!("key {number}");
        let mut selection = group.selection(key.as_bytes(), Some(client), 0);
        group.choose(&mut selection, Instant::now()).unwrap()
    };
    let leases: Vec<_> = (0..400).map(chosen).collect();
    leases.iter().filter(|lease| lease.peer().address == address).count()
}

/// Changes the server with this port.
fn change(group: &Group, port: u16, usage: Option<Usage>, weight: Option<u32>) {
    let address = ListenAddr::Ip(([127, 0, 0, 1], port).into());
    let change = Change { usage: Some(usage), weight: Some(weight) };
    assert_eq!(group.change(&address, change, Instant::now()).len(), 1);
}

fn key() -> Template {
    let text = "events {} http { upstream u { hash $uri; server 127.0.0.1:1; } }";
    let options = wssgate_config::LoadOptions::text(text);
    let http = wssgate_config::load(&options).unwrap().config.http.unwrap();
    match &http.upstreams[0].balance {
        Balance::Hash { key, .. } => key.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_method_obeys_what_an_operator_has_set() {
    let time = wssgate_config::model::TimeOf::Header;
    for balance in [
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::LeastTime { of: time, inflight: false },
        Balance::IpHash,
        Balance::Hash { key: key(), consistent: false },
        Balance::Hash { key: key(), consistent: true },
        Balance::Random { two: None },
        Balance::Random { two: Some(BetterOfTwo::LeastConn) },
    ] {
        let what = format!("{balance:?}");
        let servers = (1..=4).map(|port| server(&format!("127.0.0.1:{port}"), false)).collect();
        let group = Group::new(&Upstream { balance, ..model(servers) }, None, 1);
        let even = share_of(&group, 2);
        assert!((60..=140).contains(&even), "{even} of 400: {what}");
        change(&group, 2, None, Some(9));
        let heavy = share_of(&group, 2);
        assert!((250..=350).contains(&heavy), "{heavy} of 400: {what}");
        for usage in [Usage::Down, Usage::Drain] {
            change(&group, 2, Some(usage), Some(9));
            assert_eq!(share_of(&group, 2), 0, "{what}");
            assert_eq!(group.tries(), 3);
        }
        change(&group, 2, Some(Usage::Up), Some(9));
        assert!(share_of(&group, 2) >= 250, "{what}");
        change(&group, 2, None, None);
        let even = share_of(&group, 2);
        assert!((60..=140).contains(&even), "{even} of 400: {what}");
    }
}

#[test]
fn what_is_set_outlives_new_addresses_and_not_a_reload() {
    let of = |port: u16| server(&format!("127.0.0.1:{port}"), false);
    let servers = vec![of(1), of(2), of(3)];
    let group = Group::new(&model(servers.clone()), None, 1);
    let unknown = ListenAddr::Ip("127.0.0.1:9".parse().unwrap());
    let down = Change { usage: Some(Some(Usage::Down)), ..Change::default() };
    assert!(group.change(&unknown, down, Instant::now()).is_empty());
    change(&group, 1, Some(Usage::Down), None);
    change(&group, 2, None, Some(3));
    group.replace(&[of(2), of(4)]);
    assert_eq!((share_of(&group, 2), share_of(&group, 4)), (300, 100));
    group.replace(&[of(1), of(2), of(4)]);
    assert_eq!(share_of(&group, 1), 0, "it is back and still down");
    let status = group.peers();
    let of_first = status[&ListenAddr::Ip("127.0.0.1:1".parse().unwrap())].more.unwrap();
    assert_eq!((of_first.usage, of_first.set.usage), (Usage::Down, Some(Usage::Down)));
    let next = Group::new(&model(servers), Some(&group), 1);
    assert_eq!([1, 2, 3].map(|port| share_of(&next, port) / 10), [13, 13, 13]);
}

#[test]
fn up_is_stronger_than_the_configuration_and_clears_the_record() {
    let mut first = server("127.0.0.1:1", false);
    first.down = true;
    first.slow_start = Duration::from_secs(30);
    let group = Group::new(&model(vec![first, server("127.0.0.1:2", false)]), None, 1);
    assert_eq!(share_of(&group, 1), 0);
    change(&group, 1, Some(Usage::Up), None);
    assert!(share_of(&group, 1) > 0, "it comes back slowly");
    let address = ListenAddr::Ip("127.0.0.1:2".parse().unwrap());
    let lease = group.choose(&mut group.selection(b"", None, 0), Instant::now());
    drop(lease);
    let mut selection = group.selection(b"", None, 0);
    while let Some(lease) = group.choose(&mut selection, Instant::now()) {
        if lease.peer().address == address {
            lease.fail(Instant::now());
        }
    }
    assert!(!group.peers()[&address].in_use);
    change(&group, 2, Some(Usage::Down), None);
    change(&group, 2, Some(Usage::Up), None);
    let status = group.peers()[&address];
    assert!(status.in_use && status.more.unwrap().set == Override::default(), "{status:?}");
}

/// It is out because requests have failed, and nobody has set it down.
#[test]
fn up_brings_back_a_server_whose_requests_have_failed() {
    let mut first = server("127.0.0.1:1", false);
    first.slow_start = Duration::from_secs(30);
    first.max_fails = 2;
    let address = first.addresses[0].clone();
    let group = Group::new(&model(vec![first, server("127.0.0.1:2", false)]), None, 1);
    let fail = || {
        let mut selection = group.selection(b"", None, 0);
        while let Some(lease) = group.choose(&mut selection, Instant::now()) {
            if lease.peer().address == address {
                lease.fail(Instant::now());
                return;
            }
        }
    };
    let is_failing = || group.peers()[&address].more.unwrap().is_failing;
    fail();
    change(&group, 1, Some(Usage::Up), None);
    fail();
    assert!(!is_failing(), "the first failure is forgotten");
    assert_eq!(share_of(&group, 1), 200, "nothing was to come back from");
    fail();
    assert!(is_failing());
    change(&group, 1, None, Some(1));
    assert!(is_failing(), "a weight says nothing of its health");
    change(&group, 1, Some(Usage::Up), None);
    assert!(!is_failing());
    assert!((1..100).contains(&share_of(&group, 1)), "it comes back slowly");
}
