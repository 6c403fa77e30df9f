//! Tunnels that a service manager keeps from one process to the next: at a restart the two do not live at the same time.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use wssgate_handover::{
    Announced, Deposit, Depositing, MAX_BATCH, MAX_RECORD, Parcel, WithdrawError, Withdrawal,
};
use wssgate_relay::moving::{Arriving, FORMAT, Fate, Frozen};
use wssgate_sys::memory::Secret;
use wssgate_sys::process::NoCoreDumps;

use super::land::Landing;
use super::{Post, Reasons, count, parcels};
use crate::errno_text;
use crate::tunnel::portable::Stays;
use crate::worker::Errand;

/// How long a manager has to close what it does not keep. systemd says before that it has read it.
const CLOSING: Duration = Duration::from_millis(20);

/// What has become of our tunnels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Those that wait for the next process.
    pub stored: u64,
    /// In so many descriptors.
    pub descriptors: usize,
    /// Those that are still ours, by why.
    pub stay: Reasons,
    /// Whether it was tried and something was not kept.
    pub has_failed: bool,
    /// From the first one taken out of its relay until all are settled.
    pub took: Duration,
}

/// What has become of tunnels that were kept for us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenUp {
    /// Those that are ours now.
    pub taken: u64,
    /// Those that have ended, by why.
    pub ended: Reasons,
    /// Why others whose number nobody knows have ended.
    pub errors: Vec<String>,
    /// How long that took.
    pub took: Duration,
}

/// What is announced of tunnels that are kept for us, all together: the number of the last connection, and how many there
/// are. Nothing is taken up.
pub fn announced(kept: &[OwnedFd]) -> (u64, u64) {
    let announced = kept.iter().filter_map(|kept| Withdrawal::announced_by(kept.as_fd()));
    announced.fold((0, 0), |(last, tunnels), announced| {
        (last.max(announced.number), tunnels + u64::from(announced.tunnels))
    })
}

/// Takes all tunnels out of the relays that can go on in another process, and has somebody `keep` them, in no more than
/// `most` descriptors. Whatever nobody keeps goes back.
pub(crate) fn store(
    posts: &[Post],
    most: usize,
    last_connection: u64,
    keep: &mut dyn FnMut(BorrowedFd<'_>) -> Result<(), String>,
) -> Stored {
    // Without it a core dump might hold the keys of tunnels; those that move are in memory anyway.
    let _no_dumps = NoCoreDumps::begin();
    let began = Instant::now();
    let tunnels = posts.iter().map(|post| post.relay.live()).sum::<usize>();
    let tunnels = u32::try_from(tunnels).unwrap_or(u32::MAX);
    let announced = Announced { format: FORMAT, tunnels, number: last_connection };
    let mut work = Work { announced, most, filling: None, full: Vec::new(), error: None };
    let mut stored = Stored::default();
    let mut pages = Vec::new();
    for post in posts {
        let mut from = Some(0);
        while let Some(place) = from {
            // A relay that has stopped has no tunnels.
            let Ok(page) = post.relay.freeze(place, true) else { break };
            from = page.next;
            if page.stays > 0 {
                count(&mut stored.stay, "it is about to end", page.stays as u64);
            }
            if !page.frozen.is_empty() {
                let places = work.deposit(post, &page.frozen, &mut stored);
                pages.push((post, page.frozen, places));
            }
        }
    }
    let kept: Vec<_> = work.finish().into_iter().map(|deposit| keeps(deposit?, keep)).collect();
    stored.has_failed = kept.iter().any(Result::is_err);
    stored.descriptors = kept.iter().filter(|kept| kept.is_ok()).count();
    for (post, frozen, places) in pages {
        for place in places.iter().flatten() {
            match &kept[*place] {
                Ok(()) => stored.stored += 1,
                Err(why) => count(&mut stored.stay, why, 1),
            }
        }
        let is_kept = |place: &Option<usize>| place.is_some_and(|place| kept[place].is_ok());
        let fate = |place| if is_kept(place) { Fate::Moved } else { Fate::Back };
        post.settle(frozen, &places.iter().map(fate).collect::<Vec<_>>());
    }
    stored.took = began.elapsed();
    stored
}

/// Has a deposit kept, if it is.
fn keeps(
    deposit: Deposit,
    keep: &mut dyn FnMut(BorrowedFd<'_>) -> Result<(), String>,
) -> Result<(), String> {
    keep(deposit.descriptor())?;
    match deposit.leave(CLOSING) {
        true => Ok(()),
        false => Err("the service manager has not kept it".to_owned()),
    }
}

/// Deposits that are being made.
struct Work {
    announced: Announced,
    most: usize,
    filling: Option<Depositing>,
    full: Vec<Result<Deposit, String>>,
    /// Why nothing more can be deposited.
    error: Option<String>,
}

impl Work {
    /// Deposits what can be of these, and says where.
    fn deposit(&mut self, post: &Post, frozen: &Frozen, stored: &mut Stored) -> Vec<Option<usize>> {
        let mut places = vec![None; frozen.len()];
        let mut bytes = Secret::default();
        let packed = post.pack(frozen, &HashSet::new(), &mut bytes, |_, stays| {
            // Its relay says so by itself.
            if stays != Stays::Ended {
                count(&mut stored.stay, stays.to_string(), 1);
            }
        });
        let Some(mut records) = packed else {
            count(&mut stored.stay, "its worker has ended", frozen.len() as u64);
            return places;
        };
        records.retain(|(_, place)| {
            let fits = place.len() <= MAX_RECORD;
            if !fits {
                let why = "too much is held back for one of its sides";
                count(&mut stored.stay, why, 1);
            }
            fits
        });
        for batch in records.chunks(MAX_BATCH) {
            match self.add(&parcels(frozen, &bytes, batch)) {
                Ok(place) => batch.iter().for_each(|(at, _)| places[*at] = Some(place)),
                Err(why) => count(&mut stored.stay, why, batch.len() as u64),
            }
        }
        places
    }

    /// Puts tunnels into the deposit that is being filled, or into the next one; which one that is.
    fn add(&mut self, parcels: &[Parcel<'_>]) -> Result<usize, String> {
        // A new one has room for any batch but one of giants, which goes on where it is.
        for _ in 0..2 {
            if let Some(error) = &self.error {
                return Err(error.clone());
            }
            let place = self.full.len();
            if self.filling.is_none() {
                if place == self.most {
                    let error = "the service manager keeps no more descriptors".to_owned();
                    return Err(self.error.insert(error).clone());
                }
                let begun = Depositing::begin(self.announced);
                self.filling = Some(begun.map_err(|error| self.fail(&error))?);
            }
            match self.filling.as_mut().map(|filling| filling.add(parcels)) {
                Some(Ok(true)) => return Ok(place),
                Some(Ok(false)) => self.close(),
                // What is in it already is whole.
                Some(Err(error)) => return Err(self.fail(&error)),
                None => {}
            }
        }
        Err("it holds more than can be stored".to_owned())
    }

    fn fail(&mut self, error: &io::Error) -> String {
        self.error.insert(format!("storing it failed ({})", errno_text(error))).clone()
    }

    fn close(&mut self) {
        if let Some(filling) = self.filling.take() {
            let failed = |error| format!("storing it failed ({})", errno_text(&error));
            self.full.push(filling.finish().map_err(failed));
        }
    }

    fn finish(mut self) -> Vec<Result<Deposit, String>> {
        self.close();
        self.full
    }
}

/// Takes up what was kept for us.
pub(crate) fn take_up(posts: &[Post], kept: Vec<OwnedFd>) -> TakenUp {
    let _no_dumps = NoCoreDumps::begin();
    let began = Instant::now();
    let mut taken_up = TakenUp::default();
    for descriptor in kept {
        if let Err(error) = take_up_one(posts, descriptor, &mut taken_up) {
            taken_up.errors.push(error);
        }
    }
    taken_up.took = began.elapsed();
    taken_up
}

fn take_up_one(posts: &[Post], kept: OwnedFd, to: &mut TakenUp) -> Result<(), String> {
    let text = |error: WithdrawError| error.to_string();
    let mut withdrawal = Withdrawal::begin(kept).map_err(text)?;
    let format = withdrawal.announced().format;
    if format != FORMAT {
        return Err(format!("their records have format {format} and this program reads {FORMAT}"));
    }
    while let Some(portion) = withdrawal.take().map_err(text)? {
        let worker = Post::least(posts, |_| 0).ok_or("there is no worker")?;
        let tunnels = portion.tunnels.into_iter().map(|tunnel| (tunnel.record, tunnel.sockets));
        let (records, sockets): (Vec<_>, Vec<_>) = tunnels.unzip();
        let mut arriving = Vec::with_capacity(records.len());
        for (at, (record, sockets)) in records.iter().zip(sockets).enumerate() {
            match Arriving::decode(record) {
                Ok(tunnel) => arriving.push((at, tunnel, sockets)),
                Err(error) => count(&mut to.ended, error.to_string(), 1),
            }
        }
        let mut landing = Landing::new(posts);
        landing.bind(worker, arriving);
        for (_, refusal) in landing.refused.drain(..) {
            count(&mut to.ended, refusal.text, 1);
        }
        if portion.lost > 0 {
            let why = "this process may not open as many descriptors";
            count(&mut to.ended, why, portion.lost as u64);
        }
        to.taken += landing.len() as u64;
        let _ = landing.go_on(|post, tickets| post.errands.send(Errand::Settle(tickets)));
    }
    Ok(())
}
