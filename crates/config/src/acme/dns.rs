//! How records for `challenge dns-01` come into the DNS.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word};

use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{AI, AnyDirective, Directive};
use crate::level::Level;
use crate::read::{Reading, Reads, parameter, seconds, unknown_parameter};
use crate::scope::Scope;
use crate::value::{self, Located};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&DNS_HOOK, &DNS_PROPAGATION_TIMEOUT, &DNS_UPDATE];

/// `dns_hook`
pub(crate) static DNS_HOOK: Directive<AcmeDnsHook> = Directive {
    name: "dns_hook",
    contexts: AI,
    arity: AtLeast(1),
    doc: "Sets the program that writes the records of `challenge dns-01`, with its first \
          arguments; `present` or `cleanup`, the name of a TXT record and its value are appended.",
    ..Directive::once(dns_hook)
};

/// `dns_propagation_timeout`
pub(crate) static DNS_PROPAGATION_TIMEOUT: Directive<Duration> = Directive {
    name: "dns_propagation_timeout",
    contexts: AI,
    arity: Exactly(1),
    default: "2m",
    doc: "Sets how long to wait until all servers of a zone return a record that `dns_update` has \
          written; 0 disables the check.",
    ..Directive::once(seconds)
};

/// `dns_update`
pub(crate) static DNS_UPDATE: Directive<AcmeDnsUpdate> = Directive {
    name: "dns_update",
    contexts: AI,
    arity: AtLeast(1),
    doc: "Writes the records of `challenge dns-01` through a DNS server that accepts updates (RFC \
          2136): `server=` is its address; `zone=` the zone, which is looked up otherwise; \
          `secret_file=` the file with the signing key (as written by `tsig-keygen`, or just the \
          secret in base64, with `key=` and `algorithm=`); `ttl=` the TTL of the records (60s). If \
          there are several lines, the one with the longest matching zone is used.",
    ..Directive::repeated(dns_update)
};

/// How records come into the DNS.
#[derive(Clone, Debug)]
pub enum AcmeDns {
    /// By a program.
    Hook(AcmeDnsHook),
    /// By the servers of zones.
    Updates {
        /// `dns_update` lines; never none.
        zones: Vec<AcmeDnsUpdate>,
        /// `dns_propagation_timeout`.
        propagation: Duration,
    },
}

/// `dns_hook`.
#[derive(Clone, Debug)]
pub struct AcmeDnsHook {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub args: Vec<Box<str>>,
}

/// `dns_update`.
#[derive(Clone, Debug)]
pub struct AcmeDnsUpdate {
    /// `server=`.
    pub server: SocketAddr,
    /// `zone=`.
    pub zone: Option<Box<str>>,
    /// `key=`: what the server calls the key.
    pub key: Option<Box<str>>,
    /// `algorithm=`.
    pub algorithm: Option<Box<str>>,
    /// `secret_file=`.
    pub secret: Option<Located<PathBuf>>,
    /// `ttl=`, seconds.
    pub ttl: u32,
    /// Where the line was written.
    pub span: Span,
}

const DNS_PORT: u16 = 53;

fn dns_hook(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<AcmeDnsHook> {
    let program = reading.paths.below_conf(&directive.args[0].value);
    let args = directive.args[1..].iter().map(|word| text(word, &word.value));
    Ok(AcmeDnsHook { program, args: args.collect::<Result<_, _>>()? })
}

fn dns_update(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<AcmeDnsUpdate> {
    const KNOWN: [&str; 6] = ["server=", "zone=", "key=", "algorithm=", "secret_file=", "ttl="];
    let (mut server, mut zone, mut key, mut algorithm) = (None, None, None, None);
    let (mut secret, mut ttl) = (None, 60);
    for word in &directive.args {
        let invalid = || unknown_parameter(word, &KNOWN);
        if let Some(value) = parameter(word, "server=") {
            server = Some(address(value).ok_or_else(|| {
                invalid().help(
                    "an address with an optional port, such as `192.0.2.53` or `[2001:db8::53]:53`",
                )
            })?);
        } else if let Some(value) = parameter(word, "zone=") {
            zone = Some(text(word, value)?);
        } else if let Some(value) = parameter(word, "key=") {
            key = Some(text(word, value)?);
        } else if let Some(value) = parameter(word, "algorithm=") {
            algorithm = Some(text(word, value)?);
        } else if let Some(value) = parameter(word, "secret_file=") {
            let value = reading.paths.below_conf(value);
            secret = Some(Located { value, span: word.span });
        } else if let Some(value) = parameter(word, "ttl=") {
            let seconds = value::seconds(value).ok_or_else(invalid)?.as_secs();
            ttl = u32::try_from(seconds).map_err(|_| invalid())?;
        } else {
            return Err(invalid());
        }
    }
    let span = directive.head();
    let problem = |message: &str| Diagnostic::error(message).at(span, "");
    let server = server.ok_or_else(|| problem("\"dns_update\" must have \"server\" parameter"))?;
    if secret.is_none() && (key.is_some() || algorithm.is_some()) {
        return Err(problem(
            "\"dns_update\" with \"key\" or \"algorithm\" must have \"secret_file\"",
        ));
    }
    Ok(AcmeDnsUpdate { server, zone, key, algorithm, secret, ttl, span })
}

fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    text.parse().ok().or_else(|| bare().ok().map(|address| SocketAddr::new(address, DNS_PORT)))
}

fn text(word: &Word, value: &[u8]) -> Reads<Box<str>> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.is_empty());
    text.map(Into::into).ok_or_else(|| crate::read::invalid_parameter(word))
}

/// What an issuer says, if anything.
pub(crate) fn of_issuer(
    reading: &mut Reading<'_>,
    level: &Level<'_>,
    own: &Scope<'_, '_>,
    wanted: bool,
    span: Span,
) -> Option<AcmeDns> {
    let hook = level.last(&DNS_HOOK).cloned();
    let zones: Vec<_> = level.values(&DNS_UPDATE).collect();
    let written = level.has(&DNS_HOOK) || level.has(&DNS_UPDATE);
    if level.has(&DNS_PROPAGATION_TIMEOUT) && !(wanted && level.has(&DNS_UPDATE)) {
        let message = "\"dns_propagation_timeout\" has no effect without \"dns_update\"";
        reading.report.push(Diagnostic::warning(message).at(span, ""));
    }
    if !wanted {
        if written {
            let message =
                "\"dns_hook\" and \"dns_update\" have no effect without \"challenge dns-01\"";
            reading.report.push(Diagnostic::warning(message).at(span, ""));
        }
        return None;
    }
    if level.has(&DNS_HOOK) && level.has(&DNS_UPDATE) {
        reading.error("\"dns_hook\" and \"dns_update\" cannot both be used", span);
        return None;
    }
    if !written {
        let message = "no \"dns_hook\" or \"dns_update\" for \"challenge dns-01\"";
        reading.error(message, span);
        return None;
    }
    let updates = || AcmeDns::Updates { zones, propagation: own.get(&DNS_PROPAGATION_TIMEOUT) };
    Some(hook.map_or_else(updates, AcmeDns::Hook))
}
