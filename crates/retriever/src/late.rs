//! Late interaction: a vector for each token, ranked by MaxSim (ColBERT, arXiv 2004.12832). [`build`] turns passages into an
//! index folder, [`append`] and [`delete`] change it, [`LateRetriever`] searches it.
//!
//! The vectors are the business of crate `index`; here is what it does not know: text, ids and the encoder.
//!
//! ```text
//! manifest.json            the encoder, the corpora, the segments of passages; names the data folder
//! data-<n>/segment-<m>.*   the passages of one build or append, or what a compaction left of them (passages.rs)
//! data-<n>/index/          their vectors (crate `index`), passages under the same numbers
//! data-<n>/progress.json   how far an unfinished build or append is
//! ```
//! The passages of an append are named by the manifest before their vectors are by the index: a reader always has the text of
//! what it finds. A compaction drops vectors before text, for the same reason; the manifest that names the copies of the
//! segments is written before the segments themselves go.
mod append;
mod build;
mod manifest;
mod sample;
mod search;
mod writer;

pub use append::{abandon, append, compact, delete};
pub use build::build;
pub use manifest::{FORMAT_VERSION, LateConfig, Manifest};
pub use search::LateRetriever;

use crate::folder::Progress;

/// What a build found to do.
pub type Built = crate::folder::Built<Manifest>;

/// What a build of a late-interaction index is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Passages drawn from the whole corpus are being encoded, for the centroids to be found among their vectors.
    Sampling {
        /// Passages encoded so far.
        n_encoded: u64,
        /// About how many there will be.
        n_wanted: u64,
    },
    /// Centroids are being found.
    Training,
    /// Passages are being added.
    Adding(Progress),
}
