//! Building: the same bytes whatever the threads, the memory and the interruptions.
use crate::world::{World, build, files, push_all, write_files};
use exsearch_index::{Codec, CodecConfig, IndexError, LateIndex, Writer, WriterConfig};
use tempfile::tempdir;

const CONFIG: WriterConfig = WriterConfig { memory_mb: 8 };

#[test]
fn threads_and_memory_change_no_byte() {
    let world = World::new(300, 48, 1);
    let folders = [tempdir().unwrap(), tempdir().unwrap()];
    for (folder, n_threads) in folders.iter().zip([1, 3]) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| world.build(folder.path(), &CodecConfig::default()));
    }
    assert_eq!(files(folders[0].path()), files(folders[1].path()));
    let other = tempdir().unwrap();
    world.build(other.path(), &CodecConfig { seed: 1, ..Default::default() });
    assert_ne!(files(folders[0].path())["codec.bin"], files(other.path())["codec.bin"]);
}

/// Begins a build, leaves it after `n_committed` passages and some that are not committed, and returns the codec.
fn interrupted(world: &World, dir: &std::path::Path, n_committed: usize) -> Codec {
    let codec = world.codec(&CodecConfig::default());
    let mut writer = Writer::create(dir, &codec, "world", &CONFIG).unwrap();
    push_all(&mut writer, &world.passages[..n_committed]);
    writer.commit().unwrap();
    push_all(&mut writer, &world.passages[n_committed..n_committed + 5]);
    codec
}

#[test]
fn an_interrupted_build_goes_on_behind_its_last_commit() {
    let world = World::new(100, 32, 4);
    let (dir, whole) = (tempdir().unwrap(), tempdir().unwrap());
    let codec = interrupted(&world, dir.path(), 40);
    // What a kill in the middle of a write leaves.
    let residuals = dir.path().join("segment-0.residuals.part");
    let mut longer = std::fs::read(&residuals).unwrap();
    longer.extend([7; 100]);
    std::fs::write(&residuals, longer).unwrap();
    for leftover in ["manifest.json.tmp", "segment-0.postings.part", "segment-7.codes", "deleted-3.bits"] {
        std::fs::write(dir.path().join(leftover), b"garbage").unwrap();
    }
    assert!(matches!(LateIndex::open(dir.path()), Err(IndexError::Unfinished { .. })));
    let mut writer = Writer::resume(dir.path(), &CONFIG).unwrap().expect("a build to continue");
    assert_eq!((writer.n_passages(), writer.first_passage(), writer.source()), (40, 0, "world"));
    push_all(&mut writer, &world.passages[40..]);
    writer.finish().unwrap();
    build(whole.path(), &codec, &world.passages);
    assert_eq!(files(dir.path()), files(whole.path()));
    assert!(Writer::resume(dir.path(), &CONFIG).unwrap().is_none());
}

#[test]
fn a_build_killed_while_it_finished_is_finished_again() {
    let world = World::new(60, 32, 4);
    let (dir, whole) = (tempdir().unwrap(), tempdir().unwrap());
    let codec = world.codec(&CodecConfig::default());
    let mut writer = Writer::create(dir.path(), &codec, "world", &CONFIG).unwrap();
    push_all(&mut writer, &world.passages);
    writer.commit().unwrap();
    let session = std::fs::read(dir.path().join("session.json")).unwrap();
    writer.finish().unwrap();
    build(whole.path(), &codec, &world.passages);
    // Between the manifest and the removal of the session: nothing is left to do.
    std::fs::write(dir.path().join("session.json"), &session).unwrap();
    assert_eq!(LateIndex::open(dir.path()).unwrap().n_passages(), 60);
    assert!(Writer::resume(dir.path(), &CONFIG).unwrap().is_none());
    assert_eq!(files(dir.path()), files(whole.path()));
    // Between the renaming of two files and the manifest.
    std::fs::write(dir.path().join("session.json"), &session).unwrap();
    std::fs::remove_file(dir.path().join("manifest.json")).unwrap();
    std::fs::rename(dir.path().join("segment-0.residuals"), dir.path().join("segment-0.residuals.part")).unwrap();
    let writer = Writer::resume(dir.path(), &CONFIG).unwrap().expect("a build to finish");
    assert_eq!(writer.n_passages(), 60);
    writer.finish().unwrap();
    assert_eq!(files(dir.path()), files(whole.path()));
}

#[test]
fn an_abandoned_build_leaves_nothing_and_an_abandoned_addition_the_index() {
    let world = World::new(60, 32, 4);
    let dir = tempdir().unwrap();
    let codec = interrupted(&world, dir.path(), 20);
    Writer::resume(dir.path(), &CONFIG).unwrap().expect("a build").abandon().unwrap();
    assert_eq!(files(dir.path()).len(), 0);
    build(dir.path(), &codec, &world.passages);
    let before = files(dir.path());
    let mut writer = Writer::append(dir.path(), "more", &CONFIG).unwrap();
    push_all(&mut writer, &world.passages[..9]);
    writer.commit().unwrap();
    assert_eq!(LateIndex::open(dir.path()).unwrap().n_passages(), 60, "readers do not see what is not finished");
    drop(writer);
    let writer = Writer::resume(dir.path(), &CONFIG).unwrap().expect("an addition");
    assert_eq!((writer.first_passage(), writer.n_passages()), (60, 9));
    writer.abandon().unwrap();
    assert_eq!(files(dir.path()), before);
}

#[test]
fn committed_passages_that_are_gone_are_told() {
    let world = World::new(60, 32, 4);
    let dir = tempdir().unwrap();
    interrupted(&world, dir.path(), 20);
    let whole = files(dir.path());
    for name in ["segment-0.codes.part", "segment-0.offsets.part", "codec.bin", "session.json"] {
        let mut files = whole.clone();
        let bytes = files.get_mut(name).expect("it is there");
        bytes.truncate(bytes.len() / 3);
        write_files(dir.path(), &files);
        let error = Writer::resume(dir.path(), &CONFIG).err().expect("a file is cut short");
        assert!(matches!(&error, IndexError::Damaged { path, .. } if path.ends_with(name)), "{name}: {error}");
    }
    write_files(dir.path(), &whole);
    assert!(Writer::resume(dir.path(), &CONFIG).unwrap().is_some());
}

#[test]
fn a_refused_passage_does_not_end_a_build() {
    let world = World::new(30, 16, 4);
    let (dir, whole) = (tempdir().unwrap(), tempdir().unwrap());
    let codec = world.codec(&CodecConfig::default());
    let mut writer = Writer::create(dir.path(), &codec, "world", &CONFIG).unwrap();
    for passage in &world.passages {
        let mut broken = passage.clone();
        broken[1] = f32::NAN;
        assert!(matches!(writer.push(&broken), Err(IndexError::Vector { row: 0, .. })));
        writer.push(passage).unwrap();
    }
    writer.finish().unwrap();
    build(whole.path(), &codec, &world.passages);
    assert_eq!(files(dir.path()), files(whole.path()));
}
