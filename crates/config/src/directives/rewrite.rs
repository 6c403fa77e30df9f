//! Small programs that change the path, answer at once, or choose settings.

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::{AtLeast, Between, Exactly};
use crate::directive::{Braces, L, LI, Row, S, SI, Value, works};
use crate::model::{Condition, FileTest, Return, Rewrite, RewriteFlag, RewriteOp};
use crate::read::{Reading, Reads, duplicate_variable, invalid_parameter, present};
use crate::template::VariableId;
use crate::value;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "break",
        S | SI | L | LI,
        Exactly(0),
        "",
        "Stops rewriting and stays in this location.",
        present,
    )
    .many(),
    works("if", S | L, AtLeast(1), "", "Holds what applies when a condition is true.", condition)
        .block(Braces::If)
        .many(),
    works(
        "return",
        S | SI | L | LI,
        Between(1, 2),
        "",
        "Answers at once with a status, text or redirect.",
        return_,
    )
    .many(),
    works(
        "rewrite",
        S | SI | L | LI,
        Between(2, 3),
        "",
        "Replaces the path when it matches.",
        rewrite,
    )
    .many(),
    works("set", S | SI | L | LI, Exactly(2), "", "Gives a variable a value.", set).many(),
];

fn set(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let [name, text] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let variable = super::map::variable_name(name)?;
    let variable =
        reading.names.assign(&variable).map_err(|_| duplicate_variable(&variable, name.span))?;
    Ok(Value::new(RewriteOp::Set { variable, value: reading.template(text)? }))
}

/// A text that begins like this is the target of a redirect, not a path.
fn is_redirect(text: &[u8]) -> bool {
    [b"http://".as_slice(), b"https://", b"$scheme"].iter().any(|start| text.starts_with(start))
}

fn return_(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let first = &directive.args[0];
    let invalid = || {
        Diagnostic::error(format!("invalid return code \"{first}\""))
            .at(first.span, "a status or URL is expected")
    };
    let (status, text) = match value::number(&first.value) {
        Some(status @ 0..=999) => (status as u16, directive.args.get(1)),
        Some(_) => return Err(invalid()),
        None if directive.args.len() == 1 && is_redirect(&first.value) => (302, Some(first)),
        None => return Err(invalid()),
    };
    let text = text.map(|word| reading.template(word)).transpose()?;
    Ok(Value::new(RewriteOp::Return(Return { status, text })))
}

fn rewrite(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let (pattern, replacement) = (&directive.args[0], &directive.args[1]);
    if replacement.value.is_empty() {
        return Err(Diagnostic::error("empty replacement").at(replacement.span, ""));
    }
    let regex = reading.regex(&pattern.value, false, pattern.span)?;
    let append_args = !replacement.value.ends_with(b"?");
    let text = replacement.value.strip_suffix(b"?").unwrap_or(&replacement.value);
    let mut flag = if is_redirect(text) { RewriteFlag::Redirect } else { RewriteFlag::None };
    if let Some(word) = directive.args.get(2) {
        flag = match (&*word.value, flag) {
            // A redirect stays one: `last` and `break` only say that nothing follows, which is so anyway.
            (b"last" | b"break", RewriteFlag::Redirect) => RewriteFlag::Redirect,
            (b"last", _) => RewriteFlag::Last,
            (b"break", _) => RewriteFlag::Break,
            (b"redirect", _) => RewriteFlag::Redirect,
            (b"permanent", _) => RewriteFlag::Permanent,
            _ => return Err(invalid_parameter(word)),
        };
    }
    let redirect = matches!(flag, RewriteFlag::Redirect | RewriteFlag::Permanent);
    // In a redirect the arguments are a part of the target.
    let question = text.iter().position(|&byte| byte == b'?').filter(|_| !redirect);
    let (path, args) = match question {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let replacement_span = replacement.span;
    let replacement = reading.names.template(path, replacement_span)?;
    let args = args.map(|args| reading.names.template(args, replacement_span)).transpose()?;
    Ok(Value::new(RewriteOp::Rewrite(Rewrite { regex, replacement, args, append_args, flag })))
}

/// Reads `( … )`, whose brackets may stick to the words inside.
fn condition(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
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
    Ok(Value::new(condition))
}

fn invalid_condition(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid condition \"{word}\""))
        .at(word.span, "")
        .help("e.g. `if ($variable = value)`")
}

fn inner_words(directive: &Directive) -> Result<Vec<Word>, Diagnostic> {
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
    let name = super::map::variable_name(word)?;
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
