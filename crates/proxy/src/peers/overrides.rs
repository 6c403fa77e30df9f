//! What an operator has set of the servers of a group, until the next generation.
//!
//! It is kept by address beside the servers, so that it outlives their names being looked up again. A set of peers is
//! made with it, so whoever chooses knows nothing of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use wssgate_config::model::{ListenAddr, UpstreamServer};

/// How a server is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// It gets requests.
    Up,
    /// It gets none.
    Down,
    /// It gets only those of clients that stick to it.
    Drain,
}

impl Usage {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drain",
        }
    }

    /// As it is configured.
    pub(super) fn of(server: &UpstreamServer) -> Self {
        match (server.drain, server.down) {
            (true, _) => Self::Drain,
            (false, true) => Self::Down,
            (false, false) => Self::Up,
        }
    }
}

/// What is set of one address; the rest is as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) usage: Option<Usage>,
    pub(crate) weight: Option<u32>,
}

/// A change of an [`Override`]; what is `None` stays, and an inner `None` undoes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) usage: Option<Option<Usage>>,
    pub(crate) weight: Option<Option<u32>>,
}

/// What is set in a group. Only addresses that it had get an entry.
#[derive(Debug, Default)]
pub(super) struct Overrides(HashMap<ListenAddr, Override>);

impl Overrides {
    /// What is set of an address.
    pub(super) fn of(&self, address: &ListenAddr) -> Override {
        self.0.get(address).copied().unwrap_or_default()
    }

    /// All that is set, in the order of the addresses.
    pub(super) fn all(&self) -> BTreeMap<ListenAddr, Override> {
        self.0.iter().map(|(address, set)| (address.clone(), *set)).collect()
    }

    /// Sets something of an address that is on these lines.
    pub(super) fn change(
        &mut self,
        address: &ListenAddr,
        change: Change,
        lines: &[&UpstreamServer],
    ) {
        let mut set = self.of(address);
        if let Some(usage) = change.usage {
            // What it is anyway is nothing set.
            set.usage =
                usage.filter(|usage| lines.iter().any(|server| Usage::of(server) != *usage));
        }
        if let Some(weight) = change.weight {
            set.weight = weight;
        }
        match set == Override::default() {
            true => self.0.remove(address),
            false => self.0.insert(address.clone(), set),
        };
    }

    /// A server at one of its addresses.
    pub(super) fn apply<'s>(
        &self,
        server: &'s UpstreamServer,
        address: &ListenAddr,
    ) -> Cow<'s, UpstreamServer> {
        let Override { usage, weight } = self.of(address);
        if usage.is_none() && weight.is_none() {
            return Cow::Borrowed(server);
        }
        let usage = usage.unwrap_or_else(|| Usage::of(server));
        Cow::Owned(UpstreamServer {
            down: usage == Usage::Down,
            drain: usage == Usage::Drain,
            weight: weight.unwrap_or(server.weight),
            ..server.clone()
        })
    }
}
