//! How large a request head may be, counted in nginx's buffers.
//!
//! nginx reads a head into one small buffer and, when a line does not fit, into a few large ones; a line never spans
//! two. We have one growing buffer, but the same heads must pass and the same must not.

use crate::lines::MAX_HEAD;

/// What a request head may look like: nginx's directives of these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `client_header_buffer_size`: the head's first buffer.
    pub client_header_buffer_size: usize,
    /// The number in `large_client_header_buffers`: how many further buffers there may be.
    pub large_buffers: usize,
    /// The size in `large_client_header_buffers`: how long a line may be that the first buffer does not hold.
    pub large_buffer_size: usize,
    /// `max_headers`: how many fields.
    pub max_headers: usize,
    /// `underscores_in_headers`: whether a name with underscores is a valid one.
    pub underscores_in_headers: bool,
    /// `ignore_invalid_headers`: whether fields with odd names are dropped. Otherwise they are kept if the name is a
    /// token, and refused if not.
    pub ignore_invalid_headers: bool,
}

impl Default for Limits {
    /// nginx's defaults.
    fn default() -> Self {
        Self {
            client_header_buffer_size: 1024,
            large_buffers: 4,
            large_buffer_size: 8 * 1024,
            max_headers: 1000,
            underscores_in_headers: false,
            ignore_invalid_headers: true,
        }
    }
}

impl Limits {
    /// The most bytes that an acceptable head can have; a read buffer of this size is never too small.
    pub fn max_head_len(&self) -> usize {
        let large = self.large_buffers.saturating_mul(self.large_buffer_size);
        self.client_header_buffer_size.saturating_add(large).min(MAX_HEAD)
    }
}

/// How much of nginx's buffers for one head is left. A line never spans two of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    free: usize,
    spare: usize,
    /// What the whole head may still have; binds only where a configuration has no sensible end.
    total: usize,
}

impl Room {
    pub(crate) fn new(limits: &Limits) -> Self {
        let total = limits.max_head_len();
        Self {
            free: limits.client_header_buffer_size.min(total),
            spare: limits.large_buffers,
            total,
        }
    }

    /// How long the next line may be, its end included.
    pub(crate) fn longest(&self, limits: &Limits) -> usize {
        // The line may get a buffer of its own, but need not use it: the first one can be the
        // larger.
        let line = if self.spare > 0 { self.free.max(limits.large_buffer_size) } else { self.free };
        line.min(self.total)
    }

    /// Makes room for a line of `len` bytes; false if there is none.
    pub(crate) fn take(&mut self, len: usize, limits: &Limits) -> bool {
        if len > self.longest(limits) {
            return false;
        }
        self.total -= len;
        match self.free.checked_sub(len) {
            Some(free) => self.free = free,
            // `longest` admitted more than `free` only because a spare buffer holds the line, so
            // neither subtraction goes below zero. What was left of the buffer before is lost, as
            // in nginx.
            None => (self.free, self.spare) = (limits.large_buffer_size - len, self.spare - 1),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        client_header_buffer_size: 100,
        large_buffers: 2,
        large_buffer_size: 50,
        max_headers: 1000,
        underscores_in_headers: false,
        ignore_invalid_headers: true,
    };

    /// Takes lines of these lengths, and says how many it took.
    fn taken(limits: Limits, lens: &[usize]) -> usize {
        let mut room = Room::new(&limits);
        lens.iter().take_while(|&&len| room.take(len, &limits)).count()
    }

    #[test]
    fn a_line_moves_to_a_large_buffer_when_it_does_not_fit() {
        assert_eq!(taken(LIMITS, &[60, 40, 50, 50]), 4);
        assert_eq!(taken(LIMITS, &[60, 50, 40, 11]), 3, "the 40 left in the first buffer are lost");
        assert_eq!(taken(LIMITS, &[60, 41, 9, 41, 9, 1]), 5);
    }

    #[test]
    fn a_line_is_no_longer_than_a_buffer() {
        assert_eq!(taken(LIMITS, &[100]), 1);
        assert_eq!(taken(LIMITS, &[101]), 0);
        assert_eq!(taken(LIMITS, &[60, 51]), 1);
        assert_eq!(taken(LIMITS, &[40, 60]), 2, "the first buffer still holds it");
        assert_eq!(taken(LIMITS, &[40, 61]), 1);
    }

    #[test]
    fn the_largest_head_fills_all_buffers() {
        assert_eq!(LIMITS.max_head_len(), 200);
        let endless = Limits { large_buffers: usize::MAX, large_buffer_size: usize::MAX, ..LIMITS };
        assert_eq!(endless.max_head_len(), MAX_HEAD);
        assert_eq!(taken(endless, &[MAX_HEAD / 2, MAX_HEAD / 2, 1]), 2);
    }
}
