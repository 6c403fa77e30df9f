//! How connections, requests and answers are handled: what applies in a location beside its upstream.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wssgate_syntax::Directive;

use crate::access::{AccessRule, access};
use crate::directive::Arity::{Between, Exactly, Flag};
use crate::directive::{HSL, HSLI, Row, Value, works};
use crate::draft::Entry;
use crate::error_page::ErrorPage;
use crate::files::{MimeTypes, Root, TryFiles};
use crate::headers::{AddHeader, Expires};
use crate::location::Inherited;
use crate::log::{AccessLog, ErrorLog};
use crate::read::{
    Reading, Reads, directive_problem, duration, flag, number, offset, one_of, prefix_path, size,
    size_template,
};
use crate::resolve::Resolver;
use crate::scope::Scope;
use crate::template::Template;
use crate::value;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "absolute_redirect",
        HSL,
        Flag,
        "on",
        "Makes our own redirects name scheme and host.",
        flag,
    ),
    works(
        "chunked_transfer_encoding",
        HSL,
        Flag,
        "on",
        "Allows chunked answers to HTTP/1.1 clients.",
        flag,
    ),
    works(
        "client_body_buffer_size",
        HSL,
        Exactly(1),
        "16k",
        "Keeps request bodies up to this size in memory.",
        size,
    ),
    works(
        "client_body_in_file_only",
        HSL,
        Exactly(1),
        "off",
        "Puts every request body into a file.",
        body_in_file,
    ),
    works(
        "client_body_temp_path",
        HSL,
        Between(1, 4),
        "/var/lib/nginx/body",
        "Names the directory of request bodies; levels of subdirectories are ignored.",
        body_temp_path,
    ),
    works(
        "client_body_timeout",
        HSL,
        Exactly(1),
        "60s",
        "Ends a request whose body stops coming.",
        duration,
    ),
    works(
        "client_max_body_size",
        HSL,
        Exactly(1),
        "1m",
        "Refuses larger request bodies; 0 accepts all.",
        offset,
    ),
    works("etag", HSL, Flag, "on", "Adds `ETag` to files.", flag),
    works(
        "if_modified_since",
        HSL,
        Exactly(1),
        "exact",
        "How `If-Modified-Since` is compared.",
        if_modified_since,
    ),
    works("keepalive_requests", HSL, Exactly(1), "1000", "Requests on one connection.", number),
    works(
        "keepalive_time",
        HSL,
        Exactly(1),
        "1h",
        "How long one connection takes requests.",
        duration,
    ),
    works(
        "keepalive_timeout",
        HSL,
        Between(1, 2),
        "75s",
        "How long an idle connection stays; 0 closes it at once.",
        keepalive,
    ),
    works(
        "limit_rate",
        HSLI,
        Exactly(1),
        "0",
        "Bytes of an answer per second; 0 is unlimited.",
        size_template,
    ),
    works(
        "limit_rate_after",
        HSLI,
        Exactly(1),
        "0",
        "Bytes that are sent before `limit_rate` begins.",
        size_template,
    ),
    works(
        "lingering_close",
        HSL,
        Exactly(1),
        "on",
        "Reads on for a while before a connection is closed.",
        lingering,
    ),
    works(
        "lingering_time",
        HSL,
        Exactly(1),
        "30s",
        "How long `lingering_close` reads at most.",
        duration,
    ),
    works(
        "lingering_timeout",
        HSL,
        Exactly(1),
        "5s",
        "How long `lingering_close` waits for data.",
        duration,
    ),
    works("log_not_found", HSL, Flag, "on", "Logs files that do not exist.", flag),
    works("msie_padding", HSL, Flag, "on", "Pads error pages for some browsers.", flag),
    works("port_in_redirect", HSL, Flag, "on", "Names the port in absolute redirects.", flag),
    works(
        "reset_timedout_connection",
        HSL,
        Flag,
        "off",
        "Resets connections that timed out.",
        flag,
    ),
    works(
        "send_timeout",
        HSL,
        Exactly(1),
        "60s",
        "Ends a connection that takes nothing for this long.",
        duration,
    ),
    works(
        "server_name_in_redirect",
        HSL,
        Flag,
        "off",
        "Uses the server's first name in absolute redirects.",
        flag,
    ),
    works(
        "server_tokens",
        HSL,
        Exactly(1),
        "on",
        "What `Server` and error pages say.",
        server_tokens,
    ),
    works(
        "tcp_nodelay",
        HSL,
        Flag,
        "on",
        "Sends small segments at once; `off` is obeyed in tunnels, on both sides.",
        flag,
    ),
];

/// Settings of a location that are not about upstreams.
#[derive(Clone, Debug)]
pub struct LocationSettings {
    /// `root` or `alias`.
    pub root: Root,
    /// `index` files, in order.
    pub index: Vec<Template>,
    /// `try_files`: candidates, then the last resort.
    pub try_files: Option<TryFiles>,
    /// `types`: extension in lower case to MIME type.
    pub types: Arc<MimeTypes>,
    /// `default_type`.
    pub default_type: Box<[u8]>,
    /// `error_page` lines.
    pub error_pages: Vec<ErrorPage>,
    /// `recursive_error_pages`.
    pub recursive_error_pages: bool,
    /// `internal`.
    pub internal: bool,
    /// `client_max_body_size`, bytes; 0 is unlimited.
    pub client_max_body_size: u64,
    /// `client_body_buffer_size`, bytes.
    pub client_body_buffer_size: usize,
    /// `client_body_timeout`, between two reads.
    pub client_body_timeout: Duration,
    /// `client_body_temp_path`.
    pub client_body_temp_path: PathBuf,
    /// `client_body_in_file_only`.
    pub client_body_in_file_only: BodyInFile,
    /// `keepalive_timeout`; zero turns keep-alive off.
    pub keepalive_timeout: Duration,
    /// The second parameter of `keepalive_timeout`: the `Keep-Alive: timeout=` field.
    pub keepalive_header: Option<Duration>,
    /// `keepalive_requests` per connection.
    pub keepalive_requests: u64,
    /// `keepalive_time` of a connection.
    pub keepalive_time: Duration,
    /// `send_timeout`, between two writes.
    pub send_timeout: Duration,
    /// `lingering_close`.
    pub lingering_close: LingeringClose,
    /// `lingering_time`.
    pub lingering_time: Duration,
    /// `lingering_timeout`.
    pub lingering_timeout: Duration,
    /// `reset_timedout_connection`.
    pub reset_timedout_connection: bool,
    /// `tcp_nodelay`.
    pub tcp_nodelay: bool,
    /// `server_tokens`.
    pub server_tokens: ServerTokens,
    /// `etag`.
    pub etag: bool,
    /// `if_modified_since`.
    pub if_modified_since: IfModifiedSince,
    /// `absolute_redirect`.
    pub absolute_redirect: bool,
    /// `port_in_redirect`.
    pub port_in_redirect: bool,
    /// `server_name_in_redirect`.
    pub server_name_in_redirect: bool,
    /// `log_not_found`.
    pub log_not_found: bool,
    /// `chunked_transfer_encoding`.
    pub chunked_transfer_encoding: bool,
    /// `msie_padding`.
    pub msie_padding: bool,
    /// `limit_rate`, bytes per second; `None` is unlimited.
    pub limit_rate: Option<Template>,
    /// `limit_rate_after`, bytes.
    pub limit_rate_after: Option<Template>,
    /// `add_header` lines.
    pub add_headers: Vec<AddHeader>,
    /// `add_trailer` lines.
    pub add_trailers: Vec<AddHeader>,
    /// `expires`.
    pub expires: Option<Expires>,
    /// `allow` and `deny` lines.
    pub access: Vec<AccessRule>,
    /// `access_log` lines; empty when `off`.
    pub access_logs: Vec<AccessLog>,
    /// `error_log` lines.
    pub error_logs: Vec<ErrorLog>,
}

/// `client_body_in_file_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyInFile {
    /// Only when it does not fit the buffer.
    Off,
    /// Always, and kept afterwards.
    On,
    /// Always, and removed afterwards.
    Clean,
}

/// `lingering_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LingeringClose {
    /// Close at once.
    Off,
    /// Linger when the client may still send.
    On,
    /// Always linger.
    Always,
}

/// `server_tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTokens {
    /// `Server: nginx/VERSION`.
    On,
    /// `Server: nginx`.
    Off,
    /// With the build name.
    Build,
}

/// `if_modified_since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// The field is ignored.
    Off,
    /// 304 only for the same time.
    Exact,
    /// 304 for the same time or a later one.
    Before,
}

/// `keepalive_timeout`.
#[derive(Clone, Copy)]
pub(crate) struct Keepalive {
    pub(crate) timeout: Duration,
    pub(crate) header: Option<Duration>,
}

fn keepalive(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let invalid = |word| directive_problem(directive, word, "invalid value");
    let timeout =
        value::duration(&directive.args[0].value).ok_or_else(|| invalid(&directive.args[0]))?;
    let header = match directive.args.get(1) {
        None => None,
        Some(word) => Some(value::seconds(&word.value).ok_or_else(|| invalid(word))?),
    };
    Ok(Value::new(Keepalive { timeout, header }))
}

/// Reads a directory; the levels of subdirectories are only checked.
fn body_temp_path(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut sum = 0;
    for word in &directive.args[1..] {
        let level = value::number(&word.value).filter(|&level| level > 0 && sum + level <= 10);
        sum += level.ok_or_else(|| directive_problem(directive, word, "invalid value"))?;
    }
    prefix_path(reading, directive)
}

fn body_in_file(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [("off", BodyInFile::Off), ("on", BodyInFile::On), ("clean", BodyInFile::Clean)];
    one_of(&directive.args[0], &choices).map(Value::new)
}

fn lingering(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [
        ("off", LingeringClose::Off),
        ("on", LingeringClose::On),
        ("always", LingeringClose::Always),
    ];
    one_of(&directive.args[0], &choices).map(Value::new)
}

fn if_modified_since(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [
        ("off", IfModifiedSince::Off),
        ("exact", IfModifiedSince::Exact),
        ("before", IfModifiedSince::Before),
    ];
    one_of(&directive.args[0], &choices).map(Value::new)
}

/// As [`ServerTokens`], which is not `Copy`.
fn server_tokens(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [("on", 0), ("off", 1), ("build", 2)];
    Ok(Value::new(match one_of(&directive.args[0], &choices)? {
        0 => ServerTokens::On,
        1 => ServerTokens::Off,
        _ => ServerTokens::Build,
    }))
}

impl Resolver<'_, '_> {
    pub(crate) fn settings(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
    ) -> LocationSettings {
        let keepalive: Keepalive = scope.one("keepalive_timeout");
        LocationSettings {
            root: inherited.root.clone(),
            index: scope.all::<Vec<Template>>("index").concat(),
            try_files: scope.level.named("try_files").next().and_then(Entry::value),
            types: Arc::clone(&inherited.types),
            default_type: scope.one("default_type"),
            error_pages: scope.all::<ErrorPage>("error_page"),
            recursive_error_pages: scope.one("recursive_error_pages"),
            internal: scope.maybe::<()>("internal").is_some(),
            client_max_body_size: scope.one("client_max_body_size"),
            client_body_buffer_size: scope.count("client_body_buffer_size"),
            client_body_timeout: scope.one("client_body_timeout"),
            client_body_temp_path: scope.one("client_body_temp_path"),
            client_body_in_file_only: scope.one("client_body_in_file_only"),
            keepalive_timeout: keepalive.timeout,
            keepalive_header: keepalive.header,
            keepalive_requests: scope.one("keepalive_requests"),
            keepalive_time: scope.one("keepalive_time"),
            send_timeout: scope.one("send_timeout"),
            lingering_close: scope.one("lingering_close"),
            lingering_time: scope.one("lingering_time"),
            lingering_timeout: scope.one("lingering_timeout"),
            reset_timedout_connection: scope.one("reset_timedout_connection"),
            tcp_nodelay: scope.one("tcp_nodelay"),
            server_tokens: scope.one("server_tokens"),
            etag: scope.one("etag"),
            if_modified_since: scope.one("if_modified_since"),
            absolute_redirect: scope.one("absolute_redirect"),
            port_in_redirect: scope.one("port_in_redirect"),
            server_name_in_redirect: scope.one("server_name_in_redirect"),
            log_not_found: scope.one("log_not_found"),
            chunked_transfer_encoding: scope.one("chunked_transfer_encoding"),
            msie_padding: scope.one("msie_padding"),
            limit_rate: limit(scope.one("limit_rate")),
            limit_rate_after: limit(scope.one("limit_rate_after")),
            add_headers: inherited.add_headers.clone(),
            add_trailers: inherited.add_trailers.clone(),
            expires: scope.maybe("expires"),
            access: access(scope),
            access_logs: self.access_logs(scope),
            error_logs: self.error_logs(scope),
        }
    }
}

/// A rate; a fixed 0 is none.
pub(crate) fn limit(rate: Template) -> Option<Template> {
    Some(rate).filter(|rate| rate.as_text() != Some(b"0"))
}
