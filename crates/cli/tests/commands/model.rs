//! `exsearch model` without a network.
use crate::common::{command, folder, run};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name)
}

#[test]
fn a_gguf_file_is_pulled_once_and_found_by_its_name() {
    let folder = folder();
    let pull = || run("model pull {} --out {}", &[&golden("tiny_llama.gguf"), folder.path()]).ok();
    let printed = pull();
    assert_eq!(Path::new(printed.trim_end()), folder.path().join("tiny_llama"));
    assert_eq!(pull(), printed);
    let ran = command(["model", "info", "tiny_llama"]).env("EXSEARCH_MODELS", folder.path()).output().expect("it runs");
    let info = String::from_utf8(ran.stdout).expect("text");
    for part in [
        "LlamaForCausalLM",
        "94,528 in 20 tensors",
        "4.0 bytes a parameter",
        "320 tokens",
        "present",
        "for a dialogue of 256 tokens",
    ] {
        assert!(info.contains(part), "`{part}` is not in {info}");
    }
}

#[test]
fn what_cannot_be_pulled_is_told_and_the_token_never() {
    let folder = folder();
    let pull = |spec: &str| {
        let ran = command(["model", "pull", spec, "--offline", "--out"])
            .arg(folder.path())
            .env("HF_TOKEN", "hf_secret")
            .output()
            .expect("it runs");
        let ran = crate::common::Ran::from(ran);
        assert!(!ran.stderr.contains("hf_secret") && ran.stdout.is_empty(), "{ran:?}");
        ran
    };
    pull("someone/some-model").failed(&["offline"]);
    pull("no such model").failed(&["no such model"]);
    pull("missing.gguf").failed(&["missing.gguf"]);
}

#[test]
fn an_adapter_is_merged_into_a_new_folder() {
    let folder = folder();
    let (base, out) = (golden("llama_tied"), folder.path().join("merged"));
    let adapter = base.join("adapter");
    run("model merge --model {} --adapter {} --out {}", &[&base, &adapter, &out]).ok();
    let bytes = |dir: &Path| std::fs::read(dir.join("model.safetensors")).expect("weights");
    assert_ne!(bytes(&base), bytes(&out));
    assert!(run("model info {}", &[&out]).ok().contains("94,528"));
    run("model merge --model {} --adapter {} --out {}", &[&base, &adapter, &out]).failed(&["is not empty"]);
    let other = folder.path().join("other");
    run("model merge --model {} --adapter {} --out {}", &[&base, &base, &other]).failed(&["is no adapter"]);
    run("model merge --model {} --adapter {} --out {}", &[&adapter, &adapter, &other]).failed(&["is an adapter"]);
    let half = folder.path().join("half");
    run("model merge --dtype bf16 --model {} --adapter {} --out {}", &[&base, &adapter, &half]).ok();
    assert!(bytes(&half).len() < bytes(&out).len() * 6 / 10);
}

#[test]
fn encoders_are_described() {
    let check = |name: &str, parts: &[&str]| {
        let info = run("model info {}", &[&golden(name)]).ok();
        for part in parts {
            assert!(info.contains(part), "`{part}` is not in {info}");
        }
    };
    check(
        "sentence",
        &[
            "sentence-transformers",
            "48 dimensions, one a text",
            "pooling       mean",
            "safetensors in F32",
            "2 of width 48, 96 inside the MLP",
            "3 heads of width 16",
            "context       64 tokens",
            "queries       up to 24 tokens, behind \"query: \"",
            "passages      up to 24 tokens, behind \"passage: \"",
        ],
    );
    check(
        "colbert",
        &["colbert-ai", "one a token", "pooling       none", "filled up with [MASK], marked [unused0]", "punctuation"],
    );
    // The same checkpoint without what sentence-transformers adds.
    let plain = folder();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(golden("sentence").join(name), plain.path().join(name)).expect("copied");
    }
    let info = run("model info {}", &[plain.path()]).ok();
    assert!(info.contains("BERT text encoder") && info.contains("up to 64 tokens, no prefix"), "{info}");
    std::fs::remove_file(plain.path().join("model.safetensors")).expect("removed");
    run("model info {}", &[plain.path()]).failed(&["model.safetensors"]);
}
