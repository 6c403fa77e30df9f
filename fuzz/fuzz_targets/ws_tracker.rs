//! Wherever a stream of frames is cut, the tracker says the same about it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wssgate_ws::{Counts, Extensions, Side, Tracker};

fuzz_target!(|input: (bool, u8, Vec<u8>, &[u8])| {
    let (from_client, extensions, cuts, stream) = input;
    let from = if from_client { Side::Client } else { Side::Server };
    let extensions = match extensions % 3 {
        0 => Extensions::NONE,
        1 => Extensions::DEFLATE,
        _ => Extensions::UNKNOWN,
    };

    let mut whole = Tracker::new(from, extensions);
    let mut whole_counts = Counts::default();
    let at_once = whole.advance(stream, &mut whole_counts);

    let mut pieces = Tracker::new(from, extensions);
    let mut counts = Counts::default();
    let (mut close, mut broken, mut boundary) = (None, None, None);
    let (mut offset, mut rest) = (0, stream);
    let cuts = cuts.into_iter().map(usize::from).chain([usize::MAX]);
    for len in cuts {
        let (piece, after) = rest.split_at(len.min(rest.len()));
        let progress = pieces.advance(piece, &mut counts);
        close = close.or(progress.close);
        broken = broken.or(progress.broken);
        boundary = progress.boundary.map(|at| offset + at).or(boundary);
        offset += piece.len();
        rest = after;
    }

    assert_eq!(pieces, whole);
    assert_eq!(counts, whole_counts);
    assert_eq!((close, broken, boundary), (at_once.close, at_once.broken, at_once.boundary));
});
