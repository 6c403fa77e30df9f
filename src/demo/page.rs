//! The page of the demo, which needs nothing but itself, and the policy that holds it to that.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The page.
pub(super) const PAGE: &str = include_str!("page.html");

/// What a browser lets the page do: run the script and use the style that are in it, and talk to where it
/// came from. The icon is in it too (`data:`).
pub(super) fn policy() -> String {
    let [script, style] = ["script", "style"].map(|tag| source(element(PAGE, tag)));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'"
    )
}

/// The text of the only element of this name without attributes.
fn element<'a>(page: &'a str, tag: &str) -> &'a str {
    let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
    let text = page.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    text.map_or("", |(text, _)| text)
}

/// A source expression that allows exactly this text (CSP Level 3 §2.3.1).
fn source(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_the_digest_of_the_text_between_the_tags() {
        let page = "<p></p><script>alert('Hello, world.');</script>";
        // The example of CSP Level 3 §8.3.
        let expected = "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='";
        assert_eq!(source(element(page, "script")), expected);
    }

    #[test]
    fn the_page_needs_nothing_that_is_not_in_it() {
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert!(!element(PAGE, tag).is_empty(), "{tag}");
        }
        // The policy would forbid these.
        for what in [" style=", " onclick=", " src=", "@import", "url("] {
            assert!(!PAGE.contains(what), "{what}");
        }
    }
}
