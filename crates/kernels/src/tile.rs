//! The innermost product: up to 12 rows of A times one panel of at most 32 columns of B, in registers.
//!
//! 12 rows x 32 columns are 24 accumulators of 16 floats; with two registers for B and one for A that is 27 of the 32 of
//! AVX-512. AVX2 has half the width and half the registers, so it takes the tile four rows and sixteen columns at a time.
use crate::isa::Isa;

/// Rows of A that a tile takes at most.
pub(crate) const ROWS: usize = 12;

/// `C[m, n] (+)= A[m, k] · B[k, n]` with m <= ROWS, n <= LANES.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) a: *const f32,
    /// Distance in floats between rows of A.
    pub(crate) a_row: usize,
    /// Distance in floats between columns of A.
    pub(crate) a_k: usize,
    pub(crate) b: *const f32,
    /// Distance in floats between rows of B.
    pub(crate) b_k: usize,
    pub(crate) c: *mut f32,
    /// Distance in floats between rows of C.
    pub(crate) c_row: usize,
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Whether B may be read for all 32 columns (packed panels are padded; plain rows are not).
    pub(crate) b_padded: bool,
    /// Starts from C instead of from zero.
    pub(crate) accumulate: bool,
}

/// Computes a tile.
///
/// # Safety
/// The pointers must be valid for the tile's extents, C must not be written by anyone else, and the CPU must have `isa`.
#[expect(unsafe_code, reason = "raw strided access")]
pub(crate) unsafe fn run(isa: Isa, tile: &Tile) {
    debug_assert!(tile.m <= ROWS && tile.n <= crate::LANES);
    // SAFETY: the caller's contract.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512(tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(tile),
            _ => portable(tile),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "raw strided access")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(tile: &Tile) {
    // SAFETY: the caller's contract; each arm passes the tile's own number of rows.
    unsafe {
        match tile.m {
            1 => avx512_rows::<1>(tile),
            2 => avx512_rows::<2>(tile),
            3 => avx512_rows::<3>(tile),
            4 => avx512_rows::<4>(tile),
            5 => avx512_rows::<5>(tile),
            6 => avx512_rows::<6>(tile),
            7 => avx512_rows::<7>(tile),
            8 => avx512_rows::<8>(tile),
            9 => avx512_rows::<9>(tile),
            10 => avx512_rows::<10>(tile),
            11 => avx512_rows::<11>(tile),
            _ => avx512_rows::<12>(tile),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "raw strided access")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512_rows<const M: usize>(tile: &Tile) {
    use std::arch::x86_64::*;
    let columns: u32 = if tile.n == 32 { u32::MAX } else { (1 << tile.n) - 1 };
    let (store_low, store_high) = (columns as u16, (columns >> 16) as u16);
    let (load_low, load_high) = if tile.b_padded { (u16::MAX, u16::MAX) } else { (store_low, store_high) };
    let mut low = [_mm512_setzero_ps(); M];
    let mut high = [_mm512_setzero_ps(); M];
    // SAFETY: masked loads and stores touch only columns < n; rows < m and k steps < k are within the tile's extents.
    unsafe {
        if tile.accumulate {
            for row in 0..M {
                let c = tile.c.add(row * tile.c_row);
                low[row] = _mm512_maskz_loadu_ps(store_low, c);
                high[row] = _mm512_maskz_loadu_ps(store_high, c.wrapping_add(16));
            }
        }
        let (mut a, mut b) = (tile.a, tile.b);
        if load_high == u16::MAX {
            for _ in 0..tile.k {
                let (b_low, b_high) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                for row in 0..M {
                    let value = _mm512_set1_ps(*a.add(row * tile.a_row));
                    low[row] = _mm512_fmadd_ps(value, b_low, low[row]);
                    high[row] = _mm512_fmadd_ps(value, b_high, high[row]);
                }
                a = a.wrapping_add(tile.a_k);
                b = b.wrapping_add(tile.b_k);
            }
        } else {
            for _ in 0..tile.k {
                let b_low = _mm512_maskz_loadu_ps(load_low, b);
                let b_high = _mm512_maskz_loadu_ps(load_high, b.wrapping_add(16));
                for row in 0..M {
                    let value = _mm512_set1_ps(*a.add(row * tile.a_row));
                    low[row] = _mm512_fmadd_ps(value, b_low, low[row]);
                    high[row] = _mm512_fmadd_ps(value, b_high, high[row]);
                }
                a = a.wrapping_add(tile.a_k);
                b = b.wrapping_add(tile.b_k);
            }
        }
        for row in 0..M {
            let c = tile.c.add(row * tile.c_row);
            _mm512_mask_storeu_ps(c, store_low, low[row]);
            _mm512_mask_storeu_ps(c.wrapping_add(16), store_high, high[row]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "raw strided access")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(tile: &Tile) {
    use std::arch::x86_64::*;
    // SAFETY: whole groups of 16 columns lie below n; the columns behind them are left to the portable kernel.
    unsafe {
        let full = tile.n / 16 * 16;
        for first_row in (0..tile.m).step_by(4) {
            let rows = 4.min(tile.m - first_row);
            for first in (0..full).step_by(16) {
                let mut sums = [[_mm256_setzero_ps(); 2]; 4];
                let c = tile.c.add(first_row * tile.c_row + first);
                if tile.accumulate {
                    for (row, sum) in sums.iter_mut().enumerate().take(rows) {
                        *sum = [_mm256_loadu_ps(c.add(row * tile.c_row)), _mm256_loadu_ps(c.add(row * tile.c_row + 8))];
                    }
                }
                // Rows past the last repeat it, so that the loop is the same; their sums are not stored.
                let offsets: [usize; 4] = std::array::from_fn(|row| (first_row + row.min(rows - 1)) * tile.a_row);
                let (mut a, mut b) = (tile.a, tile.b.add(first));
                for _ in 0..tile.k {
                    let (b_low, b_high) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                    for (sum, offset) in sums.iter_mut().zip(offsets) {
                        let value = _mm256_set1_ps(*a.add(offset));
                        sum[0] = _mm256_fmadd_ps(value, b_low, sum[0]);
                        sum[1] = _mm256_fmadd_ps(value, b_high, sum[1]);
                    }
                    a = a.wrapping_add(tile.a_k);
                    b = b.wrapping_add(tile.b_k);
                }
                for (row, sum) in sums.iter().enumerate().take(rows) {
                    _mm256_storeu_ps(c.add(row * tile.c_row), sum[0]);
                    _mm256_storeu_ps(c.add(row * tile.c_row + 8), sum[1]);
                }
            }
        }
        if full < tile.n {
            portable(&Tile { b: tile.b.add(full), c: tile.c.add(full), n: tile.n - full, ..*tile });
        }
    }
}

#[expect(unsafe_code, reason = "raw strided access")]
#[inline]
unsafe fn portable(tile: &Tile) {
    // SAFETY: every index is below the tile's extents.
    unsafe {
        for row in 0..tile.m {
            let c = tile.c.add(row * tile.c_row);
            let mut sums = [0f32; crate::LANES];
            if tile.accumulate {
                for (column, sum) in sums.iter_mut().enumerate().take(tile.n) {
                    *sum = *c.add(column);
                }
            }
            for step in 0..tile.k {
                let value = *tile.a.add(row * tile.a_row + step * tile.a_k);
                let b = tile.b.add(step * tile.b_k);
                for (column, sum) in sums.iter_mut().enumerate().take(tile.n) {
                    *sum = value.mul_add(*b.add(column), *sum);
                }
            }
            for (column, sum) in sums.iter().enumerate().take(tile.n) {
                *c.add(column) = *sum;
            }
        }
    }
}
