//! Upstream servers: how they do, and how operators have them used until the next reload.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use wssgate_config::model::ListenAddr;
use wssgate_syntax::printable;

use super::api::{Answer, Refusal, Request, ok};
use super::draining::Manner;
use super::query::QueryError;
use super::walk::Row;
use crate::generation::Generation;
use crate::peers::group::PeerStatus;
use crate::peers::{Change, Group, Standing, Usage};

/// A greater one makes the ring of `hash … consistent` larger than it is of use.
const MAX_WEIGHT: u32 = 10_000;

/// What says that something is to be as configured.
const CONFIGURED: &str = "configured";

impl Request<'_> {
    pub(super) fn upstreams(self) -> Result<Answer, Refusal> {
        self.reads()?;
        self.query.finish()?;
        let generation = self.view.current.load_full();
        let models = generation.config.http.iter().flat_map(|http| &http.upstreams);
        let groups = models.zip(&generation.upstreams).map(|(model, group)| {
            let peers = group.peers().into_iter();
            json!({
                "name": printable(&model.name),
                "explicit": model.explicit,
                "peers": peers.map(|(address, status)| peer(&address, &status)).collect::<Vec<_>>(),
            })
        });
        Ok(ok(json!({"upstreams": groups.collect::<Vec<_>>()})))
    }

    /// Changes how one server is used.
    pub(super) fn change_peer(mut self) -> Result<Answer, Refusal> {
        self.changes()?;
        let upstream = self.query.text("upstream").ok_or(QueryError::Missing("upstream"))?;
        let name = self.query.text("address").ok_or(QueryError::Missing("address"))?;
        let usage = self.query.read("state", "up, down, drain or configured is expected", usage)?;
        let expected = "a number from 1 to 10000 or configured is expected";
        let weight = self.query.read("weight", expected, weight)?;
        let manner = Manner::parse(&mut self.query)?;
        std::mem::take(&mut self.query).finish()?;
        let change = Change { usage, weight };
        if usage.is_none() && weight.is_none() {
            return Err(Refusal::Wrong("state or weight is missing"));
        }
        if manner.is_some() && !matches!(usage, Some(Some(Usage::Down | Usage::Drain))) {
            return Err(Refusal::Wrong("over goes with state=down and state=drain"));
        }
        let generation = self.view.current.load_full();
        let (group, address) = find(&generation, &upstream, &name)?;
        if manner.is_some() {
            // Before anything is changed.
            self.view.drains.check_room()?;
        }
        let numbers = group.change(&address, change, Instant::now());
        if numbers.is_empty() {
            return Err(NO_PEER);
        }
        let what = format!("upstream server {address} of {upstream}");
        self.note(format_args!("{what}: {}", words(change)));
        let (staying, drain) = match manner {
            None => (Value::Null, Value::Null),
            Some(manner) => {
                let what = format!("server {address} of {upstream}");
                let is_its = |number: u32| numbers.contains(&number);
                let fits = |row: &Row| is_its(row.about.peer.number());
                let done = "no drain has begun, but the server is used as was ordered";
                let begun = self.drain_those(what, manner, fits);
                let (meant, drain) = begun.map_err(|refusal| refusal.after(done))?;
                (meant.staying.into(), drain)
            }
        };
        let status = group.peers().remove(&address).unwrap_or_default();
        Ok(ok(json!({"peer": peer(&address, &status), "staying": staying, "drain": drain})))
    }
}

const NO_PEER: Refusal = Refusal::NotThere("this upstream has no server with this address now");

/// A group and one of its addresses, as answers name them.
fn find(
    generation: &Generation,
    upstream: &str,
    name: &str,
) -> Result<(Arc<Group>, ListenAddr), Refusal> {
    let models = generation.config.http.iter().flat_map(|http| &http.upstreams);
    let mut groups = models.zip(&generation.upstreams);
    let (_, group) = groups
        .find(|(model, _)| printable(&model.name) == upstream)
        .ok_or(Refusal::NotThere("there is no upstream with this name"))?;
    let address = group.peers().into_keys().find(|address| address.to_string() == name);
    Ok((Arc::clone(group), address.ok_or(NO_PEER)?))
}

fn usage(text: &str) -> Option<Option<Usage>> {
    match text {
        "up" => Some(Some(Usage::Up)),
        "down" => Some(Some(Usage::Down)),
        "drain" => Some(Some(Usage::Drain)),
        CONFIGURED => Some(None),
        _ => None,
    }
}

fn weight(text: &str) -> Option<Option<u32>> {
    match text {
        CONFIGURED => Some(None),
        number => number.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight)).map(Some),
    }
}

/// A change, for the log.
fn words(change: Change) -> String {
    let mut out = String::new();
    if let Some(usage) = change.usage {
        out += usage.map_or(CONFIGURED, Usage::name);
    }
    if let Some(weight) = change.weight {
        let comma = if out.is_empty() { "" } else { ", " };
        let weight = weight.map_or_else(|| CONFIGURED.to_owned(), |weight| weight.to_string());
        // Writing to a string does not fail.
        let _ = write!(out, "{comma}weight {weight}");
    }
    out
}

/// One server as answers have it.
fn peer(address: &ListenAddr, status: &PeerStatus) -> Value {
    let more = status.more.as_ref();
    let set = more.map(|more| more.set).filter(|set| *set != Default::default());
    json!({
        "address": address.to_string(),
        "state": match (status.is_known, status.in_use) {
            (false, _) => "gone",
            (true, true) => "up",
            (true, false) => "down",
        },
        "connections": status.connections,
        "tunnels": status.tunnels,
        "failures": status.failures,
        "wanted": more.map(|more| more.usage.name()),
        "weight": more.map(|more| more.weight),
        "override": set.map(|set| json!({
            "state": set.usage.map(Usage::name),
            "weight": set.weight,
        })),
        "failing": more.map(|more| more.is_failing),
        "checks": more.map(|more| match more.standing {
            Standing::Up => "passed",
            Standing::Checking => "pending",
            Standing::Down(_) => "failed",
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_and_told() {
        assert_eq!(usage("draining"), None);
        for bad in ["0", "10001", "-1", ""] {
            assert_eq!(weight(bad), None, "{bad}");
        }
        let read = |state: Option<&str>, number: Option<&str>| Change {
            usage: state.and_then(usage),
            weight: number.and_then(weight),
        };
        for (state, number, expected) in [
            (Some("drain"), None, "drain"),
            (None, Some("10000"), "weight 10000"),
            (Some("configured"), Some("configured"), "configured, weight configured"),
        ] {
            assert_eq!(words(read(state, number)), expected);
        }
    }
}
