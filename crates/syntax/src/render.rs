//! Draws a diagnostic the way rustc does: message, place, the lines concerned, carets, notes, help.
//!
//! annotate-snippets draws; this module feeds it. A file may be huge, its lines endless and its bytes no text, so only
//! the lines that carry a label are handed over, cut to [`MAX_COLUMNS`] around their labels and made printable.

use std::ops::Range;

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level as Shown, Origin as Place, Renderer, Snippet,
};

use crate::diagnostic::{Diagnostic, Level, is_unsafe, printable};
use crate::source::{FileId, Origin, SourceFile, SourceMap, Span};

/// The most bytes of one line that are shown.
const MAX_COLUMNS: usize = 160;
/// How much of a long line is shown before its first label.
const LEAD: usize = 40;
/// Lines apart up to which the lines between two labels are shown too.
const NEAR: u32 = 4;

/// One label with its text, on one line of one file.
struct Mark<'d> {
    span: Span,
    text: &'d str,
    primary: bool,
}

pub(crate) fn render(diagnostic: &Diagnostic, sources: &SourceMap, color: bool) -> String {
    let level = match diagnostic.level {
        Level::Error => Shown::ERROR,
        Level::Warning => Shown::WARNING,
        Level::Note => Shown::NOTE,
    };
    let mut group = level
        .primary_title(printable(diagnostic.message.as_bytes()))
        .elements(Vec::<Snippet<'_, Annotation<'_>>>::new());
    for (file, marks) in by_file(diagnostic) {
        group = with_snippet(group, sources, file, &marks);
    }
    for note in &diagnostic.notes {
        group = group.element(Shown::NOTE.message(printable(note.as_bytes())));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Shown::HELP.message(printable(help.as_bytes())));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
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

fn with_snippet<'a>(
    group: Group<'a>,
    sources: &SourceMap,
    id: FileId,
    marks: &[Mark<'a>],
) -> Group<'a> {
    let file = sources.file(id);
    let first = marks[0].span;
    let place = sources.location(first);
    let path = match file.origin() {
        Origin::CommandLine => "command line".into(),
        Origin::File | Origin::Text => printable(file.path().as_os_str().as_encoded_bytes()),
    };
    let lines = marks.iter().map(|mark| file.line_at(mark.span.start));
    let (top, bottom) =
        lines.fold((u32::MAX, 0), |(top, bottom), line| (top.min(line), bottom.max(line)));
    let mut excerpt = Excerpt::default();
    for line in top..=bottom {
        excerpt.add_line(file, line, marks);
    }
    let annotations = excerpt.ranges.into_iter().map(|(range, at)| {
        let mark = &marks[at];
        let kind = if mark.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
        let label = (!mark.text.is_empty()).then(|| printable(mark.text.as_bytes()));
        kind.span(range).label(label)
    });
    let snippet = Snippet::source(excerpt.text).line_start(top as usize).annotations(annotations);
    let place = Place::path(path).line(place.line as usize).char_column(place.column as usize);
    group.element(place).element(snippet)
}

/// The printable lines between the first and the last label of a file, and where each label went.
#[derive(Default)]
struct Excerpt {
    text: String,
    ranges: Vec<(Range<usize>, usize)>,
}

impl Excerpt {
    /// Appends one line; a line far from any label stays empty, since it will be folded away.
    fn add_line(&mut self, file: &SourceFile, line: u32, marks: &[Mark<'_>]) {
        let here =
            || marks.iter().enumerate().filter(|(_, mark)| file.line_at(mark.span.start) == line);
        let near = marks.iter().any(|mark| file.line_at(mark.span.start).abs_diff(line) <= NEAR);
        let whole = file.line_range(line);
        let lead = here().map(|(_, mark)| mark.span.start as usize).min().unwrap_or(whole.start);
        let shown = if near { cut(whole, lead) } else { whole.end..whole.end };
        let offsets = self.push_printable(&file.bytes()[shown.clone()]);
        let place =
            |offset: u32| offsets[(offset as usize).clamp(shown.start, shown.end) - shown.start];
        let spots: Vec<_> =
            here().map(|(at, mark)| (place(mark.span.start)..place(mark.span.end), at)).collect();
        self.ranges.extend(spots);
        self.text.push('\n');
    }

    /// Appends `bytes` made printable and returns, for every offset in them up to their length, where it went.
    fn push_printable(&mut self, bytes: &[u8]) -> Vec<usize> {
        let mut offsets = Vec::with_capacity(bytes.len() + 1);
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                offsets.extend(std::iter::repeat_n(self.text.len(), character.len_utf8()));
                let unsafe_here = is_unsafe(character) && character != '\t';
                self.text.push(if unsafe_here { char::REPLACEMENT_CHARACTER } else { character });
            }
            for _ in chunk.invalid() {
                offsets.push(self.text.len());
                self.text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        offsets.push(self.text.len());
        offsets
    }
}

/// The part of a line that is shown: all of a short one, else what stands around its first label.
fn cut(line: Range<usize>, lead: usize) -> Range<usize> {
    if line.len() <= MAX_COLUMNS {
        return line;
    }
    let start = lead.saturating_sub(LEAD).max(line.start);
    start..line.end.min(start + MAX_COLUMNS)
}
