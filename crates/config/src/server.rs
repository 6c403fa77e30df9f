//! Virtual servers: their names, and how they read requests.

use std::collections::BTreeMap;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word};

use crate::directive::Arity::{AtLeast, Exactly, Flag};
use crate::directive::{AnyDirective, Braces, Context, Directive, H, HS, S};
use crate::ignored::{Advice, ignored};
use crate::level::Level;
use crate::location::{Inherited, LocationId, Locations, Resolver};
use crate::position::Position;
use crate::read::{Reading, Reads, buffers, duration, flag, number, parameter, present, size};
use crate::regex::Regex;
use crate::rewrite::RewriteOp;
use crate::scope::Scope;
use crate::tls::{ServerTls, server_tls};
use crate::value::Located;
use crate::websocket::{self, TlsRecords};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &CLIENT_HEADER_BUFFER_SIZE,
    &CLIENT_HEADER_TIMEOUT,
    &IGNORE_INVALID_HEADERS,
    &LARGE_CLIENT_HEADER_BUFFERS,
    &MAX_HEADERS,
    &MERGE_SLASHES,
    &SERVER,
    &SERVER_NAME,
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
    doc: "Limits the number of headers of a request.",
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

/// `server_name`
pub(crate) static SERVER_NAME: Directive<Vec<ServerName>> = Directive {
    name: "server_name",
    contexts: S,
    arity: AtLeast(1),
    doc: "Sets the names of a virtual server.",
    ..Directive::repeated(server_name)
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
    /// `tls_records`.
    pub tls_records: TlsRecords,
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

/// One name of `server_name`.
#[derive(Clone)]
pub(crate) struct ServerName {
    /// Lower case unless it is a regular expression; with its `~` as written.
    pub(crate) text: Located<Box<[u8]>>,
    /// The expression of `~…`.
    pub(crate) regex: Option<Regex>,
}

fn server_name(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<ServerName>> {
    let names: Result<Vec<ServerName>, _> =
        directive.args.iter().map(|word| one_name(reading, word)).collect();
    names
}

fn one_name(reading: &mut Reading<'_>, word: &Word) -> Result<ServerName, Diagnostic> {
    let text = &word.value;
    let bad_wildcard = text.first() == Some(&b'*') && (text.len() < 3 || text[1] != b'.');
    if bad_wildcard || **text == *b"." {
        return Err(
            Diagnostic::error(format!("server name \"{word}\" is invalid")).at(word.span, "")
        );
    }
    if text.contains(&b'/') {
        let message = format!("server name \"{word}\" has suspicious symbols");
        let problem = Diagnostic::warning(message).at(word.span, "");
        reading.report.push(problem.help("a name is only the host of a URL"));
    }
    let located = |value: Box<[u8]>| Located { value, span: word.span };
    if let Some(pattern) = parameter(word, "~") {
        if pattern.is_empty() {
            return Err(Diagnostic::error(format!("empty regex in server name \"{word}\""))
                .at(word.span, ""));
        }
        // Host names come in lower case; only a pattern with capitals would otherwise never match.
        let caseless = pattern.iter().any(u8::is_ascii_uppercase);
        let regex = reading.regex(pattern, caseless, word.span)?;
        return Ok(ServerName { text: located(text.clone()), regex: Some(regex) });
    }
    let name = if text.eq_ignore_ascii_case(b"$hostname") { hostname() } else { text.to_vec() };
    Ok(ServerName { text: located(name.to_ascii_lowercase().into()), regex: None })
}

/// The name of this machine, as the kernel knows it.
fn hostname() -> Vec<u8> {
    let name = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_ascii().to_vec()
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
    let location =
        resolver.location(scope, &inherited, &position, Locations::default(), Vec::new());
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
        tls_records: scope.get(&websocket::TLS_RECORDS),
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
