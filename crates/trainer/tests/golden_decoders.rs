//! Two optimizer steps against torch + transformers + peft on small random checkpoints. The golden files and the script that
//! made them are in `crates/model/tests/golden`.
use exsearch_model::checkpoint::{load_adapter, load_decoder};
use exsearch_model::decoder::{Adapter, BackwardWeights, Chunk, Decoder, KvCache, Workspace};
use exsearch_schema::Example;
use exsearch_trainer::{Method, Schedule, StepReport, Student, TrainConfig, train};
use serde_json::Value;
use std::path::PathBuf;

/// One of each family, and of each switch of one. The rows of those with windows are longer than them.
const CHECKPOINTS: &[&str] = &["llama_tied", "llama_untied", "llama_biased", "mistral", "qwen2", "qwen3", "gemma3"];
const MAX_TOKENS: usize = 128;
const TOLERANCE: f64 = 2e-4;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name)
}

fn golden(name: &str) -> Value {
    let path = folder(name).join("golden.json");
    serde_json::from_slice(&std::fs::read(path).expect("the golden file is committed")).expect("JSON")
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).expect("a list of numbers")
}

fn examples(golden: &Value) -> Vec<Example> {
    let rows = |field: &str| golden[field].as_array().expect("a list").clone();
    let weights: Vec<f32> = numbers(&golden["weights"]);
    let rows = rows("input_ids").into_iter().zip(rows("loss_mask")).zip(weights).enumerate();
    rows.map(|(idx, ((ids, mask), weight))| Example {
        question_id: format!("row {idx}"),
        sample_idx: 0,
        ids: numbers(&ids),
        loss_mask: numbers(&mask),
        weight,
    })
    .collect()
}

fn config(method: Method) -> TrainConfig {
    TrainConfig {
        method,
        learning_rate: 1e-3,
        epochs: 2,
        batch_size: 2,
        warmup_ratio: 0.0,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        ..TrainConfig::default()
    }
}

fn last_logits(decoder: &Decoder, adapter: Option<&Adapter>, ids: &[u32]) -> Vec<f32> {
    let mut cache = KvCache::new(decoder.config());
    let mut chunks = [Chunk { cache: &mut cache, tokens: ids }];
    let hidden = decoder.forward(adapter, &mut chunks, &[ids.len() - 1], &mut Workspace::default());
    let mut logits = Vec::new();
    decoder.logits(&hidden, &mut logits);
    logits
}

fn check_steps(steps: &[StepReport], expected: &Value) {
    let expected = expected["steps"].as_array().expect("two steps");
    assert_eq!(steps.len(), expected.len());
    for (step, expected) in steps.iter().zip(expected) {
        for (name, actual) in [("loss", step.loss), ("grad_norm", step.grad_norm)] {
            let expected = expected[name].as_f64().expect("a number");
            assert!((actual - expected).abs() < TOLERANCE * expected.abs(), "{name}: {actual} != {expected}");
        }
    }
}

fn check_logits(actual: &[f32], expected: &Value) {
    let expected: Vec<f32> = numbers(expected);
    assert_eq!(actual.len(), expected.len());
    for (idx, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        assert!((actual - expected).abs() < 1e-3 * (1.0 + expected.abs()), "logit {idx}: {actual} != {expected}");
    }
}

#[test]
fn two_full_steps_agree_with_torch() {
    for name in CHECKPOINTS {
        let (golden, mut steps) = (golden(name), Vec::new());
        let mut decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        let examples = examples(&golden);
        train(Student::Full(&mut decoder), &examples, &config(Method::Full), &mut |step| steps.push(step.clone()))
            .expect("trained");
        check_steps(&steps, &golden["full"]);
        check_logits(&last_logits(&decoder, None, &examples[0].ids), &golden["full"]["logits_after"]);
    }
}

#[test]
fn two_lora_steps_agree_with_peft() {
    for name in CHECKPOINTS {
        let (golden, mut steps) = (golden(name), Vec::new());
        let decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        let mut adapter = load_adapter(&folder(name).join("adapter"), decoder.config()).expect("an adapter");
        let examples = examples(&golden);
        let before = last_logits(&decoder, Some(&adapter), &examples[0].ids);
        check_logits(&before, &golden["lora"]["logits_before"]);
        let backward = BackwardWeights::new(decoder.parameters());
        let student = Student::Adapter { decoder: &decoder, backward: &backward, adapter: &mut adapter };
        train(student, &examples, &config(Method::Lora), &mut |step| steps.push(step.clone())).expect("trained");
        check_steps(&steps, &golden["lora"]);
        check_logits(&last_logits(&decoder, Some(&adapter), &examples[0].ids), &golden["lora"]["logits_after"]);

        let mut merged = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        exsearch_model::checkpoint::merge(&mut merged, &adapter);
        check_logits(&last_logits(&merged, None, &examples[0].ids), &golden["lora"]["logits_after"]);
    }
}

#[test]
fn weights_scale_what_is_learned() {
    // METHOD.md section 5 defect 1: a larger weight must pull harder towards its example, never less.
    let name = "llama_tied";
    let gain = |weight: f32| {
        let mut decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        let mut pair = examples(&golden(name));
        pair[0].weight = weight;
        pair[1].weight = 1.0 - weight;
        let mut nll = Vec::new();
        let only_first = vec![pair[0].clone()];
        train(Student::Full(&mut decoder), &pair, &config(Method::Full), &mut |_| ()).expect("trained");
        train(Student::Full(&mut decoder), &only_first, &config(Method::Full), &mut |step| nll.push(step.nll))
            .expect("measured");
        nll[0]
    };
    let losses = [gain(0.1), gain(0.5), gain(0.9)];
    assert!(losses[0] > losses[1] && losses[1] > losses[2], "{losses:?}");
}
