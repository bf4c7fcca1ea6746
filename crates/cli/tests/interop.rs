//! What we train and write is loaded by transformers and PEFT and computes the same logits there. Needs Python, so it runs by
//! `runs/interop.sh` only; `interop.py` beside this file is the other side.
use exsearch_model::checkpoint::{load_decoder, merge, save_adapter, save_decoder};
use exsearch_model::decoder::{Adapter, Chunk, Decoder, KvCache, Workspace};
use exsearch_model::weights::WeightDtype;
use exsearch_schema::Example;
use exsearch_trainer::{Method, Student, TrainConfig, train};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const TOLERANCE: f32 = 2e-4;
const MAX_TOKENS: usize = 64;

/// A folder to be loaded elsewhere, and the logits `[t, v]` that we compute with what was written to it.
struct Written {
    name: String,
    model: PathBuf,
    adapter: Option<PathBuf>,
    logits: Vec<f32>,
}

#[test]
#[ignore = "needs Python with torch, transformers and peft: EXSEARCH_TEST_PYTHON"]
#[expect(clippy::print_stderr, reason = "how close it came is worth knowing where it passes too")]
fn transformers_and_peft_compute_our_logits_from_what_we_write() {
    let folder = tempfile::tempdir().expect("a folder");
    // Every family; tied and untied heads, biases, norms, windows, rotations and heads that are not hidden / n wide.
    let names = ["llama_tied", "llama_untied", "llama_biased", "mistral", "qwen2", "qwen3", "gemma3"];
    let written: Vec<Written> = names.iter().flat_map(|name| write_all(name, &folder.path().join(name))).collect();
    let theirs = load_with_python(&written, folder.path());
    for (ours, theirs) in written.iter().zip(&theirs) {
        assert_eq!(ours.logits.len(), theirs.len(), "{}", ours.name);
        let differences = ours.logits.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs());
        let largest = differences.fold(0.0, f32::max);
        eprintln!("{}: largest difference {largest:.1e}", ours.name);
        assert!(largest < TOLERANCE, "{}: {largest}", ours.name);
    }
}

/// Trains an adapter and, apart from it, every parameter of a golden model, and writes all that we write.
fn write_all(name: &str, folder: &Path) -> Vec<Written> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name);
    let open = || load_decoder(&base, MAX_TOKENS).expect("a golden model");
    let (mut decoder, mut full) = (open(), open());
    let untrained = logits(&decoder, None);
    let settings = |method| TrainConfig { method, epochs: 2, learning_rate: 1e-2, ..TrainConfig::default() };

    let mut adapter = settings(Method::Lora).new_adapter(&decoder);
    let student = Student::Adapter { decoder: &decoder, adapter: &mut adapter };
    train(student, &[example()], &settings(Method::Lora), &mut |_| ()).expect("two steps");
    save_adapter(&adapter, &base, &folder.join("adapter")).expect("written");
    let with_adapter = logits(&decoder, Some(&adapter));

    merge(&mut decoder, &adapter);
    save_decoder(&decoder, &base, &folder.join("merged"), WeightDtype::F32).expect("written");
    let merged = logits(&decoder, None);

    train(Student::Full(&mut full), &[example()], &settings(Method::Full), &mut |_| ()).expect("two steps");
    save_decoder(&full, &base, &folder.join("full"), WeightDtype::F32).expect("written");
    let full = logits(&full, None);

    for trained in [&with_adapter, &full] {
        let changed = trained.iter().zip(&untrained).any(|(after, before)| (after - before).abs() > 100.0 * TOLERANCE);
        assert!(changed, "training leaves a mark that the comparison can see");
    }
    let written = |kind: &str, model: PathBuf, adapter, logits| {
        let name = format!("{name}, {kind}");
        Written { name, model, adapter, logits }
    };
    vec![
        written("adapter", base.clone(), Some(folder.join("adapter")), with_adapter),
        written("merged adapter", folder.join("merged"), None, merged),
        written("full training", folder.join("full"), None, full),
    ]
}

/// The logits that Python computes, in the same order.
fn load_with_python(written: &[Written], folder: &Path) -> Vec<Vec<f32>> {
    let python = std::env::var_os("EXSEARCH_TEST_PYTHON")
        .expect("EXSEARCH_TEST_PYTHON names a Python with torch, transformers and peft");
    let case = |it: &Written| json!({ "model": it.model, "adapter": it.adapter, "ids": ids() });
    let cases = folder.join("cases.json");
    std::fs::write(&cases, Value::from_iter(written.iter().map(case)).to_string()).expect("written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop.py");
    let output = Command::new(python).arg(script).arg(&cases).env("HF_HUB_OFFLINE", "1").output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("lists of logits")
}

fn logits(decoder: &Decoder, adapter: Option<&Adapter>) -> Vec<f32> {
    let (ids, mut cache) = (ids(), KvCache::new(decoder.config()));
    let wanted: Vec<usize> = (0..ids.len()).collect();
    let mut chunks = [Chunk { cache: &mut cache, tokens: &ids }];
    let hidden = decoder.forward(adapter, &mut chunks, &wanted, &mut Workspace::default());
    let mut logits = Vec::new();
    decoder.logits(&hidden, &mut logits);
    logits
}

fn ids() -> Vec<u32> {
    (0..48).map(|position| 3 + position * 37 % 77).collect()
}

/// Learns all ids but the first.
fn example() -> Example {
    let ids = ids();
    let loss_mask = (0..ids.len()).map(|idx| u8::from(idx > 0)).collect();
    Example { question_id: "interop".into(), sample_idx: 0, ids, loss_mask, weight: 1.0, target_weights: Vec::new() }
}
