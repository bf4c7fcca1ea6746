//! Building a late-interaction index, changing it, and searching it against exact MaxSim.
use crate::common::{DIM, WordEncoder, corpus, ids, passage};
use exsearch_index::SearchOptions;
use exsearch_retriever::late::{self, Built, LateConfig, LateRetriever, Step};
use exsearch_retriever::{Error, Progress, SourceId, Target};
use exsearch_schema::{Encoder, Passage, PassageId, Retriever, TextRole, VectorKind};
use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const N_PASSAGES: u64 = 333;
const COMMIT_EVERY: u64 = 50;

fn encoder() -> WordEncoder {
    WordEncoder::new(VectorKind::PerToken)
}

fn source(fingerprint: &str) -> SourceId {
    SourceId { path: "corpus.tsv".to_owned(), n_bytes: 1, fingerprint: fingerprint.to_owned() }
}

fn config() -> LateConfig {
    LateConfig { bits: 4, batch: 25, commit_every: COMMIT_EVERY, memory_mb: 16, ..LateConfig::default() }
}

fn rows(passages: Vec<Passage>) -> impl Iterator<Item = Result<Passage, Infallible>> {
    passages.into_iter().map(Ok)
}

fn build_in(dir: &Path, passages: &[Passage]) -> Result<Built, Error> {
    build_with(dir, passages, &encoder(), "a", |_| {})
}

fn build_with(
    dir: &Path,
    passages: &[Passage],
    encoder: &dyn Encoder,
    fingerprint: &str,
    progress: impl FnMut(Step),
) -> Result<Built, Error> {
    let corpus = || Ok::<_, Infallible>(rows(passages.to_vec()));
    let target = Target { dir, replace: false };
    late::build(corpus, &source(fingerprint), (encoder, "models/toy"), &target, &config(), progress)
}

fn append(dir: &Path, passages: Vec<Passage>, fingerprint: &str) -> Result<Built, Error> {
    late::append(dir, rows(passages), &source(fingerprint), &encoder(), &config(), |_| {})
}

/// Searches everything, so that what is found does not depend on how candidates are chosen.
fn open(dir: &Path) -> LateRetriever {
    LateRetriever::open(dir, Arc::new(encoder()), SearchOptions::exhaustive(10)).expect("a complete index opens")
}

/// Of every file of the data folder but progress.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let data = dir.join(LateRetriever::read_manifest(dir).expect("complete").data);
    let mut files = Vec::new();
    for folder in [data.clone(), data.join("index")] {
        for entry in std::fs::read_dir(folder).expect("lists") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&data).expect("inside").display().to_string();
            if path.is_file() && name != "progress.json" {
                files.push((name, std::fs::read(&path).expect("reads")));
            }
        }
    }
    files.sort();
    files
}

/// Ids of passages `from..to` of a corpus that shares no id with [`corpus`].
fn more(from: u64, to: u64) -> Vec<Passage> {
    (from..to).map(|i| passage(&format!("new{i}"), "", &format!("word{} fresh{i}", i % 40))).collect()
}

fn exact(query: &str, passage: &Passage) -> f32 {
    let vectors = |text: &str| encoder().encode(&[text], TextRole::Query).expect("encodes").remove(0).values;
    let (query, passage) = (vectors(query), vectors(&format!("{} | {}", passage.title, passage.text)));
    let dot = |left: &[f32], right: &[f32]| left.iter().zip(right).map(|(a, b)| a * b).sum::<f32>();
    let best = |token: &[f32]| passage.chunks(DIM).map(|other| dot(token, other)).fold(f32::NEG_INFINITY, f32::max);
    query.chunks(DIM).map(best).sum()
}

#[test]
fn search_agrees_with_exact_max_sim_in_batches_and_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let passages = corpus(N_PASSAGES);
    build_in(dir.path(), &passages).expect("builds");
    let index = open(dir.path());
    index.verify().expect("all is well");
    assert_eq!(index.n_passages(), N_PASSAGES);
    let queries = ["word1", "word3 word9", "word12 word30 word31"];
    let batch = index.search_batch(&queries, 10);
    for (query, hits) in queries.iter().zip(&batch) {
        let hits = hits.as_ref().expect("found");
        assert_eq!(*hits, index.search(query, 10).expect("found"), "a batch changes nothing");
        let mut scores: Vec<f32> = passages.iter().map(|passage| exact(query, passage)).collect();
        scores.sort_by(|left, right| right.total_cmp(left));
        for (hit, expected) in hits.iter().zip(&scores) {
            // Four bits a dimension.
            assert!((hit.score - expected).abs() < 0.1 * expected, "{} {expected}", hit.score);
            assert_eq!(index.get(&hit.id).expect("reads").map(|passage| passage.text), Some(hit.text.clone()));
        }
    }
    assert!(index.search_batch(&["word1", "!"], 3)[1].is_err());
}

#[test]
fn an_interrupted_build_continues_and_gives_the_same_bytes() {
    let (expected, passages) = (tempfile::tempdir().expect("a folder"), corpus(N_PASSAGES));
    build_in(expected.path(), &passages).expect("builds");
    for n_read in [0, 1, COMMIT_EVERY, COMMIT_EVERY + 40, 3 * COMMIT_EVERY + 7] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut n_calls = 0;
        // The sample is drawn from all of the corpus, the second reading fails.
        let corpus = || {
            n_calls += 1;
            let end = if n_calls == 1 { N_PASSAGES } else { n_read };
            let failing = (n_calls > 1).then_some(Err("the disk went away"));
            Ok::<_, &str>(passages.clone().into_iter().take(end as usize).map(Ok).chain(failing))
        };
        let target = Target { dir: dir.path(), replace: false };
        let error = late::build(corpus, &source("a"), (&encoder(), "models/toy"), &target, &config(), |_| {});
        assert!(matches!(error, Err(Error::Source { number, .. }) if number == n_read + 1));
        let opened = LateRetriever::open(dir.path(), Arc::new(encoder()), SearchOptions::default());
        assert!(matches!(opened.err(), Some(Error::Unfinished { .. })));
        let (mut resumed, encoder) = (0, encoder());
        let progress = |step| match step {
            Step::Adding(Progress::Resumed { n_passages }) => resumed = n_passages,
            Step::Sampling { .. } | Step::Training => panic!("the codec is there"),
            Step::Adding(_) => {}
        };
        build_with(dir.path(), &passages, &encoder, "a", progress).expect("continues");
        assert_eq!(resumed, n_read / COMMIT_EVERY * COMMIT_EVERY);
        assert_eq!(encoder.n_texts() as u64, N_PASSAGES - resumed, "nothing is encoded twice");
        assert!(content(dir.path()) == content(expected.path()), "interrupted at {n_read}");
    }
}

const CHILD_DIR: &str = "EXSEARCH_TEST_LATE_DIR";
const CHILD_DIES_AT: &str = "EXSEARCH_TEST_LATE_DIES_AT";

#[test]
#[ignore = "the child process of another test"]
fn child_builds() {
    let (Ok(dir), Ok(dies_at)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_DIES_AT)) else { return };
    let dies_at: usize = dies_at.parse().expect("a number");
    // Counts steps, so that it dies while it samples, trains, adds and finishes.
    let mut n_steps = 0;
    let progress = |_| {
        n_steps += 1;
        if n_steps == dies_at {
            std::process::abort();
        }
    };
    build_with(Path::new(&dir), &corpus(N_PASSAGES), &encoder(), "a", progress).expect("builds");
}

#[test]
fn a_killed_build_continues() {
    let (dir, expected) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let passages = corpus(N_PASSAGES);
    let mut n_steps = 0;
    build_with(expected.path(), &passages, &encoder(), "a", |_| n_steps += 1).expect("builds");
    let mut n_killed = 0;
    for dies_at in [1, n_steps / 2, 4, 6, 8, 9] {
        let binary = std::env::current_exe().expect("the test's own path");
        let mut child = Command::new(binary);
        child.args(["--exact", "late::child_builds", "--ignored"]);
        let ended = child.env(CHILD_DIR, dir.path()).env(CHILD_DIES_AT, dies_at.to_string()).output().expect("runs");
        n_killed += u32::from(!ended.status.success());
    }
    assert!(n_killed >= 3, "{n_killed} of {n_steps} steps");
    build_in(dir.path(), &passages).expect("continues");
    assert!(content(dir.path()) == content(expected.path()));
}

#[test]
fn appended_passages_are_found_and_deleted_ones_are_not() {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), &corpus(N_PASSAGES)).expect("builds");
    let before = open(dir.path());
    assert!(!before.is_outdated(dir.path()).expect("reads"));
    append(dir.path(), more(0, 60), "b").expect("appends");
    assert!(before.is_outdated(dir.path()).expect("reads"));
    assert!(before.get(&"new7".into()).expect("reads").is_none(), "an open index stays as it is");
    let after = open(dir.path());
    assert_eq!((after.n_passages(), after.info().segments.len()), (N_PASSAGES + 60, 2));
    assert_eq!(after.search("fresh7", 1).expect("found")[0].id.0, "new7");
    let first = after.search("word3 word9", 3).expect("found");
    late::delete(dir.path(), &[first[0].id.clone(), PassageId::from("new7")]).expect("both are there");
    let after = open(dir.path());
    assert_eq!(after.n_passages(), N_PASSAGES + 58);
    assert!(!ids(&after.search("word3 word9", 100).expect("found")).contains(&first[0].id.0.as_str()));
    assert!(after.get(&"new7".into()).expect("reads").is_none());
    assert!(late::compact(dir.path(), &config()).expect("compacts"));
    let compacted = open(dir.path());
    compacted.verify().expect("all is well");
    assert_eq!(compacted.search("word3 word9", 20), after.search("word3 word9", 20));
    // Its id is free again.
    append(dir.path(), vec![passage("new7", "", "fresh7 again")], "c").expect("appends");
    assert_eq!(open(dir.path()).search("fresh7", 1).expect("found")[0].text, "fresh7 again");
}

#[test]
fn ids_in_use_and_unknown_ids_change_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), &corpus(N_PASSAGES)).expect("builds");
    let before = content(dir.path());
    let mut passages = more(0, 120);
    passages.push(passage("p17", "", "word1"));
    let error = append(dir.path(), passages, "b").expect_err("p17 is there");
    assert!(matches!(&error, Error::IdInUse { id, number: 121, .. } if id == "p17"), "{error}");
    let error = late::delete(dir.path(), &["p1".into(), "p1000".into()]).expect_err("p1000 is not there");
    assert!(matches!(&error, Error::UnknownId { id, .. } if id == "p1000"), "{error}");
    assert_eq!(open(dir.path()).n_passages(), N_PASSAGES);
    let index =
        |content: Vec<(String, Vec<u8>)>| content.into_iter().filter(|(name, _)| name.starts_with("index")).collect();
    let (before, after): (Vec<_>, Vec<_>) = (index(before), index(content(dir.path())));
    assert!(before == after);
    append(dir.path(), more(0, 5), "b").expect("nothing is in the way");
}

#[test]
fn an_interrupted_append_continues_with_its_corpus_only() {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), &corpus(N_PASSAGES)).expect("builds");
    let failing = || more(0, 130).into_iter().map(Ok).chain([Err("the disk went away")]);
    let fails = || late::append(dir.path(), failing(), &source("b"), &encoder(), &config(), |_| {});
    assert!(matches!(fails(), Err(Error::Source { number: 131, .. })));
    assert_eq!(open(dir.path()).n_passages(), N_PASSAGES, "nothing of it is seen");
    assert!(matches!(append(dir.path(), more(500, 510), "c"), Err(Error::OtherIndex { .. })));
    let encoder = encoder();
    let mut resumed = 0;
    let progress = |progress| {
        if let Progress::Resumed { n_passages } = progress {
            resumed = n_passages;
        }
    };
    late::append(dir.path(), rows(more(0, 200)), &source("b"), &encoder, &config(), progress).expect("continues");
    assert_eq!((resumed, encoder.n_texts()), (100, 100));
    assert_eq!(open(dir.path()).n_passages(), N_PASSAGES + 200);
    assert!(matches!(append(dir.path(), Vec::new(), "b"), Ok(Built::AlreadyComplete(_))));
    let fails = || late::append(dir.path(), failing(), &source("d"), &encoder, &config(), |_| {});
    assert!(fails().is_err(), "new0 is in use");
    assert!(!late::abandon(dir.path(), &config()).expect("nothing is left of it"));
}

#[test]
fn duplicates_other_encoders_and_other_corpora_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut passages = corpus(80);
    passages.push(passage("p1", "again", "again"));
    let error = build_in(dir.path(), &passages).expect_err("p1 is there twice");
    assert!(matches!(error, Error::DuplicateId { first: 2, second: 81, .. }), "{error}");
    passages.pop();
    build_in(dir.path(), &passages).expect("nothing is in the way");
    let again = build_in(dir.path(), &[]).expect("nothing to do");
    assert!(matches!(again, Built::AlreadyComplete(manifest) if manifest.n_added() == 80));
    let other = || WordEncoder { fingerprint: "toy:2".to_owned(), ..encoder() };
    let opened = LateRetriever::open(dir.path(), Arc::new(other()), SearchOptions::default());
    assert!(matches!(opened.err(), Some(Error::OtherEncoder { .. })));
    let appended = late::append(dir.path(), rows(more(0, 3)), &source("b"), &other(), &config(), |_| {});
    assert!(matches!(appended, Err(Error::OtherEncoder { .. })));
    assert!(matches!(build_with(dir.path(), &passages, &encoder(), "z", |_| {}), Err(Error::OtherIndex { .. })));
    let single = WordEncoder::new(VectorKind::Single);
    assert!(matches!(build_with(dir.path(), &passages, &single, "a", |_| {}), Err(Error::InvalidConfig { .. })));
}
