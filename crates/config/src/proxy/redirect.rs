//! `proxy_redirect`: what becomes of `Location` and `Refresh`.

use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word};

use crate::directive::Arity::Between;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::proxy::pass::{self, PassDraft};
use crate::read::{Reading, Reads, invalid_parameter};
use crate::regex::Regex;
use crate::scope::Scope;
use crate::template::Template;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&PROXY_REDIRECT];

/// `proxy_redirect`
pub(crate) static PROXY_REDIRECT: Directive<RedirectDraft> = Directive {
    name: "proxy_redirect",
    contexts: HSL,
    arity: Between(1, 2),
    doc: "Replaces text in the `Location` and `Refresh` headers of upstream responses.",
    ..Directive::repeated(redirect)
};

/// One `proxy_redirect` rule.
#[derive(Clone, Debug)]
pub enum ProxyRedirect {
    /// `default`, with the texts worked out at load time: the URL of `proxy_pass` becomes the
    /// location's prefix.
    Prefix {
        /// What the `Location` must begin with.
        from: Template,
        /// What replaces it.
        to: Template,
    },
    /// `~` or `~*`.
    Regex {
        /// The expression.
        from: Regex,
        /// What replaces the match.
        to: Template,
    },
}

/// Text or regular expression.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Compared as text (with or without case, as the directive says).
    Text(Template),
    /// A regular expression.
    Regex(Regex),
}

/// `proxy_redirect`.
#[derive(Clone)]
pub(crate) enum RedirectDraft {
    Off(Span),
    Default(Span),
    Rule(ProxyRedirect),
}

fn redirect(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<RedirectDraft> {
    let draft = match &directive.args[..] {
        [word] if word.is("off") => RedirectDraft::Off(word.span),
        [word] if word.is("default") => RedirectDraft::Default(word.span),
        [word] => return Err(invalid_parameter(word)),
        [from, to] => {
            let to = reading.template(to)?;
            RedirectDraft::Rule(match pattern(reading, from, false)? {
                Pattern::Regex(from) => ProxyRedirect::Regex { from, to },
                Pattern::Text(from) => ProxyRedirect::Prefix { from, to },
            })
        }
        _ => unreachable!("the row asks for one or two arguments"),
    };
    Ok(draft)
}

/// Text, or a regular expression behind `~` (without case behind `~*`, or always when `caseless`).
pub(crate) fn pattern(
    reading: &mut Reading<'_>,
    word: &Word,
    caseless: bool,
) -> Result<Pattern, Diagnostic> {
    match &*word.value {
        [b'~', source @ ..] if caseless => {
            reading.regex(source, true, word.span).map(Pattern::Regex)
        }
        [b'~', b'*', source @ ..] => reading.regex(source, true, word.span).map(Pattern::Regex),
        [b'~', source @ ..] => reading.regex(source, false, word.span).map(Pattern::Regex),
        _ => reading.template(word).map(Pattern::Text),
    }
}

/// Rules of `proxy_redirect` on the way down: whether they apply, and those that are known.
#[derive(Clone, Default)]
pub(crate) struct Redirects {
    /// `off` was not said.
    pub(crate) on: bool,
    /// Own rules or those of an outer level, its default one too.
    pub(crate) rules: Option<Arc<[ProxyRedirect]>>,
}

impl Redirects {
    /// What applies.
    pub(crate) fn effective(&self) -> Arc<[ProxyRedirect]> {
        self.rules.clone().filter(|_| self.on).unwrap_or_default()
    }
}

/// The `proxy_redirect` rules that apply on a level, given those of the outer one; `name` is the location's.
pub(crate) fn redirects(
    reading: &mut Reading<'_>,
    scope: &Scope<'_, '_>,
    outer: &Redirects,
    name: &[u8],
) -> Redirects {
    let mut own: Vec<ProxyRedirect> = Vec::new();
    let mut off = false;
    for line in scope.level.lines(&PROXY_REDIRECT) {
        let written = line.directive;
        let duplicate = match line.value {
            Some(RedirectDraft::Off(span)) => {
                let duplicate = off || !own.is_empty();
                off = true;
                duplicate.then_some(*span)
            }
            Some(RedirectDraft::Default(span)) => {
                own.extend(explicit_default(reading, scope, written, name, *span));
                off.then_some(*span)
            }
            Some(RedirectDraft::Rule(rule)) => {
                own.push(rule.clone());
                off.then(|| written.head())
            }
            None => None,
        };
        if let Some(span) = duplicate {
            reading.error("\"proxy_redirect\" directive is duplicate", span);
        }
    }
    let said = scope.level.has(&PROXY_REDIRECT);
    let on = if said { !off } else { outer.on };
    let mut rules = (!own.is_empty()).then(|| own.into());
    if on && rules.is_none() {
        rules = outer.rules.clone().or_else(|| Some([own_default(scope, name)?].into()));
    }
    Redirects { on, rules }
}

fn explicit_default(
    reading: &mut Reading<'_>,
    scope: &Scope<'_, '_>,
    written: &syntax::Directive,
    name: &[u8],
    span: Span,
) -> Option<ProxyRedirect> {
    let pass = scope.level.lines(&pass::PROXY_PASS).next();
    let message = match pass.and_then(|pass| Some((pass.value?, pass.directive.span))) {
        Some((PassDraft::Variable(_), _)) => {
            "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables"
        }
        Some((PassDraft::Fixed { .. }, pass_span))
            if pass_span.file != written.span.file || pass_span.start < written.span.start =>
        {
            return own_default(scope, name);
        }
        _ => "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive",
    };
    reading.error(message, span);
    None
}

/// What `proxy_redirect default` means on a level that has a `proxy_pass` without variables.
fn own_default(scope: &Scope<'_, '_>, name: &[u8]) -> Option<ProxyRedirect> {
    match scope.level.last(&pass::PROXY_PASS)? {
        PassDraft::Variable(_) => None,
        PassDraft::Fixed { url, text, .. } if url.endpoint.uri.is_empty() => {
            let from = [&text[..], b"/"].concat();
            Some(ProxyRedirect::Prefix { from: Template::text(from), to: Template::text(*b"/") })
        }
        PassDraft::Fixed { text, .. } => {
            let from = Template::text(text.clone());
            Some(ProxyRedirect::Prefix { from, to: Template::text(name) })
        }
    }
}
