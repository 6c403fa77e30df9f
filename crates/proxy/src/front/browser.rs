//! Browsers that do not keep connections as they should: who is one, by its User-Agent.

use memchr::memmem::find;

/// MSIE before 7, but for the 6 of Windows XP SP2 (`SV1`).
pub(crate) fn is_msie6(agent: &[u8]) -> bool {
    let Some(at) = find(agent, b"MSIE ") else { return false };
    let version = &agent[at + 5..];
    if find(agent, b"Opera").is_some() {
        return false;
    }
    match version {
        [b'4' | b'5', b'.', _, ..] => true,
        [b'6', b'.', _, rest @ ..] => find(rest, b"SV1").is_none(),
        _ => false,
    }
}

/// Safari on macOS.
pub(crate) fn is_safari(agent: &[u8]) -> bool {
    let has = |text: &str| find(agent, text.as_bytes()).is_some();
    let other = ["MSIE ", "Opera", "Gecko/", "Chrome/"].into_iter().any(has);
    !other && has("Safari/") && has("Mac OS X")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_apart() {
        for (agent, msie6, safari) in [
            ("Mozilla/4.0 (compatible; MSIE 5.0; Windows)", true, false),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", true, false),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", false, false),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows)", false, false),
            ("Mozilla/4.0 (compatible; MSIE 6.0; X) Opera 8", false, false),
            (
                "Mozilla/5.0 (Macintosh; Mac OS X) AppleWebKit/6 (KHTML, like Gecko) Safari/6",
                false,
                true,
            ),
            (
                "Mozilla/5.0 (Macintosh; Mac OS X) (KHTML, like Gecko) Chrome/9 Safari/6",
                false,
                false,
            ),
            ("Mozilla/5.0 (X11; Linux) Safari/6", false, false),
            ("MSIE 5.", false, false),
            ("", false, false),
        ] {
            assert_eq!(
                (is_msie6(agent.as_bytes()), is_safari(agent.as_bytes())),
                (msie6, safari),
                "{agent}"
            );
        }
    }
}
