//! BM25 over a corpus of passages: [`build`] turns passages into an index folder, [`Bm25Index`] searches it.
//!
//! ```text
//! score(query, passage) = sum over the query's distinct words of  idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len / avg_len))
//! idf = ln(1 + (N - n + 0.5) / (n + 0.5))           k1 = 1.2, b = 0.75 (fixed by tantivy)
//! ```
//! (Robertson and Zaragoza 2009, with the idf of Lucene.) A passage is its title, its title again, and its text; `tf` and
//! `len` count its words, `len` rounded down to one of 256 values that are exact up to 40 (tantivy's field norms), `n` of
//! the `N` passages hold the word.
//!
//! Results depend on the passages and [`Analysis`] only, bit for bit: not on threads, on memory, or on whether the build
//! was interrupted. The bytes on disk do depend on those.
mod analysis;
mod build;
mod manifest;
mod read_only;
mod search;

pub use crate::folder::{IndexFile, Progress, SourceId, Target};
pub use build::build;
pub use manifest::{Analysis, Bm25Config, FORMAT_VERSION, Manifest};
pub use search::{Bm25Index, MAX_QUERY_TERMS};

/// What a build found to do.
pub type Built = crate::folder::Built<Manifest>;
