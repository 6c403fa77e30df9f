#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use wssgate_sys::process::raise_descriptor_limit;
use wssgate_sys::rights;
use wssgate_sys::testing::{alone, open_descriptors};

use super::*;

/// Longer than any test waits for what comes.
const LONG: Duration = Duration::from_secs(60);
/// For waits that end without what they wait for.
const SHORT: Duration = Duration::from_millis(5);

fn both() -> (Giver, Taker) {
    let (near, far) = rights::stream_channel().unwrap();
    (Giver::new(near, LONG), Taker::new(far, LONG))
}

/// A descriptor for tests in which nobody uses the sockets.
fn any() -> File {
    File::open("/dev/null").unwrap()
}

fn parcels<'a>(records: &'a [Vec<u8>], socket: &'a File) -> Vec<Parcel<'a>> {
    let sockets = [socket.as_fd(); 2];
    records.iter().map(|record| Parcel { record, sockets }).collect()
}

fn batch(item: Result<Option<Item>, TakeError>) -> Batch {
    match item.unwrap().unwrap() {
        Item::Batch(batch) => batch,
        Item::Note(note) => panic!("a note: {note:?}"),
    }
}

fn refused(code: u8) -> Refusal {
    Refusal { code, text: format!("for {code} reasons") }
}

/// Takes everything, and tells how many tunnels that were.
fn take_all(mut taker: Taker) -> usize {
    let mut taken = 0;
    while let Some(item) = taker.receive().unwrap() {
        if let Item::Batch(mut batch) = item {
            let tunnels = batch.tunnels();
            assert_eq!(batch.arrivals().count(), tunnels);
            taker.answer(&vec![Verdict::Taken; tunnels]).unwrap();
            taken += tunnels;
        }
    }
    taken
}

/// A tunnel: our sockets, and the ends of their peers.
struct Tunnel {
    ours: [TcpStream; 2],
    peers: [TcpStream; 2],
}

fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, peer)
}

#[test]
fn a_thousand_tunnels_pass_and_each_goes_on_with_its_peers() {
    // Four for a tunnel and its peers, and two more in the taker.
    let limit = usize::try_from(raise_descriptor_limit().unwrap()).unwrap_or(usize::MAX);
    let count = 1000.min(limit.saturating_sub(200) / 6);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tunnels: Vec<_> = (0..count)
        .map(|_| {
            let ((front, client), (back, upstream)) = (connect(&listener), connect(&listener));
            Tunnel { ours: [front, back], peers: [client, upstream] }
        })
        .collect();
    // What waits in the sockets while they move.
    for (at, tunnel) in tunnels.iter_mut().enumerate() {
        for (side, peer) in tunnel.peers.iter_mut().enumerate() {
            write!(peer, "{at:06}{side}").unwrap();
        }
    }
    let (mut giver, mut taker) = both();
    let serving = thread::spawn(move || {
        let mut served = Vec::new();
        while let Some(item) = taker.receive().unwrap() {
            let Item::Batch(mut batch) = item else { panic!("a note") };
            let mut verdicts = Vec::new();
            for arrival in batch.arrivals() {
                let at: usize = std::str::from_utf8(&arrival.record[..6]).unwrap().parse().unwrap();
                assert_eq!(arrival.record.len(), 6 + at);
                // Every tenth is refused.
                if at % 10 == 3 {
                    verdicts.push(Verdict::Refused(refused(3)));
                } else {
                    verdicts.push(Verdict::Taken);
                    served.push((at, arrival.sockets.map(TcpStream::from)));
                }
            }
            taker.answer(&verdicts).unwrap();
        }
        for (at, sockets) in &mut served {
            for (side, socket) in sockets.iter_mut().enumerate() {
                let mut text = [0; 7];
                socket.read_exact(&mut text).unwrap();
                assert_eq!(text, format!("{at:06}{side}").as_bytes());
                write!(socket, "served").unwrap();
            }
        }
        served.len()
    });
    let records: Vec<_> = (0..count)
        .map(|at| {
            format!("{at:06}").into_bytes().into_iter().chain(vec![0; at]).collect::<Vec<_>>()
        })
        .collect();
    let parcels: Vec<_> = tunnels
        .iter()
        .zip(&records)
        .map(|(tunnel, record)| Parcel { record, sockets: tunnel.ours.each_ref().map(AsFd::as_fd) })
        .collect();
    let given = giver.give(&parcels);
    assert!(given.error.is_none());
    giver.finish().unwrap();
    let mut stayed = 0;
    for ((at, tunnel), outcome) in tunnels.into_iter().enumerate().zip(given.outcomes) {
        let Tunnel { mut ours, mut peers } = tunnel;
        let expected = if at % 10 == 3 {
            assert_eq!(outcome, Outcome::Refused(refused(3)));
            stayed += 1;
            for socket in &mut ours {
                write!(socket, "stayed").unwrap();
            }
            "stayed"
        } else {
            assert_eq!(outcome, Outcome::Taken);
            "served"
        };
        drop(ours);
        for peer in &mut peers {
            let mut text = [0; 6];
            peer.read_exact(&mut text).unwrap();
            assert_eq!(text, expected.as_bytes());
        }
    }
    assert_eq!(serving.join().unwrap() + stayed, count);
}

#[test]
fn notes_come_in_their_order_among_the_batches_and_the_end_last() {
    let (mut giver, mut taker) = both();
    let (socket, records) = (any(), [b"1".to_vec(), Vec::new()]);
    giver.note(b"first").unwrap();
    assert_eq!(giver.send(&parcels(&records, &socket)).unwrap(), 2);
    giver.note(b"").unwrap();
    assert_eq!(giver.send(&[]).unwrap(), 0);
    let note = |item| matches!(item, Ok(Some(Item::Note(note))) if note[..] == *b"first");
    assert!(note(taker.receive()));
    let mut received = batch(taker.receive());
    let got: Vec<_> = received.arrivals().map(|arrival| arrival.record.to_vec()).collect();
    assert_eq!(got, records);
    assert!(giver.poll_outcomes().is_none());
    taker.answer(&[Verdict::Taken, Verdict::Refused(refused(1))]).unwrap();
    assert!(matches!(taker.receive(), Ok(Some(Item::Note(note))) if note.is_empty()));
    assert_eq!(giver.outcomes(), Some(vec![Outcome::Taken, Outcome::Refused(refused(1))]));
    assert_eq!(giver.outcomes(), None);
    giver.finish().unwrap();
    assert!(matches!(taker.receive(), Ok(None)));
    assert!(matches!(taker.receive(), Ok(None)));
}

#[test]
fn records_and_notes_are_not_shown() {
    let (mut giver, mut taker) = both();
    let (socket, records) = (any(), [vec![222; 8]]);
    let parcels = parcels(&records, &socket);
    giver.note(&records[0]).unwrap();
    giver.send(&parcels).unwrap();
    let note = taker.receive().unwrap().unwrap();
    let mut received = batch(taker.receive());
    let mut shown = format!("{parcels:?} {note:?} {received:?} {giver:?} {taker:?}");
    shown.extend(received.arrivals().map(|arrival| format!("{arrival:?}")));
    assert!(!shown.contains("222, 222"), "{shown}");
}

#[test]
fn several_batches_may_be_on_their_way_and_are_answered_in_order() {
    let (mut giver, mut taker) = both();
    let (socket, records) = (any(), vec![vec![1; 700]; MAX_BATCH + 1]);
    let parcels = parcels(&records, &socket);
    for sent in [MAX_BATCH, 1, MAX_BATCH, 1] {
        let from = parcels.len() - if sent == 1 { 1 } else { parcels.len() };
        assert_eq!(giver.send(&parcels[from..]).unwrap(), sent);
    }
    assert_eq!(giver.outstanding(), MAX_OUTSTANDING);
    for code in 0..4 {
        let tunnels = batch(taker.receive()).tunnels();
        taker.answer(&vec![Verdict::Refused(refused(code)); tunnels]).unwrap();
    }
    for (code, tunnels) in [(0, MAX_BATCH), (1, 1), (2, MAX_BATCH), (3, 1)] {
        assert_eq!(giver.poll_outcomes(), Some(vec![Outcome::Refused(refused(code)); tunnels]));
    }
}

#[test]
fn batches_are_as_large_as_the_bounds_allow() {
    let (mut giver, taker) = both();
    let taking = thread::spawn(|| take_all(taker));
    let socket = any();
    // Of 200 KiB, ten have room.
    let mut records = vec![vec![7; 200 << 10]; 25];
    assert_eq!(giver.send(&parcels(&records, &socket)).unwrap(), 10);
    assert_eq!(giver.outcomes(), Some(vec![Outcome::Taken; 10]));
    assert_eq!(giver.give(&parcels(&records, &socket)).outcomes, vec![Outcome::Taken; 25]);
    records[3] = vec![7; MAX_RECORD];
    assert_eq!(giver.give(&parcels(&records, &socket)).outcomes, vec![Outcome::Taken; 25]);
    // One that is too long stays, with those behind it, and the others can be given.
    records[3].push(7);
    let given = giver.give(&parcels(&records, &socket));
    assert!(matches!(given.error, Some(GiveError::TooLong(len)) if len == MAX_RECORD + 1));
    let (taken, kept) = given.outcomes.split_at(3);
    assert!(taken.iter().all(|outcome| *outcome == Outcome::Taken));
    assert!(kept.iter().all(|outcome| *outcome == Outcome::Kept));
    assert_eq!(giver.give(&parcels(&records[4..], &socket)).outcomes, vec![Outcome::Taken; 21]);
    assert!(matches!(giver.note(&vec![0; MAX_NOTE + 1]), Err(GiveError::TooLong(_))));
    giver.note(&vec![0; MAX_NOTE]).unwrap();
    giver.finish().unwrap();
    assert_eq!(taking.join().unwrap(), 10 + 25 + 25 + 3 + 21);
}

/// Reads exactly so many bytes and drops descriptors that come along.
fn read_raw(socket: &OwnedFd, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        let mut sockets = Vec::new();
        let rest = &mut bytes[read..];
        read += rights::receive(socket.as_fd(), rest, rights::MOST, &mut sockets).unwrap().len;
    }
    bytes
}

fn write_raw(socket: &OwnedFd, bytes: &[u8], sockets: &[BorrowedFd<'_>]) {
    if !bytes.is_empty() {
        let sent = rights::send(socket.as_fd(), &[IoSlice::new(bytes)], sockets).unwrap();
        assert_eq!(sent, bytes.len());
    }
}

/// Two batches, of two tunnels and of one, and how many bytes each of them has on the wire.
const RECORDS: [&[u8]; 3] = [b"one", b"twotwo", b"three"];
const LENS: [usize; 2] = [16 + 8 + 9, 16 + 4 + 5];

fn send_two_batches(giver: &mut Giver, socket: &File) {
    let records = RECORDS.map(<[u8]>::to_vec);
    let parcels = parcels(&records, socket);
    assert_eq!(giver.send(&parcels[..2]).unwrap(), 2);
    assert_eq!(giver.send(&parcels[2..]).unwrap(), 1);
}

#[test]
fn a_taker_that_dies_before_it_answers_has_taken_nothing() {
    let socket = any();
    for read in 0..=LENS[0] + LENS[1] {
        let (near, far) = rights::stream_channel().unwrap();
        let mut giver = Giver::new(near, LONG);
        send_two_batches(&mut giver, &socket);
        read_raw(&far, read);
        drop(far);
        assert_eq!(giver.outcomes(), Some(vec![Outcome::Kept; 2]), "{read}");
        assert_eq!(giver.outcomes(), Some(vec![Outcome::Kept]), "{read}");
        assert!(matches!(giver.failure(), Some(GiveError::Gone)), "{read}");
        assert!(matches!(giver.note(b"x"), Err(GiveError::Gone)), "{read}");
        let given = giver.give(&[Parcel { record: b"", sockets: [socket.as_fd(); 2] }]);
        assert_eq!(given.outcomes, [Outcome::Kept]);
        assert!(matches!(given.error, Some(GiveError::Gone)));
    }
}

#[test]
fn what_was_answered_counts_and_a_part_of_an_answer_does_not() {
    let (socket, refusal) = (any(), Verdict::Refused(refused(9)));
    let answers = [
        wire::encode_answer(0, &[Verdict::Taken, refusal.clone()]),
        wire::encode_answer(1, &[Verdict::Taken]),
    ];
    let (first, bytes) = (answers[0].len(), answers.concat());
    for written in 0..=bytes.len() {
        for dies in [true, false] {
            let (near, far) = rights::stream_channel().unwrap();
            let mut giver = Giver::new(near, LONG);
            send_two_batches(&mut giver, &socket);
            write_raw(&far, &bytes[..written], &[]);
            // Either side ends it: the taker without having read, so that its end breaks.
            let far = if dies {
                drop(far);
                None
            } else {
                giver.give_up();
                Some(far)
            };
            let expected = [
                if written < first {
                    vec![Outcome::Kept; 2]
                } else {
                    vec![Outcome::Taken, refusal.clone().into()]
                },
                vec![if written < bytes.len() { Outcome::Kept } else { Outcome::Taken }],
            ];
            assert_eq!([giver.outcomes().unwrap(), giver.outcomes().unwrap()], expected);
            if let Some(far) = far {
                let late = rights::send(far.as_fd(), &[IoSlice::new(&bytes[written..])], &[]);
                assert!(written == bytes.len() || late.is_err(), "{written}");
            }
        }
    }
}

#[test]
fn after_an_answer_that_makes_no_sense_nobody_knows() {
    let socket = any();
    let good = wire::encode_answer(0, &vec![Verdict::Taken; 2]);
    let mut answers: Vec<_> = (0..good.len())
        .map(|at| {
            let mut other = good.clone();
            other[at] ^= 0x80;
            other
        })
        .collect();
    answers.push(wire::encode_answer(0, &vec![Verdict::Taken; 3]));
    answers.push(wire::encode_answer(1, &vec![Verdict::Taken; 2]));
    answers.push(b"HTTP/1.1 200 OK".to_vec());
    for answer in &answers {
        for gives_up in [true, false] {
            let (near, far) = rights::stream_channel().unwrap();
            let mut giver = Giver::new(near, LONG);
            send_two_batches(&mut giver, &socket);
            write_raw(&far, answer, &[]);
            if gives_up {
                giver.give_up();
            }
            assert_eq!(giver.outcomes(), Some(vec![Outcome::Unknown; 2]), "{answer:?}");
            assert_eq!(giver.outcomes(), Some(vec![Outcome::Unknown]), "{answer:?}");
            assert!(gives_up || matches!(giver.failure(), Some(GiveError::Malformed)));
            let late = rights::send(far.as_fd(), &[IoSlice::new(&good)], &[]);
            assert!(late.is_err(), "it was hung up");
        }
    }
    // What was decided before stays so.
    let (near, far) = rights::stream_channel().unwrap();
    let mut giver = Giver::new(near, LONG);
    send_two_batches(&mut giver, &socket);
    write_raw(&far, &[&good[..], b"WSGB"].concat(), &[]);
    assert_eq!(giver.outcomes(), Some(vec![Outcome::Taken; 2]));
    assert_eq!(giver.outcomes(), Some(vec![Outcome::Unknown]));
    // An answer to nothing concerns nobody.
    let (near, far) = rights::stream_channel().unwrap();
    let mut giver = Giver::new(near, LONG);
    let extra = [&good[..], &wire::encode_answer(1, &[Verdict::Taken]), b"W"].concat();
    send_two_batches(&mut giver, &socket);
    write_raw(&far, &extra, &[]);
    assert_eq!(giver.outcomes(), Some(vec![Outcome::Taken; 2]));
    assert_eq!(giver.outcomes(), Some(vec![Outcome::Taken]));
    assert!(matches!(giver.finish(), Err(GiveError::Malformed)));
}

/// What a giver writes: a note, two batches, the end; each with how many sockets.
fn stream(socket: &File) -> Vec<(Vec<u8>, usize)> {
    let (near, far) = rights::stream_channel().unwrap();
    let mut giver = Giver::new(near, LONG);
    giver.note(b"note").unwrap();
    send_two_batches(&mut giver, socket);
    giver.give_up();
    let mut items: Vec<_> = [(16 + 4, 0), (LENS[0], 4), (LENS[1], 2)]
        .map(|(len, sockets)| (read_raw(&far, len), sockets))
        .into();
    let (near, far) = rights::stream_channel().unwrap();
    Giver::new(near, LONG).finish().unwrap();
    items.push((read_raw(&far, 16), 0));
    items
}

/// Writes so many bytes of the items.
fn replay(channel: &OwnedFd, items: &[(Vec<u8>, usize)], mut len: usize, socket: &File) {
    for (bytes, sockets) in items {
        let part = &bytes[..len.min(bytes.len())];
        write_raw(channel, part, &vec![socket.as_fd(); *sockets]);
        len -= part.len();
    }
}

#[test]
fn a_giver_that_dies_anywhere_leaves_nothing_half() {
    let socket = any();
    let items = stream(&socket);
    let ends: Vec<_> = items
        .iter()
        .scan(0, |end, (bytes, _)| {
            *end += bytes.len();
            Some(*end)
        })
        .collect();
    for written in 0..=ends[3] {
        // It has died before the taker looks, so that no answer reaches it: nothing may be served.
        let (near, far) = rights::stream_channel().unwrap();
        replay(&near, &items, written, &socket);
        drop(near);
        let mut taker = Taker::new(far, LONG);
        if written >= ends[0] {
            assert!(matches!(taker.receive(), Ok(Some(Item::Note(note))) if note[..] == *b"note"));
        }
        if written >= ends[1] {
            let mut batch = batch(taker.receive());
            let records: Vec<_> = batch.arrivals().map(|arrival| arrival.record.to_vec()).collect();
            assert_eq!(records, RECORDS[..2]);
            let answered = taker.answer(&[Verdict::Taken, Verdict::Taken]);
            assert!(matches!(answered, Err(AnswerError::GivenUp)), "{written}");
        }
        assert!(matches!(taker.receive(), Err(TakeError::Gone)), "{written}");
        assert!(matches!(taker.receive(), Err(TakeError::Gone)), "{written}");
    }
    for written in ends[1]..=ends[3] {
        // It lives until the first batch was answered.
        let (near, far) = rights::stream_channel().unwrap();
        replay(&near, &items, ends[1], &socket);
        let mut taker = Taker::new(far, LONG);
        assert!(matches!(taker.receive(), Ok(Some(Item::Note(_)))));
        batch(taker.receive());
        taker.answer(&[Verdict::Taken, Verdict::Taken]).unwrap();
        read_raw(&near, 14);
        let taking = thread::spawn(move || {
            let item = taker.receive();
            (item, taker)
        });
        replay(&near, &items[2..], written - ends[1], &socket);
        drop(near);
        match taking.join().unwrap() {
            (Err(TakeError::Gone), _) => assert!(written < ends[2]),
            (Ok(Some(Item::Batch(batch))), mut taker) => {
                assert!(written >= ends[2] && batch.tunnels() == 1);
                assert!(matches!(taker.answer(&[Verdict::Taken]), Err(AnswerError::GivenUp)));
            }
            other => panic!("{written}: {other:?}"),
        }
    }
}

#[test]
fn a_giver_that_is_not_understood_is_told_by_a_hang_up() {
    let socket = any();
    let items = stream(&socket);
    let (batch, sockets) = &items[1];
    let changed = |at: usize, byte: u8| {
        let mut bytes = batch.clone();
        bytes[at] = byte;
        (bytes, *sockets)
    };
    let version = changed(4, VERSION + 1);
    // A kind, a number of tunnels, a length, the length of a record; fewer and more sockets; sockets of a note, and in the
    // middle.
    let malformed = [
        changed(5, 9),
        changed(6, 1),
        changed(12, 0),
        changed(16, 4),
        (batch.clone(), 3),
        (batch.clone(), 5),
        (items[0].0.clone(), 1),
    ];
    for (at, item) in std::iter::once(&version).chain(&malformed).enumerate() {
        let (near, far) = rights::stream_channel().unwrap();
        replay(&near, std::slice::from_ref(item), usize::MAX >> 1, &socket);
        let mut taker = Taker::new(far, LONG);
        match taker.receive() {
            Err(TakeError::Version(version)) => assert_eq!((at, version), (0, VERSION + 1)),
            Err(TakeError::Malformed) => assert_ne!(at, 0),
            other => panic!("{at}: {other:?}"),
        }
        let mut giver = Giver::new(near, LONG);
        assert!(giver.note(b"more").is_err(), "{at}");
    }
    let (near, far) = rights::stream_channel().unwrap();
    write_raw(&near, &batch[..20], &vec![socket.as_fd(); *sockets]);
    write_raw(&near, &batch[20..], &[socket.as_fd()]);
    assert!(matches!(Taker::new(far, LONG).receive(), Err(TakeError::Malformed)));
}

/// Both ends find out at the same time: exactly one of them has the tunnel.
#[test]
fn a_tunnel_has_one_owner_however_giving_up_and_answering_race() {
    let (socket, record) = (any(), [b"record".to_vec()]);
    let (mut taken, mut kept, mut delay) = (0, 0, 1_u32);
    for round in 0..2000 {
        let (mut giver, mut taker) = both();
        giver.send(&parcels(&record, &socket)).unwrap();
        let start = Barrier::new(2);
        let answered = thread::scope(|scope| {
            let answering = scope.spawn(|| {
                batch(taker.receive());
                start.wait();
                taker.answer(&[Verdict::Taken])
            });
            start.wait();
            for _ in 0..delay {
                std::hint::spin_loop();
            }
            giver.give_up();
            answering.join().unwrap()
        });
        let outcomes = giver.outcomes().unwrap();
        assert_eq!(outcomes.len(), 1);
        // Whoever was first is given a handicap, so that they stay close.
        match (answered, &outcomes[0]) {
            (Ok(()), Outcome::Taken) => {
                taken += 1;
                delay -= delay / 4;
            }
            (Err(AnswerError::GivenUp), Outcome::Kept) => {
                kept += 1;
                delay += delay / 4 + 4;
            }
            other => panic!("round {round}: {other:?}"),
        }
    }
    assert!(taken > 0 && kept > 0, "{taken} taken, {kept} kept");
}

#[test]
fn who_waits_in_vain_gives_up_and_the_other_learns_it() {
    let (socket, records) = (any(), vec![vec![0; MAX_RECORD]; 4]);
    let parcels = parcels(&records, &socket);
    // Nobody answers.
    let (near, far) = rights::stream_channel().unwrap();
    let (mut giver, mut taker) = (Giver::new(near, SHORT), Taker::new(far, SHORT));
    let small = Parcel { record: b"", ..parcels[0] };
    giver.send(&[small]).unwrap();
    assert_eq!(giver.outcomes(), Some(vec![Outcome::Kept]));
    assert!(matches!(giver.failure(), Some(GiveError::Timeout)));
    batch(taker.receive());
    assert!(matches!(taker.answer(&[Verdict::Taken]), Err(AnswerError::GivenUp)));
    // Nobody reads: what is in the middle of being sent has not been taken, and neither what was sent before.
    let (near, far) = rights::stream_channel().unwrap();
    let (mut giver, mut taker) = (Giver::new(near, SHORT), Taker::new(far, SHORT));
    giver.send(&[small]).unwrap();
    assert!(matches!(giver.send(&parcels), Err(GiveError::Timeout)));
    assert_eq!(giver.outcomes(), Some(vec![Outcome::Kept]));
    assert_eq!(giver.outcomes(), None);
    batch(taker.receive());
    assert!(matches!(taker.answer(&[Verdict::Taken]), Err(AnswerError::GivenUp)));
    // The giver stops in the middle.
    let items = stream(&socket);
    for len in [1, 16, 20, LENS[0] - 1] {
        let (near, far) = rights::stream_channel().unwrap();
        replay(&near, &items[1..2], len, &socket);
        let mut taker = Taker::new(far, SHORT);
        assert!(matches!(taker.receive(), Err(TakeError::Timeout)), "{len}");
    }
    // Nobody reads the answer.
    let (near, far) = rights::stream_channel().unwrap();
    while rights::send(far.as_fd(), &[IoSlice::new(&[0; 4096])], &[]).is_ok() {}
    replay(&near, &items[1..2], LENS[0], &socket);
    let mut taker = Taker::new(far, SHORT);
    batch(taker.receive());
    let answered = taker.answer(&[Verdict::Taken, Verdict::Taken]);
    assert!(matches!(answered, Err(AnswerError::Timeout)));
    assert!(matches!(taker.receive(), Err(TakeError::Gone)));
}

#[test]
fn a_taker_short_of_descriptors_refuses_the_batch_and_goes_on() {
    const NAME: &str = "a_taker_short_of_descriptors_refuses_the_batch_and_goes_on";
    alone(&format!("{}::{NAME}", module_path!()), 100, || {
        let (mut giver, mut taker) = both();
        let (socket, records) = (any(), vec![b"record".to_vec(); 60]);
        let parcels = parcels(&records, &socket);
        let before = open_descriptors();
        let taking = thread::spawn(move || {
            let small = batch(taker.receive());
            taker.answer(&vec![Verdict::Taken; small.tunnels()]).unwrap();
            (small, taker)
        });
        let text = "too many open files".to_owned();
        let reason = Refusal { code: TOO_MANY_OPEN_FILES, text };
        assert_eq!(giver.give(&parcels).outcomes, vec![Outcome::Refused(reason); 60]);
        assert_eq!(giver.give(&parcels[..30]).outcomes, vec![Outcome::Taken; 30]);
        let (small, _taker) = taking.join().unwrap();
        assert_eq!(open_descriptors(), before + 60);
        drop(small);
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn an_ordinary_user_gives_as_fast_as_the_sockets_arrive() {
    const NAME: &str = "an_ordinary_user_gives_as_fast_as_the_sockets_arrive";
    alone(&format!("{}::{NAME}", module_path!()), 300, || {
        let (socket, records) = (any(), vec![b"record".to_vec(); 8 * MAX_BATCH]);
        let parcels = parcels(&records, &socket);
        let (near, far) = rights::stream_channel().unwrap();
        let (mut giver, mut taker) = (Giver::new(near, SHORT), Taker::new(far, LONG));
        giver.send(&parcels).unwrap();
        giver.send(&parcels).unwrap();
        // 504 are on their way, and nobody takes them.
        assert!(matches!(giver.send(&parcels), Err(GiveError::TooManyInFlight)));
        assert_eq!((giver.outstanding(), giver.failure().is_none()), (2, true));
        giver.note(b"has no sockets").unwrap();
        // As soon as some have arrived there is room.
        drop(batch(taker.receive()));
        giver.send(&parcels).unwrap();
        drop((giver, taker));
        // Many batches, of which never more than two can be on their way.
        let (mut giver, taker) = both();
        let taking = thread::spawn(|| take_all(taker));
        let given = giver.give(&parcels);
        assert!(given.error.is_none() && given.outcomes == vec![Outcome::Taken; 8 * MAX_BATCH]);
        giver.finish().unwrap();
        assert_eq!(taking.join().unwrap(), 8 * MAX_BATCH);
    });
}
