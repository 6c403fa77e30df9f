//! The charset that answers are in, and changing it.

use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word, printable};

use super::types::{TypeSet, in_force, types};
use crate::directive::Arity::{AtLeast, Exactly, Flag};
use crate::directive::{AnyDirective, Braces, Directive, H, HSL, HSLI};
use crate::map::entries;
use crate::read::{Reading, Reads, flag, has_variables, invalid_value};
use crate::scope::Scope;
use crate::template::Template;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&CHARSET, &CHARSET_MAP, &CHARSET_TYPES, &OVERRIDE_CHARSET, &SOURCE_CHARSET];

/// `charset`
pub(crate) static CHARSET: Directive<Option<Template>> = Directive {
    name: "charset",
    contexts: HSLI,
    arity: Exactly(1),
    default: "off",
    doc: "Adds this charset to the `Content-Type` header of responses; if `source_charset` names \
          another one, the body is converted by a `charset_map`.",
    ..Directive::once(charset)
};

/// `charset_map`
pub(crate) static CHARSET_MAP: Directive<CharsetMap> = Directive {
    name: "charset_map",
    contexts: H,
    arity: Exactly(2),
    doc: "Defines how the characters of one charset are converted to another, and back.",
    braces: Braces::Entries,
    ..Directive::repeated(charset_map)
};

/// `charset_types`
pub(crate) static CHARSET_TYPES: Directive<TypeSet> = Directive {
    name: "charset_types",
    contexts: HSL,
    arity: AtLeast(1),
    default: "text/html text/xml text/plain text/vnd.wap.wml application/javascript \
              application/rss+xml",
    doc: "Sets the MIME types of responses that `charset` applies to, in addition to `text/html`; \
          `*` stands for any.",
    ..Directive::repeated(types)
};

/// `override_charset`
pub(crate) static OVERRIDE_CHARSET: Directive<bool> = Directive {
    name: "override_charset",
    contexts: HSLI,
    arity: Flag,
    default: "off",
    doc: "Also converts responses of upstream servers that specify their charset.",
    ..Directive::once(flag)
};

/// `source_charset`
pub(crate) static SOURCE_CHARSET: Directive<Template> = Directive {
    name: "source_charset",
    contexts: HSLI,
    arity: Exactly(1),
    doc: "Sets the charset of responses before `charset` converts them.",
    ..Directive::once(name)
};

/// `charset` and what goes with it.
#[derive(Clone, Debug)]
pub struct Charset {
    /// The charset that is named; `None` for `off`.
    pub name: Option<Template>,
    /// `source_charset`.
    pub source: Option<Template>,
    /// `override_charset`.
    pub overrides: bool,
    /// `charset_types`.
    pub types: TypeSet,
}

/// `charset_map`.
#[derive(Clone, Debug)]
pub struct CharsetMap {
    /// The charset of one byte a character.
    pub from: Box<[u8]>,
    /// The other one, which may be UTF-8.
    pub to: Box<[u8]>,
    /// Bytes and what they are in the other charset: one byte, or the encoding of a character.
    pub pairs: Arc<[(u8, Box<[u8]>)]>,
}

fn charset(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Template>> {
    if directive.args[0].is("off") {
        return Ok(None);
    }
    name(reading, directive).map(Some)
}

fn name(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Template> {
    let mut word = directive.args[0].clone();
    if !has_variables(&word) {
        word.value = take_in(reading, &word);
    }
    reading.template(&word)
}

fn charset_map(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<CharsetMap> {
    let [from, to] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    if from.value.eq_ignore_ascii_case(&to.value) {
        let message = format!("\"charset_map\" between the same charsets \"{from}\" and \"{to}\"");
        return Err(Diagnostic::error(message).at(to.span, ""));
    }
    if is_utf8(&from.value) {
        let message = "\"charset_map\" with \"utf-8\" charset should be given in the second column";
        return Err(Diagnostic::error(message).at(from.span, ""));
    }
    let utf8 = is_utf8(&to.value);
    let mut pairs = Vec::new();
    for entry in entries(directive) {
        match pair(entry, utf8) {
            Ok(pair) => pairs.push(pair),
            Err(problem) => reading.report.push(problem),
        }
    }
    for word in [from, to] {
        take_in(reading, word);
    }
    Ok(CharsetMap { from: from.value.clone(), to: to.value.clone(), pairs: pairs.into() })
}

/// Adds a charset to those that are named. As in nginx the first that names it says how it is written in all answers.
fn take_in(reading: &mut Reading<'_>, word: &Word) -> Box<[u8]> {
    let mut known = reading.charsets.iter();
    if let Some(known) = known.find(|known| known.eq_ignore_ascii_case(&word.value)) {
        return known.clone();
    }
    reading.charsets.push(word.value.clone());
    word.value.clone()
}

/// One line of a map.
fn pair(entry: &syntax::Directive, utf8: bool) -> Result<(u8, Box<[u8]>), Diagnostic> {
    let [to] = &entry.args[..] else {
        return Err(Diagnostic::error("invalid parameters number").at(entry.head(), ""));
    };
    let from = byte(&entry.name).ok_or_else(|| invalid_value(&entry.name))?;
    let to = match utf8 {
        true => character(&to.value).ok_or_else(|| invalid_value(to))?,
        false => [byte(to).ok_or_else(|| invalid_value(to))?].into(),
    };
    Ok((from, to))
}

fn byte(word: &Word) -> Option<u8> {
    let digits = word.as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// The encoding of one character, which as in nginx is one of the basic plane.
fn character(text: &[u8]) -> Option<Box<[u8]>> {
    let bytes: Option<Vec<u8>> = text
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
        .collect();
    let bytes = bytes.filter(|_| text.len().is_multiple_of(2))?;
    let mut characters = std::str::from_utf8(&bytes).ok()?.chars();
    let first = characters.next().filter(|&one| u32::from(one) < 0x10000)?;
    (characters.next().is_none() && first.len_utf8() == bytes.len()).then(|| bytes.into())
}

fn is_utf8(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"utf-8")
}

/// What applies on a level. Two charsets that are known now must have a map.
pub(crate) fn of_level(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> Charset {
    let charset = Charset {
        name: scope.get(&CHARSET),
        source: scope.maybe(&SOURCE_CHARSET),
        overrides: scope.get(&OVERRIDE_CHARSET),
        types: in_force(scope, &CHARSET_TYPES),
    };
    let known = |template: &Option<Template>| Some(template.as_ref()?.as_text()?.to_vec());
    if let (Some(to), Some(from)) = (known(&charset.name), known(&charset.source))
        && !to.eq_ignore_ascii_case(&from)
        && !scope.all(&CHARSET_MAP).iter().any(|map| map.joins(&from, &to))
        && let Some(span) = scope.written_at(&SOURCE_CHARSET, reading.nowhere)
    {
        let (from, to) = (printable(&from), printable(&to));
        let message = format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
        // Every level that inherits it would say so again.
        if reading.charset_problems.insert(span) {
            reading.report.push(Diagnostic::error(message).at(span, ""));
        }
    }
    charset
}

impl CharsetMap {
    /// Whether it is between these two, in one direction or the other.
    pub fn joins(&self, one: &[u8], other: &[u8]) -> bool {
        let is = |from: &[u8], to: &[u8]| {
            self.from.eq_ignore_ascii_case(from) && self.to.eq_ignore_ascii_case(to)
        };
        is(one, other) || is(other, one)
    }

    /// Whether the second one is UTF-8.
    pub fn is_utf8(&self) -> bool {
        is_utf8(&self.to)
    }
}

/// The maps of the `http` block.
pub(crate) fn maps(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> Vec<CharsetMap> {
    let Some(level) = scope.nearest(&[&CHARSET_MAP]) else { return Vec::new() };
    let mut maps: Vec<CharsetMap> = Vec::new();
    for line in level.lines(&CHARSET_MAP) {
        let Some(map) = line.value else { continue };
        if maps.iter().any(|other| other.joins(&map.from, &map.to)) {
            let (from, to) = (printable(&map.from), printable(&map.to));
            let message = format!("duplicate \"charset_map\" between \"{from}\" and \"{to}\"");
            reading.error(message, line.directive.head());
            continue;
        }
        maps.push(map.clone());
    }
    maps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_those_of_the_basic_plane() {
        for (text, expected) in [
            ("41", Some(&b"A"[..])),
            ("E282AC", Some("€".as_bytes())),
            ("F09F9880", None),
            ("4142", None),
            ("C3", None),
            ("E28", None),
            ("xx", None),
            ("", None),
        ] {
            assert_eq!(character(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }
}
