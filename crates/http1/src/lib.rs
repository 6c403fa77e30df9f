//! HTTP/1.1 messages without I/O: heads, request URIs and body framing, in both directions.
//!
//! Everything here is a function of bytes: parsers are handed a growing buffer and say "more", "here it is" or
//! "this is wrong, because"; writers append to a buffer. Nothing owns a socket or reads a clock.
//!
//! - [`RequestParser`] and [`ResponseParser`] read heads line by line and never look at a byte twice, however the
//!   input was cut. The bytes of a head stay in the buffer they arrived in; a head adds an index to them.
//! - Messages from clients are held to RFC 9112 where two readings could let a request be smuggled, and to nginx's
//!   rules for the rest; answers from upstreams are read as tolerantly as nginx does.
//! - [`Framing`] says where a body ends, [`BodyDecoder`] follows it, [`encode_chunk`] and friends produce one.
//! - [`Uri`] is nginx's idea of `$uri` and `$args`; [`escape`](mod@escape) and [`unescape`] are its transformations of text.
//!
//! Heads are split by our own line scanner and not by a general tokeniser: limits count per line as nginx's do, names
//! that nginx ignores must not end the request, HTTP/0.9 and HTTP/1.7 exist, and a slow sender must not make us
//! start over with every packet. The tests hold it against `httparse` on everything both accept.

mod body;
mod escape;
mod fields;
mod framing;
mod host;
mod limits;
mod lines;
mod method;
mod request;
mod request_head;
mod request_line;
mod response;
mod uri;
mod write;

pub use body::{
    BodyDecoder, BodyError, CHUNK_END, ChunkedDecoder, Decoded, MAX_CHUNK_EXTENSIONS, MAX_TRAILERS,
    encode_chunk, encode_chunk_head, encode_last_chunk,
};
pub use escape::{Escape, Unescape, escape, unescape};
pub use fields::{FieldIter, Fields};
pub use framing::{Framing, FramingError, request_framing, response_framing};
pub use host::{Host, InvalidHost};
pub use limits::Limits;
pub use method::{Method, Version};
pub use request::{HeadError, RequestParser};
pub use request_head::RequestHead;
pub use response::{ResponseError, ResponseHead, ResponseParser};
pub use uri::{InvalidUri, Uri};
pub use write::{
    WriteError, reason, write_end, write_field, write_fields, write_request_line, write_status_line,
};
