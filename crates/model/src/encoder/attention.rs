//! Attention of one head over the texts of a pack: every token attends to all tokens of its own text, or to the first of them.
//!
//! Legend: m = tokens of the pack, n = tokens of a text, d = head size. Scores are kept for a block of queries at a time.
use exsearch_kernels::{LANES, MatMut, MatRef, Operand, matmul_serial, softmax};

/// One text among the rows of a pack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    /// Its first row.
    pub(super) first: usize,
    /// Its tokens.
    pub(super) n: usize,
    /// How many of them, from the first, are attended to.
    pub(super) n_keys: usize,
}

/// Buffers that are kept from head to head.
#[derive(Default)]
pub(super) struct Scratch {
    /// Panels `[n / 32][d][32]`.
    keys: Vec<f32>,
    /// Panels `[d / 32][n][32]`.
    values: Vec<f32>,
    scores: Vec<f32>,
}

/// Queries a block: eight tiles of the product kernel. At 512 keys their scores take 96 x 512 x 4 B = 197 kB.
const BLOCK: usize = 96;

/// The projections of all heads side by side, `[m, width]`: queries (scaled already), keys, values, each `heads · d` wide.
#[derive(Clone, Copy)]
pub(super) struct Projections<'a> {
    pub(super) rows: &'a [f32],
    pub(super) width: usize,
    pub(super) head_dim: usize,
}

/// What the queries of one head attend to, into `out` `[m, d]`.
pub(super) fn attend(
    projections: Projections<'_>,
    head: usize,
    sequences: &[Sequence],
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let Projections { rows, width, head_dim: d } = projections;
    let column = |part: usize| part * width / 3 + head * d;
    let Scratch { keys, values, scores } = scratch;
    for &Sequence { first, n, n_keys } in sequences {
        let seen = &rows[first * width..][..n_keys * width];
        pack_keys(seen, width, column(1), d, keys);
        pack_values(seen, width, column(2), d, values);
        let keys = Operand::PanelSlice { values: keys, k: d, n: n_keys };
        let values = Operand::PanelSlice { values, k: n_keys, n: d };
        for start in (first..first + n).step_by(BLOCK) {
            let n_rows = BLOCK.min(first + n - start);
            let queries = MatRef::strided(&rows[start * width + column(0)..], n_rows, d, width);
            scores.resize(n_rows * n_keys, 0.0);
            matmul_serial(queries, keys, MatMut::new(scores, n_rows, n_keys), false);
            for row in scores.chunks_exact_mut(n_keys) {
                softmax(row);
            }
            let out = MatMut::new(&mut out[start * d..][..n_rows * d], n_rows, d);
            matmul_serial(MatRef::new(scores, n_rows, n_keys), values, out, false);
        }
    }
}

/// Columns `column..column + d` of `rows`, transposed.
fn pack_keys(rows: &[f32], width: usize, column: usize, d: usize, panels: &mut Vec<f32>) {
    panels.resize((rows.len() / width).div_ceil(LANES) * d * LANES, 0.0);
    let groups = rows.chunks(LANES * width);
    for (panel, group) in panels.chunks_exact_mut(d * LANES).zip(groups) {
        for (lane, row) in group.chunks_exact(width).enumerate() {
            for (line, value) in panel.chunks_exact_mut(LANES).zip(&row[column..column + d]) {
                line[lane] = *value;
            }
        }
        // Lanes past the last key keep what an earlier text left: they are computed and never stored.
    }
}

/// Columns `column..column + d` of `rows`.
fn pack_values(rows: &[f32], width: usize, column: usize, d: usize, panels: &mut Vec<f32>) {
    let n = rows.len() / width;
    panels.resize(d.div_ceil(LANES) * n * LANES, 0.0);
    for (panel_idx, panel) in panels.chunks_exact_mut(n * LANES).enumerate() {
        let from = panel_idx * LANES;
        let columns = column + from..column + d.min(from + LANES);
        for (line, row) in panel.chunks_exact_mut(LANES).zip(rows.chunks_exact(width)) {
            line[..columns.len()].copy_from_slice(&row[columns.clone()]);
        }
    }
}
