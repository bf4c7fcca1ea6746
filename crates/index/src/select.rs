//! The best of many scores, ties by the lower number.
use std::cmp::Reverse;

/// Orders as its score does, highest first when reversed; among equal scores the lower number counts as higher.
pub(crate) fn key(score: f32, number: u32) -> u64 {
    let bits = score.to_bits();
    // The total order of floats as integers: negative ones have all bits flipped, others the sign.
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(!number)
}

/// The score and number of a key.
pub(crate) fn unkey(key: u64) -> (f32, u32) {
    let ordered = (key >> 32) as u32;
    let bits = if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered };
    (f32::from_bits(bits), !(key as u32))
}

/// Keeps the `n` highest keys, in no order.
pub(crate) fn keep_highest(keys: &mut Vec<u64>, n: usize) {
    if n == 0 {
        keys.clear();
    } else if keys.len() > n {
        keys.select_nth_unstable_by_key(n - 1, |key| Reverse(*key));
        keys.truncate(n);
    }
}

/// The `n` best of a stream of scores, without holding more than `2 n + 64` of them.
pub(crate) struct Best {
    n: usize,
    keys: Vec<u64>,
    /// What a key must pass to be among the best so far.
    least: u64,
}

impl Best {
    pub(crate) fn new(n: usize) -> Self {
        Self { n, keys: Vec::new(), least: 0 }
    }

    pub(crate) fn push(&mut self, score: f32, number: u32) {
        let key = key(score, number);
        if key > self.least {
            self.keys.push(key);
            if self.keys.len() >= self.n.saturating_mul(2).saturating_add(64) {
                self.shrink();
            }
        }
    }

    fn shrink(&mut self) {
        keep_highest(&mut self.keys, self.n);
        if self.keys.len() == self.n {
            self.least = self.keys.iter().copied().min().unwrap_or(u64::MAX);
        }
    }

    /// Score and number, best first.
    pub(crate) fn into_sorted(mut self) -> Vec<(f32, u32)> {
        self.shrink();
        self.keys.sort_unstable_by_key(|key| Reverse(*key));
        self.keys.into_iter().map(unkey).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_a_sort(scores in prop::collection::vec(-4i8..4, 0..400), n in 0usize..90) {
            let mut best = Best::new(n);
            let mut all: Vec<(f32, u32)> = Vec::new();
            for (number, score) in scores.iter().enumerate() {
                best.push(f32::from(*score), number as u32);
                all.push((f32::from(*score), number as u32));
            }
            all.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
            all.truncate(n);
            prop_assert_eq!(best.into_sorted(), all);
        }

        #[test]
        fn keys_hold_score_and_number(score: f32, number: u32) {
            let (back, same) = unkey(key(score, number));
            prop_assert_eq!((back.to_bits(), same), (score.to_bits(), number));
        }
    }
}
