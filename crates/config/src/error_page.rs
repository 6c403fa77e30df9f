//! Pages that stand for errors.

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::{AtLeast, Flag};
use crate::directive::{AnyDirective, Directive, HSL, HSLI};
use crate::read::{Reading, Reads, flag, invalid_value};
use crate::template::Template;
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&ERROR_PAGE, &RECURSIVE_ERROR_PAGES];

/// `error_page`
pub(crate) static ERROR_PAGE: Directive<ErrorPage> = Directive {
    name: "error_page",
    contexts: HSLI,
    arity: AtLeast(2),
    doc: "Sets the URI or named location that handles the given status codes.",
    ..Directive::repeated(error_page)
};

/// `recursive_error_pages`
pub(crate) static RECURSIVE_ERROR_PAGES: Directive<bool> = Directive {
    name: "recursive_error_pages",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Allows `error_page` to apply to error pages in turn.",
    ..Directive::once(flag)
};

/// `error_page`.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    /// For these statuses (494–499 included).
    pub statuses: Vec<u16>,
    /// How the response status is chosen.
    pub response: ErrorPageStatus,
    /// A path, `@name` or full URL.
    pub uri: Template,
}

/// The `=` parameter of `error_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorPageStatus {
    /// Not given: the original status (302 for a URL).
    Original,
    /// `=`: whatever the page answers.
    OfPage,
    /// `=200`.
    Fixed(u16),
}

fn error_page(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<ErrorPage> {
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
    Ok(ErrorPage { statuses: statuses?, response, uri: reading.template(uri)? })
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
