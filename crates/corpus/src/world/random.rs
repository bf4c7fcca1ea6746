//! Random numbers that are the same on every machine and in every version: SplitMix64.
//!
//! Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figure 17; constants as in Vigna's
//! public-domain splitmix64.c. Its 64 bits of state are plenty for the some 10^5 draws of a world.

/// A stream of random numbers.
pub(crate) struct Random(u64);

impl Random {
    /// A stream of its own for every pair of `seed` and `stream`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixer = Self(seed);
        let mixed = mixer.next_u64();
        Self(mixed ^ Self(stream).next_u64())
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to and without `n`. Lemire's multiply-and-shift; its bias of n / 2^64 is out of sight.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "nothing to choose from");
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// From `low` up to and with `high`.
    pub(crate) fn between(&mut self, low: u16, high: u16) -> u16 {
        low + self.below(usize::from(high - low) + 1) as u16
    }

    /// True in `percent` of 100 draws.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// The position of an item, drawn in proportion to its weight.
    pub(crate) fn pick_weighted(&mut self, weights: &[usize]) -> usize {
        let mut draw = self.below(weights.iter().sum());
        for (idx, &weight) in weights.iter().enumerate() {
            if draw < weight {
                return idx;
            }
            draw -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_stream() {
        // The first outputs of Vigna's splitmix64.c from state 1234567.
        let mut random = Random(1_234_567);
        let found: Vec<_> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(found, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn draws_stay_in_range_and_weights_are_kept() {
        let mut random = Random::new(1, 2);
        let mut counts = [0_u32; 3];
        for _ in 0..4000 {
            assert!((5..=7).contains(&random.between(5, 7)));
            counts[random.pick_weighted(&[1, 0, 3])] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((800..1200).contains(&counts[0]), "{counts:?}");
    }
}
