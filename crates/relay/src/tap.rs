//! Looking at the frames of some tunnels while they pass, for whoever debugs them.
//!
//! An observer reads the bytes that come from a side beside the conversation, and changes nothing. What it finds goes
//! into a bounded queue; what finds no room there is counted and gone, so nobody who reads slowly is waited for. A
//! tunnel that nobody looks at has no observer, and pays for one test whether there is one, each time bytes come.
//!
//! Frames are told as they arrive, whatever becomes of them: a pong for us goes no further, and what follows a Close may
//! be withheld. Frames of our own are told as well.

use std::fmt;
use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use wssgate_ws::frame::MAX_CONTROL_LEN;
use wssgate_ws::{FrameError, FrameHeader, Opcode, UnderWay, mask};

use crate::Side;
use crate::chance;
use crate::listing::Label;

/// How many tunnels a relay is to begin or end to look at, at once.
pub const MAX_TAPPED: usize = 64;

/// How many frames may wait for whoever looks.
pub const QUEUE: usize = 1024;

/// The longest part of a payload that is copied, in bytes.
pub const MAX_PAYLOAD: usize = 4096;

/// What is found in tapped tunnels.
#[derive(Debug)]
pub enum Tapped {
    /// A frame.
    Frame(Box<Frame>),
    /// Nothing more of this side can be read, for it has broken a rule.
    Broken {
        /// Of which tunnel.
        label: Label,
        /// Who.
        from: Side,
        /// The rule.
        error: FrameError,
        /// When, by [`crate::clock_ms`].
        at_ms: u64,
    },
    /// A tunnel has ended.
    Ended {
        /// Which one.
        label: Label,
        /// When, by [`crate::clock_ms`].
        at_ms: u64,
    },
}

/// The next of what is found, and how many before it found no room since the last.
#[derive(Debug)]
pub struct Entry {
    /// How many, between the last entry and this one.
    pub missed: u64,
    /// What was found.
    pub tapped: Tapped,
}

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// This side, to the other one.
    Side(Side),
    /// We, to this side.
    Us(Side),
}

/// One frame, or as much of it as is told.
#[derive(Debug)]
pub struct Frame {
    /// Of which tunnel.
    pub label: Label,
    /// Who sent it.
    pub sender: Sender,
    /// When its header had come, by [`crate::clock_ms`].
    pub at_ms: u64,
    /// What it is.
    pub header: FrameHeader,
    /// The first bytes of its payload, unmasked, as many as are wanted. Of a Close it is all of it.
    pub payload: Vec<u8>,
    /// Why there is no more of the payload.
    pub shown: Shown,
}

/// How much of a payload is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// None, for nobody wants it or may have it.
    Nothing,
    /// None, for an extension has changed it, such as permessage-deflate.
    Extended,
    /// None, for the message began before anybody looked, and may be compressed.
    Unknown,
    /// As much as is wanted.
    Payload,
}

/// What a tap was ordered with; its observers hold it.
pub struct Tap {
    number: u64,
    queue: SyncSender<Entry>,
    /// Of so many frames one is told; each Close is.
    sample: NonZeroU32,
    seen: AtomicU64,
    missed: Arc<AtomicU64>,
}

impl fmt::Debug for Tap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tap").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Where the frames of a tap come out. They end when nobody holds the tap any more: all its tunnels have ended.
#[derive(Debug)]
pub struct Outlet {
    /// The frames.
    pub frames: Receiver<Entry>,
    missed: Arc<AtomicU64>,
}

impl Outlet {
    /// How many found no room since the newest entry, and were not taken before.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

impl Tap {
    /// One that tells of one in `sample` frames, chosen at random.
    pub fn new(sample: NonZeroU32) -> (Arc<Self>, Outlet) {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let (queue, frames) = sync_channel(QUEUE);
        let missed = Arc::<AtomicU64>::default();
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let tap =
            Self { number, queue, sample, seen: AtomicU64::new(0), missed: Arc::clone(&missed) };
        (Arc::new(tap), Outlet { frames, missed })
    }

    /// What it is called when it is to end.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the next frame is among those that are told.
    fn chooses(&self) -> bool {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        // Every second frame might always be from the same side.
        chance::at(seen).is_multiple_of(u64::from(self.sample.get()))
    }

    /// Says whether anybody listens.
    fn tell(&self, tapped: Tapped) -> bool {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        match self.queue.try_send(Entry { missed, tapped }) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed.fetch_add(missed + 1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Looks at one tunnel for one tap.
#[derive(Debug)]
pub(crate) struct Observer {
    tap: Arc<Tap>,
    label: Label,
    client: Reader,
    upstream: Reader,
}

impl Observer {
    /// Begins in the middle of what both sides say. Of payloads up to `max_payload` bytes are copied.
    pub(crate) fn new(
        tap: Arc<Tap>,
        label: Label,
        max_payload: usize,
        under_way: impl Fn(Side) -> Begin,
    ) -> Self {
        let max_payload = max_payload.min(MAX_PAYLOAD);
        let reader = |side| Reader::new(under_way(side), max_payload);
        Self { tap, label, client: reader(Side::Client), upstream: reader(Side::Upstream) }
    }

    pub(crate) fn is_of(&self, number: u64) -> bool {
        self.tap.number == number
    }

    /// Bytes of this side have come. Says whether anybody still wants to know.
    pub(crate) fn on_bytes(&mut self, from: Side, bytes: &[u8], now_ms: u64) -> bool {
        let Self { tap, label, client, upstream } = self;
        let reader = match from {
            Side::Client => client,
            Side::Upstream => upstream,
        };
        let mut listens = true;
        let result = reader.read(bytes, now_ms, &mut || tap.chooses(), &mut |told| {
            let label = label.clone();
            listens &= tap.tell(Tapped::Frame(told.frame(label, Sender::Side(from))));
        });
        if let Err(error) = result {
            let label = label.clone();
            listens &= tap.tell(Tapped::Broken { label, from, error, at_ms: now_ms });
        }
        listens
    }

    /// A frame of our own goes to this side.
    pub(crate) fn on_own(&mut self, to: Side, frame: &[u8], now_ms: u64) {
        let mut reader = Reader::new(Begin::Begun(Vec::new()), self.client.max_payload);
        let Self { tap, label, .. } = self;
        // It is one of ours, so it breaks no rule.
        let _ = reader.read(frame, now_ms, &mut || tap.chooses(), &mut |told| {
            tap.tell(Tapped::Frame(told.frame(label.clone(), Sender::Us(to))));
        });
    }

    /// The tunnel has ended.
    pub(crate) fn end(mut self, now_ms: u64) {
        for from in [Side::Client, Side::Upstream] {
            let reader = match from {
                Side::Client => &mut self.client,
                Side::Upstream => &mut self.upstream,
            };
            // What it had begun to say is told as far as it has come.
            if let Some(told) = reader.take_unfinished() {
                self.tap.tell(Tapped::Frame(told.frame(self.label.clone(), Sender::Side(from))));
            }
        }
        self.tap.tell(Tapped::Ended { label: self.label, at_ms: now_ms });
    }
}

/// Where a reader begins.
#[derive(Debug)]
pub(crate) enum Begin {
    /// These bytes of a frame have come already.
    Begun(Vec<u8>),
    /// In a payload, of which so many bytes are to come.
    Payload(u64),
    /// Nowhere that is known.
    Unknown,
}

impl From<UnderWay<'_>> for Begin {
    fn from(under_way: UnderWay<'_>) -> Self {
        match under_way {
            UnderWay::Begun(bytes) => Self::Begun(bytes.to_vec()),
            UnderWay::Payload(left) => Self::Payload(left),
            UnderWay::Unknown => Self::Unknown,
        }
    }
}

/// Reads the frames of one direction.
///
/// `Header` ──complete──▶ `Payload` ──all of it──▶ `Header`; anything ──broken rule──▶ `Unknown`, for ever.
#[derive(Debug)]
struct Reader {
    state: State,
    message: Message,
    max_payload: usize,
}

#[derive(Debug)]
enum State {
    /// So much of a frame has come; never a whole header.
    Header(Vec<u8>),
    /// So many bytes of a payload are to come; the frame is told when enough of it is there.
    Payload {
        left: u64,
        told: Option<Told>,
    },
    Unknown,
}

/// What is known of the message that the next continuation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// It began before anybody looked.
    Unknown,
    Plain,
    /// An extension has changed its payload.
    Extended,
}

/// A frame on its way to be told.
#[derive(Debug)]
struct Told {
    at_ms: u64,
    header: FrameHeader,
    payload: Vec<u8>,
    wanted: usize,
    shown: Shown,
}

impl Told {
    fn frame(self, label: Label, sender: Sender) -> Box<Frame> {
        let Self { at_ms, header, payload, shown, .. } = self;
        Box::new(Frame { label, sender, at_ms, header, payload, shown })
    }

    /// Takes what it wants of the next bytes of its payload.
    fn extend(&mut self, masked: &[u8]) {
        let start = self.payload.len();
        self.payload.extend_from_slice(&masked[..masked.len().min(self.wanted - start)]);
        mask::apply(self.header.mask.unwrap_or_default(), start, &mut self.payload[start..]);
    }
}

impl Reader {
    fn new(begin: Begin, max_payload: usize) -> Self {
        let state = match begin {
            Begin::Begun(bytes) => State::Header(bytes),
            Begin::Payload(left) => State::Payload { left, told: None },
            Begin::Unknown => State::Unknown,
        };
        Self { state, message: Message::Unknown, max_payload }
    }

    /// Reads the next bytes and tells the frames in them that are chosen. The rule that was broken, once.
    fn read(
        &mut self,
        mut bytes: &[u8],
        now_ms: u64,
        choose: &mut dyn FnMut() -> bool,
        tell: &mut dyn FnMut(Told),
    ) -> Result<(), FrameError> {
        loop {
            match &mut self.state {
                State::Unknown => return Ok(()),
                State::Header(kept) => {
                    // What was held back may be a whole frame, so it goes first.
                    let begun = mem::take(kept);
                    let joined = if begun.is_empty() { bytes } else { &[&begun, bytes].concat() };
                    let (header, rest) = match FrameHeader::decode(joined) {
                        Ok(Some(decoded)) => decoded,
                        Ok(None) => {
                            self.state = State::Header(joined.to_vec());
                            return Ok(());
                        }
                        Err(error) => {
                            self.state = State::Unknown;
                            return Err(error);
                        }
                    };
                    let told = self.begin(header, now_ms, choose());
                    self.state = State::Payload { left: header.payload_len, told };
                    let in_begun = rest.len().saturating_sub(bytes.len());
                    if in_begun > 0 {
                        self.pass(&rest[..in_begun], tell);
                    }
                    bytes = &bytes[bytes.len() - rest.len().min(bytes.len())..];
                    self.pass(&[], tell);
                }
                State::Payload { .. } => bytes = self.pass(bytes, tell),
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// A header has come: what is to be told of the frame, if anything.
    fn begin(&mut self, header: FrameHeader, now_ms: u64, is_chosen: bool) -> Option<Told> {
        let FrameHeader { opcode, rsv, fin, payload_len, .. } = header;
        let message = match (opcode, rsv) {
            (Opcode::Continuation, 0) => self.message,
            (_, 0) => Message::Plain,
            (_, _) => Message::Extended,
        };
        if !opcode.is_control() {
            // Of what follows a whole message nobody asks: only a continuation does.
            self.message = if fin { Message::Unknown } else { message };
        }
        let is_close = opcode == Opcode::Close;
        let (shown, most) = match message {
            _ if is_close && message == Message::Plain => (Shown::Payload, MAX_CONTROL_LEN),
            _ if self.max_payload == 0 => (Shown::Nothing, 0),
            Message::Plain => (Shown::Payload, self.max_payload),
            Message::Extended => (Shown::Extended, 0),
            Message::Unknown => (Shown::Unknown, 0),
        };
        let wanted = usize::try_from(payload_len).unwrap_or(usize::MAX).min(most);
        (is_chosen || is_close).then(|| Told {
            at_ms: now_ms,
            header,
            payload: Vec::new(),
            wanted,
            shown,
        })
    }

    /// Passes what belongs to a payload in the front of these bytes; returns the rest.
    fn pass<'a>(&mut self, bytes: &'a [u8], tell: &mut dyn FnMut(Told)) -> &'a [u8] {
        let State::Payload { left, told } = &mut self.state else { return bytes };
        let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let (payload, rest) = bytes.split_at(len);
        *left -= len as u64;
        if let Some(unfinished) = told {
            unfinished.extend(payload);
        }
        if let Some(finished) = told.take_if(|told| told.payload.len() >= told.wanted) {
            tell(finished);
        }
        if *left == 0 {
            self.state = State::Header(Vec::new());
        }
        rest
    }

    fn take_unfinished(&mut self) -> Option<Told> {
        match &mut self.state {
            State::Payload { told, .. } => told.take(),
            State::Header(_) | State::Unknown => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"\x81\x85\x01\x02\x03\x04igohn";

    /// Opcode, FIN, RSV, length, payload and how much of it is shown.
    type Read = (Opcode, bool, u8, u64, String, Shown);

    /// What is told when these bytes come in pieces of this size.
    fn told(
        begin: Begin,
        max: usize,
        stream: &[u8],
        piece: usize,
    ) -> (Vec<Read>, Option<FrameError>) {
        let mut reader = Reader::new(begin, max);
        let (mut all, mut broken) = (Vec::new(), None);
        for bytes in stream.chunks(piece) {
            let result = reader.read(bytes, 5, &mut || true, &mut |told| all.push(told));
            broken = broken.or(result.err());
        }
        all.extend(reader.take_unfinished());
        let shown = |told: Told| {
            let FrameHeader { opcode, fin, rsv, payload_len, .. } = told.header;
            let payload = String::from_utf8_lossy(&told.payload).into_owned();
            (opcode, fin, rsv, payload_len, payload, told.shown)
        };
        (all.into_iter().map(shown).collect(), broken)
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        // A message in two parts with a ping between, a compressed one, and a Close.
        let stream = [
            b"\x01\x03hel\x89\x01?\x80\x02lo".as_slice(),
            b"\xc1\x02zz",
            b"\x41\x01z\x80\x01z",
            b"\x88\x05\x03\xe8bye",
            HELLO,
        ]
        .concat();
        let text = |payload: &str| payload.to_owned();
        for piece in 1..stream.len() + 1 {
            let (frames, broken) = told(Begin::Begun(Vec::new()), 100, &stream, piece);
            assert_eq!(broken, None);
            let close = &frames[6];
            assert_eq!((close.0, close.3, close.5), (Opcode::Close, 5, Shown::Payload));
            let rest: Vec<_> =
                frames.into_iter().filter(|frame| frame.0 != Opcode::Close).collect();
            let expected = [
                (Opcode::Text, false, 0, 3, text("hel"), Shown::Payload),
                (Opcode::Ping, true, 0, 1, text("?"), Shown::Payload),
                (Opcode::Continuation, true, 0, 2, text("lo"), Shown::Payload),
                (Opcode::Text, true, 4, 2, text(""), Shown::Extended),
                (Opcode::Text, false, 4, 1, text(""), Shown::Extended),
                (Opcode::Continuation, true, 0, 1, text(""), Shown::Extended),
                (Opcode::Text, true, 0, 5, text("hello"), Shown::Payload),
            ];
            assert_eq!(rest, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn who_begins_in_the_middle_finds_the_next_frame() {
        let hello = (Opcode::Text, true, 0, 5, "hello".to_owned(), Shown::Payload);
        for piece in [1, 3, 100] {
            let (frames, _) = told(Begin::Payload(4), 100, &[b"rest", HELLO].concat(), piece);
            assert_eq!((frames.len(), &frames[0]), (1, &hello));
            for begun in 0..HELLO.len() + 1 {
                let (start, rest) = HELLO.split_at(begun);
                let next = [rest, b"\x8a\x80\0\0\0\0"].concat();
                let (frames, _) = told(Begin::Begun(start.to_vec()), 100, &next, piece);
                assert_eq!(frames[0], hello, "{begun} had come");
                assert_eq!((frames[1].0, frames.len()), (Opcode::Pong, 2));
            }
        }
        // Whether that is compressed only its beginning said.
        let (frames, _) = told(Begin::Payload(0), 100, b"\x80\x01x", 9);
        assert_eq!(frames[0].5, Shown::Unknown);
        assert_eq!(told(Begin::Unknown, 100, HELLO, 9), (vec![], None));
    }

    #[test]
    fn no_more_is_copied_than_is_wanted_and_a_broken_rule_ends_it() {
        let (frames, _) = told(Begin::Begun(Vec::new()), 2, HELLO, 100);
        assert_eq!((frames[0].3, &*frames[0].4), (5, "he"));
        let (frames, _) = told(Begin::Begun(Vec::new()), 0, HELLO, 1);
        assert_eq!((&*frames[0].4, frames[0].5), ("", Shown::Nothing));
        let (frames, broken) = told(Begin::Begun(Vec::new()), 0, b"\x81\x00\x83\x00\x81\x00", 100);
        assert_eq!((frames.len(), broken), (1, Some(FrameError::ReservedOpcode(3))));
        // The rest never comes.
        let (frames, _) = told(Begin::Begun(Vec::new()), 100, &HELLO[..8], 100);
        assert_eq!(&*frames[0].4, "he");
    }

    #[test]
    fn a_sample_is_about_its_share_and_not_of_one_side() {
        let (tap, _outlet) = Tap::new(NonZeroU32::new(10).unwrap());
        let mut chosen = [0, 0];
        for frame in 0..10_000 {
            chosen[frame % 2] += usize::from(tap.chooses());
        }
        assert!(chosen.iter().all(|side| (400..600).contains(side)), "{chosen:?}");
    }

    #[test]
    fn who_does_not_read_misses_what_finds_no_room() {
        let (tap, outlet) = Tap::new(NonZeroU32::MIN);
        let label = Label::new(7_u64);
        let begun = |_| Begin::Begun(Vec::new());
        let mut observer = Observer::new(Arc::clone(&tap), label, 0, begun);
        drop(tap);
        for _ in 0..QUEUE + 10 {
            assert!(observer.on_bytes(Side::Client, HELLO, 5));
        }
        let missed: Vec<_> = outlet.frames.iter().take(QUEUE).map(|entry| entry.missed).collect();
        assert_eq!(missed, [0; QUEUE]);
        assert!(observer.on_bytes(Side::Client, HELLO, 5));
        let next = outlet.frames.try_recv().map(|entry| entry.missed);
        assert_eq!((next, outlet.take_missed()), (Ok(10), 0), "told where the gap is");
        for _ in 0..QUEUE + 3 {
            assert!(observer.on_bytes(Side::Client, HELLO, 5));
        }
        assert_eq!((outlet.take_missed(), outlet.take_missed()), (3, 0));
        drop(outlet);
        assert!(!observer.on_bytes(Side::Client, HELLO, 5), "nobody listens any more");
    }
}
