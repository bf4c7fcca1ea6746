//! Inference: new tokens of many sequences in one pass, behind what their caches hold.
use super::attention::Memory;
use super::{Adapter, Decoder, KvCache, Projection};
use exsearch_kernels::{MatRef, add, rms_norm, rope, swiglu};
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
}

impl Decoder {
    /// Runs the chunks and returns the final hidden states `[wanted, h]` of the wanted rows, counted over the tokens of all
    /// chunks in order. [`Decoder::logits`] turns them into logits.
    ///
    /// # Panics
    /// When a sequence grows past [`Decoder::max_positions`] or a token is outside the vocabulary.
    pub fn forward(
        &self,
        adapter: Option<&Adapter>,
        chunks: &mut [Chunk<'_>],
        wanted: &[usize],
        workspace: &mut Workspace,
    ) -> Vec<f32> {
        let h = self.config.hidden_size;
        let positions: Vec<usize> = chunks
            .iter()
            .flat_map(|chunk| (0..chunk.tokens.len()).map(|offset| chunk.cache.n_tokens() + offset))
            .collect();
        let m = positions.len();
        let Workspace { x, .. } = workspace;
        x.resize(m * h, 0.0);
        let tokens = chunks.iter().flat_map(|chunk| chunk.tokens);
        for (row, token) in x.chunks_exact_mut(h).zip(tokens) {
            self.parameters.embed(*token, row);
        }
        // From inside the pool the many short parallel loops of a layer cost a fraction of what they cost from outside.
        rayon::scope(|_| {
            for layer_idx in 0..self.config.n_layers {
                self.infer_layer(layer_idx, adapter, chunks, &positions, workspace);
            }
        });
        for chunk in chunks {
            chunk.cache.advance(chunk.tokens.len());
        }
        let mut hidden = vec![0.0; wanted.len() * h];
        for (out, row_idx) in hidden.chunks_exact_mut(h).zip(wanted) {
            let row = &workspace.x[row_idx * h..][..h];
            rms_norm(row, &self.parameters.norm, self.config.rms_norm_eps, out);
        }
        hidden
    }

    fn infer_layer(
        &self,
        layer_idx: usize,
        adapter: Option<&Adapter>,
        chunks: &mut [Chunk<'_>],
        positions: &[usize],
        workspace: &mut Workspace,
    ) {
        let Workspace { x, normed, queries, keys, values, attended, gate, up, out, inner } = workspace;
        let (h, m) = (self.config.hidden_size, positions.len());
        let layer = &self.parameters.layers[layer_idx];
        let linear = |projection| self.linear(layer_idx, projection, adapter);

        self.norm_rows(x, &layer.attention_norm, normed);
        linear(Projection::Query).forward(normed, m, queries, inner);
        linear(Projection::Key).forward(normed, m, keys, inner);
        linear(Projection::Value).forward(normed, m, values, inner);
        self.rotate(queries, positions);
        self.rotate(keys, positions);
        self.attend_chunks(layer_idx, chunks, queries, keys, values, attended);
        linear(Projection::Output).forward(attended, m, out, inner);
        add(x, out);

        self.norm_rows(x, &layer.mlp_norm, normed);
        linear(Projection::Gate).forward(normed, m, gate, inner);
        linear(Projection::Up).forward(normed, m, up, inner);
        let i = self.config.intermediate_size;
        out.resize(m * i, 0.0);
        let rows = out.par_chunks_exact_mut(i).zip(gate.par_chunks_exact(i)).zip(up.par_chunks_exact(i));
        rows.with_min_len(MIN_ROWS).for_each(|((out, gate), up)| swiglu(gate, up, out));
        linear(Projection::Down).forward(out, m, normed, inner);
        add(x, &normed[..m * h]);
    }

    pub(super) fn norm_rows(&self, x: &[f32], weight: &[f32], out: &mut Vec<f32>) -> Vec<f32> {
        let h = self.config.hidden_size;
        out.resize(x.len(), 0.0);
        let rows = out.par_chunks_exact_mut(h).zip(x.par_chunks_exact(h)).with_min_len(MIN_ROWS);
        rows.map(|(out, x)| rms_norm(x, weight, self.config.rms_norm_eps, out)).collect()
    }

    pub(super) fn rotate(&self, rows: &mut [f32], positions: &[usize]) {
        let width = rows.len() / positions.len();
        rows.par_chunks_exact_mut(width).zip(positions).with_min_len(MIN_ROWS).for_each(|(row, position)| {
            let (cos, sin) = self.rope.at(*position);
            rope(row, cos, sin);
        });
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
        let mut row = 0;
        for (chunk_idx, chunk) in chunks.iter_mut().enumerate() {
            let n = chunk.tokens.len();
            let rows = row * kv_width..(row + n) * kv_width;
            chunk.cache.write(layer_idx, &keys[rows.clone()], &values[rows]);
            for start in (0..n).step_by(TASK_TOKENS) {
                let tokens = TASK_TOKENS.min(n - start);
                tasks.extend((0..n_kv).map(|head| (chunk_idx, head, row + start, start, tokens)));
            }
            row += n;
        }
        attended.resize(row * width, 0.0);
        let chunks = &*chunks;
        let results: Vec<Vec<f32>> = tasks
            .par_iter()
            .map(|&(chunk_idx, head, row, start, n)| {
                let cache = &chunks[chunk_idx].cache;
                let first = cache.n_tokens() + start;
                let (keys, values) = cache.head(layer_idx, head);
                let memory = Memory { keys, values: MatRef::new(values, values.len() / d, d), head_dim: d };
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
const MIN_ROWS: usize = 64;

/// Tokens of a prefill that one attention task takes.
const TASK_TOKENS: usize = 64;
