//! Tunnels that nobody serves for a while: a service manager keeps them between two processes.
//!
//! It keeps a single descriptor for us, whatever the number of tunnels: one end of a Unix stream in which they wait. Its
//! first message brings a sealed file in memory with the records, and each of the others the sockets of some tunnels:
//!
//! ```text
//! "WSGS"  version u8  0 u8 × 3  what is announced   + the file
//! tunnels u8 (1 ..= 126)                            + their sockets, two for each
//! tunnels u8                                        + …
//!
//! the file: length u32, record, length u32, record, …
//! ```
//!
//! What is announced are numbers: the format of records (u32), about how many tunnels there are (u32), and one for whoever
//! takes them up (u64). All numbers are in little endian. Tunnels have the same order in both.
//!
//! Every socket could be stored by itself instead, but a manager such as systemd compares each with all that it has, names
//! them all in one variable of the next process, which can then not be started when there are too many, and has copies of
//! them that outlive ours. What waits in a socket however is taken out by whoever reads it, so that **a tunnel comes to one
//! process only**, even if the manager offers the same descriptor to a second one. And the other end of the stream tells
//! whether anybody has kept this one.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use thiserror::Error;
use wssgate_sys::memory::Secret;
use wssgate_sys::rights;
use wssgate_sys::sealed::{Sealed, Unsealed};

use crate::{MAX_BATCH, MAX_RECORD, Parcel};

/// The version of this format.
pub const DEPOSIT_VERSION: u8 = 1;

/// How many bytes of records one deposit takes.
const MAX_BYTES: u64 = if cfg!(test) { 8 << 20 } else { 256 << 20 };

const HEADER: usize = 24;
const MAGIC: [u8; 4] = *b"WSGS";

/// How long the length of a record is.
const LENGTH: usize = 4;

/// What is known of a deposit before anything is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Which format the records have.
    pub format: u32,
    /// About how many tunnels there are.
    pub tunnels: u32,
    /// What else whoever takes them up has to know first.
    pub number: u64,
}

/// A deposit that is being filled.
#[derive(Debug)]
pub struct Depositing {
    near: OwnedFd,
    far: OwnedFd,
    file: Unsealed,
    bytes: u64,
    tunnels: usize,
}

impl Depositing {
    /// An empty one.
    ///
    /// # Errors
    /// When the system does not give us one.
    pub fn begin(announced: Announced) -> io::Result<Self> {
        let (near, far) = rights::stream_channel()?;
        let file = Unsealed::create()?;
        let header = header(DEPOSIT_VERSION, announced);
        rights::send(near.as_fd(), &[IoSlice::new(&header)], &[file.as_fd()])?;
        Ok(Self { near, far, file, bytes: 0, tunnels: 0 })
    }

    /// Adds tunnels: all of these or none, at least one and at most [`MAX_BATCH`]. Whether there was room for them in this
    /// deposit; another one has some.
    ///
    /// # Errors
    /// Nothing can be done with this deposit any more, for too many descriptors are on their way, or memory is short.
    pub fn add(&mut self, parcels: &[Parcel<'_>]) -> io::Result<bool> {
        let count = u8::try_from(parcels.len()).unwrap_or(u8::MAX);
        let is_long = |parcel: &Parcel<'_>| parcel.record.len() > MAX_RECORD;
        if !(1..=MAX_BATCH).contains(&parcels.len()) || parcels.iter().any(is_long) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let len: usize = parcels.iter().map(|parcel| LENGTH + parcel.record.len()).sum();
        let bytes = self.bytes + len as u64;
        if bytes > MAX_BYTES {
            return Ok(false);
        }
        let sockets: Vec<_> = parcels.iter().flat_map(|parcel| parcel.sockets).collect();
        match rights::send(self.near.as_fd(), &[IoSlice::new(&[count])], &sockets) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut records = Secret::with_capacity(len);
        for parcel in parcels {
            // Cannot be cut off: it was compared just now.
            records.extend_from_slice(&(parcel.record.len() as u32).to_le_bytes());
            records.extend_from_slice(parcel.record);
        }
        self.file.write_all(&records)?;
        self.bytes = bytes;
        self.tunnels += parcels.len();
        Ok(true)
    }

    /// How many tunnels are in it.
    pub fn tunnels(&self) -> usize {
        self.tunnels
    }

    /// It is ready to be kept.
    ///
    /// # Errors
    /// When the file cannot be sealed.
    pub fn finish(self) -> io::Result<Deposit> {
        let Self { near, far, file, .. } = self;
        file.seal()?;
        Ok(Deposit { near, far: Some(far) })
    }
}

/// Tunnels that somebody else is to keep. Dropped, they are taken out again, wherever the descriptor may be by then.
#[derive(Debug)]
pub struct Deposit {
    near: OwnedFd,
    far: Option<OwnedFd>,
}

impl Deposit {
    /// What is to be kept.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.far.as_ref().unwrap_or(&self.near).as_fd()
    }

    /// Leaves it to whoever keeps it: whether anybody does, who may need this long to close what he does not keep.
    pub fn leave(mut self, wait: Duration) -> bool {
        let Some(far) = self.far.take() else { return false };
        drop(far);
        // Nothing is ever sent to it, so that it is readable means the end.
        matches!(rights::wait_readable(self.near.as_fd(), Some(wait)), Ok(false))
    }
}

impl Drop for Deposit {
    fn drop(&mut self) {
        let Some(far) = &self.far else { return };
        let (mut byte, mut some) = ([0; HEADER], Vec::new());
        while rights::receive(far.as_fd(), &mut byte, rights::MOST, &mut some)
            .is_ok_and(|received| received.len > 0)
        {
            some.clear();
        }
    }
}

/// Why a deposit is not taken up.
#[derive(Debug, Error)]
pub enum WithdrawError {
    /// Somebody else has taken up what was there.
    #[error("nothing is left in it")]
    Empty,
    /// Another release has written it.
    #[error("it is stored in format {0} and this program reads format {DEPOSIT_VERSION}")]
    Version(u8),
    /// It cannot be understood.
    #[error("it makes no sense")]
    Malformed,
    /// The system has refused something.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
}

/// A tunnel that was deposited.
pub struct Withdrawn {
    /// What is known of it; wiped with this.
    pub record: Secret,
    /// Its sockets.
    pub sockets: [OwnedFd; 2],
}

/// The record has secrets, so it is not shown.
impl fmt::Debug for Withdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawn").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

/// Some tunnels that were deposited together.
#[derive(Debug, Default)]
pub struct Portion {
    /// Those whose sockets could be opened.
    pub tunnels: Vec<Withdrawn>,
    /// How many there are besides, whose sockets could not: this process may not open as many.
    pub lost: usize,
}

/// A deposit that is being taken up.
#[derive(Debug)]
pub struct Withdrawal {
    announced: Announced,
    socket: OwnedFd,
    records: Sealed,
    offset: u64,
}

impl Withdrawal {
    /// What a descriptor is said to have, if it is a deposit; nothing is taken up.
    pub fn announced_by(descriptor: BorrowedFd<'_>) -> Option<Announced> {
        let mut bytes = [0; HEADER];
        let len = rights::peek(descriptor, &mut bytes).ok()?;
        read_header(&bytes[..len]).ok()
    }

    /// Begins with what a service manager has kept.
    ///
    /// # Errors
    /// The descriptor is closed then.
    pub fn begin(socket: OwnedFd) -> Result<Self, WithdrawError> {
        let (mut bytes, mut file) = ([0; HEADER], Vec::new());
        let len = match rights::receive(socket.as_fd(), &mut bytes, 1, &mut file) {
            Ok(received) => received.len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(WithdrawError::Unreadable(error)),
        };
        let announced = read_header(&bytes[..len])?;
        let records = file.pop().and_then(Sealed::open).ok_or(WithdrawError::Malformed)?;
        Ok(Self { announced, socket, records, offset: 0 })
    }

    /// What it is said to have.
    pub fn announced(&self) -> Announced {
        self.announced
    }

    /// The next tunnels; `None` if there are no more. They are ours only from then on.
    ///
    /// # Errors
    /// There are no more that could be taken up.
    pub fn take(&mut self) -> Result<Option<Portion>, WithdrawError> {
        let (mut count, mut sockets) = ([0], Vec::new());
        let received =
            match rights::receive(self.socket.as_fd(), &mut count, rights::MOST, &mut sockets) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(WithdrawError::Unreadable(error)),
            };
        if received.len == 0 {
            return Ok(None);
        }
        let count = usize::from(count[0]);
        let is_whole = sockets.len() == 2 * count;
        let is_short = received.truncated && sockets.len() < 2 * count;
        if !(1..=MAX_BATCH).contains(&count) || !(is_whole || is_short) {
            return Err(WithdrawError::Malformed);
        }
        let mut some = Portion::default();
        let mut sockets = sockets.into_iter();
        for _ in 0..count {
            let record = self.record()?;
            match (sockets.next(), sockets.next()) {
                (Some(one), Some(other)) => {
                    some.tunnels.push(Withdrawn { record, sockets: [one, other] });
                }
                _ => some.lost += 1,
            }
        }
        Ok(Some(some))
    }

    fn record(&mut self) -> Result<Secret, WithdrawError> {
        let mut len = [0; LENGTH];
        self.read(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > MAX_RECORD {
            return Err(WithdrawError::Malformed);
        }
        let mut record = Secret::zeros(len);
        self.read(&mut record)?;
        Ok(record)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), WithdrawError> {
        self.records.read(buffer, self.offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => WithdrawError::Malformed,
            _ => WithdrawError::Unreadable(error),
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }
}

fn header(version: u8, announced: Announced) -> [u8; HEADER] {
    let Announced { format, tunnels, number } = announced;
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = version;
    header[8..12].copy_from_slice(&format.to_le_bytes());
    header[12..16].copy_from_slice(&tunnels.to_le_bytes());
    header[16..].copy_from_slice(&number.to_le_bytes());
    header
}

fn read_header(bytes: &[u8]) -> Result<Announced, WithdrawError> {
    if bytes.is_empty() {
        return Err(WithdrawError::Empty);
    }
    let Some(([version, _, _, _], numbers)) =
        bytes.strip_prefix(&MAGIC).and_then(|rest| rest.split_first_chunk())
    else {
        return Err(WithdrawError::Malformed);
    };
    if *version != DEPOSIT_VERSION {
        return Err(WithdrawError::Version(*version));
    }
    let &[f0, f1, f2, f3, t0, t1, t2, t3, n0, n1, n2, n3, n4, n5, n6, n7] = numbers else {
        return Err(WithdrawError::Malformed);
    };
    Ok(Announced {
        format: u32::from_le_bytes([f0, f1, f2, f3]),
        tunnels: u32::from_le_bytes([t0, t1, t2, t3]),
        number: u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
    })
}
