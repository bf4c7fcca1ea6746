//! Passages a CPU-second of our text encoder: the side of `onnx_encode.py` that is ours, with the same passages, lengths and
//! output.
//!
//!     exsearch-bench-encoding MODEL PASSAGES.tsv N THREADS REPEATS    one JSON line
//!
//! With the feature `ort` MODEL may be an ONNX file, run by the library of ORT_DYLIB_PATH.
//!
//! N passages, spread over the file, are encoded as `title | text`, tokenization included. Their vectors are printed too, so
//! that both sides are seen to do the same work.
use exsearch_model::encoder::{EncoderConfig, open_encoder};
use exsearch_schema::TextRole;
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, passages, n, threads, repeats] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return Err("usage: MODEL PASSAGES.tsv N THREADS REPEATS".into());
    };
    let texts = spread(&std::fs::read_to_string(passages)?, n.parse()?);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let config = EncoderConfig { threads: Some(threads.parse()?), ..EncoderConfig::default() };
    #[cfg(feature = "ort")]
    if let Some(library) = std::env::var_os("ORT_DYLIB_PATH") {
        exsearch_model::encoder::load_onnxruntime(Path::new(&library))?;
    }
    let file = Path::new(model).file_name().unwrap_or_default().to_string_lossy();
    let side = if file.ends_with(".onnx") { format!("ours, {file}") } else { "ours".to_owned() };
    let encoder = open_encoder(Path::new(model), None, &config)?;
    encoder.encode(&texts[..texts.len().min(8)], TextRole::Passage)?;
    let (mut cpu_secs, mut wall_secs, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeats.parse()? {
        let (start, cpu) = (Instant::now(), process_cpu_secs()?);
        let embeddings = encoder.encode(&texts, TextRole::Passage)?;
        cpu_secs.push(process_cpu_secs()? - cpu);
        wall_secs.push(start.elapsed().as_secs_f64());
        vectors = embeddings.into_iter().map(|embedding| embedding.values).collect();
    }
    let line = json!({
        "side": side, "threads": threads, "n_passages": texts.len(), "cpu_secs": cpu_secs, "wall_secs": wall_secs,
        "vectors": vectors,
    });
    println!("{line}");
    Ok(())
}

/// `n` passages of DPR's TSV (`id`, quoted `text`, `title`, header) at equal distances, as `title | text`.
fn spread(tsv: &str, n: usize) -> Vec<String> {
    let lines: Vec<&str> = tsv.lines().skip(1).collect();
    let step = (lines.len() / n).max(1);
    let passage = |line: &&str| {
        let mut fields = line.split('\t').skip(1);
        let mut field = || unquoted(fields.next().unwrap_or_default());
        let (text, title) = (field(), field());
        format!("{title} | {text}")
    };
    lines.iter().step_by(step).take(n).map(passage).collect()
}

fn unquoted(field: &str) -> String {
    match field.strip_prefix('"').and_then(|field| field.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => field.to_owned(),
    }
}

/// User and system time of all threads, in steps of a hundredth of a second.
fn process_cpu_secs() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold spaces; behind it utime and stime are the 12th and 13th field.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}
