//! Logits, log-probs and greedy text against transformers on small random checkpoints. The golden files and the script that
//! made them are in `crates/model/tests/golden`.
use exsearch_engine::{Decode, Engine, EngineConfig};
use exsearch_model::checkpoint::load_decoder;
use exsearch_model::decoder::{Chunk, Int8Weights, KvCache, Workspace};
use exsearch_schema::{GenerateRequest, Generator, Sampling, ScoreRequest, Scorer};
use serde_json::Value;
use std::path::PathBuf;

/// One of each family, and of each switch of one. The rows of those with windows are longer than them.
const CHECKPOINTS: &[&str] = &["llama_tied", "llama_untied", "llama_biased", "mistral", "qwen2", "qwen3", "gemma3"];
const MAX_TOKENS: usize = 128;
const TOLERANCE: f32 = 2e-4;
/// Of random checkpoints, whose sums of 64 average less away than a real one's.
const MAX_KL: f32 = 0.02;

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

/// The mean KL divergence, in nats, of what weights in bytes predict from what the checkpoint does.
#[test]
fn weights_in_bytes_predict_nearly_the_same() {
    for name in CHECKPOINTS {
        let decoder = load_decoder(&folder(name), MAX_TOKENS).expect("a checkpoint");
        let int8 = Int8Weights::new(decoder.parameters());
        let ids = numbers::<Vec<Vec<u32>>>(&golden(name)["input_ids"]).remove(0);
        let wanted: Vec<usize> = (0..ids.len()).collect();
        let [p, q] = [None, Some(&int8)].map(|int8| {
            let (mut cache, mut workspace) = (KvCache::new(decoder.config()), Workspace::default());
            let inference = decoder.inference(None, int8);
            let mut chunks = [Chunk { cache: &mut cache, tokens: &ids }];
            let hidden = inference.forward(&mut chunks, &wanted, &mut workspace);
            let mut logits = Vec::new();
            inference.logits(&hidden, &mut logits, &mut workspace);
            for row in logits.chunks_exact_mut(decoder.config().vocab_size) {
                exsearch_kernels::softmax(row);
            }
            logits
        });
        assert_ne!(p, q, "{name}: bytes are computed with");
        let kl = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f32>() / ids.len() as f32;
        assert!((0.0..MAX_KL).contains(&kl), "{name}: {kl}");
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
