//! Several retrievers' rankings as one, by ranks or by scores. Passages are the same when their ids are: parts are over one
//! corpus.
//!
//! By ranks: reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009). The paper's sum has no weights; with all of them
//! 1 it is the paper's. Which scores the parts gave plays no role.
//! ```text
//! score(passage) = sum over the parts that found it of  weight / (k + rank)         rank from 1, k = 60
//! ```
//! By scores: a convex combination of scores between the lowest that a part can give and the highest that it gave (Bruch, Gai
//! and Ingber, arXiv 2210.11934, TM2C2).
//! ```text
//! score(passage) = sum over the parts of  weight / (sum of weights) * (score - lowest) / (highest - lowest)
//! ```
//! The paper scores every passage by every part. Here a passage that a part did not give counts as its last one where the part
//! gave as many as it was asked for (it cannot be better), else as `lowest`.
use exsearch_schema::{Hit, Passage, PassageId, RetrieveError, Retriever};
use std::collections::HashMap;

/// The constant of the paper.
pub const RRF_K: f64 = 60.0;

/// How rankings become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fusion {
    /// Reciprocal ranks, with this `k`, which is not negative.
    Ranks(f64),
    /// Normalized scores.
    Scores,
}

/// A retriever whose ranking is fused with others.
pub struct HybridPart {
    /// What errors call it.
    pub name: String,
    /// How much its ranking counts: above 0, 1 for the paper's formula.
    pub weight: f64,
    /// How many passages it is asked for, at least; never fewer than are asked of the whole.
    pub depth: usize,
    /// The lowest score that it can give (0 of BM25, -1 of a cosine); `None`: the lowest that it gave. For [`Fusion::Scores`].
    pub lowest: Option<f32>,
    /// It.
    pub retriever: Box<dyn Retriever>,
}

/// Fuses the rankings of its parts. A query that one part fails on fails, so that no one takes half a result for a whole.
pub struct Hybrid {
    parts: Vec<HybridPart>,
    fusion: Fusion,
}

impl Hybrid {
    /// A fusion of `parts`. Panics without parts, at weights that are not above 0 and at a negative `k`: a config is checked
    /// where it is read.
    pub fn new(parts: Vec<HybridPart>, fusion: Fusion) -> Self {
        assert!(!parts.is_empty(), "a hybrid has parts");
        assert!(parts.iter().all(|part| part.weight > 0.0 && part.weight.is_finite()), "weights are above 0");
        assert!(!matches!(fusion, Fusion::Ranks(k) if k.is_nan() || k < 0.0), "k is not negative");
        Self { parts, fusion }
    }

    fn search_parts(&self, queries: &[&str], top_k: usize) -> Vec<PartAnswers> {
        let ask = |part: &HybridPart| part.retriever.search_batch(queries, part.depth.max(top_k));
        // Remote parts wait for the network while local ones compute.
        std::thread::scope(|scope| {
            let (first, others) = self.parts.split_first().expect("a hybrid has parts");
            let others: Vec<_> = others.iter().map(|part| scope.spawn(move || ask(part))).collect();
            let mut answers = vec![ask(first)];
            for other in others {
                answers.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            answers
        })
    }

    /// One query's rankings, one a part.
    fn fuse(&self, rankings: Vec<Result<Vec<Hit>, RetrieveError>>, top_k: usize) -> Result<Vec<Hit>, RetrieveError> {
        let total_weight: f64 = self.parts.iter().map(|part| part.weight).sum();
        let mut fused: HashMap<PassageId, Fused> = HashMap::new();
        // What a passage has of the parts that did not give it.
        let mut of_missing = vec![0.0; self.parts.len()];
        for (part_idx, (part, ranking)) in self.parts.iter().zip(rankings).enumerate() {
            let ranking = ranking.map_err(|error| match error {
                RetrieveError::EmptyQuery => RetrieveError::EmptyQuery,
                RetrieveError::Failed(reason) => RetrieveError::Failed(format!("{}: {reason}", part.name)),
            })?;
            let scale = Scale::of(&ranking, part.lowest);
            let weight = part.weight / total_weight;
            if let (Fusion::Scores, Some(last)) = (self.fusion, ranking.last())
                && ranking.len() >= part.depth.max(top_k)
            {
                of_missing[part_idx] = weight * scale.normalized(last.score);
            }
            for (rank, hit) in (1u32..).zip(ranking) {
                let score = match self.fusion {
                    Fusion::Ranks(k) => part.weight / (k + f64::from(rank)),
                    Fusion::Scores => weight * scale.normalized(hit.score),
                };
                let entry = fused.entry(hit.id.clone()).or_insert_with(|| Fused {
                    hit,
                    score: 0.0,
                    ranks: vec![u32::MAX; self.parts.len()],
                });
                // A part that names a passage twice is taken at its better rank.
                if entry.ranks[part_idx] == u32::MAX {
                    entry.ranks[part_idx] = rank;
                    entry.score += score;
                }
            }
        }
        for entry in fused.values_mut() {
            let missing = entry.ranks.iter().zip(&of_missing).filter(|(rank, _)| **rank == u32::MAX);
            entry.score += missing.map(|(_, score)| score).sum::<f64>();
        }
        let mut fused: Vec<Fused> = fused.into_values().collect();
        fused.sort_by(|left, right| right.score.total_cmp(&left.score).then_with(|| left.ranks.cmp(&right.ranks)));
        fused.truncate(top_k);
        Ok(fused.into_iter().map(|fused| Hit { score: fused.score as f32, ..fused.hit }).collect())
    }
}

/// Where a part's scores lie.
struct Scale {
    lowest: f64,
    highest: f64,
}

impl Scale {
    fn of(ranking: &[Hit], lowest: Option<f32>) -> Self {
        let scores = || ranking.iter().map(|hit| f64::from(hit.score));
        let lowest = lowest.map_or_else(|| scores().fold(f64::INFINITY, f64::min), f64::from);
        Self { lowest, highest: scores().fold(f64::NEG_INFINITY, f64::max) }
    }

    /// Between 0 and 1; 1 where all scores are equal.
    fn normalized(&self, score: f32) -> f64 {
        let range = self.highest - self.lowest;
        if range > 0.0 { ((f64::from(score) - self.lowest) / range).clamp(0.0, 1.0) } else { 1.0 }
    }
}

type PartAnswers = Vec<Result<Vec<Hit>, RetrieveError>>;

/// A passage that some part found. Ties break by the rank in the first part, then in the second, and so on: two passages
/// never have the same rank in the same part.
struct Fused {
    hit: Hit,
    score: f64,
    ranks: Vec<u32>,
}

impl Retriever for Hybrid {
    /// Scores are sums of reciprocal ranks, or of normalized scores. Parts are asked at the same time.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let mut answers: Vec<_> = self.search_parts(queries, top_k).into_iter().map(Vec::into_iter).collect();
        let next = |part: &mut std::vec::IntoIter<_>| part.next().expect("one result a query");
        queries.iter().map(|_| self.fuse(answers.iter_mut().map(next).collect(), top_k)).collect()
    }

    /// From the first part that has it.
    fn passage(&self, id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        for part in &self.parts {
            if let Some(passage) = part.retriever.passage(id)? {
                return Ok(Some(passage));
            }
        }
        Ok(None)
    }
}
