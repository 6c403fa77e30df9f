//! Memory that the allocator holds and nobody uses.

#![allow(unsafe_code)]

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
