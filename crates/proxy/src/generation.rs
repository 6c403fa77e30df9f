//! All that one configuration builds; immutable, replaced whole.
//!
//! A reload makes a new generation beside the old one and swaps a pointer. What began with the old
//! one keeps it by an `Arc`, so it is gone when its last request and tunnel are.

mod credentials;
mod descriptors;
pub(crate) mod doors;
pub(crate) mod draining;
pub(crate) mod homes;
mod places;
mod policies;
mod undone;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use wssgate_config::Config;
use wssgate_config::model::{
    Content, Core, EventMethod, Http, ListenAddr, Location, LocationId, LogLevel, LogTarget,
    ProxyPass,
};
use wssgate_syntax::{Diagnostic, Report};
use wssgate_sys::privileges::{self, User};
use wssgate_ws::conversation::Policy;

use crate::acme::{Acme, Wanted};
use crate::auth::Passwords;
use crate::auth::keys::KeySets;
use crate::clock;
use crate::errno_text;
use crate::generation::doors::Doors;
use crate::generation::draining::Draining;
use crate::generation::homes::Homes;
use crate::limit::{self, Turns};
use crate::log::{LogFiles, Logs, NotifyOnDrop, OpenError};
use crate::metrics::{Registry, ServerCounters, ServerSeries, Tally};
use crate::peers::{Group, Hosts, follow, groups};
use crate::resolve::{Resolver, ResolverThread};
use crate::tls::certificates::Caches;
use crate::tls::client::UpstreamTls;
use crate::tls::server::{Acceptor, Lasting};
use crate::tls::watch::Watcher;

pub(crate) use places::Place;

/// What generations are built with and outlives them.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The open log files.
    pub files: Arc<LogFiles>,
    /// Where errors go when the configuration does not say: `-e`.
    pub error_log: LogTarget,
    /// TLS session caches, ticket keys, and what CAs have said of certificates.
    pub tls: Lasting,
    /// What `auth_basic` has verified, and who fails.
    pub passwords: Arc<Passwords>,
    /// Who looks names up.
    pub resolver_thread: Arc<ResolverThread>,
    /// Certificates by ACME.
    pub acme: Arc<Acme>,
    /// Who looks at the files of certificates.
    pub watcher: Arc<Watcher>,
    /// What is counted by what configurations name.
    pub metrics: Arc<Registry>,
}

impl Environment {
    /// Nothing opened yet; errors go to `error_log` unless the configuration says otherwise.
    pub fn new(error_log: LogTarget) -> io::Result<Self> {
        let files = Arc::new(LogFiles::new()?);
        let (tls, passwords) = (Lasting::default(), Arc::default());
        let (resolver_thread, acme, watcher) = (Arc::default(), Arc::default(), Arc::default());
        let metrics = Arc::default();
        Ok(Self { files, error_log, tls, passwords, resolver_thread, acme, watcher, metrics })
    }
}

/// Everything that one configuration builds, shared by all workers.
#[derive(Debug)]
pub struct Generation {
    /// Counted from 1; the next one has the next number.
    pub number: u64,
    /// What was configured.
    pub config: Config,
    /// The opened logs.
    pub logs: Logs,
    /// TLS towards clients.
    pub tls: Acceptor,
    /// TLS towards upstreams, by [`LocationId`]; `None` where nothing is passed to `https://`.
    ///
    /// [`LocationId`]: wssgate_config::model::LocationId
    pub upstream_tls: Vec<Option<UpstreamTls>>,
    /// What holds in WebSockets, by `LocationId`; `None` where nobody looks at their frames.
    policies: Vec<Option<Arc<Policy>>>,
    /// Where tunnels are, by `LocationId`.
    places: Vec<Arc<Place>>,
    /// What other processes call its locations; made when one is there.
    homes: OnceLock<Homes>,
    /// Where operators let no new WebSockets in.
    pub(crate) doors: Doors,
    /// Whom to become when started as root.
    pub owner: Option<User>,
    /// The groups of peers, by `UpstreamId`; what they know of peers is inherited.
    pub upstreams: Vec<Arc<Group>>,
    /// What `auth_basic` has verified; all generations share it.
    pub passwords: Arc<Passwords>,
    /// The keys of `auth_jwt`. A new generation asks for its own: their sources may be others.
    pub keys: Arc<KeySets>,
    /// Who looks names up, by `ResolverId`; what they know of names is inherited.
    pub resolvers: Vec<Arc<Resolver>>,
    /// What is wanted by ACME.
    pub(crate) acme: Wanted,
    /// The hosts that URLs of variables name; all generations share them.
    pub hosts: Arc<Hosts>,
    /// The zones of `limit_req` and `limit_conn`; their counts are inherited.
    pub(crate) limit_zones: limit::Zones,
    /// The turns of handshakes, by [`HandshakeRateId`](wssgate_config::model::HandshakeRateId); the next generation
    /// takes them over in the order of their lines.
    pub(crate) turns: Vec<Arc<Turns>>,
    /// How many workers there are; a reload leaves them alone.
    pub(crate) workers: usize,
    /// What is counted of its servers, by `ServerId`; those of one name share it with each other and with other
    /// generations.
    pub(crate) server_series: Vec<Arc<ServerSeries>>,
    /// Its open tunnels.
    pub(crate) tunnels: Arc<Tally>,
    sockets: HashMap<ListenAddr, usize>,
    life: ArcSwap<Life>,
    /// Tells the main thread that the last one who held this generation is gone.
    _ended: NotifyOnDrop,
}

impl Generation {
    /// Tells in the log what goes on without io_uring: a warning if it was asked for by name.
    pub(crate) fn on_no_io_uring(&self, what: &str, error: &io::Error) {
        let level = match self.config.core.event_method {
            EventMethod::IoUring => LogLevel::Warn,
            EventMethod::Best | EventMethod::Epoll => LogLevel::Info,
        };
        self.logs.main().write(level, None, format_args!("{what} ({})", errno_text(error)));
    }

    /// Builds what `config` describes, with what may be inherited from `previous`.
    ///
    /// The report of a success holds warnings. Nothing is bound or spawned; logs are opened, as
    /// `-t` wants to know whether they can be.
    pub fn build(
        config: Config,
        previous: Option<&Self>,
        environment: &Environment,
    ) -> Result<(Self, Report), Report> {
        let mut report = Report::default();
        let number = previous.map_or(1, |previous| previous.number + 1);
        // What else is wrong must be known in the same run, so a failure waits.
        let logs = Logs::open(&config, &environment.files, &environment.error_log)
            .map_err(|error| report.push(unopened_log(&config, &error)));
        let sockets = config.http.iter().flat_map(|http| &http.sockets);
        let sockets =
            sockets.enumerate().map(|(at, socket)| (socket.address.clone(), at)).collect();
        let owner = owner(&config.core, previous, &mut report);
        let models = config.http.as_ref().map_or(&[][..], |http| &http.resolvers);
        let inherited = previous.map_or(&[][..], |previous| &previous.resolvers);
        let resolvers = Resolver::all(models, inherited, &environment.resolver_thread);
        let acme = config
            .http
            .as_ref()
            .map(|http| environment.acme.prepare(http, &resolvers, owner.as_ref(), &mut report));
        let acme = acme.unwrap_or_default();
        let (tls, upstream_tls) = tls(&config, &environment.tls, &acme, &mut report);
        let keys = Arc::<KeySets>::default();
        credentials::check(&config, &keys, &mut report);
        body_directories(&config, owner.as_ref(), &mut report);
        // Threads and sockets of the workers stay through a reload, so their number does.
        let workers = previous.map_or_else(|| workers(&config.core), |previous| previous.workers);
        if previous.is_none() {
            // The limit stays through a reload as well.
            let resolves = config.http.as_ref().is_some_and(|http| !http.resolvers.is_empty());
            descriptors::check(&config.core, workers, resolves, &mut report);
        }
        if let Some(http) = &config.http {
            let connections = config.core.worker_connections.saturating_mul(workers);
            crate::peers::ports::check(http, connections, &mut report);
        }
        let inherited = previous.map_or(&[][..], |previous| &previous.upstreams);
        let upstreams =
            config.http.as_ref().map(|http| groups(&http.upstreams, inherited, workers));
        let upstreams = upstreams.unwrap_or_default();
        let hosts = previous.map(|previous| Arc::clone(&previous.hosts)).unwrap_or_default();
        let before = previous.map(|previous| (&previous.config, &previous.limit_zones));
        let limit_zones = limit::Zones::build(&config, before, &mut report);
        let rates = config.http.as_ref().map_or(0, |http| http.handshake_rates.len());
        let inherited = previous.map_or(&[][..], |previous| &previous.turns);
        let turns = turns(rates, inherited);
        let ended = environment.files.notifier().notify_on_drop();
        let logs = match logs {
            Ok(logs) if !report.has_errors() => logs,
            _ => return Err(report),
        };
        let life = ArcSwap::default();
        let (policies, places) = (policies::build(&config), places::build(&config));
        let servers = config.http.iter().flat_map(|http| &http.servers);
        let server_series =
            environment.metrics.servers(servers.map(|server| &*server.name), workers);
        let tunnels = environment.metrics.generation(number);
        let generation = Self {
            number,
            config,
            logs,
            tls,
            policies,
            doors: Doors::new(places.len()),
            places,
            homes: OnceLock::new(),
            owner,
            upstreams,
            resolvers,
            acme,
            hosts,
            upstream_tls,
            passwords: Arc::clone(&environment.passwords),
            keys,
            limit_zones,
            turns,
            workers,
            server_series,
            tunnels,
            sockets,
            life,
            _ended: ended,
        };
        Ok((generation, report))
    }

    /// The `http` block. Only those ask who serve a connection, and without the block nothing
    /// listens.
    pub fn http(&self) -> &Http {
        self.config.http.as_ref().expect("connections come only from an http block")
    }

    /// What holds in the WebSockets of a location, if anybody looks at their frames.
    pub(crate) fn policy(&self, location: LocationId) -> Option<&Arc<Policy>> {
        self.policies.get(location.0)?.as_ref()
    }

    /// Where tunnels can be, by `LocationId`.
    pub(crate) fn places(&self) -> &[Arc<Place>] {
        &self.places
    }

    /// What the tunnels of a location have in common.
    pub(crate) fn place(&self, location: LocationId) -> &Arc<Place> {
        &self.places[location.0]
    }

    /// What other processes call its locations.
    pub(crate) fn homes(&self) -> &Homes {
        self.homes.get_or_init(|| self.config.http.as_ref().map(Homes::new).unwrap_or_default())
    }

    /// What is counted of the server of a location.
    pub(crate) fn series(&self, location: LocationId) -> &Arc<ServerSeries> {
        &self.server_series[self.http().server_of(location).0]
    }

    /// What a worker counts of the server of a location.
    pub(crate) fn server_counters(&self, location: LocationId, worker: usize) -> &ServerCounters {
        self.series(location).worker(worker)
    }

    /// Begins to look up the names of its upstreams and to ask about its certificates, instead of those
    /// of the generation before.
    pub(crate) fn follow_names(&self, thread: &Arc<ResolverThread>) {
        thread.log_to(self.logs.main());
        let models = self.config.http.iter().flat_map(|http| &http.upstreams);
        let groups = models.zip(&self.upstreams);
        let jobs =
            groups.filter_map(|(model, group)| follow(model, group, &self.resolvers, thread));
        let stapling = self.config.http.as_ref();
        let stapling = stapling.and_then(|http| self.tls.stapling(http, &self.resolvers, thread));
        thread.instead_do(jobs.chain(stapling).collect());
    }

    /// The index in [`Http::sockets`] of an address that this generation listens on.
    pub fn socket_at(&self, address: &ListenAddr) -> Option<usize> {
        self.sockets.get(address).copied()
    }

    /// Whether root has started this process, which is, or is about to be, another user's: what others must not do to
    /// root's processes they must not do to this one.
    pub fn is_roots(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.uid != 0)
    }

    /// How long this generation may live; for those who wait without holding it.
    pub fn life(&self) -> Life {
        Life::clone(&self.life.load())
    }

    /// Begins to live anew: what begins from now on does not end with what has begun before.
    pub(crate) fn revive(&self) {
        self.life.store(Arc::default());
    }
}

/// The turns of so many lines. Who is before a reload still counts behind it, as the storm goes on.
fn turns(count: usize, inherited: &[Arc<Turns>]) -> Vec<Arc<Turns>> {
    let new = std::iter::repeat_with(|| Turns::new(Instant::now()));
    inherited.iter().cloned().chain(new).take(count).collect()
}

/// A log file that does not open, where it is named, and what may help.
fn unopened_log(config: &Config, error: &OpenError) -> Diagnostic {
    let mut problem = Diagnostic::error(error.to_string());
    // Not of `-e`.
    if let Some(&span) = config.log_files.get(&error.path) {
        problem = problem.at(span, "");
    }
    let missing = error.path.parent().filter(|directory| !directory.exists());
    problem.maybe_help(
        missing.map(|directory| format!("the directory {} does not exist", directory.display())),
    )
}

/// One worker per core unless the configuration says how many.
fn workers(core: &Core) -> usize {
    core.worker_processes.unwrap_or_else(cores).max(1)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The `worker_connections` that a limit of open files is enough for, with one worker per core.
pub fn fitting_connections(descriptors: u64) -> u64 {
    descriptors::fitting(descriptors, cores() as u64)
}

/// Certificates and settings of TLS, towards clients and upstreams.
fn tls(
    config: &Config,
    lasting: &Lasting,
    acme: &Wanted,
    report: &mut Report,
) -> (Acceptor, Vec<Option<UpstreamTls>>) {
    let Some(http) = &config.http else { return Default::default() };
    let now = clock::unix_seconds();
    // It has none where an issuer could not be read, which was reported.
    let obtained = acme.slots();
    let built = obtained.len() == http.acme.certificates.len();
    let mut caches = Caches::default();
    let acceptor = match built {
        true => {
            let challenges = acme.challenges().cloned();
            Acceptor::build(http, lasting, &obtained, challenges, &mut caches, now, report)
        }
        false => Acceptor::default(),
    };
    let mut upstream = |location: &Location| {
        // Also where nobody needs them: whoever writes to a pipe waits for a reader.
        let _ = caches.passphrases(location.proxy.tls.password_file.as_ref(), report);
        let wanted = match &location.content {
            Content::Proxy(ProxyPass::Fixed(fixed)) => fixed.tls,
            // Whether it is `https://` shows only with a request, and a file that cannot be read
            // should not.
            Content::Proxy(ProxyPass::Variable(_)) => true,
            _ => false,
        };
        wanted
            .then(|| UpstreamTls::build(&location.proxy.tls, location.span, &mut caches, report))
            .flatten()
    };
    let upstream_tls = http.locations.iter().map(&mut upstream).collect();
    (acceptor, upstream_tls)
}

/// The user and group that a process of root becomes, nobody by default as with nginx.
pub fn owner(core: &Core, previous: Option<&Generation>, report: &mut Report) -> Option<User> {
    // Root was given up long ago then, and cannot be given up again.
    if let Some(owner) = previous.and_then(|previous| previous.owner.clone()) {
        return Some(owner);
    }
    // Whoever was started by a process of root that had become somebody does for him what root would do, whatever the
    // configuration says now: somebody else it cannot become, and what is root's must not become his.
    if privileges::keeps_some().unwrap_or(false) {
        let own = privileges::own_user();
        if !names(core, &own) {
            let text = format!(
                "the process stays that of user \"{}\": another \"user\" takes effect after a restart",
                own.name
            );
            let warning = Diagnostic::warning(text);
            report.push(match &core.user {
                Some(user) => warning.at(user.span, ""),
                None => warning,
            });
        }
        return Some(own);
    }
    if !privileges::is_root() {
        let is_done =
            |name| matches!(privileges::user(name), Ok(Some(user)) if privileges::runs_as(&user));
        if let Some(user) = core.user.as_ref().filter(|user| !is_done(&user.value.name)) {
            let text = "the \"user\" directive makes sense only if the master process runs with \
                        super-user privileges, ignored";
            report.push(Diagnostic::warning(text).at(user.span, ""));
        }
        return None;
    }
    let Some(wanted) = &core.user else {
        return privileges::user(NOBODY).ok().flatten();
    };
    let mut refuse = |call: &str, name: &str, error: io::Result<()>| {
        let reason = error.err().map(|error| format!(" ({})", crate::errno_text(&error)));
        let text = format!("{call}(\"{name}\") failed{}", reason.unwrap_or_default());
        report.push(Diagnostic::error(text).at(wanted.span, "unknown on this system"));
    };
    let names = &wanted.value;
    let user = match privileges::user(&names.name) {
        Ok(Some(user)) => Some(user),
        other => {
            refuse("getpwnam", &names.name, other.map(drop));
            None
        }
    };
    match privileges::group(&names.group) {
        Ok(Some(gid)) => Some(User { gid, ..user? }),
        // Without a word of its own the group is named like the user: that is told once.
        _ if user.is_none() && names.group == names.name => None,
        other => {
            refuse("getgrnam", &names.group, other.map(drop));
            None
        }
    }
}

/// Whether that is the user, with the group, that a process of root would become.
fn names(core: &Core, own: &User) -> bool {
    let user = |name: &str| privileges::user(name).ok().flatten();
    match &core.user {
        None => user(NOBODY).is_some_and(|user| (user.uid, user.gid) == (own.uid, own.gid)),
        Some(wanted) => {
            let group = privileges::group(&wanted.value.group).ok().flatten();
            user(&wanted.value.name).is_some_and(|user| user.uid == own.uid)
                && group == Some(own.gid)
        }
    }
}

/// Makes the directories for long request bodies while we may, for the user who will write there
/// and nobody else. One that is missing only matters to a request that needs it.
fn body_directories(config: &Config, owner: Option<&User>, report: &mut Report) {
    let locations = config.http.iter().flat_map(|http| &http.locations);
    let paths: BTreeSet<_> =
        locations.map(|location| &location.settings.client_body_temp_path).collect();
    for path in paths {
        let made = match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        let owned = made.and_then(|()| match owner {
            Some(owner) if fs::metadata(path)?.uid() != owner.uid => {
                chown(path, Some(owner.uid), None)
            }
            _ => Ok(()),
        });
        if let Err(error) = owned {
            let (path, error) = (path.display(), crate::errno_text(&error));
            report.push(Diagnostic::information(format!("mkdir() \"{path}\" failed ({error})")));
        }
    }
}

/// Whom nginx becomes when `user` is not given.
const NOBODY: &str = "nobody";

/// Tells when a generation must end: `worker_shutdown_timeout` after it was replaced or the drain
/// began, or at once in a fast stop. Cheap to clone and to wait for.
#[derive(Clone, Debug, Default)]
pub struct Life(Arc<LifeState>);

#[derive(Debug, Default)]
struct LifeState {
    expired: watch::Sender<bool>,
    /// How its WebSockets are closed before that, once they are.
    draining: ArcSwapOption<Draining>,
}

impl Life {
    /// Ends what still lives of the generation.
    pub(crate) fn expire(&self) {
        self.0.expired.send_replace(true);
    }

    /// Resolves once everything of this generation must close.
    pub async fn expired(&self) {
        // The sender is in `self`, so it outlives the wait.
        let _ = self.0.expired.subscribe().wait_for(|expired| *expired).await;
    }

    /// The same, for who keeps the answer longer than this.
    pub(crate) async fn end(self) {
        self.expired().await;
    }

    /// The drain of its WebSockets that has begun, the last one.
    pub(crate) fn draining(&self) -> Option<Arc<Draining>> {
        self.0.draining.load_full()
    }

    /// A drain of its WebSockets begins.
    pub(crate) fn drain(&self, draining: Arc<Draining>) {
        self.0.draining.store(Some(draining));
    }

    /// Whether both are the life of one generation.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether everything of this generation must close.
    pub fn has_expired(&self) -> bool {
        *self.0.expired.borrow()
    }
}
