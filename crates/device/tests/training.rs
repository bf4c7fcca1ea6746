//! Two optimizer steps against torch + transformers + peft on small random checkpoints, and the checkpoints that they leave.
#![cfg(feature = "burn")]
mod common;

use common::{CHECKPOINTS, MAX_TOKENS, folder, golden, model, numbers};
use exsearch_device::{DeviceModel, Precision};
use exsearch_model::checkpoint::{is_adapter, load_adapter, load_decoder};
use exsearch_model::decoder::{Chunk, KvCache, Workspace};
use exsearch_schema::Example;
use exsearch_trainer::{Method, Schedule, StepReport, Student, TrainConfig};
use serde_json::Value;
use std::path::Path;

const TOLERANCE: f64 = 5e-4;

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
        target_weights: Vec::new(),
    })
    .collect()
}

fn config(method: Method, activation_mb: usize) -> TrainConfig {
    TrainConfig {
        method,
        learning_rate: 1e-3,
        epochs: 2,
        batch_size: 2,
        warmup_ratio: 0.0,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        activation_mb,
        ..TrainConfig::default()
    }
}

fn train(
    model: &mut DeviceModel,
    examples: &[Example],
    config: &TrainConfig,
    base: &Path,
    dir: &Path,
) -> Vec<StepReport> {
    let mut steps = Vec::new();
    model.train(examples, config, (base, dir), &mut |step| steps.push(step.clone())).expect("trained");
    steps
}

/// The last logits of a checkpoint, as the decoder on CPU computes them from its files.
fn logits_of(dir: &Path, base: &Path, ids: &[u32]) -> Vec<f32> {
    let decoder = load_decoder(if is_adapter(dir) { base } else { dir }, MAX_TOKENS).expect("a checkpoint");
    let adapter = is_adapter(dir).then(|| load_adapter(dir, decoder.config()).expect("an adapter"));
    let mut cache = KvCache::new(decoder.config());
    let mut chunks = [Chunk { cache: &mut cache, tokens: ids }];
    let exact = decoder.inference(adapter.as_ref(), None);
    let hidden = exact.forward(&mut chunks, &[ids.len() - 1], &mut Workspace::default());
    let mut logits = Vec::new();
    decoder.logits(&hidden, &mut logits);
    logits
}

fn check(name: &str, method: Method, activation_mb: usize) {
    let (golden, base) = (golden(name), folder(name));
    let expected = &golden[if method == Method::Full { "full" } else { "lora" }];
    let mut model = model(name, Precision::F32);
    if method == Method::Lora {
        model.load_checkpoint(&base.join("adapter")).expect("an adapter");
    }
    let temporary = tempfile::tempdir().expect("a folder");
    let dir = temporary.path().join("checkpoint");
    let examples = examples(&golden);
    let steps = train(&mut model, &examples, &config(method, activation_mb), &base, &dir);
    let expected_steps = &expected["steps"].as_array().expect("steps")[..2];
    assert_eq!(steps.len(), 2);
    for (step, expected) in steps.iter().zip(expected_steps) {
        for (field, actual) in [("loss", step.loss), ("grad_norm", step.grad_norm)] {
            let expected = expected[field].as_f64().expect("a number");
            assert!((actual - expected).abs() < TOLERANCE * expected.abs(), "{name} {field}: {actual} != {expected}");
        }
    }
    let actual = logits_of(&dir, &base, &examples[0].ids);
    for (actual, expected) in actual.iter().zip(numbers::<Vec<f32>>(&expected["logits_after"])) {
        assert!((actual - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{name}: {actual} != {expected}");
    }
}

#[test]
fn two_full_steps_agree_with_torch() {
    for name in CHECKPOINTS {
        check(name, Method::Full, 1024);
    }
}

#[test]
fn two_lora_steps_agree_with_peft() {
    for name in CHECKPOINTS {
        check(name, Method::Lora, 1024);
    }
}

#[test]
fn layers_that_are_computed_again_give_the_same() {
    for method in [Method::Full, Method::Lora] {
        check("qwen2", method, 0);
    }
}

#[test]
fn examples_of_different_lengths_are_padded_beside_each_other() {
    for name in CHECKPOINTS {
        check_beside_cpu(name, TrainConfig { batch_size: 3, ..config(Method::Full, 1024) });
    }
}

#[test]
fn penalties_and_weights_of_tokens_are_those_of_the_cpu() {
    let penalized = TrainConfig { anchor_kl: 0.5, likelihood_drop_penalty: 0.5, ..config(Method::Full, 1024) };
    check_beside_cpu("qwen2", TrainConfig { batch_size: 3, ..penalized });
}

/// Steps on five examples of different lengths; with penalties, every other one weighs its tokens differently.
fn check_beside_cpu(name: &str, config: TrainConfig) {
    let (base, temporary) = (folder(name), tempfile::tempdir().expect("a folder"));
    let mut cut = Vec::new();
    for (idx, mut example) in examples(&golden(name)).into_iter().cycle().take(5).enumerate() {
        let length = example.ids.len() - 3 * idx;
        example.ids.truncate(length);
        example.loss_mask.truncate(length);
        if config.anchor_kl > 0.0 && idx % 2 == 1 {
            let weight = |target: usize| if target % 3 == 0 { -0.25 } else { 0.5 };
            example.target_weights = (0..example.n_target_tokens()).map(weight).collect();
        }
        cut.push(example);
    }
    let (mut expected, mut decoder) = (Vec::new(), load_decoder(&base, MAX_TOKENS).expect("a checkpoint"));
    exsearch_trainer::train(Student::Full(&mut decoder), &cut, &config, &mut |step| expected.push(step.clone()))
        .expect("trained");
    let dir = temporary.path().join("checkpoint");
    let steps = train(&mut model(name, Precision::F32), &cut, &config, &base, &dir);
    assert_eq!(steps.len(), expected.len());
    for (step, expected) in steps.iter().zip(&expected) {
        let close = |a: f64, b: f64| (a - b).abs() < TOLERANCE * b.abs();
        assert!(close(step.loss, expected.loss) && close(step.nll, expected.nll), "{name}: {step:?} {expected:?}");
        assert!(close(step.grad_norm, expected.grad_norm), "{name}: {step:?} {expected:?}");
        assert_eq!((step.n_tokens, step.n_target_tokens), (expected.n_tokens, expected.n_target_tokens));
    }
}

#[test]
fn a_checkpoint_goes_on_where_training_ended() {
    let (name, temporary) = ("llama_tied", tempfile::tempdir().expect("a folder"));
    let (base, golden) = (folder(name), golden(name));
    let (lora, full) = (temporary.path().join("lora"), temporary.path().join("full"));
    let mut model = model(name, Precision::F32);
    let examples = examples(&golden);
    let first = train(&mut model, &examples, &config(Method::Lora, 1024), &base, &lora);
    let mut loaded = common::model(name, Precision::F32);
    loaded.load_checkpoint(&lora).expect("an adapter");
    // Full training makes the adapter part of the decoder first.
    let [on, again] = [&mut model, &mut loaded].map(|model| {
        let _ = std::fs::remove_dir_all(&full);
        train(model, &examples, &config(Method::Full, 1024), &base, &full)
    });
    assert!(on[0].loss < first[0].loss, "{first:?} {on:?}");
    assert!((on[1].loss - again[1].loss).abs() < 1e-6, "{on:?} {again:?}");
}

#[test]
fn training_in_bf16_learns_by_steps_below_its_resolution() {
    if !common::device().supports_dtype(burn_tensor::DType::BF16) {
        return;
    }
    let (name, temporary) = ("llama_tied", tempfile::tempdir().expect("a folder"));
    let (base, golden) = (folder(name), golden(name));
    let examples = examples(&golden);
    // 40 steps of 2e-5 are 8e-4; a bf16 weight of 0.2 moves in steps of 1e-3 and would stay where it is.
    let config = TrainConfig { learning_rate: 2e-5, epochs: 40, ..config(Method::Full, 1024) };
    let mut model = model(name, Precision::Bf16);
    let steps = train(&mut model, &examples, &config, &base, &temporary.path().join("checkpoint"));
    let (first, last) = (steps[0].loss, steps[steps.len() - 1].loss);
    assert!(last < first - 1e-3, "{first} {last}");
}
