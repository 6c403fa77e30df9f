//! Changing a zone (RFC 2136), and asking what it holds now: one TXT record at a time.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Name;
use crate::message::{HEADER, IN, Reader, Unanswered};

/// The class of a record that shall go (RFC 2136 §2.5.4).
const NONE: u16 = 254;

/// The longest text of one string in a record (RFC 1035 §3.3).
const MAX_STRING: usize = 255;

/// Records that are read of one reply.
const MAX_RECORDS: usize = 512;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of IPv4.
    A = 1,
    /// The servers of a zone.
    Ns = 2,
    /// Where a zone begins.
    Soa = 6,
    /// Texts.
    Txt = 16,
    /// Addresses of IPv6.
    Aaaa = 28,
}

/// Whether a record shall be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Beside those that are there, for that many seconds.
    Add {
        /// For how long others may remember it.
        ttl: u32,
    },
    /// That one alone.
    Remove,
}

/// The message that changes the TXT record `value` of `name` in `zone`.
pub fn change(id: u16, zone: &Name, name: &Name, value: &str, change: Change) -> Vec<u8> {
    // UPDATE; one zone, one change.
    let mut out = header(id, 0x2800, [1, 0, 1, 0]);
    zone.encode(&mut out);
    out.extend((Kind::Soa as u16).to_be_bytes());
    out.extend(IN.to_be_bytes());
    let (class, ttl) = match change {
        Change::Add { ttl } => (IN, ttl),
        Change::Remove => (NONE, 0),
    };
    name.encode(&mut out);
    out.extend((Kind::Txt as u16).to_be_bytes());
    out.extend(class.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    let mut text = Vec::new();
    for part in value.as_bytes().chunks(MAX_STRING) {
        text.push(part.len() as u8);
        text.extend(part);
    }
    // What ACME has to say are 43 letters (RFC 8555 §8.4).
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text);
    out
}

/// The message that asks a server for what it knows itself.
pub fn question(id: u16, name: &Name, kind: Kind) -> Vec<u8> {
    let mut out = header(id, 0, [1, 0, 0, 0]);
    name.encode(&mut out);
    out.extend((kind as u16).to_be_bytes());
    out.extend(IN.to_be_bytes());
    out
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + 512);
    out.extend(id.to_be_bytes());
    out.extend(flags.to_be_bytes());
    out.extend(counts.into_iter().flat_map(u16::to_be_bytes));
    out
}

/// What a server says to a question or a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How it went.
    pub code: Rcode,
    /// It did not fit, and has to be asked for on TCP.
    pub truncated: bool,
    /// The records of the answer and of what explains it, in order.
    pub records: Vec<(Name, Told)>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A or AAAA.
    Address(IpAddr),
    /// NS.
    Server(Name),
    /// CNAME.
    Alias(Name),
    /// SOA: its owner is where the zone begins.
    Zone,
    /// TXT.
    Text(Vec<u8>),
}

impl Reply {
    /// Reads the reply to the message with this number.
    ///
    /// # Errors
    /// When it is none; then the reply may still come.
    pub fn decode(bytes: &[u8], id: u16) -> Result<Self, Unanswered> {
        let mut reader = Reader::new(bytes);
        let header = reader.header()?;
        if header.flags & 0x8000 == 0 {
            return Err(Unanswered::NoAnswer);
        }
        if header.id != id {
            return Err(Unanswered::OtherId);
        }
        let truncated = header.flags & 0x0200 != 0;
        let code = Rcode((header.flags & 0xf) as u8);
        let mut reply = Self { code, truncated, records: Vec::new() };
        let [questions, records @ ..] = header.counts.map(usize::from);
        for _ in 0..questions {
            reader.name()?;
            reader.u32()?;
        }
        let records: usize = records.into_iter().sum();
        for _ in 0..records.min(MAX_RECORDS) {
            match reader.told() {
                Ok(told) => reply.records.extend(told),
                // What did not fit may be cut off.
                Err(_) if truncated => break,
                Err(error) => return Err(error),
            }
        }
        Ok(reply)
    }

    /// The texts at `name`.
    pub fn texts(&self, name: &Name) -> impl Iterator<Item = &[u8]> {
        self.records.iter().filter(move |(owner, _)| owner == name).filter_map(|(_, told)| {
            match told {
                Told::Text(text) => Some(&text[..]),
                _ => None,
            }
        })
    }
}

impl Reader<'_> {
    fn told(&mut self) -> Result<Option<(Name, Told)>, Unanswered> {
        let owner = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        self.u32()?;
        let mut data = self.data()?;
        let told = match kind {
            _ if class != IN => None,
            1 => Some(Told::Address(Ipv4Addr::from(data.array::<4>()?).into())),
            28 => Some(Told::Address(Ipv6Addr::from(data.array::<16>()?).into())),
            2 => data.name()?.map(Told::Server),
            5 => data.name()?.map(Told::Alias),
            6 => Some(Told::Zone),
            16 => {
                let mut text = Vec::new();
                while data.has_more() {
                    let len = data.u8()?;
                    text.extend(data.take(len.into())?);
                }
                Some(Told::Text(text))
            }
            _ => None,
        };
        Ok(owner.zip(told))
    }
}

/// How a request went (RFC 6895 §2.3), by the name that servers log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcode(u8);

impl Rcode {
    /// It was done.
    pub fn is_fine(self) -> bool {
        self.0 == 0
    }

    /// There is no such name.
    pub fn is_no_name(self) -> bool {
        self.0 == 3
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, words) = match self.0 {
            0 => ("NOERROR", "done"),
            1 => ("FORMERR", "the server does not understand the message"),
            2 => ("SERVFAIL", "the server failed; its log says why"),
            3 => ("NXDOMAIN", "there is no such name"),
            4 => ("NOTIMP", "the server does not know this kind of request"),
            5 => ("REFUSED", "the server's policy does not allow it"),
            6 => ("YXDOMAIN", "the name exists and should not"),
            7 => ("YXRRSET", "the record exists and should not"),
            8 => ("NXRRSET", "the record does not exist and should"),
            9 => (
                "NOTAUTH",
                "the server is not authoritative for the zone, or does not accept the key",
            ),
            10 => ("NOTZONE", "the name is not in the zone"),
            number => return write!(formatter, "RCODE {number}"),
        };
        write!(formatter, "{name}: {words}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_change_is_one_record_of_one_zone() {
        let zone = name("a.test");
        let zone_bytes = [&b"\x01a\x04test\0"[..], &[0, 6, 0, 1]].concat();
        let record = |class: u16, ttl: u32, text: &[u8]| {
            let len = text.len() as u16;
            let head = [&b"\x01_\x01a\x04test\0\x00\x10"[..], &class.to_be_bytes()].concat();
            [&head[..], &ttl.to_be_bytes(), &len.to_be_bytes(), text].concat()
        };
        let long = "x".repeat(300);
        let two = [&[255], &long.as_bytes()[..255], &[45], &long.as_bytes()[255..]].concat();
        for (value, how, expected) in [
            ("v", Change::Add { ttl: 60 }, record(1, 60, b"\x01v")),
            ("v", Change::Remove, record(254, 0, b"\x01v")),
            (&long, Change::Add { ttl: 1 }, record(1, 1, &two)),
        ] {
            let bytes = change(0x1234, &zone, &name("_.a.test"), value, how);
            let head = [0x12, 0x34, 0x28, 0, 0, 1, 0, 0, 0, 1, 0, 0];
            assert_eq!(bytes, [&head, &zone_bytes[..], &expected].concat(), "{how:?}");
        }
    }

    #[test]
    fn a_reply_tells_its_records() {
        let mut bytes = question(7, &name("a.test"), Kind::Txt);
        bytes[2] = 0x84;
        bytes[7] = 3;
        for (kind, class, data) in
            [(16, 1, &b"\x01x\x02yz"[..]), (16, 3, b"\x01c"), (2, 1, b"\x02ns\xc0\x0c")]
        {
            bytes.extend([0xc0, 12, 0, kind, 0, class, 0, 0, 0, 9, 0, data.len() as u8]);
            bytes.extend(data);
        }
        let reply = Reply::decode(&bytes, 7).unwrap();
        assert_eq!(reply.texts(&name("a.test")).collect::<Vec<_>>(), [b"xyz"]);
        assert_eq!(reply.records[1], (name("a.test"), Told::Server(name("ns.a.test"))));
        assert!(reply.code.is_fine() && !reply.truncated);
        assert_eq!(Reply::decode(&bytes, 8), Err(Unanswered::OtherId));
        for cut in 0..bytes.len() {
            assert!(Reply::decode(&bytes[..cut], 7).is_err(), "{cut}");
        }
        // What did not fit is left out.
        bytes[2] |= 2;
        let cut = Reply::decode(&bytes[..bytes.len() - 1], 7).unwrap();
        assert!(cut.truncated && cut.records.len() == 1);
        bytes[3] = 9;
        let text = Reply::decode(&bytes, 7).unwrap().code.to_string();
        assert_eq!(
            text,
            "NOTAUTH: the server is not authoritative for the zone, or does not accept the key"
        );
    }
}
