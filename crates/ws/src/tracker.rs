//! Follows frame boundaries through bytes that only pass by.
//!
//! A relay reads bytes from one side and writes them to the other. To count messages, to put a
//! frame of its own between two others, or to know how a tunnel ended, it has to know where frames
//! end, and nothing else: 2 to 14 bytes of header per frame tell that. The tracker keeps an
//! unfinished header and the number of payload bytes still to come, and never a payload. A chunk
//! inside of a payload costs one comparison and one subtraction. Payload stays masked, so it is
//! not known whether a text is UTF-8.
//!
//! `Header` ──complete──▶ `Payload`, or `CloseCode` ──two bytes──▶ `Payload`
//! `Payload` ──all of it──▶ `Header`; anything ──broken rule──▶ `Broken`, for ever.
//!
//! After a broken rule the tracker knows no boundaries any more and only counts bytes: what becomes
//! of such a tunnel is the relay's decision, not its.

#[cfg(any(test, feature = "fuzz"))]
pub mod reference;
mod state;

use minicbor::{Decode, Encode};
pub(crate) use state::TrackerState;

use crate::cbor::is_default;
use crate::close::MAX_REASON_LEN;
use crate::mask;
use crate::{
    CloseCode, FrameError, FrameHeader, Opcode, Side,
    frame::{MAX_HEADER_LEN, must_mask},
    handshake::Extensions,
};

/// What went by, in numbers that only grow; one may serve many trackers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Counts {
    /// All bytes, headers included.
    #[cbor(n(0), skip_if = "is_default")]
    pub bytes: u64,
    /// Complete frames of any kind.
    #[cbor(n(1), skip_if = "is_default")]
    pub frames: u64,
    /// Complete text and binary messages.
    #[cbor(n(2), skip_if = "is_default")]
    pub messages: u64,
    /// Complete pings.
    #[cbor(n(3), skip_if = "is_default")]
    pub pings: u64,
    /// Complete pongs.
    #[cbor(n(4), skip_if = "is_default")]
    pub pongs: u64,
    /// Complete text messages; all others are binary.
    #[cbor(n(5), skip_if = "is_default")]
    pub texts: u64,
    /// Payload of complete messages, in bytes, as on the wire: compressed if it is compressed.
    #[cbor(n(6), skip_if = "is_default")]
    pub payload: u64,
    /// The part of it that is text.
    #[cbor(n(7), skip_if = "is_default")]
    pub text_payload: u64,
    /// The longest complete message's.
    #[cbor(n(8), skip_if = "is_default")]
    pub largest: u64,
}

impl Counts {
    /// A message is complete.
    #[inline]
    fn add_message(&mut self, is_text: bool, payload: u64) {
        let text = u64::from(is_text);
        self.messages += 1;
        self.texts += text;
        self.payload = self.payload.saturating_add(payload);
        self.text_payload = self.text_payload.saturating_add(text * payload);
        self.largest = self.largest.max(payload);
    }
}

/// What the bytes of one call brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// The last offset in these bytes at which no frame is under way, where a control frame could
    /// be injected. It is 0 if the bytes begin between two frames and none ends in them.
    pub boundary: Option<usize>,
    /// The code of the first Close among these bytes, known when its two bytes have passed;
    /// [`CloseCode::NO_STATUS`] if the Close is empty. Whether the code is valid is not checked.
    pub close: Option<CloseCode>,
    /// The protocol was broken here. Bytes up to `boundary` were still in order.
    pub broken: Option<FrameError>,
    /// A ping has ended in them.
    pub ping: bool,
}

impl Progress {
    /// Whether there is more to be known than where frames end.
    #[inline]
    pub fn is_special(&self) -> bool {
        self.close.is_some() || self.broken.is_some() || self.ping
    }
}

/// What has come already of the frame that the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderWay<'a> {
    /// These first bytes of it; none between two frames.
    Begun(&'a [u8]),
    /// Its header. So many bytes of its payload are to come.
    Payload(u64),
    /// A rule was broken, and nobody knows.
    Unknown,
}

/// Follows the frames of one direction. 40 bytes; no heap until there is a Close with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracker {
    state: State,
    /// Payload of the running message by the headers seen so far.
    message_len: u64,
    extensions: Extensions,
    from: Side,
    /// Whether a fragmented message waits for its continuation.
    in_message: bool,
    /// Whether the running message, or else the last one, is text.
    is_text: bool,
    /// Whether a Close has ended.
    closed: bool,
    /// What the first Close gives as its reason.
    reason: Option<Box<Reason>>,
}

/// The reason in a Close (RFC 6455 §5.5.1), as it comes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Reason {
    #[cbor(n(0), with = "minicbor::bytes")]
    mask: [u8; 4],
    /// Unmasked.
    #[cbor(n(1), with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

/// The first bytes of messages of one frame, without reserved bits (RFC 6455 §5.2).
const FIN_TEXT: u8 = 0x80 | Opcode::Text as u8;
const FIN_BINARY: u8 = 0x80 | Opcode::Binary as u8;

/// Where in a frame the next byte belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// In the header, of which `seen` bytes are kept; all 14 would be complete.
    Header { seen: u8, kept: [u8; MAX_HEADER_LEN - 1] },
    /// In the first two bytes of a Close's payload, of which `left` bytes are to come.
    CloseCode { left: u8, mask: [u8; 4], first: Option<u8> },
    /// In the payload, of which `left` bytes are to come.
    Payload { left: u64, opcode: Opcode, fin: bool },
    /// Nowhere that is known.
    Broken(FrameError),
}

impl Reason {
    /// Takes more of it; never more than there can be.
    fn extend(&mut self, masked: &[u8]) {
        let masked = &masked[..masked.len().min(MAX_REASON_LEN - self.bytes.len())];
        let start = self.bytes.len();
        self.bytes.extend_from_slice(masked);
        mask::apply(self.mask, start, &mut self.bytes[start..]);
    }
}

impl State {
    const BOUNDARY: Self = Self::Header { seen: 0, kept: [0; MAX_HEADER_LEN - 1] };
}

impl Tracker {
    /// A tracker for the frames that `from` sends, right after the switch.
    pub fn new(from: Side, extensions: Extensions) -> Self {
        Self {
            state: State::BOUNDARY,
            message_len: 0,
            extensions,
            from,
            in_message: false,
            is_text: false,
            closed: false,
            reason: None,
        }
    }

    /// Moves on by `bytes`, the next ones of the stream.
    pub fn advance(&mut self, bytes: &[u8], counts: &mut Counts) -> Progress {
        counts.bytes += bytes.len() as u64;
        let mut progress = Progress::default();
        let mut rest = bytes;
        loop {
            rest = self.pass_messages(rest, counts);
            // After every frame and not only at the end: when the bytes end within a frame, the
            // last boundary before it is what counts.
            if self.is_at_boundary() {
                progress.boundary = Some(bytes.len() - rest.len());
                if rest.is_empty() {
                    return progress;
                }
            }
            match self.step(rest, counts, &mut progress) {
                Some(after) => rest = after,
                None => return progress,
            }
        }
    }

    /// Moves on by what belongs to one frame in the front of `bytes`; says how much that is. It is all of
    /// them if the frame does not end in them, or a rule was broken.
    pub fn advance_frame(&mut self, bytes: &[u8], counts: &mut Counts) -> (usize, Progress) {
        let mut progress = Progress::default();
        let mut rest = bytes;
        while let Some(after) = self.step(rest, counts, &mut progress) {
            rest = after;
            if self.is_at_boundary() {
                progress.boundary = Some(bytes.len() - rest.len());
                counts.bytes += (bytes.len() - rest.len()) as u64;
                return (bytes.len() - rest.len(), progress);
            }
        }
        counts.bytes += bytes.len() as u64;
        (bytes.len(), progress)
    }

    #[inline]
    fn step<'a>(
        &mut self,
        rest: &'a [u8],
        counts: &mut Counts,
        progress: &mut Progress,
    ) -> Option<&'a [u8]> {
        match self.state {
            State::Header { .. } => self.on_header(rest, progress),
            State::CloseCode { .. } => self.on_close_code(rest, progress),
            State::Payload { .. } => self.on_payload(rest, counts, progress),
            State::Broken(_) => None,
        }
    }

    /// What the two ends have agreed upon.
    pub(crate) fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// Whether the last byte ended a frame, or none has begun: a control frame may be injected.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Header { seen: 0, .. })
    }

    /// What has come of the frame that the next byte belongs to.
    pub fn under_way(&self) -> UnderWay<'_> {
        match &self.state {
            State::Header { seen, kept } => UnderWay::Begun(&kept[..usize::from(*seen)]),
            State::CloseCode { left, first, .. } => {
                UnderWay::Payload(u64::from(*left) - u64::from(first.is_some()))
            }
            State::Payload { left, .. } => UnderWay::Payload(*left),
            State::Broken(_) => UnderWay::Unknown,
        }
    }

    /// Whether a fragmented message waits for more fragments.
    pub fn is_in_message(&self) -> bool {
        self.in_message
    }

    /// The payload length of the running message, or else of the last one: the sum of what the
    /// headers seen so far announced.
    pub fn message_len(&self) -> u64 {
        self.message_len
    }

    /// Whether the running message, or else the last one, is text.
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// How much of the payload of a data frame is still to come, if that is where the next byte belongs.
    pub(crate) fn data_left(&self) -> Option<u64> {
        match self.state {
            State::Payload { left, opcode, .. } if !opcode.is_control() => Some(left),
            _ => None,
        }
    }

    /// The reason of the first Close as far as it has come, unmasked. It may be anything.
    pub fn close_reason(&self) -> &[u8] {
        self.reason.as_ref().map_or(&[], |reason| &reason.bytes)
    }

    /// How the protocol was broken, if it was.
    pub fn broken(&self) -> Option<FrameError> {
        match self.state {
            State::Broken(error) => Some(error),
            _ => None,
        }
    }

    /// Takes from the front of `bytes` what most traffic is made of: whole messages of one short frame
    /// each. All else is left to the steps below, which also say what is wrong with it.
    pub(crate) fn pass_messages<'a>(
        &mut self,
        mut bytes: &'a [u8],
        counts: &mut Counts,
    ) -> &'a [u8] {
        if self.in_message || !self.is_at_boundary() {
            return bytes;
        }
        let (mask_bit, mask_len) = if must_mask(self.from) { (0x80, 4) } else { (0, 0) };
        while let &[first, second, ref after @ ..] = bytes {
            let is_message = matches!(first & 0x8f, FIN_TEXT | FIN_BINARY);
            let reserved = first >> 4 & 0b111 & !self.extensions.rsv_on_first;
            let payload_len = usize::from(second & 0x7f);
            if !is_message || reserved != 0 || second & 0x80 != mask_bit || payload_len > 125 {
                break;
            }
            // One that was cut goes through the steps, which remember how much of it is missing.
            let Some(after) = after.get(mask_len + payload_len..) else { break };
            self.message_len = payload_len as u64;
            self.is_text = first & 0x8f == FIN_TEXT;
            counts.frames += 1;
            counts.add_message(self.is_text, payload_len as u64);
            bytes = after;
        }
        bytes
    }

    // The three steps below take what is theirs from the front of `bytes` and return the rest, or
    // `None` when there is nothing more to do with these bytes.

    fn on_header<'a>(&mut self, bytes: &'a [u8], progress: &mut Progress) -> Option<&'a [u8]> {
        let State::Header { seen, kept } = self.state else { return None };
        let seen = usize::from(seen);
        // A header that was cut continues behind the kept bytes; a whole one is read in place.
        let mut joined = [0; MAX_HEADER_LEN];
        let header = if seen == 0 {
            bytes
        } else {
            let end = MAX_HEADER_LEN.min(seen + bytes.len());
            joined[..seen].copy_from_slice(&kept[..seen]);
            joined[seen..end].copy_from_slice(&bytes[..end - seen]);
            &joined[..end]
        };
        // Before decoding, because decoding wants the whole header and these rules are broken by
        // its first two bytes.
        match self.check(header).and_then(|()| FrameHeader::decode(header)) {
            Ok(Some((decoded, after))) => {
                let used = header.len() - after.len() - seen;
                self.begin_frame(decoded, progress);
                Some(&bytes[used..])
            }
            Ok(None) => {
                // Fewer than 14 bytes, or the header would be complete.
                let mut kept = [0; MAX_HEADER_LEN - 1];
                kept[..header.len()].copy_from_slice(header);
                self.state = State::Header { seen: header.len() as u8, kept };
                None
            }
            Err(error) => {
                self.state = State::Broken(error);
                progress.broken = Some(error);
                None
            }
        }
    }

    /// The rules that need the direction, the extensions or the frames before; like
    /// [`FrameHeader::decode`] it objects to the first byte that breaks one.
    pub(crate) fn check(&self, header: &[u8]) -> Result<(), FrameError> {
        let Some(&first) = header.first() else {
            return Ok(());
        };
        let opcode = Opcode::try_from(first & 0x0f)?;
        let first_of_message = matches!(opcode, Opcode::Text | Opcode::Binary);
        let allowed = match first_of_message {
            true => self.extensions.rsv_on_first,
            false => self.extensions.rsv_on_others,
        };
        let rsv = first >> 4 & 0b111;
        if rsv & !allowed != 0 {
            return Err(FrameError::ReservedBits(rsv));
        }
        if opcode.is_control() && first & 0x80 == 0 {
            return Err(FrameError::FragmentedControl);
        }
        if opcode == Opcode::Continuation && !self.in_message {
            return Err(FrameError::NothingToContinue);
        }
        if first_of_message && self.in_message {
            return Err(FrameError::MessageNotEnded);
        }
        match header.get(1).map(|second| second & 0x80 != 0) {
            Some(false) if must_mask(self.from) => Err(FrameError::NotMasked),
            Some(true) if !must_mask(self.from) => Err(FrameError::Masked),
            _ => Ok(()),
        }
    }

    fn begin_frame(&mut self, header: FrameHeader, progress: &mut Progress) {
        let FrameHeader { fin, opcode, mask, payload_len, .. } = header;
        match opcode {
            Opcode::Text | Opcode::Binary => {
                self.message_len = payload_len;
                self.is_text = opcode == Opcode::Text;
            }
            Opcode::Continuation => {
                self.message_len = self.message_len.saturating_add(payload_len);
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        // Control frames may stand between the fragments of a message and change nothing about it
        // (RFC 6455 §5.4).
        if !opcode.is_control() {
            self.in_message = !fin;
        }
        self.state = match (opcode, u8::try_from(payload_len)) {
            // Unmasked is masked by zeros.
            // A payload of one byte was refused by the decoder, so there are two or none.
            (Opcode::Close, Ok(left @ 2..)) => {
                State::CloseCode { left, mask: mask.unwrap_or_default(), first: None }
            }
            _ => State::Payload { left: payload_len, opcode, fin },
        };
        if opcode == Opcode::Close && payload_len == 0 {
            // Only the first counts: after a Close its sender may send nothing (RFC 6455 §5.5.1),
            // so what follows says nothing about why it closed.
            progress.close.get_or_insert(CloseCode::NO_STATUS);
        }
    }

    fn on_close_code<'a>(&mut self, bytes: &'a [u8], progress: &mut Progress) -> Option<&'a [u8]> {
        let State::CloseCode { left, mask, first } = &mut self.state else { return None };
        let (&byte, after) = bytes.split_first()?;
        let Some(first) = first.replace(byte) else {
            return Some(after);
        };
        let (left, mask) = (u64::from(*left) - 2, *mask);
        let code = u16::from_be_bytes([first ^ mask[0], byte ^ mask[1]]);
        progress.close.get_or_insert(CloseCode(code));
        if left > 0 && !self.closed {
            // The code was masked by the first two bytes.
            let mask = [mask[2], mask[3], mask[0], mask[1]];
            self.reason = Some(Box::new(Reason { mask, bytes: Vec::new() }));
        }
        self.state = State::Payload { left, opcode: Opcode::Close, fin: true };
        Some(after)
    }

    fn on_payload<'a>(
        &mut self,
        bytes: &'a [u8],
        counts: &mut Counts,
        progress: &mut Progress,
    ) -> Option<&'a [u8]> {
        let State::Payload { left, opcode, fin } = &mut self.state else { return None };
        let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let (payload, after) = bytes.split_at(len);
        if *opcode == Opcode::Close
            && !self.closed
            && let Some(reason) = &mut self.reason
        {
            reason.extend(payload);
        }
        *left -= len as u64;
        if *left > 0 {
            return None;
        }
        counts.frames += 1;
        match opcode {
            Opcode::Ping => {
                counts.pings += 1;
                progress.ping = true;
            }
            Opcode::Pong => counts.pongs += 1,
            Opcode::Close => self.closed = true,
            Opcode::Text | Opcode::Binary | Opcode::Continuation if *fin => {
                counts.add_message(self.is_text, self.message_len);
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {}
        }
        self.state = State::BOUNDARY;
        Some(after)
    }
}

#[cfg(test)]
mod tests;
