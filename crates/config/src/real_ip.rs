//! Whose word is taken for a client's address.

use std::net::IpAddr;

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, flag, network};
use crate::scope::Scope;
use crate::trust::{RealIp, RealIpHeader, TrustedProxy};
use crate::value::{self, Form, Host, ListenAddr};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&REAL_IP_HEADER, &REAL_IP_RECURSIVE, &SET_REAL_IP_FROM];

/// `real_ip_header`
pub(crate) static REAL_IP_HEADER: Directive<RealIpHeader> = Directive {
    name: "real_ip_header",
    contexts: HSL,
    arity: Exactly(1),
    default: "X-Real-IP",
    doc: "Sets the request header with the client address, or `proxy_protocol` for the address in \
          the PROXY protocol header.",
    ..Directive::once(header)
};

/// `real_ip_recursive`
pub(crate) static REAL_IP_RECURSIVE: Directive<bool> = Directive {
    name: "real_ip_recursive",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Takes the last address in `real_ip_header` that is not one of `set_real_ip_from`, instead \
          of the last one.",
    ..Directive::once(flag)
};

/// `set_real_ip_from`
pub(crate) static SET_REAL_IP_FROM: Directive<Vec<TrustedProxy>> = Directive {
    name: "set_real_ip_from",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets a trusted proxy whose `real_ip_header` replaces the client address: an address, a \
          network, a host name (resolved when the configuration is loaded), or `unix:` for all \
          UNIX-domain sockets.",
    ..Directive::repeated(trusted)
};

fn header(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<RealIpHeader> {
    let name = directive.args[0].value.to_ascii_lowercase();
    Ok(match &name[..] {
        b"x-forwarded-for" => RealIpHeader::ForwardedFor,
        b"proxy_protocol" => RealIpHeader::ProxyProtocol,
        _ => RealIpHeader::Field(name.into()),
    })
}

fn trusted(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<TrustedProxy>> {
    let word = &directive.args[0];
    if word.is("unix:") {
        return Ok(vec![TrustedProxy::Unix]);
    }
    if let Some((address, bits)) = network(reading, word) {
        return Ok(vec![TrustedProxy::Network(address, bits)]);
    }
    let host = value::endpoint(&word.value, Form::Host).ok();
    let host = host.filter(|found| matches!(found.host, Host::Name(_)) && found.port.is_none());
    let found = host.and_then(|host| reading.addresses(&host, 0).ok()).unwrap_or_default();
    if found.is_empty() {
        let message = format!("host not found in set_real_ip_from \"{word}\"");
        return Err(Diagnostic::error(message).at(word.span, ""));
    }
    let addresses = found.into_iter().filter_map(|address| match address {
        ListenAddr::Ip(address) => Some(address.ip()),
        ListenAddr::Unix(_) => None,
    });
    let whole = |ip: IpAddr| TrustedProxy::Network(ip, if ip.is_ipv4() { 32 } else { 128 });
    Ok(addresses.map(whole).collect::<Vec<_>>())
}

/// What applies on a level; `None` when nobody is trusted.
pub(crate) fn real_ip(scope: &Scope<'_, '_>) -> Option<RealIp> {
    let from = scope.all(&SET_REAL_IP_FROM).concat();
    if from.is_empty() {
        return None;
    }
    let (header, recursive) = (scope.get(&REAL_IP_HEADER), scope.get(&REAL_IP_RECURSIVE));
    Some(RealIp { from, header, recursive })
}
