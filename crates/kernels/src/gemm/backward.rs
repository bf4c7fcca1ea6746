//! The two products of a linear layer's backward pass: with the transpose of what lies packed, and into what lies packed.
//!
//! Both bring what their inner loop reads into a buffer in the nearer cache first. The orders of their sums are those of
//! [`product`](super::product): where something lies changes no number.
use super::{MIN_PARALLEL_WORK, MatMut, MatRef, Output};
use crate::isa::{Isa, isa};
use crate::panels::{LANES, Panels};
use crate::tile::{self, ROWS, Tile};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;
use std::thread::LocalKey;

/// Steps of the inner dimension a buffer holds: 1,024 x 32 x 4 B = 128 KB of a nearer cache of 512 KB or more.
const DEPTH: usize = 1024;

thread_local! {
    /// A packed right-hand side of each thread.
    static RIGHT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// The packed left-hand side of the thread that asked for a product; others only read it.
    static LEFT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `c = a · bᵀ`, or `c += a · bᵀ` with `accumulate`, on all threads of the current rayon pool: the gradient with respect to a
/// product's left-hand side, `d_x[t, in] = d_y[t, out] · wᵀ`.
///
/// Each panel of bᵀ is made just before its rows, so that no transposed copy of b is needed. With 512 rows that was 3 % of a step
/// of full training (SmolLM2-135M, AVX-512).
pub fn matmul_transposed(a: MatRef<'_>, b: &Panels, c: MatMut<'_>, accumulate: bool) {
    let (m, n, k) = (a.rows, b.n(), b.k());
    assert_eq!(a.columns, n, "the inner dimensions agree");
    assert_eq!((c.rows, c.columns), (m, k), "the product's shape is C's");
    let isa = isa();
    let c = Output(c.values.as_mut_ptr(), c.row_stride);
    let tasks = Tasks::new(k.div_ceil(LANES), m.div_ceil(ROWS), m * n * k);
    tasks.run(|panel_idx, row_tiles| {
        let first_column = panel_idx * LANES;
        let columns = LANES.min(k - first_column);
        with_buffer(&RIGHT, DEPTH.min(n.next_multiple_of(LANES)) * LANES, |right| {
            for first in (0..n).step_by(DEPTH) {
                let depth = DEPTH.min(n - first);
                for (block_idx, block) in right.chunks_exact_mut(LANES * LANES).take(depth.div_ceil(LANES)).enumerate()
                {
                    let from = (first / LANES + block_idx) * k + first_column;
                    transpose(isa, &b.values()[from * LANES..][..columns * LANES], block);
                }
                for row in row_tiles.clone().map(|tile| tile * ROWS) {
                    #[expect(unsafe_code, reason = "tiles of C are written by different threads")]
                    // SAFETY: A's and C's extents were checked when their views were made and above; `right` holds `depth`
                    // rows of 32; this tile of C belongs to this task alone; `isa` was detected.
                    unsafe {
                        let tile = Tile {
                            a: a.values.as_ptr().add(row * a.row_stride + first * a.column_stride),
                            a_row: a.row_stride,
                            a_k: a.column_stride,
                            b: right.as_ptr(),
                            b_k: LANES,
                            c: c.at(row, first_column),
                            c_row: c.1,
                            m: ROWS.min(m - row),
                            k: depth,
                            n: columns,
                            b_padded: true,
                            accumulate: accumulate || first > 0,
                        };
                        tile::run(isa, &tile);
                    }
                }
            }
        });
    });
}

/// `c = a · b`, or `c += a · b` with `accumulate`, where C is kept packed, on all threads of the current rayon pool.
/// `b` is row-major: this is how the gradient of a packed weight is made, `d_w[in, out] = xᵀ[in, t] · d_y[t, out]`.
pub fn matmul_packed(a: MatRef<'_>, b: MatRef<'_>, c: &mut Panels, accumulate: bool) {
    let (k, n) = (c.k(), c.n());
    assert_eq!((a.rows, b.columns), (k, n), "the product's shape is C's");
    assert_eq!((a.columns, b.column_stride), (b.rows, 1), "the inner dimensions agree, B's columns are contiguous");
    let isa = isa();
    if a.columns == 0 && !accumulate {
        c.values_mut().fill(0.0);
    }
    let c = Output(c.values_mut().as_mut_ptr(), LANES);
    for first in (0..a.columns).step_by(DEPTH) {
        let depth = DEPTH.min(a.columns - first);
        let tasks = Tasks::new(n.div_ceil(LANES), k.div_ceil(ROWS), k * n * depth);
        with_buffer(&LEFT, k.div_ceil(ROWS) * depth * ROWS, |left| {
            // Tiles of A one behind the other `[k / 12][depth][12]`.
            let pack = |(tile_idx, out): (usize, &mut [f32])| {
                for row in 0..ROWS.min(k - tile_idx * ROWS) {
                    let start = (tile_idx * ROWS + row) * a.row_stride + first * a.column_stride;
                    let steps = a.values[start..].iter().step_by(a.column_stride);
                    out[row..].iter_mut().step_by(ROWS).zip(steps).for_each(|(out, value)| *out = *value);
                }
            };
            let min_len = if tasks.parallel { 1 } else { usize::MAX };
            left.par_chunks_exact_mut(depth * ROWS).with_min_len(min_len).enumerate().for_each(pack);
            let left = &*left;
            tasks.run(|panel_idx, row_tiles| {
                let first_column = panel_idx * LANES;
                let columns = LANES.min(n - first_column);
                with_buffer(&RIGHT, depth * LANES, |right| {
                    for (step, line) in right.chunks_exact_mut(LANES).enumerate() {
                        let row = &b.values[(first + step) * b.row_stride + first_column..][..columns];
                        line[..columns].copy_from_slice(row);
                    }
                    for tile_idx in row_tiles {
                        let row = tile_idx * ROWS;
                        #[expect(unsafe_code, reason = "tiles of C are written by different threads")]
                        // SAFETY: `left` and `right` hold `depth` steps of a tile and a panel; C has k rows in every panel;
                        // this tile of C belongs to this task alone; `isa` was detected.
                        unsafe {
                            let tile = Tile {
                                a: left[tile_idx * depth * ROWS..].as_ptr(),
                                a_row: 1,
                                a_k: ROWS,
                                b: right.as_ptr(),
                                b_k: LANES,
                                c: c.at(panel_idx * k + row, 0),
                                c_row: LANES,
                                m: ROWS.min(k - row),
                                k: depth,
                                n: columns,
                                b_padded: true,
                                accumulate: accumulate || first > 0,
                            };
                            tile::run(isa, &tile);
                        }
                    }
                });
            });
        });
    }
}

/// How a product is cut: every panel of C's columns, and its tiles of rows in as many parts as keep the threads busy.
struct Tasks {
    n_panels: usize,
    n_row_tiles: usize,
    n_parts: usize,
    parallel: bool,
}

impl Tasks {
    fn new(n_panels: usize, n_row_tiles: usize, work: usize) -> Self {
        let parallel = work >= MIN_PARALLEL_WORK;
        let wanted = if parallel { 4 * rayon::current_num_threads() } else { 1 };
        let n_parts = wanted.div_ceil(n_panels.max(1)).clamp(1, n_row_tiles.max(1));
        Self { n_panels, n_row_tiles, n_parts, parallel }
    }

    /// Calls `task` with each panel and each range of its tiles.
    fn run(&self, task: impl Fn(usize, Range<usize>) + Sync) {
        let part = |task_idx: usize| {
            let (panel_idx, part) = (task_idx / self.n_parts, task_idx % self.n_parts);
            let bound = |part: usize| part * self.n_row_tiles / self.n_parts;
            task(panel_idx, bound(part)..bound(part + 1));
        };
        let n_tasks = self.n_panels * self.n_parts;
        if self.parallel {
            (0..n_tasks).into_par_iter().for_each(part);
        } else {
            (0..n_tasks).for_each(part);
        }
    }
}

/// Lends a thread's buffer, aligned to 64 bytes, with whatever was left in it.
fn with_buffer(key: &'static LocalKey<Cell<Vec<f32>>>, length: usize, use_it: impl FnOnce(&mut [f32])) {
    let mut buffer = key.take();
    if buffer.len() < length + 16 {
        buffer.resize(length + 16, 0.0);
    }
    let start = buffer.as_ptr().align_offset(64).min(16);
    use_it(&mut buffer[start..start + length]);
    key.set(buffer);
}

/// Writes the transpose of `rows` `[r, 32]`, r <= 32, to the first r columns of `out` `[32, 32]`.
fn transpose(isa: Isa, rows: &[f32], out: &mut [f32]) {
    assert!(rows.len() <= LANES * LANES && out.len() == LANES * LANES, "at most 32 rows of 32");
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && rows.len() == LANES * LANES {
        #[expect(unsafe_code, reason = "raw access to four quarters")]
        // SAFETY: both hold 32 x 32 values; `isa` was detected.
        unsafe {
            for quarter in 0..4 {
                let (row, column) = (quarter / 2 * 16, quarter % 2 * 16);
                let from = rows.as_ptr().add(row * LANES + column);
                transpose_16(from, out.as_mut_ptr().add(column * LANES + row));
            }
        }
        return;
    }
    for (row_idx, row) in rows.chunks_exact(LANES).enumerate() {
        for (out, value) in out.chunks_exact_mut(LANES).zip(row) {
            out[row_idx] = *value;
        }
    }
}

/// A quarter of [`transpose`]: 16 x 16 values in rows of 32.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "raw strided access")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_16(from: *const f32, to: *mut f32) {
    use std::arch::x86_64::*;
    let pairs = |a: __m512, b: __m512| (_mm512_castps_pd(a), _mm512_castps_pd(b));
    let low = |(a, b)| _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
    let high = |(a, b)| _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    // SAFETY: the caller's contract.
    unsafe {
        // Quarters of a register hold four columns of one row each; then one column of four rows.
        let mut rows = [_mm512_setzero_ps(); 16];
        for group in 0..4 {
            let row = |idx: usize| _mm512_loadu_ps(from.add((group * 4 + idx) * LANES));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
            rows[group * 4] = low(pairs(ab, cd));
            rows[group * 4 + 1] = high(pairs(ab, cd));
            let (ab, cd) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
            rows[group * 4 + 2] = low(pairs(ab, cd));
            rows[group * 4 + 3] = high(pairs(ab, cd));
        }
        for column in 0..4 {
            let [a, b, c, d] = [rows[column], rows[4 + column], rows[8 + column], rows[12 + column]];
            let (ab, cd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d));
            _mm512_storeu_ps(to.add(column * LANES), _mm512_shuffle_f32x4::<0x88>(ab, cd));
            _mm512_storeu_ps(to.add((8 + column) * LANES), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
            let (ab, cd) = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d));
            _mm512_storeu_ps(to.add((4 + column) * LANES), _mm512_shuffle_f32x4::<0x88>(ab, cd));
            _mm512_storeu_ps(to.add((12 + column) * LANES), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
        }
    }
}
