//! Kernels for CPUs: matrix products over packed panels in f32 and in bytes, the row operations of a transformer, MaxSim; and what
//! else must give the same bits everywhere, such as random numbers.
//!
//! The only crate of ExSearch with unsafe code; its public functions are safe. It knows nothing of models.
//!
//! **Numbers do not depend on circumstances.** Every output element of a product is one chain of fused multiply-adds over
//! k in ascending order, whatever the instruction set, the number of rows beside it or the number of threads. So a
//! sequence's logits do not depend on its neighbours in a batch, and a resumed run repeats an uninterrupted one to the bit.
//! Reductions over a row use sixteen interleaved partial sums in every instruction set. Sums of bytes are integers, which are
//! the same in any order.
mod bytes;
mod gemm;
mod int8;
mod isa;
mod mapped;
mod max_sim;
mod optimizer;
mod panels;
mod random;
mod residuals;
mod rows;
#[cfg(test)]
mod testing;
mod tile;

pub use bytes::{ByteQuery, ByteRows, ByteTable};
pub use gemm::{MatMut, MatRef, Operand, matmul, matmul_packed, matmul_serial, matmul_transposed};
pub use int8::{Int8Panels, Int8Rows, matmul_int8};
pub use isa::{Isa, isa};
pub use mapped::MappedFile;
pub use max_sim::{dot_rows, max_sim};
pub use optimizer::{Adamw, squared_norm};
pub use panels::{LANES, Panels};
pub use random::SplitMix64;
pub use residuals::ResidualTable;
pub use rows::{
    add, dot, exp_in_place, geglu, geglu_backward, gelu, gelu_tanh, layer_norm, log_softmax_at, max, rms_norm,
    rms_norm_backward, rms_norm_weight_backward, rope, scale, softmax, softmax_backward,
    softmax_cross_entropy_backward, sum_of_squares, swiglu, swiglu_backward,
};
