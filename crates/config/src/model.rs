//! The configuration as the engine uses it: complete, typed, plain data.
//!
//! Everything that nginx merges from level to level is merged here already: a [`Location`] holds
//! every setting that applies inside it. Blocks refer to each other by number, so that the whole
//! is one value that threads can share.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wssgate_syntax::Span;

use crate::hosts::HostTable;
use crate::regex::Regex;
use crate::template::{Template, VariableId};
use crate::variable::Variables;

/// A value and the place where the configuration says it.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

/// Index into [`Http::servers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub usize);

/// Index into [`Http::locations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocationId(pub usize);

/// Index into [`Http::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub usize);

/// Index into [`Http::maps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapId(pub usize);

/// Index into [`Http::log_formats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogFormatId(pub usize);

/// One whole configuration.
#[derive(Debug)]
pub struct Config {
    /// The main level.
    pub core: Core,
    /// The `http` block, when there is one.
    pub http: Option<Http>,
}

/// The main level and `events`.
#[derive(Clone, Debug)]
pub struct Core {
    /// `daemon`: go to the background.
    pub daemon: bool,
    /// `master_process`: accepted; we always run as one process.
    pub master_process: bool,
    /// `worker_processes`; `None` is `auto`.
    pub worker_processes: Option<usize>,
    /// `user`: whom to become when started as root.
    pub user: Option<Located<User>>,
    /// `pid`: the pid file, already relative to the prefix; `None` when `off`.
    pub pid: Option<PathBuf>,
    /// `error_log` lines of the main level.
    pub error_logs: Vec<ErrorLog>,
    /// `worker_rlimit_nofile`: descriptors this process may open.
    pub worker_rlimit_nofile: Option<u64>,
    /// `use`.
    pub event_method: EventMethod,
    /// `worker_connections`: connections per worker.
    pub worker_connections: usize,
    /// `worker_shutdown_timeout`: how long old connections may live after a reload or QUIT.
    pub worker_shutdown_timeout: Option<Duration>,
    /// `working_directory`.
    pub working_directory: Option<PathBuf>,
    /// `env` lines: names to keep and `NAME=value` to set.
    pub env: Vec<Box<[u8]>>,
}

/// `use`: how tunnels are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventMethod {
    /// By the best method that the kernel has and allows.
    Best,
    /// epoll tells which sockets are ready, and each is read and written by a system call.
    Epoll,
    /// The same, with the calls of several sockets made at once by io_uring.
    IoUring,
}

/// `user NAME [GROUP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name of the user.
    pub name: String,
    /// Name of the group; the user's name when not given, as nginx has it.
    pub group: String,
}

/// Where error lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorLog {
    /// The place.
    pub target: LogTarget,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// A place for log lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// A file, already relative to the prefix.
    File(PathBuf),
    /// Standard error.
    Stderr,
    /// `syslog:server=…`: a datagram socket.
    Syslog(Syslog),
}

/// Parameters of a `syslog:` target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Syslog {
    /// Where datagrams go.
    pub server: ListenAddr,
    /// Facility number 0–23.
    pub facility: u8,
    /// Severity number of access lines, 0–7.
    pub severity: u8,
    /// Tag of each line.
    pub tag: String,
    /// Leave the host name out.
    pub nohostname: bool,
}

/// Levels of error lines, the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// The program cannot go on.
    Emerg,
    /// Something that must never happen.
    Alert,
    /// A serious fault.
    Crit,
    /// A request failed.
    Error,
    /// Something to look at.
    Warn,
    /// Normal but worth a line.
    Notice,
    /// Normal.
    Info,
    /// For those who look for a fault of ours.
    Debug,
}

/// The `http` block.
#[derive(Debug)]
pub struct Http {
    /// Every variable that is used.
    pub variables: Variables,
    /// `map`, `geo` and `split_clients` blocks.
    pub maps: Vec<Map>,
    /// `upstream` blocks first, then one implicit group for each host of a `proxy_pass`.
    pub upstreams: Vec<Upstream>,
    /// `server` blocks in order.
    pub servers: Vec<Server>,
    /// All locations, those of `if` blocks and each server's own level too.
    pub locations: Vec<Location>,
    /// What to bind and which servers answer there.
    pub sockets: Vec<ListenSocket>,
    /// `log_format` lines; number 0 is `combined`.
    pub log_formats: Vec<LogFormat>,
}

/// A place to listen or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddr {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// One socket to bind.
#[derive(Debug)]
pub struct ListenSocket {
    /// The address.
    pub address: ListenAddr,
    /// The options of its `listen` lines, taken together.
    pub options: ListenOptions,
    /// Whether clients speak TLS here.
    pub ssl: bool,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The virtual servers by local address: a wildcard socket also serves the specific addresses
    /// of the same port. The entry equal to the connection's local address applies, else the one
    /// equal to `address`, which is always the last.
    pub routes: Vec<AddressRoute>,
    /// Where it was first written.
    pub span: Span,
}

/// Socket options of `listen`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// `backlog=N`; the platform's default (511) when absent.
    pub backlog: Option<u32>,
    /// `rcvbuf=`, bytes.
    pub rcvbuf: Option<usize>,
    /// `sndbuf=`, bytes.
    pub sndbuf: Option<usize>,
    /// `ipv6only=`; on when absent.
    pub ipv6only: Option<bool>,
    /// `reuseport`: one socket for each worker (we do that anyway when there are several).
    pub reuseport: bool,
    /// `deferred`.
    pub deferred: bool,
    /// `fastopen=N`.
    pub fastopen: Option<u32>,
    /// `so_keepalive=`.
    pub so_keepalive: Option<KeepaliveOption>,
}

/// `so_keepalive=on|off|[idle]:[interval]:[count]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepaliveOption {
    /// Turned off.
    Off,
    /// Turned on, with what the system's defaults do not say.
    On {
        /// Idle time before the first probe.
        idle: Option<Duration>,
        /// Time between probes.
        interval: Option<Duration>,
        /// Unanswered probes until the connection is dropped.
        count: Option<u32>,
    },
}

/// The virtual servers of one address.
#[derive(Debug)]
pub struct AddressRoute {
    /// The address of the `listen` line.
    pub address: ListenAddr,
    /// The server for unknown names.
    pub default_server: ServerId,
    /// Servers by name; regular expressions in the order of the file.
    pub names: HostTable<ServerId>,
}

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
}

/// `tls_records`: who seals and opens the TLS records of a tunnel, on both of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRecords {
    /// We do, with the keys of the finished handshake.
    Keys,
    /// rustls keeps doing it.
    Rustls,
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

/// The locations of one level.
#[derive(Clone, Debug, Default)]
pub struct Locations {
    /// `=` locations by path.
    pub exact: HashMap<Box<[u8]>, LocationId>,
    /// Prefix and `^~` locations, sorted by path, so that the longest match comes last.
    pub prefixes: Vec<(Box<[u8]>, LocationId)>,
    /// `~` and `~*` locations in the order of the file.
    pub regexes: Vec<(Regex, LocationId)>,
}

/// What a location's name matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationKind {
    /// `location = /path`.
    Exact,
    /// `location /path`.
    Prefix,
    /// `location ^~ /path`: no regular expressions afterwards.
    PrefixFinal,
    /// `location ~ regex` or `~*`.
    Regex,
    /// `location @name`.
    Named,
    /// An `if` block inside a location, or the server's own level: has no name of its own.
    Unnamed,
}

/// One location with everything that applies in it.
#[derive(Debug)]
pub struct Location {
    /// How it is matched.
    pub kind: LocationKind,
    /// The path, regular expression or `@name` as written; the enclosing location's for `if`.
    pub name: Box<[u8]>,
    /// Whether a request for the name without its final slash is redirected (a prefix ending in
    /// `/` that is passed to an upstream).
    pub auto_redirect: bool,
    /// Nested locations.
    pub locations: Locations,
    /// Rewrite directives in order.
    pub rewrite: Vec<RewriteOp>,
    /// Who answers.
    pub content: Content,
    /// `limit_except`: methods that are exempt (upper case; `GET` includes `HEAD`) and the
    /// location that applies to all others.
    pub limit_except: Option<(Vec<Box<[u8]>>, LocationId)>,
    /// Merged settings.
    pub settings: LocationSettings,
    /// Merged `proxy_*` settings.
    pub proxy: ProxySettings,
    /// Where it was written.
    pub span: Span,
}

/// Who answers a request in a location.
#[derive(Clone, Debug)]
pub enum Content {
    /// Files below `root` or `alias`.
    Files,
    /// `proxy_pass`.
    Proxy(ProxyPass),
    /// `stub_status`.
    StubStatus,
    /// `empty_gif`.
    EmptyGif,
}

/// `proxy_pass`.
#[derive(Clone, Debug)]
pub enum ProxyPass {
    /// The URL had no variables.
    Fixed(FixedPass),
    /// The URL is made for each request.
    Variable(Template),
}

/// `proxy_pass` to a place known at load time.
#[derive(Clone, Debug)]
pub struct FixedPass {
    /// `https://`.
    pub tls: bool,
    /// The group of peers.
    pub upstream: UpstreamId,
    /// `$proxy_host`: name, and port unless it is the scheme's default; `localhost` for Unix
    /// sockets without a name.
    pub host: Box<[u8]>,
    /// `$proxy_port`; empty for Unix sockets.
    pub port: Box<[u8]>,
    /// The URI part with which the matched part of the request's path is replaced.
    pub uri: Option<Box<[u8]>>,
    /// The prefix of the location where `proxy_pass` was written, which `uri` replaces.
    pub location_prefix: Box<[u8]>,
}

/// One rewrite directive, executed in order.
#[derive(Clone, Debug)]
pub enum RewriteOp {
    /// `set $variable value`.
    Set {
        /// The slot.
        variable: VariableId,
        /// The value.
        value: Template,
    },
    /// `rewrite regex replacement [flag]`.
    Rewrite(Rewrite),
    /// `return`.
    Return(Return),
    /// `break`.
    Break,
    /// `if (condition) { … }`.
    If {
        /// When to enter.
        condition: Condition,
        /// Rewrite directives of the block.
        ops: Vec<RewriteOp>,
        /// The location that applies from then on (blocks inside a location only).
        location: Option<LocationId>,
    },
}

/// `rewrite`.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// Matched against the path.
    pub regex: Regex,
    /// The new path, with the text before any `?`.
    pub replacement: Template,
    /// Arguments written in the replacement (after `?`), when there are any.
    pub args: Option<Template>,
    /// Whether the request's own arguments are appended (no trailing `?`).
    pub append_args: bool,
    /// What happens next.
    pub flag: RewriteFlag,
}

/// What follows a matching `rewrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteFlag {
    /// Go on with the next directive; then look for a location again.
    None,
    /// Stop; look for a location with the new path.
    Last,
    /// Stop; stay here.
    Break,
    /// Answer 302.
    Redirect,
    /// Answer 301.
    Permanent,
}

/// `return`.
#[derive(Clone, Debug)]
pub struct Return {
    /// The status; 444 closes the connection without an answer.
    pub status: u16,
    /// The body, or the `Location` for 301, 302, 303, 307 and 308.
    pub text: Option<Template>,
}

/// The condition of an `if`.
#[derive(Clone, Debug)]
pub enum Condition {
    /// A variable is neither empty nor `0`.
    True(VariableId),
    /// `=` or, negated, `!=`.
    Equal {
        /// Left side.
        variable: VariableId,
        /// Right side.
        value: Template,
        /// `!=`.
        negate: bool,
    },
    /// `~`, `~*` and their negations.
    Matches {
        /// What is matched.
        variable: VariableId,
        /// The expression.
        regex: Regex,
        /// `!~`.
        negate: bool,
    },
    /// `-f`, `-d`, `-e`, `-x` and their negations.
    File {
        /// The path.
        path: Template,
        /// What it must be.
        test: FileTest,
        /// `!-f` and the like.
        negate: bool,
    },
}

/// Tests of `if (-f …)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTest {
    /// `-f`: a regular file.
    File,
    /// `-d`: a directory.
    Directory,
    /// `-e`: anything.
    Exists,
    /// `-x`: executable.
    Executable,
}

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
    /// `log_subrequest`.
    pub log_subrequest: bool,
    /// `auth_request`.
    pub auth_request: Option<AuthRequest>,
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

/// File name extensions in lower case and their MIME types.
pub type MimeTypes = HashMap<Box<[u8]>, Box<[u8]>>;

/// `root PATH` or `alias PATH`.
#[derive(Clone, Debug)]
pub struct Root {
    /// The path; already relative to the prefix when it has no variables.
    pub path: Template,
    /// Whether the location's prefix is replaced (`alias`) instead of being appended to.
    pub alias: bool,
    /// The name of the location where `alias` was written, which `path` replaces; empty when that is
    /// a regular expression, whose `alias` replaces the whole path.
    pub alias_prefix: Box<[u8]>,
}

/// `try_files`.
#[derive(Clone, Debug)]
pub struct TryFiles {
    /// Paths to look for, in order; `directory` when written with a final slash.
    pub candidates: Vec<TryFile>,
    /// What happens when none exists.
    pub fallback: TryFallback,
}

/// One candidate of `try_files`.
#[derive(Clone, Debug)]
pub struct TryFile {
    /// The path, without the final slash.
    pub path: Template,
    /// Whether a directory is asked for.
    pub directory: bool,
}

/// The last parameter of `try_files`.
#[derive(Clone, Debug)]
pub enum TryFallback {
    /// `=404`.
    Status(u16),
    /// A URI or `@name`.
    Uri(Template),
}

/// `error_page`.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    /// For these statuses (494–499 included).
    pub statuses: Vec<u16>,
    /// How the response status is chosen.
    pub response: ErrorPageStatus,
    /// A path, `@name` or full URL.
    pub uri: Template,
}

/// The `=` parameter of `error_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorPageStatus {
    /// Not given: the original status (302 for a URL).
    Original,
    /// `=`: whatever the page answers.
    OfPage,
    /// `=200`.
    Fixed(u16),
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

/// `auth_request` and the `auth_request_set` lines that go with it.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    /// The path that is asked.
    pub uri: Box<[u8]>,
    /// Variables and what they become when the answer is there.
    pub set: Vec<(VariableId, Template)>,
}

/// `add_header` or `add_trailer`.
#[derive(Clone, Debug)]
pub struct AddHeader {
    /// Field name.
    pub name: Box<[u8]>,
    /// Value; the field is left out when empty.
    pub value: Template,
    /// For every status, not just the good ones.
    pub always: bool,
}

/// `expires`.
#[derive(Clone, Debug)]
pub enum Expires {
    /// `epoch`: no caching.
    Epoch,
    /// `max`: ten years.
    Max,
    /// `off`.
    Off,
    /// Seconds from now; may be negative.
    Access(i64),
    /// `modified SECONDS`: from the file's time.
    Modified(i64),
    /// `@15h30m`: seconds after midnight.
    Daily(u32),
    /// A value with variables, read like one of the others.
    Variable {
        /// The value.
        value: Template,
        /// Whether `modified` stands before it.
        modified: bool,
    },
}

/// `allow` or `deny`; the first rule that fits decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Allow or deny.
    pub allow: bool,
    /// Whom.
    pub who: AccessFrom,
}

/// The parameter of `allow` and `deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessFrom {
    /// `all`.
    All,
    /// `unix:`.
    Unix,
    /// An address or network: base address and prefix length.
    Network(IpAddr, u8),
}

/// One `access_log` line.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub target: AccessLogTarget,
    /// Which format.
    pub format: LogFormatId,
    /// `if=`: no line when empty or `0`.
    pub condition: Option<Template>,
    /// `buffer=`, bytes; 0 writes each line at once.
    pub buffer: usize,
    /// `flush=`: how long a line may wait in the buffer.
    pub flush: Option<Duration>,
}

/// Place of access lines.
#[derive(Clone, Debug)]
pub enum AccessLogTarget {
    /// A fixed place.
    Fixed(LogTarget),
    /// A path with variables, relative to the prefix.
    Variable(Template),
}

/// `log_format`.
#[derive(Clone, Debug)]
pub struct LogFormat {
    /// Its name.
    pub name: Box<[u8]>,
    /// `escape=`.
    pub escape: LogEscape,
    /// The line, without its end.
    pub line: Template,
}

/// `escape=` of `log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEscape {
    /// `\xHH` for quotes, backslashes and control bytes; `-` for no value.
    Default,
    /// JSON string escapes.
    Json,
    /// Nothing.
    None,
}

/// Merged `proxy_*` settings of a location.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// `proxy_http_version` is 1.1 (else 1.0).
    pub http11: bool,
    /// `websocket`: upgrades pass where no line says what to do with them.
    pub websocket: bool,
    /// `websocket_tcp_user_timeout`.
    pub websocket_tcp_user_timeout: Option<Duration>,
    /// `proxy_set_header` lines that apply here, in order; nothing built in is among them.
    pub set_headers: Vec<(Box<[u8]>, Template)>,
    /// `proxy_set_body`.
    pub set_body: Option<Template>,
    /// `proxy_method`.
    pub method: Option<Template>,
    /// `proxy_pass_request_headers`.
    pub pass_request_headers: bool,
    /// `proxy_pass_request_body`.
    pub pass_request_body: bool,
    /// `proxy_connect_timeout`.
    pub connect_timeout: Duration,
    /// `proxy_read_timeout`, between two reads; of a tunnel: without traffic either way.
    pub read_timeout: Duration,
    /// `proxy_send_timeout`, between two writes.
    pub send_timeout: Duration,
    /// `proxy_next_upstream`.
    pub next_upstream: NextUpstream,
    /// `proxy_next_upstream_timeout`; zero is unlimited.
    pub next_upstream_timeout: Duration,
    /// `proxy_next_upstream_tries`; 0 is unlimited.
    pub next_upstream_tries: u32,
    /// `proxy_buffering`.
    pub buffering: bool,
    /// `proxy_request_buffering`.
    pub request_buffering: bool,
    /// `proxy_buffer_size`, bytes: bound of the response head.
    pub buffer_size: usize,
    /// `proxy_buffers`: how many, and bytes each.
    pub buffers: (usize, usize),
    /// `proxy_busy_buffers_size`, bytes.
    pub busy_buffers_size: usize,
    /// `proxy_redirect` rules, in order.
    pub redirects: Vec<ProxyRedirect>,
    /// `proxy_hide_header`, and the fields hidden by default unless `proxy_pass_header` names
    /// them; lower case.
    pub hide_headers: Vec<Box<[u8]>>,
    /// `proxy_pass_header`, lower case.
    pub pass_headers: Vec<Box<[u8]>>,
    /// `proxy_ignore_headers`, lower case.
    pub ignore_headers: Vec<Box<[u8]>>,
    /// `proxy_intercept_errors`.
    pub intercept_errors: bool,
    /// `proxy_ignore_client_abort`.
    pub ignore_client_abort: bool,
    /// `proxy_socket_keepalive`.
    pub socket_keepalive: bool,
    /// `proxy_bind`: the local address; `None` when absent, off or empty.
    pub bind: Option<Template>,
    /// `proxy_limit_rate`.
    pub limit_rate: Option<Template>,
    /// `proxy_force_ranges`.
    pub force_ranges: bool,
    /// `proxy_pass_trailers`.
    pub pass_trailers: bool,
    /// `proxy_cookie_domain` rules.
    pub cookie_domains: Vec<CookieRewrite>,
    /// `proxy_cookie_path` rules.
    pub cookie_paths: Vec<CookieRewrite>,
    /// `proxy_cookie_flags` rules: cookie name pattern and flags.
    pub cookie_flags: Vec<CookieFlags>,
    /// `proxy_ssl_*`.
    pub tls: ProxyTls,
}

/// When the next peer is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextUpstream {
    /// `error`.
    pub error: bool,
    /// `timeout`.
    pub timeout: bool,
    /// `invalid_header`.
    pub invalid_header: bool,
    /// `non_idempotent`.
    pub non_idempotent: bool,
    /// `http_500` … `http_429`: these statuses.
    pub http_403: bool,
    /// `http_404`.
    pub http_404: bool,
    /// `http_429`.
    pub http_429: bool,
    /// `http_500`.
    pub http_500: bool,
    /// `http_502`.
    pub http_502: bool,
    /// `http_503`.
    pub http_503: bool,
    /// `http_504`.
    pub http_504: bool,
}

/// One `proxy_redirect` rule.
#[derive(Clone, Debug)]
pub enum ProxyRedirect {
    /// `default`, with the texts worked out at load time: the URL of `proxy_pass` becomes the
    /// location's prefix.
    Prefix {
        /// What the `Location` must begin with.
        from: Template,
        /// What replaces it.
        to: Template,
    },
    /// `~` or `~*`.
    Regex {
        /// The expression.
        from: Regex,
        /// What replaces the match.
        to: Template,
    },
}

/// One rule of `proxy_cookie_domain` or `proxy_cookie_path`.
#[derive(Clone, Debug)]
pub struct CookieRewrite {
    /// What is replaced.
    pub from: Pattern,
    /// By what.
    pub to: Template,
}

/// Text or regular expression.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Compared as text (with or without case, as the directive says).
    Text(Template),
    /// A regular expression.
    Regex(Regex),
}

/// One rule of `proxy_cookie_flags`; `None` leaves a flag alone.
#[derive(Clone, Debug)]
pub struct CookieFlags {
    /// Which cookies.
    pub cookie: Pattern,
    /// The flags, e.g. `secure`, `nosamesite`, made for each request.
    pub flags: Vec<Template>,
}

/// `proxy_ssl_*`.
#[derive(Clone, Debug)]
pub struct ProxyTls {
    /// `proxy_ssl_server_name`: send SNI.
    pub server_name: bool,
    /// `proxy_ssl_name`; `$proxy_host` without its port by default.
    pub name: Option<Template>,
    /// `proxy_ssl_verify`.
    pub verify: bool,
    /// `proxy_ssl_verify_depth`.
    pub verify_depth: u32,
    /// `proxy_ssl_trusted_certificate`.
    pub trusted_certificate: Option<Located<PathBuf>>,
    /// `proxy_ssl_crl`.
    pub crl: Option<Located<PathBuf>>,
    /// `proxy_ssl_certificate` and its key, without variables.
    pub certificate: Option<(Located<PathBuf>, Located<PathBuf>)>,
    /// `proxy_ssl_password_file`: one passphrase a line.
    pub password_file: Option<Located<PathBuf>>,
    /// `proxy_ssl_protocols`.
    pub protocols: TlsProtocols,
    /// `proxy_ssl_ciphers`, an OpenSSL cipher string.
    pub ciphers: Located<Box<[u8]>>,
    /// `proxy_ssl_session_reuse`.
    pub session_reuse: bool,
}

/// Protocol versions; those that we do not have are named by `-t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsProtocols {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

/// The `ssl_*` directives of a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Certificate chain and key files, in pairs.
    pub certificates: Vec<CertificateFiles>,
    /// `ssl_password_file`: one passphrase a line.
    pub password_file: Option<Located<PathBuf>>,
    /// `ssl_protocols`.
    pub protocols: TlsProtocols,
    /// `ssl_ciphers`, an OpenSSL cipher string.
    pub ciphers: Located<Box<[u8]>>,
    /// `ssl_prefer_server_ciphers`.
    pub prefer_server_ciphers: bool,
    /// `ssl_ecdh_curve`: groups, in order; empty for `auto`.
    pub ecdh_curves: Vec<Located<Box<[u8]>>>,
    /// `ssl_dhparam`: checked, not used.
    pub dhparam: Option<Located<PathBuf>>,
    /// `ssl_session_cache`.
    pub session_cache: SessionCache,
    /// `ssl_session_timeout`.
    pub session_timeout: Duration,
    /// `ssl_session_tickets`.
    pub session_tickets: bool,
    /// `ssl_session_ticket_key` files.
    pub ticket_keys: Vec<Located<PathBuf>>,
    /// `ssl_reject_handshake`.
    pub reject_handshake: bool,
    /// `ssl_buffer_size`, bytes: the largest record that we send.
    pub buffer_size: usize,
    /// `ssl_verify_client`.
    pub verify_client: VerifyClient,
    /// `ssl_verify_depth`.
    pub verify_depth: u32,
    /// `ssl_client_certificate`.
    pub client_certificate: Option<Located<PathBuf>>,
    /// `ssl_trusted_certificate`.
    pub trusted_certificate: Option<Located<PathBuf>>,
    /// `ssl_crl`.
    pub crl: Option<Located<PathBuf>>,
}

/// One `ssl_certificate` with its `ssl_certificate_key`.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain in PEM, leaf first; relative paths are below the configuration's directory.
    pub chain: Located<PathBuf>,
    /// The private key in PEM.
    pub key: Located<PathBuf>,
}

/// `ssl_session_cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCache {
    /// `off`: sessions may not be reused.
    Off,
    /// `none`: clients are told that they may, but nothing is stored.
    None,
    /// `builtin` or `shared:NAME:SIZE`: name (empty for builtin) and how many sessions about fit.
    Shared {
        /// The zone.
        name: Box<[u8]>,
        /// Sessions.
        sessions: usize,
    },
}

/// `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyClient {
    /// Not asked for.
    Off,
    /// Required.
    On,
    /// Verified when sent.
    Optional,
    /// Taken when sent, not verified against a CA.
    OptionalNoCa,
}

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

/// A `server` line of an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamServer {
    /// As written, for messages.
    pub name: Box<[u8]>,
    /// Every address that the name has; each is a peer.
    pub addresses: Vec<ListenAddr>,
    /// `weight=`.
    pub weight: u32,
    /// `max_conns=`; 0 is unlimited.
    pub max_conns: u32,
    /// `max_fails=`; 0 turns counting off.
    pub max_fails: u32,
    /// `fail_timeout=`.
    pub fail_timeout: Duration,
    /// `backup`.
    pub backup: bool,
    /// `down`.
    pub down: bool,
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

/// A `map` block (also what `geo` and `split_clients` become).
#[derive(Debug)]
pub struct Map {
    /// The variable that it defines, without `$`.
    pub name: Box<str>,
    /// How the value is found.
    pub kind: MapKind,
    /// `volatile`: not cached during a request.
    pub volatile: bool,
}

/// The kinds of [`Map`].
#[derive(Debug)]
pub enum MapKind {
    /// `map SOURCE $name { … }`.
    Map {
        /// What is looked up.
        source: Template,
        /// Whether keys are host names: a final dot of the source is ignored, wildcards work.
        hostnames: bool,
        /// Keys; regular expressions in the order of the file.
        table: HostTable<Template>,
        /// `default`; empty when not given.
        default: Template,
    },
    /// `split_clients SOURCE $name { … }`: upper bounds of a 32-bit hash, in order.
    SplitClients {
        /// What is hashed (MurmurHash2).
        source: Template,
        /// Bound and value; the last bound is `u32::MAX` when `*` was given.
        parts: Vec<(u32, Template)>,
    },
    /// `geo [SOURCE] $name { … }`: networks to values, the longest prefix wins.
    Geo {
        /// The address; `$remote_addr` when not given.
        source: Template,
        /// Networks.
        networks: Vec<(IpAddr, u8, Box<[u8]>)>,
        /// `default`.
        default: Box<[u8]>,
    },
}
