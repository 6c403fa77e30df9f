//! Tokens become a tree; files named by `include` are read in place.
//!
//! The parser keeps an explicit stack of open blocks, so depth costs heap, and is bounded. It never stops at a mistake:
//! it takes the likely repair (a missing `;` or `}` is taken as written) and reports each mistake once, in nginx's
//! words where nginx has some.

use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Report, printable};
use crate::files::{Disk, Files, glob, is_mask};
use crate::lexer::{Lexer, Token, TokenKind, unescape, unexpected_end};
use crate::source::{FileId, Origin, SourceMap, Span};
use crate::tree::{Block, Directive, Word};

/// How deep blocks may nest in one file. Real configurations stay below ten.
pub const MAX_BLOCK_DEPTH: usize = 64;
/// How deep includes may nest; symbolic links can hide a cycle from its check.
pub const MAX_INCLUDE_DEPTH: usize = 32;
/// How many files may be read in one run, counting each inclusion.
pub const MAX_INCLUDES: usize = 16_384;

/// The main text of a configuration.
#[derive(Clone, Debug)]
pub enum Main {
    /// A file; a relative path is taken from the prefix.
    File(PathBuf),
    /// A text that is in no file; relative includes in it are taken from the prefix.
    Text {
        /// What messages call it.
        name: String,
        /// The configuration.
        text: Vec<u8>,
    },
}

/// What to read.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The main text.
    pub main: &'a Main,
    /// The directory of `-p`; without it relative paths are left as they are.
    pub prefix: Option<&'a Path>,
    /// The directives of `-g`, read before everything else.
    pub globals: Option<&'a [u8]>,
    /// Where files are read from.
    pub files: &'a dyn Files,
}

impl<'a> Options<'a> {
    /// Only the main text, with files from the disk.
    pub fn new(main: &'a Main) -> Self {
        Self { main, prefix: None, globals: None, files: &Disk }
    }
}

/// What was read.
#[derive(Debug)]
pub struct Parsed {
    /// Every text; owns what the spans point into.
    pub sources: SourceMap,
    /// The top level: the directives of `-g`, then those of the main text.
    pub directives: Vec<Directive>,
    /// What is wrong with the text.
    pub report: Report,
    /// Each `include` that was followed: its directive and the file it brought in, in order.
    pub includes: Vec<Include>,
    /// Whether every brace had its partner. If not, blocks may hold directives that belong elsewhere, and whether a
    /// directive is allowed where it stands cannot be told.
    pub balanced: bool,
}

/// One file that an `include` brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Include {
    /// The directive.
    pub span: Span,
    /// The file.
    pub file: FileId,
}

/// Reads a whole configuration.
pub fn parse(options: Options<'_>) -> Parsed {
    let mut parser = Parser::new(options.files, true);
    let main = match options.main {
        Main::File(path) => from_prefix(options.prefix, path),
        Main::Text { name, .. } => PathBuf::from(name),
    };
    parser.base = match options.main {
        Main::File(_) => directory_of(&main),
        Main::Text { .. } => options.prefix.map(Path::to_path_buf).unwrap_or_default(),
    };
    let mut directives = Vec::new();
    if let Some(globals) = options.globals {
        let file = parser.out.sources.add("command line", Origin::CommandLine, globals.to_vec());
        directives = parser.text(file);
    }
    let file = match options.main {
        Main::Text { text, .. } => Some(parser.out.sources.add(main, Origin::Text, text.clone())),
        Main::File(_) => parser.open(&main, None),
    };
    if let Some(file) = file {
        directives.append(&mut parser.text(file));
    }
    parser.out.directives = directives;
    parser.out
}

/// Reads one text without following its includes, which stay in the tree as directives.
pub fn parse_text(name: impl Into<PathBuf>, text: &[u8]) -> Parsed {
    let mut parser = Parser::new(&Disk, false);
    let file = parser.out.sources.add(name, Origin::Text, text.to_vec());
    parser.out.directives = parser.text(file);
    parser.out
}

fn from_prefix(prefix: Option<&Path>, path: &Path) -> PathBuf {
    prefix.map_or_else(|| path.to_path_buf(), |prefix| prefix.join(path))
}

/// The directory part of `path`, empty for a bare name.
fn directory_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

struct Parser<'a> {
    files: &'a dyn Files,
    follow: bool,
    base: PathBuf,
    /// The files being read, outermost first.
    chain: Vec<FileId>,
    out: Parsed,
}

/// A block whose `}` has not come yet.
struct Frame {
    /// Absent when `{` stood where a name was expected.
    head: Option<(Word, Vec<Word>)>,
    open: Span,
    directives: Vec<Directive>,
}

impl<'a> Parser<'a> {
    fn new(files: &'a dyn Files, follow: bool) -> Self {
        let out = Parsed {
            sources: SourceMap::default(),
            directives: Vec::new(),
            report: Report::default(),
            includes: Vec::new(),
            balanced: true,
        };
        Self { files, follow, base: PathBuf::new(), chain: Vec::new(), out }
    }

    /// Reads a file once; a problem is reported at `from`, the argument of the `include`.
    fn open(&mut self, path: &Path, from: Option<Span>) -> Option<FileId> {
        if let Some(file) = self.out.sources.find(path) {
            return Some(file);
        }
        match self.files.read(path) {
            Ok(bytes) => {
                let file = self.out.sources.add(path, Origin::File, bytes);
                self.warn_of_byte_order_mark(file);
                Some(file)
            }
            Err(error) => {
                let problem = Diagnostic::error(open_failed(path, &error));
                self.out
                    .report
                    .push(from.into_iter().fold(problem, |problem, span| problem.at(span, "")));
                None
            }
        }
    }

    fn warn_of_byte_order_mark(&mut self, file: FileId) {
        if self.out.sources.file(file).bytes().starts_with(b"\xef\xbb\xbf") {
            self.out.report.push(
                Diagnostic::warning("the file begins with a byte order mark")
                    .at(Span::new(file, 0, 3), "becomes a part of the first word")
                    .help("save the file as UTF-8 without a byte order mark"),
            );
        }
    }

    /// Parses the text `file` and everything it includes.
    fn text(&mut self, file: FileId) -> Vec<Directive> {
        self.chain.push(file);
        let bytes = self.out.sources.file(file).shared_bytes();
        let origin = self.out.sources.file(file).origin();
        let directives = TextParser::new(self, &bytes, file, origin).run();
        self.chain.pop();
        directives
    }

    /// The directives that the `include` at `directive` stands for.
    fn include(&mut self, directive: &Directive) -> Vec<Directive> {
        if let Some(problem) = misused_include(directive) {
            self.out.report.push(problem);
            return Vec::new();
        }
        let argument = &directive.args[0];
        let target = self.base.join(path_of(&argument.value));
        let pattern = target.as_os_str().as_encoded_bytes();
        let paths = if is_mask(pattern) { glob(self.files, pattern) } else { vec![target] };
        let mut included = Vec::new();
        for path in paths {
            if let Some(file) = self.open_include(&path, argument.span) {
                self.out.includes.push(Include { span: directive.span, file });
                included.append(&mut self.text(file));
            }
        }
        included
    }

    fn open_include(&mut self, path: &Path, from: Span) -> Option<FileId> {
        let known = self.out.sources.find(path);
        if let Some(start) = self.chain.iter().position(|&open| Some(open) == known) {
            let chain = self.chain[start..].iter().chain(&self.chain[start..=start]);
            self.refuse(format!("include cycle: {}", self.names(chain)), from);
            return None;
        }
        if self.chain.len() > MAX_INCLUDE_DEPTH {
            let message = format!(
                "includes nest more than {MAX_INCLUDE_DEPTH} deep: {}",
                self.names(&self.chain)
            );
            self.refuse(message, from);
            return None;
        }
        if self.out.includes.len() == MAX_INCLUDES {
            self.refuse(format!("more than {MAX_INCLUDES} files are included"), from);
            return None;
        }
        self.open(path, Some(from))
    }

    fn refuse(&mut self, message: String, at: Span) {
        self.out.report.push(Diagnostic::error(message).at(at, ""));
    }

    fn names<'f>(&self, files: impl IntoIterator<Item = &'f FileId>) -> String {
        let paths = files.into_iter().map(|&file| self.out.sources.file(file).path());
        paths.map(|path| format!("\"{}\"", path.display())).collect::<Vec<_>>().join(" includes ")
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// nginx's words for a file that cannot be read.
fn open_failed(path: &Path, error: &std::io::Error) -> String {
    let call = if error.kind() == std::io::ErrorKind::IsADirectory { "pread" } else { "open" };
    let text = error.to_string();
    let reason = match error.raw_os_error() {
        Some(code) => format!(
            "{code}: {}",
            text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text)
        ),
        None => text,
    };
    format!("{call}() \"{}\" failed ({reason})", printable(path.as_os_str().as_encoded_bytes()))
}

fn misused_include(directive: &Directive) -> Option<Diagnostic> {
    let message = if directive.block.is_some() {
        "directive \"include\" is not terminated by \";\""
    } else if directive.args.len() != 1 {
        "invalid number of arguments in \"include\" directive"
    } else {
        return None;
    };
    Some(Diagnostic::error(message).at(directive.head(), "takes one file name or mask"))
}

/// The state of reading one text.
struct TextParser<'p, 'a, 't> {
    parser: &'p mut Parser<'a>,
    lexer: Lexer<'t>,
    bytes: &'t [u8],
    file: FileId,
    origin: Origin,
    words: Vec<Word>,
    /// The lexer reported something in the current directive; what looks odd in it has been said.
    doubtful: bool,
    stack: Vec<Frame>,
    top: Vec<Directive>,
    /// The first block whose `}` stood further left than the block's own line: the likely owner of a missing `}`.
    suspect: Option<Span>,
}

impl<'p, 'a, 't> TextParser<'p, 'a, 't> {
    fn new(parser: &'p mut Parser<'a>, bytes: &'t [u8], file: FileId, origin: Origin) -> Self {
        let lexer = Lexer::new(bytes, file, origin);
        let (words, stack, top) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            parser,
            lexer,
            bytes,
            file,
            origin,
            words,
            doubtful: false,
            stack,
            top,
            suspect: None,
        }
    }

    fn run(mut self) -> Vec<Directive> {
        while let Some(token) = self.lexer.next() {
            self.take_problems();
            match token.kind {
                TokenKind::Comment => {}
                TokenKind::Word { quote } => self.word(token, quote),
                TokenKind::Semicolon => self.semicolon(token.span),
                TokenKind::Open if self.stack.len() == MAX_BLOCK_DEPTH => {
                    self.error(format!("blocks nest more than {MAX_BLOCK_DEPTH} deep"), token.span);
                    self.parser.out.balanced = false;
                    return self.close_everything();
                }
                TokenKind::Open => self.open(token.span),
                TokenKind::Close => self.close(token.span),
            }
        }
        self.take_problems();
        self.end();
        self.close_everything()
    }

    fn report(&mut self, problem: Diagnostic) {
        self.parser.out.report.push(problem);
    }

    fn error(&mut self, message: String, at: Span) {
        self.report(Diagnostic::error(message).at(at, ""));
    }

    fn take_problems(&mut self) {
        let problems = self.lexer.take_problems();
        self.doubtful |= !problems.is_empty();
        self.parser.out.report.extend(problems);
    }

    fn word(&mut self, token: Token, quote: Option<u8>) {
        let raw = &self.bytes[token.span.start as usize..token.span.end as usize];
        self.words.push(Word {
            value: unescape(raw, quote),
            span: token.span,
            quoted: quote.is_some(),
        });
    }

    /// The words since the last directive ended: the next one's name and arguments.
    fn take_head(&mut self) -> Option<(Word, Vec<Word>)> {
        let mut words = std::mem::take(&mut self.words).into_iter();
        self.doubtful = false;
        let name = words.next()?;
        Some((name, words.collect()))
    }

    fn semicolon(&mut self, span: Span) {
        let Some((name, args)) = self.take_head() else {
            let after_block = self.siblings().last().is_some_and(|last| last.block.is_some());
            let help = after_block.then(|| "a block ends with its `}` alone".to_string());
            self.report(Diagnostic::error("unexpected \";\"").at(span, "").maybe_help(help));
            return;
        };
        let span = name.span.to(span);
        self.finish(Directive { name, args, block: None, span });
    }

    fn open(&mut self, open: Span) {
        let head = self.take_head();
        if head.is_none() {
            self.report(
                Diagnostic::error("unexpected \"{\"").at(open, "expected a name before this"),
            );
            self.parser.out.balanced = false;
        } else if self.origin == Origin::CommandLine {
            self.error("block directives are not supported in -g option".into(), open);
        }
        self.stack.push(Frame { head, open, directives: Vec::new() });
    }

    fn close(&mut self, close: Span) {
        let unfinished = !self.words.is_empty();
        if unfinished {
            self.finish_unterminated(close);
        }
        match self.stack.pop() {
            Some(frame) => {
                self.note_indentation(frame.open, close);
                self.close_frame(frame, close);
            }
            None => {
                self.parser.out.balanced = false;
                if !unfinished {
                    self.report(
                        Diagnostic::error("unexpected \"}\"").at(close, "no block is open here"),
                    );
                }
            }
        }
    }

    /// A `}` came before the `;` of a directive: says so and takes the `;` as written.
    fn finish_unterminated(&mut self, close: Span) {
        let doubtful = self.doubtful;
        let Some((name, args)) = self.take_head() else {
            return;
        };
        let end = args.last().map_or(name.span, |last| last.span);
        if !doubtful {
            self.report(
                Diagnostic::error("unexpected \"}\"")
                    .at(close, "")
                    .at(end.after(), "expected `;` here")
                    .help(format!("end the directive `{name}` with `;`")),
            );
        }
        let span = name.span.to(end);
        self.finish(Directive { name, args, block: None, span });
    }

    fn end(&mut self) {
        let end = Span::new(self.file, self.bytes.len(), self.bytes.len());
        let doubtful = self.doubtful;
        let problem = if let Some((name, args)) = self.take_head() {
            let last = args.last().map_or(name.span, |last| last.span);
            let span = name.span.to(last);
            let problem = Diagnostic::error(unexpected_end(self.origin, "\";\" or \"}\""))
                .at(end, "")
                .at(last.after(), "expected `;` here")
                .maybe_help(swallowed_brace(self.bytes, last));
            self.finish(Directive { name, args, block: None, span });
            (!doubtful).then_some(problem)
        } else {
            self.stack.last().map(|frame| {
                let guilty = self.suspect.unwrap_or(frame.open);
                Diagnostic::error(unexpected_end(self.origin, "\"}\""))
                    .at(end, "")
                    .at(guilty, "this block is not closed")
            })
        };
        self.parser.out.balanced &= self.stack.is_empty();
        self.parser.out.report.extend(problem);
    }

    /// Ends every open block where the text ends and returns the top level.
    fn close_everything(mut self) -> Vec<Directive> {
        let end = Span::new(self.file, self.bytes.len(), self.bytes.len());
        while let Some(frame) = self.stack.pop() {
            self.close_frame(frame, end);
        }
        self.top
    }

    /// The entries of the innermost open block.
    fn siblings(&mut self) -> &mut Vec<Directive> {
        self.stack.last_mut().map_or(&mut self.top, |frame| &mut frame.directives)
    }

    fn close_frame(&mut self, frame: Frame, close: Span) {
        if let Some((name, args)) = frame.head {
            let span = name.span.to(close);
            let block = Block { directives: frame.directives, span: frame.open.to(close) };
            self.finish(Directive { name, args, block: Some(block), span });
        }
    }

    fn finish(&mut self, directive: Directive) {
        if self.parser.follow && directive.is("include") {
            let mut included = self.parser.include(&directive);
            self.siblings().append(&mut included);
        } else {
            self.siblings().push(directive);
        }
    }

    fn note_indentation(&mut self, open: Span, close: Span) {
        let (Some(close), Some(opener)) =
            (self.indentation(close, true), self.indentation(open, false))
        else {
            return;
        };
        if close < opener && self.suspect.is_none() {
            self.suspect = Some(open);
        }
    }

    /// How far the line of `span` is indented; nothing if `span` is to be the first thing on it and is not.
    fn indentation(&self, span: Span, first: bool) -> Option<usize> {
        let before = &self.bytes[..span.start as usize];
        let line = &before[before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)..];
        let indent = line.iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
        (!first || indent == line.len()).then_some(indent)
    }
}

/// `80}` is one word: a `}` is only special where a word begins.
fn swallowed_brace(bytes: &[u8], word: Span) -> Option<String> {
    let text = &bytes[word.start as usize..word.end as usize];
    let message =
        || format!("the `}}` belongs to the word `{}`; put `;` before it", printable(text));
    text.ends_with(b"}").then(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in one line: words joined by spaces, each directive ended with `;` or its braces.
    fn show(directives: &[Directive]) -> String {
        let one = |directive: &Directive| {
            let words = std::iter::once(&directive.name).chain(&directive.args);
            let words = words
                .map(|word| if word.value.is_empty() { "''".into() } else { word.to_string() });
            let head = words.collect::<Vec<_>>().join(" ");
            match &directive.block {
                Some(block) => format!("{head} {{ {} }}", show(&block.directives)),
                None => format!("{head};"),
            }
        };
        directives.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_clean_text_becomes_its_tree() {
        let cases = [
            ("", ""),
            ("a;", "a;"),
            ("a b c;d;", "a b c; d;"),
            ("a{b{c;}}", "a { b { c; } }"),
            (
                "map $a $b { default x; '' y; ~^/\"z\" ${c}; }",
                "map $a $b { default x; '' y; ~^/\"z\" ${c}; }",
            ),
            ("if ($a = b) { return 1; }", "if ($a = b) { return 1; }"),
            ("if ($a = \"b c\") { return 1; }", "if ($a = b c ) { return 1; }"),
        ];
        for (text, expected) in cases {
            let parsed = parse_text("t", text.as_bytes());
            assert_eq!(parsed.report.lines(&parsed.sources), [""; 0], "{text}");
            assert_eq!(show(&parsed.directives), expected, "{text}");
            assert!(parsed.balanced);
        }
    }

    #[test]
    fn one_mistake_gives_one_error_in_nginx_s_words() {
        let cases: &[(&str, &[&str])] = &[
            ("a { b c }", &["unexpected \"}\" in t:1"]),
            ("a { b\n}\nc;", &["unexpected \"}\" in t:2"]),
            ("a;\n}\nb;", &["unexpected \"}\" in t:2"]),
            ("a { };", &["unexpected \";\" in t:1"]),
            ("{ a; } b;", &["unexpected \"{\" in t:1"]),
            ("a b", &["unexpected end of file, expecting \";\" or \"}\" in t:1"]),
            ("a {\nb;\n", &["unexpected end of file, expecting \"}\" in t:3"]),
            ("a { b {\n c;", &["unexpected end of file, expecting \"}\" in t:2"]),
            ("a \"b;\nc;\n", &["unexpected end of file, expecting \";\" or \"}\" in t:3"]),
            ("a \"b;\nc \"d\";\n", &["unexpected \"d\" in t:2"]),
            ("a { b \"c\n}\n", &["unexpected end of file, expecting \";\" or \"}\" in t:3"]),
            ("a \"b\"c;", &["unexpected \"c\" in t:1"]),
            ("a { b \"c\"}", &["unexpected \"}\" in t:1"]),
            ("a;;b;", &["unexpected \";\" in t:1"]),
        ];
        for &(text, expected) in cases {
            let parsed = parse_text("t", text.as_bytes());
            let expected: Vec<_> = expected.iter().map(|line| format!("[emerg] {line}")).collect();
            assert_eq!(parsed.report.lines(&parsed.sources), expected, "{text}");
        }
    }
}
