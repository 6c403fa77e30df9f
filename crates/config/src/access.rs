//! Who may come in.

use std::net::IpAddr;
use std::time::Duration;

use wssgate_syntax::{self as syntax};

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Directive, HSL, X};
use crate::read::{Reading, Reads, duration, invalid_parameter, network, one_of};
use crate::scope::Scope;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&ALLOW, &AUTH_DELAY, &DENY, &SATISFY];

/// `allow`
pub(crate) static ALLOW: Directive<AccessRule> = Directive {
    name: "allow",
    contexts: HSL | X,
    arity: Exactly(1),
    doc: "Allows access from an address or network; `all` stands for every client.",
    ..Directive::repeated(rule)
};

/// `auth_delay`
pub(crate) static AUTH_DELAY: Directive<Duration> = Directive {
    name: "auth_delay",
    contexts: HSL,
    arity: Exactly(1),
    default: "0s",
    doc: "Delays responses with status 401, so that their timing reveals nothing and passwords are \
          harder to guess.",
    ..Directive::once(duration)
};

/// `deny`
pub(crate) static DENY: Directive<AccessRule> = Directive {
    name: "deny",
    contexts: HSL | X,
    arity: Exactly(1),
    doc: "Denies access from an address or network; `all` stands for every client.",
    ..Directive::repeated(rule)
};

/// `satisfy`
pub(crate) static SATISFY: Directive<Satisfy> = Directive {
    name: "satisfy",
    contexts: HSL,
    arity: Exactly(1),
    default: "all",
    doc: "Allows access if `all` or `any` of the access checks allow it: `allow` and `deny`, \
          `auth_basic`, `auth_jwt` and `auth_request`.",
    ..Directive::once(satisfy)
};

/// How many of the rules for access must let a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Satisfy {
    /// Each that is configured.
    All,
    /// One of them.
    Any,
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

fn rule(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<AccessRule> {
    let word = &directive.args[0];
    let who = if word.is("all") {
        AccessFrom::All
    } else if word.is("unix:") {
        AccessFrom::Unix
    } else {
        let (address, bits) = network(reading, word).ok_or_else(|| invalid_parameter(word))?;
        AccessFrom::Network(address, bits)
    };
    Ok(AccessRule { allow: directive.is("allow"), who })
}

fn satisfy(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Satisfy> {
    one_of(&directive.args[0], &[("all", Satisfy::All), ("any", Satisfy::Any)])
}

/// `allow` and `deny` are one list.
pub(crate) fn access(scope: &Scope<'_, '_>) -> Vec<AccessRule> {
    let rows = [&ALLOW, &DENY];
    scope.nearest(&rows).map_or_else(Vec::new, |level| {
        level.lines_of(rows).filter_map(|line| line.value.cloned()).collect()
    })
}
