//! The way of one name from server to server until it is answered.
//!
//! ```text
//! ask all kinds ──answers of all, or one and the grace──▶ addresses? ──▶ found
//!   ▲   ▲                                                 │ none
//!   │   └── no answer for a while, or a server that ──┐   ├─ another name ──┐
//!   │       breaks: the next server                 ──┘   └─ nothing: failed │
//!   └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! As in nginx an error of a server is an answer: it ends the lookup, and the next one begins with the
//! next server. Only silence and what a server does not understand are asked elsewhere.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::message::{Answer, Kind, Question, Unanswered, Value};
use crate::{Code, Data, Failure, Name, Service};

/// How long a server may take before the next one is asked, which may be the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long one family of addresses waits for the other, which some servers never answer.
const GRACE: Duration = Duration::from_secs(1);

/// Other names that are followed from one name.
const MAX_ALIASES: u32 = 16;

/// Addresses or hosts that are taken of one name.
const MAX_FOUND: usize = 256;

/// Why a message is no answer to a lookup.
pub type Oddity = Unanswered;

/// How a query travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// On a connection, with its length before it.
    Tcp,
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The server's number.
    pub server: usize,
    /// How to send it.
    pub transport: Transport,
    /// The message.
    pub bytes: Vec<u8>,
}

/// The families of addresses that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Families {
    /// A records.
    pub ipv4: bool,
    /// AAAA records.
    pub ipv6: bool,
}

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The addresses of a host.
    Addresses(Families),
    /// The hosts of a service.
    Services,
}

/// How a lookup has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With what the name stands for, which may be used for so long.
    Found(Data, Duration),
    /// With nothing, for so long if that was said.
    Failed(Failure, Option<Duration>),
}

/// One lookup.
pub struct Lookup {
    wanted: Wanted,
    name: Name,
    aliases: u32,
    servers: usize,
    /// The one that was asked last.
    server: usize,
    /// How many in a row had nothing to say.
    broken: usize,
    asked: Vec<Asked>,
    /// The least of all records on the way.
    ttl: u32,
    next_server_at: Instant,
    grace_ends: Option<Instant>,
    queries: VecDeque<Query>,
    outcome: Option<Outcome>,
    random: Box<dyn FnMut() -> u16>,
}

struct Asked {
    question: Question,
    transport: Transport,
    state: State,
}

/// How far a question has come.
enum State {
    Waiting,
    Answered(Found),
    Failed(Code),
}

/// What an answer says.
#[derive(Default)]
struct Found {
    addresses: Vec<IpAddr>,
    services: Vec<Service>,
    /// Another name that the answer leads to and says nothing of.
    alias: Option<Name>,
    negative_ttl: Option<u32>,
}

impl Lookup {
    /// Begins, with number `first` of so many servers. `random` gives numbers that nobody can guess.
    ///
    /// # Panics
    /// Without servers.
    pub fn new(
        name: Name,
        wanted: Wanted,
        servers: usize,
        first: usize,
        now: Instant,
        random: impl FnMut() -> u16 + 'static,
    ) -> Self {
        assert!(servers > 0, "somebody must be asked");
        let mut lookup = Self {
            wanted,
            name,
            aliases: 0,
            servers,
            server: first % servers,
            broken: 0,
            asked: Vec::new(),
            ttl: u32::MAX,
            next_server_at: now,
            grace_ends: None,
            queries: VecDeque::new(),
            outcome: None,
            random: Box::new(random),
        };
        lookup.ask(now);
        lookup
    }

    /// What is to be sent next.
    pub fn poll_query(&mut self) -> Option<Query> {
        self.queries.pop_front()
    }

    /// When [`Lookup::on_time`] has something to do.
    pub fn due(&self) -> Instant {
        self.grace_ends.map_or(self.next_server_at, |grace| grace.min(self.next_server_at))
    }

    /// How it has ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// A message has come from a server.
    ///
    /// # Errors
    /// When it is no answer to what was asked; the answer may still come.
    pub fn on_message(
        &mut self,
        transport: Transport,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Oddity> {
        let mut oddity = Oddity::OtherId;
        for index in 0..self.asked.len() {
            match Answer::decode(bytes, &self.asked[index].question) {
                Ok(answer) => {
                    if matches!(self.asked[index].state, State::Waiting) && self.outcome.is_none() {
                        return self.on_answer(index, transport, answer, now);
                    }
                    // It was sent twice, and answered twice.
                    return Ok(());
                }
                Err(Oddity::OtherId) => {}
                Err(other) => oddity = other,
            }
        }
        Err(oddity)
    }

    /// A server cannot be reached, or has closed its connection.
    pub fn on_broken(&mut self, server: usize, now: Instant) {
        if server == self.server && self.outcome.is_none() {
            self.broken += 1;
            // When all are broken they are left alone for a while.
            if self.broken < self.servers {
                self.ask_next(now);
            }
        }
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Instant) {
        if self.outcome.is_some() {
            return;
        }
        if self.grace_ends.is_some_and(|grace| grace <= now) {
            self.conclude(None, now);
        } else if self.next_server_at <= now {
            self.broken = 0;
            self.ask_next(now);
        }
    }

    /// Asks everything anew for the name as it is now.
    fn ask(&mut self, now: Instant) {
        let kinds: &[(Kind, bool)] = match self.wanted {
            Wanted::Addresses(Families { ipv4, ipv6 }) => &[(Kind::A, ipv4), (Kind::Aaaa, ipv6)],
            Wanted::Services => &[(Kind::Srv, true)],
        };
        self.asked.clear();
        self.grace_ends = None;
        for (kind, _) in kinds.iter().filter(|(_, asked)| *asked) {
            let mut id = (self.random)();
            // Two answers must not be taken for each other.
            if self.asked.iter().any(|asked| asked.question.id == id) {
                id = id.wrapping_add(1);
            }
            let question = Question { id, name: self.name.clone(), kind: *kind };
            let transport = Transport::Udp;
            self.asked.push(Asked { question, transport, state: State::Waiting });
        }
        self.send(now);
    }

    fn ask_next(&mut self, now: Instant) {
        self.server = (self.server + 1) % self.servers;
        self.send(now);
    }

    /// Sends what is not answered yet.
    fn send(&mut self, now: Instant) {
        for asked in &self.asked {
            if matches!(asked.state, State::Waiting) {
                let bytes = asked.question.encode();
                let query = Query { server: self.server, transport: asked.transport, bytes };
                self.queries.push_back(query);
            }
        }
        self.next_server_at = now + PATIENCE;
    }

    fn on_answer(
        &mut self,
        index: usize,
        transport: Transport,
        answer: Answer,
        now: Instant,
    ) -> Result<(), Oddity> {
        if answer.truncated {
            if transport == Transport::Tcp {
                return Err(Oddity::NoAnswer);
            }
            let asked = &mut self.asked[index];
            if asked.transport == Transport::Udp {
                asked.transport = Transport::Tcp;
                let bytes = asked.question.encode();
                let query = Query { server: self.server, transport: Transport::Tcp, bytes };
                self.queries.push_back(query);
                self.next_server_at = now + PATIENCE;
            }
            return Ok(());
        }
        // Another server may understand it.
        if answer.code == Code::Format && self.broken + 1 < self.servers {
            self.broken += 1;
            self.ask_next(now);
            return Ok(());
        }
        let asked = &mut self.asked[index];
        asked.state = match answer.code {
            Code::Fine | Code::NoName => {
                let (found, ttl) = Found::of(answer, &asked.question);
                self.ttl = self.ttl.min(ttl);
                State::Answered(found)
            }
            code => State::Failed(code),
        };
        self.conclude(Some(index), now);
        Ok(())
    }

    /// Ends, or goes on with another name, when enough is known; `last` was answered last. `None`:
    /// what has not been answered will not be.
    fn conclude(&mut self, last: Option<usize>, now: Instant) {
        let waits = self.asked.iter().any(|asked| matches!(asked.state, State::Waiting));
        if waits && last.is_some() {
            // Nothing of one family leaves everything to the other.
            let enough = self.asked.iter().any(|asked| match &asked.state {
                State::Waiting => false,
                State::Answered(found) => !found.addresses.is_empty(),
                State::Failed(_) => true,
            });
            if enough {
                self.grace_ends.get_or_insert(now + GRACE);
            }
            return;
        }
        let failed = |asked: &Asked| match asked.state {
            State::Failed(code) => Some(code),
            _ => None,
        };
        if let Some(code) = self.asked.iter().find_map(failed) {
            self.outcome = Some(Outcome::Failed(Failure::Answered(code), None));
            return;
        }
        if let Some(data) = self.data() {
            let ttl = Duration::from_secs(self.ttl.into());
            self.outcome = Some(Outcome::Found(data, ttl));
            return;
        }
        // As in nginx the answer that came last decides, should they lead to different names.
        let found = last.and_then(|last| self.asked[last].found());
        let alias = found.and_then(|found| found.alias.clone());
        if let Some(alias) = alias
            && self.aliases < MAX_ALIASES
        {
            self.aliases += 1;
            self.name = alias;
            return self.ask(now);
        }
        let negative: Option<Vec<_>> =
            self.asked.iter().map(|asked| asked.found()?.negative_ttl).collect();
        let ttl = negative.and_then(|ttls| ttls.into_iter().min());
        let ttl = ttl.map(|ttl| Duration::from_secs(ttl.into()));
        self.outcome = Some(Outcome::Failed(Failure::Answered(Code::NoName), ttl));
    }

    /// All that was found, if anything was.
    fn data(&self) -> Option<Data> {
        let found = || self.asked.iter().filter_map(Asked::found);
        match self.wanted {
            Wanted::Addresses(_) => {
                let addresses: Vec<_> =
                    found().flat_map(|found| &found.addresses).copied().take(MAX_FOUND).collect();
                (!addresses.is_empty()).then_some(Data::Addresses(addresses))
            }
            Wanted::Services => {
                let services = found().flat_map(|found| &found.services).cloned();
                let mut services: Vec<_> = services.take(MAX_FOUND).collect();
                services.sort_by_key(|service| service.priority);
                (!services.is_empty()).then_some(Data::Services(services))
            }
        }
    }
}

impl Asked {
    fn found(&self) -> Option<&Found> {
        match &self.state {
            State::Answered(found) => Some(found),
            State::Waiting | State::Failed(_) => None,
        }
    }
}

impl Found {
    /// What an answer says of the name that was asked for, or of the one that it leads to; and the
    /// least time to live on that way.
    fn of(answer: Answer, question: &Question) -> (Self, u32) {
        let mut found = Self { negative_ttl: answer.negative_ttl, ..Self::default() };
        let mut name = &question.name;
        let mut least = u32::MAX;
        for _ in 0..=MAX_ALIASES {
            let mut alias = None;
            for record in answer.records.iter().filter(|record| record.owner == *name) {
                least = least.min(record.ttl);
                match &record.value {
                    Value::Address(address) => found.addresses.push(*address),
                    Value::Service(service) => found.services.push(service.clone()),
                    Value::Alias(other) => alias = Some(other),
                }
            }
            match alias {
                Some(alias) if found.addresses.is_empty() && found.services.is_empty() => {
                    name = alias;
                }
                _ => break,
            }
        }
        let none = found.addresses.is_empty() && found.services.is_empty();
        found.alias = (none && *name != question.name).then(|| name.clone());
        (found, least)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
