//! What to bind, and which server answers there.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word, printable};

use crate::acme::ACME_CERTIFICATE;
use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, Parameter, S};
use crate::hosts::{HostPattern, HostTable};
use crate::level::Level;
use crate::read::{Reading, Reads, parameter, parameter_names, unknown_parameter};
use crate::server::{self, Server, ServerId, server_names};
use crate::server_name::ServerName;
use crate::tls;
use crate::value::{self, Form, Host, ListenAddr};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&LISTEN];

/// `listen`
pub(crate) static LISTEN: Directive<Listen> = Directive {
    name: "listen",
    contexts: S,
    arity: AtLeast(1),
    doc: "Sets an address and port, or a UNIX-domain socket, on which the server accepts \
          connections. Without this directive the server listens on `*:80`, or on `*:8000` if it \
          is not started by root.",
    parameters: PARAMETERS,
    example: EXAMPLE,
    ..Directive::repeated(listen)
};

const PARAMETERS: &[Parameter] = &[
    ("ADDRESS:PORT", "an address of this machine, or a name that is resolved at the start"),
    ("PORT", "all IPv4 addresses, like `*:PORT`; if only an address is given, the port is 80"),
    ("[::]:PORT", "all IPv6 addresses; IPv4 needs a line of its own, or `ipv6only=off`"),
    ("FIRST-LAST", "all ports from the first to the last, with or without a preceding address"),
    ("unix:PATH", "a UNIX-domain socket, which any user of this machine can connect to"),
    (
        "default_server",
        "requests for names that match no server are handled by this server; without it, by the \
         first server of the address. `default` is the same",
    ),
    ("ssl", "accepts TLS connections"),
    (
        "proxy_protocol",
        "every connection must begin with a PROXY protocol header, version 1 or 2, as sent by load \
         balancers; see `set_real_ip_from`",
    ),
    ("http2", "has no effect: clients that support HTTP/2 use HTTP/1.1"),
    (
        "backlog=NUMBER",
        "how many connections may wait to be accepted; 511 by default, and never more than `net.core.somaxconn`",
    ),
    (
        "reuseport",
        "gives each worker its own socket, so that the kernel distributes connections; always done \
         if there are several workers",
    ),
    ("ipv6only=on|off", "whether an IPv6 socket accepts IPv6 only; `on` by default"),
    (
        "so_keepalive=on|off|IDLE:INTERVAL:COUNT",
        "TCP keepalive probes: the idle time before the first, the interval, and how many \
         unanswered probes end the connection; each of the three may be omitted. The system's \
         settings apply by default. WebSockets are pinged in any case (`websocket_ping_interval`)",
    ),
    ("deferred", "accepts a connection only when the client has sent data (`TCP_DEFER_ACCEPT`)"),
    ("fastopen=NUMBER", "TCP Fast Open with a queue of this length; off by default"),
    ("rcvbuf=SIZE", "receive buffer size (`SO_RCVBUF`); chosen by the system by default"),
    ("sndbuf=SIZE", "send buffer size (`SO_SNDBUF`); chosen by the system by default"),
    ("bind", "a separate socket for this address, which every address has anyway"),
];

const EXAMPLE: &str = "\
server {
    listen 443 ssl default_server;
    listen [::]:443 ssl default_server;
    ssl_reject_handshake on;
}

server {
    listen 127.0.0.1:8080 proxy_protocol backlog=4096 so_keepalive=10m:30s:5;
    location / { proxy_pass http://localhost:8282; }
}";

/// One socket to bind.
#[derive(Debug)]
pub struct ListenSocket {
    /// The address.
    pub address: ListenAddr,
    /// The options of its `listen` lines, taken together.
    pub options: ListenOptions,
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
    /// `ssl`: clients speak TLS here.
    pub ssl: bool,
    /// `proxy_protocol`: connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// The server for unknown names.
    pub default_server: ServerId,
    /// Servers by name; regular expressions in the order of the file.
    pub names: HostTable<ServerId>,
}

/// One `listen` line.
#[derive(Clone)]
pub(crate) struct Listen {
    /// Every address that it means: names have several, port ranges too.
    pub(crate) addresses: Vec<ListenAddr>,
    pub(crate) default_server: bool,
    pub(crate) ssl: bool,
    pub(crate) proxy_protocol: bool,
    /// Whether socket options are given (`bind` too): only one line of an address may do that.
    pub(crate) set: bool,
    pub(crate) options: ListenOptions,
}

/// A port for `listen` lines that name none.
const DEFAULT_PORT: u16 = 80;

fn listen(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Listen> {
    let word = &directive.args[0];
    let mut listen = Listen {
        addresses: listen_addresses(reading, word)?,
        default_server: false,
        ssl: false,
        proxy_protocol: false,
        set: false,
        options: ListenOptions::default(),
    };
    for word in &directive.args[1..] {
        match &*word.value {
            b"default_server" | b"default" => listen.default_server = true,
            b"ssl" => listen.ssl = true,
            b"http2" => {
                let message =
                    "the \"http2\" parameter has no effect: only HTTP/1.1 is supported so far";
                if reading.noted.insert(message) {
                    reading
                        .report
                        .push(Diagnostic::idle("http2 of listen", message).at(word.span, ""));
                }
            }
            b"proxy_protocol" => listen.proxy_protocol = true,
            b"quic" => {
                let help = "HTTP/3 is not implemented; remove this line, and clients will use TLS over TCP";
                return Err(Diagnostic::error("the \"quic\" parameter is not supported")
                    .at(word.span, "")
                    .help(help));
            }
            _ => {
                socket_option(&mut listen.options, word)?;
                listen.set = true;
            }
        }
    }
    Ok(listen)
}

fn listen_addresses(reading: &Reading<'_>, word: &Word) -> Result<Vec<ListenAddr>, Diagnostic> {
    let problem = |what: &str| {
        Diagnostic::error(format!("{what} in \"{word}\" of the \"listen\" directive"))
            .at(word.span, "")
    };
    let mut endpoint = value::endpoint(&word.value, Form::Listen).map_err(problem)?;
    let first = endpoint.port.unwrap_or(DEFAULT_PORT);
    let mut addresses = Vec::new();
    for port in first..=endpoint.last_port.unwrap_or(first) {
        endpoint.port = Some(port);
        let found = reading.addresses(&endpoint, DEFAULT_PORT);
        addresses.extend(found.map_err(|_| problem("host not found"))?);
        if matches!(endpoint.host, Host::Unix(_)) {
            break;
        }
    }
    Ok(addresses)
}

fn socket_option(options: &mut ListenOptions, word: &Word) -> Result<(), Diagnostic> {
    let invalid =
        |what: &str| Diagnostic::error(format!("invalid {what} \"{word}\"")).at(word.span, "");
    let number = |text| value::number(text).and_then(|value| u32::try_from(value).ok());
    if let Some(text) = parameter(word, "backlog=") {
        options.backlog =
            Some(number(text).filter(|&value| value > 0).ok_or_else(|| invalid("backlog"))?);
    } else if let Some(text) = parameter(word, "rcvbuf=") {
        options.rcvbuf = Some(value::size(text).ok_or_else(|| invalid("rcvbuf"))? as usize);
    } else if let Some(text) = parameter(word, "sndbuf=") {
        options.sndbuf = Some(value::size(text).ok_or_else(|| invalid("sndbuf"))? as usize);
    } else if let Some(text) = parameter(word, "fastopen=") {
        options.fastopen = Some(number(text).ok_or_else(|| invalid("fastopen"))?);
    } else if let Some(text) = parameter(word, "ipv6only=o") {
        options.ipv6only = Some(match text {
            b"n" => true,
            b"ff" => false,
            _ => return Err(invalid("ipv6only flags")),
        });
    } else if let Some(text) = parameter(word, "so_keepalive=") {
        let option = keepalive(text).ok_or_else(|| {
            let text = wssgate_syntax::printable(text);
            Diagnostic::error(format!("invalid so_keepalive value: \"{text}\"")).at(word.span, "")
        })?;
        options.so_keepalive = Some(option);
    } else if word.is("reuseport") {
        options.reuseport = true;
    } else if word.is("deferred") {
        options.deferred = true;
    } else if !word.is("bind") {
        return Err(unknown_parameter(word, &parameter_names(LISTEN.parameters)));
    }
    Ok(())
}

/// `on`, `off` or `[idle]:[interval]:[count]`, of which at least one is given.
fn keepalive(text: &[u8]) -> Option<KeepaliveOption> {
    match text {
        b"on" => return Some(KeepaliveOption::On { idle: None, interval: None, count: None }),
        b"off" => return Some(KeepaliveOption::Off),
        _ => {}
    }
    let mut parts = text.splitn(3, |&byte| byte == b':');
    let mut part = || parts.next().filter(|part| !part.is_empty());
    let time = |part: Option<&[u8]>| match part {
        None => Some(None),
        Some(text) => value::seconds(text).map(Some),
    };
    let (idle, interval) = (time(part())?, time(part())?);
    let count = match part() {
        None => None,
        Some(text) => Some(u32::try_from(value::number(text)?).ok()?),
    };
    let nothing = idle.is_none_or(|time| time.is_zero())
        && interval.is_none_or(|time| time.is_zero())
        && count.is_none_or(|count| count == 0);
    (!nothing).then_some(KeepaliveOption::On { idle, interval, count })
}

/// One address with everything that `listen` lines say about it.
struct Address {
    address: ListenAddr,
    servers: Vec<ServerId>,
    default_server: Option<ServerId>,
    /// Whether some line gave socket options.
    set: bool,
    options: ListenOptions,
    ssl: bool,
    proxy_protocol: bool,
    span: Span,
}

/// The addresses in order; there may be thousands.
#[derive(Default)]
struct Addresses {
    all: Vec<Address>,
    by_address: HashMap<ListenAddr, usize>,
}

impl Addresses {
    fn known(&mut self, address: &ListenAddr) -> Option<&mut Address> {
        self.by_address.get(address).map(|&at| &mut self.all[at])
    }

    fn push(&mut self, address: Address) {
        self.by_address.insert(address.address.clone(), self.all.len());
        self.all.push(address);
    }
}

/// The sockets of all servers.
pub(crate) fn sockets(
    reading: &mut Reading<'_>,
    servers: &[Server],
    http: &Level<'_>,
) -> Vec<ListenSocket> {
    Sockets { reading, servers }.all(http)
}

/// What is known while sockets are made of `listen` lines.
struct Sockets<'r, 'a> {
    reading: &'r mut Reading<'a>,
    servers: &'r [Server],
}

impl Sockets<'_, '_> {
    fn all(&mut self, http: &Level<'_>) -> Vec<ListenSocket> {
        let levels: Vec<(&Level<'_>, Span)> = http
            .lines(&server::SERVER)
            .filter_map(|line| Some((line.level?, line.directive.head())))
            .collect();
        let mut addresses = Addresses::default();
        for (index, (level, span)) in levels.iter().enumerate() {
            self.listens(&mut addresses, ServerId(index), level, *span);
        }
        let names: Vec<Vec<ServerName>> =
            levels.iter().map(|(level, _)| server_names(level)).collect();
        let mut addresses = addresses.all;
        for address in &mut addresses {
            let (level, _) = levels[default_server(address).0];
            let old =
                level.last(&tls::SSL).or_else(|| http.last(&tls::SSL)).copied().unwrap_or(false);
            if address.ssl || old {
                let said = if address.ssl { "listen ... ssl" } else { "ssl" };
                self.check_certificate(address, said);
                address.ssl = true;
            }
        }
        self.check_acme(&addresses, &levels);
        let routes: Vec<AddressRoute> =
            addresses.iter().map(|address| self.route(address, &names)).collect();
        bind(addresses, routes)
    }

    fn listens(
        &mut self,
        addresses: &mut Addresses,
        server: ServerId,
        level: &Level<'_>,
        span: Span,
    ) {
        if !level.has(&LISTEN) {
            let port = if privileged() { 80 } else { 8000 };
            let any = ListenAddr::Ip(SocketAddr::from(([0, 0, 0, 0], port)));
            let listen = Listen {
                addresses: vec![any],
                default_server: false,
                ssl: false,
                proxy_protocol: false,
                set: false,
                options: ListenOptions::default(),
            };
            self.listen(addresses, server, &listen, span);
        }
        for line in level.lines(&LISTEN) {
            if let Some(listen) = line.value {
                self.listen(addresses, server, listen, line.directive.head());
            }
        }
    }

    fn listen(&mut self, addresses: &mut Addresses, server: ServerId, listen: &Listen, span: Span) {
        for address in &listen.addresses {
            match addresses.known(address) {
                Some(known) => self.listen_again(known, server, listen, span),
                None => addresses.push(Address {
                    address: address.clone(),
                    servers: vec![server],
                    default_server: listen.default_server.then_some(server),
                    set: listen.set,
                    options: listen.options.clone(),
                    ssl: listen.ssl,
                    proxy_protocol: listen.proxy_protocol,
                    span,
                }),
            }
        }
    }

    /// A further `listen` line of an address: another server, and nothing said twice.
    fn listen_again(&mut self, known: &mut Address, server: ServerId, listen: &Listen, span: Span) {
        let text = known.address.to_string();
        let first = known.span;
        let mut problem = |message: String| {
            let problem = Diagnostic::error(message).at(span, "");
            self.reading.report.push(problem.at(first, "first given here"));
        };
        // The servers come in order.
        if known.servers.last() == Some(&server) {
            return problem(format!("a duplicate listen {text}"));
        }
        if listen.set && known.set {
            problem(format!("duplicate listen options for {text}"));
        }
        if listen.default_server && known.default_server.is_some() {
            problem(format!("a duplicate default server for {text}"));
        }
        known.servers.push(server);
        known.ssl |= listen.ssl;
        known.proxy_protocol |= listen.proxy_protocol;
        if listen.set {
            known.set = true;
            known.options = listen.options.clone();
        }
        if listen.default_server {
            known.default_server = Some(server);
        }
    }

    /// The default server of a TLS address must be able to speak TLS, or to refuse.
    fn check_certificate(&mut self, address: &Address, said: &str) {
        let default = default_server(address);
        let lacks = |server: &ServerId| {
            let tls = &self.servers[server.0].tls;
            !tls.has_certificates() && !tls.reject_handshake
        };
        let tls = &self.servers[default.0].tls;
        let culprit = if !tls.has_certificates() && tls.reject_handshake {
            // Only refusals by default: then every other server must have its own.
            address.servers.iter().find(|server| lacks(server)).copied()
        } else {
            lacks(&default).then_some(default)
        };
        if let Some(server) = culprit {
            let message = format!("no \"ssl_certificate\" is defined for the \"{said}\" directive");
            let problem = Diagnostic::error(message).at(self.servers[server.0].span, "");
            let problem = problem.at(address.span, "TLS is enabled here");
            let help = "add `ssl_certificate` and `ssl_certificate_key`";
            self.reading.report.push(problem.help(help));
        }
    }

    /// A server whose certificate is to be obtained by ACME must say from whom.
    fn check_acme(&mut self, addresses: &[Address], levels: &[(&Level<'_>, Span)]) {
        for (index, (level, span)) in levels.iter().enumerate() {
            let tls = &self.servers[index].tls;
            let lacks = tls.acme && !tls.reject_handshake && !level.has(&ACME_CERTIFICATE);
            let speaks =
                |address: &Address| address.ssl && address.servers.contains(&ServerId(index));
            if lacks && addresses.iter().any(speaks) {
                let message =
                    "no \"acme_certificate\" is defined for \"ssl_certificate $acme_certificate\"";
                let help = "add `acme_certificate ISSUER;`, or `ssl_reject_handshake on;`";
                self.reading.report.push(Diagnostic::error(message).at(*span, "").help(help));
            }
        }
    }

    fn route(&mut self, address: &Address, names: &[Vec<ServerName>]) -> AddressRoute {
        let mut table = HostTable::default();
        for server in &address.servers {
            let mut seen: HashSet<&[u8]> = HashSet::new();
            let mut own = HostTable::default();
            for name in names[server.0].iter().filter(|name| seen.insert(&name.text.value)) {
                self.add_name(&mut table, &mut own, address, name, *server);
            }
            if names[server.0].is_empty() && !table.add_exact(b"", *server) {
                let span = self.servers[server.0].span;
                self.conflict(b"", address, span, "another server without a name is there");
            }
        }
        AddressRoute {
            address: address.address.clone(),
            ssl: address.ssl,
            proxy_protocol: address.proxy_protocol,
            default_server: default_server(address),
            names: table,
        }
    }

    fn add_name(
        &mut self,
        table: &mut HostTable<ServerId>,
        own: &mut HostTable<()>,
        address: &Address,
        name: &ServerName,
        server: ServerId,
    ) {
        let text = &name.text;
        match (&name.regex, HostPattern::parse(&text.value)) {
            (Some(regex), _) => table.add_regex(regex.clone(), server),
            (None, Some(pattern)) => {
                let why = match own.add(pattern, ()) {
                    true => "another server has it already",
                    false => "another name of this server says it already",
                };
                if !table.add(pattern, server) {
                    self.conflict(&text.value, address, text.span, why);
                }
            }
            (None, None) => {
                let on = &address.address;
                let shown = printable(&text.value);
                let message = format!("invalid server name or wildcard \"{shown}\" on {on}");
                // nginx only looks at names where there is a choice between servers.
                let problem = match address.servers.len() {
                    1 => Diagnostic::warning(message),
                    _ => Diagnostic::error(message),
                };
                self.reading.report.push(problem.at(text.span, "matches nothing"));
            }
        }
    }

    fn conflict(&mut self, name: &[u8], address: &Address, span: Span, why: &str) {
        let (name, on) = (printable(name), &address.address);
        let message = format!("conflicting server name \"{name}\" on {on}, ignored");
        self.reading.report.push(Diagnostic::warning(message).at(span, why));
    }
}

fn default_server(address: &Address) -> ServerId {
    address.default_server.unwrap_or(address.servers[0])
}

/// Gives each address a socket, or a place on the wildcard socket of its port. nginx binds an address beside its
/// wildcard only when the address has socket options of its own.
fn bind(addresses: Vec<Address>, routes: Vec<AddressRoute>) -> Vec<ListenSocket> {
    let wildcards: Vec<SocketAddr> = addresses
        .iter()
        .filter_map(|address| match address.address {
            ListenAddr::Ip(address) if address.ip().is_unspecified() => Some(address),
            _ => None,
        })
        .collect();
    let mut sockets: Vec<ListenSocket> = Vec::new();
    let mut shared: Vec<(SocketAddr, AddressRoute)> = Vec::new();
    for (address, route) in addresses.into_iter().zip(routes) {
        if let Some(wildcard) = wildcard_of(&address, &wildcards) {
            shared.push((wildcard, route));
            continue;
        }
        sockets.push(ListenSocket {
            address: address.address,
            options: address.options,
            routes: vec![route],
            span: address.span,
        });
    }
    for (wildcard, route) in shared {
        let wildcard = ListenAddr::Ip(wildcard);
        if let Some(socket) = sockets.iter_mut().find(|socket| socket.address == wildcard) {
            socket.routes.insert(0, route);
        }
    }
    sockets
}

fn wildcard_of(address: &Address, wildcards: &[SocketAddr]) -> Option<SocketAddr> {
    let ListenAddr::Ip(own) = address.address else {
        return None;
    };
    if address.set || own.ip().is_unspecified() {
        return None;
    }
    let covers = |wildcard: &&SocketAddr| {
        wildcard.port() == own.port() && wildcard.is_ipv4() == own.is_ipv4()
    };
    wildcards.iter().find(covers).copied()
}

/// Whether this process may bind ports below 1024, as nginx judges it: by being root.
fn privileged() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
