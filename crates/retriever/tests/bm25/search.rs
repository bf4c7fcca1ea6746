//! Searching: scores against a naive BM25, order, queries of all kinds, look-ups by id.
use crate::common::{build_in, passage};
use exsearch_retriever::bm25::{Analysis, Bm25Config, Bm25Index, MAX_QUERY_TERMS, Target, build};
use exsearch_schema::{Passage, PassageId, RetrieveError, Retriever};
use proptest::prelude::*;
use std::collections::HashSet;
use std::convert::Infallible;

fn open(passages: Vec<Passage>) -> (tempfile::TempDir, Bm25Index) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    build_in(dir.path(), passages).expect("the corpus is fine");
    let index = Bm25Index::open(dir.path()).expect("the index is complete");
    (dir, index)
}

/// The ids of the hits.
fn check(index: &Bm25Index, query: &str, expected: &[&str]) {
    let hits = index.search(query, 10).unwrap_or_else(|error| panic!("{query:?}: {error}"));
    let ids: Vec<&str> = hits.iter().map(|hit| hit.id.0.as_str()).collect();
    assert_eq!(ids, expected, "{query:?}");
}

/// The formula at the top of `bm25`, in tantivy's order of operations, over all passages.
fn naive(passages: &[Passage], query: &str, top_k: usize) -> Vec<(String, f32)> {
    const K1: f32 = 1.2;
    const B: f32 = 0.75;
    let words = |passage: &Passage| -> Vec<String> {
        let all = format!("{} {} {}", passage.title, passage.title, passage.text);
        all.split_whitespace().map(str::to_owned).collect()
    };
    let passages: Vec<(String, Vec<String>)> = passages.iter().map(|p| (p.id.0.clone(), words(p))).collect();
    let n_words: usize = passages.iter().map(|(_, words)| words.len()).sum();
    let average = n_words as f32 / passages.len() as f32;
    let mut seen = HashSet::new();
    let query: Vec<&str> = query.split_whitespace().filter(|word| seen.insert(*word)).collect();
    let mut scored: Vec<(String, f32)> = Vec::new();
    for (id, words) in &passages {
        let mut score = 0.0;
        for term in &query {
            let n = passages.iter().filter(|(_, words)| words.iter().any(|word| word == term)).count() as f32;
            let tf = words.iter().filter(|word| word == term).count() as f32;
            let idf = (1.0 + (passages.len() as f32 - n + 0.5) / (n + 0.5)).ln();
            if tf > 0.0 {
                score += idf * (1.0 + K1) * (tf / (tf + K1 * (1.0 - B + B * words.len() as f32 / average)));
            }
        }
        if query.iter().any(|term| words.iter().any(|word| word == term)) {
            scored.push((id.clone(), score));
        }
    }
    // A stable sort: ties stay in the order of the corpus.
    scored.sort_by(|left, right| right.1.total_cmp(&left.1));
    scored.truncate(top_k);
    scored
}

fn words(n: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    // Rising rarity, as in language; no stop words, and nothing that folding or lower-casing changes.
    let word = prop_oneof![
        40 => Just("alpha"), 20 => Just("beta"), 10 => Just("gamma"), 5 => Just("delta"), 2 => Just("epsilon"), 1 => Just("zeta")
    ];
    proptest::collection::vec(word, n).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Passages have at most 2 * 3 + 33 = 39 words, and lengths up to 40 are stored exactly: results are equal bit for bit,
    /// whatever the segments (commits after every 20..500 passages, 1 or 2 threads).
    #[test]
    fn ranks_like_a_naive_bm25(
        texts in proptest::collection::vec((words(0..4), words(0..34)), 1..400),
        queries in proptest::collection::vec(words(1..6), 1..6),
        top_k in 1_usize..30,
        commit_every in 20_u64..500,
        n_threads in 1_usize..3,
    ) {
        let passages: Vec<Passage> = texts.iter().enumerate()
            .map(|(i, (title, text))| passage(&i.to_string(), title, text)).collect();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = Bm25Config { analysis: Analysis { stemming: false }, n_threads, memory_mb: 30, commit_every };
        let target = Target { dir: dir.path(), replace: false };
        build(passages.iter().cloned().map(Ok::<_, Infallible>), &crate::common::source("a"), &target, &config, |_| {})
            .expect("the corpus is fine");
        let index = Bm25Index::open(dir.path()).expect("the index is complete");
        for query in &queries {
            let hits = index.search(query, top_k).expect("the query has words");
            let found: Vec<(String, f32)> = hits.into_iter().map(|hit| (hit.id.0, hit.score)).collect();
            prop_assert_eq!(found, naive(&passages, query, top_k), "{}", query);
        }
    }
}

#[test]
fn ties_break_by_the_order_of_the_corpus() {
    let passages: Vec<Passage> = (0..500).map(|i| passage(&format!("z{}", 999 - i), "same", "words")).collect();
    let first: Vec<String> = passages.iter().take(7).map(|passage| passage.id.0.clone()).collect();
    let (_dir, index) = open(passages);
    for query in ["same", "same words"] {
        let hits = index.search(query, 7).expect("the query has words");
        assert_eq!(hits.into_iter().map(|hit| hit.id.0).collect::<Vec<_>>(), first, "{query}");
    }
}

#[test]
fn a_batch_returns_what_single_searches_return() {
    let (_dir, index) = open(crate::common::corpus(300));
    let queries = ["river", "", "king of the lake", "unknownword", "song song song", "battle"];
    let batch = index.search_batch(&queries, 5);
    let single: Vec<_> = queries.iter().map(|query| index.search(query, 5)).collect();
    assert_eq!(batch, single);
    assert!(index.search_batch(&[], 5).is_empty());
}

#[test]
fn queries_are_plain_text() {
    let (_dir, index) = open(vec![
        passage("att", "AT&T", "A stock traded in New York under the sign T."),
        passage("cpp", "C++", "A language named after C."),
        passage("who", "The Who", "A band. The band was loud."),
        passage("bjork", "Björk Guðmundsdóttir", "Icelandic singer, lived in Reykjavík."),
        passage("zh", "北京", "城市"),
    ]);
    check(&index, "AT&T stock #1", &["att"]);
    check(&index, "\"unbalanced (stock AND -traded OR +york) title:x^2 ~ * ? \\", &["att"]);
    check(&index, "bjork living", &["bjork"]);
    check(&index, "BJÖRK", &["bjork"]);
    check(&index, "北京", &["zh"]);
    check(&index, "unknownword", &[]);
    check(&index, &"loud ".repeat(2_000), &["who"]);
    check(&index, &format!("loud {}", "x".repeat(10_000)), &["who"]);
    check(&index, &format!("{}stock", "🦀\0\n\t ".repeat(1_000)), &["att"]);
}

#[test]
fn a_query_of_stop_words_searches_for_them() {
    let (_dir, index) = open(vec![passage("who", "The Who", "band"), passage("lake", "Lake", "water")]);
    check(&index, "who is the who?", &["who"]);
    check(&index, "who is the lake?", &["lake"]);
}

#[test]
fn a_query_without_words_is_an_error_of_its_own() {
    let (_dir, index) = open(vec![passage("1", "t", "x")]);
    for query in ["", " \n", "?!", "\"\"", "+-*", "🦀"] {
        assert_eq!(index.search(query, 5), Err(RetrieveError::EmptyQuery), "{query:?}");
    }
}

#[test]
fn top_k_is_bounded_by_what_there_is() {
    let (_dir, index) = open(vec![passage("1", "t", "lake"), passage("2", "t", "lake lake")]);
    assert_eq!(index.search("lake", 0), Ok(Vec::new()));
    assert_eq!(index.search("lake", usize::MAX).expect("words").len(), 2);
}

#[test]
fn words_past_the_limit_are_not_searched() {
    let (_dir, index) = open(vec![passage("last", "t", "lastword"), passage("first", "t", "word0")]);
    let words: Vec<String> = (0..MAX_QUERY_TERMS).map(|i| format!("word{i}")).collect();
    check(&index, &format!("{} lastword", words.join(" ")), &["first"]);
    check(&index, &format!("{} lastword", words[1..].join(" ")), &["last"]);
}

#[test]
fn passages_are_found_by_id_as_they_were() {
    let odd = passage("id with spaces, \"quotes\" and ünïcode", "", "line\nbreak\ttab");
    let mut passages = crate::common::corpus(300);
    passages.push(odd.clone());
    let (_dir, index) = open(passages.clone());
    assert_eq!(index.n_passages(), 301);
    assert_eq!(index.get(&odd.id).expect("reads"), Some(odd.clone()));
    assert_eq!(index.get(&PassageId::from("P1")).expect("reads"), None);
    let ids = [PassageId::from("p299"), PassageId::from("none"), PassageId::from("p0"), PassageId::from("p299")];
    let found = index.get_many(&ids).expect("reads");
    let expected = [Some(&passages[299]), None, Some(&passages[0]), Some(&passages[299])];
    assert_eq!(found, expected.map(Option::<&Passage>::cloned));
}

#[test]
fn an_empty_corpus_is_an_index_without_hits() {
    let (_dir, index) = open(Vec::new());
    assert_eq!(index.n_passages(), 0);
    assert_eq!(index.search("lake", 5), Ok(Vec::new()));
}

#[test]
fn passages_without_words_do_no_harm() {
    let (_dir, index) = open(vec![passage("1", "", ""), passage("2", "!", "?"), passage("3", "lake", "")]);
    check(&index, "lake", &["3"]);
}

/// tantivy stores the best passage of a block by the average length of its segment. Where that is far from the corpus's, its
/// pruning by itself loses the best passage: (tf 1, len 10) beats (tf 2, len 30) at the corpus's average of 5, not at 40.
#[test]
fn segments_of_other_lengths_than_the_corpus_lose_nothing() {
    let text = |n_words: usize, tf: usize| format!("{}{}", "lake ".repeat(tf), "filler ".repeat(n_words - tf));
    let mut texts = vec![text(12, 1); 10];
    texts.extend(vec![text(30, 2); 2 * 128 - 11]);
    texts.push(text(10, 1)); // the best, alone in the second block of 128
    texts.extend(vec![format!("pond {}", text(102, 0)); 44]);
    let n_first_segment = texts.len();
    texts.extend(vec![text(3, 0); 5_250]);
    let passages: Vec<Passage> = texts.iter().enumerate().map(|(i, text)| passage(&i.to_string(), "", text)).collect();

    let dir = tempfile::tempdir().expect("a temporary folder");
    let target = Target { dir: dir.path(), replace: false };
    let mut config = Bm25Config { n_threads: 1, commit_every: n_first_segment as u64, ..crate::common::config() };
    let first = passages[..n_first_segment].iter().cloned().map(Ok).chain([Err("interrupted")]);
    build(first, &crate::common::source("a"), &target, &config, |_| {}).expect_err("interrupted");
    config.commit_every = 1_000_000;
    let all = passages.iter().cloned().map(Ok::<_, Infallible>);
    build(all, &crate::common::source("a"), &target, &config, |_| {}).expect("the corpus is fine");

    let index = Bm25Index::open(dir.path()).expect("the index is complete");
    // Two words, since tantivy does not prune for one.
    check(&index, "lake pond", &["255", "0", "1", "2", "3", "4", "5", "6", "7", "8"]);
}
