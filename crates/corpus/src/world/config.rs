//! What a world is made from, and what it came to.
use super::facts::{MAX_PEOPLE, MIN_PEOPLE};
use crate::CorpusError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kinds of question by position: comparisons, intersections, then chains of 1 to 4 hops.
pub(crate) const KIND_NAMES: [&str; N_KINDS] = ["comparison", "intersection", "1-hop", "2-hop", "3-hop", "4-hop"];
pub(crate) const N_KINDS: usize = 6;

/// What a world is made from. The same settings make the same bytes on every machine; another number of training or
/// warm-up questions leaves the passages and the test and dev questions as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    /// Everything is drawn from this. Default 0.
    pub seed: u64,
    /// People, 40 to 5,000. The rest follows: a city to 10, a region to 25, a company to 6, a work to 4 of them.
    /// Default 400, which makes 622 passages.
    pub n_people: usize,
    /// Training questions. Default 1,000.
    pub n_train: usize,
    /// Validation questions. Default 200.
    pub n_dev: usize,
    /// Test questions. Default 300.
    pub n_test: usize,
    /// Warm-up questions with gold trajectories, apart from the three splits. Default 100.
    pub n_warmup: usize,
    /// In train, dev and test, how many questions of 1, 2, 3 and 4 hops there are among those that follow a chain, in
    /// proportion. Default 0.15, 0.4, 0.35, 0.1.
    pub hop_weights: [f64; 4],
    /// The same for warm-up. Default 0.3, 0.7, 0, 0: longer chains are left for the model to find by itself.
    pub warmup_hop_weights: [f64; 4],
    /// The share of comparisons ("who was born earlier, A or B?", 2 hops) in every split. A guess is right half the
    /// time, so keep it small. Default 0.1.
    pub comparison_share: f64,
    /// The share of intersections ("which person born in the capital of X works for Y?", 2 hops) in every split.
    /// Default 0.1.
    pub intersection_share: f64,
}

/// What a world came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldSummary {
    /// Passages, one for each entity.
    pub n_passages: usize,
    /// Women and men.
    pub n_people: usize,
    /// Cities.
    pub n_cities: usize,
    /// Regions.
    pub n_regions: usize,
    /// Companies.
    pub n_companies: usize,
    /// Books, films and songs.
    pub n_works: usize,
    /// Words of the longest passage, with its title.
    pub max_passage_words: usize,
    /// For `train`, `dev`, `test` and `warmup`, how many questions of each kind there are: `comparison`, `intersection`,
    /// `1-hop`, ... `4-hop`.
    pub questions: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            n_people: 400,
            n_train: 1000,
            n_dev: 200,
            n_test: 300,
            n_warmup: 100,
            hop_weights: [0.15, 0.4, 0.35, 0.1],
            warmup_hop_weights: [0.3, 0.7, 0.0, 0.0],
            comparison_share: 0.1,
            intersection_share: 0.1,
        }
    }
}

impl WorldConfig {
    pub(crate) fn check(&self) -> Result<(), CorpusError> {
        let refuse = |field, reason: String| Err(CorpusError::BadConfig { field, reason });
        if !(MIN_PEOPLE..=MAX_PEOPLE).contains(&self.n_people) {
            return refuse("n_people", format!("is {}: take {MIN_PEOPLE} to {MAX_PEOPLE}", self.n_people));
        }
        for (field, weights) in [("hop_weights", self.hop_weights), ("warmup_hop_weights", self.warmup_hop_weights)] {
            let fine = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
            if !fine || weights.iter().sum::<f64>() <= 0.0 {
                return refuse(field, format!("is {weights:?}: take numbers from 0 up, one of them above 0"));
            }
        }
        for (field, share) in
            [("comparison_share", self.comparison_share), ("intersection_share", self.intersection_share)]
        {
            if !(0.0..=1.0).contains(&share) {
                return refuse(field, format!("is {share}: take 0 to 1"));
            }
        }
        if self.comparison_share + self.intersection_share > 1.0 {
            return refuse("comparison_share", "and `intersection_share` pass 1 together: lower one".to_owned());
        }
        Ok(())
    }

    /// How many questions of each kind make `n_questions`.
    pub(crate) fn quotas(&self, n_questions: usize, hop_weights: [f64; 4]) -> [usize; N_KINDS] {
        let chains = 1.0 - self.comparison_share - self.intersection_share;
        let sum: f64 = hop_weights.iter().sum();
        let [one, two, three, four] = hop_weights.map(|weight| chains * weight / sum);
        largest_remainder(n_questions, [self.comparison_share, self.intersection_share, one, two, three, four])
    }
}

/// Whole numbers that sum to `n` and are as near as can be to the shares of it.
fn largest_remainder<const N: usize>(n: usize, shares: [f64; N]) -> [usize; N] {
    // A hair is added so that 0.1 x 30 is 3 and not 2.9999999999999996.
    let exact = shares.map(|share| share.max(0.0) * n as f64 + 1e-9);
    let mut counts = exact.map(|count| count as usize);
    let mut by_remainder: Vec<_> = (0..N).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let n_missing = n.saturating_sub(counts.iter().sum());
    for &idx in by_remainder.iter().take(n_missing) {
        counts[idx] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_mix() {
        let config = WorldConfig::default();
        assert_eq!(config.quotas(1000, config.hop_weights), [100, 100, 120, 320, 280, 80]);
        assert_eq!(config.quotas(100, config.warmup_hop_weights), [10, 10, 24, 56, 0, 0]);
        assert_eq!(config.quotas(0, config.hop_weights), [0; 6]);
    }

    proptest! {
        #[test]
        fn quotas_sum_to_what_is_asked_for(n in 0_usize..3000, weights in prop::array::uniform4(0.0..1.0_f64)) {
            prop_assume!(weights.iter().sum::<f64>() > 0.0);
            let quotas = WorldConfig::default().quotas(n, weights);
            prop_assert_eq!(quotas.iter().sum::<usize>(), n);
        }
    }

    #[test]
    fn bad_settings_are_named() {
        let check = |config: WorldConfig, expect: &str| match config.check() {
            Err(CorpusError::BadConfig { field, .. }) => assert_eq!(field, expect),
            other => panic!("{expect}: {other:?}"),
        };
        let fine = WorldConfig::default();
        check(WorldConfig { n_people: 5, ..fine.clone() }, "n_people");
        check(WorldConfig { hop_weights: [0.0; 4], ..fine.clone() }, "hop_weights");
        check(WorldConfig { warmup_hop_weights: [1.0, f64::NAN, 0.0, 0.0], ..fine.clone() }, "warmup_hop_weights");
        check(WorldConfig { comparison_share: -0.1, ..fine.clone() }, "comparison_share");
        check(WorldConfig { comparison_share: 0.6, intersection_share: 0.6, ..fine }, "comparison_share");
        assert!(serde_json::from_str::<WorldConfig>("{\"n_poeple\": 9}").is_err(), "unknown settings are refused");
        let partial: WorldConfig = serde_json::from_str("{\"seed\": 9}").expect("the rest has defaults");
        assert_eq!(partial, WorldConfig { seed: 9, ..WorldConfig::default() });
    }
}
