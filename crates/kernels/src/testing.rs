//! What the kernels' tests share: values without a pattern, and the instruction sets of this machine.
use crate::isa::{Isa, isa};

/// Values from -1 to 1.
pub(crate) fn values(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32)
        .map(|i| ((i.wrapping_mul(2654435761).wrapping_add(seed) >> 8) % 2001) as f32 / 1000.0 - 1.0)
        .collect()
}

/// All that this machine can run.
pub(crate) fn instruction_sets() -> Vec<Isa> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|&candidate| candidate <= isa()).collect()
}
