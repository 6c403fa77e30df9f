//! Groups of peers: `upstream` blocks, and one group for each other host of a `proxy_pass`.

pub(crate) mod balance;
pub(crate) mod checks;
pub(crate) mod server;
pub(crate) mod sticky;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, printable};

use crate::directive::Arity::{AtLeast, Between, Exactly};
use crate::directive::{AnyDirective, Braces, Context, Directive, H, U};
use crate::dns::{RESOLVER, RESOLVER_TIMEOUT};
use crate::level::{Level, walk};
use crate::name_servers::ResolverId;
use crate::read::{Reading, Reads, duration, invalid_parameter, number, parameter, text};
use crate::scope::{Scope, default_directives};
use crate::upstream::balance::{Balance, balance};
use crate::upstream::checks::CheckRules;
use crate::upstream::server::{UpstreamServer, server};
use crate::upstream::sticky::{STICKY, Sticky, StickyLearn};
use crate::value::{self, ListenAddr, Located, MIN_ZONE_SIZE, UpstreamUrl};
use crate::websocket::{Recovery, WEBSOCKET_RECOVERY};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &KEEPALIVE,
    &KEEPALIVE_REQUESTS,
    &KEEPALIVE_TIME,
    &KEEPALIVE_TIMEOUT,
    &QUEUE,
    &SERVER,
    &STICKY,
    &UPSTREAM,
    &ZONE,
];

/// `keepalive`
pub(crate) static KEEPALIVE: Directive<IdleConnections> = Directive {
    name: "keepalive",
    contexts: U,
    arity: Between(1, 2),
    default: "32 local",
    doc: "Sets how many idle connections to upstream servers each worker keeps open; 0 disables \
          keep-alive. With `local`, requests of one location do not use connections of another.",
    ..Directive::once(keepalive)
};

/// `keepalive_requests`
pub(crate) static KEEPALIVE_REQUESTS: Directive<u64> = Directive {
    name: "keepalive_requests",
    contexts: U,
    arity: Exactly(1),
    default: "1000",
    doc: "Sets the maximum number of requests on one upstream connection.",
    ..Directive::once(number)
};

/// `keepalive_time`
pub(crate) static KEEPALIVE_TIME: Directive<Duration> = Directive {
    name: "keepalive_time",
    contexts: U,
    arity: Exactly(1),
    default: "1h",
    doc: "Sets how long requests are sent on one upstream connection.",
    ..Directive::once(duration)
};

/// `keepalive_timeout`
pub(crate) static KEEPALIVE_TIMEOUT: Directive<Duration> = Directive {
    name: "keepalive_timeout",
    contexts: U,
    arity: Exactly(1),
    default: "60s",
    doc: "Sets how long an idle upstream connection stays open.",
    ..Directive::once(duration)
};

/// `queue`
pub(crate) static QUEUE: Directive<Queue> = Directive {
    name: "queue",
    contexts: U,
    arity: Between(1, 2),
    doc: "Sets how many requests may wait, in order of arrival, while no server of the group has \
          capacity for them, and with `timeout=` for how long (60s); requests that cannot be \
          queued get a 502.",
    ..Directive::once(queue)
};

/// `server`
pub(crate) static SERVER: Directive<UpstreamServer> = Directive {
    name: "server",
    contexts: U,
    arity: AtLeast(1),
    doc: "Adds a server to the group; a host name adds all addresses that it resolves to.",
    parameters: server::PARAMETERS,
    example: server::EXAMPLE,
    ..Directive::repeated(server)
};

/// `upstream`
pub(crate) static UPSTREAM: Directive<Box<[u8]>> = Directive {
    name: "upstream",
    contexts: H,
    arity: Exactly(1),
    doc: "Defines a group of servers.",
    braces: Braces::Level(Context::Upstream),
    ..Directive::repeated(text)
};

/// `zone`
pub(crate) static ZONE: Directive<Zone> = Directive {
    name: "zone",
    contexts: U,
    arity: Between(1, 2),
    without_effect: "workers always share the state of the servers; each worker has its own round-robin order",
    ..Directive::once(zone)
};

/// Index into [`Http::upstreams`](crate::model::Http::upstreams).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub usize);

/// A group of peers.
#[derive(Debug)]
pub struct Upstream {
    /// Name of the `upstream` block, or `host:port` of an implicit group.
    pub name: Box<[u8]>,
    /// Whether it is an `upstream` block.
    pub explicit: bool,
    /// `server` lines in order.
    pub servers: Vec<UpstreamServer>,
    /// How a peer is chosen.
    pub balance: Balance,
    /// `sticky`: how clients are kept at one server.
    pub sticky: Option<Sticky>,
    /// `websocket_recovery`.
    pub recovery: Recovery,
    /// `resolver`, for names that are looked up while the server runs; never none when there is one.
    pub resolver: Option<ResolverId>,
    /// `resolver_timeout`.
    pub resolver_timeout: Duration,
    /// The rules of its `health_check` lines, in the order of [`Server::health_checks`](crate::model::Server::health_checks).
    pub checks: Vec<CheckRules>,
    /// `queue`: requests that may wait for a server.
    pub queue: Option<Queue>,
    /// `keepalive`: idle connections kept per worker; 0 turns it off. 32 for explicit groups.
    pub keepalive: usize,
    /// Whether each location has connections of its own.
    pub keepalive_local: bool,
    /// `keepalive_requests` per upstream connection.
    pub keepalive_requests: u64,
    /// `keepalive_time` of an upstream connection.
    pub keepalive_time: Duration,
    /// `keepalive_timeout` of an idle upstream connection.
    pub keepalive_timeout: Duration,
}

impl Upstream {
    /// The group of a host without an `upstream` block: one server, with the defaults of its parameters.
    pub fn implicit(name: Box<[u8]>, addresses: Vec<ListenAddr>) -> Self {
        Self {
            name: name.clone(),
            explicit: false,
            servers: vec![UpstreamServer::new(name, addresses)],
            balance: Balance::RoundRobin,
            sticky: None,
            recovery: Recovery::Eager,
            checks: Vec::new(),
            queue: None,
            resolver: None,
            resolver_timeout: Duration::ZERO,
            // nginx keeps idle connections of `upstream` blocks only, so the bounds of keeping them bound nothing.
            keepalive: 0,
            keepalive_local: false,
            keepalive_requests: 1000,
            keepalive_time: Duration::from_secs(60 * 60),
            keepalive_timeout: Duration::from_secs(60),
        }
    }
}

/// `queue N [timeout=TIME]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many requests may wait.
    pub requests: usize,
    /// How long each of them does.
    pub timeout: Duration,
}

fn queue(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Queue> {
    let word = &directive.args[0];
    let requests = value::number(&word.value).filter(|&requests| requests > 0);
    let requests = requests.ok_or_else(|| {
        Diagnostic::error(format!("invalid value \"{word}\" in \"queue\" directive"))
            .at(word.span, "")
    })?;
    let timeout = match directive.args.get(1) {
        None => DEFAULT_QUEUE_TIMEOUT,
        Some(word) => parameter(word, "timeout=")
            .and_then(value::duration)
            .ok_or_else(|| invalid_parameter(word))?,
    };
    Ok(Queue { requests: usize::try_from(requests).unwrap_or(usize::MAX), timeout })
}

const DEFAULT_QUEUE_TIMEOUT: Duration = Duration::from_secs(60);

/// `keepalive N [local]`.
#[derive(Clone, Copy)]
pub(crate) struct IdleConnections {
    count: usize,
    local: bool,
}

fn keepalive(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<IdleConnections> {
    let word = &directive.args[0];
    let count = value::number(&word.value).ok_or_else(|| {
        Diagnostic::error(format!("invalid value \"{word}\" in \"keepalive\" directive"))
            .at(word.span, "")
    })?;
    let local = match directive.args.get(1) {
        None => false,
        Some(word) if word.is("local") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    Ok(IdleConnections { count: usize::try_from(count).unwrap_or(usize::MAX), local })
}

/// `zone NAME [SIZE]`.
#[derive(Clone)]
pub(crate) struct Zone {
    pub(crate) name: Located<Box<[u8]>>,
    /// Whether a size was written; one of the groups that share a zone must give it.
    pub(crate) sized: bool,
}

fn zone(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Zone> {
    let name = &directive.args[0];
    if name.value.is_empty() {
        return Err(Diagnostic::error(format!("invalid zone name \"{name}\"")).at(name.span, ""));
    }
    let size = directive.args.get(1);
    if let Some(word) = size {
        let invalid =
            || Diagnostic::error(format!("invalid zone size \"{word}\"")).at(word.span, "");
        let size = value::size(&word.value).filter(|&size| size > 0).ok_or_else(invalid)?;
        if size < MIN_ZONE_SIZE {
            let problem = Diagnostic::error(format!("zone \"{name}\" is too small"));
            return Err(problem.at(word.span, ""));
        }
    }
    let name = Located { value: name.value.clone(), span: name.span };
    Ok(Zone { name, sized: size.is_some() })
}

/// The groups of all peers that are known so far.
pub(crate) struct Groups {
    groups: Vec<Upstream>,
    /// `websocket_recovery` of those without a block.
    recovery: Recovery,
    /// Those of `upstream` blocks by name, in lower case.
    explicit: HashMap<Vec<u8>, UpstreamId>,
    /// Those without a block, likewise.
    implicit: HashMap<Vec<u8>, UpstreamId>,
}

impl Groups {
    /// Takes in every `upstream` block; they may be used before they stand.
    pub(crate) fn new(reading: &mut Reading<'_>, http: &Level<'_>) -> Self {
        let defaults = default_directives(reading.registry, Context::Upstream, reading.nowhere);
        let defaults = walk(reading, &defaults, Context::Upstream, true);
        let outermost = Scope::outermost(&defaults);
        let scope = outermost.inner(http);
        let recovery = scope.get(&WEBSOCKET_RECOVERY);
        let (explicit, implicit) = (HashMap::new(), HashMap::new());
        let mut groups = Self { groups: Vec::new(), recovery, explicit, implicit };
        for line in http.lines(&UPSTREAM) {
            let (Some(name), Some(level)) = (line.value.cloned(), line.level) else {
                continue;
            };
            let span = line.directive.head();
            let key = name.to_ascii_lowercase();
            if groups.explicit.contains_key(&key) {
                reading.error(format!("duplicate upstream \"{}\"", printable(&name)), span);
                continue;
            }
            let scope = scope.inner(level);
            let upstream = upstream(reading, name, level, &scope, span);
            check_resolver(reading, &upstream, &scope, span);
            groups.explicit.insert(key, UpstreamId(groups.groups.len()));
            groups.groups.push(upstream);
        }
        let zones = zones(http);
        check_zones(reading, &zones);
        groups.check_sessions(reading, &zones);
        groups
    }

    /// A table of sessions belongs to one group: what it remembers are servers of that one.
    fn check_sessions(&self, reading: &mut Reading<'_>, zones: &[Zone]) {
        let mut owners: Vec<(&StickyLearn, &Upstream)> = Vec::new();
        for group in &self.groups {
            let Some(Sticky::Learn(learn)) = &group.sticky else { continue };
            let name = printable(&learn.zone.value);
            if let Some((_, owner)) =
                owners.iter().find(|(other, _)| other.zone.value == learn.zone.value)
            {
                let owner = printable(&owner.name);
                let message =
                    format!("sticky zone \"{name}\" is already used in upstream \"{owner}\"");
                reading.error(message, learn.zone.span);
            } else if zones.iter().any(|zone| zone.name.value == learn.zone.value) {
                let message = format!(
                    "the shared memory zone \"{name}\" is already declared for a different use"
                );
                reading.error(message, learn.zone.span);
            }
            owners.push((learn, group));
        }
    }

    /// `websocket_recovery` of groups without a block.
    pub(crate) fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// All groups, by number.
    pub(crate) fn into_upstreams(self) -> Vec<Upstream> {
        self.groups
    }

    /// Takes in the rules of a check of a group.
    pub(crate) fn add_check(&mut self, of: UpstreamId, rules: CheckRules) {
        self.groups[of.0].checks.push(rules);
    }

    /// The group for the host of a URL.
    pub(crate) fn group_for(
        &mut self,
        reading: &mut Reading<'_>,
        url: &UpstreamUrl,
        span: Span,
    ) -> Option<UpstreamId> {
        let endpoint = &url.endpoint;
        if let Some(id) = self.explicit.get(&endpoint.host_text.to_ascii_lowercase()) {
            if endpoint.port.is_some() {
                let name = printable(&endpoint.host_text);
                reading
                    .error(format!("upstream \"{name}\" may not have port {}", url.port()), span);
                return None;
            }
            return Some(*id);
        }
        let name = url.group_name();
        let key = name.to_ascii_lowercase();
        if let Some(id) = self.implicit.get(&key) {
            return Some(*id);
        }
        let id = self.add_implicit(reading, name.into(), url, span)?;
        self.implicit.insert(key, id);
        Some(id)
    }

    fn add_implicit(
        &mut self,
        reading: &mut Reading<'_>,
        name: Box<[u8]>,
        url: &UpstreamUrl,
        span: Span,
    ) -> Option<UpstreamId> {
        let addresses = match reading.addresses(&url.endpoint, url.port()) {
            Ok(addresses) => addresses,
            Err(error) => {
                let host = printable(&url.endpoint.host_text);
                let problem = Diagnostic::error(format!("host not found in upstream \"{host}\""));
                let help = "check the spelling, or define an `upstream` block of this name";
                let problem = problem.at(span, "").note(error.to_string()).help(help);
                reading.report.push(problem);
                return None;
            }
        };
        let recovery = self.recovery;
        self.groups.push(Upstream { recovery, ..Upstream::implicit(name, addresses) });
        Some(UpstreamId(self.groups.len() - 1))
    }
}

/// The `zone` lines of all groups.
fn zones(http: &Level<'_>) -> Vec<Zone> {
    let levels = http.lines(&UPSTREAM).filter_map(|line| line.level);
    levels.flat_map(|level| level.values(&ZONE)).collect()
}

/// Groups may share a zone, but one must say how large it is.
fn check_zones(reading: &mut Reading<'_>, zones: &[Zone]) {
    let sized = zones.iter().filter(|zone| zone.sized).map(|zone| &zone.name.value);
    let sized: HashSet<_> = sized.collect();
    for zone in zones {
        if !sized.contains(&zone.name.value) {
            let name = printable(&zone.name.value);
            let problem = Diagnostic::error(format!("zero size shared memory zone \"{name}\""));
            let help = "add its size, e.g. `64k`";
            reading.report.push(problem.at(zone.name.span, "").help(help));
        }
    }
}

fn upstream(
    reading: &mut Reading<'_>,
    name: Box<[u8]>,
    level: &Level<'_>,
    scope: &Scope<'_, '_>,
    span: Span,
) -> Upstream {
    if !level.has(&SERVER) {
        let problem = Diagnostic::error("no servers are inside upstream");
        reading.report.push(problem.at(span, "").help("add `server host:port;`"));
    }
    let servers: Vec<UpstreamServer> = level.values(&SERVER).collect();
    if !servers.is_empty() && servers.iter().all(|server| server.backup) {
        reading.error(format!("no servers in upstream \"{}\"", printable(&name)), span);
    }
    let keepalive = scope.get(&KEEPALIVE);
    Upstream {
        name,
        explicit: true,
        servers,
        balance: balance(reading, level),
        sticky: level.last(&STICKY).cloned(),
        recovery: scope.get(&WEBSOCKET_RECOVERY),
        resolver: scope.maybe(&RESOLVER),
        resolver_timeout: scope.get(&RESOLVER_TIMEOUT),
        checks: Vec::new(),
        queue: level.last(&QUEUE).copied(),
        keepalive: keepalive.count,
        keepalive_local: keepalive.local,
        keepalive_requests: scope.get(&KEEPALIVE_REQUESTS),
        keepalive_time: scope.get(&KEEPALIVE_TIME),
        keepalive_timeout: scope.get(&KEEPALIVE_TIMEOUT),
    }
}

/// Names that are looked up need somebody who does.
fn check_resolver(
    reading: &mut Reading<'_>,
    upstream: &Upstream,
    scope: &Scope<'_, '_>,
    span: Span,
) {
    let resolves = upstream.servers.iter().any(|server| server.resolve.is_some());
    // One that could not be read is reported already.
    if resolves && scope.nearest(&[&RESOLVER]).is_none() {
        let name = printable(&upstream.name);
        let message =
            format!("no resolver defined to resolve names at run time in upstream \"{name}\"");
        let help = "add a `resolver`, here or in `http`";
        reading.report.push(Diagnostic::error(message).at(span, "").help(help));
    }
}
