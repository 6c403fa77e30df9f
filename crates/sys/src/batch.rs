//! Socket calls that enter the kernel together, by io_uring.
//!
//! Nothing is left in the ring when a call returns: every operation says that it does not wait, so the
//! kernel carries it out while it is submitted, and the answers are those of [`crate::socket`]. What
//! is saved is the way into the kernel and back. epoll still tells when. Where io_uring is missing or
//! forbidden, as in many containers, and for a few calls, the system calls themselves are made.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::{fmt, io};

use io_uring::{IoUring, opcode, types};

use crate::socket::{self, Received, Sent};

/// With fewer calls than this it costs more to fill the ring than to make them.
const WORTH_IT: usize = 4;

/// Makes many socket calls at once.
pub struct Batch {
    ring: Option<IoUring>,
    /// Why there is no ring any more.
    failure: Option<io::Error>,
    /// Those to make. Only looked at by the call that has filled it, for its pointers end with that.
    calls: Vec<Call>,
    outcomes: Vec<Outcome>,
}

// SAFETY: nobody looks at what is in `calls` between two calls, and the ring may move between threads.
unsafe impl Send for Batch {}

/// One call, as io_uring is told.
struct Call {
    socket: RawFd,
    bytes: *mut u8,
    len: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Recv,
    Send,
}

/// What the kernel said to one call: a number of bytes or an `errno`, negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome(i32);

impl Outcome {
    /// What a read found.
    pub fn received(self) -> io::Result<Received> {
        match self.count()? {
            None => Ok(Received::Blocked),
            Some(0) => Ok(Received::End),
            Some(n) => Ok(Received::Bytes(n)),
        }
    }

    /// What a write did.
    pub fn sent(self) -> io::Result<Sent> {
        Ok(self.count()?.map_or(Sent::Blocked, Sent::Bytes))
    }

    /// Nothing was moved, and not because of the socket: the call was interrupted, or io_uring itself gave
    /// it up, for instance for want of memory.
    fn is_none_of_the_sockets(self) -> bool {
        [libc::EINTR, libc::ECANCELED, libc::ENOMEM].contains(&-self.0)
    }

    fn count(self) -> io::Result<Option<usize>> {
        match usize::try_from(self.0) {
            Ok(n) => Ok(Some(n)),
            Err(_) if self.0 == -libc::EAGAIN => Ok(None),
            Err(_) => Err(io::Error::from_raw_os_error(-self.0)),
        }
    }
}

impl Batch {
    /// One that gives the kernel up to `size` calls at once, or an error that says why it does not let
    /// us: `ENOSYS` and `EPERM` where it is missing or forbidden.
    pub fn new(size: u32) -> io::Result<Self> {
        let mut batch = Self { ring: Some(IoUring::new(size)?), ..Self::one_by_one() };
        batch.prove()?;
        Ok(batch)
    }

    /// One that makes call after call.
    pub fn one_by_one() -> Self {
        Self { ring: None, failure: None, calls: Vec::new(), outcomes: Vec::new() }
    }

    /// Whether calls enter the kernel together.
    pub fn is_joint(&self) -> bool {
        self.ring.is_some()
    }

    /// Why calls do not enter the kernel together any more, once after that has come to be.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Reads from every socket what is there into the buffer beside it, which must not be empty. There
    /// is an outcome for each, in their order.
    pub fn recv<'a>(
        &mut self,
        calls: impl Iterator<Item = (BorrowedFd<'a>, &'a mut [u8])>,
    ) -> &[Outcome] {
        self.calls.clear();
        self.calls.extend(calls.map(|(socket, buffer)| Call {
            socket: socket.as_raw_fd(),
            bytes: buffer.as_mut_ptr(),
            len: buffer.len(),
        }));
        // SAFETY: sockets and buffers are borrowed for longer than this call, the buffers one by one.
        unsafe { self.make(Kind::Recv) }
    }

    /// Writes to every socket as much of the bytes beside it as the kernel takes. There is an outcome
    /// for each, in their order.
    pub fn send<'a>(
        &mut self,
        calls: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
    ) -> &[Outcome] {
        self.calls.clear();
        self.calls.extend(calls.map(|(socket, bytes)| Call {
            socket: socket.as_raw_fd(),
            bytes: bytes.as_ptr().cast_mut(),
            len: bytes.len(),
        }));
        // SAFETY: sockets and bytes are borrowed for longer than this call, and nothing is written.
        unsafe { self.make(Kind::Send) }
    }

    /// Makes the calls.
    ///
    /// # Safety
    ///
    /// Sockets must be open, and bytes valid for what `kind` does to them, until it returns.
    unsafe fn make(&mut self, kind: Kind) -> &[Outcome] {
        self.outcomes.clear();
        while self.outcomes.len() < self.calls.len() {
            let rest = &self.calls[self.outcomes.len()..];
            match &mut self.ring {
                Some(ring) if rest.len() >= WORTH_IT => {
                    let begin = self.outcomes.len();
                    // SAFETY: as the caller promises.
                    let done = unsafe { submit(ring, kind, rest, &mut self.outcomes) };
                    if let Err(error) = done {
                        // The kernel took none of what has no outcome.
                        self.failure = Some(error);
                        self.ring = None;
                    }
                    // SAFETY: as the caller promises.
                    unsafe { repeat(kind, rest, &mut self.outcomes[begin..]) };
                }
                _ => {
                    // SAFETY: as the caller promises.
                    let outcomes = rest.iter().map(|call| unsafe { call.make(kind) });
                    self.outcomes.extend(outcomes);
                }
            }
        }
        &self.outcomes
    }

    /// Sees to it that operations are carried out while they are submitted: with a kernel or a sandbox
    /// that defers one which would wait, everybody would wait for it.
    fn prove(&mut self) -> io::Result<()> {
        let refused = || io::Error::from_raw_os_error(libc::ENOSYS);
        let ring = self.ring.as_mut().ok_or_else(refused)?;
        let (near, far) = UnixStream::pair()?;
        let mut buffer = [0; 2];
        let bytes = buffer.as_mut_ptr();
        let receive = Call { socket: far.as_raw_fd(), bytes, len: 2 };
        let nothing = Call { socket: near.as_raw_fd(), bytes: NOTHING.as_ptr().cast_mut(), len: 1 };
        let blocked = -libc::EAGAIN;
        // SAFETY: an operation is over after `carried_out`, or waits. If the first one does, it writes
        // nothing until its socket and its ring are gone; if not, no other `recv` will. What is sent is
        // there for ever.
        unsafe {
            let steps = carried_out(ring, &receive, Kind::Recv)? == Some(blocked)
                && carried_out(ring, &nothing, Kind::Send)? == Some(1)
                && carried_out(ring, &receive, Kind::Recv)? == Some(1);
            if !steps {
                return Err(refused());
            }
            while let Sent::Bytes(_) = socket::send(near.as_fd(), &NOTHING)? {}
            match carried_out(ring, &nothing, Kind::Send)? {
                Some(result) if result == blocked => Ok(()),
                _ => Err(refused()),
            }
        }
    }
}

/// Makes those calls alone whose outcomes say nothing of their sockets.
///
/// # Safety
///
/// As [`Batch::make`].
unsafe fn repeat(kind: Kind, calls: &[Call], outcomes: &mut [Outcome]) {
    for (call, outcome) in calls.iter().zip(outcomes) {
        if outcome.is_none_of_the_sockets() {
            // SAFETY: as the caller promises.
            *outcome = unsafe { call.make(kind) };
        }
    }
}

/// Something to send that is always there.
static NOTHING: [u8; 4096] = [0; 4096];

/// What came of an operation when its submission returned, if it was over then.
///
/// # Safety
///
/// The socket must be open and the bytes valid until the operation is over.
unsafe fn carried_out(ring: &mut IoUring, call: &Call, kind: Kind) -> io::Result<Option<i32>> {
    // SAFETY: as the caller promises.
    let pushed = unsafe { ring.submission().push(&call.entry(kind, 0)) };
    pushed.map_err(|_| io::Error::from_raw_os_error(libc::ENOSYS))?;
    ring.submit()?;
    Ok(ring.completion().next().map(|entry| entry.result()))
}

/// Gives as many of `calls` to the kernel as the ring holds and adds their outcomes. After an error,
/// those without an outcome were not made.
///
/// # Safety
///
/// As [`Batch::make`].
unsafe fn submit(
    ring: &mut IoUring,
    kind: Kind,
    calls: &[Call],
    outcomes: &mut Vec<Outcome>,
) -> io::Result<()> {
    let before = outcomes.len();
    let mut queue = ring.submission();
    for (number, call) in (0..).zip(calls) {
        // SAFETY: as the caller promises, until every outcome is there.
        if unsafe { queue.push(&call.entry(kind, number)) }.is_err() {
            break;
        }
    }
    let count = queue.len();
    drop(queue);
    outcomes.resize(before + count, Outcome(0));
    let mut missing = count;
    while missing > 0 {
        let entered = ring.submit_and_wait(missing);
        for entry in ring.completion() {
            let number = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            if let Some(outcome) = outcomes.get_mut(before + number) {
                *outcome = Outcome(entry.result());
                missing -= 1;
            }
        }
        if let Err(error) = entered {
            let waiting = ring.submission().len();
            // The kernel takes them in their order, and those that it took have come back.
            if error.kind() != io::ErrorKind::Interrupted && waiting == missing {
                outcomes.truncate(before + count - waiting);
                return Err(error);
            }
        }
    }
    Ok(())
}

impl Call {
    fn entry(&self, kind: Kind, number: u64) -> io_uring::squeue::Entry {
        let socket = types::Fd(self.socket);
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        let entry = match kind {
            Kind::Recv => {
                opcode::Recv::new(socket, self.bytes, len).flags(libc::MSG_DONTWAIT).build()
            }
            Kind::Send => opcode::Send::new(socket, self.bytes, len)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build(),
        };
        entry.user_data(number)
    }

    /// Makes it alone.
    ///
    /// # Safety
    ///
    /// As [`Batch::make`].
    unsafe fn make(&self, kind: Kind) -> Outcome {
        // SAFETY: the socket is open, as the caller promises.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        let result = match kind {
            Kind::Recv => {
                // SAFETY: the buffer is valid for writes, and nobody else has it.
                let buffer = unsafe { std::slice::from_raw_parts_mut(self.bytes, self.len) };
                socket::recv(socket, buffer).map(|received| match received {
                    Received::Bytes(n) => Some(n),
                    Received::End => Some(0),
                    Received::Blocked => None,
                })
            }
            Kind::Send => {
                // SAFETY: the bytes are valid for reads.
                let bytes = unsafe { std::slice::from_raw_parts(self.bytes, self.len) };
                socket::send(socket, bytes).map(|sent| match sent {
                    Sent::Bytes(n) => Some(n),
                    Sent::Blocked => None,
                })
            }
        };
        Outcome(match result {
            Ok(Some(n)) => i32::try_from(n).unwrap_or(i32::MAX),
            Ok(None) => -libc::EAGAIN,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("joint", &self.is_joint()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// One that makes call after call, and one that does not where the kernel lets us.
    fn both() -> Vec<Batch> {
        let joint = Batch::new(8).inspect_err(|error| {
            eprintln!("SKIPPED: joint calls, for the kernel refuses io_uring: {error}");
        });
        [Some(Batch::one_by_one()), joint.ok()].into_iter().flatten().collect()
    }

    #[test]
    fn every_call_has_its_outcome_in_its_place() {
        for mut batch in both() {
            // More than the ring holds at once.
            let mut pairs: Vec<_> = (0..21).map(|_| UnixStream::pair().unwrap()).collect();
            for (number, (near, _)) in pairs.iter_mut().enumerate() {
                if number % 3 == 1 {
                    near.write_all(&vec![number as u8; number]).unwrap();
                }
            }
            let mut pairs: Vec<_> = (pairs.into_iter().enumerate())
                .map(|(number, (near, far))| ((number % 3 != 2).then_some(near), far))
                .collect();
            let mut buffers = vec![[0; 32]; pairs.len()];
            let calls = pairs.iter().zip(&mut buffers);
            let calls = calls.map(|((_, far), buffer)| (far.as_fd(), &mut buffer[..]));
            let found: Vec<_> = batch.recv(calls).iter().map(|it| it.received().unwrap()).collect();
            for (number, found) in found.into_iter().enumerate() {
                match number % 3 {
                    0 => assert_eq!(found, Received::Blocked),
                    1 => assert_eq!(found, Received::Bytes(number)),
                    _ => assert_eq!(found, Received::End),
                }
                let read = if number % 3 == 1 { number } else { 0 };
                assert_eq!(buffers[number][..read], vec![number as u8; read]);
                assert_eq!(buffers[number][read..], vec![0; 32 - read]);
            }

            let bytes = [7; 5];
            let calls = pairs.iter().map(|(_, far)| (far.as_fd(), &bytes[..]));
            let outcomes = batch.send(calls).to_vec();
            for (number, outcome) in outcomes.into_iter().enumerate() {
                match &mut pairs[number].0 {
                    Some(near) => {
                        assert_eq!(outcome.sent().unwrap(), Sent::Bytes(5));
                        let mut arrived = [0; 5];
                        near.read_exact(&mut arrived).unwrap();
                        assert_eq!(arrived, bytes);
                    }
                    None => {
                        let error = outcome.sent().unwrap_err();
                        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                    }
                }
            }
        }
    }

    #[test]
    fn a_full_peer_takes_a_part_and_then_nothing_and_nobody_waits() {
        for mut batch in both() {
            let pairs: Vec<_> = (0..6).map(|_| UnixStream::pair().unwrap()).collect();
            let bytes = vec![1; 1 << 20];
            let calls = || pairs.iter().map(|(_, far)| (far.as_fd(), &bytes[..]));
            for outcome in batch.send(calls()) {
                let Sent::Bytes(taken) = outcome.sent().unwrap() else { panic!("nothing taken") };
                assert!(taken < bytes.len());
            }
            let full = Ok(Sent::Blocked);
            let second = batch.send(calls()).to_vec();
            assert!(second.iter().all(|outcome| outcome.sent().map_err(|_| ()) == full));
        }
    }

    #[test]
    fn no_calls_are_no_outcomes() {
        for mut batch in both() {
            assert!(batch.recv(std::iter::empty()).is_empty());
            assert!(batch.send(std::iter::empty()).is_empty());
        }
    }

    #[test]
    fn calls_that_were_given_up_are_made_alone_and_no_others() {
        let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
        let mut bytes = *b"abc";
        let calls: Vec<_> = pairs
            .iter()
            .map(|(near, _)| Call { socket: near.as_raw_fd(), bytes: bytes.as_mut_ptr(), len: 3 })
            .collect();
        let given = [-libc::ECANCELED, -libc::EPIPE, 3, -libc::EINTR];
        let mut outcomes = given.map(Outcome);
        // SAFETY: sockets and bytes live on.
        unsafe { repeat(Kind::Send, &calls, &mut outcomes) };
        assert_eq!(outcomes, [3, -libc::EPIPE, 3, 3].map(Outcome));
        let arrived = pairs.into_iter().map(|(_, mut far)| {
            far.set_nonblocking(true).unwrap();
            far.read(&mut [0; 8]).unwrap_or(0)
        });
        assert_eq!(arrived.collect::<Vec<_>>(), [3, 0, 0, 3]);
    }

    #[test]
    fn a_ring_that_breaks_is_left_and_no_call_is_lost() {
        let Ok(mut batch) = Batch::new(8) else {
            return eprintln!("SKIPPED: the kernel refuses io_uring");
        };
        // Behind its back, as nothing else makes it fail.
        let ring = batch.ring.as_ref().unwrap().as_raw_fd();
        let (hole, _) = UnixStream::pair().unwrap();
        // SAFETY: the descriptor stays one; the ring's memory stays mapped.
        assert!(unsafe { libc::dup2(hole.as_raw_fd(), ring) } >= 0);
        let pairs: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
        let calls = pairs.iter().map(|(near, _)| (near.as_fd(), &b"abc"[..]));
        assert!(batch.send(calls).iter().all(|it| it.sent().unwrap() == Sent::Bytes(3)));
        assert!(!batch.is_joint());
        let failure = batch.take_failure().map(|error| error.raw_os_error());
        assert_eq!((failure, batch.take_failure().is_none()), (Some(Some(libc::EOPNOTSUPP)), true));
        for (_, mut far) in pairs {
            let mut arrived = [0; 8];
            assert_eq!(far.read(&mut arrived).unwrap(), 3, "sent once");
        }
    }
}
