//! How a listing looks: nginx's formats byte for byte, made piece by piece.

use bytes::{BufMut, Bytes, BytesMut};
use wssgate_config::model::{Autoindex, ListingFormat};
use wssgate_http1::{Escape, escape};

use super::directory::{Entries, Entry, Kind};
use crate::clock;
use crate::exchange::Request;
use crate::exchange::escape::{put_html, put_json};

/// When a piece is large enough, in bytes.
const PIECE: usize = 32 * 1024;

/// How many characters of a name are shown in HTML.
const NAME_WIDTH: usize = 50;

/// What is wanted.
pub(super) enum Style {
    Html(Html),
    /// With the function that is called.
    Json(Option<Bytes>),
    Xml,
}

/// A page for people.
pub(super) struct Html {
    /// The path of the directory.
    path: Bytes,
    /// Whether names are UTF-8, so that characters are counted, not bytes.
    utf8: bool,
    exact_size: bool,
    /// What is added to the times of files, in seconds.
    offset: i64,
}

impl Style {
    /// How the answer to `request` shall look, whose head was made.
    pub(super) fn of(request: &Request, wanted: &Autoindex, callback: Option<Bytes>) -> Self {
        match wanted.format {
            ListingFormat::Xml => Self::Xml,
            ListingFormat::Json | ListingFormat::Jsonp => Self::Json(callback),
            ListingFormat::Html => {
                let charset = request.values.charset.borrow();
                let is_utf8 = |name: &Bytes| name.eq_ignore_ascii_case(b"utf-8");
                // A part of a page has no charset of its own.
                let utf8 = !request.is_subrequest() && charset.as_ref().is_some_and(is_utf8);
                // As in nginx the difference of today, not of the day when the file was changed.
                let offset = if wanted.localtime { clock::utc_offset(clock::now()) } else { 0 };
                let (path, exact_size) = (request.target.path.clone(), wanted.exact_size);
                Self::Html(Html { path, utf8, exact_size, offset })
            }
        }
    }

    fn put_head(&self, out: &mut BytesMut) {
        match self {
            Self::Html(html) => {
                out.put_slice(b"<html>\r\n<head><title>Index of ");
                put_html(out, &html.path);
                out.put_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
                put_html(out, &html.path);
                out.put_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
            }
            Self::Json(callback) => {
                if let Some(callback) = callback {
                    // The comment keeps what the client chose from the beginning of the file.
                    out.put_slice(b"/* callback */\r\n");
                    out.put_slice(callback);
                    out.put_u8(b'(');
                }
                out.put_u8(b'[');
            }
            Self::Xml => out.put_slice(b"<?xml version=\"1.0\"?>\r\n<list>\r\n"),
        }
    }

    fn put_entry(&self, out: &mut BytesMut, entry: &Entry<'_>, is_first: bool) {
        match self {
            Self::Html(html) => html.put_entry(out, entry),
            Self::Json(_) => {
                if !is_first {
                    out.put_u8(b',');
                }
                put_object(out, entry);
            }
            Self::Xml => put_element(out, entry),
        }
    }

    fn put_tail(&self, out: &mut BytesMut) {
        match self {
            Self::Html(_) => out.put_slice(b"</pre><hr></body>\r\n</html>\r\n"),
            Self::Json(None) => out.put_slice(b"\r\n]"),
            Self::Json(Some(_)) => out.put_slice(b"\r\n]);"),
            Self::Xml => out.put_slice(b"</list>\r\n"),
        }
    }
}

impl Html {
    fn put_entry(&self, out: &mut BytesMut, entry: &Entry<'_>) {
        let is_directory = entry.kind == Kind::Directory;
        let mut href = Vec::new();
        escape(&mut href, entry.name, Escape::UriComponent);
        out.put_slice(b"<a href=\"");
        out.put_slice(&href);
        out.put_slice(if is_directory { b"/\">" } else { b"\">" });
        self.put_name(out, entry.name, is_directory);
        let time = entry.modified.saturating_add(self.offset);
        let time = clock::format_utc(time, "%d-%b-%Y %H:%M");
        let width = if self.exact_size { 19 } else { 7 };
        let size = match (is_directory, self.exact_size) {
            (true, _) => "-".to_owned(),
            (false, true) => entry.size.to_string(),
            (false, false) => rounded(entry.size),
        };
        out.put_slice(format!(" {time} {size:>width$}\r\n").as_bytes());
    }

    /// The name in its column, cut or filled up, and the end of the link.
    fn put_name(&self, out: &mut BytesMut, name: &[u8], is_directory: bool) {
        let text = std::str::from_utf8(name).ok().filter(|_| self.utf8);
        let width = text.map_or(name.len(), |text| text.chars().count());
        if width > NAME_WIDTH {
            let kept = NAME_WIDTH - 3;
            let cut = text.and_then(|text| text.char_indices().nth(kept));
            put_html(out, &name[..cut.map_or(kept, |(at, _)| at)]);
            out.put_slice(b"..&gt;</a>");
            return;
        }
        put_html(out, name);
        let has_slash = is_directory && width < NAME_WIDTH;
        out.put_slice(if has_slash { b"/</a>" } else { b"</a>" });
        out.put_bytes(b' ', NAME_WIDTH - width - usize::from(has_slash));
    }
}

/// A size with its unit, rounded; below 10,000 the bytes themselves.
fn rounded(size: u64) -> String {
    let (unit, name) = match size {
        0x4000_0000.. => (1 << 30, 'G'),
        0x10_0000.. => (1 << 20, 'M'),
        10_000.. => (1 << 10, 'K'),
        _ => return size.to_string(),
    };
    format!("{}{name}", (size + unit / 2) / unit)
}

fn put_object(out: &mut BytesMut, entry: &Entry<'_>) {
    out.put_slice(b"\r\n{ \"name\":\"");
    put_json(out, entry.name);
    out.put_slice(b"\", \"type\":\"");
    out.put_slice(kind_name(entry.kind).as_bytes());
    out.put_slice(b"\", \"mtime\":\"");
    out.put_slice(clock::format_http_date(entry.modified).as_bytes());
    out.put_u8(b'"');
    if entry.kind == Kind::File {
        out.put_slice(format!(", \"size\":{}", entry.size).as_bytes());
    }
    out.put_slice(b" }");
}

fn put_element(out: &mut BytesMut, entry: &Entry<'_>) {
    let kind = kind_name(entry.kind);
    let time = clock::format_utc(entry.modified, "%Y-%m-%dT%H:%M:%SZ");
    out.put_slice(format!("<{kind} mtime=\"{time}\"").as_bytes());
    if entry.kind == Kind::File {
        out.put_slice(format!(" size=\"{}\"", entry.size).as_bytes());
    }
    out.put_u8(b'>');
    put_html(out, entry.name);
    out.put_slice(format!("</{kind}>\r\n").as_bytes());
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::File => "file",
        Kind::Other => "other",
    }
}

/// The pieces of a listing.
pub(super) struct Page {
    /// Until the last was shown.
    entries: Option<Entries>,
    style: Style,
    at: usize,
}

impl Page {
    /// A listing from its beginning.
    pub(super) fn new(entries: Entries, style: Style) -> Self {
        Self { entries: Some(entries), style, at: 0 }
    }
}

impl Iterator for Page {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let entries = self.entries.as_ref()?;
        let mut out = BytesMut::with_capacity(PIECE.min(256 * (entries.len() - self.at + 1)));
        if self.at == 0 {
            self.style.put_head(&mut out);
        }
        while self.at < entries.len() && out.len() < PIECE {
            self.style.put_entry(&mut out, &entries.at(self.at), self.at == 0);
            self.at += 1;
        }
        if self.at == entries.len() {
            self.style.put_tail(&mut out);
            self.entries = None;
        }
        Some(out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_nginx_does() {
        for (size, expected) in [
            (0, "0"),
            (9999, "9999"),
            (10_000, "10K"),
            (10_751, "10K"),
            (10_752, "11K"),
            (1_048_575, "1024K"),
            (1_048_576, "1M"),
            (1_572_863, "1M"),
            (1_572_864, "2M"),
            (1_073_741_823, "1024M"),
            (1_073_741_824, "1G"),
            (u64::MAX / 2, "8589934592G"),
        ] {
            assert_eq!(rounded(size), expected, "{size}");
        }
    }

    #[test]
    fn names_are_cut_by_characters_only_in_utf8() {
        let name = "é".repeat(26);
        for (utf8, shown) in [(true, 26), (false, 23)] {
            let style = Html { path: "/".into(), utf8, exact_size: true, offset: 0 };
            let mut out = BytesMut::new();
            style.put_name(&mut out, name.as_bytes(), false);
            let text = String::from_utf8_lossy(&out).into_owned();
            assert_eq!(text.matches('é').count(), shown, "{text}");
            assert_eq!(text.contains("..&gt;"), !utf8, "{text}");
        }
    }

    /// A listing of several pieces is the one that would be made at once.
    #[test]
    fn pieces_follow_each_other_without_a_seam() {
        let mut entries = Entries::default();
        for at in 0..3000 {
            entries.push(format!("{at:04}").as_bytes(), Kind::File, at, 1).expect("there is room");
        }
        let pieces: Vec<_> = Page::new(entries, Style::Json(None)).collect();
        assert!(pieces.len() > 3);
        let bound = PIECE + 200;
        assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() < bound));
        let text = String::from_utf8(pieces.concat()).expect("names are ASCII");
        let list: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let list = list.as_array().expect("it is a list");
        assert_eq!(list.len(), 3000);
        let last = (&list[2999]["name"], &list[2999]["size"]);
        assert_eq!(last, (&"2999".into(), &1.into()));
    }
}
