//! MaxSim in bytes: what [`crate::max_sim`] gives on decoded vectors, nearly, in a fraction of its time.
//!
//! A token's `centroid + scale · level` is kept in steps of the largest such number / 126, a query's vector in steps of its
//! largest value / 63. Sums of two products then fit 16 bits, where AVX2 would saturate, so that every instruction set gives
//! the same integers in whatever order, and with them the same score to the bit.
use crate::ResidualTable;
use crate::isa::{Isa, isa};
use crate::panels::LANES;

/// The largest byte of a token; centroid and residual are rounded apart, so their sum may be one more.
const TOKEN_STEPS: f32 = 126.0;
/// The largest byte of a query: 2 x 255 x 63 < 2^15.
const QUERY_STEPS: f32 = 63.0;
/// Zero, as a token's unsigned byte.
const ZERO: u8 = 128;
/// Dimensions that are decoded together; rows are filled up to a multiple with zeros.
const CHUNK: usize = 64;

/// A [`ResidualTable`] and its centroids in bytes: one a dimension, a quarter of what they were.
pub struct ByteTable {
    dim: usize,
    bits: usize,
    /// Bytes of a row: `dim`, filled up.
    stride: usize,
    /// n_centroids x stride.
    centroids: Vec<u8>,
    /// 2^bits x stride: what a code adds.
    residuals: Vec<i8>,
}

/// A query's vectors in bytes, packed for [`ByteTable::max_sim`].
pub struct ByteQuery {
    dim: usize,
    /// For each 32 vectors a line for every 4 dimensions.
    lines: Vec<Line>,
    /// For each 32 vectors: what takes away that a token's zero is 128.
    starts: Vec<[i32; LANES]>,
    /// What a step of each vector is.
    scales: Vec<f32>,
}

/// Four dimensions of 32 vectors.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([[i8; 4]; LANES]);

/// The tokens of a passage in bytes: room that is used again.
#[derive(Default)]
pub struct ByteRows {
    /// n_tokens x stride.
    bytes: Vec<u8>,
    /// What makes each token's length 1.
    factors: Vec<f32>,
}

impl ByteTable {
    /// Of a table and its centroids (`n_centroids x dim`).
    pub fn new(table: &ResidualTable, centroids: &[f32]) -> Self {
        let (dim, bits) = (table.dim(), table.bits());
        assert!(dim > 0 && centroids.len().is_multiple_of(dim), "centroids are rows of the table's dimension");
        let stride = dim.next_multiple_of(CHUNK);
        let largest = |values: &[f32]| values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let largest = largest(centroids) + largest(table.levels()) * largest(table.scales());
        let steps = if largest > 0.0 && largest.is_finite() { TOKEN_STEPS / largest } else { 0.0 };
        let mut bytes = vec![ZERO; centroids.len() / dim * stride];
        for (row, centroid) in bytes.chunks_exact_mut(stride).zip(centroids.chunks_exact(dim)) {
            for (byte, value) in row.iter_mut().zip(centroid) {
                *byte = ZERO.wrapping_add(round(value * steps) as u8);
            }
        }
        let mut residuals = vec![0; (1 << bits) * stride];
        for (row, level) in residuals.chunks_exact_mut(stride).zip(table.levels()) {
            for (byte, scale) in row.iter_mut().zip(table.scales()) {
                *byte = round(level * scale * steps);
            }
        }
        Self { dim, bits, stride, centroids: bytes, residuals }
    }

    /// About the MaxSim of `query` with the vectors that [`ResidualTable::decode`] makes of these codes. Minus infinity for a
    /// passage without vectors.
    ///
    /// # Panics
    /// When a number has no centroid, or the lengths disagree.
    pub fn max_sim(&self, query: &ByteQuery, numbers: &[u32], codes: &[u8], rows: &mut ByteRows) -> f32 {
        self.max_sim_on(isa(), query, numbers, codes, rows)
    }

    fn max_sim_on(&self, isa: Isa, query: &ByteQuery, numbers: &[u32], codes: &[u8], rows: &mut ByteRows) -> f32 {
        assert_eq!(query.dim, self.dim, "a query of the table's dimension");
        assert_eq!(codes.len(), numbers.len() * self.n_bytes(), "codes of every vector");
        if numbers.is_empty() {
            return f32::NEG_INFINITY;
        }
        rows.bytes.resize(numbers.len() * self.stride, 0);
        rows.factors.resize(numbers.len(), 0.0);
        let ByteRows { bytes, factors } = rows;
        match self.bits {
            1 => self.decode::<1>(isa, numbers, codes, bytes, factors),
            2 => self.decode::<2>(isa, numbers, codes, bytes, factors),
            _ => self.decode::<4>(isa, numbers, codes, bytes, factors),
        }
        let tokens = Tokens { bytes, factors, stride: self.stride };
        let panels = query.lines.chunks_exact(query.dim.div_ceil(4)).zip(&query.starts);
        let mut sum = 0.0;
        for ((lines, starts), scales) in panels.zip(query.scales.chunks(LANES)) {
            let mut best = [f32::NEG_INFINITY; LANES];
            tokens.maxima(isa, lines, starts, scales.len(), &mut best);
            sum = best.iter().zip(scales).fold(sum, |sum, (best, scale)| best.mul_add(*scale, sum));
        }
        sum
    }

    /// Bytes that hold a vector's codes.
    fn n_bytes(&self) -> usize {
        (self.dim * self.bits).div_ceil(8)
    }

    fn decode<const BITS: usize>(
        &self,
        isa: Isa,
        numbers: &[u32],
        codes: &[u8],
        bytes: &mut [u8],
        factors: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "the instruction set was detected")]
        // SAFETY: `isa` names only what this CPU has, and of AVX-512's extensions `is_fast` does.
        match isa {
            Isa::Avx512 if x86::is_fast() => unsafe { x86::decode_512::<BITS>(self, numbers, codes, bytes, factors) },
            Isa::Avx512 | Isa::Avx2 => unsafe { x86::decode_256::<BITS>(self, numbers, codes, bytes, factors) },
            Isa::Portable => self.decode_portable::<BITS>(numbers, codes, bytes, factors),
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            self.decode_portable::<BITS>(numbers, codes, bytes, factors);
        }
    }

    fn decode_portable<const BITS: usize>(&self, numbers: &[u32], codes: &[u8], bytes: &mut [u8], factors: &mut [f32]) {
        for (token, row) in bytes.chunks_exact_mut(self.stride).enumerate() {
            let centroid = self.centroid(numbers[token]);
            let codes = &codes[token * self.n_bytes()..][..self.n_bytes()];
            row.copy_from_slice(centroid);
            let mut squares = 0u32;
            for (d, byte) in row[..self.dim].iter_mut().enumerate() {
                let code = (codes[d * BITS / 8] >> (d * BITS % 8)) as usize % (1 << BITS);
                *byte = byte.wrapping_add(self.residuals[code * self.stride + d] as u8);
                squares += u32::from(byte.abs_diff(ZERO)).pow(2);
            }
            factors[token] = squares as f32;
        }
        invert(factors);
    }

    fn centroid(&self, number: u32) -> &[u8] {
        &self.centroids[number as usize * self.stride..][..self.stride]
    }
}

impl ByteQuery {
    /// Of a query's vectors (`n x dim`), of any length.
    pub fn new(query: &[f32], dim: usize) -> Self {
        assert!(dim > 0 && query.len().is_multiple_of(dim), "a query is rows of its dimension");
        let (n, n_lines) = (query.len() / dim, dim.div_ceil(4));
        let n_panels = n.div_ceil(LANES);
        let mut lines = vec![Line([[0; 4]; LANES]); n_panels * n_lines];
        let mut starts = vec![[0; LANES]; n_panels];
        let mut scales = Vec::with_capacity(n);
        for (idx, vector) in query.chunks_exact(dim).enumerate() {
            let (panel, column) = (idx / LANES, idx % LANES);
            let largest = vector.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let steps = if largest > 0.0 && largest.is_finite() { QUERY_STEPS / largest } else { 0.0 };
            for (d, value) in vector.iter().enumerate() {
                let byte = round(value * steps);
                lines[panel * n_lines + d / 4].0[column][d % 4] = byte;
                starts[panel][column] -= i32::from(ZERO) * i32::from(byte);
            }
            scales.push(largest / QUERY_STEPS);
        }
        Self { dim, lines, starts, scales }
    }
}

/// The nearest integer, ties to even, of a number that a byte holds: added to 1.5 x 2^23, a float's lowest bits are it.
/// Nothing in particular of other numbers. Unlike `round_ties_even` this needs no instruction that a plain x86-64 lacks.
#[inline(always)]
pub(crate) fn round(value: f32) -> i8 {
    (value + 12_582_912.0).to_bits() as i8
}

/// Sums of squares to what makes vectors' lengths 1; those of zeros stay so.
#[inline(always)]
fn invert(squares: &mut [f32]) {
    for sum in squares {
        *sum = if *sum > 0.0 { 1.0 / sum.sqrt() } else { 0.0 };
    }
}

/// A passage's tokens, decoded.
struct Tokens<'a> {
    bytes: &'a [u8],
    factors: &'a [f32],
    stride: usize,
}

impl Tokens<'_> {
    /// The largest product of each column with a token, in the columns' steps.
    fn maxima(&self, isa: Isa, lines: &[Line], starts: &[i32; LANES], columns: usize, best: &mut [f32; LANES]) {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "the instruction set was detected")]
        // SAFETY: `isa` names only what this CPU has, and of AVX-512's extensions `is_fast` does; a row is at least as long as
        // the lines' dimensions.
        match isa {
            Isa::Avx512 if x86::is_fast() => unsafe { x86::maxima_512(self, lines, starts, columns, best) },
            Isa::Avx512 | Isa::Avx2 => unsafe { x86::maxima_256(self, lines, starts, columns, best) },
            Isa::Portable => self.maxima_portable(lines, starts, columns, best),
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            self.maxima_portable(lines, starts, columns, best);
        }
    }

    fn maxima_portable(&self, lines: &[Line], starts: &[i32; LANES], columns: usize, best: &mut [f32; LANES]) {
        for (row, factor) in self.bytes.chunks_exact(self.stride).zip(self.factors) {
            let mut sums = *starts;
            for (values, line) in row.chunks_exact(4).zip(lines) {
                for (sum, column) in sums[..columns].iter_mut().zip(&line.0) {
                    for (value, byte) in values.iter().zip(column) {
                        *sum += i32::from(*value) * i32::from(*byte);
                    }
                }
            }
            for (best, sum) in best.iter_mut().zip(sums) {
                let product = sum as f32 * factor;
                *best = if product > *best { product } else { *best };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ByteTable, CHUNK, LANES, Line, Tokens, ZERO, invert};
    use std::arch::x86_64::*;

    /// Whether this CPU, which has AVX-512 F, has the extensions for bytes too.
    pub(super) fn is_fast() -> bool {
        std::is_x86_feature_detected!("avx512bw") && std::is_x86_feature_detected!("avx512vnni")
    }

    /// The number of the byte that holds each dimension's code within a group of 16, and the bits of it that are of the
    /// code, lowest first.
    const fn places<const BITS: usize>() -> ([u8; 16], [[u8; 16]; BITS]) {
        let (mut bytes, mut planes) = ([0; 16], [[0; 16]; BITS]);
        let mut d = 0;
        while d < 16 {
            bytes[d] = (d * BITS / 8) as u8;
            let mut bit = 0;
            while bit < BITS {
                planes[bit][d] = 1 << (d * BITS % 8 + bit);
                bit += 1;
            }
            d += 1;
        }
        (bytes, planes)
    }

    /// As [`ByteTable::decode_portable`].
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW and VNNI.
    #[expect(unsafe_code, reason = "loads from and stores to slices")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn decode_512<const BITS: usize>(
        table: &ByteTable,
        numbers: &[u32],
        codes: &[u8],
        bytes: &mut [u8],
        factors: &mut [f32],
    ) {
        let (stride, n_bytes) = (table.stride, table.n_bytes());
        let (bytes_of, planes) = const { places::<BITS>() };
        // Each group of 16 dimensions takes its codes, BITS words, to its 128 bits.
        let words: [i16; 32] = std::array::from_fn(|word| (word / 8 * BITS + word % BITS) as i16);
        // SAFETY: a chunk's rows, centroid and levels lie within `stride`, a multiple of CHUNK; of its codes only those that
        // there are get loaded.
        unsafe {
            let spread = |group: &[u8; 16]| _mm512_broadcast_i32x4(_mm_loadu_si128(group.as_ptr().cast()));
            let (words, bytes_of) = (_mm512_loadu_si512(words.as_ptr().cast()), spread(&bytes_of));
            let planes = planes.map(|plane| spread(&plane));
            let zero = _mm512_set1_epi8(ZERO as i8);
            let rows = bytes.chunks_exact_mut(stride).zip(codes.chunks_exact(n_bytes));
            for (((row, codes), number), factor) in rows.zip(numbers).zip(factors.iter_mut()) {
                let centroid = table.centroid(*number).as_ptr();
                let mut squares = _mm512_setzero_si512();
                for chunk in 0..stride / CHUNK {
                    let (first, at) = (CHUNK * chunk, CHUNK / 8 * BITS * chunk);
                    let present = (n_bytes - at).min(CHUNK / 8 * BITS);
                    let held = _mm512_maskz_loadu_epi8((1 << present) - 1, codes.as_ptr().add(at).cast());
                    let held = _mm512_shuffle_epi8(_mm512_permutexvar_epi16(words, held), bytes_of);
                    let mut levels = [_mm512_setzero_si512(); 16];
                    for (code, level) in levels[..1 << BITS].iter_mut().enumerate() {
                        *level = _mm512_loadu_si512(table.residuals.as_ptr().add(code * stride + first).cast());
                    }
                    // The lowest bit chooses within pairs of levels, the next within what is left.
                    for (bit, plane) in planes.iter().enumerate() {
                        let is_set = _mm512_test_epi8_mask(held, *plane);
                        for pair in 0..1 << (BITS - 1 - bit) {
                            levels[pair] = _mm512_mask_blend_epi8(is_set, levels[2 * pair], levels[2 * pair + 1]);
                        }
                    }
                    let x = _mm512_add_epi8(_mm512_loadu_si512(centroid.add(first).cast()), levels[0]);
                    _mm512_storeu_si512(row.as_mut_ptr().add(first).cast(), x);
                    let length = _mm512_abs_epi8(_mm512_xor_si512(x, zero));
                    squares = _mm512_dpbusd_epi32(squares, length, length);
                }
                *factor = _mm512_reduce_add_epi32(squares) as u32 as f32;
            }
        }
        invert(factors);
    }

    /// As [`Tokens::maxima_portable`].
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW and VNNI; rows are at least as long as the lines' dimensions.
    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn maxima_512(
        tokens: &Tokens,
        lines: &[Line],
        starts: &[i32; LANES],
        columns: usize,
        best: &mut [f32; LANES],
    ) {
        // SAFETY: the caller's contract; both halves of `best` are 16 floats.
        unsafe {
            let mut low = [_mm512_loadu_ps(best.as_ptr())];
            if columns <= 16 {
                all_rows_512::<16, 1>(tokens, lines, starts, &mut low);
                _mm512_storeu_ps(best.as_mut_ptr(), low[0]);
            } else {
                let mut both = [low[0], _mm512_loadu_ps(best.as_ptr().add(16))];
                all_rows_512::<12, 2>(tokens, lines, starts, &mut both);
                _mm512_storeu_ps(best.as_mut_ptr(), both[0]);
                _mm512_storeu_ps(best.as_mut_ptr().add(16), both[1]);
            }
        }
    }

    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn all_rows_512<const ROWS: usize, const HALVES: usize>(
        tokens: &Tokens,
        lines: &[Line],
        starts: &[i32; LANES],
        best: &mut [__m512; HALVES],
    ) {
        let n_tokens = tokens.factors.len();
        // SAFETY: every tile lies within the tokens. The last one begins early enough to be whole: a maximum may see a row
        // twice.
        unsafe {
            if n_tokens < ROWS {
                for row in 0..n_tokens {
                    rows_512::<1, HALVES>(tokens, row, lines, starts, best);
                }
                return;
            }
            for row in (0..n_tokens).step_by(ROWS) {
                rows_512::<ROWS, HALVES>(tokens, row.min(n_tokens - ROWS), lines, starts, best);
            }
        }
    }

    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn rows_512<const ROWS: usize, const HALVES: usize>(
        tokens: &Tokens,
        first: usize,
        lines: &[Line],
        starts: &[i32; LANES],
        best: &mut [__m512; HALVES],
    ) {
        let stride = tokens.stride;
        // SAFETY: rows `first` to `first + ROWS` are there, each at least as long as the lines' dimensions.
        unsafe {
            let half_of = |half: usize| _mm512_loadu_si512(starts.as_ptr().add(16 * half).cast());
            let mut sums = [std::array::from_fn::<_, HALVES, _>(half_of); ROWS];
            let rows = tokens.bytes.as_ptr().add(first * stride);
            for (step, line) in lines.iter().enumerate() {
                let line: [__m512i; HALVES] =
                    std::array::from_fn(|half| _mm512_load_si512(line.0.as_ptr().add(16 * half).cast()));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let values = _mm512_set1_epi32(rows.add(row * stride + 4 * step).cast::<i32>().read_unaligned());
                    for (sum, line) in sums.iter_mut().zip(line) {
                        *sum = _mm512_dpbusd_epi32(*sum, values, line);
                    }
                }
            }
            for (sums, factor) in sums.into_iter().zip(&tokens.factors[first..]) {
                let factor = _mm512_set1_ps(*factor);
                for (best, sum) in best.iter_mut().zip(sums) {
                    *best = _mm512_max_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor), *best);
                }
            }
        }
    }

    /// As [`ByteTable::decode_portable`].
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[expect(unsafe_code, reason = "loads from and stores to slices")]
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn decode_256<const BITS: usize>(
        table: &ByteTable,
        numbers: &[u32],
        codes: &[u8],
        bytes: &mut [u8],
        factors: &mut [f32],
    ) {
        const HALF: usize = CHUNK / 2;
        let (stride, n_bytes) = (table.stride, table.n_bytes());
        let (bytes_of, planes) = const { places::<BITS>() };
        // The second group of 16 dimensions has its codes behind those of the first.
        let bytes_of: [u8; HALF] = std::array::from_fn(|d| bytes_of[d % 16] + (d / 16 * 2 * BITS) as u8);
        // SAFETY: half a chunk's rows, centroid and levels lie within `stride`, a multiple of CHUNK.
        unsafe {
            let bytes_of = _mm256_loadu_si256(bytes_of.as_ptr().cast());
            let planes = planes.map(|plane| _mm256_broadcastsi128_si256(_mm_loadu_si128(plane.as_ptr().cast())));
            let (zero, ones) = (_mm256_set1_epi8(ZERO as i8), _mm256_set1_epi16(1));
            let rows = bytes.chunks_exact_mut(stride).zip(codes.chunks_exact(n_bytes));
            for (((row, codes), number), factor) in rows.zip(numbers).zip(factors.iter_mut()) {
                let centroid = table.centroid(*number).as_ptr();
                let mut squares = _mm256_setzero_si256();
                for half in 0..stride / HALF {
                    let (first, at) = (HALF * half, HALF / 8 * BITS * half);
                    let mut held = [0u8; 16];
                    let present = n_bytes.saturating_sub(at).min(HALF / 8 * BITS);
                    held[..present].copy_from_slice(&codes[n_bytes.min(at)..][..present]);
                    let held = _mm256_broadcastsi128_si256(_mm_loadu_si128(held.as_ptr().cast()));
                    let held = _mm256_shuffle_epi8(held, bytes_of);
                    let mut levels = [_mm256_setzero_si256(); 16];
                    for (code, level) in levels[..1 << BITS].iter_mut().enumerate() {
                        *level = _mm256_loadu_si256(table.residuals.as_ptr().add(code * stride + first).cast());
                    }
                    for (bit, plane) in planes.iter().enumerate() {
                        let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(held, *plane), *plane);
                        for pair in 0..1 << (BITS - 1 - bit) {
                            levels[pair] = _mm256_blendv_epi8(levels[2 * pair], levels[2 * pair + 1], is_set);
                        }
                    }
                    let x = _mm256_add_epi8(_mm256_loadu_si256(centroid.add(first).cast()), levels[0]);
                    _mm256_storeu_si256(row.as_mut_ptr().add(first).cast(), x);
                    let length = _mm256_abs_epi8(_mm256_xor_si256(x, zero));
                    let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(length, length), ones);
                    squares = _mm256_add_epi32(squares, pairs);
                }
                let mut lanes = [0u32; 8];
                _mm256_storeu_si256(lanes.as_mut_ptr().cast(), squares);
                *factor = lanes.iter().sum::<u32>() as f32;
            }
        }
        invert(factors);
    }

    /// Rows of a tile: 8 sums of 8 columns, two registers for the line, one each for a row's values, ones and products.
    const ROWS: usize = 4;

    /// As [`Tokens::maxima_portable`].
    ///
    /// # Safety
    /// The CPU has AVX2; rows are at least as long as the lines' dimensions.
    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn maxima_256(
        tokens: &Tokens,
        lines: &[Line],
        starts: &[i32; LANES],
        columns: usize,
        best: &mut [f32; LANES],
    ) {
        let n_tokens = tokens.factors.len();
        for half in 0..columns.div_ceil(16) {
            // SAFETY: the caller's contract; a half is 16 of the 32 columns, and whole tiles lie within the tokens.
            unsafe {
                let best = best.as_mut_ptr().add(16 * half);
                let mut maxima = [_mm256_loadu_ps(best), _mm256_loadu_ps(best.add(8))];
                if n_tokens < ROWS {
                    for row in 0..n_tokens {
                        rows_256::<1>(tokens, row, lines, starts, half, &mut maxima);
                    }
                } else {
                    for row in (0..n_tokens).step_by(ROWS) {
                        rows_256::<ROWS>(tokens, row.min(n_tokens - ROWS), lines, starts, half, &mut maxima);
                    }
                }
                _mm256_storeu_ps(best, maxima[0]);
                _mm256_storeu_ps(best.add(8), maxima[1]);
            }
        }
    }

    #[expect(unsafe_code, reason = "raw strided access")]
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn rows_256<const ROWS: usize>(
        tokens: &Tokens,
        first: usize,
        lines: &[Line],
        starts: &[i32; LANES],
        half: usize,
        best: &mut [__m256; 2],
    ) {
        let (stride, ones) = (tokens.stride, _mm256_set1_epi16(1));
        // SAFETY: rows `first` to `first + ROWS` are there, each at least as long as the lines' dimensions.
        unsafe {
            let quarter_of = |quarter: usize| _mm256_loadu_si256(starts.as_ptr().add(16 * half + 8 * quarter).cast());
            let mut sums = [[quarter_of(0), quarter_of(1)]; ROWS];
            let rows = tokens.bytes.as_ptr().add(first * stride);
            for (step, line) in lines.iter().enumerate() {
                let line = line.0.as_ptr().add(16 * half);
                let line = [_mm256_load_si256(line.cast()), _mm256_load_si256(line.add(8).cast())];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let values = _mm256_set1_epi32(rows.add(row * stride + 4 * step).cast::<i32>().read_unaligned());
                    for (sum, line) in sums.iter_mut().zip(line) {
                        let products = _mm256_madd_epi16(_mm256_maddubs_epi16(values, line), ones);
                        *sum = _mm256_add_epi32(*sum, products);
                    }
                }
            }
            for (sums, factor) in sums.into_iter().zip(&tokens.factors[first..]) {
                let factor = _mm256_set1_ps(*factor);
                for (best, sum) in best.iter_mut().zip(sums) {
                    *best = _mm256_max_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor), *best);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{instruction_sets, values};
    use crate::{Panels, max_sim};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_are_near_max_sim_and_equal_in_every_instruction_set(
            dim in 1usize..150, n_query in 1usize..70, n_tokens in 1usize..40, bits in prop::sample::select(vec![1usize, 2, 4]),
            seed: u32,
        ) {
            let levels: Vec<f32> = (0..1 << bits).map(|level| level as f32 * 0.3 - 0.5).collect();
            let scales: Vec<f32> = (0..dim).map(|d| 0.1 + (d % 7) as f32 * 0.01).collect();
            let table = ResidualTable::new(bits, &levels, &scales);
            let centroids = values(9 * dim, seed);
            let numbers: Vec<u32> = (0..n_tokens as u32).map(|token| (token * 7 + seed % 5) % 9).collect();
            let codes: Vec<u8> = values(n_tokens * table.n_bytes(), seed ^ 1).iter().map(|x| x.to_bits() as u8).collect();
            let query = values(n_query * dim, seed ^ 2);
            let mut decoded = vec![0.0; n_tokens * dim];
            table.decode(&centroids, &numbers, &codes, &mut decoded);
            let expected = max_sim(&Panels::from_transposed(&query, n_query, dim), &decoded);
            let (bytes, packed) = (ByteTable::new(&table, &centroids), ByteQuery::new(&query, dim));
            let scores: Vec<f32> = instruction_sets()
                .into_iter()
                .map(|isa| bytes.max_sim_on(isa, &packed, &numbers, &codes, &mut ByteRows::default()))
                .collect();
            // Half a step in every dimension of query, centroid and residual, all to one side, is more than ever happens.
            let length = query.chunks_exact(dim).map(|row| crate::sum_of_squares(row).sqrt() as f32).sum::<f32>();
            let tolerance = 0.06 * length + 1e-3;
            prop_assert!((scores[0] - expected).abs() < tolerance, "{} for {expected}", scores[0]);
            for score in &scores {
                prop_assert_eq!(score.to_bits(), scores[0].to_bits());
            }
        }
    }

    #[test]
    fn nothing_and_zeros_have_a_score() {
        let table = ResidualTable::new(2, &[0.0; 4], &[0.0; 3]);
        let bytes = ByteTable::new(&table, &[0.0; 3]);
        let query = ByteQuery::new(&[0.0, 1.0, 0.0], 3);
        let mut rows = ByteRows::default();
        assert_eq!(bytes.max_sim(&query, &[], &[], &mut rows), f32::NEG_INFINITY);
        assert_eq!(bytes.max_sim(&query, &[0], &[0xe4], &mut rows), 0.0);
        assert_eq!(bytes.max_sim(&ByteQuery::new(&[0.0; 3], 3), &[0], &[0xe4], &mut rows), 0.0);
    }

    #[test]
    fn bytes_are_rounded_to_the_nearest_ties_to_even() {
        for (value, expected) in
            [(0.0, 0), (0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (126.4, 126), (-126.6, -127)]
        {
            assert_eq!(round(value), expected, "{value}");
        }
    }
}
