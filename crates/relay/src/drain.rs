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
    /// Whether those come along who belong to another drain that ends later and have not been told; else they keep
    /// their time.
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
    /// Those that left it before they were told: it was cancelled, or another drain has taken them over.
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

/// Which part of the drains under way a tunnel belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartId(u32);

/// Those of a drain with the same pace.
#[derive(Debug)]
struct Part {
    cause: Cause,
    words: Option<Arc<Farewell>>,
    /// When the last one is told.
    ends_ms: u64,
    /// How many have not ended.
    left: usize,
    progress: Arc<DrainProgress>,
}

/// The drains under way in one relay.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    parts: BTreeMap<PartId, Part>,
    /// The next part. No number comes twice, for there may still be moments of those that are over.
    next: u32,
    /// When who is told, by keys of tunnels, which may have ended. Bounded by the tunnels there were at the
    /// beginning of each drain.
    due: BinaryHeap<Reverse<(u64, usize, PartId)>>,
}

impl Drains {
    /// Begins a drain of these, each with its pace, its place in the order and its key; says which part who belongs
    /// to.
    pub(crate) fn begin(
        &mut self,
        drain: &Drain,
        selected: impl Iterator<Item = (Pace, u64, usize)>,
        now_ms: u64,
    ) -> Vec<(usize, PartId)> {
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
            let progress = Arc::clone(&drain.progress);
            let cause = match drain.why {
                Why::Ordered => Cause::Drain(pace.code),
                Why::Unhealthy => Cause::Unhealthy,
            };
            let (words, ends_ms) = (drain.words.clone(), end_of(now_ms, millis(pace.over)));
            let part = Part { cause, words, ends_ms, left: waiting.len(), progress };
            let id = PartId(self.next);
            self.next = self.next.wrapping_add(1);
            self.parts.insert(id, part);
            for (at_ms, key) in plan(&pace, waiting, now_ms, &mut chance) {
                self.due.push(Reverse((at_ms, key, id)));
                members.push((key, id));
            }
        }
        drain.progress.add_plan(members.len() as u64);
        members
    }

    /// When the next one is told.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at_ms, ..))| *at_ms)
    }

    /// Takes one who is to be told by now, if it is still there.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<(usize, PartId)> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.due.pop().map(|Reverse((_, key, part))| (key, part))
    }

    /// Notes that one of a part is told; says why it ends, and with which words if there are some.
    pub(crate) fn tell(&self, part: PartId) -> (Cause, Option<Arc<Farewell>>) {
        let progress = &self.parts[&part].progress;
        progress.told.fetch_add(1, Ordering::AcqRel);
        self.ending(part)
    }

    /// Why those of a part end, and with which words.
    pub(crate) fn ending(&self, part: PartId) -> (Cause, Option<Arc<Farewell>>) {
        let part = &self.parts[&part];
        (part.cause, part.words.clone())
    }

    /// Whether one of a part who was not told goes over to this drain, in which the last one is told at `ends_ms`.
    pub(crate) fn gives_to(&self, part: PartId, drain: &Drain, ends_ms: u64) -> bool {
        let part = &self.parts[&part];
        drain.takes_over && part.ends_ms > ends_ms && !Arc::ptr_eq(&part.progress, &drain.progress)
    }

    /// Whether a part is one of this drain.
    pub(crate) fn is_of(&self, part: PartId, progress: &Arc<DrainProgress>) -> bool {
        self.parts.get(&part).is_some_and(|part| Arc::ptr_eq(&part.progress, progress))
    }

    /// One of a part has ended.
    pub(crate) fn end(&mut self, id: PartId) {
        self.leave(id, |progress| &progress.ended);
    }

    /// One of a part who was not told belongs to it no longer.
    pub(crate) fn spare(&mut self, id: PartId) {
        self.leave(id, |progress| &progress.spared);
    }

    /// Nobody of a drain is told any more; those who were not are spared already.
    pub(crate) fn cancel(&mut self, progress: &Arc<DrainProgress>) {
        // So that who begins and cancels drains again and again fills nothing.
        let mut due = std::mem::take(&mut self.due);
        due.retain(|Reverse((.., part))| {
            self.parts.contains_key(part) && !self.is_of(*part, progress)
        });
        self.due = due;
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

/// Chance that need not be a secret: SplitMix64.
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }

    /// Puts things into any order (Fisher and Yates).
    fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let other = (u64::from(self.bits()) * (last as u64 + 1)) >> 32;
            things.swap(last, other as usize);
        }
    }
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
