//! What one side says to the other.

use minicbor::{Decode, Encode};

use super::keep_alive::Pinging;
use super::watch::Watch;
use super::{OwnFrame, Settings, Verdict};
use crate::{CloseCode, Counts, Opcode, Progress, Side, Tracker};

/// What one side says to the other.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    pub(super) tracker: Tracker,
    pub(super) counts: Counts,
    /// The code of the first Close of its source.
    pub(super) close: Option<CloseCode>,
    pub(super) injection: Injection,
    /// Nothing more passes: its source has ended, or its destination takes nothing.
    pub(super) ended: bool,
    /// It has to be looked at frame by frame.
    pub(super) attentive: bool,
    /// Whether its source was asked if it is there.
    pub(super) pinging: Pinging,
    /// What came of a frame that is not let through before more of it is known. Owns memory only then.
    pub(super) held: Box<[u8]>,
    /// What is looked for in its frames.
    pub(super) watch: Option<Box<Watch>>,
}

/// What we have to say in a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) enum Injection {
    /// Nothing.
    #[default]
    #[n(0)]
    None,
    /// A frame that waits for a boundary.
    #[n(1)]
    Pending(#[n(0)] OwnFrame),
    /// A Close, but its source may finish first. It goes in the place of its source's own at the latest.
    #[n(2)]
    Deferred,
    /// Nothing any more, nor has anybody: we have sent a Close with this code.
    #[n(3)]
    Closed(#[n(0)] CloseCode),
    /// The same, and a Close has no place: a frame was cut that must not go on.
    #[n(4)]
    Cut,
    /// The same: its source has sent its own Close, and says more than it may.
    #[n(5)]
    Said,
}

impl Direction {
    pub(super) fn new(from: Side, settings: &Settings, now_ms: u64) -> Self {
        let watch = Watch::new(settings, from);
        Self {
            tracker: Tracker::new(from, settings.extensions),
            counts: Counts::default(),
            close: None,
            injection: Injection::None,
            ended: false,
            attentive: watch.is_some(),
            pinging: Pinging::new(now_ms),
            held: Box::default(),
            watch,
        }
    }

    #[inline]
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Progress {
        let progress = self.tracker.advance(bytes, &mut self.counts);
        self.note_close(&progress);
        progress
    }

    /// Moves on by what belongs to one frame; says how much that is.
    pub(super) fn advance_frame(&mut self, bytes: &[u8]) -> (usize, Progress) {
        let (len, progress) = self.tracker.advance_frame(bytes, &mut self.counts);
        self.note_close(&progress);
        (len, progress)
    }

    #[inline]
    fn note_close(&mut self, progress: &Progress) {
        if progress.close.is_none() {
            return;
        }
        self.close = self.close.or(progress.close);
        if let Injection::Pending(_) | Injection::Deferred = self.injection {
            // Its own Close is on its way, and the last word of this direction.
            self.injection = Injection::None;
        }
    }

    /// Moves on by the short whole messages in the front of these bytes, if their rules are all that is looked
    /// for: the tracker sees those. Says how much that is.
    pub(super) fn pass_messages(&mut self, bytes: &[u8]) -> usize {
        let rules_alone = self.watch.as_ref().is_none_or(|watch| watch.checks_rules_alone());
        if !rules_alone || !self.held.is_empty() {
            return 0;
        }
        let rest = self.tracker.pass_messages(bytes, &mut self.counts);
        let len = bytes.len() - rest.len();
        self.counts.bytes += len as u64;
        len
    }

    /// Moves on by what goes nowhere, behind what is held back; says whether a Close has come.
    pub(super) fn advance_unheard(&mut self, bytes: &[u8]) -> bool {
        let held = std::mem::take(&mut self.held);
        let Some(answer) = self.watch.as_mut().and_then(|watch| watch.answer.as_mut()) else {
            let before = self.advance(&held);
            self.counts.bytes -= held.len() as u64;
            return self.advance(bytes).close.or(before.close).is_some();
        };
        self.counts.bytes += bytes.len() as u64;
        if self.close.is_none() {
            self.close = answer.find(&held).or_else(|| answer.find(bytes));
            return self.close.is_some();
        }
        false
    }

    /// Whether what comes next goes nowhere because its source has closed: a receiver, too, discards what
    /// follows a Close (RFC 6455 §1.4), and its sender must not send more (§5.5.1).
    pub(super) fn has_said_all(&self) -> bool {
        self.close.is_some() && self.tracker.is_at_boundary() && self.checks_frames()
    }

    pub(super) fn checks_frames(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.checks_frames())
    }

    /// What becomes of bytes with this boundary.
    #[inline]
    pub(super) fn decide(&mut self, boundary: Option<usize>) -> Verdict {
        match self.injection {
            Injection::None => Verdict::Pass,
            _ => self.decide_with_own(boundary),
        }
    }

    /// The same, when we have something to say too.
    fn decide_with_own(&mut self, boundary: Option<usize>) -> Verdict {
        match self.injection {
            Injection::None | Injection::Deferred => Verdict::Pass,
            Injection::Closed(_) | Injection::Cut | Injection::Said => Verdict::Withhold,
            Injection::Pending(frame) => match boundary {
                Some(at) => Verdict::Inject { at, frame: self.sent(frame) },
                None => Verdict::Pass,
            },
        }
    }

    /// Says whether the frame has, or had, a place.
    pub(super) fn inject(&mut self, frame: OwnFrame) -> bool {
        let displaces = match self.injection {
            Injection::None => true,
            Injection::Pending(_) => matches!(frame, OwnFrame::Close(..)),
            Injection::Deferred | Injection::Closed(_) | Injection::Cut | Injection::Said => false,
        };
        // Behind its source's Close nothing may follow (RFC 6455 §5.5.1), and that includes what we
        // would say in its name.
        let has_place = displaces && self.close.is_none() && !self.ended;
        if has_place {
            self.injection = Injection::Pending(frame);
        }
        has_place
    }

    /// Lets its source finish before it is closed by us; says whether there is a place for that.
    pub(super) fn defer(&mut self) -> bool {
        let has_place = self.close.is_none() && !self.ended && !self.withholds();
        if has_place {
            self.injection = Injection::Deferred;
            // Its own Close has to be found before it goes on.
            self.attentive = true;
        }
        has_place
    }

    /// Whether its source may finish first.
    pub(super) fn is_deferred(&self) -> bool {
        matches!(self.injection, Injection::Deferred)
    }

    /// Whether its source's own Close comes next, behind what is held back.
    pub(super) fn is_before_close(&self, next: &[u8]) -> bool {
        let first = self.held.first().or(next.first());
        first.is_some_and(|first| first & 0x0f == Opcode::Close as u8)
    }

    /// Its source has finished, and has this Close of ours put behind.
    pub(super) fn end_last_words(&mut self, close: OwnFrame) {
        self.injection = Injection::Pending(close);
        // The rest of a frame has its time, and so has the answer.
        self.resume(u64::MAX);
    }

    /// It is looked at frame by frame only for what a policy wants, or for the end of its last words.
    pub(super) fn relax(&mut self) {
        self.attentive = self.watch.is_some() || self.is_deferred();
    }

    /// Whether its source has begun a frame and not ended it.
    pub(super) fn is_in_frame(&self) -> bool {
        let has_begun = !self.tracker.is_at_boundary() || !self.held.is_empty();
        has_begun && !self.is_over()
    }

    /// The frame of ours that waits, if it can go now.
    pub(super) fn poll_frame(&mut self) -> Option<OwnFrame> {
        match self.injection {
            Injection::Pending(frame) if self.tracker.is_at_boundary() && !self.ended => {
                Some(self.sent(frame))
            }
            _ => None,
        }
    }

    /// What is true once a frame of ours was sent.
    pub(super) fn sent(&mut self, frame: OwnFrame) -> OwnFrame {
        self.injection = match frame {
            OwnFrame::Ping(_) => Injection::None,
            OwnFrame::Close(code, _) => {
                // What goes nowhere need not wait.
                self.resume(u64::MAX);
                Injection::Closed(code)
            }
        };
        frame
    }

    /// Before when nothing more may come, if there is such a moment.
    #[inline]
    pub(super) fn paused_until_ms(&self) -> Option<u64> {
        self.watch.as_ref().and_then(|watch| watch.paused_until_ms)
    }

    /// Ends a pause that is over by now; says whether there was one.
    pub(super) fn resume(&mut self, now_ms: u64) -> bool {
        let pause = self.watch.as_mut().map(|watch| &mut watch.paused_until_ms);
        pause.and_then(|pause| pause.take_if(|until_ms| *until_ms <= now_ms)).is_some()
    }

    /// Nothing more passes, not even the rest of the frame under way.
    pub(super) fn cut(&mut self) {
        if !matches!(self.injection, Injection::Closed(_)) {
            self.injection = Injection::Cut;
        }
    }

    /// Whether its bytes go nowhere any more.
    #[inline]
    pub(super) fn withholds(&self) -> bool {
        matches!(self.injection, Injection::Closed(_) | Injection::Cut | Injection::Said)
    }

    /// How many frames have ended that are no pings or pongs.
    pub(super) fn data_frames(&self) -> u64 {
        self.counts.frames - self.counts.pings - self.counts.pongs
    }

    /// Whether a closing handshake has nothing to wait for in this direction; `back` is the other one.
    pub(super) fn is_done(&self, back: &Self) -> bool {
        let closed = self.withholds();
        let is_broken = self.tracker.broken().is_some();
        if self.ended {
            return true;
        }
        if self.close.is_some() {
            // Of a Close that goes on, all must have passed.
            return closed || is_broken || self.tracker.is_at_boundary();
        }
        if is_broken {
            // Its source is not understood. Where it was told it has its time, though nobody can see it answer.
            return !matches!(back.injection, Injection::Closed(_));
        }
        // Nobody answers a Close that cannot be sent.
        closed && back.takes_nothing() && !back.has_sent_close()
    }

    /// Whether nothing can be put into this direction any more, nor found in it.
    fn is_over(&self) -> bool {
        self.ended || self.tracker.broken().is_some()
    }

    /// Whether its destination hears nothing more.
    fn takes_nothing(&self) -> bool {
        self.is_over() || self.injection == Injection::Cut
    }

    /// Whether its destination has been sent a Close.
    fn has_sent_close(&self) -> bool {
        self.close.is_some() || matches!(self.injection, Injection::Closed(_))
    }

    /// Whether frames of ours may be put into it.
    pub(super) fn takes_frames(&self) -> bool {
        !self.is_over() && self.close.is_none() && !self.withholds() && !self.is_deferred()
    }
}
