//! Tokens become a tree.
//!
//! The parser keeps an explicit stack of open blocks, so depth costs heap, and is bounded. It never stops at a mistake:
//! it takes the likely repair (a missing `;` or `}` is taken as written) and reports each mistake once, in nginx's
//! words where nginx has some. nginx reads blocks by calling itself; what it accepts is the same.

use crate::diagnostic::{Diagnostic, Report, printable};
use crate::lexer::{Lexer, Token, TokenKind, unescape, unexpected_end};
use crate::source::{FileId, Origin, SourceFile, Span};
use crate::tree::{Block, Directive, Word};

/// How deep blocks may nest in one file. Real configurations stay below ten.
pub const MAX_BLOCK_DEPTH: usize = 64;

/// One text as a tree, with what is wrong with it.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) directives: Vec<Directive>,
    pub(crate) report: Report,
    /// Whether every brace had its partner.
    pub(crate) balanced: bool,
}

/// Parses one text; `include` is a directive like any other.
pub(crate) fn parse_file(id: FileId, source: &SourceFile) -> Tree {
    Parser::new(source.bytes(), id, source.origin()).run()
}

/// A block whose `}` has not come yet.
struct Frame {
    /// Absent when `{` stood where a name was expected.
    head: Option<(Word, Vec<Word>)>,
    open: Span,
    directives: Vec<Directive>,
}

/// The state of reading one text.
struct Parser<'t> {
    lexer: Lexer<'t>,
    bytes: &'t [u8],
    file: FileId,
    origin: Origin,
    words: Vec<Word>,
    /// The lexer reported something in the current directive; what looks odd in it has been said.
    doubtful: bool,
    stack: Vec<Frame>,
    tree: Tree,
    /// The first block whose `}` stood further left than the block's own line: the likely owner of a missing `}`.
    suspect: Option<Span>,
}

impl<'t> Parser<'t> {
    fn new(bytes: &'t [u8], file: FileId, origin: Origin) -> Self {
        Self {
            lexer: Lexer::new(bytes, file, origin),
            bytes,
            file,
            origin,
            words: Vec::new(),
            doubtful: false,
            stack: Vec::new(),
            tree: Tree { directives: Vec::new(), report: Report::default(), balanced: true },
            suspect: None,
        }
    }

    fn run(mut self) -> Tree {
        while let Some(token) = self.lexer.next() {
            self.take_problems();
            match token.kind {
                TokenKind::Comment => {}
                TokenKind::Word { quote } => self.word(token, quote),
                TokenKind::Semicolon => self.semicolon(token.span),
                TokenKind::Open if self.stack.len() == MAX_BLOCK_DEPTH => {
                    self.error(format!("blocks nest more than {MAX_BLOCK_DEPTH} deep"), token.span);
                    self.tree.balanced = false;
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
        self.tree.report.push(problem);
    }

    fn error(&mut self, message: String, at: Span) {
        self.report(Diagnostic::error(message).at(at, ""));
    }

    fn take_problems(&mut self) {
        let problems = self.lexer.take_problems();
        self.doubtful |= !problems.is_empty();
        self.tree.report.extend(problems);
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
            self.tree.balanced = false;
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
                self.tree.balanced = false;
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
                let outermost = self.stack[0].open.start;
                let suspect = self.suspect.filter(|suspect| suspect.start > outermost);
                let guilty = suspect.unwrap_or(frame.open);
                Diagnostic::error(unexpected_end(self.origin, "\"}\""))
                    .at(end, "")
                    .at(guilty, "this block is not closed")
            })
        };
        self.tree.balanced &= self.stack.is_empty();
        self.tree.report.extend(problem);
    }

    /// Ends every open block where the text ends and returns the whole.
    fn close_everything(mut self) -> Tree {
        let end = Span::new(self.file, self.bytes.len(), self.bytes.len());
        while let Some(frame) = self.stack.pop() {
            self.close_frame(frame, end);
        }
        self.tree
    }

    /// The entries of the innermost open block.
    fn siblings(&mut self) -> &mut Vec<Directive> {
        self.stack.last_mut().map_or(&mut self.tree.directives, |frame| &mut frame.directives)
    }

    fn close_frame(&mut self, frame: Frame, close: Span) {
        if let Some((name, args)) = frame.head {
            let span = name.span.to(close);
            let block = Block { directives: frame.directives, span: frame.open.to(close) };
            self.finish(Directive { name, args, block: Some(block), span });
        }
    }

    fn finish(&mut self, directive: Directive) {
        self.siblings().push(directive);
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
mod tests;
