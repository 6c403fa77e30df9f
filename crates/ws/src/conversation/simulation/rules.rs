//! What an operator wants in one conversation, and a naive judge of it.

use std::sync::Arc;

use super::reading::{Frame, read};
use super::{Chance, Gate, Way};
use crate::close::{self, CloseError};
use crate::conversation::meter::Meter;
use crate::conversation::*;
use crate::{Extensions, FrameError, Side};

pub(super) struct Rules {
    pub(super) settings: Settings,
    pub(super) gates: PerSide<Option<Arc<Gate>>>,
    pub(super) ends_ms: Option<u64>,
    /// When what the client may do is over.
    pub(super) expires_ms: Option<u64>,
}

impl Rules {
    pub(super) fn choose(chance: &mut Chance, began_ms: u64) -> Self {
        let keep_alive = |chance: &mut Chance| {
            Some(KeepAlive {
                interval_ms: chance.perhaps(1, 2_000)?,
                pong_timeout_ms: (!chance.one_in(4)).then(|| 1 + chance.below(1_500)),
            })
        };
        let limits = |chance: &mut Chance| match chance.one_in(2) {
            true => Limits::default(),
            false => Limits {
                frame: chance.perhaps(1, 200),
                message: chance.perhaps(1, 400),
                fragments: chance.perhaps(1, 5).map(|most| most as u32),
                controls: chance.perhaps(1, 9).map(|most| most as u32),
            },
        };
        let gate = |chance: &mut Chance| {
            chance.one_in(4).then(|| {
                let most = if chance.one_in(3) { 200 + chance.below(2_000) } else { u64::MAX };
                Arc::new(Gate::new(1 + chance.below(500), chance.below(900), most))
            })
        };
        let gates = PerSide { client: gate(chance), server: gate(chance) };
        let lifetime_ms = chance.perhaps(1, 10_000);
        let expiry_ms = chance.perhaps(0, 10_000);
        let policy = Policy {
            keep_alive: PerSide { client: keep_alive(chance), server: keep_alive(chance) },
            idle_ms: chance.perhaps(1, 3_000),
            notes_data: chance.one_in(2),
            slow_reader_ms: PerSide::default(),
            check: chance.pick(&[Check::Note, Check::Note, Check::Frames, Check::Text]),
            limits: PerSide { client: limits(chance), server: limits(chance) },
            failure: chance.one_in(2).then_some(CloseCode::BAD_GATEWAY),
        };
        let settings = Settings {
            extensions: chance.pick(&[Extensions::NONE, Extensions::DEFLATE, Extensions::UNKNOWN]),
            policy: Arc::new(policy),
            lifetime_ms,
            expiry_ms,
            mark: *b"mark",
            meters: meters(&gates),
        };
        let [ends_ms, expires_ms] =
            [lifetime_ms, expiry_ms].map(|wait| wait.map(|ms| end_of(began_ms, ms)));
        Self { settings, gates, ends_ms, expires_ms }
    }

    /// Meters that have counted nothing.
    pub(super) fn same_meters(&self) -> Option<Box<PerSide<Meters>>> {
        let same = |gate: &Option<Arc<Gate>>| {
            gate.as_ref().map(|gate| Arc::new(Gate::new(gate.every, gate.wait_ms, gate.most)))
        };
        let PerSide { client, server } = &self.gates;
        meters(&PerSide { client: same(client), server: same(server) })
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.settings.policy
    }

    /// What in the first bytes of a side has to end the conversation, if anything; but for floods.
    pub(super) fn offence(&self, from: Side, stream: &[u8]) -> Option<Cause> {
        let (frames, broken) = read(stream, from, self.settings.extensions);
        let limits = self.policy().limits.get(from);
        let check = self.policy().check;
        let exceeds = |limit: Option<u64>, len: usize| limit.is_some_and(|most| len as u64 > most);
        let (mut message, mut fragments, mut text) = (0_usize, 0, None);
        for frame in &frames {
            let judged = frame.opcode == 8 && frame.is_whole() && check >= Check::Frames;
            if judged {
                // What follows a Close goes nowhere, and nobody minds it.
                let decoded = close::decode(&frame.payload);
                return decoded.err().map(|error| Cause::InvalidClose(from, error));
            }
            if !frame.is_data() {
                continue;
            }
            if frame.opcode != 0 {
                (message, fragments) = (0, 0);
                let is_text = frame.opcode == 1 && frame.rsv == 0 && check == Check::Text;
                text = is_text.then(Vec::new);
            }
            message = message.saturating_add(frame.len());
            fragments += 1;
            if exceeds(limits.frame, frame.len()) {
                return Some(Cause::FrameTooBig(from));
            }
            if exceeds(limits.message, message) {
                return Some(Cause::MessageTooBig(from));
            }
            if limits.fragments.is_some_and(|most| fragments > most) {
                return Some(Cause::TooManyFragments(from));
            }
            if let Some(text) = &mut text {
                text.extend_from_slice(&frame.payload);
                if !may_be_text(text, frame) {
                    return Some(Cause::InvalidText(from));
                }
            }
        }
        broken.filter(|_| check >= Check::Frames).map(|error| match error {
            FrameError::HalfCloseCode => Cause::InvalidClose(from, CloseError::HalfCode),
            error => Cause::Violation(from, error),
        })
    }

    /// Holds a cause that is the fault of one side against what that side had sent by then.
    pub(super) fn check_fault(&self, cause: Cause, way: &Way, now_ms: u64) {
        let side = way.from;
        match cause {
            Cause::Rate(..) => assert!(self.has_sent_too_much(side)),
            Cause::ControlFlood(_) => {
                let most = self.policy().limits.get(side).controls.expect("a limit");
                let since = way.since(now_ms.saturating_sub(1_000));
                let (frames, _) = read(&way.came, side, self.settings.extensions);
                let recent = frames.iter().filter(|frame| !frame.is_data() && frame.end > since);
                assert!(recent.count() > most as usize, "there were not so many");
            }
            cause => assert_eq!(self.offence(side, &way.came), Some(cause)),
        }
    }

    /// Whether a side has sent more bytes than it ever may.
    pub(super) fn has_sent_too_much(&self, side: Side) -> bool {
        let gate = self.gates.get(side).as_ref();
        gate.is_some_and(|gate| gate.seen().charge.bytes > gate.most)
    }

    /// How many control frames may have come in any second, though it be half of one and half of another.
    pub(super) fn check_controls(&self, way: &Way) {
        let Some(most) = self.policy().limits.get(way.from).controls else { return };
        let (frames, _) = read(&way.passed, way.from, self.settings.extensions);
        let controls = frames.iter().filter(|frame| !frame.is_data() && frame.is_whole());
        let times: Vec<_> = controls.map(|frame| way.passed_ms(frame.end)).collect();
        for (i, &start) in times.iter().enumerate() {
            let within = times[i..].iter().filter(|&&time| time < start + 1_000).count();
            assert!(within <= 2 * most as usize, "{within} control frames in a second");
        }
    }
}

fn meters(gates: &PerSide<Option<Arc<Gate>>>) -> Option<Box<PerSide<Meters>>> {
    let meters = |gate: &Option<Arc<Gate>>| -> Meters {
        gate.iter().map(|gate| Arc::clone(gate) as Arc<dyn Meter>).collect()
    };
    let PerSide { client, server } = gates;
    let any = client.is_some() || server.is_some();
    any.then(|| Box::new(PerSide { client: meters(client), server: meters(server) }))
}

/// Whether the text of a message can still be UTF-8.
fn may_be_text(text: &[u8], frame: &Frame) -> bool {
    match std::str::from_utf8(text) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && !(frame.fin && frame.is_whole()),
    }
}
