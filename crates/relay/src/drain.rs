//! Ends that are spread over a time, so that those who come back do not all come at once.
//!
//! With the order every tunnel gets the moment at which it is told to close. The time is divided into as many
//! slots as there are tunnels, and each is told at a random moment of its own: so the pace is even from the
//! first second to the last, however many relays drain their share at the same time. Nobody takes the slot of one
//! that has ended by itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use wssgate_ws::CloseCode;
use wssgate_ws::conversation::{Cause, Farewell, end_of};

use crate::Selection;
use crate::chance::Chance;
use crate::deadlines::millis;
use crate::listing::Handle;

/// Who is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Who was handed over first.
    Oldest,
    /// Whose last data frame is the longest ago, at the beginning of the drain; where nobody notes those
    /// ([`wssgate_ws::conversation::Policy::notes_data`]), whose last bytes are.
    Idlest,
}

/// How WebSockets are drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the first Close to the last.
    pub over: Duration,
    /// What clients are told.
    pub code: CloseCode,
    /// Who is told first.
    pub order: Order,
    /// Those who would be told within such a time are told in random order. The pace stays the same.
    pub jitter: Duration,
}

/// The paces of a drain.
#[derive(Debug, Clone)]
pub enum Paces {
    /// The same for all.
    One(Pace),
    /// By the number of the location; those of a location without one stay.
    ByLocation(Arc<[Option<Pace>]>),
}

impl Paces {
    /// That of a location.
    pub fn of(&self, location: u32) -> Option<Pace> {
        match self {
            Self::One(pace) => Some(*pace),
            Self::ByLocation(paces) => *paces.get(usize::try_from(location).ok()?)?,
        }
    }
}

/// Whom a drain means.
#[derive(Debug, Clone)]
pub enum Whom {
    /// All of these.
    Selected(Selection),
    /// Those of these that are still there.
    These(Arc<[Handle]>),
}

/// Why there is a drain: what its members end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody wants it. Only WebSockets are drained, for others cannot be closed in good order.
    Ordered,
    /// Their server has failed its health checks. Tunnels of other protocols are closed, too.
    Unhealthy,
}

/// An order to drain.
#[derive(Debug, Clone)]
pub struct Drain {
    /// Whom, as far as they are not closing.
    pub whom: Whom,
    /// What it is for.
    pub why: Why,
    /// How.
    pub paces: Paces,
    /// What clients are told instead of the code of their pace.
    pub words: Option<Arc<Farewell>>,
    /// Whether those who belong to another drain that ends later are told by this one; else they keep their time. They
    /// belong to both either way, and whichever of them is cancelled, the other one goes on.
    pub takes_over: bool,
    /// What chance is made of; another one for every relay.
    pub seed: u64,
    /// Where it is told how far it has come.
    pub progress: Arc<DrainProgress>,
}

/// How far a drain has come in all relays together.
pub struct DrainProgress {
    /// Relays that have still to say how many are theirs, and one more until all of them have the order.
    plans: AtomicUsize,
    tunnels: AtomicU64,
    told: AtomicU64,
    ended: AtomicU64,
    spared: AtomicU64,
    on_change: Box<dyn Fn() + Send + Sync>,
}

/// How far a drain has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DrainCounts {
    /// WebSockets that belong to it.
    pub tunnels: u64,
    /// Those that were told to close.
    pub told: u64,
    /// Those that have ended, told or not.
    pub ended: u64,
    /// Those that left it before they were told, for it was cancelled.
    pub spared: u64,
}

impl DrainCounts {
    /// Whether nobody is left.
    pub fn is_over(&self) -> bool {
        self.ended + self.spared >= self.tunnels
    }
}

impl DrainProgress {
    /// That of a drain which nobody was given yet. `on_change` is called by a relay when all of them know how
    /// many WebSockets are theirs, and when all those have ended. It must not wait.
    pub fn new(on_change: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            plans: AtomicUsize::new(1),
            tunnels: AtomicU64::default(),
            told: AtomicU64::default(),
            ended: AtomicU64::default(),
            spared: AtomicU64::default(),
            on_change: Box::new(on_change),
        })
    }

    /// All relays were given the order.
    pub fn all_have_it(&self) {
        self.add_plan(0);
    }

    /// How far it is, once all relays have said how many are theirs.
    pub fn counts(&self) -> Option<DrainCounts> {
        (self.plans.load(Ordering::Acquire) == 0).then(|| {
            // Before the tunnels, so that there are never fewer of those.
            let (ended, spared) =
                (self.ended.load(Ordering::Acquire), self.spared.load(Ordering::Acquire));
            let told = self.told.load(Ordering::Acquire);
            DrainCounts { tunnels: self.tunnels.load(Ordering::Acquire), told, ended, spared }
        })
    }

    /// One more relay is given the order.
    pub(crate) fn expect_plan(&self) {
        self.plans.fetch_add(1, Ordering::AcqRel);
    }

    /// A relay has so many.
    pub(crate) fn add_plan(&self, tunnels: u64) {
        self.tunnels.fetch_add(tunnels, Ordering::AcqRel);
        if self.plans.fetch_sub(1, Ordering::AcqRel) == 1 {
            (self.on_change)();
        }
    }

    /// One less is left, as this number says.
    fn add_to(&self, number: &AtomicU64) {
        number.fetch_add(1, Ordering::AcqRel);
        if self.counts().is_some_and(|counts| counts.is_over()) {
            (self.on_change)();
        }
    }
}

impl fmt::Debug for DrainProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DrainProgress").field(&self.counts()).finish()
    }
}

/// A part of the drains under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartId(u32);

/// The place of a tunnel in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership {
    part: PartId,
    /// When it is told, unless another drain decides until then.
    at_ms: u64,
}

/// The drains that a tunnel belongs to. The last one decides when it is told, and what; if that one is cancelled, the one
/// before it does.
#[derive(Debug, Default)]
pub(crate) struct Memberships(Vec<Membership>);

/// Those of a drain with the same pace.
#[derive(Debug)]
struct Part {
    pace: Pace,
    why: Why,
    words: Option<Arc<Farewell>>,
    takes_over: bool,
    seed: u64,
    /// When the last one is told.
    ends_ms: u64,
    /// How many have not ended.
    left: usize,
    progress: Arc<DrainProgress>,
}

/// Who has to be given a new moment: those of each part, with their places in the order.
#[derive(Debug, Default)]
pub(crate) struct Late(BTreeMap<PartId, Vec<(u64, usize)>>);

/// The drains under way in one relay.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    parts: BTreeMap<PartId, Part>,
    /// The next part. No number comes twice, for there may still be moments of those that are over.
    next: u32,
    /// When who is told, by keys of tunnels, which may have ended, or be told by another part by now. At the beginning
    /// of a drain at most twice as many as there are memberships.
    due: BinaryHeap<Reverse<Due>>,
}

/// A moment, the key of a tunnel, and the part by which it is told then.
pub(crate) type Due = (u64, usize, PartId);

impl Memberships {
    /// Whether it belongs to none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is told then by this part.
    pub(crate) fn is_due(&self, (at_ms, _, part): Due) -> bool {
        self.0.last() == Some(&Membership { part, at_ms })
    }
}

impl Drains {
    /// Begins a drain of these, each with its pace, its place in the order and its key; says when who is told by which
    /// part. [`Self::join`] has to follow for each.
    pub(crate) fn begin(
        &mut self,
        drain: &Drain,
        selected: impl Iterator<Item = (Pace, u64, usize)>,
        now_ms: u64,
    ) -> Vec<Due> {
        let mut chance = Chance(drain.seed);
        let mut by_pace: Vec<(Pace, Vec<(u64, usize)>)> = Vec::new();
        for (pace, since_ms, key) in selected {
            match by_pace.iter_mut().find(|(known, _)| *known == pace) {
                Some((_, waiting)) => waiting.push((since_ms, key)),
                None => by_pace.push((pace, vec![(since_ms, key)])),
            }
        }
        let mut members = Vec::new();
        for (pace, waiting) in by_pace {
            let part = Part {
                pace,
                why: drain.why,
                words: drain.words.clone(),
                takes_over: drain.takes_over,
                seed: drain.seed,
                ends_ms: end_of(now_ms, millis(pace.over)),
                left: waiting.len(),
                progress: Arc::clone(&drain.progress),
            };
            let id = PartId(self.next);
            self.next = self.next.wrapping_add(1);
            self.parts.insert(id, part);
            let plan = plan(&pace, waiting, now_ms, &mut chance);
            members.extend(plan.map(|(at_ms, key)| (at_ms, key, id)));
        }
        drain.progress.add_plan(members.len() as u64);
        members
    }

    /// Lets a tunnel belong to a part, too: before all others if it takes over from the one that decides now, else
    /// behind those that keep their time.
    pub(crate) fn join(&mut self, due: Due, memberships: &mut Memberships) {
        let (at_ms, _, part) = due;
        let new = &self.parts[&part];
        let gives_to_it =
            |member: &Membership| new.takes_over && self.parts[&member.part].ends_ms > new.ends_ms;
        let Memberships(list) = memberships;
        let place = list.iter().rposition(gives_to_it).map_or(0, |under| under + 1);
        list.insert(place, Membership { part, at_ms });
        if place + 1 == list.len() {
            self.due.push(Reverse(due));
        }
    }

    /// When the next one is told.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at_ms, ..))| *at_ms)
    }

    /// Takes one who is to be told by now, if it is still there and [`Memberships::is_due`].
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<Due> {
        if self.next_ms()? > now_ms {
            return None;
        }
        let due = self.due.pop();
        // Who came back from another drain may be here twice.
        while due.is_some() && self.due.peek() == due.as_ref() {
            self.due.pop();
        }
        due.map(|Reverse(due)| due)
    }

    #[cfg(test)]
    pub(crate) fn moments(&self) -> usize {
        self.due.len()
    }

    /// Forgets moments at which nobody is told, once there are many: so that who begins drains again and again fills
    /// nothing.
    pub(crate) fn purge(&mut self, is_due: impl Fn(&Due) -> bool) {
        let members: usize = self.parts.values().map(|part| part.left).sum();
        if self.due.len() > members.saturating_mul(2) {
            self.due.retain(|Reverse(due)| is_due(due));
        }
    }

    /// Notes that one is told; says why it ends, and with which words if there are some. `None` if it is not drained.
    pub(crate) fn tell(&self, memberships: &Memberships) -> Option<(Cause, Option<Arc<Farewell>>)> {
        for member in &memberships.0 {
            self.parts[&member.part].progress.told.fetch_add(1, Ordering::AcqRel);
        }
        self.ending(memberships)
    }

    /// Why one ends, and with which words, if it is drained.
    pub(crate) fn ending(
        &self,
        memberships: &Memberships,
    ) -> Option<(Cause, Option<Arc<Farewell>>)> {
        let part = &self.parts[&memberships.0.last()?.part];
        let cause = match part.why {
            Why::Ordered => Cause::Drain(part.pace.code),
            Why::Unhealthy => Cause::Unhealthy,
        };
        Some((cause, part.words.clone()))
    }

    /// Whether a tunnel belongs to this drain.
    pub(crate) fn has(&self, memberships: &Memberships, progress: &Arc<DrainProgress>) -> bool {
        self.place(memberships, progress).is_some()
    }

    fn place(&self, memberships: &Memberships, progress: &Arc<DrainProgress>) -> Option<usize> {
        let is_its =
            |member: &Membership| Arc::ptr_eq(&self.parts[&member.part].progress, progress);
        memberships.0.iter().position(is_its)
    }

    /// One has ended.
    pub(crate) fn end(&mut self, memberships: &Memberships) {
        for member in &memberships.0 {
            self.leave(member.part, |progress| &progress.ended);
        }
    }

    /// One who was not told belongs to this drain no longer. If another one decides then whose moment for it is past,
    /// it is `late`; `since_ms` is its place in an order.
    pub(crate) fn spare(
        &mut self,
        key: usize,
        memberships: &mut Memberships,
        progress: &Arc<DrainProgress>,
        now_ms: u64,
        since_ms: impl Fn(Order, Why) -> Option<u64>,
        late: &mut Late,
    ) {
        let Some(place) = self.place(memberships, progress) else { return };
        let Memberships(list) = memberships;
        let left = list.remove(place);
        self.leave(left.part, |progress| &progress.spared);
        let Some(next) = list.last().filter(|_| place == list.len()) else { return };
        if next.at_ms > now_ms {
            self.due.push(Reverse((next.at_ms, key, next.part)));
            return;
        }
        let part = &self.parts[&next.part];
        let since_ms = since_ms(part.pace.order, part.why).unwrap_or(now_ms);
        late.0.entry(next.part).or_default().push((since_ms, key));
    }

    /// Spreads these over what is left of the times of their parts, or over the same time again; says when who is told
    /// by which part. [`Self::defer`] has to follow for each.
    pub(crate) fn spread(&mut self, late: Late, now_ms: u64) -> Vec<Due> {
        let mut moments = Vec::new();
        for (id, waiting) in late.0 {
            let Some(part) = self.parts.get_mut(&id) else { continue };
            if part.ends_ms <= now_ms {
                part.ends_ms = end_of(now_ms, millis(part.pace.over));
            }
            let pace = Pace { over: Duration::from_millis(part.ends_ms - now_ms), ..part.pace };
            let mut chance = Chance(part.seed ^ now_ms);
            let plan = plan(&pace, waiting, now_ms, &mut chance);
            moments.extend(plan.map(|(at_ms, key)| (at_ms, key, id)));
        }
        moments
    }

    /// Gives a new moment to one who is told by this part.
    pub(crate) fn defer(&mut self, due: Due, memberships: &mut Memberships) {
        let (at_ms, _, part) = due;
        if let Some(last) = memberships.0.last_mut().filter(|last| last.part == part) {
            last.at_ms = at_ms;
            self.due.push(Reverse(due));
        }
    }

    fn leave(&mut self, id: PartId, number: impl Fn(&DrainProgress) -> &AtomicU64) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        part.left -= 1;
        part.progress.add_to(number(&part.progress));
        if part.left == 0 {
            self.parts.remove(&id);
        }
        if self.parts.is_empty() {
            self.due = BinaryHeap::new();
        }
    }
}

/// A relay that ends, or has panicked, has no tunnels left.
impl Drop for Drains {
    fn drop(&mut self) {
        for part in self.parts.values() {
            (0..part.left).for_each(|_| part.progress.add_to(&part.progress.ended));
        }
    }
}

/// When who is told to close. The order is that of the first numbers, the second ones are keys.
fn plan(
    pace: &Pace,
    mut waiting: Vec<(u64, usize)>,
    now_ms: u64,
    chance: &mut Chance,
) -> impl Iterator<Item = (u64, usize)> {
    waiting.sort_unstable();
    let (count, over_ms) = (waiting.len() as u128, u128::from(millis(pace.over)));
    // As many as are told within the jitter.
    let within = (count * u128::from(millis(pace.jitter))).checked_div(over_ms).unwrap_or(1);
    let within = usize::try_from(within).unwrap_or(usize::MAX).max(1);
    waiting.chunks_mut(within).for_each(|part| chance.shuffle(part));
    (0..).zip(waiting).map(move |(number, (_, key))| {
        let moment = (u128::from(number as u64) << 32) + u128::from(chance.bits());
        let after_ms = moment * over_ms / (count << 32);
        (now_ms.saturating_add(u64::try_from(after_ms).unwrap_or(u64::MAX)), key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER_MS: u64 = 20_000;
    const COUNT: usize = 5_000;

    fn pace(jitter: Duration) -> Pace {
        let (code, order) = (CloseCode::GOING_AWAY, Order::Oldest);
        Pace { over: Duration::from_millis(OVER_MS), code, order, jitter }
    }

    /// The plan for tunnels whose place in the order is their key.
    fn planned(pace: Pace, count: usize, seed: u64) -> Vec<(u64, usize)> {
        let waiting = (0..count).rev().map(|key| (key as u64, key)).collect();
        plan(&pace, waiting, 1_000, &mut Chance(seed)).collect()
    }

    #[test]
    fn the_pace_is_even_from_the_first_second_to_the_last() {
        for (jitter, shares) in [(0, 1), (2_000, 1), (20_000, 1), (2_000, 4), (2_000, 500)] {
            let pace = pace(Duration::from_millis(jitter));
            // What several relays do at the same time.
            let mut seconds = vec![0_usize; 20];
            for share in 0..shares {
                for (at_ms, _) in planned(pace, COUNT / shares, share as u64) {
                    assert!((1_000..1_000 + OVER_MS).contains(&at_ms));
                    seconds[(at_ms as usize - 1_000) / 1_000] += 1;
                }
            }
            let (least, most) = (COUNT / 20 * 8 / 10, COUNT / 20 * 12 / 10);
            assert!(seconds.iter().all(|told| (least..=most).contains(told)), "{seconds:?}");
        }
    }

    #[test]
    fn without_jitter_the_first_is_told_first() {
        let keys: Vec<_> =
            planned(pace(Duration::ZERO), COUNT, 7).iter().map(|due| due.1).collect();
        assert!(keys.is_sorted());
    }

    #[test]
    fn jitter_moves_nobody_by_more_than_it_is() {
        let jitter_ms = 2_000;
        let pace = pace(Duration::from_millis(jitter_ms));
        let due = planned(pace, COUNT, 7);
        let keys: Vec<_> = due.iter().map(|due| due.1).collect();
        assert!(!keys.is_sorted());
        let slot_ms = OVER_MS / COUNT as u64;
        for (at_ms, key) in due {
            let own_ms = 1_000 + key as u64 * slot_ms;
            assert!(at_ms.abs_diff(own_ms) <= jitter_ms + slot_ms, "{key} at {at_ms}");
        }
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), COUNT);
        let other: Vec<_> = planned(pace, COUNT, 8).iter().map(|due| due.1).collect();
        assert_ne!(keys, other, "another relay has another order");
    }

    #[test]
    fn few_are_spread_as_well_and_no_time_is_now() {
        let at: Vec<_> = (0..200).map(|seed| planned(pace(Duration::ZERO), 1, seed)[0].0).collect();
        let late = at.iter().filter(|&&at_ms| at_ms > 1_000 + OVER_MS / 2).count();
        assert!((60..140).contains(&late), "{late}");
        let now = Pace { over: Duration::ZERO, ..pace(Duration::ZERO) };
        assert_eq!(planned(now, 3, 1), [(1_000, 0), (1_000, 1), (1_000, 2)].to_vec());
    }
}
