#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::mask;

const CODE_LEN: usize = 2;

/// What the reference knows once `at` bytes have passed.
#[derive(Debug, PartialEq)]
enum Fact {
    Close { at: usize, code: u16 },
    FrameEnd { at: usize, opcode: u8, fin: bool },
    Broken { at: usize, error: FrameError },
}

impl Fact {
    fn at(&self) -> usize {
        match self {
            Self::Close { at, .. } | Self::FrameEnd { at, .. } | Self::Broken { at, .. } => *at,
        }
    }
}

/// The naive implementation: holds the whole stream and reads it frame by frame.
fn reference(stream: &[u8], from: Side, extensions: Extensions) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut in_message = false;
    let mut start = 0;
    while start < stream.len() {
        match reference_frame(&stream[start..], from, extensions, &mut in_message) {
            Ok(Some((close, opcode, fin, len))) => {
                if let Some((at, code)) = close {
                    facts.push(Fact::Close { at: start + at, code });
                }
                facts.push(Fact::FrameEnd { at: start + len, opcode, fin });
                start += len;
            }
            Ok(None) => {
                // Unfinished, but a Close whose code has passed is already known.
                let close = reference_close(&stream[start..]);
                facts.extend(close.map(|(at, code)| Fact::Close { at: start + at, code }));
                break;
            }
            Err((at, error)) => {
                facts.push(Fact::Broken { at: start + at, error });
                break;
            }
        }
    }
    facts
}

type RefFrame = (Option<(usize, u16)>, u8, bool, usize);

fn reference_frame(
    input: &[u8],
    from: Side,
    extensions: Extensions,
    in_message: &mut bool,
) -> Result<Option<RefFrame>, (usize, FrameError)> {
    let (fin, rsv, opcode) = (input[0] >= 0x80, input[0] / 16 % 8, input[0] % 16);
    let control = opcode >= 8;
    let bits =
        if opcode == 1 || opcode == 2 { extensions.rsv_on_first } else { extensions.rsv_on_others };
    if !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) {
        return Err((1, FrameError::ReservedOpcode(opcode)));
    }
    if (0..3).any(|bit| rsv >> bit & 1 > bits >> bit & 1) {
        return Err((1, FrameError::ReservedBits(rsv)));
    }
    match (opcode, *in_message) {
        (8.., _) if !fin => return Err((1, FrameError::FragmentedControl)),
        (0, false) => return Err((1, FrameError::NothingToContinue)),
        (1 | 2, true) => return Err((1, FrameError::MessageNotEnded)),
        _ => {}
    }
    let Some(second) = input.get(1) else { return Ok(None) };
    match (from, *second >= 0x80) {
        (Side::Client, false) => return Err((2, FrameError::NotMasked)),
        (Side::Server, true) => return Err((2, FrameError::Masked)),
        _ => {}
    }
    let short = second % 0x80;
    if control && short > 125 {
        return Err((2, FrameError::LongControl));
    }
    if opcode == 8 && short == 1 {
        return Err((2, FrameError::HalfCloseCode));
    }
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if extended == 8 && input.get(2).is_some_and(|b| *b >= 0x80) {
        return Err((3, FrameError::LengthTooBig));
    }
    if extended == 8 && input.len() >= 8 && input[2..8].iter().all(|b| *b == 0) {
        return Err((8, FrameError::LengthNotMinimal));
    }
    if input.len() < 2 + extended {
        return Ok(None);
    }
    let len = match extended {
        0 => u64::from(short),
        _ => input[2..2 + extended].iter().fold(0, |len, b| len * 256 + u64::from(*b)),
    };
    if extended == 2 && len < 126 {
        return Err((4, FrameError::LengthNotMinimal));
    }
    let masking = if from == Side::Client { 4 } else { 0 };
    let total = (2 + extended + masking) as u64 + len;
    if total > input.len() as u64 {
        return Ok(None);
    }
    if !control {
        *in_message = !fin;
    }
    Ok(Some((reference_close(input), opcode, fin, total as usize)))
}

/// Where in a frame that is a Close its code is known, and the code.
fn reference_close(input: &[u8]) -> Option<(usize, u16)> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    if first % 16 != 8 {
        return None;
    }
    let header = if second >= 0x80 { 6 } else { 2 };
    if second % 0x80 == 0 {
        return (input.len() >= header).then_some((header, 1005));
    }
    let mut code = input.get(header..header + CODE_LEN)?.to_vec();
    if second >= 0x80 {
        mask::apply(input[2..6].try_into().unwrap(), 0, &mut code);
    }
    Some((header + CODE_LEN, u16::from(code[0]) * 256 + u16::from(code[1])))
}

/// Feeds `stream` in pieces and holds every answer against the reference.
fn compare(stream: &[u8], cuts: &[usize], from: Side, extensions: Extensions) {
    let facts = reference(stream, from, extensions);
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();

    let mut tracker = Tracker::new(from, extensions);
    let mut counts = Counts::default();
    let mut expected_counts = Counts::default();
    let mut start = 0;
    let mut at_boundary = true;
    for end in cuts {
        let mut expected = Progress { boundary: at_boundary.then_some(0), ..Progress::default() };
        at_boundary &= start == end;
        for fact in facts.iter().filter(|fact| fact.at() > start && fact.at() <= end) {
            match *fact {
                Fact::Close { code, .. } => {
                    expected.close.get_or_insert(CloseCode(code));
                }
                Fact::FrameEnd { at, opcode, fin } => {
                    expected.boundary = Some(at - start);
                    at_boundary = at == end;
                    expected_counts.frames += 1;
                    expected_counts.messages += u64::from(opcode < 3 && fin);
                    expected_counts.pings += u64::from(opcode == 9);
                    expected_counts.pongs += u64::from(opcode == 10);
                }
                Fact::Broken { error, .. } => expected.broken = Some(error),
            }
        }
        expected_counts.bytes += (end - start) as u64;
        assert_eq!(tracker.advance(&stream[start..end], &mut counts), expected);
        assert_eq!(counts, expected_counts);
        assert_eq!(tracker.is_at_boundary(), at_boundary);
        start = end;
    }
}

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
fn a_tracker_is_32_bytes() {
    assert_eq!(size_of::<Tracker>(), 32);
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
    assert_eq!(counts, Counts { bytes, frames: 6, messages: 2, pings: 1, pongs: 1 });
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
    assert_eq!(counts, Counts { bytes: 7, frames: 1, messages: 1, pings: 0, pongs: 0 });
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
