//! Which advice is not to be told: `ignore_warnings`.
//!
//! A warning that an operator has judged and cannot act on would hide the next one.

use wssgate_syntax::{self as syntax, Span};

use crate::advice_kind::{Advice, NAMES};
use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::level::{Entry, Level};
use crate::read::{Reading, Reads, one_of};
use crate::scope::Scope;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&IGNORE_WARNINGS];

/// `ignore_warnings`
pub(crate) static IGNORE_WARNINGS: Directive<Vec<Advice>> = Directive {
    name: "ignore_warnings",
    contexts: HSL,
    arity: AtLeast(1),
    doc: "Silences warnings about this block and inner blocks, by the names that the warnings \
          give: `certificate_chain` (for example, a private root), `certificate_names`, \
          `challenge_port`, `host_and_origin`, `idle_timeout`, `lost_headers`, \
          `misspelt_variable`, `ports`, `unchecked_frames`, `unreachable`, `unset_variable`, \
          `upgrade_headers`.",
    ..Directive::repeated(ignore_warnings)
};

fn ignore_warnings(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<Advice>> {
    directive.args.iter().map(|word| one_of(word, &NAMES)).collect()
}

/// What is not to be told about this level.
pub(crate) fn ignored(scope: &Scope<'_, '_>) -> Vec<Advice> {
    let mut all: Vec<_> = scope.level.values(&IGNORE_WARNINGS).flatten().collect();
    if let Some(outer) = scope.outer {
        all.extend(ignored(outer));
    }
    all
}

/// Whether advice about what stands at a place is not to be told, by a line of `level` or of a level in it.
pub(crate) fn is_silenced(level: &Level<'_>, advice: Advice, place: Span) -> bool {
    let silent = level.values(&IGNORE_WARNINGS).flatten().any(|ignored| ignored == advice);
    level.entries().iter().any(|entry| match entry.level() {
        _ if silent && holds(entry, place) => true,
        Some(inner) => is_silenced(inner, advice, place),
        None => false,
    })
}

/// Whether a place is in a directive or, by an `include`, in one inside it.
fn holds(entry: &Entry<'_>, place: Span) -> bool {
    let span = entry.span();
    let here = span.file == place.file && span.start <= place.start && place.end <= span.end;
    let inner = entry.level().into_iter().flat_map(Level::entries);
    here || inner.into_iter().any(|entry| holds(entry, place))
}
