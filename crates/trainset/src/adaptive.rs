//! How many trajectories each question is worth, from a pilot of a few for each (after GVM-RAFT, arXiv 2505.02391).
//!
//! A trajectory drawn for a question is as good as one of its posterior with probability p(y | x, z): the acceptance of rejection
//! sampling. Of n draws np are, p being the mean over z, so that the gradient's variance is about G²/(np) with G² the mean of its squared
//! norm under the posterior. Under a budget the sum of variances is least where n is in proportion to G/√p. As in GVM-RAFT, α/p is added
//! to p: below √α a question is more likely beyond the model than rare, and is worth less the less it is accepted.
//!
//! The path's |g|² is taken with respect to the logits of its tokens, `sum_t (1 - p_t)²`: it needs no backward pass, adds up over
//! tokens, and is 0 where the model can say nothing else.
use exsearch_schema::Trajectory;

/// A pilot sample.
pub struct Pilot<'a> {
    /// What was sampled, with its log-probs.
    pub trajectory: &'a Trajectory,
    /// Its weight among the pilot samples of its question.
    pub weight: f64,
    /// log p(y | x, z); absent where it failed.
    pub answer_logprob: Option<f64>,
}

/// α: √α is 1 %.
const ALPHA: f64 = 1e-4;

/// What a question's pilot says its samples are worth, G/√(p + α/p). 0 where none weighs anything.
pub fn gain(pilot: &[Pilot<'_>]) -> f64 {
    let acceptance = |sample: &Pilot<'_>| sample.answer_logprob.map_or(0.0, f64::exp);
    let p = pilot.iter().map(acceptance).sum::<f64>() / pilot.len().max(1) as f64;
    let squared: f64 = pilot.iter().map(|sample| sample.weight * squared_gradient(sample.trajectory)).sum();
    if p > 0.0 { (squared / (p + ALPHA / p)).sqrt() } else { 0.0 }
}

/// Shares a budget of samples in proportion to the gains, each question's share between `least` and `most`. Adds up to `budget`
/// wherever the bounds allow it. Without any gain the shares are equal; what rounding leaves goes to the largest remainders, the first of
/// equals.
pub fn allocate(gains: &[f64], budget: usize, least: u32, most: u32) -> Vec<u32> {
    assert!(least <= most, "the bounds are in order");
    let budget = budget.clamp(gains.len() * least as usize, gains.len() * most as usize);
    let (least, most) = (f64::from(least), f64::from(most));
    let is_known = gains.iter().any(|gain| *gain > 0.0);
    let gains: Vec<f64> = gains.iter().map(|gain| if is_known { *gain } else { 1.0 }).collect();
    let shares = |scale: f64| gains.iter().map(|gain| (scale * gain).clamp(least, most)).collect::<Vec<f64>>();
    let smallest = gains.iter().copied().filter(|gain| *gain > 0.0).fold(f64::INFINITY, f64::min);
    let (mut low, mut high) = (0.0, if smallest.is_finite() { most / smallest } else { 0.0 });
    // 2^-60 of the range is less than a rounding error of it.
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if shares(middle).iter().sum::<f64>() > budget as f64 { high = middle } else { low = middle }
    }
    let shares = shares(low);
    let mut samples: Vec<u32> = shares.iter().map(|share| (share + 1e-9).floor() as u32).collect();
    let mut order: Vec<usize> = (0..gains.len()).collect();
    order.sort_by(|a, b| {
        let remainder = |idx: usize| shares[idx] - f64::from(samples[idx]);
        remainder(*b).total_cmp(&remainder(*a)).then(gains[*b].total_cmp(&gains[*a])).then(a.cmp(b))
    });
    let mut left = budget - samples.iter().map(|n| *n as usize).sum::<usize>();
    while left > 0 {
        for &idx in order.iter().filter(|idx| f64::from(samples[**idx]) < most).take(left).collect::<Vec<_>>() {
            samples[idx] += 1;
            left -= 1;
        }
    }
    samples
}

/// `sum_t (1 - p_t)²` over the tokens of the search turns.
fn squared_gradient(trajectory: &Trajectory) -> f64 {
    let square = |logprob: f32| (1.0 - f64::from(logprob).exp()).powi(2);
    trajectory.path_logprobs().map(square).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_follow_the_gains_within_their_bounds() {
        assert_eq!(allocate(&[1.0, 1.0, 2.0, 4.0], 16, 2, 8), [2, 2, 4, 8]);
        assert_eq!(allocate(&[0.0, 0.0, 0.0], 9, 2, 8), [3, 3, 3], "nothing is known");
        assert_eq!(allocate(&[0.0, 1.0, 1.0], 12, 2, 8), [2, 5, 5]);
        assert_eq!(allocate(&[1.0, 100.0], 10, 2, 6), [4, 6], "what one may not take is the others'");
        assert_eq!(allocate(&[1.0, 1.0, 1.0], 10, 2, 8), [4, 3, 3], "the first of equals");
        assert_eq!(allocate(&[0.0, 0.0, 5.0], 12, 2, 4), [4, 4, 4], "the budget is used");
        assert_eq!(allocate(&[1.0, 2.0], 100, 2, 4), [4, 4]);
        assert_eq!(allocate(&[1.0, 2.0], 0, 2, 4), [2, 2]);
        assert_eq!(allocate(&[], 3, 2, 4), [0u32; 0]);
    }

    proptest! {
        #[test]
        fn the_budget_is_met_and_greater_gains_never_get_less(
            gains in prop::collection::vec(0f64..10.0, 1..20), samples in 2usize..8,
        ) {
            let budget = samples * gains.len();
            let found = allocate(&gains, budget, 2, 8);
            prop_assert_eq!(found.iter().map(|n| *n as usize).sum::<usize>(), budget);
            prop_assert!(found.iter().all(|n| (2..=8).contains(n)));
            for (a, b) in (0..gains.len()).flat_map(|a| (0..gains.len()).map(move |b| (a, b))) {
                prop_assert!(gains[a] <= gains[b] || found[a] + 1 >= found[b], "{:?} {:?}", gains, found);
            }
        }
    }
}
