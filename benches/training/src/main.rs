//! Seconds an optimizer step and peak memory of our trainer, for one method and size a process: the side of
//! `torch_step.py` that is ours, with the same ids, settings and output.
//!
//!     exsearch-bench-training MODEL (lora|full) BATCH LENGTH STEPS [checkpointed|default]    one JSON line
//!     exsearch-bench-training MODEL start-adapter DIR    the adapter that LoRA starts from, for torch too
//!
//! A step is all that the trainer does between two reports: forward, backward, norm, clipping and AdamW. The first one
//! allocates and is not counted.
use exsearch_model::checkpoint::{load_decoder, save_adapter};
use exsearch_model::decoder::Decoder;
use exsearch_schema::Example;
use exsearch_trainer::{Method, Schedule, StepReport, Student, TrainConfig, train};
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const USAGE: &str = "usage: MODEL (lora|full) BATCH LENGTH STEPS [checkpointed|default], or MODEL start-adapter DIR";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [model, "start-adapter", dir] => {
            let decoder = load_decoder(Path::new(model), 1)?;
            save_adapter(&settings(Method::Lora, 1, 1).new_adapter(&decoder), Path::new(model), Path::new(dir))?;
        }
        [model, method @ ("lora" | "full"), batch, length, steps, ref kind @ ..] if kind.len() <= 1 => {
            let method = if method == "lora" { Method::Lora } else { Method::Full };
            let mut settings = settings(method, batch.parse()?, steps.parse::<usize>()? + 1);
            settings.activation_mb = match kind {
                ["checkpointed"] => 0,
                ["default"] => settings.activation_mb,
                [] => usize::MAX >> 20,
                _ => return Err(USAGE.into()),
            };
            measure(Path::new(model), &settings, length.parse()?)?;
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn measure(model: &Path, settings: &TrainConfig, length: usize) -> Result<(), Box<dyn Error>> {
    let mut decoder = load_decoder(model, length + 1)?;
    let (method, batch) = (settings.method, settings.batch_size);
    let examples = examples(batch, length, decoder.config().vocab_size);
    let (mut losses, mut step_secs) = (Vec::new(), Vec::new());
    let mut last = Instant::now();
    let mut on_step = |step: &StepReport| {
        losses.push(step.loss);
        step_secs.push(last.elapsed().as_secs_f64());
        last = Instant::now();
    };
    match method {
        Method::Lora => train_lora(&decoder, &examples, settings, &mut on_step)?,
        Method::Full => train(Student::Full(&mut decoder), &examples, settings, &mut on_step)?,
    }
    let kind = match settings.activation_mb {
        0 => " checkpointed",
        mb if mb == TrainConfig::default().activation_mb => " default",
        _ => "",
    };
    let config = format!("{} {batch}x{length}{kind}", if method == Method::Lora { "lora" } else { "full" });
    let line = json!({
        "side": "ours", "config": config, "losses": losses, "step_secs": step_secs[1..],
        "peak_bytes": peak_bytes()?,
    });
    println!("{line}");
    Ok(())
}

fn train_lora(
    decoder: &Decoder,
    examples: &[Example],
    settings: &TrainConfig,
    on_step: &mut dyn FnMut(&StepReport),
) -> Result<(), Box<dyn Error>> {
    let mut adapter = settings.new_adapter(decoder);
    let student = Student::Adapter { decoder, adapter: &mut adapter };
    Ok(train(student, examples, settings, on_step)?)
}

/// The settings of `torch_step.py`; every epoch is one step over the same batch.
fn settings(method: Method, batch: usize, epochs: usize) -> TrainConfig {
    TrainConfig {
        method,
        epochs,
        batch_size: batch,
        learning_rate: 1e-4,
        warmup_ratio: 0.0,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        ..TrainConfig::default()
    }
}

/// Sequences of `length` inputs and as many targets: one id more than `length`, and all but the first are learned.
fn examples(batch: usize, length: usize, vocabulary: usize) -> Vec<Example> {
    // Knuth's MMIX generator; torch_step.py draws the same ids.
    let mut state = 42u64;
    let mut next_id = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % vocabulary as u64) as u32
    };
    let example = |sample_idx| {
        let ids = (0..=length).map(|_| next_id()).collect();
        let loss_mask = (0..=length).map(|idx| u8::from(idx > 0)).collect();
        Example { question_id: "bench".into(), sample_idx, ids, loss_mask, weight: 1.0, target_weights: Vec::new() }
    };
    (0..batch as u32).map(example).collect()
}

/// The most memory that the process ever held, mapped weight files included.
fn peak_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the kernel reports no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
