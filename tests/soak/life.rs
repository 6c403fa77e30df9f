//! What happens in one tunnel, made of one number that both of its ends know.

use std::{io, time::Duration};

use socket2::Socket;
use wssgate_testkit::{Frame, binary, close, continuation, ping, text};
use wssgate_ws::{Opcode, Side};

/// Frames of a life, of each end.
const FRAMES: (u64, u64) = (2, 60);

/// Random numbers that are the same for the same seed: splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `least` to `most`, both included.
    pub(crate) fn range(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.next() % (most - least + 1)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Text of exactly `len` bytes with characters of all lengths.
    fn text(&mut self, len: usize) -> Vec<u8> {
        const CHARACTERS: [&str; 4] = ["a", "é", "€", "🦀"];
        let mut text = Vec::with_capacity(len + 4);
        while text.len() < len {
            let fits = (len - text.len()).min(CHARACTERS.len()) as u64;
            text.extend_from_slice(CHARACTERS[self.range((0, fits - 1)) as usize].as_bytes());
        }
        text
    }
}

/// How a life ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By this Close, which the other end answers.
    Close(Frame),
    /// By RST, behind so many bytes of a frame that nobody finishes.
    Reset { bytes_of_a_frame: usize },
    /// By this frame, which the program refuses with this code and reason.
    Refused { frame: Frame, code: u16, reason: &'static str },
}

/// One tunnel from its handshake to its end.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    seed: u64,
    /// The end that ends it.
    pub(crate) ended_by: Side,
    pub(crate) ending: Ending,
    /// Whether all that was sent must have come before it ends.
    pub(crate) complete: bool,
    /// Whether it passes through a location with checks and limits.
    pub(crate) is_checked: bool,
}

impl Life {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let ended_by = if random.range((0, 1)) == 0 { Side::Client } else { Side::Server };
        let ending = match random.range((0, 7)) {
            0 | 1 => Ending::Reset { bytes_of_a_frame: random.range((0, 300)) as usize },
            2 => refusal(random.range((0, 2))),
            _ => {
                let code = random.range((3000, 4999)) as u16;
                Ending::Close(close(code, &format!("the end of {seed:x}")))
            }
        };
        let complete = random.range((0, 2)) > 0;
        let is_checked = random.range((0, 1)) == 0 || matches!(ending, Ending::Refused { .. });
        Self { seed, ended_by, ending, complete, is_checked }
    }

    /// The Close that this end gets, if the life ends by one.
    pub(crate) fn close_for(&self, side: Side) -> Option<Frame> {
        match &self.ending {
            Ending::Close(frame) => Some(frame.clone()),
            Ending::Reset { .. } => None,
            // Nobody else is blamed.
            Ending::Refused { reason, .. } if side != self.ended_by => Some(close(1001, reason)),
            Ending::Refused { code, reason, .. } => Some(close(*code, reason)),
        }
    }

    /// Makes the socket of the end that resets do so when it is closed: lingering for no time throws
    /// everything away.
    pub(crate) fn arm(&self, socket: &Socket, side: Side) -> io::Result<()> {
        match self.ending {
            Ending::Reset { .. } if side == self.ended_by => {
                socket.set_linger(Some(Duration::ZERO))
            }
            _ => Ok(()),
        }
    }

    /// What this end sends before the life ends.
    pub(crate) fn content(&self, of: Side) -> Content {
        let salt = if of == Side::Client { 0x636c_6965_6e74 } else { 0x7365_7276_6572 };
        let mut random = Random::new(self.seed ^ salt);
        let left = random.range(FRAMES);
        Content { random, left, lens: Lens::Mixed, in_message: None }
    }
}

/// How long messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lens {
    /// Most of them short, a few of some hundred KiB.
    Mixed,
    /// None of those few.
    Short,
    /// A mebibyte, or a little more or less.
    Large,
}

/// The longest message where there is a limit: every one of a life is shorter.
pub(crate) const MAX_MESSAGE: usize = 640 << 10;

/// A frame that breaks a rule or exceeds the limit, by its number.
fn refusal(number: u64) -> Ending {
    let (frame, code, reason) = match number {
        0 => (text("").rsv(1), 1002, "protocol error"),
        1 => (binary(vec![0; MAX_MESSAGE + 1]), 1009, "message too big"),
        _ => (Frame::new(Opcode::Text, *b"\xff"), 1007, "invalid UTF-8 in text message"),
    };
    Ending::Refused { frame, code, reason }
}

/// The frames of one end in their order.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    random: Random,
    /// Frames that may begin a message or be pings.
    left: u64,
    lens: Lens,
    /// What is left of a message whose first fragments are out, and of how many it has.
    in_message: Option<(Vec<u8>, u64)>,
}

impl Iterator for Content {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.left > 0 && self.random.range((0, 9)) == 0 {
            self.left -= 1;
            let len = self.random.range((0, 125)) as usize;
            return Some(ping(self.random.bytes(len)));
        }
        if let Some((rest, fragments)) = self.in_message.take() {
            return Some(self.fragment(rest, fragments));
        }
        self.left = self.left.checked_sub(1)?;
        let len = match self.random.range((0, 99)) {
            _ if self.lens == Lens::Large => self.random.range(((1 << 20) - 9, (1 << 20) + 9)),
            0..60 => self.random.range((0, 125)),
            60..90 => self.random.range((126, 4000)),
            90.. if self.lens == Lens::Short => self.random.range((4000, 30_000)),
            90..98 => self.random.range((4000, 70_000)),
            _ => self.random.range((70_000, 600_000)),
        };
        let is_text = self.random.range((0, 1)) == 0;
        let payload = match is_text {
            true => self.random.text(len as usize),
            false => self.random.bytes(len as usize),
        };
        let mut frame = if is_text { text("") } else { binary("") };
        if self.random.range((0, 3)) > 0 {
            frame.payload = payload;
            return Some(frame);
        }
        let fragments = self.random.range((1, 8));
        let first = self.fragment(payload, fragments);
        frame.payload = first.payload;
        Some(frame.more())
    }
}

impl Content {
    /// Frames that do not end.
    pub(crate) fn endless(seed: u64, lens: Lens) -> Self {
        Self { random: Random::new(seed), left: u64::MAX, lens, in_message: None }
    }

    /// Whether the last frame left a message unfinished.
    pub(crate) fn is_in_message(&self) -> bool {
        self.in_message.is_some()
    }

    /// The next fragment of a message, which `fragments` more follow; cuts characters as it comes.
    fn fragment(&mut self, mut rest: Vec<u8>, fragments: u64) -> Frame {
        if fragments == 0 {
            return continuation(rest);
        }
        let len = self.random.range((0, rest.len() as u64)) as usize;
        let tail = rest.split_off(len);
        self.in_message = Some((tail, fragments - 1));
        continuation(rest).more()
    }
}
