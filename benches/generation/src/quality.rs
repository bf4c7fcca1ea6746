//! Weights in bytes against f32 on the lines of a text file: what every position predicts, and what greedy decoding writes.
use crate::Buffers;
use exsearch_model::checkpoint::load_decoder;
use exsearch_model::decoder::{Chunk, Inference, Int8Weights, KvCache, Workspace};
use exsearch_model::tokenizer::Tokenizer;
use std::error::Error;
use std::path::Path;

/// Tokens of a line that are looked at, and tokens that are written behind the first half of them.
const TOKENS: usize = 128;
const WRITTEN: usize = 64;

/// Prints the table for the first `n_texts` lines that are long enough.
pub(crate) fn print(model: &Path, text: &Path, n_texts: usize) -> Result<(), Box<dyn Error>> {
    let decoder = load_decoder(model, 2 * TOKENS)?;
    let tokenizer = Tokenizer::open(model)?;
    let int8 = Int8Weights::new(decoder.parameters());
    let (exact, bytes) = (decoder.inference(None, None), decoder.inference(None, Some(&int8)));
    let vocabulary = decoder.config().vocab_size;
    let (mut kls, mut gains, mut agreed, mut losses) = (Vec::new(), Vec::new(), 0, [0.0; 2]);
    let (mut n_texts_seen, mut equal, mut until_different) = (0, 0, 0);
    for line in std::fs::read_to_string(text)?.lines() {
        let mut ids = tokenizer.encode_plain(line)?;
        if ids.len() < TOKENS || n_texts_seen == n_texts {
            continue;
        }
        n_texts_seen += 1;
        ids.truncate(TOKENS);
        let [p, q] = [exact, bytes].map(|inference| log_probs(inference, &ids, vocabulary));
        for (position, (p, q)) in p.chunks_exact(vocabulary).zip(q.chunks_exact(vocabulary)).enumerate() {
            kls.push(p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
            agreed += usize::from(best(p) == best(q));
            if let Some(&id) = ids.get(position + 1) {
                losses = [losses[0] - p[id as usize], losses[1] - q[id as usize]];
                gains.push(q[id as usize] - p[id as usize]);
            }
        }
        let [p, q] = [exact, bytes].map(|inference| write(inference, &ids[..TOKENS / 2]));
        let same = p.iter().zip(&q).take_while(|(p, q)| p == q).count();
        equal += usize::from(same == WRITTEN);
        until_different += same;
    }
    if n_texts_seen == 0 {
        return Err(format!("no line of {} has {TOKENS} tokens", text.display()).into());
    }
    kls.sort_by(f64::total_cmp);
    let (n, n_targets) = (kls.len() as f64, gains.len() as f64);
    let mean_gain = gains.iter().sum::<f64>() / n_targets;
    let deviation = (gains.iter().map(|gain| (gain - mean_gain).powi(2)).sum::<f64>() / n_targets).sqrt();
    println!("{n_texts_seen} texts of {TOKENS} tokens");
    println!(
        "KL(f32 || int8) in nats: mean {:.6}, median {:.6}, 99 % below {:.6}, largest {:.6}",
        kls.iter().sum::<f64>() / n,
        kls[kls.len() / 2],
        kls[kls.len() * 99 / 100],
        kls[kls.len() - 1]
    );
    println!(
        "log p(next token): f32 {:.5}, int8 {:.5}; their difference {mean_gain:+.6} +- {deviation:.5}",
        -losses[0] / n_targets,
        -losses[1] / n_targets
    );
    println!("same most probable token: {:.2} % of {n} positions", 100.0 * agreed as f64 / n);
    println!(
        "greedy texts of {WRITTEN} tokens: {equal} of {n_texts_seen} equal, the same for {:.1} tokens in the mean",
        until_different as f64 / n_texts_seen as f64
    );
    println!("weights: {:.1} MB in bytes", int8.n_bytes() as f64 / 1e6);
    Ok(())
}

/// log p of every token behind each of `ids`, in f64: `[t, v]`.
fn log_probs(inference: Inference<'_>, ids: &[u32], vocabulary: usize) -> Vec<f64> {
    let mut cache = KvCache::new(inference.config());
    let (mut logits, mut workspace) = (Vec::new(), Workspace::default());
    let wanted: Vec<usize> = (0..ids.len()).collect();
    let hidden = inference.forward(&mut [Chunk { cache: &mut cache, tokens: ids }], &wanted, &mut workspace);
    inference.logits(&hidden, &mut logits, &mut workspace);
    let normalize = |row: &[f32]| {
        let largest = row.iter().fold(f32::NEG_INFINITY, |largest, x| largest.max(*x));
        let sum: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
        let lse = f64::from(largest) + sum.ln();
        row.iter().map(|x| f64::from(*x) - lse).collect::<Vec<f64>>()
    };
    logits.chunks_exact(vocabulary).flat_map(normalize).collect()
}

/// What greedy decoding writes behind `prompt`.
fn write(inference: Inference<'_>, prompt: &[u32]) -> Vec<u32> {
    let (mut cache, mut buffers) = (KvCache::new(inference.config()), Buffers::default());
    let mut next = |tokens: &[u32]| {
        let mut chunks = [Chunk { cache: &mut cache, tokens }];
        crate::next(inference, &mut chunks, &[tokens.len() - 1], &mut buffers)[0]
    };
    let mut written = vec![next(prompt)];
    while written.len() < WRITTEN {
        written.push(next(&written[written.len() - 1..]));
    }
    written
}

fn best(row: &[f64]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a vocabulary")
}
