#![allow(clippy::unwrap_used)]

mod policies;
mod portable;

use proptest::prelude::*;

use super::walk::{Step, walk};
use super::*;
use crate::frame::must_mask;
use crate::{Extensions, FrameHeader};

const DRAIN: Cause = Cause::Drain(CloseCode::GOING_AWAY);
const AWAY: OwnFrame = OwnFrame::Close(CloseCode::GOING_AWAY, Some(DRAIN));

fn frame(from: Side, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut header = FrameHeader::whole(opcode, payload.len() as u64);
    header.mask = must_mask(from).then_some([0; 4]);
    [&header.encode()[..], payload].concat()
}

fn closing(from: Side) -> Vec<u8> {
    frame(from, Opcode::Close, &[0x03, 0xe8])
}

fn open() -> Conversation {
    Conversation::new(&Settings::default(), 0)
}

/// A conversation that we have begun to close at 100, between two frames of both sides.
fn closed_by_us() -> Conversation {
    let mut conversation = open();
    conversation.close(DRAIN, 100);
    for side in [Side::Client, Side::Server] {
        assert_eq!(conversation.poll_frame(side, 100), Some(AWAY));
        assert_eq!(conversation.poll_frame(side, 100), None);
    }
    conversation
}

#[test]
fn a_conversation_is_small() {
    assert!(size_of::<Conversation>() <= 464, "{}", size_of::<Conversation>());
}

#[test]
fn left_alone_everything_passes_and_is_counted() {
    let mut conversation = open();
    let said = [frame(Side::Server, Opcode::Text, b"hi"), b"\xff\xff".to_vec()].concat();
    assert_eq!(conversation.on_bytes(Side::Server, &said, 100), Verdict::Pass);
    assert_eq!(conversation.on_bytes(Side::Server, b"whatever", 100), Verdict::Pass);
    assert_eq!(conversation.counts(Side::Server).messages, 1);
    assert_eq!(conversation.broken(Side::Server), Some(FrameError::ReservedOpcode(15)));
    assert_eq!(conversation.counts(Side::Client), Counts::default());
    assert_eq!((conversation.deadline_ms(), conversation.poll_end()), (None, None));
}

#[test]
fn the_closes_of_both_sides_pass_and_are_known() {
    let mut conversation = open();
    for (side, both) in [(Side::Client, false), (Side::Server, true)] {
        assert_eq!(conversation.on_bytes(side, &closing(side), 100), Verdict::Pass);
        assert_eq!(conversation.close_code(side), Some(CloseCode::NORMAL));
        assert_eq!(conversation.is_closed(), both);
    }
}

/// What follows in a chunk with the end of a frame, and where the Close comes to stand.
#[test]
fn a_close_waits_for_the_end_of_the_frame_under_way() {
    let whole = frame(Side::Server, Opcode::Text, b"hello");
    let close = closing(Side::Server);
    let cases: &[(&[u8], Verdict)] = &[
        (b"", Verdict::Pass),
        (&whole[3..6], Verdict::Pass),
        (&whole[3..], Verdict::Inject { at: 4, frame: AWAY }),
        (&[&whole[3..], &whole[..]].concat(), Verdict::Inject { at: 11, frame: AWAY }),
        (&[&whole[3..], &whole[..1]].concat(), Verdict::Inject { at: 4, frame: AWAY }),
        // Its own is the last word, and one begun is not known yet.
        (&[&whole[3..], &close[..]].concat(), Verdict::Pass),
        (&[&whole[3..], &close[..3]].concat(), Verdict::Inject { at: 4, frame: AWAY }),
        // Behind a broken rule no boundary is known, before it there is one.
        (&[&whole[3..], b"\xff"].concat(), Verdict::Inject { at: 4, frame: AWAY }),
    ];
    for (then, verdict) in cases {
        let mut conversation = open();
        assert_eq!(conversation.on_bytes(Side::Server, &whole[..3], 100), Verdict::Pass);
        conversation.close(DRAIN, 0);
        assert_eq!(conversation.poll_frame(Side::Client, 100), None, "a frame is under way");
        assert_eq!(conversation.on_bytes(Side::Server, then, 100), *verdict, "{then:?}");
    }
}

#[test]
fn nothing_of_a_side_passes_behind_our_close_but_its_own_is_heard() {
    let mut conversation = closed_by_us();
    let late = frame(Side::Client, Opcode::Text, b"late");
    assert_eq!(conversation.on_bytes(Side::Client, &late, 100), Verdict::Withhold);
    assert_eq!(conversation.close_code(Side::Client), None);
    assert_eq!(conversation.on_bytes(Side::Client, &closing(Side::Client), 100), Verdict::Withhold);
    assert_eq!(conversation.close_code(Side::Client), Some(CloseCode::NORMAL));
}

#[test]
fn our_closing_handshake_ends_when_both_have_answered_or_in_time() {
    let mut conversation = closed_by_us();
    let deadline_ms = 100 + CLOSING_MS + 1;
    conversation.on_time(deadline_ms - 1);
    assert_eq!((conversation.deadline_ms(), conversation.poll_end()), (Some(deadline_ms), None));
    let mut unanswered = conversation.clone();
    unanswered.on_time(deadline_ms);
    assert_eq!(
        (unanswered.deadline_ms(), unanswered.poll_end()),
        (None, Some(End::Unanswered(DRAIN)))
    );
    assert!(conversation.is_closing() && unanswered.is_closing());
    let _ = conversation.on_bytes(Side::Client, &closing(Side::Client), 100);
    assert_eq!(conversation.poll_end(), None);
    let _ = conversation.on_bytes(Side::Server, &closing(Side::Server)[..3], 100);
    assert_eq!(conversation.poll_end(), None, "its code is not known");
    let _ = conversation.on_bytes(Side::Server, &closing(Side::Server)[3..], 100);
    assert_eq!(conversation.poll_end(), Some(End::Answered(DRAIN)));
}

/// A client that has ended may still wait for what it has asked.
#[test]
fn only_the_end_of_the_server_needs_no_close() {
    for (side, deadline_ms) in [(Side::Client, None), (Side::Server, Some(end_of(200, LINGER_MS)))]
    {
        let mut conversation = open();
        conversation.on_end(side, 200);
        assert_eq!(conversation.deadline_ms(), deadline_ms, "{side:?}");
    }
}

/// Both have said all; the second connection has its time from whatever moved last.
#[test]
fn behind_both_closes_and_one_end_there_is_a_deadline_too() {
    let mut conversation = open();
    let _ = conversation.on_bytes(Side::Server, &closing(Side::Server), 100);
    conversation.on_end(Side::Server, 200);
    assert_eq!(conversation.deadline_ms(), Some(end_of(200, LINGER_MS)));
    let much = frame(Side::Client, Opcode::Text, b"much");
    assert_eq!(conversation.on_bytes(Side::Client, &much, 3_000), Verdict::Pass);
    assert_eq!(conversation.deadline_ms(), Some(end_of(3_000, LINGER_MS)));
    let _ = conversation.on_bytes(Side::Client, &closing(Side::Client), 5_000);
    assert_eq!(conversation.deadline_ms(), Some(end_of(5_000, LINGER_MS)));
    conversation.on_time(5_000 + LINGER_MS);
    assert_eq!(conversation.poll_end(), None);
    conversation.on_sent(6_000);
    conversation.on_time(end_of(5_000, LINGER_MS));
    assert_eq!((conversation.poll_end(), conversation.is_closing()), (None, false));
    let deadline_ms = end_of(6_000, LINGER_MS);
    assert_eq!(conversation.deadline_ms(), Some(deadline_ms));
    conversation.on_time(deadline_ms);
    assert_eq!(conversation.poll_end(), Some(End::Ended(Side::Server)));
    assert_eq!((conversation.deadline_ms(), conversation.is_closing()), (None, false));
    // What was held up until now shows that somebody is there.
    conversation.on_sent(20_000);
    assert_eq!(conversation.poll_end(), None);
    assert_eq!(conversation.deadline_ms(), Some(end_of(20_000, LINGER_MS)));
    // We need not wait for them to end what is said.
    conversation.close(DRAIN, 20_001);
    assert_eq!(conversation.poll_end(), Some(End::Answered(DRAIN)));
}

#[test]
fn a_second_order_changes_nothing() {
    let mut conversation = closed_by_us();
    conversation.close(Cause::Kill, 500);
    assert_eq!(conversation.deadline_ms(), Some(end_of(100, CLOSING_MS)));
    assert_eq!(conversation.poll_frame(Side::Client, 100), None);
}

/// It has done nothing to the server, and what is said to it need not be for others' eyes.
#[test]
fn who_is_ended_by_an_operator_is_told_in_its_words() {
    let words = Arc::new(Farewell { code: CloseCode(4000), reason: "banned".into() });
    for cause in [Cause::Kill, Cause::Drain(CloseCode(4000))] {
        let mut conversation = open();
        let text = frame(Side::Server, Opcode::Text, b"hi");
        assert_eq!(conversation.on_bytes(Side::Server, &text[..2], 0), Verdict::Pass);
        conversation.close_in_words(Arc::clone(&words), cause, 0);
        let close = OwnFrame::Close(CloseCode(4000), Some(cause));
        let inject = Verdict::Inject { at: text.len() - 2, frame: close };
        assert_eq!(conversation.on_bytes(Side::Server, &text[2..], 0), inject);
        assert_eq!(&*conversation.encode(Side::Client, close, None), b"\x88\x08\x0f\xa0banned");
        let away = OwnFrame::Close(CloseCode::GOING_AWAY, Some(cause));
        assert_eq!(conversation.poll_frame(Side::Server, 0), Some(away));
        assert_eq!(&*conversation.encode(Side::Server, away, None), b"\x88\x02\x03\xe9");
    }
    // Not a client that was told already.
    let mut drained = closed_by_us();
    drained.close_in_words(words, Cause::Kill, 0);
    assert_eq!(drained.own_reason(Side::Client), "");
    assert_eq!(&*drained.encode(Side::Client, AWAY, None), b"\x88\x02\x03\xe9");
}

/// The side that has closed already has its answer from us or from the other, whoever is first.
#[test]
fn a_handshake_that_a_side_has_begun_is_finished() {
    let close = [closing(Side::Client), closing(Side::Server)];
    let mut conversation = open();
    let _ = conversation.on_bytes(Side::Client, &close[0][..7], 100);
    conversation.close(DRAIN, 0);
    assert_eq!(
        conversation.poll_frame(Side::Server, 100),
        None,
        "in the middle of the client's own"
    );
    assert_eq!(conversation.poll_frame(Side::Client, 100), Some(AWAY));
    assert_eq!(conversation.on_bytes(Side::Client, &close[0][7..], 100), Verdict::Pass);
    assert_eq!(conversation.poll_frame(Side::Server, 100), None, "it has heard the client's");
    assert_eq!(conversation.poll_end(), None);
    assert_eq!(conversation.on_bytes(Side::Server, &close[1], 100), Verdict::Withhold);
    assert_eq!(conversation.poll_end(), Some(End::Answered(DRAIN)));
}

#[test]
fn nobody_waits_for_a_side_that_is_gone_or_cannot_be_told() {
    // The client is gone before or after: only the server is waited for, and not if nothing reaches it. A client
    // that cannot be understood is told and has its time, unless it goes.
    let mut gone = closed_by_us();
    gone.on_end(Side::Client, 100);
    assert_eq!(gone.poll_end(), None);
    let _ = gone.on_bytes(Side::Server, &closing(Side::Server), 100);
    assert_eq!(gone.poll_end(), Some(End::Answered(DRAIN)));

    for broken in [false, true] {
        let mut conversation = open();
        match broken {
            true => assert_eq!(conversation.on_bytes(Side::Client, b"\xff", 100), Verdict::Pass),
            false => conversation.on_end(Side::Client, 100),
        }
        let _ = conversation.on_bytes(Side::Server, b"\x81\x01", 100);
        conversation.close(DRAIN, 100);
        assert_eq!(conversation.poll_frame(Side::Server, 100), None);
        assert_eq!(conversation.poll_end(), None, "a frame is under way");
        let verdict = conversation.on_bytes(Side::Server, b"x", 100);
        assert_eq!(verdict, Verdict::Inject { at: 1, frame: AWAY });
        if broken {
            assert_eq!(conversation.poll_end(), None, "it has its time");
            let _ = conversation.on_bytes(Side::Client, &closing(Side::Client), 200);
            assert_eq!(conversation.poll_end(), None, "nobody sees it answer");
            conversation.on_end(Side::Client, 300);
        }
        assert_eq!(conversation.poll_end(), Some(End::Answered(DRAIN)));
    }
}

#[test]
fn a_ping_goes_between_two_frames_and_the_rest_behind_it() {
    let mut conversation = open();
    let ping = OwnFrame::Ping(*b"own ping");
    let whole = frame(Side::Client, Opcode::Binary, b"data");
    let _ = conversation.on_bytes(Side::Client, &whole[..2], 100);
    conversation.inject(Side::Server, ping);
    let then = [&whole[2..], &whole[..4]].concat();
    let verdict = conversation.on_bytes(Side::Client, &then, 100);
    assert_eq!(verdict, Verdict::Inject { at: whole.len() - 2, frame: ping });
    assert_eq!(conversation.on_bytes(Side::Client, &whole[4..], 100), Verdict::Pass);
    // A Close takes the place of a ping that waits, and is the last.
    let _ = conversation.on_bytes(Side::Client, &whole[..2], 100);
    conversation.inject(Side::Server, ping);
    conversation.close(DRAIN, 0);
    conversation.inject(Side::Server, ping);
    let verdict = conversation.on_bytes(Side::Client, &whole[2..], 100);
    assert_eq!(verdict, Verdict::Inject { at: whole.len() - 2, frame: AWAY });
    conversation.inject(Side::Server, ping);
    assert_eq!(conversation.poll_frame(Side::Server, 100), None);
}

#[test]
fn own_frames_are_masked_towards_a_server_only() {
    assert_eq!(AWAY.encode(None)[..], *b"\x88\x02\x03\xe9");
    assert_eq!(AWAY.encode(Some([1, 2, 3, 4]))[..], *b"\x88\x82\x01\x02\x03\x04\x02\xeb");
    assert_eq!(OwnFrame::Ping(*b"own ping").encode(None)[..], *b"\x89\x08own ping");
}

fn any_side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn any_stream(from: Side) -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![
        4 => Just(Opcode::Text),
        2 => Just(Opcode::Binary),
        2 => Just(Opcode::Ping),
        1 => Just(Opcode::Close),
    ];
    let whole = (opcode, prop::collection::vec(any::<u8>(), 2..12))
        .prop_map(move |(opcode, payload)| frame(from, opcode, &payload));
    let piece = prop_oneof![12 => whole, 1 => prop::collection::vec(any::<u8>(), 1..3)];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (any_side(), 0..20_usize).prop_map(|(side, len)| Step::Bytes(side, len)),
        1 => any_side().prop_map(Step::End),
        2 => any_side().prop_map(Step::Ping),
        1 => Just(Step::Close),
        1 => any_side().prop_map(Step::Refuse),
        1 => any_side().prop_map(Step::Last),
        1 => Just(Step::Sent),
        2 => (0..2 * CLOSING_MS).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_walk_decides_as_a_naive_reading_of_all_that_was_said(
        from_client in any_stream(Side::Client),
        from_server in any_stream(Side::Server),
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        walk(from_client, from_server, Extensions::NONE, &steps);
    }
}

/// Found by fuzzing.
#[test]
fn no_bytes_at_all_release_none_that_are_held_back() {
    let came = Step::Bytes(Side::Server, 1);
    let steps = [Step::Ping(Side::Server), came, came, Step::Close, came];
    walk(Vec::new(), vec![0x8a], Extensions::NONE, &steps);
}

/// Found by fuzzing.
#[test]
fn a_pong_with_a_bit_of_an_extension_is_not_held_back() {
    let steps = [Step::Ping(Side::Server), Step::Bytes(Side::Server, 9), Step::Sent];
    let pong = [0x9a, 8, 1, 2, 3, 4, 5, 6, 7];
    walk(Vec::new(), pong.to_vec(), Extensions::UNKNOWN, &steps);
}

/// Each seed is a conversation of its own; one that fails is told by its number.
#[test]
fn any_conversation_keeps_its_promises() {
    // The last one by itself was found later: a Close ended a pause, and the time before it counted as idle.
    for seed in (0..12_000).chain([56_601]) {
        let run = || simulation::run(&mut simulation::Chance::from_seed(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// At any moment a conversation may go on in another process.
#[test]
fn any_conversation_goes_on_elsewhere_as_if_it_had_stayed() {
    for seed in 0..3_000 {
        let run = || simulation::run_moved(&mut simulation::Chance::from_seed(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_drain_tells_the_client_its_code_and_the_server_that_the_client_goes() {
    for code in [CloseCode::GOING_AWAY, CloseCode::SERVICE_RESTART] {
        let mut conversation = open();
        let drain = Cause::Drain(code);
        conversation.close(drain, 100);
        for (side, code) in [(Side::Client, code), (Side::Server, CloseCode::GOING_AWAY)] {
            let frame = conversation.poll_frame(side, 100);
            assert_eq!(frame, Some(OwnFrame::Close(code, Some(drain))));
            assert_eq!(conversation.own_close(side), Some(code));
        }
    }
}

#[test]
fn the_last_data_frame_is_noted_for_who_asks() {
    for (notes_data, noted) in [(false, None), (true, Some(700))] {
        let policy = Arc::new(Policy { notes_data, ..Policy::default() });
        let mut conversation = Conversation::new(&Settings { policy, ..Settings::default() }, 100);
        assert_eq!(conversation.data_ms(), noted.map(|_| 100));
        let said = frame(Side::Server, Opcode::Text, b"hi");
        assert_eq!(conversation.on_bytes(Side::Server, &said, 700), Verdict::Pass);
        let said = frame(Side::Server, Opcode::Ping, b"hi");
        assert_eq!(conversation.on_bytes(Side::Server, &said, 900), Verdict::Pass);
        assert_eq!(conversation.data_ms(), noted);
    }
}
