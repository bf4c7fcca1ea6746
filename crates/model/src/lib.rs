//! Language models on disk and in memory: weights, tokenizer, chat template, decoder.
#![deny(missing_docs)]
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod decoder;
mod error;
mod files;
pub mod gguf;
pub mod pull;
pub mod tokenizer;
pub mod weights;

pub use error::ModelError;
