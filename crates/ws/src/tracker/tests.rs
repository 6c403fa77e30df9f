#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::reference::compare;
use super::*;
use crate::mask;

fn frame(fin: bool, opcode: Opcode, from: Side, payload: &[u8]) -> Vec<u8> {
    let mask = must_mask(from).then_some([0xa1, 0x05, 0x7f, 0xe0]);
    let header = FrameHeader { fin, rsv: 0, opcode, mask, payload_len: payload.len() as u64 };
    let mut bytes = header.encode().to_vec();
    let header_len = bytes.len();
    bytes.extend_from_slice(payload);
    mask::apply(mask.unwrap_or_default(), 0, &mut bytes[header_len..]);
    bytes
}

/// Advances a fresh tracker by all of `stream` at once.
fn advanced(from: Side, stream: &[u8]) -> (Tracker, Progress, Counts) {
    let mut tracker = Tracker::new(from, Extensions::NONE);
    let mut counts = Counts::default();
    let progress = tracker.advance(stream, &mut counts);
    (tracker, progress, counts)
}

#[test]
fn a_tracker_is_40_bytes() {
    assert_eq!(size_of::<Tracker>(), 40);
}

#[test]
fn control_frames_between_fragments_end_no_message() {
    let stream = [
        frame(false, Opcode::Text, Side::Client, b"hel"),
        frame(true, Opcode::Ping, Side::Client, b"?"),
        frame(false, Opcode::Continuation, Side::Client, b""),
        frame(true, Opcode::Pong, Side::Client, b""),
        frame(true, Opcode::Continuation, Side::Client, b"lo"),
        frame(true, Opcode::Binary, Side::Client, &[0; 70_000]),
    ];
    let (tracker, progress, counts) = advanced(Side::Client, &stream.concat());
    assert_eq!(progress.boundary, Some(stream.concat().len()));
    let bytes = stream.concat().len() as u64;
    let payload =
        Counts { texts: 1, text_payload: 5, payload: 70_005, largest: 70_000, ..Counts::default() };
    assert_eq!(counts, Counts { bytes, frames: 6, messages: 2, pings: 1, pongs: 1, ..payload });
    assert_eq!((tracker.is_in_message(), tracker.message_len()), (false, 70_000));

    let (tracker, ..) = advanced(Side::Client, &stream[..3].concat());
    assert_eq!((tracker.is_in_message(), tracker.message_len()), (true, 3));
    let (tracker, ..) = advanced(Side::Client, &stream[..5].concat());
    assert_eq!((tracker.is_in_message(), tracker.message_len()), (false, 5));
}

#[test]
fn the_code_of_a_close_is_known_as_soon_as_its_two_bytes_have_passed() {
    for from in [Side::Client, Side::Server] {
        let close = frame(true, Opcode::Close, from, b"\x03\xe9going");
        let known = close.len() - b"going".len();
        let mut tracker = Tracker::new(from, Extensions::NONE);
        let mut counts = Counts::default();
        for byte in &close[..known - 1] {
            assert_eq!(tracker.advance(&[*byte], &mut counts).close, None);
        }
        let progress = tracker.advance(&close[known - 1..known], &mut counts);
        assert_eq!(progress.close, Some(CloseCode::GOING_AWAY));
        assert_eq!(tracker.advance(&close[known..], &mut counts).boundary, Some(5));

        let (_, progress, _) = advanced(from, &frame(true, Opcode::Close, from, b""));
        assert_eq!(progress.close, Some(CloseCode::NO_STATUS));
    }
}

#[test]
fn a_boundary_is_reported_even_if_a_header_begins_behind_it() {
    let (tracker, progress, _) = advanced(Side::Server, b"\x82\x01x\x82");
    assert_eq!((progress.boundary, tracker.is_at_boundary()), (Some(3), false));
    let (tracker, progress, _) = advanced(Side::Server, b"\x82");
    assert_eq!((progress.boundary, tracker.is_at_boundary()), (Some(0), false));
    let (tracker, progress, _) = advanced(Side::Server, b"");
    assert_eq!((progress.boundary, tracker.is_at_boundary()), (Some(0), true));
}

#[test]
fn every_broken_rule_has_its_error() {
    let cases: &[(Side, &[u8], FrameError)] = &[
        (Side::Client, b"\x81\x05", FrameError::NotMasked),
        (Side::Server, b"\x81\x85", FrameError::Masked),
        (Side::Server, b"\xc1", FrameError::ReservedBits(4)),
        (Side::Server, b"\x80", FrameError::NothingToContinue),
        (Side::Server, b"\x01\x00\x81", FrameError::MessageNotEnded),
        (Side::Server, b"\x81\x00\x80", FrameError::NothingToContinue),
        (Side::Server, b"\x83", FrameError::ReservedOpcode(3)),
        (Side::Server, b"\x09", FrameError::FragmentedControl),
        (Side::Server, b"\x89\x7e", FrameError::LongControl),
        (Side::Server, b"\x88\x01", FrameError::HalfCloseCode),
        (Side::Server, b"\x82\x7e\x00\x7d", FrameError::LengthNotMinimal),
        (Side::Server, b"\x82\x7f\x80", FrameError::LengthTooBig),
    ];
    for (from, stream, error) in cases {
        let (_, progress, _) = advanced(*from, &stream[..stream.len() - 1]);
        assert_eq!(progress.broken, None, "{stream:x?} without its last byte");
        let (tracker, progress, _) = advanced(*from, stream);
        assert_eq!(progress.broken, Some(*error), "{stream:x?}");
        assert_eq!(tracker.broken(), Some(*error));
    }
}

#[test]
fn a_broken_stream_is_only_counted() {
    let (mut tracker, progress, mut counts) = advanced(Side::Server, b"\x82\x00\x83\x82\x00");
    assert_eq!(progress.boundary, Some(2));
    assert_eq!(progress.broken, Some(FrameError::ReservedOpcode(3)));
    assert_eq!(tracker.advance(b"\x82\x00", &mut counts), Progress::default());
    assert_eq!(counts, Counts { bytes: 7, frames: 1, messages: 1, ..Counts::default() });
    assert!(!tracker.is_at_boundary());
}

#[test]
fn permessage_deflate_allows_rsv1_on_the_first_frame_of_a_message_only() {
    let cases: &[(&[u8], Option<FrameError>)] = &[
        (b"\x41\x00\x80\x00\xc2\x00", None),
        (b"\x41\x00\xc0\x00", Some(FrameError::ReservedBits(4))),
        (b"\xa1\x00", Some(FrameError::ReservedBits(2))),
        (b"\xc9\x00", Some(FrameError::ReservedBits(4))),
    ];
    for (stream, expected) in cases {
        let mut tracker = Tracker::new(Side::Server, Extensions::DEFLATE);
        let progress = tracker.advance(stream, &mut Counts::default());
        assert_eq!(progress.broken, *expected, "{stream:x?}");
    }
}

fn any_side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn any_extensions() -> impl Strategy<Value = Extensions> {
    prop_oneof![Just(Extensions::NONE), Just(Extensions::DEFLATE), Just(Extensions::UNKNOWN)]
}

/// A message in fragments, perhaps with a control frame before each.
fn any_message(from: Side) -> impl Strategy<Value = Vec<u8>> {
    let payload = || {
        prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..12),
            1 => prop::collection::vec(any::<u8>(), 120..300),
        ]
    };
    let control = (
        prop_oneof![Just(Opcode::Close), Just(Opcode::Ping), Just(Opcode::Pong)],
        prop::collection::vec(any::<u8>(), 2..20),
    );
    let fragment = (prop::option::weighted(0.3, control), payload());
    let kind = prop_oneof![Just(Opcode::Text), Just(Opcode::Binary)];
    (kind, prop::collection::vec(fragment, 1..4)).prop_map(move |(kind, fragments)| {
        let last = fragments.len() - 1;
        let mut bytes = Vec::new();
        for (i, (control, payload)) in fragments.iter().enumerate() {
            if let Some((opcode, payload)) = control {
                bytes.extend(frame(true, *opcode, from, payload));
            }
            let opcode = if i == 0 { kind } else { Opcode::Continuation };
            bytes.extend(frame(i == last, opcode, from, payload));
        }
        bytes
    })
}

fn any_stream() -> impl Strategy<Value = (Side, Vec<u8>)> {
    any_side().prop_flat_map(|from| {
        let stream = prop::collection::vec(any_message(from), 0..6);
        (Just(from), stream.prop_map(|messages| messages.concat()))
    })
}

proptest! {
    #[test]
    fn valid_streams_are_followed_however_they_are_cut(
        (from, stream) in any_stream(),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        extensions in any_extensions(),
    ) {
        compare(&stream, &cuts, from, extensions);
        let (tracker, progress, _) = advanced(from, &stream);
        prop_assert_eq!(tracker.broken(), None);
        prop_assert_eq!(progress.boundary, Some(stream.len()));
    }

    #[test]
    fn damaged_streams_break_where_the_reference_breaks(
        (from, mut stream) in any_stream(),
        damage in prop::collection::vec((any::<usize>(), 0..8u32), 1..4),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        extensions in any_extensions(),
    ) {
        for (at, bit) in damage {
            if !stream.is_empty() {
                let at = at % stream.len();
                stream[at] ^= 1 << bit;
            }
        }
        compare(&stream, &cuts, from, extensions);
    }

    #[test]
    fn noise_never_panics_and_agrees_with_the_reference(
        stream in prop::collection::vec(any::<u8>(), 0..64),
        from in any_side(),
        extensions in any_extensions(),
    ) {
        let every_byte: Vec<_> = (0..stream.len()).collect();
        compare(&stream, &every_byte, from, extensions);
        compare(&stream, &[], from, extensions);
    }
}

/// Whoever begins to look in the middle finds the next frame.
#[test]
fn what_is_under_way_leads_to_the_end_of_the_frame() {
    let masked = [&[0x81, 0x85][..], &[1, 2, 3, 4], b"hello"].concat();
    let close = [&[0x88, 0x84][..], &[0; 4], &[0x03, 0xe8], b"by"].concat();
    let stream = [masked, close].concat();
    for (came, expected) in [
        (0, UnderWay::Begun(&[])),
        (1, UnderWay::Begun(&[0x81])),
        (5, UnderWay::Begun(&[0x81, 0x85, 1, 2, 3])),
        (6, UnderWay::Payload(5)),
        (10, UnderWay::Payload(1)),
        (11, UnderWay::Begun(&[])),
        (17, UnderWay::Payload(4)),
        (18, UnderWay::Payload(3)),
        (19, UnderWay::Payload(2)),
        (21, UnderWay::Begun(&[])),
    ] {
        let mut tracker = Tracker::new(Side::Client, Extensions::NONE);
        let _ = tracker.advance(&stream[..came], &mut Counts::default());
        assert_eq!(tracker.under_way(), expected, "behind {came} bytes");
    }
    let mut tracker = Tracker::new(Side::Server, Extensions::NONE);
    let _ = tracker.advance(&stream, &mut Counts::default());
    assert_eq!(tracker.under_way(), UnderWay::Unknown);
}
