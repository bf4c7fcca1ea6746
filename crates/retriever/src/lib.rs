//! Passages in, ranked hits out.
//!
//! Knows nothing of questions, gold answers or language models. Every retriever here implements
//! [`exsearch_schema::Retriever`]; [`bm25`] holds the one over words.
pub mod bm25;
mod error;

pub use error::Error;
