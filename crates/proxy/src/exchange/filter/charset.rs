//! `charset`: which one an answer names, and the conversion to it.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use wssgate_config::model::{CharsetMap, Location, LogLevel};

use super::{Filter, Step};
use crate::exchange::request::Request;
use crate::exchange::response::Reply;

/// Names the charset in a head; gives the conversion that the body needs, if it does.
pub(crate) fn apply(
    request: &Request,
    reply: &mut Reply,
    location: &Location,
) -> Option<Conversion> {
    // Nothing is wanted of any answer.
    if request.http().charsets.is_empty() && location.settings.filters.charset.name.is_none() {
        return None;
    }
    let said = reply.content_type.as_deref().and_then(|text| split(text).1);
    let said = said.map(Bytes::copy_from_slice);
    let Some(wanted) = destination(request, reply, location, said.is_some()) else {
        if !request.is_subrequest() {
            *request.values.charset.borrow_mut() = said;
        }
        return None;
    };
    let source = said.or_else(|| {
        let source = location.settings.filters.charset.source.as_ref();
        source.map(|text| request.text(text)).filter(|text| !text.is_empty())
    });
    let conversion = match source {
        None => None,
        Some(source) if source.eq_ignore_ascii_case(&wanted) => None,
        Some(_) if reply.field("content-encoding").is_some_and(|text| !text.is_empty()) => {
            return None;
        }
        Some(source) => Some(conversion(request, &source, &wanted)?),
    };
    if !request.is_subrequest() {
        name_charset(reply, &wanted);
        *request.values.charset.borrow_mut() = Some(wanted);
    }
    if conversion.as_ref().is_some_and(Conversion::changes_length) {
        reply.length = None;
    }
    conversion
}

/// What the answer shall be in. A subrequest's goes into that of its parent.
fn destination(
    request: &Request,
    reply: &Reply,
    location: &Location,
    says_one: bool,
) -> Option<Bytes> {
    reply.content_type.as_ref().filter(|text| !text.is_empty())?;
    if request.is_subrequest() {
        return request.values.charset.borrow().clone();
    }
    if let Some(name) = reply.override_charset.as_ref().filter(|name| !name.is_empty()) {
        if is_known(request, name) {
            return Some(name.clone());
        }
        let name = name.escape_ascii();
        request.log(LogLevel::Error, format_args!("unknown charset \"{name}\" to override"));
        return None;
    }
    let charset = &location.settings.filters.charset;
    let name = charset.name.as_ref()?;
    let applies = match says_one {
        true => charset.overrides,
        false => charset.types.covers(media_type(reply)),
    };
    Some(request.text(name)).filter(|name| applies && !name.is_empty())
}

fn is_known(request: &Request, name: &[u8]) -> bool {
    request.http().charsets.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The type of an answer without its charset.
pub(super) fn media_type(reply: &Reply) -> Option<&[u8]> {
    reply.content_type.as_deref().map(|text| split(text).0)
}

/// What a Content-Type says before its charset, other parameters included, and the charset. As in nginx
/// that is all that stands behind `charset=`.
fn split(content_type: &[u8]) -> (&[u8], Option<&[u8]>) {
    let ends = content_type.iter().enumerate().filter(|(_, byte)| **byte == b';');
    let found = ends.map(|(end, _)| end).find_map(|end| {
        let behind = content_type[end + 1..].trim_ascii_start();
        let (name, value) = behind.split_at_checked(b"charset=".len())?;
        name.eq_ignore_ascii_case(b"charset=").then_some((end, value))
    });
    let Some((end, value)) = found else { return (content_type, None) };
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let value = value.strip_suffix(b"\"").unwrap_or(value);
    (&content_type[..end], Some(value).filter(|value| !value.is_empty()))
}

/// Puts a charset into the Content-Type, in place of its own.
fn name_charset(reply: &mut Reply, charset: &[u8]) {
    let Some(media_type) = media_type(reply) else { return };
    // As in nginx: an old browser took the charset of a redirect for that of the next page.
    reply.content_type = Some(match reply.status {
        301 | 302 => Bytes::copy_from_slice(media_type),
        _ => [media_type, b"; charset=", charset].concat().into(),
    });
}

/// The conversion between two charsets; `None` when there is none, which is logged.
fn conversion(request: &Request, from: &[u8], to: &[u8]) -> Option<Conversion> {
    let map = request.http().charset_maps.iter().find(|map| map.joins(from, to));
    let Some(map) = map else {
        let (from, to) = (from.escape_ascii(), to.escape_ascii());
        let message = format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
        request.log(LogLevel::Error, message);
        return None;
    };
    let forth = map.from.eq_ignore_ascii_case(from) && map.to.eq_ignore_ascii_case(to);
    Some(Conversion::new(map, forth))
}

/// Converts a body.
pub(crate) struct Conversion {
    table: Table,
    piece: Bytes,
    /// The beginning of a character whose end has not come.
    cut: Vec<u8>,
    ended: bool,
}

enum Table {
    Bytes(Box<[u8; 256]>),
    ToUtf8(Vec<Box<[u8]>>),
    FromUtf8(HashMap<char, u8>),
}

impl Conversion {
    /// By a map, `forth` or back.
    fn new(map: &CharsetMap, forth: bool) -> Self {
        let ascii = |byte: u8| if byte < 128 { byte } else { b'?' };
        let table = match (map.is_utf8(), forth) {
            (true, true) => {
                let mut table: Vec<Box<[u8]>> =
                    (0..=255).map(|byte| [ascii(byte)].into()).collect();
                for (from, to) in &*map.pairs {
                    table[usize::from(*from)].clone_from(to);
                }
                Table::ToUtf8(table)
            }
            (true, false) => {
                let mut table: HashMap<char, u8> =
                    (0..128u8).map(|byte| (char::from(byte), byte)).collect();
                for (from, to) in &*map.pairs {
                    let character =
                        std::str::from_utf8(to).ok().and_then(|text| text.chars().next());
                    table.extend(character.map(|character| (character, *from)));
                }
                Table::FromUtf8(table)
            }
            (false, _) => {
                let mut table = Box::new([0; 256]);
                (0..=255).for_each(|byte| table[usize::from(byte)] = ascii(byte));
                for (from, to) in &*map.pairs {
                    let to = to.first().copied().unwrap_or(b'?');
                    let (from, to) = if forth { (*from, to) } else { (to, *from) };
                    table[usize::from(from)] = to;
                }
                Table::Bytes(table)
            }
        };
        Self { table, piece: Bytes::new(), cut: Vec::new(), ended: false }
    }

    fn changes_length(&self) -> bool {
        !matches!(self.table, Table::Bytes(_))
    }

    fn convert(&mut self, piece: &[u8]) -> BytesMut {
        let mut out = BytesMut::with_capacity(piece.len());
        match &self.table {
            Table::Bytes(table) => {
                out.extend(piece.iter().map(|byte| table[usize::from(*byte)]));
            }
            Table::ToUtf8(table) => {
                piece.iter().for_each(|byte| out.put_slice(&table[usize::from(*byte)]));
            }
            Table::FromUtf8(table) => {
                let whole = [&self.cut, piece].concat();
                self.cut = from_utf8(&mut out, table, &whole).to_vec();
            }
        }
        out
    }
}

/// Converts all but an unfinished character at the end, and gives that back.
fn from_utf8<'t>(out: &mut BytesMut, table: &HashMap<char, u8>, mut text: &'t [u8]) -> &'t [u8] {
    loop {
        let (valid, wrong) = match std::str::from_utf8(text) {
            Ok(_) => (text.len(), None),
            Err(error) => (error.valid_up_to(), Some(error.error_len())),
        };
        // What was found to be valid.
        let known = std::str::from_utf8(&text[..valid]).unwrap_or_default();
        for character in known.chars() {
            match table.get(&character) {
                Some(byte) => out.put_u8(*byte),
                None => out.put_slice(format!("&#{};", u32::from(character)).as_bytes()),
            }
        }
        text = &text[valid..];
        match wrong {
            None | Some(None) => return text,
            Some(Some(len)) => {
                out.put_u8(b'?');
                text = &text[len..];
            }
        }
    }
}

impl Filter for Conversion {
    fn give(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn next(&mut self, _: &Request) -> Step {
        let piece = std::mem::take(&mut self.piece);
        let mut out = self.convert(&piece);
        if self.ended && !std::mem::take(&mut self.cut).is_empty() {
            out.put_u8(b'?');
        }
        if out.is_empty() { Step::Idle } else { Step::Piece(out.freeze()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(to: &str, pairs: &[(u8, &str)]) -> CharsetMap {
        let pairs = pairs.iter().map(|(from, to)| (*from, to.as_bytes().into())).collect();
        CharsetMap { from: b"koi8-r".as_slice().into(), to: to.as_bytes().into(), pairs }
    }

    #[test]
    fn characters_are_converted_however_they_are_cut() {
        let euro = map("utf-8", &[(0x80, "€"), (0xc1, "а")]);
        let back = "a€б\u{1f600}а\u{fffd}";
        let mut text = back.as_bytes().to_vec();
        text.extend_from_slice(b"\xff!\xe2\x82");
        for size in 1..=text.len() {
            let mut conversion = Conversion::new(&euro, false);
            let mut out = BytesMut::new();
            text.chunks(size).for_each(|piece| out.extend(conversion.convert(piece)));
            assert_eq!(out, b"a\x80&#1073;&#128512;\xc1&#65533;?!"[..], "in pieces of {size}");
            assert_eq!(conversion.cut, b"\xe2\x82");
        }
        let mut forth = Conversion::new(&euro, true);
        assert_eq!(forth.convert(b"a\x80\xc1\xc2"), "a€а?".as_bytes());
    }

    #[test]
    fn bytes_are_converted_both_ways() {
        let other = map("b", &[(b'X', "Y")]);
        assert_eq!(Conversion::new(&other, true).convert(b"aXY\xff"), b"aYY?"[..]);
        assert_eq!(Conversion::new(&other, false).convert(b"aXY"), b"aXX"[..]);
    }

    #[test]
    fn a_type_is_divided_before_its_charset() {
        for (text, media_type, charset) in [
            ("text/html; charset=UTF-8", "text/html", Some("UTF-8")),
            ("text/html;a=b; Charset=\"koi8-r\"", "text/html;a=b", Some("koi8-r")),
            ("text/html;charset=a; b=c", "text/html", Some("a; b=c")),
            ("text/html; charset=", "text/html", None),
            ("text/html; profile=\"x\"", "text/html; profile=\"x\"", None),
            ("multipart/x; boundary=charset=", "multipart/x; boundary=charset=", None),
            ("text/html;", "text/html;", None),
            ("text/html", "text/html", None),
        ] {
            let found = split(text.as_bytes());
            assert_eq!(found, (media_type.as_bytes(), charset.map(str::as_bytes)), "{text}");
        }
    }
}
