use wssgate_config::model::{
    Balance, BetterOfTwo, ListenAddr, Located, Recovery, Sticky, Upstream, UpstreamServer,
};
use wssgate_config::template::VariableId;
use wssgate_syntax::Span;

use super::*;
use crate::peers::{Group, Lease};

const SECOND: Duration = Duration::from_secs(1);

fn model(size: u64, timeout: Duration) -> StickyLearn {
    let span = Span { file: wssgate_syntax::FileId(0), start: 0, end: 0 };
    let zone = Located { value: b"z".as_slice().into(), span };
    let (create, lookup) = (Box::default(), Box::default());
    StickyLearn { create, lookup, zone, size, timeout, at_header: false }
}

fn key(number: usize) -> SessionKey {
    SessionKey::of(number.to_string().as_bytes())
}

fn peer(text: &str) -> PeerId {
    PeerId::new(text.as_bytes()).unwrap()
}

#[test]
fn a_peer_is_called_by_its_route_or_as_nginx_calls_it() {
    assert_eq!(
        PeerId::of_address("127.0.0.1:8081").as_bytes(),
        b"df2b80dc43705d28db9be6f29fe58da3".as_slice()
    );
    assert_eq!(peer("a").as_bytes(), b"a");
    assert_ne!(peer("a"), peer("aa"));
    assert!(PeerId::new(&[b'x'; MAX_ROUTE_LEN]).is_some());
    assert!(PeerId::new(&[b'x'; MAX_ROUTE_LEN + 1]).is_none());
}

#[test]
fn a_session_lasts_from_its_last_use() {
    let sessions = Sessions::new(&model(1 << 20, 10 * SECOND), None);
    let now = Instant::now();
    sessions.learn(key(1), peer("a"), true, now);
    sessions.learn(key(2), peer("b"), false, now);
    assert_eq!(sessions.find(key(1), now + 9 * SECOND), Some(peer("a")));
    assert_eq!(sessions.find(key(2), now), None, "it was never created");
    // Looking is no use; another response of the session is, and it may come from another peer.
    assert_eq!(sessions.find(key(1), now + 10 * SECOND), None);
    sessions.learn(key(1), peer("b"), false, now + 9 * SECOND);
    assert_eq!(sessions.find(key(1), now + 18 * SECOND), Some(peer("b")));
    sessions.learn(key(1), peer("a"), false, now + 19 * SECOND);
    assert_eq!(sessions.find(key(1), now + 19 * SECOND), None, "it is over");
}

#[test]
fn a_zone_holds_what_its_size_says_and_forgets_the_longest_unused() {
    let sessions = Sessions::new(&model(32 << 10, SECOND), None);
    let now = Instant::now();
    assert_eq!(sessions.table.len(), 1);
    for number in 0..128 {
        assert_eq!(sessions.learn(key(number), peer("a"), true, now), Learnt::Quietly);
    }
    sessions.learn(key(0), peer("b"), true, now);
    assert_eq!(sessions.learn(key(128), peer("a"), true, now), Learnt::FirstLost);
    assert_eq!(sessions.learn(key(129), peer("a"), true, now), Learnt::Quietly, "told once");
    let left: Vec<_> = (0..130).filter(|n| sessions.find(key(*n), now).is_some()).collect();
    assert_eq!(left[..3], [0, 3, 4]);
    assert_eq!(left.len(), 128);
    let part = sessions.table[0].lock().unwrap();
    assert_eq!((part.sessions.len(), part.order.len()), (128, 128));
}

#[test]
fn the_next_generation_remembers_and_may_have_another_size() {
    let now = Instant::now();
    let old = Sessions::new(&model(1 << 20, SECOND), None);
    for number in 0..4000 {
        old.learn(key(number), peer("a"), true, now);
    }
    let smaller = model(32 << 10, 10 * SECOND);
    let new = Sessions::new(&smaller, Some(&old));
    assert_eq!(new.find(key(7), now + 9 * SECOND), Some(peer("a")), "with the new timeout");
    for number in 4000..4100 {
        new.learn(key(number), peer("b"), true, now);
    }
    let count: usize = new.table.iter().map(|part| part.lock().unwrap().sessions.len()).sum();
    assert!(count <= 128, "{count}");
    let other = StickyLearn {
        zone: Located { value: b"other".as_slice().into(), span: smaller.zone.span },
        ..smaller
    };
    assert_eq!(Sessions::new(&other, Some(&old)).find(key(7), now), None);
}

/// A group of peers at the ports 1, 2, …, with `sticky route`.
fn group(balance: Balance, change: impl Fn(&mut [UpstreamServer])) -> Group {
    let server = |port: u16| {
        let address = ListenAddr::Ip(([127, 0, 0, 1], port).into());
        let mut server =
            UpstreamServer::new(address.to_string().into_bytes().into(), vec![address]);
        server.route = Some(port.to_string().into_bytes().into());
        server
    };
    let mut servers: Vec<_> = (1..=3).map(server).collect();
    change(&mut servers);
    let upstream = Upstream {
        balance,
        sticky: Some(Sticky::Route([VariableId(0)].into())),
        // So that those that have failed are not tried at last.
        recovery: Recovery::Nginx,
        servers,
        ..Upstream::implicit(b"group".as_slice().into(), Vec::new())
    };
    Group::new(&upstream, None, 1)
}

/// The ports that one request for the peer `id` is given, as long as there are any.
fn ports(group: &Group, id: &str) -> String {
    let mut selection = group.selection(b"key", Some([127, 0, 0, 1].into()), 0);
    group.want(&mut selection, id.as_bytes());
    let port = |lease: Lease| lease.peer().name.rsplit(':').next().unwrap().to_owned();
    let leases = std::iter::from_fn(|| group.choose(&mut selection, Instant::now()));
    leases.map(port).collect()
}

#[test]
fn who_belongs_to_a_peer_gets_it_first_by_every_method() {
    let template = || wssgate_config::template::Template::text(*b"key");
    for balance in [
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::IpHash,
        Balance::Hash { key: template(), consistent: false },
        Balance::Hash { key: template(), consistent: true },
        Balance::Random { two: None },
        Balance::Random { two: Some(BetterOfTwo::LeastConn) },
    ] {
        let group = group(balance.clone(), |_| {});
        for id in ["1", "2", "3"] {
            let all = ports(&group, id);
            assert!(all.starts_with(id), "{balance:?}: {all} for {id}");
            let mut sorted: Vec<_> = all.chars().collect();
            sorted.sort_unstable();
            assert_eq!(sorted, ['1', '2', '3'], "each is tried once");
        }
    }
}

#[test]
fn a_peer_that_cannot_be_used_is_not_waited_for() {
    type Change = fn(&mut [UpstreamServer]);
    for (why, change, id, expected) in [
        ("down", (|servers| servers[1].down = true) as Change, "2", "13"),
        ("drain", |servers| servers[1].drain = true, "2", "213"),
        ("drain, for others", |servers| servers[1].drain = true, "x", "13"),
        ("too long a name", |_| {}, "222222222222222222222222222222222", "123"),
        ("two of one name", |servers| servers[2].route = Some((*b"2").into()), "2", "231"),
        ("backup while others live", |servers| servers[1].backup = true, "2", "132"),
        (
            "backup among others",
            |servers| {
                servers[1].backup = true;
                servers[2].backup = true;
            },
            "3",
            "132",
        ),
    ] {
        assert_eq!(ports(&group(Balance::RoundRobin, change), id), expected, "{why}");
    }
    let group = group(Balance::RoundRobin, |servers| servers[1].max_conns = 1);
    let mut selection = group.selection(b"", None, 0);
    group.want(&mut selection, b"2");
    let tunnel = group.choose(&mut selection, Instant::now()).unwrap();
    assert_eq!(&*tunnel.peer().name, "127.0.0.1:2");
    assert!(!ports(&group, "2").contains('2'), "full");
    assert!(tunnel.fail(Instant::now()));
    assert!(!ports(&group, "2").contains('2'), "failing");
}

#[test]
fn the_only_peer_drains_for_its_own_clients() {
    let only = |servers: &mut [UpstreamServer]| {
        servers[1].drain = true;
        servers[0].addresses.clear();
        servers[2].addresses.clear();
    };
    let group = group(Balance::RoundRobin, only);
    assert!(ports(&group, "1").is_empty());
    let mut selection = group.selection(b"", None, 0);
    group.want(&mut selection, b"2");
    assert!(group.choose(&mut selection, Instant::now()).is_some());
}

/// nginx's rule: one turn in advance is paid, no more.
#[test]
fn clients_that_stick_do_not_starve_their_peer_of_others_for_long() {
    let group = group(Balance::RoundRobin, |_| {});
    let next = |id: &str| {
        let mut selection = group.selection(b"", None, 0);
        group.want(&mut selection, id.as_bytes());
        let lease = group.choose(&mut selection, Instant::now()).unwrap();
        lease.peer().name.rsplit(':').next().unwrap().to_owned()
    };
    for _ in 0..20 {
        assert_eq!(next("1"), "1");
    }
    assert_eq!((0..6).map(|_| next("x")).collect::<String>(), "231231");
}
