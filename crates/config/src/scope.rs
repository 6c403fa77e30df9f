//! How a level sees those around it.
//!
//! A directive of an inner level replaces the same directive of all outer ones; lists are replaced as a whole. The
//! outermost level of all is one that nobody wrote: the defaults of the rows.

use wssgate_syntax::{Directive, Span, parse_text};

use crate::directive::{Braces, Context, Kind, rows};
use crate::draft::{Entry, Level};

/// A level and what it stands in.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'s, 't> {
    pub(crate) level: &'s Level<'t>,
    pub(crate) outer: Option<&'s Scope<'s, 't>>,
}

impl<'s, 't> Scope<'s, 't> {
    pub(crate) fn outermost(level: &'s Level<'t>) -> Self {
        Self { level, outer: None }
    }

    /// A level inside this one.
    pub(crate) fn inner<'i>(&'i self, level: &'i Level<'t>) -> Scope<'i, 't>
    where
        's: 'i,
    {
        Scope { level, outer: Some(self) }
    }

    /// The innermost level that says one of `names`.
    pub(crate) fn nearest(&self, names: &[&str]) -> Option<&Scope<'s, 't>> {
        if names.iter().any(|name| self.level.has(name)) {
            return Some(self);
        }
        self.outer.and_then(|outer| outer.nearest(names))
    }

    /// The value of a directive that some level sets.
    pub(crate) fn maybe<T: Clone + 'static>(&self, name: &str) -> Option<T> {
        self.nearest(&[name])?.level.named(name).next_back()?.value()
    }

    /// The value of a directive that has a default.
    ///
    /// # Panics
    /// When its row has none: a mistake of ours.
    pub(crate) fn one<T: Clone + 'static>(&self, name: &str) -> T {
        self.maybe(name)
            .or_else(|| self.default_of(name))
            .unwrap_or_else(|| panic!("`{name}` has no default"))
    }

    /// What the outermost level says, for directives that could not be read.
    fn default_of<T: Clone + 'static>(&self, name: &str) -> Option<T> {
        match self.outer {
            Some(outer) => outer.default_of(name),
            None => self.level.named(name).next_back()?.value(),
        }
    }

    /// A number that is used as a count or a size in memory.
    pub(crate) fn count(&self, name: &str) -> usize {
        usize::try_from(self.one::<u64>(name)).unwrap_or(usize::MAX)
    }

    /// A number that is used as a 32-bit one.
    pub(crate) fn small(&self, name: &str) -> u32 {
        u32::try_from(self.one::<u64>(name)).unwrap_or(u32::MAX)
    }

    /// All values of a directive on the innermost level that says it.
    pub(crate) fn all<T: Clone + 'static>(&self, name: &str) -> Vec<T> {
        let found = self.nearest(&[name]);
        found
            .into_iter()
            .flat_map(|scope| scope.level.named(name))
            .filter_map(Entry::value)
            .collect()
    }
}

/// The tree of all defaults that rows of `context` have. Its spans lead to `nowhere`, since nobody wrote them.
pub(crate) fn default_directives(context: Context, nowhere: Span) -> Vec<Directive> {
    let mut text = String::new();
    for row in rows().iter().filter(|row| row.allowed_in(context) && !row.default.is_empty()) {
        debug_assert!(row.braces == Braces::None && matches!(row.kind, Kind::Works(_)));
        text.push_str(&format!("{} {};\n", row.name, row.default));
    }
    let mut directives = parse_text("defaults", text.as_bytes()).directives;
    for directive in &mut directives {
        directive.span = nowhere;
        directive.name.span = nowhere;
        directive.args.iter_mut().for_each(|word| word.span = nowhere);
    }
    directives
}
