//! Tokens become a tree.
//!
//! The parser keeps an explicit stack of open blocks, so depth costs heap, and is bounded. It never stops at a mistake:
//! it takes the likely repair (a missing `;` or `}` is taken as written) and reports each mistake once, in nginx's
//! words where nginx has some. nginx reads blocks by calling itself; what it accepts is the same.

use crate::diagnostic::{Diagnostic, Report, printable};
use crate::lexer::{Lexer, Token, TokenKind, unescape, unexpected_end};
use crate::source::{FileId, Origin, SourceFile, Span};
use crate::tree::{Block, Directive, Word};

/// How deep blocks may nest, included files counted. Real configurations stay below ten.
pub const MAX_BLOCK_DEPTH: usize = 64;

/// One text as a tree, with what is wrong with it.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) directives: Vec<Directive>,
    pub(crate) report: Report,
    /// Whether every brace had its partner.
    pub(crate) balanced: bool,
}

/// What is said of a block that is one too deep.
pub(crate) fn too_deep() -> String {
    format!("blocks nest more than {MAX_BLOCK_DEPTH} deep")
}

/// Parses one text from this byte on; `include` is a directive like any other.
pub(crate) fn parse_file(id: FileId, source: &SourceFile, from: usize) -> Tree {
    Parser::new(source, id, from).run()
}

/// A block whose `}` has not come yet.
struct Frame {
    /// Absent when `{` stood where a name was expected.
    head: Option<Head>,
    open: Span,
    /// Where its entries begin in [`Parser::entries`].
    first: usize,
}

/// The words of a directive whose end has come.
struct Head {
    name: Word,
    args: Vec<Word>,
    /// From the name to the last argument.
    span: Span,
    /// The lexer reported something in these words; what looks odd in them has been said.
    doubtful: bool,
}

impl Head {
    /// The directive that ends at `end`.
    fn ended(self, block: Option<Block>, end: Span) -> Directive {
        let span = self.name.span.to(end);
        Directive { name: self.name, args: self.args, block, span, repaired: self.doubtful }
    }

    /// The place where its `;` is missing.
    fn missing_end(&self) -> Span {
        self.span.after()
    }
}

/// The state of reading one text.
struct Parser<'t> {
    lexer: Lexer<'t>,
    source: &'t SourceFile,
    bytes: &'t [u8],
    file: FileId,
    origin: Origin,
    words: Vec<Word>,
    /// The lexer reported something in the current directive.
    doubtful: bool,
    stack: Vec<Frame>,
    /// The entries of all open blocks, those of the innermost last, and before them those of the text itself. What
    /// ends is taken out of here and of `words` at its length, since no block or directive grows any more.
    entries: Vec<Directive>,
    tree: Tree,
    /// The first block whose `}` stood further left than the block's own line: the likely owner of a missing `}`.
    suspect: Option<Span>,
}

impl<'t> Parser<'t> {
    fn new(source: &'t SourceFile, file: FileId, from: usize) -> Self {
        let (bytes, origin) = (source.bytes(), source.origin());
        Self {
            lexer: Lexer::new(bytes, file, origin).beginning_at(from),
            source,
            bytes,
            file,
            origin,
            words: Vec::new(),
            doubtful: false,
            stack: Vec::new(),
            entries: Vec::new(),
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
                TokenKind::Open if self.is_in_expression(token.span) => self.go_on(token.span),
                TokenKind::Open if self.stack.len() == MAX_BLOCK_DEPTH => {
                    self.error(too_deep(), token.span);
                    // Blocks are ended where their braces are not, so nobody may judge what stands
                    // in which.
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
    fn take_head(&mut self) -> Option<Head> {
        let mut words = self.words.drain(..);
        let doubtful = std::mem::take(&mut self.doubtful);
        let name = words.next()?;
        let args: Vec<_> = words.collect();
        let span = args.last().map_or(name.span, |last| name.span.to(last.span));
        Some(Head { name, args, span, doubtful })
    }

    fn semicolon(&mut self, span: Span) {
        if let Some(head) = self.take_head() {
            return self.finish(head.ended(None, span));
        }
        let after_block = self.siblings().last().is_some_and(|last| last.block.is_some());
        let help = after_block.then(|| "a block ends with its `}` alone".to_string());
        self.report(Diagnostic::error("unexpected \";\"").at(span, "").maybe_help(help));
    }

    /// Whether this `{` was meant as a part of the regular expression before it, which is not quoted. In nginx it begins
    /// a block.
    fn is_in_expression(&self, open: Span) -> bool {
        let Some(word) = self.words.last() else { return false };
        let touches = word.span.end == open.start && !word.quoted;
        // The name of a directive is no expression, but in a `map`, whose variable is none either.
        let may_be = match self.words.len() {
            1 => word.value.starts_with(b"~"),
            _ => !word.value.starts_with(b"$"),
        };
        touches && may_be && self.lexer.is_quantified(word.span.start as usize, open.start as usize)
    }

    /// Takes the word before this `{` to go on behind it.
    fn go_on(&mut self, open: Span) {
        let Some(word) = self.words.pop() else { return };
        let token = self.lexer.rest_of_word(word.span.start);
        let help = quoted(&self.bytes[token.span.start as usize..token.span.end as usize]);
        self.report(
            Diagnostic::error("unexpected \"{\"")
                .at(open, "begins a block, as always outside of quotes")
                .help(format!("quote a regular expression that has braces: `{help}`")),
        );
        self.doubtful = true;
        self.word(token, None);
    }

    fn open(&mut self, open: Span) {
        let head = self.take_head();
        if head.as_ref().is_some_and(|head| head.name.value.ends_with(b"_by_lua_block")) {
            self.lexer.skip_lua();
        }
        if head.is_none() {
            self.report(
                Diagnostic::error("unexpected \"{\"").at(open, "expected a name before this"),
            );
            self.tree.balanced = false;
        } else if self.origin == Origin::CommandLine {
            self.error("block directives are not supported in -g option".into(), open);
        }
        // Even without a name: its `}` would otherwise close the block around it, and every later
        // brace would be one off.
        self.stack.push(Frame { head, open, first: self.entries.len() });
    }

    fn close(&mut self, close: Span) {
        let unfinished = self.finish_unterminated(close);
        // Not before the words in hand have become a directive: they belong into the block that
        // ends here.
        if let Some(frame) = self.stack.pop() {
            self.note_indentation(frame.open, close);
            return self.close_frame(frame, close);
        }
        self.tree.balanced = false;
        if !unfinished {
            self.report(Diagnostic::error("unexpected \"}\"").at(close, "no block is open here"));
        }
    }

    /// If a `}` came before the `;` of a directive, says so and takes the `;` as written.
    fn finish_unterminated(&mut self, close: Span) -> bool {
        let Some(mut head) = self.take_head() else {
            return false;
        };
        // The lexer has reported these words already; a `;` that they swallowed is not a second
        // mistake.
        if !head.doubtful {
            self.report(
                Diagnostic::error("unexpected \"}\"")
                    .at(close, "")
                    .at(head.missing_end(), "expected `;` here")
                    .help(format!("end the directive `{}` with `;`", head.name)),
            );
        }
        let text = &self.bytes[head.span.start as usize..head.span.end as usize];
        // On one line the words are all its own; on several, the missing `;` may be an earlier one.
        head.doubtful |= text.contains(&b'\n');
        let end = head.missing_end();
        self.finish(head.ended(None, end));
        true
    }

    fn end(&mut self) {
        let problem = match self.take_head() {
            Some(head) => self.end_in_directive(head),
            None => self.end_in_block(),
        };
        self.tree.balanced &= self.stack.is_empty();
        self.tree.report.extend(problem);
    }

    fn end_in_directive(&mut self, mut head: Head) -> Option<Diagnostic> {
        let problem = Diagnostic::error(unexpected_end(self.origin, "\";\" or \"}\""))
            .at(self.end_of_text(), "")
            .at(head.missing_end(), "expected `;` here")
            .maybe_help(swallowed_brace(self.bytes, head.span));
        // At the end of the file the words may be those of several directives, the first of which
        // lacks its `;`; nobody should check them as one.
        let said = std::mem::replace(&mut head.doubtful, true);
        let end = head.missing_end();
        self.finish(head.ended(None, end));
        (!said).then_some(problem)
    }

    fn end_in_block(&self) -> Option<Diagnostic> {
        let (outermost, innermost) = (self.stack.first()?, self.stack.last()?);
        // All before the outermost open block is balanced, so odd indentation there is only style.
        let suspect = self.suspect.filter(|suspect| suspect.start > outermost.open.start);
        let guilty = suspect.unwrap_or(innermost.open);
        let problem = Diagnostic::error(unexpected_end(self.origin, "\"}\""));
        Some(problem.at(self.end_of_text(), "").at(guilty, "this block is not closed"))
    }

    fn end_of_text(&self) -> Span {
        Span::new(self.file, self.bytes.len(), self.bytes.len())
    }

    /// Ends every open block where the text ends and returns the whole.
    fn close_everything(mut self) -> Tree {
        let end = self.end_of_text();
        while let Some(frame) = self.stack.pop() {
            self.close_frame(frame, end);
        }
        self.tree.directives = self.entries;
        self.tree
    }

    /// The entries of the innermost open block.
    fn siblings(&self) -> &[Directive] {
        &self.entries[self.stack.last().map_or(0, |frame| frame.first)..]
    }

    fn close_frame(&mut self, frame: Frame, close: Span) {
        let directives = self.entries.drain(frame.first..).collect();
        // What stands in a block without a name could mean anything; that the name is missing was
        // reported.
        if let Some(head) = frame.head {
            let block = Block { directives, span: frame.open.to(close) };
            self.finish(head.ended(Some(block), close));
        }
    }

    fn finish(&mut self, directive: Directive) {
        self.entries.push(directive);
    }

    fn note_indentation(&mut self, open: Span, close: Span) {
        let (Some(close), Some(opener)) =
            (self.indentation(close, true), self.indentation(open, false))
        else {
            return;
        };
        // Only the first: from the missing brace on, every later one may look wrong.
        if close < opener && self.suspect.is_none() {
            self.suspect = Some(open);
        }
    }

    /// How far the line of `span` is indented; nothing if `span` is to be the first thing on it and is not.
    fn indentation(&self, span: Span, first: bool) -> Option<usize> {
        // A whole configuration may stand in one line, so nobody looks for its beginning from every brace.
        let line = self.source.line_range(self.source.line_at(span.start));
        let line = &self.bytes[line.start..span.start as usize];
        let indent = line.iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
        (!first || indent == line.len()).then_some(indent)
    }
}

/// An expression in quotes, without the `)` of the `if` that it may stand in.
fn quoted(expression: &[u8]) -> String {
    let count = |wanted: u8| expression.iter().filter(|&&byte| byte == wanted).count();
    let bare = expression.strip_suffix(b")").filter(|_| count(b')') > count(b'('));
    let (expression, end) = bare.map_or((expression, ""), |bare| (bare, ")"));
    let quote = if expression.contains(&b'"') { '\'' } else { '"' };
    format!("{quote}{}{quote}{end}", printable(expression))
}

/// `80}` is one word: a `}` is only special where a word begins.
fn swallowed_brace(bytes: &[u8], head: Span) -> Option<String> {
    let text = &bytes[head.start as usize..head.end as usize];
    let word = text.rsplit(u8::is_ascii_whitespace).next().filter(|word| word.ends_with(b"}"))?;
    Some(format!("the `}}` belongs to the word `{}`; put `;` before it", printable(word)))
}

#[cfg(test)]
mod tests;
