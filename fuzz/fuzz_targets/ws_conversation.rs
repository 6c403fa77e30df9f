//! Whatever comes from both sides, in pieces and with orders between them, a conversation decides as a naive reading of
//! all that was said would.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wssgate_ws::conversation::walk::{Step, walk};
use wssgate_ws::{Extensions, Side};

fuzz_target!(|input: (u8, Vec<(u8, u8)>, Vec<u8>, Vec<u8>)| {
    let (extensions, steps, from_client, from_server) = input;
    let extensions = match extensions % 3 {
        0 => Extensions::NONE,
        1 => Extensions::DEFLATE,
        _ => Extensions::UNKNOWN,
    };
    let steps: Vec<Step> = steps
        .into_iter()
        .map(|(what, amount)| {
            let side = if what % 2 == 0 { Side::Client } else { Side::Server };
            match what / 2 % 16 {
                0 => Step::End(side),
                1 => Step::Close,
                2 | 3 => Step::Ping(side),
                4 | 5 => Step::Wait(u64::from(amount) * 16),
                6 => Step::Sent,
                7 => Step::Refuse(side),
                8 => Step::Last(side),
                _ => Step::Bytes(side, usize::from(amount)),
            }
        })
        .collect();
    walk(from_client, from_server, extensions, &steps);
});
