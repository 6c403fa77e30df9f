//! The peers of one upstream group.
//!
//! A group's peers are a set that is never changed and can be replaced while the group lives. Each
//! choice looks at the newest set, and a [`Lease`] holds its peer, so nothing changes under either;
//! neither waits for anybody. What is known of a peer lives as long as any set or lease has the peer:
//! a peer of the same address in the next set of the group, or in the group of the same name that
//! the next configuration has, goes on with it. So a reload forgets neither a failing peer nor the
//! connections of tunnels that live on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::timeout;
use wssgate_config::model::{
    Balance, BetterOfTwo, ListenAddr, OnDown, Queue as Limits, Recovery, Sticky, Upstream,
    UpstreamServer,
};
use wssgate_config::template::Template;

use super::balance::{Load, Method, Progress, Ring, Tier, View};
use super::checked::{Rules as Checks, Standing, Turn};
use super::lease::Lease;
use super::moved::former;
use super::names::known_servers;
use super::overrides::{Change, Override, Overrides, Usage};
use super::peer::{Peer, State, UNIT};
use super::queue::{LOOK_AGAIN, Queue};
use super::sticky::{PeerId, SessionKey, Sessions};
use super::weights::CurrentWeights;

/// One upstream group.
#[derive(Debug)]
pub struct Group {
    /// Name of the `upstream` block, or `host:port`.
    pub name: Arc<[u8]>,
    /// How many idle connections are kept and for how long.
    pub keepalive: Keepalive,
    /// How clients are kept at one peer.
    pub sticky: Option<Sticky>,
    /// Those of `sticky learn`.
    pub sessions: Option<Arc<Sessions>>,
    balance: Balance,
    recovery: Recovery,
    /// How many requests may wait for a peer, and those that do.
    queue: Option<(Limits, Arc<Queue>)>,
    workers: usize,
    checks: Checks,
    peers: ArcSwap<PeerSet>,
    /// What operators have set; looked at only while [`Group::known`] is locked.
    overrides: Mutex<Overrides>,
    /// The number of the newest set.
    newest: watch::Sender<u64>,
    known: Arc<Mutex<Known>>,
}

/// The peers of a group at one time.
#[derive(Debug)]
struct PeerSet {
    /// Counted from 0; the next set of the group has the next number.
    number: u64,
    /// What it was made of.
    servers: Arc<[UpstreamServer]>,
    /// How many peers are not `down`.
    tries: u32,
    primary: Tier,
    backup: Tier,
    method: Method,
    /// What the next random number is made of.
    seed: AtomicU64,
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
    /// Whether each location has connections of its own.
    pub local: bool,
}

/// How a peer does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerStatus {
    /// Whether it is one of the group's now.
    pub(crate) is_known: bool,
    /// Whether requests are sent to it.
    pub(crate) in_use: bool,
    /// Connections in use, tunnels among them.
    pub(crate) connections: u64,
    /// Tunnels.
    pub(crate) tunnels: u64,
    /// Connections and requests that failed, since the peer is known.
    pub(crate) failures: u64,
    /// More of one that is one of the group's now.
    pub(crate) more: Option<PeerSettings>,
}

/// How a peer of a group is used; of several lines with one address, the first one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSettings {
    /// As it is configured, or as an operator has set it.
    pub(crate) usage: Usage,
    /// Likewise.
    pub(crate) weight: u32,
    /// What of it an operator has set.
    pub(crate) set: Override,
    /// Whether it is out of use for its failures.
    pub(crate) is_failing: bool,
    /// What health checks say.
    pub(crate) standing: Standing,
}

impl PeerStatus {
    /// Adds what is known of the same peer elsewhere.
    pub(crate) fn add(&mut self, other: &Self) {
        self.is_known |= other.is_known;
        self.in_use |= other.in_use;
        self.connections += other.connections;
        self.tunnels += other.tunnels;
        self.failures += other.failures;
        self.more = self.more.or(other.more);
    }
}

/// What the result of a check has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckResult {
    /// What the check says of the peer now, if it has said something else before.
    pub(crate) turn: Option<Turn>,
    /// Whether tunnels of the peer may have to end, or no longer.
    pub(crate) concerns_tunnels: bool,
}

/// The states of all peers that a set or a lease still has, of all generations of a group. It is
/// looked at only when a set is made, and by scrapes.
#[derive(Debug, Default)]
struct Known {
    states: Vec<(ListenAddr, Weak<State>)>,
}

impl Group {
    /// Builds the group of `model`, for so many workers. `previous` is the group of the same name
    /// in the generation before, whose knowledge of peers is taken over.
    pub fn new(model: &Upstream, previous: Option<&Self>, workers: usize) -> Self {
        let known = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.known));
        let before = previous.map(|previous| previous.peers.load_full());
        let checks: Checks = model.checks.as_slice().into();
        let name = Arc::from(&*model.name);
        let peers = PeerSet::new(
            &name,
            &known_servers(model, previous),
            (&model.balance, model.recovery, &checks),
            &Overrides::default(),
            before.as_deref(),
            workers,
            &mut lock(&known),
        );
        let keepalive = Keepalive {
            connections: model.keepalive,
            requests: model.keepalive_requests,
            time: model.keepalive_time,
            timeout: model.keepalive_timeout,
            local: model.keepalive_local,
        };
        let sessions = match &model.sticky {
            Some(Sticky::Learn(learn)) => {
                let before = previous.and_then(|previous| previous.sessions.as_deref());
                Some(Arc::new(Sessions::new(learn, before)))
            }
            _ => None,
        };
        Self {
            name,
            keepalive,
            sticky: model.sticky.clone(),
            sessions,
            balance: model.balance.clone(),
            recovery: model.recovery,
            queue: model.queue.map(|limits| {
                // Those who wait are not forgotten by a reload.
                let before = previous.and_then(|previous| previous.queue.as_ref());
                (limits, before.map_or_else(Arc::default, |(_, queue)| Arc::clone(queue)))
            }),
            workers,
            checks,
            newest: watch::Sender::new(peers.number),
            peers: ArcSwap::from_pointee(peers),
            overrides: Mutex::default(),
            known,
        }
    }

    /// The group of a server that a URL of variables names. Workers take turns at its peers.
    pub fn of_server(server: UpstreamServer, recovery: Recovery) -> Self {
        let model = Upstream::implicit(server.name.clone(), Vec::new());
        Self::new(&Upstream { servers: vec![server], recovery, ..model }, None, 1)
    }

    /// The servers whose peers it has now; with some more or fewer they can be given to
    /// [`Group::replace`].
    pub fn servers(&self) -> Arc<[UpstreamServer]> {
        Arc::clone(&self.peers.load().servers)
    }

    /// Replaces the peers by those of `servers`. A request that has one of the old ones may use
    /// it to its end; if it fails there, it begins again with the new ones.
    pub fn replace(&self, servers: &[UpstreamServer]) {
        // Held until the new set is there, so that of two callers each builds on the other's.
        let mut known = lock(&self.known);
        self.renew(servers, &lock(&self.overrides), &mut known);
    }

    fn renew(
        &self,
        servers: &[UpstreamServer],
        overrides: &Overrides,
        known: &mut Known,
    ) -> Arc<PeerSet> {
        let before = self.peers.load_full();
        let ways = (&self.balance, self.recovery, &self.checks);
        let (name, workers) = (&self.name, self.workers);
        let peers = PeerSet::new(name, servers, ways, overrides, Some(&before), workers, known);
        let peers = Arc::new(peers);
        peers.go_on_with_checks(&self.checks);
        let was_there: HashSet<_> = before.all().map(|peer| Arc::as_ptr(&peer.state)).collect();
        // Its state may have been kept by an open tunnel while its name had another address.
        let returned = peers.all().filter(|peer| !was_there.contains(&Arc::as_ptr(&peer.state)));
        returned.for_each(|peer| peer.state.checked.come_again());
        self.peers.store(Arc::clone(&peers));
        self.newest.send_replace(peers.number);
        if let Some((_, queue)) = &self.queue {
            queue.wake();
        }
        peers
    }

    /// Sets how the peers at an address are used, until the next generation. The answer are their numbers, none if there
    /// are none.
    pub(crate) fn change(&self, address: &ListenAddr, change: Change, now: Instant) -> Vec<u32> {
        let mut known = lock(&self.known);
        let servers = self.servers();
        let has_it = |server: &&UpstreamServer| server.addresses.contains(address);
        let lines: Vec<_> = servers.iter().filter(has_it).collect();
        if lines.is_empty() {
            return Vec::new();
        }
        let are_at = |peer: &&Arc<Peer>| peer.address == *address;
        let before = self.peers.load_full();
        let were_down = before.all().filter(are_at).all(|peer| peer.down);
        let were_checked = before.all().filter(are_at).any(|peer| peer.is_checked());
        let mut overrides = lock(&self.overrides);
        overrides.change(address, change, &lines);
        let after = self.renew(&servers, &overrides, &mut known);
        let is_told = change.usage == Some(Some(Usage::Up));
        for peer in after.all().filter(are_at).filter(|peer| !peer.down) {
            // As after any other absence; and who puts it into use knows better than failures of before.
            if were_down || is_told && peer.state.health.is_failing(&peer.rules) {
                peer.state.health.come_back(now);
            } else if is_told {
                peer.state.health.forget_failures();
            }
            if were_down && !were_checked {
                peer.state.checked.come_again();
            }
        }
        if let Some((_, queue)) = &self.queue {
            // Those who have looked when the set was new may have found it failing still.
            queue.wake();
        }
        after.all().filter(are_at).map(|peer| peer.number()).collect()
    }

    /// What an operator has set, by address.
    pub(crate) fn overrides(&self) -> BTreeMap<ListenAddr, Override> {
        lock(&self.overrides).all()
    }

    /// How each peer does, by its address: those of all lines of the group that have it, and those that are gone and
    /// still have connections.
    pub(crate) fn peers(&self) -> BTreeMap<ListenAddr, PeerStatus> {
        let mut peers = BTreeMap::<_, PeerStatus>::new();
        let known = lock(&self.known);
        let (set, overrides) = (self.peers.load(), lock(&self.overrides));
        for peer in set.all() {
            let status = peers.entry(peer.address.clone()).or_default();
            let in_use = set.single() && !peer.down || peer.is_in_use();
            status.in_use |= in_use && peer.is_up();
            status.is_known = true;
            status.more.get_or_insert_with(|| PeerSettings {
                usage: peer.usage(),
                weight: u32::try_from(peer.weight).unwrap_or(u32::MAX),
                set: overrides.of(&peer.address),
                is_failing: peer.state.health.is_failing(&peer.rules),
                standing: peer.state.checked.standing(),
            });
        }
        for (address, state) in &known.states {
            let Some(state) = state.upgrade() else { continue };
            let status = peers.entry(address.clone()).or_default();
            status.connections += u64::from(state.conns.load(Relaxed));
            status.tunnels += state.tunnels.value();
            status.failures += state.failures.value();
        }
        peers
    }

    /// Its peer at an address, the first one, and whether it is the only peer.
    pub(super) fn peer_at(&self, address: &ListenAddr) -> Option<(Arc<Peer>, bool)> {
        let peers = self.peers.load();
        let found = peers.all().find(|peer| peer.address == *address)?;
        Some((Arc::clone(found), peers.single()))
    }

    /// A peer at an address that is none of its own now, and that goes on with what is known of it.
    pub(super) fn former_peer(&self, address: &ListenAddr) -> Arc<Peer> {
        let mut known = lock(&self.known);
        let state = known.state_at(address).unwrap_or_else(|| {
            let state = Arc::new(State::new(&self.checks));
            known.states.push((address.clone(), Arc::downgrade(&state)));
            state
        });
        former(&self.name, address, state)
    }

    /// Those who wait for a peer, where they may.
    pub(super) fn queue(&self) -> Option<Arc<Queue>> {
        self.queue.as_ref().map(|(_, queue)| Arc::clone(queue))
    }

    /// Goes on with what the checks of the generation before have found: this one is in force now.
    pub(crate) fn begin_checks(&self) {
        // Held, so that no set is made meanwhile.
        let _known = lock(&self.known);
        self.peers.load().go_on_with_checks(&self.checks);
    }

    /// The peers that health checks are to ask.
    pub(crate) fn checked_peers(&self) -> Vec<Arc<Peer>> {
        self.peers.load().all().filter(|peer| peer.is_checked()).cloned().collect()
    }

    /// Tells when there are other peers.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Takes in the result of a check, which is one of those that the group was made with.
    pub(crate) fn check_result(
        &self,
        peer: &Peer,
        check: usize,
        passed: bool,
        now: Instant,
    ) -> CheckResult {
        let Some(noted) = peer.state.checked.note(&self.checks, check, passed) else {
            return CheckResult { turn: None, concerns_tunnels: false };
        };
        if noted.now == Standing::Up && noted.before != Standing::Up {
            peer.state.health.come_back(now);
            if self.recovery == Recovery::Eager {
                self.peers.load().hasten_others(peer, now);
            }
            if let Some((_, queue)) = &self.queue {
                queue.wake();
            }
        }
        // Also when it is well again: then those stay who are still there.
        let ends_some = self.checks.iter().any(|rules| rules.on_down != OnDown::Keep);
        let concerns_tunnels = noted.now != noted.before && ends_some;
        CheckResult { turn: noted.turn, concerns_tunnels }
    }

    /// The text of the `hash` directive, which whoever asks for a [`Selection`] has to fill in.
    pub fn hash_key(&self) -> Option<&Template> {
        match &self.balance {
            Balance::Hash { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Begins the choice for one request of a worker. `key` is [`Group::hash_key`] filled in,
    /// `client` the address for `ip_hash`; other methods look at neither.
    pub fn selection(&self, key: &[u8], client: Option<IpAddr>, worker: usize) -> Selection {
        let key = match (&self.balance, client) {
            // A whole /24 goes to one peer, as nginx has it.
            (Balance::IpHash, Some(IpAddr::V4(address))) => address.octets()[..3].into(),
            (Balance::IpHash, Some(IpAddr::V6(address))) => address.octets().into(),
            // What nginx takes for a client on a Unix socket.
            (Balance::IpHash, None) => [0, 0, 0].into(),
            _ => key.into(),
        };
        let progress = Progress::new(&Method::RoundRobin, key);
        Selection { set: None, progress, worker, wanted: None }
    }

    /// From here on the peer comes first to which a client belongs that sent `id`: the name of a
    /// peer, or with `sticky learn` of a session.
    pub fn want(&self, selection: &mut Selection, id: &[u8]) {
        selection.wanted = match self.sessions {
            Some(_) => Some(Wanted::Session(SessionKey::of(id))),
            None => PeerId::new(id).map(Wanted::Peer),
        };
    }

    fn wanted(&self, selection: &Selection, now: Instant) -> Option<PeerId> {
        match selection.wanted? {
            Wanted::Peer(id) => Some(id),
            Wanted::Session(key) => self.sessions.as_ref()?.find(key, now),
        }
    }

    /// How many peers a request may try: those that are not `down`.
    pub fn tries(&self) -> u32 {
        self.peers.load().tries
    }

    /// Chooses the first peer of a request; with `queue` it waits for one that has room, behind those
    /// who came before. Dropping the future gives its place up.
    pub async fn choose_or_wait(&self, selection: &mut Selection) -> Option<Lease> {
        let Some((limits, queue)) = &self.queue else {
            return self.choose(selection, Instant::now());
        };
        if queue.is_empty()
            && let Some(lease) = self.choose(selection, Instant::now())
        {
            return Some(lease);
        }
        let place = queue.enter(limits.requests)?;
        let waiting = async {
            loop {
                if place.is_first() {
                    // What was found out before, such as that only backup servers are left, may be
                    // no longer so.
                    selection.set = None;
                    if let Some(lease) = self.choose(selection, Instant::now()) {
                        return lease;
                    }
                }
                let _ = timeout(LOOK_AGAIN, place.turn()).await;
            }
        };
        timeout(limits.timeout, waiting).await.ok()
    }

    /// Chooses a peer and counts a connection for it, which the [`Lease`] gives back. `None`: no
    /// live upstreams.
    pub fn choose(&self, selection: &mut Selection, now: Instant) -> Option<Lease> {
        let peers = self.peers.load();
        if selection.set != Some(peers.number) {
            selection.set = Some(peers.number);
            // What it has tried are places in the old set, and mean other peers in this one.
            selection.progress.restart(&peers.method);
        }
        selection.progress.wanted = self.wanted(selection, now);
        let mut lease = self.choose_of(&peers, selection, now)?;
        lease.queue = self.queue();
        Some(lease)
    }

    /// The peer of `lease` has answered, so it is in use again at once; says whether it was not before.
    /// Others that have failed together with it are then asked at once, too.
    pub fn answered(&self, lease: &mut Lease, now: Instant) -> bool {
        let returns = lease.alive(now);
        if returns && self.recovery == Recovery::Eager {
            self.peers.load().hasten_others(lease.peer(), now);
        }
        returns
    }

    fn choose_of(&self, peers: &PeerSet, selection: &mut Selection, now: Instant) -> Option<Lease> {
        if let Some(lease) = peers.choose(selection, now) {
            return Some(lease);
        }
        if !selection.progress.backup && !peers.backup.peers.is_empty() {
            selection.progress.use_backup();
            if let Some(lease) = peers.choose(selection, now) {
                return Some(lease);
            }
        }
        match self.recovery {
            // Where all have failed there is nothing to lose, and one of them may be back.
            Recovery::Eager => peers.choose_anyway(&mut selection.progress, now),
            Recovery::Nginx => None,
        }
    }
}

impl PeerSet {
    /// The peers of `servers`, going on with what is `known` of them and with the round robin of
    /// the set `before`.
    fn new(
        group: &Arc<[u8]>,
        servers: &[UpstreamServer],
        (balance, recovery, checks): (&Balance, Recovery, &Checks),
        overrides: &Overrides,
        before: Option<&Self>,
        workers: usize,
        known: &mut Known,
    ) -> Self {
        let (mut primary, mut backup) = (Vec::new(), Vec::new());
        let mut states = known.take();
        for (line, server) in servers.iter().enumerate() {
            for address in &server.addresses {
                let state = states.get_mut(address).and_then(VecDeque::pop_front);
                let state = state.unwrap_or_else(|| Arc::new(State::new(checks)));
                known.states.push((address.clone(), Arc::downgrade(&state)));
                let server = overrides.apply(server, address);
                let peer = Arc::new(Peer::new(&server, recovery, line, (group, address), state));
                if server.backup { backup.push(peer) } else { primary.push(peer) }
            }
        }
        known.put_back(states);
        let usable = primary.iter().chain(&backup).filter(|peer| !peer.down).count();
        Self {
            number: before.map_or(0, |before| before.number + 1),
            servers: servers.into(),
            tries: u32::try_from(usable).unwrap_or(u32::MAX),
            method: method(balance, servers, &primary),
            primary: tier(primary, before.map(|before| &before.primary), workers),
            backup: tier(backup, before.map(|before| &before.backup), workers),
            seed: AtomicU64::new(RandomState::new().hash_one(0)),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.primary.peers.iter().chain(&self.backup.peers)
    }

    fn go_on_with_checks(&self, checks: &Checks) {
        for peer in self.all() {
            peer.state.checked.go_on(checks);
        }
    }

    /// Whether it is one peer, which is used whatever its failures and never tried twice.
    fn single(&self) -> bool {
        self.primary.peers.len() == 1 && self.backup.peers.is_empty()
    }

    fn choose(&self, selection: &mut Selection, now: Instant) -> Option<Lease> {
        let Selection { progress, worker, .. } = selection;
        let tier = if progress.backup { &self.backup } else { &self.primary };
        let view = View {
            peers: &tier.peers,
            total_weight: tier.total_weight,
            current_weights: tier.current_weights.of_worker(*worker),
            single: self.single(),
            now,
        };
        let mut random = || split_mix(&self.seed);
        let (index, taken) = progress.choose(&self.method, view, &mut random)?;
        let peer = Arc::clone(&tier.peers[index]);
        Some(Lease::new(peer, view.single, taken, self.method.timed(), now))
    }

    /// A peer is back. If it is the first, it is a sign that those are, too, that went away with it.
    fn hasten_others(&self, returned: &Peer, now: Instant) {
        let is_other = |peer: &&Arc<Peer>| !Arc::ptr_eq(&peer.state, &returned.state);
        let (primary, backup) = (&self.primary.peers, &self.backup.peers);
        let returned_backup = !backup.iter().all(|peer| is_other(&peer));
        // Backup servers in use say nothing of how the ordinary ones do. Of two that come back in two
        // workers at once, each must be the first.
        let in_use = (primary.iter())
            .chain(backup.iter().filter(|_| returned_backup))
            .filter(is_other)
            .any(|peer| {
                !peer.down && peer.is_up() && peer.state.health.in_steady_use(&peer.rules, now)
            });
        if !in_use {
            let others = primary.iter().chain(backup).filter(is_other);
            others.for_each(|peer| peer.state.health.hasten(&peer.rules, now));
        }
    }

    fn choose_anyway(&self, progress: &mut Progress, now: Instant) -> Option<Lease> {
        if self.single() {
            // It was tried, or is full.
            return None;
        }
        let (primary, backup) = (&self.primary.peers, &self.backup.peers);
        let (peer, taken) = progress.choose_anyway(primary, backup, now)?;
        Some(Lease::new(Arc::clone(peer), false, taken, self.method.timed(), now))
    }
}

/// How one of the ordinary peers is chosen; backup servers have no place on the ring.
fn method(balance: &Balance, servers: &[UpstreamServer], primary: &[Arc<Peer>]) -> Method {
    match balance {
        Balance::RoundRobin => Method::RoundRobin,
        Balance::LeastConn => Method::Least(Load::Connections),
        Balance::LeastTime { of, inflight } => {
            Method::Least(Load::Time { of: *of, inflight: *inflight })
        }
        Balance::IpHash => Method::IpHash,
        Balance::Hash { consistent: false, .. } => Method::Hash,
        Balance::Hash { consistent: true, .. } => {
            let points = |peer: &Arc<Peer>| (&*servers[peer.line].name, peer.line, peer.weight);
            Method::Consistent(Ring::new(primary.iter().map(points)))
        }
        Balance::Random { two } => Method::Random {
            two: two.map(|better| match better {
                BetterOfTwo::LeastConn => Load::Connections,
                BetterOfTwo::LeastTime(of) => Load::Time { of, inflight: false },
            }),
        },
    }
}

fn tier(peers: Vec<Arc<Peer>>, before: Option<&Tier>, workers: usize) -> Tier {
    let weights: Vec<_> =
        peers.iter().map(|peer| if peer.down { 0 } else { peer.weight * UNIT }).collect();
    let fresh = || CurrentWeights::new(&weights, workers);
    let carried_over = |before: &Tier| {
        let places = before.peers.iter().enumerate();
        // With another weight a peer begins anew here, too.
        let places: HashMap<_, _> =
            places.map(|(index, peer)| ((Arc::as_ptr(&peer.state), peer.weight), index)).collect();
        let origin =
            |peer: &Arc<Peer>| places.get(&(Arc::as_ptr(&peer.state), peer.weight)).copied();
        let origin: Vec<_> = peers.iter().map(origin).collect();
        let known = origin.iter().any(Option::is_some);
        known.then(|| before.current_weights.carried_over(&origin, workers))
    };
    let current_weights = before.and_then(carried_over).unwrap_or_else(fresh);
    let total_weight = peers.iter().map(|peer| peer.weight).sum();
    Tier { peers, total_weight, current_weights }
}

impl Known {
    /// What is known of a peer at an address.
    fn state_at(&self, address: &ListenAddr) -> Option<Arc<State>> {
        let mut states = self.states.iter().filter(|(known, _)| known == address);
        states.find_map(|(_, state)| state.upgrade())
    }

    /// Takes out what is still in use, by address; those of the newest set come first.
    fn take(&mut self) -> HashMap<ListenAddr, VecDeque<Arc<State>>> {
        let mut states = HashMap::<_, VecDeque<_>>::new();
        for (address, state) in self.states.drain(..) {
            if let Some(state) = state.upgrade() {
                states.entry(address).or_default().push_back(state);
            }
        }
        states
    }

    /// Remembers those that no peer of the new set has gone on with; their leases still count.
    fn put_back(&mut self, states: HashMap<ListenAddr, VecDeque<Arc<State>>>) {
        for (address, states) in states {
            let states = states.iter().map(|state| (address.clone(), Arc::downgrade(state)));
            self.states.extend(states);
        }
    }
}

/// The groups of a configuration, by [`UpstreamId`](wssgate_config::model::UpstreamId), for so many
/// workers; `previous` are those of the generation before.
pub fn groups(models: &[Upstream], previous: &[Arc<Group>], workers: usize) -> Vec<Arc<Group>> {
    // Of two with one name it is the first that goes on.
    let previous: HashMap<&[u8], &Group> =
        previous.iter().rev().map(|group| (&*group.name, &**group)).collect();
    let build = |model: &Upstream| {
        Arc::new(Group::new(model, previous.get(&*model.name).copied(), workers))
    };
    models.iter().map(build).collect()
}

/// What one request remembers from choice to choice.
#[derive(Debug)]
pub struct Selection {
    /// The set that the progress belongs to.
    set: Option<u64>,
    progress: Progress,
    worker: usize,
    wanted: Option<Wanted>,
}

/// What is known of the peer to which a client belongs.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Peer(PeerId),
    Session(SessionKey),
}

/// A poisoned lock only means that some thread panicked; what it holds is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// SplitMix64: spreads load, protects nothing.
fn split_mix(state: &AtomicU64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = state.fetch_add(STEP, Relaxed).wrapping_add(STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
