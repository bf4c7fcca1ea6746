//! MaxSim of a query with every passage's own vectors: what an index approximates.
use crate::search::{Scored, pack};
use crate::select::Best;
use exsearch_kernels::max_sim;
use rayon::prelude::*;

/// The best `top_k` passages for `query` (`n x dim`), best first, ties by number. `passages` are `n_tokens x dim` each, and
/// numbered in their order; those without vectors are never among the best.
pub fn exact_search<P: AsRef<[f32]> + Sync>(query: &[f32], passages: &[P], dim: usize, top_k: usize) -> Vec<Scored> {
    assert!(dim > 0 && !query.is_empty() && query.len().is_multiple_of(dim), "a query is whole vectors");
    let query = pack(query, dim);
    let scores: Vec<f32> = passages.par_iter().map(|passage| max_sim(&query, passage.as_ref())).collect();
    let mut best = Best::new(top_k);
    for (score, passage) in scores.into_iter().zip(0..).filter(|(score, _)| *score > f32::NEG_INFINITY) {
        best.push(score, passage);
    }
    best.into_sorted().into_iter().map(|(score, passage)| Scored { passage, score }).collect()
}
