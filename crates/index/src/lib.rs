//! Late interaction: token vectors in, passage numbers out. Knows no model and no text.
//!
//! An index of the PLAID family (arXiv 2205.09707) with what WARP (arXiv 2501.17788) taught: a vector is the number of its
//! centroid and one, two or four bits for each dimension of what that leaves; candidates come from the lists of the centroids
//! near a query, and the best of them are decompressed and scored by MaxSim.
//!
//! ```no_run
//! use exsearch_index::{Codec, CodecConfig, LateIndex, SearchOptions, Writer, WriterConfig};
//! # use std::path::Path;
//! # fn main() -> Result<(), exsearch_index::IndexError> {
//! # let (sample, passages, query): (Vec<f32>, Vec<Vec<f32>>, Vec<f32>) = Default::default();
//! let dir = Path::new("index");
//! let mut writer = match Writer::resume(dir, &WriterConfig::default())? {
//!     Some(writer) => writer,
//!     None => {
//!         let codec = Codec::train(sample, 128, 1_000_000, &CodecConfig::default())?;
//!         Writer::create(dir, &codec, "sha256:...", &WriterConfig::default())?
//!     }
//! };
//! for vectors in &passages[writer.n_passages() as usize..] {
//!     writer.push(vectors)?;
//!     if writer.n_passages().is_multiple_of(10_000) {
//!         writer.commit()?;
//!     }
//! }
//! writer.finish()?;
//! let best = LateIndex::open(dir)?.search(&query, &SearchOptions::default())?;
//! # Ok(()) }
//! ```
//!
//! # Passage numbers
//! Passages are numbered from 0 in the order in which they are pushed. A number never changes and is never given again:
//! deleted passages leave a gap, also after a compaction.
//!
//! # On disk, format version 1
//! All numbers are little endian.
//!
//! | file | content |
//! |---|---|
//! | manifest.json | `{crc32, content}`: generation, counts, and every file with its size and CRC-32; `crc32` is that of `content` as JSON without spaces. Written last, replaced as a whole |
//! | codec.bin | centroids and levels (`codec.rs` has the layout) |
//! | segment-N.offsets | u64 for each passage, its first token, and one more: the number of tokens |
//! | segment-N.codes | a centroid's number for each token, in 2, 3 or 4 bytes: the fewest that hold all of them |
//! | segment-N.residuals | ceil(dim x bits / 8) bytes a token, the first dimension in the lowest bits of the first byte |
//! | segment-N.postings | for each centroid the passages with a token there, delta-coded varints (`postings.rs`) |
//! | deleted-G.bits | a bit for each passage |
//! | session.json | a segment that is being written: what of its `.part` files is committed |
//! | writer.lock | locked by the process that changes the index |
//!
//! Arrays have no headers, so that they are mapped as they lie; the manifest's version is theirs. Files never change once a
//! manifest names them, and go only when a later one does not: an open index stays as it is while others change it.
//!
//! Bytes a token at 128 dimensions and 2 bits: 32 of residual, 2 or 3 of code, 1 to 2 of postings, 8 a passage of offsets, and
//! 512 a centroid: 36 to 43 in all, the fewer the larger the index. 21M passages of 120 tokens: 2.5G x 37 bytes = 93 GB.
//!
//! # In memory
//! Training holds its sample, 34 vectors a centroid where the caller gives that many: 65,536 x 34 x 512 bytes = 1.1 GB for 60M
//! tokens, 4.6 GB for 2^18 centroids; a quarter of it makes slightly worse centroids. A writer holds the packed codec (512
//! bytes a centroid, at most 128 MiB), `memory_mb`, and 4 bytes a passage, however large the corpus. A search holds 8 bytes a
//! passage, and all searches of an index together its centroids in bytes: 65,536 x 128 = 8 MB. What they read of the files is
//! the system's cache.
mod codec;
mod edit;
mod error;
mod exact;
mod folder;
mod index;
mod postings;
mod search;
mod segment;
mod select;
mod writer;

pub use codec::{Codec, CodecConfig};
pub use edit::{compact, delete};
pub use error::IndexError;
pub use exact::exact_search;
pub use folder::FORMAT_VERSION;
pub use index::{IndexInfo, LateIndex, SegmentInfo};
pub use search::{Scored, SearchOptions};
pub use writer::{Writer, WriterConfig};
