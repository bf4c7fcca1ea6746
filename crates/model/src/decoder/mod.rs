//! A decoder on CPU: weights packed for products, inference over many sequences, gradients by hand.
//!
//! It computes Llama and what [`DecoderConfig`] adds to it as data: biases, norms of heads and of outputs, windows, rotations,
//! activations, scales. No code here asks for a model's family.
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
mod int8;
mod parameters;
mod rope;

pub use adapter::{Adapter, LoraConfig, LoraPair};
pub use cache::{KvCache, PAGE_TOKENS, PageCounter};
pub use gradient::{Gradients, Learned, Reweigh, Sequence, Tape};
pub use infer::{Chunk, Inference, Workspace};
pub use int8::Int8Weights;
pub use parameters::{LayerParameters, Norm, Parameters, Projection};
pub use rope::RopeTable;

use crate::config::{Activation, DecoderConfig, Rope};
use exsearch_kernels::{MatMut, MatRef, Operand, Panels, add, geglu, matmul, matmul_int8, swiglu};
use int8::Base;
use rayon::prelude::*;

/// A decoder: configuration, parameters and rotation tables.
pub struct Decoder {
    config: DecoderConfig,
    parameters: Parameters,
    /// One for each different rotation, and which of them each layer uses.
    ropes: Vec<RopeTable>,
    rope_of_layer: Vec<usize>,
}

impl Decoder {
    /// A decoder that takes sequences of at most `max_positions` tokens.
    pub fn new(config: DecoderConfig, parameters: Parameters, max_positions: usize) -> Self {
        let mut different: Vec<Rope> = Vec::new();
        let mut index_of = |rope: Rope| {
            different.iter().position(|other| *other == rope).unwrap_or_else(|| {
                different.push(rope);
                different.len() - 1
            })
        };
        let rope_of_layer = config.layers.iter().map(|layer| index_of(layer.rope)).collect();
        let ropes = different.iter().map(|rope| RopeTable::new(rope, config.head_dim, max_positions)).collect();
        Self { config, parameters, ropes, rope_of_layer }
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
        self.ropes[0].max_positions()
    }

    /// Logits `[m, v]` of final hidden states `[m, h]`.
    pub fn logits(&self, hidden: &[f32], logits: &mut Vec<f32>) {
        let (h, v) = (self.config.hidden_size, self.config.vocab_size);
        let m = hidden.len() / h;
        logits.resize(m * v, 0.0);
        let head = Operand::Panels(self.parameters.head());
        matmul(MatRef::new(hidden, m, h), head, MatMut::new(logits, m, v), false);
    }

    /// How it generates: beside an adapter where there is one, in bytes where they are given, which must be this decoder's.
    pub fn inference<'a>(&'a self, adapter: Option<&'a Adapter>, int8: Option<&'a Int8Weights>) -> Inference<'a> {
        Inference { decoder: self, adapter, int8 }
    }

    /// What the first layer sees of `token` `[h]`.
    fn embed(&self, token: u32, out: &mut [f32]) {
        self.parameters.embed(token, out);
        if self.config.embedding_scale != 1.0 {
            exsearch_kernels::scale(out, self.config.embedding_scale);
        }
    }

    /// `out = activation(gate) · up`, each `[m, i]`.
    fn activate(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        let i = self.config.intermediate_size;
        let activation = match self.config.activation {
            Activation::Silu => swiglu,
            Activation::GeluTanh => geglu,
        };
        let rows = out.par_chunks_exact_mut(i).zip(gate.par_chunks_exact(i)).zip(up.par_chunks_exact(i));
        rows.with_min_len(infer::MIN_ROWS).for_each(|((out, gate), up)| activation(gate, up, out));
    }

    fn rope_of(&self, layer_idx: usize) -> &RopeTable {
        &self.ropes[self.rope_of_layer[layer_idx]]
    }

    /// The base weight of one projection, its bias and, where there is one, its adapter.
    fn linear<'a>(&'a self, layer_idx: usize, projection: Projection, adapter: Option<&'a Adapter>) -> Linear<'a> {
        let layer = &self.parameters.layers[layer_idx];
        let lora = adapter.and_then(|adapter| {
            let pair = adapter.layers[layer_idx][projection as usize].as_ref()?;
            Some((pair, adapter.scale()))
        });
        let slot = projection as usize;
        Linear { base: &layer.linears[slot], bias: layer.biases[slot].as_deref(), lora }
    }
}

/// `y = x·W + b + s·(x·A)·B` (LoRA, arXiv 2106.09685, never materializing W + s·A·B).
#[derive(Clone, Copy)]
struct Linear<'a> {
    base: &'a Panels,
    bias: Option<&'a [f32]>,
    lora: Option<(&'a LoraPair, f32)>,
}

impl Linear<'_> {
    /// Maps `x [m, in]` to `out [m, out]` with `base`, the base weight or another form of it. `inner` receives s·(x·A) `[m, rank]`.
    fn forward(&self, base: Base<'_>, x: &[f32], m: usize, out: &mut Vec<f32>, inner: &mut Vec<f32>) {
        out.resize(m * self.base.n(), 0.0);
        inner.resize(self.lora.map_or(0, |(pair, _)| m * pair.a.n()), 0.0);
        self.forward_into(base, x, m, out, inner);
    }

    /// As [`Linear::forward`], into buffers; `inner` may be longer than `[m, rank]`, and is what the backward pass needs.
    fn forward_into(&self, base: Base<'_>, x: &[f32], m: usize, out: &mut [f32], inner: &mut [f32]) {
        let x = MatRef::new(x, m, self.base.k());
        match base {
            Base::F32(panels) => matmul(x, Operand::Panels(panels), MatMut::new(out, m, panels.n()), false),
            Base::Int8(rows, panels) => matmul_int8(rows, panels, out),
        }
        if let Some(bias) = self.bias {
            out.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
        let Some((pair, _)) = self.lora else { return };
        self.inner_into(x, inner);
        let inner = MatRef::new(inner, m, pair.a.n());
        matmul(inner, Operand::Panels(&pair.b), MatMut::new(out, m, self.base.n()), true);
    }

    /// s·(x·A) `[m, rank]` alone; nothing where there is no adapter.
    fn inner_into(&self, x: MatRef<'_>, inner: &mut [f32]) {
        let Some((pair, scale)) = self.lora else { return };
        let (m, rank) = (x.n_rows(), pair.a.n());
        let inner = &mut inner[..m * rank];
        matmul(x, Operand::Panels(&pair.a), MatMut::new(inner, m, rank), false);
        exsearch_kernels::scale(inner, scale);
    }
}

#[cfg(test)]
mod tests;
