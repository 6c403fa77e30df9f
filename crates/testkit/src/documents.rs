//! What the documents say, as far as a test can hold them to it: links, anchors, configurations, commands.
//!
//! [`Document::parse`] reads the Markdown that this repository is written in: headings with `#`, paragraphs, lists, tables,
//! fenced and indented code, inline links. It is no full CommonMark; what it does not know (links by reference, headings
//! that are underlined) no document here uses.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

mod commands;

pub use commands::Command;

/// A document, read.
#[derive(Debug, Default)]
pub struct Document {
    /// Its path below the root of the repository.
    pub path: PathBuf,
    /// What a link can lead to in it, as GitHub names headings.
    pub anchors: Vec<String>,
    /// Where it leads to.
    pub links: Vec<Spot>,
    /// Code that stands in lines of its own.
    pub blocks: Vec<CodeBlock>,
    /// Code that stands in a sentence.
    pub spans: Vec<Spot>,
}

/// A piece of text and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The line where it begins, the first is 1.
    pub line: usize,
    /// The text.
    pub text: String,
}

/// Lines of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeBlock {
    /// The line of the document where the code begins, the first is 1.
    pub line: usize,
    /// What stands behind the fence, `nginx` for example; empty for none.
    pub language: String,
    /// The code without its indentation.
    pub text: String,
}

/// The documents of the repository at `root` that are for people who use it or work on it, and the comments of
/// configurations that are shipped.
///
/// # Panics
/// When one cannot be read.
pub fn all(root: &Path) -> Vec<Document> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md"]
            .iter()
            .chain(&["packaging/README.md", "benches/README.md", "fuzz/README.md"])
            .map(PathBuf::from)
            .collect();
    let mut directories: Vec<PathBuf> =
        ["contrib", "docs", "examples", "packaging"].map(PathBuf::from).into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory)).expect("a directory of documents") {
            let entry = entry.expect("an entry of a directory");
            let path = directory.join(entry.file_name());
            if entry.path().is_dir() {
                directories.push(path);
            } else if has_text(&path) && !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(root.join(path)).expect("a document");
        let text = if is_markdown(path) { text } else { comments(&text) };
        Document::parse(path, &text)
    };
    paths.iter().map(read).collect()
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn has_text(path: &Path) -> bool {
    let name = path.to_string_lossy();
    is_markdown(path) || name.ends_with(".conf") || name.ends_with(".conf.example")
}

/// The comments of a configuration, each in its line; they are written like documents.
fn comments(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if let Some(comment) = line.trim_start().strip_prefix('#') {
            out.push_str(comment.strip_prefix(' ').unwrap_or(comment));
        }
        out.push('\n');
    }
    out
}

impl Document {
    /// Reads Markdown.
    pub fn parse(path: impl Into<PathBuf>, text: &str) -> Self {
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            reader.line(index + 1, line);
        }
        reader.end_code();
        reader.end_paragraph();
        Self { path: path.into(), ..reader.out }
    }

    /// `path:line`, for messages.
    pub fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// What a line of Markdown belongs to.
#[derive(Default)]
struct Reader {
    out: Document,
    /// How often a heading was there before.
    headings: HashMap<String, usize>,
    /// The paragraph that goes on, and its first line.
    paragraph: Option<(usize, String)>,
    code: Option<Code>,
    /// Inside `<!-- … -->`.
    in_comment: bool,
    /// Where the text of the innermost list item begins.
    item_indent: usize,
    after_blank: bool,
}

/// Code that goes on.
struct Code {
    block: CodeBlock,
    /// What closes it; none for indented code.
    fence: Option<String>,
    indent: usize,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let text = line.trim();
        if self.in_comment || (self.code.is_none() && text.starts_with("<!--")) {
            self.in_comment = !text.contains("-->");
            return;
        }
        if let Some(code) = &mut self.code {
            let goes_on = match &code.fence {
                Some(fence) => !text.starts_with(fence.as_str()),
                None => text.is_empty() || indent >= code.indent,
            };
            if goes_on {
                code.block.text.push_str(line.get(code.indent.min(indent)..).unwrap_or_default());
                code.block.text.push('\n');
                return;
            }
            let fenced = code.fence.is_some();
            self.end_code();
            if fenced {
                return;
            }
            // Indented code ends with blank lines.
            self.after_blank = true;
        }
        let after_blank = std::mem::replace(&mut self.after_blank, text.is_empty());
        if text.is_empty() {
            return self.end_paragraph();
        }
        let is_fence = |mark: char| text.len() - text.trim_start_matches(mark).len() >= 3;
        if is_fence('`') || is_fence('~') {
            let language = text.trim_start_matches(['`', '~']);
            let fence = text[..text.len() - language.len()].to_owned();
            return self.begin_code(number + 1, language.trim(), Some(fence), indent);
        }
        if indent < self.item_indent && after_blank {
            self.item_indent = 0;
        }
        if after_blank && indent >= self.item_indent + 4 {
            self.begin_code(number, "", None, self.item_indent + 4);
            return self.line(number, line);
        }
        if let Some(heading) = heading(line) {
            self.end_paragraph();
            let slug = slug(heading);
            let count = self.headings.entry(slug.clone()).or_default();
            self.out.anchors.push(match *count {
                0 => slug,
                again => format!("{slug}-{again}"),
            });
            *count += 1;
            self.item_indent = 0;
            return self.inline(number, heading);
        }
        if let Some(width) = item(text) {
            self.end_paragraph();
            self.item_indent = indent + width;
        }
        // The cells of a table have nothing to do with each other.
        if text.starts_with('|') {
            self.end_paragraph();
            return self.inline(number, text);
        }
        let (_, paragraph) = self.paragraph.get_or_insert_with(|| (number, String::new()));
        paragraph.push_str(text);
        paragraph.push('\n');
    }

    fn begin_code(&mut self, line: usize, language: &str, fence: Option<String>, indent: usize) {
        self.end_paragraph();
        let block = CodeBlock { line, language: language.to_owned(), text: String::new() };
        self.code = Some(Code { block, fence, indent });
    }

    fn end_code(&mut self) {
        if let Some(code) = self.code.take() {
            self.out.blocks.push(code.block);
        }
    }

    fn end_paragraph(&mut self) {
        if let Some((line, text)) = self.paragraph.take() {
            self.inline(line, &text);
        }
    }

    /// Code and links of a paragraph that begins in this line.
    fn inline(&mut self, first: usize, text: &str) {
        let line_of = |at: usize| first + text[..at].matches('\n').count();
        let mut rest = 0;
        while let Some(found) = text[rest..].find(['`', ']']) {
            let at = rest + found;
            if text[at..].starts_with("](") {
                let target = &text[at + 2..];
                let len = target.find(')').unwrap_or(target.len());
                let target = target[..len].split_whitespace().next().unwrap_or_default();
                self.out.links.push(Spot { line: line_of(at), text: target.to_owned() });
                rest = at + 2 + len;
            } else if text[at..].starts_with('`') {
                let ticks = text[at..].len() - text[at..].trim_start_matches('`').len();
                let code = &text[at + ticks..];
                let Some(len) = code.find(&"`".repeat(ticks)) else { return };
                let code = &code[..len];
                let spot = Spot { line: line_of(at), text: code.trim().replace('\n', " ") };
                self.out.spans.push(spot);
                rest = at + 2 * ticks + len;
            } else {
                rest = at + 1;
            }
        }
    }
}

/// The text of a heading.
fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    ((1..=6).contains(&(line.len() - text.len())) && text.starts_with(' ')).then(|| text.trim())
}

/// How wide the mark of a list item is, with the space behind it.
fn item(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let mark = if digits == 0 {
        text.starts_with(['-', '*', '+']).then_some(1)
    } else {
        text[digits..].starts_with('.').then_some(digits + 1)
    }?;
    text[mark..].starts_with(' ').then_some(mark + 1)
}

/// The anchor that GitHub and mdBook give a heading: its letters and digits in lower case, `-` for spaces.
fn slug(heading: &str) -> String {
    // Of a link its text counts.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, behind)) = rest.split_once("](") {
        text.push_str(before);
        rest = behind.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let kept = |letter: &char| letter.is_alphanumeric() || "-_ ".contains(*letter);
    text.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn texts(spots: &[Spot]) -> Vec<(usize, &str)> {
        spots.iter().map(|spot| (spot.line, &*spot.text)).collect()
    }

    #[test]
    fn links_and_code_are_found_with_their_lines() {
        let document = Document::parse(
            "a.md",
            "See [this](b.md#c) and `code\nover lines`,\n[that](d.md \"title\") but not `[x](y)`.\n\n\
             | `cell` | [link](e.md) |\n\n- item ![image](f.svg)\n",
        );
        assert_eq!(texts(&document.links), [(1, "b.md#c"), (3, "d.md"), (5, "e.md"), (7, "f.svg")]);
        let spans = [(1, "code over lines"), (3, "[x](y)"), (5, "cell")];
        assert_eq!(texts(&document.spans), spans);
    }

    #[test]
    fn headings_have_the_anchors_of_github() {
        let document = Document::parse(
            "a.md",
            "# Two minutes to `wss://`\n## What's new, in 1.0?\n## ssl_protocols\n### Same\n### Same\n\
             ## See [this](that.md)\n####### none\n#none\n```sh\n# a comment\n```\n",
        );
        assert_eq!(
            document.anchors,
            [
                "two-minutes-to-wss",
                "whats-new-in-10",
                "ssl_protocols",
                "same",
                "same-1",
                "see-this"
            ]
        );
    }

    #[test]
    fn code_is_fenced_or_indented() {
        let document = Document::parse(
            "a.md",
            "text\n\n    one\n\n      two\ntext\n    goes on\n\n```nginx\nthree;\n    four;\n```\n\
             - item\n\n      five\n\n  goes on\n\n    six\n    seven\n\n1. item\n\n   text\n\n       eight\n\
             ~~~\n``` \n~~~\n<!-- \n    none\n-->\n",
        );
        let blocks: Vec<_> = document
            .blocks
            .iter()
            .map(|block| (block.line, &*block.language, block.text.trim_end()))
            .collect();
        assert_eq!(
            blocks,
            [
                (3, "", "one\n\n  two"),
                (10, "nginx", "three;\n    four;"),
                (15, "", "five"),
                (26, "", "eight"),
                (28, "", "```"),
            ],
            "six and seven are no code: they stand in the item"
        );
    }

    #[test]
    fn of_a_configuration_the_comments_are_read() {
        let document = Document::parse(
            "a.conf",
            &comments("# See docs:\n#\n#     wssgate -t\n\nuser x; # y\n"),
        );
        assert_eq!(document.blocks[0].text.trim_end(), "wssgate -t");
        assert_eq!(document.blocks[0].line, 3);
    }
}
