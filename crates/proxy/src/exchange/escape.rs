//! Bytes as they can stand in a text of another language.

use bytes::BufMut;

/// Adds a text for HTML or XML, in its elements and attributes.
pub(crate) fn put_html(out: &mut impl BufMut, text: &[u8]) {
    for &byte in text {
        match byte {
            b'<' => out.put_slice(b"&lt;"),
            b'>' => out.put_slice(b"&gt;"),
            b'&' => out.put_slice(b"&amp;"),
            b'"' => out.put_slice(b"&quot;"),
            byte => out.put_u8(byte),
        }
    }
}

/// Adds a text for a string of JSON (RFC 8259 §7).
pub(crate) fn put_json(out: &mut impl BufMut, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.put_slice(&[b'\\', byte]),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            8 => out.put_slice(b"\\b"),
            12 => out.put_slice(b"\\f"),
            0..=0x1f => {
                out.put_slice(b"\\u00");
                put_hex(out, byte);
            }
            _ => out.put_u8(byte),
        }
    }
}

/// Adds a byte as two hexadecimal digits.
pub(crate) fn put_hex(out: &mut impl BufMut, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.put_u8(HEX[usize::from(byte >> 4)]);
    out.put_u8(HEX[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_is_escaped() {
        for (text, html, json) in [
            ("a b", "a b", "a b"),
            ("<a href=\"x\">&", "&lt;a href=&quot;x&quot;&gt;&amp;", r#"<a href=\"x\">&"#),
            ("'\\", "'\\", "'\\\\"),
            ("\n\r\t\x08\x0c\x1f\x7f", "\n\r\t\x08\x0c\x1f\x7f", "\\n\\r\\t\\b\\f\\u001F\x7f"),
            ("é", "é", "é"),
        ] {
            let mut found = (Vec::new(), Vec::new());
            put_html(&mut found.0, text.as_bytes());
            put_json(&mut found.1, text.as_bytes());
            assert_eq!(found, (html.into(), json.into()), "{text:?}");
        }
    }
}
