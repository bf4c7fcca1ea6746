//! Optimizer steps against torch + transformers + peft on small random checkpoints. The golden files and the script that
//! made them are in `crates/model/tests/golden`.
use exsearch_model::checkpoint::{load_adapter, load_decoder};
use exsearch_model::decoder::{Adapter, Chunk, Decoder, KvCache, Workspace};
use exsearch_schema::Example;
use exsearch_trainer::{Method, Schedule, StepReport, Student, TrainConfig, TrainError, train};
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
        target_weights: Vec::new(),
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
    let expected = expected["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 2);
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
        let student = Student::Adapter { decoder: &decoder, adapter: &mut adapter };
        train(student, &examples, &config(Method::Lora), &mut |step| steps.push(step.clone())).expect("trained");
        check_steps(&steps, &golden["lora"]);
        check_logits(&last_logits(&decoder, Some(&adapter), &examples[0].ids), &golden["lora"]["logits_after"]);

        let mut merged = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        exsearch_model::checkpoint::merge(&mut merged, &adapter);
        check_logits(&last_logits(&merged, None, &examples[0].ids), &golden["lora"]["logits_after"]);
    }
}

/// What a difference of the last bit grows to in twenty steps stays far from what a wrong update would make of the loss.
#[test]
fn twenty_steps_lose_what_torchs_lose() {
    for name in CHECKPOINTS {
        let golden = golden(name);
        for method in [Method::Full, Method::Lora] {
            let mut decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
            let mut adapter = load_adapter(&folder(name).join("adapter"), decoder.config()).expect("an adapter");
            let (student, expected) = match method {
                Method::Full => (Student::Full(&mut decoder), &golden["full"]["steps"]),
                Method::Lora => {
                    (Student::Adapter { decoder: &decoder, adapter: &mut adapter }, &golden["lora"]["steps"])
                }
            };
            let mut losses = Vec::new();
            let config = TrainConfig { epochs: 20, ..config(method) };
            train(student, &examples(&golden), &config, &mut |step| losses.push(step.loss)).expect("trained");
            let expected: Vec<f64> =
                expected.as_array().expect("steps").iter().map(|step| step["loss"].as_f64().expect("a loss")).collect();
            assert_eq!(losses.len(), expected.len());
            for (step, (loss, expected)) in losses.iter().zip(&expected).enumerate() {
                assert!((loss - expected).abs() < 1e-3 * expected, "{name} {method:?} {step}: {loss} != {expected}");
            }
            assert!(losses[19] < 0.9 * losses[0], "{name} {method:?}: it learned, {losses:?}");
        }
    }
}

#[test]
fn steps_without_a_finite_gradient_are_left_out_and_five_in_a_row_end_it() {
    let name = "llama_tied";
    let mut decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
    let mut broken = examples(&golden(name));
    // Finite, but not when it is multiplied with the loss.
    broken.iter_mut().for_each(|example| example.weight = f32::MAX);
    let before = last_logits(&decoder, None, &broken[0].ids);
    let mut steps = Vec::new();
    let settings = TrainConfig { epochs: 9, ..config(Method::Full) };
    let error = train(Student::Full(&mut decoder), &broken, &settings, &mut |step| steps.push(step.clone()));
    assert_eq!(error, Err(TrainError::Diverged(5)));
    assert!(steps.len() == 4 && steps.iter().all(|step| step.skipped), "{steps:?}");
    assert_eq!(last_logits(&decoder, None, &broken[0].ids), before, "a skipped step changes nothing");
}

#[test]
fn a_long_gradient_is_scaled_down_to_the_norm() {
    // Plain AdamW does not feel a gradient's length in its first step, so ε is made to feel it: a step is then lr · g / ε.
    let name = "llama_tied";
    let step = |max_grad_norm: f32| {
        let mut decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        let before: Vec<f32> = decoder.parameters_mut().slices_mut().concat();
        let settings = TrainConfig {
            epochs: 1,
            epsilon: 1e6,
            learning_rate: 1e6,
            weight_decay: 0.0,
            max_grad_norm,
            ..config(Method::Full)
        };
        let mut norm = 0.0;
        train(Student::Full(&mut decoder), &examples(&golden(name)), &settings, &mut |step| norm = step.grad_norm)
            .expect("trained");
        let after: Vec<f32> = decoder.parameters_mut().slices_mut().concat();
        let moved: f64 = after.iter().zip(&before).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (moved.sqrt(), norm)
    };
    let ((whole, norm), (clipped, same_norm)) = (step(1e9), step(0.125));
    assert!((whole - norm).abs() < 1e-2 * norm, "{whole} is the gradient's length {norm}");
    assert!((clipped - 0.125).abs() < 1e-2 * 0.125 && norm > 0.25 && same_norm == norm, "{clipped}, {norm}");
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

fn train_llama(examples: &[Example], config: &TrainConfig) -> (Vec<StepReport>, Adapter) {
    let decoder = load_decoder(&folder("llama_tied"), MAX_TOKENS).expect("a checkpoint");
    let mut adapter = load_adapter(&folder("llama_tied").join("adapter"), decoder.config()).expect("an adapter");
    let mut steps = Vec::new();
    let student = Student::Adapter { decoder: &decoder, adapter: &mut adapter };
    train(student, examples, config, &mut |step| steps.push(step.clone())).expect("trained");
    (steps, adapter)
}

/// An example whose tokens count differently is the sum of two examples, each with some of the tokens.
#[test]
fn tokens_may_count_differently_and_below_zero() {
    let whole = examples(&golden("llama_tied")).swap_remove(0);
    let last = whole.loss_mask.iter().rposition(|mask| *mask == 1).expect("a target");
    let part = |is_answer: bool, weight: f32| {
        let mask = |(position, mask): (usize, &u8)| if (position == last) == is_answer { *mask } else { 0 };
        let loss_mask: Vec<u8> = whole.loss_mask.iter().enumerate().map(mask).collect();
        let target_weights = vec![weight; loss_mask.iter().filter(|mask| **mask == 1).count()];
        Example { loss_mask, target_weights, ..whole.clone() }
    };
    let parts = [part(false, -0.25), part(true, 0.75)];
    let mut target_weights = vec![-0.25; whole.n_target_tokens() - 1];
    target_weights.push(0.75);
    let whole = Example { target_weights, ..whole };
    let config = TrainConfig { epochs: 1, batch_size: 2, ..config(Method::Lora) };
    let ([one], [two]) =
        (&train_llama(std::slice::from_ref(&whole), &config).0[..], &train_llama(&parts, &config).0[..])
    else {
        panic!("one step each");
    };
    assert!((one.loss - two.loss).abs() < 1e-5, "{} {}", one.loss, two.loss);
    assert!((one.grad_norm - two.grad_norm).abs() < 1e-4 * one.grad_norm, "{} {}", one.grad_norm, two.grad_norm);
    assert_eq!(one.n_target_tokens, two.n_target_tokens);
    let refused = |example: Example| {
        let decoder = load_decoder(&folder("llama_tied"), MAX_TOKENS).expect("a checkpoint");
        let mut adapter = config.new_adapter(&decoder);
        let student = Student::Adapter { decoder: &decoder, adapter: &mut adapter };
        train(student, &[example], &config, &mut |_| {}).expect_err("refused").to_string()
    };
    assert!(refused(Example { target_weights: vec![1.0], ..whole.clone() }).contains("differ in number"));
    assert!(refused(Example { target_weights: Vec::new(), weight: -1.0, ..whole }).contains("below 0"));
}

/// Penalties are 0 at the start, so that the first step is the same; later they hold log-probs where they were.
#[test]
fn penalties_hold_what_has_been_learned_before() {
    let golden = golden("llama_tied");
    // One example pulls up, the other pushes down.
    let mut examples = examples(&golden);
    examples.truncate(2);
    examples[1].target_weights = vec![-0.5; examples[1].n_target_tokens()];
    let config = TrainConfig { epochs: 40, ..config(Method::Lora) };
    let nll_of = |config: &TrainConfig| {
        let (steps, _) = train_llama(&examples, config);
        (steps[0].clone(), (steps[0].nll - steps[steps.len() - 1].nll).abs())
    };
    let (first, free) = nll_of(&config);
    let (first_held, held) = nll_of(&TrainConfig { anchor_kl: 100.0, ..config.clone() });
    assert_eq!(first.grad_norm, first_held.grad_norm);
    assert!((first.loss - first_held.loss).abs() < 1e-6, "{} {}", first.loss, first_held.loss);
    assert!(held < 0.5 * free, "{held} of {free}");
    // A good token that falls is held; alone, a bad example makes the good one fall.
    examples[0].weight = 0.01;
    let fallen = |penalty: f32| {
        let config = TrainConfig { likelihood_drop_penalty: penalty, ..config.clone() };
        let (_, adapter) = train_llama(&examples, &config);
        let decoder = load_decoder(&folder("llama_tied"), MAX_TOKENS).expect("a checkpoint");
        logprob(&decoder, &adapter, &examples[0])
    };
    let (free, held) = (fallen(0.0), fallen(200.0));
    assert!(held > free + 1e-3, "{held} {free}");
}

/// log p of an example's targets.
fn logprob(decoder: &Decoder, adapter: &Adapter, example: &Example) -> f64 {
    let mut cache = KvCache::new(decoder.config());
    let mut chunks = [Chunk { cache: &mut cache, tokens: &example.ids }];
    let rows: Vec<usize> = (0..example.ids.len()).collect();
    let hidden = decoder.forward(Some(adapter), &mut chunks, &rows, &mut Workspace::default());
    let mut logits = Vec::new();
    decoder.logits(&hidden, &mut logits);
    let rows: Vec<&[f32]> = logits.chunks_exact(decoder.config().vocab_size).collect();
    let targets = (1..example.ids.len()).filter(|position| example.loss_mask[*position] == 1);
    let of = |position: usize| exsearch_kernels::log_softmax_at(rows[position - 1], example.ids[position] as usize);
    targets.map(|position| f64::from(of(position))).sum()
}
