//! Draws a diagnostic the way rustc does: message, place, the lines concerned, carets, notes, help.
//!
//! annotate-snippets draws; this module feeds it. A file may be huge, its lines endless and its bytes no text, so only
//! the lines that carry a label and their near neighbours are handed over, cut to [`MAX_SHOWN`] bytes around the first
//! label and made printable. A label that goes on past its first line is drawn on that line only.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Element, Level, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Severity, is_unsafe, printable};
use crate::source::{FileId, Origin, SourceFile, SourceMap, Span};

/// The most bytes of one line that are shown.
const MAX_SHOWN: usize = 120;
/// How much of a long line is shown before its first label.
const LEAD: usize = 40;
/// Stands for what is cut off a line.
const ELLIPSIS: char = '…';
/// How near a line must be to a label to be shown without one.
const NEAR: u32 = 4;

/// One label with its text.
struct Mark<'d> {
    span: Span,
    text: &'d str,
    primary: bool,
}

pub(crate) fn render(diagnostic: &Diagnostic, sources: &SourceMap, color: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let excerpts = by_file(diagnostic).into_iter();
    let excerpts: Vec<_> =
        excerpts.map(|(file, marks)| Excerpt::new(sources.file(file), &marks)).collect();
    let title = level.primary_title(printable(diagnostic.message.as_bytes()));
    let mut group = title.elements(excerpts.iter().map(Excerpt::element));
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(printable(note.as_bytes())));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(printable(help.as_bytes())));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let drawn = renderer.render(&[group]);
    excerpts.iter().fold(drawn, |drawn, excerpt| excerpt.correct_column(drawn))
}

/// The labels by file, in the order of each file's first label.
fn by_file(diagnostic: &Diagnostic) -> Vec<(FileId, Vec<Mark<'_>>)> {
    let mut files: Vec<(FileId, Vec<Mark<'_>>)> = Vec::new();
    for (at, (span, text)) in diagnostic.labels.iter().enumerate() {
        let mark = Mark { span: *span, text, primary: at == 0 };
        match files.iter_mut().find(|(file, _)| *file == span.file) {
            Some((_, marks)) => marks.push(mark),
            None => files.push((span.file, vec![mark])),
        }
    }
    files
}

/// The printable lines between the first and the last label of a file, and where each label went.
struct Excerpt {
    path: String,
    text: String,
    top: u32,
    annotations: Vec<(AnnotationKind, Range<usize>, String)>,
    /// By how many columns the shown line of the first label is shorter at its left.
    cut: usize,
    line: u32,
    column: usize,
}

impl Excerpt {
    fn new(file: &SourceFile, marks: &[Mark<'_>]) -> Self {
        let lines = || marks.iter().map(|mark| file.line_at(mark.span.start));
        let (top, bottom) = (lines().min().unwrap_or(1), lines().max().unwrap_or(1));
        let path = match file.origin() {
            Origin::CommandLine => "command line".into(),
            Origin::File | Origin::Text => printable(file.path().as_os_str().as_encoded_bytes()),
        };
        // `by_file` makes a list with its first mark.
        let line = file.line_at(marks[0].span.start);
        let (text, annotations) = (String::new(), Vec::new());
        let mut excerpt = Self { path, text, top, annotations, cut: 0, line, column: 0 };
        for line in top..=bottom {
            excerpt.add_line(file, line, marks);
        }
        excerpt
    }

    /// Appends one line; a line far from any label stays empty, since it will be folded away.
    fn add_line(&mut self, file: &SourceFile, line: u32, marks: &[Mark<'_>]) {
        let line_of = |mark: &Mark<'_>| file.line_at(mark.span.start);
        let here = || marks.iter().filter(|mark| line_of(mark) == line);
        let whole = file.line_range(line);
        let lead = here().map(|mark| mark.span.start as usize).min().unwrap_or(whole.start);
        let near = marks.iter().any(|mark| line_of(mark).abs_diff(line) <= NEAR);
        let shown = if near { cut(&whole, lead) } else { whole.end..whole.end };
        let line_start = self.text.len();
        if near && shown.start > whole.start {
            self.text.push(ELLIPSIS);
        }
        let offsets = self.push_printable(&file.bytes()[shown.clone()]);
        // A label may go on past its line, or lie in what was cut off.
        let place = |at: u32| offsets[(at as usize).clamp(shown.start, shown.end) - shown.start];
        for mark in here() {
            let kind = if mark.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            let range = place(mark.span.start)..place(mark.span.end);
            if mark.primary {
                let real = file.column_at(mark.span.start) as usize;
                self.column = self.text[line_start..range.start].chars().count() + 1;
                self.cut = real - self.column.min(real);
            }
            self.annotations.push((kind, range, printable(mark.text.as_bytes())));
        }
        if near && shown.end < whole.end {
            self.text.push(ELLIPSIS);
        }
        self.text.push('\n');
    }

    /// Appends `bytes` made printable and returns, for every offset in them up to their length, where it went.
    fn push_printable(&mut self, bytes: &[u8]) -> Vec<usize> {
        let mut offsets = Vec::with_capacity(bytes.len() + 1);
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                offsets.extend(std::iter::repeat_n(self.text.len(), character.len_utf8()));
                let hidden = is_unsafe(character) && character != '\t';
                self.text.push(if hidden { char::REPLACEMENT_CHARACTER } else { character });
            }
            if !chunk.invalid().is_empty() {
                offsets.extend(std::iter::repeat_n(self.text.len(), chunk.invalid().len()));
                self.text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        offsets.push(self.text.len());
        offsets
    }

    fn element(&self) -> Element<'_> {
        let annotations = self.annotations.iter().map(|(kind, range, label)| -> Annotation<'_> {
            kind.span(range.clone()).label((!label.is_empty()).then_some(label.as_str()))
        });
        let snippet = Snippet::source(self.text.as_str()).path(self.path.as_str());
        snippet.line_start(self.top as usize).annotations(annotations).into()
    }

    /// The drawn place counts columns in what is shown; where a line was cut at its left that is not the real column.
    fn correct_column(&self, drawn: String) -> String {
        if self.cut == 0 {
            return drawn;
        }
        let place = |column: usize| format!("{}:{}:{column}", self.path, self.line);
        // Only the first, which is the heading: the same text could stand in the lines below.
        drawn.replacen(&place(self.column), &place(self.column + self.cut), 1)
    }
}

/// The part of a line that is shown: all of a short one, else what stands around its first label.
fn cut(line: &Range<usize>, lead: usize) -> Range<usize> {
    if line.len() <= MAX_SHOWN {
        return line.clone();
    }
    let start = lead.saturating_sub(LEAD).clamp(line.start, line.end);
    start..line.end.min(start + MAX_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One file `chat.conf` with `text`; each label is put on the first occurrence of its word.
    fn drawn(text: &[u8], labels: &[(&str, &str)]) -> String {
        let mut sources = SourceMap::default();
        let file = sources.add("chat.conf", Origin::File, text.to_vec());
        let find = |word: &str| {
            let mut places = text.windows(word.len());
            places.position(|window| window == word.as_bytes()).expect("the word is in the text")
        };
        let labelled = labels.iter().fold(Diagnostic::error("bad"), |diagnostic, (word, label)| {
            diagnostic.at(Span::new(file, find(word), find(word) + word.len()), *label)
        });
        labelled.render(&sources, false)
    }

    fn expect(drawn: &str, expected: &[&str]) {
        assert_eq!(drawn.lines().collect::<Vec<_>>(), expected, "\n{drawn}");
    }

    #[test]
    fn a_problem_shows_its_line_reason_note_and_help() {
        let mut sources = SourceMap::default();
        let file = sources.add("/etc/chat.conf", Origin::File, b"a;\n  proxy_pas x;\n".to_vec());
        let diagnostic = Diagnostic::error("unknown directive \"proxy_pas\"")
            .at(Span::new(file, 5, 14), "not known in `location`")
            .note("it stands here")
            .help("did you mean `proxy_pass`?");
        expect(
            &diagnostic.render(&sources, false),
            &[
                "error: unknown directive \"proxy_pas\"",
                " --> /etc/chat.conf:2:3",
                "  |",
                "2 |   proxy_pas x;",
                "  |   ^^^^^^^^^ not known in `location`",
                "  |",
                "  = note: it stands here",
                "  = help: did you mean `proxy_pass`?",
            ],
        );
    }

    #[test]
    fn colour_comes_only_when_asked() {
        let mut sources = SourceMap::default();
        let file = sources.add("chat.conf", Origin::File, b"a;".to_vec());
        let diagnostic = Diagnostic::warning("odd").at(Span::new(file, 0, 1), "here");
        assert!(!diagnostic.render(&sources, false).contains('\x1b'));
        assert!(diagnostic.render(&sources, true).contains("\x1b["));
    }

    #[test]
    fn tabs_and_bytes_that_are_no_text_keep_carets_in_place() {
        expect(
            &drawn(b"\ta\xff\x1b b;", &[("b", "here")]),
            &[
                "error: bad",
                " --> chat.conf:1:6",
                "  |",
                "1 |     a\u{fffd}\u{fffd} b;",
                "  |         ^ here",
            ],
        );
    }

    #[test]
    fn a_long_line_is_cut_around_its_label_and_keeps_its_real_column() {
        let text = format!("{} mark {}", "a".repeat(5000), "b".repeat(5000));
        let drawn = drawn(text.as_bytes(), &[("mark", "here")]);
        let lines: Vec<_> = drawn.lines().collect();
        assert_eq!(lines[1], " --> chat.conf:1:5002");
        assert!(lines[3].starts_with("1 | …aaa") && lines[3].ends_with("bbb…"), "{drawn}");
        assert!(lines.iter().all(|line| line.chars().count() < 140), "{drawn}");
        let at = lines[3].find("mark").map(|at| lines[3][..at].chars().count());
        assert_eq!(lines[4].find('^'), at, "{drawn}");
    }

    #[test]
    fn far_labels_fold_what_is_between_and_a_long_span_stays_on_its_first_line() {
        let text = format!("first{}last\nmore", "\n".repeat(5000));
        expect(
            &drawn(text.as_bytes(), &[("last\nmore", "ends here"), ("first", "begins here")]),
            &[
                "error: bad",
                "    --> chat.conf:5001:1",
                "     |",
                "   1 | first",
                "     | ----- begins here",
                "...",
                "5001 | last",
                "     | ^^^^ ends here",
            ],
        );
    }

    #[test]
    fn two_files_are_shown_one_after_the_other() {
        let mut sources = SourceMap::default();
        let one = sources.add("one.conf", Origin::File, b"a;".to_vec());
        let globals = sources.add("-g", Origin::CommandLine, b"b;".to_vec());
        let diagnostic = Diagnostic::error("twice")
            .at(Span::new(one, 0, 1), "again")
            .at(Span::new(globals, 0, 1), "first");
        expect(
            &diagnostic.render(&sources, false),
            &[
                "error: twice",
                " --> one.conf:1:1",
                "  |",
                "1 | a;",
                "  | ^ again",
                "  |",
                " ::: command line:1:1",
                "  |",
                "1 | b;",
                "  | - first",
            ],
        );
    }
}
