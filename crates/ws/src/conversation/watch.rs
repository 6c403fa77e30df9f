//! What is looked for in the frames of one side, where a policy asks for it.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::answer::Answer;
use super::meter::{Charge, Meter, Toll};
use super::policy::{Check, Limits, Meters, Policy};
use super::portable::{Unsound, earlier, later, left, since};
use super::{Cause, Settings};
use crate::cbor::is_default;
use crate::frame::must_mask;
use crate::utf8::{NotUtf8, Utf8};
use crate::{FrameHeader, Opcode, Side, Tracker, close, mask};

/// How long control frames are counted together, in milliseconds.
const SECOND_MS: u64 = 1_000;

/// What is looked for in the frames of one side.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    from: Side,
    check: Check,
    limits: Limits,
    meters: Vec<Arc<dyn Meter>>,
    /// What the running message is held to, if it began under other limits.
    wider: Option<Box<Limits>>,
    /// Frames of the running message.
    fragments: u32,
    /// Control frames of the second that began then.
    controls: u32,
    second_ms: u64,
    text: Option<Text>,
    /// Before when nothing more may come, in milliseconds.
    pub(super) paused_until_ms: Option<u64>,
    /// Looks for its Close behind a rule that it broke.
    pub(super) answer: Option<Answer>,
}

/// The text of the running message.
#[derive(Clone, Debug, Default)]
struct Text {
    /// There is one, and it is not compressed.
    active: bool,
    utf8: Utf8,
    /// Of the frame under way, its mask and how much of its payload has come.
    mask: Option<[u8; 4]>,
    offset: u64,
    /// How much of it is still to come.
    left: u64,
    fin: bool,
}

/// [`Watch`] as plain data, without what the policy says; moments as in [`super::ConversationState`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct WatchState {
    #[n(0)]
    wider: Option<Box<Limits>>,
    #[cbor(n(1), skip_if = "is_default")]
    fragments: u32,
    #[cbor(n(2), skip_if = "is_default")]
    controls: u32,
    /// How long ago their second began, if anybody counts them.
    #[n(3)]
    second_ms_ago: Option<u64>,
    #[n(4)]
    text: Option<TextState>,
    #[n(5)]
    paused_ms: Option<i64>,
    #[n(6)]
    answer: Option<Answer>,
}

/// [`Text`] of a message that is under way, without what the tracker knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct TextState {
    /// The bytes of a character whose rest has not come.
    #[cbor(n(0), with = "minicbor::bytes", skip_if = "is_default")]
    tail: Vec<u8>,
    /// The mask of the frame under way, as it stands at the next byte.
    #[cbor(n(1), with = "minicbor::bytes")]
    mask: Option<[u8; 4]>,
}

impl Watch {
    /// `None` if nothing is looked for.
    pub(super) fn new(settings: &Settings, from: Side) -> Option<Box<Self>> {
        let policy = &settings.policy;
        let meters = settings.meters.as_ref().map(|meters| meters.get(from).clone());
        let (check, limits) = (policy.check, *policy.limits.get(from));
        let meters = meters.unwrap_or_default();
        if !policy.watches(from) && meters.is_empty() {
            return None;
        }
        Some(Box::new(Self {
            from,
            check,
            limits,
            meters,
            wider: None,
            fragments: 0,
            controls: 0,
            second_ms: 0,
            text: (check == Check::Text).then(Text::default),
            paused_until_ms: None,
            answer: None,
        }))
    }

    /// What is needed to go on from here; `tracker` has seen as much, but for what goes nowhere any more.
    pub(super) fn state(&self, tracker: &Tracker, withholds: bool, now_ms: u64) -> WatchState {
        let text = self.text.as_ref().filter(|text| text.active && !withholds);
        WatchState {
            wider: self.wider.clone(),
            fragments: self.fragments,
            controls: self.controls,
            second_ms_ago: self.limits.controls.map(|_| since(self.second_ms, now_ms)),
            text: text.map(|text| TextState {
                tail: text.utf8.tail().to_vec(),
                mask: tracker.data_left().and(text.mask).map(|mut mask| {
                    mask.rotate_left((text.offset % 4) as usize);
                    mask
                }),
            }),
            paused_ms: self.paused_until_ms.map(|until_ms| left(until_ms, now_ms)),
            answer: self.answer.clone(),
        }
    }

    /// Goes on where another one was that was looking for what `old` says, with what `policy` and `meters` say now.
    pub(super) fn restore(
        state: WatchState,
        tracker: &Tracker,
        from: Side,
        old: &Policy,
        policy: &Policy,
        meters: Meters,
        now_ms: u64,
    ) -> Result<Option<Box<Self>>, Unsound> {
        let (check, limits) = (policy.check, *policy.limits.get(from));
        if state.answer.as_ref().is_some_and(|answer| !answer.is_sound()) {
            return Err(Unsound);
        }
        let text = match state.text {
            Some(text) if old.check == Check::Text => Text::restore(&text, tracker, from)?,
            Some(_) => return Err(Unsound),
            None => Text::default(),
        };
        if !policy.watches(from) && meters.is_empty() && state.answer.is_none() {
            return Ok(None);
        }
        let began_under = state.wider.as_deref().unwrap_or(old.limits.get(from));
        let wider = began_under.wider(&limits);
        let differs = tracker.is_in_message() && wider != limits;
        Ok(Some(Box::new(Self {
            from,
            check,
            limits,
            wider: differs.then(|| Box::new(wider)),
            fragments: state.fragments,
            controls: state.controls,
            second_ms: state.second_ms_ago.map_or(0, |ms_ago| earlier(ms_ago, now_ms)),
            text: (check == Check::Text).then_some(text),
            paused_until_ms: state
                .paused_ms
                .filter(|_| !meters.is_empty())
                .map(|left_ms| later(left_ms, now_ms)),
            meters,
            answer: state.answer,
        })))
    }

    /// Whether nothing is looked for but broken rules of frames.
    pub(super) fn checks_rules_alone(&self) -> bool {
        self.text.is_none() && self.limits == Limits::default() && self.meters.is_empty()
    }

    pub(super) fn checks_frames(&self) -> bool {
        self.check >= Check::Frames
    }

    /// Looks at a frame that begins, before anything of it goes on: its header, and what has come of its
    /// payload. `message_len` is the length of the message with it.
    pub(super) fn on_frame(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        message_len: u64,
        now_ms: u64,
    ) -> Result<(), Cause> {
        let from = self.from;
        if header.opcode.is_control() {
            return self.on_control(header, payload, now_ms);
        }
        self.fragments = match header.opcode {
            Opcode::Continuation => self.fragments.saturating_add(1),
            _ => {
                self.wider = None;
                1
            }
        };
        let limits = self.wider.as_deref().unwrap_or(&self.limits);
        let exceeded = |limit: Option<u64>, len: u64| limit.is_some_and(|limit| len > limit);
        if exceeded(limits.frame, header.payload_len) {
            return Err(Cause::FrameTooBig(from));
        }
        if exceeded(limits.message, message_len) {
            return Err(Cause::MessageTooBig(from));
        }
        if exceeded(limits.fragments.map(u64::from), self.fragments.into()) {
            return Err(Cause::TooManyFragments(from));
        }
        if let Some(text) = &mut self.text {
            text.begin(header);
            text.take(payload).map_err(|NotUtf8| Cause::InvalidText(from))?;
        }
        Ok(())
    }

    /// Looks at more of the payload of a data frame.
    pub(super) fn on_payload(&mut self, payload: &[u8]) -> Result<(), Cause> {
        let Some(text) = &mut self.text else { return Ok(()) };
        text.take(payload).map_err(|NotUtf8| Cause::InvalidText(self.from))
    }

    fn on_control(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        now_ms: u64,
    ) -> Result<(), Cause> {
        if let Some(limit) = self.limits.controls {
            if now_ms.saturating_sub(self.second_ms) >= SECOND_MS {
                (self.controls, self.second_ms) = (0, now_ms);
            }
            self.controls = self.controls.saturating_add(1);
            if self.controls > limit {
                return Err(Cause::ControlFlood(self.from));
            }
        }
        if header.opcode == Opcode::Close && self.checks_frames() {
            let mut plain = payload.to_vec();
            mask::apply(header.mask.unwrap_or_default(), 0, &mut plain);
            close::decode(&plain).map_err(|error| Cause::InvalidClose(self.from, error))?;
        }
        Ok(())
    }

    /// Has what came counted; the last word is the one that counts.
    pub(super) fn charge(&self, charge: Charge, now_ms: u64) -> Toll {
        let mut worst = Toll::Free;
        for meter in &self.meters {
            match (meter.charge(charge, now_ms), worst) {
                (Toll::TooMuch(excess), _) => return Toll::TooMuch(excess),
                (Toll::Wait { until_ms }, Toll::Wait { until_ms: other }) => {
                    worst = Toll::Wait { until_ms: until_ms.max(other) };
                }
                (wait @ Toll::Wait { .. }, _) => worst = wait,
                (Toll::Free, _) => {}
            }
        }
        worst
    }

    pub(super) fn is_metered(&self) -> bool {
        !self.meters.is_empty()
    }
}

impl Limits {
    /// What keeps to either of them keeps to this, but for control frames, which belong to no message.
    fn wider(&self, other: &Self) -> Self {
        Self {
            frame: self.frame.zip(other.frame).map(|(one, other)| one.max(other)),
            message: self.message.zip(other.message).map(|(one, other)| one.max(other)),
            fragments: self.fragments.zip(other.fragments).map(|(one, other)| one.max(other)),
            controls: other.controls,
        }
    }
}

impl Text {
    /// Goes on in the message that `tracker` is in.
    fn restore(state: &TextState, tracker: &Tracker, from: Side) -> Result<Self, Unsound> {
        let left = tracker.data_left();
        let runs = tracker.is_text() && (tracker.is_in_message() || left.is_some());
        let is_masked = left.is_some() && must_mask(from);
        if !runs || state.mask.is_some() != is_masked {
            return Err(Unsound);
        }
        Ok(Self {
            active: true,
            utf8: Utf8::restore(&state.tail).ok_or(Unsound)?,
            mask: state.mask,
            offset: 0,
            left: left.unwrap_or(0),
            fin: !tracker.is_in_message(),
        })
    }

    fn begin(&mut self, header: &FrameHeader) {
        match header.opcode {
            // What an extension has changed is not text any more (RFC 7692 §6).
            Opcode::Text => (self.active, self.utf8) = (header.rsv == 0, Utf8::default()),
            Opcode::Binary => self.active = false,
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        (self.mask, self.fin) = (header.mask, header.fin);
        (self.offset, self.left) = (0, header.payload_len);
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), NotUtf8> {
        if !self.active {
            return Ok(());
        }
        match self.mask {
            Some(mask) => self.utf8.masked(mask, self.offset, payload)?,
            None => self.utf8.plain(payload)?,
        }
        self.offset += payload.len() as u64;
        self.left -= payload.len() as u64;
        if self.fin && self.left == 0 {
            self.active = false;
            self.utf8.finish()?;
        }
        Ok(())
    }
}
