//! Products of bytes: `C[m, n] = A[m, k] · B[k, n]`, both sides rounded to 8 bits in blocks of 64 along k with a scale each:
//! llama.cpp's Q8_0 with longer blocks.
//!
//! Sums within a block are integers, the same in any order. Blocks are added in ascending order, one fused multiply-add each:
//! every instruction set gives the same bits, and a row does not depend on those beside it.
//!
//! AVX-512's product of bytes takes one side without a sign: B is kept with 128 added, and a row's sums start from -128 times
//! its own bytes' sum. AVX2's adds two products in 16 bits: 2 x 127 x 127 < 2^15, so that it never saturates.
use crate::gemm::Output;
use crate::isa::{Isa, isa};
use crate::panels::{LANES, Panels};
use crate::rows::multiversion;
use rayon::prelude::*;

/// Values that share a scale.
const BLOCK: usize = 64;
/// The largest byte.
const STEPS: f32 = 127.0;
/// Zero, as B's byte without a sign.
const ZERO: u8 = 128;
/// Rows of A that a tile takes at most: 12 sums of integers and as many of floats, of the 32 registers.
const ROWS: usize = 6;
/// Rows that a thread takes at a time: a panel is read from the nearer cache 15 times of 16.
const ROWS_A_TASK: usize = 16 * ROWS;
/// Products of less work than this (about 10 us on a core) stay on one thread,
const MIN_PARALLEL_WORK: usize = 1 << 21;
/// unless they read as many bytes of B as this, which takes as long.
const MIN_PARALLEL_BYTES: usize = 1 << 18;

/// 64 rows of 32 columns of B.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block {
    scales: [f32; LANES],
    /// Four rows of each column.
    lines: [[[u8; 4]; LANES]; BLOCK / 4],
}

/// A packed matrix B `[k, n]` in bytes: 1.06 of them a value.
pub struct Int8Panels {
    /// By 32 columns, by 64 rows; what is missing of either is zero.
    blocks: Vec<Block>,
    k: usize,
    n: usize,
}

/// Rows A `[m, k]` in bytes: room that is used again.
#[derive(Default)]
pub struct Int8Rows {
    /// `[m, n_blocks · 64]`.
    bytes: Vec<i8>,
    /// `[m, n_blocks]`.
    scales: Vec<f32>,
    /// `[m, n_blocks]`: -128 times the sum of the block's bytes.
    starts: Vec<i32>,
    m: usize,
    k: usize,
}

impl Int8Panels {
    /// Rounds `panels`.
    pub fn new(panels: &Panels) -> Self {
        let (k, n) = (panels.k(), panels.n());
        let n_blocks = k.div_ceil(BLOCK);
        let mut blocks =
            vec![Block { scales: [0.0; LANES], lines: [[[ZERO; 4]; LANES]; BLOCK / 4] }; n.div_ceil(LANES) * n_blocks];
        let by_panel = blocks.par_chunks_exact_mut(n_blocks.max(1));
        by_panel.zip(panels.values().par_chunks_exact(k.max(1) * LANES)).for_each(|(blocks, panel)| {
            for (block, values) in blocks.iter_mut().zip(panel.chunks(BLOCK * LANES)) {
                for lane in 0..LANES {
                    let mut column = [0.0; BLOCK];
                    for (value, line) in column.iter_mut().zip(values.chunks_exact(LANES)) {
                        *value = line[lane];
                    }
                    let (mut bytes, mut start) = ([0; BLOCK], [0]);
                    quantize(&column, &mut bytes, &mut block.scales[lane..=lane], &mut start);
                    for (line, bytes) in block.lines.iter_mut().zip(bytes.chunks_exact(4)) {
                        line[lane] = std::array::from_fn(|idx| ZERO.wrapping_add(bytes[idx] as u8));
                    }
                }
            }
        });
        Self { blocks, k, n }
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes in memory.
    pub fn n_bytes(&self) -> usize {
        self.blocks.len() * size_of::<Block>()
    }
}

impl Int8Rows {
    /// Takes `values`, rows of `k`. Of a block that holds a number that is not finite, every product is NaN.
    pub fn quantize(&mut self, values: &[f32], k: usize) {
        assert!(k > 0 && values.len().is_multiple_of(k), "rows of k values");
        let n_blocks = k.div_ceil(BLOCK);
        (self.m, self.k) = (values.len() / k, k);
        self.bytes.clear();
        self.bytes.resize(self.m * n_blocks * BLOCK, 0);
        self.scales.resize(self.m * n_blocks, 0.0);
        self.starts.resize(self.m * n_blocks, 0);
        let bytes = self.bytes.par_chunks_exact_mut(n_blocks * BLOCK);
        let factors = self.scales.par_chunks_exact_mut(n_blocks).zip(self.starts.par_chunks_exact_mut(n_blocks));
        values
            .par_chunks_exact(k)
            .zip(bytes)
            .zip(factors)
            .with_min_len(16)
            .for_each(|((values, bytes), (scales, starts))| quantize(values, bytes, scales, starts));
    }
}

multiversion! {
    /// Rounds a row to bytes, in steps of each block's largest value / 127.
    fn quantize(values: &[f32], bytes: &mut [i8], scales: &mut [f32], starts: &mut [i32]) {
        let blocks = values.chunks(BLOCK).zip(bytes.chunks_exact_mut(BLOCK));
        for ((values, bytes), (scale, start)) in blocks.zip(scales.iter_mut().zip(starts)) {
            // As integers, the bits of floats are ordered as their sizes are, and what is not finite comes last.
            let largest = values.iter().fold(0, |largest, value| (value.to_bits() & (u32::MAX >> 1)).max(largest));
            let largest = f32::from_bits(largest);
            let steps = if largest > 1e-30 && largest.is_finite() { STEPS / largest } else { 0.0 };
            *scale = if largest.is_finite() { largest / STEPS } else { f32::NAN };
            let mut sum = 0i32;
            for (byte, value) in bytes.iter_mut().zip(values) {
                *byte = crate::bytes::round(value * steps);
                sum += i32::from(*byte);
            }
            *start = -i32::from(ZERO) * sum;
        }
    }
}

/// `c = a · b`, on all threads of the current rayon pool.
pub fn matmul_int8(a: &Int8Rows, b: &Int8Panels, c: &mut [f32]) {
    product(isa(), a, b, c);
}

fn product(isa: Isa, a: &Int8Rows, b: &Int8Panels, c: &mut [f32]) {
    let (m, k, n) = (a.m, a.k, b.n);
    assert_eq!(k, b.k, "the inner dimensions agree");
    assert_eq!(c.len(), m * n, "the product's shape is C's");
    if m == 0 || n == 0 {
        return;
    }
    let n_blocks = k.div_ceil(BLOCK);
    let c = Output(c.as_mut_ptr(), n);
    let n_row_tasks = m.div_ceil(ROWS_A_TASK);
    let task = |task_idx: usize| {
        let (panel_idx, row_task) = (task_idx / n_row_tasks, task_idx % n_row_tasks);
        let last_row = m.min((row_task + 1) * ROWS_A_TASK);
        for row in (row_task * ROWS_A_TASK..last_row).step_by(ROWS) {
            let rows = row..last_row.min(row + ROWS);
            #[expect(unsafe_code, reason = "tiles of C are written by different threads")]
            // SAFETY: C holds m x n values; this tile of it belongs to this task alone.
            let out = unsafe { c.at(row, panel_idx * LANES) };
            let tile = Tile {
                blocks: &b.blocks[panel_idx * n_blocks..][..n_blocks],
                bytes: &a.bytes[rows.start * n_blocks * BLOCK..rows.end * n_blocks * BLOCK],
                scales: &a.scales[rows.start * n_blocks..rows.end * n_blocks],
                starts: &a.starts[rows.start * n_blocks..rows.end * n_blocks],
                c: out,
                c_row: n,
                m: rows.len(),
                n: LANES.min(n - panel_idx * LANES),
            };
            tile.run(isa);
        }
    };
    let n_tasks = n.div_ceil(LANES) * n_row_tasks;
    if n_tasks > 1 && (m * n * k >= MIN_PARALLEL_WORK || n * k >= MIN_PARALLEL_BYTES) {
        (0..n_tasks).into_par_iter().for_each(task);
    } else {
        (0..n_tasks).for_each(task);
    }
}

/// Up to 6 rows of A times a panel of B.
struct Tile<'a> {
    blocks: &'a [Block],
    bytes: &'a [i8],
    scales: &'a [f32],
    starts: &'a [i32],
    /// Room for `m` rows of `n` values, `c_row` apart, that nobody else touches.
    c: *mut f32,
    c_row: usize,
    m: usize,
    n: usize,
}

impl Tile<'_> {
    fn run(&self, isa: Isa) {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "the instruction set was detected")]
        // SAFETY: `isa` names only what this CPU has, and of AVX-512's extensions `is_fast` does; `c` is as it must be.
        match isa {
            Isa::Avx512 if x86::is_fast() => unsafe { x86::tile_512(self) },
            Isa::Avx512 | Isa::Avx2 => unsafe { x86::tile_256(self) },
            Isa::Portable => self.portable(),
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            self.portable();
        }
    }

    fn portable(&self) {
        let n_blocks = self.blocks.len();
        for row in 0..self.m {
            let mut totals = [0f32; LANES];
            for (idx, block) in self.blocks.iter().enumerate() {
                let at = row * n_blocks + idx;
                let mut sums = [self.starts[at]; LANES];
                for (values, line) in self.bytes[at * BLOCK..][..BLOCK].chunks_exact(4).zip(&block.lines) {
                    for (sum, column) in sums.iter_mut().zip(line) {
                        for (value, byte) in values.iter().zip(column) {
                            *sum += i32::from(*value) * i32::from(*byte);
                        }
                    }
                }
                for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(&block.scales) {
                    *total = (sum as f32).mul_add(self.scales[at] * scale, *total);
                }
            }
            #[expect(unsafe_code, reason = "C is shared by the tiles of a product")]
            // SAFETY: row `row` of `c` has room for `n` values.
            unsafe {
                std::ptr::copy_nonoverlapping(totals.as_ptr(), self.c.add(row * self.c_row), self.n);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCK, LANES, Tile};
    use std::arch::x86_64::*;

    /// Whether this CPU, which has AVX-512 F, has the extension for bytes too.
    pub(super) fn is_fast() -> bool {
        std::is_x86_feature_detected!("avx512vnni")
    }

    /// As [`Tile::portable`].
    ///
    /// # Safety
    /// The CPU has AVX-512 F and VNNI, and `c` has room.
    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn tile_512(tile: &Tile<'_>) {
        // SAFETY: the caller's contract; each arm passes the tile's own number of rows.
        unsafe {
            match tile.m {
                1 => rows_512::<1>(tile),
                2 => rows_512::<2>(tile),
                3 => rows_512::<3>(tile),
                4 => rows_512::<4>(tile),
                5 => rows_512::<5>(tile),
                _ => rows_512::<6>(tile),
            }
        }
    }

    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn rows_512<const M: usize>(tile: &Tile<'_>) {
        let n_blocks = tile.blocks.len();
        debug_assert_eq!((tile.bytes.len(), tile.scales.len()), (M * n_blocks * BLOCK, M * n_blocks));
        let mut totals = [[_mm512_setzero_ps(); 2]; M];
        // SAFETY: M rows of `n_blocks` blocks are there; masked stores touch the n columns that `c` has room for.
        unsafe {
            let (bytes, scales, starts) = (tile.bytes.as_ptr(), tile.scales.as_ptr(), tile.starts.as_ptr());
            for (idx, block) in tile.blocks.iter().enumerate() {
                let mut sums: [[__m512i; 2]; M] =
                    std::array::from_fn(|row| [_mm512_set1_epi32(*starts.add(row * n_blocks + idx)); 2]);
                for (step, line) in block.lines.iter().enumerate() {
                    let line = line.as_ptr().cast::<__m512i>();
                    let line = [_mm512_load_si512(line), _mm512_load_si512(line.add(1))];
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let four = bytes.add((row * n_blocks + idx) * BLOCK + 4 * step).cast::<i32>();
                        let four = _mm512_set1_epi32(four.read_unaligned());
                        sums[0] = _mm512_dpbusd_epi32(sums[0], line[0], four);
                        sums[1] = _mm512_dpbusd_epi32(sums[1], line[1], four);
                    }
                }
                let of_columns = [_mm512_load_ps(block.scales.as_ptr()), _mm512_load_ps(block.scales.as_ptr().add(16))];
                for (row, (totals, sums)) in totals.iter_mut().zip(sums).enumerate() {
                    let of_row = _mm512_set1_ps(*scales.add(row * n_blocks + idx));
                    for half in 0..2 {
                        let scale = _mm512_mul_ps(of_row, of_columns[half]);
                        totals[half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[half]), scale, totals[half]);
                    }
                }
            }
            let columns: u32 = if tile.n == LANES { u32::MAX } else { (1 << tile.n) - 1 };
            for (row, totals) in totals.iter().enumerate() {
                let c = tile.c.add(row * tile.c_row);
                _mm512_mask_storeu_ps(c, columns as u16, totals[0]);
                _mm512_mask_storeu_ps(c.wrapping_add(16), (columns >> 16) as u16, totals[1]);
            }
        }
    }

    /// Rows of a tile: four sums of integers and of floats, a line and its sizes, ones, and what a row needs of its own.
    const ROWS: usize = 3;

    /// As [`Tile::portable`].
    ///
    /// # Safety
    /// The CPU has AVX2 with FMA, and `c` has room.
    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn tile_256(tile: &Tile<'_>) {
        for first in (0..tile.m).step_by(ROWS) {
            for column in (0..tile.n).step_by(8) {
                // SAFETY: the caller's contract; these rows and columns are the tile's.
                unsafe {
                    match tile.m - first {
                        1 => rows_256::<1>(tile, first, column),
                        2 => rows_256::<2>(tile, first, column),
                        _ => rows_256::<ROWS>(tile, first, column),
                    }
                }
            }
        }
    }

    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows_256<const M: usize>(tile: &Tile<'_>, first: usize, column: usize) {
        let n_blocks = tile.blocks.len();
        let (zero, ones) = (_mm256_set1_epi8(super::ZERO as i8), _mm256_set1_epi16(1));
        let mut totals = [_mm256_setzero_ps(); M];
        // SAFETY: rows `first` to `first + M` and 32 columns of every block are there; only columns below n are stored.
        unsafe {
            let (bytes, scales) = (tile.bytes.as_ptr(), tile.scales.as_ptr());
            for (idx, block) in tile.blocks.iter().enumerate() {
                let mut sums = [_mm256_setzero_si256(); M];
                for (step, line) in block.lines.iter().enumerate() {
                    let line = _mm256_xor_si256(_mm256_load_si256(line.as_ptr().add(column).cast()), zero);
                    let sizes = _mm256_abs_epi8(line);
                    for (row, sum) in sums.iter_mut().enumerate() {
                        let four = bytes.add(((first + row) * n_blocks + idx) * BLOCK + 4 * step).cast::<i32>();
                        let four = _mm256_sign_epi8(_mm256_set1_epi32(four.read_unaligned()), line);
                        let products = _mm256_madd_epi16(_mm256_maddubs_epi16(sizes, four), ones);
                        *sum = _mm256_add_epi32(*sum, products);
                    }
                }
                let of_columns = _mm256_load_ps(block.scales.as_ptr().add(column));
                for (row, (total, sum)) in totals.iter_mut().zip(sums).enumerate() {
                    let of_row = _mm256_set1_ps(*scales.add((first + row) * n_blocks + idx));
                    *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(of_row, of_columns), *total);
                }
            }
            for (row, total) in totals.iter().enumerate() {
                let mut lanes = [0f32; 8];
                _mm256_storeu_ps(lanes.as_mut_ptr(), *total);
                let c = tile.c.add((first + row) * tile.c_row + column);
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), c, 8.min(tile.n - column));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{instruction_sets, values};
    use crate::{MatMut, MatRef, Operand, matmul};
    use proptest::prelude::*;

    fn int8(isa: Isa, a: &[f32], b: &Panels) -> Vec<f32> {
        let mut rows = Int8Rows::default();
        rows.quantize(a, b.k());
        let mut c = vec![f32::NAN; rows.m * b.n()];
        product(isa, &rows, &Int8Panels::new(b), &mut c);
        c
    }

    proptest! {
        #[test]
        fn bytes_are_near_floats_and_equal_in_every_instruction_set(
            m in 1usize..20, k in 1usize..200, n in 1usize..90, seed: u32,
        ) {
            let (a, b) = (values(m * k, seed), values(k * n, seed ^ 7));
            let panels = Panels::from_rows(&b, k, n);
            let mut expected = vec![0.0; m * n];
            matmul(MatRef::new(&a, m, k), Operand::Panels(&panels), MatMut::new(&mut expected, m, n), false);
            let actual = int8(Isa::Portable, &a, &panels);
            // Half a step of 1 / 127 on either side of each product, all to one side, is more than ever happens.
            let tolerance = k as f32 / 127.0;
            for (actual, expected) in actual.iter().zip(&expected) {
                prop_assert!((actual - expected).abs() < 0.1 * tolerance + 0.05, "{actual} for {expected}");
            }
            for isa in instruction_sets() {
                prop_assert_eq!(&int8(isa, &a, &panels), &actual, "{:?}", isa);
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
        let (m, k, n) = (201, 300, 1025);
        let (a, panels) = (values(m * k, 1), Panels::from_rows(&values(k * n, 2), k, n));
        let all = int8(isa(), &a, &panels);
        for row in [0, 5, 6, 100, 200] {
            assert_eq!(int8(isa(), &a[row * k..][..k], &panels), all[row * n..][..n]);
        }
    }

    /// Every product at its largest: what AVX2 adds in 16 bits, and AVX-512 with 128 on top, must still fit.
    #[test]
    fn the_largest_bytes_do_not_overflow() {
        let k = 4096;
        for signs in [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]] {
            let [a, b] = signs.map(|sign| vec![sign; k]);
            for isa in instruction_sets() {
                let c = int8(isa, &a, &Panels::from_rows(&b, k, 1));
                assert!((c[0] - signs[0] * signs[1] * k as f32).abs() < 0.1, "{isa:?}: {c:?}");
            }
        }
    }

    #[test]
    fn zeros_stay_and_what_is_not_finite_is_seen() {
        let panels = Panels::from_rows(&[1.0, 0.0], 2, 1);
        for isa in instruction_sets() {
            assert_eq!(int8(isa, &[0.0, 0.0, 1e-38, 1e-38], &panels), [0.0, 0.0]);
            assert!(int8(isa, &[f32::INFINITY, 1.0, f32::NAN, 1.0], &panels).iter().all(|value| value.is_nan()));
        }
    }
}
