use super::*;

use proptest::prelude::*;

fn question(kind: Kind) -> Question {
    Question { id: 0x1234, name: Name::new(b"a.test").unwrap(), kind }
}

/// A message of ours with these flags, counts of records and records.
fn answer(flags: u16, counts: [u16; 2], kind: Kind, records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = question(kind).encode();
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&counts[0].to_be_bytes());
    bytes[8..10].copy_from_slice(&counts[1].to_be_bytes());
    records.iter().for_each(|record| bytes.extend_from_slice(record));
    bytes
}

/// A record of the name that was asked for.
fn record(number: u8, ttl: u32, data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u16).to_be_bytes();
    [&[0xc0, 12, 0, number, 0, 1][..], &ttl.to_be_bytes(), &len, data].concat()
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn a_query_asks_for_recursion() {
    let expected = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x1c\0\x01";
    assert_eq!(question(Kind::Aaaa).encode(), expected);
}

#[test]
fn records_of_each_kind_are_read() {
    let alias = record(CNAME as u8, 5, b"\x01b\xc0\x0e");
    let unknown = record(39, 1, b"anything");
    let six = [&[0; 15][..], &[1]].concat();
    let service = b"\0\x01\0\x02\0\x50\x01s\xc0\x0e";
    for (kind, number, data, value) in [
        (Kind::A, 1, &b"\x7f\0\0\x01"[..], Value::Address([127, 0, 0, 1].into())),
        (Kind::Aaaa, 28, &six[..], Value::Address(Ipv6Addr::LOCALHOST.into())),
        (Kind::Srv, 33, &service[..], {
            Value::Service(Service { priority: 1, weight: 2, port: 80, target: name("s.test") })
        }),
    ] {
        let wanted = record(number, 0x8000_0000, data);
        let bytes = answer(0x8180, [3, 0], kind, &[&alias, &unknown, &wanted]);
        let found = Answer::decode(&bytes, &question(kind)).unwrap();
        let owner = name("a.test");
        let alias = Value::Alias(name("b.test"));
        let records = [
            Record { owner: owner.clone(), ttl: 5, value: alias },
            Record { owner, ttl: 0, value },
        ];
        assert_eq!(found.records, records, "{kind:?}");
        assert_eq!((found.code, found.truncated), (Code::Fine, false));
    }
}

#[test]
fn what_does_not_exist_may_be_remembered_for_a_while() {
    let soa = [&b"\x02ns\xc0\x0e\x02me\xc0\x0e"[..], &[0; 16], &30u32.to_be_bytes()].concat();
    let bytes = answer(0x8183, [0, 1], Kind::A, &[&record(SOA as u8, 7, &soa)]);
    let found = Answer::decode(&bytes, &question(Kind::A)).unwrap();
    assert_eq!((found.code, found.negative_ttl), (Code::NoName, Some(7)));
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let good = answer(0x8180, [1, 0], Kind::A, &[&record(1, 1, &[127, 0, 0, 1])]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Answer::decode(&bytes, &question(Kind::A)).map(|answer| answer.records.len())
    };
    assert_eq!(with(0, 0x12), Ok(1));
    assert_eq!(with(1, 0x35), Err(Unanswered::OtherId));
    assert_eq!(with(2, 0x01), Err(Unanswered::NoAnswer));
    assert_eq!(with(5, 2), Err(Unanswered::OtherQuestion));
    assert_eq!(with(13, b'b'), Err(Unanswered::OtherQuestion));
    assert_eq!(with(13, b'A'), Ok(1), "letters have no case");
    assert_eq!(with(21, 28), Err(Unanswered::OtherQuestion));
    assert_eq!(with(7, 2), Err(Unanswered::Short));
    assert_eq!(with(7, 0), Ok(0));
    let other = question(Kind::Aaaa);
    assert_eq!(Answer::decode(&good, &other), Err(Unanswered::OtherQuestion));
}

#[test]
fn broken_records_and_names_are_errors() {
    for (data, error) in [
        (record(1, 1, &[127, 0, 0]), Unanswered::Short),
        (record(CNAME as u8, 1, b""), Unanswered::Short),
        // At itself.
        (record(CNAME as u8, 1, &[0xc0, 32]), Unanswered::Invalid),
        (record(CNAME as u8, 1, &[0x40, 0]), Unanswered::Invalid),
        // A name that nobody can ask for.
        (record(CNAME as u8, 1, b"\x03a.b\0"), Unanswered::Invalid),
    ] {
        let bytes = answer(0x8180, [1, 0], Kind::A, &[&data]);
        assert_eq!(Answer::decode(&bytes, &question(Kind::A)), Err(error), "{data:?}");
    }
}

/// However often a message leads to the same labels.
#[test]
fn a_name_is_not_read_beyond_its_longest() {
    let label = [&[63][..], &[b'x'; 63]].concat();
    let rest = [0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1];
    let circle = [&label[..], &[0xc0, 24], &rest].concat();
    let long = [&label.repeat(9)[..], &[0], &rest].concat();
    let long_elsewhere = [&label.repeat(9)[..], &[0xc0, 12], &rest].concat();
    for odd in [circle, long, long_elsewhere] {
        let good = record(1, 1, &[127, 0, 0, 2]);
        let bytes = answer(0x8180, [2, 0], Kind::A, &[&odd, &good]);
        let found = Answer::decode(&bytes, &question(Kind::A)).unwrap();
        assert_eq!(found.records.len(), 1);
        assert_eq!(found.records[0].value, Value::Address([127, 0, 0, 2].into()));
    }
}

#[test]
fn a_server_that_does_not_understand_need_not_repeat_the_question() {
    let bytes = b"\x12\x34\x81\x81\0\0\0\0\0\0\0\0";
    let found = Answer::decode(bytes, &question(Kind::A)).unwrap();
    assert_eq!(found.code, Code::Format);
    let refused = b"\x12\x34\x81\x85\0\0\0\0\0\0\0\0";
    assert!(Answer::decode(refused, &question(Kind::A)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200), counts: [u16; 2]) {
        for kind in [Kind::A, Kind::Aaaa, Kind::Srv] {
            let bytes = answer(0x8180, counts, kind, &[&body]);
            let _ = Answer::decode(&bytes, &question(kind));
            let _ = Answer::decode(&body, &question(kind));
        }
    }
}
