//! Passages in, ranked hits out.
//!
//! Every retriever here implements [`exsearch_schema::Retriever`]. Over an index of ours: [`bm25`] (words), [`dense`] (one
//! vector a passage), [`late`] (a vector a token). Over other retrievers: [`Hybrid`], [`Rerank`], [`Cached`]. Over the network: [`Remote`],
//! [`WebSearch`]. [`open`] makes one from a config, [`open_index`] from an index folder.
//!
//! Knows nothing of questions, gold answers, language models, or of what is inside an encoder.
pub mod bm25;
mod cache;
pub mod config;
pub mod dense;
mod encode;
mod error;
mod files;
mod folder;
mod hybrid;
pub mod late;
mod open;
pub mod passages;
mod remote;
mod rerank;
mod stream;
mod top;
mod web;

pub use cache::{CacheLimits, CacheStats, Cached};
pub use config::RetrieverConfig;
pub use encode::EncoderId;
pub use error::Error;
pub use exsearch_http::{HttpConfig, Secret};
pub use folder::{Built, IndexFile, Progress, SourceId, Target};
pub use hybrid::{Fusion, Hybrid, HybridPart, RRF_K};
pub use open::{CONFIG_FILE, ResolveError, Resolver, identifying_files, index_kind, open, open_index, parts};
pub use remote::{Protocol, Remote};
pub use rerank::Rerank;
pub use web::{Provider, WebLimits, WebSearch};
