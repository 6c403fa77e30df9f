//! The codecs that see every message or every request.

use std::hint::black_box;

use bytes::BytesMut;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use wssgate_http1::{Limits, RequestParser, ResponseParser};
use wssgate_records::{
    AES_GCM_RECORDS, Aead, DirectionKeys, Records, Role, Started, TlsKeys, TlsVersion, sealed_len,
};
use wssgate_ws::{
    Conversation, Counts, Extensions, FrameHeader, Opcode, Side, Tracker, Verdict, conversation,
    mask,
};

fn main() {
    divan::main();
}

/// A masked frame with a payload of zeros.
fn frame(payload_len: usize) -> Vec<u8> {
    let header = FrameHeader::whole(Opcode::Binary, payload_len as u64);
    let header = FrameHeader { mask: Some([1, 2, 3, 4]), ..header };
    [&header.encode()[..], &vec![0; payload_len]].concat()
}

#[divan::bench(args = [125, 16 << 10, 1 << 20])]
fn decode_frame_header(bencher: Bencher<'_, '_>, payload_len: usize) {
    let frame = frame(payload_len);
    bencher.bench(|| FrameHeader::decode(black_box(&frame)));
}

/// Frames of one length in reads of 64 KiB, cut wherever a read ends.
#[divan::bench(args = [125, 4 << 10, 1 << 20])]
fn track_frames(bencher: Bencher<'_, '_>, payload_len: usize) {
    const MESSAGES: usize = 64;
    let stream = frame(payload_len).repeat(MESSAGES);
    let (mut tracker, mut counts) =
        (Tracker::new(Side::Client, Extensions::default()), Counts::default());
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        for read in black_box(&stream).chunks(64 << 10) {
            let _ = black_box(tracker.advance(read, &mut counts));
        }
    });
    assert_eq!(tracker.broken(), None);
}

/// The same, as a tunnel has them judged.
#[divan::bench(args = [125, 4 << 10, 1 << 20])]
fn follow_conversation(bencher: Bencher<'_, '_>, payload_len: usize) {
    const MESSAGES: usize = 64;
    let stream = frame(payload_len).repeat(MESSAGES);
    let mut conversation = Conversation::new(&conversation::Settings::default(), 0);
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        for read in black_box(&stream).chunks(64 << 10) {
            let verdict = black_box(conversation.on_bytes(Side::Client, read, black_box(7)));
            assert_eq!(verdict, Verdict::Pass);
        }
    });
    assert_eq!(conversation.broken(Side::Client), None);
}

#[divan::bench(args = [125, 16 << 10])]
fn mask_payload(bencher: Bencher<'_, '_>, len: usize) {
    let mut payload = vec![0; len];
    bencher
        .counter(BytesCount::new(len))
        .bench_local(|| mask::apply(black_box([1, 2, 3, 4]), 0, black_box(&mut payload)));
}

/// The two ends of a TLS 1.3 connection, with the same keys both ways.
fn record_layers() -> [Records; 2] {
    let tx = DirectionKeys { key: [3; 32], iv: [3; 12], secret: [3; 48], sequence: 0 };
    let rx = tx.clone();
    let (version, aead, started) = (TlsVersion::Tls13, Aead::Aes128Gcm, Started::default());
    let keys = TlsKeys { version, aead, tx, rx, started };
    [Role::Server, Role::Client].map(|peer| Records::new(&keys, peer, AES_GCM_RECORDS))
}

#[divan::bench(args = [125, 4 << 10, 16 << 10])]
fn seal_record(bencher: Bencher<'_, '_>, len: usize) {
    let [mut records, _] = record_layers();
    let (plain, mut out) = (vec![7; len], vec![0; sealed_len(len)]);
    bencher
        .counter(BytesCount::new(len))
        .bench_local(|| records.seal(black_box(&plain), black_box(&mut out)));
}

/// What is sealed here is opened in the same order, as many times as the clock wants.
#[divan::bench(args = [125, 4 << 10, 16 << 10])]
fn seal_and_open_record(bencher: Bencher<'_, '_>, len: usize) {
    let [mut from, mut to] = record_layers();
    let (plain, mut wire) = (vec![7; len], vec![0; sealed_len(len)]);
    let mut opened = vec![0; sealed_len(len)];
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        let used = from.seal(black_box(&plain), black_box(&mut wire)).unwrap_or(0);
        assert_eq!(to.open(&wire[..used], black_box(&mut opened), 0).plain, len);
    });
}

/// The upgrade request of a browser.
const REQUEST: &[u8] = b"GET /chat?room=7 HTTP/1.1\r\n\
    Host: chat.example.com\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n\
    Upgrade: websocket\r\n\
    Origin: https://chat.example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// The answer to it.
const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[divan::bench]
fn parse_request_head(bencher: Bencher<'_, '_>) {
    let limits = Limits::default();
    bencher
        .counter(BytesCount::new(REQUEST.len()))
        .with_inputs(|| BytesMut::from(REQUEST))
        .bench_values(|mut input| {
            let head = RequestParser::new().parse(&mut input, &limits);
            assert!(matches!(head, Ok(Some(_))));
            head
        });
}

#[divan::bench]
fn parse_answer_head(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::new(ANSWER.len()))
        .with_inputs(|| BytesMut::from(ANSWER))
        .bench_values(|mut input| {
            let head = ResponseParser::new().parse(&mut input, 4096);
            assert!(matches!(head, Ok(Some(_))));
            head
        });
}
