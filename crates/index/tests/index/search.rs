//! What a search finds, against MaxSim by definition.
use crate::world::{World, build, results};
use exsearch_index::{CodecConfig, LateIndex, Scored, SearchOptions, exact_search};
use tempfile::tempdir;

/// The ranking by exact MaxSim over the vectors that the index holds.
fn exact_on_decompressed(index: &LateIndex, query: &[f32], top_k: usize) -> Vec<Scored> {
    let passages: Vec<Vec<f32>> = (0..index.n_passages()).map(|passage| index.vectors(passage).unwrap()).collect();
    exact_search(query, &passages, index.dim(), top_k)
}

/// The mean part of the exact ten best on the passages' own vectors that a search finds.
fn recall(index: &LateIndex, world: &World, options: &SearchOptions) -> f64 {
    let found = results(index, world, options);
    let parts = world.queries.iter().zip(found).map(|(query, found)| {
        let expected = exact_search(query, &world.passages, world.dim, 10);
        let is_expected = |hit: &&Scored| expected.iter().any(|other| other.passage == hit.passage);
        found.iter().take(10).filter(is_expected).count() as f64 / expected.len() as f64
    });
    parts.sum::<f64>() / world.queries.len() as f64
}

fn check_exhaustive(n_passages: usize, dim: usize, bits: usize) {
    let (world, dir) = (World::new(n_passages, dim, 7), tempdir().unwrap());
    let index = world.build(dir.path(), &CodecConfig { bits, ..Default::default() });
    for query in &world.queries {
        let found = index.search(query, &SearchOptions::exhaustive(15)).unwrap();
        assert_eq!(
            found,
            exact_on_decompressed(&index, query, 15),
            "{n_passages} passages, {dim} dimensions, {bits} bits"
        );
    }
}

#[test]
fn an_exhaustive_search_is_exact_maxsim_on_decompressed_vectors() {
    for bits in [1, 2, 4] {
        check_exhaustive(120, 32, bits);
    }
    check_exhaustive(40, 13, 2);
    check_exhaustive(1, 5, 4);
}

#[test]
fn more_bits_keep_more_of_a_vector() {
    let world = World::new(300, 64, 3);
    let mut before = 0.0;
    for (bits, least) in [(1, 0.85), (2, 0.94), (4, 0.99)] {
        let dir = tempdir().unwrap();
        let index = world.build(dir.path(), &CodecConfig { bits, n_centroids: Some(64), ..Default::default() });
        let mut cosines = Vec::new();
        for (number, passage) in world.passages.iter().enumerate() {
            let held = index.vectors(number as u32).unwrap();
            for (own, held) in passage.chunks_exact(64).zip(held.chunks_exact(64)) {
                cosines.push(own.iter().zip(held).map(|(x, y)| x * y).sum::<f32>());
            }
        }
        let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
        assert!(mean > least && mean > before, "{bits} bits keep a cosine of {mean}");
        before = mean;
    }
}

#[test]
fn a_wider_search_finds_more_of_what_exact_maxsim_finds() {
    let (world, dir) = (World::new(2000, 64, 11), tempdir().unwrap());
    let index = world.build(dir.path(), &CodecConfig { bits: 4, ..Default::default() });
    let exhaustive = recall(&index, &world, &SearchOptions::exhaustive(10));
    let probing = |n_probe| recall(&index, &world, &SearchOptions { n_probe, n_groups: 64, ..Default::default() });
    let (narrow, by_default, wide) = (probing(2), probing(16), probing(128));
    assert!(exhaustive > 0.9, "exhaustive {exhaustive}");
    // The directions are far more alike here than tokens are: a narrow search misses more than it does on text.
    assert!(narrow < by_default && by_default < wide, "{narrow}, {by_default}, {wide}");
    assert!(wide > exhaustive - 0.03, "wide {wide}, exhaustive {exhaustive}");
}

#[test]
fn bytes_choose_what_floats_would() {
    let (world, dir) = (World::new(2000, 64, 13), tempdir().unwrap());
    for bits in [1, 2, 4] {
        let dir = dir.path().join(bits.to_string());
        let index = world.build(&dir, &CodecConfig { bits, ..Default::default() });
        let options = SearchOptions::default();
        let all = SearchOptions { n_exact: usize::MAX, ..options.clone() };
        assert_eq!(results(&index, &world, &options), results(&index, &world, &all), "{bits} bits");
        let parallel = SearchOptions { parallel: true, ..options.clone() };
        assert_eq!(results(&index, &world, &parallel), results(&index, &world, &options));
    }
}

#[test]
fn threads_and_batches_change_nothing() {
    let (world, dir) = (World::new(400, 32, 5), tempdir().unwrap());
    let index = world.build(dir.path(), &CodecConfig::default());
    let options = SearchOptions { n_candidates: 50, n_probe: 4, ..Default::default() };
    let expected = results(&index, &world, &options);
    assert_eq!(results(&index, &world, &SearchOptions { parallel: true, ..options.clone() }), expected);
    assert_eq!(index.search_batch(&world.queries, &options).unwrap(), expected);
    assert_eq!(LateIndex::open(dir.path()).unwrap().search_batch(&world.queries, &options).unwrap(), expected);
}

#[test]
fn equal_scores_come_in_the_order_of_their_numbers() {
    let mut world = World::new(30, 16, 2);
    let copy = world.passages[4].clone();
    for number in [21, 9, 17] {
        world.passages[number] = copy.clone();
    }
    let dir = tempdir().unwrap();
    let index = world.build(dir.path(), &CodecConfig::default());
    let found = index.search(&copy, &SearchOptions { top_k: 4, ..Default::default() }).unwrap();
    assert_eq!(found.iter().map(|hit| hit.passage).collect::<Vec<_>>(), [4, 9, 17, 21]);
    let two = index.search(&copy, &SearchOptions { top_k: 2, n_candidates: 2, ..Default::default() }).unwrap();
    assert_eq!(two, found[..2]);
}

#[test]
fn nothing_is_found_with_nothing_and_empty_passages_never() {
    let mut world = World::new(20, 16, 9);
    world.passages[3] = Vec::new();
    world.passages[19] = Vec::new();
    let dir = tempdir().unwrap();
    let index = world.build(dir.path(), &CodecConfig::default());
    assert_eq!(index.search(&[], &SearchOptions::default()).unwrap(), []);
    assert_eq!(index.search(&world.queries[0], &SearchOptions { top_k: 0, ..Default::default() }).unwrap(), []);
    let all = index.search(&world.queries[0], &SearchOptions::exhaustive(100)).unwrap();
    assert_eq!(all.len(), 18);
    assert!(all.iter().all(|hit| ![3, 19].contains(&hit.passage) && hit.score.is_finite()));
    let empty = tempdir().unwrap();
    let index = build(empty.path(), index.codec(), &[]);
    assert_eq!((index.n_passages(), index.search(&world.queries[0], &SearchOptions::default()).unwrap()), (0, vec![]));
}
