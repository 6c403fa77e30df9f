//! The bytes of one side, looked at frame by frame: where a policy judges them, or a pong of theirs may
//! be for us.
//!
//! Nothing of a frame goes on before it was judged by its header, by the whole of it if it is a Close
//! that is checked or may be our pong, and by what has come of its payload. So a header that came in part
//! is held back, at most 14 bytes, and a Close or a pong, at most 131.

use super::answer::Answer;
use super::direction::Injection;
use super::meter::{Charge, Toll};
use super::{Cause, Closing, Conversation, Insert, PING_LEN, Verdict};
use crate::close::CloseError;
use crate::{FrameError, FrameHeader, Opcode, Side, mask};

/// The first byte of a pong for us: a bit that some extension has set in it is not for us to understand.
const PONG: u8 = 0x80 | Opcode::Pong as u8;

/// What is to be done with a frame that begins.
enum Start {
    /// It goes on.
    Frame,
    /// More of it must come first.
    Unfinished,
    /// It is our pong, so many bytes long.
    OurPong(usize),
    /// It ends the conversation.
    Refused(Cause),
}

impl Conversation {
    /// What becomes of bytes, up to the first of them that do not simply go on.
    pub(super) fn attend(&mut self, from: Side, bytes: &[u8], now_ms: u64) -> Verdict {
        let before = self.charged(from);
        let verdict = self.look_at(from, bytes, now_ms);
        self.charge(from, before, now_ms);
        // What goes nowhere keeps nobody waiting.
        if self.closing != Closing::Open && verdict != Verdict::Withhold {
            self.linger(now_ms);
        }
        verdict
    }

    fn look_at(&mut self, from: Side, bytes: &[u8], now_ms: u64) -> Verdict {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let direction = self.directions.get_mut(from);
            if direction.is_deferred()
                && direction.tracker.is_at_boundary()
                && direction.is_before_close(rest)
            {
                self.end_last_words(from);
            }
            let direction = self.directions.get_mut(from);
            if direction.has_said_all() && !rest.is_empty() && !direction.withholds() {
                direction.injection = Injection::Said;
            }
            if direction.withholds() {
                if direction.advance_unheard(rest) {
                    self.on_close(from, now_ms);
                }
                return match at {
                    0 => Verdict::Withhold,
                    _ => Verdict::Part { pass: at, insert: None, skip: rest.len() },
                };
            }
            if direction.tracker.is_at_boundary() {
                if let Some(frame) = direction.poll_frame() {
                    self.on_frame_sent(from.other(), frame, now_ms);
                    return Verdict::Part { pass: at, insert: Some(Insert::Frame(frame)), skip: 0 };
                }
                if rest.is_empty() {
                    return Verdict::Pass;
                }
                let whole = direction.pass_messages(rest);
                if whole > 0 {
                    at += whole;
                    continue;
                }
                match self.begin_frame(from, rest, now_ms) {
                    Ok(()) => {}
                    Err(Some((insert, skip))) => return Verdict::Part { pass: at, insert, skip },
                    // Now there is a Close to be sent; or had been, and nothing may follow.
                    Err(None) => {
                        let direction = self.directions.get_mut(from);
                        if !matches!(direction.injection, Injection::Pending(_)) {
                            direction.cut();
                        }
                        continue;
                    }
                }
            } else if let Err(cause) = self.continue_frame(from, rest) {
                self.directions.get_mut(from).cut();
                self.close(cause, now_ms);
                continue;
            }
            let direction = self.directions.get_mut(from);
            let (len, progress) = direction.advance_frame(rest);
            at += len;
            self.on_progress(from, &progress, now_ms);
            if at == bytes.len() && !self.directions.get(from).tracker.is_at_boundary() {
                return Verdict::Pass;
            }
        }
    }

    /// What becomes of a frame that begins with what is held back and these bytes: it goes on, or
    /// something else does instead of so many of them, or it is refused.
    fn begin_frame(
        &mut self,
        from: Side,
        rest: &[u8],
        now_ms: u64,
    ) -> Result<(), Option<(Option<Insert>, usize)>> {
        let held = std::mem::take(&mut self.directions.get_mut(from).held);
        // Most often nothing is held back, and all is read in place.
        let start = match held.len() {
            0 => self.judge(from, rest, now_ms),
            _ => self.judge(from, &[&held, rest].concat(), now_ms),
        };
        match start {
            Start::Frame if held.is_empty() => Ok(()),
            Start::Frame => {
                // Judged with all that has come of it; the rest follows as the middle of a frame.
                let (_, progress) = self.directions.get_mut(from).advance_frame(&held);
                self.directions.get_mut(from).counts.bytes -= held.len() as u64;
                self.on_progress(from, &progress, now_ms);
                Err(Some((Some(Insert::Held(held)), 0)))
            }
            Start::Unfinished => {
                let direction = self.directions.get_mut(from);
                direction.held = [&held, rest].concat().into();
                direction.counts.bytes += rest.len() as u64;
                Err(Some((None, rest.len())))
            }
            Start::OurPong(len) => {
                let skip = len - held.len();
                self.directions.get_mut(from).counts.bytes += skip as u64;
                Err(Some((None, skip)))
            }
            Start::Refused(cause) => {
                let direction = self.directions.get_mut(from);
                direction.held = held;
                if let Cause::Violation(..) | Cause::InvalidClose(_, CloseError::HalfCode) = cause
                    && let Some(watch) = &mut direction.watch
                {
                    // The tracker would not get past it.
                    watch.answer = Some(Answer::default());
                }
                self.close(cause, now_ms);
                Err(None)
            }
        }
    }

    fn judge(&mut self, from: Side, frame: &[u8], now_ms: u64) -> Start {
        let direction = self.directions.get(from);
        let checks = direction.checks_frames();
        let checked = direction.tracker.check(frame);
        let (header, after) = match checked.and_then(|()| FrameHeader::decode(frame)) {
            Ok(Some(decoded)) => decoded,
            // Where nothing is judged, only what can become a pong has to wait.
            Ok(None) => {
                let pong = frame[0] == PONG;
                let waits = direction.watch.is_some() || pong;
                return if waits { Start::Unfinished } else { Start::Frame };
            }
            Err(FrameError::HalfCloseCode) if checks => {
                return Start::Refused(Cause::InvalidClose(from, CloseError::HalfCode));
            }
            Err(error) if checks => return Start::Refused(Cause::Violation(from, error)),
            // Whoever does not check has the tracker note it.
            Err(_) => return Start::Frame,
        };
        let header_len = frame.len() - after.len();
        let payload_len = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
        let payload = &after[..payload_len.min(after.len())];
        let is_whole = payload.len() == payload_len;
        let may_be_ours =
            frame[0] == PONG && payload_len == PING_LEN && direction.pinging.may_answer();
        if !is_whole && (may_be_ours || header.opcode == Opcode::Close && checks) {
            return Start::Unfinished;
        }
        if may_be_ours {
            let mut pong = [0; PING_LEN];
            pong.copy_from_slice(payload);
            mask::apply(header.mask.unwrap_or_default(), 0, &mut pong);
            if self.on_pong(from, pong, now_ms) {
                return Start::OurPong(header_len + PING_LEN);
            }
        }
        let direction = self.directions.get_mut(from);
        let before = match header.opcode {
            Opcode::Continuation => direction.tracker.message_len(),
            _ => 0,
        };
        let message_len = before.saturating_add(header.payload_len);
        let judged = direction
            .watch
            .as_mut()
            .map_or(Ok(()), |watch| watch.on_frame(&header, payload, message_len, now_ms));
        judged.map_or_else(Start::Refused, |()| Start::Frame)
    }

    /// Looks at more of the payload of a frame. What follows a header that was held back in part was looked at with
    /// it; then the next byte still belongs to the header.
    fn continue_frame(&mut self, from: Side, rest: &[u8]) -> Result<(), Cause> {
        let direction = self.directions.get_mut(from);
        let (Some(watch), Some(left)) = (&mut direction.watch, direction.tracker.data_left())
        else {
            return Ok(());
        };
        let len = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        watch.on_payload(&rest[..len])
    }

    /// What this side was charged for so far.
    fn charged(&self, from: Side) -> Charge {
        let counts = &self.directions.get(from).counts;
        Charge { messages: counts.messages, bytes: counts.bytes }
    }

    /// Has counted what has come since `before`.
    fn charge(&mut self, from: Side, before: Charge, now_ms: u64) {
        let now = self.charged(from);
        let is_closing = self.is_closing();
        let direction = self.directions.get_mut(from);
        // Nothing waits while we close, but for last words; nor what goes nowhere.
        let hurries = is_closing && !direction.is_deferred() || direction.withholds();
        let Some(watch) = direction.watch.as_mut().filter(|watch| watch.is_metered()) else {
            return;
        };
        let messages = now.messages - before.messages;
        let bytes = now.bytes - before.bytes;
        match watch.charge(Charge { messages, bytes }, now_ms) {
            Toll::Free => {}
            Toll::Wait { .. } if hurries => {}
            Toll::Wait { until_ms } => {
                watch.paused_until_ms = Some(until_ms);
                self.changed = true;
            }
            Toll::TooMuch(excess) => self.close(Cause::Rate(from, excess), now_ms),
        }
    }
}
