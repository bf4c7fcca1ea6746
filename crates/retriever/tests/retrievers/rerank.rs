//! Reranking by late interaction and by a cross-encoder.
use crate::common::{ScriptedRetriever, WordEncoder, ids};
use exsearch_retriever::{CacheLimits, Error, Rerank};
use exsearch_schema::{CrossEncoder, EncodeError, RetrieveError, Retriever, VectorKind};
use std::sync::Arc;

/// Texts are "title of X | text of X", so the words of an id are those of its passage.
fn candidates() -> Box<ScriptedRetriever> {
    let hits: &[&str] = &["red apple", "green apple", "blue pear", "green pear"];
    Box::new(ScriptedRetriever::new(&[
        ("green pear", Ok(hits)),
        ("apple", Ok(hits)),
        ("down", Err(RetrieveError::Failed("it is down".to_owned()))),
    ]))
}

fn limits(max_entries: usize) -> CacheLimits {
    CacheLimits { max_entries, max_mb: 10 }
}

#[test]
fn passages_with_the_words_of_the_query_come_first() {
    let encoder = Arc::new(WordEncoder::new(VectorKind::PerToken));
    let rerank = Rerank::late(candidates(), 4, encoder.clone(), limits(100)).expect("of the right kind");
    let hits = rerank.search("green pear", 2).expect("found");
    assert_eq!(hits[0].id.0, "green pear");
    // Both words of the query are words of the passage: a sum of two products of a vector with itself.
    assert!((hits[0].score - 2.0).abs() < 1e-5, "{}", hits[0].score);
    assert_eq!(hits.len(), 2);
    // Equal scores keep the order of the candidates.
    assert_eq!(ids(&rerank.search("apple", 2).expect("found")), ["red apple", "green apple"]);
    let n_texts = encoder.n_texts();
    assert_eq!(n_texts, 2 + 4, "passages are encoded once");
    assert_eq!((rerank.stats().n_hits, rerank.stats().n_misses), (4, 4));
}

#[test]
fn batches_answer_as_queries_alone_and_errors_stay_with_their_query() {
    let encoder = || Arc::new(WordEncoder::new(VectorKind::PerToken));
    let rerank = Rerank::late(candidates(), 4, encoder(), limits(2)).expect("of the right kind");
    let queries = ["green pear", "down", "apple", " ", "unknown"];
    let batch = rerank.search_batch(&queries, 3);
    assert_eq!(batch[1], Err(RetrieveError::Failed("it is down".to_owned())));
    assert_eq!(batch[3], Err(RetrieveError::EmptyQuery));
    assert_eq!(batch[4], Ok(Vec::new()));
    for (query, answer) in queries.iter().zip(&batch) {
        let uncached = Rerank::late(candidates(), 4, encoder(), limits(0)).expect("of the right kind");
        assert_eq!(uncached.search(query, 3), *answer);
    }
    assert!(rerank.stats().n_entries <= 2);
}

#[test]
fn an_encoder_of_one_vector_a_text_is_refused() {
    let encoder = Arc::new(WordEncoder::new(VectorKind::Single));
    let refused = Rerank::late(candidates(), 4, encoder, limits(1)).err().expect("refused");
    assert!(matches!(refused, Error::InvalidConfig { .. }), "{refused}");
}

/// Scores by the length of the passage; fails at the word "fail", and gives too few scores at "few".
struct ByLength;

impl CrossEncoder for ByLength {
    fn score(&self, query: &str, passages: &[&str]) -> Result<Vec<f32>, EncodeError> {
        let n_scores = if query == "few" { 1 } else { passages.len() };
        match query {
            "fail" => Err(EncodeError("no memory".to_owned())),
            _ => Ok(passages.iter().take(n_scores).map(|passage| passage.len() as f32).collect()),
        }
    }
}

#[test]
fn a_cross_encoder_decides_the_order_and_its_faults_are_told() {
    let hits: &[&str] = &["a", "ccc", "bb"];
    let answers = ["q", "fail", "few"].map(|query| (query, Ok(hits)));
    let rerank = Rerank::cross(Box::new(ScriptedRetriever::new(&answers)), 3, Arc::new(ByLength));
    let found = rerank.search_batch(&["q", "fail", "few"], 2);
    assert_eq!(found[0].as_ref().map(|hits| ids(hits)), Ok(vec!["ccc", "bb"]));
    assert!(matches!(&found[1], Err(RetrieveError::Failed(reason)) if reason.contains("no memory")));
    assert!(matches!(&found[2], Err(RetrieveError::Failed(reason)) if reason.contains("1 scores for 3")));
}
