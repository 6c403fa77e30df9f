//! Tunnels on their way from one process to another.
//!
//! The relay that has them lets go of some between two turns: nobody reads their sockets any more, and what comes waits in
//! the kernel. Whoever asked for them ([`RelayHandle::freeze`]) tells their state to the other process and passes their
//! sockets on. Those that it has taken end here without a word ([`Report::Moved`](crate::Report)); the others go back to the
//! relay, and so do all whose fate nobody decides: a tunnel is always in one process's hands.
//!
//! ```text
//! relay ──freeze──▶ Frozen ──record, sockets──▶ the other process: Arriving ──bind──▶ Resume ──resume──▶ its relay
//!   ▲                 │ └──settle: taken──▶ over here
//!   └──settle: not taken, or dropped
//! ```
//!
//! So that few stand still for long, the state of many may be told before, while they go on ([`RelayHandle::announce`]),
//! and all that can be made of it is made ([`Expected`]). Most tunnels are quiet in the meantime; then their sockets are all
//! that is missing, and their record is just the number of the announcement. The others are told anew.

use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, OwnedFd};

use minicbor::bytes::ByteSlice;
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode};
use wssgate_sys::memory::Secret;
use wssgate_sys::process::monotonic_micros;

use crate::thread::clock_ms;
use crate::tunnel::Tunnel;
use crate::tunnel::state::{TunnelState, Unconnected};
use crate::{RelayHandle, Side, Stopped};

pub use crate::model::{Binding, Refused};
pub use crate::secret::write;

/// The version of the format of [`Frozen::record`]. It rises only with a change that a reader of this one would
/// misunderstand.
pub const FORMAT: u32 = 1;

/// How many tunnels a relay lets go of at once, at most: with each it needs some microseconds.
pub const MAX_FROZEN: usize = 512;

/// How many places of a relay are looked at for one announcement: nothing else is done there meanwhile.
pub const MAX_ANNOUNCED: usize = 128;

/// Tunnels that no relay carries for now. What was not settled goes back to its relay when this is dropped.
pub struct Frozen {
    relay: RelayHandle,
    tunnels: Vec<Tunnel>,
    /// When they were taken out, by the relay's clock.
    at_ms: u64,
    /// The same as [`Arriving`] tells it.
    at_us: u64,
}

/// What becomes of a tunnel that was taken out of its relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is the other process's now.
    Moved,
    /// Its relay goes on with it.
    Back,
    /// Its relay goes on with it, and it is not taken out again until somebody tries afresh: it cannot move.
    Stays,
    /// Nobody knows whether the other process goes on with it. It ends here, and nothing is written to its sockets.
    Unknown,
}

/// What there is at some places of a relay.
pub(crate) struct FrozenPage {
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) stays: usize,
    pub(crate) next: Option<usize>,
    pub(crate) at_ms: u64,
}

/// The states of the tunnels at some places of a relay.
pub(crate) struct States {
    /// Behind the tickets and the numbers of announcements.
    pub(crate) tunnels: Vec<(u64, NonZeroU32, TunnelState)>,
    pub(crate) next: Option<usize>,
    pub(crate) at_ms: u64,
}

/// How a tunnel was at a moment, which goes on meanwhile.
pub struct Announcement {
    /// Its ticket.
    pub ticket: u64,
    /// No other announcement of this process has the same.
    pub number: NonZeroU32,
    state: TunnelState,
    at_us: u64,
}

/// What [`RelayHandle::announce`] brings.
#[derive(Debug)]
pub struct Announcements {
    /// Of those that can move and that nothing is kept for.
    pub tunnels: Vec<Announcement>,
    /// The next place; `None` behind the last one.
    pub next: Option<usize>,
}

/// What [`RelayHandle::freeze`] brings.
#[derive(Debug)]
pub struct Page {
    /// Those that can move.
    pub frozen: Frozen,
    /// How many at these places cannot, or are about to end.
    pub stays: usize,
    /// The next place; `None` behind the last one.
    pub next: Option<usize>,
}

impl Announcement {
    /// Adds to `records` what another process needs to expect the tunnel: secrets. `extra` is what the front adds.
    pub fn record(self, extra: &[u8], records: &mut Secret) {
        let Self { state, at_us, .. } = self;
        let extra = extra.into();
        write(&Arriving { state, extra, at_us: Some(at_us), instead_of: None }, records);
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Announcement").field(&self.ticket).finish()
    }
}

impl Frozen {
    /// How many.
    pub fn len(&self) -> usize {
        self.tunnels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// Their tickets.
    pub fn tickets(&self) -> Vec<u64> {
        self.tunnels.iter().map(|tunnel| tunnel.ticket).collect()
    }

    /// Adds to `records` what another process needs to go on with one of them, besides its sockets: secrets. `extra` is
    /// what the front adds. What was announced of it holds no more.
    pub fn record(&self, number: usize, extra: &[u8], records: &mut Secret) {
        let tunnel = &self.tunnels[number];
        let arriving = Arriving {
            state: tunnel.state(self.at_ms),
            extra: extra.into(),
            at_us: Some(self.at_us),
            instead_of: tunnel.announcement(),
        };
        write(&arriving, records);
    }

    /// The number of the last announcement of one of them, if that still says all of it. Then this is a record of it, too
    /// ([`Self::record_as_announced`]), for a process that has heard of it.
    pub fn as_announced(&self, number: usize) -> Option<NonZeroU32> {
        let tunnel = &self.tunnels[number];
        tunnel.announcement().filter(|_| tunnel.is_as_announced())
    }

    /// Adds to `records` what says that this announcement holds.
    pub fn record_as_announced(announcement: NonZeroU32, records: &mut Secret) {
        write(&announcement, records);
    }

    /// The sockets of the client and the upstream of one of them.
    pub fn sockets(&self, number: usize) -> [BorrowedFd<'_>; 2] {
        [Side::Client, Side::Upstream].map(|side| self.tunnels[number].leg(side).fd())
    }

    /// Says what becomes of each of them.
    pub fn settle(mut self, fate: impl Fn(usize) -> Fate) {
        let (mut moved, mut unknown) = (Vec::new(), Vec::new());
        for (number, mut tunnel) in std::mem::take(&mut self.tunnels).into_iter().enumerate() {
            match fate(number) {
                Fate::Moved => moved.push(tunnel),
                Fate::Unknown => unknown.push(tunnel),
                fate @ (Fate::Back | Fate::Stays) => {
                    tunnel.stays |= fate == Fate::Stays;
                    self.tunnels.push(tunnel);
                }
            }
        }
        if !moved.is_empty() || !unknown.is_empty() {
            // A relay that has stopped tells no ends either.
            let _ = self.relay.let_go(moved, unknown);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.tunnels);
        if left.is_empty() {
            return;
        }
        // Whoever panics need not know whom the other process has taken; nobody must serve those as well.
        let _ = match std::thread::panicking() {
            true => self.relay.let_go(Vec::new(), left),
            false => self.relay.give_back(left),
        };
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Frozen").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What the record of a tunnel is that comes from another process.
#[derive(Debug)]
pub enum Record<'r> {
    /// All that is said of it.
    Whole(Box<Arriving<'r>>),
    /// It is as the announcement of this number says.
    AsAnnounced(NonZeroU32),
}

impl<'r> Record<'r> {
    /// Reads it.
    ///
    /// # Errors
    /// [`Refused::Unknown`], also for bytes that are no record at all.
    pub fn decode(record: &'r [u8]) -> Result<Self, Refused> {
        match Decoder::new(record).datatype() {
            Ok(Type::Map) => Arriving::decode(record).map(|tunnel| Self::Whole(Box::new(tunnel))),
            _ => minicbor::decode(record).map(Self::AsAnnounced).map_err(|_| Refused::Unknown),
        }
    }
}

/// A tunnel that comes from another process, not bound to anything here yet: what its record says.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub struct Arriving<'r> {
    #[n(0)]
    state: TunnelState,
    /// What the front adds.
    #[b(1)]
    extra: &'r ByteSlice,
    /// Of when the state is, by the clock that all processes of a machine share (`CLOCK_MONOTONIC`), in microseconds.
    #[n(2)]
    at_us: Option<u64>,
    /// The number of an announcement of this tunnel, which holds no more.
    #[n(3)]
    instead_of: Option<NonZeroU32>,
}

/// A tunnel that a relay can go on with as soon as its sockets are there.
pub struct Expected(Unconnected);

impl Expected {
    /// Makes it one that a relay can go on with. Nothing happens to its sockets.
    pub fn connect(self, sockets: [OwnedFd; 2]) -> Resume {
        Resume((self.0)(sockets))
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Expected").finish_non_exhaustive()
    }
}

/// A tunnel that a relay can go on with.
pub struct Resume(pub(crate) Tunnel);

#[cfg(test)]
impl Resume {
    /// Whether the client's and the upstream's leg have TLS, and whether it is a WebSocket.
    pub(crate) fn kind(&self) -> [bool; 3] {
        self.0.kind()
    }
}

impl fmt::Debug for Resume {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Resume").field(&self.0.ticket).finish()
    }
}

impl<'r> Arriving<'r> {
    /// Reads a record.
    ///
    /// # Errors
    /// [`Refused::Unknown`], also for bytes that are no record at all.
    pub fn decode(record: &'r [u8]) -> Result<Self, Refused> {
        minicbor::decode(record).map_err(|_| Refused::Unknown)
    }

    /// What the front of the other process has added.
    pub fn extra(&self) -> &'r [u8] {
        self.extra
    }

    /// The announcement that this stands for, if there was one.
    pub fn instead_of(&self) -> Option<NonZeroU32> {
        self.instead_of
    }

    /// Makes it one that a relay can go on with. Nothing happens to its sockets.
    ///
    /// # Errors
    /// [`Refused::Unsound`].
    pub fn bind(
        self,
        sockets: [OwnedFd; 2],
        binding: Binding,
        relay: &RelayHandle,
    ) -> Result<Resume, Refused> {
        self.expect(binding, relay).map(|expected| expected.connect(sockets))
    }

    /// The same without its sockets.
    ///
    /// # Errors
    /// [`Refused::Unsound`].
    pub fn expect(self, binding: Binding, relay: &RelayHandle) -> Result<Expected, Refused> {
        // It goes on from when it stood still, so that the way counts for its age and for all that it waits for.
        let ago_us = self.at_us.map_or(0, |at_us| monotonic_micros().saturating_sub(at_us));
        self.expect_at(binding, relay, clock_ms().saturating_sub(ago_us / 1000))
    }

    /// The same at a time of the clock of this relay.
    pub(crate) fn expect_at(
        self,
        binding: Binding,
        relay: &RelayHandle,
        now_ms: u64,
    ) -> Result<Expected, Refused> {
        let (counters, record_limit) = relay.for_tunnels();
        Tunnel::restore(self.state, binding, counters, record_limit, now_ms).map(Expected)
    }
}

impl RelayHandle {
    /// Takes tunnels out of the relay, those that can move of [`MAX_FROZEN`] places from this one on; 0 is the first. Those
    /// that could not go to another process before ([`Fate::Stays`]) are among them only if it is tried `afresh`. It waits
    /// for the end of a turn.
    ///
    /// # Errors
    /// When the relay has stopped.
    pub fn freeze(&self, from: usize, afresh: bool) -> Result<Page, Stopped> {
        let page = self.take_frozen(from, afresh)?.recv().map_err(|_| Stopped)?;
        Ok(self.owing(page))
    }

    /// The states of those tunnels that can move of [`MAX_ANNOUNCED`] places from this one on; 0 is the first. It waits for
    /// the end of a turn.
    ///
    /// # Errors
    /// When the relay has stopped.
    pub fn announce(&self, from: usize) -> Result<Announcements, Stopped> {
        let states = self.take_states(from)?.recv().map_err(|_| Stopped)?;
        Ok(announcements(states))
    }

    /// Answers for what was taken out of the relay.
    pub(crate) fn owing(&self, page: FrozenPage) -> Page {
        let FrozenPage { tunnels, stays, next, at_ms } = page;
        let at_us = micros_of(at_ms);
        Page { frozen: Frozen { relay: self.clone(), tunnels, at_ms, at_us }, stays, next }
    }
}

pub(crate) fn announcements(states: States) -> Announcements {
    let States { tunnels, next, at_ms } = states;
    let at_us = micros_of(at_ms);
    let tunnels = tunnels.into_iter();
    let tunnels =
        tunnels.map(|(ticket, number, state)| Announcement { ticket, number, state, at_us });
    let tunnels = tunnels.collect();
    Announcements { tunnels, next }
}

/// A moment of the relay's clock by the one that all processes share.
fn micros_of(at_ms: u64) -> u64 {
    let ago_us = clock_ms().saturating_sub(at_ms).saturating_mul(1000);
    monotonic_micros().saturating_sub(ago_us)
}
