//! The side that takes over.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use thiserror::Error;
use wssgate_sys::memory::Secret;
use wssgate_sys::rights;

use crate::wire::{
    self, BadHeader, HEADER, Header, Kind, Refusal, TOO_MANY_OPEN_FILES, VERSION, Verdict,
};
use crate::{Deadline, MAX_BATCH};

/// What arrives.
pub enum Item {
    /// Tunnels, to be answered before anything else is received.
    Batch(Batch),
    /// Bytes that concern several tunnels.
    Note(Secret),
}

/// Tunnels that have arrived together; they are the taker's once it has answered so. Until then it does nothing with their
/// sockets, and if they stay the giver's it closes them and does nothing else.
pub struct Batch {
    /// The records, one behind the other; wiped with the batch.
    records: Secret,
    lens: Vec<usize>,
    /// Two for each.
    sockets: Vec<OwnedFd>,
}

/// What has arrived of one tunnel.
pub struct Arrival<'a> {
    /// What the giver knows of it.
    pub record: &'a [u8],
    /// Its sockets, in the giver's order.
    pub sockets: [OwnedFd; 2],
}

impl Batch {
    /// How many tunnels there are: verdicts are expected for as many. At least one.
    pub fn tunnels(&self) -> usize {
        self.lens.len()
    }

    /// Takes the tunnels out, in their order; the records stay and are wiped with the batch. Can be done once.
    pub fn arrivals(&mut self) -> impl Iterator<Item = Arrival<'_>> {
        let (mut records, mut sockets) = (&self.records[..], self.sockets.drain(..));
        self.lens.iter().map_while(move |&len| {
            let (record, rest) = records.split_at(len);
            records = rest;
            Some(Arrival { record, sockets: [sockets.next()?, sockets.next()?] })
        })
    }
}

/// Records and notes have secrets, so they are not shown.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(batch) => f.debug_tuple("Batch").field(batch).finish(),
            Self::Note(_) => f.debug_tuple("Note").finish_non_exhaustive(),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("tunnels", &self.tunnels()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Arrival<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

/// Why nothing more arrives. Tunnels whose batch was answered are the taker's all the same.
#[derive(Debug, Error)]
pub enum TakeError {
    /// The giver has hung up or ended without having said that this was all.
    #[error("the other process has ended the hand-over")]
    Gone,
    /// The giver has begun something and not gone on for the whole wait.
    #[error("the other process has stopped in the middle")]
    Timeout,
    /// The giver speaks another version of the protocol.
    #[error("the other process hands over in format {0} and this one in format {VERSION}")]
    Version(u8),
    /// The giver has sent what cannot be understood.
    #[error("what the other process hands over makes no sense")]
    Malformed,
    /// The system has refused something.
    #[error("the channel to the other process has failed")]
    Channel(#[source] io::Error),
}

/// Why an answer was not given: all tunnels of the batch are the giver's, and the taker closes their sockets.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// The giver no longer waits for it.
    #[error("the other process has given up")]
    GivenUp,
    /// There was no room for the answer for the whole wait.
    #[error("the other process does not read the answer")]
    Timeout,
    /// The system has refused something.
    #[error("the channel to the other process has failed")]
    Channel(#[source] io::Error),
}

/// The other end of the channel: receives batches and answers them.
#[derive(Debug)]
pub struct Taker {
    channel: OwnedFd,
    wait: Duration,
    state: State,
}

/// `Waiting` ──batch──▶ `Holding` ──answer──▶ `Waiting` ──end, or any error──▶ `Ended`.
#[derive(Debug, Clone, Copy)]
enum State {
    Waiting,
    Holding { number: u32, tunnels: usize },
    Ended { well: bool },
}

impl Taker {
    /// With this end of the channel. When the next item comes is the giver's affair; but it must arrive within `wait` once
    /// it has begun, and an answer must be written within that.
    pub fn new(channel: OwnedFd, wait: Duration) -> Self {
        Self { channel, wait, state: State::Waiting }
    }

    /// Waits for the next item; `None` is the end, in good order.
    ///
    /// A batch of which not all sockets could be opened, because this process may not open more, is refused here and not
    /// shown.
    ///
    /// # Errors
    /// Nothing more comes.
    ///
    /// # Panics
    /// When a batch was received and not answered.
    pub fn receive(&mut self) -> Result<Option<Item>, TakeError> {
        match self.state {
            State::Waiting => {}
            State::Holding { .. } => panic!("answer the last batch first"),
            State::Ended { well: true } => return Ok(None),
            State::Ended { well: false } => return Err(TakeError::Gone),
        }
        let item = self.receive_item();
        match item {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::Ended { well: true },
            Err(_) => self.end(),
        }
        item
    }

    fn receive_item(&mut self) -> Result<Option<Item>, TakeError> {
        loop {
            let mut sockets = Vec::with_capacity(2 * MAX_BATCH);
            let (header, deadline, is_short) = self.receive_header(&mut sockets)?;
            if header.kind == Kind::End {
                return Ok(None);
            }
            let mut lens = [0; 4 * MAX_BATCH];
            let lens = &mut lens[..4 * header.tunnels];
            self.read_exact(lens, deadline)?;
            let (lens, _) = lens.as_chunks();
            let lens: Vec<_> = lens.iter().map(|&len| u32::from_le_bytes(len) as usize).collect();
            let len = header.len - 4 * header.tunnels;
            let is_sum =
                lens.iter().try_fold(0_usize, |sum, &len| sum.checked_add(len)) == Some(len);
            if header.kind == Kind::Batch && !is_sum {
                return Err(TakeError::Malformed);
            }
            let mut bytes = Secret::zeros(len);
            self.read_exact(&mut bytes, deadline)?;
            if header.kind == Kind::Note {
                return Ok(Some(Item::Note(bytes)));
            }
            self.state = State::Holding { number: header.number, tunnels: header.tunnels };
            if !is_short {
                return Ok(Some(Item::Batch(Batch { records: bytes, lens, sockets })));
            }
            drop(sockets);
            let text = "too many open files".to_owned();
            let verdict = Verdict::Refused(Refusal { code: TOO_MANY_OPEN_FILES, text });
            match self.answer(&vec![verdict; header.tunnels]) {
                Ok(()) => {}
                Err(AnswerError::GivenUp) => return Err(TakeError::Gone),
                Err(AnswerError::Timeout) => return Err(TakeError::Timeout),
                Err(AnswerError::Channel(error)) => return Err(TakeError::Channel(error)),
            }
        }
    }

    /// Waits for a header and the sockets that come with its first byte; until when the rest must come, and whether some
    /// of the sockets are lost.
    fn receive_header(
        &self,
        sockets: &mut Vec<OwnedFd>,
    ) -> Result<(Header, Deadline, bool), TakeError> {
        let mut bytes = [0; HEADER];
        let received = loop {
            // No more than the header is asked for, as a read goes on into the next message.
            match rights::receive(self.channel.as_fd(), &mut bytes, 2 * MAX_BATCH, sockets) {
                Ok(received) => break received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    rights::wait_readable(self.channel.as_fd(), None).map_err(channel)?;
                }
                Err(error) => return Err(channel(error)),
            }
        };
        if received.len == 0 {
            return Err(TakeError::Gone);
        }
        let deadline = Deadline::after(self.wait);
        self.read_exact(&mut bytes[received.len..], deadline)?;
        let header = Header::decode(&bytes).map_err(|bad| match bad {
            BadHeader::Version(version) => TakeError::Version(version),
            BadHeader::Malformed => TakeError::Malformed,
        })?;
        let expected = 2 * header.tunnels;
        if sockets.len() != expected && !(received.truncated && sockets.len() < expected) {
            return Err(TakeError::Malformed);
        }
        Ok((header, deadline, received.truncated))
    }

    fn read_exact(&self, mut buffer: &mut [u8], deadline: Deadline) -> Result<(), TakeError> {
        while !buffer.is_empty() {
            match rights::receive(self.channel.as_fd(), buffer, 0, &mut Vec::new()) {
                Ok(rights::Received { len: 0, .. }) => return Err(TakeError::Gone),
                Ok(rights::Received { truncated: true, .. }) => return Err(TakeError::Malformed),
                Ok(received) => buffer = &mut buffer[received.len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !rights::wait_readable(self.channel.as_fd(), deadline.left())
                        .map_err(channel)?
                    {
                        return Err(TakeError::Timeout);
                    }
                }
                Err(error) => return Err(channel(error)),
            }
        }
        Ok(())
    }

    /// Answers the batch that was received last: if this succeeds, the tunnels that were taken are the taker's, and those
    /// that were refused the giver's.
    ///
    /// # Errors
    /// All of them are the giver's, and nothing more can be received.
    ///
    /// # Panics
    /// When there is no such batch, or when it has not as many tunnels as there are verdicts.
    pub fn answer(&mut self, verdicts: &[Verdict]) -> Result<(), AnswerError> {
        let State::Holding { number, tunnels } = self.state else {
            panic!("there is no batch to answer")
        };
        assert_eq!(verdicts.len(), tunnels, "one verdict for each tunnel");
        let written = self.write_at_once(&wire::encode_answer(number, verdicts));
        match written {
            Ok(()) => self.state = State::Waiting,
            Err(_) => self.end(),
        }
        written
    }

    /// In one call of the kernel, or not at all: a part of an answer is none, and is not continued.
    fn write_at_once(&self, bytes: &[u8]) -> Result<(), AnswerError> {
        let deadline = Deadline::after(self.wait);
        loop {
            match rights::send(self.channel.as_fd(), &[IoSlice::new(bytes)], &[]) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(AnswerError::GivenUp),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match rights::wait_writable(self.channel.as_fd(), deadline.left()) {
                        Ok(true) => {}
                        Ok(false) => return Err(AnswerError::Timeout),
                        Err(error) => return Err(AnswerError::Channel(error)),
                    }
                }
                Err(error) => {
                    return Err(match error.kind() {
                        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                            AnswerError::GivenUp
                        }
                        _ => AnswerError::Channel(error),
                    });
                }
            }
        }
    }

    /// Nothing more is received or answered; the giver learns it at once.
    fn end(&mut self) {
        self.state = State::Ended { well: false };
        // It fails only for what is no socket, and then there is nobody to tell.
        let _ = rights::hang_up(self.channel.as_fd());
    }
}

impl AsFd for Taker {
    /// Readable when [`Taker::receive`] need not wait for the next item to begin.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// The peer's end is closed, or something else.
fn channel(error: io::Error) -> TakeError {
    match error.kind() {
        io::ErrorKind::ConnectionReset => TakeError::Gone,
        _ => TakeError::Channel(error),
    }
}
