//! Where a level stands among the locations.

use wssgate_syntax::Span;

/// Where a level stands among the locations.
#[derive(Clone, Copy)]
pub(crate) struct Position<'n> {
    pub(crate) kind: LocationKind,
    /// The location's name; that of the enclosing location for `if` and `limit_except`.
    pub(crate) name: &'n [u8],
    pub(crate) span: Span,
}

impl<'n> Position<'n> {
    /// The path that the location's name stands for; `None` when it is no path.
    pub(crate) fn prefix(&self) -> Option<&'n [u8]> {
        use LocationKind as K;
        matches!(self.kind, K::Exact | K::Prefix | K::PrefixFinal).then_some(self.name)
    }

    /// The server's own level.
    pub(crate) fn server(span: Span) -> Self {
        Self { kind: LocationKind::Unnamed, name: b"", span }
    }

    /// An `if` or `limit_except` here.
    pub(crate) fn unnamed(&self, span: Span) -> Self {
        Self { kind: LocationKind::Unnamed, name: self.name, span }
    }
}

/// What a location's name matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocationKind {
    /// `location = /path`.
    Exact,
    /// `location /path`.
    Prefix,
    /// `location ^~ /path`: no regular expressions afterwards.
    PrefixFinal,
    /// `location ~ regex` or `~*`.
    Regex,
    /// `location @name`.
    Named,
    /// An `if` block inside a location, or the server's own level: has no name of its own.
    Unnamed,
}
