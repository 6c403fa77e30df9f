//! Locations and what answers in them.

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::{AtLeast, Between, Exactly};
use crate::directive::{Braces, Context, HSL, HSLI, L, Row, S, Value, works};
use crate::model::{
    ErrorPage, ErrorPageStatus, LocationKind, MimeTypes, Root, TryFallback, TryFile, TryFiles,
};
use crate::read::{Reading, Reads, invalid_value, present, text};
use crate::regex::Regex;
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
    works("empty_gif", L, Exactly(0), "", "Answers with a transparent pixel.", present),
    works("error_page", HSLI, AtLeast(2), "", "Answers errors with another page.", error_page)
        .many(),
    works("index", HSL, AtLeast(1), "index.html", "Files that stand for a directory.", index)
        .many(),
    works(
        "internal",
        L,
        Exactly(0),
        "",
        "Answers only requests that were redirected inside.",
        present,
    ),
    works(
        "limit_except",
        L,
        AtLeast(1),
        "",
        "Holds what applies to all but these methods.",
        limit_except,
    )
    .block(Braces::Level(Context::LimitExcept)),
    works("location", S | L, Between(1, 2), "", "Holds what applies to some paths.", location)
        .block(Braces::Level(Context::Location))
        .many(),
    works("root", HSLI, Exactly(1), "html", "The directory that paths are looked up in.", root),
    works("stub_status", S | L, Between(0, 1), "", "Answers with a few counters.", present),
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

/// The arguments of `location`.
#[derive(Clone)]
pub(crate) struct LocationName {
    pub(crate) kind: LocationKind,
    /// Without its modifier.
    pub(crate) name: Box<[u8]>,
    /// The expression of `~` and `~*`.
    pub(crate) regex: Option<Regex>,
}

fn location(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let (modifier, name): (&[u8], &[u8]) = match &directive.args[..] {
        [modifier, name] => (&modifier.value, &name.value),
        [word] => split_modifier(&word.value),
        _ => unreachable!("the row asks for one or two arguments"),
    };
    let span = directive.args[directive.args.len() - 1].span;
    let kind = match modifier {
        b"" if name.starts_with(b"@") && directive.args.len() == 1 => LocationKind::Named,
        b"" if directive.args.len() == 1 => LocationKind::Prefix,
        b"=" => LocationKind::Exact,
        b"^~" => LocationKind::PrefixFinal,
        b"~" | b"~*" => LocationKind::Regex,
        _ => {
            let word = &directive.args[0];
            let problem = Diagnostic::error(format!("invalid location modifier \"{word}\""));
            return Err(problem.at(word.span, "one of `=`, `~`, `~*`, `^~`"));
        }
    };
    let regex = match kind {
        LocationKind::Regex => Some(reading.regex(name, modifier == b"~*", span)?),
        _ => None,
    };
    Ok(Value::new(LocationName { kind, name: name.into(), regex }))
}

/// `location =/path` and the like: the modifier may stick to the name.
fn split_modifier(text: &[u8]) -> (&[u8], &[u8]) {
    match text {
        [b'=', name @ ..] => (b"=", name),
        [b'^', b'~', name @ ..] => (b"^~", name),
        [b'~', b'*', name @ ..] => (b"~*", name),
        [b'~', name @ ..] => (b"~", name),
        name => (b"", name),
    }
}

/// The methods that `limit_except` knows.
const METHODS: [&str; 15] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "CONNECT",
];

fn limit_except(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut methods: Vec<Box<[u8]>> = Vec::new();
    for word in &directive.args {
        let Some(method) =
            METHODS.iter().find(|method| word.value.eq_ignore_ascii_case(method.as_bytes()))
        else {
            return Err(Diagnostic::error(format!("invalid method \"{word}\"")).at(word.span, ""));
        };
        methods.push(method.as_bytes().into());
        if *method == "GET" {
            methods.push(b"HEAD".as_slice().into());
        }
    }
    Ok(Value::new(methods))
}

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

fn error_page(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let [codes @ .., uri] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let (codes, response) = match codes {
        [codes @ .., word] if word.value.first() == Some(&b'=') => {
            if codes.is_empty() {
                return Err(invalid_value(word));
            }
            (codes, page_status(word)?)
        }
        codes => (codes, ErrorPageStatus::Original),
    };
    let statuses: Result<Vec<u16>, _> = codes.iter().map(page_code).collect();
    Ok(Value::new(ErrorPage { statuses: statuses?, response, uri: reading.template(uri)? }))
}

fn page_status(word: &Word) -> Result<ErrorPageStatus, Diagnostic> {
    match &word.value[1..] {
        b"" => Ok(ErrorPageStatus::OfPage),
        text => match value::number(text).and_then(|status| u16::try_from(status).ok()) {
            Some(status) => Ok(ErrorPageStatus::Fixed(status)),
            None => Err(invalid_value(word)),
        },
    }
}

fn page_code(word: &Word) -> Result<u16, Diagnostic> {
    match value::number(&word.value) {
        None | Some(499) => Err(invalid_value(word)),
        Some(status @ 300..=599) => Ok(status as u16),
        Some(_) => {
            let message = format!("value \"{word}\" must be between 300 and 599");
            Err(Diagnostic::error(message).at(word.span, ""))
        }
    }
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
