//! The gradient of a weighted token loss, by hand, layer by layer (after llm.c's plan).
//!
//! Several sequences share a pass: their rows stand one behind the other, nothing is padded, and each attends to itself
//! alone. A pass gives the same bits as its sequences one after the other, except where one tensor is both embedding and
//! head: its gradient is then added up in another order.
//!
//! Legend: t = rows of all sequences of a pass, n = rows of one.
mod attend;
mod layer;
mod tape;

pub use tape::Tape;

use super::parameters::embedding_column;
use super::{Adapter, Decoder, DecoderConfig, Parameters, Projection};
use exsearch_kernels::{
    LANES, MatMut, MatRef, Operand, log_softmax_at, matmul, matmul_packed, matmul_transposed, rms_norm,
    rms_norm_backward, rms_norm_weight_backward, softmax_cross_entropy_backward, squared_norm,
};
use rayon::prelude::*;
use std::ops::Range;
use tape::{Cut, Scratch};

/// What to learn.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// A value for each id. The first id has nothing to be predicted from, so its weight must be 0.
    pub weights: &'a [f32],
}

/// Gradients of what is trained, in the layout of what they belong to.
pub enum Gradients {
    /// Of an adapter; the decoder stays as it is.
    Adapter(Adapter),
    /// Of every parameter.
    Full(Parameters),
}

/// Weights that depend on log-probs: the number of a sequence and log p of each of its tokens with a weight, to what each of these
/// weighs in place of that. Where they are all 0 no gradient is computed.
pub type Reweigh<'a> = &'a mut (dyn FnMut(usize, &[f32]) -> Vec<f32> + Send);

/// What a pass gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learned {
    /// Sum over tokens of weight · -log p.
    pub loss: f64,
    /// Sum over tokens with a weight of -log p.
    pub nll: f64,
    /// Tokens with a weight.
    pub n_targets: usize,
}

/// One forward and backward pass.
struct Pass<'a> {
    decoder: &'a Decoder,
    adapter: Option<&'a Adapter>,
    gradients: &'a mut Gradients,
    /// Without the tokens behind the last target, which are not needed.
    sequences: Vec<Sequence<'a>>,
    /// Their numbers among all that were given.
    numbers: Vec<usize>,
    /// The rows of each sequence: one for every id but the last.
    spans: Vec<Range<usize>>,
    /// Of each row, within its sequence.
    positions: Vec<usize>,
}

/// A token to predict: its row, id and weight.
struct Target {
    row: usize,
    id: u32,
    weight: f32,
}

/// Logits at a time, in bytes: for a vocabulary of 49,152 these are 128 rows, enough to read the head's weights seldom and few
/// enough to stay in a cache that is shared by cores.
const LOGITS_BYTES: usize = 24 << 20;

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
        self.slices_mut().into_iter().map(|slice| squared_norm(slice)).sum::<f64>().sqrt()
    }
}

impl Decoder {
    /// Adds the gradient of `sum_i weights[i] · -log p(ids[i] | ids[..i])` over the sequences to `gradients` and returns the
    /// loss.
    ///
    /// # Panics
    /// When lengths differ, a sequence is longer than [`Decoder::max_positions`], or full gradients are asked for with an
    /// adapter in place.
    pub fn learn(
        &self,
        adapter: Option<&Adapter>,
        sequences: &[Sequence<'_>],
        gradients: &mut Gradients,
        tape: &mut Tape,
    ) -> Learned {
        self.learn_reweighed(adapter, sequences, None, gradients, tape)
    }

    /// As [`Decoder::learn`]; the weights only say which tokens are targets where `reweigh` gives others. The gradient takes those as
    /// constants, so that a term f(log p) of the loss is a weight of -f'(log p). What is returned holds the last weights.
    ///
    /// # Panics
    /// As [`Decoder::learn`].
    pub fn learn_reweighed(
        &self,
        adapter: Option<&Adapter>,
        sequences: &[Sequence<'_>],
        reweigh: Option<Reweigh<'_>>,
        gradients: &mut Gradients,
        tape: &mut Tape,
    ) -> Learned {
        assert_eq!(matches!(gradients, Gradients::Adapter(_)), adapter.is_some(), "gradients of what is trained");
        let mut pass = Pass {
            decoder: self,
            adapter,
            gradients,
            sequences: Vec::new(),
            numbers: Vec::new(),
            spans: Vec::new(),
            positions: Vec::new(),
        };
        for (number, Sequence { ids, weights }) in sequences.iter().enumerate() {
            assert_eq!(ids.len(), weights.len(), "a weight for each token");
            assert!(weights.first().is_none_or(|first| *first == 0.0), "the first token cannot be predicted");
            assert!(ids.len() <= self.max_positions(), "the sequence fits the model");
            let Some(last_target) = weights.iter().rposition(|weight| *weight != 0.0) else { continue };
            let start = pass.positions.len();
            pass.sequences.push(Sequence { ids: &ids[..=last_target], weights: &weights[..=last_target] });
            pass.numbers.push(number);
            pass.spans.push(start..start + last_target);
            pass.positions.extend(0..last_target);
        }
        if pass.sequences.is_empty() {
            return Learned::default();
        }
        // From inside the pool the many short parallel loops of a layer cost a fraction of what they cost from outside.
        rayon::scope(|_| pass.run(tape, reweigh))
    }
}

impl Pass<'_> {
    fn run(&mut self, tape: &mut Tape, reweigh: Option<Reweigh<'_>>) -> Learned {
        let Cut { mut saved, mut inputs, x, d_x, mut scratch } = tape.cut(self);
        let h = self.decoder.config.hidden_size;
        for (row, token) in x.chunks_exact_mut(h).zip(self.inputs()) {
            self.decoder.embed(token, row);
        }
        let (n_layers, n_inputs) = (self.decoder.config.layers.len(), inputs.len());
        for layer_idx in 0..n_layers {
            if let Some(input) = inputs.get_mut(layer_idx) {
                input.copy_from_slice(x);
            }
            self.layer(layer_idx, &mut saved[layer_idx.saturating_sub(n_inputs)], x, &mut scratch);
        }
        let mut targets = self.targets();
        if let Some(reweigh) = reweigh {
            self.reweigh(&mut targets, x, &mut scratch, reweigh);
        }
        if targets.is_empty() {
            return Learned::default();
        }
        let learned = self.head(&targets, x, d_x, &mut scratch);
        for layer_idx in (0..n_layers).rev() {
            let saved = &mut saved[layer_idx.saturating_sub(n_inputs)];
            if let Some(input) = inputs.get(layer_idx) {
                x.copy_from_slice(input);
                self.layer_again(layer_idx, saved, x, &mut scratch);
            }
            self.layer_backward(layer_idx, saved, d_x, &mut scratch);
        }
        self.embedding_backward(d_x);
        learned
    }

    /// The ids of all rows.
    fn inputs(&self) -> impl Iterator<Item = u32> {
        self.sequences.iter().flat_map(|sequence| &sequence.ids[..sequence.ids.len() - 1]).copied()
    }

    fn targets(&self) -> Vec<Target> {
        let of_one = |(sequence, span): (&Sequence<'_>, &Range<usize>)| {
            let tokens = sequence.ids.iter().zip(sequence.weights).skip(1).zip(span.clone());
            let target = |((id, weight), row): ((&u32, &f32), usize)| Target { row, id: *id, weight: *weight };
            tokens.map(target).filter(|target| target.weight != 0.0).collect::<Vec<_>>()
        };
        self.sequences.iter().zip(&self.spans).flat_map(of_one).collect()
    }

    /// r of a projection's adapter; 0 where there is none.
    fn rank(&self, projection: Projection) -> usize {
        let of_layer = |layer: &[Option<super::LoraPair>; 7]| layer[projection as usize].as_ref().map(|it| it.a.n());
        self.adapter.iter().flat_map(|adapter| adapter.layers.iter().filter_map(of_layer)).max().unwrap_or(0)
    }

    /// What the scratch must hold: no two of its users are at work at once.
    fn scratch_size(&self) -> usize {
        let attention = Scratch::size(self.attention_lengths());
        attention.max(Scratch::size(self.mlp_lengths())).max(Scratch::size(self.head_lengths()))
    }

    /// Rows of logits at a time.
    fn head_rows(&self) -> usize {
        let fit = LOGITS_BYTES / (size_of::<f32>() * self.decoder.config.vocab_size);
        (fit / 12 * 12).max(12).min(self.positions.len())
    }

    /// Buffers of [`Pass::head`]: logits, hidden states and gradients with respect to these.
    fn head_lengths(&self) -> [usize; 3] {
        let (m, h) = (self.head_rows(), self.decoder.config.hidden_size);
        [m * self.decoder.config.vocab_size, m * h, m * h]
    }

    /// Logits `[m, v]` of the rows that predict some targets; leaves their normed hidden states `[m, h]` and returns 1 / rms of each.
    fn logits(&self, targets: &[Target], x: &[f32], hidden: &mut [f32], logits: &mut [f32]) -> Vec<f32> {
        let DecoderConfig { hidden_size: h, vocab_size: v, norm_offset, rms_norm_eps, .. } = self.decoder.config;
        let parameters = &self.decoder.parameters;
        let rows = targets.iter().map(|target| &x[target.row * h..][..h]).zip(hidden.chunks_exact_mut(h));
        let inverses = rows.map(|(row, out)| rms_norm(row, &parameters.norm, norm_offset, rms_norm_eps, out)).collect();
        let (hidden, logits) = (MatRef::new(hidden, targets.len(), h), MatMut::new(logits, targets.len(), v));
        matmul(hidden, Operand::Panels(parameters.head()), logits, false);
        inverses
    }

    /// Gives targets other weights; those of 0 go.
    fn reweigh(&self, targets: &mut Vec<Target>, x: &[f32], scratch: &mut Scratch<'_>, reweigh: Reweigh<'_>) {
        let (h, v) = (self.decoder.config.hidden_size, self.decoder.config.vocab_size);
        let [logits, hidden, _] = scratch.take(self.head_lengths());
        let mut logprobs: Vec<f32> = Vec::with_capacity(targets.len());
        for targets in targets.chunks(self.head_rows()) {
            let logits = &mut logits[..targets.len() * v];
            self.logits(targets, x, &mut hidden[..targets.len() * h], logits);
            let rows = logits.par_chunks_exact(v).zip(targets);
            logprobs.par_extend(rows.map(|(row, target)| log_softmax_at(row, target.id as usize)));
        }
        let (mut rest, mut logprobs) = (targets.as_mut_slice(), logprobs.as_slice());
        for (number, span) in self.numbers.iter().zip(&self.spans) {
            let n = rest.partition_point(|target| target.row < span.end);
            let (targets, others) = rest.split_at_mut(n);
            let weights = reweigh(*number, logprobs.split_off(..n).expect("a log-prob for each target"));
            targets.iter_mut().zip(weights).for_each(|(target, weight)| target.weight = weight);
            rest = others;
        }
        targets.retain(|target| target.weight != 0.0);
    }

    /// The loss; writes the gradient with respect to the last layer's output `[t, h]` to `d_x`.
    fn head(&mut self, targets: &[Target], x: &[f32], d_x: &mut [f32], scratch: &mut Scratch<'_>) -> Learned {
        let decoder = self.decoder;
        let (h, v) = (decoder.config.hidden_size, decoder.config.vocab_size);
        let (norm, offset) = (&decoder.parameters.norm, decoder.config.norm_offset);
        let mut learned = Learned { n_targets: targets.len(), ..Learned::default() };
        let (head_rows, [logits, hidden, d_hidden]) = (self.head_rows(), scratch.take(self.head_lengths()));
        d_x.fill(0.0);
        for targets in targets.chunks(head_rows) {
            let m = targets.len();
            let (logits, hidden, d_hidden) = (&mut logits[..m * v], &mut hidden[..m * h], &mut d_hidden[..m * h]);
            let inverses = self.logits(targets, x, hidden, logits);
            let hidden = MatRef::new(hidden, m, h);
            let logprobs: Vec<f32> = logits
                .par_chunks_exact_mut(v)
                .zip(targets)
                .map(|(row, target)| softmax_cross_entropy_backward(row, target.id as usize, target.weight))
                .collect();
            for (logprob, target) in logprobs.iter().zip(targets) {
                learned.loss -= f64::from(target.weight) * f64::from(*logprob);
                learned.nll -= f64::from(*logprob);
            }
            let d_logits = MatRef::new(logits, m, v);
            matmul_transposed(d_logits, decoder.parameters.head(), MatMut::new(d_hidden, m, h), false);
            if let Gradients::Full(gradients) = self.gradients {
                let head = gradients.head.as_mut().unwrap_or(&mut gradients.embedding);
                matmul_packed(hidden.transposed(), d_logits, head, true);
            }
            for ((target, d_out), inverse) in targets.iter().zip(d_hidden.chunks_exact(h)).zip(inverses) {
                let row = target.row * h..(target.row + 1) * h;
                if let Gradients::Full(gradients) = self.gradients {
                    rms_norm_weight_backward(d_out, &x[row.clone()], inverse, &mut gradients.norm);
                }
                rms_norm_backward(d_out, &x[row.clone()], norm, offset, inverse, &mut d_x[row]);
            }
        }
        learned
    }

    /// Adds the gradient with respect to the first layer's input to that of the embedding.
    fn embedding_backward(&mut self, d_x: &[f32]) {
        let inputs: Vec<u32> = self.inputs().collect();
        let Gradients::Full(gradients) = self.gradients else { return };
        let (h, scale) = (self.decoder.config.hidden_size, self.decoder.config.embedding_scale);
        for (token, d_row) in inputs.iter().zip(d_x.chunks_exact(h)) {
            let (first, lane) = embedding_column(&gradients.embedding, *token);
            let column = &mut gradients.embedding.values_mut()[first..];
            for (row, d) in d_row.iter().enumerate() {
                column[row * LANES + lane] += d * scale;
            }
        }
    }
}
