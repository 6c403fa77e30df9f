//! Who may come in, as another location decides by its answer to a subrequest.

use wssgate_syntax::{Diagnostic, Directive};

use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{HSL, Row, Value, works};
use crate::read::{Reading, Reads, duplicate_variable, flag};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "auth_request",
        HSL,
        Exactly(1),
        "off",
        "Asks this URI of our own, by a plain GET without the body, whether a request is let in: yes with any 2xx, \
         no with 401 or 403, which the client then gets; anything else is 500. Runs after `allow` and `deny`.",
        uri,
    ),
    works(
        "auth_request_set",
        HSL,
        Exactly(2),
        "",
        "Gives a variable a value when the answer to `auth_request` has come; the value sees that answer, for example \
         `$upstream_http_x_user`.",
        set,
    )
    .many(),
    works(
        "log_subrequest",
        HSL,
        Flag,
        "off",
        "Writes access lines for subrequests, such as those of `auth_request`, too.",
        flag,
    ),
];

fn uri(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    if word.value.is_empty() {
        return Err(Diagnostic::error("invalid URI \"\"")
            .at(word.span, "a path of this server is expected"));
    }
    Ok(Value::new((!word.is("off")).then(|| word.value.clone())))
}

fn set(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let [name, text] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let variable = super::map::variable_name(name)?;
    let variable = reading
        .names
        .assign_later(&variable)
        .map_err(|_| duplicate_variable(&variable, name.span))?;
    Ok(Value::new((variable, reading.template(text)?)))
}
