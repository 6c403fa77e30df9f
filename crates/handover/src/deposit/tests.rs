#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use wssgate_sys::errno::ETOOMANYREFS;
use wssgate_sys::testing::{alone, open_descriptors};

use super::*;

/// What is announced where it matters little.
const SOME: Announced = Announced { format: 1, tunnels: 2, number: 77 };

/// For what is there already.
const AT_ONCE: Duration = Duration::ZERO;

fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, peer)
}

/// The copy that a service manager gets.
fn stored(deposit: &Deposit) -> OwnedFd {
    deposit.descriptor().try_clone_to_owned().unwrap()
}

/// One with so many tunnels, whose records say their numbers.
fn deposit(tunnels: usize) -> Deposit {
    let (one, other) = UnixStream::pair().unwrap();
    let records: Vec<_> = (0..tunnels).map(|at| at.to_string()).collect();
    let mut depositing = Depositing::begin(SOME).unwrap();
    for records in records.chunks(MAX_BATCH) {
        let sockets = [one.as_fd(), other.as_fd()];
        let records = records.iter().map(String::as_bytes);
        let parcels: Vec<_> = records.map(|record| Parcel { record, sockets }).collect();
        assert!(depositing.add(&parcels).unwrap());
    }
    assert_eq!(depositing.tunnels(), tunnels);
    depositing.finish().unwrap()
}

/// The records of all that is there.
fn records(withdrawal: &mut Withdrawal) -> Result<Vec<String>, WithdrawError> {
    let mut records = Vec::new();
    while let Some(portion) = withdrawal.take()? {
        assert_eq!(portion.lost, 0);
        let text = |tunnel: &Withdrawn| String::from_utf8(tunnel.record.to_vec()).unwrap();
        records.extend(portion.tunnels.iter().map(text));
    }
    Ok(records)
}

#[test]
fn tunnels_wait_with_what_comes_meanwhile_until_they_are_taken_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (front, mut client) = connect(&listener);
    let (back, mut upstream) = connect(&listener);
    let (near, mut local) = UnixStream::pair().unwrap();
    client.write_all(b"before").unwrap();
    let mut depositing = Depositing::begin(SOME).unwrap();
    let long = vec![b'x'; MAX_RECORD];
    let parcels = [
        Parcel { record: b"first", sockets: [front.as_fd(), back.as_fd()] },
        Parcel { record: &long, sockets: [near.as_fd(), front.as_fd()] },
    ];
    assert!(depositing.add(&parcels).unwrap());
    let deposit = depositing.finish().unwrap();
    let kept = stored(&deposit);
    assert!(deposit.leave(AT_ONCE));
    drop((front, back, near));
    client.write_all(b" and between").unwrap();
    local.write_all(b"local").unwrap();
    assert_eq!(Withdrawal::announced_by(kept.as_fd()), Some(SOME));
    let mut withdrawal = Withdrawal::begin(kept).unwrap();
    assert_eq!(withdrawal.announced(), SOME);
    let portion = withdrawal.take().unwrap().unwrap();
    assert!(portion.lost == 0 && withdrawal.take().unwrap().is_none());
    let [first, second] = <[Withdrawn; 2]>::try_from(portion.tunnels).unwrap();
    assert!(first.record[..] == *b"first" && second.record[..] == long[..]);
    let [front, back] = first.sockets.map(TcpStream::from);
    let mut buffer = [0; 18];
    (&front).read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"before and between");
    (&back).write_all(b"after").unwrap();
    upstream.read_exact(&mut buffer[..5]).unwrap();
    assert_eq!(&buffer[..5], b"after");
    let [near, _] = second.sockets.map(UnixStream::from);
    (&near).read_exact(&mut buffer[..5]).unwrap();
    assert_eq!(&buffer[..5], b"local");
}

#[test]
fn thousands_keep_their_order_and_are_taken_up_once() {
    let deposit = deposit(3000);
    let (kept, again) = (stored(&deposit), stored(&deposit));
    assert!(deposit.leave(AT_ONCE));
    let mut withdrawal = Withdrawal::begin(kept).unwrap();
    let expected: Vec<_> = (0..3000).map(|at| at.to_string()).collect();
    assert_eq!(records(&mut withdrawal).unwrap(), expected);
    assert_eq!(Withdrawal::announced_by(again.as_fd()), None);
    assert!(matches!(Withdrawal::begin(again), Err(WithdrawError::Empty)));
}

#[test]
fn a_deposit_that_nobody_keeps_is_known_to_be_gone() {
    assert!(!deposit(1).leave(AT_ONCE));
    // Who closes it late is waited for.
    let deposit = deposit(1);
    let kept = stored(&deposit);
    let closing = std::thread::spawn(move || drop(kept));
    assert!(!deposit.leave(Duration::from_secs(60)));
    closing.join().unwrap();
}

#[test]
fn what_is_taken_back_is_nobody_elses_any_more() {
    alone(concat!(module_path!(), "::what_is_taken_back_is_nobody_elses_any_more"), 200, || {
        let before = open_descriptors();
        let deposit = deposit(80);
        let kept = stored(&deposit);
        // Also where there is no room for all that comes out.
        let many: Vec<_> = (open_descriptors()..190).map(|_| UnixStream::pair()).collect();
        drop(deposit);
        drop(many);
        assert!(matches!(Withdrawal::begin(kept), Err(WithdrawError::Empty)));
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_process_that_may_open_few_gets_what_it_may() {
    alone(concat!(module_path!(), "::a_process_that_may_open_few_gets_what_it_may"), 60, || {
        let deposit = deposit(30);
        let kept = stored(&deposit);
        assert!(deposit.leave(AT_ONCE));
        let mut withdrawal = Withdrawal::begin(kept).unwrap();
        let portion = withdrawal.take().unwrap().unwrap();
        assert!(!portion.tunnels.is_empty() && portion.lost > 0);
        assert_eq!(portion.tunnels.len() + portion.lost, 30);
        let last = (portion.tunnels.len() - 1).to_string();
        assert_eq!(portion.tunnels.last().unwrap().record[..], *last.as_bytes());
    });
}

#[test]
fn a_deposit_says_when_it_is_full_and_goes_on_as_it_is() {
    let (one, other) = UnixStream::pair().unwrap();
    let sockets = [one.as_fd(), other.as_fd()];
    let mut depositing = Depositing::begin(SOME).unwrap();
    let long = vec![0; MAX_RECORD];
    let one_long = [Parcel { record: &long, sockets }];
    while depositing.add(&one_long).unwrap() {}
    let full = depositing.tunnels();
    assert_eq!(full, 7, "lengths need some bytes");
    assert!(depositing.add(&[Parcel { record: b"last", sockets }]).unwrap());
    let too_long = [Parcel { record: &vec![0; MAX_RECORD + 1], sockets }];
    assert!(depositing.add(&too_long).is_err() && depositing.add(&[]).is_err());
    let kept = stored(&depositing.finish().unwrap());
    drop(kept);
}

/// The kernel counts descriptors on their way for each user.
#[test]
fn too_many_on_their_way_are_an_error() {
    alone(concat!(module_path!(), "::too_many_on_their_way_are_an_error"), 400, || {
        let (one, other) = UnixStream::pair().unwrap();
        let parcel = Parcel { record: b"", sockets: [one.as_fd(), other.as_fd()] };
        let mut depositing = Depositing::begin(SOME).unwrap();
        let parcels = [parcel; MAX_BATCH];
        let error = loop {
            match depositing.add(&parcels) {
                Ok(added) => assert!(added),
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(ETOOMANYREFS));
    });
}

/// A stream with this file and these messages, each with so many descriptors.
fn stream(header: &[u8], file: Option<BorrowedFd<'_>>, messages: &[(u8, usize)]) -> OwnedFd {
    let (near, far) = rights::stream_channel().unwrap();
    rights::send(near.as_fd(), &[IoSlice::new(header)], file.as_slice()).unwrap();
    for &(count, sockets) in messages {
        let sockets = vec![near.as_fd(); sockets];
        rights::send(near.as_fd(), &[IoSlice::new(&[count])], &sockets).unwrap();
    }
    far
}

fn sealed(bytes: &[u8]) -> OwnedFd {
    let mut file = Unsealed::create().unwrap();
    file.write_all(bytes).unwrap();
    file.seal().unwrap()
}

#[test]
fn what_makes_no_sense_is_refused() {
    let whole = header(DEPOSIT_VERSION, SOME);
    let file = sealed(b"\x01\0\0\0a");
    let begin = |header: &[u8], file| Withdrawal::begin(stream(header, file, &[]));
    let next = begin(&header(9, SOME), Some(file.as_fd()));
    assert!(matches!(next, Err(WithdrawError::Version(9))));
    for header in
        [&b"WSGX\x01"[..], &whole[..23], &whole[..5], b"{\"some\": [\"other\", \"text\"]}"]
    {
        let begun = begin(header, Some(file.as_fd()));
        assert!(matches!(begun, Err(WithdrawError::Malformed)), "{header:?}");
    }
    let unsealed = Unsealed::create().unwrap();
    for file in [None, Some(unsealed.as_fd())] {
        assert!(matches!(begin(&whole, file), Err(WithdrawError::Malformed)));
    }
    // What is no stream with something in it.
    let (nothing, _other) = UnixStream::pair().unwrap();
    assert!(matches!(Withdrawal::begin(nothing.into()), Err(WithdrawError::Empty)));
    assert!(matches!(Withdrawal::begin(file), Err(WithdrawError::Unreadable(_))));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(Withdrawal::begin(listener.into()).is_err());
    let many = vec![0; 1 << 10];
    let too_long = [&0xffff_ffff_u32.to_le_bytes()[..], &many].concat();
    for (records, message) in [
        (&b"\x01\0\0\0a"[..], (0, 0)),
        (b"\x01\0\0\0a", (0, 2)),
        (b"\x01\0\0\0a", (1, 1)),
        (b"\x01\0\0\0a", (1, 3)),
        (b"\x01\0\0\0a", (127, 253)),
        (b"\x01\0\0\0a", (2, 4)),
        (b"\x02\0\0\0a", (1, 2)),
        (b"\x01\0\0", (1, 2)),
        (b"", (1, 2)),
        (&too_long, (1, 2)),
    ] {
        let file = sealed(records);
        let far = stream(&whole, Some(file.as_fd()), &[message]);
        let next = Withdrawal::begin(far).unwrap().take();
        assert!(matches!(next, Err(WithdrawError::Malformed)), "{records:?} {message:?}");
    }
}
