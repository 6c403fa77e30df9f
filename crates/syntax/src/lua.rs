//! Where a block of Lua ends, which OpenResty's configurations hold: its text follows other rules than ours.

/// The offset of the `}` that ends a block whose `{` stands just before `from`; `None` if nothing ends it.
pub(crate) fn block_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut depth = 0usize;
    while let Some(&byte) = text.get(at) {
        at = match byte {
            b'{' => {
                depth += 1;
                at + 1
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => {
                depth -= 1;
                at + 1
            }
            quote @ (b'"' | b'\'') => behind_string(text, at + 1, quote),
            b'-' if text[at..].starts_with(b"--") => behind_comment(text, at + 2),
            b'[' => behind_long_bracket(text, at).unwrap_or(at + 1),
            _ => at + 1,
        };
    }
    None
}

fn behind_string(text: &[u8], mut at: usize, quote: u8) -> usize {
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            // A string ends with its line, whatever was forgotten.
            _ if byte == quote || byte == b'\n' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn behind_comment(text: &[u8], at: usize) -> usize {
    let line_end = || text[at..].iter().position(|&byte| byte == b'\n').map(|len| at + len);
    behind_long_bracket(text, at).or_else(line_end).unwrap_or(text.len())
}

/// `[[ … ]]`, with as many `=` between the brackets at its end as at its start.
fn behind_long_bracket(text: &[u8], at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix(b"[")?;
    let level = rest.iter().take_while(|&&byte| byte == b'=').count();
    if rest.get(level) != Some(&b'[') {
        return None;
    }
    let close = [b"]".as_slice(), &vec![b'='; level], b"]"].concat();
    let inner = at + level + 2;
    let end = text[inner..].windows(close.len()).position(|window| window == close)?;
    Some(inner + end + close.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_with_its_own_brace() {
        for (text, end) in [
            (" ngx.exit(403) }", Some(15)),
            (" local t = { a = {} } } x", Some(22)),
            (r#" ngx.say("}") }"#, Some(14)),
            (r#" ngx.say('\'}') }"#, Some(16)),
            (" -- it's }\n }", Some(12)),
            (" --[[ }\n } ]] }", Some(14)),
            (" x = [==[ } ]] ]==] }", Some(20)),
            (" a[b] = 1 }", Some(10)),
            (" ngx.say(\"a\\", None),
            (" {", None),
            ("", None),
        ] {
            assert_eq!(block_end(text.as_bytes(), 0), end, "{text}");
        }
    }
}
