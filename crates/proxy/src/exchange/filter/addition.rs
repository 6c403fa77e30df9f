//! `add_before_body` and `add_after_body`.

use bytes::Bytes;
use wssgate_config::model::Additions;

use super::{Filter, Include, Step};
use crate::exchange::headers;
use crate::exchange::request::Request;
use crate::exchange::response::Reply;

/// Asks for pages before and behind a body.
pub(crate) struct Addition {
    before: Option<Bytes>,
    piece: Bytes,
    /// Due when the end has come.
    after: Option<Bytes>,
    begun: bool,
    ended: bool,
}

impl Addition {
    /// Makes of a head one whose body has additions.
    pub(crate) fn new(reply: &mut Reply, additions: &Additions) -> Self {
        reply.length = None;
        headers::weaken_etag(reply);
        let path = |uri: &Option<Box<[u8]>>| uri.as_deref().map(Bytes::copy_from_slice);
        Self {
            before: path(&additions.before),
            piece: Bytes::new(),
            after: path(&additions.after),
            begun: false,
            ended: false,
        }
    }
}

impl Filter for Addition {
    fn give(&mut self, piece: Bytes) {
        self.piece = piece;
        self.begun = true;
    }

    fn end(&mut self) {
        self.begun = true;
        self.ended = true;
    }

    fn next(&mut self, _: &Request) -> Step {
        if !self.begun {
            return Step::Idle;
        }
        if let Some(path) = self.before.take() {
            return Step::Include(Include { path, ..Include::default() });
        }
        if !self.piece.is_empty() {
            return Step::Piece(std::mem::take(&mut self.piece));
        }
        match self.after.take_if(|_| self.ended) {
            Some(path) => Step::Include(Include { path, ..Include::default() }),
            None => Step::Idle,
        }
    }
}
