//! `exsearch ask` with a tiny random model, and with folders that are no usable models.
use crate::common::{SMALL, exsearch, folder, run};
use exsearch_schema::Trajectory;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name)
}

/// A copy of the weights of a tiny Llama, which has no tokenizer.
fn copy_of_llama(dir: &Path) {
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(golden("llama_tied").join(name), dir.join(name)).expect("copied");
    }
}

fn ask(model: &Path) -> crate::common::Ran {
    run("ask who? --model {} --index {}", &[model, &SMALL.index()])
}

#[test]
fn a_folder_that_is_no_model_is_told_what_it_lacks() {
    let folder = folder();
    ask(folder.path()).failed(&["has no config.json", "pull"]);
    copy_of_llama(folder.path());
    ask(folder.path()).failed(&["has no tokenizer.json"]);
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).expect("cut");
    ask(folder.path()).failed(&["model.safetensors is damaged", "fetch the model again"]);
    std::fs::remove_file(&weights).expect("removed");
    ask(folder.path()).failed(&["has no model.safetensors"]);
    ask(Path::new("no-such-model")).failed(&["no-such-model is no folder", "exsearch model pull"]);
    ask(&golden("llama_tied/adapter")).failed(&["is an adapter", "--adapter"]);
}

/// A model folder from a GGUF file, its context made long enough for a dialogue. Its weights are random.
pub(crate) fn tiny_model(dir: &Path) -> PathBuf {
    let model = dir.join("tiny");
    run("model import {} --out {}", &[&golden("tiny_llama.gguf"), &model]).ok();
    let path = model.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("a config")).expect("JSON");
    config["max_position_embeddings"] = 1500.into();
    std::fs::write(&path, config.to_string()).expect("written");
    model
}

#[test]
fn even_a_random_model_gives_a_whole_trajectory() {
    let folder = folder();
    let (model, index) = (tiny_model(folder.path()), SMALL.index());
    let words =
        ["ask", "Where was she born?", "--temperature", "1", "--seed", "3", "--json", "--index"].map(OsStr::new);
    let json = || exsearch(words.into_iter().chain([index.as_os_str(), OsStr::new("--model"), model.as_os_str()]));
    let [first, second] = [json(), json()].map(|ran| {
        let mut trajectory: Trajectory = serde_json::from_str(&ran.stdout).expect("a trajectory");
        assert!(ran.stderr.contains("takes dialogues of 1500 tokens at most"), "{ran:?}");
        assert!(trajectory.secs > 0.0);
        trajectory.secs = 0.0;
        trajectory
    });
    assert_eq!(first.question, "Where was she born?");
    assert!(first.n_tokens() > 0);
    assert_eq!(first, second, "the same seed draws the same");
    let shown = run("ask who? --temperature 1 --model {} --index {}", &[&model, &index]);
    assert!(shown.stdout.contains("tokens of which"), "{shown:?}");
}

#[test]
fn bad_settings_are_told_before_the_model_is_opened() {
    let folder = folder();
    let protocol = folder.path().join("protocol.toml");
    let check = |options: &str, expect: &[&str]| {
        run(&format!("ask who? {options} --model {{}} --index {{}}"), &[folder.path(), &SMALL.index()]).failed(expect);
    };
    check("-k 0", &["top_k"]);
    check("--top-p 2", &["top_p"]);
    check("--max-tokens 10", &["max_dialogue_tokens"]);
    std::fs::write(&protocol, "think = 3").expect("written");
    check(&format!("--protocol {}", protocol.display()), &["protocol.toml"]);
}
