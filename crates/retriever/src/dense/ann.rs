//! Candidates for the nearest of very many vectors, without looking at all of them: the inverted lists of crate `index`, in
//! which a passage with one vector is a passage with one token.
//!
//! Why not a graph (HNSW) by another crate: hnsw_rs ends the process at a damaged file and prints, instant-distance has had no
//! release since 2023, usearch is C++, and none of them builds in bounded memory, goes on after a kill or gives the same
//! bytes twice. The lists do all of that, and cost `dim / 2 + 4` bytes a vector (196 at dimension 384) beside it.
use super::vectors::Vectors;
use crate::Error;
use crate::top::{Scored, Top};
use exsearch_index::{Codec, CodecConfig, LateIndex, SearchOptions, Writer, WriterConfig};
use std::path::Path;

/// How much of a large index a query looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnOptions {
    /// Lists that are read, of about `16 * sqrt(n)`.
    pub n_probe: usize,
    /// Passages of these lists that are scored by their compressed vectors; a tenth of them, and at least four times as many
    /// as are wanted, are then scored exactly.
    pub n_candidates: usize,
}

/// Vectors between two commits: at 3,000 vectors a second and thread, half a minute of work.
const COMMIT_EVERY: u32 = 1 << 17;

impl Default for AnnOptions {
    fn default() -> Self {
        Self { n_probe: 64, n_candidates: 4_096 }
    }
}

/// Makes the lists of all vectors in the folder `dir`, or completes them.
pub(super) fn build(dir: &Path, vectors: &Vectors, fingerprint: &str) -> Result<(), Error> {
    if dir.join("manifest.json").is_file() {
        return Ok(());
    }
    let config = WriterConfig::default();
    let mut writer = match Writer::resume(dir, &config)? {
        Some(writer) => writer,
        None => {
            let n_vectors = vectors.n_vectors();
            let codec = CodecConfig { bits: 4, ..CodecConfig::default() };
            let n_sample = codec.n_sample_tokens(n_vectors as u64).max(1);
            // Evenly spaced: corpora are sorted by page, not by what a stride could miss.
            let stride = (n_vectors / n_sample as usize).max(1);
            let sample = (0..n_vectors).step_by(stride).flat_map(|number| vectors.row(number)).collect();
            let codec = Codec::train(sample, vectors.dim(), n_vectors as u64, &codec)?;
            Writer::create(dir, &codec, fingerprint, &config)?
        }
    };
    for number in writer.n_passages() as usize..vectors.n_vectors() {
        writer.push(&vectors.row(number))?;
        if writer.n_passages().is_multiple_of(COMMIT_EVERY) {
            writer.commit()?;
        }
    }
    Ok(writer.finish()?)
}

/// The best `top_k` among the candidates for `query`, scored exactly.
pub(super) fn search(
    lists: &LateIndex,
    vectors: &Vectors,
    query: &[f32],
    top_k: usize,
    options: AnnOptions,
) -> Result<Vec<Scored>, Error> {
    let n_exact = (options.n_candidates / 10).max(4 * top_k);
    let candidates = SearchOptions {
        top_k: n_exact,
        n_probe: options.n_probe,
        n_groups: options.n_probe,
        n_candidates: options.n_candidates.max(n_exact),
        // Twice `top_k`, the least, is enough: what they give is scored again by the vectors themselves.
        n_exact: 0,
        parallel: false,
    };
    let numbers: Vec<u32> = lists.search(query, &candidates)?.iter().map(|found| found.passage).collect();
    let mut top = Top::new(top_k);
    for (number, score) in numbers.iter().zip(vectors.scores(query, &numbers)) {
        top.offer(Scored { number: *number, score });
    }
    Ok(top.into_sorted())
}
