//! Answers kept in memory: least recently used first out, bounded by number and by bytes.
use exsearch_schema::{Hit, Passage, PassageId, RetrieveError, Retriever};
use lru::LruCache;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much a cache keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheLimits {
    /// At most this many entries.
    pub max_entries: usize,
    /// At most this many MB (1,000,000 bytes), by an estimate that counts text, vectors and 100 bytes an entry.
    pub max_mb: usize,
}

/// What a cache did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups that found an entry.
    pub n_hits: u64,
    /// Look-ups that did not.
    pub n_misses: u64,
    /// Entries now.
    pub n_entries: usize,
    /// Their size.
    pub n_bytes: usize,
}

/// A retriever that remembers. Only answers are kept, no errors; the retriever behind must be one whose answers do not
/// change. Concurrent misses of one query each ask.
pub struct Cached {
    retriever: Box<dyn Retriever>,
    answers: BoundedCache<(String, usize), Vec<Hit>>,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { max_entries: 10_000, max_mb: 100 }
    }
}

impl Cached {
    /// Keeps answers of `retriever`.
    pub fn new(retriever: Box<dyn Retriever>, limits: CacheLimits) -> Self {
        Self { retriever, answers: BoundedCache::new(limits) }
    }

    /// What the cache did so far.
    pub fn stats(&self) -> CacheStats {
        self.answers.stats()
    }
}

impl Retriever for Cached {
    /// Equal queries of a batch are asked once.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let mut answers = HashMap::new();
        let mut missing: Vec<&str> = Vec::new();
        for query in queries {
            if answers.contains_key(query) || missing.contains(query) {
                continue;
            }
            match self.answers.get(&((*query).to_owned(), top_k)) {
                Some(hits) => _ = answers.insert(*query, Ok(hits)),
                None => missing.push(query),
            }
        }
        if !missing.is_empty() {
            for (query, answer) in missing.iter().zip(self.retriever.search_batch(&missing, top_k)) {
                if let Ok(hits) = &answer {
                    let text = |hit: &Hit| hit.id.0.len() + hit.title.len() + hit.text.len() + size_of::<Hit>();
                    let n_bytes = query.len() + hits.iter().map(text).sum::<usize>();
                    self.answers.put(((*query).to_owned(), top_k), hits.clone(), n_bytes);
                }
                answers.insert(*query, answer);
            }
        }
        queries.iter().map(|query| answers[query].clone()).collect()
    }

    fn passage(&self, id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        self.retriever.passage(id)
    }
}

/// What an entry costs beside its content: a node of the list, a slot of the table, the strings' heads.
const ENTRY_BYTES: usize = 100;

/// A least-recently-used cache that any number of threads may use.
pub(crate) struct BoundedCache<K, V> {
    limits: CacheLimits,
    content: Mutex<Content<K, V>>,
    n_hits: AtomicU64,
    n_misses: AtomicU64,
}

struct Content<K, V> {
    /// Each value with its size.
    entries: LruCache<K, (V, usize)>,
    n_bytes: usize,
}

impl<K: Hash + Eq, V: Clone> BoundedCache<K, V> {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        let content = Content { entries: LruCache::unbounded(), n_bytes: 0 };
        Self { limits, content: Mutex::new(content), n_hits: AtomicU64::new(0), n_misses: AtomicU64::new(0) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let found = self.lock().entries.get(key).map(|(value, _)| value.clone());
        let count = if found.is_some() { &self.n_hits } else { &self.n_misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps the value, of about `n_bytes`, and forgets those longest unused until the limits hold.
    pub(crate) fn put(&self, key: K, value: V, n_bytes: usize) {
        let n_bytes = n_bytes + ENTRY_BYTES;
        let max_bytes = self.limits.max_mb.saturating_mul(1_000_000);
        if n_bytes > max_bytes || self.limits.max_entries == 0 {
            return;
        }
        let mut content = self.lock();
        if let Some((_, before)) = content.entries.put(key, (value, n_bytes)) {
            content.n_bytes -= before;
        }
        content.n_bytes += n_bytes;
        while content.n_bytes > max_bytes || content.entries.len() > self.limits.max_entries {
            let (_, (_, freed)) = content.entries.pop_lru().expect("an entry of these bytes");
            content.n_bytes -= freed;
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let content = self.lock();
        CacheStats {
            n_hits: self.n_hits.load(Ordering::Relaxed),
            n_misses: self.n_misses.load(Ordering::Relaxed),
            n_entries: content.entries.len(),
            n_bytes: content.n_bytes,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Content<K, V>> {
        self.content.lock().expect("no thread panics while it holds the cache")
    }
}
