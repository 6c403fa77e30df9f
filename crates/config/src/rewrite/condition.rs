//! The condition of an `if`.

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::read::{Reading, Reads, variable_name};
use crate::regex::Regex;
use crate::template::{Template, VariableId};

/// The condition of an `if`.
#[derive(Clone, Debug)]
pub enum Condition {
    /// A variable is neither empty nor `0`.
    True(VariableId),
    /// `=` or, negated, `!=`.
    Equal {
        /// Left side.
        variable: VariableId,
        /// Right side.
        value: Template,
        /// `!=`.
        negate: bool,
    },
    /// `~`, `~*` and their negations.
    Matches {
        /// What is matched.
        variable: VariableId,
        /// The expression.
        regex: Regex,
        /// `!~`.
        negate: bool,
    },
    /// `-f`, `-d`, `-e`, `-x` and their negations.
    File {
        /// The path.
        path: Template,
        /// What it must be.
        test: FileTest,
        /// `!-f` and the like.
        negate: bool,
    },
}

/// Tests of `if (-f …)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTest {
    /// `-f`: a regular file.
    File,
    /// `-d`: a directory.
    Directory,
    /// `-e`: anything.
    Exists,
    /// `-x`: executable.
    Executable,
}

/// Reads `( … )`, whose brackets may stick to the words inside.
pub(crate) fn condition(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Condition> {
    let words = inner_words(directive)?;
    let [first, rest @ ..] = &words[..] else {
        return Err(invalid_condition(&directive.args[0]));
    };
    let condition = match (&*first.value, rest) {
        ([b'$', _, ..], []) => Condition::True(variable(reading, first)?),
        ([b'$', _, ..], [operator, value]) => compare(reading, first, operator, value)?,
        ([b'$', _, ..], _) => return Err(invalid_condition(first)),
        ([b'-', _] | [b'!', b'-', _], [path]) => file_test(reading, first, path)?,
        _ => return Err(invalid_condition(first)),
    };
    Ok(condition)
}

fn invalid_condition(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid condition \"{word}\""))
        .at(word.span, "")
        .help("e.g. `if ($variable = value)`")
}

fn inner_words(directive: &syntax::Directive) -> Result<Vec<Word>, Diagnostic> {
    let mut words = directive.args.clone();
    let first = &mut words[0];
    match first.value.strip_prefix(b"(") {
        Some(inner) => first.value = inner.into(),
        None => return Err(invalid_condition(first)),
    }
    let last = words.last_mut().expect("the row asks for an argument");
    match last.value.strip_suffix(b")") {
        Some(inner) => last.value = inner.into(),
        None => return Err(invalid_condition(last)),
    }
    // Only a bracket that stood alone leaves nothing; a quoted empty text inside stays.
    if directive.args[0].is("(") {
        words.remove(0);
    }
    if words.len() > 1 && directive.args.last().is_some_and(|word| word.is(")")) {
        words.pop();
    }
    Ok(words)
}

fn variable(reading: &mut Reading<'_>, word: &Word) -> Result<VariableId, Diagnostic> {
    let name = variable_name(word)?;
    Ok(reading.names.mention(&name, word.span))
}

fn compare(
    reading: &mut Reading<'_>,
    left: &Word,
    operator: &Word,
    right: &Word,
) -> Result<Condition, Diagnostic> {
    let variable = variable(reading, left)?;
    let negate = operator.value.first() == Some(&b'!');
    match &*operator.value {
        b"=" | b"!=" => Ok(Condition::Equal { variable, value: reading.template(right)?, negate }),
        b"~" | b"~*" | b"!~" | b"!~*" => {
            let caseless = operator.value.ends_with(b"*");
            let regex = reading.regex(&right.value, caseless, right.span)?;
            Ok(Condition::Matches { variable, regex, negate })
        }
        _ => {
            let message = format!("unexpected \"{operator}\" in condition");
            Err(Diagnostic::error(message)
                .at(operator.span, "one of `=`, `!=`, `~`, `~*`, `!~`, `!~*`"))
        }
    }
}

fn file_test(reading: &mut Reading<'_>, test: &Word, path: &Word) -> Result<Condition, Diagnostic> {
    let negate = test.value.first() == Some(&b'!');
    let kind = match test.value.last() {
        Some(b'f') => FileTest::File,
        Some(b'd') => FileTest::Directory,
        Some(b'e') => FileTest::Exists,
        Some(b'x') => FileTest::Executable,
        _ => return Err(invalid_condition(test)),
    };
    Ok(Condition::File { path: reading.template(path)?, test: kind, negate })
}
