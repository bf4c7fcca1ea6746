//! A Llama-family decoder on CPU: weights packed for products, inference over many sequences, gradients by hand.
//!
//! Knows nothing of files' formats, tokens' meaning or sampling. Every product keeps the promise of `exsearch-kernels`: a
//! row's numbers do not depend on what else is in the batch.
//!
//! Legend: t = tokens of a sequence, m = rows of a batch, h = hidden size, i = intermediate size, d = head size, v = vocabulary.
mod adapter;
mod attention;
mod cache;
mod gradient;
mod infer;
mod parameters;

pub use adapter::{Adapter, LoraConfig, LoraPair};
pub use cache::KvCache;
pub use gradient::{BackwardWeights, Gradients, Learned};
pub use infer::{Chunk, Workspace};
pub use parameters::{LayerParameters, Parameters, Projection};

use crate::config::{DecoderConfig, RopeScaling};
use exsearch_kernels::{MatMut, MatRef, Operand, Panels, matmul};

/// A decoder: configuration, parameters and rotation tables.
pub struct Decoder {
    config: DecoderConfig,
    parameters: Parameters,
    rope: RopeTable,
}

/// cos and sin of every position and frequency, `[max_positions, d / 2]`.
struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Decoder {
    /// A decoder that takes sequences of at most `max_positions` tokens.
    pub fn new(config: DecoderConfig, parameters: Parameters, max_positions: usize) -> Self {
        let rope = RopeTable::new(&config, max_positions);
        Self { config, parameters, rope }
    }

    /// Its configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Its parameters, to update.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// The longest sequence it takes, in tokens.
    pub fn max_positions(&self) -> usize {
        self.rope.cos.len() / self.rope.half
    }

    /// Logits `[m, v]` of final hidden states `[m, h]`.
    pub fn logits(&self, hidden: &[f32], logits: &mut Vec<f32>) {
        let (h, v) = (self.config.hidden_size, self.config.vocab_size);
        let m = hidden.len() / h;
        logits.resize(m * v, 0.0);
        let head = Operand::Panels(self.parameters.head());
        matmul(MatRef::new(hidden, m, h), head, MatMut::new(logits, m, v), false);
    }

    /// The base weight of one projection and, where there is one, its adapter.
    fn linear<'a>(&'a self, layer_idx: usize, projection: Projection, adapter: Option<&'a Adapter>) -> Linear<'a> {
        let base = &self.parameters.layers[layer_idx].linears[projection as usize];
        let lora = adapter.and_then(|adapter| {
            let pair = adapter.layers[layer_idx][projection as usize].as_ref()?;
            Some((pair, adapter.scale()))
        });
        Linear { base, lora }
    }
}

/// `y = x·W + s·(x·A)·B` (LoRA, arXiv 2106.09685, never materializing W + s·A·B).
#[derive(Clone, Copy)]
struct Linear<'a> {
    base: &'a Panels,
    lora: Option<(&'a LoraPair, f32)>,
}

impl Linear<'_> {
    /// Maps `x [m, in]` to `out [m, out]`. `inner` receives s·(x·A) `[m, rank]`, which the backward pass needs.
    fn forward(&self, x: &[f32], m: usize, out: &mut Vec<f32>, inner: &mut Vec<f32>) {
        let x = MatRef::new(x, m, self.base.k());
        out.resize(m * self.base.n(), 0.0);
        matmul(x, Operand::Panels(self.base), MatMut::new(out, m, self.base.n()), false);
        let Some((pair, scale)) = self.lora else { return };
        let rank = pair.a.n();
        inner.resize(m * rank, 0.0);
        matmul(x, Operand::Panels(&pair.a), MatMut::new(inner, m, rank), false);
        exsearch_kernels::scale(inner, scale);
        let inner = MatRef::new(inner, m, rank);
        matmul(inner, Operand::Panels(&pair.b), MatMut::new(out, m, self.base.n()), true);
    }
}

impl RopeTable {
    /// As transformers computes it: inverse frequencies and angles in f32.
    fn new(config: &DecoderConfig, max_positions: usize) -> Self {
        let half = config.head_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|idx| {
                let frequency = 1.0 / f64::from(config.rope_theta).powf(2.0 * idx as f64 / config.head_dim as f64);
                scaled_frequency(frequency, &config.rope_scaling) as f32
            })
            .collect();
        let angles = || (0..max_positions).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        Self { cos: angles().map(f32::cos).collect(), sin: angles().map(f32::sin).collect(), half }
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// The frequency after a checkpoint's context extension. `Llama3` is the rule of Llama 3.1's release: long wavelengths are
/// slowed by the factor, short ones kept, those between interpolated.
fn scaled_frequency(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
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
    }
}

#[cfg(test)]
mod tests;
