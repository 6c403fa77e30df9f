//! Who may come in, as another location decides by its answer to a subrequest.

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, duplicate_variable, variable_name};
use crate::scope::Scope;
use crate::template::{Template, VariableId};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&AUTH_REQUEST, &AUTH_REQUEST_SET];

/// `auth_request`
pub(crate) static AUTH_REQUEST: Directive<Option<Box<[u8]>>> = Directive {
    name: "auth_request",
    contexts: HSL,
    arity: Exactly(1),
    default: "off",
    doc: "Authorizes requests by a subrequest to this URI, sent as a plain GET without the body. \
          Any 2xx response allows access, 401 and 403 deny it with that status, and anything else \
          is an error (500). Runs after `allow` and `deny`.",
    ..Directive::once(uri)
};

/// `auth_request_set`
pub(crate) static AUTH_REQUEST_SET: Directive<(VariableId, Template)> = Directive {
    name: "auth_request_set",
    contexts: HSL,
    arity: Exactly(2),
    doc: "Sets a variable when the subrequest of `auth_request` completes. The value can use \
          variables of its response, for example `$upstream_http_x_user`.",
    ..Directive::repeated(set)
};

/// `auth_request` and the `auth_request_set` lines that go with it.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    /// The path that is asked.
    pub uri: Box<[u8]>,
    /// Variables and what they become when the answer is there.
    pub set: Vec<(VariableId, Template)>,
}

fn uri(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Box<[u8]>>> {
    let word = &directive.args[0];
    if word.value.is_empty() {
        return Err(
            Diagnostic::error("invalid URI \"\"").at(word.span, "expected a URI of this server")
        );
    }
    Ok((!word.is("off")).then(|| word.value.clone()))
}

fn set(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<(VariableId, Template)> {
    let [name, text] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let variable = variable_name(name)?;
    let variable = reading
        .names
        .assign_later(&variable)
        .map_err(|_| duplicate_variable(&variable, name.span))?;
    Ok((variable, reading.template(text)?))
}

/// Whom to ask, and what to keep of the answer; both are inherited on their own.
pub(crate) fn auth_request(scope: &Scope<'_, '_>) -> Option<AuthRequest> {
    Some(AuthRequest { uri: scope.get(&AUTH_REQUEST)?, set: scope.all(&AUTH_REQUEST_SET) })
}
