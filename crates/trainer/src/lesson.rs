//! What is learned of an example in a step: `weight · -log p` of its targets, and penalties on how far log p has moved since training
//! began. Both penalties are off unless `TrainConfig` sets them.
//!
//! A penalty is a function of log p, so that its gradient is that of a further weight: whatever computes `weight · -log p` computes
//! it too, once it has asked [`Lesson::settle`] for the weights.
use exsearch_schema::Example;

/// An example in a step.
#[derive(Clone, Debug)]
pub struct Lesson<'a> {
    /// Its ids.
    pub ids: &'a [u32],
    /// What each id counts in the step's loss; 0 where it is no target.
    pub weights: Vec<f32>,
    /// log p of each target when training began, where there are penalties.
    start: Option<&'a [f32]>,
    penalties: Penalties,
}

/// How much each penalty counts, for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Penalties {
    /// λ of arXiv 2512.04220.
    pub(crate) drop: f32,
    /// Of the distance from the start.
    pub(crate) anchor: f32,
}

/// A lesson at some log-probs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Its part of the loss, penalties included.
    pub loss: f64,
    /// What each target counts: the loss has the gradient of `sum weight · -log p`.
    pub weights: Vec<f32>,
}

/// Targets that count less are none: divided by the targets of a step, of which there are fewer than 10^8, they would become 0.
const LEAST_WEIGHT: f32 = 1e-30;

/// Nats. Log-probs of the same weights differ by less where they are computed in another batch, as on GPUs: that is no fall.
const LEAST_FALL: f32 = 1e-4;

impl Penalties {
    pub(crate) fn are_off(self) -> bool {
        self == Self::default()
    }
}

impl<'a> Lesson<'a> {
    /// An example in a step with so many targets.
    pub(crate) fn new(example: &'a Example, n_targets: usize, penalties: Penalties, start: Option<&'a [f32]>) -> Self {
        let scale = |weight: f32| if weight.abs() < LEAST_WEIGHT { 0.0 } else { weight / n_targets as f32 };
        let weights = example.token_weights().into_iter().map(scale).collect();
        let each = |penalty: f32| penalty / n_targets as f32;
        let penalties = Penalties { drop: penalties.drop, anchor: each(penalties.anchor) };
        Self { ids: &example.ids, weights, start, penalties }
    }

    /// The positions of its targets.
    pub fn targets(&self) -> impl Iterator<Item = usize> {
        (0..self.weights.len()).filter(|position| self.weights[*position] != 0.0)
    }

    /// Whether [`Lesson::settle`] gives other weights than its own.
    pub fn is_penalized(&self) -> bool {
        self.start.is_some() && !self.penalties.are_off()
    }

    /// Its loss and weights where each target has the given log p.
    ///
    /// - Anchor: `½ (log p - log p_start)²` a target. In the mean over tokens drawn at the start this is KL(p_start ‖ p) to second
    ///   order (k2 of Schulman 2020, "Approximating KL divergence"), and its pull grows with the distance only, where that of the
    ///   unbiased k3 grows with the ratio: a gold answer that training makes 1,000 times as probable would drown all else.
    /// - Likelihood drop: `weight · (log p_start - log p)` for the tokens that have fallen, in turns whose log-prob has fallen as a whole
    ///   (LLDS with the gate on actions, arXiv 2512.04220). Good actions there have an advantage of at least 0; here an action is as good
    ///   as its weight, and one of a negative weight may fall.
    ///
    /// # Panics
    /// When there are not as many log-probs as targets.
    pub fn settle(&self, logprobs: &[f32]) -> Settled {
        let positions: Vec<usize> = self.targets().collect();
        assert_eq!(positions.len(), logprobs.len(), "a log-prob for each target");
        let mut weights: Vec<f32> = positions.iter().map(|position| self.weights[*position]).collect();
        let term = |(weight, logprob): (&f32, &f32)| -f64::from(*weight) * f64::from(*logprob);
        let mut loss: f64 = weights.iter().zip(logprobs).map(term).sum();
        let Some(start) = self.start.filter(|_| self.is_penalized()) else { return Settled { loss, weights } };
        let fallen: Vec<f32> = start.iter().zip(logprobs).map(|(start, logprob)| start - logprob).collect();
        let mut first = 0;
        for turn in positions.chunk_by(|position, next| position + 1 == *next) {
            let turn = first..first + turn.len();
            first = turn.end;
            let falls = fallen[turn.clone()].iter().sum::<f32>() > LEAST_FALL;
            for (weight, fallen) in weights[turn.clone()].iter_mut().zip(&fallen[turn]) {
                let (own, fallen) = (*weight, *fallen);
                if falls && fallen > LEAST_FALL && own > 0.0 {
                    *weight += self.penalties.drop * own;
                    loss += f64::from(self.penalties.drop * own * fallen);
                }
                *weight += self.penalties.anchor * fallen;
                loss += 0.5 * f64::from(self.penalties.anchor * fallen * fallen);
            }
        }
        Settled { loss, weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Example {
        Example {
            question_id: "q".into(),
            sample_idx: 0,
            ids: vec![0; 8],
            loss_mask: vec![0, 1, 1, 0, 0, 1, 1, 1],
            weight: 0.5,
            target_weights: vec![-0.5, -0.5, 1.0, 1.0, 2.0],
        }
    }

    #[test]
    fn without_penalties_a_lesson_is_the_weighted_log_likelihood() {
        let example = example();
        let lesson = Lesson::new(&example, 5, Penalties::default(), None);
        let settled = lesson.settle(&[-1.0, -2.0, -3.0, -4.0, -5.0]);
        assert_eq!(settled.weights, [-0.1, -0.1, 0.2, 0.2, 0.4]);
        let expect = -0.1 - 0.2 + 0.6 + 0.8 + 2.0;
        assert!((settled.loss - expect).abs() < 1e-6, "{settled:?}");
        let plain = Example { target_weights: Vec::new(), ..example };
        assert_eq!(Lesson::new(&plain, 5, Penalties::default(), None).weights[1..3], [0.1, 0.1]);
    }

    #[test]
    fn only_good_tokens_that_fell_in_turns_that_fell_are_held() {
        let example = example();
        let start = [-1.0, -1.0, -1.0, -1.0, -1.0];
        let drop = Penalties { drop: 0.5, anchor: 0.0 };
        let lesson = Lesson::new(&example, 5, drop, Some(&start));
        let weights = |logprobs: &[f32]| lesson.settle(logprobs).weights;
        // The first turn fell, and is bad; the second fell as a whole, though one token rose.
        assert_eq!(weights(&[-2.0, -2.0, -3.0, -0.5, -1.0]), [-0.1, -0.1, 0.2 + 0.1, 0.2, 0.4]);
        // One token fell and the turn rose.
        assert_eq!(weights(&[-1.0, -1.0, -1.5, -0.1, -1.0]), [-0.1, -0.1, 0.2, 0.2, 0.4]);
        let held = lesson.settle(&[-2.0, -2.0, -3.0, -0.5, -1.0]).loss;
        let free = Lesson::new(&example, 5, Penalties::default(), None).settle(&[-2.0, -2.0, -3.0, -0.5, -1.0]).loss;
        assert!((held - free - 0.5 * 0.2 * 2.0).abs() < 1e-6);
    }

    /// The weights have the loss's gradient: differences of `settle` in each log-prob.
    #[test]
    fn the_weights_are_the_derivatives_of_the_loss() {
        let example = example();
        let start = [-1.0, -1.2, -0.7, -2.0, -1.5];
        let at = [-1.4f32, -0.3, -1.9, -2.5, -1.1];
        let lesson = Lesson::new(&example, 5, Penalties { drop: 0.3, anchor: 0.7 }, Some(&start));
        let weights = lesson.settle(&at).weights;
        for (idx, weight) in weights.into_iter().enumerate() {
            let loss = |step: f32| {
                let mut moved = at;
                moved[idx] += step;
                lesson.settle(&moved).loss
            };
            let slope = (loss(1e-2) - loss(-1e-2)) / 2e-2;
            assert!((slope + f64::from(weight)).abs() < 1e-3, "{idx}: {slope} is not -{weight}");
        }
    }
}
