//! `exsearch index` of every kind over the small world, with tiny random encoders: built, searched, measured, changed.
use crate::common::{Ran, SMALL, command, fill, folder, run};
use std::path::{Path, PathBuf};

/// A tiny checkpoint that crate `model` keeps for its golden tests.
fn encoder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name)
}

/// The ids of the hits of a query, best first.
#[track_caller]
fn ids(query: &str, index: &Path) -> Vec<String> {
    let stdout = run(&format!("search {query} -k 10 --json --index {{}}"), &[index]).ok();
    let answer: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    answer["hits"].as_array().expect("hits").iter().map(|hit| hit["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn every_kind_is_built_searched_and_measured() {
    let check = |kind: &str, name: &str| {
        let folder = folder();
        let (index, encoder) = (folder.path().join("index"), encoder(name));
        let build = format!("index {{}} --out {{}} --kind {kind} --encoder {{}}");
        let estimate = run(&format!("{build} --estimate"), &[&SMALL.passages(), &index, &encoder]).ok();
        assert!(estimate.contains("of memory") && estimate.contains("of disk") && !index.exists(), "{estimate}");

        let built = run(&build, &[&SMALL.passages(), &index, &encoder]).ok();
        assert!(built.contains(" passages, "), "{built}");
        let again = run(&build, &[&SMALL.passages(), &index, &encoder]).ok();
        assert!(again.contains("nothing to do"), "{again}");
        assert_eq!(ids("mayor", &index).len(), 10, "{kind}");

        let table = run("recall {} --index {} -k 1,600", &[&SMALL.world().join("dev.jsonl"), &index]).ok();
        let all = table.lines().find(|line| line.trim_start().starts_with("600")).expect("a row");
        assert!(all.contains("100.0 [100.0, 100.0]") || kind == "hybrid", "all passages hold all gold ones: {table}");

        let info = run("index info {}", &[&index]).ok();
        let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
        assert_eq!(info["kind"], kind);
        run("index verify {}", &[&index]).ok();
        // Every byte of the data counts.
        let damaged = largest_file(&index);
        let mut bytes = std::fs::read(&damaged).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&damaged, bytes).expect("written");
        run("index verify {}", &[&index]).failed(&[]);
    };
    check("dense", "sentence");
    check("late", "colbert");
    check("late", "sentence");
    check("hybrid", "sentence");
}

/// The largest file in a folder and those inside it.
fn largest_file(dir: &Path) -> PathBuf {
    let mut open = vec![dir.to_owned()];
    let mut files = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.into_iter().max_by_key(|path| path.metadata().map_or(0, |it| it.len())).expect("a file")
}

/// Whether a file in a folder or inside it has the words.
fn holds(dir: &Path, words: &str) -> bool {
    let mut paths = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    paths.any(|path| match path.is_dir() {
        true => holds(&path, words),
        false => std::fs::read(&path).expect("read").windows(words.len()).any(|window| window == words.as_bytes()),
    })
}

#[test]
fn a_late_index_is_added_to_deleted_from_and_compacted() {
    let folder = folder();
    let (index, more) = (folder.path().join("index"), folder.path().join("more.tsv"));
    run("index {} --out {} --kind late --encoder {}", &[&SMALL.passages(), &index, &encoder("colbert")]).ok();
    std::fs::write(&more, "id\ttext\ttitle\nnew1\tA zebra lives here.\tZebra\nnew2\tA yak.\tYak\n").expect("written");
    let added = run("index add {} --index {}", &[&more, &index]).ok();
    assert!(added.contains("2 passages added"), "{added}");
    let again = run("index add {} --index {}", &[&more, &index]).ok();
    assert!(again.contains("nothing to do"), "{again}");
    assert!(ids("zebra", &index).contains(&"new1".to_owned()));

    run("index delete new2 nobody --index {}", &[&index]).failed(&["nobody"]);
    let n_passages = |index: &Path| {
        let info = run("index info {}", &[index]).ok();
        let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
        info["vectors"]["n_passages"].as_u64().expect("a number")
    };
    let before = n_passages(&index);
    run("index delete new1 --index {}", &[&index]).ok();
    assert_eq!(n_passages(&index), before - 1, "and the unknown id had deleted nothing");
    assert!(!ids("zebra", &index).contains(&"new1".to_owned()));
    let expected = ids("mayor", &index);
    assert!(holds(&index, "zebra lives"));
    run("index compact {}", &[&index]).ok();
    assert!(!holds(&index, "zebra lives"), "the text goes with the vectors");
    assert_eq!(ids("mayor", &index), expected);
    run("index verify {}", &[&index]).ok();

    run("index delete 1 --index {}", &[&SMALL.index()]).failed(&["bm25 index", "--force"]);
}

/// A setting that is out of its range leaves nothing that the right one would find in its way.
#[test]
fn settings_are_checked_before_anything_is_made() {
    let folder = folder();
    let index = folder.path().join("index");
    let build = "index {} --out {} --kind late --encoder {}";
    for (options, expected) in
        [("--bits 3", "bits: it must be 1, 2 or 4"), ("--memory-mb 1", "memory_mb: it must be at")]
    {
        let paths: [&Path; 3] = [&SMALL.passages(), &index, &encoder("colbert")];
        run(&format!("{build} {options}"), &paths).failed(&[expected]);
        assert!(!index.exists(), "{options}");
    }
}

#[test]
fn a_cross_encoder_reranks_by_folder_or_by_name() {
    let folder = folder();
    let (file, models) = (folder.path().join("rerank.toml"), folder.path().join("models"));
    let pulled = models.join("org--cross");
    std::fs::create_dir_all(&pulled).expect("made");
    for entry in std::fs::read_dir(encoder("cross")).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, pulled.join(path.file_name().expect("a name"))).expect("copied");
    }
    let describe = |model: &str| {
        let words = format!("retriever = {{ kind = 'bm25', index = '{}' }}", SMALL.index().display());
        let text = format!("kind = 'rerank'\nscorer = 'cross-encoder'\nencoder = '{model}'\ndepth = 10\n{words}\n");
        std::fs::write(&file, text).expect("written");
    };
    let search = || {
        let mut search = command(fill("search mayor -k 10 --json --index {}", &[&file]));
        Ran::from(search.env("EXSEARCH_MODELS", &models).output().expect("the binary runs"))
    };
    let hits = |stdout: &str| -> Vec<(String, f64)> {
        let answer: serde_json::Value = serde_json::from_str(stdout).expect("JSON");
        let hits = answer["hits"].as_array().expect("hits").iter();
        hits.map(|hit| (hit["id"].as_str().expect("an id").to_owned(), hit["score"].as_f64().expect("a score")))
            .collect()
    };

    describe("models/org--cross");
    let found = hits(&search().ok());
    // Behind a sigmoid, as the checkpoint asks for.
    assert!(found.iter().all(|(_, score)| (0.0..=1.0).contains(score)), "{found:?}");
    assert!(found.is_sorted_by(|one, next| one.1 >= next.1), "{found:?}");
    let reranked: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
    let mut candidates = ids("mayor", &SMALL.index());
    assert_ne!(reranked, candidates, "the order is the model's");
    let mut sorted = reranked.clone();
    candidates.sort();
    sorted.sort();
    assert_eq!(sorted, candidates, "the passages are BM25's");

    describe("org/cross");
    assert_eq!(hits(&search().ok()), found);
    describe("org/other");
    search().failed(&["org/other", "org--other", "exsearch model pull"]);
    describe(encoder("sentence").to_str().expect("a path in UTF-8"));
    search().failed(&["it is no cross-encoder", "classifier.weight"]);
    run("index {} --out {} --kind dense --encoder {}", &[&SMALL.passages(), &folder.path().join("dense"), &pulled])
        .failed(&["it is a cross-encoder", "it can rerank"]);
}

#[cfg(not(feature = "ort"))]
#[test]
fn an_onnx_encoder_needs_a_feature_of_the_build() {
    let folder = folder();
    let onnx = encoder("sentence/onnx/model_quantized.onnx");
    run("index {} --out {} --kind dense --encoder {}", &[&SMALL.passages(), &folder.path().join("index"), &onnx])
        .failed(&["model_quantized.onnx cannot be run", "--features ort"]);
}

#[test]
fn a_file_describes_a_retriever() {
    let folder = folder();
    let (words, file) = (SMALL.index(), folder.path().join("retriever.toml"));
    let text = format!("kind = 'cached'\nretriever = {{ kind = 'bm25', index = '{}' }}\n", words.display());
    std::fs::write(&file, text).expect("written");
    assert_eq!(ids("mayor", &file), ids("mayor", &words));
    std::fs::write(&file, "kind = 'bm52'\nindex = 'x'\n").expect("written");
    run("search mayor --index {}", &[&file]).failed(&["retriever.toml", "bm52"]);
    let other = folder.path().join("other");
    run("index {} --out {} --kind dense --encoder {}", &[&SMALL.passages(), &other, &encoder("colbert")])
        .failed(&["ColBERT"]);
}
