//! Parts of a body that `Range` asks for (RFC 9110 §14), as nginx answers them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use wssgate_config::model::Location;
use wssgate_http1::Version;

use super::{Filter, Step};
use crate::clock;
use crate::exchange::request::Request;
use crate::exchange::response::{Reply, Seeking};

/// How many ranges one request may ask for where `max_ranges` sets no bound. As many as fit in the
/// largest head would cost more than they are worth.
const MOST: u64 = 1024;

/// The ranges that are asked for lie behind the end: 416.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsatisfiable {
    /// Bytes of the whole.
    pub(crate) len: u64,
}

/// From and to, the end not included.
pub(crate) type Part = (u64, u64);

/// Cuts a body to its parts.
#[derive(Debug)]
pub(crate) struct Ranges {
    parts: Vec<Part>,
    /// Of the whole.
    len: u64,
    /// What is still to come.
    left: VecDeque<Piece>,
    piece: Bytes,
}

/// One thing after the other that an answer with ranges consists of.
#[derive(Debug)]
enum Piece {
    /// Bytes of the content that nobody wants.
    Skip(u64),
    /// Bytes of the content.
    Pass(u64),
    /// A text between parts.
    Text(Bytes),
}

impl Ranges {
    /// The ranges that are to be answered; `None`: the whole.
    ///
    /// # Errors
    /// When there is nothing to give.
    pub(crate) fn of(
        request: &Request,
        reply: &Reply,
        location: &Location,
    ) -> Result<Option<Self>, Unsatisfiable> {
        let max = location.settings.max_ranges;
        let Some(len) = reply.length.filter(|_| is_offered(request, reply, max)) else {
            return Ok(None);
        };
        let Some(text) = request.field("range").filter(|_| is_unchanged(request, reply)) else {
            return Ok(None);
        };
        let max = match reply.seeking {
            Seeking::Anywhere => max,
            Seeking::Forward => Some(1),
        };
        let parts = parse(text, len, max)?;
        Ok(parts.map(|parts| Self { parts, len, left: VecDeque::new(), piece: Bytes::new() }))
    }

    /// Makes of the head of the whole that of its parts.
    pub(crate) fn apply(&mut self, reply: &mut Reply) {
        reply.status = 206;
        reply.status_text = None;
        if let [(start, end)] = self.parts[..] {
            reply.push("Content-Range", content_range(start, end, self.len));
            reply.length = Some(end - start);
            if reply.seeking == Seeking::Forward && start > 0 {
                self.left.push_back(Piece::Skip(start));
            }
            self.left.push_back(Piece::Pass(end - start));
            return;
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let now = clock::since_epoch(clock::now()).as_micros();
        let boundary =
            format!("{:010}{:010}", now % 10_000_000_000, NEXT.fetch_add(1, Ordering::Relaxed));
        let content_type = reply.content_type.take();
        let mut total = 0;
        for &(start, end) in &self.parts {
            let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
            if let Some(content_type) = &content_type {
                head.extend_from_slice(b"Content-Type: ");
                head.extend_from_slice(content_type);
                head.extend_from_slice(b"\r\n");
            }
            head.extend_from_slice(b"Content-Range: ");
            head.extend_from_slice(&content_range(start, end, self.len));
            head.extend_from_slice(b"\r\n\r\n");
            total += head.len() as u64 + end - start;
            self.left.push_back(Piece::Text(head.into()));
            self.left.push_back(Piece::Pass(end - start));
        }
        let last = format!("\r\n--{boundary}--\r\n");
        total += last.len() as u64;
        self.left.push_back(Piece::Text(last.into()));
        reply.length = Some(total);
        reply.content_type = Some(format!("multipart/byteranges; boundary={boundary}").into());
    }

    /// The parts of the content, in the order in which they are to be given.
    pub(crate) fn parts(&self) -> Vec<Part> {
        self.parts.clone()
    }
}

impl Filter for Ranges {
    fn give(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    fn end(&mut self) {}

    fn next(&mut self, _: &Request) -> Step {
        loop {
            let take = |left: &mut u64, piece: &mut Bytes| {
                let len = usize::try_from(*left).map_or(piece.len(), |n| n.min(piece.len()));
                *left -= len as u64;
                piece.split_to(len)
            };
            match self.left.front_mut() {
                // What follows the last part is not wanted.
                None => {
                    self.piece.clear();
                    return Step::Idle;
                }
                Some(Piece::Text(text)) => {
                    let text = std::mem::take(text);
                    self.left.pop_front();
                    return Step::Piece(text);
                }
                Some(Piece::Skip(0) | Piece::Pass(0)) => {
                    self.left.pop_front();
                }
                Some(_) if self.piece.is_empty() => return Step::Idle,
                Some(Piece::Skip(left)) => {
                    take(left, &mut self.piece);
                }
                Some(Piece::Pass(left)) => return Step::Piece(take(left, &mut self.piece)),
            }
        }
    }
}

/// Whether a client may ask for ranges, and learns that it may.
pub(crate) fn is_offered(request: &Request, reply: &Reply, max: Option<u64>) -> bool {
    reply.accept_ranges
        && reply.status == 200
        && reply.length.is_some()
        && !request.is_subrequest()
        && request.arrival.version != Version::Http09
        && max != Some(0)
}

/// `If-Range`: whether the client has the rest of the same thing.
fn is_unchanged(request: &Request, reply: &Reply) -> bool {
    match request.field("if-range") {
        None => true,
        // A date has no quote at its end. Tags are compared as they are: a weak one must not match
        // here (RFC 9110 §13.1.5), and ours are strong.
        Some(tag @ [_, .., b'"']) => reply.field("etag").is_some_and(|etag| &etag[..] == tag),
        Some(date) => {
            let modified = reply
                .last_modified
                .or_else(|| clock::parse_http_date(reply.field("last-modified")?));
            modified.is_some() && clock::parse_http_date(date) == modified
        }
    }
}

/// The ranges of a body of `len` bytes; `None` when the whole is to be sent: there are more than `max`,
/// or they are longer than the whole.
fn parse(text: &[u8], len: u64, max: Option<u64>) -> Result<Option<Vec<Part>>, Unsatisfiable> {
    let bad = Unsatisfiable { len };
    let Some((unit, list)) = text.split_at_checked(6).filter(|(_, list)| !list.is_empty()) else {
        return Ok(None);
    };
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Ok(None);
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut total: u64 = 0;
    for one in list.split(|&byte| byte == b',') {
        let (start, end) = bounds(one, len).ok_or(bad)?;
        if start < end {
            if parts.len() as u64 >= max.unwrap_or(MOST) {
                return Ok(None);
            }
            total = total.saturating_add(end - start);
            parts.push((start, end));
        } else if start == 0 {
            // Of an empty body there is nothing but the whole.
            return Ok(None);
        }
    }
    match parts.len() {
        0 => Err(bad),
        1 => Ok(Some(parts)),
        // As in nginx: many small ranges cost more than the whole when each has its head.
        _ if total > len => Ok(None),
        count if max.is_none() && total + count as u64 * 256 > len + 4096 => Ok(None),
        _ => Ok(Some(parts)),
    }
}

/// One range, cut to the body; empty when it lies behind it. `None` when it is none.
fn bounds(text: &[u8], len: u64) -> Option<Part> {
    let dash = text.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (text[..dash].trim_ascii(), text[dash + 1..].trim_ascii());
    if first.is_empty() {
        let suffix = number(last)?;
        return Some((len.saturating_sub(suffix), len));
    }
    let start = number(first)?;
    let end = match last {
        [] => len,
        last => number(last)?.saturating_add(1).min(len),
    };
    Some((start, end))
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// `bytes 0-4/10`.
fn content_range(start: u64, end: u64, len: u64) -> Bytes {
    format!("bytes {start}-{}/{len}", end.saturating_sub(1)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_body() {
        let bad = Err(Unsatisfiable { len: 10 });
        for (text, max, expected) in [
            ("bytes=0-4", None, Ok(Some(vec![(0, 5)]))),
            ("bytes=5-", None, Ok(Some(vec![(5, 10)]))),
            ("bytes=-3", None, Ok(Some(vec![(7, 10)]))),
            ("bytes=-30", None, Ok(Some(vec![(0, 10)]))),
            ("bytes=8-99", None, Ok(Some(vec![(8, 10)]))),
            ("Bytes=0-0", None, Ok(Some(vec![(0, 1)]))),
            ("bytes= 0 - 1 ", None, Ok(Some(vec![(0, 2)]))),
            ("bytes=10-", None, bad.clone()),
            ("bytes=5-4", None, bad.clone()),
            ("bytes=-0", None, bad.clone()),
            ("bytes=x-1", None, bad.clone()),
            ("bytes=0-1,x", None, bad),
            ("bytes=", None, Ok(None)),
            ("items=0-1", None, Ok(None)),
            ("bytes=0-1,3-4", None, Ok(Some(vec![(0, 2), (3, 5)]))),
            ("bytes=5-6, 0-1, 20-30", None, Ok(Some(vec![(5, 7), (0, 2)]))),
            ("bytes=0-1,3-4", Some(1), Ok(None)),
            ("bytes=0-5,3-9", None, Ok(None)),
        ] {
            assert_eq!(parse(text.as_bytes(), 10, max), expected, "{text}");
        }
        assert_eq!(parse(b"bytes=0-0", 0, None), Ok(None));
        assert_eq!(content_range(0, 5, 10), "bytes 0-4/10");
    }

    #[test]
    fn many_tiny_ranges_are_answered_with_the_whole() {
        let text = format!("bytes={}", vec!["0-0"; 40].join(","));
        assert_eq!(parse(text.as_bytes(), 1000, None), Ok(None));
        assert!(parse(text.as_bytes(), 1000, Some(40)).is_ok_and(|parts| parts.is_some()));
        assert!(parse(text.as_bytes(), 1000, Some(39)).is_ok_and(|parts| parts.is_none()));
    }
}
