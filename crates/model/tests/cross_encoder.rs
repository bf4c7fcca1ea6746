//! Scores against sentence-transformers and transformers on a small random checkpoint, and what is refused. The golden files
//! and the script that made them are in tests/golden.
use exsearch_model::ModelError;
use exsearch_model::encoder::{EncoderConfig, open_cross_encoder, open_encoder};
use exsearch_model::weights::{WeightDtype, Weights, write_safetensors};
use exsearch_schema::CrossEncoder;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Logits are sums of 40 products; the largest is about 3.
const TOLERANCE: f32 = 2e-5;

fn golden_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("JSON")
}

fn write_json(dir: &Path, name: &str, json: &Value) {
    std::fs::write(dir.join(name), json.to_string()).expect("written");
}

fn edit_json(dir: &Path, name: &str, field: &str, value: Value) {
    let mut json = read_json(&dir.join(name));
    json[field] = value;
    write_json(dir, name, &json);
}

/// A copy of the golden checkpoint, to be changed.
fn copy() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(golden_dir("cross")).expect("listed") {
        let path = file.expect("an entry").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    dir
}

/// Without the files of sentence-transformers it is as transformers saves it, and as most are published.
fn plain_copy() -> TempDir {
    let dir = copy();
    for name in ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"] {
        std::fs::remove_file(dir.path().join(name)).expect("deleted");
    }
    dir
}

fn open(dir: &Path) -> Box<dyn CrossEncoder> {
    open_cross_encoder(dir).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(dir: &Path) -> String {
    open_cross_encoder(dir).err().expect("it is refused").to_string()
}

/// Asserts that every pair of the golden texts has the score that the golden file has under a name.
#[track_caller]
fn check(encoder: &dyn CrossEncoder, name: &str) {
    let golden = read_json(&golden_dir("cross/golden.json"));
    let texts: Vec<&str> = golden["texts"].as_array().expect("texts").iter().filter_map(Value::as_str).collect();
    let expected: Vec<Vec<f32>> = serde_json::from_value(golden[name].clone()).expect("rows of numbers");
    assert_eq!(expected.len(), texts.len());
    for (query, expected) in texts.iter().zip(&expected) {
        let scores = encoder.score(query, &texts).expect("scored");
        assert_eq!(scores.len(), expected.len());
        for ((score, expected), passage) in scores.iter().zip(expected).zip(&texts) {
            assert!((score - expected).abs() < TOLERANCE, "{query} / {passage}: {score} != {expected}");
        }
    }
}

#[test]
fn scores_agree_with_sentence_transformers() {
    check(&*open(&golden_dir("cross")), "scores");
}

#[test]
fn the_activation_is_read_from_the_files_of_every_version() {
    let identity = "torch.nn.modules.linear.Identity";
    let dir = copy();
    edit_json(dir.path(), "config_sentence_transformers.json", "activation_fn", json!(identity));
    check(&*open(dir.path()), "logits");

    let dir = plain_copy();
    check(&*open(dir.path()), "scores");
    edit_json(dir.path(), "config.json", "sbert_ce_default_activation_function", json!(identity));
    check(&*open(dir.path()), "logits");
    let newer = json!({"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.1.0"});
    edit_json(dir.path(), "config.json", "sentence_transformers", newer);
    check(&*open(dir.path()), "scores");
}

#[test]
fn a_score_has_the_same_bits_in_any_company_and_on_any_threads() {
    let words = ["the capital", "paris, city!", "x", "who wrote what of the largest play in france", ""];
    let passages: Vec<String> = (0..90).map(|idx| words[idx % 5].repeat(1 + idx % 7)).collect();
    let passages: Vec<&str> = passages.iter().map(String::as_str).collect();
    let encoder = open(&golden_dir("cross"));
    for query in ["capital of france", ""] {
        let alone: Vec<f32> =
            passages.iter().map(|passage| encoder.score(query, &[passage]).expect("scored")[0]).collect();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let score = |passages: &[&str]| pool.install(|| encoder.score(query, passages)).expect("scored");
            assert_eq!(score(&passages), alone, "{threads}");
            // Fewer packs than threads: each step is spread over them.
            assert_eq!(score(&passages[..3]), alone[..3], "{threads}");
        }
    }
    assert!(encoder.score("query", &[]).expect("nothing").is_empty());
}

#[test]
fn query_and_passage_are_told_apart() {
    let encoder = open(&golden_dir("cross"));
    let (one, other) = ("what is the capital of france", "paris is the largest city");
    let forwards = encoder.score(one, &[other]).expect("scored");
    assert_ne!(forwards, encoder.score(other, &[one]).expect("scored"));
    // A marker that a text spells is text: it does not end the query.
    let spelled = encoder.score("paris [SEP] city", &["x"]).expect("scored");
    assert_ne!(spelled, encoder.score("paris", &["city [SEP] x"]).expect("scored"));
}

/// The checkpoint with one of its tensors left out or replaced by zeros of another shape.
fn with_tensor(name: &str, shape: Option<&[usize]>) -> TempDir {
    let dir = copy();
    let weights = Weights::open(&golden_dir("cross")).expect("it opens");
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for tensor in names.iter().filter(|tensor| *tensor != name) {
        let shape = weights.shape(tensor).expect("listed").to_vec();
        tensors.push((tensor.clone(), shape.clone(), weights.tensor_f32(tensor, &shape).expect("read")));
    }
    tensors.extend(shape.map(|shape| (name.to_owned(), shape.to_vec(), vec![0.0; shape.iter().product()])));
    let tensors = tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice()));
    write_safetensors(&dir.path().join("model.safetensors"), tensors, WeightDtype::F32).expect("written");
    dir
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    let check = |dir: &Path, message: &str| {
        let error = refusal(dir);
        assert!(error.contains(message), "{error}");
    };
    let empty = tempfile::tempdir().expect("a folder");
    check(empty.path(), "has no config.json");
    check(&golden_dir("llama_tied"), "architecture `llama`; known ones: bert");
    check(&golden_dir("colbert"), "it is no cross-encoder: its weights hold no `classifier.weight`");
    check(with_tensor("classifier.weight", Some(&[3, 40])).path(), "a score for each of 3 labels instead of one");
    check(with_tensor("bert.pooler.dense.weight", None).path(), "holds no tensor `bert.pooler.dense.weight`");
    check(with_tensor("classifier.bias", Some(&[2])).path(), "`classifier.bias` has shape [2] where [1] is needed");

    let transformer = json!({"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"});
    let other = json!({"idx": 1, "name": "1", "path": "1_LogitScore", "type": "sentence_transformers.x.LogitScore"});
    let prompted = json!({"default_prompt_name": "query", "prompts": {"query": "find: "}});
    for (file, field, value, message) in [
        (
            "config_sentence_transformers.json",
            "activation_fn",
            json!("torch.nn.ReLU"),
            "the activation `torch.nn.ReLU`",
        ),
        ("config_sentence_transformers.json", "", prompted, "the prompt `query` before every pair"),
        ("modules.json", "", json!([transformer, other]), "LogitScore` in place 1"),
        ("config.json", "type_vocab_size", json!(1), "`type_vocab_size` is 1"),
        ("sentence_bert_config.json", "max_seq_length", json!(4), "pairs of at most 4 tokens: they need 5"),
        ("config.json", "vocab_size", json!(50), "belongs to another model"),
    ] {
        let dir = copy();
        match field {
            "" => write_json(dir.path(), file, &value),
            field => edit_json(dir.path(), file, field, value),
        }
        check(dir.path(), message);
    }
}

#[test]
fn a_cross_encoder_is_no_encoder() {
    let refused = open_encoder(&golden_dir("cross"), None, &EncoderConfig::default()).err().expect("it is refused");
    assert!(matches!(refused, ModelError::InvalidConfig { .. }) && refused.to_string().contains("it can rerank"));
}
