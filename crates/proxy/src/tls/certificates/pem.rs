//! Blocks of PEM (RFC 7468), read as OpenSSL reads them: text around them is skipped, old labels are
//! known.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use thiserror::Error;

/// What old editors write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Labels of certificates; behind the last one's stand the uses for which it is trusted.
pub(super) const CERTIFICATE: &[&str] = &["CERTIFICATE", "X509 CERTIFICATE", TRUSTED];
pub(super) const TRUSTED: &str = "TRUSTED CERTIFICATE";

/// Labels of revocation lists.
pub(super) const CRL: &[&str] = &["X509 CRL"];

/// A block with one of the wanted labels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    pub(super) content: Vec<u8>,
}

/// Why a block cannot be read. The texts say what OpenSSL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Malformed {
    #[error("bad end line (no \"-----END …-----\" for a block)")]
    NoEnd,
    #[error("bad base64 decode")]
    Base64,
}

/// A file as PEM: without the byte order mark that some editors put before it.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The blocks with one of these labels, in order.
pub(super) fn blocks<'a>(text: &'a [u8], labels: &[&str]) -> Result<Vec<Block<'a>>, Malformed> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((label, behind)) = begin(rest) {
        let end = format!("-----END {label}-----");
        let len = memmem::find(behind, end.as_bytes());
        if !labels.contains(&label) {
            // Another block, or no block at all.
            rest = len.map_or(behind, |len| &behind[len..]);
            continue;
        }
        let len = len.ok_or(Malformed::NoEnd)?;
        let mut base64 = behind[..len].to_vec();
        base64.retain(|byte| !byte.is_ascii_whitespace());
        let content = BASE64_STANDARD.decode(base64).map_err(|_| Malformed::Base64)?;
        found.push(Block { label, content });
        rest = &behind[len..];
    }
    Ok(found)
}

/// The label of the next block, and what follows its first line.
fn begin(text: &[u8]) -> Option<(&str, &[u8])> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let mut rest = text;
    loop {
        rest = &rest[memmem::find(rest, BEGIN)? + BEGIN.len()..];
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let label = line.trim_ascii_end().strip_suffix(b"-----");
        if let Some(label) = label.and_then(|label| std::str::from_utf8(label).ok()) {
            return Some((label, &rest[line.len()..]));
        }
    }
}

/// Whether there is a block with one of these labels.
pub(super) fn has_block(text: &[u8], is_wanted: impl Fn(&str) -> bool) -> bool {
    let mut rest = text;
    while let Some((label, behind)) = begin(rest) {
        if is_wanted(label) {
            return true;
        }
        rest = behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(&str, Vec<u8>)>, Malformed> {
        let blocks = blocks(text.as_bytes(), CERTIFICATE)?;
        Ok(blocks.into_iter().map(|block| (block.label, block.content)).collect())
    }

    #[test]
    fn blocks_are_found_among_text_and_other_blocks() {
        let text = "Subject: CN=x\n-----BEGIN CERTIFICATE-----\r\nAQ\r\n==\r\n-----END CERTIFICATE-----\r\n\
                    -----BEGIN PRIVATE KEY-----\nAg==\n-----END PRIVATE KEY-----\n\
                    -----BEGIN no end\n-----BEGIN TRUSTED CERTIFICATE-----\nAw==\n\
                    -----END TRUSTED CERTIFICATE-----";
        assert_eq!(read(text), Ok(vec![("CERTIFICATE", vec![1]), (TRUSTED, vec![3])]));
        assert_eq!(read(""), Ok(vec![]));
        assert!(has_block(text.as_bytes(), |label| label == "PRIVATE KEY"));
        assert!(!has_block(text.as_bytes(), |label| label == "no end"));
    }

    #[test]
    fn what_is_malformed_is_named() {
        let begin = "-----BEGIN CERTIFICATE-----\n";
        assert_eq!(read(&format!("{begin}AQ==\n")), Err(Malformed::NoEnd));
        let end = "-----END CERTIFICATE-----\n";
        assert_eq!(read(&format!("{begin}A?==\n{end}")), Err(Malformed::Base64));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(without_mark(b"\xef\xbb\xbfa"), b"a");
        assert_eq!(without_mark(b"a"), b"a");
    }
}
