//! What an optimizer does to all parameters at once, on all threads. Every parameter is updated by itself, and sums are of
//! fixed pieces in a fixed order: the number of threads changes no bit.
use crate::rows::{adamw, sum_of_squares};
use rayon::prelude::*;

/// Values that a thread takes at a time: 5 x 256 KB for an update.
const PIECE: usize = 1 << 16;

/// The settings of one AdamW update (arXiv 1711.05101, as torch.optim.AdamW computes it).
#[derive(Clone, Copy, Debug)]
pub struct Adamw {
    /// The step's learning rate.
    pub learning_rate: f32,
    /// β1.
    pub beta1: f32,
    /// β2.
    pub beta2: f32,
    /// ε, added to the root.
    pub epsilon: f32,
    /// λ, decoupled.
    pub weight_decay: f32,
    /// The number of this step, from 1.
    pub step: i32,
}

impl Adamw {
    /// Updates parameters and both moments by a gradient that is multiplied with `factor` first (for clipping), and clears the
    /// gradient: one pass over memory.
    pub fn update(&self, factor: f32, parameters: &mut [f32], gradient: &mut [f32], [first, second]: [&mut [f32]; 2]) {
        let lengths = [gradient.len(), first.len(), second.len()];
        assert_eq!(lengths, [parameters.len(); 3], "a gradient and two moments for each parameter");
        let pieces = parameters.par_chunks_mut(PIECE).zip(gradient.par_chunks_mut(PIECE));
        let moments = first.par_chunks_mut(PIECE).zip(second.par_chunks_mut(PIECE));
        pieces.zip(moments).for_each(|((parameters, gradient), (first, second))| {
            adamw(self, factor, parameters, gradient, first, second);
            gradient.fill(0.0);
        });
    }
}

/// The sum of many values' squares.
pub fn squared_norm(values: &[f32]) -> f64 {
    let sums: Vec<f64> = values.par_chunks(PIECE).map(sum_of_squares).collect();
    sums.iter().sum()
}
