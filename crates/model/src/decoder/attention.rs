//! Causal attention of one head, forward and backward, in blocks of queries so that memory stays linear in length.
//!
//! Legend: n = queries, t = keys, d = head size. A block's scores are `[block, t]`, t counting the keys that some query of the
//! block sees: with a window, a block costs no more at a long sequence's end than at its start. Columns that a query does not
//! see are zero after the softmax, which adds exactly nothing to the sums behind it; and the softmax itself runs over what is
//! seen alone, so that no number depends on where a block starts.
use exsearch_kernels::{LANES, MatMut, MatRef, Operand, matmul_serial, scale, softmax};
use std::ops::Range;

/// Queries a block: at 8,192 keys its scores take 64 x 8,192 x 4 B = 2 MB.
const BLOCK: usize = 64;

/// The keys and values that a head attends to.
pub(super) struct Memory<'a> {
    /// Pages of `page_tokens` each but for the last, which may hold less.
    pub(super) pages: Vec<HeadPage<'a>>,
    pub(super) page_tokens: usize,
    pub(super) head_dim: usize,
    /// Products of queries and keys are multiplied with it.
    pub(super) scale: f32,
    /// How many keys a query sees, its own the last of them; all before it where there is none.
    pub(super) window: Option<usize>,
}

/// Keys and values of one head, some tokens of them or all.
#[derive(Clone, Copy)]
pub(super) struct HeadPage<'a> {
    /// Panels `[t / 32][d][32]`.
    pub(super) keys: &'a [f32],
    /// Rows `[t, d]`.
    pub(super) values: MatRef<'a>,
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
    /// The first key that the query at `position` sees.
    fn first_key(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The keys that the queries at `first..=last` see, from the start of a panel on.
    fn keys_seen(&self, first: usize, last: usize) -> Range<usize> {
        self.first_key(first) / LANES * LANES..last + 1
    }

    /// Columns of panels `[t / 32][d][32]`.
    fn columns<'p>(&self, panels: &'p [f32], keys: &Range<usize>) -> Operand<'p> {
        Operand::PanelSlice { values: &panels[keys.start * self.head_dim..], k: self.head_dim, n: keys.len() }
    }

    /// The pages that hold `keys`, the place of each among them, and the tokens of it that are meant.
    fn pieces(&self, keys: &Range<usize>) -> impl Iterator<Item = (HeadPage<'_>, usize, Range<usize>)> {
        let (size, keys) = (self.page_tokens, keys.clone());
        (keys.start / size..keys.end.div_ceil(size)).map(move |page_idx| {
            let (start, end) = (keys.start.max(page_idx * size), keys.end.min((page_idx + 1) * size));
            (self.pages[page_idx], start - keys.start, start - page_idx * size..end - page_idx * size)
        })
    }

    /// `scores [rows, keys] = Q·Kᵀ`. Each is a chain over d of its own.
    fn products(&self, queries: MatRef<'_>, rows: usize, keys: &Range<usize>, scores: &mut Vec<f32>) {
        scores.resize(rows * keys.len(), 0.0);
        for (page, at, tokens) in self.pieces(keys) {
            let columns = MatMut::strided(&mut scores[at..], rows, tokens.len(), keys.len());
            matmul_serial(queries, self.columns(page.keys, &tokens), columns, false);
        }
    }

    /// `out [rows, d] = P·V`: each a chain over the keys, which a page takes up where the one before it ended.
    fn weighted_values(&self, weights: &[f32], rows: usize, keys: &Range<usize>, out: &mut [f32]) {
        for (page, at, tokens) in self.pieces(keys) {
            let weights = MatRef::strided(&weights[at..], rows, tokens.len(), keys.len());
            let out = MatMut::new(out, rows, self.head_dim);
            matmul_serial(weights, Operand::Rows(page.values.rows(tokens)), out, at > 0);
        }
    }

    /// Replaces `scores` by the softmax of a block of queries over those of `keys` that they may see, and returns log-sum-exps.
    /// Query row r belongs to the token at `first + r / rows_a_token`.
    fn probabilities(
        &self,
        queries: MatRef<'_>,
        (rows, rows_a_token): (usize, usize),
        first: usize,
        keys: &Range<usize>,
        scores: &mut Vec<f32>,
    ) -> Vec<f32> {
        self.products(queries, rows, keys, scores);
        let lse = |(row_idx, row): (usize, &mut [f32])| {
            let position = first + row_idx / rows_a_token;
            let (row, later) = row.split_at_mut(position + 1 - keys.start);
            let (earlier, seen) = row.split_at_mut(self.first_key(position) - keys.start);
            earlier.fill(0.0);
            later.fill(0.0);
            scale(seen, self.scale);
            softmax(seen)
        };
        scores.chunks_exact_mut(keys.len()).enumerate().map(lse).collect()
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
            let keys = self.keys_seen(position, position + (rows - 1) / rows_a_token);
            let block_queries = MatRef::strided(&queries[start * query_stride..], rows, d, query_stride);
            all_lse.extend(self.probabilities(block_queries, (rows, rows_a_token), position, &keys, &mut scores));
            self.weighted_values(&scores, rows, &keys, &mut out[start * d..][..rows * d]);
        }
        all_lse
    }

    /// Writes the gradients with respect to one head's queries, keys and values, each `[t, d]`, given those of its output.
    /// FlashAttention-2's recurrence (arXiv 2307.08691, algorithm 2) with whole rows of scores:
    /// `dS = P * (dO Vᵀ - rowsum(dO * O))`.
    pub(super) fn attend_backward(
        &self,
        more: MemoryForBackward<'_>,
        (queries, outputs, d_outputs): (&[f32], &[f32], &[f32]),
        query_stride: usize,
        lse: &[f32],
        [d_queries, d_keys, d_values]: [&mut [f32]; 3],
    ) {
        let (d, n) = (self.head_dim, lse.len());
        d_keys.fill(0.0);
        d_values.fill(0.0);
        let (mut weights, mut d_scores) = (Vec::new(), Vec::new());
        for start in (0..n).step_by(BLOCK) {
            let rows = BLOCK.min(n - start);
            let keys = self.keys_seen(start, start + rows - 1);
            let n_keys = keys.len();
            let block_queries = MatRef::strided(&queries[start * query_stride..], rows, d, query_stride);
            let d_out = MatRef::strided(&d_outputs[start * query_stride..], rows, d, query_stride);
            self.products(block_queries, rows, &keys, &mut weights);
            d_scores.resize(rows * n_keys, 0.0);
            let value_columns = self.columns(more.value_panels, &keys);
            matmul_serial(d_out, value_columns, MatMut::new(&mut d_scores, rows, n_keys), false);
            for row in 0..rows {
                let seen = self.first_key(start + row) - keys.start..start + row + 1 - keys.start;
                let (p, d_s) = (&mut weights[row * n_keys..][..n_keys], &mut d_scores[row * n_keys..][..n_keys]);
                for row in [&mut *p, &mut *d_s] {
                    row[..seen.start].fill(0.0);
                    row[seen.end..].fill(0.0);
                }
                let (p, d_s) = (&mut p[seen.clone()], &mut d_s[seen]);
                scale(p, self.scale);
                exsearch_kernels::exp_in_place(p, lse[start + row]);
                let at = (start + row) * query_stride;
                let shift = exsearch_kernels::dot(&d_outputs[at..][..d], &outputs[at..][..d]);
                exsearch_kernels::softmax_backward(p, shift, self.scale, d_s);
            }
            let (p, d_s) = (MatRef::new(&weights, rows, n_keys), MatRef::new(&d_scores, rows, n_keys));
            let key_rows = Operand::Rows(more.key_rows.rows(keys.clone()));
            matmul_serial(d_s, key_rows, MatMut::new(&mut d_queries[start * d..][..rows * d], rows, d), false);
            let d_k = MatMut::new(&mut d_keys[keys.start * d..keys.end * d], n_keys, d);
            matmul_serial(d_s.transposed(), Operand::Rows(block_queries), d_k, true);
            let d_v = MatMut::new(&mut d_values[keys.start * d..keys.end * d], n_keys, d);
            matmul_serial(p.transposed(), Operand::Rows(d_out), d_v, true);
        }
    }
}

/// Packs one head of rows `[t, width]` into panels `[t / 32][d][32]`.
pub(super) fn pack_head(rows: &[f32], width: usize, head: usize, d: usize, panels: &mut [f32]) {
    for (panel, rows) in panels.chunks_exact_mut(d * LANES).zip(rows.chunks(LANES * width)) {
        for (lane, row) in rows.chunks_exact(width).enumerate() {
            for (line, value) in panel.chunks_exact_mut(LANES).zip(&row[head * d..][..d]) {
                line[lane] = *value;
            }
        }
    }
}
