//! What is refused, and what the message says about it.
use crate::world::{World, files};
use exsearch_index::{Codec, CodecConfig, IndexError, LateIndex, SearchOptions, Writer, WriterConfig, compact, delete};
use tempfile::tempdir;

const CONFIG: WriterConfig = WriterConfig { memory_mb: 8 };

#[test]
fn one_writer_at_a_time() {
    let (world, dir) = (World::new(20, 16, 1), tempdir().unwrap());
    world.build(dir.path(), &CodecConfig::default());
    let writer = Writer::append(dir.path(), "more", &CONFIG).unwrap();
    assert!(matches!(Writer::append(dir.path(), "more", &CONFIG), Err(IndexError::Locked { .. })));
    assert!(matches!(Writer::resume(dir.path(), &CONFIG), Err(IndexError::Locked { .. })));
    assert!(matches!(delete(dir.path(), &[1]), Err(IndexError::Locked { .. })));
    assert!(matches!(compact(dir.path(), &CONFIG), Err(IndexError::Locked { .. })));
    drop(writer);
    assert!(matches!(Writer::append(dir.path(), "more", &CONFIG), Err(IndexError::Unfinished { .. })));
    assert!(matches!(compact(dir.path(), &CONFIG), Err(IndexError::Unfinished { .. })));
    assert_eq!(delete(dir.path(), &[1]).unwrap(), 1, "deleting does not touch what is being added");
    Writer::resume(dir.path(), &CONFIG).unwrap().expect("an addition").finish().unwrap();
    assert_eq!(LateIndex::open(dir.path()).unwrap().n_passages(), 20);
}

#[test]
fn other_folders_are_left_alone() {
    let (world, dir) = (World::new(20, 16, 1), tempdir().unwrap());
    let codec = world.codec(&CodecConfig::default());
    std::fs::write(dir.path().join("thesis.txt"), b"years of work").unwrap();
    let error = Writer::create(dir.path(), &codec, "", &CONFIG).err().expect("a foreign file");
    assert!(error.to_string().contains("thesis.txt") && error.to_string().contains("build into a new one"), "{error}");
    assert_eq!(files(dir.path()).len(), 1);
    for missing in [dir.path().join("none"), dir.path().join("thesis.txt"), dir.path().to_owned()] {
        assert!(matches!(LateIndex::open(&missing), Err(IndexError::NotAnIndex { .. })), "{}", missing.display());
        assert!(matches!(Writer::append(&missing, "", &CONFIG), Err(IndexError::NotAnIndex { .. })));
    }
    assert!(matches!(delete(dir.path(), &[0]), Err(IndexError::NotAnIndex { .. })));
    std::fs::remove_file(dir.path().join("thesis.txt")).unwrap();
    world.build(dir.path(), &CodecConfig::default());
    assert!(matches!(Writer::create(dir.path(), &codec, "", &CONFIG), Err(IndexError::AlreadyExists { .. })));
    std::fs::write(dir.path().join("manifest.json"), br#"{"kind": "bm25"}"#).unwrap();
    assert!(matches!(LateIndex::open(dir.path()), Err(IndexError::NotAnIndex { .. })));
}

#[test]
fn other_versions_are_told_from_damage() {
    let (world, dir) = (World::new(20, 16, 1), tempdir().unwrap());
    world.build(dir.path(), &CodecConfig::default());
    let path = dir.path().join("manifest.json");
    let newer = std::fs::read_to_string(&path).unwrap().replace("\"format_version\": 1", "\"format_version\": 9");
    std::fs::write(&path, newer).unwrap();
    let error = LateIndex::open(dir.path()).err().expect("another version");
    assert!(matches!(error, IndexError::FormatVersion { found: 9, expected: 1, .. }), "{error}");
    assert!(error.to_string().contains("build the index again"));
}

#[test]
fn vectors_without_a_direction_or_of_another_length_are_refused() {
    let (world, dir) = (World::new(20, 16, 1), tempdir().unwrap());
    let index = world.build(dir.path(), &CodecConfig::default());
    let options = SearchOptions::default();
    assert!(matches!(index.search(&[0.5; 17], &options), Err(IndexError::Dimension { dim: 16, n_values: 17 })));
    let mut query = vec![0.5; 32];
    query[20] = f32::INFINITY;
    assert!(matches!(index.search(&query, &options), Err(IndexError::Vector { row: 1, .. })));
    assert!(index.search(&[0.0; 16], &options).is_ok(), "a query may say nothing");
    let mut writer = Writer::append(dir.path(), "more", &CONFIG).unwrap();
    assert!(matches!(writer.push(&[1.0; 15]), Err(IndexError::Dimension { .. })));
    let error = writer.push(&[0.0; 16]).unwrap_err();
    assert_eq!(error.to_string(), "vector 0 of the passage 20 has length 0; its encoder has failed");
    assert!(matches!(index.vectors(20), Err(IndexError::NoSuchPassage { .. })));
}

#[test]
fn settings_out_of_range_are_named() {
    let train = |sample: Vec<f32>, dim, config: &CodecConfig| Codec::train(sample, dim, 100, config).err();
    let config = CodecConfig { bits: 3, ..Default::default() };
    assert!(matches!(train(vec![1.0; 16], 16, &config), Some(IndexError::Config { name: "bits", .. })));
    let config = CodecConfig { n_centroids: Some(0), ..Default::default() };
    assert!(matches!(train(vec![1.0; 16], 16, &config), Some(IndexError::Config { name: "n_centroids", .. })));
    assert!(matches!(train(Vec::new(), 16, &CodecConfig::default()), Some(IndexError::EmptySample)));
    assert!(matches!(train(vec![1.0; 17], 16, &CodecConfig::default()), Some(IndexError::Dimension { .. })));
    assert!(matches!(train(vec![f32::NAN; 16], 16, &CodecConfig::default()), Some(IndexError::Vector { .. })));
    assert!(train(vec![1.0; 16], 16, &CodecConfig::default()).is_none(), "a single vector makes a codec");
    let error = Writer::append(std::path::Path::new("none"), "", &WriterConfig { memory_mb: 1 }).err();
    assert!(matches!(error, Some(IndexError::Config { name: "memory_mb", .. })));
}

#[test]
fn the_sample_to_draw_follows_from_the_corpus() {
    let config = CodecConfig::default();
    assert_eq!(config.n_sample_tokens(1000), 1000);
    // 16 · sqrt(60M) = 123,935: 2^16 centroids of 32 vectors, and one vector held out for every 19.
    assert_eq!(config.n_sample_tokens(60_000_000), 65_536 * 32 + 65_536 * 32 / 19);
}
