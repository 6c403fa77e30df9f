//! Bytes become words, `;`, `{`, `}` and comments, by exactly the rules of nginx's configuration reader.
//!
//! The rules that surprise: a quote, `#` or `}` is special only where a word could begin; a backslash takes the next
//! byte with it, whatever it is, and stays in the word unless that byte is one of `" ' \ t r n`; a `{` right behind a
//! `$` belongs to the word; behind a closing quote only white space, `;`, `{` or `)` may stand. A byte order mark is
//! not special at all: it becomes a part of the first word.
//!
//! The lexer never fails. Where nginx would stop it notes a diagnostic and goes on at a place where one forgotten quote
//! does not turn the rest of the file inside out.

use crate::diagnostic::{Diagnostic, printable};
use crate::lua;
use crate::source::{FileId, Origin, Span};

/// nginx holds a word in a buffer of 4096 bytes together with the byte that ends it; what is longer is an error. (It also
/// refuses a few words just below this, depending on what follows, and comments this long, which harm nobody.)
pub const MAX_WORD_LEN: usize = 4095;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A word; its span includes its quotes.
    Word {
        /// The quote it stands in, if any.
        quote: Option<u8>,
    },
    /// `;`
    Semicolon,
    /// `{`
    Open,
    /// `}`
    Close,
    /// From `#` up to the end of the line.
    Comment,
}

/// One token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it stands.
    pub span: Span,
}

/// Splits one text into tokens.
#[derive(Debug)]
pub struct Lexer<'a> {
    input: &'a [u8],
    file: FileId,
    origin: Origin,
    at: usize,
    problems: Vec<Diagnostic>,
}

impl<'a> Lexer<'a> {
    /// Reads `input`, which is the text that spans of `file` point into.
    pub fn new(input: &'a [u8], file: FileId, origin: Origin) -> Self {
        Self { input, file, origin, at: 0, problems: Vec::new() }
    }

    /// Leaves out the bytes before this one.
    pub(crate) fn beginning_at(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// The problems met since this was last asked.
    pub fn take_problems(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.problems)
    }

    /// Goes on at the `}` of a block of Lua, behind whose `{` it stands, if there is one.
    pub(crate) fn skip_lua(&mut self) {
        self.at = lua::block_end(self.input, self.at).unwrap_or(self.at);
    }

    fn token(&self, kind: TokenKind, start: usize) -> Token {
        Token { kind, span: Span::new(self.file, start, self.at) }
    }

    fn single(&mut self, kind: TokenKind) -> Token {
        self.at += 1;
        self.token(kind, self.at - 1)
    }

    fn comment(&mut self) -> Token {
        let start = self.at;
        self.at = self.line_end(start);
        self.token(TokenKind::Comment, start)
    }

    /// The offset of the line end at or behind `from`.
    fn line_end(&self, from: usize) -> usize {
        let rest = &self.input[from..];
        from + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
    }

    /// Goes on with a word whose `{` was none of a block: `[0-9]{3}` and the like, which nginx wants to be quoted. The
    /// `{` stands just before here, and its word began at `start`.
    pub(crate) fn rest_of_word(&mut self, start: u32) -> Token {
        let start = start as usize;
        loop {
            let rest = &self.input[self.at..];
            self.at += rest.iter().position(|&byte| byte == b'}').map_or(0, |end| end + 1);
            self.bare_word_from(start);
            if !self.is_quantified(start, self.at) {
                return self.token(TokenKind::Word { quote: None }, start);
            }
            self.at += 1;
        }
    }

    /// Whether a `{` at `open`, where the word from `start` ends, belongs to a regular expression: what follows is a
    /// quantifier as in `[0-9]{2,3}`, or what belongs to `\p`, `\x` and the like.
    pub(crate) fn is_quantified(&self, start: usize, open: usize) -> bool {
        let word = &self.input[start..open];
        let Some(inside) = self.input[open..].strip_prefix(b"{") else { return false };
        let Some(len) = inside.iter().position(|&byte| byte == b'}') else { return false };
        let inside = &inside[..len];
        let counts = inside.iter().all(|byte| byte.is_ascii_digit() || *byte == b',');
        let names = inside.iter().all(|byte| byte.is_ascii_alphanumeric() || b"^&_".contains(byte));
        let is_escape = matches!(word, [.., b'\\', letter] if letter.is_ascii_alphabetic());
        inside.iter().any(u8::is_ascii_alphanumeric) && (counts || (names && is_escape))
    }

    fn bare_word(&mut self) -> Token {
        self.bare_word_from(self.at)
    }

    fn bare_word_from(&mut self, start: usize) -> Token {
        // `variable`: the byte before was `$`, or `$` and only `{` since.
        let mut variable = false;
        while let Some(&byte) = self.input.get(self.at) {
            if byte == b'{' && variable {
                self.at += 1;
                continue;
            }
            variable = byte == b'$';
            match byte {
                b';' | b'{' => break,
                _ if is_space(byte) => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        // A backslash can be the last byte, and has taken one that is not there.
        self.at = self.at.min(self.input.len());
        if self.at - start > MAX_WORD_LEN {
            self.too_long_word(start);
        }
        self.token(TokenKind::Word { quote: None }, start)
    }

    fn quoted_word(&mut self, quote: u8) -> Token {
        let start = self.at;
        // The closing quote may stand behind the longest word. To search further would report a
        // forgotten quote at the other end of the file instead of here.
        let limit = self.input.len().min(start + 1 + MAX_WORD_LEN + 1);
        let mut at = start + 1;
        while at < limit && self.input[at] != quote {
            at += if self.input[at] == b'\\' { 2 } else { 1 };
        }
        if at < limit {
            self.at = at + 1;
            self.check_behind_quote(start);
        } else if limit == self.input.len() {
            self.unclosed_quote(start);
        } else {
            self.too_long_quote(start, quote);
        }
        self.token(TokenKind::Word { quote: Some(quote) }, start)
    }

    /// Behind a closing quote only white space, `;`, `{` or `)` may stand. A `}` is left to the parser, which reports it
    /// in the same words.
    fn check_behind_quote(&mut self, start: usize) {
        let Some(&byte) = self.input.get(self.at) else {
            return;
        };
        if is_space(byte) || b";{)}".contains(&byte) {
            return;
        }
        let here = Span::new(self.file, self.at, self.at + 1);
        let problem = Diagnostic::error(format!("unexpected \"{}\"", printable(&[byte])));
        let word = Span::new(self.file, start, self.at);
        if self.input[start..self.at].contains(&b'\n') {
            // A quoted word that spans lines and ends badly most likely lacks its end on its first line.
            self.problems.push(
                problem
                    .at(here, "a quoted word ended just before this")
                    .at(word, "it began here; is its closing quote missing?"),
            );
            self.resume_on_first_line(start);
        } else {
            let problem = problem
                .at(here, "expected a space, `;` or `{` after the closing quote")
                .at(word, "");
            self.problems
                .push(problem.help("quote the entire word, or write `\\\"` for a quote inside it"));
        }
    }

    fn unclosed_quote(&mut self, start: usize) {
        let end = Span::new(self.file, self.input.len(), self.input.len());
        let quote = Span::new(self.file, start, start + 1);
        self.problems.push(
            Diagnostic::error(unexpected_end(self.origin, "\";\" or \"}\""))
                .at(end, "")
                .at(quote, "this quote is never closed"),
        );
        self.resume_on_first_line(start);
    }

    fn too_long_quote(&mut self, start: usize, quote: u8) {
        let span = Span::new(self.file, start, start + 1);
        self.problems.push(
            Diagnostic::error(format!(
                "too long parameter, probably missing terminating \"{}\" character",
                char::from(quote)
            ))
            .at(span, "this quote is not closed")
            .note(format!("a parameter is limited to {MAX_WORD_LEN} bytes")),
        );
        self.resume_on_first_line(start);
    }

    fn too_long_word(&mut self, start: usize) {
        // As much as nginx shows. The word is longer than that, or it would not be too long.
        let begin = printable(&self.input[start..start + 10]);
        self.problems.push(
            Diagnostic::error(format!("too long parameter \"{begin}...\" started"))
                .at(Span::new(self.file, start, start + 10), "this word does not end")
                .note(format!("a parameter is limited to {MAX_WORD_LEN} bytes")),
        );
    }

    /// Takes the quoted word to end with its first line, before the `;` or `{` that ends that line.
    fn resume_on_first_line(&mut self, start: usize) {
        let line = &self.input[start + 1..self.line_end(start)];
        let line = line.trim_ascii_end();
        // What ends the line most likely ends the directive; leaving it to the parser keeps the
        // rest of the file in its blocks.
        let line = line.strip_suffix(b";").or_else(|| line.strip_suffix(b"{")).unwrap_or(line);
        self.at = start + 1 + line.trim_ascii_end().len();
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let rest = &self.input[self.at..];
        let skipped = rest.iter().position(|&byte| !is_space(byte))?;
        self.at += skipped;
        Some(match self.input[self.at] {
            b';' => self.single(TokenKind::Semicolon),
            b'{' => self.single(TokenKind::Open),
            b'}' => self.single(TokenKind::Close),
            b'#' => self.comment(),
            quote @ (b'"' | b'\'') => self.quoted_word(quote),
            _ => self.bare_word(),
        })
    }
}

/// nginx's words for a text that ends too early.
pub(crate) fn unexpected_end(origin: Origin, expecting: &str) -> String {
    match origin {
        Origin::CommandLine => "unexpected end of parameter, expecting \";\"".into(),
        Origin::File | Origin::Text => format!("unexpected end of file, expecting {expecting}"),
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The value of a word as written: its quotes removed, `\" \' \\ \t \r \n` resolved, every other backslash kept.
pub fn unescape(raw: &[u8], quote: Option<u8>) -> Box<[u8]> {
    let raw = match quote {
        Some(quote) => {
            let inner = raw.strip_prefix(&[quote]).unwrap_or(raw);
            // A word whose closing quote is missing has none to remove.
            closing_quote(inner, quote).map_or(inner, |end| &inner[..end])
        }
        None => raw,
    };
    if !raw.contains(&b'\\') {
        return raw.into();
    }
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        let (resolved, len) = match (byte, tail.first()) {
            (b'\\', Some(&escaped @ (b'"' | b'\'' | b'\\'))) => (escaped, 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b'n')) => (b'\n', 2),
            _ => (byte, 1),
        };
        value.push(resolved);
        rest = &rest[len..];
    }
    value.into()
}

fn closing_quote(inner: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    while *inner.get(at)? != quote {
        at += if inner[at] == b'\\' { 2 } else { 1 };
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceMap;

    /// The tokens of `text` as they were written, and the error lines.
    fn lex(text: &[u8]) -> (Vec<String>, Vec<String>) {
        let mut sources = SourceMap::default();
        let file = sources.add("t", Origin::File, text.to_vec());
        let mut lexer = Lexer::new(text, file, Origin::File);
        let tokens: Vec<_> = lexer.by_ref().collect();
        let problems = lexer.take_problems();
        let written = |token: &Token| String::from_utf8_lossy(sources.text(token.span)).into();
        let lines = problems.iter().map(|problem| problem.line(&sources));
        (tokens.iter().map(written).collect(), lines.collect())
    }

    #[test]
    fn words_end_where_nginx_ends_them() {
        let cases: &[(&str, &[&str])] = &[
            ("a b;", &["a", "b", ";"]),
            ("a\r\n\tb ;", &["a", "b", ";"]),
            ("a{b}", &["a", "{", "b}"]),
            ("a}b", &["a}b"]),
            ("a#b #c;\nd", &["a#b", "#c;", "d"]),
            ("a#b;#c\r\nd", &["a#b", ";", "#c\r", "d"]),
            ("a\"b'c", &["a\"b'c"]),
            ("\"a b\" 'c;{'", &["\"a b\"", "'c;{'"]),
            ("\"a'b\" 'c\"d'", &["\"a'b\"", "'c\"d'"]),
            ("\"a\";\"b\"{", &["\"a\"", ";", "\"b\"", "{"]),
            ("($a = \"b\")", &["($a", "=", "\"b\"", ")"]),
            ("\"b\")x{", &["\"b\"", ")x", "{"]),
            ("${a}b{", &["${a}b", "{"]),
            ("$ {", &["$", "{"]),
            ("${{a;", &["${{a", ";"]),
            ("a${b}{", &["a${b}", "{"]),
            ("$a{", &["$a", "{"]),
            (r"a\ b\;c\{d;", &[r"a\ b\;c\{d", ";"]),
            (r"\#a \'b'", &[r"\#a", r"\'b'"]),
            (r"$\{;", &[r"$\{", ";"]),
            (r#""a\"b\\" c"#, &[r#""a\"b\\""#, "c"]),
            ("a\u{a0}b\x0bc", &["a\u{a0}b\x0bc"]),
            ("a\\", &["a\\"]),
            ("'' \"\"", &["''", "\"\""]),
        ];
        for &(text, expected) in cases {
            assert_eq!(
                lex(text.as_bytes()),
                (expected.iter().map(|&word| word.into()).collect(), vec![]),
                "{text}"
            );
        }
    }

    #[test]
    fn escapes_are_resolved_and_other_backslashes_kept() {
        let cases: &[(&str, &str)] = &[
            ("plain", "plain"),
            (r#""a b""#, "a b"),
            ("''", ""),
            (r#"a\"b\'c\\d"#, r#"a"b'c\d"#),
            (r"\t\r\n", "\t\r\n"),
            (r"\.\d\ \$", r"\.\d\ \$"),
            (r"'\\n'", r"\n"),
            (r"'\'\''", "''"),
            (r#"'a"b'"#, r#"a"b"#),
            ("a\\", "a\\"),
            ("'unclosed", "unclosed"),
        ];
        for &(raw, expected) in cases {
            let quote = raw.bytes().next().filter(|first| b"\"'".contains(first));
            let value = unescape(raw.as_bytes(), quote);
            assert_eq!(String::from_utf8_lossy(&value), expected, "{raw}");
        }
    }

    #[test]
    fn only_white_space_and_ends_may_follow_a_quote() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("\"a\"b;", &["\"a\"", "b", ";"], "unexpected \"b\" in t:1"),
            ("\"a\"'b';", &["\"a\"", "'b'", ";"], "unexpected \"'\" in t:1"),
            ("'a'#b", &["'a'", "#b"], "unexpected \"#\" in t:1"),
            ("x \"a;\ny \"b\";", &["x", "\"a", ";", "y", "\"b\"", ";"], "unexpected \"b\" in t:2"),
            (
                "x \"a {\ny 'b'\"c;",
                &["x", "\"a", "{", "y", "'b'", "\"c", ";"],
                "unexpected \"c\" in t:2",
            ),
        ];
        for &(text, tokens, line) in cases {
            let (found, lines) = lex(text.as_bytes());
            assert_eq!(found, tokens, "{text}");
            assert_eq!(lines[0], format!("[emerg] {line}"), "{text}");
        }
    }

    #[test]
    fn a_word_may_have_4095_bytes() {
        let word = |len: usize| "x".repeat(len);
        let long = format!("too long parameter \"{}...\" started in t:2", word(10));
        let quote = "too long parameter, probably missing terminating \"'\" character in t:2";
        let cases = [
            (format!("\n{};", word(MAX_WORD_LEN)), None),
            (format!("\n{};", word(MAX_WORD_LEN + 1)), Some(long)),
            (format!("\n'{}';", word(MAX_WORD_LEN)), None),
            (format!("\n'{}';", word(MAX_WORD_LEN + 1)), Some(quote.into())),
            (format!("#{}\n;", word(9000)), None),
        ];
        for (text, line) in cases {
            let expected: Vec<_> =
                line.into_iter().map(|line: String| format!("[emerg] {line}")).collect();
            let (tokens, lines) = lex(text.as_bytes());
            assert_eq!(lines, expected);
            assert_eq!(tokens.len(), 2);
        }
    }

    #[test]
    fn an_unclosed_quote_ends_with_its_line() {
        let rest = "y z;\n".repeat(2000);
        let (tokens, lines) = lex(format!("x \"a b; \n{rest}").as_bytes());
        assert_eq!(
            lines,
            ["[emerg] too long parameter, probably missing terminating \"\"\" character in t:1"]
        );
        assert_eq!(tokens[..6], ["x", "\"a b", ";", "y", "z", ";"]);
        let (tokens, lines) = lex(b"x 'a {\ny;\n");
        assert_eq!(lines, ["[emerg] unexpected end of file, expecting \";\" or \"}\" in t:3"]);
        assert_eq!(tokens, ["x", "'a", "{", "y", ";"]);
    }
}
