//! `exsearch weigh`: log-probs of gold answers to importance weights.
use super::run_config;
use crate::output::Output;
use exsearch_run::{read_jsonl, write_jsonl};
use exsearch_trainset::{Scored, weigh};
use std::path::PathBuf;

/// Weigh trajectories by the probability that each gives the gold answer
///
/// The weights of a question's trajectories sum to 1. Prints the multi-sample bound, the effective sample size and how many
/// questions no trajectory supports.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scores that `exsearch sample --scores` wrote
    scores: PathBuf,
    /// A run configuration: its `weights` are used
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the weights go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let config = run_config(&args.config)?;
    let scored: Vec<Scored> = read_jsonl(&args.scores)?;
    let weighed = weigh(&scored, &config.weights)?;
    write_jsonl(&args.out, &weighed.weights)?;
    output.line(serde_json::to_string_pretty(&weighed.diagnostics)?)
}
