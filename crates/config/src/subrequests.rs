//! Further requests that a request brings about, whose answers nobody waits for.

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HSL, HSLI};
use crate::read::{Reading, Reads, flag};
use crate::scope::Scope;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&MIRROR, &MIRROR_REQUEST_BODY, &POST_ACTION];

/// `mirror`
pub(crate) static MIRROR: Directive<Option<Box<[u8]>>> = Directive {
    name: "mirror",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Copies requests to this URI in the background; the responses are ignored. As in nginx, \
          the connection handles its next request only when they have completed.",
    ..Directive::repeated(mirrored)
};

/// `mirror_request_body`
pub(crate) static MIRROR_REQUEST_BODY: Directive<bool> = Directive {
    name: "mirror_request_body",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Reads the request body before mirroring a request, and copies it too.",
    ..Directive::once(flag)
};

/// `post_action`
pub(crate) static POST_ACTION: Directive<Option<Box<[u8]>>> = Directive {
    name: "post_action",
    contexts: HSLI,
    arity: Exactly(1),
    default: "off",
    doc: "Requests this URI or named location when a request has been completed; the response is \
          ignored. The end of a WebSocket triggers nothing.",
    ..Directive::once(uri)
};

/// `mirror` lines.
#[derive(Clone, Debug)]
pub struct Mirrors {
    /// The paths.
    pub uris: Vec<Box<[u8]>>,
    /// `mirror_request_body`.
    pub body: bool,
}

/// `None` for `off`.
fn uri(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Box<[u8]>>> {
    let word = &directive.args[0];
    Ok((!word.is("off")).then(|| word.value.clone()))
}

fn mirrored(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Box<[u8]>>> {
    let word = &directive.args[0];
    if word.value.is_empty() {
        return Err(Diagnostic::error("invalid URI \"\"").at(word.span, ""));
    }
    uri(reading, directive)
}

/// The mirrors of a level; `None` when there are none.
pub(crate) fn mirrors(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> Option<Mirrors> {
    let lines = scope.all(&MIRROR);
    if lines.contains(&None) && lines.len() > 1 {
        // Once, where it was written.
        if scope.level.has(&MIRROR)
            && let Some(line) = scope.level.lines(&MIRROR).nth(1)
        {
            reading.error("\"mirror\" directive is duplicate", line.directive.head());
        }
        return None;
    }
    let uris: Vec<_> = lines.into_iter().flatten().collect();
    (!uris.is_empty()).then(|| Mirrors { uris, body: scope.get(&MIRROR_REQUEST_BODY) })
}
