//! What was written and where: the tree with every directive checked against its row and read, nothing merged.

use std::collections::HashMap;

use wssgate_syntax::{Diagnostic, Directive, closest};

use crate::directive::{Arity, Braces, Context, Kind, Read, Row, Value, rows, rows_named};
use crate::read::{self, Reading};

/// One block: its directives in order.
pub(crate) struct Level<'t> {
    /// What kind of block.
    pub(crate) context: Context,
    entries: Vec<Entry<'t>>,
    by_name: HashMap<&'static str, Vec<usize>>,
}

/// One directive of an implemented row.
pub(crate) struct Entry<'t> {
    /// Its row.
    pub(crate) row: &'static Row,
    /// What was written.
    pub(crate) directive: &'t Directive,
    /// What the row's reader made of it; `None` when that failed, which is reported.
    pub(crate) value: Option<Value>,
    /// The directives in its braces.
    pub(crate) level: Option<Level<'t>>,
}

impl Entry<'_> {
    /// The value, when it could be read.
    ///
    /// # Panics
    /// When the row's reader gives another type: a mistake of ours.
    pub(crate) fn value<T: Clone + 'static>(&self) -> Option<T> {
        let value = self.value.as_ref()?;
        let value = value.downcast::<T>();
        Some(
            value
                .unwrap_or_else(|| {
                    panic!("`{}` is not read as {}", self.row.name, std::any::type_name::<T>())
                })
                .clone(),
        )
    }
}

impl<'t> Level<'t> {
    /// Every directive of the block.
    pub(crate) fn entries(&self) -> &[Entry<'t>] {
        &self.entries
    }

    /// The directives of one name, in order.
    pub(crate) fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = &Entry<'t>> {
        self.by_name.get(name).into_iter().flatten().map(|&index| &self.entries[index])
    }

    /// Whether a directive of this name was written here, well or badly.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }
}

/// Reads the directives of one block. `sure` is false when braces are missing somewhere, so that nothing can be said
/// about where a directive may stand.
pub(crate) fn walk<'t>(
    reading: &mut Reading<'_>,
    directives: &'t [Directive],
    context: Context,
    sure: bool,
) -> Level<'t> {
    let mut level = Level { context, entries: Vec::new(), by_name: HashMap::new() };
    for directive in directives {
        match read_directive(reading, directive, &level, sure) {
            Ok(Some(entry)) => {
                level.by_name.entry(entry.row.name).or_default().push(level.entries.len());
                level.entries.push(entry);
            }
            Ok(None) => {}
            Err(problem) => reading.report.push(problem),
        }
    }
    level
}

/// Checks one directive against its row and reads it; `None` for what has no effect here.
fn read_directive<'t>(
    reading: &mut Reading<'_>,
    directive: &'t Directive,
    level: &Level<'_>,
    sure: bool,
) -> Result<Option<Entry<'t>>, Diagnostic> {
    let Some(row) = row_of(directive, level.context, sure)? else {
        return Ok(None);
    };
    match row.kind {
        Kind::Refused(_) if is_harmless(directive, row) => Ok(None),
        Kind::Refused(advice) => {
            let message = format!("\"{}\" directive is not supported", row.name);
            Err(Diagnostic::error(message).at(directive.head(), "").help(advice))
        }
        Kind::WithoutEffect(reason) => {
            check_shape(reading, directive, row)?;
            note_absence(reading, directive, row, reason).map(|()| None)
        }
        Kind::Works(read) => {
            check_shape(reading, directive, row)?;
            check_repetition(directive, level, row)?;
            Ok(Some(read_entry(reading, row, read, directive, level.context, sure)))
        }
    }
}

/// The row of a name in a context; `None` when nothing can be said about where the directive stands.
fn row_of(
    directive: &Directive,
    context: Context,
    sure: bool,
) -> Result<Option<&'static Row>, Diagnostic> {
    let named = rows_named(&directive.name.value);
    if named.is_empty() {
        return Err(unknown(directive, context));
    }
    match named.iter().find(|row| row.allowed_in(context)) {
        None if sure => Err(misplaced(directive, context, named)),
        found => Ok(found.copied()),
    }
}

/// Whether a refused directive asks for nothing.
fn is_harmless(directive: &Directive, row: &Row) -> bool {
    matches!(&directive.args[..], [word] if !row.harmless.is_empty() && word.is(row.harmless))
}

/// Says once for each name that it has no effect.
fn note_absence(
    reading: &mut Reading<'_>,
    directive: &Directive,
    row: &Row,
    reason: &str,
) -> Result<(), Diagnostic> {
    if row.arity == Arity::Flag {
        read::on_or_off(directive, &directive.args[0])?;
    }
    if reading.noted.insert(row.name) {
        let message = format!("\"{}\" directive has no effect: {reason}", row.name);
        reading.report.push(Diagnostic::information(message).at(directive.head(), ""));
    }
    Ok(())
}

fn check_repetition(directive: &Directive, level: &Level<'_>, row: &Row) -> Result<(), Diagnostic> {
    let Some(first) = level.named(row.name).next().filter(|_| !row.repeats) else {
        return Ok(());
    };
    Err(Diagnostic::error(format!("\"{}\" directive is duplicate", row.name))
        .at(directive.head(), "")
        .at(first.directive.head(), "first given here"))
}

/// Braces and the number of arguments.
fn check_shape(reading: &Reading<'_>, directive: &Directive, row: &Row) -> Result<(), Diagnostic> {
    let name = row.name;
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
    let swallowed = directive.swallowed(reading.sources, |word| !rows_named(word).is_empty());
    Err(problem.maybe_help(swallowed.map(|word| format!("is the `;` before `{word}` missing?"))))
}

fn read_entry<'t>(
    reading: &mut Reading<'_>,
    row: &'static Row,
    read: Read,
    directive: &'t Directive,
    context: Context,
    sure: bool,
) -> Entry<'t> {
    let value = match read(reading, directive) {
        Ok(value) => Some(value),
        Err(problem) => {
            reading.report.push(problem);
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
    Entry { row, directive, value, level }
}

fn unknown(directive: &Directive, context: Context) -> Diagnostic {
    let name = directive.name.as_bytes();
    let here = rows().iter().filter(|row| row.allowed_in(context)).map(|row| row.name);
    let anywhere = rows().iter().map(|row| row.name);
    let close = closest(name, here).or_else(|| closest(name, anywhere));
    Diagnostic::error(format!("unknown directive \"{}\"", directive.name))
        .at(directive.name.span, format!("not known in `{}`", context.name()))
        .maybe_help(close.map(|close| format!("did you mean `{close}`?")))
}

fn misplaced(directive: &Directive, context: Context, named: &[&Row]) -> Diagnostic {
    let places: Vec<_> = named.iter().map(|row| row.context_names()).collect();
    Diagnostic::error(format!("\"{}\" directive is not allowed here", directive.name))
        .at(directive.name.span, format!("this is `{}`", context.name()))
        .help(format!("it may stand in: {}", places.join(", ")))
}
