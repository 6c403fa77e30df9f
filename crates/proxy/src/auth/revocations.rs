//! What operators have revoked: clients by the subject or the ID of their tokens, or as users.
//!
//! Whoever lets a client in asks here, and whoever revokes looks for those who are in already. Nobody slips
//! through between the two: what is revoked is noted first and looked for afterwards, and a tunnel is checked
//! once more when it has been handed over.
//!
//! The list outlives reloads, as part of the process. While nothing of a kind is revoked a check is one load.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::auth::jwt::Token;
use crate::clock::Moment;

/// How many revocations are held at most: a few MiB.
pub(crate) const MAX: usize = 10_000;

/// How much of a text counts, in bytes.
const MAX_TEXT: usize = 256;

/// What a revocation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The `sub` of a token.
    Subject,
    /// The `jti` of a token.
    TokenId,
    /// The text of `websocket_user`.
    User,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Subject, Self::TokenId, Self::User];

    /// As the API calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::TokenId => "token_id",
            Self::User => "user",
        }
    }

    /// As a sentence does.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::TokenId => "token ID",
            Self::User => "user",
        }
    }
}

/// One of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    /// Its number; no other one ever has it.
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// Whose; see [`text_of`].
    pub(crate) text: Box<str>,
    /// By the wall clock.
    pub(crate) began: SystemTime,
    /// By the wall clock as it was when it began.
    pub(crate) ends: SystemTime,
    until: Instant,
}

/// No more can be held.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0} revocations are held, which is the most; remove some or wait until they end")]
pub(crate) struct Full(usize);

/// The list.
#[derive(Debug)]
pub(crate) struct Revocations {
    /// How many there are of each kind, those included whose end nobody has noticed.
    held: [AtomicUsize; 3],
    max: usize,
    list: RwLock<List>,
}

#[derive(Debug, Default)]
struct List {
    last_id: u64,
    by_id: BTreeMap<u64, Revocation>,
    by_text: [HashMap<Box<str>, u64>; 3],
}

impl Default for Revocations {
    fn default() -> Self {
        Self::with_room_for(MAX)
    }
}

impl Revocations {
    fn with_room_for(max: usize) -> Self {
        Self { held: Default::default(), max, list: RwLock::default() }
    }

    /// Revokes whatever has this text for `time` from now on. If it is revoked already, that changes only how
    /// long.
    ///
    /// # Errors
    /// When the list is full.
    pub(crate) fn add(
        &self,
        kind: Kind,
        text: &str,
        time: Duration,
        now: Moment,
    ) -> Result<Revocation, Full> {
        let text = text_of(text.as_bytes());
        let mut list = self.write(now.instant);
        let known = list.by_text[kind as usize].get(&text).copied();
        if known.is_none() && list.by_id.len() >= self.max {
            return Err(Full(self.max));
        }
        list.last_id += u64::from(known.is_none());
        let id = known.unwrap_or(list.last_id);
        let began = known.and_then(|id| Some(list.by_id.get(&id)?.began)).unwrap_or(now.wall);
        let (until, ends) = (now.instant + time, now.wall + time);
        let revocation = Revocation { id, kind, text: text.clone(), began, ends, until };
        list.by_text[kind as usize].insert(text, id);
        list.by_id.insert(id, revocation.clone());
        self.count_held(&list);
        Ok(revocation)
    }

    /// Takes one back.
    pub(crate) fn remove(&self, id: u64, now: Instant) -> Option<Revocation> {
        let mut list = self.write(now);
        let removed = list.by_id.remove(&id)?;
        list.by_text[removed.kind as usize].remove(&removed.text);
        self.count_held(&list);
        Some(removed)
    }

    /// Those with higher numbers than `after`, `limit` at most, and whether there are more.
    pub(crate) fn page(&self, after: u64, limit: usize, now: Instant) -> (Vec<Revocation>, bool) {
        let list = self.write(now);
        let mut following = list.by_id.range(after.saturating_add(1)..).map(|(_, one)| one);
        let page: Vec<_> = following.by_ref().take(limit).cloned().collect();
        (page, following.next().is_some())
    }

    /// How many there are.
    pub(crate) fn count(&self, now: Instant) -> usize {
        if Kind::ALL.into_iter().all(|kind| !self.holds(kind)) {
            return 0;
        }
        self.write(now).by_id.len()
    }

    /// Whether there may be any of this kind.
    #[inline]
    pub(crate) fn holds(&self, kind: Kind) -> bool {
        self.held[kind as usize].load(Ordering::SeqCst) > 0
    }

    /// Whether what has this text is revoked.
    pub(crate) fn revokes(&self, kind: Kind, text: &str, now: Instant) -> bool {
        if !self.holds(kind) {
            return false;
        }
        let list = self.read();
        let id = list.by_text[kind as usize].get(text);
        id.and_then(|id| list.by_id.get(id)).is_some_and(|one| now < one.until)
    }

    /// Why a token is revoked, if it is.
    pub(crate) fn of_token(&self, token: &Token, now: Instant) -> Option<Kind> {
        let is_revoked = |kind, claim: Option<String>| {
            claim.is_some_and(|claim| self.revokes(kind, &text_of(claim.as_bytes()), now))
        };
        if self.holds(Kind::Subject) && is_revoked(Kind::Subject, token.subject()) {
            return Some(Kind::Subject);
        }
        (self.holds(Kind::TokenId) && is_revoked(Kind::TokenId, token.id()))
            .then_some(Kind::TokenId)
    }

    fn read(&self) -> RwLockReadGuard<'_, List> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list without those that have ended.
    fn write(&self, now: Instant) -> RwLockWriteGuard<'_, List> {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let List { by_id, by_text, .. } = &mut *list;
        let before = by_id.len();
        by_id.retain(|_, one| {
            let lasts = now < one.until;
            if !lasts {
                by_text[one.kind as usize].remove(&one.text);
            }
            lasts
        });
        if by_id.len() < before {
            self.count_held(&list);
        }
        list
    }

    fn count_held(&self, list: &List) {
        for (held, texts) in self.held.iter().zip(&list.by_text) {
            held.store(texts.len(), Ordering::SeqCst);
        }
    }
}

/// The text by which somebody is known here: as much of it as counts.
pub(crate) fn text_of(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn later(now: Moment, time: Duration) -> Moment {
        Moment { instant: now.instant + time, wall: now.wall + time }
    }

    #[test]
    fn what_is_revoked_is_so_until_its_end_and_of_its_kind_only() {
        let (revocations, now) = (Revocations::default(), Moment::now());
        assert!(Kind::ALL.into_iter().all(|kind| !revocations.holds(kind)));
        let ann = revocations.add(Kind::Subject, "ann", HOUR, now).unwrap();
        assert!(revocations.holds(Kind::Subject) && !revocations.holds(Kind::User));
        let is = |kind, text, at: Moment| revocations.revokes(kind, text, at.instant);
        assert!(is(Kind::Subject, "ann", now));
        assert!(!is(Kind::Subject, "an", now) && !is(Kind::User, "ann", now));
        let end = later(now, HOUR);
        assert!(is(Kind::Subject, "ann", later(now, HOUR - Duration::from_millis(1))));
        assert!(!is(Kind::Subject, "ann", end));
        assert_eq!(ann.ends, end.wall);
        // Whoever counts them notices, and the short way is free again.
        assert_eq!((revocations.count(now.instant), revocations.count(end.instant)), (1, 0));
        assert!(!revocations.holds(Kind::Subject));
        assert_eq!(revocations.remove(ann.id, end.instant), None);
    }

    #[test]
    fn who_is_revoked_again_is_revoked_for_as_long_as_was_said_last() {
        let (revocations, now) = (Revocations::default(), Moment::now());
        let first = revocations.add(Kind::User, "bob", HOUR, now).unwrap();
        let other = revocations.add(Kind::User, "cid", HOUR, now).unwrap();
        let soon = later(now, HOUR / 2);
        let again = revocations.add(Kind::User, "bob", HOUR / 4, soon).unwrap();
        assert_eq!((again.id, again.began), (first.id, first.began));
        assert_ne!(other.id, first.id);
        assert!(!revocations.revokes(Kind::User, "bob", later(now, HOUR * 3 / 4).instant));
        assert!(revocations.revokes(Kind::User, "cid", later(now, HOUR * 3 / 4).instant));
        assert_eq!(revocations.remove(other.id, now.instant), Some(other));
        assert!(!revocations.revokes(Kind::User, "cid", now.instant));
    }

    #[test]
    fn a_full_list_takes_no_more_until_one_has_ended_or_is_removed() {
        let (revocations, now) = (Revocations::with_room_for(2), Moment::now());
        let first = revocations.add(Kind::Subject, "a", HOUR / 2, now).unwrap();
        let second = revocations.add(Kind::TokenId, "a", HOUR, now).unwrap();
        assert_eq!(revocations.add(Kind::User, "b", HOUR, now), Err(Full(2)));
        revocations.add(Kind::TokenId, "a", HOUR, now).unwrap();
        let third = revocations.add(Kind::User, "b", HOUR, later(now, HOUR / 2)).unwrap();
        assert!(third.id > second.id && second.id > first.id);
        revocations.remove(second.id, now.instant).unwrap();
        revocations.add(Kind::User, "c", HOUR, now).unwrap();
    }

    #[test]
    fn pages_follow_each_other() {
        let (revocations, now) = (Revocations::default(), Moment::now());
        for number in 0..7 {
            revocations.add(Kind::User, &number.to_string(), HOUR, now).unwrap();
        }
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let (page, more) = revocations.page(after, 3, now.instant);
            assert!(page.len() == 3 || !more);
            all.extend(page.iter().map(|one| one.text.to_string()));
            after = page.last().unwrap().id;
            if !more {
                break;
            }
        }
        assert_eq!(all, ["0", "1", "2", "3", "4", "5", "6"]);
        assert_eq!(revocations.page(u64::MAX, 3, now.instant), (Vec::new(), false));
    }

    #[test]
    fn a_token_is_known_by_its_subject_or_its_id() {
        let (revocations, now) = (Revocations::default(), Moment::now());
        // {"sub":"ann","jti":7}
        let text = Bytes::from_static(b"e30.eyJzdWIiOiJhbm4iLCJqdGkiOjd9.x");
        let token = Token::parse(&text).unwrap();
        assert_eq!(revocations.of_token(&token, now.instant), None);
        let seven = revocations.add(Kind::TokenId, "7", HOUR, now).unwrap();
        assert_eq!(revocations.of_token(&token, now.instant), Some(Kind::TokenId));
        revocations.remove(seven.id, now.instant).unwrap();
        revocations.add(Kind::Subject, "bob", HOUR, now).unwrap();
        assert_eq!(revocations.of_token(&token, now.instant), None);
        revocations.add(Kind::Subject, "ann", HOUR, now).unwrap();
        assert_eq!(revocations.of_token(&token, now.instant), Some(Kind::Subject));
    }

    /// The same on both sides of a comparison, wherever it cuts a letter.
    #[test]
    fn of_long_texts_the_beginning_counts() {
        let (revocations, now) = (Revocations::default(), Moment::now());
        let long = "é".repeat(200);
        revocations.add(Kind::User, &long[..], HOUR, now).unwrap();
        assert!(revocations.revokes(Kind::User, &text_of(long.as_bytes()), now.instant));
        let odd = format!("x{long}");
        revocations.add(Kind::User, &odd, HOUR, now).unwrap();
        assert!(revocations.revokes(Kind::User, &text_of(odd.as_bytes()), now.instant));
    }
}
