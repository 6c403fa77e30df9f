//! Chance that need not be a secret: SplitMix64.

/// The distance between two states: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A state as a number that looks like chance.
fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The number at this place of the row that begins with 0.
pub(crate) fn at(place: u64) -> u64 {
    mix(place.wrapping_mul(STEP))
}

/// A row of numbers, by its last state.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(STEP);
        (mix(self.0) >> 32) as u32
    }

    /// Puts things into any order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let other = (u64::from(self.bits()) * (last as u64 + 1)) >> 32;
            things.swap(last, other as usize);
        }
    }
}
