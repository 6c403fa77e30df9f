//! What changes a body on its way from content to the outlet.
//!
//! Which filters an answer has is decided with its head, which they may change: most take away the
//! length, for it will be another. The body passes them in nginx's order. Nothing is collected: a
//! filter is given a piece only when all behind it have nothing left to give, and holds at most that
//! piece and what it cannot judge yet. A filter may ask for a subrequest, whose answer follows what it
//! has given so far; it passes the filters of its own location, and none of those here.

mod addition;
mod charset;
pub(crate) mod ranges;
mod ssi;
mod sub;

use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use wssgate_config::model::Location;

use crate::exchange::delivery::Delivery;
use crate::exchange::outlet::{Gone, Presence};
use crate::exchange::request::Request;
use crate::exchange::response::Reply;

use ranges::Ranges;
pub(crate) use ssi::Page;

/// How often the filters of an answer are asked in one turn of the worker; then others' requests go
/// first.
const TURN: u32 = 32;

/// One change of a body.
pub(crate) trait Filter {
    /// Takes a piece, which is not empty. Only called when [`Filter::next`] has given
    /// [`Step::Idle`].
    fn give(&mut self, piece: Bytes);

    /// Nothing follows what was given.
    fn end(&mut self);

    /// What comes of it.
    fn next(&mut self, request: &Request) -> Step;

    /// Takes what became of the subrequest that this filter has asked for.
    fn on_included(&mut self, _: &Request, _: Included) {}
}

/// What a filter has to give.
pub(crate) enum Step {
    /// Nothing, without another piece or the end.
    Idle,
    /// A piece of the body; not empty.
    Piece(Bytes),
    /// The answer to a subrequest comes here.
    Include(Include),
    /// There is more to do, after others had their turn.
    Pause,
}

/// A subrequest that becomes a part of an answer.
#[derive(Debug, Default)]
pub(crate) struct Include {
    /// The path, normalised.
    pub(crate) path: Bytes,
    /// The arguments.
    pub(crate) args: Bytes,
    /// Whether the body is wanted back instead of being sent.
    pub(crate) keep: bool,
    /// Whether nothing is wanted rather than the page of an error.
    pub(crate) or_nothing: bool,
    /// Whether it is for ourselves, so that nothing of the client goes with it.
    pub(crate) own: bool,
}

/// What became of an [`Include`].
#[derive(Debug)]
pub(crate) enum Included {
    /// Subrequests are nested too deep, or too many: it was not made.
    NotMade,
    /// Its body has become a part of the answer; whether there was anything of it.
    Sent(bool),
    /// Its status, and the body that was to be kept.
    Kept(u16, Bytes),
}

/// Makes subrequests: those of `parent`, whose answers may go to its `delivery`. Bound at the floor
/// that knows how requests are answered.
pub(crate) type Embed = for<'a> fn(
    parent: &'a Request,
    client: Rc<dyn Presence>,
    delivery: Rc<Delivery>,
    wanted: Include,
) -> Embedding<'a>;

/// A subrequest on its way.
pub(crate) type Embedding<'a> = Pin<Box<dyn Future<Output = Result<Included, Gone>> + 'a>>;

/// Which filters an answer has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    additions: bool,
    substitutions: bool,
    ssi: bool,
}

impl Wanted {
    /// What the location wants for this answer.
    pub(crate) fn of(request: &Request, reply: &Reply, location: &Location) -> Self {
        let filters = &location.settings.filters;
        let media_type = charset::media_type(reply);
        Self {
            additions: filters.additions.as_ref().is_some_and(|additions| {
                reply.status == 200
                    && !request.is_subrequest()
                    && additions.types.covers(media_type)
            }),
            substitutions: filters.substitutions.as_ref().is_some_and(|substitutions| {
                reply.length != Some(0)
                    && substitutions.types.covers(media_type)
                    // Nobody finds a text in what is compressed.
                    && reply.field("content-encoding").is_none()
            }),
            ssi: filters
                .ssi
                .as_ref()
                .is_some_and(|ssi| reply.length != Some(0) && ssi.types.covers(media_type)),
        }
    }

    /// Whether a range of the content is a range of the body.
    pub(crate) fn keeps_ranges(self) -> bool {
        !self.additions && !self.substitutions && !self.ssi
    }
}

/// The filters of one answer, in the order in which the body passes them.
#[derive(Default)]
pub(crate) struct Chain {
    filters: Vec<Box<dyn Filter>>,
    /// The filter that waits for a subrequest.
    asking: usize,
    /// How often filters were asked in this turn.
    asked: u32,
}

impl Chain {
    /// Makes the filters of an answer, and of its head what they need.
    pub(crate) fn new(
        request: &Request,
        reply: &mut Reply,
        location: &Location,
        wanted: Wanted,
    ) -> Self {
        let mut filters: Vec<Box<dyn Filter>> = Vec::new();
        let of_location = &location.settings.filters;
        if let Some(additions) = of_location.additions.as_ref().filter(|_| wanted.additions) {
            filters.push(Box::new(addition::Addition::new(reply, additions)));
        }
        let substitutions = of_location.substitutions.as_ref().filter(|_| wanted.substitutions);
        if let Some(replacing) =
            substitutions.and_then(|pairs| sub::Replacing::new(request, reply, pairs))
        {
            filters.push(Box::new(replacing));
        }
        if let Some(conversion) = charset::apply(request, reply, location) {
            filters.push(Box::new(conversion));
        }
        if let Some(settings) = of_location.ssi.as_ref().filter(|_| wanted.ssi) {
            filters.push(Box::new(ssi::Includes::new(request, reply, settings)));
        }
        Self { filters, asking: 0, asked: 0 }
    }

    /// Puts the filter of ranges before all others: as in nginx they are of the content.
    pub(crate) fn put_first(&mut self, ranges: Ranges) {
        self.filters.insert(0, Box::new(ranges));
    }

    /// Whether the body stays as it is.
    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Takes a piece; only when [`Chain::next`] has given [`Step::Idle`].
    pub(crate) fn give(&mut self, piece: Bytes) {
        if let Some(first) = self.filters.first_mut() {
            first.give(piece);
        }
    }

    /// What comes out at the end. From behind, so that none has two pieces. A piece of a few bytes
    /// may make much work: it is done in turns with what else the worker has to do.
    pub(crate) fn next(&mut self, request: &Request) -> Step {
        self.next_by(|filter| filter.next(request))
    }

    fn next_by(&mut self, mut ask: impl FnMut(&mut dyn Filter) -> Step) -> Step {
        let mut at = self.filters.len();
        while at > 0 {
            if self.asked == TURN {
                self.asked = 0;
                return Step::Pause;
            }
            self.asked += 1;
            at -= 1;
            match ask(&mut *self.filters[at]) {
                Step::Idle => {}
                Step::Pause => return Step::Pause,
                Step::Piece(piece) if at + 1 == self.filters.len() => return Step::Piece(piece),
                Step::Piece(piece) => {
                    self.filters[at + 1].give(piece);
                    at = self.filters.len();
                }
                Step::Include(wanted) => {
                    self.asking = at;
                    return Step::Include(wanted);
                }
            }
        }
        Step::Idle
    }

    /// Tells the filter number `at` that nothing follows. One after the other, each when those
    /// before it have given all.
    pub(crate) fn end(&mut self, at: usize) {
        self.filters[at].end();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.filters.len()
    }

    /// Tells the filter that has asked what became of its subrequest.
    pub(crate) fn on_included(&mut self, request: &Request, included: Included) {
        self.filters[self.asking].on_included(request, included);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers nothing of what it is given.
    struct Any;

    impl Filter for Any {
        fn give(&mut self, _: Bytes) {}

        fn end(&mut self) {}

        fn next(&mut self, _: &Request) -> Step {
            Step::Idle
        }
    }

    #[test]
    fn work_without_end_pauses_and_goes_on() {
        let mut chain = Chain { filters: vec![Box::new(Any), Box::new(Any)], ..Chain::default() };
        let mut asked = 0;
        for _ in 0..3 {
            // The first has always something to give, of which the second makes nothing.
            let step = chain.next_by(|_| {
                asked += 1;
                if asked % 2 == 1 { Step::Idle } else { Step::Piece(Bytes::from_static(b"x")) }
            });
            assert!(matches!(step, Step::Pause));
        }
        assert_eq!(asked, 3 * TURN);
    }

    #[test]
    fn a_filter_that_pauses_pauses_the_chain() {
        let mut chain = Chain { filters: vec![Box::new(Any)], ..Chain::default() };
        assert!(matches!(chain.next_by(|_| Step::Pause), Step::Pause));
        assert!(matches!(chain.next_by(|_| Step::Idle), Step::Idle));
    }
}
