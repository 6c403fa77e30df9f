//! `wssgate fmt`: the same configuration, laid out evenly.
//!
//! The formatter prints the token stream it read, every token with the bytes it was written in, and only chooses the
//! white space between them: four spaces for each open block, one directive per line, one space between words, single
//! blank lines where there were any. A directive that its author broke over several lines stays broken there, its later
//! lines indented once more, because that is how long log formats and lists are written. Comments keep their place:
//! behind something, or on a line of their own.

use crate::lexer::{Lexer, Token, TokenKind};
use crate::load::{Parsed, parse_text};
use crate::source::Origin;

const INDENT: &[u8] = b"    ";

/// Lays out `text`, or returns what is wrong with it; `name` is what messages call it. Includes are not followed.
pub fn format(name: &str, text: &[u8]) -> Result<Vec<u8>, Box<Parsed>> {
    let parsed = parse_text(name, text);
    if parsed.report.has_errors() {
        return Err(Box::new(parsed));
    }
    let Some((file, source)) = parsed.sources.files().next() else {
        return Ok(Vec::new());
    };
    let mut layout = Layout::default();
    for token in Lexer::new(source.bytes(), file, Origin::Text) {
        layout.put(source.bytes(), token);
    }
    Ok(layout.finish())
}

/// What is printed so far and where it stands.
#[derive(Default)]
struct Layout {
    out: Vec<u8>,
    before: Option<Token>,
    depth: usize,
    /// Some words of the current directive are printed, its end is not.
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

impl Layout {
    fn put(&mut self, text: &[u8], token: Token) {
        let written = &text[token.span.start as usize..token.span.end as usize];
        let between = self
            .before
            .map_or(&[][..], |before| &text[before.span.end as usize..token.span.start as usize]);
        if token.kind == TokenKind::Close {
            self.depth = self.depth.saturating_sub(1);
        }
        let gap = self.gap(token.kind, between);
        self.write_gap(&gap);
        self.out.extend_from_slice(match token.kind {
            TokenKind::Comment => written.trim_ascii_end(),
            _ => written,
        });
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

    fn write_gap(&mut self, gap: &Gap) {
        match gap {
            Gap::None => {}
            Gap::Space => self.out.push(b' '),
            Gap::Line { blank } => {
                self.out.extend_from_slice(if *blank { b"\n\n" } else { b"\n" });
                let indent = self.depth + usize::from(self.in_directive);
                self.out.extend(INDENT.repeat(indent));
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if !self.out.is_empty() {
            self.out.push(b'\n');
        }
        self.out
    }
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
                "map $a $b {\n    default 0;\n    ~^x 1;\n    '' 2;\n}\n",
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
