//! `proxy_cookie_…`: what becomes of cookies.

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::Between;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::proxy::redirect::{Pattern, pattern};
use crate::read::{Reading, Reads, directive_problem, invalid_parameter};
use crate::scope::Scope;
use crate::template::Template;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&PROXY_COOKIE_DOMAIN, &PROXY_COOKIE_FLAGS, &PROXY_COOKIE_PATH];

/// `proxy_cookie_domain`
pub(crate) static PROXY_COOKIE_DOMAIN: Directive<CookieDraft<CookieRewrite>> = Directive {
    name: "proxy_cookie_domain",
    contexts: HSL,
    arity: Between(1, 2),
    doc: "Replaces the `Domain` attribute in `Set-Cookie` headers of upstream responses.",
    ..Directive::repeated(cookie_domain)
};

/// `proxy_cookie_flags`
pub(crate) static PROXY_COOKIE_FLAGS: Directive<CookieDraft<CookieFlags>> = Directive {
    name: "proxy_cookie_flags",
    contexts: HSL,
    arity: Between(1, 4),
    doc: "Sets or removes flags in `Set-Cookie` headers of upstream responses.",
    ..Directive::repeated(cookie_flags)
};

/// `proxy_cookie_path`
pub(crate) static PROXY_COOKIE_PATH: Directive<CookieDraft<CookieRewrite>> = Directive {
    name: "proxy_cookie_path",
    contexts: HSL,
    arity: Between(1, 2),
    doc: "Replaces the `Path` attribute in `Set-Cookie` headers of upstream responses.",
    ..Directive::repeated(cookie_path)
};

/// One rule of `proxy_cookie_domain` or `proxy_cookie_path`.
#[derive(Clone, Debug)]
pub struct CookieRewrite {
    /// What is replaced.
    pub from: Pattern,
    /// By what.
    pub to: Template,
}

/// One rule of `proxy_cookie_flags`; `None` leaves a flag alone.
#[derive(Clone, Debug)]
pub struct CookieFlags {
    /// Which cookies.
    pub cookie: Pattern,
    /// The flags, e.g. `secure`, `nosamesite`, made for each request.
    pub flags: Vec<Template>,
}

/// `proxy_cookie_…`: `None` is `off`.
pub(crate) type CookieDraft<T> = Option<T>;

fn is_off(directive: &syntax::Directive) -> Result<bool, Diagnostic> {
    match &directive.args[..] {
        [word] if word.is("off") => Ok(true),
        [word] => Err(invalid_parameter(word)),
        _ => Ok(false),
    }
}

fn cookie_domain(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<CookieDraft<CookieRewrite>> {
    if is_off(directive)? {
        return Ok(CookieDraft::<CookieRewrite>::None);
    }
    let [from, to] = &directive.args[..] else {
        return Err(directive_problem(directive, &directive.args[0], "invalid value"));
    };
    // A leading dot of a domain means nothing (RFC 6265, 5.2.3).
    let without_dot = |word: &Word| {
        let value = word.value.strip_prefix(b".").unwrap_or(&word.value);
        Word { value: value.into(), span: word.span, quoted: word.quoted }
    };
    let from = pattern(reading, &without_dot(from), true)?;
    let to = match from {
        Pattern::Text(_) => reading.template(&without_dot(to))?,
        Pattern::Regex(_) => reading.template(to)?,
    };
    Ok(Some(CookieRewrite { from, to }))
}

fn cookie_path(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<CookieDraft<CookieRewrite>> {
    if is_off(directive)? {
        return Ok(CookieDraft::<CookieRewrite>::None);
    }
    let from = pattern(reading, &directive.args[0], false)?;
    let to = reading.template(&directive.args[1])?;
    Ok(Some(CookieRewrite { from, to }))
}

fn cookie_flags(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<CookieDraft<CookieFlags>> {
    if is_off(directive)? {
        return Ok(CookieDraft::<CookieFlags>::None);
    }
    let cookie = pattern(reading, &directive.args[0], true)?;
    let flags: Result<Vec<Template>, _> =
        directive.args[1..].iter().map(|word| reading.template(word)).collect();
    Ok(Some(CookieFlags { cookie, flags: flags? }))
}

/// The rules of a `proxy_cookie_…` directive, which `off` must be the only one of.
pub(crate) fn cookie_rules<T: Clone + 'static>(
    reading: &mut Reading<'_>,
    scope: &Scope<'_, '_>,
    row: &'static Directive<CookieDraft<T>>,
) -> Vec<T> {
    let Some(level) = scope.nearest(&[row]) else {
        return Vec::new();
    };
    let drafts: Vec<CookieDraft<T>> = level.values(row).collect();
    if drafts.len() > 1 && drafts.iter().any(Option::is_none) {
        let second = level.lines(row).nth(1);
        let span = second.map_or(reading.nowhere, |line| line.directive.head());
        reading.error(format!("\"{}\" directive is duplicate", row.name), span);
    }
    drafts.into_iter().flatten().collect()
}
