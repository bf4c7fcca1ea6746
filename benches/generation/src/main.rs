//! Our decoder as it generates: how fast, beside `torch_generate.py`, and how far weights in bytes are from f32.
//!
//!     exsearch-bench-generation speed MODEL WEIGHTS BATCH PROMPT_TOKENS NEW_TOKENS
//!     exsearch-bench-generation quality MODEL TEXT N_TEXTS
//!     exsearch-bench-generation sample MODEL WEIGHTS N_PROMPTS
//!     exsearch-bench-generation score MODEL N_GROUPS
//!
//! WEIGHTS is f32 or int8. `speed` prints one JSON line, the others text.
mod engine;
mod quality;

use exsearch_engine::{EngineConfig, GenerationWeights};
use exsearch_model::checkpoint::load_decoder;
use exsearch_model::decoder::{Chunk, Inference, Int8Weights, KvCache, Workspace};
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const N_REPEATS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["speed", model, weights, batch, prompt, new] => {
            speed(Path::new(model), weights, batch.parse()?, prompt.parse()?, new.parse()?)
        }
        ["sample", model, weights, n] => {
            let config = EngineConfig { weights: parse(weights)?, ..EngineConfig::default() };
            engine::sample(Path::new(model), config, n.parse()?)
        }
        ["score", model, n] => engine::score(Path::new(model), n.parse()?),
        ["quality", model, text, n_texts] => quality::print(Path::new(model), Path::new(text), n_texts.parse()?),
        _ => Err("speed, quality, sample or score and what belongs to it: see src/main.rs".into()),
    }
}

fn parse(weights: &str) -> Result<GenerationWeights, Box<dyn Error>> {
    match weights {
        "f32" => Ok(GenerationWeights::F32),
        "int8" => Ok(GenerationWeights::Int8),
        _ => Err("weights are f32 or int8".into()),
    }
}

/// Tokens a second, prefill and decoding apart, for one batch size a process; greedy.
fn speed(model: &Path, weights: &str, batch: usize, prompt: usize, new: usize) -> Result<(), Box<dyn Error>> {
    let decoder = load_decoder(model, prompt + new)?;
    let int8 = (parse(weights)? == GenerationWeights::Int8).then(|| Int8Weights::new(decoder.parameters()));
    let inference = decoder.inference(None, int8.as_ref());
    let prompts = prompts(batch, prompt, decoder.config().vocab_size);
    let (mut prefill_secs, mut decode_secs, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..N_REPEATS {
        let mut caches: Vec<KvCache> = prompts.iter().map(|_| KvCache::new(decoder.config())).collect();
        let mut buffers = Buffers::default();
        let start = Instant::now();
        // One prompt a pass, as the engine's limit of 512 rows has it.
        let mut last: Vec<u32> = Vec::new();
        for (cache, prompt) in caches.iter_mut().zip(&prompts) {
            let mut chunks = [Chunk { cache, tokens: prompt }];
            last.extend(next(inference, &mut chunks, &[prompt.len() - 1], &mut buffers));
        }
        prefill_secs.push(start.elapsed().as_secs_f64());
        first = vec![last[0]];
        let start = Instant::now();
        let wanted: Vec<usize> = (0..batch).collect();
        for _ in 1..new {
            let tokens = last.chunks_exact(1);
            let mut chunks: Vec<Chunk<'_>> =
                caches.iter_mut().zip(tokens).map(|(cache, tokens)| Chunk { cache, tokens }).collect();
            last = next(inference, &mut chunks, &wanted, &mut buffers);
            first.push(last[0]);
        }
        decode_secs.push(start.elapsed().as_secs_f64());
    }
    let n_bytes = match &int8 {
        None => 4 * decoder.parameters().tensors().map(|(_, shape, _)| shape.iter().product::<usize>()).sum::<usize>(),
        Some(weights) => weights.n_bytes(),
    };
    let line = json!({
        "side": format!("ours {weights}"), "batch": batch, "prefill_tokens": batch * prompt,
        "prefill_secs": prefill_secs, "decode_tokens": batch * (new - 1), "decode_secs": decode_secs,
        "first_ids": first, "weight_bytes": n_bytes,
    });
    println!("{line}");
    Ok(())
}

/// Buffers that are kept from pass to pass.
#[derive(Default)]
struct Buffers {
    workspace: Workspace,
    logits: Vec<f32>,
}

/// The most probable next token behind each of the wanted rows.
fn next(inference: Inference<'_>, chunks: &mut [Chunk<'_>], wanted: &[usize], buffers: &mut Buffers) -> Vec<u32> {
    let Buffers { workspace, logits } = buffers;
    let hidden = inference.forward(chunks, wanted, workspace);
    inference.logits(&hidden, logits, workspace);
    logits.chunks_exact(inference.config().vocab_size).map(best).collect()
}

/// The most probable token of a row.
fn best(row: &[f32]) -> u32 {
    let largest = exsearch_kernels::max(row);
    row.iter().position(|logit| *logit == largest).expect("one is the largest") as u32
}

/// Ids of Knuth's MMIX generator; torch_generate.py draws the same.
fn prompts(batch: usize, length: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let mut state = 42u64;
    let mut next_id = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % vocabulary as u64) as u32
    };
    (0..batch).map(|_| (0..length).map(|_| next_id()).collect()).collect()
}
