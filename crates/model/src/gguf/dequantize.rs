//! Blocks of quantized numbers -> f32, as `ggml/src/ggml-quants.c` (`dequantize_row_*`) lays them out. Golden against the
//! Python package `gguf` in tests/golden.
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are ggml's own and say all there is")]
pub enum Quantization {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// The names of those that are read, for messages.
pub const KNOWN_QUANTIZATIONS: &[&str] =
    &["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"];

/// Numbers in a block of the K kinds.
const SUPER: usize = 256;

impl Quantization {
    /// From ggml's `ggml_type`.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Numbers and bytes of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 2 + 16),
            Self::Q4_1 => (32, 4 + 16),
            Self::Q5_0 => (32, 2 + 4 + 16),
            Self::Q5_1 => (32, 4 + 4 + 16),
            Self::Q8_0 => (32, 2 + 32),
            Self::Q4K => (SUPER, 4 + 12 + 128),
            Self::Q5K => (SUPER, 4 + 12 + 32 + 128),
            Self::Q6K => (SUPER, 128 + 64 + 16 + 2),
        }
    }

    /// Bytes of a tensor; `None` when its rows do not divide into blocks or the product overflows.
    pub(super) fn n_bytes(self, shape: &[usize]) -> Option<u64> {
        let (block_len, block_bytes) = self.block();
        if shape.last().copied().unwrap_or(1) % block_len != 0 {
            return None;
        }
        let n_numbers = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64))?;
        // Twice, since the f32 numbers must be addressable too.
        n_numbers.checked_mul(4)?;
        (n_numbers / block_len as u64).checked_mul(block_bytes as u64)
    }
}

/// What ggml calls a kind that is not read.
pub(super) fn name_of(number: u32) -> String {
    const NAMES: &[(u32, &str)] = &[
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
        (39, "MXFP4"),
    ];
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("ggml type {number}"), |(_, name)| (*name).to_owned())
}

/// All numbers of a tensor whose bytes are whole blocks.
pub(super) fn dequantize(quantization: Quantization, raw: &[u8]) -> Vec<f32> {
    let (block_len, block_bytes) = quantization.block();
    let mut numbers = vec![0f32; raw.len() / block_bytes * block_len];
    // 64 KiB of numbers a task, whole blocks each.
    let blocks_per_task = (1 << 14) / block_len;
    numbers
        .par_chunks_mut(blocks_per_task * block_len)
        .zip(raw.par_chunks(blocks_per_task * block_bytes))
        .for_each(|(numbers, raw)| dequantize_run(quantization, raw, numbers));
    numbers
}

fn dequantize_run(quantization: Quantization, raw: &[u8], numbers: &mut [f32]) {
    match quantization {
        Quantization::F32 => {
            for (number, &bytes) in numbers.iter_mut().zip(raw.as_chunks().0) {
                *number = f32::from_le_bytes(bytes);
            }
        }
        Quantization::F16 => {
            let halves: Vec<f16> = raw.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes)).collect();
            halves.convert_to_f32_slice(numbers);
        }
        Quantization::Bf16 => {
            for (number, &bytes) in numbers.iter_mut().zip(raw.as_chunks().0) {
                *number = bf16::from_le_bytes(bytes).to_f32();
            }
        }
        Quantization::Q4_0 => each_block(raw, numbers, q4_0),
        Quantization::Q4_1 => each_block(raw, numbers, q4_1),
        Quantization::Q5_0 => each_block(raw, numbers, q5_0),
        Quantization::Q5_1 => each_block(raw, numbers, q5_1),
        Quantization::Q8_0 => each_block(raw, numbers, q8_0),
        Quantization::Q4K => each_block(raw, numbers, q4_k),
        Quantization::Q5K => each_block(raw, numbers, q5_k),
        Quantization::Q6K => each_block(raw, numbers, q6_k),
    }
}

fn each_block<const BYTES: usize, const LEN: usize>(
    raw: &[u8],
    numbers: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (raw, numbers) in raw.as_chunks().0.iter().zip(numbers.as_chunks_mut().0) {
        block(raw, numbers);
    }
}

/// d, 32 nibbles: d (q - 8). Low nibbles are the first half, high ones the second.
fn q4_0(raw: &[u8; 18], numbers: &mut [f32; 32]) {
    let d = half_at(raw, 0);
    for idx in 0..16 {
        let byte = raw[2 + idx];
        numbers[idx] = d * (f32::from(byte & 15) - 8.0);
        numbers[idx + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// d, m, 32 nibbles: d q + m.
fn q4_1(raw: &[u8; 20], numbers: &mut [f32; 32]) {
    let (d, m) = (half_at(raw, 0), half_at(raw, 2));
    for idx in 0..16 {
        let byte = raw[4 + idx];
        numbers[idx] = d * f32::from(byte & 15) + m;
        numbers[idx + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// d, 32 fifth bits, 32 nibbles: d (q - 16).
fn q5_0(raw: &[u8; 22], numbers: &mut [f32; 32]) {
    let d = half_at(raw, 0);
    for idx in 0..16 {
        let (low, high) = five_bits(&raw[2..6], raw[6 + idx], idx);
        numbers[idx] = d * (low - 16.0);
        numbers[idx + 16] = d * (high - 16.0);
    }
}

/// d, m, 32 fifth bits, 32 nibbles: d q + m.
fn q5_1(raw: &[u8; 24], numbers: &mut [f32; 32]) {
    let (d, m) = (half_at(raw, 0), half_at(raw, 2));
    for idx in 0..16 {
        let (low, high) = five_bits(&raw[4..8], raw[8 + idx], idx);
        numbers[idx] = d * low + m;
        numbers[idx + 16] = d * high + m;
    }
}

/// d, 32 signed bytes: d q.
fn q8_0(raw: &[u8; 34], numbers: &mut [f32; 32]) {
    let d = half_at(raw, 0);
    for (number, &byte) in numbers.iter_mut().zip(&raw[2..]) {
        *number = d * f32::from(byte as i8);
    }
}

/// d, dmin, 8 six-bit scales and minima, 256 nibbles: d scale q - dmin minimum.
fn q4_k(raw: &[u8; 144], numbers: &mut [f32; SUPER]) {
    let (d, dmin, scales) = (half_at(raw, 0), half_at(raw, 2), &raw[4..16]);
    for (pair_idx, numbers) in numbers.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let (scale_a, min_a) = scale_and_min(scales, 2 * pair_idx);
        let (scale_b, min_b) = scale_and_min(scales, 2 * pair_idx + 1);
        for idx in 0..32 {
            let byte = raw[16 + 32 * pair_idx + idx];
            numbers[idx] = d * scale_a * f32::from(byte & 15) - dmin * min_a;
            numbers[idx + 32] = d * scale_b * f32::from(byte >> 4) - dmin * min_b;
        }
    }
}

/// [`q4_k`] with a fifth bit for each number.
fn q5_k(raw: &[u8; 176], numbers: &mut [f32; SUPER]) {
    let (d, dmin, scales) = (half_at(raw, 0), half_at(raw, 2), &raw[4..16]);
    for (pair_idx, numbers) in numbers.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let (scale_a, min_a) = scale_and_min(scales, 2 * pair_idx);
        let (scale_b, min_b) = scale_and_min(scales, 2 * pair_idx + 1);
        for idx in 0..32 {
            let (byte, fifths) = (raw[48 + 32 * pair_idx + idx], raw[16 + idx] >> (2 * pair_idx));
            let (low, high) = ((byte & 15) | (fifths & 1) << 4, (byte >> 4) | (fifths & 2) << 3);
            numbers[idx] = d * scale_a * f32::from(low) - dmin * min_a;
            numbers[idx + 32] = d * scale_b * f32::from(high) - dmin * min_b;
        }
    }
}

/// 256 low nibbles, 256 pairs of high bits, 16 signed scales, d: d scale (q - 32).
fn q6_k(raw: &[u8; 210], numbers: &mut [f32; SUPER]) {
    let d = half_at(raw, 208);
    for (half_idx, numbers) in numbers.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (lows, highs) = (&raw[64 * half_idx..][..64], &raw[128 + 32 * half_idx..][..32]);
        let scales = &raw[192 + 8 * half_idx..][..8];
        for idx in 0..32 {
            let high = highs[idx];
            let quarters = [
                (lows[idx] & 15) | (high & 3) << 4,
                (lows[idx + 32] & 15) | (high >> 2 & 3) << 4,
                (lows[idx] >> 4) | (high >> 4 & 3) << 4,
                (lows[idx + 32] >> 4) | (high >> 6) << 4,
            ];
            for (quarter_idx, q) in quarters.into_iter().enumerate() {
                let scale = f32::from(scales[2 * quarter_idx + idx / 16] as i8);
                numbers[32 * quarter_idx + idx] = d * scale * (f32::from(q) - 32.0);
            }
        }
    }
}

fn half_at(raw: &[u8], start: usize) -> f32 {
    f16::from_le_bytes([raw[start], raw[start + 1]]).to_f32()
}

/// The `idx`th number of the first and of the second half, where `fifths` has their highest bits.
fn five_bits(fifths: &[u8], nibbles: u8, idx: usize) -> (f32, f32) {
    let bits = u32::from_le_bytes([fifths[0], fifths[1], fifths[2], fifths[3]]);
    let fifth = |position: usize| ((bits >> position & 1) << 4) as u8;
    (f32::from((nibbles & 15) | fifth(idx)), f32::from((nibbles >> 4) | fifth(idx + 16)))
}

/// `get_scale_min_k4`: eight pairs of six bits in twelve bytes; the last four pairs lend their high bits to the first
/// bytes' tops.
fn scale_and_min(packed: &[u8], idx: usize) -> (f32, f32) {
    let (scale, min) = if idx < 4 {
        (packed[idx] & 63, packed[idx + 4] & 63)
    } else {
        let (low, tops) = (packed[idx + 4], (packed[idx - 4] >> 6, packed[idx] >> 6));
        ((low & 15) | tops.0 << 4, (low >> 4) | tops.1 << 4)
    };
    (f32::from(scale), f32::from(min))
}
