//! cos and sin of every position and rotary frequency, as transformers computes them: frequencies and angles in f32.
use super::Decoder;
use crate::config::{Rope, RopeScaling};
use exsearch_kernels::rope;
use rayon::prelude::*;

/// The angles of one rotation, each of both `[max_positions, d / 2]`.
pub struct RopeTable {
    /// Their cosines, stretched as the rotation asks for.
    pub cos: Vec<f32>,
    /// Their sines, likewise.
    pub sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    /// The table for positions below `max_positions`.
    pub fn new(rope: &Rope, head_dim: usize, max_positions: usize) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|idx| {
                let frequency = 1.0 / f64::from(rope.theta).powf(2.0 * idx as f64 / head_dim as f64);
                scaled_frequency(frequency, idx, head_dim, rope) as f32
            })
            .collect();
        let stretch = match rope.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        };
        let angles = || (0..max_positions).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        Self {
            cos: angles().map(|angle| angle.cos() * stretch).collect(),
            sin: angles().map(|angle| angle.sin() * stretch).collect(),
            half,
        }
    }

    pub(super) fn max_positions(&self) -> usize {
        self.cos.len() / self.half
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

impl Decoder {
    /// Rotates every head of `rows` by its row's position.
    pub(super) fn rotate(&self, layer_idx: usize, rows: &mut [f32], positions: &[usize]) {
        let (table, width) = (self.rope_of(layer_idx), rows.len() / positions.len());
        rows.par_chunks_exact_mut(width).zip(positions).with_min_len(super::infer::MIN_ROWS).for_each(
            |(row, position)| {
                let (cos, sin) = table.at(*position);
                rope(row, cos, sin);
            },
        );
    }

    /// The gradient through [`Decoder::rotate`]: the transposed rotation, which is the one with `sin` negated.
    pub(super) fn rotate_back(&self, layer_idx: usize, rows: &mut [f32], positions: &[usize]) {
        let (table, width) = (self.rope_of(layer_idx), rows.len() / positions.len());
        rows.par_chunks_exact_mut(width).zip(positions).with_min_len(super::infer::MIN_ROWS).for_each_init(
            Vec::new,
            |back, (row, position)| {
                let (cos, sin) = table.at(*position);
                back.clear();
                back.extend(sin.iter().map(|sin| -sin));
                rope(row, cos, back);
            },
        );
    }
}

/// The frequency after a checkpoint's context extension; `idx` counts frequencies, which fall.
fn scaled_frequency(frequency: f64, idx: usize, head_dim: usize, rope: &Rope) -> f64 {
    match rope.scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / f64::from(factor),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let [factor, low_freq_factor, high_freq_factor] =
                [factor, low_freq_factor, high_freq_factor].map(f64::from);
            let original = original_max_position_embeddings as f64;
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength > original / low_freq_factor {
                frequency / factor
            } else if wavelength < original / high_freq_factor {
                frequency
            } else {
                let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_position_embeddings, truncate, .. } => {
            let (original, dim) = (original_max_position_embeddings as f64, head_dim as f64);
            // The index at which a frequency turns `n_rotations` times within the original context.
            let index_of = |n_rotations: f32| {
                let turns = original / (f64::from(n_rotations) * 2.0 * std::f64::consts::PI);
                dim * turns.ln() / (2.0 * f64::from(rope.theta).ln())
            };
            let (mut low, mut high) = (index_of(beta_fast), index_of(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(dim - 1.0));
            if low == high {
                high += 0.001;
            }
            let ramp = ((idx as f64 - low) / (high - low)).clamp(0.0, 1.0);
            frequency / f64::from(factor) * ramp + frequency * (1.0 - ramp)
        }
    }
}
