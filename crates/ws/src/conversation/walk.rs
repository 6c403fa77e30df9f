//! Walks through a conversation, for tests and fuzzing, beside a naive reading of all that was said.

use super::*;
use crate::Extensions;
use crate::tracker::reference::{Fact, facts};

/// One event or order.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The next so many bytes of this side come.
    Bytes(Side, usize),
    /// Nothing more passes from this side.
    End(Side),
    /// A ping is to go to this side.
    Ping(Side),
    /// We close.
    Close,
    /// We close because this side has sent too much.
    Refuse(Side),
    /// This side says nothing more, and may end.
    Last(Side),
    /// Bytes have gone that had to wait.
    Sent,
    /// So many milliseconds pass.
    Wait(u64),
}

/// One direction as the walker knows it.
struct Expected {
    from: Side,
    extensions: Extensions,
    /// All that its source has to say, and how much of it has come.
    stream: Vec<u8>,
    came: usize,
    /// How much of it has gone on.
    passed: usize,
    waiting: Option<OwnFrame>,
    /// Our Close that waits for the last words, which begin there.
    deferred: Option<(OwnFrame, usize)>,
    closed: bool,
    ended: bool,
}

impl Expected {
    fn new(from: Side, extensions: Extensions, stream: Vec<u8>) -> Self {
        let (came, passed, waiting, deferred) = (0, 0, None, None);
        let (closed, ended) = (false, false);
        Self { from, extensions, stream, came, passed, waiting, deferred, closed, ended }
    }

    fn facts(&self) -> Vec<Fact> {
        facts(&self.stream[..self.came], self.from, self.extensions)
    }

    fn close(&self) -> Option<CloseCode> {
        self.facts().iter().find_map(|fact| match *fact {
            Fact::Close { code, .. } => Some(CloseCode(code)),
            _ => None,
        })
    }

    fn broken(&self) -> Option<FrameError> {
        self.facts().iter().find_map(|fact| match *fact {
            Fact::Broken { error, .. } => Some(error),
            _ => None,
        })
    }

    /// Where in the stream no frame is under way, as far as that is known.
    fn boundaries(&self) -> impl Iterator<Item = usize> {
        let ends = self.facts().into_iter().filter_map(|fact| match fact {
            Fact::FrameEnd { at, .. } => Some(at),
            _ => None,
        });
        ends.chain([0])
    }

    /// The last boundary from `start` on.
    fn boundary(&self, start: usize) -> Option<usize> {
        self.boundaries().filter(|&at| at >= start).max()
    }

    /// Whether what has gone on so far ends with a frame.
    fn is_at_boundary(&self) -> bool {
        self.broken().is_none() && self.boundaries().any(|at| at == self.passed)
    }

    fn request(&mut self, frame: OwnFrame) {
        let displaces = self.waiting.is_none() || matches!(frame, OwnFrame::Close(..));
        if displaces && self.deferred.is_none() && self.has_place() {
            self.waiting = Some(frame);
        }
    }

    /// A Close is wanted behind all that is still said.
    fn request_last(&mut self, frame: OwnFrame) {
        if self.has_place() {
            (self.waiting, self.deferred) = (None, Some((frame, self.passed)));
            if self.is_before_close() {
                self.end_last_words();
            }
        }
    }

    fn has_place(&self) -> bool {
        !self.closed && !self.ended && self.close().is_none()
    }

    fn end_last_words(&mut self) {
        if let Some((frame, _)) = self.deferred.take() {
            self.waiting = Some(frame);
        }
    }

    /// Whether its own Close comes next.
    fn is_before_close(&self) -> bool {
        let next = self.stream[..self.came].get(self.passed);
        self.boundaries().any(|at| at == self.passed) && next.is_some_and(|next| next % 16 == 8)
    }

    /// What is expected of a frame that is put in now.
    fn injected(&mut self) -> OwnFrame {
        assert!(!self.closed, "nothing stands behind a Close");
        assert!(self.boundaries().any(|at| at == self.passed), "it stands between frames");
        let frame = self.waiting.take().expect("somebody asked for it");
        self.closed = matches!(frame, OwnFrame::Close(..));
        frame
    }

    fn on_bytes(&mut self, conversation: &mut Conversation, len: usize, now_ms: u64) {
        if self.ended {
            return;
        }
        let mut at = self.came;
        self.came = self.stream.len().min(at + len);
        loop {
            let bytes = &self.stream[at..self.came];
            let verdict = conversation.on_bytes(self.from, bytes, now_ms);
            // What is looked at frame by frame gives a frame of ours the first place, and all else the last.
            let first = matches!(verdict, Verdict::Part { insert: Some(Insert::Frame(_)), .. });
            if self.close().is_some() && !first {
                (self.waiting, self.deferred) = (None, None);
            }
            match verdict {
                Verdict::Pass => {
                    let place = self.waiting.and_then(|_| self.boundary(at));
                    assert!(!self.closed && place.is_none());
                    // No bytes at all release none that are held back.
                    self.passed += self.came - at;
                }
                Verdict::Withhold => assert!(self.closed),
                Verdict::Inject { at: end, frame } => {
                    assert_eq!(Some(at + end), self.boundary(at), "the last one");
                    self.passed += end;
                    assert_eq!(frame, self.injected());
                    if !self.closed {
                        self.passed = self.came;
                    }
                }
                Verdict::Part { pass, insert, skip } => {
                    self.passed += pass;
                    at += pass + skip;
                    match insert {
                        Some(Insert::Frame(frame)) => {
                            if self.deferred.is_some() {
                                assert!(self.is_before_close(), "it may still say something");
                                self.end_last_words();
                            }
                            assert_eq!(frame, self.injected());
                        }
                        Some(Insert::Held(held)) => {
                            assert!(self.stream[self.passed..].starts_with(&held));
                            self.passed += held.len();
                        }
                        None => assert_eq!(at, self.came, "nobody has sent a pong"),
                    }
                    if at < self.came {
                        continue;
                    }
                }
            }
            return;
        }
    }

    fn poll(&mut self, conversation: &mut Conversation, now_ms: u64) {
        let due = self.waiting.is_some() && self.is_at_boundary() && !self.ended;
        let frame = conversation.poll_frame(self.from.other(), now_ms);
        assert_eq!(frame.is_some(), due);
        if let Some(frame) = frame {
            assert_eq!(frame, self.injected());
        }
    }

    fn check(&self, conversation: &Conversation) {
        assert_eq!(conversation.close_code(self.from), self.close());
        assert_eq!(conversation.broken(self.from), self.broken());
        assert_eq!(conversation.withholds(self.from), self.closed);
        assert_eq!(conversation.counts(self.from).bytes, self.came as u64);
        // What may be the beginning of a pong for us has to wait.
        let held = self.came - self.passed;
        let waits = held < 2 + 4 + PING_LEN && self.stream[self.passed..].starts_with(b"\x8a");
        assert!(self.closed || held == 0 || waits, "all goes on until we close");
        if let Some((_, start)) = self.deferred.filter(|_| !self.ended) {
            let mut said = self.boundaries().filter(|at| (start..self.came).contains(at));
            assert!(said.all(|at| self.stream[at] % 16 != 8), "its own Close is no last word");
        }
    }

    /// When a handshake was answered, no frame was cut that its source has finished or could finish.
    fn check_whole(&self) {
        if !self.ended && self.broken().is_none() {
            assert!(self.boundaries().any(|at| at == self.passed), "a frame was cut");
            assert!(self.closed || self.close().is_some(), "its destination knows");
        }
    }
}

/// How the conversation ends next, as the walker knows it.
#[derive(Clone, Copy, PartialEq)]
enum Expectation {
    Nothing,
    /// At this time, for this reason.
    Due(u64, End),
    /// It has, at its time.
    Reached(End),
}

/// Takes the steps in a conversation whose sides have these streams to send.
///
/// # Panics
///
/// If it decides otherwise than the naive reading, or an order is not obeyed in time.
pub fn walk(from_client: Vec<u8>, from_server: Vec<u8>, extensions: Extensions, steps: &[Step]) {
    let mut conversation = Conversation::new(&Settings { extensions, ..Settings::default() }, 7);
    let mut expected = [
        Expected::new(Side::Client, extensions, from_client),
        Expected::new(Side::Server, extensions, from_server),
    ];
    let index = |from: Side| usize::from(from == Side::Server);
    let (mut now_ms, mut end, mut closing) = (7, Expectation::Nothing, false);
    let (mut first_close, mut last_ms) = (None, 0);
    for &step in steps {
        let mut moved = true;
        match step {
            Step::Bytes(from, len) => {
                let waits = !closing && !expected[index(from.other())].ended;
                let direction = &mut expected[index(from)];
                let had_closed = direction.close().is_some();
                moved = !direction.ended;
                direction.on_bytes(&mut conversation, len, now_ms);
                if waits && !had_closed && direction.close().is_some() {
                    first_close.get_or_insert(from);
                }
            }
            Step::End(from) => {
                conversation.on_end(from, now_ms);
                expected[index(from)].ended = true;
            }
            Step::Sent => conversation.on_sent(now_ms),
            Step::Ping(to) => {
                let ping = OwnFrame::Ping(*b"own ping");
                conversation.inject(to, ping);
                expected[index(to.other())].request(ping);
                moved = false;
            }
            Step::Close | Step::Refuse(_) => {
                let (cause, code, offender) = match step {
                    Step::Refuse(side) => {
                        let cause = Cause::Rate(side, meter::Excess::Bytes);
                        (cause, CloseCode::POLICY_VIOLATION, Some(side))
                    }
                    _ => (Cause::Drain(CloseCode::GOING_AWAY), CloseCode::GOING_AWAY, None),
                };
                conversation.close(cause, now_ms);
                for way in &mut expected {
                    let away = OwnFrame::Close(CloseCode::GOING_AWAY, Some(cause));
                    match offender {
                        Some(offender) if closing && offender == way.from => way.end_last_words(),
                        _ if closing => {}
                        Some(offender) if offender != way.from => {
                            way.request_last(OwnFrame::Close(code, Some(cause)));
                        }
                        _ => way.request(away),
                    }
                }
                if !closing {
                    (closing, last_ms) = (true, now_ms + LAST_WORDS_MS + 1);
                    end = Expectation::Due(now_ms + CLOSING_MS + 1, End::Unanswered(cause));
                }
            }
            Step::Last(from) => {
                conversation.end_last_words(from);
                expected[index(from)].end_last_words();
                moved = false;
            }
            Step::Wait(ms) => {
                now_ms += ms;
                conversation.on_time(now_ms);
                if let Expectation::Due(at_ms, how) = end
                    && at_ms <= now_ms
                {
                    end = Expectation::Reached(how);
                }
                if last_ms <= now_ms {
                    expected.iter_mut().for_each(Expected::end_last_words);
                }
                moved = false;
            }
        }
        let said_all = expected.iter().all(|way| way.close().is_some());
        if moved && !closing && (said_all || expected[index(Side::Server)].ended) {
            // Whatever moves begins the last wait anew.
            if let Some(gone) = expected.iter().find(|way| way.ended) {
                end = Expectation::Due(now_ms + LINGER_MS + 1, End::Ended(gone.from));
            }
        }
        for direction in &mut expected {
            direction.poll(&mut conversation, now_ms);
            direction.check(&conversation);
        }
        assert_eq!(conversation.is_closing(), closing);
        assert_eq!(conversation.first_close(), first_close);
        match (conversation.poll_end(), end) {
            (Some(End::Answered(_)), _) => {
                assert!(closing, "nobody has asked for the end");
                return expected.iter().for_each(Expected::check_whole);
            }
            (told, Expectation::Reached(how)) => {
                assert_eq!((told, conversation.deadline_ms()), (Some(how), None));
            }
            (told, Expectation::Due(at_ms, _)) => {
                let waits = expected.iter().any(|way| way.deferred.is_some());
                let at_ms = if waits { last_ms } else { at_ms };
                assert_eq!((told, conversation.deadline_ms()), (None, Some(at_ms)));
                assert!(at_ms > now_ms, "what is due is done");
            }
            (told, Expectation::Nothing) => {
                assert_eq!((told, conversation.deadline_ms()), (None, None));
            }
        }
    }
}
