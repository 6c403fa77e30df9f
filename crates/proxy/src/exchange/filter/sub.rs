//! `sub_filter`: texts that are replaced.
//!
//! As in nginx the leftmost text wins, and of several that begin at the same place the first of the
//! configuration. Of a piece only an end that may be the beginning of a text is held back.

use bytes::{Buf, Bytes};
use wssgate_config::model::Substitutions;
use wssgate_config::template::Template;

use super::{Filter, Step};
use crate::exchange::headers;
use crate::exchange::request::Request;
use crate::exchange::response::Reply;

/// Bytes that may be compared before what was looked through is passed on, so that others have their
/// turn: a text may nearly begin at every place.
const COMPARED_MAX: usize = 256 * 1024;

/// Replaces texts in a body.
pub(crate) struct Replacing {
    patterns: Vec<Pattern>,
    /// The bytes, in lower case, that a pattern begins with.
    begins: Box<[bool; 256]>,
    once: bool,
    data: Bytes,
    /// What takes the place of the text that was found last.
    replacement: Option<Bytes>,
    ended: bool,
}

struct Pattern {
    /// In lower case, not empty.
    text: Bytes,
    with: Template,
    /// `with` as it reads for this request, once it was needed.
    replacement: Option<Bytes>,
}

/// What was found in some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// What begins here may go on.
    Perhaps(usize),
    /// Nothing before this place, behind the beginning; what follows was not looked through.
    Later(usize),
    /// A pattern by its number, and where it begins.
    Pattern(usize, usize),
}

impl Replacing {
    /// Makes of a head one whose body is changed; `None` when there is nothing to look for.
    pub(crate) fn new(
        request: &Request,
        reply: &mut Reply,
        substitutions: &Substitutions,
    ) -> Option<Self> {
        let patterns = substitutions.pairs.iter().map(|(text, with)| Pattern {
            text: request.text(text).to_ascii_lowercase().into(),
            with: with.clone(),
            replacement: None,
        });
        let patterns: Vec<_> = patterns.filter(|pattern| !pattern.text.is_empty()).collect();
        if patterns.is_empty() {
            return None;
        }
        if !request.is_subrequest() {
            headers::change_body(reply, substitutions.last_modified);
        }
        Some(Self::of(patterns, substitutions.once))
    }

    fn of(patterns: Vec<Pattern>, once: bool) -> Self {
        let mut begins = Box::new([false; 256]);
        patterns.iter().for_each(|pattern| begins[usize::from(pattern.text[0])] = true);
        Self { patterns, begins, once, data: Bytes::new(), replacement: None, ended: false }
    }

    fn find(&self) -> Found {
        let usable = |pattern: &Pattern| !(self.once && pattern.replacement.is_some());
        if !self.patterns.iter().any(usable) {
            return Found::Nothing;
        }
        let data = &self.data[..];
        let begins = |byte: &u8| self.begins[usize::from(byte.to_ascii_lowercase())];
        let mut at = 0;
        let mut compared = 0;
        while let Some(next) = data[at..].iter().position(begins) {
            at += next;
            if compared > COMPARED_MAX {
                return Found::Later(at);
            }
            for (number, pattern) in self.patterns.iter().enumerate() {
                if !usable(pattern) {
                    continue;
                }
                let len = pattern.text.len().min(data.len() - at);
                compared += len;
                if !data[at..at + len].eq_ignore_ascii_case(&pattern.text[..len]) {
                    continue;
                }
                if len == pattern.text.len() {
                    return Found::Pattern(number, at);
                }
                if !self.ended {
                    return Found::Perhaps(at);
                }
            }
            at += 1;
        }
        Found::Nothing
    }

    /// Goes on; `text` gives what a template says.
    fn step(&mut self, text: impl Fn(&Template) -> Bytes) -> Option<Bytes> {
        loop {
            if let Some(replacement) = self.replacement.take().filter(|text| !text.is_empty()) {
                return Some(replacement);
            }
            let before = match self.find() {
                Found::Nothing => std::mem::take(&mut self.data),
                Found::Perhaps(at) | Found::Later(at) => self.data.split_to(at),
                Found::Pattern(number, at) => {
                    let before = self.data.split_to(at);
                    let pattern = &mut self.patterns[number];
                    self.data.advance(pattern.text.len());
                    let with = pattern.replacement.get_or_insert_with(|| text(&pattern.with));
                    self.replacement = Some(with.clone());
                    before
                }
            };
            if !before.is_empty() {
                return Some(before);
            }
            // A text at the very beginning, whose replacement comes now.
            self.replacement.as_ref()?;
        }
    }
}

impl Filter for Replacing {
    fn give(&mut self, piece: Bytes) {
        self.data = match self.data.is_empty() {
            true => piece,
            false => [&self.data[..], &piece].concat().into(),
        };
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn next(&mut self, request: &Request) -> Step {
        self.step(|template| request.text(template)).map_or(Step::Idle, Step::Piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a body, given in pieces of `size`.
    fn replaced(pairs: &[(&str, &str)], once: bool, body: &str, size: usize) -> String {
        let pattern = |(text, with): &(&str, &str)| Pattern {
            text: Bytes::copy_from_slice(text.as_bytes()),
            with: Template::text(with.as_bytes()),
            replacement: None,
        };
        let mut filter = Replacing::of(pairs.iter().map(pattern).collect(), once);
        let mut out = Vec::new();
        let text = |template: &Template| Bytes::copy_from_slice(template.as_text().unwrap_or(b"?"));
        for piece in body.as_bytes().chunks(size) {
            filter.give(Bytes::copy_from_slice(piece));
            while let Some(piece) = filter.step(text) {
                out.extend_from_slice(&piece);
            }
            let longest = pairs.iter().map(|(text, _)| text.len()).max().unwrap_or(0);
            assert!(
                filter.data.len() < longest,
                "only what may be the beginning of a text is held"
            );
        }
        filter.end();
        while let Some(piece) = filter.step(text) {
            out.extend_from_slice(&piece);
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_text_that_nearly_begins_everywhere_is_looked_for_in_turns() {
        let text = format!("{}b", "a".repeat(2000));
        let pattern =
            Pattern { text: text.clone().into(), with: Template::text(*b"+"), replacement: None };
        let mut filter = Replacing::of(vec![pattern], true);
        let body = format!("{}{text}", "a".repeat(4000));
        filter.give(body.into());
        filter.end();
        let pieces: Vec<Bytes> = std::iter::from_fn(|| filter.step(|_| "+".into())).collect();
        let longest = pieces.iter().map(Bytes::len).max();
        assert!(longest <= Some(1 + COMPARED_MAX / text.len()), "{longest:?} bytes in one turn");
        assert_eq!(pieces.concat(), format!("{}+", "a".repeat(4000)).into_bytes());
    }

    #[test]
    fn texts_are_replaced_however_they_are_cut() {
        for (pairs, once, body, expected) in [
            (&[("foo", "bar")][..], true, "xFOOfoo", "xbarfoo"),
            (&[("foo", "bar")], false, "foofofoofo", "barfobarfo"),
            (&[("aab", "+")], false, "aaaab", "aa+"),
            (&[("ababx", "+")], false, "abababX", "ab+"),
            (&[("aabb", "+"), ("aaabb", "-")], false, "aaabb", "-"),
            (&[("ab", "+"), ("abc", "-")], false, "abcab", "+c+"),
            (&[("abc", "-"), ("ab", "+")], false, "abcabd", "-+d"),
            (&[("aab", "+"), ("yyz", "-")], true, "aabaabyyzyyz", "+aab-yyz"),
            (&[("foo", "")], false, "foofoo", ""),
            (&[("x", "xx")], false, "axa", "axxa"),
        ] {
            for size in 1..=body.len() {
                let found = replaced(pairs, once, body, size);
                assert_eq!(found, expected, "{pairs:?} in {body} in pieces of {size}");
            }
        }
    }
}
