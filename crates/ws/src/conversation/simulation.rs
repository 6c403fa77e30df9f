//! Whole conversations by chance, in made-up time, for tests and fuzzing: two scripted ends, a wire that cuts
//! anywhere, any policy and any order, and a judge who holds what reached each end against naive readings of
//! what the other has sent.
//!
//! The driver does what the relay does, and no more: it asks for frames and for the next deadline only when it
//! was told of a change, and is late now and then.

mod chance;
mod end;
mod gate;
mod judge;
mod reading;
mod rules;
mod twins;
mod way;

use super::*;
pub use chance::Chance;
use end::ScriptedEnd;
use gate::Gate;
use judge::Presence;
use rules::Rules;
use twins::Twins;
use way::Way;

const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// One conversation, and all that is known about it from outside.
struct World<'c> {
    chance: &'c mut Chance,
    rules: Rules,
    conversation: Twins,
    now_ms: u64,
    /// When the driver will call.
    armed_ms: Option<u64>,
    ends: PerSide<ScriptedEnd>,
    /// From the client, and from the server.
    ways: PerSide<Way>,
    presence: PerSide<Presence>,
    /// When data has moved last.
    data_ms: u64,
    /// When the closing handshake has begun.
    closing_ms: Option<u64>,
    /// When the driver has called last.
    called_ms: u64,
    ordered: bool,
}

/// Has one conversation from its beginning to its end.
///
/// # Panics
///
/// If it breaks a promise.
pub fn run(chance: &mut Chance) {
    run_beside(chance, false);
}

/// The same beside a conversation that goes from process to process, and must decide the same.
///
/// # Panics
///
/// If it breaks a promise, or they differ.
pub fn run_moved(chance: &mut Chance) {
    run_beside(chance, true);
}

fn run_beside(chance: &mut Chance, moves: bool) {
    let began_ms = chance.below(3) * 700;
    let rules = Rules::choose(chance, began_ms);
    let conversation = Twins::new(&rules, began_ms, moves.then(|| chance.clone()));
    let ends = SIDES.map(|side| ScriptedEnd::choose(side, chance));
    let [client, server] = ends;
    let mut world = World {
        armed_ms: conversation.deadline_ms(),
        conversation,
        now_ms: began_ms,
        ends: PerSide { client, server },
        ways: PerSide { client: Way::new(Side::Client), server: Way::new(Side::Server) },
        presence: PerSide { client: Presence::new(began_ms), server: Presence::new(began_ms) },
        data_ms: began_ms,
        closing_ms: None,
        called_ms: began_ms,
        ordered: false,
        rules,
        chance,
    };
    let end = world.play();
    world.conversation.compare(world.now_ms);
    world.judge(end);
}

impl World<'_> {
    /// Events and orders by chance; then we close, and nothing more comes but the time.
    fn play(&mut self) -> End {
        for _ in 0..self.chance.below(200) {
            self.step();
            if let Some(end) = self.settle() {
                return end;
            }
        }
        self.order(Cause::Kill);
        for _ in 0..10 {
            if let Some(end) = self.settle() {
                return end;
            }
            let due_ms = self.conversation.deadline_ms().expect("an end that was ordered is due");
            self.now_ms = self.now_ms.max(due_ms);
            self.on_time();
        }
        panic!("it does not end");
    }

    fn step(&mut self) {
        let side = self.chance.pick(&SIDES);
        match self.chance.below(40) {
            0..=13 => self.deliver(side),
            14..=24 => self.ends.get_mut(side).speak(self.chance),
            25..=32 => self.wait(),
            33 if self.chance.one_in(5) || self.ends.get(side).has_closed => self.end(side),
            34 if self.chance.one_in(4) => {
                let cause = self.chance.pick(&[
                    Cause::Drain(CloseCode::GOING_AWAY),
                    Cause::Drain(CloseCode::SERVICE_RESTART),
                    Cause::Kill,
                    Cause::Unhealthy,
                    Cause::Credentials(Lapse::Expired),
                    Cause::Credentials(Lapse::Revoked),
                ]);
                self.order(cause);
            }
            35 => self.conversation.on_sent(self.now_ms),
            36 => self.on_time(),
            37 if self.chance.one_in(20) => self.fail(side),
            _ => self.ends.get_mut(side).hear(self.now_ms, self.chance),
        }
    }

    /// The wire brings some of what a side has sent.
    fn deliver(&mut self, from: Side) {
        let start = self.ways.get(from).came.len();
        let most = self.ends.get(from).outbox.len() - start;
        if self.ways.get(from).ended || self.conversation.pauses(from) || most == 0 {
            return;
        }
        let len = match self.chance.below(4) {
            0 => 1,
            1 => most,
            _ => 1 + self.chance.index(most.min(60)),
        };
        let chunk = self.ends.get(from).outbox[start..start + len].to_vec();
        self.note_bytes(from, &chunk);
        let mut rest = &*chunk;
        loop {
            self.note_judged(from, start + chunk.len() - rest.len());
            let verdict = self.conversation.on_bytes(from, rest, self.now_ms);
            match verdict {
                Verdict::Pass => self.pass(from, rest),
                Verdict::Withhold => self.check_withheld(from),
                Verdict::Inject { at, frame } => {
                    self.pass(from, &rest[..at]);
                    self.put_in(from.other(), frame);
                    if !self.conversation.withholds(from) {
                        self.pass(from, &rest[at..]);
                    }
                }
                Verdict::Part { pass, insert, skip } => {
                    self.pass(from, &rest[..pass]);
                    rest = &rest[pass + skip..];
                    match insert {
                        Some(Insert::Frame(frame)) => self.put_in(from.other(), frame),
                        Some(Insert::Held(held)) => self.pass(from, &held),
                        None if self.conversation.withholds(from) => self.check_withheld(from),
                        None => self.note_missing(from, start + chunk.len() - rest.len()),
                    }
                    if !rest.is_empty() {
                        continue;
                    }
                }
            }
            break;
        }
        self.ways.get(from).check_held(&self.conversation);
    }

    fn pass(&mut self, from: Side, bytes: &[u8]) {
        self.ways.get_mut(from).pass(bytes, self.now_ms);
        self.ends.get_mut(from.other()).inbox.extend_from_slice(bytes);
    }

    /// A frame of ours goes to this side.
    fn put_in(&mut self, to: Side, frame: OwnFrame) {
        self.ways.get(to.other()).check_place(self.rules.settings.extensions);
        match frame {
            OwnFrame::Ping(payload) => self.note_ping(to, payload),
            OwnFrame::Close(code, cause) => {
                assert!(code.is_valid_on_wire());
                if let Some(cause) = cause {
                    assert_eq!(Some(cause), self.conversation.cause());
                    assert_eq!(code, cause.code(to));
                }
                self.judge_turn(to);
                self.ways.get_mut(to.other()).closed = Some(code);
                assert_eq!(self.conversation.own_close(to), Some(code));
            }
        }
        let mask = (to == Side::Server).then(|| [1, 2, 3, self.chance.below(256) as u8]);
        self.ends.get_mut(to).inbox.extend_from_slice(&frame.encode(mask));
    }

    fn end(&mut self, from: Side) {
        // Unless the other one is gone.
        if !self.chance.one_in(5) {
            self.end_last_words(from);
        }
        self.ways.get_mut(from).ended = true;
        self.conversation.on_end(from, self.now_ms);
    }

    fn end_last_words(&mut self, from: Side) {
        self.ways.get_mut(from).has_finished = true;
        self.conversation.end_last_words(from);
        if let Some(frame) = self.conversation.poll_frame(from.other(), self.now_ms) {
            self.put_in(from.other(), frame);
        }
    }

    /// The server is lost: the client may be told, and nothing more comes.
    fn fail(&mut self, lost: Side) {
        let told = self.ways.get(lost).ended || self.conversation.close_code(lost).is_some();
        let was_paused = self.conversation.pauses(lost);
        if !told && let Some(frame) = self.conversation.failure(lost.other(), self.now_ms) {
            if was_paused {
                // Who must not speak is not idle.
                self.data_ms = self.now_ms;
            }
            assert_eq!(frame, OwnFrame::Close(CloseCode::BAD_GATEWAY, None));
            self.put_in(lost.other(), frame);
        }
        self.end(lost);
    }

    fn order(&mut self, cause: Cause) {
        self.ordered |= !self.conversation.is_closing();
        if let Some(offender) = cause.offender() {
            self.ways.get_mut(offender).has_finished = true;
        }
        self.conversation.close(cause, self.now_ms);
        assert!(self.conversation.is_closing());
    }

    fn wait(&mut self) {
        self.now_ms = match (self.chance.below(4), self.armed_ms) {
            (0, Some(armed_ms)) => armed_ms.clamp(self.now_ms, self.now_ms + 5_000),
            (1, _) => self.now_ms + self.chance.below(700),
            _ => self.now_ms + self.chance.below(40),
        };
        // Bytes may be seen before the time is.
        if self.armed_ms.is_some_and(|armed_ms| armed_ms <= self.now_ms) && !self.chance.one_in(6) {
            self.on_time();
        }
    }

    fn on_time(&mut self) {
        for side in SIDES {
            if self.conversation.pauses(side) {
                self.conversation.on_excused(side, self.now_ms);
                self.presence.get_mut(side).heard_ms = self.now_ms;
                self.data_ms = self.now_ms;
            }
        }
        let asked = SIDES.map(|side| self.is_asked(side));
        self.conversation.on_time(self.now_ms);
        self.called_ms = self.now_ms;
        for (side, was_asked) in SIDES.into_iter().zip(asked) {
            if self.is_asked(side) && !was_asked {
                self.judge_question(side);
            }
        }
        self.armed_ms = self.conversation.deadline_ms();
        assert!(self.armed_ms.is_none_or(|due_ms| due_ms > self.now_ms), "what is due is done");
        self.judge_time();
    }

    /// Whether a ping for this side waits for its place.
    fn is_asked(&self, side: Side) -> bool {
        let injection = self.conversation.directions.get(side.other()).injection;
        matches!(injection, Injection::Pending(OwnFrame::Ping(_)))
    }

    /// Does what is wanted behind every event, and tells the end.
    fn settle(&mut self) -> Option<End> {
        self.conversation.wander(self.now_ms);
        let changed = self.conversation.take_changed();
        for to in SIDES {
            if let Some(frame) = self.conversation.poll_frame(to, self.now_ms) {
                assert!(changed, "nobody would have asked for it");
                self.put_in(to, frame);
            }
        }
        let changed = changed | self.conversation.take_changed();
        let due_ms = self.conversation.deadline_ms();
        if changed {
            self.armed_ms = due_ms;
        }
        let is_early = |due_ms| self.armed_ms.is_some_and(|armed_ms| armed_ms <= due_ms);
        assert!(due_ms.is_none_or(is_early), "nobody would have come in time");
        if self.conversation.poll_end().is_none() {
            self.judge_pauses();
        }
        if self.conversation.is_closing() {
            self.closing_ms.get_or_insert(self.now_ms);
            self.judge_last_words();
        }
        self.conversation.poll_end()
    }
}
