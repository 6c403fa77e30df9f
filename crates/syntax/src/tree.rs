//! The tree a configuration is read into: words, directives, blocks.
//!
//! Every block has the same grammar, whatever stands in it: an entry of `map`, `types` or `geo` is a [`Directive`] whose
//! name is its first word, be it a regular expression, a number or an empty string.

use std::borrow::Cow;
use std::fmt;

use crate::diagnostic::printable;
use crate::source::{SourceMap, Span};

/// One word with its quotes removed and its escapes resolved. Not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq)]
pub struct Word {
    /// What the word means.
    pub value: Box<[u8]>,
    /// Where it stands, quotes included; [`SourceMap::text`] gives it as written.
    pub span: Span,
    /// Whether it was written in quotes.
    pub quoted: bool,
}

impl Word {
    /// The value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.value
    }

    /// The value if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.value).ok()
    }

    /// The value as text, with U+FFFD for what is not UTF-8.
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }

    /// Whether the value is exactly `text`.
    pub fn is(&self, text: &str) -> bool {
        *self.value == *text.as_bytes()
    }
}

/// The value fit for a message: control characters and bytes that are not UTF-8 are escaped.
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.value))
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}..{}", self.to_str_lossy(), self.span.start, self.span.end)
    }
}

/// One directive: `name args… ;` or `name args… { … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// The first word.
    pub name: Word,
    /// The words after it.
    pub args: Vec<Word>,
    /// What stands in braces, if the directive ended with `{`.
    pub block: Option<Block>,
    /// From the name to the `;` or `}`.
    pub span: Span,
    /// The parser guessed where a word or the directive ends and has said so: its words are not worth checking.
    pub repaired: bool,
}

impl Directive {
    /// Whether the name is exactly `name`.
    pub fn is(&self, name: &str) -> bool {
        self.name.is(name)
    }

    /// From the name to the last argument: the directive without its end or block.
    pub fn head(&self) -> Span {
        self.args.last().map_or(self.name.span, |last| self.name.span.to(last.span))
    }

    /// The first argument that begins a line of its own and satisfies `is_name`.
    ///
    /// Lexically a forgotten `;` swallows the next directive as arguments; when a directive has wrong arguments and this
    /// finds something, the `;` before it is what is missing.
    pub fn swallowed<'a>(
        &'a self,
        sources: &SourceMap,
        is_name: impl Fn(&[u8]) -> bool,
    ) -> Option<&'a Word> {
        let file = sources.file(self.name.span.file);
        self.args.iter().find(|word| {
            let line = file.line_range(file.line_at(word.span.start));
            let before = &file.bytes()[line.start..word.span.start as usize];
            !word.quoted && before.iter().all(u8::is_ascii_whitespace) && is_name(&word.value)
        })
    }
}

/// The directives between two braces; those of included files stand where their `include` stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The entries in order.
    pub directives: Vec<Directive>,
    /// From `{` to `}`; up to the end of the file if the `}` is missing.
    pub span: Span,
}
