//! Building: atomic, resumable, and never over something else.
use crate::common::{COMMIT_EVERY, build_from, build_in, config, corpus, fingerprint, passage, source};
use exsearch_retriever::Error;
use exsearch_retriever::bm25::{Bm25Index, Built, FORMAT_VERSION, Progress, Target, build};
use exsearch_schema::Passage;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Enough for several commits, and not a multiple of them.
const N_PASSAGES: u64 = 333;

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn expected_fingerprint() -> Vec<Vec<(String, u32)>> {
    let dir = temporary();
    build_in(dir.path(), corpus(N_PASSAGES)).expect("the corpus is fine");
    fingerprint(dir.path())
}

/// A build whose corpus fails at passage `n_read`.
fn build_until(dir: &Path, n_read: u64) -> Result<Built, Error> {
    let passages = corpus(n_read).into_iter().map(Ok).chain([Err("the disk went away")]);
    build(passages, &source("a"), &Target { dir, replace: false }, &config(), |_| {})
}

#[test]
fn builds_agree_bit_for_bit() {
    assert_eq!(expected_fingerprint(), expected_fingerprint());
}

#[test]
fn a_finished_index_is_not_built_again() {
    let dir = temporary();
    let Built::Completed(manifest) = build_in(dir.path(), corpus(10)).expect("builds") else { panic!("not built") };
    assert_eq!(manifest.n_passages, 10);
    let moved = exsearch_retriever::bm25::SourceId { path: "moved.tsv".to_owned(), ..source("a") };
    let again = build_from(dir.path(), Vec::new(), &moved, false, |_| {}).expect("nothing to do");
    assert_eq!(again, Built::AlreadyComplete(manifest));
}

#[test]
fn an_interrupted_build_continues_behind_its_last_commit() {
    let expected = expected_fingerprint();
    for n_read in [0, 1, COMMIT_EVERY - 1, COMMIT_EVERY, COMMIT_EVERY + 1, 3 * COMMIT_EVERY + 7] {
        let dir = temporary();
        let error = build_until(dir.path(), n_read).expect_err("the corpus fails");
        assert!(matches!(error, Error::Source { number, .. } if number == n_read + 1), "{error}");
        assert!(matches!(Bm25Index::open(dir.path()), Err(Error::Unfinished { .. })));
        let mut resumed = 0;
        let progress = |progress| {
            if let Progress::Resumed { n_passages } = progress {
                resumed = n_passages;
            }
        };
        build_from(dir.path(), corpus(N_PASSAGES), &source("a"), false, progress).expect("continues");
        assert_eq!(resumed, n_read / COMMIT_EVERY * COMMIT_EVERY);
        assert_eq!(fingerprint(dir.path()), expected, "interrupted at {n_read}");
    }
}

/// Set for the child process of the two tests below: the folder to build in.
const CHILD_DIR: &str = "EXSEARCH_TEST_CHILD_DIR";
/// The child dies, as by kill -9, when it reads this passage.
const CHILD_DIES_AT: &str = "EXSEARCH_TEST_CHILD_DIES_AT";

#[test]
#[ignore = "the child process of other tests"]
fn child_builds() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let dies_at = std::env::var(CHILD_DIES_AT).ok().and_then(|at| at.parse::<u64>().ok());
    let passages = corpus(N_PASSAGES).into_iter().zip(0..).map(|(passage, at)| {
        if Some(at) == dies_at {
            std::process::abort();
        }
        Ok::<_, std::convert::Infallible>(passage)
    });
    let target = Target { dir: Path::new(&dir), replace: false };
    let error = build(passages, &source("a"), &target, &config(), |_| {}).expect_err("the disk is full");
    assert!(matches!(error, Error::Io { .. } | Error::DiskFull { .. }), "{error:?}");
}

fn child(shell_prefix: &str, dir: &Path) -> Command {
    let binary = std::env::current_exe().expect("the test's own path");
    let mut command = Command::new("sh");
    let run = format!("{shell_prefix} exec \"$0\" --exact build::child_builds --ignored");
    command.arg("-c").arg(run).arg(binary).env(CHILD_DIR, dir);
    command
}

#[test]
#[cfg(unix)]
fn a_killed_build_continues() {
    let expected = expected_fingerprint();
    let dir = temporary();
    for dies_at in [3, COMMIT_EVERY + 20, 2 * COMMIT_EVERY + 1, N_PASSAGES - 1] {
        let killed = child("", dir.path()).env(CHILD_DIES_AT, dies_at.to_string()).output().expect("sh runs");
        assert!(!killed.status.success());
        assert!(matches!(Bm25Index::open(dir.path()), Err(Error::Unfinished { .. })), "killed at {dies_at}");
    }
    build_in(dir.path(), corpus(N_PASSAGES)).expect("continues");
    assert_eq!(fingerprint(dir.path()), expected);
}

/// A limit on the size of files stands in for a full disk: writes fail in the middle of the build.
#[test]
#[cfg(unix)]
fn a_build_that_cannot_write_says_so_and_continues_later() {
    let dir = temporary();
    let failed = child("trap '' XFSZ; ulimit -f 4;", dir.path()).output().expect("sh runs");
    assert!(failed.status.success(), "{}", String::from_utf8_lossy(&failed.stdout));
    assert!(matches!(Bm25Index::open(dir.path()), Err(Error::Unfinished { .. })));
    build_in(dir.path(), corpus(N_PASSAGES)).expect("continues");
    assert_eq!(fingerprint(dir.path()), expected_fingerprint());
}

#[test]
fn duplicate_ids_are_named() {
    for second in [2, COMMIT_EVERY, COMMIT_EVERY + 9] {
        let dir = temporary();
        let mut passages = corpus(second);
        passages.push(passage("p1", "again", "again"));
        let error = build_in(dir.path(), passages).expect_err("p1 is there twice");
        let Error::DuplicateId { id, first: 2, second: at } = error else { panic!("{error}") };
        assert_eq!((id.as_str(), at), ("p1", second + 1));
        build_from(dir.path(), corpus(5), &source("repaired"), false, |_| {}).expect("nothing is in the way");
    }
}

#[test]
fn duplicate_ids_are_found_across_an_interruption() {
    let dir = temporary();
    build_until(dir.path(), 2 * COMMIT_EVERY).expect_err("the corpus fails");
    let mut passages = corpus(3 * COMMIT_EVERY);
    passages.push(passage("p7", "again", "again"));
    let error = build_in(dir.path(), passages).expect_err("p7 is there twice");
    assert!(matches!(error, Error::DuplicateId { first: 8, .. }), "{error}");
}

#[test]
fn another_corpus_under_the_same_fingerprint_is_noticed() {
    let changed: Vec<Passage> = corpus(N_PASSAGES).into_iter().rev().collect();
    for passages in [changed, corpus(3)] {
        let dir = temporary();
        build_until(dir.path(), 2 * COMMIT_EVERY).expect_err("the corpus fails");
        let error = build_in(dir.path(), passages).expect_err("not the same corpus");
        assert!(matches!(error, Error::SourceChanged { .. }), "{error}");
    }
}

#[test]
fn another_index_is_replaced_only_on_request_and_stays_usable_until_then() {
    let dir = temporary();
    build_in(dir.path(), corpus(10)).expect("builds");
    let error = build_from(dir.path(), corpus(20), &source("b"), false, |_| {}).expect_err("another source");
    assert!(matches!(error, Error::OtherIndex { .. }), "{error}");
    let mut was_open_while_building = false;
    let progress = |_| {
        let index = Bm25Index::open(dir.path()).expect("the old index is in use");
        was_open_while_building = index.n_passages() == 10;
    };
    let reader = Bm25Index::open(dir.path()).expect("complete");
    let before = exsearch_schema::Retriever::search(&reader, "river", 10);
    build_from(dir.path(), corpus(20), &source("b"), true, progress).expect("replaces");
    assert!(was_open_while_building);
    assert_eq!(Bm25Index::open(dir.path()).expect("complete").n_passages(), 20);
    #[cfg(unix)]
    assert_eq!(exsearch_schema::Retriever::search(&reader, "river", 10), before);
    let data = fs::read_dir(dir.path()).expect("lists").filter(|entry| entry.as_ref().is_ok_and(|e| e.path().is_dir()));
    assert_eq!(data.count(), 1, "the old data is gone");
}

#[test]
fn an_unfinished_index_of_another_source_is_in_the_way_until_replaced() {
    let dir = temporary();
    build_until(dir.path(), 10).expect_err("the corpus fails");
    let error = build_from(dir.path(), corpus(20), &source("b"), false, |_| {}).expect_err("another source");
    assert!(matches!(error, Error::OtherIndex { .. }), "{error}");
    build_from(dir.path(), corpus(20), &source("b"), true, |_| {}).expect("replaces");
}

#[test]
fn only_one_process_builds() {
    let dir = temporary();
    let mut was_refused = false;
    let progress = |_| was_refused = matches!(build_in(dir.path(), corpus(5)), Err(Error::Busy { .. }));
    build_from(dir.path(), corpus(5), &source("a"), false, progress).expect("builds");
    assert!(was_refused);
}

#[test]
fn folders_that_are_no_index_are_left_alone() {
    let dir = temporary();
    fs::write(dir.path().join("thesis.tex"), "years of work").expect("writes");
    let file = dir.path().join("thesis.tex");
    let not_an_index = |error: &Error| matches!(error, Error::NotAnIndex { .. });
    for path in [dir.path(), &file] {
        let error = build_from(path, corpus(5), &source("a"), true, |_| {}).expect_err("not ours");
        assert!(not_an_index(&error), "{error}");
        assert!(Bm25Index::open(path).is_err_and(|error| not_an_index(&error)));
    }
    assert!(Bm25Index::open(&dir.path().join("nowhere")).is_err_and(|error| not_an_index(&error)));
    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
}

/// An index after `damage`, which gets its folder and its data folder.
fn check_damaged(damage: impl Fn(&Path, &Path), is_expected: impl Fn(&Error) -> bool) {
    let dir = temporary();
    build_in(dir.path(), corpus(N_PASSAGES)).expect("builds");
    damage(dir.path(), &dir.path().join("data-0"));
    let error = Bm25Index::open(dir.path()).err().expect("does not open");
    assert!(is_expected(&error), "{error:?}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    assert!(build_in(dir.path(), corpus(N_PASSAGES)).is_err(), "not silently taken for complete");
    if !matches!(error, Error::NotAnIndex { .. }) {
        build_from(dir.path(), corpus(N_PASSAGES), &source("a"), true, |_| {}).expect("--force repairs");
        Bm25Index::open(dir.path()).expect("complete");
    }
}

fn edit_manifest(dir: &Path, from: &str, to: &str) {
    let path = dir.join("manifest.json");
    let text = fs::read_to_string(&path).expect("reads");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).expect("writes");
}

fn largest_file(data: &Path) -> PathBuf {
    let files = fs::read_dir(data).expect("lists").map(|entry| entry.expect("lists").path());
    files.max_by_key(|path| fs::metadata(path).expect("is there").len()).expect("has files")
}

#[test]
fn an_index_of_another_format_version_is_refused() {
    let from = format!("\"format_version\": {FORMAT_VERSION}");
    check_damaged(
        |dir, _| edit_manifest(dir, &from, "\"format_version\": 99"),
        |error| matches!(error, Error::FormatVersion { found: 99, expected: FORMAT_VERSION, .. }),
    );
}

#[test]
fn an_index_of_another_kind_is_refused() {
    let is_expected = |error: &Error| matches!(error, Error::NotAnIndex { .. });
    check_damaged(|dir, _| edit_manifest(dir, "\"bm25\"", "\"late\""), is_expected);
}

#[test]
fn shortened_and_missing_files_are_named() {
    let is_damaged = |error: &Error| matches!(error, Error::Damaged { .. });
    let shorten = |path: PathBuf| {
        let bytes = fs::read(&path).expect("reads");
        fs::write(path, &bytes[..bytes.len() - 1]).expect("writes");
    };
    check_damaged(|dir, _| fs::write(dir.join("manifest.json"), "{\"kind\":").expect("writes"), is_damaged);
    check_damaged(|_, data| shorten(largest_file(data)), is_damaged);
    check_damaged(|_, data| fs::remove_file(largest_file(data)).expect("removes"), is_damaged);
    check_damaged(|_, data| fs::remove_file(data.join("meta.json")).expect("removes"), is_damaged);
    check_damaged(|_, data| fs::remove_dir_all(data).expect("removes"), is_damaged);
    check_damaged(|dir, _| edit_manifest(dir, "\"n_passages\": 333", "\"n_passages\": 334"), is_damaged);
}

/// tantivy by itself takes a lock file to open an index, which a read-only mount refuses.
#[test]
fn a_complete_index_is_not_written_to() {
    let dir = temporary();
    build_in(dir.path(), corpus(N_PASSAGES)).expect("builds");
    let locks = [".tantivy-meta.lock", ".tantivy-writer.lock"].map(|name| dir.path().join("data-0").join(name));
    for lock in &locks {
        let _ = fs::remove_file(lock);
    }
    fingerprint(dir.path());
    assert!(locks.iter().all(|lock| !lock.exists()));
}

#[test]
fn settings_out_of_range_are_refused() {
    let dir = temporary();
    let defaults = config();
    for config in [
        exsearch_retriever::bm25::Bm25Config { n_threads: 0, ..defaults.clone() },
        exsearch_retriever::bm25::Bm25Config { n_threads: 2, memory_mb: 29, ..defaults.clone() },
        exsearch_retriever::bm25::Bm25Config { memory_mb: 1 << 40, ..defaults.clone() },
        exsearch_retriever::bm25::Bm25Config { commit_every: 0, ..defaults.clone() },
    ] {
        let passages = corpus(1).into_iter().map(Ok::<_, std::convert::Infallible>);
        let built = build(passages, &source("a"), &Target { dir: dir.path(), replace: false }, &config, |_| {});
        assert!(matches!(built, Err(Error::Config { .. })), "{config:?}");
    }
}

/// A small index: its files' paths within its folder, and their bytes.
static SMALL: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let dir = temporary();
    build_in(dir.path(), corpus(30)).expect("builds");
    let folders = [dir.path().to_owned(), dir.path().join("data-0")];
    let entries = folders.iter().flat_map(|dir| fs::read_dir(dir).expect("lists"));
    let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let within = |path: &Path| path.strip_prefix(dir.path()).expect("inside").to_owned();
    let mut files: Vec<_> = paths.map(|path| (within(&path), fs::read(&path).expect("reads"))).collect();
    files.sort();
    files
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Of any file: an error, or an index that answers as before where `verify` finds nothing. Never a panic.
    #[test]
    fn a_changed_file_is_an_error_or_changes_nothing(
        file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        replacement in prop::collection::vec(any::<u8>(), 0..12), keeps_length: bool,
    ) {
        let dir = temporary();
        fs::create_dir(dir.path().join("data-0")).expect("made");
        let write = |name: &Path, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("written");
        SMALL.iter().for_each(|(name, bytes)| write(name, bytes));
        let expected = fingerprint(dir.path());
        let (name, whole) = &SMALL[file.index(SMALL.len())];
        let at = at.index(whole.len() + 1);
        let n_cut = if keeps_length { replacement.len() } else { 0 };
        let mut changed = [&whole[..at], &replacement, &whole[(at + n_cut).min(whole.len())..]].concat();
        if keeps_length {
            changed.truncate(whole.len());
        }
        write(name, &changed);
        if let Ok(index) = Bm25Index::open(dir.path()) {
            let _ = exsearch_schema::Retriever::search(&index, "river king", 5);
            let _ = index.get(&"p3".into());
            if index.verify().is_ok() {
                prop_assert_eq!(fingerprint(dir.path()), expected, "{}", name.display());
            }
        }
    }
}
