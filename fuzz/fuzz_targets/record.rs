//! Records that were sealed with the right keys open to what was in them, in order, wherever the stream is cut; from
//! the first one that was changed, repeated, left out or made up, nothing opens any more.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wssgate_records::fuzz::{Forger, Opener};
use wssgate_records::testing::{SUITES, session};
use wssgate_records::{Role, TlsKeys};

/// One connection for every suite and role; its keys are used again and again.
static KEYS: LazyLock<Vec<(TlsKeys, Role)>> = LazyLock::new(|| {
    let roles = [(Role::Server, Role::Client), (Role::Client, Role::Server)];
    SUITES
        .into_iter()
        .flat_map(|suite| roles.map(|(we, peer)| (session(suite, we).keys, peer)))
        .collect()
});

const HEADER: usize = 5;
const DATA: u8 = 23;
/// More records without data than these at a stretch are refused, where no time passes.
const MAX_IDLE: usize = 100;

/// A stream as the peer makes it, and what it is worth.
struct Stream {
    forger: Forger,
    wire: Vec<u8>,
    /// What must open.
    honest: Vec<u8>,
    /// Nothing that follows may open.
    damaged: bool,
    /// What follows may open or not.
    last: bool,
    idle: usize,
}

fuzz_target!(|input: (u8, u8, Vec<(u8, u16, &[u8])>)| {
    let (connection, cut, steps) = input;
    let (keys, peer) = &KEYS[usize::from(connection) % KEYS.len()];
    let forger = Forger::new(keys);
    let (wire, honest) = (Vec::new(), Vec::new());
    let mut stream = Stream { forger, wire, honest, damaged: false, last: false, idle: 0 };
    for (what, at, bytes) in steps {
        stream.add(what, at.into(), bytes);
        if stream.last {
            break;
        }
    }
    let mut opener = Opener::new(keys, *peer);
    let (mut waiting, mut opened, mut end) = (Vec::new(), Vec::new(), None);
    for piece in stream.wire.chunks(usize::from(cut) * 8 + 1) {
        waiting.extend_from_slice(piece);
        let opening = opener.open(&waiting);
        opened.extend_from_slice(&opening.plain);
        waiting.drain(..opening.consumed);
        end = opening.end;
        if end.is_some() {
            break;
        }
        if cut % 2 == 1 {
            opener.compact();
        }
    }
    assert!(opened == stream.honest, "{} opened, {} honest", opened.len(), stream.honest.len());
    if !stream.damaged {
        assert!(end.is_none() && waiting.is_empty(), "{end:?}");
    }
});

impl Stream {
    fn add(&mut self, what: u8, at: usize, bytes: &[u8]) {
        match what % 10 {
            // Often what a peer does.
            0..=3 => self.data(bytes),
            4 => {
                if let Some(record) = self.forger.key_update(at % 2 == 0) {
                    self.idle(record);
                }
            }
            // A type that is not data, which ends the stream or not, and never opens.
            5 => {
                let kind = if at % 2 == 0 { 20 + (at / 2 % 3) as u8 } else { (at / 2) as u8 };
                if kind != DATA && kind != 0 {
                    let record = self.forger.record(kind, bytes);
                    self.wire.extend(record);
                    (self.damaged, self.last) = (true, true);
                }
            }
            // Changed: any bit of any record.
            6 => {
                let mut record = self.forger.record(DATA, bytes);
                let at = at % (record.len() * 8);
                record[at / 8] ^= 1 << (at % 8);
                self.wire.extend(record);
                self.damaged = true;
            }
            // Left out, so that the next has the wrong number.
            7 => {
                let lost = self.forger.record(DATA, bytes);
                let next = self.forger.record(DATA, bytes);
                assert!(lost != next);
                self.wire.extend(next);
                self.damaged = true;
            }
            // Repeated or cut.
            8 => {
                let record = self.forger.record(DATA, b"again");
                if !self.damaged {
                    self.honest.extend_from_slice(b"again");
                }
                self.wire.extend_from_slice(&record);
                let repeated = at % (record.len() + 1);
                self.wire.extend_from_slice(&record[..repeated]);
                self.idle = 0;
                self.damaged |= repeated > 0;
            }
            // Made up.
            _ => {
                self.wire.extend([DATA, 3, 3]);
                self.wire.extend((bytes.len() as u16).to_be_bytes());
                self.wire.extend(bytes);
                self.damaged = true;
            }
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        let record = self.forger.record(DATA, bytes);
        if bytes.is_empty() {
            return self.idle(record);
        }
        self.idle = 0;
        assert!(record.len() > HEADER + bytes.len());
        self.wire.extend(record);
        if !self.damaged {
            self.honest.extend_from_slice(bytes);
        }
    }

    fn idle(&mut self, record: Vec<u8>) {
        self.wire.extend(record);
        self.idle += 1;
        self.damaged |= self.idle > MAX_IDLE;
    }
}
