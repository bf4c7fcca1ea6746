//! The cache over any retriever.
use crate::common::{ScriptedRetriever, hit};
use exsearch_retriever::{CacheLimits, Cached};
use exsearch_schema::{Hit, RetrieveError, Retriever};
use std::sync::Arc;

/// So that a test can look at the retriever behind the cache.
struct Shared(Arc<ScriptedRetriever>);

impl Retriever for Shared {
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        self.0.search_batch(queries, top_k)
    }
}

fn cached(limits: CacheLimits) -> (Cached, Arc<ScriptedRetriever>) {
    let failed = Err(RetrieveError::Failed("down".to_owned()));
    let behind = Arc::new(ScriptedRetriever::new(&[("a", Ok(&["1", "2"])), ("b", Ok(&["3"])), ("bad", failed)]));
    (Cached::new(Box::new(Shared(behind.clone())), limits), behind)
}

fn asked(retriever: &ScriptedRetriever) -> Vec<String> {
    retriever.asked().into_iter().map(|(query, top_k)| format!("{query} {top_k}")).collect()
}

#[test]
fn a_query_is_asked_once() {
    let (cache, behind) = cached(CacheLimits::default());
    let expected = vec![hit("1", 1.0), hit("2", 0.5)];
    let found = cache.search_batch(&["a", "b", "a"], 2);
    assert_eq!(found, [Ok(expected.clone()), Ok(vec![hit("3", 1.0)]), Ok(expected.clone())]);
    assert_eq!(cache.search("a", 2), Ok(expected));
    assert_eq!(cache.search("a", 1).map(|hits| hits.len()), Ok(1));
    assert_eq!(asked(&behind), ["a 2", "b 2", "a 1"]);
    let stats = cache.stats();
    assert_eq!((stats.n_hits, stats.n_misses, stats.n_entries), (1, 3, 3));
}

#[test]
fn errors_are_not_kept() {
    let (cache, behind) = cached(CacheLimits::default());
    assert!(cache.search("bad", 1).is_err() && cache.search("bad", 1).is_err());
    assert_eq!(asked(&behind), ["bad 1", "bad 1"]);
}

#[test]
fn the_one_longest_unused_goes_first() {
    let (cache, behind) = cached(CacheLimits { max_entries: 2, max_mb: 1 });
    for query in ["a", "b", "a", "c", "a", "b"] {
        cache.search(query, 1).expect("found");
    }
    assert_eq!(asked(&behind), ["a 1", "b 1", "c 1", "b 1"]);
    assert_eq!(cache.stats().n_entries, 2);
}

#[test]
fn bytes_are_bounded() {
    let (cache, _) = cached(CacheLimits { max_entries: usize::MAX, max_mb: 1 });
    for i in 0..30 {
        cache.search(&format!("{i} {}", "long ".repeat(20_000)), 1).expect("found");
        assert!(cache.stats().n_bytes <= 1_000_000);
    }
    // 100 kB a query: nine of them, with their heads, fit in 1 MB.
    assert_eq!(cache.stats().n_entries, 9);
    let (cache, _) = cached(CacheLimits { max_entries: 5, max_mb: 0 });
    cache.search("a", 1).expect("found");
    assert_eq!(cache.stats().n_bytes, 0);
}

#[test]
fn threads_share_it() {
    let (cache, behind) = cached(CacheLimits::default());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..100).for_each(|_| assert!(cache.search("a", 2).is_ok_and(|hits| hits.len() == 2))));
        }
    });
    let stats = cache.stats();
    assert_eq!(stats.n_hits + stats.n_misses, 800);
    assert_eq!(stats.n_misses as usize, asked(&behind).len());
}
