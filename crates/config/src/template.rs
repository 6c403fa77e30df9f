//! Text with `$variables`, compiled once when the configuration is read.
//!
//! A template never looks a name up at run time: every variable is a slot of the [`Variables`](crate::variable::Variables)
//! table, and a request keeps one cell per slot.

/// A slot in the [`Variables`](crate::variable::Variables) table of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariableId(pub u32);

/// One piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that stands for itself.
    Text(Box<[u8]>),
    /// The value of a variable; nothing when it has none.
    Variable(VariableId),
    /// `$1` to `$9`: a group of the regular expression that matched last in this request.
    Capture(u8),
}

/// Text with variables (what nginx calls a complex value).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Part]>,
}

impl Template {
    /// Joins `parts`; neighbouring texts become one.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        let parts = parts.into_iter();
        let mut joined: Vec<Part> = Vec::with_capacity(parts.size_hint().0);
        for part in parts {
            match (joined.last_mut(), part) {
                (_, Part::Text(text)) if text.is_empty() => {}
                (Some(Part::Text(last)), Part::Text(text)) => {
                    *last = [&last[..], &text[..]].concat().into();
                }
                (_, part) => joined.push(part),
            }
        }
        Self { parts: joined.into() }
    }

    /// A template without variables.
    pub fn text(text: impl Into<Box<[u8]>>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::default() } else { Self { parts: [Part::Text(text)].into() } }
    }

    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text, when no variable is in it.
    pub fn as_text(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether the template is the empty text.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_texts_become_one() {
        let template = Template::new([
            Part::Text(b"a".as_slice().into()),
            Part::Text(b"".as_slice().into()),
            Part::Text(b"b".as_slice().into()),
        ]);
        assert_eq!(template.as_text(), Some(b"ab".as_slice()));
        assert_eq!(template.parts().len(), 1);
    }

    #[test]
    fn a_variable_is_not_text() {
        let template = Template::new([Part::Variable(VariableId(0))]);
        assert_eq!(template.as_text(), None);
        assert!(!template.is_empty());
        assert!(Template::text(*b"").is_empty());
    }
}
