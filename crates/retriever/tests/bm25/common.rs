//! A corpus made of numbers, and the one place that calls `build`.
use exsearch_retriever::Error;
use exsearch_retriever::bm25::{Bm25Config, Bm25Index, Built, Progress, SourceId, Target, build};
use exsearch_schema::{Passage, PassageId, Retriever};
use std::path::Path;

/// Small commits, so that an index of hundreds of passages has several segments.
pub(crate) const COMMIT_EVERY: u64 = 50;

pub(crate) fn passage(id: &str, title: &str, text: &str) -> Passage {
    Passage { id: PassageId::from(id), title: title.to_owned(), text: text.to_owned() }
}

/// Passages whose words repeat with different periods, so that scores differ and some tie.
pub(crate) fn corpus(n_passages: u64) -> Vec<Passage> {
    let words = ["river", "lake", "mountain", "king", "battle", "song"];
    let text =
        |i: u64| -> Vec<&str> { (0..1 + i % 23).map(|j| words[((i * i + j * (i % 5 + 1)) % 6) as usize]).collect() };
    (0..n_passages).map(|i| passage(&format!("p{i}"), words[(i % 6) as usize], &text(i).join(" "))).collect()
}

pub(crate) fn source(fingerprint: &str) -> SourceId {
    SourceId { path: "corpus.tsv".to_owned(), n_bytes: 1, fingerprint: fingerprint.to_owned() }
}

pub(crate) fn config() -> Bm25Config {
    Bm25Config { memory_mb: 30, commit_every: COMMIT_EVERY, ..Bm25Config::default() }
}

pub(crate) fn build_in(dir: &Path, passages: Vec<Passage>) -> Result<Built, Error> {
    build_from(dir, passages, &source("a"), false, |_| {})
}

pub(crate) fn build_from(
    dir: &Path,
    passages: Vec<Passage>,
    source: &SourceId,
    replace: bool,
    progress: impl FnMut(Progress),
) -> Result<Built, Error> {
    let passages = passages.into_iter().map(Ok::<_, std::convert::Infallible>);
    build(passages, source, &Target { dir, replace }, &config(), progress)
}

/// Ids and scores of many queries: what two equal indexes agree on, bit for bit.
pub(crate) fn fingerprint(dir: &Path) -> Vec<Vec<(String, u32)>> {
    let index = Bm25Index::open(dir).expect("a complete index opens");
    let queries = ["river", "king battle", "song of the lake", "mountain river lake king battle song"];
    let hits = queries.iter().flat_map(|query| [1, 7, 100].map(|top_k| index.search(query, top_k)));
    hits.map(|hits| {
        let hits = hits.expect("the query has words");
        hits.into_iter().map(|hit| (hit.id.0, hit.score.to_bits())).collect()
    })
    .collect()
}
