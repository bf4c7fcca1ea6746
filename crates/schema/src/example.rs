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
    /// w_m of arXiv 2505.20128 equation 7; 1 in warm-up.
    pub weight: f32,
}

impl Example {
    /// How many tokens are learned.
    pub fn n_target_tokens(&self) -> usize {
        self.loss_mask.iter().filter(|&&mask| mask == 1).count()
    }
}
