//! One request and everything that variables can see of it.
//!
//! Reading a variable never needs `&mut`: values are computed when first asked for and kept in one
//! cell per variable, so that templates that live in the configuration can be evaluated while the
//! request is borrowed.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use wssgate_config::model::{Http, ListenAddr, Location, LocationId, LogLevel, Server, ServerId};
use wssgate_config::regex::{Captures, Regex};
use wssgate_config::template::{Template, VariableId};
use wssgate_http1::{Fields, Method, RequestHead, ResponseHead, Version};
use wssgate_proxy_protocol::Told;
use wssgate_sys::socket::TcpInfo;
use wssgate_ws::handshake::asks_for_websocket;

use crate::clock;
use crate::exchange::body::BufferedBody;
use crate::exchange::filter::Page;
use crate::exchange::identity::Identity;
use crate::exchange::secrets::{Secrets, shown_uri};
use crate::exchange::subrequests::Subrequests;
use crate::exchange::websocket::TunnelTrace;
use crate::generation::Generation;
use crate::limit::Held;
use crate::site::Site;
use crate::tls::server::TlsInfo;

/// nginx's bound on internal redirects and rewrite cycles of one request.
pub const MAX_URI_CHANGES: u8 = 10;

/// What is known of a client connection; shared by its requests.
pub struct ConnectionInfo {
    /// `$connection`.
    pub serial: u64,
    /// The address at the other end; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// What a header of the PROXY protocol has told.
    pub told: Option<Box<Told>>,
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
    /// Who has the socket, until it leaves for a tunnel.
    pub(crate) holder: RefCell<Option<Weak<dyn HoldsSocket>>>,
}

impl ConnectionInfo {
    /// Whether the client speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What the kernel measures of it; `None` for Unix sockets and when the socket has left.
    pub(crate) fn tcp_info(&self) -> Option<TcpInfo> {
        self.holder.borrow().as_ref()?.upgrade()?.tcp_info()
    }
}

/// An address as `$remote_addr` shows it: `unix:` for everybody on a Unix socket.
pub(crate) fn address_text(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unix:".to_owned(), |ip| ip.to_string())
}

/// Who has the socket of a connection.
pub(crate) trait HoldsSocket {
    /// What the kernel measures of the connection; `None` when it is not TCP.
    fn tcp_info(&self) -> Option<TcpInfo>;
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

/// What is answered, as far as it is known by now.
#[derive(Clone, Debug, Default)]
pub struct ResponseState {
    /// Where a redirect goes (`Location`).
    pub redirect: Option<Bytes>,
    /// Fields that a built-in answer shall have besides, such as WWW-Authenticate.
    pub special_fields: Vec<(Bytes, Bytes)>,
    /// Fields of an upstream's answer with X-Accel-Redirect that the final answer shall have.
    pub carried_fields: Vec<(Bytes, Bytes)>,
    /// Values of the `Set-Cookie` fields that `sticky` adds.
    pub cookies: Vec<Bytes>,
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
#[derive(Clone, Debug, Default)]
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

/// What came: fixed once the head was read.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The head as sent; `None` when it could not be parsed.
    pub head: Option<RequestHead>,
    /// The request line as far as it could be read (`$request`).
    pub line: Bytes,
    /// The version that the client speaks.
    pub version: Version,
    /// `$request_uri`: as sent; `None` when there is none, or it is invalid.
    pub uri: Option<Bytes>,
    /// `$host` without a port, lower case: of the request line or the Host field; empty if none.
    pub host: Bytes,
    /// The port that the request names.
    pub port: Option<u16>,
    /// Whether the request was already waiting when the previous one ended (`$pipe`).
    pub pipelined: bool,
    /// When its first byte came.
    pub at: Instant,
    /// The same by the wall clock.
    pub time: SystemTime,
    /// Bytes of the request line and head.
    pub head_len: u64,
}

impl Arrival {
    /// A request of which nothing is known but its `line`.
    pub fn new(line: Bytes, at: Instant, pipelined: bool) -> Self {
        Self {
            head: None,
            line,
            version: Version::Http10,
            uri: None,
            host: Bytes::new(),
            port: None,
            pipelined,
            at,
            time: clock::now(),
            head_len: 0,
        }
    }

    /// The same in memory of its own: it keeps no buffer of the connection alive.
    pub(crate) fn detached(&self) -> Self {
        let own = Bytes::copy_from_slice;
        let mut detached = self.clone();
        if let Some(head) = &mut detached.head {
            head.detach();
        }
        detached.line = own(&self.line);
        detached.uri = self.uri.as_deref().map(own);
        detached.host = own(&self.host);
        detached
    }
}

/// Bytes of one request on the wire, TLS not counted. Its outlet and the source of its body count
/// them, for a connection may have several requests in work.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes sent for it, interim responses and the head included.
    pub sent: Cell<u64>,
    /// Bytes of its body, as framed on the wire.
    pub body_received: Cell<u64>,
}

impl Traffic {
    /// Counts bytes that were sent.
    pub(crate) fn add_sent(&self, len: usize) {
        self.sent.set(self.sent.get() + len as u64);
    }

    /// Counts bytes of the body.
    pub(crate) fn add_body(&self, len: usize) {
        self.body_received.set(self.body_received.get() + len as u64);
    }
}

/// What is asked for by now: rewrites, `error_page` and internal redirects change it.
#[derive(Debug)]
pub struct Target {
    /// The method in force.
    pub method: Method,
    /// Its name.
    pub method_name: Bytes,
    /// `$uri`: the normalised path.
    pub path: Bytes,
    /// `$args`.
    pub args: RefCell<Bytes>,
    /// Whether `path` and `args` still say what [`Arrival::uri`] says, so that an upstream without
    /// a URI part gets that.
    pub as_sent: Cell<bool>,
    /// Whether the path as sent had escapes or a plus: where nginx puts captures into a new URI it
    /// escapes them then.
    pub quoted: bool,
}

impl Target {
    /// From here on a page is fetched, whatever was asked for: with GET, or HEAD if it was that.
    pub(crate) fn fetch(&mut self) {
        if self.method != Method::Head {
            self.method = Method::Get;
            self.method_name = Bytes::from_static(b"GET");
        }
    }
}

impl Default for Target {
    fn default() -> Self {
        Self {
            method: Method::Other,
            method_name: Bytes::new(),
            path: Bytes::new(),
            args: RefCell::default(),
            as_sent: Cell::new(true),
            quoted: false,
        }
    }
}

/// Which part of the configuration applies, and how the request came there: the phases decide.
#[derive(Debug)]
pub struct Route {
    /// The virtual server.
    pub server: ServerId,
    /// The location that applies now.
    pub location: LocationId,
    /// Who asks for this path.
    pub origin: Origin,
    /// Internal redirects and rewrite cycles that are left.
    pub uri_changes: u8,
    /// Whether an `error_page` is already in force (and `recursive_error_pages` off).
    pub error_page: bool,
    /// Whether `rewrite … break` has replaced the path, so that it no longer stands for the prefix
    /// of its location.
    pub path_replaced: bool,
    /// Whether an `if` without `proxy_pass` was entered behind one that has it.
    pub lost_upstream: bool,
    /// Whether an `alias` of a regular expression is followed by the path that `try_files` found.
    pub path_after_alias: bool,
}

impl Route {
    /// Whether the path is one that only we can ask for, as `internal` locations demand.
    pub fn is_internal(&self) -> bool {
        !matches!(self.origin, Origin::Client)
    }

    /// We go on with another path.
    pub fn redirect(&mut self) {
        // A subrequest stays one, wherever it is led.
        if matches!(self.origin, Origin::Client) {
            self.origin = Origin::Internal;
        }
    }

    /// At the level of a server, before any location was looked for.
    pub fn new(server: ServerId, location: LocationId) -> Self {
        Self {
            server,
            location,
            origin: Origin::Client,
            uri_changes: MAX_URI_CHANGES + 1,
            error_page: false,
            path_replaced: false,
            lost_upstream: false,
            path_after_alias: false,
        }
    }
}

/// Who asks for a path.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The client, by the path that it sent.
    Client,
    /// An internal redirect or a rewrite.
    Internal,
    /// We ourselves, for another request.
    Subrequest(Parent),
}

/// What a subrequest shows of the request for which it is made.
#[derive(Clone, Debug)]
pub struct Parent {
    /// `$request_method`.
    pub method_name: Bytes,
    /// How many requests lie between this one and the client's.
    pub depth: u8,
    /// Whether nothing is answered rather than a page about an error.
    pub or_nothing: bool,
    /// Whether it is for ourselves and not for the client, whose fields are then not passed on.
    pub own: bool,
}

/// What becomes of the connection after the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// Whether it may be kept.
    pub keepalive: bool,
    /// Whether closing may linger for what the client still sends.
    pub lingering: bool,
    /// Whether the body was refused for its length, which is not asked again for the error page.
    pub too_large: bool,
}

/// What is known of the upstream: `content::proxy` writes it, variables and log lines read it.
#[derive(Debug, Default)]
pub struct UpstreamTrace {
    /// Attempts at peers, for `$upstream_*`.
    pub attempts: Vec<UpstreamState>,
    /// The head of the last answer of a peer, for `$upstream_http_*`.
    pub head: Option<ResponseHead>,
    /// Trailers of the last answer of a peer.
    pub trailers: Option<Fields>,
    /// `$proxy_host` of the `proxy_pass` in work.
    pub host: Bytes,
    /// `$proxy_port`.
    pub port: Bytes,
    /// `http://` or `https://`, as log lines put it before the peer.
    pub scheme: &'static str,
    /// The target that the upstream is asked for.
    pub target: Bytes,
}

/// What `limit_req` and `limit_conn` have decided, each once for a request and all that is made for it.
#[derive(Debug, Default)]
pub struct LimitTrace {
    /// `$limit_req_status`.
    pub(crate) requests: Cell<Option<&'static str>>,
    /// `$limit_conn_status`.
    pub(crate) connections: Cell<Option<&'static str>>,
    /// Whether it had its turn among the handshakes.
    pub(crate) handshake: Cell<bool>,
    /// For as long as the request or its tunnel is in progress.
    pub(crate) held: RefCell<Vec<Held>>,
}

impl LimitTrace {
    /// What a subrequest need not decide again.
    pub(crate) fn of_subrequest(&self) -> Self {
        let (requests, connections) = (self.requests.clone(), self.connections.clone());
        Self { requests, connections, ..Self::default() }
    }

    /// Takes what a subrequest has decided.
    pub(crate) fn take_over(&self, subrequest: &Self) {
        self.requests.set(subrequest.requests.get());
        self.connections.set(subrequest.connections.get());
        self.held.borrow_mut().append(&mut subrequest.held.borrow_mut());
    }
}

/// The variables that were given a value, and what evaluating them needs.
#[derive(Debug, Default)]
pub struct Values {
    /// One cell for each variable of the configuration; subrequests share those of their parent.
    pub(crate) cells: Rc<[RefCell<Value>]>,
    pub(crate) last_match: RefCell<LastMatch>,
    /// What SSI commands of the page have said; subrequests share it with their parent.
    pub(crate) page: RefCell<Option<Rc<Page>>>,
    /// The charset of the answer to the client, into which its subrequests put theirs.
    pub(crate) charset: RefCell<Option<Bytes>>,
    /// The format of `$date_gmt` and `$date_local`, when an SSI command has set it.
    pub(crate) time_format: RefCell<Option<String>>,
    /// `limit_rate` set through `$limit_rate`.
    pub(crate) limit_rate: RefCell<Option<Bytes>>,
    /// `$secure_link_expires`, once `$secure_link` was asked for.
    pub(crate) link_expires: RefCell<Option<Bytes>>,
    /// How deep maps that refer to maps are being evaluated.
    pub(crate) depth: Cell<u8>,
}

impl Values {
    /// What variables were given, in cells and memory of their own.
    pub(crate) fn detached(&self) -> Self {
        let copy = |cell: &RefCell<Value>| {
            RefCell::new(match &*cell.borrow() {
                Value::Known(value) => Value::Known(Bytes::copy_from_slice(value)),
                other => other.clone(),
            })
        };
        Self { cells: self.cells.iter().map(copy).collect(), ..Self::default() }
    }

    /// None of `count` variables has a value.
    pub(crate) fn none_of(count: usize) -> Self {
        Self { cells: (0..count).map(|_| RefCell::default()).collect(), ..Self::default() }
    }
}

/// One request.
pub struct Request {
    /// The configuration that it began with.
    pub generation: Arc<Generation>,
    /// What it needs of the worker that serves it.
    pub site: Rc<Site>,
    /// Its connection.
    pub connection: Rc<ConnectionInfo>,
    /// Who asks, by the word of a trusted proxy if there is one; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// Whether a trusted proxy has said who asks; none is asked again.
    pub vouched_for: bool,
    /// What came.
    pub arrival: Arrival,
    /// What passes on the wire for it.
    pub traffic: Rc<Traffic>,
    /// What is asked for by now.
    pub target: Target,
    /// Which part of the configuration applies.
    pub route: Route,
    /// What becomes of the connection.
    pub fate: Fate,
    /// What is answered.
    pub response: ResponseState,
    /// What is known of the upstream.
    pub upstream: UpstreamTrace,
    /// What limits have decided.
    pub limits: LimitTrace,
    /// What is known of the tunnel that it has become.
    pub tunnel: TunnelTrace,
    /// The body, once it was read as a whole.
    pub body: Option<Rc<BufferedBody>>,
    /// The values of variables.
    pub values: Values,
    /// Who it is from, as its token says.
    pub identity: Rc<Identity>,
    /// What of it must not get into log lines.
    pub secrets: Rc<Secrets>,
    /// How many subrequests it has led to; they share the count.
    pub subrequests: Rc<Subrequests>,
}

impl Request {
    /// A request that has just arrived on `connection`, at the level of `server`.
    pub fn new(
        generation: Arc<Generation>,
        site: Rc<Site>,
        connection: Rc<ConnectionInfo>,
        server: ServerId,
        arrival: Arrival,
    ) -> Self {
        let http = generation.http();
        let route = Route::new(server, http.servers[server.0].location);
        let values = Values::none_of(http.variables.len());
        Self {
            generation,
            site,
            client: connection.peer,
            vouched_for: false,
            connection,
            arrival,
            traffic: Rc::default(),
            target: Target::default(),
            route,
            fate: Fate::default(),
            response: ResponseState::default(),
            upstream: UpstreamTrace::default(),
            limits: LimitTrace::default(),
            tunnel: TunnelTrace::default(),
            body: None,
            values,
            identity: Rc::default(),
            secrets: Rc::default(),
            subrequests: Rc::default(),
        }
    }

    /// The address of the client; `None` on a Unix socket.
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client.map(|address| address.ip())
    }

    /// `$remote_addr`: `unix:` for Unix sockets.
    pub fn client_text(&self) -> String {
        address_text(self.client_ip())
    }

    /// How many requests lie between this one and the client's; 0: it is the client's.
    pub fn depth(&self) -> u8 {
        match &self.route.origin {
            Origin::Subrequest(parent) => parent.depth,
            Origin::Client | Origin::Internal => 0,
        }
    }

    /// `$request_method`: a subrequest shows that of the request for which it is made, as in nginx.
    pub fn shown_method(&self) -> &Bytes {
        match &self.route.origin {
            Origin::Subrequest(parent) => &parent.method_name,
            Origin::Client | Origin::Internal => &self.target.method_name,
        }
    }

    /// Whether we make it ourselves for another request.
    pub fn is_subrequest(&self) -> bool {
        matches!(self.route.origin, Origin::Subrequest(_))
    }

    /// Whether we make it for ourselves, so that nothing of the client goes with it.
    pub fn is_own(&self) -> bool {
        matches!(&self.route.origin, Origin::Subrequest(parent) if parent.own)
    }

    /// Whether it asks for a switch to WebSocket, well or badly.
    pub fn asks_for_websocket(&self) -> bool {
        self.arrival.head.as_ref().is_some_and(|head| asks_for_websocket(head.fields().iter()))
    }

    /// The `http` block.
    pub fn http(&self) -> &Http {
        self.generation.http()
    }

    /// The location that applies now.
    pub fn location(&self) -> &Location {
        &self.http().locations[self.route.location.0]
    }

    /// The virtual server.
    pub fn server(&self) -> &Server {
        &self.http().servers[self.route.server.0]
    }

    /// The fields as sent; none when the head could not be parsed.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.arrival.head.as_ref()?.fields().first(name)
    }

    /// The value of a variable; `None` when it has none.
    pub fn variable(&self, id: VariableId) -> Option<Bytes> {
        crate::exchange::variables::value(self, id)
    }

    /// The text of a template; variables without a value are empty.
    pub fn text(&self, template: &Template) -> Bytes {
        crate::exchange::variables::text(self, template)
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
            // A group that took no part is empty; unset, its variable would keep what an earlier
            // match has said.
            let value = captures.groups.get(group).copied().flatten();
            let (start, end) = value.unwrap_or((0, 0));
            crate::exchange::variables::set(self, id, subject.slice(start..end));
        }
        *self.values.last_match.borrow_mut() = LastMatch { subject: subject.clone(), captures };
    }

    /// Whether an `error_page` of the location is for `status` and may still be used; an upstream
    /// answer is intercepted only then.
    pub fn has_error_page(&self, status: u16) -> bool {
        !self.route.error_page
            && self.route.uri_changes > 0
            && self
                .location()
                .settings
                .error_pages
                .iter()
                .any(|page| page.statuses.contains(&status))
    }

    /// Time since the first byte of the request.
    pub fn elapsed(&self) -> Duration {
        self.arrival.at.elapsed()
    }

    /// Whether a line of `level` would be written anywhere.
    pub fn logs(&self, level: LogLevel) -> bool {
        self.generation.logs.error_log(self.route.location).enabled(level)
    }

    /// Writes an error line with nginx's context: client, server, request, upstream, host.
    pub fn log(&self, level: LogLevel, message: impl Display) {
        let log = self.generation.logs.error_log(self.route.location);
        if log.enabled(level) {
            let line = format_args!("{message}{}", self.context());
            log.write(level, Some(self.connection.serial), line);
        }
    }

    /// What an error line says of its request: client, server, request, upstream, host.
    pub(crate) fn context(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let uri = |bytes: &[u8]| text(&shown_uri(self, bytes));
        let mut line = format!(", client: {}", self.client_text());
        line.push_str(&format!(", server: {}", text(&self.server().name)));
        if !self.arrival.line.is_empty() {
            line.push_str(&format!(", request: \"{}\"", uri(&self.arrival.line)));
        }
        if self.is_subrequest() {
            line.push_str(&format!(", subrequest: \"{}\"", uri(&self.target.path)));
        }
        if let Some(peer) = self.upstream.attempts.last().and_then(|state| state.address.as_ref()) {
            // nginx writes `http://unix:/path:/target`.
            let colon = if peer.starts_with(b"unix:") { ":" } else { "" };
            let (peer, target) = (text(peer), uri(&self.upstream.target));
            let scheme = self.upstream.scheme;
            line.push_str(&format!(", upstream: \"{scheme}{peer}{colon}{target}\""));
        }
        if let Some(host) = self.field("host") {
            line.push_str(&format!(", host: \"{}\"", text(host)));
        }
        if let Some(referrer) = self.field("referer") {
            line.push_str(&format!(", referrer: \"{}\"", uri(referrer)));
        }
        line
    }
}
