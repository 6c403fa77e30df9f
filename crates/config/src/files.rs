//! Files: where they lie, which stand for directories, and their types.

use std::collections::HashMap;
use std::sync::Arc;

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{Braces, HSL, HSLI, L, Row, S, Value, works};
use crate::draft::Entry;
use crate::location::{LocationKind, Place};
use crate::read::{Reading, Reads, text};
use crate::resolve::Resolver;
use crate::scope::Scope;
use crate::template::Template;
use crate::value;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("alias", L, Exactly(1), "", "Replaces the location's prefix by a directory.", root),
    works(
        "default_type",
        HSL,
        Exactly(1),
        "text/plain",
        "The MIME type of files without a known extension.",
        text,
    ),
    works("index", HSL, AtLeast(1), "index.html", "Files that stand for a directory.", index)
        .many(),
    works("root", HSLI, Exactly(1), "html", "The directory that paths are looked up in.", root),
    works("try_files", S | L, AtLeast(2), "", "Takes the first file that exists.", try_files),
    works(
        "types",
        HSL,
        Exactly(0),
        "",
        "MIME types by file name extension; by default those of html, gif and jpeg.",
        types,
    )
    .block(Braces::Entries)
    .many(),
];

/// `root PATH` or `alias PATH`.
#[derive(Clone, Debug)]
pub struct Root {
    /// The path; already relative to the prefix when it has no variables.
    pub path: Template,
    /// Whether the location's prefix is replaced (`alias`) instead of being appended to.
    pub alias: bool,
    /// The name of the location where `alias` was written, which `path` replaces; empty when that is
    /// a regular expression, whose `alias` replaces the whole path.
    pub alias_prefix: Box<[u8]>,
}

/// `try_files`.
#[derive(Clone, Debug)]
pub struct TryFiles {
    /// Paths to look for, in order; `directory` when written with a final slash.
    pub candidates: Vec<TryFile>,
    /// What happens when none exists.
    pub fallback: TryFallback,
}

/// One candidate of `try_files`.
#[derive(Clone, Debug)]
pub struct TryFile {
    /// The path, without the final slash.
    pub path: Template,
    /// Whether a directory is asked for.
    pub directory: bool,
}

/// The last parameter of `try_files`.
#[derive(Clone, Debug)]
pub enum TryFallback {
    /// `=404`.
    Status(u16),
    /// A URI or `@name`.
    Uri(Template),
}

/// File name extensions in lower case and their MIME types.
pub type MimeTypes = HashMap<Box<[u8]>, Box<[u8]>>;

/// `root` and `alias`.
fn root(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    for variable in ["document_root", "realpath_root"] {
        let text = word.to_str_lossy();
        if text.contains(&format!("${variable}")) || text.contains(&format!("${{{variable}}}")) {
            let message = format!(
                "the ${variable} variable cannot be used in the \"{}\" directive",
                directive.name
            );
            return Err(Diagnostic::error(message).at(word.span, ""));
        }
    }
    let alias = directive.is("alias");
    let mut word = word.clone();
    if !alias && let Some(shorter) = word.value.strip_suffix(b"/") {
        word.value = shorter.into();
    }
    // `root /` has become the empty text, which stands for the root directory.
    let path = if word.value.is_empty() && !directive.args[0].value.is_empty() {
        Template::default()
    } else {
        reading.path_template(&word)?
    };
    // Where it was written is known when locations are resolved.
    Ok(Value::new(Root { path, alias, alias_prefix: Box::default() }))
}

fn index(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut files = Vec::new();
    for (at, word) in directive.args.iter().enumerate() {
        let absolute = word.value.first() == Some(&b'/');
        if absolute && at + 1 != directive.args.len() {
            let message = "only the last index in \"index\" directive should be absolute";
            reading.report.push(Diagnostic::warning(message).at(word.span, ""));
        }
        if word.value.is_empty() {
            let message = format!("index \"{word}\" in \"index\" directive is invalid");
            return Err(Diagnostic::error(message).at(word.span, ""));
        }
        files.push(reading.template(word)?);
    }
    Ok(Value::new(files))
}

fn try_files(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let [paths @ .., last] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let fallback = match &*last.value {
        [b'=', code @ ..] => match value::number(code)
            .and_then(|code| u16::try_from(code).ok())
            .filter(|code| *code < 1000)
        {
            Some(status) => TryFallback::Status(status),
            None => {
                return Err(Diagnostic::error(format!("invalid code \"{last}\"")).at(last.span, ""));
            }
        },
        _ => TryFallback::Uri(reading.template(last)?),
    };
    let candidates: Result<Vec<TryFile>, _> =
        paths.iter().map(|word| try_file(reading, word)).collect();
    Ok(Value::new(TryFiles { candidates: candidates?, fallback }))
}

fn try_file(reading: &mut Reading<'_>, word: &Word) -> Result<TryFile, Diagnostic> {
    let directory = word.value.ends_with(b"/");
    let path = &word.value[..word.value.len() - usize::from(directory)];
    Ok(TryFile { path: reading.names.template(path, word.span)?, directory })
}

fn types(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut types = MimeTypes::new();
    for entry in directive.block.iter().flat_map(|block| &block.directives) {
        if entry.name.is("include") {
            continue;
        }
        for extension in &entry.args {
            let known =
                types.insert(extension.value.to_ascii_lowercase().into(), entry.name.value.clone());
            if let Some(old) = known {
                let message = format!(
                    "duplicate extension \"{extension}\", content type: \"{}\", previous content type: \"{}\"",
                    entry.name,
                    wssgate_syntax::printable(&old)
                );
                reading.report.push(Diagnostic::warning(message).at(extension.span, ""));
            }
        }
    }
    Ok(Value::new(types))
}

impl Resolver<'_, '_> {
    /// `root` or `alias` of this level.
    pub(crate) fn root(&mut self, scope: &Scope<'_, '_>, place: &Place) -> Option<Root> {
        let level = scope.level;
        let mut said =
            level.entries().iter().filter(|entry| matches!(entry.row.name, "root" | "alias"));
        let first = said.next()?;
        if let Some(second) = said.next() {
            let message = format!(
                "\"{}\" directive is duplicate, \"{}\" directive was specified earlier",
                second.row.name, first.row.name
            );
            self.error(message, second.directive.head());
        }
        if first.row.name == "alias" && place.kind == LocationKind::Named {
            let message = "the \"alias\" directive cannot be used inside the named location";
            self.error(message, first.directive.head());
        }
        let mut root: Root = first.value()?;
        if root.alias && place.kind != LocationKind::Regex {
            root.alias_prefix = place.name.clone();
        }
        Some(root)
    }
}

/// The `types` blocks of this level together.
pub(crate) fn types_of_level(scope: &Scope<'_, '_>) -> Option<Arc<MimeTypes>> {
    if !scope.level.has("types") {
        return None;
    }
    let blocks = scope.level.named("types").filter_map(Entry::value::<MimeTypes>);
    Some(Arc::new(blocks.flatten().collect()))
}
