//! The files, byte for byte those of the trackers' own writers (`tests/golden/make_golden.py`).
use crate::common::{record, unfinished};
use exsearch_track::{TrackConfig, WandbConfig, WandbMode, write_local};
use std::collections::BTreeMap;
use std::path::Path;

/// All files under a folder by their paths.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("inside of it").to_string_lossy().into_owned();
                files.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

fn offline() -> TrackConfig {
    let wandb = WandbConfig {
        mode: WandbMode::Offline,
        project: "exsearch".into(),
        entity: Some("team".into()),
        url: "https://wandb.invalid".into(),
        key_env: None,
        key_file: None,
    };
    TrackConfig { wandb: Some(wandb), mlflow: None }
}

#[test]
fn files_are_those_of_the_trackers_own_writers() {
    let folder = tempfile::tempdir().expect("a folder");
    write_local(&record(), &offline(), folder.path()).expect("written");
    let golden: [(&str, &[u8]); 4] = [
        ("0000-config", include_bytes!("../golden/0000-config.tfevents")),
        ("0001-untrained-dev", include_bytes!("../golden/0001-untrained-dev.tfevents")),
        ("0002-warmup-training", include_bytes!("../golden/0002-warmup-training.tfevents")),
        ("run-abcd1234.wandb", include_bytes!("../golden/run.wandb")),
    ];
    let written = files(folder.path());
    assert_eq!(written.len(), golden.len(), "{:?}", written.keys());
    for (name, bytes) in golden {
        let (path, found) = written.iter().find(|(path, _)| path.ends_with(name)).expect(name);
        assert_eq!(found, bytes, "{path}");
    }
    assert!(written.contains_key("wandb/offline-run-19700101_001640-abcd1234/run-abcd1234.wandb"));
}

#[test]
fn a_run_that_goes_on_ends_with_the_same_files() {
    let (whole, continued) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    write_local(&record(), &offline(), whole.path()).expect("written");
    write_local(&unfinished(), &offline(), continued.path()).expect("written");
    let before = files(continued.path());
    assert_eq!(before.keys().filter(|path| path.starts_with("tensorboard/")).count(), 2);
    write_local(&record(), &offline(), continued.path()).expect("written");
    assert_eq!(files(continued.path()), files(whole.path()));
}

#[test]
fn without_a_table_only_tensorboard_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    write_local(&record(), &TrackConfig::default(), folder.path()).expect("written");
    assert!(files(folder.path()).keys().all(|path| path.starts_with("tensorboard/events.out.tfevents.0000001000.")));
}
