//! Files that are cut short or garbled: an error or a result, never a panic, and `verify` finds every one.
use crate::world::{World, append, files, write_files};
use exsearch_index::{CodecConfig, IndexError, IndexInfo, LateIndex, SearchOptions, delete};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::tempdir;

/// A small index with two segments and deletions.
fn whole() -> &'static (World, BTreeMap<String, Vec<u8>>) {
    static WHOLE: OnceLock<(World, BTreeMap<String, Vec<u8>>)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let (world, dir) = (World::new(50, 16, 20), tempdir().unwrap());
        world.build(dir.path(), &CodecConfig::default());
        append(dir.path(), &world.passages[..20]);
        delete(dir.path(), &[3, 55]).unwrap();
        let files = files(dir.path());
        (world, files)
    })
}

/// What the index says of itself, unless the damage is noticed by opening, searching or verifying. Everything is read.
fn notice(dir: &Path) -> Result<IndexInfo, IndexError> {
    let index = LateIndex::open(dir)?;
    let found = index.search(&whole().0.queries[0], &SearchOptions::exhaustive(100));
    for passage in 0..index.n_passages() {
        let _ = index.vectors(passage);
    }
    let narrow = index.search(&whole().0.queries[1], &SearchOptions::default());
    index.verify()?;
    found.and(narrow)?;
    Ok(index.info())
}

fn check(name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let (_, whole) = whole();
    let mut files = whole.clone();
    let bytes = files.get_mut(name).expect("a file of the index");
    change(bytes);
    let is_changed = whole[name] != *bytes;
    let dir = tempdir().unwrap();
    write_files(dir.path(), &files);
    match notice(dir.path()) {
        // Another space between words of the manifest says the same.
        Ok(info) if is_changed => assert!(name == "manifest.json" && info.n_passages == 70, "{name}: {info:?}"),
        Ok(_) => {}
        Err(error) => assert!(is_changed, "{name}: {error}"),
    }
}

fn names() -> Vec<String> {
    whole().1.keys().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn flipped_bytes_are_noticed(name in prop::sample::select(names()), at: prop::sample::Index, flip in 1u8..) {
        check(&name, |bytes| {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        });
    }

    #[test]
    fn cut_files_are_noticed(name in prop::sample::select(names()), at: prop::sample::Index) {
        check(&name, |bytes| bytes.truncate(at.index(bytes.len())));
    }

    #[test]
    fn garbled_arrays_are_noticed(
        name in prop::sample::select(names()), at: prop::sample::Index, noise in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        check(&name, |bytes| {
            let at = at.index(bytes.len());
            for (byte, noise) in bytes[at..].iter_mut().zip(noise) {
                *byte = noise;
            }
        });
    }
}

#[test]
fn missing_files_are_named() {
    for name in names() {
        let dir = tempdir().unwrap();
        let files = whole().1.iter().filter(|(other, _)| **other != name);
        write_files(dir.path(), &files.map(|(name, bytes)| (name.clone(), bytes.clone())).collect());
        match LateIndex::open(dir.path()).err().expect("a file is missing") {
            IndexError::NotAnIndex { .. } => assert_eq!(name, "manifest.json"),
            IndexError::Damaged { path, reason } => assert!(path.ends_with(&name) && reason == "it is missing"),
            other => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn a_verified_index_is_as_it_was_written() {
    let dir = tempdir().unwrap();
    write_files(dir.path(), &whole().1);
    notice(dir.path()).expect("nothing is wrong with it");
}
