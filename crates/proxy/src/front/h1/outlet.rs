//! An answer on an HTTP/1 connection: the bytes that nginx would send.
//!
//! The order of fields is nginx's: status line, Server, Date, Content-Type, Content-Length,
//! Last-Modified, an absolute Location, Transfer-Encoding, Connection, Keep-Alive, and then
//! everything else as it was added.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wssgate_config::model::{Location, LogLevel};
use wssgate_http1::{
    Fields, Version, encode_chunk_head, encode_last_chunk, reason, write_end, write_field,
    write_status_line,
};

use super::client::Client;
use crate::clock;
use crate::exchange::outlet::{Framing, Gone, Outlet};
use crate::exchange::request::Traffic;
use crate::exchange::response::{is_bodiless, leading_fields, server_name};
use crate::exchange::{Reply, Request};

/// How much is collected before it is written.
const COLLECT: usize = 8 * 1024;

/// How much is collected of small pieces, as filters make many of one that they were given; nginx
/// has as much of a page in one chunk (`output_buffers`).
const COLLECT_SMALL: usize = 32 * 1024;

/// The largest of these. Further ones are not worth copying.
const SMALL: usize = 1024;

/// More bytes than most heads have.
const USUAL_HEAD: usize = 512;

/// The way of one answer to the client of a connection.
pub(crate) struct WireOutlet {
    client: Rc<Client>,
    traffic: Rc<Traffic>,
    chunked: bool,
    /// Encoded, not yet written.
    pending: BytesMut,
    /// Where in `pending` a chunk begins that has no head yet: pieces become one chunk until
    /// something is written.
    chunk: Option<usize>,
    /// Goes behind `pending`: a piece that was not worth copying.
    piece: Bytes,
}

impl WireOutlet {
    /// Answers on `client`.
    pub(crate) fn new(client: Rc<Client>, traffic: Rc<Traffic>) -> Self {
        let (pending, piece) = Default::default();
        Self { client, traffic, chunked: false, pending, chunk: None, piece }
    }
}

impl Outlet for WireOutlet {
    fn early_hints(&mut self, fields: &Fields) {
        let start = self.pending.len();
        let mut written = write_status_line(&mut self.pending, 103, b"Early Hints").is_ok();
        for (name, value) in fields {
            written &= write_field(&mut self.pending, name, value).is_ok();
        }
        match written {
            true => write_end(&mut self.pending),
            // Fields of a head that was parsed can be written; hints are worth no more trouble.
            false => self.pending.truncate(start),
        }
    }

    fn head(&mut self, request: &mut Request, mut reply: Reply) -> Framing {
        let generation = request.generation.clone();
        let location = &generation.http().locations[request.route.location.0];
        let framing = choose_framing(request, &mut reply, location);
        if request.arrival.version == Version::Http09 {
            return framing;
        }
        self.chunked = framing == Framing::Delimited;
        let fields = fields(request, &reply, location, self.chunked);
        request.response.head_len =
            write_head(&mut self.pending, request, &reply, location, &fields);
        request.response.fields = fields;
        framing
    }

    fn body(&mut self, piece: Bytes) {
        debug_assert!(!self.is_full(), "the piece before this one is not written");
        if self.chunked {
            self.chunk.get_or_insert(self.pending.len());
        }
        let most = if piece.len() <= SMALL { COLLECT_SMALL } else { COLLECT };
        if self.pending.len() + piece.len() <= most {
            return self.pending.put_slice(&piece);
        }
        self.begin_chunk(piece.len());
        self.piece = piece;
    }

    fn end(&mut self, trailers: &Fields) {
        self.close_chunk();
        if encode_last_chunk(&mut self.pending, trailers).is_err() {
            self.pending.put_slice(b"0\r\n\r\n");
        }
    }

    fn is_full(&self) -> bool {
        !self.piece.is_empty()
    }

    fn is_written(&self) -> bool {
        self.pending.is_empty() && self.piece.is_empty()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<usize, Gone>> {
        self.close_chunk();
        let pending = &self.pending[..self.pending.len().min(most)];
        let piece = &self.piece[..self.piece.len().min(most - pending.len())];
        let written = match self.client.poll_write(cx, pending, piece) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone::Closed)),
            Poll::Ready(Ok(written)) => written,
        };
        self.traffic.add_sent(written);
        let of_pending = written.min(self.pending.len());
        self.pending.advance(of_pending);
        let had_piece = self.is_full();
        self.piece.advance(written - of_pending);
        // Its end was held back, since nothing may come between `pending` and the piece.
        if had_piece && !self.is_full() {
            self.end_chunk();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.client.poll_flush(cx).map_err(|_| Gone::Closed)
    }

    fn on_timeout(&mut self) {
        self.client.on_timeout();
    }
}

impl WireOutlet {
    /// Ends the chunk that has no head yet.
    fn close_chunk(&mut self) {
        if self.begin_chunk(0) {
            self.end_chunk();
        }
    }

    /// Puts its head before the chunk that has none, of which `behind` bytes are yet to come.
    fn begin_chunk(&mut self, behind: usize) -> bool {
        let Some(start) = self.chunk.take() else { return false };
        let end = self.pending.len();
        encode_chunk_head(&mut self.pending, (end - start + behind) as u64);
        let head_len = self.pending.len() - end;
        self.pending[start..].rotate_right(head_len);
        true
    }

    fn end_chunk(&mut self) {
        if self.chunked {
            self.pending.put_slice(b"\r\n");
        }
    }
}

/// Decides how the body ends, and whether the connection can be kept; nginx's chunked filter.
fn choose_framing(request: &mut Request, reply: &mut Reply, location: &Location) -> Framing {
    let version = request.arrival.version;
    if version == Version::Http09 {
        request.fate.keepalive = false;
        return Framing::Plain(reply.length);
    }
    if is_bodiless(request, reply) {
        return Framing::Empty;
    }
    let in_chunks = version == Version::Http11 && location.settings.chunked_transfer_encoding;
    match reply.length {
        // Trailers can only follow chunks (RFC 9112 §7.1.2), so they cost the answer its length.
        Some(_) if !(reply.trailers && in_chunks) => Framing::Plain(reply.length),
        _ if in_chunks => {
            reply.length = None;
            Framing::Delimited
        }
        _ => {
            // Without chunks the end of the connection is the end of the body (RFC 9112 §6.3).
            request.fate.keepalive = false;
            Framing::Plain(reply.length)
        }
    }
}

/// All fields but Server and Date, in nginx's order.
fn fields(
    request: &Request,
    reply: &Reply,
    location: &Location,
    chunked: bool,
) -> Vec<(Bytes, Bytes)> {
    let mut fields = leading_fields(reply);
    let mut push = |name: &'static str, value: Bytes| {
        fields.push((Bytes::from_static(name.as_bytes()), value))
    };
    if chunked {
        push("Transfer-Encoding", Bytes::from_static(b"chunked"));
    }
    push("Connection", Bytes::from_static(connection(request, reply)));
    if let Some(timeout) = keepalive_timeout(request, reply, location) {
        push("Keep-Alive", format!("timeout={}", timeout.as_secs()).into());
    }
    fields.extend(reply.fields.iter().cloned());
    fields
}

fn connection(request: &Request, reply: &Reply) -> &'static [u8] {
    match (reply.status, request.fate.keepalive) {
        // In lower case whatever the upstream wrote, as nginx has it.
        (101, _) => b"upgrade",
        // Who sends Upgrade must name it here (RFC 9110 §7.8), as a response with this status does.
        (426, kept) if reply.field("upgrade").is_some() => match kept {
            true => b"keep-alive, upgrade",
            false => b"close, upgrade",
        },
        (_, true) => b"keep-alive",
        (_, false) => b"close",
    }
}

fn keepalive_timeout(request: &Request, reply: &Reply, location: &Location) -> Option<Duration> {
    let kept = request.fate.keepalive && reply.status != 101;
    location.settings.keepalive_header.filter(|_| kept)
}

/// Writes a head and gives its length. A value that would break the head is left out.
fn write_head(
    out: &mut BytesMut,
    request: &Request,
    reply: &Reply,
    location: &Location,
    fields: &[(Bytes, Bytes)],
) -> u64 {
    let start = out.len();
    out.reserve(USUAL_HEAD);
    write_status(out, reply);
    let has = |name: &str| reply.field(name).is_some();
    let mut put = |name: &[u8], value: &[u8]| {
        // A line end behind a value written in the configuration is harmless without it.
        if write_field(out, name, value.trim_ascii_end()).is_err() {
            let name = name.escape_ascii();
            request
                .log(LogLevel::Error, format_args!("invalid response header \"{name}\" dropped"));
        }
    };
    if !has("server") && !reply.without_server {
        put(b"Server", server_name(&location.settings.server_tokens).as_bytes());
    }
    if !has("date") && !reply.without_date {
        put(b"Date", clock::http_date(clock::now()).as_bytes());
    }
    for (name, value) in fields {
        put(name, value);
    }
    write_end(out);
    (out.len() - start) as u64
}

/// The status line; as in nginx a status without a phrase ends in a space.
fn write_status(out: &mut BytesMut, reply: &Reply) {
    let text = reply.status_text.as_deref().filter(|text| text.len() >= 3);
    let phrase = match text {
        Some(text) => text[3..].strip_prefix(b" ").unwrap_or_default(),
        None => reason(reply.status).as_bytes(),
    };
    if write_status_line(out, reply.status, phrase).is_err() {
        out.put_slice(format!("HTTP/1.1 {} \r\n", reply.status).as_bytes());
    }
}
