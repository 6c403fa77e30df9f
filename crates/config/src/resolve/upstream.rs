//! Groups of peers: `upstream` blocks, and one group for each other host of a `proxy_pass`.

use std::time::Duration;

use wssgate_syntax::{Diagnostic, Span, printable};

use crate::directive::Context;
use crate::directives::upstream::Zone;
use crate::draft::{Entry, Level, walk};
use crate::model::{Balance, Upstream, UpstreamId, UpstreamServer};
use crate::value::{Endpoint, Host};

use super::{Resolver, Scope, default_directives};

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
