//! Logits, log-probs and greedy text against transformers on small random checkpoints. The golden files and the script that
//! made them are in `crates/model/tests/golden`.
use exsearch_engine::{Decode, Engine, EngineConfig};
use exsearch_model::checkpoint::load_decoder;
use exsearch_model::decoder::{Chunk, KvCache, Workspace};
use exsearch_schema::{GenerateRequest, Generator, Sampling, ScoreRequest, Scorer};
use serde_json::Value;
use std::path::PathBuf;

/// One of each family, and of each switch of one. The rows of those with windows are longer than them.
const CHECKPOINTS: &[&str] = &["llama_tied", "llama_untied", "llama_biased", "mistral", "qwen2", "qwen3", "gemma3"];
const MAX_TOKENS: usize = 128;
const TOLERANCE: f32 = 2e-4;

struct NoText;

impl Decode for NoText {
    fn decode(&self, _: &[u32]) -> String {
        String::new()
    }

    fn end_ids(&self) -> &[u32] {
        &[]
    }
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name)
}

fn golden(name: &str) -> Value {
    let path = folder(name).join("golden.json");
    serde_json::from_slice(&std::fs::read(path).expect("the golden file is committed")).expect("JSON")
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("numbers")
}

#[test]
fn logits_agree_with_transformers() {
    for name in CHECKPOINTS {
        let golden = golden(name);
        let decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        let positions: Vec<usize> = numbers(&golden["logit_positions"]);
        let expected: Vec<Vec<Vec<f32>>> = numbers(&golden["logits"]);
        for (ids, expected) in numbers::<Vec<Vec<u32>>>(&golden["input_ids"]).iter().zip(expected) {
            let mut cache = KvCache::new(decoder.config());
            let mut chunks = [Chunk { cache: &mut cache, tokens: ids }];
            let hidden = decoder.forward(None, &mut chunks, &positions, &mut Workspace::default());
            let mut logits = Vec::new();
            decoder.logits(&hidden, &mut logits);
            for (actual, expected) in logits.iter().zip(expected.iter().flatten()) {
                assert!(
                    (actual - expected).abs() < TOLERANCE * (1.0 + expected.abs()),
                    "{name}: {actual} != {expected}"
                );
            }
        }
    }
}

#[test]
fn log_probs_agree_with_transformers() {
    for name in CHECKPOINTS {
        let golden = golden(name);
        let decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        let engine = Engine::new(&decoder, None, &NoText, EngineConfig::default());
        let rows: Vec<Vec<u32>> = numbers(&golden["input_ids"]);
        for (ids, expected) in rows.iter().zip(numbers::<Vec<Vec<f32>>>(&golden["logprobs"])) {
            for split in [1, 9, 20] {
                let request =
                    ScoreRequest { context: ids[..split].to_vec(), continuations: vec![ids[split..].to_vec()] };
                let actual = (&engine).score(&[request])[0].as_ref().expect("scored")[0];
                let expected: f32 = expected[split - 1..].iter().sum();
                assert!((actual - expected).abs() < 1e-4 * expected.abs(), "{name}: {actual} != {expected}");
            }
        }
    }
}

#[test]
fn greedy_text_agrees_with_transformers() {
    for name in CHECKPOINTS {
        let golden = golden(name);
        let decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        let engine = Engine::new(&decoder, None, &NoText, EngineConfig::default());
        let length: usize = numbers(&golden["prompt_length"]);
        let context = numbers::<Vec<Vec<u32>>>(&golden["input_ids"])[0][..length].to_vec();
        let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 20, stop: Vec::new(), seed: 0 };
        let mut generator = &engine;
        generator.submit(GenerateRequest { context, sampling, messages: Vec::new() });
        let (_, generation) = generator.wait().pop().expect("one result");
        assert_eq!(generation.expect("generated").ids, numbers::<Vec<u32>>(&golden["greedy"]));
    }
}
