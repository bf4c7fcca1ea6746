//! Vectors from a centroid's number and a few bits a dimension (the residual codec of ColBERTv2, arXiv 2112.01488, 3.3).
//!
//! `x[d] = centroid[d] + scales[d] · levels[code[d]]`, then divided by its length. Codes lie one behind the other from the
//! lowest bit of the first byte on. The result is the same to the bit in every instruction set.
use crate::isa::{Isa, isa};
use crate::rows::fold;

/// What residual codes mean.
#[derive(Clone, Debug)]
pub struct ResidualTable {
    bits: usize,
    /// The levels, repeated until there are sixteen: a look-up by the lowest four bits needs no mask.
    levels: [f32; 16],
    scales: Vec<f32>,
}

impl ResidualTable {
    /// A table for codes of `bits` bits, of which there are `2^bits` levels, and `scales`, one a dimension.
    ///
    /// # Panics
    /// Unless `bits` is 1, 2 or 4 and there is a level for each code.
    pub fn new(bits: usize, levels: &[f32], scales: &[f32]) -> Self {
        assert!(matches!(bits, 1 | 2 | 4), "codes have 1, 2 or 4 bits");
        assert_eq!(levels.len(), 1 << bits, "a level for each code");
        Self { bits, levels: std::array::from_fn(|idx| levels[idx % levels.len()]), scales: scales.to_vec() }
    }

    /// The bits of a code.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// A level for each code.
    pub fn levels(&self) -> &[f32] {
        &self.levels[..1 << self.bits]
    }

    /// What a dimension's levels are multiplied with.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The length of a vector.
    pub fn dim(&self) -> usize {
        self.scales.len()
    }

    /// Bytes that hold a vector's codes.
    pub fn n_bytes(&self) -> usize {
        (self.dim() * self.bits).div_ceil(8)
    }

    /// Writes a vector of length 1 for each centroid number to `out` (`n x dim`). `centroids` is `n_centroids x dim`,
    /// `residuals` holds [`ResidualTable::n_bytes`] a vector.
    ///
    /// # Panics
    /// When a number has no centroid, or the lengths disagree.
    pub fn decode(&self, centroids: &[f32], numbers: &[u32], residuals: &[u8], out: &mut [f32]) {
        self.decode_on(isa(), centroids, numbers, residuals, out);
    }

    fn decode_on(&self, isa: Isa, centroids: &[f32], numbers: &[u32], residuals: &[u8], out: &mut [f32]) {
        let (dim, n_bytes) = (self.dim(), self.n_bytes());
        assert_eq!(out.len(), numbers.len() * dim, "room for every vector");
        assert_eq!(residuals.len(), numbers.len() * n_bytes, "codes of every vector");
        if dim == 0 {
            return;
        }
        let vectors = numbers.iter().zip(residuals.chunks_exact(n_bytes)).zip(out.chunks_exact_mut(dim));
        for ((number, codes), out) in vectors {
            let centroid = &centroids[*number as usize * dim..][..dim];
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the instruction set was detected")]
            // SAFETY: `isa` names only what this CPU has; the slices are of one vector.
            match isa {
                Isa::Avx512 => unsafe { avx512(self, centroid, codes, out) },
                Isa::Avx2 => unsafe { avx2(self, centroid, codes, out) },
                Isa::Portable => self.decode_one(centroid, codes, out),
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = isa;
                self.decode_one(centroid, codes, out);
            }
        }
    }

    fn decode_one(&self, centroid: &[f32], codes: &[u8], out: &mut [f32]) {
        let mut squares = [0f32; 16];
        self.fill(0, centroid, codes, out, &mut squares);
        normalize(out, squares);
    }

    /// The dimensions from `first` on, which begin with a byte, before normalization, and their squares in sixteen chains.
    #[inline(always)]
    fn fill(&self, first: usize, centroid: &[f32], codes: &[u8], out: &mut [f32], squares: &mut [f32; 16]) {
        for d in first..out.len() {
            let bit = d * self.bits;
            let level = self.levels[(codes[bit / 8] >> (bit % 8)) as usize % (1 << self.bits)];
            let x = level.mul_add(self.scales[d], centroid[d]);
            squares[d % 16] = x.mul_add(x, squares[d % 16]);
            out[d] = x;
        }
    }
}

/// Divides by the length; a vector of zeros stays one.
#[inline(always)]
fn normalize(x: &mut [f32], squares: [f32; 16]) {
    let sum = fold(squares);
    let factor = if sum > 0.0 { 1.0 / sum.sqrt() } else { 0.0 };
    for x in x {
        *x *= factor;
    }
}

/// The codes of 16 dimensions.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn word(codes: &[u8], bits: usize, group: usize) -> u64 {
    match bits {
        1 => u64::from(u16::from_le_bytes(codes[2 * group..][..2].try_into().expect("two bytes"))),
        2 => u64::from(u32::from_le_bytes(codes[4 * group..][..4].try_into().expect("four bytes"))),
        _ => u64::from_le_bytes(codes[8 * group..][..8].try_into().expect("eight bytes")),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn avx512(table: &ResidualTable, centroid: &[f32], codes: &[u8], out: &mut [f32]) {
    use std::arch::x86_64::*;
    let (dim, bits) = (out.len(), table.bits);
    let n_groups = dim / 16;
    assert!(centroid.len() >= dim && table.scales.len() >= dim, "slices of one vector");
    let mut chains = [0f32; 16];
    #[expect(unsafe_code, reason = "loads from and stores to slices")]
    // SAFETY: groups of 16 dimensions lie below `dim`, which all slices have.
    unsafe {
        let levels = _mm512_loadu_ps(table.levels.as_ptr());
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        // Codes of four bits take two words of 32: lanes from 8 on look into the second.
        let lanes = if bits == 4 { _mm512_and_si512(lanes, _mm512_set1_epi32(7)) } else { lanes };
        let shifts = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(bits as i32));
        let mut squares = _mm512_setzero_ps();
        for group in 0..n_groups {
            let word = word(codes, bits, group);
            let low = _mm512_set1_epi32(word as i32);
            let both = if bits == 4 { _mm512_mask_set1_epi32(low, 0xff00, (word >> 32) as i32) } else { low };
            let level = _mm512_permutexvar_ps(_mm512_srlv_epi32(both, shifts), levels);
            let scale = _mm512_loadu_ps(table.scales.as_ptr().add(16 * group));
            let x = _mm512_fmadd_ps(level, scale, _mm512_loadu_ps(centroid.as_ptr().add(16 * group)));
            squares = _mm512_fmadd_ps(x, x, squares);
            _mm512_storeu_ps(out.as_mut_ptr().add(16 * group), x);
        }
        _mm512_storeu_ps(chains.as_mut_ptr(), squares);
    }
    table.fill(16 * n_groups, centroid, codes, out, &mut chains);
    normalize(out, chains);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(table: &ResidualTable, centroid: &[f32], codes: &[u8], out: &mut [f32]) {
    use std::arch::x86_64::*;
    let (dim, bits) = (out.len(), table.bits);
    let n_groups = dim / 16;
    assert!(centroid.len() >= dim && table.scales.len() >= dim, "slices of one vector");
    let mut chains = [0f32; 16];
    #[expect(unsafe_code, reason = "loads from and stores to slices")]
    // SAFETY: groups of 16 dimensions lie below `dim`, which all slices have.
    unsafe {
        let low_levels = _mm256_loadu_ps(table.levels.as_ptr());
        let high_levels = _mm256_loadu_ps(table.levels.as_ptr().add(8));
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let shifts = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(bits as i32));
        let mut squares = [_mm256_setzero_ps(); 2];
        for group in 0..n_groups {
            let word = word(codes, bits, group);
            for (half, squares) in squares.iter_mut().enumerate() {
                let first = 16 * group + 8 * half;
                let indexes = _mm256_srlv_epi32(_mm256_set1_epi32((word >> (8 * bits * half)) as i32), shifts);
                // A permutation looks at three bits; the fourth, moved to the sign, chooses between the tables.
                let low = _mm256_permutevar8x32_ps(low_levels, indexes);
                let high = _mm256_permutevar8x32_ps(high_levels, indexes);
                let level = _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(indexes)));
                let scale = _mm256_loadu_ps(table.scales.as_ptr().add(first));
                let x = _mm256_fmadd_ps(level, scale, _mm256_loadu_ps(centroid.as_ptr().add(first)));
                *squares = _mm256_fmadd_ps(x, x, *squares);
                _mm256_storeu_ps(out.as_mut_ptr().add(first), x);
            }
        }
        _mm256_storeu_ps(chains.as_mut_ptr(), squares[0]);
        _mm256_storeu_ps(chains.as_mut_ptr().add(8), squares[1]);
    }
    table.fill(16 * n_groups, centroid, codes, out, &mut chains);
    normalize(out, chains);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(dim: usize, bits: usize, bytes: &[u8]) {
        let levels: Vec<f32> = (0..1 << bits).map(|level| level as f32 * 0.3 - 0.5).collect();
        let scales: Vec<f32> = (0..dim).map(|d| 0.1 + d as f32 * 0.01).collect();
        let table = ResidualTable::new(bits, &levels, &scales);
        let centroids: Vec<f32> = (0..3 * dim).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
        let numbers = [2, 0];
        let n_bytes = table.n_bytes();
        let codes: Vec<u8> = bytes.iter().copied().cycle().take(2 * n_bytes).collect();
        let mut expected = Vec::new();
        for (number, codes) in numbers.iter().zip(codes.chunks_exact(n_bytes)) {
            let code = |d: usize| {
                (0..bits)
                    .map(|bit| d * bits + bit)
                    .rev()
                    .fold(0, |code, bit| 2 * code + (codes[bit / 8] >> (bit % 8) & 1))
            };
            let x: Vec<f64> = (0..dim)
                .map(|d| {
                    f64::from(centroids[*number as usize * dim + d])
                        + f64::from(levels[code(d) as usize]) * f64::from(scales[d])
                })
                .collect();
            let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            expected.extend(x.iter().map(|x| x / length));
        }
        let mut portable = vec![0.0; 2 * dim];
        table.decode_on(Isa::Portable, &centroids, &numbers, &codes, &mut portable);
        for (actual, expected) in portable.iter().zip(&expected) {
            assert!((f64::from(*actual) - expected).abs() < 1e-5, "{actual} != {expected}");
        }
        for isa in [Isa::Avx2, Isa::Avx512].into_iter().filter(|&candidate| candidate <= isa()) {
            let mut out = vec![f32::NAN; 2 * dim];
            table.decode_on(isa, &centroids, &numbers, &codes, &mut out);
            assert_eq!(out, portable, "{isa:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_is_its_definition_in_every_instruction_set(
            dim in 1usize..70, bits in prop::sample::select(vec![1usize, 2, 4]), bytes in prop::collection::vec(any::<u8>(), 1..99),
        ) {
            check(dim, bits, &bytes);
        }
    }

    #[test]
    fn a_vector_of_zeros_stays_one() {
        let table = ResidualTable::new(1, &[0.0, 0.0], &[1.0; 20]);
        let mut out = [1.0; 20];
        table.decode(&[0.0; 20], &[0], &[0xff; 3], &mut out);
        assert_eq!(out, [0.0; 20]);
    }
}
