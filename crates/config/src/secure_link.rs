//! `secure_link`: links that only who knows a secret can make.

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Directive, HSL, L};
use crate::read::{Reading, template, text};
use crate::scope::Scope;
use crate::template::Template;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&SECURE_LINK, &SECURE_LINK_MD5, &SECURE_LINK_SECRET];

/// `secure_link`
pub(crate) static SECURE_LINK: Directive<Template> = Directive {
    name: "secure_link",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the checksum of a link and, after a comma, the time until which it is valid, in \
          seconds since 1970. `$secure_link` is empty if the checksum is wrong, 0 if the link has \
          expired, otherwise 1.",
    ..Directive::once(template)
};

/// `secure_link_md5`
pub(crate) static SECURE_LINK_MD5: Directive<Template> = Directive {
    name: "secure_link_md5",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the text whose MD5 checksum, in base64url, a link must have; it should contain a \
          secret.",
    ..Directive::once(template)
};

/// `secure_link_secret`
pub(crate) static SECURE_LINK_SECRET: Directive<Box<[u8]>> = Directive {
    name: "secure_link_secret",
    contexts: L,
    arity: Exactly(1),
    doc: "Sets the secret of links of the form `/prefix/checksum/link`, whose checksum is the \
          hexadecimal MD5 of link and secret. `$secure_link` is the link, or empty if the \
          checksum is wrong.",
    ..Directive::once(text)
};

/// How links are checked.
#[derive(Clone, Debug)]
pub enum SecureLink {
    /// `secure_link` and `secure_link_md5`: checksum with time, and what it is made of.
    Checksum(Template, Template),
    /// `secure_link_secret`.
    Secret(Box<[u8]>),
}

/// What each of the three lines says on a level, with what it takes over.
#[derive(Default)]
struct Lines {
    link: Option<Template>,
    md5: Option<Template>,
    secret: Option<Box<[u8]>>,
}

fn lines(scope: &Scope<'_, '_>) -> Lines {
    let level = scope.level;
    if let Some(secret) = level.last(&SECURE_LINK_SECRET).cloned() {
        return Lines { secret: Some(secret), ..Lines::default() };
    }
    let outer = scope.outer.map(lines).unwrap_or_default();
    let link = level.last(&SECURE_LINK).cloned().or(outer.link);
    let md5 = level.last(&SECURE_LINK_MD5).cloned().or(outer.md5);
    let secret = outer.secret.filter(|_| link.is_none() && md5.is_none());
    Lines { link, md5, secret }
}

/// What applies in a location.
pub(crate) fn secure_link(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> Option<SecureLink> {
    let level = scope.level;
    if let Some(line) = level.lines(&SECURE_LINK_SECRET).next()
        && (level.has(&SECURE_LINK) || level.has(&SECURE_LINK_MD5))
    {
        let message = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \
                       \"secure_link_md5\"";
        reading.error(message, line.directive.head());
    }
    match lines(scope) {
        Lines { secret: Some(secret), .. } => Some(SecureLink::Secret(secret)),
        Lines { link: Some(link), md5: Some(md5), .. } => Some(SecureLink::Checksum(link, md5)),
        _ => None,
    }
}
