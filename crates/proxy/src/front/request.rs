//! One request and everything that variables can see of it.
//!
//! Reading a variable never needs `&mut`: values are computed when first asked for and kept in one
//! cell per variable, so that templates that live in the configuration can be evaluated while the
//! request is borrowed.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use wssgate_config::model::{Http, ListenAddr, Location, LocationId, LogLevel, Server, ServerId};
use wssgate_config::regex::{Captures, Regex};
use wssgate_config::template::{Template, VariableId};
use wssgate_http1::{Fields, Method, RequestHead, ResponseHead, Version};
use wssgate_sys::socket::TcpInfo;

use crate::front::body::BufferedBody;
use crate::front::client::Client;
use crate::generation::Generation;
use crate::tls::server::TlsInfo;
use crate::worker::Worker;

/// nginx's bound on internal redirects and rewrite cycles of one request.
pub const MAX_URI_CHANGES: u8 = 10;

/// What is known of a client connection; shared by its requests.
pub struct ConnectionInfo {
    /// `$connection`.
    pub serial: u64,
    /// The client's address; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The address that the client connected to.
    pub local: ListenAddr,
    /// Index of the listening socket in `http.sockets`.
    pub socket: usize,
    /// What the TLS handshake settled; `None` for plain connections.
    pub tls: Option<Rc<TlsInfo>>,
    /// When the connection was accepted.
    pub accepted: Instant,
    /// `$connection_requests`: requests begun so far.
    pub requests: Cell<u64>,
    /// Bytes written to the client so far, TLS not counted.
    pub sent: Cell<u64>,
    /// Bytes read from the client so far, TLS not counted.
    pub received: Cell<u64>,
    /// Body bytes of the request in work, as framed on the wire.
    pub body_received: Cell<u64>,
    /// Who has the socket, until it leaves for a tunnel.
    pub(crate) holder: OnceCell<Weak<Client>>,
}

impl ConnectionInfo {
    /// Whether the client speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// `$remote_addr`: `unix:` for Unix sockets.
    pub fn client_text(&self) -> String {
        self.client.map_or_else(|| "unix:".to_owned(), |address| address.ip().to_string())
    }

    /// What the kernel measures of it; `None` for Unix sockets and when the socket has left.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        self.holder.get()?.upgrade()?.tcp_info()
    }
}

/// One attempt to have a peer answer, for the `$upstream_*` variables and the log.
///
/// Times are counted from the start of the attempt. An entry without an address separates the
/// attempts before an internal redirect from those after it (` : ` in nginx's variables).
#[derive(Clone, Debug, Default)]
pub struct UpstreamState {
    /// The peer, as `$upstream_addr` shows it; `None` for the separator.
    pub address: Option<Bytes>,
    /// Status of the answer; 0 when there was none.
    pub status: u16,
    /// Time until the connection stood.
    pub connect_time: Option<Duration>,
    /// Time until the response head was complete.
    pub header_time: Option<Duration>,
    /// Time until the answer was complete.
    pub response_time: Option<Duration>,
    /// Body bytes received.
    pub response_length: u64,
    /// Bytes received, head included.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
}

/// What was answered, as far as it is known by now.
#[derive(Debug, Default)]
pub struct ResponseState {
    /// `$status` once a head was sent or the request failed; 0 before.
    pub status: u16,
    /// Status that `error_page` and special responses decided on; wins over a page's own 200.
    pub error_status: u16,
    /// The fields of the head that was sent.
    pub fields: Vec<(Bytes, Bytes)>,
    /// What is known of the head while it is being made.
    pub draft: Draft,
    /// The trailer fields that were sent.
    pub trailers: Vec<(Bytes, Bytes)>,
    /// Bytes of the head that was sent.
    pub head_len: u64,
    /// Whether the head was sent.
    pub head_sent: bool,
    /// Whether the whole answer was sent (`$request_completion`).
    pub complete: bool,
}

/// The parts of an answer's head that are no plain fields.
#[derive(Debug, Default)]
pub struct Draft {
    /// `Content-Type`.
    pub content_type: Option<Bytes>,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// `Last-Modified`, in seconds since 1970.
    pub last_modified: Option<i64>,
}

/// The value of a variable as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) enum Value {
    /// Not asked for yet.
    #[default]
    Unknown,
    /// There is none (nginx: not found).
    Absent,
    /// The value; may be empty.
    Known(Bytes),
}

/// The groups of the regular expression that matched last.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastMatch {
    pub(crate) subject: Bytes,
    pub(crate) captures: Captures,
}

/// One request.
pub struct Request {
    /// The configuration that it began with.
    pub generation: Arc<Generation>,
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// Its connection.
    pub connection: Rc<ConnectionInfo>,
    /// The virtual server.
    pub server: ServerId,
    /// The location that applies now.
    pub location: LocationId,
    /// The head as sent; `None` when it could not be parsed.
    pub head: Option<RequestHead>,
    /// The request line as far as it could be read (`$request`).
    pub request_line: Bytes,
    /// The method in force; `error_page` can turn it into GET.
    pub method: Method,
    /// Its name.
    pub method_name: Bytes,
    /// The version in force.
    pub version: Version,
    /// `$uri`: the normalised path; changes with rewrites and internal redirects.
    pub path: Bytes,
    /// `$args`.
    pub args: RefCell<Bytes>,
    /// `$request_uri`: as sent.
    pub raw_uri: Bytes,
    /// Whether `path` and `args` still say what `raw_uri` says, so that an upstream without a URI
    /// part gets `raw_uri`.
    pub raw_uri_valid: Cell<bool>,
    /// Whether the path as sent had escapes or a plus: where nginx puts captures into a new URI it
    /// escapes them then.
    pub quoted: bool,
    /// Where a redirect goes (`Location`).
    pub redirect: Option<Bytes>,
    /// Fields that a built-in answer shall have besides, such as WWW-Authenticate.
    pub special_fields: Vec<(Bytes, Bytes)>,
    /// Fields of an upstream's answer with X-Accel-Redirect that the final answer shall have.
    pub carried_fields: Vec<(Bytes, Bytes)>,
    /// Whether `rewrite … break` has replaced the path, so that it no longer stands for the prefix
    /// of its location.
    pub path_replaced: bool,
    /// Whether an `if` without `proxy_pass` was entered behind one that has it.
    pub lost_upstream: bool,
    /// Whether an `alias` of a regular expression is followed by the path that `try_files` found.
    pub path_after_alias: bool,
    /// `$host` without a port, lower case: of the request line or the Host field; empty if none.
    pub host: Bytes,
    /// The port that the request names.
    pub host_port: Option<u16>,
    /// Whether the request came to its path by an internal redirect.
    pub internal: bool,
    /// Internal redirects and rewrite cycles that are left.
    pub uri_changes: u8,
    /// Whether an `error_page` is already in force (and `recursive_error_pages` off).
    pub error_page: bool,
    /// Whether the connection may be kept after this request.
    pub keepalive: bool,
    /// Whether closing may linger for what the client still sends.
    pub lingering: bool,
    /// Whether the request was already waiting when the previous one ended (`$pipe`).
    pub pipelined: bool,
    /// When its first byte came.
    pub started: Instant,
    /// The same by the wall clock.
    pub started_at: SystemTime,
    /// `connection.sent` when the request began.
    pub sent_before: u64,
    /// Bytes of the request line and head.
    pub head_len: u64,
    /// The body, once it was read as a whole.
    pub buffered_body: Option<Rc<BufferedBody>>,
    /// Attempts at peers, for `$upstream_*`.
    pub upstream: Vec<UpstreamState>,
    /// The head of the last answer of a peer, for `$upstream_http_*`.
    pub upstream_head: Option<ResponseHead>,
    /// Trailers of the last answer of a peer.
    pub upstream_trailers: Option<Fields>,
    /// `$proxy_host` of the `proxy_pass` in work.
    pub proxy_host: Bytes,
    /// `$proxy_port`.
    pub proxy_port: Bytes,
    /// `http://` or `https://`, as log lines put it before the peer.
    pub proxy_scheme: &'static str,
    /// The target that the upstream is asked for.
    pub proxy_target: Bytes,
    /// What was answered.
    pub response: ResponseState,
    /// One cell for each variable of the configuration.
    pub(crate) values: RefCell<Vec<Value>>,
    pub(crate) last_match: RefCell<LastMatch>,
    /// `limit_rate` set through `$limit_rate`.
    pub(crate) limit_rate: RefCell<Option<Bytes>>,
    /// How deep maps that refer to maps are being evaluated.
    pub(crate) depth: Cell<u8>,
}

impl Request {
    /// The `http` block.
    pub fn http(&self) -> &Http {
        self.generation.http()
    }

    /// The location that applies now.
    pub fn location(&self) -> &Location {
        &self.http().locations[self.location.0]
    }

    /// The virtual server.
    pub fn server(&self) -> &Server {
        &self.http().servers[self.server.0]
    }

    /// The fields as sent; none when the head could not be parsed.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.as_ref()?.fields().first(name)
    }

    /// The value of a variable; `None` when it has none.
    pub fn variable(&self, id: VariableId) -> Option<Bytes> {
        crate::front::variables::value(self, id)
    }

    /// The text of a template; variables without a value are empty.
    pub fn text(&self, template: &Template) -> Bytes {
        crate::front::variables::text(self, template)
    }

    /// Matches `regex` against `subject`; a match sets `$1`… and the variables of named groups.
    pub fn matches(&self, regex: &Regex, subject: &Bytes) -> bool {
        let Some(captures) = regex.captures(subject) else {
            return false;
        };
        self.remember(regex, subject, captures);
        true
    }

    /// Takes a match as the last one: sets `$1`… and the variables of named groups.
    pub(crate) fn remember(&self, regex: &Regex, subject: &Bytes, captures: Captures) {
        for &(group, id) in regex.names() {
            let value = captures.groups.get(group).copied().flatten();
            let (start, end) = value.unwrap_or((0, 0));
            crate::front::variables::set(self, id, subject.slice(start..end));
        }
        *self.last_match.borrow_mut() = LastMatch { subject: subject.clone(), captures };
    }

    /// Whether an `error_page` of the location is for `status` and may still be used; an upstream
    /// answer is intercepted only then.
    pub fn has_error_page(&self, status: u16) -> bool {
        !self.error_page
            && self.uri_changes > 0
            && self
                .location()
                .settings
                .error_pages
                .iter()
                .any(|page| page.statuses.contains(&status))
    }

    /// Time since the first byte of the request.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether a line of `level` would be written anywhere.
    pub fn logs(&self, level: LogLevel) -> bool {
        self.generation.logs.error_log(self.location).enabled(level)
    }

    /// Writes an error line with nginx's context: client, server, request, upstream, host.
    pub fn log(&self, level: LogLevel, message: impl Display) {
        let log = self.generation.logs.error_log(self.location);
        if log.enabled(level) {
            let line = format_args!("{message}{}", self.context());
            log.write(level, Some(self.connection.serial), line);
        }
    }

    /// What an error line says of its request: client, server, request, upstream, host.
    pub(crate) fn context(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut line = format!(", client: {}", self.connection.client_text());
        line.push_str(&format!(", server: {}", text(&self.server().name)));
        if !self.request_line.is_empty() {
            line.push_str(&format!(", request: \"{}\"", text(&self.request_line)));
        }
        if let Some(peer) = self.upstream.last().and_then(|state| state.address.as_ref()) {
            // nginx writes `http://unix:/path:/target`.
            let colon = if peer.starts_with(b"unix:") { ":" } else { "" };
            let (peer, target) = (text(peer), text(&self.proxy_target));
            let scheme = self.proxy_scheme;
            line.push_str(&format!(", upstream: \"{scheme}{peer}{colon}{target}\""));
        }
        if let Some(host) = self.field("host") {
            line.push_str(&format!(", host: \"{}\"", text(host)));
        }
        if let Some(referrer) = self.field("referer") {
            line.push_str(&format!(", referrer: \"{}\"", text(referrer)));
        }
        line
    }
}
