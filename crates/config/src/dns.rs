//! Names that are looked up while the server runs: whom to ask.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{AnyDirective, Directive, HSL, U};
use crate::name_servers::{Resolver, ResolverId};
use crate::read::{Reading, Reads, duration, parameter};
use crate::value::{self, Form, ListenAddr};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&RESOLVER, &RESOLVER_TIMEOUT];

/// `resolver`
pub(crate) static RESOLVER: Directive<ResolverId> = Directive {
    name: "resolver",
    contexts: HSL | U,
    arity: AtLeast(1),
    doc: "Sets the DNS servers for names that are resolved while the server runs: those in \
          variables of `proxy_pass` and those of `server … resolve`. `valid=` overrides the TTL of \
          answers, `ipv4=off` and `ipv6=off` disable queries for such addresses, `local=on` adds \
          the servers of `/etc/resolv.conf`.",
    ..Directive::once(resolver)
};

/// `resolver_timeout`
pub(crate) static RESOLVER_TIMEOUT: Directive<Duration> = Directive {
    name: "resolver_timeout",
    contexts: HSL | U,
    arity: Exactly(1),
    default: "30s",
    doc: "Sets how long a request waits for a name to be resolved.",
    ..Directive::once(duration)
};

const DNS_PORT: u16 = 53;

/// What `local=on` reads.
const RESOLV_CONF: &str = "/etc/resolv.conf";

fn resolver(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<ResolverId> {
    let mut resolver = Resolver { servers: Vec::new(), valid: None, ipv4: true, ipv6: true };
    for word in &directive.args {
        if !is_parameter(&mut resolver, word)? {
            resolver.servers.extend(servers(reading, word)?);
        }
        if word.value.starts_with(b"status_zone=") {
            let message = format!("\"{word}\" has no effect: resolvers have no statistics");
            reading
                .report
                .push(Diagnostic::idle("status_zone of resolver", message).at(word.span, ""));
        }
    }
    let problem = |message: &str| Err(Diagnostic::error(message).at(directive.head(), ""));
    if !resolver.ipv4 && !resolver.ipv6 {
        return problem("\"ipv4\" and \"ipv6\" cannot both be \"off\"");
    }
    if resolver.servers.is_empty() {
        return problem("no name servers defined");
    }
    let same = reading.resolvers.iter().position(|other| *other == resolver);
    Ok(ResolverId(same.unwrap_or_else(|| {
        reading.resolvers.push(resolver);
        reading.resolvers.len() - 1
    })))
}

/// Takes a word for a parameter; whether it was one.
fn is_parameter(resolver: &mut Resolver, word: &Word) -> Result<bool, Diagnostic> {
    let invalid = || Diagnostic::error(format!("invalid parameter: {word}")).at(word.span, "");
    let switch = |text: &[u8]| match text {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(invalid().help("write `on` or `off`")),
    };
    if let Some(text) = parameter(word, "valid=") {
        let valid = value::seconds(text).ok_or_else(invalid)?;
        // As nginx has it, 0 leaves the answers alone.
        resolver.valid = Some(valid).filter(|valid| !valid.is_zero());
    } else if let Some(text) = parameter(word, "ipv4=") {
        resolver.ipv4 = switch(text)?;
    } else if let Some(text) = parameter(word, "ipv6=") {
        resolver.ipv6 = switch(text)?;
    } else if let Some(text) = parameter(word, "local=") {
        match text {
            b"off" => {}
            b"on" => resolver.servers.extend(local_servers(RESOLV_CONF.as_ref(), word)?),
            [b'/', ..] => {
                let path = crate::paths::os_string(text);
                resolver.servers.extend(local_servers(path.as_ref(), word)?);
            }
            _ => return Err(invalid().help("write `on`, `off` or the path of a `resolv.conf`")),
        }
    } else {
        return Ok(parameter(word, "status_zone=").is_some());
    }
    Ok(true)
}

/// The addresses of one server.
fn servers(reading: &Reading<'_>, word: &Word) -> Reads<Vec<SocketAddr>> {
    let problem =
        |what: &str| Diagnostic::error(format!("{what} in resolver \"{word}\"")).at(word.span, "");
    let endpoint = value::endpoint(&word.value, Form::Host).map_err(problem)?;
    let addresses = reading
        .addresses(&endpoint, DNS_PORT)
        .map_err(|error| problem("host not found").note(error.to_string()))?;
    let addresses = addresses.into_iter().map(|address| match address {
        ListenAddr::Ip(address) => Ok(address),
        ListenAddr::Unix(_) => Err(problem("invalid host")),
    });
    addresses.collect()
}

/// The servers that the system asks.
fn local_servers(path: &Path, word: &Word) -> Reads<Vec<SocketAddr>> {
    let problem = |note: String| {
        let message = format!("no name servers found in \"{}\"", path.display());
        Diagnostic::error(message).at(word.span, "").note(note)
    };
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    let servers = resolv_conf(&text);
    match servers.is_empty() {
        true => Err(problem("it has no `nameserver` line with an address".into())),
        false => Ok(servers),
    }
}

/// The `nameserver` lines of a `resolv.conf`. Those that need an interface are left out.
fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse::<IpAddr>().ok()
    });
    lines.map(|address| SocketAddr::new(address, DNS_PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_system_are_its_nameserver_lines() {
        let text = "# nameserver 1.1.1.1\nsearch a.test\nnameserver 127.0.0.11\n\
                    nameserver\t::1 # local\nnameserver fe80::1%eth0\nnameserver\noptions ndots:5\n";
        let expected = ["127.0.0.11:53", "[::1]:53"].map(|text| text.parse().expect("an address"));
        assert_eq!(resolv_conf(text), expected);
    }
}
