//! Tokens a second of our decoder, prefill and decoding apart, for one batch size a process: the side of
//! `torch_generate.py` that is ours, with the same ids, greedy choices and output (one JSON line).
//!
//!     exsearch-bench-generation MODEL BATCH PROMPT_TOKENS NEW_TOKENS
use exsearch_model::checkpoint::load_decoder;
use exsearch_model::decoder::{Chunk, Decoder, KvCache, Workspace};
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const N_REPEATS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, batch, prompt, new] = &args[..] else {
        return Err("usage: MODEL BATCH PROMPT_TOKENS NEW_TOKENS".into());
    };
    let (batch, prompt, new): (usize, usize, usize) = (batch.parse()?, prompt.parse()?, new.parse()?);
    let decoder = load_decoder(Path::new(model), prompt + new)?;
    let prompts = prompts(batch, prompt, decoder.config().vocab_size);
    let (mut prefill_secs, mut decode_secs, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..N_REPEATS {
        let mut caches: Vec<KvCache> = prompts.iter().map(|_| KvCache::new(decoder.config())).collect();
        let mut workspace = Workspace::default();
        let start = Instant::now();
        // One prompt a pass, as the engine's limit of 512 rows has it.
        let mut last: Vec<u32> = Vec::new();
        for (cache, prompt) in caches.iter_mut().zip(&prompts) {
            let mut chunks = [Chunk { cache, tokens: prompt }];
            last.extend(next(&decoder, &mut chunks, &[prompt.len() - 1], &mut workspace));
        }
        prefill_secs.push(start.elapsed().as_secs_f64());
        first = vec![last[0]];
        let start = Instant::now();
        let wanted: Vec<usize> = (0..batch).collect();
        for _ in 1..new {
            let tokens = last.chunks_exact(1);
            let mut chunks: Vec<Chunk<'_>> =
                caches.iter_mut().zip(tokens).map(|(cache, tokens)| Chunk { cache, tokens }).collect();
            last = next(&decoder, &mut chunks, &wanted, &mut workspace);
            first.push(last[0]);
        }
        decode_secs.push(start.elapsed().as_secs_f64());
    }
    let line = json!({
        "side": "ours", "batch": batch, "prefill_tokens": batch * prompt, "prefill_secs": prefill_secs,
        "decode_tokens": batch * (new - 1), "decode_secs": decode_secs, "first_ids": first,
    });
    println!("{line}");
    Ok(())
}

/// The most probable next token behind each of the wanted rows.
fn next(decoder: &Decoder, chunks: &mut [Chunk<'_>], wanted: &[usize], workspace: &mut Workspace) -> Vec<u32> {
    let hidden = decoder.forward(None, chunks, wanted, workspace);
    let mut logits = Vec::new();
    decoder.logits(&hidden, &mut logits);
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a vocabulary") as u32;
    logits.chunks_exact(decoder.config().vocab_size).map(best).collect()
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
