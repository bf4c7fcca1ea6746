//! What sampling costs: seconds of search, of its encoders, of contexts, sampled tokens and scores; and tokens.
use exsearch_engine::EngineStats;
use exsearch_schema::{Hit, Passage, PassageId, RetrieveError, Retriever};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seconds of work by kind, and tokens. What runs at the same time on several threads counts for each, so that they may sum to more than went by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Queries to vectors.
    pub encode: f64,
    /// Queries to hits, without `encode`.
    pub search: f64,
    /// Contexts through the model.
    pub prefill: f64,
    /// Sampled tokens through the model.
    pub decode: f64,
    /// Gold answers through the model.
    pub score: f64,
    /// Tokens that went through the model.
    pub n_tokens: u64,
    /// Context tokens that were taken from caches instead.
    pub n_reused: u64,
}

impl Work {
    /// Adds what an engine has done.
    pub(crate) fn add_engine(&mut self, stats: &EngineStats) {
        self.prefill += stats.prefill.as_secs_f64();
        self.decode += stats.decode.as_secs_f64();
        self.score += stats.score.as_secs_f64();
        self.n_tokens += stats.n_prefilled + stats.n_sampled;
        self.n_reused += stats.n_reused;
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.encode += other.encode;
        self.search += other.search;
        self.prefill += other.prefill;
        self.decode += other.decode;
        self.score += other.score;
        self.n_tokens += other.n_tokens;
        self.n_reused += other.n_reused;
    }
}

/// A retriever with a clock.
pub(crate) struct Clocked<'a> {
    retriever: &'a dyn Retriever,
    encode_secs_before: f64,
    nanos: AtomicU64,
}

impl<'a> Clocked<'a> {
    pub(crate) fn new(retriever: &'a dyn Retriever) -> Self {
        Self { retriever, encode_secs_before: retriever.encode_secs(), nanos: AtomicU64::new(0) }
    }

    /// What it has done since it was made.
    pub(crate) fn work(&self) -> Work {
        let encode = self.encode_secs() - self.encode_secs_before;
        let secs = self.nanos.load(Ordering::Relaxed) as f64 / 1e9;
        Work { encode, search: (secs - encode).max(0.0), ..Work::default() }
    }
}

impl Retriever for Clocked<'_> {
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let since = Instant::now();
        let hits = self.retriever.search_batch(queries, top_k);
        self.nanos.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        hits
    }

    fn passage(&self, id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        self.retriever.passage(id)
    }

    fn encode_secs(&self) -> f64 {
        self.retriever.encode_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of each search, which takes two milliseconds at least, counts as encoding.
    struct Slow(AtomicU64);

    impl Retriever for Slow {
        fn search_batch(&self, queries: &[&str], _: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
            let since = Instant::now();
            while since.elapsed().as_millis() < 2 {
                std::hint::spin_loop();
            }
            self.0.fetch_add(1, Ordering::Relaxed);
            queries.iter().map(|_| Ok(Vec::new())).collect()
        }

        fn encode_secs(&self) -> f64 {
            self.0.load(Ordering::Relaxed) as f64 / 1e3
        }
    }

    #[test]
    fn encoding_is_taken_out_of_search() {
        let slow = Slow(AtomicU64::new(7));
        let clocked = Clocked::new(&slow);
        assert_eq!(clocked.work(), Work::default());
        clocked.search("a", 1).expect("found");
        clocked.search("b", 1).expect("found");
        let work = clocked.work();
        assert!((work.encode - 0.002).abs() < 1e-9 && work.search > 0.0019, "{work:?}");
    }
}
