//! `proxy_cookie_…`: what becomes of cookies.

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::Between;
use crate::directive::{HSL, Row, Value, works};
use crate::proxy::redirect::{Pattern, pattern};
use crate::read::{Reading, Reads, directive_problem, invalid_parameter};
use crate::resolve::Resolver;
use crate::scope::Scope;
use crate::template::Template;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "proxy_cookie_domain",
        HSL,
        Between(1, 2),
        "",
        "Changes the domain of cookies.",
        cookie_domain,
    )
    .many(),
    works(
        "proxy_cookie_flags",
        HSL,
        Between(1, 4),
        "",
        "Changes the flags of cookies.",
        cookie_flags,
    )
    .many(),
    works("proxy_cookie_path", HSL, Between(1, 2), "", "Changes the path of cookies.", cookie_path)
        .many(),
];

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

fn is_off(directive: &Directive) -> Result<bool, Diagnostic> {
    match &directive.args[..] {
        [word] if word.is("off") => Ok(true),
        [word] => Err(invalid_parameter(word)),
        _ => Ok(false),
    }
}

fn cookie_domain(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    if is_off(directive)? {
        return Ok(Value::new(CookieDraft::<CookieRewrite>::None));
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
    Ok(Value::new(Some(CookieRewrite { from, to })))
}

fn cookie_path(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    if is_off(directive)? {
        return Ok(Value::new(CookieDraft::<CookieRewrite>::None));
    }
    let from = pattern(reading, &directive.args[0], false)?;
    let to = reading.template(&directive.args[1])?;
    Ok(Value::new(Some(CookieRewrite { from, to })))
}

fn cookie_flags(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    if is_off(directive)? {
        return Ok(Value::new(CookieDraft::<CookieFlags>::None));
    }
    let cookie = pattern(reading, &directive.args[0], true)?;
    let flags: Result<Vec<Template>, _> =
        directive.args[1..].iter().map(|word| reading.template(word)).collect();
    Ok(Value::new(Some(CookieFlags { cookie, flags: flags? })))
}

impl Resolver<'_, '_> {
    /// The rules of a `proxy_cookie_…` directive, which `off` must be the only one of.
    pub(crate) fn cookie_rules<T: Clone + 'static>(
        &mut self,
        scope: &Scope<'_, '_>,
        name: &str,
    ) -> Vec<T> {
        let Some(found) = scope.nearest(&[name]) else {
            return Vec::new();
        };
        let drafts: Vec<CookieDraft<T>> = found.all(name);
        if drafts.len() > 1 && drafts.iter().any(Option::is_none) {
            let second = found.level.named(name).nth(1);
            let span = second.map_or(self.nowhere, |entry| entry.directive.head());
            self.error(format!("\"{name}\" directive is duplicate"), span);
        }
        drafts.into_iter().flatten().collect()
    }
}
