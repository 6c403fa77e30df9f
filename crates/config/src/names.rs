//! The variables of a configuration while it is read: every mention gets a slot, and at the end every slot must have
//! been given a meaning.

use std::borrow::Cow;
use std::collections::HashSet;

use wssgate_syntax::{Diagnostic, MAX_DIAGNOSTICS, Span, closest};

use crate::advice_kind::Advice;
use crate::misspelt::misspelt_field;
use crate::modules::variable_advice;
use crate::template::{Part, Template, VariableId};
use crate::variable::{BUILTINS, Builtin, Slot, Variable, Variables};

/// Variables and where those were mentioned that nobody has defined yet.
#[derive(Debug, Default)]
pub(crate) struct Names {
    variables: Variables,
    undefined: HashSet<VariableId>,
    /// Those that groups of regular expressions fill.
    captured: HashSet<VariableId>,
    mentions: Vec<(VariableId, Span)>,
    /// One note for each variable that is mentioned and never has a value.
    notes: Vec<Diagnostic>,
    /// Request fields that are probably others.
    misspelt: Vec<Diagnostic>,
}

/// What a name cannot become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotChangeable;

impl Names {
    /// The slot of a variable that is mentioned at `span`.
    pub(crate) fn mention(&mut self, name: &str, span: Span) -> VariableId {
        let known = self.variables.len();
        let id = self.slot(name);
        if id.0 as usize == known {
            self.note_emptiness(id, span);
            self.note_misspelling(id, span);
        }
        if self.undefined.contains(&id) {
            self.mentions.push((id, span));
        }
        id
    }

    /// Says of a variable that is new here when it has no value: to take one away in silence would mislead who logs
    /// or hashes it.
    fn note_emptiness(&mut self, id: VariableId, span: Span) {
        let slot = self.variables.slot(id);
        if let Variable::Builtin(builtin) = slot.meaning
            && let Some(reason) = builtin.always_empty()
        {
            let message = format!("\"{}\" variable is always empty: {reason}", slot.name);
            let name = format!("${}", slot.name);
            self.notes.push(Diagnostic::idle(name, message).at(span, ""));
        }
    }

    /// Says of a request field that is new here when it is probably another one that was meant.
    fn note_misspelling(&mut self, id: VariableId, span: Span) {
        let slot = self.variables.slot(id);
        if let Some(field) = slot.name.strip_prefix("http_").and_then(misspelt_field)
            && matches!(slot.meaning, Variable::RequestHeader(_))
        {
            let message = format!("\"${}\" is empty unless a client sends such a field", slot.name);
            let help = format!("did you mean `$http_{field}`?");
            let problem = Diagnostic::warning(message).at(span, "probably misspelt").help(help);
            self.misspelt.push(problem.note(Advice::MisspeltVariable.silencer()));
        }
    }

    /// What a slot stands for by now.
    pub(crate) fn slot_of(&self, id: VariableId) -> &Slot {
        self.variables.slot(id)
    }

    /// Whether a group of a regular expression fills it.
    pub(crate) fn is_captured(&self, id: VariableId) -> bool {
        self.captured.contains(&id)
    }

    /// The slot that a named group of a regular expression fills.
    ///
    /// # Errors
    /// As [`Names::assign`].
    pub(crate) fn assign_group(&mut self, name: &str) -> Result<VariableId, NotChangeable> {
        let id = self.assign(name)?;
        self.captured.insert(id);
        Ok(id)
    }

    fn slot(&mut self, name: &str) -> VariableId {
        let name = match name.contains(|character: char| character.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        if let Some(id) = self.variables.find(&name) {
            return id;
        }
        match Variable::named(&name) {
            Some(meaning) => self.variables.add(&name, meaning),
            None => {
                let id = self.variables.add(&name, Variable::Set);
                self.undefined.insert(id);
                id
            }
        }
    }

    /// The slot of a variable that a `set` or the group of a regular expression fills.
    ///
    /// # Errors
    /// When the name belongs to the program and may not be changed.
    pub(crate) fn assign(&mut self, name: &str) -> Result<VariableId, NotChangeable> {
        let id = self.slot(name);
        let changeable = match &self.variables.slot(id).meaning {
            Variable::Builtin(builtin) => {
                matches!(builtin, Builtin::Args | Builtin::InvalidReferer | Builtin::LimitRate)
            }
            // As in nginx `set $http_x` hides the field of that name where it is executed, and only there.
            _ => true,
        };
        self.undefined.remove(&id);
        if changeable { Ok(id) } else { Err(NotChangeable) }
    }

    /// The slot of a variable that gets its value from `auth_request_set`, and has none before.
    ///
    /// # Errors
    /// As [`Names::assign`].
    pub(crate) fn assign_later(&mut self, name: &str) -> Result<VariableId, NotChangeable> {
        let id = self.slot(name);
        let new = self.undefined.contains(&id);
        self.assign(name)?;
        if new {
            self.variables.define(id, Variable::SetLater);
        }
        Ok(id)
    }

    /// Gives a name the meaning of a `map`, `geo` or `split_clients` block.
    ///
    /// # Errors
    /// When the name belongs to the program.
    pub(crate) fn define(
        &mut self,
        name: &str,
        meaning: Variable,
    ) -> Result<VariableId, NotChangeable> {
        let id = self.assign(name)?;
        if matches!(self.variables.slot(id).meaning, Variable::Builtin(_)) {
            return Err(NotChangeable);
        }
        self.variables.define(id, meaning);
        Ok(id)
    }

    /// Compiles a text with variables.
    ///
    /// # Errors
    /// nginx's words for a `$` that names nothing.
    pub(crate) fn template(&mut self, text: &[u8], span: Span) -> Result<Template, Diagnostic> {
        if memchr::memchr(b'$', text).is_none() {
            return Ok(Template::text(text));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = memchr::memchr(b'$', rest) {
            parts.push(Part::Text(rest[..at].into()));
            let (part, after) = self.variable_part(&rest[at + 1..], span)?;
            parts.push(part);
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        Ok(Template::new(parts))
    }

    /// Reads what stands behind a `$` and returns what follows it.
    fn variable_part<'t>(
        &mut self,
        rest: &'t [u8],
        span: Span,
    ) -> Result<(Part, &'t [u8]), Diagnostic> {
        if let [digit @ b'1'..=b'9', after @ ..] = rest {
            return Ok((Part::Capture(digit - b'0'), after));
        }
        let (name, after) = match rest {
            [b'{', inner @ ..] => {
                let len = name_len(inner);
                match inner.get(len) {
                    Some(b'}') => (&inner[..len], &inner[len + 1..]),
                    _ => return Err(unclosed(&inner[..len], span)),
                }
            }
            _ => rest.split_at(name_len(rest)),
        };
        if name.is_empty() {
            let help = "a `$` always begins a variable; for a literal `$`, define a variable with `geo` or `map`";
            return Err(Diagnostic::error("invalid variable name")
                .at(span, "a name must follow `$`")
                .help(help));
        }
        if let [digit @ b'1'..=b'9'] = name {
            return Ok((Part::Capture(digit - b'0'), after));
        }
        let name = String::from_utf8_lossy(name);
        Ok((Part::Variable(self.mention(&name, span)), after))
    }

    /// A warning for each request field that is probably misspelt.
    pub(crate) fn misspelt(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.misspelt)
    }

    /// One problem for each mention of a variable that nothing defines, and notes about those that are always empty.
    pub(crate) fn problems(&mut self) -> Vec<Diagnostic> {
        let mut problems = std::mem::take(&mut self.notes);
        let missing = self.mentions.iter().filter(|(id, _)| self.undefined.contains(id));
        let problem = |(index, (id, span)): (usize, &(VariableId, Span))| {
            // Looking for a name that was meant takes long, and nobody reads of so many.
            self.unknown_variable(&self.variables.slot(*id).name, *span, index < MAX_DIAGNOSTICS)
        };
        problems.extend(missing.enumerate().map(problem));
        problems
    }

    fn unknown_variable(&self, name: &str, span: Span, suggest: bool) -> Diagnostic {
        let problem = Diagnostic::error(format!("unknown \"{name}\" variable"))
            .at(span, "not defined anywhere");
        if !suggest {
            return problem;
        }
        let known = BUILTINS.iter().map(|(name, ..)| *name);
        let defined = (0..self.variables.len() as u32)
            .map(VariableId)
            .filter(|id| !self.undefined.contains(id));
        let defined = defined.map(|id| &*self.variables.slot(id).name);
        let close = closest(name, known.chain(defined));
        let close = close.map(|close| format!("did you mean `${close}`?"));
        let help = variable_advice(name).map(str::to_owned).or(close);
        problem.maybe_help(help)
    }

    /// The finished table.
    pub(crate) fn into_variables(self) -> Variables {
        self.variables
    }
}

fn unclosed(name: &[u8], span: Span) -> Diagnostic {
    let name = wssgate_syntax::printable(name);
    Diagnostic::error(format!("the closing bracket in \"{name}\" variable is missing"))
        .at(span, "`}` is missing")
}

fn name_len(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}
