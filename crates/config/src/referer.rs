//! `valid_referers`: from which pages requests may come.

use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word, printable};

use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, L, S};
use crate::hosts::{HostPattern, HostTable};
use crate::read::{Reading, Reads, compile};
use crate::regex::Regex;
use crate::scope::Scope;
use crate::server_name::SERVER_NAME;
use crate::template::VariableId;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&VALID_REFERERS];

/// `valid_referers`
pub(crate) static VALID_REFERERS: Directive<Vec<Referer>> = Directive {
    name: "valid_referers",
    contexts: S | L,
    arity: AtLeast(1),
    doc: "Sets for which `Referer` headers `$invalid_referer` is empty: `none` (no header), \
          `blocked` (a header without a scheme), `server_names`, names with optional wildcards and \
          path prefixes, regular expressions.",
    ..Directive::repeated(referers)
};

/// What `valid_referers` lines say together.
#[derive(Debug)]
pub struct ValidReferers {
    /// Whether a request needs no referer.
    pub none: bool,
    /// Whether a referer may lack its scheme, as firewalls leave it.
    pub blocked: bool,
    /// Host names, each with what the path must begin with.
    pub names: HostTable<Option<Box<[u8]>>>,
    /// Of `server_names`: what the host may match, in lower case.
    pub hosts: Vec<Regex>,
    /// What the referer may match, without its scheme.
    pub urls: Vec<Regex>,
}

/// One parameter.
#[derive(Clone)]
pub(crate) enum Referer {
    None,
    Blocked,
    ServerNames,
    Url(Regex),
    Name(Word),
}

fn referers(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<Referer>> {
    directive.args.iter().map(referer).collect()
}

fn referer(word: &Word) -> Reads<Referer> {
    match &*word.value {
        b"" => Err(Diagnostic::error("invalid referer \"\"").at(word.span, "")),
        b"none" => Ok(Referer::None),
        b"blocked" => Ok(Referer::Blocked),
        b"server_names" => Ok(Referer::ServerNames),
        b"~" => Err(Diagnostic::error("empty regex in \"~\"").at(word.span, "")),
        [b'~', pattern @ ..] => {
            // As in nginx named groups set no variables: only whether it matches counts.
            compile(pattern, true, word.span, |_| VariableId(0)).map(Referer::Url)
        }
        _ => Ok(Referer::Name(word.clone())),
    }
}

/// What a level says and hands down. Its lines replace those of outer levels, but for regular expressions, which stay
/// until a level has some of its own.
pub(crate) fn valid_referers(
    reading: &mut Reading<'_>,
    scope: &Scope<'_, '_>,
    outer: Option<&Arc<ValidReferers>>,
) -> Option<Arc<ValidReferers>> {
    let Some(line) = scope.level.lines(&VALID_REFERERS).next() else { return outer.cloned() };
    let mut valid = ValidReferers {
        none: false,
        blocked: false,
        names: HostTable::default(),
        hosts: Vec::new(),
        urls: Vec::new(),
    };
    let mut server_names = false;
    let mut problems = Vec::new();
    for referer in scope.level.values(&VALID_REFERERS).flatten() {
        match referer {
            Referer::None => valid.none = true,
            Referer::Blocked => valid.blocked = true,
            Referer::ServerNames => server_names = true,
            Referer::Url(regex) => valid.urls.push(regex),
            Referer::Name(word) => {
                let slash = word.value.iter().position(|&byte| byte == b'/');
                let (name, path) = word.value.split_at(slash.unwrap_or(word.value.len()));
                let path = slash.map(|_| path.into());
                problems
                    .extend(add(&mut valid.names, name, path).map(|what| what.at(word.span, "")));
            }
        }
    }
    if server_names {
        let names = scope.all(&SERVER_NAME).concat();
        if names.is_empty() {
            valid.names.add_exact(b"", None);
        }
        for name in names {
            match name.regex {
                Some(regex) => valid.hosts.push(regex),
                None => {
                    let problem = add(&mut valid.names, &name.text.value, None);
                    problems.extend(problem.map(|what| what.at(line.directive.head(), "")));
                }
            }
        }
    }
    if (valid.none || valid.blocked) && valid.names.values().next().is_none() {
        let message = "the \"none\" or \"blocked\" referers are specified in the \
                       \"valid_referers\" directive without any valid referer";
        problems.push(Diagnostic::error(message).at(line.directive.head(), "names nobody"));
    }
    reading.report.extend(problems);
    if let Some(outer) = outer {
        if valid.urls.is_empty() {
            valid.urls.clone_from(&outer.urls);
        }
        if valid.hosts.is_empty() {
            valid.hosts.clone_from(&outer.hosts);
        }
    }
    Some(Arc::new(valid))
}

fn add(
    names: &mut HostTable<Option<Box<[u8]>>>,
    name: &[u8],
    path: Option<Box<[u8]>>,
) -> Option<Diagnostic> {
    let Some(pattern) = HostPattern::parse(name) else {
        let message = format!("invalid hostname or wildcard \"{}\"", printable(name));
        return Some(Diagnostic::error(message));
    };
    let added = names.add(pattern, path);
    (!added).then(|| Diagnostic::error(format!("conflicting parameter \"{}\"", printable(name))))
}
