//! Text in, tree or error lines out; and what holds for every text.

use proptest::prelude::*;

use super::*;
use crate::load::{Parsed, parse_text};

/// The tree in one line: words joined by spaces, each directive ended with `;` or its braces.
fn show(directives: &[Directive]) -> String {
    let one = |directive: &Directive| {
        let words = std::iter::once(&directive.name).chain(&directive.args);
        let words =
            words.map(|word| if word.value.is_empty() { "''".into() } else { word.to_string() });
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

/// The configuration that every tutorial shows, with what people add to it.
/// The expression is taken as if it were quoted, so that the rest of the file is not turned inside out.
#[test]
fn a_brace_of_an_expression_without_quotes_is_one_error() {
    for (text, tree, quoted) in [
        ("a ~ ^/[0-9]{3}/y$ { b; } c;", "a ~ ^/[0-9]{3}/y$ { b; } c;", "\"^/[0-9]{3}/y$\""),
        (
            "a ~ ^/\\d{4}-\\d{1,2}$ { b; }",
            "a ~ ^/\\d{4}-\\d{1,2}$ { b; }",
            "\"^/\\d{4}-\\d{1,2}$\"",
        ),
        ("if ($u ~ ^/x{2,}$) { b; }", "if ($u ~ ^/x{2,}$) { b; }", "\"^/x{2,}$\")"),
        ("rewrite ^/(\\p{Lu}+)$ /x;", "rewrite ^/(\\p{Lu}+)$ /x;", "\"^/(\\p{Lu}+)$\""),
        ("map $a $b { ~^x{2}\" y; }", "map $a $b { ~^x{2}\" y; }", "'~^x{2}\"'"),
    ] {
        let parsed = parse_text("t", text.as_bytes());
        let lines = parsed.report.lines(&parsed.sources);
        assert_eq!(lines, ["[emerg] unexpected \"{\" in t:1"], "{text}");
        assert_eq!(show(&parsed.directives), tree, "{text}");
        let help = parsed.report.iter().next().and_then(|problem| problem.help.clone());
        let expected = format!("quote a regular expression that has braces: `{quoted}`");
        assert_eq!(help, Some(expected), "{text}");
        assert!(parsed.balanced);
    }
    // These begin blocks.
    for text in ["a b{ c; }", "a b{3 }", "a{3};}", "map $a $b{1} c; }", "a \"b\"{1} c; }"] {
        let parsed = parse_text("t", text.as_bytes());
        let lines = parsed.report.lines(&parsed.sources);
        assert!(!lines.iter().any(|line| line.contains("unexpected \"{\"")), "{text}: {lines:?}");
    }
}

const EVERYDAY: &str = r#"
map $http_upgrade $connection_upgrade {
    default upgrade;
    '' close;
}
upstream chat {
    server localhost:8282; # address:port
}
server {
    listen 443 ssl; # managed by a tool
    server_name ~^(?<sub>.+)\.example\.net$ "~^a{2}\.b;$";
    location ~* \.(?:gif|png)$ { return 204; }
    location / {
        #proxy_set_header Host $host;
        proxy_set_header Connection $connection_upgrade;
        proxy_pass http://${backend}/x;
    }
    ssl_ciphers "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";
}
"#;

#[test]
fn an_everyday_configuration_is_read() {
    let parsed = parse_text("t", EVERYDAY.as_bytes());
    assert!(parsed.report.is_empty(), "{:?}", parsed.report);
    assert_eq!(
        show(&parsed.directives),
        "map $http_upgrade $connection_upgrade { default upgrade; '' close; } \
         upstream chat { server localhost:8282; } \
         server { listen 443 ssl; server_name ~^(?<sub>.+)\\.example\\.net$ ~^a{2}\\.b;$; \
         location ~* \\.(?:gif|png)$ { return 204; } \
         location / { proxy_set_header Connection $connection_upgrade; proxy_pass http://${backend}/x; } \
         ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256; }"
    );
}

/// The text of each `«…»` is what the one label after the primary one must point at.
#[test]
fn a_second_label_points_at_the_cause() {
    let cases = [
        ("http {\n    server «{»\n        a;\n}\n", "this block is not closed"),
        ("http «{»\n    server {\n        a;\n    }\n", "this block is not closed"),
        ("a {\nb {\nc;\n}\n}\nd «{»\n    e;\n", "this block is not closed"),
        ("a {\n    listen 80«»\n}\n", "expected `;` here"),
        ("a «\"»b\n", "this quote is never closed"),
        ("a «\"b;\nc \"»d\";", "it began here; is its closing quote missing?"),
    ];
    for (text, label) in cases {
        let (start, end) = (text.find('«').expect("marked"), text.find('»').expect("marked"));
        let parsed = parse_text("t", text.replace(['«', '»'], "").as_bytes());
        let problems: Vec<_> = parsed.report.iter().collect();
        assert_eq!(problems.len(), 1, "{text}");
        let (span, said) = &problems[0].labels[1];
        assert_eq!(
            (span.start as usize, span.end as usize),
            (start, end - '«'.len_utf8()),
            "{text}"
        );
        assert_eq!(said, label);
    }
}

#[test]
fn braces_without_a_partner_leave_the_tree_unbalanced() {
    let cases = [
        ("a { b }", true),
        ("a;;", true),
        ("a }", false),
        ("a {", false),
        ("{ a; }", false),
        ("}", false),
    ];
    for (text, balanced) in cases {
        assert_eq!(parse_text("t", text.as_bytes()).balanced, balanced, "{text}");
    }
}

#[test]
fn a_directive_with_guessed_words_is_marked() {
    let cases = [
        ("a b;", false),
        ("a \"b\"c;", true),
        ("a 'b;\n", true),
        ("a b", true),
        ("x { a b }", false),
        ("x { a b\nc d }", true),
        ("x { a b;", false),
        ("a 'b'c {}", true),
    ];
    for (text, repaired) in cases {
        let parsed = parse_text("t", text.as_bytes());
        let first = &parsed.directives[0];
        let marked = match &first.block {
            Some(block) if first.is("x") => block.directives[0].repaired,
            _ => first.repaired,
        };
        assert_eq!(marked, repaired, "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    let deep = |depth: usize| format!("{}{}", "a {".repeat(depth), "}".repeat(depth));
    assert!(parse_text("t", deep(MAX_BLOCK_DEPTH).as_bytes()).report.is_empty());
    let parsed = parse_text("t", deep(MAX_BLOCK_DEPTH + 1).as_bytes());
    assert_eq!(
        parsed.report.lines(&parsed.sources),
        ["[emerg] blocks nest more than 64 deep in t:1"]
    );
}

#[test]
fn a_swallowed_directive_is_found_where_it_begins_a_line() {
    let parsed =
        parse_text("t", b"listen 80\n  server_name x;\nlog a\n \"server_name\" b server_name;");
    let swallowed = |at: usize| {
        let known = |name: &[u8]| name == b"server_name";
        parsed.directives[at].swallowed(&parsed.sources, known).map(|word| word.span.start)
    };
    assert_eq!(swallowed(0), Some(12));
    assert_eq!(swallowed(1), None, "neither quoted words nor words within a line count");
}

/// Checks that the spans of `directives` lie in order inside `outer`, and the parts of each inside the whole.
fn check_spans(directives: &[Directive], outer: Span) {
    let mut from = outer.start;
    for directive in directives {
        assert!(outer.contains(directive.span) && from <= directive.span.start);
        assert!(directive.span.contains(directive.head()));
        from = directive.span.end;
        let mut at = directive.span.start;
        for word in std::iter::once(&directive.name).chain(&directive.args) {
            assert!(at <= word.span.start && word.span.start < word.span.end);
            at = word.span.end;
        }
        if let Some(block) = &directive.block {
            assert!(directive.span.contains(block.span) && at <= block.span.start);
            check_spans(&block.directives, block.span);
        }
    }
}

fn check(parsed: &Parsed) {
    for (file, source) in parsed.sources.files() {
        check_spans(&parsed.directives, Span::new(file, 0, source.bytes().len()));
        for (span, _) in parsed.report.iter().flat_map(|problem| &problem.labels) {
            assert!(span.start <= span.end && span.end as usize <= source.bytes().len());
        }
    }
    assert_eq!(parsed.report.render(&parsed.sources, false).is_empty(), parsed.report.is_empty());
}

proptest! {
    #[test]
    fn spans_are_nested_whatever_the_text(text in r#"[ab "'\\{};#$()\n\t]{0,60}"#) {
        check(&parse_text("t", text.as_bytes()));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&parse_text("t", &bytes));
    }

    /// What was written with quotes and escapes is read back as it was meant.
    #[test]
    fn a_quoted_word_keeps_its_bytes(value in proptest::collection::vec(any::<u8>(), 0..50)) {
        let mut text = b"a \"".to_vec();
        for &byte in &value {
            text.extend_from_slice(if matches!(byte, b'"' | b'\\') { b"\\" } else { b"" });
            text.push(byte);
        }
        text.extend_from_slice(b"\";");
        let parsed = parse_text("t", &text);
        prop_assert!(parsed.report.is_empty());
        prop_assert_eq!(parsed.directives[0].args[0].as_bytes(), value.as_slice());
    }
}
