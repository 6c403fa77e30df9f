//! The naive tracker, for tests and fuzzing: it holds the whole stream. It shares no code with the other
//! but the types of the answers.

use super::*;

/// What is known once `at` bytes have passed.
#[derive(Debug, PartialEq)]
pub(crate) enum Fact {
    Close { at: usize, code: u16 },
    FrameEnd { at: usize, opcode: u8, fin: bool, payload: u64 },
    Broken { at: usize, error: FrameError },
}

impl Fact {
    pub(crate) fn at(&self) -> usize {
        match self {
            Self::Close { at, .. } | Self::FrameEnd { at, .. } | Self::Broken { at, .. } => *at,
        }
    }
}

/// Holds the whole stream and reads it frame by frame.
pub(crate) fn facts(stream: &[u8], from: Side, extensions: Extensions) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut in_message = false;
    let mut start = 0;
    while start < stream.len() {
        match frame(&stream[start..], from, extensions, &mut in_message) {
            Ok(Some((close, opcode, fin, len, payload))) => {
                if let Some((at, code)) = close {
                    facts.push(Fact::Close { at: start + at, code });
                }
                facts.push(Fact::FrameEnd { at: start + len, opcode, fin, payload });
                start += len;
            }
            Ok(None) => {
                // Unfinished, but a Close whose code has passed is already known.
                let close = close(&stream[start..]);
                facts.extend(close.map(|(at, code)| Fact::Close { at: start + at, code }));
                break;
            }
            Err((at, error)) => {
                facts.push(Fact::Broken { at: start + at, error });
                break;
            }
        }
    }
    facts
}

/// A Close that is in it, its opcode, FIN and length, and its payload's.
type Frame = (Option<(usize, u16)>, u8, bool, usize, u64);

fn frame(
    input: &[u8],
    from: Side,
    extensions: Extensions,
    in_message: &mut bool,
) -> Result<Option<Frame>, (usize, FrameError)> {
    let (fin, rsv, opcode) = (input[0] >= 0x80, input[0] / 16 % 8, input[0] % 16);
    let control = opcode >= 8;
    let bits =
        if opcode == 1 || opcode == 2 { extensions.rsv_on_first } else { extensions.rsv_on_others };
    if !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) {
        return Err((1, FrameError::ReservedOpcode(opcode)));
    }
    if (0..3).any(|bit| rsv >> bit & 1 > bits >> bit & 1) {
        return Err((1, FrameError::ReservedBits(rsv)));
    }
    match (opcode, *in_message) {
        (8.., _) if !fin => return Err((1, FrameError::FragmentedControl)),
        (0, false) => return Err((1, FrameError::NothingToContinue)),
        (1 | 2, true) => return Err((1, FrameError::MessageNotEnded)),
        _ => {}
    }
    let Some(second) = input.get(1) else { return Ok(None) };
    match (from, *second >= 0x80) {
        (Side::Client, false) => return Err((2, FrameError::NotMasked)),
        (Side::Server, true) => return Err((2, FrameError::Masked)),
        _ => {}
    }
    let short = second % 0x80;
    if control && short > 125 {
        return Err((2, FrameError::LongControl));
    }
    if opcode == 8 && short == 1 {
        return Err((2, FrameError::HalfCloseCode));
    }
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if extended == 8 && input.get(2).is_some_and(|b| *b >= 0x80) {
        return Err((3, FrameError::LengthTooBig));
    }
    if extended == 8 && input.len() >= 8 && input[2..8].iter().all(|b| *b == 0) {
        return Err((8, FrameError::LengthNotMinimal));
    }
    if input.len() < 2 + extended {
        return Ok(None);
    }
    let len = match extended {
        0 => u64::from(short),
        _ => input[2..2 + extended].iter().fold(0, |len, b| len * 256 + u64::from(*b)),
    };
    if extended == 2 && len < 126 {
        return Err((4, FrameError::LengthNotMinimal));
    }
    let masking = if from == Side::Client { 4 } else { 0 };
    let total = (2 + extended + masking) as u64 + len;
    if total > input.len() as u64 {
        return Ok(None);
    }
    if !control {
        *in_message = !fin;
    }
    Ok(Some((close(input), opcode, fin, total as usize, len)))
}

/// Where in a frame that is a Close its code is known, and the code.
fn close(input: &[u8]) -> Option<(usize, u16)> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    if first % 16 != 8 {
        return None;
    }
    let header = if second >= 0x80 { 6 } else { 2 };
    if second % 0x80 == 0 {
        return (input.len() >= header).then_some((header, 1005));
    }
    let unmasked = |at: usize| {
        let byte = input.get(header + at)?;
        let mask = if second >= 0x80 { input[2 + at] } else { 0 };
        Some(u16::from(byte ^ mask))
    };
    Some((header + 2, unmasked(0)? * 256 + unmasked(1)?))
}

/// Feeds `stream` to a tracker in pieces and holds every answer against what is known of the whole;
/// returns the tracker. The cuts are taken modulo the length.
///
/// # Panics
///
/// If the tracker says anything else.
pub fn compare(stream: &[u8], cuts: &[usize], from: Side, extensions: Extensions) -> Tracker {
    let facts = facts(stream, from, extensions);
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();

    let mut tracker = Tracker::new(from, extensions);
    let mut counts = Counts::default();
    let mut expected_counts = Counts::default();
    let mut start = 0;
    let mut at_boundary = true;
    let (mut message, mut text) = (0, false);
    for end in cuts {
        let mut expected = Progress { boundary: at_boundary.then_some(0), ..Progress::default() };
        at_boundary &= start == end;
        for fact in facts.iter().filter(|fact| fact.at() > start && fact.at() <= end) {
            match *fact {
                Fact::Close { code, .. } => {
                    expected.close.get_or_insert(CloseCode(code));
                }
                Fact::FrameEnd { at, opcode, fin, payload } => {
                    expected.boundary = Some(at - start);
                    at_boundary = at == end;
                    expected_counts.frames += 1;
                    if opcode < 3 {
                        message = if opcode == 0 { message + payload } else { payload };
                        text = if opcode == 0 { text } else { opcode == 1 };
                    }
                    if opcode < 3 && fin {
                        expected_counts.messages += 1;
                        expected_counts.texts += u64::from(text);
                        expected_counts.payload += message;
                        expected_counts.text_payload += if text { message } else { 0 };
                        expected_counts.largest = expected_counts.largest.max(message);
                    }
                    expected_counts.pings += u64::from(opcode == 9);
                    expected.ping |= opcode == 9;
                    expected_counts.pongs += u64::from(opcode == 10);
                }
                Fact::Broken { error, .. } => expected.broken = Some(error),
            }
        }
        expected_counts.bytes += (end - start) as u64;
        assert_eq!(tracker.advance(&stream[start..end], &mut counts), expected);
        assert_eq!(counts, expected_counts);
        assert_eq!(tracker.is_at_boundary(), at_boundary);
        start = end;
    }
    tracker
}
