//! `wssgate fmt`: the same configuration, laid out evenly.
//!
//! The formatter prints the token stream it read, every token with the bytes it was written in, and only chooses the
//! white space between them: four spaces for each open block, one directive per line, one space between words, single
//! blank lines where there were any. A directive that its author broke over several lines stays broken there, its later
//! lines indented once more, because that is how long log formats and lists are written. Comments keep their place:
//! behind something, or on a line of their own.
//!
//! What an author has lined up stays so: words that begin in the same column of neighbouring lines keep that column, and
//! a later line of a directive that begins below a word stays below it.

use crate::lexer::{Lexer, Token, TokenKind};
use crate::load::{Parsed, parse_text};
use crate::source::Origin;

const INDENT: usize = 4;

/// How far apart the tab stops are by which columns are counted.
const TAB: usize = 8;

/// Lays out `text`, or returns what is wrong with it; `name` is what messages call it. Includes are not followed.
pub fn format(name: &str, text: &[u8]) -> Result<Vec<u8>, Box<Parsed>> {
    let parsed = parse_text(name, text);
    if parsed.report.has_errors() {
        return Err(Box::new(parsed));
    }
    let Some((file, source)) = parsed.sources.files().next() else {
        return Ok(Vec::new());
    };
    let mut layout = Layout::new(source.bytes());
    for token in Lexer::new(source.bytes(), file, Origin::Text) {
        layout.put(token);
    }
    Ok(layout.finish())
}

/// What is read so far and where it stands.
struct Layout<'a> {
    text: &'a [u8],
    rows: Vec<Row<'a>>,
    before: Option<Token>,
    /// The column behind what was read.
    column: usize,
    depth: usize,
    /// Some words of the current directive were read, its end was not.
    in_directive: bool,
}

/// The white space in front of a token.
enum Gap {
    None,
    Space,
    /// A new line, perhaps after a blank one.
    Line {
        blank: bool,
    },
}

/// A line to print.
struct Row<'a> {
    /// A blank line comes before it.
    blank: bool,
    depth: usize,
    /// It goes on with the directive of the row before it.
    goes_on: bool,
    /// The column in which the author began its directive.
    origin: usize,
    pieces: Vec<Piece<'a>>,
}

/// A token in its row.
struct Piece<'a> {
    text: &'a [u8],
    is_comment: bool,
    /// It touches the one before it.
    is_glued: bool,
    /// Where the author had it begin, if that tells anything: behind a `{` or a word with line ends it does not.
    column: Option<usize>,
    /// The author left more than one space before it.
    is_apart: bool,
    /// How far behind the indent of its block it is printed.
    offset: usize,
}

impl<'a> Layout<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, rows: Vec::new(), before: None, column: 0, depth: 0, in_directive: false }
    }

    fn put(&mut self, token: Token) {
        let (start, end) = (token.span.start as usize, token.span.end as usize);
        let between = &self.text[self.before.map_or(0, |before| before.span.end as usize)..start];
        let gap = self.gap(token.kind, between);
        let column_before = self.column;
        self.pass_space(between);
        if token.kind == TokenKind::Close {
            self.depth = self.depth.saturating_sub(1);
        }
        let goes_over = between.contains(&b'\n');
        self.push(token.kind, &self.text[start..end], &gap, (column_before, goes_over));
        self.pass_word(&self.text[start..end]);
        match token.kind {
            TokenKind::Word { .. } => self.in_directive = true,
            TokenKind::Semicolon | TokenKind::Close => self.in_directive = false,
            TokenKind::Open => {
                self.in_directive = false;
                self.depth += 1;
            }
            TokenKind::Comment => {}
        }
        self.before = Some(token);
    }

    fn pass_space(&mut self, space: &[u8]) {
        for byte in space {
            self.column = match byte {
                b'\n' => 0,
                b'\t' => (self.column / TAB + 1) * TAB,
                _ => self.column + 1,
            };
        }
    }

    fn pass_word(&mut self, word: &[u8]) {
        let last_line = word.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        self.column =
            width(last_line) + if last_line.len() == word.len() { self.column } else { 0 };
    }

    /// Adds a token to the row that it belongs to. `before` is the column behind the last one, and whether a line end
    /// lies between them.
    fn push(&mut self, kind: TokenKind, text: &'a [u8], gap: &Gap, before: (usize, bool)) {
        let (column_before, goes_over) = before;
        let is_comment = kind == TokenKind::Comment;
        let mut piece = Piece {
            text: if is_comment { text.trim_ascii_end() } else { text },
            is_comment,
            is_glued: matches!(gap, Gap::None),
            column: Some(self.column),
            is_apart: false,
            offset: 0,
        };
        match (gap, self.rows.last_mut()) {
            (Gap::None | Gap::Space, Some(row)) => {
                let told = !goes_over && row.pieces.iter().all(Piece::tells_columns);
                let from = column_before + usize::from(!piece.is_glued);
                piece.column = piece.column.filter(|&column| told && column >= from);
                piece.is_apart = self.column > column_before + 1;
                row.pieces.push(piece);
            }
            (gap, last) => {
                let origin = match last {
                    Some(last) if self.in_directive => last.origin,
                    _ => self.column,
                };
                self.rows.push(Row {
                    blank: matches!(gap, Gap::Line { blank: true }),
                    depth: self.depth,
                    goes_on: self.in_directive,
                    origin,
                    pieces: vec![piece],
                });
            }
        }
    }

    /// Chooses the white space in front of a `kind`, `between` being what the author had there.
    fn gap(&self, kind: TokenKind, between: &[u8]) -> Gap {
        let newlines = between.iter().filter(|&&byte| byte == b'\n').count();
        let Some(before) = self.before.map(|token| token.kind) else {
            return Gap::None;
        };
        match (before, kind) {
            // A comment ends only with its line. Only between directives may a blank line follow.
            (TokenKind::Comment, TokenKind::Close) => Gap::Line { blank: false },
            (TokenKind::Comment, _) => Gap::Line { blank: newlines > 1 && !self.in_directive },
            (_, TokenKind::Comment) if newlines == 0 => Gap::Space,
            (_, TokenKind::Comment) => {
                Gap::Line { blank: newlines > 1 && !self.in_directive && before != TokenKind::Open }
            }
            (TokenKind::Open, TokenKind::Close) => Gap::None,
            (TokenKind::Open, _) | (_, TokenKind::Close) => Gap::Line { blank: false },
            (TokenKind::Semicolon | TokenKind::Close, _) => Gap::Line { blank: newlines > 1 },
            (TokenKind::Word { .. }, TokenKind::Semicolon) => Gap::None,
            (TokenKind::Word { .. }, TokenKind::Open) => Gap::Space,
            // Two words touch only where a `)` follows a closing quote.
            (TokenKind::Word { .. }, TokenKind::Word { .. }) if between.is_empty() => Gap::None,
            (TokenKind::Word { .. }, TokenKind::Word { .. }) if newlines > 0 => {
                Gap::Line { blank: false }
            }
            (TokenKind::Word { .. }, TokenKind::Word { .. }) => Gap::Space,
        }
    }

    fn finish(mut self) -> Vec<u8> {
        for at in 0..self.rows.len() {
            self.place(at);
        }
        let mut out = Vec::new();
        for row in &self.rows {
            row.write(&mut out);
        }
        out
    }

    /// Says where the pieces of a row are printed. Those of the rows above are placed already.
    fn place(&mut self, at: usize) {
        let row = &self.rows[at];
        let begin = if row.goes_on { self.below(at).unwrap_or(INDENT) } else { 0 };
        let first = row.column(0);
        let mut end = begin;
        let mut offsets = Vec::with_capacity(row.pieces.len());
        for (number, piece) in row.pieces.iter().enumerate() {
            let offset = match number {
                0 => begin,
                _ if piece.is_glued => end,
                _ if self.is_lined_up(at, number) => {
                    // Nothing before it was moved to the right.
                    let from_first =
                        row.column(number).zip(first).map(|(here, first)| here - first);
                    (end + 1).max(begin.saturating_add_signed(from_first.unwrap_or(0)))
                }
                _ => end + 1,
            };
            end = offset + width(piece.text);
            offsets.push(offset);
        }
        for (piece, offset) in self.rows[at].pieces.iter_mut().zip(offsets) {
            piece.offset = offset;
        }
    }

    /// Where a row begins that goes on with a directive: below a word of the rows above, if the author had it there.
    fn below(&self, at: usize) -> Option<usize> {
        let column = self.rows[at].column(0)?;
        let directive = self.rows[..at].iter().rposition(|row| !row.goes_on)?;
        let neighbour = self.neighbour(directive, self.rows[..directive].iter().rev());
        let above = self.rows[directive..at].iter().rev().chain(neighbour);
        above.into_iter().find_map(|row| {
            let number = row.piece_at(column)?;
            let is_word = number > 0 && !row.pieces[number].is_glued || row.goes_on;
            (is_word && !row.pieces[number].is_comment).then(|| row.pieces[number].offset)
        })
    }

    /// Whether a piece begins where one of a neighbouring row begins, which took the author more than one space.
    fn is_lined_up(&self, at: usize, number: usize) -> bool {
        let (row, piece) = (&self.rows[at], &self.rows[at].pieces[number]);
        let Some(column) = row.column(number) else { return false };
        let above = self.neighbour(at, self.rows[..at].iter().rev());
        let below = self.neighbour(at, self.rows[at + 1..].iter());
        let alike =
            |other: &&Row<'_>| other.goes_on == row.goes_on && other.column(0) == row.column(0);
        above.into_iter().chain(below).filter(alike).any(|other| {
            let other = other.piece_at(column).map(|number| &other.pieces[number]);
            other.is_some_and(|other| !other.is_glued && (piece.is_apart || other.is_apart))
        })
    }

    /// The next of `rows` that is not a mere comment, if it belongs to the same block as the one at `at`.
    fn neighbour<'r>(
        &self,
        at: usize,
        mut rows: impl Iterator<Item = &'r Row<'a>>,
    ) -> Option<&'r Row<'a>>
    where
        'a: 'r,
    {
        rows.find(|row| !row.pieces[0].is_comment).filter(|row| row.depth == self.rows[at].depth)
    }
}

impl Row<'_> {
    /// Where the author had a piece begin, seen from the beginning of its directive.
    fn column(&self, number: usize) -> Option<isize> {
        let column = self.pieces[number].column?;
        Some(column.cast_signed() - self.origin.cast_signed())
    }

    /// The piece that the author had begin there.
    fn piece_at(&self, column: isize) -> Option<usize> {
        let before = |piece: &Piece<'_>| {
            let here = piece.column.map(|here| here.cast_signed() - self.origin.cast_signed());
            here.is_some_and(|here| here < column)
        };
        let number = self.pieces.partition_point(before);
        (number < self.pieces.len() && self.column(number) == Some(column)).then_some(number)
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.blank {
            out.push(b'\n');
        }
        let mut end = 0;
        out.resize(out.len() + self.depth * INDENT, b' ');
        for piece in &self.pieces {
            out.resize(out.len() + piece.offset - end, b' ');
            out.extend_from_slice(piece.text);
            end = piece.offset + width(piece.text);
        }
        out.push(b'\n');
    }
}

impl Piece<'_> {
    /// Whether what follows in the row has the columns that it seems to have.
    fn tells_columns(&self) -> bool {
        self.column.is_some() && self.text != b"{" && !self.text.contains(&b'\n')
    }
}

/// The number of characters, as far as it is text.
fn width(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::SourceMap;

    fn formatted(text: &str) -> String {
        let out = format("t", text.as_bytes()).expect("a text without mistakes");
        String::from_utf8(out).expect("text as it came")
    }

    /// What a text means: its tokens as written, comments without trailing white space.
    fn tokens(text: &[u8]) -> Vec<Vec<u8>> {
        let mut sources = SourceMap::default();
        let file = sources.add("t", Origin::Text, text.to_vec());
        let written = Lexer::new(text, file, Origin::Text).map(|token| {
            let bytes = sources.text(token.span);
            if token.kind == TokenKind::Comment { bytes.trim_ascii_end() } else { bytes }.to_vec()
        });
        written.collect()
    }

    #[test]
    fn a_text_is_laid_out_evenly() {
        let cases = [
            ("", ""),
            ("\n\n  \n", ""),
            ("a;", "a;\n"),
            ("  a   b\tc ;  d;", "a b c;\nd;\n"),
            ("a{b{c;}}", "a {\n    b {\n        c;\n    }\n}\n"),
            ("events\n{\n}\nx;", "events {}\nx;\n"),
            ("\n\na;\n\n\n\nb;\n\n", "a;\n\nb;\n"),
            ("a {\n\n b;\n\n\n c;\n\n}", "a {\n    b;\n\n    c;\n}\n"),
            ("a;\r\nb;\r\n", "a;\nb;\n"),
            ("# one  \na; # two\n  # three\n{", ""),
            ("# one  \na;   # two\n  # three\n\n# four", "# one\na; # two\n# three\n\n# four\n"),
            (
                "a {# x\n\n# y\nb;# z\n# end\n}# w",
                "a { # x\n\n    # y\n    b; # z\n    # end\n} # w\n",
            ),
            ("a { # only\n}", "a { # only\n}\n"),
            (
                "log_format main '$a '\n        '$b'\n\n  '$c';b;",
                "log_format main '$a '\n    '$b'\n    '$c';\nb;\n",
            ),
            ("a # why\n b # so\n # own\n ;", "a # why\n    b # so\n    # own\n    ;\n"),
            ("s # why\n {\nb;}", "s # why\n    {\n    b;\n}\n"),
            ("if ($a = \"b\") {c;}", "if ($a = \"b\") {\n    c;\n}\n"),
            ("a 'x\n   y'  \"\" ;", "a 'x\n   y' \"\";\n"),
            (
                "map $a $b{default 0;~^x 1;''  2;}",
                "map $a $b {\n    default 0;\n    ~^x 1;\n    ''  2;\n}\n",
            ),
            // Columns of neighbouring lines stay, spaces that line nothing up do not.
            (
                "map  $a $b {\n  default upgrade;\n  ''      close;\n}",
                "map $a $b {\n    default upgrade;\n    ''      close;\n}\n",
            ),
            ("a\t1;\nbbb\t2;\nc   3;\n", "a       1;\nbbb     2;\nc 3;\n"),
            ("a  1;\n\n# x\nbb 2;\n{", ""),
            ("a  1;\n\n# x\nbb 2;\n", "a  1;\n\n# x\nbb 2;\n"),
            ("a  1;\nb {\nbb 2;\n}", "a 1;\nb {\n    bb 2;\n}\n"),
            ("s  a   w=1;\ns  bb  w=2;\n", "s  a   w=1;\ns  bb  w=2;\n"),
            ("é  1;\nbb 2;\n", "é  1;\nbb 2;\n"),
            ("a;    # x\nbbb;  # y\n", "a;    # x\nbbb;  # y\n"),
            // What goes on below a word stays below it, wherever that is now.
            (
                "  log_format  main  '$a '\n                    '$b'\n                    '$c';",
                "log_format main '$a '\n                '$b'\n                '$c';\n",
            ),
            (
                "head A  a\n        b\n  c;\nhead B  'x\n'  y\n        z;",
                "head A a\n       b\n    c;\nhead B 'x\n' y\n       z;\n",
            ),
            (
                "types {\n  text/html  html\n             htm;\n  application/x\n             x;\n}",
                "types {\n    text/html html\n              htm;\n    application/x\n              x;\n}\n",
            ),
            ("r ^/a{2}$ ${b}c;", ""),
            ("r \"^/a{2}$\" ${b}c;", "r \"^/a{2}$\" ${b}c;\n"),
        ];
        for (text, expected) in cases {
            // An empty expectation of a text with content stands for a refusal.
            match format("t", text.as_bytes()) {
                Ok(out) => assert_eq!(String::from_utf8_lossy(&out), expected, "{text}"),
                Err(parsed) => assert!(parsed.report.has_errors() && expected.is_empty(), "{text}"),
            }
        }
    }

    #[test]
    fn a_text_with_mistakes_is_refused_with_all_of_them() {
        let parsed = format("n.conf", b"a };\nb \"c\"d;").expect_err("mistakes");
        assert_eq!(
            parsed.report.lines(&parsed.sources),
            [
                "[emerg] unexpected \"}\" in n.conf:1",
                "[emerg] unexpected \";\" in n.conf:1",
                "[emerg] unexpected \"d\" in n.conf:2",
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_text_pass_through() {
        assert_eq!(format("t", b"a \xff\xfe;#\xff").expect("no mistakes"), b"a \xff\xfe; #\xff\n");
    }

    #[test]
    fn an_include_is_kept_as_a_line() {
        assert_eq!(formatted("a{include  none.conf;}"), "a {\n    include none.conf;\n}\n");
    }

    /// White space with line ends and comments, as it may stand between any two tokens.
    fn space() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof![
                Just(" "),
                Just("\t"),
                Just("\n"),
                Just("\r\n"),
                Just(" # c;{ \n"),
                Just("\n\n\n")
            ],
            1..4,
        )
        .prop_map(|parts| parts.concat())
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z$.]{1,4}",
            "[a-z]\\\\[ ;{}\"'#a-z]",
            "\"[a-z ;{}#'\n]{0,5}\"",
            "'[a-z ;{}#\"\n]{0,5}'",
            "\\$\\{[a-z]\\}",
            "[a-z]\\}",
        ]
    }

    fn head() -> impl Strategy<Value = String> {
        let words = proptest::collection::vec((word(), space()), 1..4);
        words.prop_map(|words| words.into_iter().map(|(word, space)| word + &space).collect())
    }

    fn directive() -> impl Strategy<Value = String> {
        let leaf = (head(), space()).prop_map(|(head, space)| format!("{head};{space}"));
        leaf.prop_recursive(3, 20, 4, |inner| {
            let inner = proptest::collection::vec(inner, 0..4);
            (head(), space(), inner, space()).prop_map(|(head, open, inner, close)| {
                format!("{head}{{{open}{}}}{close}", inner.concat())
            })
        })
    }

    fn check(text: &[u8]) {
        let once = format("t", text).expect("a text without mistakes");
        assert_eq!(tokens(&once), tokens(text), "the meaning changed");
        let twice = format("t", &once).expect("still without mistakes");
        assert_eq!(String::from_utf8_lossy(&twice), String::from_utf8_lossy(&once), "not settled");
    }

    proptest! {
        #[test]
        fn the_meaning_stays_and_a_second_run_changes_nothing(
            directives in proptest::collection::vec(directive(), 0..4),
            before in space(),
        ) {
            check((before + &directives.concat()).as_bytes());
        }

        #[test]
        fn so_it_is_for_any_text_without_mistakes(text in r#"([ab"'\\{};#$() \n]|a b;|a \{|\}){0,20}"#) {
            if !parse_text("t", text.as_bytes()).report.has_errors() {
                check(text.as_bytes());
            }
        }
    }
}
