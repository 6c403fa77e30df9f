use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use wssgate_config::model::{ListenAddr, Recovery, UpstreamServer};

use super::*;

/// Peers called `a`, `b`, `c`, … with a clock of their own.
struct Bench {
    tier: Tier,
    method: Method,
    now: Instant,
    numbers: Vec<u64>,
    /// How each peer was taken last.
    taken: Vec<Option<Taken>>,
}

impl Bench {
    fn new(method: Method, weights: &[u32]) -> Self {
        let peers = weights.iter().enumerate().map(|(line, &weight)| {
            let address = ListenAddr::Unix(format!("{line}").into());
            let server = UpstreamServer {
                name: b"peer".as_slice().into(),
                addresses: Vec::new(),
                weight,
                max_conns: 0,
                max_fails: 1,
                slow_start: Duration::ZERO,
                fail_timeout: Duration::from_secs(10),
                backup: false,
                down: false,
                drain: false,
                route: None,
                resolve: None,
            };
            Arc::new(Peer::new(
                &server,
                Recovery::Nginx,
                line,
                (&Arc::default(), &address),
                Arc::default(),
            ))
        });
        let weights: Vec<_> = weights.iter().map(|&weight| i64::from(weight)).collect();
        let tier = Tier {
            peers: peers.collect(),
            total_weight: weights.iter().sum(),
            current_weights: CurrentWeights::new(&weights, 1),
        };
        let taken = vec![None; weights.len()];
        Self { tier, method, now: Instant::now(), numbers: Vec::new(), taken }
    }

    /// A peer, to change what the configuration says of it.
    fn peer(&mut self, index: usize) -> &mut Peer {
        Arc::get_mut(&mut self.tier.peers[index]).expect("nobody else has it")
    }

    fn selection(&self, key: &str) -> Progress {
        Progress::new(&self.method, key.as_bytes().into())
    }

    fn choose(&mut self, selection: &mut Progress) -> Option<usize> {
        let tier = View {
            peers: &self.tier.peers,
            total_weight: self.tier.total_weight,
            current_weights: self.tier.current_weights.of_worker(0),
            single: self.tier.peers.len() == 1,
            now: self.now,
        };
        let numbers = &mut self.numbers;
        let mut random = || if numbers.is_empty() { 0 } else { numbers.remove(0) };
        let (index, taken) = selection.choose(&self.method, tier, &mut random)?;
        self.taken[index] = Some(taken);
        Some(index)
    }

    fn release(&mut self, index: usize, failed: bool) -> bool {
        let peer = &self.tier.peers[index];
        let taken = self.taken[index].expect("it was chosen");
        peer.give_back();
        if failed {
            return peer.failed(taken, false, self.now);
        }
        peer.answered(taken, self.now);
        false
    }

    /// One request that succeeds, and the letter of its peer.
    fn request(&mut self, key: &str) -> char {
        let mut selection = self.selection(key);
        let Some(index) = self.choose(&mut selection) else { return '-' };
        self.release(index, false);
        letter(index)
    }

    fn requests(&mut self, count: usize) -> String {
        (0..count).map(|_| self.request("")).collect()
    }
}

fn letter(index: usize) -> char {
    char::from(b'a' + u8::try_from(index).unwrap_or(25))
}

#[test]
fn round_robin_is_smooth() {
    for (weights, expected) in [
        (&[1, 1, 1][..], "abcabc"),
        (&[5, 1, 1], "aabacaaaabacaa"),
        (&[4, 2, 1], "abacabaabacaba"),
        (&[1, 2], "babbab"),
    ] {
        let mut bench = Bench::new(Method::RoundRobin, weights);
        assert_eq!(bench.requests(expected.len()), expected, "{weights:?}");
    }
}

#[test]
fn a_failing_peer_rests_and_comes_back_with_little_weight() {
    let mut bench = Bench::new(Method::RoundRobin, &[2, 1]);
    let mut selection = bench.selection("");
    assert_eq!(bench.choose(&mut selection), Some(0));
    assert!(bench.release(0, true));
    assert_eq!(bench.choose(&mut selection), Some(1), "the next try goes to another peer");
    bench.release(1, false);
    assert_eq!(bench.choose(&mut selection), None, "all were tried");
    assert_eq!(bench.requests(3), "bbb");
    bench.now += Duration::from_secs(10);
    assert_eq!(bench.requests(1), "b", "fail_timeout must have passed, not just arrived");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.requests(6), "bbabaa", "its effective weight grows from zero");
}

#[test]
fn failures_are_forgotten_only_after_a_rest() {
    let mut bench = Bench::new(Method::RoundRobin, &[1, 1]);
    bench.peer(0).rules.max_fails = 2;
    let fail = |bench: &mut Bench| {
        let mut selection = bench.selection("");
        while bench.choose(&mut selection) != Some(0) {
            bench.release(1, false);
        }
        bench.release(0, true)
    };
    assert!(!fail(&mut bench));
    bench.requests(4);
    assert!(fail(&mut bench), "successes in between do not clear the count");
}

#[test]
fn no_count_of_failures_with_max_fails_0() {
    let mut bench = Bench::new(Method::RoundRobin, &[1, 1]);
    bench.peer(0).rules.max_fails = 0;
    let mut selection = bench.selection("");
    assert_eq!(bench.choose(&mut selection), Some(0));
    assert!(!bench.release(0, true));
    assert_eq!(bench.requests(4), "baba");
}

#[test]
fn the_only_peer_is_used_whatever_its_failures() {
    let mut bench = Bench::new(Method::RoundRobin, &[1]);
    for _ in 0..3 {
        let mut selection = bench.selection("");
        assert_eq!(bench.choose(&mut selection), Some(0));
        bench.release(0, true);
    }
    bench.peer(0).down = true;
    assert_eq!(bench.requests(1), "-");
}

#[test]
fn a_full_peer_is_passed_over() {
    for method in [Method::RoundRobin, Method::Least(Load::Connections)] {
        let mut bench = Bench::new(method, &[1, 1]);
        bench.peer(0).max_conns = 1;
        let mut selection = bench.selection("");
        assert_eq!(bench.choose(&mut selection), Some(0));
        assert_eq!(bench.requests(3), "bbb");
        bench.release(0, false);
        assert_eq!(bench.requests(2), "ba");
    }
    let mut bench = Bench::new(Method::RoundRobin, &[1]);
    bench.peer(0).max_conns = 1;
    let mut selection = bench.selection("");
    assert_eq!(bench.choose(&mut selection), Some(0));
    assert_eq!(bench.requests(1), "-");
}

#[test]
fn a_down_peer_is_never_chosen() {
    let mut bench = Bench::new(Method::RoundRobin, &[9, 1, 1]);
    bench.peer(0).down = true;
    assert_eq!(bench.requests(4), "bcbc");
}

#[test]
fn least_conn_counts_connections_for_their_weight() {
    let mut bench = Bench::new(Method::Least(Load::Connections), &[2, 1]);
    let mut order = String::new();
    for _ in 0..6 {
        let mut selection = bench.selection("");
        order.extend(bench.choose(&mut selection).map(letter));
    }
    assert_eq!(order, "ababaa", "open connections stay in proportion 2 to 1");
    bench.release(1, false);
    bench.release(1, false);
    assert_eq!(bench.request(""), 'b');
}

#[test]
fn least_conn_among_equals_is_round_robin() {
    let mut bench = Bench::new(Method::Least(Load::Connections), &[1, 1, 1]);
    assert_eq!(bench.requests(6), "abcabc");
}

/// `ip_hash` of 127.0.0.x among two equal peers: 89, then three rounds of `h * 113 + byte mod 6271`.
#[test]
fn ip_hash_keeps_a_client_at_its_peer() {
    let expected = |key: &[u8]| {
        key.iter().fold(89u64, |hash, byte| (hash * 113 + u64::from(*byte)) % 6271) % 3
    };
    for address in [[127, 0, 0], [10, 1, 2], [192, 168, 7], [8, 8, 8]] {
        let mut bench = Bench::new(Method::IpHash, &[1, 1, 1]);
        for _ in 0..3 {
            let mut selection = Progress::new(&bench.method, address.into());
            let chosen = bench.choose(&mut selection);
            assert_eq!(chosen.map(|index| index as u64), Some(expected(&address)), "{address:?}");
        }
    }
}

#[test]
fn a_hashed_request_goes_elsewhere_when_its_peer_fails() {
    for method in [Method::IpHash, Method::Hash] {
        let mut bench = Bench::new(method, &[1, 1]);
        let mut selection = bench.selection("key");
        let first = bench.choose(&mut selection);
        let second = bench.choose(&mut selection);
        assert!(first.is_some() && second.is_some() && first != second);
        assert_eq!(bench.choose(&mut selection), None);
    }
}

#[test]
fn an_empty_hash_key_is_round_robin() {
    let mut bench = Bench::new(Method::Hash, &[1, 1]);
    assert_eq!(bench.requests(4), "abab");
}

#[test]
fn hash_is_that_of_cache_memcached() {
    let mut bench = Bench::new(Method::Hash, &[1, 1, 1]);
    for key in ["/", "/a", "user7", "0123456789"] {
        let place = u64::from((Crc32::of(key.as_bytes()) >> 16) & 0x7fff) % 3;
        assert_eq!(bench.request(key), letter(usize::try_from(place).unwrap_or(9)), "{key}");
    }
}

#[test]
fn the_ring_moves_only_the_keys_of_a_lost_server() {
    let servers: [&[u8]; 3] = [b"127.0.0.1:8081", b"127.0.0.1:8082", b"127.0.0.1:8083"];
    let ring = Ring::new(servers.iter().enumerate().map(|(line, server)| (*server, line, 1)));
    assert_eq!(ring.points.len(), 480);
    let mut bench = Bench::new(Method::Consistent(ring), &[1, 1, 1]);
    let keys: Vec<String> = (0..300).map(|number| format!("key{number}")).collect();
    let before: Vec<char> = keys.iter().map(|key| bench.request(key)).collect();
    for peer in ['a', 'b', 'c'] {
        let share = before.iter().filter(|chosen| **chosen == peer).count();
        assert!((60..140).contains(&share), "{peer} has {share} of 300");
    }
    bench.peer(1).down = true;
    for (key, chosen) in keys.iter().zip(&before) {
        let after = bench.request(key);
        assert!(after != 'b' && (after == *chosen || *chosen == 'b'), "{key}");
    }
}

#[test]
fn the_ring_splits_host_and_port_as_nginx_does() {
    for (server, host, port) in [
        ("10.0.0.1:80", "10.0.0.1", "80"),
        ("name", "name", ""),
        ("[::1]:8080", "[::1]", "8080"),
        ("unix:/tmp/s:1", "/tmp/s:1", ""),
        ("a1", "a1", ""),
    ] {
        let expected = (host.as_bytes(), port.as_bytes());
        assert_eq!(host_and_port(server.as_bytes()), expected, "{server}");
    }
}

#[test]
fn random_draws_by_weight_and_two_takes_the_lighter() {
    let mut bench = Bench::new(Method::Random { two: None }, &[1, 3]);
    bench.numbers = vec![0, 1, 2, 3, 4];
    assert_eq!(bench.requests(5), "abbba");

    let mut bench = Bench::new(Method::Random { two: Some(Load::Connections) }, &[1, 1, 1]);
    bench.tier.peers[0].state.conns.store(2, Relaxed);
    bench.tier.peers[1].state.conns.store(1, Relaxed);
    bench.numbers = vec![0, 0, 1, 1, 2];
    assert_eq!(bench.requests(2), "bc", "the same number twice draws again");
}

#[test]
fn least_time_prefers_who_answers_sooner_until_it_has_too_much_to_do() {
    let load = Load::Time { of: TimeOf::Header, inflight: false };
    let mut bench = Bench::new(Method::Least(load), &[1, 1]);
    let slow = |bench: &Bench, milliseconds| {
        let took = Duration::from_millis(milliseconds);
        bench.tier.peers[0].state.pace.add(TimeOf::Header, took);
    };
    assert_eq!(bench.requests(4), "abab", "without answers they are equal");
    slow(&bench, 19);
    assert_eq!(bench.requests(4), "abab", "so are times below a step");
    slow(&bench, 2000);
    assert_eq!(bench.requests(4), "bbbb");
    for (open, expected) in [(5, "bb"), (6, "ab")] {
        // About 120 ms for one more request at the first, 20 ms for each at the second.
        bench.tier.peers[1].state.conns.store(open, Relaxed);
        assert!(bench.requests(2).contains(expected.chars().next().unwrap_or('-')), "{open}");
    }
    bench.tier.peers[1].state.conns.store(0, Relaxed);
    bench.now += Duration::from_secs(25);
    assert_eq!(bench.requests(1), "b", "half of it is still too much");
    bench.now += Duration::from_secs(60);
    assert!(bench.requests(2).contains('a'), "in the end it has a chance again");
}

#[test]
fn a_server_that_is_back_grows_into_its_weight_within_slow_start() {
    for (load, expected) in [(None, [3, 13, 20]), (Some(Load::Connections), [3, 13, 20])] {
        let method = load.map_or(Method::RoundRobin, Method::Least);
        let mut bench = Bench::new(method, &[1, 1]);
        bench.peer(0).slow_start = Duration::from_secs(100);
        let mut selection = bench.selection("");
        assert_eq!(bench.choose(&mut selection), Some(0));
        bench.release(0, true);
        bench.now += Duration::from_secs(11);
        // The probe brings it back.
        while bench.request("") != 'a' {}
        for (step, most) in expected.into_iter().enumerate() {
            bench.now += Duration::from_secs(if step == 0 { 10 } else { 45 });
            let mut open = Vec::new();
            for _ in 0..40 {
                let mut selection = bench.selection("");
                open.extend(bench.choose(&mut selection));
            }
            let first = open.iter().filter(|index| **index == 0).count();
            assert!(first <= most + 1 && first + 2 >= most, "step {step}: {first} of 40, {load:?}");
            for index in open {
                bench.release(index, false);
            }
        }
    }
}

#[test]
fn a_set_of_tries_holds_large_numbers_too() {
    let mut tried = Tried::default();
    for index in [0, 63, 64, 1000] {
        assert!(!tried.contains(index));
        tried.insert(index);
        assert!(tried.contains(index));
    }
    assert!(!tried.contains(65));
}
