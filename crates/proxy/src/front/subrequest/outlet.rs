//! Where the answers to subrequests go that become no part of another one.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use wssgate_config::model::LogLevel;
use wssgate_http1::Fields;

use crate::exchange::outlet::{Framing, Gone, Outlet};
use crate::exchange::{Reply, Request, response};

/// Keeps the head of an answer in its request and wants no body.
pub(crate) struct HeadOnly;

impl Outlet for HeadOnly {
    fn head(&mut self, request: &mut Request, reply: Reply) -> Framing {
        note_fields(request, reply);
        Framing::Empty
    }

    fn body(&mut self, _: Bytes) {}

    fn end(&mut self, _: &Fields) {}

    fn is_full(&self) -> bool {
        false
    }

    fn is_written(&self) -> bool {
        true
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: usize) -> Poll<Result<usize, Gone>> {
        Poll::Ready(Ok(0))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn on_timeout(&mut self) {}
}

/// Keeps a body in memory, up to `subrequest_output_buffer_size`, or `least` bytes if that is less.
pub(super) struct Memory {
    kept: Kept,
    least: usize,
    room: usize,
    /// It was too long: nothing more is taken.
    full: bool,
}

/// What was kept.
#[derive(Clone, Default)]
pub(super) struct Kept(Rc<RefCell<BytesMut>>);

impl Kept {
    /// The bytes.
    pub(super) fn take(&self) -> Bytes {
        self.0.take().freeze()
    }
}

impl Memory {
    /// Keeps a body; the second is who can be asked for it.
    pub(super) fn new(least: usize) -> (Self, Kept) {
        let kept = Kept::default();
        (Self { kept: kept.clone(), least, room: 0, full: false }, kept)
    }
}

impl Outlet for Memory {
    fn head(&mut self, request: &mut Request, reply: Reply) -> Framing {
        self.room = request.location().settings.subrequest_output_buffer_size.max(self.least);
        let empty = response::is_bodiless(request, &reply);
        let len = reply.length.unwrap_or(0);
        if !empty && len > self.room as u64 {
            request.log(LogLevel::Error, format_args!("too big subrequest response: {len}"));
            self.full = true;
        }
        note_fields(request, reply);
        if empty { Framing::Empty } else { Framing::Plain(None) }
    }

    fn body(&mut self, piece: Bytes) {
        let mut kept = self.kept.0.borrow_mut();
        self.full |= kept.len() + piece.len() > self.room;
        if !self.full {
            kept.extend_from_slice(&piece);
        }
    }

    fn end(&mut self, _: &Fields) {}

    fn is_full(&self) -> bool {
        self.full
    }

    fn is_written(&self) -> bool {
        !self.full
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: usize) -> Poll<Result<usize, Gone>> {
        // Only asked for when there is no more room: the answer breaks off.
        Poll::Ready(if self.full { Err(Gone::Closed) } else { Ok(0) })
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn on_timeout(&mut self) {}
}

fn note_fields(request: &mut Request, reply: Reply) {
    let mut fields = response::leading_fields(&reply);
    fields.extend(reply.fields);
    request.response.fields = fields;
}
