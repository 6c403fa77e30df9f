//! `server` lines of an upstream.

use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Parameter;
use crate::read::{
    Reading, Reads, invalid_parameter, parameter, parameter_names, unknown_parameter,
};
use crate::value::{self, Endpoint, Form, Host, ListenAddr};

/// A `server` line of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// As written, for messages.
    pub name: Box<[u8]>,
    /// Every address that the name has; each is a peer. Of a name that is looked up while the server
    /// runs: those that are known.
    pub addresses: Vec<ListenAddr>,
    /// `weight=`.
    pub weight: u32,
    /// `max_conns=`; 0 is unlimited.
    pub max_conns: u32,
    /// `max_fails=`; 0 turns counting off.
    pub max_fails: u32,
    /// `fail_timeout=`.
    pub fail_timeout: Duration,
    /// `slow_start=`: within which time after its return its weight grows to the full one.
    pub slow_start: Duration,
    /// `backup`.
    pub backup: bool,
    /// `down`.
    pub down: bool,
    /// `drain`: only clients that stick to it are sent there.
    pub drain: bool,
    /// `route=`: what `sticky` calls it, instead of the MD5 of its address.
    pub route: Option<Box<[u8]>>,
    /// `resolve`: the name is looked up while the server runs.
    pub resolve: Option<Resolve>,
}

/// A name that is looked up while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// The name.
    pub host: Box<str>,
    /// The port of its addresses; a service says its own.
    pub port: u16,
    /// `service=`: which service of it (SRV records).
    pub service: Option<Box<[u8]>>,
}

impl UpstreamServer {
    /// A server with the defaults of all parameters.
    pub fn new(name: Box<[u8]>, addresses: Vec<ListenAddr>) -> Self {
        Self {
            name,
            addresses,
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: DEFAULT_FAIL_TIMEOUT,
            slow_start: Duration::ZERO,
            backup: false,
            down: false,
            drain: false,
            route: None,
            resolve: None,
        }
    }
}

const DEFAULT_PORT: u16 = 80;

/// The longest name of a route, as long as an MD5 in digits.
pub const MAX_ROUTE_LEN: usize = 32;

const DEFAULT_FAIL_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn server(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<UpstreamServer> {
    let name = &directive.args[0];
    let mut server = UpstreamServer::new(name.value.clone(), Vec::new());
    let mut resolving = Resolving::default();
    for word in &directive.args[1..] {
        server_parameter(&mut server, &mut resolving, word)?;
    }
    let problem =
        |what: &str| Diagnostic::error(format!("{what} in upstream \"{name}\"")).at(name.span, "");
    let endpoint = value::endpoint(&name.value, Form::Host).map_err(problem)?;
    server.resolve = resolving.of(name, &endpoint)?;
    if server.resolve.is_some() {
        return Ok(server);
    }
    server.addresses = reading
        .addresses(&endpoint, DEFAULT_PORT)
        .map_err(|error| problem("host not found").note(error.to_string()))?;
    Ok(server)
}

/// `resolve` and `service=` of one line.
#[derive(Default)]
struct Resolving {
    resolve: bool,
    service: Option<Box<[u8]>>,
}

impl Resolving {
    /// What is to be looked up; nothing of a literal address.
    fn of(self, name: &Word, endpoint: &Endpoint) -> Reads<Option<Resolve>> {
        let service = |what: &str| {
            let message = format!("service upstream \"{name}\" {what}");
            Err(Diagnostic::error(message).at(name.span, ""))
        };
        if self.service.is_some() && !self.resolve {
            return service("requires \"resolve\" parameter");
        }
        if self.service.is_some() && endpoint.port.is_some() {
            return service("may not have port");
        }
        let host = match &endpoint.host {
            Host::Name(host) => host.as_str().into(),
            _ if self.service.is_some() => return service("requires domain name"),
            _ => return Ok(None),
        };
        let port = endpoint.port.unwrap_or(DEFAULT_PORT);
        Ok(self.resolve.then_some(Resolve { host, port, service: self.service }))
    }
}

/// What the reference explains.
pub(super) const PARAMETERS: &[Parameter] = &[
    (
        "HOST:PORT",
        "an address or a name; the default port is 80. A name with several addresses stands for \
         several servers",
    ),
    ("unix:PATH", "a UNIX-domain socket"),
    (
        "weight=NUMBER",
        "the weight: a server with 2 gets twice as many requests as one with 1; 1 by default",
    ),
    (
        "max_conns=NUMBER",
        "the maximum number of simultaneous connections to it, all workers together; an open \
         WebSocket is one. 0, the default, means no limit. Requests beyond it go to other servers, \
         wait (`queue`) or get a 502",
    ),
    (
        "max_fails=NUMBER",
        "after how many failed attempts within `fail_timeout` it counts as failed; 1 by default, \
         and with 0 it never does",
    ),
    (
        "fail_timeout=TIME",
        "the time in which failures are counted, and the longest time for which a failed server is \
         not used; 10s by default. A single request tries it again after half a second, then less \
         and less often (`websocket_recovery`)",
    ),
    (
        "slow_start=TIME",
        "the time in which its weight grows from zero to its full value when it is back; 0, the \
         default, means at once. Not with `hash`, `ip_hash` and `random`",
    ),
    (
        "backup",
        "used only when no other server is available; not with `hash`, `ip_hash` and `random`",
    ),
    ("down", "gets no new requests; open connections continue"),
    ("drain", "gets only requests bound to it by `sticky`; open WebSockets continue"),
    (
        "route=NAME",
        "its name for `sticky`, 32 characters at most; the MD5 of its address by default",
    ),
    (
        "resolve",
        "the name is resolved while the server runs and the group follows its addresses; needs \
         `resolver`",
    ),
    (
        "service=NAME",
        "with `resolve`: hosts, ports and weights come from the SRV records of `_NAME._tcp.HOST`; \
         if NAME contains a dot, of `NAME.HOST`",
    ),
];

/// What the reference shows.
pub(super) const EXAMPLE: &str = "\
upstream chat {
    least_conn;
    server 10.0.0.1:8282 weight=2 max_conns=20000;
    server 10.0.0.2:8282 max_fails=3 fail_timeout=30s;
    server unix:/run/chat.sock backup;
}

upstream app {
    resolver 127.0.0.53;
    server app.internal service=http resolve;
}";

fn server_parameter(
    server: &mut UpstreamServer,
    resolving: &mut Resolving,
    word: &Word,
) -> Result<(), Diagnostic> {
    let number = |text| {
        let value = value::number(text).and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| invalid_parameter(word))
    };
    if let Some(text) = parameter(word, "weight=") {
        server.weight = number(text)?;
        if server.weight == 0 {
            return Err(invalid_parameter(word));
        }
    } else if let Some(text) = parameter(word, "max_conns=") {
        server.max_conns = number(text)?;
    } else if let Some(text) = parameter(word, "max_fails=") {
        server.max_fails = number(text)?;
    } else if let Some(text) = parameter(word, "fail_timeout=") {
        server.fail_timeout = value::seconds(text).ok_or_else(|| invalid_parameter(word))?;
    } else if let Some(text) = parameter(word, "slow_start=") {
        server.slow_start = value::duration(text).ok_or_else(|| invalid_parameter(word))?;
    } else if word.is("backup") {
        server.backup = true;
    } else if word.is("down") {
        (server.down, server.drain) = (true, false);
    } else if word.is("drain") {
        (server.down, server.drain) = (false, true);
    } else if let Some(text) = parameter(word, "route=") {
        server.route = Some(route(word, text)?);
    } else if word.is("resolve") {
        resolving.resolve = true;
    } else if let Some(text) = parameter(word, "service=") {
        if text.is_empty() {
            return Err(Diagnostic::error("service is empty").at(word.span, ""));
        }
        resolving.service = Some(text.into());
    } else {
        return Err(unknown_parameter(word, &parameter_names(PARAMETERS)));
    }
    Ok(())
}

fn route(word: &Word, text: &[u8]) -> Result<Box<[u8]>, Diagnostic> {
    let message = match text.len() {
        0 => "route is empty".to_owned(),
        1..=MAX_ROUTE_LEN => return Ok(text.into()),
        _ => format!("route is longer than {MAX_ROUTE_LEN}"),
    };
    Err(Diagnostic::error(message).at(word.span, ""))
}
