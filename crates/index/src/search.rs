//! A query's vectors in, the best passages out.
//!
//! 1. Each query vector finds its nearest centroids, groups first (`codec/assign.rs` says how well that works).
//! 2. Candidates: for each query vector, a passage in the list of one of these centroids gains what its nearest one is nearer
//!    than the best centroid that was not looked at. That is WARP's imputation of missing scores (arXiv 2501.17788, 4.2),
//!    summed over the probed lists only: nothing is read of a passage's codes.
//! 3. The best candidates are decompressed to bytes and scored by MaxSim on these (`kernels::ByteTable`).
//! 4. The best of them are decompressed and scored by MaxSim.
//!
//! Nothing depends on the number of threads: a query's sums are made in one order.
use crate::IndexError;
use crate::codec::Codec;
use crate::edit::Deleted;
use crate::postings::{Malformed, for_each};
use crate::segment::Segment;
use crate::select::{Best, keep_highest, key, unkey};
use exsearch_kernels::{ByteQuery, ByteRows, Panels, dot_rows, max_sim};
use rayon::prelude::*;

/// How much a search looks at. The defaults give at least 0.98 of the ten passages that the widest search gives
/// (benches/late prints the curve).
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// Passages wanted.
    pub top_k: usize,
    /// Centroids that each query vector looks at.
    pub n_probe: usize,
    /// Groups of centroids that each query vector looks for these in.
    pub n_groups: usize,
    /// Candidates that are scored, at least in bytes.
    pub n_candidates: usize,
    /// Candidates, the best by bytes, that are scored exactly; never fewer than twice `top_k`.
    pub n_exact: usize,
    /// Whether one query uses all threads of the current rayon pool, which shortens it by less than it costs.
    pub parallel: bool,
}

/// A passage and its MaxSim with the query, on decompressed vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The passage's number.
    pub passage: u32,
    /// The sum over the query's vectors of the largest inner product with one of the passage's.
    pub score: f32,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { top_k: 10, n_probe: 32, n_groups: 32, n_candidates: 256, n_exact: 32, parallel: false }
    }
}

impl SearchOptions {
    /// Looks at everything: the ranking is that of exact MaxSim on the decompressed vectors.
    pub fn exhaustive(top_k: usize) -> Self {
        let all = usize::MAX;
        Self { top_k, n_probe: all, n_groups: all, n_candidates: all, n_exact: all, parallel: false }
    }
}

/// What a search reads.
pub(crate) struct View<'a> {
    pub(crate) codec: &'a Codec,
    pub(crate) segments: &'a [Segment],
    pub(crate) deleted: &'a Deleted,
}

/// What a search writes while it runs, kept for the next one.
#[derive(Default)]
pub(crate) struct Scratch {
    /// For each passage of the index.
    slots: Vec<Slot>,
    /// The last stamp that was given.
    stamp: u32,
    touched: Vec<u32>,
    keys: Vec<u64>,
    decoded: Decoded,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// The query vector that touched it last; one below this query's first says that `gain` is of another query.
    stamp: u32,
    gain: f32,
}

/// A decompressed passage.
#[derive(Default)]
struct Decoded {
    codes: Vec<u32>,
    vectors: Vec<f32>,
    rows: ByteRows,
}

/// The centroids that a query vector looks at, nearest first, with their inner products.
struct Probe {
    centroids: Vec<(f32, u32)>,
    /// What a passage in none of their lists is taken to have.
    missing: f32,
}

impl View<'_> {
    /// The best passages for `query` (`n x dim`, at least one vector), best first, ties by number.
    pub(crate) fn search(
        &self,
        query: &[f32],
        options: &SearchOptions,
        scratch: &mut Scratch,
    ) -> Result<Vec<Scored>, IndexError> {
        let dim = self.codec.dim();
        let probes: Vec<Probe> = if options.parallel {
            query.par_chunks_exact(dim).map(|vector| self.probe(vector, options)).collect()
        } else {
            query.chunks_exact(dim).map(|vector| self.probe(vector, options)).collect()
        };
        let mut candidates = self.candidates(&probes, options, scratch)?;
        let n_exact = options.n_exact.max(options.top_k.saturating_mul(2));
        if candidates.len() > n_exact {
            let query = ByteQuery::new(query, dim);
            let estimate = |passage, decoded: &mut Decoded| self.estimate(&query, passage, decoded);
            let estimates = score_all(&candidates, options.parallel, &mut scratch.decoded, estimate)?;
            candidates = best_of(&candidates, &estimates, n_exact);
        }
        let query = pack(query, dim);
        let score = |passage, decoded: &mut Decoded| self.score(&query, passage, decoded);
        let scores = score_all(&candidates, options.parallel, &mut scratch.decoded, score)?;
        let mut best = Best::new(options.top_k);
        for (passage, score) in candidates.iter().zip(scores) {
            best.push(score, *passage);
        }
        Ok(best.into_sorted().into_iter().map(|(score, passage)| Scored { passage, score }).collect())
    }

    fn probe(&self, vector: &[f32], options: &SearchOptions) -> Probe {
        let (dim, n_groups) = (self.codec.dim(), self.codec.n_groups());
        let mut products = vec![0.0; n_groups];
        dot_rows(vector, self.codec.group_centers(), &mut products);
        let mut groups: Vec<u64> = products.iter().zip(0..).map(|(product, group)| key(*product, group)).collect();
        keep_highest(&mut groups, options.n_groups.max(1));
        let n_probe = options.n_probe.clamp(1, self.codec.n_centroids());
        // One more than wanted: what the passages in no list cannot exceed, as far as centroids go.
        let mut best = Best::new(n_probe + 1);
        for group in groups {
            let group = self.codec.group(unkey(group).1 as usize);
            products.resize(group.len(), 0.0);
            dot_rows(vector, &self.codec.centroids()[group.start * dim..group.end * dim], &mut products);
            for (product, centroid) in products.iter().zip(group) {
                best.push(*product, centroid as u32);
            }
        }
        let mut centroids = best.into_sorted();
        let missing = centroids.last().map_or(0.0, |(product, _)| *product);
        centroids.truncate(n_probe);
        Probe { centroids, missing }
    }

    /// The best `n_candidates` passages by what the probed lists say, ascending.
    fn candidates(
        &self,
        probes: &[Probe],
        options: &SearchOptions,
        scratch: &mut Scratch,
    ) -> Result<Vec<u32>, IndexError> {
        let Scratch { slots, stamp, touched, keys, .. } = scratch;
        let n_passages = self.segments.last().map_or(0, |last| last.entry.first_passage + last.entry.n_passages);
        slots.resize(n_passages as usize, Slot::default());
        if *stamp > u32::MAX - probes.len() as u32 - 1 {
            slots.fill(Slot::default());
            *stamp = 0;
        }
        let first_stamp = *stamp + 1;
        touched.clear();
        for probe in probes {
            *stamp += 1;
            for (product, centroid) in &probe.centroids {
                let gain = product - probe.missing;
                for segment in self.segments {
                    let first = segment.entry.first_passage;
                    let slots = &mut slots[first as usize..][..segment.entry.n_passages as usize];
                    let mut gather = || {
                        for_each(segment.postings().list(*centroid as usize)?, |local| {
                            let slot = slots.get_mut(local as usize).ok_or(Malformed)?;
                            if slot.stamp != *stamp {
                                if slot.stamp < first_stamp {
                                    slot.gain = 0.0;
                                    touched.push(first + local);
                                }
                                slot.stamp = *stamp;
                                slot.gain += gain;
                            }
                            Ok(())
                        })
                    };
                    gather().map_err(|malformed| segment.malformed(malformed))?;
                }
            }
        }
        keys.clear();
        let kept = touched.iter().filter(|passage| !self.deleted.contains(**passage));
        keys.extend(kept.map(|passage| key(slots[*passage as usize].gain, *passage)));
        keep_highest(keys, options.n_candidates.max(options.top_k));
        let mut candidates: Vec<u32> = keys.iter().map(|key| unkey(*key).1).collect();
        // Neighbours on disk one after the other.
        candidates.sort_unstable();
        Ok(candidates)
    }

    fn estimate(&self, query: &ByteQuery, passage: u32, decoded: &mut Decoded) -> Result<f32, IndexError> {
        let residuals = self.read(passage, &mut decoded.codes)?;
        Ok(self.codec.byte_table().max_sim(query, &decoded.codes, residuals, &mut decoded.rows))
    }

    fn score(&self, query: &Panels, passage: u32, decoded: &mut Decoded) -> Result<f32, IndexError> {
        self.decode(passage, decoded)?;
        Ok(max_sim(query, &decoded.vectors))
    }

    fn decode(&self, passage: u32, decoded: &mut Decoded) -> Result<(), IndexError> {
        let residuals = self.read(passage, &mut decoded.codes)?;
        decoded.vectors.resize(decoded.codes.len() * self.codec.dim(), 0.0);
        self.codec.decode(&decoded.codes, residuals, &mut decoded.vectors);
        Ok(())
    }

    /// A passage's residuals; the numbers of its centroids go to `codes`.
    fn read(&self, passage: u32, codes: &mut Vec<u32>) -> Result<&[u8], IndexError> {
        let segment = self.segments.partition_point(|segment| segment.entry.first_passage <= passage) - 1;
        let segment = &self.segments[segment];
        let tokens = segment.tokens(passage - segment.entry.first_passage)?;
        codes.clear();
        segment.read_codes(tokens.clone(), codes)?;
        Ok(segment.residuals(tokens))
    }

    /// The vectors of a passage as the index holds them (`n_tokens x dim`).
    pub(crate) fn vectors(&self, passage: u32) -> Result<Vec<f32>, IndexError> {
        let mut decoded = Decoded::default();
        self.decode(passage, &mut decoded)?;
        Ok(decoded.vectors)
    }
}

/// A score for each passage.
fn score_all(
    passages: &[u32],
    parallel: bool,
    decoded: &mut Decoded,
    score: impl Fn(u32, &mut Decoded) -> Result<f32, IndexError> + Sync,
) -> Result<Vec<f32>, IndexError> {
    if parallel {
        return passages.par_iter().map_init(Decoded::default, |decoded, passage| score(*passage, decoded)).collect();
    }
    passages.iter().map(|passage| score(*passage, decoded)).collect()
}

/// The `n` passages with the highest scores, ascending as they were.
fn best_of(passages: &[u32], scores: &[f32], n: usize) -> Vec<u32> {
    let mut keys: Vec<u64> = passages.iter().zip(scores).map(|(passage, score)| key(*score, *passage)).collect();
    keep_highest(&mut keys, n);
    let mut best: Vec<u32> = keys.into_iter().map(|key| unkey(key).1).collect();
    best.sort_unstable();
    best
}

/// Packs a query (`n x dim`) for MaxSim, on this thread alone.
pub(crate) fn pack(query: &[f32], dim: usize) -> Panels {
    let n = query.len() / dim;
    let transposed: Vec<f32> = (0..query.len()).map(|idx| query[idx % n * dim + idx / n]).collect();
    Panels::from_rows(&transposed, dim, n)
}
