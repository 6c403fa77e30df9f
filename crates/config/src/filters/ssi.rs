//! Server side includes.

use wssgate_syntax as syntax;

use super::types::{TypeSet, in_force, types};
use crate::directive::Arity::{AtLeast, Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HSL, HSLI};
use crate::read::{Reading, Reads, flag, on_or_off, size};
use crate::scope::Scope;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&SSI, &SSI_LAST_MODIFIED, &SSI_SILENT_ERRORS, &SSI_TYPES, &SSI_VALUE_LENGTH];

/// `ssi`
pub(crate) static SSI: Directive<bool> = Directive {
    name: "ssi",
    contexts: HSLI,
    arity: Flag,
    default: "off",
    doc: "Executes SSI commands in responses (`<!--#include virtual=\"/path\" -->` and others). \
          The subrequests of a page run one after another.",
    ..Directive::once(switch)
};

/// `ssi_last_modified`
pub(crate) static SSI_LAST_MODIFIED: Directive<bool> = Directive {
    name: "ssi_last_modified",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Keeps the `Last-Modified` header of responses in which SSI commands are executed.",
    ..Directive::once(flag)
};

/// `ssi_silent_errors`
pub(crate) static SSI_SILENT_ERRORS: Directive<bool> = Directive {
    name: "ssi_silent_errors",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Outputs nothing in place of an SSI command that failed.",
    ..Directive::once(flag)
};

/// `ssi_types`
pub(crate) static SSI_TYPES: Directive<TypeSet> = Directive {
    name: "ssi_types",
    contexts: HSL,
    arity: AtLeast(1),
    default: "text/html",
    doc: "Sets the MIME types of responses that SSI commands are executed in, in addition to \
          `text/html`; `*` stands for any.",
    ..Directive::repeated(types)
};

/// `ssi_value_length`
pub(crate) static SSI_VALUE_LENGTH: Directive<u64> = Directive {
    name: "ssi_value_length",
    contexts: HSL,
    arity: Exactly(1),
    default: "256",
    doc: "Limits the length of parameter values in SSI commands.",
    ..Directive::once(size)
};

/// `ssi` and what goes with it.
#[derive(Clone, Debug)]
pub struct Ssi {
    /// `ssi_last_modified`.
    pub last_modified: bool,
    /// `ssi_silent_errors`.
    pub silent_errors: bool,
    /// `ssi_types`.
    pub types: TypeSet,
    /// `ssi_value_length`, bytes.
    pub value_length: usize,
}

fn switch(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<bool> {
    let on = on_or_off(directive, &directive.args[0])?;
    if on {
        // A page may ask for it twice, and it must be the same; variables without a slot are made
        // afresh each time.
        reading.names.mention("request_id", directive.head());
    }
    Ok(on)
}

/// What applies on a level.
pub(crate) fn ssi(scope: &Scope<'_, '_>) -> Option<Ssi> {
    scope.get(&SSI).then(|| Ssi {
        last_modified: scope.get(&SSI_LAST_MODIFIED),
        silent_errors: scope.get(&SSI_SILENT_ERRORS),
        types: in_force(scope, &SSI_TYPES),
        value_length: scope.count(&SSI_VALUE_LENGTH),
    })
}
