//! Choices: from a seed, or first those that a fuzzer has made.

/// Makes choices.
#[derive(Clone, Debug)]
pub struct Chance {
    chosen: std::vec::IntoIter<u8>,
    state: u64,
}

impl Chance {
    /// The same choices for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self { chosen: Vec::new().into_iter(), state: seed }
    }

    /// These, one byte or two each, and then some more.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let state = bytes.iter().fold(0, |sum: u64, &byte| sum.rotate_left(5) ^ u64::from(byte));
        Self { chosen: bytes.into_iter(), state }
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        match self.chosen.next() {
            Some(byte) if end <= 256 => u64::from(byte) % end,
            Some(byte) => (u64::from(byte) << 8 | self.next() & 0xff) % end,
            None => self.next() % end,
        }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn index(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// `Some` number from `start` to `end`, or nothing, which is likelier.
    pub(super) fn perhaps(&mut self, start: u64, end: u64) -> Option<u64> {
        self.one_in(3).then(|| start + self.below(end - start))
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
