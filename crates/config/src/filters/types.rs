//! Which MIME types a filter works on.

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Directive;
use crate::read::{Reading, Reads};
use crate::scope::Scope;

/// A set of MIME types: a list, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeSet {
    any: bool,
    /// In lower case.
    listed: Vec<Box<[u8]>>,
}

impl TypeSet {
    /// Whether an answer of this type, without its charset, is among them. As in nginx one with other
    /// parameters is another type.
    pub fn covers(&self, media_type: Option<&[u8]>) -> bool {
        let is_listed =
            |found: &[u8]| self.listed.iter().any(|one| one.eq_ignore_ascii_case(found));
        self.any || media_type.is_some_and(is_listed)
    }

    fn add(&mut self, other: &Self) {
        self.any |= other.any;
        self.listed.extend(other.listed.iter().cloned());
    }
}

/// Reads `…_types`; `*` stands for all of them.
pub(crate) fn types(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<TypeSet> {
    let mut set = TypeSet::default();
    for word in &directive.args {
        if word.is("*") {
            set.any = true;
            continue;
        }
        let name: Box<[u8]> = word.value.to_ascii_lowercase().into();
        if set.listed.contains(&name) {
            let problem = Diagnostic::warning(format!("duplicate MIME type \"{word}\""));
            reading.report.push(problem.at(word.span, ""));
            continue;
        }
        set.listed.push(name);
    }
    Ok(set)
}

/// The types in force: those of the innermost level that lists any, and `text/html` in any case.
pub(crate) fn in_force(scope: &Scope<'_, '_>, row: &'static Directive<TypeSet>) -> TypeSet {
    let mut set = TypeSet { any: false, listed: vec![b"text/html".as_slice().into()] };
    scope.all(row).iter().for_each(|own| set.add(own));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_with_parameters_is_another_one() {
        let set = TypeSet { any: false, listed: vec![b"text/html".as_slice().into()] };
        for (text, expected) in [
            (Some("text/html"), true),
            (Some("Text/HTML"), true),
            (Some("text/html; profile=x"), false),
            (Some("text/html5"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(set.covers(text.map(str::as_bytes)), expected, "{text:?}");
        }
        assert!(TypeSet { any: true, listed: Vec::new() }.covers(None));
    }
}
