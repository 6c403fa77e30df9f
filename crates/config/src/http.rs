//! The `http` block: all that servers, locations and upstreams share.

use wssgate_syntax as syntax;

use crate::acme::issuer::Issuers;
use crate::acme::{Acme, Certificates};
use crate::advice::Adviser;
use crate::advice_kind::Advice;
use crate::dashboard;
use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Braces, Context, Directive, M};
use crate::filters::charset::{self, CharsetMap};
use crate::handshake_rates::HandshakeRate;
use crate::health_check::matching::Matches;
use crate::ignored::is_silenced;
use crate::level::{Level, walk};
use crate::limits;
use crate::listen::{ListenSocket, sockets};
use crate::location::{Location, LocationId, Resolver};
use crate::log::{ErrorLog, LogFormat, Logs};
use crate::name_servers;
use crate::read::{Reading, present};
use crate::scope::{Scope, default_directives};
use crate::server::{Server, ServerId, servers};
use crate::upstream::{Groups, Upstream};
use crate::variable::{Map, Variables};
use crate::websocket::Recovery;
use crate::zones::LimitZone;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&HTTP];

/// `http`
pub(crate) static HTTP: Directive<()> = Directive {
    name: "http",
    contexts: M,
    arity: Exactly(0),
    doc: "Holds the HTTP servers and their settings.",
    braces: Braces::Level(Context::Http),
    ..Directive::once(present)
};

/// The `http` block.
#[derive(Debug)]
pub struct Http {
    /// Every variable that is used.
    pub variables: Variables,
    /// `map`, `geo` and `split_clients` blocks.
    pub maps: Vec<Map>,
    /// What `resolver` lines say.
    pub resolvers: Vec<name_servers::Resolver>,
    /// What `websocket_handshake_rate` lines say.
    pub handshake_rates: Vec<HandshakeRate>,
    /// `limit_req_zone` and `limit_conn_zone` lines.
    pub limit_zones: Vec<LimitZone>,
    /// `charset_map` blocks.
    pub charset_maps: Vec<CharsetMap>,
    /// Every charset that is named, as the first line that does writes it.
    pub charsets: Vec<Box<[u8]>>,
    /// `acme_issuer` blocks and what servers want of them.
    pub acme: Acme,
    /// `upstream` blocks first, then one implicit group for each host of a `proxy_pass`.
    pub upstreams: Vec<Upstream>,
    /// `websocket_recovery` of the groups that requests name.
    pub recovery: Recovery,
    /// `server` blocks in order.
    pub servers: Vec<Server>,
    /// All locations, those of `if` blocks and each server's own level too.
    pub locations: Vec<Location>,
    /// What to bind and which servers answer there.
    pub sockets: Vec<ListenSocket>,
    /// `log_format` lines; number 0 is `combined`.
    pub log_formats: Vec<LogFormat>,
}

impl Http {
    /// The server that a location belongs to.
    pub fn server_of(&self, location: LocationId) -> ServerId {
        // Servers are built one after the other, each with its own level as its last location.
        ServerId(self.servers.partition_point(|server| server.location < location))
    }
}

/// Builds the `http` block; `error_logs` are those of the main level.
pub(crate) fn http(
    reading: &mut Reading<'_>,
    error_logs: Vec<ErrorLog>,
    level: &Level<'_>,
) -> Http {
    let defaults = defaults(reading);
    let defaults = walk(reading, &defaults, Context::Http, true);
    let outermost = Scope::outermost(&defaults);
    let logs = Logs::new(reading, level, error_logs);
    let groups = Groups::new(reading, level);
    let acme = Certificates::new(Issuers::new(reading, level, &outermost.inner(level)));
    let matches = Matches::new(reading, level);
    let mut resolver = Resolver {
        reading,
        groups,
        logs,
        acme,
        matches,
        locations: Vec::new(),
        health_checks: Vec::new(),
    };
    let servers = servers(&mut resolver, level, &outermost.inner(level));
    let Resolver { reading, groups, logs, acme, mut locations, .. } = resolver;
    let uses_acme = servers.iter().filter(|server| server.tls.acme);
    acme.check_use(reading, &uses_acme.filter_map(|server| server.acme).collect::<Vec<_>>());
    let sockets = sockets(reading, &servers, level);
    dashboard::check(reading, &servers, &sockets, &mut locations);
    let ports: Vec<_> = sockets.iter().filter_map(|socket| socket.address.port()).collect();
    acme.check_ports(reading, level, &ports);
    let charset_maps = charset::maps(reading, &outermost.inner(level));
    let misspelt = reading.names.misspelt().into_iter();
    reading.report.extend(misspelt.filter(|problem| {
        let silenced = |place| is_silenced(level, Advice::MisspeltVariable, place);
        !problem.primary().is_some_and(silenced)
    }));
    let problems = reading.names.problems();
    reading.report.extend(problems);
    limits::check_level(reading, level);
    let (limit_zones, problems) = std::mem::take(&mut reading.zones).finish();
    reading.report.extend(problems);
    Adviser::advise(reading, level, &outermost.inner(level));
    let recovery = groups.recovery();
    Http {
        variables: std::mem::take(&mut reading.names).into_variables(),
        maps: std::mem::take(&mut reading.maps),
        resolvers: std::mem::take(&mut reading.resolvers),
        handshake_rates: std::mem::take(&mut reading.handshake_rates),
        limit_zones,
        charset_maps,
        charsets: std::mem::take(&mut reading.charsets),
        acme: acme.into_acme(),
        upstreams: groups.into_upstreams(),
        recovery,
        servers,
        locations,
        sockets,
        log_formats: logs.into_formats(),
    }
}

/// The defaults of this level, and of inner ones: what only those know has its default on the outermost level too.
fn defaults(reading: &Reading<'_>) -> Vec<syntax::Directive> {
    let mut defaults = default_directives(reading.registry, Context::Http, reading.nowhere);
    for context in [Context::Server, Context::Location] {
        let more = default_directives(reading.registry, context, reading.nowhere);
        let known = |directive: &syntax::Directive| {
            defaults.iter().any(|other| other.name.value == directive.name.value)
        };
        let more: Vec<_> = more.into_iter().filter(|directive| !known(directive)).collect();
        defaults.extend(more);
    }
    defaults
}
