//! Reads a whole configuration: `-g`, the main text, and every file that an `include` names.
//!
//! `include` is the one directive that belongs to the language. It may stand in any block, `map` and `types` too, and is
//! replaced by the directives of the files it names. Braces never reach from one file into another.

use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Report, printable};
use crate::files::{Disk, Files, glob, is_mask};
use crate::parser::{MAX_BLOCK_DEPTH, parse_file, too_deep};
use crate::source::{FileId, Origin, SourceMap, Span};
use crate::tree::Directive;

/// How deep includes may nest; symbolic links can hide a cycle from its check.
pub const MAX_INCLUDE_DEPTH: usize = 16;
/// How many files may be read in one run, counting each inclusion.
pub const MAX_INCLUDES: usize = 16_384;

/// The byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The main text of a configuration.
#[derive(Clone, Debug)]
pub enum Main {
    /// A file; a relative path is taken from the prefix.
    File(PathBuf),
    /// A text that is in no file; relative includes in it are taken from the prefix.
    Text {
        /// What messages call it.
        name: String,
        /// The configuration.
        text: Vec<u8>,
    },
}

/// What to read.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The main text.
    pub main: &'a Main,
    /// The directory of `-p`; without it relative paths are left as they are.
    pub prefix: Option<&'a Path>,
    /// The directives of `-g`, read before everything else.
    pub globals: Option<&'a [u8]>,
    /// Where files are read from.
    pub files: &'a dyn Files,
}

impl<'a> Options<'a> {
    /// Only the main text, with files from the disk.
    pub fn new(main: &'a Main) -> Self {
        Self { main, prefix: None, globals: None, files: &Disk }
    }
}

/// What was read.
#[derive(Debug)]
pub struct Parsed {
    /// Every text; owns what the spans point into.
    pub sources: SourceMap,
    /// The top level: the directives of `-g`, then those of the main text.
    pub directives: Vec<Directive>,
    /// What is wrong with the text.
    pub report: Report,
    /// Each `include` that was followed: its directive and the file it brought in, in order.
    pub includes: Vec<Include>,
    /// Whether every brace had its partner. If not, blocks may hold directives that belong elsewhere, and whether a
    /// directive is allowed where it stands cannot be told.
    pub balanced: bool,
}

/// One file that an `include` brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Include {
    /// The directive.
    pub span: Span,
    /// The file.
    pub file: FileId,
}

/// Reads a whole configuration.
pub fn parse(options: Options<'_>) -> Parsed {
    let prefixed = |path: &Path| match options.prefix {
        Some(prefix) => prefix.join(path),
        None => path.to_path_buf(),
    };
    let (main, base) = match options.main {
        Main::File(path) => (prefixed(path), directory_of(&prefixed(path))),
        Main::Text { name, .. } => (PathBuf::from(name), prefixed(Path::new(""))),
    };
    let mut loader = Loader::new(options.files, base);
    let mut directives = Vec::new();
    if let Some(globals) = options.globals {
        let name = "command line";
        let file = loader.out.sources.add(name, Origin::CommandLine, globals.to_vec());
        // First, as in nginx: of a directive that is there and in the file, the one in the file is
        // the duplicate.
        directives = loader.load(file);
    }
    let file = match options.main {
        Main::Text { text, .. } => Some(loader.out.sources.add(main, Origin::Text, text.clone())),
        Main::File(_) => loader.open(&main, None),
    };
    if let Some(file) = file {
        directives.append(&mut loader.load(file));
    }
    Parsed { directives, ..loader.out }
}

/// Reads one text without following its includes, which stay in the tree as directives.
pub fn parse_text(name: impl Into<PathBuf>, text: &[u8]) -> Parsed {
    let mut sources = SourceMap::default();
    let file = sources.add(name, Origin::Text, text.to_vec());
    let tree = parse_file(file, sources.file(file), 0);
    Parsed {
        sources,
        directives: tree.directives,
        report: tree.report,
        includes: Vec::new(),
        balanced: tree.balanced,
    }
}

/// The directory part of `path`, empty for a bare name.
fn directory_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

struct Loader<'a> {
    files: &'a dyn Files,
    /// The directory that relative includes are taken from: that of the main file, as in nginx.
    base: PathBuf,
    /// The files being read, outermost first.
    chain: Vec<FileId>,
    /// How many blocks are open around the directives in hand, over all files of the chain.
    depth: usize,
    out: Parsed,
}

impl<'a> Loader<'a> {
    fn new(files: &'a dyn Files, base: PathBuf) -> Self {
        let out = Parsed {
            sources: SourceMap::default(),
            directives: Vec::new(),
            report: Report::default(),
            includes: Vec::new(),
            balanced: true,
        };
        Self { files, base, chain: Vec::new(), depth: 0, out }
    }

    /// Reads a file, each only once; a problem is reported at `from`, the argument of the `include`.
    fn open(&mut self, path: &Path, from: Option<Span>) -> Option<FileId> {
        if let Some(file) = self.out.sources.find(path) {
            return Some(file);
        }
        match self.files.read(path) {
            Ok(bytes) => {
                let file = self.out.sources.add(path, Origin::File, bytes);
                if self.begins_with_mark(file) {
                    self.tell_of_mark(file, from.is_none());
                }
                Some(file)
            }
            Err(error) => {
                let problem = Diagnostic::error(open_failed(path, &error));
                self.out.report.push(match from {
                    Some(span) => problem.at(span, "included here"),
                    None => problem,
                });
                None
            }
        }
    }

    fn begins_with_mark(&self, file: FileId) -> bool {
        let source = self.out.sources.file(file);
        source.origin() == Origin::File && source.bytes().starts_with(MARK)
    }

    /// nginx takes a byte order mark as the beginning of the first word. In an included file, say one of `types`, it
    /// may pass there, and so it does with us, but nobody wants that. In the main file it never passes; all the rest
    /// is then read without it, for that is the one mistake.
    fn tell_of_mark(&mut self, file: FileId, is_main: bool) {
        let message = "the file begins with a byte order mark";
        let (problem, label) = match is_main {
            true => (Diagnostic::error(message), ""),
            false => (Diagnostic::warning(message), "becomes a part of the first word"),
        };
        self.out.report.push(
            problem
                .at(Span::new(file, 0, MARK.len()), label)
                .help("save the file as UTF-8 without a byte order mark"),
        );
    }

    /// The directives of `file` and of everything it includes.
    fn load(&mut self, file: FileId) -> Vec<Directive> {
        let skipped = self.chain.is_empty() && self.begins_with_mark(file);
        let skipped = if skipped { MARK.len() } else { 0 };
        let tree = parse_file(file, self.out.sources.file(file), skipped);
        self.out.report.append(tree.report);
        self.out.balanced &= tree.balanced;
        self.chain.push(file);
        let directives = self.expand(tree.directives);
        self.chain.pop();
        directives
    }

    /// Puts the included directives in place of each `include`, in blocks too.
    fn expand(&mut self, mut directives: Vec<Directive>) -> Vec<Directive> {
        // Few blocks include anything.
        if !directives.iter().any(|directive| directive.is("include")) {
            directives.iter_mut().for_each(|directive| self.expand_block(directive));
            return directives;
        }
        let mut expanded = Vec::with_capacity(directives.len());
        for mut directive in directives {
            if directive.is("include") {
                expanded.append(&mut self.include(&directive));
            } else {
                self.expand_block(&mut directive);
                expanded.push(directive);
            }
        }
        expanded
    }

    /// Whoever walks the tree may call itself for each block: no tree is deeper than [`MAX_BLOCK_DEPTH`].
    fn expand_block(&mut self, directive: &mut Directive) {
        let Some(block) = &mut directive.block else { return };
        let directives = std::mem::take(&mut block.directives);
        if self.depth == MAX_BLOCK_DEPTH {
            return self.refuse(too_deep(), block.span);
        }
        self.depth += 1;
        block.directives = self.expand(directives);
        self.depth -= 1;
    }

    /// The directives that an `include` stands for.
    fn include(&mut self, directive: &Directive) -> Vec<Directive> {
        // Its words may be those of the next directive. The parser has said so; that a file of such
        // a name is missing would be one complaint too many.
        if directive.repaired {
            return Vec::new();
        }
        if let Some(problem) = misused_include(directive) {
            self.out.report.push(problem);
            return Vec::new();
        }
        // There is exactly one, or it would have been misused.
        let argument = &directive.args[0];
        let target = self.base.join(path_of(&argument.value));
        let pattern = target.as_os_str().as_encoded_bytes();
        let paths = if is_mask(pattern) { glob(self.files, pattern) } else { vec![target] };
        let mut included = Vec::new();
        for path in paths {
            if let Some(file) = self.open_include(&path, argument.span) {
                self.out.includes.push(Include { span: directive.span, file });
                included.append(&mut self.load(file));
            }
        }
        included
    }

    fn open_include(&mut self, path: &Path, from: Span) -> Option<FileId> {
        let known = self.out.sources.find(path);
        if let Some(start) = self.chain.iter().position(|&open| Some(open) == known) {
            let cycle = self.chain[start..].iter().chain(&self.chain[start..=start]);
            self.refuse(format!("include cycle: {}", self.names(cycle)), from);
            return None;
        }
        // The main file is the first of the chain, and no include.
        if self.chain.len() > MAX_INCLUDE_DEPTH {
            let names = self.names(&self.chain);
            self.refuse(format!("includes nest more than {MAX_INCLUDE_DEPTH} deep: {names}"), from);
            return None;
        }
        if self.out.includes.len() == MAX_INCLUDES {
            self.refuse(format!("more than {MAX_INCLUDES} files are included"), from);
            return None;
        }
        self.open(path, Some(from))
    }

    fn refuse(&mut self, message: String, at: Span) {
        self.out.report.push(Diagnostic::error(message).at(at, ""));
    }

    fn names<'f>(&self, files: impl IntoIterator<Item = &'f FileId>) -> String {
        let paths = files.into_iter().map(|&file| self.out.sources.file(file).path());
        let names: Vec<_> = paths.map(|path| format!("\"{}\"", path.display())).collect();
        names.join(" includes ")
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// nginx's words for a file that cannot be read: `open() "PATH" failed (2: No such file or directory)`.
fn open_failed(path: &Path, error: &io::Error) -> String {
    // A directory can be opened; it is the first read that fails, and nginx names that call.
    let call = if error.kind() == io::ErrorKind::IsADirectory { "pread" } else { "open" };
    let text = error.to_string();
    let reason = match error.raw_os_error() {
        Some(code) => {
            let words = text.strip_suffix(&format!(" (os error {code})"));
            format!("{code}: {}", words.unwrap_or(&text))
        }
        None => text,
    };
    format!("{call}() \"{}\" failed ({reason})", printable(path.as_os_str().as_encoded_bytes()))
}

fn misused_include(directive: &Directive) -> Option<Diagnostic> {
    let message = if directive.block.is_some() {
        "directive \"include\" is not terminated by \";\""
    } else if directive.args.len() != 1 {
        "invalid number of arguments in \"include\" directive"
    } else {
        return None;
    };
    Some(Diagnostic::error(message).at(directive.head(), "takes one file name or mask"))
}

#[cfg(test)]
mod tests;
