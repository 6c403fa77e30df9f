//! Virtual servers: their names, and how they read requests.

use std::collections::BTreeMap;
use std::time::Duration;

use wssgate_syntax::Span;

use crate::acme::AcmeCertificateId;
use crate::advice_kind::Advice;
use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{AnyDirective, Braces, Context, Directive, H, HS};
use crate::health_check::HealthCheck;
use crate::ignored::ignored;
use crate::level::Level;
use crate::location::{Inherited, LocationId, Locations, Resolver};
use crate::position::Position;
use crate::read::{buffers, duration, flag, number, present, size};
use crate::rewrite::RewriteOp;
use crate::scope::Scope;
use crate::server_name::{SERVER_NAME, ServerName};
use crate::tls::{ServerTls, server_tls};
use crate::value::Located;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &CLIENT_HEADER_BUFFER_SIZE,
    &CLIENT_HEADER_TIMEOUT,
    &IGNORE_INVALID_HEADERS,
    &LARGE_CLIENT_HEADER_BUFFERS,
    &MAX_HEADERS,
    &MERGE_SLASHES,
    &SERVER,
    &UNDERSCORES_IN_HEADERS,
];

/// `client_header_buffer_size`
pub(crate) static CLIENT_HEADER_BUFFER_SIZE: Directive<u64> = Directive {
    name: "client_header_buffer_size",
    contexts: HS,
    arity: Exactly(1),
    default: "1k",
    doc: "Sets the size of the first buffer for a request header.",
    ..Directive::once(size)
};

/// `client_header_timeout`
pub(crate) static CLIENT_HEADER_TIMEOUT: Directive<Duration> = Directive {
    name: "client_header_timeout",
    contexts: HS,
    arity: Exactly(1),
    default: "60s",
    doc: "Sets the time in which a client must send a complete request header.",
    ..Directive::once(duration)
};

/// `ignore_invalid_headers`
pub(crate) static IGNORE_INVALID_HEADERS: Directive<bool> = Directive {
    name: "ignore_invalid_headers",
    contexts: HS,
    arity: Flag,
    default: "on",
    doc: "Ignores request headers with invalid names.",
    ..Directive::once(flag)
};

/// `large_client_header_buffers`
pub(crate) static LARGE_CLIENT_HEADER_BUFFERS: Directive<(usize, usize)> = Directive {
    name: "large_client_header_buffers",
    contexts: HS,
    arity: Exactly(2),
    default: "4 8k",
    doc: "Sets the number and size of the buffers for large request headers.",
    ..Directive::once(buffers)
};

/// `max_headers`
pub(crate) static MAX_HEADERS: Directive<u64> = Directive {
    name: "max_headers",
    contexts: HS,
    arity: Exactly(1),
    default: "1000",
    doc: "Limits the number of headers in a request.",
    ..Directive::once(number)
};

/// `merge_slashes`
pub(crate) static MERGE_SLASHES: Directive<bool> = Directive {
    name: "merge_slashes",
    contexts: HS,
    arity: Flag,
    default: "on",
    doc: "Merges adjacent slashes in a path into one.",
    ..Directive::once(flag)
};

/// `server`
pub(crate) static SERVER: Directive<()> = Directive {
    name: "server",
    contexts: H,
    arity: Exactly(0),
    doc: "Holds the settings of a virtual server.",
    braces: Braces::Level(Context::Server),
    ..Directive::repeated(present)
};

/// `underscores_in_headers`
pub(crate) static UNDERSCORES_IN_HEADERS: Directive<bool> = Directive {
    name: "underscores_in_headers",
    contexts: HS,
    arity: Flag,
    default: "off",
    doc: "Allows underscores in the names of request headers.",
    ..Directive::once(flag)
};

/// Index into [`Http::servers`](crate::model::Http::servers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub usize);

/// One `server` block.
#[derive(Debug)]
pub struct Server {
    /// `server_name`: the first one as written, lower case, for `$server_name`; empty by default.
    pub name: Box<[u8]>,
    /// All names as written, for checks and messages.
    pub names: Vec<Located<Box<[u8]>>>,
    /// Where `server {` stands.
    pub span: Span,
    /// Rewrite directives of the server level.
    pub rewrite: Vec<RewriteOp>,
    /// The server's own level as a location, for requests that no location takes.
    pub location: LocationId,
    /// The outermost locations.
    pub locations: Locations,
    /// `@named` locations, with the `@`.
    pub named_locations: BTreeMap<Box<[u8]>, LocationId>,
    /// How request heads are read.
    pub connection: ConnectionSettings,
    /// The `ssl_*` directives.
    pub tls: ServerTls,
    /// `acme_certificate`.
    pub acme: Option<AcmeCertificateId>,
    /// `health_check` lines, with their locations.
    pub health_checks: Vec<(LocationId, HealthCheck)>,
    /// `ignore_warnings`.
    pub ignored: Vec<Advice>,
}

/// Server-level settings for reading requests.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// `client_header_timeout`.
    pub client_header_timeout: Duration,
    /// `client_header_buffer_size`, bytes.
    pub client_header_buffer_size: usize,
    /// `large_client_header_buffers`: how many, and bytes each.
    pub large_client_header_buffers: (usize, usize),
    /// `max_headers`: fields in one head.
    pub max_headers: usize,
    /// `ignore_invalid_headers`.
    pub ignore_invalid_headers: bool,
    /// `underscores_in_headers`.
    pub underscores_in_headers: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
}

/// Builds every `server` block.
pub(crate) fn servers(
    resolver: &mut Resolver<'_, '_>,
    http: &Level<'_>,
    scope: &Scope<'_, '_>,
) -> Vec<Server> {
    let mut servers = Vec::new();
    let inherited = resolver.outermost_inheritance(scope);
    for line in http.lines(&SERVER) {
        if let Some(level) = line.level {
            let scope = scope.inner(level);
            servers.push(server(resolver, line.directive.head(), level, &scope, &inherited));
        }
    }
    servers
}

fn server(
    resolver: &mut Resolver<'_, '_>,
    span: Span,
    level: &Level<'_>,
    scope: &Scope<'_, '_>,
    inherited: &Inherited,
) -> Server {
    let names = server_names(level);
    let position = Position::server(span);
    let inherited = resolver.inheritance(scope, inherited, &position);
    let rewrite = resolver.rewrite_ops(scope, &inherited, &position);
    let mut locations = Locations::default();
    let mut named_locations = BTreeMap::new();
    resolver.nested(scope, &inherited, &position, &mut locations, Some(&mut named_locations));
    let location = resolver.location(scope, inherited, &position, Locations::default(), Vec::new());
    Server {
        name: first_name(&names),
        names: names.iter().map(|name| name.text.clone()).collect(),
        span,
        rewrite,
        location,
        locations,
        named_locations,
        connection: connection_settings(scope),
        tls: server_tls(resolver.reading, scope),
        acme: resolver.acme.of_server(resolver.reading, level, &names),
        health_checks: std::mem::take(&mut resolver.health_checks),
        ignored: ignored(scope),
    }
}

/// All names of a server, the empty one when it says none.
pub(crate) fn server_names(level: &Level<'_>) -> Vec<ServerName> {
    level.values(&SERVER_NAME).flatten().collect()
}

/// `$server_name`: the first name; `.example.com` loses its dot.
fn first_name(names: &[ServerName]) -> Box<[u8]> {
    let first = names.first().map_or(&b""[..], |name| &name.text.value);
    first.strip_prefix(b".").unwrap_or(first).into()
}

fn connection_settings(scope: &Scope<'_, '_>) -> ConnectionSettings {
    ConnectionSettings {
        client_header_timeout: scope.get(&CLIENT_HEADER_TIMEOUT),
        client_header_buffer_size: scope.count(&CLIENT_HEADER_BUFFER_SIZE),
        large_client_header_buffers: scope.get(&LARGE_CLIENT_HEADER_BUFFERS),
        max_headers: scope.count(&MAX_HEADERS),
        ignore_invalid_headers: scope.get(&IGNORE_INVALID_HEADERS),
        underscores_in_headers: scope.get(&UNDERSCORES_IN_HEADERS),
        merge_slashes: scope.get(&MERGE_SLASHES),
    }
}
