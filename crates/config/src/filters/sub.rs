//! Texts that are replaced in answers.

use wssgate_syntax::{self as syntax, Diagnostic};

use super::types::{TypeSet, in_force, types};
use crate::directive::Arity::{AtLeast, Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, flag};
use crate::scope::Scope;
use crate::template::Template;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&SUB_FILTER, &SUB_FILTER_LAST_MODIFIED, &SUB_FILTER_ONCE, &SUB_FILTER_TYPES];

/// `sub_filter`
pub(crate) static SUB_FILTER: Directive<(Template, Template)> = Directive {
    name: "sub_filter",
    contexts: HSL,
    arity: Exactly(2),
    doc: "Replaces a text in responses, ignoring case, with another one. Compressed responses are \
          not changed.",
    ..Directive::repeated(replacement)
};

/// `sub_filter_last_modified`
pub(crate) static SUB_FILTER_LAST_MODIFIED: Directive<bool> = Directive {
    name: "sub_filter_last_modified",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Keeps the `Last-Modified` header of responses that `sub_filter` applies to.",
    ..Directive::once(flag)
};

/// `sub_filter_once`
pub(crate) static SUB_FILTER_ONCE: Directive<bool> = Directive {
    name: "sub_filter_once",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Replaces each text once in a response; with `off`, wherever it occurs.",
    ..Directive::once(flag)
};

/// `sub_filter_types`
pub(crate) static SUB_FILTER_TYPES: Directive<TypeSet> = Directive {
    name: "sub_filter_types",
    contexts: HSL,
    arity: AtLeast(1),
    default: "text/html",
    doc: "Sets the MIME types of responses that `sub_filter` applies to, in addition to \
          `text/html`; `*` stands for any.",
    ..Directive::repeated(types)
};

/// `sub_filter` lines and what goes with them.
#[derive(Clone, Debug)]
pub struct Substitutions {
    /// What is looked for and what takes its place, in order.
    pub pairs: Vec<(Template, Template)>,
    /// `sub_filter_once`.
    pub once: bool,
    /// `sub_filter_last_modified`.
    pub last_modified: bool,
    /// `sub_filter_types`.
    pub types: TypeSet,
}

fn replacement(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<(Template, Template)> {
    let [text, with] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    if text.value.is_empty() {
        return Err(Diagnostic::error("empty search pattern").at(text.span, ""));
    }
    Ok((reading.template(text)?, reading.template(with)?))
}

/// What applies on a level.
pub(crate) fn substitutions(scope: &Scope<'_, '_>) -> Option<Substitutions> {
    let pairs = scope.all(&SUB_FILTER);
    (!pairs.is_empty()).then(|| Substitutions {
        pairs,
        once: scope.get(&SUB_FILTER_ONCE),
        last_modified: scope.get(&SUB_FILTER_LAST_MODIFIED),
        types: in_force(scope, &SUB_FILTER_TYPES),
    })
}
