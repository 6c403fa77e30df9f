//! How connections, requests and answers are handled: what applies in a location beside its upstream.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wssgate_syntax as syntax;

use crate::access::{self, AccessRule, Satisfy, access};
use crate::auth_basic::{AuthBasic, auth_basic};
use crate::auth_jwt::{AuthJwt, auth_jwt};
use crate::auth_request::{AuthRequest, auth_request};
use crate::client_body::{
    BodyInFile, CLIENT_BODY_BUFFER_SIZE, CLIENT_BODY_IN_FILE_ONLY, CLIENT_BODY_TEMP_PATH,
    CLIENT_BODY_TIMEOUT, CLIENT_MAX_BODY_SIZE,
};
use crate::common::Common;
use crate::directive::Arity::{AtLeast, Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HSL, HSLI, L};
use crate::dns::{RESOLVER, RESOLVER_TIMEOUT};
use crate::error_page::{self, ErrorPage};
use crate::files::{self, MimeTypes, Root, TryFiles, own_root, types_of_level};
use crate::filters::{self, Filters};
use crate::handshake_rates::HandshakeRateId;
use crate::headers::{
    self, ADD_HEADER, ADD_HEADER_INHERIT, ADD_TRAILER, ADD_TRAILER_INHERIT, AddHeader, Expires,
    fields,
};
use crate::kept_connections::{
    KEEPALIVE_DISABLE, KEEPALIVE_REQUESTS, KEEPALIVE_TIME, KEEPALIVE_TIMEOUT, Keepalive,
    KeepaliveDisable, LINGERING_CLOSE, LINGERING_TIME, LINGERING_TIMEOUT, LingeringClose,
};
use crate::limits;
use crate::limits::connections::{LimitConnections, limit_connections};
use crate::limits::handshakes::WEBSOCKET_HANDSHAKE_RATE;
use crate::limits::requests::{LimitRequests, limit_requests};
use crate::listing::{Autoindex, RANDOM_INDEX, autoindex};
use crate::log::access::{AccessLog, LogFileCache};
use crate::log::websocket::{WEBSOCKET_LOG, WebSocketLog};
use crate::log::{self, ErrorLog, LOG_SUBREQUEST, Logs, OPEN_LOG_FILE_CACHE};
use crate::name_servers::ResolverId;
use crate::position::Position;
use crate::read::{
    Reading, Reads, duration, flag, number, one_of, present, rate, size, size_template,
};
use crate::real_ip::real_ip;
use crate::referer::{ValidReferers, valid_referers};
use crate::scope::Scope;
use crate::secure_link::{SecureLink, secure_link};
use crate::subrequests::{Mirrors, POST_ACTION, mirrors};
use crate::template::Template;
use crate::trust::RealIp;
use crate::websocket::WEBSOCKET_USER;
use crate::websocket::handshake::{
    HandshakeCheck, Names, WEBSOCKET_EXTENSIONS, WEBSOCKET_HANDSHAKE, WEBSOCKET_PROTOCOL,
};
use crate::websocket::origin::{AllowedOrigins, WEBSOCKET_ORIGIN};
use crate::websocket::tap::{WEBSOCKET_TAP, WebSocketTap};
use crate::websocket::token::{WEBSOCKET_TOKEN, WebSocketToken};
use crate::websocket::trace::{WEBSOCKET_TRACE, WebSocketTrace};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &ABSOLUTE_REDIRECT,
    &CHUNKED_TRANSFER_ENCODING,
    &EARLY_HINTS,
    &ETAG,
    &IF_MODIFIED_SINCE,
    &INTERNAL,
    &LIMIT_RATE,
    &LIMIT_RATE_AFTER,
    &LOG_NOT_FOUND,
    &MAX_RANGES,
    &MSIE_PADDING,
    &PORT_IN_REDIRECT,
    &RESET_TIMEDOUT_CONNECTION,
    &SEND_TIMEOUT,
    &SERVER_NAME_IN_REDIRECT,
    &SERVER_TOKENS,
    &SUBREQUEST_OUTPUT_BUFFER_SIZE,
    &TCP_NODELAY,
];

/// `absolute_redirect`
pub(crate) static ABSOLUTE_REDIRECT: Directive<bool> = Directive {
    name: "absolute_redirect",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Makes redirects of the proxy itself absolute, with scheme and host.",
    ..Directive::once(flag)
};

/// `chunked_transfer_encoding`
pub(crate) static CHUNKED_TRANSFER_ENCODING: Directive<bool> = Directive {
    name: "chunked_transfer_encoding",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Allows chunked transfer encoding in responses to HTTP/1.1 clients.",
    ..Directive::once(flag)
};

/// `early_hints`
pub(crate) static EARLY_HINTS: Directive<Vec<Template>> = Directive {
    name: "early_hints",
    contexts: HSL,
    arity: AtLeast(1),
    doc: "Passes 103 responses of upstream servers to HTTP/1.1 clients if at least one of the \
          values is neither empty nor `0`.",
    ..Directive::once(early_hints)
};

/// `etag`
pub(crate) static ETAG: Directive<bool> = Directive {
    name: "etag",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Adds the `ETag` header to static files.",
    ..Directive::once(flag)
};

/// `if_modified_since`
pub(crate) static IF_MODIFIED_SINCE: Directive<IfModifiedSince> = Directive {
    name: "if_modified_since",
    contexts: HSL,
    arity: Exactly(1),
    default: "exact",
    doc: "Sets how `If-Modified-Since` is compared with the modification time of a file: `exact`, \
          `before` or `off`.",
    ..Directive::once(if_modified_since)
};

/// `internal`
pub(crate) static INTERNAL: Directive<()> = Directive {
    name: "internal",
    contexts: L,
    arity: Exactly(0),
    doc: "Restricts a location to internal requests, for example redirects by `error_page`.",
    ..Directive::once(present)
};

/// `limit_rate`
pub(crate) static LIMIT_RATE: Directive<Template> = Directive {
    name: "limit_rate",
    contexts: HSLI,
    arity: Exactly(1),
    default: "0",
    doc: "Limits how fast a response is sent, in bytes per second; 0 disables the limit. In a \
          WebSocket it limits what the upstream server sends (in nginx it does not), unless \
          `websocket_check` is `off`; bursts of up to one second's worth are allowed.",
    ..Directive::once(size_template)
};

/// `limit_rate_after`
pub(crate) static LIMIT_RATE_AFTER: Directive<Template> = Directive {
    name: "limit_rate_after",
    contexts: HSLI,
    arity: Exactly(1),
    default: "0",
    doc: "Sets how many bytes of a response are sent before `limit_rate` applies.",
    ..Directive::once(size_template)
};

/// `log_not_found`
pub(crate) static LOG_NOT_FOUND: Directive<bool> = Directive {
    name: "log_not_found",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Logs missing files in the error log.",
    ..Directive::once(flag)
};

/// `max_ranges`
pub(crate) static MAX_RANGES: Directive<u64> = Directive {
    name: "max_ranges",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Limits the number of ranges in a request; with more, the whole response is sent. `0` \
          disables ranges.",
    ..Directive::once(number)
};

/// `msie_padding`
pub(crate) static MSIE_PADDING: Directive<bool> = Directive {
    name: "msie_padding",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Pads short error pages for browsers that replace them with their own.",
    ..Directive::once(flag)
};

/// `port_in_redirect`
pub(crate) static PORT_IN_REDIRECT: Directive<bool> = Directive {
    name: "port_in_redirect",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Includes the port in absolute redirects.",
    ..Directive::once(flag)
};

/// `reset_timedout_connection`
pub(crate) static RESET_TIMEDOUT_CONNECTION: Directive<bool> = Directive {
    name: "reset_timedout_connection",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Resets connections that have timed out instead of closing them.",
    ..Directive::once(flag)
};

/// `send_timeout`
pub(crate) static SEND_TIMEOUT: Directive<Duration> = Directive {
    name: "send_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "60s",
    doc: "Sets the timeout between two successive writes to a client.",
    ..Directive::once(duration)
};

/// `server_name_in_redirect`
pub(crate) static SERVER_NAME_IN_REDIRECT: Directive<bool> = Directive {
    name: "server_name_in_redirect",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Uses the first name of the server in absolute redirects, instead of the requested host.",
    ..Directive::once(flag)
};

/// `server_tokens`
pub(crate) static SERVER_TOKENS: Directive<ServerTokens> = Directive {
    name: "server_tokens",
    contexts: HSL,
    arity: Exactly(1),
    default: "on",
    doc: "Sets what the `Server` header and error pages show: the nginx version with `on`, no \
          version with `off`, the versions of nginx and wssgate with `build`.",
    ..Directive::once(server_tokens)
};

/// `subrequest_output_buffer_size`
pub(crate) static SUBREQUEST_OUTPUT_BUFFER_SIZE: Directive<u64> = Directive {
    name: "subrequest_output_buffer_size",
    contexts: HSL,
    arity: Exactly(1),
    default: "4k",
    doc: "Limits the size of subrequest responses kept in memory, for example by SSI `include` \
          with `set`.",
    ..Directive::once(size)
};

/// `tcp_nodelay`
pub(crate) static TCP_NODELAY: Directive<bool> = Directive {
    name: "tcp_nodelay",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Sends small segments without delay (`TCP_NODELAY`); `off` takes effect in tunnels, on \
          both sides.",
    ..Directive::once(flag)
};

/// Settings of a location that are not about upstreams.
#[derive(Clone, Debug)]
pub struct LocationSettings {
    /// `root` or `alias`.
    pub root: Arc<Root>,
    /// `index` files, in order.
    pub index: Arc<Vec<Template>>,
    /// `random_index`: a file is chosen before `index` is asked.
    pub random_index: bool,
    /// `autoindex`; `None` when directories are not listed.
    pub autoindex: Option<Autoindex>,
    /// `try_files`: candidates, then the last resort.
    pub try_files: Option<TryFiles>,
    /// `types`: extension in lower case to MIME type.
    pub types: Arc<MimeTypes>,
    /// `default_type`.
    pub default_type: Box<[u8]>,
    /// `error_page` lines.
    pub error_pages: Arc<Vec<ErrorPage>>,
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
    /// `keepalive_disable`.
    pub keepalive_disable: KeepaliveDisable,
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
    /// `valid_referers` lines.
    pub valid_referers: Option<Arc<ValidReferers>>,
    /// `secure_link` and what goes with it.
    pub secure_link: Option<SecureLink>,
    /// `log_subrequest`.
    pub log_subrequest: bool,
    /// `satisfy`.
    pub satisfy: Satisfy,
    /// `auth_delay`.
    pub auth_delay: Duration,
    /// `auth_basic`.
    pub auth_basic: Option<AuthBasic>,
    /// `auth_jwt`.
    pub auth_jwt: Option<AuthJwt>,
    /// `auth_request`.
    pub auth_request: Option<AuthRequest>,
    /// `early_hints`: 103 is passed when one of them is neither empty nor 0.
    pub early_hints: Vec<Template>,
    /// `mirror` lines; `None` when there are none.
    pub mirrors: Option<Mirrors>,
    /// `post_action`: a path or `@name`.
    pub post_action: Option<Box<[u8]>>,
    /// What changes bodies.
    pub filters: Arc<Filters>,
    /// `subrequest_output_buffer_size`, bytes.
    pub subrequest_output_buffer_size: usize,
    /// `max_ranges`; `None` is unlimited.
    pub max_ranges: Option<u64>,
    /// `resolver`.
    pub resolver: Option<ResolverId>,
    /// `resolver_timeout`.
    pub resolver_timeout: Duration,
    /// `limit_req` lines.
    pub limit_requests: Option<LimitRequests>,
    /// `limit_conn` lines.
    pub limit_connections: Option<LimitConnections>,
    /// `add_header` lines.
    pub add_headers: Arc<[AddHeader]>,
    /// `add_trailer` lines.
    pub add_trailers: Arc<[AddHeader]>,
    /// `expires`.
    pub expires: Option<Expires>,
    /// `set_real_ip_from`, `real_ip_header` and `real_ip_recursive`; `None` when nobody is trusted.
    pub real_ip: Option<RealIp>,
    /// `allow` and `deny` lines.
    pub access: Vec<AccessRule>,
    /// `websocket_extensions`; `None` passes all.
    pub websocket_extensions: Option<Names>,
    /// `websocket_handshake`.
    pub websocket_handshake: HandshakeCheck,
    /// `websocket_handshake_rate`; `None` when `off`.
    pub websocket_handshake_rate: Option<HandshakeRateId>,
    /// `websocket_protocol`; `None` allows all.
    pub websocket_protocols: Option<Names>,
    /// `websocket_token`; `None` when `off`.
    pub websocket_token: Option<Arc<WebSocketToken>>,
    /// `websocket_origin`; `None` when `off`.
    pub websocket_origins: Option<Arc<AllowedOrigins>>,
    /// `access_log` lines; empty when `off`.
    pub access_logs: Arc<Vec<AccessLog>>,
    /// `websocket_log` lines; empty when `off`.
    pub websocket_logs: Arc<Vec<WebSocketLog>>,
    /// `websocket_tap`.
    pub websocket_tap: WebSocketTap,
    /// `websocket_user`.
    pub websocket_user: Option<Template>,
    /// `websocket_trace`.
    pub websocket_trace: Option<Arc<WebSocketTrace>>,
    /// `open_log_file_cache`.
    pub open_log_file_cache: Option<Arc<LogFileCache>>,
    /// `error_log` lines.
    pub error_logs: Arc<Vec<ErrorLog>>,
}

/// `server_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

fn early_hints(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<Template>> {
    directive.args.iter().map(|word| reading.template(word)).collect()
}

fn if_modified_since(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<IfModifiedSince> {
    let choices = [
        ("off", IfModifiedSince::Off),
        ("exact", IfModifiedSince::Exact),
        ("before", IfModifiedSince::Before),
    ];
    one_of(&directive.args[0], &choices)
}

fn server_tokens(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<ServerTokens> {
    let choices =
        [("on", ServerTokens::On), ("off", ServerTokens::Off), ("build", ServerTokens::Build)];
    one_of(&directive.args[0], &choices)
}

/// What a level hands down that is not simply the nearest value, or is shared by levels that say nothing about it
/// whatever they say about others.
pub(crate) struct InheritedSettings {
    types: Arc<MimeTypes>,
    root: Arc<Root>,
    valid_referers: Option<Arc<ValidReferers>>,
    add_headers: Arc<[AddHeader]>,
    add_trailers: Arc<[AddHeader]>,
    index: Common<Vec<Template>>,
    error_pages: Common<Vec<ErrorPage>>,
    filters: Common<Filters>,
    access_logs: Common<Vec<AccessLog>>,
    websocket_logs: Common<Vec<WebSocketLog>>,
    error_logs: Common<Vec<ErrorLog>>,
}

impl InheritedSettings {
    /// What the `http` level is handed.
    pub(crate) fn outermost(http: &Scope<'_, '_>) -> Self {
        let types = [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")];
        let types =
            types.map(|(extension, mime)| (extension.as_bytes().into(), mime.as_bytes().into()));
        let root = http.outer.map(|defaults| defaults.get(&files::ROOT));
        Self {
            types: Arc::new(types.into_iter().collect()),
            root: Arc::new(root.unwrap_or_else(|| http.get(&files::ROOT))),
            valid_referers: None,
            add_headers: Arc::default(),
            add_trailers: Arc::default(),
            index: Common::new(),
            error_pages: Common::new(),
            filters: Common::new(),
            access_logs: Common::new(),
            websocket_logs: Common::new(),
            error_logs: Common::new(),
        }
    }

    /// What a level inside hands down.
    pub(crate) fn inner(
        &self,
        reading: &mut Reading<'_>,
        scope: &Scope<'_, '_>,
        position: &Position<'_>,
    ) -> Self {
        let (outer, level) = (self, scope.level);
        let root = own_root(reading, scope, position).map(Arc::new);
        Self {
            types: types_of_level(scope).unwrap_or_else(|| Arc::clone(&outer.types)),
            root: root.unwrap_or_else(|| Arc::clone(&outer.root)),
            valid_referers: valid_referers(reading, scope, outer.valid_referers.as_ref()),
            add_headers: fields(scope, &outer.add_headers, &ADD_HEADER, &ADD_HEADER_INHERIT),
            add_trailers: fields(scope, &outer.add_trailers, &ADD_TRAILER, &ADD_TRAILER_INHERIT),
            index: outer.index.inner(!level.has(&files::INDEX)),
            error_pages: outer.error_pages.inner(!level.has(&error_page::ERROR_PAGE)),
            filters: outer.filters.inner(!level.has_any(&filters::ROWS)),
            access_logs: outer.access_logs.inner(!level.has(&log::ACCESS_LOG)),
            websocket_logs: outer.websocket_logs.inner(!level.has(&WEBSOCKET_LOG)),
            error_logs: outer.error_logs.inner(!level.has(&log::ERROR_LOG)),
        }
    }
}

/// Merges what applies in a location.
pub(crate) fn settings(
    reading: &mut Reading<'_>,
    logs: &mut Logs,
    scope: &Scope<'_, '_>,
    inherited: &InheritedSettings,
) -> LocationSettings {
    let keepalive: Keepalive = scope.get(&KEEPALIVE_TIMEOUT);
    limits::check_level(reading, scope.level);
    LocationSettings {
        root: Arc::clone(&inherited.root),
        index: inherited.index.get(|| scope.all(&files::INDEX).concat()),
        random_index: scope.maybe(&RANDOM_INDEX).unwrap_or(false),
        autoindex: autoindex(scope),
        try_files: scope.level.last(&files::TRY_FILES).cloned(),
        types: Arc::clone(&inherited.types),
        default_type: scope.get(&files::DEFAULT_TYPE),
        error_pages: inherited.error_pages.get(|| scope.all(&error_page::ERROR_PAGE)),
        recursive_error_pages: scope.get(&error_page::RECURSIVE_ERROR_PAGES),
        internal: scope.maybe(&INTERNAL).is_some(),
        client_max_body_size: scope.get(&CLIENT_MAX_BODY_SIZE),
        client_body_buffer_size: scope.count(&CLIENT_BODY_BUFFER_SIZE),
        client_body_timeout: scope.get(&CLIENT_BODY_TIMEOUT),
        client_body_temp_path: scope.get(&CLIENT_BODY_TEMP_PATH),
        client_body_in_file_only: scope.get(&CLIENT_BODY_IN_FILE_ONLY),
        keepalive_timeout: keepalive.timeout,
        keepalive_header: keepalive.header,
        keepalive_disable: scope.get(&KEEPALIVE_DISABLE),
        keepalive_requests: scope.get(&KEEPALIVE_REQUESTS),
        keepalive_time: scope.get(&KEEPALIVE_TIME),
        send_timeout: scope.get(&SEND_TIMEOUT),
        lingering_close: scope.get(&LINGERING_CLOSE),
        lingering_time: scope.get(&LINGERING_TIME),
        lingering_timeout: scope.get(&LINGERING_TIMEOUT),
        reset_timedout_connection: scope.get(&RESET_TIMEDOUT_CONNECTION),
        tcp_nodelay: scope.get(&TCP_NODELAY),
        server_tokens: scope.get(&SERVER_TOKENS),
        etag: scope.get(&ETAG),
        if_modified_since: scope.get(&IF_MODIFIED_SINCE),
        absolute_redirect: scope.get(&ABSOLUTE_REDIRECT),
        port_in_redirect: scope.get(&PORT_IN_REDIRECT),
        server_name_in_redirect: scope.get(&SERVER_NAME_IN_REDIRECT),
        log_not_found: scope.get(&LOG_NOT_FOUND),
        chunked_transfer_encoding: scope.get(&CHUNKED_TRANSFER_ENCODING),
        msie_padding: scope.get(&MSIE_PADDING),
        limit_rate: rate(scope.get(&LIMIT_RATE)),
        limit_rate_after: rate(scope.get(&LIMIT_RATE_AFTER)),
        early_hints: scope.all(&EARLY_HINTS).concat(),
        mirrors: mirrors(reading, scope),
        post_action: scope.get(&POST_ACTION),
        filters: inherited.filters.get(|| Filters::of(reading, scope)),
        subrequest_output_buffer_size: scope.count(&SUBREQUEST_OUTPUT_BUFFER_SIZE),
        max_ranges: scope.maybe(&MAX_RANGES),
        resolver: scope.maybe(&RESOLVER),
        resolver_timeout: scope.get(&RESOLVER_TIMEOUT),
        add_headers: Arc::clone(&inherited.add_headers),
        add_trailers: Arc::clone(&inherited.add_trailers),
        expires: scope.maybe(&headers::EXPIRES),
        valid_referers: inherited.valid_referers.clone(),
        secure_link: secure_link(reading, scope),
        log_subrequest: scope.get(&LOG_SUBREQUEST),
        satisfy: scope.get(&access::SATISFY),
        auth_delay: scope.get(&access::AUTH_DELAY),
        auth_basic: auth_basic(reading, scope),
        auth_jwt: auth_jwt(reading, scope),
        auth_request: auth_request(scope),
        limit_requests: limit_requests(scope),
        limit_connections: limit_connections(scope),
        real_ip: real_ip(scope),
        access: access(scope),
        websocket_extensions: scope.get(&WEBSOCKET_EXTENSIONS),
        websocket_handshake: scope.get(&WEBSOCKET_HANDSHAKE),
        websocket_handshake_rate: scope.get(&WEBSOCKET_HANDSHAKE_RATE),
        websocket_protocols: scope.get(&WEBSOCKET_PROTOCOL),
        websocket_token: scope.get(&WEBSOCKET_TOKEN),
        websocket_origins: scope.get(&WEBSOCKET_ORIGIN),
        access_logs: inherited.access_logs.get(|| logs.access_logs(reading, scope)),
        websocket_logs: inherited.websocket_logs.get(|| logs.websocket_logs(reading, scope)),
        websocket_tap: scope.get(&WEBSOCKET_TAP),
        websocket_user: scope.maybe(&WEBSOCKET_USER),
        websocket_trace: scope.get(&WEBSOCKET_TRACE),
        open_log_file_cache: scope.get(&OPEN_LOG_FILE_CACHE),
        error_logs: inherited.error_logs.get(|| logs.error_logs(scope)),
    }
}
