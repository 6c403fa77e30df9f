//! Header fields: the bytes of the head as they came, and an index of names and values.
//!
//! Order, case and repetitions are kept, because a proxy hands them on; look-ups ignore the case of names
//! (RFC 9110 §5.1). A list is one shared buffer and one vector of offsets, whatever the number of fields.

use bytes::{BufMut, Bytes, BytesMut};

use crate::lines::Span;

/// Header or trailer fields in the order in which they were sent.
#[derive(Clone, Default)]
pub struct Fields {
    buf: Bytes,
    entries: Vec<Entry>,
}

/// Where a field stands in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Span,
    pub(crate) value: Span,
}

impl Fields {
    pub(crate) fn new(buf: Bytes, entries: Vec<Entry>) -> Self {
        Self { buf, entries }
    }

    /// How many fields there are, repetitions included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values as they were sent, without the whitespace around values.
    pub fn iter(&self) -> FieldIter<'_> {
        FieldIter::new(&self.buf, &self.entries)
    }

    /// The values of all fields called `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The value of the first field called `name`.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.entry(name).map(|entry| entry.value.of(&self.buf))
    }

    /// The value of the first field called `name`, sharing the head's memory.
    pub fn first_bytes(&self, name: &str) -> Option<Bytes> {
        self.entry(name).map(|entry| self.buf.slice(entry.value.start()..entry.value.end()))
    }

    /// Whether a field called `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The elements of the comma-separated list that all fields called `name` form (RFC 9110 §5.6.1).
    ///
    /// Empty elements are skipped. Quoted strings are not understood: this is for lists of tokens.
    pub fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&b| b == b','))
            .map(trim)
            .filter(|token| !token.is_empty())
    }

    /// Whether the list `name` has an element `token`, in any case, as in `Connection: keep-alive, Upgrade`.
    pub fn contains_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|t| t.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Copies the bytes to memory of their own, so that a long-lived list does not keep a read buffer alive.
    pub fn detach(&mut self) {
        self.buf = Bytes::copy_from_slice(&self.buf);
    }

    pub(crate) fn buf(&self) -> &Bytes {
        &self.buf
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        self.entries
            .iter()
            .copied()
            .find(|e| e.name.of(&self.buf).eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Without the spaces and tabs around it (OWS, RFC 9110 §5.6.3).
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Walks over names and values; see [`Fields::iter`].
#[derive(Clone, Debug)]
pub struct FieldIter<'a> {
    buf: &'a [u8],
    entries: std::slice::Iter<'a, Entry>,
}

impl<'a> FieldIter<'a> {
    pub(crate) fn new(buf: &'a [u8], entries: &'a [Entry]) -> Self {
        Self { buf, entries: entries.iter() }
    }
}

impl<'a> Iterator for FieldIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next().map(|e| (e.name.of(self.buf), e.value.of(self.buf)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for FieldIter<'_> {}

impl<'a> IntoIterator for &'a Fields {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = FieldIter<'a>;

    fn into_iter(self) -> FieldIter<'a> {
        self.iter()
    }
}

/// Copies pairs into a list of its own; for fields that came otherwise than in an HTTP/1 head.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut buf = BytesMut::new();
        let mut entries = Vec::new();
        for (name, value) in pairs {
            let mut put = |bytes: &[u8]| {
                let start = buf.len();
                buf.put_slice(bytes);
                Span::new(start, buf.len())
            };
            entries.push(Entry { name: put(name.as_ref()), value: put(value.as_ref()) });
        }
        Self { buf: buf.freeze(), entries }
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(n, v)| (n.escape_ascii().to_string(), v.escape_ascii().to_string())),
            )
            .finish()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

/// What the bytes of a field name can be, so that one pass over a name settles it.
mod class {
    /// Ends every hope: controls, space, DEL, and the colon itself.
    pub(super) const FORBIDDEN: u8 = 1;
    /// `_`, which nginx accepts only with `underscores_in_headers on`.
    pub(super) const UNDERSCORE: u8 = 2;
    /// A token character (RFC 9110 §5.6.2) outside nginx's letters, digits and hyphens.
    pub(super) const ODD: u8 = 4;
    /// Visible, but no token character.
    pub(super) const NO_TOKEN: u8 = 8;

    pub(super) const OF: [u8; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            table[i] = match i as u8 {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => 0,
                b'_' => UNDERSCORE,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'.' | b'^' | b'`'
                | b'|' | b'~' => ODD,
                0..=b' ' | 0x7f | b':' => FORBIDDEN,
                _ => NO_TOKEN,
            };
            i += 1;
        }
        table
    };
}

/// What is wrong, or merely unusual, with a field name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameKind {
    /// Letters, digits, hyphens: valid for nginx without any option.
    Plain,
    /// With underscores, otherwise plain.
    Underscore,
    /// A token, but not a plain one.
    Odd,
    /// Not a token, yet free of anything that could be taken for the end of a name or line.
    NoToken,
    /// Empty, or with controls, spaces or a colon.
    Broken,
}

impl NameKind {
    pub(crate) fn of(name: &[u8]) -> Self {
        let classes = name.iter().fold(0, |all, &b| all | class::OF[b as usize]);
        match classes {
            _ if name.is_empty() || classes & class::FORBIDDEN != 0 => Self::Broken,
            _ if classes & class::NO_TOKEN != 0 => Self::NoToken,
            _ if classes & class::ODD != 0 => Self::Odd,
            0 => Self::Plain,
            _ => Self::Underscore,
        }
    }
}

/// Splits a field line at its colon; nothing of it is judged yet. `None` if it has no colon.
pub(crate) fn split_line(line: &[u8]) -> Option<Entry> {
    // The first one: a name cannot contain a colon, a value can (RFC 9112 §5).
    let colon = memchr::memchr(b':', line)?;
    let rest = &line[colon + 1..];
    let value = trim(rest);
    let start = colon + 1 + rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    Some(Entry { name: Span::new(0, colon), value: Span::new(start, start + value.len()) })
}

/// Whether a value has no control characters but tabs (RFC 9110 §5.5 calls all others invalid).
pub(crate) fn is_clean_value(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, &b| bad | ((b < b' ') & (b != b'\t')) | (b == 0x7f))
}

/// Whether a value has nothing that ends a line or a C string, which is all nginx asks of an upstream.
pub(crate) fn is_safe_value(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, &b| bad | (b == b'\r') | (b == b'\n') | (b == 0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        [
            ("Host", "example.com"),
            ("connection", "keep-alive"),
            ("Connection", " , Upgrade,\tfoo "),
            ("x-empty", ""),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn names_are_found_in_any_case_and_kept_as_sent() {
        let fields = fields();
        assert_eq!(fields.first("HOST"), Some(&b"example.com"[..]));
        assert_eq!(fields.first_bytes("host").unwrap(), "example.com");
        assert_eq!(fields.first("hos"), None);
        assert!(fields.contains("X-Empty"));
        assert_eq!(
            fields.iter().map(|(n, _)| n).collect::<Vec<_>>(),
            [&b"Host"[..], b"connection", b"Connection", b"x-empty"]
        );
    }

    #[test]
    fn tokens_of_all_lines_form_one_list() {
        let fields = fields();
        let tokens: Vec<_> = fields.tokens("connection").collect();
        assert_eq!(tokens, [&b"keep-alive"[..], b"Upgrade", b"foo"]);
        assert!(fields.contains_token("CONNECTION", "upgrade"));
        assert!(!fields.contains_token("connection", "up"));
    }

    #[test]
    fn a_line_splits_at_its_first_colon() {
        let line = b"a: \t b:c \t";
        let entry = split_line(line).unwrap();
        assert_eq!((entry.name.of(line), entry.value.of(line)), (&b"a"[..], &b"b:c"[..]));
        let line = b"a: \t ";
        assert_eq!(split_line(line).unwrap().value.of(line), b"");
        assert!(split_line(b"abc").is_none());
    }

    #[test]
    fn names_are_judged_by_their_worst_byte() {
        for (name, kind) in [
            (&b"X-Foo"[..], NameKind::Plain),
            (b"x_foo", NameKind::Underscore),
            (b"x.foo_", NameKind::Odd),
            (b"</k>", NameKind::NoToken),
            (b"\xc3\xa4", NameKind::NoToken),
            (b"", NameKind::Broken),
            (b"a ", NameKind::Broken),
            (b"\ta", NameKind::Broken),
            (b"a\x7f", NameKind::Broken),
        ] {
            assert_eq!(NameKind::of(name), kind, "{name:?}");
        }
    }

    #[test]
    fn detached_fields_are_the_same() {
        let mut copy = fields();
        copy.detach();
        assert_eq!(copy, fields());
    }
}
