//! Texts in commands: variables and backslashes.

use bytes::{Bytes, BytesMut};
use wssgate_config::model::LogLevel;

use super::page::{Failed, Page};
use crate::exchange::request::Request;

/// The value of a parameter: `$name` and `${name}` stand for variables, and a backslash protects
/// quotes, `$` and itself.
pub(super) fn evaluate(request: &Request, page: &Page, text: &[u8]) -> Result<Bytes, Failed> {
    let mut out = BytesMut::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'\\', [protected @ (b'\\' | b'\'' | b'"' | b'$'), tail @ ..]) => {
                out.extend_from_slice(&[*protected]);
                rest = tail;
            }
            (b'$', tail) => {
                let (name, after) = variable_name(request, text, tail)?;
                let value = page.variable(request, name).unwrap_or_default();
                page.bound(request, out.len() + value.len())?;
                out.extend_from_slice(&value);
                rest = after;
            }
            // Of a backslash at the end nothing stays.
            (b'\\', []) => {}
            _ => out.extend_from_slice(&[*byte]),
        }
    }
    Ok(out.freeze())
}

/// The name behind a `$`, and what follows it.
fn variable_name<'t>(
    request: &Request,
    whole: &[u8],
    text: &'t [u8],
) -> Result<(&'t [u8], &'t [u8]), Failed> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let len = |text: &[u8]| text.iter().take_while(|byte| is_name(byte)).count();
    let (name, after) = match text {
        [b'{', inner @ ..] => {
            let (name, after) = inner.split_at(len(inner));
            let Some(after) = after.strip_prefix(b"}") else {
                let name = name.escape_ascii();
                request.log(
                    LogLevel::Error,
                    format_args!("the closing bracket in \"{name}\" variable is missing"),
                );
                return Err(Failed);
            };
            (name, after)
        }
        _ => text.split_at(len(text)),
    };
    if name.is_empty() {
        let whole = whole.escape_ascii();
        request.log(LogLevel::Error, format_args!("invalid variable name in \"{whole}\""));
        return Err(Failed);
    }
    Ok((name, after))
}

/// Whether the expression of an `if` holds: `$a`, `$a = text`, `$a != text`, `$a = /expression/`.
pub(super) fn holds(request: &Request, page: &Page, expression: &[u8]) -> Result<bool, Failed> {
    let is_left = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'$' | b'{' | b'}' | b'_' | b'"' | b'\'')
    };
    let (left, rest) =
        expression.split_at(expression.iter().take_while(|byte| is_left(byte)).count());
    // Names of variables have no case, and as in nginx a text on this side has none either.
    let left = evaluate(request, page, &left.to_ascii_lowercase())?;
    let spaces = |text: &[u8]| text.iter().take_while(|byte| **byte == b' ').count();
    let rest = &rest[spaces(rest)..];
    let (negated, right) = match rest {
        [] => return Ok(!left.is_empty()),
        [b'=', right @ ..] => (false, right),
        [b'!', b'=', right @ ..] => (true, right),
        _ => return Err(invalid(request, expression)),
    };
    let equal = match &right[spaces(right)..] {
        [b'/', pattern @ .., b'/'] => {
            let pattern = evaluate(request, page, pattern)?;
            page.matches(request, &pattern, &left)?
        }
        [b'/', _, ..] => return Err(invalid(request, expression)),
        [b'\\', text @ ..] if text.first() == Some(&b'/') => evaluate(request, page, text)? == left,
        text => evaluate(request, page, text)? == left,
    };
    Ok(equal != negated)
}

fn invalid(request: &Request, expression: &[u8]) -> Failed {
    let expression = expression.escape_ascii();
    request.log(LogLevel::Error, format_args!("invalid expression in \"{expression}\""));
    Failed
}
