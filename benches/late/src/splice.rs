//! A larger corpus of a small one: behind its passages come ones of three spans, each a third of a random passage.
//!
//! Spans keep real neighbours together, so a spliced passage's tokens are as alike as a real one's; ours gets their vectors
//! and encodes them, next-plaid gets the codes that it gave them before.
use crate::measure::{DIM, Vectors};
use anyhow::Result;
use ndarray::{Array1, Array2};
use next_plaid::{
    EncodedIndexChunk, IndexConfig, PreparedCodecArtifacts, ResidualCodec, write_index_from_encoded_chunks,
};
use std::path::Path;

/// The tokens of a passage, as spans of passages of the small corpus.
type Spans = Vec<(usize, std::ops::Range<usize>)>;

/// The spans of each passage of the large corpus. The same for the same lengths.
pub fn splice(lengths: &[usize], n_passages: usize) -> impl Iterator<Item = Spans> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    (0..n_passages).map(move |idx| {
        if idx < lengths.len() {
            return vec![(idx, 0..lengths[idx])];
        }
        let third = |_| {
            let passage = below(lengths.len());
            let n_tokens = (lengths[passage] / 3).max(1).min(lengths[passage]);
            let first = below(lengths[passage] - n_tokens + 1);
            (passage, first..first + n_tokens)
        };
        (0..3).map(third).collect()
    })
}

/// Vectors of the large corpus, from those of the small one.
pub fn vectors(small: &Path, n_passages: usize, mut each: impl FnMut(Vec<f32>) -> Result<()>) -> Result<()> {
    let small = Vectors::open(small, "passages")?;
    let lengths = small.lengths.clone();
    let passages: Vec<Vec<f32>> = small.collect();
    for spans in splice(&lengths, n_passages) {
        let parts = spans.into_iter().map(|(passage, span)| &passages[passage][span.start * DIM..span.end * DIM]);
        each(parts.collect::<Vec<_>>().concat())?;
    }
    Ok(())
}

/// Tokens of the large corpus.
pub fn n_tokens(lengths: &[usize], n_passages: usize) -> u64 {
    splice(lengths, n_passages).flatten().map(|(_, span)| span.len() as u64).sum()
}

/// next-plaid's index of the large corpus, from its index of the small one.
pub fn peer(small: &Path, out: &Path, n_passages: usize) -> Result<()> {
    const CHUNK: usize = 50_000;
    let index = next_plaid::MmapIndex::load(&small.to_string_lossy())?;
    let offsets: Vec<usize> = index.doc_offsets.to_vec();
    let lengths: Vec<usize> = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let n_bytes = index.mmap_residuals.ncols();
    let mut chunks = Vec::new();
    let (mut codes, mut residuals, mut doclens) = (Vec::new(), Vec::new(), Vec::new());
    for (idx, spans) in splice(&lengths, n_passages).enumerate() {
        let before = codes.len();
        for (passage, span) in spans {
            let (first, last) = (offsets[passage] + span.start, offsets[passage] + span.end);
            codes.extend(index.mmap_codes.slice(first, last));
            residuals.extend(index.mmap_residuals.slice_rows(first, last).iter());
        }
        doclens.push((codes.len() - before) as i64);
        if doclens.len() == CHUNK || idx + 1 == n_passages {
            let n = codes.len();
            chunks.push(EncodedIndexChunk {
                codes: Array1::from_vec(std::mem::take(&mut codes)),
                residuals: Array2::from_shape_vec((n, n_bytes), std::mem::take(&mut residuals))?,
                doclens: std::mem::take(&mut doclens),
            });
        }
    }
    let codec = ResidualCodec::load_from_dir(small)?;
    let artifacts = PreparedCodecArtifacts {
        cluster_threshold: 0.5,
        bucket_cutoffs: codec.bucket_cutoffs.clone().expect("a residual index"),
        bucket_weights: codec.bucket_weights.clone().expect("a residual index"),
        avg_res_per_dim: Array1::zeros(DIM),
        codec,
    };
    let config = IndexConfig { nbits: index.metadata.nbits, ..Default::default() };
    write_index_from_encoded_chunks(&chunks, &artifacts, &out.to_string_lossy(), &config)?;
    Ok(())
}
