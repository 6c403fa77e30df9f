//! What a relay thread does, step by step: note who is ready, read commands, give turns, end who is due.
//!
//! It is given the time, as what has passed since its thread began, and reads no clock.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SendError, TryRecvError};
use std::time::Duration;

use slab::Slab;
use wssgate_sys::batch::Batch;
use wssgate_sys::epoll::{Epoll, Events};
use wssgate_ws::CloseCode;
#[cfg(test)]
use wssgate_ws::Conversation;
use wssgate_ws::conversation::{Cause, Farewell, Notes};

use crate::buffers::Buffers;
use crate::deadlines::{self, Deadlines, millis};
use crate::drain::{Drain, DrainProgress, Drains, Due, Late, Whom};
use crate::lingering::Lingering;
use crate::listing::{Handle, PAGE, Page};
use crate::moving::{FrozenPage, MAX_ANNOUNCED, MAX_FROZEN, Resume, States};
use crate::reclaim;
use crate::tap::Tap;
use crate::thread::{Command, Shared};
use crate::tunnel::{Transfer, Tunnel};
use crate::{EndCause, Handover, Report, Selection, Settings, Side};

/// The token of the eventfd by which other threads wake this one; no leg has it.
const WAKEUP: u64 = u64::MAX;

/// The tokens of sockets that are only read to their end: their keys with this bit.
const LINGERS: u64 = 1 << 63;

/// How many events one wait may bring: what it looks at should still be in the processor's cache when
/// it is read.
const EVENTS: usize = 64;

/// How many tunnels may take the steps of their turns together.
const GROUP: usize = 32;

/// How long a tunnel keeps expanded TLS keys after its last bytes. Expanding them anew costs 0.1 µs, keeping
/// them 600 bytes each.
const KEYS_IDLE_MS: u64 = 2_000;

/// How long ends wait to be reported together after others were. Waking the listener for each costs more
/// than the rest of an end: with 2 ms, clients that come, say something and go cost 3 % more.
const REPORT_PAUSE_MS: u64 = 10;

/// Hears what is told of tunnels, with their tickets.
pub(crate) type OnReport = Box<dyn FnMut(u64, Report) + Send>;

/// Hears why io_uring is not used though it was asked for.
pub(crate) type OnRefusal = Box<dyn FnMut(&io::Error) + Send>;

/// A turn that has started.
struct Turn {
    key: usize,
    /// How long bytes had waited for the sides of its tunnel before.
    blocked_ms: [u64; 2],
    transfer: Transfer,
}

/// The state of a relay thread.
pub(crate) struct Engine {
    settings: Settings,
    epoll: Epoll,
    events: Events,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    on_report: OnReport,
    on_refusal: OnRefusal,
    /// What was not reported yet. Bounded by the tunnels of [`REPORT_PAUSE_MS`].
    reports: Vec<(u64, Report)>,
    /// When the next ends may be reported.
    report_at_ms: u64,
    tunnels: Slab<Tunnel>,
    /// The ticket and the key of the tunnel that was taken over last: what is ordered of a single one comes right behind
    /// it.
    last: (u64, usize),
    /// Removed from it, for [`reclaim::shrink`].
    removed: usize,
    /// Keys of tunnels that want a turn, each at most once, in the order in which it begins.
    ready: VecDeque<usize>,
    deadlines: Deadlines,
    drains: Drains,
    /// Keys of tunnels that hold expanded TLS keys. Bounded by the tunnels of [`KEYS_IDLE_MS`].
    expanded: Vec<usize>,
    /// When to look at them again.
    compact_at_ms: Option<u64>,
    /// Sockets of tunnels that are over.
    lingering: Lingering,
    buffers: Buffers,
    /// Makes the socket calls of a group.
    batch: Batch,
    /// Turns that are under way together. Empty between two steps.
    group: Vec<Turn>,
    /// Which of them send.
    sending: Vec<usize>,
    /// Those whose turn comes behind the group: their keys, and how long bytes had waited. Empty like it.
    alone: Vec<(usize, [u64; 2])>,
    /// How many tunnels were taken out and have not come back or moved.
    frozen: usize,
    stopping: bool,
    /// Which tunnels had their turns, and whether in a group.
    #[cfg(test)]
    turns: Vec<(usize, bool)>,
}

impl Engine {
    pub(crate) fn new(
        settings: Settings,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
        on_report: OnReport,
        on_refusal: OnRefusal,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add_level_readable(shared.wakeup.as_fd(), WAKEUP)?;
        let mut engine = Self {
            settings,
            epoll,
            events: Events::with_capacity(EVENTS),
            commands,
            shared,
            on_report,
            on_refusal,
            reports: Vec::new(),
            report_at_ms: 0,
            tunnels: Slab::new(),
            last: (0, usize::MAX),
            removed: 0,
            ready: VecDeque::new(),
            deadlines: Deadlines::default(),
            drains: Drains::default(),
            expanded: Vec::new(),
            compact_at_ms: None,
            lingering: Lingering::default(),
            buffers: Buffers::new(),
            batch: Batch::one_by_one(),
            group: Vec::with_capacity(GROUP),
            sending: Vec::with_capacity(GROUP),
            alone: Vec::new(),
            frozen: 0,
            stopping: false,
            #[cfg(test)]
            turns: Vec::new(),
        };
        engine.use_io_uring(settings.io_uring);
        Ok(engine)
    }

    /// Makes the socket calls of a group together from now on, or one by one.
    fn use_io_uring(&mut self, on: bool) {
        if on == self.batch.is_joint() {
            return;
        }
        self.batch = match on.then(joint_calls) {
            None => Batch::one_by_one(),
            Some(Ok(batch)) => batch,
            Some(Err(error)) => {
                (self.on_refusal)(&error);
                Batch::one_by_one()
            }
        };
    }

    /// Whether it was told to stop, or all handles are gone, and no tunnel has time left to end in. Those that were taken
    /// out come back, or are said to have moved, soon.
    pub(crate) fn is_finished(&self) -> bool {
        self.stopping && self.tunnels.is_empty() && self.frozen == 0
    }

    /// Ends what came behind the word to stop, and reports the last ends.
    pub(crate) fn stop(&mut self, now: Duration) {
        let now_ms = millis(now);
        self.read_commands(now_ms);
        self.close(Selection::All, EndCause::Stopped, now_ms);
        self.report();
    }

    /// Waits for something to do, at most `limit`.
    pub(crate) fn wait(&mut self, now: Duration, limit: Option<Duration>) -> io::Result<()> {
        let wait = self.next_wait(now, limit);
        self.epoll.wait(&mut self.events, wait)
    }

    /// Does what there is to do after a wait.
    pub(crate) fn step(&mut self, now: Duration) {
        let now_ms = millis(now);
        if self.on_events() {
            self.read_commands(now_ms);
        }
        if self.stopping {
            let open = self.tunnels.iter().filter(|(_, tunnel)| !tunnel.is_closing());
            let open = open.map(|(key, _)| key).collect();
            self.end_selected(now_ms, EndCause::Stopped, open);
        }
        self.give_turns(now_ms);
        self.drain_due(now_ms);
        self.fire_deadlines(now_ms);
        self.lingering.on_time(now_ms);
        self.compact(now_ms);
        if !self.reports.is_empty() && self.report_at_ms <= now_ms {
            self.report_at_ms = now_ms + REPORT_PAUSE_MS;
            self.report();
        }
    }

    fn next_wait(&self, now: Duration, limit: Option<Duration>) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let report = (!self.reports.is_empty()).then_some(self.report_at_ms);
        let lingering = self.lingering.next_ms();
        let drains = self.drains.next_ms();
        let waits = [self.deadlines.next(), drains, report, self.compact_at_ms, lingering];
        let next = waits.into_iter().flatten().min();
        let next = next.map(|at_ms| Duration::from_millis(at_ms).saturating_sub(now));
        match (next, limit) {
            (Some(next), Some(limit)) => Some(next.min(limit)),
            (next, limit) => next.or(limit),
        }
    }

    /// Remembers readiness in the tunnels; says whether other threads have woken us.
    fn on_events(&mut self) -> bool {
        let mut woken = false;
        for event in self.events.iter() {
            if event.token == WAKEUP {
                woken = true;
                continue;
            }
            if event.token & LINGERS != 0 {
                let key = usize::try_from(event.token & !LINGERS).ok();
                key.into_iter().for_each(|key| self.lingering.on_event(key));
                continue;
            }
            let side = if event.token & 1 == 0 { Side::Client } else { Side::Upstream };
            let key = (event.token as u32 >> 1) as usize;
            let Some(tunnel) = self.tunnels.get_mut(key) else { continue };
            if token(key, tunnel.ticket, side) != event.token {
                // The one that had this place before is on its way to another process.
                continue;
            }
            tunnel.on_event(side, event);
            if !tunnel.queued {
                tunnel.queued = true;
                self.ready.push_back(key);
            }
        }
        woken
    }

    fn read_commands(&mut self, now_ms: u64) {
        self.shared.wakeup.clear();
        loop {
            match self.commands.try_recv() {
                Ok(Command::HandOver(handover)) => self.take_over(*handover, now_ms),
                Ok(Command::Close(selection, cause)) => self.close(selection, cause, now_ms),
                Ok(Command::Drain(drain)) => self.drain(&drain, now_ms),
                Ok(Command::CancelDrain(progress)) => self.cancel_drain(&progress, now_ms),
                Ok(Command::IoUring(on)) => self.use_io_uring(on),
                // Who asked may be gone; then nobody wants to know.
                Ok(Command::Page { from, answer }) => {
                    answer.send(self.page(from, now_ms)).ok();
                }
                Ok(Command::End { tunnels, cause, words, answer }) => {
                    answer.send(self.end_each(&tunnels, cause, words.as_ref(), now_ms)).ok();
                }
                Ok(Command::Tap { tunnels, tap, answer }) => {
                    answer.send(self.tap(tunnels, &tap)).ok();
                }
                Ok(Command::Untap { tunnels, number }) => self.untap(&tunnels, number),
                Ok(Command::Announce { from, answer }) => {
                    answer.send(self.announce(from, now_ms)).ok();
                }
                Ok(Command::Freeze { from, afresh, answer }) => {
                    if let Err(SendError(page)) = answer.send(self.freeze(from, afresh, now_ms)) {
                        self.give_back(page.tunnels, now_ms);
                    }
                }
                Ok(Command::LetGo { moved, unknown }) => {
                    self.let_go(moved, unknown, now_ms);
                    // There may be many of these, and those that stay have turns in between.
                    self.shared.wakeup.ring();
                    return;
                }
                Ok(Command::GiveBack(tunnels)) => self.give_back(tunnels, now_ms),
                Ok(Command::Resume { tunnels, answer }) => {
                    self.resume(tunnels, now_ms);
                    answer.send(()).ok();
                }
                Ok(Command::Stop) => self.stopping = true,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    fn take_over(&mut self, handover: Handover, now_ms: u64) {
        let key = self.tunnels.vacant_key();
        let limit = self.settings.tls_record_limit;
        let counters = Arc::clone(&self.shared.counters);
        let tunnel = Tunnel::new(handover, counters, &mut self.buffers, limit, now_ms);
        self.last = (tunnel.ticket, key);
        self.shared.counters.tunnels.increment();
        self.carry(tunnel, false, now_ms);
    }

    /// Watches the sockets of a tunnel, and gives it a turn. What has come to them before is told too.
    fn carry(&mut self, mut tunnel: Tunnel, is_watched: bool, now_ms: u64) {
        let entry = self.tunnels.vacant_entry();
        let key = entry.key();
        for side in [Side::Client, Side::Upstream] {
            let (leg, token) = (tunnel.leg(side), token(key, tunnel.ticket, side));
            // All calls say themselves that they do not wait, so the socket need not be told.
            let watched = match is_watched {
                true => self.epoll.set_room(leg.fd(), token, false),
                false => self.epoll.add(leg.fd(), token, false),
            };
            if let Err(error) = watched {
                tunnel.close(EndCause::Refused(error.raw_os_error().unwrap_or(0)), now_ms);
            }
        }
        tunnel.queued = true;
        entry.insert(tunnel);
        self.ready.push_back(key);
    }

    /// How those are at some places that can move, which go on.
    fn announce(&mut self, from: usize, now_ms: u64) -> States {
        let (places, next) = self.places(from, MAX_ANNOUNCED);
        let state = |key| {
            let tunnel = self.tunnels.get_mut(key)?;
            let (number, state) = tunnel.announce(now_ms)?;
            Some((tunnel.ticket, number, state))
        };
        let tunnels = places.filter_map(state).collect();
        States { tunnels, next, at_ms: now_ms }
    }

    /// Takes those out that can move of some places: nobody reads their sockets any more. They are still watched: to end
    /// that takes as long as all the rest, and can wait until nobody stands still.
    fn freeze(&mut self, from: usize, afresh: bool, now_ms: u64) -> FrozenPage {
        let (places, next) = self.places(from, MAX_FROZEN);
        let mut page = FrozenPage {
            tunnels: Vec::with_capacity(self.tunnels.len().min(MAX_FROZEN)),
            stays: 0,
            next,
            at_ms: now_ms,
        };
        for key in places {
            let Some(tunnel) = self.tunnels.get_mut(key) else { continue };
            tunnel.stays &= !afresh;
            if !tunnel.may_move() {
                page.stays += 1;
                continue;
            }
            let tunnel = self.tunnels.remove(key);
            self.deadlines.disarm(key, tunnel.armed_ms);
            page.tunnels.push(tunnel);
        }
        self.ready.retain(|&key| self.tunnels.contains(key));
        self.frozen += page.tunnels.len();
        page
    }

    /// Some that were taken out are another process's now, and others perhaps.
    fn let_go(&mut self, moved: Vec<Tunnel>, unknown: Vec<Tunnel>, now_ms: u64) {
        self.frozen -= moved.len() + unknown.len();
        let moved = moved.into_iter().map(|tunnel| (tunnel, true));
        for (mut tunnel, is_moved) in moved.chain(unknown.into_iter().map(|it| (it, false))) {
            for side in [Side::Client, Side::Upstream] {
                // Passed sockets stay in the epoll that knows them, and are told of until it forgets them.
                let _ = self.epoll.delete(tunnel.leg(side).fd());
            }
            tunnel.end_taps(now_ms);
            let report = match is_moved {
                true => Report::Moved,
                false => Report::End(Box::new(tunnel.end(now_ms))),
            };
            self.reports.push((tunnel.ticket, report));
            reclaim::shrink(&mut self.tunnels, &mut self.removed);
        }
    }

    /// Goes on with some that were taken out.
    fn give_back(&mut self, tunnels: Vec<Tunnel>, now_ms: u64) {
        self.frozen -= tunnels.len();
        for mut tunnel in tunnels {
            tunnel.forget_place();
            self.carry(tunnel, true, now_ms);
        }
    }

    /// Goes on with some that have come from another process.
    fn resume(&mut self, tunnels: Vec<Resume>, now_ms: u64) {
        for Resume(tunnel) in tunnels {
            self.shared.counters.tunnels.increment();
            self.carry(tunnel, false, now_ms);
        }
    }

    /// The keys of those that are meant.
    fn selected(&self, selection: Selection) -> Vec<usize> {
        let means = |tunnel: &Tunnel| selection.means(tunnel.ticket, tunnel.origin);
        let (ticket, key) = self.last;
        if selection == Selection::Ticket(ticket) && self.tunnels.get(key).is_some_and(means) {
            return vec![key];
        }
        let all = self.tunnels.iter().filter(|(_, tunnel)| means(tunnel));
        all.map(|(key, _)| key).collect()
    }

    /// Gives each tunnel that is ready now its turn, in groups that go through its steps together. Those
    /// that are not of the kind follow each group.
    fn give_turns(&mut self, now_ms: u64) {
        let mut left = self.ready.len();
        let mark = self.buffers.mark();
        while left > 0 {
            while left > 0 && self.group.len() < GROUP && self.buffers.have_room() {
                left -= 1;
                let Some(key) = self.ready.pop_front() else { break };
                self.begin_turn(key);
            }
            self.read_group();
            self.convert_group(now_ms);
            self.send_group();
            let mut group = std::mem::take(&mut self.group);
            for Turn { key, blocked_ms, transfer } in group.drain(..) {
                self.finish_turn(key, blocked_ms, Some(transfer), now_ms);
            }
            self.group = group;
            self.buffers.release(mark);
            let mut alone = std::mem::take(&mut self.alone);
            for (key, blocked_ms) in alone.drain(..) {
                self.finish_turn(key, blocked_ms, None, now_ms);
            }
            self.alone = alone;
        }
        if let Some(error) = self.batch.take_failure() {
            (self.on_refusal)(&error);
        }
    }

    /// Puts a tunnel into the group if its turn begins with a transfer.
    fn begin_turn(&mut self, key: usize) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.queued = false;
        let blocked_ms = tunnel.past_blocked_ms();
        match tunnel.begin_turn(&mut self.buffers) {
            Some(transfer) => self.group.push(Turn { key, blocked_ms, transfer }),
            None => self.alone.push((key, blocked_ms)),
        }
    }

    fn read_group(&mut self) {
        let Self { group, tunnels, buffers, batch, .. } = self;
        let sockets = group.iter().map(|turn| tunnels[turn.key].leg(turn.transfer.source()).fd());
        let slots = buffers.input.each_mut(group.iter().map(|turn| turn.transfer.slot()));
        let outcomes = batch.recv(sockets.zip(slots));
        for (turn, outcome) in group.iter_mut().zip(outcomes) {
            tunnels[turn.key].on_read(&mut turn.transfer, outcome.received());
        }
    }

    fn convert_group(&mut self, now_ms: u64) {
        for turn in &mut self.group {
            self.tunnels[turn.key].convert(&mut turn.transfer, &mut self.buffers, now_ms);
        }
    }

    fn send_group(&mut self) {
        let Self { group, tunnels, buffers, batch, sending, .. } = self;
        sending.clear();
        let calls = (0..).zip(&*group).filter_map(|(number, turn)| {
            let socket = tunnels[turn.key].destination(&turn.transfer)?;
            sending.push(number);
            Some((socket, buffers.bytes(turn.transfer.sealed())))
        });
        let outcomes = batch.send(calls);
        for (&number, outcome) in sending.iter().zip(outcomes) {
            group[number].transfer.sent = Some(outcome.sent());
        }
    }

    fn finish_turn(
        &mut self,
        key: usize,
        blocked_ms: [u64; 2],
        started: Option<Transfer>,
        now_ms: u64,
    ) {
        #[cfg(test)]
        self.turns.push((key, started.is_some()));
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.turn(started, &mut self.buffers, self.settings.turn_bytes, now_ms);
        let (counters, [client, upstream]) = (&self.shared.counters, tunnel.past_blocked_ms());
        counters.client.blocked_ms.add(client - blocked_ms[0]);
        counters.upstream.blocked_ms.add(upstream - blocked_ms[1]);
        self.settle(key, now_ms);
    }

    /// What follows when a tunnel was touched: it is removed, or waits for what comes.
    fn settle(&mut self, key: usize, now_ms: u64) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.touch();
        if tunnel.is_over() {
            return self.remove(key, now_ms);
        }
        if let Some(mut notes) = tunnel.take_notes() {
            let answered = std::mem::take(&mut notes.answered);
            for side in [Side::Client, Side::Upstream] {
                if *answered.get(side.into())
                    && let Some(rtt) = tunnel.rtt(side)
                {
                    self.shared.counters.side(side).rtt.observe(rtt);
                }
            }
            if notes != Notes::default() {
                self.reports.push((tunnel.ticket, Report::Note(notes)));
            }
        }
        let ticket = tunnel.ticket;
        for side in [Side::Client, Side::Upstream] {
            let leg = tunnel.leg_mut(side);
            if let Some(room) = leg.take_interest_change() {
                // It fails only for a socket that is not watched; those tunnels are over.
                let (fd, token) = (leg.fd(), token(key, ticket, side));
                self.epoll.set_room(fd, token, room).ok();
            }
        }
        if tunnel.wants_turn() && !tunnel.queued {
            tunnel.queued = true;
            self.ready.push_back(key);
        }
        if !tunnel.expanded && tunnel.has_expanded_keys() {
            tunnel.expanded = true;
            self.expanded.push(key);
            self.compact_at_ms.get_or_insert(now_ms + KEYS_IDLE_MS);
        }
        self.arm(key);
    }

    /// Drops the expanded keys of idle tunnels.
    fn compact(&mut self, now_ms: u64) {
        if self.compact_at_ms.is_none_or(|at| at > now_ms) {
            return;
        }
        let Self { tunnels, expanded, .. } = self;
        // A key stands here twice if its tunnel ended and another took its place.
        expanded.sort_unstable();
        expanded.dedup();
        expanded.retain(|&key| {
            let Some(tunnel) = tunnels.get_mut(key) else { return false };
            tunnel.expanded =
                tunnel.expanded && !tunnel.compact_if_idle(now_ms.saturating_sub(KEYS_IDLE_MS));
            tunnel.expanded
        });
        self.compact_at_ms = (!self.expanded.is_empty()).then_some(now_ms + KEYS_IDLE_MS);
    }

    /// Moves the entry of a tunnel among the deadlines if it would fire too late.
    fn arm(&mut self, key: usize) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let quiescent = tunnel.is_quiescent();
        let rearm = tunnel.take_rearm();
        if quiescent && tunnel.armed_quiescent && !rearm {
            // Traffic has only moved its end away.
            return;
        }
        tunnel.armed_quiescent = quiescent;
        let Some(due) = tunnel.next_deadline() else { return };
        // Compared as rounded: what is armed for this moment already stays as it is.
        if due.at_ms < tunnel.armed_ms && deadlines::fires(due.at_ms, due.wait_ms) < tunnel.armed_ms
        {
            self.deadlines.disarm(key, tunnel.armed_ms);
            tunnel.armed_ms = self.deadlines.arm(key, due.at_ms, due.wait_ms);
        }
    }

    fn fire_deadlines(&mut self, now_ms: u64) {
        while let Some(key) = self.deadlines.pop(now_ms) {
            let Some(tunnel) = self.tunnels.get_mut(key) else { continue };
            tunnel.armed_ms = u64::MAX;
            tunnel.armed_quiescent = false;
            if let Some(progress) = tunnel.take_progress(now_ms) {
                self.reports.push((tunnel.ticket, Report::Progress(Box::new(progress))));
            }
            tunnel.on_time(now_ms);
            self.settle(key, now_ms);
        }
    }

    fn close(&mut self, selection: Selection, cause: EndCause, now_ms: u64) {
        self.end_selected(now_ms, cause, self.selected(selection));
    }

    /// Begins a drain: says who is told to close when.
    fn drain(&mut self, drain: &Drain, now_ms: u64) {
        let keys = match &drain.whom {
            Whom::Selected(selection) => self.selected(*selection),
            Whom::These(handles) => {
                let is_there = |handle: &&Handle| {
                    let tunnel = self.tunnels.get(handle.key());
                    tunnel.is_some_and(|tunnel| handle.names(tunnel.label()))
                };
                handles.iter().filter(is_there).map(Handle::key).collect()
            }
        };
        let mut selected = Vec::with_capacity(keys.len());
        for key in keys {
            let tunnel = &mut self.tunnels[key];
            let Some(pace) = drain.paces.of(tunnel.origin.location) else { continue };
            let Some(since_ms) = tunnel.drainable_since_ms(pace.order, drain.why) else { continue };
            if self.drains.has(&tunnel.drains, &drain.progress) {
                continue;
            }
            selected.push((pace, since_ms, key));
        }
        for due in self.drains.begin(drain, selected.into_iter(), now_ms) {
            self.drains.join(due, &mut self.tunnels[due.1].drains);
        }
        self.purge_drains();
    }

    /// Lets those of a drain stay who were not told, unless they belong to another one.
    fn cancel_drain(&mut self, progress: &Arc<DrainProgress>, now_ms: u64) {
        let mut late = Late::default();
        for (key, tunnel) in &mut self.tunnels {
            if tunnel.is_closing() {
                continue;
            }
            let mut memberships = std::mem::take(&mut tunnel.drains);
            let since_ms = |order, why| tunnel.drainable_since_ms(order, why);
            self.drains.spare(key, &mut memberships, progress, now_ms, since_ms, &mut late);
            tunnel.drains = memberships;
        }
        for due in self.drains.spread(late, now_ms) {
            self.drains.defer(due, &mut self.tunnels[due.1].drains);
        }
        self.purge_drains();
    }

    #[cfg(test)]
    pub(crate) fn drain_moments(&self) -> usize {
        self.drains.moments()
    }

    fn purge_drains(&mut self) {
        let is_due = |due: &Due| self.tunnels.get(due.1).is_some_and(|it| it.drains.is_due(*due));
        self.drains.purge(is_due);
    }

    /// Tells those to close whose time in a drain has come.
    fn drain_due(&mut self, now_ms: u64) {
        while let Some(due) = self.drains.pop(now_ms) {
            let key = due.1;
            // Another one may have taken the place of one that has ended.
            let Some(tunnel) = self.tunnels.get_mut(key).filter(|it| it.drains.is_due(due)) else {
                continue;
            };
            let Some((cause, words)) = self.drains.tell(&tunnel.drains) else { continue };
            tunnel.end_with_words(cause, words.as_ref(), now_ms);
            self.settle(key, now_ms);
        }
    }

    /// Ends some tunnels now, but those that are drained in their time.
    fn end_selected(&mut self, now_ms: u64, cause: EndCause, selected: Vec<usize>) {
        for key in selected {
            let tunnel = &mut self.tunnels[key];
            match cause {
                EndCause::Drained => {
                    let ending = self.drains.ending(&tunnel.drains);
                    let (cause, words) =
                        ending.unwrap_or((Cause::Drain(CloseCode::GOING_AWAY), None));
                    tunnel.end_with_words(cause, words.as_ref(), now_ms);
                }
                EndCause::Killed => tunnel.end_in_order(Cause::Kill, now_ms),
                EndCause::Closed(cause) => tunnel.end_in_order(cause, now_ms),
                _ => tunnel.close(cause, now_ms),
            }
            self.settle(key, now_ms);
        }
    }

    /// So many places from this one on, and the one behind them; `None` behind the last one.
    fn places(&self, from: usize, most: usize) -> (Range<usize>, Option<usize>) {
        let capacity = self.tunnels.capacity();
        let end = capacity.min(from.saturating_add(most));
        (from..end, Some(end).filter(|&end| end < capacity))
    }

    /// What there is at the places from this one on.
    fn page(&self, from: usize, now_ms: u64) -> Page {
        let (places, next) = self.places(from, PAGE);
        let live = places.filter_map(|key| self.tunnels.get(key)?.live(key, now_ms));
        Page { tunnels: live.collect(), next }
    }

    /// Ends those of these tunnels that are still there; says how many we had not begun to close before.
    fn end_each(
        &mut self,
        handles: &[Handle],
        cause: Cause,
        words: Option<&Arc<Farewell>>,
        now_ms: u64,
    ) -> usize {
        let mut ended = 0;
        for handle in handles {
            let Some(tunnel) = self.tunnels.get_mut(handle.key()) else { continue };
            if handle.names(tunnel.label()) && !tunnel.is_closing() {
                tunnel.end_with_words(cause, words, now_ms);
                ended += 1;
                self.settle(handle.key(), now_ms);
            }
        }
        ended
    }

    /// Begins to look at those of these tunnels that are still there.
    fn tap(&mut self, tunnels: Vec<(Handle, usize)>, tap: &Arc<Tap>) -> usize {
        let mut tapped = 0;
        for (handle, max_payload) in tunnels {
            let Some(tunnel) = self.tunnels.get_mut(handle.key()) else { continue };
            if handle.names(tunnel.label()) && tunnel.tap(tap, handle.label(), max_payload) {
                tapped += 1;
            }
        }
        tapped
    }

    fn untap(&mut self, handles: &[Handle], number: u64) {
        for handle in handles {
            let tunnel = self.tunnels.get_mut(handle.key());
            if let Some(tunnel) = tunnel.filter(|tunnel| handle.names(tunnel.label())) {
                tunnel.untap(number);
            }
        }
    }

    fn remove(&mut self, key: usize, now_ms: u64) {
        let mut tunnel = self.tunnels.remove(key);
        tunnel.end_taps(now_ms);
        reclaim::shrink(&mut self.tunnels, &mut self.removed);
        if tunnel.queued {
            self.ready.retain(|&ready| ready != key);
        }
        self.deadlines.disarm(key, tunnel.armed_ms);
        self.drains.end(&tunnel.drains);
        let end = tunnel.end(now_ms);
        for (side, totals) in [(Side::Client, &end.client), (Side::Upstream, &end.upstream)] {
            // A wait that goes on ends here.
            let waits = millis(totals.blocked) - tunnel.leg(side).past_blocked_ms();
            self.shared.counters.side(side).blocked_ms.add(waits);
        }
        let ticket = tunnel.ticket;
        // Closing takes its sockets out of epoll: nobody else holds their descriptors.
        for socket in tunnel.into_lingering() {
            let Self { lingering, epoll, .. } = self;
            lingering.take(socket, now_ms, |socket, key| {
                epoll.set_room(socket, LINGERS | key as u64, false).is_ok()
            });
        }
        self.reports.push((ticket, Report::End(Box::new(end))));
    }

    fn report(&mut self) {
        // A new list, for this one may be as long as there were tunnels.
        for (ticket, report) in std::mem::take(&mut self.reports) {
            if let Report::End(_) | Report::Moved = report {
                self.shared.live.fetch_sub(1, Ordering::Relaxed);
            }
            (self.on_report)(ticket, report);
        }
    }
}

/// What makes the socket calls of a group together, if the kernel lets us.
pub(crate) fn joint_calls() -> io::Result<Batch> {
    Batch::new(GROUP as u32)
}

/// The token of a leg: 31 bits of the ticket, as another tunnel may get the same key while this one is watched; 31 bits of
/// the key; and one for the upstream.
fn token(key: usize, ticket: u64, side: Side) -> u64 {
    let ticket = (ticket << 32) & !LINGERS;
    ticket | (2 * key as u64) | u64::from(side == Side::Upstream)
}

/// What tests look at.
#[cfg(test)]
impl Engine {
    pub(crate) fn is_empty(&self) -> bool {
        self.tunnels.is_empty() && self.ready.is_empty() && self.deadlines.len() == 0
    }

    /// How many tunnels there is memory for.
    pub(crate) fn slots(&self) -> usize {
        self.tunnels.capacity()
    }

    /// How many events the last step brought.
    pub(crate) fn events(&self) -> usize {
        self.events.iter().count()
    }

    /// Whether socket calls are made together.
    pub(crate) fn is_joint(&self) -> bool {
        self.batch.is_joint()
    }

    /// The tunnels that had a turn since the last time, by their keys, and whether they had it in a group.
    pub(crate) fn take_turns(&mut self) -> Vec<(usize, bool)> {
        std::mem::take(&mut self.turns)
    }

    /// How many sockets of tunnels that are over are still read.
    pub(crate) fn lingering(&self) -> usize {
        self.lingering.len()
    }

    pub(crate) fn expanded_keys(&self) -> usize {
        self.expanded.len()
    }

    /// How long it would sleep.
    pub(crate) fn sleep(&self, now: Duration) -> Option<Duration> {
        self.next_wait(now, None)
    }

    /// What is said in the tunnels that are WebSockets.
    pub(crate) fn conversations(&mut self) -> impl Iterator<Item = &mut Conversation> {
        self.tunnels.iter_mut().filter_map(|(_, tunnel)| tunnel.conversation_mut())
    }

    /// Bytes that the kernel holds for the peers of all tunnels together.
    pub(crate) fn unacknowledged(&self) -> usize {
        let legs = self.tunnels.iter().flat_map(|(_, tunnel)| {
            [Side::Client, Side::Upstream].map(|side| tunnel.leg(side).fd())
        });
        legs.filter_map(|fd| wssgate_sys::socket::unacknowledged(fd).ok()).sum()
    }

    /// Bytes kept in all tunnels together.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.tunnels.iter().map(|(_, tunnel)| tunnel.kept_bytes()).sum()
    }
}
