//! The zones of `limit_req`, `limit_conn` and `websocket_limit`: what is counted by keys, exactly, for all workers.
//!
//! A zone is a few [`Table`](table::Table)s of fixed capacity; the hash of a key says which one, so that a lock is
//! held for the time of one look into a table and seldom waited for. The memory of all tables together is what the
//! zone was given. It is reserved at once and touched as keys come.
//!
//! A zone outlives a reload with its counts, found again by its name; another size makes a new one. What still holds
//! a connection of a zone keeps that zone.

mod connections;
mod handshakes;
mod moved;
mod requests;
mod table;
mod traffic;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use wssgate_config::model::{Config, LimitKind, LimitZone, LimitZoneId};
use wssgate_syntax::{Diagnostic, Report, printable};

use crate::metrics::Tally;

pub(crate) use connections::{Held, Occupied};
pub(crate) use handshakes::{Entry, Turns};
pub(crate) use moved::KeyState;
pub(crate) use requests::{Bounds, Excess, Pin};
pub(crate) use traffic::{Allowance, Level, Measure, Rule, Share};

use connections::ConnectionZone;
use moved::ZoneName;
use requests::RequestZone;
use table::TooLarge;

/// All zones of a configuration.
#[derive(Debug, Default)]
pub struct Zones(Vec<Zone>);

/// What a zone has done to those beyond its limit.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Requests that were refused, or WebSockets that were closed.
    pub(crate) refused: Tally,
    /// Requests that were delayed, or the times that a WebSocket was not read for a while.
    pub(crate) delayed: Tally,
    /// What would have been refused or delayed.
    pub(crate) tried: Tally,
}

#[derive(Clone, Debug)]
struct Zone {
    tables: Tables,
    effects: Arc<Effects>,
}

#[derive(Clone, Debug)]
enum Tables {
    /// Or messages or bytes of WebSockets.
    Requests(Arc<RequestZone>),
    Connections(Arc<ConnectionZone>),
}

impl Zones {
    /// The zones of `config`, with the counts of those that `previous` has already.
    pub(crate) fn build(
        config: &Config,
        previous: Option<(&Config, &Self)>,
        report: &mut Report,
    ) -> Self {
        let earlier: Vec<_> = previous
            .into_iter()
            .flat_map(|(config, zones)| limit_zones(config).iter().zip(&zones.0))
            .collect();
        let mut zones = Vec::new();
        for wanted in limit_zones(config) {
            let known = earlier.iter().find(|(old, _)| is_same(old, wanted));
            let zone = match known {
                Some((old, _)) if old.key_text != wanted.key_text => Err(other_key(old, wanted)),
                Some((_, zone)) => Ok((*zone).clone()),
                None => Zone::new(wanted).map_err(|TooLarge| {
                    let message = format!("cannot reserve {} bytes of memory", wanted.size);
                    Diagnostic::error(message).at(wanted.span, "for this zone")
                }),
            };
            match zone {
                Ok(zone) => zones.push(zone),
                // Nobody looks for zones in a generation that fails.
                Err(problem) => report.push(problem),
            }
        }
        Self(zones)
    }

    /// A zone of `limit_req_zone`.
    pub(crate) fn requests(&self, id: LimitZoneId) -> &RequestZone {
        match &self.0[id.0].tables {
            Tables::Requests(zone) => zone,
            Tables::Connections(_) => unreachable!("`limit_req` names zones of requests"),
        }
    }

    /// What counts a WebSocket of `key` in a zone of `websocket_limit_zone`.
    pub(crate) fn share(&self, id: LimitZoneId, key: Bytes, rule: Rule) -> Share {
        let Zone { tables, effects } = &self.0[id.0];
        match tables {
            Tables::Requests(zone) => Share::new(Arc::clone(zone), Arc::clone(effects), key, rule),
            Tables::Connections(_) => unreachable!("`websocket_limit` names zones of its own"),
        }
    }

    /// What counts a WebSocket that another process has counted, if there is a zone for that.
    pub(crate) fn share_of(&self, state: &KeyState<'_>, rule: Rule) -> Option<Share> {
        let id = (0..self.0.len()).map(LimitZoneId).find(|id| self.is_of(*id, state))?;
        Some(self.share(id, Bytes::copy_from_slice(state.key()), rule))
    }

    /// A zone of `limit_conn_zone`.
    pub(crate) fn connections(&self, id: LimitZoneId) -> &Arc<ConnectionZone> {
        match &self.0[id.0].tables {
            Tables::Connections(zone) => zone,
            Tables::Requests(_) => unreachable!("`limit_conn` names zones of connections"),
        }
    }

    /// The zone of `limit_conn_zone` that counts by what `state` says, if there is one.
    pub(crate) fn connections_of(&self, state: &KeyState<'_>) -> Option<&Arc<ConnectionZone>> {
        self.0.iter().find_map(|zone| match &zone.tables {
            Tables::Connections(zone) if state.is_of(zone.name()) => Some(zone),
            _ => None,
        })
    }

    /// Whether it is this zone of messages or bytes that counts by what `state` says.
    pub(crate) fn is_of(&self, id: LimitZoneId, state: &KeyState<'_>) -> bool {
        match &self.0[id.0].tables {
            Tables::Requests(zone) => state.is_of(zone.name()),
            Tables::Connections(_) => false,
        }
    }

    /// What a zone has done.
    pub(crate) fn effects(&self, id: LimitZoneId) -> &Effects {
        &self.0[id.0].effects
    }
}

impl Zone {
    fn new(wanted: &LimitZone) -> Result<Self, TooLarge> {
        let name = ZoneName::of_zone(wanted);
        let tables = match wanted.kind {
            LimitKind::Requests { .. } | LimitKind::Messages { .. } | LimitKind::Bytes { .. } => {
                Tables::Requests(Arc::new(RequestZone::new(name, wanted.size)?))
            }
            LimitKind::Connections => {
                Tables::Connections(Arc::new(ConnectionZone::new(name, wanted.size)?))
            }
        };
        Ok(Self { tables, effects: Arc::default() })
    }
}

fn limit_zones(config: &Config) -> &[LimitZone] {
    config.http.as_ref().map_or(&[], |http| &http.limit_zones)
}

/// Whether a zone goes on as another one; its rate may change.
fn is_same(old: &LimitZone, new: &LimitZone) -> bool {
    let kind = |zone: &LimitZone| std::mem::discriminant(&zone.kind);
    old.name == new.name && old.size == new.size && kind(old) == kind(new)
}

/// What a zone has counted by one key says nothing about another.
fn other_key(old: &LimitZone, new: &LimitZone) -> Diagnostic {
    let directive = match new.kind {
        LimitKind::Requests { .. } => "limit_req",
        LimitKind::Connections => "limit_conn_zone",
        LimitKind::Messages { .. } | LimitKind::Bytes { .. } => "websocket_limit_zone",
    };
    let [name, key, old_key] =
        [&new.name, &new.key_text, &old.key_text].map(|text| printable(text));
    let message = format!(
        "{directive} \"{name}\" uses the \"{key}\" key while previously it used the \"{old_key}\" key"
    );
    Diagnostic::error(message)
        .at(new.span, "the running configuration has another key")
        .help("give the zone another name")
}

/// The tables of a zone.
#[derive(Debug)]
struct Shards<S> {
    hasher: RandomState,
    shards: Box<[Shard<S>]>,
}

/// On a cache line of its own, or workers that use different shards would slow each other down.
#[derive(Debug)]
#[repr(align(64))]
struct Shard<S>(Mutex<S>);

/// Where a key belongs.
#[derive(Clone, Copy, Debug)]
struct Place {
    shard: u32,
    hash: u32,
}

/// A table with less memory would be full too often while others have room.
const MIN_SHARD_SIZE: u64 = 256 << 10;
const MAX_SHARDS: u64 = 64;

impl<S> Shards<S> {
    /// Divides `size` bytes.
    fn new(size: u64, make: impl Fn(usize) -> Result<S, TooLarge>) -> Result<Self, TooLarge> {
        let count = (size / MIN_SHARD_SIZE).clamp(1, MAX_SHARDS);
        // A power of two, so that some bits of a hash are the number of a shard.
        let count = 1 << count.ilog2();
        let size = usize::try_from(size / count).map_err(|_| TooLarge)?;
        let shards = (0..count).map(|_| Ok(Shard(Mutex::new(make(size)?))));
        Ok(Self { hasher: RandomState::new(), shards: shards.collect::<Result<_, _>>()? })
    }

    /// Keyed, so that nobody can choose keys that all belong to one place.
    fn place(&self, key: &[u8]) -> Place {
        let hash = self.hasher.hash_one(key);
        let shard = (hash >> 32) as u32 & (self.shards.len() as u32 - 1);
        Place { shard, hash: hash as u32 }
    }

    fn lock(&self, shard: u32) -> MutexGuard<'_, S> {
        self.shards[shard as usize].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_config::load;
    use wssgate_config::load::LoadOptions;

    use super::*;

    fn config(zones: &str) -> Config {
        load(&LoadOptions::text(format!("events {{}} http {{ {zones} }}"))).unwrap().config
    }

    fn same(one: &Zone, other: &Zone) -> bool {
        match (&one.tables, &other.tables) {
            (Tables::Requests(one), Tables::Requests(other)) => Arc::ptr_eq(one, other),
            (Tables::Connections(one), Tables::Connections(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    #[test]
    fn a_reload_keeps_what_is_still_the_same_zone() {
        let old = config(
            "limit_req_zone $uri zone=a:1m rate=1r/s; limit_conn_zone $uri zone=b:1m;
             limit_req_zone $uri zone=c:1m rate=1r/s;",
        );
        let mut report = Report::default();
        let before = Zones::build(&old, None, &mut report);
        let new = config(
            "limit_req_zone $uri zone=c:2m rate=1r/s; limit_conn_zone $uri zone=b:1m;
             limit_req_zone $uri zone=a:1m rate=9r/m;",
        );
        let after = Zones::build(&new, Some((&old, &before)), &mut report);
        assert!(same(&before.0[0], &after.0[2]), "another rate is the same zone");
        assert!(same(&before.0[1], &after.0[1]));
        assert!(!same(&before.0[2], &after.0[0]), "another size is another zone");
        assert!(!report.has_errors());
    }

    #[test]
    fn another_key_is_refused_in_nginx_words() {
        for (old, new, expected) in [
            (
                "limit_req_zone $uri zone=a:1m rate=1r/s;",
                "limit_req_zone $args zone=a:1m rate=1r/s;",
                "limit_req \"a\" uses the \"$args\" key while previously it used the \"$uri\" key",
            ),
            (
                "limit_conn_zone $uri zone=a:1m;",
                "limit_conn_zone $args zone=a:1m;",
                "limit_conn_zone \"a\" uses the \"$args\" key while previously it used the \"$uri\" key",
            ),
        ] {
            let (old, new) = (config(old), config(new));
            let mut report = Report::default();
            let before = Zones::build(&old, None, &mut report);
            Zones::build(&new, Some((&old, &before)), &mut report);
            let messages: Vec<_> = report.iter().map(|problem| &*problem.message).collect();
            assert_eq!(messages, [expected]);
        }
    }
}
