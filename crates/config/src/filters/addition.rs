//! Pages of other locations before and behind an answer.

use wssgate_syntax as syntax;

use super::types::{TypeSet, in_force, types};
use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads};
use crate::scope::Scope;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&ADD_AFTER_BODY, &ADD_BEFORE_BODY, &ADDITION_TYPES];

/// `add_after_body`
pub(crate) static ADD_AFTER_BODY: Directive<Option<Box<[u8]>>> = Directive {
    name: "add_after_body",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Adds the response to a subrequest for this URI after the body of a response with status \
          200.",
    ..Directive::once(uri)
};

/// `add_before_body`
pub(crate) static ADD_BEFORE_BODY: Directive<Option<Box<[u8]>>> = Directive {
    name: "add_before_body",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Adds the response to a subrequest for this URI before the body of a response with status \
          200.",
    ..Directive::once(uri)
};

/// `addition_types`
pub(crate) static ADDITION_TYPES: Directive<TypeSet> = Directive {
    name: "addition_types",
    contexts: HSL,
    arity: AtLeast(1),
    default: "text/html",
    doc: "Sets the MIME types of responses that `add_before_body` and `add_after_body` apply to, in \
          addition to `text/html`; `*` stands for any.",
    ..Directive::repeated(types)
};

/// `add_before_body` and `add_after_body`.
#[derive(Clone, Debug)]
pub struct Additions {
    /// What is asked for what comes before the body.
    pub before: Option<Box<[u8]>>,
    /// What is asked for what comes after the body.
    pub after: Option<Box<[u8]>>,
    /// `addition_types`.
    pub types: TypeSet,
}

/// An empty URI takes away what an outer level says.
fn uri(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Box<[u8]>>> {
    let text = &directive.args[0].value;
    Ok((!text.is_empty()).then(|| text.clone()))
}

/// What applies on a level.
pub(crate) fn additions(scope: &Scope<'_, '_>) -> Option<Additions> {
    let before = scope.maybe(&ADD_BEFORE_BODY).flatten();
    let after = scope.maybe(&ADD_AFTER_BODY).flatten();
    let any = before.is_some() || after.is_some();
    any.then(|| Additions { before, after, types: in_force(scope, &ADDITION_TYPES) })
}
