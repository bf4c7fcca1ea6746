//! Language models on disk and in memory: weights, tokenizer, chat template, decoder, text encoders.
#![deny(missing_docs)]
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod encoder;
mod error;
mod files;
pub mod gguf;
pub mod pull;
pub mod tokenizer;
pub mod weights;

pub use error::ModelError;
