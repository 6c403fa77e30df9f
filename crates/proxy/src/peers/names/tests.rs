use super::*;

use wssgate_config::model::{Balance, ResolverId};

fn line(name: &str, service: Option<&str>) -> UpstreamServer {
    let resolve = Resolve {
        host: name.into(),
        port: 81,
        service: service.map(|service| service.as_bytes().into()),
    };
    let server = UpstreamServer::new(name.as_bytes().into(), Vec::new());
    UpstreamServer { resolve: Some(resolve), max_fails: 7, ..server }
}

fn addresses(texts: &[&str]) -> Vec<ListenAddr> {
    texts.iter().map(|text| ListenAddr::Ip(text.parse().unwrap())).collect()
}

fn model(servers: Vec<UpstreamServer>) -> Upstream {
    let upstream = Upstream::implicit(b"group".as_slice().into(), Vec::new());
    let resolver = Some(ResolverId(0));
    Upstream { servers, resolver, balance: Balance::RoundRobin, ..upstream }
}

fn names(servers: &[UpstreamServer]) -> Vec<String> {
    let of = |server: &UpstreamServer| {
        let addresses: Vec<_> = server.addresses.iter().map(ToString::to_string).collect();
        let backup = if server.backup { " backup" } else { "" };
        format!("{} {}{backup}", addresses.join(","), server.weight)
    };
    servers.iter().map(of).collect()
}

#[test]
fn hosts_of_a_service_have_its_ports_and_weights() {
    let host = |priority, weight, target: &str| Service {
        priority,
        weight,
        port: 80,
        target: Name::new(target.as_bytes()).unwrap(),
    };
    let (first, second, third) = (host(2, 5, "b"), host(2, 0, "a"), host(7, 9, "c"));
    let hosts = [
        (&first, addresses(&["127.0.0.2:80"])),
        (&second, addresses(&["127.0.0.1:80"])),
        (&third, addresses(&["127.0.0.3:80", "127.0.0.4:80"])),
    ];
    let mut line = line("service.test", Some("http"));
    let expected = ["127.0.0.1:80 1", "127.0.0.2:80 5", "127.0.0.3:80,127.0.0.4:80 9 backup"];
    assert_eq!(names(&servers_of(&line, &hosts)), expected);
    line.weight = 3;
    line.backup = true;
    let expected =
        ["127.0.0.1:80 3 backup", "127.0.0.2:80 3 backup", "127.0.0.3:80,127.0.0.4:80 3 backup"];
    assert_eq!(names(&servers_of(&line, &hosts)), expected);
}

/// A name that is back must not be missed for long, and servers that fail must not be asked too often.
#[test]
fn a_line_that_stands_for_nothing_rests_for_a_second_at_most() {
    for (empty, expected) in [(false, [1, 2, 4, 8, 10, 10]), (true, [1; 6])] {
        let mut rest = REST;
        let rests = expected.map(|_| rest_after_failure(&mut rest, empty).as_secs());
        assert_eq!(rests, expected);
    }
}

/// Nobody answers in time for the first request after a reload.
#[test]
fn the_next_group_begins_with_the_addresses_of_the_one_before() {
    let fixed = UpstreamServer::new(b"fixed".as_slice().into(), addresses(&["127.0.0.9:9"]));
    let (host, service) = (line("a.test", None), line("a.test", Some("http")));
    let first = Group::new(&model(vec![fixed.clone(), host.clone(), service.clone()]), None, 1);
    assert_eq!(names(&first.servers()), ["127.0.0.9:9 1"]);

    let found = [
        fixed,
        UpstreamServer { addresses: addresses(&["127.0.0.1:81", "[::1]:81"]), ..host.clone() },
        UpstreamServer {
            addresses: addresses(&["127.0.0.2:82"]),
            weight: 5,
            backup: true,
            ..service.clone()
        },
    ];
    first.replace(&found);
    let mut moved = host.clone();
    moved.resolve.as_mut().unwrap().port = 83;
    moved.weight = 2;
    let lines = vec![service, line("b.test", None), moved, host];
    let second = Group::new(&model(lines.clone()), Some(&first), 1);
    let expected = ["127.0.0.2:82 5 backup", "127.0.0.1:83,[::1]:83 2", "127.0.0.1:81,[::1]:81 1"];
    assert_eq!(names(&second.servers()), expected);
    assert_eq!(second.servers()[1].max_fails, 7);
    let third = Group::new(&model(lines), Some(&second), 1);
    assert_eq!(names(&third.servers()), expected);
}

#[test]
fn a_group_without_names_follows_nothing() {
    let fixed = UpstreamServer::new(b"fixed".as_slice().into(), addresses(&["127.0.0.9:9"]));
    let model = model(vec![fixed]);
    let group = Arc::new(Group::new(&model, None, 1));
    assert!(follow(&model, &group, &[], &Arc::default()).is_none());
}
