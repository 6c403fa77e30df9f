//! A conversation goes on in another process: from wherever it is, under another policy, from a record of another
//! release, or not at all from what cannot be one.

use std::sync::Arc;

use minicbor::{Encoder, data::Type};

use super::policies::{Line, asking, checking, fragment, limiting};
use super::*;
use crate::conversation::meter::{Charge, Meter, Toll};

const BOTH: [Side; 2] = [Side::Client, Side::Server];

/// By how much the clock of the other process is ahead.
const AHEAD_MS: u64 = 1_000_000;

fn record(conversation: &Conversation, now_ms: u64) -> Vec<u8> {
    minicbor::to_vec(conversation.state(now_ms)).unwrap()
}

/// What goes on in the other process, perhaps under another policy.
fn moved(conversation: &Conversation, policy: Option<&Policy>, now_ms: u64) -> Conversation {
    let state = minicbor::decode(&record(conversation, now_ms)).unwrap();
    let policy = policy.cloned().map(Arc::new);
    Conversation::restore(state, policy.as_ref(), None, now_ms + AHEAD_MS).unwrap()
}

impl Line {
    /// The conversation moves.
    fn move_on(&mut self, policy: Option<&Policy>, now_ms: u64) {
        self.conversation = moved(&self.conversation, policy, now_ms);
    }
}

/// What a record is full of when something is under way.
fn under_way() -> Vec<(&'static str, Line, u64)> {
    use Side::{Client, Server};
    let whole = Policy {
        keep_alive: asking(1_000, Some(400)).keep_alive,
        idle_ms: Some(60_000),
        notes_data: true,
        slow_reader_ms: PerSide { client: Some(30_000), server: None },
        limits: PerSide {
            client: Limits { frame: Some(1_000), controls: Some(9), ..Limits::default() },
            server: Limits { message: Some(70_000), fragments: Some(7), ..Limits::default() },
        },
        failure: Some(CloseCode::BAD_GATEWAY),
        ..checking(Check::Text)
    };
    let plain = Policy::default();
    let said = |policy: &Policy, from: Side, bytes: &[u8]| {
        let mut line = Line::new(policy.clone());
        line.say(from, bytes, 50);
        line
    };
    let text = frame(Client, Opcode::Text, "päper".as_bytes());
    let reason = close::encode(CloseCode::NORMAL, "goodbye", Some([9, 8, 7, 6]));
    let mut lines = vec![
        ("new", Line::new(whole.clone()), 0),
        ("mid-header", said(&plain, Client, &text[..3]), 60),
        ("mid-payload", said(&plain, Client, &text[..9]), 60),
        ("before the code of a Close", said(&plain, Client, &reason[..7]), 60),
        ("mid-reason", said(&plain, Client, &reason[..10]), 60),
        ("broken", said(&plain, Server, b"\xff\xff"), 60),
        ("a held header", said(&whole, Client, &text[..3]), 60),
        ("a held Close", said(&whole, Client, &reason[..9]), 60),
        ("half a character", said(&whole, Client, &text[..8]), 60),
        (
            "between fragments",
            said(&whole, Server, &fragment(Server, false, Opcode::Text, b"hal\xc3")),
            60,
        ),
    ];
    let mut pinged = Line::new(whole.clone());
    pinged.say(Server, &frame(Server, Opcode::Text, b"long")[..3], 500);
    pinged.at(1_001);
    lines.push(("a ping that waits", pinged, 1_010));
    let mut asked = Line::new(whole.clone());
    asked.at(1_001);
    asked.say(Client, b"\x8a\x88", 1_010);
    lines.push(("half a pong", asked, 1_020));
    let mut deferred = said(&whole, Client, &frame(Client, Opcode::Text, b"\xff"));
    deferred.say(Server, &frame(Server, Opcode::Text, b"last")[..4], 60);
    lines.push(("last words", deferred, 70));
    let mut answering = said(&whole, Client, &[0x83, 0x85, 1, 2, 3]);
    answering.say(Server, &closing(Server), 60);
    lines.push(("behind a broken rule", answering, 70));
    let mut lingering = said(&plain, Server, &closing(Server));
    lingering.conversation.on_end(Server, 60);
    lines.push(("lingering", lingering, 70));
    let mut killed = said(&plain, Server, &text[..1]);
    let words = Farewell { code: CloseCode(4000), reason: "banned".into() };
    killed.conversation.close_in_words(Arc::new(words), Cause::Kill, 60);
    lines.push(("killed", killed, 70));
    let mut over = said(&plain, Server, b"\x89\x00");
    over.conversation.on_end(Server, 60);
    over.at(60 + LINGER_MS + 1);
    lines.push(("over", over, 4_000));
    let mut silent = Line::new(whole.clone());
    silent.at(1_001);
    silent.at(1_402);
    lines.push(("silent", silent, 1_500));
    let mut answered = Line::new(whole.clone());
    answered.at(1_001);
    answered.say(Client, &frame(Client, Opcode::Pong, b"mark\0\0\0\x01"), 1_009);
    answered.say(Server, &frame(Server, Opcode::Ping, b"?"), 1_200);
    lines.push(("answered", answered, 1_500));
    let mut wider = said(&whole, Server, &fragment(Server, false, Opcode::Binary, &[7; 300]));
    wider.move_on(Some(&limiting(Limits { message: Some(9), ..Limits::default() })), 60);
    lines.push(("under wider limits", wider, 60 + AHEAD_MS));
    let mut paused = Line::with(Settings {
        meters: Some(Box::new(strict())),
        extensions: crate::Extensions::DEFLATE,
        lifetime_ms: Some(100_000),
        expiry_ms: Some(90_000),
        mark: *b"MARK",
        ..Settings::default()
    });
    paused.say(Client, &frame(Client, Opcode::Binary, b"much"), 50);
    lines.push(("paused", paused, 60));
    lines
}

/// What was recorded by the release that had these fields first. A line may be added, and none is ever changed: who
/// upgrades from that release has its records.
const RECORDED: &str = include_str!("../../../tests/data/conversations.txt");

#[test]
fn the_records_of_earlier_releases_are_read() {
    let lines = under_way();
    assert_eq!(RECORDED.lines().count(), lines.len());
    for ((name, line, now_ms), recorded) in lines.iter().zip(RECORDED.lines()) {
        let (was, hex) = recorded.split_once(": ").unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let record: Vec<_> = (0..hex.len()).step_by(2).map(byte).collect();
        let state: ConversationState = minicbor::decode(&record).unwrap();
        assert_eq!((was, &state), (*name, &line.conversation.state(*now_ms)));
        let meters = (*name == "paused").then(strict);
        let goes_on = Conversation::restore(state.clone(), None, meters, *now_ms).unwrap();
        assert_eq!(goes_on.state(*now_ms), state, "{name}");
    }
}

/// What comes next in each of these, and what of it reaches the other side.
#[test]
fn whatever_is_under_way_goes_on_in_another_process() {
    use Side::{Client, Server};
    let pong = [&b"\x8a\x88"[..], &[0; 4], b"mark\0\0\0\x01"].concat();
    let text = frame(Client, Opcode::Text, "päper".as_bytes());
    let reason = close::encode(CloseCode::NORMAL, "goodbye", Some([9, 8, 7, 6]));
    let away = frame(Server, Opcode::Close, b"\x03\xe9");
    let behind_half = [&text[8..], &text].concat();
    let cases: &[(&str, Side, &[u8], &[u8])] = &[
        ("new", Client, &text, &text),
        ("mid-header", Client, &text[3..], &text[3..]),
        ("mid-payload", Client, &text[9..], &text[9..]),
        ("before the code of a Close", Client, &reason[7..], &reason[7..]),
        ("mid-reason", Client, &reason[10..], &reason[10..]),
        ("broken", Server, b"whatever", b"whatever"),
        ("a held header", Client, &text[3..], &text),
        ("a held Close", Client, &reason[9..], &reason),
        ("half a character", Client, &behind_half, &behind_half),
        ("between fragments", Server, b"\x80\x03\xa4de", b"\x80\x03\xa4de"),
        ("a ping that waits", Server, b"ong", b"ong\x89\x08mark\0\0\0\x01"),
        ("half a pong", Client, &pong[2..], b""),
        (
            "last words",
            Server,
            &[b"st", &away[..]].concat(),
            b"st\x88\x1f\x03\xefinvalid UTF-8 in text message",
        ),
        (
            "behind a broken rule",
            Client,
            &[&[4, b'x', b'x'][..], &[0; 3], &closing(Client)].concat(),
            b"",
        ),
        ("lingering", Client, &text, &text),
        ("killed", Server, b"\x05hello", b"\x05hello\x88\x02\x0f\xa0"),
        ("over", Client, &text, &text),
        ("silent", Client, &pong, b""),
        ("answered", Client, &pong, &pong),
        ("under wider limits", Server, b"\x80\x01x", b"\x80\x01x"),
        ("paused", Client, &text, &text),
    ];
    let lines = under_way();
    assert!(lines.iter().map(|(name, ..)| name).eq(cases.iter().map(|(name, ..)| name)));
    for ((name, mut stays, now_ms), &(_, from, bytes, expected)) in lines.into_iter().zip(cases) {
        let mut moves = Line::with(Settings::default());
        let state = stays.conversation.state(now_ms);
        let meters = (name == "paused").then(strict);
        moves.conversation = Conversation::restore(state, None, meters, now_ms + AHEAD_MS).unwrap();
        for to in BOTH {
            stays.taken(to);
        }
        let then_ms = now_ms + 100;
        stays.say(from, bytes, then_ms);
        moves.say(from, bytes, then_ms + AHEAD_MS);
        let heard = moves.taken(from.other());
        assert_eq!(heard, expected, "{name}");
        assert_eq!(heard, stays.taken(from.other()), "{name}");
        assert_eq!(moves.taken(from), stays.taken(from), "{name}");
        let (stays, moves) = (stays.conversation, moves.conversation);
        assert_eq!(moves.state(then_ms + AHEAD_MS), stays.state(then_ms), "{name}");
        let due_ms = moves.deadline_ms().map(|due_ms| due_ms - AHEAD_MS);
        assert_eq!(due_ms, stays.deadline_ms(), "{name}");
        assert_eq!(moves.poll_end(), stays.poll_end(), "{name}");
        assert_eq!(moves.close_reason(from), stays.close_reason(from), "{name}");
    }
}

/// Thousands of them move at once, and most have nothing under way.
#[test]
fn the_record_of_an_idle_conversation_is_small() {
    let policy = Policy {
        idle_ms: Some(3_600_000),
        slow_reader_ms: PerSide::both(Some(60_000)),
        failure: Some(CloseCode::BAD_GATEWAY),
        limits: PerSide::both(Limits { message: Some(1 << 20), ..Limits::default() }),
        keep_alive: asking(30_000, Some(10_000)).keep_alive,
        ..checking(Check::Text)
    };
    for (policy, most) in [(Policy::default(), 100), (policy, 200)] {
        let mut line = Line::new(policy);
        for now_ms in (0..20_000_000).step_by(20_000) {
            for side in BOTH {
                line.say(side, &frame(side, Opcode::Text, b"well, hello"), now_ms);
            }
        }
        let len = record(&line.conversation, 20_000_000).len();
        assert!(len <= most, "{len}");
    }
}

/// The same record, but for what `change` does to the fields of its map.
fn changed(record: &[u8], change: impl Fn(&mut Vec<(u64, Vec<u8>)>)) -> Vec<u8> {
    let mut decoder = minicbor::Decoder::new(record);
    let len = decoder.map().unwrap().unwrap();
    let mut fields = Vec::new();
    for _ in 0..len {
        let key = decoder.u64().unwrap();
        let start = decoder.position();
        decoder.skip().unwrap();
        fields.push((key, record[start..decoder.position()].to_vec()));
    }
    change(&mut fields);
    let mut encoder = Encoder::new(Vec::new());
    encoder.map(fields.len() as u64).unwrap();
    for (key, value) in fields {
        encoder.u64(key).unwrap().writer_mut().extend_from_slice(&value);
    }
    encoder.into_writer()
}

/// The next release may say more.
#[test]
fn unknown_fields_are_skipped() {
    let more: &[&[u8]] =
        &[b"\x05", b"\x82\x01\xa1\x02\x03", b"\xa2\x00\x01\x01\x82\x07\x80", b"\x44four", b"\xf6"];
    for (name, line, now_ms) in under_way() {
        let state = line.conversation.state(now_ms);
        let longer = changed(&record(&line.conversation, now_ms), |fields| {
            for (key, value) in (500..).zip(more) {
                fields.push((key, value.to_vec()));
            }
            // In the policy too.
            for (_, policy) in fields.iter_mut().filter(|(key, _)| *key == 0) {
                *policy = changed(policy, |fields| fields.insert(0, (77, more[1].to_vec())));
            }
        });
        assert_eq!(minicbor::decode::<ConversationState>(&longer).unwrap(), state, "{name}");
    }
}

#[test]
fn what_is_missing_is_as_in_the_beginning() {
    let state: ConversationState = minicbor::decode(b"\xa0").unwrap();
    assert_eq!(state, Conversation::new(&Settings::default(), 7).state(7));
    assert!(Conversation::restore(state, None, None, 7).is_ok());
    // One of an earlier release, which had less to say.
    let line = Line::new(asking(1_000, None));
    let shorter =
        changed(&record(&line.conversation, 900), |fields| fields.retain(|(key, _)| *key == 0));
    let state = minicbor::decode(&shorter).unwrap();
    let conversation = Conversation::restore(state, None, None, 5_000).unwrap();
    assert_eq!(conversation.deadline_ms(), Some(end_of(5_000, 1_000)));
}

/// Who does not know what holds, or what is under way, must not take it.
#[test]
fn unknown_values_are_refused() {
    let of = |key: u64, value: &[u8]| changed(b"\xa0", |fields| fields.push((key, value.to_vec())));
    let direction = |key, value| [b"\x82", &of(key, value)[..], b"\xa0"].concat();
    for (what, key, value) in [
        ("a check", 0, of(4, b"\x03")),
        ("a side", 7, b"\x02".to_vec()),
        ("how far the end has come", 4, b"\x82\x04\x80".to_vec()),
        ("a cause", 4, b"\x82\x02\x82\x00\x82\x18\x20\x80".to_vec()),
        ("an end", 4, b"\x82\x03\x81\x82\x04\x81\x00".to_vec()),
        ("what is to be said", 3, direction(3, b"\x82\x06\x80")),
        (
            "the cause of a Close",
            3,
            direction(3, b"\x82\x01\x81\x82\x01\x82\x19\x03\xe9\x82\x18\x20\x80"),
        ),
        ("a place", 3, direction(0, &of(0, b"\x82\x04\x80"))),
        ("an opcode", 3, direction(0, &of(0, b"\x82\x02\x83\x01\x03\xf5"))),
        ("a question", 3, direction(6, &of(2, b"\x82\x04\x80"))),
    ] {
        let record = of(key, &value);
        // It is well formed.
        let mut decoder = minicbor::Decoder::new(&record);
        assert_eq!(decoder.datatype().unwrap(), Type::Map);
        decoder.skip().unwrap();
        assert_eq!(decoder.position(), record.len(), "{what}");
        assert!(minicbor::decode::<ConversationState>(&record).is_err(), "{what}");
    }
}

#[test]
fn a_state_in_which_nothing_can_have_been_is_refused() {
    let of = |key: u64, value: &[u8]| changed(b"\xa0", |fields| fields.push((key, value.to_vec())));
    let text = |value: &[u8]| [of(0, &of(4, b"\x02")), value.to_vec()];
    let counts = of(0, b"\x18\x40");
    let client = |fields: &[(u64, &[u8])]| {
        let client = changed(b"\xa0", |parts| {
            parts.extend(fields.iter().map(|&(key, value)| (key, value.to_vec())));
        });
        of(3, &[b"\x82", &client[..], b"\xa0"].concat())
    };
    let place = |value: &[u8]| client(&[(0, &of(0, value))]);
    let running = changed(b"\xa0", |fields| {
        fields.extend([(1, b"\x09".to_vec()), (2, b"\xf5".to_vec()), (3, b"\xf5".to_vec())]);
    });
    for (what, record) in [
        (
            "a header of 14 bytes",
            place(
                &[&b"\x82\x00\x81\x4e"[..], &[0x81, 0xfe, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]
                    .concat(),
            ),
        ),
        ("a whole header", place(b"\x82\x00\x81\x46\x81\x85\x01\x02\x03\x04")),
        ("a header that breaks a rule", place(b"\x82\x00\x81\x41\x83")),
        ("a Close of one byte", place(b"\x82\x01\x83\x01\x44\0\0\0\0\xf6")),
        ("a Close that is too long", place(b"\x82\x01\x83\x18\x7e\x44\0\0\0\0\xf6")),
        ("an empty rest", place(b"\x82\x02\x83\x00\x09\xf5")),
        ("a long ping", place(b"\x82\x02\x83\x18\x7e\x09\xf5")),
        ("more payload than the message", place(b"\x82\x02\x83\x05\x02\xf5")),
        ("a reason without a Close", client(&[(0, &of(5, b"\xa2\x00\x44\0\0\0\0\x01\x40"))])),
        ("a Close without a code", client(&[(0, &of(4, b"\xf5"))])),
        ("more frames than bytes", client(&[(1, &of(1, b"\x05"))])),
        ("no room to count", client(&[(1, &of(0, b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff"))])),
        ("a whole frame held back", client(&[(1, &counts), (7, b"\x46\x8a\x80\0\0\0\0")])),
        ("data held back", client(&[(1, &counts), (7, b"\x47\x81\x85\0\0\0\0h")])),
        ("more held back than came", client(&[(7, b"\x41\x81")])),
        (
            "held back within a frame",
            client(&[(0, &of(0, b"\x82\x00\x81\x41\x81")), (1, &counts), (7, b"\x41\x81")]),
        ),
        ("a code that is none", client(&[(3, b"\x82\x03\x81\x19\x03\xed")])),
        ("last words of nobody", client(&[(3, b"\x82\x02\x80")])),
        ("lingering behind nobody", of(4, b"\x82\x01\x82\x00\x05")),
        ("a drain with no code", of(4, b"\x82\x02\x82\x05\x82\x00\x81\x01")),
        ("bits that are not there", of(2, &of(0, b"\x08"))),
        (
            "a front as long as any",
            client(&[(8, &of(6, &of(0, &[&b"\x50"[..], &[0x88; 16]].concat())))]),
        ),
        ("text that nobody looks at", client(&[(0, &running), (8, &of(4, b"\xa1\x01\xf6"))])),
    ] {
        let state = minicbor::decode(&record).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(Conversation::restore(state, None, None, 1_000).is_err(), "{what}");
    }
    // Not the beginning of a character.
    for (tail, is_sound) in [
        (&b"\x41\xc3"[..], true),
        (b"\x43\xf0\x9f\x98", true),
        (b"\x43aa\xe2", false),
        (b"\x42\xc3\xa4", false),
        (b"\x41\xff", false),
    ] {
        let watch = of(
            4,
            &changed(b"\xa0", |fields| fields.extend([(0, tail.to_vec()), (1, b"\xf6".to_vec())])),
        );
        let [policy, directions] = text(&client(&[(0, &running), (8, &watch)]));
        let record = [b"\xa2", &policy[1..], &directions[1..]].concat();
        let state = minicbor::decode(&record).unwrap();
        assert_eq!(Conversation::restore(state, None, None, 9).is_ok(), is_sound, "{tail:x?}");
    }
}

/// A meter that pauses everybody.
#[derive(Debug)]
struct Strict;

impl Meter for Strict {
    fn charge(&self, _: Charge, now_ms: u64) -> Toll {
        Toll::Wait { until_ms: now_ms + 100 }
    }
}

fn strict() -> PerSide<Meters> {
    PerSide { client: vec![Arc::new(Strict) as Arc<dyn Meter>], server: Vec::new() }
}

/// Has all kinds of things happen, as a relay would.
fn drive(mut conversation: Conversation, mut now_ms: u64) {
    for (i, from) in BOTH.into_iter().cycle().take(24).enumerate() {
        let said = match i / 2 {
            0 => vec![1; 3],
            1 => frame(from, Opcode::Text, "päper".as_bytes()),
            2 => frame(from, Opcode::Pong, b"mark\0\0\0\x01"),
            3 => frame(from, Opcode::Ping, b"?"),
            4 => fragment(from, false, Opcode::Text, &[b'x'; 300]),
            5 => frame(from, Opcode::Continuation, b"y")[..3].to_vec(),
            6 => vec![0x88; 40],
            7 => closing(from),
            _ => vec![0; 200],
        };
        let mut rest = &*said;
        for turns in 0.. {
            assert!(turns < 2_000, "it does not come to an end");
            if conversation.directions.get(from).ended {
                break;
            }
            let Verdict::Part { pass, skip, .. } = conversation.on_bytes(from, rest, now_ms) else {
                break;
            };
            rest = &rest[pass + skip..];
            if rest.is_empty() {
                break;
            }
        }
        for to in BOTH {
            let frame = conversation.poll_frame(to, now_ms);
            let _ = frame.map(|frame| conversation.encode(to, frame, None));
            let _ = conversation.under_way(to);
        }
        if i == 9 {
            conversation.close(Cause::Drain(CloseCode::GOING_AWAY), now_ms);
        }
        if i == 15 {
            conversation.on_end(from, now_ms);
        }
        let due_ms =
            conversation.deadline_ms().filter(|&due_ms| due_ms < now_ms.saturating_add(1 << 40));
        now_ms = now_ms.max(due_ms.unwrap_or(0));
        conversation.on_time(now_ms);
        assert!(
            conversation.deadline_ms().is_none_or(|due_ms| due_ms > now_ms),
            "what is due is done"
        );
        let _ = conversation.state(now_ms);
    }
}

/// Takes it if it can be taken, and goes on.
fn take(record: &[u8], policy: Option<&Arc<Policy>>, meters: Option<PerSide<Meters>>) -> bool {
    let Ok(state) = minicbor::decode::<ConversationState>(record) else { return false };
    let taken = Conversation::restore(state, policy, meters, AHEAD_MS);
    let is_ok = taken.is_ok();
    if let Ok(conversation) = taken {
        drive(conversation, AHEAD_MS);
    }
    is_ok
}

fn any_policy() -> impl Strategy<Value = Option<Arc<Policy>>> {
    let most = || prop::option::of(0..300_u64);
    let check = prop_oneof![Just(Check::Note), Just(Check::Frames), Just(Check::Text)];
    let limits =
        (most(), most(), most(), most()).prop_map(|(frame, message, fragments, controls)| {
            let [fragments, controls] =
                [fragments, controls].map(|most| most.map(|most| most as u32));
            Limits { frame, message, fragments, controls }
        });
    let policy = (check, limits, most(), most(), most()).prop_map(
        |(check, limits, idle_ms, interval, pong)| {
            let keep_alive =
                interval.map(|interval_ms| KeepAlive { interval_ms, pong_timeout_ms: pong });
            Policy {
                check,
                limits: PerSide { client: limits, server: Limits::default() },
                idle_ms,
                keep_alive: PerSide::both(keep_alive),
                ..Policy::default()
            }
        },
    );
    prop::option::of(policy.prop_map(Arc::new))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn noise_is_refused_or_goes_on(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        policy in any_policy(),
    ) {
        take(&noise, policy.as_ref(), None);
    }

    #[test]
    fn what_was_changed_on_its_way_is_refused_or_goes_on(
        (which, metered) in any::<(prop::sample::Index, bool)>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..4),
        policy in any_policy(),
    ) {
        let lines = under_way();
        let (_, line, now_ms) = &lines[which.index(lines.len())];
        let mut record = record(&line.conversation, *now_ms);
        let is_same = changes.is_empty();
        for (at, byte, bit) in changes {
            let at = at.index(record.len());
            record[at] = if bit { record[at] ^ 1 << (byte % 8) } else { byte };
        }
        let taken = take(&record, policy.as_ref(), metered.then(strict));
        prop_assert!(taken || !is_same);
    }
}

/// Frames that nobody objects to, and a Close behind them.
fn good_stream() -> impl Strategy<Value = Vec<u8>> {
    let client = Side::Client;
    let text = any::<String>().prop_map(move |text| frame(client, Opcode::Text, text.as_bytes()));
    let pieces = any::<(String, prop::sample::Index)>().prop_map(move |(text, at)| {
        let (one, two) = text.as_bytes().split_at(at.index(text.len() + 1));
        let pong = frame(client, Opcode::Pong, b"12345678");
        let last = fragment(client, true, Opcode::Continuation, two);
        [fragment(client, false, Opcode::Text, one), pong, last].concat()
    });
    let binary = prop::collection::vec(any::<u8>(), 0..300)
        .prop_map(move |data| frame(client, Opcode::Binary, &data));
    let messages = prop::collection::vec(prop_oneof![text, pieces, binary], 0..6);
    messages.prop_map(|messages| [messages.concat(), closing(Side::Client)].concat())
}

proptest! {
    /// Each part of a stream comes under another policy, or the same, in another process.
    #[test]
    fn no_byte_is_lost_however_policies_change(
        stream in good_stream(),
        moves in prop::collection::vec((1..40_usize, 0..5_usize), 0..30),
    ) {
        let longest = limiting(Limits { message: Some(50_000), ..Limits::default() });
        let policies = [Check::Note, Check::Frames, Check::Text].map(checking);
        let policies = [&policies[..], &[asking(1_000, None), longest]].concat();
        let mut line = Line::new(Policy::default());
        let (mut at, mut now_ms) = (0, 0);
        for (len, policy) in moves {
            let end = stream.len().min(at + len);
            line.say(Side::Client, &stream[at..end], now_ms);
            at = end;
            line.move_on(Some(&policies[policy]), now_ms);
            now_ms += AHEAD_MS;
        }
        line.say(Side::Client, &stream[at..], now_ms);
        prop_assert_eq!(line.taken(Side::Server), stream);
        prop_assert_eq!(line.conversation.cause(), None);
        prop_assert_eq!(line.conversation.close_code(Side::Client), Some(CloseCode::NORMAL));
    }
}

/// What it says before the move, what behind it, and what of all that reaches the server.
#[test]
fn what_a_new_policy_looks_for_begins_with_the_next_message() {
    use Opcode::{Continuation, Text};
    let first = |len| fragment(Side::Client, false, Text, &vec![b'x'; len]);
    let next = |fin, len| fragment(Side::Client, fin, Continuation, &vec![b'x'; len]);
    let text = |payload: &[u8]| frame(Side::Client, Text, payload);
    let longest = |most: Option<u64>| limiting(Limits { message: most, ..Limits::default() });
    let pieces = |most| limiting(Limits { fragments: Some(most), ..Limits::default() });
    let (plain, frames, texts) =
        (Policy::default(), checking(Check::Frames), checking(Check::Text));
    let bad = text(b"\xff\xff");
    let too_long = Some(Cause::MessageTooBig(Side::Client));
    let invalid = Some(Cause::InvalidText(Side::Client));
    let close = frame(Side::Client, Opcode::Close, b"\x03\xe8bye");
    type Case<'a> = (&'a Policy, &'a Policy, Vec<u8>, Vec<u8>, usize, Option<Cause>);
    let cases: &[Case<'_>] = &[
        // What it was not looked at for in the beginning, it is not in the middle.
        (&plain, &texts, bad[..7].to_vec(), [&bad[7..], &bad].concat(), 1, invalid),
        (&plain, &texts, bad[..3].to_vec(), [&bad[3..], &bad].concat(), 5, invalid),
        (
            &frames,
            &texts,
            first(3),
            [next(false, 2), next(true, 1), bad.clone()].concat(),
            15,
            invalid,
        ),
        // And what is not looked for any more may end as it likes.
        (
            &texts,
            &frames,
            text("ä".as_bytes())[..7].to_vec(),
            [&b"\xff"[..], &bad].concat(),
            9,
            None,
        ),
        (
            &texts,
            &plain,
            text("ä".as_bytes())[..7].to_vec(),
            [&b"\xff"[..], &bad].concat(),
            9,
            None,
        ),
        // What goes on to be looked for is held to what has come.
        (&texts, &texts, text("ä".as_bytes())[..7].to_vec(), b"\xff".to_vec(), 0, invalid),
        // Messages keep to the wider limit until they end.
        (
            &longest(None),
            &longest(Some(10)),
            first(20),
            [next(true, 20), first(11)].concat(),
            26,
            too_long,
        ),
        (
            &longest(Some(10)),
            &longest(Some(20)),
            first(5),
            [next(false, 15), next(true, 1)].concat(),
            21,
            too_long,
        ),
        (
            &longest(Some(20)),
            &longest(Some(10)),
            first(5),
            [next(false, 15), next(true, 1)].concat(),
            21,
            too_long,
        ),
        (
            &longest(Some(20)),
            &longest(Some(10)),
            first(5),
            [next(true, 15), first(11)].concat(),
            21,
            too_long,
        ),
        (&longest(Some(5)), &plain, first(5), next(true, 50), 56, None),
        (
            &plain,
            &pieces(2),
            first(1),
            [next(false, 1), next(true, 1), first(1), next(false, 1), next(true, 1)].concat(),
            28,
            Some(Cause::TooManyFragments(Side::Client)),
        ),
        // Bytes that were held back go on with the next ones.
        (&frames, &plain, close[..3].to_vec(), close[3..].to_vec(), 11, None),
        (&frames, &plain, close[..9].to_vec(), close[9..].to_vec(), 11, None),
        (&frames, &texts, bad[..3].to_vec(), bad[3..].to_vec(), 0, invalid),
        (&texts, &plain, bad[..3].to_vec(), [&bad[3..], &bad].concat(), 16, None),
        (&longest(Some(4)), &plain, first(9)[..5].to_vec(), first(9)[5..].to_vec(), 15, None),
        // A rule that is broken already is none any more.
        (&plain, &frames, vec![0xff], vec![0xff; 9], 9, None),
    ];
    for (i, (before, after, said, then, passes, cause)) in cases.iter().enumerate() {
        let mut line = Line::new((*before).clone());
        line.say(Side::Client, said, 100);
        line.taken(Side::Server);
        line.move_on(Some(after), 200);
        assert_eq!(line.conversation.policy(), *after);
        line.say(Side::Client, then, 300 + AHEAD_MS);
        assert_eq!(line.conversation.cause(), *cause, "case {i}");
        let heard = line.taken(Side::Server);
        let reason = cause.map_or("", Cause::reason);
        let close = close::encode(CloseCode::GOING_AWAY, reason, None);
        // Within a frame there is no place for it.
        let passed = heard.strip_suffix(&*close).unwrap_or(&heard).len();
        assert_eq!(passed, *passes, "case {i}: {heard:x?}");
    }
}

/// Nothing is due at once because another wait holds now, nor later than if it had held from the beginning.
#[test]
fn the_waits_of_a_new_policy_count_from_what_is_known_or_from_now() {
    let idle = |idle_ms| Policy { idle_ms: Some(idle_ms), ..Policy::default() };
    let noting = Policy { notes_data: true, ..Policy::default() };
    let plain = Policy::default();
    let cases = [
        (&plain, &asking(5_000, None), Some(14_001)),
        (&plain, &asking(1_000, None), Some(10_001)),
        (&asking(2_000, None), &asking(1_500, None), Some(10_501)),
        (&asking(2_000, None), &asking(900, None), Some(10_901)),
        (&asking(20_000, None), &asking(10_000, None), Some(19_001)),
        (&asking(20_000, None), &asking(20_000, None), Some(29_001)),
        (&asking(2_000, None), &plain, None),
        (&plain, &idle(5_000), Some(15_001)),
        (&noting, &idle(5_000), Some(14_001)),
        (&noting, &idle(500), Some(10_501)),
        (&idle(60_000), &idle(500), Some(10_501)),
        (&idle(60_000), &idle(30_000), Some(39_001)),
        (&idle(60_000), &plain, None),
    ];
    for (i, (before, after, due_ms)) in cases.into_iter().enumerate() {
        for lifetime_ms in [None, Some(10_200)] {
            let policy = Arc::new(before.clone());
            let mut line = Line::with(Settings { policy, lifetime_ms, ..Settings::default() });
            line.say(Side::Client, &frame(Side::Client, Opcode::Text, b"hello"), 9_000);
            // It is 10,000, and nothing was due.
            let moved = moved(&line.conversation, Some(after), 10_000);
            let ends_ms = lifetime_ms.map(|_| 10_201);
            let expected = [due_ms, ends_ms].into_iter().flatten().min();
            assert_eq!(moved.deadline_ms().map(|due_ms| due_ms - AHEAD_MS), expected, "case {i}");
        }
    }
}

/// A side that owes an answer has the whole of a shorter time, if what was left of the longer one is more.
#[test]
fn who_owes_an_answer_is_not_lost_by_a_move() {
    for (timeout_ms, due_ms) in [(5_000, 6_002), (4_000, 5_002), (3_000, 4_002), (1_000, 4_001)] {
        let mut line = Line::new(asking(1_000, Some(4_000)));
        line.at(1_001);
        let after = asking(1_000, Some(timeout_ms));
        let moved = moved(&line.conversation, Some(&after), 3_000);
        assert_eq!(moved.deadline_ms(), Some(due_ms + AHEAD_MS), "{timeout_ms}");
    }
    // And to nobody any more.
    let mut line = Line::new(asking(1_000, Some(4_000)));
    line.at(1_001);
    line.taken(Side::Client);
    line.move_on(Some(&Policy::default()), 3_000);
    assert_eq!(line.conversation.deadline_ms(), None);
    let pong = frame(Side::Client, Opcode::Pong, b"mark\0\0\0\x01");
    line.say(Side::Client, &pong, 4_000 + AHEAD_MS);
    assert_eq!(line.taken(Side::Server), b"", "it is still ours");
}

#[test]
fn a_pause_moves_as_long_as_there_is_a_meter() {
    let meters = Some(Box::new(strict()));
    let mut line = Line::with(Settings { meters, ..Settings::default() });
    line.say(Side::Client, &frame(Side::Client, Opcode::Text, b"much"), 50);
    let state = line.conversation.state(60);
    let record = minicbor::to_vec(&state).unwrap();
    for (meters, until_ms) in [(Some(strict()), Some(150 + AHEAD_MS)), (None, None)] {
        let state: ConversationState = minicbor::decode(&record).unwrap();
        assert_eq!(state, line.conversation.state(60));
        let moved = Conversation::restore(state, None, meters, 60 + AHEAD_MS).unwrap();
        assert_eq!(moved.pauses(Side::Client), until_ms.is_some());
        assert_eq!(moved.deadline_ms(), until_ms);
    }
}
