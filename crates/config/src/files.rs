//! Files: where they lie, which stand for directories, and their types.

use std::collections::HashMap;
use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{AnyDirective, Braces, Directive, HSL, HSLI, L, S};
use crate::position::{LocationKind, Position};
use crate::read::{Reading, Reads, text};
use crate::scope::Scope;
use crate::template::Template;
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&ALIAS, &DEFAULT_TYPE, &INDEX, &ROOT, &TRY_FILES, &TYPES];

/// `alias`
pub(crate) static ALIAS: Directive<Root> = Directive {
    name: "alias",
    contexts: L,
    arity: Exactly(1),
    doc: "Replaces the prefix of the location with a directory when files are looked up.",
    ..Directive::once(root)
};

/// `default_type`
pub(crate) static DEFAULT_TYPE: Directive<Box<[u8]>> = Directive {
    name: "default_type",
    contexts: HSL,
    arity: Exactly(1),
    default: "text/plain",
    doc: "Sets the MIME type of files whose extension is not listed in `types`.",
    ..Directive::once(text)
};

/// `index`
pub(crate) static INDEX: Directive<Vec<Template>> = Directive {
    name: "index",
    contexts: HSL,
    arity: AtLeast(1),
    default: "index.html",
    doc: "Sets the index files of a directory; they are tried in order.",
    ..Directive::repeated(index)
};

/// `root`
pub(crate) static ROOT: Directive<Root> = Directive {
    name: "root",
    contexts: HSLI,
    arity: Exactly(1),
    default: "html",
    doc: "Sets the root directory for files.",
    ..Directive::once(root)
};

/// `try_files`
pub(crate) static TRY_FILES: Directive<TryFiles> = Directive {
    name: "try_files",
    contexts: S | L,
    arity: AtLeast(2),
    doc: "Serves the first file that exists; the last argument is the URI or status code to fall \
          back to.",
    ..Directive::once(try_files)
};

/// `types`
pub(crate) static TYPES: Directive<MimeTypes> = Directive {
    name: "types",
    contexts: HSL,
    arity: Exactly(0),
    doc: "Maps file name extensions to MIME types; by default it covers html, gif and jpeg.",
    braces: Braces::Entries,
    ..Directive::repeated(types)
};

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
fn root(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Root> {
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
    Ok(Root { path, alias, alias_prefix: Box::default() })
}

fn index(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<Template>> {
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
    Ok(files)
}

fn try_files(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<TryFiles> {
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
    Ok(TryFiles { candidates: candidates?, fallback })
}

fn try_file(reading: &mut Reading<'_>, word: &Word) -> Result<TryFile, Diagnostic> {
    let directory = word.value.ends_with(b"/");
    let path = &word.value[..word.value.len() - usize::from(directory)];
    Ok(TryFile { path: reading.names.template(path, word.span)?, directory })
}

fn types(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<MimeTypes> {
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
    Ok(types)
}

/// `root` or `alias` of this level.
pub(crate) fn own_root(
    reading: &mut Reading<'_>,
    scope: &Scope<'_, '_>,
    position: &Position<'_>,
) -> Option<Root> {
    let mut said = scope.level.lines_of([&ROOT, &ALIAS]);
    let first = said.next()?;
    if let Some(second) = said.next() {
        let (second, first) = (second.directive, first.directive);
        let message = format!(
            "\"{}\" directive is duplicate, \"{}\" directive was specified earlier",
            second.name, first.name
        );
        reading.error(message, second.head());
    }
    if first.directive.is("alias") && position.kind == LocationKind::Named {
        let message = "the \"alias\" directive cannot be used inside the named location";
        reading.error(message, first.directive.head());
    }
    let mut root = first.value?.clone();
    if root.alias && position.kind != LocationKind::Regex {
        root.alias_prefix = position.name.into();
    }
    Some(root)
}

/// The `types` blocks of this level together.
pub(crate) fn types_of_level(scope: &Scope<'_, '_>) -> Option<Arc<MimeTypes>> {
    if !scope.level.has(&TYPES) {
        return None;
    }
    let blocks = scope.level.values(&TYPES);
    Some(Arc::new(blocks.flatten().collect()))
}
