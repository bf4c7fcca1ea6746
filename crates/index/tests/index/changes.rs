//! Adding, deleting and compacting: as if the index had been built of what is left, with the same numbers.
use crate::world::{Random, World, append, build, files, results};
use exsearch_index::{CodecConfig, IndexError, LateIndex, Scored, SearchOptions, WriterConfig, compact, delete};
use tempfile::tempdir;

const DELETED: [u32; 6] = [0, 7, 31, 64, 65, 99];

fn without_deleted(results: Vec<Vec<Scored>>, top_k: usize) -> Vec<Vec<Scored>> {
    let keep = |hits: Vec<Scored>| hits.into_iter().filter(|hit| !DELETED.contains(&hit.passage)).take(top_k).collect();
    results.into_iter().map(keep).collect()
}

#[test]
fn added_deleted_and_compacted_passages_are_found_as_in_a_fresh_index() {
    let world = World::new(100, 32, 6);
    let (fresh_dir, dir) = (tempdir().unwrap(), tempdir().unwrap());
    let fresh = world.build(fresh_dir.path(), &CodecConfig::default());
    let (narrow, all) = (SearchOptions::default(), SearchOptions::exhaustive(100));
    build(dir.path(), fresh.codec(), &world.passages[..40]);
    append(dir.path(), &world.passages[40..41]);
    append(dir.path(), &world.passages[41..]);
    let grown = LateIndex::open(dir.path()).unwrap();
    assert_eq!(grown.info().segments.len(), 3);
    for options in [&narrow, &all] {
        assert_eq!(results(&grown, &world, options), results(&fresh, &world, options));
    }

    assert_eq!(delete(dir.path(), &DELETED[..3]).unwrap(), 3);
    assert_eq!(delete(dir.path(), &DELETED).unwrap(), 3, "three were deleted before");
    let expected = without_deleted(results(&fresh, &world, &all), 100);
    let reduced = LateIndex::open(dir.path()).unwrap();
    assert_eq!(results(&reduced, &world, &all), expected);
    assert_eq!((reduced.n_passages(), reduced.info().n_deleted, reduced.is_deleted(64)), (100, 6, true));
    assert_eq!(results(&grown, &world, &all), results(&fresh, &world, &all), "what was open stays as it was");

    assert!(compact(dir.path(), &WriterConfig::default()).unwrap());
    assert!(!compact(dir.path(), &WriterConfig::default()).unwrap(), "nothing is left to compact");
    let compacted = LateIndex::open(dir.path()).unwrap();
    compacted.verify().unwrap();
    assert_eq!(results(&compacted, &world, &all), expected);
    assert_eq!((compacted.n_passages(), compacted.info().segments.len()), (100, 1));
    assert!(compacted.n_tokens() < fresh.n_tokens() && compacted.vectors(64).unwrap().is_empty());
    assert_eq!(results(&reduced, &world, &all), expected, "its files are unlinked, and still mapped");
    assert!(reduced.info().generation < LateIndex::current_generation(dir.path()).unwrap());

    append(dir.path(), &world.passages[64..65]);
    let again = LateIndex::open(dir.path()).unwrap();
    assert_eq!(again.n_passages(), 101);
    assert_eq!(again.vectors(100).unwrap(), fresh.vectors(64).unwrap(), "a number is never given again");
    assert!(again.is_deleted(64) && !again.is_deleted(100));
}

#[test]
fn compacting_whole_segments_gives_the_bytes_of_one_build() {
    let world = World::new(80, 32, 8);
    let (fresh_dir, dir) = (tempdir().unwrap(), tempdir().unwrap());
    let fresh = world.build(fresh_dir.path(), &CodecConfig::default());
    build(dir.path(), fresh.codec(), &world.passages[..50]);
    append(dir.path(), &world.passages[50..]);
    compact(dir.path(), &WriterConfig { memory_mb: 8 }).unwrap();
    let (fresh, compacted) = (files(fresh_dir.path()), files(dir.path()));
    for part in ["offsets", "codes", "residuals", "postings"] {
        assert_eq!(compacted[&format!("segment-2.{part}")], fresh[&format!("segment-0.{part}")], "{part}");
    }
    assert_eq!(compacted.len(), fresh.len(), "the old segments are gone: {:?}", compacted.keys());
}

#[test]
fn passages_unlike_the_sample_are_told() {
    let world = World::new(400, 32, 10);
    let dir = tempdir().unwrap();
    world.build(dir.path(), &CodecConfig::default());
    let mut random = Random(99);
    let strange: Vec<Vec<f32>> = (0..50).map(|_| (0..10).flat_map(|_| random.vector(32, 1.0)).collect()).collect();
    append(dir.path(), &strange);
    append(dir.path(), &world.passages[..100]);
    let segments = LateIndex::open(dir.path()).unwrap().info().segments;
    assert_eq!(segments.iter().map(|segment| segment.is_stale()).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn only_passages_that_are_there_can_be_deleted() {
    let world = World::new(10, 16, 1);
    let dir = tempdir().unwrap();
    world.build(dir.path(), &CodecConfig::default());
    let before = files(dir.path());
    let error = delete(dir.path(), &[3, 10]).unwrap_err();
    assert!(matches!(error, IndexError::NoSuchPassage { passage: 10, n_passages: 10 }));
    assert_eq!(delete(dir.path(), &[]).unwrap(), 0);
    assert_eq!(files(dir.path()), before);
    assert!(!compact(dir.path(), &WriterConfig::default()).unwrap());
    assert_eq!(delete(dir.path(), &(0..10).collect::<Vec<_>>()).unwrap(), 10);
    assert!(compact(dir.path(), &WriterConfig::default()).unwrap());
    let index = LateIndex::open(dir.path()).unwrap();
    assert_eq!((index.n_tokens(), index.search(&world.queries[0], &SearchOptions::default()).unwrap()), (0, vec![]));
}

#[test]
fn readers_open_and_search_while_a_writer_changes_the_index() {
    let world = World::new(40, 16, 12);
    let dir = tempdir().unwrap();
    world.build(dir.path(), &CodecConfig::default());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..15u32 {
                append(dir.path(), &world.passages[..3]);
                delete(dir.path(), &[40 + round]).unwrap();
                compact(dir.path(), &WriterConfig::default()).unwrap();
            }
        });
        let mut generation = 0;
        while !writer.is_finished() {
            let index = LateIndex::open(dir.path()).expect("there is always a whole index");
            assert!(index.info().generation >= generation);
            generation = index.info().generation;
            let found = index.search(&world.queries[0], &SearchOptions::exhaustive(1)).unwrap();
            assert_eq!(found.len(), 1);
        }
    });
    LateIndex::open(dir.path()).unwrap().verify().unwrap();
}
