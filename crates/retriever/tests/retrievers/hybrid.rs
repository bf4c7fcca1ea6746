//! Fusion by reciprocal rank and by scores.
use crate::common::{ScriptedRetriever, ids};
use exsearch_retriever::{Fusion, Hybrid, HybridPart, RRF_K};
use exsearch_schema::{RetrieveError, Retriever};
use proptest::prelude::*;
use std::collections::HashMap;

fn part(name: &str, weight: f64, depth: usize, retriever: ScriptedRetriever) -> HybridPart {
    HybridPart { name: name.to_owned(), weight, depth, lowest: None, retriever: Box::new(retriever) }
}

fn scripted(hits: &[&str]) -> ScriptedRetriever {
    ScriptedRetriever::new(&[("q", Ok(hits))])
}

#[test]
fn ranks_are_fused_by_the_formula_of_the_paper() {
    let parts =
        vec![part("words", 1.0, 3, scripted(&["a", "b", "c"])), part("vectors", 1.0, 3, scripted(&["c", "d", "a"]))];
    let hits = Hybrid::new(parts, Fusion::Ranks(RRF_K)).search("q", 10).expect("both answer");
    // a: 1/61 + 1/63 = c: 1/63 + 1/61, a is first in the first part; b and d: 1/62 each, b is in the first part.
    assert_eq!(ids(&hits), ["a", "c", "b", "d"]);
    let expected = [1.0 / 61.0 + 1.0 / 63.0, 1.0 / 61.0 + 1.0 / 63.0, 1.0 / 62.0, 1.0 / 62.0];
    for (hit, expected) in hits.iter().zip(expected) {
        assert!((f64::from(hit.score) - expected).abs() < 1e-8);
        assert_eq!(hit.text, format!("text of {}", hit.id));
    }
}

#[test]
fn weights_and_depths_count() {
    let parts = || vec![part("words", 1.0, 1, scripted(&["a", "b"])), part("vectors", 3.0, 2, scripted(&["b", "a"]))];
    // a: 1/61 + 3/62; b: 3/61, and another 1/62 if the first part gave more than its depth.
    assert_eq!(ids(&Hybrid::new(parts(), Fusion::Ranks(RRF_K)).search("q", 1).expect("found")), ["a"]);
    // The first part is asked for as many as the whole, though its depth is 1.
    let hits = Hybrid::new(parts(), Fusion::Ranks(0.0)).search("q", 2).expect("found");
    assert_eq!((ids(&hits), hits[1].score), (vec!["b", "a"], 1.0 + 3.0 / 2.0));
}

#[test]
fn a_query_that_one_part_fails_on_fails_and_others_do_not() {
    let failing = ScriptedRetriever::new(&[
        ("q", Err(RetrieveError::Failed("it is down".to_owned()))),
        ("empty", Err(RetrieveError::EmptyQuery)),
        ("fine", Ok(&["z"])),
    ]);
    let hybrid = Hybrid::new(
        vec![part("words", 1.0, 5, scripted(&["a"])), part("vectors", 1.0, 5, failing)],
        Fusion::Ranks(RRF_K),
    );
    let found = hybrid.search_batch(&["q", "fine", "empty"], 5);
    assert_eq!(found[0], Err(RetrieveError::Failed("vectors: it is down".to_owned())));
    assert_eq!(found[1].as_ref().map(|hits| ids(hits)), Ok(vec!["z"]));
    assert_eq!(found[2], Err(RetrieveError::EmptyQuery));
}

#[test]
fn scores_are_fused_between_the_lowest_and_the_highest_of_a_part() {
    let parts = || {
        let words = HybridPart { lowest: Some(0.0), ..part("words", 1.0, 3, scripted(&["a", "b", "c"])) };
        vec![words, part("vectors", 3.0, 3, scripted(&["c", "d"]))]
    };
    let hits = Hybrid::new(parts(), Fusion::Scores).search("q", 2).expect("both answer");
    assert_eq!(ids(&hits), ["c", "a"]);
    let hits = Hybrid::new(parts(), Fusion::Scores).search("q", 3).expect("both answer");
    // Scripted scores are 1, 1/2, 1/3. Of words 0 is the lowest, so that they stay; d counts there as c, the last of a full
    // list. Of vectors 1/2 becomes 0, and its list is not full: a and b have 0.
    let expected = [("c", 0.25 / 3.0 + 0.75), ("a", 0.25), ("b", 0.125)];
    assert_eq!(ids(&hits), expected.map(|(id, _)| id));
    for (hit, (id, score)) in hits.iter().zip(expected) {
        assert!((f64::from(hit.score) - score).abs() < 1e-7, "{id}: {}", hit.score);
    }
    let missing = || HybridPart { lowest: Some(0.0), ..part("words", 1.0, 3, scripted(&["a", "b", "c"])) };
    let hits = Hybrid::new(vec![missing(), part("vectors", 1.0, 3, scripted(&["d", "e"]))], Fusion::Scores);
    let hits = hits.search("q", 3).expect("both answer");
    assert_eq!(ids(&hits), ["d", "a", "b"]);
    assert!((f64::from(hits[0].score) - (0.5 / 3.0 + 0.5)).abs() < 1e-7);
    // Equal scores, and none: no division by 0.
    let alone =
        Hybrid::new(vec![part("one", 2.0, 3, scripted(&["a"])), part("none", 1.0, 3, scripted(&[]))], Fusion::Scores);
    let hits = alone.search("q", 3).expect("both answer");
    assert_eq!((ids(&hits), hits[0].score), (vec!["a"], (2.0f64 / 3.0) as f32));
}

proptest! {
    #[test]
    fn fusion_agrees_with_a_naive_sum(
        rankings in prop::collection::vec(Just((0..12).map(|id| format!("p{id}")).collect::<Vec<_>>()).prop_shuffle(), 1..4),
        lengths in prop::collection::vec(0usize..12, 3),
        top_k in 0usize..15,
    ) {
        let rankings: Vec<Vec<&str>> = rankings.iter().zip(&lengths).map(|(ranking, n)| ranking[..*n].iter().map(String::as_str).collect()).collect();
        let parts = rankings.iter().map(|ranking| part("part", 1.0, 20, scripted(ranking))).collect();
        let hits = Hybrid::new(parts, Fusion::Ranks(RRF_K)).search("q", top_k).expect("all answer");
        let mut sums: HashMap<&str, f64> = HashMap::new();
        for ranking in &rankings {
            for (at, id) in ranking.iter().enumerate() {
                *sums.entry(id).or_default() += 1.0 / (61.0 + at as f64);
            }
        }
        prop_assert_eq!(hits.len(), top_k.min(sums.len()));
        prop_assert!(hits.is_sorted_by(|left, right| left.score >= right.score));
        for hit in &hits {
            prop_assert!((f64::from(hit.score) - sums[hit.id.0.as_str()]).abs() < 1e-7);
        }
        let worst = hits.last().map_or(f64::MAX, |hit| f64::from(hit.score));
        let n_better = sums.values().filter(|sum| **sum > worst + 1e-7).count();
        prop_assert!(hits.is_empty() || n_better < top_k);
    }
}
