//! Every text a configuration was read from, and places in it.
//!
//! A [`Span`] is three small numbers. Only the [`SourceMap`] turns it into a path, a line and a column, so trees and
//! diagnostics carry spans freely and nothing is copied until somebody looks.

use std::fmt;
use std::path::{Path, PathBuf};

/// Names one text of a [`SourceMap`]: its place in the order of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A piece of one text: the bytes from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The text.
    pub file: FileId,
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte; equals `start` for a place between two bytes.
    pub end: u32,
}

impl Span {
    /// The bytes `start..end` of `file`.
    pub fn new(file: FileId, start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= MAX_FILE_LEN);
        Self { file, start: start as u32, end: end as u32 }
    }

    /// The smallest span that covers both; `other` must lie in the same file, or `self` is returned.
    pub fn to(self, other: Self) -> Self {
        if other.file != self.file {
            return self;
        }
        Self { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The empty span just behind this one: where something is missing.
    pub fn after(self) -> Self {
        Self { start: self.end, ..self }
    }

    /// Whether `inner` lies completely inside this span.
    pub fn contains(self, inner: Self) -> bool {
        self.file == inner.file && self.start <= inner.start && inner.end <= self.end
    }
}

/// The longest text that is accepted; offsets are 32 bits and nobody writes more by hand (`geo` tables are generated).
pub const MAX_FILE_LEN: usize = 256 << 20;

/// Where a text came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File,
    /// The argument of `-g`.
    CommandLine,
    /// Text made by the program or a test; it has a name but no file.
    Text,
}

/// One text: its name, its exact bytes and where its lines begin.
#[derive(Debug)]
pub struct SourceFile {
    path: PathBuf,
    origin: Origin,
    bytes: Box<[u8]>,
    line_starts: Vec<u32>,
}

impl SourceFile {
    /// The path as it was opened, or the name of a text without a file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Exactly what was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of the line that holds `offset`, counted from 1.
    pub fn line_at(&self, offset: u32) -> u32 {
        // Never 0, because the first line starts at offset 0.
        self.line_starts.partition_point(|&start| start <= offset) as u32
    }

    /// The column of `offset` in its line, counted from 1 in characters.
    pub fn column_at(&self, offset: u32) -> u32 {
        let line_start = self.line_range(self.line_at(offset)).start;
        let before = &self.bytes[line_start..offset as usize];
        String::from_utf8_lossy(before).chars().count() as u32 + 1
    }

    /// Offsets of the bytes of line `line` (from 1), without its line end; empty when there is no such line.
    pub fn line_range(&self, line: u32) -> std::ops::Range<usize> {
        let len = self.bytes.len();
        // A line 0 wraps to an index that no file has.
        let Some(&start) = self.line_starts.get((line as usize).wrapping_sub(1)) else {
            return len..len;
        };
        let end = self.line_starts.get(line as usize).map_or(len, |&next| next as usize - 1);
        let text = &self.bytes[start as usize..end];
        start as usize..end - usize::from(text.ends_with(b"\r"))
    }
}

/// A place for people: path, line and column, the latter two counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// The path as it was opened.
    pub path: &'a Path,
    /// Where the text came from; `-g` has no lines worth naming.
    pub origin: Origin,
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

/// nginx's way to name a place: `FILE:LINE`, or `command line`.
impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::CommandLine => f.write_str("command line"),
            Origin::File | Origin::Text => write!(f, "{}:{}", self.path.display(), self.line),
        }
    }
}

/// Owns every text that was read, each path once.
#[derive(Debug, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

impl SourceMap {
    /// Takes a text in. The caller keeps it within [`MAX_FILE_LEN`]; what is longer is cut there.
    pub fn add(&mut self, path: impl Into<PathBuf>, origin: Origin, bytes: Vec<u8>) -> FileId {
        let mut bytes = bytes;
        bytes.truncate(MAX_FILE_LEN);
        let newlines = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
        let line_starts = std::iter::once(0).chain(newlines.map(|(at, _)| at as u32 + 1)).collect();
        self.files.push(SourceFile { path: path.into(), origin, bytes: bytes.into(), line_starts });
        FileId(self.files.len() as u32 - 1)
    }

    /// The file that was read from `path`, if it was.
    pub fn find(&self, path: &Path) -> Option<FileId> {
        let at =
            // A text that is in no file may have the name of one.
            self.files.iter().position(|file| file.origin == Origin::File && file.path == path)?;
        Some(FileId(at as u32))
    }

    /// The text behind `id`.
    pub fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    /// All texts in the order they were read.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &SourceFile)> {
        self.files.iter().enumerate().map(|(at, file)| (FileId(at as u32), file))
    }

    /// The raw bytes of `span`: quotes and backslashes as written.
    pub fn text(&self, span: Span) -> &[u8] {
        &self.file(span.file).bytes[span.start as usize..span.end as usize]
    }

    /// Where `span` begins.
    pub fn location(&self, span: Span) -> Location<'_> {
        let file = self.file(span.file);
        let line = file.line_at(span.start);
        let column = file.column_at(span.start);
        Location { path: &file.path, origin: file.origin, line, column }
    }

    /// What `-T` prints: a heading and the exact bytes of every file, each once, in nginx's form.
    pub fn dump(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for file in self.files.iter().filter(|file| file.origin != Origin::CommandLine) {
            out.extend_from_slice(b"# configuration file ");
            out.extend_from_slice(file.path.as_os_str().as_encoded_bytes());
            out.extend_from_slice(b":\n");
            out.extend_from_slice(&file.bytes);
            out.push(b'\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &[u8], offset: usize) -> (u32, u32) {
        let mut sources = SourceMap::default();
        let file = sources.add("a.conf", Origin::File, text.to_vec());
        let at = sources.location(Span::new(file, offset, offset));
        (at.line, at.column)
    }

    #[test]
    fn lines_and_columns_count_from_one_and_columns_in_characters() {
        let text = "ab\r\nhé x\n\n".as_bytes();
        let cases = [
            (0, (1, 1)),
            (1, (1, 2)),
            (4, (2, 1)),
            (7, (2, 3)),
            (8, (2, 4)),
            (10, (3, 1)),
            (11, (4, 1)),
        ];
        for (offset, expected) in cases {
            assert_eq!(place(text, offset), expected, "offset {offset}");
        }
        assert_eq!(place(b"", 0), (1, 1));
        assert_eq!(place(b"\xff\xfex", 2), (1, 3), "a byte that is not UTF-8 is one column");
    }

    #[test]
    fn a_line_range_excludes_its_line_end() {
        let mut sources = SourceMap::default();
        let file = sources.add("a.conf", Origin::File, b"ab\r\ncd\n".to_vec());
        let file = sources.file(file);
        assert_eq!(file.line_range(1), 0..2);
        assert_eq!(file.line_range(2), 4..6);
        assert_eq!(file.line_range(3), 7..7);
        assert_eq!(file.line_range(4), 7..7);
        assert_eq!(file.line_range(0), 7..7);
    }

    #[test]
    fn a_dump_names_each_file_and_keeps_its_bytes() {
        let mut sources = SourceMap::default();
        sources.add("command line", Origin::CommandLine, b"daemon off;".to_vec());
        sources.add("/etc/a.conf", Origin::File, b"x\r\n\xff".to_vec());
        assert_eq!(sources.dump(), b"# configuration file /etc/a.conf:\nx\r\n\xff\n");
    }

    #[test]
    fn the_command_line_is_a_place_without_lines() {
        let mut sources = SourceMap::default();
        let globals = sources.add("command line", Origin::CommandLine, b"a b;".to_vec());
        let file = sources.add("n.conf", Origin::File, b"\na b;".to_vec());
        assert_eq!(sources.location(Span::new(globals, 0, 1)).to_string(), "command line");
        assert_eq!(sources.location(Span::new(file, 1, 2)).to_string(), "n.conf:2");
    }
}
