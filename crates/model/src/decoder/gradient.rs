//! The gradient of a weighted token loss for one sequence, by hand, layer by layer (after llm.c's plan).
//!
//! One sequence at a time: on CPU a few hundred rows already fill the kernels, and nothing is ever padded. Either every
//! layer keeps what its backward pass needs (about 33 KB a token and layer for SmolLM2-135M), or only its input (2.3 KB)
//! and computes the rest again.
use super::attention::{MemoryForBackward, panels_of_head};
use super::parameters::embedding_column;
use super::{Adapter, Decoder, Norm, Parameters, Projection};
use crate::config::Activation;
use exsearch_kernels::{
    LANES, MatMut, MatRef, Operand, Panels, add, geglu_backward, matmul, matmul_packed, rms_norm, rms_norm_backward,
    scale, softmax_cross_entropy_backward, swiglu_backward,
};
use rayon::prelude::*;
use std::borrow::Cow;

/// Weights in the layout of the backward products: `[out, in]`, and the head `[v, h]`.
pub struct BackwardWeights {
    layers: Vec<[Panels; 7]>,
    head: Panels,
}

/// Gradients of what is trained, in the layout of what they belong to.
pub enum Gradients {
    /// Of an adapter; the decoder stays as it is.
    Adapter(Adapter),
    /// Of every parameter.
    Full(Parameters),
}

/// What one sequence gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learned {
    /// Sum over tokens of weight · -log p.
    pub loss: f64,
    /// Sum over tokens with a weight of -log p.
    pub nll: f64,
    /// Tokens with a weight.
    pub n_targets: usize,
}

/// What a layer's backward pass needs from its forward pass.
struct LayerSaved {
    attention_norm: Normed,
    /// After norm and rotation, as are the keys.
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    query_norm: Option<Normed>,
    key_norm: Option<Normed>,
    /// By query head `[heads, t]`.
    lse: Vec<Vec<f32>>,
    attended: Vec<f32>,
    attention_output_norm: Option<Normed>,
    mlp_norm: Normed,
    gate: Vec<f32>,
    up: Vec<f32>,
    mlp_output_norm: Option<Normed>,
    /// s·(x·A) of each projection.
    inner: [Vec<f32>; 7],
}

/// What went into an RMSNorm, and 1 / rms of each of its rows.
struct Normed {
    x: Vec<f32>,
    inverses: Vec<f32>,
}

/// The adapter's pairs transposed: A `[r, in]`, B `[out, r]`.
struct AdapterBackward {
    layers: Vec<[Option<(Panels, Panels)>; 7]>,
}

/// One backward pass.
struct Pass<'a> {
    decoder: &'a Decoder,
    adapter: Option<&'a Adapter>,
    adapter_backward: Option<AdapterBackward>,
    weights: &'a BackwardWeights,
    gradients: &'a mut Gradients,
    positions: Vec<usize>,
}

/// Rows of logits at a time: 64 x 49,152 x 4 B = 12.6 MB.
const HEAD_ROWS: usize = 64;

impl BackwardWeights {
    /// Packs the transposes; to be made anew when the parameters change.
    pub fn new(parameters: &Parameters) -> Self {
        let layers = parameters.layers.iter().map(|layer| layer.linears.each_ref().map(Panels::transposed)).collect();
        Self { layers, head: parameters.head().transposed() }
    }
}

impl Gradients {
    /// Zeros for an adapter.
    pub fn of_adapter(adapter: &Adapter) -> Self {
        Self::Adapter(adapter.zeros_like())
    }

    /// Zeros for all parameters.
    pub fn of_parameters(parameters: &Parameters) -> Self {
        Self::Full(parameters.zeros_like())
    }

    /// Every gradient, in the order of the parameters' `slices_mut`.
    pub fn slices_mut(&mut self) -> Vec<&mut [f32]> {
        match self {
            Self::Adapter(adapter) => adapter.slices_mut(),
            Self::Full(parameters) => parameters.slices_mut(),
        }
    }

    /// Sets all to zero.
    pub fn clear(&mut self) {
        for slice in self.slices_mut() {
            slice.fill(0.0);
        }
    }

    /// The Euclidean norm over all of them.
    pub fn norm(&mut self) -> f64 {
        let squares = self.slices_mut().into_iter().map(|slice| exsearch_kernels::sum_of_squares(slice));
        squares.sum::<f64>().sqrt()
    }
}

impl Decoder {
    /// Adds the gradient of `sum_i weights[i] · -log p(ids[i] | ids[..i])` to `gradients` and returns the loss.
    ///
    /// `weights` has a value for each id; the first id has nothing to be predicted from, so its weight must be 0. With
    /// `recompute` each layer keeps only its input.
    ///
    /// # Panics
    /// When lengths differ, the sequence is longer than [`Decoder::max_positions`], or full gradients are asked for with an
    /// adapter in place.
    pub fn learn(
        &self,
        adapter: Option<&Adapter>,
        backward: &BackwardWeights,
        (ids, weights): (&[u32], &[f32]),
        gradients: &mut Gradients,
        recompute: bool,
    ) -> Learned {
        assert_eq!(ids.len(), weights.len(), "a weight for each token");
        assert!(weights.first().is_none_or(|first| *first == 0.0), "the first token cannot be predicted");
        assert!(ids.len() <= self.max_positions(), "the sequence fits the model");
        assert_eq!(matches!(gradients, Gradients::Adapter(_)), adapter.is_some(), "gradients of what is trained");
        // The tokens behind the last target are not needed.
        let Some(last_target) = weights.iter().rposition(|weight| *weight != 0.0) else { return Learned::default() };
        let adapter_backward = adapter.map(AdapterBackward::new);
        let positions = (0..last_target).collect();
        let mut pass = Pass { decoder: self, adapter, adapter_backward, weights: backward, gradients, positions };
        rayon::scope(|_| pass.run(ids, weights, recompute))
    }
}

impl AdapterBackward {
    fn new(adapter: &Adapter) -> Self {
        let layers = adapter
            .layers
            .par_iter()
            .map(|layer| layer.each_ref().map(|pair| pair.as_ref().map(|p| (p.a.transposed(), p.b.transposed()))))
            .collect();
        Self { layers }
    }
}

impl Pass<'_> {
    fn run(&mut self, ids: &[u32], weights: &[f32], recompute: bool) -> Learned {
        let h = self.decoder.config.hidden_size;
        let inputs = &ids[..self.positions.len()];
        let mut x = vec![0.0; inputs.len() * h];
        for (row, token) in x.chunks_exact_mut(h).zip(inputs) {
            self.decoder.embed(*token, row);
        }
        let n_layers = self.decoder.config.layers.len();
        let (mut inputs_of_layers, mut saved) = (Vec::new(), Vec::new());
        for layer_idx in 0..n_layers {
            if recompute {
                inputs_of_layers.push(x.clone());
                self.layer(layer_idx, &mut x);
            } else {
                saved.push(self.layer(layer_idx, &mut x));
            }
        }
        let (learned, mut d_x) = self.head(&x, ids, weights);
        drop(x);
        for layer_idx in (0..n_layers).rev() {
            let layer = match saved.pop() {
                Some(layer) => layer,
                None => self.layer(layer_idx, &mut inputs_of_layers.pop().expect("one input a layer")),
            };
            self.layer_backward(layer_idx, layer, &mut d_x);
        }
        if let Gradients::Full(gradients) = self.gradients {
            let scale = self.decoder.config.embedding_scale;
            for (token, d_row) in inputs.iter().zip(d_x.chunks_exact(h)) {
                let (first, lane) = embedding_column(&gradients.embedding, *token);
                let column = &mut gradients.embedding.values_mut()[first..];
                for (row, d) in d_row.iter().enumerate() {
                    column[row * LANES + lane] += d * scale;
                }
            }
        }
        learned
    }

    /// Runs a layer on `x` `[t, h]` in place.
    fn layer(&self, layer_idx: usize, x: &mut Vec<f32>) -> LayerSaved {
        let decoder = self.decoder;
        let (t, i) = (self.positions.len(), decoder.config.intermediate_size);
        let layer = &decoder.parameters.layers[layer_idx];
        let mut inner: [Vec<f32>; 7] = Default::default();
        let mut linear = |projection: Projection, input: &[f32]| {
            let mut out = Vec::new();
            let linear = decoder.linear(layer_idx, projection, self.adapter);
            linear.forward(input, t, &mut out, &mut inner[projection as usize]);
            out
        };
        let mut normed = Vec::new();
        let attention_inverses = decoder.norm_rows(x, layer.required_norm(Norm::Attention), &mut normed);
        let mut queries = linear(Projection::Query, &normed);
        let mut keys = linear(Projection::Key, &normed);
        let values = linear(Projection::Value, &normed);
        let query_norm = self.normalize(layer.norm(Norm::Query), &mut queries);
        let key_norm = self.normalize(layer.norm(Norm::Key), &mut keys);
        decoder.rotate(layer_idx, &mut queries, &self.positions);
        decoder.rotate(layer_idx, &mut keys, &self.positions);
        let (attended, lse) = self.attend(layer_idx, &queries, &keys, &values);
        let mut x_middle = linear(Projection::Output, &attended);
        let attention_output_norm = self.normalize(layer.norm(Norm::AttentionOutput), &mut x_middle);
        add(&mut x_middle, x);
        let mlp_inverses = decoder.norm_rows(&x_middle, layer.required_norm(Norm::Mlp), &mut normed);
        let gate = linear(Projection::Gate, &normed);
        let up = linear(Projection::Up, &normed);
        let mut active = vec![0.0; t * i];
        decoder.activate(&gate, &up, &mut active);
        let mut out = linear(Projection::Down, &active);
        let mlp_output_norm = self.normalize(layer.norm(Norm::MlpOutput), &mut out);
        add(&mut out, &x_middle);
        let x = std::mem::replace(x, out);
        LayerSaved {
            attention_norm: Normed { x, inverses: attention_inverses },
            queries,
            keys,
            values,
            query_norm,
            key_norm,
            lse,
            attended,
            attention_output_norm,
            mlp_norm: Normed { x: x_middle, inverses: mlp_inverses },
            gate,
            up,
            mlp_output_norm,
            inner,
        }
    }

    /// Normalizes rows in place where the layer has a norm for them.
    fn normalize(&self, weight: Option<&[f32]>, rows: &mut Vec<f32>) -> Option<Normed> {
        let mut normed = Vec::new();
        let inverses = self.decoder.norm_rows(rows, weight?, &mut normed);
        Some(Normed { x: std::mem::replace(rows, normed), inverses })
    }

    /// Attention over the sequence itself: `[t, heads · d]`, and the log-sum-exps by head.
    fn attend(&self, layer_idx: usize, queries: &[f32], keys: &[f32], values: &[f32]) -> (Vec<f32>, Vec<Vec<f32>>) {
        let config = &self.decoder.config;
        let (d, n_heads, n_kv) = (config.head_dim, config.n_heads, config.n_kv_heads);
        let (t, group, width, kv_width) = (self.positions.len(), n_heads / n_kv, n_heads * d, n_kv * d);
        let panels: Vec<Vec<f32>> =
            (0..n_kv).into_par_iter().map(|head| panels_of_head(keys, kv_width, head, d)).collect();
        let heads: Vec<(Vec<f32>, Vec<f32>)> = (0..n_heads)
            .into_par_iter()
            .map(|head| {
                let values = MatRef::strided(&values[head / group * d..], t, d, kv_width);
                let memory = self.decoder.memory(layer_idx, &panels[head / group], values);
                let mut out = vec![0.0; t * d];
                let lse = memory.attend(&queries[head * d..], width, (t, 1), 0, &mut out);
                (out, lse)
            })
            .collect();
        let mut attended = vec![0.0; t * width];
        let mut lses = Vec::with_capacity(n_heads);
        for (head, (out, lse)) in heads.into_iter().enumerate() {
            interleave(&out, &mut attended, head, d, width);
            lses.push(lse);
        }
        (attended, lses)
    }

    /// Loss and the gradient with respect to the last layer's output `[t, h]`.
    fn head(&mut self, x: &[f32], ids: &[u32], weights: &[f32]) -> (Learned, Vec<f32>) {
        let decoder = self.decoder;
        let (h, v) = (decoder.config.hidden_size, decoder.config.vocab_size);
        let (norm, offset, epsilon) =
            (&decoder.parameters.norm, decoder.config.norm_offset, decoder.config.rms_norm_eps);
        let targets: Vec<usize> = (1..=self.positions.len()).filter(|&idx| weights[idx] != 0.0).collect();
        let mut learned = Learned { n_targets: targets.len(), ..Learned::default() };
        let mut d_x = vec![0.0; x.len()];
        let (mut logits, mut d_norm) = (Vec::new(), vec![0.0; h]);
        for targets in targets.chunks(HEAD_ROWS) {
            let m = targets.len();
            let mut hidden = vec![0.0; m * h];
            let inverses: Vec<f32> = targets
                .iter()
                .zip(hidden.chunks_exact_mut(h))
                .map(|(idx, out)| rms_norm(&x[(idx - 1) * h..][..h], norm, offset, epsilon, out))
                .collect();
            decoder.logits(&hidden, &mut logits);
            let logprobs: Vec<f32> = logits
                .par_chunks_exact_mut(v)
                .zip(targets)
                .map(|(row, &idx)| softmax_cross_entropy_backward(row, ids[idx] as usize, weights[idx]))
                .collect();
            for (logprob, &idx) in logprobs.iter().zip(targets) {
                learned.loss -= f64::from(weights[idx]) * f64::from(*logprob);
                learned.nll -= f64::from(*logprob);
            }
            let d_logits = MatRef::new(&logits, m, v);
            if let Gradients::Full(gradients) = self.gradients {
                let head = gradients.head.as_mut().unwrap_or(&mut gradients.embedding);
                matmul_packed(MatRef::new(&hidden, m, h).transposed(), d_logits, head, true);
            }
            let mut d_hidden = vec![0.0; m * h];
            matmul(d_logits, Operand::Panels(&self.weights.head), MatMut::new(&mut d_hidden, m, h), false);
            for ((idx, d_out), inverse) in targets.iter().zip(d_hidden.chunks_exact(h)).zip(inverses) {
                let row = (idx - 1) * h..idx * h;
                accumulate_norm_weight(d_out, &x[row.clone()], inverse, &mut d_norm);
                rms_norm_backward(d_out, &x[row.clone()], norm, offset, inverse, &mut d_x[row]);
            }
        }
        if let Gradients::Full(gradients) = self.gradients {
            add(&mut gradients.norm, &d_norm);
        }
        (learned, d_x)
    }

    /// Replaces the gradient with respect to a layer's output by the one with respect to its input.
    fn layer_backward(&mut self, layer_idx: usize, mut saved: LayerSaved, d_x: &mut [f32]) {
        let decoder = self.decoder;
        let (t, h, i) = (self.positions.len(), decoder.config.hidden_size, decoder.config.intermediate_size);
        let layer = &decoder.parameters.layers[layer_idx];

        // x_out = x_middle + norm?(down(act(gate(n)) · up(n))), n = norm(x_middle)
        let mut active = vec![0.0; t * i];
        decoder.activate(&saved.gate, &saved.up, &mut active);
        let mut d_active = vec![0.0; t * i];
        let d_output = self.before_norm(layer_idx, Norm::MlpOutput, saved.mlp_output_norm.take(), Cow::Borrowed(&*d_x));
        self.linear_backward(layer_idx, Projection::Down, &saved, &active, &d_output, &mut d_active);
        drop((active, d_output));
        let (mut d_gate, mut d_up) = (std::mem::take(&mut saved.gate), std::mem::take(&mut saved.up));
        let activation_backward = match decoder.config.activation {
            Activation::Silu => swiglu_backward,
            Activation::GeluTanh => geglu_backward,
        };
        let rows = d_active.par_chunks_exact(i).zip(d_gate.par_chunks_exact_mut(i)).zip(d_up.par_chunks_exact_mut(i));
        rows.for_each(|((d_active, gate), up)| activation_backward(d_active, gate, up));
        drop(d_active);
        let mut normed = Vec::new();
        decoder.norm_rows(&saved.mlp_norm.x, layer.required_norm(Norm::Mlp), &mut normed);
        let mut d_normed = vec![0.0; t * h];
        self.linear_backward(layer_idx, Projection::Gate, &saved, &normed, &d_gate, &mut d_normed);
        self.linear_backward(layer_idx, Projection::Up, &saved, &normed, &d_up, &mut d_normed);
        drop((d_gate, d_up));
        self.norm_backward(layer_idx, Norm::Mlp, &saved.mlp_norm, &d_normed, d_x);

        // x_middle = x + norm?(output(attention(rope(norm?(query(n))), rope(norm?(key(n))), value(n)))), n = norm(x)
        let mut d_attended = vec![0.0; saved.attended.len()];
        let d_output = Cow::Borrowed(&*d_x);
        let d_output = self.before_norm(layer_idx, Norm::AttentionOutput, saved.attention_output_norm.take(), d_output);
        self.linear_backward(layer_idx, Projection::Output, &saved, &saved.attended, &d_output, &mut d_attended);
        drop(d_output);
        let [d_queries, d_keys, d_values] = self.attend_backward(layer_idx, &saved, &d_attended);
        let d_queries = self.before_norm(layer_idx, Norm::Query, saved.query_norm.take(), Cow::Owned(d_queries));
        let d_keys = self.before_norm(layer_idx, Norm::Key, saved.key_norm.take(), Cow::Owned(d_keys));
        decoder.norm_rows(&saved.attention_norm.x, layer.required_norm(Norm::Attention), &mut normed);
        d_normed.fill(0.0);
        self.linear_backward(layer_idx, Projection::Query, &saved, &normed, &d_queries, &mut d_normed);
        self.linear_backward(layer_idx, Projection::Key, &saved, &normed, &d_keys, &mut d_normed);
        self.linear_backward(layer_idx, Projection::Value, &saved, &normed, &d_values, &mut d_normed);
        self.norm_backward(layer_idx, Norm::Attention, &saved.attention_norm, &d_normed, d_x);
    }

    /// The gradient before a norm that [`Pass::normalize`] did, given the one behind it; the same where it did nothing.
    fn before_norm<'d>(
        &mut self,
        layer_idx: usize,
        norm: Norm,
        normed: Option<Normed>,
        d_out: Cow<'d, [f32]>,
    ) -> Cow<'d, [f32]> {
        let Some(normed) = normed else { return d_out };
        let mut d_x = vec![0.0; d_out.len()];
        self.norm_backward(layer_idx, norm, &normed, &d_out, &mut d_x);
        Cow::Owned(d_x)
    }

    /// Adds the gradient through a norm to `d_x`, and to the gradients that of its weight.
    fn norm_backward(&mut self, layer_idx: usize, norm: Norm, normed: &Normed, d_out: &[f32], d_x: &mut [f32]) {
        let (decoder, x) = (self.decoder, &normed.x);
        let weight = decoder.parameters.layers[layer_idx].norm(norm).expect("what was normalized has a norm");
        let mut d_weight = vec![0.0; weight.len()];
        for (row, inverse) in normed.inverses.iter().enumerate() {
            let row = row * weight.len()..(row + 1) * weight.len();
            let (d_out, x) = (&d_out[row.clone()], &x[row.clone()]);
            accumulate_norm_weight(d_out, x, *inverse, &mut d_weight);
            rms_norm_backward(d_out, x, weight, decoder.config.norm_offset, *inverse, &mut d_x[row]);
        }
        if let Gradients::Full(gradients) = self.gradients {
            let gradient = gradients.layers[layer_idx].norms[norm as usize].as_mut();
            add(gradient.expect("a gradient for each weight"), &d_weight);
        }
    }

    /// Adds a projection's gradients, given its input `x` and the gradient `d_y` with respect to its output, and adds the
    /// gradient with respect to its input to `d_x`.
    fn linear_backward(
        &mut self,
        layer_idx: usize,
        projection: Projection,
        saved: &LayerSaved,
        x: &[f32],
        d_y: &[f32],
        d_x: &mut [f32],
    ) {
        let (t, slot) = (self.positions.len(), projection as usize);
        let (n_in, n_out) = projection.sizes(&self.decoder.config);
        if let Gradients::Full(gradients) = self.gradients
            && let Some(d_bias) = &mut gradients.layers[layer_idx].biases[slot]
        {
            d_y.chunks_exact(n_out).for_each(|row| add(d_bias, row));
        }
        let (x, d_y) = (MatRef::new(x, t, n_in), MatRef::new(d_y, t, n_out));
        let base = Operand::Panels(&self.weights.layers[layer_idx][slot]);
        matmul(d_y, base, MatMut::new(d_x, t, n_in), true);
        match self.gradients {
            Gradients::Full(gradients) => {
                matmul_packed(x.transposed(), d_y, &mut gradients.layers[layer_idx].linears[slot], true);
            }
            Gradients::Adapter(gradients) => {
                let Some(gradient) = &mut gradients.layers[layer_idx][slot] else { return };
                let transposed = self.adapter_backward.as_ref().expect("an adapter is trained");
                let (a, b) = transposed.layers[layer_idx][slot].as_ref().expect("a pair for each gradient");
                let rank = gradient.a.n();
                let inner = MatRef::new(&saved.inner[slot], t, rank);
                matmul_packed(inner.transposed(), d_y, &mut gradient.b, true);
                let mut d_inner = vec![0.0; t * rank];
                matmul(d_y, Operand::Panels(b), MatMut::new(&mut d_inner, t, rank), false);
                scale(&mut d_inner, gradients_scale(self.adapter));
                let d_inner = MatRef::new(&d_inner, t, rank);
                matmul_packed(x.transposed(), d_inner, &mut gradient.a, true);
                matmul(d_inner, Operand::Panels(a), MatMut::new(d_x, t, n_in), true);
            }
        }
    }

    /// The gradients with respect to queries, keys and values before their rotation.
    fn attend_backward(&self, layer_idx: usize, saved: &LayerSaved, d_attended: &[f32]) -> [Vec<f32>; 3] {
        let config = &self.decoder.config;
        let (d, n_heads, n_kv) = (config.head_dim, config.n_heads, config.n_kv_heads);
        let (t, group, width, kv_width) = (self.positions.len(), n_heads / n_kv, n_heads * d, n_kv * d);
        let pack = |rows: &[f32]| -> Vec<Vec<f32>> {
            (0..n_kv).into_par_iter().map(|head| panels_of_head(rows, kv_width, head, d)).collect()
        };
        let (key_panels, value_panels) = (pack(&saved.keys), pack(&saved.values));
        let heads: Vec<[Vec<f32>; 3]> = (0..n_heads)
            .into_par_iter()
            .map(|head| {
                let kv_head = head / group;
                let rows = |values| MatRef::strided(values, t, d, kv_width);
                let values = rows(&saved.values[kv_head * d..]);
                let memory = self.decoder.memory(layer_idx, &key_panels[kv_head], values);
                let more = MemoryForBackward {
                    key_rows: rows(&saved.keys[kv_head * d..]),
                    value_panels: &value_panels[kv_head],
                };
                let at = head * d;
                let rows = (&saved.queries[at..], &saved.attended[at..], &d_attended[at..]);
                memory.attend_backward(more, rows, width, &saved.lse[head])
            })
            .collect();
        let mut d_queries = vec![0.0; t * width];
        let [mut d_keys, mut d_values] = [(); 2].map(|()| vec![0.0; t * kv_width]);
        for (head, [d_query, d_key, d_value]) in heads.iter().enumerate() {
            interleave(d_query, &mut d_queries, head, d, width);
            interleave(d_key, &mut d_keys, head / group, d, kv_width);
            interleave(d_value, &mut d_values, head / group, d, kv_width);
        }
        self.decoder.rotate_back(layer_idx, &mut d_queries, &self.positions);
        self.decoder.rotate_back(layer_idx, &mut d_keys, &self.positions);
        [d_queries, d_keys, d_values]
    }
}

fn gradients_scale(adapter: Option<&Adapter>) -> f32 {
    adapter.expect("an adapter is trained").scale()
}

/// Adds a head's rows `[t, d]` to its columns of `[t, width]`.
fn interleave(rows: &[f32], out: &mut [f32], head: usize, d: usize, width: usize) {
    for (row, out) in rows.chunks_exact(d).zip(out.chunks_exact_mut(width)) {
        add(&mut out[head * d..][..d], row);
    }
}

fn accumulate_norm_weight(d_out: &[f32], x: &[f32], inverse: f32, d_weight: &mut [f32]) {
    for ((d_weight, d), x) in d_weight.iter_mut().zip(d_out).zip(x) {
        *d_weight += d * x * inverse;
    }
}
