//! Attention of a pass: every sequence over itself, one head at a time. Work is by sequence and head `[heads, n, d]`; what goes
//! in and comes out has all heads of a token in a row.
use super::super::attention::{MemoryForBackward, pack_head};
use super::Pass;
use super::tape::LayerSaved;
use exsearch_kernels::{LANES, MatRef, add};
use rayon::prelude::*;
use std::ops::Range;

/// Buffers of the attention of a layer.
pub(super) struct AttentionBuffers<'a> {
    /// `[heads, n, d]` by sequence.
    pub(super) by_head: [&'a mut [f32]; 3],
    /// Panels of keys and of values by sequence and key-value head.
    pub(super) panels: [&'a mut [f32]; 2],
}

impl Pass<'_> {
    /// The length of one buffer of panels.
    pub(super) fn panels_length(&self) -> usize {
        let config = &self.decoder.config;
        let tokens: usize = self.spans.iter().map(|span| span.len().next_multiple_of(LANES)).sum();
        tokens * config.n_kv_heads * config.head_dim
    }

    /// Fills `attended` and `lse` from queries, keys and values.
    pub(super) fn attend(&self, layer_idx: usize, saved: &mut LayerSaved<&mut [f32]>, buffers: AttentionBuffers<'_>) {
        let config = &self.decoder.config;
        let (d, n_heads, n_kv) = (config.head_dim, config.n_heads, config.n_kv_heads);
        let (group, width, kv_width) = (n_heads / n_kv, n_heads * d, n_kv * d);
        let ([by_head, _, _], [key_panels, _]) = (buffers.by_head, buffers.panels);
        self.pack(saved.keys, key_panels);
        let (queries, values) = (&*saved.queries, &*saved.values);
        let panels = self.panels(key_panels);
        let tasks: Vec<_> = self.by_head(by_head, d).into_iter().zip(self.by_head(saved.lse, 1)).collect();
        tasks.into_par_iter().enumerate().for_each(|(task_idx, ((span, head, out), (_, _, lse)))| {
            let values = MatRef::strided(&values[span.start * kv_width + head / group * d..], span.len(), d, kv_width);
            let keys = panels[task_idx / n_heads * n_kv + head / group];
            let queries = &queries[span.start * width + head * d..];
            let memory = self.decoder.memory(layer_idx, keys, values);
            lse.copy_from_slice(&memory.attend(queries, width, (span.len(), 1), 0, out));
        });
        for (span, head, out) in self.by_head(by_head, d) {
            let rows = &mut saved.attended[span.start * width..span.end * width];
            for (row, out) in rows.chunks_exact_mut(width).zip(out.chunks_exact(d)) {
                row[head * d..][..d].copy_from_slice(out);
            }
        }
    }

    /// The gradients with respect to queries, keys and values before their rotation, given that of what was attended.
    pub(super) fn attend_backward(
        &self,
        layer_idx: usize,
        saved: &LayerSaved<&mut [f32]>,
        d_attended: &[f32],
        [d_queries, d_keys, d_values]: [&mut [f32]; 3],
        buffers: AttentionBuffers<'_>,
    ) {
        let config = &self.decoder.config;
        let (d, n_heads, n_kv) = (config.head_dim, config.n_heads, config.n_kv_heads);
        let (group, width, kv_width) = (n_heads / n_kv, n_heads * d, n_kv * d);
        let ([query_part, key_part, value_part], [key_panels, value_panels]) = (buffers.by_head, buffers.panels);
        self.pack(saved.keys, key_panels);
        self.pack(saved.values, value_panels);
        let (key_panels, value_panels) = (self.panels(key_panels), self.panels(value_panels));
        let (queries, keys, values) = (&*saved.queries, &*saved.keys, &*saved.values);
        let (attended, lse) = (&*saved.attended, &*saved.lse);
        let parts = self.by_head(query_part, d).into_iter().zip(self.by_head(key_part, d));
        let tasks: Vec<_> = parts.zip(self.by_head(value_part, d)).collect();
        tasks.into_par_iter().enumerate().for_each(
            |(task_idx, (((span, head, d_query), (_, _, d_key)), (_, _, d_value)))| {
                let kv_head = task_idx / n_heads * n_kv + head / group;
                let rows = |values| {
                    let values: &[f32] = values;
                    MatRef::strided(&values[span.start * kv_width + head / group * d..], span.len(), d, kv_width)
                };
                let memory = self.decoder.memory(layer_idx, key_panels[kv_head], rows(values));
                let more = MemoryForBackward { key_rows: rows(keys), value_panels: value_panels[kv_head] };
                let at = span.start * width + head * d;
                let lse = &lse[span.start * n_heads + head * span.len()..][..span.len()];
                let rows = (&queries[at..], &attended[at..], &d_attended[at..]);
                memory.attend_backward(more, rows, width, lse, [d_query, d_key, d_value]);
            },
        );
        for (part, d_rows, group) in
            [(query_part, d_queries, 1), (key_part, d_keys, group), (value_part, d_values, group)]
        {
            d_rows.fill(0.0);
            let width = width / group;
            for (span, head, part) in self.by_head(part, d) {
                let rows = &mut d_rows[span.start * width..span.end * width];
                for (row, part) in rows.chunks_exact_mut(width).zip(part.chunks_exact(d)) {
                    add(&mut row[head / group * d..][..d], part);
                }
            }
        }
    }

    /// Cuts a buffer `[heads, n, a_row]` by sequence into its heads.
    fn by_head<'v>(&self, mut values: &'v mut [f32], a_row: usize) -> Vec<(Range<usize>, usize, &'v mut [f32])> {
        let n_heads = self.decoder.config.n_heads;
        let mut heads = Vec::with_capacity(self.spans.len() * n_heads);
        for span in &self.spans {
            for head in 0..n_heads {
                let (taken, rest) = std::mem::take(&mut values).split_at_mut(span.len() * a_row);
                heads.push((span.clone(), head, taken));
                values = rest;
            }
        }
        heads
    }

    /// Packs every key-value head of rows `[t, kv heads · d]`.
    fn pack(&self, rows: &[f32], mut panels: &mut [f32]) {
        let (d, n_kv) = (self.decoder.config.head_dim, self.decoder.config.n_kv_heads);
        let mut tasks = Vec::with_capacity(self.spans.len() * n_kv);
        for span in &self.spans {
            for head in 0..n_kv {
                let (taken, rest) = std::mem::take(&mut panels).split_at_mut(span.len().next_multiple_of(LANES) * d);
                tasks.push((&rows[span.start * n_kv * d..span.end * n_kv * d], head, taken));
                panels = rest;
            }
        }
        tasks.into_par_iter().for_each(|(rows, head, panels)| pack_head(rows, n_kv * d, head, d, panels));
    }

    /// The panels that [`Pass::pack`] wrote, by sequence and key-value head.
    fn panels<'v>(&self, mut panels: &'v [f32]) -> Vec<&'v [f32]> {
        let (d, n_kv) = (self.decoder.config.head_dim, self.decoder.config.n_kv_heads);
        let mut heads = Vec::with_capacity(self.spans.len() * n_kv);
        for span in &self.spans {
            for _ in 0..n_kv {
                let (taken, rest) = panels.split_at(span.len().next_multiple_of(LANES) * d);
                heads.push(taken);
                panels = rest;
            }
        }
        heads
    }
}
