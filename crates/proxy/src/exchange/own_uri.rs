//! URIs that name a path of our own from within: of `X-Accel-Redirect` and of SSI commands.

use bytes::Bytes;
use wssgate_http1::{Unescape, unescape};

/// Path and arguments, if the path cannot lead out of where it begins.
///
/// As in nginx the path is decoded but not resolved: `..` is refused instead, both as it is written
/// and as it reads decoded.
pub(crate) fn target(uri: &Bytes) -> Option<(Bytes, Bytes)> {
    let (path, args) = match memchr::memchr(b'?', uri) {
        Some(at) => (uri.slice(..at), uri.slice(at + 1..)),
        None => (uri.clone(), Bytes::new()),
    };
    if path.is_empty() || !is_safe(&path) {
        return None;
    }
    if !path.contains(&b'%') {
        return Some((path, args));
    }
    let mut decoded = Vec::with_capacity(path.len());
    unescape(&mut decoded, &path, Unescape::All);
    is_safe(&decoded).then(|| (decoded.into(), args))
}

/// No zero byte and no `..` between slashes.
fn is_safe(path: &[u8]) -> bool {
    !path.contains(&0) && path.split(|byte| *byte == b'/').all(|segment| segment != b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_never_lead_out() {
        for (uri, expected) in [
            ("/a?b=%20", Some(("/a", "b=%20"))),
            ("/a%20b%3fc", Some(("/a b?c", ""))),
            ("/a..b/..c", Some(("/a..b/..c", ""))),
            ("../a", None),
            ("/a/..", None),
            ("/a/%2e%2e/b", None),
            ("/a/.%2e", None),
            ("/a%00", None),
            ("", None),
            ("?a", None),
        ] {
            let expected = expected.map(|(path, args)| (Bytes::from(path), Bytes::from(args)));
            assert_eq!(target(&Bytes::from_static(uri.as_bytes())), expected, "{uri}");
        }
    }
}
