//! Small programs that change the path, answer at once, or choose settings.

pub(crate) mod condition;

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{AtLeast, Between, Exactly};
use crate::directive::{AnyDirective, Braces, Context, Directive, L, LI, S, SI};
use crate::level::Line;
use crate::location::{Inherited, LocationId, Locations, Resolver};
use crate::position::Position;
use crate::read::{Reading, Reads, duplicate_variable, invalid_parameter, variable_name};
use crate::regex::Regex;
use crate::rewrite::condition::{Condition, condition};
use crate::scope::Scope;
use crate::template::{Template, VariableId};
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&BREAK, &IF, &RETURN, &REWRITE, &SET];

/// `break`
pub(crate) static BREAK: Directive<RewriteOp> = Directive {
    name: "break",
    contexts: S | SI | L | LI,
    arity: Exactly(0),
    doc: "Stops processing rewrite directives and keeps the request in the current location.",
    ..Directive::repeated(|_, _| Ok(RewriteOp::Break))
};

/// `if`
pub(crate) static IF: Directive<Condition> = Directive {
    name: "if",
    contexts: S | L,
    arity: AtLeast(1),
    doc: "Applies the enclosed directives when a condition is true.",
    braces: Braces::If,
    ..Directive::repeated(condition)
};

/// `return`
pub(crate) static RETURN: Directive<RewriteOp> = Directive {
    name: "return",
    contexts: S | SI | L | LI,
    arity: Between(1, 2),
    doc: "Stops processing and returns a status code, with a text or a redirect URL.",
    ..Directive::repeated(return_)
};

/// `rewrite`
pub(crate) static REWRITE: Directive<RewriteOp> = Directive {
    name: "rewrite",
    contexts: S | SI | L | LI,
    arity: Between(2, 3),
    doc: "Rewrites the path if it matches a regular expression.",
    ..Directive::repeated(rewrite)
};

/// `set`
pub(crate) static SET: Directive<RewriteOp> = Directive {
    name: "set",
    contexts: S | SI | L | LI,
    arity: Exactly(2),
    doc: "Sets a variable.",
    ..Directive::repeated(set)
};

/// One rewrite directive, executed in order.
#[derive(Clone, Debug)]
pub enum RewriteOp {
    /// `set $variable value`.
    Set {
        /// The slot.
        variable: VariableId,
        /// The value.
        value: Template,
    },
    /// `rewrite regex replacement [flag]`.
    Rewrite(Rewrite),
    /// `return`.
    Return(Return),
    /// `break`.
    Break,
    /// `if (condition) { … }`.
    If {
        /// When to enter.
        condition: Condition,
        /// Rewrite directives of the block.
        ops: Vec<RewriteOp>,
        /// The location that applies from then on (blocks inside a location only).
        location: Option<LocationId>,
    },
}

/// `rewrite`.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// Matched against the path.
    pub regex: Regex,
    /// The new path, with the text before any `?`.
    pub replacement: Template,
    /// Arguments written in the replacement (after `?`), when there are any.
    pub args: Option<Template>,
    /// Whether the request's own arguments are appended (no trailing `?`).
    pub append_args: bool,
    /// What happens next.
    pub flag: RewriteFlag,
}

/// What follows a matching `rewrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteFlag {
    /// Go on with the next directive; then look for a location again.
    None,
    /// Stop; look for a location with the new path.
    Last,
    /// Stop; stay here.
    Break,
    /// Answer 302.
    Redirect,
    /// Answer 301.
    Permanent,
}

/// `return`.
#[derive(Clone, Debug)]
pub struct Return {
    /// The status; 444 closes the connection without an answer.
    pub status: u16,
    /// The body, or the `Location` for 301, 302, 303, 307 and 308.
    pub text: Option<Template>,
}

fn set(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<RewriteOp> {
    let [name, text] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let variable = variable_name(name)?;
    let variable =
        reading.names.assign(&variable).map_err(|_| duplicate_variable(&variable, name.span))?;
    Ok(RewriteOp::Set { variable, value: reading.template(text)? })
}

/// A text that begins like this is the target of a redirect, not a path.
fn is_redirect(text: &[u8]) -> bool {
    [b"http://".as_slice(), b"https://", b"$scheme"].iter().any(|start| text.starts_with(start))
}

fn return_(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<RewriteOp> {
    let first = &directive.args[0];
    let invalid = || {
        Diagnostic::error(format!("invalid return code \"{first}\""))
            .at(first.span, "expected a status code or URL")
    };
    let (status, text) = match value::number(&first.value) {
        Some(status @ 0..=999) => (status as u16, directive.args.get(1)),
        Some(_) => return Err(invalid()),
        None if directive.args.len() == 1 && is_redirect(&first.value) => (302, Some(first)),
        None => return Err(invalid()),
    };
    let text = text.map(|word| reading.template(word)).transpose()?;
    Ok(RewriteOp::Return(Return { status, text }))
}

fn rewrite(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<RewriteOp> {
    let (pattern, replacement) = (&directive.args[0], &directive.args[1]);
    if replacement.value.is_empty() {
        return Err(Diagnostic::error("empty replacement").at(replacement.span, ""));
    }
    let regex = reading.regex(&pattern.value, false, pattern.span)?;
    let append_args = !replacement.value.ends_with(b"?");
    let text = replacement.value.strip_suffix(b"?").unwrap_or(&replacement.value);
    let mut flag = if is_redirect(text) { RewriteFlag::Redirect } else { RewriteFlag::None };
    if let Some(word) = directive.args.get(2) {
        flag = match (&*word.value, flag) {
            // A redirect stays one: `last` and `break` only say that nothing follows, which is so anyway.
            (b"last" | b"break", RewriteFlag::Redirect) => RewriteFlag::Redirect,
            (b"last", _) => RewriteFlag::Last,
            (b"break", _) => RewriteFlag::Break,
            (b"redirect", _) => RewriteFlag::Redirect,
            (b"permanent", _) => RewriteFlag::Permanent,
            _ => return Err(invalid_parameter(word)),
        };
    }
    let redirect = matches!(flag, RewriteFlag::Redirect | RewriteFlag::Permanent);
    // In a redirect the arguments are a part of the target.
    let question = text.iter().position(|&byte| byte == b'?').filter(|_| !redirect);
    let (path, args) = match question {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let replacement_span = replacement.span;
    let replacement = reading.names.template(path, replacement_span)?;
    let args = args.map(|args| reading.names.template(args, replacement_span)).transpose()?;
    Ok(RewriteOp::Rewrite(Rewrite { regex, replacement, args, append_args, flag }))
}

impl Resolver<'_, '_> {
    /// The rewrite directives of a level in order, those inside its `if` blocks too.
    pub(crate) fn rewrite_ops(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
        position: &Position<'_>,
    ) -> Vec<RewriteOp> {
        let mut ops = Vec::new();
        for entry in scope.level.entries() {
            let plain = [&BREAK, &SET, &RETURN, &REWRITE];
            if let Some(line) = plain.iter().find_map(|row| entry.of(row)) {
                ops.extend(line.value.cloned());
            } else if let Some(line) = entry.of(&IF) {
                ops.extend(self.if_block(scope, &line, inherited, position));
            }
        }
        ops
    }

    fn if_block(
        &mut self,
        scope: &Scope<'_, '_>,
        line: &Line<'_, '_, Condition>,
        inherited: &Inherited,
        position: &Position<'_>,
    ) -> Option<RewriteOp> {
        let condition = line.value?.clone();
        let scope = scope.inner(line.level?);
        let position = position.unnamed(line.directive.head());
        let inherited = self.inheritance(&scope, inherited, &position);
        let ops = self.rewrite_ops(&scope, &inherited, &position);
        let location = (scope.level.context == Context::LocationIf)
            .then(|| self.location(&scope, inherited, &position, Locations::default(), Vec::new()));
        Some(RewriteOp::If { condition, ops, location })
    }
}
