//! Any bytes are a configuration, if perhaps a wrong one: reading, drawing and formatting it must not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wssgate_syntax::{Directive, Lexer, Origin, SourceMap, Span, TokenKind, format, parse_text};

fuzz_target!(|text: &[u8]| {
    let parsed = parse_text("fuzz.conf", text);
    let Some((file, source)) = parsed.sources.files().next() else {
        unreachable!("the text is a file");
    };
    let whole = Span::new(file, 0, source.bytes().len());
    check_nesting(&parsed.directives, whole);
    for (span, _) in parsed.report.iter().flat_map(|problem| &problem.labels) {
        assert!(whole.contains(*span));
    }
    let drawn = parsed.report.render(&parsed.sources, false);
    assert_eq!(drawn.is_empty(), parsed.report.is_empty());
    assert_eq!(
        parsed.report.lines(&parsed.sources).len().min(1),
        parsed.report.iter().len().min(1)
    );

    match format("fuzz.conf", text) {
        Err(refused) => assert!(refused.report.has_errors() && parsed.report.has_errors()),
        Ok(once) => {
            assert!(!parsed.report.has_errors() && parsed.balanced);
            assert_eq!(tokens(&once), tokens(text));
            let twice = format("fuzz.conf", &once);
            assert_eq!(twice.ok(), Some(once));
        }
    }
});

/// Siblings stand in order inside their parent, words in order inside their directive.
fn check_nesting(directives: &[Directive], outer: Span) {
    let mut from = outer.start;
    for directive in directives {
        assert!(outer.contains(directive.span) && from <= directive.span.start);
        from = directive.span.end;
        let mut at = directive.span.start;
        for word in std::iter::once(&directive.name).chain(&directive.args) {
            assert!(directive.span.contains(word.span) && at <= word.span.start);
            at = word.span.end;
        }
        if let Some(block) = &directive.block {
            assert!(directive.span.contains(block.span) && at <= block.span.start);
            check_nesting(&block.directives, block.span);
        }
    }
}

fn tokens(text: &[u8]) -> Vec<Vec<u8>> {
    let mut sources = SourceMap::default();
    let file = sources.add("tokens", Origin::Text, text.to_vec());
    let written = Lexer::new(text, file, Origin::Text).map(|token| {
        let bytes = sources.text(token.span);
        if token.kind == TokenKind::Comment { bytes.trim_ascii_end() } else { bytes }.to_vec()
    });
    written.collect()
}
