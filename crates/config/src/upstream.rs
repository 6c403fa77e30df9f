//! Groups of peers: `upstream` blocks, and one group for each other host of a `proxy_pass`.

pub(crate) mod server;

use std::time::Duration;

use wssgate_syntax::{Diagnostic, Directive, Span, printable};

use crate::directive::Arity::{AtLeast, Between, Exactly};
use crate::directive::{Braces, Context, H, Row, U, Value, works};
use crate::draft::{Entry, Level, walk};
use crate::read::{Reading, Reads, duration, invalid_parameter, number, present, text};
use crate::resolve::Resolver;
use crate::scope::{Scope, default_directives};
use crate::template::Template;
use crate::upstream::server::{UpstreamServer, server};
use crate::value;
use crate::value::{Endpoint, Host, Located};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("hash", U, Between(1, 2), "", "Chooses a peer by a key.", hash),
    works("ip_hash", U, Exactly(0), "", "Chooses a peer by the client's address.", present),
    works(
        "keepalive",
        U,
        Between(1, 2),
        "32",
        "Idle connections that each worker keeps; 0 for none.",
        keepalive,
    ),
    works(
        "keepalive_requests",
        U,
        Exactly(1),
        "1000",
        "Requests on one upstream connection.",
        number,
    ),
    works(
        "keepalive_time",
        U,
        Exactly(1),
        "1h",
        "How long an upstream connection takes requests.",
        duration,
    ),
    works(
        "keepalive_timeout",
        U,
        Exactly(1),
        "60s",
        "How long an idle upstream connection stays.",
        duration,
    ),
    works(
        "least_conn",
        U,
        Exactly(0),
        "",
        "Chooses the peer with the fewest connections.",
        present,
    ),
    works("random", U, Between(0, 2), "", "Chooses a peer by chance.", random),
    works("server", U, AtLeast(1), "", "Adds peers.", server).many(),
    works("upstream", H, Exactly(1), "", "Holds a group of peers.", text)
        .block(Braces::Level(Context::Upstream))
        .many(),
    works("zone", U, Between(1, 2), "", "Shares the group's state between workers.", zone),
];

/// Index into [`Http::upstreams`].
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
    /// `keepalive`: idle connections kept per worker; 0 turns it off. 32 for explicit groups.
    pub keepalive: usize,
    /// `keepalive_requests` per upstream connection.
    pub keepalive_requests: u64,
    /// `keepalive_time` of an upstream connection.
    pub keepalive_time: Duration,
    /// `keepalive_timeout` of an idle upstream connection.
    pub keepalive_timeout: Duration,
    /// `zone NAME`: state is shared between workers.
    pub zone: Option<Box<[u8]>>,
    /// Where it was written.
    pub span: Span,
}

/// How a peer is chosen.
#[derive(Clone, Debug)]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// `least_conn`.
    LeastConn,
    /// `ip_hash`.
    IpHash,
    /// `hash KEY [consistent]`.
    Hash {
        /// What is hashed.
        key: Template,
        /// The ketama ring.
        consistent: bool,
    },
    /// `random [two [least_conn]]`.
    Random {
        /// Draw two, take the one with fewer connections.
        two: bool,
    },
}

/// `keepalive N [local]`.
fn keepalive(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    let count = value::number(&word.value).ok_or_else(|| {
        Diagnostic::error(format!("invalid value \"{word}\" in \"keepalive\" directive"))
            .at(word.span, "")
    })?;
    match directive.args.get(1) {
        Some(word) if !word.is("local") => Err(invalid_parameter(word)),
        _ => Ok(Value::new(count)),
    }
}

fn hash(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let consistent = match directive.args.get(1) {
        None => false,
        Some(word) if word.is("consistent") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    Ok(Value::new(Balance::Hash { key: reading.template(&directive.args[0])?, consistent }))
}

fn random(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let two = match directive.args.first() {
        None => false,
        Some(word) if word.is("two") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    match directive.args.get(1) {
        Some(word) if !word.is("least_conn") => Err(invalid_parameter(word)),
        _ => Ok(Value::new(Balance::Random { two })),
    }
}

/// `zone NAME [SIZE]`.
#[derive(Clone)]
pub(crate) struct Zone {
    pub(crate) name: Located<Box<[u8]>>,
    /// Whether a size was written; one of the groups that share a zone must give it.
    pub(crate) sized: bool,
}

fn zone(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let name = &directive.args[0];
    if name.value.is_empty() {
        return Err(Diagnostic::error(format!("invalid zone name \"{name}\"")).at(name.span, ""));
    }
    let size = directive.args.get(1);
    if let Some(word) = size {
        let invalid =
            || Diagnostic::error(format!("invalid zone size \"{word}\"")).at(word.span, "");
        let size = value::size(&word.value).filter(|&size| size > 0).ok_or_else(invalid)?;
        // Eight pages is the least that nginx accepts.
        if size < 8 * 4096 {
            let problem = Diagnostic::error(format!("zone \"{name}\" is too small"));
            return Err(problem.at(word.span, ""));
        }
    }
    let name = Located { value: name.value.clone(), span: name.span };
    Ok(Value::new(Zone { name, sized: size.is_some() }))
}

/// The directives that say how peers are chosen.
const METHODS: [&str; 4] = ["hash", "ip_hash", "least_conn", "random"];

impl Resolver<'_, '_> {
    /// Takes in every `upstream` block; they may be used before they stand.
    pub(crate) fn upstream_blocks(&mut self, http: &Level<'_>) {
        let defaults = default_directives(Context::Upstream, self.nowhere);
        let defaults = walk(self.reading, &defaults, Context::Upstream, true);
        let outermost = Scope::outermost(&defaults);
        for entry in http.named("upstream") {
            let (Some(name), Some(level)) = (entry.value::<Box<[u8]>>(), &entry.level) else {
                continue;
            };
            let span = entry.directive.head();
            let key = name.to_ascii_lowercase();
            if self.explicit.contains_key(&key) {
                self.error(format!("duplicate upstream \"{}\"", printable(&name)), span);
                continue;
            }
            let upstream = self.upstream(name, level, &outermost.inner(level), span);
            self.explicit.insert(key, UpstreamId(self.upstreams.len()));
            self.upstreams.push(upstream);
        }
        self.check_zones(http);
    }

    /// Groups may share a zone, but one must say how large it is.
    fn check_zones(&mut self, http: &Level<'_>) {
        let levels = http.named("upstream").filter_map(|entry| entry.level.as_ref());
        let zones: Vec<Zone> =
            levels.flat_map(|level| level.named("zone")).filter_map(Entry::value).collect();
        for zone in &zones {
            let same = |other: &&Zone| other.name.value == zone.name.value;
            if !zones.iter().filter(same).any(|other| other.sized) {
                let name = printable(&zone.name.value);
                let problem = Diagnostic::error(format!("zero size shared memory zone \"{name}\""));
                let help = "add its size, e.g. `64k`";
                self.reading.report.push(problem.at(zone.name.span, "").help(help));
            }
        }
    }

    fn upstream(
        &mut self,
        name: Box<[u8]>,
        level: &Level<'_>,
        scope: &Scope<'_, '_>,
        span: Span,
    ) -> Upstream {
        if !level.has("server") {
            let problem = Diagnostic::error("no servers are inside upstream");
            self.reading.report.push(problem.at(span, "").help("add `server host:port;`"));
        }
        let servers: Vec<UpstreamServer> = level.named("server").filter_map(Entry::value).collect();
        if !servers.is_empty() && servers.iter().all(|server| server.backup) {
            self.error(format!("no servers in upstream \"{}\"", printable(&name)), span);
        }
        Upstream {
            name,
            explicit: true,
            servers,
            balance: self.balance(level),
            keepalive: scope.count("keepalive"),
            keepalive_requests: scope.one("keepalive_requests"),
            keepalive_time: scope.one("keepalive_time"),
            keepalive_timeout: scope.one("keepalive_timeout"),
            zone: scope.maybe::<Zone>("zone").map(|zone| zone.name.value),
            span,
        }
    }

    fn balance(&mut self, level: &Level<'_>) -> Balance {
        let mut balance = Balance::RoundRobin;
        let mut chosen: Option<&str> = None;
        for entry in level.entries() {
            let name = entry.row.name;
            if METHODS.contains(&name) {
                if chosen.replace(name).is_some() {
                    let problem = Diagnostic::warning("load balancing method redefined");
                    let problem = problem.at(entry.directive.head(), "this one applies");
                    self.reading.report.push(problem);
                }
                balance = match name {
                    "ip_hash" => Balance::IpHash,
                    "least_conn" => Balance::LeastConn,
                    _ => entry.value().unwrap_or(balance),
                };
            } else if name == "server" && !matches!(chosen, None | Some("least_conn")) {
                let backup = entry.directive.args.iter().find(|word| word.is("backup"));
                if let Some(word) = backup {
                    let message = "balancing method does not support parameter \"backup\"";
                    self.error(message, word.span);
                }
            }
        }
        balance
    }

    /// The group for the host of a URL.
    pub(crate) fn upstream_for(
        &mut self,
        endpoint: &Endpoint,
        default_port: u16,
        span: Span,
    ) -> Option<UpstreamId> {
        let port = endpoint.port.unwrap_or(default_port);
        if let Some(id) = self.explicit.get(&endpoint.host_text.to_ascii_lowercase()) {
            if endpoint.port.is_some() {
                let name = printable(&endpoint.host_text);
                self.error(format!("upstream \"{name}\" may not have port {port}"), span);
                return None;
            }
            return Some(*id);
        }
        let name: Vec<u8> = match &endpoint.host {
            Host::Unix(_) => [b"unix:", endpoint.host_text.as_slice()].concat(),
            _ => [endpoint.host_text.as_slice(), format!(":{port}").as_bytes()].concat(),
        };
        let same =
            |upstream: &Upstream| !upstream.explicit && upstream.name.eq_ignore_ascii_case(&name);
        if let Some(index) = self.upstreams.iter().position(same) {
            return Some(UpstreamId(index));
        }
        self.implicit_upstream(name.into(), endpoint, port, span)
    }

    fn implicit_upstream(
        &mut self,
        name: Box<[u8]>,
        endpoint: &Endpoint,
        port: u16,
        span: Span,
    ) -> Option<UpstreamId> {
        let addresses = match self.reading.addresses(endpoint, port) {
            Ok(addresses) => addresses,
            Err(error) => {
                let host = printable(&endpoint.host_text);
                let problem = Diagnostic::error(format!("host not found in upstream \"{host}\""));
                let help = "is the name right, and is there an `upstream` block of this name?";
                let problem = problem.at(span, "").note(error.to_string()).help(help);
                self.reading.report.push(problem);
                return None;
            }
        };
        let server = UpstreamServer {
            name: name.clone(),
            addresses,
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
        };
        self.upstreams.push(Upstream {
            name,
            explicit: false,
            servers: vec![server],
            balance: Balance::RoundRobin,
            // nginx keeps idle connections of `upstream` blocks only.
            keepalive: 0,
            keepalive_requests: 1000,
            keepalive_time: Duration::from_secs(60 * 60),
            keepalive_timeout: Duration::from_secs(60),
            zone: None,
            span,
        });
        Some(UpstreamId(self.upstreams.len() - 1))
    }
}
