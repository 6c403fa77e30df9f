//! What was written and where: the tree with every directive checked against its row and read, nothing merged.

use wssgate_syntax::{self as syntax, Diagnostic, Span, closest};

use crate::directive::{AnyDirective, Arity, Braces, Context, Directive, Kind, Row, RowId, Value};
use crate::modules::{module_of, other_syntax};
use crate::read::{self, Reading, variable_name};
use crate::slip::Words;

/// One block: its directives in order.
pub(crate) struct Level<'t> {
    /// What kind of block.
    pub(crate) context: Context,
    entries: Vec<Entry<'t>>,
    /// What is written of each row, sorted by row. Most blocks have a few rows, and every setting is looked for in every
    /// block around a location: nothing is found faster in so few.
    by_row: Vec<Chain>,
}

/// Where in the entries of a level the first and the last directive of a row are; each leads to the next.
struct Chain {
    row: RowId,
    first: usize,
    last: usize,
}

/// One directive that its row has read.
pub(crate) struct Entry<'t> {
    /// What was written.
    directive: &'t syntax::Directive,
    /// What the row made of it; `None` when that failed, which is reported.
    value: Option<Value>,
    /// The directives in its braces.
    level: Option<Level<'t>>,
    row: RowId,
    /// Where in its level the next directive of the row is.
    next: Option<usize>,
}

/// One directive of a known row.
pub(crate) struct Line<'l, 't, T> {
    /// What was written.
    pub(crate) directive: &'t syntax::Directive,
    /// What it says; `None` when it could not be read, which is reported.
    pub(crate) value: Option<&'l T>,
    /// The directives in its braces.
    pub(crate) level: Option<&'l Level<'t>>,
}

impl<'t> Entry<'t> {
    /// Where it was written.
    pub(crate) fn span(&self) -> Span {
        self.directive.span
    }

    /// The directives in its braces.
    pub(crate) fn level(&self) -> Option<&Level<'t>> {
        self.level.as_ref()
    }

    /// The entry as a directive of `row`, when it is one.
    pub(crate) fn of<T: 'static>(&self, row: &'static Directive<T>) -> Option<Line<'_, 't, T>> {
        let value = self.value.as_ref().and_then(|value| row.of(value));
        let line = Line { directive: self.directive, value, level: self.level.as_ref() };
        (self.row == row.id()).then_some(line)
    }
}

impl<'t> Level<'t> {
    /// Every directive of the block.
    pub(crate) fn entries(&self) -> &[Entry<'t>] {
        &self.entries
    }

    /// The directives of one row, in order.
    pub(crate) fn lines<T: 'static>(
        &self,
        row: &'static Directive<T>,
    ) -> impl Iterator<Item = Line<'_, 't, T>> {
        let first = self.chain(row.id()).map(|chain| chain.first);
        let places = std::iter::successors(first, |&at| self.entries[at].next);
        places.filter_map(|at| self.entries[at].of(row))
    }

    /// The directives of several rows, in order.
    pub(crate) fn lines_of<T: 'static, const N: usize>(
        &self,
        rows: [&'static Directive<T>; N],
    ) -> impl Iterator<Item = Line<'_, 't, T>> {
        self.entries.iter().filter_map(move |entry| rows.iter().find_map(|row| entry.of(row)))
    }

    /// What the directives of one row say, in order, without those that could not be read.
    pub(crate) fn values<T: Clone + 'static>(
        &self,
        row: &'static Directive<T>,
    ) -> impl Iterator<Item = T> {
        self.lines(row).filter_map(|line| line.value.cloned())
    }

    /// What the last directive of one row says.
    pub(crate) fn last<T: 'static>(&self, row: &'static Directive<T>) -> Option<&T> {
        self.entries[self.chain(row.id())?.last].of(row)?.value
    }

    /// Whether a directive of this row was written here, well or badly.
    pub(crate) fn has<T: 'static>(&self, row: &'static Directive<T>) -> bool {
        self.chain(row.id()).is_some()
    }

    /// Whether a directive of one of these rows was written here, well or badly.
    pub(crate) fn has_any(&self, rows: &[&'static [&'static dyn AnyDirective]]) -> bool {
        self.by_row.iter().any(|chain| chain.is_among(rows))
    }

    /// Whether nothing is written here but directives of these rows.
    pub(crate) fn says_only(&self, rows: &[&'static [&'static dyn AnyDirective]]) -> bool {
        self.by_row.iter().all(|chain| chain.is_among(rows))
    }

    fn chain(&self, row: RowId) -> Option<&Chain> {
        self.place_of(row).ok().map(|place| &self.by_row[place])
    }

    /// Where in `by_row` a row is, or belongs.
    fn place_of(&self, row: RowId) -> Result<usize, usize> {
        self.by_row.binary_search_by_key(&row, |chain| chain.row)
    }

    fn push(&mut self, entry: Entry<'t>) {
        let (row, at) = (entry.row, self.entries.len());
        match self.place_of(row) {
            Ok(place) => {
                let before = std::mem::replace(&mut self.by_row[place].last, at);
                self.entries[before].next = Some(at);
            }
            Err(place) => self.by_row.insert(place, Chain { row, first: at, last: at }),
        }
        self.entries.push(entry);
    }
}

impl Chain {
    fn is_among(&self, rows: &[&'static [&'static dyn AnyDirective]]) -> bool {
        rows.iter().copied().flatten().any(|row| row.id() == self.row)
    }
}

/// Reads the directives of one block. `sure` is false when braces are missing somewhere, so that nothing can be said
/// about where a directive may stand.
pub(crate) fn walk<'t>(
    reading: &mut Reading<'_>,
    directives: &'t [syntax::Directive],
    context: Context,
    sure: bool,
) -> Level<'t> {
    let entries = Vec::with_capacity(directives.len());
    let mut level = Level { context, entries, by_row: Vec::new() };
    for directive in directives {
        match read_directive(reading, directive, &level, sure) {
            Ok(Some(entry)) => level.push(entry),
            Ok(None) => {}
            Err(problem) => {
                reading.report.push(problem);
                declare(reading, directive);
            }
        }
    }
    level
}

/// Knows the variables that a wrong line was to define: of one mistake nobody needs to hear twice.
fn declare(reading: &mut Reading<'_>, directive: &syntax::Directive) {
    let word = match &*directive.name.value {
        b"auth_request_set" | b"set" => directive.args.first(),
        b"geo" | b"map" | b"split_clients" => directive.args.last(),
        _ => None,
    };
    // Without a `;` the next line is among the arguments.
    let swallowed = directive.args.windows(2).filter(|pair| pair[0].is("set"));
    for word in word.into_iter().chain(swallowed.map(|pair| &pair[1])) {
        if let Ok(name) = variable_name(word) {
            let _ = reading.names.assign(&name);
        }
    }
}

/// Checks one directive against its row and reads it; `None` for what has no effect here.
fn read_directive<'t>(
    reading: &mut Reading<'_>,
    directive: &'t syntax::Directive,
    level: &Level<'_>,
    sure: bool,
) -> Result<Option<Entry<'t>>, Diagnostic> {
    let Some(row) = row_of(reading, directive, level.context, sure)? else {
        return Ok(None);
    };
    if let Kind::Refused(advice) = row.kind {
        if is_harmless(directive, row) {
            return Ok(None);
        }
        let message = format!("\"{}\" directive is not supported", row.name);
        return Err(Diagnostic::error(message).at(directive.head(), "").help(advice));
    }
    check_shape(reading, directive, row)?;
    if let Kind::WithoutEffect(reason) = row.kind {
        note_absence(reading, directive, row, reason)?;
    }
    let Some(typed) = row.directive else {
        return Ok(None);
    };
    check_repetition(directive, level, row, typed.id())?;
    Ok(Some(read_entry(reading, row, typed, directive, level.context, sure)))
}

/// The row of a name in a context; `None` when nothing can be said about where the directive stands.
fn row_of(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    context: Context,
    sure: bool,
) -> Result<Option<&'static Row>, Diagnostic> {
    let named = reading.registry.named(&directive.name.value);
    if named.is_empty() {
        return Err(unknown(reading, directive, context));
    }
    match named.iter().find(|row| row.allowed_in(context)) {
        None if sure => Err(misplaced(directive, context, named)),
        found => Ok(found),
    }
}

/// Whether a directive asks for what is done anyway.
fn is_harmless(directive: &syntax::Directive, row: &Row) -> bool {
    matches!(&directive.args[..], [word] if !row.harmless.is_empty() && word.is(row.harmless))
}

/// Says once for each name that it has no effect, unless what it asks for is done anyway.
fn note_absence(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    row: &'static Row,
    reason: &str,
) -> Result<(), Diagnostic> {
    if row.arity == Arity::Flag {
        read::on_or_off(directive, &directive.args[0])?;
    }
    if !is_harmless(directive, row) && reading.noted.insert(&row.name) {
        let message = format!("\"{}\" directive has no effect: {reason}", row.name);
        reading.report.push(Diagnostic::idle(&*row.name, message).at(directive.head(), ""));
    }
    Ok(())
}

fn check_repetition(
    directive: &syntax::Directive,
    level: &Level<'_>,
    row: &Row,
    id: RowId,
) -> Result<(), Diagnostic> {
    let Some(chain) = level.chain(id).filter(|_| !row.repeats) else {
        return Ok(());
    };
    Err(Diagnostic::error(format!("\"{}\" directive is duplicate", row.name))
        .at(directive.head(), "")
        .at(level.entries[chain.first].directive.head(), "first given here"))
}

/// Braces and the number of arguments.
fn check_shape(
    reading: &Reading<'_>,
    directive: &syntax::Directive,
    row: &Row,
) -> Result<(), Diagnostic> {
    let name = &row.name;
    match (&directive.block, row.braces) {
        (Some(_), Braces::None) => {
            let message = format!("directive \"{name}\" is not terminated by \";\"");
            return Err(Diagnostic::error(message).at(directive.head(), "`;` is missing"));
        }
        (None, braces) if braces != Braces::None => {
            let message = format!("directive \"{name}\" has no opening \"{{\"");
            return Err(Diagnostic::error(message).at(directive.head(), "`{` is missing"));
        }
        _ => {}
    }
    if row.arity.allows(directive.args.len()) {
        return Ok(());
    }
    let problem = Diagnostic::error(format!("invalid number of arguments in \"{name}\" directive"))
        .at(directive.head(), format!("takes {}", row.arity.words()));
    let help = missing_end(reading, directive);
    Err(problem.maybe_help(help.or_else(|| other_syntax(name).map(str::to_owned))))
}

/// What to do about a directive that has taken in the next one.
fn missing_end(reading: &Reading<'_>, directive: &syntax::Directive) -> Option<String> {
    let is_name = |word: &[u8]| !reading.registry.named(word).is_empty();
    let swallowed = directive.swallowed(reading.sources, is_name)?;
    Some(format!("is the `;` before `{swallowed}` missing?"))
}

fn read_entry<'t>(
    reading: &mut Reading<'_>,
    row: &Row,
    typed: &'static dyn AnyDirective,
    directive: &'t syntax::Directive,
    context: Context,
    sure: bool,
) -> Entry<'t> {
    let value = match typed.read(reading, directive) {
        Ok(value) => Some(value),
        Err(problem) => {
            reading.report.push(problem.maybe_help(missing_end(reading, directive)));
            declare(reading, directive);
            None
        }
    };
    let inner = match row.braces {
        Braces::None | Braces::Entries => None,
        Braces::Level(context) => Some(context),
        Braces::If if context == Context::Server => Some(Context::ServerIf),
        Braces::If => Some(Context::LocationIf),
    };
    let level = inner
        .zip(directive.block.as_ref())
        .map(|(context, block)| walk(reading, &block.directives, context, sure));
    Entry { directive, value, level, row: typed.id(), next: None }
}

fn unknown(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    context: Context,
) -> Diagnostic {
    let registry = reading.registry;
    let name = directive.name.as_bytes();
    let problem = Diagnostic::error(format!("unknown directive \"{}\"", directive.name));
    if let Some((module, instead)) = module_of(name) {
        let label = format!("of {module}, not in wssgate");
        let problem = problem.at(directive.name.span, label);
        // A module has many directives, and for all of them the same helps.
        return problem.maybe_help(reading.noted.insert(instead).then(|| instead.to_owned()));
    }
    let problem = problem.at(directive.name.span, format!("not known in `{}`", context.name()));
    if reading.report.is_full() {
        // Looking for a name that was meant takes long, and nobody reads of so many.
        return problem;
    }
    let names = || registry.rows().iter().map(|row| &*row.name);
    let words = Words::of(names());
    let text = directive.name.to_str_lossy();
    let near: Vec<_> =
        registry.rows().iter().filter(|row| words.may_mean(&text, &row.name)).collect();
    let here = near.iter().filter(|row| row.allowed_in(context)).map(|row| &*row.name);
    let close = closest(name, here).or_else(|| closest(name, near.iter().map(|row| &*row.name)));
    problem.maybe_help(close.map(|close| format!("did you mean `{close}`?")))
}

fn misplaced(directive: &syntax::Directive, context: Context, named: &[Row]) -> Diagnostic {
    let places: Vec<_> = named.iter().map(|row| row.context_names()).collect();
    let forgotten =
        context == Context::Main && named.iter().any(|row| row.allowed_in(Context::Http));
    let help = match forgotten {
        // As of a file in conf.d, which is no whole configuration.
        true => "put it into `http { }`; test a file that is included there with the one that includes it".into(),
        false => format!("allowed in: {}", places.join(", ")),
    };
    Diagnostic::error(format!("\"{}\" directive is not allowed here", directive.name))
        .at(directive.name.span, format!("inside `{}`", context.name()))
        .help(help)
}
