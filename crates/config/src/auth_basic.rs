//! Who may come in by name and password.

use std::path::PathBuf;

use wssgate_syntax::Diagnostic;

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Directive, HSL, X};
use crate::read::{Reading, template};
use crate::scope::Scope;
use crate::template::Template;
use crate::value::Located;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&AUTH_BASIC, &AUTH_BASIC_USER_FILE];

/// `auth_basic`
pub(crate) static AUTH_BASIC: Directive<Template> = Directive {
    name: "auth_basic",
    contexts: HSL | X,
    arity: Exactly(1),
    default: "off",
    doc: "Requires a user name and password by HTTP Basic authentication, with this realm. When a \
          client has failed 20 times without a minute's pause, its attempts are checked one per \
          second, and refused with status 429 when more than five are waiting.",
    ..Directive::once(template)
};

/// `auth_basic_user_file`
pub(crate) static AUTH_BASIC_USER_FILE: Directive<Template> = Directive {
    name: "auth_basic_user_file",
    contexts: HSL | X,
    arity: Exactly(1),
    doc: "Sets the file of user names and passwords: lines of `name:password` or \
          `name:password:comment`. Passwords are hashed with bcrypt, SHA-512 or SHA-256 crypt, MD5 \
          crypt (`$apr1$`, `$1$`) or DES crypt, or begin with `{SSHA}`, `{SHA}` or `{PLAIN}`. \
          Relative to the directory of the configuration file.",
    ..Directive::once(template)
};

/// `auth_basic` with its file.
#[derive(Clone, Debug)]
pub struct AuthBasic {
    /// The realm; `off` asks nobody.
    pub realm: Template,
    /// The path of the file.
    pub user_file: Located<Template>,
    /// Where a relative path of the file begins.
    pub directory: PathBuf,
}

/// What is asked, if both directives apply; each is inherited on its own.
pub(crate) fn auth_basic(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> Option<AuthBasic> {
    let realm = scope.get(&AUTH_BASIC);
    if realm.as_text() == Some(b"off") {
        return None;
    }
    let Some(user_file) = scope.maybe(&AUTH_BASIC_USER_FILE) else {
        warn_of_no_file(reading, scope);
        return None;
    };
    let span = scope.written_at(&AUTH_BASIC_USER_FILE, reading.nowhere).unwrap_or(reading.nowhere);
    let user_file = Located { value: user_file, span };
    Some(AuthBasic { realm, user_file, directory: reading.paths.conf_dir.clone() })
}

/// Without a file nginx lets everybody in, and so silently that few mean it.
fn warn_of_no_file(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) {
    if let Some(span) = scope.written_in_location(&AUTH_BASIC, reading.nowhere) {
        let message = "\"auth_basic\" directive protects nothing without \"auth_basic_user_file\"";
        reading.report.push(Diagnostic::warning(message).at(span, "access is not restricted"));
    }
}
