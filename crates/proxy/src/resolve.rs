//! Names that are looked up while the server runs.
//!
//! What DNS servers have said is known to all workers: a [`Resolver`] has a table of it, in parts with
//! a lock each that is held for one look. What is not known is asked for by a thread of its own
//! ([`ResolverThread`]), so each name is asked for once however many requests wait for it.
//!
//! While servers are silent or fail, addresses that have expired serve on for [`STALE`].

mod thread;
mod wire;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wssgate_config::model::{self, LogLevel};
use wssgate_dns::{
    Ask, Code, Data, Failure, Families, Known, Limits, Name, Outcome, Table, Wanted,
};

pub(crate) use thread::Job;
pub(crate) use thread::MAX_SOCKETS;
use thread::Order;
pub use thread::ResolverThread;

/// How long addresses are used after they have expired, while servers are silent or fail.
pub const STALE: Duration = Duration::from_secs(60 * 60);

/// How long a request waits for an answer while it could use addresses that have expired.
const STALE_WAIT: Duration = Duration::from_secs(1);

/// The parts of a table.
const SHARDS: usize = 16;

/// Names that one part of a table knows.
const NAMES_PER_SHARD: usize = 256;

/// The servers of one `resolver` line and what they have said.
#[derive(Debug)]
pub struct Resolver {
    model: model::Resolver,
    known: [Mutex<Table<Key, Arc<Answer>>>; SHARDS],
    hasher: RandomState,
    /// Each lookup begins with another server.
    turn: AtomicUsize,
    thread: Arc<ResolverThread>,
}

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    name: Name,
    services: bool,
}

impl Key {
    /// The addresses of a host.
    pub(crate) fn addresses(name: Name) -> Self {
        Self { name, services: false }
    }

    /// The hosts of a service.
    pub(crate) fn services(name: Name) -> Self {
        Self { name, services: true }
    }
}

/// What a name stands for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) data: Data,
    /// From when on it should be renewed.
    pub(crate) renew_at: Instant,
}

/// Why a name stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The servers say so, or say nothing.
    #[error(transparent)]
    Failed(Failure),
    /// Nobody was asked.
    #[error("too many names are being resolved")]
    Busy,
}

/// No server has answered.
pub(crate) const SILENCE: Unresolved = Unresolved::Failed(Failure::Silence);

impl Resolver {
    /// Asks the servers of `model`, by way of `thread`.
    pub fn new(model: model::Resolver, thread: Arc<ResolverThread>) -> Self {
        let limits = Limits { entries: NAMES_PER_SHARD, stale: STALE };
        Self {
            model,
            known: std::array::from_fn(|_| Mutex::new(Table::new(limits))),
            hasher: RandomState::new(),
            turn: AtomicUsize::new(0),
            thread,
        }
    }

    /// The resolvers of a configuration, by [`ResolverId`](model::ResolverId). What `previous` ones
    /// of the same servers know is kept.
    pub fn all(
        models: &[model::Resolver],
        previous: &[Arc<Self>],
        thread: &Arc<ResolverThread>,
    ) -> Vec<Arc<Self>> {
        let resolver = |model: &model::Resolver| {
            let same = previous.iter().find(|resolver| resolver.model == *model);
            same.cloned().unwrap_or_else(|| Arc::new(Self::new(model.clone(), Arc::clone(thread))))
        };
        models.iter().map(resolver).collect()
    }

    /// What the name of a host stands for.
    ///
    /// # Errors
    /// When that is nothing, or nobody says so within `timeout`.
    pub(crate) async fn host(
        self: &Arc<Self>,
        name: Name,
        timeout: Duration,
    ) -> Result<Arc<Answer>, Unresolved> {
        let key = Key::addresses(name);
        let known = self.known(&key).find(&key, Instant::now());
        let old = match known {
            Known::Fresh { answer, renew } => {
                if renew {
                    self.renew(key);
                }
                return Ok(answer);
            }
            Known::Absent(failure) => return Err(Unresolved::Failed(failure)),
            Known::Stale { answer, age, ask: Ask::First } => Some((answer, age)),
            Known::Stale { answer, age, ask } => {
                self.tell_stale(&key, age);
                if ask == Ask::Aside {
                    self.renew(key);
                }
                return Ok(answer);
            }
            Known::Unknown => None,
        };
        let mut patience = timeout;
        if old.is_some() {
            patience = timeout.min(STALE_WAIT);
            // It is worth to be known also when it comes too late for this request.
            self.renew(key.clone());
        }
        match (self.ask(key.clone(), patience).await, old) {
            // That is an answer, which the old addresses contradict.
            (absent @ Err(Unresolved::Failed(Failure::Answered(Code::NoName))), _) => absent,
            (Err(_), Some((old, age))) => {
                self.known(&key).failed(key.clone(), Failure::Silence, None, Instant::now());
                self.tell_stale(&key, age);
                Ok(old)
            }
            (answered, _) => answered,
        }
    }

    /// An answer that need not be renewed yet, and when to ask for the next one: later than the answer
    /// says when nobody had an answer lately.
    pub(crate) async fn newest(
        self: &Arc<Self>,
        key: Key,
        timeout: Duration,
    ) -> Result<(Arc<Answer>, Instant), Unresolved> {
        let now = Instant::now();
        let known = {
            let mut known = self.known(&key);
            known.new_until(&key, now).map(|until| (known.find(&key, now), until))
        };
        match known {
            Some((Known::Fresh { answer, .. }, until)) => Ok((answer, until)),
            _ => {
                let answer = self.ask(key, timeout).await?;
                let renew_at = answer.renew_at;
                Ok((answer, renew_at))
            }
        }
    }

    /// Asks the servers.
    async fn ask(self: &Arc<Self>, key: Key, timeout: Duration) -> Result<Arc<Answer>, Unresolved> {
        let asked = async {
            loop {
                let (told, answered) = oneshot::channel();
                self.order(key.clone(), Some(told));
                match answered.await {
                    // That lookup had begun before we came; we still have time for the next one.
                    Ok(Err(Failure::Silence)) => {}
                    Ok(answer) => return answer.map_err(Unresolved::Failed),
                    Err(_) => return Err(Unresolved::Busy),
                }
            }
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or(Err(SILENCE))
    }

    /// Asks the servers without waiting for what they say.
    fn renew(self: &Arc<Self>, key: Key) {
        self.order(key, None);
    }

    fn order(self: &Arc<Self>, key: Key, told: Option<oneshot::Sender<thread::Told>>) {
        self.thread.order(Order::LookUp { resolver: Arc::clone(self), key, told });
    }

    fn tell_stale(&self, key: &Key, age: Duration) {
        let (name, age) = (&key.name, age.as_secs());
        self.thread.log_seldom(
            LogLevel::Warn,
            format_args!(
                "DNS servers fail or do not respond, using addresses of {name} that expired {age}s \
                 ago"
            ),
        );
    }

    /// Takes in how a lookup has ended.
    fn take_in(&self, key: &Key, outcome: Outcome) -> Result<Arc<Answer>, Failure> {
        let now = Instant::now();
        match outcome {
            Outcome::Found(data, ttl) => {
                let ttl = self.model.valid.unwrap_or(ttl);
                let renew_at = wssgate_dns::renew_at(ttl, now);
                let answer = Arc::new(Answer { data, renew_at });
                self.known(key).found(key.clone(), Arc::clone(&answer), ttl, now);
                Ok(answer)
            }
            Outcome::Failed(failure, ttl) => {
                self.known(key).failed(key.clone(), failure, ttl, now);
                Err(failure)
            }
        }
    }

    /// The part of the table that a name belongs to.
    fn known(&self, key: &Key) -> MutexGuard<'_, Table<Key, Arc<Answer>>> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        // Whoever panicked, the table is whole.
        self.known[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self, key: &Key) -> Wanted {
        let model::Resolver { ipv4, ipv6, .. } = self.model;
        match key.services {
            true => Wanted::Services,
            false => Wanted::Addresses(Families { ipv4, ipv6 }),
        }
    }
}

impl Answer {
    /// The addresses, if it is about a host.
    pub(crate) fn host_addresses(&self) -> &[IpAddr] {
        match &self.data {
            Data::Addresses(addresses) => addresses,
            Data::Services(_) => &[],
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Who follows the name would not rest otherwise.
    #[tokio::test]
    async fn the_next_question_is_due_later_while_nobody_answers() {
        let servers = vec!["127.0.0.1:1".parse().unwrap()];
        let model = model::Resolver { servers, valid: None, ipv4: true, ipv6: true };
        let resolver = Arc::new(Resolver::new(model, Arc::default()));
        let key = Key::addresses(Name::new(b"a.test").unwrap());
        let ttl = Duration::from_secs(3000);
        // It is to be renewed now.
        let asked = Instant::now() - ttl * 4 / 5;
        let data = Data::Addresses(vec!["127.0.0.1".parse().unwrap()]);
        let renew_at = wssgate_dns::renew_at(ttl, asked);
        let answer = Arc::new(Answer { data, renew_at });
        resolver.known(&key).found(key.clone(), answer, ttl, asked);
        resolver.known(&key).failed(key.clone(), Failure::Silence, None, Instant::now());
        let (_, due) = resolver.newest(key, Duration::ZERO).await.unwrap();
        assert!(due > Instant::now() + Duration::from_secs(1));
    }
}
