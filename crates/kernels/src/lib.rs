//! f32 kernels for CPUs, dispatched at run time; the only crate with unsafe code.
