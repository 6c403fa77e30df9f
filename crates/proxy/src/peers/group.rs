//! The peers of one upstream group and what is known of them.
//!
//! A [`Group`] belongs to one configuration; what it knows of its peers lives in a table that the
//! next configuration's group of the same name goes on using, so that a reload forgets neither a
//! failing peer nor the connections of tunnels that live on. The table's lock is held once for each
//! try and once for each release, never while waiting.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wssgate_config::model::{Balance, Http, ListenAddr, Upstream, UpstreamServer};

use super::balance::{self, Ended, Method, Ring, Rules, Selection, State, Tier};

/// One upstream group.
#[derive(Debug)]
pub struct Group {
    /// Name of the `upstream` block, or `host:port`.
    pub name: Box<[u8]>,
    /// How many idle connections are kept and for how long.
    pub keepalive: Keepalive,
    primary: Peers,
    backup: Peers,
    method: Method,
    table: Arc<Mutex<Table>>,
}

/// The ordinary or the backup peers; the two lists run in parallel.
#[derive(Debug, Default)]
struct Peers {
    peers: Vec<Peer>,
    rules: Vec<Rules>,
    total_weight: i64,
}

/// The `keepalive*` directives of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle connections per worker; 0 keeps none.
    pub connections: usize,
    /// Requests on one connection.
    pub requests: u64,
    /// How long a connection may be used.
    pub time: Duration,
    /// How long it may be idle.
    pub timeout: Duration,
}

/// One address of one `server` line.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where to connect.
    pub address: ListenAddr,
    /// The address as text, for `$upstream_addr` and messages.
    pub name: Arc<str>,
}

/// State of the peers of all generations that have a group of this name.
#[derive(Debug, Default)]
struct Table {
    /// A slot may be given to another address when no group owns it and no connection is left.
    addresses: Vec<ListenAddr>,
    owners: Vec<u32>,
    states: Vec<State>,
    seed: u64,
}

impl Table {
    /// The slot of a peer with this address; `taken` are those of the group that asks.
    fn slot(&mut self, address: &ListenAddr, taken: &[usize]) -> usize {
        let free = |slot: &usize| !taken.contains(slot);
        let known =
            (0..self.addresses.len()).filter(free).find(|slot| self.addresses[*slot] == *address);
        if let Some(slot) = known {
            return slot;
        }
        let unused = (0..self.addresses.len())
            .filter(free)
            .find(|slot| self.owners[*slot] == 0 && self.states[*slot].conns == 0);
        match unused {
            Some(slot) => {
                self.addresses[slot] = address.clone();
                self.states[slot] = State::default();
                slot
            }
            None => {
                self.addresses.push(address.clone());
                self.owners.push(0);
                self.states.push(State::default());
                self.addresses.len() - 1
            }
        }
    }
}

impl Group {
    /// Builds the group of `model`. `previous` is the group of the same name in the generation
    /// before, whose knowledge of peers is taken over.
    pub fn new(model: &Upstream, previous: Option<&Group>) -> Self {
        let table = previous.map_or_else(
            || Arc::new(Mutex::new(Table { seed: random_seed(), ..Table::default() })),
            |previous| Arc::clone(&previous.table),
        );
        let (primary, backup) = Peers::of(model, &mut lock(&table));
        let method = Self::method(model, &primary);
        let keepalive = Keepalive {
            connections: model.keepalive,
            requests: model.keepalive_requests,
            time: model.keepalive_time,
            timeout: model.keepalive_timeout,
        };
        Self { name: model.name.clone(), keepalive, primary, backup, method, table }
    }

    /// A group of one address that a URL of variables named; nothing of it is remembered.
    pub fn of_address(address: ListenAddr) -> Self {
        let server = UpstreamServer {
            name: text_of(&address).into_bytes().into(),
            addresses: vec![address],
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
        };
        let model = Upstream {
            name: server.name.clone(),
            explicit: false,
            servers: vec![server],
            balance: Balance::RoundRobin,
            keepalive: 0,
            keepalive_requests: 0,
            keepalive_time: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
        };
        Self::new(&model, None)
    }

    fn method(model: &Upstream, primary: &Peers) -> Method {
        match &model.balance {
            Balance::RoundRobin => Method::RoundRobin,
            Balance::LeastConn => Method::LeastConn,
            Balance::IpHash => Method::IpHash,
            Balance::Hash { consistent: false, .. } => Method::Hash,
            Balance::Hash { consistent: true, .. } => Method::Consistent(Ring::new(
                primary
                    .rules
                    .iter()
                    .map(|rules| (&*model.servers[rules.line].name, rules.line, rules.weight)),
            )),
            Balance::Random { two } => Method::Random { two: *two },
        }
    }

    /// How many peers a request may try: those that are not `down`.
    pub fn tries(&self) -> u32 {
        let up = self.primary.rules.iter().chain(&self.backup.rules).filter(|rules| !rules.down);
        u32::try_from(up.count()).unwrap_or(u32::MAX)
    }

    /// Whether the group is one peer, which is used whatever its failures and never tried twice.
    pub fn single(&self) -> bool {
        self.primary.peers.len() == 1 && self.backup.peers.is_empty()
    }

    /// Begins the choice for one request. `key` is the text of the `hash` directive, `client` the
    /// address for `ip_hash`; other methods look at neither.
    pub fn selection(&self, key: &[u8], client: Option<IpAddr>) -> Selection {
        match (&self.method, client) {
            (Method::IpHash, Some(IpAddr::V4(address))) => {
                Selection::new(&self.method, &address.octets()[..3])
            }
            (Method::IpHash, Some(IpAddr::V6(address))) => {
                Selection::new(&self.method, &address.octets())
            }
            // What nginx takes for a client on a Unix socket.
            (Method::IpHash, None) => Selection::new(&self.method, &[0, 0, 0]),
            _ => Selection::new(&self.method, key),
        }
    }

    /// Chooses a peer and counts a connection for it, which the [`Lease`] gives back. `None`: no
    /// live upstreams.
    pub fn choose(self: &Arc<Self>, selection: &mut Selection, now: Instant) -> Option<Lease> {
        let mut table = lock(&self.table);
        let mut index = self.choose_in(&mut table, selection, now);
        if index.is_none() && !selection.backup && !self.backup.peers.is_empty() {
            selection.use_backup();
            index = self.choose_in(&mut table, selection, now);
        }
        Some(Lease {
            group: Arc::clone(self),
            backup: selection.backup,
            index: index?,
            alive: false,
            released: false,
        })
    }

    fn choose_in(
        &self,
        table: &mut Table,
        selection: &mut Selection,
        now: Instant,
    ) -> Option<usize> {
        let Table { states, seed, .. } = table;
        let peers = if selection.backup { &self.backup } else { &self.primary };
        let mut tier = Tier {
            rules: &peers.rules,
            states,
            single: self.single(),
            total_weight: peers.total_weight,
        };
        selection.choose(&self.method, &mut tier, now, &mut || split_mix(seed))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        for rules in self.primary.rules.iter().chain(&self.backup.rules) {
            table.owners[rules.slot] -= 1;
        }
    }
}

impl Peers {
    /// The ordinary and the backup peers of `model`, with a slot of `table` for each.
    fn of(model: &Upstream, table: &mut Table) -> (Self, Self) {
        let (mut primary, mut backup) = (Self::default(), Self::default());
        let mut taken = Vec::new();
        for (line, server) in model.servers.iter().enumerate() {
            for address in &server.addresses {
                let slot = table.slot(address, &taken);
                let weight = i64::from(server.weight);
                table.states[slot].set_weight(weight);
                table.owners[slot] += 1;
                taken.push(slot);
                let peers = if server.backup { &mut backup } else { &mut primary };
                peers.peers.push(Peer { address: address.clone(), name: text_of(address).into() });
                peers.rules.push(Rules {
                    weight,
                    max_conns: server.max_conns,
                    max_fails: server.max_fails,
                    fail_timeout: server.fail_timeout,
                    down: server.down,
                    slot,
                    line,
                });
                peers.total_weight += weight;
            }
        }
        (primary, backup)
    }
}

/// The groups of a configuration, by [`UpstreamId`](wssgate_config::model::UpstreamId);
/// `previous` are those of the generation before.
pub fn groups(http: &Http, previous: &[Arc<Group>]) -> Vec<Arc<Group>> {
    let build = |model: &Upstream| {
        let previous = previous.iter().find(|group| group.name == model.name);
        Arc::new(Group::new(model, previous.map(|group| &**group)))
    };
    http.upstreams.iter().map(build).collect()
}

/// A counted connection to a peer. Dropping it gives the count back, and is a success unless
/// [`Lease::alive`] or [`Lease::fail`] has said before what there is to say of the peer.
#[derive(Debug)]
pub struct Lease {
    group: Arc<Group>,
    backup: bool,
    index: usize,
    /// Whether [`Lease::alive`] was called.
    alive: bool,
    released: bool,
}

impl Lease {
    /// The peer.
    pub fn peer(&self) -> &Peer {
        &self.peers().peers[self.index]
    }

    /// The group it belongs to.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// The peer has answered, so it is in use again at once. A tunnel may end only hours later,
    /// and how it ends then says nothing new.
    pub fn alive(&mut self) {
        self.alive = true;
        let slot = self.peers().rules[self.index].slot;
        balance::alive(&mut lock(&self.group.table).states[slot]);
    }

    /// The connection failed. Says whether the peer is now out of use for `fail_timeout`.
    pub fn fail(mut self, now: Instant) -> bool {
        self.release(Ended::Failed, now)
    }

    /// No connection was made, and the peer has nothing to do with that.
    pub fn unused(mut self, now: Instant) {
        self.release(Ended::Unjudged, now);
    }

    fn peers(&self) -> &Peers {
        if self.backup { &self.group.backup } else { &self.group.primary }
    }

    fn release(&mut self, ended: Ended, now: Instant) -> bool {
        self.released = true;
        let rules = &self.peers().rules[self.index];
        let mut table = lock(&self.group.table);
        balance::release(rules, &mut table.states[rules.slot], self.group.single(), ended, now)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.released {
            let ended = if self.alive { Ended::Unjudged } else { Ended::Well };
            self.release(ended, Instant::now());
        }
    }
}

/// A poisoned lock only means that some thread panicked; the numbers in it are still whole.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address as nginx writes it.
pub fn text_of(address: &ListenAddr) -> String {
    match address {
        ListenAddr::Ip(address) => address.to_string(),
        ListenAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// SplitMix64: spreads load, protects nothing.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
