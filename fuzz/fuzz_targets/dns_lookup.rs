//! Whatever DNS servers say, to the question or beside it, a lookup asks only servers that there are, asks nothing
//! more once it has ended, and ends with at least one and not too many of what was wanted.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use wssgate_dns::{Data, Families, Lookup, Name, Outcome, Transport, Wanted};

const SERVERS: usize = 3;

fuzz_target!(|input: (u8, Vec<(u8, u16, Vec<u8>)>)| {
    let (wanted, events) = input;
    let wanted = match wanted % 4 {
        0 => Wanted::Services,
        families => {
            Wanted::Addresses(Families { ipv4: families & 1 != 0, ipv6: families & 2 != 0 })
        }
    };
    let name = Name::new(b"a.test").expect("a name");
    let mut now = Instant::now();
    let mut id = 0u16;
    let random = move || {
        id = id.wrapping_add(0x101);
        id
    };
    let mut lookup = Lookup::new(name, wanted, SERVERS, 0, now, random);
    let mut asked = Vec::new();
    for (event, number, bytes) in events {
        let ended = lookup.outcome().is_some();
        while let Some(query) = lookup.poll_query() {
            assert!(!ended && query.server < SERVERS);
            asked.push(query.bytes);
        }
        let transport = if event & 8 == 0 { Transport::Udp } else { Transport::Tcp };
        match event % 4 {
            0 => {
                let _ = lookup.on_message(transport, &bytes, now);
            }
            1 if !asked.is_empty() => {
                // With flags and counts of its own, and what follows them.
                let mut answer = asked[usize::from(number) % asked.len()].clone();
                let (header, records) = bytes.split_at(bytes.len().min(10));
                answer[2..2 + header.len()].copy_from_slice(header);
                answer.extend_from_slice(records);
                let _ = lookup.on_message(transport, &answer, now);
            }
            2 => lookup.on_broken(usize::from(number) % SERVERS, now),
            _ => {
                now += Duration::from_millis(number.into());
                lookup.on_time(now);
            }
        }
    }
    if let Some(Outcome::Found(data, _)) = lookup.outcome() {
        let (count, kind) = match data {
            Data::Addresses(addresses) => (addresses.len(), wanted != Wanted::Services),
            Data::Services(services) => (services.len(), wanted == Wanted::Services),
        };
        assert!(kind && (1..=256).contains(&count));
    }
});
