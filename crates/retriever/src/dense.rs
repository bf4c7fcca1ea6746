//! Dense retrieval: one vector a passage, ranked by inner product. [`build`] turns passages into an index folder,
//! [`DenseIndex`] searches it.
//!
//! Up to [`DenseConfig::exact_up_to`] passages every vector is looked at (a blocked matrix product); past that inverted lists
//! (`ann.rs`) propose candidates, which are then scored exactly.
//!
//! ```text
//! data-<n>/segment-0.*     the passages (passages.rs)
//! data-<n>/vectors         panels of 32 passages, each [dim][32] in f32 or f16, the last one filled with zeros
//! data-<n>/lists/          in a large index, the inverted lists
//! data-<n>/progress.json   how far an unfinished build is on disk
//! ```
//! A panel is what the matrix product reads front to back, so a query alone costs one pass over the file and a batch of
//! queries the same pass. A score is one chain of fused multiply-adds over the dimensions: it does not depend on the
//! batch, the threads or the instruction set, and neither does the order of results, in which ties break by the corpus.
//!
//! 1,000,000 passages at dimension 384 are 1.54 GB in f32 and 0.77 GB in f16, mapped and not copied.
mod ann;
mod build;
mod manifest;
mod search;
mod vectors;

pub use ann::AnnOptions;
pub use build::build;
pub use manifest::{DenseConfig, FORMAT_VERSION, Manifest, Precision};
pub use search::DenseIndex;

/// What a build found to do.
pub type Built = crate::folder::Built<Manifest>;
