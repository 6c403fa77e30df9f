//! Files in memory that nobody can change any more (`memfd_create` and its seals, fcntl(2)).
//!
//! Whoever has the descriptor of one can read it, and be sure that it stays as it is; it is gone with the last descriptor.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::epoll::check;

/// What nobody may do with it any more, nor take these back.
const SEALS: libc::c_int =
    libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;

/// `MFD_NOEXEC_SEAL`: it never becomes a program. Kernels before 6.3 do not know it.
const NEVER_A_PROGRAM: libc::c_uint = 8;

/// One that is being written.
#[derive(Debug)]
pub struct Unsealed(File);

impl Unsealed {
    /// An empty one.
    ///
    /// # Errors
    /// When the system does not give us one.
    pub fn create() -> io::Result<Self> {
        let create = |more| {
            let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | more;
            // SAFETY: the name is a C string that lives through the call.
            check(unsafe { libc::memfd_create(c"wssgate".as_ptr(), flags) })
        };
        let number = create(NEVER_A_PROGRAM).or_else(|_| create(0))?;
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        Ok(Self(unsafe { File::from_raw_fd(number) }))
    }

    /// From now on it stays as it is, for whoever has a descriptor of it.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn seal(self) -> io::Result<OwnedFd> {
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
        Ok(self.0.into())
    }
}

impl AsFd for Unsealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Write for Unsealed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// One that stays as it is.
#[derive(Debug)]
pub struct Sealed {
    file: File,
    len: u64,
}

impl Sealed {
    /// What somebody has passed on; `None` if that is something else, or can still be changed.
    pub fn open(descriptor: OwnedFd) -> Option<Self> {
        let file = File::from(descriptor);
        // SAFETY: takes numbers; what cannot be sealed answers with an error.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        // An error has all bits set.
        if seals < 0 || seals & SEALS != SEALS {
            return None;
        }
        let len = file.metadata().ok()?.len();
        Some(Self { file, len })
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads what stands from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when there is less.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_and_not_changed() {
        let mut unsealed = Unsealed::create().unwrap();
        unsealed.write_all(b"before ").unwrap();
        unsealed.write_all(b"and after").unwrap();
        let descriptor = unsealed.seal().unwrap();
        let mut writer = File::from(descriptor.try_clone().unwrap());
        assert_eq!(writer.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(writer.set_len(1).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let sealed = Sealed::open(descriptor).unwrap();
        assert!(sealed.len() == 16 && !sealed.is_empty());
        let mut buffer = [0; 9];
        sealed.read(&mut buffer, 7).unwrap();
        assert_eq!(&buffer, b"and after");
        for offset in [8, 16, u64::from(u32::MAX)] {
            let error = sealed.read(&mut buffer, offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(sealed.read(&mut buffer, u64::MAX).is_err());
    }

    #[test]
    fn what_can_be_changed_is_not_opened() {
        let unsealed = Unsealed::create().unwrap();
        assert!(Sealed::open(unsealed.0.into()).is_none());
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Sealed::open(one.into()).is_none());
        assert!(Sealed::open(File::open("/dev/null").unwrap().into()).is_none());
        let half = Unsealed::create().unwrap();
        let seals = SEALS & !libc::F_SEAL_WRITE;
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(half.0.as_raw_fd(), libc::F_ADD_SEALS, seals) }).unwrap();
        assert!(Sealed::open(half.0.into()).is_none());
    }
}
