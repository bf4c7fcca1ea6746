//! Causal attention of one head, forward and backward, in blocks of queries so that memory stays linear in length.
//!
//! Legend: n = queries, t = keys, d = head size. A block's scores are `[block, t]`; columns that a query may not see are
//! zero after the softmax, which adds exactly nothing to the sums behind it.
use exsearch_kernels::{LANES, MatMut, MatRef, Operand, matmul_serial, scale, softmax};

/// Queries a block: at 8,192 keys its scores take 64 x 8,192 x 4 B = 2 MB.
const BLOCK: usize = 64;

/// The keys and values that a head attends to.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    /// Panels `[t / 32][d][32]`.
    pub(super) keys: &'a [f32],
    /// Rows `[t, d]`.
    pub(super) values: MatRef<'a>,
    pub(super) head_dim: usize,
}

/// What the backward pass needs beside [`Memory`].
#[derive(Clone, Copy)]
pub(super) struct MemoryForBackward<'a> {
    /// Keys as rows `[t, d]`.
    pub(super) key_rows: MatRef<'a>,
    /// Values as panels `[t / 32][d][32]`.
    pub(super) value_panels: &'a [f32],
}

impl Memory<'_> {
    /// Replaces `scores` by the softmax of a block of queries over the keys they may see, and returns log-sum-exps.
    /// Query row r belongs to the token at `first + r / rows_a_token`.
    fn probabilities(
        &self,
        queries: MatRef<'_>,
        rows: usize,
        first: usize,
        rows_a_token: usize,
        scores: &mut Vec<f32>,
    ) -> Vec<f32> {
        let n_keys = first + (rows - 1) / rows_a_token + 1;
        scores.resize(rows * n_keys, 0.0);
        let keys = Operand::PanelSlice { values: self.keys, k: self.head_dim, n: n_keys };
        matmul_serial(queries, keys, MatMut::new(scores, rows, n_keys), false);
        let factor = 1.0 / (self.head_dim as f32).sqrt();
        let lse = |(row_idx, row): (usize, &mut [f32])| {
            let (seen, unseen) = row.split_at_mut(first + row_idx / rows_a_token + 1);
            unseen.fill(0.0);
            scale(seen, factor);
            softmax(seen)
        };
        scores.chunks_exact_mut(n_keys).enumerate().map(lse).collect()
    }

    /// Attention of `queries` rows, `rows_a_token` heads for each token from position `first` on, into `out` (as many rows of
    /// d). Returns the log-sum-exps of the scores.
    pub(super) fn attend(
        &self,
        queries: &[f32],
        query_stride: usize,
        (n_rows, rows_a_token): (usize, usize),
        first: usize,
        out: &mut [f32],
    ) -> Vec<f32> {
        let d = self.head_dim;
        let mut scores = Vec::new();
        let mut all_lse = Vec::with_capacity(n_rows);
        let block = BLOCK * rows_a_token;
        for start in (0..n_rows).step_by(block) {
            let rows = block.min(n_rows - start);
            let position = first + start / rows_a_token;
            let block_queries = MatRef::strided(&queries[start * query_stride..], rows, d, query_stride);
            all_lse.extend(self.probabilities(block_queries, rows, position, rows_a_token, &mut scores));
            let n_keys = scores.len() / rows;
            let weights = MatRef::new(&scores, rows, n_keys);
            let values = Operand::Rows(self.values.first_rows(n_keys));
            matmul_serial(weights, values, MatMut::new(&mut out[start * d..][..rows * d], rows, d), false);
        }
        all_lse
    }

    /// The gradients with respect to one head's queries, keys and values, each `[t, d]`, given those of its output.
    /// FlashAttention-2's recurrence (arXiv 2307.08691, algorithm 2) with whole rows of scores:
    /// `dS = P * (dO Vᵀ - rowsum(dO * O))`.
    pub(super) fn attend_backward(
        &self,
        more: MemoryForBackward<'_>,
        (queries, outputs, d_outputs): (&[f32], &[f32], &[f32]),
        query_stride: usize,
        lse: &[f32],
    ) -> [Vec<f32>; 3] {
        let (d, n) = (self.head_dim, lse.len());
        let factor = 1.0 / (d as f32).sqrt();
        let [mut d_queries, mut d_keys, mut d_values] = [(); 3].map(|()| vec![0.0; n * d]);
        let (mut weights, mut d_scores) = (Vec::new(), Vec::new());
        for start in (0..n).step_by(BLOCK) {
            let rows = BLOCK.min(n - start);
            let n_keys = start + rows;
            let block_queries = MatRef::strided(&queries[start * query_stride..], rows, d, query_stride);
            let d_out = MatRef::strided(&d_outputs[start * query_stride..], rows, d, query_stride);
            weights.resize(rows * n_keys, 0.0);
            let keys = Operand::PanelSlice { values: self.keys, k: d, n: n_keys };
            matmul_serial(block_queries, keys, MatMut::new(&mut weights, rows, n_keys), false);
            d_scores.resize(rows * n_keys, 0.0);
            let values = Operand::PanelSlice { values: more.value_panels, k: d, n: n_keys };
            matmul_serial(d_out, values, MatMut::new(&mut d_scores, rows, n_keys), false);
            for row in 0..rows {
                let seen = start + row + 1;
                let (p, d_s) = (&mut weights[row * n_keys..][..n_keys], &mut d_scores[row * n_keys..][..n_keys]);
                p[seen..].fill(0.0);
                d_s[seen..].fill(0.0);
                scale(&mut p[..seen], factor);
                exsearch_kernels::exp_in_place(&mut p[..seen], lse[start + row]);
                let at = (start + row) * query_stride;
                let shift = exsearch_kernels::dot(&d_outputs[at..][..d], &outputs[at..][..d]);
                for (d_s, p) in d_s[..seen].iter_mut().zip(&p[..seen]) {
                    *d_s = p * (*d_s - shift) * factor;
                }
            }
            let (p, d_s) = (MatRef::new(&weights, rows, n_keys), MatRef::new(&d_scores, rows, n_keys));
            let keys = Operand::Rows(more.key_rows.first_rows(n_keys));
            matmul_serial(d_s, keys, MatMut::new(&mut d_queries[start * d..][..rows * d], rows, d), false);
            let d_k = MatMut::new(&mut d_keys[..n_keys * d], n_keys, d);
            matmul_serial(d_s.transposed(), Operand::Rows(block_queries), d_k, true);
            let d_v = MatMut::new(&mut d_values[..n_keys * d], n_keys, d);
            matmul_serial(p.transposed(), Operand::Rows(d_out), d_v, true);
        }
        [d_queries, d_keys, d_values]
    }
}

/// Packs one head of rows `[t, width]` into panels `[t / 32][d][32]`.
pub(super) fn panels_of_head(rows: &[f32], width: usize, head: usize, d: usize) -> Vec<f32> {
    let n = rows.len() / width;
    let mut panels = vec![0.0; n.div_ceil(LANES) * d * LANES];
    for (position, row) in rows.chunks_exact(width).enumerate() {
        let panel = &mut panels[position / LANES * d * LANES..][..d * LANES];
        for (line, value) in panel.chunks_exact_mut(LANES).zip(&row[head * d..][..d]) {
            line[position % LANES] = *value;
        }
    }
    panels
}
