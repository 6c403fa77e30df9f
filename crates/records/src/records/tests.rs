//! Records against rustls at the other end, and against a forger who has the right keys.

use std::io::{Read, Write};

use proptest::prelude::*;
use rustls::{CipherSuite, Connection};

use super::*;
use crate::Started;
use crate::post_handshake::key_update;
use crate::testing::{SUITES, Session, session};

const TLS13: CipherSuite = SUITES[0];
const TLS12: CipherSuite = SUITES[3];

/// Our records and a peer in rustls; the second is what it had already sent.
fn pair(suite: CipherSuite, ours: Role, record_limit: u64) -> (Records, Connection, Vec<u8>) {
    let Session { keys, peer, tickets } = session(suite, ours);
    (Records::new(&keys, peer_of(ours), record_limit), peer, tickets)
}

fn peer_of(ours: Role) -> Role {
    match ours {
        Role::Server => Role::Client,
        Role::Client => Role::Server,
    }
}

fn both_roles() -> impl Iterator<Item = (CipherSuite, Role)> {
    SUITES.into_iter().flat_map(|suite| [(suite, Role::Server), (suite, Role::Client)])
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// What the peer puts on the wire for `plain`.
fn peer_seals(peer: &mut Connection, plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for part in plain.chunks(1 << 14) {
        peer.writer().write_all(part).unwrap();
        while peer.wants_write() {
            peer.write_tls(&mut wire).unwrap();
        }
    }
    wire
}

/// What the peer reads from `wire`.
fn peer_opens(peer: &mut Connection, mut wire: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !wire.is_empty() {
        peer.read_tls(&mut wire).unwrap();
        let state = peer.process_new_packets().unwrap();
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        peer.reader().read_exact(&mut plain[start..]).unwrap();
    }
    plain
}

fn seal(records: &mut Records, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; sealed_len(plain.len())];
    let used = records.seal(plain, &mut out).unwrap();
    out.truncate(used);
    out
}

/// Opens what comes in pieces that keep their rest, as a leg does.
fn open_pieces<'a>(
    records: &mut Records,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<u8>, Option<Result<(), TlsFault>>) {
    let (mut all, mut waiting) = (Vec::new(), Vec::new());
    for piece in pieces {
        waiting.extend_from_slice(piece);
        let mut plain = vec![0; waiting.len()];
        let opened = records.open(&waiting, &mut plain, 0);
        all.extend_from_slice(&plain[..opened.plain]);
        waiting.drain(..opened.consumed);
        assert!(waiting.len() < MAX_RECORD);
        if opened.end.is_some() {
            return (all, opened.end);
        }
    }
    assert!(waiting.is_empty());
    (all, None)
}

fn open_all(records: &mut Records, wire: &[u8]) -> (Vec<u8>, Option<Result<(), TlsFault>>) {
    open_pieces(records, std::iter::once(wire))
}

#[test]
fn rustls_and_we_read_each_other_in_every_suite_and_role() {
    for (suite, ours) in both_roles() {
        let (mut records, mut peer, tickets) = pair(suite, ours, AES_GCM_RECORDS);
        assert_eq!(open_all(&mut records, &tickets), (vec![], None), "{suite:?} tickets");
        for len in [1, 2, 125, 16_383, 16_384, 16_385, 40_000, 1] {
            let plain = bytes(len);
            let sealed = seal(&mut records, &plain);
            assert!(peer_opens(&mut peer, &sealed) == plain, "{suite:?} {ours:?} seals {len}");
            let wire = peer_seals(&mut peer, &plain);
            assert!(
                open_all(&mut records, &wire) == (plain, None),
                "{suite:?} {ours:?} opens {len}"
            );
            records.compact();
            assert!(!records.has_expanded_keys());
        }
    }
}

#[test]
fn a_record_that_comes_byte_by_byte_is_opened_when_it_is_whole() {
    for (suite, ours) in both_roles() {
        let (mut records, mut peer, tickets) = pair(suite, ours, AES_GCM_RECORDS);
        let wire = [tickets, peer_seals(&mut peer, &bytes(700))].concat();
        assert_eq!(open_pieces(&mut records, wire.chunks(1)), (bytes(700), None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_goes_in_comes_out_whatever_the_pieces(
        which in 0..SUITES.len(),
        server in any::<bool>(),
        lens in prop::collection::vec(1..20_000_usize, 1..6),
        piece in 1..30_000_usize,
        limit in 2..5_u64,
    ) {
        let ours = if server { Role::Server } else { Role::Client };
        // A low limit puts updates of our own between the records.
        let (mut records, mut peer, tickets) = pair(SUITES[which], ours, limit);
        let plain: Vec<Vec<u8>> = lens.into_iter().map(bytes).collect();
        let wire: Vec<u8> = plain.iter().flat_map(|part| peer_seals(&mut peer, part)).collect();
        let wire = [tickets, wire].concat();
        let (opened, end) = open_pieces(&mut records, wire.chunks(piece));
        prop_assert_eq!(end, None);
        prop_assert!(opened == plain.concat());
        let sealed: Vec<u8> = plain.iter().flat_map(|part| seal(&mut records, part)).collect();
        prop_assert!(peer_opens(&mut peer, &sealed) == plain.concat());
    }

    #[test]
    fn bytes_of_chance_never_panic(which in 0..SUITES.len(), wire in prop::collection::vec(any::<u8>(), 0..600)) {
        let (mut records, _, _) = pair(SUITES[which], Role::Server, AES_GCM_RECORDS);
        let mut plain = vec![0; wire.len()];
        let opened = records.open(&wire, &mut plain, 0);
        prop_assert_eq!(opened.plain, 0);
    }

    #[test]
    fn a_sealed_record_with_any_content_never_panics(
        which in 0..SUITES.len(),
        kinds in prop::collection::vec(20..25_u8, 1..6),
        content in prop::collection::vec(0..25_u8, 0..12),
    ) {
        let mut forged = Forged::new(SUITES[which], Role::Client);
        for kind in kinds {
            let wire = forged.record(kind, &content);
            if open_all(&mut forged.records, &wire).1.is_some() {
                break;
            }
        }
    }
}

#[test]
fn updates_of_the_peer_are_followed_and_answered() {
    for (suite, ours) in both_roles().filter(|(suite, _)| SUITES[..3].contains(suite)) {
        let (mut records, mut peer, tickets) = pair(suite, ours, AES_GCM_RECORDS);
        open_all(&mut records, &tickets);
        for round in 0..5 {
            peer.refresh_traffic_keys().unwrap();
            let wire = peer_seals(&mut peer, b"after");
            assert_eq!(open_all(&mut records, &wire), (b"after".to_vec(), None), "{round}");
            assert_eq!(records.rx.keys.sequence, 1);
            let before = records.tx.keys.sequence;
            assert_eq!(peer_opens(&mut peer, &seal(&mut records, b"answer")), b"answer");
            assert!(
                records.tx.keys.sequence == 1 && (round > 0 || before >= 1 || ours == Role::Client)
            );
            assert!(!records.update_requested);
        }
    }
}

#[test]
fn our_own_update_comes_before_the_keys_wear_out() {
    for (suite, ours) in both_roles().filter(|(suite, _)| SUITES[..2].contains(suite)) {
        let (mut records, mut peer, tickets) = pair(suite, ours, 5);
        open_all(&mut records, &tickets);
        for _ in 0..40 {
            assert_eq!(peer_opens(&mut peer, &seal(&mut records, b"tick")), b"tick");
            assert!(records.tx.keys.sequence <= 4);
            let wire = peer_seals(&mut peer, b"tock");
            assert_eq!(open_all(&mut records, &wire), (b"tock".to_vec(), None));
        }
    }
}

/// Its answers would be records without data, of which a peer that only listens may send so many.
#[test]
fn our_own_update_asks_for_none_in_return() {
    let (mut records, mut peer, _) = pair(TLS13, Role::Server, 2);
    for _ in 0..40 {
        assert_eq!(peer_opens(&mut peer, &seal(&mut records, b"tick")), b"tick");
    }
    let wire = peer_seals(&mut peer, b"tock");
    assert_eq!(wire.len(), HEADER + 4 + 1 + TAG, "nothing stands before the data");
    assert_eq!(open_all(&mut records, &wire), (b"tock".to_vec(), None));
}

#[test]
fn exhausted_keys_of_tls_12_seal_nothing_more_but_the_end() {
    for suite in &SUITES[3..] {
        let (mut records, mut peer, _) = pair(*suite, Role::Server, AES_GCM_RECORDS);
        records.tx_blocks = AES_GCM_BLOCKS + 1;
        let sealed = records.seal(b"x", &mut [0; 100]);
        if *suite == SUITES[5] {
            assert!(sealed.is_ok(), "ChaCha20-Poly1305 does not wear out");
            continue;
        }
        assert_eq!(sealed, Err(TlsFault::KeysExhausted));
        let mut out = [0; MAX_CONTROL];
        let used = records.close_notify(&mut out);
        peer.read_tls(&mut &out[..used]).unwrap();
        assert!(peer.process_new_packets().unwrap().peer_has_closed());
    }
}

/// A first record that was sealed and not sent would make the alert behind it a forgery.
#[test]
fn keys_of_tls_12_that_run_out_within_a_call_seal_nothing_of_it() {
    let (mut records, mut peer, _) = pair(TLS12, Role::Server, AES_GCM_RECORDS);
    records.tx_blocks = AES_GCM_BLOCKS - 3 * (1 << 10);
    assert_eq!(peer_opens(&mut peer, &seal(&mut records, &bytes(MAX_PLAIN))), bytes(MAX_PLAIN));
    let mut out = vec![0; sealed_len(3 * MAX_PLAIN)];
    assert_eq!(records.seal(&bytes(3 * MAX_PLAIN), &mut out), Err(TlsFault::KeysExhausted));
    let mut out = [0; MAX_CONTROL];
    let used = records.close_notify(&mut out);
    peer.read_tls(&mut &out[..used]).unwrap();
    assert!(peer.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn close_notify_is_understood_both_ways_and_said_once() {
    for (suite, ours) in both_roles() {
        let (mut records, mut peer, tickets) = pair(suite, ours, AES_GCM_RECORDS);
        open_all(&mut records, &tickets);
        let mut out = [0; MAX_CONTROL];
        let used = records.close_notify(&mut out);
        peer.read_tls(&mut &out[..used]).unwrap();
        assert!(peer.process_new_packets().unwrap().peer_has_closed());
        assert_eq!(records.close_notify(&mut out), 0);
        assert_eq!(records.fatal_alert(20, &mut out), 0);
        let mut wire = peer_seals(&mut peer, b"last");
        peer.send_close_notify();
        peer.write_tls(&mut wire).unwrap();
        wire.extend_from_slice(b"what follows is ignored");
        assert_eq!(records_open(&mut records, &wire), (b"last".to_vec(), Some(Ok(()))));
    }
}

fn records_open(records: &mut Records, wire: &[u8]) -> (Vec<u8>, Option<Result<(), TlsFault>>) {
    let mut plain = vec![0; wire.len()];
    let opened = records.open(wire, &mut plain, 0);
    plain.truncate(opened.plain);
    (plain, opened.end)
}

#[test]
fn a_fatal_alert_is_understood() {
    for (suite, ours) in both_roles() {
        let (mut records, mut peer, tickets) = pair(suite, ours, AES_GCM_RECORDS);
        open_all(&mut records, &tickets);
        let mut out = [0; MAX_CONTROL];
        let used = records.fatal_alert(20, &mut out);
        peer.read_tls(&mut &out[..used]).unwrap();
        assert_eq!(
            peer.process_new_packets().unwrap_err(),
            rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)
        );
    }
}

/// The keys of the other end.
fn mirrored(keys: &TlsKeys) -> TlsKeys {
    let TlsKeys { version, aead, ref tx, ref rx, .. } = *keys;
    TlsKeys { version, aead, tx: rx.clone(), rx: tx.clone(), started: Started::default() }
}

/// Our records, and someone who seals what he likes with the peer's keys.
struct Forged {
    records: Records,
    forger: Records,
}

impl Forged {
    fn new(suite: CipherSuite, ours: Role) -> Self {
        let Session { keys, .. } = session(suite, ours);
        let mirrored = mirrored(&keys);
        Self {
            forger: Records::new(&mirrored, Role::Client, AES_GCM_RECORDS),
            records: Records::new(&keys, peer_of(ours), AES_GCM_RECORDS),
        }
    }

    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![0; content.len() + MAX_OVERHEAD];
        let used = self.forger.seal_record(kind, content, &mut out);
        out.truncate(used);
        out
    }
}

/// Sealed records by type and content, and how we end.
type Case<'a> = (&'static str, &'a [(u8, &'a [u8])], Result<(), TlsFault>);

fn check(suite: CipherSuite, ours: Role, cases: &[Case]) {
    for &(name, sealed, expected) in cases {
        let mut forged = Forged::new(suite, ours);
        let wire: Vec<u8> =
            sealed.iter().flat_map(|(kind, content)| forged.record(*kind, content)).collect();
        let (_, end) = open_all(&mut forged.records, &wire);
        assert_eq!(end.unwrap_or(Ok(())), expected, "{name}");
    }
}

const UNEXPECTED: Result<(), TlsFault> = Err(TlsFault::UnexpectedMessage);
const ZEROS: &[u8] = &[0; MAX_PLAIN + 2];
const EMPTY: (u8, &[u8]) = (kind::DATA, &[]);
const UPDATE: (u8, &[u8]) = (kind::HANDSHAKE, &[24, 0, 0, 1, 0]);

#[test]
fn what_a_peer_may_not_put_into_records_of_tls_13() {
    check(
        TLS13,
        Role::Server,
        &[
            ("no type at all", &[(0, &[])], UNEXPECTED),
            ("only padding", &[(0, &[0; 100])], UNEXPECTED),
            ("padding behind data", &[(0, &[7, 7, kind::DATA, 0, 0])], Ok(())),
            ("change_cipher_spec", &[(20, &[1])], UNEXPECTED),
            ("heartbeat", &[(24, &[1, 0, 0])], UNEXPECTED),
            ("unknown type", &[(99, b"x")], UNEXPECTED),
            ("longest content", &[(kind::DATA, ZEROS.split_at(MAX_PLAIN).0)], Ok(())),
            ("too long a content", &[(kind::DATA, ZEROS)], Err(TlsFault::RecordOverflow)),
            ("100 empty records", &[EMPTY; 100], Ok(())),
            ("101 empty records", &[EMPTY; 101], UNEXPECTED),
            ("empty alert", &[(21, &[])], UNEXPECTED),
            ("short alert", &[(21, &[2])], UNEXPECTED),
            ("two alerts", &[(21, &[2, 40, 2, 40])], UNEXPECTED),
            ("alert of no level", &[(21, &[3, 40])], Err(TlsFault::IllegalParameter)),
            ("fatal alert", &[(21, &[2, 40])], Err(TlsFault::Alert(40))),
            ("fatal alert as warning", &[(21, &[1, 40])], Err(TlsFault::Alert(40))),
            ("user_canceled", &[(21, &[1, 90])], Ok(())),
            ("empty handshake", &[(22, &[])], UNEXPECTED),
            ("update", &[(22, &[24, 0, 0, 1, 1])], Ok(())),
            ("update in pieces", &[(22, &[24, 0]), (22, &[0, 1]), (22, &[0])], Ok(())),
            ("piece, then data", &[(22, &[24, 0]), (23, b"x")], UNEXPECTED),
            ("piece, then empty data", &[(22, &[24, 0]), EMPTY], UNEXPECTED),
            ("piece, then alert", &[(22, &[24, 0]), (21, &[1, 0])], UNEXPECTED),
            ("update to 2", &[(22, &[24, 0, 0, 1, 2])], Err(TlsFault::IllegalParameter)),
            ("long update", &[(22, &[24, 0, 0, 2, 0, 0])], Err(TlsFault::DecodeError)),
            ("two in a record", &[(22, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])], UNEXPECTED),
            ("ticket from a client", &[(22, &[4, 0, 0, 1, 0])], UNEXPECTED),
            ("Finished", &[(22, &[20, 0, 0, 0])], UNEXPECTED),
            ("ClientHello", &[(22, &[1, 0, 0, 0])], UNEXPECTED),
        ],
    );
    check(
        TLS13,
        Role::Client,
        &[
            ("ticket", &[(22, &[4, 0, 0, 1, 0])], Ok(())),
            ("ticket in pieces", &[(22, &[4, 0, 0]), (22, &[3, 9]), (22, &[9, 9])], Ok(())),
            ("ticket and update", &[(22, &[4, 0, 0, 1, 9, 24, 0, 0, 1, 0])], Ok(())),
            ("huge ticket", &[(22, &[4, 3, 0, 0])], Err(TlsFault::DecodeError)),
            ("ticket, then data within", &[(22, &[4, 0, 0, 9]), (23, b"x")], UNEXPECTED),
            ("CertificateRequest", &[(22, &[13, 0, 0, 0])], UNEXPECTED),
        ],
    );
}

impl Forged {
    /// A KeyUpdate at this time; how we end.
    fn update(&mut self, now_ms: u64) -> Option<Result<(), TlsFault>> {
        let wire = self.record(UPDATE.0, UPDATE.1);
        self.forger.tx.update(Aead::Aes128Gcm);
        self.records.open(&wire, &mut vec![0; wire.len()], now_ms).end
    }
}

#[test]
fn updates_without_data_are_bounded_at_a_stretch_and_not_for_ever() {
    let mut forged = Forged::new(TLS13, Role::Server);
    for _ in 0..100 {
        assert_eq!(forged.update(5), None);
    }
    assert_eq!(forged.update(5), Some(UNEXPECTED), "too many at once");
    let hour = 3_600_000;
    let mut forged = Forged::new(TLS13, Role::Server);
    for hours in 0..1000 {
        assert_eq!(forged.update(hours * hour), None, "hour {hours}");
    }
    // One a second goes on as well, and what has come before it counts.
    let mut forged = Forged::new(TLS13, Role::Server);
    for number in 0..99 {
        assert_eq!(forged.update(0), None, "{number}");
    }
    for second in 1..300 {
        assert_eq!(forged.update(second * 1000), None, "second {second}");
    }
    assert_eq!(forged.update(299_000), None);
    assert_eq!(forged.update(299_000), Some(UNEXPECTED));
    // Data makes up for all.
    let mut forged = Forged::new(TLS13, Role::Server);
    for _ in 0..5 {
        for _ in 0..100 {
            assert_eq!(forged.update(0), None);
        }
        let data = forged.record(kind::DATA, b"x");
        assert_eq!(records_open(&mut forged.records, &data), (b"x".to_vec(), None));
    }
}

/// Whoever opened the first part is gone; what it was sealed with is not.
#[test]
fn a_message_that_has_begun_before_the_keys_were_taken_goes_on() {
    let ticket = [&[4, 0, 1, 44][..], &[9; 300]].concat();
    let update = [24, 0, 0, 1, 0];
    let whole_ticket = [4, 0, 0, 1, 7];
    type Split<'a> = (Role, &'a [(u8, &'a [u8])], &'a [u8]);
    let cases: &[Split<'_>] = &[
        (Role::Server, &[(23, b"request"), (22, &update[..2])], &update[2..]),
        (Role::Server, &[(23, b"request"), (22, &update[..1]), (22, &update[1..4])], &update[4..]),
        // At the very beginning.
        (Role::Server, &[(22, &update[..4])], &update[4..]),
        (Role::Client, &[(23, b"101"), (22, &ticket[..100])], &ticket[100..]),
        (Role::Client, &[(23, b"101"), (22, &ticket[..3]), (22, &ticket[3..150])], &ticket[150..]),
        (Role::Client, &[(22, &whole_ticket), (22, &ticket[..5])], &ticket[5..]),
    ];
    for suite in &SUITES[..3] {
        for &(ours, before, rest) in cases {
            let Session { mut keys, .. } = session(*suite, ours);
            let mut forger = Records::new(&mirrored(&keys), Role::Client, AES_GCM_RECORDS);
            let mut record = |kind, content: &[u8]| {
                let mut out = vec![0; content.len() + MAX_OVERHEAD];
                let used = forger.seal_record(kind, content, &mut out);
                out.truncate(used);
                out
            };
            let seen: Vec<u8> =
                before.iter().flat_map(|(kind, content)| record(*kind, content)).collect();
            keys.rx.sequence += before.len() as u64;
            keys.find_started(peer_of(ours), &seen).unwrap();
            let mut records = Records::new(&keys, peer_of(ours), AES_GCM_RECORDS);
            let wire = record(22, rest);
            assert_eq!(open_all(&mut records, &wire), (vec![], None), "{suite:?} {before:?}");
            if ours == Role::Server {
                forger.tx.update(keys.aead);
            }
            let mut out = vec![0; 1 + MAX_OVERHEAD];
            let used = forger.seal_record(kind::DATA, b"x", &mut out);
            assert_eq!(open_all(&mut records, &out[..used]), (b"x".to_vec(), None));
        }
    }
}

#[test]
fn what_may_not_begin_before_the_keys_are_taken_is_found() {
    let Session { mut keys, .. } = session(TLS13, Role::Server);
    let mut forger = Records::new(&mirrored(&keys), Role::Client, AES_GCM_RECORDS);
    let mut out = vec![0; 4 + MAX_OVERHEAD];
    // A client has no tickets.
    let used = forger.seal_record(kind::HANDSHAKE, &[4, 0, 0, 9], &mut out);
    keys.rx.sequence += 1;
    assert_eq!(keys.find_started(Role::Client, &out[..used]), UNEXPECTED);
}

#[test]
fn what_a_peer_may_not_put_into_records_of_tls_12() {
    let hello: (u8, &[u8]) = (22, &[1, 0, 0, 1, 0]);
    check(
        TLS12,
        Role::Server,
        &[
            ("longest content", &[(23, ZEROS.split_at(MAX_PLAIN).0)], Ok(())),
            ("too long a content", &[(23, ZEROS)], Err(TlsFault::RecordOverflow)),
            ("101 empty records", &[EMPTY; 101], UNEXPECTED),
            ("change_cipher_spec", &[(20, &[1])], UNEXPECTED),
            ("warning", &[(21, &[1, 100])], Ok(())),
            ("fatal alert", &[(21, &[2, 40])], Err(TlsFault::Alert(40))),
            ("alert of no level", &[(21, &[0, 40])], Err(TlsFault::IllegalParameter)),
            ("empty alert", &[(21, &[])], UNEXPECTED),
            ("short alert", &[(21, &[2])], UNEXPECTED),
            ("renegotiation once", &[hello], Ok(())),
            ("renegotiation twice", &[hello, hello], UNEXPECTED),
            ("HelloRequest from a client", &[(22, &[0, 0, 0, 0])], UNEXPECTED),
            ("KeyUpdate", &[UPDATE], UNEXPECTED),
            ("empty handshake", &[(22, &[])], UNEXPECTED),
        ],
    );
    check(
        TLS12,
        Role::Client,
        &[
            ("HelloRequest", &[(22, &[0, 0, 0, 0])], Ok(())),
            ("ClientHello from a server", &[hello], UNEXPECTED),
        ],
    );
}

#[test]
fn what_a_peer_may_not_put_around_records() {
    let overflow = Err(TlsFault::RecordOverflow);
    let forged = Err(TlsFault::BadRecordMac);
    let version = Err(TlsFault::ProtocolVersion);
    type End = Option<Result<(), TlsFault>>;
    let cases: &[(CipherSuite, &[u8], End)] = &[
        // The header alone is enough to refuse, and no less.
        (TLS13, &[20, 3, 3, 0], None),
        (TLS13, &[20, 3, 3, 0, 1], Some(UNEXPECTED)),
        (TLS13, &[21, 3, 3, 0, 2], Some(UNEXPECTED)),
        (TLS13, &[22, 3, 3, 0, 2], Some(UNEXPECTED)),
        (TLS13, b"GET / HTTP/1.1", Some(UNEXPECTED)),
        (TLS13, &[23, 3, 3, 0x41, 0x00], None),
        (TLS13, &[23, 3, 3, 0x41, 0x01], Some(overflow)),
        (TLS13, &[23, 3, 3, 0xff, 0xff], Some(overflow)),
        (TLS13, &[23, 3, 3, 0, 0], Some(forged)),
        (TLS13, &[23, 3, 3, 0, 3, 1, 2, 3], Some(forged)),
        (TLS12, &[20, 3, 3, 0, 1], Some(UNEXPECTED)),
        (TLS12, &[24, 3, 3, 0, 1], Some(UNEXPECTED)),
        (TLS12, &[23, 3, 1, 0, 1], Some(version)),
        (TLS12, &[23, 2, 3, 0, 1], Some(version)),
        (TLS12, &[23, 3, 3, 0x48, 0x00], None),
        (TLS12, &[23, 3, 3, 0x48, 0x01], Some(overflow)),
        (TLS12, &[23, 3, 3, 0, 0], Some(forged)),
        (TLS12, &[23, 3, 3, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9], Some(forged)),
    ];
    for (suite, wire, expected) in cases {
        let (mut records, _, _) = pair(*suite, Role::Server, AES_GCM_RECORDS);
        assert_eq!(records_open(&mut records, wire), (vec![], *expected), "{suite:?} {wire:?}");
    }
}

#[test]
fn a_changed_repeated_or_missing_record_is_not_authentic() {
    for (suite, ours) in both_roles() {
        let mut forged = Forged::new(suite, ours);
        let first = forged.record(kind::DATA, b"first");
        let second = forged.record(kind::DATA, b"second");
        let bad = (vec![], Some(Err(TlsFault::BadRecordMac)));
        assert_eq!(records_open(&mut forged.records, &second), bad, "one is missing");
        // The header counts from its length on: its kind and version are looked at before.
        for at in [HEADER, first.len() / 2, first.len() - 1] {
            let mut changed = first.clone();
            changed[at] ^= 1;
            assert_eq!(records_open(&mut forged.records, &changed), bad, "{suite:?} {at}");
        }
        assert_eq!(records_open(&mut forged.records, &first), (b"first".to_vec(), None));
        assert_eq!(records_open(&mut forged.records, &first), bad, "repeated");
        assert_eq!(records_open(&mut forged.records, &second), (b"second".to_vec(), None));
    }
}

/// Something that happens in a conversation.
#[derive(Debug, Clone)]
enum Event {
    /// The peer seals these bytes as a record of this type; in TLS 1.3 a KeyUpdate changes its keys.
    Peer(u8, Vec<u8>),
    /// Of what the peer has put on the wire, so much comes.
    Wire(usize),
    Seal(usize),
    CloseNotify,
    Alert,
    Compact,
    Wait(u64),
    /// Somebody else goes on, whose clock has shown this.
    Move(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let update = |request| Event::Peer(kind::HANDSHAKE, key_update(request).to_vec());
    let ticket = |len: usize| [&[4, 0, 0, len as u8][..], &vec![7; len]].concat();
    let handshake = |bytes: Vec<u8>| Event::Peer(kind::HANDSHAKE, bytes);
    prop_oneof![
        4 => (0..3_000_usize).prop_map(|len| Event::Peer(kind::DATA, bytes(len))),
        2 => any::<bool>().prop_map(update),
        1 => (1..200_usize).prop_map(move |len| handshake(ticket(len))),
        // A message in parts, which follow each other or not.
        1 => (1..99_usize).prop_map(move |len| handshake(ticket(99)[..len].to_vec())),
        1 => (1..99_usize).prop_map(move |len| handshake(ticket(99)[len..].to_vec())),
        1 => (1..5_usize).prop_map(move |len| handshake(key_update(true)[..len].to_vec())),
        1 => (1..5_usize).prop_map(move |len| handshake(key_update(true)[len..].to_vec())),
        1 => Just(handshake(vec![0; 4])),
        1 => Just(Event::Peer(kind::ALERT, vec![1, 90])),
        1 => prop_oneof![9 => Just(1_u8), 1 => Just(2)]
            .prop_map(|level| Event::Peer(kind::ALERT, vec![level, 0])),
        9 => prop_oneof![1..4_000_usize, Just(usize::MAX)].prop_map(Event::Wire),
        6 => prop_oneof![1..300_usize, 1..40_000_usize].prop_map(Event::Seal),
        1 => Just(Event::Alert),
        1 => Just(Event::CloseNotify),
        1 => Just(Event::Compact),
        2 => (0..3_000_u64).prop_map(Event::Wait),
        6 => (0..u64::MAX >> 8).prop_map(Event::Move),
    ]
}

/// Records, what has come of a record that is not whole, and their clock.
struct End {
    records: Records,
    waiting: Vec<u8>,
    now_ms: u64,
}

impl End {
    fn open(&mut self, wire: &[u8]) -> (Vec<u8>, Option<Result<(), TlsFault>>) {
        self.waiting.extend_from_slice(wire);
        let mut plain = vec![0; self.waiting.len()];
        let opened = self.records.open(&self.waiting, &mut plain, self.now_ms);
        self.waiting.drain(..opened.consumed);
        plain.truncate(opened.plain);
        (plain, opened.end)
    }

    fn seal(&mut self, len: usize) -> Result<Vec<u8>, TlsFault> {
        let mut out = vec![0; sealed_len(len)];
        let used = self.records.seal(&bytes(len), &mut out)?;
        out.truncate(used);
        Ok(out)
    }

    fn alert(&mut self, fatal: bool) -> Vec<u8> {
        let mut out = [0; MAX_CONTROL];
        let used = match fatal {
            true => self.records.fatal_alert(20, &mut out),
            false => self.records.close_notify(&mut out),
        };
        out[..used].to_vec()
    }

    /// Goes on as somebody else, over bytes.
    fn go_on(&mut self, limit: u64, now_ms: u64) {
        let state = minicbor::to_vec(self.records.state(self.now_ms)).unwrap();
        let state = minicbor::decode(&state).unwrap();
        self.now_ms = now_ms;
        self.records = Records::restore(&state, limit, now_ms).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn records_that_move_seal_and_open_as_those_that_stay(
        which in 0..SUITES.len(),
        server in any::<bool>(),
        limit in 2..9_u64,
        events in prop::collection::vec(event(), 1..120),
    ) {
        let ours = if server { Role::Server } else { Role::Client };
        let Session { keys, .. } = session(SUITES[which], ours);
        let mut forger = Records::new(&mirrored(&keys), ours, AES_GCM_RECORDS);
        let end = || End {
            records: Records::new(&keys, peer_of(ours), limit),
            waiting: Vec::new(),
            now_ms: 5,
        };
        let (mut stays, mut moves, mut wire, mut over) = (end(), end(), Vec::new(), false);
        for event in events {
            match event {
                Event::Peer(kind, content) => {
                    let mut out = vec![0; content.len() + MAX_OVERHEAD];
                    let used = forger.seal_record(kind, &content, &mut out);
                    wire.extend_from_slice(&out[..used]);
                    if kind == kind::HANDSHAKE && content.len() == 5 && forger.version == TlsVersion::Tls13 {
                        forger.tx.update(forger.aead);
                    }
                }
                Event::Wire(len) if !over => {
                    let came: Vec<u8> = wire.drain(..len.min(wire.len())).collect();
                    let opened = stays.open(&came);
                    over = opened.1.is_some();
                    prop_assert_eq!(moves.open(&came), opened);
                }
                Event::Wire(_) => {}
                Event::Seal(_) if stays.records.closed => {}
                Event::Seal(len) => prop_assert_eq!(moves.seal(len), stays.seal(len)),
                Event::CloseNotify => prop_assert_eq!(moves.alert(false), stays.alert(false)),
                Event::Alert => prop_assert_eq!(moves.alert(true), stays.alert(true)),
                Event::Compact => stays.records.compact(),
                Event::Wait(ms) => {
                    stays.now_ms += ms;
                    moves.now_ms += ms;
                }
                Event::Move(now_ms) => moves.go_on(limit, now_ms),
            }
        }
        let states = [&stays, &moves].map(|end| {
            minicbor::to_vec(end.records.state(end.now_ms)).unwrap()
        });
        prop_assert_eq!(&states[0], &states[1]);
    }

    #[test]
    fn a_state_of_chance_is_refused_or_goes_on_without_a_panic(
        which in 0..SUITES.len(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
        content in prop::collection::vec(0..25_u8, 0..12),
    ) {
        let mut forged = Forged::new(SUITES[which], Role::Client);
        let mut state = minicbor::to_vec(forged.records.state(7)).unwrap();
        *at.get_mut(&mut state) = to;
        let Ok(state) = minicbor::decode(&state) else { return Ok(()) };
        let Ok(records) = Records::restore(&state, 2, 7) else { return Ok(()) };
        forged.records = records;
        for kind in [kind::HANDSHAKE, kind::DATA, kind::ALERT] {
            let wire = forged.record(kind, &content);
            if open_all(&mut forged.records, &wire).1.is_some() {
                break;
            }
        }
        let mut out = vec![0; sealed_len(50_000)];
        forged.records.seal(&bytes(50_000), &mut out).ok();
        forged.records.close_notify(&mut [0; MAX_CONTROL]);
    }
}

#[test]
fn a_state_that_nobody_can_have_been_in_is_refused() {
    let state = || Forged::new(TLS13, Role::Client).records.state(0);
    let mut used_up = state();
    used_up.tx.sequence = u64::MAX;
    let mut other = state();
    other.version = TlsVersion::Tls12;
    // A handshake message of which more has come than there is.
    other.started = minicbor::decode(b"\xa3\x00\x45\x04\0\0\0\0\x01\x05\x02\0").unwrap();
    let mut longer = state();
    longer.started = other.started.clone();
    for state in [used_up, other, longer] {
        assert_eq!(Records::restore(&state, 2, 0).unwrap_err(), Unsound);
    }
}

#[test]
fn a_state_shows_no_secret() {
    let state = Forged::new(TLS13, Role::Client).records.state(0);
    let shown = format!("{state:?}");
    assert!(shown.contains("sequence") && !shown.contains("key:") && !shown.contains("secret"));
}

#[test]
fn every_fault_of_a_peer_has_its_alert() {
    let alerts = [
        (TlsFault::UnexpectedMessage, Some(10)),
        (TlsFault::BadRecordMac, Some(20)),
        (TlsFault::RecordOverflow, Some(22)),
        (TlsFault::IllegalParameter, Some(47)),
        (TlsFault::DecodeError, Some(50)),
        (TlsFault::ProtocolVersion, Some(70)),
        (TlsFault::Alert(40), None),
    ];
    for (fault, alert) in alerts {
        assert_eq!(fault.alert(), alert, "{fault}");
    }
    assert_eq!(key_update(true), [24, 0, 0, 1, 1]);
}
