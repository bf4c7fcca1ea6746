//! Another retriever's candidates in a better order: each is scored against the query by a model that reads both.
use crate::Error;
use crate::cache::{BoundedCache, CacheLimits, CacheStats};
use crate::encode::{check_kind, encode, encode_queries, passage_text};
use exsearch_kernels::{Panels, max_sim};
use exsearch_schema::{
    CrossEncoder, Embedding, EncodeError, Encoder, Hit, Passage, PassageId, RetrieveError, Retriever, TextRole,
    VectorKind,
};
use rayon::prelude::*;
use std::sync::Arc;

/// The first `depth` hits of a retriever, in the order of a better score.
pub struct Rerank {
    candidates: Box<dyn Retriever>,
    depth: usize,
    scorer: Scorer,
}

enum Scorer {
    MaxSim { encoder: Arc<dyn Encoder>, passages: BoundedCache<String, Arc<Embedding>> },
    Cross(Arc<dyn CrossEncoder>),
}

/// One query's answer or candidates.
type Answer = Result<Vec<Hit>, RetrieveError>;

/// Passages that are encoded in one call: bounds the memory for vectors of many queries' candidates.
const ENCODE_BATCH: usize = 256;

impl Rerank {
    /// Scores by late interaction, MaxSim over the encoder's vectors of tokens (ColBERT, arXiv 2004.12832, equation 3).
    /// Passages are encoded when they are first seen; `cache` bounds the vectors that are kept (200 tokens of dimension 128
    /// are 0.1 MB).
    pub fn late(
        candidates: Box<dyn Retriever>,
        depth: usize,
        encoder: Arc<dyn Encoder>,
        cache: CacheLimits,
    ) -> Result<Self, Error> {
        check_kind(&*encoder, VectorKind::PerToken)?;
        let scorer = Scorer::MaxSim { encoder, passages: BoundedCache::new(cache) };
        Ok(Self { candidates, depth, scorer })
    }

    /// Scores by a cross-encoder.
    pub fn cross(candidates: Box<dyn Retriever>, depth: usize, encoder: Arc<dyn CrossEncoder>) -> Self {
        Self { candidates, depth, scorer: Scorer::Cross(encoder) }
    }

    /// What the cache of passages' vectors did so far; a cross-encoder has none.
    pub fn stats(&self) -> CacheStats {
        match &self.scorer {
            Scorer::MaxSim { passages, .. } => passages.stats(),
            Scorer::Cross(_) => CacheStats::default(),
        }
    }

    fn by_max_sim(
        &self,
        encoder: &dyn Encoder,
        cache: &BoundedCache<String, Arc<Embedding>>,
        queries: &[&str],
        found: Vec<Answer>,
    ) -> Vec<Answer> {
        let found = encode_queries(encoder, queries).into_iter().zip(found);
        let score = |(query, hits): (Result<Embedding, RetrieveError>, Answer)| {
            let (query, mut hits) = (query?, hits?);
            let passages = embed(encoder, cache, &hits).map_err(|error| RetrieveError::Failed(error.to_string()))?;
            let query = Panels::from_transposed(&query.values, query.n_vectors(), query.dim);
            let scores: Vec<f32> = passages.par_iter().map(|passage| max_sim(&query, &passage.values)).collect();
            set_scores(&mut hits, &scores);
            Ok(hits)
        };
        found.map(score).collect()
    }

    fn by_cross_encoder(&self, encoder: &dyn CrossEncoder, queries: &[&str], found: Vec<Answer>) -> Vec<Answer> {
        let score = |(query, hits): (&&str, Answer)| {
            let mut hits = hits?;
            let texts: Vec<String> = hits.iter().map(|hit| passage_text(&hit.title, &hit.text)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let scores = if texts.is_empty() { Ok(Vec::new()) } else { encoder.score(query, &texts) };
            let scores = scores.map_err(|error| RetrieveError::Failed(error.to_string()))?;
            if scores.len() != hits.len() || scores.iter().any(|score| score.is_nan()) {
                let reason = format!("the cross-encoder gave {} scores for {} passages", scores.len(), hits.len());
                return Err(RetrieveError::Failed(reason));
            }
            set_scores(&mut hits, &scores);
            Ok(hits)
        };
        queries.iter().zip(found).map(score).collect()
    }
}

impl Retriever for Rerank {
    /// Scores are the model's. Passages past the first `depth` of the candidates are not seen, unless more are asked for.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let found = self.candidates.search_batch(queries, self.depth.max(top_k));
        let mut answers = match &self.scorer {
            Scorer::MaxSim { encoder, passages } => self.by_max_sim(&**encoder, passages, queries, found),
            Scorer::Cross(encoder) => self.by_cross_encoder(&**encoder, queries, found),
        };
        for hits in answers.iter_mut().flatten() {
            // Stable: equal scores keep the order of the candidates.
            hits.sort_by(|left, right| right.score.total_cmp(&left.score));
            hits.truncate(top_k);
        }
        answers
    }

    fn passage(&self, id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        self.candidates.passage(id)
    }
}

fn set_scores(hits: &mut [Hit], scores: &[f32]) {
    hits.iter_mut().zip(scores).for_each(|(hit, score)| hit.score = *score);
}

/// The vectors of the hits, from the cache or made now.
fn embed(
    encoder: &dyn Encoder,
    cache: &BoundedCache<String, Arc<Embedding>>,
    hits: &[Hit],
) -> Result<Vec<Arc<Embedding>>, EncodeError> {
    let texts: Vec<String> = hits.iter().map(|hit| passage_text(&hit.title, &hit.text)).collect();
    let mut embeddings: Vec<Option<Arc<Embedding>>> = texts.iter().map(|text| cache.get(text)).collect();
    let is_missing = |at: &usize| embeddings[*at].is_none();
    let missing: Vec<usize> = (0..texts.len()).filter(is_missing).collect();
    for batch in missing.chunks(ENCODE_BATCH) {
        let batch_texts: Vec<&str> = batch.iter().map(|at| texts[*at].as_str()).collect();
        for (at, embedding) in batch.iter().zip(encode(encoder, &batch_texts, TextRole::Passage)?) {
            let embedding = Arc::new(embedding);
            cache.put(texts[*at].clone(), embedding.clone(), texts[*at].len() + 4 * embedding.values.len());
            embeddings[*at] = Some(embedding);
        }
    }
    Ok(embeddings.into_iter().map(|embedding| embedding.expect("found or made")).collect())
}
