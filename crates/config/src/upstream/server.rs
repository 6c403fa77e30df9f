//! `server` lines of an upstream.

use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::read::{Reading, Reads, invalid_parameter, parameter, unknown_parameter};
use crate::value::{self, Form, ListenAddr};

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
    /// `drain`: only clients that stick to it are sent there.
    pub drain: bool,
    /// `route=`: what `sticky` calls it, instead of the MD5 of its address.
    pub route: Option<Box<[u8]>>,
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
            backup: false,
            down: false,
            drain: false,
            route: None,
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
    for word in &directive.args[1..] {
        server_parameter(&mut server, word)?;
    }
    let problem =
        |what: &str| Diagnostic::error(format!("{what} in upstream \"{name}\"")).at(name.span, "");
    let endpoint = value::endpoint(&name.value, Form::Host).map_err(problem)?;
    server.addresses = reading
        .addresses(&endpoint, DEFAULT_PORT)
        .map_err(|error| problem("host not found").note(error.to_string()))?;
    Ok(server)
}

/// For suggestions.
const PARAMETERS: &[&str] =
    &["backup", "down", "drain", "fail_timeout", "max_conns", "max_fails", "route", "weight"];

fn server_parameter(server: &mut UpstreamServer, word: &Word) -> Result<(), Diagnostic> {
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
    } else if word.is("backup") {
        server.backup = true;
    } else if word.is("down") {
        (server.down, server.drain) = (true, false);
    } else if word.is("drain") {
        (server.down, server.drain) = (false, true);
    } else if let Some(text) = parameter(word, "route=") {
        server.route = Some(route(word, text)?);
    } else if word.is("resolve") || parameter(word, "service=").is_some() {
        let help =
            "names are resolved when the configuration is loaded; reload to resolve them again";
        return Err(Diagnostic::error(format!("\"{word}\" is not supported"))
            .at(word.span, "")
            .help(help));
    } else {
        return Err(unknown_parameter(word, PARAMETERS));
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
