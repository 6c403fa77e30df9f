//! Lines of a head, found in a buffer that grows.
//!
//! A position is remembered for the start of the current line and one for how far it was searched, so that input
//! arriving byte by byte costs no more than input arriving at once.

/// A range of a head's bytes. Heads are bounded far below 4 GiB (see [`MAX_HEAD`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

/// No head may be longer, whatever the configuration says: spans are 32 bits wide.
pub(crate) const MAX_HEAD: usize = 1 << 30;

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        // Bounded by MAX_HEAD, so nothing is cut off.
        Self { start: start as u32, end: end as u32 }
    }

    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    pub(crate) fn end(self) -> usize {
        self.end as usize
    }

    pub(crate) fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start()..self.end()]
    }

    /// The same range seen from `base` bytes further left.
    pub(crate) fn shift(self, base: usize) -> Self {
        Self::new(self.start() + base, self.end() + base)
    }
}

/// A complete line: its text without the terminator, and where the next one starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) text: Span,
    pub(crate) next: usize,
}

impl Line {
    /// Length with its terminator, as limits count it.
    pub(crate) fn len(&self) -> usize {
        self.next - self.text.start()
    }
}

/// Finds lines in a buffer to which bytes are only ever added.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    start: usize,
    searched: usize,
    last: usize,
}

impl Lines {
    /// The next line, ended by CRLF or, as RFC 9112 §2.2 allows a recipient, by a bare LF.
    pub(crate) fn next(&mut self, input: &[u8]) -> Option<Line> {
        self.last = self.start;
        let from = self.searched.max(self.start);
        let Some(at) = memchr::memchr(b'\n', input.get(from..)?) else {
            self.searched = input.len();
            return None;
        };
        let (start, lf) = (self.start, from + at);
        // Only the CR of the CRLF is taken off. One before it stays in the text, where it is a
        // control character that the caller refuses.
        let end = if lf > start && input[lf - 1] == b'\r' { lf - 1 } else { lf };
        self.start = lf + 1;
        Some(Line { text: Span::new(start, end), next: lf + 1 })
    }

    /// Where the line starts that is being read.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// The line that was given out last, or that is still incomplete, without its end.
    pub(crate) fn last_text<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        let rest = input.get(self.last..).unwrap_or_default();
        let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(rest.len());
        &rest[..end]
    }

    /// Whether nothing was looked at yet.
    pub(crate) fn untouched(&self) -> bool {
        self.start == 0 && self.searched == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_lf_and_loses_one_cr() {
        let input = b"a\r\nb\n\r\r\n\n";
        let mut lines = Lines::default();
        let texts: Vec<&[u8]> =
            std::iter::from_fn(|| lines.next(input)).map(|l| l.text.of(input)).collect();
        assert_eq!(texts, [&b"a"[..], b"b", b"\r", b""]);
    }

    #[test]
    fn a_line_is_found_when_its_end_arrives() {
        let input = b"abc\r\n";
        let mut lines = Lines::default();
        for n in 0..input.len() {
            assert!(lines.next(&input[..n]).is_none());
        }
        assert_eq!(lines.next(input).unwrap().text.of(input), b"abc");
        assert_eq!(lines.start(), 5);
    }
}
