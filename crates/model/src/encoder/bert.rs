//! BERT (arXiv 1810.04805) on CPU: token ids of many texts -> final hidden states, without a row of padding.
//!
//! The texts of a pack lie one behind the other, so products see one tall matrix and attention each text alone. A row's
//! numbers do not depend on the pack (`exsearch-kernels` promises it for products; the rest works on rows). Knows nothing of
//! text, roles or pooling. Dropout and the heads of pre-training are left out.
//!
//! Legend: m = tokens of a pack, n = tokens of a text, h = hidden size, i = intermediate size, d = head size.
use super::attention::{Projections, Scratch, Sequence, attend};
use super::config::{Activation, BertConfig};
use super::hash::ContentHash;
use crate::ModelError;
use crate::weights::Weights;
use exsearch_kernels::{
    MatMut, MatRef, Operand, Panels, add, gelu, gelu_tanh, layer_norm, matmul, matmul_serial, scale,
};
use rayon::prelude::*;
use std::cell::RefCell;

/// The token ids of one text, or of a pair of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenIds {
    /// All ids, markers included; not empty.
    pub(super) ids: Vec<u32>,
    /// How many of them, from the first, can be attended to.
    pub(super) n_attended: usize,
    /// How many of them, from the first, are of the first token type; the others are of the second.
    pub(super) n_first_type: usize,
}

/// A BERT encoder.
pub(super) struct Bert {
    config: BertConfig,
    /// Word embeddings `[v, h]`.
    words: Vec<f32>,
    /// Position embeddings with a token type's added `[types][max_positions][h]`, of the first type and, where the model has
    /// one, of the second.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

/// A linear layer: weight `[in, out]` and bias `[out]`.
struct Linear {
    weight: Panels,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

struct Layer {
    /// Hidden to queries, keys and values side by side `[h, 3h]`; the queries are divided by sqrt(d) already.
    queries_keys_values: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    mlp_norm: Norm,
}

/// Buffers that are kept from pack to pack.
#[derive(Default)]
pub(super) struct Workspace {
    x: Vec<f32>,
    queries_keys_values: Vec<f32>,
    /// What the heads attended to `[heads][m][d]`.
    by_head: Vec<f32>,
    /// The same `[m, h]`.
    attended: Vec<f32>,
    inner: Vec<f32>,
    scratch: Scratch,
}

impl Bert {
    /// Reads and packs a checkpoint, and adds its shape and numbers to `hash`.
    pub(super) fn load(weights: &Weights, config: BertConfig, hash: &mut ContentHash) -> Result<Self, ModelError> {
        let (h, i) = (config.hidden_size, config.intermediate_size);
        hash.add_text(&format!("{} heads, epsilon {}, {:?}", config.n_heads, config.layer_norm_eps, config.activation));
        let (prefix, epsilon) = (prefix(weights), config.layer_norm_eps);
        let source = Source { weights, prefix, epsilon, hash: RefCell::new(hash) };
        let of_one_type =
            source.tensor("embeddings.position_embeddings.weight", &[config.max_position_embeddings, h])?;
        let types = source.tensor("embeddings.token_type_embeddings.weight", &[config.n_token_types, h])?;
        let mut positions = of_one_type.repeat(config.n_token_types.min(2));
        let rows = positions.chunks_exact_mut(h).enumerate();
        rows.for_each(|(row_idx, row)| add(row, &types[row_idx / config.max_position_embeddings * h..][..h]));
        let layer = |layer_idx: usize| {
            let path = |name: &str| format!("encoder.layer.{layer_idx}.{name}");
            Ok(Layer {
                queries_keys_values: source.queries_keys_values(&path("attention.self"), &config)?,
                output: source.linear(&path("attention.output.dense"), h, h)?,
                attention_norm: source.norm(&path("attention.output.LayerNorm"), h)?,
                up: source.linear(&path("intermediate.dense"), h, i)?,
                down: source.linear(&path("output.dense"), i, h)?,
                mlp_norm: source.norm(&path("output.LayerNorm"), h)?,
            })
        };
        Ok(Self {
            words: source.tensor("embeddings.word_embeddings.weight", &[config.vocab_size, h])?,
            positions,
            norm: source.norm("embeddings.LayerNorm", h)?,
            layers: (0..config.n_layers).map(layer).collect::<Result<_, ModelError>>()?,
            config,
        })
    }

    pub(super) fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The final hidden states `[m, h]` of a pack of texts. `parallel` spreads each step over the threads of the current
    /// rayon pool; without it all happens on the calling thread. The numbers are the same.
    ///
    /// # Panics
    /// When a text is longer than `max_position_embeddings`, an id is outside of the vocabulary, or a token is of the second
    /// type where the model has one.
    pub(super) fn forward<'w>(&self, texts: &[&TokenIds], parallel: bool, workspace: &'w mut Workspace) -> &'w [f32] {
        let mut m = 0;
        let sequences: Vec<Sequence> = texts
            .iter()
            .map(|text| {
                let first = m;
                m += text.ids.len();
                Sequence { first, n: text.ids.len(), n_keys: text.n_attended }
            })
            .collect();
        self.embed(texts, m, &mut workspace.x);
        for layer in &self.layers {
            self.layer(layer, &sequences, parallel, workspace);
        }
        &workspace.x
    }

    fn embed(&self, texts: &[&TokenIds], m: usize, x: &mut Vec<f32>) {
        let h = self.config.hidden_size;
        x.resize(m * h, 0.0);
        let tokens = texts.iter().flat_map(|text| text.ids.iter().enumerate().map(|token| (text.n_first_type, token)));
        for (row, (n_first_type, (position, id))) in x.chunks_exact_mut(h).zip(tokens) {
            let types_before = if position < n_first_type { 0 } else { self.config.max_position_embeddings };
            row.copy_from_slice(&self.words[*id as usize * h..][..h]);
            add(row, &self.positions[(types_before + position) * h..][..h]);
            self.norm.apply(row);
        }
    }

    fn layer(&self, layer: &Layer, sequences: &[Sequence], parallel: bool, workspace: &mut Workspace) {
        let Workspace { x, queries_keys_values, by_head, attended, inner, scratch } = workspace;
        let (h, i, d) = (self.config.hidden_size, self.config.intermediate_size, self.config.head_dim());
        let m = x.len() / h;

        set_rows(queries_keys_values, m, &layer.queries_keys_values.bias);
        layer.queries_keys_values.add_product(x, queries_keys_values, parallel);
        by_head.resize(m * h, 0.0);
        let projections = Projections { rows: queries_keys_values, width: 3 * h, head_dim: d };
        if parallel {
            let heads = by_head.par_chunks_exact_mut(m * d).enumerate();
            heads.for_each_init(Scratch::default, |scratch, (head, out)| {
                attend(projections, head, sequences, out, scratch)
            });
        } else {
            let heads = by_head.chunks_exact_mut(m * d).enumerate();
            heads.for_each(|(head, out)| attend(projections, head, sequences, out, scratch));
        }
        attended.resize(m * h, 0.0);
        for (head, rows) in by_head.chunks_exact(m * d).enumerate() {
            for (out, row) in attended.chunks_exact_mut(h).zip(rows.chunks_exact(d)) {
                out[head * d..][..d].copy_from_slice(row);
            }
        }
        x.chunks_exact_mut(h).for_each(|row| add(row, &layer.output.bias));
        layer.output.add_product(attended, x, parallel);
        for_each_row(x, h, parallel, |row| layer.attention_norm.apply(row));

        set_rows(inner, m, &layer.up.bias);
        layer.up.add_product(x, inner, parallel);
        for_each_row(inner, i, parallel, |row| match self.config.activation {
            Activation::Gelu => gelu(row),
            Activation::GeluTanh => gelu_tanh(row),
            Activation::Relu => row.iter_mut().for_each(|x| *x = x.max(0.0)),
        });
        x.chunks_exact_mut(h).for_each(|row| add(row, &layer.down.bias));
        layer.down.add_product(inner, x, parallel);
        for_each_row(x, h, parallel, |row| layer.mlp_norm.apply(row));
    }
}

impl Linear {
    /// `out += x · weight`, with x `[m, in]` and out `[m, out]`.
    fn add_product(&self, x: &[f32], out: &mut [f32], parallel: bool) {
        let (k, n) = (self.weight.k(), self.weight.n());
        let (a, c) = (MatRef::new(x, x.len() / k, k), MatMut::new(out, x.len() / k, n));
        let product = if parallel { matmul } else { matmul_serial };
        product(a, Operand::Panels(&self.weight), c, true);
    }
}

impl Norm {
    fn apply(&self, row: &mut [f32]) {
        layer_norm(row, &self.weight, &self.bias, self.epsilon);
    }
}

/// Rows below which an elementwise loop stays on one thread.
const MIN_ROWS: usize = 64;

fn for_each_row(rows: &mut [f32], width: usize, parallel: bool, apply: impl Fn(&mut [f32]) + Sync + Send) {
    if parallel {
        rows.par_chunks_exact_mut(width).with_min_len(MIN_ROWS).for_each(apply);
    } else {
        rows.chunks_exact_mut(width).for_each(apply);
    }
}

/// Makes `out` the row `value`, m times.
fn set_rows(out: &mut Vec<f32>, m: usize, value: &[f32]) {
    out.resize(m * value.len(), 0.0);
    out.chunks_exact_mut(value.len()).for_each(|row| row.copy_from_slice(value));
}

/// Where a checkpoint's tensors are, and the hash of those that were read.
struct Source<'w> {
    weights: &'w Weights,
    prefix: &'static str,
    epsilon: f32,
    hash: RefCell<&'w mut ContentHash>,
}

/// A bare encoder's names start with nothing, those of a model with a head on top with `bert.`.
fn prefix(weights: &Weights) -> &'static str {
    let with_head = "bert.";
    if weights.names().any(|name| name.starts_with(with_head)) { with_head } else { "" }
}

impl Source<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let values = self.weights.tensor_f32(&format!("{}{name}", self.prefix), shape)?;
        self.hash.borrow_mut().add_numbers(&values);
        Ok(values)
    }

    fn linear(&self, path: &str, k: usize, n: usize) -> Result<Linear, ModelError> {
        let weight = Panels::from_transposed(&self.tensor(&format!("{path}.weight"), &[n, k])?, n, k);
        Ok(Linear { weight, bias: self.tensor(&format!("{path}.bias"), &[n])? })
    }

    /// The projections of all heads in one matrix, for one product instead of three.
    fn queries_keys_values(&self, path: &str, config: &BertConfig) -> Result<Linear, ModelError> {
        let h = config.hidden_size;
        let (mut rows, mut bias) = (Vec::with_capacity(3 * h * h), Vec::with_capacity(3 * h));
        for name in ["query", "key", "value"] {
            rows.extend(self.tensor(&format!("{path}.{name}.weight"), &[h, h])?);
            bias.extend(self.tensor(&format!("{path}.{name}.bias"), &[h])?);
        }
        // Scores are q·k / sqrt(d): dividing the weights once spares dividing every score.
        let factor = 1.0 / (config.head_dim() as f32).sqrt();
        scale(&mut rows[..h * h], factor);
        scale(&mut bias[..h], factor);
        Ok(Linear { weight: Panels::from_transposed(&rows, 3 * h, h), bias })
    }

    /// TensorFlow's names, `gamma` and `beta`, are still in bert-base-uncased and what was made from it.
    fn norm(&self, path: &str, h: usize) -> Result<Norm, ModelError> {
        let is_from_tensorflow = self.weights.shape(&format!("{}{path}.gamma", self.prefix)).is_some();
        let [weight, bias] = if is_from_tensorflow { ["gamma", "beta"] } else { ["weight", "bias"] };
        Ok(Norm {
            weight: self.tensor(&format!("{path}.{weight}"), &[h])?,
            bias: self.tensor(&format!("{path}.{bias}"), &[h])?,
            epsilon: self.epsilon,
        })
    }
}
