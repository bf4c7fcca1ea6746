//! Building a dense index, resuming it, and searching it against a naive scan.
use crate::common::{WordEncoder, corpus, ids, passage};
use exsearch_retriever::dense::{AnnOptions, DenseConfig, DenseIndex, Manifest, Precision, build};
use exsearch_retriever::{Built, Error, Progress, SourceId, Target};
use exsearch_schema::{Encoder, Passage, RetrieveError, Retriever, TextRole, VectorKind};
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const N_PASSAGES: u64 = 333;
const COMMIT_EVERY: u64 = 64;

fn encoder() -> WordEncoder {
    WordEncoder::new(VectorKind::Single)
}

fn source(fingerprint: &str) -> SourceId {
    SourceId { path: "corpus.tsv".to_owned(), n_bytes: 1, fingerprint: fingerprint.to_owned() }
}

fn config() -> DenseConfig {
    DenseConfig { batch: 32, commit_every: COMMIT_EVERY, ..DenseConfig::default() }
}

fn build_in(dir: &Path, passages: Vec<Passage>) -> Result<Built<Manifest>, Error> {
    build_with(dir, passages, &encoder(), &source("a"), &config(), |_| {})
}

fn build_with(
    dir: &Path,
    passages: Vec<Passage>,
    encoder: &dyn Encoder,
    source: &SourceId,
    config: &DenseConfig,
    progress: impl FnMut(Progress),
) -> Result<Built<Manifest>, Error> {
    let passages = passages.into_iter().map(Ok::<_, std::convert::Infallible>);
    build(passages, source, (encoder, "models/toy"), &Target { dir, replace: false }, config, progress)
}

/// A build whose corpus fails behind `n_read` passages.
fn build_until(dir: &Path, n_read: u64) -> Error {
    let passages = corpus(n_read).into_iter().map(Ok).chain([Err("the disk went away")]);
    let target = Target { dir, replace: false };
    build(passages, &source("a"), (&encoder(), "models/toy"), &target, &config(), |_| {}).expect_err("it fails")
}

fn open(dir: &Path) -> DenseIndex {
    DenseIndex::open(dir, Arc::new(encoder())).expect("a complete index opens")
}

/// The bytes of everything but progress, and the manifest: equal for equal indexes.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let manifest = DenseIndex::read_manifest(dir).expect("complete");
    let read = |name: &str| std::fs::read(dir.join(&manifest.data).join(name)).expect("it is there");
    manifest.files.iter().map(|file| (file.name.clone(), read(&file.name))).collect()
}

#[test]
fn search_finds_what_a_naive_scan_finds_in_batches_and_alone() {
    for precision in [Precision::F32, Precision::F16] {
        let dir = tempfile::tempdir().expect("a folder");
        let passages = corpus(N_PASSAGES);
        let config = DenseConfig { precision, ..config() };
        build_with(dir.path(), passages.clone(), &encoder(), &source("a"), &config, |_| {}).expect("builds");
        let index = open(dir.path());
        assert_eq!(index.n_passages(), N_PASSAGES);
        index.verify().expect("all is well");
        let queries = ["word1", "word3 word9", "word12 word30 word30", "nothing of the kind"];
        let batch = index.search_batch(&queries, 10);
        for (query, hits) in queries.iter().zip(&batch) {
            let hits = hits.as_ref().expect("found");
            assert_eq!(*hits, index.search(query, 10).expect("found"), "a batch changes nothing");
            let vector = |text: &str| encoder().encode(&[text], TextRole::Query).expect("encodes").remove(0).values;
            let query = vector(query);
            let mut scores: Vec<f32> = passages
                .iter()
                .map(|passage| vector(&format!("{} | {}", passage.title, passage.text)))
                .map(|vector| vector.iter().zip(&query).map(|(a, b)| a * b).sum())
                .collect();
            scores.sort_by(|left, right| right.total_cmp(left));
            let tolerance = if precision == Precision::F32 { 1e-6 } else { 1e-3 };
            for (hit, expected) in hits.iter().zip(&scores) {
                assert!((hit.score - expected).abs() < tolerance, "{} {expected}", hit.score);
                assert_eq!(index.get(&hit.id).expect("reads").map(|passage| passage.text), Some(hit.text.clone()));
            }
            assert_eq!(hits.len(), 10);
        }
    }
}

#[test]
fn a_large_index_finds_nearly_what_a_scan_finds_with_the_same_scores() {
    let text = |i: u64| (1..7).map(|j| format!("word{}", i * i * j * 31 % 499)).collect::<Vec<_>>().join(" ");
    let passages: Vec<Passage> = (0..4_000).map(|i| passage(&format!("p{i}"), "", &text(i))).collect();
    let (exact, lists) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let build = |dir: &Path, exact_up_to: u64| {
        let config = DenseConfig { exact_up_to, ..config() };
        build_with(dir, passages.clone(), &encoder(), &source("a"), &config, |_| {}).expect("builds");
        open(dir)
    };
    let (exact, lists) = (build(exact.path(), 4_000), build(lists.path(), 3_999));
    assert!(!exact.manifest().has_lists && lists.manifest().has_lists);
    lists.verify().expect("all is well");
    let lists = lists.with_ann(AnnOptions { n_probe: 32, n_candidates: 800 });
    let queries: Vec<String> = (0..40).map(|i| format!("word{i} word{} word{}", i * 31 % 499, i * 62 % 499)).collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let (mut n_same, mut n_all) = (0, 0);
    for (exact, found) in exact.search_batch(&queries, 10).iter().zip(lists.search_batch(&queries, 10)) {
        let (exact, found) = (exact.as_ref().expect("found"), found.expect("found"));
        let worst = exact.last().expect("ten hits").score;
        // By score: passages with the same words tie.
        n_same += found.iter().filter(|hit| hit.score >= worst).count();
        n_all += exact.len();
        for hit in &found {
            assert!(exact.iter().filter(|other| other.id == hit.id).all(|other| other.score == hit.score));
        }
    }
    assert!(n_same * 100 >= n_all * 95, "{n_same} of {n_all}");
}

#[test]
fn ties_break_by_the_order_of_the_corpus() {
    let dir = tempfile::tempdir().expect("a folder");
    let twins = (0..70).map(|i| passage(&format!("p{i}"), "", if i % 2 == 0 { "river" } else { "lake" })).collect();
    build_in(dir.path(), twins).expect("builds");
    let hits = open(dir.path()).search("lake", 4).expect("found");
    assert_eq!(ids(&hits), ["p1", "p3", "p5", "p7"]);
    assert_eq!(open(dir.path()).search("lake", 1_000).expect("found").len(), 70);
    assert_eq!(open(dir.path()).search("lake", 0), Ok(Vec::new()));
}

#[test]
fn one_bad_query_fails_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), corpus(40)).expect("builds");
    let found = open(dir.path()).search_batch(&["word1", " ", "!", "word2"], 3);
    assert!(found[0].is_ok() && found[3].is_ok());
    assert_eq!(found[1], Err(RetrieveError::EmptyQuery));
    assert!(matches!(&found[2], Err(RetrieveError::Failed(reason)) if reason.contains("cannot encode")));
}

#[test]
fn an_index_of_nothing_finds_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), Vec::new()).expect("builds");
    assert_eq!(open(dir.path()).search("word1", 5), Ok(Vec::new()));
}

#[test]
fn an_interrupted_build_continues_behind_its_last_commit_and_gives_the_same_bytes() {
    let expected = tempfile::tempdir().expect("a folder");
    build_in(expected.path(), corpus(N_PASSAGES)).expect("builds");
    for n_read in [0, 1, COMMIT_EVERY - 1, COMMIT_EVERY, COMMIT_EVERY + 40, 3 * COMMIT_EVERY + 7] {
        let dir = tempfile::tempdir().expect("a folder");
        let error = build_until(dir.path(), n_read);
        assert!(matches!(error, Error::Source { number, .. } if number == n_read + 1), "{error}");
        let opened = DenseIndex::open(dir.path(), Arc::new(encoder()));
        assert!(matches!(opened.err(), Some(Error::Unfinished { .. })));
        let (mut resumed, encoder) = (0, encoder());
        let progress = |progress| {
            if let Progress::Resumed { n_passages } = progress {
                resumed = n_passages;
            }
        };
        build_with(dir.path(), corpus(N_PASSAGES), &encoder, &source("a"), &config(), progress).expect("continues");
        assert_eq!(resumed, n_read / COMMIT_EVERY * COMMIT_EVERY);
        assert_eq!(encoder.n_texts() as u64, N_PASSAGES - resumed, "nothing is encoded twice");
        assert!(content(dir.path()) == content(expected.path()), "interrupted at {n_read}");
    }
}

const CHILD_DIR: &str = "EXSEARCH_TEST_DENSE_DIR";
const CHILD_DIES_AT: &str = "EXSEARCH_TEST_DENSE_DIES_AT";

#[test]
#[ignore = "the child process of another test"]
fn child_builds() {
    let (Ok(dir), Ok(dies_at)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_DIES_AT)) else { return };
    let dies_at: u64 = dies_at.parse().expect("a number");
    let passages = corpus(N_PASSAGES).into_iter().zip(0..).map(|(passage, at)| {
        if at == dies_at {
            std::process::abort();
        }
        Ok::<_, std::convert::Infallible>(passage)
    });
    let target = Target { dir: Path::new(&dir), replace: false };
    let _ = build(passages, &source("a"), (&encoder(), "models/toy"), &target, &config(), |_| {});
}

#[test]
fn a_killed_build_continues() {
    let (dir, expected) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    build_in(expected.path(), corpus(N_PASSAGES)).expect("builds");
    for dies_at in [3, COMMIT_EVERY + 20, 2 * COMMIT_EVERY + 1, N_PASSAGES - 1] {
        let binary = std::env::current_exe().expect("the test's own path");
        let mut child = Command::new(binary);
        child.args(["--exact", "dense::child_builds", "--ignored"]);
        let died = child.env(CHILD_DIR, dir.path()).env(CHILD_DIES_AT, dies_at.to_string()).output().expect("runs");
        assert!(!died.status.success(), "killed at {dies_at}");
    }
    build_in(dir.path(), corpus(N_PASSAGES)).expect("continues");
    assert!(content(dir.path()) == content(expected.path()));
}

#[test]
fn duplicate_ids_are_named() {
    for second in [2, 31, 32, COMMIT_EVERY, COMMIT_EVERY + 9] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut passages = corpus(second);
        passages.push(passage("p1", "again", "again"));
        let error = build_in(dir.path(), passages).expect_err("p1 is there twice");
        let Error::DuplicateId { id, first: 2, second: at } = error else { panic!("{error}") };
        assert_eq!((id.as_str(), at), ("p1", second + 1));
        build_in(dir.path(), corpus(5)).expect("nothing is in the way");
    }
}

#[test]
fn another_corpus_under_the_same_fingerprint_is_noticed() {
    for passages in [corpus(N_PASSAGES).into_iter().rev().collect(), corpus(3)] {
        let dir = tempfile::tempdir().expect("a folder");
        build_until(dir.path(), 2 * COMMIT_EVERY);
        let error = build_in(dir.path(), passages).expect_err("not the same corpus");
        assert!(matches!(error, Error::SourceChanged { .. }), "{error}");
    }
}

#[test]
fn another_encoder_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), corpus(40)).expect("builds");
    let other = || WordEncoder { fingerprint: "toy:2".to_owned(), ..encoder() };
    let error = DenseIndex::open(dir.path(), Arc::new(other())).err().expect("another encoder");
    assert!(matches!(&error, Error::OtherEncoder { path, .. } if path == "models/toy"), "{error}");
    let error = build_with(dir.path(), corpus(40), &other(), &source("a"), &config(), |_| {}).expect_err("differs");
    assert!(matches!(error, Error::OtherIndex { .. }), "{error}");
    let per_token = WordEncoder::new(VectorKind::PerToken);
    let error = DenseIndex::open(dir.path(), Arc::new(per_token)).err().expect("of another kind");
    assert!(matches!(error, Error::InvalidConfig { .. }), "{error}");
    let again = build_in(dir.path(), Vec::new()).expect("nothing to do");
    assert!(matches!(again, Built::AlreadyComplete(manifest) if manifest.n_passages == 40));
}

#[test]
fn an_encoder_that_fails_names_the_passages() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut passages = corpus(100);
    passages[70].text = "!".to_owned();
    let error = build_in(dir.path(), passages).expect_err("passage 71 cannot be encoded");
    assert!(matches!(error, Error::Encode { first: 65, last: 96, .. }), "{error}");
}

#[test]
fn damage_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), corpus(100)).expect("builds");
    let data = dir.path().join(DenseIndex::read_manifest(dir.path()).expect("complete").data);
    let vectors = data.join("vectors");
    let mut bytes = std::fs::read(&vectors).expect("reads");
    bytes[1000] ^= 1;
    std::fs::write(&vectors, &bytes).expect("writes");
    assert!(matches!(open(dir.path()).verify(), Err(Error::Damaged { .. })));
    for name in ["vectors", "segment-0.passages", "segment-0.offsets", "segment-0.ids"] {
        let path = data.join(name);
        let whole = std::fs::read(&path).expect("reads");
        std::fs::write(&path, &whole[..whole.len() - 1]).expect("writes");
        let error = DenseIndex::open(dir.path(), Arc::new(encoder())).err().expect("cut short");
        assert!(matches!(error, Error::Damaged { .. }), "{name}: {error}");
        std::fs::remove_file(&path).expect("removes");
        let error = DenseIndex::open(dir.path(), Arc::new(encoder())).err().expect("missing");
        assert!(matches!(error, Error::Damaged { .. }), "{name}: {error}");
        std::fs::write(&path, &whole).expect("writes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a manifest says: an error, or an index that answers.
    #[test]
    fn garbage_manifests_are_errors(at in any::<prop::sample::Index>(), replacement in "[0-9a-z\":,{}\\[\\]-]{0,12}", n_cut in 0usize..40) {
        let dir = tempfile::tempdir().expect("a folder");
        build_in(dir.path(), corpus(40)).expect("builds");
        let path = dir.path().join("manifest.json");
        let manifest = std::fs::read(&path).expect("reads");
        let at = at.index(manifest.len());
        let garbage = [&manifest[..at], replacement.as_bytes(), &manifest[(at + n_cut).min(manifest.len())..]].concat();
        std::fs::write(&path, garbage).expect("writes");
        if let Ok(index) = DenseIndex::open(dir.path(), Arc::new(encoder())) {
            prop_assert!(index.search("word1", 3).is_ok_and(|hits| hits.len() == 3));
        }
    }
}
