//! What is looked for in the frames of one side, where a policy asks for it.

use std::sync::Arc;

use super::answer::Answer;
use super::meter::{Charge, Meter, Toll};
use super::policy::{Check, Limits};
use super::{Cause, Settings};
use crate::utf8::{NotUtf8, Utf8};
use crate::{FrameHeader, Opcode, Side, close, mask};

/// How long control frames are counted together, in milliseconds.
const SECOND_MS: u64 = 1_000;

/// What is looked for in the frames of one side.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    from: Side,
    check: Check,
    limits: Limits,
    meters: Vec<Arc<dyn Meter>>,
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

impl Watch {
    /// `None` if nothing is looked for.
    pub(super) fn new(settings: &Settings, from: Side) -> Option<Box<Self>> {
        let policy = &settings.policy;
        let meters = settings.meters.as_ref().map(|meters| meters.get(from).clone());
        let (check, limits) = (policy.check, *policy.limits.get(from));
        let meters = meters.unwrap_or_default();
        if check == Check::Note && limits == Limits::default() && meters.is_empty() {
            return None;
        }
        Some(Box::new(Self {
            from,
            check,
            limits,
            meters,
            fragments: 0,
            controls: 0,
            second_ms: 0,
            text: (check == Check::Text).then(Text::default),
            paused_until_ms: None,
            answer: None,
        }))
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
            _ => 1,
        };
        let exceeded = |limit: Option<u64>, len: u64| limit.is_some_and(|limit| len > limit);
        if exceeded(self.limits.frame, header.payload_len) {
            return Err(Cause::FrameTooBig(from));
        }
        if exceeded(self.limits.message, message_len) {
            return Err(Cause::MessageTooBig(from));
        }
        if exceeded(self.limits.fragments.map(u64::from), self.fragments.into()) {
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
            self.controls += 1;
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

impl Text {
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
