//! Who may come in with a JSON Web Token (RFC 7519), as nginx's commercial module has it.

use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{AtLeast, Between, Exactly};
use crate::directive::{AnyDirective, Directive, H, HSL, X};
use crate::read::{
    Reading, Reads, duplicate_variable, duration, invalid_parameter, invalid_value, parameter,
    template, variable_name,
};
use crate::scope::Scope;
use crate::template::{Part, Template, VariableId};
use crate::value::Located;
use crate::variable::{ClaimPath, Variable};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &AUTH_JWT,
    &AUTH_JWT_CLAIM_SET,
    &AUTH_JWT_HEADER_SET,
    &AUTH_JWT_KEY_CACHE,
    &AUTH_JWT_KEY_FILE,
    &AUTH_JWT_KEY_REQUEST,
    &AUTH_JWT_LEEWAY,
    &AUTH_JWT_REQUIRE,
    &AUTH_JWT_TYPE,
];

/// `auth_jwt`
pub(crate) static AUTH_JWT: Directive<Option<JwtRealm>> = Directive {
    name: "auth_jwt",
    contexts: HSL | X,
    arity: Between(1, 2),
    default: "off",
    doc: "Requires a valid JSON Web Token, with this realm. The token is taken from \
          `Authorization: Bearer`, or from the variable in `token=`: `$cookie_NAME`, `$arg_NAME`, \
          or `$websocket_protocol_NAME` for browsers, whose WebSockets can send no other header. \
          Tokens may be signed with HS256, HS384, HS512, RS256 to RS512, PS256 to PS512, ES256, \
          ES384 or EdDSA (Ed25519); the type of the key determines which of them are accepted. \
          `exp` and `nbf` are checked if present. In log lines of the request `***` replaces the \
          token.",
    ..Directive::once(realm)
};

/// `auth_jwt_claim_set`
pub(crate) static AUTH_JWT_CLAIM_SET: Directive<VariableId> = Directive {
    name: "auth_jwt_claim_set",
    contexts: H,
    arity: AtLeast(2),
    doc: "Creates a variable with the value of a claim, given by its name, preceded by the names \
          of the enclosing objects if it is nested. The elements of an array are joined by commas.",
    ..Directive::repeated(claim_set)
};

/// `auth_jwt_header_set`
pub(crate) static AUTH_JWT_HEADER_SET: Directive<VariableId> = Directive {
    name: "auth_jwt_header_set",
    contexts: H,
    arity: AtLeast(2),
    doc: "Creates a variable with the value of a header parameter of the token, as \
          `auth_jwt_claim_set` does with claims.",
    ..Directive::repeated(header_set)
};

/// `auth_jwt_key_cache`
pub(crate) static AUTH_JWT_KEY_CACHE: Directive<Duration> = Directive {
    name: "auth_jwt_key_cache",
    contexts: HSL,
    arity: Exactly(1),
    default: "0",
    doc: "Caches keys for this time, unless their source is given with variables. A token with an \
          unknown key ID causes them to be fetched again, at most once in ten seconds. While a \
          source fails, its keys are used for as long again.",
    ..Directive::once(duration)
};

/// `auth_jwt_key_file`
pub(crate) static AUTH_JWT_KEY_FILE: Directive<Template> = Directive {
    name: "auth_jwt_key_file",
    contexts: HSL | X,
    arity: Exactly(1),
    doc: "Reads keys from a file with a JSON Web Key Set or a single key (RFC 7517); a changed file \
          is read again. Relative to the directory of the configuration file.",
    ..Directive::repeated(template)
};

/// `auth_jwt_key_request`
pub(crate) static AUTH_JWT_KEY_REQUEST: Directive<Template> = Directive {
    name: "auth_jwt_key_request",
    contexts: HSL | X,
    arity: Exactly(1),
    doc: "Fetches keys by a subrequest to this URI, whose response must have status 200 and a JSON \
          Web Key Set of at most 256k. No client headers are passed on with it. Use \
          `auth_jwt_key_cache`, or every request fetches them.",
    ..Directive::repeated(template)
};

/// `auth_jwt_leeway`
pub(crate) static AUTH_JWT_LEEWAY: Directive<Duration> = Directive {
    name: "auth_jwt_leeway",
    contexts: HSL,
    arity: Exactly(1),
    default: "0s",
    doc: "Sets by how much the clock of the token issuer may differ, for `exp` and `nbf`.",
    ..Directive::once(duration)
};

/// `auth_jwt_require`
pub(crate) static AUTH_JWT_REQUIRE: Directive<JwtRequire> = Directive {
    name: "auth_jwt_require",
    contexts: HSL | X,
    arity: AtLeast(1),
    doc: "Allows access only if all of these values, which contain variables, are neither empty \
          nor \"0\"; otherwise responds with status 401, or the one in `error=401|403`.",
    ..Directive::repeated(require)
};

/// `auth_jwt_type`
pub(crate) static AUTH_JWT_TYPE: Directive<()> = Directive {
    name: "auth_jwt_type",
    contexts: HSL | X,
    arity: Exactly(1),
    default: "signed",
    doc: "Sets which tokens are expected: `signed`. Encrypted ones (`encrypted`, `nested`) are not \
          supported.",
    ..Directive::once(token_type)
};

/// `auth_jwt` that is not off.
#[derive(Clone)]
pub(crate) struct JwtRealm {
    realm: Template,
    token: Option<VariableId>,
}

/// `auth_jwt` with everything that goes with it.
#[derive(Clone, Debug)]
pub struct AuthJwt {
    /// The realm; `off` asks nobody.
    pub realm: Template,
    /// The variable that has the token; `Authorization: Bearer` without.
    pub token: Option<VariableId>,
    /// Where keys come from.
    pub keys: Vec<JwtKeys>,
    /// Where relative paths of files begin.
    pub directory: PathBuf,
    /// `auth_jwt_key_cache`; zero keeps nothing.
    pub key_cache: Duration,
    /// `auth_jwt_leeway`.
    pub leeway: Duration,
    /// `auth_jwt_require` lines.
    pub require: Vec<JwtRequire>,
}

/// A source of keys.
#[derive(Clone, Debug)]
pub enum JwtKeys {
    /// `auth_jwt_key_file`.
    File(Located<Template>),
    /// `auth_jwt_key_request`.
    Request(Template),
}

/// An `auth_jwt_require` line.
#[derive(Clone, Debug)]
pub struct JwtRequire {
    /// What must be neither empty nor "0".
    pub values: Vec<Template>,
    /// The status otherwise: 401 or 403.
    pub status: u16,
}

fn realm(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<JwtRealm>> {
    let token = match directive.args.get(1) {
        None => None,
        Some(word) => {
            let text = parameter(word, "token=").ok_or_else(|| invalid_parameter(word))?;
            let template = reading.names.template(text, word.span)?;
            match template.parts() {
                [Part::Variable(id)] => Some(*id),
                _ => return Err(invalid_parameter(word).help("`token=` takes one variable")),
            }
        }
    };
    if directive.args[0].is("off") && token.is_none() {
        return Ok(None);
    }
    Ok(Some(JwtRealm { realm: reading.template(&directive.args[0])?, token }))
}

fn claim_set(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<VariableId> {
    define(reading, directive, Variable::JwtClaim)
}

fn header_set(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<VariableId> {
    define(reading, directive, Variable::JwtHeader)
}

fn define(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    meaning: fn(ClaimPath) -> Variable,
) -> Reads<VariableId> {
    let word = &directive.args[0];
    let name = variable_name(word)?;
    let path = directive.args[1..].iter().map(|word| word.value.clone()).collect();
    reading.names.define(&name, meaning(path)).map_err(|_| duplicate_variable(&name, word.span))
}

fn require(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<JwtRequire> {
    let mut line = JwtRequire { values: Vec::new(), status: 401 };
    for word in &directive.args {
        match parameter(word, "error=") {
            Some(b"401") => line.status = 401,
            Some(b"403") => line.status = 403,
            Some(_) => return Err(invalid_parameter(word).help("`error=` takes 401 or 403")),
            None if word.value.starts_with(b"$") => line.values.push(reading.template(word)?),
            None => {
                return Err(invalid_parameter(word).help("a value must begin with a variable"));
            }
        }
    }
    match line.values.is_empty() {
        false => Ok(line),
        true => {
            let message = "\"auth_jwt_require\" directive requires a value";
            Err(Diagnostic::error(message).at(directive.head(), "e.g. a `map` of a claim"))
        }
    }
}

fn token_type(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<()> {
    let word = &directive.args[0];
    match &*word.value {
        b"signed" => Ok(()),
        b"encrypted" | b"nested" => {
            let message = format!("\"{word}\" tokens are not supported in \"auth_jwt_type\"");
            Err(Diagnostic::error(message)
                .at(word.span, "only `signed` ones can be checked")
                .help("decrypt tokens in the app server, or ask it with `auth_request`"))
        }
        _ => Err(invalid_value(word).help("expected `signed`")),
    }
}

/// What is asked, if anything is; each directive is inherited on its own, the sources of keys together.
pub(crate) fn auth_jwt(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> Option<AuthJwt> {
    // Says nothing but is checked: there is only one type.
    let () = scope.get(&AUTH_JWT_TYPE);
    let JwtRealm { realm, token } = scope.get(&AUTH_JWT)?;
    let keys = keys(scope);
    if keys.is_empty() {
        refuse_without_keys(reading, scope);
    }
    Some(AuthJwt {
        realm,
        token,
        keys,
        directory: reading.paths.conf_dir.clone(),
        key_cache: scope.get(&AUTH_JWT_KEY_CACHE),
        leeway: scope.get(&AUTH_JWT_LEEWAY),
        require: scope.all(&AUTH_JWT_REQUIRE),
    })
}

fn keys(scope: &Scope<'_, '_>) -> Vec<JwtKeys> {
    let Some(level) = scope.nearest(&[&AUTH_JWT_KEY_FILE, &AUTH_JWT_KEY_REQUEST]) else {
        return Vec::new();
    };
    let files = level.lines(&AUTH_JWT_KEY_FILE).filter_map(|line| {
        let file = Located { value: line.value?.clone(), span: line.directive.head() };
        Some(JwtKeys::File(file))
    });
    files.chain(level.values(&AUTH_JWT_KEY_REQUEST).map(JwtKeys::Request)).collect()
}

/// nginx takes the signature on trust then, which nobody can want.
fn refuse_without_keys(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) {
    if let Some(span) = scope.written_in_location(&AUTH_JWT, reading.nowhere) {
        let message =
            "\"auth_jwt\" directive requires \"auth_jwt_key_file\" or \"auth_jwt_key_request\"";
        reading.report.push(Diagnostic::error(message).at(span, "no key can verify a token"));
    }
}
