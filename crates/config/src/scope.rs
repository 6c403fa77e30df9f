//! How a level sees those around it.
//!
//! A directive of an inner level replaces the same directive of all outer ones; lists are replaced as a whole. The
//! outermost level of all is one that nobody wrote: the defaults of the rows.

use wssgate_syntax::{self as syntax, Span, parse_text};

use crate::directive::{Braces, Context, Directive, Kind, Registry};
use crate::level::Level;

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

    /// The innermost level that says one of `rows`, well or badly.
    pub(crate) fn nearest<T: 'static>(
        &self,
        rows: &[&'static Directive<T>],
    ) -> Option<&'s Level<'t>> {
        if rows.iter().any(|row| self.level.has(row)) {
            return Some(self.level);
        }
        self.outer.and_then(|outer| outer.nearest(rows))
    }

    /// The value of a directive that some level sets.
    pub(crate) fn maybe<T: Clone + 'static>(&self, row: &'static Directive<T>) -> Option<T> {
        self.nearest(&[row])?.last(row).cloned()
    }

    /// The value of a directive that has a default.
    ///
    /// # Panics
    /// When its row has none: a mistake of ours, which every configuration with an `http` block would show.
    pub(crate) fn get<T: Clone + 'static>(&self, row: &'static Directive<T>) -> T {
        self.maybe(row)
            .or_else(|| self.default_of(row))
            .unwrap_or_else(|| panic!("`{}` has no default", row.name))
    }

    /// What the outermost level says, for directives that could not be read.
    fn default_of<T: Clone + 'static>(&self, row: &'static Directive<T>) -> Option<T> {
        match self.outer {
            Some(outer) => outer.default_of(row),
            None => self.level.last(row).cloned(),
        }
    }

    /// A number that is used as a count or a size in memory.
    pub(crate) fn count(&self, row: &'static Directive<u64>) -> usize {
        usize::try_from(self.get(row)).unwrap_or(usize::MAX)
    }

    /// A number that is used as a 32-bit one.
    pub(crate) fn small(&self, row: &'static Directive<u64>) -> u32 {
        u32::try_from(self.get(row)).unwrap_or(u32::MAX)
    }

    /// All values of a directive on the innermost level that says it.
    pub(crate) fn all<T: Clone + 'static>(&self, row: &'static Directive<T>) -> Vec<T> {
        self.nearest(&[row]).map_or_else(Vec::new, |level| level.values(row).collect())
    }

    /// Where the directive that applies here was written; nowhere when it is a default.
    pub(crate) fn written_at<T: 'static>(
        &self,
        row: &'static Directive<T>,
        nowhere: Span,
    ) -> Option<Span> {
        let line = self.nearest(&[row])?.lines(row).next()?;
        Some(line.directive.head()).filter(|_| line.directive.span != nowhere)
    }

    /// Where a directive was written, if that was on this level and it is a location's: servers may leave to their
    /// locations what goes with it.
    pub(crate) fn written_in_location<T: 'static>(
        &self,
        row: &'static Directive<T>,
        nowhere: Span,
    ) -> Option<Span> {
        let is_location = matches!(self.level.context, Context::Location | Context::LimitExcept);
        self.written_at(row, nowhere).filter(|_| is_location && self.level.has(row))
    }
}

/// The tree of all defaults that rows of `context` have. Its spans lead to `nowhere`, since nobody wrote them.
pub(crate) fn default_directives(
    registry: &Registry,
    context: Context,
    nowhere: Span,
) -> Vec<syntax::Directive> {
    let mut text = String::new();
    for row in
        registry.rows().iter().filter(|row| row.allowed_in(context) && !row.default.is_empty())
    {
        debug_assert!(row.braces == Braces::None && row.kind == Kind::Works);
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
