//! Who may come in.

use wssgate_syntax::{Diagnostic, Directive};

use crate::directive::Arity::Exactly;
use crate::directive::{HSL, Row, Value, X, works};
use crate::model::{AccessFrom, AccessRule};
use crate::read::{Reading, Reads, invalid_parameter};
use crate::value;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("allow", HSL | X, Exactly(1), "", "Lets an address or network in.", rule).many(),
    works("deny", HSL | X, Exactly(1), "", "Keeps an address or network out.", rule).many(),
];

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
