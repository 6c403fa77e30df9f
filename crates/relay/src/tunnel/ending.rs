//! How a tunnel ends: by its sides, by time, by an order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use wssgate_records::TlsFault;
use wssgate_ws::conversation::{Cause, End, Farewell, end_of};
use wssgate_ws::{CloseCode, Conversation};

use super::Tunnel;
use crate::drain::{Order, Why};
use crate::flow::FlowState;
use crate::leg::SourceEnd;
use crate::{EndCause, Side};

/// How long ago a peer that still takes bytes has acknowledged some, at most.
const EXCUSING_ACK_MS: u64 = 10_000;

/// A moment at which something is due in a tunnel if nothing moves until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at_ms: u64,
    /// The whole wait, which says how exact the moment must be.
    pub(crate) wait_ms: u64,
}

impl Tunnel {
    /// A drained flow ends its destination's direction.
    pub(super) fn finish(&mut self, source: Side) {
        let to = self.leg(source.other());
        if self.flow_from(source).state == FlowState::Draining && !to.blocked() {
            match self.flow_from(source.other()).state {
                FlowState::Closed => to.end(),
                FlowState::Open | FlowState::Draining => to.shutdown_write(),
            }
            self.flow_from_mut(source).state = FlowState::Closed;
        }
    }

    /// Nothing more of this side passes, as soon as what has come is sent or, `Closed`, at once.
    fn end_flow(&mut self, source: Side, state: FlowState, now_ms: u64) {
        self.flow_from_mut(source).state = state;
        if let Some(conversation) = &mut self.conversation {
            conversation.on_end(source.into(), now_ms);
        }
    }

    /// A direction ends. What it brought is still carried; after that its destination is told the end, and
    /// with TLS whether that was all: a cut stream must not look whole behind us.
    pub(super) fn on_source_end(&mut self, source: Side, end: SourceEnd, now_ms: u64) {
        let orderly = matches!(end, SourceEnd::Orderly);
        let cause = match &end {
            SourceEnd::Orderly | SourceEnd::Truncated => EndCause::Ended(source),
            SourceEnd::Broken(error) => EndCause::Broken(source, errno(error)),
            SourceEnd::Fault(fault) => EndCause::Tls(source, *fault),
        };
        self.set_cause(cause);
        self.active_ms = now_ms;
        self.leg_mut(source).discard_unopened();
        match end {
            SourceEnd::Orderly => {}
            SourceEnd::Truncated => self.flow_from_mut(source).truncated = true,
            // A socket or a record layer is broken both ways: nothing more reaches this side.
            SourceEnd::Broken(_) => self.stop_sending(source, now_ms),
            SourceEnd::Fault(fault) => {
                self.leg_mut(source).send_alert(fault, now_ms);
                self.stop_sending(source, now_ms);
            }
        }
        if self.flow_from(source).state == FlowState::Open {
            self.end_last_words(source, now_ms);
            self.tell_failure(source, now_ms);
            self.end_flow(source, FlowState::Draining, now_ms);
            if orderly || self.has_told_close(source) {
                self.send_close_notify(source.other(), now_ms);
            }
        }
        // RFC 5246 §7.2.1: it is answered at once, and what is not on its way yet is for nobody.
        if orderly
            && self.leg(source).ends_as_a_whole()
            && self.flow_from(source.other()).state == FlowState::Open
        {
            self.end_flow(source.other(), FlowState::Draining, now_ms);
            self.send_close_notify(source, now_ms);
        }
    }

    fn send_close_notify(&mut self, to: Side, now_ms: u64) {
        if let Err(error) = self.leg_mut(to).send_close_notify(now_ms) {
            self.on_unwritable(to, &error, now_ms);
        }
    }

    /// Whether the other side has got the Close of this one, or ours: nothing that follows can be missing.
    fn has_told_close(&self, from: Side) -> bool {
        self.conversation.as_ref().is_some_and(|conversation| {
            conversation.close_code(from.into()).is_some()
                || conversation.own_close(from.other().into()).is_some()
        })
    }

    /// This side says nothing more: whoever is told of our closing only then is told now.
    fn end_last_words(&mut self, source: Side, now_ms: u64) {
        if let Some(conversation) = &mut self.conversation {
            conversation.end_last_words(source.into());
            self.obey_conversation(now_ms);
        }
    }

    /// Sends the client the Close that its operator wants it to have when its upstream is lost: when that
    /// ended without one. Whoever ends behind the client's own end is not lost.
    fn tell_failure(&mut self, lost: Side, now_ms: u64) {
        if lost == Side::Client || self.cause == Some(EndCause::Ended(Side::Client)) {
            return;
        }
        let frame = self.conversation.as_mut().and_then(|conversation| {
            let closed = conversation.close_code(lost.into()).is_some();
            (!closed).then(|| conversation.failure(wssgate_ws::Side::Client, now_ms)).flatten()
        });
        if let Some(frame) = frame {
            self.send_frame(Side::Client, frame, now_ms);
        }
    }

    /// The first cause is the one that counts, unless it was an end in good order that came to nothing.
    /// A side that ends and then breaks has only closed its socket at once.
    pub(super) fn set_cause(&mut self, cause: EndCause) {
        let replace = match (self.cause, cause) {
            (None, _) => true,
            (Some(EndCause::Ended(ended)), EndCause::Broken(broken, _)) => ended != broken,
            (Some(EndCause::Ended(_)), EndCause::Ended(_)) => false,
            (Some(EndCause::Ended(_)), _) => true,
            (Some(_), _) => false,
        };
        if replace {
            self.cause = Some(cause);
        }
    }

    /// The keys towards this side are exhausted: it is told the end, and so ends the other direction.
    pub(super) fn on_exhausted_keys(&mut self, side: Side, fault: TlsFault, now_ms: u64) {
        self.set_cause(EndCause::Tls(side, fault));
        self.end_flow(side.other(), FlowState::Draining, now_ms);
        self.send_close_notify(side, now_ms);
    }

    fn stop_sending(&mut self, side: Side, now_ms: u64) {
        let lost = self.leg_mut(side).discard_unsent() as u64;
        let flow = self.flow_from_mut(side.other());
        flow.passed = flow.passed.saturating_sub(lost);
        self.end_flow(side.other(), FlowState::Closed, now_ms);
    }

    /// Nothing more reaches this side; what it sent before may still be there to read.
    pub(super) fn on_unwritable(&mut self, side: Side, error: &io::Error, now_ms: u64) {
        self.set_cause(EndCause::Broken(side, errno(error)));
        self.active_ms = now_ms;
        self.stop_sending(side, now_ms);
    }

    /// Nothing has ended and nobody is blocked, so that only silence can end it, and every byte puts its
    /// deadline off; but for those of its conversation.
    pub(crate) fn is_quiescent(&self) -> bool {
        self.up.state == FlowState::Open
            && self.down.state == FlowState::Open
            && !self.client.blocked()
            && !self.upstream.blocked()
    }

    /// Whether we have begun to end it, and its sides have their time to answer.
    pub(crate) fn is_closing(&self) -> bool {
        self.conversation.as_ref().is_some_and(Conversation::is_closing)
    }

    /// Since when it waits for its turn in a drain of this order; `None` if it is closing, or cannot be closed in
    /// good order and need not be closed.
    pub(crate) fn drainable_since_ms(&self, order: Order, why: Why) -> Option<u64> {
        let data_ms = match &self.conversation {
            Some(conversation) if conversation.is_closing() => return None,
            Some(conversation) => conversation.data_ms(),
            None if why == Why::Ordered => return None,
            None => None,
        };
        Some(match order {
            Order::Oldest => self.began_ms,
            Order::Idlest => data_ms.unwrap_or(self.active_ms),
        })
    }

    fn conversation_deadline_ms(&self) -> Option<u64> {
        self.conversation.as_ref().and_then(Conversation::deadline_ms)
    }

    /// When [`Self::on_time`] has something to do if nothing moves.
    pub(crate) fn next_deadline(&self) -> Option<Deadline> {
        // How long the wait is, only the conversation knows; so it is told as exactly as can be.
        let conversation =
            self.conversation_deadline_ms().map(|at_ms| Deadline { at_ms, wait_ms: 0 });
        let timer = self.next_timer().map(|(due, _)| due);
        let telling = self.rare.as_ref().and_then(|rare| rare.telling.as_ref());
        // As exactly too, so that it puts nothing else off.
        let telling = telling.map(|it| Deadline { at_ms: it.due_ms, wait_ms: 0 });
        [conversation, timer, telling].into_iter().flatten().min_by_key(|due| due.at_ms)
    }

    /// Does what is due by now. What the conversation does about the time need not be its end.
    pub(crate) fn on_time(&mut self, now_ms: u64) {
        let sides = [Side::Client, Side::Upstream];
        let excused = sides.map(|side| (side, self.is_excused(side, now_ms)));
        if self.is_paused() {
            // Once it is read again, its silence begins.
            self.active_ms = now_ms;
        }
        if let Some(conversation) = &mut self.conversation {
            for (side, excused) in excused {
                if excused {
                    conversation.on_excused(side.into(), now_ms);
                }
            }
            conversation.on_time(now_ms);
            // Or its entry would be made for now again and again.
            debug_assert!(conversation.deadline_ms().is_none_or(|at_ms| at_ms > now_ms));
            self.obey_conversation(now_ms);
            self.end_if_told(now_ms);
        }
        match self.next_timer() {
            Some((due, cause)) if due.at_ms <= now_ms && !self.is_over() => match cause {
                EndCause::Closed(cause) => self.close_conversation(cause, now_ms),
                cause => self.close(cause, now_ms),
            },
            _ => {}
        }
    }

    /// Whether the silence of this side means nothing: it is not read, and may have said much that waits, a
    /// pong among it; or it is still taking what was sent to it before our ping. One that is there no more has
    /// acknowledged nothing since the ping.
    fn is_excused(&self, side: Side, now_ms: u64) -> bool {
        let late_ms = self.conversation.as_ref().and_then(|it| it.late_ms(side.into(), now_ms));
        let takes_bytes = |late_ms: u64| {
            self.leg(side).is_being_read(Duration::from_millis(late_ms.min(EXCUSING_ACK_MS)))
        };
        !self.reads(side) || late_ms.is_some_and(takes_bytes)
    }

    /// When this tunnel must end if nothing moves, and why.
    fn next_timer(&self) -> Option<(Deadline, EndCause)> {
        let half_closed = self.up.state != FlowState::Open || self.down.state != FlowState::Open;
        let waits = [
            // While the client takes nothing, the upstream is not read, so its silence says nothing; nor does
            // that of a side which has sent too much for this moment.
            (!self.client.blocked() && !self.is_paused()).then(|| {
                let (wait_ms, missed) = match half_closed {
                    true => (self.timers.half_close, EndCause::HalfCloseTimeout),
                    false => (self.timers.read, EndCause::ReadTimeout),
                };
                // Where everything was said, no answer is missing.
                let all_said = !self.upstream.blocked() && self.is_closed_by_frames();
                let cause = if all_said { self.ended_by() } else { missed };
                (Deadline { at_ms: end_of(self.active_ms, wait_ms), wait_ms }, cause)
            }),
            self.send_timer(Side::Client, self.timers.client_send),
            self.send_timer(Side::Upstream, self.timers.upstream_send),
            self.slow_reader_timer(Side::Client),
            self.slow_reader_timer(Side::Upstream),
        ];
        waits.into_iter().flatten().min_by_key(|(due, _)| due.at_ms)
    }

    fn is_paused(&self) -> bool {
        [Side::Client, Side::Upstream].into_iter().any(|side| self.pauses(side))
    }

    fn is_closed_by_frames(&self) -> bool {
        self.conversation.as_ref().is_some_and(Conversation::is_closed)
    }

    /// The orderly end of a tunnel of which one side has ended, or none of those that have closed it.
    fn ended_by(&self) -> EndCause {
        EndCause::Ended(match (self.up.state, self.down.state) {
            (FlowState::Open, FlowState::Open) => {
                let first = self.conversation.as_ref().and_then(Conversation::first_close);
                first.map_or(Side::Upstream, Side::from)
            }
            (FlowState::Open, _) => Side::Upstream,
            _ => Side::Client,
        })
    }

    fn send_timer(&self, side: Side, wait_ms: u64) -> Option<(Deadline, EndCause)> {
        let leg = self.leg(side);
        let due = Deadline { at_ms: end_of(leg.progress_ms(), wait_ms), wait_ms };
        leg.blocked().then_some((due, EndCause::SendTimeout(side)))
    }

    /// When this side has to have taken what waits for it, if its conversation wants that.
    fn slow_reader_timer(&self, side: Side) -> Option<(Deadline, EndCause)> {
        let conversation = self.conversation.as_ref().filter(|it| !it.is_closing())?;
        let wait_ms = (*conversation.policy().slow_reader_ms.get(side.into()))?;
        let at_ms = end_of(self.leg(side).blocked_since_ms()?, wait_ms);
        Some((Deadline { at_ms, wait_ms }, EndCause::Closed(Cause::SlowReader(side.into()))))
    }

    /// Ends it for a drain or by an operator: a WebSocket once its sides have answered our Close, or had their
    /// time; anything else now.
    pub(crate) fn end_in_order(&mut self, cause: Cause, now_ms: u64) {
        if self.conversation.is_none() {
            return self.close(cause.into(), now_ms);
        }
        self.close_conversation(cause, now_ms);
        self.end_if_told(now_ms);
    }

    /// The same; a WebSocket with these words for its client.
    pub(crate) fn end_with_words(
        &mut self,
        cause: Cause,
        words: Option<&Arc<Farewell>>,
        now_ms: u64,
    ) {
        if let (Some(conversation), Some(words)) = (&mut self.conversation, words) {
            conversation.close_in_words(Arc::clone(words), cause, now_ms);
        }
        self.end_in_order(cause, now_ms);
    }

    /// Tells both sides of a WebSocket why we end it (RFC 6455 §7.4.1), now where no frame is under way. The
    /// conversation tells the others when their frame has ended.
    fn close_conversation(&mut self, cause: Cause, now_ms: u64) {
        self.set_cause(cause.into());
        if let Some(conversation) = &mut self.conversation {
            conversation.close(cause, now_ms);
            self.obey_conversation(now_ms);
        }
    }

    /// Ends it if its conversation is over; but what is unsent still goes, unless that was waited for already.
    #[inline]
    pub(super) fn end_if_told(&mut self, now_ms: u64) {
        let Some(end) = self.conversation.as_ref().and_then(Conversation::poll_end) else { return };
        let unsent = self.client.blocked() || self.upstream.blocked();
        let (cause, waits) = match end {
            End::Answered(cause) => (cause.into(), unsent),
            End::Unanswered(cause) => (cause.into(), false),
            End::Ended(side) => (EndCause::Ended(side.into()), unsent),
            End::Lost(side) => (EndCause::Lost(side.into()), false),
        };
        if !waits && !self.is_over() {
            self.close(cause, now_ms);
        }
    }

    /// Ends it now for a reason that is not its peers'. They are told as far as they take it.
    pub(crate) fn close(&mut self, cause: EndCause, now_ms: u64) {
        self.set_cause(cause);
        match cause {
            EndCause::Stopped => {
                self.close_conversation(Cause::Drain(CloseCode::GOING_AWAY), now_ms);
            }
            EndCause::Unhealthy => self.close_conversation(Cause::Unhealthy, now_ms),
            EndCause::ReadTimeout | EndCause::SendTimeout(_) | EndCause::Lost(_) => {
                self.tell_failure(Side::Upstream, now_ms);
            }
            _ => {}
        }
        for source in [Side::Client, Side::Upstream] {
            if self.flow_from(source).state == FlowState::Open {
                self.end_last_words(source, now_ms);
                self.leg_mut(source.other()).send_close_notify(now_ms).ok();
            }
            self.flow_from_mut(source).state = FlowState::Closed;
        }
        self.client.end();
        self.upstream.end();
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
