//! Percent-encoding as nginx does it where it puts a URI together: `proxy_pass`, `rewrite`, redirects.

/// Which part of a URI the text shall become; decides what must be escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// A path: nginx's `NGX_ESCAPE_URI`.
    Uri,
    /// Arguments: a path's set and `&`, `+`, `;` (`NGX_ESCAPE_ARGS`).
    Args,
    /// One component: all but RFC 3986's unreserved characters (`NGX_ESCAPE_URI_COMPONENT`).
    UriComponent,
    /// A reference in a page (`NGX_ESCAPE_HTML`): a path's set and `'`, but not `?`.
    Html,
}

impl Escape {
    const fn table(self) -> &'static [bool; 256] {
        match self {
            Self::Uri => &URI,
            Self::Args => &ARGS,
            Self::UriComponent => &URI_COMPONENT,
            Self::Html => &HTML,
        }
    }
}

/// Never allowed in a URI, or with a meaning there that plain text does not have.
const URI: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let special = matches!(
            b,
            b'"' | b'#' | b'%' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
        );
        table[i] = special || !b.is_ascii_graphic();
        i += 1;
    }
    table
};

const ARGS: [bool; 256] = {
    let mut table = URI;
    table[b'&' as usize] = true;
    table[b'+' as usize] = true;
    table[b';' as usize] = true;
    table
};

const HTML: [bool; 256] = {
    let mut table = URI;
    table[b'?' as usize] = false;
    table[b'\'' as usize] = true;
    table
};

const URI_COMPONENT: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'));
        i += 1;
    }
    table
};

/// Appends `text` to `out` with everything escaped that cannot stand in that part of a URI.
pub fn escape(out: &mut Vec<u8>, text: &[u8], part: Escape) {
    // Upper case, as RFC 3986 §2.1 wants escapes to be written.
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let table = part.table();
    out.reserve(text.len());
    for &b in text {
        match table[b as usize] {
            true => out.extend([b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]),
            false => out.push(b),
        }
    }
}

/// What [`unescape`] decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unescape {
    /// Every escape.
    All,
    /// Up to and with the first `?`, be it escaped or not (`NGX_UNESCAPE_URI`).
    Path,
    /// The same, but only escapes of visible characters above `%`, so that the result can go into a Location
    /// (`NGX_UNESCAPE_REDIRECT`).
    Redirect,
}

/// Appends `text` to `out` with its escapes decoded.
///
/// Broken escapes shrink as they do in nginx: of `%` and a wrong first digit the digit stays, and a wrong second digit
/// takes everything with it.
pub fn unescape(out: &mut Vec<u8>, text: &[u8], what: Unescape) {
    let mut rest = text;
    while let [b, tail @ ..] = rest {
        rest = tail;
        let byte = match (b, tail) {
            // What an end cuts short disappears, as in nginx.
            (b'%', []) => break,
            (b'%', [high, more @ ..]) => match (hex(*high), more) {
                (None, _) => {
                    rest = more;
                    out.push(*high);
                    continue;
                }
                (Some(_), []) => break,
                (Some(a), [low, more @ ..]) => {
                    rest = more;
                    let Some(decoded) = hex(*low).map(|b| a << 4 | b) else { continue };
                    let keep = what == Unescape::Redirect
                        && decoded != b'?'
                        && !(b'&'..0x7f).contains(&decoded);
                    if keep {
                        out.extend([b'%', *high, *low]);
                        continue;
                    }
                    decoded
                }
            },
            _ => *b,
        };
        out.push(byte);
        if byte == b'?' && what != Unescape::All {
            out.extend_from_slice(rest);
            return;
        }
    }
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &[u8], part: Escape) -> String {
        let mut out = Vec::new();
        escape(&mut out, text, part);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn unescaped(text: &str, what: Unescape) -> Vec<u8> {
        let mut out = Vec::new();
        unescape(&mut out, text.as_bytes(), what);
        out
    }

    /// The printable characters that stay, as nginx's bit tables have them.
    #[test]
    fn each_part_of_a_uri_has_its_own_set() {
        let all: Vec<u8> = (0..=255).collect();
        for (part, kept) in [
            (
                Escape::Uri,
                "!$&'()*+,-./0123456789:;=@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~",
            ),
            (
                Escape::Args,
                "!$'()*,-./0123456789:=@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~",
            ),
            (
                Escape::UriComponent,
                "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~",
            ),
        ] {
            let stays: Vec<u8> =
                all.iter().copied().filter(|&b| escaped(&[b], part).len() == 1).collect();
            assert_eq!(String::from_utf8_lossy(&stays), kept, "{part:?}");
        }
        assert_eq!(escaped(b"a b\xe4\n", Escape::Uri), "a%20b%E4%0A");
    }

    #[test]
    fn escapes_are_decoded_as_far_as_asked() {
        use Unescape::*;
        for (text, what, expected) in [
            ("a%20b%3fc%3F?%41", All, &b"a b?c??A"[..]),
            ("a%20b?%41", Path, b"a b?%41"),
            ("a%20b%3f%41", Path, b"a b?%41"),
            ("a%20%41%25%26%7e%7f%80%3f%41", Redirect, b"a%20A%25&~%7f%80?%41"),
            ("%", All, b""),
            ("%4", All, b""),
            ("%zz", All, b"zz"),
            ("%4z5", All, b"5"),
            ("%%41", All, b"%41"),
            ("a%00", All, b"a\0"),
        ] {
            assert_eq!(unescaped(text, what), expected, "{text} {what:?}");
        }
    }

    #[test]
    fn decoding_undoes_encoding() {
        let all: Vec<u8> = (0..=255).collect();
        for part in [Escape::Uri, Escape::Args, Escape::UriComponent] {
            assert_eq!(unescaped(&escaped(&all, part), Unescape::All), all);
        }
    }
}
