//! A seed to numbers that look random and are the same on every machine.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// What the state grows by.
    pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The next 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        Self::mix(self.0)
    }

    /// A number below `n`. The bias of taking a remainder is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_bits() % n
    }

    /// A double in [0, 1), from the upper 53 bits.
    pub fn uniform(&mut self) -> f64 {
        Self::unit(self.next_bits())
    }

    /// A double in [0, 1) from the upper 53 of 64 bits.
    pub fn unit(bits: u64) -> f64 {
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// What turns a state into a number.
    pub fn mix(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published with the reference implementation's test vectors (Rosetta Code, "Pseudo-random numbers/Splitmix64").
    #[test]
    fn the_numbers_are_the_published_ones() {
        let mut random = SplitMix64(1_234_567);
        let first = [random.next_bits(), random.next_bits(), random.next_bits()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
