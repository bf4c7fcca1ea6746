//! Draws a token from a row of logits: greedy, or by temperature and nucleus (top-p, arXiv 1904.09751).
use exsearch_kernels::{SplitMix64, log_softmax_at, scale, softmax};
use exsearch_schema::Sampling;

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Its id.
    pub id: u32,
    /// log p under the logits as they are, in nats.
    pub logprob: f32,
    /// log p under what it was drawn from; 0 for greedy.
    pub behaviour_logprob: f32,
}

/// Draws the token at `position` of a turn. `logits` is used up. The draw is a function of its arguments alone; ties go to
/// the smaller id.
pub fn draw(logits: &mut [f32], sampling: &Sampling, position: usize) -> Draw {
    if sampling.temperature <= 0.0 {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        let id = best.expect("a vocabulary holds tokens");
        return Draw { id: id as u32, logprob: log_softmax_at(logits, id), behaviour_logprob: 0.0 };
    }
    let uniform = uniform(sampling.seed, position as u64);
    if sampling.temperature == 1.0 && sampling.top_p >= 1.0 {
        softmax(logits);
        let id = at_quantile(logits.iter().map(|p| f64::from(*p)), uniform);
        let logprob = logits[id].ln();
        return Draw { id: id as u32, logprob, behaviour_logprob: logprob };
    }
    let mut probabilities = logits.to_vec();
    scale(&mut probabilities, 1.0 / sampling.temperature);
    softmax(&mut probabilities);
    let nucleus = nucleus(&probabilities, sampling.top_p);
    let mass: f64 = nucleus.iter().map(|&id| f64::from(probabilities[id])).sum();
    let id = nucleus[at_quantile(nucleus.iter().map(|&id| f64::from(probabilities[id])), uniform)];
    let behaviour_logprob = (f64::from(probabilities[id]) / mass).ln() as f32;
    Draw { id: id as u32, logprob: log_softmax_at(logits, id), behaviour_logprob }
}

/// The smallest set of most probable tokens that holds at least `top_p`, most probable first.
fn nucleus(probabilities: &[f32], top_p: f32) -> Vec<usize> {
    // Few tokens hold nearly all mass: sort those above a threshold and lower it only when they do not reach top_p.
    for threshold in [1e-3, 1e-6, 0.0] {
        let mut candidates: Vec<usize> =
            (0..probabilities.len()).filter(|&id| probabilities[id] >= threshold).collect();
        candidates.sort_unstable_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
        let mut mass = 0.0;
        for (rank, &id) in candidates.iter().enumerate() {
            mass += f64::from(probabilities[id]);
            if mass >= f64::from(top_p) {
                candidates.truncate(rank + 1);
                return candidates;
            }
        }
        if threshold == 0.0 {
            return candidates;
        }
    }
    unreachable!("the last threshold keeps every token")
}

/// The first index at which the running sum passes `quantile` of the whole.
fn at_quantile(probabilities: impl Iterator<Item = f64> + Clone, quantile: f64) -> usize {
    let target = quantile * probabilities.clone().sum::<f64>();
    let mut sum = 0.0;
    let mut last = 0;
    for (idx, p) in probabilities.enumerate() {
        if p > 0.0 {
            last = idx;
            sum += p;
            if sum > target {
                break;
            }
        }
    }
    last
}

/// A double in [0, 1) from a seed and a counter: two rounds of splitmix64's finalizer.
fn uniform(seed: u64, counter: u64) -> f64 {
    let bits = SplitMix64::mix(
        SplitMix64::mix(seed.wrapping_add(SplitMix64::STEP)).wrapping_add(SplitMix64::STEP.wrapping_mul(counter + 1)),
    );
    SplitMix64::unit(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_p: f32, seed: u64) -> Sampling {
        Sampling { temperature, top_p, max_new_tokens: 1, stop: Vec::new(), seed }
    }

    #[test]
    fn greedy_takes_the_largest_and_the_first_of_equals() {
        let drawn = draw(&mut [0.0, 3.0, 3.0, -1.0], &sampling(0.0, 1.0, 0), 0);
        assert_eq!((drawn.id, drawn.behaviour_logprob), (1, 0.0));
        assert!((drawn.logprob - (3.0 - (2.0 * 3f32.exp() + 1.0 + (-1f32).exp()).ln())).abs() < 1e-6);
    }

    #[test]
    fn frequencies_follow_the_behaviour_probabilities() {
        let logits = [1.0, 0.0, 2.0, -3.0, 0.5];
        for (temperature, top_p) in [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.5, 0.9)] {
            let mut counts = [0.0; 5];
            let mut behaviour = [f32::NAN; 5];
            let n = 20_000;
            for seed in 0..n {
                let drawn = draw(&mut logits.to_vec(), &sampling(temperature, top_p, seed), 3);
                counts[drawn.id as usize] += 1.0 / n as f64;
                behaviour[drawn.id as usize] = drawn.behaviour_logprob;
            }
            for (count, logprob) in counts.iter().zip(behaviour) {
                if *count > 0.0 {
                    assert!((count - f64::from(logprob).exp()).abs() < 0.015, "{counts:?} {behaviour:?}");
                }
            }
            let mass: f32 = behaviour.iter().filter(|p| !p.is_nan()).map(|p| p.exp()).sum();
            assert!((mass - 1.0).abs() < 1e-3, "{behaviour:?}");
            assert_eq!(top_p < 1.0, behaviour[3].is_nan(), "the nucleus leaves the tail out");
        }
    }

    #[test]
    fn draws_differ_by_seed_and_by_position() {
        let draws = |seed: u64, position: usize| draw(&mut vec![0.0; 1000], &sampling(1.0, 1.0, seed), position).id;
        assert_eq!(draws(1, 1), draws(1, 1));
        assert_ne!(draws(1, 1), draws(2, 1));
        assert_ne!(draws(1, 1), draws(1, 2));
    }
}
