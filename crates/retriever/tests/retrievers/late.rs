//! Building a late-interaction index, changing it, and searching it against exact MaxSim.
use crate::common::{DIM, WordEncoder, corpus, ids, passage};
use exsearch_index::SearchOptions;
use exsearch_retriever::late::{self, Built, LateConfig, LateRetriever, Step};
use exsearch_retriever::{Error, Progress, SourceId, Target};
use exsearch_schema::{Encoder, Passage, PassageId, Retriever, TextRole, VectorKind};
use proptest::prelude::*;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

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

/// All of a folder, by name.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(snapshot(&path)),
            false => files.push((path.clone(), std::fs::read(&path).expect("reads"))),
        }
    }
    files.sort();
    files
}

/// A folder in the state of a snapshot.
fn restore(dir: &Path, files: &[(PathBuf, Vec<u8>)]) {
    for (path, _) in snapshot(dir) {
        std::fs::remove_file(path).expect("removed");
    }
    files.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).expect("written"));
}

fn holds_text(dir: &Path, text: &str) -> bool {
    snapshot(dir).iter().any(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// An index of two segments with deleted passages in both; returns their ids.
fn index_with_deleted(dir: &Path) -> Vec<PassageId> {
    build_in(dir, &corpus(N_PASSAGES)).expect("builds");
    append(dir, more(0, 60), "b").expect("appends");
    let deleted: Vec<PassageId> = ["p3", "p200", "new7", "new59"].map(PassageId::from).to_vec();
    assert_eq!(late::delete(dir, &deleted).expect("all are there"), 4);
    deleted
}

#[test]
fn a_compaction_drops_the_text_of_the_deleted_and_open_indexes_keep_theirs() {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), &corpus(N_PASSAGES)).expect("builds");
    append(dir.path(), more(0, 60), "b").expect("appends");
    let before = open(dir.path());
    assert!(holds_text(dir.path(), "fresh59"));
    late::delete(dir.path(), &["p3".into(), "new59".into()]).expect("both are there");
    let deleted = open(dir.path());
    assert!(late::compact(dir.path(), &config()).expect("compacts"));
    assert!(!holds_text(dir.path(), "fresh59"), "the text is gone");
    assert!(holds_text(dir.path(), "fresh58"));
    assert_eq!(before.search("fresh59", 1).expect("found")[0].id.0, "new59", "an open index stays as it is");
    assert!(deleted.is_outdated(dir.path()).expect("reads"));
    let after = open(dir.path());
    after.verify().expect("all is well");
    assert_eq!(after.n_passages(), N_PASSAGES + 58);
    let info = after.manifest().passages.iter().map(|segment| (segment.n_passages, segment.n_dropped));
    assert_eq!(info.collect::<Vec<_>>(), [(N_PASSAGES as u32, 1), (60, 1)], "numbers stay");
    assert_eq!(after.search("word3 word9", 20), deleted.search("word3 word9", 20));
    assert_eq!(after.get(&"new58".into()).expect("reads"), deleted.get(&"new58".into()).expect("reads"));
    assert!(!late::compact(dir.path(), &config()).expect("looks"), "nothing is left to do");
    // New segments do not take the names of those that went.
    append(dir.path(), vec![passage("new59", "", "fresh59 again")], "c").expect("its id is free");
    let last = open(dir.path());
    last.verify().expect("all is well");
    assert_eq!(last.search("fresh59", 1).expect("found")[0].text, "fresh59 again");
    late::delete(dir.path(), &["new59".into()]).expect("it is there");
    assert!(late::compact(dir.path(), &config()).expect("compacts"));
    assert!(!holds_text(dir.path(), "fresh59"));
}

/// Every state in which a kill can leave the folder: the vectors swapped or not, some of the copies there, whole or torn, the
/// manifest replaced or not, some of the old files removed.
#[test]
fn a_killed_compaction_loses_nothing_and_is_finished_by_the_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let deleted = index_with_deleted(dir.path());
    let old = snapshot(dir.path());
    let expected = open(dir.path()).search("word3 word9", 50).expect("found");
    assert!(late::compact(dir.path(), &config()).expect("compacts"));
    let new = snapshot(dir.path());
    let is_vectors = |path: &Path| path.parent().is_some_and(|parent| parent.ends_with("index"));
    let named = |files: &[(PathBuf, Vec<u8>)], path: &Path| files.iter().any(|(other, _)| other == path);
    let with_vectors = |passages: &[(PathBuf, Vec<u8>)]| -> Vec<(PathBuf, Vec<u8>)> {
        let passages = passages.iter().filter(|(path, _)| !is_vectors(path));
        passages.chain(new.iter().filter(|(path, _)| is_vectors(path))).cloned().collect()
    };
    let copies: Vec<_> = new.iter().filter(|(path, _)| !is_vectors(path) && !named(&old, path)).cloned().collect();
    let gone: Vec<_> = old.iter().filter(|(path, _)| !is_vectors(path) && !named(&new, path)).cloned().collect();
    assert_eq!((copies.len(), gone.len()), (6, 6), "two segments of three files");
    let mut states = vec![("before the vectors", old.clone()), ("behind the vectors", with_vectors(&old))];
    for n_copied in 1..=copies.len() {
        for torn in [false, true] {
            let mut state = with_vectors(&old);
            state.extend_from_slice(&copies[..n_copied]);
            if torn {
                let bytes = &mut state.last_mut().expect("a copy").1;
                bytes.truncate(bytes.len() / 2);
            }
            states.push(("before the manifest", state));
        }
    }
    for n_left in 0..=gone.len() {
        let mut state = new.clone();
        state.extend_from_slice(&gone[..n_left]);
        states.push(("behind the manifest", state));
    }
    for (name, state) in states {
        restore(dir.path(), &state);
        let killed = open(dir.path());
        killed.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(killed.search("word3 word9", 50).expect("found"), expected, "{name}");
        late::compact(dir.path(), &config()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(killed.search("word3 word9", 50).expect("found"), expected, "{name}, open since");
        let finished = open(dir.path());
        finished.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(finished.search("word3 word9", 50).expect("found"), expected, "{name}, finished");
        assert!(!holds_text(dir.path(), "fresh59"), "{name}");
        assert!(deleted.iter().all(|id| finished.get(id).expect("reads").is_none()), "{name}");
        assert!(content(dir.path()).iter().filter(|(name, _)| name.starts_with("segment-")).count() == 6, "{name}");
    }
}

#[test]
fn text_that_is_gone_without_a_deletion_is_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    index_with_deleted(dir.path());
    let before = snapshot(dir.path());
    let is_vectors = |path: &Path| path.parent().is_some_and(|parent| parent.ends_with("index"));
    late::delete(dir.path(), &["p9".into()]).expect("it is there");
    late::compact(dir.path(), &config()).expect("compacts");
    // Text without p9, vectors with it.
    let mut mixed: Vec<_> = snapshot(dir.path()).into_iter().filter(|(path, _)| !is_vectors(path)).collect();
    mixed.extend(before.into_iter().filter(|(path, _)| is_vectors(path)));
    restore(dir.path(), &mixed);
    assert!(matches!(open(dir.path()).verify(), Err(Error::Damaged { .. })));
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

/// A small index with two segments, text that was dropped and text that is deleted; paths within its folder.
static SMALL: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    build_in(dir.path(), &corpus(60)).expect("builds");
    append(dir.path(), more(0, 20), "b").expect("appends");
    late::delete(dir.path(), &["p3".into(), "new7".into()]).expect("both are there");
    late::compact(dir.path(), &config()).expect("compacts");
    late::delete(dir.path(), &["p5".into()]).expect("it is there");
    let within = |path: PathBuf| path.strip_prefix(dir.path()).expect("inside").to_owned();
    snapshot(dir.path()).into_iter().map(|(path, bytes)| (within(path), bytes)).collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever becomes of a file: an error, or an index that answers; and where `verify` finds nothing, as before.
    #[test]
    fn a_changed_file_is_an_error_or_changes_nothing(
        file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        replacement in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            "[0-9a-z\":,{}\\[\\]/.-]{0,12}".prop_map(String::into_bytes),
        ],
        n_cut in 0usize..40,
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &Path, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, bytes).expect("written");
        };
        SMALL.iter().for_each(|(name, bytes)| write(name, bytes));
        let expected = open(dir.path()).search("word3 word9", 50).expect("found");
        let (name, whole) = &SMALL[file.index(SMALL.len())];
        let at = at.index(whole.len() + 1);
        write(name, &[&whole[..at], &replacement, &whole[(at + n_cut).min(whole.len())..]].concat());
        if let Ok(index) = LateRetriever::open(dir.path(), Arc::new(encoder()), SearchOptions::exhaustive(10)) {
            let found = index.search("word3 word9", 50);
            let _ = index.get(&"new8".into());
            if index.verify().is_ok() {
                prop_assert_eq!(found, Ok(expected), "{:?}", name);
            }
        }
        let _ = late::delete(dir.path(), &["p9".into()]);
        let _ = late::compact(dir.path(), &config());
        let _ = append(dir.path(), more(30, 33), "c");
    }
}
