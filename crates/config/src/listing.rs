//! Directories without an index file: a listing, or a random file.

use wssgate_syntax as syntax;

use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HSL, L};
use crate::read::{Reading, Reads, flag, one_of};
use crate::scope::Scope;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&AUTOINDEX, &AUTOINDEX_EXACT_SIZE, &AUTOINDEX_FORMAT, &AUTOINDEX_LOCALTIME, &RANDOM_INDEX];

/// `autoindex`
pub(crate) static AUTOINDEX: Directive<bool> = Directive {
    name: "autoindex",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Lists a directory that has no index file. If a listing needs more than 64 MiB of memory \
          (about a million files), the response has status 500.",
    ..Directive::once(flag)
};

/// `autoindex_exact_size`
pub(crate) static AUTOINDEX_EXACT_SIZE: Directive<bool> = Directive {
    name: "autoindex_exact_size",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Shows file sizes in HTML listings in bytes; `off` rounds them to K, M or G.",
    ..Directive::once(flag)
};

/// `autoindex_format`
pub(crate) static AUTOINDEX_FORMAT: Directive<ListingFormat> = Directive {
    name: "autoindex_format",
    contexts: HSL,
    arity: Exactly(1),
    default: "html",
    doc: "Sets the format of listings: `html`, `xml`, `json`, or `jsonp` with the function named \
          by the argument `callback`.",
    ..Directive::once(format)
};

/// `autoindex_localtime`
pub(crate) static AUTOINDEX_LOCALTIME: Directive<bool> = Directive {
    name: "autoindex_localtime",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Shows local time in HTML listings instead of UTC.",
    ..Directive::once(flag)
};

/// `random_index`
pub(crate) static RANDOM_INDEX: Directive<bool> = Directive {
    name: "random_index",
    contexts: L,
    arity: Flag,
    doc: "Serves a random file of a directory as its index.",
    ..Directive::once(flag)
};

/// `autoindex` and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoindex {
    /// `autoindex_format`.
    pub format: ListingFormat,
    /// `autoindex_exact_size`: bytes, not rounded.
    pub exact_size: bool,
    /// `autoindex_localtime`.
    pub localtime: bool,
}

/// `autoindex_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingFormat {
    /// A page for people.
    Html,
    /// An array of objects.
    Json,
    /// The same as the argument of a function.
    Jsonp,
    /// A list of elements.
    Xml,
}

fn format(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<ListingFormat> {
    let choices = [
        ("html", ListingFormat::Html),
        ("json", ListingFormat::Json),
        ("jsonp", ListingFormat::Jsonp),
        ("xml", ListingFormat::Xml),
    ];
    one_of(&directive.args[0], &choices)
}

/// What applies on a level; `None` when directories are not listed.
pub(crate) fn autoindex(scope: &Scope<'_, '_>) -> Option<Autoindex> {
    scope.get(&AUTOINDEX).then(|| Autoindex {
        format: scope.get(&AUTOINDEX_FORMAT),
        exact_size: scope.get(&AUTOINDEX_EXACT_SIZE),
        localtime: scope.get(&AUTOINDEX_LOCALTIME),
    })
}
