//! What there is to say about a configuration: a problem, the places it concerns, why, and what may help.
//!
//! A call site reads like the sentence it makes:
//!
//! ```
//! # use wssgate_syntax::*;
//! # let mut sources = SourceMap::default();
//! # let file = sources.add("chat.conf", Origin::Text, b"listn 80;".to_vec());
//! # let span = Span::new(file, 0, 5);
//! let mut report = Report::default();
//! report.push(
//!     Diagnostic::error("unknown directive \"listn\"")
//!         .at(span, "not known in `server`")
//!         .help("did you mean `listen`?"),
//! );
//! assert_eq!(report.lines(&sources), ["[emerg] unknown directive \"listn\" in chat.conf:1"]);
//! ```

use std::fmt::Write as _;

use crate::render;
use crate::source::{SourceMap, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is accepted but probably does not do what its author wants.
    Warning,
    /// Something worth knowing.
    Note,
}

impl Severity {
    /// nginx's word for it in a log line.
    pub fn nginx_word(self) -> &'static str {
        match self {
            Self::Error => "emerg",
            Self::Warning => "warn",
            Self::Note => "notice",
        }
    }
}

/// One problem with its places, reasons and help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in nginx's words where it has some.
    pub message: String,
    /// Places and what to say about each; the first is the one that the problem is reported at.
    pub labels: Vec<(Span, String)>,
    /// Further facts.
    pub notes: Vec<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// The setting, where all there is to say is that it has no effect.
    pub idle: Option<Box<str>>,
}

impl Diagnostic {
    /// A problem of this severity.
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            message: message.into(),
            labels: Vec::new(),
            notes: Vec::new(),
            help: None,
            idle: None,
        }
    }

    /// A reason to refuse the configuration.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message)
    }

    /// A reason to doubt it.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message)
    }

    /// The news that `setting` has no effect, and why. There may be many, of which few want to hear more than
    /// their number.
    pub fn idle(setting: impl Into<Box<str>>, message: impl Into<String>) -> Self {
        Self { idle: Some(setting.into()), ..Self::information(message) }
    }

    /// A thing worth knowing.
    pub fn information(message: impl Into<String>) -> Self {
        Self::new(Severity::Note, message)
    }

    /// Adds a place and what to say about it, which may be nothing; the first place is the primary one.
    #[must_use]
    pub fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.labels.push((span, label.into()));
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says what to do if there is something to say.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Where it is reported.
    pub fn primary(&self) -> Option<Span> {
        self.labels.first().map(|&(span, _)| span)
    }

    /// nginx's text for it: `MESSAGE in FILE:LINE`. Of a setting without effect, which nginx knows nothing of, the
    /// place comes first: the message ends with a reason, and the place is not the reason's.
    fn text(&self, sources: &SourceMap) -> String {
        let message = printable(self.message.as_bytes());
        match self.primary() {
            Some(span) if self.idle.is_some() => format!("{}: {message}", sources.location(span)),
            Some(span) => format!("{message} in {}", sources.location(span)),
            None => message,
        }
    }

    /// nginx's one line for it: `[emerg] MESSAGE in FILE:LINE`.
    pub fn line(&self, sources: &SourceMap) -> String {
        line(self.severity, &self.text(sources))
    }

    /// The problem drawn for people, with the lines it concerns; colours are ANSI escapes.
    pub fn render(&self, sources: &SourceMap, color: bool) -> String {
        render::render(self, sources, color)
    }

    /// What of the drawing nginx's line does not say: the lines that it concerns, why and what may help. Empty when
    /// there is nothing else to say.
    pub fn render_below_line(&self, sources: &SourceMap, color: bool) -> String {
        let drawn = self.render(sources, color);
        // The message, and then the place if there is one.
        let said = 1 + usize::from(self.primary().is_some());
        drawn.lines().skip(said).map(|line| format!("{line}\n")).collect()
    }
}

/// The most problems that are kept; a file with more is not a configuration, and the rest is only counted.
pub const MAX_DIAGNOSTICS: usize = 256;

/// Everything found in one run, in the order it was found, each thing once.
#[derive(Clone, Debug, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
    omitted: usize,
    omitted_errors: usize,
}

impl Report {
    /// Adds a problem, unless the same is known already (a file that is included twice has its problems once).
    pub fn push(&mut self, diagnostic: Diagnostic) {
        // Cheap enough, as no more than MAX_DIAGNOSTICS are ever kept.
        if self.diagnostics.contains(&diagnostic) {
            return;
        }
        if self.diagnostics.len() == MAX_DIAGNOSTICS {
            self.omitted += 1;
            self.omitted_errors += usize::from(diagnostic.severity == Severity::Error);
            return;
        }
        self.diagnostics.push(diagnostic);
    }

    /// Adds all that `other` holds.
    pub fn append(&mut self, other: Self) {
        self.omitted += other.omitted;
        self.omitted_errors += other.omitted_errors;
        self.extend(other.diagnostics);
    }

    /// Puts the problems in the order of their places, file by file as the files were read; those without a place come
    /// last, for they are about the whole. Reading, then checking, finds them in another order than people read.
    pub fn sort(&mut self) {
        let place = |diagnostic: &Diagnostic| {
            let span = diagnostic.primary();
            (span.is_none(), span.map(|span| (span.file, span.start)))
        };
        self.diagnostics.sort_by_key(place);
    }

    /// The problems that were kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.diagnostics.iter()
    }

    /// Whether further problems are only counted.
    pub fn is_full(&self) -> bool {
        self.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    /// Whether nothing at all was found.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Whether there is a reason to refuse the configuration.
    pub fn has_errors(&self) -> bool {
        self.error_count() > 0
    }

    /// How many errors there are, kept or not.
    pub fn error_count(&self) -> usize {
        self.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
            + self.omitted_errors
    }

    /// nginx's text for every problem, for a log that adds the severity itself:
    /// `MESSAGE in FILE:LINE`.
    pub fn texts(&self, sources: &SourceMap) -> Vec<(Severity, String)> {
        let omitted = (self.omitted > 0)
            .then(|| (Severity::Error, format!("{} more problems are not shown", self.omitted)));
        let text = |diagnostic: &Diagnostic| (diagnostic.severity, diagnostic.text(sources));
        self.iter().map(text).chain(omitted).collect()
    }

    /// nginx's line for every problem, without its program's name: `[emerg] MESSAGE in FILE:LINE`.
    pub fn lines(&self, sources: &SourceMap) -> Vec<String> {
        self.texts(sources).iter().map(|(severity, text)| line(*severity, text)).collect()
    }

    /// Every problem drawn for people, separated by empty lines; colours are ANSI escapes.
    pub fn render(&self, sources: &SourceMap, color: bool) -> String {
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            out.push_str(&diagnostic.render(sources, color));
            out.push_str("\n\n");
        }
        if self.omitted > 0 {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(out, "{} more problems are not shown\n", self.omitted);
        }
        out
    }
}

fn line(severity: Severity, text: &str) -> String {
    format!("[{}] {text}", severity.nginx_word())
}

impl Extend<Diagnostic> for Report {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: I) {
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }
}

impl IntoIterator for Report {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.diagnostics.into_iter()
    }
}

/// Bytes of a configuration made fit for a message: control characters and what is not UTF-8 become escapes like `\x1b`,
/// so a message stays on its line and cannot steer a terminal.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\n' => out.push_str("\\n"),
                _ if is_unsafe(character) => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
                }
                _ => out.push(character),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Control characters, the byte order mark, and the marks that reorder text on a screen.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Origin;

    #[test]
    fn printable_text_keeps_letters_and_escapes_the_rest() {
        let cases: &[(&[u8], &str)] = &[
            (b"plain", "plain"),
            ("é世".as_bytes(), "é世"),
            (b"a\nb\tc\rd", r"a\nb\tc\rd"),
            (b"\x1b[31m", r"\u{1b}[31m"),
            (b"\xff\xc3(", r"\xff\xc3("),
            (b"\xef\xbb\xbfuser", r"\u{feff}user"),
        ];
        for &(bytes, expected) in cases {
            assert_eq!(printable(bytes), expected);
        }
    }

    #[test]
    fn the_same_problem_is_reported_once_and_the_number_is_bounded() {
        let mut report = Report::default();
        for at in [0, 1, 0, 1] {
            report.push(Diagnostic::error(format!("problem {at}")));
        }
        assert_eq!(report.error_count(), 2);
        report.extend((0..MAX_DIAGNOSTICS + 10).map(|at| Diagnostic::error(format!("other {at}"))));
        assert_eq!(report.iter().len(), MAX_DIAGNOSTICS);
        assert_eq!(report.error_count(), MAX_DIAGNOSTICS + 12);
        let lines = report.lines(&SourceMap::default());
        assert_eq!(
            lines.last().map(String::as_str),
            Some("[emerg] 12 more problems are not shown")
        );
    }

    #[test]
    fn sorted_problems_follow_the_text() {
        let mut sources = SourceMap::default();
        let one = sources.add("one", Origin::File, b"a;\nb;".to_vec());
        let two = sources.add("two", Origin::File, b"a;".to_vec());
        let mut report = Report::default();
        report
            .push(Diagnostic::error("3").at(Span::new(two, 0, 1), "").at(Span::new(one, 0, 1), ""));
        report.push(Diagnostic::error("4"));
        report.push(Diagnostic::error("2").at(Span::new(one, 3, 4), ""));
        report.push(Diagnostic::error("1").at(Span::new(one, 0, 1), ""));
        report.sort();
        let order: String = report.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(order, "1234");
    }

    #[test]
    fn a_warning_is_no_reason_to_refuse() {
        let mut report = Report::default();
        report.push(Diagnostic::warning("odd"));
        report.push(Diagnostic::information("known"));
        assert!(!report.has_errors() && !report.is_empty());
        report.push(Diagnostic::error("wrong"));
        assert!(report.has_errors());
    }

    #[test]
    fn what_the_line_says_is_not_drawn_again() {
        let mut sources = SourceMap::default();
        let file = sources.add("/etc/n.conf", Origin::File, b"a;\nbad;".to_vec());
        let problem = Diagnostic::error("bad word").help("write another");
        assert_eq!(problem.render_below_line(&sources, false), " |\n = help: write another\n");
        let problem = problem.at(Span::new(file, 3, 6), "here");
        let below = problem.render_below_line(&sources, false);
        assert!(below.contains("2 | bad;") && below.contains("^^^ here"), "{below}");
        assert!(!below.contains("bad word") && !below.contains("n.conf"), "{below}");
        assert_eq!(Diagnostic::error("alone").render_below_line(&sources, false), "");
    }

    #[test]
    fn the_line_form_is_nginx_s() {
        let mut sources = SourceMap::default();
        let file = sources.add("/etc/n.conf", Origin::File, b"a;\nb\x1b;".to_vec());
        let globals = sources.add("command line", Origin::CommandLine, b"x;".to_vec());
        let cases = [
            (
                Diagnostic::error("bad").at(Span::new(file, 3, 4), ""),
                "[emerg] bad in /etc/n.conf:2",
            ),
            (
                Diagnostic::warning("bad").at(Span::new(globals, 0, 1), ""),
                "[warn] bad in command line",
            ),
            (Diagnostic::information("so\n"), r"[notice] so\n"),
        ];
        for (diagnostic, expected) in cases {
            assert_eq!(diagnostic.line(&sources), expected);
        }
    }
}
