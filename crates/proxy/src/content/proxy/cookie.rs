//! `Set-Cookie` taken apart and put together again, for the `proxy_cookie_*` directives.

use bytes::Bytes;

/// The value of a `Set-Cookie` field: the cookie itself, then its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetCookie {
    /// The cookie's name and value; a value it must have.
    pub(crate) name: Bytes,
    value: Bytes,
    attributes: Vec<(Bytes, Option<Bytes>)>,
}

/// A word of `proxy_cookie_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    /// `secure`, `httponly`: the attribute is there.
    On(&'static str),
    /// `nosecure`, `nohttponly`, `nosamesite`: it is not.
    Off(&'static str),
    /// `samesite=…`.
    SameSite(&'static str),
}

const FLAGS: [(&str, Flag); 8] = [
    ("secure", Flag::On("Secure")),
    ("nosecure", Flag::Off("Secure")),
    ("httponly", Flag::On("HttpOnly")),
    ("nohttponly", Flag::Off("HttpOnly")),
    ("samesite=strict", Flag::SameSite("Strict")),
    ("samesite=lax", Flag::SameSite("Lax")),
    ("samesite=none", Flag::SameSite("None")),
    ("nosamesite", Flag::Off("SameSite")),
];

impl SetCookie {
    /// Reads the value of a field; `None` if it has no `name=value`.
    pub(crate) fn parse(field: &Bytes) -> Option<Self> {
        let mut pieces = field.split(|byte| *byte == b';').map(|piece| {
            let (name, value) = match memchr::memchr(b'=', piece) {
                Some(at) => (&piece[..at], Some(&piece[at + 1..])),
                None => (piece, None),
            };
            (field.slice_ref(trim(name)), value.map(|value| field.slice_ref(trim(value))))
        });
        let (name, value) = pieces.next()?;
        Some(Self { name, value: value?, attributes: pieces.collect() })
    }

    /// Changes the values of all attributes called `name` that `change` gives a new value for;
    /// says whether it did.
    pub(crate) fn change(
        &mut self,
        name: &str,
        mut change: impl FnMut(&Bytes) -> Option<Bytes>,
    ) -> bool {
        let mut changed = false;
        for (other, value) in &mut self.attributes {
            if other.eq_ignore_ascii_case(name.as_bytes())
                && let Some(value) = value
                && let Some(new) = change(value)
            {
                (*value, changed) = (new, true);
            }
        }
        changed
    }

    /// Applies words of `proxy_cookie_flags`; says whether any was one.
    pub(crate) fn set_flags(&mut self, words: &[Bytes]) -> bool {
        let mut any = false;
        for (name, flag) in FLAGS {
            if words.iter().any(|word| word.eq_ignore_ascii_case(name.as_bytes())) {
                any = true;
                self.set_flag(flag);
            }
        }
        any
    }

    fn set_flag(&mut self, flag: Flag) {
        match flag {
            Flag::On(name) => self.ensure(name, None),
            Flag::Off(name) => self.attributes.retain(|(other, _)| !is(other, name)),
            Flag::SameSite(value) => self.ensure("SameSite", Some(value)),
        }
    }

    /// Leaves an attribute alone that is already as it should be, whatever its case.
    fn ensure(&mut self, name: &'static str, value: Option<&'static str>) {
        let found = self.attributes.iter_mut().find(|(other, _)| is(other, name));
        let fresh = || {
            let text = |text: &'static str| Bytes::from_static(text.as_bytes());
            (text(name), value.map(text))
        };
        match (found, value) {
            (None, _) => self.attributes.push(fresh()),
            (Some(attribute), Some(wanted)) => {
                if !attribute.1.as_ref().is_some_and(|value| is(value, wanted)) {
                    *attribute = fresh();
                }
            }
            (Some(_), None) => {}
        }
    }

    /// The value of the field.
    pub(crate) fn text(&self) -> Bytes {
        let mut text = [&self.name[..], b"=", &self.value].concat();
        for (name, value) in &self.attributes {
            text.extend_from_slice(b"; ");
            text.extend_from_slice(name);
            if let Some(value) = value {
                text.push(b'=');
                text.extend_from_slice(value);
            }
        }
        text.into()
    }
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// Without the spaces around it.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &'static str) -> SetCookie {
        SetCookie::parse(&Bytes::from_static(text.as_bytes())).unwrap()
    }

    #[test]
    fn a_cookie_needs_a_value() {
        assert_eq!(SetCookie::parse(&Bytes::from_static(b"name; Path=/")), None);
        assert_eq!(parse("a=;").text(), "a=; ");
    }

    #[test]
    fn attributes_are_put_together_with_a_semicolon_and_a_space() {
        assert_eq!(parse(" a = b=c ;Path=/ ; HttpOnly").text(), "a=b=c; Path=/; HttpOnly");
    }

    #[test]
    fn only_the_named_attribute_is_changed() {
        let mut cookie = parse("a=b; PATH=/x; domain=y; path");
        assert!(cookie.change("path", |value| Some([value, &b"/z"[..]].concat().into())));
        assert!(!cookie.change("domain", |_| None));
        assert_eq!(cookie.text(), "a=b; PATH=/x/z; domain=y; path");
    }

    #[test]
    fn flags_are_added_removed_and_corrected() {
        for (text, flags, expected) in [
            ("a=b", &["secure", "HTTPONLY"][..], "a=b; Secure; HttpOnly"),
            ("a=b; secure; X", &["secure"], "a=b; secure; X"),
            ("a=b; SECURE; HttpOnly", &["nosecure", "nohttponly"], "a=b"),
            ("a=b", &["samesite=lax"], "a=b; SameSite=Lax"),
            ("a=b; samesite=none; X", &["samesite=strict"], "a=b; SameSite=Strict; X"),
            ("a=b; samesite=STRICT", &["samesite=strict"], "a=b; samesite=STRICT"),
            ("a=b; SameSite=Lax", &["nosamesite"], "a=b"),
        ] {
            let words: Vec<Bytes> =
                flags.iter().map(|flag| Bytes::from_static(flag.as_bytes())).collect();
            let mut cookie = parse(text);
            assert!(cookie.set_flags(&words));
            assert_eq!(cookie.text(), expected, "{text} {flags:?}");
        }
        assert!(!parse("a=b").set_flags(&[Bytes::from_static(b"unknown")]));
    }
}
