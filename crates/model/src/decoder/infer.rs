//! Inference: new tokens of many sequences in one pass, behind what their caches hold.
use super::attention::{HeadPage, Memory};
use super::cache::PAGE_TOKENS;
use super::int8::Base;
use super::{Adapter, Decoder, Int8Weights, KvCache, Norm, Projection};
use crate::config::DecoderConfig;
use exsearch_kernels::{Int8Rows, MatRef, add, matmul_int8, rms_norm};
use rayon::prelude::*;

/// The next tokens of one sequence. One token is a decode step, more are prefill; both may share a batch.
pub struct Chunk<'a> {
    /// What came before; holds the new tokens afterwards.
    pub cache: &'a mut KvCache,
    /// The new tokens; not empty.
    pub tokens: &'a [u32],
}

/// Buffers that are kept from pass to pass.
#[derive(Default)]
pub struct Workspace {
    x: Vec<f32>,
    normed: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    out: Vec<f32>,
    inner: Vec<f32>,
    int8: Int8Rows,
}

/// A decoder as it infers: beside an adapter or alone, in its own weights or in bytes ([`Decoder::inference`]).
#[derive(Clone, Copy)]
pub struct Inference<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) adapter: Option<&'a Adapter>,
    pub(super) int8: Option<&'a Int8Weights>,
}

impl Decoder {
    /// [`Inference::forward`] in the decoder's own weights.
    pub fn forward(
        &self,
        adapter: Option<&Adapter>,
        chunks: &mut [Chunk<'_>],
        wanted: &[usize],
        workspace: &mut Workspace,
    ) -> Vec<f32> {
        self.inference(adapter, None).forward(chunks, wanted, workspace)
    }
}

impl<'a> Inference<'a> {
    /// The configuration of the decoder.
    pub fn config(&self) -> &'a DecoderConfig {
        &self.decoder.config
    }

    /// Runs the chunks and returns the final hidden states `[wanted, h]` of the wanted rows, counted over the tokens of all
    /// chunks in order. [`Inference::logits`] turns them into logits.
    ///
    /// # Panics
    /// When a sequence grows past [`Decoder::max_positions`] or a token is outside the vocabulary.
    pub fn forward(&self, chunks: &mut [Chunk<'_>], wanted: &[usize], workspace: &mut Workspace) -> Vec<f32> {
        let decoder = self.decoder;
        let h = decoder.config.hidden_size;
        let positions: Vec<usize> = chunks
            .iter()
            .flat_map(|chunk| (0..chunk.tokens.len()).map(|offset| chunk.cache.n_tokens() + offset))
            .collect();
        let m = positions.len();
        let Workspace { x, .. } = workspace;
        x.resize(m * h, 0.0);
        let tokens = chunks.iter().flat_map(|chunk| chunk.tokens);
        for (row, token) in x.chunks_exact_mut(h).zip(tokens) {
            decoder.embed(*token, row);
        }
        // From inside the pool the many short parallel loops of a layer cost a fraction of what they cost from outside.
        rayon::scope(|_| {
            for layer_idx in 0..decoder.config.layers.len() {
                self.layer(layer_idx, chunks, &positions, workspace);
            }
        });
        for chunk in chunks {
            chunk.cache.advance(chunk.tokens.len());
        }
        let mut hidden = vec![0.0; wanted.len() * h];
        for (out, row_idx) in hidden.chunks_exact_mut(h).zip(wanted) {
            let row = &workspace.x[row_idx * h..][..h];
            rms_norm(row, &decoder.parameters.norm, decoder.config.norm_offset, decoder.config.rms_norm_eps, out);
        }
        hidden
    }

    /// Logits `[m, v]` of final hidden states `[m, h]`.
    pub fn logits(&self, hidden: &[f32], logits: &mut Vec<f32>, workspace: &mut Workspace) {
        let Some(weights) = self.int8 else { return self.decoder.logits(hidden, logits) };
        let h = self.decoder.config.hidden_size;
        logits.resize(hidden.len() / h * self.decoder.config.vocab_size, 0.0);
        workspace.int8.quantize(hidden, h);
        matmul_int8(&workspace.int8, weights.head(), logits);
    }

    fn layer(&self, layer_idx: usize, chunks: &mut [Chunk<'_>], positions: &[usize], workspace: &mut Workspace) {
        let Workspace { x, normed, queries, keys, values, attended, gate, up, out, inner, int8 } = workspace;
        let decoder = self.decoder;
        let m = positions.len();
        let layer = &decoder.parameters.layers[layer_idx];

        decoder.norm_rows(x, layer.required_norm(Norm::Attention), normed);
        let outputs =
            [(Projection::Query, &mut *queries), (Projection::Key, &mut *keys), (Projection::Value, &mut *values)];
        self.linears(layer_idx, outputs, normed, m, inner, int8);
        for (rows, norm) in [(&mut *queries, Norm::Query), (&mut *keys, Norm::Key)] {
            if let Some(weight) = layer.norm(norm) {
                decoder.norm_rows(rows, weight, normed);
                std::mem::swap(rows, normed);
            }
            decoder.rotate(layer_idx, rows, positions);
        }
        decoder.attend_chunks(layer_idx, chunks, queries, keys, values, attended);
        self.linears(layer_idx, [(Projection::Output, &mut *out)], attended, m, inner, int8);
        decoder.add_output(x, out, layer.norm(Norm::AttentionOutput), normed);

        decoder.norm_rows(x, layer.required_norm(Norm::Mlp), normed);
        self.linears(layer_idx, [(Projection::Gate, &mut *gate), (Projection::Up, up)], normed, m, inner, int8);
        out.resize(m * decoder.config.intermediate_size, 0.0);
        decoder.activate(gate, up, out);
        self.linears(layer_idx, [(Projection::Down, &mut *normed)], out, m, inner, int8);
        decoder.add_output(x, normed, layer.norm(Norm::MlpOutput), out);
    }

    /// Maps `x [m, in]` by projections that share it.
    fn linears<const N: usize>(
        &self,
        layer_idx: usize,
        outputs: [(Projection, &mut Vec<f32>); N],
        x: &[f32],
        m: usize,
        inner: &mut Vec<f32>,
        rows: &mut Int8Rows,
    ) {
        if self.int8.is_some() {
            rows.quantize(x, x.len() / m);
        }
        for (projection, out) in outputs {
            let linear = self.decoder.linear(layer_idx, projection, self.adapter);
            let base = match self.int8 {
                None => Base::F32(linear.base),
                Some(weights) => Base::Int8(rows, weights.linear(layer_idx, projection)),
            };
            linear.forward(base, x, m, out, inner);
        }
    }
}

impl Decoder {
    /// Adds what attention or the MLP gave to the residual stream, normalized where the model has a norm there.
    fn add_output(&self, x: &mut [f32], output: &[f32], norm: Option<&[f32]>, buffer: &mut Vec<f32>) {
        match norm {
            None => add(x, output),
            Some(weight) => {
                self.norm_rows(output, weight, buffer);
                add(x, buffer);
            }
        }
    }

    /// RMSNorm of rows as long as `weight`; returns 1 / rms of each.
    pub(super) fn norm_rows(&self, x: &[f32], weight: &[f32], out: &mut Vec<f32>) -> Vec<f32> {
        let width = weight.len();
        let (offset, epsilon) = (self.config.norm_offset, self.config.rms_norm_eps);
        out.resize(x.len(), 0.0);
        let rows = out.par_chunks_exact_mut(width).zip(x.par_chunks_exact(width)).with_min_len(MIN_ROWS);
        rows.map(|(out, x)| rms_norm(x, weight, offset, epsilon, out)).collect()
    }

    /// What one key-value head of a layer attends to, keys `[t / 32][d][32]` and values `[t, d]`.
    pub(super) fn memory<'a>(&self, layer_idx: usize, keys: &'a [f32], values: MatRef<'a>) -> Memory<'a> {
        self.paged_memory(layer_idx, vec![HeadPage { keys, values }], keys.len() / self.config.head_dim)
    }

    fn paged_memory<'a>(&self, layer_idx: usize, pages: Vec<HeadPage<'a>>, page_tokens: usize) -> Memory<'a> {
        let DecoderConfig { head_dim, attention_scale, .. } = self.config;
        Memory { pages, page_tokens, head_dim, scale: attention_scale, window: self.config.layers[layer_idx].window }
    }

    /// Appends the new keys and values to the caches and attends over them; `attended` is `[m, heads · d]`.
    fn attend_chunks(
        &self,
        layer_idx: usize,
        chunks: &mut [Chunk<'_>],
        queries: &[f32],
        keys: &[f32],
        values: &[f32],
        attended: &mut Vec<f32>,
    ) {
        let (d, n_kv) = (self.config.head_dim, self.config.n_kv_heads);
        let group = self.config.n_heads / n_kv;
        let (width, kv_width) = (group * n_kv * d, n_kv * d);
        // A task: one chunk's queries of one key-value head, at most TASK_TOKENS of them, so that threads share long prefills.
        let mut tasks = Vec::new();
        let mut rows = Vec::with_capacity(chunks.len());
        let mut row = 0;
        for (chunk_idx, chunk) in chunks.iter().enumerate() {
            let n = chunk.tokens.len();
            rows.push(row * kv_width..(row + n) * kv_width);
            for start in (0..n).step_by(TASK_TOKENS) {
                let tokens = TASK_TOKENS.min(n - start);
                tasks.extend((0..n_kv).map(|head| (chunk_idx, head, row + start, start, tokens)));
            }
            row += n;
        }
        chunks.par_iter_mut().zip(rows).for_each(|(chunk, rows)| {
            chunk.cache.write(layer_idx, &keys[rows.clone()], &values[rows]);
        });
        attended.resize(row * width, 0.0);
        let chunks = &*chunks;
        let results: Vec<Vec<f32>> = tasks
            .par_iter()
            .map(|&(chunk_idx, head, row, start, n)| {
                let cache = &chunks[chunk_idx].cache;
                let first = cache.n_tokens() + start;
                let memory = self.paged_memory(layer_idx, cache.head(layer_idx, head), PAGE_TOKENS);
                let mut gathered = Vec::with_capacity(n * group * d);
                for token in row..row + n {
                    gathered.extend_from_slice(&queries[token * width + head * group * d..][..group * d]);
                }
                let mut out = vec![0.0; n * group * d];
                memory.attend(&gathered, d, (n * group, group), first, &mut out);
                out
            })
            .collect();
        for (&(_, head, row, _, n), result) in tasks.iter().zip(&results) {
            for (offset, part) in result.chunks_exact(group * d).enumerate().take(n) {
                attended[(row + offset) * width + head * group * d..][..group * d].copy_from_slice(part);
            }
        }
    }
}

/// Rows below which an elementwise loop stays on one thread.
pub(super) const MIN_ROWS: usize = 64;

/// Tokens of a prefill that one attention task takes.
const TASK_TOKENS: usize = 64;
