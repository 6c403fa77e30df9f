//! Queries and answers as bytes (RFC 1035 §4).
//!
//! An answer is read only as far as somebody here wants to know it. What else it holds may be odd
//! without harm: one record that nobody understands does not cost the ones beside it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Name;
use crate::name::MAX_TEXT;

/// Records that are read of one answer.
const MAX_RECORDS: usize = 512;

/// Pointers that are followed to the end of one name.
const MAX_POINTERS: usize = 32;

/// Bytes before the first question.
pub(crate) const HEADER: usize = 12;
/// The class of the Internet.
pub(crate) const IN: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6 (RFC 3596).
    Aaaa,
    /// The hosts of a service (RFC 2782).
    Srv,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

/// A question, and the number by which its answer is known.
#[derive(Clone, Debug)]
pub struct Question {
    /// Chosen at random.
    pub id: u16,
    /// Whose records.
    pub name: Name,
    /// Which records.
    pub kind: Kind,
}

impl Question {
    /// The query for it; the server is asked to find the answer itself.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.name.as_str().len() + 6);
        out.extend(self.id.to_be_bytes());
        out.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
        self.name.encode(&mut out);
        out.extend(self.kind.number().to_be_bytes());
        out.extend(IN.to_be_bytes());
        out
    }
}

/// How a server has answered (RFC 1035 §4.1.1); the texts are nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// There is an answer.
    Fine,
    /// The server does not understand the question.
    Format,
    /// It cannot find out.
    Server,
    /// There is no such name.
    NoName,
    /// It does not do this.
    Unimplemented,
    /// It does not do this for us.
    Refused,
    /// Anything else.
    Other(u8),
}

impl Code {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Fine,
            1 => Self::Format,
            2 => Self::Server,
            3 => Self::NoName,
            4 => Self::Unimplemented,
            5 => Self::Refused,
            other => Self::Other(other),
        }
    }

    /// Its number in messages.
    pub fn number(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Format => 1,
            Self::Server => 2,
            Self::NoName => 3,
            Self::Unimplemented => 4,
            Self::Refused => 5,
            Self::Other(number) => number,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fine => "No error",
            Self::Format => "Format error",
            Self::Server => "Server failure",
            Self::NoName => "Host not found",
            Self::Unimplemented => "Unimplemented",
            Self::Refused => "Operation refused",
            Self::Other(_) => "Unknown error",
        })
    }
}

/// One host of a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Hosts with a higher number are used when none with a lower one can be.
    pub priority: u16,
    /// How much of the load, among those of the same priority.
    pub weight: u16,
    /// The port of the service there.
    pub port: u16,
    /// The host.
    pub target: Name,
}

/// A record of an answer that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub owner: Name,
    /// For how many seconds it may be used.
    pub ttl: u32,
    /// What it says.
    pub value: Value,
}

/// What a [`Record`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A or AAAA.
    Address(IpAddr),
    /// CNAME: the name is another name of this one.
    Alias(Name),
    /// SRV.
    Service(Service),
}

/// An answer to a question of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it was answered.
    pub code: Code,
    /// It did not fit, and has to be asked for on TCP.
    pub truncated: bool,
    /// The records that matter for the question.
    pub records: Vec<Record>,
    /// For how many seconds the name may be taken to have no such record (RFC 2308 §5).
    pub negative_ttl: Option<u32>,
}

/// Why a message is no [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It ends too early.
    #[error("short DNS response")]
    Short,
    /// It is something else than an answer.
    #[error("invalid DNS response")]
    NoAnswer,
    /// It is the answer to another question.
    #[error("wrong ident in DNS response")]
    OtherId,
    /// It has our number and not our question.
    #[error("unexpected DNS response")]
    OtherQuestion,
    /// A name or record in it is cut off or winds in circles.
    #[error("invalid record in DNS response")]
    Invalid,
}

impl Answer {
    /// Reads the answer to `question`.
    ///
    /// # Errors
    /// When it is none, whoever has sent it; then the answer may still come.
    pub fn decode(bytes: &[u8], question: &Question) -> Result<Self, Unanswered> {
        let mut reader = Reader::new(bytes);
        let Header { id, flags, counts: [questions, answers, authorities, _] } = reader.header()?;
        // A response (QR) to a standard query (OPCODE 0).
        if flags & 0xf800 != 0x8000 {
            return Err(Unanswered::NoAnswer);
        }
        if id != question.id {
            return Err(Unanswered::OtherId);
        }
        let code = Code::of((flags & 0xf) as u8);
        let truncated = flags & 0x0200 != 0;
        let nothing = Self { code, truncated, records: Vec::new(), negative_ttl: None };
        // Who does not understand a question cannot always repeat it.
        if code == Code::Format && questions == 0 {
            return Ok(nothing);
        }
        let name = reader.name()?;
        let asked = (name.as_ref(), reader.u16()?, reader.u16()?);
        if questions != 1 || asked != (Some(&question.name), question.kind.number(), IN) {
            return Err(Unanswered::OtherQuestion);
        }
        if truncated {
            return Ok(nothing);
        }
        let mut answer = nothing;
        for _ in 0..usize::from(answers).min(MAX_RECORDS) {
            if let Some((owner, ttl, value)) = reader.record(question.kind)?
                && let Found::Value(value) = value
            {
                answer.records.push(Record { owner, ttl, value });
            }
        }
        // What follows says only how long there is nothing, and is not worth more.
        for _ in 0..usize::from(authorities).min(MAX_RECORDS) {
            let Ok(record) = reader.record(question.kind) else { break };
            if let Some((_, ttl, Found::Nothing(minimum))) = record {
                answer.negative_ttl = Some(ttl.min(minimum));
            }
        }
        Ok(answer)
    }
}

/// What a record says.
enum Found {
    Value(Value),
    /// SOA: for how many seconds there is nothing.
    Nothing(u32),
}

/// The front of a message (RFC 1035 §4.1.1).
pub(crate) struct Header {
    /// By which an answer is known.
    pub id: u16,
    /// What it is, and how it went.
    pub flags: u16,
    /// Questions, answers, authorities, additional records; of a change zones, conditions, changes and
    /// the same.
    pub counts: [u16; 4],
}

/// Reads a message from its front.
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How much was read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn has_more(&self) -> bool {
        self.at < self.bytes.len()
    }

    pub(crate) fn header(&mut self) -> Result<Header, Unanswered> {
        let (id, flags) = (self.u16()?, self.u16()?);
        Ok(Header { id, flags, counts: [self.u16()?, self.u16()?, self.u16()?, self.u16()?] })
    }

    /// The data of a record, from its length on. Names in it may point before it, so the whole message
    /// stays in sight.
    pub(crate) fn data(&mut self) -> Result<Self, Unanswered> {
        let len = usize::from(self.u16()?);
        let start = self.at;
        self.take(len)?;
        Ok(Reader { bytes: &self.bytes[..self.at], at: start })
    }

    /// Passes a whole record.
    pub(crate) fn skip_record(&mut self) -> Result<(), Unanswered> {
        self.name()?;
        // Type, class and time.
        self.take(8)?;
        self.data().map(drop)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'b [u8], Unanswered> {
        let end = self.at.checked_add(len).ok_or(Unanswered::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Unanswered::Short)?;
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unanswered> {
        self.take(N)?.try_into().map_err(|_| Unanswered::Short)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Unanswered> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Unanswered> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Unanswered> {
        self.array().map(u32::from_be_bytes)
    }

    /// A name, whose end may stand elsewhere (RFC 1035 §4.1.4). `None`: it is one that we would never
    /// ask for. One that is too long is read only as far as what follows it.
    pub(crate) fn name(&mut self) -> Result<Option<Name>, Unanswered> {
        let mut text = Vec::new();
        let mut elsewhere = Reader { bytes: self.bytes, at: self.at };
        let mut pointers = 0;
        loop {
            if text.len() > MAX_TEXT && pointers > 0 {
                return Ok(None);
            }
            let len = elsewhere.u8()?;
            match len {
                0 => break,
                1..64 => {
                    let label = elsewhere.take(usize::from(len))?;
                    if text.len() > MAX_TEXT {
                        continue;
                    }
                    if !text.is_empty() {
                        text.push(b'.');
                    }
                    // A dot within a label would make it look like two.
                    text.extend(label.iter().map(|byte| if *byte == b'.' { 0 } else { *byte }));
                }
                0xc0.. => {
                    let low = elsewhere.u8()?;
                    if pointers == 0 {
                        self.at = elsewhere.at;
                    }
                    pointers += 1;
                    elsewhere.at = usize::from(u16::from_be_bytes([len & 0x3f, low]));
                    if pointers > MAX_POINTERS {
                        return Err(Unanswered::Invalid);
                    }
                }
                _ => return Err(Unanswered::Invalid),
            }
        }
        if pointers == 0 {
            self.at = elsewhere.at;
        }
        Ok(Name::new(&text).ok())
    }

    /// A record with its owner and time, when it has to do with the kind that was asked for.
    fn record(&mut self, kind: Kind) -> Result<Option<(Name, u32, Found)>, Unanswered> {
        let owner = self.name()?;
        let (record, class) = (self.u16()?, self.u16()?);
        let ttl = self.u32()?;
        let mut data = self.data()?;
        let Some(owner) = owner.filter(|_| class == IN) else { return Ok(None) };
        let value = match (record, kind) {
            (1, Kind::A) => Value::Address(Ipv4Addr::from(data.array::<4>()?).into()),
            (28, Kind::Aaaa) => Value::Address(Ipv6Addr::from(data.array::<16>()?).into()),
            (33, Kind::Srv) => {
                let [priority, weight, port] = [data.u16()?, data.u16()?, data.u16()?];
                // RFC 2782: a target of "." says that there is no such service.
                let Some(target) = data.name()? else { return Ok(None) };
                Value::Service(Service { priority, weight, port, target })
            }
            (CNAME, _) => Value::Alias(data.name()?.ok_or(Unanswered::Invalid)?),
            (SOA, _) => {
                data.name()?;
                data.name()?;
                data.take(16)?;
                return Ok(Some((owner, positive(ttl), Found::Nothing(positive(data.u32()?)))));
            }
            _ => return Ok(None),
        };
        Ok(Some((owner, positive(ttl), Found::Value(value))))
    }
}

/// RFC 2181 §8: with its highest bit set it is 0.
fn positive(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
