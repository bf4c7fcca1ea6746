//! Late interaction's inner products: one vector against many rows, and MaxSim of a query's vectors and a passage's.
//!
//! As everywhere in this crate, the result is the same to the bit in every instruction set: a product of [`max_sim`] is one
//! chain of fused multiply-adds over the dimensions, one of [`dot_rows`] is folded from sixteen.
use crate::isa::{Isa, isa};
use crate::panels::{LANES, Panels};
use crate::rows::fold;

/// MaxSim (ColBERT, arXiv 2004.12832, equation 3): the sum over the query's vectors of the largest inner product with one of
/// the passage's. `query` is packed with [`Panels::from_transposed`] from `n_query x dim`; `tokens` is `n_tokens x dim`.
/// Minus infinity for a passage without vectors, zero for a query without.
pub fn max_sim(query: &Panels, tokens: &[f32]) -> f32 {
    max_sim_on(isa(), query, tokens)
}

/// `out[row] = vector · rows[row]`, rows one after the other.
pub fn dot_rows(vector: &[f32], rows: &[f32], out: &mut [f32]) {
    dot_rows_on(isa(), vector, rows, out);
}

fn max_sim_on(isa: Isa, query: &Panels, tokens: &[f32]) -> f32 {
    let dim = query.k();
    assert!(dim > 0 && tokens.len().is_multiple_of(dim), "the tokens are rows of the query's dimension");
    let mut sum = 0.0;
    for (panel_idx, panel) in query.values().chunks_exact(dim * LANES).enumerate() {
        let columns = LANES.min(query.n() - panel_idx * LANES);
        let mut best = [f32::NEG_INFINITY; LANES];
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "the instruction set was detected")]
        // SAFETY: `isa` names only what this CPU has; a panel holds dim rows of 32, the tokens whole rows of dim.
        match isa {
            Isa::Avx512 => unsafe { avx512::maxima(panel, tokens, dim, columns, &mut best) },
            Isa::Avx2 => unsafe { avx2::maxima(panel, tokens, dim, columns, &mut best) },
            Isa::Portable => maxima(panel, tokens, dim, columns, &mut best),
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            maxima(panel, tokens, dim, columns, &mut best);
        }
        sum = best[..columns].iter().fold(sum, |sum, best| sum + best);
    }
    sum
}

/// The largest product of each column of the panel `[dim][32]` with a token.
fn maxima(panel: &[f32], tokens: &[f32], dim: usize, columns: usize, best: &mut [f32; LANES]) {
    for token in tokens.chunks_exact(dim) {
        let mut sums = [0f32; LANES];
        for (value, line) in token.iter().zip(panel.chunks_exact(LANES)) {
            for (sum, b) in sums[..columns].iter_mut().zip(line) {
                *sum = value.mul_add(*b, *sum);
            }
        }
        for (best, sum) in best.iter_mut().zip(sums) {
            *best = if sum > *best { sum } else { *best };
        }
    }
}

fn dot_rows_on(isa: Isa, vector: &[f32], rows: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), vector.len() * out.len(), "a product for every row");
    if vector.is_empty() {
        out.fill(0.0);
        return;
    }
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the instruction set was detected")]
    // SAFETY: `isa` names only what this CPU has.
    match isa {
        Isa::Avx512 => unsafe { avx512::dot_rows(vector, rows, out) },
        Isa::Avx2 => unsafe { avx2::dot_rows(vector, rows, out) },
        Isa::Portable => dot_rows_portable(vector, rows, out),
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        dot_rows_portable(vector, rows, out);
    }
}

#[inline(always)]
fn dot_rows_portable(vector: &[f32], rows: &[f32], out: &mut [f32]) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(vector.len())) {
        let mut sums = [0f32; 16];
        for (a, b) in vector.chunks(16).zip(row.chunks(16)) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        }
        *out = fold(sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::LANES;
    use std::arch::x86_64::*;

    /// As [`super::maxima`].
    ///
    /// # Safety
    /// The CPU has AVX-512 F; the panel holds `dim` lines, the tokens whole rows of `dim`.
    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn maxima(panel: &[f32], tokens: &[f32], dim: usize, columns: usize, best: &mut [f32; LANES]) {
        let (panel, n_tokens) = (panel.as_ptr(), tokens.len() / dim);
        // SAFETY: the caller's contract; both halves of `best` are 16 floats.
        unsafe {
            let mut low = [_mm512_loadu_ps(best.as_ptr())];
            if columns <= 16 {
                all_rows::<16, 1>(panel, tokens.as_ptr(), n_tokens, dim, &mut low);
                _mm512_storeu_ps(best.as_mut_ptr(), low[0]);
            } else {
                let mut both = [low[0], _mm512_loadu_ps(best.as_ptr().add(16))];
                all_rows::<12, 2>(panel, tokens.as_ptr(), n_tokens, dim, &mut both);
                _mm512_storeu_ps(best.as_mut_ptr(), both[0]);
                _mm512_storeu_ps(best.as_mut_ptr().add(16), both[1]);
            }
        }
    }

    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx512f")]
    unsafe fn all_rows<const ROWS: usize, const HALVES: usize>(
        panel: *const f32,
        tokens: *const f32,
        n_tokens: usize,
        dim: usize,
        best: &mut [__m512; HALVES],
    ) {
        // SAFETY: every tile lies within the tokens. The last one begins early enough to be whole: a maximum may see a row
        // twice.
        unsafe {
            if n_tokens < ROWS {
                for row in 0..n_tokens {
                    rows::<1, HALVES>(panel, tokens.add(row * dim), dim, best);
                }
                return;
            }
            for row in (0..n_tokens).step_by(ROWS) {
                rows::<ROWS, HALVES>(panel, tokens.add(row.min(n_tokens - ROWS) * dim), dim, best);
            }
        }
    }

    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn rows<const ROWS: usize, const HALVES: usize>(
        panel: *const f32,
        tokens: *const f32,
        dim: usize,
        best: &mut [__m512; HALVES],
    ) {
        let mut sums = [[_mm512_setzero_ps(); HALVES]; ROWS];
        // SAFETY: the panel's lines and the rows' values below `dim`.
        unsafe {
            for step in 0..dim {
                let mut line = [_mm512_setzero_ps(); HALVES];
                for (half, line) in line.iter_mut().enumerate() {
                    *line = _mm512_loadu_ps(panel.add(step * LANES + 16 * half));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = _mm512_set1_ps(*tokens.add(row * dim + step));
                    for (sum, line) in sums.iter_mut().zip(line) {
                        *sum = _mm512_fmadd_ps(value, line, *sum);
                    }
                }
            }
        }
        for sums in sums {
            for (best, sum) in best.iter_mut().zip(sums) {
                *best = _mm512_max_ps(sum, *best);
            }
        }
    }

    /// As [`super::dot_rows_portable`], four rows at a time.
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) fn dot_rows(vector: &[f32], rows: &[f32], out: &mut [f32]) {
        let dim = vector.len();
        let whole = dim / 16 * 16;
        let mut groups = out.chunks_exact_mut(4);
        let mut first = 0;
        for out in &mut groups {
            let block = &rows[first * dim..][..4 * dim];
            let mut sums = [_mm512_setzero_ps(); 4];
            #[expect(unsafe_code, reason = "loads from slices; the rest is loaded under a mask")]
            // SAFETY: `step + 16 <= dim`, and the masked loads touch only what is below `dim`.
            unsafe {
                for step in (0..whole).step_by(16) {
                    let a = _mm512_loadu_ps(vector.as_ptr().add(step));
                    for (row, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_fmadd_ps(a, _mm512_loadu_ps(block.as_ptr().add(row * dim + step)), *sum);
                    }
                }
                if whole < dim {
                    let mask = (1u16 << (dim - whole)) - 1;
                    let a = _mm512_maskz_loadu_ps(mask, vector.as_ptr().add(whole));
                    for (row, sum) in sums.iter_mut().enumerate() {
                        let b = _mm512_maskz_loadu_ps(mask, block.as_ptr().add(row * dim + whole));
                        *sum = _mm512_fmadd_ps(a, b, *sum);
                    }
                }
                let halves = sums.map(|sum| {
                    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sum)));
                    _mm256_add_ps(_mm512_castps512_ps256(sum), high)
                });
                _mm_storeu_ps(out.as_mut_ptr(), super::avx2::fold_four(halves));
            }
            first += 4;
        }
        super::dot_rows_portable(vector, &rows[first * dim..], groups.into_remainder());
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::LANES;
    use std::arch::x86_64::*;

    /// Rows of a tile: 12 sums of 8 floats, two registers for the panel and one for the row's value.
    const ROWS: usize = 6;

    /// As [`super::maxima`].
    ///
    /// # Safety
    /// The CPU has AVX2 and FMA; the panel holds `dim` lines, the tokens whole rows of `dim`.
    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn maxima(panel: &[f32], tokens: &[f32], dim: usize, columns: usize, best: &mut [f32; LANES]) {
        let n_tokens = tokens.len() / dim;
        for half in 0..columns.div_ceil(16) {
            // SAFETY: the caller's contract; a half is 16 of the 32 columns, and whole tiles lie within the tokens.
            unsafe {
                let (panel, tokens) = (panel.as_ptr().add(16 * half), tokens.as_ptr());
                let best = best.as_mut_ptr().add(16 * half);
                let mut maxima = [_mm256_loadu_ps(best), _mm256_loadu_ps(best.add(8))];
                if n_tokens < ROWS {
                    for row in 0..n_tokens {
                        rows::<1>(panel, tokens.add(row * dim), dim, &mut maxima);
                    }
                } else {
                    for row in (0..n_tokens).step_by(ROWS) {
                        rows::<ROWS>(panel, tokens.add(row.min(n_tokens - ROWS) * dim), dim, &mut maxima);
                    }
                }
                _mm256_storeu_ps(best, maxima[0]);
                _mm256_storeu_ps(best.add(8), maxima[1]);
            }
        }
    }

    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn rows<const ROWS: usize>(panel: *const f32, tokens: *const f32, dim: usize, best: &mut [__m256; 2]) {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        // SAFETY: the panel's lines and the rows' values below `dim`.
        unsafe {
            for step in 0..dim {
                let line = panel.add(step * LANES);
                let (low, high) = (_mm256_loadu_ps(line), _mm256_loadu_ps(line.add(8)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = _mm256_set1_ps(*tokens.add(row * dim + step));
                    sums[0] = _mm256_fmadd_ps(value, low, sums[0]);
                    sums[1] = _mm256_fmadd_ps(value, high, sums[1]);
                }
            }
        }
        for sums in sums {
            best[0] = _mm256_max_ps(sums[0], best[0]);
            best[1] = _mm256_max_ps(sums[1], best[1]);
        }
    }

    /// As [`super::dot_rows_portable`], four rows at a time.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot_rows(vector: &[f32], rows: &[f32], out: &mut [f32]) {
        let dim = vector.len();
        if !dim.is_multiple_of(16) {
            return super::dot_rows_portable(vector, rows, out);
        }
        let mut groups = out.chunks_exact_mut(4);
        let mut first = 0;
        for out in &mut groups {
            let block = &rows[first * dim..][..4 * dim];
            let mut sums = [[_mm256_setzero_ps(); 2]; 4];
            #[expect(unsafe_code, reason = "loads from slices")]
            // SAFETY: `step + 16 <= dim`, and the block holds four rows of `dim`.
            unsafe {
                for step in (0..dim).step_by(16) {
                    let a = vector.as_ptr().add(step);
                    let a = [_mm256_loadu_ps(a), _mm256_loadu_ps(a.add(8))];
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let b = block.as_ptr().add(row * dim + step);
                        sums[0] = _mm256_fmadd_ps(a[0], _mm256_loadu_ps(b), sums[0]);
                        sums[1] = _mm256_fmadd_ps(a[1], _mm256_loadu_ps(b.add(8)), sums[1]);
                    }
                }
                _mm_storeu_ps(out.as_mut_ptr(), fold_four(sums.map(|[low, high]| _mm256_add_ps(low, high))));
            }
            first += 4;
        }
        super::dot_rows_portable(vector, &rows[first * dim..], groups.into_remainder());
    }

    /// Folds four times eight sums in halves, as [`crate::rows::fold`] does with what is left of sixteen.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) fn fold_four(sums: [__m256; 4]) -> __m128 {
        let [a, b, c, d] = sums.map(|sum| _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum)));
        // Transposed: the first register holds lane 0 of all four, and so on.
        let (low_ab, low_cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (high_ab, high_cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        let even = _mm_add_ps(_mm_movelh_ps(low_ab, low_cd), _mm_movelh_ps(high_ab, high_cd));
        let odd = _mm_add_ps(_mm_movehl_ps(low_cd, low_ab), _mm_movehl_ps(high_cd, high_ab));
        _mm_add_ps(even, odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{instruction_sets, values};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn max_sim_is_its_definition_in_every_instruction_set(
            dim in 1usize..40, n_query in 1usize..70, n_tokens in 1usize..40, seed: u32,
        ) {
            let (query, tokens) = (values(n_query * dim, seed), values(n_tokens * dim, seed ^ 5));
            let chain = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |sum, (a, b)| a.mul_add(*b, sum));
            let mut expected = 0.0;
            for query in query.chunks_exact(dim) {
                let products = tokens.chunks_exact(dim).map(|token| chain(token, query));
                expected += products.fold(f32::NEG_INFINITY, f32::max);
            }
            let panels = Panels::from_transposed(&query, n_query, dim);
            for isa in instruction_sets() {
                prop_assert_eq!(max_sim_on(isa, &panels, &tokens), expected, "{:?}", isa);
            }
        }

        #[test]
        fn products_with_rows_are_dot_in_every_instruction_set(dim in 1usize..70, n_rows in 0usize..14, seed: u32) {
            let (vector, rows) = (values(dim, seed), values(n_rows * dim, seed ^ 3));
            let expected: Vec<f32> = rows.chunks_exact(dim).map(|row| crate::dot(&vector, row)).collect();
            for isa in instruction_sets() {
                let mut out = vec![f32::NAN; n_rows];
                dot_rows_on(isa, &vector, &rows, &mut out);
                prop_assert_eq!(&out, &expected, "{:?}", isa);
            }
        }
    }

    #[test]
    fn a_passage_without_vectors_is_below_every_other() {
        let query = Panels::from_transposed(&[1.0, 0.0], 1, 2);
        assert_eq!(max_sim(&query, &[]), f32::NEG_INFINITY);
        assert_eq!(max_sim(&Panels::zeros(2, 0), &[1.0, 0.0]), 0.0);
    }
}
