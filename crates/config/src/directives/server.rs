//! `server`, its addresses and names.

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{Braces, Context, H, Row, S, Value, works};
use crate::model::{KeepaliveOption, ListenAddr, ListenOptions, Located};
use crate::read::{Reading, Reads, parameter, present, unknown_parameter};
use crate::regex::Regex;
use crate::value::{self, Form, Host};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("listen", S, AtLeast(1), "", "Accepts connections at an address.", listen).many(),
    works("server", H, Exactly(0), "", "Holds one virtual server.", present)
        .block(Braces::Level(Context::Server))
        .many(),
    works("server_name", S, AtLeast(1), "", "Names a virtual server.", server_name).many(),
];

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

fn listen(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
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
            b"proxy_protocol" => listen.proxy_protocol = true,
            b"http2" => {
                let message =
                    "the \"http2\" parameter has no effect: only HTTP/1.1 is offered for now";
                reading.report.push(Diagnostic::information(message).at(word.span, ""));
            }
            b"quic" => {
                let help = "HTTP/3 is not implemented; remove this line, clients use TLS over TCP";
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
    Ok(Value::new(listen))
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

/// For suggestions.
const PARAMETERS: &[&str] = &[
    "backlog",
    "bind",
    "default_server",
    "deferred",
    "fastopen",
    "ipv6only",
    "proxy_protocol",
    "rcvbuf",
    "reuseport",
    "sndbuf",
    "so_keepalive",
    "ssl",
];

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
        return Err(unknown_parameter(word, PARAMETERS));
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

/// One name of `server_name`.
#[derive(Clone)]
pub(crate) struct ServerName {
    /// Lower case unless it is a regular expression; with its `~` as written.
    pub(crate) text: Located<Box<[u8]>>,
    /// The expression of `~…`.
    pub(crate) regex: Option<Regex>,
}

fn server_name(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let names: Result<Vec<ServerName>, _> =
        directive.args.iter().map(|word| one_name(reading, word)).collect();
    names.map(Value::new)
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
        reading.report.push(Diagnostic::warning(message).at(word.span, ""));
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
