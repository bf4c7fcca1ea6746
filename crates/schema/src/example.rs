//! A training example: what the stages before training leave in `train.jsonl`, and all that training knows.
use serde::{Deserialize, Serialize};

/// Token ids with the ones to learn and how much they count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The question it was made from.
    pub question_id: String,
    /// Which of the question's samples.
    pub sample_idx: u32,
    /// The ids of the whole dialogue.
    pub ids: Vec<u32>,
    /// A value for each id: 1 where the model wrote it, 0 where the environment did.
    pub loss_mask: Vec<u8>,
    /// w_m of arXiv 2505.20128 equation 7; 1 in warm-up. What every learned token counts, unless `target_weights` says otherwise.
    pub weight: f32,
    /// What each learned token counts, in their order, where they differ: with a control variate, a turn of the search counts less
    /// than the answer behind it, and may count below 0. Empty where all count `weight`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_weights: Vec<f32>,
}

impl Example {
    /// How many tokens are learned.
    pub fn n_target_tokens(&self) -> usize {
        self.loss_mask.iter().filter(|&&mask| mask == 1).count()
    }

    /// What each id counts in the loss: 0 where nothing is learned.
    pub fn token_weights(&self) -> Vec<f32> {
        let mut of_targets = self.target_weights.iter();
        let weight = |mask: &u8| match mask {
            1 => of_targets.next().copied().unwrap_or(self.weight),
            _ => 0.0,
        };
        self.loss_mask.iter().map(weight).collect()
    }
}
