//! Who may come in.

use std::net::IpAddr;

use wssgate_syntax::{Diagnostic, Directive};

use crate::directive::Arity::Exactly;
use crate::directive::{HSL, Row, Value, X, works};
use crate::draft::Entry;
use crate::read::{Reading, Reads, invalid_parameter};
use crate::scope::Scope;
use crate::value;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("allow", HSL | X, Exactly(1), "", "Lets an address or network in.", rule).many(),
    works("deny", HSL | X, Exactly(1), "", "Keeps an address or network out.", rule).many(),
];

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

fn rule(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    let who = if word.is("all") {
        AccessFrom::All
    } else if word.is("unix:") {
        AccessFrom::Unix
    } else {
        let (address, bits, cut) =
            value::network(&word.value).ok_or_else(|| invalid_parameter(word))?;
        if cut {
            let message = format!("low address bits of \"{word}\" are meaningless");
            reading.report.push(Diagnostic::warning(message).at(word.span, ""));
        }
        AccessFrom::Network(address, bits)
    };
    Ok(Value::new(AccessRule { allow: directive.is("allow"), who }))
}

/// `allow` and `deny` are one list.
pub(crate) fn access(scope: &Scope<'_, '_>) -> Vec<AccessRule> {
    let Some(found) = scope.nearest(&["allow", "deny"]) else {
        return Vec::new();
    };
    let entries = found.level.entries().iter();
    let rules = entries.filter(|entry| matches!(entry.row.name, "allow" | "deny"));
    rules.filter_map(Entry::value).collect()
}
