//! What a policy wants: checks, limits, time, keep-alive, and what the destination sees of it.

use std::sync::{Arc, Mutex};

use super::super::keep_alive::FRAME_MS;
use super::super::meter::{Charge, Excess, Meter, Toll};
use super::*;
use crate::close::CloseError;

const BOTH: [Side; 2] = [Side::Client, Side::Server];

/// A conversation and what has reached its sides.
pub(super) struct Line {
    pub(super) conversation: Conversation,
    pub(super) to: PerSide<Vec<u8>>,
}

impl Line {
    pub(super) fn new(policy: Policy) -> Self {
        Self::with(Settings { policy: Arc::new(policy), mark: *b"mark", ..Settings::default() })
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self { conversation: Conversation::new(&settings, 0), to: PerSide::default() }
    }

    /// Bytes of a side come at this time.
    pub(super) fn say(&mut self, from: Side, bytes: &[u8], now_ms: u64) {
        let mut rest = bytes;
        loop {
            let verdict = self.conversation.on_bytes(from, rest, now_ms);
            let to = self.to.get_mut(from.other());
            match verdict {
                Verdict::Pass => to.extend_from_slice(rest),
                Verdict::Withhold => {}
                Verdict::Inject { at, frame } => {
                    to.extend_from_slice(&rest[..at]);
                    to.extend_from_slice(&frame.encode(None));
                    if !self.conversation.withholds(from) {
                        to.extend_from_slice(&rest[at..]);
                    }
                }
                Verdict::Part { pass, insert, skip } => {
                    to.extend_from_slice(&rest[..pass]);
                    match insert {
                        Some(Insert::Frame(frame)) => to.extend_from_slice(&frame.encode(None)),
                        Some(Insert::Held(held)) => to.extend_from_slice(&held),
                        None => {}
                    }
                    rest = &rest[pass + skip..];
                    if !rest.is_empty() {
                        continue;
                    }
                }
            }
            break;
        }
        self.poll(now_ms);
    }

    pub(super) fn at(&mut self, now_ms: u64) {
        self.conversation.on_time(now_ms);
        self.poll(now_ms);
    }

    fn poll(&mut self, now_ms: u64) {
        for to in BOTH {
            if let Some(frame) = self.conversation.poll_frame(to, now_ms) {
                self.to.get_mut(to).extend_from_slice(&frame.encode(None));
            }
        }
    }

    /// A side that has got a Close of ours answers a message from before, and then the Close; says what of it
    /// has reached the other side.
    fn finish(&mut self, from: Side) -> Vec<u8> {
        assert_eq!(self.taken(from.other()), b"", "it is told last");
        let answer = frame(from, Opcode::Text, b"answer");
        self.say(from, &[answer.clone(), closing(from)].concat(), 200);
        let heard = self.taken(from.other());
        heard.strip_prefix(&answer[..]).expect("the answer goes on").to_vec()
    }

    /// What has reached a side since the last time.
    pub(super) fn taken(&mut self, to: Side) -> Vec<u8> {
        std::mem::take(self.to.get_mut(to))
    }
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    close::encode(CloseCode(code), reason, None).to_vec()
}

pub(super) fn checking(check: Check) -> Policy {
    Policy { check, ..Policy::default() }
}

pub(super) fn limiting(limits: Limits) -> Policy {
    Policy { limits: PerSide::both(limits), ..Policy::default() }
}

pub(super) fn asking(interval_ms: u64, pong_timeout_ms: Option<u64>) -> Policy {
    let keep_alive = Some(KeepAlive { interval_ms, pong_timeout_ms });
    Policy { keep_alive: PerSide { client: keep_alive, server: None }, ..Policy::default() }
}

pub(super) fn fragment(from: Side, fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(from, opcode, payload);
    bytes[0] = u8::from(fin) << 7 | opcode as u8;
    bytes
}

/// What comes behind a good message is refused with this code, wherever it is cut: the other side gets the good
/// message and a Close that blames nobody, and may answer both; then the offender is told why.
fn assert_refused(policy: &Policy, from: Side, bad: &[u8], cause: Cause) {
    let good = frame(from, Opcode::Text, b"good");
    for cut in 0..bad.len() {
        let mut line = Line::new(policy.clone());
        line.say(from, &[&good, &bad[..cut]].concat(), 100);
        line.say(from, &bad[cut..], 100);
        assert_eq!(line.conversation.cause(), Some(cause), "cut at {cut}");
        let expected = [&good[..], &close_frame(1001, cause.reason())].concat();
        assert_eq!(line.taken(from.other()), expected, "cut at {cut}");
        let told = close_frame(cause.code(from).0, cause.reason());
        assert_eq!(line.finish(from.other()), told, "cut at {cut}");
    }
}

#[test]
fn broken_frames_end_with_1002_and_nothing_of_them_goes_on() {
    let masked = |first: u8| [first, 0x80, 0, 0, 0, 0];
    let cases: &[(Side, &[u8], FrameError)] = &[
        (Side::Client, &masked(0x83), FrameError::ReservedOpcode(3)),
        (Side::Client, &masked(0xc1), FrameError::ReservedBits(4)),
        (Side::Client, &masked(0x80), FrameError::NothingToContinue),
        (Side::Client, b"\x81\x00", FrameError::NotMasked),
        (Side::Server, b"\x81\x80", FrameError::Masked),
        (Side::Server, b"\x09\x00", FrameError::FragmentedControl),
        (Side::Server, b"\x89\x7e", FrameError::LongControl),
        (Side::Server, b"\x82\x7e\x00\x7d", FrameError::LengthNotMinimal),
        (Side::Server, b"\x82\x7f\x80", FrameError::LengthTooBig),
    ];
    for &(from, bad, error) in cases {
        assert_refused(&checking(Check::Frames), from, bad, Cause::Violation(from, error));
        assert_eq!(Cause::Violation(from, error).code(from), CloseCode::PROTOCOL_ERROR);
    }
}

#[test]
fn closes_that_nobody_may_send_do_not_go_on() {
    for (payload, error, code) in [
        (b"\x03".as_slice(), CloseError::HalfCode, 1002),
        (b"\x03\xed", CloseError::Code(CloseCode(1005)), 1002),
        (b"\x03\xeenever", CloseError::Code(CloseCode(1006)), 1002),
        (b"\x03\xf7", CloseError::Code(CloseCode(1015)), 1002),
        (b"\x03\xe8\xff", CloseError::Reason, 1007),
    ] {
        for from in BOTH {
            let bad = frame(from, Opcode::Close, payload);
            let cause = Cause::InvalidClose(from, error);
            assert_refused(&checking(Check::Frames), from, &bad, cause);
            assert_eq!(cause.code(from), CloseCode(code));
        }
    }
    // Without a check they pass as they are.
    let mut line = Line::new(limiting(Limits { frame: Some(9), ..Limits::default() }));
    let odd = frame(Side::Server, Opcode::Close, b"\x03\xee");
    line.say(Side::Server, &odd, 100);
    assert_eq!((line.taken(Side::Client), line.conversation.cause()), (odd, None));
}

#[test]
fn good_frames_pass_every_check_unchanged_wherever_they_are_cut() {
    let said = [
        fragment(Side::Client, false, Opcode::Text, "\u{1f980}".as_bytes().split_at(2).0),
        frame(Side::Client, Opcode::Ping, b"between"),
        fragment(Side::Client, true, Opcode::Continuation, "\u{1f980}".as_bytes().split_at(2).1),
        frame(Side::Client, Opcode::Binary, &[0xff; 300]),
        frame(Side::Client, Opcode::Pong, b"any"),
        frame(Side::Client, Opcode::Close, b"\x0f\xa0why"),
    ]
    .concat();
    for cut in 0..said.len() {
        let mut line = Line::new(checking(Check::Text));
        line.say(Side::Client, &said[..cut], 100);
        line.say(Side::Client, &said[cut..], 100);
        assert_eq!((line.taken(Side::Server), line.conversation.cause()), (said.clone(), None));
    }
}

#[test]
fn text_that_is_not_utf8_ends_with_1007_and_no_wrong_byte_goes_on() {
    let from = Side::Client;
    let whole = frame(from, Opcode::Text, b"good\xffbad");
    let split = [
        fragment(from, false, Opcode::Text, b"good \xe2\x82"),
        frame(from, Opcode::Ping, b"!"),
        fragment(from, true, Opcode::Continuation, b"\x00bad"),
    ];
    let unfinished = frame(from, Opcode::Text, b"good \xf0\x9f");
    for said in [whole, split.concat(), unfinished] {
        for cut in 0..said.len() {
            let mut line = Line::new(checking(Check::Text));
            line.say(from, &said[..cut], 100);
            line.say(from, &said[cut..], 100);
            assert_eq!(line.conversation.cause(), Some(Cause::InvalidText(from)), "cut at {cut}");
            assert_eq!(
                line.finish(Side::Server),
                close_frame(1007, "invalid UTF-8 in text message")
            );
            let passed = line.taken(from.other());
            assert!(!passed.contains(&0xff) && !passed.ends_with(b"bad"), "{passed:?}");
        }
    }
    // Compressed, or without that check, it is not text.
    let compressed = [&[0xc1][..], &frame(from, Opcode::Text, b"\xff")[1..]].concat();
    for (check, said) in
        [(Check::Text, compressed), (Check::Frames, frame(from, Opcode::Text, b"\xff"))]
    {
        let policy = Arc::new(checking(check));
        let extensions = Extensions::DEFLATE;
        let mut line = Line::with(Settings { extensions, policy, ..Settings::default() });
        line.say(from, &said, 100);
        assert_eq!((line.taken(Side::Server), line.conversation.cause()), (said, None));
    }
}

#[test]
fn sizes_are_limited_before_a_byte_of_the_frame_goes_on() {
    let from = Side::Server;
    let (frame_10, message_10) = (
        limiting(Limits { frame: Some(10), ..Limits::default() }),
        limiting(Limits { message: Some(10), ..Limits::default() }),
    );
    let header = |first: u8, len: u8| [first, len];
    assert_refused(&frame_10, from, &header(0x82, 11), Cause::FrameTooBig(from));
    assert_refused(&message_10, from, &header(0x82, 11), Cause::MessageTooBig(from));
    let mut line = Line::new(message_10);
    let begun = fragment(from, false, Opcode::Binary, &[1; 6]);
    line.say(from, &begun, 100);
    line.say(from, &frame(from, Opcode::Ping, &[0; 100]), 100);
    let rest = fragment(from, false, Opcode::Continuation, &[1; 4]);
    line.say(from, &rest, 100);
    assert_eq!(line.conversation.cause(), None, "as long as it may be");
    line.taken(Side::Client);
    line.say(from, &fragment(from, true, Opcode::Continuation, &[1]), 100);
    assert_eq!(line.conversation.cause(), Some(Cause::MessageTooBig(from)));
    assert_eq!(line.taken(Side::Client), close_frame(1001, "message too big"));
    assert_eq!(line.finish(Side::Client), close_frame(1009, "message too big"));
    // A message is limited as one, not with the next.
    let mut line = Line::new(limiting(Limits { message: Some(10), ..Limits::default() }));
    let two = [fragment(from, true, Opcode::Binary, &[1; 10]), begun].concat();
    line.say(from, &two, 100);
    assert_eq!(line.taken(Side::Client), two);
}

#[test]
fn fragments_of_a_message_are_counted_without_the_control_frames_between() {
    let mut line = Line::new(limiting(Limits { fragments: Some(2), ..Limits::default() }));
    let from = Side::Client;
    let said = [
        fragment(from, false, Opcode::Text, b""),
        frame(from, Opcode::Pong, b""),
        fragment(from, true, Opcode::Continuation, b""),
        fragment(from, false, Opcode::Text, b""),
        fragment(from, false, Opcode::Continuation, b""),
    ]
    .concat();
    line.say(from, &said, 100);
    assert_eq!((line.taken(Side::Server), line.conversation.cause()), (said, None));
    line.say(from, &fragment(from, true, Opcode::Continuation, b""), 100);
    assert_eq!(line.finish(Side::Server), close_frame(1008, "too many fragments"));
}

#[test]
fn control_frames_are_counted_by_the_second() {
    let mut line = Line::new(limiting(Limits { controls: Some(3), ..Limits::default() }));
    let pongs = |count: usize| frame(Side::Client, Opcode::Pong, b"").repeat(count);
    line.say(Side::Client, &pongs(3), 5_000);
    line.say(Side::Client, &frame(Side::Client, Opcode::Text, b"does not count"), 5_500);
    line.say(Side::Client, &pongs(3), 6_000);
    assert_eq!(line.conversation.cause(), None);
    line.taken(Side::Server);
    line.say(Side::Client, &pongs(2), 6_999);
    assert_eq!(line.conversation.cause(), Some(Cause::ControlFlood(Side::Client)));
    assert_eq!(line.taken(Side::Server), close_frame(1001, "too many control frames"));
    assert_eq!(line.finish(Side::Server), close_frame(1008, "too many control frames"));
}

#[test]
fn only_data_shows_that_a_websocket_is_not_idle() {
    let mut line = Line::new(Policy { idle_ms: Some(1_000), ..Policy::default() });
    line.say(Side::Server, &frame(Side::Server, Opcode::Text, b"hello"), 500);
    line.say(Side::Client, &frame(Side::Client, Opcode::Ping, b""), 1_000);
    assert_eq!(line.conversation.deadline_ms(), Some(1_501));
    // The middle of a message is data, and so is what nobody understands.
    let long = frame(Side::Server, Opcode::Binary, &[1; 100]);
    for (now_ms, bytes) in [(1_400, &long[..50]), (2_300, &long[50..60]), (3_200, &long[60..])] {
        line.say(Side::Server, bytes, now_ms);
        assert_eq!(line.conversation.deadline_ms(), Some(now_ms + 1_001));
    }
    line.say(Side::Client, b"\xff\xff", 4_000);
    line.say(Side::Client, b"goes on", 4_900);
    assert_eq!(line.conversation.deadline_ms(), Some(5_901));
    line.at(5_901);
    assert_eq!(line.conversation.cause(), Some(Cause::IdleTimeout));
    assert!(line.taken(Side::Client).ends_with(&close_frame(1001, "idle timeout")));
}

#[test]
fn the_lifetime_ends_it_whatever_moves_and_though_a_side_has_ended() {
    for ended in [None, Some(Side::Client), Some(Side::Server)] {
        let lifetime_ms = Some(10_000);
        let mut line = Line::with(Settings { lifetime_ms, ..Settings::default() });
        line.say(Side::Server, &frame(Side::Server, Opcode::Text, b"hello"), 9_000);
        if let Some(side) = ended {
            line.conversation.on_end(side, 9_000);
        }
        line.say(Side::Client, &frame(Side::Client, Opcode::Text, b"hello"), 9_900);
        line.at(10_000);
        assert_eq!((line.conversation.cause(), line.conversation.poll_end()), (None, None));
        assert_eq!(line.conversation.deadline_ms(), Some(10_001));
        line.at(10_001);
        assert_eq!(line.conversation.cause(), Some(Cause::MaxLifetime), "{ended:?}");
    }
}

#[test]
fn whichever_comes_first_of_lifetime_and_expiry_ends_it() {
    let expired = Cause::Credentials(Lapse::Expired);
    for (lifetime_ms, expiry_ms, at_ms, cause) in [
        (None, Some(500), 501, expired),
        (Some(500), None, 501, Cause::MaxLifetime),
        (Some(500), Some(700), 501, Cause::MaxLifetime),
        (Some(700), Some(500), 501, expired),
        // An operator wants to know whose access is over.
        (Some(500), Some(500), 501, expired),
        (None, Some(0), 1, expired),
        (None, Some(u64::MAX), u64::MAX - 1, expired),
    ] {
        let settings = Settings { lifetime_ms, expiry_ms, ..Settings::default() };
        let mut line = Line::with(settings);
        line.at(at_ms - 1);
        assert_eq!(line.conversation.cause(), None, "{lifetime_ms:?} {expiry_ms:?}");
        if at_ms < u64::MAX - 1 {
            assert_eq!(line.conversation.deadline_ms(), Some(at_ms));
            line.at(at_ms);
            assert_eq!(line.conversation.cause(), Some(cause), "{lifetime_ms:?} {expiry_ms:?}");
        } else {
            assert_eq!(line.conversation.deadline_ms(), None);
        }
    }
}

#[test]
fn a_failure_has_a_code_where_the_policy_has_one_and_a_frame_has_its_place() {
    let failing = || Policy { failure: Some(CloseCode::BAD_GATEWAY), ..Policy::default() };
    assert_eq!(Line::new(Policy::default()).conversation.failure(Side::Client, 100), None);
    let mut line = Line::new(failing());
    let frame_of_ours = OwnFrame::Close(CloseCode::BAD_GATEWAY, None);
    assert_eq!(line.conversation.failure(Side::Client, 100), Some(frame_of_ours));
    assert_eq!(line.conversation.own_close(Side::Client), Some(CloseCode::BAD_GATEWAY));
    assert_eq!(line.conversation.failure(Side::Client, 100), None, "it was told");
    for said in [&b"\x81\x05hel"[..], b"\xff\xff", &closing(Side::Server)] {
        let mut line = Line::new(failing());
        line.say(Side::Server, said, 100);
        assert_eq!(line.conversation.failure(Side::Client, 100), None, "behind {said:?}");
    }
}

/// The pong that answers a ping, as the client sends it.
fn answer(ping: &[u8]) -> Vec<u8> {
    assert_eq!(ping[..2], [0x89, PING_LEN as u8]);
    let mut pong = FrameHeader::whole(Opcode::Pong, PING_LEN as u64);
    pong.mask = Some([1, 2, 3, 4]);
    let masked = ping[2..].iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, key)| b ^ key);
    pong.encode().iter().copied().chain(masked).collect()
}

#[test]
fn our_pong_is_swallowed_wherever_it_is_cut_and_the_rest_is_not() {
    let (before, after) = (
        frame(Side::Client, Opcode::Text, b"before"),
        frame(Side::Client, Opcode::Pong, b"theirs"),
    );
    for check in [Check::Note, Check::Text] {
        for cut in 0..2 + 4 + PING_LEN + before.len() + after.len() {
            let mut line = Line::new(Policy { check, ..asking(1_000, Some(500)) });
            line.at(1_001);
            let pong = answer(&line.taken(Side::Client));
            let said = [&before[..], &pong, &after].concat();
            line.say(Side::Client, &said[..cut], 1_030);
            line.say(Side::Client, &said[cut..], 1_031);
            assert_eq!(line.taken(Side::Server), [&before[..], &after].concat(), "cut at {cut}");
            assert!(line.conversation.rtt_ms(Side::Client).is_some_and(|rtt| rtt >= 29));
            assert_eq!(line.conversation.counts(Side::Client).pongs, 1);
            assert_eq!(line.conversation.counts(Side::Client).bytes, said.len() as u64);
        }
    }
}

#[test]
fn pongs_that_are_not_for_us_pass() {
    let mut line = Line::new(asking(1_000, Some(500)));
    let mut pong = answer(b"\x89\x08mark\0\0\0\x01");
    line.say(Side::Client, &pong, 500);
    assert_eq!(line.taken(Side::Server), pong, "nobody was asked");
    line.at(1_501);
    let ours = answer(&line.taken(Side::Client));
    for other in [6, 9, 13] {
        pong = ours.clone();
        pong[other] ^= 1;
        line.say(Side::Client, &pong, 1_600);
        assert_eq!(line.taken(Side::Server), pong, "another payload");
    }
    line.say(Side::Client, &[&ours[..], &ours].concat(), 1_600);
    assert_eq!(line.taken(Side::Server), ours, "an answer is one");
}

#[test]
fn a_late_answer_is_for_us_even_while_the_next_question_waits() {
    let mut line = Line::new(asking(1_000, Some(500)));
    line.at(1_001);
    let late = answer(&line.taken(Side::Client));
    line.at(1_502);
    assert!(line.conversation.take_notes().silent.client);
    line.say(Side::Server, b"\x81\x05hel", 1_600);
    line.at(2_503);
    assert_eq!(line.taken(Side::Client), b"\x81\x05hel", "the ping has no place");
    line.say(Side::Client, &late, 2_600);
    assert_eq!(line.taken(Side::Server), b"");
    // It knows pings, so from now on it is there or lost.
    line.say(Side::Server, b"lo", 2_700);
    assert!(line.taken(Side::Client).starts_with(b"lo\x89\x08"));
    line.at(3_201);
    assert_eq!(line.conversation.poll_end(), Some(End::Lost(Side::Client)));
    line.conversation.on_end(Side::Server, 3_300);
    assert_eq!(line.conversation.poll_end(), Some(End::Lost(Side::Client)), "and stays so");
}

#[test]
fn whoever_need_not_answer_is_asked_again_and_again() {
    let mut line = Line::new(asking(1_000, None));
    for (number, now_ms) in [(1, 1_001), (2, 2_002), (3, 3_003)] {
        assert_eq!(line.conversation.deadline_ms(), Some(now_ms));
        line.at(now_ms);
        assert_eq!(line.taken(Side::Client), [b"\x89\x08mark\0\0\0", &[number][..]].concat());
    }
    assert_eq!(line.conversation.poll_end(), None);
    assert_eq!(line.conversation.take_notes(), Notes::default());
}

/// Gives the same answer to every charge and remembers them.
#[derive(Debug)]
struct Always(Toll, Mutex<Vec<Charge>>);

impl Meter for Always {
    fn charge(&self, charge: Charge, _: u64) -> Toll {
        self.1.lock().unwrap().push(charge);
        self.0
    }
}

fn metered(toll: Toll, policy: Policy) -> (Line, Arc<Always>) {
    let meter = Arc::new(Always(toll, Mutex::default()));
    let meters = PerSide { client: vec![Arc::clone(&meter) as Arc<dyn Meter>], server: vec![] };
    let (policy, meters) = (Arc::new(policy), Some(Box::new(meters)));
    (Line::with(Settings { policy, meters, ..Settings::default() }), meter)
}

#[test]
fn who_has_sent_too_much_for_now_is_not_idle_and_nobody_waits_for_it_at_the_end() {
    let policy = Policy { idle_ms: Some(1_000), ..Policy::default() };
    let (mut line, meter) = metered(Toll::Wait { until_ms: 3_000 }, policy);
    let said = frame(Side::Client, Opcode::Text, b"much");
    line.say(Side::Client, &[&said[..], &said[..3]].concat(), 100);
    assert_eq!(*meter.1.lock().unwrap(), [Charge { messages: 1, bytes: 13 }]);
    assert_eq!(line.taken(Side::Server), said, "the header that was cut is held back");
    assert!(line.conversation.pauses(Side::Client) && !line.conversation.pauses(Side::Server));
    line.at(2_999);
    assert!(line.conversation.pauses(Side::Client));
    assert_eq!(line.conversation.deadline_ms(), Some(3_000));
    line.at(3_000);
    assert!(!line.conversation.pauses(Side::Client));
    assert_eq!((line.conversation.deadline_ms(), line.conversation.cause()), (Some(4_001), None));
    line.say(Side::Client, &said[3..8], 2_000);
    assert!(line.conversation.pauses(Side::Client));
    line.conversation.close(DRAIN, 2_100);
    assert!(!line.conversation.pauses(Side::Client), "the frame has its time");
    line.say(Side::Client, &said[8..], 2_200);
    let expected = [&said[..], &close_frame(1001, "")].concat();
    assert_eq!(line.taken(Side::Server), expected);
    assert_eq!(line.conversation.deadline_ms(), Some(2_100 + CLOSING_MS + 1));
}

#[test]
fn nobody_waits_whose_bytes_go_nowhere() {
    let failure = Some(CloseCode::BAD_GATEWAY);
    let policy = Policy { failure, idle_ms: Some(1_000), ..Policy::default() };
    let (mut line, _) = metered(Toll::Wait { until_ms: 3_000 }, policy);
    line.say(Side::Client, &frame(Side::Client, Opcode::Text, b"much"), 100);
    assert!(line.conversation.take_changed());
    assert!(line.conversation.failure(Side::Server, 1_500).is_some());
    assert!(line.conversation.take_changed(), "the end of the idle time is nearer");
    assert!(!line.conversation.pauses(Side::Client));
    // Until then it was not idle.
    assert_eq!(line.conversation.deadline_ms(), Some(2_501));
    line.say(Side::Client, &frame(Side::Client, Opcode::Text, b"more"), 1_600);
    assert_eq!(
        (line.conversation.pauses(Side::Client), line.conversation.deadline_ms()),
        (false, Some(2_601))
    );
}

#[test]
fn too_much_ends_with_1008_for_whoever_sent_it() {
    let (mut line, _) = metered(Toll::TooMuch(Excess::Messages), Policy::default());
    let said = frame(Side::Client, Opcode::Text, b"much");
    line.say(Side::Client, &said, 100);
    let expected = [&said[..], &close_frame(1001, "message rate exceeded")].concat();
    assert_eq!(line.taken(Side::Server), expected);
    assert_eq!(line.finish(Side::Server), close_frame(1008, "message rate exceeded"));
}

/// A client that has broken a rule at 100, while the server may finish.
fn offended(policy: Policy) -> Line {
    let mut line = Line::new(policy);
    line.say(Side::Client, b"\xff", 100);
    assert_eq!(line.taken(Side::Server), close_frame(1001, "protocol error"));
    assert_eq!(line.taken(Side::Client), b"");
    line
}

#[test]
fn last_words_have_their_time_and_not_more() {
    let told = close_frame(1002, "protocol error");
    let message = frame(Side::Server, Opcode::Text, b"on and on");
    let due_ms = end_of(100, LAST_WORDS_MS);
    for (begun, rest) in [(&b""[..], &b""[..]), message.split_at(1), message.split_at(5)] {
        let mut line = offended(checking(Check::Frames));
        for now_ms in [101, 300, due_ms - 1] {
            line.say(Side::Server, &message, now_ms);
            line.at(now_ms);
            assert_eq!(line.taken(Side::Client), message);
            assert_eq!(line.conversation.deadline_ms(), Some(due_ms));
        }
        line.say(Side::Server, begun, due_ms - 1);
        line.at(due_ms);
        line.say(Side::Server, &[rest, &message].concat(), due_ms);
        // What was held back of a header has not begun for the client.
        let last = if begun.len() > 1 { &message[..] } else { b"" };
        assert_eq!(line.taken(Side::Client), [last, &told].concat());
        line.say(Side::Server, &message, due_ms + 1);
        assert_eq!(line.taken(Side::Client), b"");
        assert_eq!(line.conversation.deadline_ms(), Some(end_of(100, CLOSING_MS)));
        assert_eq!(line.conversation.poll_end(), None, "both have still to answer");
        line.say(Side::Server, &closing(Side::Server), due_ms + 2);
        line.say(Side::Client, &closing(Side::Client), due_ms + 2);
        line.at(end_of(100, CLOSING_MS));
        let cause = line.conversation.cause().unwrap();
        assert_eq!(line.conversation.poll_end(), Some(End::Unanswered(cause)), "not understood");
    }
}

#[test]
fn last_words_end_with_the_first_byte_of_a_close_with_a_fault_or_when_nothing_more_comes() {
    let told = close_frame(1002, "protocol error");
    for last in [&b"\x88"[..], b"\x88\x00", b"\x08\x7f", b"\xff", b"\x81\x81"] {
        let mut line = offended(checking(Check::Frames));
        line.say(Side::Server, last, 200);
        assert_eq!(line.taken(Side::Client), told, "{last:?}");
    }
    let mut line = offended(checking(Check::Frames));
    line.conversation.take_changed();
    line.conversation.end_last_words(Side::Server);
    assert!(line.conversation.take_changed());
    line.poll(200);
    assert_eq!(line.taken(Side::Client), told);
}

/// Its first byte came before the client has broken a rule, and was held back.
#[test]
fn a_close_that_has_begun_to_come_is_no_last_word() {
    let mut line = Line::new(checking(Check::Frames));
    line.say(Side::Server, b"\x88\x02", 100);
    line.say(Side::Client, b"\xff", 100);
    assert_eq!(line.taken(Side::Client), close_frame(1002, "protocol error"));
    line.say(Side::Server, b"\x03\xe8", 100);
    assert_eq!(line.conversation.close_code(Side::Server), Some(CloseCode::NORMAL));
    assert_eq!(line.taken(Side::Client), b"");
}

/// What has begun to pass is finished, and says all.
#[test]
fn a_close_that_has_begun_to_pass_goes_on() {
    let limits =
        PerSide { client: Limits { frame: Some(9), ..Limits::default() }, ..PerSide::default() };
    let mut line = Line::new(Policy { limits, ..Policy::default() });
    let (begun, rest) = (b"\x88\x02\x03", b"\xe8");
    line.say(Side::Server, begun, 100);
    line.say(Side::Client, &frame(Side::Client, Opcode::Text, &[0; 10]), 100);
    assert_eq!(line.taken(Side::Server), close_frame(1001, "frame too big"));
    line.say(Side::Server, rest, 200);
    assert_eq!(line.taken(Side::Client), [&begun[..], rest].concat());
    line.at(end_of(100, LAST_WORDS_MS));
    assert_eq!(line.taken(Side::Client), b"");
}

/// From then on its frames are no longer looked at, but for that.
#[test]
fn a_close_behind_our_pong_is_no_last_word() {
    let limit = Limits { frame: Some(9), ..Limits::default() };
    let limits = PerSide { client: limit, ..PerSide::default() };
    let asked = KeepAlive { interval_ms: 1_000, pong_timeout_ms: None };
    let keep_alive = PerSide { server: Some(asked), ..PerSide::default() };
    let mut line = Line::new(Policy { limits, keep_alive, ..Policy::default() });
    line.at(1_001);
    let ping = line.taken(Side::Server);
    line.say(Side::Client, &frame(Side::Client, Opcode::Text, &[0; 10]), 1_002);
    line.say(Side::Server, &frame(Side::Server, Opcode::Pong, &ping[2..]), 1_003);
    assert_eq!(line.conversation.rtt_ms(Side::Server), Some(2));
    assert_eq!(line.finish(Side::Server), close_frame(1009, "frame too big"));
}

/// Its frames are followed by their lengths, to find the Close that answers ours.
#[test]
fn who_has_broken_a_rule_has_time_to_answer() {
    let told = close_frame(1002, "protocol error");
    let offence = frame(Side::Client, Opcode::Text, b"?");
    let offence = [&[offence[0] | 0x40], &offence[1..]].concat();
    let begin = || {
        let mut line = Line::new(checking(Check::Frames));
        line.say(Side::Client, &offence, 100);
        line.say(Side::Server, &closing(Side::Server), 200);
        assert_eq!(line.taken(Side::Client), told);
        assert_eq!(line.conversation.poll_end(), None, "it has not answered");
        line
    };
    let ended = Some(End::Answered(Cause::Violation(Side::Client, FrameError::ReservedBits(4))));
    let mut line = begin();
    line.say(Side::Client, &closing(Side::Client), 300);
    assert_eq!(line.conversation.close_code(Side::Client), Some(CloseCode::NORMAL));
    assert_eq!(line.conversation.poll_end(), ended);
    let mut line = begin();
    line.conversation.on_end(Side::Client, 300);
    assert_eq!(line.conversation.poll_end(), ended);
    let mut line = begin();
    line.at(end_of(100, CLOSING_MS) - 1);
    assert_eq!(line.conversation.poll_end(), None);
    line.at(end_of(100, CLOSING_MS));
    assert!(matches!(line.conversation.poll_end(), Some(End::Unanswered(_))));
}

/// RFC 6455 §5.5.1 forbids it, and whoever gets a Close discards what follows.
#[test]
fn what_follows_a_close_goes_nowhere_where_rules_are_checked() {
    for (check, passes) in [(Check::Note, true), (Check::Frames, false), (Check::Text, false)] {
        for from in BOTH {
            for late in [
                frame(from, Opcode::Text, b"late"),
                frame(from, Opcode::Ping, b""),
                b"\xff\xff".to_vec(),
            ] {
                let close = frame(from, Opcode::Close, b"\x03\xe8bye");
                let said = [&close[..], &late].concat();
                for cut in 0..said.len() {
                    let mut line = Line::new(checking(check));
                    line.say(from, &said[..cut], 100);
                    line.say(from, &said[cut..], 100);
                    let heard = if passes { &said } else { &close };
                    assert_eq!(
                        line.taken(from.other()),
                        *heard,
                        "{check:?} {late:x?} cut at {cut}"
                    );
                    assert_eq!(line.conversation.cause(), None);
                    assert_eq!(line.conversation.first_close(), Some(from), "cut at {cut}");
                    line.say(from.other(), &closing(from.other()), 100);
                    assert!(line.conversation.is_closed());
                }
            }
        }
    }
}

/// Neither who takes nothing nor who has lost its rights gets an answer.
#[test]
fn some_are_told_at_once() {
    for (cause, reason) in [
        (Cause::SlowReader(Side::Client), "slow reader"),
        (Cause::Credentials(Lapse::Expired), "credentials expired"),
        (Cause::Credentials(Lapse::Refused), "no longer authorized"),
        (Cause::Credentials(Lapse::Revoked), "credentials revoked"),
    ] {
        let mut line = Line::new(Policy::default());
        line.conversation.close(cause, 100);
        line.poll(100);
        assert_eq!(line.taken(Side::Client), close_frame(1008, reason));
        assert_eq!(line.taken(Side::Server), close_frame(1001, reason));
        line.say(Side::Server, &frame(Side::Server, Opcode::Text, b"answer"), 100);
        assert_eq!(line.taken(Side::Client), b"");
    }
    // Though it be while it might have finished.
    let mut line = offended(checking(Check::Frames));
    line.conversation.close(Cause::SlowReader(Side::Server), 200);
    line.poll(200);
    assert_eq!(line.taken(Side::Client), close_frame(1002, "protocol error"));
}

#[test]
fn last_words_are_not_faster_than_other_words() {
    let meter: Arc<dyn Meter> = Arc::new(Always(Toll::Wait { until_ms: 300 }, Mutex::default()));
    let meters = Some(Box::new(PerSide { client: vec![], server: vec![meter] }));
    let policy = Arc::new(checking(Check::Frames));
    let mut line = Line::with(Settings { policy, meters, ..Settings::default() });
    let message = frame(Side::Server, Opcode::Text, b"much");
    line.say(Side::Server, &message, 50);
    line.say(Side::Client, b"\xff", 100);
    assert!(line.conversation.pauses(Side::Server));
    assert_eq!(line.conversation.deadline_ms(), Some(300));
    line.at(300);
    assert!(!line.conversation.pauses(Side::Server));
    line.say(Side::Server, &message, 300);
    assert!(line.conversation.pauses(Side::Server));
    line.at(end_of(100, LAST_WORDS_MS));
    assert!(!line.conversation.pauses(Side::Server), "its answer has its time");
    let told = close_frame(1002, "protocol error");
    assert_eq!(line.taken(Side::Client), [&message[..], &message, &told].concat());
}

/// A ping that it answers there would break its frame.
#[test]
fn who_rests_in_the_middle_of_a_frame_is_left_more_time() {
    let said = frame(Side::Client, Opcode::Text, b"hello");
    for (check, cut) in [(Check::Note, 2), (Check::Note, 8), (Check::Text, 2), (Check::Text, 8)] {
        let begin = || {
            let mut line = Line::new(Policy { check, ..asking(1_000, Some(500)) });
            line.say(Side::Client, &said[..cut], 100);
            line.at(1_101);
            assert_eq!(line.taken(Side::Client), b"");
            assert_eq!(line.conversation.deadline_ms(), Some(end_of(100, FRAME_MS)));
            line.conversation.take_changed();
            line
        };
        let mut line = begin();
        line.at(end_of(100, FRAME_MS));
        assert!(line.taken(Side::Client).starts_with(b"\x89\x08mark"), "at last it is asked");
        let mut line = begin();
        line.say(Side::Client, &said[cut..], 2_000);
        assert!(line.conversation.take_changed(), "it has to be asked sooner");
        assert_eq!(line.conversation.deadline_ms(), Some(3_001));
        line.at(3_001);
        assert!(line.taken(Side::Client).starts_with(b"\x89\x08mark"));
    }
    // Whose interval is longer has that time anyhow; and of a frame that nobody understands there is no end.
    for (interval_ms, began, due_ms) in [(20_000, &said[..3], 20_101), (1_000, b"\xff", 1_101)] {
        let mut line = Line::new(asking(interval_ms, None));
        line.say(Side::Client, began, 100);
        assert_eq!(line.conversation.deadline_ms(), Some(due_ms));
        line.at(due_ms);
        assert_eq!(line.conversation.deadline_ms(), Some(end_of(due_ms, interval_ms)));
    }
}
