//! The side that has the tunnels.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use wssgate_sys::errno::ETOOMANYREFS;
use wssgate_sys::rights;

use crate::wire::{self, HEADER, Header, Kind, Malformed, Refusal, Verdict};
use crate::{Deadline, MAX_BATCH, MAX_BATCH_BYTES, MAX_NOTE, MAX_RECORD};

/// How many batches may be sent without their outcome having been asked for. Their answers have room in the socket, so
/// that the taker never waits to write one.
pub const MAX_OUTSTANDING: usize = 4;

/// The longest pause until a batch is offered again that found too many descriptors on their way. When those of this
/// channel have arrived, an answer says so; of those of others nothing tells.
const MAX_PAUSE: Duration = Duration::from_millis(16);

/// What travels of one tunnel.
#[derive(Clone, Copy)]
pub struct Parcel<'a> {
    /// What is known of it, at most [`MAX_RECORD`] bytes.
    pub record: &'a [u8],
    /// Its two sockets. The giver keeps its own descriptors; once a tunnel is taken it closes them, and does nothing else
    /// with them: `shutdown` would end the connection for the taker too.
    pub sockets: [BorrowedFd<'a>; 2],
}

impl fmt::Debug for Parcel<'_> {
    /// Without the record, which has secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

/// What has become of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The taker serves it.
    Taken,
    /// The taker does not want it: the giver goes on.
    Refused(Refusal),
    /// It was not taken, and never will be: the giver goes on.
    Kept,
    /// The taker has broken the contract, and may serve it or not: nobody else must. The giver closes its sockets.
    Unknown,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Taken => Self::Taken,
            Verdict::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

/// Why something could not be given.
#[derive(Debug, Clone, Error)]
pub enum GiveError {
    /// A record or note is longer than it may be. Others can be sent.
    #[error("{0} bytes are more than may travel in one piece")]
    TooLong(usize),
    /// For the whole wait there were as many descriptors of this user on their way, in all channels together, as this
    /// process may open. Nothing was sent; it can be tried again.
    #[error("too many descriptors are on their way, for the limit of open files")]
    TooManyInFlight,
    /// The taker has not read, or not answered, for the whole wait.
    #[error("the other process has not answered in time")]
    Timeout,
    /// The taker has closed its end.
    #[error("the other process has gone")]
    Gone,
    /// The taker has sent what is no answer.
    #[error("the answer of the other process makes no sense")]
    Malformed,
    /// The system has refused something.
    #[error("the channel to the other process has failed")]
    Channel(#[source] Arc<io::Error>),
    /// Its owner has called [`Giver::give_up`].
    #[error("the hand-over was given up")]
    GivenUp,
}

/// What has become of the tunnels of [`Giver::give`].
#[derive(Debug)]
pub struct Given {
    /// Of each, in the order of the parcels.
    pub outcomes: Vec<Outcome>,
    /// Why some of them were not offered or not answered.
    pub error: Option<GiveError>,
}

/// One end of the channel: sends batches and learns what has become of them.
///
/// Every batch that was sent has one outcome for each of its tunnels, in the order of sending, whatever happens. With the
/// first failure of the channel the giver hangs up, all outcomes are decided, and nothing more can be sent. Whoever drops
/// it before it has told all outcomes does not know them.
#[derive(Debug)]
pub struct Giver {
    channel: OwnedFd,
    /// The bound of every wait.
    wait: Duration,
    /// The number of the next batch.
    number: u32,
    /// Batches that were sent and are undecided, oldest first.
    undecided: VecDeque<Undecided>,
    /// The outcomes of those before them, which nobody has asked for yet.
    decided: VecDeque<Vec<Outcome>>,
    /// The beginning of an answer.
    incoming: Vec<u8>,
    failure: Option<GiveError>,
}

#[derive(Debug)]
struct Undecided {
    number: u32,
    tunnels: usize,
}

impl Giver {
    /// With this end of the channel; nothing waits for longer than `wait`.
    pub fn new(channel: OwnedFd, wait: Duration) -> Self {
        Self {
            channel,
            wait,
            number: 0,
            undecided: VecDeque::with_capacity(MAX_OUTSTANDING),
            decided: VecDeque::with_capacity(MAX_OUTSTANDING),
            incoming: Vec::new(),
            failure: None,
        }
    }

    /// Sends a batch from the front of `parcels`, and returns how many of them that was: as many as have room in it, so at
    /// least one if there are any. Until [`Giver::outcomes`] tells of them, nobody may serve them.
    ///
    /// # Errors
    /// None of these parcels is in the taker's hands or will be.
    ///
    /// # Panics
    /// When there are [`MAX_OUTSTANDING`] batches already ([`Giver::outstanding`]).
    pub fn send(&mut self, parcels: &[Parcel<'_>]) -> Result<usize, GiveError> {
        assert!(self.outstanding() < MAX_OUTSTANDING, "ask for outcomes first");
        self.working()?;
        let tunnels = fitting(parcels)?;
        let parcels = &parcels[..tunnels];
        if parcels.is_empty() {
            return Ok(0);
        }
        let records: usize = parcels.iter().map(|parcel| parcel.record.len()).sum();
        let len = 4 * tunnels + records;
        let mut head = Vec::with_capacity(HEADER + 4 * tunnels);
        let header = Header { kind: Kind::Batch, tunnels, number: self.number, len };
        head.extend_from_slice(&header.encode());
        for parcel in parcels {
            let len = u32::try_from(parcel.record.len()).expect("a record is bounded");
            head.extend_from_slice(&len.to_le_bytes());
        }
        let records = parcels.iter().map(|parcel| IoSlice::new(parcel.record));
        let mut pieces: Vec<_> = std::iter::once(IoSlice::new(&head)).chain(records).collect();
        let sockets: Vec<_> = parcels.iter().flat_map(|parcel| parcel.sockets).collect();
        self.write(&mut pieces, &sockets)?;
        self.undecided.push_back(Undecided { number: self.number, tunnels });
        self.number = self.number.wrapping_add(1);
        Ok(tunnels)
    }

    /// How many batches were sent whose outcomes were not asked for.
    pub fn outstanding(&self) -> usize {
        self.undecided.len() + self.decided.len()
    }

    /// What has become of the oldest batch that was sent and not asked for, as soon as it is known: a taker that does not
    /// answer in time has not taken it. `None` if there is no batch.
    pub fn outcomes(&mut self) -> Option<Vec<Outcome>> {
        let deadline = Deadline::after(self.wait);
        loop {
            if let Some(outcomes) = self.poll_outcomes() {
                return Some(outcomes);
            }
            if self.undecided.is_empty() {
                return None;
            }
            match rights::wait_readable(self.channel.as_fd(), deadline.left()) {
                Ok(true) => {}
                Ok(false) => self.fail(GiveError::Timeout),
                Err(error) => self.fail(channel(error)),
            }
        }
    }

    /// The same without waiting: `None` also if it is not known yet.
    pub fn poll_outcomes(&mut self) -> Option<Vec<Outcome>> {
        if self.decided.is_empty() && !self.undecided.is_empty() {
            self.read_answers();
        }
        self.decided.pop_front()
    }

    /// Gives tunnels and waits for what becomes of them all. The last ones are [`Outcome::Kept`] if there is an error.
    ///
    /// # Panics
    /// When there are batches whose outcomes were not asked for.
    pub fn give(&mut self, parcels: &[Parcel<'_>]) -> Given {
        assert_eq!(self.outstanding(), 0, "ask for outcomes first");
        let mut outcomes = Vec::with_capacity(parcels.len());
        let (mut rest, mut error) = (parcels, None);
        while !rest.is_empty() && error.is_none() {
            if self.outstanding() == MAX_OUTSTANDING {
                outcomes.extend(self.outcomes().into_iter().flatten());
            }
            match self.send(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(reason) => error = Some(reason),
            }
        }
        while let Some(more) = self.outcomes() {
            outcomes.extend(more);
        }
        outcomes.resize(parcels.len(), Outcome::Kept);
        Given { outcomes, error: error.or_else(|| self.failure.clone()) }
    }

    /// Sends bytes that concern several tunnels; they arrive in their order among the batches, and have no answer.
    ///
    /// # Errors
    /// The note will not arrive.
    pub fn note(&mut self, note: &[u8]) -> Result<(), GiveError> {
        self.working()?;
        if note.len() > MAX_NOTE {
            return Err(GiveError::TooLong(note.len()));
        }
        let header = Header { kind: Kind::Note, tunnels: 0, number: 0, len: note.len() }.encode();
        self.write(&mut [IoSlice::new(&header), IoSlice::new(note)], &[])
    }

    /// Tells the taker that this was all.
    ///
    /// # Errors
    /// The taker is not told, and sees the channel end.
    ///
    /// # Panics
    /// When there are batches whose outcomes were not asked for.
    pub fn finish(mut self) -> Result<(), GiveError> {
        assert_eq!(self.outstanding(), 0, "ask for outcomes first");
        self.working()?;
        let header = Header { kind: Kind::End, tunnels: 0, number: 0, len: 0 }.encode();
        self.write(&mut [IoSlice::new(&header)], &[])
    }

    /// Hangs up: what the taker has answered counts, and the rest stays here. [`Giver::outcomes`] tells.
    pub fn give_up(&mut self) {
        self.fail(GiveError::GivenUp);
    }

    /// Why nothing more can be sent.
    pub fn failure(&self) -> Option<&GiveError> {
        self.failure.as_ref()
    }

    fn working(&self) -> Result<(), GiveError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Writes all pieces, the sockets with the first byte. If that fails after a part of it, or for good, so does the
    /// channel.
    fn write(
        &mut self,
        mut pieces: &mut [IoSlice<'_>],
        mut sockets: &[BorrowedFd<'_>],
    ) -> Result<(), GiveError> {
        let deadline = Deadline::after(self.wait);
        let mut pause = Duration::from_millis(1);
        while !pieces.is_empty() {
            match rights::send(self.channel.as_fd(), pieces, sockets) {
                Ok(sent) => {
                    IoSlice::advance_slices(&mut pieces, sent);
                    sockets = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match rights::wait_writable(self.channel.as_fd(), deadline.left()) {
                        Ok(true) => {}
                        Ok(false) => return Err(self.failed(GiveError::Timeout)),
                        Err(error) => return Err(self.failed(channel(error))),
                    }
                }
                // Only for the first byte. The kernel compares what is on its way already, so a smaller batch would fare
                // no better.
                Err(error) if error.raw_os_error() == Some(ETOOMANYREFS) => {
                    if deadline.left() == Some(Duration::ZERO) {
                        return Err(GiveError::TooManyInFlight);
                    }
                    self.await_arrivals(pause.min(deadline.left().unwrap_or(pause)))?;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Err(error) => return Err(self.failed(channel(error))),
            }
        }
        Ok(())
    }

    /// Waits for an answer, for the descriptors of its batch have arrived; or until others may have made room.
    fn await_arrivals(&mut self, pause: Duration) -> Result<(), GiveError> {
        match rights::wait_readable(self.channel.as_fd(), Some(pause)) {
            Ok(true) => self.read_answers(),
            Ok(false) => {}
            Err(error) => self.fail(channel(error)),
        }
        self.working()
    }

    /// Reads and decides what is there.
    fn read_answers(&mut self) {
        loop {
            match self.read() {
                Ok(0) => return self.fail(GiveError::Gone),
                Ok(_) => {
                    if self.decide().is_err() {
                        return self.fail(GiveError::Malformed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.fail(channel(error)),
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 8192];
        let none = &mut Vec::new();
        let len = rights::receive(self.channel.as_fd(), &mut buffer, 0, none)?.len;
        self.incoming.extend_from_slice(&buffer[..len]);
        Ok(len)
    }

    /// Takes whole answers out of what has come in.
    fn decide(&mut self) -> Result<(), Malformed> {
        while !self.incoming.is_empty() {
            let oldest = self.undecided.front().ok_or(Malformed)?;
            let answer = wire::decode_answer(&self.incoming, oldest.number, oldest.tunnels)?;
            let Some((verdicts, len)) = answer else { return Ok(()) };
            self.incoming.drain(..len);
            self.undecided.pop_front();
            self.decided.push_back(verdicts.into_iter().map(Outcome::from).collect());
        }
        Ok(())
    }

    fn failed(&mut self, reason: GiveError) -> GiveError {
        self.fail(reason.clone());
        reason
    }

    /// Ends the channel and decides every batch: the first failure counts.
    fn fail(&mut self, reason: GiveError) {
        if self.failure.is_some() {
            return;
        }
        let is_certain = self.read_what_was_answered();
        let rest = if is_certain { Outcome::Kept } else { Outcome::Unknown };
        let rest = self.undecided.drain(..).map(|batch| vec![rest.clone(); batch.tunnels]);
        self.decided.extend(rest);
        self.failure = Some(reason);
        self.incoming = Vec::new();
    }

    /// Hangs up and reads to the end: nothing can come afterwards. Whether all that came were answers, the last one perhaps
    /// cut off.
    fn read_what_was_answered(&mut self) -> bool {
        if rights::hang_up(self.channel.as_fd()).is_err() {
            return false;
        }
        loop {
            if self.decide().is_err() {
                return false;
            }
            match self.read() {
                // Only this says that there is nothing more.
                Ok(0) => return true,
                Ok(_) => {}
                // The taker has closed its end while something was on its way to it; told once.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for Giver {
    /// Readable when [`Giver::poll_outcomes`] may have something to tell.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// How many parcels from the front have room in one batch.
fn fitting(parcels: &[Parcel<'_>]) -> Result<usize, GiveError> {
    let mut bytes = 0;
    for (at, parcel) in parcels.iter().take(MAX_BATCH).enumerate() {
        let len = parcel.record.len();
        bytes += len;
        if len > MAX_RECORD || bytes > MAX_BATCH_BYTES {
            return if at == 0 { Err(GiveError::TooLong(len)) } else { Ok(at) };
        }
    }
    Ok(parcels.len().min(MAX_BATCH))
}

/// The peer's end is closed, or something else.
fn channel(error: io::Error) -> GiveError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => GiveError::Gone,
        _ => GiveError::Channel(Arc::new(error)),
    }
}
