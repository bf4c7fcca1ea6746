//! The decoder on a GPU: generation, scoring and training through burn.
//!
//! It computes what `exsearch-model` describes, from the same files into the same files, and draws with the same function as
//! `exsearch-engine`. What a GPU cannot promise: a number here depends, in its last digits, on the batch and the card.
//!
//! Compiled only with one of the features `wgpu`, `vulkan`, `cuda` or `flex`: without them the crate is empty, and nothing of
//! burn is built. Knows nothing of agents, questions or gold answers.
//!
//! Legend: b = sequences of a batch, t = their tokens, padded to one length, m = b · t rows, k = keys that they attend to, h =
//! hidden size, d = head size, v = vocabulary, r = rank of an adapter.
#![cfg(feature = "burn")]
#![deny(missing_docs)]
mod adapter;
mod decoder;
mod engine;
mod layer;
mod model;
mod open;
mod parameters;
mod pool;
mod training;

pub use decoder::{Chunk, DeviceDecoder, Precision};
pub use engine::DeviceEngine;
pub use model::DeviceModel;
#[cfg(feature = "flex")]
pub use open::open_cpu;
pub use open::{DeviceError, Gpu, open_gpu};
pub use pool::KvPool;

pub use burn_tensor::Device;
