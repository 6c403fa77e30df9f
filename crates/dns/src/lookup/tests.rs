use super::*;

use crate::message::Answer;

const SECOND: Duration = Duration::from_secs(1);
const BOTH: Wanted = Wanted::Addresses(Families { ipv4: true, ipv6: true });
const ONLY4: Wanted = Wanted::Addresses(Families { ipv4: true, ipv6: false });

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn lookup(wanted: Wanted, servers: usize, now: Instant) -> Lookup {
    let mut id = 0;
    let random = move || {
        id += 1;
        id
    };
    Lookup::new(name("a.test"), wanted, servers, 0, now, random)
}

/// What is to be sent now: server, transport, name and kind, in short.
fn sent(lookup: &mut Lookup) -> Vec<String> {
    let mut sent = Vec::new();
    while let Some(Query { server, transport, bytes }) = lookup.poll_query() {
        let text = lookup.asked.iter().find(|asked| asked.question.encode() == bytes);
        let question = &text.unwrap().question;
        sent.push(format!("{server} {transport:?} {:?} {}", question.kind, question.name));
    }
    sent
}

/// An answer to number `index` of what was asked last.
struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    fn to(lookup: &Lookup, index: usize) -> Self {
        let mut bytes = lookup.asked[index].question.encode();
        bytes[2] = 0x81;
        bytes[3] = 0x80;
        Self { bytes }
    }

    fn code(mut self, code: u8) -> Self {
        self.bytes[3] |= code;
        self
    }

    fn truncated(mut self) -> Self {
        self.bytes[2] |= 2;
        self
    }

    fn record(mut self, owner: &str, kind: u8, ttl: u32, data: &[u8]) -> Self {
        self.bytes[7] += 1;
        name(owner).encode(&mut self.bytes);
        self.bytes.extend([0, kind, 0, 1]);
        self.bytes.extend(ttl.to_be_bytes());
        self.bytes.extend((data.len() as u16).to_be_bytes());
        self.bytes.extend(data);
        self
    }

    fn a(self, owner: &str, last: u8) -> Self {
        self.record(owner, 1, 60, &[127, 0, 0, last])
    }

    fn aaaa(self, owner: &str, last: u8) -> Self {
        self.record(owner, 28, 60, &[[0; 15].as_slice(), &[last]].concat())
    }

    fn cname(self, owner: &str, other: &str, ttl: u32) -> Self {
        let mut data = Vec::new();
        name(other).encode(&mut data);
        self.record(owner, 5, ttl, &data)
    }

    fn arrive(self, lookup: &mut Lookup, now: Instant) {
        lookup.on_message(Transport::Udp, &self.bytes, now).unwrap();
    }
}

fn failed(code: Code) -> Option<Outcome> {
    Some(Outcome::Failed(Failure::Answered(code), None))
}

fn found(addresses: &[&str], ttl: u64) -> Option<Outcome> {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Some(Outcome::Found(Data::Addresses(addresses), Duration::from_secs(ttl)))
}

#[test]
fn both_families_make_one_answer() {
    let now = Instant::now();
    let mut lookup = lookup(BOTH, 1, now);
    assert_eq!(sent(&mut lookup), ["0 Udp A a.test", "0 Udp Aaaa a.test"]);
    Reply::to(&lookup, 1).aaaa("a.test", 1).arrive(&mut lookup, now);
    assert_eq!(lookup.outcome(), None);
    Reply::to(&lookup, 0).a("a.test", 1).a("a.test", 2).arrive(&mut lookup, now);
    assert_eq!(lookup.outcome().cloned(), found(&["127.0.0.1", "127.0.0.2", "::1"], 60));
}

#[test]
fn a_family_that_is_never_answered_is_given_up() {
    let now = Instant::now();
    let mut waiting = lookup(BOTH, 1, now);
    Reply::to(&waiting, 0).a("a.test", 1).arrive(&mut waiting, now);
    assert_eq!(waiting.due(), now + SECOND);
    waiting.on_time(now + SECOND);
    assert_eq!(waiting.outcome().cloned(), found(&["127.0.0.1"], 60));

    // With nothing the other family is all hope there is.
    let mut hoping = lookup(BOTH, 1, now);
    Reply::to(&hoping, 0).arrive(&mut hoping, now);
    assert_eq!(hoping.due(), now + PATIENCE);
    Reply::to(&hoping, 1).aaaa("a.test", 1).arrive(&mut hoping, now + SECOND);
    assert_eq!(hoping.outcome().cloned(), found(&["::1"], 60));
}

#[test]
fn an_error_of_one_family_is_the_answer() {
    let now = Instant::now();
    for (code, expected) in [(2, Code::Server), (5, Code::Refused), (4, Code::Unimplemented)] {
        let mut lookup = lookup(BOTH, 2, now);
        Reply::to(&lookup, 1).code(code).arrive(&mut lookup, now);
        Reply::to(&lookup, 0).a("a.test", 1).arrive(&mut lookup, now);
        assert_eq!(lookup.outcome().cloned(), failed(expected));
    }
    let mut lookup = lookup(BOTH, 2, now);
    Reply::to(&lookup, 0).a("a.test", 1).arrive(&mut lookup, now);
    Reply::to(&lookup, 1).code(3).arrive(&mut lookup, now);
    assert_eq!(lookup.outcome().cloned(), found(&["127.0.0.1"], 60), "some say so for AAAA");
}

#[test]
fn no_name_and_no_address_are_the_same() {
    let now = Instant::now();
    for code in [0, 3] {
        let mut lookup = lookup(ONLY4, 1, now);
        assert_eq!(sent(&mut lookup), ["0 Udp A a.test"]);
        Reply::to(&lookup, 0).code(code).arrive(&mut lookup, now);
        assert_eq!(lookup.outcome().cloned(), failed(Code::NoName));
    }
}

#[test]
fn silence_is_asked_elsewhere_and_its_answer_is_still_good() {
    let now = Instant::now();
    let mut lookup = lookup(ONLY4, 2, now);
    let late = Reply::to(&lookup, 0).a("a.test", 1);
    sent(&mut lookup);
    lookup.on_time(now + SECOND);
    assert_eq!(sent(&mut lookup), [""; 0]);
    lookup.on_time(now + PATIENCE);
    assert_eq!(sent(&mut lookup), ["1 Udp A a.test"]);
    lookup.on_time(now + 2 * PATIENCE);
    assert_eq!(sent(&mut lookup), ["0 Udp A a.test"]);
    late.arrive(&mut lookup, now);
    assert_eq!(lookup.outcome().cloned(), found(&["127.0.0.1"], 60));
}

#[test]
fn a_broken_server_is_left_at_once_and_broken_ones_in_peace() {
    let now = Instant::now();
    let mut lookup = lookup(ONLY4, 2, now);
    sent(&mut lookup);
    lookup.on_broken(0, now);
    assert_eq!(sent(&mut lookup), ["1 Udp A a.test"]);
    lookup.on_broken(0, now);
    lookup.on_broken(1, now);
    assert_eq!(sent(&mut lookup), [""; 0]);
    lookup.on_time(now + PATIENCE);
    assert_eq!(sent(&mut lookup), ["0 Udp A a.test"]);
}

#[test]
fn what_one_server_does_not_understand_is_asked_of_each_once() {
    let now = Instant::now();
    let mut lookup = lookup(ONLY4, 2, now);
    sent(&mut lookup);
    Reply::to(&lookup, 0).code(1).arrive(&mut lookup, now);
    assert_eq!(sent(&mut lookup), ["1 Udp A a.test"]);
    Reply::to(&lookup, 0).code(1).arrive(&mut lookup, now);
    assert_eq!(lookup.outcome().cloned(), failed(Code::Format));
}

#[test]
fn what_does_not_fit_is_asked_for_on_tcp() {
    let now = Instant::now();
    let mut lookup = lookup(ONLY4, 1, now);
    sent(&mut lookup);
    Reply::to(&lookup, 0).truncated().arrive(&mut lookup, now);
    assert_eq!(sent(&mut lookup), ["0 Tcp A a.test"]);
    Reply::to(&lookup, 0).truncated().arrive(&mut lookup, now);
    assert_eq!(sent(&mut lookup), [""; 0], "once is enough");
    let again = Reply::to(&lookup, 0).truncated().bytes;
    assert_eq!(lookup.on_message(Transport::Tcp, &again, now), Err(Oddity::NoAnswer));
    lookup.on_time(now + PATIENCE);
    assert_eq!(sent(&mut lookup), ["0 Tcp A a.test"]);
    let whole = Reply::to(&lookup, 0).a("a.test", 1).bytes;
    assert_eq!(lookup.on_message(Transport::Tcp, &whole, now), Ok(()));
    assert_eq!(lookup.outcome().cloned(), found(&["127.0.0.1"], 60));
}

#[test]
fn other_names_are_followed_within_an_answer_and_beyond() {
    let now = Instant::now();
    let mut within = lookup(ONLY4, 1, now);
    let reply = Reply::to(&within, 0);
    let reply = reply.a("c.test", 1).cname("b.test", "c.test", 9).cname("a.test", "b.test", 30);
    reply.a("other.test", 2).arrive(&mut within, now);
    assert_eq!(within.outcome().cloned(), found(&["127.0.0.1"], 9));

    let mut beyond = lookup(BOTH, 1, now);
    sent(&mut beyond);
    Reply::to(&beyond, 0).cname("a.test", "b.test", 30).arrive(&mut beyond, now);
    Reply::to(&beyond, 1).cname("a.test", "c.test", 7).arrive(&mut beyond, now);
    assert_eq!(sent(&mut beyond), ["0 Udp A c.test", "0 Udp Aaaa c.test"]);
    Reply::to(&beyond, 0).arrive(&mut beyond, now);
    Reply::to(&beyond, 1).aaaa("c.test", 1).arrive(&mut beyond, now);
    assert_eq!(beyond.outcome().cloned(), found(&["::1"], 7));
}

#[test]
fn names_that_lead_to_each_other_lead_nowhere() {
    let now = Instant::now();
    let mut within = lookup(ONLY4, 1, now);
    let circle = |reply: Reply| reply.cname("a.test", "b.test", 1).cname("b.test", "a.test", 1);
    circle(Reply::to(&within, 0)).arrive(&mut within, now);
    for _ in 0..MAX_ALIASES {
        if within.outcome().is_none() {
            circle(Reply::to(&within, 0)).arrive(&mut within, now);
        }
    }
    assert_eq!(within.outcome().cloned(), failed(Code::NoName));

    let mut beyond = lookup(ONLY4, 1, now);
    let mut questions = 0;
    while beyond.outcome().is_none() {
        questions += 1;
        let own = beyond.name.to_string();
        let other = if own == "a.test" { "b.test" } else { "a.test" };
        Reply::to(&beyond, 0).cname(&own, other, 1).arrive(&mut beyond, now);
    }
    assert_eq!(beyond.outcome().cloned(), failed(Code::NoName));
    assert_eq!(questions, MAX_ALIASES + 1);
}

#[test]
fn answers_to_other_questions_are_ignored() {
    let now = Instant::now();
    let mut lookup = lookup(BOTH, 1, now);
    let mut bytes = Reply::to(&lookup, 0).a("a.test", 1).bytes;
    bytes[0] = 9;
    assert_eq!(lookup.on_message(Transport::Udp, &bytes, now), Err(Oddity::OtherId));
    assert_eq!(lookup.on_message(Transport::Udp, b"", now), Err(Oddity::Short));
    // The number of the one with the question of the other.
    let mut bytes = Reply::to(&lookup, 0).a("a.test", 1).bytes;
    bytes[1] = 2;
    assert_eq!(lookup.on_message(Transport::Udp, &bytes, now), Err(Oddity::OtherQuestion));
    assert_eq!(lookup.outcome(), None);
    Reply::to(&lookup, 0).a("a.test", 1).arrive(&mut lookup, now);
    Reply::to(&lookup, 0).a("a.test", 2).arrive(&mut lookup, now);
    Reply::to(&lookup, 1).arrive(&mut lookup, now);
    assert_eq!(lookup.outcome().cloned(), found(&["127.0.0.1"], 60), "the first counts");
}

#[test]
fn hosts_of_a_service_come_by_priority() {
    let now = Instant::now();
    let mut lookup = lookup(Wanted::Services, 1, now);
    assert_eq!(sent(&mut lookup), ["0 Udp Srv a.test"]);
    let srv = |priority: u8, host: &str| {
        let mut data = vec![0, priority, 0, 5, 0, 80];
        name(host).encode(&mut data);
        data
    };
    let reply = Reply::to(&lookup, 0).record("a.test", 33, 30, &srv(2, "b.test"));
    let reply = reply.record("a.test", 33, 60, &srv(1, "c.test"));
    assert_eq!(Answer::decode(&reply.bytes, &lookup.asked[0].question).unwrap().records.len(), 2);
    reply.arrive(&mut lookup, now);
    let service = |priority, host| Service { priority, weight: 5, port: 80, target: name(host) };
    let services = vec![service(1, "c.test"), service(2, "b.test")];
    let expected = Outcome::Found(Data::Services(services), 30 * SECOND);
    assert_eq!(lookup.outcome(), Some(&expected));
}
