//! An index that version 1 of the format wrote, kept in tests/format/v1. It must open and give these results for as long as
//! `FORMAT_VERSION` is 1. Where it changes, this folder stays, and the message says to build the index again.
use crate::world::{World, append, files, write_files};
use exsearch_index::{CodecConfig, FORMAT_VERSION, LateIndex, SearchOptions, delete};
use std::path::{Path, PathBuf};
use tempfile::tempdir;

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/v1")
}

/// How it was made: two segments, one deletion.
fn make(dir: &Path) -> World {
    let world = World::new(40, 16, 2026);
    world.build(dir, &CodecConfig::default());
    append(dir, &world.passages[..10]);
    delete(dir, &[5]).unwrap();
    world
}

#[test]
fn version_1_is_read_and_written_as_ever() {
    let dir = tempdir().unwrap();
    let world = make(dir.path());
    let index = LateIndex::open(&kept()).unwrap();
    index.verify().unwrap();
    let info = index.info();
    assert_eq!((FORMAT_VERSION, info.dim, info.bits), (1, 16, 2));
    assert_eq!((info.n_passages, info.n_deleted, info.segments.len()), (50, 1, 2));
    let found = index.search(&world.queries[0], &SearchOptions { top_k: 3, ..Default::default() }).unwrap();
    let found: Vec<(u32, f32)> = found.iter().map(|hit| (hit.passage, hit.score)).collect();
    assert_eq!(found, EXPECTED);
    assert!(files(&kept()) == files(dir.path()), "the same vectors give the same bytes");
}

const EXPECTED: [(u32, f32); 3] = [(11, 7.6098843), (39, 5.7645116), (33, 5.031969)];

#[test]
#[ignore = "writes the folder that is kept; only for a new version of the format"]
fn write_the_folder_that_is_kept() {
    let dir = tempdir().unwrap();
    make(dir.path());
    std::fs::create_dir_all(kept()).unwrap();
    write_files(&kept(), &files(dir.path()));
}
