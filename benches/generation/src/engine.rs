//! The engine as an E-step uses it: many samples of a prompt, and gold answers after contexts with a common beginning. Ids are
//! drawn, nothing ends a turn early, so that the work is the same whatever the model says.
use crate::prompts;
use exsearch_engine::{Decode, Engine, EngineConfig};
use exsearch_model::checkpoint::load_decoder;
use exsearch_schema::{GenerateRequest, Generator, Sampling, ScoreRequest, Scorer};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

struct NoText;

impl Decode for NoText {
    fn decode(&self, _: &[u32]) -> String {
        String::new()
    }

    fn end_ids(&self) -> &[u32] {
        &[]
    }
}

/// `n` prompts of 300 tokens, 8 samples of 48 tokens each.
pub(crate) fn sample(model: &Path, config: EngineConfig, n: usize) -> Result<(), Box<dyn Error>> {
    let decoder = load_decoder(model, 1024)?;
    let engine = Engine::new(&decoder, None, &NoText, config);
    let mut generator = &engine;
    let start = Instant::now();
    for context in prompts(n, 300, decoder.config().vocab_size) {
        for seed in 0..8 {
            let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 48, stop: Vec::new(), seed };
            generator.submit(GenerateRequest { context: context.clone(), sampling, messages: Vec::new() });
        }
    }
    while !generator.wait().is_empty() {}
    let secs = start.elapsed().as_secs_f64();
    println!("{:.1} samples a second, {} MB at most; {:?}", 8.0 * n as f64 / secs, peak_mb()?, engine.stats());
    Ok(())
}

/// `n` groups of 4 contexts of 700 tokens, the first 300 of them common; three answers of 6 tokens behind each, two of which
/// begin alike.
pub(crate) fn score(model: &Path, n: usize) -> Result<(), Box<dyn Error>> {
    let decoder = load_decoder(model, 1024)?;
    let vocabulary = decoder.config().vocab_size;
    let tails = prompts(4 * n, 400, vocabulary);
    let beginnings = prompts(n + 1, 300, vocabulary);
    let requests: Vec<ScoreRequest> = tails
        .iter()
        .enumerate()
        .map(|(idx, tail)| {
            // Another beginning than the tails', which are drawn alike.
            let context: Vec<u32> = beginnings[idx / 4].iter().rev().chain(tail).copied().collect();
            let mut continuations: Vec<Vec<u32>> = tail[..18].chunks_exact(6).map(<[u32]>::to_vec).collect();
            continuations[1][0] = continuations[0][0];
            ScoreRequest { context, continuations }
        })
        .collect();
    let engine = Engine::new(&decoder, None, &NoText, EngineConfig::default());
    let start = Instant::now();
    let scores = (&engine).score(&requests);
    let secs = start.elapsed().as_secs_f64();
    let sum: f64 = scores.into_iter().flat_map(|scores| scores.expect("scored")).map(f64::from).sum();
    println!(
        "{:.2} contexts a second, {} MB at most, sum of scores {sum:.3}; {:?}",
        requests.len() as f64 / secs,
        peak_mb()?,
        engine.stats()
    );
    Ok(())
}

/// The most memory that this process has had.
fn peak_mb() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? / 1024)
}
