//! Memory: what the allocator holds and nobody uses, and what must not stay in it.

#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Gives free pages of the heap back to the system; costs some milliseconds when there are many.
///
/// Only glibc needs it: it keeps what was freed between blocks that are in use.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number only, and glibc locks its heaps itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that are wiped when they are dropped, and wherever they were before they grew.
///
/// As `zeroize`, which writes byte for byte; here that would take a third of the time of whoever passes 9,000 records on.
#[derive(Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// None yet, with room for so many.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// So many zeros, to be written over.
    pub fn zeros(len: usize) -> Self {
        Self(vec![0; len])
    }

    /// Adds bytes behind the others.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Self::with_capacity(needed.next_power_of_two());
            larger.0.extend_from_slice(&self.0);
            *self = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    /// Wipes them; the room stays.
    pub fn clear(&mut self) {
        wipe(&mut self.0);
        self.0.clear();
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // Behind its length nothing was ever written: it only grows, or is wiped.
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Secret").field("len", &self.0.len()).finish()
    }
}

/// Writes zeros over these bytes, which the compiler cannot leave out (explicit_bzero(3)).
fn wipe(bytes: &mut [u8]) {
    // SAFETY: the pointer and the length are those of a slice that nobody else has.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Resident pages of this process, by `/proc/self/statm`.
    fn resident_pages() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_secret_is_what_was_written_and_leaves_nothing() {
        let mut secret = Secret::with_capacity(2);
        (0..9).for_each(|byte| secret.extend_from_slice(&[byte, byte]));
        assert_eq!(secret.len(), 18);
        assert_eq!(secret[16..], [8, 8]);
        assert_eq!(format!("{secret:?}"), "Secret { len: 18 }");
        secret.clear();
        // SAFETY: all of the capacity up to there was written before.
        unsafe { secret.0.set_len(18) };
        assert_eq!(*secret, [0; 18]);
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_was_freed_between_blocks_in_use_goes_back() {
        let mut blocks: Vec<_> = (0..20_000).map(|_| Some(vec![1_u8; 2_000])).collect();
        let full = resident_pages();
        // One in a hundred stays, so that no heap ends free.
        for (index, block) in blocks.iter_mut().enumerate() {
            if index % 100 != 0 {
                *block = None;
            }
        }
        trim();
        let left = resident_pages();
        // 40 MB were filled; other tests of this process may have taken some meanwhile.
        assert!(left + 5_000 < full, "{full} pages, then {left}");
    }
}
