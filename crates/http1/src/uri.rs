//! A request URI as nginx understands it: `$uri` decoded and resolved, `$args` as sent.

use bytes::Bytes;
use thiserror::Error;

use crate::escape::hex;

/// A path and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// The path: escapes decoded, `.` and `..` resolved, slashes merged if asked. Starts with `/`; `$uri`.
    pub path: Bytes,
    /// What follows the first `?`, as sent, without a fragment; `$args`. An empty query is `Some`.
    pub args: Option<Bytes>,
    /// As sent: `$request_uri`.
    pub raw: Bytes,
    /// The path had escapes. Where nginx builds a new URI from a path with `quoted` set, it escapes it again.
    pub quoted: bool,
    /// The path has a `+`; matters where nginx escapes captures as arguments.
    pub plus: bool,
}

/// The text is no URI: a broken escape, a zero byte, or a way out above the root.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("client sent invalid request")]
pub struct InvalidUri;

impl Uri {
    /// Reads a path with an optional query and fragment, or a query alone (whose path is `/`).
    ///
    /// The path shares `raw`'s memory unless it had to be changed.
    pub fn parse(raw: &Bytes, merge_slashes: bool) -> Result<Self, InvalidUri> {
        // A parsed request line has none, but a broken one is read here too, for the log.
        if raw.iter().any(|&b| b < b' ' || b == 0x7f) {
            return Err(InvalidUri);
        }
        let fragment = memchr::memchr(b'#', raw).unwrap_or(raw.len());
        let query = memchr::memchr(b'?', &raw[..fragment]);
        let path = &raw[..query.unwrap_or(fragment)];
        let args = query.map(|at| raw.slice(at + 1..fragment));
        let (path, quoted) = match path {
            // `http://host?query`: an empty path of an absolute URI is `/` (RFC 9110 §4.2.3).
            [] if query.is_some() => (Bytes::from_static(b"/"), false),
            [b'/', ..] if is_simple(path) => (raw.slice(..path.len()), false),
            [b'/', ..] => (Bytes::from(resolve(path, merge_slashes)?), path.contains(&b'%')),
            _ => return Err(InvalidUri),
        };
        let plus = path.contains(&b'+');
        Ok(Self { path, args, raw: raw.clone(), quoted, plus })
    }

    /// Whether path and arguments are just what was sent.
    pub fn is_normal(&self) -> bool {
        let args_len = self.args.as_ref().map_or(0, |args| 1 + args.len());
        self.raw.len() == self.path.len() + args_len && self.raw.starts_with(&self.path)
    }
}

/// Nothing to decode, resolve or merge. A dot behind a slash is not looked at closely.
fn is_simple(path: &[u8]) -> bool {
    memchr::memchr(b'%', path).is_none()
        && !path.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

/// Decodes the path and resolves its segments in one pass, as nginx does: an escaped slash or dot counts as a bare one.
fn resolve(path: &[u8], merge_slashes: bool) -> Result<Vec<u8>, InvalidUri> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, tail)) = decode_first(rest)? {
        rest = tail;
        // A slash after a dot segment is the one that the segment gave back.
        let redundant =
            byte == b'/' && (leave_dots(&mut out)? || (merge_slashes && out.ends_with(b"/")));
        if !redundant {
            out.push(byte);
        }
    }
    leave_dots(&mut out)?;
    Ok(out)
}

/// The first character of `text`, decoded, and what follows it.
fn decode_first(text: &[u8]) -> Result<Option<(u8, &[u8])>, InvalidUri> {
    match text {
        [] => Ok(None),
        [b'%', high, low, rest @ ..] => match (hex(*high), hex(*low)) {
            // A zero byte would end the name of a file for the system, and not for us. nginx
            // refuses it too.
            (Some(0), Some(0)) | (None, _) | (_, None) => Err(InvalidUri),
            (Some(a), Some(b)) => Ok(Some((a << 4 | b, rest))),
        },
        [b'%', ..] => Err(InvalidUri),
        [byte, rest @ ..] => Ok(Some((*byte, rest))),
    }
}

/// If the segment that ends here is `.` or `..`, goes where it leads, which always ends with a slash.
fn leave_dots(out: &mut Vec<u8>) -> Result<bool, InvalidUri> {
    if out.ends_with(b"/.") {
        out.pop();
        return Ok(true);
    }
    let Some(parent) = out.strip_suffix(b"/..") else {
        return Ok(false);
    };
    // RFC 3986 §5.2.4 would stay at the root; nginx answers 400.
    let slash = memchr::memrchr(b'/', parent).ok_or(InvalidUri)?;
    out.truncate(slash + 1);
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(raw: &str) -> Result<Uri, InvalidUri> {
        Uri::parse(&Bytes::copy_from_slice(raw.as_bytes()), true)
    }

    #[test]
    fn paths_are_decoded_and_resolved() {
        for (raw, path) in [
            ("/", "/"),
            ("/foo/bar%", "!"),
            ("/foo/bar%1", "!"),
            ("/foo/bar%0x", "!"),
            ("/foo%00", "!"),
            ("/foo/bar/.?args", "/foo/bar/"),
            ("/foo/bar/.#frag", "/foo/bar/"),
            ("/foo/bar/..?args", "/foo/"),
            ("/foo/bar/..#frag", "/foo/"),
            ("/foo/bar/.", "/foo/bar/"),
            ("/foo/bar/..", "/foo/"),
            ("/foo/./bar/../baz", "/foo/baz"),
            ("/foo//bar///", "/foo/bar/"),
            ("/foo%2f%2E%2e/bar", "/bar"),
            ("/foo/.../..a/.b/a..", "/foo/.../..a/.b/a.."),
            ("/%02", "/\x02"),
            ("/%3f%23%25%2B+", "/?#%++"),
            ("/%252e%252e/", "/%2e%2e/"),
            ("/a/..//..", "!"),
            ("/a//../b", "/b"),
            ("/..", "!"),
            ("/../a", "!"),
            ("/a/../..", "!"),
            ("/%2e%2e/", "!"),
            ("/.", "/"),
            ("?q", "/"),
            ("", "!"),
            ("a", "!"),
            ("#a", "!"),
            ("/a\x01", "!"),
        ] {
            let expected = (path != "!").then_some(path.as_bytes());
            assert_eq!(parse(raw).ok().as_ref().map(|uri| &uri.path[..]), expected, "{raw}");
        }
    }

    #[test]
    fn slashes_stay_if_asked() {
        let uri = |raw: &'static str| {
            Uri::parse(&Bytes::from_static(raw.as_bytes()), false).map(|uri| uri.path)
        };
        assert_eq!(uri("/a//b/./c//").unwrap(), "/a//b/c//");
        assert_eq!(uri("/a//..").unwrap(), "/a/");
        assert_eq!(uri("//..").unwrap(), "/");
        assert!(uri("/..//").is_err());
    }

    #[test]
    fn arguments_stay_as_they_are() {
        for (raw, args) in [
            ("/a", None),
            ("/a?", Some("")),
            ("/a?b=%20?c", Some("b=%20?c")),
            ("/a?b#c?d", Some("b")),
            ("/a#b?c", None),
            ("/a%3fb", None),
            ("?q", Some("q")),
        ] {
            assert_eq!(parse(raw).unwrap().args.as_deref(), args.map(str::as_bytes), "{raw}");
        }
    }

    #[test]
    fn it_says_what_was_changed() {
        for (raw, quoted, plus, normal) in [
            ("/a?b%20c", false, false, true),
            ("/a%20b", true, false, false),
            ("/a+b?", false, true, true),
            ("/a?+", false, false, true),
            ("/a%2b", true, true, false),
            ("/.a", false, false, true),
            ("/a//b", false, false, false),
            ("/a#b", false, false, false),
            ("/a?b#", false, false, false),
            ("?b", false, false, false),
        ] {
            let uri = parse(raw).unwrap();
            assert_eq!((uri.quoted, uri.plus, uri.is_normal()), (quoted, plus, normal), "{raw}");
        }
    }

    proptest! {
        /// Whatever comes out has no dot segment left to be resolved by somebody behind us.
        #[test]
        fn a_path_never_leaves_the_root(raw in "/(\\.|/|%2[eEfF]|%25|%3f|a|%00|%){0,12}(\\?./)?", merge: bool) {
            if let Ok(uri) = Uri::parse(&Bytes::from(raw), merge) {
                prop_assert_eq!(uri.path[0], b'/');
                prop_assert!(!uri.path.split(|&b| b == b'/').any(|s| s == b"." || s == b".."));
                prop_assert!(!merge || !uri.path.windows(2).any(|pair| pair == b"//"));
            }
        }
    }
}
