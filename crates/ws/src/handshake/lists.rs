//! Field values that are comma-separated lists (RFC 9110 §5.6.1).

/// `value` without the optional whitespace around it.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    let is_content = |b: &u8| !matches!(b, b' ' | b'\t');
    let start = value.iter().position(is_content).unwrap_or(value.len());
    let end = value.iter().rposition(is_content).map_or(start, |last| last + 1);
    &value[start..end]
}

/// The elements of a list; empty ones do not count.
///
/// A comma inside a quoted string separates nothing.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |&byte| {
            let plain = !std::mem::take(&mut escaped);
            match byte {
                b'\\' if quoted && plain => escaped = true,
                b'"' if plain => quoted = !quoted,
                b',' => return !quoted,
                _ => {}
            }
            false
        })
        .map(trimmed)
        .filter(|element| !element.is_empty())
}

/// Whether the list holds `token`, in any case.
pub(super) fn has_token(value: &[u8], token: &str) -> bool {
    elements(value).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// The names of the extensions in a `Sec-WebSocket-Extensions` (RFC 6455 §9.1), without parameters.
pub(super) fn extension_names(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    elements(value)
        .map(|element| element.split(|&byte| byte == b';').next().map_or(element, trimmed))
}

/// The value of a `Sec-WebSocket-Extensions` (RFC 6455 §9.1) with those extensions alone whose names are wanted; `None`
/// if all of them are.
pub fn only_extensions(value: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let named = || elements(value).zip(extension_names(value));
    if named().all(|(_, name)| is_wanted(name)) {
        return None;
    }
    let wanted: Vec<_> = named().filter(|(_, name)| is_wanted(name)).map(|(all, _)| all).collect();
    Some(wanted.join(&b", "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_separate_except_in_quoted_strings() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" , ,\t", &[]),
            ("a", &["a"]),
            (" a ,b\t,, c", &["a", "b", "c"]),
            (r#"x; p="1,2", y"#, &[r#"x; p="1,2""#, "y"]),
            (r#"x; p="\",", y"#, &[r#"x; p="\",""#, "y"]),
            (r#"x; p="open, y"#, &[r#"x; p="open, y"#]),
        ];
        for (value, expected) in cases {
            let found: Vec<_> = elements(value.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|e| e.as_bytes()).collect();
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn extensions_are_taken_out_with_their_parameters() {
        for (value, expected) in [
            ("permessage-deflate; client_max_window_bits", None),
            ("x-a; p=\"1, permessage-deflate\", permessage-deflate", Some("permessage-deflate")),
            (
                "permessage-deflate; a, x, Permessage-Deflate; b",
                Some("permessage-deflate; a, Permessage-Deflate; b"),
            ),
            ("x", Some("")),
            ("", None),
        ] {
            let only = only_extensions(value.as_bytes(), |name| {
                name.eq_ignore_ascii_case(b"permessage-deflate")
            });
            assert_eq!(only.as_deref(), expected.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn an_extension_is_named_without_its_parameters() {
        let value = b"permessage-deflate; client_max_window_bits, foo ;a=1";
        let names: Vec<_> = extension_names(value).collect();
        assert_eq!(names, [&b"permessage-deflate"[..], b"foo"]);
    }
}
