//! A tracker as plain data, for another process to go on with.

use minicbor::{Decode, Encode};

use super::{Counts, Reason, State, Tracker};
use crate::cbor::{is_default, known};
use crate::close::MAX_REASON_LEN;
use crate::frame::{MAX_CONTROL_LEN, MAX_HEADER_LEN, must_mask};
use crate::{Extensions, FrameError, FrameHeader, Opcode, Side};

/// All that a [`Tracker`] knows, but for its side and the extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct TrackerState {
    #[cbor(n(0), decode_with = "known", skip_if = "is_default")]
    place: Place,
    #[cbor(n(1), skip_if = "is_default")]
    message_len: u64,
    #[cbor(n(2), skip_if = "is_default")]
    in_message: bool,
    #[cbor(n(3), skip_if = "is_default")]
    is_text: bool,
    #[cbor(n(4), skip_if = "is_default")]
    closed: bool,
    #[n(5)]
    reason: Option<Box<Reason>>,
}

/// Where in a frame the next byte belongs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Place {
    /// Behind these bytes of a header; none between two frames.
    #[n(0)]
    Header(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(1)]
    CloseCode {
        #[n(0)]
        left: u8,
        #[cbor(n(1), with = "minicbor::bytes")]
        mask: [u8; 4],
        #[n(2)]
        first: Option<u8>,
    },
    #[n(2)]
    Payload {
        #[n(0)]
        left: u64,
        #[n(1)]
        opcode: Opcode,
        #[n(2)]
        fin: bool,
    },
    #[n(3)]
    Broken(#[n(0)] FrameError),
}

impl Default for Place {
    fn default() -> Self {
        Self::Header(Vec::new())
    }
}

impl Tracker {
    /// What is needed to go on from here.
    pub(crate) fn state(&self) -> TrackerState {
        TrackerState {
            place: match self.state {
                State::Header { seen, kept } => Place::Header(kept[..usize::from(seen)].to_vec()),
                State::CloseCode { left, mask, first } => Place::CloseCode { left, mask, first },
                State::Payload { left, opcode, fin } => Place::Payload { left, opcode, fin },
                State::Broken(error) => Place::Broken(error),
            },
            message_len: self.message_len,
            in_message: self.in_message,
            is_text: self.is_text,
            closed: self.closed,
            reason: self.reason.clone(),
        }
    }

    /// Goes on where another one was; `None` if that was nowhere.
    pub(crate) fn restore(state: TrackerState, from: Side, extensions: Extensions) -> Option<Self> {
        let TrackerState { place, message_len, in_message, is_text, closed, reason } = state;
        let mut tracker = Self {
            state: State::BOUNDARY,
            message_len,
            extensions,
            from,
            in_message,
            is_text,
            closed,
            reason,
        };
        tracker.state = tracker.state_at(&place)?;
        tracker.has_sound_reason().then_some(tracker)
    }

    /// The state there, if one can rest there.
    fn state_at(&self, place: &Place) -> Option<State> {
        match *place {
            Place::Header(ref bytes) => {
                let mut kept = [0; MAX_HEADER_LEN - 1];
                kept.get_mut(..bytes.len())?.copy_from_slice(bytes);
                let unfinished = matches!(self.read(bytes), Ok(None));
                // Shorter than a header, which has 14 bytes.
                unfinished.then_some(State::Header { seen: bytes.len() as u8, kept })
            }
            Place::CloseCode { left, mask, first } => {
                let is_masked = must_mask(self.from) || mask == [0; 4];
                let has_room = (2..=MAX_CONTROL_LEN).contains(&usize::from(left));
                (is_masked && has_room).then_some(State::CloseCode { left, mask, first })
            }
            Place::Payload { left, opcode, fin } => {
                // An empty payload is no place to rest at.
                let fits = left > 0
                    && match opcode {
                        Opcode::Close => fin && left <= MAX_REASON_LEN as u64,
                        Opcode::Ping | Opcode::Pong => fin && left <= MAX_CONTROL_LEN as u64,
                        Opcode::Text => self.fits_data(left, fin) && self.is_text,
                        Opcode::Binary => self.fits_data(left, fin) && !self.is_text,
                        Opcode::Continuation => self.fits_data(left, fin),
                    };
                fits.then_some(State::Payload { left, opcode, fin })
            }
            Place::Broken(error) => Some(State::Broken(error)),
        }
    }

    /// The header in the front of these bytes, if they begin a frame that may come next.
    pub(crate) fn read<'a>(
        &self,
        bytes: &'a [u8],
    ) -> Result<Option<(FrameHeader, &'a [u8])>, FrameError> {
        self.check(bytes).and_then(|()| FrameHeader::decode(bytes))
    }

    /// Whether the message under way may have so much to come in this frame.
    fn fits_data(&self, left: u64, fin: bool) -> bool {
        left <= self.message_len && left <= u64::MAX >> 1 && self.in_message != fin
    }

    /// A reason comes with the first Close, and never outgrows it.
    fn has_sound_reason(&self) -> bool {
        let Some(reason) = &self.reason else { return true };
        let left = match self.state {
            State::Payload { left, opcode: Opcode::Close, .. } if !self.closed => left,
            _ if self.closed => 0,
            _ => return false,
        };
        reason.bytes.len() as u64 + left <= MAX_REASON_LEN as u64
    }

    /// Whether a Close has ended, or a reason has come.
    pub(crate) fn knows_close(&self) -> bool {
        self.closed || self.reason.is_some()
    }
}

impl Counts {
    /// Whether these numbers go together, and have room to grow.
    pub(crate) fn are_sound(&self) -> bool {
        self.bytes <= u64::MAX >> 1
            && self.frames <= self.bytes
            && self.messages <= self.frames
            && self.pings.saturating_add(self.pongs) <= self.frames
            && self.texts <= self.messages
            && self.payload <= self.bytes
            && self.text_payload <= self.payload
            && self.largest <= self.payload
    }
}
