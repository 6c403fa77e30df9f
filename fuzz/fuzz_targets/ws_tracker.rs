//! Wherever a stream of frames is cut, the tracker says the same about it as one that sees it whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wssgate_ws::tracker::reference::compare;
use wssgate_ws::{Extensions, Side};

fuzz_target!(|input: (bool, u8, Vec<u8>, &[u8])| {
    let (from_client, extensions, lens, stream) = input;
    let from = if from_client { Side::Client } else { Side::Server };
    let extensions = match extensions % 3 {
        0 => Extensions::NONE,
        1 => Extensions::DEFLATE,
        _ => Extensions::UNKNOWN,
    };
    let mut offset = 0;
    let cuts = lens.into_iter().map(|len| {
        offset += usize::from(len);
        offset
    });
    let cuts: Vec<usize> = cuts.collect();
    let pieces = compare(stream, &cuts, from, extensions);
    let whole = compare(stream, &[], from, extensions);
    assert_eq!(pieces, whole);
});
